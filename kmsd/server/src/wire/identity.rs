//! People, programs, what proves them and what they may do, on the wire.

use kms_core::credential::{Credential, Proof};
use kms_core::id::{CredentialName, Digest, Home, PrincipalName, Timestamp};
use kms_core::permit::Refusal;
use kms_core::rights::{Grant, Scope};
use kms_proto::v1;

use super::{compromise_reason_out, invalid, parse, time, time_out};
use crate::rows::{Stored, User, UserState};

/// Writes a user, with what proves it at `now` and with what once did.
pub(crate) fn user_out(user: &Stored<User>, now: Timestamp) -> v1::User {
    let User { name, credentials, grants, state, created_at } = &user.value;
    let mut out = v1::User {
        name: name.to_string(),
        grants: grants.iter().map(grant_out).collect(),
        etag: user.etag.clone(),
        credentials: credentials.iter().map(|one| credential_out(name, one)).collect(),
        state: match state {
            UserState::Active => v1::UserState::Active,
            UserState::Deleted => v1::UserState::Deleted,
            UserState::Disabled => v1::UserState::Disabled,
        }
        .into(),
        create_time: time_out(*created_at),
        ..v1::User::default()
    };
    for credential in credentials.iter().filter(|credential| credential.is_good(now)) {
        match &credential.proof {
            Proof::SshKey(key) => out.ssh_keys.push(key.to_string()),
            Proof::UnixUid(uid) => out.unix_uids.push(*uid),
            Proof::X509Digest(digest) => out.certificate_digests.push(digest.as_bytes().to_vec()),
            _ => {}
        }
    }
    out
}

fn credential_out(principal: &PrincipalName, credential: &Credential) -> v1::Credential {
    use v1::credential::Proof as Out;
    let Credential { proof, added_at, expires_at, revoked } = credential;
    let named = |id| CredentialName { principal: principal.clone(), id }.to_string();
    v1::Credential {
        name: credential.id().map(named).unwrap_or_default(),
        proof: match proof {
            Proof::SshKey(key) => Some(Out::SshKey(key.to_string())),
            Proof::UnixUid(uid) => Some(Out::UnixUid(*uid)),
            Proof::X509Digest(digest) => Some(Out::CertificateDigest(digest.as_bytes().to_vec())),
            _ => None,
        },
        create_time: time_out(*added_at),
        expire_time: expires_at.and_then(time_out),
        revoke_time: revoked.and_then(|revoked| time_out(revoked.at)),
        revoke_reason: revoked
            .map_or(v1::CompromiseReason::Unspecified, |one| compromise_reason_out(one.reason))
            .into(),
    }
}

/// Reads what proves somebody.
pub(crate) fn proof(credential: v1::Credential) -> Result<Proof, Refusal> {
    use v1::credential::Proof as Wire;
    let problem = "expected an SSH key, a certificate's digest or a uid";
    Ok(match credential.proof.ok_or_else(|| invalid("credential", problem))? {
        Wire::SshKey(key) => Proof::SshKey(Box::new(parse("credential.ssh_key", &key)?)),
        Wire::CertificateDigest(digest) => {
            Proof::X509Digest(certificate_digest("credential.certificate_digest", &digest)?)
        }
        Wire::UnixUid(uid) => Proof::UnixUid(uid),
    })
}

/// Reads the digest of a certificate.
pub(crate) fn certificate_digest(field: &'static str, bytes: &[u8]) -> Result<Digest, Refusal> {
    Digest::try_from(bytes).map_err(|_| invalid(field, "expected SHA-256 digests, 32 bytes"))
}

/// Reads a grant; it must be of the tenant and location served here.
pub(crate) fn grant(grant: &v1::Grant, home: &Home) -> Result<Grant, Refusal> {
    const FIELD: &str = "grant.scope";
    let scope = match grant.scope.as_str() {
        "" => Scope::Appliance,
        text => Scope::parse(text, home).map_err(|error| invalid(FIELD, error))?,
    };
    let is_ours = match &scope {
        Scope::Appliance => true,
        Scope::Key(key) => key.ring.home == *home,
        Scope::Location(location) => location == home,
        Scope::Ring(ring) => ring.home == *home,
        Scope::Tenant(tenant) => *tenant == home.tenant,
        _ => false,
    };
    if !is_ours {
        return Err(invalid(FIELD, format!("this daemon serves {home} only")));
    }
    let expires_at = time("grant.expire_time", grant.expire_time)?;
    Ok(Grant { role: parse("grant.role", &grant.role)?, scope, expires_at })
}

/// Writes a grant.
pub(crate) fn grant_out(grant: &Grant) -> v1::Grant {
    v1::Grant {
        role: grant.role.to_string(),
        scope: match &grant.scope {
            Scope::Appliance => String::new(),
            scope => scope.to_string(),
        },
        expire_time: grant.expires_at.and_then(time_out),
    }
}
