//! A process that is killed in the middle of its work loses nothing that it acknowledged.
//!
//! The writer is this same test program, started again with a folder in its environment. What this
//! cannot show is a power loss, since the kernel keeps what a killed process wrote; the tests of
//! torn records stand for that.
//!
//! 20 rounds, or 1,000 with `KMS_LONG=1`, under eight writers.

#![expect(clippy::unwrap_used, reason = "a test that fails here fails")]

mod naming;

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use kms_core::audit::merkle::{Frontier, leaf_hash, verify_inclusion};
use kms_store::{Batch, Outcome, SCAN_MAX, Settings, Store, Write, open_with};
use zeroize::Zeroizing;

const FOLDER: &str = "KMS_STORE_KILL_FOLDER";
const WRITERS: u32 = 8;
/// Every how many rounds everything is looked at that was ever acknowledged, and the index made anew.
const WHOLE_EVERY: u32 = 20;
/// Small segments, so that a kill may also meet the beginning of one, or a snapshot.
const SEGMENT_BYTES: u64 = 128 * 1024;
const SNAPSHOT_ROW_BYTES: u64 = 64 * 1024;

fn settings() -> Settings {
    Settings {
        segment_bytes: SEGMENT_BYTES,
        snapshot_row_bytes: SNAPSHOT_ROW_BYTES,
        ..Settings::default()
    }
}

#[test]
fn acknowledged_writes_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let is_long = std::env::var_os("KMS_LONG").is_some_and(|value| value == "1");
    let rounds = if is_long { 1000 } else { 20 };
    let mut acknowledged: HashMap<String, u64> = HashMap::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for round in 1..=rounds {
        let mut of_this_round = HashMap::new();
        // Not always at the same moment.
        write_until_killed(folder.path(), 60 + 7 * (round as usize % 23), &mut of_this_round);
        assert!(of_this_round.len() >= 60, "the writer wrote too little to tell");
        runtime.block_on(check_some(folder.path(), &of_this_round));
        acknowledged.extend(of_this_round);
        if round % WHOLE_EVERY == 0 {
            runtime.block_on(check(folder.path(), &acknowledged));
        }
    }
    println!("kill: {rounds} rounds, {} acknowledged writes, none lost", acknowledged.len());
}

/// Looks at what was acknowledged in the round before.
async fn check_some(folder: &Path, acknowledged: &HashMap<String, u64>) {
    let (store, opened) = open_with(folder, &settings()).unwrap();
    assert!(!opened.rebuilt_index, "a kill does not cost the index");
    naming::begin(&store).await.expect("the rows are those that the log names");
    let head = store.log_frontier().await;
    for (key, index) in acknowledged {
        let row = store.get(key).await.unwrap().unwrap_or_else(|| panic!("{key} is lost"));
        let slot = u64::from_be_bytes(row.value[..8].try_into().unwrap());
        assert_eq!(store.read_slot(slot).await.unwrap()[..4], slot_mark(key));
        let leaf = store.leaves(*index, 1).await.unwrap().remove(0);
        assert_eq!(leaf, key.as_bytes(), "the leaf of {key}");
        let path = store.inclusion_proof(*index, head.size()).await.unwrap();
        assert!(verify_inclusion(&leaf_hash(&leaf), *index, head.size(), &path, &head.root()));
    }
    // Sometimes the next writer meets a store that was closed, sometimes one that was not.
    if acknowledged.len().is_multiple_of(2) {
        store.close().await.unwrap();
    }
}

/// Starts a writer, kills it after so many acknowledgements, and takes down all of them.
fn write_until_killed(folder: &Path, after: usize, acknowledged: &mut HashMap<String, u64>) {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_writer_that_is_killed", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let (mut count, mut killed) = (0, false);
    // After the kill the pipe still holds acknowledgements, which count as well.
    for line in lines {
        let line = line.unwrap();
        let Some(("ack", rest)) = line.split_once(' ') else { continue };
        // A line that the kill cut short was not said.
        let Some((key, index)) = rest.strip_suffix(" .").and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        acknowledged.insert(key.to_owned(), index.parse().unwrap());
        count += 1;
        if count >= after && !killed {
            writer.kill().unwrap();
            killed = true;
        }
    }
    writer.wait().unwrap();
    assert!(killed, "the writer ended by itself");
}

async fn check(folder: &Path, acknowledged: &HashMap<String, u64>) {
    let (store, opened) = open_with(folder, &settings()).unwrap();
    assert!(!opened.rebuilt_index, "a kill does not cost the index");
    naming::begin(&store).await.expect("the rows are those that the log names");
    let rows = rows(&store).await;
    let keys: HashSet<&str> = rows.iter().map(|(key, _)| key.as_str()).collect();
    let leaves = verified_leaves(&store).await;
    for (key, index) in acknowledged {
        assert!(keys.contains(key.as_str()), "{key} is lost");
        assert_eq!(leaves[*index as usize], key.as_bytes(), "the leaf of {key}");
        let slot = store.get(key).await.unwrap().unwrap().value;
        let slot = u64::from_be_bytes(slot[..8].try_into().unwrap());
        assert_eq!(store.read_slot(slot).await.unwrap()[..4], slot_mark(key));
    }
    store.close().await.unwrap();
    // The index that lived through the kill says the same as one made from the journal alone.
    std::fs::remove_dir_all(folder.join("index")).unwrap();
    let (store, opened) = open_with(folder, &settings()).unwrap();
    assert!(opened.rebuilt_index);
    assert!(self::rows(&store).await == rows, "the index had other rows than the journal");
    assert!(verified_leaves(&store).await == leaves);
}

async fn rows(store: &dyn Store) -> Vec<(String, Vec<u8>)> {
    let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
    loop {
        let after = rows.last().map(|row| row.0.clone());
        let page = store.scan("", after.as_deref(), SCAN_MAX).await.unwrap();
        if page.is_empty() {
            return rows;
        }
        rows.extend(page.into_iter().map(|(key, row)| (key, row.value.to_vec())));
    }
}

/// All leaves, after holding them against the head and some of them against their proofs.
async fn verified_leaves(store: &dyn Store) -> Vec<Vec<u8>> {
    let (head, mut leaves) = (store.log_frontier().await, Vec::new());
    while (leaves.len() as u64) < head.size() {
        leaves.extend(store.leaves(leaves.len() as u64, SCAN_MAX).await.unwrap());
    }
    let mut rebuilt = Frontier::default();
    leaves.iter().for_each(|leaf: &Vec<u8>| rebuilt.append(leaf_hash(leaf)));
    assert_eq!(rebuilt, head);
    for (index, leaf) in (0..).zip(&leaves).step_by(17) {
        let path = store.inclusion_proof(index, head.size()).await.unwrap();
        assert!(verify_inclusion(&leaf_hash(leaf), index, head.size(), &path, &head.root()));
    }
    leaves
}

fn slot_mark(key: &str) -> [u8; 4] {
    let hash = leaf_hash(key.as_bytes());
    [hash.as_bytes()[0], hash.as_bytes()[1], hash.as_bytes()[2], hash.as_bytes()[3]]
}

/// Not a test of its own: without the variable there is nothing to do.
#[test]
fn the_writer_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, _) = open_with(Path::new(&folder), &settings()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        naming::begin(&*store).await.unwrap();
        let mut writers = tokio::task::JoinSet::new();
        writers.spawn(naming::name_rows_forever(store.clone()));
        for writer in 0..WRITERS {
            writers.spawn(write_forever(store.clone(), writer));
        }
        writers.join_all().await;
    });
}

async fn write_forever(store: Arc<dyn Store>, writer: u32) {
    let process = std::process::id();
    for i in 0..u32::MAX {
        let key = format!("rows/{process}-{writer}-{i}");
        let mut secret = Zeroizing::new([0; 32]);
        secret[..4].copy_from_slice(&slot_mark(&key));
        let slot = store.put_slot(secret).await.unwrap();
        let mut value = slot.to_be_bytes().to_vec();
        value.resize(600, 7);
        let batch = Batch {
            writes: vec![Write::Put { key: key.clone(), value }],
            leaves: vec![key.clone().into_bytes()],
            ..Batch::default()
        };
        let Outcome::Committed(committed) = store.commit(batch).await.unwrap() else {
            panic!("not committed")
        };
        let index = committed.receipt.index_of(&leaf_hash(key.as_bytes())).unwrap();
        println!("ack {key} {index} .");
    }
}
