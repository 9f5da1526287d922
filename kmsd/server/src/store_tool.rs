//! `kmsd store`: looks after the store of a daemon that does not run. It opens no key: what it sees is
//! what the store holds, sealed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use kms_store::{Report, sled};
use serde_json::{Value, json};

use crate::server::ServeError;

/// What is done to the store.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Check every row and leaf, and change nothing. Ends with 1 when something is damaged.
    #[command(after_help = "Example:\n  kmsd store check --state /var/lib/kmsd")]
    Check(StoreArgs),
    /// Make the index anew from snapshot and journal.
    #[command(after_help = "Example:\n  kmsd store rebuild --state /var/lib/kmsd")]
    Rebuild(StoreArgs),
    /// Show how large the store is and what is in it.
    #[command(after_help = "Example:\n  kmsd store stats --state /var/lib/kmsd --output json")]
    Stats(StoreArgs),
}

/// Which store, and how its state is shown.
#[derive(Args, Debug)]
pub(crate) struct StoreArgs {
    /// Folder of the daemon's state. The daemon must not run.
    #[arg(long, env = "KMSD_STATE")]
    state: PathBuf,
    /// For people or for programs.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// For whom it is written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    /// One JSON object.
    Json,
    /// A line per figure.
    #[default]
    Table,
}

/// Runs one of them.
///
/// # Errors
/// [`ServeError`] when the store cannot be read, is in use, or is damaged.
pub(crate) fn run(command: StoreCommand) -> Result<(), ServeError> {
    match command {
        StoreCommand::Check(args) => {
            let report = report(&args)?;
            let good = report.is_good();
            let mut shown = figures(&report);
            shown.push(("index_is_good", json!(report.index_is_good)));
            shown.push(("good", json!(good)));
            let damages: Vec<String> = report.damages.iter().map(ToString::to_string).collect();
            let rows: Vec<String> =
                report.disagreements.iter().map(|row| format!("{row:?}")).collect();
            shown.push(("damages", json!(damages)));
            shown.push(("disagreements", json!(rows)));
            show(args.output, shown);
            if report.damages.is_empty() {
                return Ok(());
            }
            let problem = "the store is damaged; restore it from a backup, or ask for help with \
                           what is named above";
            Err(ServeError::Failed(problem.to_owned()))
        }
        StoreCommand::Rebuild(args) => {
            let opened = sled::rebuild(&folder(&args)).map_err(|error| {
                ServeError::Failed(format!("the index cannot be made anew: {error}"))
            })?;
            show(
                args.output,
                vec![
                    ("rebuilt_index", json!(opened.rebuilt_index)),
                    ("discarded_tail_bytes", json!(opened.discarded_tail_bytes)),
                    ("damaged_snapshots", json!(opened.damaged_snapshots)),
                ],
            );
            Ok(())
        }
        StoreCommand::Stats(args) => {
            show(args.output, figures(&report(&args)?));
            Ok(())
        }
    }
}

fn folder(args: &StoreArgs) -> PathBuf {
    args.state.join(crate::server::STORE_FOLDER)
}

fn report(args: &StoreArgs) -> Result<Report, ServeError> {
    let folder = folder(args);
    sled::check(&folder)
        .map_err(|error| ServeError::Failed(format!("{}: {error}", folder.display())))
}

fn figures(report: &Report) -> Vec<(&'static str, Value)> {
    vec![
        ("rows", json!(report.rows)),
        ("deleted_rows", json!(report.deleted_rows)),
        ("row_bytes", json!(report.row_bytes)),
        ("row_set_root", json!(report.row_set.map(|set| set.root.to_string()))),
        ("row_set_sequence", json!(report.row_set.map(|set| set.sequence))),
        ("named_row_set_root", json!(report.named_row_set.map(|set| set.root.to_string()))),
        ("named_row_set_sequence", json!(report.named_row_set.map(|set| set.sequence))),
        ("leaves", json!(report.leaves)),
        ("leaf_bytes", json!(report.leaf_bytes)),
        ("segments", json!(report.segments)),
        ("reduced_segments", json!(report.reduced_segments)),
        ("snapshots", json!(report.snapshots)),
        ("slots", json!(report.slots)),
        ("erased_slots", json!(report.erased_slots)),
        ("disk_bytes", json!(report.disk_bytes)),
        ("torn_tail_bytes", json!(report.torn_tail_bytes)),
    ]
}

fn show(output: Output, figures: Vec<(&'static str, Value)>) {
    match output {
        Output::Json => {
            let object: serde_json::Map<String, Value> =
                figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            println!("{}", Value::Object(object));
        }
        Output::Table => {
            for (name, value) in figures {
                match value {
                    Value::Array(lines) => {
                        for line in lines {
                            println!("{name:<20} {}", line.as_str().unwrap_or_default());
                        }
                    }
                    Value::String(text) => println!("{name:<20} {text}"),
                    value => println!("{name:<20} {value}"),
                }
            }
        }
    }
}
