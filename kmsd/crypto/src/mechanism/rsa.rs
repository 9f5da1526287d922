//! RSA signatures of 3,072 bits with SHA-256, PKCS#1 v1.5 and PSS with a salt of 32 bytes (RFC 8017
//! §8): encodings, checks of public keys, known answers. Key bytes are PKCS#8 DER.

use kms_core::algorithm::Algorithm;
use rsa::RsaPublicKey;
use rsa::pkcs8::DecodePublicKey;
use rsa::traits::PublicKeyParts;

use crate::CryptoError;

/// Reads the SHA-256 digest out of a DER `DigestInfo` (RFC 8017 §9.2, note 1), which is what a client
/// of CKM_RSA_PKCS hands in. Anything but the one encoding of SHA-256 gives nothing.
pub fn digest_of_info(info: &[u8]) -> Option<[u8; DIGEST_BYTES]> {
    info.strip_prefix(&SHA256_INFO)?.try_into().ok()
}

/// Checks that `spki` is a SubjectPublicKeyInfo with a modulus of exactly 3,072 bits and an exponent
/// of at least 65,537 (FIPS 186-5 §A.1.1).
///
/// # Errors
/// [`CryptoError::PublicKeyInvalid`] when it is not.
pub fn check_public_key(algorithm: Algorithm, spki: &[u8]) -> Result<(), CryptoError> {
    RsaPublicKey::from_public_key_der(spki)
        .ok()
        .filter(|key| key.n().bits() == MODULUS_BITS && key.e().bits() > 16)
        .map(|_| ())
        .ok_or(CryptoError::PublicKeyInvalid { algorithm })
}

#[cfg(test)]
pub(crate) fn known_public_key() -> Vec<u8> {
    super::known(include_str!("../known_answer/rsa3072.spki.hex"))
}

/// Size of the modulus.
pub const MODULUS_BITS: u32 = 3072;
/// Length of a signature.
pub const SIGNATURE_BYTES: usize = 384;
/// Length of the salt of PSS: that of the digest.
pub const SALT_BYTES: usize = DIGEST_BYTES;
const DIGEST_BYTES: usize = 32;

/// RFC 8017 §9.2, note 1, for SHA-256.
const SHA256_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

#[cfg(test)]
mod tests {
    use super::super::known;
    use super::*;

    #[test]
    fn only_the_one_encoding_of_a_sha256_digest_info_is_read() {
        let info = [&SHA256_INFO[..], &[7; 32]].concat();
        assert_eq!(digest_of_info(&info), Some([7; 32]));
        let sha512 = known("3051300d060960864801650304020305000440");
        let without_null = known("302f300b0609608648016503040201 0420");
        for prefix in [sha512, without_null, vec![]] {
            assert_eq!(digest_of_info(&[&prefix[..], &[7; 32]].concat()), None);
        }
        assert_eq!(digest_of_info(&info[..50]), None);
        assert_eq!(digest_of_info(&[&info[..], &[0]].concat()), None);
    }

    #[test]
    fn a_damaged_or_foreign_public_key_is_refused() {
        let algorithm = Algorithm::Rsa3072;
        let good = known_public_key();
        assert_eq!(check_public_key(algorithm, &good), Ok(()));
        let mut even = good.clone();
        *even.last_mut().unwrap() = 0;
        let mut small_exponent = good.clone();
        let end = small_exponent.len();
        small_exponent[end - 3] = 0;
        for bad in [&even[..], &small_exponent, &good[..good.len() - 1], &[]] {
            let refused = check_public_key(algorithm, bad);
            assert_eq!(refused, Err(CryptoError::PublicKeyInvalid { algorithm }));
        }
    }
}
