//! The key that signs the audit log's checkpoints: Ed25519 (RFC 8032), wrapped by the root.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use crate::CryptoError;
use crate::material::Material;

/// Signs checkpoints. The seed stays in locked memory; a key pair exists for one signature.
pub struct LogSigner {
    seed: Material,
    public_key: [u8; 32],
}

impl LogSigner {
    pub(crate) fn new(seed: Material) -> Result<Self, CryptoError> {
        if seed.len() != SEED_BYTES {
            return Err(CryptoError::MaterialRefused);
        }
        let public_key = pair(&seed)?
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| CryptoError::MaterialRefused)?;
        Ok(Self { seed, public_key })
    }

    /// The public key, as in the log's verifier key.
    pub const fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// Signs `message`.
    ///
    /// # Errors
    /// [`CryptoError::MaterialRefused`] when the library refuses the seed, which it has taken before.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], CryptoError> {
        let refused = CryptoError::MaterialRefused;
        let signature = pair(&self.seed)?.try_sign(message).map_err(|_| refused.clone())?;
        signature.as_ref().try_into().map_err(|_| refused)
    }
}

fn pair(seed: &Material) -> Result<Ed25519KeyPair, CryptoError> {
    Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| CryptoError::MaterialRefused)
}

pub(crate) const SEED_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_the_answer_of_rfc_8032() {
        // RFC 8032 §7.1, test 2.
        let hex = |text| hex::decode(text).unwrap();
        let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let signer = LogSigner::new(Material::copied(&seed).unwrap()).unwrap();
        let public = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        assert_eq!(signer.public_key().as_slice(), public);
        let signature = hex(concat!(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ));
        assert_eq!(signer.sign(&[0x72]).unwrap().as_slice(), signature);
    }

    #[test]
    fn a_seed_of_another_length_is_refused() {
        let refused = LogSigner::new(Material::random(33).unwrap()).err();
        assert_eq!(refused, Some(CryptoError::MaterialRefused));
    }
}
