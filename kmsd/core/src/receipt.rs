//! What a release leaves behind: one document that convinces a stranger, offline.
//!
//! The receipt holds the audit leaf of the release, the proof that it stands in the log, the log's
//! signed head, and what the leaf's digests stand for. Checking it needs the log's public key and
//! nothing else; see [`Receipt::verify`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::audit::checkpoint::{Checkpoint, LogKey};
use crate::audit::{Leaf, LeafOutcome, merkle};
use crate::canonical;
use crate::claims::{EvidenceKind, TrustRoot, Verdict};
use crate::id::{Digest, Nonce, OperationId, Timestamp, VersionName};
use crate::key::ReleaseRequirement;
use crate::transcript::Suite;

/// The receipt of one release, as canonical JSON.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Always [`RECEIPT_TYPE`].
    #[serde(rename = "type")]
    pub type_: String,
    /// The version that was released; with it tenant and region.
    pub version: VersionName,
    /// When, by the appliance's clock.
    pub time_ms: Timestamp,
    /// Names the operation.
    pub operation_id: OperationId,
    /// The challenge that the evidence was made over.
    pub nonce: Nonce,
    /// Salted digest of the request.
    pub request_digest: Digest,
    /// The transcript `T0` that the evidence commits to, lower-case hexadecimal.
    pub transcript: String,
    /// Digest of the evidence.
    pub evidence_digest: Digest,
    /// Its kind.
    pub evidence_kind: EvidenceKind,
    /// Whose root it chains to.
    pub trust_root: TrustRoot,
    /// Every check, and what came of it; also what was not established.
    pub verdict: Verdict,
    /// The measured workload.
    pub measurement: String,
    /// What the key's owner required.
    pub requirement: ReleaseRequirement,
    /// HPKE suite of the answer.
    pub suite: Suite,
    /// Digest of the recipient's public key.
    pub recipient_digest: Digest,
    /// Who approved, when a quorum had to.
    pub approvers: BTreeSet<String>,
    /// The audit leaf, lower-case hexadecimal.
    pub leaf: String,
    /// Where it stands in the log.
    pub audit_index: u64,
    /// Proof that it stands there.
    pub inclusion_proof: Vec<Digest>,
    /// The log's signed head that the proof leads to.
    pub checkpoint: String,
}

/// Why a receipt does not convince. Each names the part that is wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Not a receipt.
    #[error("not a release receipt in canonical form")]
    Malformed,
    /// Signature of the head.
    #[error("the checkpoint is not signed by the given log key")]
    Checkpoint,
    /// Inclusion proof.
    #[error("the proof does not lead from the leaf to the checkpoint")]
    Inclusion,
    /// A field of the receipt differs from the leaf.
    #[error("{0} is not what the audit leaf says")]
    Differs(&'static str),
    /// The leaf is not that of a granted release.
    #[error("the audit leaf is not that of a granted release")]
    NotARelease,
    /// The verdict holds a failed check.
    #[error("the verdict holds a failed check")]
    Failed,
}

impl Receipt {
    /// Reads a receipt.
    ///
    /// # Errors
    /// [`ReceiptError::Malformed`] when it is not one in canonical form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReceiptError> {
        canonical::from_bytes(bytes).map_err(|_| ReceiptError::Malformed)
    }

    /// The receipt's bytes.
    ///
    /// # Errors
    /// Never for a receipt of this crate; see [`canonical::to_bytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, canonical::CanonicalError> {
        canonical::to_bytes(self)
    }

    /// Checks everything that can be checked with the log's public key alone.
    ///
    /// # Errors
    /// [`ReceiptError`] naming the first part that is wrong.
    pub fn verify(&self, key: &LogKey) -> Result<Checkpoint, ReceiptError> {
        let checkpoint =
            Checkpoint::verify(&self.checkpoint, key).map_err(|_| ReceiptError::Checkpoint)?;
        let bytes = hex::decode(&self.leaf).map_err(|_| ReceiptError::Malformed)?;
        let included = merkle::verify_inclusion(
            &merkle::leaf_hash(&bytes),
            self.audit_index,
            checkpoint.size,
            &self.inclusion_proof,
            &checkpoint.root,
        );
        if !included {
            return Err(ReceiptError::Inclusion);
        }
        let leaf = Leaf::from_bytes(&bytes).map_err(|_| ReceiptError::Malformed)?;
        self.agrees_with(&leaf)?;
        Ok(checkpoint)
    }

    fn agrees_with(&self, leaf: &Leaf) -> Result<(), ReceiptError> {
        // Destructured so that a field added to the receipt cannot go unchecked.
        let Self {
            type_,
            version,
            time_ms,
            operation_id,
            nonce: _, // in the transcript
            request_digest,
            transcript: _, // compared with the evidence itself by who holds it
            evidence_digest,
            evidence_kind,
            trust_root,
            verdict,
            measurement,
            requirement,
            suite: _, // in the transcript
            recipient_digest,
            approvers,
            leaf: _,
            audit_index: _,
            inclusion_proof: _,
            checkpoint: _,
        } = self;
        if type_ != RECEIPT_TYPE {
            return Err(ReceiptError::Malformed);
        }
        if leaf.action != "ReleaseKey" || leaf.outcome() != LeafOutcome::Granted {
            return Err(ReceiptError::NotARelease);
        }
        if !verdict.failures().is_empty() || !requirement.kinds.contains(evidence_kind) {
            return Err(ReceiptError::Failed);
        }
        let same = [
            ("version", leaf.resource == version.to_string()),
            ("region", leaf.region == version.key.ring.home.region.as_str()),
            ("time_ms", leaf.time_ms == time_ms.0),
            ("operation_id", leaf.operation_id == operation_id.as_bytes()),
            ("request_digest", leaf.request_digest == request_digest.as_bytes()),
            ("evidence_digest", leaf.evidence_digest == evidence_digest.as_bytes()),
            ("requirement", leaf.requirement_digest == requirement.digest().as_bytes()),
            ("recipient_digest", leaf.recipient_digest == recipient_digest.as_bytes()),
            ("measurement", leaf.app == *measurement),
            ("approvers", leaf.approvers.iter().cloned().collect::<BTreeSet<_>>() == *approvers),
            ("trust_root", leaf.trust_root == trust_root.to_string()),
            ("verdict", leaf.verdict_digest == verdict.digest().as_bytes()),
        ];
        match same.into_iter().find(|(_, same)| !same) {
            Some((field, _)) => Err(ReceiptError::Differs(field)),
            None => Ok(()),
        }
    }
}

/// The `type` of a receipt document.
pub const RECEIPT_TYPE: &str = "kms-release-receipt/v1";
