//! A real daemon, asked from outside. One binary for all of it, so that it links once and tests can
//! share a daemon.

// The helpers of a test may unwrap as the test itself does.
#![allow(clippy::unwrap_used)]

mod audit;
mod bad_input;
mod contract;
mod crash;
mod crypto;
mod damage;
mod keys;
mod lifecycle;
mod network;
mod pin;
mod policy;
mod quorum;
mod races;
mod release;
mod restart;
mod roles;
mod seal;
mod secrets;
mod transfer;
mod uses;
