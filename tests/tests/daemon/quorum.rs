//! Approvals by people, with their own keys, over one exact request.

use kms_client::v1::{self, Algorithm};
use kms_client::{Client, ClientError};
use kms_core::quorum::NAMESPACE;
use kms_tests::proposal::{approve, execute, hand_in, propose, signature};
use kms_tests::request::{create, key, quorum, step};
use kms_tests::{Daemon, log, refused_for};

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

#[tokio::test]
async fn the_signatures_of_ssh_keygen_count() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let (_, proposal) = proposed(&client, "dev/quorum-keygen").await;
    let folder = kms_tests::daemon::temporary();
    let file = folder.path().join("proposal.json");
    for name in ["alice", "bob"] {
        std::fs::write(&file, &proposal.document).unwrap();
        let output = std::process::Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"])
            .arg(daemon.state().join("approvers").join(name))
            .arg(&file)
            .output();
        let Ok(output) = output else {
            println!("skipped: ssh-keygen is not installed");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made = file.with_extension("json.sig");
        let signature = std::fs::read_to_string(&made).unwrap();
        std::fs::remove_file(&made).unwrap();
        hand_in(&client, &proposal, &format!("users/{name}"), signature).await.unwrap();
    }
    execute(&client, &proposal).await.unwrap();
}
