//! One operation over data of any length, chunk by chunk, in bounded memory.
//!
//! The log tells twice of a stream: that it was permitted, before anything is done, and how it ended,
//! before its result is given. In between the rules are asked again with every chunk, and once a second
//! while the client neither sends nor reads.
//!
//! Only waiting is ever given up, for time or because the daemon stops: what is under way with the store or
//! the key goes on to its end, so that the log tells of every stream how it ended.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_proto::v1;
use kms_proto::v1::stream_request::Request as Asked;
use kms_proto::v1::stream_response::Response as Answered;
use kms_proto::v1::stream_start::Operation as Wanted;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::StreamAnswers;
use crate::context::Context;
use crate::failure::Failure;
use crate::identity::Connected;
use crate::ops::{self, Broken, Running, StreamOf};
use crate::pipeline;
use crate::wire::{self, DATA_BYTES_MAX};

/// Serves the stream `requests` of `peer`, who is `caller` now, to its end, or until the daemon stops. The
/// task has `alive` until that end is on record.
pub(crate) fn run(
    cx: Arc<Context>,
    peer: Arc<Connected>,
    caller: Caller,
    requests: Streaming<v1::StreamRequest>,
    stopping: watch::Receiver<bool>,
    alive: watch::Receiver<()>,
) -> StreamAnswers {
    let (answers, received) = mpsc::channel(ANSWERS_MAX);
    // Has a place of its own, so that it need not wait for a client that does not read.
    let (told, last) = mpsc::channel(1);
    tokio::spawn(async move {
        let _alive = alive;
        let mut flow = Flow {
            epoch: cx.epoch(),
            until: Instant::now() + STREAM_TIME_MAX,
            cx,
            peer,
            caller,
            answers,
            stopping,
            running: None,
            length_bytes: 0,
        };
        if let Err(end) = flow.serve(requests).await {
            let status = flow.close(end).await;
            // The receiver is gone only when the client is.
            let _ = told.try_send(Err(status));
        }
    });
    Box::pin(ReceiverStream::new(received).chain(ReceiverStream::new(last)))
}

struct Flow {
    cx: Arc<Context>,
    peer: Arc<Connected>,
    caller: Caller,
    /// As of when the caller has its rights.
    epoch: u64,
    answers: Answers,
    stopping: watch::Receiver<bool>,
    until: Instant,
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
        let first = self.wait(next(&mut requests), NOTHING_CAME).await??;
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
        // Taken before there is a key, and held to the end.
        let cx = self.cx.clone();
        let place = self.wait(cx.places.stream(), NO_PLACE).await?;
        let place = place.ok_or(End::Closed(Failure::Bug("the places were closed")))?;
        self.caller_anew()?;
        let begun = begin(&self.cx, &self.caller, &place, start).await;
        let (started, running) = begun.map_err(End::Closed)?;
        self.running = Some(running);
        self.give(Answered::Started(started)).await?;
        loop {
            match self.wait(next(&mut requests), NOTHING_CAME).await?? {
                Some(Asked::Chunk(chunk)) if chunk.len() <= CHUNK_BYTES_MAX => {
                    let running = self.running.as_mut().ok_or(GONE)?;
                    let made = running.update(&self.cx, &self.caller, &chunk).await?;
                    self.length_bytes = self.length_bytes.saturating_add(chunk.len() as u64);
                    self.give_bytes(made).await?;
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
        self.give_bytes(rest).await?;
        self.give(Answered::Finished(v1::StreamFinished { result, length_bytes })).await
    }

    /// Waits for `event`, which somebody else brings about. A key is held no longer than a moment after it
    /// must not be used any more, also when nothing happens; when that goes on for too long, `idle` is told.
    async fn wait<T>(
        &mut self,
        event: impl Future<Output = T>,
        idle: &'static str,
    ) -> Result<T, End> {
        let mut event = pin!(event);
        for _ in 0..IDLE_BEATS_MAX {
            let waited = tokio::select! {
                waited = timeout(BEAT, &mut event) => waited,
                _ = self.stopping.wait_for(|stop| *stop) => {
                    return Err(End::Told(Status::unavailable("the daemon stops"), "STOPPED"));
                }
            };
            if Instant::now() >= self.until {
                return Err(too_slow("a stream takes an hour at most"));
            }
            // What has ended is on record with its result, which is only to be handed over.
            if self.running.is_some() {
                self.caller_anew()?;
            }
            match waited {
                Ok(happened) => return Ok(happened),
                Err(_) => {
                    if let Some(running) = &self.running {
                        running.judge(&self.cx, &self.caller).await?;
                    }
                }
            }
        }
        Err(too_slow(idle))
    }

    async fn give_bytes(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.give(Answered::Chunk(bytes)).await
    }

    async fn give(&mut self, answered: Answered) -> Result<(), End> {
        let answers = self.answers.clone();
        let place = self.wait(answers.reserve(), NOTHING_READ).await?;
        let place =
            place.map_err(|_| End::Told(Status::cancelled("the client is gone"), "CANCELLED"))?;
        place.send(Ok(v1::StreamResponse { response: Some(answered) }));
        Ok(())
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

fn invalid(field: &'static str, problem: impl ToString) -> End {
    Broken::Refused(wire::invalid(field, problem)).into()
}

async fn begin(
    cx: &Arc<Context>,
    caller: &Caller,
    place: &OwnedSemaphorePermit,
    start: v1::StreamStart,
) -> Result<(v1::StreamStarted, Running), Failure> {
    macro_rules! begin {
        ($kind:ident) => {
            pipeline::serve_in_place::<StreamOf<ops::$kind>>(cx, caller, place, start).await
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

fn too_slow(what: &'static str) -> End {
    End::Told(Status::deadline_exceeded(what), "DEADLINE_EXCEEDED")
}

/// A stream that goes on runs.
const GONE: End = End::Closed(Failure::Bug("a stream that goes on without running"));
const CHUNK_BYTES_MAX: usize = DATA_BYTES_MAX;
/// How often the rules are asked while nothing happens, and for how many such times.
const BEAT: Duration = Duration::from_secs(1);
const IDLE_BEATS_MAX: u32 = 30;
const NO_PLACE: &str =
    "too many operations are under way for this stream to begin; ask again later";
const NOTHING_CAME: &str = "nothing came for 30 seconds";
const NOTHING_READ: &str = "no answer was read for 30 seconds";
const STREAM_TIME_MAX: Duration = Duration::from_secs(3600);
/// Most answers that wait for a client to read them.
const ANSWERS_MAX: usize = 4;
