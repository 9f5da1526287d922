//! The one arena of locked memory that all key bytes live in.
//!
//! Locking page by page is slow and an arena is free, so the arena takes chunks of locked memory from
//! the kernel and hands out slots of four sizes. A chunk is never given back: slots are
//! `&'static mut` slices, which makes everything above the mapping itself safe Rust. A slot is wiped
//! when it is freed, so a free slot holds zeros.
//!
//! The memory is `memfd_secret` where the kernel has it (not even the kernel maps it), else anonymous
//! memory under `mlock`, else anonymous memory that may be swapped; [`status`] says which, so that the
//! daemon can say it at start. It is left out of core dumps and of forked children in every case.
//!
//! This is the only file of the crate with unsafe code. [`crate::material`] is its only caller.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::{fmt, mem, ptr, slice};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use zeroize::Zeroize;

use crate::CryptoError;
use crate::material::MATERIAL_BYTES_MAX;

/// How well the arena's memory is protected, best first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Status {
    /// `memfd_secret`: never swapped, and unmapped from the kernel itself.
    MemfdSecret,
    /// `mlock`: never swapped.
    Locked,
    /// Locking is not permitted (`RLIMIT_MEMLOCK`): key bytes may reach the swap device.
    Unlocked,
}

impl Status {
    /// The published name, as in the log at start.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MemfdSecret => "memfd-secret",
            Self::Locked => "locked",
            Self::Unlocked => "unlocked",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The weakest protection of any chunk so far. Maps the first chunk when there is none yet.
///
/// # Errors
/// [`CryptoError::ArenaUnavailable`] when the kernel gives no memory at all.
pub fn status() -> Result<Status, CryptoError> {
    let mut arena = arena();
    match arena.status {
        Some(status) => Ok(status),
        None => arena.grow(0),
    }
}

/// A piece of the arena of at least the length asked for, zeroed; wiped when dropped.
pub(crate) struct Slot {
    bytes: &'static mut [u8],
}

impl Slot {
    /// Takes a free slot of the smallest size that holds `length` bytes.
    pub(crate) fn take(length: usize) -> Result<Self, CryptoError> {
        let class = SLOT_BYTES
            .iter()
            .position(|size| length <= *size)
            .ok_or(CryptoError::MaterialRefused)?;
        let mut arena = arena();
        if arena.free[class].is_empty() {
            arena.grow(class)?;
        }
        arena.free[class].pop().map(|bytes| Self { bytes }).ok_or(CryptoError::ArenaFull)
    }

    pub(crate) const fn bytes(&self) -> &[u8] {
        self.bytes
    }

    pub(crate) const fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.bytes.zeroize();
        let bytes = mem::take(&mut self.bytes);
        if let Some(class) = SLOT_BYTES.iter().position(|size| bytes.len() == *size) {
            arena().free[class].push(bytes);
        }
    }
}

struct Arena {
    chunks: [usize; SLOT_BYTES.len()],
    status: Option<Status>,
    free: [Vec<&'static mut [u8]>; SLOT_BYTES.len()],
}

static ARENA: Mutex<Arena> = Mutex::new(Arena::EMPTY);

/// No code panics while it holds the lock, and a free list is whole at every step.
fn arena() -> MutexGuard<'static, Arena> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arena {
    const EMPTY: Self = Self {
        chunks: [0; SLOT_BYTES.len()],
        status: None,
        free: [const { Vec::new() }; SLOT_BYTES.len()],
    };

    /// Adds one chunk of slots of `class`.
    fn grow(&mut self, class: usize) -> Result<Status, CryptoError> {
        if self.chunks[class] >= CHUNKS_MAX[class] {
            return Err(CryptoError::ArenaFull);
        }
        let (memory, status) = map_secret().or_else(|_| map_anonymous(lock))?;
        self.chunks[class] += 1;
        let status = self.status.map_or(status, |so_far| so_far.max(status));
        self.status = Some(status);
        self.free[class].extend(memory.chunks_exact_mut(SLOT_BYTES[class]));
        Ok(status)
    }
}

fn map_secret() -> Result<(&'static mut [u8], Status), CryptoError> {
    // SAFETY: memfd_secret(2) takes one integer of flags and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or(CryptoError::ArenaUnavailable)?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let length = CHUNK_BYTES as u64;
    rustix::fs::ftruncate(&fd, length).map_err(|_| CryptoError::ArenaUnavailable)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a null hint lets the kernel choose an unused range, so no object of ours is covered.
    let start =
        unsafe { rustix::mm::mmap(ptr::null_mut(), CHUNK_BYTES, access, MapFlags::SHARED, &fd, 0) }
            .map_err(|_| CryptoError::ArenaUnavailable)?;
    keep_to_this_process(start);
    Ok((adopt(start), Status::MemfdSecret))
}

fn map_anonymous(
    lock: impl FnOnce(*mut c_void) -> io::Result<()>,
) -> Result<(&'static mut [u8], Status), CryptoError> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a null hint lets the kernel choose an unused range, so no object of ours is covered.
    let start = unsafe {
        rustix::mm::mmap_anonymous(ptr::null_mut(), CHUNK_BYTES, access, MapFlags::PRIVATE)
    }
    .map_err(|_| CryptoError::ArenaUnavailable)?;
    keep_to_this_process(start);
    let status = if lock(start).is_ok() { Status::Locked } else { Status::Unlocked };
    Ok((adopt(start), status))
}

fn lock(start: *mut c_void) -> io::Result<()> {
    // SAFETY: the only callers pass the start of a mapping of CHUNK_BYTES that they have just made.
    unsafe { rustix::mm::mlock(start, CHUNK_BYTES) }
}

/// Leaves the chunk out of core dumps and of forked children. A kernel that does not know the advice
/// refuses it; the memory is as usable as before, so that is no reason to stop.
fn keep_to_this_process(start: *mut c_void) {
    for advice in [Advice::LinuxDontDump, Advice::LinuxDontFork] {
        // SAFETY: the range is the mapping just made, and neither advice changes its contents here.
        let _ = unsafe { rustix::mm::madvise(start, CHUNK_BYTES, advice) };
    }
}

fn adopt(start: *mut c_void) -> &'static mut [u8] {
    // SAFETY: `start` is a fresh readable and writable mapping of CHUNK_BYTES, filled with zeros by
    // the kernel, which nothing else refers to and which is never unmapped; its callers above pass
    // each mapping here exactly once.
    unsafe { slice::from_raw_parts_mut(start.cast::<u8>(), CHUNK_BYTES) }
}

/// The sizes of slots: symmetric keys, elliptic-curve keys, RSA keys (4096 bits: about 2,400 bytes),
/// opaque secrets.
const SLOT_BYTES: [usize; 4] = [64, 256, 4096, MATERIAL_BYTES_MAX];
/// What is taken from the kernel at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// At most 5 MiB, below the usual `RLIMIT_MEMLOCK` of 8 MiB: at once, 32,768 open rings, 2,048 keys of
/// curves, 384 RSA keys and 16 opaque secrets. Each size has its own bound, so that large secrets do not
/// take the room of keys.
const CHUNKS_MAX: [usize; SLOT_BYTES.len()] = [32, 8, 24, 16];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_slot_holds_zeros() {
        let mut slot = Slot::take(4096).unwrap();
        slot.bytes_mut().fill(0xa5);
        drop(slot);
        // Looked at under the lock, so that tests running beside this one cannot disturb it.
        let zeros = |slot: &[u8]| slot.iter().all(|byte| *byte == 0);
        assert!(arena().free.iter().flatten().all(|slot| zeros(slot)));
    }

    #[test]
    fn a_slot_fits_and_what_fits_no_slot_is_refused() {
        for (length, size) in
            [(0, 64), (1, 64), (64, 64), (65, 256), (256, 256), (257, 4096), (4097, 65_536)]
        {
            assert_eq!(Slot::take(length).unwrap().bytes().len(), size);
        }
        assert_eq!(Slot::take(65_537).err(), Some(CryptoError::MaterialRefused));
    }

    #[test]
    fn memory_that_may_not_be_locked_is_used_and_reported() {
        let (memory, status) = map_anonymous(|_| Err(io::Errno::PERM)).unwrap();
        assert_eq!(status, Status::Unlocked);
        memory.fill(1);
        assert!(memory.iter().all(|byte| *byte == 1));
        assert!(map_anonymous(|_| Ok(())).is_ok_and(|(_, status)| status == Status::Locked));
    }

    #[test]
    fn a_full_arena_says_so() {
        let mut arena = Arena { chunks: CHUNKS_MAX, ..Arena::EMPTY };
        for class in 0..SLOT_BYTES.len() {
            assert_eq!(arena.grow(class), Err(CryptoError::ArenaFull));
        }
        arena.chunks[0] -= 1;
        assert!(arena.grow(0).is_ok());
        assert_eq!(arena.free[0].len(), CHUNK_BYTES / SLOT_BYTES[0]);
        assert_eq!(arena.grow(0), Err(CryptoError::ArenaFull));
    }

    #[test]
    fn the_status_is_the_weakest_of_all_chunks() {
        assert!(status().is_ok());
        assert_eq!(Status::MemfdSecret.max(Status::Unlocked), Status::Unlocked);
        assert_eq!(Status::Locked.max(Status::MemfdSecret), Status::Locked);
    }
}
