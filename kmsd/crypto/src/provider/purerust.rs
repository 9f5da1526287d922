//! A second provider, in Rust throughout: for builds without C, and the second opinion in tests.
//!
//! RSA private operations run only through the blinded calls. `rsa` carries RUSTSEC-2023-0071
//! (timing) without a fixed version, which is why this provider is not the default.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hmac::{Hmac, Mac};
use kms_core::algorithm::{Algorithm, Usage};
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::Generate;
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use rsa::{Pkcs1v15Sign, Pss, RsaPrivateKey, RsaPublicKey};
use sha2::{Digest, Sha256};

use super::{NewKey, Provider, SignInput};
use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::aes_gcm::{IV_BYTES, KEY_BYTES, Sealed};
use crate::mechanism::hmac::TAG_BYTES;
use crate::mechanism::rsa::{MODULUS_BITS, SALT_BYTES, check_public_key};
use crate::random::{self, LatchedRng};

/// The RustCrypto crates.
#[derive(Clone, Copy, Debug, Default)]
pub struct PureRust;

impl Provider for PureRust {
    fn name(&self) -> &'static str {
        "pure-rust"
    }

    fn generate_unchecked(&self, algorithm: Algorithm) -> Result<NewKey, CryptoError> {
        match algorithm {
            Algorithm::Aes256Gcm | Algorithm::HmacSha256 => {
                Ok(NewKey { material: Material::random(KEY_BYTES)?, public_key: Vec::new() })
            }
            Algorithm::EcSignP256Sha256 => generate_ecdsa(),
            Algorithm::RsaSignPkcs1_3072Sha256 | Algorithm::RsaSignPss3072Sha256 => {
                generate_rsa(algorithm)
            }
            _ => Err(CryptoError::ProviderFailed { algorithm }),
        }
    }

    fn sign(
        &self,
        algorithm: Algorithm,
        key: &Material,
        input: SignInput<'_>,
    ) -> Result<Vec<u8>, CryptoError> {
        let digest = digest_of(input);
        match algorithm {
            Algorithm::EcSignP256Sha256 => sign_ecdsa(key, &digest),
            Algorithm::RsaSignPkcs1_3072Sha256 | Algorithm::RsaSignPss3072Sha256 => {
                sign_rsa(algorithm, key, &digest)
            }
            _ => Err(CryptoError::UsageRefused { algorithm, usage: Usage::Sign }),
        }
    }

    fn verify(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        input: SignInput<'_>,
        signature: &[u8],
    ) -> Result<bool, CryptoError> {
        let digest = digest_of(input);
        let invalid = CryptoError::PublicKeyInvalid { algorithm };
        if algorithm == Algorithm::EcSignP256Sha256 {
            let key = VerifyingKey::from_public_key_der(public_key).map_err(|_| invalid)?;
            let signature = Signature::from_der(signature);
            return Ok(signature.is_ok_and(|s| key.verify_prehash(&digest, &s).is_ok()));
        }
        if !algorithm.supports(Usage::Verify) {
            return Err(CryptoError::UsageRefused { algorithm, usage: Usage::Verify });
        }
        check_public_key(algorithm, public_key)?;
        let key = RsaPublicKey::from_public_key_der(public_key).map_err(|_| invalid)?;
        let verdict = if algorithm == Algorithm::RsaSignPkcs1_3072Sha256 {
            key.verify(Pkcs1v15Sign::new::<Sha256>(), &digest, signature)
        } else {
            key.verify(Pss::<Sha256>::new_with_salt(SALT_BYTES), &digest, signature)
        };
        Ok(verdict.is_ok())
    }

    fn seal(&self, key: &Material, aad: &[u8], plaintext: &[u8]) -> Result<Sealed, CryptoError> {
        let iv = random::array::<IV_BYTES>()?;
        let ciphertext = gcm(key)?
            .encrypt(&Nonce::from(iv), Payload { msg: plaintext, aad })
            .map_err(|_| CryptoError::ProviderFailed { algorithm: Algorithm::Aes256Gcm })?;
        Ok(Sealed { iv, ciphertext })
    }

    fn open(
        &self,
        key: &Material,
        iv: &[u8; IV_BYTES],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        gcm(key)?
            .decrypt(&Nonce::from(*iv), Payload { msg: ciphertext, aad })
            .map_err(|_| CryptoError::CiphertextRefused)
    }

    fn mac(&self, key: &Material, message: &[u8]) -> Result<[u8; TAG_BYTES], CryptoError> {
        Ok(keyed(key)?.chain_update(message).finalize().into_bytes().into())
    }

    fn mac_verify(&self, key: &Material, message: &[u8], tag: &[u8]) -> Result<bool, CryptoError> {
        Ok(keyed(key)?.chain_update(message).verify_slice(tag).is_ok())
    }
}

fn digest_of(input: SignInput<'_>) -> [u8; 32] {
    match input {
        SignInput::Digest(digest) => *digest,
        SignInput::Message(message) => Sha256::digest(message).into(),
    }
}

fn generate_ecdsa() -> Result<NewKey, CryptoError> {
    let algorithm = Algorithm::EcSignP256Sha256;
    let failed = CryptoError::ProviderFailed { algorithm };
    let mut rng = LatchedRng::default();
    let private = p256::SecretKey::generate_from_rng(&mut rng);
    rng.check()?;
    let document = private.to_pkcs8_der().map_err(|_| failed.clone())?;
    let public = private.public_key().to_public_key_der().map_err(|_| failed)?;
    Ok(NewKey {
        material: Material::copied(document.as_bytes())?,
        public_key: public.as_bytes().to_vec(),
    })
}

fn generate_rsa(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    let failed = CryptoError::ProviderFailed { algorithm };
    let mut rng = LatchedRng::default();
    let private =
        RsaPrivateKey::new(&mut rng, MODULUS_BITS as usize).map_err(|_| failed.clone())?;
    rng.check()?;
    let document = private.to_pkcs8_der().map_err(|_| failed.clone())?;
    let public = private.to_public_key().to_public_key_der().map_err(|_| failed)?;
    Ok(NewKey {
        material: Material::copied(document.as_bytes())?,
        public_key: public.as_bytes().to_vec(),
    })
}

fn sign_ecdsa(key: &Material, digest: &[u8; 32]) -> Result<Vec<u8>, CryptoError> {
    let failed = CryptoError::ProviderFailed { algorithm: Algorithm::EcSignP256Sha256 };
    let key = SigningKey::from_pkcs8_der(key.expose()).map_err(|_| failed.clone())?;
    let signature: Signature = key.sign_prehash(digest).map_err(|_| failed)?;
    Ok(signature.to_der().as_bytes().to_vec())
}

fn sign_rsa(
    algorithm: Algorithm,
    key: &Material,
    digest: &[u8; 32],
) -> Result<Vec<u8>, CryptoError> {
    let failed = |_| CryptoError::ProviderFailed { algorithm };
    let key = RsaPrivateKey::from_pkcs8_der(key.expose())
        .map_err(|_| CryptoError::ProviderFailed { algorithm })?;
    let mut rng = LatchedRng::default();
    let signature = if algorithm == Algorithm::RsaSignPkcs1_3072Sha256 {
        key.sign_with_rng(&mut rng, Pkcs1v15Sign::new::<Sha256>(), digest).map_err(failed)?
    } else {
        let padding = Pss::<Sha256>::new_blinded_with_salt(SALT_BYTES);
        key.sign_with_rng(&mut rng, padding, digest).map_err(failed)?
    };
    rng.check()?;
    Ok(signature)
}

fn gcm(key: &Material) -> Result<Aes256Gcm, CryptoError> {
    Aes256Gcm::new_from_slice(key.expose())
        .map_err(|_| CryptoError::ProviderFailed { algorithm: Algorithm::Aes256Gcm })
}

fn keyed(key: &Material) -> Result<Hmac<Sha256>, CryptoError> {
    Hmac::new_from_slice(key.expose())
        .map_err(|_| CryptoError::ProviderFailed { algorithm: Algorithm::HmacSha256 })
}
