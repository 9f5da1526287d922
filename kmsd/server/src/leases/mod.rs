//! Usage leases of hot keys: where many uses of one kind follow each other, one leaf permits the next ones
//! and another tells how many there were, so that a signature does not wait for the disk
//! ([`kms_core::permit::Lease`], ADR 14).
//!
//! A lease stands for the rows that its first use was judged by. [`LeasedStore`] is the one way to the
//! disk: a batch that changes one of those rows carries the end of the lease along, before its own leaves.
//! So no use is counted by rules that are not those of the log any more.

mod recovery;
mod store;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use kms_core::audit::Leaf;
use kms_core::caller::Caller;
use kms_core::permit::{Intent, LEASE_USES_MAX, Lease, NotLeased, Recorded, Subject, Terms};
use kms_store::{Batch, Outcome, Write};
use tokio::sync::watch;

pub(crate) use recovery::close_lost;
pub(crate) use store::LeasedStore;

use crate::clock::Clock;
use crate::context::Context;

/// The leases that are open, and what is used so often that it may have one.
pub(crate) struct Leases {
    clock: Clock,
    slots: RwLock<HashMap<u64, Arc<Slot>>>,
    hasher: RandomState,
    by_row: Mutex<HashMap<String, Vec<Weak<Held>>>>,
    /// Ends that are not on disk yet.
    owed: Mutex<Vec<Leaf>>,
    is_stopped: AtomicBool,
}

/// How old what a use was judged by may be at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh {
    /// How often rows had changed before it was read.
    pub(crate) changes: u64,
    /// How often somebody's rights had.
    pub(crate) epoch: u64,
}

/// Which way a use goes on record.
pub(crate) enum Way {
    /// It is counted on a lease.
    Leased(Recorded),
    /// By a leaf of its own.
    Each,
    /// By a leaf of its own that opens a lease.
    Opens(Offer),
    /// Somebody is about to open the lease.
    Waits(watch::Receiver<()>),
}

/// One kind of use by one caller.
struct Slot {
    state: Mutex<State>,
}

enum State {
    /// No lease, and so many uses since.
    Cold {
        since: Instant,
        uses: u32,
    },
    /// A lease is on its way to the disk.
    Opening(watch::Receiver<()>),
    Open(Arc<Held>),
}

/// A lease from its offer to its end.
struct Held {
    rows: Vec<String>,
    fresh: Fresh,
    begun: Instant,
    lease: OnceLock<Lease>,
    /// One of its rows has changed, or its time has come.
    is_over: AtomicBool,
    /// How many uses there were at the last beat.
    uses_before: AtomicU64,
}

/// The right to open the lease of a slot. Dropped, it is given back, and the end of the lease before is
/// still owed.
pub(crate) struct Offer {
    leases: Arc<Leases>,
    slot: Arc<Slot>,
    held: Arc<Held>,
    /// The end of the lease before.
    ends: Option<Leaf>,
    is_opened: bool,
    /// Dropped with it, so that those who wait look again.
    _opening: watch::Sender<()>,
}

impl Leases {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            slots: RwLock::default(),
            hasher: RandomState::new(),
            by_row: Mutex::default(),
            owed: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        }
    }

    /// Leases may be opened.
    pub(crate) fn begin_again(&self) {
        self.is_stopped.store(false, Ordering::SeqCst);
    }

    /// Which way the use that `intent` describes goes. Everything it was judged by was read when it was
    /// `fresh`; `rows` are the keys of the rows among that.
    pub(crate) fn way(
        self: &Arc<Self>,
        caller: &Caller,
        intent: &Intent<'_>,
        fresh: Fresh,
        rows: impl FnOnce() -> Vec<String>,
    ) -> Way {
        if self.is_stopped.load(Ordering::Acquire) {
            return Way::Each;
        }
        let slot = self.slot(caller, intent);
        let held = match &mut *lock(&slot.state) {
            State::Open(held) => held.clone(),
            State::Opening(opened) => return Way::Waits(opened.clone()),
            cold @ State::Cold { .. } => return self.warmed(&slot, cold, fresh, rows),
        };
        if fresh.changes < held.fresh.changes {
            return Way::Each;
        }
        match held.decide(caller, intent, fresh) {
            Ok(recorded) => Way::Leased(recorded),
            Err(NotLeased::Other) => Way::Each,
            Err(NotLeased::Over) => self.renewed(&slot, &held, fresh, rows),
        }
    }

    /// Counts a use of what has no lease; the one that makes it hot opens one.
    fn warmed(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        cold: &mut State,
        fresh: Fresh,
        rows: impl FnOnce() -> Vec<String>,
    ) -> Way {
        let State::Cold { since, uses } = cold else { return Way::Each };
        if since.elapsed() > HOT_WITHIN {
            (*since, *uses) = (Instant::now(), 0);
        }
        *uses += 1;
        if *uses < HOT_USES {
            return Way::Each;
        }
        let (offer, opening) = self.offer(slot, fresh, rows(), None);
        *cold = State::Opening(opening);
        Way::Opens(offer)
    }

    /// Opens the next lease after `held`, which is over.
    fn renewed(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        held: &Arc<Held>,
        fresh: Fresh,
        rows: impl FnOnce() -> Vec<String>,
    ) -> Way {
        let mut state = lock(&slot.state);
        match &*state {
            State::Open(current) if Arc::ptr_eq(current, held) => {}
            State::Opening(opened) => return Way::Waits(opened.clone()),
            _ => return Way::Each,
        }
        let (offer, opening) = self.offer(slot, fresh, rows(), held.end(&self.clock));
        *state = State::Opening(opening);
        Way::Opens(offer)
    }

    fn offer(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        fresh: Fresh,
        rows: Vec<String>,
        ends: Option<Leaf>,
    ) -> (Offer, watch::Receiver<()>) {
        let held = Arc::new(Held {
            rows,
            fresh,
            begun: Instant::now(),
            lease: OnceLock::new(),
            is_over: AtomicBool::new(false),
            uses_before: AtomicU64::new(0),
        });
        // Before its leaf is on the way, so that whoever changes a row meanwhile ends it as well.
        let mut by_row = lock(&self.by_row);
        for row in &held.rows {
            by_row.entry(row.clone()).or_default().push(Arc::downgrade(&held));
        }
        drop(by_row);
        let (sender, opening) = watch::channel(());
        let (leases, slot) = (self.clone(), slot.clone());
        (Offer { leases, slot, held, ends, is_opened: false, _opening: sender }, opening)
    }

    fn slot(&self, caller: &Caller, intent: &Intent<'_>) -> Arc<Slot> {
        // Two kinds of use that come to the same number share a slot, and a lease is for one of them.
        let who = (caller.principal(), caller.authentication());
        let mechanism = match intent.subject {
            Subject::Version { mechanism, .. } => mechanism,
            _ => None,
        };
        let number = self.hasher.hash_one((who, intent.action, &intent.resource, mechanism));
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&number) {
            return slot.clone();
        }
        drop(slots);
        let cold = || Slot { state: Mutex::new(State::Cold { since: Instant::now(), uses: 0 }) };
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= SLOTS_MAX {
            slots.retain(|_, slot| !matches!(*lock(&slot.state), State::Cold { .. }));
        }
        slots.entry(number).or_insert_with(|| Arc::new(cold())).clone()
    }

    /// The ends of the leases that stand for a row which `writes` change.
    fn ends_by(&self, writes: &[Write]) -> Vec<Leaf> {
        if writes.is_empty() {
            return Vec::new();
        }
        let mut by_row = lock(&self.by_row);
        let touched = writes.iter().filter_map(|write| by_row.remove(write.key()));
        let touched = touched.flatten().filter_map(|held| held.upgrade());
        touched.filter_map(|held| held.end(&self.clock)).collect()
    }

    fn owe(&self, ends: impl IntoIterator<Item = Leaf>) {
        lock(&self.owed).extend(ends);
    }

    /// The ends of those leases that are old or idle; of all when `all`.
    fn ends_due(&self, all: bool) -> Vec<Leaf> {
        let mut ends = Vec::new();
        let mut by_row = lock(&self.by_row);
        by_row.retain(|_, held| {
            held.retain(|held| {
                let Some(held) = held.upgrade() else { return false };
                if all || held.is_due() {
                    ends.extend(held.end(&self.clock));
                }
                !held.is_over.load(Ordering::Acquire)
            });
            !held.is_empty()
        });
        drop(by_row);
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.values() {
            let mut state = lock(&slot.state);
            if let State::Open(held) = &*state
                && held.is_over.load(Ordering::Acquire)
            {
                *state = State::Cold { since: Instant::now(), uses: 0 };
            }
        }
        ends
    }
}

impl Held {
    fn decide(
        &self,
        caller: &Caller,
        intent: &Intent<'_>,
        fresh: Fresh,
    ) -> Result<Recorded, NotLeased> {
        let lease = self.lease.get().ok_or(NotLeased::Other)?;
        if fresh.epoch != self.fresh.epoch || self.is_over.load(Ordering::Acquire) {
            return Err(NotLeased::Over);
        }
        lease.decide(caller, intent)
    }

    /// Ends it: nothing is counted on it from now on. Gives the leaf that says so, once.
    fn end(&self, clock: &Clock) -> Option<Leaf> {
        self.is_over.store(true, Ordering::SeqCst);
        self.lease.get().and_then(|lease| lease.close(clock.now()))
    }

    /// Whether it has been open for long enough, or was not used since this was asked last.
    fn is_due(&self) -> bool {
        let Some(lease) = self.lease.get() else { return false };
        let uses = lease.uses();
        let before = self.uses_before.swap(uses, Ordering::AcqRel);
        let is_idle = uses == before && self.begun.elapsed() > IDLE_MAX;
        is_idle || self.begun.elapsed() > LIFE
    }
}

impl Offer {
    /// What the lease permits at most.
    pub(crate) fn terms(&self) -> Terms {
        let life = u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX);
        let until = self.leases.clock.now().plus_ms(life);
        Terms { uses_max: LEASE_USES_MAX, until }
    }

    /// The leaf that ends the lease before, to go to the disk in the same batch.
    pub(crate) fn ends_before(&self) -> Option<Vec<u8>> {
        self.ends.as_ref().map(Leaf::to_bytes)
    }

    /// The leaf that opens the lease is on disk, with the end of the one before.
    pub(crate) fn opened(mut self, recorded: &Recorded, caller: &Caller) {
        self.ends = None;
        let Some(lease) = recorded.lease(caller) else { return };
        let lease = self.held.lease.get_or_init(|| lease);
        if self.held.is_over.load(Ordering::SeqCst) || self.leases.is_stopped.load(Ordering::SeqCst)
        {
            // A row changed while it was on its way.
            self.leases.owe(lease.close(self.leases.clock.now()));
            return;
        }
        *lock(&self.slot.state) = State::Open(self.held.clone());
        self.is_opened = true;
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.leases.owe(self.ends.take());
        if !self.is_opened {
            self.held.is_over.store(true, Ordering::SeqCst);
            *lock(&self.slot.state) = State::Cold { since: Instant::now(), uses: 0 };
        }
    }
}

/// Ends leases that are old or idle, until the daemon stops.
pub(crate) async fn end_in_time(cx: Arc<Context>) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let ends = cx.leases.ends_due(false);
        put_on_record(&cx, ends).await;
    }
}

/// Ends all leases, and opens no other until [`Leases::begin_again`].
pub(crate) async fn end_all(cx: &Context) {
    cx.leases.is_stopped.store(true, Ordering::SeqCst);
    let ends = cx.leases.ends_due(true);
    put_on_record(cx, ends).await;
}

/// Writes `ends` and what is owed besides. What does not reach the disk is owed; should the daemon be cut
/// off before it does, the next start says how many uses there were at most.
async fn put_on_record(cx: &Context, ends: Vec<Leaf>) {
    cx.leases.owe(ends);
    loop {
        let mut owed = std::mem::take(&mut *lock(&cx.leases.owed));
        if owed.is_empty() {
            return;
        }
        let later = owed.split_off(owed.len().min(ENDS_AT_ONCE));
        cx.leases.owe(later);
        let leaves = owed.iter().map(Leaf::to_bytes).collect();
        let outcome = cx.store.commit(Batch { leaves, ..Batch::default() }).await;
        if !matches!(outcome, Ok(Outcome::Committed(_) | Outcome::Unknown)) {
            cx.leases.owe(owed);
            return;
        }
    }
}

/// Nothing panics under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many uses of one kind by one caller make it hot, and within which time. Below that a lease would
/// cost more leaves than it saves.
const HOT_USES: u32 = 32;
const HOT_WITHIN: Duration = Duration::from_secs(1);
/// How long a lease is open at most.
const LIFE: Duration = Duration::from_secs(2);
/// After which time a lease ends that is not used.
const IDLE_MAX: Duration = Duration::from_millis(500);
const BEAT: Duration = Duration::from_millis(250);
/// How many ends go into one batch: together they stay far below what a batch may hold.
const ENDS_AT_ONCE: usize = 32;
/// Most kinds of use that are counted at a time.
const SLOTS_MAX: usize = 16_384;
