//! ScheduleDestroyKeyVersion: the date of destruction; until then RestoreKeyVersion takes it back.

use kms_core::action::Action;
use kms_core::id::{Home, Timestamp, VersionName};
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::Found;
use super::step_key_version::stepped;
use super::writing::{At, Changed, Write};
use crate::context::Context;
use crate::failure::Early;
use crate::pipeline::Stamp;
use crate::wire::{invalid, time, version_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ScheduleDestroyKeyVersion {
    at: At<VersionName>,
    destroys_at: Option<Timestamp>,
}

impl Write for ScheduleDestroyKeyVersion {
    type Wire = v1::ScheduleDestroyKeyVersionRequest;
    type Target = Found;
    type Reply = v1::ScheduleDestroyKeyVersionResponse;

    const ACTION: Action = Action::ScheduleDestroyKeyVersion;

    fn parse(wire: v1::ScheduleDestroyKeyVersionRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::ScheduleDestroyKeyVersionRequest { name, etag, request_id: _, destroy_time } = wire;
        Ok(Self {
            at: At::new(version_name("name", &name, home)?, etag),
            destroys_at: time(DESTROY_TIME, destroy_time)?,
        })
    }

    fn request_id(wire: &v1::ScheduleDestroyKeyVersionRequest) -> &[u8] {
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
        let mut after = stepped(cx, stamp, Self::ACTION, &found.version.value)?;
        let earliest = stamp.now.plus_ms(cx.lifecycle.destroy_delay_ms);
        match self.destroys_at {
            Some(asked) if asked < earliest => {
                let days = cx.lifecycle.destroy_delay_ms / (24 * 60 * 60 * 1000);
                let problem = format!(
                    "too soon: this appliance leaves {days} days to restore; leave it out for \
                     that, or destroy at once by DestroyKeyVersion, which a quorum may guard"
                );
                Err(invalid(DESTROY_TIME, problem).into())
            }
            Some(asked) => {
                after.dates.destroys_at = Some(asked);
                Ok((after, Vec::new()))
            }
            None => Ok((after, Vec::new())),
        }
    }

    fn reply(
        version: v1::KeyVersion,
        audit: v1::AuditReference,
    ) -> v1::ScheduleDestroyKeyVersionResponse {
        v1::ScheduleDestroyKeyVersionResponse { version: Some(version), audit: Some(audit) }
    }
}

const DESTROY_TIME: &str = "destroy_time";
