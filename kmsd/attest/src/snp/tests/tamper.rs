//! Everything that somebody might do to evidence, certificates and lists, one case each. Each must be
//! refused, and by the check that is there for it.

use rsa::RsaPrivateKey;

use super::super::chain::{OID_HARDWARE_ID, OID_OPERATOR, OID_PRODUCT};
use super::super::report::REPORT_BYTES;
use super::super::software::{HARDWARE_ID, Plan, TCB, chip_info, extension, rsa_info};
use super::super::tcb;
use super::*;
use crate::Unusable;

fn validity() -> (Timestamp, Timestamp) {
    (NOW, NOW.plus_ms(DAY_MS))
}

fn plan() -> Plan {
    Plan::vcek(&HARDWARE_ID, TCB, validity()).unwrap()
}

/// Issues `plan` for the attester's chip.
fn leaf(plan: Plan, issuer: &RsaPrivateKey) -> Vec<u8> {
    plan.issue(&mut rng(5), &chip_info(&attester().chip_key).unwrap(), issuer).unwrap()
}

fn with_leaf(leaf: &[u8]) -> Examination {
    let report = attester().report(&request());
    let authority = attester().authority();
    ask(&SnpEvidence::envelope(&report, Some(leaf), Some(authority)), &collateral())
}

/// The checks that fail with a leaf that departs from the good one as `change` says.
fn leaf_with(change: impl FnOnce(&mut Plan)) -> Vec<String> {
    let mut plan = plan();
    change(&mut plan);
    failed_checks(&with_leaf(&leaf(plan, &attester().authority_key)))
}

/// The checks that fail with a report that departs from the good one as `change` says, signed.
fn report_with(change: impl FnOnce(&mut [u8; REPORT_BYTES])) -> Vec<String> {
    let mut report = attester().report(&request());
    change(&mut report);
    attester().sign(&mut report);
    failed_checks(&ask(&envelope(&report), &collateral()))
}

#[test]
fn a_leaf_like_the_good_one_passes() {
    assert_eq!(leaf_with(|_| {}), Vec::<String>::new());
    assert_eq!(report_with(|_| {}), Vec::<String>::new());
}

#[test]
fn no_bit_of_a_report_can_be_flipped() {
    let (good, collateral) = (attester().report(&request()), collateral());
    for at in 0..REPORT_BYTES {
        for bit in 0..8 {
            let mut report = good;
            report[at] ^= 1 << bit;
            let failures = failed_checks(&ask(&envelope(&report), &collateral));
            assert!(!failures.is_empty(), "byte 0x{at:x} bit {bit}");
        }
    }
}

#[test]
fn no_other_length_is_a_report() {
    let mut report = attester().report(&request()).to_vec();
    report.push(0);
    for length in (0..=REPORT_BYTES + 1).filter(|length| *length != REPORT_BYTES) {
        let refused = SnpEvidence::from_bytes(&report[..length]).unwrap_err();
        assert_eq!(refused, Unusable::ReportLength(length));
    }
}

#[test]
fn no_cut_of_an_envelope_is_one() {
    let evidence = attester().evidence(&request());
    for cut in 0..evidence.len() {
        assert!(SnpEvidence::from_bytes(&evidence[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn envelopes_are_read_strictly() {
    let good = String::from_utf8(attester().evidence(&request())).unwrap();
    for (from, to, fault) in [
        ("kms-snp-evidence/v1", "kms-snp-evidence/v2", Unusable::Envelope),
        ("\"report\"", "\"repoort\"", Unusable::Envelope),
        ("{\"type\"", "{\"x\":1,\"type\"", Unusable::Envelope),
        ("{\"type\"", "{\"type\":\"kms-snp-evidence/v1\",\"type\"", Unusable::Envelope),
        ("\"vek\":\"", "\"vek\":\"AAAA", Unusable::Certificate("vek")),
        ("\"ask\":\"", "\"ask\":\"!", Unusable::Certificate("ask")),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_eq!(SnpEvidence::from_bytes(changed.as_bytes()).unwrap_err(), fault, "{to}");
    }
    let long = format!("{good}{}", " ".repeat(ENVELOPE_BYTES_MAX));
    assert_eq!(SnpEvidence::from_bytes(long.as_bytes()).unwrap_err(), Unusable::TooLong);
}

#[test]
fn the_padding_of_the_signature_is_part_of_it() {
    // None of these bytes is under the signature, so the report is otherwise good.
    for at in (0x2a0 + 48..0x2a0 + 72).chain(0x2a0 + 120..REPORT_BYTES) {
        let mut report = attester().report(&request());
        report[at] = 1;
        let examination = ask(&envelope(&report), &collateral());
        assert_eq!(failed_checks(&examination), ["report-structure"], "0x{at:x}");
    }
}

#[test]
fn scalars_out_of_range_are_no_signature() {
    let order = hex::decode(
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    )
    .unwrap();
    for at in [0x2a0, 0x2a0 + 72] {
        for scalar in [vec![0; 48], order.clone(), vec![0xff; 48]] {
            let mut report = attester().report(&request());
            report[at..at + 48].copy_from_slice(&scalar.into_iter().rev().collect::<Vec<_>>());
            let examination = ask(&envelope(&report), &collateral());
            assert_eq!(failed_checks(&examination), ["report-structure"]);
        }
    }
}

#[test]
fn what_the_chip_would_sign_and_we_refuse() {
    for (check, at, value) in [
        ("report-structure", 0x34, 2),      // signature algorithm
        ("report-structure", 0x48, 7 << 2), // unsigned
        ("report-structure", 0x48, 2 << 2), // a key that does not exist
        ("report-structure", 0x00, 6),      // a version that does not exist
        ("report-structure", 0x4c, 1),      // reserved
        ("report-structure", 0x1eb, 1),     // reserved
        ("signing-key-kind", 0x48, 1 << 2), // signed by a VLEK, it says
        ("signing-key-kind", 0x48, 1 << 1), // chip key masked
        ("debug", 0x0a, 0x0b),              // policy bit 19
        ("migration", 0x0a, 0x07),          // policy bit 18
        ("migration", 0x160, 0x01),         // there is an agent
        ("guest-policy", 0x0a, 0x01),       // bit 17 must be one
        ("guest-policy", 0x0b, 0x04),       // bit 26 is reserved
        ("guest-policy", 0x0f, 0x80),       // bit 63 is reserved
        ("vmpl", 0x30, 1),
        ("vmpl", 0x31, 1),
        ("product", 0x189, 0x11), // Genoa's model
        ("product", 0x188, 0x1a), // Turin's family
        ("product", 0x188, 0x06), // somebody else's
        ("hardware-id", 0x1a0, 0x01),
        ("hardware-id", 0x1df, 0x01),
        ("tcb-match", 0x180, 2),
        ("tcb-match", 0x187, 114),
        ("tcb-order", 0x1e6, 9), // committed above current
        ("tcb-order", 0x1ee, 2), // committed firmware above current
    ] {
        let failures = report_with(|report| report[at] = value);
        assert_eq!(failures, [check], "byte 0x{at:x}");
    }
    assert_eq!(report_with(|report| report[0x38] = 2), ["tcb-order"]);
    assert_eq!(report_with(|report| report[0x182] = 1), ["tcb-match", "tcb-order"]);
}

#[test]
fn a_debuggable_guest_is_refused() {
    let evidence = attester().evidence(&ReportRequest { debug: true, ..request() });
    assert_eq!(failed_checks(&ask(&evidence, &collateral())), ["debug"]);
}

#[test]
fn turin_and_milan_byte_order_is_not_confused() {
    // What Turin would write for the very same versions.
    let failures =
        report_with(|report| report[0x180..0x188].copy_from_slice(&[0, 3, 0, 8, 0, 0, 0, 115]));
    assert!(failures.contains(&"tcb-match".to_owned()), "{failures:?}");
}

#[test]
fn every_extension_must_be_there_once_and_right() {
    let parts = ["boot_loader", "tee", "spl_4", "spl_5", "spl_6", "spl_7", "snp", "microcode"];
    for name in parts {
        let oid = tcb::extension(name);
        let find = |plan: &Plan| plan.extensions.iter().position(|e| e.extn_id == oid).unwrap();
        let missing = leaf_with(|plan| drop(plan.extensions.remove(find(plan))));
        let repeated = leaf_with(|plan| plan.extensions.push(plan.extensions[find(plan)].clone()));
        let differing = leaf_with(|plan| {
            let at = find(plan);
            plan.extensions[at] = extension(oid, false, &[2, 1, 99]).unwrap();
        });
        let long = leaf_with(|plan| {
            let at = find(plan);
            plan.extensions[at] = extension(oid, false, &[2, 2, 1, 0]).unwrap();
        });
        for failures in [missing, repeated, differing, long] {
            assert_eq!(failures, ["tcb-match"], "{name}");
        }
    }
    let fmc = extension(tcb::extension("fmc"), false, &[2, 1, 0]).unwrap();
    assert_eq!(leaf_with(|plan| plan.extensions.push(fmc)), ["tcb-match"]);
}

#[test]
fn the_hardware_id_must_be_there_once_and_right() {
    let without = |plan: &mut Plan| plan.extensions.retain(|e| e.extn_id != OID_HARDWARE_ID);
    let with = |id: &[u8]| {
        let id = extension(OID_HARDWARE_ID, false, id).unwrap();
        leaf_with(|plan| {
            without(plan);
            plan.extensions.push(id);
        })
    };
    assert_eq!(with(&HARDWARE_ID), Vec::<String>::new());
    assert_eq!(leaf_with(without), ["hardware-id"]);
    assert_eq!(with(&[0xd6; 64]), ["hardware-id"]);
    assert_eq!(with(&[0; 64]), ["hardware-id"]);
    assert_eq!(with(&HARDWARE_ID[..8]), ["hardware-id"]);
    assert_eq!(with(&[]), ["hardware-id"]);
    let again = extension(OID_HARDWARE_ID, false, &HARDWARE_ID).unwrap();
    assert_eq!(leaf_with(|plan| plan.extensions.push(again)), ["hardware-id"]);
}

#[test]
fn the_leaf_must_be_of_the_product_of_its_authority() {
    let with = |value: &[u8]| {
        let product = extension(OID_PRODUCT, false, value).unwrap();
        leaf_with(|plan| plan.extensions[0] = product)
    };
    assert_eq!(with(b"\x16\x05Milan"), Vec::<String>::new());
    for other in [&b"\x16\x05Genoa"[..], b"\x16\x05Turin", b"\x16\x06Milan2", b"\x0c\x05Milan", b""]
    {
        let failures = with(other);
        assert!(failures.contains(&"product".to_owned()), "{failures:?}");
        assert!(failures.contains(&"chain".to_owned()), "{failures:?}");
    }
}

#[test]
fn names_and_links_of_the_chain_must_fit() {
    assert_eq!(leaf_with(|plan| plan.issuer = "SEV-Genoa".into()), ["chain"]);
    assert_eq!(leaf_with(|plan| plan.issuer = "SEV-VLEK-Milan".into()), ["chain"]);
    assert_eq!(leaf_with(|plan| plan.issuer = "ARK-Milan".into()), ["chain"]);
    let nobody = leaf_with(|plan| plan.subject = "SEV-NOBODY".into());
    assert!(
        nobody.contains(&"chain".to_owned()) && nobody.contains(&"signing-key-kind".to_owned())
    );
    // Issued by the root directly, with either name.
    for issuer in ["ARK-Milan", "SEV-Milan"] {
        let by_root = Plan { issuer: issuer.into(), ..plan() };
        let examination = with_leaf(&leaf(by_root, &attester().root_key));
        assert_eq!(failed_checks(&examination), ["chain"], "{issuer}");
    }
    let authority = Plan::authority("SEV-Milan", "SEV-VCEK", 0, validity(), 0).unwrap();
    let as_authority = leaf_with(|plan| plan.extensions.extend(authority.extensions));
    assert_eq!(as_authority, ["chain"]);
    let critical = extension("1.2.3.4".parse().unwrap(), true, &[5, 0]).unwrap();
    assert_eq!(leaf_with(|plan| plan.extensions.push(critical)), ["chain"]);
}

#[test]
fn the_authority_must_be_one_of_the_believed_root() {
    let report = attester().report(&request());
    let authority_key = &attester().authority_key;
    let with = |change: &dyn Fn(&mut Plan), issuer| {
        let mut plan = Plan::authority("ARK-Milan", "SEV-Milan", 0, validity(), 2).unwrap();
        change(&mut plan);
        let authority = plan.issue(&mut rng(6), &rsa_info(authority_key).unwrap(), issuer).unwrap();
        let vcek = attester().vcek();
        let evidence = SnpEvidence::envelope(&report, Some(vcek), Some(&authority));
        failed_checks(&ask(&evidence, &collateral()))
    };
    let root_key = &attester().root_key;
    assert_eq!(with(&|_| {}, root_key), Vec::<String>::new());
    assert_eq!(with(&|_| {}, &stranger().root_key), ["chain"]);
    assert_eq!(with(&|plan| plan.subject = "SEV-Genoa".into(), root_key), ["chain"]);
    assert_eq!(with(&|plan| plan.issuer = "ARK-Genoa".into(), root_key), ["chain"]);
    assert_eq!(with(&|plan| drop(plan.extensions.remove(0)), root_key), ["chain"]);
    assert_eq!(with(&|plan| drop(plan.extensions.remove(1)), root_key), ["chain"]);
    let past = (Timestamp(0), Timestamp(NOW.0 - 1000));
    assert_eq!(with(&|plan| plan.validity = past, root_key), ["validity"]);
}

#[test]
fn a_strangers_chain_is_consistent_and_not_believed() {
    let examination = ask(&stranger().evidence(&request()), &collateral());
    assert_eq!(failed_checks(&examination), ["chain"]);
    let mixed = SnpEvidence::envelope(
        &stranger().report(&request()),
        Some(attester().vcek()),
        Some(attester().authority()),
    );
    assert_eq!(failed_checks(&ask(&mixed, &collateral())), ["report-signature"]);
}

#[test]
fn validity_includes_its_first_and_last_second_and_no_more() {
    let vcek = leaf(plan(), &attester().authority_key);
    let report = attester().report(&request());
    let evidence = SnpEvidence::envelope(&report, Some(&vcek), Some(attester().authority()));
    let evidence = SnpEvidence::from_bytes(&evidence).unwrap();
    let at = |at: u64| {
        failed_checks(&examine(&evidence, &collateral(), Timestamp(at), &SnpPolicy::default()))
    };
    assert_eq!(at(NOW.0 - 1), ["validity"]);
    assert_eq!(at(NOW.0), Vec::<String>::new());
    assert_eq!(at(NOW.0 + DAY_MS + 999), Vec::<String>::new());
    assert_eq!(at(NOW.0 + DAY_MS + 1000), ["validity"]);
    assert_eq!(at(u64::MAX), ["validity"]);
}

#[test]
fn lists_of_revoked_certificates_are_enforced() {
    let with = |list: &[u8], at| {
        let collateral = Collateral::from_blobs([("a.crl", list)])
            .unwrap()
            .with_development_root("root", attester().root())
            .unwrap();
        let evidence = SnpEvidence::from_bytes(&attester().evidence(&request())).unwrap();
        let examination = examine(&evidence, &collateral, at, &SnpPolicy::default());
        let open = examination.verdict.not_established().concat();
        (failed_checks(&examination), open)
    };
    let list = |serials: &[u8]| attester().revocation_list(&mut rng(7), NOW, serials).unwrap();
    let (fine, revoked) = ((Vec::new(), String::new()), (vec!["revocation".into()], String::new()));
    assert_eq!(with(&list(&[]), NOW), fine);
    assert_eq!(with(&list(&[2]), NOW), revoked, "the authority");
    assert_eq!(with(&list(&[0]), NOW), revoked, "the leaf");
    assert_eq!(with(&list(&[9, 8, 2]), NOW), revoked);
    let year = 365 * DAY_MS;
    assert_eq!(with(&list(&[]), NOW.plus_ms(year)), fine);
    assert_eq!(with(&list(&[]), NOW.plus_ms(year + 1000)), revoked, "past its next update");
    let tomorrow = attester().revocation_list(&mut rng(8), NOW.plus_ms(DAY_MS), &[]).unwrap();
    assert_eq!(with(&tomorrow, NOW), revoked, "of the future");
    let mut broken = list(&[]);
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(with(&broken, NOW), revoked, "broken signature");
    let strangers = stranger().revocation_list(&mut rng(9), NOW, &[]).unwrap();
    assert_eq!(with(&strangers, NOW), revoked, "same name, other key");
}

#[test]
fn a_vlek_passes_only_by_the_name_of_its_operator() {
    let validity = validity();
    let asvk = Plan::authority("ARK-Milan", "SEV-VLEK-Milan", 0, validity, 3).unwrap();
    let key = &attester().authority_key;
    let asvk = asvk.issue(&mut rng(10), &rsa_info(key).unwrap(), &attester().root_key).unwrap();
    let mut vlek = plan();
    (vlek.issuer, vlek.subject) = ("SEV-VLEK-Milan".into(), "SEV-VLEK".into());
    vlek.extensions.retain(|e| e.extn_id != OID_HARDWARE_ID);
    let unnamed = vlek.clone();
    vlek.extensions.push(extension(OID_OPERATOR, false, b"\x16\x04CN=x").unwrap());
    let mut with_chip = vlek.clone();
    with_chip.extensions.push(extension(OID_HARDWARE_ID, false, &HARDWARE_ID).unwrap());
    let mut report = attester().report(&request());
    report[0x48] = 1 << 2;
    report[0x1a0..0x1e0].fill(0);
    attester().sign(&mut report);
    let with = |plan: Plan, operator: &str| {
        let vlek = leaf(plan, key);
        let evidence = SnpEvidence::envelope(&report, Some(&vlek), Some(&asvk));
        let policy =
            SnpPolicy { vlek_operators: [operator.to_owned()].into(), ..SnpPolicy::default() };
        let evidence = SnpEvidence::from_bytes(&evidence).unwrap();
        examine(&evidence, &collateral(), NOW, &policy)
    };
    let good = with(vlek.clone(), "CN=x");
    assert_eq!(good.verdict.failures(), Vec::<String>::new());
    assert_eq!(good.verdict.not_established(), ["revocation", "hardware-id"]);
    assert_eq!(failed_checks(&with(vlek, "CN=y")), ["signing-key-kind"]);
    assert_eq!(failed_checks(&with(unnamed, "CN=x")), ["signing-key-kind"]);
    assert_eq!(failed_checks(&with(with_chip, "CN=x")), ["hardware-id"]);
    // A report that says VLEK, with the chip's own certificate.
    let examination = ask(&envelope(&report), &collateral());
    assert_eq!(failed_checks(&examination), ["signing-key-kind"]);
}
