//! One entry of the log.

use prost::Message;

use super::{RowSet, merkle};
use crate::action::Action;
use crate::id::Digest;
use crate::service::ServiceIndicator;

/// How an operation was decided.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, prost::Enumeration)]
#[repr(i32)]
pub enum LeafOutcome {
    /// Not set; never written.
    Unspecified = 0,
    /// Permitted.
    Granted = 1,
    /// Refused.
    Denied = 2,
    /// What was permitted before, and took its time, has come to its end.
    Finished = 3,
    /// What was permitted before, and took its time, has ended without a result; the reason says why.
    BrokenOff = 4,
}

/// One operation: who did what to which resource, under which rules, and what was decided.
///
/// The same message stands in `proto/kms/v1/audit.proto`; a test compares the two. Texts are names
/// and published reasons, bytes are digests and ids of fixed length: nothing a caller may fill
/// freely.
#[derive(Clone, Eq, Hash, PartialEq, Message)]
pub struct Leaf {
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub time_ms: u64,
    /// 16 bytes naming the operation.
    #[prost(bytes = "vec", tag = "2")]
    pub operation_id: Vec<u8>,
    /// Who: `users/…`, `apps/…`, `workloads/…`.
    #[prost(string, tag = "3")]
    pub actor: String,
    /// How the actor proved so.
    #[prost(string, tag = "4")]
    pub authentication: String,
    /// The role in which it acted; empty when none was needed.
    #[prost(string, tag = "5")]
    pub role: String,
    /// What: the gRPC method's name.
    #[prost(string, tag = "6")]
    pub action: String,
    /// To which resource.
    #[prost(string, tag = "7")]
    pub resource: String,
    /// Where the daemon stands.
    #[prost(string, tag = "8")]
    pub region: String,
    /// Salted digest of the request; the caller holds the salt.
    #[prost(bytes = "vec", tag = "9")]
    pub request_digest: Vec<u8>,
    /// Digest of the release requirement that decided; empty without.
    #[prost(bytes = "vec", tag = "10")]
    pub requirement_digest: Vec<u8>,
    /// Digest of the attestation evidence; empty without.
    #[prost(bytes = "vec", tag = "11")]
    pub evidence_digest: Vec<u8>,
    /// Digest of the recipient key that a release was sealed to; empty without.
    #[prost(bytes = "vec", tag = "12")]
    pub recipient_digest: Vec<u8>,
    /// Digest of the approved proposal; empty without.
    #[prost(bytes = "vec", tag = "13")]
    pub proposal_digest: Vec<u8>,
    /// Who approved it.
    #[prost(string, repeated, tag = "14")]
    pub approvers: Vec<String>,
    /// Permitted or refused, or how something that was permitted has ended.
    #[prost(enumeration = "LeafOutcome", tag = "15")]
    pub outcome: i32,
    /// The published reason of a refusal, or of a stream that was broken off; otherwise empty.
    #[prost(string, tag = "16")]
    pub reason: String,
    /// Digests of the sealed rows that this operation wrote, in order.
    #[prost(bytes = "vec", repeated, tag = "17")]
    pub row_digests: Vec<Vec<u8>>,
    /// The measured workload of a release; empty without.
    #[prost(string, tag = "18")]
    pub app: String,
    /// The model that the key protects; empty without.
    #[prost(string, tag = "19")]
    pub model: String,
    /// The dataset that the key protects; empty without.
    #[prost(string, tag = "20")]
    pub dataset: String,
    /// Checks of the evidence that could not be made and were permitted to stay open.
    #[prost(string, repeated, tag = "21")]
    pub not_established: Vec<String>,
    /// How many like requests this leaf stands for, when refusals of one peer were counted
    /// together; 0 means one. Of a usage lease that has ended: how often it was used, after the use that
    /// opened it; of one that was lost, how often at most.
    #[prost(uint64, tag = "22")]
    pub count: u64,
    /// Whose root the evidence chains to: `vendor` or `development`; empty without evidence.
    #[prost(string, tag = "23")]
    pub trust_root: String,
    /// Digest of the verdict: every check of the evidence and what came of it; empty without.
    #[prost(bytes = "vec", tag = "24")]
    pub verdict_digest: Vec<u8>,
    /// Digest of the quorum policy that decided, the ring's where two did; empty without.
    #[prost(bytes = "vec", tag = "25")]
    pub quorum_digest: Vec<u8>,
    /// How the key was used; empty where no key was.
    #[prost(string, tag = "26")]
    pub mechanism: String,
    /// The second resource that the operation touched: where a derived key was made, which key was
    /// wrapped, to which key a ciphertext was moved; empty without.
    #[prost(string, tag = "27")]
    pub other_resource: String,
    /// Of a stream or a usage lease that has ended: where the log says that it was permitted.
    #[prost(uint64, tag = "28")]
    pub began_at_index: u64,
    /// Of a stream that has ended: how many bytes of data it has taken.
    #[prost(uint64, tag = "29")]
    pub length_bytes: u64,
    /// Whether the service that was given is an approved one; unspecified for a refusal.
    #[prost(enumeration = "ServiceIndicator", tag = "30")]
    pub service: i32,
    /// The root over all rows of the store, where the operation is to name it; empty elsewhere.
    #[prost(bytes = "vec", tag = "31")]
    pub row_set_root: Vec<u8>,
    /// With which record of the store the rows stood so.
    #[prost(uint64, tag = "32")]
    pub row_set_sequence: u64,
    /// Digest of the key's quorum policy, where it decided together with the ring's; empty elsewhere.
    #[prost(bytes = "vec", tag = "33")]
    pub key_quorum_digest: Vec<u8>,
    /// Of a use that opens a usage lease: how many more uses like it may follow without a leaf of their own;
    /// 0 elsewhere.
    #[prost(uint64, tag = "34")]
    pub lease_uses_max: u64,
    /// Until when, milliseconds since 1970.
    #[prost(uint64, tag = "35")]
    pub lease_until_ms: u64,
    /// Of a usage lease that has ended: the digests of its uses in their order, 32 bytes each (see
    /// [`use_digest`](super::use_digest)).
    #[prost(bytes = "vec", tag = "36")]
    pub use_digests: Vec<u8>,
}

/// The bytes are not a leaf, or one that was written another way: somebody's edit, or another
/// version's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not an audit leaf in the one form that this version writes")]
pub struct LeafError;

impl Leaf {
    /// The leaf's bytes, as they stand in the log.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// Reads a leaf out of the log.
    ///
    /// # Errors
    /// When the bytes are not a leaf, or not in the one form that this crate writes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LeafError> {
        let leaf = Self::decode(bytes).map_err(|_| LeafError)?;
        if leaf.to_bytes() == bytes { Ok(leaf) } else { Err(LeafError) }
    }

    /// The set of rows that the leaf names, if the daemon wrote it to name one.
    pub fn row_set(&self) -> Option<RowSet> {
        let names_it = self.action == Action::BindRows.as_str()
            && self.outcome == i32::from(LeafOutcome::Granted);
        let root = Digest::try_from(self.row_set_root.as_slice()).ok()?;
        names_it.then_some(RowSet { root, sequence: self.row_set_sequence })
    }

    /// Whether the daemon can have written it while its root key was closed: a refusal, the end of
    /// something without a result, or a grant of what needs neither key nor role, which tells nothing
    /// but who asked when.
    pub fn can_arise_sealed(&self) -> bool {
        match self.outcome() {
            LeafOutcome::Denied | LeafOutcome::BrokenOff => true,
            LeafOutcome::Granted => {
                let action = self.action.parse::<Action>();
                action.is_ok_and(Action::works_while_sealed) && *self == self.without_grounds()
            }
            LeafOutcome::Finished | LeafOutcome::Unspecified => false,
        }
    }

    /// The same without what it was granted on, and without what came of it.
    fn without_grounds(&self) -> Self {
        let Self { time_ms, service, count, .. } = *self;
        let text = String::clone;
        Self {
            time_ms,
            operation_id: self.operation_id.clone(),
            actor: text(&self.actor),
            authentication: text(&self.authentication),
            role: text(&self.role),
            action: text(&self.action),
            resource: text(&self.resource),
            region: text(&self.region),
            request_digest: self.request_digest.clone(),
            outcome: self.outcome,
            service,
            count,
            ..Self::default()
        }
    }

    /// The leaf hash (RFC 6962 §2.1).
    pub fn hash(&self) -> Digest {
        merkle::leaf_hash(&self.to_bytes())
    }
}
