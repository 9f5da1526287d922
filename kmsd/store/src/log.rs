//! The audit log as a tree: what of it is held in memory, and proofs out of it.
//!
//! Only the tiles that are not full yet are in memory, at most 255 hashes for each of seven
//! levels. Full tiles never change; a backend keeps them wherever it likes and hands them out as
//! [`Tiles`].

use kms_core::audit::merkle::{self, Frontier, Nodes};
use kms_core::audit::tile::{self, TILE_WIDTH};
use kms_core::id::Digest;

use crate::StoreError;

/// A full tile: 256 hashes of level `8 * level`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Tile {
    pub(crate) level: u8,
    pub(crate) n: u64,
    pub(crate) hashes: Vec<Digest>,
}

/// Keeps the full tiles.
pub(crate) trait Tiles {
    fn full_tile(&self, level: u8, n: u64) -> Result<Vec<Digest>, StoreError>;
}

/// The growing edge of the log.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Log {
    frontier: Frontier,
    /// The hashes of the tile of each level that is not full, beginning with level 0.
    partial: [Vec<Digest>; LEVELS as usize],
}

impl Log {
    /// Takes the log up again: the hashes of the leaves after the last full tile, and the full
    /// tiles before them.
    pub(crate) fn load(
        size: u64,
        last_leaf_hashes: Vec<Digest>,
        tiles: &impl Tiles,
    ) -> Result<Self, StoreError> {
        let mut log = Self::default();
        log.partial[0] = last_leaf_hashes;
        for level in 1..LEVELS {
            let entries = size >> (8 * u32::from(level));
            for entry in entries - entries % TILE_WIDTH..entries {
                let root = root_of(&tiles.full_tile(level - 1, entry)?);
                log.partial[usize::from(level)].push(root);
            }
        }
        let frontier = Frontier::of(size, &mut Tree { log: &log, size, tiles, cached: None })?;
        Ok(Self { frontier, ..log })
    }

    pub(crate) const fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub(crate) const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Appends one leaf and hands over the tiles that it fills.
    pub(crate) fn append(&mut self, leaf_hash: Digest, full: &mut Vec<Tile>) {
        self.frontier.append(leaf_hash);
        let mut entry = leaf_hash;
        for level in 0..LEVELS {
            let at = usize::from(level);
            self.partial[at].push(entry);
            if (self.partial[at].len() as u64) < TILE_WIDTH {
                return;
            }
            let hashes = core::mem::take(&mut self.partial[at]);
            entry = root_of(&hashes);
            let n = (self.size() >> (8 * (u32::from(level) + 1))) - 1;
            full.push(Tile { level, n, hashes });
        }
    }

    /// The audit path of leaf `index` in the tree of the first `size` leaves.
    pub(crate) fn inclusion_proof(
        &self,
        index: u64,
        size: u64,
        tiles: &impl Tiles,
    ) -> Result<Vec<Digest>, StoreError> {
        if size > self.size() {
            return Err(StoreError::LogRange { asked: size, size: self.size() });
        }
        if index >= size {
            return Err(StoreError::LogRange { asked: index, size });
        }
        merkle::inclusion_proof(
            index,
            size,
            &mut Tree { log: self, size: self.size(), tiles, cached: None },
        )
    }

    /// The first `width` hashes of a tile, as they stand in an exported file.
    pub(crate) fn hash_tile(
        &self,
        level: u8,
        n: u64,
        width: u64,
        tiles: &impl Tiles,
    ) -> Result<Vec<u8>, StoreError> {
        let known = level < LEVELS && width > 0 && width <= tile::width(level, n, self.size());
        if !known {
            return Err(StoreError::LogRange { asked: n, size: self.size() });
        }
        let hashes = self.tile(level, n, self.size(), tiles)?;
        let width = usize::try_from(width).expect("a tile is at most 256 wide");
        Ok(hashes[..width].iter().flat_map(|hash| *hash.as_bytes()).collect())
    }

    /// The hashes of `count` leaves from `first` on.
    pub(crate) fn leaf_hashes(
        &self,
        first: u64,
        count: u64,
        tiles: &impl Tiles,
    ) -> Result<Vec<Digest>, StoreError> {
        let mut tree = Tree { log: self, size: self.size(), tiles, cached: None };
        (first..first + count).map(|index| tree.node(0, index)).collect()
    }

    fn tile(
        &self,
        level: u8,
        n: u64,
        size: u64,
        tiles: &impl Tiles,
    ) -> Result<Vec<Digest>, StoreError> {
        let partial = self.partial.get(usize::from(level));
        match partial {
            Some(hashes) if n == size >> (8 * (u32::from(level) + 1)) => Ok(hashes.clone()),
            _ => tiles.full_tile(level, n),
        }
    }
}

/// The log as a source of subtree hashes. It holds the last tile it read, since a proof asks for
/// neighbours.
struct Tree<'a, T> {
    log: &'a Log,
    size: u64,
    tiles: &'a T,
    cached: Option<Tile>,
}

impl<T: Tiles> Nodes for Tree<'_, T> {
    type Error = StoreError;

    fn node(&mut self, level: u8, index: u64) -> Result<Digest, StoreError> {
        let outside = StoreError::LogRange { asked: index, size: self.size };
        let (tile_level, height) = (level / 8, level % 8);
        if tile_level >= LEVELS {
            return Err(outside);
        }
        let entry = index << height;
        let n = entry / TILE_WIDTH;
        let hit = self.cached.as_ref().is_some_and(|tile| (tile.level, tile.n) == (tile_level, n));
        if !hit {
            let hashes = self.log.tile(tile_level, n, self.size, self.tiles)?;
            self.cached = Some(Tile { level: tile_level, n, hashes });
        }
        let hashes = self.cached.as_ref().map_or(&[][..], |tile| &tile.hashes);
        let begin = usize::try_from(entry % TILE_WIDTH).expect("less than 256");
        hashes.get(begin..begin + (1 << height)).map(root_of).ok_or(outside)
    }
}

/// Root of a complete subtree, given its `2^k` hashes.
fn root_of(hashes: &[Digest]) -> Digest {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| merkle::node_hash(&pair[0], &pair[1])).collect();
    }
    row[0]
}

/// Tile levels of a tree of up to 2^56 leaves, which no log reaches.
const LEVELS: u8 = 7;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[derive(Default)]
    struct Kept(HashMap<(u8, u64), Vec<Digest>>);

    impl Tiles for Kept {
        fn full_tile(&self, level: u8, n: u64) -> Result<Vec<Digest>, StoreError> {
            self.0.get(&(level, n)).cloned().ok_or(StoreError::LogRange { asked: n, size: 0 })
        }
    }

    /// Long enough for a full tile of level 1.
    const LEAVES: u64 = 65_536 + 700;

    fn grown() -> (Log, Kept, Vec<Digest>) {
        let (mut log, mut kept, mut roots) = (Log::default(), Kept::default(), Vec::new());
        for i in 0..LEAVES {
            let mut full = Vec::new();
            log.append(merkle::leaf_hash(&i.to_be_bytes()), &mut full);
            kept.0.extend(full.into_iter().map(|tile| ((tile.level, tile.n), tile.hashes)));
            roots.push(log.frontier().root());
        }
        (log, kept, roots)
    }

    #[test]
    fn proofs_hold_for_every_kind_of_size_and_a_loaded_log_is_the_same() {
        let (log, kept, roots) = grown();
        for size in [1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, LEAVES] {
            for index in [0, 1, 254, 255, 256, 300, 65_535, 65_536, LEAVES - 1] {
                let path = log.inclusion_proof(index, size, &kept);
                if index >= size {
                    assert!(matches!(path, Err(StoreError::LogRange { .. })));
                    continue;
                }
                let root = &roots[usize::try_from(size - 1).unwrap()];
                let leaf = merkle::leaf_hash(&index.to_be_bytes());
                assert!(merkle::verify_inclusion(&leaf, index, size, &path.unwrap(), root));
            }
        }
        let last = log.leaf_hashes(LEAVES - LEAVES % 256, LEAVES % 256, &kept).unwrap();
        assert_eq!(Log::load(LEAVES, last, &kept).unwrap(), log);
    }

    #[test]
    fn tiles_have_the_width_that_the_size_gives_them() {
        let (log, kept, _) = grown();
        assert_eq!(log.hash_tile(1, 0, 256, &kept).unwrap().len(), 256 * 32);
        assert_eq!(log.hash_tile(1, 1, 2, &kept).unwrap().len(), 2 * 32);
        assert_eq!(log.hash_tile(2, 0, 1, &kept).unwrap().len(), 32);
        for (level, n, width) in [(1, 1, 3), (0, 0, 257), (0, 0, 0), (2, 1, 1), (200, 0, 1)] {
            assert!(log.hash_tile(level, n, width, &kept).is_err(), "{level} {n} {width}");
        }
    }
}
