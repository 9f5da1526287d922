//! Whether the rows are those that the log names: what the checksums cannot tell.
//!
//! Somebody at the disk can rewrite every file with its checksums. So when the daemon can vouch, before
//! it opens any key, this holds snapshot and journal against the newest leaf that names a row set. That
//! leaf is believed when its record is vouched for; the records before it follow from its hash, and
//! each record after it must be vouched for itself, with the hash of the one before it in what is vouched
//! for. Only what is written while nobody can vouch needs no word: refusals and the like, which change no
//! row and name no request. The heads of the snapshots must be vouched for as well. What can be put in the
//! place of such a store is only the store as it once was, as a whole.

use std::sync::Arc;

use kms_core::audit::RowSet;
use kms_core::audit::tile::TILE_WIDTH;

use super::folder::Folder;
use super::format::{Chain, StoreId};
use super::journal::{self, Base, Location, Reader, Stored};
use super::shared::Shared;
use super::snapshot::{self, Head, RowsReader};
use crate::row_set::{Buckets, decode_states};
use crate::store::SCAN_MAX;
use crate::vouch::{named_by, needs_word};
use crate::{StoreError, Voucher};

/// The newest leaf that names a row set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Named {
    /// Its place in the log.
    pub(crate) leaf: u64,
    pub(crate) set: RowSet,
}

/// What is compared.
pub(crate) struct Compared<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) store: StoreId,
    pub(crate) named: Option<Named>,
    /// Whom to ask; without anybody the roots are compared and nothing else.
    pub(crate) voucher: Option<Arc<dyn Voucher>>,
    /// The end of the journal: no record is read beyond it.
    pub(crate) end: Chain,
}

impl Compared<'_> {
    /// # Errors
    /// [`StoreError::RowsDisagree`], or damage that is met on the way.
    pub(crate) fn judge(&self) -> Result<(), StoreError> {
        let empty = || RowSet { root: Buckets::default().root(), sequence: 0 };
        let set = self.named.map_or_else(empty, |named| named.set);
        let Some(begin) = self.begin(set.sequence)? else {
            return disagree(vec![format!(
                "the rows as they stood with record {} cannot be made out any more",
                set.sequence
            )]);
        };
        self.judge_heads()?;
        let mut reader =
            Reader::new(&self.folder.journal(), self.store).asking(self.voucher.clone());
        let mut at = Location::first_of(begin.segment);
        let mut walk = Walk::begin(self, set, &begin)?;
        while walk.chain.sequence < self.end.sequence {
            let Some(stored) = reader.read(at)? else { break };
            at = stored.next;
            walk.take(&stored)?;
        }
        walk.finish()?;
        self.judge_rows(begin.head.as_ref())
    }

    /// Where to begin so that everything from record `sequence` on is met: at a snapshot that holds
    /// the rows as they stood then or before, and at the segment in which that record stands.
    fn begin(&self, sequence: u64) -> Result<Option<Begin>, StoreError> {
        let mut heads = self.heads()?.into_iter().map(|(_, head)| head);
        let head = heads.rfind(|head| head.rows_sequence <= sequence);
        let journal = self.folder.journal();
        if head.is_none() && !journal::path_of(&journal, 1).exists() {
            return Ok(None);
        }
        let genesis = Base { segment: 0, chain: Chain::genesis(&self.store) };
        let base = head.as_ref().map_or(genesis, |head| head.base);
        let mut segment = base.segment + 1;
        loop {
            let Some(chain) = journal::before_segment(&journal, segment)? else { return Ok(None) };
            if segment == 1 || chain.sequence <= sequence {
                return Ok(Some(Begin { head, base, segment, chain }));
            }
            segment -= 1;
        }
    }

    /// The heads of the snapshots, oldest first. One that does not read is one that no store opens with, and
    /// is passed over here as there.
    fn heads(&self) -> Result<Vec<(u64, Head)>, StoreError> {
        let snapshots = self.folder.snapshots();
        let mut heads = Vec::new();
        for number in snapshot::list(&snapshots)? {
            match Head::read(&snapshots, number) {
                Ok(head) => heads.push((number, head)),
                Err(StoreError::SnapshotDamaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(heads)
    }

    /// Holds each head against the word for it, whichever of them the store was opened with: what it
    /// says of the rows, and which file of rows it means, nothing else tells.
    fn judge_heads(&self) -> Result<(), StoreError> {
        let Some(voucher) = &self.voucher else { return Ok(()) };
        for (number, head) in self.heads()? {
            if !head.has_word_of(&**voucher) {
                let mut told = self.suspects(Some(&head))?;
                told.push(format!("nobody vouches for the head of snapshot {number}"));
                return disagree(told);
            }
        }
        Ok(())
    }

    /// Holds which blocks of rows there are against the word for them.
    fn judge_rows(&self, head: Option<&Head>) -> Result<(), StoreError> {
        let (Some(head), Some(voucher)) = (head, &self.voucher) else { return Ok(()) };
        let reader = RowsReader::open(&self.folder.snapshots(), self.store, &head.rows)?;
        // A large one is asked about block by block, when it is read.
        let is_small = reader.rows <= super::proof::AT_ONCE_ROWS_MAX;
        let untrue = match is_small || !reader.table_is_vouched(&**voucher) {
            true => reader.untrue(Some(&**voucher), TOLD_MAX)?,
            false => Vec::new(),
        };
        if untrue.is_empty() { Ok(()) } else { disagree(untrue) }
    }

    /// What can be said about rows of the snapshot that are not those which were written.
    fn suspects(&self, head: Option<&Head>) -> Result<Vec<String>, StoreError> {
        let Some(head) = head else { return Ok(Vec::new()) };
        let reader = RowsReader::open(&self.folder.snapshots(), self.store, &head.rows)?;
        reader.untrue(self.voucher.as_deref(), TOLD_MAX)
    }
}

const fn disagree(rows: Vec<String>) -> Result<(), StoreError> {
    Err(StoreError::RowsDisagree { rows })
}

/// A comparison on its way over the records.
struct Walk<'a> {
    compared: &'a Compared<'a>,
    /// What the log names.
    set: RowSet,
    head: Option<&'a Head>,
    /// Where the snapshot stands in the chain.
    base: Chain,
    /// How far the walk has come.
    chain: Chain,
    /// The rows as they stand there, until they are compared.
    buckets: Option<Buckets>,
    is_base_met: bool,
    is_leaf_vouched: bool,
}

impl<'a> Walk<'a> {
    fn begin(
        compared: &'a Compared<'a>,
        set: RowSet,
        begin: &'a Begin,
    ) -> Result<Self, StoreError> {
        let head = begin.head.as_ref();
        let mut walk = Self {
            compared,
            set,
            head,
            base: begin.base.chain,
            chain: begin.chain,
            buckets: Some(head.map_or_else(Buckets::default, |head| head.buckets.clone())),
            is_base_met: false,
            is_leaf_vouched: compared.named.is_none(),
        };
        walk.arrive()?;
        Ok(walk)
    }

    /// Compares what is to be compared where the walk stands.
    fn arrive(&mut self) -> Result<(), StoreError> {
        if self.chain.sequence >= self.set.sequence.max(self.base.sequence)
            && let Some(mut buckets) = self.buckets.take()
            && buckets.root() != self.set.root
        {
            return disagree(self.compared.suspects(self.head)?);
        }
        if self.chain.sequence == self.base.sequence {
            if self.chain.hash != self.base.hash {
                return disagree(vec!["the snapshot is not of this journal".to_owned()]);
            }
            self.is_base_met = true;
        }
        Ok(())
    }

    /// Judges the next record.
    fn take(&mut self, stored: &Stored) -> Result<(), StoreError> {
        let follows = stored.previous == self.chain.hash
            && Some(stored.chain.sequence) == self.chain.sequence.checked_add(1);
        if !follows {
            return refuse(stored, "does not follow the record before it");
        }
        self.chain = stored.chain;
        let (sequence, batches) = (stored.chain.sequence, &stored.record.log.batches);
        let mut leaves = batches.iter().flat_map(|batch| &batch.leaves);
        self.is_leaf_vouched |=
            stored.is_vouched && leaves.any(|leaf| named_by(leaf) == Some(self.set));
        if sequence > self.set.sequence {
            if stored.has_rows && sequence <= self.base.sequence {
                return refuse(stored, "was changed after the log named the rows");
            }
            if self.compared.voucher.is_some() && !stored.is_vouched {
                judge_unvouched(stored)?;
            }
        }
        if sequence > self.base.sequence && stored.has_rows {
            if stored.record.rows_are_gone {
                return refuse(stored, "has lost its rows");
            }
            // What comes after the root is not summed up: a voucher was asked for it.
            if let Some(buckets) = &mut self.buckets {
                let states = decode_states(&stored.record.rows.buckets);
                states.into_iter().flatten().for_each(|(at, state)| buckets.set(at, state));
            }
        }
        self.arrive()
    }

    /// Judges what must have been met by the end.
    fn finish(self) -> Result<(), StoreError> {
        let named = self.compared.named.map_or(0, |named| named.leaf);
        let missing = if !self.is_base_met {
            "the snapshot is of another journal".to_owned()
        } else if self.chain.hash != self.compared.end.hash {
            "the journal ends with another record".to_owned()
        } else if self.buckets.is_some() {
            format!("record {} is not there", self.set.sequence)
        } else if self.compared.voucher.is_some() && !self.is_leaf_vouched {
            format!("nobody vouches for leaf {named}, which names them")
        } else {
            return Ok(());
        };
        disagree(vec![missing])
    }
}

/// Holds a record that nobody vouches for against what is written while nobody can.
fn judge_unvouched(stored: &Stored) -> Result<(), StoreError> {
    if stored.has_rows {
        return refuse(stored, "was changed, and nobody vouches for that");
    }
    let mut batches = stored.record.log.batches.iter();
    let why = batches.find_map(|batch| needs_word(&batch.leaves, !batch.idempotency.is_empty()));
    why.map_or(Ok(()), |why| refuse(stored, &format!("{why}, and nobody vouches for that")))
}

/// Refuses a record: by its rows, or by its place where it has none.
fn refuse(stored: &Stored, what: &str) -> Result<(), StoreError> {
    let rows = &stored.record.rows.rows;
    let told: Vec<String> =
        rows.iter().map(|row| format!("{} {what}", row.key)).take(TOLD_MAX).collect();
    let record = || vec![format!("record {} {what}", stored.chain.sequence)];
    disagree(if told.is_empty() { record() } else { told })
}

/// Where a comparison begins.
struct Begin {
    head: Option<Head>,
    base: Base,
    /// The first segment that is read, and the chain before it.
    segment: u64,
    chain: Chain,
}

/// The newest leaf of an open store that names a row set.
pub(crate) fn newest_named(shared: &Shared) -> Result<Option<Named>, StoreError> {
    let mut end = shared.frontier().size();
    while end > 0 {
        // At the beginning of a bundle, so that no record is read twice.
        let begin = end.saturating_sub(PAGE) / TILE_WIDTH * TILE_WIDTH;
        let mut newest = None;
        let mut next = begin;
        while next < end {
            let limit = usize::try_from(end - next).unwrap_or(SCAN_MAX).min(SCAN_MAX);
            let leaves = shared.leaves(next, limit)?;
            if leaves.is_empty() {
                break;
            }
            for (leaf, bytes) in (next..).zip(&leaves) {
                newest = named_by(bytes).map(|set| Named { leaf, set }).or(newest);
            }
            next += leaves.len() as u64;
        }
        if newest.is_some() {
            return Ok(newest);
        }
        end = begin;
    }
    Ok(None)
}

/// Holds the rows of an open store against the log, and has `voucher` vouch from then on.
pub(crate) fn begin_vouching(shared: &Shared, voucher: Arc<dyn Voucher>) -> Result<(), StoreError> {
    shared.check()?;
    // Nothing changes rows meanwhile: without a voucher nobody may.
    shared.vouching.require();
    let end = shared.end();
    let named = newest_named(shared)?;
    let (folder, store) = (&shared.folder, shared.store);
    Compared { folder, store, named, voucher: Some(voucher.clone()), end }.judge()?;
    shared.vouching.set(Some(voucher));
    Ok(())
}

/// How many leaves are looked through at once.
const PAGE: u64 = 1024;
/// How many rows are told of.
const TOLD_MAX: usize = 16;
