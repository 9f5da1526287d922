//! AMD SEV-SNP attestation reports.
//!
//! [`examine`] asks of a report everything that can be asked without knowing the request it was
//! made for. Each question is a named check, asked in this order:
//!
//! | check | established when |
//! |---|---|
//! | `report-structure` | every field is as the firmware ABI says |
//! | `product` | the signing key's certificate and the report's CPUID name the same product |
//! | `chain` | the certificate leads to a believed root, link by link |
//! | `validity` | every certificate of the chain is valid at the time of the examination |
//! | `revocation` | a current list of the root's names none of them |
//! | `signing-key-kind` | report and certificate agree on the kind of key, and the kind is permitted |
//! | `report-signature` | that key signed the report |
//! | `hardware-id` | the certificate is for the chip that the report names |
//! | `tcb-match` | the certificate is for the TCB that the report names |
//! | `tcb-order` | nothing reported or committed is newer than what runs |
//! | `debug` | the guest cannot be debugged |
//! | `migration` | no migration agent can move the guest |
//! | `vmpl` | the report was asked for at a permitted privilege level |
//! | `guest-policy` | no reserved bit of the guest policy is used |

mod chain;
mod document;
mod evidence;
pub mod product;
pub mod report;
#[cfg(any(test, feature = "software-attester"))]
pub mod software;
pub mod tcb;
#[cfg(test)]
mod tests;

pub use evidence::{ENVELOPE_BYTES_MAX, ENVELOPE_TYPE, SnpEvidence};

use std::collections::BTreeSet;

use kms_core::claims::{EvidenceKind, Examination, Outcome, TrustRoot, Verdict};
use kms_core::id::Timestamp;
use kms_core::transcript::ReportData;
use p384::ecdsa::signature::Verifier;
use serde_json::{Value, json};
use x509_cert::name::Name;

use crate::collateral::Collateral;
use chain::{Chain, Leaf};
use product::Product;
use report::{Report, ReportError, SigningKey};

/// What the caller permits beyond the strict default.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SnpPolicy {
    /// The cloud operators whose VLEK may sign in place of the chip's own key, as their
    /// certificates name them (for example `CN=cc-us-east-2.amazonaws.com`).
    pub vlek_operators: BTreeSet<String>,
    /// The privilege levels besides 0 that a report may be asked for at.
    pub vmpls: BTreeSet<u32>,
}

/// Examines a report as of the time `at`. It never fails: evidence that is wrong has a verdict that
/// says so, and evidence that leads to no believed root is said to lead to one that proves nothing.
pub fn examine(
    evidence: &SnpEvidence,
    collateral: &Collateral,
    at: Timestamp,
    policy: &SnpPolicy,
) -> Examination {
    let report = match Report::parse(evidence.report()) {
        Ok(report) => report,
        Err(fault) => return unreadable(evidence, fault),
    };
    let leaves = leaves(evidence, collateral);
    let leaf = choose(&report, leaves, evidence, collateral, at);
    let chain = leaf
        .as_ref()
        .ok_or_else(|| "no certificate of the signing key was handed in".to_owned())
        .and_then(|leaf| chain::build(leaf, evidence.ask(), collateral));
    let product = leaf.as_ref().and_then(|leaf| leaf.product);
    let mut verdict = Verdict::default();
    verdict.note("report-structure", Outcome::Established);
    match &leaf {
        Some(leaf) => check_leaf(&mut verdict, &report, leaf, &chain, collateral, at, policy),
        None => verdict.note("chain", failed(&chain)),
    }
    check_guest(&mut verdict, &report, product, policy);
    let root = chain::trust(chain.as_ref().ok());
    let document = document::of(&report, product, leaf.as_ref());
    examination(evidence, root, verdict, &report.report_data, &report.measurement, document)
}

/// The common name in a distinguished name.
pub(crate) fn common_name(name: &Name) -> Option<String> {
    name.common_name().ok().flatten().map(|name| name.value().into_owned())
}

/// Every certificate that may be the signing key's: the one that came along, or else those among
/// the collateral.
fn leaves<'a>(evidence: &'a SnpEvidence, collateral: &'a Collateral) -> Vec<Leaf<'a>> {
    match evidence.vek() {
        Some(certificate) => vec![Leaf::new("evidence", certificate)],
        None => {
            let all = collateral.certificates().iter();
            let all = all.map(|named| Leaf::new(named.name.clone(), &named.thing));
            all.filter(|leaf| leaf.kind.is_some()).take(LEAVES_MAX).collect()
        }
    }
}

/// Picks the certificate to check the report against: one whose key signed it if there is one, and
/// among those (a vendor reissues certificates for the same key) one that is valid and has a chain;
/// otherwise the one that says it is for this chip, so that the verdict names what is wrong.
fn choose<'a>(
    report: &Report,
    leaves: Vec<Leaf<'a>>,
    evidence: &SnpEvidence,
    collateral: &Collateral,
    at: Timestamp,
) -> Option<Leaf<'a>> {
    let fitness = |leaf: &Leaf<'_>| {
        let signed = signature(report, leaf);
        let this_chip = hardware_id(report, leaf) == Outcome::Established;
        let this_kind = leaf.kind == Some(report.signing_key);
        let valid = signed && leaf.certificate.is_valid_at(at);
        let chained = signed && chain::build(leaf, evidence.ask(), collateral).is_ok();
        (signed, chained, valid, this_kind, this_chip)
    };
    if leaves.len() < 2 {
        return leaves.into_iter().next();
    }
    // `max_by_key` takes the last of equals; reversed, the first one handed in wins.
    leaves.into_iter().rev().max_by_key(fitness)
}

fn check_leaf(
    verdict: &mut Verdict,
    report: &Report,
    leaf: &Leaf<'_>,
    chain: &Result<Chain<'_>, String>,
    collateral: &Collateral,
    at: Timestamp,
    policy: &SnpPolicy,
) {
    verdict.note("product", product_agrees(report, leaf.product));
    let built = chain.as_ref().ok();
    verdict.note("chain", failed(chain));
    verdict.note("validity", chain::validity(leaf, built, at));
    verdict.note("revocation", chain::revocation(leaf, built, collateral, at));
    verdict.note("signing-key-kind", signing_key_kind(report, leaf, policy));
    verdict.require("report-signature", signature(report, leaf), || {
        "the report is not signed by the key of this certificate".into()
    });
    verdict.note("hardware-id", hardware_id(report, leaf));
    verdict.note("tcb-match", tcb_match(report, leaf));
}

fn failed<T>(result: &Result<T, String>) -> Outcome {
    match result {
        Ok(_) => Outcome::Established,
        Err(reason) => Outcome::Failed(reason.clone()),
    }
}

fn product_agrees(report: &Report, product: Option<Product>) -> Outcome {
    let Some(product) = product else {
        return Outcome::Failed("the certificate names no known product".into());
    };
    match report.cpuid {
        // Version 2 has no CPUID; the certificate alone tells.
        None => Outcome::Established,
        Some([family, model, _]) if Product::from_cpuid(family, model) == Some(product) => {
            Outcome::Established
        }
        Some([family, model, _]) => Outcome::Failed(format!(
            "the certificate is for {product}, the report for family 0x{family:x} model 0x{model:x}"
        )),
    }
}

fn signing_key_kind(report: &Report, leaf: &Leaf<'_>, policy: &SnpPolicy) -> Outcome {
    if report.mask_chip_key {
        return Outcome::Failed("the platform is told not to sign with its chip key".into());
    }
    if leaf.kind != Some(report.signing_key) {
        let kind = report.signing_key.as_str();
        return Outcome::Failed(format!("the report is signed by a {kind}, which this is not"));
    }
    match (report.signing_key, leaf.operator()) {
        (SigningKey::Vcek, None) => Outcome::Established,
        (SigningKey::Vcek, Some(_)) => Outcome::Failed("a VCEK names no cloud operator".into()),
        (SigningKey::Vlek, None) => Outcome::Failed("the VLEK names no cloud operator".into()),
        (SigningKey::Vlek, Some(operator)) if policy.vlek_operators.contains(&operator) => {
            Outcome::Established
        }
        (SigningKey::Vlek, Some(operator)) => {
            Outcome::Failed(format!("a VLEK of {operator:?} is not permitted"))
        }
    }
}

fn signature(report: &Report, leaf: &Leaf<'_>) -> bool {
    leaf.key.is_some_and(|key| key.verify(&report.signed, &report.signature).is_ok())
}

fn hardware_id(report: &Report, leaf: &Leaf<'_>) -> Outcome {
    let id = match (leaf.kind, leaf.hardware_id()) {
        (_, Err(fault)) => return Outcome::Failed(fault.into()),
        (Some(SigningKey::Vlek), Ok(None)) => {
            return Outcome::NotEstablished("a VLEK does not say which chip it is on".into());
        }
        (Some(SigningKey::Vlek), Ok(Some(_))) => {
            return Outcome::Failed("a VLEK names no chip".into());
        }
        (_, Ok(None)) => return Outcome::Failed("the certificate names no chip".into()),
        (_, Ok(Some(id))) => id,
    };
    let length = leaf.product.map_or(64, Product::hardware_id_bytes);
    if id.len() != length {
        return Outcome::Failed(format!("the hardware id is not {length} bytes long"));
    }
    if report.chip_id_is_masked() {
        return Outcome::NotEstablished("the platform masks its chip id".into());
    }
    let (chip, rest) = report.chip_id.split_at(length.min(report.chip_id.len()));
    if chip == id && rest.iter().all(|&byte| byte == 0) {
        Outcome::Established
    } else {
        Outcome::Failed("the certificate is for another chip than the report's".into())
    }
}

fn tcb_match(report: &Report, leaf: &Leaf<'_>) -> Outcome {
    let Some(product) = leaf.product else {
        return Outcome::Failed("the certificate names no known product".into());
    };
    match leaf.tcb(product) {
        Err(fault) => Outcome::Failed(fault),
        Ok(tcb) if tcb == report.reported_tcb => Outcome::Established,
        Ok(tcb) => {
            let (issued, reported) = (tcb.document(product), report.reported_tcb.document(product));
            Outcome::Failed(format!("the certificate is for {issued}, the report for {reported}"))
        }
    }
}

fn check_guest(
    verdict: &mut Verdict,
    report: &Report,
    product: Option<Product>,
    policy: &SnpPolicy,
) {
    verdict.note("tcb-order", tcb_order(report, product));
    let bit = |bit: u32| report.policy >> bit & 1 == 1;
    verdict.require("debug", !bit(document::DEBUG), || {
        "the guest policy allows debugging (bit 19)".into()
    });
    let agent = ![[0; 32], [0xff; 32]].contains(&report.report_id_ma);
    verdict.require("migration", !bit(document::MIGRATE_MA) && !agent, || {
        "the guest policy allows a migration agent (bit 18), or there is one".into()
    });
    let permitted = report.vmpl == 0 || (report.vmpl <= 3 && policy.vmpls.contains(&report.vmpl));
    verdict.require("vmpl", permitted, || {
        format!("the report was asked for at VMPL {}, which is not permitted", report.vmpl)
    });
    let reserved = report.policy & POLICY_RESERVED == POLICY_RESERVED_VALUE;
    verdict.require("guest-policy", reserved, || {
        format!("a reserved bit of the guest policy 0x{:x} is used", report.policy)
    });
}

/// The reported and the committed TCB are never newer than the current one, part by part; nor is
/// the committed firmware.
fn tcb_order(report: &Report, product: Option<Product>) -> Outcome {
    let Some(product) = product else {
        return Outcome::NotEstablished("the product is not known".into());
    };
    let current = report.current_tcb;
    for (name, tcb) in [("committed", report.committed_tcb), ("reported", report.reported_tcb)] {
        if let Some(part) = tcb.exceeds(current, product) {
            return Outcome::Failed(format!("the {name} {part} is newer than the current one"));
        }
    }
    if report.committed_version > report.current_version {
        return Outcome::Failed("the committed firmware is newer than the current one".into());
    }
    Outcome::Established
}

/// What can be said of a report that departs from the standard: that it does. REPORT_DATA and
/// MEASUREMENT stand at the same place in every version and are shown for the record.
fn unreadable(evidence: &SnpEvidence, fault: ReportError) -> Examination {
    let mut verdict = Verdict::default();
    verdict.note("report-structure", Outcome::Failed(fault.to_string()));
    let report = evidence.report();
    let report_data = report.get(0x50..0x90).and_then(|b| b.try_into().ok()).unwrap_or([0; 64]);
    let measurement = report.get(0x90..0xc0).and_then(|b| b.try_into().ok()).unwrap_or([0; 48]);
    let root = TrustRoot::Development;
    examination(evidence, root, verdict, &report_data, &measurement, Value::Null)
}

fn examination(
    evidence: &SnpEvidence,
    root: TrustRoot,
    verdict: Verdict,
    report_data: &[u8; 64],
    measurement: &[u8; 48],
    snp: Value,
) -> Examination {
    let document = json!({
        "kind": EvidenceKind::Snp,
        "root": root,
        "evidence_digest": hex::encode(evidence.digest().as_bytes()),
        "measurement": hex::encode(measurement),
        "report_data": hex::encode(report_data),
        "not_established": verdict.not_established(),
        "snp": snp,
    });
    Examination {
        kind: EvidenceKind::Snp,
        root,
        evidence_digest: evidence.digest(),
        report_data: ReportData(*report_data),
        verdict,
        measurement: hex::encode(measurement),
        document,
    }
}

/// POLICY bits 17 and 26 to 63, and what they must be (firmware ABI, table 10). An unknown bit may
/// allow the host something that nobody here knows of.
const POLICY_RESERVED: u64 = 1 << 17 | !0 << 26;
const POLICY_RESERVED_VALUE: u64 = 1 << 17;
/// Most certificates that a report is tried against.
const LEAVES_MAX: usize = 64;
