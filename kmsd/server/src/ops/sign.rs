//! Sign: a signature over a message or its SHA-256 digest.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::provider::SignInput;
use kms_crypto::vault::Vault;
use kms_proto::v1;

use super::using::{KeyUse, Use};
use crate::wire::{DATA_BYTES_MAX, KeyOrVersion, bounded, check_crc, invalid};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct Sign {
    name: KeyOrVersion,
    data: Data,
}

/// What is signed, as the caller gave it.
#[derive(Debug)]
pub(crate) enum Data {
    Digest([u8; 32]),
    Message(Vec<u8>),
}

impl Data {
    /// Reads a SHA-256 digest that the caller made.
    pub(crate) fn digest(bytes: &[u8]) -> Result<Self, Refusal> {
        let digest = bytes.try_into().map_err(|_| invalid("sha256_digest", "expected 32 bytes"))?;
        Ok(Self::Digest(digest))
    }

    /// Reads a message.
    pub(crate) fn message(bytes: Vec<u8>) -> Result<Self, Refusal> {
        bounded("message", bytes, DATA_BYTES_MAX).map(Self::Message)
    }

    /// As the vault takes it.
    pub(crate) fn input(&self) -> SignInput<'_> {
        match self {
            Self::Digest(digest) => SignInput::Digest(digest),
            Self::Message(message) => SignInput::Message(message),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Digest(digest) => digest,
            Self::Message(message) => message,
        }
    }
}

impl Use for Sign {
    type Wire = v1::SignRequest;
    type Reply = v1::SignResponse;

    const ACTION: Action = Action::Sign;

    fn parse(wire: v1::SignRequest, home: &Home) -> Result<Self, Refusal> {
        use v1::sign_request::Data as Wire;
        let v1::SignRequest { name, data, data_crc32c } = wire;
        let data = match data {
            Some(Wire::Message(message)) => Data::message(message)?,
            Some(Wire::Sha256Digest(digest)) => Data::digest(&digest)?,
            None => return Err(invalid("data", "expected a message or its SHA-256 digest")),
        };
        check_crc("data_crc32c", data.bytes(), data_crc32c)?;
        Ok(Self { name: KeyOrVersion::parse(&name, home)?, data })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<v1::SignResponse, CryptoError> {
        let KeyUse { recorded, request_digest, version, version_name, audit } = key;
        let signature = vault.sign(recorded, request_digest, version, self.data.input())?;
        Ok(v1::SignResponse {
            name: version_name,
            signature_crc32c: crc32c::crc32c(&signature),
            signature,
            audit: Some(audit),
        })
    }
}
