//! Known answers of the mechanisms with key pairs.

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;

use super::{Known, KnownAnswer};
use crate::CryptoError;
use crate::provider::{Provider, SignInput};

pub(super) fn known_answer(mechanism: Mechanism) -> Option<KnownAnswer> {
    match mechanism {
        Mechanism::EcdsaSha256 => Some(ecdsa_p256),
        Mechanism::RsaPkcs1Sha256 | Mechanism::RsaPssSha256 => Some(rsa_signature),
        _ => None,
    }
}

/// Accepts the signature of RFC 6979 §A.2.5, refuses it over another message, and accepts what it
/// signed itself with the key of that section.
fn ecdsa_p256(
    provider: &dyn Provider,
    mechanism: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    let algorithm = Algorithm::EcP256;
    let (key, public_key) = (known.key(P256_PKCS8)?, known.bytes(P256_SPKI));
    let signature = known.answer(P256_SIGNATURE);
    let own = provider.private_key(algorithm, &key)?.sign(
        mechanism,
        SignInput::Message(b"sample"),
        b"",
    )?;
    let verify = |message, signature: &[u8]| {
        let input = SignInput::Message(message);
        provider.verify(algorithm, mechanism, &public_key, input, b"", signature)
    };
    Ok(verify(b"sample", &signature)? && !verify(b"test", &signature)? && verify(b"sample", &own)?)
}

/// Accepts the signature that OpenSSL made (`known_answer/README.md`), refuses it over another
/// message, and accepts what it signed itself; PKCS#1 v1.5 signatures must come out the same.
fn rsa_signature(
    provider: &dyn Provider,
    mechanism: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    let algorithm = Algorithm::Rsa3072;
    let (key, public_key) = (known.key(RSA_PKCS8)?, known.bytes(RSA_SPKI));
    let own = provider.private_key(algorithm, &key)?.sign(
        mechanism,
        SignInput::Message(b"sample"),
        b"",
    )?;
    let deterministic = mechanism == Mechanism::RsaPkcs1Sha256;
    let signature = known.answer(if deterministic { PKCS1_SIGNATURE } else { PSS_SIGNATURE });
    let verify = |message, signature: &[u8]| {
        let input = SignInput::Message(message);
        provider.verify(algorithm, mechanism, &public_key, input, b"", signature)
    };
    Ok(verify(b"sample", &signature)?
        && !verify(b"test", &signature)?
        && verify(b"sample", &own)?
        && deterministic == (own == signature))
}

/// The private key of RFC 6979 §A.2.5 in PKCS#8.
const P256_PKCS8: &str = "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420
    c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721a14403420004
    60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6
    7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
const P256_SPKI: &str = "3059301306072a8648ce3d020106082a8648ce3d03010703420004
    60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6
    7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
const P256_SIGNATURE: &str =
    "3046022100efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716
    022100f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";

const RSA_PKCS8: &str = include_str!("../known_answer/rsa3072.pkcs8.hex");
const RSA_SPKI: &str = include_str!("../known_answer/rsa3072.spki.hex");
const PKCS1_SIGNATURE: &str = include_str!("../known_answer/rsa3072_pkcs1.signature.hex");
const PSS_SIGNATURE: &str = include_str!("../known_answer/rsa3072_pss.signature.hex");
