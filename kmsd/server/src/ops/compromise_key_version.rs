//! CompromiseKeyVersion: any live state to COMPROMISED, with what is known of it.

use kms_core::action::Action;
use kms_core::id::{Home, Timestamp, VersionName};
use kms_core::lifecycle::{Compromise, CompromiseReason};
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::Found;
use super::step_key_version::stepped;
use super::writing::{At, Changed, Write};
use crate::context::Context;
use crate::failure::Early;
use crate::pipeline::Stamp;
use crate::wire::{compromise_reason, invalid, time, version_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CompromiseKeyVersion {
    at: At<VersionName>,
    occurred_at: Option<Timestamp>,
    reason: CompromiseReason,
}

impl Write for CompromiseKeyVersion {
    type Wire = v1::CompromiseKeyVersionRequest;
    type Target = Found;
    type Reply = v1::CompromiseKeyVersionResponse;

    const ACTION: Action = Action::CompromiseKeyVersion;

    fn parse(wire: v1::CompromiseKeyVersionRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::CompromiseKeyVersionRequest { name, etag, request_id: _, compromise } = wire;
        let v1::Compromise { occur_time, reason } = compromise.unwrap_or_default();
        Ok(Self {
            at: At::new(version_name("name", &name, home)?, etag),
            occurred_at: time(OCCUR_TIME, occur_time)?,
            reason: compromise_reason(reason)?,
        })
    }

    fn request_id(wire: &v1::CompromiseKeyVersionRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<VersionName> {
        &self.at
    }

    async fn change(
        &self,
        cx: &Context,
        stamp: &Stamp,
        found: &Found,
    ) -> Result<Changed<Self>, Early> {
        let before = &found.version.value;
        let occurred_at = self.occurred_at.unwrap_or(stamp.now);
        if occurred_at > stamp.now || occurred_at < before.created_at {
            let problem = "expected a time between the version's creation and now";
            return Err(invalid(OCCUR_TIME, problem).into());
        }
        let mut after = stepped(cx, stamp, Self::ACTION, before)?;
        after.compromise = Some(Compromise { occurred_at, reason: self.reason });
        Ok((after, Vec::new()))
    }

    fn reply(
        version: v1::KeyVersion,
        audit: v1::AuditReference,
    ) -> v1::CompromiseKeyVersionResponse {
        v1::CompromiseKeyVersionResponse { version: Some(version), audit: Some(audit) }
    }
}

const OCCUR_TIME: &str = "compromise.occur_time";
