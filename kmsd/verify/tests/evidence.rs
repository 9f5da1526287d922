//! Evidence as the command line verifies it.

// The helpers of a test may unwrap as the test itself does.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::OnceLock;

use kms_attest::snp::software::{ReportRequest, SoftwareAttester};
use kms_verify::{
    Collateral, EvidenceKind, EvidenceReport, Expectation, ReportData, Timestamp, TrustRoot,
    VerifyError, verify_evidence,
};
use rand::SeedableRng;

/// 2026-06-01T00:00:00Z.
const NOW: Timestamp = Timestamp(1_780_272_000_000);

fn attester() -> &'static SoftwareAttester {
    static ATTESTER: OnceLock<SoftwareAttester> = OnceLock::new();
    let make = || SoftwareAttester::generate(&mut rand::rngs::StdRng::seed_from_u64(1), NOW);
    ATTESTER.get_or_init(|| make().unwrap())
}

fn request() -> ReportRequest {
    ReportRequest { report_data: [7; 64], measurement: [9; 48], debug: false }
}

fn collateral() -> Collateral {
    Collateral::default().with_development_root("root", attester().root()).unwrap()
}

fn verify(evidence: &[u8], expected: &Expectation<'_>) -> Result<EvidenceReport, VerifyError> {
    verify_evidence(EvidenceKind::Snp, evidence, &collateral(), NOW, expected)
}

#[test]
fn good_evidence_is_accepted_with_what_it_says() {
    let policy = "package policy\nallow if input.root == \"development\"";
    let expected = Expectation {
        report_data: Some(ReportData([7; 64])),
        policy: Some(policy),
        ..Expectation::default()
    };
    let report = verify(&attester().evidence(&request()), &expected).unwrap();
    assert!(report.accepted, "{:?}", report.reasons);
    assert_eq!(report.not_established, ["revocation"]);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["accepted"], true);
    assert_eq!(json["document"]["snp"]["vek"]["source"], "evidence");
    assert_eq!(json["document"]["measurement"], hex::encode([9; 48]));
}

#[test]
fn other_report_data_and_a_policys_no_are_refusals() {
    let evidence = attester().evidence(&request());
    let other = Expectation { report_data: Some(ReportData([8; 64])), ..Expectation::default() };
    let report = verify(&evidence, &other).unwrap();
    assert!(!report.accepted && report.reasons[0].starts_with("report-data: "));
    for policy in
        ["package policy\nallow := false", "package policy\nallow if input.root == \"vendor\""]
    {
        let expected = Expectation { policy: Some(policy), ..Expectation::default() };
        let report = verify(&evidence, &expected).unwrap();
        assert!(!report.accepted && report.reasons[0].starts_with("release-policy: "));
    }
}

#[test]
fn a_policy_cannot_accept_what_the_checks_refuse() {
    let allow = Expectation { policy: Some("package policy\nallow := true"), ..Default::default() };
    let evidence = attester().evidence(&ReportRequest { debug: true, ..request() });
    let report = verify(&evidence, &allow).unwrap();
    assert!(!report.accepted);
    assert!(report.reasons[0].starts_with("debug: "), "{:?}", report.reasons);
}

#[test]
fn what_cannot_be_used_is_an_error_and_not_a_refusal() {
    let none = Expectation::default();
    for evidence in [b"".as_slice(), b"{}", &[0; 1183], &[0; 1185], &[b'x'; 40_000]] {
        assert!(matches!(verify(evidence, &none), Err(VerifyError::Evidence(_))));
    }
    let broken = Expectation { policy: Some("not rego"), ..Expectation::default() };
    let evidence = attester().evidence(&request());
    assert!(matches!(verify(&evidence, &broken), Err(VerifyError::Policy(_))));
}

#[test]
fn a_report_without_its_certificate_is_refused_and_says_so() {
    let report = verify(&attester().report(&request()), &Expectation::default()).unwrap();
    assert!(!report.accepted);
    assert!(report.reasons[0].starts_with("chain: no certificate"), "{:?}", report.reasons);
}

#[test]
fn a_whole_folder_of_real_collateral_does_not_confuse() {
    let shared = std::env::var_os("KMS_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let folder = shared.join("evidence/snp");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: no evidence at {}", folder.display());
        return;
    };
    let blobs = entries.map(|entry| entry.unwrap()).map(|entry| {
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    });
    let collateral = Collateral::from_blobs(blobs).unwrap();
    let march_2026 = Timestamp(1_772_323_200_000);
    for (name, accepted) in [
        ("milan-v2.report.bin", true),
        ("genoa-v3.report.bin", true),
        ("turin-v5.report.bin", true),
        ("milan-v2-debug.report.bin", false),
        ("milan-v3-vlek.report.bin", false),
    ] {
        let evidence = std::fs::read(folder.join(name)).unwrap();
        let expected = Expectation::default();
        let report =
            verify_evidence(EvidenceKind::Snp, &evidence, &collateral, march_2026, &expected)
                .unwrap();
        assert_eq!(report.accepted, accepted, "{name}: {:?}", report.reasons);
        assert_eq!(report.document["root"], serde_json::to_value(TrustRoot::Vendor).unwrap());
    }
}
