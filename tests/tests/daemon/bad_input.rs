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
const CANNOT_BE_WRONG: [(&str, &str, &str); 13] = [
    ("Batch", "items", "tested apart: a batch is recorded item by item"),
    ("CreateKey", "pending_import", "a bool"),
    ("CreateKey", "pre_active", "a bool"),
    ("CreateKeyVersion", "pending_import", "a bool"),
    ("CreateKeyVersion", "pre_active", "a bool"),
    ("ExportKeyVersion", "etag", "not read: what runs is a proposal, which has one"),
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
    list.extend(key_life(&client, &officer));
    list.extend(import_and_export(&client).await);
    list.extend(crypto(&client).await);
    list.extend(keys_of_keys(&client));
    list.extend(identity_and_tokens(&client, &officer));
    list.extend(proposals(&client).await);
    list.extend(release_audit_and_seal(&client).await);
    assert_complete(&list);
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
}

/// Every field of every unary method has a row, or a reason why not: a new one cannot be forgotten.
fn assert_complete(list: &[Bad]) {
    let tested: BTreeSet<_> = list.iter().map(|bad| (bad.method, bad.field)).collect();
    let excused: BTreeSet<_> =
        CANNOT_BE_WRONG.iter().map(|(method, field, _)| (*method, *field)).collect();
    let mut missing = Vec::new();
    let contract = contract();
    assert!(contract.len() >= 70, "only {} methods were found", contract.len());
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
        "policy": v1::CreateKeyRingRequest {
            name: "bad".into(),
            policy: Some(v1::RingPolicy { kind: 99, ..Default::default() }),
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
        "key": with(|key| key.mechanisms = vec![99]),
        "key": with(|key| key.mechanisms = vec![v1::Mechanism::EcdsaSha256.into()]),
        "key": with(|key| key.length_bytes = 31),
        "key": with(|key| {
            key.algorithm = Algorithm::GenericSecret.into();
            key.length_bytes = 13;
        }),
        "key": with(|key| {
            key.algorithm = Algorithm::GenericSecret.into();
            key.length_bytes = 513;
        }),
        // A secret comes from outside and nowhere else.
        "key": with(|key| key.algorithm = Algorithm::OpaqueSecret.into()),
        "activate_time": v1::CreateKeyRequest { activate_time: seconds(-1), ..with(|_| ()) },
        "deactivate_time": v1::CreateKeyRequest { deactivate_time: seconds(-1), ..with(|_| ()) },
        "deactivate_time": v1::CreateKeyRequest {
            activate_time: seconds(4_000_000_000),
            deactivate_time: seconds(3_999_999_999),
            ..with(|_| ())
        },
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
    for filter in ["nonsense", "colour = blue", "algorithm = ROT13", "state ="] {
        let (parent, filter) = ("dev".to_owned(), filter.to_owned());
        bad!(list, client, keys.list_keys, "ListKeys", INVALID,
            "filter": v1::ListKeysRequest { parent, filter, ..Default::default() });
    }
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
        // What only tightens is changed by somebody who has seen it.
        "key": changed(|_| (), &["exportable"]),
        "update_fields": changed(|_| (), &["algorithm"]),
        "update_fields": changed(|_| (), &["release_requirement"]),
        "update_fields": changed(|_| (), &[""]),
        "request_id": v1::UpdateKeyRequest { request_id: vec![0], ..changed(|_| (), &["labels"]) },
    );
    bad!(list, client, keys.update_key, "UpdateKey", "STALE",
        "key": changed(|key| key.etag = "old".into(), &["labels"]));
    bad!(list, client, keys.create_key_version, "CreateKeyVersion", INVALID,
    "parent": v1::CreateKeyVersionRequest { parent: "dev/bad-ec@1".into(), ..Default::default() },
    "activate_time": v1::CreateKeyVersionRequest {
        parent: key_name.into(),
        activate_time: seconds(-1),
        ..Default::default()
    },
    "deactivate_time": v1::CreateKeyVersionRequest {
        parent: key_name.into(),
        deactivate_time: seconds(-1),
        ..Default::default()
    },
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
    list
}

/// A time; those before 1970 are none that the appliance has.
fn seconds(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

/// What a step of a version's life says besides its name, and what is done to whole keys and rings.
fn key_life(client: &Client, officer: &Client) -> Vec<Bad> {
    let (key_name, version) = ("dev/bad-ec", "dev/bad-ec@1");
    let mut list = Vec::new();
    let compromise = |compromise: v1::Compromise| v1::CompromiseKeyVersionRequest {
        name: version.into(),
        compromise: Some(compromise),
        ..Default::default()
    };
    bad!(list, client, keys.compromise_key_version, "CompromiseKeyVersion", INVALID,
        "compromise": compromise(v1::Compromise { reason: 99, ..Default::default() }),
        "compromise": compromise(v1::Compromise { occur_time: seconds(-1), ..Default::default() }));
    bad!(list, client, keys.schedule_destroy_key_version, "ScheduleDestroyKeyVersion", INVALID,
    "destroy_time": v1::ScheduleDestroyKeyVersionRequest {
        name: version.into(),
        destroy_time: seconds(-1),
        ..Default::default()
    });
    let dates = || v1::SetKeyVersionDatesRequest { name: version.into(), ..Default::default() };
    bad!(list, client, keys.set_key_version_dates, "SetKeyVersionDates", INVALID,
    "activate_time": v1::SetKeyVersionDatesRequest { activate_time: seconds(-1), ..dates() },
    "deactivate_time": v1::SetKeyVersionDatesRequest { deactivate_time: seconds(-1), ..dates() },
    "deactivate_time": v1::SetKeyVersionDatesRequest {
        activate_time: seconds(4_000_000_000),
        deactivate_time: seconds(4_000_000_000),
        ..dates()
    });
    let certificate = |certificate: Vec<u8>| v1::SetKeyCertificateRequest {
        name: version.into(),
        certificate,
        ..Default::default()
    };
    bad!(list, client, keys.set_key_certificate, "SetKeyCertificate", INVALID,
        "certificate": certificate(vec![0x30; 100]),
        "certificate": certificate(vec![0; DATA_BYTES_MAX + 1]));
    let delete = |name: &str| v1::DeleteKeyRequest { name: name.into(), ..Default::default() };
    bad!(list, client, keys.delete_key, "DeleteKey", INVALID,
        "name": delete(version),
        "request_id": v1::DeleteKeyRequest { request_id: vec![0; 1], ..delete(key_name) });
    bad!(list, client, keys.delete_key, "DeleteKey", NOT_FOUND, "name": delete("dev/no-such-key"));
    bad!(list, client, keys.delete_key, "DeleteKey", "STALE",
        "etag": v1::DeleteKeyRequest { etag: long(32), ..delete(key_name) });
    let history =
        |parent: &str| v1::ListKeyHistoryRequest { parent: parent.into(), ..Default::default() };
    bad!(list, client, keys.list_key_history, "ListKeyHistory", INVALID,
        "parent": history("dev"),
        "page_size": v1::ListKeyHistoryRequest { page_size: 501, ..history(key_name) },
        "page_token": v1::ListKeyHistoryRequest { page_token: "zz".into(), ..history(key_name) });
    bad!(list, client, keys.list_key_history, "ListKeyHistory", NOT_FOUND,
        "parent": history("dev/no-such-key"));

    let policy = |policy: Option<v1::RingPolicy>| v1::SetKeyRingPolicyRequest {
        name: "dev".into(),
        etag: long(32),
        policy,
        request_id: Vec::new(),
    };
    let taken = || policy(Some(v1::RingPolicy::default()));
    bad!(list, officer, keys.set_key_ring_policy, "SetKeyRingPolicy", INVALID,
        "name": v1::SetKeyRingPolicyRequest { name: "a b".into(), ..taken() },
        "etag": v1::SetKeyRingPolicyRequest { etag: String::new(), ..taken() },
        "policy": policy(None),
        "policy": policy(Some(v1::RingPolicy { kind: 99, ..Default::default() })),
        "policy": policy(Some(v1::RingPolicy { legacy_keys: 99, ..Default::default() })),
        "policy": policy(Some(v1::RingPolicy { algorithms: vec![99], ..Default::default() })),
        "policy": policy(Some(v1::RingPolicy { mechanisms: vec![99], ..Default::default() })),
        "request_id": v1::SetKeyRingPolicyRequest { request_id: vec![0; 17], ..taken() });
    bad!(list, officer, keys.set_key_ring_policy, "SetKeyRingPolicy", "STALE", "etag": taken());
    let trust = |name: &str| v1::SetKeyTrustedRequest {
        name: name.into(),
        etag: long(32),
        trusted: true,
        request_id: Vec::new(),
    };
    bad!(list, officer, keys.set_key_trusted, "SetKeyTrusted", INVALID,
        "name": trust("dev"),
        "etag": v1::SetKeyTrustedRequest { etag: String::new(), ..trust("dev/bad-aes") },
        "request_id": v1::SetKeyTrustedRequest { request_id: vec![0; 17], ..trust("dev/bad-aes") });
    bad!(list, officer, keys.set_key_trusted, "SetKeyTrusted", NOT_FOUND,
        "name": trust("dev/no-such-key"));
    bad!(list, officer, keys.set_key_trusted, "SetKeyTrusted", "STALE",
        "etag": trust("dev/bad-aes"));
    list
}

/// Keys that come from outside, keys that leave, and what is said of them.
async fn import_and_export(client: &Client) -> Vec<Bad> {
    use v1::export_key_version_request::Recipient;
    use v1::import_key_version_request::Material;
    let pending =
        v1::CreateKeyRequest { pending_import: true, ..key("dev/bad-import", Algorithm::Aes256) };
    let version = create(client, pending).await.name;
    let mut list = Vec::new();
    let job = || v1::CreateImportJobRequest {
        parent: "dev".into(),
        method: v1::ImportMethod::XWingHkdfSha256Aes256Gcm.into(),
        request_id: Vec::new(),
    };
    bad!(list, client, keys.create_import_job, "CreateImportJob", INVALID,
        "parent": v1::CreateImportJobRequest { parent: "a b".into(), ..job() },
        "method": v1::CreateImportJobRequest { method: 0, ..job() },
        "method": v1::CreateImportJobRequest { method: 99, ..job() },
        "request_id": v1::CreateImportJobRequest { request_id: vec![0; 15], ..job() });
    bad!(list, client, keys.create_import_job, "CreateImportJob", NOT_FOUND,
        "parent": v1::CreateImportJobRequest { parent: "no-such-ring".into(), ..job() });
    bad!(list, client, keys.get_import_job, "GetImportJob", INVALID,
        "name": v1::GetImportJobRequest { name: "dev".into() },
        "name": v1::GetImportJobRequest { name: "dev/importJobs/UPPER".into() });
    bad!(list, client, keys.get_import_job, "GetImportJob", NOT_FOUND,
        "name": v1::GetImportJobRequest { name: "dev/importJobs/no-such-job".into() });

    let import = |material: Option<Material>| v1::ImportKeyVersionRequest {
        name: version.clone(),
        etag: String::new(),
        request_id: Vec::new(),
        material,
    };
    let sealed = |job: &str, length: usize| {
        let ciphertext = vec![0; length];
        import(Some(Material::Sealed(v1::SealedMaterial { import_job: job.into(), ciphertext })))
    };
    let some = || sealed("dev/importJobs/no-such-job", 1200);
    bad!(list, client, keys.import_key_version, "ImportKeyVersion", INVALID,
        "name": v1::ImportKeyVersionRequest { name: "dev/bad-import".into(), ..some() },
        "request_id": v1::ImportKeyVersionRequest { request_id: vec![0; 15], ..some() },
        "sealed": import(None),
        "sealed": sealed("dev", 1200),
        "sealed": sealed("dev/importJobs/no-such-job", 2 * DATA_BYTES_MAX),
        "public_key": import(Some(Material::PublicKey(vec![0; DATA_BYTES_MAX]))));
    bad!(list, client, keys.import_key_version, "ImportKeyVersion", "STALE",
        "etag": v1::ImportKeyVersionRequest { etag: long(32), ..some() });
    bad!(list, client, keys.import_key_version, "ImportKeyVersion", NOT_FOUND,
        "name": v1::ImportKeyVersionRequest { name: "dev/bad-import@2".into(), ..some() });
    bad!(list, client, keys.import_key_version, "ImportKeyVersion", "IMPORT_JOB_EXPIRED",
        "sealed": some());

    let export = |recipient: Option<Recipient>| v1::ExportKeyVersionRequest {
        name: "dev/bad-ec@1".into(),
        etag: String::new(),
        recipient,
    };
    let rsa = |length: usize| export(Some(Recipient::RsaPublicKey(vec![0; length])));
    let hpke = |suite: &str| {
        let recipient = v1::HpkeRecipient { suite: suite.into(), public_key: vec![0; 64] };
        export(Some(Recipient::Hpke(recipient)))
    };
    bad!(list, client, keys.export_key_version, "ExportKeyVersion", INVALID,
        "name": v1::ExportKeyVersionRequest { name: "dev/bad-ec".into(), ..rsa(500) },
        "rsa_public_key": export(None),
        "rsa_public_key": rsa(1025),
        "hpke": hpke("ROT13"),
        "hpke": hpke("XWING_HKDF_SHA256_AES256GCM"));
    let statement = |name: &str, nonce: usize| v1::GetKeyStatementRequest {
        name: name.into(),
        nonce: vec![0; nonce],
    };
    bad!(list, client, keys.get_key_statement, "GetKeyStatement", INVALID,
        "name": statement("dev", 0),
        "nonce": statement("dev/bad-ec", 65));
    bad!(list, client, keys.get_key_statement, "GetKeyStatement", NOT_FOUND,
        "name": statement("dev/no-such-key", 0));
    list
}

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
        quorum(&["WrapKey"], 2, &people),
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
        "mechanism": v1::EncryptRequest { mechanism: 99, ..encrypt() },
        "initialization_vector": v1::EncryptRequest {
            initialization_vector: vec![0; 17],
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
        "mechanism": v1::DecryptRequest { mechanism: 99, ..decrypt() },
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
    "mechanism": v1::SignRequest { mechanism: 99, ..sign(Some(ToSign::Message(vec![]))) },
    "context": v1::SignRequest { context: vec![0; 256], ..sign(Some(ToSign::Message(vec![]))) },
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
    "mechanism": v1::VerifyRequest { mechanism: 99, ..verify(Some(ToVerify::Message(vec![]))) },
    "context": v1::VerifyRequest { context: vec![0; 256], ..verify(Some(ToVerify::Message(vec![]))) },
    "data_crc32c": v1::VerifyRequest {
        data_crc32c: Some(7),
        ..verify(Some(ToVerify::Message(b"x".to_vec())))
    },
    "signature": v1::VerifyRequest {
        signature: vec![0; DATA_BYTES_MAX + 1],
        ..verify(Some(ToVerify::Message(vec![])))
    });
    bad!(list, client, crypto.mac_sign, "MacSign", INVALID,
    "name": v1::MacSignRequest::default(),
    "mechanism": v1::MacSignRequest { name: mac.into(), mechanism: 99, ..Default::default() },
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
        "mechanism": v1::MacVerifyRequest {
            name: mac.into(),
            mac: vec![0; 32],
            mechanism: 99,
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

/// What makes keys out of keys, or moves data without showing it.
fn keys_of_keys(client: &Client) -> Vec<Bad> {
    let mut list = Vec::new();
    let (aes, ec, mac) = ("dev/bad-aes@1", "dev/bad-ec", "dev/bad-mac");
    let too_long = vec![0; DATA_BYTES_MAX + 1];
    let new = || key("dev/bad-never-made", Algorithm::Aes256).key;
    let wrong_name = || key("dev/UPPER", Algorithm::Aes256).key;

    let digest = |hash: i32| v1::DigestRequest { ring: "dev".into(), hash, data: Vec::new() };
    bad!(list, client, crypto.digest, "Digest", INVALID,
        "ring": v1::DigestRequest { ring: "a b".into(), ..digest(3) },
        "hash": digest(0),
        "hash": digest(99),
        "data": v1::DigestRequest { data: too_long.clone(), ..digest(3) });
    bad!(list, client, crypto.digest, "Digest", NOT_FOUND,
        "ring": v1::DigestRequest { ring: "no-such-ring".into(), ..digest(3) });

    let again = || v1::ReEncryptRequest {
        source: aes.into(),
        initialization_vector: vec![0; 12],
        ciphertext: vec![0; 16],
        destination: aes.into(),
        ..Default::default()
    };
    bad!(list, client, crypto.re_encrypt, "ReEncrypt", INVALID,
    "source": v1::ReEncryptRequest { source: "dev/bad-aes".into(), ..again() },
    "source_mechanism": v1::ReEncryptRequest { source_mechanism: 99, ..again() },
    "initialization_vector": v1::ReEncryptRequest {
        initialization_vector: vec![0; 17],
        ..again()
    },
    "ciphertext": v1::ReEncryptRequest { ciphertext: vec![0; DATA_BYTES_MAX + 17], ..again() },
    "source_additional_authenticated_data": v1::ReEncryptRequest {
        source_additional_authenticated_data: too_long.clone(),
        ..again()
    },
    "destination": v1::ReEncryptRequest { destination: "dev".into(), ..again() },
    "destination_mechanism": v1::ReEncryptRequest { destination_mechanism: 99, ..again() },
    "destination_additional_authenticated_data": v1::ReEncryptRequest {
        destination_additional_authenticated_data: too_long.clone(),
        ..again()
    });

    let data_key = || v1::GenerateDataKeyRequest { name: aes.into(), ..Default::default() };
    let to = |suite: &str| v1::GenerateDataKeyRequest {
        recipient: Some(v1::HpkeRecipient { suite: suite.into(), public_key: vec![4; 64] }),
        ..data_key()
    };
    bad!(list, client, crypto.generate_data_key, "GenerateDataKey", INVALID,
        "name": v1::GenerateDataKeyRequest { name: "dev".into(), ..data_key() },
        "length_bytes": v1::GenerateDataKeyRequest { length_bytes: 15, ..data_key() },
        "length_bytes": v1::GenerateDataKeyRequest { length_bytes: 65, ..data_key() },
        "length_bytes": v1::GenerateDataKeyRequest { length_bytes: u32::MAX, ..data_key() },
        "additional_authenticated_data": v1::GenerateDataKeyRequest {
            additional_authenticated_data: too_long.clone(),
            ..data_key()
        },
        "mechanism": v1::GenerateDataKeyRequest { mechanism: 99, ..data_key() },
        "recipient": to("ROT13"),
        "recipient": to("P256_HKDF_SHA256_AES256GCM"));

    let wrap = || v1::WrapKeyRequest {
        name: aes.into(),
        target: "dev/bad-ec@1".into(),
        ..Default::default()
    };
    bad!(list, client, crypto.wrap_key, "WrapKey", INVALID,
    "name": v1::WrapKeyRequest { name: "dev".into(), ..wrap() },
    "target": v1::WrapKeyRequest { target: ec.into(), ..wrap() },
    "mechanism": v1::WrapKeyRequest { mechanism: 99, ..wrap() },
    "additional_authenticated_data": v1::WrapKeyRequest {
        additional_authenticated_data: too_long.clone(),
        ..wrap()
    });
    let unwrap = || v1::UnwrapKeyRequest {
        name: aes.into(),
        wrapped_key: vec![0; 40],
        key: new(),
        ..Default::default()
    };
    bad!(list, client, crypto.unwrap_key, "UnwrapKey", INVALID,
        "name": v1::UnwrapKeyRequest { name: "dev/bad-aes".into(), ..unwrap() },
        "mechanism": v1::UnwrapKeyRequest { mechanism: 99, ..unwrap() },
        "initialization_vector": v1::UnwrapKeyRequest {
            initialization_vector: vec![0; 17],
            ..unwrap()
        },
        "additional_authenticated_data": v1::UnwrapKeyRequest {
            additional_authenticated_data: too_long.clone(),
            ..unwrap()
        },
        "wrapped_key": v1::UnwrapKeyRequest { wrapped_key: vec![0; 2 * DATA_BYTES_MAX], ..unwrap() },
        "key": v1::UnwrapKeyRequest { key: None, ..unwrap() },
        "key": v1::UnwrapKeyRequest { key: wrong_name(), ..unwrap() },
        "request_id": v1::UnwrapKeyRequest { request_id: vec![0; 15], ..unwrap() });

    let long_kdf = || vec![0; 1025];
    let gcm = i32::from(v1::Mechanism::AesGcm);
    let derive = || v1::DeriveKeyRequest { name: mac.into(), key: new(), ..Default::default() };
    bad!(list, client, crypto.derive_key, "DeriveKey", INVALID,
        "name": v1::DeriveKeyRequest { name: "dev".into(), ..derive() },
        "mechanism": v1::DeriveKeyRequest { mechanism: 99, ..derive() },
        "mechanism": v1::DeriveKeyRequest { mechanism: gcm, ..derive() },
        "salt": v1::DeriveKeyRequest { salt: long_kdf(), ..derive() },
        "info": v1::DeriveKeyRequest { info: long_kdf(), ..derive() },
        "context": v1::DeriveKeyRequest { context: long_kdf(), ..derive() },
        "key": v1::DeriveKeyRequest { key: None, ..derive() },
        "key": v1::DeriveKeyRequest { key: wrong_name(), ..derive() },
        "request_id": v1::DeriveKeyRequest { request_id: vec![0; 15], ..derive() });
    let agree = || v1::AgreeKeyRequest {
        name: ec.into(),
        peer_public_key: vec![0; 91],
        kdf: v1::Mechanism::HkdfSha256.into(),
        key: new(),
        ..Default::default()
    };
    bad!(list, client, crypto.agree_key, "AgreeKey", INVALID,
        "name": v1::AgreeKeyRequest { name: "dev".into(), ..agree() },
        "peer_public_key": v1::AgreeKeyRequest {
            peer_public_key: vec![0; DATA_BYTES_MAX],
            ..agree()
        },
        "kdf": v1::AgreeKeyRequest { kdf: 99, ..agree() },
        "kdf": v1::AgreeKeyRequest { kdf: gcm, ..agree() },
        "kdf": v1::AgreeKeyRequest { kdf: 0, info: vec![1], ..agree() },
        "salt": v1::AgreeKeyRequest { salt: long_kdf(), ..agree() },
        "info": v1::AgreeKeyRequest { info: long_kdf(), ..agree() },
        "key": v1::AgreeKeyRequest { key: None, ..agree() },
        "request_id": v1::AgreeKeyRequest { request_id: vec![0; 15], ..agree() });
    let tell = || v1::EncapsulateKeyRequest { name: ec.into(), key: new(), ..Default::default() };
    bad!(list, client, crypto.encapsulate_key, "EncapsulateKey", INVALID,
        "name": v1::EncapsulateKeyRequest { name: "dev".into(), ..tell() },
        "key": v1::EncapsulateKeyRequest { key: None, ..tell() },
        "request_id": v1::EncapsulateKeyRequest { request_id: vec![0; 15], ..tell() });
    let hear = || v1::DecapsulateKeyRequest {
        name: "dev/bad-ec@1".into(),
        ciphertext: vec![0; 1088],
        key: new(),
        ..Default::default()
    };
    bad!(list, client, crypto.decapsulate_key, "DecapsulateKey", INVALID,
        "name": v1::DecapsulateKeyRequest { name: ec.into(), ..hear() },
        "ciphertext": v1::DecapsulateKeyRequest { ciphertext: vec![0; DATA_BYTES_MAX], ..hear() },
        "key": v1::DecapsulateKeyRequest { key: None, ..hear() },
        "request_id": v1::DecapsulateKeyRequest { request_id: vec![0; 15], ..hear() });
    let copy = || v1::CopyKeyRequest { name: aes.into(), key: new(), ..Default::default() };
    bad!(list, client, crypto.copy_key, "CopyKey", INVALID,
        "name": v1::CopyKeyRequest { name: "dev/bad-aes".into(), ..copy() },
        "key": v1::CopyKeyRequest { key: None, ..copy() },
        "key": v1::CopyKeyRequest { key: wrong_name(), ..copy() },
        "request_id": v1::CopyKeyRequest { request_id: vec![0; 15], ..copy() });
    list
}

#[tokio::test]
async fn a_batch_fails_item_by_item_and_one_that_is_too_long_as_a_whole() {
    use v1::batch_item::Request;
    use v1::batch_result::Response;
    let client = Daemon::shared().client().await;
    create_key(&client, "dev/bad-batch", Algorithm::EcP256).await;
    let sign = |name: &str| {
        let data = Some(v1::sign_request::Data::Message(b"x".to_vec()));
        let request = v1::SignRequest { name: name.into(), data, ..Default::default() };
        v1::BatchItem { request: Some(Request::Sign(request)) }
    };
    let items = vec![sign("/"), sign("dev/bad-batch"), sign("dev/no-such-key")];
    let answer = client.call(client.crypto().batch(v1::BatchRequest { items })).await.unwrap();
    let reason = |result: v1::BatchResult| match result.response {
        Some(Response::Error(error)) => error.reason,
        Some(Response::Sign(_)) => "signed".to_owned(),
        other => panic!("{other:?}"),
    };
    let reasons: Vec<_> = answer.results.into_iter().map(reason).collect();
    assert_eq!(reasons, [INVALID, "signed", NOT_FOUND]);
    let items = vec![sign("dev/bad-batch"); 129];
    refused_for(client.call(client.crypto().batch(v1::BatchRequest { items })).await, INVALID);
}

fn identity_and_tokens(client: &Client, officer: &Client) -> Vec<Bad> {
    let mut list = Vec::new();
    let user = |change: fn(&mut v1::User)| {
        let mut user = v1::User { name: "users/bad".to_owned(), ..Default::default() };
        change(&mut user);
        v1::CreateUserRequest { user: Some(user), request_id: Vec::new() }
    };
    let role = |role: &str, scope: &str| v1::Grant {
        role: role.into(),
        scope: scope.into(),
        expire_time: None,
    };
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
        "user": user(|user| user.grants = vec![v1::Grant { role: "root".into(), ..Default::default() }]),
        "user": user(|user| {
            user.grants = vec![v1::Grant { role: "auditor".into(), scope: "a b".into(), expire_time: None }];
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
    "grant": binding("users/alice", Some(role("auditor", "tenants/other"))),
    "grant": binding("users/alice", Some(v1::Grant {
        expire_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        ..role("auditor", "")
    })),
    "request_id": v1::CreateBindingRequest {
        request_id: vec![0; 8],
        ..binding("users/alice", Some(role("auditor", "")))
    });
    bad!(list, officer, identity.create_binding, "CreateBinding", NOT_FOUND,
        "principal": binding("users/nobody", Some(role("auditor", ""))));
    macro_rules! bad_names {
        ($($rpc:ident $method:literal $request:ident;)+) => {$(
            bad!(list, officer, identity.$rpc, $method, INVALID,
                "name": v1::$request { name: "alice".into(), ..Default::default() },
                "name": v1::$request { name: "users/Alice".into(), ..Default::default() },
                "request_id": v1::$request {
                    name: "users/alice".into(),
                    request_id: vec![0; 8],
                    ..Default::default()
                });
            bad!(list, officer, identity.$rpc, $method, NOT_FOUND,
                "name": v1::$request { name: "users/nobody".into(), ..Default::default() });
            bad!(list, officer, identity.$rpc, $method, "STALE",
                "etag": v1::$request {
                    name: "users/alice".into(),
                    etag: "0".into(),
                    ..Default::default()
                });
        )+};
    }
    bad_names! {
        delete_user "DeleteUser" DeleteUserRequest;
        disable_user "DisableUser" DisableUserRequest;
        enable_user "EnableUser" EnableUserRequest;
    }
    bad!(list, client, identity.get_user, "GetUser", INVALID,
        "name": v1::GetUserRequest { name: "alice".into() });
    bad!(list, client, identity.get_user, "GetUser", NOT_FOUND,
        "name": v1::GetUserRequest { name: "users/nobody".into() });
    use v1::credential::Proof;
    let add = |proof: Option<Proof>| v1::AddCredentialRequest {
        principal: "users/alice".into(),
        credential: Some(v1::Credential { proof, ..Default::default() }),
        ..Default::default()
    };
    let uid = || add(Some(Proof::UnixUid(4_000_000)));
    let ended = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    let no_time = Some(prost_types::Timestamp { seconds: -1, nanos: 0 });
    let ending = |expire_time| v1::AddCredentialRequest {
        credential: Some(v1::Credential { expire_time, ..uid().credential.unwrap() }),
        ..uid()
    };
    bad!(list, officer, identity.add_credential, "AddCredential", INVALID,
        "principal": v1::AddCredentialRequest { principal: "alice".into(), ..uid() },
        "credential": v1::AddCredentialRequest { credential: None, ..uid() },
        "credential": add(None),
        "credential": add(Some(Proof::CertificateDigest(vec![0; 31]))),
        "credential": add(Some(Proof::SshKey("ssh-ed25519 nonsense".into()))),
        "credential": ending(ended),
        "credential": ending(no_time),
        "request_id": v1::AddCredentialRequest { request_id: vec![0; 8], ..uid() });
    bad!(list, officer, identity.add_credential, "AddCredential", NOT_FOUND,
        "principal": v1::AddCredentialRequest { principal: "users/nobody".into(), ..uid() });
    bad!(list, officer, identity.add_credential, "AddCredential", "STALE",
        "etag": v1::AddCredentialRequest { etag: "0".into(), ..uid() });
    let revoke = |name: &str, reason: i32| v1::RevokeCredentialRequest {
        name: name.into(),
        reason,
        ..Default::default()
    };
    let unknown = || revoke("users/alice/credentials/00", 4);
    bad!(list, officer, identity.revoke_credential, "RevokeCredential", INVALID,
        "name": revoke("users/alice", 4),
        "name": revoke("alice/credentials/00", 4),
        "name": revoke("users/alice/credentials/0/0", 4),
        "reason": revoke("users/alice/credentials/00", 0),
        "reason": revoke("users/alice/credentials/00", 99),
        "request_id": v1::RevokeCredentialRequest { request_id: vec![0; 8], ..unknown() });
    bad!(list, officer, identity.revoke_credential, "RevokeCredential", NOT_FOUND,
        "name": unknown(),
        "name": revoke("users/nobody/credentials/00", 4));
    bad!(list, officer, identity.revoke_credential, "RevokeCredential", "STALE",
        "etag": v1::RevokeCredentialRequest { etag: "0".into(), ..unknown() });
    let unbind = |principal: &str, grant: Option<v1::Grant>| v1::DeleteBindingRequest {
        principal: principal.into(),
        grant,
        ..Default::default()
    };
    let operator = || unbind("users/alice", Some(role("operator", "")));
    bad!(list, officer, identity.delete_binding, "DeleteBinding", INVALID,
        "principal": unbind("alice", Some(role("operator", ""))),
        "grant": unbind("users/alice", None),
        "grant": unbind("users/alice", Some(role("root", ""))),
        "grant": unbind("users/alice", Some(role("operator", "a/b/c"))),
        "request_id": v1::DeleteBindingRequest { request_id: vec![0; 8], ..operator() });
    bad!(list, officer, identity.delete_binding, "DeleteBinding", NOT_FOUND,
        "principal": unbind("users/nobody", Some(role("operator", ""))),
        "grant": operator());
    bad!(list, officer, identity.delete_binding, "DeleteBinding", "STALE",
        "etag": v1::DeleteBindingRequest { etag: "0".into(), ..operator() });
    bad!(list, client, identity.list_bindings, "ListBindings", INVALID,
        "principal": v1::ListBindingsRequest { principal: "alice".into(), ..Default::default() },
        "resource": v1::ListBindingsRequest { resource: "UPPER".into(), ..Default::default() },
        "resource": v1::ListBindingsRequest { resource: "a/b/c".into(), ..Default::default() },
        "page_size": v1::ListBindingsRequest { page_size: 501, ..Default::default() },
        "page_token": v1::ListBindingsRequest { page_token: "?".into(), ..Default::default() });
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
    use v1::create_proposal_request::{Arguments, Recipient};
    let to = |recipient: Recipient, action: &str| v1::CreateProposalRequest {
        recipient: Some(recipient),
        ..create(action, &version, 0)
    };
    let hpke = v1::HpkeRecipient { suite: "ROT13".into(), public_key: vec![0; 65] };
    // Only an export has a recipient, and always one.
    bad!(list, client, proposals.create_proposal, "CreateProposal", INVALID,
        "rsa_public_key": to(Recipient::RsaPublicKey(vec![0; 500]), "DestroyKeyVersion"),
        "rsa_public_key": to(Recipient::RsaPublicKey(vec![0; 1025]), "ExportKeyVersion"),
        "rsa_public_key": create("ExportKeyVersion", &version, 0),
        "hpke": to(Recipient::Hpke(hpke), "ExportKeyVersion"));
    let mut request = key("dev/bad-guarded-ec", Algorithm::EcP256);
    let guards = ["Decrypt", "MacSign", "MacVerify", "Sign", "Verify"];
    request.key.as_mut().unwrap().quorum = Some(quorum(&guards, 1, &["users/alice"]));
    let ec = self::create(client, request).await.name;
    let with = |action: &str, arguments: Arguments| v1::CreateProposalRequest {
        arguments: Some(arguments),
        ..create(action, &ec, 0)
    };
    let sign =
        |data: v1::sign_request::Data| v1::SignRequest { data: Some(data), ..Default::default() };
    let message = |length: usize| v1::sign_request::Data::Message(vec![0; length]);
    // Each use has its own arguments, which are those of the version and not too long.
    bad!(list, client, proposals.create_proposal, "CreateProposal", INVALID,
        "decrypt": with("Sign", Arguments::Decrypt(v1::DecryptRequest::default())),
        "decrypt": with("Decrypt", Arguments::Decrypt(v1::DecryptRequest {
            initialization_vector: vec![0; 17],
            ..Default::default()
        })),
        "mac_sign": with("Decrypt", Arguments::MacSign(v1::MacSignRequest::default())),
        "mac_sign": with("MacSign", Arguments::MacSign(v1::MacSignRequest {
            data: vec![0; 16 * 1024 + 1],
            ..Default::default()
        })),
        "mac_verify": with("MacVerify", Arguments::MacVerify(v1::MacVerifyRequest {
            mac: vec![0; 65],
            ..Default::default()
        })),
        "sign": with("Sign", Arguments::Sign(v1::SignRequest::default())),
        "sign": with("Sign", Arguments::Sign(sign(message(16 * 1024 + 1)))),
        "sign": with("Sign", Arguments::Sign(sign(v1::sign_request::Data::Digest(vec![0; 31])))),
        "sign": with("Sign", Arguments::Sign(v1::SignRequest {
            name: version.clone(),
            ..sign(message(1))
        })),
        "sign": with("Sign", Arguments::Sign(v1::SignRequest {
            data_crc32c: Some(1),
            ..sign(message(1))
        })),
        "sign": with("DestroyKeyVersion", Arguments::Sign(sign(message(1)))),
        "agree_key": with("DeriveKey", Arguments::AgreeKey(v1::AgreeKeyRequest::default())),
        "agree_key": with("AgreeKey", Arguments::AgreeKey(v1::AgreeKeyRequest {
            peer_public_key: vec![0; 513],
            key: key("dev/bad-agreed", Algorithm::Aes256).key,
            ..Default::default()
        })),
        "decapsulate_key": with("DecapsulateKey", Arguments::DecapsulateKey(v1::DecapsulateKeyRequest {
            ciphertext: vec![0; 32],
            ..Default::default()
        })),
        "derive_key": with("DeriveKey", Arguments::DeriveKey(v1::DeriveKeyRequest {
            key: key("dev/bad-derived", Algorithm::EcP256).key,
            info: vec![0; 1025],
            ..Default::default()
        })),
        "re_encrypt": with("ReEncrypt", Arguments::ReEncrypt(v1::ReEncryptRequest::default())),
        "re_encrypt": with("ReEncrypt", Arguments::ReEncrypt(v1::ReEncryptRequest {
            destination: ec.clone(),
            ciphertext: vec![0; 16 * 1024 + 1],
            ..Default::default()
        })),
        "unwrap_key": with("UnwrapKey", Arguments::UnwrapKey(v1::UnwrapKeyRequest::default())),
        "unwrap_key": with("UnwrapKey", Arguments::UnwrapKey(v1::UnwrapKeyRequest {
            key: key("another/ring", Algorithm::Aes256).key,
            ..Default::default()
        })),
        "verify": with("Verify", Arguments::Verify(v1::VerifyRequest::default())));
    bad!(list, client, proposals.create_proposal, "CreateProposal", INVALID,
    "action": create("", &version, 0),
    "action": create("UnwrapKey", &version, 0),
    "action": create("WrapKey", &version, 0),
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
