//! The word by which the daemon vouches for what the store writes: HMAC-SHA-256 under a key of its own,
//! derived from the root.
//!
//! The store has no key. It hands over the digest of a record of its journal, or of a part of a
//! snapshot, and keeps what comes back beside it; whoever rewrites its files cannot make that.

use hmac::{Hmac, KeyInit, Mac};
use kms_core::id::Digest;
use sha2::Sha256;

use crate::CryptoError;
use crate::material::Material;

/// Vouches for digests. Lets go of its key when it is dropped.
pub struct VouchKey(Material);

impl VouchKey {
    pub(crate) fn new(key: Material) -> Result<Self, CryptoError> {
        mac(&key).map_or(Err(CryptoError::MaterialRefused), |_| Ok(Self(key)))
    }

    /// The word for a digest; none only if the library takes no key of this length, which was tried.
    pub fn vouch(&self, digest: &Digest) -> Option<[u8; 32]> {
        Some(mac(&self.0)?.chain_update(digest.as_bytes()).finalize().into_bytes().into())
    }

    /// Whether this is the word for the digest, in constant time.
    pub fn is_vouched(&self, digest: &Digest, vouch: &[u8; 32]) -> bool {
        let mac = mac(&self.0).map(|mac| mac.chain_update(digest.as_bytes()));
        mac.is_some_and(|mac| mac.verify_slice(vouch).is_ok())
    }
}

fn mac(key: &Material) -> Option<Hmac<Sha256>> {
    Hmac::<Sha256>::new_from_slice(key.expose()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_for_one_digest_and_by_one_key() {
        let [key, other] =
            [1, 2].map(|byte| VouchKey::new(Material::copied(&[byte; 32]).unwrap()).unwrap());
        let digest = Digest([7; 32]);
        let word = key.vouch(&digest).unwrap();
        assert!(key.is_vouched(&digest, &word));
        assert!(!other.is_vouched(&digest, &word));
        assert!(!key.is_vouched(&Digest([8; 32]), &word));
        for bit in 0..256 {
            let mut changed = word;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.is_vouched(&digest, &changed), "bit {bit}");
        }
    }
}
