//! The plain steps of a version's life: activate, suspend, resume, deactivate, compromise.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, VersionName};
use kms_core::key::Version;
use kms_core::lifecycle::{self, Transition};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_proto::v1;

use super::{VersionFacts, is_retry, load_version};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Stored};
use crate::wire::{KeyOrVersion, version_name, version_out};

/// A version, and whether an earlier attempt of this very request took the step.
#[derive(Debug)]
pub(crate) struct StepFacts {
    pub(crate) version: VersionFacts,
    pub(crate) is_retry: bool,
}

impl StepFacts {
    /// Loads the version that a step is asked for.
    ///
    /// # Errors
    /// [`Refusal::Stale`] when the caller saw another state of it.
    pub(crate) async fn load(
        cx: &Context,
        name: &VersionName,
        etag: &str,
        stamp: &Stamp,
    ) -> Result<Self, Early> {
        let is_retry = is_retry(cx, stamp.idempotency).await?;
        let version = load_version(cx, &KeyOrVersion::Version(name.clone())).await?;
        let moved = version.found.as_ref().is_some_and(|found| found.version.etag != etag);
        if moved && !etag.is_empty() && !is_retry {
            return Err(Refusal::Stale.into());
        }
        Ok(Self { version, is_retry })
    }

    /// What the rules are to know. A retry takes no step.
    pub(crate) fn subject(&self, transition: Transition) -> Subject<'_> {
        self.version.subject((!self.is_retry).then_some(transition))
    }
}

/// Drafts the version after `transition`.
///
/// # Errors
/// [`Refusal::IllegalTransition`], or when the cryptography fails.
pub(crate) fn step(
    cx: &Context,
    stamp: &Stamp,
    before: &Stored<Version>,
    transition: Transition,
) -> Result<(v1::KeyVersion, Draft), Early> {
    let state =
        lifecycle::next(before.value.state_at(stamp.now), transition).map_err(Refusal::from)?;
    let version = Version { state, changed_at: stamp.now, ..before.value.clone() };
    let vault = cx.vault()?;
    let draft = rows::replace(&vault, &stamp.operation_id, &version, &before.sealed, before)?;
    Ok((version_out(&version, &draft.etag, stamp.now), draft))
}

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident $request:ident $response:ident $transition:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name {
            name: VersionName,
            etag: String,
        }

        impl Operation for $name {
            type Wire = v1::$request;
            type Facts = StepFacts;
            type Prepared = v1::KeyVersion;
            type Reply = v1::$response;

            const ACTION: Action = Action::$name;

            fn parse(wire: v1::$request, home: &Home) -> Result<Self, Refusal> {
                let v1::$request { name, etag, .. } = wire;
                Ok(Self { name: version_name("name", &name, home)?, etag })
            }

            fn request_id(wire: &v1::$request) -> &[u8] {
                &wire.request_id
            }

            fn named(&self) -> Resource {
                Resource::Version(self.name.clone())
            }

            async fn load(
                &self,
                cx: &Context,
                _caller: &Caller,
                stamp: &Stamp,
            ) -> Result<StepFacts, Early> {
                StepFacts::load(cx, &self.name, &self.etag, stamp).await
            }

            fn resource(&self, _facts: &StepFacts) -> Resource {
                self.named()
            }

            fn subject<'a>(&self, facts: &'a StepFacts) -> Subject<'a> {
                facts.subject(Transition::$transition)
            }

            async fn prepare(
                &self,
                cx: &Context,
                _permit: &Permit,
                stamp: &Stamp,
                facts: &StepFacts,
            ) -> Result<(v1::KeyVersion, Vec<Draft>), Early> {
                let before = &facts.version.found()?.version;
                if facts.is_retry {
                    return Ok((version_out(&before.value, &before.etag, stamp.now), Vec::new()));
                }
                let (version, draft) = step(cx, stamp, before, Transition::$transition)?;
                Ok((version, vec![draft]))
            }

            async fn perform(
                self,
                _cx: &Context,
                recorded: Recorded,
                stamp: &Stamp,
                _facts: StepFacts,
                version: v1::KeyVersion,
                audit: v1::AuditReference,
            ) -> Result<v1::$response, Failure> {
                let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
                Ok(v1::$response { version: Some(version), audit: Some(audit) })
            }
        }
    )+};
}

steps!(
    /// PRE_ACTIVE to ACTIVE.
    ActivateKeyVersion ActivateKeyVersionRequest ActivateKeyVersionResponse Activate;
    /// Any live state to COMPROMISED.
    CompromiseKeyVersion CompromiseKeyVersionRequest CompromiseKeyVersionResponse Compromise;
    /// ACTIVE or SUSPENDED to DEACTIVATED.
    DeactivateKeyVersion DeactivateKeyVersionRequest DeactivateKeyVersionResponse Deactivate;
    /// SUSPENDED to ACTIVE.
    ResumeKeyVersion ResumeKeyVersionRequest ResumeKeyVersionResponse Resume;
    /// ACTIVE to SUSPENDED.
    SuspendKeyVersion SuspendKeyVersionRequest SuspendKeyVersionResponse Suspend;
);
