//! `kmsctl user` and `kmsctl whoami`.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use der::Document;
use kms_client::v1;
use kms_core::caller::Role;
use kms_core::id::Timestamp;
use kms_core::lifecycle::CompromiseReason;
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
    /// Show somebody with all credentials, also those that were revoked.
    #[command(after_help = SHOW_HELP)]
    Show {
        /// users/NAME or apps/NAME.
        name: String,
    },
    /// List who is enrolled.
    #[command(after_help = LIST_HELP)]
    List,
    /// Let somebody in no more, at once, until enabled again. Needs the role security-officer.
    #[command(after_help = DISABLE_HELP)]
    Disable(Whom),
    /// Let somebody in again. Needs the role security-officer.
    #[command(after_help = ENABLE_HELP)]
    Enable(Whom),
    /// Let somebody in no more, at once and for good. Needs the role security-officer.
    #[command(after_help = DELETE_HELP)]
    Delete(Whom),
    /// Enrol another credential. Needs the role security-officer.
    #[command(after_help = ADD_HELP)]
    AddCredential {
        /// users/NAME or apps/NAME.
        principal: String,
        #[command(flatten)]
        proof: Proof,
        /// From when on it proves nothing any more (RFC 3339); never when absent.
        #[arg(long, value_name = "TIME", value_parser = input::timestamp)]
        expires: Option<Timestamp>,
    },
    /// Let nobody in by a credential any more, at once and for good. Needs the role security-officer.
    #[command(after_help = REVOKE_HELP)]
    RevokeCredential {
        /// users/NAME/credentials/ID, as `kmsctl user show` has it.
        name: String,
        /// Why.
        #[arg(long, value_name = "REASON",
            value_parser = PossibleValuesParser::new(CompromiseReason::ALL.map(CompromiseReason::as_str)))]
        reason: String,
    },
    /// Grant a role. Needs the role security-officer.
    #[command(after_help = GRANT_HELP)]
    Grant {
        /// users/NAME or apps/NAME.
        principal: String,
        /// auditor, crypto-user, custodian, key-manager, operator or security-officer.
        #[arg(long, value_parser = role)]
        role: Role,
        #[command(flatten)]
        scope: ScopeArgs,
        /// From when on it is not held any more (RFC 3339); for good when absent.
        #[arg(long, value_name = "TIME", value_parser = input::timestamp)]
        expires: Option<Timestamp>,
    },
    /// Take a role away, at once. Needs the role security-officer.
    #[command(after_help = UNGRANT_HELP)]
    Ungrant {
        /// users/NAME or apps/NAME.
        principal: String,
        /// The role.
        #[arg(long, value_parser = role)]
        role: Role,
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// List who holds which roles.
    #[command(after_help = BINDINGS_HELP)]
    Bindings {
        /// Only those of users/NAME or apps/NAME.
        principal: Option<String>,
        /// Only those that reach this ring or key.
        #[arg(long, value_name = "RING|KEY")]
        over: Option<String>,
    },
}

/// Who is meant, and as seen when.
#[derive(Debug, Args)]
pub(crate) struct Whom {
    /// users/NAME or apps/NAME.
    name: String,
    /// Only in this state.
    #[arg(long)]
    etag: Option<String>,
}

/// What proves somebody.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Proof {
    /// File of one SSH public key that signs approvals.
    #[arg(long, value_name = "FILE")]
    ssh_key_file: Option<PathBuf>,
    /// PEM file of a client certificate that logs in.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Local user of the appliance.
    #[arg(long, value_name = "UID")]
    unix_uid: Option<u32>,
}

/// Over what a role is held; over the whole appliance when nothing is said.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct ScopeArgs {
    /// Over this ring only.
    #[arg(long)]
    ring: Option<String>,
    /// Over this key only.
    #[arg(long, value_name = "RING/KEY")]
    key: Option<String>,
    /// Over this location only: tenants/TENANT/locations/LOCATION.
    #[arg(long, value_name = "NAME")]
    location: Option<String>,
    /// Over this tenant only.
    #[arg(long)]
    tenant: Option<String>,
}

impl ScopeArgs {
    fn text(self) -> String {
        let Self { ring, key, location, tenant } = self;
        let tenant = tenant.map(|tenant| format!("tenants/{tenant}"));
        ring.or(key).or(location).or(tenant).unwrap_or_default()
    }
}

impl Proof {
    fn read(self) -> Result<v1::credential::Proof, Failure> {
        use v1::credential::Proof as Wire;
        let Self { ssh_key_file, certificate, unix_uid } = self;
        if let Some(path) = ssh_key_file {
            return match ssh_keys(&path)?.as_slice() {
                [key] => Ok(Wire::SshKey(key.clone())),
                _ => Err(Failure::input(path.display(), "holds several keys; add one at a time")),
            };
        }
        if let Some(path) = certificate {
            return Ok(Wire::CertificateDigest(certificate_digest(&path)?));
        }
        let uid = unix_uid.ok_or_else(|| Failure::input("credential", "name one"))?;
        Ok(Wire::UnixUid(uid))
    }
}

/// Sends a change of one user and reports how it is then.
macro_rules! change {
    ($connection:expr, $method:ident($request:expr)) => {{
        let request = $request;
        let client = $connection.open().await?;
        let answer =
            client.retry(async || client.identity().$method(request.clone()).await).await?;
        let user = view::user(required(answer.user)?);
        Ok(view::audited(Report::fields(user), answer.audit))
    }};
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
                change!(
                    connection,
                    create_user(v1::CreateUserRequest { user: Some(user), request_id })
                )
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
                Ok(Report::rows("users", &["name", "state", "grants", "unix_uids"], users))
            }
            Self::Show { name } => {
                let request = v1::GetUserRequest { name };
                change!(connection, get_user(request))
            }
            Self::Disable(Whom { name, etag }) => {
                let (etag, request_id) = (etag.unwrap_or_default(), input::request_id()?);
                change!(connection, disable_user(v1::DisableUserRequest { name, etag, request_id }))
            }
            Self::Enable(Whom { name, etag }) => {
                let (etag, request_id) = (etag.unwrap_or_default(), input::request_id()?);
                change!(connection, enable_user(v1::EnableUserRequest { name, etag, request_id }))
            }
            Self::Delete(Whom { name, etag }) => {
                let (etag, request_id) = (etag.unwrap_or_default(), input::request_id()?);
                change!(connection, delete_user(v1::DeleteUserRequest { name, etag, request_id }))
            }
            Self::AddCredential { principal, proof, expires } => {
                let credential = v1::Credential {
                    proof: Some(proof.read()?),
                    expire_time: expires.map(input::wire_time),
                    ..Default::default()
                };
                let request = v1::AddCredentialRequest {
                    principal,
                    credential: Some(credential),
                    etag: String::new(),
                    request_id: input::request_id()?,
                };
                change!(connection, add_credential(request))
            }
            Self::RevokeCredential { name, reason } => {
                let number =
                    v1::CompromiseReason::from_str_name(&format!("COMPROMISE_REASON_{reason}"));
                let number = number.ok_or_else(|| Failure::input(&reason, "unknown reason"))?;
                let request = v1::RevokeCredentialRequest {
                    name,
                    reason: number.into(),
                    etag: String::new(),
                    request_id: input::request_id()?,
                };
                change!(connection, revoke_credential(request))
            }
            Self::Grant { principal, role, scope, expires } => {
                let request = v1::CreateBindingRequest {
                    principal,
                    grant: Some(v1::Grant {
                        role: role.to_string(),
                        scope: scope.text(),
                        expire_time: expires.map(input::wire_time),
                    }),
                    request_id: input::request_id()?,
                };
                change!(connection, create_binding(request))
            }
            Self::Ungrant { principal, role, scope } => {
                let (role, scope) = (role.to_string(), scope.text());
                let request = v1::DeleteBindingRequest {
                    principal,
                    grant: Some(v1::Grant { role, scope, expire_time: None }),
                    etag: String::new(),
                    request_id: input::request_id()?,
                };
                change!(connection, delete_binding(request))
            }
            Self::Bindings { principal, over } => {
                let client = connection.open().await?;
                let (principal, resource) =
                    (principal.unwrap_or_default(), over.unwrap_or_default());
                let bindings = all_pages(async |page_token| {
                    let request = v1::ListBindingsRequest {
                        principal: principal.clone(),
                        resource: resource.clone(),
                        page_size: PAGE_SIZE,
                        page_token,
                    };
                    let answer = client
                        .retry(async || client.identity().list_bindings(request.clone()).await)
                        .await?;
                    Ok((answer.bindings, answer.next_page_token))
                })
                .await?;
                let bindings = bindings.into_iter().map(view::binding).collect();
                Ok(Report::rows("bindings", BINDING_COLUMNS, bindings))
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

const BINDING_COLUMNS: &[&str] = &["principal", "role", "scope", "expire_time"];
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
const SHOW_HELP: &str = "\
Example:
  kmsctl user show users/alice";
const DISABLE_HELP: &str = "\
Example:
  kmsctl user disable users/alice

Open connections end with it, and approvals that were handed in do not count meanwhile.";
const ENABLE_HELP: &str = "\
Example:
  kmsctl user enable users/alice

Nobody enables themselves.";
const DELETE_HELP: &str = "\
Example:
  kmsctl user delete users/alice

The name and the credentials are never used again.";
const ADD_HELP: &str = "\
Examples:
  kmsctl user add-credential apps/web --certificate web-2027.pem --expires 2028-01-01T00:00:00Z
  kmsctl user add-credential users/alice --ssh-key-file new.pub

Nobody adds one to themselves.";
const REVOKE_HELP: &str = "\
Example:
  kmsctl user revoke-credential apps/web/credentials/2f1e08d5c34b9a77 --reason SUPERSEDED

It cannot be taken back: the credential is never enrolled again.";
const UNGRANT_HELP: &str = "\
Example:
  kmsctl user ungrant users/alice --role key-manager --ring dev";
const BINDINGS_HELP: &str = "\
Examples:
  kmsctl user bindings
  kmsctl user bindings users/alice
  kmsctl user bindings --over dev/k1";
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
  kmsctl user grant apps/ci --role crypto-user --key dev/release --expires 2027-01-01T00:00:00Z
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
