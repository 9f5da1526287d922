//! ListUsers: enrolled people and programs.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_proto::v1;
use prost::Message as _;

use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::{self, Stored, User};
use crate::wire::{Page, user_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ListUsers(Page);

impl Read for ListUsers {
    type Wire = v1::ListUsersRequest;
    type Facts = (Vec<Stored<User>>, String);
    type Reply = v1::ListUsersResponse;

    const ACTION: Action = Action::ListUsers;

    fn parse(wire: v1::ListUsersRequest, _home: &Home) -> Result<Self, Refusal> {
        Page::parse(wire.page_size, &wire.page_token, PAGE_SIZE).map(Self)
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<Self::Facts, Early> {
        let after = self.0.after.as_deref();
        let users = rows::scan::<User>(cx, rows::USERS, after, self.0.size + 1).await?;
        // Somebody with many roles takes much room, and an answer has a bound; one always fits.
        let (mut bytes, mut fit) = (0_usize, 0);
        for (_, user) in &users {
            bytes = bytes.saturating_add(user_out(user, cx.now()).encoded_len());
            fit += usize::from(bytes <= ANSWER_BYTES_MAX || fit == 0);
        }
        let page = Page { size: self.0.size.min(fit), after: None };
        Ok(page.cut(users))
    }

    async fn reply(
        self,
        cx: &Context,
        (users, next_page_token): Self::Facts,
        audit: v1::AuditReference,
    ) -> Result<v1::ListUsersResponse, Failure> {
        let now = cx.now();
        let users = users.iter().map(|user| user_out(user, now)).collect();
        Ok(v1::ListUsersResponse { users, next_page_token, audit: Some(audit) })
    }
}

const PAGE_SIZE: usize = 100;
/// Most bytes of users in one answer.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;
