//! A store protected by a passphrase: made, served sealed, opened, closed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kms_client::blocking::Session;
use kms_client::v1::session_request::Request as Asked;
use kms_client::v1::session_response::Response as Answered;
use kms_client::v1::{self, Algorithm};
use kms_client::{Client, ClientError, Config};
use kms_tests::process::Process;
use kms_tests::{daemon, refused, refused_for};

const PASSPHRASE: &str = "correct horse battery staple";

/// Makes a store in `folder` and a configuration that serves it sealed.
fn initialised(folder: &Path) -> String {
    let passphrase = folder.join("passphrase");
    fs::write(&passphrase, format!("{PASSPHRASE}\n")).unwrap();
    let state = folder.join("state").display().to_string();
    let passphrase = passphrase.display().to_string();
    let arguments = ["init", "--state", &state, "--passphrase-file", &passphrase];
    let ended = Process::kmsd(&arguments, folder, "init").ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    // Not twice.
    let ended = Process::kmsd(&arguments, folder, "init-again").ended();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("holds a key store already"), "{}", ended.stderr);
    let socket = folder.join("kmsd.sock");
    let config = folder.join("kmsd.toml");
    let text =
        format!("state = '{state}'\nlocation = 'local'\n[listen]\nunix = '{}'\n", socket.display());
    fs::write(&config, text).unwrap();
    config.display().to_string()
}

fn serve(folder: &Path, config: &str, output: &str) -> (Process, Config) {
    let mut process = Process::kmsd(&["serve", "--config", config], folder, output);
    assert!(process.wait_for("ready"), "{}", process.stderr());
    (process, daemon::unix(&folder.join("kmsd.sock")))
}

async fn unseal(client: &Client, passphrase: &str) -> Result<v1::UnsealResponse, ClientError> {
    let request = v1::UnsealRequest { passphrase: passphrase.to_owned() };
    client.call(client.seal().unseal(request)).await
}

async fn is_sealed(client: &Client) -> bool {
    let request = v1::GetSealStatusRequest {};
    let status = client.call(client.seal().get_seal_status(request)).await.unwrap();
    assert_eq!(status.method, "passphrase");
    status.sealed
}

/// Tries until the back-off is over.
async fn when_unlocked(
    client: &Client,
    passphrase: &str,
) -> Result<v1::UnsealResponse, ClientError> {
    let begun = Instant::now();
    loop {
        let answer = unseal(client, passphrase).await;
        match &answer {
            Err(error) if error.reason() == Some("TOO_MANY_TRIES") => {
                assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            _ => return answer,
        }
    }
}

async fn assert_sealed(client: &Client) {
    assert!(is_sealed(client).await);
    let request = v1::ListKeysRequest { parent: "pki".to_owned(), ..Default::default() };
    refused_for(client.call(client.keys().list_keys(request)).await, "SEALED");
    let request = v1::GetCheckpointRequest {};
    refused_for(client.call(client.audit().get_checkpoint(request)).await, "SEALED");
    // Not an empty list, which would say that there is nothing.
    let request = v1::ListKeyRingsRequest::default();
    refused_for(client.call(client.keys().list_key_rings(request)).await, "SEALED");
    let request = v1::ListProposalsRequest::default();
    refused_for(client.call(client.proposals().list_proposals(request)).await, "SEALED");
    let request = v1::ListTokensRequest {};
    refused_for(client.call(client.token().list_tokens(request)).await, "SEALED");
    for name in ["pki/there", "pki/missing", "none/missing"] {
        refused_for(kms_tests::request::sign(client, name, b"x").await, "SEALED");
    }
}

#[tokio::test]
async fn a_sealed_daemon_uses_nothing_until_the_passphrase_opens_it() {
    let folder = daemon::temporary();
    let config = initialised(folder.path());
    let (process, address) = serve(folder.path(), &config, "serve-1");
    let client = daemon::connect(&address).await;
    assert_sealed(&client).await;

    let refusal = refused_for(unseal(&client, "wrong horse battery").await, "PIN_INCORRECT");
    assert!(refusal.audit_index.is_some());
    // Even the right one waits after a wrong one.
    refused_for(unseal(&client, PASSPHRASE).await, "TOO_MANY_TRIES");
    assert!(!when_unlocked(&client, PASSPHRASE).await.unwrap().sealed);
    assert!(!is_sealed(&client).await);

    let officer = client.call(client.identity().who_am_i(v1::WhoAmIRequest {})).await.unwrap();
    assert_eq!(officer.principal, "users/officer");
    let ring = v1::CreateKeyRingRequest { name: "pki".to_owned(), ..Default::default() };
    client.call(client.keys().create_key_ring(ring)).await.unwrap();
    let request = v1::SetTokenPinRequest {
        ring: "pki".to_owned(),
        role: v1::PinRole::User.into(),
        pin: "a-user-pin".to_owned(),
    };
    client.call(client.token().set_token_pin(request)).await.unwrap();
    let (version, sealed) = use_and_seal(&client, address).await;
    assert_eq!(sealed.reason, "SEALED");
    assert_sealed(&client).await;
    drop(client);
    assert_eq!(process.terminate().status.code(), Some(0));

    // Sealed again after a restart, and with the passphrase at hand not.
    let (process, address) = serve(folder.path(), &config, "serve-2");
    let client = daemon::connect(&address).await;
    assert_sealed(&client).await;
    drop(client);
    assert_eq!(process.terminate().status.code(), Some(0));
    let passphrase = folder.path().join("passphrase");
    let with_file = format!(
        "{}[seal]\npassphrase_file = '{}'\n",
        fs::read_to_string(&config).unwrap(),
        passphrase.display()
    );
    fs::write(&config, with_file).unwrap();
    let (process, address) = serve(folder.path(), &config, "serve-3");
    let client = daemon::connect(&address).await;
    assert!(!is_sealed(&client).await);
    let request = v1::GetKeyVersionRequest { name: version };
    client.call(client.keys().get_key_version(request)).await.unwrap();
    drop(client);
    assert_eq!(process.terminate().status.code(), Some(0));

    fs::write(&passphrase, "another passphrase\n").unwrap();
    let ended = Process::kmsd(&["serve", "--config", &config], folder.path(), "serve-4").ended();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("passphrase"), "{}", ended.stderr);
}

/// Logs in by PIN, makes a key and signs; then the officer seals, and the same session is refused.
async fn use_and_seal(officer: &Client, address: Config) -> (String, kms_tests::Refusal) {
    let (sealing, seal) = tokio::sync::oneshot::channel();
    let (sealed, wait) = std::sync::mpsc::channel::<()>();
    let user = std::thread::spawn(move || {
        let mut session = Session::connect(&address).unwrap();
        let login = v1::LoginTokenRequest {
            ring: "pki".to_owned(),
            role: v1::PinRole::User.into(),
            pin: "a-user-pin".to_owned(),
        };
        session.call(Asked::LoginToken(login)).unwrap();
        let make = v1::CreateObjectKeyRequest {
            ring: "pki".to_owned(),
            algorithm: Algorithm::EcP256.into(),
            ..Default::default()
        };
        let Answered::CreateObjectKey(made) = session.call(Asked::CreateObjectKey(make)).unwrap()
        else {
            panic!("another answer");
        };
        let version = made.object.unwrap().version;
        let data = Some(v1::sign_request::Data::Message(b"x".to_vec()));
        let request = v1::SignRequest { name: version.clone(), data, ..Default::default() };
        session.call(Asked::Sign(request.clone())).unwrap();
        sealing.send(()).unwrap();
        wait.recv().unwrap();
        (version, refused(session.call(Asked::Sign(request))))
    });
    seal.await.unwrap();
    let answer = officer.call(officer.seal().seal(v1::SealRequest {})).await.unwrap();
    assert!(answer.sealed);
    sealed.send(()).unwrap();
    // The officer is no auditor, so where the refusal stands is told but not read here.
    user.join().unwrap()
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_its_place() {
    let folder = daemon::temporary();
    let config = folder.path().join("kmsd.toml");
    let path = config.display().to_string();
    for (text, problem) in [
        ("state = '/s'\nlocation = 'l'\n[listen]\nunx = '/x'\n", "line 4, column 1"),
        ("state = '/s'\nlocation = 'l'\n[listen]\nunix = 7\n", "line 4, column 8"),
        ("state = '/s'\nlocation = 'l'\n", "nothing to listen on"),
        ("state = '/s'\n", "location"),
        ("state = '/s'\nlocation = 'l'\n[listen]\nunix = '/x'\ntcp = '127.0.0.1:1'\n", "[tls]"),
        ("state = '/s'\nlocation = 'UPPER'\n[listen]\nunix = '/x'\n", "location"),
        ("state = '/s'\nlocation = 'l'\n[listen]\nunix = '/x'\n[log]\nlevel = '=='\n", "log.level"),
        ("[", "line 1"),
    ] {
        fs::write(&config, text).unwrap();
        let ended = Process::kmsd(&["serve", "--config", &path], folder.path(), "serve").ended();
        assert_eq!(ended.status.code(), Some(1), "{text}");
        assert!(ended.stderr.contains(problem), "{text}: {}", ended.stderr);
    }
    let ended = Process::kmsd(&["serve", "--config", "/no/such"], folder.path(), "serve").ended();
    assert!(ended.stderr.contains("/no/such"), "{}", ended.stderr);
    let ended = Process::kmsd(&["serve", "--cofnig", &path], folder.path(), "serve").ended();
    assert_eq!(ended.status.code(), Some(2));
}
