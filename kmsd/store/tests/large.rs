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
const VALUE_BYTES: usize = 600;
const BATCH: u64 = 500;

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
    let share = disk_bytes(folder.path()) as f64 / payload as f64;
    println!("on disk {share:.2} times the payload");
    assert!(after_kill <= Duration::from_secs(5), "{after_kill:?}");
    assert!(after_stop <= Duration::from_millis(1500), "{after_stop:?}");
    assert!(share <= 2.5, "{share:.2}");
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
        for begin in (0..rows()).step_by(BATCH as usize) {
            let put = |i| Write::Put { key: key(i), value: value(i) };
            let writes = (begin..rows().min(begin + BATCH)).map(put).collect();
            let leaves = vec![vec![7; 300]];
            let outcome = store.commit(Batch { writes, leaves, ..Batch::default() }).await;
            assert!(matches!(outcome, Ok(Outcome::Committed(_))));
        }
        println!("all written");
        std::future::pending::<()>().await;
    });
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
