//! GenerateDataKey: a key for the caller's own use, wrapped by a key of the appliance. In the clear it
//! leaves to nobody; who names a public key gets it sealed to that.

use kms_core::action::Action;
use kms_core::id::Home;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_core::service::Ingredients;
use kms_core::transcript::{Recipient, Suite};
use kms_crypto::CryptoError;
use kms_crypto::vault::Vault;
use kms_proto::v1;

use super::using::{KeyUse, Use};
use crate::wire::{DATA_BYTES_MAX, KeyOrVersion, bounded, invalid, mechanism as mechanism_asked};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct GenerateDataKey {
    name: KeyOrVersion,
    length_bytes: usize,
    aad: Vec<u8>,
    mechanism: Option<Mechanism>,
    recipient: Option<Recipient>,
}

impl Use for GenerateDataKey {
    type Wire = v1::GenerateDataKeyRequest;
    type Reply = v1::GenerateDataKeyResponse;

    const ACTION: Action = Action::GenerateDataKey;

    fn parse(wire: v1::GenerateDataKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::GenerateDataKeyRequest {
            name,
            length_bytes,
            additional_authenticated_data: aad,
            mechanism,
            recipient,
        } = wire;
        let length_bytes = match length_bytes {
            0 => LENGTH_BYTES,
            asked => usize::try_from(asked).unwrap_or(usize::MAX),
        };
        if !LENGTHS_BYTES.contains(&length_bytes) {
            return Err(invalid("length_bytes", format!("expected {LENGTHS_BYTES:?} bytes")));
        }
        Ok(Self {
            name: KeyOrVersion::parse(&name, home)?,
            length_bytes,
            aad: bounded("additional_authenticated_data", aad, DATA_BYTES_MAX)?,
            mechanism: mechanism_asked("mechanism", mechanism)?,
            recipient: recipient.map(read_recipient).transpose()?,
        })
    }

    fn name(&self) -> &KeyOrVersion {
        &self.name
    }

    fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    fn ingredients(&self) -> Ingredients {
        let suite = self.recipient.as_ref().map(Recipient::suite);
        Ingredients { algorithm: None, suite }
    }

    fn apply(
        self,
        vault: &Vault,
        key: KeyUse<'_>,
    ) -> Result<v1::GenerateDataKeyResponse, CryptoError> {
        let KeyUse { recorded, request_digest, version, mechanism, version_name, audit } = key;
        let made = vault.data_key(
            recorded,
            request_digest,
            version,
            mechanism,
            &self.aad,
            self.length_bytes,
            self.recipient.as_ref(),
        )?;
        Ok(v1::GenerateDataKeyResponse {
            name: version_name,
            initialization_vector: made.wrapped.iv,
            ciphertext: made.wrapped.ciphertext,
            sealed: made.plaintext.map(|sealed| v1::HpkeCiphertext {
                encapsulated_key: sealed.enc,
                ciphertext: sealed.ciphertext,
            }),
            audit: Some(audit),
        })
    }
}

fn read_recipient(wire: v1::HpkeRecipient) -> Result<Recipient, Refusal> {
    let v1::HpkeRecipient { suite, public_key } = wire;
    let suite = Suite::from_name(&suite)
        .ok_or_else(|| invalid("recipient", "expected one of the offered HPKE suites"))?;
    Recipient::new(suite, public_key).map_err(|error| invalid("recipient", error))
}

const LENGTH_BYTES: usize = 32;
const LENGTHS_BYTES: std::ops::RangeInclusive<usize> = 16..=64;
