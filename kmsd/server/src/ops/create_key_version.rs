//! CreateKeyVersion: rotation. The new version is ACTIVE and becomes primary, unless it is to wait.

use kms_core::action::Action;
use kms_core::algorithm::KeyKind;
use kms_core::caller::Caller;
use kms_core::id::{Home, KeyName, Resource};
use kms_core::key::{Key, Ring, Version};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_core::ring_policy::LegacyKeys;
use kms_proto::v1;

use super::changes::due;
use super::create_key::{Beginning, made, make_version};
use super::{is_retry, load_key};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Stored};
use crate::wire::{invalid, key_name, version_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CreateKeyVersion {
    key: KeyName,
    beginning: Beginning,
}

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
        let v1::CreateKeyVersionRequest {
            parent,
            request_id: _,
            pre_active,
            activate_time,
            deactivate_time,
            pending_import,
        } = wire;
        let key = key_name("parent", &parent, home)?;
        let beginning =
            Beginning::parse(pre_active, pending_import, activate_time, deactivate_time)?;
        Ok(Self { key, beginning })
    }

    fn request_id(wire: &v1::CreateKeyVersionRequest) -> &[u8] {
        &wire.request_id
    }

    fn named(&self) -> Resource {
        Resource::Key(self.key.clone())
    }

    async fn load(&self, cx: &Context, _caller: &Caller, stamp: &Stamp) -> Result<Rotation, Early> {
        let is_retry = is_retry(cx, stamp.idempotency).await?;
        Ok(Rotation { found: load_key(cx, &self.key).await?, is_retry })
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
        let (ring, before) = rotation.found.as_ref().ok_or(super::ABSENT)?;
        if rotation.is_retry {
            let place = rows::version_place(&self.key.version(before.value.latest));
            let version = rows::load::<Version>(cx, &place).await?;
            let version = version.ok_or(Failure::Bug("a key without its latest version"))?;
            return Ok((version_out(&version.value, &version.etag, stamp.now), Vec::new()));
        }
        let imported = self.beginning.is_imported();
        if before.value.algorithm.kind() == KeyKind::OpaqueSecret && !imported {
            let problem = "an opaque secret is imported, never generated";
            return Err(invalid("pending_import", problem).into());
        }
        may_rotate(&ring.value, &before.value)?;
        let number = before.value.latest.checked_add(1).ok_or(Refusal::UsageRefused)?;
        let primary = if self.beginning.is_active() { number } else { before.value.primary };
        let schedule = before.value.rotation.map(|schedule| schedule.after(stamp.now));
        let key = Key { primary, latest: number, rotation: schedule, ..before.value.clone() };
        let length_bytes = latest_length_bytes(cx, &before.value).await?;
        let vault = cx.vault()?;
        let next = (number, length_bytes, self.beginning);
        let (version, mut drafts) = make_version(cx, &vault, stamp, &key, next).await?;
        let etag = drafts.first().map(|row| row.etag.clone()).unwrap_or_default();
        drafts.push(rows::replace(&vault, &stamp.operation_id, &key, &[], before)?);
        drafts.push(made(&vault, stamp, Self::ACTION, &version)?);
        if let Some(schedule) = schedule.filter(|schedule| schedule.period_ms != 0) {
            drafts.push(due(&vault, stamp, schedule.next_at, key.name.to_string())?);
        }
        Ok((version_out(&version, &etag, stamp.now), drafts))
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

/// A key that does not fit the policy of its ring goes on with the versions that it has, unless the
/// policy lets it go on altogether.
fn may_rotate(ring: &Ring, key: &Key) -> Result<(), Refusal> {
    let policy = &ring.policy;
    match policy.fits(key.algorithm, &key.mechanisms, &key.labels) {
        Err(misfit) if policy.legacy_keys != LegacyKeys::Allowed => Err(misfit.into()),
        _ => Ok(()),
    }
}

/// A generic secret is as long as the one before it.
async fn latest_length_bytes(cx: &Context, key: &Key) -> Result<u32, Early> {
    let place = rows::version_place(&key.name.version(key.latest));
    let latest = rows::load::<Version>(cx, &place).await?;
    let latest = latest.ok_or(Failure::Bug("a key without its latest version"))?;
    Ok(latest.value.header.length_bytes)
}
