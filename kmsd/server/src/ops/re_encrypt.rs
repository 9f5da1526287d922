//! ReEncrypt: moves a ciphertext to another key, another version or another mechanism. What is in it is
//! shown to nobody.

use kms_core::action::Action;
use kms_core::algorithm::Usage;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource};
use kms_core::mechanism::Mechanism;
use kms_core::permit::{Other, Permit, Recorded, Refusal, Subject};
use kms_crypto::vault::Ciphertext;
use kms_proto::v1;
use kms_store::Condition;

use super::guarded_use::{Guarded, Settled};
use super::named;
use super::using::{USES_JUDGED_ANEW_MAX, UseFacts, joined};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;
use crate::wire::{
    DATA_BYTES_MAX, IV_BYTES_MAX, KeyOrVersion, TAG_BYTES, bounded, mechanism, version_name,
};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ReEncrypt {
    source: KeyOrVersion,
    source_mechanism: Option<Mechanism>,
    iv: Vec<u8>,
    ciphertext: Vec<u8>,
    source_aad: Vec<u8>,
    destination: KeyOrVersion,
    destination_mechanism: Option<Mechanism>,
    destination_aad: Vec<u8>,
}

/// Both versions.
#[derive(Debug)]
pub(crate) struct Both {
    source: UseFacts,
    destination: UseFacts,
}

impl Operation for ReEncrypt {
    type Wire = v1::ReEncryptRequest;
    type Facts = Both;
    type Prepared = ();
    type Reply = v1::ReEncryptResponse;

    const ACTION: Action = Action::ReEncrypt;
    const JUDGED_ANEW_MAX: usize = USES_JUDGED_ANEW_MAX;

    fn parse(wire: v1::ReEncryptRequest, home: &Home) -> Result<Self, Refusal> {
        const SOURCE_AAD: &str = "source_additional_authenticated_data";
        const DESTINATION_AAD: &str = "destination_additional_authenticated_data";
        let v1::ReEncryptRequest {
            source,
            source_mechanism,
            initialization_vector,
            ciphertext,
            source_additional_authenticated_data,
            destination,
            destination_mechanism,
            destination_additional_authenticated_data,
        } = wire;
        Ok(Self {
            // As in Decrypt: the ciphertext belongs to the version that made it.
            source: KeyOrVersion::Version(version_name("source", &source, home)?),
            source_mechanism: mechanism("source_mechanism", source_mechanism)?,
            iv: bounded("initialization_vector", initialization_vector, IV_BYTES_MAX)?,
            ciphertext: bounded("ciphertext", ciphertext, DATA_BYTES_MAX + TAG_BYTES)?,
            source_aad: bounded(SOURCE_AAD, source_additional_authenticated_data, DATA_BYTES_MAX)?,
            destination: KeyOrVersion::parse(&destination, home)?,
            destination_mechanism: mechanism("destination_mechanism", destination_mechanism)?,
            destination_aad: bounded(
                DESTINATION_AAD,
                destination_additional_authenticated_data,
                DATA_BYTES_MAX,
            )?,
        })
    }

    fn named(&self) -> Resource {
        named(&self.source)
    }

    async fn load(&self, cx: &Context, _caller: &Caller, _stamp: &Stamp) -> Result<Both, Early> {
        let (source, by) = (&self.source, self.source_mechanism);
        let source = UseFacts::load(cx, source, Usage::Decrypt, by).await?;
        let (destination, by) = (&self.destination, self.destination_mechanism);
        let destination = UseFacts::load(cx, destination, Usage::Encrypt, by).await?;
        Ok(Both { source, destination })
    }

    fn resource(&self, both: &Both) -> Resource {
        both.source.resource()
    }

    fn subject<'a>(&self, both: &'a Both) -> Subject<'a> {
        both.source.subject(false)
    }

    fn other<'a>(&self, both: &'a Both) -> Option<Other<'a>> {
        Some(Other {
            action: Action::Encrypt,
            resource: both.destination.resource(),
            subject: both.destination.subject(false),
        })
    }

    fn unchanged(&self, both: &Both) -> Vec<Condition> {
        [both.source.unchanged(), both.destination.unchanged()].concat()
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        both: &Both,
    ) -> Result<((), Vec<Draft>), Early> {
        let source = both.source.drafts(cx, stamp)?;
        Ok(((), joined(source, both.destination.drafts(cx, stamp)?)))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        both: Both,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<v1::ReEncryptResponse, Failure> {
        let Both { source, mut destination } = both;
        destination.keep();
        let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
        let (from, to) = (source.found()?, destination.found()?);
        let (from_slot, to_slot) = (from.slot(cx).await?, to.slot(cx).await?);
        let (from_public, to_public) = (from.public_key(), to.public_key());
        let ciphertext = Ciphertext {
            mechanism: source.mechanism()?,
            iv: &self.iv,
            aad: &self.source_aad,
            ciphertext: &self.ciphertext,
        };
        let made = vault.re_encrypt(
            recorded,
            &stamp.request_digest,
            from.version_ref(&from_slot, &from_public),
            ciphertext,
            to.version_ref(&to_slot, &to_public),
            destination.mechanism()?,
            &self.destination_aad,
        )?;
        Ok(v1::ReEncryptResponse {
            destination: to.name(),
            initialization_vector: made.iv,
            ciphertext_crc32c: crc32c::crc32c(&made.ciphertext),
            ciphertext: made.ciphertext,
            audit: Some(audit),
        })
    }
}

impl Guarded for ReEncrypt {
    fn used<'a>(&self, both: &'a Both) -> &'a UseFacts {
        &both.source
    }

    fn settled(&self, both: &Both) -> Result<Settled, Early> {
        // Which version is the primary one may be another by the time that people have approved.
        let to = both.destination.found()?.version.value.header.version.clone();
        let to = Some((to, both.destination.mechanism()?));
        Ok(Settled { to, ..Settled::by(both.source.mechanism()?) })
    }
}
