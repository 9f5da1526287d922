//! `kmsctl keyring`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kms_client::{Client, v1};

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
        /// Let old PKCS#11 clients do what the standard allows; the log tells of it.
        #[arg(long)]
        compatible: bool,
        /// JSON file of what its keys may be and do; see keyring policy.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Show or change what the keys of a ring may be and do.
    #[command(subcommand)]
    Policy(Policy),
    /// Show one ring.
    #[command(after_help = SHOW_HELP)]
    Show {
        /// Its name.
        name: String,
    },
    /// List the rings that you may see.
    #[command(after_help = SHOW_HELP)]
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Show a ring's policy.
    #[command(after_help = POLICY_HELP)]
    Show {
        /// The ring's name.
        name: String,
    },
    /// Change a ring's policy. Needs the role security-officer.
    #[command(after_help = POLICY_HELP)]
    Set(SetPolicy),
}

#[derive(Args, Debug)]
pub(crate) struct SetPolicy {
    /// The ring's name.
    name: String,
    /// JSON file of the new policy, as show gives it with --output json; what it leaves out takes nothing
    /// away. Without it, the rest of the policy stays as it is.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["compatible", "hardened"])]
    file: Option<PathBuf>,
    /// Let old PKCS#11 clients do what the standard allows; the log tells of it.
    #[arg(long, conflicts_with = "hardened")]
    compatible: bool,
    /// Let them not.
    #[arg(long)]
    hardened: bool,
}

impl Policy {
    async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let client = connection.open().await?;
        match self {
            Self::Show { name } => {
                let (ring, audit) = ring(&client, name).await?;
                let policy = view::ring_policy(ring.policy.unwrap_or_default());
                Ok(view::audited(Report::fields(policy), audit))
            }
            Self::Set(SetPolicy { name, file, compatible, hardened }) => {
                // The etag that was read goes back with the change, so that no other change is undone.
                let (found, _) = ring(&client, name.clone()).await?;
                let mut policy = match file {
                    Some(path) => policy::ring(&path)?,
                    None => found.policy.unwrap_or_default(),
                };
                if compatible || hardened {
                    let kind =
                        if compatible { v1::RingKind::Compatible } else { v1::RingKind::Hardened };
                    policy.kind = kind.into();
                }
                let request = v1::SetKeyRingPolicyRequest {
                    name,
                    etag: found.etag,
                    policy: Some(policy),
                    request_id: input::request_id()?,
                };
                let answer = client
                    .retry(async || client.keys().set_key_ring_policy(request.clone()).await)
                    .await?;
                let ring = view::key_ring(required(answer.key_ring)?);
                Ok(view::audited(Report::fields(ring), answer.audit))
            }
        }
    }
}

async fn ring(
    client: &Client,
    name: String,
) -> Result<(v1::KeyRing, Option<v1::AuditReference>), Failure> {
    let request = v1::GetKeyRingRequest { name };
    let answer = client.retry(async || client.keys().get_key_ring(request.clone()).await).await?;
    Ok((required(answer.key_ring)?, answer.audit))
}

impl Keyring {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        match self {
            Self::Policy(command) => command.run(connection).await,
            Self::Create { name, quorum, compatible, policy } => {
                let quorum = quorum.as_deref().map(policy::quorum).transpose()?;
                let mut policy = policy.as_deref().map(policy::ring).transpose()?;
                if compatible {
                    policy.get_or_insert_default().kind = v1::RingKind::Compatible.into();
                }
                let request_id = input::request_id()?;
                let request = v1::CreateKeyRingRequest { name, quorum, request_id, policy };
                let client = connection.open().await?;
                let answer = client
                    .retry(async || client.keys().create_key_ring(request.clone()).await)
                    .await?;
                let ring = view::key_ring(required(answer.key_ring)?);
                Ok(view::audited(Report::fields(ring), answer.audit))
            }
            Self::Show { name } => {
                let (ring, audit) = ring(&connection.open().await?, name).await?;
                Ok(view::audited(Report::fields(view::key_ring(ring)), audit))
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
  kmsctl keyring create legacy --compatible

A quorum file names the guarded actions and the people who approve them:
  {\"guards\": [\"DestroyKeyVersion\"],
   \"approvers\": {\"n\": 2, \"members\": [\"users/alice\", \"users/bob\", \"users/carol\"]}}
A member may also be a group of its own: {\"n\": 1, \"members\": [...]}.";
const SHOW_HELP: &str = "\
Examples:
  kmsctl keyring list
  kmsctl keyring show dev
  kmsctl --output json keyring show dev";
const POLICY_HELP: &str = "\
A policy file has any of these:
  {\"kind\": \"HARDENED\", \"algorithms\": [\"AES_256\"], \"mechanisms\": [\"AES_GCM\"],
   \"required_labels\": [\"owner\"], \"legacy_keys\": \"UNPROTECT_ONLY\"}
No algorithms or mechanisms means all. legacy_keys says what becomes of keys that do not fit:
ALLOWED, PROHIBITED, or UNPROTECT_ONLY (they verify, decrypt and unwrap).

Examples:
  kmsctl --output json keyring policy show dev
  kmsctl keyring policy set dev --file policy.json
  kmsctl keyring policy set legacy --compatible";
