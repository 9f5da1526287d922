//! The power-on self-test: every algorithm must give its known answers before anything is served.
//!
//! Key pairs are checked once more each time one is made, by [`crate::provider::Provider::generate`].

use kms_core::algorithm::Algorithm;

use crate::CryptoError;
use crate::mechanism::{aes_gcm, ecdsa, hmac, rsa};
use crate::provider::Provider;

/// An algorithm did not give its known answer: the library or the machine is not to be trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the self-test of {algorithm} failed")]
pub struct SelfTestFailed {
    /// Which algorithm.
    pub algorithm: Algorithm,
}

/// Runs all known answers against `provider`.
///
/// # Errors
/// [`SelfTestFailed`] with the first algorithm that fails.
pub fn run(provider: &dyn Provider) -> Result<(), SelfTestFailed> {
    for algorithm in Algorithm::ALL {
        if !known_answer(provider, algorithm).unwrap_or(false) {
            return Err(SelfTestFailed { algorithm });
        }
    }
    Ok(())
}

fn known_answer(provider: &dyn Provider, algorithm: Algorithm) -> Result<bool, CryptoError> {
    match algorithm {
        Algorithm::Aes256Gcm => aes_gcm::known_answer(provider),
        Algorithm::EcSignP256Sha256 => ecdsa::known_answer(provider),
        Algorithm::HmacSha256 => hmac::known_answer(provider),
        Algorithm::RsaSignPkcs1_3072Sha256 | Algorithm::RsaSignPss3072Sha256 => {
            rsa::known_answer(provider, algorithm)
        }
        // An algorithm without known answers here has not been tested, so it fails.
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::material::Material;
    use crate::mechanism::aes_gcm::{IV_BYTES, Sealed};
    use crate::provider::awslc::AwsLc;
    use crate::provider::{NewKey, SignInput};

    #[test]
    fn the_default_provider_passes() {
        assert_eq!(run(&AwsLc), Ok(()));
    }

    #[cfg(feature = "purerust")]
    #[test]
    fn the_pure_rust_provider_passes() {
        assert_eq!(run(&crate::provider::purerust::PureRust), Ok(()));
    }

    /// The default provider with one fault.
    struct Faulty(Fault);

    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        Decrypts,
        Macs,
        SignsOtherBytes,
        VerifiesAnything,
    }

    impl Provider for Faulty {
        fn name(&self) -> &'static str {
            "faulty"
        }
        fn generate_unchecked(&self, algorithm: Algorithm) -> Result<NewKey, CryptoError> {
            AwsLc.generate_unchecked(algorithm)
        }
        fn sign(
            &self,
            algorithm: Algorithm,
            key: &Material,
            input: SignInput<'_>,
        ) -> Result<Vec<u8>, CryptoError> {
            let other = self.0 == Fault::SignsOtherBytes;
            AwsLc.sign(algorithm, key, if other { SignInput::Message(b"other") } else { input })
        }
        fn verify(
            &self,
            algorithm: Algorithm,
            public_key: &[u8],
            input: SignInput<'_>,
            signature: &[u8],
        ) -> Result<bool, CryptoError> {
            let valid = AwsLc.verify(algorithm, public_key, input, signature)?;
            Ok(valid || self.0 == Fault::VerifiesAnything)
        }
        fn seal(&self, key: &Material, aad: &[u8], text: &[u8]) -> Result<Sealed, CryptoError> {
            AwsLc.seal(key, aad, text)
        }
        fn open(
            &self,
            key: &Material,
            iv: &[u8; IV_BYTES],
            aad: &[u8],
            ciphertext: &[u8],
        ) -> Result<Vec<u8>, CryptoError> {
            let mut text = AwsLc.open(key, iv, aad, ciphertext)?;
            text[0] ^= u8::from(self.0 == Fault::Decrypts);
            Ok(text)
        }
        fn mac(&self, key: &Material, message: &[u8]) -> Result<[u8; 32], CryptoError> {
            let mut tag = AwsLc.mac(key, message)?;
            tag[31] ^= u8::from(self.0 == Fault::Macs);
            Ok(tag)
        }
        fn mac_verify(&self, key: &Material, text: &[u8], tag: &[u8]) -> Result<bool, CryptoError> {
            AwsLc.mac_verify(key, text, tag)
        }
    }

    #[test]
    fn each_fault_is_found_and_named() {
        let faults = [
            (Fault::Decrypts, Algorithm::Aes256Gcm),
            (Fault::Macs, Algorithm::HmacSha256),
            (Fault::SignsOtherBytes, Algorithm::EcSignP256Sha256),
            (Fault::VerifiesAnything, Algorithm::EcSignP256Sha256),
        ];
        for (fault, algorithm) in faults {
            assert_eq!(run(&Faulty(fault)), Err(SelfTestFailed { algorithm }));
        }
    }

    #[test]
    fn a_key_pair_that_does_not_fit_together_is_not_handed_out() {
        for algorithm in [Algorithm::EcSignP256Sha256, Algorithm::RsaSignPss3072Sha256] {
            let refused = Faulty(Fault::SignsOtherBytes).generate(algorithm).err();
            assert_eq!(refused, Some(CryptoError::SelfTest(SelfTestFailed { algorithm })));
        }
    }
}
