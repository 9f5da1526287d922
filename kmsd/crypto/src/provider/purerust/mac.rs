//! Codes, digests and derivations by the RustCrypto crates.

use aes::{Aes128, Aes192, Aes256};
use cmac::Cmac;
use hkdf::Hkdf;
use hmac::EagerHash;
use kms_core::mechanism::{Hash, Mechanism};
use sha2::{Sha256, Sha384, Sha512};

use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::mac::tag_bytes;
use crate::provider::{DeriveParameters, MacStream, rust_mac};

pub(super) fn stream(
    mechanism: Mechanism,
    key: &Material,
) -> Result<Box<dyn MacStream>, CryptoError> {
    let key = key.expose();
    match (mechanism, key.len()) {
        (Mechanism::AesCmac, 16) => rust_mac::begin::<Cmac<Aes128>>(key),
        (Mechanism::AesCmac, 24) => rust_mac::begin::<Cmac<Aes192>>(key),
        (Mechanism::AesCmac, 32) => rust_mac::begin::<Cmac<Aes256>>(key),
        (Mechanism::AesCmac, _) => Err(CryptoError::MaterialRefused),
        _ => tag_bytes(mechanism)
            .and_then(|_| mechanism.hash())
            .ok_or(CryptoError::MechanismUnsupported { mechanism })
            .and_then(|hash| rust_mac::hmac(hash, key)),
    }
}

pub(super) use rust_mac::hash_stream;

pub(super) fn hash(hash: Hash, data: &[u8]) -> Vec<u8> {
    rust_mac::digest(hash, data)
}

pub(super) fn derive(
    mechanism: Mechanism,
    key: &Material,
    parameters: DeriveParameters<'_>,
    length_bytes: usize,
) -> Result<Material, CryptoError> {
    if length_bytes == 0 {
        return Err(TOO_MUCH);
    }
    match mechanism {
        Mechanism::HkdfSha256 => expand::<Sha256>(key, parameters, length_bytes),
        Mechanism::HkdfSha384 => expand::<Sha384>(key, parameters, length_bytes),
        Mechanism::HkdfSha512 => expand::<Sha512>(key, parameters, length_bytes),
        Mechanism::KdfCounterHmacSha256 => count(Hash::Sha256, key, parameters, length_bytes),
        Mechanism::KdfCounterHmacSha384 => count(Hash::Sha384, key, parameters, length_bytes),
        Mechanism::KdfCounterHmacSha512 => count(Hash::Sha512, key, parameters, length_bytes),
        _ => Err(CryptoError::MechanismUnsupported { mechanism }),
    }
}

/// HKDF (RFC 5869).
fn expand<H: EagerHash>(
    key: &Material,
    parameters: DeriveParameters<'_>,
    length_bytes: usize,
) -> Result<Material, CryptoError> {
    let hkdf = Hkdf::<H>::new(Some(parameters.salt), key.expose());
    Material::made_in_place(length_bytes, |bytes| {
        hkdf.expand(parameters.info, bytes).map_err(|_| TOO_MUCH)?;
        Ok(length_bytes)
    })
}

/// Counter mode (SP 800-108r1 §4.1):
///
/// ```text
/// K(i) = HMAC(key, i as 4 big-endian bytes || fixed input),  i = 1, 2, …
/// ```
fn count(
    hash: Hash,
    key: &Material,
    parameters: DeriveParameters<'_>,
    length_bytes: usize,
) -> Result<Material, CryptoError> {
    Material::made_in_place(length_bytes, |bytes| {
        for (counter, part) in (1..=u32::MAX).zip(bytes.chunks_mut(hash.digest_bytes())) {
            let mut mac = rust_mac::hmac(hash, key.expose())?;
            mac.update(&counter.to_be_bytes());
            mac.update(parameters.info);
            let made = zeroize::Zeroizing::new(mac.finish()?);
            part.copy_from_slice(&made[..part.len()]);
        }
        Ok(length_bytes)
    })
}

const TOO_MUCH: CryptoError = CryptoError::InputRefused {
    problem: "a derivation gives at least one byte, and HKDF at most 255 times the hash's length",
};
