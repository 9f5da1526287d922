//! DeriveKey: makes a new key out of one, by HKDF (RFC 5869) or SP 800-108 in counter mode.

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
pub(crate) struct DeriveKey {
    name: KeyOrVersion,
    mechanism: Option<Mechanism>,
    salt: Vec<u8>,
    info: Vec<u8>,
    context: Vec<u8>,
}

impl Make for DeriveKey {
    type Wire = v1::DeriveKeyRequest;
    type Told = ();
    type Reply = v1::DeriveKeyResponse;

    const ACTION: Action = Action::DeriveKey;
    const ORIGIN: Origin = Origin::Derived;
    const KNOWN_OUTSIDE: bool = false;

    fn new_key(wire: &mut v1::DeriveKeyRequest) -> Option<v1::Key> {
        wire.key.take()
    }

    fn request_id(wire: &v1::DeriveKeyRequest) -> &[u8] {
        &wire.request_id
    }

    fn parse(wire: v1::DeriveKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::DeriveKeyRequest {
            name,
            mechanism: asked,
            salt,
            info,
            context,
            key: _,
            request_id: _,
        } = wire;
        Ok(Self {
            name: KeyOrVersion::parse(&name, home)?,
            mechanism: mechanism("mechanism", asked)?
                .map(|asked| derivation("mechanism", asked))
                .transpose()?,
            salt: bounded("salt", salt, KDF_BYTES_MAX)?,
            info: bounded("info", info, KDF_BYTES_MAX)?,
            context: bounded("context", context, KDF_BYTES_MAX)?,
        })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    fn fits(&self, mechanism: Mechanism) -> Result<(), Refusal> {
        match is_counter(mechanism) {
            true if !self.salt.is_empty() => {
                let problem = "KDF_COUNTER mechanisms take no salt; use info and context";
                Err(invalid("salt", problem))
            }
            false if !self.context.is_empty() => {
                Err(invalid("context", "HKDF mechanisms take no context; use salt and info"))
            }
            _ => Ok(()),
        }
    }

    fn make(self, vault: &Vault, make: Making<'_>) -> Result<((), Generated), CryptoError> {
        let Making { recorded, request_digest, version, mechanism, new } = make;
        let fixed;
        let info = if is_counter(mechanism) {
            fixed = fixed_input(&self.info, &self.context, new.header.length_bytes);
            &fixed
        } else {
            &self.info
        };
        let parameters = DeriveParameters { salt: &self.salt, info };
        let made = vault.derive(recorded, request_digest, version, mechanism, parameters, new)?;
        Ok(((), made))
    }

    fn reply((): (), made: MadeKey) -> v1::DeriveKeyResponse {
        let MadeKey { key, version, audit } = made;
        v1::DeriveKeyResponse { key, version, audit }
    }

    fn reply_again(made: MadeKey) -> Option<v1::DeriveKeyResponse> {
        Some(Self::reply((), made))
    }
}

const fn is_counter(mechanism: Mechanism) -> bool {
    matches!(
        mechanism,
        Mechanism::KdfCounterHmacSha256
            | Mechanism::KdfCounterHmacSha384
            | Mechanism::KdfCounterHmacSha512
    )
}

/// Label, zero byte, context and length in bits (SP 800-108r1 §4, "fixed input data").
fn fixed_input(label: &[u8], context: &[u8], length_bytes: u32) -> Vec<u8> {
    let bits = length_bytes.saturating_mul(8).to_be_bytes();
    [label, &[0], context, &bits].concat()
}
