//! The flat list of algorithms that a key may have, and what each can do.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a key is, once and for all: algorithm, size, padding and digest in one name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Algorithm {
    /// AES-256 in Galois/Counter Mode (SP 800-38D); the daemon makes every IV.
    #[serde(rename = "AES_256_GCM")]
    Aes256Gcm,
    /// ECDSA on P-256 with SHA-256 (FIPS 186-5).
    #[serde(rename = "EC_SIGN_P256_SHA256")]
    EcSignP256Sha256,
    /// HMAC with SHA-256 and a 32-byte key (FIPS 198-1).
    #[serde(rename = "HMAC_SHA256")]
    HmacSha256,
    /// RSASSA-PKCS1-v1_5, 3072 bits, SHA-256 (RFC 8017 §8.2).
    #[serde(rename = "RSA_SIGN_PKCS1_3072_SHA256")]
    RsaSignPkcs1_3072Sha256,
    /// RSASSA-PSS, 3072 bits, SHA-256, salt of 32 bytes (RFC 8017 §8.1).
    #[serde(rename = "RSA_SIGN_PSS_3072_SHA256")]
    RsaSignPss3072Sha256,
}

/// One thing that a key may be used for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Usage {
    /// Open what `Encrypt` made.
    Decrypt,
    /// Protect data.
    Encrypt,
    /// Make a message authentication code.
    MacSign,
    /// Check a message authentication code.
    MacVerify,
    /// Hand the key itself, sealed, to an attested recipient.
    Release,
    /// Make a signature.
    Sign,
    /// Check a signature.
    Verify,
}

impl Algorithm {
    /// Every algorithm, in the order of the published enum.
    pub const ALL: [Self; 5] = [
        Self::Aes256Gcm,
        Self::EcSignP256Sha256,
        Self::HmacSha256,
        Self::RsaSignPkcs1_3072Sha256,
        Self::RsaSignPss3072Sha256,
    ];

    /// The published name, as in proto, CLI and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AES_256_GCM",
            Self::EcSignP256Sha256 => "EC_SIGN_P256_SHA256",
            Self::HmacSha256 => "HMAC_SHA256",
            Self::RsaSignPkcs1_3072Sha256 => "RSA_SIGN_PKCS1_3072_SHA256",
            Self::RsaSignPss3072Sha256 => "RSA_SIGN_PSS_3072_SHA256",
        }
    }

    /// Whether the mathematics of this algorithm offers `usage` at all.
    pub const fn supports(self, usage: Usage) -> bool {
        match self {
            Self::Aes256Gcm => matches!(usage, Usage::Decrypt | Usage::Encrypt | Usage::Release),
            Self::EcSignP256Sha256 | Self::RsaSignPkcs1_3072Sha256 | Self::RsaSignPss3072Sha256 => {
                matches!(usage, Usage::Release | Usage::Sign | Usage::Verify)
            }
            Self::HmacSha256 => {
                matches!(usage, Usage::MacSign | Usage::MacVerify | Usage::Release)
            }
        }
    }

    /// Whether there is a public key to show.
    pub const fn is_asymmetric(self) -> bool {
        match self {
            Self::Aes256Gcm | Self::HmacSha256 => false,
            Self::EcSignP256Sha256 | Self::RsaSignPkcs1_3072Sha256 | Self::RsaSignPss3072Sha256 => {
                true
            }
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no algorithm of ours. The caller's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "unknown algorithm; known are AES_256_GCM, EC_SIGN_P256_SHA256, HMAC_SHA256, RSA_SIGN_PKCS1_3072_SHA256, RSA_SIGN_PSS_3072_SHA256"
)]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|a| a.as_str() == text).ok_or(UnknownAlgorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_agree_with_stored_rows() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
            let json = serde_json::to_string(&algorithm).unwrap();
            assert_eq!(json, format!("\"{algorithm}\""));
        }
        assert_eq!("aes_256_gcm".parse::<Algorithm>(), Err(UnknownAlgorithm));
    }
}
