//! Exported logs, whole and tampered with.

// The helpers of a test may unwrap as the test itself does.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey};
use kms_core::audit::merkle::{self, Frontier, Nodes};
use kms_core::audit::{Leaf, LeafOutcome, tile};
use kms_verify::{Checkpoint, Digest, LogKey, verify_inclusion, verify_log};

type Export = BTreeMap<String, Vec<u8>>;

const SIZE: u64 = 600;

fn secret() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn key() -> LogKey {
    LogKey::new("kms/test", secret().verifying_key().as_bytes()).unwrap()
}

fn leaf(index: u64) -> Vec<u8> {
    let denied = index.is_multiple_of(10);
    let leaf = Leaf {
        time_ms: 1_780_000_000_000 + index,
        operation_id: vec![u8::try_from(index % 251).unwrap(); 16],
        actor: "apps/nginx".into(),
        action: if index.is_multiple_of(3) { "ReleaseKey" } else { "Sign" }.into(),
        resource: "tenants/default/locations/here/keyRings/r/keys/k/versions/1".into(),
        region: "here".into(),
        outcome: if denied { LeafOutcome::Denied } else { LeafOutcome::Granted }.into(),
        reason: if denied { "KEY_STATE".into() } else { String::new() },
        count: if index == 20 { 5 } else { 0 },
        ..Leaf::default()
    };
    leaf.to_bytes()
}

fn leaves(size: u64) -> Vec<Vec<u8>> {
    (0..size).map(leaf).collect()
}

fn note(leaves: &[Vec<u8>]) -> String {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.append(merkle::leaf_hash(leaf));
    }
    let size = frontier.size();
    let checkpoint = Checkpoint { origin: "kms/test".into(), size, root: frontier.root() };
    let signature = secret().sign(checkpoint.text().as_bytes()).to_bytes();
    checkpoint.signed(&key(), &signature)
}

/// Entry bundles and hash tiles of level 0, with `note` as the head.
fn export(leaves: &[Vec<u8>], note: &str) -> Export {
    let mut export = Export::from([("checkpoint".to_owned(), note.as_bytes().to_vec())]);
    let mut roots = Vec::new();
    for (n, leaves) in (0..).zip(leaves.chunks(256)) {
        let bundle = tile::bundle(leaves.iter().map(Vec::as_slice)).unwrap();
        export.insert(tile::path(None, n, leaves.len() as u64), bundle);
        let mut frontier = Frontier::default();
        let mut hashes = Vec::new();
        for leaf in leaves {
            frontier.append(merkle::leaf_hash(leaf));
            hashes.extend(merkle::leaf_hash(leaf).as_bytes());
        }
        export.insert(tile::path(Some(0), n, leaves.len() as u64), hashes);
        if leaves.len() == 256 {
            roots.extend(*frontier.root().as_bytes());
        }
    }
    if !roots.is_empty() {
        export.insert(tile::path(Some(1), 0, roots.len() as u64 / 32), roots);
    }
    export
}

fn good() -> Export {
    let leaves = leaves(SIZE);
    export(&leaves, &note(&leaves))
}

fn reasons(mut export: Export) -> Vec<String> {
    let report = verify_log(&mut export, &key(), None).unwrap();
    assert_eq!(report.accepted, report.reasons.is_empty());
    report.reasons
}

#[test]
fn a_whole_log_is_accepted_and_counted() {
    let report = verify_log(&mut good(), &key(), None).unwrap();
    assert!(report.accepted, "{:?}", report.reasons);
    assert_eq!((report.size, report.leaves, report.hash_tiles), (SIZE, SIZE, 4));
    assert_eq!((report.total.granted, report.total.denied), (540, 64));
    assert_eq!(report.actions["ReleaseKey"].granted, 180);
    for size in [0, 1, 255, 256, 257, 512] {
        let leaves = leaves(size);
        let report = verify_log(&mut export(&leaves, &note(&leaves)), &key(), None).unwrap();
        assert!(report.accepted && report.leaves == size, "{size}: {:?}", report.reasons);
    }
}

#[test]
fn hash_tiles_may_be_absent() {
    let mut export = good();
    export.retain(|path, _| path == "checkpoint" || path.starts_with("tile/entries"));
    assert_eq!(reasons(export), Vec::<String>::new());
}

#[test]
fn every_file_is_needed_or_checked_at_every_place() {
    let mut tamperings = 0;
    for (path, bytes) in good() {
        let places = [0, 1, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1];
        for at in places {
            let mut flipped = good();
            flipped.get_mut(&path).unwrap()[at] ^= 1;
            assert!(!reasons(flipped).is_empty(), "{path} flipped at {at}");
            let mut cut = good();
            cut.get_mut(&path).unwrap().truncate(at);
            assert!(!reasons(cut).is_empty(), "{path} cut at {at}");
            tamperings += 2;
        }
        let mut longer = good();
        longer.get_mut(&path).unwrap().extend_from_slice(&bytes);
        assert!(!reasons(longer).is_empty(), "{path} doubled");
        tamperings += 1;
        if path == "checkpoint" || path.starts_with("tile/entries") {
            let mut missing = good();
            missing.remove(&path);
            let reasons = reasons(missing);
            assert!(reasons.iter().any(|reason| reason.starts_with(&path)), "{path}: {reasons:?}");
            tamperings += 1;
        }
    }
    assert!(tamperings >= 60, "{tamperings}");
}

#[test]
fn leaves_cannot_be_changed_dropped_doubled_or_moved() {
    let whole = leaves(SIZE);
    let head = note(&whole);
    for at in [0, 1, 100, 254, 255, 256, 257, 511, 512, 598] {
        let mut swapped = whole.clone();
        swapped.swap(at, at + 1);
        let mut replaced = whole.clone();
        replaced[at] = leaf(5000);
        let mut dropped = whole.clone();
        dropped.remove(at);
        let mut doubled = whole.clone();
        doubled.insert(at, whole[at].clone());
        let mut granted = whole.clone();
        let mut changed = Leaf::from_bytes(&whole[at]).unwrap();
        changed.outcome = 3 - changed.outcome;
        granted[at] = changed.to_bytes();
        for (name, leaves) in [
            ("swapped", swapped),
            ("replaced", replaced),
            ("dropped", dropped),
            ("doubled", doubled),
            ("outcome", granted),
        ] {
            let mut tampered = export(&leaves, &head);
            // The one who tampers makes the paths fit.
            let last = tile::path(None, 2, SIZE - 512);
            let moved = tampered.keys().find(|path| path.starts_with("tile/entries/002")).cloned();
            if let Some(bundle) = moved.and_then(|path| tampered.remove(&path)) {
                tampered.insert(last, bundle);
            }
            assert!(!reasons(tampered).is_empty(), "{name} at {at}");
        }
    }
}

#[test]
fn bundles_cannot_change_places() {
    let mut export = good();
    let (first, second) = (tile::path(None, 0, 256), tile::path(None, 1, 256));
    let (a, b) = (export[&first].clone(), export[&second].clone());
    export.insert(first, b);
    export.insert(second, a);
    let reasons = reasons(export);
    assert!(reasons.iter().any(|reason| reason.contains("root")), "{reasons:?}");
}

#[test]
fn leaves_that_say_the_same_in_other_bytes_are_named() {
    let mut leaves = leaves(3);
    leaves[1].extend([0x78, 0x01]); // field 15 again, with the value it has
    let mut unknown = leaves.clone();
    unknown[1].extend([0xfa, 0x7f, 0x00]); // a field that nobody knows
    unknown[2] = b"no leaf".to_vec();
    for leaves in [leaves, unknown] {
        // Signed as such: even the log's own key makes no such leaf right.
        let reasons = reasons(export(&leaves, &note(&leaves)));
        assert!(reasons[0].starts_with("leaf 1: "), "{reasons:?}");
    }
}

#[test]
fn a_leaf_without_an_outcome_is_named() {
    let leaves = vec![Leaf { action: "Sign".into(), ..Leaf::default() }.to_bytes()];
    assert_eq!(reasons(export(&leaves, &note(&leaves))), ["leaf 0: neither granted nor denied"]);
}

/// A log whose leaf 7 opens a lease for 4 more uses, and whose leaf `ends.0` ends it.
fn with_lease(ends: &[(usize, Leaf)]) -> Export {
    let mut leaves = leaves(SIZE);
    let opening = Leaf { lease_uses_max: 4, ..Leaf::from_bytes(&leaves[7]).unwrap() };
    leaves[7] = opening.to_bytes();
    for (index, end) in ends {
        leaves[*index] = end.to_bytes();
    }
    let note = note(&leaves);
    export(&leaves, &note)
}

fn end(count: u64, outcome: LeafOutcome) -> Leaf {
    let (reason, digests) = match outcome {
        LeafOutcome::BrokenOff => ("LEASE_LOST", 0),
        _ => ("", 32 * usize::try_from(count).unwrap()),
    };
    Leaf {
        outcome: outcome.into(),
        reason: reason.into(),
        count,
        began_at_index: 7,
        use_digests: vec![3; digests],
        ..Leaf::from_bytes(&leaf(7)).unwrap()
    }
}

#[test]
fn uses_on_leases_are_counted_and_their_ends_are_held_against_the_beginning() {
    let granted = |ends: &[(usize, Leaf)]| {
        let report = verify_log(&mut with_lease(ends), &key(), None).unwrap();
        assert!(report.accepted, "{:?}", report.reasons);
        report.total.granted
    };
    let before = granted(&[]);
    // The leaf in whose place the end stands was a grant, too.
    assert_eq!(granted(&[(11, end(3, LeafOutcome::Finished))]), before - 1 + 3);
    assert_eq!(granted(&[(11, end(4, LeafOutcome::BrokenOff))]), before - 1 + 4);
    let short = Leaf { use_digests: vec![3; 32], ..end(3, LeafOutcome::Finished) };
    let unopened = Leaf { began_at_index: 8, ..end(3, LeafOutcome::Finished) };
    let twice = [(11, end(3, LeafOutcome::Finished)), (13, end(3, LeafOutcome::Finished))];
    for (ends, problem) in [
        (&[(11, end(5, LeafOutcome::Finished))][..], "leaf 11: tells more uses"),
        (&[(11, end(3, LeafOutcome::BrokenOff))], "leaf 11: tells another number"),
        (&[(11, short)], "leaf 11: has not one digest for each use"),
        (&[(11, unopened)], "leaf 11: ends a lease that is not open"),
        (&twice, "leaf 13: ends a lease that is not open"),
    ] {
        let reasons = reasons(with_lease(ends));
        assert!(reasons.len() == 1 && reasons[0].starts_with(problem), "{reasons:?}");
    }
}

#[test]
fn another_logs_key_is_not_believed() {
    let other = SigningKey::from_bytes(&[8; 32]);
    for name in ["kms/test", "kms/other"] {
        let key = LogKey::new(name, other.verifying_key().as_bytes()).unwrap();
        assert!(!verify_log(&mut good(), &key, None).unwrap().accepted);
    }
}

#[test]
fn a_log_has_grown_from_its_earlier_heads_and_from_no_other() {
    let with = |earlier: &str| verify_log(&mut good(), &key(), Some(earlier)).unwrap();
    for size in [0, 1, 256, 300, SIZE] {
        let report = with(&note(&leaves(size)));
        assert!(report.accepted, "{size}: {:?}", report.reasons);
        assert_eq!(report.consistent_with_earlier, Some(true));
    }
    let mut forked = leaves(300);
    forked[7] = leaf(9999);
    for earlier in [note(&forked), note(&leaves(SIZE + 1)), "nonsense".to_owned()] {
        let report = with(&earlier);
        assert!(!report.accepted);
        assert_eq!(report.consistent_with_earlier, Some(false));
    }
}

#[test]
fn a_leaf_is_proven_to_stand_where_it_stands() {
    struct All(Vec<Vec<u8>>);
    impl Nodes for All {
        type Error = core::convert::Infallible;

        fn node(&mut self, level: u8, index: u64) -> Result<Digest, Self::Error> {
            let begin = usize::try_from(index << level).unwrap();
            let mut frontier = Frontier::default();
            for leaf in &self.0[begin..begin + (1 << level)] {
                frontier.append(merkle::leaf_hash(leaf));
            }
            Ok(frontier.root())
        }
    }
    let mut all = All(leaves(SIZE));
    let head = note(&all.0);
    let proof = merkle::inclusion_proof(77, SIZE, &mut all).unwrap();
    assert!(verify_inclusion(&leaf(77), 77, &proof, &head, &key()));
    assert!(!verify_inclusion(&leaf(78), 77, &proof, &head, &key()));
    assert!(!verify_inclusion(&leaf(77), 78, &proof, &head, &key()));
    assert!(!verify_inclusion(&leaf(77), 77, &proof[1..], &head, &key()));
}

#[test]
fn what_cannot_be_read_is_an_error() {
    struct Broken;
    impl kms_verify::Source for Broken {
        type Error = &'static str;

        fn read(&mut self, _: &str) -> Result<Option<Vec<u8>>, Self::Error> {
            Err("the disk is on fire")
        }
    }
    let error = verify_log(&mut Broken, &key(), None).unwrap_err();
    assert_eq!(error.to_string(), "checkpoint: the disk is on fire");
}
