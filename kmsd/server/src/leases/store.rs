//! The store, with the ends of leases in the batches that end them.

use std::sync::Arc;

use async_trait::async_trait;
use kms_core::audit::Leaf;
use kms_core::audit::merkle::Frontier;
use kms_core::id::Digest;
use kms_store::{Batch, Committed, Outcome, Row, RowSet, Stats, Store, StoreError, Voucher, Watch};
use zeroize::Zeroizing;

use super::{Changing, ENDS_AT_ONCE, Leases, OFFERS_WAITED_FOR, pay};

/// A store whose batches end the leases that stand for a row which they change.
pub(crate) struct LeasedStore {
    store: Arc<dyn Store>,
    leases: Arc<Leases>,
}

impl LeasedStore {
    pub(crate) fn new(store: Arc<dyn Store>, leases: Arc<Leases>) -> Self {
        Self { store, leases }
    }

    /// The batch with the ends of the leases that it ends, before its own leaves. More of them than fit go
    /// to the disk before it.
    async fn with_ends(&self, mut batch: Batch, changing: &Changing<'_>) -> (Batch, Vec<Leaf>) {
        let mut ends = changing.ends();
        if ends.len() > ENDS_AT_ONCE {
            self.leases.owe(ends.split_off(ENDS_AT_ONCE));
            // Those that do not get there stay owed, and nothing is counted on them any more.
            if let Err(error) = pay(&*self.store, &self.leases).await {
                tracing::warn!(%error, "ends of usage leases are not on disk yet");
            }
        }
        batch.leaves.splice(0..0, ends.iter().map(Leaf::to_bytes));
        (batch, ends)
    }
}

fn settle(leases: &Leases, ends: Vec<Leaf>, outcome: &Result<Outcome, StoreError>) {
    let on_disk = match outcome {
        // Of a replayed batch an earlier one is on disk.
        Ok(Outcome::Committed(Committed { replayed, .. })) => !replayed,
        // The store has stopped. The next start finds the ends, or that they are missing.
        Ok(Outcome::Unknown) => true,
        Ok(Outcome::Conflict(_)) | Err(_) => false,
    };
    if !on_disk {
        leases.owe(ends);
    }
}

#[async_trait]
impl Store for LeasedStore {
    async fn commit(&self, batch: Batch) -> Result<Outcome, StoreError> {
        if batch.writes.is_empty() {
            return self.store.commit(batch).await;
        }
        let changing = self.leases.changing(&batch.writes);
        if tokio::time::timeout(OFFERS_WAITED_FOR, changing.offers_are_settled()).await.is_err() {
            // It ends without a use as soon as it is open.
            tracing::warn!("a usage lease is on its way to the disk for too long");
        }
        let (batch, ends) = self.with_ends(batch, &changing).await;
        if ends.is_empty() {
            return self.store.commit(batch).await;
        }
        // In a task of its own: what was begun with the end of a lease comes to its own end, whoever waits.
        let (store, leases) = (self.store.clone(), self.leases.clone());
        let committing = tokio::spawn(async move {
            let outcome = store.commit(batch).await;
            settle(&leases, ends, &outcome);
            outcome
        });
        committing.await.unwrap_or(Ok(Outcome::Unknown))
    }

    /// These do not wait for the leases that are about to be opened: the leaf of one may be among them, or may
    /// be gathered meanwhile and come after them. They are uses, and what a use writes forbids no other.
    async fn commit_each(&self, batches: Vec<Batch>) -> Vec<Result<Outcome, StoreError>> {
        let changing = self.leases.changing(batches.iter().flat_map(|batch| &batch.writes));
        let mut with_ends = Vec::with_capacity(batches.len());
        let mut ended = Vec::with_capacity(batches.len());
        for batch in batches {
            let (batch, ends) = match batch.writes.is_empty() {
                true => (batch, Vec::new()),
                false => self.with_ends(batch, &changing).await,
            };
            with_ends.push(batch);
            ended.push(ends);
        }
        let outcomes = self.store.commit_each(with_ends).await;
        for (ends, outcome) in ended.into_iter().zip(&outcomes) {
            settle(&self.leases, ends, outcome);
        }
        outcomes
    }

    async fn get(&self, key: &str) -> Result<Option<Row>, StoreError> {
        self.store.get(key).await
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, StoreError> {
        self.store.scan(prefix, after, limit).await
    }

    fn row_changes(&self) -> Option<u64> {
        self.store.row_changes()
    }

    async fn outcome_of(&self, idempotency: &[u8; 32]) -> Result<Option<Committed>, StoreError> {
        self.store.outcome_of(idempotency).await
    }

    fn watch(&self) -> Watch {
        self.store.watch()
    }

    async fn log_size(&self) -> u64 {
        self.store.log_size().await
    }

    async fn log_frontier(&self) -> Frontier {
        self.store.log_frontier().await
    }

    async fn leaves(&self, begin: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.store.leaves(begin, limit).await
    }

    async fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, StoreError> {
        self.store.inclusion_proof(index, size).await
    }

    async fn hash_tile(&self, level: u8, n: u64, width: u64) -> Result<Vec<u8>, StoreError> {
        self.store.hash_tile(level, n, width).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.store.stats().await
    }

    async fn row_set(&self) -> Result<RowSet, StoreError> {
        self.store.row_set().await
    }

    async fn row_set_at(&self, sequence: u64) -> Result<Option<Digest>, StoreError> {
        self.store.row_set_at(sequence).await
    }

    async fn begin_vouching(&self, voucher: Arc<dyn Voucher>) -> Result<(), StoreError> {
        self.store.begin_vouching(voucher).await
    }

    fn end_vouching(&self) {
        self.store.end_vouching();
    }

    async fn put_slot(&self, secret: Zeroizing<[u8; 32]>) -> Result<u64, StoreError> {
        self.store.put_slot(secret).await
    }

    async fn put_slots(&self, secrets: Vec<Zeroizing<[u8; 32]>>) -> Result<Vec<u64>, StoreError> {
        self.store.put_slots(secrets).await
    }

    async fn read_slot(&self, slot: u64) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        self.store.read_slot(slot).await
    }

    async fn erase_slot(&self, slot: u64) -> Result<(), StoreError> {
        self.store.erase_slot(slot).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}
