//! What the proposal operations share: loading one, counting its approvals, showing it.

use std::sync::Arc;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{PrincipalName, Resource, Segment, Timestamp, VersionName};
use kms_core::permit::{self, Refusal};
use kms_core::quorum::{self, Approved, Circumstances, Guardian, Guarding, Proposal, Standing};
use kms_proto::v1;
use kms_store::Condition;

use super::{Found, load_version};
use crate::context::Context;
use crate::directory::{Approvers, Directory};
use crate::failure::{Early, Failure};
use crate::rows::{self, ProposalRow, ProposalState, Stored};
use crate::wire::{KeyOrVersion, invalid, time_out};

/// A proposal with what it is about.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) row: Stored<ProposalRow>,
    pub(crate) proposal: Proposal,
    pub(crate) version: VersionName,
    pub(crate) found: Option<Found>,
    /// Who was enrolled then.
    pub(crate) directory: Arc<Directory>,
}

/// Reads a proposal's name: `proposals/{id}` or the id alone.
pub(crate) fn parse_name(name: &str) -> Result<Segment, Refusal> {
    let id = name.strip_prefix("proposals/").unwrap_or(name);
    id.parse().map_err(|_| invalid("name", "expected proposals/{id}"))
}

/// Loads a proposal and the version that it is about.
///
/// # Errors
/// When the store fails or a row was edited.
pub(crate) async fn load(cx: &Context, id: &Segment) -> Result<Option<Loaded>, Early> {
    match rows::load::<ProposalRow>(cx, &rows::proposal_place(id)).await? {
        Some(row) => loaded(cx, row).await.map(Some),
        None => Ok(None),
    }
}

/// Reads the signed document of a row and loads what it is about.
///
/// # Errors
/// As [`load`].
pub(crate) async fn loaded(cx: &Context, row: Stored<ProposalRow>) -> Result<Loaded, Early> {
    let tampered = || Refusal::RowTampered { row: rows::proposal_place(&row.value.id) };
    let proposal = Proposal::from_bytes(row.value.document.as_bytes()).map_err(|_| tampered())?;
    let version: VersionName = proposal.resource.parse().map_err(|_| tampered())?;
    let found = load_version(cx, &KeyOrVersion::Version(version.clone())).await?.found;
    Ok(Loaded { row, proposal, version, found, directory: cx.directory() })
}

/// The resource of a proposal, for the rules: those who know the key may know the proposal.
pub(crate) fn resource(id: &Segment, loaded: Option<&Loaded>) -> Resource {
    let key = loaded.map(|loaded| loaded.version.key.clone());
    Resource::Proposal { id: id.clone(), key }
}

/// Whether an action can be proposed at all.
///
/// # Errors
/// [`Refusal::InvalidArgument`] for actions that cannot.
pub(crate) fn proposable(action: Action) -> Result<Action, Refusal> {
    let problem = || format!("{action} cannot be proposed: {}", action.instead());
    Some(action).filter(|action| action.guardable()).ok_or_else(|| invalid("action", problem()))
}

/// The quorums that guard `action` on the version, if any does: the ring's, the key's or both.
pub(crate) fn guarding(found: &Found, action: Action, now: Timestamp) -> Option<Guarding<'_>> {
    let Found { ring, key, version } = found;
    permit::guarding(&ring.value, &key.value, &version.value, action, now)
}

impl Loaded {
    /// Calls `with` in the circumstances of now. `None` when nothing guards the action any more.
    pub(crate) fn circumstances<R>(
        &self,
        cx: &Context,
        now: Timestamp,
        with: impl FnOnce(&Circumstances<'_>) -> R,
    ) -> Option<R> {
        let found = self.found.as_ref()?;
        let guarding = guarding(found, self.proposal.action, now)?;
        let keys = Approvers { directory: &self.directory, now };
        let (appliance, etag) = (cx.log_key.origin(), found.version.etag.as_str());
        Some(with(&Circumstances { appliance, etag, guarding, keys: &keys, now }))
    }

    /// Counts the approvals from nothing.
    ///
    /// # Errors
    /// Why the proposal cannot run.
    pub(crate) fn approved(&self, cx: &Context, now: Timestamp) -> Result<Approved, Refusal> {
        let row = &self.row.value;
        if row.state != ProposalState::Open {
            return Err(quorum::Unapproved::Expired.into());
        }
        let count =
            |at: &Circumstances<'_>| Approved::by(row.document.as_bytes(), &row.approvals, at);
        let counted = self.circumstances(cx, now, count);
        Ok(counted.unwrap_or(Err(quorum::Unapproved::PolicyChanged))?)
    }

    /// How each of the policies stands that guard it, while it can still run.
    fn standings(&self, cx: &Context, now: Timestamp) -> Vec<v1::ProposalQuorum> {
        let row = &self.row.value;
        let Some(found) = &self.found else { return Vec::new() };
        let stands = found.version.etag == self.proposal.etag;
        if row.state != ProposalState::Open || self.proposal.expires_at <= now || !stands {
            return Vec::new();
        }
        let each =
            |at: &Circumstances<'_>| Standing::of_each(row.document.as_bytes(), &row.approvals, at);
        let standings = self.circumstances(cx, now, each).unwrap_or_default();
        standings.into_iter().map(|standing| self.standing_out(standing)).collect()
    }

    fn standing_out(&self, standing: Standing) -> v1::ProposalQuorum {
        let Standing { guardian, policy_digest, approvers, missing, may_approve } = standing;
        let names =
            |names: Vec<PrincipalName>| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        v1::ProposalQuorum {
            guardian: match guardian {
                Guardian::Key => self.version.key.to_string(),
                Guardian::Ring => self.version.key.ring.to_string(),
            },
            policy_digest: policy_digest.as_bytes().to_vec(),
            approvers: names(approvers),
            missing,
            may_approve: names(may_approve),
        }
    }

    /// That those who have approved are enrolled as they were when their approvals were counted.
    pub(crate) fn approvers_stand(&self) -> impl Iterator<Item = Condition> {
        let names = self.row.value.approvals.iter().map(|approval| &approval.approver);
        let enrolled = names.filter_map(|name| self.directory.find(name));
        enrolled.map(|enrolled| rows::stands_at(&enrolled.row()))
    }

    /// Only who made the proposal may do this.
    ///
    /// # Errors
    /// [`Refusal::NotTheProposer`].
    pub(crate) fn require_proposer(&self, caller: &Caller) -> Result<(), Refusal> {
        if *caller.principal() == self.proposal.proposer {
            Ok(())
        } else {
            Err(Refusal::NotTheProposer)
        }
    }

    /// The proposal as callers see it.
    pub(crate) fn shown(&self, cx: &Context) -> v1::Proposal {
        let now = cx.now();
        let row = &self.row.value;
        let state = match row.state {
            ProposalState::Open if self.proposal.expires_at <= now => v1::ProposalState::Expired,
            ProposalState::Open => v1::ProposalState::Open,
            ProposalState::Executed => v1::ProposalState::Executed,
            ProposalState::Cancelled => v1::ProposalState::Cancelled,
        };
        v1::Proposal {
            name: format!("proposals/{}", row.id),
            state: state.into(),
            document: row.document.clone().into_bytes(),
            action: self.proposal.action.to_string(),
            resource: self.proposal.resource.clone(),
            proposer: self.proposal.proposer.to_string(),
            expire_time: time_out(self.proposal.expires_at),
            approvers: row.approvals.iter().map(|a| a.approver.to_string()).collect(),
            approved: self.approved(cx, now).is_ok(),
            quorums: self.standings(cx, now),
        }
    }

    /// The proposal as callers will see it with `row` in place of its own.
    pub(crate) fn shown_with(self, cx: &Context, row: ProposalRow) -> v1::Proposal {
        let row = Stored { value: row, ..self.row };
        Self { row, ..self }.shown(cx)
    }
}

/// What was loaded. The rules refuse an absent subject, so after the decision it is there.
pub(crate) fn present(loaded: &Option<Loaded>) -> Result<&Loaded, Failure> {
    loaded.as_ref().ok_or(super::ABSENT)
}
