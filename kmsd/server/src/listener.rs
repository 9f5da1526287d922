//! Sockets and TLS: who may connect, how many, for how long the handshake may take.
//!
//! A stranger costs one connection slot for at most the handshake time, and a failed accept never
//! ends the loop.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use kms_core::id::{Digest, Timestamp};
use kms_core::transcript::{Channel, EXPORTER_LABEL};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::context::Context;
use crate::identity::{Connected as Known, Peer};

/// What TLS needs to accept a client and to know it.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// Accepts any client certificate whose key signs the handshake.
    pub(crate) config: Arc<ServerConfig>,
    /// Tells whether a client certificate chains to the client authority.
    pub(crate) authority: Arc<dyn ClientCertVerifier>,
    /// SHA-256 of our own certificate.
    pub(crate) certificate_digest: Digest,
}

/// An accepted connection whose peer is known.
pub(crate) struct Connection {
    io: Io,
    peer: Arc<Known>,
    _slot: Slot,
}

#[derive(Debug)]
enum Io {
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// A place among the connections that may be open; given back on drop.
struct Slot {
    cx: Arc<Context>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.cx.metrics.connections.dec();
    }
}

/// Accepts on a Unix socket until the receiver is gone.
pub(crate) async fn accept_unix(
    cx: Arc<Context>,
    listener: UnixListener,
    slots: Arc<Semaphore>,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    loop {
        let Some(slot) = slot(&cx, &slots).await else { return };
        let Some(stream) = next(listener.accept().await.map(|(stream, _)| stream)).await else {
            continue;
        };
        let Ok(credentials) = stream.peer_cred() else { continue };
        let peer = known(Peer::Unix { uid: credentials.uid() });
        let connection = Connection { io: Io::Unix(stream), peer, _slot: slot };
        if accepted.send(Ok(connection)).await.is_err() {
            return;
        }
    }
}

/// Accepts on TCP and shakes hands, until the receiver is gone.
pub(crate) async fn accept_tls(
    cx: Arc<Context>,
    listener: TcpListener,
    tls: Tls,
    slots: Arc<Semaphore>,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    loop {
        if accepted.is_closed() {
            return;
        }
        let Some(slot) = slot(&cx, &slots).await else { return };
        let Some(stream) = next(listener.accept().await.map(|(stream, _)| stream)).await else {
            continue;
        };
        let (cx, tls, accepted) = (cx.clone(), tls.clone(), accepted.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE_TIME_MAX, shake_hands(&cx, stream, &tls)).await {
                Ok(Ok((io, peer))) => {
                    // The receiver is gone only when the daemon stops.
                    let connection = Connection { io, peer: known(peer), _slot: slot };
                    let _ = accepted.send(Ok(connection)).await;
                }
                Ok(Err(_)) | Err(_) => {
                    cx.metrics.handshakes_failed.inc();
                }
            }
        });
    }
}

fn known(peer: Peer) -> Arc<Known> {
    Arc::new(Known::new(peer))
}

async fn slot(cx: &Arc<Context>, slots: &Arc<Semaphore>) -> Option<Slot> {
    let permit = slots.clone().acquire_owned().await.ok()?;
    cx.metrics.connections.inc();
    Some(Slot { cx: cx.clone(), _permit: permit })
}

/// A failed accept (no file descriptors, a peer that is gone already) is waited out, not fatal.
async fn next<S>(accepted: io::Result<S>) -> Option<S> {
    match accepted {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
            None
        }
    }
}

async fn shake_hands(cx: &Context, stream: TcpStream, tls: &Tls) -> io::Result<(Io, Peer)> {
    stream.set_nodelay(true)?;
    // The kernel finds out about dead peers; HTTP/2 pings would end the streams of clients that
    // drive their connection only while they wait for an answer, as the PKCS#11 module does.
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&stream, KEEPALIVE_AFTER)?;
    let stream = TlsAcceptor::from(tls.config.clone()).accept(stream).await?;
    let connection = stream.get_ref().1;
    let chain = connection.peer_certificates().unwrap_or_default();
    let (client, intermediates) =
        chain.split_first().ok_or_else(|| io::Error::other("no client certificate"))?;
    let exporter = connection
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map_err(io::Error::other)?;
    let vouched_until = vouched_until(&*tls.authority, client, intermediates, cx.now());
    let certificate_digest = digest(client);
    let channel = Channel {
        server_certificate_digest: tls.certificate_digest.as_bytes().to_vec(),
        client_certificate_digest: certificate_digest.as_bytes().to_vec(),
        exporter: exporter.to_vec(),
    };
    let peer = Peer::Tls { certificate_digest, vouched_until, channel };
    Ok((Io::Tls(Box::new(stream)), peer))
}

/// Until when `authority` vouches for `client`: the first end among the certificates that were shown after which
/// it would not. It is known from the start, so that a connection that stays open is not let in for longer.
fn vouched_until(
    authority: &dyn ClientCertVerifier,
    client: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: Timestamp,
) -> Option<Timestamp> {
    let vouches = |at: Timestamp| {
        let at = UnixTime::since_unix_epoch(Duration::from_millis(at.0));
        authority.verify_client_cert(client, intermediates, at).is_ok()
    };
    if !vouches(now) {
        return None;
    }
    let last = end(client)?;
    let mut ends: Vec<_> = intermediates.iter().filter_map(end).collect();
    ends.retain(|end| *end > now && *end < last);
    ends.sort();
    ends.dedup();
    let looked_at = ends.get(..ENDS_MAX).unwrap_or(&ends);
    // With more of them than anybody needs, the last that is looked at counts.
    let more = (ends.len() > ENDS_MAX).then(|| looked_at.last().copied()).flatten();
    Some(looked_at.iter().copied().find(|end| !vouches(*end)).or(more).unwrap_or(last))
}

/// The first moment after the time of a certificate.
fn end(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let last = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    Some(Timestamp(last.as_secs().saturating_add(1).saturating_mul(1000)))
}

/// SHA-256 of a certificate.
pub(crate) fn digest(certificate: &CertificateDer<'_>) -> Digest {
    Digest(Sha256::digest(certificate).into())
}

impl Connected for Connection {
    type ConnectInfo = Arc<Known>;

    fn connect_info(&self) -> Arc<Known> {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_read(task, buffer),
            Io::Unix(stream) => Pin::new(stream).poll_read(task, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_write(task, bytes),
            Io::Unix(stream) => Pin::new(stream).poll_write(task, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(task),
            Io::Unix(stream) => Pin::new(stream).poll_flush(task),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(task),
            Io::Unix(stream) => Pin::new(stream).poll_shutdown(task),
        }
    }
}

/// Most connections open at a time on one socket, handshakes included.
pub(crate) const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// Most ends of intermediate certificates that are looked at.
const ENDS_MAX: usize = 8;
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);
