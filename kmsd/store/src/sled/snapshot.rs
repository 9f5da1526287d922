//! Snapshots: all rows as of the end of a segment, in two files that are never changed.
//!
//! ```text
//! snapshots/N.rows   the rows, deleted ones too, ascending by key
//! snapshots/N.head   what the journal comes to at the end of segment N, and which rows belong to it
//!
//! rows   = "KMSROWS\n" || version[4] || store[16] || number[8] || block* || table
//! block  = length[4] || crc32c( store || number || offset[8] || body )[4] || body
//! body   = row*, about 64 KiB
//! row    = key length[2] || key || revision[8] || 1 || value length[4] || value
//!        | key length[2] || key || revision[8] || 0
//! table  = ( offset[8] || first key length[2] || first key )* || rows[8] || payload bytes[8]
//!          || offset of the table[8] || crc32c[4]
//! head   = "KMSHEAD\n" || version[4] || store[16] || number[8] || sequence[8] || its hash[32]
//!          || slots[8] || bound[8] || sequence of the rows[8] || number of the rows file[8]
//!          || its length[8] || its SHA-256[32] || bucket states || SHA-256( all before )
//! ```
//!
//! A head is renamed into place after its rows are on disk, and so a head that is there vouches for
//! both.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use kms_core::id::Digest;
use rustix::fs::{Advice, fadvise};
use sha2::{Digest as _, Sha256};

use super::folder::{create_whole, open_or_create, read_at, remove_if_present, sync_folder};
use super::format::{Chain, FORMAT_VERSION, Fields, StoreId};
use super::journal::Base;
use crate::batch::RowChange;
use crate::row_set::{Buckets, decode_states, encode_states};
use crate::{Damage, KEY_BYTES_MAX, StoreError, VALUE_BYTES_MAX};

/// What the journal comes to at the end of a segment.
pub(crate) struct Head {
    pub(crate) store: StoreId,
    pub(crate) base: Base,
    /// How many slots had been given out.
    pub(crate) slots: u64,
    /// The latest sequence whose row set the log names.
    pub(crate) bound: u64,
    /// The record that changed a row last.
    pub(crate) rows_sequence: u64,
    pub(crate) rows: RowsFile,
    pub(crate) buckets: Buckets,
}

/// Which file of rows belongs to a head. Snapshots between which no row changed share one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RowsFile {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
}

impl Head {
    /// Puts the head into its place, on disk when this returns.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), StoreError> {
        let Self { store, base, slots, bound, rows_sequence, rows, buckets } = self;
        let mut bytes = HEAD_MAGIC.to_vec();
        bytes.extend(FORMAT_VERSION.to_be_bytes());
        bytes.extend_from_slice(store);
        bytes.extend(base.segment.to_be_bytes());
        base.chain.encode_into(&mut bytes);
        for field in [slots, bound, rows_sequence, &rows.number, &rows.bytes] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.extend_from_slice(rows.digest.as_bytes());
        bytes.extend(encode_states(buckets.filled()));
        bytes.extend(Sha256::digest(&bytes));
        let path = head_path(folder, base.segment);
        create_whole(&path, &bytes, bytes.len() as u64).map(drop)
    }

    /// Where the chain of records stands with it.
    pub(crate) const fn chain(&self) -> Chain {
        self.base.chain
    }

    /// # Errors
    /// [`StoreError::SnapshotDamaged`] unless it reads as it was written.
    pub(crate) fn read(folder: &Path, number: u64) -> Result<Self, StoreError> {
        let path = head_path(folder, number);
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        let damaged =
            |damage| StoreError::SnapshotDamaged { path: path.clone(), offset: 0, damage };
        let bad = || damaged(Damage::Header);
        let (fields, digest) = bytes.split_last_chunk::<32>().ok_or_else(bad)?;
        let (fields, states) = fields.split_at_checked(HEAD_BYTES).ok_or_else(bad)?;
        if !fields.starts_with(HEAD_MAGIC) {
            return Err(bad());
        }
        let mut fields = Fields(&fields[HEAD_MAGIC.len()..]);
        check_version(&path, fields.u32())?;
        if Sha256::digest(&bytes[..bytes.len() - 32])[..] != digest[..] {
            return Err(bad());
        }
        let store = fields.take();
        let base = Base { segment: fields.u64(), chain: fields.chain() };
        let (slots, bound, rows_sequence) = (fields.u64(), fields.u64(), fields.u64());
        let rows =
            RowsFile { number: fields.u64(), bytes: fields.u64(), digest: Digest(fields.take()) };
        if base.segment != number || base.segment == 0 {
            return Err(damaged(Damage::SegmentOrder));
        }
        let mut buckets = Buckets::default();
        let states = decode_states(states).ok_or_else(bad)?;
        states.for_each(|(bucket, state)| buckets.set(bucket, state));
        Ok(Self { store, base, slots, bound, rows_sequence, rows, buckets })
    }
}

/// The heads that are there, ascending.
pub(crate) fn list(folder: &Path) -> Result<Vec<u64>, StoreError> {
    numbers(folder, "head")
}

/// Removes what no head of `kept` needs, and what a cut snapshot left. The heads go first: without
/// its head a file of rows is nothing.
pub(crate) fn remove_but(folder: &Path, kept: &[&Head]) -> Result<(), StoreError> {
    let heads = kept.iter().map(|head| head_path(folder, head.base.segment));
    let rows = kept.iter().map(|head| rows_path(folder, head.rows.number));
    let kept: Vec<PathBuf> = heads.chain(rows).collect();
    for extension in ["head", "rows", "new", "part"] {
        for path in files(folder, extension)? {
            if !kept.contains(&path) {
                remove_if_present(&path)?;
            }
        }
        sync_folder(folder)?;
    }
    Ok(())
}

fn numbers(folder: &Path, extension: &str) -> Result<Vec<u64>, StoreError> {
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok();
    let mut numbers: Vec<u64> = files(folder, extension)?.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

pub(crate) fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, StoreError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(StoreError::io("list", folder))? {
        let path = entry.map_err(StoreError::io("list", folder))?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    Ok(files)
}

/// Writes a file of rows, block by block.
pub(crate) struct RowsWriter {
    file: BufWriter<File>,
    path: PathBuf,
    part: PathBuf,
    store: StoreId,
    number: u64,
    digest: Sha256,
    offset: u64,
    block: Vec<u8>,
    table: Vec<u8>,
    rows: u64,
    payload_bytes: u64,
    unsynced: u64,
}

impl RowsWriter {
    pub(crate) fn create(folder: &Path, store: StoreId, number: u64) -> Result<Self, StoreError> {
        let path = rows_path(folder, number);
        let part = path.with_extension("part");
        remove_if_present(&part)?;
        let file = BufWriter::with_capacity(BLOCK_BYTES, open_or_create(&part)?);
        let mut writer = Self {
            file,
            path,
            part,
            store,
            number,
            digest: Sha256::new(),
            offset: 0,
            block: Vec::with_capacity(2 * BLOCK_BYTES),
            table: Vec::new(),
            rows: 0,
            payload_bytes: 0,
            unsynced: 0,
        };
        let mut head = ROWS_MAGIC.to_vec();
        head.extend(FORMAT_VERSION.to_be_bytes());
        head.extend_from_slice(&store);
        head.extend(number.to_be_bytes());
        writer.write(&head)?;
        Ok(writer)
    }

    /// Adds the row that comes next by its key.
    pub(crate) fn push(&mut self, row: &RowChange) -> Result<(), StoreError> {
        let RowChange { key, revision, value } = row;
        if self.block.is_empty() {
            self.table.extend(self.offset.to_be_bytes());
            self.table.extend((key.len() as u16).to_be_bytes());
            self.table.extend_from_slice(key.as_bytes());
        }
        self.block.extend((key.len() as u16).to_be_bytes());
        self.block.extend_from_slice(key.as_bytes());
        self.block.extend(revision.to_be_bytes());
        self.block.push(u8::from(value.is_some()));
        if let Some(value) = value {
            self.block.extend((value.len() as u32).to_be_bytes());
            self.block.extend_from_slice(value);
        }
        self.rows += 1;
        self.payload_bytes += row.bytes();
        if self.block.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    /// Brings the file to the disk under its name.
    pub(crate) fn finish(mut self) -> Result<RowsFile, StoreError> {
        self.end_block()?;
        let mut table = core::mem::take(&mut self.table);
        for field in [self.rows, self.payload_bytes, self.offset] {
            table.extend(field.to_be_bytes());
        }
        table.extend(crc32c::crc32c(&table).to_be_bytes());
        self.write(&table)?;
        self.file.flush().map_err(full_or_io("write", &self.part))?;
        let file = self.file.get_ref();
        file.sync_all().map_err(full_or_io("sync", &self.part))?;
        fs::rename(&self.part, &self.path).map_err(StoreError::io("rename", &self.part))?;
        self.path.parent().map_or(Ok(()), sync_folder)?;
        let digest = Digest(self.digest.finalize().into());
        Ok(RowsFile { number: self.number, bytes: self.offset, digest })
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let body = core::mem::take(&mut self.block);
        let mut head = (body.len() as u32).to_be_bytes().to_vec();
        head.extend(block_crc(&self.store, self.number, self.offset, &body).to_be_bytes());
        self.write(&head)?;
        self.write(&body)?;
        self.block = body;
        self.block.clear();
        Ok(())
    }

    /// Writes, and syncs now and then: a large sync at the end would keep the journal's waiting.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(full_or_io("write", &self.part))?;
        self.digest.update(bytes);
        self.offset += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.flush().map_err(full_or_io("write", &self.part))?;
            let synced = rustix::fs::fdatasync(self.file.get_ref());
            synced.map_err(|errno| full_or_io("sync", &self.part)(errno.into()))?;
        }
        Ok(())
    }
}

/// Reads a file of rows: block by block, or the block that would hold a key.
pub(crate) struct RowsReader {
    file: File,
    path: PathBuf,
    store: StoreId,
    number: u64,
    /// First keys and offsets of the blocks.
    blocks: BTreeMap<String, u64>,
    /// Where the blocks end.
    end: u64,
    pub(crate) rows: u64,
}

impl RowsReader {
    /// Opens the file and reads its table.
    ///
    /// # Errors
    /// [`StoreError::SnapshotDamaged`].
    pub(crate) fn open(folder: &Path, store: StoreId, rows: &RowsFile) -> Result<Self, StoreError> {
        let path = rows_path(folder, rows.number);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(snapshot_damaged(&path, 0, Damage::RowsMissing));
            }
            Err(e) => return Err(StoreError::io("open", &path)(e)),
        };
        let bytes = file.metadata().map_err(StoreError::io("inspect", &path))?.len();
        let bad = |offset| snapshot_damaged(&path, offset, Damage::Header);
        if bytes != rows.bytes {
            return Err(bad(bytes));
        }
        let head_bytes = bytes.checked_sub(ROWS_TAIL_BYTES).ok_or_else(|| bad(0))?;
        let mut tail = [0; ROWS_TAIL_BYTES as usize];
        read_at(&file, &path, &mut tail, head_bytes)?;
        let mut fields = Fields(&tail);
        let (count, _payload_bytes, end) = (fields.u64(), fields.u64(), fields.u64());
        let table_bytes = bytes.checked_sub(end).filter(|length| *length >= ROWS_TAIL_BYTES);
        let table_bytes = table_bytes.ok_or_else(|| bad(head_bytes))?;
        let mut table = vec![0; usize::try_from(table_bytes).map_err(|_| bad(end))?];
        read_at(&file, &path, &mut table, end)?;
        let (entries, crc) = table.split_at(table.len() - 4);
        if crc32c::crc32c(entries).to_be_bytes() != crc {
            return Err(bad(end));
        }
        let entries = &entries[..entries.len() - (ROWS_TAIL_BYTES as usize - 4)];
        let blocks = decode_blocks(entries).ok_or_else(|| bad(end))?;
        Ok(Self { file, path, store, number: rows.number, blocks, end, rows: count })
    }

    /// Reads all of it and holds it against the digest in the head. The kernel is asked to forget
    /// the file first, so that the disk is read and not what was written to it.
    ///
    /// # Errors
    /// [`StoreError::SnapshotDamaged`].
    pub(crate) fn verify(&self, rows: &RowsFile) -> Result<(), StoreError> {
        // Advice that is not taken changes nothing of what is read.
        let _advice = fadvise(&self.file, 0, None, Advice::DontNeed);
        let (mut hash, mut at) = (Sha256::new(), 0);
        let mut buffer = vec![0; BLOCK_BYTES];
        while at < rows.bytes {
            let step = (rows.bytes - at).min(buffer.len() as u64) as usize;
            read_at(&self.file, &self.path, &mut buffer[..step], at)?;
            hash.update(&buffer[..step]);
            at += step as u64;
        }
        if hash.finalize()[..] == rows.digest.as_bytes()[..] {
            return Ok(());
        }
        // The blocks know better where it is.
        let mut rest = self.rows_from(None);
        while rest.next()?.is_some() {}
        Err(snapshot_damaged(&self.path, 0, Damage::Record))
    }

    /// The rows from the first key after `after` on.
    pub(crate) fn rows_from(&self, after: Option<&str>) -> RowsFrom<'_> {
        let begin = match after {
            None => HEADER_BYTES,
            Some(after) => {
                let block = self.blocks.range::<str, _>(up_to(after)).next_back();
                block.map_or(HEADER_BYTES, |(_, offset)| *offset)
            }
        };
        RowsFrom {
            reader: self,
            next_block: begin,
            rows: Vec::new().into_iter(),
            after: after.map(str::to_owned),
        }
    }

    /// The row of `key`.
    pub(crate) fn row(&self, key: &str) -> Result<Option<RowChange>, StoreError> {
        let Some((_, &offset)) = self.blocks.range::<str, _>(up_to(key)).next_back() else {
            return Ok(None);
        };
        let (rows, _) = self.block(offset)?;
        Ok(rows.into_iter().find(|row| row.key == key))
    }

    /// The rows of the block at `offset`, and where the next one begins.
    fn block(&self, offset: u64) -> Result<(Vec<RowChange>, u64), StoreError> {
        let bad = || snapshot_damaged(&self.path, offset, Damage::Record);
        let room = self.end.checked_sub(offset + BLOCK_HEAD_BYTES).ok_or_else(bad)?;
        let mut head = [0; BLOCK_HEAD_BYTES as usize];
        read_at(&self.file, &self.path, &mut head, offset)?;
        let mut fields = Fields(&head);
        let (length, crc) = (u64::from(fields.u32()), fields.u32());
        if length > room.min(BLOCK_BYTES_MAX as u64) {
            return Err(bad());
        }
        let mut body = vec![0; length as usize];
        read_at(&self.file, &self.path, &mut body, offset + BLOCK_HEAD_BYTES)?;
        if block_crc(&self.store, self.number, offset, &body) != crc {
            return Err(bad());
        }
        let rows = decode_rows(&body).ok_or_else(bad)?;
        Ok((rows, offset + BLOCK_HEAD_BYTES + length))
    }
}

/// Walks over rows, ascending by key.
pub(crate) struct RowsFrom<'a> {
    reader: &'a RowsReader,
    next_block: u64,
    rows: std::vec::IntoIter<RowChange>,
    after: Option<String>,
}

impl RowsFrom<'_> {
    pub(crate) fn next(&mut self) -> Result<Option<RowChange>, StoreError> {
        loop {
            for row in self.rows.by_ref() {
                if self.after.as_ref().is_none_or(|after| row.key > *after) {
                    self.after = None;
                    return Ok(Some(row));
                }
            }
            if self.next_block >= self.reader.end {
                return Ok(None);
            }
            let (rows, next) = self.reader.block(self.next_block)?;
            (self.rows, self.next_block) = (rows.into_iter(), next);
        }
    }
}

fn decode_rows(mut body: &[u8]) -> Option<Vec<RowChange>> {
    let mut rows = Vec::new();
    while !body.is_empty() {
        let key = take_key(&mut body)?;
        let revision = u64::from_be_bytes(*take(&mut body)?);
        let [live] = *take::<1>(&mut body)?;
        let value = match live {
            0 => None,
            1 => {
                let length = u32::from_be_bytes(*take(&mut body)?) as usize;
                let (value, rest) = body.split_at_checked(length)?;
                body = rest;
                Some(value.to_vec())
            }
            _ => return None,
        };
        rows.push(RowChange { key, revision, value });
    }
    Some(rows)
}

fn decode_blocks(mut entries: &[u8]) -> Option<BTreeMap<String, u64>> {
    let mut blocks = BTreeMap::new();
    while !entries.is_empty() {
        let offset = u64::from_be_bytes(*take(&mut entries)?);
        blocks.insert(take_key(&mut entries)?, offset);
    }
    Some(blocks)
}

const fn up_to(key: &str) -> (Bound<&str>, Bound<&str>) {
    (Bound::Unbounded, Bound::Included(key))
}

fn take_key(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::from(u16::from_be_bytes(*take(bytes)?));
    let (key, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    str::from_utf8(key).ok().map(str::to_owned)
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (field, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(field)
}

fn block_crc(store: &StoreId, number: u64, offset: u64, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(store), &number.to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &offset.to_be_bytes()), body)
}

fn check_version(path: &Path, found: u32) -> Result<(), StoreError> {
    if found == FORMAT_VERSION {
        return Ok(());
    }
    Err(StoreError::FormatUnknown { path: path.to_owned(), found, expected: FORMAT_VERSION })
}

fn snapshot_damaged(path: &Path, offset: u64, damage: Damage) -> StoreError {
    StoreError::SnapshotDamaged { path: path.to_owned(), offset, damage }
}

fn full_or_io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            StoreError::DiskFull { path }
        }
        _ => StoreError::io(action, &path)(error),
    }
}

pub(crate) fn head_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.head"))
}

pub(crate) fn rows_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.rows"))
}

const HEAD_MAGIC: &[u8; 8] = b"KMSHEAD\n";
const ROWS_MAGIC: &[u8; 8] = b"KMSROWS\n";
/// Fields of a head before the bucket states.
const HEAD_BYTES: usize = 8 + 4 + 16 + 8 + 40 + 5 * 8 + 32;
/// Fields of a file of rows before the first block.
const HEADER_BYTES: u64 = 8 + 4 + 16 + 8;
const ROWS_TAIL_BYTES: u64 = 3 * 8 + 4;
const BLOCK_HEAD_BYTES: u64 = 8;
/// A block ends after the row with which it has so many bytes.
const BLOCK_BYTES: usize = 64 * 1024;
const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + VALUE_BYTES_MAX + KEY_BYTES_MAX + 64;
/// After how many bytes what was written is synced.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;
