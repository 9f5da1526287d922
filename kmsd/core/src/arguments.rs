//! What a proposed use of a key is applied to: it stands in the document that people sign.
//!
//! Whoever may see the proposal reads it, so nothing secret belongs in it. What runs is made from it by
//! the same parser that reads a direct request.

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::mechanism::Mechanism;

/// The arguments of one use of a version. What the key would prefer is said, not left open.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "type")]
#[non_exhaustive]
pub enum UseArguments {
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
    /// Of [`Action::Sign`].
    Sign {
        /// The context, for mechanisms that have one.
        context: HexBytes,
        /// What is signed.
        data: Signed,
        /// How.
        mechanism: Mechanism,
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
            Self::Decrypt { .. } => Action::Decrypt,
            Self::MacSign { .. } => Action::MacSign,
            Self::MacVerify { .. } => Action::MacVerify,
            Self::Sign { .. } => Action::Sign,
            Self::Verify { .. } => Action::Verify,
        }
    }

    /// How many bytes they are together.
    pub fn length_bytes(&self) -> usize {
        let parts: &[&HexBytes] = match self {
            Self::Decrypt {
                additional_authenticated_data: aad,
                ciphertext,
                initialization_vector: iv,
                mechanism: _,
            } => &[aad, ciphertext, iv],
            Self::MacSign { data, mechanism: _ } => &[data],
            Self::MacVerify { data, mac, mechanism: _ } => &[data, mac],
            Self::Sign { context, data, mechanism: _ } => &[context, data.bytes()],
            Self::Verify { context, data, mechanism: _, signature } => {
                &[context, data.bytes(), signature]
            }
        };
        parts.iter().map(|part| part.0.len()).sum()
    }

    /// What the use is applied to: ciphertext, message or digest.
    pub fn data(&self) -> &[u8] {
        let data = match self {
            Self::Decrypt { ciphertext, .. } => ciphertext,
            Self::MacSign { data, .. } | Self::MacVerify { data, .. } => data,
            Self::Sign { data, .. } | Self::Verify { data, .. } => data.bytes(),
        };
        &data.0
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
        assert_eq!(arguments.length_bytes(), 2);
        assert_eq!(arguments.data(), [0, 255]);
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
}
