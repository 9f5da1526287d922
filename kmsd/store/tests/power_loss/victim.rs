//! The programs that lose their power: this same test program, started again with a name in its
//! environment. Eight writers, who say on standard output what was acknowledged to them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kms_core::audit::merkle::leaf_hash;
use kms_store::{Batch, Outcome, Settings, Store, Write};
use zeroize::Zeroizing;

const WRITERS: u32 = 8;
/// How many rows a writer writes before the store is closed and opened again.
const ROWS_OF_A_SPELL: u32 = 60;

/// Small segments, so that the power may also go while one is begun.
pub(crate) fn settings() -> Settings {
    Settings { segment_bytes: 64 * 1024, snapshot_row_bytes: 96 * 1024, ..Settings::default() }
}

/// What the row of a key holds.
pub(crate) fn value(key: &str, slot: u64) -> Vec<u8> {
    let mut value = slot.to_be_bytes().to_vec();
    while value.len() < 600 {
        value.extend_from_slice(key.as_bytes());
    }
    value
}

/// What its slot holds.
pub(crate) fn secret(key: &str) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*leaf_hash(key.as_bytes()).as_bytes())
}

/// Not a test of its own: without the variable there is nothing to do.
#[test]
fn the_victim() {
    let Some(which) = std::env::var_os("KMS_POWER_VICTIM") else { return };
    let folder = std::env::var_os("KMS_POWER_FOLDER").unwrap();
    let folder = Path::new(&folder);
    if which == "sled" {
        return write_to_sled(&folder.join("sled"));
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for spell in 0..u32::MAX {
            let store = open(which.to_str().unwrap(), folder);
            crate::naming::begin(&*store).await.unwrap();
            let naming = tokio::spawn(crate::naming::name_rows_forever(store.clone()));
            let mut writers = tokio::task::JoinSet::new();
            for writer in 0..WRITERS {
                writers.spawn(write(store.clone(), spell, writer));
            }
            writers.join_all().await;
            naming.abort();
            store.close().await.unwrap();
        }
    });
}

fn open(which: &str, folder: &Path) -> Arc<dyn Store> {
    match which {
        "journal" => Arc::new(kms_store::open_with(folder, &settings()).unwrap().0),
        #[cfg(feature = "redb")]
        "redb" => Arc::new(kms_store::open_redb(folder).unwrap().0),
        other => panic!("no victim is called {other}"),
    }
}

async fn write(store: Arc<dyn Store>, spell: u32, writer: u32) {
    let process = std::process::id();
    for i in 0..ROWS_OF_A_SPELL {
        let key = format!("{process}-{spell}-{writer}-{i}");
        let slot = store.put_slot(secret(&key)).await.unwrap();
        let batch = Batch {
            writes: vec![Write::Put { key: key.clone(), value: value(&key, slot) }],
            leaves: vec![key.clone().into_bytes()],
            ..Batch::default()
        };
        let Outcome::Committed(committed) = store.commit(batch).await.unwrap() else {
            panic!("not committed")
        };
        let leaf = committed.receipt.index_of(&leaf_hash(key.as_bytes())).unwrap();
        println!("ack {key} {leaf} {slot} .");
        if i % 4 == 0 {
            println!("erasing {slot} .");
            store.erase_slot(slot).await.unwrap();
            println!("erased {slot} .");
        }
    }
}

/// The same with nothing but sled and its `flush`.
fn write_to_sled(folder: &Path) {
    let db = sled::Config::new().path(folder).flush_every_ms(None).open().unwrap();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let key = format!("{}-{i}", std::process::id());
                    db.insert(&key, value(&key, i)).unwrap();
                    db.flush().unwrap();
                    println!("ack {key} {i} {i} .");
                }
            });
        }
    });
}

/// The keys that sled has; none when it does not even open. It may panic or hang on what is left.
pub(crate) fn sled_keys(folder: &Path) -> HashSet<String> {
    let (folder, (to, keys)) = (folder.to_owned(), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        let Ok(db) = sled::Config::new().path(folder).flush_every_ms(None).open() else { return };
        let found = db.iter().keys().map_while(Result::ok);
        let found = found.map(|key| String::from_utf8_lossy(&key).into_owned()).collect();
        // Nobody waits any more when it took too long.
        let _nobody_waits = to.send(found);
    });
    keys.recv_timeout(std::time::Duration::from_secs(10)).unwrap_or_default()
}
