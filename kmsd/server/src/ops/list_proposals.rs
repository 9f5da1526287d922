//! ListProposals: the proposals that the caller may see.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::proposals::{self, Loaded};
use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::{self, PROPOSALS, ProposalRow, Stored};
use crate::wire::Page;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ListProposals(Page);

impl Read for ListProposals {
    type Wire = v1::ListProposalsRequest;
    type Facts = (Vec<Loaded>, String);
    type Reply = v1::ListProposalsResponse;

    const ACTION: Action = Action::ListProposals;

    fn parse(wire: v1::ListProposalsRequest, _home: &Home) -> Result<Self, Refusal> {
        Page::parse(wire.page_size, &wire.page_token, PAGE_SIZE).map(Self)
    }

    async fn load(&self, cx: &Context, caller: &Caller) -> Result<Self::Facts, Early> {
        // A closed appliance knows nobody, and no proposals is not what it has.
        let _open = cx.vault()?;
        if caller.grants().is_empty() {
            return Ok((Vec::new(), String::new()));
        }
        let after = self.0.after.as_deref();
        let rows = rows::scan::<ProposalRow>(cx, PROPOSALS, after, self.0.size + 1).await?;
        let (rows, next) = self.page(&rows).cut(rows);
        let now = cx.now();
        let mut shown = Vec::new();
        for row in rows {
            let loaded = proposals::loaded(cx, row).await?;
            if caller.knows(&proposals::resource(&loaded.row.value.id, Some(&loaded)), now) {
                shown.push(loaded);
            }
        }
        Ok((shown, next))
    }

    async fn reply(
        self,
        cx: &Context,
        (proposals, next_page_token): Self::Facts,
        audit: v1::AuditReference,
    ) -> Result<v1::ListProposalsResponse, Failure> {
        let proposals = proposals.iter().map(|loaded| loaded.shown(cx)).collect();
        Ok(v1::ListProposalsResponse { proposals, next_page_token, audit: Some(audit) })
    }
}

impl ListProposals {
    /// The page asked for, made shorter where its documents would not fit into one message.
    fn page(&self, rows: &[(String, Stored<ProposalRow>)]) -> Page {
        let mut length_bytes = 0_usize;
        let fits = |(_, row): &&(String, Stored<ProposalRow>)| {
            length_bytes = length_bytes.saturating_add(row.value.document.len());
            length_bytes <= PAGE_BYTES_MAX
        };
        let size = rows.iter().take_while(fits).count().clamp(1, self.0.size);
        Page { size, ..self.0.clone() }
    }
}

const PAGE_SIZE: usize = 100;
/// Most bytes of documents in one answer; a single one is always shorter.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
