//! The client against a small server in the same process: errors, retries, deadlines, broken
//! streams, and the channel binding over real TLS.

#![allow(clippy::unwrap_used, reason = "a failed precondition of a test fails the test")]

mod server;

use std::time::Duration;

use kms_client::blocking::Session;
use kms_client::v1::session_request::Request;
use kms_client::v1::session_response::Response;
use kms_client::v1::{self, GenerateRandomRequest, ListTokensRequest, SignRequest};
use kms_client::{ChannelBinding, Client, ClientError, Code, Config, ConfigError, StreamError};
use server::{Behaviour, Server};

fn random(behaviour: Behaviour) -> GenerateRandomRequest {
    GenerateRandomRequest { ring: "dev".into(), length_bytes: behaviour as u32 }
}

fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test)
}

fn list_tokens(session: &mut Session) -> Result<Response, ClientError> {
    session.call(Request::ListTokens(ListTokensRequest {}))
}

#[test]
fn a_refusal_carries_reason_message_and_audit_index() {
    let server = Server::unix();
    let error = on_runtime(async {
        let client = Client::connect(&server.config).await.unwrap();
        client.call(client.crypto().sign(SignRequest::default())).await.unwrap_err()
    });
    assert!(error.needs_approval());
    let ClientError::Refused { code, reason, message, audit_index } = error else {
        panic!("expected a refusal, got {error:?}");
    };
    assert_eq!(code, Code::FailedPrecondition);
    assert_eq!(reason, "NEEDS_APPROVAL");
    assert_eq!(message, "create a proposal");
    assert_eq!(audit_index, Some(7));
}

#[test]
fn a_call_is_repeated_only_while_the_daemon_cannot_be_reached() {
    let server = Server::unix();
    on_runtime(async {
        let client = Client::connect(&server.config).await.unwrap();
        let ask = |behaviour| {
            let client = client.clone();
            async move {
                let mut crypto = client.crypto();
                client.retry(async || crypto.generate_random(random(behaviour)).await).await
            }
        };
        assert_eq!(ask(Behaviour::UnavailableTwice).await.unwrap().data, b"third");
        assert_eq!(server.unary_calls(), 3);
        let sealed = ask(Behaviour::Refuse).await.unwrap_err();
        assert_eq!(sealed.reason(), Some("SEALED"));
        assert_eq!(server.unary_calls(), 4, "a refusal is an answer and is not asked again");
        let always = ask(Behaviour::Unavailable).await.unwrap_err();
        assert!(matches!(always, ClientError::Unavailable(_)), "{always:?}");
        assert_eq!(server.unary_calls(), 7, "the attempts are bounded");
    });
}

#[test]
fn a_call_without_an_answer_ends_at_the_deadline() {
    let server = Server::unix();
    let config = Config { timeout: Duration::from_millis(100), ..server.config.clone() };
    let error = on_runtime(async {
        let client = Client::connect(&config).await.unwrap();
        client.call(client.crypto().generate_random(random(Behaviour::Silent))).await.unwrap_err()
    });
    assert!(matches!(error, ClientError::Deadline), "{error:?}");
}

#[test]
fn a_socket_that_is_not_there_is_named() {
    let server = Server::unix();
    let endpoint = "unix:/nonexistent/kmsd.sock".parse().unwrap();
    let config = Config { endpoint, ..server.config.clone() };
    let error = on_runtime(Client::connect(&config)).unwrap_err();
    assert!(matches!(error, ClientError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("/nonexistent/kmsd.sock: No such file"), "{error}");
}

#[test]
fn a_session_answers_refuses_and_goes_on() {
    let server = Server::unix();
    let mut session = Session::connect(&server.config).unwrap();
    let Response::ListTokens(tokens) = list_tokens(&mut session).unwrap() else {
        panic!("expected tokens");
    };
    assert_eq!(tokens.tokens[0].label, "dev");
    let refused = session.call(Request::GenerateRandom(random(Behaviour::Refuse))).err().unwrap();
    assert_eq!(refused.reason(), Some("SEALED"));
    assert!(list_tokens(&mut session).is_ok());
    assert!(!session.is_broken());
}

#[test]
fn a_late_answer_is_not_taken_for_the_next_one() {
    let server = Server::unix();
    let config = Config { timeout: Duration::from_millis(200), ..server.config.clone() };
    let mut session = Session::connect(&config).unwrap();
    let late = session.call(Request::GenerateRandom(random(Behaviour::Late))).err().unwrap();
    assert!(matches!(late, ClientError::Deadline), "{late:?}");
    let next = list_tokens(&mut session).unwrap();
    assert!(matches!(next, Response::ListTokens(_)), "the late random bytes must be skipped");
}

#[test]
fn a_broken_stream_is_unavailable_and_stays_broken() {
    let server = Server::unix();
    let mut session = Session::connect(&server.config).unwrap();
    let broken = session.call(Request::GenerateRandom(random(Behaviour::Close))).err().unwrap();
    assert!(matches!(broken, ClientError::Unavailable(_)), "{broken:?}");
    assert!(session.is_broken());
    let after = list_tokens(&mut session).err().unwrap();
    assert!(matches!(after, ClientError::Unavailable(_)), "{after:?}");
    assert!(list_tokens(&mut Session::connect(&server.config).unwrap()).is_ok());
}

#[test]
fn a_daemon_that_goes_away_breaks_the_session() {
    let server = Server::unix();
    let config = server.config.clone();
    let mut session = Session::connect(&config).unwrap();
    list_tokens(&mut session).unwrap();
    server.stop();
    let gone = list_tokens(&mut session).err().unwrap();
    assert!(matches!(gone, ClientError::Unavailable(_)), "{gone:?}");
    assert!(session.is_broken());
}

#[test]
fn an_answer_to_no_request_breaks_the_session() {
    let server = Server::unix();
    let mut session = Session::connect(&server.config).unwrap();
    let wrong = session.call(Request::GenerateRandom(random(Behaviour::WrongId))).err().unwrap();
    assert!(matches!(wrong, ClientError::Protocol(_)), "{wrong:?}");
    assert!(session.is_broken());
}

#[test]
fn an_abandoned_session_says_nothing_to_the_daemon() {
    let server = Server::unix();
    let mut session = Session::connect(&server.config).unwrap();
    list_tokens(&mut session).unwrap();
    session.abandon();
    let mut other = Session::connect(&server.config).unwrap();
    list_tokens(&mut other).unwrap();
    assert_eq!(server.open_streams(), 2, "the abandoned stream is still open at the daemon");
}

#[test]
fn a_session_inside_a_runtime_is_refused_and_not_a_panic() {
    let server = Server::unix();
    let error = on_runtime(async { Session::connect(&server.config).unwrap_err() });
    assert!(matches!(error, ClientError::Config(ConfigError::InsideRuntime)), "{error:?}");
    let mut session = Session::connect(&server.config).unwrap();
    let error = on_runtime(async { list_tokens(&mut session).err().unwrap() });
    assert!(matches!(error, ClientError::Config(ConfigError::InsideRuntime)), "{error:?}");
}

#[test]
fn both_ends_of_a_tls_connection_see_the_same_binding() {
    let server = Server::tls();
    on_runtime(async {
        let client = Client::connect(&server.config).await.unwrap();
        let mut crypto = client.crypto();
        let seen = client.call(crypto.generate_random(random(Behaviour::Binding))).await.unwrap();
        let binding = client.channel_binding();
        let ChannelBinding { server_certificate_digest, client_certificate_digest, exporter } =
            &binding;
        assert_eq!(seen.data, [&**client_certificate_digest, &**exporter].concat());
        assert_eq!(*server_certificate_digest, server.certificate_digest());
        assert_eq!(exporter.len(), 32);
        let other = Client::connect(&server.config).await.unwrap().channel_binding();
        assert_ne!(other.exporter, binding.exporter);
        assert_eq!(other.client_certificate_digest, binding.client_certificate_digest);
    });
    let mut session = Session::connect(&server.config).unwrap();
    assert!(list_tokens(&mut session).is_ok());
}

#[test]
fn a_unix_socket_has_no_binding() {
    let server = Server::unix();
    let client = on_runtime(Client::connect(&server.config)).unwrap();
    assert_eq!(client.channel_binding(), ChannelBinding::default());
}

#[test]
fn a_server_of_another_ca_is_refused() {
    let (server, other) = (Server::tls(), Server::tls());
    let config = Config { tls: other.config.tls.clone(), ..server.config.clone() };
    let error = on_runtime(Client::connect(&config)).unwrap_err();
    assert!(matches!(error, ClientError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

fn start(name: &str, operation: v1::stream_start::Operation) -> v1::StreamStart {
    v1::StreamStart { name: name.into(), operation: Some(operation), ..Default::default() }
}

#[tokio::test]
async fn a_stream_carries_any_length_both_ways() {
    let server = Server::unix();
    let client = Client::connect(&server.config).await.unwrap();
    for length in [0, 1, 65_536, 65_537, 3_000_001] {
        let data: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0]).collect();
        let (mut back, mut told) = (Vec::new(), 0);
        let encrypt = v1::stream_start::Operation::Encrypt(v1::StreamEncrypt::default());
        let done = client.stream(start("k", encrypt), &data[..], &mut back, |sent| told = sent);
        let done = done.await.unwrap();
        assert_eq!((done.started.name.as_str(), told), ("k", u64::from(length)));
        assert!(back.len() == data.len() && back.iter().zip(&data).all(|(a, b)| *a == !b));
        assert_eq!(done.finished.result, None);
    }
    let sign = v1::stream_start::Operation::Sign(v1::StreamSign {});
    let mut nothing = Vec::new();
    let done = client.stream(start("k", sign), &b"message"[..], &mut nothing, |_| ()).await;
    let signature = v1::stream_finished::Result::Signature(b"message".to_vec());
    assert_eq!(done.unwrap().finished.result, Some(signature));
    assert_eq!(nothing, b"");
}

#[tokio::test]
async fn a_stream_that_is_refused_broken_or_short_is_no_result() {
    let server = Server::unix();
    let client = Client::connect(&server.config).await.unwrap();
    let data = vec![7; 3_000_000];
    for name in ["refuse", "break", "short"] {
        let encrypt = v1::stream_start::Operation::Encrypt(v1::StreamEncrypt::default());
        let mut back = Vec::new();
        let failed = client.stream(start(name, encrypt), &data[..], &mut back, |_| ()).await;
        let StreamError::Client(error) = failed.unwrap_err() else { panic!("{name}") };
        match name {
            "refuse" => assert_eq!(error.reason(), Some("SEALED")),
            "break" => assert!(matches!(error, ClientError::Unavailable(_)), "{error:?}"),
            _ => assert!(matches!(error, ClientError::Protocol(_)), "{error:?}"),
        }
    }
}
