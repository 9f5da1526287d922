//! Snapshots: all rows as of the end of a segment, in two files that are never changed.
//!
//! ```text
//! snapshots/N.rows   the rows, deleted ones too, ascending by key
//! snapshots/N.head   what the journal comes to at the end of segment N, and which rows belong to it
//!
//! rows   = "KMSROWS\n" || version[4] || store[16] || number[8] || block* || table
//! block  = length of body[4] || crc32c( store || number || offset[8] || all after )[4] || vouch[32]
//!          || rows[4] || mark[8]* || body
//! body   = row*, about 64 KiB
//! row    = key length[2] || key || revision[8] || 1 || value length[4] || value
//!        | key length[2] || key || revision[8] || 0
//! mark   = the first bytes of SHA-256( key || digest of the row ), for each row
//! table  = ( offset[8] || first key length[2] || first key )* || rows[8] || payload bytes[8]
//!          || offset of the table[8] || vouch[32] || crc32c[4]
//! vouch  = the word of whoever vouches over the marks of a block or what is before it in the table,
//!          with store, number and offset; zeros where nobody does
//! head   = "KMSHEAD\n" || version[4] || store[16] || number[8] || sequence[8] || its hash[32]
//!          || slots[8] || bound[8] || sequence of the rows[8] || number of the rows file[8]
//!          || its length[8] || its SHA-256[32] || whether anybody ever vouched[1] || bucket states
//!          || the word over all before[32], or zeros || SHA-256( all before )
//! ```
//!
//! A head is renamed into place after its rows are on disk, and so a head that is there stands for
//! both. Which rows are meant is the daemon's own word, and not only their checksum: an older file of
//! rows is as good in itself as the one that counts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kms_core::id::Digest;
use rustix::fs::{Advice, fadvise};
use sha2::{Digest as _, Sha256};

use super::folder::{create_whole, open_or_create, read_at, remove_if_present, sync_folder};
use super::format::{Chain, FORMAT_VERSION, Fields, StoreId};
use super::journal::Base;
use crate::batch::RowChange;
use crate::row_set::{Buckets, decode_states, encode_states};
use crate::vouch::Vouching;
use crate::{Damage, KEY_BYTES_MAX, StoreError, VALUE_BYTES_MAX, Voucher};

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
    /// Whether anybody ever vouched for a record.
    pub(crate) is_vouched: bool,
    pub(crate) buckets: Buckets,
    /// The word that was read with it; zeros until then.
    pub(crate) word: [u8; VOUCH_BYTES],
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
    ///
    /// # Errors
    /// [`StoreError::NotVouched`], or what writing comes to.
    pub(crate) fn write(&self, folder: &Path, vouching: &Vouching) -> Result<(), StoreError> {
        let fields = self.fields();
        let word = vouching.vouch(&head_digest(&fields))?;
        self.put(folder, fields, word)
    }

    fn put(
        &self,
        folder: &Path,
        mut bytes: Vec<u8>,
        word: [u8; VOUCH_BYTES],
    ) -> Result<(), StoreError> {
        bytes.extend(word);
        bytes.extend(Sha256::digest(&bytes));
        let path = head_path(folder, self.base.segment);
        create_whole(&path, &bytes, bytes.len() as u64).map(drop)
    }

    /// Everything that is vouched for.
    fn fields(&self) -> Vec<u8> {
        let Self { store, base, slots, bound, rows_sequence, rows, is_vouched, buckets, word: _ } =
            self;
        let mut bytes = HEAD_MAGIC.to_vec();
        bytes.extend(FORMAT_VERSION.to_be_bytes());
        bytes.extend_from_slice(store);
        bytes.extend(base.segment.to_be_bytes());
        base.chain.encode_into(&mut bytes);
        for field in [slots, bound, rows_sequence, &rows.number, &rows.bytes] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.extend_from_slice(rows.digest.as_bytes());
        bytes.push(u8::from(*is_vouched));
        bytes.extend(encode_states(buckets.filled()));
        bytes
    }

    /// Whether `voucher` has vouched for it.
    pub(crate) fn has_word_of(&self, voucher: &dyn Voucher) -> bool {
        voucher.is_vouched(&head_digest(&self.fields()), &self.word)
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
        let (fields, word) = fields.split_last_chunk::<VOUCH_BYTES>().ok_or_else(bad)?;
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
        let [is_vouched] = fields.take();
        if base.segment != number || base.segment == 0 {
            return Err(damaged(Damage::SegmentOrder));
        }
        let mut buckets = Buckets::default();
        let states = decode_states(states).ok_or_else(bad)?;
        states.for_each(|(bucket, state)| buckets.set(bucket, state));
        let is_vouched = is_vouched != 0;
        let word = *word;
        Ok(Self { store, base, slots, bound, rows_sequence, rows, is_vouched, buckets, word })
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
    marks: Vec<u8>,
    table: Vec<u8>,
    rows: u64,
    payload_bytes: u64,
    unsynced: u64,
    vouching: Arc<Vouching>,
}

impl RowsWriter {
    pub(crate) fn create(
        folder: &Path,
        store: StoreId,
        number: u64,
        vouching: Arc<Vouching>,
    ) -> Result<Self, StoreError> {
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
            marks: Vec::new(),
            table: Vec::new(),
            rows: 0,
            payload_bytes: 0,
            unsynced: 0,
            vouching,
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
        self.marks.extend(mark_of(row));
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
        let vouched = vouched_digest(&self.store, self.number, self.offset, &table);
        table.extend(self.vouching.vouch(&vouched)?);
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
        let marks = core::mem::take(&mut self.marks);
        let vouched = vouched_digest(&self.store, self.number, self.offset, &marks);
        let mut rest = self.vouching.vouch(&vouched)?.to_vec();
        rest.extend(((marks.len() / MARK_BYTES) as u32).to_be_bytes());
        rest.extend(marks);
        let crc = block_crc(&self.store, self.number, self.offset, &rest);
        let mut head = (body.len() as u32).to_be_bytes().to_vec();
        head.extend(crc32c::crc32c_append(crc, &body).to_be_bytes());
        self.write(&head)?;
        self.write(&rest)?;
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
    /// What the table says, as it is vouched for, and the word for it.
    table: (Digest, [u8; VOUCH_BYTES]),
    /// Whom to ask about the blocks.
    vouching: Option<Arc<Vouching>>,
}

/// A block as it was read.
struct Block {
    rows: Vec<RowChange>,
    marks: Vec<[u8; MARK_BYTES]>,
    /// What is vouched for, and the word for it.
    vouch: (Digest, [u8; VOUCH_BYTES]),
    next: u64,
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
        let (vouched, vouch) = entries.split_last_chunk().ok_or_else(|| bad(end))?;
        let number = rows.number;
        let table = (vouched_digest(&store, number, end, vouched), *vouch);
        let entries = &vouched[..vouched.len() - 3 * 8];
        let blocks = decode_blocks(entries).ok_or_else(|| bad(end))?;
        Ok(Self { file, path, store, number, blocks, end, rows: count, table, vouching: None })
    }

    /// A reader that gives no row of a block which nobody vouches for, while there is somebody to ask.
    pub(crate) fn asking(self, vouching: &Arc<Vouching>) -> Self {
        Self { vouching: Some(vouching.clone()), ..self }
    }

    /// What is not as `voucher` vouched for it: for people, and up to a bound. Without a voucher the
    /// rows are held against their marks alone.
    ///
    /// # Errors
    /// [`StoreError::SnapshotDamaged`].
    pub(crate) fn untrue(
        &self,
        voucher: Option<&dyn Voucher>,
        max: usize,
    ) -> Result<Vec<String>, StoreError> {
        let is_vouched = |(digest, vouch): &(Digest, [u8; VOUCH_BYTES])| {
            voucher.is_none_or(|voucher| voucher.is_vouched(digest, vouch))
        };
        let (mut told, mut at) = (Vec::new(), HEADER_BYTES);
        while at < self.end && told.len() < max {
            let block = self.read_block(at)?;
            told.extend(block.misfits());
            if !is_vouched(&block.vouch)
                && let (Some(first), Some(last)) = (block.rows.first(), block.rows.last())
            {
                told.push(format!("one or more of the rows from {} to {}", first.key, last.key));
            }
            at = block.next;
        }
        if told.is_empty() && !is_vouched(&self.table) {
            told.push("the table of the rows was changed".to_owned());
        }
        told.truncate(max);
        Ok(told)
    }

    /// Whether the table, and with it which blocks there are, is as `voucher` vouched for it.
    pub(crate) fn table_is_vouched(&self, voucher: &dyn Voucher) -> bool {
        voucher.is_vouched(&self.table.0, &self.table.1)
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
        let block = self.read_block(offset)?;
        if let Some(voucher) = self.vouching.as_ref().and_then(|vouching| vouching.voucher()) {
            let (digest, vouch) = &block.vouch;
            let misfits = block.misfits();
            if !misfits.is_empty() || !voucher.is_vouched(digest, vouch) {
                tracing::error!(rows = ?misfits, "nobody vouches for a block of the snapshot");
                return Err(snapshot_damaged(&self.path, offset, Damage::RowSet));
            }
        }
        Ok((block.rows, block.next))
    }

    fn read_block(&self, offset: u64) -> Result<Block, StoreError> {
        let bad = || snapshot_damaged(&self.path, offset, Damage::Record);
        let room = self.end.checked_sub(offset + BLOCK_HEAD_BYTES).ok_or_else(bad)?;
        let mut head = [0; BLOCK_HEAD_BYTES as usize];
        read_at(&self.file, &self.path, &mut head, offset)?;
        let mut fields = Fields(&head);
        let (length, crc) = (u64::from(fields.u32()), fields.u32());
        let (vouch, count) = (fields.take(), u64::from(fields.u32()));
        if length > BLOCK_BYTES_MAX as u64 || count * ROW_BYTES_MIN as u64 > length {
            return Err(bad());
        }
        let marks_bytes = count as usize * MARK_BYTES;
        let rest_bytes = marks_bytes as u64 + length;
        if rest_bytes > room {
            return Err(bad());
        }
        let mut rest = vec![0; rest_bytes as usize];
        read_at(&self.file, &self.path, &mut rest, offset + BLOCK_HEAD_BYTES)?;
        let found = block_crc(&self.store, self.number, offset, &head[8..]);
        if crc32c::crc32c_append(found, &rest) != crc {
            return Err(bad());
        }
        let (marks, body) = rest.split_at(marks_bytes);
        let vouched = vouched_digest(&self.store, self.number, offset, marks);
        Ok(Block {
            rows: decode_rows(body).ok_or_else(bad)?,
            marks: marks.as_chunks().0.to_vec(),
            vouch: (vouched, vouch),
            next: offset + BLOCK_HEAD_BYTES + rest_bytes,
        })
    }
}

impl Block {
    /// The rows that are not those which were marked, for people.
    fn misfits(&self) -> Vec<String> {
        let (mut told, mut expected) = (Vec::new(), self.marks.as_slice());
        let mut before: Option<&str> = None;
        for row in &self.rows {
            let key = row.key.as_str();
            match expected.iter().position(|mark| *mark == mark_of(row)) {
                Some(missing) => {
                    // One that was replaced has been told of; one that is gone has not.
                    if missing > 0 && before.is_none_or(|before| !told_of(&told, before)) {
                        told.push(missing_after(before, missing));
                    }
                    expected = &expected[missing + 1..];
                }
                None => told.push(format!("{key} is another row than was written there")),
            }
            before = Some(key);
        }
        if !expected.is_empty() && before.is_none_or(|before| !told_of(&told, before)) {
            told.push(missing_after(before, expected.len()));
        }
        told
    }
}

fn told_of(told: &[String], key: &str) -> bool {
    told.last().is_some_and(|last| last.strip_prefix(key).is_some_and(|rest| rest.starts_with(' ')))
}

fn missing_after(before: Option<&str>, count: usize) -> String {
    match before {
        Some(before) => format!("{count} missing after {before}"),
        None => format!("{count} missing at the beginning of a block"),
    }
}

/// What tells a row from every other one, among those of its block.
fn mark_of(row: &RowChange) -> [u8; MARK_BYTES] {
    let digest = Digest::of(&[row.key.as_bytes(), row.digest().as_bytes()]);
    core::array::from_fn(|at| digest.as_bytes()[at])
}

fn head_digest(fields: &[u8]) -> Digest {
    Digest::of(&[b"kms-store-head", fields])
}

fn vouched_digest(store: &StoreId, number: u64, offset: u64, what: &[u8]) -> Digest {
    let (number, offset) = (number.to_be_bytes(), offset.to_be_bytes());
    Digest::of(&[b"kms-store-snapshot", store, &number, &offset, what])
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
const HEAD_BYTES: usize = 8 + 4 + 16 + 8 + 40 + 5 * 8 + 32 + 1;
/// Fields of a file of rows before the first block.
const HEADER_BYTES: u64 = 8 + 4 + 16 + 8;
const ROWS_TAIL_BYTES: u64 = 3 * 8 + VOUCH_BYTES as u64 + 4;
const BLOCK_HEAD_BYTES: u64 = 4 + 4 + VOUCH_BYTES as u64 + 4;
const VOUCH_BYTES: usize = 32;
const MARK_BYTES: usize = 8;
/// A block ends after the row with which it has so many bytes.
const BLOCK_BYTES: usize = 64 * 1024;
const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + VALUE_BYTES_MAX + KEY_BYTES_MAX + 64;
/// A row takes up more than so many bytes.
const ROW_BYTES_MIN: usize = 2 + 8;
/// After how many bytes what was written is synced.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// What somebody at the disk does who keeps what he cannot make.
#[cfg(test)]
mod forging {
    use super::*;

    /// The words and marks of a file with one block.
    pub(crate) struct Parts {
        marks: Vec<u8>,
        block: [u8; VOUCH_BYTES],
        table: [u8; VOUCH_BYTES],
    }

    impl Head {
        /// Puts the head into its place with the word that it has, whatever it says now.
        pub(crate) fn write_under_its_word(&self, folder: &Path) {
            self.put(folder, self.fields(), self.word).unwrap();
        }
    }

    impl RowsReader {
        pub(crate) fn parts_of_one_block(&self) -> Parts {
            let block = self.read_block(HEADER_BYTES).unwrap();
            assert_eq!(block.next, self.end);
            Parts { marks: block.marks.concat(), block: block.vouch.1, table: self.table.1 }
        }

        /// The bytes of the file with the last byte of the last row changed, and its checksum right.
        pub(crate) fn with_last_row_changed(&self, mut bytes: Vec<u8>) -> Vec<u8> {
            let at = *self.blocks.last_key_value().unwrap().1 as usize;
            let end = self.end as usize;
            bytes[end - 1] ^= 1;
            let crc = block_crc(&self.store, self.number, at as u64, &bytes[at + 8..end]);
            bytes[at + 4..at + 8].copy_from_slice(&crc.to_be_bytes());
            bytes
        }
    }

    impl RowsWriter {
        /// Has the one block and the table carry these, whatever the rows are now.
        pub(crate) fn parrot(&mut self, parts: Parts) {
            struct Parrot([u8; VOUCH_BYTES], [u8; VOUCH_BYTES], std::sync::atomic::AtomicBool);
            impl Voucher for Parrot {
                fn vouch(&self, _: &Digest) -> [u8; VOUCH_BYTES] {
                    match self.2.swap(true, std::sync::atomic::Ordering::Relaxed) {
                        false => self.0,
                        true => self.1,
                    }
                }

                fn is_vouched(&self, _: &Digest, _: &[u8; VOUCH_BYTES]) -> bool {
                    false
                }
            }
            let Parts { marks, block, table } = parts;
            self.marks = marks;
            self.vouching.set(Some(Arc::new(Parrot(block, table, false.into()))));
        }
    }
}
