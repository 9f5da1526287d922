//! Writes the log in the C2SP tlog-tiles layout, leaf by leaf, in memory for one tile a level.
//!
//! `kms_verify::log` reads what is written here.

use kms_core::audit::merkle::{self, Frontier};
use kms_core::audit::tile::{self, TILE_WIDTH};
use kms_core::id::Digest;

use crate::failure::Failure;

/// Takes a tile's path and bytes.
pub(crate) trait Sink {
    fn put(&mut self, path: &str, bytes: &[u8]) -> Result<(), Failure>;
}

/// The tiles that are begun and not yet full.
#[derive(Default)]
pub(crate) struct Tiles {
    frontier: Frontier,
    leaves: Vec<Vec<u8>>,
    levels: Vec<Level>,
}

#[derive(Default)]
struct Level {
    number: u64,
    hashes: Vec<Digest>,
}

impl Tiles {
    /// Appends a leaf, and hands `sink` every tile that it fills.
    pub(crate) fn push(&mut self, leaf: Vec<u8>, sink: &mut impl Sink) -> Result<(), Failure> {
        let hash = merkle::leaf_hash(&leaf);
        let number = self.frontier.size() / TILE_WIDTH;
        self.frontier.append(hash);
        self.leaves.push(leaf);
        if is_full(self.leaves.len()) {
            let leaves = std::mem::take(&mut self.leaves);
            put_bundle(number, &leaves, sink)?;
        }
        self.push_hash(hash, sink)
    }

    /// How many leaves there are.
    pub(crate) const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Hands `sink` the tiles that are begun and not full, and gives the root.
    pub(crate) fn finish(self, sink: &mut impl Sink) -> Result<Digest, Failure> {
        if !self.leaves.is_empty() {
            put_bundle(self.frontier.size() / TILE_WIDTH, &self.leaves, sink)?;
        }
        for (level, Level { number, hashes }) in (0..).zip(&self.levels) {
            if !hashes.is_empty() {
                put_hashes(level, *number, hashes, sink)?;
            }
        }
        Ok(self.frontier.root())
    }

    /// Appends a hash to level 0; a tile that is full makes one hash of the level above.
    fn push_hash(&mut self, hash: Digest, sink: &mut impl Sink) -> Result<(), Failure> {
        let mut hash = hash;
        // 256^8 leaves are more than a u64 counts.
        for level in 0..8 {
            let at = usize::from(level);
            if self.levels.len() == at {
                self.levels.push(Level::default());
            }
            let Some(tile) = self.levels.get_mut(at) else { return Ok(()) };
            tile.hashes.push(hash);
            if !is_full(tile.hashes.len()) {
                return Ok(());
            }
            let hashes = std::mem::take(&mut tile.hashes);
            put_hashes(level, tile.number, &hashes, sink)?;
            tile.number += 1;
            let mut root = Frontier::default();
            hashes.into_iter().for_each(|hash| root.append(hash));
            hash = root.root();
        }
        Ok(())
    }
}

const fn is_full(length: usize) -> bool {
    length as u64 >= TILE_WIDTH
}

fn put_bundle(number: u64, leaves: &[Vec<u8>], sink: &mut impl Sink) -> Result<(), Failure> {
    let bytes = tile::bundle(leaves.iter().map(Vec::as_slice))
        .ok_or(Failure::Answer("a leaf longer than the log's format has"))?;
    sink.put(&tile::path(None, number, leaves.len() as u64), &bytes)
}

fn put_hashes(
    level: u8,
    number: u64,
    hashes: &[Digest],
    sink: &mut impl Sink,
) -> Result<(), Failure> {
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
    sink.put(&tile::path(Some(level), number, hashes.len() as u64), &bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ed25519_dalek::{Signer as _, SigningKey};
    use kms_core::audit::checkpoint::{Checkpoint, LogKey};
    use kms_core::audit::{Leaf, LeafOutcome};

    use super::*;

    impl Sink for BTreeMap<String, Vec<u8>> {
        fn put(&mut self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
            assert!(self.insert(path.to_owned(), bytes.to_vec()).is_none(), "{path} twice");
            Ok(())
        }
    }

    fn export(size: u64) -> (BTreeMap<String, Vec<u8>>, LogKey) {
        let (mut files, mut tiles) = (BTreeMap::new(), Tiles::default());
        for n in 0..size {
            let outcome = LeafOutcome::Granted.into();
            let leaf = Leaf { time_ms: n, action: "Sign".into(), outcome, ..Leaf::default() };
            tiles.push(leaf.to_bytes(), &mut files).unwrap();
        }
        assert_eq!(tiles.size(), size);
        let root = tiles.finish(&mut files).unwrap();
        let secret = SigningKey::from_bytes(&[1; 32]);
        let key = LogKey::new("kms/test", secret.verifying_key().as_bytes()).unwrap();
        let head = Checkpoint { origin: "kms/test".into(), size, root };
        let note = head.signed(&key, &secret.sign(head.text().as_bytes()).to_bytes());
        files.insert("checkpoint".into(), note.into_bytes());
        (files, key)
    }

    #[test]
    fn the_verifier_accepts_what_is_written_at_every_edge() {
        for size in [0, 1, 255, 256, 257, 300, 65_535, 65_536, 65_537] {
            let (mut files, key) = export(size);
            let tiles = files.keys().filter(|path| path.starts_with("tile/")).count();
            let report = kms_verify::verify_log(&mut files, &key, None).unwrap();
            assert_eq!((report.accepted, report.leaves), (true, size), "{:?}", report.reasons);
            let bundles = size.div_ceil(TILE_WIDTH);
            assert_eq!(report.hash_tiles + bundles, tiles as u64, "every file is a tile it knows");
        }
    }

    #[test]
    fn the_verifier_refuses_every_changed_file() {
        let (files, key) = export(300);
        for path in files.keys() {
            let mut changed = files.clone();
            let bytes = changed.get_mut(path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            let report = kms_verify::verify_log(&mut changed, &key, None).unwrap();
            assert!(!report.accepted, "{path}");
        }
    }
}
