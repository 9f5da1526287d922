//! A provider that leaves nothing of a key on the stack, whatever the library below it does. The self tests
//! put it around each provider, so the vault has no other.

use std::sync::Arc;

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::{Hash, Mechanism};

use super::{
    CipherParameters, DeriveParameters, Family, HashStream, MacStream, NewKey, PrivateKey,
    Provider, SignInput,
};
use crate::CryptoError;
use crate::material::Material;
use crate::stack::{wiping, wiping_little, wiping_much};

/// See the module text.
pub(crate) struct Wiping(pub(crate) Arc<dyn Provider>);

impl Provider for Wiping {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn generate_unchecked(
        &self,
        algorithm: Algorithm,
        length_bytes: usize,
    ) -> Result<NewKey, CryptoError> {
        wiping_much(|| self.0.generate_unchecked(algorithm, length_bytes))
    }

    fn import(&self, algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
        wiping_much(|| self.0.import(algorithm, material))
    }

    fn check_public_key(&self, algorithm: Algorithm, public_key: &[u8]) -> Result<(), CryptoError> {
        self.0.check_public_key(algorithm, public_key)
    }

    fn private_key(
        &self,
        algorithm: Algorithm,
        key: &Material,
    ) -> Result<Box<dyn PrivateKey>, CryptoError> {
        let opened = wiping_for(algorithm, || self.0.private_key(algorithm, key))?;
        Ok(Box::new(WipingKey(opened)))
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
        self.0.verify(algorithm, mechanism, public_key, input, context, signature)
    }

    fn encrypt(
        &self,
        mechanism: Mechanism,
        key: &Material,
        parameters: CipherParameters<'_>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        wiping_little(|| self.0.encrypt(mechanism, key, parameters, plaintext))
    }

    fn decrypt(
        &self,
        mechanism: Mechanism,
        key: &Material,
        parameters: CipherParameters<'_>,
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        wiping_little(|| self.0.decrypt(mechanism, key, parameters, ciphertext))
    }

    fn public_encrypt(
        &self,
        algorithm: Algorithm,
        mechanism: Mechanism,
        public_key: &[u8],
        parameters: CipherParameters<'_>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        wiping(|| self.0.public_encrypt(algorithm, mechanism, public_key, parameters, plaintext))
    }

    fn mac_stream(
        &self,
        mechanism: Mechanism,
        key: &Material,
    ) -> Result<Box<dyn MacStream>, CryptoError> {
        let stream = wiping_little(|| self.0.mac_stream(mechanism, key))?;
        Ok(Box::new(WipingMac(stream)))
    }

    fn wrap(
        &self,
        mechanism: Mechanism,
        key: &Material,
        target: &Material,
    ) -> Result<Vec<u8>, CryptoError> {
        wiping_little(|| self.0.wrap(mechanism, key, target))
    }

    fn unwrap(
        &self,
        mechanism: Mechanism,
        key: &Material,
        wrapped: &[u8],
    ) -> Result<Material, CryptoError> {
        wiping_little(|| self.0.unwrap(mechanism, key, wrapped))
    }

    fn derive(
        &self,
        mechanism: Mechanism,
        key: &Material,
        parameters: DeriveParameters<'_>,
        length_bytes: usize,
    ) -> Result<Material, CryptoError> {
        wiping_little(|| self.0.derive(mechanism, key, parameters, length_bytes))
    }

    fn encapsulate(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
    ) -> Result<(Vec<u8>, Material), CryptoError> {
        wiping(|| self.0.encapsulate(algorithm, public_key))
    }

    fn digest(&self, hash: Hash, data: &[u8]) -> Vec<u8> {
        self.0.digest(hash, data)
    }

    fn hash_stream(&self, hash: Hash) -> Box<dyn HashStream> {
        self.0.hash_stream(hash)
    }

    fn mac(
        &self,
        mechanism: Mechanism,
        key: &Material,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        wiping_little(|| self.0.mac(mechanism, key, message))
    }
}

struct WipingKey(Box<dyn PrivateKey>);

impl PrivateKey for WipingKey {
    fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }

    fn sign(
        &self,
        mechanism: Mechanism,
        input: SignInput<'_>,
        context: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        wiping_for(self.algorithm(), || self.0.sign(mechanism, input, context))
    }

    fn decrypt(
        &self,
        mechanism: Mechanism,
        parameters: CipherParameters<'_>,
        ciphertext: &[u8],
    ) -> Result<Material, CryptoError> {
        wiping(|| self.0.decrypt(mechanism, parameters, ciphertext))
    }

    fn agree(&self, peer: &[u8]) -> Result<Material, CryptoError> {
        wiping_for(self.algorithm(), || self.0.agree(peer))
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Material, CryptoError> {
        wiping(|| self.0.decapsulate(ciphertext))
    }
}

/// The state of a code in the making is as good as its key, and is moved when the code is finished.
struct WipingMac(Box<dyn MacStream>);

impl MacStream for WipingMac {
    fn update(&mut self, bytes: &[u8]) {
        wiping_little(|| self.0.update(bytes));
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, CryptoError> {
        wiping_little(|| self.0.finish())
    }
}

/// What is done with curves and secrets takes little stack, and is done most often.
fn wiping_for<R>(algorithm: Algorithm, work: impl FnOnce() -> R) -> R {
    if let Algorithm::MlDsa44 | Algorithm::MlDsa65 | Algorithm::MlDsa87 = algorithm {
        return wiping_much(work);
    }
    match Family::of(algorithm) {
        Family::Ec | Family::Edwards | Family::Secret => wiping_little(work),
        Family::HashBased | Family::Lattice | Family::Rsa => wiping(work),
    }
}
