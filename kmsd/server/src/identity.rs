//! From a connection to a caller: the only place where callers are made, but for PIN logins and the
//! daemon itself.

use std::sync::{Arc, Mutex, PoisonError};

use kms_core::caller::{Authentication, Caller, Role, Standing};
use kms_core::credential::Proof;
use kms_core::id::{Digest, PrincipalKind, PrincipalName, Segment, Timestamp};
use kms_core::rights::{Grant, Scope};
use kms_core::transcript::Channel;

use crate::context::Context;
use crate::directory::Enrolled;
use crate::failure::{Early, Failure};
use crate::rows::{self, User};

/// What the transport knows of the peer.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Mutual TLS.
    Tls {
        /// SHA-256 of the client's certificate.
        certificate_digest: Digest,
        /// Until when the certificate chains to the client authority and is in its time. A workload's
        /// self-signed one never does, and names nobody.
        vouched_until: Option<Timestamp>,
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
/// may ask for what evidence alone decides. Whoever was enrolled and is let in no more is known by name, and
/// refused everything.
///
/// # Errors
/// Never for the names that are made here.
fn caller(cx: &Context, peer: &Peer) -> Result<Caller, Failure> {
    let directory = cx.directory();
    match peer {
        Peer::Tls { certificate_digest, vouched_until, channel } => {
            let proof = Proof::X509Digest(*certificate_digest);
            let authentication = Authentication::MutualTls(*certificate_digest);
            // What was revoked stays so, whoever vouches for it or does not.
            let is_theirs = |holder: &&Enrolled| {
                vouched_until.is_some() || holder.until(&proof) == Timestamp::default()
            };
            let until = vouched_until.unwrap_or(Timestamp::MAX);
            let caller = match directory.holder(&proof).filter(is_theirs) {
                Some(holder) => enrolled(holder, &proof, authentication, until),
                None => {
                    let vouched_for = vouched_until.is_some();
                    let kind =
                        if vouched_for { PrincipalKind::App } else { PrincipalKind::Workload };
                    let name =
                        format!("{CERTIFICATE_PREFIX}{:.32}", certificate_digest.to_string());
                    stranger(kind, &name, authentication, until)?
                }
            };
            Ok(caller.over(channel.clone()))
        }
        Peer::Unix { uid } => {
            let proof = Proof::UnixUid(*uid);
            let authentication = Authentication::UnixPeer(*uid);
            match directory.holder(&proof) {
                Some(holder) => Ok(enrolled(holder, &proof, authentication, Timestamp::MAX)),
                None => {
                    let name = format!("{UID_PREFIX}{uid}");
                    stranger(PrincipalKind::App, &name, authentication, Timestamp::MAX)
                }
            }
        }
    }
}

/// Who `caller` is by now, as the store has it, when a row has changed by which it was who it is. A login by PIN
/// is over then.
///
/// # Errors
/// When the row cannot be read.
pub(crate) async fn anew(cx: &Context, caller: &Caller) -> Result<Caller, Early> {
    let [row] = caller.standing().rows.as_slice() else { return Ok(caller.clone()) };
    let stored = rows::load::<User>(cx, &row.place).await?;
    let stored = stored.ok_or(Failure::Bug("the row of a user is gone"))?;
    if stored.revision == row.revision {
        return Ok(caller.clone());
    }
    let (authentication, until) = (caller.authentication(), caller.standing().until);
    let proof = match authentication {
        Authentication::MutualTls(digest) => Proof::X509Digest(digest),
        Authentication::UnixPeer(uid) => Proof::UnixUid(uid),
        _ => {
            let (name, nothing) = (caller.principal().clone(), Standing::default());
            return Ok(Caller::enrolled(name, authentication, Arc::default(), nothing));
        }
    };
    let found = enrolled(&Enrolled::of(stored), &proof, authentication, until);
    Ok(found.over(caller.channel().clone()))
}

/// Somebody who is enrolled, or was; until `until` at most.
fn enrolled(
    holder: &Enrolled,
    proof: &Proof,
    authentication: Authentication,
    until: Timestamp,
) -> Caller {
    let standing = Standing { rows: vec![holder.row()], until: until.min(holder.until(proof)) };
    let name = holder.user().name.clone();
    Caller::enrolled(name, authentication, holder.rights(), standing)
}

/// Somebody whom nobody has enrolled.
fn stranger(
    kind: PrincipalKind,
    name: &str,
    authentication: Authentication,
    until: Timestamp,
) -> Result<Caller, Failure> {
    let principal = PrincipalName { kind, name: segment(name)? };
    let standing = Standing { until, ..Standing::default() };
    Ok(Caller::enrolled(principal, authentication, Arc::default(), standing))
}

/// The daemon itself: marks start and stop, and enrols the first people of a new store.
///
/// # Errors
/// Never for the name that is made here.
pub(crate) fn daemon(roles: &[Role]) -> Result<Caller, Failure> {
    let principal = PrincipalName { kind: PrincipalKind::App, name: segment(DAEMON)? };
    let grants = roles.iter().map(|role| Grant::over(*role, Scope::Appliance)).collect();
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
