//! AgreeKey: agrees on a new key with the owner of a public key.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::key::Origin;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::provider::DeriveParameters;
use kms_crypto::vault::{Generated, Vault};
use kms_proto::v1;

use super::making::{MadeKey, Make, Making};
use crate::wire::{KDF_BYTES_MAX, KeyOrVersion, bounded, derivation, invalid, mechanism};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct AgreeKey {
    name: KeyOrVersion,
    peer_public_key: Vec<u8>,
    kdf: Option<Mechanism>,
    salt: Vec<u8>,
    info: Vec<u8>,
}

impl Make for AgreeKey {
    type Wire = v1::AgreeKeyRequest;
    type Told = ();
    type Reply = v1::AgreeKeyResponse;

    const ACTION: Action = Action::AgreeKey;
    const ORIGIN: Origin = Origin::Derived;
    const KNOWN_OUTSIDE: bool = true;

    fn new_key(wire: &mut v1::AgreeKeyRequest) -> Option<v1::Key> {
        wire.key.take()
    }

    fn request_id(wire: &v1::AgreeKeyRequest) -> &[u8] {
        &wire.request_id
    }

    fn parse(wire: v1::AgreeKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::AgreeKeyRequest { name, peer_public_key, kdf, salt, info, key: _, request_id: _ } =
            wire;
        let kdf = mechanism("kdf", kdf)?.map(|kdf| derivation("kdf", kdf)).transpose()?;
        if kdf.is_none() && !(salt.is_empty() && info.is_empty()) {
            return Err(invalid("kdf", "salt and info are those of a kdf, and none is named"));
        }
        Ok(Self {
            name: KeyOrVersion::parse(&name, home)?,
            peer_public_key: bounded("peer_public_key", peer_public_key, PUBLIC_KEY_BYTES_MAX)?,
            kdf,
            salt: bounded("salt", salt, KDF_BYTES_MAX)?,
            info: bounded("info", info, KDF_BYTES_MAX)?,
        })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn mechanism(&self) -> Option<Mechanism> {
        Some(Mechanism::Ecdh)
    }

    fn make(self, vault: &Vault, make: Making<'_>) -> Result<((), Generated), CryptoError> {
        let Making { recorded, request_digest, version, mechanism: _, new } = make;
        let parameters = DeriveParameters { salt: &self.salt, info: &self.info };
        let kdf = self.kdf.map(|kdf| (kdf, parameters));
        let peer = &self.peer_public_key;
        Ok(((), vault.agree(recorded, request_digest, version, peer, kdf, new)?))
    }

    fn reply((): (), made: MadeKey) -> v1::AgreeKeyResponse {
        let MadeKey { key, version, audit } = made;
        v1::AgreeKeyResponse { key, version, audit }
    }

    fn reply_again(made: MadeKey) -> Option<v1::AgreeKeyResponse> {
        Some(Self::reply((), made))
    }
}

/// Longer than any SubjectPublicKeyInfo of a curve.
const PUBLIC_KEY_BYTES_MAX: usize = 512;
