//! CreateBinding: grants a role to an enrolled principal.

use kms_core::action::Action;
use kms_core::caller::{Caller, Grant};
use kms_core::id::{Home, PrincipalName, Resource};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_proto::v1;

use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Stored, USERS, User};
use crate::wire::{grant, invalid, parse, user_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CreateBinding {
    principal: PrincipalName,
    grant: Grant,
}

impl Operation for CreateBinding {
    type Wire = v1::CreateBindingRequest;
    type Facts = Option<Stored<User>>;
    type Prepared = Stored<User>;
    type Reply = v1::CreateBindingResponse;

    const ACTION: Action = Action::CreateBinding;

    fn parse(wire: v1::CreateBindingRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::CreateBindingRequest { principal, grant: role, request_id: _ } = wire;
        let role = role.ok_or_else(|| invalid("grant", "expected a role"))?;
        Ok(Self { principal: parse("principal", &principal)?, grant: grant(&role, home)? })
    }

    fn request_id(wire: &v1::CreateBindingRequest) -> &[u8] {
        &wire.request_id
    }

    async fn load(
        &self,
        cx: &Context,
        caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<Self::Facts, Early> {
        if *caller.principal() == self.principal {
            return Err(invalid("principal", "nobody grants a role to themselves").into());
        }
        rows::load(cx, &format!("{USERS}{}", self.principal)).await
    }

    fn resource(&self, _user: &Self::Facts) -> Resource {
        Resource::Appliance
    }

    fn subject<'a>(&self, user: &'a Self::Facts) -> Subject<'a> {
        user.as_ref().map_or(Subject::Absent, |_| Subject::Plain)
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        before: &Self::Facts,
    ) -> Result<(Self::Prepared, Vec<Draft>), Early> {
        let before = before.as_ref().ok_or(super::ABSENT)?;
        if before.value.grants.contains(&self.grant) {
            return Ok((before.clone(), Vec::new()));
        }
        let mut value = before.value.clone();
        value.grants.push(self.grant.clone());
        let draft = rows::replace(&*cx.vault()?, &stamp.operation_id, &value, &[], before)?;
        let etag = draft.etag.clone();
        let after = Stored { value, sealed: Vec::new(), revision: before.revision + 1, etag };
        Ok((after, vec![draft]))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _before: Self::Facts,
        user: Self::Prepared,
        audit: v1::AuditReference,
    ) -> Result<v1::CreateBindingResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &Resource::Appliance, &stamp.request_digest)?;
        let shown = user_out(&user);
        cx.remember_user(user);
        Ok(v1::CreateBindingResponse { user: Some(shown), audit: Some(audit) })
    }
}
