//! ListUsers: enrolled people and programs.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_proto::v1;

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
        Ok(self.0.cut(users))
    }

    async fn reply(
        self,
        _cx: &Context,
        (users, next_page_token): Self::Facts,
        audit: v1::AuditReference,
    ) -> Result<v1::ListUsersResponse, Failure> {
        let users = users.iter().map(user_out).collect();
        Ok(v1::ListUsersResponse { users, next_page_token, audit: Some(audit) })
    }
}

const PAGE_SIZE: usize = 100;
