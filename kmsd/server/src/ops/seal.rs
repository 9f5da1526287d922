//! Seal: closes the root key until it is opened again.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::bind_rows::bind_rows_at_the_end;
use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::leases;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct Seal;

impl Read for Seal {
    type Wire = v1::SealRequest;
    type Facts = ();
    type Reply = v1::SealResponse;

    const ACTION: Action = Action::Seal;

    fn parse(_wire: v1::SealRequest, _home: &Home) -> Result<Self, Refusal> {
        Ok(Self)
    }

    async fn load(&self, _cx: &Context, _caller: &Caller) -> Result<(), Early> {
        Ok(())
    }

    async fn reply(
        self,
        cx: &Context,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<v1::SealResponse, Failure> {
        leases::end_all(cx).await;
        bind_rows_at_the_end(cx).await;
        cx.close();
        tracing::warn!("the root key is closed");
        Ok(v1::SealResponse { sealed: true, audit: Some(audit) })
    }
}
