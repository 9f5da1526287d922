//! The bytes of the journal.
//!
//! ```text
//! segment = header[4096] || record* || zeros
//! header  = "KMSJRNL\n" || version[4] || store[16] || number[8] || first sequence[8]
//!           || hash of the record before[32] || zeros || crc32c[4]
//! record  = magic[4] || body length[4] || sequence[8] || hash of the record before[32]
//!           || hash[32] || crc32c( store || all before )[4] || zeros[4] || body || zeros to 8
//! hash    = SHA-256( "kms-store-record" || store || body length || sequence || before || body )
//! body    = protobuf Record
//! ```
//!
//! Integers are big-endian. A segment's header has a block of its own, so that no later write can
//! tear it. `store` is drawn once for each store and shown to nobody who commits; so no value can
//! be chosen that looks like a record.

use kms_core::id::Digest;
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::batch::RowChange;

/// Names one store for ever.
pub(crate) type StoreId = [u8; 16];

/// What one sync makes durable: the batches of one group, in order.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Record {
    #[prost(message, repeated, tag = "1")]
    pub(crate) batches: Vec<Applied>,
    /// How many slots had been given out; a table with fewer is not the one that rows point into.
    #[prost(uint64, tag = "2")]
    pub(crate) slots: u64,
}

/// One batch as it was applied.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Applied {
    #[prost(message, repeated, tag = "1")]
    pub(crate) rows: Vec<RowChange>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(crate) leaves: Vec<Vec<u8>>,
    /// 32 bytes, or none for a batch without a name.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) idempotency: Vec<u8>,
}

/// The end of a chain of records: what the next one continues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Chain {
    /// Sequence of the last record; 0 before the first.
    pub(crate) sequence: u64,
    /// Its hash.
    pub(crate) hash: Digest,
}

impl Chain {
    /// The chain of an empty journal.
    pub(crate) fn genesis(store: &StoreId) -> Self {
        Self { sequence: 0, hash: Digest::of(&[b"kms-store-genesis", store]) }
    }
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SegmentHeader {
    pub(crate) store: StoreId,
    pub(crate) number: u64,
    /// Where the chain stood when the segment began.
    pub(crate) before: Chain,
}

/// Why a header is not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HeaderFault {
    Damaged,
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { store, number, before: Chain { sequence, hash } } = self;
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(SEGMENT_MAGIC);
        bytes.extend(FORMAT_VERSION.to_be_bytes());
        bytes.extend_from_slice(store);
        bytes.extend(number.to_be_bytes());
        bytes.extend(sequence.to_be_bytes());
        bytes.extend_from_slice(hash.as_bytes());
        bytes.resize(HEADER_BYTES - 4, 0);
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let header = bytes.get(..HEADER_BYTES).ok_or(HeaderFault::Damaged)?;
        let (body, crc) = header.split_at(HEADER_BYTES - 4);
        if crc32c::crc32c(body).to_be_bytes() != crc || !body.starts_with(SEGMENT_MAGIC) {
            return Err(HeaderFault::Damaged);
        }
        let mut fields = Fields(&body[SEGMENT_MAGIC.len()..]);
        let version = fields.u32();
        if version != FORMAT_VERSION {
            return Err(HeaderFault::Version(version));
        }
        let (store, number) = (fields.take(), fields.u64());
        let before = Chain { sequence: fields.u64(), hash: Digest(fields.take()) };
        Ok(Self { store, number, before })
    }
}

/// A record whose hash is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framed<'a> {
    pub(crate) chain: Chain,
    /// Hash of the record before it.
    pub(crate) previous: Digest,
    pub(crate) body: &'a [u8],
    /// With padding.
    pub(crate) bytes: usize,
}

/// The first bytes of a record, when they are that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHead {
    body_bytes: usize,
    sequence: u64,
    previous: Digest,
    hash: Digest,
}

impl RecordHead {
    /// How long the record is, with padding.
    pub(crate) const fn record_bytes(&self) -> usize {
        RECORD_HEAD_BYTES + self.body_bytes.next_multiple_of(ALIGNMENT)
    }

    pub(crate) fn decode(store: &StoreId, bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..RECORD_HEAD_BYTES)?;
        let (head, padding) = head.split_at(RECORD_HEAD_BYTES - 4);
        let (fields, crc) = head.split_at(head.len() - 4);
        if !fields.starts_with(RECORD_MAGIC) || padding != [0; 4] {
            return None;
        }
        if head_crc(store, fields).to_be_bytes() != crc {
            return None;
        }
        let mut fields = Fields(&fields[RECORD_MAGIC.len()..]);
        Some(Self {
            body_bytes: usize::try_from(fields.u32()).ok()?,
            sequence: fields.u64(),
            previous: Digest(fields.take()),
            hash: Digest(fields.take()),
        })
    }
}

/// Writes the record that follows `before`, and says where the chain stands with it.
/// `None` when the body is longer than a record may be.
pub(crate) fn frame(store: &StoreId, before: &Chain, body: &[u8]) -> Option<(Vec<u8>, Chain)> {
    let length = u32::try_from(body.len()).ok()?;
    let sequence = before.sequence.checked_add(1)?;
    let hash = record_hash(store, length, sequence, &before.hash, body);
    let mut bytes = Vec::with_capacity(RECORD_HEAD_BYTES + body.len() + ALIGNMENT);
    bytes.extend_from_slice(RECORD_MAGIC);
    bytes.extend(length.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend_from_slice(before.hash.as_bytes());
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend(head_crc(store, &bytes).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    Some((bytes, Chain { sequence, hash }))
}

/// Reads the record at the beginning of `bytes`; `None` when there is none, or a bad one.
pub(crate) fn unframe<'a>(store: &StoreId, bytes: &'a [u8]) -> Option<Framed<'a>> {
    let head = RecordHead::decode(store, bytes)?;
    let RecordHead { body_bytes, sequence, previous, hash } = head;
    let whole = bytes.get(..head.record_bytes())?;
    let (body, padding) = whole[RECORD_HEAD_BYTES..].split_at(body_bytes);
    let length = u32::try_from(body_bytes).ok()?;
    let intact = is_zero(padding) && record_hash(store, length, sequence, &previous, body) == hash;
    let chain = Chain { sequence, hash };
    intact.then_some(Framed { chain, previous, body, bytes: whole.len() })
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn record_hash(
    store: &StoreId,
    length: u32,
    sequence: u64,
    previous: &Digest,
    body: &[u8],
) -> Digest {
    let mut hash = Sha256::new();
    hash.update(b"kms-store-record");
    hash.update(store);
    hash.update(length.to_be_bytes());
    hash.update(sequence.to_be_bytes());
    hash.update(previous.as_bytes());
    hash.update(body);
    Digest(hash.finalize().into())
}

fn head_crc(store: &StoreId, fields: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(store), fields)
}

/// Reads fields of fixed length off a slice that its caller has found long enough.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the caller checked the length");
        self.0 = rest;
        *field
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }
}

/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: usize = 4096;
/// Bytes of a record before its body.
pub(crate) const RECORD_HEAD_BYTES: usize = 88;
/// Records begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// What this build writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

const SEGMENT_MAGIC: &[u8; 8] = b"KMSJRNL\n";
const RECORD_MAGIC: &[u8; 4] = b"KREC";

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = [3; 16];

    #[test]
    fn records_read_back_and_no_flipped_bit_does() {
        let before = Chain::genesis(&STORE);
        for body in [&b""[..], b"1", b"12345678", b"123456789"] {
            let (bytes, chain) = frame(&STORE, &before, body).unwrap();
            assert_eq!(bytes.len() % ALIGNMENT, 0);
            let framed = unframe(&STORE, &bytes).unwrap();
            assert_eq!((framed.chain, framed.previous, framed.body), (chain, before.hash, body));
            assert!(unframe(&[4; 16], &bytes).is_none(), "a record of another store");
            for cut in 0..bytes.len() {
                assert!(unframe(&STORE, &bytes[..cut]).is_none(), "cut at {cut}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(unframe(&STORE, &changed).is_none(), "bit {bit}");
            }
        }
    }

    #[test]
    fn headers_read_back_and_no_flipped_bit_does() {
        let header = SegmentHeader { store: STORE, number: 9, before: Chain::genesis(&STORE) };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        assert_eq!(SegmentHeader::decode(&bytes[..4095]), Err(HeaderFault::Damaged));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&changed), Err(HeaderFault::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_header_of_another_release_is_told_apart() {
        let header = SegmentHeader { store: STORE, number: 1, before: Chain::genesis(&STORE) };
        let mut bytes = header.encode();
        bytes[11] = 7;
        let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Version(7)));
    }
}
