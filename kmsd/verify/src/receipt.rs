//! Does this receipt prove that a release took place, as it says?

use kms_core::audit::checkpoint::LogKey;
use kms_core::receipt::Receipt;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// What came of verifying one receipt.
#[derive(Clone, Debug, Serialize)]
pub struct ReceiptReport {
    /// Whether everything fits.
    pub accepted: bool,
    /// What does not.
    pub reasons: Vec<String>,
    /// The checks of the evidence that could not be made when the key was released.
    pub not_established: Vec<String>,
    /// Whether the evidence itself was at hand and is the one that the receipt names.
    pub evidence_matches: Option<bool>,
    /// The receipt, when it could be read.
    pub receipt: Option<Receipt>,
    /// Size of the log at the head that the receipt carries.
    pub log_size: Option<u64>,
}

/// Verifies a receipt with the log's public key and, when it is at hand, the evidence.
pub fn verify_receipt(bytes: &[u8], key: &LogKey, evidence: Option<&[u8]>) -> ReceiptReport {
    let mut report = ReceiptReport {
        accepted: false,
        reasons: Vec::new(),
        not_established: Vec::new(),
        evidence_matches: None,
        receipt: None,
        log_size: None,
    };
    let receipt = match Receipt::from_bytes(bytes) {
        Ok(receipt) => receipt,
        Err(error) => {
            report.reasons.push(error.to_string());
            return report;
        }
    };
    match receipt.verify(key) {
        Ok(checkpoint) => report.log_size = Some(checkpoint.size),
        Err(error) => report.reasons.push(error.to_string()),
    }
    if let Some(evidence) = evidence {
        let digest: [u8; 32] = Sha256::digest(evidence).into();
        let same = digest == *receipt.evidence_digest.as_bytes();
        report.evidence_matches = Some(same);
        if !same {
            report.reasons.push("the evidence is not the one that the receipt names".to_owned());
        }
    }
    report.accepted = report.reasons.is_empty();
    report.not_established =
        receipt.verdict.not_established().into_iter().map(str::to_owned).collect();
    report.receipt = Some(receipt);
    report
}
