//! Whether the programs are what their builder has signed: before anything is opened, with the daily self
//! tests, and on demand. And `kmsd manifest`, with which the builder makes and checks a manifest.
//!
//! It finds what has decayed on the disk and what was exchanged by somebody without the builder's key. An
//! attacker who exchanges the daemon itself exchanges this check with it: what starts the daemon must look
//! at it (dm-verity, IMA, a measured image). See SECURITY.md.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Args, Subcommand};
use kms_core::audit::checkpoint::LogKey;
use kms_core::id::{Digest, Timestamp};
use kms_core::manifest::{FILES_MAX, Manifest, ManifestError};
use kms_crypto::manifest::{self, ManifestRefused};
use zeroize::Zeroizing;

use crate::cli::read_text;
use crate::config::{self, ConfigError};
use crate::server::ServeError;

/// Why the programs are not to be trusted. Each names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntegrityError {
    /// The file is another than the one that was signed.
    #[error("{path} is not the file that the manifest names; install it anew")]
    Changed {
        /// Which file.
        path: PathBuf,
    },
    /// The manifest is not what was signed.
    #[error("{path}: {refused}")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        refused: ManifestRefused,
    },
    /// This program is no file of the manifest.
    #[error("this program is none of those that {path} names; install it anew")]
    NotListed {
        /// The manifest.
        path: PathBuf,
    },
    /// The manifest, a file of it, or this program is not there or cannot be read.
    #[error("cannot read {path}: {source}; it must be there, and readable for this user")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The programs that are to be checked.
#[derive(Debug)]
pub(crate) struct Programs {
    manifest: PathBuf,
    key: LogKey,
    /// When they were last found to be what they must be.
    checked_at: AtomicU64,
}

impl Programs {
    /// As the configuration says.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for a key that is none.
    pub(crate) fn configured(config: &config::Integrity) -> Result<Self, ConfigError> {
        let config::Integrity { manifest, public_key } = config;
        let key = public_key.parse().map_err(|error| {
            ConfigError::Value(format!("integrity.public_key {public_key:?}: {error}"))
        })?;
        Ok(Self { manifest: manifest.clone(), key, checked_at: AtomicU64::new(0) })
    }

    /// Checks every file of the manifest, and the program that runs.
    ///
    /// # Errors
    /// [`IntegrityError`] for the first that is not as it was signed.
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), IntegrityError> {
        let listed = verify(&self.manifest, &self.key)?;
        // What runs, also where the file was exchanged or removed since it began.
        let running = program_digest(Path::new("/proc/self/exe"))?;
        if listed.files.iter().all(|(_, digest)| *digest != running) {
            return Err(IntegrityError::NotListed { path: self.manifest.clone() });
        }
        self.checked_at.store(now.0, Ordering::Release);
        Ok(())
    }

    /// The key that the manifest is signed with.
    pub(crate) const fn key(&self) -> &LogKey {
        &self.key
    }

    /// When the programs last were what they must be.
    pub(crate) fn checked_at(&self) -> Timestamp {
        Timestamp(self.checked_at.load(Ordering::Acquire))
    }
}

/// Makes and checks manifests.
#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Write a signed manifest of the programs. Prints the key that verifies it, for the configuration.
    #[command(after_help = "Example:\n  openssl genpkey -algorithm ed25519 -out release.pem\n  \
        kmsd manifest create --key release.pem --out /usr/lib/kms/kmsd.manifest \\\n    \
        /usr/bin/kmsd /usr/bin/kmsctl /usr/bin/kms-agent /usr/lib/libkms_pkcs11.so")]
    Create(CreateArgs),
    /// Check the files of a manifest. Ends with 1 when one is not as it was signed.
    #[command(after_help = "Example:\n  \
        kmsd manifest verify --public-key kms+1a2b3c4d+AWlz… /usr/lib/kms/kmsd.manifest")]
    Verify(VerifyArgs),
}

#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// The builder's private key: Ed25519, PEM.
    #[arg(long)]
    key: PathBuf,
    /// What the key is called, in the manifest and in front of its public half.
    #[arg(long, default_value = "kms")]
    key_name: String,
    /// The manifest.
    #[arg(long)]
    out: PathBuf,
    /// The programs. Those with a relative path are looked for from the manifest's folder on.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The public key, as `create` has printed it.
    #[arg(long)]
    public_key: LogKey,
    /// The manifest.
    manifest: PathBuf,
}

/// Runs one of them.
///
/// # Errors
/// [`ServeError`] naming the file that is not in order.
pub(crate) fn run(command: ManifestCommand) -> Result<(), ServeError> {
    // Hash function and signature have given their known answers before they are believed.
    crate::server::self_tests()?;
    match command {
        ManifestCommand::Create(CreateArgs { key, key_name, out, files }) => {
            let pem = Zeroizing::new(read_text(&key)?);
            let listed = files.iter().map(|file| {
                let name = file.to_str().ok_or(ManifestError);
                let name = name.map_err(|error| ServeError::Failed(error.to_string()))?;
                let path = beside(&out, name);
                match digest(&path) {
                    Ok(digest) => Ok((name.to_owned(), digest)),
                    Err(source) => Err(ServeError::File { path, source }),
                }
            });
            let listed: Result<Vec<(String, Digest)>, ServeError> =
                listed.take(FILES_MAX + 1).collect();
            let made = Manifest::new(listed?)
                .map_err(|refused| ServeError::Failed(refused.to_string()))?;
            let signed = manifest::sign(&made, &key_name, &pem);
            let (note, public_key) = signed.map_err(|refused| {
                ServeError::Failed(match refused {
                    ManifestRefused::KeyName => format!("--key-name {key_name:?}: {refused}"),
                    _ => format!("{}: {refused}", key.display()),
                })
            })?;
            std::fs::write(&out, note)
                .map_err(|source| ServeError::File { path: out.clone(), source })?;
            println!("[integrity]\nmanifest = {:?}\npublic_key = \"{public_key}\"", out.display());
        }
        ManifestCommand::Verify(VerifyArgs { public_key, manifest }) => {
            for (name, digest) in verify(&manifest, &public_key)?.files {
                println!("{digest}  {name}");
            }
        }
    }
    Ok(())
}

/// Reads the manifest at `path` and checks every file of it.
fn verify(path: &Path, key: &LogKey) -> Result<Manifest, IntegrityError> {
    let unreadable = |source| IntegrityError::Unreadable { path: path.to_owned(), source };
    let note = std::fs::read_to_string(path).map_err(unreadable)?;
    let listed = manifest::open(&note, key)
        .map_err(|refused| IntegrityError::Manifest { path: path.to_owned(), refused })?;
    for (name, expected) in &listed.files {
        let file = beside(path, name);
        if program_digest(&file)? != *expected {
            return Err(IntegrityError::Changed { path: file });
        }
    }
    Ok(listed)
}

fn beside(manifest: &Path, name: &str) -> PathBuf {
    manifest.parent().map_or_else(|| name.into(), |folder| folder.join(name))
}

fn digest(path: &Path) -> io::Result<Digest> {
    File::open(path).and_then(manifest::digest_of)
}

fn program_digest(path: &Path) -> Result<Digest, IntegrityError> {
    digest(path).map_err(|source| IntegrityError::Unreadable { path: path.to_owned(), source })
}
