//! SetKeyTrusted: a security officer trusts a key to wrap others (CKA_TRUSTED), or ceases to.

use kms_core::action::Action;
use kms_core::id::{Home, KeyName};
use kms_core::key::Key;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::target::FoundKey;
use super::writing::{At, Changed, Write};
use crate::context::Context;
use crate::failure::Early;
use crate::pipeline::Stamp;
use crate::wire::key_name;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct SetKeyTrusted {
    at: At<KeyName>,
    trusted: bool,
}

impl Write for SetKeyTrusted {
    type Wire = v1::SetKeyTrustedRequest;
    type Target = FoundKey;
    type Reply = v1::SetKeyTrustedResponse;

    const ACTION: Action = Action::SetKeyTrusted;

    fn parse(wire: v1::SetKeyTrustedRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::SetKeyTrustedRequest { name, etag, trusted, request_id: _ } = wire;
        Ok(Self { at: At::seen(key_name("name", &name, home)?, etag)?, trusted })
    }

    fn request_id(wire: &v1::SetKeyTrustedRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<KeyName> {
        &self.at
    }

    async fn change(
        &self,
        _cx: &Context,
        _stamp: &Stamp,
        found: &FoundKey,
    ) -> Result<Changed<Self>, Early> {
        Ok((Key { trusted: self.trusted, ..found.key.value.clone() }, Vec::new()))
    }

    fn reply(key: v1::Key, audit: v1::AuditReference) -> v1::SetKeyTrustedResponse {
        v1::SetKeyTrustedResponse { key: Some(key), audit: Some(audit) }
    }
}
