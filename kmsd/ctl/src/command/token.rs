//! `kmsctl token`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use kms_client::v1;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::input;
use crate::output::Report;
use crate::view;

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// List the tokens of the appliance: its key rings. Security officers and auditors see in pin_locks
    /// from whom no PIN is taken.
    #[command(after_help = LIST_HELP)]
    List,
    /// Set the user or security-officer PIN of a ring. Needs the role security-officer.
    #[command(after_help = SET_PIN_HELP)]
    SetPin {
        /// Ring name.
        ring: String,
        /// Whose PIN.
        #[arg(long, value_enum)]
        role: PinRole,
        /// File with the PIN, 8 to 255 bytes; - for standard input. Else KMS_TOKEN_PIN is read.
        #[arg(long, value_name = "FILE|-")]
        pin_file: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PinRole {
    /// CKU_SO: the ring's security officer.
    SecurityOfficer,
    /// CKU_USER: makes and uses keys of the ring.
    User,
}

impl Token {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        match self {
            Self::List => {
                let client = connection.open().await?;
                let answer = client
                    .retry(async || client.token().list_tokens(v1::ListTokensRequest {}).await)
                    .await?;
                let tokens = answer.tokens.into_iter().map(view::token).collect();
                let columns = &["label", "serial", "user_pin_set", "pin_locks", "name"];
                Ok(view::audited(Report::rows("tokens", columns, tokens), answer.audit))
            }
            Self::SetPin { ring, role, pin_file } => {
                let pin = input::secret(pin_file.as_deref(), "--pin-file", "KMS_TOKEN_PIN")?;
                if !(PIN_BYTES_MIN..=PIN_BYTES_MAX).contains(&pin.len()) {
                    return Err(Failure::Input(format!(
                        "a PIN is {PIN_BYTES_MIN} to {PIN_BYTES_MAX} bytes long"
                    )));
                }
                let role = match role {
                    PinRole::SecurityOfficer => v1::PinRole::SecurityOfficer,
                    PinRole::User => v1::PinRole::User,
                };
                let request = v1::SetTokenPinRequest {
                    ring: ring.clone(),
                    role: role.into(),
                    pin: pin.to_string(),
                };
                let client = connection.open().await?;
                let answer = client
                    .retry(async || client.token().set_token_pin(request.clone()).await)
                    .await?;
                let set = serde_json::json!({ "ring": ring, "pin_set": true });
                Ok(view::audited(Report::fields(set), answer.audit))
            }
        }
    }
}

const PIN_BYTES_MIN: usize = 8;
const PIN_BYTES_MAX: usize = 255;
const LIST_HELP: &str = "\
Example:
  kmsctl token list";
const SET_PIN_HELP: &str = "\
Examples:
  kmsctl token set-pin dev --role user --pin-file pin.txt
  pass show kms/dev | kmsctl token set-pin dev --role user --pin-file -

A PIN is never taken from the command line, which every user of the machine can read.";
