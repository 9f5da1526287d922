//! Every operation on a version in every state, over gRPC: each cell of `kmsd/LIFECYCLE.md`, and the
//! operations that the page does not have. The rows are the rules' own list of actions, so that a new one
//! without a row fails.

use std::collections::BTreeSet;

use kms_client::v1::create_proposal_request::Arguments;
use kms_client::v1::{self, Algorithm, Mechanism};
use kms_client::{Client, ClientError, Code, StreamError};
use kms_core::action::Action;
use kms_core::algorithm::Usage;
use kms_core::lifecycle::{self, Allowance, State, Transition};
use kms_tests::request::{self, create, key, requirement, sign, step, trust};
use kms_tests::{Daemon, log, proposal, refused_for};

/// Every state, and how a version is brought there over the API.
const WAYS: [(State, &[&str]); 8] = [
    (State::PendingImport, &[]),
    (State::PreActive, &[]),
    (State::Active, &["Activate"]),
    (State::Suspended, &["Activate", "Suspend"]),
    (State::Deactivated, &["Activate", "Deactivate"]),
    (State::DestroyScheduled, &["Activate", "Deactivate", "ScheduleDestroy"]),
    (State::Destroyed, &["Activate", "Deactivate", "Destroy"]),
    (State::Compromised, &["Activate", "Compromise"]),
];

/// Operations on a version that are neither a step of its life nor a use by the tables.
const OTHERS: [Action; 9] = [
    Action::CopyKey,
    Action::DisableKeyVersion,
    Action::EnableKeyVersion,
    Action::GetKeyStatement,
    Action::GetKeyVersion,
    Action::GetPublicKey,
    Action::SetKeyCertificate,
    Action::SetKeyVersionDates,
    Action::UndoKeyVersionStep,
];

/// Operations that no version's state has anything to do with.
const OF_NO_VERSION: [Action; 53] = [
    Action::AddCredential,
    Action::ApproveProposal,
    Action::Batch,
    Action::BindRows,
    Action::CancelProposal,
    Action::CreateBinding,
    Action::CreateImportJob,
    Action::CreateKey,
    Action::CreateKeyRing,
    Action::CreateKeyVersion,
    Action::CreateProposal,
    Action::CreateReleaseChallenge,
    Action::CreateUser,
    Action::DeleteBinding,
    Action::DeleteKey,
    Action::DeleteUser,
    Action::Digest,
    Action::DisableUser,
    Action::EnableUser,
    Action::ExecuteProposal,
    Action::FindObjects,
    Action::GenerateRandom,
    Action::GetCheckpoint,
    Action::GetImportJob,
    Action::GetInclusionProof,
    Action::GetKey,
    Action::GetKeyRing,
    Action::GetProposal,
    Action::GetProviderStatus,
    Action::GetSealStatus,
    Action::GetUser,
    Action::ListAuditLeaves,
    Action::ListBindings,
    Action::ListKeyHistory,
    Action::ListKeyRings,
    Action::ListKeyVersions,
    Action::ListKeys,
    Action::ListProposals,
    Action::ListTokens,
    Action::ListUsers,
    Action::LoginToken,
    Action::RevokeCredential,
    Action::RunSelfTests,
    Action::Seal,
    Action::SetKeyRingPolicy,
    Action::SetKeyTrusted,
    Action::SetTokenPin,
    Action::Start,
    Action::Stop,
    Action::Stream,
    Action::Unseal,
    Action::UpdateKey,
    Action::WhoAmI,
];

#[test]
fn every_operation_has_a_row() {
    assert_eq!(WAYS.map(|(state, _)| state), State::ALL);
    let listed: BTreeSet<Action> = OTHERS.iter().chain(&OF_NO_VERSION).copied().collect();
    for action in Action::ALL {
        let tabled = action.transition().is_some() || action.usage().is_some();
        assert!(tabled != listed.contains(action), "{action} has no row, or two");
    }
}

/// A key whose first version stands in `state`.
struct At {
    client: Client,
    key: String,
    version: String,
    made: Made,
}

/// What the version made while it was active. Well-formed where it never was.
struct Made {
    /// Signature, code, ciphertext or wrapped key.
    bytes: Vec<u8>,
    iv: Vec<u8>,
}

impl At {
    /// Makes the key and brings its version to `state`; whatever `action` opens or checks is made on the way.
    async fn bring(daemon: &Daemon, over: Over, action: Action, state: State) -> Self {
        let client = daemon.client().await;
        let name = format!("dev/in-{}-{over:?}-{action}", state.as_str()).to_lowercase();
        let mut request = key(&name.replace('_', "-"), Algorithm::Aes256);
        request.pre_active = true;
        request.pending_import = state == State::PendingImport;
        let wanted = request.key.as_mut().unwrap();
        shape(action, wanted);
        if over == Over::Proposal {
            let people = ["users/alice", "users/bob", "users/carol"];
            wanted.quorum = Some(request::quorum(&["ExportKeyVersion"], 2, &people));
        }
        let name = wanted.name.clone();
        let version = create(&client, request).await.name;
        let made = Made { bytes: vec![0; 32], iv: vec![0; 12] };
        let mut at = Self { client, key: name, version, made };
        if matches!(action, Action::WrapKey | Action::UnwrapKey) {
            trust(daemon, &at.key).await;
        }
        let way = WAYS.iter().find(|(there, _)| *there == state).unwrap().1;
        for verb in way {
            step(&at.client, verb, &at.version).await.unwrap();
            if *verb == "Activate" {
                at.make(over, action).await;
            }
        }
        assert_eq!(at.state().await, state.as_str(), "{action}");
        at
    }

    async fn state(&self) -> String {
        shown(&request::version(&self.client, &self.version).await)
    }

    async fn make(&mut self, over: Over, action: Action) {
        let protects = match action {
            Action::Decrypt | Action::ReEncrypt => Action::Encrypt,
            Action::DecapsulateKey => Action::EncapsulateKey,
            Action::MacVerify => Action::MacSign,
            Action::UnwrapKey => Action::WrapKey,
            Action::Verify => Action::Sign,
            _ => return,
        };
        // Batches and proposals use what calls use; streams have a form of their own.
        let over = if over == Over::Stream { over } else { Over::Call };
        self.made = self.use_by(over, protects).await.unwrap();
    }

    /// Uses the version and gives what came of it, if that is data.
    async fn use_by(&self, over: Over, action: Action) -> Result<Made, ClientError> {
        match over {
            Over::Call => self.call(action).await,
            Over::Stream => self.stream(action).await,
            Over::Batch => self.batch(action).await,
            Over::Proposal => panic!("a proposal is no way to be refused"),
        }
    }
}

fn shown(version: &v1::KeyVersion) -> String {
    version.state().as_str_name().trim_start_matches("STATE_").to_owned()
}

/// What a key is that `action` is tried on.
fn shape(action: Action, key: &mut v1::Key) {
    let mut is = |algorithm: Algorithm, mechanisms: &[Mechanism]| {
        key.algorithm = algorithm.into();
        key.mechanisms = mechanisms.iter().map(|mechanism| (*mechanism).into()).collect();
    };
    match action {
        Action::AgreeKey => is(Algorithm::X25519, &[]),
        Action::DeriveKey => is(Algorithm::GenericSecret, &[Mechanism::HkdfSha256]),
        Action::DecapsulateKey | Action::EncapsulateKey => is(Algorithm::MlKem768, &[]),
        Action::MacSign | Action::MacVerify => is(Algorithm::GenericSecret, &[]),
        Action::UnwrapKey | Action::WrapKey => is(Algorithm::Aes256, &[Mechanism::AesKwp]),
        Action::ExportKeyVersion => key.exportable = true,
        Action::ReleaseKey => key.release_requirement = Some(requirement(&[1; 48])),
        Action::CopyKey
        | Action::Decrypt
        | Action::Encrypt
        | Action::GenerateDataKey
        | Action::ReEncrypt => is(Algorithm::Aes256, &[]),
        _ => is(Algorithm::EcP256, &[]),
    }
    if action == Action::ImportKeyVersion {
        key.usages = vec![v1::Usage::Verify.into()];
    }
}

/// How a use is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Over {
    Call,
    Stream,
    Batch,
    Proposal,
}

/// The uses that streams and batches do as well.
const ON_DATA: [Action; 6] = [
    Action::Decrypt,
    Action::Encrypt,
    Action::MacSign,
    Action::MacVerify,
    Action::Sign,
    Action::Verify,
];

#[tokio::test]
async fn every_step_from_every_state_is_taken_or_refused_as_the_rules_say() {
    let daemon = Daemon::shared();
    let peer = create(&daemon.client().await, key("dev/in-peer", Algorithm::EcP256)).await;
    for transition in Transition::ALL {
        let action = Action::of_transition(transition).unwrap();
        for state in State::ALL {
            let at = At::bring(daemon, Over::Call, action, state).await;
            let answer = match transition {
                Transition::CompleteImport => at.import(&peer.public_key).await,
                _ => {
                    let verb = action.as_str().trim_end_matches("KeyVersion");
                    step(&at.client, verb, &at.version).await
                }
            };
            let stands = match lifecycle::next(state, transition) {
                Ok(next) => {
                    assert_eq!(shown(&answer.unwrap()), next.as_str(), "{action} from {state}");
                    next
                }
                Err(_) => {
                    let refusal = refused_for(answer, "ILLEGAL_TRANSITION");
                    log::assert_recorded(&at.client, &refusal, action.as_str()).await;
                    state
                }
            };
            assert_eq!(at.state().await, stands.as_str(), "{action} from {state}");
        }
    }
}

impl At {
    async fn import(&self, public_key: &[u8]) -> Result<v1::KeyVersion, ClientError> {
        use v1::import_key_version_request::Material;
        let request = v1::ImportKeyVersionRequest {
            name: self.version.clone(),
            material: Some(Material::PublicKey(public_key.to_vec())),
            ..Default::default()
        };
        let answer = self.client.call(self.client.keys().import_key_version(request)).await?;
        Ok(answer.version.unwrap())
    }
}

#[tokio::test]
async fn every_use_in_every_state_is_done_or_refused_as_the_rules_say() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    create(&client, key("dev/in-dh", Algorithm::X25519)).await;
    create(&client, key("dev/in-destination", Algorithm::Aes256)).await;
    for action in Action::ALL.iter().copied().filter(|action| action.usage().is_some()) {
        for state in State::ALL {
            assert_use(daemon, Over::Call, action, state).await;
            if ON_DATA.contains(&action) {
                assert_use(daemon, Over::Stream, action, state).await;
                assert_use(daemon, Over::Batch, action, state).await;
            }
        }
    }
}

async fn assert_use(daemon: &Daemon, over: Over, action: Action, state: State) {
    let at = At::bring(daemon, over, action, state).await;
    let answer = at.use_by(over, action).await;
    let reason = match state.allows(action.usage().unwrap()) {
        // These want more than the state, and ask for it where the state is no obstacle.
        Allowance::Allowed if action == Action::ExportKeyVersion => "NEEDS_APPROVAL",
        Allowance::Allowed if action == Action::ReleaseKey => "EVIDENCE_REQUIRED",
        Allowance::Allowed => {
            assert!(answer.is_ok(), "{action} in {state} over {over:?}: {:?}", answer.err());
            return;
        }
        Allowance::UnderQuorum => "NEEDS_APPROVAL",
        // What comes from outside wraps nothing in a hardened ring, whatever its state.
        _ if action == Action::WrapKey && state == State::PendingImport => "NOT_TRUSTED",
        _ => "STATE_REFUSES",
    };
    let refusal = refused_for(answer, reason);
    log::assert_recorded(&at.client, &refusal, action.as_str()).await;
}

/// The cells that say "under quorum" are no dead ends: each such use is proposed, approved by two, and done.
#[tokio::test]
async fn every_use_under_quorum_is_done_when_enough_have_approved() {
    let daemon = Daemon::shared();
    create(&daemon.client().await, key("dev/in-quorum-destination", Algorithm::Aes256)).await;
    let mut done = 0;
    for action in Action::ALL.iter().copied() {
        for state in State::ALL {
            let allowed = action.usage().map(|usage| state.allows(usage));
            if allowed != Some(Allowance::UnderQuorum) {
                continue;
            }
            let at = At::bring(daemon, Over::Proposal, action, state).await;
            let refused = at.use_by(Over::Call, action).await;
            refused_for(refused, "NEEDS_APPROVAL");
            let (client, asked) = (&at.client, at.arguments(action));
            let proposal =
                proposal::propose_use(client, action.as_str(), &at.version, asked).await.unwrap();
            for name in ["alice", "bob"] {
                proposal::approve(daemon, client, &proposal, name).await.unwrap();
            }
            let ran = proposal::execute_fully(client, &proposal).await.unwrap();
            assert!(ran.result.is_some(), "{action} in {state}");
            refused_for(proposal::execute(client, &proposal).await, "UNAPPROVED");
            done += 1;
        }
    }
    assert!(done >= 6, "only {done} uses are under quorum");
}

/// Two versions are judged where two are used: what is encrypted anew, and what is wrapped.
#[tokio::test]
async fn the_other_version_of_a_request_is_judged_by_its_state_as_well() {
    let daemon = Daemon::shared();
    let source = At::bring(daemon, Over::Batch, Action::ReEncrypt, State::Active).await;
    let wrapping = At::bring(daemon, Over::Batch, Action::WrapKey, State::Active).await;
    for state in State::ALL {
        let at = At::bring(daemon, Over::Batch, Action::GenerateDataKey, state).await;
        let request = v1::ReEncryptRequest { destination: at.version, ..source.re_encrypt() };
        let answer = source.client.call(source.client.crypto().re_encrypt(request)).await;
        assert_other(&at.client, state, Usage::Encrypt, answer.map(drop), "ReEncrypt").await;

        let at = At::bring(daemon, Over::Batch, Action::ExportKeyVersion, state).await;
        let (name, target) = (wrapping.version.clone(), at.version);
        let request = v1::WrapKeyRequest { name, target, ..Default::default() };
        let answer = wrapping.client.call(wrapping.client.crypto().wrap_key(request)).await;
        assert_other(&at.client, state, Usage::Export, answer.map(drop), "WrapKey").await;
    }
}

async fn assert_other(
    client: &Client,
    state: State,
    usage: Usage,
    answer: Result<(), ClientError>,
    action: &str,
) {
    match state.allows(usage) {
        Allowance::Allowed => answer.unwrap(),
        _ => {
            let refusal = refused_for(answer, "STATE_REFUSES");
            log::assert_recorded(client, &refusal, action).await;
        }
    }
}

#[tokio::test]
async fn every_other_operation_on_a_version_works_in_the_states_that_it_is_for() {
    let daemon = Daemon::shared();
    for action in OTHERS {
        for state in State::ALL {
            let at = At::bring(daemon, Over::Call, action, state).await;
            let (answer, expected) = (at.other(action).await, expected(action, state));
            match expected {
                None => assert!(answer.is_ok(), "{action} in {state}: {:?}", answer.err()),
                Some(reason) => {
                    let refusal = refused_for(answer, reason);
                    log::assert_recorded(&at.client, &refusal, action.as_str()).await;
                }
            }
        }
    }
}

/// Why the operation is refused in `state`; nothing where it is done.
fn expected(action: Action, state: State) -> Option<&'static str> {
    match action {
        // Nothing comes back to life under another name.
        Action::CopyKey => (state != State::Active).then_some("STATE_REFUSES"),
        // A date lies ahead or is none.
        Action::SetKeyVersionDates => {
            let ends = [State::PendingImport, State::PreActive, State::Active, State::Suspended];
            (!ends.contains(&state)).then_some("INVALID_ARGUMENT")
        }
        // The last step that was taken to get there, if one was, and never the very last.
        Action::UndoKeyVersionStep => {
            let none = [State::PendingImport, State::PreActive, State::Destroyed];
            none.contains(&state).then_some("NOTHING_TO_UNDO")
        }
        // What waits for its material has no public key.
        Action::GetPublicKey => (state == State::PendingImport).then_some("USAGE_REFUSED"),
        Action::SetKeyCertificate => (state == State::PendingImport).then_some("INVALID_ARGUMENT"),
        _ => None,
    }
}

impl At {
    /// One call. What is made out of the version has a name of its own each time.
    async fn call(&self, action: Action) -> Result<Made, ClientError> {
        let (client, name, data) = (&self.client, self.version.clone(), DATA.to_vec());
        let Made { bytes, iv } = &self.made;
        let (bytes, iv) = (bytes.clone(), iv.clone());
        let new = || {
            let key = key(&format!("{}-{}", self.key, unused_name()), Algorithm::GenericSecret);
            key.key
        };
        let mut crypto = client.crypto();
        let made = |bytes: Vec<u8>| Made { bytes, iv: Vec::new() };
        Ok(match action {
            Action::AgreeKey => {
                let peer_public_key = request::version(client, "dev/in-dh@1").await.public_key;
                let request =
                    v1::AgreeKeyRequest { name, peer_public_key, key: new(), ..Default::default() };
                client.call(crypto.agree_key(request)).await?;
                made(Vec::new())
            }
            Action::DecapsulateKey => {
                let request = v1::DecapsulateKeyRequest {
                    name,
                    ciphertext: bytes,
                    key: new(),
                    ..Default::default()
                };
                client.call(crypto.decapsulate_key(request)).await?;
                made(Vec::new())
            }
            Action::Decrypt => {
                let request = v1::DecryptRequest {
                    name,
                    initialization_vector: iv,
                    ciphertext: bytes,
                    ..Default::default()
                };
                assert_eq!(client.call(crypto.decrypt(request)).await?.plaintext, DATA);
                made(Vec::new())
            }
            Action::DeriveKey => {
                let request = v1::DeriveKeyRequest { name, key: new(), ..Default::default() };
                client.call(crypto.derive_key(request)).await?;
                made(Vec::new())
            }
            Action::EncapsulateKey => {
                let request = v1::EncapsulateKeyRequest { name, key: new(), ..Default::default() };
                made(client.call(crypto.encapsulate_key(request)).await?.ciphertext)
            }
            Action::Encrypt => {
                let request = v1::EncryptRequest { name, plaintext: data, ..Default::default() };
                let answer = client.call(crypto.encrypt(request)).await?;
                Made { bytes: answer.ciphertext, iv: answer.initialization_vector }
            }
            Action::ExportKeyVersion => {
                use v1::export_key_version_request::Recipient;
                let recipient = Some(Recipient::RsaPublicKey(vec![0; 64]));
                let request = v1::ExportKeyVersionRequest { name, recipient, ..Default::default() };
                made(client.call(client.keys().export_key_version(request)).await?.wrapped_key)
            }
            Action::GenerateDataKey => {
                let request = v1::GenerateDataKeyRequest { name, ..Default::default() };
                made(client.call(crypto.generate_data_key(request)).await?.ciphertext)
            }
            Action::MacSign => {
                let request = v1::MacSignRequest { name, data, ..Default::default() };
                made(client.call(crypto.mac_sign(request)).await?.mac)
            }
            Action::MacVerify => {
                let request = v1::MacVerifyRequest { name, data, mac: bytes, ..Default::default() };
                assert!(client.call(crypto.mac_verify(request)).await?.valid);
                made(Vec::new())
            }
            Action::ReEncrypt => {
                let request = v1::ReEncryptRequest {
                    destination: "dev/in-destination".to_owned(),
                    ..self.re_encrypt()
                };
                made(client.call(crypto.re_encrypt(request)).await?.ciphertext)
            }
            Action::ReleaseKey => {
                let request = v1::ReleaseKeyRequest {
                    name,
                    nonce: vec![0; 32],
                    suite: "P256_HKDF_SHA256_AES256GCM".to_owned(),
                    recipient_public_key: vec![4; 65],
                    ..Default::default()
                };
                client.call(client.release().release_key(request)).await?;
                made(Vec::new())
            }
            Action::Sign => made(sign(client, &name, DATA).await?.signature),
            Action::UnwrapKey => {
                let request = v1::UnwrapKeyRequest {
                    name,
                    wrapped_key: bytes,
                    key: new(),
                    ..Default::default()
                };
                client.call(crypto.unwrap_key(request)).await?;
                made(Vec::new())
            }
            Action::Verify => {
                let data = Some(v1::verify_request::Data::Message(data));
                let request =
                    v1::VerifyRequest { name, data, signature: bytes, ..Default::default() };
                assert!(client.call(crypto.verify(request)).await?.valid);
                made(Vec::new())
            }
            Action::WrapKey => {
                let mut wrapped =
                    key(&format!("dev/in-wrapped-{}", unused_name()), Algorithm::GenericSecret);
                wrapped.key.as_mut().unwrap().exportable = true;
                let target = create(client, wrapped).await.name;
                let request = v1::WrapKeyRequest { name, target, ..Default::default() };
                made(client.call(crypto.wrap_key(request)).await?.wrapped_key)
            }
            other => panic!("{other} is a use, and no call is written for it"),
        })
    }

    /// The use that a proposal is to hold.
    fn arguments(&self, action: Action) -> Arguments {
        let Made { bytes, iv } = &self.made;
        let (bytes, iv) = (bytes.clone(), iv.clone());
        let key = key(&format!("{}-{}", self.key, unused_name()), Algorithm::GenericSecret).key;
        match action {
            Action::DecapsulateKey => Arguments::DecapsulateKey(v1::DecapsulateKeyRequest {
                ciphertext: bytes,
                key,
                ..Default::default()
            }),
            Action::Decrypt => Arguments::Decrypt(v1::DecryptRequest {
                initialization_vector: iv,
                ciphertext: bytes,
                ..Default::default()
            }),
            Action::MacVerify => Arguments::MacVerify(v1::MacVerifyRequest {
                data: DATA.to_vec(),
                mac: bytes,
                ..Default::default()
            }),
            Action::ReEncrypt => Arguments::ReEncrypt(v1::ReEncryptRequest {
                destination: "dev/in-quorum-destination".to_owned(),
                ..self.re_encrypt()
            }),
            Action::UnwrapKey => Arguments::UnwrapKey(v1::UnwrapKeyRequest {
                wrapped_key: bytes,
                key,
                ..Default::default()
            }),
            Action::Verify => Arguments::Verify(v1::VerifyRequest {
                data: Some(v1::verify_request::Data::Message(DATA.to_vec())),
                signature: bytes,
                ..Default::default()
            }),
            other => panic!("{other} is under quorum, and no proposal is written for it"),
        }
    }

    /// What was encrypted by the version, to be moved elsewhere.
    fn re_encrypt(&self) -> v1::ReEncryptRequest {
        v1::ReEncryptRequest {
            source: self.version.clone(),
            initialization_vector: self.made.iv.clone(),
            ciphertext: self.made.bytes.clone(),
            ..Default::default()
        }
    }

    async fn stream(&self, action: Action) -> Result<Made, ClientError> {
        use v1::stream_finished::Result as Outcome;
        use v1::stream_start::Operation;
        let Made { bytes, iv } = &self.made;
        let operation = match action {
            Action::Decrypt => Operation::Decrypt(v1::StreamDecrypt {
                initialization_vector: iv.clone(),
                ..Default::default()
            }),
            Action::Encrypt => Operation::Encrypt(v1::StreamEncrypt::default()),
            Action::MacSign => Operation::MacSign(v1::StreamMacSign {}),
            Action::MacVerify => Operation::MacVerify(v1::StreamMacVerify { mac: bytes.clone() }),
            Action::Sign => Operation::Sign(v1::StreamSign {}),
            Action::Verify => Operation::Verify(v1::StreamVerify { signature: bytes.clone() }),
            other => panic!("{other} does not run over a stream"),
        };
        let name = self.version.clone();
        let start = v1::StreamStart { name, operation: Some(operation), ..Default::default() };
        let input = if action == Action::Decrypt { bytes.as_slice() } else { DATA };
        let mut output = Vec::new();
        let done = match self.client.stream(start, input, &mut output, |_| ()).await {
            Ok(done) => done,
            Err(StreamError::Client(error)) => return Err(error),
            Err(other) => panic!("{other}"),
        };
        let bytes = match done.finished.result {
            Some(Outcome::Signature(bytes) | Outcome::Mac(bytes) | Outcome::Digest(bytes)) => bytes,
            Some(Outcome::Valid(valid)) => {
                assert!(valid);
                Vec::new()
            }
            None => output,
        };
        assert!(action != Action::Decrypt || bytes == DATA);
        Ok(Made { bytes, iv: done.started.initialization_vector })
    }

    async fn batch(&self, action: Action) -> Result<Made, ClientError> {
        use v1::batch_item::Request as Asked;
        use v1::batch_result::Response;
        let (name, data) = (self.version.clone(), DATA.to_vec());
        let Made { bytes, iv } = &self.made;
        let bytes = bytes.clone();
        let request = match action {
            Action::Decrypt => Asked::Decrypt(v1::DecryptRequest {
                name,
                initialization_vector: iv.clone(),
                ciphertext: bytes,
                ..Default::default()
            }),
            Action::Encrypt => {
                Asked::Encrypt(v1::EncryptRequest { name, plaintext: data, ..Default::default() })
            }
            Action::MacSign => {
                Asked::MacSign(v1::MacSignRequest { name, data, ..Default::default() })
            }
            Action::MacVerify => Asked::MacVerify(v1::MacVerifyRequest {
                name,
                data,
                mac: bytes,
                ..Default::default()
            }),
            Action::Sign => Asked::Sign(v1::SignRequest {
                name,
                data: Some(v1::sign_request::Data::Message(data)),
                ..Default::default()
            }),
            Action::Verify => Asked::Verify(v1::VerifyRequest {
                name,
                data: Some(v1::verify_request::Data::Message(data)),
                signature: bytes,
                ..Default::default()
            }),
            other => panic!("{other} is not done in batches"),
        };
        let items = vec![v1::BatchItem { request: Some(request) }];
        let answer =
            self.client.call(self.client.crypto().batch(v1::BatchRequest { items })).await?;
        match answer.results.into_iter().next().unwrap().response.unwrap() {
            Response::Error(error) => Err(ClientError::Refused {
                code: Code::from_i32(error.code),
                reason: error.reason,
                message: error.message,
                audit_index: error.audit_index,
            }),
            Response::MacVerify(answer) => {
                assert!(answer.valid);
                Ok(Made { bytes: Vec::new(), iv: Vec::new() })
            }
            Response::Verify(answer) => {
                assert!(answer.valid);
                Ok(Made { bytes: Vec::new(), iv: Vec::new() })
            }
            _ => Ok(Made { bytes: Vec::new(), iv: Vec::new() }),
        }
    }

    async fn other(&self, action: Action) -> Result<(), ClientError> {
        let (client, name) = (&self.client, self.version.clone());
        match action {
            Action::CopyKey => {
                let name_of_copy = format!("{}-copy", self.key);
                let key = Some(v1::Key { name: name_of_copy, ..Default::default() });
                let request = v1::CopyKeyRequest { name, key, ..Default::default() };
                client.call(client.crypto().copy_key(request)).await?;
            }
            Action::DisableKeyVersion => {
                assert!(!step(client, "Disable", &name).await?.enabled);
            }
            Action::EnableKeyVersion => assert!(step(client, "Enable", &name).await?.enabled),
            Action::GetKeyStatement => drop(self.statement().await?),
            Action::GetKeyVersion => {
                let request = v1::GetKeyVersionRequest { name };
                client.call(client.keys().get_key_version(request)).await?;
            }
            Action::GetPublicKey => {
                let request = v1::GetPublicKeyRequest { name };
                client.call(client.keys().get_public_key(request)).await?;
            }
            Action::SetKeyCertificate => {
                // The statement's own certificate is one for the version's key.
                let certificate = self.statement().await?.certificate_chain.swap_remove(0);
                let request =
                    v1::SetKeyCertificateRequest { name, certificate, ..Default::default() };
                client.call(client.keys().set_key_certificate(request)).await?;
            }
            Action::SetKeyVersionDates => {
                let request = v1::SetKeyVersionDatesRequest {
                    name,
                    deactivate_time: Some(prost_types::Timestamp { seconds: 1 << 32, nanos: 0 }),
                    ..Default::default()
                };
                client.call(client.keys().set_key_version_dates(request)).await?;
            }
            Action::UndoKeyVersionStep => drop(step(client, "Undo", &name).await?),
            other => panic!("no request is written for {other}"),
        }
        Ok(())
    }

    async fn statement(&self) -> Result<v1::GetKeyStatementResponse, ClientError> {
        let request = v1::GetKeyStatementRequest { name: self.version.clone(), nonce: Vec::new() };
        self.client.call(self.client.keys().get_key_statement(request)).await
    }
}

/// A name that no earlier call has used.
fn unused_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("made-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

const DATA: &[u8] = b"used";
