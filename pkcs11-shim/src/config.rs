//! Where the module finds the daemon.
//!
//! `KMS_ADDR` (with `KMS_CA_CERT`, `KMS_CLIENT_CERT` and `KMS_CLIENT_KEY` for `https://`) if it is
//! set, otherwise the first of these files that there is: the one that `KMS_PKCS11_CONF` names,
//! `~/.config/kms/pkcs11.toml`, `/etc/kms/pkcs11.toml`:
//!
//! ```toml
//! address = "https://kms.example:8443"
//! ca_cert = "/etc/kms/ca.pem"
//! client_cert = "/etc/kms/client.pem"
//! client_key = "/etc/kms/client.key"
//! timeout_ms = 10000
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kms_client::{Config, ConfigError};
use serde::Deserialize;

/// Why there is no configuration. The user's mistake; the text says which file or variable.
#[derive(Debug)]
pub(crate) enum Unconfigured {
    /// A setting has another form than expected.
    Bad(ConfigError),
    /// A file cannot be read or has another form than expected.
    File(PathBuf, String),
    /// There is neither `KMS_ADDR` nor a file.
    Nothing,
}

/// Reads the configuration of this process.
pub(crate) fn load() -> Result<Config, Unconfigured> {
    from_sources(|variable| std::env::var(variable).ok().filter(|value| !value.is_empty()))
}

fn from_sources(variable: impl Fn(&str) -> Option<String>) -> Result<Config, Unconfigured> {
    if variable("KMS_ADDR").is_some() {
        return Config::from_settings(variable).map_err(Unconfigured::Bad);
    }
    // A file that is named must be there; the usual places may be empty.
    if let Some(named) = variable("KMS_PKCS11_CONF") {
        return from_file(Path::new(&named));
    }
    let home = variable("HOME").map(|home| Path::new(&home).join(".config/kms/pkcs11.toml"));
    let usual = home.into_iter().chain([PathBuf::from("/etc/kms/pkcs11.toml")]);
    let found = usual.into_iter().find(|path| path.exists());
    from_file(&found.ok_or(Unconfigured::Nothing)?)
}

fn from_file(path: &Path) -> Result<Config, Unconfigured> {
    let problem = |problem: String| Unconfigured::File(path.to_owned(), problem);
    let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
    let settings = toml::from_str(&text).map_err(|error| problem(error.to_string()))?;
    let File { address, ca_cert, client_cert, client_key, timeout_ms } = settings;
    let mut config = Config::from_settings(|variable| match variable {
        "KMS_ADDR" => Some(address.clone()),
        "KMS_CA_CERT" => ca_cert.clone(),
        "KMS_CLIENT_CERT" => client_cert.clone(),
        "KMS_CLIENT_KEY" => client_key.clone(),
        _ => None,
    })
    .map_err(|error| problem(error.to_string()))?;
    if let Some(milliseconds) = timeout_ms {
        if !(1..=TIMEOUT_MILLISECONDS_MAX).contains(&milliseconds) {
            return Err(problem(format!("timeout_ms is 1 to {TIMEOUT_MILLISECONDS_MAX}")));
        }
        config.timeout = Duration::from_millis(milliseconds);
    }
    Ok(config)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    address: String,
    ca_cert: Option<String>,
    client_cert: Option<String>,
    client_key: Option<String>,
    timeout_ms: Option<u64>,
}

impl fmt::Display for Unconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(error) => write!(f, "{error}"),
            Self::File(path, problem) => write!(f, "{}: {}", path.display(), problem.trim_end()),
            Self::Nothing => f.write_str(
                "set KMS_ADDR to the daemon's address, or write ~/.config/kms/pkcs11.toml or /etc/kms/pkcs11.toml",
            ),
        }
    }
}

const TIMEOUT_MILLISECONDS_MAX: u64 = 600_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> Result<Config, Unconfigured> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pkcs11.toml");
        std::fs::write(&path, text).unwrap();
        let named = path.to_str().unwrap().to_owned();
        from_sources(|variable| (variable == "KMS_PKCS11_CONF").then(|| named.clone()))
    }

    #[test]
    fn a_file_says_where_the_daemon_is() {
        let config = with_file("address = \"unix:/run/kmsd.sock\"\ntimeout_ms = 250").unwrap();
        assert_eq!(config.endpoint.to_string(), "unix:/run/kmsd.sock");
        assert_eq!(config.timeout, Duration::from_millis(250));
    }

    #[test]
    fn the_variable_goes_before_the_file() {
        let config = from_sources(|variable| match variable {
            "KMS_ADDR" => Some("unix:/a".to_owned()),
            "KMS_PKCS11_CONF" => Some("/nowhere".to_owned()),
            _ => None,
        });
        assert_eq!(config.unwrap().endpoint.to_string(), "unix:/a");
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        for (text, expected) in [
            ("address = \"unix:/a\"\nadress = 1", "unknown field"),
            ("timeout_ms = 1", "missing field"),
            ("address = \"ftp://a\"", "expected unix:"),
            ("address = \"https://a:1\"", "KMS_CA_CERT"),
            ("address = \"unix:/a\"\ntimeout_ms = 0", "timeout_ms"),
        ] {
            let error = with_file(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let missing = from_sources(|v| (v == "KMS_PKCS11_CONF").then(|| "/nowhere".to_owned()));
        assert!(missing.unwrap_err().to_string().starts_with("/nowhere: "));
    }
}
