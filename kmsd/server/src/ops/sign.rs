//! Sign: a signature over a message or its digest.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::provider::SignInput;
use kms_crypto::vault::Vault;
use kms_proto::v1;

use super::using::{KeyUse, Use};
use crate::wire::{
    DATA_BYTES_MAX, KeyOrVersion, bounded, check_crc, invalid, mechanism as mechanism_asked,
    mechanism_out,
};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct Sign {
    name: KeyOrVersion,
    data: Data,
    mechanism: Option<Mechanism>,
    context: Vec<u8>,
}

/// What is signed, as the caller gave it.
#[derive(Debug)]
pub(crate) enum Data {
    Digest(Vec<u8>),
    Message(Vec<u8>),
}

impl Data {
    /// Reads a digest that the caller made. Its length is the mechanism's business.
    pub(crate) fn digest(bytes: Vec<u8>) -> Result<Self, Refusal> {
        bounded("digest", bytes, DIGEST_BYTES_MAX).map(Self::Digest)
    }

    /// Reads a message.
    pub(crate) fn message(bytes: Vec<u8>) -> Result<Self, Refusal> {
        bounded("message", bytes, DATA_BYTES_MAX).map(Self::Message)
    }

    /// Whether it is something that `mechanism` signs.
    ///
    /// # Errors
    /// [`Refusal::InvalidArgument`] for a digest of another length than the mechanism's hash function
    /// gives, or where only messages are signed.
    pub(crate) fn fits(&self, mechanism: Mechanism) -> Result<(), Refusal> {
        let Self::Digest(digest) = self else { return Ok(()) };
        match mechanism.hash() {
            Some(hash) if hash.digest_bytes() == digest.len() => Ok(()),
            Some(hash) => Err(invalid("digest", format!("expected {} bytes", hash.digest_bytes()))),
            None => Err(invalid("digest", format!("{mechanism} takes messages only"))),
        }
    }

    /// As the vault takes it.
    pub(crate) fn input(&self) -> SignInput<'_> {
        match self {
            Self::Digest(digest) => SignInput::Digest(digest),
            Self::Message(message) => SignInput::Message(message),
        }
    }

    /// The bytes themselves, for their CRC32C.
    pub(crate) fn bytes(&self) -> &[u8] {
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
        let v1::SignRequest { name, data, data_crc32c, mechanism, context } = wire;
        let data = match data {
            Some(Wire::Message(message)) => Data::message(message)?,
            Some(Wire::Digest(digest)) => Data::digest(digest)?,
            None => return Err(invalid("data", "expected a message or its digest")),
        };
        check_crc("data_crc32c", data.bytes(), data_crc32c)?;
        Ok(Self {
            name: KeyOrVersion::parse(&name, home)?,
            data,
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

    fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<v1::SignResponse, CryptoError> {
        let KeyUse { recorded, request_digest, version, mechanism, version_name, audit } = key;
        let input = self.data.input();
        let signature =
            vault.sign(recorded, request_digest, version, mechanism, input, &self.context)?;
        Ok(v1::SignResponse {
            name: version_name,
            signature_crc32c: crc32c::crc32c(&signature),
            signature,
            audit: Some(audit),
            mechanism: mechanism_out(mechanism),
        })
    }
}

/// Longest digest that is taken.
const DIGEST_BYTES_MAX: usize = 64;
/// Longest context of a signature (FIPS 204 §5.2, FIPS 205 §10.2).
pub(crate) const CONTEXT_BYTES_MAX: usize = 255;
