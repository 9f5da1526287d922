//! Codes, digests and derivations by AWS-LC; what it lacks (HMAC with SHA-3 and with SHA-512/t, two
//! digests) by the crates of [`crate::provider::rust_mac`].

use aws_lc_rs::hkdf::{self, KeyType, Salt};
use aws_lc_rs::kdf::{KbkdfCtrHmacAlgorithmId, get_kbkdf_ctr_hmac_algorithm, kbkdf_ctr_hmac};
use aws_lc_rs::{cmac, digest, hmac};
use kms_core::mechanism::{Hash, Mechanism};

use crate::CryptoError;
use crate::material::Material;
use crate::provider::{DeriveParameters, HashStream, MacStream, rust_mac};

pub(super) fn stream(
    mechanism: Mechanism,
    key: &Material,
) -> Result<Box<dyn MacStream>, CryptoError> {
    if mechanism == Mechanism::AesCmac {
        let context = cmac::Context::with_key(&cmac_key(key)?);
        return Ok(Box::new(CmacStream { context, failed: false }));
    }
    let hash = hmac_hash(mechanism)?;
    match hmac_algorithm(hash) {
        Some(algorithm) => {
            let key = hmac::Key::new(algorithm, key.expose());
            Ok(Box::new(HmacStream(hmac::Context::with_key(&key))))
        }
        None => rust_mac::hmac(hash, key.expose()),
    }
}

pub(super) fn hash(hash: Hash, data: &[u8]) -> Vec<u8> {
    match digest_algorithm(hash) {
        Some(algorithm) => digest::digest(algorithm, data).as_ref().to_vec(),
        None => rust_mac::digest(hash, data),
    }
}

pub(super) fn hash_stream(hash: Hash) -> Box<dyn HashStream> {
    match digest_algorithm(hash) {
        Some(algorithm) => Box::new(Hashing(digest::Context::new(algorithm))),
        None => rust_mac::hash_stream(hash),
    }
}

struct Hashing(digest::Context);

impl HashStream for Hashing {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self: Box<Self>) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

/// What the library has of its own.
const fn digest_algorithm(hash: Hash) -> Option<&'static digest::Algorithm> {
    Some(match hash {
        Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha224 => &digest::SHA224,
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
        Hash::Sha512_256 => &digest::SHA512_256,
        Hash::Sha3_256 => &digest::SHA3_256,
        Hash::Sha3_384 => &digest::SHA3_384,
        Hash::Sha3_512 => &digest::SHA3_512,
        Hash::Sha512_224 | Hash::Sha3_224 => return None,
    })
}

pub(super) fn derive(
    mechanism: Mechanism,
    key: &Material,
    parameters: DeriveParameters<'_>,
    length_bytes: usize,
) -> Result<Material, CryptoError> {
    use KbkdfCtrHmacAlgorithmId::{Sha256, Sha384, Sha512};
    if length_bytes == 0 {
        return Err(TOO_MUCH);
    }
    match mechanism {
        Mechanism::HkdfSha256 => expand(hkdf::HKDF_SHA256, key, parameters, length_bytes),
        Mechanism::HkdfSha384 => expand(hkdf::HKDF_SHA384, key, parameters, length_bytes),
        Mechanism::HkdfSha512 => expand(hkdf::HKDF_SHA512, key, parameters, length_bytes),
        Mechanism::KdfCounterHmacSha256 => count(Sha256, key, parameters, length_bytes),
        Mechanism::KdfCounterHmacSha384 => count(Sha384, key, parameters, length_bytes),
        Mechanism::KdfCounterHmacSha512 => count(Sha512, key, parameters, length_bytes),
        _ => Err(CryptoError::MechanismUnsupported { mechanism }),
    }
}

/// HKDF (RFC 5869).
fn expand(
    algorithm: hkdf::Algorithm,
    key: &Material,
    parameters: DeriveParameters<'_>,
    length_bytes: usize,
) -> Result<Material, CryptoError> {
    let secret = Salt::new(algorithm, parameters.salt).extract(key.expose());
    let info = [parameters.info];
    let derived = secret.expand(&info, Length(length_bytes)).map_err(|_| TOO_MUCH)?;
    Material::made_in_place(length_bytes, |bytes| {
        derived.fill(bytes).map_err(|_| TOO_MUCH)?;
        Ok(length_bytes)
    })
}

/// Counter mode (SP 800-108r1 §4.1), 32-bit counter before the fixed input.
fn count(
    algorithm: KbkdfCtrHmacAlgorithmId,
    key: &Material,
    parameters: DeriveParameters<'_>,
    length_bytes: usize,
) -> Result<Material, CryptoError> {
    let algorithm = get_kbkdf_ctr_hmac_algorithm(algorithm).ok_or(TOO_MUCH)?;
    Material::made_in_place(length_bytes, |bytes| {
        kbkdf_ctr_hmac(algorithm, key.expose(), parameters.info, bytes).map_err(|_| TOO_MUCH)?;
        Ok(length_bytes)
    })
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

struct HmacStream(hmac::Context);

impl MacStream for HmacStream {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, CryptoError> {
        Ok(self.0.sign().as_ref().to_vec())
    }
}

/// The library can fail at each step; that is noted, and told at the end.
struct CmacStream {
    context: cmac::Context,
    failed: bool,
}

impl MacStream for CmacStream {
    fn update(&mut self, bytes: &[u8]) {
        self.failed |= self.context.update(bytes).is_err();
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, CryptoError> {
        let unsupported = CryptoError::MechanismUnsupported { mechanism: Mechanism::AesCmac };
        let tag = self.context.sign().ok().filter(|_| !self.failed).ok_or(unsupported)?;
        Ok(tag.as_ref().to_vec())
    }
}

fn cmac_key(key: &Material) -> Result<cmac::Key, CryptoError> {
    let algorithm = match key.len() {
        16 => cmac::AES_128,
        24 => cmac::AES_192,
        32 => cmac::AES_256,
        _ => return Err(CryptoError::MaterialRefused),
    };
    cmac::Key::new(algorithm, key.expose()).map_err(|_| CryptoError::MaterialRefused)
}

fn hmac_algorithm(hash: Hash) -> Option<hmac::Algorithm> {
    match hash {
        Hash::Sha1 => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        Hash::Sha224 => Some(hmac::HMAC_SHA224),
        Hash::Sha256 => Some(hmac::HMAC_SHA256),
        Hash::Sha384 => Some(hmac::HMAC_SHA384),
        Hash::Sha512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn hmac_hash(mechanism: Mechanism) -> Result<Hash, CryptoError> {
    crate::mechanism::mac::tag_bytes(mechanism)
        .and_then(|_| mechanism.hash())
        .ok_or(CryptoError::MechanismUnsupported { mechanism })
}

const TOO_MUCH: CryptoError = CryptoError::InputRefused {
    problem: "a derivation gives at least one byte, and HKDF at most 255 times the hash's length",
};
