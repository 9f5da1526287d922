//! The flat list of mechanisms: how a key is used. What a key *is* stands in [`crate::algorithm`].
//!
//! A key's policy lists the mechanisms that it may be used with; a use that names none takes the first
//! that its [`crate::algorithm::Algorithm`] prefers. Key separation (SP 800-57 part 1 §5.2) is
//! therefore a property of the key, and the PKCS#11 way, one RSA key for several paddings, is possible
//! where somebody asked for it.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::algorithm::Usage;

/// A hash function (FIPS 180-4, FIPS 202).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Hash {
    /// SHA-1; only to check what exists already (SP 800-131A).
    #[serde(rename = "SHA1")]
    Sha1,
    /// SHA-224.
    #[serde(rename = "SHA224")]
    Sha224,
    /// SHA-256.
    #[serde(rename = "SHA256")]
    Sha256,
    /// SHA-384.
    #[serde(rename = "SHA384")]
    Sha384,
    /// SHA-512.
    #[serde(rename = "SHA512")]
    Sha512,
    /// SHA-512/224.
    #[serde(rename = "SHA512_224")]
    Sha512_224,
    /// SHA-512/256.
    #[serde(rename = "SHA512_256")]
    Sha512_256,
    /// SHA3-224.
    #[serde(rename = "SHA3_224")]
    Sha3_224,
    /// SHA3-256.
    #[serde(rename = "SHA3_256")]
    Sha3_256,
    /// SHA3-384.
    #[serde(rename = "SHA3_384")]
    Sha3_384,
    /// SHA3-512.
    #[serde(rename = "SHA3_512")]
    Sha3_512,
}

impl Hash {
    /// Every hash function, in the order of the published enum.
    pub const ALL: [Self; 11] = [
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
        Self::Sha512_224,
        Self::Sha512_256,
        Self::Sha3_224,
        Self::Sha3_256,
        Self::Sha3_384,
        Self::Sha3_512,
    ];

    /// The published name, as in proto, CLI and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
            Self::Sha512_224 => "SHA512_224",
            Self::Sha512_256 => "SHA512_256",
            Self::Sha3_224 => "SHA3_224",
            Self::Sha3_256 => "SHA3_256",
            Self::Sha3_384 => "SHA3_384",
            Self::Sha3_512 => "SHA3_512",
        }
    }

    /// Length of a digest in bytes.
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha224 | Self::Sha3_224 | Self::Sha512_224 => 28,
            Self::Sha256 | Self::Sha3_256 | Self::Sha512_256 => 32,
            Self::Sha384 | Self::Sha3_384 => 48,
            Self::Sha512 | Self::Sha3_512 => 64,
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! mechanisms {
    ($($(#[$doc:meta])* $variant:ident $name:literal $hash:expr, $usages:expr;)+) => {
        /// One way to use a key.
        #[derive(
            Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
        )]
        #[non_exhaustive]
        pub enum Mechanism {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)+
        }

        impl Mechanism {
            /// Every mechanism, in the order of the published enum.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The published name, as in proto, CLI and log.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The hash function that belongs to the mechanism, if one does.
            pub const fn hash(self) -> Option<Hash> {
                match self { $(Self::$variant => $hash,)+ }
            }

            /// What the mechanism is good for, by the rules of this appliance: SHA-1 only checks.
            pub const fn usages(self) -> &'static [Usage] {
                match self { $(Self::$variant => $usages,)+ }
            }
        }
    };
}

const CIPHER: &[Usage] = &[Usage::Decrypt, Usage::Encrypt];
const CIPHER_AND_WRAP: &[Usage] = &[Usage::Decrypt, Usage::Encrypt, Usage::Unwrap, Usage::Wrap];
const DERIVE: &[Usage] = &[Usage::Derive];
const KEM: &[Usage] = &[Usage::Decapsulate, Usage::Encapsulate];
const MAC: &[Usage] = &[Usage::MacSign, Usage::MacVerify];
const MAC_CHECK: &[Usage] = &[Usage::MacVerify];
const SIGNATURE: &[Usage] = &[Usage::Sign, Usage::Verify];
const SIGNATURE_CHECK: &[Usage] = &[Usage::Verify];
const WRAP: &[Usage] = &[Usage::Unwrap, Usage::Wrap];

mechanisms! {
    /// AES in cipher block chaining, whole blocks only (SP 800-38A §6.2).
    AesCbc "AES_CBC" None, CIPHER;
    /// AES in cipher block chaining with PKCS#7 padding (RFC 5652 §6.3).
    AesCbcPad "AES_CBC_PAD" None, CIPHER;
    /// CMAC with AES (SP 800-38B), tag of 16 bytes.
    AesCmac "AES_CMAC" None, MAC;
    /// AES in counter mode with a 16-byte big-endian counter block (SP 800-38A §6.5).
    AesCtr "AES_CTR" None, CIPHER;
    /// AES in Galois/Counter Mode (SP 800-38D), tag of 16 bytes.
    AesGcm "AES_GCM" None, CIPHER_AND_WRAP;
    /// AES Key Wrap (SP 800-38F KW, RFC 3394).
    AesKw "AES_KW" None, WRAP;
    /// AES Key Wrap with Padding (SP 800-38F KWP, RFC 5649).
    AesKwp "AES_KWP" None, WRAP;
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305 "CHACHA20_POLY1305" None, CIPHER;
    /// Elliptic curve Diffie-Hellman with cofactor (SP 800-56A), X25519 (RFC 7748).
    Ecdh "ECDH" None, DERIVE;
    /// ECDSA with SHA-256 (FIPS 186-5).
    EcdsaSha256 "ECDSA_SHA256" Some(Hash::Sha256), SIGNATURE;
    /// ECDSA with SHA3-256.
    EcdsaSha3_256 "ECDSA_SHA3_256" Some(Hash::Sha3_256), SIGNATURE;
    /// ECDSA with SHA3-384.
    EcdsaSha3_384 "ECDSA_SHA3_384" Some(Hash::Sha3_384), SIGNATURE;
    /// ECDSA with SHA3-512.
    EcdsaSha3_512 "ECDSA_SHA3_512" Some(Hash::Sha3_512), SIGNATURE;
    /// ECDSA with SHA-384.
    EcdsaSha384 "ECDSA_SHA384" Some(Hash::Sha384), SIGNATURE;
    /// ECDSA with SHA-512.
    EcdsaSha512 "ECDSA_SHA512" Some(Hash::Sha512), SIGNATURE;
    /// Ed25519 (RFC 8032), messages only.
    EdDsa "EDDSA" None, SIGNATURE;
    /// HKDF with SHA-256 (RFC 5869).
    HkdfSha256 "HKDF_SHA256" Some(Hash::Sha256), DERIVE;
    /// HKDF with SHA-384.
    HkdfSha384 "HKDF_SHA384" Some(Hash::Sha384), DERIVE;
    /// HKDF with SHA-512.
    HkdfSha512 "HKDF_SHA512" Some(Hash::Sha512), DERIVE;
    /// HMAC with SHA-1 (FIPS 198-1), only to check.
    HmacSha1 "HMAC_SHA1" Some(Hash::Sha1), MAC_CHECK;
    /// HMAC with SHA-224.
    HmacSha224 "HMAC_SHA224" Some(Hash::Sha224), MAC;
    /// HMAC with SHA-256.
    HmacSha256 "HMAC_SHA256" Some(Hash::Sha256), MAC;
    /// HMAC with SHA3-224.
    HmacSha3_224 "HMAC_SHA3_224" Some(Hash::Sha3_224), MAC;
    /// HMAC with SHA3-256.
    HmacSha3_256 "HMAC_SHA3_256" Some(Hash::Sha3_256), MAC;
    /// HMAC with SHA3-384.
    HmacSha3_384 "HMAC_SHA3_384" Some(Hash::Sha3_384), MAC;
    /// HMAC with SHA3-512.
    HmacSha3_512 "HMAC_SHA3_512" Some(Hash::Sha3_512), MAC;
    /// HMAC with SHA-384.
    HmacSha384 "HMAC_SHA384" Some(Hash::Sha384), MAC;
    /// HMAC with SHA-512.
    HmacSha512 "HMAC_SHA512" Some(Hash::Sha512), MAC;
    /// HMAC with SHA-512/224.
    HmacSha512_224 "HMAC_SHA512_224" Some(Hash::Sha512_224), MAC;
    /// HMAC with SHA-512/256.
    HmacSha512_256 "HMAC_SHA512_256" Some(Hash::Sha512_256), MAC;
    /// Counter-mode KDF with HMAC-SHA-256 (SP 800-108r1 §4.1).
    KdfCounterHmacSha256 "KDF_COUNTER_HMAC_SHA256" Some(Hash::Sha256), DERIVE;
    /// Counter-mode KDF with HMAC-SHA-384.
    KdfCounterHmacSha384 "KDF_COUNTER_HMAC_SHA384" Some(Hash::Sha384), DERIVE;
    /// Counter-mode KDF with HMAC-SHA-512.
    KdfCounterHmacSha512 "KDF_COUNTER_HMAC_SHA512" Some(Hash::Sha512), DERIVE;
    /// ML-DSA (FIPS 204), messages only, hedged.
    MlDsa "ML_DSA" None, SIGNATURE;
    /// ML-KEM (FIPS 203).
    MlKem "ML_KEM" None, KEM;
    /// RSAES-OAEP with SHA-256 for both hash and MGF1 (RFC 8017 §7.1).
    RsaOaepSha256 "RSA_OAEP_SHA256" Some(Hash::Sha256), CIPHER_AND_WRAP;
    /// RSAES-OAEP with SHA-384.
    RsaOaepSha384 "RSA_OAEP_SHA384" Some(Hash::Sha384), CIPHER_AND_WRAP;
    /// RSAES-OAEP with SHA-512.
    RsaOaepSha512 "RSA_OAEP_SHA512" Some(Hash::Sha512), CIPHER_AND_WRAP;
    /// RSAES-PKCS1-v1_5 (RFC 8017 §7.2); only in compatible rings.
    RsaPkcs1 "RSA_PKCS1" None, CIPHER;
    /// RSASSA-PKCS1-v1_5 with SHA-1 (RFC 8017 §8.2), only to check.
    RsaPkcs1Sha1 "RSA_PKCS1_SHA1" Some(Hash::Sha1), SIGNATURE_CHECK;
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256 "RSA_PKCS1_SHA256" Some(Hash::Sha256), SIGNATURE;
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384 "RSA_PKCS1_SHA384" Some(Hash::Sha384), SIGNATURE;
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512 "RSA_PKCS1_SHA512" Some(Hash::Sha512), SIGNATURE;
    /// RSASSA-PSS with SHA-256, MGF1 with the same, salt of 32 bytes (RFC 8017 §8.1).
    RsaPssSha256 "RSA_PSS_SHA256" Some(Hash::Sha256), SIGNATURE;
    /// RSASSA-PSS with SHA-384, salt of 48 bytes.
    RsaPssSha384 "RSA_PSS_SHA384" Some(Hash::Sha384), SIGNATURE;
    /// RSASSA-PSS with SHA-512, salt of 64 bytes.
    RsaPssSha512 "RSA_PSS_SHA512" Some(Hash::Sha512), SIGNATURE;
    /// RSA without padding (RFC 8017 §5.1); only in compatible rings.
    RsaRaw "RSA_RAW" None, CIPHER;
    /// SLH-DSA (FIPS 205), messages only, hedged.
    SlhDsa "SLH_DSA" None, SIGNATURE;
    /// X-Wing: X25519 and ML-KEM-768 together (draft-connolly-cfrg-xwing-kem).
    XWing "X_WING" None, KEM;
}

impl Mechanism {
    /// Whether the mechanism is taken only by rings that are compatible, by an officer's audited act.
    pub const fn needs_compatible_ring(self) -> bool {
        matches!(self, Self::RsaPkcs1 | Self::RsaRaw)
    }

    /// Whether it authenticates what it encrypts, and breaks when an IV is used twice.
    pub const fn is_aead(self) -> bool {
        matches!(self, Self::AesGcm | Self::ChaCha20Poly1305)
    }

    /// Whether it is an approved security function (SP 800-140C and D), with keys of an approved
    /// algorithm: [`crate::service::approved`] holds the two together.
    pub const fn is_approved(self) -> bool {
        // Each by name: a new mechanism is approved when somebody has said so.
        match self {
            Self::AesCbc
            | Self::AesCbcPad
            | Self::AesCmac
            | Self::AesCtr
            | Self::AesGcm
            | Self::AesKw
            | Self::AesKwp
            | Self::Ecdh
            | Self::EcdsaSha256
            | Self::EcdsaSha3_256
            | Self::EcdsaSha3_384
            | Self::EcdsaSha3_512
            | Self::EcdsaSha384
            | Self::EcdsaSha512
            | Self::EdDsa
            | Self::HkdfSha256
            | Self::HkdfSha384
            | Self::HkdfSha512
            | Self::HmacSha1
            | Self::HmacSha224
            | Self::HmacSha256
            | Self::HmacSha3_224
            | Self::HmacSha3_256
            | Self::HmacSha3_384
            | Self::HmacSha3_512
            | Self::HmacSha384
            | Self::HmacSha512
            | Self::HmacSha512_224
            | Self::HmacSha512_256
            | Self::KdfCounterHmacSha256
            | Self::KdfCounterHmacSha384
            | Self::KdfCounterHmacSha512
            | Self::MlDsa
            | Self::MlKem
            | Self::RsaOaepSha256
            | Self::RsaOaepSha384
            | Self::RsaOaepSha512
            | Self::RsaPkcs1Sha1
            | Self::RsaPkcs1Sha256
            | Self::RsaPkcs1Sha384
            | Self::RsaPkcs1Sha512
            | Self::RsaPssSha256
            | Self::RsaPssSha384
            | Self::RsaPssSha512
            | Self::SlhDsa => true,
            Self::ChaCha20Poly1305 | Self::RsaPkcs1 | Self::RsaRaw | Self::XWing => false,
        }
    }

    /// Whether `usage` can be had by this mechanism.
    pub fn offers(self, usage: Usage) -> bool {
        self.usages().contains(&usage)
    }

    /// Most protections that the material of one key may make with this mechanism, under all its names,
    /// where mathematics sets a bound: 2^32 for AES-GCM with random IVs of 96 bits (SP 800-38D §8.3), and likewise for
    /// ChaCha20-Poly1305, whose nonce is as long.
    pub const fn invocations_max(self) -> Option<u64> {
        match self {
            Self::AesGcm | Self::ChaCha20Poly1305 => Some(1 << 32),
            _ => None,
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no mechanism of ours. The caller's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "unknown mechanism; names are like AES_GCM or RSA_PSS_SHA256 (kmsctl key algorithms lists them)"
)]
pub struct UnknownMechanism;

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    fn from_str(text: &str) -> Result<Self, UnknownMechanism> {
        Self::ALL.iter().copied().find(|m| m.as_str() == text).ok_or(UnknownMechanism)
    }
}

/// The text names no hash function of ours. The caller's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown hash function; names are like SHA256 or SHA3_384")]
pub struct UnknownHash;

impl FromStr for Hash {
    type Err = UnknownHash;

    fn from_str(text: &str) -> Result<Self, UnknownHash> {
        Self::ALL.into_iter().find(|hash| hash.as_str() == text).ok_or(UnknownHash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_agree_with_stored_rows() {
        for mechanism in Mechanism::ALL {
            assert_eq!(mechanism.as_str().parse(), Ok(*mechanism));
            assert_eq!(serde_json::to_string(mechanism).unwrap(), format!("\"{mechanism}\""));
        }
        for hash in Hash::ALL {
            assert_eq!(hash.as_str().parse(), Ok(hash));
            assert_eq!(serde_json::to_string(&hash).unwrap(), format!("\"{hash}\""));
        }
    }

    #[test]
    fn sha_1_protects_nothing() {
        for mechanism in Mechanism::ALL.iter().filter(|m| m.hash() == Some(Hash::Sha1)) {
            assert!(mechanism.usages().iter().all(|usage| !usage.protects()), "{mechanism}");
        }
    }
}
