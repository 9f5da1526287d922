//! Ed25519 and X25519 (RFC 8032, RFC 7748): forms and checks of keys. Key bytes are the PKCS#8 of RFC
//! 8410, version 1, without the public key.

use ed25519_dalek::{SigningKey, VerifyingKey};
use kms_core::algorithm::Algorithm;
use subtle::ConstantTimeEq;
use x25519_dalek::StaticSecret;

use super::key_form::{self, inside_pkcs8, pkcs8, raw_public_key, secret_array};
use crate::CryptoError;
use crate::material::Material;
use crate::provider::NewKey;

/// Checks a public key. Ed25519: a point in its one encoding (RFC 8032 §5.1.3) and not one of the
/// eight of small order, whose signatures say nothing. X25519: any 32 bytes but a point of small
/// order, which would make every agreement zero (RFC 7748 §6.1).
///
/// # Errors
/// [`CryptoError::PublicKeyInvalid`] when it is not.
pub fn check_public_key(algorithm: Algorithm, spki: &[u8]) -> Result<(), CryptoError> {
    let invalid = CryptoError::PublicKeyInvalid { algorithm };
    let raw: [u8; 32] = raw_public_key(algorithm, spki)?.try_into().map_err(|_| invalid.clone())?;
    let valid = match algorithm {
        Algorithm::Ed25519 => VerifyingKey::from_bytes(&raw)
            .is_ok_and(|key| !key.is_weak() && key.to_edwards().compress().to_bytes() == raw),
        Algorithm::X25519 => {
            // Every clamped scalar is a multiple of 8, so it takes exactly these points to zero.
            StaticSecret::from([1; 32]).diffie_hellman(&raw.into()).was_contributory()
        }
        _ => false,
    };
    if valid { Ok(()) } else { Err(invalid) }
}

/// Takes in a PKCS#8 document. A public key in it (version 2) must be the one that belongs to it.
pub(crate) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    let (inner, claimed) =
        inside_pkcs8(algorithm, material.expose()).ok_or(CryptoError::MaterialRefused)?;
    let seed = inner.strip_prefix(&INNER_HEADER).ok_or(CryptoError::MaterialRefused)?;
    let key = new_key(algorithm, seed)?;
    let own = raw_public_key(algorithm, &key.public_key)?;
    if claimed.is_some_and(|claimed| !bool::from(claimed.ct_eq(own))) {
        return Err(CryptoError::MaterialRefused);
    }
    Ok(key)
}

/// The form in which the key of 32 secret bytes is kept.
pub(crate) fn new_key(algorithm: Algorithm, seed: &[u8]) -> Result<NewKey, CryptoError> {
    let secret = secret_array::<32>(seed)?;
    let public_key = match algorithm {
        Algorithm::Ed25519 => SigningKey::from_bytes(&secret).verifying_key().to_bytes(),
        Algorithm::X25519 => x25519_dalek::PublicKey::from(&StaticSecret::from(*secret)).to_bytes(),
        _ => return Err(CryptoError::MaterialRefused),
    };
    Ok(NewKey {
        material: pkcs8(algorithm, &[&INNER_HEADER, seed])?,
        public_key: key_form::public_key_from_raw(algorithm, &public_key)?,
    })
}

/// The 32 secret bytes of a key in its one form.
pub(crate) fn seed(algorithm: Algorithm, key: &Material) -> Result<&[u8], CryptoError> {
    inside_pkcs8(algorithm, key.expose())
        .and_then(|(inner, _)| inner.strip_prefix(&INNER_HEADER))
        .filter(|seed| seed.len() == 32)
        .ok_or(CryptoError::ProviderFailed { algorithm })
}

/// The secret of an X25519 agreement, unless it is zero (RFC 7748 §6.1).
pub(crate) fn shared_secret(secret: &[u8]) -> Result<Material, CryptoError> {
    if bool::from(secret.ct_eq(&[0; SEED_BYTES])) {
        return Err(CryptoError::PublicKeyInvalid { algorithm: Algorithm::X25519 });
    }
    Material::copied(secret)
}

/// Length of the secret bytes of a key.
pub const SEED_BYTES: usize = 32;
/// `CurvePrivateKey ::= OCTET STRING` inside the OCTET STRING (RFC 8410 §7).
const INNER_HEADER: [u8; 2] = [0x04, 0x20];

#[cfg(test)]
mod tests {
    use super::super::known;
    use super::*;

    #[test]
    fn points_of_small_order_and_in_another_encoding_are_refused() {
        let refused = |algorithm, raw: &[u8]| {
            let spki = key_form::public_key_from_raw(algorithm, raw).unwrap();
            let found = check_public_key(algorithm, &spki);
            assert_eq!(found, Err(CryptoError::PublicKeyInvalid { algorithm }));
        };
        // The neutral element; y = p + 1, the same again; x = 0 with the sign bit.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        refused(Algorithm::Ed25519, &neutral);
        neutral[31] = 0x80;
        refused(Algorithm::Ed25519, &neutral);
        refused(Algorithm::Ed25519, &known(&format!("ee{}7f", "ff".repeat(30))));
        // y = p + 3, whose one encoding is 3: a point of large order.
        refused(Algorithm::Ed25519, &known(&format!("f0{}7f", "ff".repeat(30))));
        refused(Algorithm::X25519, &[0; 32]);
        refused(Algorithm::X25519, &neutral);
    }

    #[test]
    fn a_public_key_that_is_not_its_own_is_not_imported() {
        let algorithm = Algorithm::Ed25519;
        let seed = [7; 32];
        let own = new_key(algorithm, &seed).unwrap();
        let own_raw = raw_public_key(algorithm, &own.public_key).unwrap();
        let version_2 = |public: &[u8]| {
            let document = [
                &[0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70][..],
                &[0x04, 0x22, 0x04, 0x20],
                &seed,
                &[0x81, 0x21, 0x00],
                public,
            ]
            .concat();
            import(algorithm, &Material::copied(&document).unwrap())
        };
        assert_eq!(version_2(own_raw).unwrap().public_key, own.public_key);
        assert_eq!(version_2(&[9; 32]).err(), Some(CryptoError::MaterialRefused));
        let cut = Material::copied(&own.material.expose()[..47]).unwrap();
        assert_eq!(import(algorithm, &cut).err(), Some(CryptoError::MaterialRefused));
        let other = new_key(Algorithm::X25519, &seed).unwrap().material;
        assert_eq!(import(algorithm, &other).err(), Some(CryptoError::MaterialRefused));
    }
}
