//! AES key wrap with padding (KWP, RFC 5649, SP 800-38F): how every key rests under its parent.
//!
//! It needs no nonce and refuses whatever was edited. The vault is the caller; the functions are
//! public so that published vectors can be run against them. Both providers wrap the keys of callers
//! with the same code.

use aes_kw::aes::{Aes128, Aes192, Aes256};
use aes_kw::{AesKw, AesKwp, IV_LEN, KeyInit};
use kms_core::mechanism::Mechanism;

use crate::CryptoError;
use crate::material::{MATERIAL_BYTES_MAX, Material};
use crate::stack::wiping_little;

/// Wraps `key` under the 32-byte `parent`.
///
/// # Errors
/// [`CryptoError::MaterialRefused`] when `parent` is not 32 bytes long or `key` is empty.
pub fn wrap(parent: &Material, key: &Material) -> Result<Vec<u8>, CryptoError> {
    check_parent(parent)?;
    wiping_little(|| by_mechanism(Mechanism::AesKwp, parent, key))
}

/// Opens what [`wrap`] made, straight into locked memory.
///
/// # Errors
/// [`CryptoError::WrapRefused`] when `wrapped` was edited or wrapped under another key.
pub fn unwrap(parent: &Material, wrapped: &[u8]) -> Result<Material, CryptoError> {
    check_parent(parent)?;
    let opened = wiping_little(|| open_by_mechanism(Mechanism::AesKwp, parent, wrapped));
    opened.map_err(|error| match error {
        CryptoError::CiphertextRefused => CryptoError::WrapRefused,
        other => other,
    })
}

/// Wraps with AES_KW or AES_KWP, under a parent of any length that AES has.
pub(crate) fn by_mechanism(
    mechanism: Mechanism,
    parent: &Material,
    key: &Material,
) -> Result<Vec<u8>, CryptoError> {
    let (parent, bytes) = (parent.expose(), key.expose());
    let refused = |_| CryptoError::MaterialRefused;
    if bytes.is_empty() {
        return Err(CryptoError::MaterialRefused);
    }
    let mut wrapped = vec![0; key.len().next_multiple_of(IV_LEN) + IV_LEN];
    let out = &mut wrapped[..];
    match (mechanism, parent.len()) {
        (Mechanism::AesKw, _) if !key_fits_kw(bytes) => {
            let problem = "AES_KW wraps keys of 16 bytes or more, in steps of 8; AES_KWP wraps any";
            return Err(CryptoError::InputRefused { problem });
        }
        (Mechanism::AesKw, 16) => cipher::<AesKw<Aes128>>(parent)?.wrap_key(bytes, out),
        (Mechanism::AesKw, 24) => cipher::<AesKw<Aes192>>(parent)?.wrap_key(bytes, out),
        (Mechanism::AesKw, 32) => cipher::<AesKw<Aes256>>(parent)?.wrap_key(bytes, out),
        (Mechanism::AesKwp, 16) => cipher::<AesKwp<Aes128>>(parent)?.wrap_key(bytes, out),
        (Mechanism::AesKwp, 24) => cipher::<AesKwp<Aes192>>(parent)?.wrap_key(bytes, out),
        (Mechanism::AesKwp, 32) => cipher::<AesKwp<Aes256>>(parent)?.wrap_key(bytes, out),
        (Mechanism::AesKw | Mechanism::AesKwp, _) => return Err(CryptoError::MaterialRefused),
        _ => return Err(CryptoError::MechanismUnsupported { mechanism }),
    }
    .map_err(refused)?;
    Ok(wrapped)
}

/// Opens what [`by_mechanism`] made, straight into locked memory.
pub(crate) fn open_by_mechanism(
    mechanism: Mechanism,
    parent: &Material,
    wrapped: &[u8],
) -> Result<Material, CryptoError> {
    let refused = |_| CryptoError::CiphertextRefused;
    let room = wrapped
        .len()
        .checked_sub(IV_LEN)
        .filter(|room| (1..=MATERIAL_BYTES_MAX).contains(room))
        .ok_or(CryptoError::CiphertextRefused)?;
    let parent = parent.expose();
    Material::made_in_place(room, |out| {
        let key = match (mechanism, parent.len()) {
            // SP 800-38F §5.3.1: KW wraps two semiblocks or more.
            (Mechanism::AesKw, _) if room < 2 * IV_LEN => {
                return Err(CryptoError::CiphertextRefused);
            }
            (Mechanism::AesKw, 16) => cipher::<AesKw<Aes128>>(parent)?.unwrap_key(wrapped, out),
            (Mechanism::AesKw, 24) => cipher::<AesKw<Aes192>>(parent)?.unwrap_key(wrapped, out),
            (Mechanism::AesKw, 32) => cipher::<AesKw<Aes256>>(parent)?.unwrap_key(wrapped, out),
            (Mechanism::AesKwp, 16) => cipher::<AesKwp<Aes128>>(parent)?.unwrap_key(wrapped, out),
            (Mechanism::AesKwp, 24) => cipher::<AesKwp<Aes192>>(parent)?.unwrap_key(wrapped, out),
            (Mechanism::AesKwp, 32) => cipher::<AesKwp<Aes256>>(parent)?.unwrap_key(wrapped, out),
            (Mechanism::AesKw | Mechanism::AesKwp, _) => return Err(CryptoError::MaterialRefused),
            _ => return Err(CryptoError::MechanismUnsupported { mechanism }),
        }
        .map_err(refused)?;
        // RFC 5649 §3 wraps at least one byte, so an empty key was not made by us.
        if key.is_empty() { Err(CryptoError::CiphertextRefused) } else { Ok(key.len()) }
    })
}

fn cipher<C: KeyInit>(parent: &[u8]) -> Result<C, CryptoError> {
    C::new_from_slice(parent).map_err(|_| CryptoError::MaterialRefused)
}

/// SP 800-38F §5.3.1: whole semiblocks, two or more.
const fn key_fits_kw(key: &[u8]) -> bool {
    key.len() >= 2 * IV_LEN && key.len().is_multiple_of(IV_LEN)
}

/// Everything here rests under keys of 256 bits.
const fn check_parent(parent: &Material) -> Result<(), CryptoError> {
    if parent.len() == PARENT_BYTES { Ok(()) } else { Err(CryptoError::MaterialRefused) }
}

const PARENT_BYTES: usize = 32;

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
        for length in [0, 1, 7, 8, 9, 15, 17, 4200, 65_553] {
            let refused = unwrap(&parent, &vec![0; length]).err();
            assert_eq!(refused, Some(CryptoError::WrapRefused), "{length}");
        }
        let short = Material::random(16).unwrap();
        assert_eq!(wrap(&short, &parent).err(), Some(CryptoError::MaterialRefused));
    }
}
