//! ML-DSA (FIPS 204): checks of keys, signatures with a context.
//!
//! Key bytes are the seed form of RFC 9881, or its expanded form where nobody knows the seed. Signing is
//! hedged (§3.4). The signer here is the pure-Rust one; the default provider uses it for signatures
//! with a context, which its own library does not offer.

use aws_lc_rs::signature::{
    KeyPair, ML_DSA_44_SIGNING, ML_DSA_65_SIGNING, ML_DSA_87_SIGNING, PqdsaKeyPair,
};
use kms_core::algorithm::Algorithm;
use ml_dsa::{
    EncodedVerifyingKey, ExpandedSigningKey, ExpandedSigningKeyBytes, MlDsa44, MlDsa65, MlDsa87,
    MlDsaParams, Signature, SigningKey, VerifyingKey,
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::key_form::{
    self, SeedOrExpanded, inside_pkcs8, pkcs8_expanded, pkcs8_seed, raw_public_key, secret_array,
};
use crate::CryptoError;
use crate::material::Material;
use crate::provider::NewKey;
use crate::random::LatchedRng;

/// Takes in a PKCS#8 document. An expanded key must be one that key generation could have made: small
/// coefficients in range, t0 and the hash of the public key those that rho, s1 and s2 give. Where there
/// is a seed too, the two must be the same key.
pub(crate) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    match read(algorithm, material).ok_or(CryptoError::MaterialRefused)? {
        SeedOrExpanded::Seed(seed) => new_key(algorithm, seed),
        SeedOrExpanded::Expanded(expanded) => new_expanded_key(algorithm, expanded),
        SeedOrExpanded::Both { seed, expanded } => {
            let own = match algorithm {
                Algorithm::MlDsa44 => expand::<MlDsa44>(seed)?,
                Algorithm::MlDsa65 => expand::<MlDsa65>(seed)?,
                Algorithm::MlDsa87 => expand::<MlDsa87>(seed)?,
                _ => return Err(CryptoError::MaterialRefused),
            };
            if !bool::from(own.ct_eq(expanded)) {
                return Err(CryptoError::MaterialRefused);
            }
            new_key(algorithm, seed)
        }
    }
}

/// The form in which the key of a seed is kept.
pub(crate) fn new_key(algorithm: Algorithm, seed: &[u8]) -> Result<NewKey, CryptoError> {
    let public_key = match algorithm {
        Algorithm::MlDsa44 => public_key_of_seed::<MlDsa44>(seed)?,
        Algorithm::MlDsa65 => public_key_of_seed::<MlDsa65>(seed)?,
        Algorithm::MlDsa87 => public_key_of_seed::<MlDsa87>(seed)?,
        _ => return Err(CryptoError::MaterialRefused),
    };
    Ok(NewKey {
        material: pkcs8_seed(algorithm, seed)?,
        public_key: key_form::public_key_from_raw(algorithm, &public_key)?,
    })
}

/// What is kept of a key: its seed, or else its expanded form.
pub(crate) enum Kept<'a> {
    Expanded(&'a [u8]),
    Seed(&'a [u8]),
}

/// Reads a key in its one form.
pub(crate) fn kept(algorithm: Algorithm, key: &Material) -> Result<Kept<'_>, CryptoError> {
    match read(algorithm, key) {
        Some(SeedOrExpanded::Seed(seed)) => Ok(Kept::Seed(seed)),
        Some(SeedOrExpanded::Expanded(expanded)) => Ok(Kept::Expanded(expanded)),
        Some(SeedOrExpanded::Both { .. }) | None => Err(CryptoError::ProviderFailed { algorithm }),
    }
}

/// A private key of the pure-Rust library.
pub(crate) enum Signer {
    MlDsa44(Box<ExpandedSigningKey<MlDsa44>>),
    MlDsa65(Box<ExpandedSigningKey<MlDsa65>>),
    MlDsa87(Box<ExpandedSigningKey<MlDsa87>>),
}

impl Signer {
    pub(crate) fn open(algorithm: Algorithm, key: &Material) -> Result<Self, CryptoError> {
        Self::new(algorithm, &kept(algorithm, key)?)
    }

    pub(crate) fn new(algorithm: Algorithm, kept: &Kept<'_>) -> Result<Self, CryptoError> {
        match algorithm {
            Algorithm::MlDsa44 => open::<MlDsa44>(kept).map(Box::new).map(Self::MlDsa44),
            Algorithm::MlDsa65 => open::<MlDsa65>(kept).map(Box::new).map(Self::MlDsa65),
            Algorithm::MlDsa87 => open::<MlDsa87>(kept).map(Box::new).map(Self::MlDsa87),
            _ => Err(CryptoError::ProviderFailed { algorithm }),
        }
    }

    pub(crate) fn sign(&self, message: &[u8], context: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match self {
            Self::MlDsa44(key) => sign(Algorithm::MlDsa44, key, message, context),
            Self::MlDsa65(key) => sign(Algorithm::MlDsa65, key, message, context),
            Self::MlDsa87(key) => sign(Algorithm::MlDsa87, key, message, context),
        }
    }
}

/// Verifies with the pure-Rust library.
pub(crate) fn verify(
    algorithm: Algorithm,
    public_key: &[u8],
    message: &[u8],
    context: &[u8],
    signature: &[u8],
) -> Result<bool, CryptoError> {
    check_context(context)?;
    let raw = raw_public_key(algorithm, public_key)?;
    let valid = match algorithm {
        Algorithm::MlDsa44 => verify_with::<MlDsa44>(raw, message, context, signature),
        Algorithm::MlDsa65 => verify_with::<MlDsa65>(raw, message, context, signature),
        Algorithm::MlDsa87 => verify_with::<MlDsa87>(raw, message, context, signature),
        _ => None,
    };
    valid.ok_or(CryptoError::PublicKeyInvalid { algorithm })
}

/// FIPS 204 §5.2: a context has at most 255 bytes.
pub(crate) fn check_context(context: &[u8]) -> Result<(), CryptoError> {
    if context.len() > CONTEXT_BYTES_MAX { Err(CONTEXT_TOO_LONG) } else { Ok(()) }
}

fn read(algorithm: Algorithm, material: &Material) -> Option<SeedOrExpanded<'_>> {
    let (inner, public_key) = inside_pkcs8(algorithm, material.expose())?;
    if public_key.is_some() {
        // RFC 9881 §6 has no use for it, and nothing here would compare it.
        return None;
    }
    SeedOrExpanded::read(inner, SEED_BYTES, expanded_bytes(algorithm))
}

/// AWS-LC computes t anew from rho, s1 and s2, and compares t0 and the hash of the public key with what is
/// there; the pure-Rust library compares nothing, and may panic on what is not a key. Version 4.2.0 of the
/// FIPS module compares nothing either, so that build takes no key without its seed.
fn new_expanded_key(algorithm: Algorithm, expanded: &[u8]) -> Result<NewKey, CryptoError> {
    if cfg!(feature = "fips") {
        return Err(CryptoError::MaterialRefused);
    }
    let scheme = match algorithm {
        Algorithm::MlDsa44 => &ML_DSA_44_SIGNING,
        Algorithm::MlDsa65 => &ML_DSA_65_SIGNING,
        Algorithm::MlDsa87 => &ML_DSA_87_SIGNING,
        _ => return Err(CryptoError::MaterialRefused),
    };
    let pair = PqdsaKeyPair::from_raw_private_key(scheme, expanded)
        .map_err(|_| CryptoError::MaterialRefused)?;
    Ok(NewKey {
        material: pkcs8_expanded(algorithm, expanded)?,
        public_key: key_form::public_key_from_raw(algorithm, pair.public_key().as_ref())?,
    })
}

fn public_key_of_seed<P: MlDsaParams>(seed: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let seed = secret_array::<SEED_BYTES>(seed)?;
    let key = SigningKey::<P>::from_seed(&(*seed).into());
    Ok(key.expanded_key().verifying_key().encode().to_vec())
}

#[expect(
    deprecated,
    reason = "keys without a seed exist, and must be read in the only form they have"
)]
fn expanded_key<P: MlDsaParams>(expanded: &[u8]) -> Option<ExpandedSigningKey<P>> {
    let bytes = Zeroizing::new(ExpandedSigningKeyBytes::<P>::try_from(expanded).ok()?);
    Some(ExpandedSigningKey::from_expanded(&bytes))
}

#[expect(deprecated, reason = "to compare with the expanded key that came along with the seed")]
fn expand<P: MlDsaParams>(seed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let seed = secret_array::<SEED_BYTES>(seed)?;
    let key = SigningKey::<P>::from_seed(&(*seed).into());
    Ok(Zeroizing::new(key.expanded_key().to_expanded().to_vec()))
}

fn open<P: MlDsaParams>(kept: &Kept<'_>) -> Result<ExpandedSigningKey<P>, CryptoError> {
    match kept {
        Kept::Expanded(expanded) => expanded_key(expanded).ok_or(CryptoError::MaterialRefused),
        Kept::Seed(seed) => {
            let seed = secret_array::<SEED_BYTES>(seed)?;
            Ok(ExpandedSigningKey::from_seed(&(*seed).into()))
        }
    }
}

fn sign<P: MlDsaParams>(
    algorithm: Algorithm,
    key: &ExpandedSigningKey<P>,
    message: &[u8],
    context: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    check_context(context)?;
    let mut rng = LatchedRng::default();
    let signature = key.sign_randomized(message, context, &mut rng);
    rng.check()?;
    let signature = signature.map_err(|_| CryptoError::ProviderFailed { algorithm })?;
    Ok(signature.encode().to_vec())
}

fn verify_with<P: MlDsaParams>(
    raw: &[u8],
    message: &[u8],
    context: &[u8],
    signature: &[u8],
) -> Option<bool> {
    let key = VerifyingKey::<P>::decode(&EncodedVerifyingKey::<P>::try_from(raw).ok()?);
    let signature = Signature::<P>::try_from(signature);
    Some(signature.is_ok_and(|signature| key.verify_with_context(message, context, &signature)))
}

/// FIPS 204, table 2.
const fn expanded_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::MlDsa44 => 2560,
        Algorithm::MlDsa65 => 4032,
        _ => 4896,
    }
}

const CONTEXT_TOO_LONG: CryptoError =
    CryptoError::InputRefused { problem: "a context has at most 255 bytes" };
/// Longest context.
pub const CONTEXT_BYTES_MAX: usize = 255;
/// Length of a seed.
pub const SEED_BYTES: usize = 32;
