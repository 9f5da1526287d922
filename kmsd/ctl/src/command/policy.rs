//! Policies that come as JSON files: quorums and release requirements.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kms_client::v1;
use kms_core::action::Action;
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::claims::EvidenceKind;
use kms_core::key::POLICY_BYTES_MAX;
use kms_core::mechanism::Mechanism;
use kms_core::quorum::{Approvers, Member, QuorumPolicy};
use kms_core::ring_policy::{LegacyKeys, RingKind, RingPolicy};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::input;

/// Reads `{"guards": [...], "approvers": {"n": 2, "members": [...]}}`.
pub(crate) fn quorum(path: &Path) -> Result<v1::QuorumPolicy, Failure> {
    let policy: QuorumPolicy = input::parse_json(path)?;
    // What comes with a guarded use, and cannot be guarded by itself, the daemon adds.
    let guardable = Action::ALL.iter().filter(|action| action.guardable());
    let guards = guardable.filter(|action| policy.guards(**action));
    Ok(v1::QuorumPolicy {
        guards: guards.map(ToString::to_string).collect(),
        approvers: Some(approvers(policy.approvers())),
    })
}

fn approvers(tree: &Approvers) -> v1::Approvers {
    use v1::approver::Approver;
    let member = |member: &Member| {
        let approver = match member {
            Member::Group(group) => Some(Approver::Group(approvers(group))),
            Member::Principal(name) => Some(Approver::Principal(name.to_string())),
            _ => None,
        };
        v1::Approver { approver }
    };
    v1::Approvers { n: tree.n, members: tree.members.iter().map(member).collect() }
}

/// A release requirement as people write it: the policy may stand in a file beside.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    kinds: BTreeSet<EvidenceKind>,
    #[serde(default)]
    may_be_unestablished: BTreeSet<String>,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    policy_file: Option<PathBuf>,
    #[serde(default)]
    free_usages: BTreeSet<Usage>,
}

/// Reads `{"kinds": ["snp"], "policy_file": "release.rego", ...}`.
pub(crate) fn release_requirement(path: &Path) -> Result<v1::ReleaseRequirement, Failure> {
    let requirement: Requirement = input::parse_json(path)?;
    let Requirement { kinds, may_be_unestablished, policy, policy_file, free_usages } = requirement;
    let policy = match (policy, policy_file) {
        (Some(text), None) => text,
        (None, Some(file)) => {
            input::read_text(&path.parent().unwrap_or_else(|| Path::new("")).join(file))?
        }
        _ => {
            return Err(Failure::input(
                path.display(),
                "expected either \"policy\" (Rego text) or \"policy_file\"",
            ));
        }
    };
    if policy.len() > POLICY_BYTES_MAX {
        let limit = format!("the policy is longer than {POLICY_BYTES_MAX} bytes");
        return Err(Failure::input(path.display(), limit));
    }
    Ok(v1::ReleaseRequirement {
        kinds: kinds.iter().map(ToString::to_string).collect(),
        may_be_unestablished: may_be_unestablished.into_iter().collect(),
        policy,
        free_usages: free_usages.into_iter().filter_map(usage).map(i32::from).collect(),
    })
}

/// Reads what the keys of a ring may be and do. What is left out takes nothing away.
pub(crate) fn ring(path: &Path) -> Result<v1::RingPolicy, Failure> {
    let wrong = |error| Failure::input(path.display(), error);
    let given: Map<String, Value> = input::parse_json(path)?;
    let mut whole = serde_json::to_value(RingPolicy::default()).map_err(wrong)?;
    for (name, value) in given {
        whole[name] = value;
    }
    let policy: RingPolicy = serde_json::from_value(whole).map_err(wrong)?;
    let RingPolicy { kind, algorithms, mechanisms, required_labels, legacy_keys } = policy;
    let kind = match kind {
        RingKind::Compatible => v1::RingKind::Compatible,
        _ => v1::RingKind::Hardened,
    };
    let legacy_keys = match legacy_keys {
        LegacyKeys::Allowed => v1::LegacyKeys::Allowed,
        LegacyKeys::Prohibited => v1::LegacyKeys::Prohibited,
        _ => v1::LegacyKeys::UnprotectOnly,
    };
    let algorithm =
        |algorithm: Algorithm| v1::Algorithm::from_str_name(&format!("ALGORITHM_{algorithm}"));
    let mechanism =
        |mechanism: Mechanism| v1::Mechanism::from_str_name(&format!("MECHANISM_{mechanism}"));
    Ok(v1::RingPolicy {
        kind: kind.into(),
        algorithms: algorithms.into_iter().filter_map(algorithm).map(i32::from).collect(),
        mechanisms: mechanisms.into_iter().filter_map(mechanism).map(i32::from).collect(),
        required_labels: required_labels.into_iter().collect(),
        legacy_keys: legacy_keys.into(),
    })
}

/// The wire's name of a usage.
fn usage(usage: Usage) -> Option<v1::Usage> {
    let name = serde_json::to_value(usage).ok()?;
    v1::Usage::from_str_name(&format!("USAGE_{}", name.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_ring_policy_reads_back_as_it_is_shown_and_mistakes_do_not() {
        let (_folder, path) = file(
            r#"{"kind": "COMPATIBLE", "algorithms": ["AES_256"], "required_labels": ["owner"],
                "legacy_keys": "PROHIBITED"}"#,
        );
        let policy = ring(&path).unwrap();
        let shown = crate::view::ring_policy(policy.clone());
        let (_folder, path) = file(&shown.to_string());
        assert_eq!(ring(&path).unwrap(), policy);
        let (_folder, path) = file("{}");
        assert_eq!(ring(&path).unwrap().legacy_keys(), v1::LegacyKeys::UnprotectOnly);
        for bad in [r#"{"kind": "SOFT"}"#, r#"{"algorithms": ["ROT13"]}"#, r#"{"extra": 1}"#, "[]"]
        {
            let (_folder, path) = file(bad);
            assert_eq!(ring(&path).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_quorum_reads_with_its_groups() {
        let (_folder, path) = file(
            r#"{"guards": ["DestroyKeyVersion"], "approvers": {"n": 2, "members":
                ["users/a", {"n": 1, "members": ["users/b", "users/c"]}]}}"#,
        );
        let policy = quorum(&path).unwrap();
        // A quorum over the end of a key is one over its date, too.
        assert_eq!(policy.guards, ["DestroyKeyVersion", "ScheduleDestroyKeyVersion"]);
        let tree = policy.approvers.unwrap();
        assert_eq!((tree.n, tree.members.len()), (2, 2));
        let Some(v1::approver::Approver::Group(group)) = &tree.members[1].approver else {
            panic!("expected a group");
        };
        assert_eq!(group.members.len(), 2);
    }

    #[test]
    fn a_quorum_over_uses_is_one_over_export_and_can_be_sent() {
        for guarded in Action::ALL.iter().filter(|action| action.takes_arguments()) {
            let (_folder, path) = file(&format!(
                r#"{{"guards": ["{guarded}"], "approvers": {{"n": 1, "members": ["users/a"]}}}}"#
            ));
            let opens = ["Decrypt", "ReEncrypt", "UnwrapKey"];
            let mut expected = match opens.contains(&guarded.as_str()) {
                true => opens.to_vec(),
                false => vec![guarded.as_str()],
            };
            expected.push("ExportKeyVersion");
            expected.sort_unstable();
            let mut guards = quorum(&path).unwrap().guards;
            guards.sort_unstable();
            assert_eq!(guards, expected);
        }
    }

    #[test]
    fn a_quorum_that_makes_no_sense_is_refused_here() {
        for text in [
            r#"{"guards": [], "approvers": {"n": 1, "members": ["users/a"]}}"#,
            r#"{"guards": ["Sign"], "approvers": {"n": 2, "members": ["users/a"]}}"#,
            r#"{"guards": ["Sing"], "approvers": {"n": 1, "members": ["users/a"]}}"#,
            r#"{"guards": ["Sign"], "approvers": {"n": 1, "members": ["users/a"]}, "x": 1}"#,
            "[]",
        ] {
            let (_folder, path) = file(text);
            assert_eq!(quorum(&path).unwrap_err().exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn a_requirement_takes_its_policy_from_one_place() {
        let (folder, path) = file(
            r#"{"kinds": ["snp"], "policy_file": "p.rego",
            "may_be_unestablished": ["revocation"], "free_usages": ["ENCRYPT"]}"#,
        );
        std::fs::write(folder.path().join("p.rego"), "package policy").unwrap();
        let requirement = release_requirement(&path).unwrap();
        assert_eq!(requirement.policy, "package policy");
        assert_eq!(requirement.kinds, ["snp"]);
        assert_eq!(requirement.free_usages, [i32::from(v1::Usage::Encrypt)]);
        for text in [
            r#"{"kinds": ["snp"]}"#,
            r#"{"kinds": ["snp"], "policy": "a", "policy_file": "p.rego"}"#,
            r#"{"kinds": ["tpm"], "policy": "a"}"#,
        ] {
            let (_folder, path) = file(text);
            assert_eq!(release_requirement(&path).unwrap_err().exit_code(), 2, "{text}");
        }
    }
}
