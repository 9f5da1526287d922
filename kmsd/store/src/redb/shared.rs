//! What readers and the committer have in common.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use kms_core::id::Digest;

use super::Fault;
use super::database::Database;
use super::tables::Reading;
use crate::StoreError;
use crate::caught::caught;
use crate::log::{Log, Tiles};
use crate::sled::slots::Slots;
use crate::watch::Changes;

/// The open store.
pub(crate) struct Shared {
    pub(crate) folder: PathBuf,
    /// Empty once the store is closed.
    pub(crate) database: RwLock<Option<Database>>,
    /// The log as far as it is durable: replaced after each commit.
    pub(crate) log: RwLock<Log>,
    pub(crate) slots: Mutex<Slots>,
    pub(crate) changes: Changes,
    /// How many slots have been given out, for the committer, who must not wait for the table.
    slots_given: AtomicU64,
    health: AtomicU8,
}

impl Shared {
    pub(crate) fn new(folder: PathBuf, database: Database, log: Log, slots: Slots) -> Self {
        let slots_given = AtomicU64::new(slots.given());
        Self {
            folder,
            database: RwLock::new(Some(database)),
            log: RwLock::new(log),
            slots: Mutex::new(slots),
            changes: Changes::new(),
            slots_given,
            health: AtomicU8::new(HEALTHY),
        }
    }

    /// # Errors
    /// [`StoreError::Closed`] or [`StoreError::Poisoned`].
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.health.load(Ordering::Acquire) {
            HEALTHY => Ok(()),
            CLOSED => Err(StoreError::Closed),
            _ => Err(StoreError::Poisoned),
        }
    }

    /// Ends the store after a failure: what it would answer from now on could be wrong.
    pub(crate) fn poison(&self, why: &dyn std::fmt::Display) {
        if self.health.swap(POISONED, Ordering::AcqRel) != POISONED {
            tracing::error!(folder = %self.folder.display(), %why, "the store has stopped");
            self.changes.tell_stopped();
        }
    }

    /// Says that whatever comes from now on comes too late. A poisoned store stays so.
    pub(crate) fn set_closed(&self) {
        let swapped =
            self.health.compare_exchange(HEALTHY, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        // A store that is closed or poisoned already is left as it is.
        let _left_alone = swapped;
    }

    pub(crate) fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the database. A fault ends the store.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Reading) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.check()?;
        let database = self.database();
        let database = database.as_ref().ok_or(StoreError::Closed)?;
        caught(|| read(&database.reading()?)).map_err(|fault| {
            self.poison(&fault);
            StoreError::Poisoned
        })
    }

    pub(crate) fn log(&self) -> Log {
        self.log.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A page of leaves.
    pub(crate) fn leaves(&self, begin: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.check()?;
        let size = self.log().size();
        if begin > size {
            return Err(StoreError::LogRange { asked: begin, size });
        }
        self.read(|reading| reading.leaves(begin, size, limit))
    }

    /// The slots, which are used under the same conditions as everything else.
    pub(crate) fn slots(&self) -> Result<MutexGuard<'_, Slots>, StoreError> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        Ok(slots)
    }

    pub(crate) fn slots_given(&self) -> u64 {
        self.slots_given.load(Ordering::Acquire)
    }

    /// Writes a slot. A failure of the disk ends the store, as everywhere.
    pub(crate) fn slot_written<T>(
        &self,
        write: impl FnOnce(&mut Slots) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut slots = self.slots()?;
        let written = write(&mut slots);
        self.slots_given.store(slots.given(), Ordering::Release);
        written.map_err(|error| match error {
            StoreError::Io { .. } => {
                self.poison(&error);
                StoreError::Poisoned
            }
            other => other,
        })
    }
}

impl Tiles for Shared {
    fn full_tile(&self, level: u8, n: u64) -> Result<Vec<Digest>, StoreError> {
        self.read(|reading| reading.tile(level, n))
    }
}

const HEALTHY: u8 = 0;
const CLOSED: u8 = 1;
const POISONED: u8 = 2;
