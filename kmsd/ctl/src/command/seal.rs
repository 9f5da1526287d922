//! `kmsctl seal`.

use std::path::PathBuf;

use clap::Subcommand;
use kms_client::v1;
use serde_json::json;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::input;
use crate::output::Report;
use crate::view;

#[derive(Debug, Subcommand)]
pub(crate) enum Seal {
    /// Show whether the root key is open, and how it opens.
    #[command(after_help = STATUS_HELP)]
    Status,
    /// Open the root key with its passphrase.
    #[command(after_help = UNSEAL_HELP)]
    Unseal {
        /// File with the passphrase; - for standard input. Else KMS_PASSPHRASE is read.
        #[arg(long, value_name = "FILE|-")]
        passphrase_file: Option<PathBuf>,
    },
    /// Close the root key: no key can be used until it is opened again.
    #[command(name = "seal", after_help = STATUS_HELP)]
    Close,
}

impl Seal {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        match self {
            Self::Status => {
                let client = connection.open().await?;
                let answer = client
                    .retry(async || {
                        client.seal().get_seal_status(v1::GetSealStatusRequest {}).await
                    })
                    .await?;
                let v1::GetSealStatusResponse {
                    sealed,
                    method,
                    log_key,
                    daemon_version,
                    location,
                    audit,
                } = answer;
                let report = Report::fields(json!({
                    "sealed": sealed,
                    "method": method,
                    "location": location,
                    "daemon_version": daemon_version,
                    "log_key": log_key,
                }));
                Ok(view::audited(report, audit))
            }
            Self::Unseal { passphrase_file } => {
                let passphrase = input::secret(
                    passphrase_file.as_deref(),
                    "--passphrase-file",
                    "KMS_PASSPHRASE",
                )?;
                let request = v1::UnsealRequest { passphrase: passphrase.to_string() };
                let client = connection.open().await?;
                // Once only: each attempt with a wrong passphrase counts.
                let answer = client.call(client.seal().unseal(request)).await?;
                let report = Report::fields(json!({ "sealed": answer.sealed }));
                Ok(view::audited(report, answer.audit))
            }
            Self::Close => {
                let client = connection.open().await?;
                let answer = client.call(client.seal().seal(v1::SealRequest {})).await?;
                let report = Report::fields(json!({ "sealed": answer.sealed }));
                Ok(view::audited(report, answer.audit))
            }
        }
    }
}

const STATUS_HELP: &str = "\
Examples:
  kmsctl seal status
  kmsctl seal seal
  kmsctl seal unseal --passphrase-file passphrase.txt";
const UNSEAL_HELP: &str = "\
Examples:
  kmsctl seal unseal --passphrase-file passphrase.txt
  systemd-ask-password | kmsctl seal unseal --passphrase-file -

A passphrase is never taken from the command line, which every user of the machine can read.";
