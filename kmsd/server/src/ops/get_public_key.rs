//! GetPublicKey: the public half of a version.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource};
use kms_core::permit::{Refusal, Subject};
use kms_proto::v1;

use super::reading::Read;
use super::{VersionFacts, load_version, named};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::wire::{KeyOrVersion, algorithm_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GetPublicKey(KeyOrVersion);

impl Read for GetPublicKey {
    type Wire = v1::GetPublicKeyRequest;
    type Facts = VersionFacts;
    type Reply = v1::GetPublicKeyResponse;

    const ACTION: Action = Action::GetPublicKey;

    fn parse(wire: v1::GetPublicKeyRequest, home: &Home) -> Result<Self, Refusal> {
        KeyOrVersion::parse(&wire.name, home).map(Self)
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<VersionFacts, Early> {
        let facts = load_version(cx, &self.0).await?;
        let secret = |found: &super::Found| found.version.value.public_key.is_empty();
        if facts.found.as_ref().is_some_and(secret) {
            return Err(Refusal::UsageRefused.into());
        }
        Ok(facts)
    }

    fn resource(&self) -> Resource {
        named(&self.0)
    }

    fn subject<'a>(&self, facts: &'a VersionFacts) -> Subject<'a> {
        facts.subject(None)
    }

    async fn reply(
        self,
        _cx: &Context,
        facts: VersionFacts,
        audit: v1::AuditReference,
    ) -> Result<v1::GetPublicKeyResponse, Failure> {
        let found = facts.into_found()?;
        let public_key = found.public_key();
        Ok(v1::GetPublicKeyResponse {
            name: found.name(),
            algorithm: algorithm_out(found.version.value.header.algorithm),
            public_key_crc32c: crc32c::crc32c(&public_key),
            public_key,
            audit: Some(audit),
        })
    }
}
