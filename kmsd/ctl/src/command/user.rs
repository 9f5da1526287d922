//! `kmsctl user` and `kmsctl whoami`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use der::Document;
use kms_client::v1;
use kms_core::caller::Role;
use kms_core::sshsig::SshCredential;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{PAGE_SIZE, all_pages, required};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input;
use crate::output::Report;
use crate::view;

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Enrol a person (users/NAME) or program (apps/NAME). Needs the role security-officer.
    #[command(after_help = CREATE_HELP)]
    Create {
        /// users/NAME or apps/NAME.
        name: String,
        /// File of SSH public keys, one a line, that sign its approvals, with options of authorized_keys
        /// before them: verify-required, cert-authority, principals="NAME,…". May be repeated.
        #[arg(long, value_name = "FILE")]
        ssh_key_file: Vec<PathBuf>,
        /// PEM file of a client certificate that logs it in. May be repeated.
        #[arg(long, value_name = "FILE")]
        certificate: Vec<PathBuf>,
        /// Local user of the appliance that it is. May be repeated.
        #[arg(long, value_name = "UID")]
        unix_uid: Vec<u32>,
    },
    /// List who is enrolled.
    #[command(after_help = LIST_HELP)]
    List,
    /// Grant a role. Needs the role security-officer.
    #[command(after_help = GRANT_HELP)]
    Grant {
        /// users/NAME or apps/NAME.
        principal: String,
        /// auditor, crypto-user, custodian, key-manager, operator or security-officer.
        #[arg(long, value_parser = role)]
        role: Role,
        /// Over this ring only; over the whole appliance when absent.
        #[arg(long)]
        ring: Option<String>,
    },
}

impl User {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        match self {
            Self::Create { name, ssh_key_file, certificate, unix_uid } => {
                let keys: Result<Vec<_>, _> = ssh_key_file.iter().map(|f| ssh_keys(f)).collect();
                let digests: Result<Vec<_>, _> =
                    certificate.iter().map(|f| certificate_digest(f)).collect();
                let user = v1::User {
                    name,
                    ssh_keys: keys?.into_iter().flatten().collect(),
                    certificate_digests: digests?,
                    unix_uids: unix_uid,
                    ..Default::default()
                };
                let request_id = input::request_id()?;
                let request = v1::CreateUserRequest { user: Some(user), request_id };
                let client = connection.open().await?;
                let answer = client
                    .retry(async || client.identity().create_user(request.clone()).await)
                    .await?;
                let user = view::user(required(answer.user)?);
                Ok(view::audited(Report::fields(user), answer.audit))
            }
            Self::List => {
                let client = connection.open().await?;
                let users = all_pages(async |page_token| {
                    let request = v1::ListUsersRequest { page_size: PAGE_SIZE, page_token };
                    let answer = client
                        .retry(async || client.identity().list_users(request.clone()).await)
                        .await?;
                    Ok((answer.users, answer.next_page_token))
                })
                .await?;
                let users = users.into_iter().map(view::user).collect();
                Ok(Report::rows("users", &["name", "grants", "unix_uids"], users))
            }
            Self::Grant { principal, role, ring } => {
                let (role, ring) = (role.to_string(), ring.unwrap_or_default());
                let request = v1::CreateBindingRequest {
                    principal,
                    grant: Some(v1::Grant { role, ring }),
                    request_id: input::request_id()?,
                };
                let client = connection.open().await?;
                let answer = client
                    .retry(async || client.identity().create_binding(request.clone()).await)
                    .await?;
                let user = view::user(required(answer.user)?);
                Ok(view::audited(Report::fields(user), answer.audit))
            }
        }
    }
}

/// `kmsctl whoami`.
pub(crate) async fn whoami(connection: &Connection) -> Result<Report, Failure> {
    let client = connection.open().await?;
    let answer =
        client.retry(async || client.identity().who_am_i(v1::WhoAmIRequest {}).await).await?;
    let v1::WhoAmIResponse { principal, authentication, grants, audit } = answer;
    let report = Report::fields(json!({
        "principal": principal,
        "authentication": authentication,
        "grants": grants.into_iter().map(view::grant).collect::<Vec<_>>(),
    }));
    Ok(view::audited(report, audit))
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|error: kms_core::caller::UnknownRole| error.to_string())
}

fn ssh_keys(path: &Path) -> Result<Vec<String>, Failure> {
    let text = input::read_text(path)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let parse = |line: &str| match line.parse::<SshCredential>() {
        Ok(key) => Ok(key.to_string()),
        Err(error) => Err(Failure::input(path.display(), error)),
    };
    let keys: Vec<String> = lines.map(parse).collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(Failure::input(path.display(), "holds no key")) } else { Ok(keys) }
}

/// SHA-256 of the certificate's DER.
fn certificate_digest(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = input::read_text(path)?;
    let end = "-----END CERTIFICATE-----";
    // A file may hold the whole chain; the first certificate is the client's own.
    let first = text.find(end).and_then(|at| text.get(..at + end.len())).unwrap_or(&text);
    match Document::from_pem(first.trim_start()) {
        Ok(("CERTIFICATE", der)) => Ok(Sha256::digest(der.as_bytes()).to_vec()),
        _ => Err(Failure::input(path.display(), "expected a certificate in PEM")),
    }
}

const CREATE_HELP: &str = "\
Examples:
  kmsctl user create users/alice --ssh-key-file alice.pub --unix-uid 1000
  kmsctl user create apps/web --certificate web.pem
A security key that must ask for its PIN or fingerprint, and an SSH authority that certifies asmith:
  sed 's/^/verify-required /' sk.pub > bob.keys
  kmsctl user create users/bob --ssh-key-file bob.keys
  sed 's/^/cert-authority,principals=\"asmith\" /' ca.pub > smith.keys
  kmsctl user create users/smith --ssh-key-file smith.keys

Grant roles afterwards with kmsctl user grant.";
const LIST_HELP: &str = "\
Example:
  kmsctl user list";
pub(crate) const WHOAMI_HELP: &str = "\
Example:
  kmsctl whoami";
const GRANT_HELP: &str = "\
Examples:
  kmsctl user grant users/alice --role key-manager --ring dev
  kmsctl user grant apps/web --role crypto-user --ring dev
  kmsctl user grant users/carol --role auditor";

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";

    #[test]
    fn keys_are_read_strictly_and_lose_their_comments() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.pub");
        std::fs::write(&path, format!("# mine\n{KEY} alice@laptop\n\n{KEY}\n")).unwrap();
        assert_eq!(ssh_keys(&path).unwrap(), [KEY, KEY]);
        let authority = format!("cert-authority,principals=\"asmith\" {KEY}");
        std::fs::write(&path, format!("{authority} ca of the house\n")).unwrap();
        assert_eq!(ssh_keys(&path).unwrap(), [authority]);
        for bad in ["", "ssh-rsa AAAA", "not a key"] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(ssh_keys(&path).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_certificate_is_known_by_the_digest_of_its_der() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cert.pem");
        // Any DER will do: the file is not interpreted here.
        let pem = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
        for text in [pem.to_owned(), format!("{pem}{pem}")] {
            std::fs::write(&path, text).unwrap();
            let digest = certificate_digest(&path).unwrap();
            assert_eq!(digest, Sha256::digest([0x30, 3, 2, 1, 1]).to_vec());
        }
        for bad in ["", "x", "-----BEGIN PRIVATE KEY-----\nMAMCAQE=\n-----END PRIVATE KEY-----\n"] {
            std::fs::write(&path, bad).unwrap();
            assert!(certificate_digest(&path).is_err(), "{bad}");
        }
    }
}
