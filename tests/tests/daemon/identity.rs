//! Who is enrolled, by what, with which roles, and that whoever is let in no more is out at once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kms_client::blocking::Session;
use kms_client::v1::session_request::Request as Asked;
use kms_client::v1::session_response::Response as Answered;
use kms_client::v1::stream_start::Operation as Wanted;
use kms_client::v1::{self, Algorithm, CompromiseReason};
use kms_client::{Client, ClientError};
use kms_core::caller::Role;
use kms_tests::proposal::{approve, execute, propose};
use kms_tests::request::{create, create_key, key, quorum, sign, step};
use kms_tests::{Daemon, log, refused_for};

use crate::streams::{Begun, start};

const OUT: &str = "NOT_ADMITTED";

async fn who_am_i(client: &Client) -> Result<v1::WhoAmIResponse, ClientError> {
    client.call(client.identity().who_am_i(v1::WhoAmIRequest {})).await
}

async fn user(client: &Client, name: &str) -> v1::User {
    let request = v1::GetUserRequest { name: name.to_owned() };
    client.call(client.identity().get_user(request)).await.unwrap().user.unwrap()
}

async fn revoke(
    officer: &Client,
    credential: &str,
    reason: CompromiseReason,
) -> Result<v1::RevokeCredentialResponse, ClientError> {
    let (name, reason) = (credential.to_owned(), reason.into());
    let request = v1::RevokeCredentialRequest { name, reason, ..Default::default() };
    officer.call(officer.identity().revoke_credential(request)).await
}

async fn disable(officer: &Client, name: &str) -> Result<v1::User, ClientError> {
    let request = v1::DisableUserRequest { name: name.to_owned(), ..Default::default() };
    Ok(officer.call(officer.identity().disable_user(request)).await?.user.unwrap())
}

async fn enable(officer: &Client, name: &str) -> Result<v1::User, ClientError> {
    let request = v1::EnableUserRequest { name: name.to_owned(), ..Default::default() };
    Ok(officer.call(officer.identity().enable_user(request)).await?.user.unwrap())
}

async fn delete(officer: &Client, name: &str) -> Result<v1::User, ClientError> {
    let request = v1::DeleteUserRequest { name: name.to_owned(), ..Default::default() };
    Ok(officer.call(officer.identity().delete_user(request)).await?.user.unwrap())
}

async fn add(
    officer: &Client,
    principal: &str,
    proof: v1::credential::Proof,
) -> Result<v1::User, ClientError> {
    let credential = Some(v1::Credential { proof: Some(proof), ..Default::default() });
    let principal = principal.to_owned();
    let request = v1::AddCredentialRequest { principal, credential, ..Default::default() };
    Ok(officer.call(officer.identity().add_credential(request)).await?.user.unwrap())
}

fn grant(role: Role, scope: &str) -> v1::Grant {
    v1::Grant { role: role.to_string(), scope: scope.to_owned(), expire_time: None }
}

async fn bind(
    officer: &Client,
    principal: &str,
    grant: v1::Grant,
) -> Result<v1::User, ClientError> {
    let (principal, grant) = (principal.to_owned(), Some(grant));
    let request = v1::CreateBindingRequest { principal, grant, ..Default::default() };
    Ok(officer.call(officer.identity().create_binding(request)).await?.user.unwrap())
}

async fn unbind(
    officer: &Client,
    principal: &str,
    grant: v1::Grant,
) -> Result<v1::User, ClientError> {
    let (principal, grant) = (principal.to_owned(), Some(grant));
    let request = v1::DeleteBindingRequest { principal, grant, ..Default::default() };
    Ok(officer.call(officer.identity().delete_binding(request)).await?.user.unwrap())
}

#[tokio::test]
async fn a_revoked_credential_is_out_at_once_and_over_restarts_and_never_comes_back() {
    let mut daemon = Daemon::start();
    let (developer, officer) = (daemon.client().await, daemon.officer_client().await);
    let program = daemon.as_role(Role::CryptoUser).await;
    let version = create_key(&developer, "dev/revoked", Algorithm::EcP256).await.name;
    sign(&program, &version, b"x").await.unwrap();
    let credential = user(&developer, "apps/role-crypto-user").await.credentials.remove(0);
    let answer = revoke(&officer, &credential.name, CompromiseReason::KeyCompromise).await.unwrap();
    let leaf = log::leaf(&developer, answer.audit.unwrap().audit_index).await;
    assert_eq!((leaf.action.as_str(), &leaf.resource), ("RevokeCredential", &credential.name));
    assert_eq!(leaf.actor, "users/officer");
    assert!(answer.user.unwrap().certificate_digests.is_empty());

    // On the connection that was open, and on a new one; by name, whatever it asks.
    for client in [program, daemon.as_role(Role::CryptoUser).await] {
        let refusal = refused_for(sign(&client, &version, b"x").await, OUT);
        let leaf = log::assert_recorded(&developer, &refusal, "Sign").await;
        assert_eq!((leaf.actor.as_str(), leaf.role.as_str()), ("apps/role-crypto-user", ""));
        refused_for(who_am_i(&client).await, OUT);
    }
    daemon.kill9();
    daemon.restart();
    let (developer, officer) = (daemon.client().await, daemon.officer_client().await);
    let program = daemon.as_role(Role::CryptoUser).await;
    refused_for(sign(&program, &version, b"x").await, OUT);

    // Nor does it come back, for its holder or for anybody.
    for principal in ["apps/role-crypto-user", "apps/no-role"] {
        let proof = credential.proof.clone().unwrap();
        refused_for(add(&officer, principal, proof).await, "CREDENTIAL_REVOKED");
    }
    let again = v1::User {
        name: "apps/again".to_owned(),
        certificate_digests: vec![program.channel_binding().client_certificate_digest],
        ..Default::default()
    };
    let request = v1::CreateUserRequest { user: Some(again), ..Default::default() };
    let answer = officer.call(officer.identity().create_user(request)).await;
    refused_for(answer, "CREDENTIAL_REVOKED");
    // The first reason stays, and it is told to whoever may read it.
    revoke(&officer, &credential.name, CompromiseReason::Superseded).await.unwrap();
    enable(&officer, "apps/role-crypto-user").await.unwrap();
    let shown = user(&developer, "apps/role-crypto-user").await.credentials.remove(0);
    assert_eq!(shown.revoke_reason(), CompromiseReason::KeyCompromise);
    assert!(shown.revoke_time.is_some());
    refused_for(sign(&program, &version, b"x").await, OUT);
}

#[tokio::test]
async fn a_stream_ends_with_the_credential_that_began_it() {
    let daemon = Daemon::start();
    let (developer, officer) = (daemon.client().await, daemon.officer_client().await);
    let program = daemon.as_role(Role::CryptoUser).await;
    create_key(&developer, "dev/streamed", Algorithm::EcP256).await;
    let wanted = || start("dev/streamed", Wanted::Sign(v1::StreamSign {}));
    let (first, second) =
        (Begun::new(&program, wanted()).await, Begun::new(&program, wanted()).await);
    let credential = user(&developer, "apps/role-crypto-user").await.credentials.remove(0);
    revoke(&officer, &credential.name, CompromiseReason::PrivilegeWithdrawn).await.unwrap();
    refused_for(first.finish().await, OUT);
    // Also one that sends nothing more.
    let idle = tokio::time::timeout(Duration::from_secs(20), second.ends).await;
    refused_for(idle.expect("it goes on").unwrap(), OUT);
}

#[test]
fn a_login_by_pin_ends_with_the_credential_of_its_connection() {
    let daemon = Daemon::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut session = Session::connect(&daemon.tls("no-role")).unwrap();
    let log_in = || {
        let (role, pin) = (v1::PinRole::User.into(), daemon.text("user.pin"));
        Asked::LoginToken(v1::LoginTokenRequest { ring: "dev".to_owned(), role, pin })
    };
    let random = || {
        let request = v1::GenerateRandomRequest { ring: "dev".to_owned(), length_bytes: 8 };
        Asked::GenerateRandom(request)
    };
    session.call(log_in()).unwrap();
    session.call(random()).unwrap();
    // What becomes of somebody else is nothing to it.
    runtime.block_on(async {
        disable(&daemon.officer_client().await, "apps/role-auditor").await.unwrap();
    });
    session.call(random()).unwrap();
    runtime.block_on(async {
        disable(&daemon.officer_client().await, "apps/no-role").await.unwrap();
    });
    refused_for(session.call(random()), OUT);
    refused_for(session.call(log_in()), OUT);
    let mut new = Session::connect(&daemon.tls("no-role")).unwrap();
    refused_for(new.call(log_in()), OUT);
}

#[tokio::test]
async fn who_is_disabled_neither_acts_nor_approves_until_somebody_else_enables_it() {
    let daemon = Daemon::start();
    let (developer, officer) = (daemon.client().await, daemon.officer_client().await);
    let mut request = key("dev/disabled", Algorithm::GenericSecret);
    let members = ["users/alice", "users/bob", "users/carol"];
    request.key.as_mut().unwrap().quorum = Some(quorum(&["DestroyKeyVersion"], 2, &members));
    let version = create(&developer, request).await.name;
    step(&developer, "Deactivate", &version).await.unwrap();
    let proposal = propose(&developer, "DestroyKeyVersion", &version).await;
    approve(&daemon, &developer, &proposal, "alice").await.unwrap();
    approve(&daemon, &developer, &proposal, "bob").await.unwrap();
    let disabled = disable(&officer, "users/alice").await.unwrap();
    assert_eq!(disabled.state(), v1::UserState::Disabled);
    // Also the approval that was handed in before.
    refused_for(execute(&developer, &proposal).await, "UNAPPROVED");
    refused_for(approve(&daemon, &developer, &proposal, "alice").await, "APPROVAL_REFUSED");
    enable(&officer, "users/alice").await.unwrap();
    execute(&developer, &proposal).await.unwrap();

    let auditor = daemon.as_role(Role::Auditor).await;
    who_am_i(&auditor).await.unwrap();
    disable(&officer, "apps/role-auditor").await.unwrap();
    refused_for(who_am_i(&auditor).await, OUT);
    // Once more changes nothing, and one that is out of date is refused.
    let shown = disable(&officer, "apps/role-auditor").await.unwrap();
    enable(&officer, "apps/role-auditor").await.unwrap();
    let name = "apps/role-auditor".to_owned();
    let request = v1::DisableUserRequest { name, etag: shown.etag, ..Default::default() };
    refused_for(officer.call(officer.identity().disable_user(request)).await, "STALE");
    assert_eq!(who_am_i(&auditor).await.unwrap().grants.len(), 1);
}

#[tokio::test]
async fn nobody_raises_themselves_and_the_last_officer_stays() {
    let daemon = Daemon::start();
    let (officer, other) =
        (daemon.officer_client().await, daemon.as_role(Role::SecurityOfficer).await);
    let myself = "users/officer";
    let invalid = "INVALID_ARGUMENT";
    refused_for(bind(&officer, myself, grant(Role::CryptoUser, "dev/k")).await, invalid);
    refused_for(add(&officer, myself, v1::credential::Proof::UnixUid(77)).await, invalid);
    refused_for(enable(&officer, myself).await, invalid);
    // Nor does anybody without the role raise somebody else.
    let developer = daemon.client().await;
    refused_for(enable(&developer, "users/alice").await, "ROLE_MISSING");
    refused_for(delete(&daemon.as_no_role().await, "users/alice").await, "NOT_FOUND");

    let (officers, appliance) = ("apps/role-security-officer", grant(Role::SecurityOfficer, ""));
    disable(&officer, officers).await.unwrap();
    refused_for(who_am_i(&other).await, OUT);
    let credential = user(&officer, myself).await.credentials.remove(0).name;
    let last = "LAST_OFFICER";
    refused_for(disable(&officer, myself).await, last);
    refused_for(delete(&officer, myself).await, last);
    refused_for(unbind(&officer, myself, appliance.clone()).await, last);
    let superseded = CompromiseReason::Superseded;
    refused_for(revoke(&officer, &credential, superseded).await, last);
    // While there is another, it can go; and at most one of two who go at once does.
    enable(&officer, officers).await.unwrap();
    let (one, two) = tokio::join!(delete(&officer, myself), delete(&other, officers));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
}

#[tokio::test]
async fn a_role_reaches_as_far_as_its_scope() {
    let daemon = Daemon::start();
    let (developer, officer) = (daemon.client().await, daemon.officer_client().await);
    let ring = v1::CreateKeyRingRequest { name: "scopes".to_owned(), ..Default::default() };
    officer.call(officer.keys().create_key_ring(ring)).await.unwrap();
    let names = ["dev/scope-a", "dev/scope-b", "scopes/c"];
    for name in names {
        create_key(&developer, name, Algorithm::EcP256).await;
    }
    let program = daemon.as_no_role().await;
    let home = "tenants/default/locations/local";
    let ring = format!("{home}/keyRings/dev");
    for (scope, reached) in [
        ("dev/scope-a", 1),
        (&format!("{ring}/keys/scope-a"), 1),
        ("dev", 2),
        (&ring, 2),
        (home, 3),
        ("tenants/default", 3),
        ("", 3),
    ] {
        bind(&officer, "apps/no-role", grant(Role::CryptoUser, scope)).await.unwrap();
        let over = v1::ListBindingsRequest {
            principal: "apps/no-role".to_owned(),
            resource: "dev/scope-a".to_owned(),
            ..Default::default()
        };
        let listed = developer.call(developer.identity().list_bindings(over)).await.unwrap();
        assert_eq!(listed.bindings.len(), 1, "{scope}");
        for (at, name) in names.into_iter().enumerate() {
            let signed = sign(&program, name, b"x").await;
            if at < reached {
                signed.unwrap_or_else(|error| panic!("{name} within {scope}: {error}"));
            } else {
                refused_for(signed, "NOT_FOUND");
            }
        }
        let held = grant(Role::CryptoUser, scope);
        unbind(&officer, "apps/no-role", held.clone()).await.unwrap();
        refused_for(sign(&program, names[0], b"x").await, "NOT_FOUND");
        refused_for(unbind(&officer, "apps/no-role", held).await, "NOT_FOUND");
    }
    for elsewhere in ["tenants/other", "tenants/default/locations/mars"] {
        let answer = bind(&officer, "apps/no-role", grant(Role::CryptoUser, elsewhere)).await;
        refused_for(answer, "INVALID_ARGUMENT");
    }
}

/// A program that holds a role over one key sees that one among the objects of the token.
#[test]
fn a_token_shows_the_keys_that_somebody_has_a_role_over() {
    let daemon = Daemon::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (developer, officer) = (daemon.client().await, daemon.officer_client().await);
        for name in ["dev/shown", "dev/hidden"] {
            create_key(&developer, name, Algorithm::EcP256).await;
        }
        bind(&officer, "apps/no-role", grant(Role::CryptoUser, "dev/shown")).await.unwrap();
    });
    let mut session = Session::connect(&daemon.tls("no-role")).unwrap();
    let request = v1::FindObjectsRequest { ring: "dev".to_owned(), ..Default::default() };
    let answer = session.call(Asked::FindObjects(request)).unwrap();
    let Answered::FindObjects(found) = answer else { panic!("another answer") };
    assert_eq!(found.objects.len(), 1);
}

#[tokio::test]
async fn bindings_are_listed_page_by_page_and_by_what_they_reach() {
    let daemon = Daemon::start();
    let (auditor, officer) = (daemon.as_role(Role::Auditor).await, daemon.officer_client().await);
    bind(&officer, "apps/no-role", grant(Role::CryptoUser, "dev/k")).await.unwrap();
    let list = async |resource: &str, page_size| {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let resource = resource.to_owned();
            let request =
                v1::ListBindingsRequest { resource, page_size, page_token, ..Default::default() };
            let answer = auditor.call(auditor.identity().list_bindings(request)).await.unwrap();
            assert!(page_size == 0 || answer.bindings.len() <= page_size as usize);
            all.extend(answer.bindings);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    };
    let everybody = list("", 0).await;
    assert_eq!(list("", 2).await, everybody);
    let reaches = |bindings: Vec<v1::Binding>, name: &str| {
        bindings.iter().any(|binding| binding.principal == name)
    };
    assert!(reaches(list("dev/k", 0).await, "apps/no-role"));
    assert!(!reaches(list("dev/other", 0).await, "apps/no-role"));
    assert!(!reaches(list("dev", 0).await, "apps/no-role"));
    assert!(reaches(list("dev", 0).await, "apps/dev"));
}

fn seconds_from_now(seconds: u64) -> Option<prost_types::Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Some(prost_types::Timestamp { seconds: (now + seconds).try_into().unwrap(), nanos: 0 })
}

#[tokio::test]
async fn a_role_ends_at_its_time_by_the_clock_of_the_daemon() {
    let daemon = Daemon::start_with_clock();
    let (developer, officer) = (daemon.client().await, daemon.officer_client().await);
    create_key(&developer, "dev/until", Algorithm::EcP256).await;
    let program = daemon.as_no_role().await;
    let until = |seconds| v1::Grant {
        expire_time: seconds_from_now(seconds),
        ..grant(Role::CryptoUser, "dev")
    };
    bind(&officer, "apps/no-role", until(3600)).await.unwrap();
    sign(&program, "dev/until", b"x").await.unwrap();
    daemon.advance(Duration::from_secs(3700));
    refused_for(sign(&program, "dev/until", b"x").await, "NOT_FOUND");
    assert_eq!(who_am_i(&program).await.unwrap().grants, []);
    refused_for(bind(&officer, "apps/no-role", until(3600)).await, "INVALID_ARGUMENT");
    // Granted again it is the same role, which ends later.
    let user = bind(&officer, "apps/no-role", until(2 * 3600)).await.unwrap();
    assert_eq!(user.grants.len(), 1);
    sign(&program, "dev/until", b"x").await.unwrap();
}

/// The development certificates are good until the year 4096.
#[tokio::test]
async fn a_certificate_lets_nobody_in_after_its_time_on_a_connection_that_stays_open() {
    let daemon = Daemon::start_with_clock();
    let program = daemon.as_role(Role::Auditor).await;
    who_am_i(&program).await.unwrap();
    daemon.advance(Duration::from_secs(2100 * 366 * 24 * 3600));
    refused_for(who_am_i(&program).await, OUT);
    // A new connection is one of nobody whom anybody vouches for.
    let again = who_am_i(&daemon.as_role(Role::Auditor).await).await.unwrap();
    assert!(again.principal.starts_with("workloads/"), "{}", again.principal);
}

#[tokio::test]
async fn who_is_deleted_is_gone_for_good_and_the_name_stays_taken() {
    let daemon = Daemon::start();
    let (developer, officer) = (daemon.client().await, daemon.officer_client().await);
    let program = daemon.as_role(Role::Operator).await;
    let name = "apps/role-operator";
    let gone = delete(&officer, name).await.unwrap();
    assert_eq!((gone.state(), gone.grants.len()), (v1::UserState::Deleted, 0));
    refused_for(who_am_i(&program).await, OUT);
    for answer in [
        enable(&officer, name).await,
        disable(&officer, name).await,
        bind(&officer, name, grant(Role::Auditor, "")).await,
        add(&officer, name, v1::credential::Proof::UnixUid(78)).await,
    ] {
        refused_for(answer, "NOT_FOUND");
    }
    let user = Some(v1::User { name: name.to_owned(), ..Default::default() });
    let request = v1::CreateUserRequest { user, ..Default::default() };
    refused_for(officer.call(officer.identity().create_user(request)).await, "ALREADY_EXISTS");
    let shown = self::user(&developer, name).await;
    assert!(shown.credentials.iter().all(|credential| credential.revoke_time.is_some()));
}

#[tokio::test]
async fn a_retry_of_a_change_is_the_same_change() {
    let daemon = Daemon::start();
    let officer = daemon.officer_client().await;
    let request = v1::AddCredentialRequest {
        principal: "apps/no-role".to_owned(),
        credential: Some(v1::Credential {
            proof: Some(v1::credential::Proof::UnixUid(79)),
            ..Default::default()
        }),
        request_id: vec![9; 16],
        ..Default::default()
    };
    for _ in 0..2 {
        let answer = officer.call(officer.identity().add_credential(request.clone())).await;
        assert_eq!(answer.unwrap().user.unwrap().unix_uids, [79]);
    }
    let once_more = v1::AddCredentialRequest { request_id: Vec::new(), ..request };
    let answer = officer.call(officer.identity().add_credential(once_more)).await;
    refused_for(answer, "ALREADY_EXISTS");
    let taken = add(&officer, "apps/dev", v1::credential::Proof::UnixUid(79)).await;
    let refusal = refused_for(taken, "INVALID_ARGUMENT");
    assert!(refusal.message.contains("apps/no-role"), "{}", refusal.message);
}
