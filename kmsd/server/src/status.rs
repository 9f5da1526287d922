//! The one table from our errors to gRPC codes and published reasons.

use std::collections::HashMap;

use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_proto::v1;
use kms_store::StoreError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::failure::Failure;

/// What a failure is called on the wire.
#[derive(Debug)]
pub(crate) struct Told {
    /// gRPC code.
    pub(crate) code: Code,
    /// Published reason, as in `ErrorInfo.reason`.
    pub(crate) reason: &'static str,
    /// For people; says what to do.
    pub(crate) message: String,
    /// Where the log speaks of it.
    pub(crate) audit_index: Option<u64>,
}

/// Decides what a caller is told.
pub(crate) fn tell(failure: &Failure) -> Told {
    match failure {
        Failure::Refused { refusal, audit_index } => {
            Told { audit_index: Some(*audit_index), ..refused(refusal) }
        }
        Failure::Crypto(error) => crypto(error),
        Failure::Store(error) => store(error),
        // The pipeline has put it on record, or could not.
        Failure::Late(refusal) => refused(refusal),
        Failure::SealedMeanwhile => told(Code::Unavailable, "SEALED", failure.to_string()),
        Failure::Tampered(_) => told(Code::DataLoss, "ROW_TAMPERED", failure.to_string()),
        Failure::TooManyChallenges(error) => {
            told(Code::ResourceExhausted, "TOO_MANY_CHALLENGES", error.to_string())
        }
        Failure::Unknown => told(Code::Unavailable, "OUTCOME_UNKNOWN", failure.to_string()),
        Failure::Bug(what) => {
            tracing::error!(what, "internal inconsistency");
            told(Code::Internal, "INTERNAL", "internal error; see the daemon's log".to_owned())
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let Told { code, reason, message, audit_index } = tell(&failure);
        let metadata: HashMap<String, String> = audit_index
            .map(|index| ("audit_index".to_owned(), index.to_string()))
            .into_iter()
            .collect();
        let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        Self::with_error_details(code, message, details)
    }
}

impl From<&Failure> for v1::OperationError {
    fn from(failure: &Failure) -> Self {
        let Told { code, reason, message, audit_index } = tell(failure);
        Self { code: code.into(), reason: reason.to_owned(), message, audit_index }
    }
}

/// The answer to what is not known, since the client is newer.
pub(crate) fn unknown_request() -> v1::OperationError {
    v1::OperationError {
        code: Code::Unimplemented.into(),
        reason: "UNKNOWN_REQUEST".to_owned(),
        message: "the daemon does not know this request; is it older than the client?".to_owned(),
        audit_index: None,
    }
}

fn refused(refusal: &Refusal) -> Told {
    let refusal = refusal.told();
    told(refusal_code(refusal), refusal.reason(), refusal.to_string())
}

const fn refusal_code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::AlreadyExists | Refusal::NotKept => Code::AlreadyExists,
        Refusal::InvalidArgument { .. } => Code::InvalidArgument,
        Refusal::Failed => Code::Internal,
        Refusal::NotFound => Code::NotFound,
        Refusal::PinIncorrect => Code::Unauthenticated,
        Refusal::PinLocked | Refusal::TooManyTries => Code::ResourceExhausted,
        Refusal::RowTampered { .. } => Code::DataLoss,
        Refusal::Sealed => Code::Unavailable,
        Refusal::Stale => Code::Aborted,
        Refusal::Disabled
        | Refusal::IllegalTransition(_)
        | Refusal::LiveVersion { .. }
        | Refusal::NeedsApproval
        | Refusal::NothingToUndo
        | Refusal::OnlyTightens { .. }
        | Refusal::SelfTestFailed
        | Refusal::StateRefuses { .. }
        | Refusal::Unapproved(_)
        | Refusal::UsageRefused => Code::FailedPrecondition,
        _ => Code::PermissionDenied,
    }
}

fn crypto(error: &CryptoError) -> Told {
    match error {
        CryptoError::CiphertextRefused => {
            told(Code::InvalidArgument, "CIPHERTEXT_REFUSED", error.to_string())
        }
        CryptoError::RowTampered { .. } | CryptoError::VersionUnreadable { .. } => {
            told(Code::DataLoss, "ROW_TAMPERED", error.to_string())
        }
        CryptoError::SelfTest(failed) => {
            told(Code::FailedPrecondition, "SELF_TEST_FAILED", failed.to_string())
        }
        CryptoError::ProtectionLost => {
            told(Code::FailedPrecondition, "PROTECTION_LOST", error.to_string())
        }
        CryptoError::InputRefused { .. }
        | CryptoError::MaterialRefused
        | CryptoError::PinLength
        | CryptoError::PublicKeyInvalid { .. }
        | CryptoError::RandomTooLong { .. }
        | CryptoError::RecipientKeyInvalid
        | CryptoError::SignatureMalformed => {
            told(Code::InvalidArgument, "INVALID_ARGUMENT", error.to_string())
        }
        _ => {
            tracing::error!(%error, "cryptography failed");
            told(
                Code::Internal,
                "CRYPTO_FAILED",
                "the key operation failed; see the daemon's log".into(),
            )
        }
    }
}

fn store(error: &StoreError) -> Told {
    tracing::error!(%error, "the store failed");
    match error {
        StoreError::NotVouched => return told(Code::Unavailable, "SEALED", error.to_string()),
        // Who unseals must hear of it: nothing else is served until somebody acts.
        StoreError::RowsDisagree { .. } => {
            return told(Code::DataLoss, "ROW_TAMPERED", error.to_string());
        }
        _ => {}
    }
    told(
        Code::Unavailable,
        "STORE_UNAVAILABLE",
        "the store cannot answer; see the daemon's log".to_owned(),
    )
}

const fn told(code: Code, reason: &'static str, message: String) -> Told {
    Told { code, reason, message, audit_index: None }
}

/// `ErrorInfo.domain` of every error.
const DOMAIN: &str = "kms.v1";
