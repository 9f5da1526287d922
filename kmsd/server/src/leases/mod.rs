//! Usage leases of hot keys: where many uses of one kind follow each other, one leaf permits the next ones
//! and another tells how many there were, so that a signature does not wait for the disk
//! ([`kms_core::permit::Lease`], ADR 14).
//!
//! A lease stands for the rows that its first use was judged by. [`LeasedStore`] is the one way to the
//! disk: a batch that changes one of those rows carries the end of the lease along, before its own leaves, and
//! while it is on its way none is opened that stands for the row. So no use is counted by rules that are
//! not those of the log any more.
//!
//! Locks are taken in this order: the slots, a slot's state, the rows, a lease's uses; what is owed, alone.

mod recovery;
mod store;

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use kms_core::audit::Leaf;
use kms_core::caller::Caller;
use kms_core::permit::{Intent, LEASE_USES_MAX, Lease, LeaseTerms, NotLeased, Recorded, Subject};
use kms_store::{Batch, Outcome, Store, Write};
use tokio::sync::watch;

pub(crate) use recovery::close_lost;
pub(crate) use store::LeasedStore;

use crate::clock::Clock;
use crate::context::Context;
use crate::failure::Failure;

/// The leases that are open, and what is used so often that it may have one.
pub(crate) struct Leases {
    clock: Clock,
    slots: RwLock<HashMap<u64, Arc<Slot>>>,
    hasher: RandomState,
    by_row: Mutex<HashMap<String, OfRow>>,
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
#[expect(clippy::large_enum_variant, reason = "the large one is the one that hot uses take")]
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

/// What stands for one row.
#[derive(Default)]
struct OfRow {
    /// The leases, also those that are offered.
    leases: Vec<Weak<Held>>,
    /// How many batches that change it are on their way.
    changes: usize,
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

/// The rows that a batch on its way changes: no lease is opened that stands for one of them. Dropped when the
/// batch has come through, or not.
pub(super) struct Changing<'a> {
    leases: &'a Leases,
    rows: Vec<String>,
}

/// A lease from its offer to its end.
struct Held {
    rows: Vec<String>,
    fresh: Fresh,
    begun: Instant,
    lease: OnceLock<Lease>,
    /// Closed when it is open, or will not be.
    offered: watch::Receiver<()>,
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
    ends: Option<Box<Leaf>>,
    is_opened: bool,
    /// Dropped with it, so that those who wait look again.
    _offered: watch::Sender<()>,
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
        let mut state = lock(&slot.state);
        let held = match &mut *state {
            State::Open(held) => held.clone(),
            State::Opening(opened) => return Way::Waits(opened.clone()),
            State::Cold { since, uses } => {
                if since.elapsed() > HOT_WITHIN {
                    (*since, *uses) = (Instant::now(), 0);
                }
                *uses += 1;
                if *uses < HOT_USES {
                    return Way::Each;
                }
                return self.offer(&slot, &mut state, fresh, rows(), None);
            }
        };
        drop(state);
        if fresh.changes < held.fresh.changes {
            return Way::Each;
        }
        match held.decide(caller, intent, fresh) {
            Ok(recorded) => Way::Leased(recorded),
            Err(NotLeased::Unlike) => Way::Each,
            Err(NotLeased::Over) => self.renewed(&slot, &held, fresh, rows),
        }
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
        let ends = held.end(&self.clock).map(Box::new);
        self.offer(slot, &mut state, fresh, rows(), ends)
    }

    /// Offers the next lease of a slot, unless one of its rows is about to change.
    fn offer(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        state: &mut State,
        fresh: Fresh,
        rows: Vec<String>,
        ends: Option<Box<Leaf>>,
    ) -> Way {
        let (sender, offered) = watch::channel(());
        let held = Arc::new(Held {
            rows,
            fresh,
            begun: Instant::now(),
            lease: OnceLock::new(),
            offered: offered.clone(),
            is_over: AtomicBool::new(false),
            uses_before: AtomicU64::new(0),
        });
        let mut by_row = lock(&self.by_row);
        let is_changing = |row: &String| by_row.get(row).is_some_and(|row| row.changes > 0);
        if held.rows.iter().any(is_changing) {
            drop(by_row);
            // Most often that change has ended the lease before, too.
            self.owe(ends.map(|ends| *ends));
            *state = State::cold();
            return Way::Each;
        }
        for row in &held.rows {
            by_row.entry(row.clone()).or_default().leases.push(Arc::downgrade(&held));
        }
        drop(by_row);
        *state = State::Opening(offered);
        let (leases, slot) = (self.clone(), slot.clone());
        Way::Opens(Offer { leases, slot, held, ends, is_opened: false, _offered: sender })
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
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= SLOTS_MAX {
            // Nobody gets hold of one meanwhile, so one that is held is about to be used.
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || !matches!(*lock(&slot.state), State::Cold { .. })
            });
        }
        let cold = || Arc::new(Slot { state: Mutex::new(State::cold()) });
        match slots.len() >= SLOTS_MAX {
            true => cold(),
            false => slots.entry(number).or_insert_with(cold).clone(),
        }
    }

    /// Says that a batch with `writes` is on its way.
    fn changing<'a>(&self, writes: impl IntoIterator<Item = &'a Write>) -> Changing<'_> {
        let rows: Vec<String> = writes.into_iter().map(|write| write.key().to_owned()).collect();
        if !rows.is_empty() {
            let mut by_row = lock(&self.by_row);
            for row in &rows {
                by_row.entry(row.clone()).or_default().changes += 1;
            }
        }
        Changing { leases: self, rows }
    }

    fn owe(&self, ends: impl IntoIterator<Item = Leaf>) {
        lock(&self.owed).extend(ends);
    }

    /// The ends of those leases that are old or idle; of all when `all`.
    fn ends_due(&self, all: bool) -> Vec<Leaf> {
        let held = self.all().into_iter().filter(|held| all || held.is_due());
        let ends = held.filter_map(|held| held.end(&self.clock)).collect();
        lock(&self.by_row).retain(|_, row| {
            row.leases.retain(is_alive);
            row.changes > 0 || !row.leases.is_empty()
        });
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.values() {
            let mut state = lock(&slot.state);
            if let State::Open(held) = &*state
                && held.is_over.load(Ordering::Acquire)
            {
                *state = State::cold();
            }
        }
        ends
    }
}

impl Leases {
    /// Every lease, each once, also those that are offered.
    fn all(&self) -> Vec<Arc<Held>> {
        let by_row = lock(&self.by_row);
        let held = by_row.values().flat_map(|row| &row.leases).filter_map(Weak::upgrade);
        let mut seen = HashSet::new();
        held.filter(|held| seen.insert(Arc::as_ptr(held))).collect()
    }
}

fn is_alive(held: &Weak<Held>) -> bool {
    held.upgrade().is_some_and(|held| !held.is_over.load(Ordering::Acquire))
}

impl State {
    fn cold() -> Self {
        Self::Cold { since: Instant::now(), uses: 0 }
    }
}

impl Changing<'_> {
    /// Waits for the leases on its rows that somebody is about to open: their leaf comes first.
    async fn offers_are_settled(&self) {
        for held in self.leases() {
            held.offer_is_settled().await;
        }
    }

    /// The ends of the leases on its rows.
    fn ends(&self) -> Vec<Leaf> {
        let held = self.leases().into_iter();
        held.filter_map(|held| held.end(&self.leases.clock)).collect()
    }

    fn leases(&self) -> Vec<Arc<Held>> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let by_row = lock(&self.leases.by_row);
        let rows = self.rows.iter().filter_map(|row| by_row.get(row));
        rows.flat_map(|row| &row.leases).filter_map(Weak::upgrade).collect()
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        if self.rows.is_empty() {
            return;
        }
        let mut by_row = lock(&self.leases.by_row);
        for row in &self.rows {
            if let Some(of_row) = by_row.get_mut(row) {
                of_row.changes -= 1;
                of_row.leases.retain(is_alive);
                if of_row.changes == 0 && of_row.leases.is_empty() {
                    by_row.remove(row);
                }
            }
        }
    }
}

impl Held {
    fn decide(
        &self,
        caller: &Caller,
        intent: &Intent<'_>,
        fresh: Fresh,
    ) -> Result<Recorded, NotLeased> {
        let lease = self.lease.get().ok_or(NotLeased::Unlike)?;
        if fresh.epoch != self.fresh.epoch || self.is_over.load(Ordering::Acquire) {
            return Err(NotLeased::Over);
        }
        lease.decide(caller, intent)
    }

    /// Waits until it is open, or will not be.
    async fn offer_is_settled(&self) {
        let mut offered = self.offered.clone();
        // The sender sends nothing: it is dropped, and that is the news.
        while offered.changed().await.is_ok() {}
    }

    /// Ends it: nothing is counted on it from now on. Gives the leaf that says so, once.
    fn end(&self, clock: &Clock) -> Option<Leaf> {
        self.is_over.store(true, Ordering::SeqCst);
        // Either this sees the lease, or whoever opens it sees that it is over.
        fence(Ordering::SeqCst);
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
    pub(crate) fn terms(&self) -> LeaseTerms {
        let life = u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX);
        let until = self.leases.clock.now().plus_ms(life);
        LeaseTerms { uses_max: LEASE_USES_MAX, until }
    }

    /// The leaf that ends the lease before, to go to the disk in the same batch.
    pub(crate) fn ends_before(&self) -> Option<Vec<u8>> {
        self.ends.as_deref().map(Leaf::to_bytes)
    }

    /// The leaf that opens the lease is on disk, with the end of the one before.
    pub(crate) fn opened(mut self, recorded: &Recorded, caller: &Caller) {
        self.ends = None;
        let Some(lease) = recorded.lease(caller) else { return };
        let lease = self.held.lease.get_or_init(|| lease);
        fence(Ordering::SeqCst);
        if self.held.is_over.load(Ordering::SeqCst) || self.leases.is_stopped.load(Ordering::SeqCst)
        {
            // A row changes with a batch that did not wait for it, or the appliance is being sealed.
            self.leases.owe(lease.close(self.leases.clock.now()));
            return;
        }
        *lock(&self.slot.state) = State::Open(self.held.clone());
        self.is_opened = true;
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.leases.owe(self.ends.take().map(|ends| *ends));
        if !self.is_opened {
            self.held.is_over.store(true, Ordering::SeqCst);
            *lock(&self.slot.state) = State::cold();
        }
    }
}

/// Ends leases that are old or idle, until the daemon stops.
pub(crate) async fn end_in_time(cx: Arc<Context>) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        cx.leases.owe(cx.leases.ends_due(false));
        // In a task of its own, so that what is taken out of the owed gets to the disk or back.
        let paying = cx.clone();
        if tokio::spawn(async move { pay_and_tell(&paying).await }).await.is_err() {
            tracing::error!("the ends of usage leases panicked");
        }
    }
}

/// Ends all leases, and opens no other until [`Leases::begin_again`].
pub(crate) async fn end_all(cx: &Context) {
    cx.leases.is_stopped.store(true, Ordering::SeqCst);
    let offers_settle = async {
        for held in cx.leases.all() {
            held.offer_is_settled().await;
        }
    };
    if tokio::time::timeout(OFFERS_WAITED_FOR, offers_settle).await.is_err() {
        tracing::warn!("a usage lease is on its way to the disk for too long");
    }
    cx.leases.owe(cx.leases.ends_due(true));
    pay_and_tell(cx).await;
}

/// Writes what is owed. What does not reach the disk is owed on; should the daemon be cut off before it
/// does, the next start says how many uses there were at most.
async fn pay_and_tell(cx: &Context) {
    if let Err(error) = pay(&*cx.store, &cx.leases).await {
        tracing::warn!(%error, "ends of usage leases are not on disk yet");
    }
}

async fn pay(store: &dyn Store, leases: &Leases) -> Result<(), Failure> {
    loop {
        let mut owed = std::mem::take(&mut *lock(&leases.owed));
        if owed.is_empty() {
            return Ok(());
        }
        leases.owe(owed.split_off(owed.len().min(ENDS_AT_ONCE)));
        let leaves = owed.iter().map(Leaf::to_bytes).collect();
        match store.commit(Batch { leaves, ..Batch::default() }).await {
            Ok(Outcome::Committed(_)) => {}
            // Whether they are on disk, the next start sees.
            Ok(Outcome::Unknown) => return Err(Failure::Unknown),
            Ok(Outcome::Conflict(_)) => return Err(Failure::Bug("a conflict without a condition")),
            Err(error) => {
                leases.owe(owed);
                return Err(error.into());
            }
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
const ENDS_AT_ONCE: usize = 8;
/// How long sealing waits for leases that are on their way to the disk.
const OFFERS_WAITED_FOR: Duration = Duration::from_secs(10);
/// Most kinds of use that are counted at a time.
const SLOTS_MAX: usize = 16_384;
