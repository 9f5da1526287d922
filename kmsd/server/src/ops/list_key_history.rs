//! ListKeyHistory: what has happened to a key and its versions, newest first.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, KeyName, Resource};
use kms_core::key::Key;
use kms_core::permit::{Refusal, Subject};
use kms_proto::v1;

use super::load_key;
use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::{self, Event, Stored};
use crate::wire::{Page, key_name, state_out, time_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ListKeyHistory {
    key: KeyName,
    page: Page,
}

/// A key, if it is there, and a page of its history.
#[derive(Debug)]
pub(crate) struct Listed {
    key: Option<Stored<Key>>,
    events: Vec<Stored<Event>>,
    next: String,
}

impl Read for ListKeyHistory {
    type Wire = v1::ListKeyHistoryRequest;
    type Facts = Listed;
    type Reply = v1::ListKeyHistoryResponse;

    const ACTION: Action = Action::ListKeyHistory;

    fn parse(wire: v1::ListKeyHistoryRequest, home: &Home) -> Result<Self, Refusal> {
        let key = key_name("parent", &wire.parent, home)?;
        let page = Page::parse(wire.page_size, &wire.page_token, PAGE_SIZE)?;
        Ok(Self { key, page })
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<Listed, Early> {
        let key = load_key(cx, &self.key).await?.map(|(_, key)| key);
        let (prefix, after) = (rows::history_prefix(&self.key), self.page.after.as_deref());
        let events = rows::scan::<Event>(cx, &prefix, after, self.page.size + 1).await?;
        let (events, next) = self.page.cut(events);
        Ok(Listed { key, events, next })
    }

    fn resource(&self) -> Resource {
        Resource::Key(self.key.clone())
    }

    fn subject<'a>(&self, listed: &'a Listed) -> Subject<'a> {
        listed.key.as_ref().map_or(Subject::Absent, |key| Subject::Key(&key.value))
    }

    async fn reply(
        self,
        _cx: &Context,
        listed: Listed,
        audit: v1::AuditReference,
    ) -> Result<v1::ListKeyHistoryResponse, Failure> {
        let events = listed.events.iter().map(|row| event_out(&row.value)).collect();
        let next_page_token = listed.next;
        Ok(v1::ListKeyHistoryResponse { events, next_page_token, audit: Some(audit) })
    }
}

fn event_out(event: &Event) -> v1::KeyEvent {
    let Event { key, at, operation_id, actor, action, version, from, to } = event;
    v1::KeyEvent {
        time: time_out(*at),
        actor: actor.to_string(),
        action: action.to_string(),
        version: version.map(|number| key.version(number).to_string()).unwrap_or_default(),
        from_state: from.map(state_out).unwrap_or_default(),
        to_state: to.map(state_out).unwrap_or_default(),
        operation_id: operation_id.as_bytes().to_vec(),
    }
}

const PAGE_SIZE: usize = 100;
