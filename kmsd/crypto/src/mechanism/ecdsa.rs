//! ECDSA on P-256 with SHA-256 (FIPS 186-5): encodings, checks of public keys.
//!
//! Signatures are DER (`ECDSA-Sig-Value`, RFC 3279 §2.2.3) everywhere but in PKCS#11, which wants the
//! two numbers side by side. Key bytes are PKCS#8 DER.

use kms_core::algorithm::Algorithm;
use p256::ecdsa::Signature;
use p256::pkcs8::DecodePublicKey;

use crate::CryptoError;

/// Turns a DER signature into `r || s`, each of 32 bytes, as CKM_ECDSA has it (PKCS#11 v3.1 §6.3.1).
///
/// # Errors
/// [`CryptoError::SignatureMalformed`] when it is not strict DER of two numbers below the order.
pub fn raw_from_der(der: &[u8]) -> Result<[u8; RAW_BYTES], CryptoError> {
    let signature = Signature::from_der(der).map_err(|_| CryptoError::SignatureMalformed)?;
    Ok(signature.to_bytes().into())
}

/// Turns `r || s` into DER.
///
/// # Errors
/// [`CryptoError::SignatureMalformed`] when a number is zero or not below the order.
pub fn der_from_raw(raw: &[u8; RAW_BYTES]) -> Result<Vec<u8>, CryptoError> {
    let signature = Signature::from_slice(raw).map_err(|_| CryptoError::SignatureMalformed)?;
    Ok(signature.to_der().as_bytes().to_vec())
}

/// Checks that `spki` is a SubjectPublicKeyInfo with a point of P-256 that is on the curve.
///
/// # Errors
/// [`CryptoError::PublicKeyInvalid`] when it is not.
pub fn check_public_key(spki: &[u8]) -> Result<(), CryptoError> {
    p256::PublicKey::from_public_key_der(spki)
        .map(|_| ())
        .map_err(|_| CryptoError::PublicKeyInvalid { algorithm: Algorithm::EcP256 })
}

/// Length of `r || s`.
pub const RAW_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::known;
    use super::*;

    /// Of RFC 6979 §A.2.5.
    const SPKI: &str = "3059301306072a8648ce3d020106082a8648ce3d03010703420004
        60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6
        7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
    const SIGNATURE: &str = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716
        f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";

    #[test]
    fn the_two_signature_formats_turn_into_each_other() {
        let raw: [u8; 64] = known(SIGNATURE).try_into().unwrap();
        let der = der_from_raw(&raw).unwrap();
        assert_eq!(raw_from_der(&der), Ok(raw));
        assert_eq!(der[..4], [0x30, der.len() as u8 - 2, 0x02, 0x21]);
    }

    #[test]
    fn malformed_signatures_are_refused() {
        assert_eq!(der_from_raw(&[0; 64]), Err(CryptoError::SignatureMalformed));
        assert_eq!(der_from_raw(&[0xff; 64]), Err(CryptoError::SignatureMalformed));
        for der in ["", "3000", "300602010002010000", "3006020100020100"] {
            let refused = raw_from_der(&known(der));
            assert_eq!(refused, Err(CryptoError::SignatureMalformed), "{der}");
        }
    }

    #[test]
    fn a_point_off_the_curve_and_a_key_of_another_kind_are_refused() {
        assert_eq!(check_public_key(&known(SPKI)), Ok(()));
        let mut off_curve = known(SPKI);
        *off_curve.last_mut().unwrap() ^= 1;
        assert!(check_public_key(&off_curve).is_err());
        assert!(check_public_key(&super::super::rsa::known_public_key()).is_err());
        assert!(check_public_key(&[]).is_err());
    }
}
