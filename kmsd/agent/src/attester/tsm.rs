//! Evidence from the kernel's `configfs-tsm` (Linux 6.7, `Documentation/ABI/testing/configfs-tsm`).
//!
//! A report is a folder below `/sys/kernel/config/tsm/report`: what is written to `inblob` comes
//! back inside the signed report in `outblob`. `generation` counts the writes, and so tells whether
//! somebody else wrote between ours and the reading.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kms_core::claims::EvidenceKind;

use super::{Attester, AttesterError};

/// The kernel of a confidential virtual machine.
#[derive(Clone, Debug)]
pub struct Tsm {
    root: PathBuf,
}

impl Tsm {
    /// The running kernel's interface.
    pub fn new() -> Self {
        Self { root: REPORTS.into() }
    }
}

impl Default for Tsm {
    fn default() -> Self {
        Self::new()
    }
}

impl Attester for Tsm {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Snp
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, AttesterError> {
        let entry = self.root.join(format!("kms-agent-{}", std::process::id()));
        fs::create_dir(&entry).map_err(at(&entry))?;
        let report = report(&entry, report_data);
        // The report is worth more than a tidy folder: one left behind does no harm.
        let _ = fs::remove_dir(&entry);
        report
    }
}

fn report(entry: &Path, report_data: &[u8; 64]) -> Result<Vec<u8>, AttesterError> {
    let provider = text(&entry.join("provider"))?;
    if provider != SEV_SNP {
        return Err(AttesterError::Provider(provider));
    }
    let before = generation(entry)?;
    let inblob = entry.join("inblob");
    fs::write(&inblob, report_data).map_err(at(&inblob))?;
    let outblob = entry.join("outblob");
    let report = fs::read(&outblob).map_err(at(&outblob))?;
    if generation(entry)? == before + 1 { Ok(report) } else { Err(AttesterError::Disturbed) }
}

fn generation(entry: &Path) -> Result<u64, AttesterError> {
    let path = entry.join("generation");
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not a number");
    let count: u32 = text(&path)?.parse().map_err(|_| at(&path)(wrong()))?;
    Ok(count.into())
}

fn text(path: &Path) -> Result<String, AttesterError> {
    Ok(fs::read_to_string(path).map_err(at(path))?.trim().to_owned())
}

fn at(path: &Path) -> impl Fn(io::Error) -> AttesterError {
    move |cause| AttesterError::File { path: path.to_owned(), cause }
}

const REPORTS: &str = "/sys/kernel/config/tsm/report";
const SEV_SNP: &str = "sev_guest";

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(provider: &str, generation: &str) -> tempfile::TempDir {
        let entry = tempfile::tempdir().unwrap();
        fs::write(entry.path().join("provider"), provider).unwrap();
        fs::write(entry.path().join("generation"), generation).unwrap();
        fs::write(entry.path().join("outblob"), b"report").unwrap();
        entry
    }

    #[test]
    fn another_platform_is_named() {
        let entry = entry("tdx_guest\n", "0\n");
        let refused = report(entry.path(), &[0; 64]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "evidence of \"tdx_guest\" is not understood; expected sev_guest"
        );
    }

    #[test]
    fn a_report_whose_generation_did_not_count_our_write_is_not_taken() {
        // A plain folder counts nothing, so it looks as if the write was not the last one.
        let entry = entry("sev_guest\n", "4\n");
        let refused = report(entry.path(), &[7; 64]).unwrap_err();
        assert!(matches!(refused, AttesterError::Disturbed), "{refused}");
        assert_eq!(fs::read(entry.path().join("inblob")).unwrap(), [7; 64]);
        fs::write(entry.path().join("generation"), "-1").unwrap();
        let refused = report(entry.path(), &[7; 64]).unwrap_err();
        assert!(matches!(refused, AttesterError::File { .. }), "{refused}");
    }

    #[test]
    fn a_machine_without_the_interface_says_which_folder_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let tsm = Tsm { root: folder.path().join("missing") };
        let refused = tsm.evidence(&[0; 64]).unwrap_err();
        assert!(matches!(refused, AttesterError::File { .. }), "{refused}");
    }
}
