//! What is committed: a bounded batch of conditions, writes and leaves, and what comes of it.
//!
//! [`decide`] is the one place where conditions are checked and revisions are counted; every
//! backend calls it in its total order.

use std::collections::HashSet;
use std::sync::Arc;

use kms_core::audit::CommitReceipt;
pub use kms_core::audit::tile::LEAF_BYTES_MAX;

use crate::{BatchFault, StoreError};

/// Most bytes of keys, values and leaves in one batch.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most conditions, most writes and most leaves in one batch.
pub const BATCH_ITEMS_MAX: usize = 1024;
/// Longest key of a row.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value of a row.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// A row as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// How often the key was put, over deletions: 1 for a new row, never the same again.
    pub revision: u64,
    /// The bytes, sealed by the caller. Copies of the row share them.
    pub value: Arc<[u8]>,
}

/// What happens together or not at all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Batch {
    /// What must hold for the batch to be applied.
    pub conditions: Vec<Condition>,
    /// The rows it changes; each key at most once.
    pub writes: Vec<Write>,
    /// What it appends to the audit log, in order.
    pub leaves: Vec<Vec<u8>>,
    /// Names the batch, so that a retry cannot apply it twice. The first batch of that name
    /// counts, whatever a later one holds; the latest [`IDEMPOTENCY_MAX`](crate::IDEMPOTENCY_MAX)
    /// names are remembered.
    pub idempotency: Option<[u8; 32]>,
    /// A leaf of this batch names the row set as it was at this sequence, out of
    /// [`row_set`](crate::Store::row_set). What stands in the log need not be kept elsewhere to be
    /// compared with.
    pub binds_rows: Option<u64>,
}

/// What must hold of one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Condition {
    /// Of which key.
    pub key: String,
    /// What.
    pub expected: Expected,
}

/// The state of a row that a condition asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// There is no such row (a deleted one is absent).
    Absent,
    /// The row stands at exactly this revision.
    Revision(u64),
}

/// A change of one row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Write {
    /// Removes the row; nothing happens when there is none.
    Delete {
        /// Which.
        key: String,
    },
    /// Makes or replaces the row.
    Put {
        /// Which.
        key: String,
        /// Its new value.
        value: Vec<u8>,
    },
}

/// What came of a batch.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum Outcome {
    /// It is durable.
    Committed(Committed),
    /// Nothing was done, since the conditions on these keys do not hold.
    Conflict(Vec<String>),
    /// It may or may not be durable; [`outcome_of`](crate::Store::outcome_of) tells after a
    /// restart.
    Unknown,
}

/// A durable batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Committed {
    /// Where its leaves stand.
    pub receipt: CommitReceipt,
    /// Whether an earlier batch of the same name had done it already.
    pub replayed: bool,
}

impl Batch {
    /// How many bytes of payload the batch holds.
    pub(crate) fn bytes(&self) -> usize {
        let conditions = self.conditions.iter().map(|c| c.key.len());
        let writes = self.writes.iter().map(|w| w.key().len() + w.value().map_or(0, <[u8]>::len));
        let leaves = self.leaves.iter().map(Vec::len);
        conditions.chain(writes).chain(leaves).sum()
    }

    /// About how much memory the batch takes: its payload and what holds it.
    pub(crate) fn bytes_in_memory(&self) -> usize {
        let items = self.conditions.len() + self.writes.len() + self.leaves.len();
        self.bytes() + 64 * (items + 1)
    }

    /// Holds the batch against the stated bounds.
    pub(crate) fn check(&self) -> Result<(), BatchFault> {
        let Self { conditions, writes, leaves, idempotency: _, binds_rows: _ } = self;
        let counts = [
            (conditions.len(), BatchFault::Conditions),
            (writes.len(), BatchFault::Writes),
            (leaves.len(), BatchFault::Leaves),
        ];
        if let Some((_, fault)) = counts.into_iter().find(|(count, _)| *count > BATCH_ITEMS_MAX) {
            return Err(fault);
        }
        let keys = conditions.iter().map(|c| c.key.as_str()).chain(writes.iter().map(Write::key));
        if keys.into_iter().any(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            return Err(BatchFault::Key);
        }
        if writes.iter().filter_map(Write::value).any(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(BatchFault::Value);
        }
        if leaves.iter().any(|leaf| leaf.len() > LEAF_BYTES_MAX) {
            return Err(BatchFault::Leaf);
        }
        if self.bytes() > BATCH_BYTES_MAX {
            return Err(BatchFault::Bytes);
        }
        let mut seen = HashSet::new();
        if writes.iter().all(|write| seen.insert(write.key())) {
            Ok(())
        } else {
            Err(BatchFault::KeyTwice)
        }
    }
}

impl Write {
    /// The key that changes.
    pub fn key(&self) -> &str {
        match self {
            Self::Delete { key } | Self::Put { key, .. } => key,
        }
    }

    fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Delete { .. } => None,
            Self::Put { value, .. } => Some(value),
        }
    }
}

/// Where a key stands in the total order.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct RowState {
    /// The last revision given out; 0 when the key was never put.
    pub(crate) revision: u64,
    /// Whether the row is there now.
    pub(crate) live: bool,
}

/// One row after a batch. It carries its revision, so that replaying it gives the same row.
#[derive(Clone, Eq, PartialEq, prost::Message)]
pub(crate) struct RowChange {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(uint64, tag = "2")]
    pub(crate) revision: u64,
    /// Without a value the row is deleted; its revision stays behind.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(crate) value: Option<Vec<u8>>,
}

impl RowChange {
    /// How many bytes of payload it holds.
    pub(crate) fn bytes(&self) -> u64 {
        (self.key.len() + self.value.as_ref().map_or(0, Vec::len)) as u64
    }

    pub(crate) const fn state(&self) -> RowState {
        RowState { revision: self.revision, live: self.value.is_some() }
    }
}

/// What a batch comes to in the state that it meets.
pub(crate) enum Decision {
    Apply(Vec<RowChange>),
    Conflict(Vec<String>),
}

/// Checks the conditions and counts the revisions, given the `state` of each key.
pub(crate) fn decide(
    conditions: Vec<Condition>,
    writes: Vec<Write>,
    mut state: impl FnMut(&str) -> Result<RowState, StoreError>,
) -> Result<Decision, StoreError> {
    let mut failed = Vec::new();
    for Condition { key, expected } in conditions {
        let RowState { revision, live } = state(&key)?;
        let holds = match expected {
            Expected::Absent => !live,
            Expected::Revision(wanted) => live && revision == wanted,
        };
        if !holds && !failed.contains(&key) {
            failed.push(key);
        }
    }
    if !failed.is_empty() {
        return Ok(Decision::Conflict(failed));
    }
    let mut changes = Vec::with_capacity(writes.len());
    for write in writes {
        let RowState { revision, live } = state(write.key())?;
        match write {
            Write::Delete { key } if live => {
                changes.push(RowChange { key, revision, value: None });
            }
            Write::Delete { .. } => {}
            Write::Put { key, value } => {
                changes.push(RowChange { key, revision: revision + 1, value: Some(value) });
            }
        }
    }
    Ok(Decision::Apply(changes))
}
