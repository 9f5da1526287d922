//! Canonical JSON (RFC 8785): one byte string per value, for everything that people sign or that
//! is compared by digest.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::Digest;

/// Why bytes are not the canonical form of a value. The peer's mistake or somebody's edit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CanonicalError {
    /// Longer than [`DOCUMENT_BYTES_MAX`].
    #[error("the document is longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong,
    /// Not JSON, or not of this type.
    #[error("not a document of this kind: {0}")]
    Shape(#[from] serde_json::Error),
    /// The same value written another way: spaces, order, escapes, unknown or repeated members.
    #[error("the document is not in canonical form (RFC 8785)")]
    NotCanonical,
}

/// The canonical bytes of `value`.
///
/// # Errors
/// When a map has keys that are not text; no type of ours has.
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    Ok(serde_json_canonicalizer::to_vec(value)?)
}

/// Reads `bytes` and insists that they are the one canonical form of what they say.
///
/// # Errors
/// [`CanonicalError`] when they are too long, of another type, or written another way.
pub fn from_bytes<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, CanonicalError> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(CanonicalError::TooLong);
    }
    let value = serde_json::from_slice(bytes)?;
    if to_bytes(&value)? == bytes { Ok(value) } else { Err(CanonicalError::NotCanonical) }
}

/// The digest by which a canonical document is known.
///
/// # Errors
/// As [`to_bytes`].
pub fn digest<T: Serialize>(value: &T) -> Result<Digest, CanonicalError> {
    Ok(Digest::of(&[&to_bytes(value)?]))
}

/// Longest document that is read.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
