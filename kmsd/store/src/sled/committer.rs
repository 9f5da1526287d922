//! The one thread that writes: whatever is queued goes into one record, one write, one sync.
//!
//! While a sync runs, the next requests queue up; so the batches grow by themselves with the load
//! and no timer is needed. The order is: decide each batch in turn, append and sync the record,
//! apply it to the index, let readers see the log, answer.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use kms_core::audit::CommitReceipt;
use kms_core::id::Digest;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::applier::{Applier, Placed, Update};
use super::folder::{FolderLock, remove_if_present, sync_folder};
use super::format::{Applied, Record, RowPart};
use super::index::{Index, Marker, unusable};
use super::journal::Journal;
use super::shared::Shared;
use super::snapshotter::Snapshotter;
use crate::batch::{Decision, RowState, decide};
use crate::row_set::{State, encode_states};
use crate::vouch::needs_word;
use crate::{BATCH_BYTES_MAX, Batch, Committed, Outcome, StoreError, Voucher};

/// What the committer is asked.
pub(crate) enum Job {
    Close { answer: oneshot::Sender<Result<(), StoreError>> },
    Commit { batches: Vec<Batch>, bytes: usize, answer: Answer },
}

/// What came of the batches of one job, in their order.
pub(crate) type Outcomes = Vec<Result<Outcome, StoreError>>;

/// Where the outcomes of a job go, and the room in memory that its batches take up until then.
pub(crate) struct Answer {
    pub(crate) to: oneshot::Sender<Outcomes>,
    pub(crate) _room: OwnedSemaphorePermit,
}

/// Everything that only the committer touches.
pub(crate) struct Committer {
    pub(crate) journal: Journal,
    pub(crate) applier: Applier,
    pub(crate) shared: Arc<Shared>,
    /// How far the journal has come.
    pub(crate) marker: Marker,
    /// The latest sequence whose row set the log names.
    pub(crate) bound: u64,
    pub(crate) snapshotter: Snapshotter,
    /// After how many bytes of changed rows a snapshot is due.
    pub(crate) snapshot_row_bytes: u64,
    pub(crate) snapshot_at_close: bool,
    /// Let go of before a close is answered, so that the folder is free when it is.
    pub(crate) lock: Option<FolderLock>,
}

impl Committer {
    /// Starts the thread; it ends when it is told to close or when all senders are gone.
    pub(crate) fn start(self) -> Result<(mpsc::Sender<Job>, JoinHandle<()>), StoreError> {
        let (sender, jobs) = mpsc::channel(QUEUE_MAX);
        let path = self.shared.folder.path().to_owned();
        let thread = std::thread::Builder::new()
            .name("kms-committer".to_owned())
            .spawn(move || {
                let shared = self.shared.clone();
                // A panic is our own bug. Those who wait see their answer dropped, which means
                // `Unknown`; nobody is served afterwards.
                if catch_unwind(AssertUnwindSafe(|| self.run(jobs))).is_err() {
                    shared.poison(&"the committer panicked");
                }
            })
            .map_err(StoreError::io("start the committer of", &path))?;
        Ok((sender, thread))
    }

    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut left_over = None;
        loop {
            let Some(job) = left_over.take().or_else(|| jobs.blocking_recv()) else { break };
            match job {
                Job::Close { answer } => {
                    let _nobody_waits = answer.send(self.close());
                    return refuse_the_rest(jobs);
                }
                Job::Commit { batches, bytes, answer } => {
                    let mut group = Group::default();
                    group.push(batches, bytes, answer);
                    left_over = group.fill(&mut jobs);
                    self.commit(group);
                }
            }
        }
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the store was dropped and did not close well");
        }
    }

    fn commit(&mut self, group: Group) {
        if let Err(error) = self.shared.check() {
            let closed = matches!(error, StoreError::Closed);
            let refusal = || if closed { StoreError::Closed } else { StoreError::Poisoned };
            return group.answer_all(|| Err(refusal()));
        }
        let voucher = self.shared.vouching.voucher();
        let is_free = voucher.is_some() || !self.shared.vouching.is_required();
        let mut decided = Decided { is_free, ..Decided::default() };
        for (batches, answer) in group.jobs {
            let verdicts = batches.into_iter().map(|batch| decided.decide(batch, &self.shared));
            let verdicts = verdicts.collect();
            decided.verdicts.push((verdicts, answer));
        }
        let Decided { record, verdicts, changed, bound, .. } = decided;
        if record.log.batches.is_empty() {
            return answer_each(verdicts, &[]);
        }
        self.bound = self.bound.max(bound);
        match self.write(record, changed, voucher.as_deref()) {
            Ok(placed) => {
                answer_each(verdicts, &placed);
                self.snapshot_if_due();
            }
            Err(StoreError::DiskFull { path }) => {
                let refusal = || StoreError::DiskFull { path: path.clone() };
                reply_all(verdicts, || Err(refusal()));
            }
            Err(error) => {
                self.shared.poison(&error);
                reply_all(verdicts, || Ok(Outcome::Unknown));
            }
        }
    }

    /// Makes the record durable, then visible.
    fn write(
        &mut self,
        mut record: Record,
        changed: Vec<Vec<String>>,
        voucher: Option<&dyn Voucher>,
    ) -> Result<Vec<Placed>, StoreError> {
        record.log.slots = self.shared.slots_given();
        record.log.bound = self.bound;
        let states = self.bucket_states(&record.rows)?;
        record.rows.buckets = encode_states(states.iter().map(|(bucket, state)| (*bucket, state)));
        let (chain, at) = self.journal.append(&record, voucher)?;
        self.snapshotter.bound(self.bound);
        let mut rows = self.shared.rows();
        states.iter().for_each(|(bucket, state)| rows.buckets.set(*bucket, *state));
        rows.end = Some(chain);
        drop(rows);
        let (update, placed) = self.applier.take(record, chain, at);
        self.marker = update.marker;
        // A record that changes no row, as that of a use, leaves everything that is proven as it is.
        let mut proof = (!update.rows.is_empty()).then(|| self.shared.proof());
        if let Some(proof) = proof.as_mut().and_then(|proof| proof.as_mut()) {
            proof.extend(update.rows.iter().map(|row| (row.key.clone(), row.digest())));
        }
        let begins_segment = at == super::journal::Location::first_of(at.segment);
        self.shared.take_in(update, begins_segment)?;
        drop(proof);
        let mut log = self.shared.log.write().unwrap_or_else(PoisonError::into_inner);
        log.clone_from(&self.applier.log);
        drop(log);
        changed.into_iter().for_each(|keys| self.shared.changes.tell(keys));
        Ok(placed)
    }

    /// The buckets of the row set that the rows change, as they will be.
    fn bucket_states(&self, part: &RowPart) -> Result<BTreeMap<u16, State>, StoreError> {
        if part.rows.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut latest: HashMap<&str, Digest> = HashMap::new();
        let mut changes = Vec::with_capacity(part.rows.len());
        for row in &part.rows {
            let after = row.digest();
            let before = match latest.insert(&row.key, after) {
                Some(before) => Some(before),
                None => self.shared.indexed(|index| index.row_digest(&row.key))?,
            };
            changes.push((row.key.as_str(), before, after));
        }
        let states = self.shared.rows().buckets.planned(changes.into_iter());
        states.ok_or_else(|| {
            self.shared.poison(&"the row set does not add up");
            StoreError::Poisoned
        })
    }

    /// Begins a snapshot when so much was written since the last one that a start would take
    /// long. A snapshot that fails for want of room is tried again later; the journal has it all.
    fn snapshot_if_due(&mut self) {
        let Journal { row_bytes, record_bytes, .. } = self.journal;
        let is_due = row_bytes >= self.snapshot_row_bytes || record_bytes >= SNAPSHOT_RECORD_BYTES;
        // Without a word it would come to nothing after all the reading and writing, and the next would be
        // due only when as much was written again.
        let is_due = is_due && self.shared.vouching.has_word();
        if is_due && self.snapshotter.is_idle() && self.shared.check().is_ok() {
            let begun = self.finish_segment().and_then(|until| self.snapshotter.begin(until));
            self.judge_snapshot(begun);
        }
    }

    /// Ends the segment, with the index brought so far that it is never behind a snapshot.
    fn finish_segment(&mut self) -> Result<u64, StoreError> {
        (self.journal.row_bytes, self.journal.record_bytes) = (0, 0);
        let until = self.journal.finish_segment()?;
        self.shared.take_in(self.nothing(), true)?;
        Ok(until)
    }

    fn nothing(&self) -> Update {
        Update { rows: vec![], tiles: vec![], bundles: vec![], names: vec![], marker: self.marker }
    }

    fn judge_snapshot(&self, taken: Result<(), StoreError>) {
        match taken {
            Ok(()) => {}
            Err(
                error @ (StoreError::JournalDamaged { .. } | StoreError::SnapshotDamaged { .. }),
            ) => {
                self.shared.poison(&error);
            }
            Err(error) => tracing::warn!(%error, "no snapshot was taken; a start will take longer"),
        }
    }

    /// Finishes the snapshot that is being taken, or takes one, unless so little has changed that
    /// a start reads it sooner than a stop writes it all.
    fn last_snapshot(&mut self) {
        let changed = self.journal.row_bytes;
        let joined = self.snapshotter.finish(None);
        self.judge_snapshot(joined);
        let rows_bytes = self.snapshotter.rows_bytes();
        let is_worth_it = changed * 16 >= rows_bytes || rows_bytes <= SMALL_SNAPSHOT_BYTES;
        let may_be = self.snapshot_at_close && self.shared.vouching.has_word();
        let is_due = may_be && changed > 0 && is_worth_it;
        if is_due && self.shared.check().is_ok() {
            let taken = self.finish_segment();
            let taken = taken.and_then(|until| self.snapshotter.finish(Some(until)));
            self.judge_snapshot(taken);
        }
    }

    /// Ends the store in good order. When the index does not close well, the note that it is open
    /// stays, and the next open judges it.
    fn close(&mut self) -> Result<(), StoreError> {
        self.last_snapshot();
        self.shared.set_closed();
        // Whoever is still writing a slot finishes first; whoever comes later finds it closed.
        drop(self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner));
        let index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner).take();
        let close = |index: Index| {
            let told = self.shared.take_in_the_rest(&index, self.marker);
            told.map_err(|fault| unusable(&self.shared.folder.index(), &fault))?;
            index.close()
        };
        if let Some(Err(error)) = index.map(close) {
            tracing::warn!(%error, "the index did not close well and may be made anew");
        } else if remove_if_present(&self.shared.folder.index_open()).is_ok()
            && let Err(error) = sync_folder(self.shared.folder.path())
        {
            tracing::warn!(%error, "the index may be made anew after a power loss");
        }
        drop(self.lock.take());
        match self.shared.check() {
            Err(StoreError::Poisoned) => Err(StoreError::Poisoned),
            _ => Ok(()),
        }
    }
}

/// The batches that go into one record.
#[derive(Default)]
struct Group {
    jobs: Vec<(Vec<Batch>, Answer)>,
    batches: usize,
    bytes: usize,
}

impl Group {
    fn push(&mut self, batches: Vec<Batch>, bytes: usize, answer: Answer) {
        self.bytes += bytes;
        self.batches += batches.len();
        self.jobs.push((batches, answer));
    }

    /// Takes what is queued, up to the bounds of a group. What does not fit is given back.
    fn fill(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
        while self.batches < GROUP_MAX {
            match jobs.try_recv().ok()? {
                Job::Commit { batches, bytes, answer } if self.bytes + bytes <= BATCH_BYTES_MAX => {
                    self.push(batches, bytes, answer);
                }
                other => return Some(other),
            }
        }
        None
    }

    fn answer_all(self, answer: impl Fn() -> Result<Outcome, StoreError>) {
        reply_all(self.jobs, answer);
    }
}

/// What one batch of a group comes to, once the group is durable.
enum Verdict {
    /// It is the n-th batch of the record.
    Applied(usize),
    /// It changes nothing.
    Known(Result<Outcome, StoreError>),
    /// A retry of the n-th batch of the record.
    Retried(usize),
}

/// A group on its way: each batch is decided in the state that the ones before it leave.
#[derive(Default)]
struct Decided {
    record: Record,
    verdicts: Vec<(Vec<Verdict>, Answer)>,
    rows: HashMap<String, RowState>,
    names: HashMap<[u8; 32], usize>,
    /// The keys that each batch changes.
    changed: Vec<Vec<String>>,
    bound: u64,
    /// Whether everything may be written: somebody vouches for it, or nobody ever did.
    is_free: bool,
}

impl Decided {
    fn decide(&mut self, batch: Batch, shared: &Shared) -> Verdict {
        self.try_decide(batch, shared).unwrap_or_else(|error| Verdict::Known(Err(error)))
    }

    fn try_decide(&mut self, batch: Batch, shared: &Shared) -> Result<Verdict, StoreError> {
        let Batch { conditions, writes, leaves, idempotency, binds_rows } = batch;
        if let Some(name) = &idempotency {
            if let Some(&earlier) = self.names.get(name) {
                return Ok(Verdict::Retried(earlier));
            }
            if let Some(committed) = shared.outcome_of(name)? {
                return Ok(Verdict::Known(Ok(Outcome::Committed(committed))));
            }
        }
        let state = |key: &str| match self.rows.get(key) {
            Some(state) => Ok(*state),
            None => shared.row_state(key),
        };
        let rows = match decide(conditions, writes, state)? {
            Decision::Apply(rows) => rows,
            Decision::Conflict(keys) => return Ok(Verdict::Known(Ok(Outcome::Conflict(keys)))),
        };
        if !self.is_free {
            let changes_rows = !rows.is_empty() || binds_rows.is_some();
            if changes_rows || needs_word(&leaves, idempotency.is_some()).is_some() {
                return Err(StoreError::NotVouched);
            }
        }
        self.rows.extend(rows.iter().map(|row| (row.key.clone(), row.state())));
        let place = self.record.log.batches.len();
        self.names.extend(idempotency.map(|name| (name, place)));
        let idempotency = idempotency.map(Vec::from).unwrap_or_default();
        self.changed.push(rows.iter().map(|row| row.key.clone()).collect());
        self.record.rows.rows.extend(rows);
        self.record.log.batches.push(Applied { leaves, idempotency });
        self.bound = self.bound.max(binds_rows.unwrap_or(0));
        Ok(Verdict::Applied(place))
    }
}

/// Answers a durable group.
fn answer_each(verdicts: Vec<(Vec<Verdict>, Answer)>, placed: &[Placed]) {
    let committed = |place: usize, replayed| {
        let Placed { first_leaf, leaf_hashes } = &placed[place];
        let receipt = CommitReceipt::durable(*first_leaf, leaf_hashes.clone());
        Ok(Outcome::Committed(Committed { receipt, replayed }))
    };
    let outcome = |verdict| match verdict {
        Verdict::Applied(place) => committed(place, false),
        Verdict::Known(outcome) => outcome,
        Verdict::Retried(place) => committed(place, true),
    };
    for (verdicts, answer) in verdicts {
        reply(answer, verdicts.into_iter().map(outcome).collect());
    }
}

/// Answers those who came after the end.
fn refuse_the_rest(mut jobs: mpsc::Receiver<Job>) {
    jobs.close();
    while let Ok(job) = jobs.try_recv() {
        match job {
            Job::Close { answer } => {
                let _nobody_waits = answer.send(Ok(()));
            }
            Job::Commit { batches, answer, .. } => {
                reply(answer, batches.iter().map(|_| Err(StoreError::Closed)).collect());
            }
        }
    }
}

/// Answers every batch of every job alike.
fn reply_all<T>(jobs: Vec<(Vec<T>, Answer)>, outcome: impl Fn() -> Result<Outcome, StoreError>) {
    for (batches, answer) in jobs {
        reply(answer, batches.iter().map(|_| outcome()).collect());
    }
}

/// A caller that has gone away needs no answer; its batches stand all the same.
fn reply(answer: Answer, outcomes: Outcomes) {
    let _nobody_waits = answer.to.send(outcomes);
}

/// How many requests may wait; more wait outside.
const QUEUE_MAX: usize = 4096;
/// After how many bytes of records a snapshot is due, though few rows have changed.
const SNAPSHOT_RECORD_BYTES: u64 = 256 * 1024 * 1024;
/// A snapshot of so many bytes is written at once, however little has changed.
const SMALL_SNAPSHOT_BYTES: u64 = 64 * 1024;
/// With how many batches a record is full; those of one job stay together.
const GROUP_MAX: usize = 1024;
