//! What somebody at the disk may do who makes every checksum anew and lacks the daemon's secret.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kms_core::action::Action;
use kms_core::audit::{Leaf, LeafOutcome, merkle};
use kms_core::id::Digest;
use tempfile::TempDir;

use super::check::check;
use super::format::{Applied, Chain, LogPart, Record, RowPart, SegmentHeader, frame};
use super::journal::{self, Location, Reader};
use super::snapshot::{self, Head, RowsReader, RowsWriter};
use super::tests::copy;
use crate::batch::RowChange;
use crate::conformance::{append, committed, delete, put};
use crate::row_set::{Buckets, Recount, encode_states};
use crate::vouch::Vouching;
use crate::{Batch, Settings, SledStore, Store, StoreError, Voucher, open_with};

struct Word(&'static str);

impl Voucher for Word {
    fn vouch(&self, digest: &Digest) -> [u8; 32] {
        Digest::of(&[self.0.as_bytes(), digest.as_bytes()]).0
    }

    fn is_vouched(&self, digest: &Digest, vouch: &[u8; 32]) -> bool {
        self.vouch(digest) == *vouch
    }
}

const SETTINGS: Settings = Settings {
    segment_bytes: 64 * 1024,
    index_patience: Duration::from_secs(10),
    snapshot_row_bytes: u64::MAX,
    snapshot_at_close: true,
};

fn open(path: &Path) -> SledStore {
    open_with(path, &SETTINGS).unwrap().0
}

async fn vouched(path: &Path) -> Result<SledStore, StoreError> {
    let store = open_with(path, &SETTINGS)?.0;
    store.begin_vouching(Arc::new(Word("secret"))).await?;
    Ok(store)
}

/// What the refusal says; an opened store is a failure of the test.
async fn refusal(path: &Path) -> String {
    match vouched(path).await {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it opens"),
    }
}

fn leaf(action: Action, outcome: LeafOutcome) -> Leaf {
    Leaf {
        actor: "apps/someone".to_owned(),
        action: action.as_str().to_owned(),
        resource: "appliance".to_owned(),
        outcome: outcome.into(),
        ..Leaf::default()
    }
}

fn naming(root: Digest, sequence: u64) -> Leaf {
    Leaf {
        row_set_root: root.as_bytes().to_vec(),
        row_set_sequence: sequence,
        ..leaf(Action::BindRows, LeafOutcome::Granted)
    }
}

async fn bind(store: &SledStore) {
    let set = store.row_set().await.unwrap();
    let leaf = naming(set.root, set.sequence);
    let batch = Batch { binds_rows: Some(set.sequence), ..append(&[&leaf.to_bytes()]) };
    committed(store, batch).await;
}

/// Rows at several revisions, one deleted, the log naming them.
async fn filled(path: &Path) -> SledStore {
    let store = vouched(path).await.unwrap();
    for round in 0..3_u8 {
        for i in 0..12_u8 {
            committed(&store, put(&format!("row/{i:02}"), &[round * 16 + i; 200])).await;
            committed(&store, append(&[b"a use"])).await;
        }
    }
    committed(&store, delete("row/05")).await;
    bind(&store).await;
    store
}

/// As a stop leaves it: everything stands in a snapshot.
async fn stopped() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await.close().await.unwrap();
    assert_eq!(snapshot::list(&folder.path().join("snapshots")).unwrap().len(), 1);
    folder
}

/// As a kill leaves it, with changes after the last leaf that names the rows.
async fn killed() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path()).await;
    committed(&store, put("row/02", b"after the leaf")).await;
    committed(&store, put("row/03", b"after the leaf")).await;
    committed(&store, delete("row/06")).await;
    copy(folder.path())
}

#[tokio::test]
async fn a_stop_while_nobody_vouches_leaves_the_snapshot_to_the_next() {
    let folder = killed().await;
    let snapshots = folder.path().join("snapshots");
    open(folder.path()).close().await.unwrap();
    assert_eq!(fs::read_dir(&snapshots).unwrap().count(), 0, "something was begun in vain");
    vouched(folder.path()).await.unwrap().close().await.unwrap();
    assert_eq!(snapshot::list(&snapshots).unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_as_it_was_is_taken_up_after_a_stop_a_kill_and_a_second_start() {
    for folder in [stopped().await, killed().await] {
        for _ in 0..3 {
            let store = vouched(folder.path()).await.unwrap();
            committed(&store, put("row/01", b"goes on")).await;
            store.close().await.unwrap();
            let report = check(folder.path()).unwrap();
            assert!(report.is_good() && report.named_row_set.is_some(), "{report:?}");
        }
        let store = vouched(folder.path()).await.unwrap();
        bind(&store).await;
        drop(store);
        vouched(folder.path()).await.unwrap();
        // The word of another is none.
        let store = open(folder.path());
        let other = store.begin_vouching(Arc::new(Word("another secret"))).await;
        assert!(matches!(other, Err(StoreError::RowsDisagree { .. })));
    }
}

/// A new store has named nothing yet, and is vouched for from its first record on.
#[tokio::test]
async fn a_store_that_never_named_its_rows_is_vouched_for_from_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let store = vouched(folder.path()).await.unwrap();
    committed(&store, put("a", b"1")).await;
    store.close().await.unwrap();
    vouched(folder.path()).await.unwrap().close().await.unwrap();
    // Rows that nobody vouched for are not believed afterwards.
    let other = tempfile::tempdir().unwrap();
    let store = open(other.path());
    committed(&store, put("a", b"1")).await;
    store.close().await.unwrap();
    assert!(refusal(other.path()).await.contains("cannot be made out"));
}

#[tokio::test]
async fn no_row_changes_while_nobody_vouches() {
    let folder = stopped().await;
    let store = open(folder.path());
    let refused = async |batch| matches!(store.commit(batch).await, Err(StoreError::NotVouched));
    assert!(refused(put("row/01", b"x")).await);
    let denied = leaf(Action::Sign, LeafOutcome::Denied).to_bytes();
    assert!(refused(Batch { binds_rows: Some(1), ..append(&[&denied]) }).await);
    // Nor is anything written that the next start would not believe.
    assert!(refused(Batch { idempotency: Some([1; 32]), ..append(&[&denied]) }).await);
    assert!(refused(append(&[&leaf(Action::Sign, LeafOutcome::Granted).to_bytes()])).await);
    assert!(refused(append(&[&denied, b"no leaf"])).await);
    committed(&store, append(&[&denied])).await;
    store.begin_vouching(Arc::new(Word("secret"))).await.unwrap();
    committed(&store, put("row/01", b"x")).await;
    store.end_vouching();
    assert!(refused(put("row/01", b"y")).await);
    // A snapshot needs the word too; without it the journal keeps the row.
    store.close().await.unwrap();
    let store = vouched(folder.path()).await.unwrap();
    assert_eq!(store.get("row/01").await.unwrap().unwrap().value[..], *b"x");
}

fn row(rows: &[RowChange], key: &str) -> usize {
    rows.iter().position(|row| row.key == key).unwrap()
}

type Forgery = (&'static str, fn(&mut Vec<RowChange>), &'static [&'static str]);

/// What is done to rows, and which of them must be named.
const FORGERIES: [Forgery; 6] = [
    ("an older row", |rows| older(rows), &["row/03"]),
    ("a row is gone", |rows| rows.retain(|row| row.key != "row/04"), &["row/03"]),
    ("the last row is gone", |rows| drop(rows.pop()), &["row/10"]),
    ("two are swapped", |rows| swapped(rows), &["row/07", "row/08"]),
    ("a row stands under another name too", doubled, &["row/090"]),
    ("a deleted row is back", |rows| revived(rows), &["row/05"]),
];

fn older(rows: &mut [RowChange]) {
    let at = row(rows, "row/03");
    (rows[at].revision, rows[at].value) = (2, Some(vec![16 + 3; 200]));
}

fn swapped(rows: &mut [RowChange]) {
    let (a, b) = (row(rows, "row/07"), row(rows, "row/08"));
    let value = rows[a].value.take();
    rows[a].value = rows[b].value.take();
    rows[b].value = value;
}

fn doubled(rows: &mut Vec<RowChange>) {
    let at = row(rows, "row/09");
    let other = RowChange { key: "row/090".to_owned(), ..rows[at].clone() };
    rows.insert(at + 1, other);
}

fn revived(rows: &mut [RowChange]) {
    let at = row(rows, "row/05");
    rows[at].value = Some(vec![32 + 5; 200]);
}

fn buckets_of(rows: &[RowChange]) -> Buckets {
    let mut buckets = Buckets::default();
    let changes = rows.iter().map(|row| (row.key.as_str(), None, row.digest()));
    for (bucket, state) in buckets.planned(changes).unwrap() {
        buckets.set(bucket, state);
    }
    let mut recount = Recount::new();
    rows.iter().for_each(|row| recount.add(&row.key, &row.digest()));
    assert_eq!(recount.differs_from(&buckets), None);
    buckets
}

/// Writes the snapshot anew with other rows and everything that needs no secret. With `words` the words
/// and marks stay that the daemon wrote.
fn forge_snapshot(path: &Path, edit: fn(&mut Vec<RowChange>), words: bool) {
    let snapshots = path.join("snapshots");
    let number = snapshot::list(&snapshots).unwrap()[0];
    let head = Head::read(&snapshots, number).unwrap();
    let reader = RowsReader::open(&snapshots, head.store, &head.rows).unwrap();
    let (mut rows, mut from) = (Vec::new(), reader.rows_from(None));
    while let Some(row) = from.next().unwrap() {
        rows.push(row);
    }
    let parts = words.then(|| reader.parts_of_one_block());
    edit(&mut rows);
    let vouching = Arc::new(Vouching::default());
    let mut writer =
        RowsWriter::create(&snapshots, head.store, head.rows.number, vouching).unwrap();
    rows.iter().for_each(|row| writer.push(row).unwrap());
    if let Some(parts) = parts {
        writer.parrot(parts);
    }
    let written = writer.finish().unwrap();
    let head = Head { rows: written, buckets: buckets_of(&rows), ..head };
    match words {
        true => head.write_under_its_word(&snapshots),
        false => head.write(&snapshots, &Vouching::default()).unwrap(),
    }
    fs::remove_dir_all(path.join("index")).unwrap();
}

#[tokio::test]
async fn a_row_that_is_put_back_taken_away_or_exchanged_in_a_snapshot_is_found_and_named() {
    let good = stopped().await;
    for (what, edit, named) in FORGERIES {
        for words in [false, true] {
            let folder = copy(good.path());
            forge_snapshot(folder.path(), edit, words);
            let told = refusal(folder.path()).await;
            println!("{what}: {told}");
            // Without the words it is known of the block alone.
            let named = if words { named } else { &["row/00"] };
            assert!(named.iter().all(|row| told.contains(row)), "{what}: {told}");
            // Refused again, whoever asks.
            assert_eq!(refusal(folder.path()).await, told, "{what}");
            // Without any key, the roots tell.
            let report = check(folder.path()).unwrap();
            let found = |error: &StoreError| matches!(error, StoreError::RowsDisagree { .. });
            assert!(report.damages.iter().any(found), "{what}: {report:?}");
        }
    }
    let folder = copy(good.path());
    forge_snapshot(folder.path(), |_| {}, true);
    vouched(folder.path()).await.expect("the forger's own tools change nothing");
}

/// Writes the journal anew with other records and everything that needs no secret.
fn forge_journal(path: &Path, edit: impl FnOnce(&mut Vec<Record>)) {
    let journal = path.join("journal");
    let file = journal::path_of(&journal, 1);
    let mut bytes = fs::read(&file).unwrap();
    let header = SegmentHeader::decode(&bytes).unwrap();
    assert!(!journal::path_of(&journal, 2).exists());
    let (mut records, mut at) = (Vec::new(), Location::first_of(1));
    let mut reader = Reader::new(&journal, header.store);
    while let Some(stored) = reader.read(at).unwrap() {
        at = stored.next;
        records.push(stored.record);
    }
    edit(&mut records);
    let length = bytes.len();
    bytes.truncate(Location::first_of(1).offset as usize);
    let (mut chain, mut rows) = (Chain::genesis(&header.store), std::collections::BTreeMap::new());
    for mut record in records {
        let changed = record.rows.rows.clone();
        rows.extend(changed.iter().map(|row| (row.key.clone(), row.clone())));
        if !changed.is_empty() {
            let all: Vec<RowChange> = rows.values().cloned().collect();
            let buckets = buckets_of(&all);
            let states = changed.iter().map(|row| (row.key.as_str(), None, row.digest()));
            let touched = Buckets::default().planned(states).unwrap();
            let states = buckets.filled_of(Some(&touched));
            record.rows.buckets = encode_states(states.iter().map(|(at, state)| (*at, state)));
        }
        let (framed, next) = frame(&header.store, &chain, &record, None).unwrap();
        bytes.extend(framed);
        chain = next;
    }
    bytes.resize(length, 0);
    fs::write(&file, bytes).unwrap();
    fs::remove_dir_all(path.join("index")).unwrap();
}

fn record_of(key: &str, revision: u64, value: Option<Vec<u8>>) -> Record {
    let row = RowChange { key: key.to_owned(), revision, value };
    let rows = RowPart { rows: vec![row], buckets: Vec::new() };
    let log = LogPart { bound: 1, ..LogPart::default() };
    Record { rows, log, rows_are_gone: false }
}

fn last_with_rows(records: &mut [Record]) -> &mut Record {
    records.iter_mut().rfind(|record| !record.rows.rows.is_empty()).unwrap()
}

/// Deletes a row and names the rows as they are then, with so many records more.
fn forge_name(records: &mut Vec<Record>, more: u64) {
    records.push(record_of("row/04", 3, None));
    let mut rows = std::collections::BTreeMap::new();
    for row in records.iter().flat_map(|record| &record.rows.rows) {
        rows.insert(row.key.clone(), row.clone());
    }
    let root = buckets_of(&rows.into_values().collect::<Vec<_>>()).root();
    let leaf = naming(root, records.len() as u64 + more);
    records.push(leaf_record(vec![leaf.to_bytes()], None));
}

fn leaf_record(leaves: Vec<Vec<u8>>, name: Option<[u8; 32]>) -> Record {
    let batch = Applied { leaves, idempotency: name.map(Vec::from).unwrap_or_default() };
    let log = LogPart { batches: vec![batch], bound: 1, ..LogPart::default() };
    Record { log, ..Record::default() }
}

/// Records without rows that nobody vouches for are as good as what they say is harmless.
#[tokio::test]
async fn what_cannot_have_been_written_while_sealed_is_refused_without_a_word() {
    use LeafOutcome::{BrokenOff, Denied, Finished, Granted, Unspecified};
    let good = killed().await;
    let try_with = async |leaves: Vec<Vec<u8>>, name| {
        let folder = copy(good.path());
        forge_journal(folder.path(), |records| records.push(leaf_record(leaves, name)));
        vouched(folder.path()).await.map(drop).map_err(|error| error.to_string())
    };
    let harmless = [
        leaf(Action::ReleaseKey, Denied),
        leaf(Action::Sign, BrokenOff),
        leaf(Action::Start, Granted),
        leaf(Action::Unseal, Granted),
        leaf(Action::WhoAmI, Granted),
    ];
    let harmless: Vec<Vec<u8>> = harmless.iter().map(Leaf::to_bytes).collect();
    try_with(harmless.clone(), None).await.unwrap();
    let approver = vec!["users/a".to_owned()];
    for forged in [
        leaf(Action::ReleaseKey, Granted),
        leaf(Action::ExportKeyVersion, Granted),
        leaf(Action::ApproveProposal, Granted),
        leaf(Action::Sign, Finished),
        leaf(Action::Start, Unspecified),
        Leaf { row_digests: vec![vec![1; 32]], ..leaf(Action::Start, Granted) },
        Leaf { approvers: approver, ..leaf(Action::WhoAmI, Granted) },
        Leaf { action: "NoSuchAction".to_owned(), ..leaf(Action::Start, Granted) },
    ] {
        let told = try_with(vec![harmless[0].clone(), forged.to_bytes()], None).await.unwrap_err();
        let what = format!("says of {} on appliance", forged.action);
        assert!(told.contains("record ") && told.contains(&what), "{told}");
    }
    let told = try_with(vec![b"no leaf".to_vec()], None).await.unwrap_err();
    assert!(told.contains("cannot be read"), "{told}");
    let told = try_with(harmless, Some([7; 32])).await.unwrap_err();
    assert!(told.contains("names a request"), "{told}");
}

/// Otherwise a request would be taken for a retry of something that was never done.
#[tokio::test]
async fn a_name_that_somebody_puts_into_the_index_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path()).await;
    let named = async |store: &SledStore, name: u8| store.outcome_of(&[name; 32]).await;
    let batch = Batch { idempotency: Some([1; 32]), ..put("row/01", b"once") };
    committed(&store, Batch { leaves: vec![b"1".to_vec(), b"2".to_vec()], ..batch }).await;
    committed(&store, Batch { idempotency: Some([2; 32]), ..put("row/02", b"no leaf") }).await;
    bind(&store).await;
    for name in [1, 2] {
        assert!(named(&store, name).await.unwrap().unwrap().replayed);
    }
    store.close().await.unwrap();
    let size = vouched(folder.path()).await.unwrap().log_size().await;
    for (first, leaves) in [(0, 1), (size - 1, 1), (size - 3, 2), (size - 1, 0)] {
        let folder = copy(folder.path());
        super::tests::edit_index(folder.path(), |db| {
            let key = [&b"i"[..], &[3; 32]].concat();
            let value = [first, leaves].map(u64::to_be_bytes);
            let value = crate::entry::closed(&key, value.as_flattened());
            db.insert(key, value).unwrap();
        });
        let store = vouched(folder.path()).await.unwrap();
        let found = named(&store, 3).await;
        assert!(matches!(found, Err(StoreError::Poisoned)), "{found:?}");
        drop(store);
        // The next start makes the index anew.
        let store = vouched(folder.path()).await.unwrap();
        assert_eq!(named(&store, 3).await.unwrap(), None);
        let receipt = named(&store, 1).await.unwrap().unwrap().receipt;
        assert_eq!(receipt.index_of(&merkle::leaf_hash(b"1")), Some(size - 3));
    }
}

#[tokio::test]
async fn a_record_that_is_forged_edited_exchanged_or_left_out_is_found_and_its_row_named() {
    type JournalForgery = (&'static str, fn(&mut Vec<Record>), &'static str);
    let forgeries: [JournalForgery; 9] = [
        (
            "an older row is put back by a record of its own",
            |records| records.push(record_of("row/03", 3, Some(vec![32 + 3; 200]))),
            "row/03",
        ),
        (
            "a row is deleted by a record of its own",
            |records| records.push(record_of("row/04", 3, None)),
            "row/04",
        ),
        (
            "with the word of another record",
            |records| {
                let vouch = last_with_rows(records).log.vouch.clone();
                let mut record = record_of("row/04", 3, None);
                record.log.vouch = vouch;
                records.push(record);
            },
            "row/04",
        ),
        (
            "a record after the leaf is edited",
            |records| {
                let rows = &mut last_with_rows(records).rows.rows;
                (rows[0].revision, rows[0].value) = (3, Some(vec![32 + 6; 200]));
            },
            "row/06",
        ),
        (
            "a record after the leaf is left out",
            |records| {
                let count = records.len();
                drop(records.remove(count - 2));
            },
            "row/06",
        ),
        (
            "two records after the leaf are exchanged",
            |records| {
                let count = records.len();
                records.swap(count - 1, count - 2);
            },
            "row/06",
        ),
        (
            "a record before the leaf is edited",
            |records| {
                let has_row = |record: &&mut Record| {
                    record
                        .rows
                        .rows
                        .first()
                        .is_some_and(|row| row.key == "row/03" && row.revision == 3)
                };
                let record = records.iter_mut().find(has_row).unwrap();
                record.rows.rows[0] =
                    RowChange { key: "row/03".into(), revision: 2, value: Some(vec![19; 200]) };
            },
            // The root tells that, of all rows at once.
            "not those that the log names",
        ),
        (
            "a leaf is forged that names the rows as they are now",
            |records| forge_name(records, 0),
            "says of BindRows",
        ),
        (
            "a leaf is forged that names the rows as they are with it",
            |records| forge_name(records, 1),
            "nobody vouches for leaf",
        ),
    ];
    let good = killed().await;
    for (what, edit, named) in forgeries {
        let folder = copy(good.path());
        forge_journal(folder.path(), edit);
        let told = refusal(folder.path()).await;
        println!("{what}: {told}");
        assert!(told.contains(named), "{what}: {told}");
    }
    let folder = copy(good.path());
    forge_journal(folder.path(), |_| {});
    vouched(folder.path()).await.expect("the forger's own tools change nothing");
    // Known, and told in SECURITY.md: a store as it once was, as a whole.
    let folder = copy(good.path());
    forge_journal(folder.path(), |records| drop(records.pop()));
    vouched(folder.path()).await.expect("what was cut off is not missed");
}

/// The log as it is now over the rows as they were when an older leaf named them.
#[tokio::test]
async fn the_rows_of_an_older_leaf_under_a_newer_log_are_refused() {
    let folder = stopped().await;
    let older = copy(folder.path());
    let store = vouched(folder.path()).await.unwrap();
    for i in 0..12_u8 {
        committed(&store, put(&format!("row/{i:02}"), &[99; 200])).await;
    }
    bind(&store).await;
    store.close().await.unwrap();
    let snapshots = |path: &Path| path.join("snapshots");
    let head_of = |path: &Path| {
        let number = *snapshot::list(&snapshots(path)).unwrap().last().unwrap();
        Head::read(&snapshots(path), number).unwrap()
    };
    let (before, now) = (head_of(older.path()), head_of(folder.path()));
    assert!(before.rows_sequence < now.rows_sequence);
    // The older rows with the older root, said to be those of the newer end of the journal.
    fs::remove_file(snapshot::head_path(&snapshots(folder.path()), now.base.segment)).unwrap();
    fs::copy(
        snapshot::rows_path(&snapshots(older.path()), before.rows.number),
        snapshot::rows_path(&snapshots(folder.path()), before.rows.number),
    )
    .unwrap();
    let forged = Head {
        rows: before.rows,
        buckets: before.buckets,
        rows_sequence: before.rows_sequence,
        ..now
    };
    forged.write_under_its_word(&snapshots(folder.path()));
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let told = refusal(folder.path()).await;
    assert!(told.contains("not those that the log names"), "{told}");
}

/// More rows than are looked at before the store opens.
const MANY: u64 = super::proof::AT_ONCE_ROWS_MAX + 1000;

fn many(rows: std::ops::Range<u64>, value: impl Fn(u64) -> u64) -> Batch {
    let key = |i| format!("row/{i:06}");
    let puts =
        rows.map(|i| crate::Write::Put { key: key(i), value: value(i).to_be_bytes().into() });
    Batch { writes: puts.collect(), ..Default::default() }
}

async fn large(path: &Path) {
    let store = vouched(path).await.unwrap();
    for begin in (0..MANY).step_by(1000) {
        committed(&store, many(begin..begin + 1000, |i| i)).await;
    }
    bind(&store).await;
    store.close().await.unwrap();
}

fn newest_head(path: &Path) -> Head {
    let snapshots = path.join("snapshots");
    let number = *snapshot::list(&snapshots).unwrap().last().unwrap();
    Head::read(&snapshots, number).unwrap()
}

/// Every word in the older file of rows is the daemon's own, and the root comes from the sums in the
/// head. Only the head says which file counts.
#[tokio::test]
async fn in_a_large_store_an_older_file_of_rows_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    large(folder.path()).await;
    let (before, older) = (newest_head(folder.path()), copy(folder.path()));
    let store = vouched(folder.path()).await.unwrap();
    for begin in [0, 1000, 2000] {
        committed(&store, many(begin..begin + 1000, |i| i + 1)).await;
    }
    bind(&store).await;
    store.close().await.unwrap();
    vouched(folder.path()).await.unwrap().close().await.unwrap();
    let now = newest_head(folder.path());
    assert_ne!(now.rows.number, before.rows.number);
    let snapshots = |path: &Path| path.join("snapshots");
    let rows = |path: &Path| snapshot::rows_path(&snapshots(path), before.rows.number);
    fs::copy(rows(older.path()), rows(folder.path())).unwrap();
    super::tests::edit_index(folder.path(), |db| {
        for i in 0..3000_u64 {
            let (key, value) = super::tests::entry(&format!("row/{i:06}"), 1, &i.to_be_bytes());
            db.insert(key, value).unwrap();
        }
    });
    Head { rows: before.rows, ..now }.write_under_its_word(&snapshots(folder.path()));
    let told = refusal(folder.path()).await;
    assert!(told.contains("nobody vouches for the head of snapshot"), "{told}");
}

/// Of a large store not every block is asked about before it opens: then when it is read.
#[tokio::test]
async fn in_a_large_store_a_forged_block_is_refused_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    large(folder.path()).await;
    let key = format!("row/{:06}", MANY - 1);
    let (snapshots, head) = (folder.path().join("snapshots"), newest_head(folder.path()));
    let path = snapshot::rows_path(&snapshots, head.rows.number);
    let bytes = RowsReader::open(&snapshots, head.store, &head.rows)
        .unwrap()
        .with_last_row_changed(fs::read(&path).unwrap());
    fs::write(&path, bytes).unwrap();
    let mut changed = (MANY - 1).to_be_bytes();
    changed[7] ^= 1;
    super::tests::edit_index(folder.path(), |db| {
        let (key, value) = super::tests::entry(&key, 1, &changed);
        db.insert(key, value).unwrap();
    });
    let store = vouched(folder.path()).await.expect("the roots agree, and the table");
    let read = store.get(&key).await;
    assert!(
        matches!(read, Err(StoreError::SnapshotDamaged { .. } | StoreError::Poisoned)),
        "{read:?}"
    );
}

/// Damage to the newest is no forgery: the one before it and the records after that tell the same rows.
#[tokio::test]
async fn a_damaged_newest_snapshot_is_passed_over_when_somebody_vouches_as_well() {
    let folder = stopped().await;
    let store = vouched(folder.path()).await.unwrap();
    committed(&store, put("row/01", &[9; 200])).await;
    store.close().await.unwrap();
    let snapshots = folder.path().join("snapshots");
    let numbers = snapshot::list(&snapshots).unwrap();
    assert_eq!(numbers.len(), 2, "the log names the rows of the first");
    let path = snapshot::head_path(&snapshots, numbers[1]);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let store = vouched(folder.path()).await.unwrap();
    assert_eq!(store.get("row/01").await.unwrap().unwrap().value[..], [9; 200]);
}
