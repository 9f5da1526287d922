//! Receipts, good and tampered with.

// The helpers of a test may unwrap as the test itself does.
#![allow(clippy::unwrap_used)]

use ed25519_dalek::{Signer, SigningKey};
use kms_core::audit::merkle::{self, Frontier};
use kms_core::audit::{Leaf, LeafOutcome};
use kms_core::claims::Outcome;
use kms_core::id::{Home, KeyName, Nonce, OperationId};
use kms_core::key::ReleaseRequirement;
use kms_core::receipt::RECEIPT_TYPE;
use kms_core::transcript::Suite;
use kms_verify::{
    Checkpoint, Digest, EvidenceKind, LogKey, Receipt, Timestamp, TrustRoot, Verdict,
    verify_receipt,
};
use sha2::{Digest as _, Sha256};

const EVIDENCE: &[u8] = b"what the workload sent";

fn secret() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn key() -> LogKey {
    LogKey::new("kms/test", secret().verifying_key().as_bytes()).unwrap()
}

fn requirement() -> ReleaseRequirement {
    ReleaseRequirement {
        kinds: [EvidenceKind::Snp].into(),
        may_be_unestablished: ["revocation".to_owned()].into(),
        policy: "package policy\nallow := true".into(),
        free_usages: [].into(),
    }
}

/// A receipt of a log with two leaves, of which the second is the release.
fn receipt() -> Receipt {
    let home = Home { tenant: "default".parse().unwrap(), region: "here".parse().unwrap() };
    let version = KeyName::parse("ring/key", &home).unwrap().version(1);
    let evidence_digest = Digest(Sha256::digest(EVIDENCE).into());
    let mut verdict = Verdict::default();
    verdict.note("chain", Outcome::Established);
    verdict.note("revocation", Outcome::NotEstablished("no list".into()));
    let leaf = Leaf {
        time_ms: 5,
        operation_id: vec![3; 16],
        action: "ReleaseKey".into(),
        resource: version.to_string(),
        region: "here".into(),
        request_digest: vec![4; 32],
        requirement_digest: requirement().digest().as_bytes().to_vec(),
        evidence_digest: evidence_digest.as_bytes().to_vec(),
        recipient_digest: vec![6; 32],
        outcome: LeafOutcome::Granted.into(),
        app: "ab".into(),
        not_established: vec!["revocation".into()],
        trust_root: TrustRoot::Vendor.to_string(),
        verdict_digest: verdict.digest().as_bytes().to_vec(),
        ..Leaf::default()
    };
    let first = merkle::leaf_hash(b"first");
    let mut frontier = Frontier::default();
    frontier.append(first);
    frontier.append(leaf.hash());
    let head = Checkpoint { origin: "kms/test".into(), size: 2, root: frontier.root() };
    let signature = secret().sign(head.text().as_bytes()).to_bytes();
    Receipt {
        type_: RECEIPT_TYPE.into(),
        version,
        time_ms: Timestamp(5),
        operation_id: OperationId([3; 16]),
        nonce: Nonce([1; 32]),
        request_digest: Digest([4; 32]),
        transcript: "00".repeat(64),
        evidence_digest,
        evidence_kind: EvidenceKind::Snp,
        trust_root: TrustRoot::Vendor,
        verdict,
        measurement: "ab".into(),
        requirement: requirement(),
        suite: Suite::XWingHkdfSha256Aes256Gcm,
        recipient_digest: Digest([6; 32]),
        approvers: [].into(),
        leaf: hex::encode(leaf.to_bytes()),
        audit_index: 1,
        inclusion_proof: vec![first],
        checkpoint: head.signed(&key(), &signature),
    }
}

#[test]
fn a_receipt_convinces_with_the_log_key_and_the_evidence() {
    let bytes = receipt().to_bytes().unwrap();
    let alone = verify_receipt(&bytes, &key(), None);
    assert!(alone.accepted, "{:?}", alone.reasons);
    assert_eq!((alone.evidence_matches, alone.log_size), (None, Some(2)));
    assert_eq!(alone.not_established, ["revocation"]);
    let with = verify_receipt(&bytes, &key(), Some(EVIDENCE));
    assert!(with.accepted && with.evidence_matches == Some(true));
    let other = verify_receipt(&bytes, &key(), Some(b"other"));
    assert!(!other.accepted && other.evidence_matches == Some(false));
    assert!(serde_json::to_value(&with).unwrap()["receipt"]["nonce"].is_string());
}

#[test]
fn another_logs_key_does_not_convince() {
    let other = SigningKey::from_bytes(&[8; 32]);
    let key = LogKey::new("kms/test", other.verifying_key().as_bytes()).unwrap();
    assert!(!verify_receipt(&receipt().to_bytes().unwrap(), &key, None).accepted);
}

#[test]
fn what_the_leaf_says_cannot_be_told_otherwise() {
    type Change = (&'static str, fn(&mut Receipt));
    let changes: [Change; 12] = [
        ("type", |r| r.type_ = "other".into()),
        ("version", |r| r.version.number = 2),
        ("time", |r| r.time_ms = Timestamp(6)),
        ("operation", |r| r.operation_id = OperationId([0; 16])),
        ("request", |r| r.request_digest = Digest([0; 32])),
        ("evidence", |r| r.evidence_digest = Digest([0; 32])),
        ("verdict", |r| r.verdict = Verdict::default()),
        ("measurement", |r| r.measurement = "cd".into()),
        ("requirement", |r| r.requirement.policy.push(' ')),
        ("recipient", |r| r.recipient_digest = Digest([0; 32])),
        ("approvers", |r| r.approvers.extend(["users/eve".to_owned()])),
        ("index", |r| r.audit_index = 0),
    ];
    for (name, change) in changes {
        let mut receipt = receipt();
        change(&mut receipt);
        let report = verify_receipt(&receipt.to_bytes().unwrap(), &key(), None);
        assert!(!report.accepted, "{name}");
    }
}

#[test]
fn cuts_and_other_spellings_are_no_receipts() {
    let bytes = receipt().to_bytes().unwrap();
    for cut in 0..bytes.len() {
        assert!(!verify_receipt(&bytes[..cut], &key(), None).accepted, "cut at {cut}");
    }
    let spaced = [bytes.as_slice(), b"\n"].concat();
    let report = verify_receipt(&spaced, &key(), None);
    assert!(!report.accepted && report.receipt.is_none());
}
