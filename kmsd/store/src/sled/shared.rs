//! What readers and the committer have in common.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kms_core::audit::CommitReceipt;
use kms_core::audit::merkle::{self, Frontier};
use kms_core::audit::tile::TILE_WIDTH;
use kms_core::id::Digest;
use zeroize::Zeroizing;

use super::applier::{Pending, Update};
use super::folder::Folder;
use super::format::{Chain, StoreId};
use super::guard;
use super::index::{Bundle, Index, IndexFault, Marker};
use super::journal::{Location, Reader};
use super::proof::Proof;
use super::recent::RecentRows;
use super::slots::{SlotFile, Slots};
use crate::RowSet;
use crate::batch::RowState;
use crate::log::{Log, Tiles};
use crate::row_set::Buckets;
use crate::store::Page;
use crate::vouch::Vouching;
use crate::watch::Changes;
use crate::{Committed, Row, StoreError};

/// The open store.
pub(crate) struct Shared {
    pub(crate) folder: Folder,
    pub(crate) store: StoreId,
    /// Empty once the store is closed.
    pub(crate) index: RwLock<Option<Index>>,
    /// Rows of the index that are in use.
    recent: RecentRows,
    /// The log as far as it is durable *and* in the index: replaced after each commit.
    pub(crate) log: RwLock<Log>,
    /// What of the log is not in the index yet.
    pending: RwLock<Pending>,
    pub(crate) slots: Mutex<Slots>,
    /// The set of rows as far as it is durable.
    pub(crate) rows: Mutex<Rows>,
    /// What the index is held against. Who changes rows has it locked until the index has them.
    proof: Mutex<Option<Proof>>,
    /// How many wait for the proof.
    proof_waiting: AtomicUsize,
    /// Whether all of the index is proven, so that nobody needs to ask.
    is_proven: AtomicBool,
    /// For reading a slot while another is being written.
    slot_file: SlotFile,
    pub(crate) changes: Changes,
    /// Who vouches for what is written.
    pub(crate) vouching: Arc<Vouching>,
    /// How many slots have been given out, for the committer, who must not wait for the table.
    slots_given: AtomicU64,
    health: AtomicU8,
}

impl Shared {
    pub(crate) fn new(
        folder: Folder,
        store: StoreId,
        index: Index,
        slots: Slots,
        contents: Contents,
    ) -> Self {
        let Contents { log, pending, rows, proof, vouching } = contents;
        let is_proven = AtomicBool::new(proof.is_none());
        let slots_given = AtomicU64::new(slots.given());
        let slot_file = slots.file();
        Self {
            folder,
            store,
            index: RwLock::new(Some(index)),
            recent: RecentRows::default(),
            log: RwLock::new(log),
            pending: RwLock::new(pending),
            slots: Mutex::new(slots),
            rows: Mutex::new(rows),
            proof: Mutex::new(proof),
            proof_waiting: AtomicUsize::new(0),
            is_proven,
            slot_file,
            changes: Changes::new(),
            vouching,
            slots_given,
            health: AtomicU8::new(HEALTHY),
        }
    }

    /// # Errors
    /// [`StoreError::Closed`] or [`StoreError::Poisoned`].
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.health.load(Ordering::Acquire) {
            HEALTHY => Ok(()),
            CLOSED => Err(StoreError::Closed),
            _ => Err(StoreError::Poisoned),
        }
    }

    /// Ends the store after a failure: what it would answer from now on could be wrong. Says
    /// whether this is the first failure.
    pub(crate) fn poison(&self, why: &dyn std::fmt::Display) -> bool {
        let first = self.health.swap(POISONED, Ordering::AcqRel) != POISONED;
        if first {
            tracing::error!(folder = %self.folder.path().display(), %why, "the store has stopped");
            self.changes.tell_stopped();
        }
        first
    }

    /// Says that whatever comes from now on comes too late. A poisoned store stays so.
    pub(crate) fn set_closed(&self) {
        let swapped =
            self.health.compare_exchange(HEALTHY, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        // A store that is closed or poisoned already is left as it is.
        let _left_alone = swapped;
    }

    /// Reads the index. A fault ends the store and has the next open make the index anew.
    pub(crate) fn indexed<T>(
        &self,
        read: impl FnOnce(&Index) -> Result<T, IndexFault>,
    ) -> Result<T, StoreError> {
        self.check()?;
        let index = read_lock(&self.index);
        read(index.as_ref().ok_or(StoreError::Closed)?).map_err(|fault| self.condemn(&fault))
    }

    /// Brings a durable record to readers: rows and names at once, tiles when there is reason to
    /// touch the index at all.
    pub(crate) fn take_in(&self, mut update: Update, checkpoint: bool) -> Result<(), StoreError> {
        let is_full = {
            let mut pending = write_lock(&self.pending);
            pending.take(&mut update);
            pending.is_full()
        };
        if !(update.is_needed_now() || is_full || checkpoint) {
            return Ok(());
        }
        let waiting = read_lock(&self.pending).update(update.marker);
        let update = Update { rows: update.rows, names: update.names, ..waiting };
        self.indexed(|index| {
            index.apply(&update)?;
            // A checkpoint for each segment: after a kill no more than that is replayed.
            if checkpoint { index.flush() } else { Ok(()) }
        })?;
        if !update.rows.is_empty() {
            self.recent.forget(update.rows.iter().map(|row| row.key.as_str()));
        }
        write_lock(&self.pending).clear();
        Ok(())
    }

    /// Brings to the index what still waits, so that the next open has nothing to replay.
    pub(crate) fn take_in_the_rest(&self, index: &Index, marker: Marker) -> Result<(), IndexFault> {
        let waiting = read_lock(&self.pending).update(marker);
        index.apply(&waiting)?;
        write_lock(&self.pending).clear();
        Ok(())
    }

    fn bundle(&self, n: u64) -> Result<Bundle, StoreError> {
        let waiting = read_lock(&self.pending).bundles.get(&n).copied();
        waiting.map_or_else(|| self.indexed(|index| index.bundle(n)), Ok)
    }

    /// Reads the index for those who judge it themselves.
    pub(crate) fn with_index<T>(
        &self,
        read: impl FnOnce(&Index) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check()?;
        let index = read_lock(&self.index);
        read(index.as_ref().ok_or(StoreError::Closed)?)
    }

    /// What the index is still to be held against.
    pub(crate) fn proof(&self) -> MutexGuard<'_, Option<Proof>> {
        self.proof_waiting.fetch_add(1, Ordering::AcqRel);
        let proof = self.proof.lock().unwrap_or_else(PoisonError::into_inner);
        self.proof_waiting.fetch_sub(1, Ordering::AcqRel);
        proof
    }

    /// Whether somebody waits for the proof.
    pub(crate) fn is_proof_wanted(&self) -> bool {
        self.proof_waiting.load(Ordering::Acquire) > 0
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Acquire)
    }

    pub(crate) fn set_proven(&self) {
        self.is_proven.store(true, Ordering::Release);
    }

    pub(crate) fn row(&self, key: &str) -> Result<Option<Row>, StoreError> {
        self.check()?;
        let missed = match self.recent.find(key, Row::clone) {
            Ok(row) => return Ok(Some(row)),
            Err(missed) => missed,
        };
        self.prove(key)?;
        let row = self.indexed(|index| index.row(key))?;
        if let Some(row) = &row {
            self.recent.keep(key, row, missed);
        }
        Ok(row)
    }

    /// How often rows have changed.
    pub(crate) fn row_changes(&self) -> u64 {
        self.recent.changes()
    }

    /// Where a key stands. For the committer, who sees what it has applied.
    pub(crate) fn row_state(&self, key: &str) -> Result<RowState, StoreError> {
        let live = |row: &Row| RowState { revision: row.revision, live: true };
        if let Ok(state) = self.recent.find(key, live) {
            return Ok(state);
        }
        self.prove(key)?;
        self.indexed(|index| index.row_state(key))
    }

    pub(crate) fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, StoreError> {
        let page = self.indexed(|index| index.scan(prefix, after, limit))?;
        if !self.is_proven() {
            let from = after.filter(|after| *after >= prefix).unwrap_or(prefix);
            // An empty page says that there is no more under the prefix.
            let end = end_of(prefix);
            let to = page.last().map(|(key, _)| key.as_str()).or(end.as_deref());
            self.prove_range(from, to)?;
        }
        Ok(page)
    }

    /// Ends the store because of its index.
    pub(crate) fn condemn_for(&self, why: &dyn std::fmt::Display) {
        if self.poison(why) {
            guard::condemn(&self.folder.index());
        }
    }

    /// Ends the store because of its index.
    pub(crate) fn condemn(&self, fault: &IndexFault) -> StoreError {
        self.condemn_for(fault);
        StoreError::Poisoned
    }

    pub(crate) fn log(&self) -> Log {
        read_lock(&self.log).clone()
    }

    pub(crate) fn frontier(&self) -> Frontier {
        read_lock(&self.log).frontier().clone()
    }

    /// The slots, which are used under the same conditions as everything else.
    pub(crate) fn slots(&self) -> Result<MutexGuard<'_, Slots>, StoreError> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        Ok(slots)
    }

    /// The secret of a slot.
    pub(crate) fn read_slot(&self, slot: u64) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        self.check()?;
        if slot >= self.slots_given() {
            return Err(StoreError::SlotUnknown { slot });
        }
        match self.slot_file.read(slot) {
            // It may be overwritten at this moment. Then the one who writes it is waited for.
            Err(StoreError::SlotDamaged { .. }) => self.slots()?.read(slot),
            read => read,
        }
    }

    pub(crate) fn slots_given(&self) -> u64 {
        self.slots_given.load(Ordering::Acquire)
    }

    /// Writes a slot. A failure of the disk ends the store, as everywhere.
    pub(crate) fn slot_written<T>(
        &self,
        write: impl FnOnce(&mut Slots) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut slots = self.slots()?;
        let written = write(&mut slots);
        self.slots_given.store(slots.given(), Ordering::Release);
        written.map_err(|error| match error {
            StoreError::Io { .. } => {
                self.poison(&error);
                StoreError::Poisoned
            }
            other => other,
        })
    }

    pub(crate) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the journal ends.
    pub(crate) fn end(&self) -> Chain {
        self.rows().end.unwrap_or_else(|| Chain::genesis(&self.store))
    }

    pub(crate) fn row_set(&self) -> Result<RowSet, StoreError> {
        self.check()?;
        let mut rows = self.rows();
        Ok(RowSet { root: rows.buckets.root(), sequence: rows.sequence() })
    }

    /// What came of the batch of that name.
    pub(crate) fn outcome_of(&self, name: &[u8; 32]) -> Result<Option<Committed>, StoreError> {
        let Some((first, count)) = self.indexed(|index| index.named(name))? else {
            return Ok(None);
        };
        // For a moment in each commit the index is ahead of the log. That commit has not answered
        // yet, so it is still to come.
        let log = self.log();
        if log.size() < first + count {
            return Ok(None);
        }
        // In the index means in the journal, synced: that is the order of the committer. It is looked up
        // there: a name that somebody has put into the index would keep a request from being done.
        let leaf_hashes = log.leaf_hashes(first, count, self)?;
        if self.named_in_journal(name, first)?.as_ref() != Some(&leaf_hashes) {
            return Err(self.condemn(&IndexFault::Entry));
        }
        let receipt = CommitReceipt::durable(first, leaf_hashes);
        Ok(Some(Committed { receipt, replayed: true }))
    }

    /// The hashes of the leaves of the batch of that name, if it stands in the journal where leaf `first`
    /// does, and is vouched for where there is somebody to ask.
    fn named_in_journal(
        &self,
        name: &[u8; 32],
        first: u64,
    ) -> Result<Option<Vec<Digest>>, StoreError> {
        // A batch without leaves may stand before the record of the leaf that follows it.
        let (mut at, mut index) = match first.checked_sub(1) {
            None => (Location::first_of(1), 0),
            Some(before) => {
                let Bundle { at, first_leaf } = self.bundle(before / TILE_WIDTH)?;
                (at, first_leaf)
            }
        };
        let voucher = self.vouching.voucher();
        let is_asked = voucher.is_some();
        let mut reader = Reader::new(&self.folder.journal(), self.store).asking(voucher);
        while index <= first
            && let Some(stored) = reader.read(at)?
        {
            at = stored.next;
            for batch in stored.record.log.batches {
                let is_it = index == first && batch.idempotency == name;
                index += batch.leaves.len() as u64;
                if is_it && (stored.is_vouched || !is_asked) {
                    let hashes = batch.leaves.iter().map(|leaf| merkle::leaf_hash(leaf));
                    return Ok(Some(hashes.collect()));
                }
            }
        }
        Ok(None)
    }

    /// A page of leaves, read from the journal.
    pub(crate) fn leaves(&self, begin: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.check()?;
        let size = self.frontier().size();
        if begin > size {
            return Err(StoreError::LogRange { asked: begin, size });
        }
        let mut page = Page::new(limit);
        if begin == size {
            return Ok(page.into_entries());
        }
        let bundle = self.bundle(begin / TILE_WIDTH)?;
        let mut reader = Reader::new(&self.folder.journal(), self.store);
        let (mut at, mut index) = (bundle.at, bundle.first_leaf);
        while index < size {
            let stored = reader.read(at)?.ok_or_else(|| self.condemn(&IndexFault::Missing))?;
            at = stored.next;
            for leaf in stored.record.log.batches.into_iter().flat_map(|batch| batch.leaves) {
                let wanted = (begin..size).contains(&index);
                index += 1;
                if wanted && !page.has_room(leaf.len()) {
                    return Ok(page.into_entries());
                }
                if wanted {
                    let bytes = leaf.len();
                    page.push(leaf, bytes);
                }
            }
        }
        Ok(page.into_entries())
    }
}

/// What recovery has found.
pub(crate) struct Contents {
    pub(crate) log: Log,
    pub(crate) pending: Pending,
    pub(crate) rows: Rows,
    pub(crate) proof: Option<Proof>,
    pub(crate) vouching: Arc<Vouching>,
}

/// The set of rows.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) buckets: Buckets,
    /// The latest record, whether it changed a row or not; none before the first.
    pub(crate) end: Option<Chain>,
}

impl Rows {
    pub(crate) fn sequence(&self) -> u64 {
        self.end.map_or(0, |end| end.sequence)
    }
}

impl Tiles for Shared {
    fn full_tile(&self, level: u8, n: u64) -> Result<Vec<Digest>, StoreError> {
        self.check()?;
        if let Some(waiting) = read_lock(&self.pending).tiles.get(&(level, n)) {
            return Ok(waiting.clone());
        }
        self.indexed(|index| index.full_tile(level, n))
    }
}

/// The hashes of the leaves after the last full tile of a log of `size` leaves, read from the
/// journal through the index.
pub(crate) fn last_leaf_hashes(
    index: &Index,
    reader: &mut Reader,
    size: u64,
) -> Result<Option<Vec<Digest>>, StoreError> {
    let first = size - size % TILE_WIDTH;
    if first == size {
        return Ok(Some(Vec::new()));
    }
    let Ok(bundle) = index.bundle(first / TILE_WIDTH) else { return Ok(None) };
    let (mut at, mut leaf_index, mut hashes) = (bundle.at, bundle.first_leaf, Vec::new());
    while leaf_index < size {
        let Some(stored) = reader.read(at)? else { return Ok(None) };
        at = stored.next;
        for leaf in stored.record.log.batches.iter().flat_map(|batch| &batch.leaves) {
            if leaf_index >= first {
                hashes.push(merkle::leaf_hash(leaf));
            }
            leaf_index += 1;
        }
    }
    Ok((leaf_index == size).then_some(hashes))
}

/// The smallest key after all that begin with `prefix`; `None` when there is none.
fn end_of(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        let next = (u32::from(last) + 1..=0x10_ffff).find_map(char::from_u32);
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// A lock whose holder panicked still holds what it held: nothing here is left half-changed.
fn read_lock<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write_lock<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

const HEALTHY: u8 = 0;
const CLOSED: u8 = 1;
const POISONED: u8 = 2;
