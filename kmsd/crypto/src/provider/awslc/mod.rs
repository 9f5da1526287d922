//! The default provider, on AWS-LC: which family carries an operation out.
//!
//! The library works on buffers of its own, which it wipes when it frees them; our copy in the arena
//! is the only lasting one.

use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::{Hash, Mechanism};

use super::{
    CipherParameters, Claim, DeriveParameters, Family, HashStream, MacStream, NewKey, PrivateKey,
    Provider, SignInput,
};
use crate::CryptoError;
use crate::material::Material;

mod cipher;
mod ec;
mod edwards;
mod hash_based;
mod lattice;
mod mac;
pub mod module;
mod rsa;
mod wrap;

/// AWS-LC through `aws-lc-rs`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

impl Provider for AwsLc {
    fn name(&self) -> &'static str {
        "aws-lc"
    }

    fn generate_unchecked(
        &self,
        algorithm: Algorithm,
        length_bytes: usize,
    ) -> Result<NewKey, CryptoError> {
        match Family::of(algorithm) {
            Family::Ec => ec::generate(algorithm),
            Family::Edwards => edwards::generate(algorithm),
            Family::HashBased => hash_based::generate(algorithm),
            Family::Lattice => lattice::generate(algorithm),
            Family::Rsa => rsa::generate(algorithm),
            Family::Secret => super::generate_secret(algorithm, length_bytes),
        }
    }

    fn import(&self, algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
        match Family::of(algorithm) {
            Family::Ec => ec::import(algorithm, material),
            Family::Edwards => edwards::import(algorithm, material),
            Family::HashBased => hash_based::import(algorithm, material),
            Family::Lattice => lattice::import(algorithm, material),
            Family::Rsa => rsa::import(algorithm, material),
            Family::Secret => super::import_secret(algorithm, material),
        }
    }

    fn check_public_key(&self, algorithm: Algorithm, public_key: &[u8]) -> Result<(), CryptoError> {
        match Family::of(algorithm) {
            Family::Ec => ec::check_public_key(algorithm, public_key),
            Family::Edwards => edwards::check_public_key(algorithm, public_key),
            Family::HashBased => hash_based::check_public_key(algorithm, public_key),
            Family::Lattice => lattice::check_public_key(algorithm, public_key),
            Family::Rsa => rsa::check_public_key(algorithm, public_key),
            Family::Secret => Err(CryptoError::PublicKeyInvalid { algorithm }),
        }
    }

    fn private_key(
        &self,
        algorithm: Algorithm,
        key: &Material,
    ) -> Result<Box<dyn PrivateKey>, CryptoError> {
        match Family::of(algorithm) {
            Family::Ec => ec::private_key(algorithm, key),
            Family::Edwards => edwards::private_key(algorithm, key),
            Family::HashBased => hash_based::private_key(algorithm, key),
            Family::Lattice => lattice::private_key(algorithm, key),
            Family::Rsa => rsa::private_key(algorithm, key),
            Family::Secret => Err(CryptoError::ProviderFailed { algorithm }),
        }
    }

    fn verify(
        &self,
        algorithm: Algorithm,
        mechanism: Mechanism,
        public_key: &[u8],
        input: SignInput<'_>,
        context: &[u8],
        signature: &[u8],
    ) -> Result<bool, CryptoError> {
        let claim = Claim { mechanism, public_key, input, context, signature };
        match Family::of(algorithm) {
            Family::Ec => ec::verify(algorithm, claim),
            Family::Edwards => edwards::verify(algorithm, claim),
            Family::HashBased => hash_based::verify(algorithm, claim),
            Family::Lattice => lattice::verify(algorithm, claim),
            Family::Rsa => rsa::verify(algorithm, claim),
            Family::Secret => Err(CryptoError::UsageRefused { algorithm, usage: Usage::Verify }),
        }
    }

    fn encrypt(
        &self,
        mechanism: Mechanism,
        key: &Material,
        parameters: CipherParameters<'_>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        cipher::encrypt(mechanism, key, parameters, plaintext)
    }

    fn decrypt(
        &self,
        mechanism: Mechanism,
        key: &Material,
        parameters: CipherParameters<'_>,
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        cipher::decrypt(mechanism, key, parameters, ciphertext)
    }

    fn public_encrypt(
        &self,
        algorithm: Algorithm,
        mechanism: Mechanism,
        public_key: &[u8],
        parameters: CipherParameters<'_>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        match Family::of(algorithm) {
            Family::Rsa => {
                rsa::public_encrypt(algorithm, mechanism, public_key, parameters, plaintext)
            }
            _ => Err(CryptoError::UsageRefused { algorithm, usage: Usage::Encrypt }),
        }
    }

    fn mac_stream(
        &self,
        mechanism: Mechanism,
        key: &Material,
    ) -> Result<Box<dyn MacStream>, CryptoError> {
        mac::stream(mechanism, key)
    }

    fn wrap(
        &self,
        mechanism: Mechanism,
        key: &Material,
        target: &Material,
    ) -> Result<Vec<u8>, CryptoError> {
        wrap::wrap(mechanism, key, target)
    }

    fn unwrap(
        &self,
        mechanism: Mechanism,
        key: &Material,
        wrapped: &[u8],
    ) -> Result<Material, CryptoError> {
        wrap::unwrap(mechanism, key, wrapped)
    }

    fn derive(
        &self,
        mechanism: Mechanism,
        key: &Material,
        parameters: DeriveParameters<'_>,
        length_bytes: usize,
    ) -> Result<Material, CryptoError> {
        mac::derive(mechanism, key, parameters, length_bytes)
    }

    fn encapsulate(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
    ) -> Result<(Vec<u8>, Material), CryptoError> {
        match Family::of(algorithm) {
            Family::Lattice => lattice::encapsulate(algorithm, public_key),
            _ => Err(CryptoError::UsageRefused { algorithm, usage: Usage::Encapsulate }),
        }
    }

    fn digest(&self, hash: Hash, data: &[u8]) -> Vec<u8> {
        mac::hash(hash, data)
    }

    fn hash_stream(&self, hash: Hash) -> Box<dyn HashStream> {
        mac::hash_stream(hash)
    }
}
