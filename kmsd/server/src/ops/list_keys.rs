//! ListKeys: the keys of a ring, by name, all or those that a filter selects.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::filter::Filter;
use kms_core::id::{Home, Resource, RingName};
use kms_core::key::{Key, Ring, Version};
use kms_core::permit::{Refusal, Subject};
use kms_proto::v1;

use super::load_ring;
use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::{self, Stored};
use crate::wire::{Page, invalid, key_out, ring_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ListKeys {
    ring: RingName,
    page: Page,
    filter: Filter,
    show_deleted: bool,
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
        let v1::ListKeysRequest { parent, page_size, page_token, filter, show_deleted } = wire;
        Ok(Self {
            ring: ring_name("parent", &parent, home)?,
            page: Page::parse(page_size, &page_token, PAGE_SIZE)?,
            filter: Filter::parse(&filter).map_err(|error| invalid("filter", error))?,
            show_deleted,
        })
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<Listed, Early> {
        let ring = load_ring(cx, &self.ring).await?;
        let prefix = rows::keys_prefix(&self.ring);
        let mut keys = Vec::new();
        let mut after = self.page.after.clone();
        // A page ends when it is full, or when enough was looked at: then the next one goes on.
        for _ in 0..PORTIONS_MAX {
            let portion = rows::scan::<Key>(cx, &prefix, after.as_deref(), PORTION).await?;
            if portion.is_empty() {
                return Ok(Listed { ring, keys, next: String::new() });
            }
            for (place, key) in portion {
                if self.lists(cx, &key.value).await? {
                    if keys.len() == self.page.size {
                        let next = after.as_deref().map(Page::token).unwrap_or_default();
                        return Ok(Listed { ring, keys, next });
                    }
                    keys.push(key);
                }
                after = Some(place);
            }
        }
        let next = after.as_deref().map(Page::token).unwrap_or_default();
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

impl ListKeys {
    async fn lists(&self, cx: &Context, key: &Key) -> Result<bool, Early> {
        if key.deleted_at.is_some() && !self.show_deleted {
            return Ok(false);
        }
        let primary = match self.filter.needs_state() {
            true => rows::load::<Version>(cx, &rows::version_place(&key.name.version(key.primary)))
                .await?
                .map(|version| version.value.state_at(cx.now())),
            false => None,
        };
        Ok(self.filter.matches(key, primary))
    }
}

const PAGE_SIZE: usize = 100;
/// Keys that are read at once, and how often for one page: at most 2,000 keys are looked at.
const PORTION: usize = 200;
const PORTIONS_MAX: usize = 10;
