//! Why a run ends without figures.

use std::io;
use std::path::{Path, PathBuf};

use kms_client::{ClientError, ConfigError};

use crate::cases::Case;

/// Why a run ends without figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BenchError {
    /// The daemon refused or could not be reached: its fault, or a limit that the bench ran into.
    #[error("the daemon: {0}")]
    Client(#[from] ClientError),
    /// The settings of the development daemon cannot be used: a fault of ours or its.
    #[error("the daemon's settings: {0}")]
    Config(#[from] ConfigError),
    /// The daemon did not start. Its own words follow.
    #[error("kmsd did not start: {0}")]
    Daemon(String),
    /// A file or process cannot be used: the environment's fault.
    #[error("{path}: {cause}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The raw library failed: a fault of ours.
    #[error("aws-lc-rs failed at {0}")]
    Library(&'static str),
    /// No case has such a name: the user's mistake.
    #[error("no case has {0:?} in its name; there are: {cases}", cases = Case::ALL.map(Case::name).join(", "))]
    NoCase(String),
    /// What is to be measured is not built.
    #[error("{} is not there; build it first: cargo build --release --workspace", .0.display())]
    NotBuilt(PathBuf),
    /// A PKCS#11 module failed, in its own process.
    #[error("{module}: {problem}")]
    Module {
        /// Which one.
        module: &'static str,
        /// What it said.
        problem: String,
    },
    /// A PKCS#11 call failed, seen from within the module's process.
    #[error(transparent)]
    Pkcs11(#[from] cryptoki::error::Error),
    /// Another answer than was asked for came: the peer's fault.
    #[error("not understood: {0}")]
    Protocol(&'static str),
    /// What two of our processes tell each other, or the result, cannot be written or read.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl BenchError {
    /// Says which file a failure of the system is about.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::File { path, cause }
    }
}
