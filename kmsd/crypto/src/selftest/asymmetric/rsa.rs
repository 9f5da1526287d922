//! Known answers of RSA, with one key of 3,072 bits (`known_answer/README.md`).

use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::Mechanism;

use super::Known;
use crate::CryptoError;
use crate::provider::{CipherParameters, Provider, SignInput};

/// Accepts the signature that OpenSSL made, refuses it over another message, and accepts what it signed
/// itself; PKCS#1 v1.5 signatures must come out the same. With SHA-1 nothing is signed.
pub(super) fn signature(
    provider: &dyn Provider,
    mechanism: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    let (key, public_key) = (known.key(PKCS8)?, known.bytes(SPKI));
    let Some(signature) = signature_of(mechanism).map(|text| known.answer(text)) else {
        return Ok(false);
    };
    let verify = |message, signature: &[u8]| {
        let input = SignInput::Message(message);
        provider.verify(ALGORITHM, mechanism, &public_key, input, b"", signature)
    };
    let input = SignInput::Message(b"sample");
    let own = provider.private_key(ALGORITHM, &key)?.sign(mechanism, input, b"");
    let own_is_good = match own {
        Ok(own) if is_deterministic(mechanism) => own == signature,
        Ok(own) => own != signature && verify(b"sample", &own)?,
        Err(refused) => {
            !mechanism.offers(Usage::Sign)
                && refused == CryptoError::UsageRefused { algorithm: ALGORITHM, usage: Usage::Sign }
        }
    };
    Ok(verify(b"sample", &signature)? && !verify(b"test", &signature)? && own_is_good)
}

/// Opens what OpenSSL encrypted and what it encrypted itself, and does not open the former after a bit
/// was changed.
pub(super) fn decryption(
    provider: &dyn Provider,
    mechanism: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    let (key, public_key) = (known.key(PKCS8)?, known.bytes(SPKI));
    let Some((ciphertext, label)) = ciphertext_of(mechanism) else { return Ok(false) };
    let plaintext = match mechanism {
        Mechanism::RsaRaw => known.answer(&RAW_PLAINTEXT.repeat(2)),
        _ => known.answer("73616d706c65"),
    };
    let parameters = CipherParameters { iv: b"", aad: label };
    let opened = provider.private_key(ALGORITHM, &key)?;
    let mut ciphertext = known.bytes(ciphertext);
    let own = provider.public_encrypt(ALGORITHM, mechanism, &public_key, parameters, &plaintext)?;
    let decrypt = |ciphertext: &[u8]| opened.decrypt(mechanism, parameters, ciphertext);
    let good = decrypt(&ciphertext)?.expose() == plaintext && decrypt(&own)?.expose() == plaintext;
    ciphertext[ALGORITHM.bits() as usize / 16] ^= 1;
    let edited = match decrypt(&ciphertext) {
        // OAEP says so, PKCS#1 v1.5 and raw RSA give something else.
        Err(refused) => mechanism.hash().is_some() && refused == CryptoError::CiphertextRefused,
        Ok(other) => mechanism.hash().is_none() && other.expose() != plaintext,
    };
    Ok(good && edited)
}

const fn is_deterministic(mechanism: Mechanism) -> bool {
    matches!(
        mechanism,
        Mechanism::RsaPkcs1Sha256 | Mechanism::RsaPkcs1Sha384 | Mechanism::RsaPkcs1Sha512
    )
}

const fn signature_of(mechanism: Mechanism) -> Option<&'static str> {
    match mechanism {
        Mechanism::RsaPkcs1Sha1 => Some(PKCS1_SHA1),
        Mechanism::RsaPkcs1Sha256 => Some(PKCS1_SHA256),
        Mechanism::RsaPkcs1Sha384 => Some(PKCS1_SHA384),
        Mechanism::RsaPkcs1Sha512 => Some(PKCS1_SHA512),
        Mechanism::RsaPssSha256 => Some(PSS_SHA256),
        Mechanism::RsaPssSha384 => Some(PSS_SHA384),
        Mechanism::RsaPssSha512 => Some(PSS_SHA512),
        _ => None,
    }
}

/// The ciphertext and the label.
const fn ciphertext_of(mechanism: Mechanism) -> Option<(&'static str, &'static [u8])> {
    match mechanism {
        Mechanism::RsaOaepSha256 => Some((OAEP_SHA256, b"label")),
        Mechanism::RsaOaepSha384 => Some((OAEP_SHA384, b"label")),
        Mechanism::RsaOaepSha512 => Some((OAEP_SHA512, b"label")),
        Mechanism::RsaPkcs1 => Some((PKCS1, b"")),
        Mechanism::RsaRaw => Some((RAW, b"")),
        _ => None,
    }
}

const ALGORITHM: Algorithm = Algorithm::Rsa3072;
const PKCS8: &str = include_str!("../../known_answer/rsa3072.pkcs8.hex");
const SPKI: &str = include_str!("../../known_answer/rsa3072.spki.hex");
const PKCS1_SHA1: &str = include_str!("../../known_answer/rsa3072_pkcs1_sha1.signature.hex");
const PKCS1_SHA256: &str = include_str!("../../known_answer/rsa3072_pkcs1.signature.hex");
const PKCS1_SHA384: &str = include_str!("../../known_answer/rsa3072_pkcs1_sha384.signature.hex");
const PKCS1_SHA512: &str = include_str!("../../known_answer/rsa3072_pkcs1_sha512.signature.hex");
const PSS_SHA256: &str = include_str!("../../known_answer/rsa3072_pss.signature.hex");
const PSS_SHA384: &str = include_str!("../../known_answer/rsa3072_pss_sha384.signature.hex");
const PSS_SHA512: &str = include_str!("../../known_answer/rsa3072_pss_sha512.signature.hex");
const OAEP_SHA256: &str = include_str!("../../known_answer/rsa3072_oaep_sha256.ciphertext.hex");
const OAEP_SHA384: &str = include_str!("../../known_answer/rsa3072_oaep_sha384.ciphertext.hex");
const OAEP_SHA512: &str = include_str!("../../known_answer/rsa3072_oaep_sha512.ciphertext.hex");
const PKCS1: &str = include_str!("../../known_answer/rsa3072_pkcs1.ciphertext.hex");
const RAW: &str = include_str!("../../known_answer/rsa3072_raw.ciphertext.hex");
/// Half of the number that was raised: the bytes from 1 to 192.
const RAW_PLAINTEXT: &str =
    "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324
    25262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748
    494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c
    6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f90
    9192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4
    b5b6b7b8b9babbbcbdbebfc0";
