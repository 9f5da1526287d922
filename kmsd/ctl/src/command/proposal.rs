//! `kmsctl proposal`: approvals of guarded actions.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use kms_client::{Client, v1};
use kms_core::quorum::{self, NAMESPACE};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use v1::create_proposal_request::{Arguments, Recipient};

use super::key::{Proposed, check_out, told};
use super::{PAGE_SIZE, all_pages, required};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, Secrecy};
use crate::output::Report;
use crate::view;

#[derive(Debug, Subcommand)]
#[command(after_help = HELP)]
pub(crate) enum Proposal {
    /// Ask for the approval of a guarded action.
    Create {
        /// The action, for example DestroyKeyVersion.
        action: String,
        /// What it is to be done to, for example dev/k1@1.
        resource: String,
        /// How long approvals may take, in seconds: 300 to 604800. One day when absent.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(300..=604_800))]
        lifetime: Option<u32>,
        /// For ExportKeyVersion: the RSA public key that the key is sealed to, PEM or DER.
        #[arg(long, value_name = "FILE")]
        recipient: Option<PathBuf>,
        #[command(flatten)]
        proposed: Box<Proposed>,
    },
    /// List proposals.
    List,
    /// Show what the bytes say that people sign, who has approved, and what each quorum still wants.
    Show {
        /// proposals/ID
        name: String,
    },
    /// Write exactly the bytes to sign, and say how to sign them.
    Document {
        /// proposals/ID
        name: String,
        /// Where they are written.
        #[arg(long, value_name = "FILE|-")]
        out: PathBuf,
    },
    /// Hand in an approver's signature. Anybody who may see the proposal can carry it.
    Approve {
        /// proposals/ID
        name: String,
        /// Who signed: users/NAME.
        #[arg(long)]
        approver: String,
        /// File with the signature that ssh-keygen made.
        #[arg(long, value_name = "FILE")]
        signature: PathBuf,
    },
    /// Take your own proposal back.
    Cancel {
        /// proposals/ID
        name: String,
    },
    /// Run an approved proposal, once.
    Execute {
        /// proposals/ID
        name: String,
        /// Where the result of a use is written, or an exported key, sealed to its recipient; key export
        /// opens that, too. A plaintext is readable to you alone, and its file must not exist.
        #[arg(long, value_name = "FILE|-")]
        out: Option<PathBuf>,
    },
}

impl Proposal {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        match self {
            Self::Create { action, resource, lifetime, recipient, proposed } => {
                let arguments = proposed.wire(&action)?;
                let recipient = match recipient {
                    Some(path) => {
                        Some(Recipient::RsaPublicKey(input::der_or_pem(&path, "PUBLIC KEY")?))
                    }
                    None => None,
                };
                let client = connection.open().await?;
                let about = About { recipient, arguments };
                create(&client, action, resource, lifetime, about).await
            }
            Self::List => list(connection).await,
            Self::Show { name } => show(connection, name).await,
            Self::Document { name, out } => document(connection, name, out).await,
            Self::Approve { name, approver, signature } => {
                let ssh_signature = input::read_text(&signature)?;
                let request = v1::ApproveProposalRequest { name, approver, ssh_signature };
                let client = connection.open().await?;
                let answer = client.call(client.proposals().approve_proposal(request)).await?;
                shown(answer.proposal, answer.audit)
            }
            Self::Cancel { name } => {
                let request = v1::CancelProposalRequest { name };
                let client = connection.open().await?;
                let answer = client.call(client.proposals().cancel_proposal(request)).await?;
                shown(answer.proposal, answer.audit)
            }
            Self::Execute { name, out } => {
                let client = connection.open().await?;
                let found = required(fetch(&client, name.clone()).await?.proposal)?;
                let document = read_document(&found)?;
                check_out(document.action, out.as_deref())?;
                let mut answer = execute(&client, name).await?;
                if let Some(given) = answer.result.take() {
                    let (asked, out) = (document.arguments.as_ref(), out.as_deref());
                    return told(given, asked, out, shown(answer.proposal, answer.audit)?);
                }
                if !answer.wrapped_key.is_empty() && out.is_none() {
                    let key = STANDARD.encode(&answer.wrapped_key);
                    let report = shown(answer.proposal, answer.audit)?;
                    return Ok(report.with("wrapped_key", json!(key)));
                }
                if let Some(out) = out.filter(|_| !answer.wrapped_key.is_empty()) {
                    input::write(&out, &answer.wrapped_key, Secrecy::Public)?;
                    if input::is_dash(&out) {
                        return Ok(Report::nothing());
                    }
                }
                shown(answer.proposal, answer.audit)
            }
        }
    }
}

/// Runs an approved proposal. Not retried: it runs once, and what it gives is given once.
pub(crate) async fn execute(
    client: &Client,
    name: String,
) -> Result<v1::ExecuteProposalResponse, Failure> {
    let request = v1::ExecuteProposalRequest { name };
    Ok(client.call(client.proposals().execute_proposal(request)).await?)
}

/// What an action is asked for with.
#[derive(Default)]
pub(crate) struct About {
    recipient: Option<Recipient>,
    arguments: Option<Arguments>,
}

impl About {
    /// An export to somebody.
    pub(crate) fn recipient(recipient: Option<Recipient>) -> Self {
        Self { recipient, ..Self::default() }
    }
}

/// Asks for the approval of a guarded action.
pub(crate) async fn create(
    client: &Client,
    action: String,
    resource: String,
    lifetime: Option<u32>,
    About { recipient, arguments }: About,
) -> Result<Report, Failure> {
    let lifetime_seconds = lifetime.unwrap_or_default();
    let request_id = input::request_id()?;
    let request = v1::CreateProposalRequest {
        action,
        resource,
        lifetime_seconds,
        request_id,
        recipient,
        arguments,
    };
    let answer =
        client.retry(async || client.proposals().create_proposal(request.clone()).await).await?;
    let proposal = required(answer.proposal)?;
    let name = proposal.name.clone();
    Ok(view::audited(Report::fields(view::proposal(proposal)), answer.audit)
        .note(format!("\nNext: kmsctl proposal document {name} --out proposal.json")))
}

async fn list(connection: &Connection) -> Result<Report, Failure> {
    let client = connection.open().await?;
    let proposals = all_pages(async |page_token| {
        let request = v1::ListProposalsRequest { page_size: PAGE_SIZE, page_token };
        let answer =
            client.retry(async || client.proposals().list_proposals(request.clone()).await).await?;
        Ok((answer.proposals, answer.next_page_token))
    })
    .await?;
    let columns = &["name", "state", "action", "resource", "proposer", "approvers", "approved"];
    let proposals = proposals.into_iter().map(view::proposal).collect();
    Ok(Report::rows("proposals", columns, proposals))
}

/// A proposal, with the bytes to sign.
pub(crate) async fn fetch(
    client: &Client,
    name: String,
) -> Result<v1::GetProposalResponse, Failure> {
    let request = v1::GetProposalRequest { name };
    Ok(client.retry(async || client.proposals().get_proposal(request.clone()).await).await?)
}

async fn show(connection: &Connection, name: String) -> Result<Report, Failure> {
    let answer = fetch(&connection.open().await?, name).await?;
    let proposal = required(answer.proposal)?;
    let document = read_document(&proposal)?;
    let summary = view::proposal(proposal);
    // To be held against what sha256sum says of one's own file.
    let data = document.arguments.as_ref().and_then(|one| one.data());
    let data_sha256 = data.map(|data| hex::encode(Sha256::digest(data)));
    // What counts is what is signed, so everything that the bytes say is shown from the bytes.
    let report = Report::fields(json!({
        "name": summary["name"],
        "state": summary["state"],
        "appliance": document.appliance,
        "action": document.action,
        "resource": document.resource,
        "etag": document.etag,
        "proposer": document.proposer,
        "created": view::time_ms(document.created_at.0),
        "expires": view::time_ms(document.expires_at.0),
        "policy_digest": document.policy_digest,
        "key_policy_digest": document.key_policy_digest,
        "nonce": document.nonce,
        "recipient": document.recipient,
        "arguments": document.arguments,
        "data_sha256": data_sha256,
        "approvers": summary["approvers"],
        "approved": summary["approved"],
        "quorums": summary["quorums"],
    }));
    Ok(view::audited(report, answer.audit))
}

async fn document(connection: &Connection, name: String, out: PathBuf) -> Result<Report, Failure> {
    let answer = fetch(&connection.open().await?, name.clone()).await?;
    let proposal = required(answer.proposal)?;
    read_document(&proposal)?;
    input::write(&out, &proposal.document, Secrecy::Public)?;
    if input::is_dash(&out) {
        return Ok(Report::nothing());
    }
    let out = out.display();
    let sign = format!("ssh-keygen -Y sign -n {NAMESPACE} -f ~/.ssh/id_ed25519 {out}");
    let approve =
        format!("kmsctl proposal approve {name} --approver users/YOU --signature {out}.sig");
    let report = Report::fields(json!({
        "name": name,
        "out": out.to_string(),
        "sign_command": sign,
        "approve_command": approve,
    }));
    Ok(report.note("\nRead the file before you sign it: what it says is what will run."))
}

/// The document of `proposal`, if its bytes are those of a proposal and say what the daemon says.
pub(crate) fn read_document(proposal: &v1::Proposal) -> Result<quorum::Proposal, Failure> {
    let document = quorum::Proposal::from_bytes(&proposal.document)
        .map_err(|_| Failure::Answer("a document that is no proposal"))?;
    let same = document.action.as_str() == proposal.action
        && document.resource == proposal.resource
        && document.proposer.to_string() == proposal.proposer;
    if same { Ok(document) } else { Err(Failure::Answer("a document that says something else")) }
}

fn shown(
    proposal: Option<v1::Proposal>,
    audit: Option<v1::AuditReference>,
) -> Result<Report, Failure> {
    Ok(view::audited(Report::fields(view::proposal(required(proposal)?)), audit))
}

const HELP: &str = "\
The way of a guarded action:
  kmsctl proposal create DestroyKeyVersion dev/k1@1      # somebody asks
  kmsctl proposal show proposals/ID                      # each approver reads it,
  kmsctl proposal document proposals/ID --out p.json     # takes the bytes,
  ssh-keygen -Y sign -n kms-proposal -f KEY p.json       # signs them anywhere, also offline,
  kmsctl proposal approve proposals/ID --approver users/alice --signature p.json.sig
  kmsctl proposal execute proposals/ID                   # once there are enough
With an SSH certificate in place of a key, which must still be valid at the execution:
  ssh-keygen -Y sign -n kms-proposal -f KEY-cert.pub p.json
A single use of a key, whose arguments stand in what people sign:
  kmsctl proposal create Sign dev/ca@1 --message-file tbs.der
  kmsctl proposal create Decrypt dev/a@1 --in secret.json
  kmsctl proposal execute proposals/ID --out tbs.sig
Or one that makes a key, or moves a ciphertext to another one:
  kmsctl proposal create UnwrapKey dev/kek@1 --new dev/k2 --algorithm EC_P256 --in k1.json
  kmsctl proposal create DeriveKey dev/base@1 --new dev/t7 --algorithm AES_256 --info 7437
  kmsctl proposal create ReEncrypt dev/a@1 --in secret.json --to dev/b
What is open, and what one does not want any more:
  kmsctl proposal list
  kmsctl proposal cancel proposals/ID";

#[cfg(test)]
mod tests {
    use kms_core::action::Action;
    use kms_core::id::{Digest, Nonce, Timestamp};

    use super::*;

    fn proposal() -> v1::Proposal {
        let document = quorum::Proposal {
            type_: quorum::PROPOSAL_TYPE.to_owned(),
            appliance: "kms/test".to_owned(),
            action: Action::DestroyKeyVersion,
            resource: "r".to_owned(),
            etag: "1".to_owned(),
            policy_digest: Digest([0; 32]),
            key_policy_digest: None,
            proposer: "users/alice".parse().unwrap(),
            nonce: Nonce([0; 32]),
            created_at: Timestamp(0),
            expires_at: Timestamp(1),
            recipient: None,
            arguments: None,
        };
        v1::Proposal {
            document: document.to_bytes().unwrap(),
            action: "DestroyKeyVersion".to_owned(),
            resource: "r".to_owned(),
            proposer: "users/alice".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_document_that_says_something_else_is_not_shown_for_signing() {
        assert!(read_document(&proposal()).is_ok());
        for lie in [
            v1::Proposal { action: "SuspendKeyVersion".into(), ..proposal() },
            v1::Proposal { resource: "other".into(), ..proposal() },
            v1::Proposal { proposer: "users/bob".into(), ..proposal() },
            v1::Proposal { document: b"{}".to_vec(), ..proposal() },
        ] {
            assert!(matches!(read_document(&lie), Err(Failure::Answer(_))));
        }
    }
}
