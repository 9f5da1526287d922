//! The step with two approvers: a destroy that one signature does not move, and two do.

use std::path::Path;

use kms_client::Client;
use kms_core::quorum::NAMESPACE;
use kms_proto::v1;
use kms_proto::v1::approver::Approver as Wire;
use ssh_key::{HashAlg, LineEnding, PrivateKey};
use tokio::process::Command;

use super::client::{Refusal, expect_refusal, name};
use super::{TourError, say};
use crate::dev::folder::{Folder, write_private};
use crate::dev::people::APPROVERS;

/// Makes a key whose destruction needs two of three, and destroys it.
pub(super) async fn destroy(client: &Client, folder: &Folder) -> Result<(), TourError> {
    let version = guarded_key(client).await?;
    let request = v1::DestroyKeyVersionRequest { name: version.clone(), ..Default::default() };
    let answer = client.call(client.keys().destroy_key_version(request)).await;
    expect_refusal(answer, "NEEDS_APPROVAL")?;

    let request = v1::CreateProposalRequest {
        action: "DestroyKeyVersion".to_owned(),
        resource: version,
        ..Default::default()
    };
    let proposal = client.call(client.proposals().create_proposal(request)).await?.proposal;
    let proposal = proposal.ok_or("the daemon answered without the proposal")?;
    let (name, document) = (proposal.name, proposal.document);
    let tool = approve(client, folder, &name, &document, APPROVERS[0]).await?;
    let execute = || v1::ExecuteProposalRequest { name: name.clone() };
    let answer = client.call(client.proposals().execute_proposal(execute())).await;
    let Refusal { reason, message } = expect_refusal(answer, "UNAPPROVED")?;
    approve(client, folder, &name, &document, APPROVERS[1]).await?;
    client.call(client.proposals().execute_proposal(execute())).await?;
    say(
        6,
        &format!(
            "destroyed a key that needs 2 approvals (signed with {tool}): with one: {reason}: {message}; with two: done"
        ),
    );
    Ok(())
}

async fn guarded_key(client: &Client) -> Result<String, TourError> {
    let person =
        |name: &&str| v1::Approver { approver: Some(Wire::Principal(format!("users/{name}"))) };
    let members = APPROVERS.iter().map(person).collect();
    let quorum = v1::QuorumPolicy {
        guards: vec!["DestroyKeyVersion".to_owned()],
        approvers: Some(v1::Approvers { n: 2, members }),
    };
    let key = v1::Key {
        name: name("dev/tour-retired")?,
        algorithm: v1::Algorithm::GenericSecret.into(),
        quorum: Some(quorum),
        ..Default::default()
    };
    let request = v1::CreateKeyRequest { key: Some(key), ..Default::default() };
    let made = client.call(client.keys().create_key(request)).await?;
    let version = made.version.ok_or("the daemon answered without the version")?.name;
    let request = v1::DeactivateKeyVersionRequest { name: version.clone(), ..Default::default() };
    client.call(client.keys().deactivate_key_version(request)).await?;
    Ok(version)
}

async fn approve(
    client: &Client,
    folder: &Folder,
    name: &str,
    document: &[u8],
    approver: &str,
) -> Result<&'static str, TourError> {
    let (ssh_signature, tool) = sign(folder, document, approver).await?;
    let request = v1::ApproveProposalRequest {
        name: name.to_owned(),
        approver: format!("users/{approver}"),
        ssh_signature,
    };
    client.call(client.proposals().approve_proposal(request)).await?;
    Ok(tool)
}

/// Signs as `ssh-keygen -Y sign` does; by that program where it is installed.
async fn sign(
    folder: &Folder,
    document: &[u8],
    approver: &str,
) -> Result<(String, &'static str), TourError> {
    let key = folder.approver(approver);
    let file = folder.path().join("tour-proposal.json");
    write_private(&file, document)?;
    let signed = by_ssh_keygen(&key, &file).await;
    std::fs::remove_file(&file)?;
    if let Some(signature) = signed? {
        return Ok((signature, "ssh-keygen -Y sign"));
    }
    let secret = PrivateKey::read_openssh_file(&key)?;
    let signature = secret.sign(NAMESPACE, HashAlg::Sha512, document)?;
    Ok((signature.to_pem(LineEnding::LF)?, "the ssh-key crate; ssh-keygen is not installed"))
}

async fn by_ssh_keygen(key: &Path, file: &Path) -> Result<Option<String>, TourError> {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"]).arg(key).arg(file);
    let output = match command.output().await {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let signature_file = file.with_extension("json.sig");
    let signature = std::fs::read_to_string(&signature_file)?;
    std::fs::remove_file(&signature_file)?;
    Ok(Some(signature))
}
