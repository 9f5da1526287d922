//! From a connection to a caller: the only place where callers are made, but for PIN logins and the
//! daemon itself.

use std::sync::{Mutex, PoisonError};

use kms_core::caller::{Authentication, Caller, Grant, Role};
use kms_core::id::{Digest, PrincipalKind, PrincipalName, Segment};
use kms_core::transcript::Channel;

use crate::context::Context;
use crate::failure::Failure;
use crate::rows::User;

/// What the transport knows of the peer.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Mutual TLS.
    Tls {
        /// SHA-256 of the client's certificate.
        certificate_digest: Digest,
        /// Whether the certificate chains to the client authority and is in its time. A workload's
        /// self-signed one does not, and names nobody.
        vouched_for: bool,
        /// What evidence is bound to.
        channel: Channel,
    },
    /// A Unix socket; the kernel names the peer's user.
    Unix {
        /// The peer's uid.
        uid: u32,
    },
}

/// A connection's peer, and who it was found to be.
#[derive(Debug)]
pub(crate) struct Connected {
    peer: Peer,
    /// As of an epoch of the context: whoever's rights have changed since is found out anew.
    caller: Mutex<Option<(u64, Caller)>>,
}

impl Connected {
    /// A connection of `peer`.
    pub(crate) fn new(peer: Peer) -> Self {
        Self { peer, caller: Mutex::default() }
    }

    /// Who it is now.
    ///
    /// # Errors
    /// As [`caller`].
    pub(crate) fn caller(&self, cx: &Context) -> Result<Caller, Failure> {
        let mut known = self.caller.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before the directory is: a change in between makes this one out of date, not later ones.
        let now = cx.epoch();
        match &*known {
            Some((epoch, caller)) if *epoch == now => Ok(caller.clone()),
            _ => {
                let caller = caller(cx, &self.peer)?;
                *known = Some((now, caller.clone()));
                Ok(caller)
            }
        }
    }
}

/// Who `peer` is. Whoever is not enrolled has no role: a program that the client authority or the
/// kernel vouches for may still log in by PIN, and a workload with a certificate of its own making
/// may ask for what evidence alone decides.
///
/// # Errors
/// Never for the names that are made here.
fn caller(cx: &Context, peer: &Peer) -> Result<Caller, Failure> {
    let directory = cx.directory();
    match peer {
        Peer::Tls { certificate_digest, vouched_for, channel } => {
            let is_theirs = |user: &&User| user.certificate_digests.contains(certificate_digest);
            let user = directory.users().find(is_theirs).filter(|_| *vouched_for);
            let kind = if *vouched_for { PrincipalKind::App } else { PrincipalKind::Workload };
            let stranger =
                || (kind, format!("{CERTIFICATE_PREFIX}{:.32}", certificate_digest.to_string()));
            let authentication = Authentication::MutualTls(*certificate_digest);
            Ok(known_or(user, stranger, authentication)?.over(channel.clone()))
        }
        Peer::Unix { uid } => {
            let user = directory.users().find(|user| user.unix_uids.contains(uid));
            let stranger = || (PrincipalKind::App, format!("{UID_PREFIX}{uid}"));
            known_or(user, stranger, Authentication::UnixPeer(*uid))
        }
    }
}

fn known_or(
    user: Option<&User>,
    stranger: impl FnOnce() -> (PrincipalKind, String),
    authentication: Authentication,
) -> Result<Caller, Failure> {
    let (principal, grants) = match user {
        Some(user) => (user.name.clone(), user.grants.clone()),
        None => {
            let (kind, name) = stranger();
            (PrincipalName { kind, name: segment(&name)? }, Vec::new())
        }
    };
    Ok(Caller::authenticated(principal, authentication, grants))
}

/// The daemon itself: marks start and stop, and enrols the first people of a new store.
///
/// # Errors
/// Never for the name that is made here.
pub(crate) fn daemon(roles: &[Role]) -> Result<Caller, Failure> {
    let principal = PrincipalName { kind: PrincipalKind::App, name: segment(DAEMON)? };
    let grants = roles.iter().map(|role| Grant { role: *role, ring: None }).collect();
    Ok(Caller::authenticated(principal, Authentication::Daemon, grants))
}

/// Whether a name is one that only the daemon gives, so that nobody can be enrolled under it.
pub(crate) fn is_reserved(name: &PrincipalName) -> bool {
    let name = name.name.as_str();
    name == DAEMON
        || [CERTIFICATE_PREFIX, UID_PREFIX, PIN_PREFIX].iter().any(|p| name.starts_with(p))
}

fn segment(text: &str) -> Result<Segment, Failure> {
    text.parse().map_err(|_| Failure::Bug("a generated name that is no name"))
}

/// Begins the names of those who log in by PIN.
pub(crate) const PIN_PREFIX: &str = "pin.";
const CERTIFICATE_PREFIX: &str = "cert.";
const UID_PREFIX: &str = "uid.";
const DAEMON: &str = "kmsd";
