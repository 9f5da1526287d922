//! Keys for workloads that prove themselves, and all the ways not to.

use kms_agent::attester::Attester;
use kms_agent::recipient::KeyPair;
use kms_agent::release::receive;
use kms_agent::{AgentError, client::ClientError};
use kms_client::Client;
use kms_client::v1::{self, Algorithm};
use kms_core::id::{Nonce, VersionName};
use kms_core::receipt::Receipt;
use kms_core::transcript::{BindingProfile, Channel, Suite, Transcript, request_digest};
use kms_tests::request::{create, key, requirement};
use kms_tests::{Daemon, daemon, log, refused_for};
use kms_verify::LogKey;
use serde_json::{Value, json};

const MEASUREMENT: [u8; 48] = [0x4b; 48];

/// Makes a key that is released to a guest of [`MEASUREMENT`].
async fn gated(client: &Client, name: &str) -> String {
    let mut request = key(name, Algorithm::Aes256);
    request.key.as_mut().unwrap().release_requirement = Some(requirement(&MEASUREMENT));
    create(client, request).await;
    name.to_owned()
}

/// Asks for a challenge and answers it as a good workload would; tests change the request then.
async fn answered(client: &Client, name: &str, attester: &dyn Attester) -> v1::ReleaseKeyRequest {
    let binding = client.channel_binding();
    let request = v1::CreateReleaseChallengeRequest { name: name.to_owned() };
    let challenge = client.call(client.release().create_release_challenge(request)).await.unwrap();
    let version: VersionName = challenge.name.parse().unwrap();
    let log_key: LogKey = challenge.log_key.parse().unwrap();
    let pair = KeyPair::generate(Suite::P256HkdfSha256Aes256Gcm).unwrap();
    let transcript = Transcript::new(
        BindingProfile::Native,
        &Nonce::try_from(challenge.nonce.as_slice()).unwrap(),
        &request_digest(&version),
        pair.recipient(),
        &log_key.identity(),
        &Channel {
            server_certificate_digest: binding.server_certificate_digest,
            client_certificate_digest: binding.client_certificate_digest,
            exporter: binding.exporter,
        },
    );
    let data = attester.evidence(&transcript.report_data(&[]).0).unwrap();
    v1::ReleaseKeyRequest {
        name: challenge.name,
        nonce: challenge.nonce,
        evidence: vec![v1::Evidence { kind: "snp".to_owned(), data }],
        suite: pair.recipient().suite().to_string(),
        recipient_public_key: pair.recipient().public_key().to_vec(),
        request_id: Vec::new(),
    }
}

async fn send(
    client: &Client,
    request: v1::ReleaseKeyRequest,
) -> Result<v1::ReleaseKeyResponse, ClientError> {
    client.call(client.release().release_key(request)).await
}

#[tokio::test]
async fn a_workload_that_proves_itself_receives_the_key_that_the_daemon_uses() {
    let daemon = Daemon::shared();
    let (developer, stranger) = (daemon.client().await, daemon.stranger_client().await);
    let mut request = key("dev/release-good", Algorithm::GenericSecret);
    request.key.as_mut().unwrap().release_requirement = Some(v1::ReleaseRequirement {
        free_usages: vec![v1::Usage::MacSign.into()],
        ..requirement(&MEASUREMENT)
    });
    let version = create(&developer, request).await.name;
    let guest = daemon.guest(MEASUREMENT, false);
    // A stranger on the network: its evidence is all that it has.
    let released = receive(&stranger, &version, &guest, None).await.unwrap();
    assert_eq!((released.version.to_string(), released.bytes.len()), (version.clone(), 32));

    // Only the very key makes the same code.
    let request =
        v1::MacSignRequest { name: version.clone(), data: b"data".to_vec(), ..Default::default() };
    let mac = developer.call(developer.crypto().mac_sign(request)).await.unwrap().mac;
    assert_eq!(mac, hmac_sha256(&released.bytes, b"data"));

    let leaf = log::leaf(&developer, released.receipt.audit_index).await;
    assert_eq!((leaf.action.as_str(), leaf.resource), ("ReleaseKey", version));
    assert_eq!(leaf.app, hex::encode(MEASUREMENT));
    assert_eq!(leaf.not_established, ["revocation"]);
    let head = log::Export::fetch(&developer).await;
    let report = kms_verify::verify_receipt(&released.receipt_bytes, &head.key, None);
    assert!(report.accepted, "{:?}", report.reasons);
    head.assert_whole(Some(&released.receipt.checkpoint));
}

/// HMAC (RFC 2104), written out: a second opinion of a few lines.
fn hmac_sha256(key: &[u8], data: &[u8]) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let padded = |with: u8| -> Vec<u8> {
        (0..64).map(|at| key.get(at).copied().unwrap_or_default() ^ with).collect()
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(data).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}

#[tokio::test]
async fn guests_that_are_debugged_or_something_else_get_nothing() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let name = gated(&client, "dev/release-guests").await;
    for (guest, part) in [
        (daemon.guest(MEASUREMENT, true), "debug"),
        (daemon.guest([0x4c; 48], false), "release-policy"),
        (daemon.guest([0x4c; 48], true), "debug"),
    ] {
        let Err(AgentError::Client(error)) = receive(&client, &name, &guest, None).await else {
            panic!("released, or another error than the daemon's");
        };
        let refusal = refused_for(Err::<(), _>(error), "EVIDENCE_REFUSED");
        assert!(refusal.message.contains(part), "{}", refusal.message);
        log::assert_recorded(&client, &refusal, "ReleaseKey").await;
    }
}

#[tokio::test]
async fn a_challenge_is_good_once_for_its_key_and_its_recipient() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let name = gated(&client, "dev/release-once").await;
    let other = gated(&client, "dev/release-once-other").await;
    let guest = daemon.guest(MEASUREMENT, false);

    let request = answered(&client, &name, &guest).await;
    send(&client, request.clone()).await.unwrap();
    let refusal = refused_for(send(&client, request).await, "CHALLENGE_REFUSED");
    log::assert_recorded(&client, &refusal, "ReleaseKey").await;

    // Used up by the first attempt, also when that was refused.
    let request = answered(&client, &name, &guest).await;
    let swapped = KeyPair::generate(Suite::P256HkdfSha256Aes256Gcm).unwrap();
    let to_another = v1::ReleaseKeyRequest {
        recipient_public_key: swapped.recipient().public_key().to_vec(),
        ..request.clone()
    };
    let refusal = refused_for(send(&client, to_another).await, "EVIDENCE_REFUSED");
    assert!(refusal.message.contains("request-binding"), "{}", refusal.message);
    refused_for(send(&client, request).await, "CHALLENGE_REFUSED");

    // Evidence that was good for one challenge is not for the next.
    let old = answered(&client, &name, &guest).await;
    let new = answered(&client, &name, &guest).await;
    let replayed = v1::ReleaseKeyRequest { evidence: old.evidence, ..new };
    refused_for(send(&client, replayed).await, "EVIDENCE_REFUSED");

    // A challenge for one key does not open another.
    let request = answered(&client, &other, &guest).await;
    let first = answered(&client, &name, &guest).await;
    let crossed = v1::ReleaseKeyRequest { name: first.name, ..request };
    refused_for(send(&client, crossed).await, "CHALLENGE_REFUSED");
}

#[tokio::test]
async fn a_challenge_is_good_on_its_own_connection_only() {
    let daemon = Daemon::shared();
    let developer = daemon.client().await;
    let name = gated(&developer, "dev/release-connection").await;
    let guest = daemon.guest(MEASUREMENT, false);
    let workload = daemon.stranger();
    // The same certificate twice: what differs is the TLS exporter.
    let (first, second) = (daemon::connect(&workload).await, daemon::connect(&workload).await);
    assert_ne!(first.channel_binding(), second.channel_binding());
    let request = answered(&first, &name, &guest).await;
    let refusal = refused_for(send(&second, request).await, "CHALLENGE_REFUSED");
    log::assert_recorded(&developer, &refusal, "ReleaseKey").await;
    let another = daemon.stranger_client().await;
    let request = answered(&first, &name, &guest).await;
    refused_for(send(&another, request).await, "CHALLENGE_REFUSED");
    let request = answered(&first, &name, &guest).await;
    send(&first, request).await.unwrap();
}

#[tokio::test]
async fn damaged_evidence_is_refused_wherever_it_is_damaged() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let name = gated(&client, "dev/release-damaged").await;
    let guest = daemon.guest(MEASUREMENT, false);
    let length = answered(&client, &name, &guest).await.evidence[0].data.len();
    for n in 0..50 {
        let mut request = answered(&client, &name, &guest).await;
        let (at, bit) = (n * length / 50, n % 6);
        request.evidence[0].data[at] ^= 1 << bit;
        let answer = send(&client, request).await;
        assert_eq!(
            answer.err().as_ref().and_then(ClientError::reason),
            Some("EVIDENCE_REFUSED"),
            "bit {bit} of byte {at} of {length}"
        );
    }
    for at in [0, 1, 100, length / 2, length - 1] {
        let mut request = answered(&client, &name, &guest).await;
        request.evidence[0].data.truncate(at);
        refused_for(send(&client, request).await, "EVIDENCE_REFUSED");
    }
}

#[tokio::test]
async fn a_key_without_a_requirement_never_leaves() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let mut requests = vec![key("dev/release-never", Algorithm::Aes256)];
    // Not even one that says it may be.
    let mut released = key("dev/release-never-said", Algorithm::Aes256);
    released.key.as_mut().unwrap().usages = vec![v1::Usage::Release.into()];
    requests.push(released);
    let gate = gated(&client, "dev/release-never-gate").await;
    let guest = daemon.guest(MEASUREMENT, false);
    for request in requests {
        let name = create(&client, request).await.name;
        let asked = v1::CreateReleaseChallengeRequest { name: name.clone() };
        let answer = client.call(client.release().create_release_challenge(asked)).await;
        refused_for(answer, "NOT_RELEASABLE");
        let bare = v1::ReleaseKeyRequest { name: name.clone(), ..Default::default() };
        refused_for(send(&client, bare).await, "NOT_RELEASABLE");
        let borrowed = answered(&client, &gate, &guest).await;
        let borrowed = v1::ReleaseKeyRequest { name, ..borrowed };
        refused_for(send(&client, borrowed).await, "CHALLENGE_REFUSED");
    }
    // And a gated key is used by nobody without evidence, whatever their roles.
    let request = v1::EncryptRequest { name: gate.clone(), ..Default::default() };
    refused_for(client.call(client.crypto().encrypt(request)).await, "EVIDENCE_REQUIRED");
    let bare = v1::ReleaseKeyRequest { name: format!("{gate}@1"), ..Default::default() };
    refused_for(send(&client, bare).await, "EVIDENCE_REQUIRED");
}

#[tokio::test]
async fn a_receipt_fails_when_anything_that_it_proves_is_changed() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let name = gated(&client, "dev/release-receipt").await;
    let guest = daemon.guest(MEASUREMENT, false);
    let released = receive(&client, &name, &guest, None).await.unwrap();
    let other = receive(&client, &name, &guest, None).await.unwrap();
    let key = &released.log_key;
    let whole: Value = serde_json::from_slice(&released.receipt_bytes).unwrap();
    let other: Value = serde_json::from_slice(&other.receipt_bytes).unwrap();
    for field in whole.as_object().unwrap().keys() {
        if NOT_PROVEN.contains(&field.as_str()) {
            continue;
        }
        let mut changed = whole.clone();
        changed[field] = match field.as_str() {
            "type" => json!("kms-release-receipt/v2"),
            "version" => json!(whole[field].as_str().unwrap().replace("receipt", "receipt2")),
            "evidence_kind" => json!("tdx"),
            "requirement" => {
                let mut requirement = whole[field].clone();
                requirement["policy"] = json!("package policy\n\ndefault allow := true\n");
                requirement
            }
            "verdict" => {
                let mut checks = whole[field].as_array().unwrap().clone();
                checks.retain(|check| check["outcome"] == "established");
                json!(checks)
            }
            "trust_root" => json!("vendor"),
            "measurement" => json!("00".repeat(48)),
            "approvers" => json!(["users/alice"]),
            "recipient_digest" | "evidence_digest" | "operation_id" | "request_digest" | "leaf"
            | "inclusion_proof" | "audit_index" => other[field].clone(),
            "time_ms" => json!(whole[field].as_u64().unwrap() + 1),
            "checkpoint" => {
                let text = whole[field].as_str().unwrap();
                let size = text.lines().nth(1).unwrap();
                json!(text.replacen(size, "1", 1))
            }
            other => panic!("{other}: say here how it is changed"),
        };
        assert_ne!(changed[field], whole[field], "{field} was not changed");
        let bytes = kms_core::canonical::to_bytes(&changed).unwrap();
        let proven = Receipt::from_bytes(&bytes).is_ok_and(|receipt| receipt.verify(key).is_ok());
        assert!(!proven, "{field} can be changed");
    }
    let bytes = kms_core::canonical::to_bytes(&whole).unwrap();
    assert_eq!(bytes, released.receipt_bytes);
    assert!(Receipt::from_bytes(&bytes).unwrap().verify(key).is_ok());
}

/// What a receipt tells but the audit leaf does not bind: nonce and suite stand in the transcript, and
/// who holds the evidence, which the leaf names, compares that.
const NOT_PROVEN: [&str; 3] = ["nonce", "suite", "transcript"];
