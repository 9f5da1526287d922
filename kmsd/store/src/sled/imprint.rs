//! What the files of the index held when it was closed.
//!
//! sled finds damage by the checksums of its messages and goes on without the damaged one: a page may
//! come back as it was before, with a marker that is newer. No entry of it is wrong by itself. So a
//! closed index is opened again only when its files are, byte for byte, what was closed. `index`
//! writes the imprint, `recovery` holds the files against it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::folder::write_note;
use crate::StoreError;

/// Notes what the closed index in `index` holds.
pub(crate) fn write(index: &Path) -> Result<(), StoreError> {
    write_note(&note(index), &of(index)?)
}

/// Whether the index in `index` holds what it held when it was closed.
pub(crate) fn fits(index: &Path) -> bool {
    let noted = fs::read(note(index));
    noted.is_ok_and(|noted| of(index).is_ok_and(|found| found.into_bytes() == noted))
}

fn note(index: &Path) -> PathBuf {
    index.with_extension("closed")
}

/// One line for each file: name, length, checksum.
fn of(index: &Path) -> Result<String, StoreError> {
    let (mut folders, mut lines) = (vec![index.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(StoreError::io("list", &folder))? {
            let path = entry.map_err(StoreError::io("list", &folder))?.path();
            let name = path.strip_prefix(index).unwrap_or(&path).display().to_string();
            let kind = fs::symlink_metadata(&path).map_err(StoreError::io("inspect", &path))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let (bytes, crc) = checksum(&path)?;
                lines.push(format!("{name} {bytes} {crc:08x}\n"));
            } else {
                // Reading a pipe may last for ever, and sled makes none.
                lines.push(format!("{name} is no file\n"));
            }
        }
    }
    lines.sort();
    Ok(lines.concat())
}

fn checksum(path: &Path) -> Result<(u64, u32), StoreError> {
    let mut file = File::open(path).map_err(StoreError::io("open", path))?;
    let (mut chunk, mut bytes, mut crc) = (vec![0; CHUNK_BYTES], 0, 0);
    loop {
        let read = file.read(&mut chunk).map_err(StoreError::io("read", path))?;
        if read == 0 {
            return Ok((bytes, crc));
        }
        bytes += read as u64;
        crc = crc32c::crc32c_append(crc, &chunk[..read]);
    }
}

/// How much of a file is read at once.
const CHUNK_BYTES: usize = 1024 * 1024;
