//! Counts wrong PINs, per ring and per peer, so that nobody can lock another's programs out.
//!
//! The counters are rows of the store, so that a restart forgives nothing.

use std::sync::{Arc, Mutex, PoisonError};

use kms_core::id::{RingName, Timestamp};
use kms_core::tries::Tries;
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
    /// The wrong ones.
    pub(crate) tries: Tries,
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

/// Counts wrong passphrases for Unseal. While the root is closed no row can be written that could
/// be believed later, so this counter lives as long as the daemon; it delays, and argon2 does the
/// rest.
#[derive(Debug)]
pub(crate) struct UnsealTries(Mutex<(u32, Timestamp)>);

impl Default for UnsealTries {
    fn default() -> Self {
        Self(Mutex::new((0, Timestamp(0))))
    }
}

impl UnsealTries {
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

const BACK_OFF_MS: u64 = 1_000;
