//! Ed25519 and X25519, by AWS-LC.

use kms_core::algorithm::Algorithm;

use crate::CryptoError;
use crate::material::Material;
use crate::provider::{Claim, NewKey, PrivateKey};

pub(super) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    Err(CryptoError::ProviderFailed { algorithm })
}

pub(super) fn import(algorithm: Algorithm, _: &Material) -> Result<NewKey, CryptoError> {
    Err(CryptoError::ProviderFailed { algorithm })
}

pub(super) fn check_public_key(algorithm: Algorithm, _: &[u8]) -> Result<(), CryptoError> {
    Err(CryptoError::ProviderFailed { algorithm })
}

pub(super) fn private_key(
    algorithm: Algorithm,
    _: &Material,
) -> Result<Box<dyn PrivateKey>, CryptoError> {
    Err(CryptoError::ProviderFailed { algorithm })
}

pub(super) fn verify(algorithm: Algorithm, _: Claim<'_>) -> Result<bool, CryptoError> {
    Err(CryptoError::ProviderFailed { algorithm })
}
