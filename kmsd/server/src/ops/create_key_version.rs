//! CreateKeyVersion: rotation. The new version is ACTIVE and becomes primary.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, KeyName, Resource};
use kms_core::key::{Key, Ring, Version};
use kms_core::lifecycle::State;
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_proto::v1;

use super::create_key::make_version;
use super::{is_retry, load_key};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Stored};
use crate::wire::{key_name, version_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CreateKeyVersion(KeyName);

/// The key, its ring, and whether an earlier attempt made the version.
#[derive(Debug)]
pub(crate) struct Rotation {
    found: Option<(Stored<Ring>, Stored<Key>)>,
    is_retry: bool,
}

impl Operation for CreateKeyVersion {
    type Wire = v1::CreateKeyVersionRequest;
    type Facts = Rotation;
    type Prepared = v1::KeyVersion;
    type Reply = v1::CreateKeyVersionResponse;

    const ACTION: Action = Action::CreateKeyVersion;

    fn parse(wire: v1::CreateKeyVersionRequest, home: &Home) -> Result<Self, Refusal> {
        key_name("parent", &wire.parent, home).map(Self)
    }

    fn request_id(wire: &v1::CreateKeyVersionRequest) -> &[u8] {
        &wire.request_id
    }

    fn named(&self) -> Resource {
        Resource::Key(self.0.clone())
    }

    async fn load(&self, cx: &Context, _caller: &Caller, stamp: &Stamp) -> Result<Rotation, Early> {
        let is_retry = is_retry(cx, stamp.idempotency).await?;
        Ok(Rotation { found: load_key(cx, &self.0).await?, is_retry })
    }

    fn resource(&self, _rotation: &Rotation) -> Resource {
        self.named()
    }

    fn subject<'a>(&self, rotation: &'a Rotation) -> Subject<'a> {
        let key = rotation.found.as_ref().map(|(_, key)| &key.value);
        key.map_or(Subject::Absent, Subject::Key)
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        rotation: &Rotation,
    ) -> Result<(v1::KeyVersion, Vec<Draft>), Early> {
        let (_, before) = rotation.found.as_ref().ok_or(super::ABSENT)?;
        if rotation.is_retry {
            let place = rows::version_place(&self.0.version(before.value.latest));
            let version = rows::load::<Version>(cx, &place).await?;
            let version = version.ok_or(Failure::Bug("a key without its latest version"))?;
            return Ok((version_out(&version.value, &version.etag, stamp.now), Vec::new()));
        }
        let number = before.value.latest.checked_add(1).ok_or(Refusal::UsageRefused)?;
        let key = Key { primary: number, latest: number, ..before.value.clone() };
        let length_bytes = latest_length_bytes(cx, &before.value).await?;
        let vault = cx.vault()?;
        let (version, version_draft) =
            make_version(cx, &vault, stamp, &key, (number, length_bytes), State::Active).await?;
        let key_draft = rows::replace(&vault, &stamp.operation_id, &key, &[], before)?;
        let shown = version_out(&version, &version_draft.etag, stamp.now);
        Ok((shown, vec![key_draft, version_draft]))
    }

    async fn perform(
        self,
        _cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _rotation: Rotation,
        version: v1::KeyVersion,
        audit: v1::AuditReference,
    ) -> Result<v1::CreateKeyVersionResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
        Ok(v1::CreateKeyVersionResponse { version: Some(version), audit: Some(audit) })
    }
}

/// A generic secret is as long as the one before it.
async fn latest_length_bytes(cx: &Context, key: &Key) -> Result<u32, Early> {
    let place = rows::version_place(&key.name.version(key.latest));
    let latest = rows::load::<Version>(cx, &place).await?;
    let latest = latest.ok_or(Failure::Bug("a key without its latest version"))?;
    Ok(latest.value.header.length_bytes)
}
