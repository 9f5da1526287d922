//! The states of a key version (NIST SP 800-57 part 1 §7) and what each allows.
//!
//! Two total functions, [`next`] and [`State::allows`], are the whole truth; the operation × state
//! table in the documents is printed from them.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::algorithm::Usage;

/// Where a key version stands in its life.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum State {
    /// A name without material yet.
    PendingImport,
    /// Generated, not yet usable.
    PreActive,
    /// In full use.
    Active,
    /// Stopped for now; only verification goes on.
    Suspended,
    /// No longer protects, still processes what it protected.
    Deactivated,
    /// Will be destroyed when the delay ends; can be restored until then.
    DestroyScheduled,
    /// The material is gone.
    Destroyed,
    /// Known or feared to be in wrong hands.
    Compromised,
}

/// A step from one state to another.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Transition {
    /// Begin full use.
    Activate,
    /// Declare the material exposed.
    Compromise,
    /// Hand in the material of a pending import.
    CompleteImport,
    /// End protection.
    Deactivate,
    /// Erase the material now.
    Destroy,
    /// Take a scheduled destruction back.
    Restore,
    /// End a suspension.
    Resume,
    /// Set the date of destruction.
    ScheduleDestroy,
    /// Stop use for now.
    Suspend,
}

/// What a state says to a use of the key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Allowance {
    /// Yes.
    Allowed,
    /// No.
    Refused,
    /// Only with the approval of a quorum.
    UnderQuorum,
}

/// The transition does not start in this state. The caller's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a version that is {state} cannot {transition}")]
pub struct IllegalTransition {
    /// Where the version stands.
    pub state: State,
    /// What was asked.
    pub transition: Transition,
}

/// The state that follows `state` by `transition`.
///
/// # Errors
/// [`IllegalTransition`] when the transition does not start in `state`.
pub const fn next(state: State, transition: Transition) -> Result<State, IllegalTransition> {
    use State::{
        Active, Compromised, Deactivated, DestroyScheduled, Destroyed, PendingImport, PreActive,
        Suspended,
    };
    use Transition as T;
    let following = match (transition, state) {
        (T::Activate, PreActive) => Active,
        (T::CompleteImport, PendingImport) => PreActive,
        (T::Compromise, PreActive | Active | Suspended | Deactivated | DestroyScheduled) => {
            Compromised
        }
        (T::Deactivate, Active | Suspended) => Deactivated,
        (T::Destroy, PendingImport | PreActive | Deactivated | DestroyScheduled | Compromised) => {
            Destroyed
        }
        (T::Restore, DestroyScheduled) => Deactivated,
        (T::Resume, Suspended) => Active,
        (T::ScheduleDestroy, PreActive | Deactivated | Compromised) => DestroyScheduled,
        (T::Suspend, Active) => Suspended,
        _ => return Err(IllegalTransition { state, transition }),
    };
    Ok(following)
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 8] = [
        Self::PendingImport,
        Self::PreActive,
        Self::Active,
        Self::Suspended,
        Self::Deactivated,
        Self::DestroyScheduled,
        Self::Destroyed,
        Self::Compromised,
    ];

    /// Whether a version in this state may be used so (SP 800-57 part 1 §7.2).
    ///
    /// Protecting and releasing need ACTIVE; opening needs ACTIVE or DEACTIVATED; checking works in
    /// SUSPENDED too; a COMPROMISED key opens and checks only under quorum.
    pub const fn allows(self, usage: Usage) -> Allowance {
        let protects =
            matches!(usage, Usage::Encrypt | Usage::MacSign | Usage::Release | Usage::Sign);
        let checks = matches!(usage, Usage::MacVerify | Usage::Verify);
        match self {
            Self::Active => Allowance::Allowed,
            Self::Compromised if !protects => Allowance::UnderQuorum,
            Self::Deactivated if !protects => Allowance::Allowed,
            Self::Suspended if checks => Allowance::Allowed,
            _ => Allowance::Refused,
        }
    }

    /// The published name, as in proto, CLI and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PendingImport => "PENDING_IMPORT",
            Self::PreActive => "PRE_ACTIVE",
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
            Self::Deactivated => "DEACTIVATED",
            Self::DestroyScheduled => "DESTROY_SCHEDULED",
            Self::Destroyed => "DESTROYED",
            Self::Compromised => "COMPROMISED",
        }
    }
}

impl Transition {
    /// Every transition.
    pub const ALL: [Self; 9] = [
        Self::Activate,
        Self::Compromise,
        Self::CompleteImport,
        Self::Deactivate,
        Self::Destroy,
        Self::Restore,
        Self::Resume,
        Self::ScheduleDestroy,
        Self::Suspend,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Activate => "be activated",
            Self::Compromise => "be marked compromised",
            Self::CompleteImport => "receive material",
            Self::Deactivate => "be deactivated",
            Self::Destroy => "be destroyed",
            Self::Restore => "be restored",
            Self::Resume => "be resumed",
            Self::ScheduleDestroy => "be scheduled for destruction",
            Self::Suspend => "be suspended",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The full operation × state table, written out by hand: a row per transition, a column per
    /// state in the order of [`State::ALL`]; `-` is a refusal, otherwise the state that follows.
    const TRANSITIONS: [(Transition, [&str; 8]); 9] = [
        (Transition::Activate, ["-", "ACTIVE", "-", "-", "-", "-", "-", "-"]),
        (
            Transition::Compromise,
            [
                "-",
                "COMPROMISED",
                "COMPROMISED",
                "COMPROMISED",
                "COMPROMISED",
                "COMPROMISED",
                "-",
                "-",
            ],
        ),
        (Transition::CompleteImport, ["PRE_ACTIVE", "-", "-", "-", "-", "-", "-", "-"]),
        (Transition::Deactivate, ["-", "-", "DEACTIVATED", "DEACTIVATED", "-", "-", "-", "-"]),
        (
            Transition::Destroy,
            ["DESTROYED", "DESTROYED", "-", "-", "DESTROYED", "DESTROYED", "-", "DESTROYED"],
        ),
        (Transition::Restore, ["-", "-", "-", "-", "-", "DEACTIVATED", "-", "-"]),
        (Transition::Resume, ["-", "-", "-", "ACTIVE", "-", "-", "-", "-"]),
        (
            Transition::ScheduleDestroy,
            [
                "-",
                "DESTROY_SCHEDULED",
                "-",
                "-",
                "DESTROY_SCHEDULED",
                "-",
                "-",
                "DESTROY_SCHEDULED",
            ],
        ),
        (Transition::Suspend, ["-", "-", "SUSPENDED", "-", "-", "-", "-", "-"]),
    ];

    /// `y` allowed, `n` refused, `q` under quorum; columns as above.
    const USES: [(Usage, &str); 7] = [
        (Usage::Decrypt, "nnynynnq"),
        (Usage::Encrypt, "nnynnnnn"),
        (Usage::MacSign, "nnynnnnn"),
        (Usage::MacVerify, "nnyyynnq"),
        (Usage::Release, "nnynnnnn"),
        (Usage::Sign, "nnynnnnn"),
        (Usage::Verify, "nnyyynnq"),
    ];

    #[test]
    fn every_transition_from_every_state_is_as_written() {
        assert_eq!(TRANSITIONS.len(), Transition::ALL.len());
        for (transition, row) in TRANSITIONS {
            for (state, expected) in State::ALL.into_iter().zip(row) {
                let got = next(state, transition).map_or("-", State::as_str);
                assert_eq!(got, expected, "{transition:?} from {state}");
            }
        }
    }

    #[test]
    fn every_use_in_every_state_is_as_written() {
        for (usage, row) in USES {
            for (state, expected) in State::ALL.into_iter().zip(row.chars()) {
                let got = match state.allows(usage) {
                    Allowance::Allowed => 'y',
                    Allowance::Refused => 'n',
                    Allowance::UnderQuorum => 'q',
                };
                assert_eq!(got, expected, "{usage:?} in {state}");
            }
        }
    }
}
