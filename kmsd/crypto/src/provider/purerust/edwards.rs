//! Ed25519 and X25519, by the dalek crates.

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use x25519_dalek::StaticSecret;

use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::{eddsa, key_form};
use crate::provider::{Claim, NewKey, PrivateKey, SignInput, check_no_context, message_only};

pub(super) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    eddsa::new_key(algorithm, Material::random(eddsa::SEED_BYTES)?.expose())
}

pub(super) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    key_form::import(algorithm, material)
}

pub(super) fn check_public_key(algorithm: Algorithm, public_key: &[u8]) -> Result<(), CryptoError> {
    key_form::check_public_key(algorithm, public_key)
}

pub(super) fn private_key(
    algorithm: Algorithm,
    key: &Material,
) -> Result<Box<dyn PrivateKey>, CryptoError> {
    let seed = key_form::secret_array::<{ eddsa::SEED_BYTES }>(eddsa::seed(algorithm, key)?)?;
    match algorithm {
        Algorithm::Ed25519 => Ok(Box::new(Opened(SigningKey::from_bytes(&seed)))),
        Algorithm::X25519 => Ok(Box::new(Agreement(StaticSecret::from(*seed)))),
        _ => Err(CryptoError::ProviderFailed { algorithm }),
    }
}

pub(super) fn verify(algorithm: Algorithm, claim: Claim<'_>) -> Result<bool, CryptoError> {
    let Claim { mechanism, public_key, input, context, signature } = claim;
    check_no_context(context)?;
    if (algorithm, mechanism) != (Algorithm::Ed25519, Mechanism::EdDsa) {
        return Err(CryptoError::MechanismRefused { algorithm, mechanism });
    }
    check_public_key(algorithm, public_key)?;
    let message = message_only(input)?;
    let key = key_form::raw_public_key(algorithm, public_key)?
        .try_into()
        .ok()
        .and_then(|raw| VerifyingKey::from_bytes(raw).ok())
        .ok_or(CryptoError::PublicKeyInvalid { algorithm })?;
    let signature = Signature::from_slice(signature);
    Ok(signature.is_ok_and(|signature| key.verify(message, &signature).is_ok()))
}

struct Opened(SigningKey);

impl PrivateKey for Opened {
    fn algorithm(&self) -> Algorithm {
        Algorithm::Ed25519
    }

    fn sign(
        &self,
        mechanism: Mechanism,
        input: SignInput<'_>,
        context: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let algorithm = self.algorithm();
        check_no_context(context)?;
        if mechanism != Mechanism::EdDsa {
            return Err(CryptoError::MechanismRefused { algorithm, mechanism });
        }
        let signature = self
            .0
            .try_sign(message_only(input)?)
            .map_err(|_| CryptoError::ProviderFailed { algorithm })?;
        Ok(signature.to_bytes().to_vec())
    }
}

struct Agreement(StaticSecret);

impl PrivateKey for Agreement {
    fn algorithm(&self) -> Algorithm {
        Algorithm::X25519
    }

    fn agree(&self, peer: &[u8]) -> Result<Material, CryptoError> {
        let algorithm = self.algorithm();
        let raw: [u8; 32] = key_form::raw_public_key(algorithm, peer)?
            .try_into()
            .map_err(|_| CryptoError::PublicKeyInvalid { algorithm })?;
        eddsa::shared_secret(self.0.diffie_hellman(&raw.into()).as_bytes())
    }
}
