//! DeleteKey: retires the name of a key all of whose versions are destroyed. The row stays, so that
//! the name is never used again.

use kms_core::action::Action;
use kms_core::id::{Home, KeyName};
use kms_core::key::{Key, Version};
use kms_core::lifecycle::State;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::target::FoundKey;
use super::writing::{At, Changed, Write};
use crate::context::Context;
use crate::failure::Early;
use crate::pipeline::Stamp;
use crate::rows;
use crate::wire::key_name;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct DeleteKey(At<KeyName>);

impl Write for DeleteKey {
    type Wire = v1::DeleteKeyRequest;
    type Target = FoundKey;
    type Reply = v1::DeleteKeyResponse;

    const ACTION: Action = Action::DeleteKey;

    fn parse(wire: v1::DeleteKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::DeleteKeyRequest { name, etag, request_id: _ } = wire;
        Ok(Self(At::new(key_name("name", &name, home)?, etag)))
    }

    fn request_id(wire: &v1::DeleteKeyRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<KeyName> {
        &self.0
    }

    async fn change(
        &self,
        cx: &Context,
        stamp: &Stamp,
        found: &FoundKey,
    ) -> Result<Changed<Self>, Early> {
        if let Some(number) = live_version(cx, &found.key.value).await? {
            return Err(Refusal::LiveVersion { number }.into());
        }
        // A version made meanwhile changes the key's row, and this is refused as stale.
        let key = Key { deleted_at: Some(stamp.now), rotation: None, ..found.key.value.clone() };
        Ok((key, Vec::new()))
    }

    fn reply(key: v1::Key, audit: v1::AuditReference) -> v1::DeleteKeyResponse {
        v1::DeleteKeyResponse { key: Some(key), audit: Some(audit) }
    }
}

/// The number of a version that is not destroyed. What is due to be destroyed is not gone before its
/// slot is erased. As many pages are read as there are versions.
async fn live_version(cx: &Context, key: &Key) -> Result<Option<u32>, Early> {
    let prefix = rows::versions_prefix(&key.name);
    let mut after: Option<String> = None;
    loop {
        let page = rows::scan::<Version>(cx, &prefix, after.as_deref(), PAGE).await?;
        let live = page.iter().find(|(_, version)| version.value.state != State::Destroyed);
        if let Some((_, version)) = live {
            return Ok(Some(version.value.header.version.number));
        }
        match page.last() {
            Some((place, _)) => after = Some(place.clone()),
            None => return Ok(None),
        }
    }
}

const PAGE: usize = 500;
