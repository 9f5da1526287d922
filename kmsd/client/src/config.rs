//! Where the daemon is and how to prove oneself to it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tonic::transport::Uri;

/// How to reach the daemon.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Certificates for mutual TLS; needed for [`Endpoint::Tcp`], not used on a Unix socket.
    pub tls: Option<TlsFiles>,
    /// The longest that one call may take, and one attempt to connect.
    pub timeout: Duration,
}

/// Where the daemon listens: `unix:/path` or `https://host:port`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// TCP with mutual TLS 1.3.
    Tcp {
        /// DNS name or address, as in the server's certificate.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A Unix socket; the kernel tells the daemon who calls.
    Unix(PathBuf),
}

/// The PEM files of mutual TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsFiles {
    /// Certificates that the server's certificate must chain to.
    pub ca: PathBuf,
    /// The client's own certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why the configuration cannot be used. The user's mistake; the message says what to change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The address has another form.
    #[error("the address {0:?} is not one; expected unix:/path/to/kmsd.sock or https://host:port")]
    Address(String),
    /// A blocking session was opened on a thread that drives a tokio runtime.
    #[error("a blocking session cannot be opened inside a tokio runtime; use kms_client::Client")]
    InsideRuntime,
    /// A setting is missing.
    #[error("{variable} is not set; {next_step}")]
    Missing {
        /// The environment variable that would hold it.
        variable: &'static str,
        /// What to set it to.
        next_step: &'static str,
    },
    /// A PEM file cannot be read, or holds nothing of use.
    #[error("{variable}: {path} holds no usable {expected}: {cause}")]
    Pem {
        /// The environment variable that names the file.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// Why it cannot be used.
        cause: rustls::pki_types::pem::Error,
    },
    /// The certificate and key do not work together.
    #[error("the TLS certificate and key cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

impl Config {
    /// A configuration for `endpoint` with the default timeout.
    pub const fn new(endpoint: Endpoint, tls: Option<TlsFiles>) -> Self {
        Self { endpoint, tls, timeout: TIMEOUT_DEFAULT }
    }

    /// Reads `KMS_ADDR`, and for `https://` also `KMS_CA_CERT`, `KMS_CLIENT_CERT` and
    /// `KMS_CLIENT_KEY`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the variable that is missing or wrong.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_settings(|variable| std::env::var(variable).ok())
    }

    /// Reads the same settings from `setting`, which is asked by the name of each variable. An
    /// empty text counts as not set.
    ///
    /// # Errors
    /// [`ConfigError`] naming the variable that is missing or wrong.
    pub fn from_settings(setting: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let required = |variable: &'static str, next_step: &'static str| {
            setting(variable)
                .filter(|value| !value.is_empty())
                .ok_or(ConfigError::Missing { variable, next_step })
        };
        let endpoint = required(
            ADDRESS,
            "set it to the daemon's address, for example unix:/run/kmsd/kmsd.sock or https://kms.example:8443",
        )?
        .parse()?;
        let tls = match endpoint {
            Endpoint::Unix(_) => None,
            Endpoint::Tcp { .. } => Some(TlsFiles {
                ca: required(CA, "set it to the PEM file of the daemon's CA certificate")?.into(),
                certificate: required(
                    CERTIFICATE,
                    "set it to the PEM file of your client certificate",
                )?
                .into(),
                key: required(KEY, "set it to the PEM file of your client certificate's key")?
                    .into(),
            }),
        };
        Ok(Self::new(endpoint, tls))
    }

    /// The TLS settings: TLS 1.3 only, hybrid key exchange first.
    pub(crate) fn tls_client(&self) -> Result<TlsClient, ConfigError> {
        let files = self.tls.as_ref().ok_or(ConfigError::Missing {
            variable: CA,
            next_step: "an https:// address needs KMS_CA_CERT, KMS_CLIENT_CERT and KMS_CLIENT_KEY",
        })?;
        let mut roots = RootCertStore::empty();
        for root in certificates(CA, &files.ca)? {
            roots.add(root)?;
        }
        let chain = certificates(CERTIFICATE, &files.certificate)?;
        let certificate_digest = Sha256::digest(&chain[0]).to_vec();
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(pem_error(
            KEY,
            &files.key,
            "private key",
        ))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Every connection proves the certificates anew.
        config.resumption = Resumption::disabled();
        Ok(TlsClient { config: Arc::new(config), certificate_digest })
    }
}

/// What a TLS handshake needs.
#[derive(Clone)]
pub(crate) struct TlsClient {
    pub(crate) config: Arc<rustls::ClientConfig>,
    /// SHA-256 of the certificate that it shows.
    pub(crate) certificate_digest: Vec<u8>,
}

/// The certificates in the file, at least one.
fn certificates(
    variable: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let error = pem_error(variable, path, "certificate");
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(&error)?;
    if found.is_empty() {
        return Err(error(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn pem_error(
    variable: &'static str,
    path: &Path,
    expected: &'static str,
) -> impl Fn(rustls::pki_types::pem::Error) -> ConfigError {
    move |cause| ConfigError::Pem { variable, path: path.to_owned(), expected, cause }
}

impl FromStr for Endpoint {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(wrong()) };
        }
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let (host, port) = uri.host().zip(uri.port_u16()).ok_or_else(wrong)?;
        // Compared whole, so that user names, paths and queries are refused, not ignored.
        let exact = [format!("https://{host}:{port}"), format!("https://{host}:{port}/")];
        if !exact.contains(&text.to_owned()) {
            return Err(wrong());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self::Tcp { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "https://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

const ADDRESS: &str = "KMS_ADDR";
const CA: &str = "KMS_CA_CERT";
const CERTIFICATE: &str = "KMS_CLIENT_CERT";
const KEY: &str = "KMS_CLIENT_KEY";
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for text in ["unix:/run/kmsd.sock", "https://kms.example:8443", "https://[::1]:8443"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        let Endpoint::Tcp { host, port } = "https://[::1]:8443/".parse().unwrap() else {
            panic!("an https address is a TCP endpoint");
        };
        assert_eq!((host.as_str(), port), ("::1", 8443));
    }

    #[test]
    fn other_addresses_are_refused() {
        for bad in [
            "",
            "unix:",
            "unix:relative",
            "http://kms.example:8443",
            "https://kms.example",
            "https://kms.example:8443/path",
            "https://kms.example:8443/?query",
            "https://user@kms.example:8443",
            "https://kms.example:99999",
            "kms.example:8443",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_setting_is_named_with_the_next_step() {
        let error = Config::from_settings(|_| None).unwrap_err().to_string();
        assert!(error.starts_with("KMS_ADDR is not set; set it to"), "{error}");
        let only_address = |name: &str| match name {
            "KMS_ADDR" => Some("https://kms.example:8443".to_owned()),
            "KMS_CA_CERT" => Some("/ca.pem".to_owned()),
            _ => Some(String::new()),
        };
        let error = Config::from_settings(only_address).unwrap_err().to_string();
        assert!(error.starts_with("KMS_CLIENT_CERT is not set"), "{error}");
    }

    #[test]
    fn a_unix_socket_needs_no_certificates() {
        let unix = |name: &str| (name == "KMS_ADDR").then(|| "unix:/run/kmsd.sock".to_owned());
        let config = Config::from_settings(unix).unwrap();
        assert_eq!(config.tls, None);
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let tls = TlsFiles { ca: empty.clone(), certificate: empty.clone(), key: empty };
        let endpoint = Endpoint::Tcp { host: "kms.example".into(), port: 1 };
        let error = Config::new(endpoint, Some(tls)).tls_client().err().unwrap().to_string();
        assert!(error.starts_with("KMS_CA_CERT: "), "{error}");
    }
}
