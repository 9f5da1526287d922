//! Counting what a version has protected, so that no mechanism makes more protections than it bears.
//!
//! Every protection is counted in memory. On disk stands a reservation, which is raised by many at once,
//! in the same batch as the first protection that needs it. After a restart the count goes on from the
//! reservation: it may be too high by what was set aside and not used, and is never too low.
//!
//! The daemon keeps one [`Protections`] for each version whose protections count. What copies protect is
//! counted on their original as well, where the mechanism sets the bound: they are one key.

use crate::key::PROTECTIONS_PER_RESERVATION;

/// The count of one version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Protections {
    taken: u64,
    reserved: u64,
}

/// A place in the count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Which protection it is, from 1 on.
    pub number: u64,
    /// What the reservation on disk must be raised to in the same batch, if it is too low.
    pub reserve: Option<u64>,
}

impl Protections {
    /// Goes on from the reservation that is on disk.
    pub const fn resumed(reserved: u64) -> Self {
        Self { taken: reserved, reserved }
    }

    /// Takes the next place. `on_disk` is the reservation as it was just read, and `step` what it is
    /// raised by.
    pub fn take(&mut self, on_disk: u64, step: u64) -> Place {
        self.reserved = self.reserved.max(on_disk);
        self.taken = self.taken.saturating_add(1);
        let reserve = (self.taken > self.reserved)
            .then(|| self.reserved.max(self.taken - 1).saturating_add(step.max(1)));
        Place { number: self.taken, reserve }
    }

    /// Gives a place back whose protection was not recorded, and so was not made.
    pub const fn give_back(&mut self) {
        self.taken = self.taken.saturating_sub(1);
    }
}

/// By how much a reservation is raised, for a key that is rotated after `uses_max` protections (0: never):
/// a sixteenth of that, so that rotation comes at most so much too early.
pub fn step(uses_max: u64) -> u64 {
    if uses_max == 0 {
        return PROTECTIONS_PER_RESERVATION;
    }
    (uses_max / 16).clamp(1, PROTECTIONS_PER_RESERVATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protection_has_a_number_of_its_own_and_few_write_a_row() {
        let mut count = Protections::resumed(0);
        let mut on_disk = 0;
        let mut writes = 0;
        for number in 1..=2500 {
            let place = count.take(on_disk, 1000);
            assert_eq!(place.number, number);
            if let Some(reserve) = place.reserve {
                (on_disk, writes) = (reserve, writes + 1);
            }
            assert!(on_disk >= number, "{number} is not covered by the disk");
        }
        assert_eq!((on_disk, writes), (3000, 3));
    }

    #[test]
    fn after_a_restart_nothing_is_counted_twice() {
        let mut count = Protections::resumed(0);
        let reserve = count.take(0, 100).reserve.unwrap();
        assert_eq!(reserve, 100);
        let mut resumed = Protections::resumed(reserve);
        assert_eq!(resumed.take(reserve, 100), Place { number: 101, reserve: Some(200) });
    }

    #[test]
    fn places_that_are_given_back_are_taken_again() {
        let mut count = Protections::resumed(0);
        let first = count.take(0, 10);
        count.give_back();
        assert_eq!(count.take(0, 10), first);
    }

    #[test]
    fn many_at_once_before_the_reservation_is_on_disk_each_ask_for_enough() {
        let mut count = Protections::resumed(0);
        for number in 1..=30 {
            let place = count.take(0, 10);
            assert!(place.reserve.unwrap() >= number);
        }
    }

    #[test]
    fn a_key_that_rotates_after_few_uses_reserves_few() {
        assert_eq!((step(0), step(10), step(160), step(1 << 40)), (1024, 1, 10, 1024));
    }
}
