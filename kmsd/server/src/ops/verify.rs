//! Verify: whether a signature is this key's over a message or digest.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::vault::Vault;
use kms_proto::v1;

use super::sign::Data;
use super::using::{KeyUse, Use};
use crate::wire::{KeyOrVersion, bounded, invalid};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct Verify {
    name: KeyOrVersion,
    data: Data,
    signature: Vec<u8>,
}

impl Use for Verify {
    type Wire = v1::VerifyRequest;
    type Reply = v1::VerifyResponse;

    const ACTION: Action = Action::Verify;

    fn parse(wire: v1::VerifyRequest, home: &Home) -> Result<Self, Refusal> {
        use v1::verify_request::Data as Wire;
        let v1::VerifyRequest { name, data, signature } = wire;
        let data = match data {
            Some(Wire::Message(message)) => Data::message(message)?,
            Some(Wire::Sha256Digest(digest)) => Data::digest(&digest)?,
            None => return Err(invalid("data", "expected a message or its SHA-256 digest")),
        };
        let signature = bounded("signature", signature, SIGNATURE_BYTES_MAX)?;
        Ok(Self { name: KeyOrVersion::parse(&name, home)?, data, signature })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<v1::VerifyResponse, CryptoError> {
        let KeyUse { recorded, request_digest, version, version_name: _, audit } = key;
        let input = self.data.input();
        let valid = vault.verify(recorded, request_digest, version, input, &self.signature)?;
        Ok(v1::VerifyResponse { valid, audit: Some(audit) })
    }
}

const SIGNATURE_BYTES_MAX: usize = 1024;
