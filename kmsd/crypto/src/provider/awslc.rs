//! The default provider, on AWS-LC.
//!
//! The library works on buffers of its own, which it wipes when it frees them; our copy in the arena
//! is the only lasting one.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256,
    RsaEncoding, UnparsedPublicKey, VerificationAlgorithm,
};
use kms_core::algorithm::{Algorithm, Usage};

use super::{NewKey, Provider, SignInput};
use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::aes_gcm::{self, IV_BYTES, Sealed};
use crate::mechanism::{ecdsa, hmac as hmac_mechanism, rsa};
use crate::random;

/// AWS-LC through `aws-lc-rs`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

impl Provider for AwsLc {
    fn name(&self) -> &'static str {
        "aws-lc"
    }

    fn generate_unchecked(&self, algorithm: Algorithm) -> Result<NewKey, CryptoError> {
        match algorithm {
            Algorithm::Aes256Gcm => secret_key(aes_gcm::KEY_BYTES),
            Algorithm::EcSignP256Sha256 => generate_ecdsa(),
            Algorithm::HmacSha256 => secret_key(hmac_mechanism::KEY_BYTES),
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
        match algorithm {
            Algorithm::EcSignP256Sha256 => sign_ecdsa(key, input),
            Algorithm::RsaSignPkcs1_3072Sha256 => {
                sign_rsa(algorithm, &RSA_PKCS1_SHA256, key, input)
            }
            Algorithm::RsaSignPss3072Sha256 => sign_rsa(algorithm, &RSA_PSS_SHA256, key, input),
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
        let scheme: &'static dyn VerificationAlgorithm = match algorithm {
            Algorithm::EcSignP256Sha256 => {
                ecdsa::check_public_key(public_key)?;
                &ECDSA_P256_SHA256_ASN1
            }
            Algorithm::RsaSignPkcs1_3072Sha256 => {
                rsa::check_public_key(algorithm, public_key)?;
                &RSA_PKCS1_2048_8192_SHA256
            }
            Algorithm::RsaSignPss3072Sha256 => {
                rsa::check_public_key(algorithm, public_key)?;
                &RSA_PSS_2048_8192_SHA256
            }
            _ => return Err(CryptoError::UsageRefused { algorithm, usage: Usage::Verify }),
        };
        let key = UnparsedPublicKey::new(scheme, public_key);
        let verdict = match input {
            SignInput::Digest(digest) => {
                key.verify_digest(&imported(algorithm, digest)?, signature)
            }
            SignInput::Message(message) => key.verify(message, signature),
        };
        Ok(verdict.is_ok())
    }

    fn seal(&self, key: &Material, aad: &[u8], plaintext: &[u8]) -> Result<Sealed, CryptoError> {
        let iv = random::array::<IV_BYTES>()?;
        let mut ciphertext = Vec::with_capacity(plaintext.len() + aes_gcm::TAG_BYTES);
        ciphertext.extend_from_slice(plaintext);
        gcm(key)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(iv),
                Aad::from(aad),
                &mut ciphertext,
            )
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
        let mut text = ciphertext.to_vec();
        let plaintext_bytes = gcm(key)?
            .open_in_place(Nonce::assume_unique_for_key(*iv), Aad::from(aad), &mut text)
            .map_err(|_| CryptoError::CiphertextRefused)?
            .len();
        text.truncate(plaintext_bytes);
        Ok(text)
    }

    fn mac(
        &self,
        key: &Material,
        message: &[u8],
    ) -> Result<[u8; hmac_mechanism::TAG_BYTES], CryptoError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        hmac::sign(&key, message)
            .as_ref()
            .try_into()
            .map_err(|_| CryptoError::ProviderFailed { algorithm: Algorithm::HmacSha256 })
    }

    fn mac_verify(&self, key: &Material, message: &[u8], tag: &[u8]) -> Result<bool, CryptoError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        Ok(hmac::verify(&key, message, tag).is_ok())
    }
}

fn secret_key(length: usize) -> Result<NewKey, CryptoError> {
    Ok(NewKey { material: Material::random(length)?, public_key: Vec::new() })
}

fn generate_ecdsa() -> Result<NewKey, CryptoError> {
    let failed = |_| CryptoError::ProviderFailed { algorithm: Algorithm::EcSignP256Sha256 };
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
    let private = pair.to_pkcs8v1().map_err(failed)?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
    Ok(NewKey {
        material: Material::copied(private.as_ref())?,
        public_key: public.as_ref().to_vec(),
    })
}

fn generate_rsa(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    let failed = |_| CryptoError::ProviderFailed { algorithm };
    let pair = RsaKeyPair::generate(KeySize::Rsa3072).map_err(failed)?;
    let private: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
    Ok(NewKey {
        material: Material::copied(private.as_ref())?,
        public_key: public.as_ref().to_vec(),
    })
}

fn sign_ecdsa(key: &Material, input: SignInput<'_>) -> Result<Vec<u8>, CryptoError> {
    let algorithm = Algorithm::EcSignP256Sha256;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.expose())
        .map_err(|_| CryptoError::ProviderFailed { algorithm })?;
    let signature = match input {
        SignInput::Digest(digest) => pair.sign_digest(&imported(algorithm, digest)?),
        SignInput::Message(message) => pair.sign(&SystemRandom::new(), message),
    };
    let signature = signature.map_err(|_| CryptoError::ProviderFailed { algorithm })?;
    Ok(signature.as_ref().to_vec())
}

fn sign_rsa(
    algorithm: Algorithm,
    encoding: &'static dyn RsaEncoding,
    key: &Material,
    input: SignInput<'_>,
) -> Result<Vec<u8>, CryptoError> {
    let pair = RsaKeyPair::from_pkcs8(key.expose())
        .ok()
        .filter(|pair| pair.public_modulus_len() == rsa::SIGNATURE_BYTES)
        .ok_or(CryptoError::ProviderFailed { algorithm })?;
    let mut signature = vec![0; rsa::SIGNATURE_BYTES];
    match input {
        SignInput::Digest(digest) => {
            pair.sign_digest(encoding, &imported(algorithm, digest)?, &mut signature)
        }
        SignInput::Message(message) => {
            pair.sign(encoding, &SystemRandom::new(), message, &mut signature)
        }
    }
    .map_err(|_| CryptoError::ProviderFailed { algorithm })?;
    Ok(signature)
}

fn gcm(key: &Material) -> Result<LessSafeKey, CryptoError> {
    UnboundKey::new(&AES_256_GCM, key.expose())
        .map(LessSafeKey::new)
        .map_err(|_| CryptoError::ProviderFailed { algorithm: Algorithm::Aes256Gcm })
}

fn imported(algorithm: Algorithm, digest: &[u8; 32]) -> Result<digest::Digest, CryptoError> {
    digest::Digest::import_less_safe(digest, &SHA256)
        .map_err(|_| CryptoError::ProviderFailed { algorithm })
}
