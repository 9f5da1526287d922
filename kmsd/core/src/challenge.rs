//! Nonces for evidence: issued, expiring, redeemable once.
//!
//! The rules only; the daemon draws the nonce, reads the clock and keeps the table.

use std::collections::HashMap;

use crate::id::{Digest, Nonce, PrincipalName, Timestamp, VersionName};

/// A nonce that was issued and not yet used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge {
    /// Who asked for it; nobody else may redeem it.
    pub principal: PrincipalName,
    /// Identifies the channel it was asked on: SHA-256 of the client's certificate and exporter.
    pub channel_digest: Digest,
    /// The version to be released.
    pub version: VersionName,
    /// The end of its life.
    pub expires_at: Timestamp,
}

/// Why a challenge is not redeemed. The caller's mistake or an attack.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChallengeError {
    /// Issued, and its time is over.
    #[error("the challenge has expired; ask for a new one")]
    Expired,
    /// Issued to another caller or channel, or for another key.
    #[error("the challenge was issued for another caller, connection or key")]
    Mismatch,
    /// Too many are open; this caller's or all.
    #[error("too many open challenges; redeem them or wait until they expire")]
    TooMany,
    /// Never issued, already redeemed, or long expired.
    #[error("the challenge is unknown or already used; ask for a new one")]
    Unknown,
}

/// The open challenges.
#[derive(Debug, Default)]
pub struct Challenges(HashMap<Nonce, Challenge>);

impl Challenges {
    /// Takes note of a challenge that is being issued at `now`.
    ///
    /// # Errors
    /// [`ChallengeError::TooMany`] when the caller or the table is at its bound.
    pub fn issue(
        &mut self,
        nonce: Nonce,
        challenge: Challenge,
        now: Timestamp,
    ) -> Result<(), ChallengeError> {
        if self.0.len() >= OPEN_MAX {
            self.0.retain(|_, open| open.expires_at > now);
        }
        if !self.has_room(&challenge.principal, now) {
            return Err(ChallengeError::TooMany);
        }
        self.0.insert(nonce, challenge);
        Ok(())
    }

    /// Whether `principal` may be given one more at `now`.
    pub fn has_room(&self, principal: &PrincipalName, now: Timestamp) -> bool {
        let open = |open: &&Challenge| open.expires_at > now;
        let same = |open: &&Challenge| open.principal == *principal;
        self.0.values().filter(open).filter(same).count() < OPEN_PER_CALLER_MAX
            && (self.0.len() < OPEN_MAX || self.0.values().filter(open).count() < OPEN_MAX)
    }

    /// Uses the challenge up, whatever comes of it.
    ///
    /// # Errors
    /// [`ChallengeError`] when it is unknown, over, or was issued for something else.
    pub fn redeem(
        &mut self,
        nonce: &Nonce,
        principal: &PrincipalName,
        channel_digest: &Digest,
        version: &VersionName,
        now: Timestamp,
    ) -> Result<(), ChallengeError> {
        let issued = self.0.remove(nonce).ok_or(ChallengeError::Unknown)?;
        if issued.expires_at <= now {
            Err(ChallengeError::Expired)
        } else if issued.principal != *principal
            || issued.channel_digest != *channel_digest
            || issued.version != *version
        {
            Err(ChallengeError::Mismatch)
        } else {
            Ok(())
        }
    }
}

/// How long a challenge lives.
pub const LIFETIME_MS: u64 = 60_000;
/// Most challenges open at a time.
const OPEN_MAX: usize = 65_536;
/// Most challenges open for one caller.
const OPEN_PER_CALLER_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge() -> Challenge {
        Challenge {
            principal: "apps/a".parse().unwrap(),
            channel_digest: Digest([0; 32]),
            version: "tenants/t/locations/l/keyRings/r/keys/k/versions/1".parse().unwrap(),
            expires_at: Timestamp(100),
        }
    }

    fn redeem(table: &mut Challenges, c: &Challenge, now: u64) -> Result<(), ChallengeError> {
        table.redeem(&Nonce([7; 32]), &c.principal, &c.channel_digest, &c.version, Timestamp(now))
    }

    #[test]
    fn a_challenge_is_good_once_in_its_time_for_its_caller() {
        let mut table = Challenges::default();
        let issue = |table: &mut Challenges| {
            table.issue(Nonce([7; 32]), challenge(), Timestamp(0)).unwrap();
        };
        issue(&mut table);
        assert_eq!(redeem(&mut table, &challenge(), 99), Ok(()));
        assert_eq!(redeem(&mut table, &challenge(), 99), Err(ChallengeError::Unknown));
        issue(&mut table);
        assert_eq!(redeem(&mut table, &challenge(), 100), Err(ChallengeError::Expired));
        for other in [
            Challenge { principal: "apps/b".parse().unwrap(), ..challenge() },
            Challenge { channel_digest: Digest([1; 32]), ..challenge() },
            Challenge { version: challenge().version.key.version(2), ..challenge() },
        ] {
            issue(&mut table);
            assert_eq!(redeem(&mut table, &other, 99), Err(ChallengeError::Mismatch));
            assert_eq!(redeem(&mut table, &challenge(), 99), Err(ChallengeError::Unknown));
        }
    }

    #[test]
    fn one_caller_cannot_fill_the_table() {
        let mut table = Challenges::default();
        for n in 0..16u8 {
            table.issue(Nonce([n; 32]), challenge(), Timestamp(0)).unwrap();
        }
        let nonce = Nonce([99; 32]);
        assert_eq!(table.issue(nonce, challenge(), Timestamp(0)), Err(ChallengeError::TooMany));
        let other = Challenge { principal: "apps/b".parse().unwrap(), ..challenge() };
        assert_eq!(table.issue(nonce, other, Timestamp(0)), Ok(()));
    }
}
