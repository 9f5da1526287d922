//! What the end-to-end tests share: a real `kmsd` in a temporary folder, clients of every kind, and
//! the audit log as an auditor takes it away.
//!
//! The tests reach the daemon only as everybody can: over its sockets, by signals, through its
//! files. Programs are found beside the test binary, so the workspace must be built first.

// Whatever goes wrong in here ends the test that asked for it.
#![allow(clippy::unwrap_used)]

pub mod daemon;
pub mod expect;
pub mod log;
pub mod process;
pub mod proposal;
pub mod request;

pub use daemon::Daemon;
pub use expect::{Refusal, refused, refused_for};

/// Whether tests take their long form, as `tests/run long` asks for with `KMS_LONG=1`.
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os("KMS_LONG").is_some_and(|value| value == "1")
}
