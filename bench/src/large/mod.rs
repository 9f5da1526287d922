//! `kms-bench large`: what stays as it is when a daemon holds very many keys, or a key very many versions.
//!
//! Two daemons of our own, one with few and one with many, are asked the same in turns, so that what disturbs one
//! disturbs the other. Then the large one is stopped, killed and started, and its memory and disk are looked at.

mod caller;
mod report;
mod site;
mod times;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use self::caller::Population;
use self::site::Site;
use self::times::{Case, Figure, Goal, Times};
use crate::Output;
use crate::error::BenchError;
use crate::machine::{self, Machine};
use crate::rounds::{built, programs};

/// What is measured with how many.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Keys in the large daemon; 0 leaves this part out.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u32,
    /// Versions of one key in the large daemon; 0 leaves this part out.
    #[arg(long, default_value_t = 100_000)]
    versions: u32,
    /// Signatures with random keys before the memory is looked at.
    #[arg(long, default_value_t = 100_000)]
    signatures: u32,
    /// Rounds of stop, start and all requests; the figures are medians of them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=9))]
    rounds: u32,
    /// Table for people, or JSON.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Folder on the disk to measure, for the state; by default that of this program. Its path
    /// must be short enough for a Unix socket.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// What a run gave.
#[derive(Debug)]
struct Measured {
    machine: Machine,
    load_before: Option<f64>,
    load_after: Option<f64>,
    rounds: u32,
    parts: Vec<Part>,
}

/// What a daemon with many gave, beside one with few.
#[derive(Debug)]
struct Part {
    population: Population,
    few: u32,
    many: u32,
    /// A pair of each round: with few, with many.
    times: Vec<(Case, Vec<[Times; 2]>)>,
    figures: Vec<Figure>,
}

/// Measures, and prints what came of it.
///
/// # Errors
/// [`BenchError`] of the first thing that does not work; a goal that is not met is none.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let Arguments { keys, versions, signatures, rounds, output, folder } = arguments;
    let programs = programs()?;
    let kmsd = built(&programs, "kmsd")?;
    let folder = folder.as_deref().unwrap_or(&programs);
    let load_before = machine::load();
    let mut parts = Vec::new();
    for (population, many) in [(Population::Keys, *keys), (Population::Versions, *versions)] {
        if many == 0 {
            continue;
        }
        // A folder for each part, so that the disk holds one of them at a time.
        let work = tempfile::Builder::new().prefix("bench-").tempdir_in(folder);
        let work = work.map_err(BenchError::file(folder))?;
        let plan = Plan { population, many, signatures: *signatures, rounds: *rounds };
        parts.push(plan.measure(&kmsd, work.path())?);
    }
    let load_after = machine::load();
    let machine = Machine::look();
    let measured = Measured { machine, load_before, load_after, rounds: *rounds, parts };
    match output {
        Output::Json => println!("{}", report::json(&measured)?),
        Output::Table => println!("{}", report::table(&measured)),
    }
    Ok(())
}

struct Plan {
    population: Population,
    many: u32,
    signatures: u32,
    rounds: u32,
}

impl Plan {
    fn measure(&self, kmsd: &Path, work: &Path) -> Result<Part, BenchError> {
        let Self { population, many, signatures, rounds } = *self;
        let few = FEW.min(many);
        let mut small = Site::start(kmsd, &work.join("few"), population, few)?;
        let mut large = Site::start(kmsd, &work.join("many"), population, many)?;
        let mut figures = vec![large.creation()];
        let mut kills = vec![large.kill_and_start()?];
        let stopped = large.stop()?;
        let disk = Disk::look(kmsd, &work.join("many"))?;
        large.restart()?;
        small.find_pages()?;
        large.find_pages()?;
        let mut times: Vec<(Case, Vec<[Times; 2]>)> =
            population.cases().iter().map(|case| (*case, Vec::new())).collect();
        let (mut stops, mut starts, mut small_starts) = (vec![stopped], Vec::new(), Vec::new());
        for round in 1..=rounds {
            eprintln!("kms-bench: {}: round {round} of {rounds}", population.noun());
            small.stop()?;
            stops.push(large.stop()?);
            small_starts.push(small.restart()?);
            starts.push(large.restart()?);
            for (case, measured) in &mut times {
                measured.push(times::alternate(*case, [&mut small, &mut large], round)?);
            }
        }
        // What was asked so far is forgotten, so that the memory is that of the signatures.
        stops.push(large.stop()?);
        starts.push(large.restart()?);
        let before = large.anonymous_bytes()?;
        let rate = large.sign_at_random(signatures)?;
        let after = large.anonymous_bytes()?;
        kills.push(large.kill_and_start()?);
        let longest = |times: &[site::Ready]| times.iter().copied().max_by_key(|time| time.ready);
        let middle = |mut times: Vec<site::Ready>| {
            times.sort_unstable_by_key(|time| time.ready);
            times.get(times.len() / 2).copied()
        };
        for (name, title, ready, goal) in [
            ("start.few", "start of the daemon with few, median", middle(small_starts), None),
            (
                "start.stopped",
                "start after a clean stop, median",
                middle(starts),
                Some(Goal(STOPPED_SECONDS_MAX)),
            ),
            (
                "start.killed",
                "start after a kill, the longer of two",
                longest(&kills),
                Some(Goal(KILLED_SECONDS_MAX)),
            ),
        ] {
            let Some(site::Ready { ready, first_signature, cpu }) = ready else { continue };
            figures.push(Figure::seconds(name, format!("{title}: ready"), ready, goal));
            let cpu_title = format!("{title}: CPU time until ready");
            figures.push(Figure::seconds(&format!("{name}.cpu"), cpu_title, cpu, None));
            let (name, title) = (format!("{name}.signed"), format!("{title}: first signature"));
            figures.push(Figure::seconds(&name, title, first_signature, None));
        }
        stops.sort_unstable();
        if let Some(stop) = stops.get(stops.len() / 2) {
            figures.push(Figure::seconds("stop", "clean stop, median".to_owned(), *stop, None));
        }
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        figures.push(Figure::new(
            "memory.idle",
            "anonymous memory when started",
            mebibytes(before),
            "MiB",
            None,
        ));
        figures.push(Figure::new(
            "memory.signed",
            &format!("anonymous memory after {signatures} random signatures"),
            mebibytes(after),
            "MiB",
            Some(Goal(ANONYMOUS_MEBIBYTES_MAX)),
        ));
        figures.push(Figure::new(
            "rate.signed",
            "those signatures, 64 in flight",
            rate,
            "/s",
            None,
        ));
        figures.extend(disk.figures());
        Ok(Part { population, few, many, times, figures })
    }
}

/// What a state takes up, and what is in it.
#[derive(Debug)]
struct Disk {
    bytes: u64,
    stats: Stats,
}

/// What `kmsd store stats` says, as far as it is wanted.
#[derive(Debug, Deserialize)]
struct Stats {
    rows: u64,
    row_bytes: u64,
    leaf_bytes: u64,
}

impl Disk {
    /// Looks at the state of a daemon that does not run.
    fn look(kmsd: &Path, folder: &Path) -> Result<Self, BenchError> {
        let state = folder.join("state");
        let bytes = disk_bytes(&state)?;
        let asked = Command::new(kmsd)
            .args(["store", "stats", "--output", "json", "--state"])
            .arg(&state)
            .stdin(Stdio::null())
            .output()
            .map_err(BenchError::file(kmsd))?;
        if !asked.status.success() {
            return Err(BenchError::Daemon(String::from_utf8_lossy(&asked.stderr).into_owned()));
        }
        Ok(Self { bytes, stats: serde_json::from_slice(&asked.stdout)? })
    }

    fn figures(&self) -> [Figure; 3] {
        let Self { bytes, stats: Stats { rows, row_bytes, leaf_bytes } } = self;
        let share = |of: u64| *bytes as f64 / of.max(1) as f64;
        [
            Figure::new(
                "disk.rows",
                &format!("disk to the keys and values of {rows} rows"),
                share(*row_bytes),
                "×",
                Some(Goal(DISK_SHARE_MAX)),
            ),
            Figure::new(
                "disk.all",
                "disk to those and the leaves of the log",
                share(row_bytes + leaf_bytes),
                "×",
                None,
            ),
            Figure::new("disk", "disk", *bytes as f64 / f64::from(1 << 20), "MiB", None),
        ]
    }
}

/// What the files of a folder take up, which is less than their lengths where they have holes.
fn disk_bytes(folder: &Path) -> Result<u64, BenchError> {
    use std::os::unix::fs::MetadataExt as _;

    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(BenchError::file(&folder))? {
            let path = entry.map_err(BenchError::file(&folder))?.path();
            let metadata = fs::symlink_metadata(&path).map_err(BenchError::file(&path))?;
            if metadata.is_dir() {
                folders.push(path);
            } else {
                bytes += metadata.blocks() * 512;
            }
        }
    }
    Ok(bytes)
}

/// What many are held against.
const FEW: u32 = 1000;
const STOPPED_SECONDS_MAX: f64 = 1.5;
const KILLED_SECONDS_MAX: f64 = 5.0;
const ANONYMOUS_MEBIBYTES_MAX: f64 = 256.0;
const DISK_SHARE_MAX: f64 = 2.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_what_the_files_take_up() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/b"), vec![7; 100_000]).unwrap();
        let hole = fs::File::create(folder.path().join("hole")).unwrap();
        hole.set_len(1 << 30).unwrap();
        let bytes = disk_bytes(folder.path()).unwrap();
        assert!((100_000..1 << 20).contains(&bytes), "{bytes}");
    }
}
