//! Evidence made by software, for a daemon in dev mode. It proves nothing.

use std::path::Path;

use kms_attest::snp::software::{ReportRequest, SoftwareAttester};
use kms_core::claims::EvidenceKind;

use super::{Attester, AttesterError};

/// A guest on an imaginary SEV-SNP chip.
pub struct Software {
    chip: SoftwareAttester,
    guest: Guest,
}

/// What the imaginary guest is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Guest {
    /// Its measurement.
    pub measurement: [u8; 48],
    /// Whether its policy lets the host debug it; a sound verifier refuses such a guest.
    pub debug: bool,
}

impl Software {
    /// Takes up the chip whose keys are in the file `state`.
    ///
    /// # Errors
    /// [`AttesterError`] when the file cannot be read or is not one.
    pub fn open(state: &Path, guest: Guest) -> Result<Self, AttesterError> {
        let bytes = std::fs::read(state)
            .map_err(|cause| AttesterError::File { path: state.to_owned(), cause })?;
        let chip = SoftwareAttester::from_bytes(&bytes)
            .map_err(|_| AttesterError::State(state.to_owned()))?;
        Ok(Self { chip, guest })
    }
}

impl Attester for Software {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Snp
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, AttesterError> {
        let Guest { measurement, debug } = self.guest;
        Ok(self.chip.evidence(&ReportRequest { report_data: *report_data, measurement, debug }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_attester_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attester");
        let guest = Guest { measurement: [0; 48], debug: false };
        let missing = Software::open(&path, guest.clone()).err().unwrap();
        assert!(matches!(missing, AttesterError::File { .. }), "{missing}");
        std::fs::write(&path, "{}").unwrap();
        let wrong = Software::open(&path, guest).err().unwrap();
        assert!(matches!(wrong, AttesterError::State(_)), "{wrong}");
    }
}
