//! Approvals by people, with their own keys, over one exact request.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kms_client::blocking::Session;
use kms_client::v1::create_proposal_request::Arguments;
use kms_client::v1::execute_proposal_response::Result as Given;
use kms_client::v1::{self, Algorithm};
use kms_client::{Client, ClientError, StreamError};
use kms_core::quorum::NAMESPACE;
use kms_tests::proposal::{
    approve, execute, execute_fully, hand_in, propose, propose_use, signature,
};
use kms_tests::request::{create, key, quorum, sign, step};
use kms_tests::{Daemon, log, refused_for};

use crate::security_key::{Secret, TOUCHED, VERIFIED};

const DESTROY: &str = "DestroyKeyVersion";
const PEOPLE: [&str; 3] = ["users/alice", "users/bob", "users/carol"];

/// A deactivated version whose destruction needs two of three, and the proposal to destroy it.
async fn proposed(client: &Client, name: &str) -> (String, v1::Proposal) {
    let version = guarded(client, name, &PEOPLE).await;
    let proposal = propose(client, DESTROY, &version).await;
    (version, proposal)
}

async fn guarded(client: &Client, name: &str, members: &[&str]) -> String {
    let mut request = key(name, Algorithm::GenericSecret);
    request.key.as_mut().unwrap().quorum = Some(quorum(&[DESTROY], 2, members));
    let version = create(client, request).await.name;
    step(client, "Deactivate", &version).await.unwrap();
    version
}

async fn state(client: &Client, version: &str) -> v1::State {
    let request = v1::GetKeyVersionRequest { name: version.to_owned() };
    let answer = client.call(client.keys().get_key_version(request)).await;
    answer.unwrap().version.unwrap().state()
}

#[tokio::test]
async fn two_of_three_destroy_and_fewer_do_not() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let (version, proposal) = proposed(&client, "dev/quorum-two").await;
    let refusal = refused_for(step(&client, "Destroy", &version).await, "NEEDS_APPROVAL");
    log::assert_recorded(&client, &refusal, DESTROY).await;
    refused_for(execute(&client, &proposal).await, "UNAPPROVED");
    approve(daemon, &client, &proposal, "alice").await.unwrap();
    let refusal = refused_for(execute(&client, &proposal).await, "UNAPPROVED");
    log::assert_recorded(&client, &refusal, DESTROY).await;
    let shown = approve(daemon, &client, &proposal, "carol").await.unwrap();
    assert!(shown.approved);
    assert_eq!(state(&client, &version).await, v1::State::Deactivated);

    let done = execute(&client, &proposal).await.unwrap();
    assert_eq!(done.state(), v1::ProposalState::Executed);
    assert_eq!(state(&client, &version).await, v1::State::Destroyed);
    refused_for(execute(&client, &proposal).await, "UNAPPROVED");

    let leaves = log::Export::fetch(&client).await.leaves();
    let runs = |leaf: &&kms_core::audit::Leaf| {
        leaf.action == DESTROY && leaf.resource == version && leaf.reason.is_empty()
    };
    let granted: Vec<_> = leaves.iter().filter(runs).collect();
    assert_eq!(granted.len(), 1);
    assert_eq!(granted[0].approvers, ["users/alice", "users/carol"]);
    assert_eq!(granted[0].proposal_digest.len(), 32);
}

/// What each of the policies says of a proposal: whose it is, whose approvals count, how many are missing,
/// who else may approve.
fn standings(proposal: &v1::Proposal) -> Vec<(&str, Vec<&str>, u32, Vec<&str>)> {
    fn short(names: &[String]) -> Vec<&str> {
        names.iter().map(|name| name.rsplit('/').next().unwrap()).collect()
    }
    let mut standings = Vec::new();
    for one in &proposal.quorums {
        let guardian = if one.guardian.contains("/keys/") { "key" } else { "ring" };
        standings.push((guardian, short(&one.approvers), one.missing, short(&one.may_approve)));
    }
    standings
}

#[tokio::test]
async fn what_ring_and_key_both_guard_takes_the_approval_of_both() {
    let daemon = Daemon::shared();
    let (client, officer) = (daemon.client().await, daemon.officer_client().await);
    let request = v1::CreateKeyRingRequest {
        name: "quorum-both".to_owned(),
        quorum: Some(quorum(&[DESTROY], 1, &["users/carol"])),
        ..Default::default()
    };
    officer.call(officer.keys().create_key_ring(request)).await.unwrap();

    // Enough for the key are not enough for the ring.
    let (version, proposal) = proposed(&client, "quorum-both/a").await;
    let all = vec!["alice", "bob", "carol"];
    let unasked = [("ring", vec![], 1, vec!["carol"]), ("key", vec![], 2, all)];
    assert_eq!(standings(&proposal), unasked);
    approve(daemon, &client, &proposal, "alice").await.unwrap();
    let shown = approve(daemon, &client, &proposal, "bob").await.unwrap();
    assert!(!shown.approved);
    let by_key = [("ring", vec![], 1, vec!["carol"]), ("key", vec!["alice", "bob"], 0, vec![])];
    assert_eq!(standings(&shown), by_key);
    let refusal = refused_for(execute(&client, &proposal).await, "UNAPPROVED");
    log::assert_recorded(&client, &refusal, DESTROY).await;
    assert!(approve(daemon, &client, &proposal, "carol").await.unwrap().approved);
    let done = execute(&client, &proposal).await.unwrap();
    assert_eq!(standings(&done), []);
    assert_eq!(state(&client, &version).await, v1::State::Destroyed);

    // What was signed names both policies, and so does the log.
    let document: serde_json::Value = serde_json::from_slice(&proposal.document).unwrap();
    let digests: Vec<String> =
        proposal.quorums.iter().map(|one| hex::encode(&one.policy_digest)).collect();
    assert_eq!(document["policy_digest"], digests[0]);
    assert_eq!(document["key_policy_digest"], digests[1]);
    let leaves = log::Export::fetch(&client).await.leaves();
    let ran = leaves
        .iter()
        .find(|leaf| leaf.action == DESTROY && leaf.resource == version && leaf.reason.is_empty());
    let ran = ran.unwrap();
    assert_eq!(hex::encode(&ran.quorum_digest), digests[0]);
    assert_eq!(hex::encode(&ran.key_quorum_digest), digests[1]);

    // Enough for the ring is not enough for the key; who stands in both says yes for both at once.
    let (version, proposal) = proposed(&client, "quorum-both/b").await;
    let shown = approve(daemon, &client, &proposal, "carol").await.unwrap();
    let by_ring =
        [("ring", vec!["carol"], 0, vec![]), ("key", vec!["carol"], 1, vec!["alice", "bob"])];
    assert_eq!(standings(&shown), by_ring);
    refused_for(execute(&client, &proposal).await, "UNAPPROVED");
    assert_eq!(state(&client, &version).await, v1::State::Deactivated);
    approve(daemon, &client, &proposal, "alice").await.unwrap();
    execute(&client, &proposal).await.unwrap();
    assert_eq!(state(&client, &version).await, v1::State::Destroyed);
}

#[tokio::test]
async fn what_one_of_two_policies_guards_is_asked_of_that_one() {
    let daemon = Daemon::shared();
    let (client, officer) = (daemon.client().await, daemon.officer_client().await);
    let request = v1::CreateKeyRingRequest {
        name: "quorum-either".to_owned(),
        quorum: Some(quorum(&["SuspendKeyVersion"], 1, &["users/carol"])),
        ..Default::default()
    };
    officer.call(officer.keys().create_key_ring(request)).await.unwrap();
    let (_, of_key) = proposed(&client, "quorum-either/a").await;
    let all = vec!["alice", "bob", "carol"];
    assert_eq!(standings(&of_key), [("key", vec![], 2, all)]);
    let mut request = key("quorum-either/b", Algorithm::EcP256);
    request.key.as_mut().unwrap().quorum = Some(quorum(&[DESTROY], 2, &PEOPLE));
    let version = create(&client, request).await.name;
    let of_ring = propose(&client, "SuspendKeyVersion", &version).await;
    assert_eq!(standings(&of_ring), [("ring", vec![], 1, vec!["carol"])]);
    for proposal in [&of_key, &of_ring] {
        let document: serde_json::Value = serde_json::from_slice(&proposal.document).unwrap();
        let digest = hex::encode(&proposal.quorums[0].policy_digest);
        assert_eq!(document["policy_digest"], digest);
        assert!(document.get("key_policy_digest").is_none(), "{document}");
    }
    refused_for(approve(daemon, &client, &of_ring, "alice").await, "APPROVAL_REFUSED");
    approve(daemon, &client, &of_ring, "carol").await.unwrap();
    execute(&client, &of_ring).await.unwrap();
    assert_eq!(state(&client, &version).await, v1::State::Suspended);
}

#[tokio::test]
async fn approvals_that_do_not_count_are_refused_and_counted_nowhere() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let (version, proposal) = proposed(&client, "dev/quorum-bad").await;
    let (_, other) = proposed(&client, "dev/quorum-bad-other").await;
    let mut changed = proposal.document.clone();
    let digit = changed.iter().rposition(u8::is_ascii_digit).unwrap();
    changed[digit] = b'0' + (changed[digit] - b'0' + 1) % 10;
    approve(daemon, &client, &proposal, "alice").await.unwrap();
    let sign =
        |name: &str, namespace: &str, bytes: &[u8]| signature(daemon, name, namespace, bytes);
    for (why, approver, signature) in [
        ("twice", "users/alice", sign("alice", NAMESPACE, &proposal.document)),
        ("another's name", "users/bob", sign("alice", NAMESPACE, &proposal.document)),
        ("another namespace", "users/bob", sign("bob", "kms-login", &proposal.document)),
        ("no namespace of ours", "users/bob", sign("bob", "file", &proposal.document)),
        ("changed bytes", "users/bob", sign("bob", NAMESPACE, &changed)),
        ("another proposal", "users/bob", sign("bob", NAMESPACE, &other.document)),
        ("no member", "users/officer", sign("bob", NAMESPACE, &proposal.document)),
        ("nobody", "users/nobody", sign("bob", NAMESPACE, &proposal.document)),
        ("another kind", "apps/bob", sign("bob", NAMESPACE, &proposal.document)),
        ("no signature", "users/bob", "-----BEGIN SSH SIGNATURE-----".to_owned()),
    ] {
        let refusal =
            refused_for(hand_in(&client, &proposal, approver, signature).await, "APPROVAL_REFUSED");
        let leaf = log::assert_recorded(&client, &refusal, "ApproveProposal").await;
        assert!(leaf.resource.starts_with("proposals/"), "{why}: {leaf:?}");
    }
    refused_for(execute(&client, &proposal).await, "UNAPPROVED");
    assert_eq!(state(&client, &version).await, v1::State::Deactivated);
    approve(daemon, &client, &proposal, "bob").await.unwrap();
    execute(&client, &proposal).await.unwrap();
}

#[tokio::test]
async fn nobody_approves_their_own_request() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let members = ["users/developer", "users/alice", "users/bob"];
    let version = guarded(&client, "dev/quorum-own", &members).await;
    let proposal = propose(&client, DESTROY, &version).await;
    assert_eq!(proposal.proposer, "users/developer");
    let own = signature(daemon, "alice", NAMESPACE, &proposal.document);
    let refusal =
        refused_for(hand_in(&client, &proposal, "users/developer", own).await, "APPROVAL_REFUSED");
    assert!(refusal.message.contains("made the proposal"), "{}", refusal.message);
}

#[tokio::test]
async fn only_the_proposer_runs_or_cancels_and_what_is_cancelled_does_not_run() {
    let daemon = Daemon::shared();
    let (client, app) = (daemon.client().await, daemon.tls_client().await);
    let (_, proposal) = proposed(&client, "dev/quorum-cancel").await;
    for name in ["alice", "bob"] {
        approve(daemon, &client, &proposal, name).await.unwrap();
    }
    let cancel = async |by: &Client| {
        let request = v1::CancelProposalRequest { name: proposal.name.clone() };
        by.call(by.proposals().cancel_proposal(request)).await
    };
    refused_for(cancel(&app).await, "NOT_THE_PROPOSER");
    refused_for(execute(&app, &proposal).await, "NOT_THE_PROPOSER");
    cancel(&client).await.unwrap();
    refused_for(execute(&client, &proposal).await, "UNAPPROVED");
    refused_for(approve(daemon, &client, &proposal, "carol").await, "UNAPPROVED");
    refused_for(cancel(&client).await, "UNAPPROVED");
}

#[tokio::test]
async fn an_approval_is_for_the_state_that_was_proposed() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let (version, proposal) = proposed(&client, "dev/quorum-etag").await;
    for name in ["alice", "bob"] {
        approve(daemon, &client, &proposal, name).await.unwrap();
    }
    step(&client, "Compromise", &version).await.unwrap();
    let refusal = refused_for(execute(&client, &proposal).await, "UNAPPROVED");
    assert!(refusal.message.contains("has changed"), "{}", refusal.message);
    assert_eq!(state(&client, &version).await, v1::State::Compromised);
}

#[tokio::test]
async fn twenty_at_once_run_an_approval_once() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let (version, proposal) = proposed(&client, "dev/quorum-race").await;
    for name in ["alice", "bob"] {
        approve(daemon, &client, &proposal, name).await.unwrap();
    }
    let mut racing = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, proposal) = (daemon.client().await, proposal.clone());
        racing.spawn(async move { execute(&client, &proposal).await });
    }
    let answers = racing.join_all().await;
    let reasons: Vec<_> =
        answers.iter().filter_map(|a| a.as_ref().err()).map(ClientError::reason).collect();
    assert_eq!(reasons.len(), 19, "{reasons:?}");
    let known = ["UNAPPROVED", "STALE", "ILLEGAL_TRANSITION"].map(Some);
    assert!(reasons.iter().all(|reason| known.contains(reason)), "{reasons:?}");
    let leaves = log::Export::fetch(&client).await.leaves();
    let ran = leaves.iter().filter(|leaf| {
        leaf.action == DESTROY && leaf.resource == version && leaf.reason.is_empty()
    });
    assert_eq!(ran.count(), 1);
}

/// Enrols `name` with lines of authorized_keys.
async fn enrol(daemon: &Daemon, name: &str, lines: &[&str]) -> Result<(), ClientError> {
    let officer = daemon.officer_client().await;
    let ssh_keys = lines.iter().map(ToString::to_string).collect();
    let user = Some(v1::User { name: name.to_owned(), ssh_keys, ..Default::default() });
    let request = v1::CreateUserRequest { user, ..Default::default() };
    officer.call(officer.identity().create_user(request)).await.map(drop)
}

/// Runs ssh-keygen; false where there is none.
fn ssh_keygen(folder: &Path, arguments: &[&str]) -> bool {
    let Ok(output) = Command::new("ssh-keygen").current_dir(folder).args(arguments).output() else {
        println!("skipped: ssh-keygen is not installed");
        return false;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// Has ssh-keygen sign by the key or certificate in the file `by`.
fn keygen_signature(folder: &Path, by: &Path, document: &[u8]) -> Option<String> {
    let file = folder.join("proposal.json");
    std::fs::write(&file, document).unwrap();
    let by = by.display().to_string();
    if !ssh_keygen(folder, &["-q", "-Y", "sign", "-n", NAMESPACE, "-f", &by, "proposal.json"]) {
        return None;
    }
    let made = file.with_extension("json.sig");
    let signature = std::fs::read_to_string(&made).unwrap();
    std::fs::remove_file(&made).unwrap();
    Some(signature)
}

/// Makes a key with ssh-keygen, and gives its public line.
fn keygen_key(folder: &Path, name: &str, kind: &[&str]) -> Option<String> {
    let made = ssh_keygen(folder, &[&["-q", "-N", "", "-f", name], kind].concat());
    made.then(|| std::fs::read_to_string(folder.join(name).with_extension("pub")).unwrap())
}

const ED25519: [&str; 2] = ["-t", "ed25519"];
const P256: [&str; 4] = ["-t", "ecdsa", "-b", "256"];
const P384: [&str; 4] = ["-t", "ecdsa", "-b", "384"];

#[tokio::test]
async fn the_signatures_of_ssh_keygen_count() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let folder = kms_tests::daemon::temporary();
    let folder = folder.path();
    let mut people = vec![("users/alice", daemon.state().join("approvers").join("alice"))];
    for (name, kind) in [("users/keygen-256", P256), ("users/keygen-384", P384)] {
        let file = name.strip_prefix("users/").unwrap();
        let Some(line) = keygen_key(folder, file, &kind) else { return };
        enrol(daemon, name, &[&line]).await.unwrap();
        people.push((name, folder.join(file)));
    }
    let members: Vec<_> = people.iter().map(|(name, _)| *name).collect();
    let mut request = key("dev/quorum-keygen", Algorithm::GenericSecret);
    request.key.as_mut().unwrap().quorum = Some(quorum(&[DESTROY], 3, &members));
    let version = create(&client, request).await.name;
    step(&client, "Deactivate", &version).await.unwrap();
    let proposal = propose(&client, DESTROY, &version).await;
    for (name, file) in people {
        let Some(signature) = keygen_signature(folder, &file, &proposal.document) else { return };
        hand_in(&client, &proposal, name, signature).await.unwrap();
    }
    execute(&client, &proposal).await.unwrap();
}

#[tokio::test]
async fn a_security_key_counts_only_when_it_was_touched() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let (erin, frank) = (Secret::ed25519(101), Secret::p256(101));
    enrol(daemon, "users/touch-erin", &[&erin.line(Some("ssh:"))]).await.unwrap();
    let strict = format!("verify-required {}", frank.line(Some("ssh:")));
    enrol(daemon, "users/touch-frank", &[&strict]).await.unwrap();
    let members = ["users/touch-erin", "users/touch-frank"];
    let version = guarded(&client, "dev/quorum-touch", &members).await;
    let proposal = propose(&client, DESTROY, &version).await;
    let hand_in = async |name: &str, key: &Secret, flags| {
        let signature = key.sign_in_token("ssh:", flags, NAMESPACE, &proposal.document);
        hand_in(&client, &proposal, name, signature).await
    };
    // Present is bit 0; that the user was verified, or a backup exists, does not stand for it.
    for flags in [0, 4, 0x18] {
        let refusal =
            refused_for(hand_in("users/touch-erin", &erin, flags).await, "APPROVAL_REFUSED");
        assert!(refusal.message.contains("without being touched"), "{}", refusal.message);
        log::assert_recorded(&client, &refusal, "ApproveProposal").await;
    }
    // Out of the security key, the same secret is not what was enrolled.
    let in_file = erin.sign(NAMESPACE, &proposal.document);
    let answer = kms_tests::proposal::hand_in(&client, &proposal, members[0], in_file).await;
    refused_for(answer, "APPROVAL_REFUSED");
    hand_in("users/touch-erin", &erin, TOUCHED).await.unwrap();
    let refusal =
        refused_for(hand_in("users/touch-frank", &frank, TOUCHED).await, "APPROVAL_REFUSED");
    assert!(refusal.message.contains("did not verify"), "{}", refusal.message);
    refused_for(execute(&client, &proposal).await, "UNAPPROVED");
    hand_in("users/touch-frank", &frank, VERIFIED).await.unwrap();
    execute(&client, &proposal).await.unwrap();
}

#[tokio::test]
async fn one_point_is_enrolled_once_under_whichever_name() {
    let daemon = Daemon::shared();
    for secret in [Secret::ed25519(102), Secret::p256(102)] {
        let curve = if matches!(secret, Secret::P256(_)) { "p256" } else { "ed25519" };
        let first = format!("users/point-{curve}");
        enrol(daemon, &first, &[&secret.line(Some("ssh:"))]).await.unwrap();
        for (n, again) in [
            secret.line(Some("ssh:")),
            secret.line(Some("ssh:b")),
            secret.line(None),
            format!("verify-required {}", secret.line(Some("ssh:c"))),
            // Whoever holds it could certify others, and approve by their names.
            format!("cert-authority {}", secret.line(None)),
        ]
        .iter()
        .enumerate()
        {
            let name = format!("users/point-{curve}-{n}");
            let refusal = refused_for(enrol(daemon, &name, &[again]).await, "INVALID_ARGUMENT");
            assert!(refusal.message.contains(&first), "{}", refusal.message);
        }
    }
}

#[tokio::test]
async fn certificates_of_an_enrolled_authority_count_once_for_each_key_and_while_they_are_valid() {
    let daemon = Daemon::start_with_clock();
    let client = daemon.client().await;
    let folder = kms_tests::daemon::temporary();
    let folder = folder.path();
    let Some(authority) = keygen_key(folder, "ca", &ED25519) else { return };
    let authority = format!("cert-authority {authority}");
    let Some(erin) = keygen_key(folder, "erin", &P256) else { return };
    keygen_key(folder, "frank", &P384).unwrap();
    keygen_key(folder, "grace", &P256).unwrap();
    // One authority speaks for many; Erin has her key enrolled as well.
    enrol(&daemon, "users/erin", &[&erin]).await.unwrap();
    enrol(&daemon, "users/frank", &[&authority]).await.unwrap();
    enrol(&daemon, "users/grace", &[&authority]).await.unwrap();
    let named = authority.replacen(' ', ",principals=\"heidi\" ", 1);
    enrol(&daemon, "users/heidi", &[&named]).await.unwrap();
    // But calls each by a name of their own.
    refused_for(enrol(&daemon, "users/heidi-too", &[&named]).await, "INVALID_ARGUMENT");

    let members = ["users/erin", "users/frank", "users/grace", "users/heidi"];
    let version = guarded(&client, "dev/quorum-certificate", &members).await;
    let proposal = propose(&client, DESTROY, &version).await;
    let sign = |by: &str, principals: &str| {
        let validity = ["-V", "-5m:+1h", "-n", principals];
        let public = format!("{by}.pub");
        assert!(ssh_keygen(
            folder,
            &[&["-q", "-s", "ca", "-I", by][..], &validity, &[&public]].concat()
        ));
        let certificate = folder.join(format!("{by}-cert.pub"));
        let signature = keygen_signature(folder, &certificate, &proposal.document).unwrap();
        std::fs::remove_file(certificate).unwrap();
        signature
    };
    let hand_in =
        async |name: &str, signature: String| hand_in(&client, &proposal, name, signature).await;
    for (name, by, principals) in [
        ("users/frank", "frank", "users/grace"),
        ("users/frank", "frank", "frank"),
        ("users/heidi", "frank", "users/heidi"),
        // Erin is enrolled with no authority.
        ("users/erin", "frank", "users/erin"),
    ] {
        let answer = hand_in(name, sign(by, principals)).await;
        let refusal = refused_for(answer, "APPROVAL_REFUSED");
        assert!(refusal.message.contains("certificate"), "{}", refusal.message);
    }
    hand_in("users/frank", sign("frank", "users/frank")).await.unwrap();
    // The key that has spoken for Frank does not speak for Heidi as well.
    let refusal =
        refused_for(hand_in("users/heidi", sign("frank", "heidi")).await, "APPROVAL_REFUSED");
    assert!(refusal.message.contains("already approved"), "{}", refusal.message);
    // Nor does Erin's for Grace: it is enrolled as Erin's own.
    let refusal =
        refused_for(hand_in("users/grace", sign("erin", "users/grace")).await, "APPROVAL_REFUSED");
    assert!(refusal.message.contains("somebody else's"), "{}", refusal.message);
    let shown = hand_in("users/grace", sign("grace", "users/grace")).await.unwrap();
    assert!(shown.approved);

    // What counted when it was handed in does not when its time is over; then the key's own does.
    daemon.advance(Duration::from_secs(2 * 60 * 60));
    let refusal = refused_for(execute(&client, &proposal).await, "UNAPPROVED");
    assert!(refusal.message.starts_with("0 valid"), "{}", refusal.message);
    let own = keygen_signature(folder, &folder.join("erin"), &proposal.document).unwrap();
    assert!(!hand_in("users/erin", own).await.unwrap().approved);
    let refusal =
        refused_for(hand_in("users/frank", sign("frank", "users/frank")).await, "APPROVAL_REFUSED");
    assert!(refusal.message.contains("not valid at this time"), "{}", refusal.message);
}

/// A key whose `guards` need two of three.
async fn guarded_by(client: &Client, name: &str, algorithm: Algorithm, guards: &[&str]) -> String {
    let mut request = key(name, algorithm);
    request.key.as_mut().unwrap().quorum = Some(quorum(guards, 2, &PEOPLE));
    create(client, request).await.name
}

fn to_sign(message: &[u8]) -> v1::SignRequest {
    let data = Some(v1::sign_request::Data::Message(message.to_vec()));
    v1::SignRequest { data, ..Default::default() }
}

async fn verify(
    client: &Client,
    name: &str,
    message: &[u8],
    signature: &[u8],
) -> Result<bool, ClientError> {
    let request = v1::VerifyRequest {
        name: name.to_owned(),
        data: Some(v1::verify_request::Data::Message(message.to_vec())),
        signature: signature.to_vec(),
        ..Default::default()
    };
    Ok(client.call(client.crypto().verify(request)).await?.valid)
}

/// Two of three say yes.
async fn approve_by_two(daemon: &Daemon, client: &Client, proposal: &v1::Proposal) {
    for name in ["alice", "carol"] {
        approve(daemon, client, proposal, name).await.unwrap();
    }
}

#[tokio::test]
async fn a_guarded_signature_is_made_once_by_two_of_three() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let name = "dev/quorum-ca";
    let version = guarded_by(&client, name, Algorithm::EcP256, &["Sign"]).await;
    let tbs = b"to be signed";
    let refusal = refused_for(sign(&client, name, tbs).await, "NEEDS_APPROVAL");
    log::assert_recorded(&client, &refusal, "Sign").await;
    // What nobody guards is done as ever.
    assert!(!verify(&client, name, tbs, b"none").await.unwrap());

    let asked = Arguments::Sign(to_sign(tbs));
    let proposal = propose_use(&client, "Sign", &version, asked).await.unwrap();
    // People read what will run: the bytes themselves and how, not what the key would prefer later.
    let document: serde_json::Value = serde_json::from_slice(&proposal.document).unwrap();
    assert_eq!(
        document["arguments"],
        serde_json::json!({ "type": "sign", "context": "", "mechanism": "ECDSA_SHA256",
            "data": { "message": hex::encode(tbs) } })
    );
    refused_for(execute(&client, &proposal).await, "UNAPPROVED");
    let changed = String::from_utf8(proposal.document.clone()).unwrap();
    let changed = changed.replace(&hex::encode(tbs), &hex::encode(b"to be forged"));
    assert_ne!(changed.as_bytes(), proposal.document);
    let other = signature(daemon, "alice", NAMESPACE, changed.as_bytes());
    refused_for(hand_in(&client, &proposal, "users/alice", other).await, "APPROVAL_REFUSED");
    approve_by_two(daemon, &client, &proposal).await;
    let answer = execute_fully(&client, &proposal).await.unwrap();
    let Some(Given::Sign(signed)) = answer.result else { panic!("{:?}", answer.result) };
    assert_eq!(signed.name, version);
    assert_eq!(signed.signature_crc32c, crc32c::crc32c(&signed.signature));
    assert_eq!(answer.proposal.unwrap().state(), v1::ProposalState::Executed);
    assert!(verify(&client, name, tbs, &signed.signature).await.unwrap());
    refused_for(execute(&client, &proposal).await, "UNAPPROVED");

    // The log tells of a signature, by which mechanism, on whose word.
    let index = signed.audit.unwrap().audit_index;
    let leaves = log::Export::fetch(&client).await.leaves();
    let leaf = &leaves[usize::try_from(index).unwrap()];
    assert_eq!((leaf.action.as_str(), &leaf.resource), ("Sign", &version));
    assert_eq!((leaf.mechanism.as_str(), leaf.role.as_str()), ("ECDSA_SHA256", "crypto-user"));
    assert_eq!(leaf.approvers, ["users/alice", "users/carol"]);
    assert_eq!(leaf.proposal_digest.len(), 32);
    assert_eq!(leaf.service, i32::from(v1::ServiceIndicator::Approved));
}

#[tokio::test]
async fn no_way_leads_around_a_guarded_signature() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let name = "dev/quorum-around";
    let mut request = key(name, Algorithm::EcP256);
    let wanted = request.key.as_mut().unwrap();
    (wanted.exportable, wanted.quorum) = (true, Some(quorum(&["Sign"], 2, &PEOPLE)));
    let version = create(&client, request).await.name;
    let signing = || v1::SignRequest { name: name.to_owned(), ..to_sign(b"m") };

    let item = v1::BatchItem { request: Some(v1::batch_item::Request::Sign(signing())) };
    let batch = v1::BatchRequest { items: vec![item] };
    let answer = client.call(client.crypto().batch(batch)).await.unwrap();
    match &answer.results[0].response {
        Some(v1::batch_result::Response::Error(error)) => {
            assert_eq!(error.reason, "NEEDS_APPROVAL");
        }
        other => panic!("{other:?}"),
    }
    let start = v1::StreamStart {
        name: name.to_owned(),
        operation: Some(v1::stream_start::Operation::Sign(v1::StreamSign {})),
        ..Default::default()
    };
    let streamed = client.stream(start, &b"m"[..], tokio::io::sink(), |_| ()).await;
    match streamed {
        Err(StreamError::Client(error)) => assert_eq!(error.reason(), Some("NEEDS_APPROVAL")),
        other => panic!("{other:?}"),
    }
    // The session of a PKCS#11 module is for threads that block.
    let (config, request) = (daemon.unix(), v1::session_request::Request::Sign(signing()));
    let on_session = move || Session::connect(&config).unwrap().call(request).map(drop);
    let answer = std::thread::spawn(on_session).join().unwrap();
    refused_for(answer, "NEEDS_APPROVAL");

    // Nor is the key taken out, or given another name without its quorum.
    let copy = v1::Key { name: "dev/quorum-around-copy".to_owned(), ..Default::default() };
    let request =
        v1::CopyKeyRequest { name: version.clone(), key: Some(copy), ..Default::default() };
    client.call(client.crypto().copy_key(request)).await.unwrap();
    refused_for(sign(&client, "dev/quorum-around-copy", b"m").await, "NEEDS_APPROVAL");
    let kek = create(&client, {
        let mut request = key("dev/quorum-around-kek", Algorithm::Aes256);
        let wanted = request.key.as_mut().unwrap();
        wanted.mechanisms = vec![v1::Mechanism::AesKwp.into()];
        wanted.quorum = Some(quorum(&["Sign"], 2, &PEOPLE));
        request
    })
    .await
    .name;
    let officer = daemon.officer_client().await;
    let found = kms_tests::request::get_key(&client, "dev/quorum-around-kek").await.unwrap();
    let request = v1::SetKeyTrustedRequest {
        name: "dev/quorum-around-kek".to_owned(),
        etag: found.etag,
        trusted: true,
        ..Default::default()
    };
    officer.call(officer.keys().set_key_trusted(request)).await.unwrap();
    let request = v1::WrapKeyRequest { name: kek, target: version, ..Default::default() };
    let refusal =
        refused_for(client.call(client.crypto().wrap_key(request)).await, "NEEDS_APPROVAL");
    log::assert_recorded(&client, &refusal, "WrapKey").await;
}

#[tokio::test]
async fn a_compromised_version_decrypts_for_two_of_three_and_for_nobody_alone() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let name = "dev/quorum-leaked";
    let version = guarded_by(&client, name, Algorithm::Aes256, &["ExportKeyVersion"]).await;
    let (plaintext, aad) = (b"what the old key protects".to_vec(), b"file 7".to_vec());
    let request = v1::EncryptRequest {
        name: name.to_owned(),
        plaintext: plaintext.clone(),
        additional_authenticated_data: aad.clone(),
        ..Default::default()
    };
    let made = client.call(client.crypto().encrypt(request)).await.unwrap();
    let ask = v1::DecryptRequest {
        name: version.clone(),
        initialization_vector: made.initialization_vector,
        ciphertext: made.ciphertext,
        additional_authenticated_data: aad,
        ..Default::default()
    };
    let decrypt = async || client.call(client.crypto().decrypt(ask.clone())).await;
    assert_eq!(decrypt().await.unwrap().plaintext, plaintext);
    // As long as it is not compromised, nobody is asked.
    let asked = || Arguments::Decrypt(ask.clone());
    let early = propose_use(&client, "Decrypt", &version, asked()).await;
    refused_for(early, "INVALID_ARGUMENT");
    step(&client, "Compromise", &version).await.unwrap();
    refused_for(decrypt().await, "NEEDS_APPROVAL");

    let proposal = propose_use(&client, "Decrypt", &version, asked()).await.unwrap();
    let late = propose_use(&client, "Decrypt", &version, asked()).await.unwrap();
    for proposal in [&proposal, &late] {
        approve(daemon, &client, proposal, "alice").await.unwrap();
        refused_for(execute(&client, proposal).await, "UNAPPROVED");
        approve(daemon, &client, proposal, "bob").await.unwrap();
    }
    let app = daemon.tls_client().await;
    refused_for(execute(&app, &proposal).await, "NOT_THE_PROPOSER");
    let answer = execute_fully(&client, &proposal).await.unwrap();
    let Some(Given::Decrypt(opened)) = answer.result else { panic!("{:?}", answer.proposal) };
    assert_eq!(opened.plaintext, plaintext);
    assert_eq!(opened.plaintext_crc32c, crc32c::crc32c(&plaintext));
    let leaves = log::Export::fetch(&client).await.leaves();
    let leaf = &leaves[usize::try_from(opened.audit.unwrap().audit_index).unwrap()];
    assert_eq!((leaf.action.as_str(), leaf.approvers.len()), ("Decrypt", 2));
    refused_for(execute(&client, &proposal).await, "UNAPPROVED");
    refused_for(decrypt().await, "NEEDS_APPROVAL");
    // An approval is for the version as it stood.
    let request = v1::DisableKeyVersionRequest { name: version.clone(), ..Default::default() };
    client.call(client.keys().disable_key_version(request)).await.unwrap();
    let refusal = refused_for(execute(&client, &late).await, "UNAPPROVED");
    assert!(refusal.message.contains("has changed"), "{}", refusal.message);
}

#[tokio::test]
async fn without_a_quorum_a_compromised_version_does_no_more_and_the_refusal_says_why() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let version = create(&client, key("dev/quorum-alone", Algorithm::EcP256)).await.name;
    let signed = sign(&client, &version, b"m").await.unwrap().signature;
    step(&client, "Compromise", &version).await.unwrap();
    let refusal = refused_for(verify(&client, &version, b"m", &signed).await, "NEEDS_APPROVAL");
    assert!(refusal.message.contains("kmsctl keyring create --quorum"), "{}", refusal.message);
    let asked = Arguments::Verify(v1::VerifyRequest {
        data: Some(v1::verify_request::Data::Message(b"m".to_vec())),
        signature: signed,
        ..Default::default()
    });
    let answer = propose_use(&client, "Verify", &version, asked).await;
    refused_for(answer, "NEEDS_APPROVAL");
}

#[tokio::test]
async fn codes_and_verdicts_are_given_on_the_word_of_two_as_well() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let guards = ["MacSign", "MacVerify"];
    let version = guarded_by(&client, "dev/quorum-mac", Algorithm::GenericSecret, &guards).await;
    let run = async |action: &str, arguments: Arguments| {
        let proposal = propose_use(&client, action, &version, arguments).await.unwrap();
        approve_by_two(daemon, &client, &proposal).await;
        execute_fully(&client, &proposal).await.unwrap().result.unwrap()
    };
    let data = b"m".to_vec();
    let asked = v1::MacSignRequest { data: data.clone(), ..Default::default() };
    refused_for(
        client
            .call(
                client
                    .crypto()
                    .mac_sign(v1::MacSignRequest { name: version.clone(), ..asked.clone() }),
            )
            .await,
        "NEEDS_APPROVAL",
    );
    let Given::MacSign(made) = run("MacSign", Arguments::MacSign(asked)).await else { panic!() };
    let verify = |mac: Vec<u8>| {
        let data = data.clone();
        Arguments::MacVerify(v1::MacVerifyRequest { data, mac, ..Default::default() })
    };
    let mut wrong = made.mac.clone();
    wrong[0] ^= 1;
    for (mac, expected) in [(made.mac, true), (wrong, false)] {
        let Given::MacVerify(answer) = run("MacVerify", verify(mac)).await else { panic!() };
        assert_eq!(answer.valid, expected);
    }
    // The officers' time is not asked for what could never run.
    let short = propose_use(&client, "MacVerify", &version, verify(vec![1; 5])).await;
    refused_for(short, "INVALID_ARGUMENT");
    let asked = v1::DecryptRequest { ciphertext: vec![0; 32], ..Default::default() };
    let answer = propose_use(&client, "Decrypt", &version, Arguments::Decrypt(asked)).await;
    refused_for(answer, "USAGE_REFUSED");
}

#[tokio::test]
async fn a_list_of_long_documents_comes_in_pages_that_fit() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let version = guarded_by(&client, "dev/quorum-long", Algorithm::EcP256, &["Sign"]).await;
    let mut made = Vec::new();
    for n in 0..40_u8 {
        let asked = Arguments::Sign(to_sign(&vec![n; 16 * 1024]));
        made.push(propose_use(&client, "Sign", &version, asked).await.unwrap().name);
    }
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListProposalsRequest { page_size: 500, page_token };
        let page = client.call(client.proposals().list_proposals(request)).await.unwrap();
        let bytes: usize = page.proposals.iter().map(|one| one.document.len()).sum();
        assert!(bytes <= 1024 * 1024, "{bytes}");
        found.extend(page.proposals.into_iter().map(|one| one.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(made.iter().all(|name| found.contains(name)));
}
