//! What a verifier established about a workload, in one vocabulary for all vendors.
//!
//! An [`Examination`] says what was looked at and what came of it, good or bad; `kms-attest` makes
//! it. [`Claims`] exist only when every hard check passed **and** the evidence commits to the
//! transcript of this very request; they alone can move [`crate::permit::decide`] to release a key.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical;
use crate::id::Digest;
use crate::transcript::{Recipient, ReportData, Transcript};

/// The kinds of evidence that the appliance understands.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EvidenceKind {
    /// An AMD SEV-SNP attestation report.
    Snp,
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snp => "snp",
        })
    }
}

/// The text names no kind of evidence of ours. The caller's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown kind of evidence; known is snp")]
pub struct UnknownEvidenceKind;

impl FromStr for EvidenceKind {
    type Err = UnknownEvidenceKind;

    fn from_str(text: &str) -> Result<Self, UnknownEvidenceKind> {
        match text {
            "snp" => Ok(Self::Snp),
            _ => Err(UnknownEvidenceKind),
        }
    }
}

/// Whose root of trust the evidence chains to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TrustRoot {
    /// A root made by `kmsd dev`; proves nothing, is refused outside development.
    Development,
    /// The hardware vendor's.
    Vendor,
}

impl fmt::Display for TrustRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Development => "development",
            Self::Vendor => "vendor",
        })
    }
}

/// What came of one check.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "detail")]
#[non_exhaustive]
pub enum Outcome {
    /// Looked at and found right.
    Established,
    /// Looked at and found wrong: the evidence is refused.
    Failed(String),
    /// Could not be looked at (for example no revocation list was handed in).
    NotEstablished(String),
}

/// One thing looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at, for example `report-signature`.
    pub name: String,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// All checks, in the order in which they were made.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Verdict(Vec<Check>);

impl Verdict {
    /// Notes what came of one check.
    pub fn note(&mut self, name: &'static str, outcome: Outcome) {
        self.0.push(Check { name: name.to_owned(), outcome });
    }

    /// Notes a check that either holds or fails for `reason`.
    pub fn require(&mut self, name: &'static str, holds: bool, reason: impl FnOnce() -> String) {
        self.note(name, if holds { Outcome::Established } else { Outcome::Failed(reason()) });
    }

    /// Every check.
    pub fn checks(&self) -> &[Check] {
        &self.0
    }

    /// The digest by which the audit log knows it.
    pub fn digest(&self) -> Digest {
        canonical::digest(self)
            .expect("a verdict has only text keys, so it always has canonical form")
    }

    /// Each failure as `name: reason`.
    pub fn failures(&self) -> Vec<String> {
        let failure = |check: &Check| match &check.outcome {
            Outcome::Failed(reason) => Some(format!("{}: {reason}", check.name)),
            _ => None,
        };
        self.0.iter().filter_map(failure).collect()
    }

    /// The names of the checks that could not be made.
    pub fn not_established(&self) -> Vec<&str> {
        let open = |check: &&Check| matches!(check.outcome, Outcome::NotEstablished(_));
        self.0.iter().filter(open).map(|check| check.name.as_str()).collect()
    }
}

/// What a verifier saw in one piece of evidence, whether or not it is to be believed.
#[derive(Clone, Debug)]
pub struct Examination {
    /// The kind of evidence.
    pub kind: EvidenceKind,
    /// Whose root it chains to.
    pub root: TrustRoot,
    /// SHA-256 of the evidence as handed in.
    pub evidence_digest: Digest,
    /// The 64 bytes that the evidence commits to.
    pub report_data: ReportData,
    /// What was checked and what came of it.
    pub verdict: Verdict,
    /// The measured workload, as lower-case hexadecimal.
    pub measurement: String,
    /// Everything else that the evidence says, as the policy hook will see it.
    pub document: Value,
}

/// Why evidence is not believed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the evidence is refused: {}", .reasons.join("; "))]
pub struct EvidenceRefused {
    /// Every failed check, as `name: reason`.
    pub reasons: Vec<String>,
}

/// Evidence that is believed and bound to this request, with the recipient that it vouches for.
#[derive(Debug)]
#[must_use]
pub struct Claims {
    examination: Examination,
    recipient: Recipient,
    transcript: Transcript,
}

impl Claims {
    /// Believes `examination` if no check failed and its report data is that of `transcript`,
    /// which commits to the nonce, the request, the channel and the `recipient` key.
    ///
    /// # Errors
    /// [`EvidenceRefused`] with every reason.
    pub fn bind(
        mut examination: Examination,
        transcript: Transcript,
        recipient: Recipient,
    ) -> Result<Self, EvidenceRefused> {
        examination.verdict.require(
            "request-binding",
            examination.report_data == transcript.report_data(&[])
                && transcript.commits_to(&recipient),
            || {
                "the report data is not that of this challenge, request, channel and recipient key"
                    .to_owned()
            },
        );
        let reasons = examination.verdict.failures();
        if reasons.is_empty() {
            Ok(Self { examination, recipient, transcript })
        } else {
            Err(EvidenceRefused { reasons })
        }
    }

    /// What the verifier saw.
    pub const fn examination(&self) -> &Examination {
        &self.examination
    }

    /// The key that the answer is to be sealed to; there is no other source for it.
    pub const fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// What the evidence committed to.
    pub const fn transcript(&self) -> &Transcript {
        &self.transcript
    }
}

/// Claims on which the policy hook has said yes.
#[derive(Debug)]
#[must_use]
pub struct Appraised {
    claims: Claims,
    policy_digest: Digest,
}

/// What a policy hook says of claims.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HookAnswer {
    /// Release.
    Allow,
    /// Do not release, for these reasons.
    Deny(Vec<String>),
}

impl Appraised {
    /// Turns `claims` and the hook's `answer` under the policy of `policy_digest` into appraised
    /// claims.
    ///
    /// # Errors
    /// [`EvidenceRefused`] with the hook's reasons when it said no.
    pub fn by_hook(
        claims: Claims,
        answer: HookAnswer,
        policy_digest: Digest,
    ) -> Result<Self, EvidenceRefused> {
        match answer {
            HookAnswer::Allow => Ok(Self { claims, policy_digest }),
            HookAnswer::Deny(reasons) => {
                let reasons = reasons.into_iter().map(|r| format!("release-policy: {r}")).collect();
                Err(EvidenceRefused { reasons })
            }
        }
    }

    /// The claims.
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The digest of the policy that said yes.
    pub const fn policy_digest(&self) -> Digest {
        self.policy_digest
    }
}
