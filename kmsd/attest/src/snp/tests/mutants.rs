//! Two thousand random changes to evidence, certificates and root: no panic, and nothing accepted
//! that says something else than the original.

use rand::RngExt;
use rand::rngs::StdRng;

use super::*;

#[test]
fn mutants_are_refused() {
    let attester = attester();
    let original = attester.report(&request());
    let mut rng = rng(11);
    for round in 0..2000 {
        let mut report = original.to_vec();
        let mut certificates =
            [attester.vcek().to_vec(), attester.authority().to_vec(), attester.root().to_vec()];
        let place = rng.random_range(0..4);
        match certificates.get_mut(place) {
            Some(certificate) => mutate(certificate, &mut rng),
            None => mutate(&mut report, &mut rng),
        }
        let [vek, ask_certificate, root] = certificates;
        let Ok(report) = report.as_slice().try_into() else { continue };
        let evidence = SnpEvidence::envelope(report, Some(&vek), Some(&ask_certificate));
        let Ok(evidence) = SnpEvidence::from_bytes(&evidence) else { continue };
        let Ok(collateral) = Collateral::default().with_development_root("root", &root) else {
            continue;
        };
        let examination = examine(&evidence, &collateral, NOW, &SnpPolicy::default());
        let same = *report == original
            && vek == attester.vcek()
            && ask_certificate == attester.authority()
            && root == attester.root();
        let accepted = examination.verdict.failures().is_empty();
        assert_eq!(accepted, same, "round {round}");
    }
}

#[test]
fn mutants_of_an_envelope_are_refused_or_say_the_same() {
    let original = attester().evidence(&request());
    let (collateral, mut rng) = (collateral(), rng(12));
    let good = SnpEvidence::from_bytes(&original).unwrap();
    for round in 0..2000 {
        let mut bytes = original.clone();
        mutate(&mut bytes, &mut rng);
        let Ok(evidence) = SnpEvidence::from_bytes(&bytes) else { continue };
        let examination = examine(&evidence, &collateral, NOW, &SnpPolicy::default());
        if examination.verdict.failures().is_empty() {
            assert_eq!(evidence.report(), good.report(), "round {round}");
            let der = |e: &SnpEvidence| e.vek().map(|c| c.der().to_vec());
            assert_eq!(der(&evidence), der(&good), "round {round}");
        }
    }
}

#[test]
fn random_bytes_are_no_collateral_and_no_evidence() {
    let mut rng = rng(13);
    for _ in 0..2000 {
        let length = rng.random_range(0..2000);
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        if let Some(first) = bytes.first_mut() {
            *first = [0x30, b'{', *first][rng.random_range(0..3)];
        }
        assert!(Collateral::from_blobs([("x.der", &bytes)]).is_err());
        assert!(SnpEvidence::from_bytes(&bytes).is_err());
    }
}

/// Changes one to four places: a bit, a byte, or a piece cut out, doubled or filled.
fn mutate(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..bytes.len());
        let end = bytes.len().min(at + rng.random_range(1..=8));
        match rng.random_range(0..6) {
            0 | 1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = rng.random(),
            3 if bytes.len() > 16 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes[at..end].fill(0),
        }
    }
}
