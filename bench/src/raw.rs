//! The floor: what the disk does when nothing is around it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::error::BenchError;
use crate::measure::{Extent, Sample, Watch};

/// What is measured raw.
#[derive(Debug)]
pub(crate) struct Raw {
    appended: File,
    preallocated: File,
    path: PathBuf,
}

impl Raw {
    /// Makes files in `folder`, which must be on the daemon's disk.
    pub(crate) fn new(folder: &Path) -> Result<Self, BenchError> {
        let path = folder.join("appended");
        let appended = OpenOptions::new().append(true).create_new(true).open(&path);
        let preallocated = preallocate(&folder.join("preallocated"))?;
        Ok(Self { appended: appended.map_err(BenchError::file(&path))?, preallocated, path })
    }

    /// Appends of 600 bytes, each followed by its own `fdatasync`.
    pub(crate) fn append_and_sync(&mut self, extent: Extent) -> Result<Sample, BenchError> {
        let (file, path) = (&mut self.appended, &self.path);
        let watch = Watch::thread();
        let latencies = extent.time(|| {
            file.write_all(&[0x55; 600]).map_err(BenchError::file(path))?;
            file.sync_data().map_err(BenchError::file(path))
        })?;
        watch.stop(latencies)
    }

    /// The same into bytes that the file already has, as the daemon's journal does: the file system
    /// has no new length or place to write down, which spares its own journal.
    pub(crate) fn write_in_place_and_sync(&self, extent: Extent) -> Result<Sample, BenchError> {
        let (file, path) = (&self.preallocated, &self.path);
        let mut offset = 0;
        let watch = Watch::thread();
        let latencies = extent.time(|| {
            file.write_all_at(&[0x55; 600], offset).map_err(BenchError::file(path))?;
            offset = (offset + 600) % (PREALLOCATED_BYTES as u64 - 600);
            file.sync_data().map_err(BenchError::file(path))
        })?;
        watch.stop(latencies)
    }
}

/// A file whose bytes are on the disk.
fn preallocate(path: &Path) -> Result<File, BenchError> {
    let mut file = File::create_new(path).map_err(BenchError::file(path))?;
    file.write_all(&vec![0; PREALLOCATED_BYTES]).map_err(BenchError::file(path))?;
    file.sync_all().map_err(BenchError::file(path))?;
    Ok(file)
}

const PREALLOCATED_BYTES: usize = 4 * 1024 * 1024;
/// What is signed, everywhere.
pub(crate) const DIGEST: [u8; 32] = [0x3c; 32];
/// What is encrypted, everywhere.
pub(crate) const PLAINTEXT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_floor_gives_a_figure() {
        let folder = tempfile::tempdir().unwrap();
        let mut raw = Raw::new(folder.path()).unwrap();
        let extent = Extent { operations_max: 3, time_max: std::time::Duration::from_secs(10) };
        let synced = raw.append_and_sync(extent).unwrap();
        let in_place = raw.write_in_place_and_sync(extent).unwrap();
        for sample in [synced, in_place] {
            assert_eq!(sample.operations, 3);
            assert!(sample.p50_us > 0.0 && sample.rate > 0.0, "{sample:?}");
        }
        assert_eq!(std::fs::metadata(folder.path().join("appended")).unwrap().len(), 3 * 600);
    }
}
