//! ReleaseKey: a key for a workload that proves itself, sealed to the HPKE key that its evidence
//! commits to, with a receipt that convinces a stranger.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use kms_attest::hook::rego::Policy;
use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::claims::{Appraised, Claims, EvidenceKind, EvidenceRefused};
use kms_core::id::{Home, Nonce, Resource};
use kms_core::key::ReleaseRequirement;
use kms_core::permit::{Grounds, Permit, Recorded, Refusal, Subject};
use kms_core::receipt::{RECEIPT_TYPE, Receipt};
use kms_core::transcript::{BindingProfile, Recipient, Suite, Transcript, request_digest};
use kms_proto::v1;
use kms_store::Condition;

use super::{VersionFacts, load_version, signed_checkpoint};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;
use crate::wire::{KeyOrVersion, bounded, evidence_kind, hex_encode, invalid, version_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ReleaseKey {
    version: KeyOrVersion,
    proof: Option<Proof>,
}

/// What the workload brings to prove itself.
#[derive(Debug)]
struct Proof {
    nonce: Nonce,
    kind: EvidenceKind,
    evidence: Vec<u8>,
    recipient: Recipient,
}

impl Operation for ReleaseKey {
    type Wire = v1::ReleaseKeyRequest;
    type Facts = VersionFacts;
    type Prepared = Receipt;
    type Reply = v1::ReleaseKeyResponse;

    const ACTION: Action = Action::ReleaseKey;

    fn parse(wire: v1::ReleaseKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::ReleaseKeyRequest {
            name,
            nonce,
            evidence,
            suite,
            recipient_public_key,
            request_id: _,
        } = wire;
        let version = KeyOrVersion::Version(version_name("name", &name, home)?);
        let mut evidence = evidence.into_iter();
        let (first, more) = (evidence.next(), evidence.next());
        if more.is_some() {
            return Err(invalid("evidence", "one piece of evidence is taken"));
        }
        let Some(evidence) = first else { return Ok(Self { version, proof: None }) };
        let suite = Suite::from_name(&suite)
            .ok_or_else(|| invalid("suite", "expected one of the offered HPKE suites"))?;
        let recipient = Recipient::new(suite, recipient_public_key)
            .map_err(|error| invalid("recipient_public_key", error))?;
        let nonce = Nonce::try_from(nonce.as_slice());
        let proof = Proof {
            nonce: nonce.map_err(|_| invalid("nonce", "expected the 32 bytes of a challenge"))?,
            kind: evidence_kind(&evidence.kind)?,
            evidence: bounded("evidence.data", evidence.data, EVIDENCE_BYTES_MAX)?,
            recipient,
        };
        Ok(Self { version, proof: Some(proof) })
    }

    // The request_id is not read: a challenge is good once, so a retry needs a new one anyway.

    fn named(&self) -> Resource {
        super::named(&self.version)
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<VersionFacts, Early> {
        load_version(cx, &self.version).await
    }

    fn resource(&self, facts: &VersionFacts) -> Resource {
        facts.resource.clone()
    }

    fn subject<'a>(&self, facts: &'a VersionFacts) -> Subject<'a> {
        facts.subject(None)
    }

    async fn grounds(
        &self,
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        facts: &VersionFacts,
    ) -> Result<Grounds, Early> {
        let (Some(proof), Some(found)) = (&self.proof, &facts.found) else {
            return Ok(Grounds::default());
        };
        let version = &found.version.value.header.version;
        // Used up before anything is verified, whatever comes of it.
        cx.challenges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .redeem(
                &proof.nonce,
                caller.principal(),
                &caller.channel().digest(),
                version,
                stamp.now,
            )
            .map_err(Refusal::from)?;
        let Some(requirement) = &found.key.value.requirement else {
            return Ok(Grounds::default());
        };
        let transcript = Transcript::new(
            BindingProfile::Native,
            &proof.nonce,
            &request_digest(version),
            &proof.recipient,
            &cx.identity(),
            caller.channel(),
        );
        // Signatures and policy take milliseconds; other tasks move to another worker meanwhile.
        let appraised =
            tokio::task::block_in_place(|| appraise(cx, proof, requirement, transcript, stamp));
        Ok(Grounds { evidence: Some(Box::new(appraised?)), approval: None })
    }

    fn unchanged(&self, facts: &VersionFacts) -> Vec<Condition> {
        facts.unchanged()
    }

    async fn prepare(
        &self,
        _cx: &Context,
        permit: &Permit,
        stamp: &Stamp,
        facts: &VersionFacts,
    ) -> Result<(Receipt, Vec<Draft>), Early> {
        let (Some(proof), Some(evidence)) = (&self.proof, permit.evidence()) else {
            return Err(Failure::Bug("a release was permitted without evidence").into());
        };
        let found = facts.found()?;
        let (claims, key) = (evidence.claims(), &found.key.value);
        let examination = claims.examination();
        let requirement = key.requirement.clone();
        let receipt = Receipt {
            type_: RECEIPT_TYPE.to_owned(),
            version: found.version.value.header.version.clone(),
            time_ms: stamp.now,
            operation_id: stamp.operation_id,
            nonce: proof.nonce,
            request_digest: stamp.request_digest,
            transcript: hex_encode(claims.transcript().as_bytes()),
            evidence_digest: examination.evidence_digest,
            evidence_kind: examination.kind,
            trust_root: examination.root,
            verdict: examination.verdict.clone(),
            measurement: examination.measurement.clone(),
            requirement: requirement.ok_or(Failure::Bug("a release of a key without a gate"))?,
            suite: claims.recipient().suite(),
            recipient_digest: claims.recipient().digest(),
            approvers: BTreeSet::new(),
            leaf: String::new(),
            audit_index: 0,
            inclusion_proof: Vec::new(),
            checkpoint: String::new(),
        };
        Ok((receipt, Vec::new()))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        facts: VersionFacts,
        receipt: Receipt,
        audit: v1::AuditReference,
    ) -> Result<v1::ReleaseKeyResponse, Failure> {
        let found = facts.found()?;
        let receipt = prove(cx, receipt, recorded.audit_index()).await?;
        let policy_digest = receipt.requirement.digest();
        let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
        let slot = found.slot(cx).await?;
        let public_key = found.public_key();
        let version = found.version_ref(&slot, &public_key);
        let answer =
            vault.release(recorded, &stamp.request_digest, version, &stamp.operation_id)?;
        Ok(v1::ReleaseKeyResponse {
            name: found.name(),
            encapsulated_key: answer.enc,
            ciphertext: answer.ciphertext,
            policy_digest: policy_digest.as_bytes().to_vec(),
            operation_id: stamp.operation_id.as_bytes().to_vec(),
            receipt: receipt.to_bytes().map_err(|_| Failure::Bug("a receipt without JSON form"))?,
            audit: Some(audit),
        })
    }
}

/// Verifies the evidence, binds it to this request and asks the key's policy.
fn appraise(
    cx: &Context,
    proof: &Proof,
    requirement: &ReleaseRequirement,
    transcript: Transcript,
    stamp: &Stamp,
) -> Result<Appraised, Refusal> {
    let refused = |reason: String| Refusal::EvidenceRefused { reasons: vec![reason] };
    let options = kms_attest::Options::default();
    let examined =
        kms_attest::examine(proof.kind, &proof.evidence, &cx.collateral, stamp.now, &options);
    let examination = examined.map_err(|unusable| refused(format!("evidence: {unusable}")))?;
    let believed = |EvidenceRefused { reasons }| Refusal::EvidenceRefused { reasons };
    let claims =
        Claims::bind(examination, transcript, proof.recipient.clone()).map_err(believed)?;
    let policy = Policy::compile(&requirement.policy)
        .map_err(|error| refused(format!("release-policy: {error}")))?;
    let answer = policy.evaluate(&claims.examination().document);
    Appraised::by_hook(claims, answer, requirement.digest()).map_err(believed)
}

/// Completes the receipt with the leaf, the proof and the signed head.
async fn prove(cx: &Context, receipt: Receipt, audit_index: u64) -> Result<Receipt, Failure> {
    let frontier = cx.store.log_frontier().await;
    let leaf = cx.store.leaves(audit_index, 1).await?.pop();
    let leaf = leaf.ok_or(Failure::Bug("a leaf that was just committed is missing"))?;
    Ok(Receipt {
        leaf: hex_encode(&leaf),
        audit_index,
        inclusion_proof: cx.store.inclusion_proof(audit_index, frontier.size()).await?,
        checkpoint: signed_checkpoint(cx, &frontier)?,
        ..receipt
    })
}

const EVIDENCE_BYTES_MAX: usize = 64 * 1024;
