//! A single use of a version, as a proposal holds it: between the request on the wire, the arguments that
//! people sign, and the operation that reads and does it. Nothing is decided here; `create_proposal.rs` and
//! `execute_proposal.rs` call it.

use kms_core::action::Action;
use kms_core::algorithm::Usage;
use kms_core::arguments::{HexBytes, Signed, UseArguments};
use kms_core::id::{Home, VersionName};
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_core::service::Ingredients;
use kms_crypto::CryptoError;
use kms_crypto::vault::Vault;
use kms_proto::v1;
use kms_proto::v1::create_proposal_request::Arguments as Wire;
use kms_proto::v1::execute_proposal_response::Result as Given;

use super::using::{KeyUse, Use};
use super::{Decrypt, MacSign, MacVerify, Sign, Verify};
use crate::failure::Failure;
use crate::wire::{KeyOrVersion, invalid, mechanism_out, version_name};

macro_rules! uses {
    ($($name:ident)+) => {
        /// A use, read by the parser of its own operation.
        pub(crate) enum GuardedUse {
            $(
                #[doc = stringify!($name)]
                $name(Box<$name>),
            )+
        }

        impl GuardedUse {
            /// Reads the request of a use.
            ///
            /// # Errors
            /// As the operation itself.
            pub(crate) fn parse(wire: Wire, home: &Home) -> Result<Self, Refusal> {
                Ok(match wire {
                    $(Wire::$name(wire) => Self::$name(Box::new($name::parse(wire, home)?)),)+
                })
            }

            /// Which use it is.
            pub(crate) fn action(&self) -> Action {
                match self { $(Self::$name(_) => $name::ACTION,)+ }
            }

            /// The version that is used.
            pub(crate) fn name(&self) -> &KeyOrVersion {
                match self { $(Self::$name(one) => one.name(),)+ }
            }

            /// By what.
            pub(crate) fn mechanism(&self) -> Option<Mechanism> {
                match self { $(Self::$name(one) => one.mechanism(),)+ }
            }

            /// As [`Use::callers_iv`].
            pub(crate) fn callers_iv(&self) -> bool {
                match self { $(Self::$name(one) => one.callers_iv(),)+ }
            }

            /// As [`Use::ingredients`].
            pub(crate) fn ingredients(&self) -> Ingredients {
                match self { $(Self::$name(one) => one.ingredients(),)+ }
            }

            /// As [`Use::fits`].
            ///
            /// # Errors
            /// As there.
            pub(crate) fn fits(&self, mechanism: Mechanism) -> Result<(), Refusal> {
                match self { $(Self::$name(one) => one.fits(mechanism),)+ }
            }

            /// As [`Use::apply`].
            ///
            /// # Errors
            /// As there.
            pub(crate) fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<Given, CryptoError> {
                match self { $(Self::$name(one) => one.apply(vault, key).map(Given::$name),)+ }
            }
        }

        /// Which use a request is for.
        pub(crate) fn action_of(wire: &Wire) -> Action {
            match wire { $(Wire::$name(_) => $name::ACTION,)+ }
        }

        /// Says in `wire` which version is meant.
        ///
        /// # Errors
        /// When it names another one.
        pub(crate) fn named(mut wire: Wire, version: &VersionName, home: &Home) -> Result<Wire, Refusal> {
            let name = match &mut wire { $(Wire::$name(wire) => &mut wire.name,)+ };
            if !name.is_empty() && version_name("arguments", name, home)? != *version {
                return Err(invalid("arguments", "the use is of another version than the resource"));
            }
            *name = version.to_string();
            Ok(wire)
        }
    };
}

uses!(Decrypt MacSign MacVerify Sign Verify);

impl GuardedUse {
    /// Reads what people signed, by the parser that reads a direct request.
    ///
    /// # Errors
    /// As the operation itself.
    pub(crate) fn of(
        arguments: &UseArguments,
        version: &VersionName,
        home: &Home,
    ) -> Result<Self, Refusal> {
        let wire = request(arguments).ok_or_else(|| invalid("arguments", "an unknown use"))?;
        Self::parse(named(wire, version, home)?, home)
    }

    /// What the key is used for.
    ///
    /// # Errors
    /// Never: each of them is a use.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        self.action().usage().ok_or(Failure::Bug("a use that is none"))
    }
}

/// What stands in the document for `wire`, carried out by `mechanism`.
///
/// # Errors
/// When there is nothing to sign.
pub(crate) fn arguments(wire: &Wire, mechanism: Mechanism) -> Result<UseArguments, Refusal> {
    let hex = |bytes: &Vec<u8>| HexBytes(bytes.clone());
    let nothing = || invalid("data", "expected a message or its digest");
    Ok(match wire {
        Wire::Decrypt(wire) => UseArguments::Decrypt {
            additional_authenticated_data: hex(&wire.additional_authenticated_data),
            ciphertext: hex(&wire.ciphertext),
            initialization_vector: hex(&wire.initialization_vector),
            mechanism,
        },
        Wire::MacSign(wire) => UseArguments::MacSign { data: hex(&wire.data), mechanism },
        Wire::MacVerify(wire) => {
            UseArguments::MacVerify { data: hex(&wire.data), mac: hex(&wire.mac), mechanism }
        }
        Wire::Sign(wire) => {
            use v1::sign_request::Data;
            let data = match wire.data.as_ref().ok_or_else(nothing)? {
                Data::Digest(digest) => Signed::Digest(hex(digest)),
                Data::Message(message) => Signed::Message(hex(message)),
            };
            UseArguments::Sign { context: hex(&wire.context), data, mechanism }
        }
        Wire::Verify(wire) => {
            use v1::verify_request::Data;
            let data = match wire.data.as_ref().ok_or_else(nothing)? {
                Data::Digest(digest) => Signed::Digest(hex(digest)),
                Data::Message(message) => Signed::Message(hex(message)),
            };
            let (context, signature) = (hex(&wire.context), hex(&wire.signature));
            UseArguments::Verify { context, data, mechanism, signature }
        }
    })
}

/// The request for what stands in the document, without the version's name.
fn request(arguments: &UseArguments) -> Option<Wire> {
    let bytes = |hex: &HexBytes| hex.0.clone();
    let name = String::new();
    Some(match arguments {
        UseArguments::Decrypt {
            additional_authenticated_data,
            ciphertext,
            initialization_vector,
            mechanism,
        } => Wire::Decrypt(v1::DecryptRequest {
            name,
            initialization_vector: bytes(initialization_vector),
            ciphertext: bytes(ciphertext),
            additional_authenticated_data: bytes(additional_authenticated_data),
            ciphertext_crc32c: None,
            mechanism: mechanism_out(*mechanism),
        }),
        UseArguments::MacSign { data, mechanism } => Wire::MacSign(v1::MacSignRequest {
            name,
            data: bytes(data),
            mechanism: mechanism_out(*mechanism),
        }),
        UseArguments::MacVerify { data, mac, mechanism } => Wire::MacVerify(v1::MacVerifyRequest {
            name,
            data: bytes(data),
            mac: bytes(mac),
            mechanism: mechanism_out(*mechanism),
        }),
        UseArguments::Sign { context, data, mechanism } => {
            use v1::sign_request::Data;
            let data = match data {
                Signed::Digest(digest) => Data::Digest(bytes(digest)),
                Signed::Message(message) => Data::Message(bytes(message)),
                _ => return None,
            };
            Wire::Sign(v1::SignRequest {
                name,
                data: Some(data),
                data_crc32c: None,
                mechanism: mechanism_out(*mechanism),
                context: bytes(context),
            })
        }
        UseArguments::Verify { context, data, mechanism, signature } => {
            use v1::verify_request::Data;
            let data = match data {
                Signed::Digest(digest) => Data::Digest(bytes(digest)),
                Signed::Message(message) => Data::Message(bytes(message)),
                _ => return None,
            };
            Wire::Verify(v1::VerifyRequest {
                name,
                data: Some(data),
                signature: bytes(signature),
                data_crc32c: None,
                mechanism: mechanism_out(*mechanism),
                context: bytes(context),
            })
        }
        _ => return None,
    })
}
