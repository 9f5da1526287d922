//! SLH-DSA-SHA2-128s (FIPS 205): checks of keys, signatures with a context. Key bytes are
//! the PKCS#8 of RFC 9909.
//!
//! Only one library of our generation has it, so both providers sign and verify here. Signing is hedged
//! (§10.2.1).

use kms_core::algorithm::Algorithm;
use slh_dsa::signature::Keypair;
use slh_dsa::{Sha2_128s, Signature, SigningKey, VerifyingKey};

use super::key_form::{self, inside_pkcs8, pkcs8, raw_public_key};
use super::ml_dsa::check_context;
use crate::CryptoError;
use crate::material::Material;
use crate::provider::NewKey;
use crate::random;

/// Makes a key.
pub(crate) fn generate() -> Result<NewKey, CryptoError> {
    let seeds = Material::random(3 * N)?;
    from_seeds(seeds.expose())
}

/// Takes in a PKCS#8 document; the root in it must be the one that the seeds give.
pub(crate) fn import(material: &Material) -> Result<NewKey, CryptoError> {
    let (inner, public_key) =
        inside_pkcs8(ALGORITHM, material.expose()).ok_or(CryptoError::MaterialRefused)?;
    if inner.len() != PRIVATE_KEY_BYTES
        || public_key.is_some_and(|public_key| public_key != &inner[2 * N..])
    {
        return Err(CryptoError::MaterialRefused);
    }
    let key = from_seeds(&inner[..3 * N])?;
    if raw_public_key(ALGORITHM, &key.public_key)? != &inner[2 * N..] {
        return Err(CryptoError::MaterialRefused);
    }
    Ok(key)
}

/// A private key. The library's own type prints its secrets, so it stays inside.
pub(crate) struct Signer(SigningKey<Sha2_128s>);

impl Signer {
    pub(crate) fn open(key: &Material) -> Result<Self, CryptoError> {
        inside_pkcs8(ALGORITHM, key.expose())
            .and_then(|(inner, _)| SigningKey::try_from(inner).ok())
            .map(Self)
            .ok_or(CryptoError::ProviderFailed { algorithm: ALGORITHM })
    }

    pub(crate) fn sign(&self, message: &[u8], context: &[u8]) -> Result<Vec<u8>, CryptoError> {
        check_context(context)?;
        let hedge = random::array::<N>()?;
        let signature = self
            .0
            .try_sign_with_context(message, context, Some(&hedge))
            .map_err(|_| CryptoError::ProviderFailed { algorithm: ALGORITHM })?;
        Ok(signature.to_vec())
    }
}

/// Verifies.
pub(crate) fn verify(
    public_key: &[u8],
    message: &[u8],
    context: &[u8],
    signature: &[u8],
) -> Result<bool, CryptoError> {
    check_context(context)?;
    let key = VerifyingKey::<Sha2_128s>::try_from(raw_public_key(ALGORITHM, public_key)?)
        .map_err(|_| CryptoError::PublicKeyInvalid { algorithm: ALGORITHM })?;
    let Ok(signature) = Signature::try_from(signature) else { return Ok(false) };
    Ok(key.try_verify_with_context(message, context, &signature).is_ok())
}

fn from_seeds(seeds: &[u8]) -> Result<NewKey, CryptoError> {
    let (secret, public_seed) = seeds.split_at(2 * N);
    let key = SigningKey::<Sha2_128s>::slh_keygen_internal(&secret[..N], &secret[N..], public_seed);
    let public_key = key.verifying_key().to_bytes();
    Ok(NewKey {
        material: pkcs8(ALGORITHM, &[secret, &public_key])?,
        public_key: key_form::public_key_from_raw(ALGORITHM, &public_key)?,
    })
}

const ALGORITHM: Algorithm = Algorithm::SlhDsaSha2_128s;
/// The security parameter, in bytes (FIPS 205, table 2).
const N: usize = 16;
/// `SK.seed || SK.prf || PK.seed || PK.root` (§9.1).
const PRIVATE_KEY_BYTES: usize = 4 * N;
/// Length of a signature.
pub const SIGNATURE_BYTES: usize = 7856;
