//! DecapsulateKey: makes the key that EncapsulateKey told.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::key::Origin;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::vault::{Generated, Vault};
use kms_proto::v1;

use super::making::{MadeKey, Make, Making};
use crate::wire::{KeyOrVersion, bounded, version_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct DecapsulateKey {
    name: KeyOrVersion,
    ciphertext: Vec<u8>,
}

impl Make for DecapsulateKey {
    type Wire = v1::DecapsulateKeyRequest;
    type Told = ();
    type Reply = v1::DecapsulateKeyResponse;

    const ACTION: Action = Action::DecapsulateKey;
    const ORIGIN: Origin = Origin::Derived;
    const KNOWN_OUTSIDE: bool = true;

    fn new_key(wire: &mut v1::DecapsulateKeyRequest) -> Option<v1::Key> {
        wire.key.take()
    }

    fn request_id(wire: &v1::DecapsulateKeyRequest) -> &[u8] {
        &wire.request_id
    }

    fn parse(wire: v1::DecapsulateKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::DecapsulateKeyRequest { name, ciphertext, key: _, request_id: _ } = wire;
        Ok(Self {
            name: KeyOrVersion::Version(version_name("name", &name, home)?),
            ciphertext: bounded("ciphertext", ciphertext, CIPHERTEXT_BYTES_MAX)?,
        })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn mechanism(&self) -> Option<Mechanism> {
        None
    }

    fn make(self, vault: &Vault, make: Making<'_>) -> Result<((), Generated), CryptoError> {
        let Making { recorded, request_digest, version, mechanism: _, new } = make;
        let ciphertext = &self.ciphertext;
        Ok(((), vault.decapsulate(recorded, request_digest, version, ciphertext, new)?))
    }

    fn reply((): (), made: MadeKey) -> v1::DecapsulateKeyResponse {
        let MadeKey { key, version, audit } = made;
        v1::DecapsulateKeyResponse { key, version, audit }
    }

    fn reply_again(made: MadeKey) -> Option<v1::DecapsulateKeyResponse> {
        Some(Self::reply((), made))
    }
}

/// Longer than any: ML-KEM-1024 has 1,568 bytes.
const CIPHERTEXT_BYTES_MAX: usize = 2048;
