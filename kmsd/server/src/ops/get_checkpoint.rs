//! GetCheckpoint: the signed head of the audit log.

use kms_core::action::Action;
use kms_core::audit::checkpoint::Checkpoint;
use kms_core::audit::merkle::Frontier;
use kms_core::caller::Caller;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GetCheckpoint;

impl Read for GetCheckpoint {
    type Wire = v1::GetCheckpointRequest;
    type Facts = ();
    type Reply = v1::GetCheckpointResponse;

    const ACTION: Action = Action::GetCheckpoint;

    fn parse(_wire: v1::GetCheckpointRequest, _home: &Home) -> Result<Self, Refusal> {
        Ok(Self)
    }

    async fn load(&self, cx: &Context, _caller: &Caller) -> Result<(), Early> {
        cx.opened()?;
        Ok(())
    }

    async fn reply(
        self,
        cx: &Context,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<v1::GetCheckpointResponse, Failure> {
        let checkpoint = signed_checkpoint(cx, &cx.store.log_frontier().await)?;
        let log_key = cx.log_key.to_string();
        Ok(v1::GetCheckpointResponse { checkpoint, log_key, audit: Some(audit) })
    }
}

/// Signs the head that `frontier` is.
///
/// # Errors
/// When the root was closed meanwhile.
pub(crate) fn signed_checkpoint(cx: &Context, frontier: &Frontier) -> Result<String, Failure> {
    let opened = cx.opened().map_err(|_| Failure::SealedMeanwhile)?;
    let origin = cx.log_key.origin().to_owned();
    let checkpoint = Checkpoint { origin, size: frontier.size(), root: frontier.root() };
    let signature = opened.log_signer.sign(checkpoint.text().as_bytes())?;
    Ok(checkpoint.signed(&cx.log_key, &signature))
}
