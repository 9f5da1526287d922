//! Holds the index against the truth after a start, row by row, so that one that is missing, older,
//! swapped or added is found and named before it is served.
//!
//! A store with few rows is proven before it opens, and an index that fails is made anew at once. A
//! larger one opens, and a thread walks over it; until it has come by, each row is held
//! against the truth when it is read. Who is found out then ends the store, and the next open makes
//! the index anew.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use kms_core::id::Digest;

use super::folder::{Folder, write_note};
use super::index::{Index, unusable};
use super::shared::Shared;
use super::snapshot::{self, Head, RowsFrom, RowsReader};
use crate::row_set::{Buckets, Recount};
use crate::{Damage, Disagreement, RowFault, StoreError};

/// What the rows of the index should be.
pub(crate) struct Proof {
    snapshot: Option<Arc<RowsReader>>,
    /// The rows that changed since, deleted ones too.
    later: BTreeMap<String, Digest>,
    /// Everything up to this key is proven.
    proven_to: Option<String>,
}

impl Proof {
    pub(crate) fn new(snapshot: Option<Arc<RowsReader>>, later: BTreeMap<String, Digest>) -> Self {
        Self { snapshot, later, proven_to: None }
    }

    /// Takes in what is being committed.
    pub(crate) fn extend(&mut self, changed: impl Iterator<Item = (String, Digest)>) {
        self.later.extend(changed);
    }

    /// At least how many rows there are to prove.
    pub(crate) fn rows(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.rows) + self.later.len() as u64
    }

    /// Holds one row against the truth.
    pub(crate) fn row(
        &self,
        index: &Index,
        folder: &Folder,
        key: &str,
    ) -> Result<Option<Disagreement>, StoreError> {
        if self.proven_to.as_ref().is_some_and(|to| key <= to.as_str()) {
            return Ok(None);
        }
        let found = index.row_digest(key).map_err(|fault| unusable(&folder.index(), &fault))?;
        let expected = match (self.later.get(key), &self.snapshot) {
            (Some(later), _) => Some(*later),
            (None, Some(snapshot)) => snapshot.row(key)?.map(|row| row.digest()),
            (None, None) => None,
        };
        Ok(disagreement(key, expected, found))
    }

    /// Holds up to `limit` rows after `after` against the truth; says with which key it ends, or
    /// nothing at the end, and tells the first few that disagree.
    pub(crate) fn step(
        &self,
        index: &Index,
        folder: &Folder,
        after: Option<&str>,
        limit: usize,
        told: &mut Vec<Disagreement>,
    ) -> Result<Option<String>, StoreError> {
        let found = index.digests_after(after, limit);
        let found = found.map_err(|fault| unusable(&folder.index(), &fault))?;
        let last = (found.len() == limit).then(|| found.last().map(|(key, _)| key.clone()));
        let last = last.flatten();
        let mut found = found.into_iter().peekable();
        let mut rows = TruthRows::after(self, after)?;
        loop {
            let in_reach =
                |(key, _): &(String, Digest)| last.as_ref().is_none_or(|last| key <= last);
            let expected = rows.peek()?.filter(|row| in_reach(row));
            let (key, expected, found) = match (expected, found.peek()) {
                (None, None) => return Ok(last),
                (Some((key, expected)), Some((other, digest))) if key == *other => {
                    let digest = *digest;
                    found.next();
                    rows.take()?;
                    (key, Some(expected), Some(digest))
                }
                (Some((key, expected)), other) if other.is_none_or(|(other, _)| key < *other) => {
                    rows.take()?;
                    (key, Some(expected), None)
                }
                _ => match found.next() {
                    Some((key, digest)) => (key, None, Some(digest)),
                    None => return Ok(last),
                },
            };
            let differs = disagreement(&key, expected, found);
            told.extend(differs.filter(|_| told.len() < TOLD_MAX));
        }
    }

    /// All of them at once.
    pub(crate) fn whole(
        &self,
        index: &Index,
        folder: &Folder,
    ) -> Result<Vec<Disagreement>, StoreError> {
        let (mut told, mut after) = (Vec::new(), None);
        loop {
            after = self.step(index, folder, after.as_deref(), STEP_ROWS, &mut told)?;
            if after.is_none() || told.len() >= TOLD_MAX {
                return Ok(told);
            }
        }
    }
}

fn disagreement(
    key: &str,
    expected: Option<Digest>,
    found: Option<Digest>,
) -> Option<Disagreement> {
    let fault = match (expected, found) {
        (Some(_), None) => RowFault::Missing,
        (None, Some(_)) => RowFault::Unknown,
        (expected, found) if expected != found => RowFault::Other,
        _ => return None,
    };
    Some(Disagreement { key: key.to_owned(), fault })
}

/// The rows of the truth, ascending: those that changed later go before those of the snapshot.
struct TruthRows<'a> {
    old: Option<RowsFrom<'a>>,
    next_old: Option<(String, Digest)>,
    later: Peekable<btree_map::Range<'a, String, Digest>>,
}

impl<'a> TruthRows<'a> {
    fn after(proof: &'a Proof, after: Option<&str>) -> Result<Self, StoreError> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let later = proof.later.range::<str, _>((begin, Bound::Unbounded)).peekable();
        let old = proof.snapshot.as_ref().map(|snapshot| snapshot.rows_from(after));
        let mut rows = Self { old, next_old: None, later };
        rows.read_old()?;
        Ok(rows)
    }

    fn read_old(&mut self) -> Result<(), StoreError> {
        let row = self.old.as_mut().map_or(Ok(None), RowsFrom::next)?;
        self.next_old = row.map(|row| (row.digest(), row.key)).map(|(digest, key)| (key, digest));
        Ok(())
    }

    fn peek(&mut self) -> Result<Option<(String, Digest)>, StoreError> {
        Ok(match (&self.next_old, self.later.peek()) {
            (Some(old), Some((key, _))) if old.0 < **key => Some(old.clone()),
            (_, Some((key, digest))) => Some(((*key).clone(), **digest)),
            (old, None) => old.clone(),
        })
    }

    fn take(&mut self) -> Result<(), StoreError> {
        let Some((key, _)) = self.peek()? else { return Ok(()) };
        if self.later.peek().is_some_and(|(later, _)| **later == key) {
            self.later.next();
        }
        if self.next_old.as_ref().is_some_and(|old| old.0 == key) {
            self.read_old()?;
        }
        Ok(())
    }
}

/// Holds all rows of a snapshot against the row set that it states.
///
/// # Errors
/// [`StoreError::SnapshotDamaged`] when they are others.
pub(crate) fn recount(
    folder: &Folder,
    rows: &RowsReader,
    number: u64,
    buckets: &Buckets,
) -> Result<(), StoreError> {
    let (mut recount, mut rows) = (Recount::new(), rows.rows_from(None));
    while let Some(row) = rows.next()? {
        recount.add(&row.key, &row.digest());
    }
    judge(folder, &recount, number, buckets)
}

/// Holds what was counted against the row set that a snapshot states.
pub(crate) fn judge(
    folder: &Folder,
    recount: &Recount,
    number: u64,
    buckets: &Buckets,
) -> Result<(), StoreError> {
    match recount.differs_from(buckets) {
        None => Ok(()),
        Some(_) => Err(StoreError::SnapshotDamaged {
            path: snapshot::rows_path(&folder.snapshots(), number),
            offset: 0,
            damage: Damage::RowSet,
        }),
    }
}

/// Proves a large store while it is in use, and then the snapshot that it was proven by.
pub(crate) fn prove_in_background(
    shared: Arc<Shared>,
    head: Option<&Head>,
) -> Result<(), StoreError> {
    let path = shared.folder.path().to_owned();
    let counted = head.map(|head| (head.rows.number, head.buckets.clone()));
    let work = move || {
        let snapshot = shared.proof().as_ref().and_then(|proof| proof.snapshot.clone());
        if walk(&shared).is_err() {
            return;
        }
        let (Some((number, buckets)), Some(snapshot)) = (counted, snapshot) else { return };
        if let Err(error) = recount(&shared.folder, &snapshot, number, &buckets) {
            suspect(&shared, &error);
        }
    };
    let thread = std::thread::Builder::new().name("kms-proof".to_owned());
    thread.spawn(work).map(drop).map_err(StoreError::io("start a thread for", &path))
}

/// Has the next open read the whole snapshot, and ends the store.
pub(crate) fn suspect(shared: &Shared, error: &StoreError) {
    if shared.poison(error)
        && let Err(error) = write_note(&shared.folder.snapshot_suspect(), "suspect\n")
    {
        tracing::error!(%error, "cannot note that the snapshot is damaged");
    }
}

fn walk(shared: &Shared) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    loop {
        after = shared.prove_step(after.as_deref())?;
        if after.is_none() {
            return Ok(());
        }
        // Those who wait for the lock go first. It is not a fair one: whoever is woken finds it taken again,
        // and may wait for many steps. They are so many that the walk itself must not wait for the last.
        for _ in 0..TURNS_MAX {
            if !shared.is_proof_wanted() {
                break;
            }
            std::thread::sleep(TURN);
        }
    }
}

impl Shared {
    /// Proves the next rows; says with which key it ends.
    fn prove_step(&self, after: Option<&str>) -> Result<Option<String>, StoreError> {
        let mut proof = self.proof();
        let Some(current) = proof.as_mut() else { return Ok(None) };
        let mut told = Vec::new();
        let read =
            self.with_index(|index| current.step(index, &self.folder, after, STEP_ROWS, &mut told));
        let last = self.judge_proof(read, told)?;
        current.proven_to.clone_from(&last);
        if last.is_none() {
            *proof = None;
            self.set_proven();
        }
        Ok(last)
    }

    /// Proves one row, unless all are proven.
    pub(crate) fn prove(&self, key: &str) -> Result<(), StoreError> {
        if self.is_proven() {
            return Ok(());
        }
        let proof = self.proof();
        let Some(current) = proof.as_ref() else { return Ok(()) };
        let read = self.with_index(|index| current.row(index, &self.folder, key));
        let (read, told) = match read {
            Ok(told) => (Ok(()), told.into_iter().collect()),
            Err(error) => (Err(error), Vec::new()),
        };
        self.judge_proof(read, told)
    }

    /// Proves all rows from the first one at or after `from` up to `to`.
    pub(crate) fn prove_range(&self, from: &str, to: Option<&str>) -> Result<(), StoreError> {
        if self.is_proven() {
            return Ok(());
        }
        self.prove(from)?;
        let mut after = Some(from.to_owned());
        while let Some(begin) = after {
            let proof = self.proof();
            let Some(current) = proof.as_ref() else { return Ok(()) };
            let mut told = Vec::new();
            let read = self.with_index(|index| {
                current.step(index, &self.folder, Some(&begin), STEP_ROWS, &mut told)
            });
            after = self.judge_proof(read, told)?;
            let is_past = |key: &String| to.is_some_and(|to| key.as_str() >= to);
            after = after.filter(|key| !is_past(key));
        }
        Ok(())
    }

    fn judge_proof<T>(
        &self,
        read: Result<T, StoreError>,
        told: Vec<Disagreement>,
    ) -> Result<T, StoreError> {
        match (read, told.into_iter().next()) {
            (Ok(read), None) => Ok(read),
            (Ok(_), Some(first)) => {
                let error = StoreError::RowDisagrees(first);
                self.condemn_for(&error);
                Err(error)
            }
            (Err(error @ StoreError::SnapshotDamaged { .. }), _) => {
                suspect(self, &error);
                Err(error)
            }
            (Err(error @ StoreError::IndexUnusable { .. }), _) => {
                self.condemn_for(&error);
                Err(StoreError::Poisoned)
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// How many rows are proven under one lock.
const STEP_ROWS: usize = 128;
/// How long the walk lets others have the lock, and how often after each step.
const TURN: Duration = Duration::from_micros(50);
const TURNS_MAX: usize = 20;
/// How many rows that disagree are told.
const TOLD_MAX: usize = 16;
/// Up to how many rows are proven before the store opens.
pub(crate) const AT_ONCE_ROWS_MAX: u64 = 20_000;
