//! `kmsctl key sign` and `verify`. What fits into one message goes in one, with its checksum; what is longer
//! goes over a stream (`large.rs`).

use std::path::{Path, PathBuf};

use clap::Args;
use kms_client::v1;
use kms_core::mechanism::Hash;
use v1::stream_finished::Result as Outcome;
use v1::stream_start::Operation;

use super::large::{self, Source};
use super::operate::{How, SIGNATURE_BYTES_MAX, Used, bytes, used, valid, verdict, written};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, HexBytes, Secrecy};
use crate::output::Report;
use crate::view;

/// What is signed: a message or its digest.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Signed {
    /// File with the message, of any length.
    #[arg(long, value_name = "FILE|-")]
    message_file: Option<PathBuf>,
    /// File with the message's digest by the mechanism's hash function: bytes or hexadecimal digits.
    #[arg(long, value_name = "FILE|-")]
    digest_file: Option<PathBuf>,
}

enum Data {
    Message(Vec<u8>),
    Digest(Vec<u8>),
    Large(Source),
}

impl Signed {
    fn read(&self) -> Result<Data, Failure> {
        match (&self.message_file, &self.digest_file) {
            (Some(path), None) => Ok(match large::read(path)? {
                Source::Whole(bytes) => Data::Message(bytes),
                source @ Source::Long { .. } => Data::Large(source),
            }),
            (None, Some(path)) => digest(path).map(Data::Digest),
            // clap has made sure of exactly one.
            _ => Err(Failure::Input("give either --message-file or --digest-file".to_owned())),
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Sign {
    /// Version name; a key name means its primary version.
    name: String,
    #[command(flatten)]
    signed: Signed,
    #[command(flatten)]
    how: How,
    /// Context of ML-DSA and SLH-DSA, at most 255 bytes.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    context: Option<HexBytes>,
    /// Where the signature is written: DER for ECDSA, as long as the modulus for RSA.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
}

impl Sign {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, signed, how, context, out } = self;
        let (mechanism, context) = (how.wire()?, bytes(context));
        let data = match signed.read()? {
            Data::Message(bytes) => v1::sign_request::Data::Message(bytes),
            Data::Digest(bytes) => v1::sign_request::Data::Digest(bytes),
            Data::Large(source) => {
                no_context(&context)?;
                let operation = Operation::Sign(v1::StreamSign {});
                let done = large::run(connection, name, mechanism, operation, source).await?;
                let Some(Outcome::Signature(signature)) = done.finished.result else {
                    return Err(Failure::Answer("a stream without a signature"));
                };
                return written(&out, &signature, Secrecy::Public, used(done.started));
            }
        };
        let request = v1::SignRequest {
            name,
            data_crc32c: Some(data_crc(&data)),
            data: Some(data),
            mechanism,
            context,
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().sign(request.clone()).await).await?;
        if crc32c::crc32c(&answer.signature) != answer.signature_crc32c {
            return Err(Failure::Answer("the signature was damaged on the way"));
        }
        let mechanism = view::mechanism(answer.mechanism());
        let used = Used { name: answer.name, mechanism: Some(mechanism), audit: answer.audit };
        written(&out, &answer.signature, Secrecy::Public, used)
    }
}

fn data_crc(data: &v1::sign_request::Data) -> u32 {
    match data {
        v1::sign_request::Data::Message(bytes) | v1::sign_request::Data::Digest(bytes) => {
            crc32c::crc32c(bytes)
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// Version name; a key name means its primary version.
    name: String,
    #[command(flatten)]
    signed: Signed,
    #[command(flatten)]
    how: How,
    /// Context of ML-DSA and SLH-DSA, as it was when it was signed.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    context: Option<HexBytes>,
    /// File with the signature.
    #[arg(long, value_name = "FILE")]
    signature: PathBuf,
}

impl Verify {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, signed, how, context, signature } = self;
        let (mechanism, context) = (how.wire()?, bytes(context));
        let signature = input::read(&signature, SIGNATURE_BYTES_MAX)?;
        let (crc, data) = match signed.read()? {
            Data::Message(bytes) => {
                (crc32c::crc32c(&bytes), v1::verify_request::Data::Message(bytes))
            }
            Data::Digest(bytes) => {
                (crc32c::crc32c(&bytes), v1::verify_request::Data::Digest(bytes))
            }
            Data::Large(source) => {
                no_context(&context)?;
                let operation = Operation::Verify(v1::StreamVerify { signature });
                return verdict(connection, name, mechanism, operation, source).await;
            }
        };
        let request = v1::VerifyRequest {
            name,
            data: Some(data),
            signature,
            data_crc32c: Some(crc),
            mechanism,
            context,
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().verify(request.clone()).await).await?;
        Ok(valid(answer.valid, answer.audit))
    }
}

fn no_context(context: &[u8]) -> Result<(), Failure> {
    if context.is_empty() {
        return Ok(());
    }
    let limit =
        "mechanisms with a context sign at most 64 KiB: sign the file's digest as the message";
    Err(Failure::input("--context", limit))
}

pub(super) fn digest(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = input::read(path, DIGEST_FILE_BYTES_MAX)?;
    let fits = |length: usize| Hash::ALL.iter().any(|hash| hash.digest_bytes() == length);
    // A digest in hexadecimal is twice as long as some digest, too, but says so by its digits.
    if let Some(digest) = hex::decode(bytes.trim_ascii()).ok().filter(|digest| fits(digest.len())) {
        return Ok(digest);
    }
    if fits(bytes.len()) {
        return Ok(bytes);
    }
    let expected = "expected a digest of 20 to 64 bytes, as bytes or as hexadecimal digits";
    Err(Failure::input(path.display(), expected))
}

/// 128 digits and a line end or two.
const DIGEST_FILE_BYTES_MAX: usize = 144;
pub(crate) const SIGN_HELP: &str = "\
Examples:
  kmsctl key sign dev/k1 --message-file letter.txt --out letter.sig
  openssl dgst -sha256 -binary big.iso | kmsctl key sign dev/k1 --digest-file - --out big.sig
  kmsctl key sign dev/r1 --mechanism RSA_PKCS1_SHA256 --message-file big.iso --out big.sig
  kmsctl key public dev/k1 --out k1.pem
  openssl dgst -sha256 -verify k1.pem -signature letter.sig letter.txt

What is longer than 64 KiB goes over a stream, for mechanisms with a hash function.";
pub(crate) const VERIFY_HELP: &str = "\
Example:
  kmsctl key verify dev/k1 --message-file letter.txt --signature letter.sig";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_bytes_or_digits_as_long_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digest");
        for length in [20, 28, 32, 48, 64] {
            let digits = format!("{}\n", "ab".repeat(length));
            for (file, expected) in
                [(vec![7; length], vec![7; length]), (digits.into_bytes(), vec![0xab; length])]
            {
                std::fs::write(&path, file).unwrap();
                assert_eq!(digest(&path).ok(), Some(expected));
            }
        }
        for bad in [vec![7; 31], vec![7; 33], vec![b'a'; 62], vec![b'z'; 66], vec![], vec![0; 199]]
        {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(digest(&path).unwrap_err().exit_code(), 2);
        }
    }
}
