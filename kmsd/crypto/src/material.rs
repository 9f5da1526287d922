//! Key bytes. Nothing else in the whole project has them.
//!
//! [`Material`] lives in the locked [`crate::arena`], is made in place, and is wiped on drop. There
//! are two ways in ([`Material::random`], [`Material::import`]) and no public way out: inside this
//! crate the bytes are read only to be used, to be wrapped, or to be sealed to a proven recipient.
//!
//! It cannot be printed:
//!
//! ```compile_fail
//! fn print(key: &kms_crypto::material::Material) { println!("{key:?}"); }
//! ```
//!
//! ```
//! fn print(key: &kms_crypto::material::Material) { println!("{} bytes", key.len()); }
//! ```
//!
//! nor shown as text:
//!
//! ```compile_fail
//! fn text(key: &kms_crypto::material::Material) -> String { key.to_string() }
//! ```
//!
//! ```
//! fn text(key: &kms_crypto::material::Material) -> String { key.len().to_string() }
//! ```
//!
//! nor copied:
//!
//! ```compile_fail
//! fn copy(key: &kms_crypto::material::Material) -> kms_crypto::material::Material { key.clone() }
//! ```
//!
//! ```
//! fn hand_on(key: kms_crypto::material::Material) -> kms_crypto::material::Material { key }
//! ```
//!
//! nor compared byte by byte in variable time:
//!
//! ```compile_fail
//! # use kms_crypto::material::Material;
//! fn same(a: &Material, b: &Material) -> bool { a == b }
//! ```
//!
//! ```
//! # use kms_crypto::material::Material;
//! fn same_length(a: &Material, b: &Material) -> bool { a.len() == b.len() }
//! ```
//!
//! nor written into a file or message:
//!
//! ```compile_fail
//! fn write<S: serde::Serializer>(key: &kms_crypto::material::Material, out: S) {
//!     let _ = serde::Serialize::serialize(key, out);
//! }
//! ```
//!
//! ```
//! fn write<S: serde::Serializer>(key: &kms_crypto::material::Material, out: S) {
//!     let _ = serde::Serialize::serialize(&key.len(), out);
//! }
//! ```
//!
//! nor read from outside this crate:
//!
//! ```compile_fail
//! fn read(key: &kms_crypto::material::Material) -> &[u8] { key.expose() }
//! ```
//!
//! ```
//! fn read(key: &kms_crypto::material::Material) -> bool { key.is_empty() }
//! ```

use zeroize::Zeroize;

use crate::CryptoError;
use crate::arena::Slot;
use crate::random;

/// The bytes of one key. See the module text for what cannot be done with it.
pub struct Material {
    slot: Slot,
    length: usize,
}

impl Material {
    /// A new random key of `length` bytes.
    ///
    /// # Errors
    /// [`CryptoError::RandomFailed`], or the arena's errors.
    pub fn random(length: usize) -> Result<Self, CryptoError> {
        Self::made_in_place(length, |bytes| random::fill(bytes).map(|()| length))
    }

    /// Takes a key over from outside and wipes the bytes it came in.
    ///
    /// # Errors
    /// [`CryptoError::MaterialRefused`] when there are more than [`MATERIAL_BYTES_MAX`] bytes, or the arena's errors.
    pub fn import(bytes: &mut [u8]) -> Result<Self, CryptoError> {
        let material = Self::copied(bytes);
        bytes.zeroize();
        material
    }

    /// How many bytes the key has.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether the key has no bytes at all.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Lets `write` fill up to `room` zeroed bytes and say how many of them are the key.
    pub(crate) fn made_in_place(
        room: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, CryptoError>,
    ) -> Result<Self, CryptoError> {
        let mut slot = Slot::take(room)?;
        let length = write(&mut slot.bytes_mut()[..room])?;
        if length > room {
            return Err(CryptoError::MaterialRefused);
        }
        Ok(Self { slot, length })
    }

    /// Copies bytes that their owner (a library's own buffer) wipes by itself.
    pub(crate) fn copied(bytes: &[u8]) -> Result<Self, CryptoError> {
        Self::made_in_place(bytes.len(), |room| {
            room.copy_from_slice(bytes);
            Ok(bytes.len())
        })
    }

    /// The bytes, for the length of one operation.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.slot.bytes()[..self.length]
    }
}

/// The longest: an opaque secret.
pub const MATERIAL_BYTES_MAX: usize = kms_core::algorithm::OPAQUE_SECRET_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn importing_wipes_the_source() {
        let mut source = [7_u8; 32];
        let key = Material::import(&mut source).unwrap();
        assert_eq!(source, [0; 32]);
        assert_eq!(key.expose(), [7; 32]);
    }

    #[test]
    fn importing_too_much_is_refused_and_wipes_the_source_too() {
        let mut source = vec![7_u8; MATERIAL_BYTES_MAX + 1];
        let refused = Material::import(&mut source).err();
        assert_eq!(refused, Some(CryptoError::MaterialRefused));
        assert!(source.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn random_keys_differ_and_have_their_length() {
        let (a, b) = (Material::random(32).unwrap(), Material::random(32).unwrap());
        assert_eq!(a.len(), 32);
        assert_ne!(a.expose(), b.expose());
    }

    #[test]
    fn a_writer_that_claims_more_than_its_room_is_refused() {
        let refused = Material::made_in_place(32, |_| Ok(33)).err();
        assert_eq!(refused, Some(CryptoError::MaterialRefused));
    }
}
