//! What proves a principal to be itself: its credentials, until when they do, and that they were revoked.

use serde::{Deserialize, Serialize};

use crate::id::{Digest, IdError, PrincipalName, Segment, Timestamp};
use crate::lifecycle::CompromiseReason;
use crate::sshsig::SshCredential;

/// What proves it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Proof {
    /// Signatures over approvals, by this key or by whom this authority has certified.
    SshKey(Box<SshCredential>),
    /// The kernel's word that a local peer is this user.
    UnixUid(u32),
    /// The certificate with this SHA-256 digest, in a handshake.
    X509Digest(Digest),
}

impl Proof {
    /// Names it, whoever holds it: kind and value. Of an SSH key the value is the point on its curve, in
    /// whichever form it is enrolled.
    pub fn digest(&self) -> Digest {
        match self {
            Self::SshKey(ssh) => match ssh.key() {
                Some(key) => ssh_key_digest(&key.identity()),
                None => Digest::of(&[b"ssh-authority", ssh.to_string().as_bytes()]),
            },
            Self::UnixUid(uid) => Digest::of(&[b"uid", &uid.to_be_bytes()]),
            Self::X509Digest(digest) => Digest::of(&[b"x509", digest.as_bytes()]),
        }
    }

    /// What nobody else may hold if `holder` holds it: itself, or the names by which an authority knows the
    /// holder. The authority may speak for many.
    pub fn held_by(&self, holder: &PrincipalName) -> Vec<Digest> {
        match self {
            Self::SshKey(ssh) if ssh.key().is_none() => ssh.identities(holder),
            _ => vec![self.digest()],
        }
    }

    /// Whether it opens a connection. What only signs approvals does not.
    pub const fn logs_in(&self) -> bool {
        match self {
            Self::SshKey(_) => false,
            Self::UnixUid(_) | Self::X509Digest(_) => true,
        }
    }
}

/// Names the SSH key of that identity as a [`Proof`].
pub fn ssh_key_digest(identity: &Digest) -> Digest {
    Digest::of(&[b"ssh", identity.as_bytes()])
}

/// A credential of one principal.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// What proves the principal.
    pub proof: Proof,
    /// When it was enrolled.
    pub added_at: Timestamp,
    /// Until when it proves anything; for good when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// That it was revoked. It stays with its principal, so that nobody is ever known by it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
}

/// That a credential was revoked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: CompromiseReason,
}

impl Credential {
    /// A credential as of `now`, for good.
    pub const fn new(proof: Proof, now: Timestamp) -> Self {
        Self { proof, added_at: now, expires_at: None, revoked: None }
    }

    /// The last part of its name.
    ///
    /// # Errors
    /// Never for a digest.
    pub fn id(&self) -> Result<Segment, IdError> {
        format!("{:.32}", self.proof.digest().to_string()).parse()
    }

    /// Until when it proves its principal: not at all once it is revoked.
    pub fn until(&self) -> Timestamp {
        match self.revoked {
            Some(_) => Timestamp::default(),
            None => self.expires_at.unwrap_or(Timestamp::MAX),
        }
    }

    /// Whether it proves its principal at `now`.
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.until() > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_good_until_it_ends_or_is_revoked() {
        let good = Credential::new(Proof::UnixUid(7), Timestamp(1));
        assert!(good.is_good(Timestamp(u64::MAX - 1)));
        let ending = Credential { expires_at: Some(Timestamp(5)), ..good.clone() };
        assert!(ending.is_good(Timestamp(4)) && !ending.is_good(Timestamp(5)));
        let revoked = Some(Revocation { at: Timestamp(3), reason: CompromiseReason::Superseded });
        let revoked = Credential { revoked, ..good };
        assert!(!revoked.is_good(Timestamp(0)) && !revoked.is_good(Timestamp(4)));
    }

    #[test]
    fn kinds_do_not_share_names() {
        let digest = Digest([0; 32]);
        assert_ne!(Proof::UnixUid(0).digest(), Proof::X509Digest(digest).digest());
        assert_ne!(Proof::UnixUid(0).digest(), Proof::UnixUid(1).digest());
    }

    #[test]
    fn a_stored_credential_is_read_back() {
        let ending = Some(Timestamp(5));
        let credential = Credential::new(Proof::X509Digest(Digest([9; 32])), Timestamp(1));
        for credential in [credential.clone(), Credential { expires_at: ending, ..credential }] {
            let text = serde_json::to_string(&credential).unwrap();
            assert_eq!(serde_json::from_str::<Credential>(&text).unwrap(), credential);
        }
    }
}
