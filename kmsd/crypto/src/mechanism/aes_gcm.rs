//! AES-256 in Galois/Counter Mode (SP 800-38D), with IVs of 96 bits that are made here and nowhere
//! else, and tags of 128 bits.
//!
//! Random IVs bound one key to 2^32 uses (SP 800-38D §8.3). The counting is the daemon's.

use super::known;
use crate::CryptoError;
use crate::material::Material;
use crate::provider::Provider;

/// What encryption gives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// The IV that was drawn for it.
    pub iv: [u8; IV_BYTES],
    /// The ciphertext with the tag behind it.
    pub ciphertext: Vec<u8>,
}

/// Opens test case 16 of the GCM specification, refuses it with one bit changed, and gets back what
/// it sealed itself.
pub(crate) fn known_answer(provider: &dyn Provider) -> Result<bool, CryptoError> {
    let key = Material::copied(&known(KEY))?;
    let (aad, plaintext, mut ciphertext) = (known(AAD), known(PLAINTEXT), known(CIPHERTEXT));
    let opened = provider.open(&key, &IV, &aad, &ciphertext)?;
    let Sealed { iv, ciphertext: own } = provider.seal(&key, &aad, &plaintext)?;
    let reopened = provider.open(&key, &iv, &aad, &own)?;
    ciphertext[0] ^= 1;
    let edited = provider.open(&key, &IV, &aad, &ciphertext);
    Ok(opened == plaintext
        && reopened == plaintext
        && edited == Err(CryptoError::CiphertextRefused))
}

/// Length of a key.
pub const KEY_BYTES: usize = 32;
/// Length of an IV.
pub const IV_BYTES: usize = 12;
/// Length of a tag.
pub const TAG_BYTES: usize = 16;

const KEY: &str = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
const IV: [u8; IV_BYTES] = [0xca, 0xfe, 0xba, 0xbe, 0xfa, 0xce, 0xdb, 0xad, 0xde, 0xca, 0xf8, 0x88];
const AAD: &str = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
const PLAINTEXT: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39";
const CIPHERTEXT: &str = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
    8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b";
