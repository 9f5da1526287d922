//! From a record to what it changes in the index and the log: the same code for a live commit and
//! for replay, so that both come to the same.
//!
//! A record that holds nothing but leaves is not brought to the index: its hash is in the log that
//! is held in memory, and a full tile that it completes waits in [`Pending`] for the next record
//! that changes a row. So the index lags behind by leaves alone, and a replay makes that good.

use std::collections::BTreeMap;

use kms_core::audit::merkle;
use kms_core::audit::tile::TILE_WIDTH;
use kms_core::id::Digest;

use super::format::{Applied, Chain, LogPart, Record, RowPart, StoreId};
use super::index::{Bundle, Marker};
use super::journal::Location;
use crate::batch::RowChange;
use crate::log::{Log, Tile};

/// What one record changes in the index.
pub(crate) struct Update {
    pub(crate) rows: Vec<RowChange>,
    pub(crate) tiles: Vec<Tile>,
    pub(crate) bundles: Vec<(u64, Bundle)>,
    /// Idempotency name, first leaf, number of leaves.
    pub(crate) names: Vec<([u8; 32], u64, u64)>,
    pub(crate) marker: Marker,
}

impl Update {
    /// Whether readers would miss something if the index did not take this in at once.
    pub(crate) const fn is_needed_now(&self) -> bool {
        !self.rows.is_empty() || !self.names.is_empty()
    }
}

/// Tiles and bundles that the index does not have yet.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) tiles: BTreeMap<(u8, u64), Vec<Digest>>,
    pub(crate) bundles: BTreeMap<u64, Bundle>,
}

impl Pending {
    /// Takes over what the update brings besides rows and names.
    pub(crate) fn take(&mut self, update: &mut Update) {
        let tiles = update.tiles.drain(..);
        self.tiles.extend(tiles.map(|Tile { level, n, hashes }| ((level, n), hashes)));
        self.bundles.extend(update.bundles.drain(..));
    }

    /// What the index is to be told, under the marker of the latest record.
    pub(crate) fn update(&self, marker: Marker) -> Update {
        let tiles = self.tiles.iter();
        let tile = |(&(level, n), hashes): (_, &Vec<_>)| Tile { level, n, hashes: hashes.clone() };
        let tiles = tiles.map(tile).collect();
        let bundles = self.bundles.iter().map(|(n, bundle)| (*n, *bundle)).collect();
        Update { rows: Vec::new(), tiles, bundles, names: Vec::new(), marker }
    }

    /// Whether it is time to tell the index, though no row has changed.
    pub(crate) fn is_full(&self) -> bool {
        self.tiles.len() >= PENDING_TILES_MAX
    }

    pub(crate) fn clear(&mut self) {
        self.tiles.clear();
        self.bundles.clear();
    }
}

/// Where the leaves of one batch stand.
pub(crate) struct Placed {
    pub(crate) first_leaf: u64,
    pub(crate) leaf_hashes: Vec<Digest>,
}

/// The state that grows from record to record.
pub(crate) struct Applier {
    pub(crate) store: StoreId,
    pub(crate) log: Log,
    pub(crate) names: u64,
}

impl Applier {
    /// Takes in the next record, which stands at `at`.
    pub(crate) fn take(
        &mut self,
        record: Record,
        chain: Chain,
        at: Location,
    ) -> (Update, Vec<Placed>) {
        let first_leaf = self.log.size();
        let (mut tiles, mut bundles, mut names) = (vec![], vec![], vec![]);
        let Record { rows: RowPart { rows, buckets: _ }, log, rows_are_gone: _ } = record;
        let LogPart { batches, slots: _, bound: _, vouch: _ } = log;
        let mut placed = Vec::with_capacity(batches.len());
        for Applied { leaves, idempotency } in batches {
            let batch_first = self.log.size();
            let mut leaf_hashes = Vec::with_capacity(leaves.len());
            for leaf in leaves {
                if self.log.size().is_multiple_of(TILE_WIDTH) {
                    bundles.push((self.log.size() / TILE_WIDTH, Bundle { at, first_leaf }));
                }
                let hash = merkle::leaf_hash(&leaf);
                self.log.append(hash, &mut tiles);
                leaf_hashes.push(hash);
            }
            if let Ok(name) = <[u8; 32]>::try_from(idempotency) {
                names.push((name, batch_first, leaf_hashes.len() as u64));
                self.names += 1;
            }
            placed.push(Placed { first_leaf: batch_first, leaf_hashes });
        }
        let marker = self.marker(chain);
        (Update { rows, tiles, bundles, names, marker }, placed)
    }

    /// How far the index is when it has everything up to `chain`.
    pub(crate) fn marker(&self, chain: Chain) -> Marker {
        Marker {
            store: self.store,
            chain,
            leaves: self.log.size(),
            root: self.log.frontier().root(),
            names: self.names,
        }
    }
}

/// How many full tiles may wait in memory, 8 KiB each.
const PENDING_TILES_MAX: usize = 64;
