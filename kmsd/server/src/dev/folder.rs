//! The folder of `kmsd dev`: where each development secret lies. All files are for their owner only.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kms_attest::snp::software::SoftwareAttester;
use kms_core::id::Timestamp;
use kms_crypto::unlock::DevFile;
use secrecy::{ExposeSecret as _, SecretString};

use super::pkcs11_module;
use crate::cli::read_text;
use crate::server::ServeError;

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, or takes up one that is there.
    pub(super) fn create(path: &Path) -> Result<Self, ServeError> {
        for folder in [path.to_owned(), path.join("tls"), path.join("approvers")] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|source| ServeError::File { path: folder, source })?;
        }
        let absolute = fs::canonicalize(path);
        absolute.map(Self).map_err(|source| ServeError::File { path: path.to_owned(), source })
    }

    /// The folder's absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The Unix socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.0.join("kmsd.sock")
    }

    /// The file with the root key.
    pub(super) fn root_key(&self) -> PathBuf {
        self.0.join("root.key")
    }

    /// The state of the software attester.
    pub(super) fn attester_state(&self) -> PathBuf {
        self.0.join("attester.json")
    }

    /// A file among the certificates.
    pub(super) fn tls(&self, name: &str) -> PathBuf {
        self.0.join("tls").join(name)
    }

    /// An approver's SSH private key; the public one has `.pub` added.
    pub(super) fn approver(&self, name: &str) -> PathBuf {
        self.0.join("approvers").join(name)
    }

    /// The text of the root key's file, made on the first call.
    pub(super) fn root_text(&self) -> Result<SecretString, ServeError> {
        let path = self.root_key();
        if !path.exists() {
            let text = DevFile::generate_plaintext_root()?;
            write_private(&path, text.expose_secret().as_bytes())?;
        }
        Ok(SecretString::from(read_text(&path)?))
    }

    /// The software attester, made on the first call.
    pub(super) fn attester(&self) -> Result<SoftwareAttester, ServeError> {
        let path = self.attester_state();
        let failed = |error: kms_attest::snp::software::SoftwareError| {
            ServeError::Failed(format!("{}: {error}", path.display()))
        };
        if !path.exists() {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
            // From an hour ago, so that clocks that differ a little do not matter.
            let from = Timestamp(now.saturating_sub(60 * 60 * 1000));
            let attester =
                SoftwareAttester::generate(&mut rand_core::UnwrapErr(getrandom::SysRng), from);
            write_private(&path, &attester.map_err(failed)?.to_bytes().map_err(failed)?)?;
        }
        let bytes = fs::read(&path);
        let bytes = bytes.map_err(|source| ServeError::File { path: path.clone(), source })?;
        SoftwareAttester::from_bytes(&bytes).map_err(failed)
    }

    /// A PIN, made on the first call.
    pub(super) fn pin(&self, name: &str) -> Result<SecretString, ServeError> {
        let path = self.0.join(name);
        if !path.exists() {
            let pin: [u8; 8] = crate::context::random()?;
            write_private(&path, crate::wire::hex_encode(&pin).as_bytes())?;
        }
        Ok(SecretString::from(read_text(&path)?))
    }

    /// Whether the first people were enrolled.
    pub(super) fn is_set_up(&self) -> bool {
        self.0.join("set-up").exists()
    }

    /// Notes that the first people were enrolled.
    pub(super) fn set_up(&self) -> Result<(), ServeError> {
        write_private(&self.0.join("set-up"), b"")
    }

    /// Whether the tour came to its end once.
    pub(super) fn has_toured(&self) -> bool {
        self.0.join("toured").exists()
    }

    /// Notes that the tour came to its end.
    pub(super) fn toured(&self) -> Result<(), ServeError> {
        write_private(&self.0.join("toured"), b"")
    }

    /// What clients need to know, as pairs.
    pub(super) fn environment(&self, port: u16) -> Result<Vec<(&'static str, String)>, ServeError> {
        let path = |path: PathBuf| path.display().to_string();
        Ok(vec![
            ("KMS_ADDR", format!("unix:{}", self.socket().display())),
            ("KMS_TCP_PORT", port.to_string()),
            ("KMS_CA_CERT", path(self.tls("ca.crt"))),
            ("KMS_CLIENT_CERT", path(self.tls("client.crt"))),
            ("KMS_CLIENT_KEY", path(self.tls("client.key"))),
            ("KMS_PKCS11_MODULE", path(pkcs11_module())),
            ("KMS_TOKEN_LABEL", "dev".to_owned()),
            ("KMS_USER_PIN", self.pin("user.pin")?.expose_secret().to_owned()),
            ("KMS_SO_PIN", self.pin("so.pin")?.expose_secret().to_owned()),
        ])
    }

    /// Writes the file `env`, to be sourced by a shell.
    pub(super) fn write_environment(&self, port: u16) -> Result<(), ServeError> {
        let mut text = String::new();
        for (name, value) in self.environment(port)? {
            // Single quotes keep everything but a single quote, which ends and begins them anew.
            text += &format!("export {name}='{}'\n", value.replace('\'', r"'\''"));
        }
        write_private(&self.0.join("env"), text.as_bytes())
    }
}

/// Writes a file for its owner only, whole or not at all.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), ServeError> {
    let write = || -> io::Result<()> {
        let name = path.file_name().ok_or_else(|| io::Error::other("not a file name"))?;
        let beside = path.with_file_name(format!(".{}.new", name.to_string_lossy()));
        let options =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
        let mut file = options.open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| ServeError::File { path: path.to_owned(), source })
}
