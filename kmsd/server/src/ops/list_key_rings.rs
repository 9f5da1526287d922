//! ListKeyRings: the rings that the caller may see.

use std::collections::BTreeSet;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, RingName};
use kms_core::key::Ring;
use kms_core::permit::Refusal;
use kms_core::rights::Scope;
use kms_proto::v1;

use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::{self, Stored};
use crate::wire::{Page, ring_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ListKeyRings(Page);

impl Read for ListKeyRings {
    type Wire = v1::ListKeyRingsRequest;
    type Facts = (Vec<Stored<Ring>>, String);
    type Reply = v1::ListKeyRingsResponse;

    const ACTION: Action = Action::ListKeyRings;

    fn parse(wire: v1::ListKeyRingsRequest, _home: &Home) -> Result<Self, Refusal> {
        Page::parse(wire.page_size, &wire.page_token, PAGE_SIZE).map(Self)
    }

    async fn load(&self, cx: &Context, caller: &Caller) -> Result<Self::Facts, Early> {
        // A closed appliance knows nobody, and no rings is not what it has.
        let _open = cx.vault()?;
        let now = cx.now();
        if caller.rights().reach_home(&cx.home, now) {
            let after = self.0.after.as_deref();
            let rings = rows::scan::<Ring>(cx, rows::RINGS, after, self.0.size + 1).await?;
            return Ok(self.0.cut(rings));
        }
        // Only the caller's own rings are read, so that not even a page token names another.
        let own: BTreeSet<&RingName> =
            caller.grants().iter().filter_map(|grant| own_ring(&grant.scope)).collect();
        let mut rings = Vec::new();
        for name in own {
            if !caller.knows(&Resource::Ring(name.clone()), now) {
                continue;
            }
            rings.extend(rows::load::<Ring>(cx, &rows::ring_place(name)).await?);
        }
        Ok((rings, String::new()))
    }

    async fn reply(
        self,
        _cx: &Context,
        (rings, next_page_token): Self::Facts,
        audit: v1::AuditReference,
    ) -> Result<v1::ListKeyRingsResponse, Failure> {
        let key_rings = rings.iter().map(|ring| ring_out(&ring.value, &ring.etag)).collect();
        Ok(v1::ListKeyRingsResponse { key_rings, next_page_token, audit: Some(audit) })
    }
}

fn own_ring(scope: &Scope) -> Option<&RingName> {
    match scope {
        Scope::Ring(ring) => Some(ring),
        _ => None,
    }
}

const PAGE_SIZE: usize = 100;
