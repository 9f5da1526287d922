//! What is secret shows up nowhere, and what is counted is counted.

use std::fs;
use std::path::{Path, PathBuf};

use kms_client::blocking::Session;
use kms_client::v1::session_request::Request as Asked;
use kms_client::v1::{self, Algorithm};
use kms_tests::log::Export;
use kms_tests::request::{create_key, sign};
use kms_tests::{Daemon, refused, refused_for};

/// Two texts that occur nowhere else: one is a PIN, the other is data.
const PIN: &str = "canary-pin-6e1f0c";
const WRONG_PIN: &str = "canary-wrong-pin-93b1";
const DATA: &[u8] = b"canary-data-47a90d";

#[tokio::test]
async fn pins_and_plaintexts_stand_in_no_log_no_metric_and_no_file() {
    let mut daemon = Daemon::start_with(&["--log", "trace"]);
    let (client, officer) = (daemon.client().await, daemon.officer_client().await);
    let request = v1::SetTokenPinRequest {
        ring: "dev".to_owned(),
        role: v1::PinRole::User.into(),
        pin: PIN.to_owned(),
    };
    officer.call(officer.token().set_token_pin(request.clone())).await.unwrap();
    refused_for(client.call(client.token().set_token_pin(request)).await, "ROLE_MISSING");
    let request = v1::UnsealRequest { passphrase: WRONG_PIN.to_owned() };
    refused(client.call(client.seal().unseal(request)).await);
    create_key(&client, "dev/secrets-aes", Algorithm::Aes256).await;
    create_key(&client, "dev/secrets-mac", Algorithm::GenericSecret).await;
    let name = || "dev/secrets-aes".to_owned();
    let request =
        v1::EncryptRequest { name: name(), plaintext: DATA.to_vec(), ..Default::default() };
    let made = client.call(client.crypto().encrypt(request.clone())).await.unwrap();
    let request = v1::EncryptRequest { plaintext_crc32c: Some(1), ..request };
    refused_for(client.call(client.crypto().encrypt(request)).await, "INVALID_ARGUMENT");
    let request = v1::DecryptRequest {
        name: made.name,
        initialization_vector: made.initialization_vector,
        ciphertext: made.ciphertext,
        ..Default::default()
    };
    assert_eq!(client.call(client.crypto().decrypt(request)).await.unwrap().plaintext, DATA);
    let request = v1::MacSignRequest {
        name: "dev/secrets-mac".to_owned(),
        data: DATA.to_vec(),
        ..Default::default()
    };
    client.call(client.crypto().mac_sign(request)).await.unwrap();
    let config = daemon.unix();
    let logins = std::thread::spawn(move || {
        let mut session = Session::connect(&config).unwrap();
        for pin in [WRONG_PIN, PIN] {
            let role = v1::PinRole::User.into();
            let (ring, pin) = ("dev".to_owned(), pin.to_owned());
            let answer = session.call(Asked::LoginToken(v1::LoginTokenRequest { ring, role, pin }));
            assert_eq!(answer.is_ok(), pin_is_right(&answer));
        }
    });
    logins.join().unwrap();
    let export = Export::fetch(&client).await;
    let metrics = daemon.metrics();
    drop((client, officer));
    daemon.terminate();

    let output = daemon.output();
    // Otherwise the absence of secrets would say nothing.
    assert!(output.contains("TRACE"), "the log is not at its most talkative");
    let mut texts = vec![("output".to_owned(), output.into_bytes())];
    texts.push(("metrics".to_owned(), metrics.into_bytes()));
    texts.extend(export.files);
    for file in files(&daemon.state()) {
        texts.push((file.display().to_string(), fs::read(&file).unwrap()));
    }
    for secret in [PIN.as_bytes(), WRONG_PIN.as_bytes(), DATA] {
        // As a list of numbers within a longer one, too.
        let listed = format!("{secret:?}").trim_matches(['[', ']']).to_owned();
        let forms = [secret.to_vec(), hex::encode(secret).into_bytes(), listed.into_bytes()];
        for (place, text) in &texts {
            for form in &forms {
                let found = text.windows(form.len()).any(|part| part == form);
                assert!(!found, "{} stands in {place}", String::from_utf8_lossy(form));
            }
        }
    }
}

fn pin_is_right<T>(answer: &Result<T, kms_client::ClientError>) -> bool {
    !matches!(answer, Err(error) if error.reason() == Some("PIN_INCORRECT"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn the_metrics_count_what_is_done_and_what_is_refused() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    create_key(&client, "dev/metrics", Algorithm::EcP256).await;
    let before = daemon.metrics();
    assert!(before.starts_with("HTTP/1.1 200"), "{before}");
    assert!(before.contains("application/openmetrics-text"), "{before}");
    assert!(before.trim_end().ends_with("# EOF"), "{before}");
    for _ in 0..3 {
        sign(&client, "dev/metrics", b"x").await.unwrap();
    }
    for _ in 0..2 {
        refused(sign(&client, "dev/none", b"x").await);
    }
    let after = daemon.metrics();
    let count = |text: &str, outcome: &str| -> u64 {
        let name = format!("kms_operations_total{{action=\"Sign\",outcome=\"{outcome}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |value| value.parse().unwrap())
    };
    assert_eq!(count(&after, "granted") - count(&before, "granted"), 3);
    assert_eq!(count(&after, "denied") - count(&before, "denied"), 2);
    assert!(after.contains("kms_sealed 0"), "{after}");
    let leaves = after.lines().find_map(|line| line.strip_prefix("kms_log_leaves "));
    assert_eq!(leaves.unwrap().parse::<u64>().unwrap(), Export::fetch(&client).await.size - 1);
}
