//! A signed statement of what a key version is and where it comes from, for strangers.
//!
//! ```text
//! COSE_Sign1 (RFC 9052), tagged:
//!   protected   = { alg: ES384, content type: "application/kms-key-statement+cbor", kid: SHA-256(SPKI of the signer) }
//!   unprotected = {}
//!   payload     = CBOR map (RFC 8949) of the fields of KeyStatement, by name
//!   aad         = "kms-key-statement"
//! ```
//!
//! The daemon makes it (`GetKeyStatement`), `kms-verify` checks it. The signer is the appliance's
//! statement key, which the key of its audit log vouches for; see [`voucher`].

use std::collections::BTreeSet;

use coset::{CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _, iana};
use serde::{Deserialize, Serialize};

use crate::algorithm::{Algorithm, Usage};
use crate::audit::checkpoint::LogKey;
use crate::canonical;
use crate::id::{Digest, OperationId, Timestamp, VersionName, length_prefix};
use crate::key::{Key, Origin, Ring, Version};
use crate::lifecycle::State;
use crate::mechanism::Mechanism;
use crate::quorum::QuorumPolicy;

/// What the appliance states of one version.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyStatement {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "type")]
    pub type_: String,
    /// The appliance, by the origin of its audit log.
    pub appliance: String,
    /// The version; with it tenant, region and ring.
    pub version: VersionName,
    /// What the key is.
    pub algorithm: Algorithm,
    /// Length of a secret in bytes; 0 for key pairs.
    pub length_bytes: u32,
    /// What it may be used for.
    pub usages: BTreeSet<Usage>,
    /// How it may be used.
    pub mechanisms: BTreeSet<Mechanism>,
    /// Where the material comes from.
    pub origin: Origin,
    /// Whether it may be handed out, wrapped.
    pub exportable: bool,
    /// Whether it ever might, or comes from a key that might.
    pub ever_exportable: bool,
    /// Digest of what a workload must prove to use it; absent when nothing.
    pub requirement_digest: Option<Digest>,
    /// Digest of the key's own quorum policy; absent without.
    pub quorum_digest: Option<Digest>,
    /// Digest of the ring's quorum policy; absent without.
    pub ring_quorum_digest: Option<Digest>,
    /// Digest of the ring's policy.
    pub ring_policy_digest: Digest,
    /// The AI model that the key protects; empty if none.
    pub model: String,
    /// The dataset that the key protects; empty if none.
    pub dataset: String,
    /// Where the version stood.
    pub state: State,
    /// Whether it was switched on.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// The public key, SubjectPublicKeyInfo in DER, lower-case hexadecimal; empty for secrets.
    pub public_key: String,
    /// What the caller wanted repeated, lower-case hexadecimal.
    pub nonce: String,
    /// When this was stated, by the appliance's clock.
    pub stated_at: Timestamp,
    /// Names the operation in the log.
    pub operation_id: OperationId,
    /// Where its leaf stands in the log.
    pub audit_index: u64,
}

/// What is stated besides the rows themselves.
#[derive(Clone, Debug)]
pub struct Occasion {
    /// The origin of the appliance's audit log.
    pub appliance: String,
    /// What the caller wanted repeated.
    pub nonce: Vec<u8>,
    /// The time.
    pub now: Timestamp,
    /// Names the operation.
    pub operation_id: OperationId,
    /// Where its leaf stands.
    pub audit_index: u64,
}

/// Why a statement does not convince.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// Not a statement, or written in another way than this crate writes it.
    #[error("not a key statement: expected a tagged COSE_Sign1 with a known payload")]
    Malformed,
    /// The signature is not the signer's.
    #[error("the statement is not signed by the appliance's statement key")]
    Signature,
}

impl KeyStatement {
    /// States what `version` is.
    pub fn of(ring: &Ring, key: &Key, version: &Version, occasion: Occasion) -> Self {
        let Occasion { appliance, nonce, now, operation_id, audit_index } = occasion;
        let header = &version.header;
        let policy_digest = canonical::digest(&ring.policy);
        Self {
            type_: STATEMENT_TYPE.to_owned(),
            appliance,
            version: header.version.clone(),
            algorithm: header.algorithm,
            length_bytes: header.length_bytes,
            usages: key.usages.clone(),
            mechanisms: key.mechanisms.clone(),
            origin: header.origin,
            exportable: key.exportable,
            ever_exportable: header.ever_exportable,
            requirement_digest: header.requirement_digest,
            quorum_digest: header.quorum_digest,
            ring_quorum_digest: ring.quorum.as_ref().map(QuorumPolicy::digest),
            ring_policy_digest: policy_digest
                .expect("a ring's policy has only text keys, so it always has canonical form"),
            model: header.model.clone(),
            dataset: header.dataset.clone(),
            state: version.state_at(now),
            enabled: version.enabled,
            created_at: version.created_at,
            public_key: version.public_key.clone(),
            nonce: hex::encode(nonce),
            stated_at: now,
            operation_id,
            audit_index,
        }
    }

    /// Whether the material was generated here and has never been able to leave, but for an attested
    /// release if `requirement_digest` says so.
    pub fn never_left(&self) -> bool {
        self.origin == Origin::Generated && !self.ever_exportable
    }

    /// The statement as COSE_Sign1. `key_id` is the digest of the signer's SubjectPublicKeyInfo, `sign`
    /// makes an ES384 signature in the fixed form r || s.
    ///
    /// # Errors
    /// Those of `sign`.
    pub fn to_cose<E>(
        &self,
        key_id: &Digest,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let mut payload = Vec::new();
        ciborium::into_writer(self, &mut payload)
            .expect("a statement holds nothing that CBOR lacks, and memory takes every write");
        let protected = HeaderBuilder::new()
            .algorithm(iana::Algorithm::ES384)
            .content_type(CONTENT_TYPE.to_owned())
            .key_id(key_id.as_bytes().to_vec())
            .build();
        let signed = CoseSign1Builder::new()
            .protected(protected)
            .payload(payload)
            .try_create_signature(AAD, |input| sign(input))?
            .build();
        Ok(signed.to_tagged_vec().expect("what was just built has an encoding"))
    }

    /// Reads a statement and checks its signature with `verify`, which gets the bytes that were signed
    /// and the signature in the fixed form.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn from_cose(
        bytes: &[u8],
        key_id: &Digest,
        verify: impl FnOnce(&[u8], &[u8]) -> bool,
    ) -> Result<Self, StatementError> {
        let malformed = |_| StatementError::Malformed;
        if bytes.len() > STATEMENT_BYTES_MAX {
            return Err(StatementError::Malformed);
        }
        let signed = CoseSign1::from_tagged_slice(bytes).map_err(malformed)?;
        let expected = HeaderBuilder::new()
            .algorithm(iana::Algorithm::ES384)
            .content_type(CONTENT_TYPE.to_owned())
            .key_id(key_id.as_bytes().to_vec())
            .build();
        if signed.protected.header != expected || !signed.unprotected.is_empty() {
            return Err(StatementError::Signature);
        }
        let checked = signed.verify_signature(AAD, |signature, input| {
            if verify(input, signature) { Ok(()) } else { Err(StatementError::Signature) }
        });
        checked?;
        let payload = signed.payload.as_deref().ok_or(StatementError::Malformed)?;
        let statement: Self =
            ciborium::from_reader(payload).map_err(|_| StatementError::Malformed)?;
        let mut again = Vec::new();
        ciborium::into_writer(&statement, &mut again).map_err(|_| StatementError::Malformed)?;
        // One form only, so that two readers cannot read two things out of one statement.
        if again == payload && statement.type_ == STATEMENT_TYPE {
            Ok(statement)
        } else {
            Err(StatementError::Malformed)
        }
    }
}

/// What the key of the audit log signs to vouch for the statement key.
///
/// ```text
/// lp(x)   = length of x as 4 big-endian bytes || x
/// voucher = lp("kms-statement-key") || lp(origin of the log) || lp(SPKI of the statement key)
/// ```
pub fn voucher(origin: &str, public_key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [b"kms-statement-key".as_slice(), origin.as_bytes(), public_key] {
        bytes.extend_from_slice(&length_prefix(part));
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Whether the key of the audit log vouches for this statement key.
pub fn is_vouched_for(log: &LogKey, public_key: &[u8], signature: &[u8]) -> bool {
    log.verifies(&voucher(log.origin(), public_key), signature)
}

/// The type of a statement.
pub const STATEMENT_TYPE: &str = "kms-key-statement/1";
/// Longest nonce that is repeated, in bytes.
pub const NONCE_BYTES_MAX: usize = 64;
/// Extension of a version's certificate that holds the statement. The arc is drawn at random below
/// 2.25, short enough for common decoders, until the project has an enterprise number of its own.
pub const OID_STATEMENT: &str = "2.25.1764283649.1";
/// Extension of the appliance's certificate that holds the log key's signature over the voucher.
pub const OID_VOUCHER: &str = "2.25.1764283649.2";
const CONTENT_TYPE: &str = "application/kms-key-statement+cbor";
const AAD: &[u8] = b"kms-key-statement";
/// Longer than any statement: a public key of SLH-DSA or RSA and every mechanism.
const STATEMENT_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> KeyStatement {
        KeyStatement {
            type_: STATEMENT_TYPE.to_owned(),
            appliance: "kms/l/1".to_owned(),
            version: "tenants/t/locations/l/keyRings/r/keys/k/versions/1".parse().unwrap(),
            algorithm: Algorithm::EcP256,
            length_bytes: 0,
            usages: BTreeSet::from([Usage::Sign]),
            mechanisms: BTreeSet::from([Mechanism::EcdsaSha256]),
            origin: Origin::Generated,
            exportable: false,
            ever_exportable: false,
            requirement_digest: None,
            quorum_digest: Some(Digest([1; 32])),
            ring_quorum_digest: None,
            ring_policy_digest: Digest([2; 32]),
            model: String::new(),
            dataset: String::new(),
            state: State::Active,
            enabled: true,
            created_at: Timestamp(1),
            public_key: "00".to_owned(),
            nonce: "ff".to_owned(),
            stated_at: Timestamp(2),
            operation_id: OperationId([3; 16]),
            audit_index: 7,
        }
    }

    /// Stands for a signature: the test is of the frame.
    fn sign(input: &[u8]) -> Result<Vec<u8>, ()> {
        Ok(Digest::of(&[input]).as_bytes().to_vec())
    }

    fn verify(input: &[u8], signature: &[u8]) -> bool {
        sign(input).unwrap() == signature
    }

    #[test]
    fn a_statement_reads_back_and_no_byte_of_it_can_be_changed() {
        let key_id = Digest([9; 32]);
        let cose = statement().to_cose(&key_id, sign).unwrap();
        assert_eq!(KeyStatement::from_cose(&cose, &key_id, verify), Ok(statement()));
        assert!(KeyStatement::from_cose(&cose, &Digest([8; 32]), verify).is_err());
        for at in 0..cose.len() {
            let mut edited = cose.clone();
            edited[at] ^= 1;
            assert!(KeyStatement::from_cose(&edited, &key_id, verify).is_err(), "byte {at}");
            assert!(KeyStatement::from_cose(&cose[..at], &key_id, verify).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn only_what_was_generated_here_and_could_never_leave_never_left() {
        assert!(statement().never_left());
        assert!(!KeyStatement { ever_exportable: true, ..statement() }.never_left());
        assert!(!KeyStatement { origin: Origin::Imported, ..statement() }.never_left());
    }
}
