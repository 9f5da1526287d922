//! Keys from outside, keys that leave, and what the appliance states of them; with the openssl command as
//! the other side.

use std::fs;
use std::path::Path;
use std::process::Command;

use kms_client::v1::{self, Algorithm};
use kms_core::audit::checkpoint::LogKey;
use kms_tests::proposal::{approve, execute_fully, propose_export};
use kms_tests::request::{create, import_job, key, quorum, step};
use kms_tests::{Daemon, log, refused_for};
use kms_verify::statement::{Expected, verify_statement};

/// RFC 4231 §4.2: the key, the data and the tag with SHA-256.
const MAC_KEY: [u8; 20] = [0x0b; 20];
const MAC_TAG: &str = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";

#[tokio::test]
async fn a_secret_from_outside_is_the_same_key_here() {
    let client = Daemon::shared().client().await;
    let folder = tempfile::tempdir().unwrap();
    let mut request = key("dev/transfer-mac", Algorithm::GenericSecret);
    request.pending_import = true;
    let version = create(&client, request).await;
    let job = import_job(&client, "dev", v1::ImportMethod::RsaOaep4096Sha256Aes256Kwp).await;
    // CKM_RSA_AES_KEY_WRAP, made by another program.
    let transport = [0x42; 32];
    for (name, bytes) in
        [("job.der", &job.public_key[..]), ("transport", &transport), ("mac.key", &MAC_KEY)]
    {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let oaep = "pkeyutl -encrypt -pubin -keyform DER -inkey job.der -in transport -out wrapped.transport \
                -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256";
    if !openssl(folder.path(), oaep) {
        println!("skipped: the openssl command is not there");
        return;
    }
    let wrap = format!(
        "enc -e -id-aes256-wrap-pad -K {} -iv a65959a6 -in mac.key -out wrapped.key",
        hex::encode(transport)
    );
    assert!(openssl(folder.path(), &wrap));
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let ciphertext = [read("wrapped.transport"), read("wrapped.key")].concat();
    use v1::import_key_version_request::Material;
    let sealed = v1::SealedMaterial { import_job: job.name, ciphertext };
    let request = v1::ImportKeyVersionRequest {
        name: version.name.clone(),
        request_id: vec![4; 16],
        material: Some(Material::Sealed(sealed)),
        ..Default::default()
    };
    let imported = client.call(client.keys().import_key_version(request.clone())).await.unwrap();
    let imported = imported.version.unwrap();
    assert_eq!(imported.origin(), v1::Origin::Imported);
    assert_eq!(imported.state(), v1::State::PreActive);
    assert!(!imported.local && imported.ever_exportable && imported.length_bytes == 20);
    // A retry takes nothing in again; another request finds nothing that waits.
    client.call(client.keys().import_key_version(request.clone())).await.unwrap();
    let again = v1::ImportKeyVersionRequest { request_id: vec![5; 16], ..request };
    let answer = client.call(client.keys().import_key_version(again)).await;
    refused_for(answer, "ILLEGAL_TRANSITION");
    step(&client, "Activate", &imported.name).await.unwrap();
    let data = b"Hi There".to_vec();
    let request = v1::MacSignRequest { name: imported.name, data, ..Default::default() };
    let mac = client.call(client.crypto().mac_sign(request)).await.unwrap().mac;
    assert_eq!(hex::encode(mac), MAC_TAG);
}

#[tokio::test]
async fn material_that_is_no_key_is_refused_and_the_version_waits_on() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let mut request = key("dev/transfer-bad", Algorithm::Aes256);
    request.pending_import = true;
    let version = create(&client, request).await;
    assert_eq!(version.state(), v1::State::PendingImport);
    let job = import_job(&client, "dev", v1::ImportMethod::XWingHkdfSha256Aes256Gcm).await;
    use v1::import_key_version_request::Material;
    let import = |material| v1::ImportKeyVersionRequest {
        name: version.name.clone(),
        material: Some(material),
        ..Default::default()
    };
    let sealed = v1::SealedMaterial { import_job: job.name, ciphertext: vec![7; 1200] };
    let request = import(Material::Sealed(sealed));
    let answer = client.call(client.keys().import_key_version(request)).await;
    refused_for(answer, "CIPHERTEXT_REFUSED");
    let request = import(Material::PublicKey(vec![0; 91]));
    let answer = client.call(client.keys().import_key_version(request)).await;
    refused_for(answer, "INVALID_ARGUMENT");
    let request = v1::GetKeyVersionRequest { name: version.name.clone() };
    let after = client.call(client.keys().get_key_version(request)).await.unwrap();
    assert_eq!(after.version.unwrap().state(), v1::State::PendingImport);
}

#[tokio::test]
async fn a_key_leaves_only_to_whom_a_quorum_has_approved() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let folder = tempfile::tempdir().unwrap();
    let generated =
        openssl(folder.path(), "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out me.pem");
    if !generated {
        println!("skipped: the openssl command is not there");
        return;
    }
    assert!(openssl(folder.path(), "rsa -in me.pem -pubout -outform DER -out me.der"));
    let mut request = key("dev/transfer-out", Algorithm::GenericSecret);
    let wanted = request.key.as_mut().unwrap();
    wanted.exportable = true;
    wanted.quorum =
        Some(quorum(&["ExportKeyVersion"], 2, &["users/alice", "users/bob", "users/carol"]));
    let version = create(&client, request).await;
    let public_key = fs::read(folder.path().join("me.der")).unwrap();
    use v1::export_key_version_request::Recipient;
    let request = v1::ExportKeyVersionRequest {
        name: version.name.clone(),
        etag: String::new(),
        recipient: Some(Recipient::RsaPublicKey(public_key.clone())),
    };
    let refusal =
        refused_for(client.call(client.keys().export_key_version(request)).await, "NEEDS_APPROVAL");
    log::assert_recorded(&client, &refusal, "ExportKeyVersion").await;
    let proposal = propose_export(&client, &version.name, public_key).await;
    for name in ["alice", "carol"] {
        approve(daemon, &client, &proposal, name).await.unwrap();
    }
    let answer = execute_fully(&client, &proposal).await.unwrap();
    // RSA-OAEP of the transport key, AES-KWP of 32 bytes behind it.
    assert_eq!(answer.wrapped_key.len(), 384 + 40);
    let (transport, wrapped) = answer.wrapped_key.split_at(384);
    fs::write(folder.path().join("transport.bin"), transport).unwrap();
    let oaep = "pkeyutl -decrypt -inkey me.pem -in transport.bin -out transport.key \
                -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256";
    assert!(openssl(folder.path(), oaep));
    let transport = hex::encode(fs::read(folder.path().join("transport.key")).unwrap());
    fs::write(folder.path().join("wrapped.bin"), wrapped).unwrap();
    let unwrap = format!(
        "enc -d -id-aes256-wrap-pad -K {transport} -iv a65959a6 -in wrapped.bin -out out.key"
    );
    assert!(openssl(folder.path(), &unwrap));
    let key = fs::read(folder.path().join("out.key")).unwrap();
    assert_eq!(key.len(), 32);
    // The same key: both make the same tag.
    let request =
        v1::MacSignRequest { name: version.name, data: b"x".to_vec(), ..Default::default() };
    let here = client.call(client.crypto().mac_sign(request)).await.unwrap().mac;
    fs::write(folder.path().join("data"), b"x").unwrap();
    let mac =
        format!("dgst -sha256 -mac HMAC -macopt hexkey:{} -binary -out tag data", hex::encode(key));
    assert!(openssl(folder.path(), &mac));
    assert_eq!(fs::read(folder.path().join("tag")).unwrap(), here);
}

#[tokio::test]
async fn a_key_statement_convinces_a_stranger_with_the_logs_key() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let version = create(&client, key("dev/transfer-stated", Algorithm::EcP256)).await;
    let request = v1::GetKeyStatementRequest { name: version.name.clone(), nonce: vec![7; 16] };
    let answer = client.call(client.keys().get_key_statement(request)).await.unwrap();
    let log_key: LogKey = log::Export::fetch(&client).await.key;
    let expected = Expected { nonce: Some(&[7; 16]), public_key: Some(&version.public_key) };
    let report = verify_statement(&answer.cose, &answer.certificate_chain, &log_key, expected);
    assert!(report.accepted, "{:?}", report.reasons);
    assert!(report.never_left && report.key_certificate);
    let statement = report.statement.unwrap();
    assert_eq!(statement.version.to_string(), version.name);
    assert_eq!(statement.audit_index, answer.audit.unwrap().audit_index);
    // Another nonce, another statement, another log: refused.
    let other = Expected { nonce: Some(&[8; 16]), ..expected };
    assert!(!verify_statement(&answer.cose, &answer.certificate_chain, &log_key, other).accepted);
    let mut edited = answer.cose.clone();
    *edited.last_mut().unwrap() ^= 1;
    assert!(!verify_statement(&edited, &answer.certificate_chain, &log_key, expected).accepted);
    // The base point of the curve is somebody's key, and not this log's.
    let mut base_point = [0x66; 32];
    base_point[0] = 0x58;
    let foreign = LogKey::new(log_key.origin(), &base_point).unwrap();
    let report = verify_statement(&answer.cose, &answer.certificate_chain, &foreign, expected);
    assert!(!report.accepted);
}

/// Runs the openssl command in `folder`.
fn openssl(folder: &Path, arguments: &str) -> bool {
    let arguments = arguments.split_ascii_whitespace();
    let ended = Command::new("openssl").args(arguments).current_dir(folder).output();
    ended.is_ok_and(|ended| ended.status.success())
}
