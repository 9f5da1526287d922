//! EnableUser: lets a person or program in again.

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
pub(crate) struct EnableUser(At<PrincipalName>);

impl Enrol for EnableUser {
    type Wire = v1::EnableUserRequest;
    type Reply = v1::EnableUserResponse;

    const ACTION: Action = Action::EnableUser;
    const RAISES: Option<&'static str> = Some("name");

    fn parse(wire: v1::EnableUserRequest, _home: &Home) -> Result<Self, Refusal> {
        let v1::EnableUserRequest { name, etag, request_id: _ } = wire;
        Ok(Self(At::new(parse("name", &name)?, etag)))
    }

    fn request_id(wire: &v1::EnableUserRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<PrincipalName> {
        &self.0
    }

    fn change(&self, user: &mut User, _now: Timestamp) -> Result<(), Refusal> {
        user.state = UserState::Active;
        Ok(())
    }

    fn reply(user: v1::User, audit: v1::AuditReference) -> v1::EnableUserResponse {
        v1::EnableUserResponse { user: Some(user), audit: Some(audit) }
    }
}
