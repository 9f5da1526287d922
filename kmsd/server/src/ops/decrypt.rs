//! Decrypt: opens what Encrypt made; nothing is given out before the tag is checked.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::vault::Vault;
use kms_proto::v1;

use super::using::{KeyUse, Use};
use crate::wire::{
    DATA_BYTES_MAX, IV_BYTES_MAX, KeyOrVersion, TAG_BYTES, bounded, check_crc, check_iv,
    mechanism as mechanism_asked, version_name,
};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct Decrypt {
    name: KeyOrVersion,
    iv: Vec<u8>,
    ciphertext: Vec<u8>,
    aad: Vec<u8>,
    mechanism: Option<Mechanism>,
}

impl Use for Decrypt {
    type Wire = v1::DecryptRequest;
    type Reply = v1::DecryptResponse;

    const ACTION: Action = Action::Decrypt;

    fn parse(wire: v1::DecryptRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::DecryptRequest {
            name,
            initialization_vector: iv,
            ciphertext,
            additional_authenticated_data: aad,
            ciphertext_crc32c,
            mechanism,
        } = wire;
        check_crc("ciphertext_crc32c", &ciphertext, ciphertext_crc32c)?;
        Ok(Self {
            // Not a key's primary version: the ciphertext belongs to the version that made it.
            name: KeyOrVersion::Version(version_name("name", &name, home)?),
            iv: bounded("initialization_vector", iv, IV_BYTES_MAX)?,
            ciphertext: bounded("ciphertext", ciphertext, DATA_BYTES_MAX + TAG_BYTES)?,
            aad: bounded("additional_authenticated_data", aad, DATA_BYTES_MAX)?,
            mechanism: mechanism_asked("mechanism", mechanism)?,
        })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    fn fits(&self, mechanism: Mechanism) -> Result<(), Refusal> {
        check_iv(mechanism, &self.iv)
    }

    fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<v1::DecryptResponse, CryptoError> {
        let KeyUse { recorded, request_digest, version, mechanism, version_name: _, audit } = key;
        let Self { name: _, iv, ciphertext, aad, mechanism: _ } = self;
        let plaintext =
            vault.decrypt(recorded, request_digest, version, mechanism, &iv, &aad, &ciphertext)?;
        Ok(v1::DecryptResponse {
            plaintext_crc32c: crc32c::crc32c(&plaintext),
            plaintext,
            audit: Some(audit),
        })
    }
}
