//! Key pairs with random messages: the two providers check each other's work. OpenSSL checks both in
//! `second_opinion.rs`.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may stop it")]

#[path = "support/vectors.rs"]
mod vectors;

use std::sync::{Arc, OnceLock};

use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::Mechanism;
use kms_crypto::CryptoError;
use kms_crypto::material::Material;
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::provider::purerust::PureRust;
use kms_crypto::provider::{CipherParameters, NewKey, Provider, SignInput};
use kms_crypto::random;

const BOTH_WAYS: [(&dyn Provider, &dyn Provider); 2] = [(&AwsLc, &PureRust), (&PureRust, &AwsLc)];

/// Up to 300 random bytes.
fn message() -> Vec<u8> {
    let [high, low] = random::array().unwrap();
    let mut bytes = vec![0; usize::from(high) + usize::from(low) % 45];
    random::fill(&mut bytes).unwrap();
    bytes
}

/// How often `worker` is asked: 200 times, but fewer where that takes long.
fn cases(worker: &dyn Provider, algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::SlhDsaSha2_128s => 2,
        Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096
            if worker.name() == "pure-rust" =>
        {
            4
        }
        Algorithm::Rsa3072 | Algorithm::Rsa4096 => 20,
        _ => 200,
    }
}

/// RSA keys take seconds to make, so there is one of each size, by AWS-LC.
fn key(maker: &dyn Provider, algorithm: Algorithm) -> Arc<NewKey> {
    static RSA: [OnceLock<Arc<NewKey>>; 3] = [const { OnceLock::new() }; 3];
    let make = |maker: &dyn Provider| Arc::new(maker.generate_unchecked(algorithm, 0).unwrap());
    let held = match algorithm {
        Algorithm::Rsa2048 => &RSA[0],
        Algorithm::Rsa3072 => &RSA[1],
        Algorithm::Rsa4096 => &RSA[2],
        _ => return make(maker),
    };
    held.get_or_init(|| make(&AwsLc)).clone()
}

fn with_usage(usage: Usage) -> impl Iterator<Item = (Algorithm, Mechanism)> {
    Algorithm::ALL.iter().filter(|algorithm| algorithm.is_asymmetric()).flat_map(move |algorithm| {
        algorithm
            .mechanisms()
            .iter()
            .filter(move |mechanism| mechanism.offers(usage))
            .map(|mechanism| (*algorithm, *mechanism))
    })
}

#[test]
fn what_one_provider_signs_the_other_verifies() {
    for (signer, verifier) in BOTH_WAYS {
        for (algorithm, mechanism) in with_usage(Usage::Sign) {
            let key = key(signer, algorithm);
            let NewKey { material, public_key } = &*key;
            let opened = signer.private_key(algorithm, material).unwrap();
            let context: &[u8] = match mechanism {
                Mechanism::MlDsa | Mechanism::SlhDsa => b"context",
                _ => b"",
            };
            let cases = cases(signer, algorithm);
            for case in 0..cases {
                let text = message();
                let context = if case % 2 == 0 { b"" } else { context };
                let digest = mechanism.hash().map(|hash| signer.digest(hash, &text));
                let input = match (&digest, case % 4) {
                    (Some(digest), 2..) => SignInput::Digest(digest),
                    _ => SignInput::Message(&text),
                };
                let signature = opened.sign(mechanism, input, context).unwrap();
                let verify = |text: &[u8], signature: &[u8]| {
                    let input = SignInput::Message(text);
                    let key = public_key;
                    verifier.verify(algorithm, mechanism, key, input, context, signature)
                };
                assert_eq!(verify(&text, &signature), Ok(true), "{algorithm} {mechanism}");
                let other = [&text[..], b"."].concat();
                assert_eq!(verify(&other, &signature), Ok(false), "{algorithm} {mechanism}");
                let mut edited = signature.clone();
                let at = usize::from(random::array::<1>().unwrap()[0]) % edited.len();
                edited[at] ^= 0x10;
                assert_eq!(verify(&text, &edited), Ok(false), "{algorithm} {mechanism}");
            }
            println!("{algorithm} {mechanism} by {}: {cases} cases agree", signer.name());
        }
    }
}

#[test]
fn what_one_provider_encrypts_the_other_decrypts() {
    for (encrypter, decrypter) in BOTH_WAYS {
        for (algorithm, mechanism) in with_usage(Usage::Encrypt) {
            let key = key(decrypter, algorithm);
            let NewKey { material, public_key } = &*key;
            let opened = decrypter.private_key(algorithm, material).unwrap();
            for _ in 0..cases(decrypter, algorithm) {
                let mut text = message();
                match mechanism {
                    Mechanism::RsaRaw => {
                        text.resize(algorithm.bits() as usize / 8, 7);
                        text[0] = 0;
                    }
                    _ => text.truncate(100),
                }
                let label: &[u8] = if mechanism.hash().is_some() { b"label" } else { b"" };
                let with = |aad| CipherParameters { iv: b"", aad };
                let ciphertext = encrypter
                    .public_encrypt(algorithm, mechanism, public_key, with(label), &text)
                    .unwrap();
                let found = opened.decrypt(mechanism, with(label), &ciphertext).unwrap();
                assert!(vectors::is(decrypter, &found, &text), "{algorithm} {mechanism}");
                if mechanism.hash().is_some() {
                    let refused = opened.decrypt(mechanism, with(b"other"), &ciphertext).err();
                    assert_eq!(refused, Some(CryptoError::CiphertextRefused));
                }
            }
        }
    }
}

#[test]
fn both_providers_agree_to_the_same_secret() {
    for (one, other) in BOTH_WAYS {
        for (algorithm, _) in with_usage(Usage::Derive) {
            let own = key(one, algorithm);
            let opened = one.private_key(algorithm, &own.material).unwrap();
            for _ in 0..50 {
                let peer = key(other, algorithm);
                let here = opened.agree(&peer.public_key).unwrap();
                let there = other.private_key(algorithm, &peer.material).unwrap();
                let there = there.agree(&own.public_key).unwrap();
                let tag = |key: &Material| one.mac(Mechanism::HmacSha256, key, b"compare").unwrap();
                assert_eq!((here.len(), tag(&here)), (there.len(), tag(&there)), "{algorithm}");
            }
        }
    }
}

#[test]
fn what_one_provider_encapsulates_the_other_decapsulates() {
    for (sender, holder) in BOTH_WAYS {
        for (algorithm, _) in with_usage(Usage::Encapsulate) {
            let key = key(holder, algorithm);
            let NewKey { material, public_key } = &*key;
            let opened = [holder, sender].map(|p| p.private_key(algorithm, material).unwrap());
            for _ in 0..200 {
                let (mut ciphertext, sent) = sender.encapsulate(algorithm, public_key).unwrap();
                let tag =
                    |key: &Material| sender.mac(Mechanism::HmacSha256, key, b"compare").unwrap();
                let found = opened[0].decapsulate(&ciphertext).unwrap();
                assert_eq!(tag(&found), tag(&sent), "{algorithm}");
                // A changed ciphertext gives both the same other secret (FIPS 203 §6.3).
                ciphertext[0] ^= 1;
                let changed =
                    opened.each_ref().map(|key| tag(&key.decapsulate(&ciphertext).unwrap()));
                assert_ne!(changed[0], tag(&sent));
                assert_eq!(changed[0], changed[1]);
            }
            for length in [0, 1, 2000] {
                let refused = opened[0].decapsulate(&vec![0; length]).err();
                assert_eq!(refused, Some(CryptoError::CiphertextRefused));
            }
        }
    }
}

#[test]
fn what_a_key_is_not_for_is_refused() {
    for (provider, _) in BOTH_WAYS {
        for algorithm in Algorithm::ALL.iter().copied().filter(|a| a.is_asymmetric()) {
            let key = key(provider, algorithm);
            let NewKey { material, public_key } = &*key;
            let opened = provider.private_key(algorithm, material).unwrap();
            let input = SignInput::Message(b"message");
            for mechanism in Mechanism::ALL.iter().copied() {
                let is_ours = algorithm.mechanisms().contains(&mechanism);
                if !(is_ours && mechanism.offers(Usage::Sign)) {
                    assert!(opened.sign(mechanism, input, b"").is_err(), "{algorithm} {mechanism}");
                }
                if !(is_ours && mechanism.offers(Usage::Verify)) {
                    let key = public_key;
                    let found = provider.verify(algorithm, mechanism, key, input, b"", &[0; 64]);
                    assert!(found.is_err(), "{algorithm} {mechanism}");
                }
                if !(is_ours && mechanism.offers(Usage::Decrypt)) {
                    let none = CipherParameters::default();
                    let found = opened.decrypt(mechanism, none, &[0; 256]);
                    assert!(found.is_err(), "{algorithm} {mechanism}");
                    let found =
                        provider.public_encrypt(algorithm, mechanism, public_key, none, b"m");
                    assert!(found.is_err(), "{algorithm} {mechanism}");
                }
            }
            if !algorithm.supports(Usage::Derive) {
                assert!(opened.agree(public_key).is_err(), "{algorithm}");
            }
            if !algorithm.supports(Usage::Encapsulate) {
                assert!(provider.encapsulate(algorithm, public_key).is_err(), "{algorithm}");
                assert!(opened.decapsulate(&[0; 1088]).is_err(), "{algorithm}");
            }
            // Nobody else's key is read as one of this algorithm.
            for other in Algorithm::ALL.iter().copied().filter(|other| *other != algorithm) {
                assert!(provider.private_key(other, material).is_err(), "{algorithm} {other}");
                assert!(provider.import(other, material).is_err() || !other.is_asymmetric());
                assert!(provider.check_public_key(other, public_key).is_err());
            }
            assert!(provider.check_public_key(algorithm, public_key).is_ok());
            assert_eq!(&provider.import(algorithm, material).unwrap().public_key, public_key);
        }
    }
}
