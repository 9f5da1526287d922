//! The one place where anything is permitted.
//!
//! ```text
//! Caller ─┐
//! Claims ─┼─ decide ─> Permit ── recorded on disk ──> Recorded ── spent by the vault
//! Quorum ─┘    └────> Denial ── recorded on disk ──> answer
//! ```
//!
//! A [`Permit`] has private fields, no `Clone` and no constructor but [`decide`]. It carries the
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
//! while once is fine, and gives a [`Recorded`] only against the store's receipt:
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

use crate::action::{Action, Gate};
use crate::algorithm::Usage;
use crate::audit::{CommitReceipt, Leaf, LeafOutcome};
use crate::caller::{Authentication, Caller, Role};
use crate::claims::Appraised;
use crate::id::{Digest, OperationId, Resource, Timestamp};
use crate::key::{Commitment, Key, Ring, Rotation, Version};
use crate::lifecycle::{self, Allowance, IllegalTransition, State, Transition};
use crate::mechanism::Mechanism;
use crate::quorum::{Approved, QuorumPolicy};
use crate::ring_policy::RingKind;

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
    /// Which protection with this version this one is, counted from 1; 0 where none are counted.
    pub protection: u64,
}

/// What the caller brings besides its identity.
#[derive(Debug, Default)]
pub struct Grounds {
    /// Attestation evidence, verified, bound and appraised.
    pub evidence: Option<Appraised>,
    /// A quorum's approval.
    pub approval: Option<Approved>,
}

/// Why something is refused. [`Refusal::reason`] is what the caller learns; the log holds it too.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The version's number is below the key's floor.
    #[error("version {number} is below the key's floor of {floor}; use a newer one")]
    BelowFloor {
        /// The version's number.
        number: u32,
        /// The lowest that may be used so.
        floor: u32,
    },
    /// The version is switched off.
    #[error("the key version is disabled (kmsctl key enable)")]
    Disabled,
    /// The key is gated and no accepted evidence came with the request.
    #[error(
        "this key is used only by a workload that proves itself: ask with attestation evidence (kms-agent, or kmsctl release)"
    )]
    EvidenceRequired,
    /// Evidence came and is not believed.
    #[error("the attestation evidence is refused: {}", .reasons.join("; "))]
    EvidenceRefused {
        /// Every reason.
        reasons: Vec<String>,
    },
    /// A field of the request is out of range or malformed.
    #[error("{field}: {problem}")]
    InvalidArgument {
        /// Which field, as in the proto.
        field: &'static str,
        /// What is wrong with it and what is expected.
        problem: String,
    },
    /// The version has made as many protections as its mechanism bears.
    #[error(
        "this version has made {max} protections, as many as it may; rotate the key (kmsctl key rotate)"
    )]
    InvocationLimit {
        /// How many it may make.
        max: u64,
    },
    /// The life cycle does not allow the step.
    #[error("{0}")]
    IllegalTransition(#[from] IllegalTransition),
    /// The key has versions that are not destroyed.
    #[error(
        "version {number} is not destroyed; a key is deleted when all its versions are (kmsctl key destroy)"
    )]
    LiveVersion {
        /// The first of them.
        number: u32,
    },
    /// The key is not made for this mechanism.
    #[error("the key does not permit this mechanism; its description lists those it does")]
    MechanismRefused,
    /// A quorum must approve first.
    #[error("this needs the approval of a quorum: make a proposal (kmsctl proposal create)")]
    NeedsApproval,
    /// The import job is not there any more, or its time is over.
    #[error("there is no such import job in this ring, or it has expired; make a new one")]
    ImportJobExpired,
    /// The approval is for something else.
    #[error("the approved proposal is for another action or resource")]
    ApprovalMismatch,
    /// The key never leaves the appliance.
    #[error("this key is not exportable, and can never become so")]
    NotExportable,
    /// There is no such resource, or the caller may not know of it.
    #[error("no such resource, or you may not see it")]
    NotFound,
    /// The key is not one that is ever released.
    #[error("this key has no release requirement and never leaves the appliance")]
    NotReleasable,
    /// The wrapping key is not one that a security officer trusts.
    #[error(
        "a hardened ring wraps only with keys that a security officer trusts (kmsctl key trust)"
    )]
    NotTrusted,
    /// There is no step that could be taken back, or not any more.
    #[error("there is no step to take back, or its time has passed")]
    NothingToUndo,
    /// The policy of the ring stands in the way.
    #[error("{0}")]
    RingPolicy(#[from] crate::ring_policy::Misfit),
    /// The caller lacks the role.
    #[error("this needs the role {}", .needed.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(" or "))]
    RoleMissing {
        /// Roles that would do.
        needed: &'static [Role],
    },
    /// The state does not allow this use.
    #[error("a version that is {state} cannot be used so")]
    StateRefuses {
        /// Where the version stands.
        state: State,
    },
    /// Something with that name exists already, or did.
    #[error("the name is taken; names of deleted resources are never used again")]
    AlreadyExists,
    /// A key that has wrapped does not decrypt, and one that has decrypted does not wrap.
    #[error(
        "this key, or the key it is a copy of, was already used to {committed}; in a hardened ring it does nothing that could undo that"
    )]
    UseConflict {
        /// What it was used for.
        committed: Commitment,
    },
    /// The key is not made for this use.
    #[error("the key is not made for this use")]
    UsageRefused,
    /// The proposal cannot be carried out.
    #[error("{0}")]
    Unapproved(#[from] crate::quorum::Unapproved),
    /// The challenge cannot be redeemed.
    #[error("{0}")]
    Challenge(#[from] crate::challenge::ChallengeError),
    /// The PIN is wrong; unknown, unset and wrong PINs look alike.
    #[error("the PIN or passphrase is wrong")]
    PinIncorrect,
    /// Too many wrong PINs from this peer.
    #[error("too many wrong PINs from this peer; wait, or have the security officer set a new one")]
    PinLocked,
    /// Tries to open the root come too fast.
    #[error("too many tries; wait a little and try again")]
    TooManyTries,
    /// The request was permitted by the rules so far, and something failed before it was decided.
    #[error("the request failed before it was decided; see the daemon's log")]
    Failed,
    /// The approval does not count.
    #[error("{0}")]
    Approval(#[from] crate::quorum::ApprovalError),
    /// What only tightens would be loosened.
    #[error("{field}: this only tightens; make another key for what this one may not do")]
    OnlyTightens {
        /// Which field, as in the proto.
        field: &'static str,
    },
    /// Only the proposer may cancel or execute.
    #[error("only who made the proposal may do this")]
    NotTheProposer,
    /// A stored row is not one that this daemon wrote there, or a key's policies are not those
    /// that its sealing binds.
    #[error("the stored row {row} was edited outside the daemon; restore it from a backup")]
    RowTampered {
        /// Which row.
        row: String,
    },
    /// A self test has failed, and with it the trust in this machine.
    #[error(
        "a self test has failed, and nothing is served but status and destruction; see GetProviderStatus, and restart"
    )]
    SelfTestFailed,
    /// The root key is closed.
    #[error("the appliance is sealed; open it first (kmsctl seal unseal)")]
    Sealed,
    /// The resource is not what the caller thought it was.
    #[error("the resource has changed meanwhile; read it again")]
    Stale,
}

impl Refusal {
    /// The published reason, as in `ErrorInfo.reason` and the audit leaf.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::Approval(_) => "APPROVAL_REFUSED",
            Self::ApprovalMismatch => "APPROVAL_MISMATCH",
            Self::BelowFloor { .. } => "BELOW_FLOOR",
            Self::Challenge(_) => "CHALLENGE_REFUSED",
            Self::Disabled => "KEY_DISABLED",
            Self::Failed => "FAILED",
            Self::EvidenceRefused { .. } => "EVIDENCE_REFUSED",
            Self::EvidenceRequired => "EVIDENCE_REQUIRED",
            Self::IllegalTransition(_) => "ILLEGAL_TRANSITION",
            Self::ImportJobExpired => "IMPORT_JOB_EXPIRED",
            Self::InvalidArgument { .. } => "INVALID_ARGUMENT",
            Self::InvocationLimit { .. } => "INVOCATION_LIMIT",
            Self::LiveVersion { .. } => "LIVE_VERSION",
            Self::MechanismRefused => "MECHANISM_REFUSED",
            Self::NeedsApproval => "NEEDS_APPROVAL",
            Self::NotExportable => "NOT_EXPORTABLE",
            Self::NotFound => "NOT_FOUND",
            Self::NotReleasable => "NOT_RELEASABLE",
            Self::NotTrusted => "NOT_TRUSTED",
            Self::NothingToUndo => "NOTHING_TO_UNDO",
            Self::NotTheProposer => "NOT_THE_PROPOSER",
            Self::OnlyTightens { .. } => "ONLY_TIGHTENS",
            Self::PinIncorrect => "PIN_INCORRECT",
            Self::PinLocked => "PIN_LOCKED",
            Self::RingPolicy(_) => "RING_POLICY",
            Self::RoleMissing { .. } => "ROLE_MISSING",
            Self::RowTampered { .. } => "ROW_TAMPERED",
            Self::SelfTestFailed => "SELF_TEST_FAILED",
            Self::Sealed => "SEALED",
            Self::Stale => "STALE",
            Self::StateRefuses { .. } => "STATE_REFUSES",
            Self::TooManyTries => "TOO_MANY_TRIES",
            Self::Unapproved(_) => "UNAPPROVED",
            Self::UseConflict { .. } => "USE_CONFLICT",
            Self::UsageRefused => "USAGE_REFUSED",
        }
    }
}

/// Leave to do one exact thing, once. See the module text for what cannot be done with it.
#[derive(Debug)]
#[must_use = "a permit that is not recorded permits nothing"]
pub struct Permit {
    action: Action,
    resource: Resource,
    other: Option<(Action, Resource)>,
    request_digest: Digest,
    leaf: Leaf,
    grounds: Grounds,
}

/// A refusal that will stand in the log before the caller hears of it.
#[derive(Debug)]
#[must_use = "a refusal is recorded too"]
pub struct Denial {
    refusal: Refusal,
    // Boxed, so that the rare refusal does not make every decision large.
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
    let mut leaf = leaf_of(caller, intent, &grounds);
    match judge(caller, intent, &grounds, earlier) {
        Ok(role) => {
            leaf.role = role.map(|role| role.to_string()).unwrap_or_default();
            leaf.outcome = LeafOutcome::Granted.into();
            Ok(Permit {
                action: intent.action,
                resource: intent.resource.clone(),
                other: intent.other.as_ref().map(|other| (other.action, other.resource.clone())),
                request_digest: intent.request_digest,
                leaf,
                grounds,
            })
        }
        Err(refusal) => {
            leaf.outcome = LeafOutcome::Denied.into();
            leaf.reason = refusal.reason().to_owned();
            Err(Denial { refusal, leaf: Box::new(leaf) })
        }
    }
}

fn judge(
    caller: &Caller,
    intent: &Intent<'_>,
    grounds: &Grounds,
    earlier: Option<Refusal>,
) -> Result<Option<Role>, Refusal> {
    // A malformed request names no resource, and a closed appliance answers everybody alike.
    if let Some(Refusal::InvalidArgument { .. } | Refusal::Sealed | Refusal::SelfTestFailed) =
        earlier
    {
        return earlier.map_or(Ok(None), Err);
    }
    let Asked { action, resource, subject } = Asked::of(intent);
    // Who may ask comes next: whoever may not know of a resource learns nothing of its state.
    let role = judge_role(caller, action, resource, subject, intent.now)?;
    let other = intent.other.as_ref().map(Asked::of_other);
    if let Some(Asked { action, resource, subject }) = other {
        judge_role(caller, action, resource, subject, intent.now)?;
    }
    if let Some(refusal) = earlier {
        return Err(refusal);
    }
    judge_subject(caller, intent, Asked::of(intent), grounds)?;
    if let Some(asked) = other {
        judge_subject(caller, intent, asked, grounds)?;
    }
    Ok(role)
}

/// One of the things that a request asks leave for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    action: Action,
    resource: &'a Resource,
    subject: Subject<'a>,
}

impl<'a> Asked<'a> {
    const fn of(intent: &'a Intent<'a>) -> Self {
        Self { action: intent.action, resource: &intent.resource, subject: intent.subject }
    }

    const fn of_other(other: &'a Other<'a>) -> Self {
        Self { action: other.action, resource: &other.resource, subject: other.subject }
    }
}

fn judge_subject(
    caller: &Caller,
    intent: &Intent<'_>,
    asked: Asked<'_>,
    grounds: &Grounds,
) -> Result<(), Refusal> {
    let (ring, key, version, transition, mechanism, manner) = match asked.subject {
        Subject::Absent => return Err(Refusal::NotFound),
        // A quorum guards what is done to a version and nothing else.
        Subject::Key(_) | Subject::Plain => return Ok(()),
        Subject::Version { ring, key, version, transition, mechanism, manner } => {
            (ring, key, version, transition, mechanism, manner)
        }
    };
    if !version.header.matches(key) {
        return Err(Refusal::RowTampered { row: key.name.to_string() });
    }
    if let Some(transition) = transition {
        // The daemon takes the steps that are due, and those begin where the store says.
        let state = match caller.authentication() {
            Authentication::Daemon => version.state,
            _ => version.state_at(intent.now),
        };
        lifecycle::next(state, transition)?;
    }
    if let Some(usage) = asked.action.usage() {
        judge_usage(intent, asked, (ring, key, version), (usage, mechanism, manner), grounds)?;
    }
    if asked.action == Action::CopyKey {
        judge_copy(key, version, intent.now)?;
    }
    // What a date brings about was decided when the date was set.
    if caller.authentication() == Authentication::Daemon {
        return Ok(());
    }
    let undoes = asked.action == Action::UndoKeyVersionStep;
    if undoes && version.undoable(intent.now).is_none() {
        return Err(Refusal::NothingToUndo);
    }
    let policy = guarding(ring, key, version, asked.action, intent.now);
    match policy {
        Some(policy) => judge_quorum(asked, policy, grounds),
        // A key that leaves the appliance leaves it by the will of more than one.
        None if intent.action == Action::ExportKeyVersion => Err(Refusal::NeedsApproval),
        None => Ok(()),
    }
}

/// The quorum that guards `action` on `version`, if one does. Whoever guards the way into a state
/// guards the way out of it, and the date on which it is entered.
pub fn guarding<'a>(
    ring: &'a Ring,
    key: &'a Key,
    version: &Version,
    action: Action,
    now: Timestamp,
) -> Option<&'a QuorumPolicy> {
    // Taking a step back is a step as well: whoever guards either is asked.
    let taken_back =
        || {
            let back = version.undoable(now)?;
            let steps = [(back, version.state), (version.state, back)];
            Some(steps.map(|(from, to)| {
                lifecycle::step_between(from, to).and_then(Action::of_transition)
            }))
        };
    let also: Vec<Action> = match action {
        Action::SetKeyVersionDates => {
            vec![Action::ActivateKeyVersion, Action::DeactivateKeyVersion]
        }
        Action::UndoKeyVersionStep => taken_back().into_iter().flatten().flatten().collect(),
        _ => Vec::new(),
    };
    let (ring, key) = (ring.quorum.as_ref(), key.quorum.as_ref());
    let mut guarded = core::iter::once(action).chain(also);
    guarded.find_map(|action| QuorumPolicy::guarding(ring, key, action))
}

fn judge_role(
    caller: &Caller,
    action: Action,
    resource: &Resource,
    subject: Subject<'_>,
    now: Timestamp,
) -> Result<Option<Role>, Refusal> {
    let is_daemon = caller.authentication() == Authentication::Daemon;
    match action.gate() {
        Gate::Daemon if is_daemon => Ok(None),
        Gate::Daemon => Err(Refusal::NotFound),
        _ if is_daemon && is_due(action, subject, now) => Ok(None),
        Gate::Anyone => Ok(None),
        Gate::Evidence => match subject {
            // A stranger learns of no key but those that are there for whoever proves itself.
            Subject::Version { key, .. } if key.requirement.is_some() => Ok(None),
            _ if caller.knows(resource) => Ok(None),
            _ => Err(Refusal::NotFound),
        },
        Gate::Roles(needed) => match caller.role_over(needed, resource) {
            Some(role) => Ok(Some(role)),
            None if caller.knows(resource) => Err(Refusal::RoleMissing { needed }),
            None => Err(Refusal::NotFound),
        },
    }
}

/// Whether the daemon may do this by itself: only what a date or a count has brought about.
fn is_due(action: Action, subject: Subject<'_>, now: Timestamp) -> bool {
    match subject {
        Subject::Version { version, transition: Some(transition), .. } => {
            lifecycle::due(version.state, &version.dates, now) == Some(transition)
        }
        // Whether the uses are used up is in the version, which the housekeeper has read.
        Subject::Key(key) => {
            let rotates = |rotation: &Rotation| rotation.uses_max != 0 || rotation.is_due(now);
            action == Action::CreateKeyVersion && key.rotation.as_ref().is_some_and(rotates)
        }
        _ => false,
    }
}

fn judge_usage(
    intent: &Intent<'_>,
    asked: Asked<'_>,
    (ring, key, version): (&Ring, &Key, &Version),
    (usage, mechanism, manner): (Usage, Option<Mechanism>, Manner),
    grounds: &Grounds,
) -> Result<(), Refusal> {
    if usage == Usage::Release && key.requirement.is_none() {
        return Err(Refusal::NotReleasable);
    }
    if usage == Usage::Export && !key.exportable {
        return Err(Refusal::NotExportable);
    }
    if !key.usages.contains(&usage) || !key.algorithm.supports(usage) {
        return Err(Refusal::UsageRefused);
    }
    if !usage.hands_out() {
        let mechanism = key.mechanism_for(usage, mechanism).ok_or(Refusal::MechanismRefused)?;
        if usage.protects() {
            ring.policy.takes(mechanism)?;
            judge_protection(mechanism, manner.protection)?;
        }
        if manner.callers_iv {
            ring.policy.takes_iv(mechanism)?;
        }
    }
    ring.policy.judge(key, usage)?;
    if ring.policy.kind == RingKind::Hardened {
        judge_commitment(usage, manner.committed)?;
    }
    if usage == Usage::Wrap
        && ring.policy.kind == RingKind::Hardened
        && !(key.trusted && version.is_known_to_nobody())
    {
        return Err(Refusal::NotTrusted);
    }
    if usage.protects() && version.is_copy() {
        let mechanism = key.mechanism_for(usage, mechanism);
        // Each name would have a count of its own for one and the same key.
        if mechanism.is_some_and(|mechanism| mechanism.invocations_max().is_some()) {
            return Err(Refusal::MechanismRefused);
        }
    }
    if !version.enabled {
        return Err(Refusal::Disabled);
    }
    let floor = if usage.protects() { key.floors.protect } else { key.floors.process };
    let number = version.header.version.number;
    if number < floor {
        return Err(Refusal::BelowFloor { number, floor });
    }
    let state = version.state_at(intent.now);
    match state.allows(usage) {
        Allowance::Allowed => {}
        Allowance::UnderQuorum => {
            approved_for(asked, grounds)?.ok_or(Refusal::NeedsApproval)?;
        }
        Allowance::Refused => return Err(Refusal::StateRefuses { state }),
    }
    let Some(requirement) = &key.requirement else { return Ok(()) };
    if requirement.free_usages.contains(&usage) && usage != Usage::Release {
        return Ok(());
    }
    let appraised = grounds.evidence.as_ref().ok_or(Refusal::EvidenceRequired)?;
    let examination = appraised.claims().examination();
    let mut reasons = Vec::new();
    if !requirement.kinds.contains(&examination.kind) {
        reasons.push(format!("evidence-kind: {} is not taken for this key", examination.kind));
    }
    for open in examination.verdict.not_established() {
        if !requirement.may_be_unestablished.contains(open) {
            reasons.push(format!("{open}: not established, and this key requires it"));
        }
    }
    if appraised.policy_digest() != requirement.digest() {
        reasons.push("release-policy: appraised under another requirement".to_owned());
    }
    if reasons.is_empty() { Ok(()) } else { Err(Refusal::EvidenceRefused { reasons }) }
}

/// A copy begins its life in full use, so only what is in full use is copied: nothing comes back to life
/// under another name.
fn judge_copy(key: &Key, version: &Version, now: Timestamp) -> Result<(), Refusal> {
    let (number, floor) = (version.header.version.number, key.floors.protect);
    match version.state_at(now) {
        _ if !version.enabled => Err(Refusal::Disabled),
        _ if number < floor => Err(Refusal::BelowFloor { number, floor }),
        State::Active => Ok(()),
        state => Err(Refusal::StateRefuses { state }),
    }
}

/// A mechanism that bears so many protections and no more makes no other one.
fn judge_protection(mechanism: Mechanism, protection: u64) -> Result<(), Refusal> {
    match mechanism.invocations_max() {
        Some(max) if protection > max => Err(Refusal::InvocationLimit { max }),
        _ => Ok(()),
    }
}

/// Whoever could wrap a key and then decrypt what came out would have it in the clear.
fn judge_commitment(usage: Usage, committed: Option<Commitment>) -> Result<(), Refusal> {
    match (committed, Commitment::of(usage)) {
        (Some(committed), Some(kind)) if committed != kind => {
            Err(Refusal::UseConflict { committed })
        }
        _ => Ok(()),
    }
}

fn judge_quorum(asked: Asked<'_>, policy: &QuorumPolicy, grounds: &Grounds) -> Result<(), Refusal> {
    let approved = approved_for(asked, grounds)?.ok_or(Refusal::NeedsApproval)?;
    if approved.proposal().policy_digest == policy.digest() {
        Ok(())
    } else {
        Err(Refusal::ApprovalMismatch)
    }
}

/// The approval that came along, if it is for exactly this.
fn approved_for<'a>(
    asked: Asked<'_>,
    grounds: &'a Grounds,
) -> Result<Option<&'a Approved>, Refusal> {
    let Some(approved) = &grounds.approval else { return Ok(None) };
    let proposal = approved.proposal();
    if proposal.action == asked.action && proposal.resource == asked.resource.to_string() {
        Ok(Some(approved))
    } else {
        Err(Refusal::ApprovalMismatch)
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
    if let Subject::Version { key, mechanism, .. } = intent.subject {
        let usage = intent.action.usage().filter(|usage| !usage.hands_out());
        let mechanism = usage.and_then(|usage| key.mechanism_for(usage, mechanism));
        leaf.mechanism = mechanism.map(|mechanism| mechanism.to_string()).unwrap_or_default();
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
        leaf.quorum_digest = approval.proposal().policy_digest.as_bytes().to_vec();
        leaf.proposal_digest = approval.proposal_digest().as_bytes().to_vec();
        leaf.approvers = approval.approvers().iter().map(ToString::to_string).collect();
    }
    leaf
}

/// A decision on its way to the disk.
#[derive(Debug)]
#[must_use = "a decision takes effect only when its leaf is on disk"]
pub struct Unrecorded<D> {
    decision: D,
    leaf: Leaf,
    leaf_hash: Digest,
}

/// The receipt does not hold the decision's leaf: a bug in the store or its use.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the commit receipt does not hold this decision's leaf")]
pub struct NotOnRecord;

impl<D> Unrecorded<D> {
    fn new(decision: D, leaf: Leaf) -> Self {
        let leaf_hash = leaf.hash();
        Self { decision, leaf, leaf_hash }
    }

    /// The leaf to be committed.
    pub const fn leaf(&self) -> &Leaf {
        &self.leaf
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
        self.leaf.row_digests = digests;
        let leaf = self.leaf.clone();
        Unrecorded::new(self, leaf)
    }

    /// The evidence on which it was granted, if it was.
    pub const fn evidence(&self) -> Option<&Appraised> {
        self.grounds.evidence.as_ref()
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
        let leaf = *self.leaf.clone();
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
        Ok(Recorded { permit: self.decision, audit_index: index })
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

/// A permit whose leaf is on disk. The vault takes it by value and spends it.
#[derive(Debug)]
#[must_use]
pub struct Recorded {
    permit: Permit,
    audit_index: u64,
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

impl Recorded {
    /// Where the leaf stands in the log.
    pub const fn audit_index(&self) -> u64 {
        self.audit_index
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
    pub const fn evidence(&self) -> Option<&Appraised> {
        self.grounds.evidence.as_ref()
    }
}

#[cfg(test)]
#[path = "permit_tests.rs"]
mod tests;
