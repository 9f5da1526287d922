//! DestroyKeyVersion as C_DestroyObject asks for it: a version in use is deactivated first.

use kms_core::action::Action;
use kms_core::id::{Home, VersionName};
use kms_core::lifecycle::{State, Transition};
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::Found;
use super::proposals::guarding;
use super::writing::{At, Changed, Write};
use crate::context::Context;
use crate::failure::Early;
use crate::pipeline::Stamp;
use crate::wire::version_name;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct DestroyObject(At<VersionName>);

impl Write for DestroyObject {
    type Wire = v1::DestroyObjectRequest;
    type Target = Found;
    type Reply = v1::DestroyObjectResponse;

    const ACTION: Action = Action::DestroyKeyVersion;

    fn parse(wire: v1::DestroyObjectRequest, home: &Home) -> Result<Self, Refusal> {
        Ok(Self(At::new(version_name("version", &wire.version, home)?, String::new())))
    }

    fn request_id(wire: &v1::DestroyObjectRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<VersionName> {
        &self.0
    }

    fn transition(&self, found: &Found) -> Option<Transition> {
        match found.version.value.state {
            State::Active | State::Suspended => Some(Transition::Deactivate),
            _ => Some(Transition::Destroy),
        }
    }

    /// Two steps in one need what each of them needs.
    fn refuse(&self, found: &Found, stamp: &Stamp) -> Result<(), Refusal> {
        let deactivates = self.transition(found) == Some(Transition::Deactivate);
        match guarding(found, Action::DeactivateKeyVersion, stamp.now) {
            Some(_) if deactivates => Err(Refusal::NeedsApproval),
            _ => Ok(()),
        }
    }

    async fn change(
        &self,
        _cx: &Context,
        stamp: &Stamp,
        found: &Found,
    ) -> Result<Changed<Self>, Early> {
        let before = &found.version.value;
        let unused = match before.after_step(Transition::Deactivate, stamp.now, 0) {
            Ok(deactivated) => deactivated,
            Err(_) => before.clone(),
        };
        let after = unused.after_step(Transition::Destroy, stamp.now, 0);
        Ok((after.map_err(Refusal::from)?, Vec::new()))
    }

    fn reply(_version: v1::KeyVersion, audit: v1::AuditReference) -> v1::DestroyObjectResponse {
        v1::DestroyObjectResponse { audit: Some(audit) }
    }
}
