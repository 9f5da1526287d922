//! The one thread that writes: whatever is queued goes into one write transaction, with one sync.

use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use ::redb::WriteTransaction;
use kms_core::audit::CommitReceipt;
use kms_core::audit::merkle;
use kms_core::id::Digest;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::shared::Shared;
use super::tables::{Meta, Writing};
use super::{Fault, FolderNames};
use crate::batch::{Decision, decide};
use crate::caught::caught;
use crate::log::Log;
use crate::row_set::Buckets;
use crate::sled::folder::{FolderLock, write_note};
use crate::{BATCH_BYTES_MAX, Batch, Committed, Outcome, StoreError};

/// What the committer is asked.
pub(crate) enum Job {
    Close { answer: oneshot::Sender<Result<(), StoreError>> },
    Commit { batch: Batch, answer: Answer },
}

/// Where an outcome goes, and the room in memory that the batch takes up until then.
pub(crate) struct Answer {
    pub(crate) to: oneshot::Sender<Result<Outcome, StoreError>>,
    pub(crate) _room: OwnedSemaphorePermit,
}

/// Everything that only the committer touches.
pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) meta: Meta,
    pub(crate) log: Log,
    pub(crate) buckets: Buckets,
    pub(crate) lock: Option<FolderLock>,
}

impl Committer {
    /// Starts the thread; it ends when it is told to close or when all senders are gone.
    pub(crate) fn start(self) -> Result<(mpsc::Sender<Job>, JoinHandle<()>), StoreError> {
        let (sender, jobs) = mpsc::channel(QUEUE_MAX);
        let path = self.shared.folder.clone();
        let thread = std::thread::Builder::new().name("kms-committer".to_owned());
        let thread = thread.spawn(move || self.run(jobs));
        Ok((sender, thread.map_err(StoreError::io("start the committer of", &path))?))
    }

    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut left_over = None;
        while let Some(job) = left_over.take().or_else(|| jobs.blocking_recv()) {
            match job {
                Job::Close { answer } => {
                    let _nobody_waits = answer.send(self.close());
                    return refuse_the_rest(jobs);
                }
                Job::Commit { batch, answer } => {
                    let mut group = vec![(batch, answer)];
                    left_over = fill(&mut group, &mut jobs);
                    self.commit(group);
                }
            }
        }
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the store was dropped and did not close well");
        }
    }

    fn commit(&mut self, group: Vec<(Batch, Answer)>) {
        let (batches, answers): (Vec<Batch>, Vec<Answer>) = group.into_iter().unzip();
        match self.try_commit(batches) {
            Ok(outcomes) => answers.into_iter().zip(outcomes).for_each(|(a, o)| reply(a, Ok(o))),
            Err(error) => {
                let known = matches!(error, StoreError::Closed | StoreError::Poisoned);
                let closed = matches!(error, StoreError::Closed);
                let answer = || match (known, closed) {
                    (true, true) => Err(StoreError::Closed),
                    (true, false) => Err(StoreError::Poisoned),
                    (false, _) => Ok(Outcome::Unknown),
                };
                answers.into_iter().for_each(|waiting| reply(waiting, answer()));
            }
        }
    }

    /// Decides and writes a group. An error of the store means that nothing was done; any other is
    /// a doubt that has ended the store.
    fn try_commit(&mut self, batches: Vec<Batch>) -> Result<Vec<Outcome>, StoreError> {
        self.shared.check()?;
        let shared = self.shared.clone();
        let written = caught(|| {
            let database = shared.database();
            let transaction = database.as_ref().ok_or(Fault::Entry)?.begin_writing()?;
            let written = self.write(&transaction, batches)?;
            transaction.commit()?;
            Ok(written)
        });
        let Written { outcomes, log, meta, changed } = written.map_err(|fault: Fault| {
            self.shared.poison(&fault);
            StoreError::DatabaseDamaged {
                path: self.shared.folder.clone(),
                fault: fault.to_string(),
            }
        })?;
        (self.log, self.meta) = (log, meta);
        let mut visible = self.shared.log.write().unwrap_or_else(PoisonError::into_inner);
        visible.clone_from(&self.log);
        drop(visible);
        changed.into_iter().for_each(|keys| self.shared.changes.tell(keys));
        Ok(outcomes)
    }

    fn write(
        &mut self,
        transaction: &WriteTransaction,
        batches: Vec<Batch>,
    ) -> Result<Written, Fault> {
        let mut group = Group {
            tables: Writing::begin(transaction)?,
            log: self.log.clone(),
            meta: self.meta.clone(),
            changed: Vec::new(),
            row_digests: Vec::new(),
        };
        let outcomes = batches.into_iter().map(|batch| group.take(batch));
        let outcomes = outcomes.collect::<Result<_, Fault>>()?;
        let meta = Meta {
            commits: self.meta.commits + 1,
            leaves: group.log.size(),
            root: group.log.frontier().root(),
            slots: self.shared.slots_given(),
            ..group.meta
        };
        if !group.row_digests.is_empty() {
            let rows = group.row_digests.iter();
            let rows = rows.map(|(key, before, after)| (key.as_str(), *before, *after));
            // A transaction that fails ends the store, so nobody sees buckets that it left behind.
            for (bucket, state) in self.buckets.planned(rows).ok_or(Fault::Entry)? {
                group.tables.put_bucket(bucket, &state)?;
                self.buckets.set(bucket, state);
            }
            group.tables.put_root(meta.commits, &self.buckets.root())?;
        }
        group.tables.put_meta(&meta)?;
        Ok(Written { outcomes, log: group.log, meta, changed: group.changed })
    }

    /// Ends the store in good order, and notes where it stood.
    fn close(&mut self) -> Result<(), StoreError> {
        self.shared.set_closed();
        // Whoever is still writing a slot finishes first; whoever comes later finds it closed.
        drop(self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner));
        let database = self.shared.database.write().unwrap_or_else(PoisonError::into_inner).take();
        let closed = caught(|| database.map_or(Ok(()), super::database::Database::close));
        let healthy = !matches!(self.shared.check(), Err(StoreError::Poisoned));
        match closed {
            Ok(()) if healthy => {
                let head = FolderNames(&self.shared.folder).head();
                let text = super::head_text(&self.meta);
                if let Err(error) = write_note(&head, &text) {
                    tracing::warn!(%error, "cannot note where the store stood when it was closed");
                }
            }
            Ok(()) => {}
            Err(fault) => tracing::warn!(%fault, "the database did not close well"),
        }
        drop(self.lock.take());
        if healthy { Ok(()) } else { Err(StoreError::Poisoned) }
    }
}

/// What a group comes to, once it is durable.
struct Written {
    outcomes: Vec<Outcome>,
    log: Log,
    meta: Meta,
    changed: Vec<Vec<String>>,
}

/// A group on its way: each batch is decided in the state that the ones before it leave.
struct Group<'a> {
    tables: Writing<'a>,
    log: Log,
    meta: Meta,
    changed: Vec<Vec<String>>,
    /// The rows that change, with their digests before and after.
    row_digests: Vec<(String, Option<Digest>, Digest)>,
}

impl Group<'_> {
    fn take(&mut self, batch: Batch) -> Result<Outcome, Fault> {
        let Batch { conditions, writes, leaves, idempotency, binds_rows: _ } = batch;
        if let Some(name) = &idempotency
            && let Some(receipt) = self.tables.receipt(name)?
        {
            return Ok(Outcome::Committed(Committed { receipt, replayed: true }));
        }
        let tables = &self.tables;
        let mut fault = None;
        let decided = decide(conditions, writes, |key| {
            tables.row_state(key).map_err(|found| {
                fault = Some(found);
                StoreError::Poisoned
            })
        });
        let rows = match decided {
            Ok(Decision::Apply(rows)) => rows,
            Ok(Decision::Conflict(keys)) => return Ok(Outcome::Conflict(keys)),
            Err(_) => return Err(fault.unwrap_or(Fault::Entry)),
        };
        for row in &rows {
            let before = self.tables.row_digest(&row.key)?;
            self.row_digests.push((row.key.clone(), before, row.digest()));
            self.tables.put_row(row)?;
        }
        let receipt = self.append(&leaves)?;
        if let Some(name) = idempotency {
            let first = self.log.size() - leaves.len() as u64;
            self.tables.put_name(self.meta.names, &name, first, leaves.len() as u64)?;
            self.meta.names += 1;
        }
        self.changed.push(rows.into_iter().map(|row| row.key).collect());
        Ok(Outcome::Committed(Committed { receipt, replayed: false }))
    }

    fn append(&mut self, leaves: &[Vec<u8>]) -> Result<CommitReceipt, Fault> {
        let (first, mut full) = (self.log.size(), Vec::new());
        let mut hashes = Vec::with_capacity(leaves.len());
        for leaf in leaves {
            self.tables.put_leaf(self.log.size(), leaf)?;
            hashes.push(merkle::leaf_hash(leaf));
            self.log.append(merkle::leaf_hash(leaf), &mut full);
        }
        full.iter().try_for_each(|tile| self.tables.put_tile(tile))?;
        // Nobody is told before the transaction is durable.
        Ok(CommitReceipt::durable(first, hashes))
    }
}

/// Takes what is queued, up to the bounds of a group. What does not fit is given back.
fn fill(group: &mut Vec<(Batch, Answer)>, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
    let mut bytes: usize = group.iter().map(|(batch, _)| batch.bytes()).sum();
    while group.len() < GROUP_MAX {
        match jobs.try_recv().ok()? {
            Job::Commit { batch, answer } if bytes + batch.bytes() <= BATCH_BYTES_MAX => {
                bytes += batch.bytes();
                group.push((batch, answer));
            }
            other => return Some(other),
        }
    }
    None
}

/// Answers those who came after the end.
fn refuse_the_rest(mut jobs: mpsc::Receiver<Job>) {
    jobs.close();
    while let Ok(job) = jobs.try_recv() {
        match job {
            Job::Close { answer } => {
                let _nobody_waits = answer.send(Ok(()));
            }
            Job::Commit { answer, .. } => reply(answer, Err(StoreError::Closed)),
        }
    }
}

/// A caller that has gone away needs no answer; its batch stands all the same.
fn reply(answer: Answer, outcome: Result<Outcome, StoreError>) {
    let _nobody_waits = answer.to.send(outcome);
}

/// How many requests may wait; more wait outside.
const QUEUE_MAX: usize = 4096;
/// How many batches make one transaction at most.
const GROUP_MAX: usize = 1024;
