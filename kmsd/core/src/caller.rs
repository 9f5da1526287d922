//! Who asks: a principal, how it proved itself, and the roles it holds.

use core::fmt;
use core::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, PrincipalName, Resource, Timestamp};
use crate::rights::{Grant, Rights};
use crate::transcript::Channel;

/// What a principal may do; none does another's work.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// Reads everything, changes nothing.
    Auditor,
    /// Uses keys of a ring.
    CryptoUser,
    /// Holds a share of the root.
    Custodian,
    /// Makes, turns and ends keys of a ring; never uses them.
    KeyManager,
    /// Runs the appliance.
    Operator,
    /// Enrols people, makes rings, sets policy.
    SecurityOfficer,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Auditor,
        Self::CryptoUser,
        Self::Custodian,
        Self::KeyManager,
        Self::Operator,
        Self::SecurityOfficer,
    ];

    /// The published name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::CryptoUser => "crypto-user",
            Self::Custodian => "custodian",
            Self::KeyManager => "key-manager",
            Self::Operator => "operator",
            Self::SecurityOfficer => "security-officer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no role. The caller's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "unknown role; roles are auditor, crypto-user, custodian, key-manager, operator, security-officer"
)]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// How the caller proved who it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Authentication {
    /// The daemon itself, for start and stop.
    Daemon,
    /// Mutual TLS; the digest is SHA-256 of the client's certificate.
    MutualTls(Digest),
    /// A key ring's PIN over an authenticated channel.
    Pin,
    /// The kernel's word for the peer of a Unix socket (SO_PEERCRED).
    UnixPeer(u32),
}

impl Authentication {
    /// The published name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::MutualTls(_) => "mutual-tls",
            Self::Pin => "pin",
            Self::UnixPeer(_) => "unix-peer",
        }
    }
}

/// A caller whose identity is established. Made by the daemon's `identity` module, and by its
/// PIN login. It goes along with each request, so its copies share what they say.
#[derive(Clone, Debug)]
pub struct Caller {
    principal: PrincipalName,
    authentication: Authentication,
    rights: Arc<Rights>,
    standing: Arc<Standing>,
    channel: Arc<Channel>,
}

/// By what a caller is who it is, and until when.
#[derive(Debug, Eq, PartialEq)]
pub struct Standing {
    /// The stored rows that say so. What was decided for the caller holds as long as they stand.
    pub rows: Vec<RowAt>,
    /// From then on it is let in no more; the beginning of time for somebody who is shut out already.
    pub until: Timestamp,
}

/// A row in one of its states.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RowAt {
    /// Where it lies.
    pub place: String,
    /// How often it was written.
    pub revision: u64,
}

/// Nothing in the store says so, and nothing ends it.
impl Default for Standing {
    fn default() -> Self {
        Self { rows: Vec::new(), until: Timestamp::MAX }
    }
}

impl Caller {
    /// States that `principal` has proven itself by `authentication` and holds `grants`.
    pub fn authenticated(
        principal: PrincipalName,
        authentication: Authentication,
        grants: Vec<Grant>,
    ) -> Self {
        let rights = Arc::new(Rights::of(grants));
        Self::enrolled(principal, authentication, rights, Standing::default())
    }

    /// As [`Caller::authenticated`], for who is enrolled: `rights` are made once for all its connections.
    pub fn enrolled(
        principal: PrincipalName,
        authentication: Authentication,
        rights: Arc<Rights>,
        standing: Standing,
    ) -> Self {
        let standing = Arc::new(standing);
        Self { principal, authentication, rights, standing, channel: Arc::default() }
    }

    /// The same caller, over `channel`.
    #[must_use]
    pub fn over(self, channel: Channel) -> Self {
        Self { channel: channel.into(), ..self }
    }

    /// The same caller, let in by `other`, so that it stands no longer than that one.
    #[must_use]
    pub fn let_in_by(self, other: &Self) -> Self {
        Self { standing: other.standing.clone(), ..self }
    }

    /// The channel that it speaks over.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Who it is.
    pub const fn principal(&self) -> &PrincipalName {
        &self.principal
    }

    /// How it proved so.
    pub const fn authentication(&self) -> Authentication {
        self.authentication
    }

    /// By what it is who it is.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether it is let in at `now`: neither its user is disabled, nor its credential revoked or expired.
    pub fn is_let_in(&self, now: Timestamp) -> bool {
        self.standing.until > now
    }

    /// The roles it holds, those that have ended among them.
    pub fn grants(&self) -> &[Grant] {
        self.rights.grants()
    }

    /// What it may do.
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// The first of `roles` that the caller holds over `resource` at `now`.
    pub fn role_over(&self, roles: &[Role], resource: &Resource, now: Timestamp) -> Option<Role> {
        self.rights.role_over(roles, resource, now)
    }

    /// Whether the caller holds any role at all over `resource` at `now`: whether it may learn that the
    /// resource exists.
    pub fn knows(&self, resource: &Resource, now: Timestamp) -> bool {
        self.rights.reach(resource, now)
    }
}
