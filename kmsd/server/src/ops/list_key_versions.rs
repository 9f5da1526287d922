//! ListKeyVersions: the versions of a key, oldest first.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, KeyName, Resource};
use kms_core::key::{Key, Version};
use kms_core::permit::{Refusal, Subject};
use kms_proto::v1;

use super::load_key;
use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::{self, Stored};
use crate::wire::{Page, key_name, version_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ListKeyVersions {
    key: KeyName,
    page: Page,
}

/// A key, if it is there, and a page of its versions.
#[derive(Debug)]
pub(crate) struct Listed {
    key: Option<Stored<Key>>,
    versions: Vec<Stored<Version>>,
    next: String,
}

impl Read for ListKeyVersions {
    type Wire = v1::ListKeyVersionsRequest;
    type Facts = Listed;
    type Reply = v1::ListKeyVersionsResponse;

    const ACTION: Action = Action::ListKeyVersions;

    fn parse(wire: v1::ListKeyVersionsRequest, home: &Home) -> Result<Self, Refusal> {
        let key = key_name("parent", &wire.parent, home)?;
        let page = Page::parse(wire.page_size, &wire.page_token, PAGE_SIZE)?;
        Ok(Self { key, page })
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<Listed, Early> {
        let key = load_key(cx, &self.key).await?.map(|(_, key)| key);
        let (prefix, after) = (rows::versions_prefix(&self.key), self.page.after.as_deref());
        let versions = rows::scan::<Version>(cx, &prefix, after, self.page.size + 1).await?;
        let (versions, next) = self.page.cut(versions);
        Ok(Listed { key, versions, next })
    }

    fn resource(&self) -> Resource {
        Resource::Key(self.key.clone())
    }

    fn subject<'a>(&self, listed: &'a Listed) -> Subject<'a> {
        listed.key.as_ref().map_or(Subject::Absent, |key| Subject::Key(&key.value))
    }

    async fn reply(
        self,
        cx: &Context,
        listed: Listed,
        audit: v1::AuditReference,
    ) -> Result<v1::ListKeyVersionsResponse, Failure> {
        let versions = &listed.versions;
        let now = cx.now();
        let versions = versions.iter().map(|row| version_out(&row.value, &row.etag, now)).collect();
        let next_page_token = listed.next;
        Ok(v1::ListKeyVersionsResponse { versions, next_page_token, audit: Some(audit) })
    }
}

const PAGE_SIZE: usize = 100;
