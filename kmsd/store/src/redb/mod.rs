//! A store in one database, redb, with its own durability and without a journal.
//!
//! It proves that [`Store`] is a trait and not a description of the journal, and it is the way out
//! should sled fail as an index. Rows, leaves and idempotency names change in one write
//! transaction of two phases; slots stand in the same erasable table as those of the journal store.
//!
//! ```text
//! lock          held by the daemon that uses the folder
//! store.redb    rows, leaves, tiles, names
//! slots         erasable secrets
//! head          where the store stood when it was closed; not there while it is open
//! ```
//!
//! What deliberately does not exist: a second copy to make a damaged database anew from. Damage is
//! found when the database opens and refused by name. A database that falls back to an older commit
//! is found by `head` when it had been closed in good order; after a crash that is left to whoever
//! holds the head of the log.

mod committer;
mod database;
mod shared;
mod tables;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use kms_core::audit::merkle::Frontier;
use kms_core::id::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use zeroize::Zeroizing;

use self::committer::{Answer, Committer, Job};
use self::database::{Database, damaged};
use self::shared::Shared;
use self::tables::Meta;
use crate::caught::{Panicked, caught};
use crate::log::Log;
use crate::sled::folder::{Folder, FolderLock, private_folder, remove_if_present, sync_folder};
use crate::sled::recovery::draw_store_id;
use crate::sled::slots::Slots;
use crate::store::check_limit;
use crate::{Batch, Committed, Opened, Outcome, Row, RowSet, Store, StoreError, Watch};

/// The store in a folder. Dropping it closes it and waits for that; [`Store::close`] tells of
/// failures.
pub struct RedbStore {
    /// Empty only while dropping.
    jobs: Option<mpsc::Sender<Job>>,
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
    /// Bytes that batches on their way may still take.
    room: Arc<Semaphore>,
}

/// Opens the store in the folder `path`, or makes one where there is none. Blocks while the database
/// is verified.
///
/// # Errors
/// [`StoreError::Locked`], [`StoreError::DatabaseDamaged`], [`StoreError::OtherBackend`],
/// [`StoreError::SlotTableDamaged`], and what the environment refuses.
pub fn open(path: &Path) -> Result<(RedbStore, Opened), StoreError> {
    private_folder(path)?;
    let lock = FolderLock::take(&Folder::new(path))?;
    let names = FolderNames(path);
    if Folder::new(path).journal().exists() {
        return Err(StoreError::OtherBackend { path: path.to_owned() });
    }
    let existed = names.database().exists();
    if !existed && (names.slots().exists() || names.head().exists()) {
        return Err(damaged(&names.database(), &Fault::Missing));
    }
    let database = match existed {
        true => Database::open(&names.database())?,
        false => Database::create(&names.database(), &Meta::of_new(draw_store_id()?))?,
    };
    let loaded = caught(|| {
        let reading = database.reading()?;
        let meta = reading.meta()?;
        let log = reading.log(&meta)?;
        let buckets = reading.buckets()?;
        Ok((meta, log, buckets))
    });
    let (meta, log, buckets) = loaded.map_err(|fault: Fault| damaged(&names.database(), &fault))?;
    let slots = open_slots(&names.slots(), &meta)?;
    check_head(&names, &meta)?;
    let shared = Arc::new(Shared::new(path.to_owned(), database, log.clone(), slots));
    let committer = Committer { shared: shared.clone(), meta, log, buckets, lock: Some(lock) };
    let (jobs, thread) = committer.start()?;
    let room = Arc::new(Semaphore::new(ROOM_BYTES as usize));
    let store = RedbStore { jobs: Some(jobs), shared, committer: Mutex::new(Some(thread)), room };
    Ok((store, Opened { created: !existed, ..Opened::default() }))
}

impl Meta {
    fn of_new(store: [u8; 16]) -> Self {
        let root = Log::default().frontier().root();
        Self { store, commits: 0, leaves: 0, root, slots: 0, names: 0 }
    }
}

/// The slot table, which must hold at least what the last commit knew of.
fn open_slots(path: &Path, meta: &Meta) -> Result<Slots, StoreError> {
    // Nothing was ever committed, so a missing table is one that was never made.
    if meta.commits == 0 && !path.exists() {
        return Slots::create(path, &meta.store);
    }
    let slots = Slots::open(path, &meta.store)?;
    let complete = slots.given() >= meta.slots;
    if complete { Ok(slots) } else { Err(StoreError::SlotTableDamaged { path: path.to_owned() }) }
}

/// Holds the database against the note of its last close, and takes the note away.
fn check_head(names: &FolderNames<'_>, meta: &Meta) -> Result<(), StoreError> {
    let path = names.head();
    match std::fs::read(&path) {
        Ok(text) if text != head_text(meta).into_bytes() => {
            Err(damaged(&names.database(), &Fault::Older))
        }
        Ok(_) => {
            remove_if_present(&path)?;
            sync_folder(names.0)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("read", &path)(error)),
    }
}

fn head_text(meta: &Meta) -> String {
    format!("{} commits, {} leaves, {} slots\n", meta.commits, meta.leaves, meta.slots)
}

/// The names within a state folder.
struct FolderNames<'a>(&'a Path);

impl FolderNames<'_> {
    fn database(&self) -> PathBuf {
        self.0.join(DATABASE_NAME)
    }

    fn head(&self) -> PathBuf {
        self.0.join("head")
    }

    fn slots(&self) -> PathBuf {
        self.0.join("slots")
    }
}

/// Why the database is not used any more.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("an entry is damaged or missing")]
    Entry,
    #[error("the file is missing")]
    Missing,
    #[error("it is older than when it was closed")]
    Older,
    #[error(transparent)]
    Panics(#[from] Panicked),
    #[error(transparent)]
    Redb(#[from] ::redb::Error),
}

/// Each kind of call has an error of its own.
macro_rules! faults_of {
    ($($error:ident)*) => {$(
        impl From<::redb::$error> for Fault {
            fn from(error: ::redb::$error) -> Self {
                Self::Redb(error.into())
            }
        }
    )*};
}

faults_of!(CommitError DatabaseError SetDurabilityError StorageError TableError TransactionError);

impl RedbStore {
    /// Hands a job to the committer; a committer that is gone has left word why.
    async fn hand_over(&self, job: Job) -> Result<(), StoreError> {
        self.shared.check()?;
        let jobs = self.jobs.as_ref().ok_or(StoreError::Closed)?;
        if jobs.send(job).await.is_err() {
            self.shared.check()?;
            return Err(StoreError::Poisoned);
        }
        Ok(())
    }

    /// Waits until the batches that are on their way leave room for this one.
    async fn room_for(&self, batch: &Batch) -> Result<OwnedSemaphorePermit, StoreError> {
        let bytes = u32::try_from(batch.bytes_in_memory()).unwrap_or(ROOM_BYTES);
        let room = self.room.clone().acquire_many_owned(bytes.min(ROOM_BYTES)).await;
        room.map_err(|_| StoreError::Closed)
    }

    /// Runs what waits for the disk where it keeps nobody else waiting.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || work(&shared)).await;
        done.unwrap_or_else(|stopped| {
            // Work that was cancelled has met the end of the runtime; nothing is wrong with it.
            if stopped.is_panic() {
                self.shared.poison(&stopped);
                return Err(StoreError::Poisoned);
            }
            Err(StoreError::Closed)
        })
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &str) -> Result<Option<Row>, StoreError> {
        self.shared.read(|reading| reading.row(key))
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, StoreError> {
        check_limit(limit)?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.blocking(move |shared| {
            shared.read(|reading| reading.scan(&prefix, after.as_deref(), limit))
        })
        .await
    }

    async fn commit(&self, batch: Batch) -> Result<Outcome, StoreError> {
        batch.check()?;
        let (to, outcome) = oneshot::channel();
        let answer = Answer { to, _room: self.room_for(&batch).await? };
        self.hand_over(Job::Commit { batch, answer }).await?;
        // An answer that was dropped tells nothing of whether the batch reached the disk.
        outcome.await.unwrap_or(Ok(Outcome::Unknown))
    }

    async fn outcome_of(&self, idempotency: &[u8; 32]) -> Result<Option<Committed>, StoreError> {
        let receipt = self.shared.read(|reading| reading.receipt(idempotency))?;
        Ok(receipt.map(|receipt| Committed { receipt, replayed: true }))
    }

    fn watch(&self) -> Watch {
        self.shared.changes.watch()
    }

    async fn log_size(&self) -> u64 {
        self.shared.log().size()
    }

    async fn log_frontier(&self) -> Frontier {
        self.shared.log().frontier().clone()
    }

    async fn leaves(&self, begin: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        check_limit(limit)?;
        self.blocking(move |shared| shared.leaves(begin, limit)).await
    }

    async fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, StoreError> {
        self.shared.check()?;
        self.shared.log().inclusion_proof(index, size, &*self.shared)
    }

    async fn hash_tile(&self, level: u8, n: u64, width: u64) -> Result<Vec<u8>, StoreError> {
        self.shared.check()?;
        self.shared.log().hash_tile(level, n, width, &*self.shared)
    }

    async fn row_set(&self) -> Result<RowSet, StoreError> {
        self.shared.read(|reading| {
            let sequence = reading.meta()?.commits;
            let latest = reading.row_set_at(sequence)?.ok_or(Fault::Entry)?;
            Ok(RowSet { sequence, ..latest })
        })
    }

    async fn row_set_at(&self, sequence: u64) -> Result<Option<Digest>, StoreError> {
        self.shared.read(|reading| {
            if reading.meta()?.commits < sequence {
                return Ok(None);
            }
            Ok(reading.row_set_at(sequence)?.map(|set| set.root))
        })
    }

    async fn put_slot(&self, secret: Zeroizing<[u8; 32]>) -> Result<u64, StoreError> {
        self.blocking(move |shared| shared.slot_written(|slots| slots.put(&secret))).await
    }

    async fn read_slot(&self, slot: u64) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        self.blocking(move |shared| shared.slots()?.read(slot)).await
    }

    async fn erase_slot(&self, slot: u64) -> Result<(), StoreError> {
        self.blocking(move |shared| shared.slot_written(|slots| slots.erase(slot))).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let (answer, closed) = oneshot::channel();
        match self.hand_over(Job::Close { answer }).await {
            Ok(()) => {}
            Err(StoreError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
        // A job that was dropped unread came after another close, or after the end.
        match closed.await {
            Ok(closed) => closed,
            Err(_) => match self.shared.check() {
                Err(StoreError::Closed) => Ok(()),
                _ => Err(StoreError::Poisoned),
            },
        }
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let thread = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A committer that panicked leaves those who waited without an answer, which means
            // `Unknown`; there is no more to tell.
            let _told_before = thread.join();
        }
    }
}

/// The database file; the other backend knows by it that the folder is not its own.
const DATABASE_NAME: &str = "store.redb";
/// How many bytes of batches may be on their way; more wait outside.
const ROOM_BYTES: u32 = 64 * 1024 * 1024;
