//! Encrypt: AES-256-GCM with an IV made here.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::vault::Vault;
use kms_proto::v1;
use zeroize::Zeroizing;

use super::using::{KeyUse, Use};
use crate::wire::{DATA_BYTES_MAX, KeyOrVersion, bounded, check_crc};

/// The parsed request.
pub(crate) struct Encrypt {
    name: KeyOrVersion,
    plaintext: Zeroizing<Vec<u8>>,
    aad: Vec<u8>,
}

impl Use for Encrypt {
    type Wire = v1::EncryptRequest;
    type Reply = v1::EncryptResponse;

    const ACTION: Action = Action::Encrypt;

    fn parse(wire: v1::EncryptRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::EncryptRequest {
            name,
            plaintext,
            additional_authenticated_data: aad,
            plaintext_crc32c,
        } = wire;
        check_crc("plaintext_crc32c", &plaintext, plaintext_crc32c)?;
        Ok(Self {
            name: KeyOrVersion::parse(&name, home)?,
            plaintext: Zeroizing::new(bounded("plaintext", plaintext, DATA_BYTES_MAX)?),
            aad: bounded("additional_authenticated_data", aad, DATA_BYTES_MAX)?,
        })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<v1::EncryptResponse, CryptoError> {
        let KeyUse { recorded, request_digest, version, version_name, audit } = key;
        let made = vault.encrypt(recorded, request_digest, version, &self.plaintext, &self.aad)?;
        Ok(v1::EncryptResponse {
            name: version_name,
            initialization_vector: made.iv.to_vec(),
            ciphertext_crc32c: crc32c::crc32c(&made.ciphertext),
            ciphertext: made.ciphertext,
            audit: Some(audit),
        })
    }
}
