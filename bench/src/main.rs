//! `kms-bench`: how fast the daemon and its PKCS#11 module are, beside their peers in the same run.
//!
//! It starts a development daemon of its own in a folder of its own, measures it in rounds with the
//! raw library, the disk and SoftHSM2, and prints medians and ratios. Only the ratios are worth
//! comparing between machines, or between two days on one: `README.md` says how to read them.

mod cases;
mod daemon;
mod error;
mod grpc;
mod large;
mod machine;
mod measure;
mod module;
mod primitive;
mod raw;
mod report;
mod rounds;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use error::BenchError;

/// Measures the key-management daemon beside the raw library, the disk and SoftHSM2.
#[derive(Debug, Parser)]
#[command(name = "kms-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A daemon with very many keys, and one with a key of very many versions.
    Large(large::Arguments),
    /// One PKCS#11 module, in a process whose environment is its own.
    #[command(hide = true)]
    Module(module::process::Arguments),
}

/// What one run measures.
#[derive(Debug, clap::Args)]
struct RunArguments {
    /// Rounds over all cases; the figures are medians of them. A round takes about 11 seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(5..=9))]
    rounds: u32,
    /// Measure only the cases whose recorded names contain this, for example `stream`, so that a
    /// profiler sees nothing else.
    #[arg(long)]
    only: Option<String>,
    /// Table for people, or JSON for a file such as bench/baseline.json.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Folder on the disk to measure, for the state; by default that of this program. Its path
    /// must be short enough for a Unix socket.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// SoftHSM2's module; by default where Linux distributions put it.
    #[arg(long)]
    softhsm: Option<PathBuf>,
}

/// For whom the result is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    /// One JSON document.
    Json,
    /// A table.
    Table,
}

fn main() -> ExitCode {
    let Arguments { command, run } = Arguments::parse();
    let ended = match command {
        Some(Command::Large(arguments)) => large::run(&arguments),
        Some(Command::Module(arguments)) => module::process::run(&arguments),
        None => measure_all(&run),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kms-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_all(arguments: &RunArguments) -> Result<(), BenchError> {
    let measured = rounds::run(arguments)?;
    match arguments.output {
        Output::Json => println!("{}", report::json(&measured)?),
        Output::Table => println!("{}", report::table(&measured)),
    }
    Ok(())
}
