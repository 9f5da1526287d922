//! A run: everything is started once, then every case has its turn in every round.
//!
//! Rounds are what makes ratios mean something on a machine that others use too: what disturbs one
//! round disturbs a case and its peer alike, and the medians leave it out.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::RunArguments;
use crate::cases::Case;
use crate::daemon::Daemon;
use crate::error::BenchError;
use crate::grpc::Signer;
use crate::machine::{self, Machine};
use crate::measure::{Extent, Sample};
use crate::module::client::{Module, Setup};
use crate::module::{Order, Work};
use crate::primitive::Primitives;
use crate::raw::Raw;

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) machine: Machine,
    pub(crate) load_before: Option<f64>,
    pub(crate) load_after: Option<f64>,
    pub(crate) rounds: u32,
    /// SoftHSM2's own name and version; none when it is not installed.
    pub(crate) softhsm: Option<String>,
    /// A sample of each round; what was skipped is not there.
    pub(crate) samples: BTreeMap<Case, Vec<Sample>>,
}

/// Measures all cases, or those that are named, in rounds.
///
/// # Errors
/// [`BenchError`] of the first thing that does not work; half a run is no result.
pub(crate) fn run(arguments: &RunArguments) -> Result<Measured, BenchError> {
    let RunArguments { rounds, only, output: _, folder, softhsm } = arguments;
    let cases = named(only.as_deref().unwrap_or_default())?;
    let load_before = machine::load();
    eprintln!("kms-bench: starting the daemon and the modules");
    let mut bench = Bench::start(folder.as_deref(), softhsm.as_deref())?;
    let mut samples: BTreeMap<Case, Vec<Sample>> = BTreeMap::new();
    for round in 1..=*rounds {
        eprintln!("kms-bench: round {round} of {rounds}");
        for case in &cases {
            if let Some(sample) = bench.measure(*case)? {
                samples.entry(*case).or_default().push(sample);
            }
        }
    }
    Ok(Measured {
        machine: Machine::look(),
        load_before,
        load_after: machine::load(),
        rounds: *rounds,
        softhsm: bench.softhsm.as_ref().map(|module| module.library.clone()),
        samples,
    })
}

/// The cases whose names contain `text`.
fn named(text: &str) -> Result<Vec<Case>, BenchError> {
    let cases: Vec<Case> =
        Case::ALL.into_iter().filter(|case| case.name().contains(text)).collect();
    if cases.is_empty() { Err(BenchError::NoCase(text.to_owned())) } else { Ok(cases) }
}

/// Everything that is measured, running. What is declared first ends first.
struct Bench {
    ours: Module,
    softhsm: Option<Module>,
    unix: Signer,
    tls: Signer,
    primitives: Primitives,
    raw: Raw,
    daemon: Daemon,
    _work: TempDir,
}

impl Bench {
    fn start(folder: Option<&Path>, softhsm: Option<&Path>) -> Result<Self, BenchError> {
        let programs = programs()?;
        let (kmsd, module) = (built(&programs, "kmsd")?, built(&programs, "libkms_pkcs11.so")?);
        let folder = folder.unwrap_or(&programs);
        let work = tempfile::Builder::new().prefix("bench-").tempdir_in(folder);
        let work = work.map_err(BenchError::file(folder))?;
        let daemon = Daemon::start(&kmsd, work.path())?;
        let unix = Signer::connect(&daemon.unix()?, KEY)?;
        let tls = Signer::connect(&daemon.tls()?, KEY)?;
        let ours = Module::start(&Setup {
            name: "libkms_pkcs11.so",
            library: &module,
            token: daemon.setting("KMS_TOKEN_LABEL")?,
            pin: daemon.setting("KMS_USER_PIN")?,
            initialise: false,
            variable: ("KMS_ADDR", daemon.setting("KMS_ADDR")?.as_ref()),
        })?;
        let softhsm = match softhsm.map(Path::to_owned).or_else(installed_softhsm) {
            Some(library) => Some(start_softhsm(&library, work.path())?),
            None => None,
        };
        let raw = Raw::new(work.path())?;
        let primitives = Primitives::new()?;
        Ok(Self { ours, softhsm, unix, tls, primitives, raw, daemon, _work: work })
    }

    /// One case in one round; none for a peer that is not installed.
    fn measure(&mut self, case: Case) -> Result<Option<Sample>, BenchError> {
        let Self { ours, softhsm, unix, tls, primitives, raw, daemon, _work } = self;
        let mut peer = |order| softhsm.as_mut().map(|module| module.work(order)).transpose();
        let (sample, used) = match case {
            Case::Raw(which) => return primitives.raw(which, SHORT).map(Some),
            Case::Provider(which) => return primitives.provider(which, SHORT).map(Some),
            Case::RawSync => return raw.append_and_sync(LONG).map(Some),
            Case::RawSyncInPlace => return raw.write_in_place_and_sync(LONG).map(Some),
            Case::SoftHsmSign1 => return peer(order(Work::Sign, 1, LONG)),
            Case::SoftHsmSign2 => return peer(order(Work::Sign, 2, LONG)),
            Case::SoftHsmCreate => return peer(order(Work::Create, 1, CREATES)),
            Case::SoftHsmEncrypt => return peer(order(Work::Encrypt, 1, LONG)),
            Case::Unix1 => daemon.cpu_during(|| unix.unary(1, GRPC_TIME)),
            Case::Unix16 => daemon.cpu_during(|| unix.unary(16, GRPC_TIME)),
            Case::Unix128 => daemon.cpu_during(|| unix.unary(128, GRPC_TIME)),
            Case::Tls128 => daemon.cpu_during(|| tls.unary(128, GRPC_TIME)),
            Case::TlsBatch32 => daemon.cpu_during(|| tls.batches(32, 4, GRPC_TIME)),
            Case::Stream64 => daemon.cpu_during(|| unix.stream(64, GRPC_TIME)),
            Case::OursSign1 => daemon.cpu_during(|| ours.work(order(Work::Sign, 1, LONG))),
            Case::OursSign2 => daemon.cpu_during(|| ours.work(order(Work::Sign, 2, LONG))),
            Case::OursCreate => daemon.cpu_during(|| ours.work(order(Work::Create, 1, CREATES))),
            Case::OursEncrypt => daemon.cpu_during(|| ours.work(order(Work::Encrypt, 1, LONG))),
        };
        Ok(Some(sample?.with_daemon_cpu(used)))
    }
}

const fn order(work: Work, threads: usize, extent: Extent) -> Order {
    Order { work, threads, extent }
}

/// The folder that this program was built into.
pub(crate) fn programs() -> Result<PathBuf, BenchError> {
    let program = std::env::current_exe().map_err(BenchError::file("kms-bench".as_ref()))?;
    Ok(program.parent().unwrap_or_else(|| Path::new(".")).to_owned())
}

/// A file of the same build as this program.
///
/// # Errors
/// [`BenchError::NotBuilt`].
pub(crate) fn built(folder: &Path, name: &str) -> Result<PathBuf, BenchError> {
    let path = folder.join(name);
    if path.exists() { Ok(path) } else { Err(BenchError::NotBuilt(path)) }
}

fn installed_softhsm() -> Option<PathBuf> {
    SOFTHSM_PLACES.iter().map(PathBuf::from).find(|path| path.exists())
}

fn start_softhsm(library: &Path, work: &Path) -> Result<Module, BenchError> {
    let tokens = work.join("softhsm");
    fs::create_dir(&tokens).map_err(BenchError::file(&tokens))?;
    let settings = work.join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    fs::write(&settings, text).map_err(BenchError::file(&settings))?;
    let variable: (&str, &OsStr) = ("SOFTHSM2_CONF", settings.as_ref());
    let (name, token, pin) = ("SoftHSM2", "bench", "12345678");
    Module::start(&Setup { name, library, token, pin, initialise: true, variable })
}

/// For what is steady.
const SHORT: Extent = Extent::milliseconds(200);
/// For what waits for a disk or another process.
const LONG: Extent = Extent::milliseconds(500);
/// Equally many on both sides, so that both tokens fill alike.
const CREATES: Extent = Extent { operations_max: 25, time_max: Duration::from_secs(1) };
const GRPC_TIME: Duration = Duration::from_millis(700);
/// Short name of the key for gRPC.
const KEY: &str = "dev/bench";
/// Debian and Ubuntu; Fedora; openSUSE and Alpine; built by hand.
const SOFTHSM_PLACES: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_a_part_of_their_names() {
        assert_eq!(named("").unwrap(), Case::ALL);
        assert_eq!(named("stream").unwrap(), [Case::Stream64]);
        let error = named("streem").unwrap_err().to_string();
        assert!(error.contains("streem") && error.contains("sign.grpc.stream.64"), "{error}");
    }

    #[test]
    fn what_is_not_built_is_named_with_the_command_that_builds_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = built(folder.path(), "kmsd").unwrap_err().to_string();
        assert!(error.contains("kmsd is not there"), "{error}");
        assert!(error.contains("cargo build --release --workspace"), "{error}");
        fs::write(folder.path().join("kmsd"), "").unwrap();
        assert_eq!(built(folder.path(), "kmsd").unwrap(), folder.path().join("kmsd"));
    }
}
