//! Usage leases: what a hot key does is in the log, exactly, whatever happens meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use kms_client::v1::{self, Algorithm};
use kms_client::{Client, ClientError};
use kms_core::audit::{Leaf, LeafOutcome, use_digest};
use kms_core::id::{Digest, Timestamp};
use kms_tests::request::{create_key, sign, step, update};
use kms_tests::{Daemon, daemon, log, refused, refused_for};
use prost::Message as _;

/// What was signed, and where the answer said that it stands.
struct Signed {
    request: v1::SignRequest,
    audit: v1::AuditReference,
}

fn request(name: &str, message: String) -> v1::SignRequest {
    let data = Some(v1::sign_request::Data::Message(message.into_bytes()));
    v1::SignRequest { name: name.to_owned(), data, ..Default::default() }
}

/// Signs `count` messages, one after the other, or as many as there are answers to.
async fn sign_many(client: Client, name: String, writer: usize, count: usize) -> Vec<Signed> {
    let mut signed = Vec::new();
    for number in 0..count {
        let request = request(&name, format!("{writer} {number}"));
        match client.call(client.crypto().sign(request.clone())).await {
            Ok(answer) => signed.push(Signed { request, audit: answer.audit.unwrap() }),
            Err(ClientError::Refused { reason, message, .. }) => panic!("{reason}: {message}"),
            Err(_) => return signed,
        }
    }
    signed
}

/// The same by `WRITERS` at once.
async fn sign_at_once(client: &Client, name: &str, count: usize) -> Vec<Signed> {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(sign_many(client.clone(), name.to_owned(), writer, count));
    }
    writers.join_all().await.into_iter().flatten().collect()
}

/// How often the log says that the key was used, at most; and how often exactly, where it knows.
fn accounted(leaves: &[Leaf]) -> (u64, u64) {
    let (mut at_most, mut exactly) = (0, 0);
    for leaf in leaves.iter().filter(|leaf| leaf.action == "Sign") {
        let uses = match leaf.outcome() {
            LeafOutcome::Granted => 1,
            LeafOutcome::Finished | LeafOutcome::BrokenOff => leaf.count,
            LeafOutcome::Denied | LeafOutcome::Unspecified => 0,
        };
        at_most += uses;
        exactly += if leaf.outcome() == LeafOutcome::BrokenOff { 0 } else { uses };
    }
    (at_most, exactly)
}

/// The leaves that end leases, by the leaf that opened each.
fn ends(leaves: &[Leaf]) -> BTreeMap<u64, &Leaf> {
    let ends = leaves.iter().filter(|leaf| leaf.action == "Sign" && leaf.began_at_index != 0);
    ends.map(|leaf| (leaf.began_at_index, leaf)).collect()
}

async fn leaves_when_all_have_ended(client: &Client) -> Vec<Leaf> {
    for _ in 0..40 {
        let leaves = log::Export::fetch(client).await.leaves();
        let opened = leaves.iter().filter(|leaf| leaf.lease_uses_max > 0).count();
        if ends(&leaves).len() == opened {
            return leaves;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("a lease does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_use_on_a_lease_is_counted_and_can_be_proven() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let version = create_key(&client, "dev/hot", Algorithm::EcP256).await.name;
    let signed = sign_at_once(&client, &version, 400).await;
    let leaves = leaves_when_all_have_ended(&client).await;
    let ends = ends(&leaves);
    let mut places = HashSet::new();
    let mut leased = 0;
    for Signed { request, audit } in &signed {
        let digest = Digest::of(&[&audit.request_salt, b"Sign", &request.encode_to_vec()]);
        let leaf = &leaves[usize::try_from(audit.audit_index).unwrap()];
        assert_eq!((leaf.outcome(), leaf.action.as_str()), (LeafOutcome::Granted, "Sign"));
        assert_eq!(leaf.resource, version);
        assert!(places.insert((audit.audit_index, audit.lease_use)), "{audit:?} twice");
        let Some(place) = audit.lease_use.checked_sub(1) else {
            assert_eq!(leaf.request_digest, digest.as_bytes());
            continue;
        };
        leased += 1;
        assert!(audit.lease_use <= leaf.lease_uses_max);
        assert!((leaf.time_ms..leaf.lease_until_ms).contains(&audit.lease_use_time_ms));
        let end = ends[&audit.audit_index];
        let digests = end.use_digests.as_chunks::<32>().0;
        let expected = use_digest(&digest, Timestamp(audit.lease_use_time_ms));
        assert_eq!(&digests[usize::try_from(place).unwrap()], expected.as_bytes());
        assert_eq!(digests.len() as u64, end.count);
        assert_eq!(end.outcome(), LeafOutcome::Finished);
    }
    assert!(leased > signed.len() / 2, "only {leased} of {} went on leases", signed.len());
    assert_eq!(accounted(&leaves), (signed.len() as u64, signed.len() as u64));
    log::Export::fetch(&client).await.assert_whole(None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_key_ends_its_lease_before_the_change_is_in_the_log() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let version = create_key(&client, "dev/hot-and-suspended", Algorithm::EcP256).await.name;
    for round in 0..5 {
        let writers = tokio::spawn({
            let (client, version) = (client.clone(), version.clone());
            async move {
                let mut writers = tokio::task::JoinSet::new();
                for _ in 0..WRITERS {
                    let (client, version) = (client.clone(), version.clone());
                    writers.spawn(async move {
                        loop {
                            if let Err(error) = sign(&client, &version, b"hot").await {
                                return refused(Err::<(), _>(error));
                            }
                        }
                    });
                }
                writers.join_all().await
            }
        });
        tokio::time::sleep(Duration::from_millis(400 + 37 * round)).await;
        step(&client, "Suspend", &version).await.unwrap();
        for refusal in writers.await.unwrap() {
            assert_eq!(refusal.reason, "STATE_REFUSES");
        }
        step(&client, "Resume", &version).await.unwrap();
    }
    let leaves = leaves_when_all_have_ended(&client).await;
    // Nothing is counted on a lease that is open when the key changes.
    let mut open = HashSet::new();
    let (mut opened, mut suspended) = (0, 0);
    for (index, leaf) in (0_u64..).zip(&leaves) {
        if leaf.lease_uses_max > 0 {
            open.insert(index);
            opened += 1;
        }
        if leaf.began_at_index != 0 {
            open.remove(&leaf.began_at_index);
        }
        if leaf.action == "SuspendKeyVersion" {
            assert!(open.is_empty(), "{open:?} at {index}");
            suspended += 1;
        }
    }
    assert!(opened >= 5, "only {opened} leases");
    assert_eq!(suspended, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_log_says_at_least_as_much_as_was_answered() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let version = create_key(&client, "dev/hot-and-killed", Algorithm::EcP256).await.name;
    let mut answers = Vec::new();
    let mut lost = 0;
    for round in 0..12_u64 {
        let config = daemon.unix();
        let client = daemon::connect(&config).await;
        let version = version.clone();
        let signing = tokio::spawn(async move { sign_at_once(&client, &version, 100_000).await });
        tokio::time::sleep(Duration::from_millis(300 + 91 * round)).await;
        daemon.kill9();
        answers.extend(signing.await.unwrap().into_iter().map(|signed| signed.audit));
        daemon.restart();
        let leaves = leaves_when_all_have_ended(&daemon.client().await).await;
        let (at_most, _) = accounted(&leaves);
        assert!(answers.len() as u64 <= at_most, "{} in the log: {at_most}", answers.len());
        // What is told exactly holds every answer that is on that lease.
        let ends = ends(&leaves);
        for audit in answers.iter().filter(|audit| audit.lease_use > 0) {
            assert!(audit.lease_use <= ends[&audit.audit_index].count, "{audit:?}");
        }
        lost = leaves.iter().filter(|leaf| leaf.reason == "LEASE_LOST").count();
        if round >= 5 && lost > 0 {
            break;
        }
    }
    assert!(lost > 0, "no lease was ever cut off");
    log::Export::fetch(&daemon.client().await).await.assert_whole(None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_uses_are_recorded_each_has_no_lease_and_neither_has_its_copy() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    create_key(&client, "dev/each", Algorithm::EcP256).await;
    let fields = ["audit_each_use"];
    let each = update(&client, "dev/each", &fields, |key| key.audit_each_use = true).await;
    assert!(each.unwrap().audit_each_use);
    let never = update(&client, "dev/each", &fields, |key| key.audit_each_use = false).await;
    refused_for(never, "ONLY_TIGHTENS");
    let copy = v1::Key { name: "dev/each-copied".to_owned(), ..Default::default() };
    let name = "dev/each@1".to_owned();
    let request = v1::CopyKeyRequest { name, key: Some(copy), ..Default::default() };
    let copy = client.call(client.crypto().copy_key(request)).await.unwrap().key.unwrap();
    assert!(copy.audit_each_use);
    for name in ["dev/each", "dev/each-copied"] {
        let signed = sign_at_once(&client, name, 30).await;
        assert!(signed.iter().all(|signed| signed.audit.lease_use == 0), "{name}");
    }
    let leaves = log::Export::fetch(&client).await.leaves();
    assert!(leaves.iter().all(|leaf| leaf.lease_uses_max == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_end_when_the_appliance_is_sealed() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let version = create_key(&client, "dev/hot-and-sealed", Algorithm::EcP256).await.name;
    let signed = sign_at_once(&client, &version, 60).await.len() as u64;
    let seal = v1::SealRequest::default();
    client.call(client.seal().seal(seal)).await.unwrap();
    refused_for(sign(&client, &version, b"sealed").await, "SEALED");
    daemon.terminate();
    daemon.restart();
    let leaves = log::Export::fetch(&daemon.client().await).await.leaves();
    let opened = leaves.iter().filter(|leaf| leaf.lease_uses_max > 0).count();
    assert!(opened > 0);
    assert!(leaves.iter().all(|leaf| leaf.reason != "LEASE_LOST"));
    assert_eq!(ends(&leaves).len(), opened);
    assert_eq!(accounted(&leaves), (signed, signed));
}

const WRITERS: usize = 8;
