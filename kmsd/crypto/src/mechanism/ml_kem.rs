//! ML-KEM (FIPS 203): forms and checks of keys. Key bytes are the seed form of RFC 9935, or its
//! expanded form where nobody knows the seed.
#![expect(
    deprecated,
    reason = "the library rightly dislikes expanded keys, but AWS-LC reads no others"
)]

use kms_core::algorithm::Algorithm;
use ml_kem::kem::Decapsulate;
use ml_kem::{DecapsulationKey, EncapsulationKey, ExpandedKeyEncoding, MlKem768, MlKem1024};
use sha3::{Digest, Sha3_256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::key_form::{
    self, SeedOrExpanded, inside_pkcs8, pkcs8_expanded, pkcs8_seed, raw_public_key, secret_array,
};
use crate::CryptoError;
use crate::material::Material;
use crate::provider::NewKey;

/// Checks a public key: length, and every coefficient below the modulus (FIPS 203 §7.2).
///
/// # Errors
/// [`CryptoError::PublicKeyInvalid`] when it is not one.
pub fn check_public_key(algorithm: Algorithm, spki: &[u8]) -> Result<(), CryptoError> {
    let raw = raw_public_key(algorithm, spki)?;
    if in_range(raw) { Ok(()) } else { Err(CryptoError::PublicKeyInvalid { algorithm }) }
}

/// Whether all coefficients of a raw encapsulation key are below 3,329. They are packed by twelve bits,
/// with 32 bytes of seed behind them.
pub(crate) fn in_range(raw: &[u8]) -> bool {
    let packed = &raw[..raw.len().saturating_sub(SHARED_SECRET_BYTES)];
    packed.chunks_exact(3).all(|three| {
        let [low, middle, high] = [three[0], three[1], three[2]].map(u16::from);
        (low | (middle & 0x0f) << 8) < MODULUS && (middle >> 4 | high << 4) < MODULUS
    })
}

/// Takes in a PKCS#8 document. An expanded key must pass the checks of FIPS 203 §7.3, and its two
/// halves must belong together; where there is a seed too, the two must be the same key.
pub(crate) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    match read(algorithm, material).ok_or(CryptoError::MaterialRefused)? {
        SeedOrExpanded::Seed(seed) => new_key(algorithm, seed),
        SeedOrExpanded::Expanded(key) => new_expanded_key(algorithm, key),
        SeedOrExpanded::Both { seed, expanded: claimed } => {
            if !bool::from(expanded(algorithm, seed)?.ct_eq(claimed)) {
                return Err(CryptoError::MaterialRefused);
            }
            new_key(algorithm, seed)
        }
    }
}

/// The form in which the key of a seed `d || z` is kept.
pub(crate) fn new_key(algorithm: Algorithm, seed: &[u8]) -> Result<NewKey, CryptoError> {
    let key = expanded(algorithm, seed)?;
    Ok(NewKey {
        material: pkcs8_seed(algorithm, seed)?,
        public_key: key_form::public_key_from_raw(algorithm, public_half(algorithm, &key))?,
    })
}

/// The expanded form of a key in its one form (FIPS 203, algorithm 16).
pub(crate) fn decapsulation_key(
    algorithm: Algorithm,
    key: &Material,
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    match read(algorithm, key) {
        Some(SeedOrExpanded::Seed(seed)) => expanded(algorithm, seed),
        Some(SeedOrExpanded::Expanded(key)) => Ok(Zeroizing::new(key.to_vec())),
        Some(SeedOrExpanded::Both { .. }) | None => Err(CryptoError::ProviderFailed { algorithm }),
    }
}

/// The expanded form of a seed.
pub(crate) fn expanded(
    algorithm: Algorithm,
    seed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let seed = secret_array::<SEED_BYTES>(seed)?;
    match algorithm {
        Algorithm::MlKem768 => {
            let key = DecapsulationKey::<MlKem768>::from_seed((*seed).into());
            Ok(Zeroizing::new(key.to_expanded_bytes().to_vec()))
        }
        Algorithm::MlKem1024 => {
            let key = DecapsulationKey::<MlKem1024>::from_seed((*seed).into());
            Ok(Zeroizing::new(key.to_expanded_bytes().to_vec()))
        }
        _ => Err(CryptoError::MaterialRefused),
    }
}

/// A decapsulation key of the pure-Rust library.
pub(crate) enum Decapsulator {
    MlKem768(Box<DecapsulationKey<MlKem768>>),
    MlKem1024(Box<DecapsulationKey<MlKem1024>>),
}

impl Decapsulator {
    /// Reads an expanded key. `None` for another length, or a public half out of range or not hashed.
    pub(crate) fn from_expanded(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::MlKem768 => {
                let key = Zeroizing::new(key.try_into().ok()?);
                let key = DecapsulationKey::from_expanded_bytes(&key).ok()?;
                Some(Self::MlKem768(Box::new(key)))
            }
            Algorithm::MlKem1024 => {
                let key = Zeroizing::new(key.try_into().ok()?);
                let key = DecapsulationKey::from_expanded_bytes(&key).ok()?;
                Some(Self::MlKem1024(Box::new(key)))
            }
            _ => None,
        }
    }

    /// The secret in a ciphertext. `None` for another length.
    pub(crate) fn decapsulate(&self, ciphertext: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let secret = match self {
            Self::MlKem768(key) => key.decapsulate(&ciphertext.try_into().ok()?),
            Self::MlKem1024(key) => key.decapsulate(&ciphertext.try_into().ok()?),
        };
        Some(Zeroizing::new(secret.into()))
    }
}

/// Encapsulates for a raw public key with the pure-Rust library and 32 random bytes. `None` for what is
/// not a public key.
pub(crate) fn encapsulate_with(
    algorithm: Algorithm,
    raw: &[u8],
    random: &[u8; 32],
) -> Option<(Vec<u8>, Zeroizing<[u8; 32]>)> {
    let random = Zeroizing::new((*random).into());
    let (ciphertext, secret) = match algorithm {
        Algorithm::MlKem768 => {
            let key = EncapsulationKey::<MlKem768>::new(&raw.try_into().ok()?).ok()?;
            let (ciphertext, secret) = key.encapsulate_deterministic(&random);
            (ciphertext.to_vec(), secret)
        }
        Algorithm::MlKem1024 => {
            let key = EncapsulationKey::<MlKem1024>::new(&raw.try_into().ok()?).ok()?;
            let (ciphertext, secret) = key.encapsulate_deterministic(&random);
            (ciphertext.to_vec(), secret)
        }
        _ => return None,
    };
    Some((ciphertext, Zeroizing::new(secret.into())))
}

/// Length of a ciphertext.
pub(crate) const fn ciphertext_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::MlKem768 => 1088,
        _ => 1568,
    }
}

fn read(algorithm: Algorithm, material: &Material) -> Option<SeedOrExpanded<'_>> {
    let (inner, public_key) = inside_pkcs8(algorithm, material.expose())?;
    if public_key.is_some() {
        // RFC 9935 §6 has no use for it, and nothing here would compare it.
        return None;
    }
    SeedOrExpanded::read(inner, SEED_BYTES, expanded_bytes(algorithm))
}

fn new_expanded_key(algorithm: Algorithm, key: &[u8]) -> Result<NewKey, CryptoError> {
    let raw = public_half(algorithm, key);
    let hash = &key[key.len() - 2 * SHARED_SECRET_BYTES..key.len() - SHARED_SECRET_BYTES];
    if !in_range(raw)
        || !in_range_secret(algorithm, key)
        || Sha3_256::digest(raw).as_slice() != hash
    {
        return Err(CryptoError::MaterialRefused);
    }
    let opened = Decapsulator::from_expanded(algorithm, key).ok_or(CryptoError::MaterialRefused)?;
    let (ciphertext, sent) = encapsulate_with(algorithm, raw, &[7; SHARED_SECRET_BYTES])
        .ok_or(CryptoError::MaterialRefused)?;
    let recovered = opened.decapsulate(&ciphertext).ok_or(CryptoError::MaterialRefused)?;
    if recovered != sent {
        return Err(CryptoError::MaterialRefused);
    }
    Ok(NewKey {
        material: pkcs8_expanded(algorithm, key)?,
        public_key: key_form::public_key_from_raw(algorithm, raw)?,
    })
}

/// Whether the secret polynomials are reduced: another encoding of the same key is refused.
fn in_range_secret(algorithm: Algorithm, key: &[u8]) -> bool {
    let secret_bytes = public_bytes(algorithm) - SHARED_SECRET_BYTES;
    // `in_range` leaves out the seed behind a public key, so 32 bytes of the next field are lent to it.
    in_range(&key[..secret_bytes + SHARED_SECRET_BYTES])
}

const fn public_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::MlKem768 => 1184,
        _ => 1568,
    }
}

fn public_half(algorithm: Algorithm, key: &[u8]) -> &[u8] {
    // dk_pke || ek || H(ek) || z, and dk_pke is as long as ek without its seed.
    let start = public_bytes(algorithm) - SHARED_SECRET_BYTES;
    key.get(start..start + public_bytes(algorithm)).unwrap_or_default()
}

const fn expanded_bytes(algorithm: Algorithm) -> usize {
    2 * public_bytes(algorithm) + SHARED_SECRET_BYTES
}

/// Length of a shared secret, and of every hash and seed inside a key.
pub const SHARED_SECRET_BYTES: usize = 32;
/// Length of a seed `d || z`.
pub const SEED_BYTES: usize = 64;
const MODULUS: u16 = 3329;
