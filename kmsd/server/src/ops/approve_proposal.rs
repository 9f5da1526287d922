//! ApproveProposal: hands in an approver's signature. The signature carries the authority, so it
//! does not matter who carries it here.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, PrincipalName, Resource, Segment, Timestamp};
use kms_core::permit::{Grounds, Permit, Recorded, Refusal, Subject};
use kms_core::quorum::{Approval, Circumstances, Unapproved, check_approval, count};
use kms_proto::v1;

use super::proposals::{self, Loaded, present};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, ProposalRow, ProposalState};
use crate::wire::parse;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ApproveProposal {
    id: Segment,
    approval: Approval,
}

impl Operation for ApproveProposal {
    type Wire = v1::ApproveProposalRequest;
    type Facts = Option<Loaded>;
    type Prepared = ProposalRow;
    type Reply = v1::ApproveProposalResponse;

    const ACTION: Action = Action::ApproveProposal;

    fn parse(wire: v1::ApproveProposalRequest, _home: &Home) -> Result<Self, Refusal> {
        let v1::ApproveProposalRequest { name, approver, ssh_signature: signature } = wire;
        let approver: PrincipalName = parse("approver", &approver)?;
        Ok(Self { id: proposals::parse_name(&name)?, approval: Approval { approver, signature } })
    }

    fn named(&self) -> Resource {
        proposals::resource(&self.id, None)
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<Self::Facts, Early> {
        proposals::load(cx, &self.id).await
    }

    fn resource(&self, loaded: &Self::Facts) -> Resource {
        proposals::resource(&self.id, loaded.as_ref())
    }

    fn subject<'a>(&self, loaded: &'a Self::Facts) -> Subject<'a> {
        loaded.as_ref().map_or(Subject::Absent, |_| Subject::Plain)
    }

    async fn grounds(
        &self,
        cx: &Context,
        _caller: &Caller,
        stamp: &Stamp,
        loaded: &Self::Facts,
    ) -> Result<Grounds, Early> {
        // An absent proposal is refused by the rules.
        if let Some(loaded) = loaded {
            self.check(cx, loaded, stamp.now)?;
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
        let mut row = before.value.clone();
        row.approvals.push(self.approval.clone());
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
    ) -> Result<v1::ApproveProposalResponse, Failure> {
        let resource = self.resource(&loaded);
        let _spent = recorded.spend(Self::ACTION, &resource, &stamp.request_digest)?;
        let proposal = loaded.ok_or(super::ABSENT)?.shown_with(cx, row);
        Ok(v1::ApproveProposalResponse { proposal: Some(proposal), audit: Some(audit) })
    }
}

impl ApproveProposal {
    fn check(&self, cx: &Context, loaded: &Loaded, now: Timestamp) -> Result<(), Refusal> {
        let row = &loaded.row.value;
        if row.state != ProposalState::Open || loaded.proposal.expires_at <= now {
            return Err(Unapproved::Expired.into());
        }
        let check = |at: &Circumstances<'_>| {
            let document = row.document.as_bytes();
            let proposer = &loaded.proposal.proposer;
            let counted = count(document, proposer, &row.approvals, at);
            check_approval(document, proposer, &self.approval, &counted, at)
        };
        match loaded.circumstances(cx, now, check) {
            Some(checked) => Ok(checked.map(|_| ())?),
            None => Err(Unapproved::PolicyChanged.into()),
        }
    }
}
