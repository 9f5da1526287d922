//! One release, read top to bottom: challenge, transcript, evidence, answer, receipt.

use kms_client::{Client, v1};
use kms_core::audit::checkpoint::LogKey;
use kms_core::id::{Digest, Nonce, OperationId, VersionName};
use kms_core::receipt::Receipt;
use kms_core::transcript::{
    BindingProfile, Channel, Suite, Transcript, answer_aad, request_digest,
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::AgentError;
use crate::attester::Attester;
use crate::recipient::KeyPair;

/// A key that was released to this workload, and the proof that it was.
///
/// ```compile_fail
/// fn show(key: kms_agent::release::ReleasedKey) { println!("{key:?}"); }
/// ```
///
/// ```
/// fn show(key: kms_agent::release::ReleasedKey) { println!("{:?}", key.receipt); }
/// ```
#[must_use]
pub struct ReleasedKey {
    /// Which version it is.
    pub version: VersionName,
    /// The raw bytes of a secret key, or the PKCS #8 DER of a private key.
    pub bytes: Zeroizing<Vec<u8>>,
    /// The receipt, verified.
    pub receipt: Receipt,
    /// The receipt as the daemon sent it: canonical JSON.
    pub receipt_bytes: Vec<u8>,
    /// The log key that the receipt was verified with.
    pub log_key: LogKey,
}

/// Receives the key `name` (full or short; of a key or one version) on the evidence of `attester`.
///
/// With `pinned`, only the appliance with that log key is believed.
///
/// # Errors
/// [`AgentError`]. After an error no key was handed out here; the daemon may have recorded a
/// release.
pub async fn receive(
    client: &Client,
    name: &str,
    attester: &dyn Attester,
    pinned: Option<&LogKey>,
) -> Result<ReleasedKey, AgentError> {
    let binding = client.channel_binding();
    let request = v1::CreateReleaseChallengeRequest { name: name.to_owned() };
    let mut service = client.release();
    let challenge = client.call(service.create_release_challenge(request)).await?;
    if client.channel_binding() != binding {
        return Err(AgentError::ConnectionChanged);
    }
    let challenge = Challenge::parse(challenge)?;
    if pinned.is_some_and(|pinned| *pinned != challenge.log_key) {
        return Err(AgentError::LogKey);
    }

    let pair = KeyPair::generate(challenge.suite)?;
    let transcript = Transcript::new(
        BindingProfile::Native,
        &challenge.nonce,
        &request_digest(&challenge.version),
        pair.recipient(),
        &challenge.log_key.identity(),
        &Channel {
            server_certificate_digest: binding.server_certificate_digest,
            client_certificate_digest: binding.client_certificate_digest,
            exporter: binding.exporter,
        },
    );
    let evidence = attester.evidence(&transcript.report_data(&[]).0)?;
    let evidence_digest = Digest(Sha256::digest(&evidence).into());
    let mut request_id = vec![0; REQUEST_ID_BYTES];
    aws_lc_rs::rand::fill(&mut request_id).map_err(|_| AgentError::Randomness)?;
    let request = v1::ReleaseKeyRequest {
        name: challenge.version.to_string(),
        nonce: challenge.nonce.as_bytes().to_vec(),
        evidence: vec![v1::Evidence { kind: attester.kind().to_string(), data: evidence }],
        suite: challenge.suite.as_str().to_owned(),
        recipient_public_key: pair.recipient().public_key().to_vec(),
        request_id,
    };
    // Once only: the challenge is used up by the first attempt.
    let answer = client.call(service.release_key(request)).await?;

    let request = Request { challenge, transcript, pair, evidence_digest };
    request.accept(answer)
}

/// The daemon's challenge, in types that cannot be wrong.
struct Challenge {
    version: VersionName,
    nonce: Nonce,
    log_key: LogKey,
    suite: Suite,
}

impl Challenge {
    fn parse(challenge: v1::CreateReleaseChallengeResponse) -> Result<Self, AgentError> {
        let v1::CreateReleaseChallengeResponse {
            nonce,
            expire_time: _, // the daemon's clock decides
            name,
            log_key,
            suites,
            audit: _,
        } = challenge;
        let offered = |suite: &Suite| suites.iter().any(|name| name == suite.as_str());
        Ok(Self {
            version: name.parse().map_err(|_| AgentError::Answer("the name of no version"))?,
            nonce: Nonce::try_from(nonce.as_slice())
                .map_err(|_| AgentError::Answer("a nonce of another length"))?,
            log_key: log_key.parse().map_err(|_| AgentError::Answer("no log key"))?,
            suite: Suite::OFFERED
                .into_iter()
                .find(offered)
                .ok_or(AgentError::Answer("no HPKE suite that is known here"))?,
        })
    }
}

/// What was asked, kept to hold the answer against.
struct Request {
    challenge: Challenge,
    transcript: Transcript,
    pair: KeyPair,
    evidence_digest: Digest,
}

impl Request {
    fn accept(self, answer: v1::ReleaseKeyResponse) -> Result<ReleasedKey, AgentError> {
        let v1::ReleaseKeyResponse {
            name,
            encapsulated_key,
            ciphertext,
            policy_digest,
            operation_id,
            receipt,
            audit: _, // the receipt says where, with proof
        } = answer;
        if name != self.challenge.version.to_string() {
            return Err(AgentError::Answer("another version than the challenge's"));
        }
        let policy_digest = Digest::try_from(policy_digest.as_slice())
            .map_err(|_| AgentError::Answer("a policy digest of another length"))?;
        let operation_id = OperationId::try_from(operation_id.as_slice())
            .map_err(|_| AgentError::Answer("an operation id of another length"))?;
        let aad = answer_aad(&self.challenge.version, &policy_digest, &operation_id);
        let info = self.transcript.as_bytes();
        let bytes = self.pair.open(&encapsulated_key, &ciphertext, info, &aad)?;
        let checked = Receipt::from_bytes(&receipt)?;
        checked.verify(&self.challenge.log_key)?;
        self.compare(&checked, policy_digest, operation_id)?;
        Ok(ReleasedKey {
            version: self.challenge.version,
            bytes,
            receipt: checked,
            receipt_bytes: receipt,
            log_key: self.challenge.log_key,
        })
    }

    /// Whether a receipt that is good in itself is that of this request.
    fn compare(
        &self,
        receipt: &Receipt,
        policy_digest: Digest,
        operation_id: OperationId,
    ) -> Result<(), AgentError> {
        let same = [
            ("version", receipt.version == self.challenge.version),
            ("nonce", receipt.nonce == self.challenge.nonce),
            ("operation_id", receipt.operation_id == operation_id),
            ("requirement", receipt.requirement.digest() == policy_digest),
            ("transcript", receipt.transcript == hex::encode(self.transcript.as_bytes())),
            ("evidence_digest", receipt.evidence_digest == self.evidence_digest),
            ("suite", receipt.suite == self.challenge.suite),
            ("recipient_digest", receipt.recipient_digest == self.pair.recipient().digest()),
        ];
        match same.into_iter().find(|(_, same)| !same) {
            Some((field, _)) => Err(AgentError::ReceiptDiffers(field)),
            None => Ok(()),
        }
    }
}

const REQUEST_ID_BYTES: usize = 16;
