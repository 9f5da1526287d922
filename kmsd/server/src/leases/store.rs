//! The store, with the ends of leases in the batches that end them.

use std::sync::Arc;

use async_trait::async_trait;
use kms_core::audit::Leaf;
use kms_core::audit::merkle::Frontier;
use kms_core::id::Digest;
use kms_store::{Batch, Committed, Outcome, Row, RowSet, Stats, Store, StoreError, Voucher, Watch};
use zeroize::Zeroizing;

use super::{ENDS_AT_ONCE, Leases};

/// A store whose batches end the leases that stand for a row which they change.
pub(crate) struct LeasedStore {
    store: Arc<dyn Store>,
    leases: Arc<Leases>,
}

impl LeasedStore {
    pub(crate) fn new(store: Arc<dyn Store>, leases: Arc<Leases>) -> Self {
        Self { store, leases }
    }

    /// The batch with the ends of the leases that it ends, before its own leaves. More of them than fit
    /// are owed, and so on disk soon after it; nothing is counted on any of them either way.
    fn with_ends(&self, mut batch: Batch) -> (Batch, Vec<Leaf>) {
        let mut ends = self.leases.ends_by(&batch.writes);
        if !ends.is_empty() {
            self.leases.owe(ends.split_off(ends.len().min(ENDS_AT_ONCE)));
            batch.leaves.splice(0..0, ends.iter().map(Leaf::to_bytes));
        }
        (batch, ends)
    }

    fn settle(&self, ends: Vec<Leaf>, outcome: &Result<Outcome, StoreError>) {
        let on_disk = match outcome {
            // Of a replayed batch an earlier one is on disk.
            Ok(Outcome::Committed(Committed { replayed, .. })) => !replayed,
            // The store has stopped. The next start finds the ends, or that they are missing.
            Ok(Outcome::Unknown) => true,
            Ok(Outcome::Conflict(_)) | Err(_) => false,
        };
        if !on_disk {
            self.leases.owe(ends);
        }
    }
}

#[async_trait]
impl Store for LeasedStore {
    async fn commit(&self, batch: Batch) -> Result<Outcome, StoreError> {
        let (batch, ends) = self.with_ends(batch);
        let outcome = self.store.commit(batch).await;
        self.settle(ends, &outcome);
        outcome
    }

    async fn commit_each(&self, batches: Vec<Batch>) -> Vec<Result<Outcome, StoreError>> {
        let (batches, ends): (Vec<_>, Vec<_>) =
            batches.into_iter().map(|batch| self.with_ends(batch)).unzip();
        let outcomes = self.store.commit_each(batches).await;
        ends.into_iter().zip(&outcomes).for_each(|(ends, outcome)| self.settle(ends, outcome));
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
