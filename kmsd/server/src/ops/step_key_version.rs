//! The steps of a version's life that need to be told nothing but the version: activate, suspend,
//! resume, deactivate, destroy, restore, undo. Also the home of what all steps share.

use kms_core::action::Action;
use kms_core::id::{Home, VersionName};
use kms_core::key::Version;
use kms_core::lifecycle::{Compromise, CompromiseReason, IllegalTransition, Transition};
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::Found;
use super::writing::{At, Changed, Write};
use crate::context::Context;
use crate::failure::Early;
use crate::pipeline::Stamp;
use crate::wire::version_name;

/// The version after the step that `action` is, with what goes without saying.
///
/// # Errors
/// [`Refusal::IllegalTransition`] or [`Refusal::NothingToUndo`].
pub(crate) fn stepped(
    cx: &Context,
    stamp: &Stamp,
    action: Action,
    before: &Version,
) -> Result<Version, Refusal> {
    let Some(transition) = action.transition() else {
        return before.after_undo(stamp.now).ok_or(Refusal::NothingToUndo);
    };
    if stamp.by_daemon {
        let state = before.state;
        let after = before.after_due_step(stamp.now);
        return Ok(after.ok_or(IllegalTransition { state, transition })?);
    }
    let mut after = before.after_step(transition, stamp.now, cx.lifecycle.undo_window_ms)?;
    match transition {
        Transition::Compromise => {
            let reason = CompromiseReason::Unspecified;
            after.compromise = Some(Compromise { occurred_at: stamp.now, reason });
        }
        Transition::ScheduleDestroy => {
            after.dates.destroys_at = Some(stamp.now.plus_ms(cx.lifecycle.destroy_delay_ms));
        }
        _ => {}
    }
    Ok(after)
}

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident $request:ident $response:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(At<VersionName>);

        impl Write for $name {
            type Wire = v1::$request;
            type Target = Found;
            type Reply = v1::$response;

            const ACTION: Action = Action::$name;

            fn parse(wire: v1::$request, home: &Home) -> Result<Self, Refusal> {
                let v1::$request { name, etag, request_id: _ } = wire;
                Ok(Self(At::new(version_name("name", &name, home)?, etag)))
            }

            fn request_id(wire: &v1::$request) -> &[u8] {
                &wire.request_id
            }

            fn at(&self) -> &At<VersionName> {
                &self.0
            }

            async fn change(
                &self,
                cx: &Context,
                stamp: &Stamp,
                found: &Found,
            ) -> Result<Changed<Self>, Early> {
                Ok((stepped(cx, stamp, Self::ACTION, &found.version.value)?, Vec::new()))
            }

            fn reply(version: v1::KeyVersion, audit: v1::AuditReference) -> v1::$response {
                v1::$response { version: Some(version), audit: Some(audit) }
            }
        }
    )+};
}

steps!(
    /// PRE_ACTIVE to ACTIVE.
    ActivateKeyVersion ActivateKeyVersionRequest ActivateKeyVersionResponse;
    /// ACTIVE or SUSPENDED to DEACTIVATED.
    DeactivateKeyVersion DeactivateKeyVersionRequest DeactivateKeyVersionResponse;
    /// The end of a version. Its slot is erased, so that neither the store nor any old copy of the
    /// journal holds anything that opens it.
    DestroyKeyVersion DestroyKeyVersionRequest DestroyKeyVersionResponse;
    /// DESTROY_SCHEDULED to DEACTIVATED.
    RestoreKeyVersion RestoreKeyVersionRequest RestoreKeyVersionResponse;
    /// SUSPENDED to ACTIVE.
    ResumeKeyVersion ResumeKeyVersionRequest ResumeKeyVersionResponse;
    /// ACTIVE to SUSPENDED.
    SuspendKeyVersion SuspendKeyVersionRequest SuspendKeyVersionResponse;
    /// The last step taken back, within its time.
    UndoKeyVersionStep UndoKeyVersionStepRequest UndoKeyVersionStepResponse;
);
