//! Digest: hashes data for the users of a ring. Uses no key.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, RingName};
use kms_core::mechanism::Hash;
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_proto::v1;
use zeroize::Zeroizing;

use super::load_ring;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;
use crate::wire::{DATA_BYTES_MAX, bounded, hash, ring_name};

/// The parsed request.
pub(crate) struct Digest {
    ring: RingName,
    hash: Hash,
    data: Zeroizing<Vec<u8>>,
}

impl Operation for Digest {
    type Wire = v1::DigestRequest;
    /// Whether the ring is there.
    type Facts = bool;
    type Prepared = ();
    type Reply = v1::DigestResponse;

    const ACTION: Action = Action::Digest;

    fn parse(wire: v1::DigestRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::DigestRequest { ring, hash: number, data } = wire;
        let data = Zeroizing::new(bounded("data", data, DATA_BYTES_MAX)?);
        Ok(Self { ring: ring_name("ring", &ring, home)?, hash: hash(number)?, data })
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
    ) -> Result<v1::DigestResponse, Failure> {
        let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
        let (resource, digest) = (self.named(), &stamp.request_digest);
        let digest = vault.digest(recorded, digest, &resource, self.hash, &self.data)?;
        Ok(v1::DigestResponse { digest, audit: Some(audit) })
    }
}
