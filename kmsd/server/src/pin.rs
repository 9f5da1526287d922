//! Counts wrong PINs, per ring and per peer, so that nobody can lock another's programs out.
//!
//! The counters are rows of the store, so that a restart forgives nothing.

use std::sync::{Arc, Mutex, PoisonError};

use kms_core::id::{RingName, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::rows::{PinRole, Record};

/// How often one peer got one PIN wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinFailures {
    /// The ring.
    pub(crate) ring: RingName,
    /// Whose PIN.
    pub(crate) role: PinRole,
    /// Which peer: a principal's name.
    pub(crate) peer: String,
    /// The revision of the PIN that they were tried against; another PIN forgives them.
    pub(crate) pin_revision: u64,
    /// Wrong tries since the last right one.
    pub(crate) count: u32,
    /// No try before this moment.
    pub(crate) retry_at: Timestamp,
}

impl Record for PinFailures {
    fn place(&self) -> String {
        place(&self.ring, self.role, &self.peer)
    }
}

/// Where the counter of `peer` lies.
pub(crate) fn place(ring: &RingName, role: PinRole, peer: &str) -> String {
    format!("pin-failures/{ring}/{}/{peer}", role.as_str())
}

impl PinFailures {
    /// Whether this peer may try at `now`.
    pub(crate) fn may_try(&self, now: Timestamp) -> bool {
        self.count < LOCK_AT && now >= self.retry_at
    }

    /// The counter after one more wrong try at `now`: from the third on, each waits twice as long
    /// as the one before.
    pub(crate) fn after_wrong(&self, now: Timestamp) -> Self {
        let count = self.count.saturating_add(1);
        let wait_ms = match count.checked_sub(FREE_TRIES) {
            Some(over) => BACK_OFF_MS << over.min(8),
            None => 0,
        };
        Self { count, retry_at: now.plus_ms(wait_ms), ..self.clone() }
    }
}

/// Counts wrong passphrases for Unseal. While the root is closed no row can be written that could
/// be believed later, so this counter lives as long as the daemon; it delays, and argon2 does the
/// rest.
#[derive(Debug)]
pub(crate) struct Tries(Mutex<(u32, Timestamp)>);

impl Default for Tries {
    fn default() -> Self {
        Self(Mutex::new((0, Timestamp(0))))
    }
}

impl Tries {
    /// Counts a try at `now`; false when it comes too soon after the ones before it.
    pub(crate) fn begin(&self, now: Timestamp) -> bool {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now < tries.1 {
            return false;
        }
        let count = tries.0.saturating_add(1);
        *tries = (count, now.plus_ms(BACK_OFF_MS << count.min(6)));
        true
    }

    /// Forgets the tries, since one was right.
    pub(crate) fn right(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (0, Timestamp(0));
    }
}

/// Lets few PINs be hashed at a time: each takes 64 MiB.
#[derive(Clone, Debug)]
pub(crate) struct PinGuard(Arc<Semaphore>);

impl PinGuard {
    /// At most `hashed_at_once`.
    pub(crate) fn new(hashed_at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(hashed_at_once)))
    }

    /// Runs `hash` off the network threads when its turn comes. `None` when the daemon stops.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        hash: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let turn = self.0.clone().acquire_owned().await.ok()?;
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            hash()
        })
        .await
        .ok()
    }
}

const FREE_TRIES: u32 = 3;
const LOCK_AT: u32 = 10;
const BACK_OFF_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_tries_wait_longer_and_then_lock() {
        let name = "tenants/t/locations/l/keyRings/r".parse().unwrap();
        let mut failures = PinFailures {
            ring: name,
            role: PinRole::User,
            peer: "apps/a".into(),
            pin_revision: 1,
            count: 0,
            retry_at: Timestamp(0),
        };
        let mut waits = Vec::new();
        while failures.may_try(failures.retry_at) {
            let now = failures.retry_at;
            failures = failures.after_wrong(now);
            waits.push(failures.retry_at.0 - now.0);
        }
        assert_eq!(waits, [0, 0, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128_000]);
        assert!(!failures.may_try(Timestamp(u64::MAX)));
    }
}
