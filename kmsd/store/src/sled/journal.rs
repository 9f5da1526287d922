//! The journal: verified as a whole when the store opens, appended to by the committer, read back
//! for leaves and for replay.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use prost::Message;

use super::folder::{create_whole, read_at, sync_data, write_at};
use super::format::{
    ALIGNMENT, Chain, FORMAT_VERSION, HEADER_BYTES, HeaderFault, RECORD_HEAD_BYTES, Record,
    RecordHead, SegmentHeader, StoreId, frame, is_zero, unframe,
};
use crate::{Damage, StoreError};

/// Where a record begins.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Location {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

impl Location {
    /// Where the first record of a segment begins.
    pub(crate) const fn first_of(segment: u64) -> Self {
        Self { segment, offset: HEADER_BYTES as u64 }
    }
}

/// What the whole journal comes to.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) store: StoreId,
    /// Its last record.
    pub(crate) chain: Chain,
    /// Where that one begins, if there is any.
    pub(crate) last: Option<Location>,
    /// Where the next record goes.
    pub(crate) end: Location,
    /// Bytes after the end that a torn write left.
    pub(crate) discarded_tail_bytes: u64,
    /// The record that was asked for: its place in the chain, and where the next one begins.
    pub(crate) wanted: Option<(Chain, Location)>,
}

/// Reads and verifies every segment in `folder`; `None` when there are none. On the way it looks
/// for the record of sequence `wanted`.
///
/// # Errors
/// [`StoreError::JournalDamaged`] unless every record is intact and follows the one before it; the
/// trace of a write that a crash tore is no damage.
pub(crate) fn verify(folder: &Path, wanted: u64) -> Result<Option<Verified>, StoreError> {
    let segments = list(folder)?;
    let Some((&last, _)) = segments.last_key_value() else { return Ok(None) };
    let mut verified: Option<Verified> = None;
    for number in 1..=last {
        let path = path_of(folder, number);
        if !segments.contains_key(&number) {
            return Err(damaged(&path, 0, Damage::SegmentMissing));
        }
        let bytes = read_segment(&path)?;
        let header = read_header(&path, &bytes)?;
        let so_far = verified.get_or_insert_with(|| {
            let (chain, end) = (Chain::genesis(&header.store), Location::first_of(1));
            let wanted = (wanted == 0).then_some((chain, end));
            let store = header.store;
            Verified { store, chain, last: None, end, discarded_tail_bytes: 0, wanted }
        });
        let expected = SegmentHeader { store: so_far.store, number, before: so_far.chain };
        if header != expected {
            return Err(damaged(&path, 0, Damage::SegmentOrder));
        }
        Segment { path: &path, bytes: &bytes, number, is_last: number == last }
            .verify(so_far, wanted)?;
    }
    Ok(verified)
}

/// One segment on its way through [`verify`].
struct Segment<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    number: u64,
    is_last: bool,
}

impl Segment<'_> {
    fn verify(&self, so_far: &mut Verified, wanted: u64) -> Result<(), StoreError> {
        let mut offset = HEADER_BYTES;
        while let Some(framed) = unframe(&so_far.store, &self.bytes[offset..]) {
            let follows = framed.previous == so_far.chain.hash
                && Some(framed.chain.sequence) == so_far.chain.sequence.checked_add(1);
            if !follows {
                return Err(damaged(self.path, offset, Damage::Chain));
            }
            so_far.last = Some(self.location(offset));
            offset += framed.bytes;
            so_far.chain = framed.chain;
            if framed.chain.sequence == wanted {
                so_far.wanted = Some((framed.chain, self.location(offset)));
            }
        }
        so_far.end = self.location(offset);
        so_far.discarded_tail_bytes = self.tail(&so_far.store, offset)?;
        Ok(())
    }

    /// Judges what stands after the last good record: nothing, a torn write of so many bytes, or
    /// damage.
    ///
    /// A record is written only after the one before it was synced. So an intact record after a bad
    /// one proves that the bad one was intact once.
    fn tail(&self, store: &StoreId, offset: usize) -> Result<u64, StoreError> {
        let rest = &self.bytes[offset..];
        let Some(last_written) = rest.iter().rposition(|byte| *byte != 0) else { return Ok(0) };
        let later = (ALIGNMENT..rest.len()).step_by(ALIGNMENT);
        let torn =
            self.is_last && later.into_iter().all(|at| unframe(store, &rest[at..]).is_none());
        if torn {
            Ok(last_written as u64 + 1)
        } else {
            Err(damaged(self.path, offset, Damage::Record))
        }
    }

    const fn location(&self, offset: usize) -> Location {
        Location { segment: self.number, offset: offset as u64 }
    }
}

/// The writing end. One thread has it.
pub(crate) struct Journal {
    folder: PathBuf,
    store: StoreId,
    segment_bytes: u64,
    chain: Chain,
    file: File,
    path: PathBuf,
    capacity: u64,
    at: Location,
}

impl Journal {
    /// Begins the journal of a new store.
    pub(crate) fn create(
        folder: &Path,
        store: StoreId,
        segment_bytes: u64,
    ) -> Result<Self, StoreError> {
        let header = SegmentHeader { store, number: 1, before: Chain::genesis(&store) };
        Self::begin_segment(folder, &header, segment_bytes, 0)
    }

    /// Goes on after what [`verify`] found. What a torn write left is wiped, so that it can never
    /// stand behind a later record.
    pub(crate) fn resume(
        folder: &Path,
        verified: &Verified,
        segment_bytes: u64,
    ) -> Result<Self, StoreError> {
        let Verified { store, chain, last: _, end, discarded_tail_bytes, wanted: _ } = verified;
        let path = path_of(folder, end.segment);
        let file = super::folder::open_or_create(&path)?;
        if let Ok(torn @ 1..) = usize::try_from(*discarded_tail_bytes) {
            write_at(&file, &path, &vec![0; torn], end.offset)?;
            sync_data(&file, &path)?;
        }
        let capacity = file.metadata().map_err(StoreError::io("inspect", &path))?.len();
        Ok(Self {
            folder: folder.to_owned(),
            store: *store,
            segment_bytes,
            chain: *chain,
            file,
            path,
            capacity,
            at: *end,
        })
    }

    /// Appends one record with one write and one sync. When it returns, the record is durable.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] or [`StoreError::BatchRefused`] when nothing was written. After any
    /// other error nobody knows what is on the disk, and the journal must not be used again.
    pub(crate) fn append(&mut self, record: &Record) -> Result<(Chain, Location), StoreError> {
        let framed = frame(&self.store, &self.chain, &record.encode_to_vec());
        let (bytes, chain) = framed.ok_or(crate::BatchFault::Bytes)?;
        if self.at.offset + bytes.len() as u64 > self.capacity {
            self.rotate(bytes.len() as u64)?;
        }
        write_at(&self.file, &self.path, &bytes, self.at.offset)?;
        sync_data(&self.file, &self.path)?;
        let at = self.at;
        self.at.offset += bytes.len() as u64;
        self.chain = chain;
        Ok((chain, at))
    }

    /// Goes on in a new segment with room for a record of `record_bytes`.
    fn rotate(&mut self, record_bytes: u64) -> Result<(), StoreError> {
        let number = self.at.segment + 1;
        let header = SegmentHeader { store: self.store, number, before: self.chain };
        *self = Self::begin_segment(&self.folder, &header, self.segment_bytes, record_bytes)?;
        Ok(())
    }

    fn begin_segment(
        folder: &Path,
        header: &SegmentHeader,
        segment_bytes: u64,
        record_bytes: u64,
    ) -> Result<Self, StoreError> {
        let path = path_of(folder, header.number);
        let capacity = segment_bytes.max(HEADER_BYTES as u64 + record_bytes);
        let file = create_whole(&path, &header.encode(), capacity)?;
        Ok(Self {
            folder: folder.to_owned(),
            store: header.store,
            segment_bytes,
            chain: header.before,
            file,
            path,
            capacity,
            at: Location::first_of(header.number),
        })
    }

    /// Writes into `file` from now on, to see what a failing disk does.
    #[cfg(test)]
    pub(crate) fn break_with(&mut self, file: File) {
        self.file = file;
    }
}

/// One record, read back.
pub(crate) struct Stored {
    pub(crate) chain: Chain,
    pub(crate) at: Location,
    /// Where the next one begins, if not in the next segment.
    pub(crate) next: Location,
    pub(crate) record: Record,
}

/// The reading end: walks from record to record, verifying each.
pub(crate) struct Reader {
    folder: PathBuf,
    store: StoreId,
    /// What stands from here on is not for reading.
    end: Option<Location>,
    open: Option<OpenSegment>,
}

struct OpenSegment {
    number: u64,
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Reader {
    pub(crate) fn new(folder: &Path, store: StoreId) -> Self {
        Self { folder: folder.to_owned(), store, end: None, open: None }
    }

    /// A reader of what was verified, no further.
    pub(crate) fn of(folder: &Path, verified: &Verified) -> Self {
        Self { end: Some(verified.end), ..Self::new(folder, verified.store) }
    }

    /// The record at `at`, or the first of the next segment when the segment ends there; `None` at
    /// the end of the journal.
    ///
    /// # Errors
    /// [`StoreError::JournalDamaged`] when the disk gives back other bytes than were written.
    pub(crate) fn read(&mut self, mut at: Location) -> Result<Option<Stored>, StoreError> {
        while self.end.is_none_or(|end| at < end) && self.open(at.segment)? {
            if let Some(stored) = self.record_at(at)? {
                return Ok(Some(stored));
            }
            at = Location::first_of(at.segment + 1);
        }
        Ok(None)
    }

    /// Opens a segment; says whether there is one.
    fn open(&mut self, number: u64) -> Result<bool, StoreError> {
        if self.open.as_ref().is_some_and(|open| open.number == number) {
            return Ok(true);
        }
        let path = path_of(&self.folder, number);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(StoreError::io("open", &path)(e)),
        };
        let bytes = file.metadata().map_err(StoreError::io("inspect", &path))?.len();
        self.open = Some(OpenSegment { number, path, file, bytes });
        Ok(true)
    }

    fn record_at(&self, at: Location) -> Result<Option<Stored>, StoreError> {
        let Some(OpenSegment { number: _, path, file, bytes }) = &self.open else {
            return Ok(None);
        };
        let mut head = [0; RECORD_HEAD_BYTES];
        if at.offset.saturating_add(RECORD_HEAD_BYTES as u64) > *bytes {
            return Ok(None);
        }
        read_at(file, path, &mut head, at.offset)?;
        if is_zero(&head) {
            return Ok(None);
        }
        let bad = |damage| StoreError::JournalDamaged {
            segment: path.clone(),
            offset: at.offset,
            damage,
        };
        let head = RecordHead::decode(&self.store, &head).ok_or_else(|| bad(Damage::Record))?;
        let next = Location { offset: at.offset + head.record_bytes() as u64, ..at };
        if next.offset > *bytes {
            return Err(bad(Damage::Record));
        }
        let mut whole = vec![0; head.record_bytes()];
        read_at(file, path, &mut whole, at.offset)?;
        let framed = unframe(&self.store, &whole).ok_or_else(|| bad(Damage::Record))?;
        let record = Record::decode(framed.body).map_err(|_| bad(Damage::Unreadable))?;
        Ok(Some(Stored { chain: framed.chain, at, next, record }))
    }
}

/// The segments that are there, by number. Other files are left alone.
fn list(folder: &Path) -> Result<BTreeMap<u64, PathBuf>, StoreError> {
    let mut segments = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(StoreError::io("list", folder))? {
        let path = entry.map_err(StoreError::io("list", folder))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let number = stem.and_then(|stem| stem.parse().ok()).filter(|number| *number > 0);
        if let Some(number) = number.filter(|number| path == path_of(folder, *number)) {
            segments.insert(number, path);
        }
    }
    Ok(segments)
}

pub(crate) fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.segment"))
}

fn read_segment(path: &Path) -> Result<Vec<u8>, StoreError> {
    let bytes = fs::metadata(path).map_err(StoreError::io("inspect", path))?.len();
    if bytes > SEGMENT_BYTES_MAX {
        return Err(damaged(path, 0, Damage::Header));
    }
    fs::read(path).map_err(StoreError::io("read", path))
}

fn read_header(path: &Path, bytes: &[u8]) -> Result<SegmentHeader, StoreError> {
    SegmentHeader::decode(bytes).map_err(|fault| match fault {
        HeaderFault::Damaged => damaged(path, 0, Damage::Header),
        HeaderFault::Version(found) => {
            StoreError::FormatUnknown { path: path.to_owned(), found, expected: FORMAT_VERSION }
        }
    })
}

fn damaged(path: &Path, offset: usize, damage: Damage) -> StoreError {
    StoreError::JournalDamaged { segment: path.to_owned(), offset: offset as u64, damage }
}

/// Longest segment that is read: far above what is written, so that a foreign file cannot fill the
/// memory.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
