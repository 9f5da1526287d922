//! What the checks say of self-made evidence, good and bad, and of real evidence.

mod mutants;
mod real;
mod tamper;

use std::sync::OnceLock;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::software::{ReportRequest, SoftwareAttester};
use super::*;

/// 2026-06-01T00:00:00Z.
pub(super) const NOW: Timestamp = Timestamp(1_780_272_000_000);
pub(super) const DAY_MS: u64 = 24 * 3600 * 1000;

pub(super) fn attester() -> &'static SoftwareAttester {
    static ATTESTER: OnceLock<SoftwareAttester> = OnceLock::new();
    ATTESTER.get_or_init(|| SoftwareAttester::generate(&mut rng(1), NOW).unwrap())
}

/// Deterministic, so that a failure can be seen again.
pub(super) fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub(super) fn request() -> ReportRequest {
    ReportRequest { report_data: [7; 64], measurement: [9; 48], debug: false }
}

/// The development root, believed; nothing else.
pub(super) fn collateral() -> Collateral {
    Collateral::default().with_development_root("root", attester().root()).unwrap()
}

pub(super) fn ask(evidence: &[u8], collateral: &Collateral) -> Examination {
    let evidence = SnpEvidence::from_bytes(evidence).unwrap();
    examine(&evidence, collateral, NOW, &SnpPolicy::default())
}

/// The names of the failed checks.
pub(super) fn failed_checks(examination: &Examination) -> Vec<String> {
    let failures = examination.verdict.failures().into_iter();
    failures.map(|f| f.split_once(':').unwrap().0.to_owned()).collect()
}

#[test]
fn good_evidence_passes_every_check() {
    let evidence = attester().evidence(&request());
    let examination = ask(&evidence, &collateral());
    assert_eq!(examination.verdict.failures(), Vec::<String>::new());
    assert_eq!(examination.verdict.not_established(), ["revocation"]);
    assert_eq!(examination.root, TrustRoot::Development);
    assert_eq!(examination.report_data, ReportData([7; 64]));
    assert_eq!(examination.measurement, hex::encode([9; 48]));
    let snp = &examination.document["snp"];
    assert_eq!(snp["product"], "Milan");
    assert_eq!(snp["platform_info"]["alias_check_complete"], true);
    assert_eq!(snp["reported_tcb"]["microcode"], 115);
    assert_eq!(snp["vek"]["source"], "evidence");
    assert_eq!(examination.document["root"], "development");
}

#[test]
fn the_leaf_may_come_from_the_collateral() {
    let attester = attester();
    let blobs = [("authority.der", attester.authority()), ("vcek.der", attester.vcek())];
    let collateral = Collateral::from_blobs(blobs)
        .unwrap()
        .with_development_root("root", attester.root())
        .unwrap();
    let examination = ask(&attester.report(&request()), &collateral);
    assert_eq!(examination.verdict.failures(), Vec::<String>::new());
    assert_eq!(examination.document["snp"]["vek"]["source"], "vcek.der");
}

#[test]
fn a_root_that_merely_lies_among_the_collateral_is_not_believed() {
    let collateral = Collateral::from_blobs([("root.der", attester().root())]).unwrap();
    assert_eq!(collateral.ignored(), ["root.der: a root certificate that is not pinned"]);
    let examination = ask(&attester().evidence(&request()), &collateral);
    assert_eq!(failed_checks(&examination), ["chain"]);
    assert_eq!(examination.root, TrustRoot::Development);
}

#[test]
fn a_current_list_of_the_root_establishes_revocation() {
    let list = attester().revocation_list(&mut rng(2), NOW, &[77]).unwrap();
    let collateral = Collateral::from_blobs([("a.crl", list)])
        .unwrap()
        .with_development_root("root", attester().root())
        .unwrap();
    let examination = ask(&attester().evidence(&request()), &collateral);
    assert_eq!(examination.verdict.failures(), Vec::<String>::new());
    assert_eq!(examination.verdict.not_established(), Vec::<&str>::new());
}

#[test]
fn an_attester_reads_back_and_signs_as_before() {
    let stored = attester().to_bytes().unwrap();
    let again = SoftwareAttester::from_bytes(&stored).unwrap();
    let examination = ask(&again.evidence(&request()), &collateral());
    assert_eq!(examination.verdict.failures(), Vec::<String>::new());
    assert!(SoftwareAttester::from_bytes(&stored[1..]).is_err());
}

#[test]
fn another_vmpl_passes_only_by_name() {
    let mut report = attester().report(&request());
    report[0x30] = 2;
    attester().sign(&mut report);
    let evidence = envelope(&report);
    let evidence = SnpEvidence::from_bytes(&evidence).unwrap();
    let with = |vmpls: &[u32]| {
        let policy = SnpPolicy { vmpls: vmpls.iter().copied().collect(), ..SnpPolicy::default() };
        failed_checks(&examine(&evidence, &collateral(), NOW, &policy))
    };
    assert_eq!(with(&[]), ["vmpl"]);
    assert_eq!(with(&[1, 3]), ["vmpl"]);
    assert_eq!(with(&[2]), Vec::<String>::new());
}

#[test]
fn a_masked_chip_id_leaves_the_hardware_open() {
    let mut report = attester().report(&request());
    report[0x1a0..0x1e0].fill(0);
    attester().sign(&mut report);
    let examination = ask(&envelope(&report), &collateral());
    assert_eq!(examination.verdict.failures(), Vec::<String>::new());
    assert_eq!(examination.verdict.not_established(), ["revocation", "hardware-id"]);
}

/// The report with the attester's certificates.
pub(super) fn envelope(report: &[u8; report::REPORT_BYTES]) -> Vec<u8> {
    SnpEvidence::envelope(report, Some(attester().vcek()), Some(attester().authority()))
}

/// Keys take seconds to make; whoever needs a second attester shares this one.
pub(super) fn stranger() -> &'static SoftwareAttester {
    static STRANGER: OnceLock<SoftwareAttester> = OnceLock::new();
    STRANGER.get_or_init(|| SoftwareAttester::generate(&mut rng(3), NOW).unwrap())
}
