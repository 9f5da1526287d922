//! People, programs and their grants on the wire.

use kms_core::caller::Grant;
use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::{parse, ring_name};
use crate::rows::{Stored, User};

/// Writes a user.
pub(crate) fn user_out(user: &Stored<User>) -> v1::User {
    v1::User {
        name: user.value.name.to_string(),
        ssh_keys: user.value.ssh_keys.iter().map(ToString::to_string).collect(),
        certificate_digests: user
            .value
            .certificate_digests
            .iter()
            .map(|digest| digest.as_bytes().to_vec())
            .collect(),
        unix_uids: user.value.unix_uids.clone(),
        grants: user.value.grants.iter().map(grant_out).collect(),
        etag: user.etag.clone(),
    }
}

/// Reads a grant.
pub(crate) fn grant(grant: &v1::Grant, home: &Home) -> Result<Grant, Refusal> {
    let ring = match grant.ring.as_str() {
        "" => None,
        name => Some(ring_name("grant.ring", name, home)?),
    };
    Ok(Grant { role: parse("grant.role", &grant.role)?, ring })
}

/// Writes a grant.
pub(crate) fn grant_out(grant: &Grant) -> v1::Grant {
    v1::Grant {
        role: grant.role.to_string(),
        ring: grant.ring.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}
