//! `kmsd`: see `kmsd --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kmsd::cli::run()
}
