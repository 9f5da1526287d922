//! Keys and versions as callers see them: names, pages, retries, etags, ends.

use std::fs;
use std::path::Path;

use kms_client::v1::{self, Algorithm};
use kms_client::{Client, ClientError, Code};
use kms_tests::request::{create_key, key, sign, step};
use kms_tests::{Daemon, refused_for};

async fn make_ring(daemon: &Daemon, name: &str) {
    let officer = daemon.officer_client().await;
    let request = v1::CreateKeyRingRequest { name: name.to_owned(), ..Default::default() };
    officer.call(officer.keys().create_key_ring(request)).await.unwrap();
}

async fn names(client: &Client, parent: &str) -> Vec<String> {
    let request = v1::ListKeysRequest { parent: parent.to_owned(), ..Default::default() };
    let listed = client.call(client.keys().list_keys(request)).await.unwrap();
    assert_eq!(listed.next_page_token, "");
    listed.keys.into_iter().map(|key| key.name).collect()
}

#[tokio::test]
async fn seven_keys_come_in_four_pages_of_two() {
    let daemon = Daemon::shared();
    make_ring(daemon, "keys-paged").await;
    let client = daemon.client().await;
    let mut made = Vec::new();
    for n in [3, 1, 6, 0, 5, 2, 4] {
        let version =
            create_key(&client, &format!("keys-paged/k{n}"), Algorithm::GenericSecret).await;
        made.push(version.name.strip_suffix("/versions/1").unwrap().to_owned());
    }
    made.sort();
    let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = v1::ListKeysRequest {
            parent: "keys-paged".to_owned(),
            page_size: 2,
            page_token: token,
            ..Default::default()
        };
        let page = client.call(client.keys().list_keys(request)).await.unwrap();
        assert!(page.keys.len() <= 2);
        seen.extend(page.keys.into_iter().map(|key| key.name));
        (token, pages) = (page.next_page_token, pages + 1);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((seen, pages), (made, 4));
}

#[tokio::test]
async fn a_retry_is_the_same_operation_and_other_arguments_are_another() {
    let daemon = Daemon::shared();
    make_ring(daemon, "keys-retry").await;
    let client = daemon.client().await;
    let request_id = vec![7; 16];
    let request = v1::CreateKeyRequest {
        request_id: request_id.clone(),
        ..key("keys-retry/k", Algorithm::GenericSecret)
    };
    let create = async |request: &v1::CreateKeyRequest| {
        client.call(client.keys().create_key(request.clone())).await
    };
    let first = create(&request).await.unwrap();
    let again = create(&request).await.unwrap();
    assert_eq!((&first.key, &first.version), (&again.key, &again.version));
    // Without the id, or with other arguments under the same id, it is another request.
    let without = v1::CreateKeyRequest { request_id: Vec::new(), ..request.clone() };
    refused_for(create(&without).await, "ALREADY_EXISTS");
    let mut other = request.clone();
    other.key.as_mut().unwrap().algorithm = Algorithm::Aes256.into();
    refused_for(create(&other).await, "ALREADY_EXISTS");
    // The id is the caller's own: another caller's is another request.
    let app = daemon.officer_client().await;
    refused_for(app.call(app.keys().create_key(request)).await, "ROLE_MISSING");

    let rotate = async |request_id: &[u8]| {
        let parent = "keys-retry/k".to_owned();
        let request = v1::CreateKeyVersionRequest {
            parent,
            request_id: request_id.to_vec(),
            ..Default::default()
        };
        client.call(client.keys().create_key_version(request)).await.unwrap().version.unwrap()
    };
    let second = rotate(&request_id).await;
    assert_eq!(rotate(&request_id).await, second);
    assert!(second.name.ends_with("/versions/2"));
    assert!(rotate(&[8; 16]).await.name.ends_with("/versions/3"));

    let suspend = |request_id: &[u8]| v1::SuspendKeyVersionRequest {
        name: second.name.clone(),
        request_id: request_id.to_vec(),
        ..Default::default()
    };
    for _ in 0..2 {
        let request = suspend(&[9; 16]);
        let answer = client.call(client.keys().suspend_key_version(request)).await.unwrap();
        assert_eq!(answer.version.unwrap().state(), v1::State::Suspended);
    }
    let request = suspend(&[10; 16]);
    let answer = client.call(client.keys().suspend_key_version(request)).await;
    refused_for(answer, "ILLEGAL_TRANSITION");
}

/// Many attempts of one request at once, as an impatient client makes them.
#[tokio::test]
async fn attempts_at_once_make_one_key() {
    let daemon = Daemon::shared();
    make_ring(daemon, "keys-at-once").await;
    let client = daemon.client().await;
    let mut racing = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        let request = v1::CreateKeyRequest {
            request_id: vec![3; 16],
            ..key("keys-at-once/k", Algorithm::EcP256)
        };
        racing.spawn(async move { client.call(client.keys().create_key(request)).await });
    }
    let mut versions = Vec::new();
    for answer in racing.join_all().await {
        match answer {
            Ok(made) => versions.push(made.version.unwrap()),
            Err(error) => {
                let known = ["STALE", "OUTCOME_UNKNOWN", "ALREADY_EXISTS"].map(Some);
                assert!(known.contains(&error.reason()), "{error:?}");
            }
        }
    }
    assert!(!versions.is_empty());
    assert!(versions.iter().all(|version| *version == versions[0]), "two answers, two keys");
    assert_eq!(names(&client, "keys-at-once").await.len(), 1);
}

#[tokio::test]
async fn an_old_etag_is_refused_and_the_new_one_is_not() {
    let client = Daemon::shared().client().await;
    let version = create_key(&client, "dev/keys-etag", Algorithm::GenericSecret).await;
    let suspended = step(&client, "Suspend", &version.name).await.unwrap();
    assert_ne!(suspended.etag, version.etag);
    let resume = async |etag: &str| {
        let (name, etag) = (version.name.clone(), etag.to_owned());
        let request = v1::ResumeKeyVersionRequest { name, etag, ..Default::default() };
        client.call(client.keys().resume_key_version(request)).await
    };
    let refusal = refused_for(resume(&version.etag).await, "STALE");
    assert_eq!(refusal.code, Code::Aborted);
    resume(&suspended.etag).await.unwrap();
}

#[tokio::test]
async fn rotation_moves_the_primary_and_old_versions_go_on() {
    let client = Daemon::shared().client().await;
    let first = create_key(&client, "dev/keys-rotate", Algorithm::EcP256).await;
    let old = sign(&client, "dev/keys-rotate", b"x").await.unwrap();
    let request =
        v1::CreateKeyVersionRequest { parent: "dev/keys-rotate".to_owned(), ..Default::default() };
    let second = client.call(client.keys().create_key_version(request)).await.unwrap();
    let second = second.version.unwrap();
    assert_ne!(first.public_key, second.public_key);
    assert_eq!(sign(&client, "dev/keys-rotate", b"x").await.unwrap().name, second.name);
    let data = Some(v1::verify_request::Data::Message(b"x".to_vec()));
    for (name, valid) in [(&first.name, true), (&second.name, false)] {
        let (name, data, signature) = (name.clone(), data.clone(), old.signature.clone());
        let request = v1::VerifyRequest { name, data, signature, ..Default::default() };
        assert_eq!(client.call(client.crypto().verify(request)).await.unwrap().valid, valid);
    }
    let request = v1::ListKeyVersionsRequest {
        parent: "dev/keys-rotate".to_owned(),
        page_size: 1,
        ..Default::default()
    };
    let page = client.call(client.keys().list_key_versions(request.clone())).await.unwrap();
    assert_eq!(page.versions, std::slice::from_ref(&first));
    let request = v1::ListKeyVersionsRequest { page_token: page.next_page_token, ..request };
    let page = client.call(client.keys().list_key_versions(request)).await.unwrap();
    assert_eq!((page.versions, page.next_page_token.as_str()), (vec![second.clone()], ""));
    for (name, version) in [("dev/keys-rotate", &second), ("dev/keys-rotate@1", &first)] {
        let request = v1::GetPublicKeyRequest { name: name.to_owned() };
        let shown = client.call(client.keys().get_public_key(request)).await.unwrap();
        assert_eq!((&shown.name, &shown.public_key), (&version.name, &version.public_key));
        assert_eq!(shown.public_key_crc32c, crc32c::crc32c(&shown.public_key));
    }
}

#[tokio::test]
async fn what_is_destroyed_is_in_no_file_and_its_name_is_not_used_again() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let doomed = create_key(&client, "dev/keys-doomed", Algorithm::Aes256).await.name;
    let kept = create_key(&client, "dev/keys-kept", Algorithm::Aes256).await.name;
    let slots = daemon.state().join("store/slots");
    let before = fs::read(&slots).unwrap();
    for verb in ["Deactivate", "Destroy"] {
        step(&client, verb, &doomed).await.unwrap();
    }
    let after = fs::read(&slots).unwrap();
    let changed = || before.chunks(64).zip(after.chunks(64)).filter(|(was, is)| was != is);
    assert_eq!(changed().count(), 1);
    let secret = changed().map(|(was, _)| was[20..52].to_vec()).next().unwrap();
    assert!(secret.iter().any(|byte| *byte != 0));
    assert!(!holds(&daemon.state(), &secret), "the secret is still on disk");

    let encrypt = async |name: &str| -> Result<(), ClientError> {
        let request = v1::EncryptRequest { name: name.to_owned(), ..Default::default() };
        client.call(client.crypto().encrypt(request)).await.map(drop)
    };
    refused_for(encrypt(&doomed).await, "STATE_REFUSES");
    encrypt(&kept).await.unwrap();
    let request = key("dev/keys-doomed", Algorithm::Aes256);
    refused_for(client.call(client.keys().create_key(request)).await, "ALREADY_EXISTS");
    drop(client);
    daemon.terminate();
    assert!(!holds(&daemon.state(), &secret), "the secret came back to disk");
}

/// Whether any file below `folder` holds `bytes`.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        path.is_file() && fs::read(&path).unwrap().windows(bytes.len()).any(|part| part == bytes)
    })
}
