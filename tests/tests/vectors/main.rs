//! Everybody's published vectors through the doors of a real daemon: gRPC and the PKCS#11 module. The third
//! door, the crypto crate, has its own tests.
//!
//! The gate asks a sample of each file: every kind of test and every n-th. `KMS_LONG=1`, as
//! `tests/run long` sets it, asks all. Each door prints a table: per file how many tests there are, how
//! many passed, how many of those were rightly refused, how many were skipped and why. A test is skipped only
//! for what our policy refuses, and then that it is refused was seen.

// The helpers of a test may unwrap as the test itself does.
#![allow(clippy::unwrap_used)]

mod catalog;
mod generated;
mod grpc;
mod module;
#[path = "../../../kmsd/crypto/tests/support/vectors.rs"]
mod published;
mod tally;
