//! The offline check of a state folder, its rebuilding, and what an open store says of itself.
//!
//! The check reads everything that is the truth, whether a start would read it or not, and goes on
//! after damage where it can: whoever restores wants to know of all of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kms_core::audit::merkle::{Frontier, leaf_hash};

use super::folder::{Folder, FolderLock, write_note};
use super::format::{Chain, Record, StoreId};
use super::journal::{self, Location, Reader};
use super::proof::{Proof, recount};
use super::recovery::{FoundIndex, Truth};
use super::shared::Shared;
use super::slots::Slots;
use super::snapshot::{self, Head, RowsReader};
use super::trust::{Compared, Named};
use super::{Opened, Settings, open};
use crate::vouch::named_by;
use crate::{Damage, Disagreement, RowSet, StoreError};

/// What an offline check found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Rows that are there.
    pub rows: u64,
    /// Keys whose row was deleted; their revisions count on.
    pub deleted_rows: u64,
    /// Bytes of the keys and values of the rows that are there.
    pub row_bytes: u64,
    /// Leaves of the log, and their bytes.
    pub leaves: u64,
    /// Bytes of the leaves.
    pub leaf_bytes: u64,
    /// The head of the log, unless something of it is damaged.
    pub log: Option<Frontier>,
    /// The set of rows, unless something of it is damaged.
    pub row_set: Option<RowSet>,
    /// The row set that the newest leaf names which names one. The rows are held against it; whether
    /// the leaf is the daemon's own only the daemon can tell, which holds the key.
    pub named_row_set: Option<RowSet>,
    /// Segments of the journal that hold rows.
    pub segments: u64,
    /// Segments that were reduced to their leaves.
    pub reduced_segments: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Slots that hold a secret.
    pub slots: u64,
    /// Slots that were erased.
    pub erased_slots: u64,
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// Bytes of a record that a crash tore; the next start discards them and loses nothing by it.
    pub torn_tail_bytes: u64,
    /// The first rows in which the index disagrees with the truth.
    pub disagreements: Vec<Disagreement>,
    /// Whether the index reads and has everything up to its marker. One that does not is made anew
    /// by the next start.
    pub index_is_good: bool,
    /// What is damaged, each with its file and place where there is one.
    pub damages: Vec<StoreError>,
}

impl Report {
    /// Whether the store would serve everything that it acknowledged, without making anything anew.
    pub fn is_good(&self) -> bool {
        self.damages.is_empty() && self.disagreements.is_empty() && self.index_is_good
    }
}

/// What an open store says of itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Leaves of the log.
    pub leaves: u64,
    /// Slots that have been given out.
    pub slots: u64,
    /// Segments of the journal that hold rows.
    pub segments: u64,
    /// Segments that were reduced to their leaves.
    pub reduced_segments: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// Bytes of the snapshots.
    pub snapshot_bytes: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Bytes of the slot table.
    pub slot_bytes: u64,
}

/// Reads all of a closed store and tells what is there and what is damaged. The truth is not
/// changed; the index is opened as at a start.
///
/// # Errors
/// [`StoreError::Locked`] while a daemon uses it, or what the environment refuses. Damage is no
/// error here.
pub fn check(path: &Path) -> Result<Report, StoreError> {
    let folder = Folder::new(path);
    fs::metadata(folder.journal()).map_err(StoreError::io("inspect", &folder.journal()))?;
    let _lock = FolderLock::take(&folder)?;
    let mut report = Report { disk_bytes: bytes_in(path)?, ..Report::default() };
    for kinds in journal::list(&folder.journal())?.values() {
        report.segments += u64::from(kinds.whole);
        report.reduced_segments += u64::from(kinds.reduced && !kinds.whole);
    }
    check_snapshots(&folder, &mut report)?;
    let index = FoundIndex::look(&folder, &Settings::default())?;
    match Truth::read(&folder, &index) {
        Ok(Some(truth)) => check_truth(&folder, truth, &index, &mut report)?,
        Ok(None) => {}
        Err(error) => report.damages.push(error),
    }
    index.put_back(&folder);
    Ok(report)
}

/// Makes the index of a closed store anew, and says what came to light.
///
/// # Errors
/// As [`open`].
pub fn rebuild(path: &Path) -> Result<Opened, StoreError> {
    let folder = Folder::new(path);
    fs::metadata(folder.journal()).map_err(StoreError::io("inspect", &folder.journal()))?;
    let lock = FolderLock::take(&folder)?;
    write_note(&folder.index_condemned(), "condemned\n")?;
    drop(lock);
    let (store, opened) = open(path)?;
    drop(store);
    Ok(opened)
}

/// What the files of an open store come to.
pub(crate) fn stats(shared: &Shared) -> Result<Stats, StoreError> {
    shared.check()?;
    let folder = &shared.folder;
    let mut stats = Stats {
        leaves: shared.frontier().size(),
        slots: shared.slots_given(),
        snapshots: snapshot::list(&folder.snapshots())?.len() as u64,
        journal_bytes: bytes_in(&folder.journal())?,
        snapshot_bytes: bytes_in(&folder.snapshots())?,
        index_bytes: bytes_in(&folder.index())?,
        slot_bytes: bytes_in(&folder.slots())?,
        ..Stats::default()
    };
    for kinds in journal::list(&folder.journal())?.values() {
        stats.segments += u64::from(kinds.whole);
        stats.reduced_segments += u64::from(kinds.reduced && !kinds.whole);
    }
    Ok(stats)
}

/// Reads each snapshot as a whole and sums up its rows.
fn check_snapshots(folder: &Folder, report: &mut Report) -> Result<(), StoreError> {
    let snapshots = folder.snapshots();
    for number in snapshot::list(&snapshots)? {
        report.snapshots += 1;
        let checked = Head::read(&snapshots, number).and_then(|head| {
            let rows = RowsReader::open(&snapshots, head.store, &head.rows)?;
            rows.verify(&head.rows)?;
            recount(folder, &rows, head.rows.number, &head.buckets)
        });
        note(report, checked)?;
    }
    Ok(())
}

fn check_truth(
    folder: &Folder,
    truth: Truth,
    index: &FoundIndex,
    report: &mut Report,
) -> Result<(), StoreError> {
    let Truth { head, verified, mut rows, slots, later, .. } = truth;
    report.torn_tail_bytes = verified.discarded_tail_bytes;
    report.row_set = Some(RowSet { root: rows.buckets.root(), sequence: rows.sequence() });
    check_records(folder, &verified.store, verified.end, report)?;
    let compared = report.named_row_set.map_or(Ok(()), |set| {
        let named = Some(Named { leaf: 0, set });
        let (store, end) = (verified.store, verified.chain);
        Compared { folder, store, named, voucher: None, end }.judge()
    });
    note(report, compared)?;
    let counted = count_rows(folder, head.as_ref(), report);
    note(report, counted)?;
    let checked = check_slots(folder, &verified.store, slots, report);
    note(report, checked)?;
    let Some((index, _)) = &index.open else { return Ok(()) };
    let snapshot = head.map(|head| RowsReader::open(&folder.snapshots(), head.store, &head.rows));
    let Ok(snapshot) = snapshot.transpose() else { return Ok(()) };
    let proof = Proof::new(snapshot.map(std::sync::Arc::new), later);
    match proof.whole(index, folder) {
        Ok(disagreements) => {
            report.index_is_good = disagreements.is_empty();
            report.disagreements = disagreements;
        }
        Err(StoreError::IndexUnusable { .. }) => {}
        Err(error) => note(report, Err(error))?,
    }
    Ok(())
}

/// Walks over the records of all segments; after damage it goes on with the next segment.
fn check_records(
    folder: &Folder,
    store: &StoreId,
    stop: Location,
    report: &mut Report,
) -> Result<(), StoreError> {
    let (mut chain, mut log) = (Some(Chain::genesis(store)), Some(Frontier::default()));
    for number in 1..=stop.segment {
        let next_segment = Location { segment: number + 1, offset: 0 };
        let mut reader = Reader::until(&folder.journal(), *store, stop.min(next_segment));
        let mut at = Location::first_of(number);
        let read = loop {
            match reader.read(at) {
                Ok(None) => break Ok(()),
                Ok(Some(stored)) => {
                    let follows = chain.is_none_or(|chain| chain.hash == stored.previous);
                    if !follows {
                        let path = journal::path_of(&folder.journal(), number);
                        break Err(journal::damaged(&path, at.offset as usize, Damage::Chain));
                    }
                    (at, chain) = (stored.next, Some(stored.chain));
                    count_leaves(&stored.record, &mut log, report);
                }
                Err(error) => break Err(error),
            }
        };
        if read.is_err() {
            (chain, log) = (None, None);
        }
        note(report, read)?;
    }
    report.log = log;
    Ok(())
}

fn count_leaves(record: &Record, log: &mut Option<Frontier>, report: &mut Report) {
    for leaf in record.log.batches.iter().flat_map(|batch| &batch.leaves) {
        report.leaves += 1;
        report.leaf_bytes += leaf.len() as u64;
        report.named_row_set = named_by(leaf).or(report.named_row_set);
        if let Some(log) = log {
            log.append(leaf_hash(leaf));
        }
    }
}

fn count_rows(folder: &Folder, head: Option<&Head>, report: &mut Report) -> Result<(), StoreError> {
    let mut later: BTreeMap<String, Option<u64>> = BTreeMap::new();
    let mut count = |live: bool, bytes: u64| {
        report.rows += u64::from(live);
        report.deleted_rows += u64::from(!live);
        report.row_bytes += if live { bytes } else { 0 };
    };
    let store = head.map(|head| (head.store, head.base));
    // Verified before; what it reads now is the same.
    let mut each = |record: Record, _, _| {
        for row in record.rows.rows {
            let bytes = row.value.is_some().then(|| row.bytes());
            later.insert(row.key, bytes);
        }
        true
    };
    journal::verify(&folder.journal(), store, 0, &mut each)?;
    if let Some(head) = head {
        let reader = RowsReader::open(&folder.snapshots(), head.store, &head.rows)?;
        let mut rows = reader.rows_from(None);
        while let Some(row) = rows.next()? {
            if !later.contains_key(&row.key) {
                count(row.value.is_some(), row.bytes());
            }
        }
    }
    later.values().for_each(|bytes| count(bytes.is_some(), bytes.unwrap_or(0)));
    Ok(())
}

fn check_slots(
    folder: &Folder,
    store: &StoreId,
    given: u64,
    report: &mut Report,
) -> Result<(), StoreError> {
    let slots = Slots::open(&folder.slots(), store)?;
    for slot in 0..slots.given() {
        match slots.read(slot) {
            Ok(_) => report.slots += 1,
            Err(StoreError::SlotErased { .. }) => report.erased_slots += 1,
            Err(error) => note(report, Err(error))?,
        }
    }
    if slots.given() < given {
        return Err(StoreError::SlotTableDamaged { path: folder.slots() });
    }
    Ok(())
}

/// Takes damage down, up to a bound; anything else ends the check.
fn note(report: &mut Report, checked: Result<(), StoreError>) -> Result<(), StoreError> {
    match checked {
        Ok(()) => Ok(()),
        Err(error @ StoreError::Io { .. }) => Err(error),
        Err(error) => {
            if report.damages.len() < DAMAGES_MAX {
                report.damages.push(error);
            }
            Ok(())
        }
    }
}

/// Bytes that the files of a folder, or one file, take up on disk.
fn bytes_in(path: &Path) -> Result<u64, StoreError> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut bytes, mut paths): (u64, Vec<PathBuf>) = (0, vec![path.to_owned()]);
    while let Some(path) = paths.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            // The store goes on while it is measured.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(StoreError::io("inspect", &path)(e)),
        };
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).map_err(StoreError::io("list", &path))? {
                paths.push(entry.map_err(StoreError::io("list", &path))?.path());
            }
        } else {
            bytes += metadata.blocks() * 512;
        }
    }
    Ok(bytes)
}

/// How many damages are told.
const DAMAGES_MAX: usize = 100;
