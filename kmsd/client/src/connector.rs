//! Dials the daemon and notes what both ends of the connection can see of it.
//!
//! tonic's own TLS does not give out the exporter (RFC 8446 §7.5) that a release is bound to, so
//! the handshake is made here.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::ConnectError;
use tonic::transport::{Channel, Uri};

use crate::config::{Config, ConfigError, Endpoint, TlsClient};
use crate::error::ClientError;

/// What identifies the current connection to both ends. All empty on a Unix socket, whose peer the
/// kernel names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ChannelBinding {
    /// SHA-256 of the server's certificate, DER.
    pub server_certificate_digest: Vec<u8>,
    /// SHA-256 of the client's certificate, DER.
    pub client_certificate_digest: Vec<u8>,
    /// TLS exporter with label [`EXPORTER_LABEL`] and no context, 32 bytes.
    pub exporter: Vec<u8>,
}

/// The binding of the connection that is open now; a new connection replaces it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedBinding(Arc<Mutex<ChannelBinding>>);

impl SharedBinding {
    pub(crate) fn current(&self) -> ChannelBinding {
        // The lock is held for a clone or an assignment only, so a poisoned value is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, binding: ChannelBinding) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = binding;
    }
}

/// Opens a channel to the daemon and waits until the connection stands.
///
/// With `addresses` nothing is looked up: tokio would do that on a thread of its own.
pub(crate) async fn open(
    config: &Config,
    addresses: Option<Vec<SocketAddr>>,
) -> Result<(Channel, SharedBinding), ClientError> {
    let binding = SharedBinding::default();
    let dialer = Dialer::new(config, addresses, binding.clone())?;
    let origin = match &config.endpoint {
        Endpoint::Tcp { .. } => config.endpoint.to_string(),
        Endpoint::Unix(_) => "http://localhost".to_owned(),
    };
    let endpoint = Channel::from_shared(origin)
        .map_err(|_| ConfigError::Address(config.endpoint.to_string()))?;
    let channel = Channel::connect(dialer, endpoint).await.map_err(ClientError::unavailable)?;
    Ok((channel, binding))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Connected = TokioIo<Box<dyn Stream>>;

/// The tower service that tonic calls for the first and every further connection.
#[derive(Clone)]
struct Dialer {
    target: Target,
    timeout: Duration,
    binding: SharedBinding,
}

#[derive(Clone)]
enum Target {
    Tcp {
        host: String,
        port: u16,
        addresses: Option<Vec<SocketAddr>>,
        name: ServerName<'static>,
        tls: TlsClient,
    },
    Unix(PathBuf),
}

impl Dialer {
    fn new(
        config: &Config,
        addresses: Option<Vec<SocketAddr>>,
        binding: SharedBinding,
    ) -> Result<Self, ConfigError> {
        let target = match &config.endpoint {
            Endpoint::Tcp { host, port } => Target::Tcp {
                host: host.clone(),
                port: *port,
                addresses,
                name: ServerName::try_from(host.clone())
                    .map_err(|_| ConfigError::Address(config.endpoint.to_string()))?,
                tls: config.tls_client()?,
            },
            Endpoint::Unix(path) => Target::Unix(path.clone()),
        };
        Ok(Self { target, timeout: config.timeout, binding })
    }

    async fn dial(self) -> Result<Connected, ConnectError> {
        let dialed = tokio::time::timeout(self.timeout, dial(&self.target)).await;
        let (stream, binding) = dialed
            .unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time"))
            })
            .map_err(|error| ConnectError(Box::new(error)))?;
        self.binding.replace(binding);
        Ok(TokioIo::new(stream))
    }
}

async fn dial(target: &Target) -> io::Result<(Box<dyn Stream>, ChannelBinding)> {
    match target {
        Target::Tcp { host, port, addresses, name, tls } => {
            let tcp = match addresses {
                Some(addresses) => TcpStream::connect(addresses.as_slice()).await?,
                None => TcpStream::connect((host.as_str(), *port)).await?,
            };
            tcp.set_nodelay(true)?;
            let stream = TlsConnector::from(tls.config.clone()).connect(name.clone(), tcp).await?;
            let binding = binding_of(&stream, tls)?;
            Ok((Box::new(stream), binding))
        }
        Target::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
            Ok((Box::new(stream), ChannelBinding::default()))
        }
    }
}

fn binding_of(stream: &TlsStream<TcpStream>, tls: &TlsClient) -> io::Result<ChannelBinding> {
    let (_, connection) = stream.get_ref();
    let server = connection
        .peer_certificates()
        .and_then(<[_]>::first)
        .ok_or_else(|| io::Error::other("the server showed no certificate"))?;
    let exporter = connection
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map_err(io::Error::other)?;
    Ok(ChannelBinding {
        server_certificate_digest: Sha256::digest(server).to_vec(),
        client_certificate_digest: tls.certificate_digest.clone(),
        exporter: exporter.to_vec(),
    })
}

impl tower::Service<Uri> for Dialer {
    type Response = Connected;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

/// Label of the TLS exporter that a release is bound to.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-kms-release-v1";
