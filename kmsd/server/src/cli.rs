//! The command line of the daemon.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kms_core::id::{Home, Segment};
use kms_crypto::unlock::Argon2Cost;
use kms_proto::v1;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::clock::Clock;
use crate::config::{Backend, Config, ConfigError, Integrity, LogFormat};
use crate::integrity::{self, ManifestCommand};
use crate::root::Protection;
use crate::server::{Basis, Daemon, Opening, ServeError, read_collateral};
use crate::setup;
use crate::store_tool::{self, StoreCommand};

/// The key-management daemon: keys are used only with a permit, every permit is on record before
/// it is spent, and key bytes leave only sealed to a workload that proves itself.
#[derive(Debug, Parser)]
#[command(name = "kmsd", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: a daemon with development keys and identities in a folder, and a short tour.
    #[cfg(feature = "dev")]
    Dev(crate::dev::Args),
    /// The tour of a running `kmsd dev`; see there.
    #[cfg(feature = "dev")]
    #[command(hide = true)]
    Tour(crate::dev::TourArgs),
    /// Make a key store, protected by a passphrase, with its first security officer.
    #[command(after_help = INIT_HELP)]
    Init(InitArgs),
    /// Make or check the signed manifest of the programs.
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Serve a key store.
    #[command(after_help = SERVE_HELP)]
    Serve(ServeArgs),
    /// Look after the store of a daemon that does not run.
    #[command(subcommand)]
    Store(StoreCommand),
}

#[derive(Debug, clap::Args)]
struct InitArgs {
    /// Folder of the new store.
    #[arg(long, env = "KMSD_STATE")]
    state: PathBuf,
    /// What keeps the store; `store` in the configuration must say the same.
    #[arg(long, env = "KMSD_STORE", value_enum, default_value_t)]
    store: Backend,
    /// Location that the daemon will serve; part of every name, sealed into every key.
    #[arg(long, env = "KMSD_LOCATION", default_value = "local")]
    location: String,
    /// File with the passphrase that protects the root key (the first line counts).
    #[arg(long, env = "KMSD_PASSPHRASE_FILE")]
    passphrase_file: PathBuf,
    /// Name of the first security officer.
    #[arg(long, default_value = "officer")]
    officer: Segment,
    /// Local user who is that officer over the Unix socket.
    #[arg(long)]
    officer_uid: Option<u32>,
    /// SSH public key with which that officer signs approvals.
    #[arg(long)]
    officer_ssh_key_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long, env = "KMSD_CONFIG")]
    config: PathBuf,
    /// Folder of the store, in place of the file's.
    #[arg(long, env = "KMSD_STATE")]
    state: Option<PathBuf>,
    /// Unix socket, in place of the file's.
    #[arg(long, env = "KMSD_UNIX")]
    unix: Option<PathBuf>,
    /// TCP address, in place of the file's.
    #[arg(long, env = "KMSD_TCP")]
    tcp: Option<std::net::SocketAddr>,
    /// Log level, in place of the file's.
    #[arg(long, env = "KMSD_LOG")]
    log: Option<String>,
    /// Give approved services (FIPS 140-3) and no other ones, whatever the file says.
    #[arg(long, env = "KMSD_APPROVED_ONLY")]
    approved_only: bool,
    #[command(flatten)]
    integrity: IntegrityArgs,
}

/// The programs that must be what was signed.
#[derive(Debug, clap::Args)]
pub(crate) struct IntegrityArgs {
    /// Signed manifest of the programs, in place of the file's; both go together.
    #[arg(long, env = "KMSD_MANIFEST", requires = "manifest_key")]
    manifest: Option<PathBuf>,
    /// The key that the manifest is signed with, as `kmsd manifest create` has printed it.
    #[arg(long, env = "KMSD_MANIFEST_KEY", requires = "manifest")]
    manifest_key: Option<String>,
}

impl IntegrityArgs {
    /// What they say, if they say anything.
    pub(crate) fn integrity(self) -> Option<Integrity> {
        let Self { manifest, manifest_key } = self;
        manifest.zip(manifest_key).map(|(manifest, public_key)| Integrity { manifest, public_key })
    }
}

/// Runs the command line; 0 on a clean end, 1 when something failed, 2 on wrong usage.
#[must_use]
pub fn run() -> ExitCode {
    let Cli { command } = Cli::parse();
    if let Err(error) = leave_no_image() {
        eprintln!("kmsd: cannot switch core files off: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(command)),
        Err(error) => Err(ServeError::Failed(format!("cannot start the runtime: {error}"))),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kmsd: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Keeps the kernel from writing this process into a file when it fails, and other processes of the same
/// user from reading its memory: the locked arena is in no core file, but the library's copies of opened
/// keys would be.
fn leave_no_image() -> rustix::io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)?;
    // A handler that the kernel pipes core files to does not ask for the limit.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

async fn dispatch(command: Command) -> Result<(), ServeError> {
    match command {
        #[cfg(feature = "dev")]
        Command::Dev(args) => crate::dev::run(args).await,
        #[cfg(feature = "dev")]
        Command::Tour(args) => crate::dev::tour(args).await,
        Command::Init(args) => init(args).await,
        Command::Manifest(command) => tokio::task::block_in_place(|| integrity::run(command)),
        Command::Serve(args) => serve(args).await,
        Command::Store(command) => tokio::task::block_in_place(|| store_tool::run(command)),
    }
}

async fn init(args: InitArgs) -> Result<(), ServeError> {
    let InitArgs {
        state,
        store,
        location,
        passphrase_file,
        officer,
        officer_uid,
        officer_ssh_key_file,
    } = args;
    let unix_uids = vec![officer_uid.unwrap_or_else(|| rustix::process::getuid().as_raw())];
    let ssh_keys = match officer_ssh_key_file {
        Some(path) => vec![read_text(&path)?.trim().to_owned()],
        None => Vec::new(),
    };
    let home = home("default", &location)?;
    let passphrase = read_passphrase(&passphrase_file)?;
    setup::create_store(&state, store, &home, Protection::Passphrase(passphrase.clone())).await?;
    let opening = Opening::Passphrase(passphrase);
    let daemon = Daemon::open(Basis {
        state: state.clone(),
        backend: store,
        home,
        collateral: Default::default(),
        lifecycle: Default::default(),
        crypto: Default::default(),
        integrity: None,
        clock: Clock::Machine,
        pin_cost: Argon2Cost::PEOPLE,
        opening,
    })
    .await?;
    let grant = v1::Grant { role: "security-officer".to_owned(), ..v1::Grant::default() };
    let user = v1::User {
        name: format!("users/{officer}"),
        ssh_keys,
        unix_uids,
        grants: vec![grant],
        ..v1::User::default()
    };
    setup::enrol(&daemon.cx, user).await?;
    crate::ops::bind_rows_at_the_end(&daemon.cx).await;
    daemon.cx.store.close().await?;
    println!("made a key store in {}; users/{officer} is its security officer", state.display());
    println!("next: kmsd serve --config FILE (an example stands in the README)");
    Ok(())
}

async fn serve(args: ServeArgs) -> Result<(), ServeError> {
    let ServeArgs { config, state, unix, tcp, log, approved_only, integrity } = args;
    let mut config = Config::read(&config)?;
    config.state = state.unwrap_or(config.state);
    config.listen.unix = unix.or(config.listen.unix);
    config.listen.tcp = tcp.or(config.listen.tcp);
    config.log.level = log.unwrap_or(config.log.level);
    config.crypto.approved_only |= approved_only;
    config.integrity = integrity.integrity().or(config.integrity);
    let config = config.checked()?;
    start_log(&config.log.level, config.log.format)?;
    let collateral = match &config.attestation.collateral {
        Some(folder) => read_collateral(folder)?,
        None => Default::default(),
    };
    let opening = match &config.seal.passphrase_file {
        Some(path) => Opening::Passphrase(read_passphrase(path)?),
        None => Opening::Sealed,
    };
    let home = home(&config.tenant, &config.location)?;
    let daemon = Daemon::open(Basis {
        state: config.state.clone(),
        backend: config.store,
        home,
        collateral,
        lifecycle: config.lifecycle,
        crypto: config.crypto,
        integrity: config.integrity.clone(),
        clock: Clock::Machine,
        pin_cost: Argon2Cost::PEOPLE,
        opening,
    })
    .await?;
    daemon.serve(&config, stop_signal()?, || println!("ready")).await
}

/// Ends on SIGINT or SIGTERM.
///
/// # Errors
/// When the signals cannot be taken.
pub(crate) fn stop_signal() -> Result<impl Future<Output = ()> + Send, ServeError> {
    let taken = |kind| signal(kind).map_err(|error| ServeError::Failed(error.to_string()));
    let (mut interrupt, mut terminate) =
        (taken(SignalKind::interrupt())?, taken(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Structured logs on standard error.
///
/// # Errors
/// When the level is none.
pub(crate) fn start_log(level: &str, format: LogFormat) -> Result<(), ServeError> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| ConfigError::Value(format!("log.level {level:?}: {error}")))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => lines.json().try_init(),
        LogFormat::Text => lines.with_ansi(false).try_init(),
    };
    started.map_err(|error| ServeError::Failed(error.to_string()))
}

/// Reads tenant and location.
///
/// # Errors
/// When one is not a name segment.
pub(crate) fn home(tenant: &str, region: &str) -> Result<Home, ServeError> {
    let segment = |what: &str, text: &str| {
        let parsed: Result<Segment, _> = text.parse();
        parsed.map_err(|error| ConfigError::Value(format!("{what} {text:?}: {error}")))
    };
    Ok(Home { tenant: segment("tenant", tenant)?, region: segment("location", region)? })
}

/// Reads a text file.
///
/// # Errors
/// [`ServeError::File`].
pub(crate) fn read_text(path: &Path) -> Result<String, ServeError> {
    let read = std::fs::read_to_string(path);
    read.map_err(|source| ServeError::File { path: path.to_owned(), source })
}

fn read_passphrase(path: &Path) -> Result<SecretString, ServeError> {
    let text = zeroize::Zeroizing::new(read_text(path)?);
    let line = text.lines().next().unwrap_or_default();
    if line.len() < PASSPHRASE_BYTES_MIN {
        let problem = format!("a passphrase has at least {PASSPHRASE_BYTES_MIN} bytes");
        return Err(ConfigError::Value(problem).into());
    }
    Ok(SecretString::from(line))
}

/// Stack of each thread. Known algorithms of signatures need a tenth of it, and the room that is wiped after them
/// another; what is not touched is never mapped.
const STACK_BYTES: usize = 4 * 1024 * 1024;
const PASSPHRASE_BYTES_MIN: usize = 12;
const INIT_HELP: &str = "\
The first security officer makes rings and enrols everybody else. Over the Unix socket the kernel
says who that is; without --officer-uid it is you.

Examples:
  openssl rand -base64 30 > pass.txt
  kmsd init --state /var/lib/kmsd --passphrase-file pass.txt
  kmsd init --state /var/lib/kmsd --passphrase-file pass.txt --location berlin \\
    --officer alice --officer-uid 1000 --officer-ssh-key-file alice.pub";
const SERVE_HELP: &str = "\
The least that a configuration holds; the README has a whole one:
  state = \"/var/lib/kmsd\"
  location = \"local\"
  [listen]
  unix = \"/run/kmsd/kmsd.sock\"

Without passphrase_file under [seal] the daemon starts sealed and waits for kmsctl seal unseal.

Example:
  kmsd serve --config /etc/kmsd.toml";
const EXAMPLES: &str = "\
Examples:
  kmsd dev                                     try it, in ./kmsd-dev
  kmsd init --state /var/lib/kmsd --passphrase-file pass.txt
  kmsd serve --config /etc/kmsd.toml";
