//! Is this evidence to be believed, and what does it say? `kmsctl attest verify` prints the answer.

use kms_attest::Options;
use kms_attest::collateral::Collateral;
use kms_attest::hook::rego::Policy;
use kms_core::claims::{EvidenceKind, Examination, HookAnswer, Verdict};
use kms_core::id::{Digest, Timestamp};
use kms_core::transcript::ReportData;
use serde::Serialize;
use serde_json::Value;

use crate::VerifyError;

/// What came of verifying one piece of evidence.
#[derive(Clone, Debug, Serialize)]
pub struct EvidenceReport {
    /// Whether no check failed. Checks that could not be made are in `not_established`.
    pub accepted: bool,
    /// The kind of evidence.
    pub kind: EvidenceKind,
    /// SHA-256 of the evidence.
    pub evidence_digest: Digest,
    /// The time for which this holds.
    pub at_ms: Timestamp,
    /// Every check and what came of it.
    pub verdict: Verdict,
    /// Each failed check and each denial of the policy, in words.
    pub reasons: Vec<String>,
    /// The checks that could not be made.
    pub not_established: Vec<String>,
    /// What the evidence says; to be believed only when accepted.
    pub document: Value,
    /// Collateral that was handed in and not used, and why.
    pub collateral_ignored: Vec<String>,
}

/// What evidence is held against.
#[derive(Clone, Debug, Default)]
pub struct Expectation<'a> {
    /// The report data that it must commit to.
    pub report_data: Option<ReportData>,
    /// A release policy in Rego that must allow it.
    pub policy: Option<&'a str>,
    /// What is permitted beyond the strict default.
    pub options: Options,
}

/// Verifies `evidence` of `kind` as of the time `at`.
///
/// # Errors
/// [`VerifyError`] when evidence or policy cannot be used at all.
pub fn verify_evidence(
    kind: EvidenceKind,
    evidence: &[u8],
    collateral: &Collateral,
    at: Timestamp,
    expected: &Expectation<'_>,
) -> Result<EvidenceReport, VerifyError> {
    let Expectation { report_data, policy, options } = expected;
    let policy = policy.map(Policy::compile).transpose()?;
    let mut examination = kms_attest::examine(kind, evidence, collateral, at, options)?;
    if let Some(expected) = report_data {
        let same = examination.report_data == *expected;
        examination.verdict.require("report-data", same, || {
            "the report data is not the one that is expected".to_owned()
        });
    }
    let Examination { kind, root: _, evidence_digest, mut verdict, document, .. } = examination;
    // As in the daemon, the policy is asked about evidence that is believed, and about no other.
    if let Some(policy) = policy.filter(|_| verdict.failures().is_empty()) {
        let answer = policy.evaluate(&document);
        verdict.require("release-policy", answer == HookAnswer::Allow, || match &answer {
            HookAnswer::Deny(reasons) => reasons.join("; "),
            _ => "the policy did not allow it".to_owned(),
        });
    }
    let reasons = verdict.failures();
    Ok(EvidenceReport {
        accepted: reasons.is_empty(),
        kind,
        evidence_digest,
        at_ms: at,
        reasons,
        not_established: verdict.not_established().into_iter().map(str::to_owned).collect(),
        verdict,
        document,
        collateral_ignored: collateral.ignored().to_vec(),
    })
}
