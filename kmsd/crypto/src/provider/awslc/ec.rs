//! ECDSA and ECDH on the curves of NIST and on secp256k1, by AWS-LC.

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;

use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::ecdsa;
use crate::provider::{Claim, NewKey, PrivateKey, SignInput};

pub(super) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    if algorithm != Algorithm::EcP256 {
        return Err(CryptoError::ProviderFailed { algorithm });
    }
    let failed = |_: Unspecified| CryptoError::ProviderFailed { algorithm };
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
    let private = pair.to_pkcs8v1().map_err(failed)?;
    let material = Material::copied(private.as_ref())?;
    Ok(NewKey { material, public_key: public_key(algorithm, &pair)? })
}

pub(super) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    let pair = opened(algorithm, material).map_err(|_| CryptoError::MaterialRefused)?;
    Ok(NewKey {
        material: Material::copied(material.expose())?,
        public_key: public_key(algorithm, &pair)?,
    })
}

pub(super) fn check_public_key(algorithm: Algorithm, public_key: &[u8]) -> Result<(), CryptoError> {
    match algorithm {
        Algorithm::EcP256 => ecdsa::check_public_key(public_key),
        _ => Err(CryptoError::ProviderFailed { algorithm }),
    }
}

pub(super) fn private_key(
    algorithm: Algorithm,
    key: &Material,
) -> Result<Box<dyn PrivateKey>, CryptoError> {
    Ok(Box::new(Opened { algorithm, pair: opened(algorithm, key)? }))
}

pub(super) fn verify(algorithm: Algorithm, claim: Claim<'_>) -> Result<bool, CryptoError> {
    let Claim { mechanism, public_key, input, context: _, signature } = claim;
    check_public_key(algorithm, public_key)?;
    check_mechanism(mechanism)?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key);
    let verdict = match input {
        SignInput::Digest(digest) => key.verify_digest(&imported(digest)?, signature),
        SignInput::Message(message) => key.verify(message, signature),
    };
    Ok(verdict.is_ok())
}

struct Opened {
    algorithm: Algorithm,
    pair: EcdsaKeyPair,
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
        check_mechanism(mechanism)?;
        let signature = match input {
            SignInput::Digest(digest) => self.pair.sign_digest(&imported(digest)?),
            SignInput::Message(message) => self.pair.sign(&SystemRandom::new(), message),
        };
        let failed = |_| CryptoError::ProviderFailed { algorithm: self.algorithm };
        Ok(signature.map_err(failed)?.as_ref().to_vec())
    }
}

fn opened(algorithm: Algorithm, key: &Material) -> Result<EcdsaKeyPair, CryptoError> {
    let failed = CryptoError::ProviderFailed { algorithm };
    if algorithm != Algorithm::EcP256 {
        return Err(failed);
    }
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.expose()).map_err(|_| failed)
}

fn public_key(algorithm: Algorithm, pair: &EcdsaKeyPair) -> Result<Vec<u8>, CryptoError> {
    let failed = |_| CryptoError::ProviderFailed { algorithm };
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
    Ok(public.as_ref().to_vec())
}

fn check_mechanism(mechanism: Mechanism) -> Result<(), CryptoError> {
    match mechanism {
        Mechanism::EcdsaSha256 => Ok(()),
        _ => Err(CryptoError::MechanismUnsupported { mechanism }),
    }
}

fn imported(digest: &[u8]) -> Result<digest::Digest, CryptoError> {
    digest::Digest::import_less_safe(digest, &SHA256).map_err(|_| crate::provider::DIGEST_LENGTH)
}
