//! The signed head of the log (C2SP tlog-checkpoint as a signed note, Ed25519).
//!
//! ```text
//! <origin>\n<size>\n<base64 root>\n
//! \n
//! — <key name> base64( key id[4] || signature[64] )\n      see [`super::note`]
//! key id = SHA-256( key name || "\n" || 0x01 || public key )[..4]
//! ```

use core::fmt;
use core::str::FromStr;

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::note::{self, NoteError};
use crate::id::Digest;

/// A head of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// Names the log, for ever.
    pub origin: String,
    /// How many leaves it has.
    pub size: u64,
    /// Its root hash.
    pub root: Digest,
}

/// Why a signed checkpoint is not believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not the form above.
    #[error("not a signed checkpoint")]
    Malformed,
    /// Another log's, or no signature by the given key.
    #[error("the checkpoint is not signed by the given log key")]
    NotSigned,
}

impl From<NoteError> for CheckpointError {
    fn from(error: NoteError) -> Self {
        match error {
            NoteError::Malformed => Self::Malformed,
            NoteError::NotSigned => Self::NotSigned,
        }
    }
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, base64::encode(self.root.as_bytes()))
    }

    /// Puts text and signature together.
    pub fn signed(&self, key: &LogKey, signature: &[u8; 64]) -> String {
        note::sign(&self.text(), key, signature)
    }

    /// Reads a signed checkpoint and checks `key`'s signature. Signatures by other keys
    /// (witnesses) are left alone.
    ///
    /// # Errors
    /// [`CheckpointError`] when it is malformed or not signed by `key`.
    pub fn verify(note: &str, key: &LogKey) -> Result<Self, CheckpointError> {
        let text = note::open(note, key, |text, signature| key.verifies(text, signature))?;
        let checkpoint = Self::parse(text).ok_or(CheckpointError::Malformed)?;
        if checkpoint.origin == key.name { Ok(checkpoint) } else { Err(CheckpointError::NotSigned) }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split_terminator('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let checkpoint = Self {
            origin: origin.to_owned(),
            size: size.parse().ok()?,
            root: Digest::try_from(base64::decode(root)?.as_slice()).ok()?,
        };
        // One form only: what reads back otherwise was written otherwise.
        (checkpoint.text() == text).then_some(checkpoint)
    }
}

/// The public key of a log, as a signed-note verifier key: `<name>+<key id>+<base64>`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogKey {
    name: String,
    key: VerifyingKey,
}

/// The text is not a verifier key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected a log key of the form NAME+KEYID+BASE64 with an Ed25519 public key")]
pub struct LogKeyError;

impl LogKey {
    /// The key of the log named `name`.
    ///
    /// # Errors
    /// [`LogKeyError`] when the name has spaces or pluses, or the bytes are no key.
    pub fn new(name: &str, public_key: &[u8; 32]) -> Result<Self, LogKeyError> {
        let named = !name.is_empty() && !name.contains(['+', ' ', '\n']);
        let key = VerifyingKey::from_bytes(public_key).map_err(|_| LogKeyError)?;
        if named { Ok(Self { name: name.to_owned(), key }) } else { Err(LogKeyError) }
    }

    /// The log's origin.
    pub fn origin(&self) -> &str {
        &self.name
    }

    /// Names this log and key: what receipts and transcripts call the server's identity.
    pub fn identity(&self) -> Digest {
        Digest::of(&[b"kms-log-identity", self.name.as_bytes(), self.key.as_bytes()])
    }

    /// The public key itself.
    pub fn public_key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    pub(super) fn id(&self) -> [u8; 4] {
        let mut hash = Sha256::new();
        hash.update(self.name.as_bytes());
        hash.update(b"\n\x01");
        hash.update(self.key.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    pub(crate) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(text, &signature).is_ok())
    }
}

impl fmt::Display for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut blob = vec![1];
        blob.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), base64::encode(&blob))
    }
}

impl FromStr for LogKey {
    type Err = LogKeyError;

    fn from_str(text: &str) -> Result<Self, LogKeyError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(blob)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(LogKeyError);
        };
        let blob = base64::decode(blob).ok_or(LogKeyError)?;
        let Some((&[1], key)) = blob.split_first_chunk::<1>() else { return Err(LogKeyError) };
        let key = Self::new(name, key.try_into().map_err(|_| LogKeyError)?)?;
        if hex::encode(key.id()) == id { Ok(key) } else { Err(LogKeyError) }
    }
}

/// Standard base64 with padding, strict on reading.
pub(super) mod base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    pub(in crate::audit) fn encode(bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }

    pub(in crate::audit) fn decode(text: &str) -> Option<Vec<u8>> {
        STANDARD.decode(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    fn signed() -> (String, LogKey, Checkpoint) {
        let secret = SigningKey::from_bytes(&[9; 32]);
        let key = LogKey::new("kms/test", secret.verifying_key().as_bytes()).unwrap();
        let checkpoint = Checkpoint { origin: "kms/test".into(), size: 3, root: Digest([5; 32]) };
        let signature = secret.sign(checkpoint.text().as_bytes()).to_bytes();
        (checkpoint.signed(&key, &signature), key, checkpoint)
    }

    #[test]
    fn a_checkpoint_and_its_key_read_back() {
        let (note, key, checkpoint) = signed();
        assert_eq!(Checkpoint::verify(&note, &key), Ok(checkpoint));
        assert_eq!(key.to_string().parse(), Ok(key));
    }

    #[test]
    fn any_changed_added_or_lost_character_is_refused() {
        let (note, key, _) = signed();
        for other in [note.trim_end().to_owned(), format!("{note}\n"), format!("{note}more\n")] {
            assert!(Checkpoint::verify(&other, &key).is_err(), "{other:?}");
        }
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(Checkpoint::verify(&changed, &key).is_err(), "byte {at}");
        }
    }
}
