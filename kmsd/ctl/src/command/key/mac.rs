//! `kmsctl key mac`, `mac-verify` and `digest`, whole or over a stream (`large.rs`).

use std::path::PathBuf;

use clap::Args;
use kms_client::v1;
use serde_json::json;
use v1::stream_finished::Result as Outcome;
use v1::stream_start::Operation;

use super::large::{self, Source};
use super::operate::{How, SIGNATURE_BYTES_MAX, Used, used, valid, verdict, written};
use super::shape;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, Secrecy};
use crate::output::Report;
use crate::view;

#[derive(Args, Debug)]
pub(crate) struct Mac {
    /// Version name; a key name means its primary version.
    name: String,
    /// File to authenticate, of any length.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    #[command(flatten)]
    how: How,
    /// Where the code is written: as long as the hash function's digest.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
}

impl Mac {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, input, how, out } = self;
        let mechanism = how.wire()?;
        let data = match large::read(&input)? {
            Source::Whole(bytes) => bytes,
            source @ Source::Long { .. } => {
                let operation = Operation::MacSign(v1::StreamMacSign {});
                let done = large::run(connection, name, mechanism, operation, source).await?;
                let Some(Outcome::Mac(mac)) = done.finished.result else {
                    return Err(Failure::Answer("a stream without a code"));
                };
                return written(&out, &mac, Secrecy::Public, used(done.started));
            }
        };
        let request = v1::MacSignRequest { name, data, mechanism };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().mac_sign(request.clone()).await).await?;
        let mechanism = view::mechanism(answer.mechanism());
        let used = Used { name: answer.name, mechanism: Some(mechanism), audit: answer.audit };
        written(&out, &answer.mac, Secrecy::Public, used)
    }
}

#[derive(Args, Debug)]
pub(crate) struct MacVerify {
    /// Version name; a key name means its primary version.
    name: String,
    /// The file that was authenticated.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    #[command(flatten)]
    how: How,
    /// File with the code.
    #[arg(long, value_name = "FILE")]
    mac: PathBuf,
}

impl MacVerify {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, input, how, mac } = self;
        let (mechanism, mac) = (how.wire()?, input::read(&mac, SIGNATURE_BYTES_MAX)?);
        let data = match large::read(&input)? {
            Source::Whole(bytes) => bytes,
            source @ Source::Long { .. } => {
                let operation = Operation::MacVerify(v1::StreamMacVerify { mac });
                return verdict(connection, name, mechanism, operation, source).await;
            }
        };
        let request = v1::MacVerifyRequest { name, data, mac, mechanism };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.crypto().mac_verify(request.clone()).await).await?;
        Ok(valid(answer.valid, answer.audit))
    }
}

#[derive(Args, Debug)]
pub(crate) struct Digest {
    /// Ring name: whose users may ask.
    ring: String,
    /// The hash function.
    #[arg(long, value_name = "HASH", value_parser = shape::hash_names(), default_value = "SHA256")]
    hash: String,
    /// File to hash, of any length.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// Where the digest is written, as bytes; without it, it is shown in hexadecimal.
    #[arg(long, value_name = "FILE|-")]
    out: Option<PathBuf>,
}

impl Digest {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { ring, hash, input, out } = self;
        let code = shape::wire_hash(&hash)?;
        let (digest, audit) = match large::read(&input)? {
            Source::Whole(data) => {
                let request = v1::DigestRequest { ring, hash: code, data };
                let client = connection.open().await?;
                let answer =
                    client.retry(async || client.crypto().digest(request.clone()).await).await?;
                (answer.digest, answer.audit)
            }
            source @ Source::Long { .. } => {
                let operation = Operation::Digest(v1::StreamDigest { hash: code });
                let done = large::run(connection, ring, 0, operation, source).await?;
                let Some(Outcome::Digest(digest)) = done.finished.result else {
                    return Err(Failure::Answer("a stream without a digest"));
                };
                (digest, done.started.audit)
            }
        };
        if let Some(out) = &out {
            input::write(out, &digest, Secrecy::Public)?;
            if input::is_dash(out) {
                return Ok(Report::nothing());
            }
        }
        let report = Report::fields(json!({ "hash": hash, "digest": hex::encode(digest) }));
        Ok(view::audited(report, audit))
    }
}

pub(crate) const MAC_HELP: &str = "\
Examples:
  kmsctl key mac dev/m --in letter.txt --out letter.mac
  kmsctl key mac-verify dev/m --in letter.txt --mac letter.mac";
pub(crate) const DIGEST_HELP: &str = "\
Example:
  kmsctl key digest dev --hash SHA3_256 --in letter.txt";
