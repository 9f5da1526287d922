//! What is this backend's own: everything else is the contract.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kms_core::audit::merkle::leaf_hash;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::{RedbStore, open};
use crate::conformance::{self, all_rows, committed, delete, put, verified_log};
use crate::{Opened, Store, StoreError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    let (root, count) = (tempfile::tempdir().unwrap(), AtomicU32::new(0));
    conformance::run(async || {
        let path = root.path().join(count.fetch_add(1, Ordering::Relaxed).to_string());
        let (store, opened) = open(&path).unwrap();
        assert!(opened.created);
        Arc::new(store) as Arc<dyn Store>
    })
    .await;
}

type Rows = Vec<(String, u64, Vec<u8>)>;

async fn content(store: &RedbStore) -> (Rows, Vec<Vec<u8>>) {
    (all_rows(store, "").await, verified_log(store).await)
}

/// A closed store with rows, a deleted row, names, leaves over more than one tile and two slots, the
/// first of them erased.
async fn filled() -> (TempDir, (Rows, Vec<Vec<u8>>)) {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path()).unwrap();
    for slot in [[8; 32], [9; 32]] {
        store.put_slot(Zeroizing::new(slot)).await.unwrap();
    }
    for i in 0..40_u32 {
        let mut batch = put(&format!("row/{:02}", i % 30), &[i as u8; 600]);
        batch.leaves = (0..10).map(|k| format!("leaf {i} {k}").into_bytes()).collect();
        batch.idempotency = Some([i as u8; 32]);
        committed(&store, batch).await;
    }
    committed(&store, delete("row/07")).await;
    store.erase_slot(0).await.unwrap();
    let content = content(&store).await;
    store.close().await.unwrap();
    (folder, content)
}

fn refusal(path: &Path) -> StoreError {
    open(path).map(|(_, opened)| panic!("it opens: {opened:?}")).unwrap_err()
}

#[tokio::test]
async fn a_store_that_is_opened_again_has_everything() {
    let (folder, expected) = filled().await;
    for _ in 0..2 {
        let (store, opened) = open(folder.path()).unwrap();
        assert_eq!(opened, Opened::default());
        assert_eq!(content(&store).await, expected);
        assert!(matches!(store.read_slot(0).await, Err(StoreError::SlotErased { .. })));
        assert_eq!(*store.read_slot(1).await.unwrap(), [9; 32]);
        let replayed = store.outcome_of(&[3; 32]).await.unwrap().unwrap();
        assert_eq!(replayed.receipt.index_of(&leaf_hash(b"leaf 3 4")), Some(34));
    }
    let (store, _) = open(folder.path()).unwrap();
    committed(&store, put("row/07", b"again")).await;
    assert_eq!(store.get("row/07").await.unwrap().unwrap().revision, 3);
}

#[tokio::test]
async fn files_are_private_and_the_folder_is_for_one() {
    let (folder, _) = filled().await;
    for name in ["lock", "slots", "store.redb", "head"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let (_store, _) = open(folder.path()).unwrap();
    assert!(matches!(refusal(folder.path()), StoreError::Locked { .. }));
}

#[tokio::test]
async fn the_backends_do_not_take_each_others_folders() {
    let (folder, expected) = filled().await;
    let refused = crate::open(folder.path()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StoreError::OtherBackend { .. }), "{refused}");
    assert_eq!(content(&open(folder.path()).unwrap().0).await, expected);
    let folder = tempfile::tempdir().unwrap();
    drop(crate::open(folder.path()).unwrap());
    assert!(matches!(refusal(folder.path()), StoreError::OtherBackend { .. }));
}

#[tokio::test]
async fn a_database_that_is_older_or_gone_is_refused() {
    let (folder, _) = filled().await;
    let database = folder.path().join("store.redb");
    let older = fs::read(&database).unwrap();
    let (store, _) = open(folder.path()).unwrap();
    committed(&store, put("more", b"")).await;
    store.close().await.unwrap();
    let newest = fs::read(&database).unwrap();
    fs::write(&database, &older).unwrap();
    assert!(matches!(refusal(folder.path()), StoreError::DatabaseDamaged { .. }));
    fs::remove_file(&database).unwrap();
    assert!(matches!(refusal(folder.path()), StoreError::DatabaseDamaged { .. }));
    fs::write(&database, &newest).unwrap();
    open(folder.path()).unwrap();
}

/// Every page is verified when the database opens, so damage is either outside of what counts or
/// refused.
#[tokio::test]
async fn flipped_bits_are_refused_or_do_not_change_an_answer() {
    let (folder, expected) = filled().await;
    let database = folder.path().join("store.redb");
    let (good, head) =
        (fs::read(&database).unwrap(), fs::read(folder.path().join("head")).unwrap());
    let mut refused = 0;
    for i in 0..60 {
        let mut bytes = good.clone();
        let at = (i * good.len() / 60 + i * 131) % good.len();
        bytes[at] ^= 1 << (i % 8);
        fs::write(&database, &bytes).unwrap();
        fs::write(folder.path().join("head"), &head).unwrap();
        match open(folder.path()) {
            Ok((store, _)) => assert_eq!(content(&store).await, expected, "byte {at}"),
            Err(StoreError::DatabaseDamaged { .. }) => refused += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    println!("{refused} of 60 flips refused, the others harmless");
    assert!(refused > 0);
}
