//! Peers that speak something else, or nothing at all.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use kms_client::v1;
use kms_tests::Daemon;

async fn assert_answers(daemon: &Daemon) {
    for client in [daemon.client().await, daemon.tls_client().await] {
        client.call(client.identity().who_am_i(v1::WhoAmIRequest {})).await.unwrap();
    }
}

/// What the peer says until it hangs up or says nothing for ten seconds.
fn said(stream: &mut (impl std::io::Read + std::io::Write), bytes: &[u8]) -> Vec<u8> {
    // The daemon may hang up in the middle.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[tokio::test]
async fn garbage_and_plain_http_are_hung_up_on() {
    let daemon = Daemon::shared();
    let noise: Vec<u8> =
        (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    for bytes in [
        noise.as_slice(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\xff\xff\x01\x00",
        preface,
        b"",
    ] {
        let mut tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port())).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let answer = said(&mut tcp, bytes);
        // At most an alert; nothing that a plain client could take for an answer.
        assert!(answer.len() < 64 && !answer.starts_with(b"HTTP"), "{answer:?}");
        let mut unix = UnixStream::connect(daemon.state().join("kmsd.sock")).unwrap();
        unix.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let answer = said(&mut unix, bytes);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }
    assert_answers(daemon).await;
}

#[tokio::test]
async fn two_hundred_half_open_connections_keep_nobody_out() {
    let daemon = Daemon::shared();
    let open: Vec<TcpStream> = (0..200)
        .map(|n| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port())).unwrap();
            if n % 2 == 0 {
                stream.write_all(b"\x16\x03\x01").unwrap();
            }
            stream
        })
        .collect();
    assert_answers(daemon).await;
    drop(open);
    assert_answers(daemon).await;
}

/// TLS 1.3 with a certificate, or nothing.
#[tokio::test]
async fn a_client_without_a_certificate_is_not_served() {
    let daemon = Daemon::shared();
    let mut tls = daemon.tls("client");
    let files = tls.tls.as_mut().unwrap();
    // A certificate with another's key cannot sign the handshake.
    files.key = daemon.state().join("tls/officer.key");
    let refused = match kms_client::Client::connect(&tls).await {
        Ok(client) => client.call(client.identity().who_am_i(v1::WhoAmIRequest {})).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    assert_answers(daemon).await;
}
