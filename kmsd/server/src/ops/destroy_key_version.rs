//! DestroyKeyVersion: the end of a version. Its slot is erased, so that neither the store nor any
//! old copy of the journal holds anything that opens it.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, VersionName};
use kms_core::key::Version;
use kms_core::lifecycle::{self, State, Transition};
use kms_core::permit::{Grounds, Permit, Recorded, Refusal, Subject};
use kms_proto::v1;
use kms_store::{Batch, Outcome, Write};

use super::proposals::policy;
use super::step_key_version::StepFacts;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Erasure, Record as _, Stored};
use crate::wire::{version_name, version_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct DestroyKeyVersion {
    name: VersionName,
    etag: String,
}

/// As PKCS#11 asks for it: a version in use is deactivated first.
#[derive(Debug)]
pub(crate) struct DestroyObject {
    name: VersionName,
}

/// Drafts the destroyed version and the order to erase its slot.
///
/// # Errors
/// [`Refusal::IllegalTransition`], or when the cryptography fails.
pub(crate) fn destroy(
    cx: &Context,
    stamp: &Stamp,
    before: &Stored<Version>,
    from: State,
) -> Result<(v1::KeyVersion, Vec<Draft>), Early> {
    let state = lifecycle::next(from, Transition::Destroy).map_err(Refusal::from)?;
    let version = Version { state, changed_at: stamp.now, ..before.value.clone() };
    let vault = cx.vault()?;
    let row = rows::replace(&vault, &stamp.operation_id, &version, &[], before)?;
    let erasure = Erasure { slot: before.value.slot };
    let order = rows::create(&vault, &stamp.operation_id, &erasure, &[])?;
    Ok((version_out(&version, &row.etag, stamp.now), vec![row, order]))
}

/// Erases the slot of a version whose destruction is on record.
///
/// # Errors
/// When the store fails; the order to erase stands, and the next start carries it out.
pub(crate) async fn erase(cx: &Context, slot: u64) -> Result<(), Failure> {
    cx.store.erase_slot(slot).await?;
    // The order is carried out. Were the daemon to stop here, the next start would do it again.
    let writes = vec![Write::Delete { key: Erasure { slot }.place() }];
    match cx.store.commit(Batch { writes, ..Batch::default() }).await? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Conflict(_) | Outcome::Unknown => Err(Failure::Unknown),
    }
}

impl Operation for DestroyKeyVersion {
    type Wire = v1::DestroyKeyVersionRequest;
    type Facts = StepFacts;
    type Prepared = v1::KeyVersion;
    type Reply = v1::DestroyKeyVersionResponse;

    const ACTION: Action = Action::DestroyKeyVersion;

    fn parse(wire: v1::DestroyKeyVersionRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::DestroyKeyVersionRequest { name, etag, request_id: _ } = wire;
        Ok(Self { name: version_name("name", &name, home)?, etag })
    }

    fn request_id(wire: &v1::DestroyKeyVersionRequest) -> &[u8] {
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
        facts.subject(Transition::Destroy)
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
        destroy(cx, stamp, before, before.value.state_at(stamp.now))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        facts: StepFacts,
        version: v1::KeyVersion,
        audit: v1::AuditReference,
    ) -> Result<v1::DestroyKeyVersionResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
        if !facts.is_retry {
            erase(cx, facts.version.found()?.version.value.slot).await?;
        }
        Ok(v1::DestroyKeyVersionResponse { version: Some(version), audit: Some(audit) })
    }
}

impl Operation for DestroyObject {
    type Wire = v1::DestroyObjectRequest;
    type Facts = StepFacts;
    type Prepared = ();
    type Reply = v1::DestroyObjectResponse;

    const ACTION: Action = Action::DestroyKeyVersion;

    fn parse(wire: v1::DestroyObjectRequest, home: &Home) -> Result<Self, Refusal> {
        Ok(Self { name: version_name("version", &wire.version, home)? })
    }

    fn request_id(wire: &v1::DestroyObjectRequest) -> &[u8] {
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
        StepFacts::load(cx, &self.name, "", stamp).await
    }

    fn resource(&self, _facts: &StepFacts) -> Resource {
        self.named()
    }

    fn subject<'a>(&self, facts: &'a StepFacts) -> Subject<'a> {
        let state = facts.version.found.as_ref().map(|found| found.version.value.state);
        facts.subject(match state {
            Some(State::Active | State::Suspended) => Transition::Deactivate,
            _ => Transition::Destroy,
        })
    }

    /// Two steps in one need what each of them needs.
    async fn grounds(
        &self,
        _cx: &Context,
        _caller: &Caller,
        _stamp: &Stamp,
        facts: &StepFacts,
    ) -> Result<Grounds, Early> {
        let deactivates = |found: &&super::Found| {
            matches!(found.version.value.state, State::Active | State::Suspended)
        };
        let found = facts.version.found.as_ref().filter(deactivates);
        match found.and_then(|found| policy(found, Action::DeactivateKeyVersion)) {
            Some(_) if !facts.is_retry => Err(Refusal::NeedsApproval.into()),
            _ => Ok(Grounds::default()),
        }
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        facts: &StepFacts,
    ) -> Result<((), Vec<Draft>), Early> {
        if facts.is_retry {
            return Ok(((), Vec::new()));
        }
        let before = &facts.version.found()?.version;
        let state = before.value.state;
        let from = lifecycle::next(state, Transition::Deactivate).unwrap_or(state);
        let (_, drafts) = destroy(cx, stamp, before, from)?;
        Ok(((), drafts))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        facts: StepFacts,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<v1::DestroyObjectResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
        if !facts.is_retry {
            erase(cx, facts.version.found()?.version.value.slot).await?;
        }
        Ok(v1::DestroyObjectResponse { audit: Some(audit) })
    }
}
