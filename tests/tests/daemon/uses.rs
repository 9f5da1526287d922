//! Keys in use: who makes the IV, what is counted, what shuts what, many at once, and keys out of keys.

use kms_client::Client;
use kms_client::v1::{self, Algorithm, Mechanism};
use kms_tests::request::{create, create_key, key, step, trust};
use kms_tests::{Daemon, log, refused_for};

fn encrypt(name: &str, iv: &[u8]) -> v1::EncryptRequest {
    v1::EncryptRequest {
        name: name.to_owned(),
        plaintext: b"0123456789abcdef".to_vec(),
        initialization_vector: iv.to_vec(),
        ..Default::default()
    }
}

/// An AES key with these mechanisms.
async fn aes(client: &Client, name: &str, mechanisms: &[Mechanism]) -> String {
    let mut request = key(name, Algorithm::Aes256);
    let wanted = request.key.as_mut().unwrap();
    wanted.mechanisms = mechanisms.iter().map(|mechanism| (*mechanism).into()).collect();
    create(client, request).await.name
}

/// The key of a version's name.
fn key_of(version: &str) -> String {
    version.split("/versions/").next().unwrap().to_owned()
}

#[tokio::test]
async fn in_a_hardened_ring_the_daemon_makes_the_iv_of_gcm_and_takes_that_of_cbc() {
    let client = Daemon::shared().client().await;
    let gcm = aes(&client, "dev/use-iv-gcm", &[Mechanism::AesGcm]).await;
    let refusal = refused_for(
        client.call(client.crypto().encrypt(encrypt(&gcm, &[1; 12]))).await,
        "RING_POLICY",
    );
    log::assert_recorded(&client, &refusal, "Encrypt").await;
    let made = client.call(client.crypto().encrypt(encrypt(&gcm, &[]))).await.unwrap();
    assert_eq!(made.initialization_vector.len(), 12);
    let cbc = aes(&client, "dev/use-iv-cbc", &[Mechanism::AesCbcPad]).await;
    let made = client.call(client.crypto().encrypt(encrypt(&cbc, &[7; 16]))).await.unwrap();
    assert_eq!(made.initialization_vector, [7; 16]);
    let refusal = client.call(client.crypto().encrypt(encrypt(&cbc, &[7; 15]))).await;
    let refusal = refused_for(refusal, "INVALID_ARGUMENT");
    log::assert_recorded(&client, &refusal, "Encrypt").await;
}

/// What the version says that it has protected.
async fn protections(client: &Client, name: &str) -> u64 {
    let request = v1::GetKeyVersionRequest { name: name.to_owned() };
    let version = client.call(client.keys().get_key_version(request)).await.unwrap().version;
    version.unwrap().protection_count
}

#[tokio::test]
async fn protections_are_set_aside_by_many_at_once_and_not_one_is_refused_for_it() {
    let client = Daemon::shared().client().await;
    let gcm = aes(&client, "dev/use-count", &[Mechanism::AesGcm]).await;
    assert_eq!(protections(&client, &gcm).await, 0);
    let many = (0..64).map(|_| {
        let (client, request) = (client.clone(), encrypt(&gcm, &[]));
        tokio::spawn(async move { client.call(client.crypto().encrypt(request)).await })
    });
    let many: Vec<_> = many.collect();
    for one in many {
        one.await.unwrap().unwrap();
    }
    assert_eq!(protections(&client, &gcm).await, 1024);
    // A decryption protects nothing.
    let made = client.call(client.crypto().encrypt(encrypt(&gcm, &[]))).await.unwrap();
    let request = v1::DecryptRequest {
        name: made.name,
        initialization_vector: made.initialization_vector,
        ciphertext: made.ciphertext,
        ..Default::default()
    };
    client.call(client.crypto().decrypt(request)).await.unwrap();
    assert_eq!(protections(&client, &gcm).await, 1024);
}

/// A copy of `version` as the key `name`; its first version.
async fn copy(client: &Client, version: &str, name: &str) -> String {
    let request = v1::CopyKeyRequest {
        name: version.to_owned(),
        key: Some(v1::Key { name: name.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    client.call(client.crypto().copy_key(request)).await.unwrap().version.unwrap().name
}

/// That the bound itself holds, the tests of `server/src/ops/using.rs` show, which bring the count near it.
#[tokio::test]
async fn what_copies_protect_is_counted_with_their_original_also_after_a_crash_and_its_end() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let original = aes(&client, "dev/line", &[Mechanism::AesGcm, Mechanism::AesCbcPad]).await;
    let first = copy(&client, &original, "dev/line-copy").await;
    let second = copy(&client, &first, "dev/line-copy-of-copy").await;
    let by = async |client: &Client, name: &str, mechanism: Mechanism| {
        let request = v1::EncryptRequest { mechanism: mechanism.into(), ..encrypt(name, &[]) };
        client.call(client.crypto().encrypt(request)).await.unwrap();
    };
    let counts = async |client: &Client| {
        let mut counts = Vec::new();
        for name in [&original, &first, &second] {
            counts.push(protections(client, name).await);
        }
        counts
    };
    // What has no bound is not counted.
    by(&client, &first, Mechanism::AesCbcPad).await;
    assert_eq!(counts(&client).await, [0, 0, 0]);
    by(&client, &first, Mechanism::AesGcm).await;
    assert_eq!(counts(&client).await, [1024, 1024, 0]);
    by(&client, &second, Mechanism::AesGcm).await;
    by(&client, &original, Mechanism::AesGcm).await;
    assert_eq!(counts(&client).await, [1024, 1024, 1024]);

    // What was set aside and may have been used is not given out again.
    daemon.kill9();
    daemon.restart();
    let client = daemon.client().await;
    by(&client, &second, Mechanism::AesGcm).await;
    assert_eq!(counts(&client).await, [2048, 1024, 2048]);

    step(&client, "Deactivate", &original).await.unwrap();
    step(&client, "Destroy", &original).await.unwrap();
    let request = v1::DeleteKeyRequest { name: key_of(&original), ..Default::default() };
    client.call(client.keys().delete_key(request)).await.unwrap();
    daemon.kill9();
    daemon.restart();
    let client = daemon.client().await;
    by(&client, &first, Mechanism::AesGcm).await;
    by(&client, &second, Mechanism::AesGcm).await;
    assert_eq!(
        [protections(&client, &first).await, protections(&client, &second).await],
        [2048, 3072]
    );
}

#[tokio::test]
async fn what_has_wrapped_does_not_decrypt_and_neither_does_its_copy() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let both = [Mechanism::AesGcm, Mechanism::AesKwp];
    let (one, other) =
        (aes(&client, "dev/use-both-a", &both).await, aes(&client, "dev/use-both-b", &both).await);
    trust(daemon, "dev/use-both-a").await;
    trust(daemon, "dev/use-both-b").await;
    let copy = v1::CopyKeyRequest {
        name: one.clone(),
        key: Some(v1::Key { name: "dev/use-both-copy".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let copy = client.call(client.crypto().copy_key(copy)).await.unwrap().version.unwrap();
    let mut request = key("dev/use-both-target", Algorithm::Aes256);
    request.key.as_mut().unwrap().exportable = true;
    let target = create(&client, request).await.name;
    let wrap = |name: &str| v1::WrapKeyRequest {
        name: name.to_owned(),
        target: target.clone(),
        mechanism: Mechanism::AesKwp.into(),
        ..Default::default()
    };
    client.call(client.crypto().wrap_key(wrap(&one))).await.unwrap();
    client.call(client.crypto().wrap_key(wrap(&one))).await.unwrap();
    for name in [&one, &copy.name] {
        let request =
            v1::EncryptRequest { mechanism: Mechanism::AesGcm.into(), ..encrypt(name, &[]) };
        let refusal =
            refused_for(client.call(client.crypto().encrypt(request)).await, "USE_CONFLICT");
        log::assert_recorded(&client, &refusal, "Encrypt").await;
    }
    client.call(client.crypto().encrypt(encrypt(&other, &[]))).await.unwrap();
    refused_for(client.call(client.crypto().wrap_key(wrap(&other))).await, "USE_CONFLICT");
}

#[tokio::test]
async fn a_wrapped_key_comes_back_under_another_name_and_is_the_same_key() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let wrapping = aes(&client, "dev/use-wrapping", &[Mechanism::AesKwp]).await;
    let mut request = key("dev/use-wrapped", Algorithm::GenericSecret);
    request.key.as_mut().unwrap().exportable = true;
    let target = create(&client, request).await.name;
    let wrap =
        v1::WrapKeyRequest { name: wrapping.clone(), target: target.clone(), ..Default::default() };
    refused_for(client.call(client.crypto().wrap_key(wrap.clone())).await, "NOT_TRUSTED");
    trust(daemon, "dev/use-wrapping").await;
    let kept = create_key(&client, "dev/use-not-exportable", Algorithm::GenericSecret).await.name;
    let refusal = v1::WrapKeyRequest { target: kept, ..wrap.clone() };
    refused_for(client.call(client.crypto().wrap_key(refusal)).await, "NOT_EXPORTABLE");
    let wrapped = client.call(client.crypto().wrap_key(wrap)).await.unwrap().wrapped_key;
    let unwrap = |name: &str, wrapped_key: Vec<u8>| v1::UnwrapKeyRequest {
        name: wrapping.clone(),
        wrapped_key,
        key: key(name, Algorithm::GenericSecret).key,
        request_id: vec![9; 16],
        ..Default::default()
    };
    let request = unwrap("dev/use-unwrapped", wrapped.clone());
    let made = client.call(client.crypto().unwrap_key(request.clone())).await.unwrap();
    let version = made.version.unwrap();
    assert!(version.ever_exportable && !version.local);
    assert_eq!(version.origin, i32::from(v1::Origin::Unwrapped));
    // A retry makes nothing new; another request for the name is refused.
    let again = client.call(client.crypto().unwrap_key(request.clone())).await.unwrap();
    assert_eq!(again.version.unwrap().name, version.name);
    let taken = v1::UnwrapKeyRequest { request_id: vec![8; 16], ..request };
    refused_for(client.call(client.crypto().unwrap_key(taken)).await, "ALREADY_EXISTS");
    let mac = |name: &str| {
        let data = b"the same key".to_vec();
        v1::MacSignRequest { name: name.to_owned(), data, ..Default::default() }
    };
    let one = client.call(client.crypto().mac_sign(mac(&target))).await.unwrap().mac;
    let other = client.call(client.crypto().mac_sign(mac(&version.name))).await.unwrap().mac;
    assert_eq!(one, other);
    let mut damaged = wrapped;
    damaged[3] ^= 1;
    let request = unwrap("dev/use-unwrapped-damaged", damaged);
    refused_for(client.call(client.crypto().unwrap_key(request)).await, "CIPHERTEXT_REFUSED");
}

/// Also by a mechanism that tells the length of what it wrapped, which says nothing about a pair.
#[tokio::test]
async fn a_wrapped_pair_comes_back_and_is_the_same_pair() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    for mechanism in [Mechanism::AesGcm, Mechanism::AesKwp] {
        let by = mechanism.as_str_name().to_lowercase();
        let name = |what: &str| format!("dev/use-pair-{what}-{by}");
        let wrapping = aes(&client, &name("by"), &[mechanism]).await;
        trust(daemon, &name("by")).await;
        let mut request = key(&name("of"), Algorithm::EcP256);
        request.key.as_mut().unwrap().exportable = true;
        let target = create(&client, request).await;
        let request = v1::WrapKeyRequest {
            name: wrapping.clone(),
            target: target.name,
            mechanism: mechanism.into(),
            ..Default::default()
        };
        let wrapped = client.call(client.crypto().wrap_key(request)).await.unwrap();
        let request = v1::UnwrapKeyRequest {
            name: wrapping,
            mechanism: mechanism.into(),
            initialization_vector: wrapped.initialization_vector,
            wrapped_key: wrapped.wrapped_key,
            key: key(&name("again"), Algorithm::EcP256).key,
            ..Default::default()
        };
        let again = client.call(client.crypto().unwrap_key(request)).await.unwrap();
        assert_eq!(again.version.unwrap().public_key, target.public_key, "{mechanism:?}");
    }
}

#[tokio::test]
async fn two_sides_agree_and_encapsulate_and_have_the_same_key() {
    let client = Daemon::shared().client().await;
    let pair = |name: &str| {
        let mut request = key(name, Algorithm::EcP256);
        request.key.as_mut().unwrap().mechanisms = vec![Mechanism::Ecdh.into()];
        request
    };
    let one = create(&client, pair("dev/use-agree-a")).await;
    let other = create(&client, pair("dev/use-agree-b")).await;
    let agree = |name: &str, peer: &[u8], new: &str| v1::AgreeKeyRequest {
        name: name.to_owned(),
        peer_public_key: peer.to_vec(),
        kdf: Mechanism::HkdfSha256.into(),
        info: b"both".to_vec(),
        key: key(new, Algorithm::GenericSecret).key,
        ..Default::default()
    };
    let here = agree(&one.name, &other.public_key, "dev/use-agreed-a");
    let there = agree(&other.name, &one.public_key, "dev/use-agreed-b");
    let here = client.call(client.crypto().agree_key(here)).await.unwrap().version.unwrap();
    let there = client.call(client.crypto().agree_key(there)).await.unwrap().version.unwrap();
    let kem = create_key(&client, "dev/use-kem", Algorithm::MlKem768).await.name;
    let request = v1::EncapsulateKeyRequest {
        name: kem.clone(),
        key: key("dev/use-kem-a", Algorithm::GenericSecret).key,
        ..Default::default()
    };
    let told = client.call(client.crypto().encapsulate_key(request)).await.unwrap();
    let request = v1::DecapsulateKeyRequest {
        name: kem,
        ciphertext: told.ciphertext,
        key: key("dev/use-kem-b", Algorithm::GenericSecret).key,
        ..Default::default()
    };
    let heard = client.call(client.crypto().decapsulate_key(request)).await.unwrap();
    for (one, other) in
        [(here.name, there.name), (told.version.unwrap().name, heard.version.unwrap().name)]
    {
        let mac = |name: String| v1::MacSignRequest { name, data: vec![1], ..Default::default() };
        let one = client.call(client.crypto().mac_sign(mac(one))).await.unwrap().mac;
        let other = client.call(client.crypto().mac_sign(mac(other))).await.unwrap().mac;
        assert_eq!(one, other);
    }
}

#[tokio::test]
async fn what_is_made_out_of_a_key_is_guarded_no_less() {
    let client = Daemon::shared().client().await;
    let mut request = key("dev/use-guarded", Algorithm::GenericSecret);
    let guarded = request.key.as_mut().unwrap();
    guarded.mechanisms = vec![Mechanism::HkdfSha256.into()];
    guarded.model = "llama".to_owned();
    let source = create(&client, request).await.name;
    let derive = |change: fn(&mut v1::Key), name: &str| {
        let mut new = key(name, Algorithm::Aes256).key.unwrap();
        change(&mut new);
        v1::DeriveKeyRequest { name: source.clone(), key: Some(new), ..Default::default() }
    };
    let request = derive(|key| key.exportable = true, "dev/use-derived");
    let made = client.call(client.crypto().derive_key(request)).await.unwrap();
    let made = made.key.unwrap();
    assert_eq!(made.model, "llama");
    assert!(!made.exportable, "it is made out of a key that never leaves");
    let request = derive(|key| key.model = "other".to_owned(), "dev/use-derived-other");
    let refusal =
        refused_for(client.call(client.crypto().derive_key(request)).await, "INVALID_ARGUMENT");
    log::assert_recorded(&client, &refusal, "DeriveKey").await;
    let copy = |change: fn(&mut v1::Key)| {
        let mut new = v1::Key { name: "dev/use-copy-more".to_owned(), ..Default::default() };
        change(&mut new);
        v1::CopyKeyRequest { name: source.clone(), key: Some(new), ..Default::default() }
    };
    let more = copy(|key| key.mechanisms = vec![Mechanism::HmacSha256.into()]);
    refused_for(client.call(client.crypto().copy_key(more)).await, "INVALID_ARGUMENT");
    step(&client, "Suspend", &source).await.unwrap();
    refused_for(client.call(client.crypto().copy_key(copy(|_| ()))).await, "STATE_REFUSES");
}

#[tokio::test]
async fn a_ciphertext_moves_to_another_key_and_a_data_key_is_what_decrypt_opens() {
    let client = Daemon::shared().client().await;
    let from = aes(&client, "dev/use-move-a", &[Mechanism::AesGcm]).await;
    let to = aes(&client, "dev/use-move-b", &[Mechanism::AesGcm]).await;
    let made = client.call(client.crypto().encrypt(encrypt(&from, &[]))).await.unwrap();
    let request = v1::ReEncryptRequest {
        source: from.clone(),
        initialization_vector: made.initialization_vector,
        ciphertext: made.ciphertext,
        destination: key_of(&to),
        destination_additional_authenticated_data: b"moved".to_vec(),
        ..Default::default()
    };
    let moved = client.call(client.crypto().re_encrypt(request.clone())).await.unwrap();
    assert_eq!(moved.destination, to);
    let request = v1::ReEncryptRequest { destination: key_of(&from), ..request };
    client.call(client.crypto().re_encrypt(request)).await.unwrap();
    let request = v1::DecryptRequest {
        name: to.clone(),
        initialization_vector: moved.initialization_vector,
        ciphertext: moved.ciphertext,
        additional_authenticated_data: b"moved".to_vec(),
        ..Default::default()
    };
    let plaintext = client.call(client.crypto().decrypt(request)).await.unwrap().plaintext;
    assert_eq!(plaintext, b"0123456789abcdef");
    let request =
        v1::GenerateDataKeyRequest { name: to.clone(), length_bytes: 48, ..Default::default() };
    let data_key = client.call(client.crypto().generate_data_key(request)).await.unwrap();
    assert!(data_key.sealed.is_none());
    let request = v1::DecryptRequest {
        name: data_key.name,
        initialization_vector: data_key.initialization_vector,
        ciphertext: data_key.ciphertext,
        ..Default::default()
    };
    let plaintext = client.call(client.crypto().decrypt(request)).await.unwrap().plaintext;
    assert_eq!(plaintext.len(), 48);
}

#[tokio::test]
async fn each_item_of_a_batch_is_answered_and_recorded_on_its_own() {
    let client = Daemon::shared().client().await;
    create_key(&client, "dev/use-batch", Algorithm::EcP256).await;
    let sign = |name: &str| v1::BatchItem {
        request: Some(v1::batch_item::Request::Sign(v1::SignRequest {
            name: name.to_owned(),
            data: Some(v1::sign_request::Data::Message(b"one of many".to_vec())),
            ..Default::default()
        })),
    };
    let mut items = vec![sign("dev/use-batch"); 31];
    items.insert(7, sign("dev/use-batch-no-such-key"));
    items.push(v1::BatchItem { request: None });
    let request = v1::BatchRequest { items };
    let answer = client.call(client.crypto().batch(request)).await.unwrap();
    assert_eq!(answer.results.len(), 33);
    let mut leaves = std::collections::BTreeSet::new();
    for (at, result) in answer.results.into_iter().enumerate() {
        use v1::batch_result::Response;
        match (at, result.response.unwrap()) {
            (7, Response::Error(error)) => {
                assert_eq!(error.reason, "NOT_FOUND");
                leaves.insert(error.audit_index.unwrap());
            }
            (32, Response::Error(error)) => assert_eq!(error.reason, "UNKNOWN_REQUEST"),
            (_, Response::Sign(made)) => {
                leaves.insert(made.audit.unwrap().audit_index);
            }
            (at, other) => panic!("{at}: {other:?}"),
        }
    }
    assert_eq!(leaves.len(), 32, "each has a leaf of its own");
    let items = vec![sign("dev/use-batch"); 129];
    let answer = client.call(client.crypto().batch(v1::BatchRequest { items })).await;
    let refusal = refused_for(answer, "INVALID_ARGUMENT");
    log::assert_recorded(&client, &refusal, "Batch").await;
}

#[tokio::test]
async fn what_is_refused_after_it_was_permitted_is_on_record_as_well() {
    let client = Daemon::shared().client().await;
    let source = create(&client, {
        let mut request = key("dev/use-late-source", Algorithm::GenericSecret);
        request.key.as_mut().unwrap().mechanisms = vec![Mechanism::HkdfSha256.into()];
        request
    });
    let source = source.await.name;
    // All are permitted before the first of them has made its key.
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let request = v1::DeriveKeyRequest {
            name: source.clone(),
            key: key("dev/use-late", Algorithm::Aes256).key,
            ..Default::default()
        };
        let client = client.clone();
        tasks.spawn(async move { client.call(client.crypto().derive_key(request)).await });
    }
    let mut made = 0;
    while let Some(answer) = tasks.join_next().await {
        match answer.unwrap() {
            Ok(_) => made += 1,
            refused => {
                let refusal = refused_for(refused, "ALREADY_EXISTS");
                log::assert_recorded(&client, &refusal, "DeriveKey").await;
            }
        }
    }
    assert_eq!(made, 1);

    let kem = create_key(&client, "dev/use-late-kem", Algorithm::MlKem768).await.name;
    let request = v1::EncapsulateKeyRequest {
        name: kem,
        key: key("dev/use-late-shared", Algorithm::GenericSecret).key,
        request_id: vec![6; 16],
    };
    client.call(client.crypto().encapsulate_key(request.clone())).await.unwrap();
    let again = client.call(client.crypto().encapsulate_key(request)).await;
    let refusal = refused_for(again, "ALREADY_EXISTS");
    assert!(refusal.message.contains("ciphertext is not kept"), "{}", refusal.message);
    log::assert_recorded(&client, &refusal, "EncapsulateKey").await;
}

#[tokio::test]
async fn a_digest_is_that_of_the_data() {
    use sha2::Digest as _;
    let client = Daemon::shared().client().await;
    let request = v1::DigestRequest {
        ring: "dev".to_owned(),
        hash: v1::Hash::Sha256.into(),
        data: b"data".to_vec(),
    };
    let digest = client.call(client.crypto().digest(request)).await.unwrap().digest;
    assert_eq!(digest, sha2::Sha256::digest(b"data").to_vec());
}
