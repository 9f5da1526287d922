//! GetUser: an enrolled person or program, with all its credentials.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, PrincipalName, Resource};
use kms_core::permit::{Refusal, Subject};
use kms_proto::v1;

use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::{self, Stored, User, user_place};
use crate::wire::{parse, user_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GetUser(PrincipalName);

impl Read for GetUser {
    type Wire = v1::GetUserRequest;
    type Facts = Option<Stored<User>>;
    type Reply = v1::GetUserResponse;

    const ACTION: Action = Action::GetUser;

    fn parse(wire: v1::GetUserRequest, _home: &Home) -> Result<Self, Refusal> {
        parse("name", &wire.name).map(Self)
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<Self::Facts, Early> {
        rows::load(cx, &user_place(&self.0)).await
    }

    fn resource(&self) -> Resource {
        Resource::User(self.0.clone())
    }

    fn subject<'a>(&self, user: &'a Self::Facts) -> Subject<'a> {
        user.as_ref().map_or(Subject::Absent, |_| Subject::Plain)
    }

    async fn reply(
        self,
        cx: &Context,
        user: Self::Facts,
        audit: v1::AuditReference,
    ) -> Result<v1::GetUserResponse, Failure> {
        let user = user.ok_or(super::ABSENT)?;
        Ok(v1::GetUserResponse { user: Some(user_out(&user, cx.now())), audit: Some(audit) })
    }
}
