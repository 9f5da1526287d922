//! A single use of a version, as a proposal holds it: between the request on the wire, the arguments that
//! people sign, and the operation that reads and does it. Nothing is decided here; `create_proposal.rs` and
//! `execute_proposal.rs` call it.

use kms_core::action::Action;
use kms_core::arguments::{HexBytes, NewKey, Signed, UseArguments};
use kms_core::caller::Caller;
use kms_core::id::{Home, VersionName};
use kms_core::mechanism::Mechanism;
use kms_core::permit::{Other, Permit, Recorded, Refusal, Subject};
use kms_core::service::Ingredients;
use kms_proto::v1;
use kms_proto::v1::create_proposal_request::Arguments as Wire;
use kms_proto::v1::execute_proposal_response::Result as Given;
use kms_store::Condition;
use prost::Message as _;

use super::using::UseFacts;
use super::{
    AgreeKey, DecapsulateKey, Decrypt, DeriveKey, Found, MacSign, MacVerify, MakingOf, ReEncrypt,
    Sign, UnwrapKey, Using, Verify,
};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;
use crate::wire::{
    invalid, mechanism as mechanism_asked, mechanism_out, new_key_out, version_name,
};

/// An operation that a proposal holds the arguments of.
pub(crate) trait Guarded: Operation<Prepared = ()> {
    /// The use of the version that the proposal is about.
    fn used<'a>(&self, facts: &'a Self::Facts) -> &'a UseFacts;

    /// What the request leaves open, and is settled now that the key is known.
    ///
    /// # Errors
    /// When there is no such key, or it cannot be used so.
    fn settled(&self, facts: &Self::Facts) -> Result<Settled, Early>;
}

/// What is settled when the key is known.
pub(crate) struct Settled {
    /// By what the version is used.
    pub(crate) mechanism: Mechanism,
    /// What becomes of it, where a key does.
    pub(crate) new: Option<Box<NewKey>>,
    /// Where it goes, and by what, where it goes to another key.
    pub(crate) to: Option<(VersionName, Mechanism)>,
}

impl Settled {
    /// Where only the mechanism is open.
    pub(crate) const fn by(mechanism: Mechanism) -> Self {
        Self { mechanism, new: None, to: None }
    }
}

/// A use, read by the parser of its own operation, with what that has loaded.
pub(crate) struct GuardedUse {
    wire: Wire,
    asked: Asked,
}

macro_rules! uses {
    ($($name:ident by $operation:ty, of $version:ident;)+) => {
        enum Asked {
            $($name(Box<($operation, <$operation as Operation>::Facts)>),)+
        }

        impl GuardedUse {
            /// Reads the request of a use, and loads what that needs.
            ///
            /// # Errors
            /// As the operation itself.
            async fn read(
                cx: &Context,
                caller: &Caller,
                stamp: &Stamp,
                wire: Wire,
            ) -> Result<Self, Early> {
                let asked = match wire.clone() {
                    $(Wire::$name(request) => {
                        let operation = <$operation>::parse(request, &cx.home)?;
                        let facts = operation.load(cx, caller, stamp).await?;
                        Asked::$name(Box::new((operation, facts)))
                    })+
                };
                Ok(Self { wire, asked })
            }

            /// The use of the version that the proposal is about.
            fn used(&self) -> &UseFacts {
                match &self.asked { $(Asked::$name(one) => one.0.used(&one.1),)+ }
            }

            fn settled(&self) -> Result<Settled, Early> {
                match &self.asked { $(Asked::$name(one) => one.0.settled(&one.1),)+ }
            }

            /// As [`Operation::subject`].
            pub(crate) fn subject(&self) -> Subject<'_> {
                match &self.asked { $(Asked::$name(one) => one.0.subject(&one.1),)+ }
            }

            /// As [`Operation::other`].
            pub(crate) fn other(&self) -> Option<Other<'_>> {
                match &self.asked { $(Asked::$name(one) => one.0.other(&one.1),)+ }
            }

            /// As [`Operation::ingredients`].
            pub(crate) fn ingredients(&self) -> Ingredients {
                match &self.asked { $(Asked::$name(one) => one.0.ingredients(&one.1),)+ }
            }

            /// As [`Operation::unchanged`].
            pub(crate) fn unchanged(&self) -> Vec<Condition> {
                match &self.asked { $(Asked::$name(one) => one.0.unchanged(&one.1),)+ }
            }

            /// Whether the operation itself would take the request.
            ///
            /// # Errors
            /// As [`Operation::grounds`].
            pub(crate) async fn check(
                &self,
                cx: &Context,
                caller: &Caller,
                stamp: &Stamp,
            ) -> Result<(), Early> {
                match &self.asked {
                    $(Asked::$name(one) => {
                        one.0.grounds(cx, caller, stamp, &one.1).await.map(drop)
                    })+
                }
            }

            /// As [`Operation::prepare`].
            ///
            /// # Errors
            /// As there.
            pub(crate) async fn prepare(
                &self,
                cx: &Context,
                permit: &Permit,
                stamp: &Stamp,
            ) -> Result<Vec<Draft>, Early> {
                match &self.asked {
                    $(Asked::$name(one) => {
                        let ((), drafts) = one.0.prepare(cx, permit, stamp, &one.1).await?;
                        Ok(drafts)
                    })+
                }
            }

            /// As [`Operation::perform`].
            ///
            /// # Errors
            /// As there.
            pub(crate) async fn perform(
                self,
                cx: &Context,
                recorded: Recorded,
                stamp: &Stamp,
                audit: v1::AuditReference,
            ) -> Result<Given, Failure> {
                match self.asked {
                    $(Asked::$name(one) => {
                        let (operation, facts) = *one;
                        let given = operation.perform(cx, recorded, stamp, facts, (), audit).await;
                        given.map(Given::$name)
                    })+
                }
            }
        }

        /// Which use a request is for.
        pub(crate) fn action_of(wire: &Wire) -> Action {
            match wire { $(Wire::$name(_) => <$operation>::ACTION,)+ }
        }

        /// Whether a request can be read.
        ///
        /// # Errors
        /// As the operation itself.
        pub(crate) fn check_form(wire: Wire, home: &Home) -> Result<(), Refusal> {
            match wire { $(Wire::$name(wire) => <$operation>::parse(wire, home).map(drop),)+ }
        }

        /// Says in `wire` which version is meant.
        ///
        /// # Errors
        /// When it names another one.
        pub(crate) fn named(mut wire: Wire, version: &VersionName, home: &Home) -> Result<Wire, Refusal> {
            let name = match &mut wire { $(Wire::$name(wire) => &mut wire.$version,)+ };
            if !name.is_empty() && version_name("arguments", name, home)? != *version {
                return Err(invalid("arguments", "the use is of another version than the resource"));
            }
            *name = version.to_string();
            Ok(wire)
        }
    };
}

uses! {
    AgreeKey by MakingOf<AgreeKey>, of name;
    DecapsulateKey by MakingOf<DecapsulateKey>, of name;
    Decrypt by Using<Decrypt>, of name;
    DeriveKey by MakingOf<DeriveKey>, of name;
    MacSign by Using<MacSign>, of name;
    MacVerify by Using<MacVerify>, of name;
    ReEncrypt by ReEncrypt, of source;
    Sign by Using<Sign>, of name;
    UnwrapKey by MakingOf<UnwrapKey>, of name;
    Verify by Using<Verify>, of name;
}

/// A use, or why the rules are to refuse it when they have seen who asks.
pub(crate) type Read = Result<Box<GuardedUse>, Refusal>;

impl GuardedUse {
    /// Reads the request of a use, which names the version, and loads what that needs.
    ///
    /// # Errors
    /// When the store fails. What is wrong with the request is told as a refusal.
    pub(crate) async fn load(
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        wire: Wire,
    ) -> Result<Read, Failure> {
        // In a place of its own: what most proposals do not need is not to make them larger.
        match Box::pin(Self::read(cx, caller, stamp, wire)).await {
            Ok(one) => Ok(Ok(Box::new(one))),
            Err(Early::Refuse(refusal)) => Ok(Err(refusal)),
            Err(Early::Fail(failure)) => Err(failure),
        }
    }

    /// Reads the request of a use as it will be read when people have approved it: out of what stands in the
    /// document.
    ///
    /// # Errors
    /// As [`GuardedUse::load`].
    pub(crate) async fn proposed(
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        wire: Wire,
        version: &VersionName,
    ) -> Result<Read, Failure> {
        let first = match Self::load(cx, caller, stamp, wire).await? {
            Ok(first) => first,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Where there is nothing that could stand in a document, the rules refuse, and say why.
        let Ok(arguments) = first.arguments() else { return Ok(Ok(first)) };
        // What this reading holds of the counts is given back before the next one asks for it.
        drop(first);
        let again = match Self::of(cx, caller, stamp, &arguments, version).await? {
            Ok(again) => again,
            Err(refusal) => return Ok(Err(refusal)),
        };
        match again.arguments() {
            Ok(said) if said == arguments => Ok(Ok(again)),
            _ => Ok(Err(invalid(
                "arguments",
                "say usages, mechanisms and rotation of the key in full",
            ))),
        }
    }

    /// Reads what people signed, by the parser that reads a direct request.
    ///
    /// # Errors
    /// As [`GuardedUse::load`].
    pub(crate) async fn of(
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        arguments: &UseArguments,
        version: &VersionName,
    ) -> Result<Read, Failure> {
        let wire = request(arguments).ok_or_else(|| invalid("arguments", "an unknown use"));
        match wire.and_then(|wire| named(wire, version, &cx.home)) {
            Ok(wire) => Self::load(cx, caller, stamp, wire).await,
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// The version that is used, when there is one.
    pub(crate) fn seen(&self) -> Option<&Found> {
        self.used().seen()
    }

    /// What stands in the document for it, with nothing left open.
    ///
    /// # Errors
    /// When there is no such key, it cannot be used so, or there is nothing to sign.
    pub(crate) fn arguments(&self) -> Result<UseArguments, Early> {
        let settled = self.settled()?;
        Ok(arguments(&self.wire, settled)?)
    }
}

/// How many bytes of arguments a request brings.
pub(crate) fn length_bytes(wire: &Wire) -> usize {
    let key = |key: &Option<v1::Key>| key.as_ref().map_or(0, v1::Key::encoded_len);
    match wire {
        Wire::AgreeKey(wire) => {
            wire.peer_public_key.len() + wire.salt.len() + wire.info.len() + key(&wire.key)
        }
        Wire::DecapsulateKey(wire) => wire.ciphertext.len() + key(&wire.key),
        Wire::Decrypt(wire) => {
            wire.additional_authenticated_data.len()
                + wire.ciphertext.len()
                + wire.initialization_vector.len()
        }
        Wire::DeriveKey(wire) => {
            wire.salt.len() + wire.info.len() + wire.context.len() + key(&wire.key)
        }
        Wire::MacSign(wire) => wire.data.len(),
        Wire::MacVerify(wire) => wire.data.len() + wire.mac.len(),
        Wire::ReEncrypt(wire) => {
            wire.source_additional_authenticated_data.len()
                + wire.ciphertext.len()
                + wire.initialization_vector.len()
                + wire.destination_additional_authenticated_data.len()
        }
        Wire::Sign(wire) => {
            use v1::sign_request::Data;
            let data = wire.data.as_ref().map_or(0, |data| match data {
                Data::Digest(bytes) | Data::Message(bytes) => bytes.len(),
            });
            wire.context.len() + data
        }
        Wire::UnwrapKey(wire) => {
            wire.additional_authenticated_data.len()
                + wire.initialization_vector.len()
                + wire.wrapped_key.len()
                + key(&wire.key)
        }
        Wire::Verify(wire) => {
            use v1::verify_request::Data;
            let data = wire.data.as_ref().map_or(0, |data| match data {
                Data::Digest(bytes) | Data::Message(bytes) => bytes.len(),
            });
            wire.context.len() + wire.signature.len() + data
        }
    }
}

/// What stands in the document for `wire`.
fn arguments(wire: &Wire, settled: Settled) -> Result<UseArguments, Refusal> {
    let hex = |bytes: &Vec<u8>| HexBytes(bytes.clone());
    let nothing = || invalid("data", "expected a message or its digest");
    let Settled { mechanism, new, to } = settled;
    let new = || new.ok_or_else(|| invalid("key", "expected the key to be made"));
    Ok(match wire {
        Wire::AgreeKey(wire) => UseArguments::AgreeKey {
            info: hex(&wire.info),
            kdf: mechanism_asked("kdf", wire.kdf)?,
            key: new()?,
            peer_public_key: hex(&wire.peer_public_key),
            salt: hex(&wire.salt),
        },
        Wire::DecapsulateKey(wire) => {
            UseArguments::DecapsulateKey { ciphertext: hex(&wire.ciphertext), key: new()? }
        }
        Wire::Decrypt(wire) => UseArguments::Decrypt {
            additional_authenticated_data: hex(&wire.additional_authenticated_data),
            ciphertext: hex(&wire.ciphertext),
            initialization_vector: hex(&wire.initialization_vector),
            mechanism,
        },
        Wire::DeriveKey(wire) => UseArguments::DeriveKey {
            context: hex(&wire.context),
            info: hex(&wire.info),
            key: new()?,
            mechanism,
            salt: hex(&wire.salt),
        },
        Wire::MacSign(wire) => UseArguments::MacSign { data: hex(&wire.data), mechanism },
        Wire::MacVerify(wire) => {
            UseArguments::MacVerify { data: hex(&wire.data), mac: hex(&wire.mac), mechanism }
        }
        Wire::ReEncrypt(wire) => {
            let to = to.ok_or_else(|| invalid("destination", "expected where it goes"))?;
            let (destination, destination_mechanism) = to;
            UseArguments::ReEncrypt {
                additional_authenticated_data: hex(&wire.source_additional_authenticated_data),
                ciphertext: hex(&wire.ciphertext),
                destination,
                destination_additional_authenticated_data: hex(
                    &wire.destination_additional_authenticated_data
                ),
                destination_mechanism,
                initialization_vector: hex(&wire.initialization_vector),
                mechanism,
            }
        }
        Wire::Sign(wire) => {
            use v1::sign_request::Data;
            let data = match wire.data.as_ref().ok_or_else(nothing)? {
                Data::Digest(digest) => Signed::Digest(hex(digest)),
                Data::Message(message) => Signed::Message(hex(message)),
            };
            UseArguments::Sign { context: hex(&wire.context), data, mechanism }
        }
        Wire::UnwrapKey(wire) => UseArguments::UnwrapKey {
            additional_authenticated_data: hex(&wire.additional_authenticated_data),
            initialization_vector: hex(&wire.initialization_vector),
            key: new()?,
            mechanism,
            wrapped_key: hex(&wire.wrapped_key),
        },
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
    // A proposal runs once, and needs no name for that.
    let request_id = Vec::new();
    Some(match arguments {
        UseArguments::AgreeKey { info, kdf, key, peer_public_key, salt } => {
            Wire::AgreeKey(v1::AgreeKeyRequest {
                name,
                peer_public_key: bytes(peer_public_key),
                kdf: kdf.map(mechanism_out).unwrap_or_default(),
                salt: bytes(salt),
                info: bytes(info),
                key: Some(new_key_out(key)),
                request_id,
            })
        }
        UseArguments::DecapsulateKey { ciphertext, key } => {
            Wire::DecapsulateKey(v1::DecapsulateKeyRequest {
                name,
                ciphertext: bytes(ciphertext),
                key: Some(new_key_out(key)),
                request_id,
            })
        }
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
        UseArguments::DeriveKey { context, info, key, mechanism, salt } => {
            Wire::DeriveKey(v1::DeriveKeyRequest {
                name,
                mechanism: mechanism_out(*mechanism),
                salt: bytes(salt),
                info: bytes(info),
                context: bytes(context),
                key: Some(new_key_out(key)),
                request_id,
            })
        }
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
        UseArguments::ReEncrypt {
            additional_authenticated_data,
            ciphertext,
            destination,
            destination_additional_authenticated_data,
            destination_mechanism,
            initialization_vector,
            mechanism,
        } => Wire::ReEncrypt(v1::ReEncryptRequest {
            source: name,
            source_mechanism: mechanism_out(*mechanism),
            initialization_vector: bytes(initialization_vector),
            ciphertext: bytes(ciphertext),
            source_additional_authenticated_data: bytes(additional_authenticated_data),
            destination: destination.to_string(),
            destination_mechanism: mechanism_out(*destination_mechanism),
            destination_additional_authenticated_data: bytes(
                destination_additional_authenticated_data,
            ),
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
        UseArguments::UnwrapKey {
            additional_authenticated_data,
            initialization_vector,
            key,
            mechanism,
            wrapped_key,
        } => Wire::UnwrapKey(v1::UnwrapKeyRequest {
            name,
            mechanism: mechanism_out(*mechanism),
            initialization_vector: bytes(initialization_vector),
            additional_authenticated_data: bytes(additional_authenticated_data),
            wrapped_key: bytes(wrapped_key),
            key: Some(new_key_out(key)),
            request_id,
        }),
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
