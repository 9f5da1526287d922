//! DisableUser: lets a person or program in no more, for now.

use kms_core::action::Action;
use kms_core::id::{Home, PrincipalName, Timestamp};
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::enrolment::Enrol;
use super::writing::At;
use crate::rows::{User, UserState};
use crate::wire::parse;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct DisableUser(At<PrincipalName>);

impl Enrol for DisableUser {
    type Wire = v1::DisableUserRequest;
    type Reply = v1::DisableUserResponse;

    const ACTION: Action = Action::DisableUser;
    const RAISES: Option<&'static str> = None;

    fn parse(wire: v1::DisableUserRequest, _home: &Home) -> Result<Self, Refusal> {
        let v1::DisableUserRequest { name, etag, request_id: _ } = wire;
        Ok(Self(At::new(parse("name", &name)?, etag)))
    }

    fn request_id(wire: &v1::DisableUserRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<PrincipalName> {
        &self.0
    }

    fn change(&self, user: &mut User, _now: Timestamp) -> Result<(), Refusal> {
        user.state = UserState::Disabled;
        Ok(())
    }

    fn reply(user: v1::User, audit: v1::AuditReference) -> v1::DisableUserResponse {
        v1::DisableUserResponse { user: Some(user), audit: Some(audit) }
    }
}
