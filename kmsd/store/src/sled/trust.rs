//! Whether the rows are those that the log names: what the checksums cannot tell.
//!
//! Somebody at the disk can rewrite every file with its checksums. So when the daemon can vouch, before
//! it opens any key, this holds snapshot and journal against the newest leaf that names a row set. That
//! leaf is believed when its record is vouched for; the records before it follow from its hash, and
//! each record after it that changes rows must be vouched for itself, with the hash of the one before it
//! in what is vouched for. What can be put in the place of such a store is only the store as it once
//! was, as a whole.

use std::sync::Arc;

use kms_core::audit::tile::TILE_WIDTH;
use kms_core::audit::{Leaf, RowSet};

use super::folder::Folder;
use super::format::{Chain, StoreId};
use super::journal::{self, Base, Location, Reader};
use super::shared::Shared;
use super::snapshot::{self, Head, RowsReader};
use crate::row_set::{Buckets, decode_states};
use crate::store::SCAN_MAX;
use crate::{StoreError, Voucher};

/// The newest leaf that names a row set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Named {
    /// Its place in the log.
    pub(crate) leaf: u64,
    pub(crate) set: RowSet,
}

/// Reads which row set a leaf names.
pub(crate) fn named_by(leaf: &[u8]) -> Option<RowSet> {
    Leaf::from_bytes(leaf).ok()?.row_set()
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
        let head = begin.head.as_ref();
        let base = begin.base;
        let mut buckets = head.map_or_else(Buckets::default, |head| head.buckets.clone());
        let mut chain = begin.chain;
        let mut at = Location::first_of(begin.segment);
        let (mut is_compared, mut base_is_met) = (false, false);
        let mut leaf_is_vouched = self.named.is_none();
        let mut reader =
            Reader::new(&self.folder.journal(), self.store).asking(self.voucher.clone());
        let compare = |buckets: &mut Buckets| match buckets.root() == set.root {
            true => Ok(()),
            false => disagree(self.suspects(head)?),
        };
        loop {
            if !is_compared && chain.sequence >= set.sequence.max(base.chain.sequence) {
                compare(&mut buckets)?;
                is_compared = true;
            }
            if chain.sequence == base.chain.sequence {
                if chain.hash != base.chain.hash {
                    return disagree(vec!["the snapshot is not of this journal".to_owned()]);
                }
                base_is_met = true;
            }
            if chain.sequence >= self.end.sequence {
                break;
            }
            let Some(stored) = reader.read(at)? else { break };
            let bad = |what: &str| {
                let rows = &stored.record.rows.rows;
                let told = rows.iter().map(|row| format!("{} {what}", row.key));
                let record = format!("record {} {what}", stored.chain.sequence);
                let told: Vec<String> = told.take(TOLD_MAX).collect();
                disagree(if told.is_empty() { vec![record] } else { told })
            };
            let follows = stored.previous == chain.hash
                && Some(stored.chain.sequence) == chain.sequence.checked_add(1);
            if !follows {
                return bad("does not follow the record before it");
            }
            (chain, at) = (stored.chain, stored.next);
            let mut leaves = stored.record.log.batches.iter().flat_map(|batch| &batch.leaves);
            if stored.is_vouched && leaves.any(|leaf| named_by(leaf) == Some(set)) {
                leaf_is_vouched = true;
            }
            if stored.has_rows && chain.sequence > set.sequence {
                if chain.sequence <= base.chain.sequence {
                    return bad("was changed after the log named the rows");
                }
                if self.voucher.is_some() && !stored.is_vouched {
                    return bad("was changed, and nobody vouches for that");
                }
            }
            if chain.sequence > base.chain.sequence && stored.has_rows {
                if stored.record.rows_are_gone {
                    return bad("has lost its rows");
                }
                for (bucket, state) in
                    decode_states(&stored.record.rows.buckets).into_iter().flatten()
                {
                    // What comes after the root is not summed up: a voucher was asked for it.
                    if !is_compared {
                        buckets.set(bucket, state);
                    }
                }
            }
        }
        if !base_is_met {
            return disagree(vec!["the snapshot is of another journal".to_owned()]);
        }
        if chain.hash != self.end.hash {
            return disagree(vec!["the journal ends with another record".to_owned()]);
        }
        if !is_compared {
            return disagree(vec![format!("record {} is not there", set.sequence)]);
        }
        if self.voucher.is_some() && !leaf_is_vouched {
            let leaf = self.named.map_or(0, |named| named.leaf);
            return disagree(vec![format!("nobody vouches for leaf {leaf}, which names them")]);
        }
        self.judge_snapshot(head)
    }

    /// Where to begin so that everything from record `sequence` on is met: at a snapshot that holds
    /// the rows as they stood then or before, and at the segment in which that record stands.
    fn begin(&self, sequence: u64) -> Result<Option<Begin>, StoreError> {
        let snapshots = self.folder.snapshots();
        let mut head = None;
        for number in snapshot::list(&snapshots)? {
            let found = Head::read(&snapshots, number)?;
            if found.rows_sequence <= sequence {
                head = Some(found);
            }
        }
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

    /// Holds which blocks there are against the word for them.
    fn judge_snapshot(&self, head: Option<&Head>) -> Result<(), StoreError> {
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
