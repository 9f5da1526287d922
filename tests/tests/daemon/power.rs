//! A daemon that loses its power: what it acknowledged over gRPC is there at the next start, and the rows
//! are those that its log names.
//!
//! The layer and the model of the disk are those of the store's own test (`kmsd/store/tests/power_loss`).
//! Five rounds, or 50 with `KMS_LONG=1`; `KMS_POWER_SEED` repeats a choice of moments and of what survives.

#[path = "../../../kmsd/store/tests/power_loss/disk.rs"]
mod disk;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kms_client::v1::{self, Algorithm};
use kms_tests::{Daemon, daemon, is_long, log, request};

use self::disk::{Disk, Random, Survival};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_power_loss() {
    let rounds = if is_long() { 50 } else { 5 };
    let seed = std::env::var("KMS_POWER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 0x9e37_79b9 + 1);
    let mut random = Random(seed);
    let folder = daemon::temporary();
    let root = folder.path().canonicalize().unwrap();
    let layer = compile_layer(&root);
    let mut daemon = Daemon::start();
    daemon.terminate();
    let store = daemon.state().join("store").canonicalize().unwrap();
    let trace = root.join("trace");
    let environment: [(&str, OsString); 3] = [
        ("LD_PRELOAD", layer.into()),
        ("KMS_POWER_FOLDER", store.clone().into()),
        ("KMS_POWER_TRACE", trace.clone().into()),
    ];
    let (mut all, mut checkpoint) = (Vec::new(), None::<String>);
    for round in 0..rounds {
        // The first cut is as hard as can be.
        let survival = if round % 3 == 0 { Survival::Nothing } else { Survival::Some };
        let mut disk = Disk::load(&store);
        daemon.restart_under(&environment);
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let (client, acknowledged) = (daemon.client().await, acknowledged.clone());
            writers.spawn(async move {
                for n in 0.. {
                    let name = format!("dev/power-{round}-{writer}-{n}");
                    let request = request::key(&name, Algorithm::GenericSecret);
                    let Ok(made) = client.call(client.keys().create_key(request)).await else {
                        return;
                    };
                    let index = made.audit.unwrap().audit_index;
                    let name = made.key.unwrap().name;
                    acknowledged.lock().unwrap().push((name, index));
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(200 + random.below(500) as u64)).await;
        daemon.kill9();
        writers.join_all().await;
        disk.follow(&fs::read(&trace).unwrap());
        assert_eq!(disk.unsupported, Default::default(), "the layer cannot follow these");
        let after = root.join("after");
        disk.cut(&after, survival, &mut random);
        fs::remove_file(&trace).unwrap();
        another_boot(&after);
        fs::remove_dir_all(&store).unwrap();
        fs::rename(&after, &store).unwrap();

        daemon.restart();
        let acknowledged = std::mem::take(&mut *acknowledged.lock().unwrap());
        assert!(acknowledged.len() >= 5, "too few to tell: {}", acknowledged.len());
        all.extend(acknowledged);
        let client = daemon.client().await;
        let export = log::Export::fetch(&client).await;
        export.assert_whole(checkpoint.as_deref());
        let leaves = export.leaves();
        for (name, index) in &all {
            let request = v1::GetKeyRequest { name: name.clone() };
            let found = client.call(client.keys().get_key(request)).await;
            assert!(found.is_ok(), "round {round}, {survival:?}, seed {seed}: {name}: {found:?}");
            let leaf = &leaves[usize::try_from(*index).unwrap()];
            assert_eq!(leaf.action, "CreateKey", "round {round}, seed {seed}: the leaf of {name}");
        }
        checkpoint = Some(export.checkpoint());
        drop(client);
        // Every other round the next loss meets a store that was stopped in order.
        if round % 2 == 0 { daemon.kill9() } else { drop(daemon.terminate()) }
    }
    println!("power loss, kmsd: {rounds} rounds, {} acknowledged keys, none lost", all.len());
}

/// The machine that comes up again is on another boot, which this one is not.
fn another_boot(store: &Path) {
    let note = store.join("index.open");
    if note.exists() {
        fs::write(note, "the boot before\n").unwrap();
    }
}

fn compile_layer(folder: &Path) -> PathBuf {
    let layer = folder.join("layer.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../kmsd/store/tests/power_loss/layer.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compiled = Command::new(compiler)
        .args(["-O2", "-shared", "-fPIC", "-pthread", "-o"])
        .arg(&layer)
        .arg(source)
        .status()
        .expect("this test needs a C compiler: install one as `cc`, or name it in CC");
    assert!(compiled.success(), "the layer does not compile");
    layer
}
