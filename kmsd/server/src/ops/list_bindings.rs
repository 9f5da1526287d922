//! ListBindings: who holds which roles, over what.

use std::sync::Arc;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, PrincipalName, Resource, Timestamp};
use kms_core::permit::Refusal;
use kms_core::rights::{Grant, Rights};
use kms_proto::v1;

use super::reading::Read;
use crate::context::Context;
use crate::directory::Directory;
use crate::failure::{Early, Failure};
use crate::wire::{Page, grant_out, key_name, parse, ring_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ListBindings {
    principal: Option<PrincipalName>,
    reached: Option<Resource>,
    page: Page,
}

impl Read for ListBindings {
    type Wire = v1::ListBindingsRequest;
    type Facts = Arc<Directory>;
    type Reply = v1::ListBindingsResponse;

    const ACTION: Action = Action::ListBindings;

    fn parse(wire: v1::ListBindingsRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::ListBindingsRequest { principal, resource, page_size, page_token } = wire;
        let principal = match principal.as_str() {
            "" => None,
            name => Some(parse("principal", name)?),
        };
        let is_key = |name: &str| match name.starts_with("tenants/") {
            true => name.contains("/keys/"),
            false => name.contains('/'),
        };
        let reached = match resource.as_str() {
            "" => None,
            name if is_key(name) => Some(Resource::Key(key_name("resource", name, home)?)),
            name => Some(Resource::Ring(ring_name("resource", name, home)?)),
        };
        Ok(Self { principal, reached, page: Page::parse(page_size, &page_token, PAGE_SIZE)? })
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<Arc<Directory>, Early> {
        // A closed appliance knows nobody, and no bindings is not what it has.
        let _open = cx.vault()?;
        Ok(cx.directory())
    }

    async fn reply(
        self,
        _cx: &Context,
        directory: Arc<Directory>,
        audit: v1::AuditReference,
    ) -> Result<v1::ListBindingsResponse, Failure> {
        let asked = |name: &&PrincipalName| self.principal.as_ref().is_none_or(|one| one == *name);
        let of_users = directory.users().filter(|user| asked(&&user.name)).flat_map(|user| {
            let grants = user.grants.iter().enumerate();
            // Its number keeps each in its place, for the next page.
            grants.map(|(at, grant)| (format!("{} {at:05}", user.name), (&user.name, grant)))
        });
        let reaching = of_users.filter(|(_, (_, grant))| self.reaches(grant));
        let after = self.page.after.as_deref().unwrap_or_default();
        let following =
            reaching.skip_while(|(place, _)| !after.is_empty() && place.as_str() <= after);
        let rows = following.take(self.page.size.saturating_add(1)).collect();
        let (bindings, next_page_token) = self.page.cut(rows);
        let bindings = bindings.into_iter().map(|(principal, grant)| v1::Binding {
            principal: principal.to_string(),
            grant: Some(grant_out(grant)),
        });
        let bindings = bindings.collect();
        Ok(v1::ListBindingsResponse { bindings, next_page_token, audit: Some(audit) })
    }
}

impl ListBindings {
    /// Whether the role is held over what was asked for, whenever it ends.
    fn reaches(&self, grant: &Grant) -> bool {
        let Some(resource) = &self.reached else { return true };
        let lasting = Grant { expires_at: None, ..grant.clone() };
        Rights::of(vec![lasting]).reach(resource, Timestamp::default())
    }
}

const PAGE_SIZE: usize = 100;
