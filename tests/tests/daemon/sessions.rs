//! Session streams: what a client that behaves badly on one can keep from others.

use std::collections::HashSet;
use std::time::Duration;

use kms_client::Client;
use kms_client::v1::session_request::Request as Asked;
use kms_client::v1::session_response::Response as Answered;
use kms_client::v1::{self, Algorithm};
use kms_tests::request::{create_key, sign};
use kms_tests::{Daemon, log};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Far more than fits into the windows of a connection together with what may be under way.
const REQUESTS: u64 = 2000;
const ANSWER_BYTES: u32 = 4096;

async fn made(auditor: &Client) -> usize {
    let leaves = log::Export::fetch(auditor).await.leaves();
    leaves.iter().filter(|leaf| leaf.action == "GenerateRandom").count()
}

#[tokio::test]
async fn a_client_that_does_not_read_has_few_answers_made_and_holds_up_nobody() {
    let daemon = Daemon::start();
    let (client, other) = (daemon.client().await, daemon.client().await);
    let version = create_key(&other, "dev/beside-unread", Algorithm::EcP256).await.name;
    let (requests, outgoing) = mpsc::channel(1);
    let answers = client.crypto().session(ReceiverStream::new(outgoing)).await;
    let mut answers = answers.unwrap().into_inner();
    let sends = tokio::spawn(async move {
        for id in 0..REQUESTS {
            let wanted =
                v1::GenerateRandomRequest { ring: "dev".to_owned(), length_bytes: ANSWER_BYTES };
            let request = Some(Asked::GenerateRandom(wanted));
            requests.send(v1::SessionRequest { id, request }).await.unwrap();
        }
    });
    // Until no more are made.
    let mut before = 0;
    let stands_still = async {
        loop {
            tokio::time::sleep(Duration::from_millis(700)).await;
            match made(&other).await {
                count if count > 0 && count == before => return count,
                count => before = count,
            }
        }
    };
    let count = tokio::time::timeout(Duration::from_secs(30), stands_still).await;
    let count = count.expect("answers are made without end");
    assert!(count < REQUESTS as usize, "all were made, though nobody reads");
    sign(&other, &version, b"beside").await.unwrap();

    // Whoever reads after all gets every answer, each once.
    let mut seen = HashSet::new();
    while seen.len() < REQUESTS as usize {
        let next = tokio::time::timeout(Duration::from_secs(30), answers.message()).await;
        let answer = next.expect("an answer is missing").unwrap().expect("it ended early");
        let Some(Answered::GenerateRandom(random)) = answer.response else {
            panic!("{answer:?}");
        };
        assert_eq!(random.data.len(), ANSWER_BYTES as usize);
        assert!(seen.insert(answer.id), "{} was answered twice", answer.id);
    }
    sends.await.unwrap();
    assert_eq!(made(&other).await, REQUESTS as usize);
}
