//! GetInclusionProof: proof that a leaf is under the log's head.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::get_checkpoint::signed_checkpoint;
use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::wire::invalid;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GetInclusionProof(u64);

impl Read for GetInclusionProof {
    type Wire = v1::GetInclusionProofRequest;
    type Facts = Vec<u8>;
    type Reply = v1::GetInclusionProofResponse;

    const ACTION: Action = Action::GetInclusionProof;

    fn parse(wire: v1::GetInclusionProofRequest, _home: &Home) -> Result<Self, Refusal> {
        Ok(Self(wire.index))
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<Vec<u8>, Early> {
        cx.opened()?;
        let size = cx.store.log_size().await;
        if self.0 >= size {
            return Err(invalid("index", format!("the log has {size} leaves")).into());
        }
        let leaf = cx.store.leaves(self.0, 1).await?.pop();
        Ok(leaf.ok_or(Failure::Bug("a leaf that the log counts is missing"))?)
    }

    async fn reply(
        self,
        cx: &Context,
        leaf: Vec<u8>,
        audit: v1::AuditReference,
    ) -> Result<v1::GetInclusionProofResponse, Failure> {
        let frontier = cx.store.log_frontier().await;
        let path = cx.store.inclusion_proof(self.0, frontier.size()).await?;
        let hashes = path.iter().map(|hash| hash.as_bytes().to_vec()).collect();
        let checkpoint = signed_checkpoint(cx, &frontier)?;
        Ok(v1::GetInclusionProofResponse { leaf, hashes, checkpoint, audit: Some(audit) })
    }
}
