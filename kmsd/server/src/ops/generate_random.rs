//! GenerateRandom: random bytes for the users of a ring.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, RingName};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_proto::v1;

use super::load_ring;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;
use crate::wire::{invalid, ring_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GenerateRandom {
    ring: RingName,
    length: usize,
}

impl Operation for GenerateRandom {
    type Wire = v1::GenerateRandomRequest;
    /// Whether the ring is there.
    type Facts = bool;
    type Prepared = ();
    type Reply = v1::GenerateRandomResponse;

    const ACTION: Action = Action::GenerateRandom;

    fn parse(wire: v1::GenerateRandomRequest, home: &Home) -> Result<Self, Refusal> {
        let length = usize::try_from(wire.length_bytes).unwrap_or(usize::MAX);
        if length == 0 || length > LENGTH_BYTES_MAX {
            return Err(invalid("length_bytes", format!("expected 1 to {LENGTH_BYTES_MAX}")));
        }
        Ok(Self { ring: ring_name("ring", &wire.ring, home)?, length })
    }

    fn named(&self) -> Resource {
        Resource::Ring(self.ring.clone())
    }

    async fn load(&self, cx: &Context, _caller: &Caller, _stamp: &Stamp) -> Result<bool, Early> {
        Ok(load_ring(cx, &self.ring).await?.is_some())
    }

    fn resource(&self, _exists: &bool) -> Resource {
        self.named()
    }

    fn subject<'a>(&self, exists: &'a bool) -> Subject<'a> {
        if *exists { Subject::Plain } else { Subject::Absent }
    }

    async fn prepare(
        &self,
        _cx: &Context,
        _permit: &Permit,
        _stamp: &Stamp,
        _exists: &bool,
    ) -> Result<((), Vec<Draft>), Early> {
        Ok(((), Vec::new()))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _exists: bool,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<v1::GenerateRandomResponse, Failure> {
        let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
        let data = vault.random(recorded, &stamp.request_digest, &self.named(), self.length)?;
        Ok(v1::GenerateRandomResponse { data, audit: Some(audit) })
    }
}

const LENGTH_BYTES_MAX: usize = 4096;
