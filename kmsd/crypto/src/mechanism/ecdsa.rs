//! ECDSA and ECDH on the NIST curves and secp256k1 (FIPS 186-5, SP 800-186, SEC 2): encodings, checks
//! of keys.
//!
//! Signatures are DER (`ECDSA-Sig-Value`, RFC 3279 §2.2.3) everywhere but in PKCS#11, which wants the
//! two numbers side by side. Key bytes are PKCS#8 DER around RFC 5915, with the public key inside.

use kms_core::algorithm::Algorithm;
use p256::elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point, ValidatePublicKey};
use p256::elliptic_curve::{
    AffinePoint, Curve, CurveArithmetic, FieldBytesSize, PublicKey, SecretKey,
};
use p256::pkcs8::{AssociatedOid, DecodePrivateKey, EncodePrivateKey};
use p384::NistP384;
use p521::NistP521;

use super::key_form;
use crate::CryptoError;
use crate::material::Material;
use crate::provider::NewKey;

/// Turns a DER signature into `r || s`, each as long as the order, as CKM_ECDSA has it (PKCS#11 v3.1
/// §6.3.1).
///
/// # Errors
/// [`CryptoError::SignatureMalformed`] when it is not strict DER of two numbers below the order.
pub fn raw_from_der(algorithm: Algorithm, der: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let raw = match algorithm {
        Algorithm::EcP256 => p256::ecdsa::Signature::from_der(der).map(|s| s.to_vec()),
        Algorithm::EcP384 => p384::ecdsa::Signature::from_der(der).map(|s| s.to_vec()),
        Algorithm::EcP521 => p521::ecdsa::Signature::from_der(der).map(|s| s.to_vec()),
        Algorithm::EcSecp256k1 => k256::ecdsa::Signature::from_der(der).map(|s| s.to_vec()),
        _ => return Err(CryptoError::SignatureMalformed),
    };
    raw.map_err(|_| CryptoError::SignatureMalformed)
}

/// Turns `r || s` into DER.
///
/// # Errors
/// [`CryptoError::SignatureMalformed`] when a number is zero or not below the order, or the length is
/// another.
pub fn der_from_raw(algorithm: Algorithm, raw: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let der = match algorithm {
        Algorithm::EcP256 => {
            p256::ecdsa::Signature::from_slice(raw).map(|s| s.to_der().as_bytes().to_vec())
        }
        Algorithm::EcP384 => {
            p384::ecdsa::Signature::from_slice(raw).map(|s| s.to_der().as_bytes().to_vec())
        }
        Algorithm::EcP521 => {
            p521::ecdsa::Signature::from_slice(raw).map(|s| s.to_der().as_bytes().to_vec())
        }
        Algorithm::EcSecp256k1 => {
            k256::ecdsa::Signature::from_slice(raw).map(|s| s.to_der().as_bytes().to_vec())
        }
        _ => return Err(CryptoError::SignatureMalformed),
    };
    der.map_err(|_| CryptoError::SignatureMalformed)
}

/// Checks that `spki` is a SubjectPublicKeyInfo with an uncompressed point on the curve. The curves
/// have prime order, so every such point is in the group (SP 800-56A §5.6.2.3.4).
///
/// # Errors
/// [`CryptoError::PublicKeyInvalid`] when it is not.
pub fn check_public_key(algorithm: Algorithm, spki: &[u8]) -> Result<(), CryptoError> {
    let raw = key_form::raw_public_key(algorithm, spki)?;
    let valid = match algorithm {
        Algorithm::EcP256 => p256::PublicKey::from_sec1_bytes(raw).is_ok(),
        Algorithm::EcP384 => p384::PublicKey::from_sec1_bytes(raw).is_ok(),
        Algorithm::EcP521 => p521::PublicKey::from_sec1_bytes(raw).is_ok(),
        Algorithm::EcSecp256k1 => k256::PublicKey::from_sec1_bytes(raw).is_ok(),
        _ => false,
    };
    // 05 and the compressed and hybrid forms are of another length or are refused by this.
    if valid && raw.first() == Some(&UNCOMPRESSED) {
        Ok(())
    } else {
        Err(CryptoError::PublicKeyInvalid { algorithm })
    }
}

/// Takes in a PKCS#8 document: a scalar from 1 to the order less 1, and, if there is a public key
/// beside it, the one that belongs to it.
pub(crate) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    match algorithm {
        Algorithm::EcP256 => import_on::<p256::NistP256>(algorithm, material),
        Algorithm::EcP384 => import_on::<NistP384>(algorithm, material),
        Algorithm::EcP521 => import_on::<NistP521>(algorithm, material),
        Algorithm::EcSecp256k1 => import_on::<k256::Secp256k1>(algorithm, material),
        _ => Err(CryptoError::MaterialRefused),
    }
}

/// The form in which a key of this curve is kept.
pub(crate) fn new_key<C>(algorithm: Algorithm, key: &SecretKey<C>) -> Result<NewKey, CryptoError>
where
    C: AssociatedOid + Curve + CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let failed = |_| CryptoError::ProviderFailed { algorithm };
    let document = key.to_pkcs8_der().map_err(failed)?;
    let point = key.public_key().to_sec1_point(false);
    Ok(NewKey {
        material: Material::copied(document.as_bytes())?,
        public_key: key_form::public_key_from_raw(algorithm, point.as_bytes())?,
    })
}

/// The leftmost bits of a digest as a number of the order's size (FIPS 186-5 §6.4.1), in as many bytes
/// as the curve's own hash function gives. So one library entry, the curve with its own hash function,
/// does the work for every hash function.
pub(crate) fn representative(algorithm: Algorithm, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let length = match algorithm {
        Algorithm::EcP256 | Algorithm::EcSecp256k1 => 32,
        Algorithm::EcP384 => 48,
        Algorithm::EcP521 => 64,
        _ => return Err(CryptoError::ProviderFailed { algorithm }),
    };
    let mut number = vec![0; length];
    let taken = digest.len().min(length);
    number[length - taken..].copy_from_slice(&digest[..taken]);
    Ok(number)
}

fn import_on<C>(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError>
where
    C: AssociatedOid + Curve + CurveArithmetic + ValidatePublicKey,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let key = SecretKey::<C>::from_pkcs8_der(material.expose())
        .map_err(|_| CryptoError::MaterialRefused)?;
    // RFC 5915 has room for a public key inside, which the library has compared; RFC 5958 has one
    // outside, which is compared here.
    let outside = p256::pkcs8::PrivateKeyInfoRef::try_from(material.expose())
        .map_err(|_| CryptoError::MaterialRefused)?
        .public_key;
    if let Some(outside) = outside {
        let claimed = outside.as_bytes().and_then(|raw| PublicKey::from_sec1_bytes(raw).ok());
        if claimed != Some(key.public_key()) {
            return Err(CryptoError::MaterialRefused);
        }
    }
    new_key(algorithm, &key)
}

/// A bare scalar as PKCS#8 around RFC 5915, without a public key.
pub(crate) fn from_scalar(algorithm: Algorithm, scalar: &[u8]) -> Result<Material, CryptoError> {
    let length = scalar.len() as u8;
    let head = [0x30, length + 5, 0x02, 0x01, 0x01, 0x04, length];
    key_form::pkcs8(algorithm, &[&head, scalar])
}

const UNCOMPRESSED: u8 = 4;

#[cfg(test)]
mod tests {
    use super::super::known;
    use super::*;

    /// Each curve with the length of its field in bytes.
    const CURVES: [(Algorithm, usize); 4] = [
        (Algorithm::EcP256, 32),
        (Algorithm::EcP384, 48),
        (Algorithm::EcP521, 66),
        (Algorithm::EcSecp256k1, 32),
    ];

    fn key(algorithm: Algorithm, bytes: usize, number: u8) -> NewKey {
        let mut scalar = vec![0; bytes];
        scalar[bytes - 1] = number;
        import(algorithm, &from_scalar(algorithm, &scalar).unwrap()).unwrap()
    }

    #[test]
    fn the_two_signature_formats_turn_into_each_other() {
        for (algorithm, bytes) in CURVES {
            let mut raw = vec![0x7f; 2 * bytes];
            // P-521 has 521 bits in 66 bytes.
            (raw[0], raw[bytes]) = (1, 1);
            let der = der_from_raw(algorithm, &raw).unwrap();
            assert_eq!(raw_from_der(algorithm, &der), Ok(raw.clone()));
            assert!(der_from_raw(Algorithm::Rsa2048, &raw).is_err());
        }
    }

    #[test]
    fn malformed_signatures_are_refused() {
        let malformed = Err(CryptoError::SignatureMalformed);
        for (algorithm, bytes) in CURVES {
            assert_eq!(der_from_raw(algorithm, &vec![0; 2 * bytes]), malformed);
            assert_eq!(der_from_raw(algorithm, &vec![0xff; 2 * bytes]), malformed);
            assert_eq!(der_from_raw(algorithm, &vec![1; 2 * bytes - 1]), malformed);
            for der in ["", "3000", "300602010002010000", "3006020100020100"] {
                assert_eq!(raw_from_der(algorithm, &known(der)), malformed, "{der}");
            }
        }
    }

    #[test]
    fn a_point_off_the_curve_in_another_form_or_of_another_curve_is_refused() {
        for (algorithm, bytes) in CURVES {
            let good = key(algorithm, bytes, 7).public_key;
            assert_eq!(check_public_key(algorithm, &good), Ok(()));
            let mut off_curve = good.clone();
            *off_curve.last_mut().unwrap() ^= 1;
            let mut hybrid = good.clone();
            let form = good.len() - 2 * bytes - 1;
            hybrid[form] = 6 | (good[good.len() - 1] & 1);
            for bad in [&off_curve[..], &hybrid, &good[..good.len() - 1], &[]] {
                let refused = check_public_key(algorithm, bad);
                assert_eq!(refused, Err(CryptoError::PublicKeyInvalid { algorithm }));
            }
            for (other, _) in CURVES.into_iter().filter(|(other, _)| *other != algorithm) {
                assert!(check_public_key(other, &good).is_err());
            }
        }
    }

    #[test]
    fn only_a_scalar_of_the_curve_with_its_own_public_key_is_imported() {
        let algorithm = Algorithm::EcP256;
        let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
        let refused = |bytes: &[u8]| {
            let found = import(algorithm, &Material::copied(bytes).unwrap());
            assert_eq!(found.err(), Some(CryptoError::MaterialRefused));
        };
        for scalar in [[0; 32].to_vec(), known(order), [0xff; 32].to_vec()] {
            refused(from_scalar(algorithm, &scalar).unwrap().expose());
        }
        let (kept, other) = (key(algorithm, 32, 7), key(algorithm, 32, 8));
        assert!(import(Algorithm::EcP384, &kept.material).is_err());
        refused(&kept.material.expose()[1..]);
        refused(&kept.material.expose()[..kept.material.len() - 1]);
        // The public key inside, changed to the point of another key.
        let mut mixed = kept.material.expose().to_vec();
        let at = mixed.len() - 65;
        mixed[at..].copy_from_slice(&other.public_key[other.public_key.len() - 65..]);
        refused(&mixed);
    }

    #[test]
    fn a_digest_is_cut_or_filled_to_the_size_of_the_order() {
        assert_eq!(representative(Algorithm::EcP256, &[7; 64]), Ok(vec![7; 32]));
        let filled = representative(Algorithm::EcP384, &[7; 32]).unwrap();
        assert_eq!(filled, [&[0; 16][..], &[7; 32]].concat());
    }
}
