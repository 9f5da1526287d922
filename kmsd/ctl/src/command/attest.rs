//! `kmsctl attest`: evidence, examined offline.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use kms_verify::{
    Collateral, EvidenceKind, Expectation, Options, ReportData, SnpPolicy, Timestamp,
    verify_evidence,
};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::input::{self, HexBytes};
use crate::output::Report;
use crate::view;

#[derive(Debug, Subcommand)]
pub(crate) enum Attest {
    /// Examine a piece of evidence as of a given time, without daemon and network.
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// What the evidence is.
        #[arg(long, value_enum)]
        kind: Kind,
        /// File with the evidence.
        #[arg(long, value_name = "FILE")]
        evidence: PathBuf,
        /// Folder with the vendor's certificates and revocation lists.
        #[arg(long, value_name = "DIR")]
        collateral: PathBuf,
        /// The time to judge by, for example 2026-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME", value_parser = input::timestamp)]
        at: Timestamp,
        /// The 64 bytes of report data that the evidence must commit to.
        #[arg(long, value_name = "HEX", value_parser = report_data)]
        report_data: Option<[u8; 64]>,
        /// Release policy (Rego) that must allow the evidence.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Cloud operator whose VLEK may sign, as its certificate names it. May be repeated.
        #[arg(long, value_name = "CSP")]
        allow_vlek: Vec<String>,
        /// Privilege level besides 0 that the report may be from. May be repeated.
        #[arg(long, value_name = "N")]
        allow_vmpl: Vec<u32>,
        /// Root certificate of a software attester, to be believed for development. May be repeated.
        #[arg(long, value_name = "FILE")]
        development_root: Vec<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// AMD SEV-SNP attestation report.
    Snp,
}

impl Attest {
    pub(crate) fn run(self) -> Result<Report, Failure> {
        let Self::Verify {
            kind: Kind::Snp,
            evidence,
            collateral,
            at,
            report_data,
            policy,
            allow_vlek,
            allow_vmpl,
            development_root,
        } = self;
        let bytes = input::read(&evidence, EVIDENCE_BYTES_MAX)?;
        let blobs = input::read_folder(&collateral, COLLATERAL_FILES_MAX, COLLATERAL_BYTES_MAX)?;
        let unusable = |error| Failure::input(collateral.display(), error);
        let mut collateral = Collateral::from_blobs(blobs).map_err(unusable)?;
        for path in development_root {
            let root = input::read(&path, COLLATERAL_BYTES_MAX)?;
            let name = path.display().to_string();
            collateral = collateral
                .with_development_root(&name, &root)
                .map_err(|error| Failure::Input(error.to_string()))?;
        }
        let policy = policy.as_deref().map(input::read_text).transpose()?;
        let expected = Expectation {
            report_data: report_data.map(ReportData),
            policy: policy.as_deref(),
            options: Options {
                snp: SnpPolicy {
                    vlek_operators: allow_vlek.into_iter().collect(),
                    vmpls: allow_vmpl.into_iter().collect(),
                },
            },
        };
        let report = verify_evidence(EvidenceKind::Snp, &bytes, &collateral, at, &expected)
            .map_err(|error| Failure::Input(error.to_string()))?;
        let checks = report.verdict.checks().iter();
        let rows = checks.map(|check| serde_json::to_value(check).unwrap_or(Value::Null)).collect();
        let verdict = if report.accepted { "accepted" } else { "REFUSED" };
        let mut shown = Report::rows("checks", &["name", "outcome", "detail"], rows)
            .with("accepted", json!(report.accepted))
            .with("kind", json!(report.kind))
            .with("at", json!(view::time_ms(report.at_ms.0)))
            .with("evidence_digest", json!(report.evidence_digest))
            .with("reasons", json!(report.reasons))
            .with("not_established", json!(report.not_established))
            .with("document", report.document)
            .with("collateral_ignored", json!(report.collateral_ignored))
            .note(format!("\n{verdict} as of {}", view::time_ms(report.at_ms.0)));
        for reason in report.reasons {
            shown = shown.note(format!("  refused: {reason}"));
        }
        for check in report.not_established {
            shown = shown.note(format!("  not established: {check}"));
        }
        Ok(shown.accepted_if(report.accepted))
    }
}

fn report_data(text: &str) -> Result<[u8; 64], String> {
    let HexBytes(bytes) = input::hex_bytes(text)?;
    bytes.try_into().map_err(|_| "expected 128 hexadecimal digits".to_owned())
}

const EVIDENCE_BYTES_MAX: usize = 64 * 1024;
const COLLATERAL_FILES_MAX: usize = 256;
const COLLATERAL_BYTES_MAX: usize = 1 << 20;
const VERIFY_HELP: &str = "\
Examples:
  kmsctl attest verify --kind snp --evidence report.bin --collateral milan/ \\
    --at 2026-01-31T12:00:00Z
  kmsctl attest verify --kind snp --evidence report.bin --collateral milan/ \\
    --at 2026-01-31T12:00:00Z --policy release.rego

Exit code 0: accepted. 3: refused, with every reason. 2: the input cannot be used.
What is \"not established\" (a revocation list that was not handed in) is reported and does not
refuse; a release of a key is stricter.";
