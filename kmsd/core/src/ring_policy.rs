//! What the keys of a ring may be and do.
//!
//! A ring is hardened unless a security officer made it compatible, which the log tells. What both mean
//! is in [`RingKind`]; the rest of a policy only takes away.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::algorithm::{Algorithm, Usage};
use crate::key::Key;
use crate::mechanism::Mechanism;

/// How strictly PKCS#11 is read.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum RingKind {
    /// Old clients are let do what the standard allows: PKCS#1 v1.5 decryption and raw RSA, IVs of the
    /// caller, wrapping keys that nobody marked as trusted, one key that wraps and decrypts.
    Compatible,
    /// None of these.
    #[default]
    Hardened,
}

/// What becomes of keys that were made before the policy was and do not fit it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum LegacyKeys {
    /// They go on.
    Allowed,
    /// They are not used at all.
    Prohibited,
    /// They verify, decrypt and unwrap what they protected.
    #[default]
    UnprotectOnly,
}

/// What the keys of a ring may be and do. The default takes nothing away and is hardened.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RingPolicy {
    /// How strictly PKCS#11 is read.
    pub kind: RingKind,
    /// Algorithms that keys may have; empty means all.
    pub algorithms: BTreeSet<Algorithm>,
    /// Mechanisms that keys may be used with; empty means all.
    pub mechanisms: BTreeSet<Mechanism>,
    /// Labels that every key must have.
    pub required_labels: BTreeSet<String>,
    /// What becomes of keys that do not fit.
    pub legacy_keys: LegacyKeys,
}

/// What in a key does not fit the policy of its ring.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// The algorithm is not taken.
    #[error("the ring's policy does not take keys of {0}")]
    Algorithm(Algorithm),
    /// The daemon makes the IV.
    #[error("in a hardened ring the daemon makes the IV of {0}; leave initialization_vector empty")]
    CallersIv(Mechanism),
    /// A required label is missing.
    #[error("the ring's policy requires the label {0}")]
    Label(String),
    /// The mechanism is not taken.
    #[error("the ring's policy does not take {0}")]
    Mechanism(Mechanism),
    /// The mechanism needs a compatible ring.
    #[error("{0} is taken only in a compatible ring")]
    NeedsCompatibleRing(Mechanism),
}

impl RingPolicy {
    /// Whether a key of this kind fits.
    ///
    /// # Errors
    /// The first [`Misfit`].
    pub fn fits(
        &self,
        algorithm: Algorithm,
        mechanisms: &BTreeSet<Mechanism>,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Misfit> {
        if !self.algorithms.is_empty() && !self.algorithms.contains(&algorithm) {
            return Err(Misfit::Algorithm(algorithm));
        }
        mechanisms.iter().try_for_each(|mechanism| self.takes(*mechanism))?;
        match self.required_labels.iter().find(|label| !labels.contains_key(*label)) {
            Some(label) => Err(Misfit::Label(label.clone())),
            None => Ok(()),
        }
    }

    /// Whether the mechanism is taken at all.
    ///
    /// # Errors
    /// [`Misfit::Mechanism`] or [`Misfit::NeedsCompatibleRing`].
    pub fn takes(&self, mechanism: Mechanism) -> Result<(), Misfit> {
        if !self.mechanisms.is_empty() && !self.mechanisms.contains(&mechanism) {
            return Err(Misfit::Mechanism(mechanism));
        }
        if mechanism.needs_compatible_ring() && self.kind == RingKind::Hardened {
            return Err(Misfit::NeedsCompatibleRing(mechanism));
        }
        Ok(())
    }

    /// Whether an IV of the caller's is taken. One that is used twice breaks an AEAD mechanism altogether
    /// (SP 800-38D §8).
    ///
    /// # Errors
    /// [`Misfit::CallersIv`].
    pub fn takes_iv(&self, mechanism: Mechanism) -> Result<(), Misfit> {
        if mechanism.is_aead() && self.kind == RingKind::Hardened {
            return Err(Misfit::CallersIv(mechanism));
        }
        Ok(())
    }

    /// Whether `key`, as it stands, may be put to `usage`.
    ///
    /// # Errors
    /// The [`Misfit`] that stands in the way, where the policy does not let legacy keys do this.
    pub fn judge(&self, key: &Key, usage: Usage) -> Result<(), Misfit> {
        let lets = match self.legacy_keys {
            LegacyKeys::Allowed => true,
            LegacyKeys::Prohibited => false,
            LegacyKeys::UnprotectOnly => !usage.protects(),
        };
        match self.fits(key.algorithm, &key.mechanisms, &key.labels) {
            Err(misfit) if !lets => Err(misfit),
            _ => Ok(()),
        }
    }
}
