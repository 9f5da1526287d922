//! Who asks: a principal, how it proved itself, and the roles it holds.

use core::fmt;
use core::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, PrincipalName, Resource, RingName};
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

/// A role held over one ring or over the whole appliance.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// What may be done.
    pub role: Role,
    /// Over which ring; over everything when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingName>,
}

impl Grant {
    fn covers(&self, resource: &Resource) -> bool {
        self.ring.as_ref().is_none_or(|ring| resource.ring() == Some(ring))
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
    grants: Arc<[Grant]>,
    channel: Arc<Channel>,
}

impl Caller {
    /// States that `principal` has proven itself by `authentication` and holds `grants`.
    pub fn authenticated(
        principal: PrincipalName,
        authentication: Authentication,
        grants: Vec<Grant>,
    ) -> Self {
        Self { principal, authentication, grants: grants.into(), channel: Arc::default() }
    }

    /// The same caller, over `channel`.
    #[must_use]
    pub fn over(self, channel: Channel) -> Self {
        Self { channel: channel.into(), ..self }
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

    /// The roles it holds.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The first of `roles` that the caller holds over `resource`.
    pub fn role_over(&self, roles: &[Role], resource: &Resource) -> Option<Role> {
        let held = |role: &&Role| {
            self.grants.iter().any(|grant| grant.role == **role && grant.covers(resource))
        };
        roles.iter().find(held).copied()
    }

    /// Whether the caller holds any role at all over `resource`: whether it may learn that the
    /// resource exists.
    pub fn knows(&self, resource: &Resource) -> bool {
        self.grants.iter().any(|grant| grant.covers(resource))
    }
}
