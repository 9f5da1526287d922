//! Keys that come from outside and keys that leave: import jobs, and who an exported key is sealed to.
//!
//! The bytes are the business of `kms-crypto`; whether anything may move is [`crate::permit`]'s.

use serde::{Deserialize, Serialize};

use crate::id::{RingName, Segment, Timestamp, VersionName, length_prefix};
use crate::transcript::Suite;

/// How material from outside is sealed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ImportMethod {
    /// RSA-OAEP (4096 bits, SHA-256) of an AES-256 key, and AES-KWP of the material under it, one
    /// behind the other (CKM_RSA_AES_KEY_WRAP, PKCS#11 v3.1 §6.1.22).
    #[serde(rename = "RSA_OAEP_4096_SHA256_AES_256_KWP")]
    RsaOaep4096Sha256Aes256Kwp,
    /// HPKE in base mode with X-Wing, HKDF-SHA256 and AES-256-GCM (RFC 9180), encapsulated key and
    /// ciphertext one behind the other.
    #[serde(rename = "X_WING_HKDF_SHA256_AES_256_GCM")]
    XWingHkdfSha256Aes256Gcm,
}

/// A key pair of the appliance that material from outside is sealed to. It lives for
/// [`IMPORT_JOB_MS`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportJob {
    /// Its name.
    pub name: ImportJobName,
    /// How material is sealed to it.
    pub method: ImportMethod,
    /// SubjectPublicKeyInfo in DER, or an X-Wing public key; lower-case hexadecimal.
    pub public_key: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on nothing is taken.
    pub expires_at: Timestamp,
}

/// `tenants/{tenant}/locations/{region}/keyRings/{ring}/importJobs/{id}`.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportJobName {
    /// The ring whose keys it is for.
    pub ring: RingName,
    /// Tells it from others.
    pub id: Segment,
}

impl core::fmt::Display for ImportJobName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/importJobs/{}", self.ring, self.id)
    }
}

/// Who an exported key is sealed to; stands in the proposal that people sign.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "type")]
#[non_exhaustive]
pub enum ExportRecipient {
    /// A holder of an HPKE key (RFC 9180).
    Hpke {
        /// The suite.
        suite: Suite,
        /// The public key, lower-case hexadecimal.
        public_key: String,
    },
    /// A holder of an RSA key of at least [`EXPORT_RSA_BITS_MIN`] bits.
    RsaAesKeyWrap {
        /// SubjectPublicKeyInfo in DER, lower-case hexadecimal.
        public_key: String,
    },
}

/// HPKE `info` of material that is sealed to an import job.
///
/// ```text
/// lp(x) = length of x as 4 big-endian bytes || x
/// info  = lp("kms-import") || lp(name of the job)
/// ```
pub fn import_info(job: &ImportJobName) -> Vec<u8> {
    info(b"kms-import", &job.to_string())
}

/// HPKE `info` of a key that is exported.
///
/// ```text
/// info = lp("kms-export") || lp(name of the version)
/// ```
pub fn export_info(version: &VersionName) -> Vec<u8> {
    info(b"kms-export", &version.to_string())
}

fn info(label: &[u8], name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [label, name.as_bytes()] {
        bytes.extend_from_slice(&length_prefix(part));
        bytes.extend_from_slice(part);
    }
    bytes
}

/// How long an import job takes material: three days.
pub const IMPORT_JOB_MS: u64 = 3 * 24 * 60 * 60 * 1000;
/// Shortest RSA modulus that a key is exported to, in bits.
pub const EXPORT_RSA_BITS_MIN: u32 = 3072;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_names_the_job_and_the_version_unmistakably() {
        let job = ImportJobName {
            ring: "tenants/t/locations/l/keyRings/r".parse().unwrap(),
            id: "j".parse().unwrap(),
        };
        assert_eq!(job.to_string(), "tenants/t/locations/l/keyRings/r/importJobs/j");
        let mut expected = b"\0\0\0\x0akms-import\0\0\0\x2d".to_vec();
        expected.extend_from_slice(job.to_string().as_bytes());
        assert_eq!(import_info(&job), expected);
    }
}
