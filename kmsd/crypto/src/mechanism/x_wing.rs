//! X-Wing (draft-connolly-cfrg-xwing-kem): X25519 and ML-KEM-768 in one. Key bytes are the 32-byte seed,
//! public keys the 1,216 raw bytes: no standard has given them an identifier yet.
//!
//! An X25519 part of small order is refused on both sides.

use kms_core::algorithm::Algorithm;
use shake::{ExtendableOutput, Shake256, Update, XofReader};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::key_form::{self, secret_array};
use super::ml_kem;
use crate::CryptoError;
use crate::material::Material;
use crate::provider::NewKey;

/// Checks a public key: the ML-KEM part as FIPS 203 §7.2 says, the X25519 part as RFC 7748 §6.1 says.
///
/// # Errors
/// [`CryptoError::PublicKeyInvalid`] when it is not one.
pub fn check_public_key(public_key: &[u8]) -> Result<(), CryptoError> {
    let algorithm = Algorithm::XWing;
    let (lattice, curve) =
        split_public_key(public_key).ok_or(CryptoError::PublicKeyInvalid { algorithm })?;
    let curve = key_form::public_key_from_raw(Algorithm::X25519, curve)?;
    let curve_valid = super::eddsa::check_public_key(Algorithm::X25519, &curve).is_ok();
    if ml_kem::in_range(lattice) && curve_valid {
        Ok(())
    } else {
        Err(CryptoError::PublicKeyInvalid { algorithm })
    }
}

/// Takes in a seed.
pub(crate) fn import(material: &Material) -> Result<NewKey, CryptoError> {
    let Expanded { lattice, curve } = expand(material)?;
    let lattice = ml_kem::new_key(Algorithm::MlKem768, &*lattice)?.public_key;
    let curve = PublicKey::from(&StaticSecret::from(*curve));
    let lattice = key_form::raw_public_key(Algorithm::MlKem768, &lattice)?;
    Ok(NewKey {
        material: Material::copied(material.expose())?,
        public_key: [lattice, curve.as_bytes()].concat(),
    })
}

/// The two keys that a seed stands for.
pub(crate) struct Expanded {
    /// Seed of the ML-KEM-768 key.
    pub(crate) lattice: Zeroizing<[u8; ml_kem::SEED_BYTES]>,
    /// The X25519 key.
    pub(crate) curve: Zeroizing<[u8; 32]>,
}

/// `SHAKE256(seed, 96)` (§5.2).
pub(crate) fn expand(seed: &Material) -> Result<Expanded, CryptoError> {
    let seed = secret_array::<SEED_BYTES>(seed.expose())?;
    let mut reader = Shake256::default().chain(*seed).finalize_xof();
    let mut expanded =
        Expanded { lattice: Zeroizing::new([0; 64]), curve: Zeroizing::new([0; 32]) };
    reader.read(&mut *expanded.lattice);
    reader.read(&mut *expanded.curve);
    Ok(expanded)
}

/// The ML-KEM part and the X25519 part.
pub(crate) fn split_public_key(public_key: &[u8]) -> Option<(&[u8], &[u8])> {
    (public_key.len() == PUBLIC_KEY_BYTES).then(|| public_key.split_at(PUBLIC_KEY_BYTES - 32))
}

/// The ML-KEM part and the X25519 part.
pub(crate) fn split_ciphertext(ciphertext: &[u8]) -> Option<(&[u8], &[u8])> {
    (ciphertext.len() == CIPHERTEXT_BYTES).then(|| ciphertext.split_at(CIPHERTEXT_BYTES - 32))
}

/// Length of a seed.
pub const SEED_BYTES: usize = 32;
/// Length of a public key.
pub const PUBLIC_KEY_BYTES: usize = 1184 + 32;
/// Length of a ciphertext.
pub const CIPHERTEXT_BYTES: usize = 1088 + 32;
/// What the combiner hashes last (§5.3).
pub(crate) const LABEL: &[u8; 6] = br"\.//^\";
