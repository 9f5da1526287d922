//! Everything that can end a request early.

use kms_core::challenge::ChallengeError;
use kms_core::permit::{NotOnRecord, PermitMismatch, Refusal};
use kms_crypto::CryptoError;
use kms_store::StoreError;

/// Why a request is not answered as hoped. [`crate::status`] maps it to gRPC.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// The rules said no; it stands in the log at the index.
    #[error("{refusal}")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// Where the log says so.
        audit_index: u64,
    },
    /// The cryptography could not be done: damaged input, or a row that somebody edited.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store cannot say whether the change was made.
    #[error("it is not known whether the change was made; ask again with the same request_id")]
    Unknown,
    /// What was permitted turned out to be refused when it was to be done. The pipeline puts that on
    /// record as well, and tells it as [`Failure::Refused`].
    #[error("{0}")]
    Late(Refusal),
    /// The root key was closed between decision and deed.
    #[error("the appliance was sealed meanwhile; open it first (kmsctl seal unseal)")]
    SealedMeanwhile,
    /// A row was edited outside the daemon and nothing can be decided on it.
    #[error("{0}; restore it from a backup")]
    Tampered(String),
    /// The caller, or all callers together, hold too many open challenges.
    #[error("{0}")]
    TooManyChallenges(ChallengeError),
    /// Our own bug: two parts of the daemon disagree.
    #[error("internal inconsistency: {0}")]
    Bug(&'static str),
}

impl From<NotOnRecord> for Failure {
    fn from(_: NotOnRecord) -> Self {
        Self::Bug("a commit receipt without the committed leaf")
    }
}

impl From<PermitMismatch> for Failure {
    fn from(_: PermitMismatch) -> Self {
        Self::Bug("a permit for something else")
    }
}

/// A refusal found while loading, or a failure of the environment. The pipeline sends the first
/// kind through the one decision, so that it is recorded.
#[derive(Debug)]
pub(crate) enum Early {
    /// To be decided on and recorded.
    Refuse(Refusal),
    /// Nothing can be decided.
    Fail(Failure),
}

impl From<Refusal> for Early {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl From<Failure> for Early {
    fn from(failure: Failure) -> Self {
        Self::Fail(failure)
    }
}

impl From<CryptoError> for Early {
    fn from(error: CryptoError) -> Self {
        match error {
            // An edited row is refused by name, and the refusal stands in the log.
            CryptoError::RowTampered { row } => Self::Refuse(Refusal::RowTampered { row }),
            error => Self::Fail(error.into()),
        }
    }
}

impl From<StoreError> for Early {
    fn from(error: StoreError) -> Self {
        Self::Fail(error.into())
    }
}
