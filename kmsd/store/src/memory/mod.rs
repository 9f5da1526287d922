//! The whole store in memory: for tests of whatever stands on a store.
//!
//! It keeps the contract but for the disk: what is acknowledged is gone with the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use kms_core::audit::CommitReceipt;
use kms_core::audit::merkle::{self, Frontier};
use kms_core::id::Digest;
use zeroize::Zeroizing;

use crate::batch::{Decision, RowChange, RowState, decide};
use crate::log::{Log, Tile, Tiles};
use crate::row_set::{Buckets, row_digest};
use crate::store::{Page, check_limit};
use crate::watch::Changes;
use crate::{Batch, Committed, IDEMPOTENCY_MAX, Outcome, Row, RowSet, Store, StoreError, Watch};

/// The store in memory.
pub struct MemoryStore {
    state: Mutex<State>,
    changes: Changes,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// A deleted row keeps its revision.
    rows: BTreeMap<String, (RowState, Vec<u8>)>,
    buckets: Buckets,
    /// How many batches were applied.
    sequence: u64,
    rows_sequence: u64,
    /// The roots of all sets of rows, by the batch that made them.
    roots: BTreeMap<u64, Digest>,
    log: Log,
    leaves: Vec<Vec<u8>>,
    tiles: FullTiles,
    receipts: HashMap<[u8; 32], CommitReceipt>,
    receipts_in_order: VecDeque<[u8; 32]>,
    slots: Vec<Option<Zeroizing<[u8; 32]>>>,
}

#[derive(Default)]
struct FullTiles(HashMap<(u8, u64), Vec<Digest>>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self { state: Mutex::default(), changes: Changes::new() }
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(StoreError::Closed) } else { Ok(state) }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn replayed(&self, idempotency: &[u8; 32]) -> Option<Committed> {
        let receipt = self.receipts.get(idempotency)?.clone();
        Some(Committed { receipt, replayed: true })
    }

    /// Applies the batch; also tells the keys that changed.
    fn commit(&mut self, batch: Batch) -> Result<(Outcome, Vec<String>), StoreError> {
        batch.check()?;
        if let Some(committed) = batch.idempotency.and_then(|name| self.replayed(&name)) {
            return Ok((Outcome::Committed(committed), Vec::new()));
        }
        let Batch { conditions, writes, leaves, idempotency, binds_rows: _ } = batch;
        let state = |key: &str| Ok(self.rows.get(key).map_or_else(RowState::default, |row| row.0));
        let rows = match decide(conditions, writes, state)? {
            Decision::Apply(rows) => rows,
            Decision::Conflict(keys) => return Ok((Outcome::Conflict(keys), Vec::new())),
        };
        self.sequence += 1;
        self.change_set(&rows);
        let keys = rows.iter().map(|row| row.key.clone()).collect();
        for row in rows {
            let state = row.state();
            self.rows.insert(row.key, (state, row.value.unwrap_or_default()));
        }
        let receipt = self.append(leaves);
        if let Some(name) = idempotency {
            self.remember(name, receipt.clone());
        }
        Ok((Outcome::Committed(Committed { receipt, replayed: false }), keys))
    }

    fn change_set(&mut self, rows: &[RowChange]) {
        if rows.is_empty() {
            return;
        }
        let before = |key| {
            let (state, value) = self.rows.get(key)?;
            Some(row_digest(state.revision, state.live.then_some(value)))
        };
        let changes = rows.iter().map(|row| (row.key.as_str(), before(&row.key), row.digest()));
        let states = self.buckets.planned(changes).expect("every state was made here");
        states.into_iter().for_each(|(bucket, state)| self.buckets.set(bucket, state));
        self.rows_sequence = self.sequence;
        self.roots.insert(self.sequence, self.buckets.root());
    }

    fn append(&mut self, leaves: Vec<Vec<u8>>) -> CommitReceipt {
        let first = self.log.size();
        let hashes: Vec<Digest> = leaves.iter().map(|leaf| merkle::leaf_hash(leaf)).collect();
        let mut full = Vec::new();
        for hash in &hashes {
            self.log.append(*hash, &mut full);
        }
        for Tile { level, n, hashes } in full {
            self.tiles.0.insert((level, n), hashes);
        }
        self.leaves.extend(leaves);
        CommitReceipt::durable(first, hashes)
    }

    fn remember(&mut self, name: [u8; 32], receipt: CommitReceipt) {
        self.receipts.insert(name, receipt);
        self.receipts_in_order.push_back(name);
        if self.receipts_in_order.len() as u64 > IDEMPOTENCY_MAX
            && let Some(oldest) = self.receipts_in_order.pop_front()
        {
            self.receipts.remove(&oldest);
        }
    }

    fn slot(&mut self, slot: u64) -> Result<&mut Option<Zeroizing<[u8; 32]>>, StoreError> {
        let at = usize::try_from(slot).map_err(|_| StoreError::SlotUnknown { slot })?;
        self.slots.get_mut(at).ok_or(StoreError::SlotUnknown { slot })
    }
}

impl Tiles for FullTiles {
    fn full_tile(&self, level: u8, n: u64) -> Result<Vec<Digest>, StoreError> {
        self.0.get(&(level, n)).cloned().ok_or(StoreError::LogRange { asked: n, size: 0 })
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Row>, StoreError> {
        let state = self.state()?;
        let live = state.rows.get(key).filter(|(state, _)| state.live);
        Ok(live
            .map(|(state, value)| Row { revision: state.revision, value: value.as_slice().into() }))
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, StoreError> {
        check_limit(limit)?;
        let state = self.state()?;
        let begin = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut page = Page::new(limit);
        let rows = state.rows.range::<str, _>((begin, Bound::Unbounded));
        let within = rows.take_while(|(key, _)| key.starts_with(prefix));
        for (key, (row, value)) in within.filter(|(_, (row, _))| row.live) {
            let bytes = key.len() + value.len();
            if !page.has_room(bytes) {
                break;
            }
            let row = Row { revision: row.revision, value: value.as_slice().into() };
            page.push((key.clone(), row), bytes);
        }
        Ok(page.into_entries())
    }

    async fn commit(&self, batch: Batch) -> Result<Outcome, StoreError> {
        let (outcome, keys) = self.state()?.commit(batch)?;
        self.changes.tell(keys);
        Ok(outcome)
    }

    async fn outcome_of(&self, idempotency: &[u8; 32]) -> Result<Option<Committed>, StoreError> {
        Ok(self.state()?.replayed(idempotency))
    }

    fn watch(&self) -> Watch {
        self.changes.watch()
    }

    async fn log_size(&self) -> u64 {
        self.log_frontier().await.size()
    }

    async fn log_frontier(&self) -> Frontier {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.log.frontier().clone()
    }

    async fn leaves(&self, begin: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        check_limit(limit)?;
        let state = self.state()?;
        let outside = StoreError::LogRange { asked: begin, size: state.log.size() };
        let rest = usize::try_from(begin).ok().and_then(|begin| state.leaves.get(begin..));
        let mut page = Page::new(limit);
        for leaf in rest.ok_or(outside)? {
            if !page.has_room(leaf.len()) {
                break;
            }
            page.push(leaf.clone(), leaf.len());
        }
        Ok(page.into_entries())
    }

    async fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, StoreError> {
        let state = self.state()?;
        state.log.inclusion_proof(index, size, &state.tiles)
    }

    async fn hash_tile(&self, level: u8, n: u64, width: u64) -> Result<Vec<u8>, StoreError> {
        let state = self.state()?;
        state.log.hash_tile(level, n, width, &state.tiles)
    }

    async fn row_set(&self) -> Result<RowSet, StoreError> {
        let mut state = self.state()?;
        Ok(RowSet { root: state.buckets.root(), sequence: state.sequence })
    }

    async fn row_set_at(&self, sequence: u64) -> Result<Option<Digest>, StoreError> {
        let state = self.state()?;
        if sequence > state.sequence {
            return Ok(None);
        }
        let latest = state.roots.range(..=sequence).next_back();
        Ok(Some(latest.map_or_else(|| Buckets::default().root(), |(_, root)| *root)))
    }

    async fn put_slot(&self, secret: Zeroizing<[u8; 32]>) -> Result<u64, StoreError> {
        let mut state = self.state()?;
        state.slots.push(Some(secret));
        Ok(state.slots.len() as u64 - 1)
    }

    async fn read_slot(&self, slot: u64) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        self.state()?.slot(slot)?.clone().ok_or(StoreError::SlotErased { slot })
    }

    async fn erase_slot(&self, slot: u64) -> Result<(), StoreError> {
        *self.state()?.slot(slot)? = None;
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::conformance;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_keeps_the_contract() {
        conformance::run(async || Arc::new(MemoryStore::new()) as Arc<dyn Store>).await;
    }
}
