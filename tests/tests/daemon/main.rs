//! A real daemon, asked from outside. One binary for all of it, so that it links once and tests can
//! share a daemon.

// The helpers of a test may unwrap as the test itself does.
#![allow(clippy::unwrap_used)]

mod approved;
mod audit;
mod bad_input;
mod contract;
mod crash;
mod crypto;
mod damage;
mod forge;
mod identity;
mod integrity;
mod keys;
mod leases;
mod lifecycle;
mod memory;
mod network;
mod pin;
mod policy;
mod power;
mod proposed_uses;
mod quorum;
mod races;
mod refusals;
mod release;
mod restart;
mod roles;
mod seal;
mod secrets;
#[path = "../../../kmsd/core/src/sshsig/security_key.rs"]
mod security_key;
mod sessions;
mod states;
mod store;
mod streams;
mod transfer;
mod uses;
