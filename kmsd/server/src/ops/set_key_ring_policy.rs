//! SetKeyRingPolicy: what the keys of a ring may be and do, from now on.

use kms_core::action::Action;
use kms_core::id::{Home, RingName};
use kms_core::key::Ring;
use kms_core::permit::Refusal;
use kms_core::ring_policy::RingPolicy;
use kms_proto::v1;

use super::target::FoundRing;
use super::writing::{At, Changed, Write};
use crate::context::Context;
use crate::failure::Early;
use crate::pipeline::Stamp;
use crate::wire::{invalid, ring_name, ring_policy};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct SetKeyRingPolicy {
    at: At<RingName>,
    policy: RingPolicy,
}

impl Write for SetKeyRingPolicy {
    type Wire = v1::SetKeyRingPolicyRequest;
    type Target = FoundRing;
    type Reply = v1::SetKeyRingPolicyResponse;

    const ACTION: Action = Action::SetKeyRingPolicy;

    fn parse(wire: v1::SetKeyRingPolicyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::SetKeyRingPolicyRequest { name, etag, policy, request_id: _ } = wire;
        if policy.is_none() {
            return Err(invalid("policy", "expected the ring's whole new policy"));
        }
        Ok(Self {
            at: At::seen(ring_name("name", &name, home)?, etag)?,
            policy: ring_policy(policy)?,
        })
    }

    fn request_id(wire: &v1::SetKeyRingPolicyRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<RingName> {
        &self.at
    }

    async fn change(
        &self,
        _cx: &Context,
        _stamp: &Stamp,
        found: &FoundRing,
    ) -> Result<Changed<Self>, Early> {
        Ok((Ring { policy: self.policy.clone(), ..found.0.value.clone() }, Vec::new()))
    }

    fn reply(key_ring: v1::KeyRing, audit: v1::AuditReference) -> v1::SetKeyRingPolicyResponse {
        v1::SetKeyRingPolicyResponse { key_ring: Some(key_ring), audit: Some(audit) }
    }
}
