//! Rows that were believed a moment ago, so that they need not be authenticated and read again.
//!
//! A row is found by its place, and only if the store gives exactly the bytes that were believed, at the
//! same revision. So a row that somebody edited in the store is found out as before: it is asked for each
//! time, and no byte of it goes uncompared.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kms_store::Row;

/// What was believed lately, in two generations: what is not asked for while one fills up is forgotten.
#[derive(Default)]
pub(crate) struct Memo(Mutex<Generations>);

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
        if !generations.young.contains_key(place) {
            let (place, known) = generations.old.remove_entry(place)?;
            generations.keep(place, known);
        }
        let known = generations.young.get(place).filter(|known| known.row == *row)?;
        known.believed.clone().downcast().ok()
    }

    /// Keeps what was believed.
    pub(crate) fn keep<T: Any + Send + Sync>(&self, place: &str, row: Row, believed: Arc<T>) {
        self.lock().keep(place.to_owned(), Known { row, believed });
    }

    /// Forgets everything: the root is closed.
    pub(crate) fn clear(&self) {
        *self.lock() = Generations::default();
    }

    /// Nothing panics under this lock.
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Half of the rows that are kept at most.
const GENERATION_MAX: usize = 4096;
/// Longer rows are read each time: those of secrets, and of keys with long policies.
const ROW_BYTES_MAX: usize = 8 * 1024;
