//! RSA, by the crate `rsa`; private operations only blinded.

use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::Mechanism;
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Sign, Pss, RsaPrivateKey, RsaPublicKey};
use sha2::{Digest, Sha256};

use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::rsa::SALT_BYTES;
use crate::provider::{CipherParameters, Claim, DIGEST_LENGTH, NewKey, PrivateKey, SignInput};
use crate::random::LatchedRng;

pub(super) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    let failed = CryptoError::ProviderFailed { algorithm };
    let mut rng = LatchedRng::default();
    let private =
        RsaPrivateKey::new(&mut rng, algorithm.bits() as usize).map_err(|_| failed.clone())?;
    rng.check()?;
    let document = private.to_pkcs8_der().map_err(|_| failed)?;
    let material = Material::copied(document.as_bytes())?;
    Ok(NewKey { material, public_key: public_key(algorithm, &private)? })
}

pub(super) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    let private = opened(algorithm, material).map_err(|_| CryptoError::MaterialRefused)?;
    Ok(NewKey {
        material: Material::copied(material.expose())?,
        public_key: public_key(algorithm, &private)?,
    })
}

pub(super) fn check_public_key(algorithm: Algorithm, public_key: &[u8]) -> Result<(), CryptoError> {
    crate::mechanism::rsa::check_public_key(algorithm, public_key)
}

pub(super) fn private_key(
    algorithm: Algorithm,
    key: &Material,
) -> Result<Box<dyn PrivateKey>, CryptoError> {
    Ok(Box::new(Opened { algorithm, key: opened(algorithm, key)? }))
}

pub(super) fn verify(algorithm: Algorithm, claim: Claim<'_>) -> Result<bool, CryptoError> {
    let Claim { mechanism, public_key, input, context: _, signature } = claim;
    check_public_key(algorithm, public_key)?;
    let digest = digest_of(input)?;
    let key = RsaPublicKey::from_public_key_der(public_key)
        .map_err(|_| CryptoError::PublicKeyInvalid { algorithm })?;
    let verdict = match mechanism {
        Mechanism::RsaPkcs1Sha256 => key.verify(Pkcs1v15Sign::new::<Sha256>(), &digest, signature),
        Mechanism::RsaPssSha256 => {
            key.verify(Pss::<Sha256>::new_with_salt(SALT_BYTES), &digest, signature)
        }
        _ => return Err(CryptoError::MechanismUnsupported { mechanism }),
    };
    Ok(verdict.is_ok())
}

pub(super) fn public_encrypt(
    algorithm: Algorithm,
    _: Mechanism,
    _: &[u8],
    _: CipherParameters<'_>,
    _: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    Err(CryptoError::UsageRefused { algorithm, usage: Usage::Encrypt })
}

struct Opened {
    algorithm: Algorithm,
    key: RsaPrivateKey,
}

impl PrivateKey for Opened {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn sign(
        &self,
        mechanism: Mechanism,
        input: SignInput<'_>,
        _: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let digest = digest_of(input)?;
        let failed = |_| CryptoError::ProviderFailed { algorithm: self.algorithm };
        let mut rng = LatchedRng::default();
        let signature = match mechanism {
            Mechanism::RsaPkcs1Sha256 => {
                self.key.sign_with_rng(&mut rng, Pkcs1v15Sign::new::<Sha256>(), &digest)
            }
            Mechanism::RsaPssSha256 => {
                let padding = Pss::<Sha256>::new_blinded_with_salt(SALT_BYTES);
                self.key.sign_with_rng(&mut rng, padding, &digest)
            }
            _ => return Err(CryptoError::MechanismUnsupported { mechanism }),
        }
        .map_err(failed)?;
        rng.check()?;
        Ok(signature)
    }
}

fn opened(algorithm: Algorithm, key: &Material) -> Result<RsaPrivateKey, CryptoError> {
    RsaPrivateKey::from_pkcs8_der(key.expose())
        .ok()
        .filter(|key| key.n().bits() == algorithm.bits())
        .ok_or(CryptoError::ProviderFailed { algorithm })
}

fn public_key(algorithm: Algorithm, private: &RsaPrivateKey) -> Result<Vec<u8>, CryptoError> {
    let failed = |_| CryptoError::ProviderFailed { algorithm };
    let public = private.to_public_key().to_public_key_der().map_err(failed)?;
    Ok(public.as_bytes().to_vec())
}

fn digest_of(input: SignInput<'_>) -> Result<[u8; 32], CryptoError> {
    match input {
        SignInput::Digest(digest) => digest.try_into().map_err(|_| DIGEST_LENGTH),
        SignInput::Message(message) => Ok(Sha256::digest(message).into()),
    }
}
