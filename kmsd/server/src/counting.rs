//! How often each version has protected something, where that counts; see [`kms_core::protections`].
//!
//! `ops/using.rs` takes a place before the rules decide, and gives it back when nothing came of it. A copy
//! takes one with its original, too, where the mechanism bears so many protections and no more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kms_core::id::VersionName;
use kms_core::protections::{Place, Protections};
use tokio::sync::OwnedMutexGuard;

/// The counts of all versions in use.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<HashMap<VersionName, Arc<Count>>>);

#[derive(Debug)]
struct Count {
    protections: Mutex<Protections>,
    /// Held by whoever raises the reservation, so that many at once do not undo each other's writes.
    reserving: Arc<tokio::sync::Mutex<()>>,
}

/// A place in the count of a version. Dropped before [`Taken::keep`], it is given back.
#[derive(Debug)]
pub(crate) struct Taken {
    count: Arc<Count>,
    place: Place,
    kept: bool,
    _turn: Option<Turn>,
}

/// The turn to raise a reservation.
pub(crate) type Turn = OwnedMutexGuard<()>;

impl Counts {
    /// Takes the next place. `on_disk` is the version's reservation as it was just read, `step` what it is
    /// raised by.
    pub(crate) fn take(
        &self,
        version: &VersionName,
        on_disk: u64,
        step: u64,
        turn: Option<Turn>,
    ) -> Taken {
        let count = self.of(version, on_disk);
        let place = lock(&count.protections).take(on_disk, step);
        Taken { count, place, kept: false, _turn: turn }
    }

    fn of(&self, version: &VersionName, on_disk: u64) -> Arc<Count> {
        let mut counts = lock(&self.0);
        if let Some(count) = counts.get(version) {
            return count.clone();
        }
        if counts.len() >= COUNTS_MAX {
            // Who comes back goes on from the reservation, which is never too low.
            counts.retain(|_, count| Arc::strong_count(count) > 1);
        }
        let protections = Mutex::new(Protections::resumed(on_disk));
        let count = Arc::new(Count { protections, reserving: Arc::default() });
        counts.insert(version.clone(), count.clone());
        count
    }
}

impl Taken {
    /// Which protection it is.
    pub(crate) const fn number(&self) -> u64 {
        self.place.number
    }

    /// What the reservation must be raised to in the same batch, if it must.
    pub(crate) const fn reserve(&self) -> Option<u64> {
        self.place.reserve
    }

    /// Waits for the turn to raise the reservation; the place is given back meanwhile.
    pub(crate) async fn turn(self) -> Turn {
        let reserving = self.count.reserving.clone();
        drop(self);
        reserving.lock_owned().await
    }

    /// The protection is on record, so the place is used.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.kept {
            lock(&self.count.protections).give_back();
        }
    }
}

/// Nothing panics under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// More than all operations under way, so that there is always one to forget.
const COUNTS_MAX: usize = 65_536;
