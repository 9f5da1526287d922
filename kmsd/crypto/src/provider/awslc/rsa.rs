//! RSA, by AWS-LC.

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_SHA256, RsaEncoding, UnparsedPublicKey, VerificationAlgorithm,
};
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::Mechanism;

use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::rsa;
use crate::provider::{CipherParameters, Claim, NewKey, PrivateKey, SignInput};

pub(super) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    if algorithm != Algorithm::Rsa3072 {
        return Err(CryptoError::ProviderFailed { algorithm });
    }
    let failed = |_: Unspecified| CryptoError::ProviderFailed { algorithm };
    let pair = RsaKeyPair::generate(KeySize::Rsa3072).map_err(failed)?;
    let private: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
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
    rsa::check_public_key(algorithm, public_key)
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
    let scheme: &'static dyn VerificationAlgorithm = match mechanism {
        Mechanism::RsaPkcs1Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        Mechanism::RsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
        _ => return Err(CryptoError::MechanismUnsupported { mechanism }),
    };
    let key = UnparsedPublicKey::new(scheme, public_key);
    let verdict = match input {
        SignInput::Digest(digest) => key.verify_digest(&imported(digest)?, signature),
        SignInput::Message(message) => key.verify(message, signature),
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
    pair: RsaKeyPair,
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
        let encoding: &'static dyn RsaEncoding = match mechanism {
            Mechanism::RsaPkcs1Sha256 => &RSA_PKCS1_SHA256,
            Mechanism::RsaPssSha256 => &RSA_PSS_SHA256,
            _ => return Err(CryptoError::MechanismUnsupported { mechanism }),
        };
        let mut signature = vec![0; self.pair.public_modulus_len()];
        match input {
            SignInput::Digest(digest) => {
                self.pair.sign_digest(encoding, &imported(digest)?, &mut signature)
            }
            SignInput::Message(message) => {
                self.pair.sign(encoding, &SystemRandom::new(), message, &mut signature)
            }
        }
        .map_err(|_| CryptoError::ProviderFailed { algorithm: self.algorithm })?;
        Ok(signature)
    }
}

fn opened(algorithm: Algorithm, key: &Material) -> Result<RsaKeyPair, CryptoError> {
    RsaKeyPair::from_pkcs8(key.expose())
        .ok()
        .filter(|pair| pair.public_modulus_len() * 8 == algorithm.bits() as usize)
        .ok_or(CryptoError::ProviderFailed { algorithm })
}

fn public_key(algorithm: Algorithm, pair: &RsaKeyPair) -> Result<Vec<u8>, CryptoError> {
    let failed = |_| CryptoError::ProviderFailed { algorithm };
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
    Ok(public.as_ref().to_vec())
}

fn imported(digest: &[u8]) -> Result<digest::Digest, CryptoError> {
    digest::Digest::import_less_safe(digest, &SHA256).map_err(|_| crate::provider::DIGEST_LENGTH)
}
