//! The log as an auditor takes it away and checks it at home.

use kms_client::v1::{self, Algorithm};
use kms_core::audit::{LeafOutcome, tile};
use kms_tests::log::Export;
use kms_tests::request::{create_key, sign};
use kms_tests::{Daemon, log, refused};
use kms_verify::{Digest, verify_inclusion};

#[tokio::test]
async fn an_exported_log_verifies_and_thirty_tamperings_do_not() {
    let client = Daemon::shared().client().await;
    create_key(&client, "dev/audit-log", Algorithm::EcP256).await;
    for _ in 0..10 {
        sign(&client, "dev/audit-log", b"x").await.unwrap();
    }
    refused(sign(&client, "dev/audit-log-none", b"x").await);
    let export = Export::fetch(&client).await;
    export.assert_whole(None);

    let mut tamperings = 0;
    let mut found = |what: &str, tampered: Export| {
        assert_ne!(tampered.files, export.files, "{what}: nothing was changed");
        assert!(!tampered.verify(None).accepted, "{what}: was not found");
        tamperings += 1;
    };
    for (path, bytes) in &export.files {
        for part in 0..8 {
            let mut flipped = export.clone();
            let at = (bytes.len() - 1) * part / 7;
            flipped.files.get_mut(path).unwrap()[at] ^= 1;
            found(&format!("{path} flipped at {at}"), flipped);
        }
        let mut cut = export.clone();
        cut.files.get_mut(path).unwrap().pop();
        found(&format!("{path} cut"), cut);
        let mut missing = export.clone();
        missing.files.remove(path);
        found(&format!("{path} missing"), missing);
    }
    let (path, bytes) = export.files.iter().find(|(path, _)| path.starts_with("tile/")).unwrap();
    let whole: Vec<&[u8]> = tile::unbundle(bytes).unwrap();
    for at in 0..4 {
        let mut swapped = whole.clone();
        swapped.swap(at, at + 1);
        let mut doubled = whole.clone();
        doubled[at + 1] = doubled[at];
        let mut dropped = whole.clone();
        dropped.remove(at);
        for (what, leaves) in [("swapped", swapped), ("doubled", doubled), ("dropped", dropped)] {
            let mut tampered = export.clone();
            tampered.files.insert(path.clone(), tile::bundle(leaves).unwrap());
            found(&format!("{what} at {at}"), tampered);
        }
    }
    assert!(tamperings >= 30, "only {tamperings}");
}

#[tokio::test]
async fn a_leaf_is_proven_to_stand_where_it_stands() {
    let client = Daemon::shared().client().await;
    create_key(&client, "dev/audit-proof", Algorithm::EcP256).await;
    let index = sign(&client, "dev/audit-proof", b"x").await.unwrap().audit.unwrap().audit_index;
    let key = Export::fetch(&client).await.key;
    let request = v1::GetInclusionProofRequest { index };
    let proof = client.call(client.audit().get_inclusion_proof(request)).await.unwrap();
    let hashes: Vec<Digest> =
        proof.hashes.iter().map(|hash| Digest::try_from(hash.as_slice()).unwrap()).collect();
    let proven = |leaf: &[u8], index, hashes: &[Digest]| {
        verify_inclusion(leaf, index, hashes, &proof.checkpoint, &key)
    };
    assert!(proven(&proof.leaf, index, &hashes));
    assert!(!proven(&proof.leaf, index - 1, &hashes));
    assert!(!proven(&proof.leaf, index, &hashes[1..]));
    let mut other = proof.leaf.clone();
    *other.last_mut().unwrap() ^= 1;
    assert!(!proven(&other, index, &hashes));
}

/// The caller can prove later what it asked: the salt opens the digest.
#[tokio::test]
async fn an_answer_names_its_leaf_and_the_salt_opens_the_request() {
    use prost::Message as _;
    use sha2::{Digest as _, Sha256};
    let client = Daemon::shared().client().await;
    let version = create_key(&client, "dev/audit-salt", Algorithm::EcP256).await;
    let data = Some(v1::sign_request::Data::Message(b"asked".to_vec()));
    let request = v1::SignRequest { name: "dev/audit-salt".to_owned(), data, ..Default::default() };
    let wire = request.encode_to_vec();
    let answer = client.call(client.crypto().sign(request)).await.unwrap();
    let audit = answer.audit.unwrap();
    let leaf = log::leaf(&client, audit.audit_index).await;
    assert_eq!(leaf.outcome(), LeafOutcome::Granted);
    assert_eq!((leaf.actor.as_str(), leaf.role.as_str()), ("users/developer", "crypto-user"));
    assert_eq!((leaf.action.as_str(), leaf.resource), ("Sign", version.name));
    assert_eq!((leaf.authentication.as_str(), leaf.region.as_str()), ("unix-peer", "local"));
    let mut digest = Sha256::new();
    for part in [audit.request_salt.as_slice(), b"Sign", &wire] {
        digest.update(u32::try_from(part.len()).unwrap().to_be_bytes());
        digest.update(part);
    }
    assert_eq!(leaf.request_digest, digest.finalize().to_vec());
}
