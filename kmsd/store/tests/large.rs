//! A store with a million rows starts soon, after a stop and after a kill, and one key may have a
//! hundred thousand versions. Long: run with `--ignored`; `KMS_LARGE_ROWS` asks for another number.

#![expect(clippy::unwrap_used, reason = "a test that fails here fails")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kms_core::canonical;
use kms_core::key::{Key, Version};
use kms_store::{Batch, Outcome, SCAN_MAX, Store, Write, open};

const FOLDER: &str = "KMS_STORE_LARGE_FOLDER";
const READ_FOLDER: &str = "KMS_STORE_LARGE_READ_FOLDER";
/// What the key of a pair begins with, in DER and hexadecimal.
const P256_PREFIX: &str = "3059301306072a8648ce3d020106082a8648ce3d03010703420004";
const BATCH: u64 = 500;
const DISK_SHARE_MAX: f64 = 2.5;
const ANONYMOUS_BYTES_MAX: u64 = 256 << 20;

fn rows() -> u64 {
    std::env::var("KMS_LARGE_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000)
}

/// The rows are what the daemon writes when somebody makes a key: one for the key, one for its first
/// version, one for what happened, of every third number each. Every other key is a pair and the rest are
/// secrets. Random are, as there, the public key, the wrapped secret, the operation and the tag of the
/// envelope; everything else is text, which the test below holds against the types of the rules.
fn row(i: u64) -> (String, Vec<u8>) {
    let (n, mut random) = (i / 3, Random(i));
    let is_pair = n.is_multiple_of(2);
    let operation: [u8; 16] = random.bytes();
    let operation_hex = hex(&operation);
    let at = 1_795_874_288_696 + 37 * n;
    let short = format!("orders-{:08x}", n.wrapping_mul(0x9e37_79b1) as u32);
    let name = format!("tenants/default/locations/local/keyRings/shop/keys/{short}");
    let (algorithm, mechanism, usages, length) = match is_pair {
        true => ("EC_P256", "ECDSA_SHA256", r#""SIGN","VERIFY""#, 0),
        false => ("AES_256", "AES_GCM", r#""DECRYPT","ENCRYPT","UNWRAP","WRAP""#, 32),
    };
    let (place, body, sealed_bytes) = match i % 3 {
        0 => {
            let labels = r#"{"env":"prod","team":"payments"}"#;
            let body = format!(
                r#"{{"algorithm":"{algorithm}","created_at":{at},"dataset":"","deleted_at":null,"exportable":false,"floors":{{"process":0,"protect":0}},"labels":{labels},"latest":1,"mechanisms":["{mechanism}"],"model":"","name":"{name}","pkcs11":{{"id":"","label":"{short}"}},"primary":1,"quorum":null,"requirement":null,"rotation":null,"trusted":false,"usages":[{usages}]}}"#
            );
            (format!("key/{name}"), body, 0)
        }
        1 => {
            let point: [u8; 64] = random.bytes();
            let public_key = match is_pair {
                true => format!("{P256_PREFIX}{}", hex(&point)),
                false => String::new(),
            };
            let version = format!("{name}/versions/1");
            let body = format!(
                r#"{{"certificate":"","changed_at":{at},"compromise":null,"created_at":{at},"dates":{{"activates_at":null,"deactivates_at":null,"destroys_at":null}},"enabled":true,"header":{{"algorithm":"{algorithm}","dataset":"","ever_exportable":false,"exportable":false,"length_bytes":{length},"lineage":"{version}","mechanisms":["{mechanism}"],"model":"","origin":"GENERATED","quorum_digest":null,"requirement_digest":null,"usages":[{usages}],"version":"{version}"}},"protections_reserved":0,"public_key":"{public_key}","slot":{n},"state":"ACTIVE","undo":null}}"#
            );
            (format!("version/{name}/versions/0000000001"), body, if is_pair { 152 } else { 40 })
        }
        _ => {
            let body = format!(
                r#"{{"action":"CreateKey","actor":"users/developer","at":{at},"from":null,"key":"{name}","operation_id":"{operation_hex}","to":"ACTIVE","version":1}}"#
            );
            let place = format!("history/{name}/events/{:020}/{operation_hex}", u64::MAX - at);
            (place, body, 0)
        }
    };
    let (sealed, tag): ([u8; 152], [u8; 32]) = (random.bytes(), random.bytes());
    let body_bytes = (body.len() as u32).to_be_bytes();
    let parts = [&[1], &operation[..], &body_bytes, body.as_bytes(), &sealed[..sealed_bytes], &tag];
    (place, parts.concat())
}

fn key(i: u64) -> String {
    row(i).0
}

fn value(i: u64) -> Vec<u8> {
    row(i).1
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that nothing makes shorter: SplitMix64.
struct Random(u64);

impl Random {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut next = || {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.0;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (word ^ (word >> 31)) as u8
        };
        core::array::from_fn(|_| next())
    }
}

#[test]
fn the_rows_are_such_as_the_daemon_writes() {
    for i in 0..12 {
        let value = value(i);
        let body_bytes = u32::from_be_bytes(*value[17..].first_chunk().unwrap()) as usize;
        let body = &value[21..21 + body_bytes];
        match i % 3 {
            0 => drop(canonical::from_bytes::<Key>(body).unwrap()),
            1 => drop(canonical::from_bytes::<Version>(body).unwrap()),
            _ => {
                assert!(body.starts_with(b"{\"action\":"), "the daemon alone knows this one's type")
            }
        }
    }
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
    let bytes = |(key, value): (String, Vec<u8>)| (key.len() + value.len()) as u64;
    let payload: u64 = (0..rows()).map(|i| bytes(row(i))).sum();
    println!("{} rows of {} bytes", rows(), payload / rows());
    let share = |bytes: u64| bytes as f64 / payload as f64;
    for part in ["index", "journal", "snapshots"] {
        let bytes = disk_bytes(&folder.path().join(part));
        println!("on disk, {part}: {:.2} times the payload", share(bytes));
    }
    let share = share(disk_bytes(folder.path()));
    println!("on disk {share:.2} times the payload");
    let files = std::fs::read_dir(folder.path().join("snapshots")).unwrap().count();
    assert_eq!(files, 2, "a head and its rows; the snapshot before is gone");
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

/// What this process has taken of the processor, in user and kernel mode.
fn processor_microseconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = text.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    // The kernel counts hundredths of a second.
    fields.map(|ticks| ticks.parse::<u64>().unwrap() as f64 * 10_000.0).sum()
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
    let written = lines.map_while(Result::ok).find(|line| line.contains("all written"));
    writer.kill().unwrap();
    writer.wait().unwrap();
    println!("{}", written.expect("the writer ended by itself"));
}

/// Not a test of its own: without the variable there is nothing to do.
#[test]
fn the_writer_of_many_rows() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, _) = open(Path::new(&folder)).unwrap();
        put_rows(&store, rows()).await;
        println!("all written, a row in {:.1} µs of CPU", processor_microseconds() / rows() as f64);
        std::future::pending::<()>().await;
    });
}

async fn put_rows(store: &dyn Store, rows: u64) {
    for begin in (0..rows).step_by(BATCH as usize) {
        let put = |i| {
            let (key, value) = row(i);
            Write::Put { key, value }
        };
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
