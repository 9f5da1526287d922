//! Signatures that people make with `ssh-keygen -Y sign` (PROTOCOL.sshsig), checked strictly.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use ssh_key::{HashAlg, PublicKey, SshSig};

use crate::id::Digest;

/// Why a signature or key is refused. The signer's mistake or a forgery.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not an SSH public key that we take.
    #[error("not an SSH public key of type ed25519, ecdsa (P-256, P-384) or their sk- forms")]
    Key,
    /// Not an armored SSH signature.
    #[error("not an SSH signature; make one with: ssh-keygen -Y sign -n NAMESPACE -f KEY FILE")]
    Malformed,
    /// Made for something else.
    #[error("the signature was made for another namespace or with another hash than sha512")]
    Namespace,
    /// Another key, other bytes, or a broken signature.
    #[error("the signature is not that key's over these bytes")]
    Wrong,
}

/// A person's SSH public key in the OpenSSH form, without comment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SshKey {
    key: PublicKey,
    digest: Digest,
}

impl SshKey {
    /// SHA-256 over the key's wire form: the same key under two names has one digest.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Checks that `armored` is this key's signature over `message` in `namespace`.
    ///
    /// # Errors
    /// [`SignatureError`] saying which part is wrong.
    pub fn verify(
        &self,
        namespace: &str,
        message: &[u8],
        armored: &str,
    ) -> Result<(), SignatureError> {
        if armored.len() > ARMORED_BYTES_MAX {
            return Err(SignatureError::Malformed);
        }
        let signature = SshSig::from_pem(armored).map_err(|_| SignatureError::Malformed)?;
        if signature.namespace() != namespace || signature.hash_alg() != HashAlg::Sha512 {
            return Err(SignatureError::Namespace);
        }
        if !signature.reserved().is_empty() {
            return Err(SignatureError::Malformed);
        }
        self.key.verify(namespace, message, &signature).map_err(|_| SignatureError::Wrong)
    }
}

impl FromStr for SshKey {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        use ssh_key::{Algorithm, EcdsaCurve};
        if text.len() > OPENSSH_BYTES_MAX {
            return Err(SignatureError::Key);
        }
        let mut key = PublicKey::from_openssh(text.trim()).map_err(|_| SignatureError::Key)?;
        key.set_comment("");
        match key.algorithm() {
            Algorithm::Ed25519
            | Algorithm::SkEd25519
            | Algorithm::SkEcdsaSha2NistP256
            | Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 | EcdsaCurve::NistP384 } => {
                let wire = key.to_bytes().map_err(|_| SignatureError::Key)?;
                Ok(Self { key, digest: Digest::of(&[b"ssh-key", &wire]) })
            }
            _ => Err(SignatureError::Key),
        }
    }
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key.to_openssh().map_err(|_| fmt::Error)?)
    }
}

impl Serialize for SshKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SshKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Longest armored signature that is read.
const ARMORED_BYTES_MAX: usize = 16 * 1024;
/// Longest public key line that is read.
const OPENSSH_BYTES_MAX: usize = 4 * 1024;
