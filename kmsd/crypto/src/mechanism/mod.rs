//! The mechanisms, one file each: parameters, encodings, checks of public keys, known answers.
//!
//! What is carried out with a private key is a [`crate::provider::Provider`]'s work. A new mechanism
//! is one more file here, its algorithm in `kms-core`, and one arm in each provider and in
//! [`crate::selftest`].

pub mod aes_gcm;
pub mod ecdsa;
pub mod hmac;
pub mod rsa;

/// Reads hexadecimal text of this crate's own known answers; line breaks do not count.
pub(crate) fn known(text: &str) -> Vec<u8> {
    let digits: String = text.split_ascii_whitespace().collect();
    // A typing error in a known answer gives no bytes, which no test accepts.
    hex::decode(digits).unwrap_or_default()
}
