//! How the contract's messages look in JSON: stable snake_case members, names of enums without
//! their prefix, times in RFC 3339, digests in hexadecimal, public keys in PEM.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms_client::v1;
use kms_core::service::ServiceIndicator;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::output::Report;

/// Where an operation stands in the log, beside its result.
pub(crate) fn audited(report: Report, audit: Option<v1::AuditReference>) -> Report {
    let Some(audit) = audit else { return report };
    let v1::AuditReference { audit_index, request_salt, service, lease_use, lease_use_time_ms } =
        audit;
    let report = report
        .with("audit_index", json!(audit_index))
        .with("request_salt", json!(hex::encode(request_salt)))
        .with("service", json!(service_indicator(service)));
    if lease_use == 0 {
        return report;
    }
    report.with("lease_use", json!(lease_use)).with("lease_use_time_ms", json!(lease_use_time_ms))
}

/// Whether a service is an approved one.
pub(crate) fn service_indicator(number: i32) -> &'static str {
    match ServiceIndicator::try_from(number) {
        Ok(ServiceIndicator::Approved) => "APPROVED",
        Ok(ServiceIndicator::NotApproved) => "NOT_APPROVED",
        Ok(ServiceIndicator::NotCryptographic) => "NOT_CRYPTOGRAPHIC",
        Ok(ServiceIndicator::Unspecified) | Err(_) => "UNSPECIFIED",
    }
}

pub(crate) fn key_ring(ring: v1::KeyRing) -> Value {
    let v1::KeyRing { name, create_time, quorum, etag, policy } = ring;
    json!({
        "name": name,
        "create_time": create_time.map(timestamp),
        "policy": ring_policy(policy.unwrap_or_default()),
        "quorum": quorum.map(quorum_policy),
        "etag": etag,
    })
}

/// A ring's policy. What is not set means what the contract says of it.
pub(crate) fn ring_policy(policy: v1::RingPolicy) -> Value {
    let kind = match policy.kind() {
        v1::RingKind::Compatible => "COMPATIBLE",
        v1::RingKind::Hardened | v1::RingKind::Unspecified => "HARDENED",
    };
    let legacy_keys = match policy.legacy_keys() {
        v1::LegacyKeys::Allowed => "ALLOWED",
        v1::LegacyKeys::Prohibited => "PROHIBITED",
        v1::LegacyKeys::UnprotectOnly | v1::LegacyKeys::Unspecified => "UNPROTECT_ONLY",
    };
    let algorithms: Vec<String> = policy.algorithms().map(algorithm).collect();
    let mechanisms: Vec<String> = policy.mechanisms().map(mechanism).collect();
    json!({
        "kind": kind,
        "algorithms": algorithms,
        "mechanisms": mechanisms,
        "required_labels": policy.required_labels,
        "legacy_keys": legacy_keys,
    })
}

pub(crate) fn key(key: v1::Key) -> Value {
    let algorithm = algorithm(key.algorithm());
    let usages: Vec<String> = key.usages().map(usage).collect();
    let mechanisms: Vec<String> = key.mechanisms().map(mechanism).collect();
    let v1::Key {
        name,
        algorithm: _,
        usages: _,
        create_time,
        labels,
        release_requirement,
        quorum,
        model,
        dataset,
        primary_version,
        etag,
        pkcs11_label,
        pkcs11_id,
        mechanisms: _,
        length_bytes,
        exportable,
        trusted,
        delete_time,
        protect_floor,
        process_floor,
        rotation,
        latest_version,
        audit_each_use,
    } = key;
    let labels: std::collections::BTreeMap<_, _> = labels.into_iter().collect();
    json!({
        "name": name,
        "algorithm": algorithm,
        "length_bytes": (length_bytes != 0).then_some(length_bytes),
        "usages": usages,
        "mechanisms": mechanisms,
        "exportable": exportable,
        "trusted": trusted,
        "audit_each_use": audit_each_use,
        "primary_version": primary_version,
        "latest_version": latest_version,
        "protect_floor": protect_floor,
        "process_floor": process_floor,
        "rotation": rotation.map(rotation_plan),
        "create_time": create_time.map(timestamp),
        "delete_time": delete_time.map(timestamp),
        "labels": labels,
        "model": model,
        "dataset": dataset,
        "release_requirement": release_requirement.map(requirement),
        "quorum": quorum.map(quorum_policy),
        "pkcs11_label": pkcs11_label,
        "pkcs11_id": hex::encode(pkcs11_id),
        "etag": etag,
    })
}

pub(crate) fn key_version(version: v1::KeyVersion) -> Value {
    let (state, origin, undo_state) = (version.state(), version.origin(), version.undo_state());
    let kind = version.algorithm();
    let v1::KeyVersion {
        name,
        state: _,
        algorithm: _,
        create_time,
        state_change_time,
        public_key,
        etag,
        local,
        origin: _,
        enabled,
        activate_time,
        deactivate_time,
        destroy_time,
        compromise,
        undo_state: _,
        undo_expire_time,
        protection_count,
        certificate,
        ever_exportable,
        length_bytes,
    } = version;
    json!({
        "name": name,
        "state": state_name(state),
        "enabled": enabled,
        "algorithm": algorithm(kind),
        "length_bytes": (length_bytes != 0).then_some(length_bytes),
        "origin": short(origin.as_str_name(), "ORIGIN_"),
        "create_time": create_time.map(timestamp),
        "state_change_time": state_change_time.map(timestamp),
        "activate_time": activate_time.map(timestamp),
        "deactivate_time": deactivate_time.map(timestamp),
        "destroy_time": destroy_time.map(timestamp),
        "compromise": compromise.map(compromise_told),
        "undo_state": undo_expire_time.is_some().then(|| state_name(undo_state)),
        "undo_expire_time": undo_expire_time.map(timestamp),
        "protection_count": protection_count,
        "local": local,
        "ever_exportable": ever_exportable,
        "certificate": (!certificate.is_empty()).then(|| pem("CERTIFICATE", &certificate)),
        "public_key": (!public_key.is_empty()).then(|| public_key_pem(kind, &public_key)),
        "etag": etag,
    })
}

pub(crate) fn user(user: v1::User) -> Value {
    let state = short(user.state().as_str_name(), "USER_STATE_");
    let v1::User {
        name,
        ssh_keys,
        certificate_digests,
        unix_uids,
        grants,
        etag,
        credentials,
        state: _,
        create_time,
    } = user;
    json!({
        "name": name,
        "state": state,
        "grants": grants.into_iter().map(grant).collect::<Vec<_>>(),
        "ssh_keys": ssh_keys,
        "certificate_digests": certificate_digests.iter().map(hex::encode).collect::<Vec<_>>(),
        "unix_uids": unix_uids,
        "credentials": credentials.into_iter().map(credential).collect::<Vec<_>>(),
        "create_time": create_time.map(timestamp),
        "etag": etag,
    })
}

fn credential(credential: v1::Credential) -> Value {
    use v1::credential::Proof;
    let reason = short(credential.revoke_reason().as_str_name(), "COMPROMISE_REASON_");
    let v1::Credential { name, proof, create_time, expire_time, revoke_time, revoke_reason: _ } =
        credential;
    let proof = match proof {
        Some(Proof::SshKey(key)) => key,
        Some(Proof::CertificateDigest(digest)) => format!("x509 {}", hex::encode(digest)),
        Some(Proof::UnixUid(uid)) => format!("uid {uid}"),
        None => String::new(),
    };
    json!({
        "name": name,
        "proof": proof,
        "create_time": create_time.map(timestamp),
        "expire_time": expire_time.map(timestamp),
        "revoke_time": revoke_time.map(timestamp),
        "revoke_reason": revoke_time.is_some().then_some(reason),
    })
}

pub(crate) fn binding(binding: v1::Binding) -> Value {
    let v1::Binding { principal, grant } = binding;
    let v1::Grant { role, scope, expire_time } = grant.unwrap_or_default();
    json!({
        "principal": principal,
        "role": role,
        "scope": if scope.is_empty() { "appliance".to_owned() } else { scope },
        "expire_time": expire_time.map(timestamp),
    })
}

/// `role` or `role@scope`, and until when.
pub(crate) fn grant(grant: v1::Grant) -> String {
    let v1::Grant { role, scope, expire_time } = grant;
    let held = if scope.is_empty() { role } else { format!("{role}@{scope}") };
    match expire_time.and_then(timestamp) {
        Some(end) => format!("{held} until {end}"),
        None => held,
    }
}

pub(crate) fn token(token: v1::Token) -> Value {
    let compatible = token.kind() == v1::RingKind::Compatible;
    let mechanisms: Vec<String> = token.mechanisms().map(mechanism).collect();
    let v1::Token {
        name,
        label,
        serial,
        user_pin_set,
        kind: _,
        mechanisms: _,
        approved_only: _,
        pin_locks,
    } = token;
    let pin_locks: Vec<Value> = pin_locks.into_iter().map(pin_lock).collect();
    json!({
        "label": label,
        "serial": serial,
        "user_pin_set": user_pin_set,
        "pin_locks": pin_locks,
        "kind": if compatible { "COMPATIBLE" } else { "HARDENED" },
        "mechanisms": mechanisms,
        "name": name,
    })
}

fn pin_lock(lock: v1::PinLock) -> Value {
    let role = match lock.role() {
        v1::PinRole::SecurityOfficer => "security-officer",
        v1::PinRole::User => "user",
        v1::PinRole::Unspecified => "",
    };
    let v1::PinLock { role: _, peer, retry_time } = lock;
    json!({ "role": role, "peer": peer, "retry_time": retry_time.and_then(timestamp) })
}

pub(crate) fn proposal(proposal: v1::Proposal) -> Value {
    let state = proposal.state();
    let v1::Proposal {
        name,
        state: _,
        document: _, // `proposal document` and `proposal show` are for it
        action,
        resource,
        proposer,
        expire_time,
        approvers,
        approved,
        quorums,
    } = proposal;
    json!({
        "name": name,
        "state": short(state.as_str_name(), "PROPOSAL_STATE_"),
        "action": action,
        "resource": resource,
        "proposer": proposer,
        "expire_time": expire_time.map(timestamp),
        "approvers": approvers,
        "approved": approved,
        "quorums": quorums.into_iter().map(proposal_quorum).collect::<Vec<_>>(),
    })
}

/// One thing that happened to a key.
pub(crate) fn key_event(event: v1::KeyEvent) -> Value {
    let (from_state, to_state) = (event.from_state(), event.to_state());
    let v1::KeyEvent { time, actor, action, version, from_state: _, to_state: _, operation_id } =
        event;
    let stood = |state| (state != v1::State::Unspecified).then(|| state_name(state));
    json!({
        "time": time.map(timestamp),
        "actor": actor,
        "action": action,
        "version": version,
        "from_state": stood(from_state),
        "to_state": stood(to_state),
        "operation_id": hex::encode(operation_id),
    })
}

fn rotation_plan(rotation: v1::Rotation) -> Value {
    let v1::Rotation { period, next_rotation_time, uses_max } = rotation;
    json!({
        "period_seconds": period.map(|period| period.seconds),
        "next_rotation_time": next_rotation_time.map(timestamp),
        "uses_max": (uses_max != 0).then_some(uses_max),
    })
}

fn compromise_told(compromise: v1::Compromise) -> Value {
    let reason = short(compromise.reason().as_str_name(), "COMPROMISE_REASON_");
    json!({ "occur_time": compromise.occur_time.map(timestamp), "reason": reason })
}

fn state_name(state: v1::State) -> String {
    short(state.as_str_name(), "STATE_")
}

/// The published name of an algorithm.
pub(crate) fn algorithm(algorithm: v1::Algorithm) -> String {
    short(algorithm.as_str_name(), "ALGORITHM_")
}

/// The published name of a mechanism.
pub(crate) fn mechanism(mechanism: v1::Mechanism) -> String {
    short(mechanism.as_str_name(), "MECHANISM_")
}

/// The published name of a usage.
fn usage(usage: v1::Usage) -> String {
    short(usage.as_str_name(), "USAGE_")
}

fn requirement(requirement: v1::ReleaseRequirement) -> Value {
    let free: Vec<String> = requirement.free_usages().map(usage).collect();
    let v1::ReleaseRequirement { kinds, may_be_unestablished, policy, free_usages: _ } =
        requirement;
    json!({
        "kinds": kinds,
        "may_be_unestablished": may_be_unestablished,
        "policy": policy,
        "free_usages": free,
    })
}

fn proposal_quorum(quorum: v1::ProposalQuorum) -> Value {
    let v1::ProposalQuorum { guardian, policy_digest, approvers, missing, may_approve } = quorum;
    json!({
        "guardian": guardian,
        "policy_digest": hex::encode(policy_digest),
        "approvers": approvers,
        "missing": missing,
        "may_approve": may_approve,
    })
}

fn quorum_policy(policy: v1::QuorumPolicy) -> Value {
    let v1::QuorumPolicy { guards, approvers: tree } = policy;
    json!({ "guards": guards, "approvers": tree.map(approvers) })
}

fn approvers(tree: v1::Approvers) -> Value {
    use v1::approver::Approver;
    let member = |member: v1::Approver| match member.approver {
        Some(Approver::Group(group)) => approvers(group),
        Some(Approver::Principal(name)) => json!(name),
        None => Value::Null,
    };
    // The depth is the daemon's: prost refuses messages that nest deeper than 100.
    let members: Vec<Value> = tree.members.into_iter().map(member).collect();
    json!({ "n": tree.n, "members": members })
}

/// An enum's published name without the prefix that protobuf wants.
fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

pub(crate) fn timestamp(time: prost_types::Timestamp) -> Option<String> {
    let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?.format(&Rfc3339).ok()
}

/// Milliseconds since 1970 as RFC 3339; empty when they are beyond the year 9999.
pub(crate) fn time_ms(ms: u64) -> String {
    let nanos = i128::from(ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// A public key as PEM (RFC 7468 §13).
pub(crate) fn public_key_pem(algorithm: v1::Algorithm, public_key: &[u8]) -> String {
    pem(public_key_label(algorithm), public_key)
}

/// What public keys of an algorithm are called in PEM. Those of X-Wing are raw bytes, which no program is
/// to take for SubjectPublicKeyInfo.
pub(crate) const fn public_key_label(algorithm: v1::Algorithm) -> &'static str {
    match algorithm {
        v1::Algorithm::XWing => "X-WING PUBLIC KEY",
        _ => "PUBLIC KEY",
    }
}

/// DER as PEM (RFC 7468 §2), for what is public.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_stable() {
        let version = v1::KeyVersion {
            name: "dev/k1@1".into(),
            state: v1::State::PreActive.into(),
            algorithm: v1::Algorithm::EcP256.into(),
            create_time: Some(prost_types::Timestamp { seconds: 1, nanos: 500_000_000 }),
            ..Default::default()
        };
        let seen = key_version(version);
        assert_eq!(seen["state"], "PRE_ACTIVE");
        assert_eq!(seen["algorithm"], "EC_P256");
        assert_eq!(seen["create_time"], "1970-01-01T00:00:01.5Z");
        assert_eq!(seen["public_key"], Value::Null);
    }

    #[test]
    fn impossible_times_and_enums_do_not_panic() {
        let far = prost_types::Timestamp { seconds: i64::MAX, nanos: i32::MAX };
        assert_eq!(timestamp(far), None);
        assert_eq!(time_ms(u64::MAX), "");
        let unknown = v1::Key { algorithm: 99, usages: vec![2, 77], ..Default::default() };
        let seen = key(unknown);
        assert_eq!(seen["algorithm"], "UNSPECIFIED");
        assert_eq!(seen["usages"], json!(["DECRYPT"]));
    }

    #[test]
    fn a_public_key_is_pem_in_lines_of_64() {
        let pem = public_key_pem(v1::Algorithm::EcP256, &[7; 91]);
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\nBwcH"));
        assert!(pem.lines().all(|line| line.len() <= 64));
        let raw = public_key_pem(v1::Algorithm::XWing, &[7; 1216]);
        assert!(raw.starts_with("-----BEGIN X-WING PUBLIC KEY-----\n"));
    }
}
