//! `kmsctl completions` and `kmsctl man`.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use serde_json::json;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::input::{self, Secrecy};
use crate::output::Report;

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  kmsctl completions bash > ~/.local/share/bash-completion/completions/kmsctl"
)]
pub(crate) struct Completions {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<Report, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "kmsctl", &mut script);
        input::write(Path::new("-"), &script, Secrecy::Public)?;
        Ok(Report::nothing())
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  kmsctl man ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// The folder; made if need be.
    folder: PathBuf,
}

impl Man {
    pub(crate) fn run(self) -> Result<Report, Failure> {
        let Self { folder } = self;
        std::fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(Arguments::command(), &folder))
            .map_err(|cause| Failure::File { path: folder.clone(), cause })?;
        Ok(Report::fields(json!({ "folder": folder.display().to_string() })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_verb() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("man1");
        assert!(Man { folder: path.clone() }.run().unwrap().accepted);
        for page in ["kmsctl.1", "kmsctl-key-sign.1", "kmsctl-audit-export.1"] {
            assert!(path.join(page).is_file(), "{page}");
        }
    }
}
