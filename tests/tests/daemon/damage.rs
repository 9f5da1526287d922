//! A store that somebody or something has damaged, and a place that is taken: said plainly, and
//! nothing served that is not right.

use std::fs;
use std::path::PathBuf;

use kms_client::v1::{self, Algorithm};
use kms_client::{Client, Code};
use kms_store::{Batch, Outcome, Store as _, Write};
use kms_tests::process::Process;
use kms_tests::request::{create_key, sign, step};
use kms_tests::{Daemon, daemon, log, refused_for};

#[tokio::test]
async fn a_flipped_bit_in_the_journal_stops_the_start_and_names_the_segment() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    for n in 0..20 {
        create_key(&client, &format!("dev/damage-{n}"), Algorithm::GenericSecret).await;
    }
    drop(client);
    // A stop in order would leave a snapshot, and of the segment only its leaves.
    daemon.kill9();
    let journal = fs::read_dir(daemon.state().join("store/journal")).unwrap();
    let segments = journal.map(|entry| entry.unwrap().path());
    let segment = segments.filter(|path| path.extension().is_some_and(|e| e == "segment")).max();
    let segment = segment.expect("the segment that was written last");
    let name = segment.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = fs::read(&segment).unwrap();
    let written = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for at in [4096 + (written - 4096) / 3, 4096 + (written - 4096) / 2, 16] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&segment, &damaged).unwrap();
        let ended = daemon.restart_refused();
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.contains(&name), "byte {at}: {}", ended.stderr);
        assert!(ended.stderr.contains("backup"), "byte {at}: {}", ended.stderr);
        assert_eq!(fs::read(&segment).unwrap(), damaged, "the damaged segment was changed");
    }
    fs::write(&segment, &whole).unwrap();
    daemon.restart();
    let client = daemon.client().await;
    log::Export::fetch(&client).await.assert_whole(None);
}

#[tokio::test]
async fn an_index_that_is_missing_or_damaged_is_made_anew() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let version = create_key(&client, "dev/index", Algorithm::EcP256).await;
    let before = log::Export::fetch(&client).await.checkpoint();
    drop(client);
    let index = daemon.state().join("store/index");
    let break_it: [fn(&PathBuf); 2] = [
        |index| fs::remove_dir_all(index).unwrap(),
        |index| {
            let database = index.join("db");
            let mut bytes = fs::read(&database).unwrap();
            bytes.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x55);
            fs::write(&database, bytes).unwrap();
        },
    ];
    for damage in break_it {
        daemon.terminate();
        damage(&index);
        daemon.restart();
        let client = daemon.client().await;
        sign(&client, &version.name, b"again").await.unwrap();
        log::Export::fetch(&client).await.assert_whole(Some(&before));
    }
    assert!(daemon.output().contains("made anew"), "{}", daemon.output());
}

#[test]
fn a_state_folder_in_use_is_refused_and_its_user_goes_on() {
    let first = Daemon::start();
    let port = daemon::free_port().to_string();
    let state = first.state().display().to_string();
    let folder = daemon::temporary();
    let arguments = ["dev", "--no-tour", "--state", &state, "--port", &port];
    let ended = Process::kmsd(&arguments, folder.path(), "second").ended();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("another kmsd uses this state folder"), "{}", ended.stderr);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        create_key(&first.client().await, "dev/on", Algorithm::GenericSecret).await
    });
}

#[test]
fn a_port_in_use_is_named() {
    let first = Daemon::start();
    let second = Daemon::start();
    let state = second.state().display().to_string();
    drop_running(second, |folder| {
        let port = first.port().to_string();
        let arguments = ["dev", "--no-tour", "--state", &state, "--port", &port];
        let ended = Process::kmsd(&arguments, folder, "refused").ended();
        assert_eq!(ended.status.code(), Some(1));
        assert!(
            ended.stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")),
            "{}",
            ended.stderr
        );
    });
}

/// Ends the daemon and does something on its folder.
fn drop_running(mut daemon: Daemon, with: impl FnOnce(&std::path::Path)) {
    daemon.terminate();
    with(daemon.state().parent().unwrap());
}

#[tokio::test]
async fn rows_that_somebody_edited_are_refused_by_name_and_others_are_served() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let names = ["edited", "rolled-back", "swapped", "twin", "sound"];
    for name in names {
        create_key(&client, &format!("dev/{name}"), Algorithm::EcP256).await;
    }
    create_key(&client, "dev/revived", Algorithm::EcP256).await;
    drop(client);

    // Somebody with the disk keeps a copy, waits, and puts old rows and others' in their place.
    let key = |name: &str| format!("key/{RING}/keys/{name}");
    let revived = format!("version/{RING}/keys/revived/versions/0000000001");
    daemon.terminate();
    let copied = rows(&daemon, &[key("rolled-back"), revived.clone()]).await;
    daemon.restart();
    let client = daemon.client().await;
    let changed = v1::Key {
        name: "dev/rolled-back".to_owned(),
        pkcs11_label: "changed".to_owned(),
        ..Default::default()
    };
    let update_fields = vec!["pkcs11_label".to_owned()];
    let request = v1::UpdateKeyRequest { key: Some(changed), update_fields, ..Default::default() };
    client.call(client.keys().update_key(request)).await.unwrap();
    step(&client, "Suspend", "dev/revived@1").await.unwrap();
    drop(client);
    daemon.terminate();
    let [mut edited, twin] = rows(&daemon, &[key("edited"), key("twin")]).await.try_into().unwrap();
    let middle = edited.len() / 2;
    edited[middle] ^= 1;
    put(&daemon, key("edited"), edited).await;
    put(&daemon, key("rolled-back"), copied[0].clone()).await;
    put(&daemon, key("swapped"), twin).await;
    put(&daemon, revived, copied[1].clone()).await;
    daemon.restart();

    let client = daemon.client().await;
    for name in ["edited", "rolled-back", "swapped"] {
        let request = v1::GetKeyRequest { name: format!("dev/{name}") };
        let refusal = refused_for(client.call(client.keys().get_key(request)).await, TAMPERED);
        assert_eq!(refusal.code, Code::DataLoss);
        assert!(refusal.message.contains(&key(name)), "{}", refusal.message);
        log::assert_recorded(&client, &refusal, "GetKey").await;
        assert_tampered(&client, name).await;
    }
    assert_tampered(&client, "revived").await;
    for name in ["twin", "sound"] {
        sign(&client, &format!("dev/{name}"), b"served").await.unwrap();
    }
    log::Export::fetch(&client).await.assert_whole(None);
}

async fn assert_tampered(client: &Client, name: &str) {
    let refusal = refused_for(sign(client, &format!("dev/{name}"), b"x").await, TAMPERED);
    log::assert_recorded(client, &refusal, "Sign").await;
}

async fn rows(daemon: &Daemon, keys: &[String]) -> Vec<Vec<u8>> {
    let (store, _) = kms_store::open(&daemon.state().join("store")).unwrap();
    let mut values = Vec::new();
    for key in keys {
        values.push(store.get(key).await.unwrap().unwrap().value.to_vec());
    }
    store.close().await.unwrap();
    values
}

async fn put(daemon: &Daemon, key: String, value: Vec<u8>) {
    let (store, _) = kms_store::open(&daemon.state().join("store")).unwrap();
    let batch = Batch { writes: vec![Write::Put { key, value }], ..Batch::default() };
    assert!(matches!(store.commit(batch).await.unwrap(), Outcome::Committed(_)));
    store.close().await.unwrap();
}

const RING: &str = "tenants/default/locations/local/keyRings/dev";
const TAMPERED: &str = "ROW_TAMPERED";
