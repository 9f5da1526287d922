//! MacVerify: whether a message authentication code is this key's; compared in constant time.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::vault::Vault;
use kms_proto::v1;
use zeroize::Zeroizing;

use super::using::{KeyUse, Use};
use crate::wire::{DATA_BYTES_MAX, KeyOrVersion, bounded, invalid};

/// The parsed request.
pub(crate) struct MacVerify {
    name: KeyOrVersion,
    data: Zeroizing<Vec<u8>>,
    mac: [u8; 32],
}

impl Use for MacVerify {
    type Wire = v1::MacVerifyRequest;
    type Reply = v1::MacVerifyResponse;

    const ACTION: Action = Action::MacVerify;

    fn parse(wire: v1::MacVerifyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::MacVerifyRequest { name, data, mac } = wire;
        let mac = mac.as_slice().try_into();
        let mac = mac.map_err(|_| invalid("mac", "expected 32 bytes"))?;
        let data = Zeroizing::new(bounded("data", data, DATA_BYTES_MAX)?);
        Ok(Self { name: KeyOrVersion::parse(&name, home)?, data, mac })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<v1::MacVerifyResponse, CryptoError> {
        let KeyUse { recorded, request_digest, version, version_name: _, audit } = key;
        let valid = vault.mac_verify(recorded, request_digest, version, &self.data, &self.mac)?;
        Ok(v1::MacVerifyResponse { valid, audit: Some(audit) })
    }
}
