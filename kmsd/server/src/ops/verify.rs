//! Verify: whether a signature is this key's over a message or digest.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::vault::Vault;
use kms_proto::v1;

use super::sign::{CONTEXT_BYTES_MAX, Data};
use super::using::{KeyUse, Use};
use crate::wire::{KeyOrVersion, bounded, check_crc, invalid, mechanism as mechanism_asked};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct Verify {
    name: KeyOrVersion,
    data: Data,
    signature: Vec<u8>,
    mechanism: Option<Mechanism>,
    context: Vec<u8>,
}

impl Use for Verify {
    type Wire = v1::VerifyRequest;
    type Reply = v1::VerifyResponse;

    const ACTION: Action = Action::Verify;

    fn parse(wire: v1::VerifyRequest, home: &Home) -> Result<Self, Refusal> {
        use v1::verify_request::Data as Wire;
        let v1::VerifyRequest { name, data, signature, data_crc32c, mechanism, context } = wire;
        let data = match data {
            Some(Wire::Message(message)) => Data::message(message)?,
            Some(Wire::Digest(digest)) => Data::digest(digest)?,
            None => return Err(invalid("data", "expected a message or its digest")),
        };
        check_crc("data_crc32c", data.bytes(), data_crc32c)?;
        let signature = bounded("signature", signature, SIGNATURE_BYTES_MAX)?;
        Ok(Self {
            name: KeyOrVersion::parse(&name, home)?,
            data,
            signature,
            mechanism: mechanism_asked("mechanism", mechanism)?,
            context: bounded("context", context, CONTEXT_BYTES_MAX)?,
        })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    fn fits(&self, mechanism: Mechanism) -> Result<(), Refusal> {
        self.data.fits(mechanism)
    }

    fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<v1::VerifyResponse, CryptoError> {
        let KeyUse { recorded, request_digest, version, mechanism, version_name: _, audit } = key;
        let (input, context) = (self.data.input(), &self.context);
        let valid = vault.verify(
            recorded,
            request_digest,
            version,
            mechanism,
            input,
            context,
            &self.signature,
        )?;
        Ok(v1::VerifyResponse { valid, audit: Some(audit) })
    }
}

/// Longer than any signature: SLH-DSA-SHA2-128s makes 7,856 bytes.
const SIGNATURE_BYTES_MAX: usize = 8 * 1024;
