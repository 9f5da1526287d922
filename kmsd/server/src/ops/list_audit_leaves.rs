//! ListAuditLeaves: the raw leaves of the log, exactly as hashed.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::wire::{Page, invalid};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ListAuditLeaves {
    first_index: u64,
    limit: usize,
}

impl Read for ListAuditLeaves {
    type Wire = v1::ListAuditLeavesRequest;
    type Facts = Vec<Vec<u8>>;
    type Reply = v1::ListAuditLeavesResponse;

    const ACTION: Action = Action::ListAuditLeaves;

    fn parse(wire: v1::ListAuditLeavesRequest, _home: &Home) -> Result<Self, Refusal> {
        let page = Page::parse(wire.page_size, "", PAGE_SIZE)?;
        Ok(Self { first_index: wire.first_index, limit: page.size })
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<Vec<Vec<u8>>, Early> {
        let size = cx.store.log_size().await;
        if self.first_index > size {
            return Err(invalid("first_index", format!("the log has {size} leaves")).into());
        }
        Ok(cx.store.leaves(self.first_index, self.limit).await?)
    }

    async fn reply(
        self,
        _cx: &Context,
        leaves: Vec<Vec<u8>>,
        audit: v1::AuditReference,
    ) -> Result<v1::ListAuditLeavesResponse, Failure> {
        Ok(v1::ListAuditLeavesResponse { leaves, audit: Some(audit) })
    }
}

const PAGE_SIZE: usize = 256;
