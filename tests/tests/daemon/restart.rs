//! Ended in order and started again: everything is as it was.

use kms_client::v1::{self, Algorithm};
use kms_tests::log::Export;
use kms_tests::request::{create_key, sign, step};
use kms_tests::{Daemon, refused_for};

#[tokio::test]
async fn a_second_start_finds_everything_as_it_was() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let ec = create_key(&client, "dev/restart-ec", Algorithm::EcP256).await;
    let aes = create_key(&client, "dev/restart-aes", Algorithm::Aes256).await;
    let gone = create_key(&client, "dev/restart-gone", Algorithm::GenericSecret).await;
    for verb in ["Deactivate", "Destroy"] {
        step(&client, verb, &gone.name).await.unwrap();
    }
    let signature = sign(&client, &ec.name, b"before").await.unwrap().signature;
    let request = v1::EncryptRequest {
        name: aes.name.clone(),
        plaintext: b"before".to_vec(),
        ..Default::default()
    };
    let encrypted = client.call(client.crypto().encrypt(request)).await.unwrap();
    let users = daemon.text("user.pin");
    let before = Export::fetch(&client).await;
    drop(client);
    daemon.terminate();
    assert!(!daemon.state().join("kmsd.sock").exists());
    daemon.restart();

    let client = daemon.client().await;
    let after = Export::fetch(&client).await;
    assert_eq!(after.key, before.key);
    after.assert_whole(Some(&before.checkpoint()));
    let grown = after.leaves().split_off(usize::try_from(before.size).unwrap());
    let marks: Vec<_> = grown
        .iter()
        .filter(|leaf| leaf.authentication == "daemon")
        .map(|leaf| (leaf.action.as_str(), leaf.actor.as_str()))
        .collect();
    // The rows are named at the end; before it perhaps as well, when it runs for long.
    let last = marks.len().checked_sub(3).map(|at| &marks[at..]);
    let expected = ["BindRows", "Stop", "Start"].map(|action| (action, "apps/kmsd"));
    assert_eq!(last, Some(&expected[..]), "{marks:?}");
    assert!(marks[..marks.len() - 3].iter().all(|mark| *mark == expected[0]), "{marks:?}");

    let request = v1::GetKeyVersionRequest { name: ec.name.clone() };
    let found = client.call(client.keys().get_key_version(request)).await.unwrap().version;
    assert_eq!(found.unwrap(), ec);
    let data = Some(v1::verify_request::Data::Message(b"before".to_vec()));
    let request = v1::VerifyRequest { name: ec.name, data, signature, ..Default::default() };
    assert!(client.call(client.crypto().verify(request)).await.unwrap().valid);
    let request = v1::DecryptRequest {
        name: aes.name,
        initialization_vector: encrypted.initialization_vector,
        ciphertext: encrypted.ciphertext,
        ..Default::default()
    };
    assert_eq!(client.call(client.crypto().decrypt(request)).await.unwrap().plaintext, b"before");
    let request = v1::MacSignRequest { name: gone.name, ..Default::default() };
    refused_for(client.call(client.crypto().mac_sign(request)).await, "STATE_REFUSES");
    assert_eq!(daemon.text("user.pin"), users);
    for officer in [daemon.officer_client().await, daemon.tls_client().await] {
        let who = officer.call(officer.identity().who_am_i(v1::WhoAmIRequest {})).await.unwrap();
        assert!(!who.grants.is_empty(), "{} lost its roles", who.principal);
    }
}

/// What is in flight is answered, and streams do not hold the daemon up.
#[tokio::test]
async fn an_open_session_does_not_keep_the_daemon_from_ending() {
    let mut daemon = Daemon::start();
    let config = daemon.unix();
    let (opened, wait) = std::sync::mpsc::channel();
    let session = std::thread::spawn(move || {
        let mut session = kms_client::blocking::Session::connect(&config).unwrap();
        let list = v1::session_request::Request::ListTokens(v1::ListTokensRequest {});
        session.call(list.clone()).unwrap();
        opened.send(()).unwrap();
        // Until the daemon is gone.
        while session.call(list.clone()).is_ok() {}
        session.is_broken()
    });
    wait.recv().unwrap();
    daemon.terminate();
    assert!(session.join().unwrap());
}
