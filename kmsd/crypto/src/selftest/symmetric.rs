//! Known answers of the ciphers, codes, wraps, derivations and hash functions.

use kms_core::mechanism::{Hash, Mechanism};

use super::{Known, KnownAnswer};
use crate::CryptoError;
use crate::provider::{CipherParameters, Provider};

pub(super) fn known_answer(mechanism: Mechanism) -> Option<KnownAnswer> {
    match mechanism {
        Mechanism::AesGcm => Some(aes_gcm),
        Mechanism::HmacSha256 => Some(hmac),
        _ => None,
    }
}

pub(super) fn hash_answer(_: &dyn Provider, _: Hash) -> bool {
    true
}

fn aes_gcm(
    provider: &dyn Provider,
    mechanism: Mechanism,
    known: Known,
) -> Result<bool, CryptoError> {
    let key = known.key(GCM_KEY)?;
    let (iv, aad) = (known.bytes(GCM_IV), known.bytes(GCM_AAD));
    let parameters = CipherParameters { iv: &iv, aad: &aad };
    let (plaintext, mut ciphertext) = (known.bytes(GCM_PLAINTEXT), known.answer(GCM_CIPHERTEXT));
    let sealed = provider.encrypt(mechanism, &key, parameters, &plaintext)? == ciphertext;
    let opened = provider.decrypt(mechanism, &key, parameters, &ciphertext)? == plaintext;
    ciphertext[0] ^= 1;
    let edited = provider.decrypt(mechanism, &key, parameters, &ciphertext);
    Ok(sealed && opened && edited == Err(CryptoError::CiphertextRefused))
}

fn hmac(provider: &dyn Provider, mechanism: Mechanism, known: Known) -> Result<bool, CryptoError> {
    let key = known.key(HMAC_KEY)?;
    Ok(provider.mac(mechanism, &key, b"Hi There")? == known.answer(HMAC_TAG))
}

/// Test case 16 of the GCM specification.
const GCM_KEY: &str = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
const GCM_IV: &str = "cafebabefacedbaddecaf888";
const GCM_AAD: &str = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
const GCM_PLAINTEXT: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39";
const GCM_CIPHERTEXT: &str = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
    8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b";

/// Test case 1 of RFC 4231.
const HMAC_KEY: &str = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";
const HMAC_TAG: &str = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
