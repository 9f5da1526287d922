//! `kms-agent`: receives a key for the workload that it runs in.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kms_agent::AgentError;
use kms_agent::attester::{Attester, AttesterError, tsm::Tsm};
use kms_agent::client::{Client, ClientError, Config, ConfigError};
use kms_agent::release::{self, ReleasedKey};
use kms_core::audit::checkpoint::{LogKey, LogKeyError};

/// Receive keys for this workload, on evidence of what it is.
#[derive(Debug, Parser)]
#[command(name = "kms-agent", version, after_help = CONNECTION_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive one key, and check the receipt before it is written.
    #[command(after_help = GET_KEY_HELP)]
    GetKey(GetKey),
}

#[derive(Args, Debug)]
struct GetKey {
    /// Key or version, for example dev/model or dev/model@2.
    #[arg(long)]
    key: String,
    /// Where the evidence comes from.
    #[arg(long, value_enum)]
    attester: Source,
    /// State file of the software attester.
    #[cfg(feature = "dev")]
    #[arg(long, value_name = "FILE", required_if_eq("attester", "software"))]
    attester_state: Option<PathBuf>,
    /// What the software attester calls its guest's measurement, 96 hexadecimal digits.
    #[cfg(feature = "dev")]
    #[arg(long, value_name = "HEX", value_parser = measurement, default_value = NO_MEASUREMENT)]
    measurement: Measurement,
    /// Let the software attester be a guest that the host may debug; a sound daemon refuses it.
    #[cfg(feature = "dev")]
    #[arg(long)]
    debug_guest: bool,
    /// Where the key is written, readable to you alone; - for standard output. Must not exist.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
    /// Where the receipt of the release is written. Must not exist.
    #[arg(long, value_name = "FILE")]
    receipt: PathBuf,
    /// File with the log key of the only appliance to believe.
    #[arg(long, value_name = "FILE")]
    log_key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    /// Software, for a daemon in dev mode; proves nothing.
    #[cfg(feature = "dev")]
    Software,
    /// The kernel of a confidential virtual machine (configfs-tsm).
    Tsm,
}

#[cfg(feature = "dev")]
#[derive(Clone, Debug)]
struct Measurement([u8; 48]);

#[cfg(feature = "dev")]
fn measurement(text: &str) -> Result<Measurement, String> {
    let mut bytes = [0; 48];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| "expected 96 hexadecimal digits".to_owned())?;
    Ok(Measurement(bytes))
}

/// Why the program ends without a key.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error("{0}: {1}")]
    LogKey(PathBuf, LogKeyError),
    #[error("standard output: {0}")]
    Output(io::Error),
    #[error("no runtime: {0}")]
    Runtime(io::Error),
}

fn main() -> ExitCode {
    let Arguments { command: Command::GetKey(arguments) } = Arguments::parse();
    match get_key(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(exit_code(&failure))
        }
    }
}

fn get_key(arguments: &GetKey) -> Result<(), Failure> {
    let config = Config::from_env().map_err(config_error)?;
    let pinned = arguments.log_key.as_deref().map(read_log_key).transpose()?;
    let attester = attester(arguments).map_err(AgentError::from)?;
    // The files are made first: a key that cannot be written must not be released.
    let mut receipt = NewFile::create(&arguments.receipt)?;
    let to_stdout = arguments.out.as_os_str() == "-";
    let out = if to_stdout { None } else { Some(NewFile::create(&arguments.out)?) };

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let released: ReleasedKey = runtime.block_on(async {
        let client = Client::connect(&config).await.map_err(AgentError::from)?;
        release::receive(&client, &arguments.key, &*attester, pinned.as_ref()).await
    })?;
    receipt.write(&released.receipt_bytes)?;
    match out {
        Some(mut out) => {
            out.write(&released.bytes)?;
            out.keep();
        }
        None => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&released.bytes).map_err(Failure::Output)?;
            stdout.flush().map_err(Failure::Output)?;
        }
    }
    receipt.keep();
    eprintln!("released {}, audit index {}", released.version, released.receipt.audit_index);
    Ok(())
}

#[cfg(feature = "dev")]
fn attester(arguments: &GetKey) -> Result<Box<dyn Attester>, AttesterError> {
    use kms_agent::attester::software::{Guest, Software};
    match (arguments.attester, &arguments.attester_state) {
        (Source::Software, Some(state)) => {
            let Measurement(measurement) = arguments.measurement;
            let guest = Guest { measurement, debug: arguments.debug_guest };
            Ok(Box::new(Software::open(state, guest)?))
        }
        // clap has made sure that the state file is named.
        (Source::Software, None) => Err(AttesterError::State(PathBuf::new())),
        (Source::Tsm, _) => Ok(Box::new(Tsm::new())),
    }
}

#[cfg(not(feature = "dev"))]
fn attester(arguments: &GetKey) -> Result<Box<dyn Attester>, AttesterError> {
    let Source::Tsm = arguments.attester;
    Ok(Box::new(Tsm::new()))
}

fn read_log_key(path: &Path) -> Result<LogKey, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::File(path.to_owned(), e))?;
    text.parse().map_err(|e| Failure::LogKey(path.to_owned(), e))
}

/// A file that did not exist before, readable to its owner alone, and removed again unless kept.
struct NewFile {
    path: PathBuf,
    file: File,
    keep: bool,
}

impl NewFile {
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| Failure::File(path.to_owned(), e))?;
        Ok(Self { path: path.to_owned(), file, keep: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_all());
        written.map_err(|e| Failure::File(self.path.clone(), e))
    }

    fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing better can be done about a file that does not go away.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn config_error(error: ConfigError) -> AgentError {
    AgentError::Client(error.into())
}

/// The same codes as kmsctl's.
fn exit_code(failure: &Failure) -> u8 {
    match failure {
        Failure::Agent(AgentError::Client(error)) => match error {
            ClientError::Config(_) => 2,
            ClientError::Unavailable(_) | ClientError::Deadline => 5,
            ClientError::Refused { code: kms_agent::client::Code::Unavailable, .. } => 5,
            error if error.needs_approval() => 4,
            ClientError::Refused { .. } => 3,
            _ => 1,
        },
        Failure::Agent(AgentError::Attester(_) | AgentError::ConnectionChanged) => 5,
        Failure::Agent(AgentError::LogKey | AgentError::Receipt(_)) => 3,
        Failure::Agent(AgentError::Open | AgentError::ReceiptDiffers(_)) => 3,
        Failure::File(..) | Failure::LogKey(..) => 2,
        Failure::Agent(_) | Failure::Output(_) | Failure::Runtime(_) => 1,
    }
}

#[cfg(feature = "dev")]
const NO_MEASUREMENT: &str = "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000";
const CONNECTION_HELP: &str = "\
The daemon is found by KMS_ADDR (unix:/path or https://host:port); https also needs KMS_CA_CERT,
KMS_CLIENT_CERT and KMS_CLIENT_KEY, the names of PEM files.

Exit codes: 0 done, 1 failure, 2 usage, 3 refused or not believed, 4 needs approval,
5 unavailable.";
const GET_KEY_HELP: &str = "\
Examples:
  kms-agent get-key --key dev/model --attester tsm --out model.key --receipt model.receipt
  kms-agent get-key --key dev/model --attester tsm --out - --receipt r.json | decrypt-model

The receipt is checked before the key is written. Anybody who has the log key can check it again:
  kmsctl release verify model.receipt --log-key log.key";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_file_is_private_never_overwritten_and_gone_unless_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let mut file = NewFile::create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        file.write(b"key").unwrap();
        assert!(NewFile::create(&path).is_err());
        drop(file);
        assert!(!path.exists());
        NewFile::create(&path).unwrap().keep();
        assert!(path.exists());
    }
}
