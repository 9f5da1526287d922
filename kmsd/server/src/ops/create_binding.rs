//! CreateBinding: grants a role to an enrolled principal, or sets anew when one that it holds ends.

use kms_core::action::Action;
use kms_core::id::{Home, PrincipalName, Timestamp};
use kms_core::permit::Refusal;
use kms_core::rights::Grant;
use kms_proto::v1;

use super::enrolment::{Enrol, check_grants, refuse_ended};
use super::writing::At;
use crate::rows::User;
use crate::wire::{grant, invalid, parse};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CreateBinding {
    at: At<PrincipalName>,
    grant: Grant,
}

impl Enrol for CreateBinding {
    type Wire = v1::CreateBindingRequest;
    type Reply = v1::CreateBindingResponse;

    const ACTION: Action = Action::CreateBinding;
    const RAISES: Option<&'static str> = Some("principal");

    fn parse(wire: v1::CreateBindingRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::CreateBindingRequest { principal, grant: role, request_id: _ } = wire;
        let role = role.ok_or_else(|| invalid("grant", "expected a role"))?;
        let at = At::new(parse("principal", &principal)?, String::new());
        Ok(Self { at, grant: grant(&role, home)? })
    }

    fn request_id(wire: &v1::CreateBindingRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<PrincipalName> {
        &self.at
    }

    fn change(&self, user: &mut User, now: Timestamp) -> Result<(), Refusal> {
        refuse_ended(std::slice::from_ref(&self.grant), now)?;
        match user.grants.iter_mut().find(|held| held.is_same_binding(&self.grant)) {
            Some(held) => *held = self.grant.clone(),
            None => user.grants.push(self.grant.clone()),
        }
        check_grants(&user.grants)
    }

    fn reply(user: v1::User, audit: v1::AuditReference) -> v1::CreateBindingResponse {
        v1::CreateBindingResponse { user: Some(user), audit: Some(audit) }
    }
}
