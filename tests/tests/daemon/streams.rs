//! Operations over data of any length: what they give, what ends them, and what the log says of that.

use std::time::Duration;

use kms_client::v1::stream_request::Request as Asked;
use kms_client::v1::stream_start::Operation as Wanted;
use kms_client::v1::{self, Algorithm, Mechanism};
use kms_client::{Client, ClientError, StreamError, Streamed};
use kms_core::audit::{Leaf, LeafOutcome};
use kms_tests::request::{create, create_key, key, step};
use kms_tests::{Daemon, Refusal, log, refused, refused_for};
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

const CHUNK_BYTES: usize = 64 * 1024;

pub(crate) fn start(name: &str, operation: Wanted) -> v1::StreamStart {
    v1::StreamStart { name: name.to_owned(), operation: Some(operation), ..Default::default() }
}

fn told(failed: StreamError) -> ClientError {
    match failed {
        StreamError::Client(error) => error,
        other => panic!("{other:?}"),
    }
}

/// A stream that has taken its first chunk and waits for more.
pub(crate) struct Begun {
    pub(crate) input: DuplexStream,
    pub(crate) ends: JoinHandle<Result<Streamed, ClientError>>,
}

impl Begun {
    pub(crate) async fn new(client: &Client, start: v1::StreamStart) -> Self {
        let (mut input, theirs) = tokio::io::duplex(2 * CHUNK_BYTES);
        let (sent, mut first) = mpsc::unbounded_channel();
        let client = client.clone();
        let ends = tokio::spawn(async move {
            let progress = move |bytes| {
                // Nobody listens any more once the first is there.
                let _ = sent.send(bytes);
            };
            let mut output = Vec::new();
            client.stream(start, theirs, &mut output, progress).await.map_err(told)
        });
        input.write_all(&[7; CHUNK_BYTES]).await.unwrap();
        assert_eq!(first.recv().await, Some(CHUNK_BYTES as u64));
        Self { input, ends }
    }

    /// Sends the rest and ends it.
    pub(crate) async fn finish(mut self) -> Result<Streamed, ClientError> {
        // Where it has ended already, nobody reads any more.
        let _ = self.input.write_all(b"the rest").await;
        drop(self.input);
        self.ends.await.unwrap()
    }
}

/// Expects that the log tells how the stream was broken off, and that it was permitted before.
async fn assert_broken_off(auditor: &Client, refusal: &Refusal, action: &str) -> u64 {
    let leaf = log::leaf(auditor, refusal.audit_index.unwrap()).await;
    assert_eq!(leaf.outcome(), LeafOutcome::BrokenOff, "{refusal:?}");
    assert_eq!((leaf.action.as_str(), leaf.reason.as_str()), (action, refusal.reason.as_str()));
    let before = log::leaf(auditor, leaf.began_at_index).await;
    assert_eq!(before.outcome(), LeafOutcome::Granted);
    assert_eq!(before.operation_id, leaf.operation_id);
    assert_eq!(before.request_digest, leaf.request_digest);
    leaf.length_bytes
}

#[tokio::test]
async fn a_digest_over_a_stream_is_that_of_the_data_by_every_hash_function() {
    let client = Daemon::shared().client().await;
    let data = vec![9; 3 * CHUNK_BYTES + 5];
    for hash in [
        v1::Hash::Sha1,
        v1::Hash::Sha224,
        v1::Hash::Sha256,
        v1::Hash::Sha384,
        v1::Hash::Sha512,
        v1::Hash::Sha512224,
        v1::Hash::Sha512256,
        v1::Hash::Sha3224,
        v1::Hash::Sha3256,
        v1::Hash::Sha3384,
        v1::Hash::Sha3512,
    ] {
        let short = b"short".to_vec();
        let start = || start("dev", Wanted::Digest(v1::StreamDigest { hash: hash.into() }));
        let request = v1::DigestRequest { ring: "dev".to_owned(), hash: hash.into(), data: short };
        let once = client.call(client.crypto().digest(request)).await.unwrap().digest;
        let streamed =
            client.stream(start(), &b"short"[..], &mut Vec::new(), |_| ()).await.unwrap();
        let same = v1::stream_finished::Result::Digest(once);
        assert_eq!(streamed.finished.result, Some(same), "{hash:?}");
        client.stream(start(), &data[..], &mut Vec::new(), |_| ()).await.unwrap();
    }
}

#[tokio::test]
async fn a_signature_over_a_stream_verifies_at_once_and_the_log_tells_how_much_was_signed() {
    let client = Daemon::shared().client().await;
    let name = create_key(&client, "dev/stream-signs", Algorithm::EcP384).await.name;
    let mut first = Begun::new(&client, start(&name, Wanted::Sign(v1::StreamSign {}))).await;
    first.input.write_all(&[7; 100]).await.unwrap();
    let signed = first.finish().await.unwrap();
    let length_bytes = CHUNK_BYTES + 100 + b"the rest".len();
    let Some(v1::stream_finished::Result::Signature(signature)) = signed.finished.result else {
        panic!("no signature");
    };
    let message = [&[7; CHUNK_BYTES + 100][..], b"the rest"].concat();
    let verify = start(&name, Wanted::Verify(v1::StreamVerify { signature }));
    let verified = client.stream(verify, &message[..], &mut Vec::new(), |_| ()).await.unwrap();
    assert_eq!(verified.finished.result, Some(v1::stream_finished::Result::Valid(true)));
    let began_at_index = signed.started.audit.unwrap().audit_index;
    let end = log::Export::fetch(&client).await;
    let is_its = |leaf: &&Leaf| {
        leaf.outcome() == LeafOutcome::Finished && leaf.began_at_index == began_at_index
    };
    let leaves = end.leaves();
    let end = leaves.iter().find(is_its).expect("the end is on record");
    assert_eq!((end.length_bytes, end.action.as_str()), (length_bytes as u64, "Sign"));
    assert_eq!((end.resource.as_str(), end.mechanism.as_str()), (name.as_str(), "ECDSA_SHA384"));
}

#[tokio::test]
async fn a_stream_ends_with_the_right_to_use_its_key() {
    let client = Daemon::shared().client().await;
    for (steps, reason) in [
        (&["Suspend"][..], "STATE_REFUSES"),
        (&["Disable"], "KEY_DISABLED"),
        (&["Deactivate"], "STATE_REFUSES"),
        (&["Deactivate", "Destroy"], "STATE_REFUSES"),
        (&["Compromise"], "STATE_REFUSES"),
    ] {
        for (kind, algorithm, mechanism, operation) in [
            ("sign", Algorithm::EcP256, Mechanism::Unspecified, Wanted::Sign(v1::StreamSign {})),
            (
                "encrypt",
                Algorithm::Aes256,
                Mechanism::AesGcm,
                Wanted::Encrypt(v1::StreamEncrypt::default()),
            ),
            (
                "mac",
                Algorithm::GenericSecret,
                Mechanism::Unspecified,
                Wanted::MacSign(v1::StreamMacSign {}),
            ),
        ] {
            let name = format!("dev/stream-{kind}-{}", steps.concat().to_lowercase());
            let version = create_key(&client, &name, algorithm).await.name;
            let begins =
                v1::StreamStart { mechanism: mechanism.into(), ..start(&version, operation) };
            let begun = Begun::new(&client, begins).await;
            for one in steps {
                step(&client, one, &version).await.unwrap();
            }
            let refusal = refused_for(begun.finish().await, reason);
            let action = match kind {
                "sign" => "Sign",
                "encrypt" => "Encrypt",
                _ => "MacSign",
            };
            assert_eq!(assert_broken_off(&client, &refusal, action).await % 65536, 0);
        }
    }
}

#[tokio::test]
async fn a_stream_that_waits_ends_by_itself_when_its_key_is_destroyed() {
    let client = Daemon::shared().client().await;
    let version = create_key(&client, "dev/stream-waits", Algorithm::Aes256).await.name;
    let begins = start(&version, Wanted::Encrypt(v1::StreamEncrypt::default()));
    let begun = Begun::new(&client, begins).await;
    step(&client, "Deactivate", &version).await.unwrap();
    step(&client, "Destroy", &version).await.unwrap();
    // Nothing more is sent.
    let Begun { input, ends } = begun;
    let ended = tokio::time::timeout(Duration::from_secs(10), ends).await;
    drop(input);
    let refusal = refused_for(ended.expect("it goes on").unwrap(), "STATE_REFUSES");
    assert_eq!(assert_broken_off(&client, &refusal, "Encrypt").await, CHUNK_BYTES as u64);
}

#[tokio::test]
async fn a_stream_goes_on_when_its_key_changes_in_other_ways() {
    let client = Daemon::shared().client().await;
    let version = create_key(&client, "dev/stream-goes-on", Algorithm::EcP256).await.name;
    let begun = Begun::new(&client, start("dev/stream-goes-on", Wanted::Sign(v1::StreamSign {})));
    let begun = begun.await;
    let request = v1::CreateKeyVersionRequest {
        parent: "dev/stream-goes-on".to_owned(),
        ..Default::default()
    };
    client.call(client.keys().create_key_version(request)).await.unwrap();
    kms_tests::request::update(&client, "dev/stream-goes-on", &["labels"], |key| {
        key.labels.insert("team".to_owned(), "a".to_owned());
    })
    .await
    .unwrap();
    let signed = begun.finish().await.unwrap();
    assert_eq!(signed.started.name, version, "the version that it began with");
}

#[tokio::test]
async fn a_stream_ends_with_a_date_and_with_the_seal() {
    let daemon = Daemon::start_with_clock();
    let client = daemon.client().await;
    let mut request = key("dev/stream-until", Algorithm::EcP256);
    let in_an_hour = std::time::SystemTime::now() + Duration::from_secs(3600);
    request.deactivate_time = Some(in_an_hour.into());
    let version = create(&client, request).await.name;
    let begun = Begun::new(&client, start(&version, Wanted::Sign(v1::StreamSign {}))).await;
    daemon.advance(Duration::from_secs(3700));
    let refusal = refused_for(begun.finish().await, "STATE_REFUSES");
    assert_broken_off(&client, &refusal, "Sign").await;

    let version = create_key(&client, "dev/stream-sealed", Algorithm::EcP256).await.name;
    let begun = Begun::new(&client, start(&version, Wanted::Sign(v1::StreamSign {}))).await;
    let officer = daemon.officer_client().await;
    officer.call(officer.seal().seal(v1::SealRequest {})).await.unwrap();
    assert!(refused_for(begun.finish().await, "SEALED").audit_index.is_some());
}

/// Sends these messages and nothing else.
async fn send(client: &Client, messages: Vec<Asked>) -> ClientError {
    let (requests, outgoing) = mpsc::channel(messages.len() + 1);
    for message in messages {
        requests.send(v1::StreamRequest { request: Some(message) }).await.unwrap();
    }
    drop(requests);
    let mut answers = match client.crypto().stream(ReceiverStream::new(outgoing)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return status.into(),
    };
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(status) => return status.into(),
        }
    }
}

#[tokio::test]
async fn malformed_streams_are_on_record() {
    let client = Daemon::shared().client().await;
    let version = create_key(&client, "dev/stream-malformed", Algorithm::EcP256).await.name;
    let begins = || Asked::Start(start(&version, Wanted::Sign(v1::StreamSign {})));
    let nothing = Asked::Start(v1::StreamStart { name: version.clone(), ..Default::default() });
    for messages in [vec![], vec![Asked::Chunk(vec![1])], vec![nothing]] {
        let refusal = refused_for(Err::<(), _>(send(&client, messages).await), "INVALID_ARGUMENT");
        log::assert_recorded(&client, &refusal, "Stream").await;
    }
    let finish = Asked::Finish(v1::StreamFinish {});
    for (messages, taken) in [
        (vec![begins(), Asked::Chunk(vec![1; 10])], 10),
        (vec![begins(), begins(), finish.clone()], 0),
        (vec![begins(), Asked::Chunk(vec![1; CHUNK_BYTES + 1]), finish], 0),
    ] {
        let refusal = refused_for(Err::<(), _>(send(&client, messages).await), "INVALID_ARGUMENT");
        assert_eq!(assert_broken_off(&client, &refusal, "Sign").await, taken);
    }
    // What does not run over streams is refused before it is permitted.
    let name = create_key(&client, "dev/stream-no-hash", Algorithm::Ed25519).await.name;
    let begins = Asked::Start(start(&name, Wanted::Sign(v1::StreamSign {})));
    let refusal = refused(Err::<(), _>(send(&client, vec![begins]).await));
    log::assert_recorded(&client, &refusal, "Sign").await;
    // The salt of an AEAD stream is the appliance's own, in rings of every kind.
    let name = create_key(&client, "dev/stream-salt", Algorithm::Aes256).await.name;
    let encrypt = v1::StreamEncrypt { initialization_vector: vec![1; 39], ..Default::default() };
    let begins = Asked::Start(start(&name, Wanted::Encrypt(encrypt)));
    let refusal = refused_for(Err::<(), _>(send(&client, vec![begins]).await), "INVALID_ARGUMENT");
    log::assert_recorded(&client, &refusal, "Encrypt").await;
}

/// How the stream ended that began at `began_at_index`, if it has.
fn end_of(leaves: &[Leaf], began_at_index: u64) -> Option<(usize, &Leaf)> {
    let mut numbered = leaves.iter().enumerate();
    numbered.find(|(_, leaf)| {
        leaf.outcome() != LeafOutcome::Granted && leaf.began_at_index == began_at_index
    })
}

#[tokio::test]
async fn a_client_that_does_not_read_keeps_no_key_open() {
    let daemon = Daemon::start();
    let (client, other) = (daemon.client().await, daemon.client().await);
    let version = create_key(&other, "dev/stream-unread", Algorithm::Aes256).await.name;
    let (requests, outgoing) = mpsc::channel(1);
    let send = |asked| requests.send(v1::StreamRequest { request: Some(asked) });
    send(Asked::Start(start(&version, Wanted::Encrypt(v1::StreamEncrypt::default()))))
        .await
        .unwrap();
    let answers = client.crypto().stream(ReceiverStream::new(outgoing)).await;
    let mut answers = answers.unwrap().into_inner();
    let started = answers.message().await.unwrap().unwrap().response;
    let Some(v1::stream_response::Response::Started(started)) = started else {
        panic!("it did not begin");
    };
    let began_at_index = started.audit.unwrap().audit_index;
    // Until the windows and queues of both sides are full.
    let mut sent = 0;
    let more = Duration::from_millis(500);
    while tokio::time::timeout(more, send(Asked::Chunk(vec![7; CHUNK_BYTES]))).await.is_ok() {
        sent += 1;
        assert!(sent < 1000, "it takes whatever comes");
    }
    step(&other, "Suspend", &version).await.unwrap();
    let ends = async {
        loop {
            let leaves = log::Export::fetch(&other).await.leaves();
            if let Some((_, end)) = end_of(&leaves, began_at_index) {
                return end.clone();
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let end = tokio::time::timeout(Duration::from_secs(10), ends).await.expect("it goes on");
    assert_eq!((end.outcome(), end.reason.as_str()), (LeafOutcome::BrokenOff, "STATE_REFUSES"));
    // Whoever reads after all is told.
    let status = loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(status) => break status,
        }
    };
    refused_for(Err::<(), _>(ClientError::from(status)), "STATE_REFUSES");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_how_every_stream_ended_when_the_daemon_stops() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let version = create_key(&client, "dev/stream-stops", Algorithm::Aes256).await.name;
    let before = log::Export::fetch(&client).await.size;
    let mut begun = Vec::new();
    for _ in 0..8 {
        let begins = start(&version, Wanted::Encrypt(v1::StreamEncrypt::default()));
        begun.push(Begun::new(&client, begins).await);
    }
    // Half of the clients go before the daemon does.
    begun.iter().take(4).for_each(|begun| begun.ends.abort());
    let mut daemon = tokio::task::spawn_blocking(move || {
        assert!(daemon.terminate().status.success());
        daemon
    })
    .await
    .unwrap();
    daemon.restart();
    let leaves = log::Export::fetch(&daemon.client().await).await.leaves();
    let stop = leaves.iter().rposition(|leaf| leaf.action == "Stop").expect("a stop");
    let streams: Vec<u64> = (before..stop as u64)
        .filter(|index| {
            let leaf = &leaves[*index as usize];
            leaf.action == "Encrypt" && leaf.outcome() == LeafOutcome::Granted
        })
        .collect();
    assert_eq!(streams.len(), 8);
    for began_at_index in streams {
        let (index, end) = end_of(&leaves, began_at_index).expect("no end is on record");
        assert!(index < stop);
        // A client that goes may have ended its side before.
        let reasons = ["CANCELLED", "INVALID_ARGUMENT", "STOPPED"];
        assert!(reasons.contains(&end.reason.as_str()), "{end:?}");
    }
}
