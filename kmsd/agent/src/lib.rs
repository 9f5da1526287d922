//! The workload side of a release: collect evidence over a challenge, receive the key that it
//! opens, and check the receipt.
//!
//! [`release::receive`] does all of it in one call. The daemon is not believed for anything that can
//! be checked here: the answer opens only under this very transcript, and the receipt must lead to
//! the log's signed head. What the daemon checks of the evidence is not this crate's business.

pub mod attester;
mod error;
pub mod recipient;
pub mod release;

pub use error::AgentError;
pub use kms_client as client;
