//! What is known of a ring, a key and a version, except its bytes: the stored rows.
//!
//! The rows are stored as canonical JSON inside an envelope that the vault authenticates. What must
//! never loosen stands in [`SealHeader`], which goes into the wrapping of the key bytes, so that
//! editing it in the database makes the key unreadable rather than free.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::algorithm::{Algorithm, Usage};
use crate::canonical;
use crate::claims::EvidenceKind;
use crate::id::{Digest, KeyName, RingName, Timestamp, VersionName};
use crate::lifecycle::State;
use crate::quorum::QuorumPolicy;

/// A key ring, which is also a PKCS#11 token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ring {
    /// Its name.
    pub name: RingName,
    /// When it was made.
    pub created_at: Timestamp,
    /// What needs approval on this ring, and whose.
    pub quorum: Option<QuorumPolicy>,
    /// The ring key, wrapped by its tenant's key; lower-case hexadecimal.
    pub wrapped_key: String,
}

/// A key and what all its versions share.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its name.
    pub name: KeyName,
    /// What it is.
    pub algorithm: Algorithm,
    /// What it may be used for.
    pub usages: BTreeSet<Usage>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The caller's own notes, up to [`LABELS_MAX`].
    pub labels: BTreeMap<String, String>,
    /// What a workload must prove to use it.
    pub requirement: Option<ReleaseRequirement>,
    /// What needs approval, and whose.
    pub quorum: Option<QuorumPolicy>,
    /// The AI model it protects; empty if none. Sealed.
    pub model: String,
    /// The dataset it protects; empty if none. Sealed.
    pub dataset: String,
    /// The version that new signatures and ciphertexts use.
    pub primary: u32,
    /// The highest version number so far.
    pub latest: u32,
    /// How PKCS#11 clients see it.
    pub pkcs11: Pkcs11Attributes,
}

/// The attributes that PKCS#11 clients choose freely.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Attributes {
    /// CKA_ID, lower-case hexadecimal.
    pub id: String,
    /// CKA_LABEL.
    pub label: String,
}

/// One version of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// What is bound into the sealing.
    pub header: SealHeader,
    /// Where it stands in its life.
    pub state: State,
    /// Whether it may be used at all, apart from its state.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// The public key (SubjectPublicKeyInfo, DER, lower-case hexadecimal); empty for secret keys.
    pub public_key: String,
    /// Which slot holds the secret whose erasure destroys this version.
    pub slot: u64,
}

/// What the sealing of a version binds: it can be edited in no store.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealHeader {
    /// Name, and with it tenant, region, ring and number.
    pub version: VersionName,
    /// What the key is.
    pub algorithm: Algorithm,
    /// What it may be used for.
    pub usages: BTreeSet<Usage>,
    /// Whether it was generated here.
    pub local: bool,
    /// Digest of the release requirement; absent when the key is not gated.
    pub requirement_digest: Option<Digest>,
    /// Digest of the key's own quorum policy; absent when it has none.
    pub quorum_digest: Option<Digest>,
    /// The AI model that the key protects; empty if none.
    pub model: String,
    /// The dataset that the key protects; empty if none.
    pub dataset: String,
}

impl SealHeader {
    /// The bytes that go into the derivation of the wrapping key.
    ///
    /// # Errors
    /// Never for a header read by this crate; see [`canonical::to_bytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, canonical::CanonicalError> {
        canonical::to_bytes(self)
    }

    /// Whether `key`'s policies are the ones that were sealed in. A key row that somebody edited
    /// to drop its gate or its quorum does not match, and nothing is decided on it.
    pub fn matches(&self, key: &Key) -> bool {
        // Destructured so that a field added to the header cannot be left out of the comparison.
        let Self {
            version,
            algorithm,
            usages,
            local: _,
            requirement_digest,
            quorum_digest,
            model,
            dataset,
        } = self;
        let requirement = key.requirement.as_ref().map(ReleaseRequirement::digest);
        let quorum = key.quorum.as_ref().map(QuorumPolicy::digest);
        version.key == key.name
            && *algorithm == key.algorithm
            && *usages == key.usages
            && *requirement_digest == requirement
            && *quorum_digest == quorum
            && *model == key.model
            && *dataset == key.dataset
    }
}

/// What a workload must prove before a key is released to it or used for it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequirement {
    /// The kinds of evidence that are taken.
    pub kinds: BTreeSet<EvidenceKind>,
    /// Checks that may stay "not established" (for example `revocation`, where no list is to be
    /// had).
    pub may_be_unestablished: BTreeSet<String>,
    /// Rego policy (`package policy`, rule `allow`) over the verified claims; see the documents.
    pub policy: String,
    /// Uses that need no evidence.
    pub free_usages: BTreeSet<Usage>,
}

impl ReleaseRequirement {
    /// The digest by which the sealing knows it.
    pub fn digest(&self) -> Digest {
        canonical::digest(self)
            .expect("a requirement has only text keys, so it always has canonical form")
    }
}

/// Most labels on a key.
pub const LABELS_MAX: usize = 64;
/// Longest label key or value, in bytes.
pub const LABEL_BYTES_MAX: usize = 255;
/// Longest Rego policy, in bytes.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;
