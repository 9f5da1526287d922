//! `kmsctl key encrypt` and `decrypt`, whole or over a stream (`large.rs`); the files are those of `document.rs`.

use std::path::PathBuf;

use clap::Args;
use kms_client::v1;
use v1::stream_start::Operation;

use super::document::{
    CIPHERTEXT_TYPE, DOCUMENT_BYTES_MAX, Opened, STREAM_TYPE, head, not_a_ciphertext,
    parse_ciphertext,
};
use super::large::{self, Source};
use super::operate::{How, Used, aad, bytes, reported, used, written};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, HexBytes, Secrecy};
use crate::output::Report;
use crate::view;

#[derive(Args, Debug)]
pub(crate) struct Encrypt {
    /// Version name; a key name means its primary version.
    name: String,
    /// File to encrypt, of any length.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// Where the ciphertext is written, with all that decrypt needs but the key.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
    /// File of bytes that are authenticated with it and not encrypted; the label of RSA-OAEP.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// Initialization vector; without it, the daemon makes it, as hardened rings demand for AEAD.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    iv: Option<HexBytes>,
}

impl Encrypt {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, input, out, aad_file, how, iv } = self;
        let (mechanism, initialization_vector) = (how.wire()?, bytes(iv));
        let additional_authenticated_data = aad(aad_file.as_deref())?;
        let plaintext = match large::read(&input)? {
            Source::Whole(bytes) => bytes,
            source @ Source::Long { .. } => {
                let operation = Operation::Encrypt(v1::StreamEncrypt {
                    additional_authenticated_data,
                    initialization_vector,
                });
                let head = |started: &v1::StreamStarted| {
                    head(
                        STREAM_TYPE,
                        started.name.clone(),
                        started.mechanism(),
                        &started.initialization_vector,
                        None,
                    )
                };
                let to = large::Target { out: &out, secrecy: Secrecy::Public };
                let done = large::convert(connection, name, mechanism, operation, source, to, head)
                    .await?;
                return Ok(reported(&out, used(done.started)));
            }
        };
        let request = v1::EncryptRequest {
            name,
            plaintext_crc32c: Some(crc32c::crc32c(&plaintext)),
            plaintext,
            additional_authenticated_data,
            mechanism,
            initialization_vector,
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().encrypt(request.clone()).await).await?;
        if crc32c::crc32c(&answer.ciphertext) != answer.ciphertext_crc32c {
            return Err(Failure::Answer("the ciphertext was damaged on the way"));
        }
        let bytes = head(
            CIPHERTEXT_TYPE,
            answer.name.clone(),
            answer.mechanism(),
            &answer.initialization_vector,
            Some(&answer.ciphertext),
        );
        let mechanism = view::mechanism(answer.mechanism());
        let used = Used { name: answer.name, mechanism: Some(mechanism), audit: answer.audit };
        written(&out, &bytes, Secrecy::Public, used)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Decrypt {
    /// File that encrypt wrote; it names the version.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// Where the plaintext is written, readable to you alone; a file must not exist.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
    /// File of the bytes that were authenticated with it.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
}

impl Decrypt {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { input, out, aad_file } = self;
        let additional_authenticated_data = aad(aad_file.as_deref())?;
        let (first_line, rest) = large::first_line(&input, DOCUMENT_BYTES_MAX)?;
        let Opened { type_, name, mechanism, initialization_vector, ciphertext } =
            parse_ciphertext(&input, &first_line)?;
        let wrong = || not_a_ciphertext(&input);
        let ciphertext = match (type_.as_str(), ciphertext) {
            (CIPHERTEXT_TYPE, Some(ciphertext)) => ciphertext,
            (STREAM_TYPE, None) => {
                let operation = Operation::Decrypt(v1::StreamDecrypt {
                    additional_authenticated_data,
                    initialization_vector,
                });
                let to = large::Target { out: &out, secrecy: Secrecy::Secret };
                let done = large::convert(connection, name, mechanism, operation, rest, to, |_| {
                    Vec::new()
                });
                return Ok(reported(&out, used(done.await?.started)));
            }
            _ => return Err(wrong()),
        };
        let request = v1::DecryptRequest {
            name: name.clone(),
            initialization_vector,
            ciphertext_crc32c: Some(crc32c::crc32c(&ciphertext)),
            ciphertext,
            additional_authenticated_data,
            mechanism,
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().decrypt(request.clone()).await).await?;
        if crc32c::crc32c(&answer.plaintext) != answer.plaintext_crc32c {
            return Err(Failure::Answer("the plaintext was damaged on the way"));
        }
        let used = Used { name, mechanism: None, audit: answer.audit };
        written(&out, &answer.plaintext, Secrecy::Secret, used)
    }
}

pub(crate) const ENCRYPT_HELP: &str = "\
Examples:
  kmsctl key encrypt dev/a --in secret.txt --out secret.json
  kmsctl key decrypt --in secret.json --out -
  kmsctl key encrypt dev/a --in disk.img --out disk.img.kms
  kmsctl key encrypt dev/a --mechanism AES_CBC_PAD --iv 000102030405060708090a0b0c0d0e0f \\
    --in p --out c

What is longer than 64 KiB goes over a stream; the file that is written then begins with one line of
JSON.";
