//! Key derivation: HKDF-SHA-256 (RFC 5869) with one shape of `info` for all uses.
//!
//! ```text
//! lp(x)   = length of x as 4 big-endian bytes || x
//! derived = HKDF-SHA-256(ikm = parent, salt, info = lp(label) || lp(context)), 32 bytes
//! ```

use hkdf::Hkdf;
use sha2::Sha256;

use crate::CryptoError;
use crate::material::Material;
use crate::stack::wiping_little;

/// Derives a 32-byte key. The label says what for, so that no two uses share a key; the context binds
/// the name or header that must not be exchanged.
pub(crate) fn derive(
    parent: &Material,
    salt: &[u8],
    label: &str,
    context: &[u8],
) -> Result<Material, CryptoError> {
    let label = label.as_bytes();
    let info = [&length_prefix(label), label, &length_prefix(context), context];
    wiping_little(|| {
        let hkdf = Hkdf::<Sha256>::new(Some(salt), parent.expose());
        Material::made_in_place(DERIVED_BYTES, |bytes| {
            hkdf.expand_multi_info(&info, bytes).map_err(|_| CryptoError::MaterialRefused)?;
            Ok(DERIVED_BYTES)
        })
    })
}

/// The length of `part` as four big-endian bytes. Labels, names and headers are far below 4 GiB; a
/// longer part saturates, which only makes its key open nothing.
pub(crate) fn length_prefix(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// Every derived key is one for AES-256 or HMAC-SHA-256.
pub(crate) const DERIVED_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_context_salt_and_parent_each_move_the_key() {
        let parent = Material::copied(&[1; 32]).unwrap();
        let other = Material::copied(&[2; 32]).unwrap();
        let keys = [
            derive(&parent, b"", "a", b"b").unwrap(),
            derive(&parent, b"", "ab", b"").unwrap(),
            derive(&parent, b"", "a", b"c").unwrap(),
            derive(&parent, b"s", "a", b"b").unwrap(),
            derive(&other, b"", "a", b"b").unwrap(),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys.iter().skip(i + 1).all(|b| a.expose() != b.expose()));
        }
    }

    #[test]
    fn the_derivation_is_the_documented_one() {
        // Computed with HMAC by hand (RFC 5869 §2): the format in the module text is a promise.
        use hmac::{Hmac, KeyInit, Mac};
        let hmac = |key: &[u8], parts: &[&[u8]]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
            parts.iter().for_each(|part| mac.update(part));
            mac.finalize().into_bytes()
        };
        let extracted = hmac(b"salt", &[&[1; 32]]);
        let expected = hmac(&extracted, &[&[0, 0, 0, 5], b"label", &[0, 0, 0, 4], b"name", &[1]]);
        let parent = Material::copied(&[1; 32]).unwrap();
        let derived = derive(&parent, b"salt", "label", b"name").unwrap();
        assert_eq!(derived.expose(), expected.as_slice());
    }
}
