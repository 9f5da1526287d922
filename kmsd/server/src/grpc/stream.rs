//! One operation over data of any length, chunk by chunk, in bounded memory.

use std::sync::Arc;
use std::time::Duration;

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
use crate::ops::{self, Running, StreamOf};
use crate::pipeline;
use crate::status::invalid;
use crate::wire::DATA_BYTES_MAX;

/// Serves the stream `requests` of `caller` to its end, or until the daemon stops.
pub(crate) fn run(
    cx: Arc<Context>,
    caller: Caller,
    requests: Streaming<v1::StreamRequest>,
    mut stopping: watch::Receiver<bool>,
) -> StreamAnswers {
    let (answers, received) = mpsc::channel(ANSWERS_MAX);
    tokio::spawn(async move {
        let served = async {
            let served = timeout(STREAM_TIME_MAX, serve(&cx, &caller, requests, &answers)).await;
            served.unwrap_or_else(|_| {
                Err(Status::deadline_exceeded("a stream takes an hour at most"))
            })
        };
        let ended = tokio::select! {
            ended = served => ended,
            _ = stopping.wait_for(|stop| *stop) => Err(Status::unavailable("the daemon stops")),
        };
        if let Err(status) = ended {
            // The receiver is gone only when the client is.
            let _ = answers.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(received))
}

type Answers = mpsc::Sender<Result<v1::StreamResponse, Status>>;

async fn serve(
    cx: &Arc<Context>,
    caller: &Caller,
    mut requests: Streaming<v1::StreamRequest>,
    answers: &Answers,
) -> Result<(), Status> {
    let Some(Asked::Start(start)) = next(&mut requests).await? else {
        return Err(invalid("a stream begins with start".to_owned()));
    };
    let (started, mut running) = begin(cx, caller, start).await?;
    // Held to the end, so that nobody has more streams under way than operations.
    let _slot = cx.slot(caller).await;
    give(answers, Answered::Started(started)).await?;
    let mut length_bytes = 0_u64;
    loop {
        match next(&mut requests).await? {
            Some(Asked::Chunk(chunk)) if chunk.len() <= CHUNK_BYTES_MAX => {
                length_bytes = length_bytes.saturating_add(chunk.len() as u64);
                give_bytes(answers, running.update(cx, &chunk)?).await?;
            }
            Some(Asked::Chunk(_)) => {
                return Err(invalid(format!("chunk: at most {CHUNK_BYTES_MAX} bytes are taken")));
            }
            Some(Asked::Finish(_)) => break,
            Some(Asked::Start(_)) => {
                return Err(invalid("a stream begins with start once".to_owned()));
            }
            // What was not ended has no result: a signature over half a file is one over another file.
            None => return Err(invalid("the stream ended without finish".to_owned())),
        }
    }
    let (rest, result) = running.finish(cx).await?;
    give_bytes(answers, rest).await?;
    give(answers, Answered::Finished(v1::StreamFinished { result, length_bytes })).await
}

async fn begin(
    cx: &Arc<Context>,
    caller: &Caller,
    start: v1::StreamStart,
) -> Result<(v1::StreamStarted, Running), Status> {
    macro_rules! begin {
        ($kind:ident) => {
            pipeline::serve_in_task::<StreamOf<ops::$kind>>(cx, caller, None, start).await
        };
    }
    let begun = match &start.operation {
        Some(Wanted::Decrypt(_)) => begin!(OfDecrypt),
        Some(Wanted::Digest(_)) => begin!(OfDigest),
        Some(Wanted::Encrypt(_)) => begin!(OfEncrypt),
        Some(Wanted::MacSign(_)) => begin!(OfMacSign),
        Some(Wanted::MacVerify(_)) => begin!(OfMacVerify),
        Some(Wanted::Sign(_)) => begin!(OfSign),
        Some(Wanted::Verify(_)) => begin!(OfVerify),
        None => return Err(invalid("operation: expected one".to_owned())),
    };
    Ok(begun?)
}

async fn next(requests: &mut Streaming<v1::StreamRequest>) -> Result<Option<Asked>, Status> {
    let message = timeout(CHUNK_TIME_MAX, requests.message()).await;
    let message =
        message.map_err(|_| Status::deadline_exceeded("no chunk came for 30 seconds"))??;
    Ok(message.and_then(|message| message.request))
}

async fn give_bytes(answers: &Answers, bytes: Vec<u8>) -> Result<(), Status> {
    if bytes.is_empty() {
        return Ok(());
    }
    give(answers, Answered::Chunk(bytes)).await
}

async fn give(answers: &Answers, answered: Answered) -> Result<(), Status> {
    let answer = v1::StreamResponse { response: Some(answered) };
    answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("the client is gone"))
}

const CHUNK_BYTES_MAX: usize = DATA_BYTES_MAX;
const CHUNK_TIME_MAX: Duration = Duration::from_secs(30);
const STREAM_TIME_MAX: Duration = Duration::from_secs(3600);
/// Most answers that wait for a client to read them.
const ANSWERS_MAX: usize = 4;
