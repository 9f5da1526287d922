//! MacSign: a message authentication code.

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
    DATA_BYTES_MAX, KeyOrVersion, bounded, mechanism as mechanism_asked, mechanism_out,
};

/// The parsed request.
pub(crate) struct MacSign {
    name: KeyOrVersion,
    data: Zeroizing<Vec<u8>>,
    mechanism: Option<Mechanism>,
}

impl Use for MacSign {
    type Wire = v1::MacSignRequest;
    type Reply = v1::MacSignResponse;

    const ACTION: Action = Action::MacSign;

    fn parse(wire: v1::MacSignRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::MacSignRequest { name, data, mechanism } = wire;
        let mechanism = mechanism_asked("mechanism", mechanism)?;
        let data = Zeroizing::new(bounded("data", data, DATA_BYTES_MAX)?);
        Ok(Self { name: KeyOrVersion::parse(&name, home)?, data, mechanism })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<v1::MacSignResponse, CryptoError> {
        let KeyUse { recorded, request_digest, version, mechanism, version_name, audit } = key;
        let mac = vault.mac_sign(recorded, request_digest, version, mechanism, &self.data)?;
        let (audit, mechanism) = (Some(audit), mechanism_out(mechanism));
        Ok(v1::MacSignResponse { name: version_name, mac, audit, mechanism })
    }
}
