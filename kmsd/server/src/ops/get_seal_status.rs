//! GetSealStatus: whether the root is open, and how it opens.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GetSealStatus;

impl Read for GetSealStatus {
    type Wire = v1::GetSealStatusRequest;
    type Facts = ();
    type Reply = v1::GetSealStatusResponse;

    const ACTION: Action = Action::GetSealStatus;

    fn parse(_wire: v1::GetSealStatusRequest, _home: &Home) -> Result<Self, Refusal> {
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
    ) -> Result<v1::GetSealStatusResponse, Failure> {
        Ok(v1::GetSealStatusResponse {
            sealed: cx.is_sealed(),
            method: cx.seal_method.to_owned(),
            log_key: cx.log_key.to_string(),
            daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
            location: cx.home.to_string(),
            audit: Some(audit),
        })
    }
}
