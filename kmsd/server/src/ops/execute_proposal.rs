//! ExecuteProposal: runs an approved proposal, once. To the rules and the log it is the proposed
//! action itself, with the approval as its grounds; the proposal is marked executed in the same
//! batch, so that no approval runs twice.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, Segment};
use kms_core::permit::{Grounds, Manner, Permit, Recorded, Refusal, Subject};
use kms_proto::v1;

use super::changes::{change_version, erase, erased};
use super::export_key_version::export;
use super::proposals::{self, Loaded, present};
use super::step_key_version::stepped;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, ProposalRow, ProposalState};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ExecuteProposal(Segment);

impl Operation for ExecuteProposal {
    type Wire = v1::ExecuteProposalRequest;
    type Facts = Option<Loaded>;
    /// The proposal afterwards, and the slot to be erased.
    type Prepared = (ProposalRow, Option<u64>);
    type Reply = v1::ExecuteProposalResponse;

    const ACTION: Action = Action::ExecuteProposal;

    fn parse(wire: v1::ExecuteProposalRequest, _home: &Home) -> Result<Self, Refusal> {
        proposals::parse_name(&wire.name).map(Self)
    }

    fn named(&self) -> Resource {
        proposals::resource(&self.0, None)
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<Self::Facts, Early> {
        proposals::load(cx, &self.0).await
    }

    fn action(&self, loaded: &Self::Facts) -> Action {
        loaded.as_ref().map_or(Self::ACTION, |loaded| loaded.proposal.action)
    }

    fn resource(&self, loaded: &Self::Facts) -> Resource {
        let version = loaded.as_ref().map(|loaded| Resource::Version(loaded.version.clone()));
        version.unwrap_or_else(|| self.named())
    }

    fn subject<'a>(&self, loaded: &'a Self::Facts) -> Subject<'a> {
        let found = loaded.as_ref().and_then(|loaded| Some((loaded, loaded.found.as_ref()?)));
        found.map_or(Subject::Absent, |(loaded, found)| Subject::Version {
            ring: &found.ring.value,
            key: &found.key.value,
            version: &found.version.value,
            transition: loaded.proposal.action.transition(),
            mechanism: None,
            manner: Manner::default(),
        })
    }

    async fn grounds(
        &self,
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        loaded: &Self::Facts,
    ) -> Result<Grounds, Early> {
        let Some(loaded) = loaded else { return Ok(Grounds::default()) };
        loaded.require_proposer(caller)?;
        let approval = Some(Box::new(loaded.approved(cx, stamp.now)?));
        Ok(Grounds { approval, evidence: None })
    }

    async fn prepare(
        &self,
        cx: &Context,
        permit: &Permit,
        stamp: &Stamp,
        loaded: &Self::Facts,
    ) -> Result<(Self::Prepared, Vec<Draft>), Early> {
        let loaded = present(loaded)?;
        let before = &loaded.found.as_ref().ok_or(super::ABSENT)?.version;
        // Nothing of a version changes when it is handed out.
        let after = match permit.action() {
            Action::ExportKeyVersion => before.value.clone(),
            action => stepped(cx, stamp, action, &before.value)?,
        };
        let mut drafts = match permit.action() {
            Action::ExportKeyVersion => Vec::new(),
            action => change_version(cx, stamp, action, before, &after)?,
        };
        let row = ProposalRow { state: ProposalState::Executed, ..loaded.row.value.clone() };
        drafts.push(rows::replace(&*cx.vault()?, &stamp.operation_id, &row, &[], &loaded.row)?);
        Ok(((row, erased(&before.value, &after)), drafts))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        loaded: Self::Facts,
        (row, erased): Self::Prepared,
        audit: v1::AuditReference,
    ) -> Result<v1::ExecuteProposalResponse, Failure> {
        let (action, resource) = (self.action(&loaded), self.resource(&loaded));
        let loaded = loaded.ok_or(super::ABSENT)?;
        let mut wrapped_key = Vec::new();
        if action == Action::ExportKeyVersion {
            let found = loaded.found.as_ref().ok_or(super::ABSENT)?;
            let recipient = loaded.proposal.recipient.as_ref();
            let recipient = recipient.ok_or(Failure::Bug("an export to nobody was approved"))?;
            let digest = &stamp.request_digest;
            wrapped_key = export(cx, recorded, digest, found, recipient).await?;
        } else {
            let _spent = recorded.spend(action, &resource, &stamp.request_digest)?;
        }
        if let Some(slot) = erased {
            erase(cx, slot).await?;
        }
        let (proposal, audit) = (Some(loaded.shown_with(cx, row)), Some(audit));
        Ok(v1::ExecuteProposalResponse { proposal, audit, wrapped_key })
    }
}
