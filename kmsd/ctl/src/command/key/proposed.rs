//! The arguments of a use that is proposed, and what it gives when it has run; `proposal.rs` calls it.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use kms_client::v1;
use kms_core::action::Action;
use kms_core::arguments::ARGUMENT_BYTES_MAX;
use serde_json::json;
use v1::create_proposal_request::Arguments;
use v1::execute_proposal_response::Result as Given;

use super::document::{CIPHERTEXT_TYPE, read_ciphertext};
use super::operate::{How, aad, bytes};
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
    /// Of Decrypt: the file that key encrypt wrote. Of MacSign and MacVerify: the file to authenticate.
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
    /// Of Decrypt: file of the bytes that were authenticated with it.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
    /// Of Sign and Verify: context of ML-DSA and SLH-DSA.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    context: Option<HexBytes>,
    #[command(flatten)]
    how: How,
}

impl Proposed {
    /// The arguments of `action`, none when it takes none.
    pub(crate) fn wire(self, action: &str) -> Result<Option<Arguments>, Failure> {
        self.check_surplus(action)?;
        let Self { input, message_file, digest_file, signature, mac, aad_file, context, how } =
            self;
        let missing = |flag: &str| Failure::Input(format!("{action} needs {flag}"));
        let read = |path: Option<PathBuf>, flag: &str| {
            input::read(&path.ok_or_else(|| missing(flag))?, ARGUMENT_BYTES_MAX)
        };
        let (name, mechanism, context) = (String::new(), how.wire()?, bytes(context));
        Ok(Some(match action.parse() {
            Ok(Action::Decrypt) => {
                let path = input.ok_or_else(|| missing("--in"))?;
                let (opened, ciphertext) = read_ciphertext(&path, CIPHERTEXT_TYPE)?;
                Arguments::Decrypt(v1::DecryptRequest {
                    // The file says which version made it; the daemon holds that against the resource.
                    name: opened.name,
                    initialization_vector: opened.initialization_vector,
                    ciphertext_crc32c: Some(crc32c::crc32c(&ciphertext)),
                    ciphertext,
                    additional_authenticated_data: aad(aad_file.as_deref())?,
                    mechanism: opened.mechanism,
                })
            }
            Ok(Action::MacSign) => {
                let data = read(input, "--in")?;
                Arguments::MacSign(v1::MacSignRequest { name, data, mechanism })
            }
            Ok(Action::MacVerify) => {
                let (data, mac) = (read(input, "--in")?, read(mac, "--mac")?);
                Arguments::MacVerify(v1::MacVerifyRequest { name, data, mac, mechanism })
            }
            Ok(Action::Sign) => {
                use v1::sign_request::Data;
                let data = match digest_file {
                    Some(path) => Data::Digest(digest(&path)?),
                    None => Data::Message(read(message_file, EITHER)?),
                };
                let (Data::Digest(bytes) | Data::Message(bytes)) = &data;
                let data_crc32c = Some(crc32c::crc32c(bytes));
                let data = Some(data);
                Arguments::Sign(v1::SignRequest { name, data, data_crc32c, mechanism, context })
            }
            Ok(Action::Verify) => {
                use v1::verify_request::Data;
                let data = match digest_file {
                    Some(path) => Data::Digest(digest(&path)?),
                    None => Data::Message(read(message_file, EITHER)?),
                };
                let signature = read(signature, "--signature")?;
                let (Data::Digest(bytes) | Data::Message(bytes)) = &data;
                let data_crc32c = Some(crc32c::crc32c(bytes));
                Arguments::Verify(v1::VerifyRequest {
                    name,
                    data: Some(data),
                    signature,
                    data_crc32c,
                    mechanism,
                    context,
                })
            }
            _ => return Ok(None),
        }))
    }

    /// What nobody reads would not be approved either, so it is told at once.
    fn check_surplus(&self, action: &str) -> Result<(), Failure> {
        let taken: &[&str] = match action.parse() {
            Ok(Action::Decrypt) => &["--in", "--aad-file"],
            Ok(Action::MacSign) => &["--in", "--mechanism"],
            Ok(Action::MacVerify) => &["--in", "--mac", "--mechanism"],
            Ok(Action::Sign) => &["--message-file", "--digest-file", "--context", "--mechanism"],
            Ok(Action::Verify) => {
                &["--message-file", "--digest-file", "--signature", "--context", "--mechanism"]
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
            ("--mechanism", self.how.is_some()),
        ];
        match given.iter().find(|(flag, given)| *given && !taken.contains(flag)) {
            Some((flag, _)) => Err(Failure::input(flag, format!("{action} does not take it"))),
            None => Ok(()),
        }
    }
}

/// Whether the result of `action` can be put at `out`: it is given once.
pub(crate) fn check_out(action: Action, out: Option<&Path>) -> Result<(), Failure> {
    match out {
        _ if action != Action::Decrypt => Ok(()),
        None => Err(Failure::Input("a plaintext is given once: say where, with --out".to_owned())),
        Some(out) if !input::is_dash(out) && out.exists() => {
            let cause = std::io::ErrorKind::AlreadyExists.into();
            Err(Failure::File { path: out.to_owned(), cause })
        }
        Some(_) => Ok(()),
    }
}

/// Writes what a use gave to `out`, or tells it in `report`.
pub(crate) fn told(given: Given, out: Option<&Path>, report: Report) -> Result<Report, Failure> {
    let damaged = |crc: u32, bytes: &[u8]| crc32c::crc32c(bytes) != crc;
    let (what, bytes, secrecy) = match given {
        Given::MacVerify(v1::MacVerifyResponse { valid, .. })
        | Given::Verify(v1::VerifyResponse { valid, .. }) => {
            return Ok(report.with("valid", json!(valid)).accepted_if(valid));
        }
        Given::Decrypt(answer) if damaged(answer.plaintext_crc32c, &answer.plaintext) => {
            return Err(Failure::Answer("the plaintext was damaged on the way"));
        }
        Given::Sign(answer) if damaged(answer.signature_crc32c, &answer.signature) => {
            return Err(Failure::Answer("the signature was damaged on the way"));
        }
        Given::Decrypt(answer) => ("plaintext", answer.plaintext, Secrecy::Secret),
        Given::MacSign(answer) => ("mac", answer.mac, Secrecy::Public),
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
