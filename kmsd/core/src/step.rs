//! What a step of its life does to a version: its state, its dates, the way back.
//!
//! Where a step leads stands in [`crate::lifecycle`], whether it may be taken in [`crate::permit`]; the
//! daemon stores what comes out of here.

use crate::id::Timestamp;
use crate::key::{Undo, Version};
use crate::lifecycle::{self, IllegalTransition, State, Transition};

impl Version {
    /// The version with every step on record that its dates have brought about by `now`. Those steps
    /// are taken back by nobody.
    #[must_use]
    pub fn settled(&self, now: Timestamp) -> Self {
        let mut version = self.clone();
        // Each step of a life leads on, so there are fewer of them than states.
        for _ in State::ALL {
            match version.after_due_step(now) {
                Some(after) => version = after,
                None => break,
            }
        }
        version
    }

    /// The version after the one step that is due at `now`, if one is; it was taken when its date came.
    #[must_use]
    pub fn after_due_step(&self, now: Timestamp) -> Option<Self> {
        let transition = lifecycle::due(self.state, &self.dates, now)?;
        let state = lifecycle::next(self.state, transition).ok()?;
        let changed_at = self.due_at().unwrap_or(now);
        Some(Self { state, changed_at, undo: None, ..self.clone() })
    }

    /// The version after `transition`, which somebody asked for at `now` and may take back for
    /// `undo_window_ms`. What is destroyed is gone.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the transition does not start where the version stands.
    pub fn after_step(
        &self,
        transition: Transition,
        now: Timestamp,
        undo_window_ms: u64,
    ) -> Result<Self, IllegalTransition> {
        let mut version = self.settled(now);
        let before = version.state;
        version.state = lifecycle::next(before, transition)?;
        version.changed_at = now;
        let leads_back = !matches!(transition, Transition::Destroy | Transition::CompleteImport);
        let until = now.plus_ms(undo_window_ms);
        version.undo = leads_back.then_some(Undo { state: before, until });
        if version.state != State::DestroyScheduled {
            version.dates.destroys_at = None;
        }
        Ok(version)
    }

    /// The version with its last step taken back at `now`, while it can be. What is known of a
    /// compromise stays known; a date that has passed does not act again.
    #[must_use]
    pub fn after_undo(&self, now: Timestamp) -> Option<Self> {
        let state = self.undoable(now)?;
        let mut version = Self { state, changed_at: now, undo: None, ..self.clone() };
        let to_come = |date: Option<Timestamp>| date.filter(|date| now < *date);
        version.dates.activates_at = to_come(version.dates.activates_at);
        version.dates.deactivates_at = to_come(version.dates.deactivates_at);
        version.dates.destroys_at = None;
        Some(version)
    }

    /// When the next step is due that the version takes by itself, if one is to come.
    pub const fn due_at(&self) -> Option<Timestamp> {
        match self.state {
            State::PreActive => self.dates.activates_at,
            State::Active | State::Suspended => self.dates.deactivates_at,
            State::DestroyScheduled => self.dates.destroys_at,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::version;
    use crate::lifecycle::Dates;

    const WINDOW_MS: u64 = 100;

    fn dated(state: State) -> Version {
        let dates = Dates {
            activates_at: Some(Timestamp(10)),
            deactivates_at: Some(Timestamp(20)),
            destroys_at: None,
        };
        Version { state, dates, ..version() }
    }

    #[test]
    fn what_dates_brought_about_is_settled_at_their_times_and_not_undone() {
        let version = dated(State::PreActive).settled(Timestamp(25));
        assert_eq!((version.state, version.changed_at), (State::Deactivated, Timestamp(20)));
        assert_eq!(version.after_undo(Timestamp(25)).map(|v| v.state), None);
        let version = dated(State::PreActive).after_due_step(Timestamp(25)).unwrap();
        assert_eq!((version.state, version.due_at()), (State::Active, Some(Timestamp(20))));
    }

    #[test]
    fn every_step_but_the_last_is_undone_within_its_window_and_once() {
        for transition in Transition::ALL {
            for state in State::ALL {
                let before = Version { state, ..version() };
                let Ok(after) = before.after_step(transition, Timestamp(1000), WINDOW_MS) else {
                    continue;
                };
                let back = after.after_undo(Timestamp(1099));
                assert_eq!(after.after_undo(Timestamp(1100)).map(|v| v.state), None);
                match transition {
                    Transition::Destroy | Transition::CompleteImport => {
                        assert_eq!(back.map(|v| v.state), None, "{transition:?} from {state}");
                    }
                    // The date of the destruction is not kept, so nothing goes back to waiting for it.
                    _ if state == State::DestroyScheduled => {
                        assert_eq!(back.map(|v| v.state), None, "{transition:?} from {state}");
                    }
                    _ => {
                        let back = back.unwrap();
                        assert_eq!(back.state, state, "{transition:?} from {state}");
                        assert_eq!(back.after_undo(Timestamp(1099)).map(|v| v.state), None);
                    }
                }
            }
        }
    }

    #[test]
    fn a_date_that_has_passed_does_not_act_again_after_an_undo() {
        let active = dated(State::Active).after_step(Transition::Suspend, Timestamp(5), 100);
        let deactivated = active.unwrap().after_step(Transition::Deactivate, Timestamp(15), 100);
        let back = deactivated.unwrap().after_undo(Timestamp(30)).unwrap();
        assert_eq!(back.state_at(Timestamp(30)), State::Suspended);
    }

    #[test]
    fn a_restored_version_is_not_destroyed_when_the_date_comes() {
        let mut version = version();
        version.state = State::DestroyScheduled;
        version.dates.destroys_at = Some(Timestamp(50));
        let restored = version.after_step(Transition::Restore, Timestamp(40), 100).unwrap();
        assert_eq!(restored.state_at(Timestamp(60)), State::Deactivated);
        assert!(version.after_step(Transition::Restore, Timestamp(50), 100).is_err());
    }
}
