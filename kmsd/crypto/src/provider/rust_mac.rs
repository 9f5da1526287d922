//! HMAC and digests by the RustCrypto crates: all of those of the pure-Rust provider, and for the default
//! one those that its library lacks.

use hmac::{Hmac, KeyInit, Mac, SimpleHmac};
use kms_core::mechanism::Hash;
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512, Sha512_224, Sha512_256};
use sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512};

use super::{HashStream, MacStream};
use crate::CryptoError;

/// Begins an HMAC (FIPS 198-1).
pub(super) fn hmac(hash: Hash, key: &[u8]) -> Result<Box<dyn MacStream>, CryptoError> {
    match hash {
        Hash::Sha1 => begin::<Hmac<Sha1>>(key),
        Hash::Sha224 => begin::<Hmac<Sha224>>(key),
        Hash::Sha256 => begin::<Hmac<Sha256>>(key),
        Hash::Sha384 => begin::<Hmac<Sha384>>(key),
        Hash::Sha512 => begin::<Hmac<Sha512>>(key),
        Hash::Sha512_224 => begin::<Hmac<Sha512_224>>(key),
        Hash::Sha512_256 => begin::<Hmac<Sha512_256>>(key),
        Hash::Sha3_224 => begin::<SimpleHmac<Sha3_224>>(key),
        Hash::Sha3_256 => begin::<SimpleHmac<Sha3_256>>(key),
        Hash::Sha3_384 => begin::<SimpleHmac<Sha3_384>>(key),
        Hash::Sha3_512 => begin::<SimpleHmac<Sha3_512>>(key),
    }
}

/// Hashes.
pub(super) fn digest(hash: Hash, data: &[u8]) -> Vec<u8> {
    match hash {
        Hash::Sha1 => Sha1::digest(data).to_vec(),
        Hash::Sha224 => Sha224::digest(data).to_vec(),
        Hash::Sha256 => Sha256::digest(data).to_vec(),
        Hash::Sha384 => Sha384::digest(data).to_vec(),
        Hash::Sha512 => Sha512::digest(data).to_vec(),
        Hash::Sha512_224 => Sha512_224::digest(data).to_vec(),
        Hash::Sha512_256 => Sha512_256::digest(data).to_vec(),
        Hash::Sha3_224 => Sha3_224::digest(data).to_vec(),
        Hash::Sha3_256 => Sha3_256::digest(data).to_vec(),
        Hash::Sha3_384 => Sha3_384::digest(data).to_vec(),
        Hash::Sha3_512 => Sha3_512::digest(data).to_vec(),
    }
}

/// Begins a digest.
pub(super) fn hash_stream(hash: Hash) -> Box<dyn HashStream> {
    match hash {
        Hash::Sha1 => Box::new(Hashing(Sha1::new())),
        Hash::Sha224 => Box::new(Hashing(Sha224::new())),
        Hash::Sha256 => Box::new(Hashing(Sha256::new())),
        Hash::Sha384 => Box::new(Hashing(Sha384::new())),
        Hash::Sha512 => Box::new(Hashing(Sha512::new())),
        Hash::Sha512_224 => Box::new(Hashing(Sha512_224::new())),
        Hash::Sha512_256 => Box::new(Hashing(Sha512_256::new())),
        Hash::Sha3_224 => Box::new(Hashing(Sha3_224::new())),
        Hash::Sha3_256 => Box::new(Hashing(Sha3_256::new())),
        Hash::Sha3_384 => Box::new(Hashing(Sha3_384::new())),
        Hash::Sha3_512 => Box::new(Hashing(Sha3_512::new())),
    }
}

struct Hashing<H>(H);

impl<H: Digest + Send> HashStream for Hashing<H> {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

/// Begins any code of these crates.
pub(super) fn begin<M: Mac + KeyInit + Send + 'static>(
    key: &[u8],
) -> Result<Box<dyn MacStream>, CryptoError> {
    let mac = <M as KeyInit>::new_from_slice(key).map_err(|_| CryptoError::MaterialRefused)?;
    Ok(Box::new(Stream(mac)))
}

struct Stream<M>(M);

impl<M: Mac + Send> MacStream for Stream<M> {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, CryptoError> {
        Ok(self.0.finalize().into_bytes().to_vec())
    }
}
