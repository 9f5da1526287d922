//! SLH-DSA, in Rust.

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;

use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::{key_form, slh_dsa};
use crate::provider::{Claim, NewKey, PrivateKey, SignInput, message_only};

pub(super) fn generate(_: Algorithm) -> Result<NewKey, CryptoError> {
    slh_dsa::generate()
}

pub(super) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    key_form::import(algorithm, material)
}

pub(super) fn check_public_key(algorithm: Algorithm, public_key: &[u8]) -> Result<(), CryptoError> {
    key_form::check_public_key(algorithm, public_key)
}

pub(super) fn private_key(
    _: Algorithm,
    key: &Material,
) -> Result<Box<dyn PrivateKey>, CryptoError> {
    Ok(Box::new(Opened(slh_dsa::Signer::open(key)?)))
}

pub(super) fn verify(algorithm: Algorithm, claim: Claim<'_>) -> Result<bool, CryptoError> {
    let Claim { mechanism, public_key, input, context, signature } = claim;
    check_mechanism(algorithm, mechanism)?;
    slh_dsa::verify(public_key, message_only(input)?, context, signature)
}

struct Opened(slh_dsa::Signer);

impl PrivateKey for Opened {
    fn algorithm(&self) -> Algorithm {
        Algorithm::SlhDsaSha2_128s
    }

    fn sign(
        &self,
        mechanism: Mechanism,
        input: SignInput<'_>,
        context: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_mechanism(self.algorithm(), mechanism)?;
        self.0.sign(message_only(input)?, context)
    }
}

fn check_mechanism(algorithm: Algorithm, mechanism: Mechanism) -> Result<(), CryptoError> {
    match mechanism {
        Mechanism::SlhDsa => Ok(()),
        _ => Err(CryptoError::MechanismRefused { algorithm, mechanism }),
    }
}
