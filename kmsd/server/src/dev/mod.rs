//! `kmsd dev`: development keys and identities in one folder, and a tour of what the daemon does.
//!
//! Nothing in here protects anything: the root key lies in a file beside the store, the trust root
//! of the software attester is believed because it lies there too. Compiled only with the feature
//! `dev`, which release artefacts leave out.

mod folder;
mod people;
mod tls;
mod tour;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use kms_attest::collateral::Collateral;
use kms_attest::snp::software::SoftwareAttester;
use kms_core::id::Home;
use kms_crypto::unlock::Argon2Cost;

use self::folder::Folder;
pub(crate) use self::tour::{TourArgs, run as tour};
use crate::cli::{IntegrityArgs, home, start_log, stop_signal};
use crate::clock::Clock;
use crate::config::{
    Attestation, Backend, Config, Crypto, Lifecycle, Listen, Log, LogFormat, Seal, TlsFiles,
};
use crate::root::Protection;
use crate::server::{Basis, Daemon, Opening, ServeError};
use crate::setup;

/// Arguments of `kmsd dev`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder for the store, the development identities and the file `env`.
    #[arg(long, env = "KMSD_DEV_STATE", default_value = "./kmsd-dev")]
    state: PathBuf,
    /// TCP port for mutual TLS; by default 7443 or the next free one.
    #[arg(long)]
    port: Option<u16>,
    /// Port of the OpenMetrics endpoint on loopback; none by default.
    #[arg(long)]
    metrics_port: Option<u16>,
    /// File with milliseconds by which the clock is ahead; it may change at any time.
    #[arg(long)]
    clock_offset_file: Option<PathBuf>,
    /// How long a version that is to be destroyed can be restored.
    #[arg(long, default_value_t = crate::config::Lifecycle::default().destroy_delay_seconds)]
    destroy_delay_seconds: u32,
    /// KiB of memory that hashing a PIN takes, in one pass; less than otherwise makes it cheap to guess.
    #[arg(long)]
    pin_memory_kib: Option<u32>,
    /// Give approved services (FIPS 140-3) and no other ones.
    #[arg(long)]
    approved_only: bool,
    #[command(flatten)]
    integrity: IntegrityArgs,
    /// Do not run the tour on the first start.
    #[arg(long)]
    no_tour: bool,
    /// Log level, for example `info` or `kmsd=debug`.
    #[arg(long, default_value = "warn")]
    log: String,
}

/// Makes the folder if need be, serves, and on the first start tours.
///
/// # Errors
/// [`ServeError`] naming what is wrong.
pub(crate) async fn run(args: Args) -> Result<(), ServeError> {
    let Args {
        state,
        port,
        metrics_port,
        clock_offset_file,
        destroy_delay_seconds,
        pin_memory_kib,
        approved_only,
        integrity,
        no_tour,
        log,
    } = args;
    start_log(&log, LogFormat::Text)?;
    let folder = Folder::create(&state)?;
    let home = home("default", "local")?;
    let (root_text, attester) = make_identities(&folder, &home).await?;
    let collateral = development_collateral(&attester)?;
    let opening = Opening::DevRoot(root_text);
    let pin_cost = match pin_memory_kib {
        Some(kib) => Argon2Cost::new(kib, 1, 1)
            .map_err(|error| ServeError::Failed(format!("--pin-memory-kib: {error}")))?,
        None => Argon2Cost::PEOPLE,
    };
    let daemon = Daemon::open(Basis {
        state: folder.path().to_owned(),
        backend: Backend::default(),
        home,
        collateral,
        lifecycle: Lifecycle { destroy_delay_seconds, ..Lifecycle::default() },
        crypto: Crypto { approved_only },
        integrity: integrity.integrity(),
        clock: clock_offset_file.map_or(Clock::Machine, Clock::Moved),
        pin_cost,
        opening,
    })
    .await?;
    if !folder.is_set_up() {
        people::enrol(&daemon.cx, &folder).await?;
        folder.set_up()?;
    }
    let port = match port {
        Some(port) => port,
        None => free_port()?,
    };
    folder.write_environment(port)?;
    let config = config(&folder, port, metrics_port);
    let touring = !no_tour && !folder.has_toured();
    eprintln!("kmsd: DEVELOPMENT MODE: the root key lies in {}", folder.root_key().display());
    let served = folder.clone();
    daemon
        .serve(&config, stop_signal()?, move || {
            println!("ready");
            tokio::spawn(after_ready(served, port, touring));
        })
        .await
}

async fn after_ready(folder: Folder, port: u16, touring: bool) {
    if touring {
        tour::spawn(&folder).await;
    }
    let state = folder.path().display();
    let kmsctl = beside("kmsctl");
    let kmsctl = kmsctl.display();
    println!(
        "\nserving on unix:{state}/kmsd.sock and https://localhost:{port}; Ctrl-C ends it\n\
         try next, in another terminal:\n  \
         . {state}/env\n  \
         {kmsctl} key create dev/k1 --algorithm EC_P256\n  \
         {kmsctl} key list dev\n  \
         {kmsctl} audit tail\n  \
         pkcs11-tool --module $KMS_PKCS11_MODULE --token-label $KMS_TOKEN_LABEL --login --pin env:KMS_USER_PIN -O"
    );
}

/// Makes what is missing: root key, store, certificates, approvers' keys, software attester.
async fn make_identities(
    folder: &Folder,
    home: &Home,
) -> Result<(secrecy::SecretString, SoftwareAttester), ServeError> {
    let root_text = folder.root_text()?;
    // Looking whether there is a store takes as long as opening one.
    if !folder.is_set_up() {
        let protection = Protection::Dev(root_text.clone());
        match setup::create_store(folder.path(), Backend::default(), home, protection).await {
            Ok(()) | Err(ServeError::AlreadyInitialised(_)) => {}
            Err(error) => return Err(error),
        }
    }
    tls::create(folder)?;
    people::create_keys(folder)?;
    let attester = tokio::task::block_in_place(|| folder.attester())?;
    Ok((root_text, attester))
}

fn development_collateral(attester: &SoftwareAttester) -> Result<Collateral, ServeError> {
    let collateral = Collateral::default().with_development_root("development", attester.root());
    collateral.map_err(|error| ServeError::Failed(error.to_string()))
}

fn config(folder: &Folder, port: u16, metrics_port: Option<u16>) -> Config {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Config {
        state: folder.path().to_owned(),
        store: Backend::default(),
        tenant: "default".to_owned(),
        location: "local".to_owned(),
        listen: Listen {
            unix: Some(folder.socket()),
            tcp: Some(loopback(port)),
            metrics: metrics_port.map(loopback),
        },
        tls: Some(TlsFiles {
            certificate: folder.tls("server.crt"),
            key: folder.tls("server.key"),
            client_ca: folder.tls("ca.crt"),
        }),
        seal: Seal::default(),
        attestation: Attestation::default(),
        crypto: Crypto::default(),
        integrity: None,
        lifecycle: Lifecycle::default(),
        log: Log::default(),
    }
}

/// 7443, or the next port that nobody listens on.
fn free_port() -> Result<u16, ServeError> {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let tried = FIRST_PORT..FIRST_PORT + PORTS_TRIED;
    tried.clone().find(free).ok_or_else(|| {
        ServeError::Failed(format!(
            "ports {} to {} are all in use; name one with --port",
            tried.start,
            tried.end - 1
        ))
    })
}

/// The library beside this program.
fn pkcs11_module() -> PathBuf {
    beside("libkms_pkcs11.so")
}

/// A file of the same build as this program.
fn beside(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().unwrap_or_else(|| Path::new(".")).join(name)
}

const FIRST_PORT: u16 = 7443;
const PORTS_TRIED: u16 = 100;
