//! GetKeyRing: describes a ring.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, RingName};
use kms_core::key::Ring;
use kms_core::permit::{Refusal, Subject};
use kms_proto::v1;

use super::load_ring;
use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::Stored;
use crate::wire::{ring_name, ring_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GetKeyRing(RingName);

impl Read for GetKeyRing {
    type Wire = v1::GetKeyRingRequest;
    type Facts = Option<Stored<Ring>>;
    type Reply = v1::GetKeyRingResponse;

    const ACTION: Action = Action::GetKeyRing;

    fn parse(wire: v1::GetKeyRingRequest, home: &Home) -> Result<Self, Refusal> {
        ring_name("name", &wire.name, home).map(Self)
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<Self::Facts, Early> {
        load_ring(cx, &self.0).await
    }

    fn resource(&self) -> Resource {
        Resource::Ring(self.0.clone())
    }

    fn subject<'a>(&self, ring: &'a Self::Facts) -> Subject<'a> {
        ring.as_ref().map_or(Subject::Absent, |_| Subject::Plain)
    }

    async fn reply(
        self,
        _cx: &Context,
        ring: Self::Facts,
        audit: v1::AuditReference,
    ) -> Result<v1::GetKeyRingResponse, Failure> {
        let key_ring = ring.map(|ring| ring_out(&ring.value, &ring.etag));
        Ok(v1::GetKeyRingResponse { key_ring, audit: Some(audit) })
    }
}
