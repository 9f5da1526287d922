//! `kmsctl`: the command line of the key-management appliance.
//!
//! It turns words into requests and answers into tables or JSON. What is permitted is the daemon's
//! business; what can be checked without it (receipts, logs, evidence) is checked by `kms-verify`.
//!
//! Standard output is for results, standard error for everything else. Exit codes: 0 done, 1 our or
//! the daemon's failure, 2 usage, 3 refused or not accepted, 4 needs approval, 5 unavailable.

mod arguments;
mod command;
mod connection;
mod failure;
mod input;
mod key_file;
mod output;
mod pkcs12;
mod sealing;
mod tiles;
mod view;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::Arguments;
use failure::Failure;
use output::{Format, Report};

fn main() -> ExitCode {
    let Arguments { connection, output, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() && wants_json() => {
            let failure = Failure::Input(error.to_string());
            failure.print(Format::Json);
            return ExitCode::from(failure.exit_code());
        }
        // Help and version, or a usage error for people.
        Err(error) => error.exit(),
    };
    let answered = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)
        .and_then(|runtime| runtime.block_on(command.run(&connection)))
        .and_then(|report| {
            let Report { accepted, awaits_approval, .. } = report;
            report.print(output).map(|()| (accepted, awaits_approval))
        });
    match answered {
        Ok((_, true)) => ExitCode::from(failure::EXIT_NEEDS_APPROVAL),
        Ok((true, false)) => ExitCode::SUCCESS,
        Ok((false, false)) => ExitCode::from(failure::EXIT_REFUSED),
        Err(failure) => {
            failure.print(output);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Whether the command line asks for JSON, although it could not be read as a whole.
fn wants_json() -> bool {
    let words: Vec<_> = std::env::args_os().collect();
    words.iter().any(|word| word == "--output=json")
        || words.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json")
}
