//! Rows that were believed a moment ago, so that they need not be authenticated and read again.
//!
//! A row is believed only with exactly the bytes and revision that were authenticated. A version with its
//! key and ring is not asked for again while `Store::row_changes` stands; an edit of the index below a
//! running daemon is found at the next start (SECURITY.md, Rows in memory).

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use kms_store::Row;

use crate::ops::VersionFacts;
use crate::wire::KeyOrVersion;

/// What was believed lately. Rows are in two generations: what is not asked for while one fills up is
/// forgotten.
#[derive(Default)]
pub(crate) struct Memo {
    rows: Mutex<Generations>,
    versions: RwLock<HashMap<KeyOrVersion, Loaded>>,
}

/// A version as it was loaded when rows had changed so often.
struct Loaded {
    changes: u64,
    facts: VersionFacts,
}

#[derive(Default)]
struct Generations {
    young: HashMap<String, Known>,
    old: HashMap<String, Known>,
}

struct Known {
    row: Row,
    believed: Arc<dyn Any + Send + Sync>,
}

impl Memo {
    /// What `row` said when it was believed, if it was.
    pub(crate) fn find<T: Any + Send + Sync>(&self, place: &str, row: &Row) -> Option<Arc<T>> {
        let mut generations = self.lock();
        if let Some(known) = generations.young.get(place) {
            return known.of(row);
        }
        let (place, known) = generations.old.remove_entry(place)?;
        let believed = known.of(row);
        generations.keep(place, known);
        believed
    }

    /// Keeps what was believed.
    pub(crate) fn keep<T: Any + Send + Sync>(&self, place: &str, row: Row, believed: Arc<T>) {
        self.lock().keep(place.to_owned(), Known { row, believed });
    }

    /// The version that `name` meant, if no row has changed since: they have changed so often by now.
    pub(crate) fn version(&self, name: &KeyOrVersion, changes: u64) -> Option<VersionFacts> {
        let versions = self.versions.read().unwrap_or_else(PoisonError::into_inner);
        let loaded = versions.get(name).filter(|loaded| loaded.changes == changes)?;
        Some(loaded.facts.clone())
    }

    /// Keeps what a version's name means; rows had changed so often before it was loaded.
    pub(crate) fn keep_version(&self, name: &KeyOrVersion, changes: u64, facts: &VersionFacts) {
        let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
        if versions.len() >= GENERATION_MAX {
            versions.clear();
        }
        versions.insert(name.clone(), Loaded { changes, facts: facts.clone() });
    }

    /// Forgets everything: the root is closed.
    pub(crate) fn clear(&self) {
        *self.lock() = Generations::default();
        self.versions.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Nothing panics under this lock.
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What those bytes said, if they are the same; most often they are the very same in memory.
    fn of<T: Any + Send + Sync>(&self, row: &Row) -> Option<Arc<T>> {
        let known = &self.row;
        let same = known.revision == row.revision
            && (Arc::ptr_eq(&known.value, &row.value) || known.value == row.value);
        same.then(|| self.believed.clone().downcast().ok())?
    }
}

impl Generations {
    fn keep(&mut self, place: String, known: Known) {
        if known.row.value.len() > ROW_BYTES_MAX {
            return;
        }
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(place, known);
    }
}

/// Half of the rows that are kept at most, and all of the versions.
const GENERATION_MAX: usize = 4096;
/// Longer rows are read each time: those of secrets, and of keys with long policies.
const ROW_BYTES_MAX: usize = 8 * 1024;
