//! Room for operations that are under way, so that nobody keeps everybody else out: whoever administers gets
//! in when users of keys have taken all of theirs, and large streams, which take long, take none of it.

use std::sync::Arc;

use kms_core::caller::{Authentication, Caller, Role};
use kms_core::id::PrincipalKind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for what is under way.
#[derive(Debug)]
pub(crate) struct Places {
    /// Kept free for the daemon itself and for those who administer.
    administration: Arc<Semaphore>,
    /// Of programs and people that somebody vouches for.
    known: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Of who is let in and has no role: for logins, above all.
    strangers: Arc<Semaphore>,
    /// Of workloads, which anybody can be.
    workloads: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            administration: places(ADMINISTRATION_MAX),
            known: places(KNOWN_MAX),
            streams: places(STREAMS_MAX),
            strangers: places(STRANGERS_MAX),
            workloads: places(WORKLOADS_MAX),
        }
    }
}

impl Places {
    /// A place for one operation of `caller`. `None` when the daemon stops.
    pub(crate) async fn operation(&self, caller: &Caller) -> Option<OwnedSemaphorePermit> {
        let places = match caller.principal().kind {
            PrincipalKind::Workload => &self.workloads,
            _ if is_stranger(caller) => &self.strangers,
            _ => &self.known,
        };
        match places.clone().try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) if administers(caller) => self.administration.clone().acquire_owned().await.ok(),
            Err(_) => places.clone().acquire_owned().await.ok(),
        }
    }

    /// A place for one stream of large data. `None` when the daemon stops.
    pub(crate) async fn stream(&self) -> Option<OwnedSemaphorePermit> {
        self.streams.clone().acquire_owned().await.ok()
    }
}

/// Whether it is somebody without a role: each login waits for its turn of hashing, and must not keep those who
/// work waiting with it.
fn is_stranger(caller: &Caller) -> bool {
    caller.grants().is_empty() && caller.authentication() != Authentication::Daemon
}

/// Whether it is the daemon itself, or somebody who can stop what others do. Who logs in to a token makes and
/// uses its keys, and counts as a user of keys.
fn administers(caller: &Caller) -> bool {
    let more_than_uses = || caller.grants().iter().any(|grant| grant.role != Role::CryptoUser);
    match caller.authentication() {
        Authentication::Daemon => true,
        Authentication::Pin => false,
        _ => more_than_uses(),
    }
}

/// Operations under way at most, by who asks.
const KNOWN_MAX: usize = 1024;
const STRANGERS_MAX: usize = 128;
const WORKLOADS_MAX: usize = 128;
const ADMINISTRATION_MAX: usize = 64;
/// Streams under way at most: each may hold a key and an hour.
const STREAMS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use kms_core::rights::{Grant, Scope};

    use super::*;

    fn caller(role: Role) -> Caller {
        let grants = vec![Grant::over(role, Scope::Appliance)];
        Caller::authenticated("users/u".parse().unwrap(), Authentication::UnixPeer(0), grants)
    }

    #[tokio::test]
    async fn who_administers_gets_in_when_users_of_keys_have_taken_all_places() {
        let places = Places::default();
        let user = caller(Role::CryptoUser);
        let mut taken = Vec::new();
        for _ in 0..KNOWN_MAX {
            taken.push(places.operation(&user).await.unwrap());
        }
        let waits = |caller: &Caller| {
            let mut place = Box::pin(places.operation(caller));
            let mut task = std::task::Context::from_waker(std::task::Waker::noop());
            place.as_mut().poll(&mut task).is_pending()
        };
        assert!(waits(&user));
        assert!(!waits(&caller(Role::KeyManager)));
        assert!(!waits(&caller(Role::SecurityOfficer)));
        assert!(!waits(&caller(Role::Operator)));
        taken.pop();
        assert!(!waits(&user));
    }

    #[tokio::test]
    async fn who_has_no_role_takes_no_place_of_those_who_have() {
        let places = Places::default();
        let name = "apps/uid-1".parse().unwrap();
        let stranger = Caller::authenticated(name, Authentication::UnixPeer(1), Vec::new());
        let mut taken = Vec::new();
        for _ in 0..STRANGERS_MAX {
            taken.push(places.operation(&stranger).await.unwrap());
        }
        assert_eq!(places.strangers.available_permits(), 0);
        assert_eq!(places.known.available_permits(), KNOWN_MAX);
    }

    #[tokio::test]
    async fn streams_take_no_place_of_an_operation() {
        let places = Places::default();
        let mut taken = Vec::new();
        for _ in 0..STREAMS_MAX {
            taken.push(places.stream().await.unwrap());
        }
        assert!(places.operation(&caller(Role::CryptoUser)).await.is_some());
    }
}
