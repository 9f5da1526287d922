//! The state folder: who may be in it, private files, and names that survive a power loss.
//!
//! ```text
//! lock                held by the daemon that uses the folder
//! journal/N.segment   the truth: rows and leaves as they were written
//! journal/N.log       a segment of which the leaves are left, since a snapshot has its rows
//! snapshots/N.*       the truth: all rows as of the end of a segment
//! snapshot.suspect    says that a snapshot is to be read as a whole before it is used
//! index/              made from the journal
//! index.aside/        the last index that was not trusted, for examination
//! index.closed        what the index held when it was closed
//! index.condemned     says that the index failed while in use
//! index.open          says on which boot of the machine the index was opened, until it is closed
//! slots               erasable secrets
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;

use crate::StoreError;

/// The names within a state folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    /// Says that a snapshot did not read well, so that the next open reads all of it.
    pub(crate) fn snapshot_suspect(&self) -> PathBuf {
        self.0.join("snapshot.suspect")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.0.join("index")
    }

    pub(crate) fn index_aside(&self) -> PathBuf {
        self.0.join("index.aside")
    }

    pub(crate) fn index_condemned(&self) -> PathBuf {
        self.0.join("index.condemned")
    }

    pub(crate) fn index_open(&self) -> PathBuf {
        self.0.join("index.open")
    }

    pub(crate) fn slots(&self) -> PathBuf {
        self.0.join("slots")
    }
}

/// Held as long as the folder is in use. The kernel lets go of it when the process ends, however
/// that happens.
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the folder for this process. Who has let go of it a moment ago may have made a process that
    /// holds the lock as well until it has become another program, so this asks more than once.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another has it.
    pub(crate) fn take(folder: &Folder) -> Result<Self, StoreError> {
        let path = folder.path().join("lock");
        let file = open_or_create(&path)?;
        for _ in 0..LOCK_TRIES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                Err(errno) => return Err(StoreError::io("lock", &path)(errno)),
            }
        }
        Err(StoreError::Locked { path: folder.path().to_owned() })
    }
}

/// Makes a folder that only its owner may enter, or makes an existing one so.
pub(crate) fn private_folder(path: &Path) -> Result<(), StoreError> {
    if !path.exists() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(StoreError::io("create", path))?;
        path.parent().map_or(Ok(()), sync_folder)?;
    }
    let mode = fs::metadata(path).map_err(StoreError::io("inspect", path))?.permissions().mode();
    if mode & 0o777 == 0o700 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(StoreError::io("set the permissions of", path))
}

/// Opens a file for reading and writing; it is made, private, when it is missing.
pub(crate) fn open_or_create(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(StoreError::io("open", path))
}

/// Makes a file of `bytes` zeros that begins with `head`, in one step: the name appears only when
/// the content is on disk.
///
/// # Errors
/// [`StoreError::DiskFull`] when there is no room; nothing is left behind.
pub(crate) fn create_whole(path: &Path, head: &[u8], bytes: u64) -> Result<File, StoreError> {
    let unfinished = path.with_extension("new");
    let made = (|| {
        remove_if_present(&unfinished)?;
        let file = open_or_create(&unfinished)?;
        preallocate(&file, path, 0, bytes)?;
        write_at(&file, path, head, 0)?;
        file.sync_all().map_err(StoreError::io("sync", &unfinished))?;
        fs::rename(&unfinished, path).map_err(StoreError::io("rename", &unfinished))?;
        path.parent().map_or(Ok(()), sync_folder)?;
        Ok(file)
    })();
    if made.is_err() {
        // What is half-made must not take the room that is missing already.
        let _second_error = remove_if_present(&unfinished);
    }
    made
}

/// Gives the file room of `bytes` from `offset` on, so that later writes cannot run out of it.
pub(crate) fn preallocate(
    file: &File,
    path: &Path,
    offset: u64,
    bytes: u64,
) -> Result<(), StoreError> {
    match fallocate(file, FallocateFlags::empty(), offset, bytes) {
        Ok(()) => Ok(()),
        // Some file systems cannot; the zeros are there all the same, only their room is not.
        Err(Errno::OPNOTSUPP) => {
            file.set_len(offset + bytes).map_err(StoreError::io("extend", path))
        }
        Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
            Err(StoreError::DiskFull { path: path.to_owned() })
        }
        Err(errno) => Err(StoreError::io("preallocate", path)(errno)),
    }
}

/// Writes all bytes at `offset`.
pub(crate) fn write_at(
    file: &File,
    path: &Path,
    bytes: &[u8],
    offset: u64,
) -> Result<(), StoreError> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
        .map_err(StoreError::io("write", path))
}

/// Reads exactly so many bytes at `offset`.
pub(crate) fn read_at(
    file: &File,
    path: &Path,
    bytes: &mut [u8],
    offset: u64,
) -> Result<(), StoreError> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
        .map_err(StoreError::io("read", path))
}

/// Brings the file's data to the disk.
pub(crate) fn sync_data(file: &File, path: &Path) -> Result<(), StoreError> {
    file.sync_data().map_err(StoreError::io("sync", path))
}

/// Brings the names in a folder to the disk.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    // The parent of a relative path with one part is the empty path.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let folder = File::open(path).map_err(StoreError::io("open", path))?;
    folder.sync_all().map_err(StoreError::io("sync", path))
}

/// Writes a small file and brings it and its name to the disk.
pub(crate) fn write_note(path: &Path, text: &str) -> Result<(), StoreError> {
    create_whole(path, text.as_bytes(), text.len() as u64).map(drop)
}

/// Removes a file that may be missing.
pub(crate) fn remove_if_present(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(e))
        }
        _ => Ok(()),
    }
}

/// How often the lock is asked for, and how long is waited in between.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
