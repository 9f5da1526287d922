//! Signed notes (C2SP signed-note, Ed25519): a text with the signatures of some keys below it. Heads of
//! the log and the manifest of the programs are such notes.
//!
//! ```text
//! <text, whole lines>
//! \n
//! — <key name> base64( key id[4] || signature[64] )\n
//! ```

use super::checkpoint::{LogKey, base64};

/// Why a note is not believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Not the form above.
    #[error("not a signed note")]
    Malformed,
    /// No signature by the given key.
    #[error("the note is not signed by the given key")]
    NotSigned,
}

/// Puts text and signature together.
pub fn sign(text: &str, key: &LogKey, signature: &[u8; 64]) -> String {
    let mut blob = key.id().to_vec();
    blob.extend_from_slice(signature);
    format!("{text}\n\u{2014} {} {}\n", key.origin(), base64::encode(&blob))
}

/// The text of a note that `key` has signed. Signatures by other keys (witnesses) are left alone.
/// `verifies` says whether a signature over a text is the key's.
///
/// # Errors
/// [`NoteError`].
pub fn open<'a>(
    note: &'a str,
    key: &LogKey,
    verifies: impl Fn(&[u8], &[u8]) -> bool,
) -> Result<&'a str, NoteError> {
    if note.len() > NOTE_BYTES_MAX || !note.ends_with('\n') {
        return Err(NoteError::Malformed);
    }
    let end = note.find("\n\n").ok_or(NoteError::Malformed)?;
    let (text, signatures) = (&note[..=end], &note[end + 2..]);
    if !signatures.split_terminator('\n').all(|line| line.starts_with("\u{2014} ")) {
        return Err(NoteError::Malformed);
    }
    let signed = signatures.split_terminator('\n').any(|line| {
        let mut words = line.strip_prefix("\u{2014} ").into_iter().flat_map(|l| l.split(' '));
        let (Some(name), Some(blob), None) = (words.next(), words.next(), words.next()) else {
            return false;
        };
        let blob = base64::decode(blob).unwrap_or_default();
        let Some((id, signature)) = blob.split_first_chunk::<4>() else { return false };
        name == key.origin() && *id == key.id() && verifies(text.as_bytes(), signature)
    });
    if signed { Ok(text) } else { Err(NoteError::NotSigned) }
}

/// Longest signed note that is read.
const NOTE_BYTES_MAX: usize = 64 * 1024;
