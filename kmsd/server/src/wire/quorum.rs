//! Quorum policies on the wire.

use kms_core::permit::Refusal;
use kms_core::quorum::{Approvers, DEPTH_MAX, Member, QuorumPolicy};
use kms_proto::v1;

use super::{invalid, parse};

/// Reads a quorum policy.
pub(crate) fn quorum(policy: Option<v1::QuorumPolicy>) -> Result<Option<QuorumPolicy>, Refusal> {
    let Some(v1::QuorumPolicy { guards, approvers }) = policy else { return Ok(None) };
    let guards =
        guards.iter().map(|name| parse("quorum.guards", name)).collect::<Result<_, _>>()?;
    let approvers =
        approvers.ok_or_else(|| invalid("quorum.approvers", "expected who approves"))?;
    let policy = QuorumPolicy::new(guards, self::approvers(approvers, 0)?);
    policy.map(Some).map_err(|error| invalid("quorum", error))
}

fn approvers(tree: v1::Approvers, depth: usize) -> Result<Approvers, Refusal> {
    use v1::approver::Approver as Wire;
    if depth >= DEPTH_MAX {
        return Err(invalid("quorum.approvers", "nested too deeply"));
    }
    let member = |member: v1::Approver| match member.approver {
        Some(Wire::Principal(name)) => parse("quorum.approvers", &name).map(Member::Principal),
        Some(Wire::Group(group)) => approvers(group, depth + 1).map(Member::Group),
        None => Err(invalid("quorum.approvers", "a member is a principal or a group")),
    };
    Ok(Approvers {
        n: tree.n,
        members: tree.members.into_iter().map(member).collect::<Result<_, _>>()?,
    })
}

/// Writes a quorum policy.
pub(crate) fn quorum_out(policy: &QuorumPolicy) -> v1::QuorumPolicy {
    // What comes with a guarded use and cannot be guarded by itself is not told: it could not be read again.
    let guardable = kms_core::action::Action::ALL.iter().filter(|action| action.guardable());
    let guards = guardable.filter(|action| policy.guards(**action));
    v1::QuorumPolicy {
        guards: guards.map(ToString::to_string).collect(),
        approvers: Some(approvers_out(policy.approvers())),
    }
}

fn approvers_out(tree: &Approvers) -> v1::Approvers {
    use v1::approver::Approver as Wire;
    let member = |member: &Member| {
        let wire = match member {
            Member::Principal(name) => Some(Wire::Principal(name.to_string())),
            Member::Group(group) => Some(Wire::Group(approvers_out(group))),
            _ => None,
        };
        v1::Approver { approver: wire }
    };
    v1::Approvers { n: tree.n, members: tree.members.iter().map(member).collect() }
}
