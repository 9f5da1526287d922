//! What anybody can check without the daemon and without a network: evidence, receipts, audit logs.
//!
//! It packages `kms-core` and `kms-attest` for tools that verify offline. Nothing here opens a file
//! or reads a clock: bytes and the time come in, a report goes out. A report says yes or no and why;
//! an error says that the input was not something to say yes or no about.

pub mod evidence;
pub mod log;
pub mod receipt;
pub mod statement;

pub use evidence::{EvidenceReport, Expectation, verify_evidence};
pub use kms_attest::collateral::Collateral;
pub use kms_attest::snp::{SnpEvidence, SnpPolicy};
pub use kms_attest::{CollateralError, Options, PolicyError, Unusable};
pub use kms_core::audit::checkpoint::{Checkpoint, LogKey};
pub use kms_core::claims::{EvidenceKind, TrustRoot, Verdict};
pub use kms_core::id::{Digest, Timestamp};
pub use kms_core::receipt::Receipt;
pub use kms_core::statement::KeyStatement;
pub use kms_core::transcript::{self, ReportData};
pub use log::{LogReport, Source, verify_inclusion, verify_log};
pub use receipt::{ReceiptReport, verify_receipt};
pub use statement::{StatementReport, verify_statement};

/// The input cannot be verified because it cannot be used: the caller's mistake, not a refusal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The collateral.
    #[error(transparent)]
    Collateral(#[from] CollateralError),
    /// The evidence.
    #[error(transparent)]
    Evidence(#[from] Unusable),
    /// The policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The folder or archive that a log was exported to.
    #[error("{path}: {reason}")]
    Source {
        /// Which file.
        path: String,
        /// What the source said.
        reason: String,
    },
}
