//! The envelope around every stored row: what the vault vouches for.
//!
//! ```text
//! envelope = version (1) || operation id (16) || length of body (4) || body || sealed || tag (32)
//! tag      = HMAC-SHA-256(row key, lp(row key in the store) || revision (8) || operation id
//!                                  || lp(body) || lp(sealed))
//! lp(x)    = length of x as 4 big-endian bytes || x
//! ```
//!
//! The row's name and revision are in the tag and not in the envelope: a row that is swapped with
//! another, or an older one, does not open. [`crate::vault::Vault`] makes and opens envelopes; while
//! the root is sealed, the daemon can look into one without authentication, as
//! [`UnauthenticatedRow`].

use hmac::{Hmac, KeyInit, Mac};
use kms_core::id::{Digest, OperationId};
use sha2::Sha256;

use crate::CryptoError;
use crate::kdf::length_prefix;
use crate::material::Material;

/// A row whose envelope the vault has authenticated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpenedRow {
    /// The operation that wrote the row.
    pub operation_id: OperationId,
    /// The row itself, readable.
    pub body: Vec<u8>,
    /// Wrapped key bytes that go with it; empty if none.
    pub sealed: Vec<u8>,
}

/// What stands in an envelope, true or not. Only for what must be answered while the root is sealed
/// and protects nothing, such as how the root opens; never for a decision about a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnauthenticatedRow {
    /// The operation that claims to have written the row.
    pub operation_id: OperationId,
    /// The row as it stands there.
    pub body: Vec<u8>,
    /// The wrapped key bytes as they stand there.
    pub sealed: Vec<u8>,
}

/// Looks into an envelope without authenticating it.
///
/// # Errors
/// [`CryptoError::RowMalformed`] when it is no envelope.
pub fn peek_row(envelope: &[u8]) -> Result<UnauthenticatedRow, CryptoError> {
    let Parts { operation_id, body, sealed, tag: _ } = Parts::parse(envelope)?;
    Ok(UnauthenticatedRow { operation_id, body: body.to_vec(), sealed: sealed.to_vec() })
}

/// The digest by which the audit log knows a stored row.
pub fn row_digest(envelope: &[u8]) -> Digest {
    Digest::of(&[envelope])
}

pub(crate) fn protect(
    key: &Material,
    row_key: &str,
    revision: u64,
    operation_id: &OperationId,
    body: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    if body.len() + sealed.len() > ROW_BYTES_MAX {
        return Err(CryptoError::RowTooLong { max: ROW_BYTES_MAX });
    }
    let tag = tag(key, row_key, revision, operation_id, body, sealed)?.finalize().into_bytes();
    Ok([&[VERSION], operation_id.as_bytes().as_slice(), &length_prefix(body), body, sealed, &tag]
        .concat())
}

pub(crate) fn open(
    key: &Material,
    row_key: &str,
    revision: u64,
    envelope: &[u8],
) -> Result<OpenedRow, CryptoError> {
    let tampered = || CryptoError::RowTampered { row: row_key.to_owned() };
    let parts = Parts::parse(envelope).map_err(|_| tampered())?;
    let Parts { operation_id, body, sealed, tag: found } = parts;
    tag(key, row_key, revision, &operation_id, body, sealed)?
        .verify_slice(found)
        .map_err(|_| tampered())?;
    Ok(OpenedRow { operation_id, body: body.to_vec(), sealed: sealed.to_vec() })
}

struct Parts<'a> {
    operation_id: OperationId,
    body: &'a [u8],
    sealed: &'a [u8],
    tag: &'a [u8],
}

impl<'a> Parts<'a> {
    fn parse(envelope: &'a [u8]) -> Result<Self, CryptoError> {
        Self::split(envelope).ok_or(CryptoError::RowMalformed)
    }

    fn split(envelope: &'a [u8]) -> Option<Self> {
        let (version, rest) = envelope.split_first()?;
        if *version != VERSION || rest.len() > ROW_BYTES_MAX + OVERHEAD_BYTES {
            return None;
        }
        let (operation_id, rest) = rest.split_first_chunk::<16>()?;
        let (body_bytes, rest) = rest.split_first_chunk::<4>()?;
        let body_bytes = usize::try_from(u32::from_be_bytes(*body_bytes)).ok()?;
        let (body, rest) = rest.split_at_checked(body_bytes)?;
        let (sealed, tag) = rest.split_at_checked(rest.len().checked_sub(TAG_BYTES)?)?;
        Some(Self { operation_id: OperationId(*operation_id), body, sealed, tag })
    }
}

fn tag(
    key: &Material,
    row_key: &str,
    revision: u64,
    operation_id: &OperationId,
    body: &[u8],
    sealed: &[u8],
) -> Result<Hmac<Sha256>, CryptoError> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.expose()).map_err(|_| CryptoError::MaterialRefused)?;
    mac.update(&length_prefix(row_key.as_bytes()));
    mac.update(row_key.as_bytes());
    mac.update(&revision.to_be_bytes());
    mac.update(operation_id.as_bytes());
    for part in [body, sealed] {
        mac.update(&length_prefix(part));
        mac.update(part);
    }
    Ok(mac)
}

/// Most bytes of body and sealed key together: above every message limit.
pub const ROW_BYTES_MAX: usize = 8 * 1024 * 1024;
const VERSION: u8 = 1;
const TAG_BYTES: usize = 32;
const OVERHEAD_BYTES: usize = 16 + 4 + TAG_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATION: OperationId = OperationId([3; 16]);

    fn key() -> Material {
        Material::copied(&[9; 32]).unwrap()
    }

    fn envelope() -> Vec<u8> {
        protect(&key(), "keys/a", 4, &OPERATION, b"body", b"sealed").unwrap()
    }

    #[test]
    fn a_row_comes_back_and_can_be_looked_into() {
        let row = open(&key(), "keys/a", 4, &envelope()).unwrap();
        assert_eq!((&row.body[..], &row.sealed[..]), (&b"body"[..], &b"sealed"[..]));
        assert_eq!(row.operation_id, OPERATION);
        let OpenedRow { operation_id, body, sealed } = row;
        assert_eq!(peek_row(&envelope()), Ok(UnauthenticatedRow { operation_id, body, sealed }));
        assert_eq!(row_digest(&envelope()), Digest::of(&[&envelope()]));
    }

    #[test]
    fn a_row_of_another_name_revision_or_root_is_refused() {
        let tampered = |row: &str| Err(CryptoError::RowTampered { row: row.to_owned() });
        assert_eq!(open(&key(), "keys/b", 4, &envelope()), tampered("keys/b"));
        assert_eq!(open(&key(), "keys/a", 3, &envelope()), tampered("keys/a"));
        let other = Material::copied(&[8; 32]).unwrap();
        assert_eq!(open(&other, "keys/a", 4, &envelope()), tampered("keys/a"));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let good = envelope();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key(), "keys/a", 4, &bad).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(open(&key(), "keys/a", 4, &good[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn moving_the_border_between_body_and_sealed_is_refused() {
        let mut moved = envelope();
        moved[20] += 1;
        assert_eq!(peek_row(&moved).unwrap().body, b"bodys");
        assert!(open(&key(), "keys/a", 4, &moved).is_err());
    }

    #[test]
    fn what_is_no_envelope_or_too_long_is_refused() {
        for bad in [&[][..], &[1], &[1; 52], &[2; 60], &[1; 60]] {
            assert_eq!(peek_row(bad), Err(CryptoError::RowMalformed));
        }
        let long = vec![0; ROW_BYTES_MAX + 1];
        let refused = protect(&key(), "keys/a", 4, &OPERATION, &long, b"");
        assert_eq!(refused, Err(CryptoError::RowTooLong { max: ROW_BYTES_MAX }));
    }
}
