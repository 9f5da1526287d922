//! The one place where anything is permitted.
//!
//! ```text
//! Caller ─┐
//! Claims ─┼─ decide ─> Permit ── recorded on disk ──> Recorded ── spent by the vault
//! Quorum ─┘    └────> Denial ── recorded on disk ──> answer
//! ```
//!
//! A [`Permit`] has private fields, no `Clone` and no constructor but [`decide`] and, for a use that is counted
//! already, [`Lease::decide`], which asks the same rules. It carries the
//! action, the resource and the request's digest, and [`Recorded::spend`] compares them with what is
//! about to be done, in one place.
//!
//! A permit cannot be made by hand:
//!
//! ```compile_fail
//! # use kms_core::{action::Action, permit::Permit};
//! fn forge(other: Permit) -> Permit { Permit { action: Action::Sign, ..other } }
//! ```
//!
//! nor copied, nor used twice:
//!
//! ```compile_fail
//! # use kms_core::{audit::CommitReceipt, permit::Permit};
//! fn twice(permit: Permit, receipt: &CommitReceipt) {
//!     let first = permit.record(vec![]);
//!     let second = permit.record(vec![]);
//! }
//! ```
//!
//! while once is fine, and gives a [`Recorded`] only against the store's receipt (or a [`Lease`], which has no
//! constructor but a [`Recorded`] whose leaf opened it):
//!
//! ```
//! # use kms_core::{audit::CommitReceipt, permit::{Permit, Recorded}};
//! fn once(permit: Permit, receipt: &CommitReceipt) -> Option<Recorded> {
//!     permit.record(vec![]).on_disk(receipt).ok()
//! }
//! ```
//!
//! A vault that wants a [`Recorded`] does not take a permit that is not on record:
//!
//! ```compile_fail
//! # use kms_core::permit::{Permit, Recorded};
//! fn vault(_: Recorded) {}
//! fn unrecorded(permit: Permit) { vault(permit) }
//! ```
//!
//! ```
//! # use kms_core::permit::Recorded;
//! fn vault(_: Recorded) {}
//! fn recorded(recorded: Recorded) { vault(recorded) }
//! ```

mod judge;
mod lease;
mod refusal;

use std::sync::Arc;

use crate::action::Action;
use crate::audit::{CommitReceipt, Leaf, LeafOutcome, RowSet, merkle};
use crate::caller::Caller;
use crate::claims::Appraised;
use crate::id::{Digest, OperationId, Resource, Timestamp};
use crate::key::{Commitment, Key, Ring, Version};
use crate::lifecycle::Transition;
use crate::mechanism::Mechanism;
use crate::quorum::Approved;
use crate::service::{self, Ingredients, ServiceIndicator};

pub use judge::guarding;
pub use lease::{LEASE_LOST, LEASE_USES_MAX, Lease, LeaseTerms, NotLeased, lost_lease};
pub use refusal::Refusal;

/// What is asked for: one exact request.
#[derive(Clone, Debug)]
pub struct Intent<'a> {
    /// The operation.
    pub action: Action,
    /// What it acts on.
    pub resource: Resource,
    /// Names this request; a retry has the same.
    pub operation_id: OperationId,
    /// Salted digest of the whole request.
    pub request_digest: Digest,
    /// What the store says of the resource.
    pub subject: Subject<'a>,
    /// What else is touched, where one request needs leave for two things.
    pub other: Option<Other<'a>>,
    /// What cryptography it asks for that the rest does not tell.
    pub ingredients: Ingredients,
    /// Whether this daemon gives approved services only.
    pub approved_only: bool,
    /// Where this daemon stands.
    pub region: &'a str,
    /// The time.
    pub now: Timestamp,
}

/// The second thing that a request needs leave for: the ring that a derived key is made in, the key
/// that a ciphertext is moved to, the key that is wrapped.
#[derive(Clone, Debug)]
pub struct Other<'a> {
    /// What it takes to do that.
    pub action: Action,
    /// To what.
    pub resource: Resource,
    /// What the store says of it.
    pub subject: Subject<'a>,
}

/// What the store says of the resource of an [`Intent`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Subject<'a> {
    /// It does not exist.
    Absent,
    /// A key, for operations on the key as a whole.
    Key(&'a Key),
    /// Something without a life cycle.
    Plain,
    /// All rows of the store, which the leaf is to name.
    Rows(&'a RowSet),
    /// A version with its key and ring, and what the operation wants of it.
    Version {
        /// The ring.
        ring: &'a Ring,
        /// The key.
        key: &'a Key,
        /// The version.
        version: &'a Version,
        /// The transition asked for, for life-cycle operations.
        transition: Option<Transition>,
        /// The mechanism asked for, for uses; none means the key's own preference.
        mechanism: Option<Mechanism>,
        /// What else the rules are to know of a use.
        manner: Manner,
    },
}

/// What the rules are to know of a use, besides its mechanism. The default is a use that brings nothing
/// along and was preceded by none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Whether the caller brings the IV of an encryption.
    pub callers_iv: bool,
    /// What the line of keys, of which this is one, was put to first; none when it was to neither, or
    /// permits only one of the two.
    pub committed: Option<Commitment>,
    /// Whether the data comes as a stream, which an AEAD takes in segments.
    pub segmented: bool,
    /// Which protection with this version this one is, counted from 1; 0 where none are counted. Where the
    /// mechanism bears so many and no more, which it is of those with the same material under any name.
    pub protection: u64,
}

/// What the caller brings besides its identity; most requests nothing, so what is large stands elsewhere.
#[derive(Debug, Default)]
pub struct Grounds {
    /// Attestation evidence, verified, bound and appraised.
    pub evidence: Option<Box<Appraised>>,
    /// A quorum's approval.
    pub approval: Option<Box<Approved>>,
}

/// Leave to do one exact thing, once. See the module text for what cannot be done with it.
#[derive(Debug)]
#[must_use = "a permit that is not recorded permits nothing"]
pub struct Permit {
    action: Action,
    resource: Resource,
    other: Option<(Action, Resource)>,
    request_digest: Digest,
    // Apart, since a permit is handed on many times; shared by the uses of a lease.
    leaf: Arc<Leaf>,
    grounds: Grounds,
}

/// A refusal that will stand in the log before the caller hears of it.
#[derive(Debug)]
#[must_use = "a refusal is recorded too"]
pub struct Denial {
    refusal: Refusal,
    leaf: Box<Leaf>,
}

/// Decides. Every grant and every refusal of the appliance comes from here.
///
/// `earlier` is a refusal that was already found while evidence, approval or challenge were
/// checked; it is passed through here so that it is recorded like every other.
///
/// # Errors
/// [`Denial`], to be recorded and then told to the caller.
pub fn decide(
    caller: &Caller,
    intent: &Intent<'_>,
    grounds: Grounds,
    earlier: Option<Refusal>,
) -> Result<Permit, Denial> {
    let mut leaf = Box::new(leaf_of(caller, intent, &grounds));
    let service = service::indicator(intent, &grounds);
    let judged = judge::judge(caller, intent, &grounds, earlier)
        .and_then(|role| judge::judge_service(intent, service).map(|()| role));
    match judged {
        Ok(role) => {
            leaf.service = service.into();
            leaf.role = role.map(|role| role.to_string()).unwrap_or_default();
            leaf.outcome = LeafOutcome::Granted.into();
            Ok(Permit {
                action: intent.action,
                resource: intent.resource.clone(),
                other: intent.other.as_ref().map(|other| (other.action, other.resource.clone())),
                request_digest: intent.request_digest,
                leaf: Arc::from(leaf),
                grounds,
            })
        }
        Err(refusal) => {
            leaf.outcome = LeafOutcome::Denied.into();
            leaf.reason = refusal.reason().to_owned();
            Err(Denial { refusal, leaf })
        }
    }
}

fn leaf_of(caller: &Caller, intent: &Intent<'_>, grounds: &Grounds) -> Leaf {
    let mut leaf = Leaf {
        time_ms: intent.now.0,
        operation_id: intent.operation_id.as_bytes().to_vec(),
        actor: caller.principal().to_string(),
        authentication: caller.authentication().as_str().to_owned(),
        action: intent.action.as_str().to_owned(),
        resource: intent.resource.to_string(),
        region: intent.region.to_owned(),
        request_digest: intent.request_digest.as_bytes().to_vec(),
        ..Leaf::default()
    };
    if let Some(other) = &intent.other {
        leaf.other_resource = other.resource.to_string();
    }
    leaf.mechanism = mechanism_used(intent).map(|it| it.to_string()).unwrap_or_default();
    if let Subject::Rows(RowSet { root, sequence }) = intent.subject {
        leaf.row_set_root = root.as_bytes().to_vec();
        leaf.row_set_sequence = *sequence;
    }
    if let Subject::Version { key, .. } | Subject::Key(key) = intent.subject {
        leaf.model.clone_from(&key.model);
        leaf.dataset.clone_from(&key.dataset);
    }
    if let Some(evidence) = &grounds.evidence {
        let claims = evidence.claims();
        let examination = claims.examination();
        leaf.requirement_digest = evidence.policy_digest().as_bytes().to_vec();
        leaf.evidence_digest = examination.evidence_digest.as_bytes().to_vec();
        leaf.recipient_digest = claims.recipient().digest().as_bytes().to_vec();
        leaf.app.clone_from(&examination.measurement);
        leaf.trust_root = examination.root.to_string();
        leaf.verdict_digest = examination.verdict.digest().as_bytes().to_vec();
        leaf.not_established =
            examination.verdict.not_established().into_iter().map(str::to_owned).collect();
    }
    if let Some(approval) = &grounds.approval {
        let policies = approval.proposal().policies();
        leaf.quorum_digest = policies.policy.as_bytes().to_vec();
        leaf.key_quorum_digest =
            policies.of_key.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default();
        leaf.proposal_digest = approval.proposal_digest().as_bytes().to_vec();
        leaf.approvers = approval.approvers().iter().map(ToString::to_string).collect();
    }
    leaf
}

/// By what a key is used; none where it is not.
fn mechanism_used(intent: &Intent<'_>) -> Option<Mechanism> {
    let Subject::Version { key, mechanism, .. } = intent.subject else { return None };
    let usage = intent.action.usage().filter(|usage| !usage.hands_out())?;
    key.mechanism_for(usage, mechanism)
}

/// A decision on its way to the disk.
#[derive(Debug)]
#[must_use = "a decision takes effect only when its leaf is on disk"]
pub struct Unrecorded<D> {
    decision: D,
    leaf_bytes: Vec<u8>,
    leaf_hash: Digest,
}

/// The receipt does not hold the decision's leaf: a bug in the store or its use.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the commit receipt does not hold this decision's leaf")]
pub struct NotOnRecord;

impl<D> Unrecorded<D> {
    fn new(decision: D, leaf_bytes: Vec<u8>) -> Self {
        let leaf_hash = merkle::leaf_hash(&leaf_bytes);
        Self { decision, leaf_bytes, leaf_hash }
    }

    /// Hands over the leaf to be committed, once: what is left knows it by its hash.
    #[must_use]
    pub fn take_leaf(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.leaf_bytes)
    }

    /// The hash by which the receipt must know the leaf.
    pub const fn leaf_hash(&self) -> &Digest {
        &self.leaf_hash
    }

    fn index(&self, receipt: &CommitReceipt) -> Result<u64, NotOnRecord> {
        receipt.index_of(&self.leaf_hash).ok_or(NotOnRecord)
    }
}

impl Permit {
    /// Makes the leaf that must be on disk before this permit is worth anything. `row_digests`
    /// are those of the rows that the same batch writes.
    pub fn record(mut self, row_digests: Vec<Digest>) -> Unrecorded<Self> {
        let digests = row_digests.into_iter().map(|digest| digest.as_bytes().to_vec()).collect();
        let leaf = Arc::make_mut(&mut self.leaf);
        leaf.row_digests = digests;
        let leaf = leaf.to_bytes();
        Unrecorded::new(self, leaf)
    }

    /// The evidence on which it was granted, if it was.
    pub fn evidence(&self) -> Option<&Appraised> {
        self.grounds.evidence.as_deref()
    }

    /// What is permitted.
    pub const fn action(&self) -> Action {
        self.action
    }

    /// On what.
    pub const fn resource(&self) -> &Resource {
        &self.resource
    }
}

impl Denial {
    /// Makes the leaf that must be on disk before the caller hears of the refusal.
    pub fn record(self) -> Unrecorded<Self> {
        let leaf = self.leaf.to_bytes();
        Unrecorded::new(self, leaf)
    }

    /// Why.
    pub const fn refusal(&self) -> &Refusal {
        &self.refusal
    }
}

impl Unrecorded<Permit> {
    /// Exchanges the store's receipt for leave to act.
    ///
    /// # Errors
    /// [`NotOnRecord`] when the receipt is not for this permit's leaf.
    pub fn on_disk(self, receipt: &CommitReceipt) -> Result<Recorded, NotOnRecord> {
        let index = self.index(receipt)?;
        Ok(Recorded { permit: self.decision, audit_index: index, use_number: None })
    }
}

impl Unrecorded<Denial> {
    /// Exchanges the store's receipt for the refusal and its place in the log.
    ///
    /// # Errors
    /// [`NotOnRecord`] when the receipt is not for this refusal's leaf.
    pub fn on_disk(self, receipt: &CommitReceipt) -> Result<(Refusal, u64), NotOnRecord> {
        let index = self.index(receipt)?;
        Ok((self.decision.refusal, index))
    }
}

/// A permit whose leaf is on disk, or that is counted on a [`Lease`] whose leaf is. The vault takes it by
/// value and spends it.
#[derive(Debug)]
#[must_use]
pub struct Recorded {
    permit: Permit,
    audit_index: u64,
    /// Which use of a lease it is.
    use_number: Option<u64>,
}

/// What is about to be done is not what was permitted: a bug in the daemon, never a caller's
/// mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the permit is for another action, resource or request")]
pub struct PermitMismatch;

/// A permit that has been compared with the deed and used up. Holds the grounds, above all the
/// recipient that evidence has proven.
#[derive(Debug)]
#[must_use]
pub struct Spent {
    grounds: Grounds,
}

/// What the log is owed when something that was permitted, and takes its time, has ended.
#[derive(Debug)]
#[must_use = "the end of what is on record is on record too"]
pub struct Closing {
    leaf: Leaf,
}

impl Closing {
    /// The leaf that tells of the end: when, after how many bytes, and, without a result, for which
    /// published reason.
    pub fn leaf(
        &self,
        now: Timestamp,
        length_bytes: u64,
        broken_off: Option<&'static str>,
    ) -> Leaf {
        let outcome = broken_off.map_or(LeafOutcome::Finished, |_| LeafOutcome::BrokenOff);
        Leaf {
            time_ms: now.0,
            outcome: outcome.into(),
            reason: broken_off.unwrap_or_default().to_owned(),
            length_bytes,
            ..self.leaf.clone()
        }
    }
}

impl Recorded {
    /// What the log will be owed at the end.
    pub fn closing(&self) -> Closing {
        let leaf = Leaf {
            row_digests: Vec::new(),
            began_at_index: self.audit_index,
            lease_uses_max: 0,
            lease_until_ms: 0,
            ..Leaf::clone(&self.permit.leaf)
        };
        Closing { leaf }
    }

    /// Where the leaf stands in the log; for a use on a lease, the leaf that opened it.
    pub const fn audit_index(&self) -> u64 {
        self.audit_index
    }

    /// Which use of a lease it is, counted from 1; `None` when it has a leaf of its own.
    pub const fn use_number(&self) -> Option<u64> {
        self.use_number
    }

    /// Whether what was permitted is an approved service.
    pub fn service(&self) -> ServiceIndicator {
        self.permit.leaf.service()
    }

    /// Compares the permit with what is about to be done and uses it up.
    ///
    /// # Errors
    /// [`PermitMismatch`] when they differ, also when the permit is for two things.
    pub fn spend(
        self,
        action: Action,
        resource: &Resource,
        request_digest: &Digest,
    ) -> Result<Spent, PermitMismatch> {
        if self.permit.other.is_some() {
            return Err(PermitMismatch);
        }
        self.compare(action, resource, request_digest)
    }

    /// As [`Recorded::spend`], for a permit to do one thing that touches two: both must be the ones
    /// that were decided on.
    ///
    /// # Errors
    /// [`PermitMismatch`] when they differ, also when the permit is for one thing only.
    pub fn spend_both(
        self,
        (action, resource): (Action, &Resource),
        (other_action, other_resource): (Action, &Resource),
        request_digest: &Digest,
    ) -> Result<Spent, PermitMismatch> {
        match &self.permit.other {
            Some((action, resource)) if *action == other_action && resource == other_resource => {}
            _ => return Err(PermitMismatch),
        }
        self.compare(action, resource, request_digest)
    }

    fn compare(
        self,
        action: Action,
        resource: &Resource,
        request_digest: &Digest,
    ) -> Result<Spent, PermitMismatch> {
        let permit = self.permit;
        if permit.action == action
            && permit.resource == *resource
            && permit.request_digest == *request_digest
        {
            Ok(Spent { grounds: permit.grounds })
        } else {
            Err(PermitMismatch)
        }
    }
}

impl Spent {
    /// The evidence that came with the request, if it did.
    pub fn evidence(&self) -> Option<&Appraised> {
        self.grounds.evidence.as_deref()
    }
}

#[cfg(test)]
mod tests;
