//! Encrypt: protects data. Who makes the IV is the business of ring and mechanism.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::vault::Vault;
use kms_proto::v1;
use zeroize::Zeroizing;

use super::using::{KeyUse, Use};
use crate::wire::{
    DATA_BYTES_MAX, IV_BYTES_MAX, KeyOrVersion, bounded, check_crc, check_iv,
    mechanism as mechanism_asked, mechanism_out,
};

/// The parsed request.
pub(crate) struct Encrypt {
    name: KeyOrVersion,
    plaintext: Zeroizing<Vec<u8>>,
    aad: Vec<u8>,
    iv: Option<Vec<u8>>,
    mechanism: Option<Mechanism>,
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
            mechanism,
            initialization_vector: iv,
        } = wire;
        check_crc("plaintext_crc32c", &plaintext, plaintext_crc32c)?;
        Ok(Self {
            name: KeyOrVersion::parse(&name, home)?,
            plaintext: Zeroizing::new(bounded("plaintext", plaintext, DATA_BYTES_MAX)?),
            aad: bounded("additional_authenticated_data", aad, DATA_BYTES_MAX)?,
            iv: Some(bounded("initialization_vector", iv, IV_BYTES_MAX)?)
                .filter(|iv| !iv.is_empty()),
            mechanism: mechanism_asked("mechanism", mechanism)?,
        })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    fn callers_iv(&self) -> bool {
        self.iv.is_some()
    }

    fn fits(&self, mechanism: Mechanism) -> Result<(), Refusal> {
        self.iv.as_deref().map_or(Ok(()), |iv| check_iv(mechanism, iv))
    }

    fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<v1::EncryptResponse, CryptoError> {
        let KeyUse { recorded, request_digest, version, mechanism, version_name, audit } = key;
        let (iv, aad) = (self.iv.as_deref(), &self.aad);
        let made = vault.encrypt(
            recorded,
            request_digest,
            version,
            mechanism,
            iv,
            aad,
            &self.plaintext,
        )?;
        Ok(v1::EncryptResponse {
            name: version_name,
            initialization_vector: made.iv,
            ciphertext_crc32c: crc32c::crc32c(&made.ciphertext),
            ciphertext: made.ciphertext,
            audit: Some(audit),
            mechanism: mechanism_out(mechanism),
        })
    }
}
