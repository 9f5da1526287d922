//! The arguments of a use that is proposed, and what it gives when it has run; `proposal.rs` calls it.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use kms_client::v1;
use kms_core::action::Action;
use kms_core::arguments::{ARGUMENT_BYTES_MAX, UseArguments};
use serde_json::json;
use v1::create_proposal_request::Arguments;
use v1::execute_proposal_response::Result as Given;

use super::document::{CIPHERTEXT_TYPE, head, read_ciphertext};
use super::making::WRAPPED_KEY_TYPE;
use super::manage::made;
use super::operate::{aad, bytes};
use super::shape::{self, Limits, Shape};
use super::sign::digest;
use crate::failure::Failure;
use crate::input::{self, HexBytes, Secrecy};
use crate::output::Report;

/// What a proposed use is applied to.
#[derive(Args, Debug)]
#[command(
    next_help_heading = "Arguments of a use, at most 16 KiB, read by whoever sees the proposal"
)]
pub(crate) struct Proposed {
    /// Of Decrypt and ReEncrypt: the file that key encrypt wrote. Of UnwrapKey: the file that key wrap wrote,
    /// or, with --by, the bytes of the wrapped key alone. Of DecapsulateKey: the file with the ciphertext. Of
    /// MacSign and MacVerify: the file to authenticate.
    #[arg(long = "in", value_name = "FILE|-")]
    input: Option<PathBuf>,
    /// Of Sign and Verify: file with the message.
    #[arg(long, value_name = "FILE|-", conflicts_with = "digest_file")]
    message_file: Option<PathBuf>,
    /// Of Sign and Verify: file with the message's digest, bytes or hexadecimal digits.
    #[arg(long, value_name = "FILE|-")]
    digest_file: Option<PathBuf>,
    /// Of Verify: file with the signature.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Of MacVerify: file with the code.
    #[arg(long, value_name = "FILE")]
    mac: Option<PathBuf>,
    /// Of Decrypt, ReEncrypt and UnwrapKey: file of the bytes that were authenticated with it.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
    /// Of Sign and Verify: context of ML-DSA and SLH-DSA. Of DeriveKey: context of KDF_COUNTER.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    context: Option<HexBytes>,
    /// Of ReEncrypt: key or version that protects it from now on.
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Of ReEncrypt: file of the bytes that are authenticated with it from now on.
    #[arg(long, value_name = "FILE")]
    new_aad_file: Option<PathBuf>,
    /// Of UnwrapKey: how another system wrapped it.
    #[arg(long, value_name = "MECHANISM", value_parser = shape::mechanism_names())]
    by: Option<String>,
    /// Of UnwrapKey: its initialization vector, where the mechanism of another system has one.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes, requires = "by")]
    iv: Option<HexBytes>,
    /// Of AgreeKey: the other side's public key, PEM or DER.
    #[arg(long, value_name = "FILE|-")]
    peer: Option<PathBuf>,
    /// Of DeriveKey: an HKDF or KDF_COUNTER mechanism of the key. Of AgreeKey: what the shared secret goes
    /// through.
    #[arg(long, value_name = "MECHANISM", value_parser = shape::mechanism_names())]
    kdf: Option<String>,
    /// Of DeriveKey and AgreeKey: salt of HKDF.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    salt: Option<HexBytes>,
    /// Of DeriveKey and AgreeKey: info of HKDF, label of KDF_COUNTER.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    info: Option<HexBytes>,
    #[command(flatten)]
    new: New,
}

/// The key that AgreeKey, DecapsulateKey, DeriveKey and UnwrapKey make.
#[derive(Args, Debug)]
#[command(
    next_help_heading = "The key that AgreeKey, DecapsulateKey, DeriveKey or UnwrapKey makes (--mechanism: of other uses, how)"
)]
struct New {
    /// Name of the new key.
    #[arg(long = "new", value_name = "NAME")]
    name: Option<String>,
    /// What it is; key algorithms lists them.
    #[arg(long, value_name = "ALGORITHM", value_parser = shape::algorithm_names())]
    algorithm: Option<String>,
    /// Length of a GENERIC_SECRET in bytes, 14 to 512; without it, 32.
    #[arg(long, value_name = "N")]
    length_bytes: Option<u32>,
    #[command(flatten)]
    limits: Limits,
}

impl New {
    /// The key that `action` is to make.
    fn wire(self, action: &str) -> Result<v1::Key, Failure> {
        let Self { name, algorithm, length_bytes, limits } = self;
        let name = required(action, name, "--new")?;
        let algorithm = required(action, algorithm, "--algorithm")?;
        Shape { algorithm, length_bytes, limits }.key(name)
    }

    /// By what another use than one that makes a key is done.
    fn mechanism(&self) -> Result<i32, Failure> {
        match self.limits.mechanism.as_slice() {
            [] => shape::wire_mechanism(None),
            [one] => shape::wire_mechanism(Some(one)),
            _ => Err(Failure::input("--mechanism", "a use is by one mechanism")),
        }
    }

    /// Whether more is said of a key to be made than its mechanisms.
    fn is_some(&self) -> bool {
        let Self { name, algorithm, length_bytes, limits } = self;
        let limits = Limits { mechanism: Vec::new(), ..limits.clone() };
        let said = name.is_some() || algorithm.is_some() || length_bytes.is_some();
        said || limits.is_some()
    }
}

fn required<T>(action: &str, value: Option<T>, flag: &str) -> Result<T, Failure> {
    value.ok_or_else(|| Failure::Input(format!("{action} needs {flag}")))
}

impl Proposed {
    /// The arguments of `action`, none when it takes none.
    pub(crate) fn wire(self, action: &str) -> Result<Option<Arguments>, Failure> {
        self.check_surplus(action)?;
        Ok(Some(match action.parse() {
            Ok(Action::AgreeKey) => self.agree(action)?,
            Ok(Action::DecapsulateKey) => self.decapsulate(action)?,
            Ok(Action::Decrypt) => self.decrypt(action)?,
            Ok(Action::DeriveKey) => self.derive(action)?,
            Ok(Action::MacSign) => {
                let (name, mechanism) = (String::new(), self.new.mechanism()?);
                let data = read(action, self.input, "--in")?;
                Arguments::MacSign(v1::MacSignRequest { name, data, mechanism })
            }
            Ok(Action::MacVerify) => {
                let (name, mechanism) = (String::new(), self.new.mechanism()?);
                let (data, mac) =
                    (read(action, self.input, "--in")?, read(action, self.mac, "--mac")?);
                Arguments::MacVerify(v1::MacVerifyRequest { name, data, mac, mechanism })
            }
            Ok(Action::ReEncrypt) => self.re_encrypt(action)?,
            Ok(Action::Sign) => self.sign(action)?,
            Ok(Action::UnwrapKey) => self.unwrap(action)?,
            Ok(Action::Verify) => self.verify(action)?,
            _ => return Ok(None),
        }))
    }

    fn agree(self, action: &str) -> Result<Arguments, Failure> {
        let peer = required(action, self.peer, "--peer")?;
        Ok(Arguments::AgreeKey(v1::AgreeKeyRequest {
            name: String::new(),
            peer_public_key: input::der_or_pem(&peer, "PUBLIC KEY")?,
            kdf: shape::wire_mechanism(self.kdf.as_deref())?,
            salt: bytes(self.salt),
            info: bytes(self.info),
            key: Some(self.new.wire(action)?),
            request_id: Vec::new(),
        }))
    }

    fn decapsulate(self, action: &str) -> Result<Arguments, Failure> {
        Ok(Arguments::DecapsulateKey(v1::DecapsulateKeyRequest {
            name: String::new(),
            ciphertext: read(action, self.input, "--in")?,
            key: Some(self.new.wire(action)?),
            request_id: Vec::new(),
        }))
    }

    fn decrypt(self, action: &str) -> Result<Arguments, Failure> {
        let path = required(action, self.input, "--in")?;
        let (opened, ciphertext) = read_ciphertext(&path, CIPHERTEXT_TYPE)?;
        Ok(Arguments::Decrypt(v1::DecryptRequest {
            // The file says which version made it; the daemon holds that against the resource.
            name: opened.name,
            initialization_vector: opened.initialization_vector,
            ciphertext_crc32c: Some(crc32c::crc32c(&ciphertext)),
            ciphertext,
            additional_authenticated_data: aad(self.aad_file.as_deref())?,
            mechanism: opened.mechanism,
        }))
    }

    fn derive(self, action: &str) -> Result<Arguments, Failure> {
        Ok(Arguments::DeriveKey(v1::DeriveKeyRequest {
            name: String::new(),
            mechanism: shape::wire_mechanism(self.kdf.as_deref())?,
            salt: bytes(self.salt),
            info: bytes(self.info),
            context: bytes(self.context),
            key: Some(self.new.wire(action)?),
            request_id: Vec::new(),
        }))
    }

    fn re_encrypt(self, action: &str) -> Result<Arguments, Failure> {
        let path = required(action, self.input, "--in")?;
        let (opened, ciphertext) = read_ciphertext(&path, CIPHERTEXT_TYPE)?;
        Ok(Arguments::ReEncrypt(v1::ReEncryptRequest {
            source: opened.name,
            source_mechanism: opened.mechanism,
            initialization_vector: opened.initialization_vector,
            ciphertext,
            source_additional_authenticated_data: aad(self.aad_file.as_deref())?,
            destination: required(action, self.to, "--to")?,
            destination_mechanism: self.new.mechanism()?,
            destination_additional_authenticated_data: aad(self.new_aad_file.as_deref())?,
        }))
    }

    fn sign(self, action: &str) -> Result<Arguments, Failure> {
        use v1::sign_request::Data;
        let data = match self.digest_file {
            Some(path) => Data::Digest(digest(&path)?),
            None => Data::Message(read(action, self.message_file, EITHER)?),
        };
        let (Data::Digest(bytes) | Data::Message(bytes)) = &data;
        Ok(Arguments::Sign(v1::SignRequest {
            name: String::new(),
            data_crc32c: Some(crc32c::crc32c(bytes)),
            data: Some(data),
            mechanism: self.new.mechanism()?,
            context: self::bytes(self.context),
        }))
    }

    fn unwrap(self, action: &str) -> Result<Arguments, Failure> {
        let path = required(action, self.input, "--in")?;
        let (name, mechanism, initialization_vector, wrapped_key) = match self.by {
            Some(by) => {
                let wrapped = input::read(&path, ARGUMENT_BYTES_MAX)?;
                let mechanism = shape::wire_mechanism(Some(&by))?;
                (String::new(), mechanism, bytes(self.iv), wrapped)
            }
            None => {
                let (opened, wrapped) = read_ciphertext(&path, WRAPPED_KEY_TYPE)?;
                (opened.name, opened.mechanism, opened.initialization_vector, wrapped)
            }
        };
        Ok(Arguments::UnwrapKey(v1::UnwrapKeyRequest {
            name,
            mechanism,
            initialization_vector,
            additional_authenticated_data: aad(self.aad_file.as_deref())?,
            wrapped_key,
            key: Some(self.new.wire(action)?),
            request_id: Vec::new(),
        }))
    }

    fn verify(self, action: &str) -> Result<Arguments, Failure> {
        use v1::verify_request::Data;
        let data = match self.digest_file {
            Some(path) => Data::Digest(digest(&path)?),
            None => Data::Message(read(action, self.message_file, EITHER)?),
        };
        let (Data::Digest(bytes) | Data::Message(bytes)) = &data;
        Ok(Arguments::Verify(v1::VerifyRequest {
            name: String::new(),
            data_crc32c: Some(crc32c::crc32c(bytes)),
            data: Some(data),
            signature: read(action, self.signature, "--signature")?,
            mechanism: self.new.mechanism()?,
            context: self::bytes(self.context),
        }))
    }

    /// What nobody reads would not be approved either, so it is told at once.
    fn check_surplus(&self, action: &str) -> Result<(), Failure> {
        let taken: &[&str] = match action.parse() {
            Ok(Action::AgreeKey) => &["--peer", "--kdf", "--salt", "--info", MECHANISM, NEW],
            Ok(Action::DecapsulateKey) => &["--in", MECHANISM, NEW],
            Ok(Action::Decrypt) => &["--in", "--aad-file"],
            Ok(Action::DeriveKey) => &["--kdf", "--salt", "--info", "--context", MECHANISM, NEW],
            Ok(Action::MacSign) => &["--in", MECHANISM],
            Ok(Action::MacVerify) => &["--in", "--mac", MECHANISM],
            Ok(Action::ReEncrypt) => &["--in", "--aad-file", "--to", "--new-aad-file", MECHANISM],
            Ok(Action::Sign) => &["--message-file", "--digest-file", "--context", MECHANISM],
            Ok(Action::UnwrapKey) => &["--in", "--aad-file", "--by", "--iv", MECHANISM, NEW],
            Ok(Action::Verify) => {
                &["--message-file", "--digest-file", "--signature", "--context", MECHANISM]
            }
            _ => &[],
        };
        let given = [
            ("--in", self.input.is_some()),
            ("--message-file", self.message_file.is_some()),
            ("--digest-file", self.digest_file.is_some()),
            ("--signature", self.signature.is_some()),
            ("--mac", self.mac.is_some()),
            ("--aad-file", self.aad_file.is_some()),
            ("--context", self.context.is_some()),
            ("--to", self.to.is_some()),
            ("--new-aad-file", self.new_aad_file.is_some()),
            ("--by", self.by.is_some()),
            ("--iv", self.iv.is_some()),
            ("--peer", self.peer.is_some()),
            ("--kdf", self.kdf.is_some()),
            ("--salt", self.salt.is_some()),
            ("--info", self.info.is_some()),
            (MECHANISM, !self.new.limits.mechanism.is_empty()),
            (NEW, self.new.is_some()),
        ];
        match given.iter().find(|(flag, given)| *given && !taken.contains(flag)) {
            Some((flag, _)) => Err(Failure::input(flag, format!("{action} does not take it"))),
            None => Ok(()),
        }
    }
}

fn read(action: &str, path: Option<PathBuf>, flag: &str) -> Result<Vec<u8>, Failure> {
    input::read(&required(action, path, flag)?, ARGUMENT_BYTES_MAX)
}

/// Whether the result of `action` can be put at `out`: it is given once.
pub(crate) fn check_out(action: Action, out: Option<&Path>) -> Result<(), Failure> {
    let once = |what: &str| Failure::Input(format!("{what} is given once: say where, with --out"));
    match out {
        Some(_) if MAKES.contains(&action) => {
            Err(Failure::input("--out", "the new key stays in the daemon; leave it out"))
        }
        None if action == Action::ReEncrypt => Err(once("a ciphertext")),
        _ if action != Action::Decrypt => Ok(()),
        None => Err(once("a plaintext")),
        Some(out) if !input::is_dash(out) && out.exists() => {
            let cause = std::io::ErrorKind::AlreadyExists.into();
            Err(Failure::File { path: out.to_owned(), cause })
        }
        Some(_) => Ok(()),
    }
}

/// Writes what a use gave to `out`, or tells it in `report`. `asked` is what people signed.
pub(crate) fn told(
    given: Given,
    asked: Option<&UseArguments>,
    out: Option<&Path>,
    report: Report,
) -> Result<Report, Failure> {
    let damaged = |crc: u32, bytes: &[u8]| crc32c::crc32c(bytes) != crc;
    let (what, bytes, secrecy) = match given {
        Given::MacVerify(v1::MacVerifyResponse { valid, .. })
        | Given::Verify(v1::VerifyResponse { valid, .. }) => {
            return Ok(report.with("valid", json!(valid)).accepted_if(valid));
        }
        // What was made stays in the daemon, and is told as the command does that makes it directly.
        Given::AgreeKey(v1::AgreeKeyResponse { key, version, audit })
        | Given::DecapsulateKey(v1::DecapsulateKeyResponse { key, version, audit })
        | Given::DeriveKey(v1::DeriveKeyResponse { key, version, audit })
        | Given::UnwrapKey(v1::UnwrapKeyResponse { key, version, audit }) => {
            return made(key, version, audit);
        }
        Given::ReEncrypt(answer) if damaged(answer.ciphertext_crc32c, &answer.ciphertext) => {
            return Err(Failure::Answer("the ciphertext was damaged on the way"));
        }
        Given::Decrypt(answer) if damaged(answer.plaintext_crc32c, &answer.plaintext) => {
            return Err(Failure::Answer("the plaintext was damaged on the way"));
        }
        Given::Sign(answer) if damaged(answer.signature_crc32c, &answer.signature) => {
            return Err(Failure::Answer("the signature was damaged on the way"));
        }
        Given::Decrypt(answer) => ("plaintext", answer.plaintext, Secrecy::Secret),
        Given::MacSign(answer) => ("mac", answer.mac, Secrecy::Public),
        Given::ReEncrypt(answer) => {
            let (name, iv) = (answer.destination, answer.initialization_vector);
            let mechanism = match asked {
                Some(UseArguments::ReEncrypt { destination_mechanism, .. }) => {
                    shape::wire_mechanism(Some(destination_mechanism.as_str()))?
                }
                _ => return Err(Failure::Answer("a ciphertext that was not asked for")),
            };
            let mechanism = v1::Mechanism::try_from(mechanism).unwrap_or_default();
            let document = head(CIPHERTEXT_TYPE, name, mechanism, &iv, Some(&answer.ciphertext));
            ("ciphertext", document, Secrecy::Public)
        }
        Given::Sign(answer) => ("signature", answer.signature, Secrecy::Public),
    };
    let Some(out) = out else { return Ok(report.with(what, json!(STANDARD.encode(bytes)))) };
    input::write(out, &bytes, secrecy)?;
    if input::is_dash(out) {
        return Ok(Report::nothing());
    }
    Ok(report.with("out", json!(out.display().to_string())))
}

const EITHER: &str = "--message-file or --digest-file";
/// The uses whose result is a key.
const MAKES: [Action; 4] =
    [Action::AgreeKey, Action::DecapsulateKey, Action::DeriveKey, Action::UnwrapKey];
const MECHANISM: &str = "--mechanism";
/// The flags of a key that is made, but for its mechanisms.
const NEW: &str = "--new, and what else is said of a new key,";
