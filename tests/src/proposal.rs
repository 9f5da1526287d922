//! Proposals and the signatures of the development approvers.

use kms_client::v1::create_proposal_request::Arguments;
use kms_client::{Client, ClientError, v1};
use kms_core::quorum::NAMESPACE;
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use crate::Daemon;

/// Proposes `action` on `resource`.
///
/// # Panics
/// When the daemon refuses.
pub async fn propose(client: &Client, action: &str, resource: &str) -> v1::Proposal {
    let request = v1::CreateProposalRequest {
        action: action.to_owned(),
        resource: resource.to_owned(),
        ..Default::default()
    };
    client.call(client.proposals().create_proposal(request)).await.unwrap().proposal.unwrap()
}

/// What `ssh-keygen -Y sign` makes with an approver's key.
///
/// # Panics
/// When the key is not there.
#[must_use]
pub fn signature(daemon: &Daemon, name: &str, namespace: &str, bytes: &[u8]) -> String {
    let key = daemon.state().join("approvers").join(name);
    let key = PrivateKey::read_openssh_file(&key).unwrap();
    key.sign(namespace, HashAlg::Sha512, bytes).unwrap().to_pem(LineEnding::LF).unwrap()
}

/// Hands in `ssh_signature` as that of `approver` (principal name).
///
/// # Errors
/// As the daemon answers.
pub async fn hand_in(
    client: &Client,
    proposal: &v1::Proposal,
    approver: &str,
    ssh_signature: String,
) -> Result<v1::Proposal, ClientError> {
    let (name, approver) = (proposal.name.clone(), approver.to_owned());
    let request = v1::ApproveProposalRequest { name, approver, ssh_signature };
    let answer = client.call(client.proposals().approve_proposal(request)).await?;
    Ok(answer.proposal.unwrap())
}

/// Signs as the approver `name` and hands it in.
///
/// # Errors
/// As the daemon answers.
pub async fn approve(
    daemon: &Daemon,
    client: &Client,
    proposal: &v1::Proposal,
    name: &str,
) -> Result<v1::Proposal, ClientError> {
    let signature = signature(daemon, name, NAMESPACE, &proposal.document);
    hand_in(client, proposal, &format!("users/{name}"), signature).await
}

/// Runs the proposal.
///
/// # Errors
/// As the daemon answers.
pub async fn execute(
    client: &Client,
    proposal: &v1::Proposal,
) -> Result<v1::Proposal, ClientError> {
    let request = v1::ExecuteProposalRequest { name: proposal.name.clone() };
    Ok(client.call(client.proposals().execute_proposal(request)).await?.proposal.unwrap())
}

/// Proposes to hand `version` out to the owner of an RSA public key.
///
/// # Panics
/// When the daemon refuses.
pub async fn propose_export(
    client: &Client,
    version: &str,
    rsa_public_key: Vec<u8>,
) -> v1::Proposal {
    use v1::create_proposal_request::Recipient;
    let request = v1::CreateProposalRequest {
        action: "ExportKeyVersion".to_owned(),
        resource: version.to_owned(),
        recipient: Some(Recipient::RsaPublicKey(rsa_public_key)),
        ..Default::default()
    };
    client.call(client.proposals().create_proposal(request)).await.unwrap().proposal.unwrap()
}

/// Proposes a use of `resource`, which `arguments` says.
///
/// # Errors
/// As the daemon answers.
pub async fn propose_use(
    client: &Client,
    action: &str,
    resource: &str,
    arguments: Arguments,
) -> Result<v1::Proposal, ClientError> {
    let request = v1::CreateProposalRequest {
        action: action.to_owned(),
        resource: resource.to_owned(),
        arguments: Some(arguments),
        ..Default::default()
    };
    Ok(client.call(client.proposals().create_proposal(request)).await?.proposal.unwrap())
}

/// Runs the proposal and gives the whole answer.
///
/// # Errors
/// As the daemon answers.
pub async fn execute_fully(
    client: &Client,
    proposal: &v1::Proposal,
) -> Result<v1::ExecuteProposalResponse, ClientError> {
    let request = v1::ExecuteProposalRequest { name: proposal.name.clone() };
    client.call(client.proposals().execute_proposal(request)).await
}
