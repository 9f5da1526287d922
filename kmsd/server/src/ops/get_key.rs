//! GetKey: describes a key.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, KeyName, Resource};
use kms_core::key::Key;
use kms_core::permit::{Refusal, Subject};
use kms_proto::v1;

use super::load_key;
use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::Stored;
use crate::wire::{key_name, key_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GetKey(KeyName);

impl Read for GetKey {
    type Wire = v1::GetKeyRequest;
    type Facts = Option<Stored<Key>>;
    type Reply = v1::GetKeyResponse;

    const ACTION: Action = Action::GetKey;

    fn parse(wire: v1::GetKeyRequest, home: &Home) -> Result<Self, Refusal> {
        key_name("name", &wire.name, home).map(Self)
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<Self::Facts, Early> {
        Ok(load_key(cx, &self.0).await?.map(|(_, key)| key))
    }

    fn resource(&self) -> Resource {
        Resource::Key(self.0.clone())
    }

    fn subject<'a>(&self, key: &'a Self::Facts) -> Subject<'a> {
        key.as_ref().map_or(Subject::Absent, |key| Subject::Key(&key.value))
    }

    async fn reply(
        self,
        _cx: &Context,
        key: Self::Facts,
        audit: v1::AuditReference,
    ) -> Result<v1::GetKeyResponse, Failure> {
        let key = key.map(|key| key_out(&key.value, &key.etag));
        Ok(v1::GetKeyResponse { key, audit: Some(audit) })
    }
}
