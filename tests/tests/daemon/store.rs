//! Rows that somebody with the disk exchanged while the daemon was away, and the programs that look after
//! a store.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use kms_client::v1::{self, Algorithm};
use kms_tests::process::{Process, program};
use kms_tests::request::{create_key, sign};
use kms_tests::{Daemon, daemon, refused_for};
use serde_json::Value;

use crate::forge::{self, Row};

/// A stopped daemon with some keys, and the row of `rolled-back` as it was before it was changed.
async fn stopped() -> (Daemon, Row) {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    for name in ["gone", "rolled-back", "swapped-a", "swapped-b", "twin"] {
        create_key(&client, &format!("dev/{name}"), Algorithm::EcP256).await;
    }
    drop(client);
    daemon.terminate();
    let rows = forge::rows(&daemon.state().join("store"));
    let older = rows.into_iter().find(|row| row.key == key("rolled-back")).unwrap();
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
    for n in 0..8 {
        create_key(&client, &format!("dev/more-{n}"), Algorithm::EcP256).await;
    }
    drop(client);
    daemon.terminate();
    (daemon, older)
}

#[tokio::test]
async fn a_row_that_was_put_back_taken_away_doubled_or_swapped_keeps_the_keys_shut_and_is_named() {
    let (mut daemon, older) = stopped().await;
    let store = daemon.state().join("store");
    let kept = daemon::temporary();
    copy(&store, kept.path());
    let at = |rows: &[Row], name: &str| rows.iter().position(|row| row.key == key(name)).unwrap();
    let put_back = |rows: &mut Vec<Row>| {
        let place = at(rows, "rolled-back");
        assert!(older.revision < rows[place].revision);
        rows[place] = older.clone();
    };
    let take_away = |rows: &mut Vec<Row>| drop(rows.remove(at(rows, "gone")));
    let double = |rows: &mut Vec<Row>| {
        let place = at(rows, "twin");
        let twin = Row { key: key("twin-2"), ..rows[place].clone() };
        rows.insert(place + 1, twin);
    };
    let swap = |rows: &mut Vec<Row>| {
        let (a, b) = (at(rows, "swapped-a"), at(rows, "swapped-b"));
        let value = rows[a].value.take();
        rows[a].value = rows[b].value.take();
        rows[b].value = value;
    };
    type Edit<'a> = &'a dyn Fn(&mut Vec<Row>);
    let table: [(Edit<'_>, &[&str]); 4] = [
        (&put_back, &["keys/rolled-back is another row"]),
        (&take_away, &["1 missing after"]),
        (&double, &["keys/twin-2 is another row"]),
        (&swap, &["keys/swapped-a is another row", "keys/swapped-b is another row"]),
    ];
    for (edit, named) in table {
        forge::forge(&store, |rows| edit(rows));
        let ended = daemon.restart_refused();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        for told in named.iter().chain(&["restore the state folder from a backup"]) {
            assert!(ended.stderr.contains(told), "{told}: {}", ended.stderr);
        }
        // Without any key, the roots tell as much.
        let checked = kmsd_store("check", &daemon.state(), &[]);
        assert_eq!(checked.status.code(), Some(1));
        let told = String::from_utf8(checked.stdout).unwrap();
        assert!(named.iter().all(|name| told.contains(name)), "{told}");
        fs::remove_dir_all(&store).unwrap();
        copy(kept.path(), &store);
    }
    // What was edited and put right again is as good as before, and so is a new index.
    forge::forge(&store, |_| {});
    daemon.restart();
    let client = daemon.client().await;
    for name in ["gone", "rolled-back", "swapped-a", "twin"] {
        sign(&client, &format!("dev/{name}"), b"served").await.unwrap();
    }
}

/// A store under a passphrase is served sealed, and stays so.
#[tokio::test]
async fn a_sealed_daemon_with_exchanged_rows_is_not_unsealed_and_says_why() {
    let folder = daemon::temporary();
    let passphrase = "correct horse battery staple";
    let file = folder.path().join("passphrase");
    fs::write(&file, passphrase).unwrap();
    let (state, file) = (folder.path().join("state"), file.display().to_string());
    let state_text = state.display().to_string();
    let arguments = ["init", "--state", &state_text, "--passphrase-file", &file];
    assert_eq!(Process::kmsd(&arguments, folder.path(), "init").ended().status.code(), Some(0));
    forge::forge(&state.join("store"), |rows| {
        // The first officer is gone; somebody else could be enrolled anew.
        rows.retain(|row| !row.key.starts_with("user/"));
    });
    let socket = folder.path().join("kmsd.sock");
    let config = folder.path().join("kmsd.toml");
    let text = format!(
        "state = '{state_text}'\nlocation = 'local'\n[listen]\nunix = '{}'\n",
        socket.display()
    );
    fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    let mut process = Process::kmsd(&["serve", "--config", &config], folder.path(), "serve");
    assert!(process.wait_for("ready"), "{}", process.stderr());
    let client = daemon::connect(&daemon::unix(&socket)).await;
    let request = v1::UnsealRequest { passphrase: passphrase.to_owned() };
    let refusal = refused_for(client.call(client.seal().unseal(request)).await, "ROW_TAMPERED");
    assert!(refusal.message.contains("missing after"), "{}", refusal.message);
    assert!(refusal.message.contains("restore"), "{}", refusal.message);
    let status = client.call(client.seal().get_seal_status(v1::GetSealStatusRequest {})).await;
    assert!(status.unwrap().sealed);
    drop(client);
    assert_eq!(process.terminate().status.code(), Some(0));
}

#[tokio::test]
async fn the_store_of_a_stopped_daemon_is_checked_measured_and_made_anew() {
    let (mut daemon, _) = stopped().await;
    let state = daemon.state();
    // Good: 0, and the same figures for programs and people.
    let good = json("check", &state, 0);
    assert_eq!((&good["good"], &good["index_is_good"]), (&true.into(), &true.into()), "{good}");
    assert_eq!(good["damages"], Value::Array(vec![]));
    assert_eq!(good["row_set_root"], good["named_row_set_root"], "the log names the rows");
    let stats = json("stats", &state, 0);
    for figure in ["rows", "leaves", "snapshots", "slots", "disk_bytes"] {
        assert!(stats[figure].as_u64().unwrap() > 0, "{figure}: {stats}");
        assert_eq!(stats[figure], good[figure], "{figure}");
    }
    let table = kmsd_store("stats", &state, &[]);
    let lines = String::from_utf8(table.stdout).unwrap();
    let rows = format!("{:<20} {}", "rows", stats["rows"]);
    assert!(lines.lines().any(|line| line == rows), "{lines}");
    // kmsctl runs the same, with the same status.
    let by_ctl = run("kmsctl", &["store", "check", "--state", state.to_str().unwrap()]);
    assert_eq!(by_ctl.status.code(), Some(0));
    assert_eq!(by_ctl.stdout, kmsd_store("check", &state, &[]).stdout);

    // An index that is gone or spoiled is no damage: it says so, and is made anew.
    let index = state.join("store/index");
    fs::write(index.join("db"), b"spoiled").unwrap();
    let spoiled = json("check", &state, 0);
    assert_eq!((&spoiled["good"], &spoiled["index_is_good"]), (&false.into(), &false.into()));
    let rebuilt = json("rebuild", &state, 0);
    assert_eq!(rebuilt["rebuilt_index"], true, "{rebuilt}");
    assert_eq!(json("check", &state, 0)["good"], true);
    assert_eq!(json("stats", &state, 0)["rows"], stats["rows"]);

    // Damage: 1, each file and what to do are named.
    let rows = newest(&state.join("store/snapshots"), "rows");
    let whole = fs::read(&rows).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&rows, &damaged).unwrap();
    let report = json("check", &state, 1);
    let file = rows.file_name().unwrap().to_str().unwrap();
    assert!(report["damages"].to_string().contains(file), "{report}");
    let told = kmsd_store("check", &state, &[]);
    assert!(String::from_utf8(told.stderr).unwrap().contains("restore"), "what to do");
    let by_ctl = run("kmsctl", &["store", "check", "--state", state.to_str().unwrap()]);
    assert_eq!(by_ctl.status.code(), Some(1));
    let refused = kmsd_store("rebuild", &state, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("made anew"));
    assert_eq!(fs::read(&rows).unwrap(), damaged, "the damaged file was changed");
    fs::write(&rows, &whole).unwrap();

    // In use, or not there: refused, and nothing is made.
    daemon.restart();
    for verb in ["check", "rebuild", "stats"] {
        let refused = kmsd_store(verb, &state, &["--output", "json"]);
        assert_eq!(refused.status.code(), Some(1), "{verb}");
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(told.contains("another kmsd uses this state folder"), "{verb}: {told}");
        assert!(refused.stdout.is_empty());
        let nowhere = state.join("nowhere");
        assert_eq!(kmsd_store(verb, &nowhere, &[]).status.code(), Some(1), "{verb}");
        assert!(!nowhere.exists());
    }
    let client = daemon.client().await;
    sign(&client, "dev/twin", b"the daemon goes on").await.unwrap();
}

fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(program(name)).args(arguments).env_clear().output().unwrap()
}

fn kmsd_store(verb: &str, state: &Path, more: &[&str]) -> Output {
    let arguments = [&["store", verb, "--state", state.to_str().unwrap()], more].concat();
    run("kmsd", &arguments)
}

/// What it says to programs, after its status.
fn json(verb: &str, state: &Path, status: i32) -> Value {
    let ended = kmsd_store(verb, state, &["--output", "json"]);
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(status), "{verb}: {told}");
    serde_json::from_slice(&ended.stdout).unwrap()
}

fn newest(folder: &Path, extension: &str) -> std::path::PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == extension)).max().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn key(name: &str) -> String {
    format!("key/tenants/default/locations/local/keyRings/dev/keys/{name}")
}
