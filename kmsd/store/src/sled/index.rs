//! The index over the journal, in sled: made from the journal and never trusted further than that.
//!
//! Everything is in one tree, so that one batch of sled moves all of it, together with the marker
//! that says which record was applied last. Each entry carries a checksum over its key and value.
//! sled may fail, panic or hang on a damaged folder, so every call goes through the `guard`.
//!
//! ```text
//! "m"                    -> format[4] || store[16] || sequence[8] || hash[32] || leaves[8] || root[32]
//!                           || names[8]
//! "r" || key             -> the row, as `packed` has it
//! "t" || level || n[8]   -> 256 hashes of a full tile
//! "b" || n[8]            -> segment[8] || offset[8] || leaf[8]: the record with leaf 256*n, and its first leaf
//! "i" || name[32]        -> first leaf[8] || leaves[8] of the batch of that idempotency name
//! "o" || order[8]        -> name[32], to forget the oldest
//! ```
//!
//! An index of another format is made anew.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kms_core::id::Digest;

use super::applier::Update;
use super::folder::sync_folder;
use super::format::{Chain, Fields, StoreId};
use super::guard::{Guard, Pace, within};
use super::imprint;
use super::journal::Location;
use super::packed::{pack, packed_state, unpack};
use crate::batch::{RowChange, RowState};
use crate::caught::Panicked;
use crate::entry::{closed, decode_digest, decode_row, opened};
use crate::log::Tile;
use crate::store::Page;
use crate::{IDEMPOTENCY_MAX, Row, StoreError};

/// Why the index is not used any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexFault {
    #[error("an entry is damaged")]
    Entry,
    #[error("it is of another format")]
    Format,
    #[error("it does not answer")]
    Hangs,
    #[error("an entry is missing")]
    Missing,
    #[error(transparent)]
    Panics(#[from] Panicked),
    #[error("{0}")]
    Sled(#[from] ::sled::Error),
    #[error("no thread can be started for it: {0}")]
    Thread(std::io::Error),
}

/// How far the index has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Marker {
    pub(crate) store: StoreId,
    /// The last record that was applied.
    pub(crate) chain: Chain,
    /// The size and root of the log with it.
    pub(crate) leaves: u64,
    pub(crate) root: Digest,
    /// How many idempotency names there have been.
    pub(crate) names: u64,
}

/// Where a bundle of 256 leaves begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Bundle {
    /// The record that holds its first leaf.
    pub(crate) at: Location,
    /// The first leaf of that record.
    pub(crate) first_leaf: u64,
}

/// The open index.
pub(crate) struct Index {
    /// Empty only while closing and dropping.
    db: Option<::sled::Db>,
    path: PathBuf,
    guard: Guard,
}

impl Index {
    /// Opens the index, or makes an empty one; tells its marker if it has one. Each call may take
    /// `patience` at most.
    ///
    /// # Errors
    /// [`IndexFault`] when sled does not open it within `patience`, whatever the reason. After
    /// [`IndexFault::Hangs`] a thread is left behind, and this process must end.
    pub(crate) fn open(
        path: &Path,
        patience: Duration,
    ) -> Result<(Self, Option<Marker>), IndexFault> {
        let path = path.to_owned();
        within(patience, move || {
            let guard = Guard::new(&path, patience)?;
            let config = ::sled::Config::new().path(&path).flush_every_ms(None);
            let db = config.cache_capacity(CACHE_BYTES).open()?;
            let index = Self { db: Some(db), path, guard };
            let marker = index.marker()?;
            Ok((index, marker))
        })
    }

    pub(crate) fn row(&self, key: &str) -> Result<Option<Row>, IndexFault> {
        let decode = |payload: &[u8]| decode_row(&unpack(key.as_bytes(), payload)?);
        self.entry(&row_key(key), decode).map(Option::flatten)
    }

    /// The digest of a row, also of a deleted one.
    pub(crate) fn row_digest(&self, key: &str) -> Result<Option<Digest>, IndexFault> {
        let decode = |payload: &[u8]| decode_digest(&unpack(key.as_bytes(), payload)?);
        self.entry(&row_key(key), decode)
    }

    /// Keys and digests of up to `limit` rows after `after`, of deleted ones too.
    pub(crate) fn digests_after(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Digest)>, IndexFault> {
        let begin = after.map_or_else(|| row_key(""), |after| [&row_key(after)[..], &[0]].concat());
        self.call(Pace::Quick, |db| {
            let mut digests = Vec::new();
            for entry in db.range(begin..).take(limit) {
                let (key, value) = entry?;
                let Some((&ROW, name)) = key.split_first() else { break };
                let payload = opened(&key, &value).and_then(|packed| unpack(name, packed));
                let digest = payload.and_then(|payload| decode_digest(&payload));
                let name = str::from_utf8(name).map_err(|_| IndexFault::Entry)?;
                digests.push((name.to_owned(), digest.ok_or(IndexFault::Entry)?));
            }
            Ok(digests)
        })
    }

    /// Puts rows under the marker that stands, for an index that is being made.
    pub(crate) fn load(&self, rows: &[RowChange]) -> Result<(), IndexFault> {
        let mut batch = ::sled::Batch::default();
        for row in rows {
            let key = row_key(&row.key);
            let value = closed(&key, &pack(row));
            batch.insert(key, value);
        }
        self.call(Pace::Quick, |db| Ok(db.apply_batch(batch)?))
    }

    pub(crate) fn row_state(&self, key: &str) -> Result<RowState, IndexFault> {
        let state = self.entry(&row_key(key), packed_state)?;
        Ok(state.unwrap_or_default())
    }

    pub(crate) fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, IndexFault> {
        let within = row_key(prefix);
        let begin = match after {
            // A zero byte after the key gives the smallest key that is greater.
            Some(after) if after >= prefix => [&row_key(after)[..], &[0]].concat(),
            _ => within.clone(),
        };
        self.call(Pace::Quick, |db| {
            let mut page = Page::new(limit);
            for entry in db.range(begin..) {
                let (key, value) = entry?;
                if !key.starts_with(&within) {
                    break;
                }
                let name = &key[1..];
                let payload = opened(&key, &value).and_then(|packed| unpack(name, packed));
                let row = payload.and_then(|payload| decode_row(&payload));
                let Some(row) = row.ok_or(IndexFault::Entry)? else { continue };
                let key = str::from_utf8(name).map_err(|_| IndexFault::Entry)?;
                let bytes = key.len() + row.value.len();
                if !page.has_room(bytes) {
                    break;
                }
                page.push((key.to_owned(), row), bytes);
            }
            Ok(page.into_entries())
        })
    }

    /// First leaf and number of leaves of the batch of that name.
    pub(crate) fn named(&self, name: &[u8; 32]) -> Result<Option<(u64, u64)>, IndexFault> {
        self.entry(&tagged(b'i', name), |payload| {
            let payload: &[u8; 16] = payload.try_into().ok()?;
            let mut fields = Fields(payload);
            Some((fields.u64(), fields.u64()))
        })
    }

    pub(crate) fn full_tile(&self, level: u8, n: u64) -> Result<Vec<Digest>, IndexFault> {
        let tile = self.entry(&tile_key(level, n), |payload| {
            let hashes = payload.chunks_exact(32).map(|hash| Digest::try_from(hash).ok());
            hashes.collect::<Option<Vec<_>>>().filter(|hashes| hashes.len() == 256)
        })?;
        tile.ok_or(IndexFault::Missing)
    }

    pub(crate) fn bundle(&self, n: u64) -> Result<Bundle, IndexFault> {
        let bundle = self.entry(&tagged(b'b', &n.to_be_bytes()), |payload| {
            let payload: &[u8; 24] = payload.try_into().ok()?;
            let mut fields = Fields(payload);
            let at = Location { segment: fields.u64(), offset: fields.u64() };
            Some(Bundle { at, first_leaf: fields.u64() })
        })?;
        bundle.ok_or(IndexFault::Missing)
    }

    /// Applies everything that a record changes, at once for every reader.
    pub(crate) fn apply(&self, update: &Update) -> Result<(), IndexFault> {
        let Update { rows, tiles, bundles, names, marker } = update;
        let mut batch = ::sled::Batch::default();
        let mut insert = |key: Vec<u8>, payload: &[u8]| {
            let value = closed(&key, payload);
            batch.insert(key, value);
        };
        for row in rows {
            insert(row_key(&row.key), &pack(row));
        }
        for Tile { level, n, hashes } in tiles {
            let hashes: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
            insert(tile_key(*level, *n), &hashes);
        }
        for (n, Bundle { at: Location { segment, offset }, first_leaf }) in bundles {
            let fields = [segment, offset, first_leaf].map(|field| field.to_be_bytes());
            insert(tagged(b'b', &n.to_be_bytes()), fields.as_flattened());
        }
        let first_order = marker.names - names.len() as u64;
        for ((name, first_leaf, leaves), order) in names.iter().zip(first_order..) {
            insert(tagged(b'o', &order.to_be_bytes()), name);
            let fields = [first_leaf, leaves].map(|field| field.to_be_bytes());
            insert(tagged(b'i', name), fields.as_flattened());
        }
        insert(MARKER_KEY.to_vec(), &encode_marker(marker));
        for order in first_order..marker.names {
            if let Some(oldest) = order.checked_sub(IDEMPOTENCY_MAX) {
                self.forget(oldest, &mut batch)?;
            }
        }
        self.call(Pace::Quick, |db| Ok(db.apply_batch(batch)?))
    }

    fn forget(&self, order: u64, batch: &mut ::sled::Batch) -> Result<(), IndexFault> {
        let key = tagged(b'o', &order.to_be_bytes());
        let name = self.entry(&key, |payload| <[u8; 32]>::try_from(payload).ok())?;
        batch.remove(tagged(b'i', &name.ok_or(IndexFault::Missing)?));
        batch.remove(key);
        Ok(())
    }

    /// Hands everything to the operating system, so that after a kill of the process little is to
    /// be replayed.
    pub(crate) fn flush(&self) -> Result<(), IndexFault> {
        self.call(Pace::Slow, |db| Ok(db.flush().map(drop)?))
    }

    /// Closes the index and brings all of it to the disk: sled's own flush does not.
    pub(crate) fn close(mut self) -> Result<(), StoreError> {
        let flushed = self.flush().and_then(|()| self.let_go());
        flushed.map_err(|fault| unusable(&self.path, &fault))?;
        sync_tree(&self.path)?;
        imprint::write(&self.path)
    }

    /// Does as sled may on damage, to see what comes of it.
    #[cfg(test)]
    pub(crate) fn misbehave(&self, how: impl FnOnce()) -> Result<(), IndexFault> {
        self.call(Pace::Quick, |_| {
            how();
            Ok(())
        })
    }

    /// Drops the database, which writes what it has not written yet.
    fn let_go(&mut self) -> Result<(), IndexFault> {
        let db = self.db.take();
        self.guard.call(Pace::Slow, || {
            drop(db);
            Ok(())
        })
    }

    fn call<T>(
        &self,
        pace: Pace,
        call: impl FnOnce(&::sled::Db) -> Result<T, IndexFault>,
    ) -> Result<T, IndexFault> {
        let db = self.db.as_ref().ok_or(IndexFault::Missing)?;
        self.guard.call(pace, || call(db))
    }

    fn marker(&self) -> Result<Option<Marker>, IndexFault> {
        let marker = self.entry(MARKER_KEY, |payload| {
            // The first format had no number, and a marker of other length.
            let Ok(payload) = <&[u8; MARKER_BYTES]>::try_from(payload) else {
                return Some(None);
            };
            let mut fields = Fields(payload);
            if fields.u32() != INDEX_FORMAT {
                return Some(None);
            }
            Some(Some(Marker {
                store: fields.take(),
                chain: Chain { sequence: fields.u64(), hash: Digest(fields.take()) },
                leaves: fields.u64(),
                root: Digest(fields.take()),
                names: fields.u64(),
            }))
        })?;
        marker.map(|marker| marker.ok_or(IndexFault::Format)).transpose()
    }

    /// Reads one entry with `decode`, which gives `None` for what cannot be.
    fn entry<T>(
        &self,
        key: &[u8],
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, IndexFault> {
        let value = self.call(Pace::Quick, |db| Ok(db.get(key)?))?;
        let Some(value) = value else { return Ok(None) };
        opened(key, &value).and_then(decode).map(Some).ok_or(IndexFault::Entry)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        if let Err(fault) = self.let_go() {
            tracing::warn!(%fault, "the index did not close well");
        }
    }
}

/// The error of an index that cannot be used.
pub(crate) fn unusable(path: &Path, fault: &IndexFault) -> StoreError {
    StoreError::IndexUnusable { path: path.to_owned(), fault: fault.to_string() }
}

/// Syncs the files in a folder and in its folders, and the names in it.
fn sync_tree(path: &Path) -> Result<(), StoreError> {
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(StoreError::io("list", &folder))? {
            let path = entry.map_err(StoreError::io("list", &folder))?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let file = File::open(&path).map_err(StoreError::io("open", &path))?;
                file.sync_all().map_err(StoreError::io("sync", &path))?;
            }
        }
        sync_folder(&folder)?;
    }
    Ok(())
}

fn encode_marker(marker: &Marker) -> Vec<u8> {
    let Marker { store, chain: Chain { sequence, hash }, leaves, root, names } = marker;
    let mut bytes = INDEX_FORMAT.to_be_bytes().to_vec();
    bytes.extend_from_slice(store);
    bytes.extend(sequence.to_be_bytes());
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend(leaves.to_be_bytes());
    bytes.extend_from_slice(root.as_bytes());
    bytes.extend(names.to_be_bytes());
    bytes
}

fn row_key(key: &str) -> Vec<u8> {
    tagged(ROW, key.as_bytes())
}

fn tile_key(level: u8, n: u64) -> Vec<u8> {
    [&[b't', level][..], &n.to_be_bytes()].concat()
}

fn tagged(tag: u8, rest: &[u8]) -> Vec<u8> {
    [&[tag], rest].concat()
}

/// What this build writes and reads: the entries, and the text that rows are packed with.
pub(crate) const INDEX_FORMAT: u32 = 2;
const MARKER_KEY: &[u8] = b"m";
const MARKER_BYTES: usize = 4 + 16 + 8 + 32 + 8 + 32 + 8;
const ROW: u8 = b'r';
/// How much of the index sled holds in memory.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
