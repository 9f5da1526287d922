//! The rules themselves, in the order in which they are asked. [`super::decide`] is the one who asks.

use crate::action::{Action, Gate};
use crate::algorithm::Usage;
use crate::caller::{Authentication, Caller, Role};
use crate::id::{Resource, Timestamp};
use crate::key::{Commitment, Key, Ring, Rotation, Version};
use crate::lifecycle::{self, Allowance, State};
use crate::mechanism::Mechanism;
use crate::quorum::{Approved, Guarding, QuorumPolicy};
use crate::ring_policy::RingKind;
use crate::service::{self, ServiceIndicator};

use super::{Grounds, Intent, Manner, Other, Refusal, Subject};

/// Whether `caller` may do what it intends, and by which role.
///
/// # Errors
/// The first rule that stands in the way.
pub(super) fn judge(
    caller: &Caller,
    intent: &Intent<'_>,
    grounds: &Grounds,
    earlier: Option<Refusal>,
) -> Result<Option<Role>, Refusal> {
    if !caller.is_let_in(intent.now) {
        return Err(Refusal::NotAdmitted);
    }
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

/// Whether the service may be given that the request amounts to. It is asked last, so that only who might
/// otherwise have had it hears of it.
///
/// # Errors
/// [`Refusal::ServiceNotApproved`].
pub(super) fn judge_service(intent: &Intent<'_>, service: ServiceIndicator) -> Result<(), Refusal> {
    let refused = service == ServiceIndicator::NotApproved && !service::is_let_in(intent.action);
    if intent.approved_only && refused { Err(Refusal::ServiceNotApproved) } else { Ok(()) }
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
        Subject::Key(_) | Subject::Plain | Subject::Rows(_) => return Ok(()),
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
        judge_usage(intent, (ring, key, version), (usage, mechanism, manner), grounds)?;
    }
    if asked.action == Action::CopyKey {
        judge_copy(key, version, intent.now)?;
    }
    // What a date brings about was decided when the date was set. No date uses a key.
    if caller.authentication() == Authentication::Daemon && asked.action.usage().is_none() {
        return Ok(());
    }
    let undoes = asked.action == Action::UndoKeyVersionStep;
    if undoes && version.undoable(intent.now).is_none() {
        return Err(Refusal::NothingToUndo);
    }
    let now = intent.now;
    // With an IV of the caller's choice, encrypting a ciphertext opens it: by counter modes at once, by CBC
    // block for block.
    let opens = asked.action == Action::Encrypt && manner.callers_iv;
    if opens && guarding(ring, key, version, Action::Decrypt, now).is_some() {
        return Err(Refusal::NotProposable(intent.action));
    }
    match guarding(ring, key, version, asked.action, now) {
        Some(guarding) => judge_quorum(intent.action, asked, guarding, grounds),
        // A key that leaves the appliance leaves it by the will of more than one.
        None if intent.action == Action::ExportKeyVersion => Err(Refusal::NeedsApproval),
        None if only_under_quorum(version, asked.action, now) => Err(Refusal::NoQuorum),
        None => Ok(()),
    }
}

/// Whether the state of `version` allows the use that `action` is, and only under a quorum.
fn only_under_quorum(version: &Version, action: Action, now: Timestamp) -> bool {
    let answer = |usage| version.state_at(now).allows(usage);
    action.usage().map(answer) == Some(Allowance::UnderQuorum)
}

/// The quorums that guard `action` on `version`, if any does. Whoever guards the way into a state
/// guards the way out of it, and the date on which it is entered. Where the state wants a quorum, it is
/// whoever would have to be asked for the key itself.
pub fn guarding<'a>(
    ring: &'a Ring,
    key: &'a Key,
    version: &Version,
    action: Action,
    now: Timestamp,
) -> Option<Guarding<'a>> {
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
    if only_under_quorum(version, action, now) {
        return Guarding::of(ring, key, |policy| policy.guards(Action::ExportKeyVersion));
    }
    let asked = |policy: &QuorumPolicy| {
        policy.guards(action) || also.iter().any(|also| policy.guards(*also))
    };
    Guarding::of(ring, key, asked)
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
            _ if caller.knows(resource, now) => Ok(None),
            _ => Err(Refusal::NotFound),
        },
        Gate::Roles(needed) => match caller.role_over(needed, resource, now) {
            Some(role) => Ok(Some(role)),
            None if caller.knows(resource, now) => Err(Refusal::RoleMissing { needed }),
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
    if !version.enabled {
        return Err(Refusal::Disabled);
    }
    let floor = if usage.protects() { key.floors.protect } else { key.floors.process };
    let number = version.header.version.number;
    if number < floor {
        return Err(Refusal::BelowFloor { number, floor });
    }
    let state = version.state_at(intent.now);
    // Which quorum it takes, if it takes one, is asked when all else is settled.
    if state.allows(usage) == Allowance::Refused {
        return Err(Refusal::StateRefuses { state });
    }
    let Some(requirement) = &key.requirement else { return Ok(()) };
    if requirement.free_usages.contains(&usage) && usage != Usage::Release {
        return Ok(());
    }
    let appraised = grounds.evidence.as_deref().ok_or(Refusal::EvidenceRequired)?;
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

fn judge_quorum(
    whole: Action,
    asked: Asked<'_>,
    guarding: Guarding<'_>,
    grounds: &Grounds,
) -> Result<(), Refusal> {
    // What is proposed is the whole of what a request does, also where this is one half of it.
    let unasked = match whole.usage() {
        Some(_) if !whole.guardable() => Refusal::NotProposable(whole),
        _ => Refusal::NeedsApproval,
    };
    let approved = approved_for(asked, grounds)?.ok_or(unasked)?;
    if approved.proposal().policies() == guarding.digests() {
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
    let Some(approved) = grounds.approval.as_deref() else { return Ok(None) };
    let proposal = approved.proposal();
    if proposal.action == asked.action && proposal.resource == asked.resource.to_string() {
        Ok(Some(approved))
    } else {
        Err(Refusal::ApprovalMismatch)
    }
}
