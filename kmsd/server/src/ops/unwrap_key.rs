//! UnwrapKey: takes in a key that a wrapping key of the appliance protected.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::key::Origin;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_crypto::CryptoError;
use kms_crypto::vault::{Generated, Vault};
use kms_proto::v1;

use super::making::{MadeKey, Make, Making};
use crate::wire::{
    DATA_BYTES_MAX, IV_BYTES_MAX, KeyOrVersion, TAG_BYTES, bounded, mechanism, version_name,
};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct UnwrapKey {
    name: KeyOrVersion,
    mechanism: Option<Mechanism>,
    iv: Vec<u8>,
    aad: Vec<u8>,
    wrapped: Vec<u8>,
}

impl Make for UnwrapKey {
    type Wire = v1::UnwrapKeyRequest;
    type Told = ();
    type Reply = v1::UnwrapKeyResponse;

    const ACTION: Action = Action::UnwrapKey;
    const ORIGIN: Origin = Origin::Unwrapped;
    const KNOWN_OUTSIDE: bool = true;

    fn new_key(wire: &mut v1::UnwrapKeyRequest) -> Option<v1::Key> {
        wire.key.take()
    }

    fn request_id(wire: &v1::UnwrapKeyRequest) -> &[u8] {
        &wire.request_id
    }

    fn parse(wire: v1::UnwrapKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::UnwrapKeyRequest {
            name,
            mechanism: asked,
            initialization_vector: iv,
            additional_authenticated_data: aad,
            wrapped_key,
            key: _,
            request_id: _,
        } = wire;
        Ok(Self {
            // As in Decrypt: what was wrapped belongs to the version that wrapped it.
            name: KeyOrVersion::Version(version_name("name", &name, home)?),
            mechanism: mechanism("mechanism", asked)?,
            iv: bounded("initialization_vector", iv, IV_BYTES_MAX)?,
            aad: bounded("additional_authenticated_data", aad, DATA_BYTES_MAX)?,
            wrapped: bounded("wrapped_key", wrapped_key, WRAPPED_BYTES_MAX)?,
        })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    fn length_bytes(&self, mechanism: Mechanism) -> Option<usize> {
        match mechanism {
            Mechanism::AesGcm => self.wrapped.len().checked_sub(TAG_BYTES),
            Mechanism::AesKw => self.wrapped.len().checked_sub(KW_BYTES),
            // The padding hides it; the caller says.
            _ => None,
        }
    }

    fn make(self, vault: &Vault, make: Making<'_>) -> Result<((), Generated), CryptoError> {
        let Making { recorded, request_digest, version, mechanism, new } = make;
        let Self { iv, aad, wrapped, .. } = self;
        let made =
            vault.unwrap(recorded, request_digest, version, mechanism, &iv, &aad, &wrapped, new)?;
        Ok(((), made))
    }

    fn reply((): (), made: MadeKey) -> v1::UnwrapKeyResponse {
        let MadeKey { key, version, audit } = made;
        v1::UnwrapKeyResponse { key, version, audit }
    }

    fn reply_again(made: MadeKey) -> Option<v1::UnwrapKeyResponse> {
        Some(Self::reply((), made))
    }
}

/// What AES-KW adds (RFC 3394 §2.2.1).
const KW_BYTES: usize = 8;
/// An RSA key of 4,096 bits in PKCS#8, wrapped, takes about 2,400 bytes.
const WRAPPED_BYTES_MAX: usize = 8 * 1024;
