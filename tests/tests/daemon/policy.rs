//! What keys and rings may be and do: only tighter, by the ring's policy, and never again under a name
//! that was deleted.

use std::time::Duration;

use kms_client::v1::{self, Algorithm, LegacyKeys, Mechanism, RingKind};
use kms_client::{Client, ClientError};
use kms_tests::request::{create, create_key, get_key, key, sign, step, update};
use kms_tests::{Daemon, log, refused_for};

async fn make_ring(daemon: &Daemon, name: &str, policy: Option<v1::RingPolicy>) {
    let officer = daemon.officer_client().await;
    let request = v1::CreateKeyRingRequest { name: name.to_owned(), policy, ..Default::default() };
    officer.call(officer.keys().create_key_ring(request)).await.unwrap();
}

async fn set_policy(daemon: &Daemon, name: &str, policy: v1::RingPolicy) -> v1::KeyRing {
    let officer = daemon.officer_client().await;
    let request = v1::GetKeyRingRequest { name: name.to_owned() };
    let ring = officer.call(officer.keys().get_key_ring(request)).await.unwrap().key_ring.unwrap();
    let request = v1::SetKeyRingPolicyRequest {
        name: name.to_owned(),
        etag: ring.etag,
        policy: Some(policy),
        request_id: Vec::new(),
    };
    officer.call(officer.keys().set_key_ring_policy(request)).await.unwrap().key_ring.unwrap()
}

async fn verify(client: &Client, made: &v1::SignResponse) -> Result<bool, ClientError> {
    let request = v1::VerifyRequest {
        name: made.name.clone(),
        data: Some(v1::verify_request::Data::Message(b"x".to_vec())),
        signature: made.signature.clone(),
        ..Default::default()
    };
    Ok(client.call(client.crypto().verify(request)).await?.valid)
}

async fn rotate(client: &Client, name: &str) -> Result<v1::KeyVersion, ClientError> {
    let request = v1::CreateKeyVersionRequest { parent: name.to_owned(), ..Default::default() };
    Ok(client.call(client.keys().create_key_version(request)).await?.version.unwrap())
}

#[tokio::test]
async fn keys_that_do_not_fit_their_ring_go_on_as_its_policy_says() {
    let daemon = Daemon::shared();
    make_ring(daemon, "policy-legacy", None).await;
    let client = daemon.client().await;
    create_key(&client, "policy-legacy/old", Algorithm::EcP256).await;
    let made = sign(&client, "policy-legacy/old", b"x").await.unwrap();
    let only_p384 = |legacy: LegacyKeys| v1::RingPolicy {
        algorithms: vec![Algorithm::EcP384.into()],
        legacy_keys: legacy.into(),
        ..Default::default()
    };
    for (legacy, protects, processes) in [
        (LegacyKeys::Allowed, true, true),
        (LegacyKeys::Prohibited, false, false),
        (LegacyKeys::UnprotectOnly, false, true),
        (LegacyKeys::Unspecified, false, true),
    ] {
        set_policy(daemon, "policy-legacy", only_p384(legacy)).await;
        let signed = sign(&client, "policy-legacy/old", b"x").await;
        match protects {
            true => drop(signed.unwrap()),
            false => {
                let refusal = refused_for(signed, "RING_POLICY");
                log::assert_recorded(&client, &refusal, "Sign").await;
            }
        }
        match processes {
            true => assert!(verify(&client, &made).await.unwrap(), "{legacy:?}"),
            false => drop(refused_for(verify(&client, &made).await, "RING_POLICY")),
        }
        if !protects {
            refused_for(rotate(&client, "policy-legacy/old").await, "RING_POLICY");
        }
    }
    let request = key("policy-legacy/new", Algorithm::EcP256);
    let refusal = refused_for(client.call(client.keys().create_key(request)).await, "RING_POLICY");
    log::assert_recorded(&client, &refusal, "CreateKey").await;
    create_key(&client, "policy-legacy/new", Algorithm::EcP384).await;
}

#[tokio::test]
async fn a_ring_asks_for_labels_and_takes_raw_rsa_only_when_made_compatible() {
    let daemon = Daemon::shared();
    let policy = v1::RingPolicy { required_labels: vec!["owner".to_owned()], ..Default::default() };
    make_ring(daemon, "policy-labels", Some(policy.clone())).await;
    let client = daemon.client().await;
    let mut request = key("policy-labels/k", Algorithm::Aes256);
    refused_for(client.call(client.keys().create_key(request.clone())).await, "RING_POLICY");
    request.key.as_mut().unwrap().labels = [("owner".to_owned(), "ops".to_owned())].into();
    create(&client, request).await;
    let bare = update(&client, "policy-labels/k", &["labels"], |key| key.labels.clear()).await;
    refused_for(bare, "RING_POLICY");

    let raw = |name: &str| {
        let mut request = key(name, Algorithm::Rsa2048);
        let key = request.key.as_mut().unwrap();
        key.mechanisms = vec![Mechanism::RsaPkcs1.into()];
        key.labels = [("owner".to_owned(), "ops".to_owned())].into();
        request
    };
    let refused = client.call(client.keys().create_key(raw("policy-labels/raw"))).await;
    refused_for(refused, "RING_POLICY");
    let compatible = v1::RingPolicy { kind: RingKind::Compatible.into(), ..policy };
    let ring = set_policy(daemon, "policy-labels", compatible).await;
    assert_eq!(ring.policy.unwrap().kind(), RingKind::Compatible);
    create(&client, raw("policy-labels/raw")).await;
    let leaves = log::Export::fetch(&client).await.leaves();
    assert!(leaves.iter().any(|leaf| {
        leaf.action == "SetKeyRingPolicy" && leaf.actor == "users/officer" && leaf.reason.is_empty()
    }));
}

#[tokio::test]
async fn what_a_key_may_do_only_shrinks() {
    let client = Daemon::shared().client().await;
    let name = "dev/policy-ratchet";
    let mut request = key(name, Algorithm::EcP256);
    let asked = request.key.as_mut().unwrap();
    asked.mechanisms = vec![Mechanism::EcdsaSha256.into(), Mechanism::EcdsaSha384.into()];
    asked.exportable = true;
    create(&client, request).await;
    let sha256 = vec![Mechanism::EcdsaSha256.into()];
    let (only_sha256, sign_only) = (sha256.clone(), vec![v1::Usage::Sign.into()]);
    let narrowed = update(&client, name, &["mechanisms", "usages", "exportable"], |key| {
        key.mechanisms = only_sha256;
        key.usages = sign_only;
        key.exportable = false;
    })
    .await
    .unwrap();
    assert_eq!((narrowed.mechanisms, narrowed.exportable), (sha256, false));
    let made = sign(&client, name, b"x").await.unwrap();
    refused_for(verify(&client, &made).await, "USAGE_REFUSED");
    type Change = fn(&mut v1::Key);
    let wider: [(&str, Change); 3] = [
        ("mechanisms", |key| key.mechanisms.push(Mechanism::EcdsaSha384.into())),
        ("usages", |key| key.usages.push(v1::Usage::Verify.into())),
        ("exportable", |key| key.exportable = true),
    ];
    for (field, change) in wider {
        let refusal = refused_for(update(&client, name, &[field], change).await, "ONLY_TIGHTENS");
        log::assert_recorded(&client, &refusal, "UpdateKey").await;
    }
    let blind = update(&client, name, &["usages"], |key| key.etag.clear()).await;
    refused_for(blind, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn floors_rise_to_the_latest_version_and_the_primary_is_active() {
    let client = Daemon::shared().client().await;
    let name = "dev/policy-floors";
    create_key(&client, name, Algorithm::EcP256).await;
    let old = sign(&client, name, b"x").await.unwrap();
    rotate(&client, name).await.unwrap();
    update(&client, name, &["protect_floor"], |key| key.protect_floor = 2).await.unwrap();
    let refusal = refused_for(sign(&client, "dev/policy-floors@1", b"x").await, "BELOW_FLOOR");
    log::assert_recorded(&client, &refusal, "Sign").await;
    assert!(verify(&client, &old).await.unwrap());
    update(&client, name, &["process_floor"], |key| key.process_floor = 2).await.unwrap();
    refused_for(verify(&client, &old).await, "BELOW_FLOOR");
    let lower = update(&client, name, &["protect_floor"], |key| key.protect_floor = 1).await;
    refused_for(lower, "ONLY_TIGHTENS");
    let beyond = update(&client, name, &["process_floor"], |key| key.process_floor = 3).await;
    refused_for(beyond, "INVALID_ARGUMENT");

    let back = update(&client, name, &["primary_version"], |key| key.primary_version = 1).await;
    assert_eq!(back.unwrap().primary_version, 1);
    step(&client, "Suspend", "dev/policy-floors@2").await.unwrap();
    for number in [0, 2, 7] {
        let change = |key: &mut v1::Key| key.primary_version = number;
        let refused = update(&client, name, &["primary_version"], change).await;
        refused_for(refused, "INVALID_ARGUMENT");
    }
}

#[tokio::test]
async fn a_deleted_key_is_gone_but_for_its_name() {
    let client = Daemon::shared().client().await;
    let name = "dev/policy-deleted";
    let version = create_key(&client, name, Algorithm::GenericSecret).await.name;
    let request = v1::DeleteKeyRequest {
        name: name.to_owned(),
        request_id: vec![7; 16],
        ..Default::default()
    };
    let delete = async || client.call(client.keys().delete_key(request.clone())).await;
    let refusal = refused_for(delete().await, "LIVE_VERSION");
    log::assert_recorded(&client, &refusal, "DeleteKey").await;
    for verb in ["Deactivate", "Destroy"] {
        step(&client, verb, &version).await.unwrap();
    }
    assert!(delete().await.unwrap().key.unwrap().delete_time.is_some());
    // A retry of the same request.
    assert!(delete().await.unwrap().key.unwrap().delete_time.is_some());
    refused_for(get_key(&client, name).await, "NOT_FOUND");
    refused_for(step(&client, "Enable", &version).await, "NOT_FOUND");
    refused_for(rotate(&client, name).await, "NOT_FOUND");
    let again = client.call(client.keys().create_key(key(name, Algorithm::Aes256))).await;
    refused_for(again, "ALREADY_EXISTS");
    for (show_deleted, shown) in [(false, 0), (true, 1)] {
        let request = v1::ListKeysRequest {
            parent: "dev".to_owned(),
            filter: "name = policy-deleted".to_owned(),
            show_deleted,
            ..Default::default()
        };
        let listed = client.call(client.keys().list_keys(request)).await.unwrap();
        assert_eq!(listed.keys.len(), shown);
    }
}

#[tokio::test]
async fn a_filter_selects_over_all_pages() {
    let daemon = Daemon::shared();
    make_ring(daemon, "policy-filter", None).await;
    let client = daemon.client().await;
    for n in 0..6 {
        let name = format!("policy-filter/k{n}");
        let mut request = key(&name, Algorithm::GenericSecret);
        let label = if n % 2 == 0 { "prod" } else { "test" };
        request.key.as_mut().unwrap().labels = [("env".to_owned(), label.to_owned())].into();
        create(&client, request).await;
    }
    step(&client, "Suspend", "policy-filter/k2@1").await.unwrap();
    for (filter, expected) in [
        ("labels.env = prod", vec!["k0", "k2", "k4"]),
        ("labels.env = \"prod\" AND state = ACTIVE", vec!["k0", "k4"]),
        ("state = SUSPENDED", vec!["k2"]),
        ("name = k1* AND algorithm = GENERIC_SECRET", vec!["k1"]),
        ("usages = WRAP", vec![]),
    ] {
        let (mut names, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListKeysRequest {
                parent: "policy-filter".to_owned(),
                page_size: 1,
                page_token,
                filter: filter.to_owned(),
                show_deleted: false,
            };
            let page = client.call(client.keys().list_keys(request)).await.unwrap();
            assert!(page.keys.len() <= 1);
            names.extend(page.keys.into_iter().map(|key| key.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let short: Vec<_> = names.iter().map(|name| name.rsplit('/').next().unwrap()).collect();
        assert_eq!(short, expected, "{filter}");
    }
}

#[tokio::test]
async fn an_officer_trusts_a_key_and_nobody_else_can() {
    let daemon = Daemon::shared();
    let (client, officer) = (daemon.client().await, daemon.officer_client().await);
    create_key(&client, "dev/policy-trusted", Algorithm::Aes256).await;
    let etag = get_key(&client, "dev/policy-trusted").await.unwrap().etag;
    let request = v1::SetKeyTrustedRequest {
        name: "dev/policy-trusted".to_owned(),
        etag,
        trusted: true,
        request_id: Vec::new(),
    };
    let own = client.call(client.keys().set_key_trusted(request.clone())).await;
    refused_for(own, "ROLE_MISSING");
    let trusted = officer.call(officer.keys().set_key_trusted(request.clone())).await.unwrap();
    assert!(trusted.key.unwrap().trusted);
    let stale = officer.call(officer.keys().set_key_trusted(request)).await;
    refused_for(stale, "STALE");
}

/// The public key of a version, as the certificate maker takes it.
struct Point(Vec<u8>);

impl rcgen::PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

#[tokio::test]
async fn a_certificate_for_the_versions_own_key_is_kept_and_taken_off() {
    let client = Daemon::shared().client().await;
    let made = create_key(&client, "dev/policy-certificate", Algorithm::EcP256).await;
    let point = Point(made.public_key[made.public_key.len() - 65..].to_vec());
    let issuer_key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::new(rcgen::CertificateParams::default(), issuer_key);
    let params = rcgen::CertificateParams::new(vec!["k".to_owned()]).unwrap();
    let certificate = params.signed_by(&point, &issuer).unwrap().der().to_vec();
    for certificate in [certificate, Vec::new()] {
        let request = v1::SetKeyCertificateRequest {
            name: made.name.clone(),
            certificate: certificate.clone(),
            ..Default::default()
        };
        let answer = client.call(client.keys().set_key_certificate(request)).await.unwrap();
        assert_eq!(answer.version.unwrap().certificate, certificate);
    }
}

/// What a quorum guards, it guards by date and on the way back as well.
#[tokio::test]
async fn a_guarded_step_is_guarded_by_every_way() {
    let client = Daemon::shared().client().await;
    let mut request = key("dev/policy-guarded", Algorithm::GenericSecret);
    let guards = ["DeactivateKeyVersion", "DestroyKeyVersion"];
    let policy = kms_tests::request::quorum(&guards, 1, &["users/alice"]);
    request.key.as_mut().unwrap().quorum = Some(policy);
    let version = create(&client, request).await.name;
    let at = std::time::SystemTime::now() + Duration::from_secs(60 * 60);
    let request = v1::SetKeyVersionDatesRequest {
        name: version.clone(),
        deactivate_time: Some(at.into()),
        ..Default::default()
    };
    let dated = client.call(client.keys().set_key_version_dates(request)).await;
    let refusal = refused_for(dated, "NEEDS_APPROVAL");
    log::assert_recorded(&client, &refusal, "SetKeyVersionDates").await;
    step(&client, "Compromise", &version).await.unwrap();
    refused_for(step(&client, "ScheduleDestroy", &version).await, "NEEDS_APPROVAL");
}
