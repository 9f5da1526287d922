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
use crate::lifecycle::{self, Compromise, Dates, State};
use crate::mechanism::Mechanism;
use crate::quorum::QuorumPolicy;
use crate::ring_policy::RingPolicy;

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
    /// What keys of this ring may be and do.
    pub policy: RingPolicy,
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
    /// What it may be used for: what the versions were sealed with, or less.
    pub usages: BTreeSet<Usage>,
    /// How it may be used: what the versions were sealed with, or less.
    pub mechanisms: BTreeSet<Mechanism>,
    /// Whether a quorum may hand it out, wrapped; once false, false for good.
    pub exportable: bool,
    /// Whether a security officer trusts it to wrap other keys (CKA_TRUSTED).
    pub trusted: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was deleted. The row stays, so that its name is never used again.
    pub deleted_at: Option<Timestamp>,
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
    /// Which versions are too old.
    pub floors: Floors,
    /// When the next version is made without anybody asking.
    pub rotation: Option<Rotation>,
    /// How PKCS#11 clients see it.
    pub pkcs11: Pkcs11Attributes,
    /// Whether each use has a leaf of its own, and none goes on a usage lease; once true, true for good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub audit_each_use: bool,
}

/// The lowest version numbers that may still be used. They only rise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floors {
    /// For signing, encrypting and the other protecting uses.
    pub protect: u32,
    /// For verifying, decrypting and the other processing uses.
    pub process: u32,
}

/// Rotation that nobody has to remember.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Every so many milliseconds; 0 means never.
    pub period_ms: u64,
    /// When the next one is due, if there is a period.
    pub next_at: Timestamp,
    /// After so many protections with one version; 0 means no count.
    pub uses_max: u64,
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
    /// When it moves on by itself.
    pub dates: Dates,
    /// What is known of its compromise, if it is COMPROMISED or was.
    pub compromise: Option<Compromise>,
    /// What the last step can be taken back to, and until when.
    pub undo: Option<Undo>,
    /// Protections that are on record as done or set aside; see [`PROTECTIONS_PER_RESERVATION`]. On the
    /// first of a line also those of its copies, where the mechanism bears so many and no more.
    pub protections_reserved: u64,
    /// A certificate for the public key, X.509 in DER, lower-case hexadecimal; empty for none.
    pub certificate: String,
    /// The public key (SubjectPublicKeyInfo, DER, lower-case hexadecimal); empty for secret keys.
    pub public_key: String,
    /// Which slot holds the secret whose erasure destroys this version; none while the material is
    /// still to be imported.
    pub slot: Option<u64>,
}

/// The way back from the last step of a version's life.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// Where it stood before.
    pub state: State,
    /// How long the step can be taken back.
    pub until: Timestamp,
}

/// Where a version's material comes from.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Origin {
    /// Another key of this appliance, under another name.
    Copied,
    /// Another key of this appliance, by derivation, agreement or decapsulation.
    Derived,
    /// This appliance's random number generator.
    Generated,
    /// Outside, through an import job.
    Imported,
    /// Outside, or another key of this appliance, through a wrapping key.
    Unwrapped,
}

impl Origin {
    /// The published name, as in proto, CLI and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Copied => "COPIED",
            Self::Derived => "DERIVED",
            Self::Generated => "GENERATED",
            Self::Imported => "IMPORTED",
            Self::Unwrapped => "UNWRAPPED",
        }
    }
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
    /// How it may be used.
    pub mechanisms: BTreeSet<Mechanism>,
    /// Length of the key in bytes, for secrets; 0 for key pairs.
    pub length_bytes: u32,
    /// Where the material comes from.
    pub origin: Origin,
    /// Whether it may ever be handed out, wrapped.
    pub exportable: bool,
    /// Whether it was at any time, here or in a key that it comes from, exportable or outside. False
    /// is CKA_NEVER_EXTRACTABLE.
    pub ever_exportable: bool,
    /// The version whose material this is a copy of, first of its line; its own name otherwise. All
    /// that share it share the choice between wrapping and decrypting, and the count of protections by
    /// mechanisms that bear so many and no more, which stands on that version.
    pub lineage: VersionName,
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

    /// Whether `key`'s policies are the ones that were sealed in, or tighter. A key row that somebody
    /// edited to drop its gate or its quorum, or to widen its uses, does not match, and nothing is
    /// decided on it.
    pub fn matches(&self, key: &Key) -> bool {
        // Destructured so that a field added to the header cannot be left out of the comparison.
        let Self {
            version,
            algorithm,
            usages,
            mechanisms,
            length_bytes: _,
            origin: _,
            exportable,
            ever_exportable: _,
            lineage: _,
            requirement_digest,
            quorum_digest,
            model,
            dataset,
        } = self;
        let requirement = key.requirement.as_ref().map(ReleaseRequirement::digest);
        let quorum = key.quorum.as_ref().map(QuorumPolicy::digest);
        version.key == key.name
            && *algorithm == key.algorithm
            && key.usages.is_subset(usages)
            && key.mechanisms.is_subset(mechanisms)
            && (*exportable || !key.exportable)
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

impl Version {
    /// Where it stands at `now`; its dates act at once.
    pub fn state_at(&self, now: Timestamp) -> State {
        lifecycle::at(self.state, &self.dates, now)
    }

    /// The state that the last step can be taken back to, while it can. What is destroyed is gone, and
    /// a step that a date took is taken back by nobody.
    pub fn undoable(&self, now: Timestamp) -> Option<State> {
        // Nothing goes back to waiting for its destruction: the date of that is not kept.
        let undo = self.undo.filter(|undo| undo.state != State::DestroyScheduled)?;
        let undo = Some(undo).filter(|undo| now < undo.until)?;
        let stands = self.state != State::Destroyed && self.state_at(now) == self.state;
        stands.then_some(undo.state)
    }

    /// Whether what this line of keys was put to first has to be remembered: its sealing lets it encrypt
    /// or decrypt as well as wrap or unwrap, or it is a copy of one that may have been let.
    pub fn may_conflict(&self) -> bool {
        let does =
            |kind| self.header.usages.iter().any(|usage| Commitment::of(*usage) == Some(kind));
        let (data, keys) = (does(Commitment::Data), does(Commitment::Keys));
        (data && keys) || (self.is_copy() && (data || keys))
    }

    /// Whether the material has been here and nowhere else, so that an officer's trust in the key is
    /// trust in this version, too.
    pub const fn is_known_to_nobody(&self) -> bool {
        self.is_local() && !self.header.ever_exportable
    }

    /// Whether it has its material from a version of another name, the first of its line.
    pub fn is_copy(&self) -> bool {
        self.header.lineage != self.header.version
    }

    /// Whether it was generated here (CKA_LOCAL).
    pub const fn is_local(&self) -> bool {
        matches!(self.header.origin, Origin::Generated)
    }
}

impl Rotation {
    /// Whether the schedule asks for the next version at `now`.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.period_ms != 0 && self.next_at <= now
    }

    /// Whether `uses` protections with one version ask for the next one.
    pub const fn is_used_up(&self, uses: u64) -> bool {
        self.uses_max != 0 && uses >= self.uses_max
    }

    /// The schedule as it begins at `now`, when nobody said when the first rotation is due.
    #[must_use]
    pub const fn begun(self, now: Timestamp) -> Self {
        match self.next_at.0 {
            0 => Self { next_at: now.plus_ms(self.period_ms), ..self },
            _ => self,
        }
    }

    /// The schedule after a rotation at `now`: the next one is due on the first beat after it, however
    /// many were missed.
    #[must_use]
    pub const fn after(self, now: Timestamp) -> Self {
        if self.period_ms == 0 {
            return self;
        }
        let late_ms = now.0.saturating_sub(self.next_at.0);
        let beats = match self.next_at.0 > now.0 {
            // Rotated by hand before its time: the period begins anew.
            true => return Self { next_at: now.plus_ms(self.period_ms), ..self },
            false => late_ms / self.period_ms + 1,
        };
        Self { next_at: self.next_at.plus_ms(self.period_ms.saturating_mul(beats)), ..self }
    }
}

impl Key {
    /// The mechanism that a use takes: the one asked for, or the algorithm's preferred one among
    /// those that this key permits. `None` when this key permits none.
    pub fn mechanism_for(&self, usage: Usage, asked: Option<Mechanism>) -> Option<Mechanism> {
        let permitted =
            |mechanism: &Mechanism| self.mechanisms.contains(mechanism) && mechanism.offers(usage);
        match asked {
            Some(mechanism) => Some(mechanism).filter(permitted),
            None => self.algorithm.mechanisms().iter().copied().find(permitted),
        }
    }
}

/// Which of two uses that undo each other a line of keys has been put to first (PKCS#11 leaves it
/// open; a key that does both hands out what it wraps).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Commitment {
    /// Encrypting and decrypting data.
    Data,
    /// Wrapping and unwrapping keys.
    Keys,
}

impl Commitment {
    /// Which of the two a usage is, if it is one.
    pub const fn of(usage: Usage) -> Option<Self> {
        match usage {
            Usage::Decrypt | Usage::Encrypt => Some(Self::Data),
            Usage::Unwrap | Usage::Wrap => Some(Self::Keys),
            _ => None,
        }
    }
}

impl core::fmt::Display for Commitment {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Data => "encrypt or decrypt data",
            Self::Keys => "wrap or unwrap keys",
        })
    }
}

/// How many protections are set aside at once where they are counted, so that not every one writes a
/// row. After a crash those set aside count as done: the count is never too low.
pub const PROTECTIONS_PER_RESERVATION: u64 = 1024;
/// Most labels on a key.
pub const LABELS_MAX: usize = 64;
/// Longest label key or value, in bytes.
pub const LABEL_BYTES_MAX: usize = 255;
/// Longest Rego policy, in bytes.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A signing key.
    pub(crate) fn key() -> Key {
        let header = version().header;
        Key {
            name: header.version.key,
            algorithm: header.algorithm,
            usages: header.usages,
            mechanisms: header.mechanisms,
            exportable: false,
            trusted: false,
            created_at: Timestamp(0),
            deleted_at: None,
            labels: BTreeMap::new(),
            requirement: None,
            quorum: None,
            model: String::new(),
            dataset: String::new(),
            primary: 1,
            latest: 1,
            floors: Floors::default(),
            rotation: None,
            pkcs11: Pkcs11Attributes::default(),
            audit_each_use: false,
        }
    }

    /// An active version of it.
    pub(crate) fn version() -> Version {
        let name: VersionName =
            "tenants/t/locations/l/keyRings/r/keys/k/versions/1".parse().unwrap();
        let header = SealHeader {
            version: name.clone(),
            algorithm: Algorithm::EcP256,
            usages: BTreeSet::from([Usage::Sign, Usage::Verify]),
            mechanisms: BTreeSet::from([Mechanism::EcdsaSha256]),
            length_bytes: 0,
            origin: Origin::Generated,
            exportable: false,
            ever_exportable: false,
            lineage: name,
            requirement_digest: None,
            quorum_digest: None,
            model: String::new(),
            dataset: String::new(),
        };
        Version {
            header,
            state: State::Active,
            enabled: true,
            created_at: Timestamp(0),
            changed_at: Timestamp(0),
            dates: Dates::default(),
            compromise: None,
            undo: None,
            protections_reserved: 0,
            certificate: String::new(),
            public_key: String::new(),
            slot: Some(0),
        }
    }

    #[test]
    fn a_schedule_skips_the_beats_that_were_missed_and_begins_anew_after_a_rotation_by_hand() {
        let rotation = Rotation { period_ms: 10, next_at: Timestamp(100), uses_max: 0 };
        assert!(!rotation.is_due(Timestamp(99)) && rotation.is_due(Timestamp(100)));
        for (now, next) in [(100, 110), (109, 110), (110, 120), (135, 140), (50, 60)] {
            assert_eq!(rotation.after(Timestamp(now)).next_at, Timestamp(next), "at {now}");
        }
        let counted = Rotation { period_ms: 0, uses_max: 5, ..rotation };
        assert!(
            !counted.is_due(Timestamp(1000)) && counted.is_used_up(5) && !counted.is_used_up(4)
        );
        assert_eq!(counted.after(Timestamp(7)), counted);
    }
}
