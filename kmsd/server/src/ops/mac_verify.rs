//! MacVerify: whether a message authentication code is this key's; compared in constant time.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::mechanism::mac;
use kms_crypto::vault::Vault;
use kms_proto::v1;
use zeroize::Zeroizing;

use super::using::{KeyUse, Use};
use crate::wire::{DATA_BYTES_MAX, KeyOrVersion, bounded, invalid, mechanism as mechanism_asked};

/// The parsed request.
pub(crate) struct MacVerify {
    name: KeyOrVersion,
    data: Zeroizing<Vec<u8>>,
    mac: Vec<u8>,
    mechanism: Option<Mechanism>,
}

impl Use for MacVerify {
    type Wire = v1::MacVerifyRequest;
    type Reply = v1::MacVerifyResponse;

    const ACTION: Action = Action::MacVerify;

    fn parse(wire: v1::MacVerifyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::MacVerifyRequest { name, data, mac, mechanism } = wire;
        let mechanism = mechanism_asked("mechanism", mechanism)?;
        let mac = bounded("mac", mac, MAC_BYTES_MAX)?;
        let data = Zeroizing::new(bounded("data", data, DATA_BYTES_MAX)?);
        Ok(Self { name: KeyOrVersion::parse(&name, home)?, data, mac, mechanism })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    fn fits(&self, mechanism: Mechanism) -> Result<(), Refusal> {
        match mac::tag_bytes(mechanism) {
            Some(length) if length != self.mac.len() => {
                Err(invalid("mac", format!("expected the whole tag, {length} bytes")))
            }
            _ => Ok(()),
        }
    }

    fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<v1::MacVerifyResponse, CryptoError> {
        let KeyUse { recorded, request_digest, version, mechanism, version_name: _, audit } = key;
        let (data, mac) = (&self.data, &self.mac);
        let valid = vault.mac_verify(recorded, request_digest, version, mechanism, data, mac)?;
        Ok(v1::MacVerifyResponse { valid, audit: Some(audit) })
    }
}

/// The longest tag, that of HMAC with SHA-512.
const MAC_BYTES_MAX: usize = 64;
