//! Approved services (FIPS 140-3): each answer and its leaf say whether one was given, and a daemon that
//! gives no others refuses them.

use std::collections::BTreeSet;

use kms_agent::release::receive;
use kms_client::blocking::Session;
use kms_client::v1::session_request::Request as Asked;
use kms_client::v1::session_response::Response as Answered;
use kms_client::v1::{self, Algorithm, Mechanism, ServiceIndicator};
use kms_client::{Client, ClientError, Config};
use kms_core::transcript::Suite;
use kms_tests::request::{compatible_ring, create_key, key, sign};
use kms_tests::{Daemon, log, refused_for};

use ServiceIndicator::{Approved, NotApproved, NotCryptographic};

const REASON: &str = "SERVICE_NOT_APPROVED";

/// Every other pair of algorithm and mechanism is approved.
const NOT_APPROVED: [(Algorithm, Mechanism); 10] = [
    (Algorithm::Chacha20, Mechanism::Chacha20Poly1305),
    (Algorithm::EcSecp256k1, Mechanism::EcdsaSha256),
    (Algorithm::Rsa2048, Mechanism::RsaPkcs1),
    (Algorithm::Rsa2048, Mechanism::RsaRaw),
    (Algorithm::Rsa3072, Mechanism::RsaPkcs1),
    (Algorithm::Rsa3072, Mechanism::RsaRaw),
    (Algorithm::Rsa4096, Mechanism::RsaPkcs1),
    (Algorithm::Rsa4096, Mechanism::RsaRaw),
    (Algorithm::X25519, Mechanism::Ecdh),
    (Algorithm::XWing, Mechanism::XWing),
];

/// The wire's word for a mechanism or an algorithm of the rules.
fn mechanism(of: kms_core::mechanism::Mechanism) -> Mechanism {
    Mechanism::from_str_name(&format!("MECHANISM_{of}")).unwrap()
}

fn algorithm(of: kms_core::algorithm::Algorithm) -> Algorithm {
    Algorithm::from_str_name(&format!("ALGORITHM_{of}")).unwrap()
}

/// Uses the key once by the mechanism, in the way that it offers first.
async fn use_once(
    client: &Client,
    name: &str,
    by: kms_core::mechanism::Mechanism,
    number: usize,
) -> Result<v1::AuditReference, ClientError> {
    use kms_core::algorithm::Usage;
    let asked = mechanism(by).into();
    let name = name.to_owned();
    let new = |what: &str| {
        let key_name = format!("{}-{what}-{}-{number}", name.split('/').next_back().unwrap(), by);
        let key_name = format!("approved/{}", key_name.to_lowercase().replace('_', "-"));
        key(&key_name, Algorithm::GenericSecret).key
    };
    let offers = |usage| by.offers(usage);
    let mut crypto = client.crypto();
    let audit = if offers(Usage::Sign) {
        let data = Some(v1::sign_request::Data::Message(b"m".to_vec()));
        let request = v1::SignRequest { name, data, mechanism: asked, ..Default::default() };
        client.call(crypto.sign(request)).await?.audit
    } else if offers(Usage::Verify) {
        let data = Some(v1::verify_request::Data::Message(b"m".to_vec()));
        let signature = vec![1; modulus_bytes(name.split('/').next_back().unwrap())];
        let request =
            v1::VerifyRequest { name, data, signature, mechanism: asked, ..Default::default() };
        client.call(crypto.verify(request)).await?.audit
    } else if offers(Usage::MacSign) {
        let request = v1::MacSignRequest { name, data: b"m".to_vec(), mechanism: asked };
        client.call(crypto.mac_sign(request)).await?.audit
    } else if offers(Usage::MacVerify) {
        let request =
            v1::MacVerifyRequest { name, data: b"m".to_vec(), mac: vec![0; 20], mechanism: asked };
        client.call(crypto.mac_verify(request)).await?.audit
    } else if offers(Usage::Encrypt) {
        // RSA without padding takes a number below the modulus and as long.
        let length = match by {
            kms_core::mechanism::Mechanism::RsaRaw => {
                modulus_bytes(name.split('/').next_back().unwrap())
            }
            _ => 16,
        };
        let mut plaintext = vec![0; length];
        plaintext[length - 1] = 2;
        let request =
            v1::EncryptRequest { name, plaintext, mechanism: asked, ..Default::default() };
        client.call(crypto.encrypt(request)).await?.audit
    } else if offers(Usage::Encapsulate) {
        let request =
            v1::EncapsulateKeyRequest { name: name.clone(), key: new("e"), ..Default::default() };
        client.call(crypto.encapsulate_key(request)).await?.audit
    } else if by == kms_core::mechanism::Mechanism::Ecdh {
        let public = v1::GetPublicKeyRequest { name: name.clone() };
        let public = client.call(client.keys().get_public_key(public)).await.unwrap();
        let request = v1::AgreeKeyRequest {
            name: name.clone(),
            peer_public_key: public.public_key,
            kdf: Mechanism::HkdfSha256.into(),
            key: new("a"),
            ..Default::default()
        };
        client.call(crypto.agree_key(request)).await?.audit
    } else if offers(Usage::Derive) {
        let request = v1::DeriveKeyRequest {
            name: name.clone(),
            mechanism: asked,
            key: new("d"),
            ..Default::default()
        };
        client.call(crypto.derive_key(request)).await?.audit
    } else {
        assert!(offers(Usage::Wrap), "{by}");
        let target = "approved/target@1".to_owned();
        let request = v1::WrapKeyRequest { name, target, mechanism: asked, ..Default::default() };
        client.call(crypto.wrap_key(request)).await?.audit
    };
    Ok(audit.unwrap())
}

fn modulus_bytes(name: &str) -> usize {
    let bits: usize = name.strip_prefix("rsa-").unwrap().parse().unwrap();
    bits / 8
}

fn name_of(algorithm: kms_core::algorithm::Algorithm) -> String {
    format!("approved/{}", algorithm.as_str().to_lowercase().replace('_', "-"))
}

/// A compatible ring, where all mechanisms are taken, with a key of each algorithm that may be used with
/// all of its mechanisms.
async fn make_keys(daemon: &Daemon, client: &Client) {
    use kms_core::algorithm::{Algorithm as Rules, KeyKind};
    compatible_ring(daemon, "approved").await;
    for one in Rules::ALL.iter().filter(|one| one.kind() != KeyKind::OpaqueSecret) {
        let mut request = key(&name_of(*one), algorithm(*one));
        let wanted = request.key.as_mut().unwrap();
        wanted.mechanisms = one.mechanisms().iter().map(|one| mechanism(*one).into()).collect();
        let made = client.call(client.keys().create_key(request)).await.unwrap();
        let refused = ["CHACHA20", "EC_SECP256K1", "X25519", "X_WING"].contains(&one.as_str());
        let expected = if refused { NotApproved } else { Approved };
        assert_eq!(made.audit.unwrap().service(), expected, "making a key of {one}");
    }
    let mut request = key("approved/target", Algorithm::Aes256);
    request.key.as_mut().unwrap().exportable = true;
    client.call(client.keys().create_key(request)).await.unwrap();
}

/// The whole table, both ways: what is approved is called so and given by both daemons, and what is not
/// is called so by the one and refused by the other.
#[tokio::test(flavor = "multi_thread")]
async fn every_algorithm_by_every_mechanism_is_told_and_refused_rightly() {
    use kms_core::algorithm::Algorithm as Rules;
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    make_keys(&daemon, &client).await;
    let mut seen = BTreeSet::new();
    let rows = || {
        let pairs = Rules::ALL.iter().flat_map(|one| one.mechanisms().iter().map(|by| (*one, *by)));
        pairs.enumerate()
    };
    for (number, (one, by)) in rows() {
        let audit = use_once(&client, &name_of(one), by, number).await;
        let audit = audit.unwrap_or_else(|error| panic!("{one} {by}: {error}"));
        let not_approved = NOT_APPROVED.contains(&(algorithm(one), mechanism(by)));
        let expected = if not_approved { NotApproved } else { Approved };
        assert_eq!(audit.service(), expected, "{one} {by}");
        assert_eq!(log::leaf(&client, audit.audit_index).await.service, expected as i32);
        seen.insert((one, by));
    }
    assert!(seen.len() > 100, "only {} rows", seen.len());
    daemon.terminate();
    daemon.restart_with(&["--approved-only"]);
    let client = daemon.client().await;
    for (number, (one, by)) in rows() {
        let answer = use_once(&client, &name_of(one), by, number + 1000).await;
        if NOT_APPROVED.contains(&(algorithm(one), mechanism(by))) {
            let refusal = refused_for(answer, REASON);
            let leaf = log::leaf(&client, refusal.audit_index.unwrap()).await;
            assert_eq!((leaf.reason.as_str(), leaf.service), (REASON, 0), "{one} {by}");
        } else {
            let audit = answer.unwrap_or_else(|error| panic!("{one} {by}: {error}"));
            assert_eq!(audit.service(), Approved, "{one} {by}");
        }
    }
    let request = key("approved/chacha", Algorithm::Chacha20);
    let refusal = refused_for(client.call(client.keys().create_key(request)).await, REASON);
    log::assert_recorded(&client, &refusal, "CreateKey").await;
    let next = v1::CreateKeyVersionRequest { parent: name_of(Rules::XWing), ..Default::default() };
    refused_for(client.call(client.keys().create_key_version(next)).await, REASON);
    only_approved_is_offered(&daemon, &client).await;
}

/// What nobody would be given is not offered either.
async fn only_approved_is_offered(daemon: &Daemon, client: &Client) {
    let status = v1::GetProviderStatusRequest {};
    let status = client.call(client.appliance().get_provider_status(status)).await.unwrap();
    assert!(status.status.unwrap().approved_only);
    let tokens = client.call(client.token().list_tokens(v1::ListTokensRequest {})).await.unwrap();
    for token in tokens.tokens {
        assert!(token.approved_only);
        assert!(token.mechanisms().count() > 40, "{}", token.name);
        let unapproved =
            [Mechanism::Chacha20Poly1305, Mechanism::RsaPkcs1, Mechanism::RsaRaw, Mechanism::XWing];
        assert!(token.mechanisms().all(|one| !unapproved.contains(&one)), "{}", token.name);
    }
    // The hybrid suite is not offered, so that a workload takes the other one; and it is refused.
    let mut request = key("approved/gated", Algorithm::Aes256);
    request.key.as_mut().unwrap().release_requirement =
        Some(kms_tests::request::requirement(&[9; 48]));
    client.call(client.keys().create_key(request)).await.unwrap();
    let stranger = daemon.stranger_client().await;
    let challenge = v1::CreateReleaseChallengeRequest { name: "approved/gated".to_owned() };
    let challenge = stranger.call(stranger.release().create_release_challenge(challenge)).await;
    assert_eq!(challenge.unwrap().suites, ["P256_HKDF_SHA256_AES256GCM"]);
    for (suite, length, expected) in [
        ("XWING_HKDF_SHA256_AES256GCM", 1216, REASON),
        ("P256_HKDF_SHA256_AES256GCM", 65, "INVALID_ARGUMENT"),
    ] {
        let recipient = v1::HpkeRecipient { suite: suite.to_owned(), public_key: vec![4; length] };
        let request = v1::GenerateDataKeyRequest {
            name: "approved/aes-256".to_owned(),
            recipient: Some(recipient),
            ..Default::default()
        };
        refused_for(client.call(client.crypto().generate_data_key(request)).await, expected);
    }
    for (method, expected) in [
        (v1::ImportMethod::XWingHkdfSha256Aes256Gcm, Some(REASON)),
        (v1::ImportMethod::RsaOaep4096Sha256Aes256Kwp, None),
    ] {
        let request = v1::CreateImportJobRequest {
            parent: "approved".to_owned(),
            method: method.into(),
            ..Default::default()
        };
        let answer = client.call(client.keys().create_import_job(request)).await;
        match expected {
            Some(reason) => drop(refused_for(answer, reason)),
            None => assert_eq!(answer.unwrap().audit.unwrap().service(), Approved),
        }
    }
}

/// The workload agent takes what is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_still_given_its_key_where_only_approved_services_are() {
    let daemon = Daemon::start_with(&["--approved-only"]);
    let client = daemon.client().await;
    let mut request = key("dev/approved-released", Algorithm::Aes256);
    request.key.as_mut().unwrap().release_requirement =
        Some(kms_tests::request::requirement(&[7; 48]));
    client.call(client.keys().create_key(request)).await.unwrap();
    let (stranger, guest) = (daemon.stranger_client().await, daemon.guest([7; 48], false));
    let released = receive(&stranger, "dev/approved-released", &guest, None).await.unwrap();
    assert_eq!(released.receipt.suite, Suite::P256HkdfSha256Aes256Gcm);
    let leaf = log::leaf(&client, released.receipt.audit_index).await;
    assert_eq!(leaf.service, Approved as i32);
}

/// The same word in every kind of answer, for uses, for streams, and for what is no cryptography.
#[tokio::test(flavor = "multi_thread")]
async fn the_indicator_is_in_batches_streams_and_sessions_too() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    make_keys(&daemon, &client).await;
    let (gcm, chacha) = ("approved/aes-256", "approved/chacha20");
    let encrypt = |name: &str, iv: &[u8]| v1::EncryptRequest {
        name: name.to_owned(),
        plaintext: b"0123456789abcdef".to_vec(),
        initialization_vector: iv.to_vec(),
        ..Default::default()
    };
    // Who brings the IV may bring it twice.
    let brought = client.call(client.crypto().encrypt(encrypt(gcm, &[1; 12]))).await.unwrap();
    assert_eq!(brought.audit.unwrap().service(), NotApproved);
    let items = [encrypt(gcm, &[]), encrypt(chacha, &[]), encrypt(gcm, &[1; 12])];
    let items =
        items.map(|item| v1::BatchItem { request: Some(v1::batch_item::Request::Encrypt(item)) });
    let batch = v1::BatchRequest { items: items.to_vec() };
    let answers = client.call(client.crypto().batch(batch)).await.unwrap().results;
    let services: Vec<_> = answers
        .into_iter()
        .map(|result| match result.response {
            Some(v1::batch_result::Response::Encrypt(made)) => made.audit.unwrap().service(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(services, [Approved, NotApproved, NotApproved]);
    for (mechanism, expected) in [
        (Mechanism::AesCtr, Approved),
        (Mechanism::AesGcm, NotApproved),
        (Mechanism::AesCmac, Approved),
    ] {
        let operation = match mechanism {
            Mechanism::AesCmac => v1::stream_start::Operation::MacSign(v1::StreamMacSign {}),
            _ => v1::stream_start::Operation::Encrypt(v1::StreamEncrypt::default()),
        };
        let start = v1::StreamStart {
            name: gcm.to_owned(),
            mechanism: mechanism.into(),
            operation: Some(operation),
        };
        let mut written = Vec::new();
        let streamed = client.stream(start, &b"data"[..], &mut written, |_| ()).await.unwrap();
        assert_eq!(streamed.started.audit.unwrap().service(), expected, "{mechanism:?}");
    }
    let digest = v1::DigestRequest {
        ring: "approved".to_owned(),
        hash: v1::Hash::Sha3256.into(),
        data: Vec::new(),
    };
    let digest = client.call(client.crypto().digest(digest)).await.unwrap();
    assert_eq!(digest.audit.unwrap().service(), Approved);
    let random = v1::GenerateRandomRequest { ring: "approved".to_owned(), length_bytes: 8 };
    let random = client.call(client.crypto().generate_random(random)).await.unwrap();
    assert_eq!(random.audit.unwrap().service(), Approved);
    let who = client.call(client.identity().who_am_i(v1::WhoAmIRequest {})).await.unwrap();
    assert_eq!(who.audit.unwrap().service(), NotCryptographic);
    let config = daemon.unix();
    // The blocking client wants a thread that runs nothing else.
    let session = std::thread::spawn(move || on_a_session(&config, gcm, chacha));
    session.join().unwrap();
}

fn on_a_session(config: &Config, gcm: &str, chacha: &str) {
    let mut session = Session::connect(config).unwrap();
    for (name, expected) in [(gcm, Approved), (chacha, NotApproved)] {
        let request =
            v1::EncryptRequest { name: name.to_owned(), plaintext: vec![1], ..Default::default() };
        match session.call(Asked::Encrypt(request)).unwrap() {
            Answered::Encrypt(made) => assert_eq!(made.audit.unwrap().service(), expected),
            _ => panic!("another answer"),
        }
    }
    match session.call(Asked::ListTokens(v1::ListTokensRequest {})).unwrap() {
        Answered::ListTokens(tokens) => {
            assert_eq!(tokens.audit.unwrap().service(), NotCryptographic);
        }
        _ => panic!("another answer"),
    }
}

/// A signature made before, in the plainest way: the indicator is not only in the answers of new calls.
#[tokio::test]
async fn an_approved_only_daemon_signs_as_before() {
    let daemon = Daemon::start_with(&["--approved-only"]);
    let client = daemon.client().await;
    create_key(&client, "dev/approved-ec", Algorithm::EcP256).await;
    let made = sign(&client, "dev/approved-ec", b"m").await.unwrap();
    assert_eq!(made.audit.unwrap().service(), Approved);
}
