//! SetKeyVersionDates: when a version is activated and deactivated by itself.

use kms_core::action::Action;
use kms_core::id::{Home, Timestamp, VersionName};
use kms_core::key::Version;
use kms_core::lifecycle::{Dates, State};
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::Found;
use super::writing::{At, Changed, Write};
use crate::context::Context;
use crate::failure::Early;
use crate::pipeline::Stamp;
use crate::wire::{invalid, time, version_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct SetKeyVersionDates {
    at: At<VersionName>,
    span: Span,
}

/// From when and until when a version is to be ACTIVE.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) activates_at: Option<Timestamp>,
    pub(crate) deactivates_at: Option<Timestamp>,
}

impl Span {
    /// Reads the two times, of which the first is before the second.
    ///
    /// # Errors
    /// [`Refusal::InvalidArgument`].
    pub(crate) fn parse(
        activate: Option<prost_types::Timestamp>,
        deactivate: Option<prost_types::Timestamp>,
    ) -> Result<Self, Refusal> {
        let activates_at = time(ACTIVATE_TIME, activate)?;
        let deactivates_at = time(DEACTIVATE_TIME, deactivate)?;
        match (activates_at, deactivates_at) {
            (Some(begin), Some(end)) if end <= begin => {
                Err(invalid(DEACTIVATE_TIME, "expected a time after activate_time"))
            }
            _ => Ok(Self { activates_at, deactivates_at }),
        }
    }

    /// Both lie ahead of a version in `state`.
    ///
    /// # Errors
    /// [`Refusal::InvalidArgument`] for a date that has passed or will never act.
    pub(crate) fn check(self, state: State, now: Timestamp) -> Result<(), Refusal> {
        let ahead = |field, date: Option<Timestamp>, acts: bool| match date {
            Some(date) if date <= now => Err(invalid(field, "expected a time to come")),
            Some(_) if !acts => {
                Err(invalid(field, format!("a version that is {state} has no such step ahead")))
            }
            _ => Ok(()),
        };
        let begins = matches!(state, State::PendingImport | State::PreActive);
        ahead(ACTIVATE_TIME, self.activates_at, begins)?;
        let ends = begins || matches!(state, State::Active | State::Suspended);
        ahead(DEACTIVATE_TIME, self.deactivates_at, ends)
    }

    /// The two as dates of a version.
    pub(crate) const fn dates(self) -> Dates {
        let Self { activates_at, deactivates_at } = self;
        Dates { activates_at, deactivates_at, destroys_at: None }
    }
}

impl Write for SetKeyVersionDates {
    type Wire = v1::SetKeyVersionDatesRequest;
    type Target = Found;
    type Reply = v1::SetKeyVersionDatesResponse;

    const ACTION: Action = Action::SetKeyVersionDates;

    fn parse(wire: v1::SetKeyVersionDatesRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::SetKeyVersionDatesRequest {
            name,
            etag,
            request_id: _,
            activate_time,
            deactivate_time,
        } = wire;
        Ok(Self {
            at: At::new(version_name("name", &name, home)?, etag),
            span: Span::parse(activate_time, deactivate_time)?,
        })
    }

    fn request_id(wire: &v1::SetKeyVersionDatesRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<VersionName> {
        &self.at
    }

    async fn change(
        &self,
        _cx: &Context,
        stamp: &Stamp,
        found: &Found,
    ) -> Result<Changed<Self>, Early> {
        let before = found.version.value.settled(stamp.now);
        self.span.check(before.state, stamp.now)?;
        let dates = Dates { destroys_at: before.dates.destroys_at, ..self.span.dates() };
        Ok((Version { dates, ..before }, Vec::new()))
    }

    fn reply(version: v1::KeyVersion, audit: v1::AuditReference) -> v1::SetKeyVersionDatesResponse {
        v1::SetKeyVersionDatesResponse { version: Some(version), audit: Some(audit) }
    }
}

const ACTIVATE_TIME: &str = "activate_time";
const DEACTIVATE_TIME: &str = "deactivate_time";
