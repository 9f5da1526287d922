//! The trait that the daemon holds; a backend is one implementation of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use kms_core::audit::merkle::Frontier;
use kms_core::id::Digest;
use zeroize::Zeroizing;

use crate::vouch::named_by;
use crate::{Batch, Committed, Outcome, Row, RowSet, Stats, StoreError, Voucher, Watch};

/// Most entries in one page of [`Store::scan`] or [`Store::leaves`].
pub const SCAN_MAX: usize = 1000;
/// Most payload bytes in one page, unless its first entry alone is longer.
pub const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many of the latest idempotency names are remembered.
pub const IDEMPOTENCY_MAX: u64 = 100_000;

/// Rows, the audit log and erasable slots.
///
/// Every read sees everything that was acknowledged before it began, and nothing that is not
/// durable.
#[async_trait]
pub trait Store: Send + Sync {
    /// The row of `key`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] or [`StoreError::Closed`].
    async fn get(&self, key: &str) -> Result<Option<Row>, StoreError>;

    /// The rows whose keys begin with `prefix` and come after `after`, ascending by bytes.
    ///
    /// A page may be shorter than `limit` before the end, when its rows are large
    /// ([`PAGE_BYTES_MAX`]): only an empty page says that there is no more.
    ///
    /// # Errors
    /// [`StoreError::LimitExceeded`] for a `limit` of 0 or above [`SCAN_MAX`].
    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, StoreError>;

    /// Applies the batch if its conditions hold, and makes it durable before it answers.
    ///
    /// # Errors
    /// [`StoreError::BatchRefused`] beyond the stated bounds, [`StoreError::DiskFull`]; with any
    /// error nothing was done. In doubt the answer is [`Outcome::Unknown`].
    async fn commit(&self, batch: Batch) -> Result<Outcome, StoreError>;

    /// Commits several batches at once, each as [`Self::commit`] does and on its own: one that is refused
    /// or meets a conflict keeps none of the others back. The answers are in the order of the batches.
    async fn commit_each(&self, batches: Vec<Batch>) -> Vec<Result<Outcome, StoreError>> {
        all(batches.into_iter().map(|batch| self.commit(batch)).collect()).await
    }

    /// A count that rises whenever a row changes, before the change is acknowledged: as long as it stands,
    /// what was read since it was asked for is as good as a read. `None` where nobody counts.
    fn row_changes(&self) -> Option<u64> {
        None
    }

    /// What came of the batch of that name: `None` when it was never applied. Resolves
    /// [`Outcome::Unknown`] and retries.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] or [`StoreError::Closed`].
    async fn outcome_of(&self, idempotency: &[u8; 32]) -> Result<Option<Committed>, StoreError>;

    /// Tells of the keys that change from now on.
    fn watch(&self) -> Watch;

    /// How many leaves the log has.
    async fn log_size(&self) -> u64;

    /// The head of the log.
    async fn log_frontier(&self) -> Frontier;

    /// Up to `limit` leaves from `begin` on. Pages are cut as those of [`Self::scan`]; the page at
    /// the end of the log is empty.
    ///
    /// # Errors
    /// [`StoreError::LogRange`] beyond the log, [`StoreError::LimitExceeded`], or
    /// [`StoreError::JournalDamaged`] when the disk does not give back what was written.
    async fn leaves(&self, begin: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError>;

    /// The proof that leaf `index` stands in the tree of the first `size` leaves.
    ///
    /// # Errors
    /// [`StoreError::LogRange`] when there is no such leaf or no such tree yet.
    async fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, StoreError>;

    /// The first `width` hashes of tile `n` of `level`, 32 bytes each, for export.
    ///
    /// # Errors
    /// [`StoreError::LogRange`] when the tile is not that wide yet.
    async fn hash_tile(&self, level: u8, n: u64, width: u64) -> Result<Vec<u8>, StoreError>;

    /// What the store says of its size. A backend that has no files of its own tells the size of the
    /// log alone.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] or [`StoreError::Closed`].
    async fn stats(&self) -> Result<Stats, StoreError> {
        Ok(Stats { leaves: self.log_size().await, ..Stats::default() })
    }

    /// The set of all rows as it stands, with the latest record. Whoever writes its root and sequence into
    /// a leaf commits that leaf with [`Batch::binds_rows`].
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] or [`StoreError::Closed`].
    async fn row_set(&self) -> Result<RowSet, StoreError>;

    /// The root of the set of rows as it stood with the record `sequence`, to hold it against what
    /// the log says; `None` when that is not known any more, or not yet.
    ///
    /// It is known from the latest root that a batch has bound on, and longer for a while.
    ///
    /// # Errors
    /// What reading the journal and the snapshots comes to.
    async fn row_set_at(&self, sequence: u64) -> Result<Option<Digest>, StoreError>;

    /// Holds the rows against the row set that the log names last, and from then on has `voucher` vouch
    /// for what is written. Where somebody ever did, no row changes before this or after
    /// [`end_vouching`](Self::end_vouching), and of leaves only those are taken that
    /// [`can arise while sealed`](kms_core::audit::Leaf::can_arise_sealed).
    ///
    /// A backend without a journal compares the roots alone, and writes no word of anybody.
    ///
    /// # Errors
    /// [`StoreError::RowsDisagree`] when the rows are others, are changed by records that nobody vouches
    /// for, or cannot be compared; then nothing has begun. What reading comes to.
    async fn begin_vouching(&self, voucher: Arc<dyn Voucher>) -> Result<(), StoreError> {
        let _writes_no_word = voucher;
        let mut end = self.log_size().await;
        while end > 0 {
            let begin = end.saturating_sub(SCAN_MAX as u64);
            let (mut next, mut newest) = (begin, None);
            while next < end {
                let limit = usize::try_from(end - next).unwrap_or(SCAN_MAX);
                let leaves = self.leaves(next, limit).await?;
                next += leaves.len() as u64;
                let mut named = leaves.iter().filter_map(|leaf| named_by(leaf));
                newest = named.next_back().or(newest);
            }
            if let Some(RowSet { root, sequence }) = newest {
                let found = self.row_set_at(sequence).await?;
                let same = found == Some(root);
                return if same { Ok(()) } else { Err(StoreError::RowsDisagree { rows: vec![] }) };
            }
            end = begin;
        }
        Ok(())
    }

    /// Lets go of who vouched.
    fn end_vouching(&self) {}

    /// Keeps a secret where it can be erased, durable before the number is returned.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], or [`StoreError::Poisoned`] when the slot did not reach the disk.
    async fn put_slot(&self, secret: Zeroizing<[u8; 32]>) -> Result<u64, StoreError>;

    /// Keeps several secrets, as [`Self::put_slot`] does, most often at the price of one; their numbers
    /// are in the order of the secrets.
    ///
    /// # Errors
    /// As [`Self::put_slot`].
    async fn put_slots(&self, secrets: Vec<Zeroizing<[u8; 32]>>) -> Result<Vec<u64>, StoreError> {
        let mut slots = Vec::with_capacity(secrets.len());
        for secret in secrets {
            slots.push(self.put_slot(secret).await?);
        }
        Ok(slots)
    }

    /// The secret of a slot.
    ///
    /// # Errors
    /// [`StoreError::SlotErased`], [`StoreError::SlotUnknown`] or [`StoreError::SlotDamaged`].
    async fn read_slot(&self, slot: u64) -> Result<Zeroizing<[u8; 32]>, StoreError>;

    /// Overwrites the secret of a slot, on disk before it returns. Erasing twice, or erasing a
    /// damaged slot, is right too.
    ///
    /// # Errors
    /// [`StoreError::SlotUnknown`] for a slot that was never given out.
    async fn erase_slot(&self, slot: u64) -> Result<(), StoreError>;

    /// Finishes what was begun and lets go of the folder. Everything afterwards answers
    /// [`StoreError::Closed`]; closing twice is right.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] when the store had stopped before.
    async fn close(&self) -> Result<(), StoreError>;
}

type Committing<'a> = Pin<Box<dyn Future<Output = Result<Outcome, StoreError>> + Send + 'a>>;

/// Waits for all, which go on side by side.
async fn all(mut commits: Vec<Committing<'_>>) -> Vec<Result<Outcome, StoreError>> {
    let mut outcomes: Vec<_> = commits.iter().map(|_| None).collect();
    std::future::poll_fn(|task| {
        for (commit, outcome) in commits.iter_mut().zip(&mut outcomes) {
            if outcome.is_none()
                && let Poll::Ready(ended) = commit.as_mut().poll(task)
            {
                *outcome = Some(ended);
            }
        }
        if outcomes.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}

/// Holds a page limit against [`SCAN_MAX`].
pub(crate) const fn check_limit(limit: usize) -> Result<(), StoreError> {
    if limit == 0 || limit > SCAN_MAX {
        return Err(StoreError::LimitExceeded { asked: limit, max: SCAN_MAX });
    }
    Ok(())
}

/// Fills a page up to its two bounds.
pub(crate) struct Page<T> {
    entries: Vec<T>,
    bytes: usize,
    limit: usize,
}

impl<T> Page<T> {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), bytes: 0, limit }
    }

    /// Whether `bytes` more may be added.
    pub(crate) const fn has_room(&self, bytes: usize) -> bool {
        let first = self.entries.is_empty();
        self.entries.len() < self.limit && (first || self.bytes + bytes <= PAGE_BYTES_MAX)
    }

    pub(crate) fn push(&mut self, entry: T, bytes: usize) {
        self.bytes += bytes;
        self.entries.push(entry);
    }

    pub(crate) fn into_entries(self) -> Vec<T> {
        self.entries
    }
}
