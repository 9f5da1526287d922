//! ListKeys: the keys of a ring, by name.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, RingName};
use kms_core::key::{Key, Ring};
use kms_core::permit::{Refusal, Subject};
use kms_proto::v1;

use super::load_ring;
use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::{self, Stored};
use crate::wire::{Page, key_out, ring_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ListKeys {
    ring: RingName,
    page: Page,
}

/// A ring, if it is there, and a page of its keys.
#[derive(Debug)]
pub(crate) struct Listed {
    ring: Option<Stored<Ring>>,
    keys: Vec<Stored<Key>>,
    next: String,
}

impl Read for ListKeys {
    type Wire = v1::ListKeysRequest;
    type Facts = Listed;
    type Reply = v1::ListKeysResponse;

    const ACTION: Action = Action::ListKeys;

    fn parse(wire: v1::ListKeysRequest, home: &Home) -> Result<Self, Refusal> {
        let ring = ring_name("parent", &wire.parent, home)?;
        let page = Page::parse(wire.page_size, &wire.page_token, PAGE_SIZE)?;
        Ok(Self { ring, page })
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<Listed, Early> {
        let ring = load_ring(cx, &self.ring).await?;
        let (prefix, after) = (rows::keys_prefix(&self.ring), self.page.after.as_deref());
        let keys = rows::scan::<Key>(cx, &prefix, after, self.page.size + 1).await?;
        let (keys, next) = self.page.cut(keys);
        Ok(Listed { ring, keys, next })
    }

    fn resource(&self) -> Resource {
        Resource::Ring(self.ring.clone())
    }

    fn subject<'a>(&self, listed: &'a Listed) -> Subject<'a> {
        listed.ring.as_ref().map_or(Subject::Absent, |_| Subject::Plain)
    }

    async fn reply(
        self,
        _cx: &Context,
        listed: Listed,
        audit: v1::AuditReference,
    ) -> Result<v1::ListKeysResponse, Failure> {
        let keys = listed.keys.iter().map(|key| key_out(&key.value, &key.etag)).collect();
        Ok(v1::ListKeysResponse { keys, next_page_token: listed.next, audit: Some(audit) })
    }
}

const PAGE_SIZE: usize = 100;
