//! `kmsctl random`.

use std::path::PathBuf;

use clap::Args;
use kms_client::v1;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, Secrecy};
use crate::output::Report;
use crate::view;

#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Random {
    /// Ring whose users may ask.
    ring: String,
    /// How many bytes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    bytes: u32,
    /// Where they are written; a file must not exist.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
}

impl Random {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { ring, bytes, out } = self;
        let request = v1::GenerateRandomRequest { ring, length_bytes: bytes };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.crypto().generate_random(request.clone()).await).await?;
        if u32::try_from(answer.data.len()) != Ok(bytes) {
            return Err(Failure::Answer("another number of bytes than asked for"));
        }
        input::write(&out, &answer.data, Secrecy::Secret)?;
        if input::is_dash(&out) {
            return Ok(Report::nothing());
        }
        let written = serde_json::json!({ "bytes": bytes, "out": out.display().to_string() });
        Ok(view::audited(Report::fields(written), answer.audit))
    }
}

const HELP: &str = "\
Example:
  kmsctl random dev --bytes 32 --out - | base64";
