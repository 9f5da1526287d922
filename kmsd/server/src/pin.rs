//! Counts wrong PINs, per ring and per peer, so that nobody can lock another's programs out.
//!
//! The counters are rows of the store, so that a restart forgives nothing.

use std::sync::{Arc, Mutex, PoisonError};

use kms_core::id::{RingName, Timestamp};
use kms_core::tries::Tries;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::rows::{PinRole, Record};

/// How often one peer got one PIN wrong; or, since rings that are not there must look like others and
/// invented names must fill no disk, all PINs of all of those.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinFailures {
    /// The ring.
    pub(crate) ring: RingName,
    /// Whose PIN.
    pub(crate) role: PinRole,
    /// Whether the ring is not there. Then ring and role are those that were tried last: they stand here so
    /// that the row is as long as others.
    #[serde(default)]
    pub(crate) unknown: bool,
    /// Which peer: a principal's name.
    pub(crate) peer: String,
    /// The revision of the PIN that they were tried against; another PIN forgives them.
    pub(crate) pin_revision: u64,
    /// The wrong ones.
    pub(crate) tries: Tries,
}

impl Record for PinFailures {
    fn place(&self) -> String {
        if self.unknown {
            // As long as others, about; the daemon serves one home.
            format!("pin-failures-unknown/{}/{}", self.ring.home, self.peer)
        } else {
            place(&self.ring, self.role, &self.peer)
        }
    }
}

/// Where the counter of `peer` lies, for a ring that is there.
pub(crate) fn place(ring: &RingName, role: PinRole, peer: &str) -> String {
    format!("{}{}/{peer}", prefix(ring), role.as_str())
}

/// Where the counters of a ring lie.
pub(crate) fn prefix(ring: &RingName) -> String {
    format!("pin-failures/{ring}/")
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

/// Lets few PINs be hashed at a time: each takes 64 MiB. And lets one try be counted at a time.
#[derive(Clone, Debug)]
pub(crate) struct PinGuard {
    hashed_at_once: Arc<Semaphore>,
    counting: Arc<tokio::sync::Mutex<()>>,
}

impl PinGuard {
    /// At most `hashed_at_once`.
    pub(crate) fn new(hashed_at_once: usize) -> Self {
        let hashed_at_once = Arc::new(Semaphore::new(hashed_at_once));
        Self { hashed_at_once, counting: Arc::default() }
    }

    /// A turn to count a try. Rings that are not there share a counter: tries that ran into each other
    /// there, and not elsewhere, would tell which are there. Hashing takes far longer than counting, so
    /// nobody waits longer for it.
    pub(crate) async fn counting(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.counting.lock().await
    }

    /// Runs `hash` off the network threads when its turn comes. `None` when the daemon stops.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        hash: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let turn = self.hashed_at_once.clone().acquire_owned().await.ok()?;
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            hash()
        })
        .await
        .ok()
    }
}

const BACK_OFF_MS: u64 = 1_000;
