//! GetProposal: a proposal, with the bytes to sign.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, Segment};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_proto::v1;

use super::proposals::{self, Loaded, present};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GetProposal(Segment);

impl Operation for GetProposal {
    type Wire = v1::GetProposalRequest;
    type Facts = Option<Loaded>;
    type Prepared = ();
    type Reply = v1::GetProposalResponse;

    const ACTION: Action = Action::GetProposal;

    fn parse(wire: v1::GetProposalRequest, _home: &Home) -> Result<Self, Refusal> {
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

    async fn prepare(
        &self,
        _cx: &Context,
        _permit: &Permit,
        _stamp: &Stamp,
        _loaded: &Self::Facts,
    ) -> Result<((), Vec<Draft>), Early> {
        Ok(((), Vec::new()))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        loaded: Self::Facts,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<v1::GetProposalResponse, Failure> {
        let resource = self.resource(&loaded);
        let _spent = recorded.spend(Self::ACTION, &resource, &stamp.request_digest)?;
        let proposal = present(&loaded)?.shown(cx);
        Ok(v1::GetProposalResponse { proposal: Some(proposal), audit: Some(audit) })
    }
}
