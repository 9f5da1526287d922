//! Every published reason of a refusal is seen by somebody who asked over the wire; and the refusals that take
//! more than a wrong field.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kms_client::v1::{self, Algorithm, Mechanism};
use kms_client::{Client, StreamError};
use kms_core::permit::Refusal;
use kms_tests::request::{create, create_key, import_job, key, trust};
use kms_tests::{Daemon, log, refused_for};
use tokio::io::AsyncWriteExt as _;

/// Reasons that no request from outside can bring about here, and where they are tested instead.
const NOT_FROM_OUTSIDE: [(&str, &str); 3] = [
    (
        "APPROVAL_MISMATCH",
        "an approval is read from the proposal that it is for; core/src/permit/tests.rs",
    ),
    ("FAILED", "only the log has it: whoever asked is told what failed"),
    ("INVOCATION_LIMIT", "4,294,967,296 protections come first; server/src/ops/using.rs"),
];

/// Each reason stands in a test that asks a daemon, beside a check of what was answered.
#[test]
fn every_reason_is_answered_to_somebody() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    // This file's own table names reasons, too, and does not count.
    let (before, table) = text.split_once("const NOT_FROM_OUTSIDE").unwrap();
    let tests = [before, table.split_once("];").unwrap().1].concat();
    for reason in Refusal::REASONS {
        let asked = tests.contains(&format!("\"{reason}\""));
        let excused = NOT_FROM_OUTSIDE.iter().any(|(excused, _)| excused == reason);
        assert!(asked || excused, "no test asks for what is refused as {reason}");
        assert!(!(asked && excused), "{reason} is excused and tested");
    }
}

#[tokio::test]
async fn a_key_is_used_with_its_own_mechanisms_only() {
    let client = Daemon::shared().client().await;
    create_key(&client, "dev/refusal-ec", Algorithm::EcP256).await;
    let request = v1::SignRequest {
        name: "dev/refusal-ec".to_owned(),
        data: Some(v1::sign_request::Data::Message(b"x".to_vec())),
        mechanism: Mechanism::EcdsaSha512.into(),
        ..Default::default()
    };
    let refusal =
        refused_for(client.call(client.crypto().sign(request)).await, "MECHANISM_REFUSED");
    log::assert_recorded(&client, &refusal, "Sign").await;
}

/// A key that wraps, trusted by the officer.
async fn wrapping(
    daemon: &Daemon,
    client: &Client,
    name: &str,
    mechanisms: &[Mechanism],
) -> String {
    let mut request = key(name, Algorithm::Aes256);
    request.key.as_mut().unwrap().mechanisms =
        mechanisms.iter().map(|mechanism| (*mechanism).into()).collect();
    let version = create(client, request).await.name;
    trust(daemon, name).await;
    version
}

async fn exportable(client: &Client, name: &str, change: fn(&mut v1::Key)) -> String {
    let mut request = key(name, Algorithm::GenericSecret);
    let wanted = request.key.as_mut().unwrap();
    wanted.exportable = true;
    change(wanted);
    create(client, request).await.name
}

/// What comes back from a wrapped key is guarded as the wrapping key is, so that must be no less.
#[tokio::test]
async fn a_key_is_wrapped_only_by_one_of_its_ring_that_keeps_what_guards_it() {
    let daemon = Daemon::shared();
    let (client, officer) = (daemon.client().await, daemon.officer_client().await);
    let by = wrapping(daemon, &client, "dev/refusal-kek", &[Mechanism::AesKwp]).await;
    let wrap = async |target: String| {
        let request = v1::WrapKeyRequest { name: by.clone(), target, ..Default::default() };
        client.call(client.crypto().wrap_key(request)).await
    };
    let guarded = exportable(&client, "dev/refusal-model", |key| key.model = "llama".into()).await;
    refused_for(wrap(guarded).await, "PROTECTION_LOST");
    let ring = v1::CreateKeyRingRequest { name: "refusal-other".into(), ..Default::default() };
    officer.call(officer.keys().create_key_ring(ring)).await.unwrap();
    let elsewhere = exportable(&client, "refusal-other/out", |_| ()).await;
    let refusal = refused_for(wrap(elsewhere).await, "INVALID_ARGUMENT");
    assert!(refusal.message.contains("its own ring"), "{}", refusal.message);
    let plain = exportable(&client, "dev/refusal-plain", |_| ()).await;
    assert!(!wrap(plain).await.unwrap().wrapped_key.is_empty());
}

/// The first attempt has made the key a wrapping one, and the retry is of the same kind.
#[tokio::test]
async fn an_unwrap_is_retried_in_a_hardened_ring_by_a_key_that_could_also_encrypt() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let both = [Mechanism::AesGcm, Mechanism::AesKwp];
    let by = wrapping(daemon, &client, "dev/refusal-both", &both).await;
    let target = exportable(&client, "dev/refusal-out", |_| ()).await;
    let mechanism = Mechanism::AesKwp.into();
    let request = v1::WrapKeyRequest { name: by.clone(), target, mechanism, ..Default::default() };
    let wrapped = client.call(client.crypto().wrap_key(request)).await.unwrap().wrapped_key;
    let request = v1::UnwrapKeyRequest {
        name: by.clone(),
        mechanism,
        wrapped_key: wrapped,
        key: key("dev/refusal-in", Algorithm::GenericSecret).key,
        request_id: vec![7; 16],
        ..Default::default()
    };
    let first = client.call(client.crypto().unwrap_key(request.clone())).await.unwrap();
    let again = client.call(client.crypto().unwrap_key(request)).await.unwrap();
    assert_eq!(first.version.unwrap().name, again.version.unwrap().name);
    let request = v1::EncryptRequest { name: by, plaintext: vec![1], ..Default::default() };
    refused_for(client.call(client.crypto().encrypt(request)).await, "USE_CONFLICT");
}

#[tokio::test]
async fn an_import_job_takes_nothing_when_its_time_is_over() {
    let daemon = Daemon::start_with_clock();
    let client = daemon.client().await;
    let request =
        v1::CreateKeyRequest { pending_import: true, ..key("dev/refusal-late", Algorithm::Aes256) };
    let version = create(&client, request).await.name;
    let job = import_job(&client, "dev", v1::ImportMethod::XWingHkdfSha256Aes256Gcm).await;
    use v1::import_key_version_request::Material;
    let import = async || {
        let sealed = v1::SealedMaterial { import_job: job.name.clone(), ciphertext: vec![7; 1200] };
        let request = v1::ImportKeyVersionRequest {
            name: version.clone(),
            material: Some(Material::Sealed(sealed)),
            ..Default::default()
        };
        client.call(client.keys().import_key_version(request)).await
    };
    // While there is time, only what was sealed is wrong.
    refused_for(import().await, "CIPHERTEXT_REFUSED");
    let seconds = |time: Option<prost_types::Timestamp>| time.unwrap().seconds.unsigned_abs();
    daemon.advance(Duration::from_secs(seconds(job.expire_time) - seconds(job.create_time)));
    let refusal = refused_for(import().await, "IMPORT_JOB_EXPIRED");
    log::assert_recorded(&client, &refusal, "ImportKeyVersion").await;
}

/// What flows when the root is closed is the last that a stream does.
#[tokio::test]
async fn a_stream_ends_when_the_root_is_closed() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    create_key(&client, "dev/refusal-stream", Algorithm::Aes256).await;
    let operation = v1::stream_start::Operation::Encrypt(v1::StreamEncrypt::default());
    let name = "dev/refusal-stream".to_owned();
    let start = v1::StreamStart { name, operation: Some(operation), ..Default::default() };
    let (mut writer, reader) = tokio::io::duplex(1 << 20);
    let (told, mut sent) = tokio::sync::watch::channel(0);
    let streaming = {
        let client = client.clone();
        tokio::spawn(async move {
            let progress = |bytes| {
                told.send_replace(bytes);
            };
            client.stream(start, reader, tokio::io::sink(), progress).await
        })
    };
    writer.write_all(&vec![1; 64 * 1024]).await.unwrap();
    sent.wait_for(|bytes| *bytes > 0).await.unwrap();
    client.call(client.seal().seal(v1::SealRequest {})).await.unwrap();
    writer.write_all(&vec![2; 64 * 1024]).await.unwrap();
    drop(writer);
    match streaming.await.unwrap() {
        Err(StreamError::Client(error)) => drop(refused_for(Err::<(), _>(error), "SEALED")),
        other => panic!("{other:?}"),
    }
}
