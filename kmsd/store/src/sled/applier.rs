//! From a record to what it changes in the index and the log: the same code for a live commit and
//! for replay, so that both come to the same.

use kms_core::audit::merkle;
use kms_core::audit::tile::TILE_WIDTH;
use kms_core::id::Digest;

use super::format::{Applied, Chain, Record, StoreId};
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
        let (mut rows, mut tiles, mut bundles, mut names) = (vec![], vec![], vec![], vec![]);
        let mut placed = Vec::with_capacity(record.batches.len());
        for Applied { rows: changed, leaves, idempotency } in record.batches {
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
            rows.extend(changed);
            placed.push(Placed { first_leaf: batch_first, leaf_hashes });
        }
        let marker = Marker {
            store: self.store,
            chain,
            leaves: self.log.size(),
            root: self.log.frontier().root(),
            names: self.names,
        };
        (Update { rows, tiles, bundles, names, marker }, placed)
    }
}
