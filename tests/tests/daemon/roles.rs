//! Who may do what, and what those who may not learn.

use kms_client::v1::{self, Algorithm};
use kms_client::{Client, ClientError};
use kms_core::caller::Role;
use kms_tests::request::{create, create_key, key, requirement, sign};
use kms_tests::{Daemon, log, refused, refused_for};

const DONE: &str = "";
const LACKS: &str = "ROLE_MISSING";
const UNSEEN: &str = "NOT_FOUND";

/// One operation of each kind, tried by `who`.
async fn attempt(client: &Client, action: &str, who: &str) -> Result<(), ClientError> {
    match action {
        "CreateKeyRing" => {
            let request =
                v1::CreateKeyRingRequest { name: format!("roles-{who}"), ..Default::default() };
            client.call(client.keys().create_key_ring(request)).await.map(drop)
        }
        "CreateKey" => {
            let request = key(&format!("dev/roles-by-{who}"), Algorithm::GenericSecret);
            client.call(client.keys().create_key(request)).await.map(drop)
        }
        "Sign" => sign(client, "dev/roles-ec", b"x").await.map(drop),
        "CreateUser" => {
            let user = v1::User { name: format!("users/by-{who}"), ..Default::default() };
            let request = v1::CreateUserRequest { user: Some(user), ..Default::default() };
            client.call(client.identity().create_user(request)).await.map(drop)
        }
        "CreateBinding" => {
            let grant = Some(v1::Grant { role: "auditor".into(), ..Default::default() });
            let principal = "users/alice".to_owned();
            let request = v1::CreateBindingRequest { principal, grant, ..Default::default() };
            client.call(client.identity().create_binding(request)).await.map(drop)
        }
        "ListAuditLeaves" => {
            let request = v1::ListAuditLeavesRequest { first_index: 0, page_size: 1 };
            client.call(client.audit().list_audit_leaves(request)).await.map(drop)
        }
        "SetTokenPin" => {
            // A ring of its own, so that nobody else's PIN changes.
            let request = v1::SetTokenPinRequest {
                ring: if who == "app" { "dev" } else { "roles-pin" }.to_owned(),
                role: v1::PinRole::User.into(),
                pin: "12345678".to_owned(),
            };
            client.call(client.token().set_token_pin(request)).await.map(drop)
        }
        "Seal" => client.call(client.seal().seal(v1::SealRequest {})).await.map(drop),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn each_role_does_its_own_work_and_no_other() {
    let daemon = Daemon::shared();
    let developer = daemon.client().await;
    let officer = daemon.officer_client().await;
    let app = daemon.tls_client().await;
    let stranger = daemon.stranger_client().await;
    create_key(&developer, "dev/roles-ec", Algorithm::EcP256).await;
    let ring = v1::CreateKeyRingRequest { name: "roles-pin".to_owned(), ..Default::default() };
    officer.call(officer.keys().create_key_ring(ring)).await.unwrap();
    // The developer holds every role but the officer's; the app holds two over ring `dev`.
    for (action, expected) in [
        ("CreateKeyRing", [LACKS, UNSEEN, DONE, UNSEEN]),
        ("CreateKey", [DONE, DONE, LACKS, UNSEEN]),
        ("Sign", [DONE, DONE, LACKS, UNSEEN]),
        ("CreateUser", [LACKS, UNSEEN, DONE, UNSEEN]),
        ("CreateBinding", [LACKS, UNSEEN, DONE, UNSEEN]),
        ("ListAuditLeaves", [DONE, UNSEEN, LACKS, UNSEEN]),
        ("SetTokenPin", [LACKS, LACKS, DONE, UNSEEN]),
    ] {
        let callers = [
            ("developer", &developer),
            ("app", &app),
            ("officer", &officer),
            ("stranger", &stranger),
        ];
        for ((who, client), expected) in callers.into_iter().zip(expected) {
            let answer = attempt(client, action, who).await;
            if expected == DONE {
                answer.unwrap_or_else(|error| panic!("{action} by {who}: {error}"));
                continue;
            }
            let refusal = refused(answer);
            assert_eq!(refusal.reason, expected, "{action} by {who}: {}", refusal.message);
            let leaf = log::assert_recorded(&developer, &refusal, action).await;
            assert!(!leaf.actor.is_empty() && leaf.role.is_empty(), "{leaf:?}");
        }
    }
    refused_for(attempt(&stranger, "Seal", "stranger").await, UNSEEN);
    refused_for(attempt(&app, "Seal", "app").await, UNSEEN);
}

#[tokio::test]
async fn nobody_gives_roles_or_names_to_themselves() {
    let daemon = Daemon::shared();
    let officer = daemon.officer_client().await;
    let bind = async |principal: &str| {
        let grant = Some(v1::Grant { role: "crypto-user".into(), ..Default::default() });
        let principal = principal.to_owned();
        let request = v1::CreateBindingRequest { principal, grant, ..Default::default() };
        officer.call(officer.identity().create_binding(request)).await
    };
    refused_for(bind("users/officer").await, "INVALID_ARGUMENT");
    // Nor a second name on one's own certificate, or on an approver's key.
    let who = officer.channel_binding().client_certificate_digest;
    let alice = daemon.text("approvers/alice.pub");
    for user in [
        v1::User { certificate_digests: vec![who], ..Default::default() },
        v1::User { ssh_keys: vec![alice], ..Default::default() },
    ] {
        let user = Some(v1::User { name: "users/second".to_owned(), ..user });
        let request = v1::CreateUserRequest { user, ..Default::default() };
        let answer = officer.call(officer.identity().create_user(request)).await;
        refused_for(answer, "INVALID_ARGUMENT");
    }
    // The officer uses no key, whatever it has enrolled.
    refused_for(sign(&officer, "dev/any", b"x").await, LACKS);
}

/// What a role may do shows only on somebody who holds no other.
#[tokio::test]
async fn each_role_is_held_by_a_program_of_its_own() {
    let daemon = Daemon::shared();
    let held = async |client: Client| {
        let who = client.call(client.identity().who_am_i(v1::WhoAmIRequest {})).await.unwrap();
        let roles: Vec<_> = who.grants.into_iter().map(|grant| grant.role).collect();
        (who.principal, roles)
    };
    for role in Role::ALL {
        let expected = (format!("apps/role-{role}"), vec![role.to_string()]);
        assert_eq!(held(daemon.as_role(role).await).await, expected);
    }
    assert_eq!(held(daemon.as_no_role().await).await, ("apps/no-role".to_owned(), vec![]));
}

/// Whoever may not know of a resource is told the same of one that is there, one that is not, and one
/// in a ring that is not.
#[tokio::test]
async fn what_is_there_and_what_is_not_look_alike_to_those_who_may_not_know() {
    let daemon = Daemon::shared();
    let developer = daemon.client().await;
    let officer = daemon.officer_client().await;
    let ring = v1::CreateKeyRingRequest { name: "roles-other".to_owned(), ..Default::default() };
    officer.call(officer.keys().create_key_ring(ring)).await.unwrap();
    create_key(&developer, "roles-other/there", Algorithm::EcP256).await;
    let (app, stranger) = (daemon.tls_client().await, daemon.stranger_client().await);
    for client in [&app, &stranger] {
        let mut seen = Vec::new();
        for name in ["roles-other/there", "roles-other/missing", "roles-none/missing"] {
            let mut answers = Vec::new();
            let request = v1::GetKeyRequest { name: name.to_owned() };
            answers.push(refused(client.call(client.keys().get_key(request)).await));
            answers.push(refused(sign(client, name, b"x").await));
            answers.push(refused(sign(client, &format!("{name}@1"), b"x").await));
            let request = v1::GetPublicKeyRequest { name: name.to_owned() };
            answers.push(refused(client.call(client.keys().get_public_key(request)).await));
            let request =
                v1::ListKeyVersionsRequest { parent: name.to_owned(), ..Default::default() };
            answers.push(refused(client.call(client.keys().list_key_versions(request)).await));
            let parent = name.split('/').next().unwrap().to_owned();
            let request = v1::ListKeysRequest { parent, ..Default::default() };
            answers.push(refused(client.call(client.keys().list_keys(request)).await));
            let request = v1::CreateReleaseChallengeRequest { name: name.to_owned() };
            let mut release = client.release();
            answers.push(refused(client.call(release.create_release_challenge(request)).await));
            let request =
                v1::DestroyKeyVersionRequest { name: format!("{name}@1"), ..Default::default() };
            answers.push(refused(client.call(client.keys().destroy_key_version(request)).await));
            let bare = v1::ReleaseKeyRequest { name: format!("{name}@1"), ..Default::default() };
            let proving = v1::ReleaseKeyRequest {
                nonce: vec![0; 32],
                evidence: vec![v1::Evidence { kind: "snp".to_owned(), data: vec![0; 1184] }],
                suite: "P256_HKDF_SHA256_AES256GCM".to_owned(),
                recipient_public_key: vec![4; 65],
                ..bare.clone()
            };
            for request in [bare, proving] {
                answers.push(refused(client.call(client.release().release_key(request)).await));
            }
            let told =
                answers.into_iter().map(|refusal| (refusal.code, refusal.reason, refusal.message));
            seen.push(told.collect::<Vec<_>>());
        }
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[1], seen[2]);
        assert!(seen[0].iter().all(|(_, reason, _)| reason == UNSEEN), "{:?}", seen[0]);
    }
}

#[tokio::test]
async fn lists_show_only_what_the_caller_may_know() {
    let daemon = Daemon::shared();
    let stranger = daemon.stranger_client().await;
    let rings = v1::ListKeyRingsRequest::default();
    let rings = stranger.call(stranger.keys().list_key_rings(rings)).await.unwrap();
    assert_eq!(rings.key_rings, []);
    let tokens = stranger.call(stranger.token().list_tokens(v1::ListTokensRequest {})).await;
    assert_eq!(tokens.unwrap().tokens, []);
    let proposals = v1::ListProposalsRequest::default();
    let proposals = stranger.call(stranger.proposals().list_proposals(proposals)).await;
    assert_eq!(proposals.unwrap().proposals, []);
    refused_for(
        stranger.call(stranger.identity().list_users(v1::ListUsersRequest::default())).await,
        UNSEEN,
    );
    let app = daemon.tls_client().await;
    let rings = v1::ListKeyRingsRequest::default();
    let rings = app.call(app.keys().list_key_rings(rings)).await.unwrap().key_rings;
    let names: Vec<_> = rings.iter().map(|ring| ring.name.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["dev"]);
}

/// A gated key is for workloads, so a workload may learn that it is there, and no more.
#[tokio::test]
async fn a_stranger_may_ask_for_a_gated_key_and_for_nothing_else_of_it() {
    let daemon = Daemon::shared();
    let developer = daemon.client().await;
    let mut request = key("dev/roles-gated", Algorithm::EcP256);
    request.key.as_mut().unwrap().release_requirement = Some(requirement(&[9; 48]));
    create(&developer, request).await;
    let stranger = daemon.stranger_client().await;
    let request = v1::CreateReleaseChallengeRequest { name: "dev/roles-gated".to_owned() };
    stranger.call(stranger.release().create_release_challenge(request)).await.unwrap();
    let request = v1::GetKeyRequest { name: "dev/roles-gated".to_owned() };
    refused_for(stranger.call(stranger.keys().get_key(request)).await, UNSEEN);
    refused_for(sign(&stranger, "dev/roles-gated", b"x").await, UNSEEN);
    refused_for(sign(&developer, "dev/roles-gated", b"x").await, "EVIDENCE_REQUIRED");
}
