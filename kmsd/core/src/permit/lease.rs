//! Usage leases: one leaf on disk permits many more uses of the same kind, each of which is decided on its
//! own and counted before it is made.
//!
//! ```text
//! Permit ── offered, recorded ──> Recorded (the first use) ── lease ──> Lease
//! Caller + Intent ── Lease::decide, every rule asked anew ──> Recorded (the nth use)
//! Lease ── close ──> the leaf that tells how many they were, and the digest of each
//! ```
//!
//! So the log is never behind what was done: before the first use it says how many there may be, and after
//! the last how many there were. Where the second leaf is missing, the number of the first holds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Grounds, Intent, Permit, Recorded, judge, mechanism_used};
use crate::action::Action;
use crate::audit::{Leaf, LeafOutcome, use_digest};
use crate::caller::{Authentication, Caller};
use crate::id::{PrincipalName, Resource, Timestamp};
use crate::service;

/// What a lease permits at most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseTerms {
    /// How many uses may follow the one that opens it; at most [`LEASE_USES_MAX`].
    pub uses_max: u64,
    /// Until when.
    pub until: Timestamp,
}

/// An open lease. It has no constructor but [`Recorded::lease`], so its first leaf is on disk.
#[derive(Debug)]
pub struct Lease {
    opening: Arc<Leaf>,
    action: Action,
    resource: Resource,
    principal: PrincipalName,
    authentication: Authentication,
    audit_index: u64,
    uses: Mutex<Uses>,
}

#[derive(Debug, Default)]
struct Uses {
    digests: Vec<u8>,
    count: u64,
    is_closed: bool,
}

/// Why a use does not go on a lease; it is decided and recorded on its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotLeased {
    /// It is not like the uses of the lease, or the rules refuse it.
    Unlike,
    /// The lease has been closed, has run out, or all its uses are made.
    Over,
}

impl Permit {
    /// Whether a lease may begin with this use: nobody had to approve it or to prove anything for it, and
    /// it touches one resource alone.
    fn may_begin_lease(&self) -> bool {
        let Grounds { evidence, approval } = &self.grounds;
        evidence.is_none() && approval.is_none() && self.other.is_none()
    }

    /// Has the leaf of this use open a lease on `terms`, and for no more uses than a leaf can tell of. Where
    /// none may begin, nothing changes.
    pub fn offer_lease(&mut self, terms: LeaseTerms) {
        if self.may_begin_lease() {
            let leaf = Arc::make_mut(&mut self.leaf);
            leaf.lease_uses_max = terms.uses_max.min(LEASE_USES_MAX);
            leaf.lease_until_ms = terms.until.0;
        }
    }
}

impl Recorded {
    /// The lease that the leaf of this use has opened for `caller`, if it has.
    pub fn lease(&self, caller: &Caller) -> Option<Lease> {
        let Permit { action, resource, leaf, .. } = &self.permit;
        let opens = self.use_number.is_none() && leaf.lease_uses_max > 0;
        opens.then(|| Lease {
            opening: leaf.clone(),
            action: *action,
            resource: resource.clone(),
            principal: caller.principal().clone(),
            authentication: caller.authentication(),
            audit_index: self.audit_index,
            uses: Mutex::default(),
        })
    }
}

impl Lease {
    /// Decides a use by every rule and, if it is one of those that the lease stands for, counts it.
    ///
    /// # Errors
    /// [`NotLeased`], and nothing is counted. A refusal is not told: whoever asks has it decided, and
    /// recorded, on its own.
    pub fn decide(&self, caller: &Caller, intent: &Intent<'_>) -> Result<Recorded, NotLeased> {
        let same = intent.action == self.action
            && intent.other.is_none()
            && intent.resource == self.resource
            && caller.authentication() == self.authentication
            && *caller.principal() == self.principal;
        if !same {
            return Err(NotLeased::Unlike);
        }
        let grounds = Grounds::default();
        let service = service::indicator(intent, &grounds);
        let role = judge::judge(caller, intent, &grounds, None)
            .and_then(|role| judge::judge_service(intent, service).map(|()| role))
            .map_err(|_| NotLeased::Unlike)?;
        let mechanism = mechanism_used(intent);
        let opening = &self.opening;
        let alike = role.map_or("", |role| role.as_str()) == opening.role
            && i32::from(service) == opening.service
            && mechanism.map_or("", |mechanism| mechanism.as_str()) == opening.mechanism
            && intent.region == opening.region;
        if !alike {
            return Err(NotLeased::Unlike);
        }
        let number = self.count(intent)?;
        let permit = Permit {
            action: self.action,
            resource: intent.resource.clone(),
            other: None,
            request_digest: intent.request_digest,
            leaf: opening.clone(),
            grounds,
        };
        Ok(Recorded { permit, audit_index: self.audit_index, use_number: Some(number) })
    }

    fn count(&self, intent: &Intent<'_>) -> Result<u64, NotLeased> {
        let mut uses = self.lock();
        let is_over = uses.is_closed
            || uses.count >= self.opening.lease_uses_max
            || intent.now.0 >= self.opening.lease_until_ms
            || intent.now.0 < self.opening.time_ms;
        if is_over {
            return Err(NotLeased::Over);
        }
        uses.digests.extend_from_slice(use_digest(&intent.request_digest, intent.now).as_bytes());
        uses.count += 1;
        Ok(uses.count)
    }

    /// How many uses were counted.
    pub fn uses(&self) -> u64 {
        self.lock().count
    }

    /// Ends the lease: no use is counted after this. Gives the leaf that tells how many there were, the
    /// first time; the lease is owed to the log until that is on disk.
    pub fn close(&self, now: Timestamp) -> Option<Leaf> {
        let mut uses = self.lock();
        if std::mem::replace(&mut uses.is_closed, true) {
            return None;
        }
        let use_digests = std::mem::take(&mut uses.digests);
        let ended = end_of(&self.opening, self.audit_index, now);
        Some(Leaf {
            count: uses.count,
            use_digests,
            outcome: LeafOutcome::Finished.into(),
            ..ended
        })
    }

    /// Nothing panics under this lock.
    fn lock(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The leaf that ends a lease which the daemon has not closed before it was cut off: it was used at most as
/// often as it permits.
pub fn lost_lease(opening: &Leaf, audit_index: u64, now: Timestamp) -> Leaf {
    Leaf {
        count: opening.lease_uses_max,
        outcome: LeafOutcome::BrokenOff.into(),
        reason: LEASE_LOST.to_owned(),
        ..end_of(opening, audit_index, now)
    }
}

fn end_of(opening: &Leaf, audit_index: u64, now: Timestamp) -> Leaf {
    Leaf {
        time_ms: now.0,
        // Those of the first use, which has its own leaf.
        request_digest: Vec::new(),
        lease_uses_max: 0,
        lease_until_ms: 0,
        began_at_index: audit_index,
        ..opening.clone()
    }
}

/// Most uses of one lease: so many digests fit into a leaf.
pub const LEASE_USES_MAX: u64 = 1024;
/// Why a lease ends that was not closed.
pub const LEASE_LOST: &str = "LEASE_LOST";
