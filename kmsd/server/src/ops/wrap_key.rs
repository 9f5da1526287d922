//! WrapKey: protects a key of the appliance with a wrapping key of the appliance. It takes leave to use
//! the one and to hand out the other.

use kms_core::action::Action;
use kms_core::algorithm::Usage;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource};
use kms_core::mechanism::Mechanism;
use kms_core::permit::{Other, Permit, Recorded, Refusal, Subject};
use kms_proto::v1;
use kms_store::Condition;

use super::using::{USES_JUDGED_ANEW_MAX, UseFacts};
use super::{VersionFacts, load_version, named};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;
use crate::wire::{DATA_BYTES_MAX, KeyOrVersion, bounded, invalid, mechanism, version_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct WrapKey {
    name: KeyOrVersion,
    target: KeyOrVersion,
    mechanism: Option<Mechanism>,
    aad: Vec<u8>,
}

/// Both versions.
#[derive(Debug)]
pub(crate) struct Both {
    wrapping: UseFacts,
    target: VersionFacts,
}

impl Operation for WrapKey {
    type Wire = v1::WrapKeyRequest;
    type Facts = Both;
    type Prepared = ();
    type Reply = v1::WrapKeyResponse;

    const ACTION: Action = Action::WrapKey;
    const JUDGED_ANEW_MAX: usize = USES_JUDGED_ANEW_MAX;

    fn parse(wire: v1::WrapKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::WrapKeyRequest {
            name,
            target,
            mechanism: asked,
            additional_authenticated_data: aad,
        } = wire;
        let (name, target) =
            (KeyOrVersion::parse(&name, home)?, version_name("target", &target, home)?);
        if name.key().ring != target.key.ring {
            // The target's ring says what may wrap its keys; another ring's word does not count.
            return Err(invalid("target", "a key is wrapped by a key of its own ring"));
        }
        Ok(Self {
            name,
            target: KeyOrVersion::Version(target),
            mechanism: mechanism("mechanism", asked)?,
            aad: bounded("additional_authenticated_data", aad, DATA_BYTES_MAX)?,
        })
    }

    fn named(&self) -> Resource {
        named(&self.name)
    }

    async fn load(&self, cx: &Context, _caller: &Caller, _stamp: &Stamp) -> Result<Both, Early> {
        let wrapping = UseFacts::load(cx, &self.name, Usage::Wrap, self.mechanism).await?;
        Ok(Both { wrapping, target: load_version(cx, &self.target).await? })
    }

    fn resource(&self, both: &Both) -> Resource {
        both.wrapping.resource()
    }

    fn subject<'a>(&self, both: &'a Both) -> Subject<'a> {
        both.wrapping.subject(false)
    }

    fn other<'a>(&self, both: &'a Both) -> Option<Other<'a>> {
        Some(Other {
            action: Action::ExportKeyVersion,
            resource: both.target.resource.clone(),
            subject: both.target.subject(None),
        })
    }

    fn unchanged(&self, both: &Both) -> Vec<Condition> {
        [both.wrapping.unchanged(), both.target.unchanged()].concat()
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        both: &Both,
    ) -> Result<((), Vec<Draft>), Early> {
        Ok(((), both.wrapping.drafts(cx, stamp)?))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        both: Both,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<v1::WrapKeyResponse, Failure> {
        let Both { mut wrapping, target } = both;
        wrapping.keep();
        let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
        let (by, target) = (wrapping.found()?, target.found()?);
        let (by_slot, target_slot) = (by.slot(cx).await?, target.slot(cx).await?);
        let (by_public, target_public) = (by.public_key(), target.public_key());
        let made = vault.wrap(
            recorded,
            &stamp.request_digest,
            by.version_ref(&by_slot, &by_public),
            wrapping.mechanism()?,
            &self.aad,
            target.version_ref(&target_slot, &target_public),
        )?;
        Ok(v1::WrapKeyResponse {
            name: by.name(),
            initialization_vector: made.iv,
            wrapped_key: made.ciphertext,
            audit: Some(audit),
        })
    }
}
