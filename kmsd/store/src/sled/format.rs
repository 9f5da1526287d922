//! The bytes of the journal.
//!
//! ```text
//! segment = header[4096] || record* || zeros
//! header  = "KMSJRNL\n" || version[4] || store[16] || number[8] || sequence before[8]
//!           || hash of the record before[32] || zeros || crc32c[4]
//! record  = "KREC" || body length[4] || sequence[8] || hash of the record before[32]
//!           || hash[32] || crc32c( store || all before )[4] || length of rows[4]
//!           || rows || log || zeros to 8
//! hash    = SHA-256( "kms-store-record-2" || store || sequence || hash of the record before
//!           || length of rows || SHA-256( rows ) || log )
//! rows    = protobuf RowPart, or nothing
//! log     = protobuf LogPart
//! ```
//!
//! A segment whose rows stand in a snapshot is reduced to its part of the log: the rows of each
//! record give way to their digest, with which the record's hash is verified as before.
//!
//! ```text
//! reduced = header[4096] || reduced record* || table
//! header  = as above, with "KMSJLOG\n", and after the hash: last sequence[8] || its hash[32]
//!           || offset of the table[8]
//! reduced record = as above, with "KLOG" and SHA-256( rows ) in the place of rows
//! table   = ( offset in the segment[8] || offset here[8] )* || crc32c[4]: of every 32nd record
//! ```
//!
//! Integers are big-endian. A segment's header has a block of its own, so that no later write can
//! tear it. `store` is drawn once for each store and shown to nobody who commits; so no value can
//! be chosen that looks like a record.

use kms_core::id::Digest;
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::Voucher;
use crate::batch::RowChange;

/// Names one store for ever.
pub(crate) type StoreId = [u8; 16];

/// What one sync makes durable: the batches of one group, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) rows: RowPart,
    pub(crate) log: LogPart,
    /// Whether it had rows that were taken out of it.
    pub(crate) rows_are_gone: bool,
}

/// What a record does to rows. It goes when a snapshot holds its effect.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RowPart {
    #[prost(message, repeated, tag = "1")]
    pub(crate) rows: Vec<RowChange>,
    /// The buckets of the row set that change, as they are afterwards: number[2] || state[32].
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) buckets: Vec<u8>,
}

/// What a record does to the log. It stays.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LogPart {
    #[prost(message, repeated, tag = "1")]
    pub(crate) batches: Vec<Applied>,
    /// How many slots had been given out; a table with fewer is not the one that rows point into.
    #[prost(uint64, tag = "2")]
    pub(crate) slots: u64,
    /// The latest sequence whose row set a leaf up to here names.
    #[prost(uint64, tag = "3")]
    pub(crate) bound: u64,
    /// The word of whoever vouches for the record, over its hash without this field; the last field,
    /// 32 bytes, or none.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) vouch: Vec<u8>,
}

/// What one batch appended.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Applied {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(crate) leaves: Vec<Vec<u8>>,
    /// 32 bytes, or none for a batch without a name.
    #[prost(bytes = "vec", tag = "2")]
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

    pub(crate) fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend_from_slice(self.hash.as_bytes());
    }
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SegmentHeader {
    pub(crate) store: StoreId,
    pub(crate) number: u64,
    /// Where the chain stood when the segment began.
    pub(crate) before: Chain,
    /// How it ends, if it was reduced to its part of the log.
    pub(crate) reduced: Option<Reduced>,
}

/// What is known of a segment once nothing is appended to it any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Reduced {
    /// The chain with its last record.
    pub(crate) end: Chain,
    /// Where its table begins.
    pub(crate) table: u64,
}

/// Why a header is not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HeaderFault {
    Damaged,
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { store, number, before, reduced } = self;
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(if reduced.is_some() { REDUCED_MAGIC } else { SEGMENT_MAGIC });
        bytes.extend(FORMAT_VERSION.to_be_bytes());
        bytes.extend_from_slice(store);
        bytes.extend(number.to_be_bytes());
        before.encode_into(&mut bytes);
        if let Some(Reduced { end, table }) = reduced {
            end.encode_into(&mut bytes);
            bytes.extend(table.to_be_bytes());
        }
        bytes.resize(HEADER_BYTES - 4, 0);
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let header = bytes.get(..HEADER_BYTES).ok_or(HeaderFault::Damaged)?;
        let (body, crc) = header.split_at(HEADER_BYTES - 4);
        let is_reduced = body.starts_with(REDUCED_MAGIC);
        let is_ours = is_reduced || body.starts_with(SEGMENT_MAGIC);
        if crc32c::crc32c(body).to_be_bytes() != crc || !is_ours {
            return Err(HeaderFault::Damaged);
        }
        let mut fields = Fields(&body[SEGMENT_MAGIC.len()..]);
        let version = fields.u32();
        if version != FORMAT_VERSION {
            return Err(HeaderFault::Version(version));
        }
        let (store, number) = (fields.take(), fields.u64());
        let before = fields.chain();
        let reduced = is_reduced.then(|| Reduced { end: fields.chain(), table: fields.u64() });
        Ok(Self { store, number, before, reduced })
    }
}

/// A record whose hash is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framed<'a> {
    pub(crate) chain: Chain,
    /// Hash of the record before it.
    pub(crate) previous: Digest,
    /// Its rows, unless they are gone.
    rows: Option<&'a [u8]>,
    rows_digest: Digest,
    rows_bytes: u32,
    log: &'a [u8],
    /// With padding.
    pub(crate) bytes: usize,
    /// With padding, when it still had its rows.
    pub(crate) original_bytes: usize,
}

impl Framed<'_> {
    /// What is in it; `None` when this release cannot read it.
    pub(crate) fn decode(&self) -> Option<Record> {
        let rows = RowPart::decode(self.rows.unwrap_or_default()).ok()?;
        let log = LogPart::decode(self.log).ok()?;
        let rows_are_gone = self.rows.is_none() && self.rows_bytes > 0;
        Some(Record { rows, log, rows_are_gone })
    }

    /// Whether `voucher` has vouched for it.
    pub(crate) fn is_vouched(&self, store: &StoreId, voucher: &dyn Voucher) -> bool {
        let Some((log, field)) = self.log.split_last_chunk::<VOUCH_FIELD_BYTES>() else {
            return false;
        };
        let Some(vouch) = field.strip_prefix(&VOUCH_TAG).and_then(|vouch| vouch.try_into().ok())
        else {
            return false;
        };
        let Chain { sequence, hash: _ } = self.chain;
        let (previous, digest) = (&self.previous, &self.rows_digest);
        let hash = record_hash(store, sequence, previous, self.rows_bytes, digest, log);
        voucher.is_vouched(&Digest(hash.finalize().into()), vouch)
    }

    /// Whether it changes rows, also if they are gone from it.
    pub(crate) const fn has_rows(&self) -> bool {
        self.rows_bytes > 0
    }

    /// The same record without its rows, byte for byte.
    pub(crate) fn reduce(&self, store: &StoreId) -> Option<Vec<u8>> {
        let length = u32::try_from(DIGEST_BYTES + self.log.len()).ok()?;
        let head = Head {
            magic: REDUCED_RECORD_MAGIC,
            length,
            chain: self.chain,
            previous: self.previous,
            rows_bytes: self.rows_bytes,
        };
        let mut bytes = head.encode(store);
        bytes.extend_from_slice(self.rows_digest.as_bytes());
        bytes.extend_from_slice(self.log);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        Some(bytes)
    }
}

/// The first bytes of a record, when they are that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHead {
    body_bytes: usize,
    sequence: u64,
    previous: Digest,
    hash: Digest,
    rows_bytes: u32,
    is_reduced: bool,
}

impl RecordHead {
    /// How long the record is, with padding.
    pub(crate) const fn record_bytes(&self) -> usize {
        RECORD_HEAD_BYTES + self.body_bytes.next_multiple_of(ALIGNMENT)
    }

    /// How long it was, with padding, when it still had its rows.
    pub(crate) const fn original_bytes(&self) -> usize {
        let body = match self.is_reduced {
            true => self.body_bytes.saturating_sub(DIGEST_BYTES) + self.rows_bytes as usize,
            false => self.body_bytes,
        };
        RECORD_HEAD_BYTES + body.next_multiple_of(ALIGNMENT)
    }

    pub(crate) fn decode(store: &StoreId, bytes: &[u8]) -> Option<Self> {
        let (fields, rest) = bytes.get(..RECORD_HEAD_BYTES)?.split_at(RECORD_HEAD_BYTES - 8);
        let (crc, rows_bytes) = rest.split_at(4);
        let is_reduced = fields.starts_with(REDUCED_RECORD_MAGIC);
        if !(is_reduced || fields.starts_with(RECORD_MAGIC)) {
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
            rows_bytes: Fields(rows_bytes).u32(),
            is_reduced,
        })
    }
}

/// The fields before a body.
struct Head {
    magic: &'static [u8; 4],
    length: u32,
    chain: Chain,
    previous: Digest,
    rows_bytes: u32,
}

impl Head {
    fn encode(&self, store: &StoreId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORD_HEAD_BYTES + self.length as usize + ALIGNMENT);
        bytes.extend_from_slice(self.magic);
        bytes.extend(self.length.to_be_bytes());
        bytes.extend(self.chain.sequence.to_be_bytes());
        bytes.extend_from_slice(self.previous.as_bytes());
        bytes.extend_from_slice(self.chain.hash.as_bytes());
        bytes.extend(head_crc(store, &bytes).to_be_bytes());
        bytes.extend(self.rows_bytes.to_be_bytes());
        bytes
    }
}

/// Writes the record that follows `before`, with the word of `voucher` if there is one, and says where
/// the chain stands with it. `None` when the body is longer than a record may be.
pub(crate) fn frame(
    store: &StoreId,
    before: &Chain,
    record: &Record,
    voucher: Option<&dyn Voucher>,
) -> Option<(Vec<u8>, Chain)> {
    let Record { rows, log, rows_are_gone: _ } = record;
    let (rows, mut log) = (rows.encode_to_vec(), log.encode_to_vec());
    let rows_bytes = u32::try_from(rows.len()).ok()?;
    let sequence = before.sequence.checked_add(1)?;
    let rows_digest = Digest(Sha256::digest(&rows).into());
    let mut hash = record_hash(store, sequence, &before.hash, rows_bytes, &rows_digest, &log);
    if let Some(voucher) = voucher {
        let vouch = voucher.vouch(&Digest(hash.clone().finalize().into()));
        let field = [&VOUCH_TAG[..], &vouch].concat();
        hash.update(&field);
        log.extend(field);
    }
    let length = u32::try_from(rows.len() + log.len()).ok()?;
    let chain = Chain { sequence, hash: Digest(hash.finalize().into()) };
    let head = Head { magic: RECORD_MAGIC, length, chain, previous: before.hash, rows_bytes };
    let mut bytes = head.encode(store);
    bytes.extend_from_slice(&rows);
    bytes.extend_from_slice(&log);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    Some((bytes, chain))
}

/// Reads the record at the beginning of `bytes`; `None` when there is none, or a bad one.
pub(crate) fn unframe<'a>(store: &StoreId, bytes: &'a [u8]) -> Option<Framed<'a>> {
    let head = RecordHead::decode(store, bytes)?;
    let RecordHead { body_bytes, sequence, previous, hash, rows_bytes, is_reduced } = head;
    let whole = bytes.get(..head.record_bytes())?;
    let (body, padding) = whole[RECORD_HEAD_BYTES..].split_at(body_bytes);
    let (rows, rows_digest, log) = if is_reduced {
        let (digest, log) = body.split_first_chunk::<DIGEST_BYTES>()?;
        (None, Digest(*digest), log)
    } else {
        let (rows, log) = body.split_at_checked(usize::try_from(rows_bytes).ok()?)?;
        (Some(rows), Digest(Sha256::digest(rows).into()), log)
    };
    let found = record_hash(store, sequence, &previous, rows_bytes, &rows_digest, log).finalize();
    let right = found[..] == hash.as_bytes()[..];
    let chain = Chain { sequence, hash };
    let original_bytes = head.original_bytes();
    let bytes = whole.len();
    (right && is_zero(padding)).then_some(Framed {
        chain,
        previous,
        rows,
        rows_digest,
        rows_bytes,
        log,
        bytes,
        original_bytes,
    })
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn record_hash(
    store: &StoreId,
    sequence: u64,
    previous: &Digest,
    rows_bytes: u32,
    rows_digest: &Digest,
    log: &[u8],
) -> Sha256 {
    let mut hash = Sha256::new();
    hash.update(b"kms-store-record-2");
    hash.update(store);
    hash.update(sequence.to_be_bytes());
    hash.update(previous.as_bytes());
    hash.update(rows_bytes.to_be_bytes());
    hash.update(rows_digest.as_bytes());
    hash.update(log);
    hash
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

    pub(crate) fn chain(&mut self) -> Chain {
        Chain { sequence: self.u64(), hash: Digest(self.take()) }
    }
}

/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: usize = 4096;
/// Bytes of a record before its body.
pub(crate) const RECORD_HEAD_BYTES: usize = 88;
/// Records begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// What this build writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 4;

const SEGMENT_MAGIC: &[u8; 8] = b"KMSJRNL\n";
const REDUCED_MAGIC: &[u8; 8] = b"KMSJLOG\n";
const RECORD_MAGIC: &[u8; 4] = b"KREC";
const REDUCED_RECORD_MAGIC: &[u8; 4] = b"KLOG";
const DIGEST_BYTES: usize = 32;
/// Tag and length of [`LogPart::vouch`], as protobuf writes them.
const VOUCH_TAG: [u8; 2] = [4 << 3 | 2, 32];
const VOUCH_FIELD_BYTES: usize = 34;

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = [3; 16];

    fn record(value: &[u8], leaf: &[u8]) -> Record {
        let change = RowChange { key: "k".into(), revision: 1, value: Some(value.to_vec()) };
        let rows = if value.is_empty() { vec![] } else { vec![change] };
        let batch = Applied { leaves: vec![leaf.to_vec()], idempotency: vec![] };
        let log = LogPart { batches: vec![batch], slots: 3, bound: 0, vouch: vec![] };
        Record { rows: RowPart { rows, buckets: vec![] }, log, rows_are_gone: false }
    }

    #[test]
    fn records_read_back_and_no_flipped_bit_does() {
        let before = Chain::genesis(&STORE);
        for (value, leaf) in [("", "leaf"), ("1", ""), ("12345678", "1"), ("123456789", "12")] {
            let record = record(value.as_bytes(), leaf.as_bytes());
            let (whole, chain) = frame(&STORE, &before, &record, None).unwrap();
            let reduced = unframe(&STORE, &whole).unwrap().reduce(&STORE).unwrap();
            for (bytes, has_rows) in [(&whole, true), (&reduced, false)] {
                assert_eq!(bytes.len() % ALIGNMENT, 0);
                let framed = unframe(&STORE, bytes).unwrap();
                assert_eq!((framed.chain, framed.previous), (chain, before.hash));
                assert_eq!((framed.bytes, framed.original_bytes), (bytes.len(), whole.len()));
                let read = framed.decode().unwrap();
                assert_eq!(read.log, record.log);
                assert_eq!(read.rows_are_gone, !has_rows && !value.is_empty());
                assert_eq!(
                    read.rows,
                    if has_rows { record.rows.clone() } else { RowPart::default() }
                );
                assert!(unframe(&[4; 16], bytes).is_none(), "a record of another store");
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
    }

    #[test]
    fn headers_read_back_and_no_flipped_bit_does() {
        let (before, end) = (Chain::genesis(&STORE), Chain { sequence: 7, hash: Digest([1; 32]) });
        for reduced in [None, Some(Reduced { end, table: 5000 })] {
            let header = SegmentHeader { store: STORE, number: 9, before, reduced };
            let bytes = header.encode();
            assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
            assert_eq!(SegmentHeader::decode(&bytes[..4095]), Err(HeaderFault::Damaged));
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(SegmentHeader::decode(&changed), Err(HeaderFault::Damaged), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_header_of_another_release_is_told_apart() {
        let before = Chain::genesis(&STORE);
        let header = SegmentHeader { store: STORE, number: 1, before, reduced: None };
        let mut bytes = header.encode();
        bytes[11] = 7;
        let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Version(7)));
    }
}
