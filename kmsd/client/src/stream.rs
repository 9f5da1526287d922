//! `CryptoService.Stream`: one operation over data of any length.
//!
//! Data is read, sent, received and written a chunk at a time, so that memory does not grow with it. It is
//! never retried: part of it may be written already.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Client;
use crate::error::ClientError;
use crate::v1::{self, stream_request::Request, stream_response::Response};

/// What came of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Streamed {
    /// What was used, and where that stands in the log.
    pub started: v1::StreamStarted,
    /// The signature, the code, the digest or the verdict; nothing when data came back.
    pub finished: v1::StreamFinished,
}

/// Why a stream did not come to its end. What was written until then is not whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The call failed or was refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The data cannot be read. The caller's own side.
    #[error("the data cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The result cannot be written. The caller's own side.
    #[error("the result cannot be written: {0}")]
    Write(#[source] io::Error),
}

impl Client {
    /// Runs the operation that `start` names over all of `input`, and writes what comes back to `output`.
    /// `progress` is told how many bytes were sent so far.
    ///
    /// # Errors
    /// [`StreamError`]; what was written is then not the whole and must not be used.
    pub async fn stream(
        &self,
        start: v1::StreamStart,
        input: impl AsyncRead + Unpin,
        output: impl AsyncWrite + Unpin,
        progress: impl FnMut(u64),
    ) -> Result<Streamed, StreamError> {
        let timeout = self.timeout();
        let (requests, outgoing) = mpsc::channel(QUEUE_LENGTH);
        let requests = Requests { requests, timeout };
        requests.send(Request::Start(start)).await?;
        let outgoing = ReceiverStream::new(outgoing);
        let mut crypto = self.crypto();
        let opened = in_time(timeout, async { Ok(crypto.stream(outgoing).await?) }).await?;
        let mut answers = opened.into_inner();
        let Response::Started(started) = in_time(timeout, next_answer(&mut answers)).await? else {
            return Err(ClientError::Protocol("a stream that began with something else").into());
        };
        let sending = send_all(requests, input, progress);
        let receiving = receive_all(answers, output);
        tokio::pin!(sending, receiving);
        let sent = tokio::select! {
            biased;
            // Whatever it is, it comes before the daemon has all of it.
            early = &mut receiving => {
                early?;
                return Err(ClientError::Protocol("a stream that ended before its data").into());
            }
            sent = &mut sending => sent?,
        };
        let finished = tokio::time::timeout(timeout, receiving);
        let finished = finished.await.unwrap_or(Err(ClientError::Deadline.into()))?;
        if finished.length_bytes != sent {
            return Err(ClientError::Protocol("another length than was sent").into());
        }
        Ok(Streamed { started, finished })
    }
}

/// The way to the daemon.
struct Requests {
    requests: mpsc::Sender<v1::StreamRequest>,
    timeout: Duration,
}

impl Requests {
    async fn send(&self, request: Request) -> Result<(), ClientError> {
        let request = v1::StreamRequest { request: Some(request) };
        match tokio::time::timeout(self.timeout, self.requests.send(request)).await {
            Ok(Ok(())) => Ok(()),
            // The stream is over. Why is told by the other direction, which ends this one.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => Err(ClientError::Deadline),
        }
    }
}

/// Sends all of `input` and gives its length.
async fn send_all(
    requests: Requests,
    mut input: impl AsyncRead + Unpin,
    mut progress: impl FnMut(u64),
) -> Result<u64, StreamError> {
    let mut sent = 0;
    loop {
        // A reader may give less than there is; the chunk says how much it is to be.
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let limit = u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX);
        let read = (&mut input).take(limit).read_to_end(&mut chunk).await;
        let read = read.map_err(StreamError::Read)?;
        if read == 0 {
            break;
        }
        requests.send(Request::Chunk(chunk)).await?;
        sent += u64::try_from(read).unwrap_or(u64::MAX);
        progress(sent);
    }
    requests.send(Request::Finish(v1::StreamFinish {})).await?;
    Ok(sent)
}

async fn receive_all(
    mut answers: Streaming<v1::StreamResponse>,
    mut output: impl AsyncWrite + Unpin,
) -> Result<v1::StreamFinished, StreamError> {
    loop {
        match next_answer(&mut answers).await? {
            Response::Chunk(chunk) => {
                output.write_all(&chunk).await.map_err(StreamError::Write)?;
            }
            Response::Finished(finished) => {
                output.flush().await.map_err(StreamError::Write)?;
                return Ok(finished);
            }
            Response::Started(_) => {
                return Err(ClientError::Protocol("a stream that began twice").into());
            }
        }
    }
}

async fn next_answer(answers: &mut Streaming<v1::StreamResponse>) -> Result<Response, ClientError> {
    let answer = answers.message().await?;
    let answer = answer.ok_or_else(|| ClientError::unavailable("the daemon ended the stream"))?;
    answer.response.ok_or(ClientError::Protocol("an empty answer"))
}

async fn in_time<T>(
    timeout: Duration,
    call: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(timeout, call).await.unwrap_or(Err(ClientError::Deadline))
}

/// As the contract bounds a chunk.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks on their way out.
const QUEUE_LENGTH: usize = 4;
