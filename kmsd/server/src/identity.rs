//! From a connection to a caller: the only place where callers are made, but for PIN logins and the
//! daemon itself.

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

/// Who `peer` is. Whoever is not enrolled is a workload without any role: it may ask for what
/// evidence alone decides.
///
/// # Errors
/// Never for the names that are made here.
pub(crate) fn caller(cx: &Context, peer: &Peer) -> Result<Caller, Failure> {
    let users = cx.users();
    match peer {
        Peer::Tls { certificate_digest, vouched_for, channel } => {
            let is_theirs = |user: &&User| user.certificate_digests.contains(certificate_digest);
            let user = users.values().find(is_theirs).filter(|_| *vouched_for);
            let stranger = || format!("cert-{}", &certificate_digest.to_string()[..32]);
            let authentication = Authentication::MutualTls(*certificate_digest);
            Ok(known_or(user, stranger, authentication)?.over(channel.clone()))
        }
        Peer::Unix { uid } => {
            let user = users.values().find(|user| user.unix_uids.contains(uid));
            known_or(user, || format!("uid-{uid}"), Authentication::UnixPeer(*uid))
        }
    }
}

fn known_or(
    user: Option<&User>,
    stranger: impl FnOnce() -> String,
    authentication: Authentication,
) -> Result<Caller, Failure> {
    let (principal, grants) = match user {
        Some(user) => (user.name.clone(), user.grants.clone()),
        None => {
            (PrincipalName { kind: PrincipalKind::Workload, name: segment(&stranger())? }, vec![])
        }
    };
    Ok(Caller::authenticated(principal, authentication, grants))
}

/// The daemon itself: marks start and stop, and enrols the first people of a new store.
///
/// # Errors
/// Never for the name that is made here.
pub(crate) fn daemon(roles: &[Role]) -> Result<Caller, Failure> {
    let principal = PrincipalName { kind: PrincipalKind::App, name: segment("kmsd")? };
    let grants = roles.iter().map(|role| Grant { role: *role, ring: None }).collect();
    Ok(Caller::authenticated(principal, Authentication::Daemon, grants))
}

fn segment(text: &str) -> Result<Segment, Failure> {
    text.parse().map_err(|_| Failure::Bug("a generated name that is no name"))
}
