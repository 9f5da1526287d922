//! The database file: made whole or not at all, verified page by page whenever it opens.

use std::path::Path;

use ::redb::{Builder, Durability, ReadableDatabase, WriteTransaction};

use super::Fault;
use super::tables::{Meta, Reading, Writing};
use crate::StoreError;
use crate::caught::caught;
use crate::sled::folder::{open_or_create, remove_if_present, sync_folder};

/// The open database.
pub(crate) struct Database(::redb::Database);

impl Database {
    /// Makes the database of a new store. Its name appears when its content is on disk.
    pub(crate) fn create(path: &Path, meta: &Meta) -> Result<Self, StoreError> {
        let unfinished = path.with_extension("new");
        remove_if_present(&unfinished)?;
        // Private from the first moment.
        let file = open_or_create(&unfinished)?;
        let made = caught(|| {
            let database = Self(builder().create(&unfinished)?);
            let transaction = database.begin_writing()?;
            Writing::begin(&transaction)?.put_meta(meta)?;
            transaction.commit()?;
            database.close()
        });
        made.map_err(|fault: Fault| damaged(path, &fault))?;
        file.sync_all().map_err(StoreError::io("sync", &unfinished))?;
        std::fs::rename(&unfinished, path).map_err(StoreError::io("rename", &unfinished))?;
        path.parent().map_or(Ok(()), sync_folder)?;
        Self::open(path)
    }

    /// Opens the database and verifies all of it.
    ///
    /// # Errors
    /// [`StoreError::DatabaseDamaged`], also when the library fails or panics.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        caught(|| Ok(Self(builder().open(path)?))).map_err(|fault: Fault| damaged(path, &fault))
    }

    pub(crate) fn reading(&self) -> Result<Reading, Fault> {
        Ok(Reading(self.0.begin_read()?))
    }

    /// Begins a transaction that is on disk when its commit returns.
    pub(crate) fn begin_writing(&self) -> Result<WriteTransaction, Fault> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        // With one phase, whoever may choose values could make a torn commit look whole.
        transaction.set_two_phase_commit(true);
        Ok(transaction)
    }

    pub(crate) fn close(self) -> Result<(), Fault> {
        Ok(self.0.close()?)
    }
}

pub(crate) fn damaged(path: &Path, fault: &Fault) -> StoreError {
    StoreError::DatabaseDamaged { path: path.to_owned(), fault: fault.to_string() }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// How much of the database is held in memory.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
