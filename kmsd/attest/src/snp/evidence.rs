//! The forms in which an SEV-SNP report is handed in.
//!
//! Either the 1184 bytes of the report alone, with the certificate of its signing key among the
//! collateral; or a small JSON document with both, which is what our agent sends:
//!
//! ```text
//! { "type": "kms-snp-evidence/v1", "report": base64, "vek": base64(DER), "ask": base64(DER) }
//! ```
//!
//! `vek` and `ask` are optional. They help to build the chain; they are not what is believed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms_core::id::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::report::REPORT_BYTES;
use crate::Unusable;
use crate::x509::Certificate;

/// A report as handed in, with the certificates that came along.
#[derive(Clone, Debug)]
pub struct SnpEvidence {
    digest: Digest,
    report: Vec<u8>,
    vek: Option<Certificate>,
    ask: Option<Certificate>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    #[serde(rename = "type")]
    type_: String,
    report: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vek: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ask: Option<String>,
}

impl SnpEvidence {
    /// Reads a report or an envelope.
    ///
    /// # Errors
    /// [`Unusable`] when `bytes` are neither, or hold something else than a report's length or than
    /// certificates.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Unusable> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(Unusable::TooLong);
        }
        let digest = Digest(Sha256::digest(bytes).into());
        if bytes.first() != Some(&b'{') {
            if bytes.len() != REPORT_BYTES {
                return Err(Unusable::ReportLength(bytes.len()));
            }
            return Ok(Self { digest, report: bytes.to_vec(), vek: None, ask: None });
        }
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|_| Unusable::Envelope)?;
        let Envelope { type_, report, vek, ask } = envelope;
        if type_ != ENVELOPE_TYPE {
            return Err(Unusable::Envelope);
        }
        let report = STANDARD.decode(report).map_err(|_| Unusable::Envelope)?;
        if report.len() != REPORT_BYTES {
            return Err(Unusable::ReportLength(report.len()));
        }
        Ok(Self { digest, report, vek: certificate("vek", vek)?, ask: certificate("ask", ask)? })
    }

    /// The envelope of a report, the certificate of its signing key and, if at hand, the one that
    /// issued it: what a workload sends.
    pub fn envelope(
        report: &[u8; REPORT_BYTES],
        vek: Option<&[u8]>,
        ask: Option<&[u8]>,
    ) -> Vec<u8> {
        let envelope = Envelope {
            type_: ENVELOPE_TYPE.to_owned(),
            report: STANDARD.encode(report),
            vek: vek.map(|der| STANDARD.encode(der)),
            ask: ask.map(|der| STANDARD.encode(der)),
        };
        // Four plain strings always have a JSON form.
        serde_json::to_vec(&envelope).unwrap_or_default()
    }

    /// SHA-256 of the evidence as handed in.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The report, unread.
    pub fn report(&self) -> &[u8] {
        &self.report
    }

    pub(super) const fn vek(&self) -> Option<&Certificate> {
        self.vek.as_ref()
    }

    pub(super) const fn ask(&self) -> Option<&Certificate> {
        self.ask.as_ref()
    }
}

fn certificate(field: &'static str, text: Option<String>) -> Result<Option<Certificate>, Unusable> {
    let Some(text) = text else { return Ok(None) };
    let der = STANDARD.decode(text).map_err(|_| Unusable::Certificate(field))?;
    let certificate = Certificate::from_der(&der).ok_or(Unusable::Certificate(field))?;
    Ok(Some(certificate))
}

/// The `type` of an envelope.
pub const ENVELOPE_TYPE: &str = "kms-snp-evidence/v1";
/// Longest envelope that is read: a report and two certificates in base64 take about 6 KiB.
pub const ENVELOPE_BYTES_MAX: usize = 32 * 1024;
