//! AES key wrap with padding (KWP, RFC 5649, SP 800-38F): how every key rests under its parent.
//!
//! It needs no nonce and refuses whatever was edited. The vault is the caller; the functions are
//! public so that published vectors can be run against them.

use aes_kw::{AesKwp, IV_LEN, KeyInit, aes::Aes256};

use crate::CryptoError;
use crate::material::{MATERIAL_BYTES_MAX, Material};

/// Wraps `key` under the 32-byte `parent`.
///
/// # Errors
/// [`CryptoError::MaterialRefused`] when `parent` is not 32 bytes long or `key` is empty.
pub fn wrap(parent: &Material, key: &Material) -> Result<Vec<u8>, CryptoError> {
    if key.is_empty() {
        return Err(CryptoError::MaterialRefused);
    }
    let mut wrapped = vec![0; key.len().next_multiple_of(IV_LEN) + IV_LEN];
    cipher(parent)?
        .wrap_key(key.expose(), &mut wrapped)
        .map_err(|_| CryptoError::MaterialRefused)?;
    Ok(wrapped)
}

/// Opens what [`wrap`] made, straight into locked memory.
///
/// # Errors
/// [`CryptoError::WrapRefused`] when `wrapped` was edited or wrapped under another key.
pub fn unwrap(parent: &Material, wrapped: &[u8]) -> Result<Material, CryptoError> {
    let room = wrapped
        .len()
        .checked_sub(IV_LEN)
        .filter(|room| (1..=MATERIAL_BYTES_MAX).contains(room))
        .ok_or(CryptoError::WrapRefused)?;
    let cipher = cipher(parent)?;
    Material::made_in_place(room, |bytes| {
        let key = cipher.unwrap_key(wrapped, bytes).map_err(|_| CryptoError::WrapRefused)?;
        // RFC 5649 §3 wraps at least one byte, so an empty key was not made by `wrap`.
        if key.is_empty() { Err(CryptoError::WrapRefused) } else { Ok(key.len()) }
    })
}

fn cipher(parent: &Material) -> Result<AesKwp<Aes256>, CryptoError> {
    AesKwp::new_from_slice(parent.expose()).map_err(|_| CryptoError::MaterialRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back_and_every_flipped_bit_is_refused() {
        let parent = Material::random(32).unwrap();
        for length in [1, 7, 8, 9, 32, 138, 1793] {
            let key = Material::random(length).unwrap();
            let mut wrapped = wrap(&parent, &key).unwrap();
            assert_eq!(unwrap(&parent, &wrapped).unwrap().expose(), key.expose());
            for bit in [0, wrapped.len() * 4, wrapped.len() * 8 - 1] {
                wrapped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(unwrap(&parent, &wrapped).err(), Some(CryptoError::WrapRefused));
                wrapped[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn odd_inputs_are_refused() {
        let parent = Material::random(32).unwrap();
        for length in [0, 1, 7, 8, 9, 15, 17, 4200] {
            let refused = unwrap(&parent, &vec![0; length]).err();
            assert_eq!(refused, Some(CryptoError::WrapRefused), "{length}");
        }
        let short = Material::random(16).unwrap();
        assert_eq!(wrap(&short, &parent).err(), Some(CryptoError::MaterialRefused));
    }
}
