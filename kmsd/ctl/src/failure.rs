//! Why a command ends without a result, what to do next, and the exit code.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;

use kms_client::{ClientError, Code};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use serde_json::json;

use crate::output::Format;

/// Why a command ends without a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The call failed or was refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The daemon's answer does not hold together.
    #[error("the daemon's answer cannot be used: {0}")]
    Answer(&'static str),
    /// A file cannot be read or written.
    #[error("{path}: {cause}", path = .path.display())]
    File { path: PathBuf, cause: io::Error },
    /// The key was made, and its material was not taken: it waits.
    #[error("{cause}")]
    ImportUnfinished { version: String, cause: Box<Self> },
    /// Something that was handed in cannot be used.
    #[error("{0}")]
    Input(String),
    /// Something that was to be verified does not convince.
    #[error("not accepted: {0}")]
    NotAccepted(String),
    /// Standard output is gone.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// The machine gives no random bytes.
    #[error("the machine gives no random bytes")]
    Randomness,
    /// No runtime.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl Failure {
    /// Something handed in under the name `what` that cannot be used because of `why`.
    pub(crate) fn input(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Input(format!("{what}: {why}"))
    }

    /// See the module text of `main`.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) if error.needs_approval() => EXIT_NEEDS_APPROVAL,
            Self::Client(error) => match error {
                ClientError::Config(_) => EXIT_USAGE,
                ClientError::Deadline | ClientError::Unavailable(_) => EXIT_UNAVAILABLE,
                ClientError::Refused { code: Code::Unavailable, .. } => EXIT_UNAVAILABLE,
                ClientError::Refused { .. } => EXIT_REFUSED,
                _ => EXIT_FAILURE,
            },
            Self::ImportUnfinished { cause, .. } => cause.exit_code(),
            Self::File { .. } | Self::Input(_) => EXIT_USAGE,
            Self::NotAccepted(_) => EXIT_REFUSED,
            Self::Answer(_) | Self::Output(_) | Self::Randomness | Self::Runtime(_) => EXIT_FAILURE,
        }
    }

    /// Writes the failure to standard error, for people or for programs.
    pub(crate) fn print(&self, format: Format) {
        eprintln!("{}", self.render(format));
    }

    fn render(&self, format: Format) -> String {
        match format {
            Format::Json => {
                let mut error = json!({ "reason": self.reason(), "message": self.to_string() });
                if let Some(help) = self.next_step() {
                    error["next_step"] = json!(help);
                }
                if let Some(index) = self.audit_index() {
                    error["audit_index"] = json!(index);
                }
                json!({ "error": error }).to_string()
            }
            Format::Table => {
                let mut text = String::new();
                let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
                match handler.render_report(&mut text, self) {
                    Ok(()) => text,
                    Err(fmt::Error) => format!("error: {self}"),
                }
            }
        }
    }

    fn reason(&self) -> &str {
        match self {
            Self::Client(error) => match error {
                ClientError::Config(_) => "USAGE",
                ClientError::Deadline => "DEADLINE",
                ClientError::Internal(_) => "INTERNAL",
                ClientError::Protocol(_) => "PROTOCOL",
                ClientError::Unavailable(_) => "UNAVAILABLE",
                other => other.reason().unwrap_or("UNKNOWN"),
            },
            Self::Answer(_) => "PROTOCOL",
            Self::ImportUnfinished { cause, .. } => cause.reason(),
            Self::File { .. } | Self::Input(_) => "USAGE",
            Self::NotAccepted(_) => "NOT_ACCEPTED",
            Self::Output(_) | Self::Randomness | Self::Runtime(_) => "INTERNAL",
        }
    }

    /// Where the log speaks of it.
    fn audit_index(&self) -> Option<u64> {
        match self {
            Self::Client(ClientError::Refused { audit_index, .. }) => *audit_index,
            Self::ImportUnfinished { cause, .. } => cause.audit_index(),
            _ => None,
        }
    }

    fn next_step(&self) -> Option<Cow<'static, str>> {
        if let Self::ImportUnfinished { version, .. } = self {
            return Some(Cow::Owned(format!(
                "the key was made and waits for its material: repeat with `kmsctl key import {version} --in FILE`"
            )));
        }
        let step = match self.reason() {
            "ALREADY_EXISTS" => "names are never reused: choose another one",
            "DEADLINE" => "look with list or show whether it was done before you try again",
            "EVIDENCE_REQUIRED" => {
                "this key is for proven workloads only: run `kms-agent get-key` inside one"
            }
            "LAST_OFFICER" => {
                "enrol another security officer who can log in, then repeat: `kmsctl user grant NAME --role security-officer`"
            }
            "NEEDS_APPROVAL" => {
                "if it can be proposed, ask for approval with `kmsctl proposal create ACTION RESOURCE`, then `kmsctl proposal document`"
            }
            "NOT_ADMITTED" => {
                "ask a security officer: `kmsctl user show NAME` tells what was revoked"
            }
            "NOT_FOUND" => {
                "check the name, and with `kmsctl whoami` that you hold a role there: what you may not see is not found"
            }
            "ROLE_MISSING" => "`kmsctl whoami` shows your roles; a security officer grants others",
            "SEALED" => "open the root key with `kmsctl seal unseal`",
            "STALE" => "read the resource again and repeat",
            "UNAPPROVED" => "`kmsctl proposal show NAME` says whose approval is there",
            "UNAUTHENTICATED" => {
                "check --client-cert and --client-key, or that the socket is meant for you"
            }
            "UNAVAILABLE" => "check --addr or KMS_ADDR, and that kmsd is running",
            _ => return None,
        };
        Some(Cow::Borrowed(step))
    }
}

impl Diagnostic for Failure {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.reason()))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.next_step().map(|step| Box::new(step) as Box<dyn fmt::Display>)
    }
}

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;
pub(crate) const EXIT_REFUSED: u8 = 3;
pub(crate) const EXIT_NEEDS_APPROVAL: u8 = 4;
const EXIT_UNAVAILABLE: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code, reason: &str) -> Failure {
        Failure::Client(ClientError::Refused {
            code,
            reason: reason.to_owned(),
            message: "the message".to_owned(),
            audit_index: Some(9),
        })
    }

    #[test]
    fn exit_codes_are_those_of_the_help() {
        for (failure, code) in [
            (refused(Code::FailedPrecondition, "NEEDS_APPROVAL"), 4),
            (refused(Code::PermissionDenied, "ROLE_MISSING"), 3),
            (refused(Code::Unavailable, "SEALED"), 5),
            (Failure::Client(ClientError::Deadline), 5),
            (Failure::Client(ClientError::Internal("x".into())), 1),
            (Failure::Input("x".into()), 2),
            (Failure::NotAccepted("x".into()), 3),
        ] {
            assert_eq!(failure.exit_code(), code, "{failure:?}");
        }
    }

    #[test]
    fn programs_get_reason_message_and_index_on_one_line() {
        let line = refused(Code::PermissionDenied, "ROLE_MISSING").render(Format::Json);
        assert!(!line.contains('\n'));
        let error: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(error["error"]["reason"], "ROLE_MISSING");
        assert_eq!(error["error"]["message"], "the message");
        assert_eq!(error["error"]["audit_index"], 9);
    }

    #[test]
    fn an_import_that_failed_says_how_it_goes_on_and_is_otherwise_what_failed() {
        let cause = Box::new(refused(Code::InvalidArgument, "INVALID_ARGUMENT"));
        let failure = Failure::ImportUnfinished { version: "dev/k@1".into(), cause };
        assert_eq!((failure.exit_code(), failure.reason()), (3, "INVALID_ARGUMENT"));
        let line = failure.render(Format::Json);
        let error: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&error["error"]["message"], &error["error"]["audit_index"]),
            (&json!("the message"), &json!(9))
        );
        assert!(line.contains("kmsctl key import dev/k@1 --in FILE"), "{line}");
    }

    #[test]
    fn people_get_the_next_step() {
        let text = refused(Code::FailedPrecondition, "NEEDS_APPROVAL").render(Format::Table);
        assert!(text.contains("the message") && text.contains("kmsctl proposal create"), "{text}");
    }
}
