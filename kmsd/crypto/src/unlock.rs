//! The root key and the ways in which it opens.
//!
//! Here are the passphrase and the loud development file. Reading the wrap from a disk and asking for
//! the passphrase is the daemon's work.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::CryptoError;
use crate::kdf;
use crate::material::Material;
pub use crate::passphrase::Argon2Cost;
use crate::passphrase::stretch;
use crate::random;
use crate::wrap;

/// The key above all others. It is not printed:
///
/// ```compile_fail
/// fn print(root: kms_crypto::unlock::RootKey) { println!("{root:?}"); }
/// ```
///
/// nor copied:
///
/// ```compile_fail
/// fn copy(root: &kms_crypto::unlock::RootKey) -> kms_crypto::unlock::RootKey { root.clone() }
/// ```
///
/// but handed on:
///
/// ```
/// fn hand_on(root: kms_crypto::unlock::RootKey) -> kms_crypto::unlock::RootKey { root }
/// ```
pub struct RootKey(Material);

impl RootKey {
    /// A new random root.
    ///
    /// # Errors
    /// [`CryptoError::RandomFailed`], or the arena's errors.
    pub fn generate() -> Result<Self, CryptoError> {
        Material::random(ROOT_BYTES).map(Self)
    }

    fn new(material: Material) -> Option<Self> {
        (material.len() == ROOT_BYTES).then_some(Self(material))
    }

    pub(crate) const fn material(&self) -> &Material {
        &self.0
    }
}

/// The root key wrapped by a passphrase, as stored. Not secret, but a target for guessing.
///
/// ```text
/// stretched = argon2id(passphrase, salt, m_kib, t, p), 32 bytes
/// check     = first 16 bytes of HKDF(stretched, "kms-passphrase-check")
/// wrapped   = KWP(HKDF(stretched, "kms-passphrase-root"), root key)
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassphraseWrap {
    /// Memory of argon2id, in KiB.
    pub m_kib: u32,
    /// Passes of argon2id.
    pub t: u32,
    /// Lanes of argon2id.
    pub p: u32,
    /// The salt; lower-case hexadecimal.
    pub salt: String,
    /// Tells a wrong passphrase from a damaged wrap; lower-case hexadecimal.
    pub check: String,
    /// The wrapped root key; lower-case hexadecimal.
    pub wrapped: String,
}

/// Wraps `root` by `passphrase`.
///
/// # Errors
/// [`CryptoError::RandomFailed`], or the arena's errors.
pub fn wrap_by_passphrase(
    root: &RootKey,
    passphrase: &SecretString,
    cost: Argon2Cost,
) -> Result<PassphraseWrap, CryptoError> {
    let salt = random::array::<SALT_BYTES>()?;
    let Stretched { check, wrapping } = Stretched::new(passphrase, &salt, cost)?;
    let wrapped = wrap::wrap(&wrapping, root.material())?;
    Ok(PassphraseWrap {
        m_kib: cost.m_kib(),
        t: cost.t(),
        p: cost.p(),
        salt: hex::encode(salt),
        check: hex::encode(check),
        wrapped: hex::encode(wrapped),
    })
}

/// Opens what [`wrap_by_passphrase`] made.
///
/// # Errors
/// [`CryptoError::PassphraseIncorrect`]; [`CryptoError::CostOutOfBounds`] or
/// [`CryptoError::PassphraseWrapMalformed`] when the stored wrap was edited or damaged.
pub fn unwrap_by_passphrase(
    stored: &PassphraseWrap,
    passphrase: &SecretString,
) -> Result<RootKey, CryptoError> {
    const MALFORMED: CryptoError = CryptoError::PassphraseWrapMalformed;
    let PassphraseWrap { m_kib, t, p, salt, check, wrapped } = stored;
    let cost = Argon2Cost::new(*m_kib, *t, *p)?;
    let salt = fixed::<SALT_BYTES>(salt).ok_or(MALFORMED)?;
    let check = fixed::<CHECK_BYTES>(check).ok_or(MALFORMED)?;
    let wrapped = fixed::<WRAPPED_BYTES>(wrapped).ok_or(MALFORMED)?;
    let stretched = Stretched::new(passphrase, &salt, cost)?;
    if !bool::from(stretched.check.ct_eq(&check)) {
        return Err(CryptoError::PassphraseIncorrect);
    }
    let root = wrap::unwrap(&stretched.wrapping, &wrapped).map_err(|error| match error {
        CryptoError::WrapRefused => MALFORMED,
        other => other,
    })?;
    RootKey::new(root).ok_or(MALFORMED)
}

struct Stretched {
    check: [u8; CHECK_BYTES],
    wrapping: Material,
}

impl Stretched {
    fn new(passphrase: &SecretString, salt: &[u8], cost: Argon2Cost) -> Result<Self, CryptoError> {
        let stretched = Material::made_in_place(kdf::DERIVED_BYTES, |bytes| {
            stretch(passphrase, salt, cost, bytes).map(|()| kdf::DERIVED_BYTES)
        })?;
        let derived = kdf::derive(&stretched, b"", "kms-passphrase-check", b"")?;
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&derived.expose()[..CHECK_BYTES]);
        let wrapping = kdf::derive(&stretched, b"", "kms-passphrase-root", b"")?;
        Ok(Self { check, wrapping })
    }
}

/// **The root key in the clear, for `kmsd dev` only.** Whoever reads the file owns every key.
///
/// The daemon refuses this way in release appliances; the file itself says what it is.
pub struct DevFile;

impl DevFile {
    /// The text of a new file, with a new random root in it.
    ///
    /// # Errors
    /// [`CryptoError::RandomFailed`].
    pub fn generate_plaintext_root() -> Result<SecretString, CryptoError> {
        let mut root = Zeroizing::new([0; ROOT_BYTES]);
        random::fill(root.as_mut_slice())?;
        let digits = Zeroizing::new(hex::encode(root.as_slice()));
        Ok(SecretString::from(format!("{DEV_WARNING}{}\n", digits.as_str())))
    }

    /// Reads the root out of the text of such a file.
    ///
    /// # Errors
    /// [`CryptoError::DevFileMalformed`] when it does not hold exactly one root.
    pub fn read_plaintext_root(text: &SecretString) -> Result<RootKey, CryptoError> {
        const MALFORMED: CryptoError = CryptoError::DevFileMalformed;
        let mut lines = text
            .expose_secret()
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(digits), None) = (lines.next(), lines.next()) else { return Err(MALFORMED) };
        let mut root = Zeroizing::new(fixed::<ROOT_BYTES>(digits).ok_or(MALFORMED)?);
        Material::import(root.as_mut_slice()).map(RootKey)
    }
}

/// Reads exactly `N` bytes of lower-case hexadecimal text.
fn fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let mut bytes = [0; N];
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

/// Length of the root key, that of every wrapping key below it.
const ROOT_BYTES: usize = 32;
const WRAPPED_BYTES: usize = ROOT_BYTES + 8;
const SALT_BYTES: usize = 16;
const CHECK_BYTES: usize = 16;
const DEV_WARNING: &str = "# kmsd dev: THE ROOT KEY IN THE CLEAR. Whoever reads this file owns every \
                           key of this\n# daemon. For development only; never put real keys here.\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn cost() -> Argon2Cost {
        Argon2Cost::new(8, 1, 1).unwrap()
    }

    fn refusal(wrap: &PassphraseWrap, passphrase: &str) -> Option<CryptoError> {
        unwrap_by_passphrase(wrap, &passphrase.into()).err()
    }

    #[test]
    fn the_right_passphrase_gives_the_root_and_a_wrong_one_says_so() {
        let root = RootKey::generate().unwrap();
        let wrap = wrap_by_passphrase(&root, &"correct horse".into(), cost()).unwrap();
        let opened = unwrap_by_passphrase(&wrap, &"correct horse".into()).unwrap();
        assert_eq!(opened.material().expose(), root.material().expose());
        assert_eq!(refusal(&wrap, "correct horsf"), Some(CryptoError::PassphraseIncorrect));
        let again = wrap_by_passphrase(&root, &"correct horse".into(), cost()).unwrap();
        assert_ne!(again.wrapped, wrap.wrapped, "salts differ");
    }

    #[test]
    fn an_edited_wrap_is_refused_and_cannot_ask_for_all_memory() {
        let root = RootKey::generate().unwrap();
        let good = wrap_by_passphrase(&root, &"pass".into(), cost()).unwrap();
        let out_of_bounds = Some(CryptoError::CostOutOfBounds);
        let greedy = PassphraseWrap { m_kib: 1 << 30, ..good.clone() };
        assert_eq!(refusal(&greedy, "pass"), out_of_bounds);
        let slow = PassphraseWrap { t: u32::MAX, ..good.clone() };
        assert_eq!(refusal(&slow, "pass"), out_of_bounds);
        let cheaper = PassphraseWrap { t: 2, ..good.clone() };
        assert_eq!(refusal(&cheaper, "pass"), Some(CryptoError::PassphraseIncorrect));
        let mut bytes = hex::decode(&good.wrapped).unwrap();
        bytes[20] ^= 1;
        for wrapped in [hex::encode(bytes), good.wrapped.to_uppercase(), String::new()] {
            let edited = PassphraseWrap { wrapped, ..good.clone() };
            assert_eq!(refusal(&edited, "pass"), Some(CryptoError::PassphraseWrapMalformed));
        }
        let short = PassphraseWrap { salt: "00".to_owned(), ..good };
        assert_eq!(refusal(&short, "pass"), Some(CryptoError::PassphraseWrapMalformed));
    }

    #[test]
    fn a_development_file_warns_and_comes_back() {
        let text = DevFile::generate_plaintext_root().unwrap();
        assert!(text.expose_secret().contains("THE ROOT KEY IN THE CLEAR"));
        let root = DevFile::read_plaintext_root(&text).unwrap();
        let digits = hex::encode(root.material().expose());
        assert!(text.expose_secret().contains(&digits));
        let root = |text: &str| DevFile::read_plaintext_root(&text.into()).err();
        for bad in ["", "# only a comment", "00", &digits.to_uppercase(), &digits.repeat(2)] {
            assert_eq!(root(bad), Some(CryptoError::DevFileMalformed), "{bad}");
        }
        assert_eq!(root(&format!("{digits}\n{digits}")), Some(CryptoError::DevFileMalformed));
        assert!(root(&format!("\n{digits}\r\n")).is_none());
    }
}
