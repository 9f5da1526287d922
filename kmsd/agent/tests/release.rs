//! A workload against a daemon that is honest, and against one that lies in every way that the
//! workload can notice.

#![allow(clippy::unwrap_used, reason = "a failed precondition of a test fails the test")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use ed25519_dalek::{Signer as _, SigningKey};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{DhP256HkdfSha256, XWing};
use hpke::{Deserializable as _, Kem, OpModeS, Serializable as _, single_shot_seal_with_rng};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use kms_agent::AgentError;
use kms_agent::attester::{Attester, AttesterError};
use kms_agent::client::v1::release_service_server::{ReleaseService, ReleaseServiceServer};
use kms_agent::client::{Client, Config, Endpoint, v1};
use kms_agent::release::{ReleasedKey, receive};
use kms_core::audit::checkpoint::{Checkpoint, LogKey};
use kms_core::audit::merkle::Frontier;
use kms_core::audit::{Leaf, LeafOutcome};
use kms_core::claims::{EvidenceKind, Outcome, TrustRoot, Verdict};
use kms_core::id::{Digest, Nonce, OperationId, Timestamp, VersionName};
use kms_core::key::ReleaseRequirement;
use kms_core::receipt::{RECEIPT_TYPE, Receipt};
use kms_core::transcript::{
    BindingProfile, Channel, EXPORTER_LABEL, Recipient, Suite, Transcript, answer_aad,
    request_digest,
};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

const VERSION: &str = "tenants/t/locations/l/keyRings/dev/keys/model/versions/2";
const KEY: &[u8] = b"the model's key";
const NONCE: Nonce = Nonce([3; 32]);
const OPERATION: OperationId = OperationId([5; 16]);

/// What the daemon does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    None,
    OnlyP256,
    NoSuite,
    ShortNonce,
    OtherVersion,
    OtherAad,
    OtherInfo,
    OtherReceiptNonce,
    OtherReceiptTranscript,
    OtherReceiptRecipient,
    OtherReceiptEvidence,
    ForgedHead,
    DeniedLeaf,
    NoReceipt,
}

#[derive(Clone)]
struct Daemon {
    lie: Lie,
    /// The report data that the evidence was made over, as the attester saw it.
    attested: Arc<Mutex<Option<[u8; 64]>>>,
}

struct EchoAttester(Arc<Mutex<Option<[u8; 64]>>>);

impl Attester for EchoAttester {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Snp
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, AttesterError> {
        *self.0.lock().unwrap() = Some(*report_data);
        Ok(report_data.to_vec())
    }
}

fn log_secret() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn log_key() -> LogKey {
    LogKey::new("kms/test", log_secret().verifying_key().as_bytes()).unwrap()
}

fn requirement() -> ReleaseRequirement {
    ReleaseRequirement {
        kinds: [EvidenceKind::Snp].into(),
        may_be_unestablished: [].into(),
        policy: "package policy\nallow := true".into(),
        free_usages: [].into(),
    }
}

#[tonic::async_trait]
impl ReleaseService for Daemon {
    async fn create_release_challenge(
        &self,
        request: Request<v1::CreateReleaseChallengeRequest>,
    ) -> Result<Response<v1::CreateReleaseChallengeResponse>, Status> {
        assert_eq!(request.get_ref().name, "dev/model");
        let suites: Vec<String> = match self.lie {
            Lie::OnlyP256 => vec![Suite::P256HkdfSha256Aes256Gcm.to_string()],
            Lie::NoSuite => vec!["NEVER_HEARD_OF".into()],
            _ => Suite::OFFERED.iter().rev().map(ToString::to_string).collect(),
        };
        let nonce = NONCE.as_bytes()[..if self.lie == Lie::ShortNonce { 31 } else { 32 }].to_vec();
        Ok(Response::new(v1::CreateReleaseChallengeResponse {
            nonce,
            name: VERSION.into(),
            log_key: log_key().to_string(),
            suites,
            ..Default::default()
        }))
    }

    async fn release_key(
        &self,
        request: Request<v1::ReleaseKeyRequest>,
    ) -> Result<Response<v1::ReleaseKeyResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.nonce, NONCE.as_bytes());
        assert_eq!(request.request_id.len(), 16);
        let suite = Suite::from_name(&request.suite).unwrap();
        let recipient = Recipient::new(suite, request.recipient_public_key).unwrap();
        let version: VersionName = VERSION.parse().unwrap();
        let transcript = Transcript::new(
            BindingProfile::Native,
            &NONCE,
            &request_digest(&version),
            &recipient,
            &log_key().identity(),
            &Channel::default(),
        );
        // What the evidence commits to is what the daemon computes.
        assert_eq!(request.evidence[0].data, transcript.report_data(&[]).0);
        assert_eq!(*self.attested.lock().unwrap(), Some(transcript.report_data(&[]).0));
        let policy = requirement().digest();
        let mut info = transcript.as_bytes().to_vec();
        let mut aad = answer_aad(&version, &policy, &OPERATION);
        match self.lie {
            Lie::OtherAad => aad[40] ^= 1,
            Lie::OtherInfo => info[0] ^= 1,
            _ => {}
        }
        let (encapsulated_key, ciphertext) = match suite {
            Suite::P256HkdfSha256Aes256Gcm => seal::<DhP256HkdfSha256>(&recipient, &info, &aad),
            _ => seal::<XWing>(&recipient, &info, &aad),
        };
        let receipt = self.receipt(&version, &transcript, &recipient, &request.evidence[0].data);
        let name =
            if self.lie == Lie::OtherVersion { VERSION.replace('2', "1") } else { VERSION.into() };
        Ok(Response::new(v1::ReleaseKeyResponse {
            name,
            encapsulated_key,
            ciphertext,
            policy_digest: policy.as_bytes().to_vec(),
            operation_id: OPERATION.as_bytes().to_vec(),
            receipt: if self.lie == Lie::NoReceipt { Vec::new() } else { receipt },
            audit: None,
        }))
    }
}

impl Daemon {
    /// A receipt that is consistent in itself, about this release or, when lying, another one.
    fn receipt(
        &self,
        version: &VersionName,
        transcript: &Transcript,
        recipient: &Recipient,
        evidence: &[u8],
    ) -> Vec<u8> {
        let other =
            |lie: Lie, digest: Digest| if self.lie == lie { Digest([1; 32]) } else { digest };
        let evidence_digest =
            other(Lie::OtherReceiptEvidence, Digest(Sha256::digest(evidence).into()));
        let recipient_digest = other(Lie::OtherReceiptRecipient, recipient.digest());
        let denied = self.lie == Lie::DeniedLeaf;
        let mut verdict = Verdict::default();
        verdict.note("chain", Outcome::Established);
        let leaf = Leaf {
            time_ms: 1,
            operation_id: OPERATION.as_bytes().to_vec(),
            action: "ReleaseKey".into(),
            resource: version.to_string(),
            region: "l".into(),
            request_digest: vec![4; 32],
            requirement_digest: requirement().digest().as_bytes().to_vec(),
            evidence_digest: evidence_digest.as_bytes().to_vec(),
            recipient_digest: recipient_digest.as_bytes().to_vec(),
            outcome: if denied { LeafOutcome::Denied } else { LeafOutcome::Granted }.into(),
            app: "ab".into(),
            trust_root: TrustRoot::Development.to_string(),
            verdict_digest: verdict.digest().as_bytes().to_vec(),
            ..Leaf::default()
        };
        let mut log = Frontier::default();
        log.append(leaf.hash());
        let head = Checkpoint { origin: "kms/test".into(), size: 1, root: log.root() };
        let forger = SigningKey::from_bytes(&[8; 32]);
        let signer = if self.lie == Lie::ForgedHead { forger } else { log_secret() };
        let note = head.signed(&log_key(), &signer.sign(head.text().as_bytes()).to_bytes());
        let mut t0 = *transcript.as_bytes();
        if self.lie == Lie::OtherReceiptTranscript {
            t0[0] ^= 1;
        }
        let receipt = Receipt {
            type_: RECEIPT_TYPE.into(),
            version: version.clone(),
            time_ms: Timestamp(1),
            operation_id: OPERATION,
            nonce: if self.lie == Lie::OtherReceiptNonce { Nonce([0; 32]) } else { NONCE },
            request_digest: Digest([4; 32]),
            transcript: hex::encode(t0),
            evidence_digest,
            evidence_kind: EvidenceKind::Snp,
            trust_root: TrustRoot::Development,
            verdict,
            measurement: "ab".into(),
            requirement: requirement(),
            suite: recipient.suite(),
            recipient_digest,
            approvers: [].into(),
            leaf: hex::encode(leaf.to_bytes()),
            audit_index: 0,
            inclusion_proof: Vec::new(),
            checkpoint: note,
        };
        receipt.to_bytes().unwrap()
    }
}

/// The sender's randomness.
struct Sender;

impl hpke::rand_core::TryRng for Sender {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_le_bytes(bytes))
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_le_bytes(bytes))
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        aws_lc_rs::rand::fill(bytes).unwrap();
        Ok(())
    }
}

impl hpke::rand_core::TryCryptoRng for Sender {}

fn seal<K: Kem>(to: &Recipient, info: &[u8], aad: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let public_key = K::PublicKey::from_bytes(to.public_key()).unwrap();
    let (enc, ciphertext) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, K>(
        &OpModeS::Base,
        &public_key,
        info,
        KEY,
        aad,
        &mut Sender,
    )
    .unwrap();
    (enc.to_bytes().to_vec(), ciphertext)
}

fn receive_from(lie: Lie, pinned: Option<LogKey>) -> Result<ReleasedKey, AgentError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsd.sock");
    let attested = Arc::new(Mutex::new(None));
    let daemon = Daemon { lie, attested: attested.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(ReleaseServiceServer::new(daemon.clone()));
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }
        });
        let config = Config::new(Endpoint::Unix(path.clone()), None);
        let client = Client::connect(&config).await.unwrap();
        receive(&client, "dev/model", &EchoAttester(attested), pinned.as_ref()).await
    })
}

#[test]
fn an_honest_daemon_releases_the_key_with_its_receipt() {
    for (lie, suite) in [
        (Lie::None, Suite::XWingHkdfSha256Aes256Gcm),
        (Lie::OnlyP256, Suite::P256HkdfSha256Aes256Gcm),
    ] {
        let released =
            receive_from(lie, Some(log_key())).unwrap_or_else(|e| panic!("{lie:?}: {e}"));
        assert_eq!(released.bytes.as_slice(), KEY);
        assert_eq!(released.version.to_string(), VERSION);
        assert_eq!(released.receipt.suite, suite);
        assert_eq!(Receipt::from_bytes(&released.receipt_bytes).unwrap(), released.receipt);
    }
}

#[test]
fn another_appliance_than_the_pinned_one_is_not_asked_for_the_key() {
    let other = SigningKey::from_bytes(&[1; 32]);
    let pinned = LogKey::new("kms/test", other.verifying_key().as_bytes()).unwrap();
    assert!(matches!(receive_from(Lie::None, Some(pinned)), Err(AgentError::LogKey)));
}

#[test]
fn every_lie_is_noticed_before_the_key_is_handed_out() {
    type Noticed = fn(&AgentError) -> bool;
    let cases: [(Lie, Noticed); 12] = [
        (Lie::NoSuite, |e| matches!(e, AgentError::Answer(_))),
        (Lie::ShortNonce, |e| matches!(e, AgentError::Answer(_))),
        (Lie::OtherVersion, |e| matches!(e, AgentError::Answer(_))),
        (Lie::OtherAad, |e| matches!(e, AgentError::Open)),
        (Lie::OtherInfo, |e| matches!(e, AgentError::Open)),
        (Lie::OtherReceiptNonce, |e| matches!(e, AgentError::ReceiptDiffers("nonce"))),
        (Lie::OtherReceiptTranscript, |e| matches!(e, AgentError::ReceiptDiffers("transcript"))),
        (Lie::OtherReceiptRecipient, |e| {
            matches!(e, AgentError::ReceiptDiffers("recipient_digest"))
        }),
        (Lie::OtherReceiptEvidence, |e| matches!(e, AgentError::ReceiptDiffers("evidence_digest"))),
        (Lie::ForgedHead, |e| matches!(e, AgentError::Receipt(_))),
        (Lie::DeniedLeaf, |e| matches!(e, AgentError::Receipt(_))),
        (Lie::NoReceipt, |e| matches!(e, AgentError::Receipt(_))),
    ];
    for (lie, noticed) in cases {
        let Err(error) = receive_from(lie, None) else { panic!("{lie:?} went unnoticed") };
        assert!(noticed(&error), "{lie:?}: {error}");
    }
}

#[test]
fn client_and_rules_name_the_exporter_alike() {
    assert_eq!(kms_agent::client::EXPORTER_LABEL, EXPORTER_LABEL);
}
