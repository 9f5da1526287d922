//! The states of a key version (NIST SP 800-57 part 1 §7) and what each allows.
//!
//! Two total functions, [`next`] and [`State::allows`], are the whole truth; the operation × state
//! table in the documents is printed from them.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::algorithm::Usage;
use crate::id::Timestamp;

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

/// Why a version is believed to be in wrong hands, or why it should be treated so (the reasons of
/// RFC 5280 §5.3.1 that fit a key, as KMIP has them).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum CompromiseReason {
    /// Whoever the key belongs to has changed.
    AffiliationChanged,
    /// The authority that vouched for it is compromised.
    CaCompromise,
    /// It is not needed any more, and may have leaked.
    CessationOfOperation,
    /// It is known or feared to be in wrong hands.
    KeyCompromise,
    /// The right to use it was withdrawn.
    PrivilegeWithdrawn,
    /// Another key takes its place.
    Superseded,
    /// Nobody said why.
    Unspecified,
}

impl CompromiseReason {
    /// Every reason, in alphabetical order.
    pub const ALL: [Self; 7] = [
        Self::AffiliationChanged,
        Self::CaCompromise,
        Self::CessationOfOperation,
        Self::KeyCompromise,
        Self::PrivilegeWithdrawn,
        Self::Superseded,
        Self::Unspecified,
    ];

    /// The published name, as in proto, CLI and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AffiliationChanged => "AFFILIATION_CHANGED",
            Self::CaCompromise => "CA_COMPROMISE",
            Self::CessationOfOperation => "CESSATION_OF_OPERATION",
            Self::KeyCompromise => "KEY_COMPROMISE",
            Self::PrivilegeWithdrawn => "PRIVILEGE_WITHDRAWN",
            Self::Superseded => "SUPERSEDED",
            Self::Unspecified => "UNSPECIFIED",
        }
    }
}

/// What is known of a compromise.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compromise {
    /// Since when the key may have been in wrong hands (SP 800-57 part 1 §5.5.2); what it protected
    /// since then is in doubt.
    pub occurred_at: Timestamp,
    /// Why.
    pub reason: CompromiseReason,
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

/// When a version moves on by itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dates {
    /// When it becomes ACTIVE, while it is PRE_ACTIVE.
    pub activates_at: Option<Timestamp>,
    /// When it becomes DEACTIVATED, while it is ACTIVE or SUSPENDED.
    pub deactivates_at: Option<Timestamp>,
    /// When it is destroyed, while it is DESTROY_SCHEDULED.
    pub destroys_at: Option<Timestamp>,
}

/// The step that a version in `state` takes by itself at `now`, because one of its dates has come.
pub fn due(state: State, dates: &Dates, now: Timestamp) -> Option<Transition> {
    let come = |date: Option<Timestamp>| date.is_some_and(|date| date <= now);
    match state {
        State::PreActive if come(dates.activates_at) => Some(Transition::Activate),
        State::Active | State::Suspended if come(dates.deactivates_at) => {
            Some(Transition::Deactivate)
        }
        State::DestroyScheduled if come(dates.destroys_at) => Some(Transition::Destroy),
        _ => None,
    }
}

/// Where a version that the store has in `state` stands at `now`. A date acts at once, whether or not
/// the step is on record yet.
pub fn at(state: State, dates: &Dates, now: Timestamp) -> State {
    let mut moved = state;
    // Each step of a life leads on, so there are fewer of them than states.
    for _ in State::ALL {
        match due(moved, dates, now).and_then(|transition| next(moved, transition).ok()) {
            Some(state) => moved = state,
            None => break,
        }
    }
    moved
}

/// The transition that leads from `from` to `to`, if one does.
pub fn step_between(from: State, to: State) -> Option<Transition> {
    Transition::ALL.into_iter().find(|transition| next(from, *transition) == Ok(to))
}

/// The operation × state table as the documents have it, in Markdown: where each step leads from each
/// state, and what each use is answered there.
pub fn table() -> String {
    let row = |name: &str, cells: [String; State::ALL.len()]| {
        format!("| {name} | {} |\n", cells.join(" | "))
    };
    let heading = row("", State::ALL.map(|state| state.to_string()));
    let rule = format!("|---{}|\n", "|---".repeat(State::ALL.len()));
    let mut text = format!("{heading}{rule}");
    for transition in Transition::ALL {
        let name = Action::of_transition(transition).map_or("", Action::as_str);
        let leads_to = |state| next(state, transition).map_or("–", State::as_str).to_owned();
        text.push_str(&row(name, State::ALL.map(leads_to)));
    }
    text.push('\n');
    text.push_str(&heading);
    text.push_str(&rule);
    for usage in Usage::ALL {
        let answer = |state: State| match state.allows(usage) {
            Allowance::Allowed => "yes",
            Allowance::Refused => "–",
            Allowance::UnderQuorum => "under quorum",
        };
        let cells = State::ALL.map(|state| answer(state).to_owned());
        text.push_str(&row(usage.as_str(), cells));
    }
    text
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
        let (protects, checks) = (usage.protects(), usage.checks());
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
    const USES: [(Usage, &str); 13] = [
        (Usage::Decapsulate, "nnynynnq"),
        (Usage::Decrypt, "nnynynnq"),
        (Usage::Derive, "nnynnnnn"),
        (Usage::Encapsulate, "nnynnnnn"),
        (Usage::Encrypt, "nnynnnnn"),
        (Usage::Export, "nnynnnnn"),
        (Usage::MacSign, "nnynnnnn"),
        (Usage::MacVerify, "nnyyynnq"),
        (Usage::Release, "nnynnnnn"),
        (Usage::Sign, "nnynnnnn"),
        (Usage::Unwrap, "nnynynnq"),
        (Usage::Verify, "nnyyynnq"),
        (Usage::Wrap, "nnynnnnn"),
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
    fn a_version_moves_on_when_its_dates_come_and_not_before() {
        let dates = Dates {
            activates_at: Some(Timestamp(10)),
            deactivates_at: Some(Timestamp(20)),
            destroys_at: Some(Timestamp(30)),
        };
        assert_eq!(at(State::PreActive, &dates, Timestamp(9)), State::PreActive);
        assert_eq!(at(State::PreActive, &dates, Timestamp(10)), State::Active);
        assert_eq!(at(State::PreActive, &dates, Timestamp(20)), State::Deactivated);
        assert_eq!(at(State::Suspended, &dates, Timestamp(20)), State::Deactivated);
        assert_eq!(at(State::Deactivated, &dates, Timestamp(99)), State::Deactivated);
        assert_eq!(at(State::DestroyScheduled, &dates, Timestamp(29)), State::DestroyScheduled);
        assert_eq!(at(State::DestroyScheduled, &dates, Timestamp(30)), State::Destroyed);
        assert_eq!(at(State::Compromised, &dates, Timestamp(99)), State::Compromised);
    }

    #[test]
    fn every_use_in_every_state_is_as_written() {
        assert_eq!(USES.map(|(usage, _)| usage), Usage::ALL);
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
