//! UpdateKey: labels and PKCS#11 attributes as anybody likes; usages, mechanisms, exportability and
//! floors only the tighter way; the primary version and the rotation.

use std::collections::{BTreeMap, BTreeSet};

use kms_core::action::Action;
use kms_core::algorithm::Usage;
use kms_core::id::{Home, KeyName, Timestamp, VersionName};
use kms_core::key::{Key, Ring, Rotation, Version};
use kms_core::lifecycle::State;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::target::{FoundKey, FoundObject};
use super::writing::{At, Changed, Write};
use crate::context::Context;
use crate::failure::Early;
use crate::pipeline::Stamp;
use crate::rows::{self, Draft};
use crate::wire::{
    PKCS11_ID_BYTES_MAX, bounded, hex_encode, invalid, key_name, labels, mechanisms, rotation,
    text, usages, version_name,
};

/// The fields that are to change.
#[derive(Clone, Debug, Default)]
struct Changes {
    labels: Option<BTreeMap<String, String>>,
    pkcs11_id: Option<String>,
    pkcs11_label: Option<String>,
    usages: Option<BTreeSet<Usage>>,
    mechanisms: Option<BTreeSet<Mechanism>>,
    exportable: Option<bool>,
    protect_floor: Option<u32>,
    process_floor: Option<u32>,
    primary: Option<u32>,
    rotation: Option<Option<Rotation>>,
    audit_each_use: Option<bool>,
}

impl Changes {
    /// Reads the field `name` out of the key on the wire.
    fn read(&mut self, name: &str, wire: &v1::Key) -> Result<(), Refusal> {
        match name {
            "labels" => self.labels = Some(labels(wire.labels.clone())?),
            "pkcs11_id" => self.pkcs11_id = Some(pkcs11_id("pkcs11_id", wire.pkcs11_id.clone())?),
            "pkcs11_label" => {
                self.pkcs11_label = Some(text("pkcs11_label", wire.pkcs11_label.clone())?);
            }
            "usages" => self.usages = Some(usages("usages", &wire.usages)?),
            "mechanisms" => self.mechanisms = Some(mechanisms("mechanisms", &wire.mechanisms)?),
            "exportable" => self.exportable = Some(wire.exportable),
            "protect_floor" => self.protect_floor = Some(wire.protect_floor),
            "process_floor" => self.process_floor = Some(wire.process_floor),
            "primary_version" => self.primary = Some(wire.primary_version),
            "rotation" => self.rotation = Some(rotation(wire.rotation)?),
            "audit_each_use" => self.audit_each_use = Some(wire.audit_each_use),
            _ => {
                let can = "expected labels, pkcs11_label, pkcs11_id, usages, mechanisms, \
                           exportable, protect_floor, process_floor, primary_version, rotation or \
                           audit_each_use";
                return Err(invalid("update_fields", can));
            }
        }
        Ok(())
    }

    /// Whether only what nothing depends on changes.
    const fn are_notes(&self) -> bool {
        let Self {
            labels: _,
            pkcs11_id: _,
            pkcs11_label: _,
            usages,
            mechanisms,
            exportable,
            protect_floor,
            process_floor,
            primary,
            rotation,
            audit_each_use,
        } = self;
        usages.is_none()
            && mechanisms.is_none()
            && exportable.is_none()
            && protect_floor.is_none()
            && process_floor.is_none()
            && primary.is_none()
            && rotation.is_none()
            && audit_each_use.is_none()
    }

    /// The key after the changes, each of which only tightens where it must.
    fn apply(&self, ring: &Ring, before: &Key, now: Timestamp) -> Result<Key, Refusal> {
        let mut key = before.clone();
        if let Some(labels) = &self.labels {
            key.labels.clone_from(labels);
        }
        if let Some(id) = &self.pkcs11_id {
            key.pkcs11.id.clone_from(id);
        }
        if let Some(label) = &self.pkcs11_label {
            key.pkcs11.label.clone_from(label);
        }
        if let Some(mechanisms) = &self.mechanisms {
            narrows("mechanisms", mechanisms, &before.mechanisms)?;
            key.mechanisms.clone_from(mechanisms);
        }
        if let Some(usages) = &self.usages {
            narrows("usages", usages, &before.usages)?;
            key.usages.clone_from(usages);
        }
        match self.exportable {
            Some(true) if !before.exportable => {
                return Err(Refusal::OnlyTightens { field: "exportable" });
            }
            Some(exportable) => key.exportable = exportable,
            None => {}
        }
        if !key.exportable {
            key.usages.remove(&Usage::Export);
        }
        check_uses(&key)?;
        if let Some(floor) = self.protect_floor {
            key.floors.protect = raised("protect_floor", floor, before.floors.protect, &key)?;
        }
        if let Some(floor) = self.process_floor {
            key.floors.process = raised("process_floor", floor, before.floors.process, &key)?;
        }
        match self.audit_each_use {
            Some(false) if before.audit_each_use => {
                return Err(Refusal::OnlyTightens { field: "audit_each_use" });
            }
            Some(audit_each_use) => key.audit_each_use = audit_each_use,
            None => {}
        }
        key.primary = self.primary.unwrap_or(key.primary);
        if let Some(rotation) = self.rotation {
            key.rotation = rotation.map(|rotation| rotation.begun(now));
        }
        // A key that was made before the policy stays as it is; one that fits goes on fitting.
        let fits = |key: &Key| ring.policy.fits(key.algorithm, &key.mechanisms, &key.labels);
        if fits(before).is_ok() {
            fits(&key)?;
        }
        Ok(key)
    }
}

/// What is left must be some of what was there.
fn narrows<T: Ord>(
    field: &'static str,
    after: &BTreeSet<T>,
    before: &BTreeSet<T>,
) -> Result<(), Refusal> {
    match after.is_subset(before) {
        true => Ok(()),
        false => Err(Refusal::OnlyTightens { field }),
    }
}

/// A key without a use, or with a use that nothing carries out, is a mistake.
fn check_uses(key: &Key) -> Result<(), Refusal> {
    let carried_out = |usage: &Usage| {
        usage.hands_out() || key.mechanisms.iter().any(|mechanism| mechanism.offers(*usage))
    };
    match key.usages.iter().find(|usage| !carried_out(usage)) {
        Some(usage) => {
            let problem = format!("the mechanisms left do not offer {usage}; narrow usages, too");
            Err(invalid("mechanisms", problem))
        }
        None => Ok(()),
    }
}

fn raised(field: &'static str, floor: u32, before: u32, key: &Key) -> Result<u32, Refusal> {
    if floor < before {
        return Err(Refusal::OnlyTightens { field });
    }
    if floor > key.latest {
        return Err(invalid(field, format!("the latest version is {}", key.latest)));
    }
    Ok(floor)
}

fn pkcs11_id(field: &'static str, id: Vec<u8>) -> Result<String, Refusal> {
    bounded(field, id, PKCS11_ID_BYTES_MAX).map(|id| hex_encode(&id))
}

/// The parsed request.
#[derive(Debug)]
pub(crate) struct UpdateKey {
    at: At<KeyName>,
    changes: Changes,
}

impl Write for UpdateKey {
    type Wire = v1::UpdateKeyRequest;
    type Target = FoundKey;
    type Reply = v1::UpdateKeyResponse;

    const ACTION: Action = Action::UpdateKey;

    fn parse(wire: v1::UpdateKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::UpdateKeyRequest { key, update_fields, request_id: _ } = wire;
        let wire = key.ok_or_else(|| invalid("key", "expected the key with its new fields"))?;
        let mut changes = Changes::default();
        for field in update_fields {
            changes.read(&field, &wire)?;
        }
        let name = key_name("key.name", &wire.name, home)?;
        let at = match changes.are_notes() {
            true => At::new(name, wire.etag),
            false => At::seen(name, wire.etag)?,
        };
        Ok(Self { at, changes })
    }

    fn request_id(wire: &v1::UpdateKeyRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<KeyName> {
        &self.at
    }

    async fn change(
        &self,
        cx: &Context,
        stamp: &Stamp,
        found: &FoundKey,
    ) -> Result<Changed<Self>, Early> {
        let key = self.changes.apply(&found.ring.value, &found.key.value, stamp.now)?;
        let also = match self.changes.primary {
            Some(number) => vec![active(cx, &key, number, stamp.now).await?],
            None => Vec::new(),
        };
        Ok((key, also))
    }

    fn reply(key: v1::Key, audit: v1::AuditReference) -> v1::UpdateKeyResponse {
        v1::UpdateKeyResponse { key: Some(key), audit: Some(audit) }
    }
}

/// The version that is to be primary: it is ACTIVE, and stays so until the change is on record.
async fn active(cx: &Context, key: &Key, number: u32, now: Timestamp) -> Result<Draft, Early> {
    let place = rows::version_place(&key.name.version(number));
    let version = rows::load::<Version>(cx, &place).await?;
    match version.filter(|version| version.value.state_at(now) == State::Active) {
        Some(version) => Ok(rows::keep(&version)),
        None => Err(invalid("primary_version", "expected the number of an ACTIVE version").into()),
    }
}

/// As PKCS#11 asks for it: CKA_LABEL or CKA_ID of one object's key.
#[derive(Debug)]
pub(crate) struct UpdateObject {
    at: At<VersionName>,
    changes: Changes,
}

impl Write for UpdateObject {
    type Wire = v1::UpdateObjectRequest;
    type Target = FoundObject;
    type Reply = v1::UpdateObjectResponse;

    const ACTION: Action = Action::UpdateKey;

    fn parse(wire: v1::UpdateObjectRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::UpdateObjectRequest { version, label, id, request_id: _ } = wire;
        let changes = Changes {
            pkcs11_id: id.map(|id| pkcs11_id("id", id)).transpose()?,
            pkcs11_label: label.map(|label| text("label", label)).transpose()?,
            ..Changes::default()
        };
        Ok(Self { at: At::new(version_name("version", &version, home)?, String::new()), changes })
    }

    fn request_id(wire: &v1::UpdateObjectRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<VersionName> {
        &self.at
    }

    async fn change(
        &self,
        _cx: &Context,
        stamp: &Stamp,
        found: &FoundObject,
    ) -> Result<Changed<Self>, Early> {
        let key = self.changes.apply(&found.ring.value, &found.key.value, stamp.now)?;
        Ok((key, Vec::new()))
    }

    fn reply(object: v1::TokenObject, audit: v1::AuditReference) -> v1::UpdateObjectResponse {
        v1::UpdateObjectResponse { object: Some(object), audit: Some(audit) }
    }
}
