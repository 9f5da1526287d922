//! Real reports of real hardware with the verdicts that their index gives. The data is not part of
//! this repository; without it these tests say that they are skipped.

use std::path::PathBuf;

use super::*;

/// The folder of the evidence, if it is there.
fn folder() -> Option<PathBuf> {
    let shared = std::env::var_os("KMS_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let folder = shared.join("evidence/snp");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no evidence at {}", folder.display());
    None
}

fn files(folder: &PathBuf, pick: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(name, _)| pick(name))
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

const MARCH_2026: Timestamp = Timestamp(1_772_323_200_000);
const JUNE_2025: Timestamp = Timestamp(1_748_736_000_000);

fn check(report: &[u8], collateral: &Collateral, at: Timestamp, policy: &SnpPolicy) -> Examination {
    examine(&SnpEvidence::from_bytes(report).unwrap(), collateral, at, policy)
}

#[test]
fn real_reports_get_the_verdicts_of_their_index() {
    let Some(folder) = folder() else { return };
    let collateral = Collateral::from_blobs(files(&folder, |_| true)).unwrap();
    let report = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let strict = SnpPolicy::default();
    for (name, leaf, product) in [
        ("milan-v2.report.bin", "milan-v2.vcek.der", "Milan"),
        ("genoa-v3.report.bin", "genoa-v3.vcek.pem", "Genoa"),
        ("turin-v5.report.bin", "turin-v5.vcek.pem", "Turin"),
    ] {
        let examination = check(&report(name), &collateral, MARCH_2026, &strict);
        assert_eq!(examination.verdict.failures(), Vec::<String>::new(), "{name}");
        assert_eq!(examination.verdict.not_established(), ["revocation"], "{name}");
        assert_eq!(examination.root, TrustRoot::Vendor);
        assert_eq!(examination.document["snp"]["vek"]["source"], leaf);
        assert_eq!(examination.document["snp"]["product"], product);
    }
    let debug = check(&report("milan-v2-debug.report.bin"), &collateral, MARCH_2026, &strict);
    assert_eq!(failed_checks(&debug), ["debug"]);
    let turin = check(&report("turin-v5.report.bin"), &collateral, MARCH_2026, &strict);
    let snp = &turin.document["snp"];
    assert_eq!(
        snp["reported_tcb"],
        json!({
            "fmc": 1, "boot_loader": 1, "tee": 1, "snp": 4, "microcode": 81
        })
    );
    assert_eq!(snp["platform_info"]["unknown_bits"], "0x40");
    println!("checked: real evidence");
}

#[test]
fn a_real_vlek_passes_only_as_its_index_says() {
    let Some(folder) = folder() else { return };
    let collateral = Collateral::from_blobs(files(&folder, |_| true)).unwrap();
    let report = std::fs::read(folder.join("milan-v3-vlek.report.bin")).unwrap();
    let strict = SnpPolicy::default();
    let named = SnpPolicy {
        vlek_operators: ["CN=cc-us-east-2.amazonaws.com".to_owned()].into(),
        vmpls: [1].into(),
    };
    let accepted = check(&report, &collateral, JUNE_2025, &named);
    assert_eq!(accepted.verdict.failures(), Vec::<String>::new());
    assert_eq!(accepted.document["snp"]["vek"]["source"], "milan-v3-vlek.der");
    let refused = check(&report, &collateral, JUNE_2025, &strict);
    assert_eq!(failed_checks(&refused), ["signing-key-kind", "vmpl"]);
    let expired = check(&report, &collateral, MARCH_2026, &named);
    assert_eq!(failed_checks(&expired), ["validity"]);
}

#[test]
fn with_only_the_wrong_leaf_a_real_report_is_refused_and_the_reason_named() {
    let Some(folder) = folder() else { return };
    let pick = |name: &str| name.starts_with("roots-") || name == "milan-wrong-vcek.der";
    let collateral = Collateral::from_blobs(files(&folder, pick)).unwrap();
    for name in ["milan-v2.report.bin", "genoa-v3.report.bin", "turin-v5.report.bin"] {
        let report = std::fs::read(folder.join(name)).unwrap();
        let failures =
            failed_checks(&check(&report, &collateral, MARCH_2026, &SnpPolicy::default()));
        for check in ["chain", "report-signature", "hardware-id"] {
            assert!(failures.contains(&check.to_owned()), "{name}: {failures:?}");
        }
    }
}

#[test]
fn without_its_root_or_with_anothers_a_real_report_is_refused() {
    let Some(folder) = folder() else { return };
    let report = std::fs::read(folder.join("genoa-v3.report.bin")).unwrap();
    for roots in ["", "roots-milan", "roots-turin"] {
        let pick = |name: &str| {
            name == "genoa-v3.vcek.pem" || (!roots.is_empty() && name.starts_with(roots))
        };
        let collateral = Collateral::from_blobs(files(&folder, pick)).unwrap();
        let examination = check(&report, &collateral, MARCH_2026, &SnpPolicy::default());
        assert_eq!(failed_checks(&examination), ["chain"]);
        assert_eq!(examination.root, TrustRoot::Development);
    }
}

#[test]
fn no_byte_of_a_real_root_can_be_changed() {
    let Some(folder) = folder() else { return };
    let report = std::fs::read(folder.join("milan-v2.report.bin")).unwrap();
    let leaf = std::fs::read(folder.join("milan-v2.vcek.der")).unwrap();
    let pem = std::fs::read(folder.join("roots-milan-vcek.pem")).unwrap();
    let good = Collateral::from_blobs([("roots.pem", &pem)]).unwrap();
    let root = good.roots()[0].certificate.der().to_vec();
    let authority = good.certificates()[0].thing.der().to_vec();
    for at in 0..root.len() {
        let mut changed = root.clone();
        changed[at] ^= 1 << (at % 8);
        let blobs = [("root.der", &changed), ("leaf.der", &leaf), ("authority.der", &authority)];
        let Ok(collateral) = Collateral::from_blobs(blobs) else { continue };
        let examination = check(&report, &collateral, MARCH_2026, &SnpPolicy::default());
        assert!(failed_checks(&examination).contains(&"chain".to_owned()), "byte {at}");
    }
}
