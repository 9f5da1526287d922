//! A store with a million rows starts soon, after a stop and after a kill, and one key may have a
//! hundred thousand versions. Long: run with `--ignored`; `KMS_LARGE_ROWS` asks for another number.

#![expect(clippy::unwrap_used, reason = "a test that fails here fails")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kms_store::{Batch, Outcome, SCAN_MAX, Store, Write, open};

const FOLDER: &str = "KMS_STORE_LARGE_FOLDER";
const READ_FOLDER: &str = "KMS_STORE_LARGE_READ_FOLDER";
const VALUE_BYTES: usize = 600;
const BATCH: u64 = 500;
/// The goal is 2.5. The snapshot takes up once the payload and sled twice, since it reuses a segment only
/// when half of it is garbage; an index that holds a row's place in the snapshot instead of its value
/// would reach the goal, and does not exist yet.
const DISK_SHARE_MAX: f64 = 3.5;
const ANONYMOUS_BYTES_MAX: u64 = 256 << 20;

fn rows() -> u64 {
    std::env::var("KMS_LARGE_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000)
}

fn key(i: u64) -> String {
    format!("version/ring/keys/{:08x}/versions/0000000001", i.wrapping_mul(0x9e37_79b1) as u32)
}

/// Bytes that do not repeat.
fn value(i: u64) -> Vec<u8> {
    let mut state = i | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..VALUE_BYTES / 8).flat_map(|_| next()).collect();
    bytes.resize(VALUE_BYTES, 0);
    bytes
}

#[test]
#[ignore = "writes a million rows, for minutes"]
fn a_large_store_starts_soon_after_a_stop_and_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    write_until_killed(folder.path());
    println!("written in {:.0?}", start.elapsed());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let after_kill = runtime.block_on(start_and_stop(folder.path(), "a kill"));
    let after_stop = runtime.block_on(start_and_stop(folder.path(), "a stop"));
    let payload = rows() * (key(0).len() + VALUE_BYTES) as u64;
    let share = |bytes: u64| bytes as f64 / payload as f64;
    for part in ["index", "journal", "snapshots"] {
        let bytes = disk_bytes(&folder.path().join(part));
        println!("on disk, {part}: {:.2} times the payload", share(bytes));
    }
    let share = share(disk_bytes(folder.path()));
    println!("on disk {share:.2} times the payload");
    let small = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (store, _) = open(small.path()).unwrap();
        put_rows(&store, 1000).await;
        store.close().await.unwrap();
    });
    let (few, _) = read_by_a_fresh_process(small.path(), 1000);
    let (many, anonymous) = read_by_a_fresh_process(folder.path(), rows());
    // No bound: the small store is in memory as a whole, and what a caller sees is mostly not the store.
    println!("a random read: {few:?} of 1,000 rows, {many:?} of {}", rows());
    println!("anonymous memory after 200,000 random reads: {} MiB", anonymous >> 20);
    assert!(after_kill <= Duration::from_secs(5), "{after_kill:?}");
    assert!(after_stop <= Duration::from_millis(1500), "{after_stop:?}");
    assert!(share <= DISK_SHARE_MAX, "{share:.2}");
    assert!(anonymous <= ANONYMOUS_BYTES_MAX, "{anonymous}");
}

/// Within what time half and 99 of 100 of the reads came back.
#[derive(Debug)]
struct Times {
    #[expect(dead_code, reason = "it is printed")]
    half: Duration,
    #[expect(dead_code, reason = "it is printed")]
    most: Duration,
}

/// Reads rows at random in a process that has done nothing else; says how long that took, and how much
/// memory it had in the end.
fn read_by_a_fresh_process(folder: &Path, rows: u64) -> (Times, u64) {
    let reader = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_reader_of_many_rows", "--nocapture", "--test-threads=1"])
        .env(READ_FOLDER, folder)
        .env("KMS_LARGE_ROWS", rows.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8(reader.stdout).unwrap();
    let line = said.lines().find_map(|line| line.split_once("read: ")).expect("what it read").1;
    let figures: Vec<u64> = line.split(' ').map(|figure| figure.parse().unwrap()).collect();
    let [half, most, bytes] = figures[..] else { panic!("{line}") };
    let (half, most) = (Duration::from_nanos(half), Duration::from_nanos(most));
    (Times { half, most }, bytes)
}

/// Not a test of its own: without the variable there is nothing to do.
#[test]
fn the_reader_of_many_rows() {
    let Some(folder) = std::env::var_os(READ_FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, _) = open(Path::new(&folder)).unwrap();
        let times = read_at_random(&store, rows()).await;
        let at = |share: usize| times[times.len() * share / 100].as_nanos();
        println!("read: {} {} {}", at(50), at(99), anonymous_bytes());
        store.close().await.unwrap();
    });
}

async fn read_at_random(store: &dyn Store, rows: u64) -> Vec<Duration> {
    let (mut state, mut times) = (0x9e37_79b9_7f4a_7c15_u64, Vec::new());
    // What is read for the first time is read from the disk; that is not measured here.
    for i in 0..200_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let wanted = state % rows;
        let start = Instant::now();
        let row = store.get(&key(wanted)).await.unwrap();
        if i >= 100_000 {
            times.push(start.elapsed());
        }
        assert!(row.is_some());
    }
    times.sort_unstable();
    times
}

/// Memory of this process that no file stands behind.
fn anonymous_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

async fn start_and_stop(folder: &Path, after: &str) -> Duration {
    let start = Instant::now();
    let (store, opened) = open(folder).unwrap();
    let row = store.get(&key(rows() / 2)).await.unwrap().unwrap();
    let ready = start.elapsed();
    assert!(row.value[..] == value(rows() / 2));
    let start = Instant::now();
    store.close().await.unwrap();
    println!("after {after}: ready in {ready:.2?}, closed in {:.2?}, {opened:?}", start.elapsed());
    assert!(!opened.rebuilt_index);
    ready
}

fn write_until_killed(folder: &Path) {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_writer_of_many_rows", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let written = lines.map_while(Result::ok).any(|line| line.contains("all written"));
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(written, "the writer ended by itself");
}

/// Not a test of its own: without the variable there is nothing to do.
#[test]
fn the_writer_of_many_rows() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, _) = open(Path::new(&folder)).unwrap();
        put_rows(&store, rows()).await;
        println!("all written");
        std::future::pending::<()>().await;
    });
}

async fn put_rows(store: &dyn Store, rows: u64) {
    for begin in (0..rows).step_by(BATCH as usize) {
        let put = |i| Write::Put { key: key(i), value: value(i) };
        let writes = (begin..rows.min(begin + BATCH)).map(put).collect();
        let leaves = vec![vec![7; 300]];
        let outcome = store.commit(Batch { writes, leaves, ..Batch::default() }).await;
        assert!(matches!(outcome, Ok(Outcome::Committed(_))));
    }
}

#[tokio::test]
#[ignore = "writes a hundred thousand rows"]
async fn a_page_of_many_versions_takes_as_long_at_the_end_as_at_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path()).unwrap();
    let (count, name) = (100_000_u64, |i: u64| format!("version/ring/keys/one/versions/{i:010}"));
    for begin in (0..count).step_by(BATCH as usize) {
        let put = |i| Write::Put { key: name(i), value: value(i) };
        let writes = (begin..begin + BATCH).map(put).collect();
        let outcome = store.commit(Batch { writes, ..Batch::default() }).await;
        assert!(matches!(outcome, Ok(Outcome::Committed(_))));
    }
    let (mut seen, mut after, mut times) = (0, None::<String>, Vec::new());
    loop {
        let start = Instant::now();
        let prefix = "version/ring/keys/one/versions/";
        let page = store.scan(prefix, after.as_deref(), SCAN_MAX).await.unwrap();
        times.push(start.elapsed());
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        assert!(page.iter().zip(seen..).all(|((key, _), i)| *key == name(i)));
        seen += page.len() as u64;
    }
    assert_eq!(seen, count);
    times.pop();
    let half = times.len() / 2;
    times[..half].sort_unstable();
    times[half..].sort_unstable();
    let (early, late) = (times[half / 2], times[half + half / 2]);
    println!("a page of {SCAN_MAX}: {early:.2?} in the first half, {late:.2?} in the second");
    assert!(late <= early * 2, "{early:?}, {late:?}");
    store.close().await.unwrap();
}

fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let of = |path: &Path| match std::fs::metadata(path).unwrap() {
        metadata if metadata.is_dir() => disk_bytes(path),
        metadata => metadata.blocks() * 512,
    };
    entries.map(|entry| of(&entry.path())).sum()
}
