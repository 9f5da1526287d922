//! What somebody with the disk can do to the rows of a stopped daemon: he writes them anew with every
//! checksum, hash and sum over them right, by what the format says alone. He lacks the daemon's secret, so
//! he leaves its words as they are. None of the store's own code is used for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::traits::Identity as _;
use sha2::{Digest as _, Sha256, Sha512};

/// A row of the snapshot; without a value it is deleted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) revision: u64,
    pub(crate) value: Option<Vec<u8>>,
}

/// A block as it stands: its first key, and its word, count and marks, which stay.
struct Block {
    first: String,
    kept: Vec<u8>,
}

struct Snapshot {
    head: PathBuf,
    head_bytes: Vec<u8>,
    rows_path: PathBuf,
    rows_head: Vec<u8>,
    blocks: Vec<Block>,
    rows: Vec<Row>,
    table_vouch: Vec<u8>,
}

/// The rows as the latest snapshot has them.
pub(crate) fn rows(store: &Path) -> Vec<Row> {
    Snapshot::read(store).rows
}

/// Writes the snapshot anew with other rows, and takes the index away, which would tell.
pub(crate) fn forge(store: &Path, edit: impl FnOnce(&mut Vec<Row>)) {
    let mut snapshot = Snapshot::read(store);
    edit(&mut snapshot.rows);
    snapshot.write();
    fs::remove_dir_all(store.join("index")).unwrap();
}

impl Snapshot {
    fn read(store: &Path) -> Self {
        let folder = store.join("snapshots");
        let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let head = files.filter(|path| path.extension().is_some_and(|e| e == "head")).max();
        let head = head.expect("a stop leaves a snapshot");
        let head_bytes = fs::read(&head).unwrap();
        let number = u64_at(&head_bytes, ROWS_NUMBER_AT);
        let rows_path = folder.join(format!("{number:010}.rows"));
        let bytes = fs::read(&rows_path).unwrap();
        let table = usize::try_from(u64_at(&bytes, bytes.len() - 4 - 32 - 8)).unwrap();
        let (mut blocks, mut rows, mut at) = (Vec::new(), Vec::new(), ROWS_HEAD);
        while at < table {
            let length = u32_at(&bytes, at);
            let count = u32_at(&bytes, at + 8 + 32);
            let body = at + 8 + 32 + 4 + 8 * count;
            let kept = bytes[at + 8..body].to_vec();
            let in_block = read_rows(&bytes[body..body + length]);
            blocks.push(Block { first: in_block[0].key.clone(), kept });
            rows.extend(in_block);
            at = body + length;
        }
        Self {
            head,
            head_bytes,
            rows_path,
            rows_head: bytes[..ROWS_HEAD].to_vec(),
            blocks,
            rows,
            table_vouch: bytes[bytes.len() - 36..bytes.len() - 4].to_vec(),
        }
    }

    fn write(self) {
        let Self { head, mut head_bytes, rows_path, rows_head, blocks, rows, table_vouch } = self;
        let (store, number) = (rows_head[12..28].to_vec(), rows_head[28..36].to_vec());
        let (mut bytes, mut table) = (rows_head, Vec::new());
        for (at, block) in blocks.iter().enumerate() {
            let end = blocks.get(at + 1).map(|next| next.first.as_str());
            let begin = if at == 0 { "" } else { block.first.as_str() };
            let in_reach = |row: &&Row| {
                row.key.as_str() >= begin && end.is_none_or(|end| row.key.as_str() < end)
            };
            let body: Vec<u8> = rows.iter().filter(in_reach).flat_map(row_bytes).collect();
            let first = &rows.iter().find(in_reach).unwrap().key;
            let offset = bytes.len() as u64;
            table.extend(offset.to_be_bytes());
            table.extend((first.len() as u16).to_be_bytes());
            table.extend(first.as_bytes());
            let summed = [&store[..], &number, &offset.to_be_bytes(), &block.kept, &body].concat();
            bytes.extend((body.len() as u32).to_be_bytes());
            bytes.extend(crc32c::crc32c(&summed).to_be_bytes());
            bytes.extend(&block.kept);
            bytes.extend(body);
        }
        let payload: usize =
            rows.iter().map(|row| row.key.len() + row.value.as_ref().map_or(0, Vec::len)).sum();
        for field in [rows.len(), payload, bytes.len()] {
            table.extend((field as u64).to_be_bytes());
        }
        table.extend(table_vouch);
        table.extend(crc32c::crc32c(&table).to_be_bytes());
        bytes.extend(table);
        head_bytes[ROWS_NUMBER_AT + 8..ROWS_NUMBER_AT + 16]
            .copy_from_slice(&(bytes.len() as u64).to_be_bytes());
        head_bytes[ROWS_NUMBER_AT + 16..ROWS_NUMBER_AT + 48]
            .copy_from_slice(&Sha256::digest(&bytes));
        let word = head_bytes[head_bytes.len() - 64..head_bytes.len() - 32].to_vec();
        head_bytes.truncate(STATES_AT);
        head_bytes.extend(states(&rows));
        head_bytes.extend(word);
        head_bytes.extend(Sha256::digest(&head_bytes));
        fs::write(rows_path, bytes).unwrap();
        fs::write(head, head_bytes).unwrap();
    }
}

/// The sums over the rows of each bucket.
fn states(rows: &[Row]) -> Vec<u8> {
    let mut buckets: BTreeMap<u16, RistrettoPoint> = BTreeMap::new();
    for Row { key, revision, value } in rows {
        let mut row = Sha256::new();
        row.update(b"kms-store-row");
        row.update(revision.to_be_bytes());
        row.update([u8::from(value.is_some())]);
        row.update(value.as_deref().unwrap_or_default());
        let mut element = Sha512::new();
        element.update(b"kms-store-row-set");
        element.update((key.len() as u32).to_be_bytes());
        element.update(key);
        element.update(row.finalize());
        let bucket = Sha256::digest([b"kms-store-bucket", key.as_bytes()].concat());
        let bucket = u16::from_be_bytes([bucket[0], bucket[1]]);
        *buckets.entry(bucket).or_insert_with(RistrettoPoint::identity) +=
            RistrettoPoint::from_uniform_bytes(&element.finalize().into());
    }
    let state = |(bucket, point): (u16, RistrettoPoint)| {
        [&bucket.to_be_bytes()[..], &point.compress().0].concat()
    };
    buckets.into_iter().flat_map(state).collect()
}

fn read_rows(mut body: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    while !body.is_empty() {
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let key = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
        let (revision, live) = (u64_at(body, 2 + length), body[10 + length] == 1);
        body = &body[11 + length..];
        let mut value = None;
        if live {
            let length = u32_at(body, 0);
            value = Some(body[4..4 + length].to_vec());
            body = &body[4 + length..];
        }
        rows.push(Row { key, revision, value });
    }
    rows
}

fn row_bytes(row: &Row) -> Vec<u8> {
    let Row { key, revision, value } = row;
    let mut bytes = (key.len() as u16).to_be_bytes().to_vec();
    bytes.extend(key.as_bytes());
    bytes.extend(revision.to_be_bytes());
    bytes.push(u8::from(value.is_some()));
    if let Some(value) = value {
        bytes.extend((value.len() as u32).to_be_bytes());
        bytes.extend(value);
    }
    bytes
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Magic, version, store, number.
const ROWS_HEAD: usize = 8 + 4 + 16 + 8;
/// In a head: after the same, the chain and three counts.
const ROWS_NUMBER_AT: usize = ROWS_HEAD + 40 + 3 * 8;
/// After number, length and digest of the rows, and a flag.
const STATES_AT: usize = ROWS_NUMBER_AT + 48 + 1;
