//! The flat list of algorithms: what a key is. How it is used stands in [`crate::mechanism`].

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::mechanism::Mechanism;

/// One thing that a key may be used for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Usage {
    /// Recover the shared secret that `Encapsulate` made.
    Decapsulate,
    /// Open what `Encrypt` made.
    Decrypt,
    /// Make another key out of this one, alone or together with a peer's public key.
    Derive,
    /// Make a shared secret for the owner of a public key.
    Encapsulate,
    /// Protect data.
    Encrypt,
    /// Hand the key out, wrapped, under a quorum.
    Export,
    /// Make a message authentication code.
    MacSign,
    /// Check a message authentication code.
    MacVerify,
    /// Hand the key itself, sealed, to an attested recipient.
    Release,
    /// Make a signature.
    Sign,
    /// Take in a key that `Wrap` protected.
    Unwrap,
    /// Check a signature.
    Verify,
    /// Protect another key.
    Wrap,
}

impl Usage {
    /// Every usage, in the order of the published enum.
    pub const ALL: [Self; 13] = [
        Self::Decapsulate,
        Self::Decrypt,
        Self::Derive,
        Self::Encapsulate,
        Self::Encrypt,
        Self::Export,
        Self::MacSign,
        Self::MacVerify,
        Self::Release,
        Self::Sign,
        Self::Unwrap,
        Self::Verify,
        Self::Wrap,
    ];

    /// The published name, as in proto, CLI and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decapsulate => "DECAPSULATE",
            Self::Decrypt => "DECRYPT",
            Self::Derive => "DERIVE",
            Self::Encapsulate => "ENCAPSULATE",
            Self::Encrypt => "ENCRYPT",
            Self::Export => "EXPORT",
            Self::MacSign => "MAC_SIGN",
            Self::MacVerify => "MAC_VERIFY",
            Self::Release => "RELEASE",
            Self::Sign => "SIGN",
            Self::Unwrap => "UNWRAP",
            Self::Verify => "VERIFY",
            Self::Wrap => "WRAP",
        }
    }

    /// Whether it applies cryptographic protection (SP 800-57 part 1 §5.3): only active keys do.
    /// The rest processes what was protected before.
    pub const fn protects(self) -> bool {
        match self {
            Self::Derive
            | Self::Encapsulate
            | Self::Encrypt
            | Self::Export
            | Self::MacSign
            | Self::Release
            | Self::Sign
            | Self::Wrap => true,
            Self::Decapsulate | Self::Decrypt | Self::MacVerify | Self::Unwrap | Self::Verify => {
                false
            }
        }
    }

    /// Whether it only checks, and so harms nobody while a key is suspended.
    pub const fn checks(self) -> bool {
        matches!(self, Self::MacVerify | Self::Verify)
    }

    /// Whether it hands the key itself out, so that no key has it unless it was asked for.
    pub const fn hands_out(self) -> bool {
        matches!(self, Self::Export | Self::Release)
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no usage of ours. The caller's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown usage; usages are named like SIGN or MAC_VERIFY")]
pub struct UnknownUsage;

impl FromStr for Usage {
    type Err = UnknownUsage;

    fn from_str(text: &str) -> Result<Self, UnknownUsage> {
        Self::ALL.into_iter().find(|usage| usage.as_str() == text).ok_or(UnknownUsage)
    }
}

/// What kind of key an algorithm has.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum KeyKind {
    /// A private key with a public half; PKCS#8 on the inside.
    KeyPair,
    /// Bytes that both sides know.
    SecretKey,
    /// Bytes that are no key to us.
    OpaqueSecret,
}

macro_rules! algorithms {
    ($($(#[$doc:meta])* $variant:ident $name:literal $kind:ident $bits:literal, [$($mechanism:ident)*];)+) => {
        /// What a key is, once and for all: kind and size.
        #[derive(
            Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
        )]
        #[non_exhaustive]
        pub enum Algorithm {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)+
        }

        impl Algorithm {
            /// Every algorithm, in alphabetical order of the published names.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The published name, as in proto, CLI and log.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What kind of key it has.
            pub const fn kind(self) -> KeyKind {
                match self { $(Self::$variant => KeyKind::$kind,)+ }
            }

            /// Size as people quote it: bits of a secret key, modulus, field or security strength; 0
            /// where each key has its own length.
            pub const fn bits(self) -> u32 {
                match self { $(Self::$variant => $bits,)+ }
            }

            /// The mechanisms that the mathematics allows, the preferred first.
            pub const fn mechanisms(self) -> &'static [Mechanism] {
                match self { $(Self::$variant => &[$(Mechanism::$mechanism),*],)+ }
            }
        }
    };
}

algorithms! {
    /// AES with 128 bits (FIPS 197).
    Aes128 "AES_128" SecretKey 128, [AesGcm AesKwp AesKw AesCmac AesCtr AesCbcPad AesCbc];
    /// AES with 192 bits.
    Aes192 "AES_192" SecretKey 192, [AesGcm AesKwp AesKw AesCmac AesCtr AesCbcPad AesCbc];
    /// AES with 256 bits.
    Aes256 "AES_256" SecretKey 256, [AesGcm AesKwp AesKw AesCmac AesCtr AesCbcPad AesCbc];
    /// ChaCha20 with 256 bits (RFC 8439).
    ChaCha20 "CHACHA20" SecretKey 256, [ChaCha20Poly1305];
    /// The Edwards curve of RFC 8032.
    Ed25519 "ED25519" KeyPair 255, [EdDsa];
    /// NIST P-256 (SP 800-186).
    EcP256 "EC_P256" KeyPair 256,
        [EcdsaSha256 EcdsaSha384 EcdsaSha512 EcdsaSha3_256 EcdsaSha3_384 EcdsaSha3_512 Ecdh];
    /// NIST P-384.
    EcP384 "EC_P384" KeyPair 384,
        [EcdsaSha384 EcdsaSha256 EcdsaSha512 EcdsaSha3_384 EcdsaSha3_256 EcdsaSha3_512 Ecdh];
    /// NIST P-521.
    EcP521 "EC_P521" KeyPair 521,
        [EcdsaSha512 EcdsaSha256 EcdsaSha384 EcdsaSha3_512 EcdsaSha3_256 EcdsaSha3_384 Ecdh];
    /// The Koblitz curve secp256k1 (SEC 2).
    EcSecp256k1 "EC_SECP256K1" KeyPair 256, [EcdsaSha256];
    /// A shared secret of 14 to 512 bytes, for HMAC and key derivation.
    GenericSecret "GENERIC_SECRET" SecretKey 0,
        [HmacSha256 HmacSha384 HmacSha512 HmacSha224 HmacSha512_224 HmacSha512_256 HmacSha3_224
         HmacSha3_256 HmacSha3_384 HmacSha3_512 HmacSha1 HkdfSha256 HkdfSha384 HkdfSha512
         KdfCounterHmacSha256 KdfCounterHmacSha384 KdfCounterHmacSha512];
    /// ML-DSA, security category 2 (FIPS 204).
    MlDsa44 "ML_DSA_44" KeyPair 128, [MlDsa];
    /// ML-DSA, security category 3.
    MlDsa65 "ML_DSA_65" KeyPair 192, [MlDsa];
    /// ML-DSA, security category 5.
    MlDsa87 "ML_DSA_87" KeyPair 256, [MlDsa];
    /// ML-KEM, security category 5 (FIPS 203).
    MlKem1024 "ML_KEM_1024" KeyPair 256, [MlKem];
    /// ML-KEM, security category 3.
    MlKem768 "ML_KEM_768" KeyPair 192, [MlKem];
    /// Up to 64 KiB that somebody wants kept: a password, a token, a configuration.
    OpaqueSecret "OPAQUE_SECRET" OpaqueSecret 0, [];
    /// RSA with a modulus of 2048 bits and e = 65537 (FIPS 186-5).
    Rsa2048 "RSA_2048" KeyPair 2048,
        [RsaPssSha256 RsaPssSha384 RsaPssSha512 RsaPkcs1Sha256 RsaPkcs1Sha384 RsaPkcs1Sha512
         RsaPkcs1Sha1 RsaOaepSha256 RsaOaepSha384 RsaOaepSha512 RsaPkcs1 RsaRaw];
    /// RSA with a modulus of 3072 bits.
    Rsa3072 "RSA_3072" KeyPair 3072,
        [RsaPssSha256 RsaPssSha384 RsaPssSha512 RsaPkcs1Sha256 RsaPkcs1Sha384 RsaPkcs1Sha512
         RsaPkcs1Sha1 RsaOaepSha256 RsaOaepSha384 RsaOaepSha512 RsaPkcs1 RsaRaw];
    /// RSA with a modulus of 4096 bits.
    Rsa4096 "RSA_4096" KeyPair 4096,
        [RsaPssSha256 RsaPssSha384 RsaPssSha512 RsaPkcs1Sha256 RsaPkcs1Sha384 RsaPkcs1Sha512
         RsaPkcs1Sha1 RsaOaepSha256 RsaOaepSha384 RsaOaepSha512 RsaPkcs1 RsaRaw];
    /// SLH-DSA with SHA-2, 128 bits, small signatures (FIPS 205).
    SlhDsaSha2_128s "SLH_DSA_SHA2_128S" KeyPair 128, [SlhDsa];
    /// Diffie-Hellman on Curve25519 (RFC 7748).
    X25519 "X25519" KeyPair 255, [Ecdh];
    /// The hybrid of X25519 and ML-KEM-768.
    XWing "X_WING" KeyPair 192, [XWing];
}

impl Algorithm {
    /// The one mechanism that a key has when nobody asked for any: a key has one purpose.
    pub const fn default_mechanism(self) -> Option<Mechanism> {
        self.mechanisms().first().copied()
    }

    /// Whether some mechanism of this algorithm offers `usage`, or it is one of the two that every
    /// key can have.
    pub fn supports(self, usage: Usage) -> bool {
        usage.hands_out() || self.mechanisms().iter().any(|mechanism| mechanism.offers(usage))
    }

    /// Whether there is a public key to show.
    pub const fn is_asymmetric(self) -> bool {
        matches!(self.kind(), KeyKind::KeyPair)
    }

    /// Whether its public keys are SubjectPublicKeyInfo, so that a certificate can hold one. Those of
    /// X-Wing are raw bytes.
    pub const fn has_certificates(self) -> bool {
        self.is_asymmetric() && !matches!(self, Self::XWing)
    }

    /// The one length of its secret keys in bytes; `None` for key pairs and where each key has its own.
    pub const fn secret_bytes(self) -> Option<usize> {
        match self {
            Self::Aes128 => Some(16),
            Self::Aes192 => Some(24),
            Self::Aes256 | Self::ChaCha20 => Some(32),
            _ => None,
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
#[error("unknown algorithm; names are like AES_256 or EC_P256 (kmsctl key algorithms lists them)")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.iter().copied().find(|a| a.as_str() == text).ok_or(UnknownAlgorithm)
    }
}

/// Shortest generic secret, in bytes: 112 bits (SP 800-131A §10).
pub const GENERIC_SECRET_BYTES_MIN: usize = 14;
/// Length of a generic secret when nobody asked for one, in bytes.
pub const GENERIC_SECRET_BYTES: usize = 32;
/// Longest generic secret, in bytes.
pub const GENERIC_SECRET_BYTES_MAX: usize = 512;
/// Longest opaque secret, in bytes.
pub const OPAQUE_SECRET_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_agree_with_stored_rows() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(*algorithm));
            let json = serde_json::to_string(algorithm).unwrap();
            assert_eq!(json, format!("\"{algorithm}\""));
        }
        assert_eq!("aes_256".parse::<Algorithm>(), Err(UnknownAlgorithm));
        for usage in Usage::ALL {
            assert_eq!(usage.as_str().parse(), Ok(usage));
            assert_eq!(serde_json::to_string(&usage).unwrap(), format!("\"{usage}\""));
        }
    }

    #[test]
    fn every_mechanism_belongs_to_an_algorithm() {
        for mechanism in Mechanism::ALL {
            assert!(
                Algorithm::ALL.iter().any(|a| a.mechanisms().contains(mechanism)),
                "{mechanism} has no algorithm"
            );
        }
    }
}
