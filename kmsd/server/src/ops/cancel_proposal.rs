//! CancelProposal: takes one's own proposal back.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, Segment};
use kms_core::permit::{Grounds, Permit, Recorded, Refusal, Subject};
use kms_core::quorum::Unapproved;
use kms_proto::v1;

use super::proposals::{self, Loaded, present};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, ProposalRow, ProposalState};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CancelProposal(Segment);

impl Operation for CancelProposal {
    type Wire = v1::CancelProposalRequest;
    type Facts = Option<Loaded>;
    type Prepared = ProposalRow;
    type Reply = v1::CancelProposalResponse;

    const ACTION: Action = Action::CancelProposal;

    fn parse(wire: v1::CancelProposalRequest, _home: &Home) -> Result<Self, Refusal> {
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

    fn resource(&self, loaded: &Self::Facts) -> Resource {
        proposals::resource(&self.0, loaded.as_ref())
    }

    fn subject<'a>(&self, loaded: &'a Self::Facts) -> Subject<'a> {
        loaded.as_ref().map_or(Subject::Absent, |_| Subject::Plain)
    }

    async fn grounds(
        &self,
        _cx: &Context,
        caller: &Caller,
        _stamp: &Stamp,
        loaded: &Self::Facts,
    ) -> Result<Grounds, Early> {
        if let Some(loaded) = loaded {
            loaded.require_proposer(caller)?;
            if loaded.row.value.state != ProposalState::Open {
                return Err(Refusal::from(Unapproved::Expired).into());
            }
        }
        Ok(Grounds::default())
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        loaded: &Self::Facts,
    ) -> Result<(ProposalRow, Vec<Draft>), Early> {
        let before = &present(loaded)?.row;
        let row = ProposalRow { state: ProposalState::Cancelled, ..before.value.clone() };
        let draft = rows::replace(&*cx.vault()?, &stamp.operation_id, &row, &[], before)?;
        Ok((row, vec![draft]))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        loaded: Self::Facts,
        row: ProposalRow,
        audit: v1::AuditReference,
    ) -> Result<v1::CancelProposalResponse, Failure> {
        let resource = self.resource(&loaded);
        let _spent = recorded.spend(Self::ACTION, &resource, &stamp.request_digest)?;
        let proposal = loaded.ok_or(super::ABSENT)?.shown_with(cx, row);
        Ok(v1::CancelProposalResponse { proposal: Some(proposal), audit: Some(audit) })
    }
}
