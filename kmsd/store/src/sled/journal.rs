//! The journal: verified as a whole when the store opens, appended to by the committer, read back
//! for leaves and for replay.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kms_core::id::Digest;

use super::folder::{create_whole, read_at, remove_if_present, sync_data, sync_folder, write_at};
use super::format::{
    ALIGNMENT, Chain, FORMAT_VERSION, Fields, HEADER_BYTES, HeaderFault, RECORD_HEAD_BYTES, Record,
    RecordHead, Reduced, SegmentHeader, StoreId, frame, is_zero, unframe,
};
use crate::batch::RowChange;
use crate::{Damage, StoreError, Voucher};

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

/// Where the verification begins: at the snapshot, or at the beginning of the journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Base {
    /// The last segment before.
    pub(crate) segment: u64,
    /// The chain with its last record.
    pub(crate) chain: Chain,
}

/// What the journal after its base comes to.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) store: StoreId,
    /// Its last record.
    pub(crate) chain: Chain,
    /// Where the next record goes.
    pub(crate) end: Location,
    /// Bytes after the end that a torn write left.
    pub(crate) discarded_tail_bytes: u64,
    /// The record that was asked for: its place in the chain, and where the next one begins.
    pub(crate) wanted: Option<(Chain, Location)>,
}

/// Reads and verifies every segment after `base`; `None` when there is no journal at all. On the
/// way it hands each record to `each`, which says whether it can read it, and looks for the record
/// of sequence `wanted`.
///
/// # Errors
/// [`StoreError::JournalDamaged`] unless every record is intact and follows the one before it; the
/// trace of a write that a crash tore is no damage. Of the segments before the base only the
/// headers are read.
pub(crate) fn verify(
    folder: &Path,
    base: Option<(StoreId, Base)>,
    wanted: u64,
    each: &mut dyn FnMut(Record, Chain, usize) -> bool,
) -> Result<Option<Verified>, StoreError> {
    let segments = list(folder)?;
    let last = segments.last_key_value().map(|(&last, _)| last);
    let Some(last) = last.max(base.map(|(_, base)| base.segment + 1)) else { return Ok(None) };
    let mut so_far = base.map(|(store, base)| Verified::begin(store, base, wanted));
    let reduced_to = base.map_or(0, |(_, base)| base.segment);
    let mut before: Option<Chain> = None;
    for number in 1..=reduced_to {
        before = verify_header(folder, &segments, number, base, before)?;
    }
    if let (Some(before), Some((_, base))) = (before, base)
        && before != base.chain
    {
        return Err(damaged(&path_of(folder, reduced_to), 0, Damage::SegmentOrder));
    }
    for number in reduced_to + 1..=last {
        let path = path_of(folder, number);
        match segments.get(&number) {
            None => return Err(damaged(&path, 0, Damage::SegmentMissing)),
            Some(Kinds { whole: false, .. }) => {
                return Err(damaged(&reduced_path_of(folder, number), 0, Damage::RowsMissing));
            }
            Some(_) => {}
        }
        let bytes = read_segment(&path)?;
        let header = read_header(&path, &bytes)?;
        let so_far = so_far.get_or_insert_with(|| {
            let chain = Chain::genesis(&header.store);
            Verified::begin(header.store, Base { segment: 0, chain }, wanted)
        });
        let expected =
            SegmentHeader { store: so_far.store, number, before: so_far.chain, reduced: None };
        if header != expected {
            return Err(damaged(&path, 0, Damage::SegmentOrder));
        }
        Segment { path: &path, bytes: &bytes, number, is_last: number == last }
            .verify(so_far, wanted, each)?;
    }
    Ok(so_far)
}

/// Holds the header of a segment before the base against its neighbours; says where it ends. One
/// that was not reduced yet does not say it.
fn verify_header(
    folder: &Path,
    segments: &BTreeMap<u64, Kinds>,
    number: u64,
    base: Option<(StoreId, Base)>,
    before: Option<Chain>,
) -> Result<Option<Chain>, StoreError> {
    let Some(kinds) = segments.get(&number) else {
        return Err(damaged(&path_of(folder, number), 0, Damage::SegmentMissing));
    };
    let path = kinds.path(folder, number);
    let mut bytes = vec![0; HEADER_BYTES];
    let file = File::open(&path).map_err(StoreError::io("open", &path))?;
    let length = file.metadata().map_err(StoreError::io("inspect", &path))?.len();
    if length < HEADER_BYTES as u64 {
        return Err(damaged(&path, 0, Damage::Header));
    }
    read_at(&file, &path, &mut bytes, 0)?;
    let header = read_header(&path, &bytes)?;
    let follows = before.is_none_or(|before| before == header.before);
    let is_ours = base.is_none_or(|(store, _)| store == header.store);
    if header.number != number || !follows || !is_ours {
        return Err(damaged(&path, 0, Damage::SegmentOrder));
    }
    match header.reduced {
        Some(Reduced { table, .. }) if table > length => {
            Err(damaged(&path, table as usize, Damage::Record))
        }
        reduced => Ok(reduced.map(|reduced| reduced.end)),
    }
}

impl Verified {
    const fn begin(store: StoreId, base: Base, wanted: u64) -> Self {
        let (chain, end) = (base.chain, Location::first_of(base.segment + 1));
        let wanted = if wanted == chain.sequence { Some((chain, end)) } else { None };
        Self { store, chain, end, discarded_tail_bytes: 0, wanted }
    }
}

/// One segment on its way through [`verify`].
struct Segment<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    number: u64,
    is_last: bool,
}

impl Segment<'_> {
    fn verify(
        &self,
        so_far: &mut Verified,
        wanted: u64,
        each: &mut dyn FnMut(Record, Chain, usize) -> bool,
    ) -> Result<(), StoreError> {
        let mut offset = HEADER_BYTES;
        while let Some(framed) = unframe(&so_far.store, &self.bytes[offset..]) {
            let follows = framed.previous == so_far.chain.hash
                && Some(framed.chain.sequence) == so_far.chain.sequence.checked_add(1);
            if !follows {
                return Err(damaged(self.path, offset, Damage::Chain));
            }
            let unreadable = || damaged(self.path, offset, Damage::Unreadable);
            let record = framed.decode().ok_or_else(unreadable)?;
            if record.rows_are_gone {
                return Err(damaged(self.path, offset, Damage::RowsMissing));
            }
            if !each(record, framed.chain, framed.bytes) {
                return Err(unreadable());
            }
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
    /// Bytes of rows, and of whole records, that have been appended.
    pub(crate) row_bytes: u64,
    pub(crate) record_bytes: u64,
}

impl Journal {
    /// Begins the journal of a new store.
    pub(crate) fn create(
        folder: &Path,
        store: StoreId,
        segment_bytes: u64,
    ) -> Result<Self, StoreError> {
        let before = Chain::genesis(&store);
        let header = SegmentHeader { store, number: 1, before, reduced: None };
        Self::begin_segment(folder, &header, segment_bytes, 0)
    }

    /// Goes on after what [`verify`] found. What a torn write left is wiped, so that it can never
    /// stand behind a later record.
    pub(crate) fn resume(
        folder: &Path,
        verified: &Verified,
        segment_bytes: u64,
    ) -> Result<Self, StoreError> {
        let Verified { store, chain, end, discarded_tail_bytes, wanted: _ } = verified;
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
            row_bytes: 0,
            record_bytes: 0,
        })
    }

    /// Appends one record with one write and one sync. When it returns, the record is durable.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] or [`StoreError::BatchRefused`] when nothing was written. After any
    /// other error nobody knows what is on the disk, and the journal must not be used again.
    pub(crate) fn append(
        &mut self,
        record: &Record,
        voucher: Option<&dyn Voucher>,
    ) -> Result<(Chain, Location), StoreError> {
        let framed = frame(&self.store, &self.chain, record, voucher);
        let (bytes, chain) = framed.ok_or(crate::BatchFault::Bytes)?;
        if self.at.offset + bytes.len() as u64 > self.capacity {
            self.rotate(bytes.len() as u64)?;
        }
        write_at(&self.file, &self.path, &bytes, self.at.offset)?;
        sync_data(&self.file, &self.path)?;
        let at = self.at;
        self.at.offset += bytes.len() as u64;
        self.chain = chain;
        self.record_bytes += bytes.len() as u64;
        self.row_bytes += record.rows.rows.iter().map(RowChange::bytes).sum::<u64>();
        Ok((chain, at))
    }

    /// Ends the segment, so that everything up to here is in finished ones; says which is the last
    /// of them.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`]; then nothing has changed.
    pub(crate) fn finish_segment(&mut self) -> Result<u64, StoreError> {
        if self.at != Location::first_of(self.at.segment) {
            self.rotate(0)?;
        }
        Ok(self.at.segment - 1)
    }

    /// Goes on in a new segment with room for a record of `record_bytes`.
    fn rotate(&mut self, record_bytes: u64) -> Result<(), StoreError> {
        let number = self.at.segment + 1;
        let header = SegmentHeader { store: self.store, number, before: self.chain, reduced: None };
        let next = Self::begin_segment(&self.folder, &header, self.segment_bytes, record_bytes)?;
        let Self { row_bytes, record_bytes, .. } = *self;
        *self = Self { row_bytes, record_bytes, ..next };
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
            row_bytes: 0,
            record_bytes: 0,
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
    /// Hash of the record before it.
    pub(crate) previous: Digest,
    pub(crate) chain: Chain,
    pub(crate) at: Location,
    /// Where the next one begins, if not in the next segment.
    pub(crate) next: Location,
    pub(crate) record: Record,
    /// Whether it changes rows, also if they are gone from it.
    pub(crate) has_rows: bool,
    /// Whether the reader's voucher has vouched for it.
    pub(crate) is_vouched: bool,
}

/// The reading end: walks from record to record, verifying each.
///
/// A place stays the same when the segment is reduced to its part of the log: it is always told as
/// where the record stood at first.
pub(crate) struct Reader {
    folder: PathBuf,
    store: StoreId,
    /// What stands from here on is not for reading.
    end: Option<Location>,
    voucher: Option<Arc<dyn Voucher>>,
    open: Option<OpenSegment>,
}

struct OpenSegment {
    number: u64,
    path: PathBuf,
    file: File,
    /// Where the records end.
    bytes: u64,
    /// Places at first and now, of a reduced segment.
    table: Option<Vec<(u64, u64)>>,
}

impl Reader {
    pub(crate) fn new(folder: &Path, store: StoreId) -> Self {
        Self { folder: folder.to_owned(), store, end: None, voucher: None, open: None }
    }

    /// A reader that goes no further than `end`.
    pub(crate) fn until(folder: &Path, store: StoreId, end: Location) -> Self {
        Self { end: Some(end), ..Self::new(folder, store) }
    }

    /// The same, and it says of each record whether `voucher` has vouched for it.
    pub(crate) fn asking(self, voucher: Option<Arc<dyn Voucher>>) -> Self {
        Self { voucher, ..self }
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
        for path in [path_of(&self.folder, number), reduced_path_of(&self.folder, number)] {
            match File::open(&path) {
                Ok(file) => {
                    self.open = Some(OpenSegment::new(number, path, file)?);
                    return Ok(true);
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::io("open", &path)(e)),
            }
        }
        Ok(false)
    }

    fn record_at(&mut self, at: Location) -> Result<Option<Stored>, StoreError> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let Some(offset) = open.now(&self.store, at.offset)? else { return Ok(None) };
        let Some(head) = open.head(&self.store, offset)? else { return Ok(None) };
        let bad = |damage| damaged(&open.path, offset as usize, damage);
        let next_offset = offset + head.record_bytes() as u64;
        if next_offset > open.bytes {
            return Err(bad(Damage::Record));
        }
        let mut whole = vec![0; head.record_bytes()];
        read_at(&open.file, &open.path, &mut whole, offset)?;
        let framed = unframe(&self.store, &whole).ok_or_else(|| bad(Damage::Record))?;
        let record = framed.decode().ok_or_else(|| bad(Damage::Unreadable))?;
        let next = Location { offset: at.offset + framed.original_bytes as u64, ..at };
        if let Some(table) = &mut open.table {
            // The next read most likely begins where this one ended.
            table[0] = (next.offset, next_offset);
        }
        let asked = self.voucher.as_deref();
        let is_vouched = asked.is_some_and(|voucher| framed.is_vouched(&self.store, voucher));
        Ok(Some(Stored {
            previous: framed.previous,
            chain: framed.chain,
            at,
            next,
            record,
            has_rows: framed.has_rows(),
            is_vouched,
        }))
    }
}

impl OpenSegment {
    fn new(number: u64, path: PathBuf, file: File) -> Result<Self, StoreError> {
        let bytes = file.metadata().map_err(StoreError::io("inspect", &path))?.len();
        let mut header = vec![0; HEADER_BYTES];
        if bytes < HEADER_BYTES as u64 {
            return Err(damaged(&path, 0, Damage::Header));
        }
        read_at(&file, &path, &mut header, 0)?;
        let header = read_header(&path, &header)?;
        let Some(Reduced { table, .. }) = header.reduced else {
            return Ok(Self { number, path, file, bytes, table: None });
        };
        let bad = || damaged(&path, table as usize, Damage::Record);
        let length = bytes.checked_sub(table).filter(|length| *length <= SEGMENT_BYTES_MAX);
        let mut encoded = vec![0; length.ok_or_else(bad)? as usize];
        read_at(&file, &path, &mut encoded, table)?;
        let entries = decode_table(&encoded).ok_or_else(bad)?;
        Ok(Self { number, path, file, bytes: table, table: Some(entries) })
    }

    /// Where the record now stands that stood at `wanted` at first.
    fn now(&self, store: &StoreId, wanted: u64) -> Result<Option<u64>, StoreError> {
        let Some(table) = &self.table else { return Ok(Some(wanted)) };
        let (hint, table) = table.split_first().expect("a table begins with the hint");
        if hint.0 == wanted {
            return Ok(Some(hint.1));
        }
        let after = table.partition_point(|entry| entry.0 <= wanted);
        let Some(&(mut at_first, mut now)) = after.checked_sub(1).and_then(|at| table.get(at))
        else {
            return Ok(None);
        };
        while at_first < wanted {
            let Some(head) = self.head(store, now)? else { return Ok(None) };
            at_first += head.original_bytes() as u64;
            now += head.record_bytes() as u64;
        }
        if at_first == wanted { Ok(Some(now)) } else { Err(self.bad(now)) }
    }

    /// The head of the record at `offset`, unless the records end there.
    fn head(&self, store: &StoreId, offset: u64) -> Result<Option<RecordHead>, StoreError> {
        let mut head = [0; RECORD_HEAD_BYTES];
        if offset.saturating_add(RECORD_HEAD_BYTES as u64) > self.bytes {
            return Ok(None);
        }
        read_at(&self.file, &self.path, &mut head, offset)?;
        if is_zero(&head) && self.table.is_none() {
            return Ok(None);
        }
        RecordHead::decode(store, &head).map(Some).ok_or_else(|| self.bad(offset))
    }

    fn bad(&self, offset: u64) -> StoreError {
        damaged(&self.path, offset as usize, Damage::Record)
    }
}

/// Reduces a finished segment to its part of the log, whose rows stand in a verified snapshot by
/// now. Cut short, it leaves the segment as it was, or both forms, and can be done again.
///
/// # Errors
/// [`StoreError::JournalDamaged`] when the segment does not read as it was written; it stays.
pub(crate) fn reduce(folder: &Path, store: &StoreId, number: u64) -> Result<(), StoreError> {
    let (from, to) = (path_of(folder, number), reduced_path_of(folder, number));
    if !from.exists() {
        return Ok(());
    }
    let bytes = read_segment(&from)?;
    let header = read_header(&from, &bytes)?;
    let mut chain = header.before;
    let (mut reduced, mut table) = (vec![0; HEADER_BYTES], Vec::new());
    let (mut offset, mut records) = (HEADER_BYTES, 0_usize);
    while let Some(framed) = unframe(store, &bytes[offset..]) {
        if framed.previous != chain.hash {
            return Err(damaged(&from, offset, Damage::Chain));
        }
        if records.is_multiple_of(TABLE_STEP) {
            table.push((offset as u64, reduced.len() as u64));
        }
        let bad = || damaged(&from, offset, Damage::Record);
        reduced.extend(framed.reduce(store).ok_or_else(bad)?);
        (chain, records) = (framed.chain, records + 1);
        offset += framed.bytes;
    }
    if !is_zero(&bytes[offset..]) {
        return Err(damaged(&from, offset, Damage::Record));
    }
    let header = SegmentHeader {
        reduced: Some(Reduced { end: chain, table: reduced.len() as u64 }),
        ..header
    };
    reduced[..HEADER_BYTES].copy_from_slice(&header.encode());
    reduced.extend(encode_table(&table));
    create_whole(&to, &reduced, reduced.len() as u64)?;
    remove_if_present(&from)?;
    sync_folder(folder)
}

fn encode_table(table: &[(u64, u64)]) -> Vec<u8> {
    let fields = table.iter().flat_map(|(at_first, now)| [*at_first, *now]);
    let mut bytes: Vec<u8> = fields.flat_map(u64::to_be_bytes).collect();
    bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
    bytes
}

/// The table, after one entry that is free for a hint.
fn decode_table(bytes: &[u8]) -> Option<Vec<(u64, u64)>> {
    let (fields, crc) = bytes.split_last_chunk::<4>()?;
    let (entries, []) = fields.as_chunks::<16>() else { return None };
    if crc32c::crc32c(fields).to_be_bytes() != *crc {
        return None;
    }
    let entry = |entry: &[u8; 16]| {
        let mut fields = Fields(entry);
        (fields.u64(), fields.u64())
    };
    Some(core::iter::once((0, 0)).chain(entries.iter().map(entry)).collect())
}

/// In which forms a segment is there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kinds {
    /// As it was written.
    pub(crate) whole: bool,
    /// Reduced to its part of the log.
    pub(crate) reduced: bool,
}

impl Kinds {
    pub(crate) fn path(self, folder: &Path, number: u64) -> PathBuf {
        match self.whole {
            true => path_of(folder, number),
            false => reduced_path_of(folder, number),
        }
    }
}

/// The segments that are there, by number. Other files are left alone.
pub(crate) fn list(folder: &Path) -> Result<BTreeMap<u64, Kinds>, StoreError> {
    let mut segments: BTreeMap<u64, Kinds> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(StoreError::io("list", folder))? {
        let path = entry.map_err(StoreError::io("list", folder))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let number = stem.and_then(|stem| stem.parse().ok()).filter(|number| *number > 0);
        let Some(number) = number else { continue };
        if path == path_of(folder, number) {
            segments.entry(number).or_default().whole = true;
        } else if path == reduced_path_of(folder, number) {
            segments.entry(number).or_default().reduced = true;
        }
    }
    Ok(segments)
}

pub(crate) fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.segment"))
}

pub(crate) fn reduced_path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.log"))
}

fn read_segment(path: &Path) -> Result<Vec<u8>, StoreError> {
    let bytes = fs::metadata(path).map_err(StoreError::io("inspect", path))?.len();
    if bytes > SEGMENT_BYTES_MAX {
        return Err(damaged(path, 0, Damage::Header));
    }
    fs::read(path).map_err(StoreError::io("read", path))
}

/// Where the chain stood when segment `number` began; `None` when there is no such segment.
pub(crate) fn before_segment(folder: &Path, number: u64) -> Result<Option<Chain>, StoreError> {
    let Some(kinds) = list(folder)?.get(&number).copied() else { return Ok(None) };
    let path = kinds.path(folder, number);
    let file = File::open(&path).map_err(StoreError::io("open", &path))?;
    let mut bytes = vec![0; HEADER_BYTES];
    read_at(&file, &path, &mut bytes, 0)?;
    read_header(&path, &bytes).map(|header| Some(header.before))
}

fn read_header(path: &Path, bytes: &[u8]) -> Result<SegmentHeader, StoreError> {
    SegmentHeader::decode(bytes).map_err(|fault| match fault {
        HeaderFault::Damaged => damaged(path, 0, Damage::Header),
        HeaderFault::Version(found) => {
            StoreError::FormatUnknown { path: path.to_owned(), found, expected: FORMAT_VERSION }
        }
    })
}

pub(crate) fn damaged(path: &Path, offset: usize, damage: Damage) -> StoreError {
    StoreError::JournalDamaged { segment: path.to_owned(), offset: offset as u64, damage }
}

/// Longest segment that is read: far above what is written, so that a foreign file cannot fill the
/// memory.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Every how many records the table of a reduced segment has an entry.
const TABLE_STEP: usize = 32;
