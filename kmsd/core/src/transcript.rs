//! What attestation evidence commits to: the transcript of one release request.
//!
//! ```text
//! lp(x)       = length of x as 4 big-endian bytes || x
//! T0          = SHA-512( lp("kms-release-transcript") || lp("1") || lp(profile) || lp(suite)
//!                        || lp(nonce) || lp(request digest) || lp(SHA-256(recipient key))
//!                        || lp(server identity) || lp(server certificate digest)
//!                        || lp(client certificate digest) || lp(channel exporter) )
//! report_data = SHA-512( lp("kms-release-report-data") || lp(T0) || lp(device digest)* )
//! device nonce= SHA-256( lp("kms-release-device-nonce") || lp(T0) || lp(i) )
//! ```
//!
//! The daemon and the workload both compute it; test vectors stand at the end of this file.

use core::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

use crate::id::{Digest, Nonce, OperationId, VersionName, length_prefix};

/// The 64 bytes that a report commits to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReportData(pub [u8; 64]);

/// How a release is bound to the channel and what the evidence may be.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BindingProfile {
    /// Our own: everything above is in the transcript.
    Native,
}

/// An HPKE suite (RFC 9180) that an answer can be sealed with.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Suite {
    /// DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
    #[serde(rename = "P256_HKDF_SHA256_AES256GCM")]
    P256HkdfSha256Aes256Gcm,
    /// X-Wing (ML-KEM-768 with X25519), HKDF-SHA256, AES-256-GCM.
    #[serde(rename = "XWING_HKDF_SHA256_AES256GCM")]
    XWingHkdfSha256Aes256Gcm,
}

impl Suite {
    /// The suites in the order in which they are offered: hybrid first.
    pub const OFFERED: [Self; 2] = [Self::XWingHkdfSha256Aes256Gcm, Self::P256HkdfSha256Aes256Gcm];

    /// The published name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256HkdfSha256Aes256Gcm => "P256_HKDF_SHA256_AES256GCM",
            Self::XWingHkdfSha256Aes256Gcm => "XWING_HKDF_SHA256_AES256GCM",
        }
    }

    /// The suite of that published name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::OFFERED.into_iter().find(|suite| suite.as_str() == name)
    }

    /// Whether every algorithm in it is an approved one: X25519, a half of X-Wing, is not.
    pub const fn is_approved(self) -> bool {
        matches!(self, Self::P256HkdfSha256Aes256Gcm)
    }

    /// The suites that a daemon offers, in order.
    pub fn offered(approved_only: bool) -> impl Iterator<Item = Self> {
        Self::OFFERED.into_iter().filter(move |suite| !approved_only || suite.is_approved())
    }

    /// Length of a serialised public key of this suite, in bytes.
    pub const fn public_key_bytes(self) -> usize {
        match self {
            Self::P256HkdfSha256Aes256Gcm => 65,
            Self::XWingHkdfSha256Aes256Gcm => 1216,
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A workload's public HPKE key. Not secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recipient {
    suite: Suite,
    public_key: Vec<u8>,
}

/// The key has another length than its suite's. The caller's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a recipient key of suite {suite} is {} bytes long", .suite.public_key_bytes())]
pub struct RecipientLength {
    /// The suite that was named.
    pub suite: Suite,
}

impl Recipient {
    /// Takes a serialised public key of `suite`.
    ///
    /// # Errors
    /// [`RecipientLength`] when it is of another length.
    pub fn new(suite: Suite, public_key: Vec<u8>) -> Result<Self, RecipientLength> {
        if public_key.len() == suite.public_key_bytes() {
            Ok(Self { suite, public_key })
        } else {
            Err(RecipientLength { suite })
        }
    }

    /// The suite to seal with.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The serialised public key.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// SHA-256 of the serialised public key.
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(&self.public_key).into())
    }
}

/// The channel that a request came over, as both ends see it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Channel {
    /// SHA-256 of the server's certificate; empty on a Unix socket.
    pub server_certificate_digest: Vec<u8>,
    /// SHA-256 of the client's certificate; empty on a Unix socket.
    pub client_certificate_digest: Vec<u8>,
    /// TLS exporter (RFC 8446 §7.5) with label [`EXPORTER_LABEL`], 32 bytes; empty on a Unix
    /// socket, whose peer the kernel names.
    pub exporter: Vec<u8>,
}

impl Channel {
    /// Names the channel, so that a challenge is good on it alone.
    pub fn digest(&self) -> Digest {
        let Self { server_certificate_digest, client_certificate_digest, exporter } = self;
        Digest::of(&[server_certificate_digest, client_certificate_digest, exporter])
    }
}

/// The transcript `T0` of one release request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transcript {
    t0: [u8; 64],
    suite: Suite,
    recipient_digest: Digest,
}

impl Transcript {
    /// Digests everything that the evidence must commit to.
    pub fn new(
        profile: BindingProfile,
        nonce: &Nonce,
        request_digest: &Digest,
        recipient: &Recipient,
        server_identity: &Digest,
        channel: &Channel,
    ) -> Self {
        let profile = match profile {
            BindingProfile::Native => b"native",
        };
        // Destructured so that a field added to the channel cannot be left out of the digest.
        let Channel { server_certificate_digest, client_certificate_digest, exporter } = channel;
        let t0 = sha512(&[
            b"kms-release-transcript",
            b"1",
            profile,
            recipient.suite.as_str().as_bytes(),
            nonce.as_bytes(),
            request_digest.as_bytes(),
            recipient.digest().as_bytes(),
            server_identity.as_bytes(),
            server_certificate_digest,
            client_certificate_digest,
            exporter,
        ]);
        Self { t0, suite: recipient.suite, recipient_digest: recipient.digest() }
    }

    /// The 64 bytes that the CPU's report must hold, given the digests of the device evidence.
    pub fn report_data(&self, device_digests: &[Digest]) -> ReportData {
        let mut parts: Vec<&[u8]> = vec![b"kms-release-report-data", &self.t0];
        parts.extend(device_digests.iter().map(|digest| digest.as_bytes().as_slice()));
        ReportData(sha512(&parts))
    }

    /// `T0` itself: the HPKE `info` of the answer.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.t0
    }

    /// Whether the transcript was made over this recipient.
    pub fn commits_to(&self, recipient: &Recipient) -> bool {
        self.suite == recipient.suite && self.recipient_digest == recipient.digest()
    }
}

/// Digest of a release request in the transcript: both ends know it before the daemon salts
/// anything.
pub fn request_digest(version: &VersionName) -> Digest {
    Digest::of(&[b"ReleaseKey", version.to_string().as_bytes()])
}

/// The HPKE `aad` of an answer: key name, policy and operation, so that an answer for one release
/// opens as no other.
///
/// ```text
/// aad = lp("kms-release-answer") || lp(version name) || lp(policy digest) || lp(operation id)
/// ```
pub fn answer_aad(
    version: &VersionName,
    policy_digest: &Digest,
    operation_id: &OperationId,
) -> Vec<u8> {
    let version = version.to_string();
    prefixed(&[
        b"kms-release-answer",
        version.as_bytes(),
        policy_digest.as_bytes(),
        operation_id.as_bytes(),
    ])
}

/// The HPKE `info` of a data key that is sealed to whoever asked for it.
///
/// ```text
/// info = lp("kms-data-key") || lp(version name)
/// ```
pub fn data_key_info(version: &VersionName) -> Vec<u8> {
    prefixed(&[b"kms-data-key", version.to_string().as_bytes()])
}

/// The HPKE `aad` of a data key: the wrapped data key that came with it, so that the two belong
/// together.
///
/// ```text
/// aad = lp(IV) || lp(ciphertext)
/// ```
pub fn data_key_aad(iv: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    prefixed(&[iv, ciphertext])
}

fn prefixed(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&length_prefix(part)[..], part].concat()).collect()
}

fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    let mut hash = Sha512::new();
    for part in parts {
        hash.update(length_prefix(part));
        hash.update(part);
    }
    hash.finalize().into()
}

/// Label of the TLS exporter in the transcript.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-kms-release-v1";

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(nonce: u8, exporter: &[u8], key: u8) -> Transcript {
        let recipient = Recipient::new(Suite::P256HkdfSha256Aes256Gcm, vec![key; 65]).unwrap();
        let channel = Channel { exporter: exporter.to_vec(), ..Channel::default() };
        Transcript::new(
            BindingProfile::Native,
            &Nonce([nonce; 32]),
            &Digest([1; 32]),
            &recipient,
            &Digest([2; 32]),
            &channel,
        )
    }

    #[test]
    fn every_input_moves_the_report_data() {
        let base = transcript(0, b"", 4);
        for other in [transcript(1, b"", 4), transcript(0, b"x", 4), transcript(0, b"", 5)] {
            assert_ne!(base.report_data(&[]), other.report_data(&[]));
        }
        assert_ne!(base.report_data(&[]), base.report_data(&[Digest([0; 32])]));
    }

    #[test]
    fn a_recipient_key_of_another_length_is_refused() {
        let suite = Suite::XWingHkdfSha256Aes256Gcm;
        assert_eq!(Recipient::new(suite, vec![0; 65]), Err(RecipientLength { suite }));
    }
}
