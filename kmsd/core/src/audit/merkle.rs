//! Merkle tree hashing and proofs (RFC 6962 §2.1, RFC 9162 §2.1).
//!
//! ```text
//! leaf_hash(d)    = SHA-256(0x00 || d)
//! node_hash(l, r) = SHA-256(0x01 || l || r)
//! ```
//!
//! Proofs are made from a [`Nodes`] source that knows the hash of any complete subtree, so that
//! neither the daemon nor an auditor needs all leaves in memory.

use sha2::{Digest as _, Sha256};

use crate::id::Digest;

/// Hash of a leaf.
pub fn leaf_hash(leaf: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(leaf);
    Digest(hash.finalize().into())
}

/// Hash of an inner node.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left.as_bytes());
    hash.update(right.as_bytes());
    Digest(hash.finalize().into())
}

/// Knows the hash of complete subtrees.
pub trait Nodes {
    /// Why a hash cannot be had.
    type Error;

    /// Hash of the complete subtree of `2^level` leaves that begins at leaf `index * 2^level`.
    ///
    /// # Errors
    /// When the source does not hold that part of the tree.
    fn node(&mut self, level: u8, index: u64) -> Result<Digest, Self::Error>;
}

/// The root of an append-only tree, in 32 bytes a level: enough to append and to name the head.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Frontier {
    size: u64,
    /// Roots of the complete subtrees that make up the tree, largest first: one for each bit set
    /// in `size`.
    roots: Vec<Digest>,
}

impl Frontier {
    /// Takes up a tree of `size` leaves from its complete subtrees.
    ///
    /// # Errors
    /// What `nodes` cannot give.
    pub fn of<N: Nodes>(size: u64, nodes: &mut N) -> Result<Self, N::Error> {
        let mut roots = Vec::new();
        for (level, index) in complete_subtrees(0, size) {
            roots.push(nodes.node(level, index)?);
        }
        Ok(Self { size, roots })
    }

    /// How many leaves the tree has.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its hash.
    pub fn append(&mut self, leaf_hash: Digest) {
        let mut node = leaf_hash;
        for _ in 0..self.size.trailing_ones() {
            let left = self.roots.pop().expect("one root for each bit set in size");
            node = node_hash(&left, &node);
        }
        self.roots.push(node);
        self.size += 1;
    }

    /// The root hash; of the empty tree, SHA-256 of nothing.
    pub fn root(&self) -> Digest {
        fold(&self.roots).unwrap_or_else(|| Digest(Sha256::digest([]).into()))
    }
}

/// The complete subtrees that cover leaves `begin..end`, left to right, as (level, index).
/// `begin` must be the start of a subtree at least as large as the range, as it is in every tree
/// of RFC 6962.
fn complete_subtrees(begin: u64, end: u64) -> Vec<(u8, u64)> {
    let mut subtrees = Vec::new();
    let mut at = begin;
    while at < end {
        let level = (end - at).ilog2();
        let level = u8::try_from(level).expect("log2 of a u64 is at most 63");
        subtrees.push((level, at >> level));
        at += 1 << level;
    }
    subtrees
}

/// Joins subtree roots, largest first, into one root.
fn fold(roots: &[Digest]) -> Option<Digest> {
    let (last, rest) = roots.split_last()?;
    Some(rest.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}

fn range_root<N: Nodes>(begin: u64, end: u64, nodes: &mut N) -> Result<Digest, N::Error> {
    let mut roots = Vec::new();
    for (level, index) in complete_subtrees(begin, end) {
        roots.push(nodes.node(level, index)?);
    }
    Ok(fold(&roots).expect("ranges of a proof are not empty"))
}

/// The audit path of leaf `index` in the tree of `size` leaves (RFC 9162 §2.1.3.1).
///
/// # Errors
/// What `nodes` cannot give.
pub fn inclusion_proof<N: Nodes>(
    index: u64,
    size: u64,
    nodes: &mut N,
) -> Result<Vec<Digest>, N::Error> {
    let (mut begin, mut end, mut path) = (0, size, Vec::new());
    while end - begin > 1 {
        let split = begin + split_point(end - begin);
        if index < split {
            path.push(range_root(split, end, nodes)?);
            end = split;
        } else {
            path.push(range_root(begin, split, nodes)?);
            begin = split;
        }
    }
    path.reverse();
    Ok(path)
}

/// Whether `path` proves that the leaf of `leaf_hash` stands at `index` in the tree of `size`
/// leaves with that `root` (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(
    leaf_hash: &Digest,
    index: u64,
    size: u64,
    path: &[Digest],
    root: &Digest,
) -> bool {
    if index >= size {
        return false;
    }
    let (mut node_index, mut last, mut node) = (index, size - 1, *leaf_hash);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node_index & 1 == 1 || node_index == last {
            node = node_hash(sibling, &node);
            while node_index & 1 == 0 && node_index != 0 {
                node_index >>= 1;
                last >>= 1;
            }
        } else {
            node = node_hash(&node, sibling);
        }
        node_index >>= 1;
        last >>= 1;
    }
    last == 0 && node == *root
}

/// The largest power of two below `n`, for `n` > 1.
const fn split_point(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Leaves(Vec<Digest>);

    impl Nodes for Leaves {
        type Error = ();

        fn node(&mut self, level: u8, index: u64) -> Result<Digest, ()> {
            let begin = usize::try_from(index << level).unwrap();
            let leaves = self.0.get(begin..begin + (1 << level)).ok_or(())?;
            Ok(by_definition(leaves))
        }
    }

    /// MTH of RFC 6962 §2.1, straight from the text.
    fn by_definition(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => Digest(Sha256::digest([]).into()),
            [leaf] => *leaf,
            _ => {
                let k = usize::try_from(split_point(leaves.len() as u64)).unwrap();
                node_hash(&by_definition(&leaves[..k]), &by_definition(&leaves[k..]))
            }
        }
    }

    fn leaves(n: u64) -> Leaves {
        Leaves((0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect())
    }

    #[test]
    fn the_frontier_has_the_root_of_the_definition() {
        let mut frontier = Frontier::default();
        for n in 0..70 {
            let mut all = leaves(n);
            assert_eq!(frontier.root(), by_definition(&all.0), "{n} leaves");
            assert_eq!(Frontier::of(n, &mut all), Ok(frontier.clone()));
            frontier.append(leaf_hash(&n.to_be_bytes()));
        }
    }

    #[test]
    fn every_leaf_is_proven_and_nothing_else() {
        for size in 1..40 {
            let mut all = leaves(size);
            let root = by_definition(&all.0);
            for index in 0..size {
                let path = inclusion_proof(index, size, &mut all).unwrap();
                let leaf = all.0[usize::try_from(index).unwrap()];
                assert!(verify_inclusion(&leaf, index, size, &path, &root));
                assert!(!verify_inclusion(&root, index, size, &path, &root) || size == 1);
                assert!(!verify_inclusion(&leaf, index, size, &path, &leaf_hash(b"other")));
                assert!(!verify_inclusion(&leaf, size, size, &path, &root));
                if size > 1 {
                    assert!(!verify_inclusion(&leaf, index, size, &path[1..], &root));
                    let wrong = if index == 0 { 1 } else { index - 1 };
                    assert!(!verify_inclusion(&leaf, wrong, size, &path, &root));
                }
            }
        }
    }
}
