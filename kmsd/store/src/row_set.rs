//! The set of all rows as one digest, which changes with each row and not with their number.
//!
//! ```text
//! row digest  = SHA-256( "kms-store-row" || revision[8] || live[1] || value )
//! element     = Ristretto255 point of SHA-512( "kms-store-row-set" || key length[4] || key || row digest )
//! bucket(key) = the first 16 bits of SHA-256( "kms-store-bucket" || key )
//! state       = the sum of the elements in one of the 65,536 buckets, 32 bytes; zeros when empty
//! root        = SHA-256( "kms-store-row-set-root" || 256 * SHA-256( 256 states ) )
//! ```
//!
//! A row that was deleted is an element as well, since its revision counts on. The sum over a group
//! in which discrete logarithms are hard (a multiset hash, Clarke et al. 2003; over a curve,
//! Maitin-Shepard et al. 2016) lets one row change at the cost of two points, and nobody finds two
//! sets with one sum, even among rows that he may choose. A sum of plain hashes would not do: with
//! many old versions to choose from, sets with equal sums are found.

use std::collections::BTreeMap;

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::traits::Identity;
use kms_core::id::Digest;
use sha2::{Digest as _, Sha256, Sha512};

use crate::batch::RowChange;

/// A row's digest, for a deleted one too.
pub(crate) fn row_digest(revision: u64, value: Option<&[u8]>) -> Digest {
    let mut hash = Sha256::new();
    hash.update(b"kms-store-row");
    hash.update(revision.to_be_bytes());
    hash.update([u8::from(value.is_some())]);
    hash.update(value.unwrap_or_default());
    Digest(hash.finalize().into())
}

impl RowChange {
    pub(crate) fn digest(&self) -> Digest {
        row_digest(self.revision, self.value.as_deref())
    }
}

/// The state of one bucket.
pub(crate) type State = [u8; 32];

/// Which bucket a key is in.
pub(crate) fn bucket_of(key: &str) -> u16 {
    let mut hash = Sha256::new();
    hash.update(b"kms-store-bucket");
    hash.update(key);
    let hash = hash.finalize();
    u16::from_be_bytes([hash[0], hash[1]])
}

fn element(key: &str, row: &Digest) -> RistrettoPoint {
    let mut hash = Sha512::new();
    hash.update(b"kms-store-row-set");
    hash.update((key.len() as u32).to_be_bytes());
    hash.update(key);
    hash.update(row.as_bytes());
    RistrettoPoint::from_uniform_bytes(&hash.finalize().into())
}

/// The 65,536 buckets.
#[derive(Clone)]
pub(crate) struct Buckets {
    states: Vec<State>,
    /// One digest for 256 buckets; `None` since one of them changed.
    chunks: Vec<Option<Digest>>,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { states: vec![EMPTY; BUCKETS], chunks: vec![None; BUCKETS / CHUNK] }
    }
}

impl Buckets {
    /// The buckets that change when rows do, as they would be. `None` when a state is no point,
    /// which no state is that was made here.
    ///
    /// Each row comes with its digest before, if there was one, and after.
    pub(crate) fn planned<'a>(
        &self,
        rows: impl Iterator<Item = (&'a str, Option<Digest>, Digest)>,
    ) -> Option<BTreeMap<u16, State>> {
        let mut points: BTreeMap<u16, RistrettoPoint> = BTreeMap::new();
        for (key, before, after) in rows {
            if before == Some(after) {
                continue;
            }
            let bucket = bucket_of(key);
            let mut point = match points.get(&bucket) {
                Some(point) => *point,
                None => CompressedRistretto(self.states[usize::from(bucket)]).decompress()?,
            };
            point += element(key, &after);
            if let Some(before) = before {
                point -= element(key, &before);
            }
            points.insert(bucket, point);
        }
        Some(points.into_iter().map(|(at, point)| (at, point.compress().0)).collect())
    }

    pub(crate) fn set(&mut self, bucket: u16, state: State) {
        let at = usize::from(bucket);
        self.states[at] = state;
        self.chunks[at / CHUNK] = None;
    }

    /// The digest over all of them.
    pub(crate) fn root(&mut self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(b"kms-store-row-set-root");
        for (states, chunk) in self.states.chunks_exact(CHUNK).zip(&mut self.chunks) {
            let fresh = || Digest(Sha256::digest(states.as_flattened()).into());
            hash.update(chunk.get_or_insert_with(fresh).as_bytes());
        }
        Digest(hash.finalize().into())
    }

    /// The states of the buckets that `others` has, out of these.
    pub(crate) fn filled_of(&self, others: Option<&BTreeMap<u16, State>>) -> BTreeMap<u16, State> {
        let buckets = others.into_iter().flat_map(BTreeMap::keys);
        buckets.map(|bucket| (*bucket, self.states[usize::from(*bucket)])).collect()
    }

    /// The buckets that are not empty.
    pub(crate) fn filled(&self) -> impl Iterator<Item = (u16, &State)> {
        (0..=u16::MAX).zip(&self.states).filter(|(_, state)| **state != EMPTY)
    }
}

/// Buckets made from all rows, to hold others against them.
pub(crate) struct Recount(Vec<RistrettoPoint>);

impl Recount {
    pub(crate) fn new() -> Self {
        Self(vec![RistrettoPoint::identity(); BUCKETS])
    }

    pub(crate) fn add(&mut self, key: &str, row: &Digest) {
        self.0[usize::from(bucket_of(key))] += element(key, row);
    }

    /// The first bucket whose state is another one.
    pub(crate) fn differs_from(&self, buckets: &Buckets) -> Option<u16> {
        let pairs = (0..=u16::MAX).zip(self.0.iter().zip(&buckets.states));
        let differs = |point: &RistrettoPoint, state: &State| {
            CompressedRistretto(*state).decompress().as_ref() != Some(point)
        };
        let is_empty = |point: &RistrettoPoint, state: &State| {
            *state == EMPTY && *point == RistrettoPoint::identity()
        };
        let mut pairs = pairs.filter(|(_, (point, state))| !is_empty(point, state));
        pairs.find(|(_, (point, state))| differs(point, state)).map(|(bucket, _)| bucket)
    }
}

/// Bucket states as they stand in a record or a snapshot: number[2] || state[32].
pub(crate) fn encode_states<'a>(states: impl Iterator<Item = (u16, &'a State)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (bucket, state) in states {
        bytes.extend(bucket.to_be_bytes());
        bytes.extend_from_slice(state);
    }
    bytes
}

/// Reads [`encode_states`]; `None` when the bytes are not that.
pub(crate) fn decode_states(bytes: &[u8]) -> Option<impl Iterator<Item = (u16, State)>> {
    let (states, []) = bytes.as_chunks::<34>() else { return None };
    Some(states.iter().map(|bytes| {
        let (bucket, state) = bytes.split_at(2);
        let state = state.try_into().unwrap_or(EMPTY);
        (u16::from_be_bytes([bucket[0], bucket[1]]), state)
    }))
}

/// The identity, encoded.
const EMPTY: State = [0; 32];
const BUCKETS: usize = 65_536;
const CHUNK: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(buckets: &mut Buckets, rows: &[(&str, Option<Digest>, Digest)]) {
        for (bucket, state) in buckets.planned(rows.iter().copied()).unwrap() {
            buckets.set(bucket, state);
        }
    }

    #[test]
    fn the_root_tells_the_set_and_not_how_it_came_about() {
        let digests: Vec<_> = (0..40_u64).map(|i| row_digest(i, Some(b"value"))).collect();
        let keys: Vec<_> = (0..40).map(|i| format!("row/{i}")).collect();
        let (mut forwards, mut backwards) = (Buckets::default(), Buckets::default());
        let empty = forwards.root();
        for (key, digest) in keys.iter().zip(&digests) {
            changed(&mut forwards, &[(key, None, *digest)]);
        }
        // The other way round, with an older version of each in between.
        for (key, digest) in keys.iter().zip(&digests).rev() {
            let older = row_digest(0, None);
            changed(&mut backwards, &[(key, None, older), (key, Some(older), *digest)]);
        }
        assert_ne!(forwards.root(), empty);
        assert_eq!(forwards.root(), backwards.root());
        let mut recount = Recount::new();
        keys.iter().zip(&digests).for_each(|(key, digest)| recount.add(key, digest));
        assert_eq!(recount.differs_from(&forwards), None);
        let mut copy = Buckets::default();
        let encoded = encode_states(forwards.filled());
        decode_states(&encoded).unwrap().for_each(|(bucket, state)| copy.set(bucket, state));
        assert_eq!(copy.root(), forwards.root());
    }

    #[test]
    fn a_missing_doubled_swapped_or_older_row_gives_another_root() {
        let rows: Vec<_> =
            ["a", "b"].map(|key| (key, None, row_digest(2, Some(key.as_bytes())))).to_vec();
        let root = |rows: &[_]| {
            let mut buckets = Buckets::default();
            changed(&mut buckets, rows);
            buckets.root()
        };
        let whole = root(&rows);
        let (a, b) = (rows[0].2, rows[1].2);
        let others: [&[_]; 6] = [
            &rows[..1],
            &[rows[0], rows[1], rows[1]],
            &[("a", None, b), ("b", None, a)],
            &[("a", None, row_digest(1, Some(b"a"))), rows[1]],
            &[("a", None, row_digest(2, None)), rows[1]],
            &[rows[0], rows[1], ("c", None, a)],
        ];
        for (i, other) in others.into_iter().enumerate() {
            assert_ne!(root(other), whole, "{i}");
            let (mut recount, mut buckets) = (Recount::new(), Buckets::default());
            other.iter().for_each(|(key, _, digest)| recount.add(key, digest));
            changed(&mut buckets, &rows);
            assert!(recount.differs_from(&buckets).is_some(), "{i}");
        }
    }
}
