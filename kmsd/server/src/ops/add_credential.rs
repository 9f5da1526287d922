//! AddCredential: enrols another credential of a person or program.

use kms_core::action::Action;
use kms_core::credential::{Credential, Proof};
use kms_core::id::{Home, PrincipalName, Timestamp};
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::enrolment::{CREDENTIALS_EVER_MAX, CREDENTIALS_MAX, Enrol, TO_COME};
use super::writing::At;
use crate::rows::User;
use crate::wire::{invalid, parse, proof, time};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct AddCredential {
    at: At<PrincipalName>,
    proof: Proof,
    expires_at: Option<Timestamp>,
}

impl Enrol for AddCredential {
    type Wire = v1::AddCredentialRequest;
    type Reply = v1::AddCredentialResponse;

    const ACTION: Action = Action::AddCredential;
    const RAISES: Option<&'static str> = Some("principal");

    fn parse(wire: v1::AddCredentialRequest, _home: &Home) -> Result<Self, Refusal> {
        let v1::AddCredentialRequest { principal, credential, etag, request_id: _ } = wire;
        let credential = credential.ok_or_else(|| invalid("credential", "expected one"))?;
        let expires_at = time("credential.expire_time", credential.expire_time)?;
        let at = At::new(parse("principal", &principal)?, etag);
        Ok(Self { at, proof: proof(credential)?, expires_at })
    }

    fn request_id(wire: &v1::AddCredentialRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<PrincipalName> {
        &self.at
    }

    fn change(&self, user: &mut User, now: Timestamp) -> Result<(), Refusal> {
        if self.expires_at.is_some_and(|end| end <= now) {
            return Err(invalid("credential.expire_time", TO_COME));
        }
        match user.credential(&self.proof) {
            Some(held) if held.revoked.is_some() => return Err(Refusal::CredentialRevoked),
            Some(_) => return Err(Refusal::AlreadyExists),
            None => {}
        }
        let good = user.credentials.iter().filter(|credential| credential.revoked.is_none());
        if good.count() >= CREDENTIALS_MAX || user.credentials.len() >= CREDENTIALS_EVER_MAX {
            let problem = format!(
                "{} has {CREDENTIALS_MAX} credentials, or has had {CREDENTIALS_EVER_MAX}; no more are taken",
                user.name
            );
            return Err(invalid("credential", problem));
        }
        let credential = Credential::new(self.proof.clone(), now);
        user.credentials.push(Credential { expires_at: self.expires_at, ..credential });
        Ok(())
    }

    fn reply(user: v1::User, audit: v1::AuditReference) -> v1::AddCredentialResponse {
        v1::AddCredentialResponse { user: Some(user), audit: Some(audit) }
    }
}
