//! `kmsctl store`: looks after the store of a daemon that does not run, by running `kmsd store`, which lies
//! beside this program or on the path. The store is the daemon's own: nothing here reads it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::output::Report;

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Check every row and leaf of the store, and change nothing.
    #[command(after_help = HELP)]
    Check(Rest),
    /// Make the index anew from snapshot and journal.
    #[command(after_help = HELP)]
    Rebuild(Rest),
    /// Show how large the store is and what is in it.
    #[command(after_help = HELP)]
    Stats(Rest),
}

/// What kmsd store takes.
#[derive(Args, Debug)]
pub(crate) struct Rest {
    /// As kmsd store --help has it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    rest: Vec<OsString>,
}

impl Store {
    /// Becomes `kmsd store`; comes back only when it cannot.
    pub(crate) fn run(self) -> Result<Report, Failure> {
        let (verb, Rest { rest }) = match self {
            Self::Check(rest) => ("check", rest),
            Self::Rebuild(rest) => ("rebuild", rest),
            Self::Stats(rest) => ("stats", rest),
        };
        let program = program(std::env::current_exe().ok().as_deref());
        let cause = Command::new(&program).args(["store", verb]).args(rest).exec();
        let missing = "kmsd is looked for beside kmsctl and on the path";
        Err(Failure::Input(format!("{}: {cause}; {missing}", program.display())))
    }
}

/// `kmsd` beside `own`, else on the path.
fn program(own: Option<&Path>) -> PathBuf {
    let beside = own.and_then(Path::parent).map(|folder| folder.join(DAEMON));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| DAEMON.into())
}

const DAEMON: &str = "kmsd";
const HELP: &str = "\
The daemon must not run meanwhile. Arguments go to kmsd store as they are.

Examples:
  kmsctl store check --state /var/lib/kmsd
  kmsctl store stats --help";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_beside_comes_before_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("kmsctl");
        assert_eq!(program(Some(&own)), PathBuf::from("kmsd"));
        std::fs::write(folder.path().join("kmsd"), "").unwrap();
        assert_eq!(program(Some(&own)), folder.path().join("kmsd"));
        assert_eq!(program(None), PathBuf::from("kmsd"));
    }
}
