//! RSA, by the RustCrypto crate; private operations only through its blinded calls.

use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::Mechanism;

use super::mac::hash;
use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::key_form;
use crate::mechanism::rsa::{self, Blinded, usage_refused};
use crate::provider::{
    CipherParameters, Claim, NewKey, PrivateKey, SignInput, check_no_context, checked_digest,
};

pub(super) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    Blinded::generate(algorithm)
}

pub(super) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    key_form::import(algorithm, material)
}

pub(super) fn check_public_key(algorithm: Algorithm, public_key: &[u8]) -> Result<(), CryptoError> {
    rsa::check_public_key(algorithm, public_key)
}

pub(super) fn private_key(
    algorithm: Algorithm,
    key: &Material,
) -> Result<Box<dyn PrivateKey>, CryptoError> {
    Ok(Box::new(Opened { algorithm, key: Blinded::open(algorithm, key.expose())? }))
}

pub(super) fn verify(algorithm: Algorithm, claim: Claim<'_>) -> Result<bool, CryptoError> {
    let Claim { mechanism, public_key, input, context, signature } = claim;
    check_no_context(context)?;
    if !mechanism.offers(Usage::Verify) {
        return Err(usage_refused(algorithm, Usage::Verify));
    }
    let digest = checked_digest(mechanism, input, hash)?;
    rsa::verify(algorithm, mechanism, public_key, &digest, signature)
}

pub(super) fn public_encrypt(
    algorithm: Algorithm,
    mechanism: Mechanism,
    public_key: &[u8],
    parameters: CipherParameters<'_>,
    plaintext: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    if !mechanism.offers(Usage::Encrypt) {
        return Err(usage_refused(algorithm, Usage::Encrypt));
    }
    rsa::encrypt(algorithm, mechanism, public_key, parameters.aad, plaintext)
}

struct Opened {
    algorithm: Algorithm,
    key: Blinded,
}

impl PrivateKey for Opened {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn sign(
        &self,
        mechanism: Mechanism,
        input: SignInput<'_>,
        context: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_no_context(context)?;
        if !mechanism.offers(Usage::Sign) {
            return Err(usage_refused(self.algorithm, Usage::Sign));
        }
        self.key.sign(mechanism, &checked_digest(mechanism, input, hash)?)
    }

    fn decrypt(
        &self,
        mechanism: Mechanism,
        parameters: CipherParameters<'_>,
        ciphertext: &[u8],
    ) -> Result<Material, CryptoError> {
        if !mechanism.offers(Usage::Decrypt) {
            return Err(usage_refused(self.algorithm, Usage::Decrypt));
        }
        self.key.decrypt(mechanism, parameters.aad, ciphertext)
    }
}
