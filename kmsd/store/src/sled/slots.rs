//! Erasable secrets: a preallocated table of 64-byte slots, overwritten in place.
//!
//! ```text
//! table = header[4096] || slot*
//! header = "KMSSLOT\n" || version[4] || store[16] || zeros || crc32c[4]
//! slot   = ( "LIVE" | "GONE" ) || zeros[8] || number[8] || secret[32] || zeros[8] || crc32c[4]
//! ```
//!
//! Slots are given out in ascending order and never again, so a slot number names one secret for
//! ever. A slot of zeros was never given out.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::folder::{create_whole, open_or_create, preallocate, read_at, sync_data, write_at};
use super::format::{FORMAT_VERSION, Fields, HEADER_BYTES, StoreId, is_zero};
use crate::StoreError;

/// The table of one store: the writing end.
pub(crate) struct Slots {
    file: SlotFile,
    /// The number that is given out next.
    next: u64,
    /// How many slots have room on disk.
    capacity: u64,
}

impl Slots {
    pub(crate) fn create(path: &Path, store: &StoreId) -> Result<Self, StoreError> {
        let bytes = HEADER_BYTES as u64 + CHUNK_SLOTS * SLOT_BYTES as u64;
        let file = create_whole(path, &header(store), bytes)?;
        Ok(Self { file: SlotFile::of(file, path), next: 0, capacity: CHUNK_SLOTS })
    }

    /// # Errors
    /// [`StoreError::SlotTableDamaged`] when the table is missing, foreign or not one.
    pub(crate) fn open(path: &Path, store: &StoreId) -> Result<Self, StoreError> {
        let damaged = || StoreError::SlotTableDamaged { path: path.to_owned() };
        if !path.exists() {
            return Err(damaged());
        }
        let file = open_or_create(path)?;
        let bytes = file.metadata().map_err(StoreError::io("inspect", path))?.len();
        let mut found = vec![0; HEADER_BYTES];
        if bytes < HEADER_BYTES as u64 {
            return Err(damaged());
        }
        read_at(&file, path, &mut found, 0)?;
        if found != header(store) {
            return Err(damaged());
        }
        let capacity = (bytes - HEADER_BYTES as u64) / SLOT_BYTES as u64;
        let mut slots = Self { file: SlotFile::of(file, path), next: 0, capacity };
        slots.next = slots.find_next()?;
        Ok(slots)
    }

    /// Keeps a secret; it is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] when nothing was written; any other error leaves the slot in doubt.
    pub(crate) fn put(&mut self, secret: &[u8; 32]) -> Result<u64, StoreError> {
        self.put_all([secret].into_iter()).map(|slots| slots.start)
    }

    /// Keeps some secrets in slots that follow each other, with one sync.
    ///
    /// # Errors
    /// As [`Slots::put`].
    pub(crate) fn put_all<'a>(
        &mut self,
        secrets: impl ExactSizeIterator<Item = &'a [u8; 32]>,
    ) -> Result<Range<u64>, StoreError> {
        let slots = self.next..self.next + secrets.len() as u64;
        while slots.end > self.capacity {
            let at = offset_of(self.capacity);
            let SlotFile { file, path } = &self.file;
            preallocate(file, path, at, CHUNK_SLOTS * SLOT_BYTES as u64)?;
            file.sync_all().map_err(StoreError::io("sync", path))?;
            self.capacity += CHUNK_SLOTS;
        }
        // Counted first: after a failure the numbers are in doubt and must not be given out again.
        self.next = slots.end;
        for (slot, secret) in slots.clone().zip(secrets) {
            self.write(LIVE, slot, secret)?;
        }
        self.sync()?;
        Ok(slots)
    }

    /// How many slots have been given out.
    pub(crate) const fn given(&self) -> u64 {
        self.next
    }

    /// A way to read beside the one who writes.
    pub(crate) fn file(&self) -> SlotFile {
        self.file.clone()
    }

    pub(crate) fn read(&self, slot: u64) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        if slot >= self.next {
            return Err(StoreError::SlotUnknown { slot });
        }
        self.file.read(slot)
    }

    /// Overwrites a secret; it is gone from the disk when this returns.
    pub(crate) fn erase(&mut self, slot: u64) -> Result<(), StoreError> {
        if slot >= self.next {
            return Err(StoreError::SlotUnknown { slot });
        }
        self.write(GONE, slot, &[0; 32])?;
        self.sync()
    }

    fn sync(&self) -> Result<(), StoreError> {
        let SlotFile { file, path } = &self.file;
        sync_data(file, path)
    }

    fn write(&self, mark: &[u8; 4], slot: u64, secret: &[u8; 32]) -> Result<(), StoreError> {
        let mut bytes = Zeroizing::new([0; SLOT_BYTES]);
        bytes[..4].copy_from_slice(mark);
        bytes[12..20].copy_from_slice(&slot.to_be_bytes());
        bytes[20..52].copy_from_slice(secret);
        let crc = crc32c::crc32c(&bytes[..SLOT_BYTES - 4]);
        bytes[SLOT_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
        let SlotFile { file, path } = &self.file;
        write_at(file, path, &bytes[..], offset_of(slot))
    }

    /// The number after the last slot that holds anything, looked for from the end.
    fn find_next(&self) -> Result<u64, StoreError> {
        let mut end = self.capacity;
        let mut chunk = Zeroizing::new(vec![0; (CHUNK_SLOTS as usize) * SLOT_BYTES]);
        while end > 0 {
            let begin = end.saturating_sub(CHUNK_SLOTS);
            let bytes = &mut chunk[..((end - begin) as usize) * SLOT_BYTES];
            read_at(&self.file.file, &self.file.path, bytes, offset_of(begin))?;
            let used = bytes.chunks_exact(SLOT_BYTES).rposition(|slot| !is_zero(slot));
            if let Some(used) = used {
                return Ok(begin + used as u64 + 1);
            }
            end = begin;
        }
        Ok(0)
    }

    /// Writes into `file` from now on, to see what a failing disk does.
    #[cfg(test)]
    pub(crate) fn break_with(&mut self, file: File) {
        self.file = SlotFile::of(file, &self.file.path);
    }
}

/// The table's file, to read one slot with one call of the kernel and without a lock.
#[derive(Clone)]
pub(crate) struct SlotFile {
    file: Arc<File>,
    path: Arc<Path>,
}

impl SlotFile {
    fn of(file: File, path: &Path) -> Self {
        Self { file: Arc::new(file), path: path.into() }
    }

    /// The secret of a slot that was given out. One that is being written at this moment may come
    /// out as damaged.
    pub(crate) fn read(&self, slot: u64) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let mut bytes = Zeroizing::new([0; SLOT_BYTES]);
        read_at(&self.file, &self.path, &mut bytes[..], offset_of(slot))?;
        let (body, crc) = bytes.split_at(SLOT_BYTES - 4);
        let mut fields = Fields(body);
        let (mark, padding, number): ([u8; 4], [u8; 8], u64) =
            (fields.take(), fields.take(), fields.u64());
        let secret = Zeroizing::new(fields.take::<32>());
        let intact = crc32c::crc32c(body).to_be_bytes() == crc && padding == [0; 8];
        match &mark {
            GONE if intact && number == slot => Err(StoreError::SlotErased { slot }),
            LIVE if intact && number == slot => Ok(secret),
            _ => Err(StoreError::SlotDamaged { slot }),
        }
    }
}

fn header(store: &StoreId) -> Vec<u8> {
    let mut bytes = b"KMSSLOT\n".to_vec();
    bytes.extend(FORMAT_VERSION.to_be_bytes());
    bytes.extend_from_slice(store);
    bytes.resize(HEADER_BYTES - 4, 0);
    bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
    bytes
}

const fn offset_of(slot: u64) -> u64 {
    HEADER_BYTES as u64 + slot * SLOT_BYTES as u64
}

const LIVE: &[u8; 4] = b"LIVE";
const GONE: &[u8; 4] = b"GONE";
const SLOT_BYTES: usize = 64;
/// By how many slots the table grows.
const CHUNK_SLOTS: u64 = 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const STORE: StoreId = [5; 16];

    #[test]
    fn slots_survive_and_erased_bytes_are_gone_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slots");
        let mut slots = Slots::create(&path, &STORE).unwrap();
        let count = CHUNK_SLOTS + 3;
        for i in 0..count {
            assert_eq!(slots.put(&[i.to_be_bytes()[7] | 1; 32]).unwrap(), i);
        }
        let secret = *b"thirty-two bytes of a secret !!!";
        let slot = slots.put(&secret).unwrap();
        let held = |path| fs::read(path).unwrap().windows(32).any(|w| w == secret);
        assert!(held(&path));
        drop(slots);
        let mut slots = Slots::open(&path, &STORE).unwrap();
        assert_eq!(*slots.read(slot).unwrap(), secret);
        slots.erase(slot).unwrap();
        assert!(!held(&path));
        drop(slots);
        let mut slots = Slots::open(&path, &STORE).unwrap();
        assert!(matches!(slots.read(slot), Err(StoreError::SlotErased { .. })));
        assert_eq!(slots.put(&[1; 32]).unwrap(), slot + 1, "an erased number is not given again");
    }

    #[test]
    fn no_flipped_bit_changes_a_secret_and_a_damaged_slot_can_be_erased() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slots");
        let mut slots = Slots::create(&path, &STORE).unwrap();
        slots.put(&[1; 32]).unwrap();
        slots.put(&[2; 32]).unwrap();
        let good = fs::read(&path).unwrap();
        let begin = HEADER_BYTES;
        for bit in 0..SLOT_BYTES * 8 {
            let mut changed = good.clone();
            changed[begin + bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &changed).unwrap();
            let slots = Slots::open(&path, &STORE).unwrap();
            assert!(matches!(slots.read(0), Err(StoreError::SlotDamaged { .. })), "bit {bit}");
            assert_eq!(*slots.read(1).unwrap(), [2; 32]);
        }
        let mut slots = Slots::open(&path, &STORE).unwrap();
        slots.erase(0).unwrap();
        assert!(matches!(slots.read(0), Err(StoreError::SlotErased { .. })));
    }

    #[test]
    fn a_foreign_missing_or_short_table_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slots");
        let refused =
            |store| matches!(Slots::open(&path, store), Err(StoreError::SlotTableDamaged { .. }));
        assert!(refused(&STORE));
        assert!(!path.exists(), "looking does not make one");
        drop(Slots::create(&path, &STORE).unwrap());
        assert!(refused(&[6; 16]));
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..HEADER_BYTES - 1]).unwrap();
        assert!(refused(&STORE));
    }
}
