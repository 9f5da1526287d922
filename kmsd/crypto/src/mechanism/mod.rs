//! What the mechanisms ask for, whoever carries them out: parameters, encodings, checks of public keys.
//!
//! The work itself is a [`crate::provider::Provider`]'s. A new mechanism has its line in `kms-core`, one
//! arm in each provider, and its known answers in [`crate::selftest`].

pub mod cipher;
pub mod ecdsa;
pub mod eddsa;
pub mod key_form;
pub mod mac;
pub mod ml_dsa;
pub mod ml_kem;
pub mod rsa;
pub mod slh_dsa;
pub mod x_wing;

/// Reads hexadecimal text of this crate's own known answers; line breaks do not count.
pub(crate) fn known(text: &str) -> Vec<u8> {
    let digits: String = text.split_ascii_whitespace().collect();
    // A typing error in a known answer gives no bytes, which no test accepts.
    hex::decode(digits).unwrap_or_default()
}
