//! From a state folder to an open store: verify the journal, judge the index, replay what it
//! lacks.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::applier::{Applier, Pending, Update};
use super::committer::Committer;
use super::folder::{
    Folder, FolderLock, private_folder, remove_if_present, sync_folder, write_note,
};
use super::format::{Chain, Record, StoreId};
use super::guard;
use super::imprint;
use super::index::{Index, IndexFault, Marker, unusable};
use super::journal::{self, Journal, Location, Reader, Verified};
use super::shared::{Shared, last_leaf_hashes};
use super::slots::Slots;
use super::{Opened, Settings, SledStore};
use crate::log::{Log, Tiles};
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
    let index = FoundIndex::look(&folder, settings)?;
    let verified = match verify(&folder, &index) {
        Ok(verified) => verified,
        Err(error) => {
            index.put_back(&folder);
            return Err(error);
        }
    };
    match verified {
        None => create(folder, settings, lock),
        Some(verified) => resume(folder, index, &verified, settings, lock),
    }
}

/// Verifies the journal, also against what the index knows of it; `None` when there is no store
/// yet.
fn verify(folder: &Folder, index: &FoundIndex) -> Result<Option<Verified>, StoreError> {
    let marker = index.open.as_ref().map(|(_, marker)| marker);
    let wanted = marker.map_or(0, |marker| marker.chain.sequence);
    let damaged = |segment, offset, damage| {
        let segment = journal::path_of(&folder.journal(), segment);
        Err(StoreError::JournalDamaged { segment, offset, damage })
    };
    let Some(verified) = journal::verify(&folder.journal(), wanted)? else {
        let was_one = index.existed || folder.slots().exists();
        return if was_one { damaged(1, 0, Damage::SegmentMissing) } else { Ok(None) };
    };
    // The index applies only what was synced before. So what it has and the journal lacks is lost.
    let is_ahead = |marker: &Marker| {
        marker.store == verified.store && marker.chain.sequence > verified.chain.sequence
    };
    if marker.is_some_and(is_ahead) {
        return damaged(verified.end.segment, verified.end.offset, Damage::EndMissing);
    }
    Ok(Some(verified))
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
    let shared = Arc::new(Shared::new(folder, store, index, log, Pending::default(), slots));
    Ok((opened, Committer { journal, applier, shared, marker, lock: Some(lock) }))
}

/// Takes up a store again.
fn resume(
    folder: Folder,
    index: FoundIndex,
    verified: &Verified,
    settings: &Settings,
    lock: FolderLock,
) -> Result<(Opened, Committer), StoreError> {
    let slots = open_slots(&folder, verified)?;
    let taken_up = take_up(&folder, index, verified);
    let rebuilt_index = taken_up.is_none();
    let (index, mut applier, from) = match taken_up {
        Some(taken_up) => taken_up,
        None => {
            let (index, applier) = new_index(&folder, verified.store, settings)?;
            (index, applier, Location::first_of(1))
        }
    };
    let (pending, replayed_records) = replay(&folder, &index, &mut applier, verified, from)?;
    if rebuilt_index {
        index.flush().map_err(|fault| unusable(&folder.index(), &fault))?;
    }
    // Last, so that a store that does not open is left as it was found.
    let journal = Journal::resume(&folder.journal(), verified, settings.segment_bytes)?;
    let opened = Opened {
        created: false,
        discarded_tail_bytes: verified.discarded_tail_bytes,
        rebuilt_index: rebuilt_index && verified.chain.sequence > 0,
        replayed_records,
    };
    let (log, marker) = (applier.log.clone(), applier.marker(verified.chain));
    let shared = Arc::new(Shared::new(folder, verified.store, index, log, pending, slots));
    Ok((opened, Committer { journal, applier, shared, marker, lock: Some(lock) }))
}

/// The index as it was found.
struct FoundIndex {
    existed: bool,
    /// Whether it had been closed in good order.
    was_closed: bool,
    /// The index and its marker, when it can be trusted so far.
    open: Option<(Index, Marker)>,
}

impl FoundIndex {
    fn look(folder: &Folder, settings: &Settings) -> Result<Self, StoreError> {
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
    fn put_back(self, folder: &Folder) {
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
) -> Option<(Index, Applier, Location)> {
    let (index, marker) = index.open?;
    let from = match verified.wanted {
        Some((chain, next)) if (marker.store, marker.chain) == (verified.store, chain) => next,
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
    let mut reader = Reader::of(&folder.journal(), verified);
    let last = last_leaf_hashes(index, &mut reader, marker.leaves).ok()??;
    let log = Log::load(marker.leaves, last, &IndexTiles { folder, index }).ok()?;
    (log.frontier().root() == marker.root).then_some(log)
}

struct IndexTiles<'a> {
    folder: &'a Folder,
    index: &'a Index,
}

impl Tiles for IndexTiles<'_> {
    fn full_tile(&self, level: u8, n: u64) -> Result<Vec<kms_core::id::Digest>, StoreError> {
        let tile = self.index.full_tile(level, n);
        tile.map_err(|fault| unusable(&self.folder.index(), &fault))
    }
}

/// Applies the records from `from` on; says what the index need not be told yet, and how many they
/// were.
fn replay(
    folder: &Folder,
    index: &Index,
    applier: &mut Applier,
    verified: &Verified,
    from: Location,
) -> Result<(Pending, u64), StoreError> {
    let mut reader = Reader::of(&folder.journal(), verified);
    let (mut at, mut replayed, mut pending) = (from, 0, Pending::default());
    while let Some(stored) = reader.read(at)? {
        at = stored.next;
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
fn open_slots(folder: &Folder, verified: &Verified) -> Result<Slots, StoreError> {
    let path = folder.slots();
    let mut reader = Reader::of(&folder.journal(), verified);
    let last = verified.last.map_or(Ok(None), |last| reader.read(last))?;
    let Some(last) = last else {
        // Nothing was ever committed, so a missing table is one that was never made.
        return match path.exists() {
            true => Slots::open(&path, &verified.store),
            false => Slots::create(&path, &verified.store),
        };
    };
    let slots = Slots::open(&path, &verified.store)?;
    let complete = slots.given() >= last.record.slots;
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
