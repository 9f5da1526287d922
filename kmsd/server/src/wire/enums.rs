//! Published enums: the wire's numbers follow the order of the rules' own lists, one later, since 0 is
//! "not set". A test compares the names.

use std::collections::BTreeSet;

use kms_core::algorithm::{Algorithm, Usage};
use kms_core::key::Origin;
use kms_core::lifecycle::{CompromiseReason, State};
use kms_core::mechanism::{Hash, Mechanism};
use kms_core::permit::Refusal;
use kms_core::ring_policy::{LegacyKeys, RingKind};
use kms_proto::v1;

use super::invalid;

/// Reads an algorithm.
pub(crate) fn algorithm(number: i32) -> Result<Algorithm, Refusal> {
    let problem = || invalid("algorithm", "expected one of the published algorithms");
    numbered(Algorithm::ALL, number).ok_or_else(problem)
}

/// Writes an algorithm.
pub(crate) fn algorithm_out(algorithm: Algorithm) -> i32 {
    number_of(Algorithm::ALL, algorithm)
}

/// Reads a mechanism that need not be named.
pub(crate) fn mechanism(field: &'static str, number: i32) -> Result<Option<Mechanism>, Refusal> {
    if number == 0 {
        return Ok(None);
    }
    let problem = || invalid(field, "expected one of the published mechanisms, or none");
    numbered(Mechanism::ALL, number).map(Some).ok_or_else(problem)
}

/// Holds that a mechanism derives keys out of secrets.
pub(crate) fn derivation(field: &'static str, mechanism: Mechanism) -> Result<Mechanism, Refusal> {
    let derives = mechanism.offers(Usage::Derive) && mechanism.hash().is_some();
    let problem = || invalid(field, "expected an HKDF or a KDF_COUNTER mechanism");
    Some(mechanism).filter(|_| derives).ok_or_else(problem)
}

/// Reads a set of mechanisms.
pub(crate) fn mechanisms(
    field: &'static str,
    numbers: &[i32],
) -> Result<BTreeSet<Mechanism>, Refusal> {
    let problem = || invalid(field, "expected published mechanisms");
    numbers.iter().map(|number| numbered(Mechanism::ALL, *number).ok_or_else(problem)).collect()
}

/// Writes a mechanism.
pub(crate) fn mechanism_out(mechanism: Mechanism) -> i32 {
    number_of(Mechanism::ALL, mechanism)
}

/// Writes a set of mechanisms.
pub(crate) fn mechanisms_out(mechanisms: &BTreeSet<Mechanism>) -> Vec<i32> {
    mechanisms.iter().copied().map(mechanism_out).collect()
}

/// Reads a hash function.
pub(crate) fn hash(number: i32) -> Result<Hash, Refusal> {
    let problem = || invalid("hash", "expected one of the published hash functions");
    numbered(&Hash::ALL, number).ok_or_else(problem)
}

/// Reads a set of usages.
pub(crate) fn usages(field: &'static str, numbers: &[i32]) -> Result<BTreeSet<Usage>, Refusal> {
    let problem = || invalid(field, "expected published usages");
    numbers.iter().map(|number| numbered(&Usage::ALL, *number).ok_or_else(problem)).collect()
}

/// Writes usages.
pub(crate) fn usages_out(usages: &BTreeSet<Usage>) -> Vec<i32> {
    usages.iter().map(|usage| number_of(&Usage::ALL, *usage)).collect()
}

/// Writes a state.
pub(crate) fn state_out(state: State) -> i32 {
    number_of(&State::ALL, state)
}

/// Writes where material comes from.
pub(crate) fn origin_out(origin: Origin) -> v1::Origin {
    match origin {
        Origin::Copied => v1::Origin::Copied,
        Origin::Derived => v1::Origin::Derived,
        Origin::Generated => v1::Origin::Generated,
        Origin::Imported => v1::Origin::Imported,
        Origin::Unwrapped => v1::Origin::Unwrapped,
        _ => v1::Origin::Unspecified,
    }
}

/// Reads why a version is to be treated as in wrong hands.
pub(crate) fn compromise_reason(number: i32) -> Result<CompromiseReason, Refusal> {
    use v1::CompromiseReason as Wire;
    Ok(match Wire::try_from(number) {
        Ok(Wire::Unspecified) => CompromiseReason::Unspecified,
        Ok(Wire::AffiliationChanged) => CompromiseReason::AffiliationChanged,
        Ok(Wire::CaCompromise) => CompromiseReason::CaCompromise,
        Ok(Wire::CessationOfOperation) => CompromiseReason::CessationOfOperation,
        Ok(Wire::KeyCompromise) => CompromiseReason::KeyCompromise,
        Ok(Wire::PrivilegeWithdrawn) => CompromiseReason::PrivilegeWithdrawn,
        Ok(Wire::Superseded) => CompromiseReason::Superseded,
        Err(_) => return Err(invalid("compromise.reason", "expected a published reason")),
    })
}

/// Writes why a version is treated as in wrong hands.
pub(crate) fn compromise_reason_out(reason: CompromiseReason) -> v1::CompromiseReason {
    use v1::CompromiseReason as Wire;
    match reason {
        CompromiseReason::AffiliationChanged => Wire::AffiliationChanged,
        CompromiseReason::CaCompromise => Wire::CaCompromise,
        CompromiseReason::CessationOfOperation => Wire::CessationOfOperation,
        CompromiseReason::KeyCompromise => Wire::KeyCompromise,
        CompromiseReason::PrivilegeWithdrawn => Wire::PrivilegeWithdrawn,
        CompromiseReason::Superseded => Wire::Superseded,
        _ => Wire::Unspecified,
    }
}

/// Reads how strict a ring is; hardened when not set.
pub(crate) fn ring_kind(number: i32) -> Result<RingKind, Refusal> {
    match v1::RingKind::try_from(number) {
        Ok(v1::RingKind::Compatible) => Ok(RingKind::Compatible),
        Ok(v1::RingKind::Hardened | v1::RingKind::Unspecified) => Ok(RingKind::Hardened),
        Err(_) => Err(invalid("policy.kind", "expected HARDENED or COMPATIBLE")),
    }
}

/// Writes how strict a ring is.
pub(crate) fn ring_kind_out(kind: RingKind) -> v1::RingKind {
    match kind {
        RingKind::Compatible => v1::RingKind::Compatible,
        _ => v1::RingKind::Hardened,
    }
}

/// Reads what becomes of keys that do not fit; unprotect only when not set.
pub(crate) fn legacy_keys(number: i32) -> Result<LegacyKeys, Refusal> {
    match v1::LegacyKeys::try_from(number) {
        Ok(v1::LegacyKeys::Allowed) => Ok(LegacyKeys::Allowed),
        Ok(v1::LegacyKeys::Prohibited) => Ok(LegacyKeys::Prohibited),
        Ok(v1::LegacyKeys::UnprotectOnly | v1::LegacyKeys::Unspecified) => {
            Ok(LegacyKeys::UnprotectOnly)
        }
        Err(_) => Err(invalid("policy.legacy_keys", "expected a published value")),
    }
}

/// Writes what becomes of keys that do not fit.
pub(crate) fn legacy_keys_out(legacy: LegacyKeys) -> v1::LegacyKeys {
    match legacy {
        LegacyKeys::Allowed => v1::LegacyKeys::Allowed,
        LegacyKeys::Prohibited => v1::LegacyKeys::Prohibited,
        _ => v1::LegacyKeys::UnprotectOnly,
    }
}

fn numbered<T: Copy>(all: &[T], number: i32) -> Option<T> {
    let at = usize::try_from(number).ok()?.checked_sub(1)?;
    all.get(at).copied()
}

fn number_of<T: Copy + Eq>(all: &[T], value: T) -> i32 {
    let at = all.iter().position(|one| *one == value).map(|at| at.saturating_add(1));
    at.and_then(|number| i32::try_from(number).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wires_numbers_and_the_rules_lists_name_the_same_things() {
        fn agree<T: Copy + ToString>(
            all: &[T],
            prefix: &str,
            name: impl Fn(i32) -> Option<&'static str>,
        ) {
            for (at, value) in all.iter().enumerate() {
                let number = i32::try_from(at).unwrap() + 1;
                let expected = format!("{prefix}_{}", value.to_string());
                assert_eq!(name(number), Some(expected.as_str()));
            }
            assert_eq!(name(i32::try_from(all.len()).unwrap() + 1), None, "{prefix}");
        }
        agree(Algorithm::ALL, "ALGORITHM", |n| {
            Some(v1::Algorithm::try_from(n).ok()?.as_str_name())
        });
        agree(Mechanism::ALL, "MECHANISM", |n| {
            Some(v1::Mechanism::try_from(n).ok()?.as_str_name())
        });
        agree(&Hash::ALL, "HASH", |n| Some(v1::Hash::try_from(n).ok()?.as_str_name()));
        agree(&Usage::ALL, "USAGE", |n| Some(v1::Usage::try_from(n).ok()?.as_str_name()));
        agree(&State::ALL, "STATE", |n| Some(v1::State::try_from(n).ok()?.as_str_name()));
    }
}
