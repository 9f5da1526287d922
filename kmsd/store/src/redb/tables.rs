//! What stands in the database, and reading it.
//!
//! ```text
//! rows    key   -> revision[8] || 1 || value, or revision[8] || 0 for a deleted row
//! leaves  index -> leaf
//! tiles   level, n -> 256 hashes of a full tile
//! names   name[32] -> first leaf[8] || leaves[8] of the batch of that idempotency name
//! order   n     -> name[32], to forget the oldest
//! buckets n     -> state[32] of a bucket of the row set
//! roots   n     -> root[32] of the row set after the n-th write transaction
//! meta    ""    -> store[16] || commits[8] || leaves[8] || root[32] || slots[8] || names[8]
//! ```
//!
//! Each value has a checksum over itself, its key and the tag of its table before it: the database
//! verifies its pages when it opens, not when it reads them.

use ::redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};
use kms_core::audit::CommitReceipt;
use kms_core::audit::merkle;
use kms_core::audit::tile::TILE_WIDTH;
use kms_core::id::Digest;

use super::Fault;
use crate::batch::{RowChange, RowState};
use crate::entry::{closed, decode_digest, decode_row, decode_state, encode_row, opened};
use crate::log::{Log, Tile, Tiles};
use crate::row_set::{Buckets, State};
use crate::sled::format::{Fields, StoreId};
use crate::store::Page;
use crate::{IDEMPOTENCY_MAX, Row, RowSet, StoreError};

/// Where the database stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Meta {
    pub(crate) store: StoreId,
    /// How many write transactions there have been.
    pub(crate) commits: u64,
    /// The size and root of the log.
    pub(crate) leaves: u64,
    pub(crate) root: Digest,
    /// How many slots had been given out; a table with fewer is not the one that rows point into.
    pub(crate) slots: u64,
    /// How many idempotency names there have been.
    pub(crate) names: u64,
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { store, commits, leaves, root, slots, names } = self;
        let mut bytes = store.to_vec();
        bytes.extend(commits.to_be_bytes());
        bytes.extend(leaves.to_be_bytes());
        bytes.extend_from_slice(root.as_bytes());
        bytes.extend(slots.to_be_bytes());
        bytes.extend(names.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let payload: &[u8; META_BYTES] = payload.try_into().ok()?;
        let mut fields = Fields(payload);
        Some(Self {
            store: fields.take(),
            commits: fields.u64(),
            leaves: fields.u64(),
            root: Digest(fields.take()),
            slots: fields.u64(),
            names: fields.u64(),
        })
    }
}

/// All tables of one write transaction.
pub(crate) struct Writing<'a> {
    rows: Table<'a, &'static str, &'static [u8]>,
    leaves: Table<'a, u64, &'static [u8]>,
    tiles: Table<'a, (u8, u64), &'static [u8]>,
    names: Table<'a, &'static [u8; 32], &'static [u8]>,
    order: Table<'a, u64, &'static [u8]>,
    meta: Table<'a, &'static str, &'static [u8]>,
    buckets: Table<'a, u16, &'static [u8]>,
    roots: Table<'a, u64, &'static [u8]>,
}

impl<'a> Writing<'a> {
    pub(crate) fn begin(transaction: &'a WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            rows: transaction.open_table(ROWS)?,
            leaves: transaction.open_table(LEAVES)?,
            tiles: transaction.open_table(TILES)?,
            names: transaction.open_table(NAMES)?,
            order: transaction.open_table(ORDER)?,
            meta: transaction.open_table(META)?,
            buckets: transaction.open_table(BUCKETS)?,
            roots: transaction.open_table(ROOTS)?,
        })
    }

    pub(crate) fn row_state(&self, key: &str) -> Result<RowState, Fault> {
        let Some(value) = self.rows.get(key)? else { return Ok(RowState::default()) };
        entry(&row_tag(key), value.value(), decode_state)
    }

    /// The digest of a row, also of a deleted one.
    pub(crate) fn row_digest(&self, key: &str) -> Result<Option<Digest>, Fault> {
        let Some(value) = self.rows.get(key)? else { return Ok(None) };
        entry(&row_tag(key), value.value(), decode_digest).map(Some)
    }

    pub(crate) fn put_bucket(&mut self, bucket: u16, state: &State) -> Result<(), Fault> {
        let tag = number_tag(b'k', bucket.into());
        self.buckets.insert(bucket, &*closed(&tag, state))?;
        Ok(())
    }

    /// Remembers the root of the row set after this transaction and forgets the oldest.
    pub(crate) fn put_root(&mut self, sequence: u64, root: &Digest) -> Result<(), Fault> {
        let value = closed(&number_tag(b'h', sequence), root.as_bytes());
        self.roots.insert(sequence, &*value)?;
        while self.roots.len()? > ROOTS_MAX {
            self.roots.pop_first()?;
        }
        Ok(())
    }

    /// What came of the batch of that name, also of one that this transaction holds.
    pub(crate) fn receipt(&self, name: &[u8; 32]) -> Result<Option<CommitReceipt>, Fault> {
        receipt(&self.names, &self.leaves, name)
    }

    pub(crate) fn put_row(&mut self, row: &RowChange) -> Result<(), Fault> {
        let value = closed(&row_tag(&row.key), &encode_row(row));
        self.rows.insert(&*row.key, &*value)?;
        Ok(())
    }

    pub(crate) fn put_leaf(&mut self, index: u64, leaf: &[u8]) -> Result<(), Fault> {
        self.leaves.insert(index, &*closed(&number_tag(b'l', index), leaf))?;
        Ok(())
    }

    pub(crate) fn put_tile(&mut self, tile: &Tile) -> Result<(), Fault> {
        let Tile { level, n, hashes } = tile;
        let hashes: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
        self.tiles.insert((*level, *n), &*closed(&tile_tag(*level, *n), &hashes))?;
        Ok(())
    }

    /// Remembers the `order`-th name and forgets the oldest, beyond so many.
    pub(crate) fn put_name(
        &mut self,
        order: u64,
        name: &[u8; 32],
        first_leaf: u64,
        leaves: u64,
    ) -> Result<(), Fault> {
        let fields = [first_leaf, leaves].map(u64::to_be_bytes);
        self.names.insert(name, &*closed(&name_tag(name), fields.as_flattened()))?;
        self.order.insert(order, &*closed(&number_tag(b'o', order), name))?;
        let Some(oldest) = order.checked_sub(IDEMPOTENCY_MAX) else { return Ok(()) };
        let Some(forgotten) = self.order.remove(oldest)? else { return Err(Fault::Entry) };
        let decode = |payload: &[u8]| <[u8; 32]>::try_from(payload).ok();
        let name = entry(&number_tag(b'o', oldest), forgotten.value(), decode)?;
        self.names.remove(&name)?;
        Ok(())
    }

    pub(crate) fn put_meta(&mut self, meta: &Meta) -> Result<(), Fault> {
        self.meta.insert("", &*closed(b"m", &meta.encode()))?;
        Ok(())
    }
}

/// One read transaction: everything in it is of the same moment.
pub(crate) struct Reading(pub(crate) ReadTransaction);

impl Reading {
    /// Where the database stands.
    pub(crate) fn meta(&self) -> Result<Meta, Fault> {
        let table = self.0.open_table(META)?;
        let value = table.get("")?.ok_or(Fault::Entry)?;
        entry(b"m", value.value(), Meta::decode)
    }

    pub(crate) fn row(&self, key: &str) -> Result<Option<Row>, Fault> {
        let table = self.0.open_table(ROWS)?;
        let Some(value) = table.get(key)? else { return Ok(None) };
        entry(&row_tag(key), value.value(), decode_row)
    }

    /// The buckets of the row set.
    pub(crate) fn buckets(&self) -> Result<Buckets, Fault> {
        let mut buckets = Buckets::default();
        for found in self.0.open_table(BUCKETS)?.iter()? {
            let (bucket, value) = found?;
            let tag = number_tag(b'k', bucket.value().into());
            let state = entry(&tag, value.value(), |payload| State::try_from(payload).ok())?;
            buckets.set(bucket.value(), state);
        }
        Ok(buckets)
    }

    /// The row set as of the transaction `sequence`; `None` when it is not known any more.
    pub(crate) fn row_set_at(&self, sequence: u64) -> Result<Option<RowSet>, Fault> {
        let table = self.0.open_table(ROOTS)?;
        let Some(found) = table.range(..=sequence)?.next_back() else {
            let empty = || RowSet { root: Buckets::default().root(), sequence: 0 };
            return Ok((table.len()? < ROOTS_MAX).then(empty));
        };
        let (sequence, value) = found?;
        let tag = number_tag(b'h', sequence.value());
        let root = entry(&tag, value.value(), |payload| Digest::try_from(payload).ok())?;
        Ok(Some(RowSet { root, sequence: sequence.value() }))
    }

    pub(crate) fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Fault> {
        use std::ops::Bound;
        let begin = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut page = Page::new(limit);
        let table = self.0.open_table(ROWS)?;
        for found in table.range::<&str>((begin, Bound::Unbounded))? {
            let (key, value) = found?;
            let key = key.value();
            if !key.starts_with(prefix) {
                break;
            }
            let Some(row) = entry(&row_tag(key), value.value(), decode_row)? else { continue };
            let bytes = key.len() + row.value.len();
            if !page.has_room(bytes) {
                break;
            }
            page.push((key.to_owned(), row), bytes);
        }
        Ok(page.into_entries())
    }

    /// A page of the leaves from `begin` up to, not including, `end`.
    pub(crate) fn leaves(&self, begin: u64, end: u64, limit: usize) -> Result<Vec<Vec<u8>>, Fault> {
        let mut page = Page::new(limit);
        let table = self.0.open_table(LEAVES)?;
        for (found, expected) in table.range(begin..end)?.zip(begin..) {
            let (index, value) = found?;
            if index.value() != expected {
                return Err(Fault::Entry);
            }
            let leaf = leaf_of(expected, value.value())?;
            if !page.has_room(leaf.len()) {
                break;
            }
            let bytes = leaf.len();
            page.push(leaf, bytes);
        }
        let page = page.into_entries();
        if page.is_empty() && begin < end { Err(Fault::Entry) } else { Ok(page) }
    }

    pub(crate) fn receipt(&self, name: &[u8; 32]) -> Result<Option<CommitReceipt>, Fault> {
        let (names, leaves) = (self.0.open_table(NAMES)?, self.0.open_table(LEAVES)?);
        receipt(&names, &leaves, name)
    }

    /// The log, held against what [`Meta`] says of it.
    pub(crate) fn log(&self, meta: &Meta) -> Result<Log, Fault> {
        let leaves = self.0.open_table(LEAVES)?;
        if leaves.len()? != meta.leaves {
            return Err(Fault::Entry);
        }
        let partial = meta.leaves - meta.leaves % TILE_WIDTH..meta.leaves;
        let hashes = partial.map(|index| leaf_hash(&leaves, index)).collect::<Result<_, _>>()?;
        let log = Log::load(meta.leaves, hashes, self).map_err(|_| Fault::Entry)?;
        if log.frontier().root() == meta.root { Ok(log) } else { Err(Fault::Entry) }
    }

    pub(crate) fn tile(&self, level: u8, n: u64) -> Result<Vec<Digest>, Fault> {
        let table: ReadOnlyTable<(u8, u64), &[u8]> = self.0.open_table(TILES)?;
        let value = table.get((level, n))?.ok_or(Fault::Entry)?;
        entry(&tile_tag(level, n), value.value(), |payload| {
            let hashes = payload.chunks_exact(32).map(|hash| Digest::try_from(hash).ok());
            hashes.collect::<Option<Vec<_>>>().filter(|hashes| hashes.len() == 256)
        })
    }
}

impl Tiles for Reading {
    fn full_tile(&self, level: u8, n: u64) -> Result<Vec<Digest>, StoreError> {
        self.tile(level, n).map_err(|_| StoreError::Poisoned)
    }
}

type Bytes = &'static [u8];

fn receipt(
    names: &impl ReadableTable<&'static [u8; 32], Bytes>,
    leaves: &impl ReadableTable<u64, Bytes>,
    name: &[u8; 32],
) -> Result<Option<CommitReceipt>, Fault> {
    let Some(value) = names.get(name)? else { return Ok(None) };
    let (first, count) = entry(&name_tag(name), value.value(), |payload| {
        let payload: &[u8; 16] = payload.try_into().ok()?;
        let mut fields = Fields(payload);
        Some((fields.u64(), fields.u64()))
    })?;
    let hashes = (first..first + count).map(|index| leaf_hash(leaves, index));
    Ok(Some(CommitReceipt::durable(first, hashes.collect::<Result<_, _>>()?)))
}

fn leaf_hash(leaves: &impl ReadableTable<u64, Bytes>, index: u64) -> Result<Digest, Fault> {
    let value = leaves.get(index)?.ok_or(Fault::Entry)?;
    Ok(merkle::leaf_hash(&leaf_of(index, value.value())?))
}

fn leaf_of(index: u64, value: &[u8]) -> Result<Vec<u8>, Fault> {
    entry(&number_tag(b'l', index), value, |payload| Some(payload.to_vec()))
}

/// Reads a value with `decode`, which gives `None` for what cannot be.
fn entry<T>(tag: &[u8], value: &[u8], decode: impl FnOnce(&[u8]) -> Option<T>) -> Result<T, Fault> {
    opened(tag, value).and_then(decode).ok_or(Fault::Entry)
}

fn row_tag(key: &str) -> Vec<u8> {
    [b"r", key.as_bytes()].concat()
}

fn name_tag(name: &[u8; 32]) -> Vec<u8> {
    [&b"i"[..], name].concat()
}

fn number_tag(tag: u8, number: u64) -> Vec<u8> {
    [&[tag][..], &number.to_be_bytes()].concat()
}

fn tile_tag(level: u8, n: u64) -> Vec<u8> {
    [&[b't', level][..], &n.to_be_bytes()].concat()
}

const ROWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("rows");
const LEAVES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("leaves");
const TILES: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("tiles");
const NAMES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("names");
const ORDER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("order");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const BUCKETS: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("buckets");
const ROOTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("roots");
const META_BYTES: usize = 80;
/// How many roots of the row set are remembered.
const ROOTS_MAX: u64 = 100_000;
