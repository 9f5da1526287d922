//! A small daemon for the tests: `CryptoService.Session` on a Unix socket, with one ring, a P-256
//! key, an AES key and a PIN. It runs in a thread of its own, outside the module under test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kms_proto::v1;
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
        daemon.add(object("web", 1, v1::Algorithm::EcSignP256Sha256));
        daemon.add(object("old", 2, v1::Algorithm::Aes256Gcm));
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
        let hostile = self.state().hostile;
        let needs_login = (Code::PermissionDenied, "ROLE_MISSING");
        match asked {
            Asked::ListTokens(_) => {
                let token = v1::Token {
                    name: RING.into(),
                    label: "web".into(),
                    serial: "0123456789abcdef".into(),
                    user_pin_set: true,
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
                let object = v1::TokenObject {
                    label: request.label,
                    id: request.id,
                    usages: request.usages,
                    ..object("new", number, algorithm)
                };
                self.add(object.clone());
                let object = Some(object);
                Ok(Said::CreateObjectKey(v1::CreateObjectKeyResponse { object, audit: None }))
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
                let Some(v1::sign_request::Data::Sha256Digest(digest)) = request.data else {
                    return Err((Code::InvalidArgument, "INVALID_ARGUMENT"));
                };
                let signature: Signature = key().sign_prehash(&digest).unwrap();
                let signature = signature.to_der().as_bytes().to_vec();
                Ok(Said::Sign(v1::SignResponse {
                    signature_crc32c: crc32c::crc32c(&signature),
                    signature,
                    ..Default::default()
                }))
            }
            // Not AES, but as long: the tests look at the conventions around it.
            Asked::Encrypt(request) => {
                let mut ciphertext: Vec<u8> =
                    request.plaintext.iter().map(|byte| byte ^ 0x5a).collect();
                ciphertext.extend([0xaa; 16]);
                Ok(Said::Encrypt(v1::EncryptResponse {
                    initialization_vector: vec![9; 12],
                    ciphertext_crc32c: crc32c::crc32c(&ciphertext),
                    ciphertext,
                    ..Default::default()
                }))
            }
            Asked::Decrypt(request) => {
                let (ciphertext, tag) = request.ciphertext.split_at(request.ciphertext.len() - 16);
                if request.initialization_vector != [9; 12] || *tag != [0xaa; 16] {
                    return Err((Code::InvalidArgument, "CIPHERTEXT_REFUSED"));
                }
                let plaintext: Vec<u8> = ciphertext.iter().map(|byte| byte ^ 0x5a).collect();
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
            Asked::Verify(_) | Asked::MacSign(_) | Asked::MacVerify(_) => {
                Err((Code::Unimplemented, "UNIMPLEMENTED"))
            }
        }
    }

    fn first(&self) -> v1::TokenObject {
        self.state().objects.values().next().unwrap().clone()
    }
}

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

    async fn encrypt(
        &self,
        _: Request<v1::EncryptRequest>,
    ) -> Result<Response<v1::EncryptResponse>, Status> {
        Err(Status::unimplemented("only the stream"))
    }

    async fn decrypt(
        &self,
        _: Request<v1::DecryptRequest>,
    ) -> Result<Response<v1::DecryptResponse>, Status> {
        Err(Status::unimplemented("only the stream"))
    }

    async fn sign(
        &self,
        _: Request<v1::SignRequest>,
    ) -> Result<Response<v1::SignResponse>, Status> {
        Err(Status::unimplemented("only the stream"))
    }

    async fn verify(
        &self,
        _: Request<v1::VerifyRequest>,
    ) -> Result<Response<v1::VerifyResponse>, Status> {
        Err(Status::unimplemented("only the stream"))
    }

    async fn mac_sign(
        &self,
        _: Request<v1::MacSignRequest>,
    ) -> Result<Response<v1::MacSignResponse>, Status> {
        Err(Status::unimplemented("only the stream"))
    }

    async fn mac_verify(
        &self,
        _: Request<v1::MacVerifyRequest>,
    ) -> Result<Response<v1::MacVerifyResponse>, Status> {
        Err(Status::unimplemented("only the stream"))
    }

    async fn generate_random(
        &self,
        _: Request<v1::GenerateRandomRequest>,
    ) -> Result<Response<v1::GenerateRandomResponse>, Status> {
        Err(Status::unimplemented("only the stream"))
    }
}

/// The one signing key.
pub(crate) fn key() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

/// A key of the ring.
pub(crate) fn object(label: &str, number: u8, algorithm: v1::Algorithm) -> v1::TokenObject {
    let pair = algorithm == v1::Algorithm::EcSignP256Sha256;
    let usages = if pair {
        [v1::Usage::Sign, v1::Usage::Verify]
    } else {
        [v1::Usage::Encrypt, v1::Usage::Decrypt]
    };
    v1::TokenObject {
        version: format!("{RING}/keys/k{number}/versions/1"),
        algorithm: algorithm.into(),
        state: v1::State::Active.into(),
        usages: usages.map(i32::from).to_vec(),
        label: label.into(),
        id: vec![number],
        public_key: if pair {
            key().verifying_key().to_public_key_der().unwrap().into_vec()
        } else {
            Vec::new()
        },
        local: true,
        primary: true,
    }
}
