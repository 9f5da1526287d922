//! P-256 signatures over gRPC: one call each, some in each call, or many in flight on one session stream.
//!
//! The client is one thread, so that on two cores the daemon has at least one of its own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kms_client::v1::{self, batch_item, batch_result, session_request, session_response};
use kms_client::{Client, ClientError, Config};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::BenchError;
use crate::measure::{Sample, Watch};
use crate::raw::DIGEST;

/// A connection and a key to sign with.
#[derive(Debug)]
pub(crate) struct Signer {
    runtime: Runtime,
    client: Client,
    key: String,
}

impl Signer {
    /// Connects. The key of that short name is made if it is not there.
    pub(crate) fn connect(config: &Config, key: &str) -> Result<Self, BenchError> {
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = built.map_err(BenchError::file("tokio".as_ref()))?;
        let client = runtime.block_on(Client::connect(config))?;
        let name = runtime.block_on(make_key(&client, key))?;
        Ok(Self { runtime, client, key: name })
    }

    /// One call each, `in_flight` at a time, for as long as `time`.
    pub(crate) fn unary(&self, in_flight: usize, time: Duration) -> Result<Sample, BenchError> {
        self.runtime.block_on(async {
            sign(&self.client, &self.key).await?;
            let watch = Watch::process();
            let end = Instant::now() + time;
            let mut callers = JoinSet::new();
            for _ in 0..in_flight {
                callers.spawn(keep_signing(self.client.clone(), self.key.clone(), end));
            }
            let mut latencies = Vec::new();
            while let Some(done) = callers.join_next().await {
                latencies.extend(done.map_err(|_| BenchError::Protocol("a caller panicked"))??);
            }
            watch.stop(latencies)
        })
    }

    /// Calls of `items` signatures each, `in_flight` calls at a time, for as long as `time`. What is told
    /// of one signature's time is that of its call.
    pub(crate) fn batches(
        &self,
        items: usize,
        in_flight: usize,
        time: Duration,
    ) -> Result<Sample, BenchError> {
        self.runtime.block_on(async {
            sign(&self.client, &self.key).await?;
            let watch = Watch::process();
            let end = Instant::now() + time;
            let mut callers = JoinSet::new();
            for _ in 0..in_flight {
                callers.spawn(keep_batching(self.client.clone(), self.key.clone(), items, end));
            }
            let mut latencies = Vec::new();
            while let Some(done) = callers.join_next().await {
                latencies.extend(done.map_err(|_| BenchError::Protocol("a caller panicked"))??);
            }
            watch.stop(latencies)
        })
    }

    /// One stream with `in_flight` requests on it, for as long as `time`.
    pub(crate) fn stream(&self, in_flight: usize, time: Duration) -> Result<Sample, BenchError> {
        self.runtime.block_on(async {
            let (requests, outgoing) = mpsc::channel(in_flight);
            let opened = self.client.crypto().session(ReceiverStream::new(outgoing)).await;
            let mut answers = opened.map_err(ClientError::from)?.into_inner();
            let watch = Watch::process();
            let end = Instant::now() + time;
            let mut sent = HashMap::new();
            let mut last_id = 0;
            let mut latencies = Vec::new();
            loop {
                while sent.len() < in_flight && Instant::now() < end {
                    last_id += 1;
                    sent.insert(last_id, Instant::now());
                    let request = session_request::Request::Sign(request(&self.key));
                    let request = v1::SessionRequest { id: last_id, request: Some(request) };
                    let queued = requests.send(request).await;
                    queued.map_err(|_| BenchError::Protocol("the stream ended early"))?;
                }
                if sent.is_empty() {
                    break;
                }
                let answer = answers.message().await.map_err(ClientError::from)?;
                let answer = answer.ok_or(BenchError::Protocol("the stream ended early"))?;
                check(answer.response)?;
                let since = sent.remove(&answer.id);
                let since = since.ok_or(BenchError::Protocol("an answer to no request"))?;
                latencies.push(since.elapsed());
            }
            watch.stop(latencies)
        })
    }
}

async fn make_key(client: &Client, short_name: &str) -> Result<String, BenchError> {
    let key = v1::Key {
        name: short_name.to_owned(),
        algorithm: v1::Algorithm::EcP256.into(),
        ..Default::default()
    };
    let request = v1::CreateKeyRequest { key: Some(key), ..Default::default() };
    match client.call(client.keys().create_key(request)).await {
        Ok(made) => Ok(made.key.ok_or(BenchError::Protocol("a key without a name"))?.name),
        Err(error) if error.reason() == Some("ALREADY_EXISTS") => Ok(short_name.to_owned()),
        Err(error) => Err(error.into()),
    }
}

async fn keep_signing(
    client: Client,
    key: String,
    end: Instant,
) -> Result<Vec<Duration>, BenchError> {
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let started = Instant::now();
        sign(&client, &key).await?;
        latencies.push(started.elapsed());
    }
    Ok(latencies)
}

async fn keep_batching(
    client: Client,
    key: String,
    count: usize,
    end: Instant,
) -> Result<Vec<Duration>, BenchError> {
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let started = Instant::now();
        let item = || v1::BatchItem { request: Some(batch_item::Request::Sign(request(&key))) };
        let items = std::iter::repeat_with(item).take(count).collect();
        let answer = client.call(client.crypto().batch(v1::BatchRequest { items })).await?;
        for result in answer.results {
            match result.response {
                Some(batch_result::Response::Sign(answer)) => is_signature(&answer.signature)?,
                Some(batch_result::Response::Error(error)) => {
                    return Err(ClientError::from(error).into());
                }
                _ => return Err(BenchError::Protocol("another answer than a signature")),
            }
            latencies.push(started.elapsed());
        }
    }
    Ok(latencies)
}

async fn sign(client: &Client, key: &str) -> Result<(), BenchError> {
    let answer = client.call(client.crypto().sign(request(key))).await?;
    is_signature(&answer.signature)
}

fn request(key: &str) -> v1::SignRequest {
    v1::SignRequest {
        name: key.to_owned(),
        data: Some(v1::sign_request::Data::Digest(DIGEST.to_vec())),
        ..Default::default()
    }
}

fn check(response: Option<session_response::Response>) -> Result<(), BenchError> {
    match response {
        Some(session_response::Response::Sign(answer)) => is_signature(&answer.signature),
        Some(session_response::Response::Error(error)) => Err(ClientError::from(error).into()),
        _ => Err(BenchError::Protocol("another answer than a signature")),
    }
}

/// A DER `SEQUENCE`; whether it verifies is the tests' business.
pub(crate) fn is_signature(bytes: &[u8]) -> Result<(), BenchError> {
    match bytes {
        [0x30, _, ..] => Ok(()),
        _ => Err(BenchError::Protocol("an answer without a signature")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signatures_count_as_operations() {
        let signed = |signature: &[u8]| {
            let response = v1::SignResponse { signature: signature.to_vec(), ..Default::default() };
            check(Some(session_response::Response::Sign(response)))
        };
        assert!(signed(&[0x30, 0x06, 0x02]).is_ok());
        assert!(signed(&[]).is_err());
        assert!(check(None).is_err());
        let refusal =
            v1::OperationError { reason: "ROLE_MISSING".to_owned(), ..Default::default() };
        let refused = check(Some(session_response::Response::Error(refusal)));
        assert!(matches!(refused, Err(BenchError::Client(_))), "{refused:?}");
    }
}
