//! PKCS#11 modules. Each is loaded by a process of its own, because modules read the environment
//! when they are loaded, and a process has only one.

pub(crate) mod client;
pub(crate) mod process;
mod token;

use serde::{Deserialize, Serialize};

use crate::measure::{Extent, Sample};

/// What a module's process is asked to do, one line of JSON each on its standard input.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) work: Work,
    pub(crate) threads: usize,
    pub(crate) extent: Extent,
}

/// One kind of operation.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// `C_GenerateKeyPair` of a P-256 token key pair.
    Create,
    /// `C_Encrypt` of 64 KiB with `CKM_AES_GCM` and a token key.
    Encrypt,
    /// `C_Sign` with `CKM_ECDSA` and a P-256 token key.
    Sign,
}

/// What it answers, one line of JSON each on its standard output.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The work was done.
    Done(Sample),
    /// It was not; for people.
    Failed(String),
    /// Keys and sessions are there. The library's name and version.
    Ready(String),
}

/// Most threads that one order may name.
pub(crate) const THREADS_MAX: usize = 2;
/// The variable with the PIN, which does not belong on a command line.
pub(crate) const PIN: &str = "KMS_BENCH_PIN";
