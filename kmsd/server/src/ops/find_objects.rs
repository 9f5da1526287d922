//! FindObjects: the versions of a ring's keys, as PKCS#11 objects.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, RingName};
use kms_core::key::{Key, Ring, Version};
use kms_core::lifecycle::State;
use kms_core::permit::{Refusal, Subject};
use kms_proto::v1;

use super::list_tokens::may_log_in;
use super::load_ring;
use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::{self, Stored};
use crate::wire::{PAGE_SIZE_MAX, Page, hex_encode, object_out, ring_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct FindObjects {
    ring: RingName,
    label: Option<String>,
    id: Option<String>,
    page: Page,
}

/// A ring, if it is there, and a page of its objects.
#[derive(Debug)]
pub(crate) struct FoundObjects {
    ring: Option<Stored<Ring>>,
    objects: Vec<v1::TokenObject>,
    next: String,
}

impl Read for FindObjects {
    type Wire = v1::FindObjectsRequest;
    type Facts = FoundObjects;
    type Reply = v1::FindObjectsResponse;

    const ACTION: Action = Action::FindObjects;

    fn parse(wire: v1::FindObjectsRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::FindObjectsRequest { ring, label, id, page_size, page_token } = wire;
        Ok(Self {
            ring: ring_name("ring", &ring, home)?,
            label,
            id: id.map(|id| hex_encode(&id)),
            page: Page::parse(page_size, &page_token, PAGE_SIZE_MAX)?,
        })
    }

    async fn load(&self, cx: &Context, caller: &Caller) -> Result<FoundObjects, Early> {
        if !may_log_in(caller) {
            return Err(Refusal::NotFound.into());
        }
        let ring = load_ring(cx, &self.ring).await?;
        // Before login a token simply shows nothing, as PKCS#11 clients expect.
        let now = cx.now();
        if !caller.rights().reach_into(&self.ring, now) {
            return Ok(FoundObjects { ring, objects: Vec::new(), next: String::new() });
        }
        let (prefix, after) = (rows::keys_prefix(&self.ring), self.page.after.as_deref());
        let keys = rows::scan::<Key>(cx, &prefix, after, self.page.size.saturating_add(1)).await?;
        let (keys, next) = self.page.cut(keys);
        let mut objects = Vec::new();
        let seen = |key: &Key| caller.knows(&Resource::Key(key.name.clone()), now);
        for key in keys.iter().filter(|key| self.matches(&key.value) && seen(&key.value)) {
            objects.extend(versions(cx, &key.value).await?);
            if objects.len() >= OBJECTS_MAX {
                // A key with many versions fills the page; the next begins after it.
                let next = Page::token(&rows::key_place(&key.value.name));
                return Ok(FoundObjects { ring, objects, next });
            }
        }
        Ok(FoundObjects { ring, objects, next })
    }

    fn resource(&self) -> Resource {
        Resource::Ring(self.ring.clone())
    }

    fn subject<'a>(&self, found: &'a FoundObjects) -> Subject<'a> {
        found.ring.as_ref().map_or(Subject::Absent, |_| Subject::Plain)
    }

    async fn reply(
        self,
        _cx: &Context,
        found: FoundObjects,
        audit: v1::AuditReference,
    ) -> Result<v1::FindObjectsResponse, Failure> {
        let FoundObjects { ring: _, objects, next: next_page_token } = found;
        Ok(v1::FindObjectsResponse { objects, next_page_token, audit: Some(audit) })
    }
}

impl FindObjects {
    fn matches(&self, key: &Key) -> bool {
        self.label.as_ref().is_none_or(|label| *label == key.pkcs11.label)
            && self.id.as_ref().is_none_or(|id| *id == key.pkcs11.id)
    }
}

async fn versions(cx: &Context, key: &Key) -> Result<Vec<v1::TokenObject>, Early> {
    let prefix = rows::versions_prefix(&key.name);
    let versions = rows::scan::<Version>(cx, &prefix, None, VERSIONS_SHOWN_MAX).await?;
    let now = cx.now();
    let live = versions.iter().filter(|(_, version)| version.value.state != State::Destroyed);
    Ok(live.map(|(_, version)| object_out(key, &version.value, now)).collect())
}

/// Objects that end a page.
const OBJECTS_MAX: usize = 1000;
/// Most versions of one key that show as objects.
const VERSIONS_SHOWN_MAX: usize = 100;
