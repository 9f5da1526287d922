//! How wrong PINs are slowed down and then stopped.
//!
//! The rule only; the daemon keeps the counter, per ring and per peer, so that nobody can lock
//! another's programs out.

use serde::{Deserialize, Serialize};

use crate::id::Timestamp;

/// How often a secret was tried wrongly in a row.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tries {
    /// Wrong tries since the last right one.
    pub count: u32,
    /// No try before this moment.
    pub retry_at: Timestamp,
}

impl Tries {
    /// Whether one more may be made at `now`.
    pub fn may_try(self, now: Timestamp) -> bool {
        self.count < LOCK_AT && now >= self.retry_at
    }

    /// Whether none may be made at `now`; then, from when on one may, if ever.
    pub fn waits(self, now: Timestamp) -> Option<Option<Timestamp>> {
        let retry_at = (self.count < LOCK_AT).then_some(self.retry_at);
        (!self.may_try(now)).then_some(retry_at)
    }

    /// The counter after one more wrong try at `now`: from the third on, each waits twice as long
    /// as the one before.
    #[must_use]
    pub fn after_wrong(self, now: Timestamp) -> Self {
        let count = self.count.saturating_add(1);
        let wait_ms = match count.checked_sub(FREE_TRIES) {
            Some(over) => BACK_OFF_MS << over.min(8),
            None => 0,
        };
        Self { count, retry_at: now.plus_ms(wait_ms) }
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
        let mut tries = Tries::default();
        let mut waits = Vec::new();
        while tries.may_try(tries.retry_at) {
            let now = tries.retry_at;
            tries = tries.after_wrong(now);
            waits.push(tries.retry_at.0 - now.0);
        }
        assert_eq!(waits, [0, 0, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128_000]);
        assert!(!tries.may_try(Timestamp(u64::MAX)));
        assert_eq!(tries.waits(Timestamp(u64::MAX)), Some(None));
    }

    #[test]
    fn who_waits_hears_until_when() {
        let tries = (0..3).fold(Tries::default(), |tries, _| tries.after_wrong(Timestamp(5)));
        assert_eq!(tries.waits(Timestamp(1004)), Some(Some(Timestamp(1005))));
        assert_eq!(tries.waits(Timestamp(1005)), None);
        assert_eq!(Tries::default().waits(Timestamp(0)), None);
    }
}
