//! PINs of key rings, kept as argon2id hashes in PHC format.
//!
//! Counting wrong ones and locking is the daemon's work. It must be as slow to say no to an unknown
//! ring as to a known one: that is what [`burn`] is for.

use argon2::password_hash::phc::{Ident, Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Params};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use crate::CryptoError;
use crate::passphrase::stretch;
use crate::random;
use crate::unlock::Argon2Cost;

/// Hashes a PIN under a fresh salt.
///
/// # Errors
/// [`CryptoError::PinLength`] for a PIN outside [`PIN_BYTES_MIN`] to [`PIN_BYTES_MAX`], or
/// [`CryptoError::RandomFailed`].
pub fn hash_pin(pin: &SecretString, cost: Argon2Cost) -> Result<String, CryptoError> {
    if !(PIN_BYTES_MIN..=PIN_BYTES_MAX).contains(&pin.expose_secret().len()) {
        return Err(CryptoError::PinLength);
    }
    let salt = random::array::<SALT_BYTES>()?;
    let mut hash = [0; HASH_BYTES];
    stretch(pin, &salt, cost, &mut hash)?;
    phc(cost, &salt, &hash).ok_or(CryptoError::PinHashMalformed)
}

/// Whether `pin` is the one that was hashed.
///
/// # Errors
/// [`CryptoError::PinHashMalformed`] when `hash` is no argon2id hash within bounds, which is not the
/// fault of whoever types the PIN.
pub fn verify_pin(pin: &SecretString, hash: &str) -> Result<bool, CryptoError> {
    let (cost, salt, expected) = parsed(hash).ok_or(CryptoError::PinHashMalformed)?;
    let mut found = [0; HASH_BYTES];
    stretch(pin, &salt, cost, &mut found)?;
    Ok(found.ct_eq(&expected).into())
}

/// Does the work of [`verify_pin`] for a PIN that does not exist.
///
/// # Errors
/// Those of [`verify_pin`].
pub fn burn(cost: Argon2Cost) -> Result<(), CryptoError> {
    let mut hash = [0; HASH_BYTES];
    stretch(&"unknown ring".into(), &[0; SALT_BYTES], cost, &mut hash)
}

fn phc(cost: Argon2Cost, salt: &[u8], hash: &[u8]) -> Option<String> {
    let params = Params::new(cost.m_kib(), cost.t(), cost.p(), None).ok()?;
    let hash = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(ARGON2_VERSION),
        params: ParamsString::try_from(&params).ok()?,
        salt: Some(Salt::new(salt).ok()?),
        hash: Some(Output::new(hash).ok()?),
    };
    Some(hash.to_string())
}

fn parsed(hash: &str) -> Option<(Argon2Cost, Salt, [u8; HASH_BYTES])> {
    const ARGON2ID: Ident = ARGON2ID_IDENT;
    let hash = PasswordHash::new(hash).ok()?;
    if hash.algorithm != ARGON2ID || hash.version != Some(ARGON2_VERSION) {
        return None;
    }
    let params = Params::try_from(&hash).ok()?;
    let cost = Argon2Cost::new(params.m_cost(), params.t_cost(), params.p_cost()).ok()?;
    let expected = hash.hash?.as_bytes().try_into().ok()?;
    Some((cost, hash.salt?, expected))
}

/// Shortest PIN, in bytes.
pub const PIN_BYTES_MIN: usize = 8;
/// Longest PIN, in bytes.
pub const PIN_BYTES_MAX: usize = 255;

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
const ARGON2_VERSION: u32 = 0x13;

#[cfg(test)]
mod tests {
    use super::*;

    fn cost() -> Argon2Cost {
        Argon2Cost::new(8, 1, 1).unwrap()
    }

    #[test]
    fn the_right_pin_is_accepted_and_a_wrong_one_is_not() {
        let hash = hash_pin(&"12345678".into(), cost()).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{hash}");
        assert_eq!(verify_pin(&"12345678".into(), &hash), Ok(true));
        assert_eq!(verify_pin(&"12345679".into(), &hash), Ok(false));
        assert_eq!(verify_pin(&"".into(), &hash), Ok(false));
        assert_ne!(hash, hash_pin(&"12345678".into(), cost()).unwrap(), "salts differ");
    }

    #[test]
    fn pins_outside_the_length_rule_are_not_hashed() {
        for (length, fits) in [(0, false), (7, false), (8, true), (255, true), (256, false)] {
            let hashed = hash_pin(&"x".repeat(length).into(), cost());
            assert_eq!(hashed.is_ok(), fits, "{length}");
            assert!(fits || hashed == Err(CryptoError::PinLength));
        }
    }

    #[test]
    fn a_damaged_hash_and_one_that_asks_for_all_memory_are_refused() {
        let good = hash_pin(&"12345678".into(), cost()).unwrap();
        for bad in [
            String::new(),
            "$argon2id$".to_owned(),
            good.replace("m=8", "m=1073741824"),
            good.replace("t=1", "t=4000000000"),
            good.replace("p=1", "p=9"),
            good.replace("argon2id", "argon2i"),
            good.replace("v=19", "v=16"),
            good[..good.len() - 4].to_owned(),
        ] {
            let refused = verify_pin(&"12345678".into(), &bad);
            assert_eq!(refused, Err(CryptoError::PinHashMalformed), "{bad}");
        }
    }

    #[test]
    fn the_work_can_be_burnt() {
        assert_eq!(burn(cost()), Ok(()));
    }
}
