//! The audit log: what a leaf says, how leaves are bound into one tree, how its head is signed.
//!
//! The log is an append-only Merkle tree (RFC 6962 hashing) in the C2SP formats: tlog-tiles,
//! tlog-checkpoint. A leaf is a typed protobuf message without free bytes, so that no secret can
//! slip in. There is no off switch.

pub mod checkpoint;
mod leaf;
pub mod merkle;
pub mod note;
pub mod tile;

pub use leaf::{Leaf, LeafError, LeafOutcome};

use crate::id::{Digest, Timestamp};

/// What the log says of one use on a usage lease: the digest over its salted request digest and its time.
pub fn use_digest(request_digest: &Digest, time: Timestamp) -> Digest {
    Digest::of(&[b"kms-use", request_digest.as_bytes(), &time.0.to_be_bytes()])
}

/// All rows of the store as they stood with one record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RowSet {
    /// The digest of the set.
    pub root: Digest,
    /// The record: no row was changed between it and the moment at which the root was taken.
    pub sequence: u64,
}

/// The store's word that leaves are on disk. Made by the backends of `kms-store` alone, after the
/// sync; the layering test holds them to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommitReceipt {
    first_index: u64,
    leaf_hashes: Vec<Digest>,
}

impl CommitReceipt {
    /// States that leaves with these hashes are durable at `first_index` and following.
    pub const fn durable(first_index: u64, leaf_hashes: Vec<Digest>) -> Self {
        Self { first_index, leaf_hashes }
    }

    /// Where the leaf of that hash stands in the log, if this commit holds it.
    pub fn index_of(&self, leaf_hash: &Digest) -> Option<u64> {
        let position = self.leaf_hashes.iter().position(|hash| hash == leaf_hash)?;
        u64::try_from(position).ok()?.checked_add(self.first_index)
    }
}
