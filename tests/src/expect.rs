//! What a test expects of an answer.

use kms_client::{ClientError, Code};

/// How the daemon refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The gRPC code.
    pub code: Code,
    /// The published reason.
    pub reason: String,
    /// The text for people.
    pub message: String,
    /// Where the refusal stands in the log.
    pub audit_index: Option<u64>,
}

/// Expects that the daemon refused.
///
/// # Panics
/// When it did not, or could not be asked.
#[track_caller]
pub fn refused<T>(answer: Result<T, ClientError>) -> Refusal {
    match answer {
        Err(ClientError::Refused { code, reason, message, audit_index }) => {
            Refusal { code, reason, message, audit_index }
        }
        Err(other) => panic!("expected a refusal, saw {other:?}"),
        Ok(_) => panic!("expected a refusal, and it was done"),
    }
}

/// Expects that the daemon refused for `reason`.
///
/// # Panics
/// As [`refused`], and when it was another reason.
#[track_caller]
pub fn refused_for<T>(answer: Result<T, ClientError>, reason: &str) -> Refusal {
    let refusal = refused(answer);
    assert_eq!(refusal.reason, reason, "{}", refusal.message);
    refusal
}
