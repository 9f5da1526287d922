//! Durable rows and the audit log, in one store with one write path.
//!
//! A [`Batch`] changes rows and appends leaves to the audit log, all or nothing, in one total
//! order; when [`Store::commit`] answers, it is on disk. The store sees sealed bytes: it knows
//! neither keys nor rules, and it is the only crate that makes a
//! [`CommitReceipt`](kms_core::audit::CommitReceipt). The daemon (`kmsd`) holds one
//! `Arc<dyn Store>` and nobody else calls this crate.
//!
//! Three backends pass one suite (`conformance`): [`SledStore`] on disk, [`MemoryStore`] for tests,
//! and, with the feature `redb`, `RedbStore` on disk, a database without a journal.
//!
//! # Invariants
//!
//! - The newest snapshot and the journal after it are the truth, everything else is made from it.
//!   The index may be deleted at any time while the store is closed; the next open makes it anew.
//! - A snapshot is made from the truth alone, never from the index. What it replaces goes only when
//!   it was read back and found good.
//! - Leaves are never removed: a segment of the journal whose rows stand in a snapshot is reduced to
//!   its leaves, and the hash of each record is verified as before.
//! - What is acknowledged was synced before. A failed write or sync ends the store
//!   ([`StoreError::Poisoned`]) rather than leave a doubt behind.
//! - What one sync made durable is one record. So a bad record with a good one after it is never
//!   the trace of a crash, always damage, and damage is never served.
//! - An index that was open when the *machine* stopped is made anew, since the index's own
//!   writes are not ordered by any sync. After a mere kill of the process it is taken up again.
//! - Slots are outside the journal, and a slot number names one secret for ever. An erased secret
//!   is in no file of the store. (What a flash device keeps in blocks that it has replaced is
//!   beyond any file's reach: put the state folder on an encrypted volume.)
//! - Memory does not grow with the number of rows or leaves, but for one entry of a table for each
//!   64 KiB of rows while a snapshot is read.
//!
//! # What deliberately does not exist
//!
//! - No proof that the truth is the newest one: an old copy of the whole folder is consistent in
//!   itself. That the rows are of one piece with the log is proven when somebody vouches
//!   ([`Store::begin_vouching`]); the store by itself has checksums, which find damage and not somebody
//!   who makes them anew.
//! - No sealing: whoever commits has sealed the value before.

mod batch;
mod caught;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod entry;
mod error;
mod log;
mod memory;
#[cfg(any(test, feature = "redb"))]
mod redb;
mod row_set;
pub mod sled;
mod store;
mod vouch;
mod watch;

pub use batch::{
    BATCH_BYTES_MAX, BATCH_ITEMS_MAX, Batch, Committed, Condition, Expected, KEY_BYTES_MAX,
    LEAF_BYTES_MAX, Outcome, Row, VALUE_BYTES_MAX, Write,
};
pub use error::{BatchFault, Damage, Disagreement, RowFault, StoreError};
pub use kms_core::audit::RowSet;
pub use memory::MemoryStore;
pub use store::{IDEMPOTENCY_MAX, PAGE_BYTES_MAX, SCAN_MAX, Store};
pub use vouch::Voucher;
pub use watch::{Change, Watch};

#[cfg(any(test, feature = "redb"))]
pub use self::redb::{RedbStore, open as open_redb};
pub use self::sled::{Opened, Report, Settings, SledStore, Stats, open, open_with};
