//! What the disk may do to an embedded store, and what the store answers.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use zeroize::Zeroizing;

use super::committer::Committer;
use super::format::{HEADER_BYTES, SegmentHeader, unframe};
use super::recovery;
use crate::conformance::{self, all_rows, append, committed, delete, put, verified_log};
use crate::{Damage, Opened, Outcome, Settings, SledStore, Store, StoreError, open_with};

/// Small segments, so that a few records fill several; an index that hangs is found out soon.
const SMALL: Settings = Settings {
    segment_bytes: 8192,
    index_patience: Duration::from_secs(10),
    snapshot_row_bytes: u64::MAX,
    snapshot_at_close: false,
};

/// The same, with a snapshot after every few records.
const SNAPSHOTS: Settings = Settings { snapshot_row_bytes: 6000, snapshot_at_close: true, ..SMALL };

type Rows = Vec<(String, u64, Vec<u8>)>;

/// Something that happens to a closed store.
type Change<'a> = &'a dyn Fn(&Path);

/// Everything that a store holds.
#[derive(Debug, PartialEq)]
struct Content {
    rows: Rows,
    leaves: Vec<Vec<u8>>,
}

async fn content(store: &SledStore) -> Content {
    Content { rows: all_rows(store, "").await, leaves: verified_log(store).await }
}

fn reopen(path: &Path) -> (SledStore, Opened) {
    open_with(path, &SMALL).unwrap()
}

fn refusal(path: &Path) -> StoreError {
    match open_with(path, &SMALL) {
        Err(error) => error,
        Ok((_, opened)) => panic!("it opens: {opened:?}"),
    }
}

fn damage(path: &Path) -> Damage {
    match refusal(path) {
        StoreError::JournalDamaged { damage, .. } => damage,
        other => panic!("{other}"),
    }
}

fn segment(path: &Path, number: u64) -> PathBuf {
    super::journal::path_of(&path.join("journal"), number)
}

/// A closed store with rows, a deleted row, a name, leaves over more than one tile, a slot, in
/// several segments.
async fn filled() -> (TempDir, Content) {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = reopen(folder.path());
    for i in 0..40_u32 {
        let mut batch = put(&format!("row/{:02}", i % 30), &[i as u8; 600]);
        batch.leaves = (0..10).map(|k| format!("leaf {i} {k}").into_bytes()).collect();
        batch.idempotency = Some([i as u8; 32]);
        committed(&store, batch).await;
    }
    committed(&store, delete("row/07")).await;
    store.put_slot(Zeroizing::new([9; 32])).await.unwrap();
    committed(&store, append(&[b"last"])).await;
    let content = content(&store).await;
    store.close().await.unwrap();
    (folder, content)
}

/// Copies a closed store.
pub(super) fn copy(from: &Path) -> TempDir {
    fn copy_into(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                fs::create_dir(&to).unwrap();
                copy_into(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), &to).unwrap();
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    copy_into(from, to.path());
    to
}

/// Where the records of a segment begin and end.
fn records(segment: &Path) -> Vec<(usize, usize)> {
    let bytes = fs::read(segment).unwrap();
    let store = SegmentHeader::decode(&bytes).unwrap().store;
    let (mut at, mut records) = (HEADER_BYTES, Vec::new());
    while let Some(framed) = unframe(&store, &bytes[at..]) {
        records.push((at, at + framed.bytes));
        at += framed.bytes;
    }
    records
}

fn flip(path: &Path, at: usize) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at as u64).unwrap();
}

async fn contract(settings: Settings) {
    let (root, count) = (tempfile::tempdir().unwrap(), AtomicU32::new(0));
    conformance::run(async || {
        let path = root.path().join(count.fetch_add(1, Ordering::Relaxed).to_string());
        let (store, opened) = open_with(&path, &settings).unwrap();
        assert!(opened.created);
        Arc::new(store) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    contract(Settings::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract_with_small_segments() {
    contract(SMALL).await;
}

#[tokio::test]
async fn a_store_that_is_opened_again_has_everything() {
    let (folder, expected) = filled().await;
    assert!(segment(folder.path(), 3).exists(), "the test wants several segments");
    for _ in 0..3 {
        let (store, opened) = reopen(folder.path());
        assert_eq!(opened, Opened::default());
        assert_eq!(content(&store).await, expected);
        assert_eq!(*store.read_slot(0).await.unwrap(), [9; 32]);
        let replayed = store.outcome_of(&[3; 32]).await.unwrap().unwrap();
        let leaf = kms_core::audit::merkle::leaf_hash(b"leaf 3 4");
        assert_eq!(replayed.receipt.index_of(&leaf), Some(34));
    }
    let (store, _) = reopen(folder.path());
    committed(&store, put("row/07", b"again")).await;
    assert_eq!(store.get("row/07").await.unwrap().unwrap().revision, 3);
}

#[tokio::test]
async fn files_are_private() {
    let (folder, _) = filled().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in ["", "journal", "index"] {
        assert_eq!(mode(&folder.path().join(name)), 0o700, "{name}");
    }
    for path in ["lock", "slots"].map(|name| folder.path().join(name)) {
        assert_eq!(mode(&path), 0o600);
    }
    assert_eq!(mode(&segment(folder.path(), 1)), 0o600);
}

#[tokio::test]
async fn a_second_daemon_is_locked_out_until_the_first_closes() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = reopen(folder.path());
    assert!(matches!(refusal(folder.path()), StoreError::Locked { path } if path == folder.path()));
    store.close().await.unwrap();
    drop(reopen(folder.path()));
    drop(store);
    drop(reopen(folder.path()));
}

/// A store as a crash leaves it in the middle of its last write: the index has not applied that
/// record. Also the bytes of the whole last segment, and where the record begins and ends in it.
async fn crashed() -> (TempDir, Content, PathBuf, Vec<u8>, (usize, usize)) {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = reopen(folder.path());
    let mut batch = put("kept", b"value");
    batch.leaves = vec![b"kept".to_vec()];
    committed(&store, batch.clone()).await;
    let expected = content(&store).await;
    store.close().await.unwrap();
    let crashed = copy(folder.path());
    let (store, _) = reopen(folder.path());
    batch.writes.push(crate::Write::Put { key: "torn".into(), value: vec![0xa5; 1200] });
    committed(&store, batch).await;
    store.close().await.unwrap();
    let name = segment(Path::new(""), 1);
    let bytes = fs::read(folder.path().join(&name)).unwrap();
    let last = *records(&folder.path().join(&name)).last().unwrap();
    (crashed, expected, name, bytes, last)
}

#[tokio::test]
async fn a_record_torn_at_any_byte_is_discarded_and_told() {
    let (folder, expected, name, whole, (begin, end)) = crashed().await;
    let path = folder.path().join(name);
    // Every byte of the head, and some of the body.
    let cuts = (begin + 1..begin + 90).chain((begin + 90..end).step_by(97)).chain([end - 1]);
    for cut in cuts {
        // The end of the payload may be zeros of its own; then nothing is torn.
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        let left = torn.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        if torn == whole {
            continue;
        }
        for bytes in [&torn[..], &torn[..cut]] {
            fs::write(&path, bytes).unwrap();
            let (store, opened) = reopen(folder.path());
            assert_eq!(opened.discarded_tail_bytes, left.saturating_sub(begin) as u64, "{cut}");
            assert!(!opened.rebuilt_index);
            if cut % 50 == 0 {
                assert_eq!(content(&store).await, expected);
            }
            drop(store);
            let (store, opened) = reopen(folder.path());
            assert_eq!(opened, Opened::default(), "the tail was wiped, cut at {cut}");
            drop(store);
        }
    }
}

#[tokio::test]
async fn a_record_whose_sectors_came_out_of_order_is_discarded() {
    let (folder, expected, name, whole, (begin, end)) = crashed().await;
    let path = folder.path().join(name);
    let sectors: Vec<usize> = (begin / 512..=end / 512).collect();
    assert!(sectors.len() >= 3);
    // Every set of sectors that did not reach the disk, but for the empty one.
    for missing in 1..1_u32 << sectors.len() {
        let mut torn = whole.clone();
        for (bit, sector) in sectors.iter().enumerate() {
            let from = begin.max(sector * 512);
            if missing & (1 << bit) != 0 {
                torn[from..end.min((sector + 1) * 512).max(from)].fill(0);
            }
        }
        if torn == whole {
            continue;
        }
        fs::write(&path, &torn).unwrap();
        let (store, _) = reopen(folder.path());
        assert_eq!(content(&store).await, expected, "missing {missing:b}");
    }
}

#[tokio::test]
async fn a_whole_record_that_the_index_lacks_is_applied() {
    let (folder, before, name, whole, _) = crashed().await;
    fs::write(folder.path().join(name), &whole).unwrap();
    let (store, opened) = reopen(folder.path());
    assert_eq!(opened, Opened { replayed_records: 1, ..Opened::default() });
    assert_eq!(content(&store).await.leaves.len(), before.leaves.len() + 1);
    assert_eq!(store.get("torn").await.unwrap().unwrap().value.len(), 1200);
}

/// Leaves are not brought to the index one by one. What a killed process had not brought there is
/// made good out of the journal, and reads the same before and after.
#[tokio::test]
async fn leaves_that_the_index_does_not_have_yet_are_served_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open_with(folder.path(), &Settings::default()).unwrap();
    committed(&store, put("row", b"value")).await;
    let leaf = |i: u32| format!("leaf {i}").into_bytes();
    let (few, many) = (700, 70 * 256 + 9);
    for leaves in [0..few, few..many].map(|range| range.map(leaf).collect::<Vec<_>>()) {
        for leaves in leaves.chunks(50) {
            let leaves = leaves.to_vec();
            committed(&store, crate::Batch { leaves, ..crate::Batch::default() }).await;
        }
        let expected = content(&store).await;
        // The folder as a kill at this moment leaves it.
        let killed = copy(folder.path());
        let (again, opened) = open_with(killed.path(), &Settings::default()).unwrap();
        assert!(!opened.rebuilt_index && opened.replayed_records > 0, "{opened:?}");
        assert!(content(&again).await == expected);
        again.close().await.unwrap();
        let (again, opened) = open_with(killed.path(), &Settings::default()).unwrap();
        assert_eq!(opened, Opened::default(), "closing brings everything to the index");
        assert!(content(&again).await == expected);
    }
}

#[tokio::test]
async fn no_flipped_bit_before_the_last_record_goes_unnoticed() {
    let (folder, _) = filled().await;
    let journal = folder.path().join("journal");
    for number in [1, 2] {
        let path = segment(folder.path(), number);
        let good = fs::read(&path).unwrap();
        let used = records(&path).last().unwrap().1;
        // Past the used part a flip is either in a place nobody wrote or told as damage.
        for at in (0..used).step_by(3).chain([used, good.len() - 1]) {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            let verdict = super::journal::verify(&journal, None, 0, &mut |_, _, _| true);
            assert!(matches!(verdict, Err(StoreError::JournalDamaged { .. })), "{number} {at}");
        }
        fs::write(&path, &good).unwrap();
    }
    assert!(super::journal::verify(&journal, None, 0, &mut |_, _, _| true).is_ok());
}

#[tokio::test]
async fn damage_in_the_middle_is_refused_by_name_and_place() {
    let (good, expected) = filled().await;
    let last = (1..).take_while(|n| segment(good.path(), *n).exists()).last().unwrap();
    let in_last = records(&segment(good.path(), last));
    assert!(in_last.len() >= 2, "the test wants two records in the last segment");
    for (offset, field) in [
        (0, "magic"),
        (5, "length"),
        (9, "sequence"),
        (20, "before"),
        (60, "hash"),
        (81, "crc"),
        (86, "zeros"),
        (100, "body"),
    ] {
        let folder = copy(good.path());
        let record = in_last[in_last.len() - 2].0;
        flip(&segment(folder.path(), last), record + offset);
        match refusal(folder.path()) {
            StoreError::JournalDamaged { segment: path, offset, damage } => {
                assert_eq!(path, segment(folder.path(), last), "{field}");
                assert_eq!((offset, damage), (record as u64, Damage::Record), "{field}");
            }
            other => panic!("{field}: {other}"),
        }
    }
    // A store that was refused is as it was: with the damage undone it opens.
    let folder = copy(good.path());
    flip(&segment(folder.path(), 1), HEADER_BYTES + 100);
    assert_eq!(damage(folder.path()), Damage::Record);
    flip(&segment(folder.path(), 1), HEADER_BYTES + 100);
    let (store, opened) = reopen(folder.path());
    assert_eq!((content(&store).await, opened), (expected, Opened::default()));
}

#[tokio::test]
async fn segments_that_are_missing_swapped_or_foreign_are_refused() {
    let (good, _) = filled().await;
    let (other, _) = filled().await;
    let change = |change: &dyn Fn(&Path)| {
        let folder = copy(good.path());
        change(folder.path());
        damage(folder.path())
    };
    let remove = |n| change(&|path| fs::remove_file(segment(path, n)).unwrap());
    assert_eq!((remove(1), remove(2)), (Damage::SegmentMissing, Damage::SegmentMissing));
    let foreign = change(&|path| {
        fs::copy(segment(other.path(), 2), segment(path, 2)).unwrap();
    });
    assert_eq!(foreign, Damage::SegmentOrder);
    let swapped = change(&|path| {
        fs::copy(segment(good.path(), 3), segment(path, 2)).unwrap();
    });
    assert_eq!(swapped, Damage::SegmentOrder);
    let header = change(&|path| flip(&segment(path, 2), 30));
    assert_eq!(header, Damage::Header);
    let all = change(&|path| fs::remove_dir_all(path.join("journal")).unwrap());
    assert_eq!(all, Damage::SegmentMissing);
    let last_record = change(&|path| {
        let first = segment(path, 1);
        let (begin, end) = *records(&first).last().unwrap();
        let file = OpenOptions::new().write(true).open(&first).unwrap();
        file.write_all_at(&vec![0; end - begin], begin as u64).unwrap();
    });
    assert_eq!(last_record, Damage::SegmentOrder);
}

#[tokio::test]
async fn an_acknowledged_record_that_is_gone_is_refused_as_long_as_the_index_knows_of_it() {
    let (folder, expected) = filled().await;
    let last = (1..).take_while(|n| segment(folder.path(), *n).exists()).last().unwrap();
    let (begin, _) = *records(&segment(folder.path(), last)).last().unwrap();
    flip(&segment(folder.path(), last), begin + 90);
    // Asking twice does not wear the evidence down.
    assert_eq!(damage(folder.path()), Damage::EndMissing);
    assert_eq!(damage(folder.path()), Damage::EndMissing);
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (store, opened) = reopen(folder.path());
    assert!(opened.discarded_tail_bytes > 0 && opened.rebuilt_index);
    let found = content(&store).await;
    assert_eq!(found.rows, expected.rows);
    assert_eq!(found.leaves, expected.leaves[..expected.leaves.len() - 1]);
}

#[tokio::test]
async fn an_index_that_is_gone_or_not_to_be_trusted_is_made_anew() {
    let (good, expected) = filled().await;
    let (other, _) = filled().await;
    let garbage = |path: &Path, name: &str| {
        let path = path.join("index").join(name);
        let bytes = fs::metadata(&path).unwrap().len() as usize;
        fs::write(&path, vec![0xa5; bytes]).unwrap();
    };
    let cut = |path: &Path, to: u64| {
        let file = OpenOptions::new().write(true).open(path.join("index/db")).unwrap();
        file.set_len(to).unwrap();
    };
    let changes: [(&str, Change<'_>); 8] = [
        ("deleted", &|path| fs::remove_dir_all(path.join("index")).unwrap()),
        ("emptied", &|path| {
            fs::remove_dir_all(path.join("index")).unwrap();
            fs::create_dir(path.join("index")).unwrap();
        }),
        ("a file instead", &|path| {
            fs::remove_dir_all(path.join("index")).unwrap();
            fs::write(path.join("index"), b"x").unwrap();
        }),
        ("cut to nothing", &|path| cut(path, 0)),
        ("garbage", &|path| garbage(path, "db")),
        ("garbage conf", &|path| garbage(path, "conf")),
        ("of another store", &|path| {
            fs::remove_dir_all(path.join("index")).unwrap();
            let source = copy(other.path());
            fs::rename(source.path().join("index"), path.join("index")).unwrap();
        }),
        ("condemned", &|path| fs::write(path.join("index.condemned"), b"x").unwrap()),
    ];
    for (what, change) in changes {
        let folder = copy(good.path());
        change(folder.path());
        let (store, opened) = reopen(folder.path());
        assert!(opened.rebuilt_index, "{what}");
        assert_eq!(content(&store).await, expected, "{what}");
        store.close().await.unwrap();
        assert_eq!(reopen(folder.path()).1, Opened::default(), "{what}, afterwards");
    }
}

#[tokio::test]
async fn an_index_that_was_open_when_the_machine_stopped_is_made_anew() {
    let (folder, expected) = filled().await;
    fs::write(folder.path().join("index.open"), b"another boot").unwrap();
    let (store, opened) = reopen(folder.path());
    assert!(opened.rebuilt_index);
    assert_eq!(content(&store).await, expected);
    assert!(folder.path().join("index.open").exists());
    store.close().await.unwrap();
    assert!(!folder.path().join("index.open").exists());
}

#[tokio::test]
async fn an_index_that_panics_ends_the_store_and_is_made_anew() {
    let (folder, expected) = filled().await;
    let (_, committer) = recovery::prepare(folder.path(), &SMALL).unwrap();
    let shared = committer.shared.clone();
    let store = recovery::start(committer).unwrap();
    let watch = store.watch();
    let panics = shared.indexed(|index| index.misbehave(|| panic!("on purpose")));
    assert!(matches!(panics, Err(StoreError::Poisoned)));
    // Whoever waits for this starts the process again.
    tokio::time::timeout(Duration::from_secs(9), watch.stopped()).await.unwrap();
    assert!(matches!(store.get("row/01").await, Err(StoreError::Poisoned)));
    drop((shared, store));
    let (store, opened) = reopen(folder.path());
    assert!(opened.rebuilt_index);
    assert_eq!(content(&store).await, expected);
}

/// The folder of a store that a child process of these tests is to open.
const HANG_FOLDER: &str = "KMS_STORE_HANG_FOLDER";

/// What a child process does that runs only the named test; its exit code and standard error.
fn child(test: &str, folder: &Path) -> (Option<i32>, String) {
    let name = format!("sled::tests::{test}");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(HANG_FOLDER, folder)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if std::time::Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A thread that hangs cannot be ended, so the process must, and the next one goes on.
#[tokio::test]
async fn an_index_that_hangs_ends_the_process_and_is_made_anew() {
    let (folder, expected) = filled().await;
    let (code, said) = child("the_process_whose_index_hangs", folder.path());
    assert_eq!(code, Some(super::guard::HANG_EXIT_CODE), "{said}");
    assert!(said.contains("has not answered") && said.contains("next start"), "{said}");
    let (store, opened) = reopen(folder.path());
    assert!(opened.rebuilt_index);
    assert_eq!(content(&store).await, expected);
}

/// Not a test of its own: without the variable there is nothing to do.
#[test]
fn the_process_whose_index_hangs() {
    let Some(folder) = std::env::var_os(HANG_FOLDER) else { return };
    let settings = Settings { index_patience: Duration::from_millis(500), ..SMALL };
    let (_, committer) = recovery::prepare(Path::new(&folder), &settings).unwrap();
    let index_hangs = || std::thread::sleep(Duration::from_secs(600));
    let came_back = committer.shared.indexed(|index| index.misbehave(index_hangs));
    panic!("{came_back:?}");
}

#[tokio::test]
async fn an_index_that_hangs_while_it_is_opened_is_refused_and_made_anew_by_the_next_process() {
    let (folder, expected) = filled().await;
    // As after a kill: an index that was closed is held against its imprint first.
    fs::copy("/proc/sys/kernel/random/boot_id", folder.path().join("index.open")).unwrap();
    // sled opens this file to read it, and nobody ever writes into the pipe.
    let conf = folder.path().join("index/conf");
    fs::remove_file(&conf).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &conf, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let (code, said) = child("the_process_whose_index_does_not_open", folder.path());
    assert_eq!(code, Some(0), "{said}");
    let (store, opened) = reopen(folder.path());
    assert!(opened.rebuilt_index);
    assert_eq!(content(&store).await, expected);
}

/// Not a test of its own: without the variable there is nothing to do.
#[test]
fn the_process_whose_index_does_not_open() {
    let Some(folder) = std::env::var_os(HANG_FOLDER) else { return };
    let settings = Settings { index_patience: Duration::from_millis(500), ..SMALL };
    let refused = open_with(Path::new(&folder), &settings);
    assert!(matches!(refused, Err(StoreError::IndexHangs { .. })));
}

#[tokio::test]
async fn an_index_whose_opening_ended_the_process_is_made_anew() {
    let (folder, expected) = filled().await;
    fs::write(folder.path().join("index.open"), "opening").unwrap();
    let (store, opened) = reopen(folder.path());
    assert!(opened.rebuilt_index);
    assert_eq!(content(&store).await, expected);
    store.close().await.unwrap();
    assert_eq!(reopen(folder.path()).1, Opened::default());
}

/// Damage in the index may be found when it opens or when it is read; in no case does it change
/// what the store says.
#[tokio::test]
async fn flipped_bits_in_the_index_never_change_an_answer() {
    let (good, expected) = filled().await;
    let db = fs::metadata(good.path().join("index/db")).unwrap().len() as usize;
    for i in 0..40 {
        let folder = copy(good.path());
        let used = db.min(200_000);
        flip(&folder.path().join("index/db"), (i * used / 40 + i * 7) % db);
        // Where the index hangs, another process would make it anew; here it is the same one.
        let opened = open_with(folder.path(), &SMALL);
        let (store, _) = match opened {
            Err(StoreError::IndexHangs { .. }) => reopen(folder.path()),
            opened => opened.unwrap(),
        };
        let mut poisoned = false;
        for (key, revision, value) in &expected.rows {
            match store.get(key).await {
                Ok(row) => {
                    let row = row.unwrap();
                    assert_eq!((&row.revision, &row.value[..]), (revision, &value[..]), "flip {i}");
                }
                Err(StoreError::Poisoned) => poisoned = true,
                Err(other) => panic!("{other}"),
            }
        }
        drop(store);
        let (store, opened) = reopen(folder.path());
        assert!(opened.rebuilt_index || !poisoned);
        if let Ok(rows) = store.scan("", None, 1000).await {
            let rows: Rows =
                rows.into_iter().map(|(k, r)| (k, r.revision, r.value.to_vec())).collect();
            assert_eq!(rows, expected.rows, "flip {i}");
        }
    }
}

#[tokio::test]
async fn a_slot_table_that_lost_its_end_is_refused() {
    let (folder, _) = filled().await;
    let path = folder.path().join("slots");
    let bytes = fs::read(&path).unwrap();
    for cut in [0, 100, HEADER_BYTES] {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert!(matches!(refusal(folder.path()), StoreError::SlotTableDamaged { .. }), "{cut}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(refusal(folder.path()), StoreError::SlotTableDamaged { .. }));
    fs::write(&path, &bytes).unwrap();
    reopen(folder.path());
}

/// A store over a disk that fails as `break_it` says.
async fn broken(break_it: impl FnOnce(&mut Committer)) -> (TempDir, SledStore) {
    let (folder, _) = filled().await;
    let (_, mut committer) = recovery::prepare(folder.path(), &SMALL).unwrap();
    break_it(&mut committer);
    (folder, recovery::start(committer).unwrap())
}

fn device(path: &str) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[tokio::test]
async fn a_failed_write_or_sync_ends_the_store_and_leaves_the_outcome_unknown() {
    // Writing to the first fails; the second takes every write and cannot sync.
    for path in ["/dev/full", "/dev/null"] {
        let (folder, store) = broken(|committer| committer.journal.break_with(device(path))).await;
        let mut batch = put("a", b"b");
        batch.idempotency = Some([0xee; 32]);
        assert_eq!(store.commit(batch).await.unwrap(), Outcome::Unknown, "{path}");
        assert!(matches!(store.commit(put("a", b"b")).await, Err(StoreError::Poisoned)));
        assert!(matches!(store.get("row/01").await, Err(StoreError::Poisoned)));
        assert!(matches!(store.scan("", None, 1).await, Err(StoreError::Poisoned)));
        assert!(matches!(store.leaves(0, 1).await, Err(StoreError::Poisoned)));
        assert!(matches!(store.inclusion_proof(0, 1).await, Err(StoreError::Poisoned)));
        assert!(matches!(store.read_slot(0).await, Err(StoreError::Poisoned)));
        assert!(matches!(store.close().await, Err(StoreError::Poisoned)));
        drop(store);
        let (store, _) = reopen(folder.path());
        assert_eq!(store.outcome_of(&[0xee; 32]).await.unwrap(), None);
        assert_eq!(store.get("a").await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_slot_that_may_not_have_reached_the_disk_ends_the_store() {
    for path in ["/dev/full", "/dev/null"] {
        let (_folder, store) = broken(|committer| {
            committer.shared.slots.lock().unwrap().break_with(device(path));
        })
        .await;
        let put = store.put_slot(Zeroizing::new([1; 32])).await;
        assert!(matches!(put, Err(StoreError::Poisoned)), "{path}");
        assert!(matches!(store.get("row/01").await, Err(StoreError::Poisoned)));
    }
}

#[tokio::test]
async fn a_full_disk_refuses_commits_and_goes_on_reading() {
    let memory_disk = Path::new("/dev/shm");
    let is_tmpfs = rustix::fs::statfs(memory_disk).is_ok_and(|fs| fs.f_type == 0x0102_1994);
    let Some(folder) = is_tmpfs.then(|| tempfile::tempdir_in(memory_disk).ok()).flatten() else {
        println!("skipped: no temporary file system at /dev/shm to fill");
        return;
    };
    let (store, _) = reopen(folder.path());
    committed(&store, put("a", b"b")).await;
    store.close().await.unwrap();
    // A segment that no memory disk has room for, asked for past the public door.
    let huge = Settings { segment_bytes: 1 << 50, ..SMALL };
    let (_, committer) = recovery::prepare(folder.path(), &huge).unwrap();
    let store = recovery::start(committer).unwrap();
    let refused = store.commit(put("large", &[1; 9000])).await;
    assert!(matches!(refused, Err(StoreError::DiskFull { .. })), "{refused:?}");
    assert_eq!(store.get("large").await.unwrap(), None);
    committed(&store, put("a", b"small ones still fit")).await;
    drop(store);
    let (store, _) = reopen(folder.path());
    committed(&store, put("large", &[1; 9000])).await;
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, 2);
}

/// A closed store with snapshots, of which the rows, deleted ones among them, went through several.
async fn snapshotted() -> (TempDir, Content) {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open_with(folder.path(), &SNAPSHOTS).unwrap();
    for i in 0..60_u32 {
        let mut batch = put(&format!("row/{:02}", i % 40), &[i as u8; 600]);
        batch.leaves = (0..10).map(|k| format!("leaf {i} {k}").into_bytes()).collect();
        batch.idempotency = Some([i as u8; 32]);
        committed(&store, batch).await;
    }
    committed(&store, delete("row/07")).await;
    store.put_slot(Zeroizing::new([9; 32])).await.unwrap();
    committed(&store, append(&[b"last"])).await;
    let content = content(&store).await;
    store.close().await.unwrap();
    (folder, content)
}

fn names(path: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = super::snapshot::files(path, extension).unwrap();
    files.sort();
    files
}

#[tokio::test]
async fn after_a_snapshot_the_segments_are_reduced_to_leaves_and_everything_is_there() {
    let (good, expected) = snapshotted().await;
    let (journal, snapshots) = (good.path().join("journal"), good.path().join("snapshots"));
    assert_eq!(names(&journal, "segment").len(), 1, "only the one to be written next");
    assert!(names(&journal, "log").len() > 3);
    assert_eq!((names(&snapshots, "head").len(), names(&snapshots, "rows").len()), (1, 1));
    let whole = |path: &PathBuf| fs::read(path).unwrap()[HEADER_BYTES..].to_vec();
    let old_value = [17; 600];
    let holds_rows = |path: &PathBuf| whole(path).windows(600).any(|bytes| bytes == old_value);
    assert!(!names(&journal, "log").iter().any(holds_rows), "the rows are gone from the journal");
    for without_index in [false, true] {
        let folder = copy(good.path());
        if without_index {
            fs::remove_dir_all(folder.path().join("index")).unwrap();
        }
        let (store, opened) = open_with(folder.path(), &SNAPSHOTS).unwrap();
        assert_eq!(opened.rebuilt_index, without_index);
        assert!(content(&store).await == expected);
        assert_eq!(*store.read_slot(0).await.unwrap(), [9; 32]);
        let replayed = store.outcome_of(&[3; 32]).await.unwrap().unwrap();
        let leaf = kms_core::audit::merkle::leaf_hash(b"leaf 3 4");
        assert_eq!(replayed.receipt.index_of(&leaf), Some(34));
        committed(&store, put("row/07", b"again")).await;
        assert_eq!(store.get("row/07").await.unwrap().unwrap().revision, 3);
        let set = store.row_set().await.unwrap();
        store.close().await.unwrap();
        let (store, _) = open_with(folder.path(), &SNAPSHOTS).unwrap();
        assert_eq!(store.row_set().await.unwrap(), set);
        assert_eq!(store.row_set_at(set.sequence).await.unwrap(), Some(set.root));
    }
}

/// What is gone from the rows is gone from the truth with the next snapshot.
#[tokio::test]
async fn an_old_value_is_in_no_file_of_the_truth_after_the_next_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let old = *b"a value that must go with the next snapshot";
    let (store, _) = open_with(folder.path(), &SNAPSHOTS).unwrap();
    committed(&store, put("deleted", &old)).await;
    committed(&store, put("replaced", &old)).await;
    store.close().await.unwrap();
    let holds = || {
        let folders = ["journal", "snapshots"].map(|name| folder.path().join(name));
        let files = folders.iter().flat_map(|path| fs::read_dir(path).unwrap());
        let mut files = files.map(|entry| fs::read(entry.unwrap().path()).unwrap());
        files.any(|bytes| bytes.windows(old.len()).any(|window| window == old))
    };
    assert!(holds());
    let (store, _) = open_with(folder.path(), &SNAPSHOTS).unwrap();
    committed(&store, delete("deleted")).await;
    committed(&store, put("replaced", b"new")).await;
    assert!(holds());
    store.close().await.unwrap();
    assert!(!holds());
}

#[tokio::test]
async fn a_flipped_bit_in_a_snapshot_is_found_or_harmless() {
    let (good, expected) = snapshotted().await;
    let snapshots = good.path().join("snapshots");
    let (head, rows) = (names(&snapshots, "head").remove(0), names(&snapshots, "rows").remove(0));
    for path in [head, rows] {
        let name = path.strip_prefix(good.path()).unwrap();
        let bytes = fs::metadata(&path).unwrap().len() as usize;
        let step = bytes / 60;
        for at in (0..40).chain((40..bytes).step_by(step.max(1))).chain([bytes - 1]) {
            let folder = copy(good.path());
            flip(&folder.path().join(name), at);
            // The index is made anew, and so every byte of the snapshot counts.
            fs::remove_dir_all(folder.path().join("index")).unwrap();
            match open_with(folder.path(), &SNAPSHOTS) {
                Err(StoreError::SnapshotDamaged { path, .. }) => {
                    assert_eq!(path, folder.path().join(name), "{at}");
                }
                Err(StoreError::FormatUnknown { .. }) if at < 12 => {}
                Err(other) => panic!("{at}: {other}"),
                Ok((store, _)) => assert!(content(&store).await == expected, "{at}"),
            }
        }
    }
}

#[tokio::test]
async fn a_missing_snapshot_or_log_segment_is_refused_by_name() {
    let (good, _) = snapshotted().await;
    let refused = |change: &dyn Fn(&Path)| {
        let folder = copy(good.path());
        change(folder.path());
        match open_with(folder.path(), &SNAPSHOTS) {
            Err(error) => error,
            Ok((_, opened)) => panic!("it opens: {opened:?}"),
        }
    };
    let remove = |path: &Path, from: &str, extension: &str| {
        fs::remove_file(names(&path.join(from), extension).remove(0)).unwrap();
    };
    let error = refused(&|path| remove(path, "snapshots", "head"));
    assert!(
        matches!(error, StoreError::JournalDamaged { damage: Damage::RowsMissing, .. }),
        "{error}"
    );
    let error = refused(&|path| remove(path, "snapshots", "rows"));
    assert!(
        matches!(error, StoreError::SnapshotDamaged { damage: Damage::RowsMissing, .. }),
        "{error}"
    );
    let error = refused(&|path| remove(path, "journal", "log"));
    assert!(
        matches!(error, StoreError::JournalDamaged { damage: Damage::SegmentMissing, .. }),
        "{error}"
    );
    let error = refused(&|path| remove(path, "journal", "segment"));
    assert!(
        matches!(error, StoreError::JournalDamaged { damage: Damage::SegmentMissing, .. }),
        "{error}"
    );
}

/// A kill between a snapshot and the removal of what it replaces leaves two generations.
#[tokio::test]
async fn a_damaged_snapshot_falls_back_to_the_one_before_while_its_records_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let quiet = Settings { snapshot_at_close: false, ..SNAPSHOTS };
    let (store, _) = open_with(folder.path(), &SNAPSHOTS).unwrap();
    committed(&store, put("first", b"1")).await;
    store.close().await.unwrap();
    let (store, _) =
        open_with(folder.path(), &Settings { snapshot_row_bytes: 9000, ..quiet }).unwrap();
    committed(&store, put("second", b"2")).await;
    store.close().await.unwrap();
    let before = copy(folder.path());
    let (store, _) = open_with(folder.path(), &SNAPSHOTS).unwrap();
    committed(&store, put("third", b"3")).await;
    let expected = content(&store).await;
    store.close().await.unwrap();
    // Both generations: the old snapshot, the new one, and the segments as they were, of which the
    // last is the one that the new snapshot has seen.
    let (store, _) = open_with(before.path(), &quiet).unwrap();
    committed(&store, put("third", b"3")).await;
    store.close().await.unwrap();
    for path in names(&folder.path().join("snapshots"), "head")
        .into_iter()
        .chain(names(&folder.path().join("snapshots"), "rows"))
    {
        let to = before.path().join("snapshots").join(path.file_name().unwrap());
        fs::copy(&path, to).unwrap();
    }
    let newest = names(&before.path().join("snapshots"), "rows").pop().unwrap();
    flip(&newest, 60);
    let (store, opened) = open_with(before.path(), &quiet).unwrap();
    assert_eq!(opened.damaged_snapshots, 1);
    assert!(content(&store).await.rows == expected.rows);
    store.close().await.unwrap();
    // The next snapshot clears up.
    let (store, _) = open_with(before.path(), &SNAPSHOTS).unwrap();
    committed(&store, put("fourth", b"4")).await;
    store.close().await.unwrap();
    assert_eq!(names(&before.path().join("snapshots"), "head").len(), 1);
    assert_eq!(open_with(before.path(), &SNAPSHOTS).unwrap().1, Opened::default());
}

/// The format of the build before had no snapshots; the header is otherwise the same.
#[tokio::test]
async fn a_store_of_an_earlier_build_is_refused_by_its_format() {
    let (folder, _) = filled().await;
    let path = segment(folder.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[11] = 1;
    let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
    fs::write(&path, bytes).unwrap();
    let error = refusal(folder.path());
    assert!(matches!(error, StoreError::FormatUnknown { found: 1, expected: 4, .. }));
    assert!(error.to_string().contains("format 1, this release reads format 4"), "{error}");
}

/// The index before had neither a number of its format nor packed rows. What another build packs with
/// another text would read as something else, if it were read.
#[tokio::test]
async fn an_index_of_another_format_is_made_anew_and_not_misread() {
    let (good, expected) = filled().await;
    let numberless: &dyn Fn(&mut Vec<u8>) = &|marker| drop(marker.drain(..4));
    let later: &dyn Fn(&mut Vec<u8>) = &|marker| marker[3] += 1;
    for (change, remade) in [(numberless, true), (later, true), (&|_| (), false)] {
        let folder = copy(good.path());
        edit_index(folder.path(), |db| {
            let mut marker = db.get(b"m").unwrap().unwrap()[4..].to_vec();
            change(&mut marker);
            db.insert(b"m", crate::entry::closed(b"m", &marker)).unwrap();
        });
        let (store, opened) = reopen(folder.path());
        assert_eq!(opened.rebuilt_index, remade);
        assert!(content(&store).await == expected);
        store.close().await.unwrap();
        assert!(!reopen(folder.path()).1.rebuilt_index);
    }
}

/// What somebody at the disk does to a row of the index, with all its checksums right.
pub(super) fn edit_index(path: &Path, edit: impl FnOnce(&::sled::Db)) {
    let db = ::sled::Config::new().path(path.join("index")).open().unwrap();
    edit(&db);
    db.flush().unwrap();
    drop(db);
    // Whoever edits the index can make the imprint fit: it needs no secret.
    super::imprint::write(&path.join("index")).unwrap();
}

/// An entry as the index would hold it.
pub(super) fn entry(key: &str, revision: u64, value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let key = [b"r", key.as_bytes()].concat();
    let payload = [&revision.to_be_bytes()[..], &[1], value].concat();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&key), &payload);
    (key, [&crc.to_be_bytes()[..], &payload].concat())
}

#[tokio::test]
async fn a_row_that_somebody_changed_in_the_index_is_named_and_the_truth_is_served() {
    use crate::{Disagreement, RowFault};
    let (good, expected) = snapshotted().await;
    // Some rows stand in the snapshot, one in the journal after it.
    let quiet = Settings { snapshot_at_close: false, ..SNAPSHOTS };
    let (store, _) = open_with(good.path(), &quiet).unwrap();
    committed(&store, put("row/03", b"newer")).await;
    store.close().await.unwrap();
    let mut expected = expected;
    let row = expected.rows.iter_mut().find(|row| row.0 == "row/03").unwrap();
    (row.1, row.2) = (row.1 + 1, b"newer".to_vec());
    let older = |revision, byte| vec![entry("row/03", revision, &[byte; 600])];
    let swapped = || vec![entry("row/20", 1, &[21; 600]), entry("row/21", 1, &[20; 600])];
    let told = |key: &str, fault| Disagreement { key: key.to_owned(), fault };
    let (missing, other) = (RowFault::Missing, RowFault::Other);
    type Entries = Vec<(Vec<u8>, Vec<u8>)>;
    let table: [(&str, Entries, Option<&str>, Vec<Disagreement>); 6] = [
        ("older", older(2, 43), None, vec![told("row/03", other)]),
        ("older value, new revision", older(3, 43), None, vec![told("row/03", other)]),
        ("deleted", vec![], Some("row/20"), vec![told("row/20", missing)]),
        ("deleted, the last", vec![], Some("row/39"), vec![told("row/39", missing)]),
        ("swapped", swapped(), None, vec![told("row/20", other), told("row/21", other)]),
        (
            "duplicate under another key",
            vec![entry("row/200", 1, &[20; 600])],
            None,
            vec![told("row/200", RowFault::Unknown)],
        ),
    ];
    for (what, entries, removed, disagreements) in table {
        let folder = copy(good.path());
        edit_index(folder.path(), |db| {
            for (key, value) in entries {
                db.insert(key, value).unwrap();
            }
            if let Some(key) = removed {
                assert!(db.remove([b"r", key.as_bytes()].concat()).unwrap().is_some());
            }
        });
        let (store, opened) = open_with(folder.path(), &quiet).unwrap();
        assert_eq!(opened.disagreements, disagreements, "{what}");
        assert!(opened.rebuilt_index);
        assert!(content(&store).await == expected, "{what}");
    }
}

/// A store with many rows is proven while it is in use.
#[tokio::test]
async fn in_a_large_store_a_changed_row_is_found_at_its_first_read_or_before() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open_with(folder.path(), &Settings::default()).unwrap();
    let count = 25_000_u64;
    assert!(count > super::proof::AT_ONCE_ROWS_MAX);
    for begin in (0..count).step_by(1000) {
        let puts = (begin..begin + 1000).map(|i| crate::Write::Put {
            key: format!("row/{i:06}"),
            value: i.to_be_bytes().to_vec(),
        });
        committed(&store, crate::Batch { writes: puts.collect(), ..Default::default() }).await;
    }
    store.close().await.unwrap();
    let last = format!("row/{:06}", count - 1);
    for how in ["get", "scan", "scan of what is missing", "commit", "nothing"] {
        let folder = copy(folder.path());
        edit_index(folder.path(), |db| {
            let (key, value) = entry(&last, 1, b"another");
            db.remove(&key).unwrap();
            if how != "scan of what is missing" {
                db.insert(key, value).unwrap();
            }
        });
        let (store, opened) = open_with(folder.path(), &Settings::default()).unwrap();
        assert_eq!((opened.disagreements.len(), opened.rebuilt_index), (0, false));
        let refused = match how {
            "get" => store.get(&last).await.err(),
            "commit" => store.commit(put(&last, b"new")).await.err(),
            "nothing" => {
                let start = std::time::Instant::now();
                while store.get("row/000000").await.is_ok() {
                    assert!(start.elapsed() < Duration::from_secs(120), "never found");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Some(StoreError::Poisoned)
            }
            _ => store.scan(&last, None, 10).await.err(),
        };
        match refused {
            Some(StoreError::RowDisagrees(told)) => assert_eq!(told.key, last, "{how}"),
            // The thread that walks over all of them was there first.
            Some(StoreError::Poisoned) => {}
            other => panic!("{how}: {other:?}"),
        }
        drop(store);
        let (store, opened) = open_with(folder.path(), &Settings::default()).unwrap();
        assert!(opened.rebuilt_index);
        let row = store.get(&last).await.unwrap().unwrap();
        assert_eq!(row.value[..], (count - 1).to_be_bytes());
    }
}

#[tokio::test]
async fn the_check_counts_what_is_there_and_names_every_damage() {
    use super::check::{check, rebuild};
    let (good, expected) = snapshotted().await;
    let quiet = Settings { snapshot_at_close: false, ..SNAPSHOTS };
    let (store, _) = open_with(good.path(), &quiet).unwrap();
    assert!(matches!(check(good.path()), Err(StoreError::Locked { .. })));
    store.erase_slot(0).await.unwrap();
    committed(&store, put("row/99", b"new")).await;
    let (set, log) = (store.row_set().await.unwrap(), store.log_frontier().await);
    let stats = store.stats().await.unwrap();
    store.close().await.unwrap();
    let report = check(good.path()).unwrap();
    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.rows, report.deleted_rows), (expected.rows.len() as u64 + 1, 1));
    assert_eq!((report.row_set, report.log), (Some(set), Some(log)));
    assert_eq!((report.leaves, stats.leaves), (601, 601));
    assert_eq!((report.slots, report.erased_slots, stats.slots), (0, 1, 1));
    assert_eq!((report.snapshots, report.segments), (stats.snapshots, stats.segments));
    assert!(report.reduced_segments > 3 && stats.journal_bytes > 0 && stats.snapshot_bytes > 0);

    let folder = copy(good.path());
    let logs = names(&folder.path().join("journal"), "log");
    for path in &logs[..2] {
        flip(path, HEADER_BYTES + 100);
    }
    let report = check(folder.path()).unwrap();
    let places = report.damages.iter().map(|damage| match damage {
        StoreError::JournalDamaged { segment, offset, damage: Damage::Record } => {
            (segment.clone(), *offset)
        }
        other => panic!("{other}"),
    });
    let expected_places = [0, 1].map(|i| (logs[i].clone(), HEADER_BYTES as u64));
    assert_eq!(places.collect::<Vec<_>>(), expected_places);
    assert!(report.log.is_none() && !report.is_good());

    let folder = copy(good.path());
    edit_index(folder.path(), |db| drop(db.remove(b"rrow/20").unwrap()));
    let report = check(folder.path()).unwrap();
    assert_eq!(report.disagreements.len(), 1);
    assert_eq!(report.disagreements[0].key, "row/20");
    assert!(rebuild(folder.path()).unwrap().rebuilt_index);
    assert!(check(folder.path()).unwrap().is_good());
}

/// What the log says last of the row set must be comparable after a kill at any moment.
#[tokio::test]
async fn the_snapshot_before_is_kept_until_the_log_names_a_later_row_set() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open_with(folder.path(), &SNAPSHOTS).unwrap();
    let bind = |sequence| crate::Batch { binds_rows: Some(sequence), ..append(&[b"a root"]) };
    let heads = || names(&folder.path().join("snapshots"), "head").len();
    let wait_for = async |wanted: usize| {
        let start = std::time::Instant::now();
        while heads() != wanted {
            assert!(start.elapsed() < Duration::from_secs(50), "{} snapshots", heads());
            // What is due is begun by the next commit.
            committed(&store, append(&[b"a leaf"])).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    committed(&store, put("first", &[1; 7000])).await;
    wait_for(1).await;
    let bound = store.row_set().await.unwrap();
    committed(&store, bind(bound.sequence)).await;
    committed(&store, put("second", &[2; 7000])).await;
    wait_for(2).await;
    assert_eq!(store.row_set_at(bound.sequence).await.unwrap(), Some(bound.root));
    // As a kill leaves it now.
    let killed = copy(folder.path());
    let (again, _) = open_with(killed.path(), &SMALL).unwrap();
    assert_eq!(again.row_set_at(bound.sequence).await.unwrap(), Some(bound.root));
    drop(again);
    let later = store.row_set().await.unwrap();
    committed(&store, bind(later.sequence)).await;
    wait_for(1).await;
    assert_eq!(store.row_set_at(later.sequence).await.unwrap(), Some(later.root));
    assert_eq!(store.row_set_at(bound.sequence).await.unwrap(), None, "older than all there is");
    store.close().await.unwrap();
}

/// A record without its rows has the right hash. It must not pass for one that never had any.
#[tokio::test]
async fn a_segment_whose_records_lost_their_rows_is_refused() {
    let (folder, _) = filled().await;
    let path = segment(folder.path(), 1);
    let bytes = fs::read(&path).unwrap();
    let store = SegmentHeader::decode(&bytes).unwrap().store;
    let mut without = bytes[..HEADER_BYTES].to_vec();
    for (begin, _) in records(&path) {
        without.extend(unframe(&store, &bytes[begin..]).unwrap().reduce(&store).unwrap());
    }
    without.resize(bytes.len(), 0);
    fs::write(&path, without).unwrap();
    assert_eq!(damage(folder.path()), Damage::RowsMissing);
}
