//! DeleteUser: lets a person or program in no more, for good. The row stays, so that neither the name nor a
//! credential is ever used again.

use kms_core::action::Action;
use kms_core::credential::Revocation;
use kms_core::id::{Home, PrincipalName, Timestamp};
use kms_core::lifecycle::CompromiseReason;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::enrolment::Enrol;
use super::writing::At;
use crate::rows::{User, UserState};
use crate::wire::parse;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct DeleteUser(At<PrincipalName>);

impl Enrol for DeleteUser {
    type Wire = v1::DeleteUserRequest;
    type Reply = v1::DeleteUserResponse;

    const ACTION: Action = Action::DeleteUser;
    const RAISES: Option<&'static str> = None;

    fn parse(wire: v1::DeleteUserRequest, _home: &Home) -> Result<Self, Refusal> {
        let v1::DeleteUserRequest { name, etag, request_id: _ } = wire;
        Ok(Self(At::new(parse("name", &name)?, etag)))
    }

    fn request_id(wire: &v1::DeleteUserRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<PrincipalName> {
        &self.0
    }

    fn change(&self, user: &mut User, now: Timestamp) -> Result<(), Refusal> {
        user.state = UserState::Deleted;
        user.grants.clear();
        for credential in &mut user.credentials {
            let reason = CompromiseReason::CessationOfOperation;
            credential.revoked.get_or_insert(Revocation { at: now, reason });
        }
        Ok(())
    }

    fn reply(user: v1::User, audit: v1::AuditReference) -> v1::DeleteUserResponse {
        v1::DeleteUserResponse { user: Some(user), audit: Some(audit) }
    }
}
