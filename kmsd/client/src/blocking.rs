//! `CryptoService.Session` for code that owns no runtime and wants no threads: the PKCS#11 module.
//!
//! A session drives a runtime of its own on the caller's thread, and only during a call. It is one
//! connection and one stream: when either breaks it is over, and the caller opens another (logins
//! end with the stream, so nothing is rebuilt behind its back).

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::config::{Config, ConfigError, Endpoint};
use crate::connector;
use crate::error::ClientError;
use crate::v1::crypto_service_client::CryptoServiceClient;
use crate::v1::{SessionRequest, SessionResponse, session_request, session_response};

/// One session stream, used by one thread at a time.
#[derive(Debug)]
pub struct Session {
    /// `None` only while being dropped.
    runtime: Option<Runtime>,
    stream: Stream,
    timeout: Duration,
}

#[derive(Debug)]
struct Stream {
    requests: mpsc::Sender<SessionRequest>,
    answers: Streaming<SessionResponse>,
    last_id: u64,
    broken: bool,
}

impl Session {
    /// Connects and opens the stream.
    ///
    /// # Errors
    /// [`ClientError::Config`] when the settings cannot be used or the thread already drives a
    /// tokio runtime, [`ClientError::Unavailable`] when there is no connection to be had.
    pub fn connect(config: &Config) -> Result<Self, ClientError> {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(ConfigError::InsideRuntime.into());
        }
        let addresses = look_up(&config.endpoint)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ClientError::unavailable)?;
        let opening = tokio_timeout(config.timeout, Stream::open(config, addresses));
        let stream = runtime.block_on(opening)?;
        Ok(Self { runtime: Some(runtime), stream, timeout: config.timeout })
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the daemon refuses, after which the session goes on;
    /// [`ClientError::Deadline`] when no answer came in time, after which it goes on too;
    /// [`ClientError::Unavailable`] or [`ClientError::Protocol`] when the stream is broken, after
    /// which every call fails and a new session is needed.
    pub fn call(
        &mut self,
        request: session_request::Request,
    ) -> Result<session_response::Response, ClientError> {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(ConfigError::InsideRuntime.into());
        }
        let Self { runtime: Some(runtime), stream, timeout } = self else {
            return Err(ClientError::unavailable("the session is closed"));
        };
        runtime.block_on(tokio_timeout(*timeout, stream.exchange(request)))
    }

    /// Whether the stream is broken, so that every further call fails.
    pub const fn is_broken(&self) -> bool {
        self.stream.broken
    }

    /// Lets go of the session without touching its sockets, which in a forked child still belong
    /// to the parent: dropping it there would say goodbye on the parent's connection. Leaks the
    /// session's memory.
    pub fn abandon(self) {
        std::mem::forget(self);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Looks the host up on this thread; tokio would start one of its own for it.
fn look_up(endpoint: &Endpoint) -> Result<Option<Vec<SocketAddr>>, ClientError> {
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let found = (host.as_str(), *port).to_socket_addrs();
            Ok(Some(found.map_err(ClientError::unavailable)?.collect()))
        }
        Endpoint::Unix(_) => Ok(None),
    }
}

async fn tokio_timeout<T>(
    timeout: Duration,
    call: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(timeout, call).await.unwrap_or(Err(ClientError::Deadline))
}

impl Stream {
    async fn open(
        config: &Config,
        addresses: Option<Vec<SocketAddr>>,
    ) -> Result<Self, ClientError> {
        let (channel, _) = connector::open(config, addresses).await?;
        let (requests, outgoing) = mpsc::channel(QUEUE_LENGTH);
        let outgoing = ReceiverStream::new(outgoing);
        let answers = CryptoServiceClient::new(channel).session(outgoing).await?.into_inner();
        Ok(Self { requests, answers, last_id: 0, broken: false })
    }

    async fn exchange(
        &mut self,
        request: session_request::Request,
    ) -> Result<session_response::Response, ClientError> {
        if self.broken {
            return Err(ClientError::unavailable("the session stream is broken"));
        }
        self.last_id += 1;
        let id = self.last_id;
        let request = SessionRequest { id, request: Some(request) };
        if self.requests.send(request).await.is_err() {
            // The reason, if there is one, comes out of the other direction.
            let ended = self.next_answer().await.err();
            return Err(self.broken_by(ended.unwrap_or_else(ended_early)));
        }
        loop {
            let answer = match self.next_answer().await {
                Ok(answer) => answer,
                Err(error) => return Err(self.broken_by(error)),
            };
            // An answer to a call that ran into its deadline comes late and is nobody's.
            if answer.id < id {
                continue;
            }
            return match answer.response {
                _ if answer.id > id => {
                    Err(self.broken_by(ClientError::Protocol("an answer to no request")))
                }
                Some(session_response::Response::Error(error)) => Err(error.into()),
                Some(response) => Ok(response),
                None => Err(ClientError::Protocol("an empty answer")),
            };
        }
    }

    async fn next_answer(&mut self) -> Result<SessionResponse, ClientError> {
        self.answers.message().await?.ok_or_else(ended_early)
    }

    const fn broken_by(&mut self, error: ClientError) -> ClientError {
        self.broken = true;
        error
    }
}

fn ended_early() -> ClientError {
    ClientError::unavailable("the daemon ended the session stream")
}

/// Requests on their way out. One call is made at a time; those that ran into their deadline may
/// still stand before it.
const QUEUE_LENGTH: usize = 16;
