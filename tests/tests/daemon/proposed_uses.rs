//! Uses that make a key or move a ciphertext, each done once on the word of two of three; and those that no
//! proposal holds.

use kms_client::v1::create_proposal_request::Arguments;
use kms_client::v1::execute_proposal_response::Result as Given;
use kms_client::v1::{self, Algorithm, Mechanism};
use kms_client::{Client, ClientError};
use kms_core::quorum::NAMESPACE;
use kms_tests::proposal::{
    approve, execute, execute_fully, hand_in, propose, propose_use, signature,
};
use kms_tests::request::{create, create_key, key, quorum, step, trust, update};
use kms_tests::{Daemon, log, refused_for};
use serde_json::{Value, json};

const PEOPLE: [&str; 3] = ["users/alice", "users/bob", "users/carol"];

/// A key whose `guards` need two of three; `change` says what else it is.
async fn guarded(
    client: &Client,
    name: &str,
    algorithm: Algorithm,
    guards: &[&str],
    change: impl FnOnce(&mut v1::Key),
) -> v1::KeyVersion {
    let mut request = key(name, algorithm);
    let wanted = request.key.as_mut().unwrap();
    wanted.quorum = Some(quorum(guards, 2, &PEOPLE));
    change(wanted);
    create(client, request).await
}

fn secret(name: &str) -> Option<v1::Key> {
    key(name, Algorithm::GenericSecret).key
}

async fn approved(daemon: &Daemon, client: &Client, proposal: &v1::Proposal) {
    for name in ["alice", "carol"] {
        approve(daemon, client, proposal, name).await.unwrap();
    }
}

fn arguments(proposal: &v1::Proposal) -> Value {
    let document: Value = serde_json::from_slice(&proposal.document).unwrap();
    document["arguments"].clone()
}

/// Proposes, is refused as long as one approves, is done when two do, and is refused from then on.
async fn done_once(
    daemon: &Daemon,
    client: &Client,
    version: &str,
    (action, asked): (&str, Arguments),
) -> (Given, v1::Proposal) {
    let proposal = propose_use(client, action, version, asked).await.unwrap();
    refused_for(execute(client, &proposal).await, "UNAPPROVED");
    approve(daemon, client, &proposal, "alice").await.unwrap();
    let refusal = refused_for(execute(client, &proposal).await, "UNAPPROVED");
    log::assert_recorded(client, &refusal, action).await;
    // Another one signs something else than what was proposed.
    let text = String::from_utf8(proposal.document.clone()).unwrap();
    let changed = text.replace(r#""arguments":{"#, r#""arguments":{"also":1,"#);
    assert_ne!(changed, text);
    let other = signature(daemon, "bob", NAMESPACE, changed.as_bytes());
    refused_for(hand_in(client, &proposal, "users/bob", other).await, "APPROVAL_REFUSED");
    approve(daemon, client, &proposal, "bob").await.unwrap();
    let app = daemon.tls_client().await;
    refused_for(execute(&app, &proposal).await, "NOT_THE_PROPOSER");
    let answer = execute_fully(client, &proposal).await.unwrap();
    assert_eq!(answer.proposal.unwrap().state(), v1::ProposalState::Executed);
    refused_for(execute(client, &proposal).await, "UNAPPROVED");
    let leaves = log::Export::fetch(client).await.leaves();
    let leaf = &leaves[usize::try_from(answer.audit.unwrap().audit_index).unwrap()];
    assert_eq!((leaf.action.as_str(), leaf.resource.as_str()), (action, version));
    assert_eq!(leaf.approvers, ["users/alice", "users/bob"]);
    assert!(!leaf.other_resource.is_empty(), "it tells what was made, or where it went");
    (answer.result.unwrap(), proposal)
}

async fn code(client: &Client, name: &str) -> Vec<u8> {
    let request = v1::MacSignRequest { name: name.to_owned(), data: vec![1], ..Default::default() };
    client.call(client.crypto().mac_sign(request)).await.unwrap().mac
}

#[tokio::test]
async fn a_guarded_derivation_is_made_once_and_is_what_people_read() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let version =
        guarded(&client, "dev/proposed-base", Algorithm::GenericSecret, &["DeriveKey"], |key| {
            key.mechanisms = vec![Mechanism::HkdfSha256.into()];
            key.model = "llama".to_owned();
        })
        .await
        .name;
    let ask = |name: &str, info: &[u8]| v1::DeriveKeyRequest {
        info: info.to_vec(),
        key: secret(name),
        ..Default::default()
    };
    let direct = async |name: &str| {
        let request = v1::DeriveKeyRequest { name: version.clone(), ..ask(name, b"one") };
        client.call(client.crypto().derive_key(request)).await
    };
    let refusal = refused_for(direct("dev/proposed-direct").await, "NEEDS_APPROVAL");
    log::assert_recorded(&client, &refusal, "DeriveKey").await;
    let mut made = Vec::new();
    for (name, info) in [("one", &b"one"[..]), ("same", b"one"), ("other", b"other")] {
        let name = format!("dev/proposed-derived-{name}");
        let asked = Arguments::DeriveKey(ask(&name, info));
        let (given, proposal) = done_once(daemon, &client, &version, ("DeriveKey", asked)).await;
        let Given::DeriveKey(answer) = given else { panic!("{given:?}") };
        let key = answer.key.unwrap();
        assert!(key.quorum.is_some(), "it inherits the quorum");
        // All that it is stands there, and not what the requester left open.
        let said = arguments(&proposal);
        assert_eq!(said["key"]["name"], key.name);
        assert_eq!(said["key"]["length_bytes"], 32);
        assert_eq!(said["key"]["mechanisms"], json!(["HMAC_SHA256"]));
        assert_eq!(said["key"]["usages"], json!(["MAC_SIGN", "MAC_VERIFY"]));
        assert_eq!(
            (&said["key"]["model"], &said["mechanism"]),
            (&json!("llama"), &json!("HKDF_SHA256"))
        );
        assert_eq!(said["info"], hex::encode(info));
        assert_eq!(answer.version.unwrap().origin(), v1::Origin::Derived);
        made.push(code(&client, &key.name).await);
        // An approval is for one; the next one asks anew.
        refused_for(direct("dev/proposed-direct").await, "NEEDS_APPROVAL");
    }
    assert!(made[0] == made[1] && made[0] != made[2]);
    // What could never be done is not put before people.
    let propose = async |asked: v1::DeriveKeyRequest| {
        propose_use(&client, "DeriveKey", &version, Arguments::DeriveKey(asked)).await
    };
    refused_for(propose(ask("dev/proposed-derived-one", b"one")).await, "ALREADY_EXISTS");
    let salted = v1::DeriveKeyRequest { context: vec![1], ..ask("dev/proposed-no", b"") };
    refused_for(propose(salted).await, "INVALID_ARGUMENT");
    let mut loose = ask("dev/proposed-no", b"");
    loose.key.as_mut().unwrap().model = "other".to_owned();
    refused_for(propose(loose).await, "INVALID_ARGUMENT");
    let wrong = v1::DeriveKeyRequest {
        mechanism: Mechanism::HkdfSha512.into(),
        ..ask("dev/proposed-no", b"")
    };
    refused_for(propose(wrong).await, "MECHANISM_REFUSED");
}

#[tokio::test]
async fn an_approval_is_not_spent_while_the_name_is_taken_nor_good_for_another_key() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let shape = |key: &mut v1::Key| {
        key.mechanisms = vec![Mechanism::HkdfSha256.into()];
        key.exportable = true;
    };
    let name = "dev/proposed-loose";
    let version =
        guarded(&client, name, Algorithm::GenericSecret, &["DeriveKey"], shape).await.name;
    let propose = async |name: &str| {
        let mut new = secret(name).unwrap();
        new.exportable = true;
        let request = v1::DeriveKeyRequest { key: Some(new), ..Default::default() };
        let asked = Arguments::DeriveKey(request);
        let proposal = propose_use(&client, "DeriveKey", &version, asked).await.unwrap();
        assert_eq!(arguments(&proposal)["key"]["exportable"], true);
        approved(daemon, &client, &proposal).await;
        proposal
    };
    let taken = propose("dev/proposed-taken").await;
    create_key(&client, "dev/proposed-taken", Algorithm::EcP256).await;
    let refusal = refused_for(execute(&client, &taken).await, "ALREADY_EXISTS");
    log::assert_recorded(&client, &refusal, "DeriveKey").await;
    let request = v1::GetProposalRequest { name: taken.name.clone() };
    let shown = client.call(client.proposals().get_proposal(request)).await.unwrap();
    assert_eq!(shown.proposal.unwrap().state(), v1::ProposalState::Open);
    // What the old key hands down has changed, so it would be another key than the one that they read.
    let changed = propose("dev/proposed-changed").await;
    update(&client, name, &["exportable"], |key| key.exportable = false).await.unwrap();
    let refusal = refused_for(execute(&client, &changed).await, "UNAPPROVED");
    assert!(refusal.message.contains("has changed"), "{}", refusal.message);
}

#[tokio::test]
async fn a_compromised_wrapping_key_opens_what_it_wrapped_for_two_of_three() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let name = "dev/proposed-kek";
    let by_kwp = |key: &mut v1::Key| key.mechanisms = vec![Mechanism::AesKwp.into()];
    let guards = ["ExportKeyVersion"];
    let version = guarded(&client, name, Algorithm::Aes256, &guards, by_kwp).await.name;
    trust(daemon, name).await;
    let mut request = key("dev/proposed-wrapped", Algorithm::GenericSecret);
    request.key.as_mut().unwrap().exportable = true;
    let target = create(&client, request).await.name;
    let request =
        v1::WrapKeyRequest { name: version.clone(), target: target.clone(), ..Default::default() };
    let wrapped_key = client.call(client.crypto().wrap_key(request)).await.unwrap().wrapped_key;
    let ask = |name: &str, wrapped_key: &[u8]| v1::UnwrapKeyRequest {
        wrapped_key: wrapped_key.to_vec(),
        key: secret(name),
        ..Default::default()
    };
    let early = Arguments::UnwrapKey(ask("dev/proposed-unwrapped", &wrapped_key));
    let early = propose_use(&client, "UnwrapKey", &version, early).await;
    refused_for(early, "INVALID_ARGUMENT");
    step(&client, "Compromise", &version).await.unwrap();
    let direct = v1::UnwrapKeyRequest {
        name: version.clone(),
        ..ask("dev/proposed-unwrapped", &wrapped_key)
    };
    refused_for(client.call(client.crypto().unwrap_key(direct)).await, "NEEDS_APPROVAL");
    let asked = Arguments::UnwrapKey(ask("dev/proposed-unwrapped", &wrapped_key));
    let (given, _) = done_once(daemon, &client, &version, ("UnwrapKey", asked)).await;
    let Given::UnwrapKey(answer) = given else { panic!("{given:?}") };
    let made = answer.version.unwrap();
    assert_eq!((made.origin(), made.state()), (v1::Origin::Unwrapped, v1::State::Active));
    assert_eq!(code(&client, &made.name).await, code(&client, &target).await);

    // What was approved and does not open is spent, and nothing is made.
    let mut damaged = wrapped_key;
    damaged[3] ^= 1;
    let asked = Arguments::UnwrapKey(ask("dev/proposed-damaged", &damaged));
    let proposal = propose_use(&client, "UnwrapKey", &version, asked).await.unwrap();
    approved(daemon, &client, &proposal).await;
    refused_for(execute(&client, &proposal).await, "CIPHERTEXT_REFUSED");
    refused_for(execute(&client, &proposal).await, "UNAPPROVED");
    let request = v1::GetKeyRequest { name: "dev/proposed-damaged".to_owned() };
    refused_for(client.call(client.keys().get_key(request)).await, "NOT_FOUND");
}

#[tokio::test]
async fn keys_are_agreed_on_and_heard_of_on_the_word_of_two() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let same = |_: &mut v1::Key| {};
    let name = "dev/proposed-dh";
    let guards = ["AgreeKey"];
    let own = guarded(&client, name, Algorithm::X25519, &guards, same).await;
    let peer = create_key(&client, "dev/proposed-dh-peer", Algorithm::X25519).await;
    let ask = |peer: &v1::KeyVersion, new: &str| v1::AgreeKeyRequest {
        peer_public_key: peer.public_key.clone(),
        kdf: Mechanism::HkdfSha256.into(),
        info: b"both".to_vec(),
        key: secret(new),
        ..Default::default()
    };
    let direct = v1::AgreeKeyRequest { name: name.to_owned(), ..ask(&peer, "dev/proposed-dh-no") };
    refused_for(client.call(client.crypto().agree_key(direct)).await, "NEEDS_APPROVAL");
    let asked = Arguments::AgreeKey(ask(&peer, "dev/proposed-dh-here"));
    let (given, proposal) = done_once(daemon, &client, &own.name, ("AgreeKey", asked)).await;
    let Given::AgreeKey(here) = given else { panic!("{given:?}") };
    assert_eq!(arguments(&proposal)["peer_public_key"], hex::encode(&peer.public_key));
    let there =
        v1::AgreeKeyRequest { name: peer.name.clone(), ..ask(&own, "dev/proposed-dh-there") };
    let there = client.call(client.crypto().agree_key(there)).await.unwrap();
    let [here, there] = [here.version, there.version].map(|version| version.unwrap().name);
    assert_eq!(code(&client, &here).await, code(&client, &there).await);

    // A compromised key still hears what it was told.
    let kem =
        guarded(&client, "dev/proposed-kem", Algorithm::MlKem768, &["ExportKeyVersion"], same)
            .await
            .name;
    let request = v1::EncapsulateKeyRequest {
        name: kem.clone(),
        key: secret("dev/proposed-told"),
        ..Default::default()
    };
    let told = client.call(client.crypto().encapsulate_key(request)).await.unwrap();
    step(&client, "Compromise", &kem).await.unwrap();
    let ask = v1::DecapsulateKeyRequest {
        ciphertext: told.ciphertext,
        key: secret("dev/proposed-heard"),
        ..Default::default()
    };
    let direct = v1::DecapsulateKeyRequest { name: kem.clone(), ..ask.clone() };
    refused_for(client.call(client.crypto().decapsulate_key(direct)).await, "NEEDS_APPROVAL");
    let asked = Arguments::DecapsulateKey(ask);
    let (given, _) = done_once(daemon, &client, &kem, ("DecapsulateKey", asked)).await;
    let Given::DecapsulateKey(heard) = given else { panic!("{given:?}") };
    let [told, heard] = [told.version, heard.version].map(|version| version.unwrap().name);
    assert_eq!(code(&client, &told).await, code(&client, &heard).await);
}

#[tokio::test]
async fn a_ciphertext_moves_to_the_version_that_people_read_and_to_no_other() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let (name, to) = ("dev/proposed-from", "dev/proposed-to");
    let version =
        guarded(&client, name, Algorithm::Aes256, &["ExportKeyVersion"], |_| {}).await.name;
    let destination = create_key(&client, to, Algorithm::Aes256).await.name;
    create_key(&client, "dev/proposed-to-ec", Algorithm::EcP256).await;
    let request =
        v1::EncryptRequest { name: name.to_owned(), plaintext: vec![7; 40], ..Default::default() };
    let made = client.call(client.crypto().encrypt(request)).await.unwrap();
    step(&client, "Compromise", &version).await.unwrap();
    let ask = |destination: &str| v1::ReEncryptRequest {
        initialization_vector: made.initialization_vector.clone(),
        ciphertext: made.ciphertext.clone(),
        destination: destination.to_owned(),
        destination_additional_authenticated_data: b"moved".to_vec(),
        ..Default::default()
    };
    let direct = v1::ReEncryptRequest { source: version.clone(), ..ask(to) };
    let direct = async || client.call(client.crypto().re_encrypt(direct.clone())).await;
    refused_for(direct().await, "NEEDS_APPROVAL");
    for (elsewhere, reason) in
        [("dev/proposed-nowhere", "NOT_FOUND"), ("dev/proposed-to-ec", "USAGE_REFUSED")]
    {
        let asked = Arguments::ReEncrypt(ask(elsewhere));
        refused_for(propose_use(&client, "ReEncrypt", &version, asked).await, reason);
    }
    let asked = || Arguments::ReEncrypt(ask(to));
    let late = propose_use(&client, "ReEncrypt", &version, asked()).await.unwrap();
    assert_eq!(arguments(&late)["destination"], destination);
    assert_eq!(arguments(&late)["destination_mechanism"], "AES_GCM");
    approved(daemon, &client, &late).await;
    let (given, _) = done_once(daemon, &client, &version, ("ReEncrypt", asked())).await;
    let Given::ReEncrypt(moved) = given else { panic!("{given:?}") };
    assert_eq!(moved.destination, destination);
    let open = async |moved: v1::ReEncryptResponse| {
        let request = v1::DecryptRequest {
            name: moved.destination,
            initialization_vector: moved.initialization_vector,
            ciphertext: moved.ciphertext,
            additional_authenticated_data: b"moved".to_vec(),
            ..Default::default()
        };
        client.call(client.crypto().decrypt(request)).await.unwrap().plaintext
    };
    assert_eq!(open(moved).await, vec![7; 40]);
    refused_for(direct().await, "NEEDS_APPROVAL");
    // The key has another version by now, and people have read of this one.
    let request = v1::CreateKeyVersionRequest { parent: to.to_owned(), ..Default::default() };
    client.call(client.keys().create_key_version(request)).await.unwrap();
    let given = execute_fully(&client, &late).await.unwrap().result.unwrap();
    let Given::ReEncrypt(moved) = given else { panic!("{given:?}") };
    assert_eq!(moved.destination, destination);
    assert_eq!(open(moved).await, vec![7; 40]);
}

/// A key that counts its protections takes a place in the count for each signature, also for one that is
/// proposed, and gives it back.
#[tokio::test]
async fn a_key_that_counts_is_proposed_and_used_while_others_use_it() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let name = "dev/proposed-counted";
    let version = guarded(&client, name, Algorithm::EcP256, &["Sign"], |key| {
        key.rotation = Some(v1::Rotation { uses_max: 100, ..Default::default() });
    })
    .await
    .name;
    let data = Some(v1::sign_request::Data::Message(b"m".to_vec()));
    for _ in 0..3 {
        let asked = v1::SignRequest { data: data.clone(), ..Default::default() };
        let asked = Arguments::Sign(asked);
        let proposal = propose_use(&client, "Sign", &version, asked).await.unwrap();
        approved(daemon, &client, &proposal).await;
        execute(&client, &proposal).await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_proposed_says_what_to_do_instead() {
    let daemon = Daemon::shared();
    let client = daemon.client().await;
    let version = create_key(&client, "dev/proposed-not", Algorithm::Aes256).await.name;
    let hint = |refused: Result<(), ClientError>, reason: &str, hint: &str| {
        let refusal = refused_for(refused, reason);
        assert!(refusal.message.contains(hint), "{}", refusal.message);
    };
    for (action, instead) in [
        ("CopyKey", "copy it directly"),
        ("EncapsulateKey", "do it directly"),
        ("Encrypt", "initialization vector to the daemon"),
        ("GenerateDataKey", "do it directly"),
        ("ReleaseKey", "ExportKeyVersion"),
        ("WrapKey", "ExportKeyVersion"),
    ] {
        let request = v1::CreateProposalRequest {
            action: action.to_owned(),
            resource: version.clone(),
            ..Default::default()
        };
        let answer = client.call(client.proposals().create_proposal(request)).await;
        hint(answer.map(drop), "INVALID_ARGUMENT", instead);
        let mut request = key("dev/proposed-not-guarded", Algorithm::Aes256);
        request.key.as_mut().unwrap().quorum = Some(quorum(&[action], 2, &PEOPLE));
        let answer = client.call(client.keys().create_key(request)).await;
        hint(answer.map(drop), "INVALID_ARGUMENT", instead);
    }
    // Where a quorum stands in the way of one of them, the refusal says so as well.
    let by_cbc = |key: &mut v1::Key| key.mechanisms = vec![Mechanism::AesCbcPad.into()];
    let name = "dev/proposed-not-cbc";
    guarded(&client, name, Algorithm::Aes256, &["Decrypt"], by_cbc).await;
    let encrypt = |initialization_vector: Vec<u8>| v1::EncryptRequest {
        name: name.to_owned(),
        plaintext: vec![1; 16],
        initialization_vector,
        ..Default::default()
    };
    let answer = client.call(client.crypto().encrypt(encrypt(vec![1; 16]))).await;
    hint(answer.map(drop), "NEEDS_APPROVAL", "initialization vector to the daemon");
    client.call(client.crypto().encrypt(encrypt(Vec::new()))).await.unwrap();

    let kek = create(&client, {
        let mut request = key("dev/proposed-not-kek", Algorithm::Aes256);
        let wanted = request.key.as_mut().unwrap();
        wanted.mechanisms = vec![Mechanism::AesKwp.into()];
        wanted.quorum = Some(quorum(&["ExportKeyVersion"], 2, &PEOPLE));
        request
    })
    .await
    .name;
    trust(daemon, "dev/proposed-not-kek").await;
    let guards = ["ExportKeyVersion"];
    let out = |key: &mut v1::Key| key.exportable = true;
    let target = guarded(&client, "dev/proposed-not-out", Algorithm::GenericSecret, &guards, out);
    let target = target.await.name;
    let request = v1::WrapKeyRequest { name: kek, target, ..Default::default() };
    let answer = client.call(client.crypto().wrap_key(request)).await;
    hint(answer.map(drop), "NEEDS_APPROVAL", "propose ExportKeyVersion of that key");
    // A step takes no arguments, and a use none of another.
    let deactivated = propose(&client, "DestroyKeyVersion", &{
        let same = |_: &mut v1::Key| {};
        let name = "dev/proposed-not-step";
        let guards = ["DestroyKeyVersion"];
        let version = guarded(&client, name, Algorithm::Aes256, &guards, same).await.name;
        step(&client, "Deactivate", &version).await.unwrap();
        version
    })
    .await;
    assert!(arguments(&deactivated).is_null());
}
