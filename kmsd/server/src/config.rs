//! What the daemon is told: one TOML file, overridden by the environment, overridden by flags.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The configuration file. Unknown keys are refused, with line and column.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of the store.
    pub state: PathBuf,
    /// Which backend keeps the store.
    #[serde(default)]
    pub store: Backend,
    /// The tenant that this daemon serves.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// The location that this daemon serves; part of every name, sealed into every key.
    pub location: String,
    /// Sockets.
    #[serde(default)]
    pub listen: Listen,
    /// Certificates, when `listen.tcp` is set.
    pub tls: Option<TlsFiles>,
    /// Opening at start.
    #[serde(default)]
    pub seal: Seal,
    /// Attestation.
    #[serde(default)]
    pub attestation: Attestation,
    /// Cryptography.
    #[serde(default)]
    pub crypto: Crypto,
    /// What the programs must be.
    pub integrity: Option<Integrity>,
    /// Life of key versions.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Logs.
    #[serde(default)]
    pub log: Log,
}

/// Which cryptography is done.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crypto {
    /// Give approved services (FIPS 140-3) and no other ones.
    #[serde(default)]
    pub approved_only: bool,
}

/// What the programs must be, else nothing is served.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Integrity {
    /// The signed manifest (`kmsd manifest create`).
    pub manifest: PathBuf,
    /// The signed-note verifier key that it is signed with: NAME+KEYID+BASE64.
    pub public_key: String,
}

/// How long steps of a version's life can be taken back.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifecycle {
    /// From the order to destroy a version to its destruction; at least a day.
    #[serde(default = "default_destroy_delay_seconds")]
    pub destroy_delay_seconds: u32,
    /// For how long the other steps can be undone; 0 for not at all.
    #[serde(default = "default_undo_window_seconds")]
    pub undo_window_seconds: u32,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            destroy_delay_seconds: default_destroy_delay_seconds(),
            undo_window_seconds: default_undo_window_seconds(),
        }
    }
}

/// What keeps the store. A store is opened by the backend that made it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// A redb database, without a journal.
    #[cfg(feature = "redb")]
    Redb,
    /// A journal, with sled as its index.
    #[default]
    Sled,
}

/// Sockets of the daemon.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Unix socket; its peers are known by their uid.
    pub unix: Option<PathBuf>,
    /// TCP with mutual TLS 1.3.
    pub tcp: Option<SocketAddr>,
    /// OpenMetrics over plain HTTP; loopback only.
    pub metrics: Option<SocketAddr>,
}

/// PEM files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain of the server.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authority of enrolled clients.
    pub client_ca: PathBuf,
}

/// Opening the root at start.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// File with the passphrase; without it the daemon starts sealed and waits for
    /// `kmsctl seal unseal`.
    pub passphrase_file: Option<PathBuf>,
}

/// What evidence is verified with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// Folder of vendor certificates and revocation lists (PEM or DER).
    pub collateral: Option<PathBuf>,
}

/// Logs on standard error.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// For example `info` or `kmsd=debug,warn`.
    #[serde(default = "default_level")]
    pub level: String,
    /// `text` or `json`.
    #[serde(default)]
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: default_level(), format: LogFormat::default() }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// Why there is no configuration. The operator's mistake.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not the configuration of a daemon; the message names line and column.
    #[error("{path}: {source}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be.
    #[error("{0}")]
    Value(String),
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`] naming the file, line and column.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let parsed = toml::from_str(&text).map_err(Box::new);
        parsed.map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })
    }

    /// Holds together what belongs together.
    ///
    /// # Errors
    /// [`ConfigError::Value`] saying what is missing.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let Listen { unix, tcp, metrics } = &self.listen;
        if unix.is_none() && tcp.is_none() {
            let problem = "nothing to listen on: set listen.unix, listen.tcp or both";
            return Err(ConfigError::Value(problem.to_owned()));
        }
        if tcp.is_some() && self.tls.is_none() {
            let problem = "listen.tcp needs [tls] with certificate, key and client_ca";
            return Err(ConfigError::Value(problem.to_owned()));
        }
        if metrics.is_some_and(|address| !address.ip().is_loopback()) {
            let problem = "listen.metrics must be a loopback address";
            return Err(ConfigError::Value(problem.to_owned()));
        }
        if self.lifecycle.destroy_delay_seconds < DAY_SECONDS {
            let problem = "lifecycle.destroy_delay_seconds must be at least 86400, a day";
            return Err(ConfigError::Value(problem.to_owned()));
        }
        Ok(self)
    }
}

const fn default_destroy_delay_seconds() -> u32 {
    7 * DAY_SECONDS
}

const fn default_undo_window_seconds() -> u32 {
    DAY_SECONDS
}

fn default_level() -> String {
    "info".to_owned()
}

fn default_tenant() -> String {
    "default".to_owned()
}

const DAY_SECONDS: u32 = 24 * 60 * 60;
