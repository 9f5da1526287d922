//! Where evidence comes from: one file per source.

#[cfg(feature = "dev")]
pub mod software;
pub mod tsm;

use std::io;
use std::path::PathBuf;

use kms_core::claims::EvidenceKind;

/// A source of attestation evidence.
pub trait Attester {
    /// What kind of evidence it gives.
    fn kind(&self) -> EvidenceKind;

    /// Evidence that commits to `report_data`.
    ///
    /// # Errors
    /// [`AttesterError`] when the machine gives none.
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, AttesterError>;
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttesterError {
    /// Something else asked for a report through the same entry at the same time.
    #[error("the report was disturbed by another request; try again")]
    Disturbed,
    /// A file of the source cannot be used.
    #[error("{path}: {cause}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The platform's provider is one that the appliance does not understand.
    #[error("evidence of {0:?} is not understood; expected sev_guest")]
    Provider(String),
    /// The state of the software attester is not one.
    #[error("{0}: not the state of a software attester; `kmsd dev` writes one")]
    State(PathBuf),
}
