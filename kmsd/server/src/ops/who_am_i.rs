//! WhoAmI: who the daemon takes the caller for.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::wire::grant_out;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct WhoAmI;

impl Read for WhoAmI {
    type Wire = v1::WhoAmIRequest;
    type Facts = Caller;
    type Reply = v1::WhoAmIResponse;

    const ACTION: Action = Action::WhoAmI;

    fn parse(_wire: v1::WhoAmIRequest, _home: &Home) -> Result<Self, Refusal> {
        Ok(Self)
    }

    async fn load(&self, _cx: &Context, caller: &Caller) -> Result<Caller, Early> {
        Ok(caller.clone())
    }

    async fn reply(
        self,
        cx: &Context,
        caller: Caller,
        audit: v1::AuditReference,
    ) -> Result<v1::WhoAmIResponse, Failure> {
        let now = cx.now();
        let grants = caller.grants().iter();
        let in_force = grants.filter(|grant| grant.expires_at.is_none_or(|end| end > now));
        Ok(v1::WhoAmIResponse {
            principal: caller.principal().to_string(),
            authentication: caller.authentication().as_str().to_owned(),
            grants: in_force.map(grant_out).collect(),
            audit: Some(audit),
        })
    }
}
