//! Why the store does not do what it was asked.

use std::io;
use std::path::{Path, PathBuf};

/// Every failure of a store. A failed condition is none: see [`Outcome`](crate::Outcome).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The caller's mistake: the batch breaks a stated bound. Nothing was done.
    #[error("the batch is refused: {0}")]
    BatchRefused(#[from] BatchFault),
    /// The caller's mistake: the store was closed before.
    #[error("the store is closed")]
    Closed,
    /// The environment, or somebody at the disk: the database does not open, or is not the newest.
    #[error("the database {} is damaged: {fault}; restore the state folder from a backup, and keep the damaged one for examination", path.display())]
    DatabaseDamaged {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// The environment: no room for another journal segment. Nothing was written and the store
    /// goes on reading; make room and try again.
    #[error("no space left for {}; free some space and try again", path.display())]
    DiskFull {
        /// The file that could not be made.
        path: PathBuf,
    },
    /// The operator's mistake, most likely: a file of another release.
    #[error("{} is of format {found}, this release reads format {expected}; use the release that wrote it", path.display())]
    FormatUnknown {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What this build reads.
        expected: u32,
    },
    /// The environment: the index does not answer while it is opened, and the thread that waits
    /// for it cannot be ended. Nothing is lost: end this process and start it again, which makes
    /// the index anew.
    #[error("the index {} does not answer and is condemned; nothing is lost: start again, and it is made anew from the journal", path.display())]
    IndexHangs {
        /// The index folder.
        path: PathBuf,
    },
    /// The environment: even a new, empty index cannot be made. Nothing is lost, the journal is
    /// the truth; mend the disk and start again.
    #[error("cannot make an index at {}: {fault}", path.display())]
    IndexUnusable {
        /// The index folder.
        path: PathBuf,
        /// What the index says.
        fault: String,
    },
    /// The environment: a system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The environment, or somebody at the disk: acknowledged records are damaged or missing. The
    /// store does not open, since it would serve less than what it promised.
    #[error("the journal is damaged: {damage} ({}, byte {offset}); restore the state folder from a backup, and keep the damaged one for examination", segment.display())]
    JournalDamaged {
        /// The segment file.
        segment: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// The caller's mistake: a page of that many entries is not served.
    #[error("a page holds 1 to {max} entries, asked for {asked}")]
    LimitExceeded {
        /// What was asked.
        asked: usize,
        /// What is served at most.
        max: usize,
    },
    /// The operator's mistake: two daemons on one folder.
    #[error("another kmsd uses this state folder: {}", path.display())]
    Locked {
        /// The state folder.
        path: PathBuf,
    },
    /// The caller's mistake: that part of the log does not exist (yet).
    #[error("position {asked} is not in the log of {size} leaves")]
    LogRange {
        /// Leaf, tree size or tile that was asked for.
        asked: u64,
        /// How many leaves there are.
        size: u64,
    },
    /// The caller's mistake: nobody vouches for what is written (the root key is closed), and without
    /// that no row changes. Nothing was done.
    #[error(
        "nobody vouches for what this would write; open the root key first (kmsctl seal unseal)"
    )]
    NotVouched,
    /// The operator's mistake: a store of the other backend is in the folder.
    #[error("{} holds a store of the other backend; set `store` in the configuration to the one that made it", path.display())]
    OtherBackend {
        /// The state folder.
        path: PathBuf,
    },
    /// The environment: a write, a sync or the index failed earlier, so nothing after it can be
    /// promised. Start the daemon again; what was acknowledged is in the journal.
    #[error("the store has stopped after a failed write; restart the daemon")]
    Poisoned,
    /// The environment, or somebody at the disk: the index holds another row than the truth. The
    /// store has stopped; start the daemon again, which makes the index anew. Nothing is lost.
    #[error("{0}; restart the daemon, which makes the index anew")]
    RowDisagrees(Disagreement),
    /// Somebody at the disk: the rows are not those that the log names, or rows were changed that
    /// nobody vouched for. No key is opened on such rows.
    #[error("the rows are not those that the log names{}; restore the state folder from a backup, and keep the present one for examination", told(.rows))]
    RowsDisagree {
        /// Those that are known to be others, as far as they can be named; what is said of each is
        /// for people.
        rows: Vec<String>,
    },
    /// The environment, or somebody at the disk: the slot's checksum is wrong.
    #[error("slot {slot} is damaged; restore the state folder from a backup")]
    SlotDamaged {
        /// Which.
        slot: u64,
    },
    /// The environment, or somebody at the disk: the rows of the latest snapshot are damaged, and
    /// there is no older one with all that follows it. The store does not open.
    #[error("a snapshot is damaged: {damage} ({}, byte {offset}); restore the state folder from a backup, and keep the damaged one for examination", path.display())]
    SnapshotDamaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// The secret was erased, as somebody asked.
    #[error("slot {slot} is erased")]
    SlotErased {
        /// Which.
        slot: u64,
    },
    /// The environment: the slot table is missing, foreign or damaged as a whole.
    #[error("the slot table {} is missing or damaged; restore the state folder from a backup", path.display())]
    SlotTableDamaged {
        /// The file.
        path: PathBuf,
    },
    /// The caller's mistake: no such slot was ever given out.
    #[error("slot {slot} does not exist")]
    SlotUnknown {
        /// Which.
        slot: u64,
    },
}

/// The rows that are known, for people.
fn told(rows: &[String]) -> String {
    if rows.is_empty() { String::new() } else { format!(": {}", rows.join("; ")) }
}

/// A row of the index that is not the row of the truth.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the index disagrees with the journal about the row {key}: {fault}")]
pub struct Disagreement {
    /// Which row.
    pub key: String,
    /// In which way.
    pub fault: RowFault,
}

/// In which way a row of the index disagrees.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RowFault {
    /// The row is not there.
    #[error("it is missing")]
    Missing,
    /// The row is an older one, or that of another key, or was never written.
    #[error("it is another one, such as an older one or that of another key")]
    Other,
    /// There is no such row.
    #[error("there is none")]
    Unknown,
}

/// Which bound a batch breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchFault {
    /// All in all too large.
    #[error("it holds more than {} bytes", crate::BATCH_BYTES_MAX)]
    Bytes,
    /// Too many conditions.
    #[error("it has more than {} conditions", crate::BATCH_ITEMS_MAX)]
    Conditions,
    /// A key that is empty or too long.
    #[error("a key is empty or longer than {} bytes", crate::KEY_BYTES_MAX)]
    Key,
    /// A key written twice: which of the two should count?
    #[error("it writes one key twice")]
    KeyTwice,
    /// A leaf that no entry bundle can hold.
    #[error("a leaf is longer than {} bytes", crate::LEAF_BYTES_MAX)]
    Leaf,
    /// Too many leaves.
    #[error("it has more than {} leaves", crate::BATCH_ITEMS_MAX)]
    Leaves,
    /// A value that is too long.
    #[error("a value is longer than {} bytes", crate::VALUE_BYTES_MAX)]
    Value,
    /// Too many writes.
    #[error("it has more than {} writes", crate::BATCH_ITEMS_MAX)]
    Writes,
}

/// What is wrong with the journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// A record that does not follow the one before it.
    #[error("a record does not follow the one before it")]
    Chain,
    /// Records that the index has already applied are not there.
    #[error("records at the end are missing that were acknowledged before")]
    EndMissing,
    /// A segment's header.
    #[error("the header of a segment does not match its checksum")]
    Header,
    /// A record that is not the last one.
    #[error("a record does not match its hash")]
    Record,
    /// Rows that are not those which the records tell of.
    #[error("the rows are not those that were written: one is missing, added, swapped or older")]
    RowSet,
    /// The file that holds the rows is not there.
    #[error("the snapshot with the rows is missing")]
    RowsMissing,
    /// A segment file that is not there.
    #[error("a segment is missing")]
    SegmentMissing,
    /// A segment that follows another one than that before it, or of another store.
    #[error("a segment does not follow the one before it")]
    SegmentOrder,
    /// A record with the right hash that this release cannot read.
    #[error("a record holds what this release does not know")]
    Unreadable,
}

impl StoreError {
    /// For `map_err` on system calls.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source: source.into() }
    }
}
