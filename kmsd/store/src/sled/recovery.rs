//! From a state folder to an open store: verify the journal, judge the index, replay what it
//! lacks.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kms_core::id::Digest;

use super::applier::{Applier, Pending, Update};
use super::committer::Committer;
use super::folder::{
    Folder, FolderLock, private_folder, remove_if_present, sync_folder, write_note,
};
use super::format::{Chain, Record, RowPart, StoreId};
use super::guard;
use super::imprint;
use super::index::{Index, IndexFault, Marker, unusable};
use super::journal::{self, Journal, Location, Reader, Verified};
use super::proof::{self, AT_ONCE_ROWS_MAX, Proof, prove_in_background, recount};
use super::shared::{Contents, Rows, Shared, last_leaf_hashes};
use super::slots::Slots;
use super::snapshot::{self, Head, RowsReader};
use super::snapshotter::Snapshotter;
use super::{Opened, Settings, SledStore};
use crate::batch::RowChange;
use crate::log::{Log, Tiles};
use crate::row_set::{Recount, decode_states};
use crate::vouch::Vouching;
use crate::{Damage, StoreError};

/// Opens the store in `path`.
pub(crate) fn open(path: &Path, settings: &Settings) -> Result<(SledStore, Opened), StoreError> {
    let (opened, committer) = prepare(path, settings)?;
    Ok((start(committer)?, opened))
}

/// Sets a prepared store to work.
pub(crate) fn start(committer: Committer) -> Result<SledStore, StoreError> {
    let shared = committer.shared.clone();
    let (jobs, thread) = committer.start()?;
    Ok(SledStore::new(jobs, shared, thread))
}

/// Brings a store to the point where it could commit.
pub(crate) fn prepare(path: &Path, settings: &Settings) -> Result<(Opened, Committer), StoreError> {
    let folder = Folder::new(path);
    private_folder(path)?;
    let lock = FolderLock::take(&folder)?;
    private_folder(&folder.journal())?;
    private_folder(&folder.snapshots())?;
    let index = FoundIndex::look(&folder, settings)?;
    let truth = match Truth::read(&folder, &index) {
        Ok(truth) => truth,
        Err(error) => {
            index.put_back(&folder);
            return Err(error);
        }
    };
    match truth {
        None => create(folder, settings, lock),
        Some(truth) => resume(folder, index, truth, settings, lock),
    }
}

/// What snapshot and journal come to.
pub(crate) struct Truth {
    pub(crate) head: Option<Head>,
    pub(crate) verified: Verified,
    pub(crate) rows: Rows,
    /// How many slots had been given out.
    pub(crate) slots: u64,
    /// The latest sequence whose row set the log names.
    bound: u64,
    /// Bytes of rows and of records since the snapshot.
    row_bytes: u64,
    record_bytes: u64,
    /// The rows that changed since the snapshot.
    pub(crate) later: BTreeMap<String, Digest>,
    /// Whether anybody ever vouched for a record.
    is_vouched: bool,
    /// Snapshots that did not read well.
    damaged_snapshots: u64,
}

impl Truth {
    /// Reads the newest snapshot that is good and the journal after it; `None` when there is no
    /// store yet.
    pub(crate) fn read(folder: &Folder, index: &FoundIndex) -> Result<Option<Self>, StoreError> {
        let snapshots = folder.snapshots();
        let numbers = snapshot::list(&snapshots)?;
        // One that nothing stands behind is read as a whole only when there is reason to.
        let thorough = numbers.len() > 1 || folder.snapshot_suspect().exists();
        let mut first_damage = None;
        for number in numbers.iter().rev() {
            match read_snapshot(&snapshots, *number, thorough) {
                Ok(head) => match Self::after(folder, Some(head), index) {
                    Ok(Some(truth)) => {
                        let damaged_snapshots = u64::from(first_damage.is_some());
                        return Ok(Some(Self { damaged_snapshots, ..truth }));
                    }
                    other => {
                        return Err(first_damage
                            .or_else(|| other.err())
                            .unwrap_or(StoreError::Poisoned));
                    }
                },
                Err(error @ StoreError::SnapshotDamaged { .. }) => {
                    tracing::error!(%error, "an older snapshot is tried");
                    first_damage.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match (Self::after(folder, None, index), first_damage) {
            (Ok(truth), None) => Ok(truth),
            // Without a snapshot, all segments must still have their rows.
            (Ok(Some(truth)), Some(_)) => Ok(Some(Self { damaged_snapshots: 1, ..truth })),
            (Err(error), None) => Err(error),
            (_, Some(damage)) => Err(damage),
        }
    }

    /// Verifies the journal after a snapshot, also against what the index knows of it.
    fn after(
        folder: &Folder,
        head: Option<Head>,
        index: &FoundIndex,
    ) -> Result<Option<Self>, StoreError> {
        let marker = index.open.as_ref().map(|(_, marker)| marker);
        let wanted = marker.map_or(0, |marker| marker.chain.sequence);
        let damaged = |segment, offset: u64, damage| {
            let segment = journal::path_of(&folder.journal(), segment);
            Err(StoreError::JournalDamaged { segment, offset, damage })
        };
        let mut rows = Rows::default();
        let (mut slots, mut bound, mut is_vouched) = (0, 0, false);
        if let Some(head) = &head {
            head.buckets.filled().for_each(|(bucket, state)| rows.buckets.set(bucket, *state));
            (slots, bound, is_vouched) = (head.slots, head.bound, head.is_vouched);
        }
        let (mut row_bytes, mut record_bytes, mut later) = (0, 0, BTreeMap::new());
        let mut each = |record: Record, _: Chain, bytes: usize| {
            (slots, bound) = (record.log.slots, record.log.bound);
            is_vouched |= !record.log.vouch.is_empty();
            record_bytes += bytes as u64;
            let Some(states) = decode_states(&record.rows.buckets) else { return false };
            states.for_each(|(bucket, state)| rows.buckets.set(bucket, state));
            for row in record.rows.rows {
                row_bytes += row.bytes();
                let digest = row.digest();
                later.insert(row.key, digest);
            }
            true
        };
        let base = head.as_ref().map(|head| (head.store, head.base));
        let Some(verified) = journal::verify(&folder.journal(), base, wanted, &mut each)? else {
            let was_one = index.existed || folder.slots().exists();
            return if was_one { damaged(1, 0, Damage::SegmentMissing) } else { Ok(None) };
        };
        // The index applies only what was synced before. So what it has and the journal lacks is
        // lost.
        let is_ahead = |marker: &Marker| {
            marker.store == verified.store && marker.chain.sequence > verified.chain.sequence
        };
        if marker.is_some_and(is_ahead) {
            return damaged(verified.end.segment, verified.end.offset, Damage::EndMissing);
        }
        let damaged_snapshots = 0;
        rows.end = Some(verified.chain);
        Ok(Some(Self {
            head,
            verified,
            rows,
            slots,
            bound,
            row_bytes,
            record_bytes,
            later,
            is_vouched,
            damaged_snapshots,
        }))
    }
}

/// Reads a snapshot's head and what it needs to be used; all of it when `thorough`.
fn read_snapshot(folder: &Path, number: u64, thorough: bool) -> Result<Head, StoreError> {
    let head = Head::read(folder, number)?;
    let rows = RowsReader::open(folder, head.store, &head.rows)?;
    if thorough {
        rows.verify(&head.rows)?;
    }
    Ok(head)
}

/// Begins a new store in an empty folder. The journal comes first: with it the rest can be made
/// by the next open, should this one be cut short.
fn create(
    folder: Folder,
    settings: &Settings,
    lock: FolderLock,
) -> Result<(Opened, Committer), StoreError> {
    let store = draw_store_id()?;
    let journal = Journal::create(&folder.journal(), store, settings.segment_bytes)?;
    let slots = Slots::create(&folder.slots(), &store)?;
    let (index, applier) = new_index(&folder, store, settings)?;
    let opened = Opened { created: true, ..Opened::default() };
    let (log, marker) = (applier.log.clone(), applier.marker(Chain::genesis(&store)));
    let vouching = Arc::new(Vouching::default());
    let snapshotter = Snapshotter::new(folder.clone(), store, None, 0, vouching.clone());
    let (pending, rows) = (Pending::default(), Rows::default());
    let contents = Contents { log, pending, rows, proof: None, vouching };
    let shared = Arc::new(Shared::new(folder, store, index, slots, contents));
    let Settings { snapshot_row_bytes, snapshot_at_close, .. } = *settings;
    let committer = Committer {
        journal,
        applier,
        shared,
        marker,
        bound: 0,
        snapshotter,
        snapshot_row_bytes,
        snapshot_at_close,
        lock: Some(lock),
    };
    Ok((opened, committer))
}

/// Takes up a store again.
fn resume(
    folder: Folder,
    index: FoundIndex,
    truth: Truth,
    settings: &Settings,
    lock: FolderLock,
) -> Result<(Opened, Committer), StoreError> {
    let Truth { head, verified, rows, slots, bound, row_bytes, record_bytes, later, .. } = truth;
    let store = verified.store;
    let slots = open_slots(&folder, &verified, slots)?;
    let vouching = Arc::new(Vouching::default());
    if truth.is_vouched {
        vouching.require();
    }
    let open = |head: &Head| RowsReader::open(&folder.snapshots(), store, &head.rows);
    let snapshot = head.as_ref().map(open).transpose()?;
    let snapshot = snapshot.map(|rows| Arc::new(rows.asking(&vouching)));
    let proof = Proof::new(snapshot.clone(), later);
    let mut disagreements = Vec::new();
    let mut whole = None;
    if let Some((index, mut applier, from)) = take_up(&folder, index, &verified) {
        let replayed = replay(&folder, &index, &mut applier, &verified, head.as_ref(), from)?;
        let at_once = proof.rows() <= AT_ONCE_ROWS_MAX;
        if at_once && let (Some(snapshot), Some(head)) = (&snapshot, &head) {
            recount(&folder, snapshot, head.rows.number, &head.buckets)?;
        }
        let held = if at_once { proof.whole(&index, &folder) } else { Ok(Vec::new()) };
        match held {
            Ok(told) if told.is_empty() => {
                whole = Some((index, applier, replayed, (!at_once).then_some(proof)));
            }
            Ok(told) => disagreements = told,
            Err(error) => tracing::warn!(%error, "the index does not read and is made anew"),
        }
        for disagreement in &disagreements {
            tracing::error!("{disagreement}; the index is made anew");
        }
    }
    let rebuilt_index = whole.is_none();
    let (index, applier, (pending, replayed_records), proof) = match whole {
        Some(whole) => whole,
        None => {
            let (index, mut applier) = new_index(&folder, store, settings)?;
            load_rows(&folder, &index, head.as_ref())?;
            let from = From { at: Location::first_of(1), chain: Chain::genesis(&store) };
            let replayed = replay(&folder, &index, &mut applier, &verified, head.as_ref(), from)?;
            index.flush().map_err(|fault| unusable(&folder.index(), &fault))?;
            (index, applier, replayed, None)
        }
    };
    // Last, so that a store that does not open is left as it was found.
    let mut journal = Journal::resume(&folder.journal(), &verified, settings.segment_bytes)?;
    (journal.row_bytes, journal.record_bytes) = (row_bytes, record_bytes);
    remove_if_present(&folder.snapshot_suspect())?;
    let opened = Opened {
        created: false,
        discarded_tail_bytes: verified.discarded_tail_bytes,
        rebuilt_index: rebuilt_index && verified.chain.sequence > 0,
        replayed_records,
        damaged_snapshots: truth.damaged_snapshots,
        disagreements,
    };
    let (log, marker) = (applier.log.clone(), applier.marker(verified.chain));
    let is_proven = proof.is_none();
    let contents = Contents { log, pending, rows, proof, vouching: vouching.clone() };
    let shared = Arc::new(Shared::new(folder.clone(), store, index, slots, contents));
    if !is_proven {
        prove_in_background(shared.clone(), head.as_ref())?;
    }
    let Settings { snapshot_row_bytes, snapshot_at_close, .. } = *settings;
    let snapshotter = Snapshotter::new(folder, store, head, bound, vouching);
    let committer = Committer {
        journal,
        applier,
        shared,
        marker,
        bound,
        snapshotter,
        snapshot_row_bytes,
        snapshot_at_close,
        lock: Some(lock),
    };
    Ok((opened, committer))
}

/// Puts the rows of the snapshot into a new index, after holding all of them against the row set.
fn load_rows(folder: &Folder, index: &Index, head: Option<&Head>) -> Result<(), StoreError> {
    let Some(head) = head else { return Ok(()) };
    let reader = RowsReader::open(&folder.snapshots(), head.store, &head.rows)?;
    reader.verify(&head.rows)?;
    let (mut recount, mut rows) = (Recount::new(), reader.rows_from(None));
    let load = |batch: &mut Vec<RowChange>| {
        let loaded = index.load(batch);
        batch.clear();
        loaded.map_err(|fault| unusable(&folder.index(), &fault))
    };
    let mut batch: Vec<RowChange> = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        recount.add(&row.key, &row.digest());
        bytes += row.bytes();
        batch.push(row);
        if bytes >= LOAD_BYTES {
            bytes = 0;
            load(&mut batch)?;
        }
    }
    load(&mut batch)?;
    proof::judge(folder, &recount, head.rows.number, &head.buckets)
}

/// The index as it was found.
pub(crate) struct FoundIndex {
    existed: bool,
    /// Whether it had been closed in good order.
    was_closed: bool,
    /// The index and its marker, when it can be trusted so far.
    pub(crate) open: Option<(Index, Marker)>,
}

impl FoundIndex {
    pub(crate) fn look(folder: &Folder, settings: &Settings) -> Result<Self, StoreError> {
        let existed = folder.index().exists();
        let was_closed = !folder.index_open().exists();
        if !existed {
            return Ok(Self { existed, was_closed, open: None });
        }
        if let Some(why) = distrust(folder) {
            tracing::warn!(why, "the index is not trusted and will be made anew");
            return Ok(Self { existed, was_closed, open: None });
        }
        write_note(&folder.index_open(), OPENING)?;
        let open = match Index::open(&folder.index(), settings.index_patience) {
            Ok((index, Some(marker))) => Some((index, marker)),
            Err(IndexFault::Hangs) => {
                guard::condemn(&folder.index());
                return Err(StoreError::IndexHangs { path: folder.index() });
            }
            Ok((_, None)) => None,
            Err(fault) => {
                tracing::warn!(%fault, "the index does not open and will be made anew");
                None
            }
        };
        // Not synced: the kernel keeps it when this process ends, and when the machine stops, either
        // note has the index made anew.
        let note = folder.index_open();
        fs::write(&note, boot_name()).map_err(StoreError::io("write", &note))?;
        Ok(Self { existed, was_closed, open })
    }

    /// Leaves the index as it was found, when the store does not open: what it knows of the
    /// journal is evidence.
    pub(crate) fn put_back(self, folder: &Folder) {
        let Some((index, _)) = self.open else { return };
        let closed = index.close();
        let put_back = match self.was_closed {
            true => closed.and_then(|()| remove_if_present(&folder.index_open())),
            false => closed,
        };
        if let Err(error) = put_back {
            tracing::warn!(%error, "the index could not be left as it was found");
        }
    }
}

/// Why the index is not even to be opened.
fn distrust(folder: &Folder) -> Option<&'static str> {
    if folder.index_condemned().exists() {
        return Some("it failed while it was in use");
    }
    // No sync orders what the index writes. While the machine stays up, the kernel has all of it.
    let Ok(boot) = fs::read_to_string(folder.index_open()) else {
        return (!imprint::fits(&folder.index()))
            .then_some("its files are not what they were when it was closed");
    };
    if boot == OPENING {
        return Some("the process ended while it was opened");
    }
    (Some(boot) != this_boot()).then_some("the machine stopped while it was open")
}

/// Takes the index up where it stands; `None` when it does not fit the journal.
fn take_up(
    folder: &Folder,
    index: FoundIndex,
    verified: &Verified,
) -> Option<(Index, Applier, From)> {
    let (index, marker) = index.open?;
    let from = match verified.wanted {
        Some((chain, at)) if (marker.store, marker.chain) == (verified.store, chain) => {
            From { at, chain }
        }
        _ => {
            tracing::warn!("the index is not of this journal and will be made anew");
            return None;
        }
    };
    let Some(log) = load_log(folder, &index, &marker, verified) else {
        tracing::warn!("the index does not hold the log and will be made anew");
        return None;
    };
    Some((index, Applier { store: marker.store, log, names: marker.names }, from))
}

/// The log as of the marker; `None` when the index does not come to the marker's root.
fn load_log(folder: &Folder, index: &Index, marker: &Marker, verified: &Verified) -> Option<Log> {
    let mut reader = Reader::until(&folder.journal(), verified.store, verified.end);
    let last = last_leaf_hashes(index, &mut reader, marker.leaves).ok()??;
    let log = Log::load(marker.leaves, last, &IndexTiles { folder, index }).ok()?;
    (log.frontier().root() == marker.root).then_some(log)
}

struct IndexTiles<'a> {
    folder: &'a Folder,
    index: &'a Index,
}

impl Tiles for IndexTiles<'_> {
    fn full_tile(&self, level: u8, n: u64) -> Result<Vec<Digest>, StoreError> {
        let tile = self.index.full_tile(level, n);
        tile.map_err(|fault| unusable(&self.folder.index(), &fault))
    }
}

/// Where a replay begins, and the chain before it.
struct From {
    at: Location,
    chain: Chain,
}

/// Applies the records from `from` on; says what the index need not be told yet, and how many they
/// were.
fn replay(
    folder: &Folder,
    index: &Index,
    applier: &mut Applier,
    verified: &Verified,
    head: Option<&Head>,
    from: From,
) -> Result<(Pending, u64), StoreError> {
    let mut reader = Reader::until(&folder.journal(), verified.store, verified.end);
    let From { mut at, mut chain } = from;
    let (mut replayed, mut pending) = (0, Pending::default());
    let in_snapshot = head.map_or(0, |head| head.chain().sequence);
    while let Some(mut stored) = reader.read(at)? {
        let sequence = chain.sequence.checked_add(1);
        if stored.previous != chain.hash || Some(stored.chain.sequence) != sequence {
            let path = journal::path_of(&folder.journal(), stored.at.segment);
            return Err(journal::damaged(&path, stored.at.offset as usize, Damage::Chain));
        }
        (at, chain) = (stored.next, stored.chain);
        if chain.sequence <= in_snapshot {
            stored.record.rows = RowPart::default();
        }
        let (mut update, _placed) = applier.take(stored.record, stored.chain, stored.at);
        pending.take(&mut update);
        replayed += 1;
        if update.is_needed_now() || pending.is_full() {
            let waiting = pending.update(update.marker);
            let update = Update { rows: update.rows, names: update.names, ..waiting };
            index.apply(&update).map_err(|fault| unusable(&folder.index(), &fault))?;
            pending.clear();
        }
    }
    if chain != verified.chain {
        let path = journal::path_of(&folder.journal(), at.segment);
        return Err(journal::damaged(&path, at.offset as usize, Damage::EndMissing));
    }
    Ok((pending, replayed))
}

/// Puts whatever index there is aside and begins one that has applied nothing.
fn new_index(
    folder: &Folder,
    store: StoreId,
    settings: &Settings,
) -> Result<(Index, Applier), StoreError> {
    let (path, aside) = (folder.index(), folder.index_aside());
    if path.exists() {
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(StoreError::io("remove", &aside))?;
        }
        fs::rename(&path, &aside).map_err(StoreError::io("put aside", &path))?;
        sync_folder(folder.path())?;
    }
    remove_if_present(&folder.index_condemned())?;
    note_open(folder)?;
    private_folder(&path)?;
    let mut applier = Applier { store, log: Log::default(), names: 0 };
    let nothing = applier.take(Record::default(), Chain::genesis(&store), Location::first_of(1)).0;
    let opened = Index::open(&path, settings.index_patience)
        .and_then(|(index, _)| index.apply(&nothing).map(|()| index));
    opened.map(|index| (index, applier)).map_err(|fault| unusable(&path, &fault))
}

/// The slot table, which must hold at least what the last record knew of.
fn open_slots(folder: &Folder, verified: &Verified, given: u64) -> Result<Slots, StoreError> {
    let path = folder.slots();
    if verified.chain.sequence == 0 && !path.exists() {
        // Nothing was ever committed, so a missing table is one that was never made.
        return Slots::create(&path, &verified.store);
    }
    let slots = Slots::open(&path, &verified.store)?;
    let complete = slots.given() >= given;
    if complete { Ok(slots) } else { Err(StoreError::SlotTableDamaged { path }) }
}

/// Notes on which boot of the machine the index is in use.
fn note_open(folder: &Folder) -> Result<(), StoreError> {
    write_note(&folder.index_open(), &boot_name())
}

/// Without a name for the boot no later one is the same, which is the safe side.
fn boot_name() -> String {
    this_boot().unwrap_or_else(|| "unknown".to_owned())
}

fn this_boot() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

/// A name that nobody can guess: see the format of the journal.
pub(crate) fn draw_store_id() -> Result<StoreId, StoreError> {
    let path = Path::new("/dev/urandom");
    let mut id = [0; 16];
    let mut source = fs::File::open(path).map_err(StoreError::io("open", path))?;
    source.read_exact(&mut id).map_err(StoreError::io("read", path))?;
    Ok(id)
}

/// Stands in the note of the open index until the opening has come back.
const OPENING: &str = "opening";
/// How long an index may take to open before it counts as hanging.
pub(crate) const INDEX_PATIENCE: Duration = Duration::from_secs(120);
/// How many bytes of rows go into a new index at once.
const LOAD_BYTES: u64 = 1024 * 1024;
