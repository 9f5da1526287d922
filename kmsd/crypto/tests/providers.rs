//! One conformance suite for every provider, and each checks the other's work.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may stop it")]

use kms_core::algorithm::Algorithm;
use kms_crypto::CryptoError;
use kms_crypto::material::Material;
use kms_crypto::mechanism::aes_gcm::Sealed;
use kms_crypto::mechanism::{ecdsa, rsa};
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::provider::purerust::PureRust;
use kms_crypto::provider::{NewKey, Provider, SignInput};
use kms_crypto::selftest;
use sha2::{Digest, Sha256};

/// Every provider makes the key once and does the work once, the other one checks it.
fn pairs() -> [(&'static dyn Provider, &'static dyn Provider); 2] {
    [(&AwsLc, &PureRust), (&PureRust, &AwsLc)]
}

const SIGNERS: [Algorithm; 3] = [
    Algorithm::EcSignP256Sha256,
    Algorithm::RsaSignPkcs1_3072Sha256,
    Algorithm::RsaSignPss3072Sha256,
];

#[test]
fn every_provider_passes_the_self_test() {
    for (provider, _) in pairs() {
        assert_eq!(selftest::run(provider), Ok(()), "{}", provider.name());
    }
}

#[test]
fn what_one_provider_signs_the_other_verifies() {
    let digest: [u8; 32] = Sha256::digest(b"message").into();
    for (maker, checker) in pairs() {
        for algorithm in SIGNERS {
            let NewKey { material, public_key } = maker.generate(algorithm).unwrap();
            // Both read the same PKCS#8, so each also signs with the other's key.
            for signer in [maker, checker] {
                for input in [SignInput::Message(b"message"), SignInput::Digest(&digest)] {
                    let signature = signer.sign(algorithm, &material, input).unwrap();
                    for verifier in [maker, checker] {
                        let verify =
                            |input| verifier.verify(algorithm, &public_key, input, &signature);
                        assert_eq!(verify(SignInput::Message(b"message")), Ok(true), "{algorithm}");
                        assert_eq!(verify(SignInput::Digest(&digest)), Ok(true), "{algorithm}");
                        assert_eq!(verify(SignInput::Message(b"other")), Ok(false), "{algorithm}");
                    }
                }
            }
        }
    }
}

#[test]
fn public_keys_are_of_the_form_that_the_mechanism_checks() {
    for (provider, _) in pairs() {
        let ecdsa = provider.generate(Algorithm::EcSignP256Sha256).unwrap();
        assert_eq!(ecdsa::check_public_key(&ecdsa.public_key), Ok(()));
        let algorithm = Algorithm::RsaSignPss3072Sha256;
        let rsa = provider.generate(algorithm).unwrap();
        assert_eq!(rsa::check_public_key(algorithm, &rsa.public_key), Ok(()));
        for secret in [Algorithm::Aes256Gcm, Algorithm::HmacSha256] {
            let key = provider.generate(secret).unwrap();
            assert_eq!((key.material.len(), key.public_key.len()), (32, 0));
        }
    }
}

#[test]
fn what_one_provider_seals_the_other_opens() {
    for (sealer, opener) in pairs() {
        let key = sealer.generate(Algorithm::Aes256Gcm).unwrap().material;
        for length in [0, 1, 16, 1000] {
            let text = vec![7; length];
            let Sealed { iv, ciphertext } = sealer.seal(&key, b"aad", &text).unwrap();
            assert_eq!(opener.open(&key, &iv, b"aad", &ciphertext).unwrap(), text);
            let refused = opener.open(&key, &iv, b"", &ciphertext);
            assert_eq!(refused, Err(CryptoError::CiphertextRefused));
            let refused = opener.open(&key, &iv, b"aad", &ciphertext[..length]);
            assert_eq!(refused, Err(CryptoError::CiphertextRefused));
        }
    }
}

#[test]
fn tags_agree() {
    for (maker, checker) in pairs() {
        let key = maker.generate(Algorithm::HmacSha256).unwrap().material;
        let tag = maker.mac(&key, b"message").unwrap();
        assert_eq!(checker.mac(&key, b"message"), Ok(tag));
        assert_eq!(checker.mac_verify(&key, b"message", &tag), Ok(true));
        assert_eq!(checker.mac_verify(&key, b"message", &tag[..31]), Ok(false));
        assert_eq!(checker.mac_verify(&key, b"other", &tag), Ok(false));
    }
}

#[test]
fn material_of_another_kind_is_refused_and_never_a_panic() {
    for (provider, _) in pairs() {
        let input = SignInput::Message(b"m");
        for algorithm in SIGNERS {
            let failed = Some(CryptoError::ProviderFailed { algorithm });
            for length in [1, 32, 138, 1800, 4096] {
                let noise = Material::random(length).unwrap();
                assert_eq!(provider.sign(algorithm, &noise, input).err(), failed, "{length}");
            }
            let invalid = Some(CryptoError::PublicKeyInvalid { algorithm });
            for bad in [&[][..], &[0x30], &[0x30, 0x80, 0, 0], &[0xff; 500]] {
                assert_eq!(provider.verify(algorithm, bad, input, &[0; 384]).err(), invalid);
            }
        }
        let p256 = provider.generate(Algorithm::EcSignP256Sha256).unwrap();
        for algorithm in [Algorithm::RsaSignPkcs1_3072Sha256, Algorithm::RsaSignPss3072Sha256] {
            assert!(provider.sign(algorithm, &p256.material, input).is_err());
            assert!(provider.verify(algorithm, &p256.public_key, input, &[0; 384]).is_err());
        }
        for algorithm in [Algorithm::Aes256Gcm, Algorithm::HmacSha256] {
            let key = provider.generate(algorithm).unwrap().material;
            assert!(provider.sign(algorithm, &key, input).is_err());
            assert!(provider.verify(algorithm, &[], input, &[]).is_err());
        }
        let short = Material::random(16).unwrap();
        assert!(provider.seal(&short, b"", b"").is_err());
        assert!(provider.open(&short, &[0; 12], b"", &[0; 32]).is_err());
    }
}
