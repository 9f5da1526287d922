//! ExportKeyVersion: a version leaves, sealed to somebody, by the will of a quorum.
//!
//! Asked for directly, the answer is always NEEDS_APPROVAL, and that stands in the log. The way is a
//! proposal, whose signed bytes name the recipient; see `execute_proposal.rs`, which calls [`export`].

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Digest, Home, Resource, VersionName};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_core::transcript::Recipient;
use kms_core::transfer::ExportRecipient;
use kms_crypto::vault::ExportTo;
use kms_proto::v1;

use super::{Found, VersionFacts, load_version};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;
use crate::wire::{KeyOrVersion, export_recipient, hex_decode, version_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ExportKeyVersion(VersionName);

impl Operation for ExportKeyVersion {
    type Wire = v1::ExportKeyVersionRequest;
    type Facts = VersionFacts;
    type Prepared = ();
    type Reply = v1::ExportKeyVersionResponse;

    const ACTION: Action = Action::ExportKeyVersion;

    fn parse(wire: v1::ExportKeyVersionRequest, home: &Home) -> Result<Self, Refusal> {
        use v1::export_key_version_request::Recipient as Wire;
        let v1::ExportKeyVersionRequest { name, etag: _, recipient } = wire;
        let name = version_name("name", &name, home)?;
        // Read, so that a bad one is told at once and not when everybody has approved.
        let _recipient = match recipient {
            Some(Wire::RsaPublicKey(key)) => export_recipient(Some(key), None),
            Some(Wire::Hpke(hpke)) => export_recipient(None, Some(hpke)),
            None => export_recipient(None, None),
        }?;
        Ok(Self(name))
    }

    fn named(&self) -> Resource {
        Resource::Version(self.0.clone())
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<VersionFacts, Early> {
        load_version(cx, &KeyOrVersion::Version(self.0.clone())).await
    }

    fn resource(&self, _facts: &VersionFacts) -> Resource {
        self.named()
    }

    fn subject<'a>(&self, facts: &'a VersionFacts) -> Subject<'a> {
        facts.subject(None)
    }

    async fn prepare(
        &self,
        _cx: &Context,
        _permit: &Permit,
        _stamp: &Stamp,
        _facts: &VersionFacts,
    ) -> Result<((), Vec<Draft>), Early> {
        Err(Failure::Bug("an export was permitted without an approval").into())
    }

    async fn perform(
        self,
        _cx: &Context,
        _recorded: Recorded,
        _stamp: &Stamp,
        _facts: VersionFacts,
        (): (),
        _audit: v1::AuditReference,
    ) -> Result<v1::ExportKeyVersionResponse, Failure> {
        Err(Failure::Bug("an export was permitted without an approval"))
    }
}

/// Hands the version out as the proposal says.
///
/// # Errors
/// When the recipient's key is none, or the version does not open.
pub(crate) async fn export(
    cx: &Context,
    recorded: Recorded,
    request_digest: &Digest,
    found: &Found,
    recipient: &ExportRecipient,
) -> Result<Vec<u8>, Failure> {
    let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
    let slot = found.slot(cx).await?;
    let public_key = found.public_key();
    let version = found.version_ref(&slot, &public_key);
    let unreadable = Failure::Bug("a proposal with a public key that is not hexadecimal");
    Ok(match recipient {
        ExportRecipient::RsaAesKeyWrap { public_key } => {
            let key = hex_decode(public_key).ok_or(unreadable)?;
            vault.export(recorded, request_digest, version, ExportTo::RsaAesKeyWrap(&key))?
        }
        ExportRecipient::Hpke { suite, public_key } => {
            let key = hex_decode(public_key).ok_or(unreadable)?;
            let recipient = Recipient::new(*suite, key)
                .map_err(|_| Failure::Bug("a proposal with a recipient that is none"))?;
            vault.export(recorded, request_digest, version, ExportTo::Hpke(&recipient))?
        }
        _ => return Err(Failure::Bug("a proposal with an unknown kind of recipient")),
    })
}
