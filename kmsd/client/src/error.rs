//! What can come of a call, kept apart by who has to act.

use std::error::Error;
use std::fmt;

use kms_proto::v1;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::config::ConfigError;

/// Why a call did not give an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The settings cannot be used. The user changes them.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No answer in time. What was asked may or may not have been done; asking again with the same
    /// `request_id` settles it.
    #[error("the daemon did not answer in time; the operation may or may not have been done")]
    Deadline,
    /// The daemon says that it failed. Its operator looks into its log.
    #[error("the daemon failed: {0}")]
    Internal(String),
    /// The peer answered what the contract does not allow: another version, or not the daemon.
    #[error("the peer does not speak kms.v1: {0}")]
    Protocol(&'static str),
    /// The daemon refuses. The caller changes the request, or gets the permission or approval.
    #[error("{message}")]
    Refused {
        /// The gRPC code.
        code: Code,
        /// The published reason, for programs.
        reason: String,
        /// For people; says what to do.
        message: String,
        /// Where the refusal stands in the audit log.
        audit_index: Option<u64>,
    },
    /// The daemon cannot be reached, or the connection broke. Trying again may help.
    #[error("the daemon cannot be reached: {0}")]
    Unavailable(Cause),
}

/// Everything that is known of a broken connection, as one line.
#[derive(Debug)]
pub struct Cause(Box<dyn Error + Send + Sync>);

impl ClientError {
    /// The published reason of a refusal.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Whether the action needs the approval of a quorum first.
    pub fn needs_approval(&self) -> bool {
        self.reason() == Some(NEEDS_APPROVAL)
    }

    pub(crate) fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(Cause(cause.into()))
    }

    /// Whether the same call may succeed a moment later.
    pub(crate) const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        // An ErrorInfo of ours makes it an answer of the daemon, whatever the code.
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
        if let Some(info) = info {
            return Self::Refused {
                code: status.code(),
                reason: info.reason,
                message: status.message().to_owned(),
                audit_index: info.metadata.get(AUDIT_INDEX).and_then(|index| index.parse().ok()),
            };
        }
        if status.code() == Code::DeadlineExceeded || is_timeout(&status) {
            return Self::Deadline;
        }
        // A status from the wire has no source: this one was made here, of a transport error.
        if status.source().is_some() {
            return Self::unavailable(status);
        }
        match status.code() {
            Code::Cancelled | Code::Unavailable => Self::unavailable(status),
            Code::DataLoss | Code::Internal | Code::Unknown => {
                Self::Internal(status.message().to_owned())
            }
            code => Self::Refused {
                code,
                reason: code_name(code).to_owned(),
                message: status.message().to_owned(),
                audit_index: None,
            },
        }
    }
}

impl From<v1::OperationError> for ClientError {
    fn from(error: v1::OperationError) -> Self {
        let v1::OperationError { code, reason, message, audit_index } = error;
        Self::Refused { code: Code::from_i32(code), reason, message, audit_index }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = match self.0.downcast_ref::<Status>() {
            Some(status) => status.message().to_owned(),
            None => self.0.to_string(),
        };
        f.write_str(&last)?;
        let mut source = self.0.source();
        // Libraries often repeat their source's text in their own.
        for _ in 0..SOURCES_MAX {
            let Some(cause) = source else { break };
            let text = cause.to_string();
            if !last.contains(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            source = cause.source();
        }
        Ok(())
    }
}

fn is_timeout(status: &Status) -> bool {
    let mut source = status.source();
    for _ in 0..SOURCES_MAX {
        let Some(cause) = source else { break };
        if cause.is::<TimeoutExpired>() {
            return true;
        }
        source = cause.source();
    }
    false
}

/// The name of a code as gRPC publishes it: the reason of a refusal that came without one.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Aborted => "ABORTED",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::Cancelled => "CANCELLED",
        Code::DataLoss => "DATA_LOSS",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Internal => "INTERNAL",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::Ok => "OK",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::Unavailable => "UNAVAILABLE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Unknown => "UNKNOWN",
    }
}

const DOMAIN: &str = "kms.v1";
const AUDIT_INDEX: &str = "audit_index";
const NEEDS_APPROVAL: &str = "NEEDS_APPROVAL";
/// Deepest chain of causes that is followed.
const SOURCES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn refusal(code: Code, domain: &str, reason: &str) -> ClientError {
        let metadata = [("audit_index".to_owned(), "41".to_owned())];
        let details = ErrorDetails::with_error_info(reason, domain, metadata);
        Status::with_error_details(code, "ask an approver", details).into()
    }

    #[test]
    fn a_published_reason_makes_a_refusal_whatever_the_code() {
        for code in [Code::FailedPrecondition, Code::Unavailable, Code::Internal] {
            let error = refusal(code, "kms.v1", "NEEDS_APPROVAL");
            assert!(error.needs_approval());
            let ClientError::Refused { audit_index, message, .. } = error else {
                panic!("expected a refusal");
            };
            assert_eq!((audit_index, message.as_str()), (Some(41), "ask an approver"));
        }
        let foreign = refusal(Code::PermissionDenied, "other.example", "NEEDS_APPROVAL");
        assert_eq!(foreign.reason(), Some("PERMISSION_DENIED"));
    }

    #[test]
    fn codes_without_a_reason_are_sorted_by_who_has_to_act() {
        let map = |code| ClientError::from(Status::new(code, "text"));
        assert!(matches!(map(Code::Unavailable), ClientError::Unavailable(_)));
        assert!(matches!(map(Code::DeadlineExceeded), ClientError::Deadline));
        assert!(matches!(map(Code::Internal), ClientError::Internal(text) if text == "text"));
        assert_eq!(map(Code::Unimplemented).reason(), Some("UNIMPLEMENTED"));
    }

    #[test]
    fn a_transport_error_is_unavailable_and_a_local_timeout_is_the_deadline() {
        let broken = std::io::Error::other("the pipe broke");
        let error = ClientError::from(Status::from_error(Box::new(broken)));
        let text = error.to_string();
        assert!(matches!(error, ClientError::Unavailable(_)), "{text}");
        assert_eq!(text, "the daemon cannot be reached: the pipe broke");
        let late = ClientError::from(Status::from_error(Box::new(TimeoutExpired(()))));
        assert!(matches!(late, ClientError::Deadline), "{late}");
    }

    #[test]
    fn a_damaged_audit_index_is_left_out() {
        let metadata = [("audit_index".to_owned(), "-1".to_owned())];
        let details = ErrorDetails::with_error_info("SEALED", "kms.v1", metadata);
        let status = Status::with_error_details(Code::Unavailable, "unseal", details);
        let ClientError::Refused { audit_index, .. } = status.into() else {
            panic!("expected a refusal");
        };
        assert_eq!(audit_index, None);
    }
}
