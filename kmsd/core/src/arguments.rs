//! What a proposed use of a key is applied to: it stands in the document that people sign.
//!
//! Whoever may see the proposal reads it, so nothing secret belongs in it. What runs is made from it by
//! the same parser that reads a direct request.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::algorithm::{Algorithm, Usage};
use crate::id::{KeyName, VersionName};
use crate::key::{Pkcs11Attributes, ReleaseRequirement, Rotation};
use crate::mechanism::Mechanism;
use crate::quorum::QuorumPolicy;

/// The arguments of one use of a version. What the key would prefer is said, not left open.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "type")]
#[non_exhaustive]
pub enum UseArguments {
    /// Of [`Action::AgreeKey`].
    AgreeKey {
        /// `info` of the derivation.
        info: HexBytes,
        /// What the shared secret goes through; without it, its leading bytes are the key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kdf: Option<Mechanism>,
        /// What becomes of it.
        key: Box<NewKey>,
        /// With whom: SubjectPublicKeyInfo in DER.
        peer_public_key: HexBytes,
        /// Salt of the derivation.
        salt: HexBytes,
    },
    /// Of [`Action::DecapsulateKey`].
    DecapsulateKey {
        /// What tells the shared secret.
        ciphertext: HexBytes,
        /// What becomes of it.
        key: Box<NewKey>,
    },
    /// Of [`Action::Decrypt`].
    Decrypt {
        /// Authenticated with it.
        additional_authenticated_data: HexBytes,
        /// What is opened.
        ciphertext: HexBytes,
        /// As it came with the ciphertext.
        initialization_vector: HexBytes,
        /// How.
        mechanism: Mechanism,
    },
    /// Of [`Action::DeriveKey`].
    DeriveKey {
        /// Context of SP 800-108.
        context: HexBytes,
        /// `info` of HKDF, the label of SP 800-108.
        info: HexBytes,
        /// What becomes of it.
        key: Box<NewKey>,
        /// How.
        mechanism: Mechanism,
        /// Salt of HKDF.
        salt: HexBytes,
    },
    /// Of [`Action::MacSign`].
    MacSign {
        /// What is authenticated.
        data: HexBytes,
        /// How.
        mechanism: Mechanism,
    },
    /// Of [`Action::MacVerify`].
    MacVerify {
        /// What was authenticated.
        data: HexBytes,
        /// The code.
        mac: HexBytes,
        /// How.
        mechanism: Mechanism,
    },
    /// Of [`Action::ReEncrypt`].
    ReEncrypt {
        /// Authenticated with it so far.
        additional_authenticated_data: HexBytes,
        /// What is moved.
        ciphertext: HexBytes,
        /// The version that protects it from now on.
        destination: VersionName,
        /// Authenticated with it from now on.
        destination_additional_authenticated_data: HexBytes,
        /// How it is protected from now on.
        destination_mechanism: Mechanism,
        /// As it came with the ciphertext.
        initialization_vector: HexBytes,
        /// How it is opened.
        mechanism: Mechanism,
    },
    /// Of [`Action::Sign`].
    Sign {
        /// The context, for mechanisms that have one.
        context: HexBytes,
        /// What is signed.
        data: Signed,
        /// How.
        mechanism: Mechanism,
    },
    /// Of [`Action::UnwrapKey`].
    UnwrapKey {
        /// Authenticated with it.
        additional_authenticated_data: HexBytes,
        /// As it came with the wrapped key.
        initialization_vector: HexBytes,
        /// What becomes of it.
        key: Box<NewKey>,
        /// How.
        mechanism: Mechanism,
        /// What is opened.
        wrapped_key: HexBytes,
    },
    /// Of [`Action::Verify`].
    Verify {
        /// The context, for mechanisms that have one.
        context: HexBytes,
        /// What was signed.
        data: Signed,
        /// How.
        mechanism: Mechanism,
        /// The signature.
        signature: HexBytes,
    },
}

/// The key that a use makes, as it will be. What it inherits as a matter of course, its quorum and its
/// release requirement, is said only where it is asked for and the key that it is made out of has none.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What it is.
    pub algorithm: Algorithm,
    /// Whether each use of it has a leaf of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub audit_each_use: bool,
    /// The dataset that it protects; empty if none.
    pub dataset: String,
    /// Whether a quorum may hand it out.
    pub exportable: bool,
    /// The caller's own notes.
    pub labels: BTreeMap<String, String>,
    /// Its length, for secrets; 0 for key pairs.
    pub length_bytes: u32,
    /// How it may be used.
    pub mechanisms: BTreeSet<Mechanism>,
    /// The AI model that it protects; empty if none.
    pub model: String,
    /// Its name.
    pub name: KeyName,
    /// How PKCS#11 clients see it.
    pub pkcs11: Pkcs11Attributes,
    /// A quorum of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<QuorumPolicy>,
    /// A release requirement of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_requirement: Option<ReleaseRequirement>,
    /// When its next version is made without anybody asking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// What it may be used for.
    pub usages: BTreeSet<Usage>,
}

/// What is signed, as it is handed over.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Signed {
    /// The digest that the mechanism's hash function gives of it.
    Digest(HexBytes),
    /// The message itself.
    Message(HexBytes),
}

/// Bytes, as lower-case hexadecimal in a document.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HexBytes(pub Vec<u8>);

/// The text is not what bytes look like. The author's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected an even number of lower-case hexadecimal digits")]
pub struct NotHexadecimal;

impl From<HexBytes> for String {
    fn from(bytes: HexBytes) -> Self {
        hex::encode(bytes.0)
    }
}

impl TryFrom<String> for HexBytes {
    type Error = NotHexadecimal;

    fn try_from(text: String) -> Result<Self, NotHexadecimal> {
        let capital = text.bytes().any(|byte| byte.is_ascii_uppercase());
        hex::decode(&text).ok().filter(|_| !capital).map(Self).ok_or(NotHexadecimal)
    }
}

impl UseArguments {
    /// The use that they are for.
    pub const fn action(&self) -> Action {
        match self {
            Self::AgreeKey { .. } => Action::AgreeKey,
            Self::DecapsulateKey { .. } => Action::DecapsulateKey,
            Self::Decrypt { .. } => Action::Decrypt,
            Self::DeriveKey { .. } => Action::DeriveKey,
            Self::MacSign { .. } => Action::MacSign,
            Self::MacVerify { .. } => Action::MacVerify,
            Self::ReEncrypt { .. } => Action::ReEncrypt,
            Self::Sign { .. } => Action::Sign,
            Self::UnwrapKey { .. } => Action::UnwrapKey,
            Self::Verify { .. } => Action::Verify,
        }
    }

    /// What the use is applied to: ciphertext, wrapped key, public key, message or digest. A derivation is
    /// applied to nothing but the key.
    pub fn data(&self) -> Option<&[u8]> {
        let data = match self {
            Self::AgreeKey { peer_public_key, .. } => peer_public_key,
            Self::DecapsulateKey { ciphertext, .. }
            | Self::Decrypt { ciphertext, .. }
            | Self::ReEncrypt { ciphertext, .. } => ciphertext,
            Self::DeriveKey { .. } => return None,
            Self::MacSign { data, .. } | Self::MacVerify { data, .. } => data,
            Self::Sign { data, .. } | Self::Verify { data, .. } => data.bytes(),
            Self::UnwrapKey { wrapped_key, .. } => wrapped_key,
        };
        Some(&data.0)
    }
}

impl Signed {
    const fn bytes(&self) -> &HexBytes {
        match self {
            Self::Digest(bytes) | Self::Message(bytes) => bytes,
        }
    }
}

/// Most bytes of arguments in one proposal: what is longer is signed by its digest.
pub const ARGUMENT_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical;

    #[test]
    fn arguments_have_one_form_and_every_other_is_refused() {
        let text =
            r#"{"context":"","data":{"digest":"00ff"},"mechanism":"ECDSA_SHA256","type":"sign"}"#;
        let arguments: UseArguments = canonical::from_bytes(text.as_bytes()).unwrap();
        assert_eq!(arguments.action(), Action::Sign);
        assert_eq!(arguments.data(), Some(&[0, 255][..]));
        assert_eq!(canonical::to_bytes(&arguments).unwrap(), text.as_bytes());
        for (from, to) in [
            ("00ff", "00FF"),
            ("00ff", "00f"),
            ("00ff", "0x"),
            ("ECDSA_SHA256", "ROT13"),
            ("\"sign\"", "\"encrypt\""),
            ("\"sign\"", "\"verify\""),
            ("\"digest\"", "\"both\""),
            ("{\"context\"", "{\"also\":1,\"context\""),
        ] {
            let bad = text.replace(from, to);
            assert_ne!(bad, text);
            assert!(canonical::from_bytes::<UseArguments>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_key_that_is_made_stands_in_the_document_with_all_that_it_is() {
        let text = concat!(
            r#"{"context":"","info":"01","key":{"algorithm":"AES_256","dataset":"","exportable":false,"#,
            r#""labels":{},"length_bytes":32,"mechanisms":["AES_GCM"],"model":"","name":"#,
            r#""tenants/default/locations/local/keyRings/r/keys/k","pkcs11":{"id":"","label":"k"},"#,
            r#""usages":["DECRYPT","ENCRYPT"]},"mechanism":"HKDF_SHA256","salt":"","type":"derive-key"}"#
        );
        let arguments: UseArguments = canonical::from_bytes(text.as_bytes()).unwrap();
        assert_eq!((arguments.action(), arguments.data()), (Action::DeriveKey, None));
        assert_eq!(canonical::to_bytes(&arguments).unwrap(), text.as_bytes());
        for (from, to) in [
            (r#""labels":{},"#, ""),
            (r#""exportable":false,"#, r#""exportable":false,"extra":1,"#),
            ("AES_256", "AES_1"),
            ("keyRings/r/", ""),
            ("derive-key", "agree-key"),
        ] {
            let bad = text.replace(from, to);
            assert_ne!(bad, text);
            assert!(canonical::from_bytes::<UseArguments>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
