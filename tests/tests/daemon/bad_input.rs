//! Every field of every request, out of its range: a typed refusal that stands in the log, and a
//! daemon that goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;

use kms_client::blocking::Session;
use kms_client::v1::session_request::Request as Asked;
use kms_client::v1::{self, Algorithm};
use kms_client::{Client, ClientError, Code};
use kms_tests::proposal::propose;
use kms_tests::request::{create, create_key, key, quorum, requirement, sign, step};
use kms_tests::{Daemon, log, refused, refused_for};

type Answer = Pin<Box<dyn Future<Output = Result<(), ClientError>>>>;

/// `method` and `field` are as in the proto; a field may have several rows.
struct Bad {
    method: &'static str,
    field: &'static str,
    reason: &'static str,
    answer: Answer,
}

/// Fields that have no wrong value, and why.
const CANNOT_BE_WRONG: [(&str, &str, &str); 10] = [
    ("CreateKey", "pre_active", "a bool"),
    ("CreateKeyVersion", "pending_import", "a bool"),
    ("CreateKeyVersion", "pre_active", "a bool"),
    ("FindObjects", "id", "compared only: what nothing has, finds nothing"),
    ("FindObjects", "label", "compared only: what nothing has, finds nothing"),
    ("ListKeys", "show_deleted", "a bool"),
    ("ReleaseKey", "request_id", "not read: a challenge is good once, so nothing is retried"),
    ("SetKeyTrusted", "trusted", "a bool"),
    ("Sign", "digest", "tested as data, its oneof"),
    ("Verify", "digest", "tested as data, its oneof"),
];

const INVALID: &str = "INVALID_ARGUMENT";
const NOT_FOUND: &str = "NOT_FOUND";

macro_rules! bad {
    ($list:ident, $client:expr, $service:ident.$rpc:ident, $method:literal, $reason:expr,
     $($field:literal: $request:expr),+ $(,)?) => {$(
        let client = $client.clone();
        let request = $request;
        $list.push(Bad {
            method: $method,
            field: $field,
            reason: $reason,
            answer: Box::pin(async move {
                client.call(client.$service().$rpc(request)).await.map(drop)
            }),
        });
    )+};
}

#[tokio::test]
async fn every_field_out_of_range_is_refused_and_recorded() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let officer = daemon.officer_client().await;
    let mut list = key_management(&client, &officer).await;
    list.extend(crypto(&client).await);
    list.extend(identity_and_tokens(&client, &officer));
    list.extend(proposals(&client).await);
    list.extend(release_audit_and_seal(&client).await);
    let tested = list.iter().map(|bad| (bad.method, bad.field)).collect();
    for Bad { method, field, reason, answer } in list {
        let refusal = match answer.await {
            Ok(()) => panic!("{method}.{field}: taken"),
            other => refused(other),
        };
        assert_eq!(refusal.reason, reason, "{method}.{field}: {}", refusal.message);
        // A refusal that cannot be found in the log would be one that nobody can look into.
        log::assert_recorded(&client, &refusal, method).await;
        assert!(!refusal.message.is_empty());
    }
    sign(&client, "dev/bad-ec", b"still here").await.unwrap();
    assert_complete(&tested);
}

/// Every field of every unary method has a row, or a reason why not: a new one cannot be forgotten.
fn assert_complete(tested: &BTreeSet<(&str, &str)>) {
    let excused: BTreeSet<_> =
        CANNOT_BE_WRONG.iter().map(|(method, field, _)| (*method, *field)).collect();
    let mut missing = Vec::new();
    let contract = contract();
    assert!(contract.len() >= 45, "only {} methods were found", contract.len());
    for (method, fields) in &contract {
        for field in fields {
            let name = (method.as_str(), field.as_str());
            if !tested.contains(&name) && !excused.contains(&name) {
                missing.push(format!("{method}.{field}"));
            }
        }
    }
    assert!(missing.is_empty(), "no bad value is tried for {missing:?}");
}

/// The fields of each unary method's request, as the contract has them.
fn contract() -> BTreeMap<String, Vec<String>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/kms/v1");
    let files = std::fs::read_dir(folder).unwrap();
    let text: String =
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let mut methods = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")) {
        if line.contains("stream ") {
            continue;
        }
        let (method, request) = line.split_once('(').unwrap();
        let request = request.split(')').next().unwrap();
        let message = text.split_once(&format!("message {request} {{")).unwrap().1;
        let body = message.split("\n}").next().unwrap();
        let is_field = |line: &&str| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains(" = ") && code.trim_end().ends_with(';')
        };
        let fields = if message.starts_with('}') { "" } else { body }.lines().filter(is_field);
        let name = |line: &str| {
            line.split(" = ").next().unwrap().split_whitespace().last().unwrap().to_owned()
        };
        methods.insert(method.to_owned(), fields.map(name).collect());
    }
    methods
}

/// A key request with one change.
fn with(change: impl FnOnce(&mut v1::Key)) -> v1::CreateKeyRequest {
    let mut request = key("dev/bad-never-made", Algorithm::Aes256);
    change(request.key.as_mut().unwrap());
    request
}

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

async fn key_management(client: &Client, officer: &Client) -> Vec<Bad> {
    let key_name = "dev/bad-ec";
    let version = create_key(client, key_name, Algorithm::EcP256).await;
    create_key(client, "dev/bad-aes", Algorithm::Aes256).await;
    create_key(client, "dev/bad-mac", Algorithm::GenericSecret).await;
    let mut list = Vec::new();

    bad!(list, officer, keys.create_key_ring, "CreateKeyRing", INVALID,
        "name": v1::CreateKeyRingRequest::default(),
        "name": v1::CreateKeyRingRequest { name: "UPPER".into(), ..Default::default() },
        "name": v1::CreateKeyRingRequest { name: "a/b".into(), ..Default::default() },
        "name": v1::CreateKeyRingRequest { name: long(64), ..Default::default() },
        "name": v1::CreateKeyRingRequest {
            name: "tenants/other/locations/local/keyRings/r".into(),
            ..Default::default()
        },
        "request_id": v1::CreateKeyRingRequest {
            name: "bad".into(),
            request_id: vec![1; 15],
            ..Default::default()
        },
    );
    for policy in bad_quorums() {
        bad!(list, officer, keys.create_key_ring, "CreateKeyRing", INVALID,
            "quorum": v1::CreateKeyRingRequest {
                name: "bad".into(),
                quorum: Some(policy.clone()),
                ..Default::default()
            },
        );
        bad!(list, client, keys.create_key, "CreateKey", INVALID,
            "key": with(|key| key.quorum = Some(policy)));
    }
    bad!(list, client, keys.create_key, "CreateKey", INVALID,
        "key": v1::CreateKeyRequest::default(),
        "key": with(|key| key.name = String::new()),
        "key": with(|key| key.name = "no-ring".into()),
        "key": with(|key| key.name = "dev/UPPER".into()),
        "key": with(|key| key.name = "dev/a/b".into()),
        "key": with(|key| key.name = "dev/bad@1".into()),
        "key": with(|key| key.name = format!("dev/{}", long(64))),
        "key": with(|key| key.name = "tenants/default/locations/mars/keyRings/dev/keys/k".into()),
        "key": with(|key| key.algorithm = 0),
        "key": with(|key| key.algorithm = 99),
        "key": with(|key| key.usages = vec![99]),
        "key": with(|key| key.usages = vec![v1::Usage::Sign.into()]),
        "key": with(|key| key.labels = [(long(256), String::new())].into()),
        "key": with(|key| key.labels = [("a".into(), "line\nline".into())].into()),
        "key": with(|key| key.labels = (0..65).map(|n| (n.to_string(), String::new())).collect()),
        "key": with(|key| key.model = long(256)),
        "key": with(|key| key.dataset = "tab\t".into()),
        "key": with(|key| key.pkcs11_label = "\u{7f}".into()),
        "key": with(|key| key.pkcs11_id = vec![0; 4096]),
        "request_id": v1::CreateKeyRequest { request_id: vec![1; 17], ..with(|_| ()) },
    );
    for gate in bad_requirements() {
        bad!(list, client, keys.create_key, "CreateKey", INVALID,
            "key": with(|key| key.release_requirement = Some(gate)));
    }
    bad!(list, client, keys.create_key, "CreateKey", NOT_FOUND,
        "key": with(|key| key.name = "no-such-ring/k".into()));
    bad!(list, client, keys.create_key, "CreateKey", "ALREADY_EXISTS",
        "key": with(|key| key.name = key_name.into()));

    bad!(list, client, keys.get_key_ring, "GetKeyRing", INVALID,
        "name": v1::GetKeyRingRequest { name: "a b".into() });
    bad!(list, client, keys.get_key_ring, "GetKeyRing", NOT_FOUND,
        "name": v1::GetKeyRingRequest { name: "no-such-ring".into() });
    bad!(list, client, keys.get_key, "GetKey", INVALID,
        "name": v1::GetKeyRequest { name: "dev".into() });
    bad!(list, client, keys.get_key, "GetKey", NOT_FOUND,
        "name": v1::GetKeyRequest { name: "dev/no-such-key".into() });
    bad!(list, client, keys.get_key_version, "GetKeyVersion", INVALID,
        "name": v1::GetKeyVersionRequest { name: key_name.into() },
        "name": v1::GetKeyVersionRequest { name: "dev/bad-ec@0".into() },
        "name": v1::GetKeyVersionRequest { name: "dev/bad-ec@01".into() },
        "name": v1::GetKeyVersionRequest { name: "dev/bad-ec@4294967296".into() });
    bad!(list, client, keys.get_key_version, "GetKeyVersion", NOT_FOUND,
        "name": v1::GetKeyVersionRequest { name: "dev/bad-ec@2".into() });
    bad!(list, client, keys.get_public_key, "GetPublicKey", INVALID,
        "name": v1::GetPublicKeyRequest { name: "dev/bad-ec@x".into() });
    bad!(list, client, keys.get_public_key, "GetPublicKey", NOT_FOUND,
        "name": v1::GetPublicKeyRequest { name: "dev/no-such-key".into() });
    bad!(list, client, keys.list_keys, "ListKeys", INVALID,
        "parent": v1::ListKeysRequest { parent: "-".into(), ..Default::default() });
    bad!(list, client, keys.list_keys, "ListKeys", NOT_FOUND,
        "parent": v1::ListKeysRequest { parent: "no-such-ring".into(), ..Default::default() });
    bad!(list, client, keys.list_key_versions, "ListKeyVersions", INVALID,
        "parent": v1::ListKeyVersionsRequest { parent: "dev".into(), ..Default::default() });
    bad!(list, client, keys.list_key_versions, "ListKeyVersions", NOT_FOUND,
        "parent": v1::ListKeyVersionsRequest { parent: "dev/none".into(), ..Default::default() });
    for page_size in [-1, 501, i32::MIN, i32::MAX] {
        let (ring, parent) = ("dev".to_owned(), key_name.to_owned());
        bad!(list, client, keys.list_key_rings, "ListKeyRings", INVALID,
            "page_size": v1::ListKeyRingsRequest { page_size, ..Default::default() });
        bad!(list, client, keys.list_keys, "ListKeys", INVALID,
            "page_size": v1::ListKeysRequest { parent: ring, page_size, ..Default::default() });
        bad!(list, client, keys.list_key_versions, "ListKeyVersions", INVALID,
            "page_size": v1::ListKeyVersionsRequest { parent, page_size, ..Default::default() });
    }
    for token in ["zz", "f", "ff"] {
        let (ring, parent, page_token) = ("dev".to_owned(), key_name.to_owned(), token.to_owned());
        bad!(list, client, keys.list_key_rings, "ListKeyRings", INVALID,
        "page_token": v1::ListKeyRingsRequest {
            page_token: page_token.clone(),
            ..Default::default()
        });
        bad!(list, client, keys.list_keys, "ListKeys", INVALID,
        "page_token": v1::ListKeysRequest {
            parent: ring,
            page_token: page_token.clone(),
            ..Default::default()
        });
        bad!(list, client, keys.list_key_versions, "ListKeyVersions", INVALID,
            "page_token": v1::ListKeyVersionsRequest { parent, page_token, ..Default::default() });
    }

    let changed = |change: fn(&mut v1::Key), fields: &[&str]| {
        let mut key = v1::Key { name: key_name.to_owned(), ..Default::default() };
        change(&mut key);
        let update_fields = fields.iter().map(ToString::to_string).collect();
        v1::UpdateKeyRequest { key: Some(key), update_fields, request_id: Vec::new() }
    };
    bad!(list, client, keys.update_key, "UpdateKey", INVALID,
        "key": v1::UpdateKeyRequest::default(),
        "key": changed(|key| key.name = "dev".into(), &[]),
        "key": changed(|key| key.labels = [(long(256), String::new())].into(), &["labels"]),
        "key": changed(|key| key.pkcs11_label = long(256), &["pkcs11_label"]),
        "key": changed(|key| key.pkcs11_id = vec![0; 4096], &["pkcs11_id"]),
        "update_fields": changed(|_| (), &["algorithm"]),
        "update_fields": changed(|_| (), &["release_requirement"]),
        "update_fields": changed(|_| (), &[""]),
        "request_id": v1::UpdateKeyRequest { request_id: vec![0], ..changed(|_| (), &["labels"]) },
    );
    bad!(list, client, keys.update_key, "UpdateKey", "STALE",
        "key": changed(|key| key.etag = "old".into(), &["labels"]));
    bad!(list, client, keys.create_key_version, "CreateKeyVersion", INVALID,
    "parent": v1::CreateKeyVersionRequest { parent: "dev/bad-ec@1".into(), ..Default::default() },
    "request_id": v1::CreateKeyVersionRequest {
        parent: key_name.into(),
        request_id: vec![0; 32],
        ..Default::default()
    });
    bad!(list, client, keys.create_key_version, "CreateKeyVersion", NOT_FOUND,
        "parent": v1::CreateKeyVersionRequest { parent: "dev/none".into(), ..Default::default() });
    macro_rules! steps {
        ($($rpc:ident $method:literal $request:ident;)+) => {$(
            bad!(list, client, keys.$rpc, $method, INVALID,
                "name": v1::$request { name: key_name.into(), ..Default::default() },
                "request_id": v1::$request {
                    name: version.name.clone(),
                    request_id: vec![0; 1],
                    ..Default::default()
                });
            bad!(list, client, keys.$rpc, $method, NOT_FOUND,
                "name": v1::$request { name: "dev/bad-ec@7".into(), ..Default::default() });
            bad!(list, client, keys.$rpc, $method, "STALE",
                "etag": v1::$request {
                    name: version.name.clone(),
                    etag: long(32),
                    ..Default::default()
                });
        )+};
    }
    steps! {
        activate_key_version "ActivateKeyVersion" ActivateKeyVersionRequest;
        compromise_key_version "CompromiseKeyVersion" CompromiseKeyVersionRequest;
        deactivate_key_version "DeactivateKeyVersion" DeactivateKeyVersionRequest;
        destroy_key_version "DestroyKeyVersion" DestroyKeyVersionRequest;
        disable_key_version "DisableKeyVersion" DisableKeyVersionRequest;
        enable_key_version "EnableKeyVersion" EnableKeyVersionRequest;
        restore_key_version "RestoreKeyVersion" RestoreKeyVersionRequest;
        resume_key_version "ResumeKeyVersion" ResumeKeyVersionRequest;
        schedule_destroy_key_version "ScheduleDestroyKeyVersion" ScheduleDestroyKeyVersionRequest;
        set_key_certificate "SetKeyCertificate" SetKeyCertificateRequest;
        set_key_version_dates "SetKeyVersionDates" SetKeyVersionDatesRequest;
        suspend_key_version "SuspendKeyVersion" SuspendKeyVersionRequest;
        undo_key_version_step "UndoKeyVersionStep" UndoKeyVersionStepRequest;
    }
    list.extend(dates(client, &version.name));
    list.extend(keys_and_rings(client, officer, key_name).await);
    list
}

/// Times that cannot be: out of range, gone, too soon, the end before the begin.
fn dates(client: &Client, version: &str) -> Vec<Bad> {
    let mut list = Vec::new();
    let at = |seconds: i64| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let no_time = Some(prost_types::Timestamp { seconds: 1, nanos: -1 });
    let too_late = at(i64::MAX);
    let (past, next_year) = (at(1), at(YEAR_2100_SECONDS));
    let set = |activate_time, deactivate_time| v1::SetKeyVersionDatesRequest {
        name: version.to_owned(),
        activate_time,
        deactivate_time,
        ..Default::default()
    };
    bad!(list, client, keys.set_key_version_dates, "SetKeyVersionDates", INVALID,
        "activate_time": set(no_time, None),
        "activate_time": set(too_late, None),
        // The version is ACTIVE already.
        "activate_time": set(next_year, None),
        "deactivate_time": set(None, no_time),
        "deactivate_time": set(None, too_late),
        "deactivate_time": set(None, past),
        "deactivate_time": set(next_year, next_year));
    let rotate = |activate_time, deactivate_time| v1::CreateKeyVersionRequest {
        parent: "dev/bad-ec".to_owned(),
        activate_time,
        deactivate_time,
        ..Default::default()
    };
    bad!(list, client, keys.create_key_version, "CreateKeyVersion", INVALID,
        "activate_time": rotate(no_time, None),
        "activate_time": rotate(past, None),
        "deactivate_time": rotate(None, past),
        "deactivate_time": rotate(next_year, next_year));
    let create = |activate_time, deactivate_time| v1::CreateKeyRequest {
        activate_time,
        deactivate_time,
        ..with(|_| ())
    };
    bad!(list, client, keys.create_key, "CreateKey", INVALID,
        "activate_time": create(no_time, None),
        "activate_time": create(past, None),
        "deactivate_time": create(None, past),
        "deactivate_time": create(next_year, next_year),
        "pending_import": with(|key| key.algorithm = Algorithm::OpaqueSecret.into()));
    let schedule = |destroy_time| v1::ScheduleDestroyKeyVersionRequest {
        name: "dev/bad-done@1".to_owned(),
        destroy_time,
        ..Default::default()
    };
    bad!(list, client, keys.schedule_destroy_key_version, "ScheduleDestroyKeyVersion", INVALID,
        "destroy_time": schedule(no_time),
        "destroy_time": schedule(past));
    let compromise = |occur_time, reason| v1::CompromiseKeyVersionRequest {
        name: version.to_owned(),
        compromise: Some(v1::Compromise { occur_time, reason }),
        ..Default::default()
    };
    bad!(list, client, keys.compromise_key_version, "CompromiseKeyVersion", INVALID,
        "compromise": compromise(no_time, 0),
        "compromise": compromise(past, 0),
        "compromise": compromise(next_year, 0),
        "compromise": compromise(None, 99));
    list
}

async fn keys_and_rings(client: &Client, officer: &Client, key_name: &str) -> Vec<Bad> {
    let done = create_key(client, "dev/bad-done", Algorithm::EcP256).await;
    step(client, "Deactivate", &done.name).await.unwrap();
    let request = v1::GetKeyRequest { name: key_name.to_owned() };
    let etag = client.call(client.keys().get_key(request)).await.unwrap().key.unwrap().etag;
    let request = v1::GetKeyRingRequest { name: "dev".to_owned() };
    let ring = client.call(client.keys().get_key_ring(request)).await.unwrap().key_ring.unwrap();
    let mut list = Vec::new();

    let certificate = |certificate: Vec<u8>| v1::SetKeyCertificateRequest {
        name: format!("{key_name}@1"),
        certificate,
        ..Default::default()
    };
    let foreign = rcgen::generate_simple_self_signed(vec!["bad".to_owned()]).unwrap();
    bad!(list, client, keys.set_key_certificate, "SetKeyCertificate", INVALID,
        "certificate": certificate(vec![0x30]),
        "certificate": certificate(vec![0; 16 * 1024 + 1]),
        "certificate": certificate(foreign.cert.der().to_vec()));
    let delete = |name: &str| v1::DeleteKeyRequest { name: name.into(), ..Default::default() };
    bad!(list, client, keys.delete_key, "DeleteKey", INVALID,
        "name": delete("dev"),
        "request_id": v1::DeleteKeyRequest { request_id: vec![1; 2], ..delete(key_name) });
    bad!(list, client, keys.delete_key, "DeleteKey", NOT_FOUND, "name": delete("dev/none"));
    bad!(list, client, keys.delete_key, "DeleteKey", "LIVE_VERSION", "name": delete(key_name));
    bad!(list, client, keys.delete_key, "DeleteKey", "STALE",
        "etag": v1::DeleteKeyRequest { etag: long(32), ..delete(key_name) });
    let history = || v1::ListKeyHistoryRequest { parent: key_name.into(), ..Default::default() };
    bad!(list, client, keys.list_key_history, "ListKeyHistory", INVALID,
        "parent": v1::ListKeyHistoryRequest { parent: "dev".into(), ..history() },
        "page_size": v1::ListKeyHistoryRequest { page_size: 501, ..history() },
        "page_size": v1::ListKeyHistoryRequest { page_size: -1, ..history() },
        "page_token": v1::ListKeyHistoryRequest { page_token: "zz".into(), ..history() });
    bad!(list, client, keys.list_key_history, "ListKeyHistory", NOT_FOUND,
        "parent": v1::ListKeyHistoryRequest { parent: "dev/none".into(), ..history() });
    let filtered = |filter: &str| v1::ListKeysRequest {
        parent: "dev".into(),
        filter: filter.into(),
        ..Default::default()
    };
    bad!(list, client, keys.list_keys, "ListKeys", INVALID,
        "filter": filtered("owner = me"),
        "filter": filtered("name = k OR name = j"),
        "filter": filtered("labels.a = \"open"),
        "filter": filtered(&long(5000)));
    let trust = |name: &str, etag: &str| v1::SetKeyTrustedRequest {
        name: name.into(),
        etag: etag.into(),
        trusted: true,
        request_id: Vec::new(),
    };
    bad!(list, officer, keys.set_key_trusted, "SetKeyTrusted", INVALID,
        "name": trust("dev", &etag),
        "etag": trust(key_name, ""),
        "request_id": v1::SetKeyTrustedRequest { request_id: vec![1], ..trust(key_name, &etag) });
    bad!(list, officer, keys.set_key_trusted, "SetKeyTrusted", "STALE",
        "etag": trust(key_name, "old"));
    bad!(list, officer, keys.set_key_trusted, "SetKeyTrusted", NOT_FOUND,
        "name": trust("dev/none", "old"));
    let policy = |name: &str, etag: &str, policy| v1::SetKeyRingPolicyRequest {
        name: name.into(),
        etag: etag.into(),
        policy,
        request_id: Vec::new(),
    };
    let changed = |change: fn(&mut v1::RingPolicy)| {
        let mut changed = v1::RingPolicy::default();
        change(&mut changed);
        policy("dev", &ring.etag, Some(changed))
    };
    bad!(list, officer, keys.set_key_ring_policy, "SetKeyRingPolicy", INVALID,
    "name": policy("UPPER", &ring.etag, Some(v1::RingPolicy::default())),
    "etag": policy("dev", "", Some(v1::RingPolicy::default())),
    "policy": policy("dev", &ring.etag, None),
    "policy": changed(|policy| policy.kind = 99),
    "policy": changed(|policy| policy.algorithms = vec![0]),
    "policy": changed(|policy| policy.mechanisms = vec![99]),
    "policy": changed(|policy| policy.legacy_keys = -1),
    "policy": changed(|policy| policy.required_labels = vec![long(256)]),
    "policy": changed(|policy| policy.required_labels = vec![String::new(); 65]),
    "request_id": v1::SetKeyRingPolicyRequest {
        request_id: vec![1],
        ..changed(|_| ())
    });
    bad!(list, officer, keys.set_key_ring_policy, "SetKeyRingPolicy", "STALE",
        "etag": policy("dev", "old", Some(v1::RingPolicy::default())));
    let in_ring = |policy: v1::RingPolicy| v1::CreateKeyRingRequest {
        name: "bad".into(),
        policy: Some(policy),
        ..Default::default()
    };
    bad!(list, officer, keys.create_key_ring, "CreateKeyRing", INVALID,
        "policy": in_ring(v1::RingPolicy { kind: 99, ..Default::default() }));
    list
}

const YEAR_2100_SECONDS: i64 = 4_102_444_800;

fn bad_quorums() -> Vec<v1::QuorumPolicy> {
    let people = ["users/alice", "users/bob"];
    let good = quorum(&["DestroyKeyVersion"], 2, &people);
    let mut nested = good.approvers.clone().unwrap();
    for _ in 0..20 {
        let approver = Some(v1::approver::Approver::Group(nested));
        nested = v1::Approvers { n: 1, members: vec![v1::Approver { approver }] };
    }
    vec![
        quorum(&[], 2, &people),
        quorum(&["NoSuchMethod"], 2, &people),
        // What cannot be proposed could never be done again.
        quorum(&["Sign"], 2, &people),
        quorum(&["DestroyKeyVersion"], 0, &people),
        quorum(&["DestroyKeyVersion"], 3, &people),
        quorum(&["DestroyKeyVersion"], 2, &["users/alice", "users/alice"]),
        quorum(&["DestroyKeyVersion"], 1, &["alice"]),
        quorum(&["DestroyKeyVersion"], 1, &[]),
        v1::QuorumPolicy { approvers: None, ..good.clone() },
        v1::QuorumPolicy {
            approvers: Some(v1::Approvers { n: 1, members: vec![v1::Approver { approver: None }] }),
            ..good.clone()
        },
        v1::QuorumPolicy { approvers: Some(nested), ..good },
    ]
}

fn bad_requirements() -> Vec<v1::ReleaseRequirement> {
    let good = requirement(&[1; 48]);
    vec![
        v1::ReleaseRequirement { kinds: Vec::new(), ..good.clone() },
        v1::ReleaseRequirement { kinds: vec!["sgx".into()], ..good.clone() },
        v1::ReleaseRequirement { policy: "not rego".into(), ..good.clone() },
        v1::ReleaseRequirement { policy: String::new(), ..good.clone() },
        v1::ReleaseRequirement { policy: long(64 * 1024 + 1), ..good.clone() },
        v1::ReleaseRequirement { may_be_unestablished: vec![long(256)], ..good.clone() },
        v1::ReleaseRequirement { free_usages: vec![v1::Usage::Release.into()], ..good.clone() },
        v1::ReleaseRequirement { free_usages: vec![99], ..good },
    ]
}

async fn crypto(client: &Client) -> Vec<Bad> {
    let mut list = Vec::new();
    let (aes, ec, mac) = ("dev/bad-aes@1", "dev/bad-ec", "dev/bad-mac");
    let too_long = vec![0; DATA_BYTES_MAX + 1];
    let encrypt = || v1::EncryptRequest { name: aes.into(), ..Default::default() };
    bad!(list, client, crypto.encrypt, "Encrypt", INVALID,
        "name": v1::EncryptRequest { name: "dev".into(), ..encrypt() },
        "plaintext": v1::EncryptRequest { plaintext: too_long.clone(), ..encrypt() },
        "additional_authenticated_data": v1::EncryptRequest {
            additional_authenticated_data: too_long.clone(),
            ..encrypt()
        },
        "plaintext_crc32c": v1::EncryptRequest { plaintext_crc32c: Some(1), ..encrypt() });
    bad!(list, client, crypto.encrypt, "Encrypt", "USAGE_REFUSED",
        "name": v1::EncryptRequest { name: ec.into(), ..encrypt() });
    let decrypt = || v1::DecryptRequest {
        name: aes.into(),
        initialization_vector: vec![0; 12],
        ciphertext: vec![0; 16],
        ..Default::default()
    };
    bad!(list, client, crypto.decrypt, "Decrypt", INVALID,
        "name": v1::DecryptRequest { name: "dev/bad-aes".into(), ..decrypt() },
        "initialization_vector": v1::DecryptRequest {
            initialization_vector: vec![0; 11],
            ..decrypt()
        },
        "ciphertext": v1::DecryptRequest { ciphertext: vec![0; DATA_BYTES_MAX + 17], ..decrypt() },
        "additional_authenticated_data": v1::DecryptRequest {
            additional_authenticated_data: too_long.clone(),
            ..decrypt()
        },
        "ciphertext_crc32c": v1::DecryptRequest { ciphertext_crc32c: Some(1), ..decrypt() });
    use v1::sign_request::Data as ToSign;
    use v1::verify_request::Data as ToVerify;
    let sign =
        |data: Option<ToSign>| v1::SignRequest { name: ec.into(), data, ..Default::default() };
    bad!(list, client, crypto.sign, "Sign", INVALID,
    "name": v1::SignRequest { name: "/".into(), ..sign(Some(ToSign::Message(vec![]))) },
    "message": sign(None),
    "message": sign(Some(ToSign::Message(too_long.clone()))),
    "data": sign(Some(ToSign::Digest(vec![0; 31]))),
    "data_crc32c": v1::SignRequest {
        data_crc32c: Some(7),
        ..sign(Some(ToSign::Message(b"x".to_vec())))
    });
    bad!(list, client, crypto.sign, "Sign", "USAGE_REFUSED",
        "name": v1::SignRequest { name: aes.into(), ..sign(Some(ToSign::Message(vec![]))) });
    let verify = |data: Option<ToVerify>| v1::VerifyRequest {
        name: ec.into(),
        data,
        signature: vec![0; 70],
        ..Default::default()
    };
    bad!(list, client, crypto.verify, "Verify", INVALID,
    "name": v1::VerifyRequest { name: "/".into(), ..verify(Some(ToVerify::Message(vec![]))) },
    "message": verify(None),
    "message": verify(Some(ToVerify::Message(too_long.clone()))),
    "data": verify(Some(ToVerify::Digest(vec![0; 33]))),
    "signature": v1::VerifyRequest {
        signature: vec![0; 1025],
        ..verify(Some(ToVerify::Message(vec![])))
    });
    bad!(list, client, crypto.mac_sign, "MacSign", INVALID,
    "name": v1::MacSignRequest::default(),
    "data": v1::MacSignRequest {
        name: mac.into(),
        data: too_long.clone(),
        ..Default::default()
    });
    bad!(list, client, crypto.mac_verify, "MacVerify", INVALID,
        "name": v1::MacVerifyRequest { mac: vec![0; 32], ..Default::default() },
        "data": v1::MacVerifyRequest {
            name: mac.into(),
            data: too_long,
            mac: vec![0; 32],
            ..Default::default()
        },
        "mac": v1::MacVerifyRequest { name: mac.into(), mac: vec![0; 31], ..Default::default() });
    bad!(list, client, crypto.generate_random, "GenerateRandom", INVALID,
        "ring": v1::GenerateRandomRequest { ring: "a b".into(), length_bytes: 1 },
        "length_bytes": v1::GenerateRandomRequest { ring: "dev".into(), length_bytes: 0 },
        "length_bytes": v1::GenerateRandomRequest { ring: "dev".into(), length_bytes: 4097 },
        "length_bytes": v1::GenerateRandomRequest { ring: "dev".into(), length_bytes: u32::MAX });
    bad!(list, client, crypto.generate_random, "GenerateRandom", NOT_FOUND,
        "ring": v1::GenerateRandomRequest { ring: "no-such-ring".into(), length_bytes: 1 });
    list
}

fn identity_and_tokens(client: &Client, officer: &Client) -> Vec<Bad> {
    let mut list = Vec::new();
    let user = |change: fn(&mut v1::User)| {
        let mut user = v1::User { name: "users/bad".to_owned(), ..Default::default() };
        change(&mut user);
        v1::CreateUserRequest { user: Some(user), request_id: Vec::new() }
    };
    let role = |role: &str, ring: &str| v1::Grant { role: role.into(), ring: ring.into() };
    bad!(list, officer, identity.create_user, "CreateUser", INVALID,
        "user": v1::CreateUserRequest::default(),
        "user": user(|user| user.name = "bad".into()),
        "user": user(|user| user.name = "groups/bad".into()),
        "user": user(|user| user.name = "workloads/bad".into()),
        "user": user(|user| user.name = "apps/kmsd".into()),
        "user": user(|user| user.ssh_keys = vec!["ssh-ed25519 nonsense".into()]),
        "user": user(|user| user.ssh_keys = vec![long(5000)]),
        "user": user(|user| user.certificate_digests = vec![vec![0; 31]]),
        "user": user(|user| user.certificate_digests = vec![vec![0; 32]; 33]),
        "user": user(|user| user.unix_uids = vec![0; 33]),
        "user": user(|user| user.grants = vec![v1::Grant { role: "root".into(), ring: String::new() }]),
        "user": user(|user| {
            user.grants = vec![v1::Grant { role: "auditor".into(), ring: "a b".into() }];
        }),
        "request_id": v1::CreateUserRequest { request_id: vec![0; 8], ..user(|_| ()) });
    bad!(list, officer, identity.create_user, "CreateUser", "ALREADY_EXISTS",
        "user": user(|user| user.name = "users/alice".into()));
    let binding = |principal: &str, grant: Option<v1::Grant>| v1::CreateBindingRequest {
        principal: principal.into(),
        grant,
        request_id: Vec::new(),
    };
    bad!(list, officer, identity.create_binding, "CreateBinding", INVALID,
    "principal": binding("alice", Some(role("security-officer", ""))),
    "grant": binding("users/alice", None),
    "grant": binding("users/alice", Some(role("", ""))),
    "grant": binding("users/alice", Some(role("auditor", "UPPER"))),
    "request_id": v1::CreateBindingRequest {
        request_id: vec![0; 8],
        ..binding("users/alice", Some(role("auditor", "")))
    });
    bad!(list, officer, identity.create_binding, "CreateBinding", NOT_FOUND,
        "principal": binding("users/nobody", Some(role("auditor", ""))));
    bad!(list, client, identity.list_users, "ListUsers", INVALID,
        "page_size": v1::ListUsersRequest { page_size: 501, ..Default::default() },
        "page_token": v1::ListUsersRequest { page_token: "?".into(), ..Default::default() });
    let find = || v1::FindObjectsRequest { ring: "dev".into(), ..Default::default() };
    bad!(list, client, token.find_objects, "FindObjects", INVALID,
        "ring": v1::FindObjectsRequest { ring: "UPPER".into(), ..Default::default() },
        "page_size": v1::FindObjectsRequest { page_size: -1, ..find() },
        "page_token": v1::FindObjectsRequest { page_token: "zz".into(), ..find() });
    let pin = |pin: String| v1::SetTokenPinRequest {
        ring: "dev".into(),
        role: v1::PinRole::User.into(),
        pin,
    };
    bad!(list, officer, token.set_token_pin, "SetTokenPin", INVALID,
        "ring": v1::SetTokenPinRequest { ring: String::new(), ..pin(long(8)) },
        "role": v1::SetTokenPinRequest { role: 0, ..pin(long(8)) },
        "role": v1::SetTokenPinRequest { role: 99, ..pin(long(8)) },
        "pin": pin(long(7)),
        "pin": pin(long(256)));
    bad!(list, officer, token.set_token_pin, "SetTokenPin", NOT_FOUND,
        "ring": v1::SetTokenPinRequest { ring: "no-such-ring".into(), ..pin(long(8)) });
    list
}

async fn proposals(client: &Client) -> Vec<Bad> {
    let mut request = key("dev/bad-guarded", Algorithm::GenericSecret);
    let policy = quorum(&["DestroyKeyVersion"], 1, &["users/alice"]);
    request.key.as_mut().unwrap().quorum = Some(policy);
    let version = create(client, request).await.name;
    step(client, "Deactivate", &version).await.unwrap();
    let proposal = propose(client, "DestroyKeyVersion", &version).await;

    let mut list = Vec::new();
    let create = |action: &str, resource: &str, lifetime_seconds: u32| v1::CreateProposalRequest {
        action: action.into(),
        resource: resource.into(),
        lifetime_seconds,
        ..Default::default()
    };
    bad!(list, client, proposals.create_proposal, "CreateProposal", INVALID,
    "action": create("", &version, 0),
    "action": create("destroykeyversion", &version, 0),
    "action": create("Sign", &version, 0),
    "resource": create("DestroyKeyVersion", "dev/bad-guarded", 0),
    "resource": create("DestroyKeyVersion", "", 0),
    "lifetime_seconds": create("DestroyKeyVersion", &version, 299),
    "lifetime_seconds": create("DestroyKeyVersion", &version, 604_801),
    "lifetime_seconds": create("DestroyKeyVersion", &version, u32::MAX),
    "request_id": v1::CreateProposalRequest {
        request_id: vec![0; 64],
        ..create("DestroyKeyVersion", &version, 0)
    });
    bad!(list, client, proposals.create_proposal, "CreateProposal", NOT_FOUND,
        "resource": create("DestroyKeyVersion", "dev/no-such-key@1", 0));
    let none = || "proposals/no-such".to_owned();
    macro_rules! named {
        ($($rpc:ident $method:literal $request:ident;)+) => {$(
            bad!(list, client, proposals.$rpc, $method, INVALID,
                "name": v1::$request { name: "proposals/UPPER".into() });
            bad!(list, client, proposals.$rpc, $method, NOT_FOUND,
                "name": v1::$request { name: none() });
        )+};
    }
    named! {
        cancel_proposal "CancelProposal" CancelProposalRequest;
        execute_proposal "ExecuteProposal" ExecuteProposalRequest;
        get_proposal "GetProposal" GetProposalRequest;
    }
    let approve = |approver: &str, signature: String| v1::ApproveProposalRequest {
        name: proposal.name.clone(),
        approver: approver.into(),
        ssh_signature: signature,
    };
    bad!(list, client, proposals.approve_proposal, "ApproveProposal", INVALID,
        "name": v1::ApproveProposalRequest {
            name: "a b".into(),
            ..approve("users/alice", String::new())
        },
        "approver": approve("alice", String::new()));
    bad!(list, client, proposals.approve_proposal, "ApproveProposal", NOT_FOUND,
        "name": v1::ApproveProposalRequest { name: none(), ..approve("users/alice", String::new()) });
    bad!(list, client, proposals.approve_proposal, "ApproveProposal", "APPROVAL_REFUSED",
        "approver": approve("users/bob", String::new()),
        "ssh_signature": approve("users/alice", String::new()),
        "ssh_signature": approve("users/alice", long(17 * 1024)));
    bad!(list, client, proposals.list_proposals, "ListProposals", INVALID,
        "page_size": v1::ListProposalsRequest { page_size: -2, ..Default::default() },
        "page_token": v1::ListProposalsRequest { page_token: "f".into(), ..Default::default() });
    list
}

async fn release_audit_and_seal(client: &Client) -> Vec<Bad> {
    let mut request = key("dev/bad-gated", Algorithm::Aes256);
    request.key.as_mut().unwrap().release_requirement = Some(requirement(&[1; 48]));
    let name = create(client, request).await.name;
    let mut list = Vec::new();
    bad!(list, client, release.create_release_challenge, "CreateReleaseChallenge", INVALID,
        "name": v1::CreateReleaseChallengeRequest { name: "dev".into() });
    bad!(list, client, release.create_release_challenge, "CreateReleaseChallenge", NOT_FOUND,
        "name": v1::CreateReleaseChallengeRequest { name: "dev/no-such-key".into() });
    bad!(list, client, release.create_release_challenge, "CreateReleaseChallenge", "NOT_RELEASABLE",
        "name": v1::CreateReleaseChallengeRequest { name: "dev/bad-aes".into() });
    let evidence =
        |kind: &str, length: usize| v1::Evidence { kind: kind.into(), data: vec![0; length] };
    let good = || v1::ReleaseKeyRequest {
        name: name.clone(),
        nonce: vec![0; 32],
        evidence: vec![evidence("snp", 1184)],
        suite: "P256_HKDF_SHA256_AES256GCM".to_owned(),
        recipient_public_key: vec![4; 65],
        request_id: Vec::new(),
    };
    bad!(list, client, release.release_key, "ReleaseKey", INVALID,
    "name": v1::ReleaseKeyRequest { name: "dev/bad-gated".into(), ..good() },
    "nonce": v1::ReleaseKeyRequest { nonce: vec![0; 31], ..good() },
    "evidence": v1::ReleaseKeyRequest { evidence: vec![evidence("snp", 1); 2], ..good() },
    "evidence": v1::ReleaseKeyRequest { evidence: vec![evidence("sgx", 1)], ..good() },
    "evidence": v1::ReleaseKeyRequest { evidence: vec![evidence("snp", 65_537)], ..good() },
    "suite": v1::ReleaseKeyRequest { suite: String::new(), ..good() },
    "recipient_public_key": v1::ReleaseKeyRequest {
        recipient_public_key: vec![4; 64],
        ..good()
    });
    bad!(list, client, release.release_key, "ReleaseKey", "CHALLENGE_REFUSED",
        "nonce": good());
    bad!(list, client, release.release_key, "ReleaseKey", "EVIDENCE_REQUIRED",
        "evidence": v1::ReleaseKeyRequest { evidence: Vec::new(), ..good() });
    bad!(list, client, audit.list_audit_leaves, "ListAuditLeaves", INVALID,
        "first_index": v1::ListAuditLeavesRequest { first_index: u64::MAX, page_size: 1 },
        "page_size": v1::ListAuditLeavesRequest { first_index: 0, page_size: 501 },
        "page_size": v1::ListAuditLeavesRequest { first_index: 0, page_size: -1 });
    bad!(list, client, audit.get_inclusion_proof, "GetInclusionProof", INVALID,
        "index": v1::GetInclusionProofRequest { index: u64::MAX });
    // A development root opens by no passphrase.
    bad!(list, client, seal.unseal, "Unseal", "USAGE_REFUSED",
        "passphrase": v1::UnsealRequest { passphrase: long(12) });
    list
}

#[test]
fn what_only_a_session_can_ask_is_refused_and_recorded_too() {
    let daemon = Daemon::shared();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let auditor = runtime.block_on(daemon.client());
    let mut session = Session::connect(&daemon.unix()).unwrap();
    let object = |ring: &str, algorithm: i32| v1::CreateObjectKeyRequest {
        ring: ring.into(),
        algorithm,
        ..Default::default()
    };
    let aes = Algorithm::Aes256.into();
    let update =
        |version: &str| v1::UpdateObjectRequest { version: version.into(), ..Default::default() };
    for (action, asked) in [
        ("CreateKey", Asked::CreateObjectKey(object("UPPER", aes))),
        ("CreateKey", Asked::CreateObjectKey(object("dev", 0))),
        (
            "CreateKey",
            Asked::CreateObjectKey(v1::CreateObjectKeyRequest {
                usages: vec![v1::Usage::Sign.into()],
                ..object("dev", aes)
            }),
        ),
        (
            "CreateKey",
            Asked::CreateObjectKey(v1::CreateObjectKeyRequest {
                label: long(256),
                ..object("dev", aes)
            }),
        ),
        (
            "CreateKey",
            Asked::CreateObjectKey(v1::CreateObjectKeyRequest {
                id: vec![0; 4096],
                ..object("dev", aes)
            }),
        ),
        (
            "CreateKey",
            Asked::CreateObjectKey(v1::CreateObjectKeyRequest {
                request_id: vec![0; 3],
                ..object("dev", aes)
            }),
        ),
        (
            "DestroyKeyVersion",
            Asked::DestroyObject(v1::DestroyObjectRequest {
                version: "dev/k".into(),
                ..Default::default()
            }),
        ),
        ("UpdateKey", Asked::UpdateObject(update("dev/k"))),
        (
            "UpdateKey",
            Asked::UpdateObject(v1::UpdateObjectRequest {
                label: Some(long(256)),
                ..update("dev/k@1")
            }),
        ),
        (
            "UpdateKey",
            Asked::UpdateObject(v1::UpdateObjectRequest {
                id: Some(vec![0; 4096]),
                ..update("dev/k@1")
            }),
        ),
        (
            "LoginToken",
            Asked::LoginToken(v1::LoginTokenRequest { ring: "a b".into(), role: 1, pin: long(8) }),
        ),
        (
            "LoginToken",
            Asked::LoginToken(v1::LoginTokenRequest { ring: "dev".into(), role: 0, pin: long(8) }),
        ),
    ] {
        let refusal = refused_for(session.call(asked), INVALID);
        runtime.block_on(log::assert_recorded(&auditor, &refusal, action));
    }
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_and_the_connection_goes_on() {
    let client = Daemon::shared().client().await;
    let request = v1::EncryptRequest {
        name: "dev/any".to_owned(),
        plaintext: vec![0; 5 * 1024 * 1024],
        ..Default::default()
    };
    let refusal = refused(client.call(client.crypto().encrypt(request)).await);
    assert!([Code::OutOfRange, Code::ResourceExhausted].contains(&refusal.code), "{refusal:?}");
    client.call(client.identity().who_am_i(v1::WhoAmIRequest {})).await.unwrap();
}

/// A token is a place in the store; one of another listing must not lead there.
#[tokio::test]
async fn a_page_token_of_another_listing_shows_nothing_foreign() {
    let client = Daemon::shared().client().await;
    let request = v1::ListUsersRequest { page_size: 1, page_token: String::new() };
    let users = client.call(client.identity().list_users(request)).await.unwrap();
    assert!(!users.next_page_token.is_empty());
    let request = v1::ListKeysRequest {
        parent: "dev".to_owned(),
        page_token: users.next_page_token,
        ..Default::default()
    };
    match client.call(client.keys().list_keys(request)).await {
        Ok(listed) => {
            assert!(listed.keys.iter().all(|key| key.name.contains("/keyRings/dev/keys/")))
        }
        Err(error) => assert_eq!(error.reason(), Some(INVALID)),
    }
}

const DATA_BYTES_MAX: usize = 64 * 1024;
