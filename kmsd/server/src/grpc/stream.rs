//! One operation over data of any length, chunk by chunk, in bounded memory.
//!
//! The log tells twice of a stream: that it was permitted, before anything is done, and how it ended,
//! before its result is given. In between the rules are asked again with every chunk.

use std::sync::Arc;
use std::time::Duration;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_proto::v1;
use kms_proto::v1::stream_request::Request as Asked;
use kms_proto::v1::stream_response::Response as Answered;
use kms_proto::v1::stream_start::Operation as Wanted;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::StreamAnswers;
use crate::context::Context;
use crate::failure::Failure;
use crate::identity::Connected;
use crate::ops::{self, Broken, Running, StreamOf};
use crate::pipeline;
use crate::wire::{self, DATA_BYTES_MAX};

/// Serves the stream `requests` of `peer`, who is `caller` now, to its end, or until the daemon stops.
pub(crate) fn run(
    cx: Arc<Context>,
    peer: Arc<Connected>,
    caller: Caller,
    requests: Streaming<v1::StreamRequest>,
    mut stopping: watch::Receiver<bool>,
) -> StreamAnswers {
    let (answers, received) = mpsc::channel(ANSWERS_MAX);
    tokio::spawn(async move {
        let epoch = cx.epoch();
        let mut flow = Flow { cx, peer, caller, epoch, answers, running: None, length_bytes: 0 };
        let ended = tokio::select! {
            ended = timeout(STREAM_TIME_MAX, flow.serve(requests)) => ended.unwrap_or_else(|_| {
                let status = Status::deadline_exceeded("a stream takes an hour at most");
                Err(End::Told(status, "DEADLINE_EXCEEDED"))
            }),
            _ = stopping.wait_for(|stop| *stop) => {
                Err(End::Told(Status::unavailable("the daemon stops"), "STOPPED"))
            }
        };
        if let Err(end) = ended {
            let status = flow.close(end).await;
            // The receiver is gone only when the client is.
            let _ = flow.answers.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(received))
}

struct Flow {
    cx: Arc<Context>,
    peer: Arc<Connected>,
    caller: Caller,
    /// As of when the caller has its rights.
    epoch: u64,
    answers: Answers,
    /// What has begun and not ended.
    running: Option<Running>,
    length_bytes: u64,
}

/// Why a stream ends before its time.
enum End {
    /// What is asked or done cannot be.
    Broken(Broken),
    /// The end is on record, or there is none to be recorded.
    Closed(Failure),
    /// What the caller is told, and the log.
    Told(Status, &'static str),
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl Flow {
    async fn serve(&mut self, mut requests: Streaming<v1::StreamRequest>) -> Result<(), End> {
        let first = timeout(BEAT * CHUNK_BEATS_MAX, next(&mut requests)).await;
        let first = first.unwrap_or_else(|_| Err(too_slow()))?;
        let Some(Asked::Start(start)) = first else {
            let problem = "a stream begins with start";
            let message = v1::StreamRequest { request: first };
            return Err(malformed(&self.cx, &self.caller, &message, "start", problem).await);
        };
        if start.operation.is_none() {
            let message = v1::StreamRequest { request: Some(Asked::Start(start)) };
            let problem = "expected one";
            return Err(malformed(&self.cx, &self.caller, &message, "operation", problem).await);
        }
        let (started, running) = begin(&self.cx, &self.caller, start).await.map_err(End::Closed)?;
        self.running = Some(running);
        // Held to the end.
        let cx = self.cx.clone();
        let _place = cx.places.stream().await;
        give(&self.answers, Answered::Started(started)).await?;
        loop {
            let asked = self.next(&mut requests).await?;
            match asked {
                Some(Asked::Chunk(chunk)) if chunk.len() <= CHUNK_BYTES_MAX => {
                    let running = self.running.as_mut().ok_or(GONE)?;
                    let made = running.update(&self.cx, &self.caller, &chunk).await?;
                    self.length_bytes = self.length_bytes.saturating_add(chunk.len() as u64);
                    give_bytes(&self.answers, made).await?;
                }
                Some(Asked::Chunk(_)) => {
                    return Err(invalid("chunk", format!("at most {CHUNK_BYTES_MAX} bytes")));
                }
                Some(Asked::Finish(_)) => break,
                Some(Asked::Start(_)) => {
                    return Err(invalid("start", "a stream begins with start once"));
                }
                // What was not ended has no result: a signature over half a file is one over another file.
                None => return Err(invalid("finish", "the stream ended without it")),
            }
        }
        let (length_bytes, running) = (self.length_bytes, self.running.take().ok_or(GONE)?);
        let made = running.finish(&self.cx, &self.caller, length_bytes).await;
        let (rest, result) = made.map_err(End::Closed)?;
        give_bytes(&self.answers, rest).await?;
        give(&self.answers, Answered::Finished(v1::StreamFinished { result, length_bytes })).await
    }

    /// Waits for the next message. A key is held no longer than a moment after it must not be used any
    /// more, also when nothing comes.
    async fn next(
        &mut self,
        requests: &mut Streaming<v1::StreamRequest>,
    ) -> Result<Option<Asked>, End> {
        for _ in 0..CHUNK_BEATS_MAX {
            let waited = timeout(BEAT, next(requests)).await;
            self.caller_anew()?;
            match waited {
                Ok(asked) => return asked,
                Err(_) => {
                    let running = self.running.as_ref().ok_or(GONE)?;
                    running.judge(&self.cx, &self.caller).await?;
                }
            }
        }
        Err(too_slow())
    }

    /// Finds out anew who the peer is when somebody's rights have changed.
    fn caller_anew(&mut self) -> Result<(), End> {
        let epoch = self.cx.epoch();
        if epoch != self.epoch {
            self.caller = self.peer.caller(&self.cx).map_err(Broken::Failed)?;
            self.epoch = epoch;
        }
        Ok(())
    }

    /// Puts the end on record, if there was a beginning, and gives what the caller is told.
    async fn close(&mut self, end: End) -> Status {
        let (cx, length_bytes) = (&self.cx, self.length_bytes);
        match (end, self.running.take()) {
            (End::Broken(broken), Some(running)) => {
                running.break_off(cx, length_bytes, broken).await.into()
            }
            (End::Broken(Broken::Failed(failure)), None) | (End::Closed(failure), _) => {
                failure.into()
            }
            (End::Broken(Broken::Refused(_)), None) => Failure::Bug("a refusal of nothing").into(),
            (End::Told(status, reason), running) => {
                if let Some(running) = running
                    && let Err(error) = running.end_for(cx, length_bytes, reason).await
                {
                    tracing::error!(%error, "the end of a stream is not on record");
                }
                status
            }
        }
    }
}

async fn malformed(
    cx: &Context,
    caller: &Caller,
    message: &v1::StreamRequest,
    field: &'static str,
    problem: &str,
) -> End {
    let refusal = wire::invalid(field, problem);
    End::Closed(pipeline::refuse_message(cx, caller, Action::Stream, message, refusal).await)
}

type Answers = mpsc::Sender<Result<v1::StreamResponse, Status>>;

async fn give_bytes(answers: &Answers, bytes: Vec<u8>) -> Result<(), End> {
    if bytes.is_empty() {
        return Ok(());
    }
    give(answers, Answered::Chunk(bytes)).await
}

async fn give(answers: &Answers, answered: Answered) -> Result<(), End> {
    let sent = answers.send(Ok(v1::StreamResponse { response: Some(answered) })).await;
    sent.map_err(|_| End::Told(Status::cancelled("the client is gone"), "CANCELLED"))
}

fn invalid(field: &'static str, problem: impl ToString) -> End {
    Broken::Refused(wire::invalid(field, problem)).into()
}

async fn begin(
    cx: &Arc<Context>,
    caller: &Caller,
    start: v1::StreamStart,
) -> Result<(v1::StreamStarted, Running), Failure> {
    macro_rules! begin {
        ($kind:ident) => {
            pipeline::serve_in_task::<StreamOf<ops::$kind>>(cx, caller, None, start).await
        };
    }
    match &start.operation {
        Some(Wanted::Decrypt(_)) => begin!(OfDecrypt),
        Some(Wanted::Digest(_)) => begin!(OfDigest),
        Some(Wanted::Encrypt(_)) => begin!(OfEncrypt),
        Some(Wanted::MacSign(_)) => begin!(OfMacSign),
        Some(Wanted::MacVerify(_)) => begin!(OfMacVerify),
        Some(Wanted::Sign(_)) => begin!(OfSign),
        Some(Wanted::Verify(_)) => begin!(OfVerify),
        None => Err(Failure::Bug("a stream of nothing")),
    }
}

async fn next(requests: &mut Streaming<v1::StreamRequest>) -> Result<Option<Asked>, End> {
    match requests.message().await {
        Ok(message) => Ok(message.and_then(|message| message.request)),
        // The client is gone, or what it sends is no message.
        Err(status) => Err(End::Told(status, "CANCELLED")),
    }
}

fn too_slow() -> End {
    let status = Status::deadline_exceeded("nothing came for 30 seconds");
    End::Told(status, "DEADLINE_EXCEEDED")
}

/// A stream that goes on runs.
const GONE: End = End::Closed(Failure::Bug("a stream that goes on without running"));
const CHUNK_BYTES_MAX: usize = DATA_BYTES_MAX;
/// How often the rules are asked while nothing comes, and for how many such times.
const BEAT: Duration = Duration::from_secs(1);
const CHUNK_BEATS_MAX: u32 = 30;
const STREAM_TIME_MAX: Duration = Duration::from_secs(3600);
/// Most answers that wait for a client to read them.
const ANSWERS_MAX: usize = 4;
