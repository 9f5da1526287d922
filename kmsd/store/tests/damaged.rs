//! A store whose files were damaged says so or serves what was written: nothing wrong, no panic, no
//! hang.
//!
//! Copies of a good store get one damage each, a flipped bit or a lost end, at a random place in every
//! kind of file; a child process opens each under a deadline and reads everything. 60 copies, or
//! 1,000 with `KMS_LONG=1`. `KMS_DAMAGE_SEED` repeats a run.

#![expect(clippy::unwrap_used, reason = "a test that fails here fails")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use kms_core::audit::merkle::{Frontier, leaf_hash, verify_inclusion};
use kms_store::{Batch, Outcome, SCAN_MAX, Settings, Store, StoreError, Write, open_with};
use zeroize::Zeroizing;

/// Several segments, some of them before a snapshot and some after it; an index that hangs is found
/// out soon.
const SETTINGS: Settings = Settings {
    segment_bytes: 32 * 1024,
    index_patience: Duration::from_secs(5),
    snapshot_row_bytes: 48 * 1024,
    snapshot_at_close: false,
};
/// How many rows the good store has: in the long run as many as fill several segments of sled.
static ROWS: LazyLock<u64> = LazyLock::new(|| if is_long() { 1500 } else { 120 });
const SLOTS: u64 = 24;
/// How long a child may take, with an index that hangs twice over.
const DEADLINE: Duration = Duration::from_secs(45);
/// How often a store is opened until it is healed: the second start makes a condemned index anew.
const STARTS_MAX: usize = 3;

#[test]
fn a_damaged_journal_store_serves_nothing_wrong() {
    let silent = damage_copies("journal", copies(), &|_| {});
    assert_eq!(silent, 0);
}

/// What was closed is held against its imprint before sled sees it. An index that a kill left open
/// has none: there sled itself meets the damage, and what it makes of it must not be ours. It may
/// take a page as it was before; that is counted here, and is for the digests over all rows to find.
#[test]
fn an_index_that_is_damaged_after_a_kill_does_not_take_the_process_down() {
    let as_killed = |copy: &Path| {
        let boot = fs::read("/proc/sys/kernel/random/boot_id").unwrap();
        fs::write(copy.join("index.open"), boot).unwrap();
    };
    let silent = damage_copies("journal", copies() / 3, &as_killed);
    println!("after a kill and a damage at once: {silent} served as they were before");
}

#[test]
fn a_damaged_store_of_the_other_backend_serves_nothing_wrong() {
    #[cfg(feature = "redb")]
    assert_eq!(damage_copies("redb", copies(), &|_| {}), 0);
    #[cfg(not(feature = "redb"))]
    println!("skipped: built without the feature redb");
}

fn copies() -> usize {
    if is_long() { 1000 } else { 60 }
}

/// Damages so many copies, each as `prepare` leaves it; says how many of them served anything
/// wrong.
fn damage_copies(which: &str, copies: usize, prepare: &dyn Fn(&Path)) -> usize {
    let seed = std::env::var("KMS_DAMAGE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) * 0x9e37_79b9 + 1);
    let mut random = Random(seed);
    let root = tempfile::tempdir().unwrap();
    let good = root.path().join("good");
    runtime().block_on(fill(which, &good));
    let untouched = root.path().join("copy");
    copy_folder(&good, &untouched);
    assert_eq!(judge(which, &untouched).0, Outcomes::Harmless, "a copy without damage");
    fs::remove_dir_all(&untouched).unwrap();
    let kinds = kinds(&good);
    let mut table: BTreeMap<&str, BTreeMap<Outcomes, usize>> = BTreeMap::new();
    for i in 0..copies {
        let (kind, files) = kinds.iter().nth(i % kinds.len()).unwrap();
        let copy = root.path().join("copy");
        copy_folder(&good, &copy);
        prepare(&copy);
        let damage = damage(&copy, &files[random.below(files.len())], &mut random);
        let (outcome, said) = judge(which, &copy);
        if matches!(outcome, Outcomes::Silent | Outcomes::Panic | Outcomes::Hang) {
            println!("{which}, copy {i}, seed {seed}: {damage}: {outcome:?}\n{said}");
        }
        *table.entry(kind.as_str()).or_default().entry(outcome).or_default() += 1;
        fs::remove_dir_all(&copy).unwrap();
    }
    print(which, &table);
    let of = |outcome| table.values().filter_map(|row| row.get(&outcome)).sum::<usize>();
    assert_eq!((of(Outcomes::Panic), of(Outcomes::Hang)), (0, 0), "panics, hangs");
    assert!(of(Outcomes::Refused) > 0, "no damage was found; were there any?");
    of(Outcomes::Silent)
}

/// What comes of one damage.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Outcomes {
    Harmless,
    Healed,
    Refused,
    Silent,
    Panic,
    Hang,
}

const COLUMNS: [(Outcomes, &str); 6] = [
    (Outcomes::Harmless, "harmless"),
    (Outcomes::Healed, "healed from the journal"),
    (Outcomes::Refused, "refused by name"),
    (Outcomes::Silent, "silent"),
    (Outcomes::Panic, "panic"),
    (Outcomes::Hang, "hang"),
];

fn print(which: &str, table: &BTreeMap<&str, BTreeMap<Outcomes, usize>>) {
    let names = COLUMNS.map(|(_, name)| name);
    println!("| {which} store, damage in | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(COLUMNS.len()));
    let row = |name: &str, count: &dyn Fn(Outcomes) -> usize| {
        let counts = COLUMNS.map(|(outcome, _)| count(outcome).to_string());
        println!("| {name} | {} |", counts.join(" | "));
    };
    for (kind, counts) in table {
        row(kind, &|outcome| counts.get(&outcome).copied().unwrap_or(0));
    }
    row("all", &|outcome| table.values().filter_map(|counts| counts.get(&outcome)).sum());
}

/// Opens the damaged store in children until it is judged.
fn judge(which: &str, folder: &Path) -> (Outcomes, String) {
    let mut said = String::new();
    for start in 0..STARTS_MAX {
        let (code, output) = child(which, folder);
        said.push_str(&output);
        let healed = start > 0;
        let verdict = output.lines().find_map(|line| line.strip_prefix("verdict "));
        let outcome = match (code, verdict) {
            (Ended::Code(0), Some("harmless")) if healed => Outcomes::Healed,
            (Ended::Code(0), Some("harmless")) => Outcomes::Harmless,
            (Ended::Code(0), Some("healed")) => Outcomes::Healed,
            (Ended::Code(0), Some("refused")) => Outcomes::Refused,
            (Ended::Code(0), Some("silent")) => Outcomes::Silent,
            // The index was condemned: what the next start makes of it counts.
            (Ended::Code(0), Some("again")) | (Ended::Code(INDEX_HANGS), _) => continue,
            (Ended::Late, _) => Outcomes::Hang,
            _ => Outcomes::Panic,
        };
        return (outcome, said);
    }
    (Outcomes::Hang, format!("{said}\nit is not healed after {STARTS_MAX} starts"))
}

/// What a process ends with whose index hangs; see `kms_store::open`.
const INDEX_HANGS: i32 = 70;

#[derive(Clone, Copy)]
enum Ended {
    Code(i32),
    Late,
    Signal,
}

fn child(which: &str, folder: &Path) -> (Ended, String) {
    let output = folder.with_extension("output");
    let file = fs::File::create(&output).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_opens_it", "--nocapture", "--test-threads=1"])
        .env("KMS_DAMAGED_FOLDER", folder)
        .env("KMS_DAMAGED_STORE", which)
        .stdout(file.try_clone().unwrap())
        .stderr(Stdio::from(file))
        .spawn()
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.code().map_or(Ended::Signal, Ended::Code),
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                child.wait().unwrap();
                break Ended::Late;
            }
            None => std::thread::sleep(Duration::from_millis(3)),
        }
    };
    let mut text = Vec::new();
    fs::File::open(&output).unwrap().read_to_end(&mut text).unwrap();
    (ended, String::from_utf8_lossy(&text).into_owned())
}

/// Not a test of its own: without the variables there is nothing to do.
#[test]
fn the_process_that_opens_it() {
    let Some(folder) = std::env::var_os("KMS_DAMAGED_FOLDER") else { return };
    let which = std::env::var("KMS_DAMAGED_STORE").unwrap();
    let verdict = match open(&which, Path::new(&folder)) {
        Ok((store, healed)) => runtime().block_on(read_all(&*store, healed)),
        Err(StoreError::IndexHangs { .. }) => "again",
        Err(error) => {
            println!("refused: {error}");
            "refused"
        }
    };
    println!("\nverdict {verdict}");
}

/// The store, and whether its index was made anew or caught up.
fn open(which: &str, folder: &Path) -> Result<(Arc<dyn Store>, bool), StoreError> {
    #[cfg(feature = "redb")]
    if which == "redb" {
        return Ok((Arc::new(kms_store::open_redb(folder)?.0), false));
    }
    assert_eq!(which, "journal");
    let (store, opened) = open_with(folder, &SETTINGS)?;
    Ok((Arc::new(store), opened.rebuilt_index || opened.replayed_records > 0))
}

/// Reads everything twice over and compares it with what was written.
async fn read_all(store: &dyn Store, healed: bool) -> &'static str {
    let mut seen = Seen::default();
    for i in 0..*ROWS {
        seen.take(
            &key(i),
            store
                .get(&key(i))
                .await
                .map(|row| row.is_some_and(|row| row.revision == 2 && row.value[..] == value(i))),
        );
    }
    let deleted = store.get(DELETED).await;
    seen.take(DELETED, deleted.map(|row| row.is_none()));
    seen.take(
        "the pages of all rows",
        all_rows(store).await.map(|rows| {
            let mut all: Vec<_> = (0..*ROWS).map(|i| (key(i), value(i))).collect();
            all.sort();
            rows == all
        }),
    );
    let expected = frontier();
    let head = store.log_frontier().await;
    seen.take("the head", Ok(head == expected));
    let mut leaves = Vec::new();
    while (leaves.len() as u64) < head.size() {
        match store.leaves(leaves.len() as u64, SCAN_MAX).await {
            Ok(page) => leaves.extend(page),
            Err(error) => {
                seen.take("a page of leaves", Err(error));
                break;
            }
        }
    }
    let right = leaves.iter().zip(0..).all(|(leaf, i)| *leaf == self::leaf(i));
    seen.take("the leaves", Ok(right));
    for i in (0..head.size()).step_by(7) {
        let path = store.inclusion_proof(i, head.size()).await;
        seen.take(
            "a proof",
            path.map(|path| {
                verify_inclusion(&leaf_hash(&leaf(i)), i, head.size(), &path, &expected.root())
            }),
        );
    }
    for i in 0..*ROWS {
        let outcome = store.outcome_of(&name(i)).await;
        seen.take(
            "an outcome",
            outcome.map(|known| {
                known.is_some_and(|known| {
                    known.receipt.index_of(&leaf_hash(&leaf(3 * i + 1))) == Some(3 * i + 1)
                })
            }),
        );
    }
    for i in 0..SLOTS {
        let right = match store.read_slot(i).await {
            Ok(secret) => Ok(!i.is_multiple_of(3) && *secret == *self::secret(i)),
            Err(StoreError::SlotErased { .. }) => Ok(i.is_multiple_of(3)),
            Err(error) => Err(error),
        };
        seen.take("a slot", right);
    }
    let Seen { wrong, refused, condemned } = seen;
    match (wrong, condemned, refused) {
        (true, ..) => "silent",
        (false, true, _) => "again",
        (false, false, true) => "refused",
        (false, false, false) if healed => "healed",
        (false, false, false) => "harmless",
    }
}

async fn all_rows(store: &dyn Store) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
    loop {
        let after = rows.last().map(|row| row.0.clone());
        let page = store.scan("", after.as_deref(), SCAN_MAX).await?;
        if page.is_empty() {
            return Ok(rows);
        }
        rows.extend(page.into_iter().map(|(key, row)| (key, row.value.to_vec())));
    }
}

#[derive(Default)]
struct Seen {
    wrong: bool,
    refused: bool,
    /// The store ended because of its index: the next start tells.
    condemned: bool,
}

impl Seen {
    fn take(&mut self, what: &str, right: Result<bool, StoreError>) {
        match right {
            Ok(true) => {}
            Ok(false) => {
                println!("wrong: {what}");
                self.wrong = true;
            }
            Err(StoreError::Poisoned) => self.condemned = true,
            Err(error) => {
                println!("refused, {what}: {error}");
                self.refused = true;
            }
        }
    }
}

/// A good store, closed: rows that were something else before, a deleted row, leaves over more than
/// one tile, names, slots of which every third is erased.
async fn fill(which: &str, folder: &Path) {
    let (store, _) = open(which, folder).unwrap();
    for i in 0..SLOTS {
        store.put_slot(secret(i)).await.unwrap();
    }
    let before = |i| Write::Put { key: key(i), value: b"before".repeat(60) };
    for begin in (0..*ROWS).step_by(100) {
        let writes = (begin..(begin + 100).min(*ROWS)).map(before).collect();
        let outcome = store.commit(Batch { writes, ..Batch::default() }).await;
        assert!(matches!(outcome, Ok(Outcome::Committed(_))));
    }
    for i in 0..*ROWS {
        let batch = Batch {
            writes: vec![Write::Put { key: key(i), value: value(i) }],
            leaves: (3 * i..3 * i + 3).map(leaf).collect(),
            idempotency: Some(name(i)),
            ..Batch::default()
        };
        assert!(matches!(store.commit(batch).await, Ok(Outcome::Committed(_))));
    }
    let put = Write::Put { key: DELETED.to_owned(), value: b"gone".to_vec() };
    for write in [put, Write::Delete { key: DELETED.to_owned() }] {
        let batch = Batch { writes: vec![write], ..Batch::default() };
        assert!(matches!(store.commit(batch).await, Ok(Outcome::Committed(_))));
    }
    for i in (0..SLOTS).step_by(3) {
        store.erase_slot(i).await.unwrap();
    }
    store.close().await.unwrap();
}

const DELETED: &str = "deleted";

fn key(i: u64) -> String {
    format!("row/{i}")
}

fn value(i: u64) -> Vec<u8> {
    leaf_hash(&i.to_be_bytes()).as_bytes().repeat(20)
}

fn leaf(i: u64) -> Vec<u8> {
    format!("leaf {i}").into_bytes()
}

fn name(i: u64) -> [u8; 32] {
    *leaf_hash(key(i).as_bytes()).as_bytes()
}

fn secret(i: u64) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*leaf_hash(format!("secret {i}").as_bytes()).as_bytes())
}

fn frontier() -> Frontier {
    let mut frontier = Frontier::default();
    (0..3 * *ROWS).for_each(|i| frontier.append(leaf_hash(&leaf(i))));
    frontier
}

/// The files that hold anything, by what they are: the name without its number, decimal or
/// hexadecimal.
fn kinds(folder: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    fn collect(folder: &Path, below: &Path, kinds: &mut BTreeMap<String, Vec<PathBuf>>) {
        for entry in fs::read_dir(folder.join(below)).unwrap() {
            let below = below.join(entry.unwrap().file_name());
            let metadata = fs::metadata(folder.join(&below)).unwrap();
            if metadata.is_dir() {
                collect(folder, &below, kinds);
            } else if metadata.len() > 0 {
                let kind =
                    below.to_str().unwrap().chars().filter(|c| !matches!(c, '0'..='9' | 'A'..='F'));
                let kind = kind.collect::<String>();
                kinds.entry(kind).or_default().push(below);
            }
        }
    }
    let mut kinds = BTreeMap::new();
    collect(folder, Path::new(""), &mut kinds);
    kinds
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

/// Flips a bit, most often where something stands, or cuts the end off; says what it did.
fn damage(folder: &Path, file: &Path, random: &mut Random) -> String {
    let bytes = fs::read(folder.join(file)).unwrap();
    let open = OpenOptions::new().write(true).open(folder.join(file)).unwrap();
    if random.below(4) == 0 {
        let length = random.below(bytes.len());
        open.set_len(length as u64).unwrap();
        return format!("{} cut to {length} bytes", file.display());
    }
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let anywhere = used.is_empty() || random.below(4) == 0;
    let at = if anywhere { random.below(bytes.len()) } else { used[random.below(used.len())] };
    let bit = random.below(8);
    open.write_all_at(&[bytes[at] ^ (1 << bit)], at as u64).unwrap();
    format!("{} with bit {bit} of byte {at} flipped", file.display())
}

fn is_long() -> bool {
    std::env::var_os("KMS_LONG").is_some_and(|value| value == "1")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        // xorshift64*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as usize % bound
    }
}
