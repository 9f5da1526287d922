//! Who carries out the mathematics: one trait, so that the library underneath can be exchanged and
//! cross-checked.
//!
//! A provider gets [`Material`], never bytes, and gives nothing that is secret but new `Material`.
//! Only this crate can read `Material`, so providers are written here: [`awslc`] is the default, the
//! pure-Rust one is built with the feature `purerust`. Calls are made by [`crate::vault`].

use kms_core::algorithm::Algorithm;

use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::aes_gcm::{IV_BYTES, Sealed};
use crate::mechanism::hmac::TAG_BYTES;
use crate::selftest::SelfTestFailed;

pub mod awslc;
#[cfg(feature = "purerust")]
pub mod purerust;

/// What is signed. Both forms give signatures of the same algorithm.
#[derive(Clone, Copy, Debug)]
pub enum SignInput<'a> {
    /// The SHA-256 digest of the message, made by the caller (CKM_ECDSA, CKM_RSA_PKCS).
    Digest(&'a [u8; 32]),
    /// The message itself; the digest is made here.
    Message(&'a [u8]),
}

/// A key just made.
pub struct NewKey {
    /// The key: raw bytes for secret keys, PKCS#8 DER for private keys.
    pub material: Material,
    /// The SubjectPublicKeyInfo in DER; empty for secret keys.
    pub public_key: Vec<u8>,
}

/// A library that carries out the mechanisms.
pub trait Provider: Send + Sync {
    /// The published name, as in the service's self-description.
    fn name(&self) -> &'static str;

    /// Makes a key, without the check that [`Provider::generate`] adds.
    ///
    /// # Errors
    /// [`CryptoError::RandomFailed`], [`CryptoError::ProviderFailed`], or the arena's errors.
    fn generate_unchecked(&self, algorithm: Algorithm) -> Result<NewKey, CryptoError>;

    /// Signs. ECDSA signatures are DER.
    ///
    /// # Errors
    /// [`CryptoError::ProviderFailed`] when `key` is not one of `algorithm`.
    fn sign(
        &self,
        algorithm: Algorithm,
        key: &Material,
        input: SignInput<'_>,
    ) -> Result<Vec<u8>, CryptoError>;

    /// Whether `signature` is one over `input` by the owner of `public_key`.
    ///
    /// # Errors
    /// [`CryptoError::PublicKeyInvalid`] when `public_key` is not one of `algorithm`.
    fn verify(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        input: SignInput<'_>,
        signature: &[u8],
    ) -> Result<bool, CryptoError>;

    /// Encrypts with AES-256-GCM under an IV drawn here.
    ///
    /// # Errors
    /// [`CryptoError::RandomFailed`] or [`CryptoError::ProviderFailed`].
    fn seal(&self, key: &Material, aad: &[u8], plaintext: &[u8]) -> Result<Sealed, CryptoError>;

    /// Decrypts what [`Provider::seal`] made.
    ///
    /// # Errors
    /// [`CryptoError::CiphertextRefused`] when anything was changed.
    fn open(
        &self,
        key: &Material,
        iv: &[u8; IV_BYTES],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, CryptoError>;

    /// Makes a tag with HMAC-SHA-256.
    ///
    /// # Errors
    /// [`CryptoError::ProviderFailed`].
    fn mac(&self, key: &Material, message: &[u8]) -> Result<[u8; TAG_BYTES], CryptoError>;

    /// Whether `tag` is the whole tag of `message`, compared in constant time.
    ///
    /// # Errors
    /// [`CryptoError::ProviderFailed`].
    fn mac_verify(&self, key: &Material, message: &[u8], tag: &[u8]) -> Result<bool, CryptoError>;

    /// Makes a key. A key pair must verify its own signature before it is handed out (FIPS 140-3
    /// implementation guidance 10.3.A, pairwise consistency).
    ///
    /// # Errors
    /// Those of [`Provider::generate_unchecked`], or [`CryptoError::SelfTest`] for a pair that does
    /// not fit together.
    fn generate(&self, algorithm: Algorithm) -> Result<NewKey, CryptoError> {
        let key = self.generate_unchecked(algorithm)?;
        if algorithm.is_asymmetric() {
            let probe = SignInput::Message(b"pairwise consistency");
            let signature = self.sign(algorithm, &key.material, probe)?;
            if !self.verify(algorithm, &key.public_key, probe, &signature)? {
                return Err(SelfTestFailed { algorithm }.into());
            }
        }
        Ok(key)
    }
}
