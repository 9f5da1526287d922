//! EncapsulateKey: makes a new key, and the ciphertext that tells it to the owner of a public key.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::key::Origin;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::vault::{Generated, Vault};
use kms_proto::v1;

use super::making::{MadeKey, Make, Making};
use crate::wire::KeyOrVersion;

/// The parsed request.
#[derive(Debug)]
pub(crate) struct EncapsulateKey {
    name: KeyOrVersion,
}

impl Make for EncapsulateKey {
    type Wire = v1::EncapsulateKeyRequest;
    type Told = Vec<u8>;
    type Reply = v1::EncapsulateKeyResponse;

    const ACTION: Action = Action::EncapsulateKey;
    const ORIGIN: Origin = Origin::Derived;
    const KNOWN_OUTSIDE: bool = true;

    fn new_key(wire: &mut v1::EncapsulateKeyRequest) -> Option<v1::Key> {
        wire.key.take()
    }

    fn request_id(wire: &v1::EncapsulateKeyRequest) -> &[u8] {
        &wire.request_id
    }

    fn parse(wire: v1::EncapsulateKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::EncapsulateKeyRequest { name, key: _, request_id: _ } = wire;
        Ok(Self { name: KeyOrVersion::parse(&name, home)? })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn mechanism(&self) -> Option<Mechanism> {
        None
    }

    fn make(self, vault: &Vault, make: Making<'_>) -> Result<(Vec<u8>, Generated), CryptoError> {
        let Making { recorded, request_digest, version, mechanism: _, new } = make;
        vault.encapsulate(recorded, request_digest, version, new)
    }

    fn reply(ciphertext: Vec<u8>, made: MadeKey) -> v1::EncapsulateKeyResponse {
        let MadeKey { key, version, audit } = made;
        v1::EncapsulateKeyResponse { ciphertext, key, version, audit }
    }

    /// The ciphertext is told once and not kept.
    fn reply_again(_made: MadeKey) -> Option<v1::EncapsulateKeyResponse> {
        None
    }
}
