//! Takes snapshots in a thread of its own, out of the truth alone: the snapshot before and the
//! finished segments after it. The index is not asked, so that nothing that went wrong there gets
//! into the truth.
//!
//! The order is: write the rows, sync; write the head, sync; read both back; reduce the segments to
//! their part of the log; remove the snapshot before. Wherever this is cut short, one of the two
//! snapshots is whole, with all records that follow it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kms_core::id::Digest;

use super::folder::Folder;
use super::format::{Chain, StoreId};
use super::journal::{self, Base, Location, Reader};
use super::snapshot::{self, Head, RowsFile, RowsReader, RowsWriter};
use crate::batch::RowChange;
use crate::row_set::{Buckets, State, decode_states};
use crate::vouch::Vouching;
use crate::{Damage, StoreError};

/// Who takes snapshots, one at a time.
pub(crate) struct Snapshotter {
    folder: Folder,
    store: StoreId,
    /// The latest snapshot; a running thread has it.
    head: Option<Head>,
    running: Option<JoinHandle<Taken>>,
    signals: Arc<Signals>,
    vouching: Arc<Vouching>,
}

/// The latest snapshot that is there afterwards, and what came of taking it.
type Taken = (Option<Head>, Result<(), StoreError>);

/// What a running snapshot listens to.
#[derive(Default)]
struct Signals {
    closing: AtomicBool,
    /// The latest sequence whose row set the log names.
    bound: AtomicU64,
}

impl Snapshotter {
    pub(crate) fn new(
        folder: Folder,
        store: StoreId,
        head: Option<Head>,
        bound: u64,
        vouching: Arc<Vouching>,
    ) -> Self {
        let signals = Arc::new(Signals::default());
        signals.bound.store(bound, Ordering::Relaxed);
        Self { folder, store, head, running: None, signals, vouching }
    }

    /// Tells that the log now names the row set of this sequence.
    pub(crate) fn bound(&self, sequence: u64) {
        self.signals.bound.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Whether another snapshot could begin.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Bytes of rows in the latest snapshot.
    pub(crate) fn rows_bytes(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.rows.bytes)
    }

    /// Begins a snapshot as of the end of segment `until`.
    ///
    /// # Errors
    /// What came of the one before, or that no thread can be started.
    pub(crate) fn begin(&mut self, until: u64) -> Result<(), StoreError> {
        self.join()?;
        let head = self.head.take();
        let work = Work {
            folder: self.folder.clone(),
            store: self.store,
            signals: self.signals.clone(),
            vouching: self.vouching.clone(),
            until,
        };
        let path = self.folder.path().to_owned();
        let thread = std::thread::Builder::new().name("kms-snapshot".to_owned());
        let running = thread.spawn(move || work.run(head));
        self.running = Some(running.map_err(StoreError::io("start a thread for", &path))?);
        Ok(())
    }

    /// Waits for the snapshot that is being taken.
    ///
    /// # Errors
    /// What came of it.
    pub(crate) fn join(&mut self) -> Result<(), StoreError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let (head, done) = running.join().map_err(|_| StoreError::Poisoned)?;
        self.head = head;
        done
    }

    /// Takes a snapshot, or finishes the one that is being taken, without waiting for anything else.
    pub(crate) fn finish(&mut self, until: Option<u64>) -> Result<(), StoreError> {
        self.signals.closing.store(true, Ordering::Relaxed);
        self.join()?;
        let Some(until) = until else { return Ok(()) };
        self.begin(until)?;
        self.join()
    }
}

struct Work {
    folder: Folder,
    store: StoreId,
    signals: Arc<Signals>,
    vouching: Arc<Vouching>,
    until: u64,
}

impl Work {
    fn run(self, mut head: Option<Head>) -> Taken {
        while head.as_ref().map_or(0, |head| head.base.segment) < self.until {
            match self.take(head.as_ref()) {
                Ok(next) => {
                    let is_bound = self.wait_until_bound(&next);
                    head = Some(next);
                    if !is_bound {
                        // The next one lets go of what this one does not.
                        return (head, Ok(()));
                    }
                }
                Err(error) => return (head, Err(error)),
            }
            let cleaned = head.as_ref().map_or(Ok(()), |head| self.clean(head));
            if cleaned.is_err() {
                return (head, cleaned);
            }
        }
        (head, Ok(()))
    }

    /// Takes the next snapshot: as far as wanted, or as one step through memory goes.
    fn take(&self, before: Option<&Head>) -> Result<Head, StoreError> {
        let changes = Changes::read(&self.folder, self.store, before, self.until)?;
        let rows = self.write_rows(before, &changes)?;
        let folder = self.folder.snapshots();
        let head = Head { rows, ..changes.head };
        head.write(&folder, &self.vouching)?;
        let read = Head::read(&folder, head.base.segment)?;
        RowsReader::open(&folder, self.store, &read.rows)?.verify(&read.rows)?;
        Ok(read)
    }

    fn write_rows(&self, before: Option<&Head>, changes: &Changes) -> Result<RowsFile, StoreError> {
        let folder = self.folder.snapshots();
        let open = |head: &Head| RowsReader::open(&folder, self.store, &head.rows);
        let old = before.map(open).transpose()?.map(|old| old.asking(&self.vouching));
        if let Some(before) = before
            && changes.rows.is_empty()
        {
            return Ok(before.rows);
        }
        let number = changes.head.base.segment;
        let mut writer = RowsWriter::create(&folder, self.store, number, self.vouching.clone())?;
        let mut replaced: Vec<(&str, Option<Digest>, Digest)> = Vec::new();
        let mut old_rows = old.as_ref().map(|old| old.rows_from(None));
        let mut next_old = || old_rows.as_mut().map_or(Ok(None), snapshot::RowsFrom::next);
        let (mut old_row, mut new_rows) = (next_old()?, changes.rows.iter().peekable());
        loop {
            let new = new_rows.peek();
            match (&old_row, new) {
                (None, None) => break,
                (Some(old), new) if new.is_none_or(|(key, _)| old.key < **key) => {
                    writer.push(old)?;
                    old_row = next_old()?;
                }
                (old, Some((key, row))) => {
                    let same = old.as_ref().filter(|old| old.key == **key);
                    replaced.push((key, same.map(RowChange::digest), row.digest()));
                    writer.push(row)?;
                    if same.is_some() {
                        old_row = next_old()?;
                    }
                    new_rows.next();
                }
                (Some(_), None) => break,
            }
        }
        self.check_buckets(before, changes, &replaced)?;
        writer.finish()
    }

    /// Holds the buckets that the records tell of against the rows that they changed.
    fn check_buckets(
        &self,
        before: Option<&Head>,
        changes: &Changes,
        replaced: &[(&str, Option<Digest>, Digest)],
    ) -> Result<(), StoreError> {
        let none = Buckets::default();
        let buckets = before.map_or(&none, |before| &before.buckets);
        let expected = buckets.planned(replaced.iter().copied());
        let told: BTreeMap<u16, State> = changes.head.buckets.filled_of(expected.as_ref());
        if expected.is_some_and(|expected| expected == told) {
            return Ok(());
        }
        let path = journal::path_of(&self.folder.journal(), changes.head.base.segment);
        Err(journal::damaged(&path, 0, Damage::RowSet))
    }

    /// Waits until the log names a row set that the new snapshot can be compared at. Without that,
    /// what a restart finds in the log would be older than the snapshot. Where somebody vouches, a
    /// start compares and refuses what it cannot compare: there it is waited for until the end, and
    /// told whether it was worth it.
    fn wait_until_bound(&self, head: &Head) -> bool {
        let deadline = Instant::now() + BOUND_PATIENCE;
        let bound = || self.signals.bound.load(Ordering::Relaxed);
        let is_closing = || self.signals.closing.load(Ordering::Relaxed);
        let is_compared = self.vouching.is_required();
        let mut is_told = false;
        // A store whose row sets nobody names has nothing to wait for.
        while (is_compared || bound() > 0) && bound() < head.rows_sequence && !is_closing() {
            if Instant::now() > deadline && !is_told {
                tracing::warn!("the log does not name the row set that the snapshot holds");
                if !is_compared {
                    return true;
                }
                is_told = true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        !is_compared || bound() >= head.rows_sequence
    }

    /// Lets go of what the snapshot makes needless.
    fn clean(&self, head: &Head) -> Result<(), StoreError> {
        let journal = self.folder.journal();
        for (number, kinds) in journal::list(&journal)? {
            if kinds.whole && number <= head.base.segment {
                journal::reduce(&journal, &self.store, number)?;
            }
        }
        snapshot::remove_but(&self.folder.snapshots(), &[head])
    }
}

/// What some finished segments change.
struct Changes {
    /// As it will be, but for its rows.
    head: Head,
    /// The latest of each row.
    rows: BTreeMap<String, RowChange>,
}

impl Changes {
    /// Reads the segments after `before` up to `until`, or up to the one with which the rows take
    /// up the memory of one step.
    fn read(
        folder: &Folder,
        store: StoreId,
        before: Option<&Head>,
        until: u64,
    ) -> Result<Self, StoreError> {
        let mut changes = Self::after(store, before);
        let mut bytes = 0;
        let end = Location { segment: until + 1, offset: 0 };
        let mut reader = Reader::until(&folder.journal(), store, end);
        let mut at = Location::first_of(changes.head.base.segment + 1);
        while let Some(stored) = reader.read(at)? {
            if stored.at.segment > changes.head.base.segment + 1 {
                changes.head.base.segment = stored.at.segment - 1;
                if bytes > STEP_BYTES {
                    return Ok(changes);
                }
            }
            at = stored.next;
            let bad = |damage| {
                let path = journal::path_of(&folder.journal(), stored.at.segment);
                journal::damaged(&path, stored.at.offset as usize, damage)
            };
            if stored.previous != changes.head.base.chain.hash {
                return Err(bad(Damage::Chain));
            }
            if stored.record.rows_are_gone {
                return Err(bad(Damage::RowsMissing));
            }
            let Head { base, slots, bound, rows_sequence, is_vouched, buckets, .. } =
                &mut changes.head;
            base.chain = stored.chain;
            *is_vouched |= !stored.record.log.vouch.is_empty();
            (*slots, *bound) = (stored.record.log.slots, stored.record.log.bound);
            let states = decode_states(&stored.record.rows.buckets);
            let states = states.ok_or_else(|| bad(Damage::Unreadable))?;
            states.for_each(|(bucket, state)| buckets.set(bucket, state));
            if !stored.record.rows.rows.is_empty() {
                *rows_sequence = stored.chain.sequence;
            }
            for row in stored.record.rows.rows {
                bytes += row.bytes();
                changes.rows.insert(row.key.clone(), row);
            }
        }
        changes.head.base.segment = until;
        Ok(changes)
    }

    fn after(store: StoreId, before: Option<&Head>) -> Self {
        let mut buckets = Buckets::default();
        let states = before.into_iter().flat_map(|head| head.buckets.filled());
        states.for_each(|(bucket, state)| buckets.set(bucket, *state));
        let nothing = RowsFile { number: 0, bytes: 0, digest: Digest([0; 32]) };
        let genesis = Base { segment: 0, chain: Chain::genesis(&store) };
        let head = Head {
            store,
            base: before.map_or(genesis, |head| head.base),
            slots: before.map_or(0, |head| head.slots),
            bound: before.map_or(0, |head| head.bound),
            rows_sequence: before.map_or(0, |head| head.rows_sequence),
            rows: nothing,
            is_vouched: before.is_some_and(|head| head.is_vouched),
            buckets,
            word: [0; 32],
        };
        Self { head, rows: BTreeMap::new() }
    }
}

/// The root of the row set as of `sequence`, out of the latest snapshot that is no later and the
/// records after it; `None` when there is none any more.
pub(crate) fn row_set_at(
    folder: &Folder,
    store: StoreId,
    sequence: u64,
) -> Result<Option<Digest>, StoreError> {
    for _ in 0..TRIES {
        // A snapshot that is just being finished takes away what is being read.
        match try_row_set_at(folder, store, sequence) {
            Ok(Found::Moved) => {}
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Ok(Found::Known(root)) => return Ok(root),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

enum Found {
    Known(Option<Digest>),
    /// The records are no longer whole.
    Moved,
}

fn try_row_set_at(folder: &Folder, store: StoreId, sequence: u64) -> Result<Found, StoreError> {
    let snapshots = folder.snapshots();
    let mut begin = None;
    for number in snapshot::list(&snapshots)? {
        let head = Head::read(&snapshots, number)?;
        if head.rows_sequence <= sequence {
            begin = Some(head);
        }
    }
    if begin.is_none() && !journal::path_of(&folder.journal(), 1).exists() {
        return Ok(Found::Known(None));
    }
    let Changes { mut head, .. } = Changes::after(store, begin.as_ref());
    let mut reader = Reader::new(&folder.journal(), store);
    let mut at = Location::first_of(head.base.segment + 1);
    while head.base.chain.sequence < sequence
        && let Some(stored) = reader.read(at)?
    {
        if stored.record.rows_are_gone {
            return Ok(Found::Moved);
        }
        (at, head.base.chain) = (stored.next, stored.chain);
        for (bucket, state) in decode_states(&stored.record.rows.buckets).into_iter().flatten() {
            head.buckets.set(bucket, state);
        }
    }
    let is_there = head.base.chain.sequence >= sequence;
    Ok(Found::Known(is_there.then(|| head.buckets.root())))
}

/// How often an earlier row set is looked for.
const TRIES: usize = 3;
/// How many bytes of changed rows one step holds in memory, but for the last segment.
const STEP_BYTES: u64 = 64 * 1024 * 1024;
/// How long the snapshot before is kept for a log that does not name the row set of the new one.
const BOUND_PATIENCE: Duration = Duration::from_secs(60);
