//! What can be wrong with the inputs, as opposed to what the checks say of them.

use kms_core::claims::EvidenceKind;
use kms_core::key::POLICY_BYTES_MAX;

use crate::collateral::{BLOB_BYTES_MAX, BLOBS_MAX};
use crate::snp::ENVELOPE_BYTES_MAX;

/// The bytes handed in are not evidence that anything could be said of. The caller's mistake.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// A certificate inside the evidence cannot be read.
    #[error("the certificate {0:?} in the evidence is not one X.509 certificate in DER")]
    Certificate(&'static str),
    /// The envelope is not the JSON document that it should be.
    #[error("the evidence is neither a report nor a {} document", crate::snp::ENVELOPE_TYPE)]
    Envelope,
    /// This build examines no evidence of that kind.
    #[error("evidence of kind {0} is not understood")]
    Kind(EvidenceKind),
    /// A report of another length than the standard's.
    #[error("an SEV-SNP report is {expected} bytes long, not {0}", expected = crate::snp::report::REPORT_BYTES)]
    ReportLength(usize),
    /// The envelope is longer than any honest one.
    #[error("the evidence is longer than {ENVELOPE_BYTES_MAX} bytes")]
    TooLong,
}

/// A piece of collateral cannot be used. Whoever imported it should fetch it anew.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CollateralError {
    /// It looks like a certificate or a revocation list and cannot be read as one.
    #[error("{0}: not a readable X.509 certificate or revocation list")]
    Malformed(String),
    /// Handed in as a root, and not a self-issued ARK certificate.
    #[error("{0}: not a root certificate")]
    NotARoot(String),
    /// More than any honest set.
    #[error("more than {BLOBS_MAX} pieces of collateral")]
    TooMany,
    /// Longer than any honest piece.
    #[error("{0}: longer than {BLOB_BYTES_MAX} bytes")]
    TooLong(String),
}

/// A release policy cannot be used. Its author's mistake; the text says where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It uses a builtin that a policy may not use.
    #[error("the policy uses {0:?}, which could take unbounded memory or is not deterministic")]
    Builtin(&'static str),
    /// It declares no rule `allow`.
    #[error("the policy declares no rule `allow`")]
    NoAllow,
    /// It is of another package.
    #[error("the policy is of {0}, not of package `policy`")]
    Package(String),
    /// It is not Rego.
    #[error("the policy cannot be read: {0}")]
    Syntax(String),
    /// Brackets stand too deep in brackets.
    #[error("the policy nests brackets deeper than {}", crate::hook::rego::NESTING_MAX)]
    TooDeep,
    /// It is too long.
    #[error(
        "the policy is longer than {POLICY_BYTES_MAX} bytes or {} words",
        crate::hook::rego::WORDS_MAX
    )]
    TooLong,
}
