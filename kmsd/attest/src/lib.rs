//! Evidence in, claims out: what a verifier can say of a piece of attestation evidence.
//!
//! Everything here is pure: evidence, collateral, the time and the caller's choices come in, an
//! [`Examination`] goes out. Nothing is fetched, no clock is read, no file is opened. The daemon
//! calls it before it decides, `kms-verify` offline; whether an examination is believed, and for
//! which request, is the business of [`kms_core::claims`].
//!
//! There is one folder per kind of evidence ([`snp`]), the [`collateral`] that all share, and the
//! policy [`hook`] that a key's owner may add on top. A hook can refuse what the checks here found
//! right; it cannot accept what they found wrong.

#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

pub mod collateral;
mod error;
pub mod hook;
pub mod snp;
mod x509;

pub use error::{CollateralError, PolicyError, Unusable};

use kms_core::claims::{EvidenceKind, Examination};
use kms_core::id::Timestamp;

use collateral::Collateral;
use snp::{SnpEvidence, SnpPolicy};

/// What the caller permits beyond the strict default, kind by kind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// For SEV-SNP reports.
    pub snp: SnpPolicy,
}

/// Examines `evidence` of `kind` as of the time `at`.
///
/// # Errors
/// [`Unusable`] when the bytes are not evidence of that kind. Evidence that is readable and wrong
/// gives an [`Examination`] whose verdict says so.
pub fn examine(
    kind: EvidenceKind,
    evidence: &[u8],
    collateral: &Collateral,
    at: Timestamp,
    options: &Options,
) -> Result<Examination, Unusable> {
    match kind {
        EvidenceKind::Snp => {
            let evidence = SnpEvidence::from_bytes(evidence)?;
            Ok(snp::examine(&evidence, collateral, at, &options.snp))
        }
        _ => Err(Unusable::Kind(kind)),
    }
}
