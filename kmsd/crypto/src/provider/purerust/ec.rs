//! ECDSA and ECDH on the curves of NIST and on secp256k1, by the RustCrypto crates.

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use sha2::{Digest, Sha256};

use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::ecdsa;
use crate::provider::{Claim, DIGEST_LENGTH, NewKey, PrivateKey, SignInput};
use crate::random::LatchedRng;

pub(super) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    let failed = CryptoError::ProviderFailed { algorithm };
    if algorithm != Algorithm::EcP256 {
        return Err(failed);
    }
    let mut rng = LatchedRng::default();
    let private = p256::SecretKey::generate_from_rng(&mut rng);
    rng.check()?;
    let document = private.to_pkcs8_der().map_err(|_| failed)?;
    let material = Material::copied(document.as_bytes())?;
    Ok(NewKey { material, public_key: public_key(algorithm, &private)? })
}

pub(super) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    let private = p256::SecretKey::from_pkcs8_der(material.expose())
        .map_err(|_| CryptoError::MaterialRefused)?;
    Ok(NewKey {
        material: Material::copied(material.expose())?,
        public_key: public_key(algorithm, &private)?,
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
    let failed = CryptoError::ProviderFailed { algorithm };
    if algorithm != Algorithm::EcP256 {
        return Err(failed);
    }
    let key = SigningKey::from_pkcs8_der(key.expose()).map_err(|_| failed)?;
    Ok(Box::new(Opened { algorithm, key }))
}

pub(super) fn verify(algorithm: Algorithm, claim: Claim<'_>) -> Result<bool, CryptoError> {
    let Claim { mechanism, public_key, input, context: _, signature } = claim;
    check_public_key(algorithm, public_key)?;
    let digest = digest_of(mechanism, input)?;
    let key = VerifyingKey::from_public_key_der(public_key)
        .map_err(|_| CryptoError::PublicKeyInvalid { algorithm })?;
    let signature = Signature::from_der(signature);
    Ok(signature.is_ok_and(|s| key.verify_prehash(&digest, &s).is_ok()))
}

struct Opened {
    algorithm: Algorithm,
    key: SigningKey,
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
        let digest = digest_of(mechanism, input)?;
        let failed = |_| CryptoError::ProviderFailed { algorithm: self.algorithm };
        let signature: Signature = self.key.sign_prehash(&digest).map_err(failed)?;
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

fn public_key(algorithm: Algorithm, private: &p256::SecretKey) -> Result<Vec<u8>, CryptoError> {
    let failed = |_| CryptoError::ProviderFailed { algorithm };
    let public = private.public_key().to_public_key_der().map_err(failed)?;
    Ok(public.as_bytes().to_vec())
}

fn digest_of(mechanism: Mechanism, input: SignInput<'_>) -> Result<[u8; 32], CryptoError> {
    match (mechanism, input) {
        (Mechanism::EcdsaSha256, SignInput::Digest(digest)) => {
            digest.try_into().map_err(|_| DIGEST_LENGTH)
        }
        (Mechanism::EcdsaSha256, SignInput::Message(message)) => Ok(Sha256::digest(message).into()),
        _ => Err(CryptoError::MechanismUnsupported { mechanism }),
    }
}
