//! UpdateKey: labels and PKCS#11 attributes; nothing that the sealing binds.

use std::collections::BTreeMap;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, KeyName, Resource, VersionName};
use kms_core::key::{Key, Version};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_proto::v1;

use super::load_key;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Stored};
use crate::wire::{
    PKCS11_ID_BYTES_MAX, bounded, hex_encode, invalid, key_name, key_out, labels, object_out, text,
    version_name,
};

/// The fields that are to change.
#[derive(Clone, Debug, Default)]
struct Changes {
    labels: Option<BTreeMap<String, String>>,
    pkcs11_id: Option<String>,
    pkcs11_label: Option<String>,
}

impl Changes {
    fn apply(&self, before: &Key) -> Key {
        let Self { labels, pkcs11_id, pkcs11_label } = self.clone();
        let mut key = before.clone();
        key.labels = labels.unwrap_or(key.labels);
        key.pkcs11.id = pkcs11_id.unwrap_or(key.pkcs11.id);
        key.pkcs11.label = pkcs11_label.unwrap_or(key.pkcs11.label);
        key
    }
}

/// The parsed request.
#[derive(Debug)]
pub(crate) struct UpdateKey {
    name: KeyName,
    etag: String,
    changes: Changes,
}

impl Operation for UpdateKey {
    type Wire = v1::UpdateKeyRequest;
    type Facts = Option<Stored<Key>>;
    type Prepared = v1::Key;
    type Reply = v1::UpdateKeyResponse;

    const ACTION: Action = Action::UpdateKey;

    fn parse(wire: v1::UpdateKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::UpdateKeyRequest { key, update_fields, request_id: _ } = wire;
        let wire = key.ok_or_else(|| invalid("key", "expected the key with its new fields"))?;
        let mut changes = Changes::default();
        for field in update_fields {
            match field.as_str() {
                "labels" => changes.labels = Some(labels(wire.labels.clone())?),
                "pkcs11_id" => {
                    let id = bounded("pkcs11_id", wire.pkcs11_id.clone(), PKCS11_ID_BYTES_MAX)?;
                    changes.pkcs11_id = Some(hex_encode(&id));
                }
                "pkcs11_label" => {
                    changes.pkcs11_label = Some(text("pkcs11_label", wire.pkcs11_label.clone())?);
                }
                _ => {
                    let can = "labels, pkcs11_id and pkcs11_label can be changed";
                    return Err(invalid("update_fields", can));
                }
            }
        }
        Ok(Self { name: key_name("key.name", &wire.name, home)?, etag: wire.etag, changes })
    }

    fn request_id(wire: &v1::UpdateKeyRequest) -> &[u8] {
        &wire.request_id
    }

    fn named(&self) -> Resource {
        Resource::Key(self.name.clone())
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        stamp: &Stamp,
    ) -> Result<Self::Facts, Early> {
        let key = load_key(cx, &self.name).await?.map(|(_, key)| key);
        let moved = key.as_ref().is_some_and(|key| key.etag != self.etag);
        if moved && !self.etag.is_empty() && !super::is_retry(cx, stamp.idempotency).await? {
            return Err(Refusal::Stale.into());
        }
        Ok(key)
    }

    fn resource(&self, _key: &Self::Facts) -> Resource {
        self.named()
    }

    fn subject<'a>(&self, key: &'a Self::Facts) -> Subject<'a> {
        key.as_ref().map_or(Subject::Absent, |key| Subject::Key(&key.value))
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        before: &Self::Facts,
    ) -> Result<(v1::Key, Vec<Draft>), Early> {
        let before = before.as_ref().ok_or(super::ABSENT)?;
        if super::is_retry(cx, stamp.idempotency).await? {
            return Ok((key_out(&before.value, &before.etag), Vec::new()));
        }
        let key = self.changes.apply(&before.value);
        let draft = rows::replace(&*cx.vault()?, &stamp.operation_id, &key, &[], before)?;
        Ok((key_out(&key, &draft.etag), vec![draft]))
    }

    async fn perform(
        self,
        _cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _before: Self::Facts,
        key: v1::Key,
        audit: v1::AuditReference,
    ) -> Result<v1::UpdateKeyResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
        Ok(v1::UpdateKeyResponse { key: Some(key), audit: Some(audit) })
    }
}

/// As PKCS#11 asks for it: CKA_LABEL or CKA_ID of one object's key.
#[derive(Debug)]
pub(crate) struct UpdateObject {
    version: VersionName,
    changes: Changes,
}

/// The object's key and version, if they are there.
type Object = Option<(Stored<Key>, Stored<Version>)>;

impl Operation for UpdateObject {
    type Wire = v1::UpdateObjectRequest;
    type Facts = Object;
    type Prepared = v1::TokenObject;
    type Reply = v1::UpdateObjectResponse;

    const ACTION: Action = Action::UpdateKey;

    fn parse(wire: v1::UpdateObjectRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::UpdateObjectRequest { version, label, id, request_id: _ } = wire;
        let id = id.map(|id| bounded("id", id, PKCS11_ID_BYTES_MAX)).transpose()?;
        let changes = Changes {
            labels: None,
            pkcs11_id: id.map(|id| hex_encode(&id)),
            pkcs11_label: label.map(|label| text("label", label)).transpose()?,
        };
        Ok(Self { version: version_name("version", &version, home)?, changes })
    }

    fn request_id(wire: &v1::UpdateObjectRequest) -> &[u8] {
        &wire.request_id
    }

    fn named(&self) -> Resource {
        Resource::Key(self.version.key.clone())
    }

    async fn load(&self, cx: &Context, _caller: &Caller, _stamp: &Stamp) -> Result<Object, Early> {
        let Some((_, key)) = load_key(cx, &self.version.key).await? else { return Ok(None) };
        let version = rows::load::<Version>(cx, &rows::version_place(&self.version)).await?;
        Ok(version.map(|version| (key, version)))
    }

    fn resource(&self, _object: &Object) -> Resource {
        self.named()
    }

    fn subject<'a>(&self, object: &'a Object) -> Subject<'a> {
        object.as_ref().map_or(Subject::Absent, |(key, _)| Subject::Key(&key.value))
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        object: &Object,
    ) -> Result<(v1::TokenObject, Vec<Draft>), Early> {
        let (before, version) = object.as_ref().ok_or(super::ABSENT)?;
        if super::is_retry(cx, stamp.idempotency).await? {
            return Ok((object_out(&before.value, &version.value, stamp.now), Vec::new()));
        }
        let key = self.changes.apply(&before.value);
        let draft = rows::replace(&*cx.vault()?, &stamp.operation_id, &key, &[], before)?;
        Ok((object_out(&key, &version.value, stamp.now), vec![draft]))
    }

    async fn perform(
        self,
        _cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _object: Object,
        shown: v1::TokenObject,
        audit: v1::AuditReference,
    ) -> Result<v1::UpdateObjectResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
        Ok(v1::UpdateObjectResponse { object: Some(shown), audit: Some(audit) })
    }
}
