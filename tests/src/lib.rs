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
