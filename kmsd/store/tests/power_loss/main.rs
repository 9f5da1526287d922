//! What was acknowledged is there after a power loss.
//!
//! A kill alone proves nothing: the kernel keeps what a killed process wrote. So the victim runs under
//! a preloaded layer that writes down every change (`layer.c`); it is killed at a random moment, and
//! what a power loss would have left is worked out (`disk.rs`): nothing that was not synced, or any part
//! of it, torn at sectors. Then the store is opened on that.
//!
//! Five rounds, or 200 with `KMS_LONG=1`. `KMS_POWER_SEED` repeats a choice of moments and of what
//! survives, though not the victim's schedule.

#![expect(clippy::unwrap_used, reason = "a test that fails here fails")]

mod disk;
#[path = "../naming/mod.rs"]
mod naming;
mod victim;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::{Duration, Instant};

use kms_core::audit::merkle::{Frontier, leaf_hash, verify_inclusion};
use kms_store::{SCAN_MAX, Store, StoreError};
use tempfile::TempDir;

use self::disk::{Disk, Random, Survival};

/// The layer, compiled once, beside this test program.
static LAYER: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let layer = folder.path().join("layer.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/power_loss/layer.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compiled = Command::new(compiler)
        .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread", "-o"])
        .arg(&layer)
        .arg(source)
        .status()
        .expect("this test needs a C compiler: install one as `cc`, or name it in CC");
    assert!(compiled.success(), "the layer does not compile");
    (folder, layer)
});

#[test]
fn acknowledged_writes_survive_a_power_loss() {
    let figures = run("journal", rounds(), 10, &|folder, told| check_store(folder, told, &journal));
    println!("power loss, journal store: {figures}");
    assert_eq!((figures.lost, figures.refused), (0, 0));
    assert!(figures.acknowledged >= 50 * figures.rounds, "too few to tell");
}

#[test]
fn acknowledged_writes_of_the_other_backend_survive_a_power_loss() {
    #[cfg(feature = "redb")]
    {
        let open = |folder: &Path| -> Result<Arc<dyn Store>, StoreError> {
            Ok(Arc::new(kms_store::open_redb(folder)?.0))
        };
        let figures = run("redb", rounds(), 10, &|folder, told| check_store(folder, told, &open));
        println!("power loss, redb store: {figures}");
        assert_eq!((figures.lost, figures.refused), (0, 0));
        assert!(figures.acknowledged >= 10 * figures.rounds, "too few to tell");
    }
    #[cfg(not(feature = "redb"))]
    println!("skipped: built without the feature redb");
}

/// sled's own `flush` is no sync. A model that does not see that would not see anything.
#[test]
fn the_model_sees_that_sled_alone_loses_acknowledged_writes() {
    let figures = run("sled", 2, 1, &|folder, told| {
        let kept = victim::sled_keys(&folder.join("sled"));
        let lost = told.acknowledged.keys().filter(|key| !kept.contains(*key)).count();
        (lost, Ok(()))
    });
    println!("power loss, sled alone with flush: {figures}");
    assert!(figures.lost > 0, "the model does not bite");
    assert!(figures.acknowledged >= 100, "too few to tell");
}

fn rounds() -> usize {
    if std::env::var_os("KMS_LONG").is_some_and(|value| value == "1") { 200 } else { 5 }
}

fn journal(folder: &Path) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(kms_store::open_with(folder, &victim::settings())?.0))
}

/// What came of some rounds.
#[derive(Default)]
struct Figures {
    rounds: usize,
    acknowledged: usize,
    lost: usize,
    /// How many stores did not open.
    refused: usize,
    syncs: usize,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rounds, acknowledged, lost, refused, syncs } = self;
        write!(
            f,
            "{rounds} rounds, {acknowledged} acknowledged, {lost} lost, {refused} refused opens, \
             {syncs} syncs"
        )
    }
}

/// What the victim said, over all rounds on one store.
#[derive(Default)]
struct Told {
    /// Where the leaf of each acknowledged row stands, and its slot.
    acknowledged: HashMap<String, (u64, u64)>,
    /// Slots that it began to erase.
    erasing: HashSet<u64>,
    /// Slots that it had erased.
    erased: HashSet<u64>,
}

/// Tells how many acknowledged writes are lost, and whether the store opened at all.
type Check<'a> = &'a dyn Fn(&Path, &Told) -> (usize, Result<(), StoreError>);

/// Cuts the power so many times. A store that has seen some losses is put away for a new one, so that
/// rounds stay short.
fn run(which: &str, rounds: usize, rounds_on_one_store: usize, check: Check<'_>) -> Figures {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let seed = std::env::var("KMS_POWER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 0x9e37_79b9 + 1);
    let mut random = Random(seed);
    let (mut figures, mut told) = (Figures::default(), Told::default());
    let mut folder = root.join("0");
    fs::create_dir(&folder).unwrap();
    let mut failed = false;
    for round in 0..rounds {
        if (failed || round % rounds_on_one_store == 0) && round > 0 {
            (told, folder) = (Told::default(), root.join(round.to_string()));
            fs::create_dir(&folder).unwrap();
        }
        // The first cut is as hard as can be.
        let survival = if round % 3 == 0 { Survival::Nothing } else { Survival::Some };
        let before = told.acknowledged.len();
        let trace = root.join("trace");
        let mut disk = Disk::load(&folder);
        let run_for = Duration::from_millis(100 + random.below(900) as u64);
        run_victim(which, &folder, &trace, run_for, &mut told);
        disk.follow(&fs::read(&trace).unwrap());
        assert_eq!(disk.unsupported, Default::default(), "the layer cannot follow these");
        let after = root.join(format!("{round}.cut"));
        disk.cut(&after, survival, &mut random);
        another_boot(&after);
        fs::remove_file(&trace).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let (lost, opened) = check(&after, &told);
        failed = lost > 0 || opened.is_err();
        if failed {
            println!("{which}, round {round}, {survival:?}, seed {seed}: {lost} lost, {opened:?}");
        }
        figures.rounds += 1;
        figures.acknowledged += told.acknowledged.len() - before;
        figures.lost += lost;
        figures.refused += usize::from(opened.is_err());
        figures.syncs += disk.syncs_ended;
        folder = after;
    }
    fs::remove_dir_all(&root).unwrap();
    figures
}

/// The machine that comes up again is on another boot, which this one is not.
fn another_boot(folder: &Path) {
    let note = folder.join("index.open");
    let this = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if fs::read(&note).is_ok_and(|boot| boot == this) {
        fs::write(&note, "the boot before\n").unwrap();
    }
}

/// Runs the victim for so long after its first acknowledgement, kills it, and takes down what it
/// said.
fn run_victim(which: &str, folder: &Path, trace: &Path, run_for: Duration, told: &mut Told) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim::the_victim", "--nocapture", "--test-threads=1"])
        .env("LD_PRELOAD", &LAYER.1)
        .env("KMS_POWER_FOLDER", folder)
        .env("KMS_POWER_TRACE", trace)
        .env("KMS_POWER_VICTIM", which)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (line_to, lines) = mpsc::channel();
    let said = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        said.lines().map_while(Result::ok).for_each(|line| line_to.send(line).unwrap());
    });
    let mut kill_at = None;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let until = kill_at.unwrap_or(deadline);
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if told.take(&line) {
                    kill_at.get_or_insert_with(|| Instant::now() + run_for);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => break,
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the victim ended by itself"),
        }
        if kill_at.is_some_and(|at| at <= Instant::now()) {
            break;
        }
    }
    kill(&mut child);
    // After the kill the pipe still holds acknowledgements, which count as well.
    lines.into_iter().for_each(|line| {
        told.take(&line);
    });
    reader.join().unwrap();
    assert!(kill_at.is_some(), "the victim acknowledged nothing within a minute");
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

impl Told {
    /// Takes down a line; says whether it is an acknowledgement. A line that the kill cut short was
    /// not said.
    fn take(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["ack", key, leaf, slot, "."] => {
                let place = (leaf.parse().unwrap(), slot.parse().unwrap());
                self.acknowledged.insert(key.to_owned(), place);
                return true;
            }
            ["erasing", slot, "."] => {
                self.erasing.insert(slot.parse().unwrap());
            }
            ["erased", slot, "."] => {
                self.erased.insert(slot.parse().unwrap());
            }
            _ => {}
        }
        false
    }
}

type Open<'a> = &'a dyn Fn(&Path) -> Result<Arc<dyn Store>, StoreError>;

fn check_store(folder: &Path, told: &Told, open: Open<'_>) -> (usize, Result<(), StoreError>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = match open(folder) {
            Ok(store) => store,
            Err(error) => return (told.acknowledged.len(), Err(error)),
        };
        if let Err(error) = naming::begin(&*store).await {
            return (told.acknowledged.len(), Err(error));
        }
        let (rows, leaves) = (rows(&*store).await, verified_leaves(&*store).await);
        let mut lost = 0;
        for (key, (leaf, slot)) in &told.acknowledged {
            let row_is_there = rows.get(key).is_some_and(|row| *row == victim::value(key, *slot));
            let leaf_is_there = leaves.get(*leaf as usize).is_some_and(|l| l == key.as_bytes());
            lost += usize::from(!(row_is_there && leaf_is_there));
            match store.read_slot(*slot).await {
                Ok(secret) => {
                    assert!(!told.erased.contains(slot), "slot {slot} came back");
                    assert_eq!(*secret, *victim::secret(key), "slot {slot}");
                }
                Err(StoreError::SlotErased { .. }) => assert!(told.erasing.contains(slot)),
                Err(other) => panic!("slot {slot}: {other}"),
            }
        }
        store.close().await.unwrap();
        // An erased secret is in no file of the store.
        let table = fs::read(folder.join("slots")).unwrap();
        let held: HashSet<&[u8]> = table.chunks_exact(64).map(|slot| &slot[20..52]).collect();
        for (key, (_, slot)) in &told.acknowledged {
            let gone = !held.contains(&victim::secret(key)[..]);
            assert!(gone || !told.erased.contains(slot), "the secret of slot {slot} is on disk");
        }
        (lost, Ok(()))
    })
}

async fn rows(store: &dyn Store) -> HashMap<String, Vec<u8>> {
    let (mut rows, mut after) = (HashMap::new(), None::<String>);
    loop {
        let page = store.scan("", after.as_deref(), SCAN_MAX).await.unwrap();
        let Some((last, _)) = page.last() else { return rows };
        after = Some(last.clone());
        rows.extend(page.into_iter().map(|(key, row)| (key, row.value.to_vec())));
    }
}

/// All leaves, after holding them against the head and some of them against their proofs.
async fn verified_leaves(store: &dyn Store) -> Vec<Vec<u8>> {
    let (head, mut leaves) = (store.log_frontier().await, Vec::new());
    while (leaves.len() as u64) < head.size() {
        leaves.extend(store.leaves(leaves.len() as u64, SCAN_MAX).await.unwrap());
    }
    let mut rebuilt = Frontier::default();
    leaves.iter().for_each(|leaf: &Vec<u8>| rebuilt.append(leaf_hash(leaf)));
    assert_eq!(rebuilt, head);
    for (index, leaf) in (0..).zip(&leaves).step_by(37) {
        let path = store.inclusion_proof(index, head.size()).await.unwrap();
        assert!(verify_inclusion(&leaf_hash(leaf), index, head.size(), &path, &head.root()));
    }
    leaves
}
