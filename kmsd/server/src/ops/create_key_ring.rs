//! CreateKeyRing: a ring with a key of its own.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, RingName};
use kms_core::key::Ring;
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_core::quorum::QuorumPolicy;
use kms_core::ring_policy::RingPolicy;
use kms_proto::v1;

use super::{is_retry, load_ring};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Stored};
use crate::wire::{hex_encode, quorum, ring_name, ring_out, ring_policy};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CreateKeyRing {
    name: RingName,
    quorum: Option<QuorumPolicy>,
    policy: RingPolicy,
}

impl Operation for CreateKeyRing {
    type Wire = v1::CreateKeyRingRequest;
    /// The ring that an earlier attempt of this very request made.
    type Facts = Option<Stored<Ring>>;
    type Prepared = v1::KeyRing;
    type Reply = v1::CreateKeyRingResponse;

    const ACTION: Action = Action::CreateKeyRing;

    fn parse(wire: v1::CreateKeyRingRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::CreateKeyRingRequest { name, quorum: guards, request_id: _, policy } = wire;
        Ok(Self {
            name: ring_name("name", &name, home)?,
            quorum: quorum(guards)?,
            policy: ring_policy(policy)?,
        })
    }

    fn request_id(wire: &v1::CreateKeyRingRequest) -> &[u8] {
        &wire.request_id
    }

    fn named(&self) -> Resource {
        Resource::Ring(self.name.clone())
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        stamp: &Stamp,
    ) -> Result<Self::Facts, Early> {
        match load_ring(cx, &self.name).await? {
            Some(_) if !is_retry(cx, stamp.idempotency).await? => {
                Err(Refusal::AlreadyExists.into())
            }
            existing => Ok(existing),
        }
    }

    fn resource(&self, _existing: &Self::Facts) -> Resource {
        self.named()
    }

    fn subject<'a>(&self, _existing: &'a Self::Facts) -> Subject<'a> {
        Subject::Plain
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        existing: &Self::Facts,
    ) -> Result<(v1::KeyRing, Vec<Draft>), Early> {
        if let Some(ring) = existing {
            return Ok((ring_out(&ring.value, &ring.etag), Vec::new()));
        }
        let vault = cx.vault()?;
        let ring = Ring {
            name: self.name.clone(),
            created_at: stamp.now,
            quorum: self.quorum.clone(),
            policy: self.policy.clone(),
            wrapped_key: hex_encode(&vault.create_ring_key(&self.name)?),
        };
        let draft = rows::create(&vault, &stamp.operation_id, &ring, &[])?;
        Ok((ring_out(&ring, &draft.etag), vec![draft]))
    }

    async fn perform(
        self,
        _cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _existing: Self::Facts,
        key_ring: v1::KeyRing,
        audit: v1::AuditReference,
    ) -> Result<v1::CreateKeyRingResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
        Ok(v1::CreateKeyRingResponse { key_ring: Some(key_ring), audit: Some(audit) })
    }
}
