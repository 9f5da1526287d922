//! Ed25519 and X25519, by AWS-LC.

use aws_lc_rs::agreement;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, ParsedPublicKey};
use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;

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
    let failed = CryptoError::ProviderFailed { algorithm };
    let seed = eddsa::seed(algorithm, key)?;
    match algorithm {
        Algorithm::Ed25519 => {
            let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| failed)?;
            Ok(Box::new(Signer(pair)))
        }
        Algorithm::X25519 => {
            let key = agreement::PrivateKey::from_private_key(&agreement::X25519, seed)
                .map_err(|_| failed)?;
            Ok(Box::new(Agreement(key)))
        }
        _ => Err(failed),
    }
}

pub(super) fn verify(algorithm: Algorithm, claim: Claim<'_>) -> Result<bool, CryptoError> {
    let Claim { mechanism, public_key, input, context, signature } = claim;
    check_no_context(context)?;
    if (algorithm, mechanism) != (Algorithm::Ed25519, Mechanism::EdDsa) {
        return Err(CryptoError::MechanismRefused { algorithm, mechanism });
    }
    check_public_key(algorithm, public_key)?;
    let key = ParsedPublicKey::new(&ED25519, key_form::raw_public_key(algorithm, public_key)?)
        .map_err(|_| CryptoError::PublicKeyInvalid { algorithm })?;
    Ok(key.verify_sig(message_only(input)?, signature).is_ok())
}

struct Signer(Ed25519KeyPair);

impl PrivateKey for Signer {
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
        Ok(signature.as_ref().to_vec())
    }
}

struct Agreement(agreement::PrivateKey);

impl PrivateKey for Agreement {
    fn algorithm(&self) -> Algorithm {
        Algorithm::X25519
    }

    fn agree(&self, peer: &[u8]) -> Result<Material, CryptoError> {
        let algorithm = self.algorithm();
        let raw = key_form::raw_public_key(algorithm, peer)?;
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, raw);
        // The library refuses a secret of all zeros (RFC 7748 §6.1).
        agreement::agree(
            &self.0,
            peer,
            CryptoError::PublicKeyInvalid { algorithm },
            eddsa::shared_secret,
        )
    }
}
