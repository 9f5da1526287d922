//! Rows that were read lately, so that a row in use is not asked of the index each time.
//!
//! Nothing in here is older than the index: the committer takes out what it changes before anybody hears
//! of the change, and what a reader found before that is not put in after it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use crate::Row;

/// The rows, in two generations: what is not asked for while one fills up is forgotten.
#[derive(Default)]
pub(crate) struct RecentRows {
    rows: RwLock<Generations>,
    /// How often rows were changed; it changes only under the lock.
    changes: AtomicU64,
}

#[derive(Default)]
struct Generations {
    young: HashMap<String, Row>,
    old: HashMap<String, Row>,
}

/// What was there when a row was looked for in vain.
#[derive(Clone, Copy)]
pub(crate) struct Missed {
    changes: u64,
}

impl RecentRows {
    /// Shows the row to `read`, if it is there.
    ///
    /// # Errors
    /// What [`RecentRows::keep`] wants to know, when it is not.
    pub(crate) fn find<T>(&self, key: &str, read: impl FnOnce(&Row) -> T) -> Result<T, Missed> {
        {
            let generations = self.rows.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(row) = generations.young.get(key) {
                return Ok(read(row));
            }
            if !generations.old.contains_key(key) {
                return Err(Missed { changes: self.changes() });
            }
        }
        let mut generations = self.write();
        let missed = Missed { changes: self.changes() };
        let (key, row) = generations.old.remove_entry(key).ok_or(missed)?;
        let found = read(&row);
        generations.keep(key, row);
        Ok(found)
    }

    /// Puts in a row that was read from the index after it was `missed`, unless rows changed meanwhile.
    pub(crate) fn keep(&self, key: &str, row: &Row, missed: Missed) {
        if row.value.len() > ROW_BYTES_MAX {
            return;
        }
        let mut generations = self.write();
        if self.changes() == missed.changes {
            generations.keep(key.to_owned(), row.clone());
        }
    }

    /// Takes out rows that have changed in the index.
    pub(crate) fn forget<'a>(&self, keys: impl Iterator<Item = &'a str>) {
        let mut generations = self.write();
        self.changes.fetch_add(1, Ordering::AcqRel);
        for key in keys {
            generations.young.remove(key);
            generations.old.remove(key);
        }
    }

    /// How often rows were changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Nothing panics under this lock.
    fn write(&self) -> RwLockWriteGuard<'_, Generations> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn keep(&mut self, key: String, row: Row) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, row);
    }
}

/// Half of the rows that are kept at most.
const GENERATION_MAX: usize = 4096;
/// Longer rows are read each time.
const ROW_BYTES_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(revision: u64) -> Row {
        Row { revision, value: revision.to_be_bytes().as_slice().into() }
    }

    fn revision(rows: &RecentRows, key: &str) -> Result<u64, Missed> {
        rows.find(key, |row| row.revision)
    }

    #[test]
    fn what_was_read_before_a_change_is_not_put_in_after_it() {
        let rows = RecentRows::default();
        let missed = revision(&rows, "a").unwrap_err();
        rows.keep("a", &row(1), missed);
        assert_eq!(revision(&rows, "a").ok(), Some(1));
        let missed = revision(&rows, "b").unwrap_err();
        rows.forget(["a"].into_iter());
        assert!(revision(&rows, "a").is_err(), "it has changed");
        rows.keep("b", &row(1), missed);
        assert!(revision(&rows, "b").is_err(), "it may have changed");
        rows.keep("b", &row(2), revision(&rows, "b").unwrap_err());
        assert_eq!(revision(&rows, "b").ok(), Some(2));
    }

    #[test]
    fn what_is_in_use_is_kept_and_the_rest_is_bounded() {
        let rows = RecentRows::default();
        for i in 0..GENERATION_MAX * 3 {
            let key = format!("row/{i}");
            rows.keep(&key, &row(1), revision(&rows, &key).unwrap_err());
            assert_eq!(revision(&rows, "row/0").ok(), Some(1), "{i}");
        }
        let generations = rows.write();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_MAX);
        drop(generations);
        assert!(revision(&rows, "row/1").is_err());
    }
}
