//! A key with a generated name, as C_GenerateKey and C_GenerateKeyPair make them. To the rules and
//! the log it is a CreateKey.

use std::collections::BTreeMap;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, KeyName, Resource, RingName, Timestamp};
use kms_core::key::{Floors, Key, Pkcs11Attributes, Version};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_core::service::Ingredients;
use kms_proto::v1;

use super::create_key::{Beginning, Place, make_key};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft};
use crate::wire::{
    PKCS11_ID_BYTES_MAX, Uses, algorithm, bounded, hex_encode, length_bytes, object_out, ring_name,
    text, uses,
};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CreateObjectKey {
    ring: RingName,
    /// The key as it will be, but for its name and times.
    template: Key,
    length_bytes: u32,
}

/// Where the key is made, under its generated name.
#[derive(Debug)]
pub(crate) struct Named {
    name: KeyName,
    place: Place,
}

impl Operation for CreateObjectKey {
    type Wire = v1::CreateObjectKeyRequest;
    type Facts = Named;
    type Prepared = v1::TokenObject;
    type Reply = v1::CreateObjectKeyResponse;

    const ACTION: Action = Action::CreateKey;

    fn parse(wire: v1::CreateObjectKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::CreateObjectKeyRequest {
            ring,
            algorithm: number,
            usages,
            label,
            id,
            request_id: _,
            mechanisms,
            length_bytes: asked_bytes,
            exportable,
        } = wire;
        let ring = ring_name("ring", &ring, home)?;
        let algorithm = algorithm(number)?;
        let id = bounded("id", id, PKCS11_ID_BYTES_MAX)?;
        let Uses { mechanisms, usages } = uses(algorithm, &mechanisms, &usages, exportable, false)?;
        let template = Key {
            // Replaced by the generated name once the request has an operation id.
            name: KeyName { ring: ring.clone(), key: ring.ring.clone() },
            algorithm,
            usages,
            mechanisms,
            exportable,
            trusted: false,
            created_at: Timestamp(0),
            deleted_at: None,
            labels: BTreeMap::new(),
            requirement: None,
            quorum: None,
            model: String::new(),
            dataset: String::new(),
            primary: 1,
            latest: 1,
            floors: Floors::default(),
            rotation: None,
            pkcs11: Pkcs11Attributes { id: hex_encode(&id), label: text("label", label)? },
            audit_each_use: false,
        };
        let length_bytes = length_bytes(algorithm, asked_bytes)?;
        Ok(Self { ring, template, length_bytes })
    }

    fn request_id(wire: &v1::CreateObjectKeyRequest) -> &[u8] {
        &wire.request_id
    }

    fn named(&self) -> Resource {
        Resource::Ring(self.ring.clone())
    }

    async fn load(&self, cx: &Context, _caller: &Caller, stamp: &Stamp) -> Result<Named, Early> {
        let key = format!("p11-{}", stamp.operation_id);
        let key = key.parse().map_err(|_| Failure::Bug("a generated name that is no name"))?;
        let name = KeyName { ring: self.ring.clone(), key };
        let place = Place::of(cx, &name, stamp).await?;
        Ok(Named { name, place })
    }

    fn resource(&self, named: &Named) -> Resource {
        Resource::Key(named.name.clone())
    }

    fn ingredients(&self, _named: &Named) -> Ingredients {
        Ingredients::key(self.template.algorithm)
    }

    fn subject<'a>(&self, named: &'a Named) -> Subject<'a> {
        named.place.subject()
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        named: &Named,
    ) -> Result<(v1::TokenObject, Vec<Draft>), Early> {
        if let Some(key) = &named.place.existing {
            let place = rows::version_place(&named.name.version(1));
            let version = rows::load::<Version>(cx, &place).await?;
            let version = version.ok_or(Failure::Bug("a key without its first version"))?;
            return Ok((object_out(&key.value, &version.value, stamp.now), Vec::new()));
        }
        let key = Key { name: named.name.clone(), created_at: stamp.now, ..self.template.clone() };
        named.place.admits(&key)?;
        let first = (1, self.length_bytes, Beginning::ACTIVE);
        let (made, drafts) = make_key(cx, stamp, &key, first).await?;
        Ok((object_out(&key, &made.version, stamp.now), drafts))
    }

    async fn perform(
        self,
        _cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        named: Named,
        object: v1::TokenObject,
        audit: v1::AuditReference,
    ) -> Result<v1::CreateObjectKeyResponse, Failure> {
        let resource = Resource::Key(named.name);
        let _spent = recorded.spend(Self::ACTION, &resource, &stamp.request_digest)?;
        Ok(v1::CreateObjectKeyResponse { object: Some(object), audit: Some(audit) })
    }
}
