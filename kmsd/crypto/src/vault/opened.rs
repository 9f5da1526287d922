//! Keys that were used a moment ago, so that they need not be opened again (ADR 7).
//!
//! What is kept stands beside all that it was made of, and is found only by the same: whoever looks for
//! it brings header, sealed bytes and slot secret, as the store has them now. So nothing that was edited
//! is served, and nothing has to be invalidated for the answer to be right. What bounds the time in
//! memory is [`OpenedKeys::age`], which the daemon calls every minute, and [`OpenedKeys::forget`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kms_core::id::{Digest, VersionName};
use kms_core::key::SealHeader;

use super::VersionRef;
use crate::CryptoError;
use crate::material::Material;
use crate::provider::PrivateKey;

/// A key, ready for use.
pub(super) enum OpenedKey {
    /// The private half of a pair.
    Private(Box<dyn PrivateKey>),
    /// A secret.
    Secret(Material),
}

/// A key beside all that it was opened with.
pub(super) struct Entry {
    header: SealHeader,
    sealed: Vec<u8>,
    slot: Digest,
    key: OpenedKey,
}

impl Entry {
    /// The key, of whichever kind it is.
    pub(super) const fn key(&self) -> &OpenedKey {
        &self.key
    }
}

/// The keys that were used lately.
#[derive(Default)]
pub(super) struct OpenedKeys(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<VersionName, Arc<Entry>>,
    old: HashMap<VersionName, Arc<Entry>>,
}

impl OpenedKeys {
    /// The key of `version`, or what `open` makes of it.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn find_or(
        &self,
        version: VersionRef<'_>,
        open: impl FnOnce() -> Result<OpenedKey, CryptoError>,
    ) -> Result<Arc<Entry>, CryptoError> {
        let slot = Digest::of(&[version.slot.0.expose()]);
        let name = &version.header.version;
        let found = self.lock().of(name);
        let is_same = |entry: &Arc<Entry>| {
            entry.slot == slot && entry.sealed == version.sealed && entry.header == *version.header
        };
        if let Some(entry) = found.filter(is_same) {
            return Ok(entry);
        }
        let (header, sealed) = (version.header.clone(), version.sealed.to_vec());
        let entry = Arc::new(Entry { header, sealed, slot, key: open()? });
        self.lock().keep(name.clone(), entry.clone());
        Ok(entry)
    }

    /// Drops what was not used since the call before.
    pub(super) fn age(&self) {
        let dropped = self.lock().age();
        // Wiping takes its time; nobody waits for it.
        drop(dropped);
    }

    /// Drops everything.
    pub(super) fn forget(&self) {
        let dropped = core::mem::take(&mut *self.lock());
        drop(dropped);
    }

    /// Nothing panics under this lock.
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn of(&mut self, name: &VersionName) -> Option<Arc<Entry>> {
        if let Some(entry) = self.young.get(name) {
            return Some(entry.clone());
        }
        let entry = self.old.remove(name)?;
        self.keep(name.clone(), entry.clone());
        Some(entry)
    }

    fn keep(&mut self, name: VersionName, entry: Arc<Entry>) {
        if self.young.len() >= GENERATION_MAX {
            drop(self.age());
        }
        self.young.insert(name, entry);
    }

    fn age(&mut self) -> HashMap<VersionName, Arc<Entry>> {
        let young = core::mem::take(&mut self.young);
        core::mem::replace(&mut self.old, young)
    }
}

/// Half of the keys that are kept at most.
const GENERATION_MAX: usize = 512;
