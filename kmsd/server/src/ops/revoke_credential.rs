//! RevokeCredential: lets nobody in by a credential any more, for good.

use kms_core::action::Action;
use kms_core::credential::Revocation;
use kms_core::id::{CredentialName, Home, PrincipalName, Resource, Timestamp};
use kms_core::lifecycle::CompromiseReason;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::enrolment::Enrol;
use super::writing::At;
use crate::rows::User;
use crate::wire::{compromise_reason, invalid, parse};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct RevokeCredential {
    at: At<PrincipalName>,
    name: CredentialName,
    reason: CompromiseReason,
}

impl Enrol for RevokeCredential {
    type Wire = v1::RevokeCredentialRequest;
    type Reply = v1::RevokeCredentialResponse;

    const ACTION: Action = Action::RevokeCredential;
    const RAISES: Option<&'static str> = None;

    fn parse(wire: v1::RevokeCredentialRequest, _home: &Home) -> Result<Self, Refusal> {
        let v1::RevokeCredentialRequest { name, reason, etag, request_id: _ } = wire;
        let name: CredentialName = parse("name", &name)?;
        let problem =
            || invalid("reason", "expected one of the published reasons, not UNSPECIFIED");
        let reason = compromise_reason(reason).map_err(|_| problem())?;
        if reason == CompromiseReason::Unspecified {
            return Err(problem());
        }
        Ok(Self { at: At::new(name.principal.clone(), etag), name, reason })
    }

    fn request_id(wire: &v1::RevokeCredentialRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<PrincipalName> {
        &self.at
    }

    fn resource(&self) -> Resource {
        Resource::Credential(self.name.clone())
    }

    fn change(&self, user: &mut User, now: Timestamp) -> Result<(), Refusal> {
        let named = |id: &_| *id == self.name.id;
        let mut all = user.credentials.iter_mut();
        let credential = all.find(|credential| credential.id().as_ref().is_ok_and(named));
        let credential = credential.ok_or(Refusal::NotFound)?;
        // The first reason stays.
        credential.revoked.get_or_insert(Revocation { at: now, reason: self.reason });
        Ok(())
    }

    fn reply(user: v1::User, audit: v1::AuditReference) -> v1::RevokeCredentialResponse {
        v1::RevokeCredentialResponse { user: Some(user), audit: Some(audit) }
    }
}
