//! The rules of the key-management appliance.
//!
//! **A key is used only with a [`permit::Permit`]; a `Permit` comes only from one
//! [`permit::decide`]; it is on record before it is spent; and key bytes leave only sealed to a
//! recipient that attestation evidence has proven.** Everything else is arrangement around this
//! sentence.
//!
//! Nothing here does I/O, reads a clock, draws randomness, awaits, or sees key bytes: time, nonces
//! and claims come in as arguments, decisions go out as values. The daemon (`kmsd`) and the
//! offline verifier (`kms-verify`) call it; it calls nobody of ours.

pub mod action;
pub mod algorithm;
pub mod arguments;
pub mod audit;
pub mod caller;
pub mod canonical;
pub mod challenge;
pub mod claims;
pub mod credential;
pub mod filter;
pub mod id;
pub mod key;
pub mod lifecycle;
pub mod manifest;
pub mod mechanism;
pub mod permit;
pub mod protections;
pub mod quorum;
pub mod receipt;
pub mod rights;
pub mod ring_policy;
pub mod service;
pub mod sshsig;
pub mod statement;
pub mod step;
pub mod transcript;
pub mod transfer;
pub mod tries;
