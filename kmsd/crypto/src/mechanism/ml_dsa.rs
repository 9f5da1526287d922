//! ML-DSA (FIPS 204): checks of keys, signatures with a context.
//!
//! Key bytes are the seed form of RFC 9881, or its expanded form where nobody knows the seed. Signing is
//! hedged (§3.4). The signer here is the pure-Rust one; the default provider uses it for signatures
//! with a context, which its own library does not offer.

use kms_core::algorithm::Algorithm;
use ml_dsa::{
    EncodedVerifyingKey, ExpandedSigningKey, ExpandedSigningKeyBytes, MlDsa44, MlDsa65, MlDsa87,
    MlDsaParams, Signature, SigningKey, VerifyingKey,
};
use shake::{ExtendableOutput, Shake256, Update, XofReader};
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
/// coefficients in range, its hash of the public key that of the public key it gives, and signatures that
/// verify. (A changed bit of s2 or t0 can pass this; such a key signs rightly.) Where there is a seed
/// too, the two must be the same key.
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

fn new_expanded_key(algorithm: Algorithm, expanded: &[u8]) -> Result<NewKey, CryptoError> {
    let public_key = match algorithm {
        Algorithm::MlDsa44 => public_key_of_expanded::<MlDsa44>(expanded, 2, 4 + 4)?,
        Algorithm::MlDsa65 => public_key_of_expanded::<MlDsa65>(expanded, 4, 6 + 5)?,
        Algorithm::MlDsa87 => public_key_of_expanded::<MlDsa87>(expanded, 2, 8 + 7)?,
        _ => return Err(CryptoError::MaterialRefused),
    };
    Ok(NewKey {
        material: pkcs8_expanded(algorithm, expanded)?,
        public_key: key_form::public_key_from_raw(algorithm, &public_key)?,
    })
}

fn public_key_of_seed<P: MlDsaParams>(seed: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let seed = secret_array::<SEED_BYTES>(seed)?;
    let key = SigningKey::<P>::from_seed(&(*seed).into());
    Ok(key.expanded_key().verifying_key().encode().to_vec())
}

/// The public key of `rho || K || tr || s1 || s2 || t0` (FIPS 204, algorithm 24), where s1 and s2 are
/// `polynomials` polynomials of 256 coefficients from -eta to eta.
fn public_key_of_expanded<P: MlDsaParams>(
    expanded: &[u8],
    eta: u8,
    polynomials: usize,
) -> Result<Vec<u8>, CryptoError> {
    let bits = if eta == 2 { 3 } else { 4 };
    let small_bytes = polynomials * 256 * bits / 8;
    let small = expanded.get(HASHES_BYTES..HASHES_BYTES + small_bytes);
    if !small.is_some_and(|small| coefficients_in_range(small, bits, 2 * eta)) {
        return Err(CryptoError::MaterialRefused);
    }
    let key = expanded_key::<P>(expanded).ok_or(CryptoError::MaterialRefused)?;
    let public_key = key.verifying_key().encode().to_vec();
    let mut tr = [0; TR_BYTES];
    Shake256::default().chain(&public_key).finalize_xof().read(&mut tr);
    if expanded[HASHES_BYTES - TR_BYTES..HASHES_BYTES] != tr {
        return Err(CryptoError::MaterialRefused);
    }
    // t0 is the one part that the public key does not follow from; a wrong one signs wrongly.
    let signature = sign_with(&key, b"consistency", &[])?;
    match verify_with::<P>(&public_key, b"consistency", &[], &signature) {
        Some(true) => Ok(public_key),
        _ => Err(CryptoError::MaterialRefused),
    }
}

/// Whether all numbers of `bits` bits, packed from the low end, are at most `max`. Constant time.
fn coefficients_in_range(packed: &[u8], bits: usize, max: u8) -> bool {
    let mut beyond = 0_u8;
    for group in packed.chunks(bits) {
        let word = group.iter().rev().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte));
        for index in 0..8 * group.len() / bits {
            let number = (word >> (index * bits)) as u8 & ((1 << bits) - 1);
            beyond |= max.wrapping_sub(number) & 0x80;
        }
    }
    beyond == 0
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
    sign_with(key, message, context).map_err(|error| match error {
        CryptoError::RandomFailed => error,
        _ => CryptoError::ProviderFailed { algorithm },
    })
}

fn sign_with<P: MlDsaParams>(
    key: &ExpandedSigningKey<P>,
    message: &[u8],
    context: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let mut rng = LatchedRng::default();
    let signature = key.sign_randomized(message, context, &mut rng);
    rng.check()?;
    Ok(signature.map_err(|_| CryptoError::MaterialRefused)?.encode().to_vec())
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
/// `rho || K || tr`.
const HASHES_BYTES: usize = 32 + 32 + TR_BYTES;
const TR_BYTES: usize = 64;
