//! A server of `CryptoService` that misbehaves on request, on a thread of its own.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use kms_client::v1::crypto_service_server::{CryptoService, CryptoServiceServer};
use kms_client::v1::{self, session_request, session_response};
use kms_client::{Config, EXPORTER_LABEL, Endpoint, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What the server is to do, asked for by `length_bytes`.
#[derive(Clone, Copy)]
pub(crate) enum Behaviour {
    Binding = 1,
    Close,
    Late,
    Refuse,
    Silent,
    Unavailable,
    UnavailableTwice,
    WrongId,
}

impl Behaviour {
    fn of(request: &v1::GenerateRandomRequest) -> Self {
        [
            Self::Binding,
            Self::Close,
            Self::Late,
            Self::Refuse,
            Self::Silent,
            Self::Unavailable,
            Self::UnavailableTwice,
        ]
        .into_iter()
        .find(|behaviour| *behaviour as u32 == request.length_bytes)
        .unwrap_or(Self::WrongId)
    }
}

pub(crate) struct Server {
    pub(crate) config: Config,
    service: Service,
    certificate_digest: Vec<u8>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _folder: TempDir,
}

impl Server {
    pub(crate) fn unix() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsd.sock");
        let config = Config::new(Endpoint::Unix(path.clone()), None);
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self::start(folder, config, Vec::new(), async move |service: Service| {
            let listener = UnixListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(service.clone(), stream));
            }
        })
    }

    pub(crate) fn tls() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tls, acceptor, digest) = certificates(folder.path());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = Endpoint::Tcp { host: "localhost".into(), port };
        let config = Config::new(endpoint, Some(tls));
        Self::start(folder, config, digest, async move |service: Service| {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, mut service) = (acceptor.clone(), service.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let (_, connection) = stream.get_ref();
                    let client = &connection.peer_certificates().unwrap()[0];
                    let exporter =
                        connection.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
                    service.binding = [Sha256::digest(client).to_vec(), exporter.to_vec()].concat();
                    serve(service, stream).await;
                });
            }
        })
    }

    fn start<A: AsyncFnOnce(Service) + Send + 'static>(
        folder: TempDir,
        config: Config,
        certificate_digest: Vec<u8>,
        accept: A,
    ) -> Self {
        let service = Service::default();
        let shared = service.clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                tokio::select! {
                    () = accept(shared) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            config,
            service,
            certificate_digest,
            stop: Some(stop),
            thread: Some(thread),
            _folder: folder,
        }
    }

    pub(crate) fn unary_calls(&self) -> usize {
        self.service.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn open_streams(&self) -> usize {
        self.service.streams.load(Ordering::SeqCst)
    }

    pub(crate) fn certificate_digest(&self) -> Vec<u8> {
        self.certificate_digest.clone()
    }

    /// Ends the server and every connection, and waits until that is done.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn certificates(folder: &Path) -> (TlsFiles, tokio_rustls::TlsAcceptor, Vec<u8>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &ca).unwrap(), key)
    };
    let (client, client_key) = signed("client");
    let write = |name: &str, pem: String| {
        let path = folder.join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let files = TlsFiles {
        ca: write("ca.pem", ca.pem()),
        certificate: write("client.pem", client.pem()),
        key: write("client.key", client_key.serialize_pem()),
    };
    let (server, server_key) = signed("localhost");
    let server: CertificateDer<'static> = server.der().clone();
    let digest = Sha256::digest(&server).to_vec();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![server],
            PrivateKeyDer::try_from(server_key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    (files, tokio_rustls::TlsAcceptor::from(Arc::new(config)), digest)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(service: Service, stream: S) {
    let service = TowerToHyperService::new(CryptoServiceServer::new(service));
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // A connection that ends in an error is what some tests ask for.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

#[derive(Clone, Default)]
struct Service {
    calls: Arc<AtomicUsize>,
    streams: Arc<AtomicUsize>,
    binding: Vec<u8>,
}

fn sealed() -> Status {
    let details = ErrorDetails::with_error_info("SEALED", "kms.v1", []);
    Status::with_error_details(Code::Unavailable, "unseal first", details)
}

/// Counts a session stream for as long as it lives.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type Answers = mpsc::Sender<Result<v1::SessionResponse, Status>>;

async fn run_session(mut requests: Streaming<v1::SessionRequest>, answers: Answers, _open: Open) {
    use session_response::Response as R;
    let mut late = None;
    while let Some(Ok(v1::SessionRequest { id, request })) = requests.next().await {
        if let Some(late) = late.take() {
            answers.send(Ok(late)).await.unwrap();
        }
        let random = R::GenerateRandom(v1::GenerateRandomResponse::default());
        let (id, response) = match request.unwrap() {
            session_request::Request::GenerateRandom(request) => match Behaviour::of(&request) {
                Behaviour::Close => return,
                Behaviour::Late => {
                    late = Some(v1::SessionResponse { id, response: Some(random) });
                    continue;
                }
                Behaviour::Refuse => {
                    let (reason, message) = ("SEALED".to_owned(), "unseal first".to_owned());
                    (
                        id,
                        R::Error(v1::OperationError {
                            code: 9,
                            reason,
                            message,
                            audit_index: None,
                        }),
                    )
                }
                _ => (id + 100, random),
            },
            _ => {
                let token = v1::Token { label: "dev".into(), ..Default::default() };
                (id, R::ListTokens(v1::ListTokensResponse { tokens: vec![token], audit: None }))
            }
        };
        let _ = answers.send(Ok(v1::SessionResponse { id, response: Some(response) })).await;
    }
}

/// Gives data back with each byte inverted, in chunks of other lengths than they came in; a signature
/// is what came, as it came. The name says what goes wrong.
async fn run_stream(
    mut requests: Streaming<v1::StreamRequest>,
    answers: mpsc::Sender<Result<v1::StreamResponse, Status>>,
) {
    use v1::stream_request::Request as Asked;
    use v1::stream_response::Response as R;
    let Some(Ok(v1::StreamRequest { request: Some(Asked::Start(start)) })) = requests.next().await
    else {
        return;
    };
    let send =
        async |response| answers.send(Ok(v1::StreamResponse { response: Some(response) })).await;
    if start.name == "refuse" {
        let _ = answers.send(Err(sealed())).await;
        return;
    }
    let _ = send(R::Started(v1::StreamStarted { name: start.name.clone(), ..Default::default() }))
        .await;
    let enciphers = matches!(start.operation, Some(v1::stream_start::Operation::Encrypt(_)));
    let (mut taken, mut waiting) = (Vec::new(), Vec::new());
    while let Some(Ok(v1::StreamRequest { request: Some(request) })) = requests.next().await {
        match request {
            Asked::Chunk(_) if start.name == "break" => return,
            Asked::Chunk(chunk) => {
                assert!(!chunk.is_empty() && chunk.len() <= 64 * 1024);
                waiting.extend(chunk.iter().map(|byte| !byte));
                taken.extend(chunk);
                if enciphers && waiting.len() > 100_000 {
                    let _ = send(R::Chunk(std::mem::take(&mut waiting))).await;
                }
            }
            _ => break,
        }
    }
    if enciphers && !waiting.is_empty() {
        let _ = send(R::Chunk(waiting)).await;
    }
    let short = u64::from(start.name == "short");
    let length_bytes = u64::try_from(taken.len()).unwrap() - short;
    let result = (!enciphers).then_some(v1::stream_finished::Result::Signature(taken));
    let _ = send(R::Finished(v1::StreamFinished { result, length_bytes })).await;
}

/// Methods of one request and one answer that these tests do not call.
macro_rules! unimplemented_methods {
    ($($method:ident($request:ident) -> $response:ident;)+) => {$(
        // As `async_trait` writes it, which does not look into macros.
        fn $method<'life0, 'async_trait>(
            &'life0 self,
            _: Request<v1::$request>,
        ) -> Pin<
            Box<dyn Future<Output = Result<Response<v1::$response>, Status>> + Send + 'async_trait>,
        >
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented("not part of these tests")) })
        }
    )+};
}

#[tonic::async_trait]
impl CryptoService for Service {
    type SessionStream = Pin<
        Box<dyn tokio_stream::Stream<Item = Result<v1::SessionResponse, Status>> + Send + 'static>,
    >;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (answers, outgoing) = mpsc::channel(4);
        self.streams.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(run_session(request.into_inner(), answers, Open(self.streams.clone())));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    type StreamStream = Pin<
        Box<dyn tokio_stream::Stream<Item = Result<v1::StreamResponse, Status>> + Send + 'static>,
    >;

    async fn stream(
        &self,
        request: Request<Streaming<v1::StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (answers, outgoing) = mpsc::channel(4);
        tokio::spawn(run_stream(request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn generate_random(
        &self,
        request: Request<v1::GenerateRandomRequest>,
    ) -> Result<Response<v1::GenerateRandomResponse>, Status> {
        let calls = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let data = match Behaviour::of(request.get_ref()) {
            Behaviour::Binding => self.binding.clone(),
            Behaviour::Refuse => return Err(sealed()),
            Behaviour::Silent => std::future::pending().await,
            Behaviour::UnavailableTwice if calls == 3 => b"third".to_vec(),
            _ => return Err(Status::unavailable("starting")),
        };
        Ok(Response::new(v1::GenerateRandomResponse { data, audit: None }))
    }

    async fn sign(
        &self,
        _: Request<v1::SignRequest>,
    ) -> Result<Response<v1::SignResponse>, Status> {
        let metadata = [("audit_index".to_owned(), "7".to_owned())];
        let details = ErrorDetails::with_error_info("NEEDS_APPROVAL", "kms.v1", metadata);
        Err(Status::with_error_details(Code::FailedPrecondition, "create a proposal", details))
    }

    unimplemented_methods! {
        encrypt(EncryptRequest) -> EncryptResponse;
        decrypt(DecryptRequest) -> DecryptResponse;
        verify(VerifyRequest) -> VerifyResponse;
        mac_sign(MacSignRequest) -> MacSignResponse;
        mac_verify(MacVerifyRequest) -> MacVerifyResponse;
        digest(DigestRequest) -> DigestResponse;
        re_encrypt(ReEncryptRequest) -> ReEncryptResponse;
        generate_data_key(GenerateDataKeyRequest) -> GenerateDataKeyResponse;
        wrap_key(WrapKeyRequest) -> WrapKeyResponse;
        unwrap_key(UnwrapKeyRequest) -> UnwrapKeyResponse;
        derive_key(DeriveKeyRequest) -> DeriveKeyResponse;
        agree_key(AgreeKeyRequest) -> AgreeKeyResponse;
        encapsulate_key(EncapsulateKeyRequest) -> EncapsulateKeyResponse;
        decapsulate_key(DecapsulateKeyRequest) -> DecapsulateKeyResponse;
        copy_key(CopyKeyRequest) -> CopyKeyResponse;
        batch(BatchRequest) -> BatchResponse;
    }
}
