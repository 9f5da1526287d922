//! CopyKey: gives a key's material another name. The copy may do less than its original, never more.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::key::Origin;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::vault::{Generated, Vault};
use kms_proto::v1;

use super::making::{MadeKey, Make, Making};
use crate::wire::{KeyOrVersion, version_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CopyKey {
    name: KeyOrVersion,
}

impl Make for CopyKey {
    type Wire = v1::CopyKeyRequest;
    type Told = ();
    type Reply = v1::CopyKeyResponse;

    const ACTION: Action = Action::CopyKey;
    const ORIGIN: Origin = Origin::Copied;
    const KNOWN_OUTSIDE: bool = false;

    fn new_key(wire: &mut v1::CopyKeyRequest) -> Option<v1::Key> {
        wire.key.take()
    }

    fn request_id(wire: &v1::CopyKeyRequest) -> &[u8] {
        &wire.request_id
    }

    fn parse(wire: v1::CopyKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::CopyKeyRequest { name, key: _, request_id: _ } = wire;
        Ok(Self { name: KeyOrVersion::Version(version_name("name", &name, home)?) })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn mechanism(&self) -> Option<Mechanism> {
        None
    }

    fn make(self, vault: &Vault, make: Making<'_>) -> Result<((), Generated), CryptoError> {
        let Making { recorded, request_digest, version, mechanism: _, new } = make;
        Ok(((), vault.copy(recorded, request_digest, version, new)?))
    }

    fn reply((): (), made: MadeKey) -> v1::CopyKeyResponse {
        let MadeKey { key, version, audit } = made;
        v1::CopyKeyResponse { key, version, audit }
    }

    fn reply_again(made: MadeKey) -> Option<v1::CopyKeyResponse> {
        Some(Self::reply((), made))
    }
}
