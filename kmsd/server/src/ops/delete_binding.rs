//! DeleteBinding: takes a role from a principal.

use kms_core::action::Action;
use kms_core::id::{Home, PrincipalName, Timestamp};
use kms_core::permit::Refusal;
use kms_core::rights::Grant;
use kms_proto::v1;

use super::enrolment::Enrol;
use super::writing::At;
use crate::rows::User;
use crate::wire::{grant, invalid, parse};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct DeleteBinding {
    at: At<PrincipalName>,
    grant: Grant,
}

impl Enrol for DeleteBinding {
    type Wire = v1::DeleteBindingRequest;
    type Reply = v1::DeleteBindingResponse;

    const ACTION: Action = Action::DeleteBinding;
    const RAISES: Option<&'static str> = None;

    fn parse(wire: v1::DeleteBindingRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::DeleteBindingRequest { principal, grant: role, etag, request_id: _ } = wire;
        let role = role.ok_or_else(|| invalid("grant", "expected a role"))?;
        let at = At::new(parse("principal", &principal)?, etag);
        Ok(Self { at, grant: grant(&role, home)? })
    }

    fn request_id(wire: &v1::DeleteBindingRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<PrincipalName> {
        &self.at
    }

    fn change(&self, user: &mut User, _now: Timestamp) -> Result<(), Refusal> {
        let held = user.grants.len();
        user.grants.retain(|grant| !grant.is_same_binding(&self.grant));
        if user.grants.len() == held { Err(Refusal::NotFound) } else { Ok(()) }
    }

    fn reply(user: v1::User, audit: v1::AuditReference) -> v1::DeleteBindingResponse {
        v1::DeleteBindingResponse { user: Some(user), audit: Some(audit) }
    }
}
