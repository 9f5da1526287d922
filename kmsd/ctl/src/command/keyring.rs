//! `kmsctl keyring`.

use std::path::PathBuf;

use clap::Subcommand;
use kms_client::v1;

use super::{PAGE_SIZE, all_pages, policy, required};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input;
use crate::output::Report;
use crate::view;

#[derive(Debug, Subcommand)]
pub(crate) enum Keyring {
    /// Make a ring. Needs the role security-officer.
    #[command(after_help = CREATE_HELP)]
    Create {
        /// Its name, for example dev.
        name: String,
        /// JSON file of the quorum that guards every key of the ring.
        #[arg(long, value_name = "FILE")]
        quorum: Option<PathBuf>,
    },
    /// Show one ring.
    Show {
        /// Its name.
        name: String,
    },
    /// List the rings that you may see.
    List,
}

impl Keyring {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        match self {
            Self::Create { name, quorum } => {
                let quorum = quorum.as_deref().map(policy::quorum).transpose()?;
                let request_id = input::request_id()?;
                let request =
                    v1::CreateKeyRingRequest { name, quorum, request_id, ..Default::default() };
                let client = connection.open().await?;
                let answer = client
                    .retry(async || client.keys().create_key_ring(request.clone()).await)
                    .await?;
                let ring = view::key_ring(required(answer.key_ring)?);
                Ok(view::audited(Report::fields(ring), answer.audit))
            }
            Self::Show { name } => {
                let request = v1::GetKeyRingRequest { name };
                let client = connection.open().await?;
                let answer = client
                    .retry(async || client.keys().get_key_ring(request.clone()).await)
                    .await?;
                let ring = view::key_ring(required(answer.key_ring)?);
                Ok(view::audited(Report::fields(ring), answer.audit))
            }
            Self::List => {
                let client = connection.open().await?;
                let rings = all_pages(async |page_token| {
                    let request = v1::ListKeyRingsRequest { page_size: PAGE_SIZE, page_token };
                    let answer = client
                        .retry(async || client.keys().list_key_rings(request.clone()).await)
                        .await?;
                    Ok((answer.key_rings, answer.next_page_token))
                })
                .await?;
                let rings = rings.into_iter().map(view::key_ring).collect();
                Ok(Report::rows("key_rings", &["name", "create_time"], rings))
            }
        }
    }
}

const CREATE_HELP: &str = "\
Examples:
  kmsctl keyring create dev
  kmsctl keyring create prod --quorum quorum.json

A quorum file names the guarded actions and the people who approve them:
  {\"guards\": [\"DestroyKeyVersion\"],
   \"approvers\": {\"n\": 2, \"members\": [\"users/alice\", \"users/bob\", \"users/carol\"]}}
A member may also be a group of its own: {\"n\": 1, \"members\": [...]}.";
