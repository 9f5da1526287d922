//! A small daemon for the tests: `CryptoService.Session` on a Unix socket, with one ring, a P-256
//! key, an AES key and a PIN; more keys are made by the tests. Signatures of P-256 and RSA are real, the
//! other cryptography is a stand-in of the right shape, and every request is kept to be looked at.
//! It runs in a thread of its own, outside the module under test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use kms_proto::v1;
use kms_proto::v1::Mechanism as Wire;
use kms_proto::v1::crypto_service_server::{CryptoService, CryptoServiceServer};
use kms_proto::v1::session_request::Request as Asked;
use kms_proto::v1::session_response::Response as Said;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey as _;
use tokio::net::UnixListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Code, Request, Response, Status, Streaming};

pub(crate) const RING: &str = "tenants/default/locations/here/keyRings/web";
pub(crate) const PIN: &str = "correct horse";

/// What the daemon knows, and how it is to behave.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, v1::TokenObject>,
    pub(crate) user_pin: String,
    /// How many logins it has accepted.
    pub(crate) logins: usize,
    /// How many streams were opened.
    pub(crate) streams: usize,
    /// End the stream at the next request instead of answering.
    pub(crate) hang_up: bool,
    /// Answer signatures and searches with nonsense.
    pub(crate) hostile: bool,
    /// The ring is a compatible one.
    pub(crate) compatible: bool,
    /// The last request other than a search.
    pub(crate) last: Option<Asked>,
}

#[derive(Clone)]
pub(crate) struct Daemon {
    state: Arc<Mutex<State>>,
    pub(crate) socket: PathBuf,
}

impl Daemon {
    /// Starts it; it runs until the test process ends.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let socket = folder.join("kmsd.sock");
        let state = State { user_pin: PIN.into(), ..State::default() };
        let daemon = Self { state: Arc::new(Mutex::new(state)), socket };
        daemon.add(object("web", 1, v1::Algorithm::EcP256));
        daemon.add(object("old", 2, v1::Algorithm::Aes256));
        let service = daemon.clone();
        let (ready, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = UnixListener::bind(&service.socket).unwrap();
                ready.send(()).unwrap();
                let incoming = UnixListenerStream::new(listener);
                let server = tonic::transport::Server::builder();
                let mut server = server;
                server
                    .add_service(CryptoServiceServer::new(service))
                    .serve_with_incoming(incoming)
                    .await
                    .unwrap();
            });
        });
        started.recv().unwrap();
        daemon
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, object: v1::TokenObject) {
        self.state().objects.insert(object.version.clone(), object);
    }

    fn answer(&self, asked: Asked, logged_in: &mut bool) -> Result<Said, (Code, &'static str)> {
        if !matches!(asked, Asked::FindObjects(_) | Asked::LoginToken(_) | Asked::ListTokens(_)) {
            self.state().last = Some(asked.clone());
        }
        let hostile = self.state().hostile;
        let needs_login = (Code::PermissionDenied, "ROLE_MISSING");
        match asked {
            Asked::ListTokens(_) => {
                let token = v1::Token {
                    name: RING.into(),
                    label: "web".into(),
                    serial: "0123456789abcdef".into(),
                    user_pin_set: true,
                    kind: if self.state().compatible {
                        v1::RingKind::Compatible.into()
                    } else {
                        v1::RingKind::Hardened.into()
                    },
                    mechanisms: self.ring_mechanisms(),
                    approved_only: false,
                    pin_locks: Vec::new(),
                };
                Ok(Said::ListTokens(v1::ListTokensResponse { tokens: vec![token], audit: None }))
            }
            Asked::LoginToken(request) => {
                let mut state = self.state();
                if request.ring != RING || request.pin != state.user_pin {
                    return Err((Code::Unauthenticated, "PIN_INCORRECT"));
                }
                state.logins += 1;
                *logged_in = true;
                Ok(Said::LoginToken(v1::LoginTokenResponse::default()))
            }
            Asked::LogoutToken(_) => {
                *logged_in = false;
                Ok(Said::LogoutToken(v1::LogoutTokenResponse {}))
            }
            _ if !*logged_in => Err(needs_login),
            Asked::FindObjects(_) if hostile => {
                let bad = v1::TokenObject { public_key: vec![0xff; 9], ..self.first() };
                let objects = vec![bad];
                Ok(Said::FindObjects(v1::FindObjectsResponse { objects, ..Default::default() }))
            }
            Asked::FindObjects(request) => {
                let wanted = |object: &&v1::TokenObject| {
                    request.label.as_ref().is_none_or(|label| *label == object.label)
                        && request.id.as_ref().is_none_or(|id| *id == object.id)
                };
                let objects = self.state().objects.values().filter(wanted).cloned().collect();
                Ok(Said::FindObjects(v1::FindObjectsResponse { objects, ..Default::default() }))
            }
            Asked::CreateObjectKey(request) => {
                assert_eq!(request.request_id.len(), 16);
                let algorithm = v1::Algorithm::try_from(request.algorithm).unwrap();
                let number = self.state().objects.len() as u8 + 1;
                let plain = object("new", number, algorithm);
                let object = v1::TokenObject {
                    label: request.label,
                    id: request.id,
                    usages: request.usages,
                    mechanisms: request.mechanisms,
                    exportable: request.exportable,
                    ever_exportable: request.exportable,
                    length_bytes: match request.length_bytes {
                        0 => plain.length_bytes,
                        asked => asked,
                    },
                    ..plain
                };
                self.add(object.clone());
                let object = Some(object);
                Ok(Said::CreateObjectKey(v1::CreateObjectKeyResponse { object, audit: None }))
            }
            Asked::WrapKey(request) => {
                let wrapped_key =
                    vec![0x77; self.object(&request.target).length_bytes as usize + 8];
                Ok(Said::WrapKey(v1::WrapKeyResponse { wrapped_key, ..Default::default() }))
            }
            Asked::UnwrapKey(request) if request.wrapped_key.contains(&0) => {
                Err((Code::InvalidArgument, "CIPHERTEXT_REFUSED"))
            }
            Asked::UnwrapKey(request) => {
                let (key, version) = self.make(request.key);
                Ok(Said::UnwrapKey(v1::UnwrapKeyResponse { key, version, audit: None }))
            }
            Asked::DeriveKey(request) => {
                let (key, version) = self.make(request.key);
                Ok(Said::DeriveKey(v1::DeriveKeyResponse { key, version, audit: None }))
            }
            Asked::AgreeKey(request) => {
                let (key, version) = self.make(request.key);
                Ok(Said::AgreeKey(v1::AgreeKeyResponse { key, version, audit: None }))
            }
            Asked::EncapsulateKey(request) => {
                let (key, version) = self.make(request.key);
                let ciphertext = vec![0xcc; 1088];
                Ok(Said::EncapsulateKey(v1::EncapsulateKeyResponse {
                    ciphertext,
                    key,
                    version,
                    audit: None,
                }))
            }
            Asked::DecapsulateKey(request) => {
                let (key, version) = self.make(request.key);
                Ok(Said::DecapsulateKey(v1::DecapsulateKeyResponse { key, version, audit: None }))
            }
            Asked::CopyKey(request) => {
                let original = self.object(&request.name);
                let mut key = request.key.unwrap();
                key.algorithm = original.algorithm;
                key.mechanisms = original.mechanisms;
                if key.usages.is_empty() {
                    key.usages = original.usages;
                }
                if key.pkcs11_label.is_empty() {
                    key.pkcs11_label = original.label;
                }
                let (key, version) = self.make(Some(key));
                Ok(Said::CopyKey(v1::CopyKeyResponse { key, version, audit: None }))
            }
            Asked::DestroyObject(request) => {
                let mut state = self.state();
                let object = state.objects.get_mut(&request.version);
                object.ok_or((Code::NotFound, "NOT_FOUND"))?.state = v1::State::Destroyed.into();
                Ok(Said::DestroyObject(v1::DestroyObjectResponse::default()))
            }
            Asked::UpdateObject(request) => {
                let mut state = self.state();
                let object = state.objects.get_mut(&request.version);
                let object = object.ok_or((Code::NotFound, "NOT_FOUND"))?;
                object.label = request.label.unwrap_or_else(|| object.label.clone());
                object.id = request.id.unwrap_or_else(|| object.id.clone());
                let object = Some(object.clone());
                Ok(Said::UpdateObject(v1::UpdateObjectResponse { object, audit: None }))
            }
            Asked::Sign(_) if hostile => Ok(Said::Sign(v1::SignResponse {
                signature: vec![0; 500],
                signature_crc32c: crc32c::crc32c(&[0; 500]),
                ..Default::default()
            })),
            Asked::Sign(request) => {
                let data = request.data.unwrap();
                let signature = match (Wire::try_from(request.mechanism).unwrap(), data) {
                    (
                        Wire::EcdsaSha256 | Wire::EcdsaSha384 | Wire::EcdsaSha3256,
                        v1::sign_request::Data::Digest(digest),
                    ) => {
                        let signature: Signature = key().sign_prehash(&digest).unwrap();
                        signature.to_der().as_bytes().to_vec()
                    }
                    (mechanism, v1::sign_request::Data::Digest(digest)) => {
                        rsa_signature(mechanism, &digest)
                    }
                    (Wire::Eddsa, v1::sign_request::Data::Message(message)) => {
                        stand_in_tag(&message, 64)
                    }
                    (other, _) => panic!("no signature by {other:?}"),
                };
                Ok(Said::Sign(v1::SignResponse {
                    signature_crc32c: crc32c::crc32c(&signature),
                    signature,
                    ..Default::default()
                }))
            }
            Asked::Verify(request) => {
                let Some(v1::verify_request::Data::Message(message)) = request.data else {
                    panic!("only messages are checked there");
                };
                let valid = request.signature == stand_in_tag(&message, 64);
                Ok(Said::Verify(v1::VerifyResponse { valid, audit: None }))
            }
            Asked::MacSign(request) => {
                let mac = stand_in_tag(&request.data, mac_bytes(request.mechanism));
                Ok(Said::MacSign(v1::MacSignResponse { mac, ..Default::default() }))
            }
            Asked::MacVerify(request) => {
                let valid =
                    request.mac == stand_in_tag(&request.data, mac_bytes(request.mechanism));
                Ok(Said::MacVerify(v1::MacVerifyResponse { valid, audit: None }))
            }
            // Not AES, but as long: the tests look at the conventions around it.
            Asked::Encrypt(request) => {
                let wire = Wire::try_from(request.mechanism).unwrap();
                let mut iv = request.initialization_vector;
                let mut ciphertext: Vec<u8> =
                    request.plaintext.iter().map(|byte| byte ^ 0x5a).collect();
                match wire {
                    Wire::AesGcm | Wire::Chacha20Poly1305 => {
                        iv = if iv.is_empty() { vec![9; 12] } else { iv };
                        ciphertext.extend([0xaa; 16]);
                    }
                    Wire::AesCbcPad => {
                        let padding = 16 - ciphertext.len() % 16;
                        ciphertext.extend(vec![0x5a ^ padding as u8; padding]);
                    }
                    _ => {}
                }
                Ok(Said::Encrypt(v1::EncryptResponse {
                    initialization_vector: iv,
                    ciphertext_crc32c: crc32c::crc32c(&ciphertext),
                    ciphertext,
                    ..Default::default()
                }))
            }
            Asked::Decrypt(request) => {
                let refused = Err((Code::InvalidArgument, "CIPHERTEXT_REFUSED"));
                let wire = Wire::try_from(request.mechanism).unwrap();
                let mut plaintext: Vec<u8> =
                    request.ciphertext.iter().map(|byte| byte ^ 0x5a).collect();
                match wire {
                    Wire::AesGcm => {
                        let body = plaintext.len() - 16;
                        if request.ciphertext[body..] != [0xaa; 16] {
                            return refused;
                        }
                        plaintext.truncate(body);
                    }
                    Wire::AesCbcPad => {
                        let padding = *plaintext.last().unwrap() as usize;
                        if padding == 0 || padding > 16 {
                            return refused;
                        }
                        plaintext.truncate(plaintext.len() - padding);
                    }
                    _ => {}
                }
                Ok(Said::Decrypt(v1::DecryptResponse {
                    plaintext_crc32c: crc32c::crc32c(&plaintext),
                    plaintext,
                    audit: None,
                }))
            }
            Asked::GenerateRandom(request) => {
                let data = vec![4; request.length_bytes as usize];
                Ok(Said::GenerateRandom(v1::GenerateRandomResponse { data, audit: None }))
            }
            Asked::Digest(_) => Err((Code::Unimplemented, "UNIMPLEMENTED")),
        }
    }

    /// What was asked last.
    pub(crate) fn last(&self) -> Asked {
        self.state().last.clone().unwrap()
    }

    fn first(&self) -> v1::TokenObject {
        self.state().objects.values().next().unwrap().clone()
    }

    fn object(&self, version: &str) -> v1::TokenObject {
        self.state().objects[version].clone()
    }

    fn ring_mechanisms(&self) -> Vec<i32> {
        let compatible = [Wire::RsaPkcs1, Wire::RsaRaw].map(i32::from);
        let allowed = self.state().compatible;
        (1..=49).filter(|number| allowed || !compatible.contains(number)).collect()
    }

    /// A key made out of another.
    fn make(&self, key: Option<v1::Key>) -> (Option<v1::Key>, Option<v1::KeyVersion>) {
        let key = v1::Key { primary_version: 1, ..key.unwrap() };
        let algorithm = v1::Algorithm::try_from(key.algorithm).unwrap();
        let plain = object("", 0, algorithm);
        let version = v1::KeyVersion {
            name: format!("{}/versions/1", key.name),
            state: plain.state,
            algorithm: key.algorithm,
            public_key: plain.public_key.clone(),
            length_bytes: key.length_bytes.max(plain.length_bytes),
            ever_exportable: true,
            ..Default::default()
        };
        self.add(v1::TokenObject {
            version: version.name.clone(),
            usages: key.usages.clone(),
            label: key.pkcs11_label.clone(),
            id: key.pkcs11_id.clone(),
            mechanisms: key.mechanisms.clone(),
            local: false,
            ..plain
        });
        (Some(key), Some(version))
    }
}

type Unary<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl CryptoService for Daemon {
    type SessionStream = ReceiverStream<Result<v1::SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut asked = request.into_inner();
        let (answers, stream) = tokio::sync::mpsc::channel(16);
        let daemon = self.clone();
        daemon.state().streams += 1;
        tokio::spawn(async move {
            let mut logged_in = false;
            while let Some(Ok(v1::SessionRequest { id, request })) = asked.next().await {
                if std::mem::take(&mut daemon.state().hang_up) {
                    return;
                }
                let response = match daemon.answer(request.unwrap(), &mut logged_in) {
                    Ok(said) => said,
                    Err((code, reason)) => Said::Error(v1::OperationError {
                        code: code.into(),
                        reason: reason.into(),
                        message: "said no".into(),
                        audit_index: None,
                    }),
                };
                let response = v1::SessionResponse { id, response: Some(response) };
                if answers.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type StreamStream = ReceiverStream<Result<v1::StreamResponse, Status>>;

    async fn stream(
        &self,
        _: Request<Streaming<v1::StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn encrypt(&self, _: Request<v1::EncryptRequest>) -> Unary<v1::EncryptResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn decrypt(&self, _: Request<v1::DecryptRequest>) -> Unary<v1::DecryptResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn sign(&self, _: Request<v1::SignRequest>) -> Unary<v1::SignResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn verify(&self, _: Request<v1::VerifyRequest>) -> Unary<v1::VerifyResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn mac_sign(&self, _: Request<v1::MacSignRequest>) -> Unary<v1::MacSignResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn mac_verify(&self, _: Request<v1::MacVerifyRequest>) -> Unary<v1::MacVerifyResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn digest(&self, _: Request<v1::DigestRequest>) -> Unary<v1::DigestResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn generate_random(
        &self,
        _: Request<v1::GenerateRandomRequest>,
    ) -> Unary<v1::GenerateRandomResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn re_encrypt(&self, _: Request<v1::ReEncryptRequest>) -> Unary<v1::ReEncryptResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn generate_data_key(
        &self,
        _: Request<v1::GenerateDataKeyRequest>,
    ) -> Unary<v1::GenerateDataKeyResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn wrap_key(&self, _: Request<v1::WrapKeyRequest>) -> Unary<v1::WrapKeyResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn unwrap_key(&self, _: Request<v1::UnwrapKeyRequest>) -> Unary<v1::UnwrapKeyResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn derive_key(&self, _: Request<v1::DeriveKeyRequest>) -> Unary<v1::DeriveKeyResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn agree_key(&self, _: Request<v1::AgreeKeyRequest>) -> Unary<v1::AgreeKeyResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn encapsulate_key(
        &self,
        _: Request<v1::EncapsulateKeyRequest>,
    ) -> Unary<v1::EncapsulateKeyResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn decapsulate_key(
        &self,
        _: Request<v1::DecapsulateKeyRequest>,
    ) -> Unary<v1::DecapsulateKeyResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn copy_key(&self, _: Request<v1::CopyKeyRequest>) -> Unary<v1::CopyKeyResponse> {
        Err(Status::unimplemented("only the session stream"))
    }

    async fn batch(&self, _: Request<v1::BatchRequest>) -> Unary<v1::BatchResponse> {
        Err(Status::unimplemented("only the session stream"))
    }
}

/// The one signing key.
pub(crate) fn key() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

/// The one RSA key, made once.
pub(crate) fn rsa_key() -> &'static rsa::RsaPrivateKey {
    static KEY: LazyLock<rsa::RsaPrivateKey> =
        LazyLock::new(|| rsa::RsaPrivateKey::new(&mut rand::rng(), 2048).unwrap());
    &KEY
}

fn rsa_signature(mechanism: Wire, digest: &[u8]) -> Vec<u8> {
    let key = rsa_key();
    let signature = match mechanism {
        Wire::RsaPkcs1Sha256 => key.sign(rsa::Pkcs1v15Sign::new::<sha2::Sha256>(), digest),
        Wire::RsaPkcs1Sha512 => key.sign(rsa::Pkcs1v15Sign::new::<sha2::Sha512>(), digest),
        Wire::RsaPssSha256 => {
            key.sign_with_rng(&mut rand::rng(), rsa::Pss::<sha2::Sha256>::new(), digest)
        }
        Wire::RsaPssSha384 => {
            key.sign_with_rng(&mut rand::rng(), rsa::Pss::<sha2::Sha384>::new(), digest)
        }
        other => panic!("no signature by {other:?}"),
    };
    signature.unwrap()
}

/// No authentication code, but as long as one and different for each message.
fn stand_in_tag(message: &[u8], bytes: usize) -> Vec<u8> {
    let sum = message.iter().fold(7_u8, |sum, byte| sum.rotate_left(3) ^ byte);
    vec![sum; bytes]
}

fn mac_bytes(mechanism: i32) -> usize {
    match Wire::try_from(mechanism).unwrap() {
        Wire::AesCmac => 16,
        Wire::HmacSha256 => 32,
        Wire::HmacSha512 => 64,
        Wire::HmacSha1 => 20,
        other => panic!("no code by {other:?}"),
    }
}

/// A public key whose bits nobody looks at: identifier, and how many.
fn public_key_info(identifier: &[u8], bytes: usize) -> Vec<u8> {
    let element = |tag: u8, content: &[u8]| {
        let length = (content.len() as u16).to_be_bytes();
        let length: &[u8] = match content.len() {
            0..128 => &length[1..],
            128..256 => &[0x81, length[1]],
            _ => &[0x82, length[0], length[1]],
        };
        [&[tag], length, content].concat()
    };
    let bits = element(0x03, &[&[0][..], &vec![5; bytes]].concat());
    element(0x30, &[element(0x30, identifier), bits].concat())
}

/// A key of the ring.
pub(crate) fn object(label: &str, number: u8, algorithm: v1::Algorithm) -> v1::TokenObject {
    use v1::Usage::{Decapsulate, Decrypt, Derive, Encapsulate, Encrypt, MacSign, MacVerify};
    use v1::Usage::{Sign, Unwrap, Verify, Wrap};
    // FIPS 203: 2.16.840.1.101.3.4.4.2.
    let ml_kem = [0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x04, 0x02];
    let (public_key, length_bytes, usages): (_, _, &[_]) = match algorithm {
        v1::Algorithm::EcP256 => {
            let der = key().verifying_key().to_public_key_der().unwrap().into_vec();
            (der, 0, &[Sign, Verify, Derive])
        }
        v1::Algorithm::Rsa2048 => {
            let der = rsa_key().to_public_key().to_public_key_der().unwrap().into_vec();
            (der, 0, &[Sign, Verify, Encrypt, Decrypt, Wrap, Unwrap])
        }
        v1::Algorithm::Ed25519 => {
            (public_key_info(&[0x06, 0x03, 0x2b, 0x65, 0x70], 32), 0, &[Sign, Verify])
        }
        v1::Algorithm::MlKem768 => (public_key_info(&ml_kem, 1184), 0, &[Encapsulate, Decapsulate]),
        v1::Algorithm::Aes256 => {
            (Vec::new(), 32, &[Encrypt, Decrypt, Wrap, Unwrap, MacSign, MacVerify])
        }
        v1::Algorithm::Aes128 => (Vec::new(), 16, &[Encrypt, Decrypt]),
        v1::Algorithm::GenericSecret => (Vec::new(), 32, &[MacSign, MacVerify, Derive]),
        other => panic!("no key of {other:?}"),
    };
    v1::TokenObject {
        version: format!("{RING}/keys/k{number}/versions/1"),
        algorithm: algorithm.into(),
        state: v1::State::Active.into(),
        usages: usages.iter().map(|usage| i32::from(*usage)).collect(),
        label: label.into(),
        id: vec![number],
        public_key,
        local: true,
        primary: true,
        mechanisms: (1..=49).collect(),
        length_bytes,
        ..Default::default()
    }
}
