//! The embedded store: a journal that is the truth, and sled as its index.
//!
//! What is on disk is told by `folder` (names), `format` and `journal` (records), `index` and
//! `slots`. `recovery` opens, `committer` writes, `shared` reads; `applier` turns a record into
//! what it changes, for both.

mod applier;
mod check;
mod committer;
pub(crate) mod folder;
pub(crate) mod format;
mod guard;
mod imprint;
mod index;
mod journal;
mod packed;
mod proof;
mod recent;
pub(crate) mod recovery;
mod shared;
pub(crate) mod slots;
mod snapshot;
mod snapshotter;
#[cfg(test)]
mod tests;
mod trust;
#[cfg(test)]
mod trust_tests;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use kms_core::audit::merkle::Frontier;
use kms_core::id::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use zeroize::Zeroizing;

pub use self::check::{Report, Stats, check, rebuild};
use self::committer::{Answer, Job, Outcomes};
use self::shared::Shared;
use crate::store::check_limit;
use crate::{
    BATCH_BYTES_MAX, Batch, Committed, Disagreement, Outcome, Row, RowSet, Store, StoreError,
    Voucher, Watch,
};

/// What came to light when the store opened. The daemon writes it into the log.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Opened {
    /// Whether the store was made just now.
    pub created: bool,
    /// Bytes of a record that a crash tore while it was written, and that nobody was told was
    /// durable; 0 when there was none.
    pub discarded_tail_bytes: u64,
    /// Whether the index was missing or not to be trusted.
    pub rebuilt_index: bool,
    /// How many records the index lacked.
    pub replayed_records: u64,
    /// Snapshots that are damaged, so that an older one was taken with all records after it.
    pub damaged_snapshots: u64,
    /// The first rows in which the index disagreed with the truth, so that it was made anew. What is
    /// served is the truth; somebody or something has changed the index.
    pub disagreements: Vec<Disagreement>,
}

/// What may be set differently from the default.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Size of a journal segment, preallocated. At most 64 MiB; a record that is longer gets a
    /// segment of its own size.
    pub segment_bytes: u64,
    /// How long the index may take to open or to close before it counts as hanging. A read or a
    /// write of it has as much, but 30 seconds at most. A hang is found after one to two times
    /// the patience.
    pub index_patience: Duration,
    /// After how many bytes of changed rows a snapshot is taken. A start reads about as much of the
    /// journal.
    pub snapshot_row_bytes: u64,
    /// Whether closing takes a snapshot, unless few rows have changed beside those that there are.
    pub snapshot_at_close: bool,
}

/// The store in a folder. Dropping it closes it and waits for that; [`Store::close`] tells of
/// failures.
pub struct SledStore {
    /// Empty only while dropping.
    jobs: Option<mpsc::Sender<Job>>,
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
    /// Bytes that batches on their way may still take.
    room: Arc<Semaphore>,
}

/// Opens the store in the folder `path`, or makes one where there is none. Blocks while the journal
/// is verified.
///
/// # Errors
/// [`StoreError::Locked`], [`StoreError::JournalDamaged`], [`StoreError::SlotTableDamaged`], and
/// what the environment refuses. A store that does not open is left as it was.
/// [`StoreError::IndexHangs`] when only the index is at fault: then this process must end, and
/// the next one makes the index anew.
///
/// An index that hangs later ends this process, with exit code 70 and a message.
pub fn open(path: &Path) -> Result<(SledStore, Opened), StoreError> {
    open_with(path, &Settings::default())
}

/// Opens the store with other settings; see [`open`].
///
/// # Errors
/// As [`open`].
pub fn open_with(path: &Path, settings: &Settings) -> Result<(SledStore, Opened), StoreError> {
    if path.join(OTHER_BACKEND).exists() {
        return Err(StoreError::OtherBackend { path: path.to_owned() });
    }
    let segment_bytes = settings.segment_bytes.min(journal::SEGMENT_BYTES_MAX);
    recovery::open(path, &Settings { segment_bytes, ..*settings })
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            segment_bytes: 8 * 1024 * 1024,
            index_patience: recovery::INDEX_PATIENCE,
            snapshot_row_bytes: 64 * 1024 * 1024,
            snapshot_at_close: true,
        }
    }
}

impl SledStore {
    fn new(jobs: mpsc::Sender<Job>, shared: Arc<Shared>, thread: JoinHandle<()>) -> Self {
        let room = Arc::new(Semaphore::new(ROOM_BYTES as usize));
        Self { jobs: Some(jobs), shared, committer: Mutex::new(Some(thread)), room }
    }

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

    /// Hands over batches that are one job for the committer: together within the bounds of one.
    async fn commit_job(&self, batches: Vec<Batch>) -> Outcomes {
        let count = batches.len();
        let each = |outcome: &dyn Fn() -> Result<Outcome, StoreError>| {
            std::iter::repeat_with(outcome).take(count).collect()
        };
        let (to, outcomes) = oneshot::channel();
        let handed_over = async {
            let bytes = batches.iter().map(Batch::bytes).sum();
            let answer = Answer { to, _room: self.room_for(&batches).await? };
            self.hand_over(Job::Commit { batches, bytes, answer }).await
        };
        if handed_over.await.is_err() {
            return each(&|| Err(self.shared.check().err().unwrap_or(StoreError::Poisoned)));
        }
        // An answer that was dropped tells nothing of whether the batches reached the disk.
        outcomes.await.unwrap_or_else(|_| each(&|| Ok(Outcome::Unknown)))
    }

    /// Waits until the batches that are on their way leave room for these.
    async fn room_for(&self, batches: &[Batch]) -> Result<OwnedSemaphorePermit, StoreError> {
        // Batches within their bounds always fit; a count that did not would be asked for all.
        let bytes = batches.iter().map(Batch::bytes_in_memory).sum::<usize>();
        let bytes = u32::try_from(bytes).unwrap_or(ROOM_BYTES);
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
impl Store for SledStore {
    async fn get(&self, key: &str) -> Result<Option<Row>, StoreError> {
        self.shared.row(key)
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, StoreError> {
        check_limit(limit)?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.blocking(move |shared| shared.scan(&prefix, after.as_deref(), limit)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Outcome, StoreError> {
        batch.check()?;
        self.commit_job(vec![batch]).await.pop().unwrap_or(Ok(Outcome::Unknown))
    }

    async fn commit_each(&self, batches: Vec<Batch>) -> Vec<Result<Outcome, StoreError>> {
        let mut outcomes = Vec::with_capacity(batches.len());
        let mut batches = batches.into_iter().peekable();
        while let Some(first) = batches.next() {
            if let Err(fault) = first.check() {
                outcomes.push(Err(fault.into()));
                continue;
            }
            let mut bytes = first.bytes();
            let mut job = vec![first];
            while let Some(next) = batches
                .next_if(|next| bytes + next.bytes() <= BATCH_BYTES_MAX && next.check().is_ok())
            {
                bytes += next.bytes();
                job.push(next);
            }
            outcomes.extend(self.commit_job(job).await);
        }
        outcomes
    }

    fn row_changes(&self) -> Option<u64> {
        Some(self.shared.row_changes())
    }

    async fn outcome_of(&self, idempotency: &[u8; 32]) -> Result<Option<Committed>, StoreError> {
        // It may have to look into the journal.
        let name = *idempotency;
        self.blocking(move |shared| shared.outcome_of(&name)).await
    }

    fn watch(&self) -> Watch {
        self.shared.changes.watch()
    }

    async fn log_size(&self) -> u64 {
        self.shared.frontier().size()
    }

    async fn log_frontier(&self) -> Frontier {
        self.shared.frontier()
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

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.blocking(check::stats).await
    }

    async fn row_set(&self) -> Result<RowSet, StoreError> {
        self.shared.row_set()
    }

    async fn row_set_at(&self, sequence: u64) -> Result<Option<Digest>, StoreError> {
        self.blocking(move |shared| snapshotter::row_set_at(&shared.folder, shared.store, sequence))
            .await
    }

    async fn begin_vouching(&self, voucher: Arc<dyn Voucher>) -> Result<(), StoreError> {
        self.blocking(move |shared| trust::begin_vouching(shared, voucher)).await
    }

    fn end_vouching(&self) {
        self.shared.vouching.set(None);
    }

    async fn put_slot(&self, secret: Zeroizing<[u8; 32]>) -> Result<u64, StoreError> {
        self.blocking(move |shared| shared.slot_written(|slots| slots.put(&secret))).await
    }

    async fn put_slots(&self, secrets: Vec<Zeroizing<[u8; 32]>>) -> Result<Vec<u64>, StoreError> {
        self.blocking(move |shared| {
            let put = |slots: &mut slots::Slots| slots.put_all(secrets.iter().map(|one| &**one));
            shared.slot_written(put).map(Iterator::collect)
        })
        .await
    }

    async fn read_slot(&self, slot: u64) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        // One read of 64 bytes that the kernel most likely holds: handing it to another thread
        // costs ten times as much.
        self.shared.read_slot(slot)
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

impl Drop for SledStore {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let thread = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A committer that panicked has poisoned the store; there is no more to tell.
            let _told_before = thread.join();
        }
    }
}

/// A file that only the other backend on disk makes, whether it is compiled in or not.
const OTHER_BACKEND: &str = "store.redb";
/// How many bytes of batches may be on their way; more wait outside.
const ROOM_BYTES: u32 = 64 * 1024 * 1024;
