//! What a row looks like inside an index or a database that is not trusted: with a checksum over key
//! and value, so that a flipped bit is not served. Both backends on disk use it.

use kms_core::id::Digest;

use crate::Row;
use crate::batch::{RowChange, RowState};
use crate::row_set::row_digest;

/// Puts a checksum before a payload.
pub(crate) fn closed(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), payload);
    [&crc.to_be_bytes()[..], payload].concat()
}

/// The payload, if its checksum is right.
pub(crate) fn opened<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (crc, payload) = value.split_first_chunk()?;
    let expected = crc32c::crc32c_append(crc32c::crc32c(key), payload);
    (u32::from_be_bytes(*crc) == expected).then_some(payload)
}

/// A row after a change; a deleted one keeps its revision.
pub(crate) fn encode_row(row: &RowChange) -> Vec<u8> {
    let RowChange { key: _, revision, value } = row;
    let kind = if value.is_some() { LIVE } else { DELETED };
    let value = value.as_deref().unwrap_or_default();
    [&revision.to_be_bytes()[..], &[kind], value].concat()
}

/// `None` when the payload is no row, `Some(None)` when the row is deleted.
pub(crate) fn decode_row(payload: &[u8]) -> Option<Option<Row>> {
    let (revision, rest) = payload.split_first_chunk()?;
    let revision = u64::from_be_bytes(*revision);
    match rest.split_first()? {
        (&LIVE, value) => Some(Some(Row { revision, value: value.into() })),
        (&DELETED, []) => Some(None),
        _ => None,
    }
}

/// Where the row stands, without its value.
pub(crate) fn decode_state(payload: &[u8]) -> Option<RowState> {
    let (revision, rest) = payload.split_first_chunk()?;
    let live = *rest.first()? == LIVE;
    Some(RowState { revision: u64::from_be_bytes(*revision), live })
}

/// The digest of a row's payload; `None` when it is no row.
pub(crate) fn decode_digest(payload: &[u8]) -> Option<Digest> {
    let (revision, rest) = payload.split_first_chunk()?;
    let revision = u64::from_be_bytes(*revision);
    match rest.split_first()? {
        (&LIVE, value) => Some(row_digest(revision, Some(value))),
        (&DELETED, []) => Some(row_digest(revision, None)),
        _ => None,
    }
}

pub(crate) const LIVE: u8 = 1;
const DELETED: u8 = 0;
