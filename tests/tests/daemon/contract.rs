//! Where two crates must say the same in their own words.

use kms_client::v1;
use kms_core::audit::{Leaf, LeafOutcome};
use kms_core::service::ServiceIndicator;
use prost::Message as _;

/// The rules hash a leaf of their own, clients read the published message: one change to either, and
/// no proof verifies any more.
#[test]
fn an_audit_leaf_has_the_same_bytes_in_the_rules_and_on_the_wire() {
    let rules = Leaf {
        time_ms: 1,
        operation_id: vec![2; 16],
        actor: "users/a".to_owned(),
        authentication: "pin".to_owned(),
        role: "auditor".to_owned(),
        action: "Sign".to_owned(),
        resource: "r".to_owned(),
        region: "local".to_owned(),
        request_digest: vec![9; 32],
        requirement_digest: vec![10; 32],
        evidence_digest: vec![11; 32],
        recipient_digest: vec![12; 32],
        proposal_digest: vec![13; 32],
        approvers: vec!["users/b".to_owned(), "users/c".to_owned()],
        outcome: LeafOutcome::Denied.into(),
        reason: "STALE".to_owned(),
        row_digests: vec![vec![17; 32], vec![18; 32]],
        app: "m".to_owned(),
        model: "llama".to_owned(),
        dataset: "d".to_owned(),
        not_established: vec!["revocation".to_owned()],
        count: 22,
        trust_root: "vendor".to_owned(),
        verdict_digest: vec![24; 32],
        quorum_digest: vec![25; 32],
        mechanism: "AES_GCM".to_owned(),
        other_resource: "other".to_owned(),
        began_at_index: 28,
        length_bytes: 29,
        service: ServiceIndicator::NotApproved.into(),
        row_set_root: vec![31; 32],
        row_set_sequence: 32,
        key_quorum_digest: vec![33; 32],
        lease_uses_max: 34,
        lease_until_ms: 35,
        use_digests: vec![36; 64],
    };
    let wire = v1::AuditLeaf::decode(rules.to_bytes().as_slice()).unwrap();
    assert_eq!(wire.encode_to_vec(), rules.to_bytes());
    // Destructured with all names, so that a field of only one of the two does not compile or differs.
    let v1::AuditLeaf {
        time_ms,
        operation_id,
        actor,
        authentication,
        role,
        action,
        resource,
        region,
        request_digest,
        requirement_digest,
        evidence_digest,
        recipient_digest,
        proposal_digest,
        approvers,
        outcome,
        reason,
        row_digests,
        app,
        model,
        dataset,
        not_established,
        count,
        trust_root,
        verdict_digest,
        quorum_digest,
        mechanism,
        other_resource,
        began_at_index,
        length_bytes,
        service,
        row_set_root,
        row_set_sequence,
        key_quorum_digest,
        lease_uses_max,
        lease_until_ms,
        use_digests,
    } = wire;
    let read = Leaf {
        time_ms,
        operation_id,
        actor,
        authentication,
        role,
        action,
        resource,
        region,
        request_digest,
        requirement_digest,
        evidence_digest,
        recipient_digest,
        proposal_digest,
        approvers,
        outcome,
        reason,
        row_digests,
        app,
        model,
        dataset,
        not_established,
        count,
        trust_root,
        verdict_digest,
        quorum_digest,
        mechanism,
        other_resource,
        began_at_index,
        length_bytes,
        service,
        row_set_root,
        row_set_sequence,
        key_quorum_digest,
        lease_uses_max,
        lease_until_ms,
        use_digests,
    };
    assert_eq!(read, rules);
    for (wire, rules) in [
        (v1::AuditOutcome::Unspecified as i32, LeafOutcome::Unspecified as i32),
        (v1::AuditOutcome::Granted as i32, LeafOutcome::Granted as i32),
        (v1::AuditOutcome::Denied as i32, LeafOutcome::Denied as i32),
        (v1::AuditOutcome::Finished as i32, LeafOutcome::Finished as i32),
        (v1::AuditOutcome::BrokenOff as i32, LeafOutcome::BrokenOff as i32),
    ] {
        assert_eq!(wire, rules);
    }
    for (wire, rules) in [
        (v1::ServiceIndicator::Unspecified as i32, ServiceIndicator::Unspecified as i32),
        (v1::ServiceIndicator::Approved as i32, ServiceIndicator::Approved as i32),
        (v1::ServiceIndicator::NotApproved as i32, ServiceIndicator::NotApproved as i32),
        (v1::ServiceIndicator::NotCryptographic as i32, ServiceIndicator::NotCryptographic as i32),
    ] {
        assert_eq!(wire, rules);
    }
}

/// Whoever reads a leaf without our code has only the published file to say what its fields mean.
#[test]
fn each_field_of_an_audit_leaf_is_explained_where_it_is_published() {
    let text = include_str!("../../../proto/kms/v1/audit.proto");
    let (_, leaf) = text.split_once("message AuditLeaf {\n").unwrap();
    let (leaf, _) = leaf.split_once("\n}").unwrap();
    let lines: Vec<&str> = leaf.lines().map(str::trim).collect();
    let fields = lines.iter().filter(|line| line.ends_with(';')).count();
    let explained = |pair: &&[&str]| pair[0].starts_with("// ") && pair[1].ends_with(';');
    assert_eq!(lines.windows(2).filter(explained).count(), fields);
    assert!(fields >= 36, "only {fields} fields were found");
}
