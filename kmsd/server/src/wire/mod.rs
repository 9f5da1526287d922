//! Between wire types and the rules' types, both ways. Nothing is decided here.

use kms_core::id::Timestamp;
use kms_core::key::LABEL_BYTES_MAX;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_crypto::mechanism::cipher;

mod enums;
mod identity;
mod key;
mod name;
mod quorum;
mod transfer;

pub(crate) use enums::*;
pub(crate) use identity::*;
pub(crate) use key::*;
pub(crate) use name::*;
pub(crate) use quorum::*;
pub(crate) use transfer::*;

/// A field of the request is not what it should be.
pub(crate) fn invalid(field: &'static str, problem: impl ToString) -> Refusal {
    Refusal::InvalidArgument { field, problem: problem.to_string() }
}

/// Reads a field by its type's own parser.
pub(crate) fn parse<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, Refusal>
where
    T::Err: ToString,
{
    text.parse().map_err(|error: T::Err| invalid(field, error.to_string()))
}

/// Reads bytes of at most `max` length.
pub(crate) fn bounded(field: &'static str, bytes: Vec<u8>, max: usize) -> Result<Vec<u8>, Refusal> {
    if bytes.len() <= max {
        Ok(bytes)
    } else {
        Err(invalid(field, format!("{} bytes; at most {max} are taken", bytes.len())))
    }
}

/// Checks a CRC32C pair, when the caller sent one.
pub(crate) fn check_crc(
    field: &'static str,
    bytes: &[u8],
    crc32c: Option<u32>,
) -> Result<(), Refusal> {
    if crc32c.is_none_or(|expected| expected == crc32c::crc32c(bytes)) {
        Ok(())
    } else {
        Err(invalid(field, "damaged on the way: the CRC32C does not match; send it again"))
    }
}

/// Checks that an IV is as long as the mechanism's.
pub(crate) fn check_iv(mechanism: Mechanism, iv: &[u8]) -> Result<(), Refusal> {
    let expected = cipher::iv_bytes(mechanism).unwrap_or(0);
    if iv.len() == expected {
        return Ok(());
    }
    Err(invalid("initialization_vector", format!("expected {expected} bytes for {mechanism}")))
}

/// A `request_id` is 16 bytes, or empty for none.
pub(crate) fn request_id(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.is_empty() || bytes.len() == 16 {
        Ok(())
    } else {
        Err(invalid("request_id", "expected 16 bytes, or none"))
    }
}

/// The page asked for: how many, and after which place.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// How many rows.
    pub(crate) size: usize,
    /// The place of the last row of the page before; it must stand under the listing's prefix.
    pub(crate) after: Option<String>,
}

impl Page {
    /// Reads page size (0 means `default`) and token.
    pub(crate) fn parse(size: i32, token: &str, default: usize) -> Result<Self, Refusal> {
        let size = match usize::try_from(size) {
            Ok(0) => default,
            Ok(size) if size <= PAGE_SIZE_MAX => size,
            _ => return Err(invalid("page_size", format!("expected 0 to {PAGE_SIZE_MAX}"))),
        };
        let after = match token {
            "" => None,
            token => {
                let bytes = hex_decode(token).ok_or_else(|| invalid("page_token", TOKEN))?;
                Some(String::from_utf8(bytes).map_err(|_| invalid("page_token", TOKEN))?)
            }
        };
        Ok(Self { size, after })
    }

    /// The token of the page after one that ended with `last`.
    pub(crate) fn token(last: &str) -> String {
        hex_encode(last.as_bytes())
    }

    /// Cuts a page out of `rows`, which were read with one more than fits.
    pub(crate) fn cut<T>(&self, mut rows: Vec<(String, T)>) -> (Vec<T>, String) {
        let more = rows.len() > self.size;
        rows.truncate(self.size);
        let next = rows.last().filter(|_| more).map(|(place, _)| Self::token(place));
        (rows.into_iter().map(|(_, row)| row).collect(), next.unwrap_or_default())
    }
}

/// Reads a free text of a label's length, without control characters.
pub(crate) fn text(field: &'static str, text: String) -> Result<String, Refusal> {
    if text.len() > LABEL_BYTES_MAX {
        return Err(invalid(field, format!("at most {LABEL_BYTES_MAX} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(field, "control characters are not taken"));
    }
    Ok(text)
}

/// Reads a time, if there is one.
pub(crate) fn time(
    field: &'static str,
    wire: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, Refusal> {
    let Some(prost_types::Timestamp { seconds, nanos }) = wire else { return Ok(None) };
    let millis = || {
        let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= SECONDS_MAX)?;
        let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
        Some(Timestamp(seconds * 1000 + nanos / 1_000_000))
    };
    millis().map(Some).ok_or_else(|| invalid(field, "expected a time from 1970 to 9999"))
}

/// Writes a time.
pub(crate) fn time_out(time: Timestamp) -> Option<prost_types::Timestamp> {
    let seconds = i64::try_from(time.0 / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(time.0 % 1000 * 1_000_000).unwrap_or_default();
    Some(prost_types::Timestamp { seconds, nanos })
}

/// Lower-case hexadecimal, as stored rows hold bytes.
pub(crate) fn hex_encode(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// Reads what [`hex_encode`] wrote.
pub(crate) fn hex_decode(text: &str) -> Option<Vec<u8>> {
    hex::decode(text).ok()
}

/// Largest page.
pub(crate) const PAGE_SIZE_MAX: usize = 500;
/// Longest IV, nonce or counter block.
pub(crate) const IV_BYTES_MAX: usize = 16;
/// Most bytes of data in one request.
pub(crate) const DATA_BYTES_MAX: usize = 64 * 1024;
/// Longest salt, info or context of a derivation.
pub(crate) const KDF_BYTES_MAX: usize = 1024;
/// A tag, or the padding of a last block.
pub(crate) const TAG_BYTES: usize = 16;
/// The end of the year 9999, as in RFC 3339.
const SECONDS_MAX: u64 = 253_402_300_799;
const TOKEN: &str = "expected a next_page_token of this listing";
