//! GetKeyVersion: describes a version.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource};
use kms_core::permit::{Refusal, Subject};
use kms_proto::v1;

use super::reading::Read;
use super::{VersionFacts, load_version, named};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::wire::{KeyOrVersion, version_name, version_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GetKeyVersion(KeyOrVersion);

impl Read for GetKeyVersion {
    type Wire = v1::GetKeyVersionRequest;
    type Facts = VersionFacts;
    type Reply = v1::GetKeyVersionResponse;

    const ACTION: Action = Action::GetKeyVersion;

    fn parse(wire: v1::GetKeyVersionRequest, home: &Home) -> Result<Self, Refusal> {
        version_name("name", &wire.name, home).map(|name| Self(KeyOrVersion::Version(name)))
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<VersionFacts, Early> {
        load_version(cx, &self.0).await
    }

    fn resource(&self) -> Resource {
        named(&self.0)
    }

    fn subject<'a>(&self, facts: &'a VersionFacts) -> Subject<'a> {
        facts.subject(None)
    }

    async fn reply(
        self,
        cx: &Context,
        facts: VersionFacts,
        audit: v1::AuditReference,
    ) -> Result<v1::GetKeyVersionResponse, Failure> {
        let found = facts.into_found()?;
        let version = version_out(&found.version.value, &found.version.etag, cx.now());
        Ok(v1::GetKeyVersionResponse { version: Some(version), audit: Some(audit) })
    }
}
