//! The development identities: a local developer, an application, an officer, three approvers, and a program
//! for each role.

use std::sync::Arc;

use kms_core::caller::{Caller, Role};
use kms_proto::v1;
use secrecy::ExposeSecret as _;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

use super::folder::{Folder, write_private};
use super::tls::{NO_ROLE, certificate_digest, role_file};
use crate::cli::read_text;
use crate::context::{Context, random};
use crate::failure::Failure;
use crate::pipeline::{self, Operation};
use crate::server::ServeError;
use crate::{ops, setup};

/// Makes the approvers' SSH keys that are missing.
pub(super) fn create_keys(folder: &Folder) -> Result<(), ServeError> {
    let failed = |error: ssh_key::Error| ServeError::Failed(format!("SSH keys: {error}"));
    for name in APPROVERS {
        let path = folder.approver(name);
        let public_path = folder.approver(&format!("{name}.pub"));
        if public_path.exists() {
            continue;
        }
        let secret = PrivateKey::from(Ed25519Keypair::from_seed(&random()?));
        let text = secret.to_openssh(LineEnding::LF).map_err(failed)?;
        write_private(&path, text.as_bytes())?;
        let public = secret.public_key().to_openssh().map_err(failed)?;
        write_private(&public_path, format!("{public}\n").as_bytes())?;
    }
    Ok(())
}

/// Makes ring `dev` with its PINs and enrols everybody. Doing it again changes nothing.
pub(super) async fn enrol(cx: &Arc<Context>, folder: &Folder) -> Result<(), ServeError> {
    let daemon = setup::enroller()?;
    let ring = v1::CreateKeyRingRequest { name: "dev".to_owned(), ..Default::default() };
    once::<ops::CreateKeyRing>(cx, &daemon, ring).await?;
    for (role, file) in [(v1::PinRole::User, "user.pin"), (v1::PinRole::SecurityOfficer, "so.pin")]
    {
        let pin = folder.pin(file)?.expose_secret().to_owned();
        let (ring, role) = ("dev".to_owned(), role.into());
        let request = v1::SetTokenPinRequest { ring, role, pin };
        once::<ops::SetTokenPin>(cx, &daemon, request).await?;
    }
    for user in users(folder)? {
        let request = v1::CreateUserRequest { user: Some(user), request_id: Vec::new() };
        once::<ops::CreateUser>(cx, &daemon, request).await?;
    }
    Ok(())
}

fn users(folder: &Folder) -> Result<Vec<v1::User>, ServeError> {
    let grants = |roles: &[&str], ring: &str| {
        let grant = |role: &&str| v1::Grant {
            role: (*role).to_owned(),
            scope: ring.to_owned(),
            expire_time: None,
        };
        roles.iter().map(grant).collect()
    };
    let mut users = vec![
        v1::User {
            name: "users/developer".to_owned(),
            unix_uids: vec![rustix::process::getuid().as_raw()],
            // Everything but the officer's work, which no user of keys may do.
            grants: grants(&["auditor", "crypto-user", "key-manager", "operator"], ""),
            ..Default::default()
        },
        v1::User {
            name: "apps/dev".to_owned(),
            certificate_digests: vec![certificate_digest(folder, "client.crt")?],
            grants: grants(&["crypto-user", "key-manager"], "dev"),
            ..Default::default()
        },
        v1::User {
            name: "users/officer".to_owned(),
            certificate_digests: vec![certificate_digest(folder, "officer.crt")?],
            grants: grants(&["security-officer"], ""),
            ..Default::default()
        },
    ];
    // One role each, and one without: what a role may do shows only on somebody who holds no other.
    let programs = Role::ALL.map(|role| (role_file(role), Some(role)));
    for (name, role) in programs.into_iter().chain([(NO_ROLE.to_owned(), None)]) {
        users.push(v1::User {
            name: format!("apps/{name}"),
            certificate_digests: vec![certificate_digest(folder, &format!("{name}.crt"))?],
            grants: role.map(|role| grants(&[role.as_str()], "")).unwrap_or_default(),
            ..Default::default()
        });
    }
    for name in APPROVERS {
        let key = read_text(&folder.approver(&format!("{name}.pub")))?;
        users.push(v1::User {
            name: format!("users/{name}"),
            ssh_keys: vec![key.trim().to_owned()],
            grants: grants(&["custodian"], ""),
            ..Default::default()
        });
    }
    Ok(users)
}

/// Runs an operation that may have been done before a crash in the middle of the setup.
async fn once<O>(cx: &Arc<Context>, daemon: &Caller, wire: O::Wire) -> Result<(), ServeError>
where
    O: Operation + 'static,
    O::Wire: 'static,
    O::Reply: 'static,
{
    use kms_core::permit::Refusal;
    match pipeline::serve::<O>(cx, daemon, wire).await {
        Ok(_) | Err(Failure::Refused { refusal: Refusal::AlreadyExists, .. }) => Ok(()),
        Err(failure) => Err(failure.into()),
    }
}

/// Three people who can approve, by name.
pub(super) const APPROVERS: [&str; 3] = ["alice", "bob", "carol"];
