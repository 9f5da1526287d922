//! Keys in use, checked with libraries that the daemon does not use for it.

use kms_client::v1::{self, Algorithm, Mechanism};
use kms_client::{Client, ClientError};
use kms_tests::request::{create, create_key, key, sign};
use kms_tests::{Daemon, log, refused_for};
use p256::ecdsa::signature::Verifier as _;
use p256::pkcs8::DecodePublicKey as _;
use rsa::RsaPublicKey;
use sha2::{Digest as _, Sha256};

const MESSAGE: &[u8] = b"signed by the daemon";

/// Whether an independent library takes the signature.
fn verifies(mechanism: Mechanism, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    match mechanism {
        Mechanism::EcdsaSha256 => {
            let key = p256::ecdsa::VerifyingKey::from_public_key_der(public_key).unwrap();
            p256::ecdsa::DerSignature::from_bytes(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok())
        }
        Mechanism::RsaPkcs1Sha256 => {
            let key = RsaPublicKey::from_public_key_der(public_key).unwrap();
            let scheme = rsa::Pkcs1v15Sign::new::<Sha256>();
            key.verify(scheme, &Sha256::digest(message), signature).is_ok()
        }
        Mechanism::RsaPssSha256 => {
            let key = RsaPublicKey::from_public_key_der(public_key).unwrap();
            let scheme = rsa::Pss::<Sha256>::new_with_salt(32);
            key.verify(scheme, &Sha256::digest(message), signature).is_ok()
        }
        other => panic!("{other:?} does not sign"),
    }
}

async fn verify(client: &Client, name: &str, message: &[u8], signature: &[u8]) -> bool {
    let data = Some(v1::verify_request::Data::Message(message.to_vec()));
    let request = v1::VerifyRequest {
        name: name.to_owned(),
        data,
        signature: signature.to_vec(),
        ..Default::default()
    };
    match client.call(client.crypto().verify(request)).await {
        Ok(answer) => answer.valid,
        Err(error) => {
            assert_eq!(error.reason(), Some("INVALID_ARGUMENT"), "{error}");
            false
        }
    }
}

#[tokio::test]
async fn signatures_convince_independent_libraries_and_damaged_ones_nobody() {
    let client = Daemon::shared().client().await;
    for (algorithm, mechanism) in [
        (Algorithm::EcP256, Mechanism::EcdsaSha256),
        (Algorithm::Rsa3072, Mechanism::RsaPkcs1Sha256),
        (Algorithm::Rsa3072, Mechanism::RsaPssSha256),
    ] {
        let name = format!("dev/crypto-sign-{}", mechanism as i32);
        let mut request = key(&name, algorithm);
        request.key.as_mut().unwrap().mechanisms = vec![mechanism.into()];
        let version = create(&client, request).await;
        let made = sign(&client, &name, MESSAGE).await.unwrap();
        assert_eq!((made.name.as_str(), made.mechanism()), (version.name.as_str(), mechanism));
        assert_eq!(made.signature_crc32c, crc32c::crc32c(&made.signature));
        let data = Some(v1::sign_request::Data::Digest(Sha256::digest(MESSAGE).to_vec()));
        let request = v1::SignRequest { name: name.clone(), data, ..Default::default() };
        let of_digest = client.call(client.crypto().sign(request)).await.unwrap().signature;
        for signature in [&made.signature, &of_digest] {
            assert!(verifies(mechanism, &version.public_key, MESSAGE, signature), "{mechanism:?}");
            assert!(verify(&client, &name, MESSAGE, signature).await);
        }
        assert!(!verify(&client, &name, b"another", &made.signature).await);
        for at in [0, 3, made.signature.len() / 2, made.signature.len() - 1] {
            let mut damaged = made.signature.clone();
            damaged[at] ^= 1;
            assert!(!verify(&client, &name, MESSAGE, &damaged).await, "{mechanism:?} at {at}");
            assert!(!verify(&client, &name, MESSAGE, &made.signature[..at]).await);
        }
    }
}

async fn decrypt(
    client: &Client,
    change: impl FnOnce(&mut v1::DecryptRequest),
    whole: &v1::DecryptRequest,
) -> Result<Vec<u8>, ClientError> {
    let mut request = whole.clone();
    change(&mut request);
    Ok(client.call(client.crypto().decrypt(request)).await?.plaintext)
}

#[tokio::test]
async fn a_ciphertext_opens_whole_with_its_own_parts_and_not_otherwise() {
    let client = Daemon::shared().client().await;
    let first = create_key(&client, "dev/crypto-gcm", Algorithm::Aes256).await.name;
    let other = create_key(&client, "dev/crypto-gcm-other", Algorithm::Aes256).await.name;
    let request =
        v1::CreateKeyVersionRequest { parent: "dev/crypto-gcm".to_owned(), ..Default::default() };
    let second = client.call(client.keys().create_key_version(request)).await.unwrap();
    let second = second.version.unwrap().name;
    for plaintext in [Vec::new(), b"short".to_vec(), vec![0x5a; 64 * 1024]] {
        let request = v1::EncryptRequest {
            name: first.clone(),
            plaintext_crc32c: Some(crc32c::crc32c(&plaintext)),
            plaintext: plaintext.clone(),
            additional_authenticated_data: b"context".to_vec(),
            ..Default::default()
        };
        let made = client.call(client.crypto().encrypt(request.clone())).await.unwrap();
        let again = client.call(client.crypto().encrypt(request)).await.unwrap();
        assert_ne!(made.initialization_vector, again.initialization_vector);
        assert_eq!(made.ciphertext_crc32c, crc32c::crc32c(&made.ciphertext));
        let whole = v1::DecryptRequest {
            name: first.clone(),
            initialization_vector: made.initialization_vector,
            ciphertext: made.ciphertext,
            additional_authenticated_data: b"context".to_vec(),
            ciphertext_crc32c: Some(made.ciphertext_crc32c),
            ..Default::default()
        };
        assert_eq!(decrypt(&client, |_| (), &whole).await.unwrap(), plaintext);
        let whole = v1::DecryptRequest { ciphertext_crc32c: None, ..whole };
        let changes: [fn(&mut v1::DecryptRequest); 6] = [
            |request| request.additional_authenticated_data.clear(),
            |request| request.initialization_vector[11] ^= 1,
            |request| *request.ciphertext.last_mut().unwrap() ^= 1,
            |request| request.ciphertext[0] ^= 0x80,
            |request| request.ciphertext.truncate(request.ciphertext.len() - 1),
            |request| request.ciphertext.clear(),
        ];
        for change in changes {
            refused_for(decrypt(&client, change, &whole).await, "CIPHERTEXT_REFUSED");
        }
        for name in [&second, &other] {
            let answer = decrypt(&client, |request| request.name.clone_from(name), &whole).await;
            refused_for(answer, "CIPHERTEXT_REFUSED");
        }
        let answer = decrypt(&client, |request| request.ciphertext_crc32c = Some(1), &whole).await;
        let refusal = refused_for(answer, "INVALID_ARGUMENT");
        assert!(refusal.message.contains("damaged on the way"), "{}", refusal.message);
        log::assert_recorded(&client, &refusal, "Decrypt").await;
    }
}

#[tokio::test]
async fn a_mac_is_right_for_its_key_and_data_only() {
    let client = Daemon::shared().client().await;
    create_key(&client, "dev/crypto-mac", Algorithm::GenericSecret).await;
    create_key(&client, "dev/crypto-mac-other", Algorithm::GenericSecret).await;
    let request = v1::MacSignRequest {
        name: "dev/crypto-mac".to_owned(),
        data: MESSAGE.to_vec(),
        ..Default::default()
    };
    let mac = client.call(client.crypto().mac_sign(request)).await.unwrap().mac;
    let mut wrong = mac.clone();
    wrong[31] ^= 1;
    for (name, data, mac, valid) in [
        ("dev/crypto-mac", MESSAGE, &mac, true),
        ("dev/crypto-mac", MESSAGE, &wrong, false),
        ("dev/crypto-mac", b"another".as_slice(), &mac, false),
        ("dev/crypto-mac-other", MESSAGE, &mac, false),
    ] {
        let (name, data, mac) = (name.to_owned(), data.to_vec(), mac.clone());
        let request = v1::MacVerifyRequest { name, data, mac, ..Default::default() };
        assert_eq!(client.call(client.crypto().mac_verify(request)).await.unwrap().valid, valid);
    }
}

#[tokio::test]
async fn random_bytes_are_as_many_as_asked_for_and_never_the_same() {
    let client = Daemon::shared().client().await;
    let mut seen = std::collections::BTreeSet::new();
    for length_bytes in [32, 32, 4096, 4096] {
        let request = v1::GenerateRandomRequest { ring: "dev".to_owned(), length_bytes };
        let data = client.call(client.crypto().generate_random(request)).await.unwrap().data;
        assert_eq!(data.len(), usize::try_from(length_bytes).unwrap());
        assert!(seen.insert(data[..32].to_vec()));
    }
}

/// A use for which the key was not made is refused even where the mathematics would do it.
#[tokio::test]
async fn a_key_does_only_what_it_was_made_for() {
    let client = Daemon::shared().client().await;
    let mut request = key("dev/crypto-verify-only", Algorithm::EcP256);
    request.key.as_mut().unwrap().usages = vec![v1::Usage::Verify.into()];
    create(&client, request).await;
    let answer = sign(&client, "dev/crypto-verify-only", MESSAGE).await;
    let refusal = refused_for(answer, "USAGE_REFUSED");
    log::assert_recorded(&client, &refusal, "Sign").await;
}
