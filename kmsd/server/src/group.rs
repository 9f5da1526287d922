//! Several requests that came together, in one message or on one stream: they share one task and one
//! commit.
//!
//! Each goes its own way through the pipeline, with its own decision and its own leaf. What they have in
//! common is only that their decisions wait for each other on the way to the disk, in a [`Gathering`].

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Task, Poll, Waker};
use std::time::{Duration, Instant};

use kms_store::{Batch, Outcome, Store, StoreError};
use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::sync::oneshot;

/// The decisions of a group that are to be put on record together.
#[derive(Default)]
pub(crate) struct Gathering(Mutex<Gathered>);

#[derive(Default)]
struct Gathered {
    waiting: Vec<(Batch, oneshot::Sender<Committed>)>,
    /// Wakes the group, once there are requests that it does not poll itself.
    group: Option<Waker>,
}

type Committed = Result<Outcome, StoreError>;

impl Gathering {
    /// Commits a batch with those of the others.
    ///
    /// # Errors
    /// Those of [`Store::commit`].
    pub(crate) async fn commit(&self, batch: Batch) -> Committed {
        let (answer, outcome) = oneshot::channel();
        {
            let mut gathered = self.lock();
            gathered.waiting.push((batch, answer));
            gathered.group.iter().for_each(Waker::wake_by_ref);
        }
        // A group that ended before its commit tells nothing of what reached the disk.
        outcome.await.unwrap_or(Ok(Outcome::Unknown))
    }

    /// Nothing panics under this lock.
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request on its way.
pub(crate) type Item<R> = Pin<Box<dyn Future<Output = R> + Send>>;

/// Requests on their way together.
pub(crate) struct Group<R> {
    store: Arc<dyn Store>,
    gathering: Arc<Gathering>,
    /// Each with its place among them, until it has ended.
    items: Vec<(usize, Item<R>)>,
    commit: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// What is told of a request whose task was lost.
    lost: fn() -> R,
    /// Whether each has a task of its own by now.
    is_spread: bool,
}

impl<R: Send + 'static> Group<R> {
    /// A group of `items`, which record their decisions by `gathering`.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        gathering: Arc<Gathering>,
        items: Vec<Item<R>>,
        lost: fn() -> R,
    ) -> Self {
        let items = items.into_iter().enumerate().collect();
        Self { store, gathering, items, commit: None, lost, is_spread: false }
    }

    /// The requests that have ended since, with their places; none when all have.
    pub(crate) async fn ended(&mut self) -> Vec<(usize, R)> {
        std::future::poll_fn(|task| {
            let ended = self.turn(task);
            if ended.is_empty() && !self.items.is_empty() {
                return Poll::Pending;
            }
            Poll::Ready(ended)
        })
        .await
    }

    /// Lets each go on as far as it can.
    fn turn(&mut self, task: &mut Task<'_>) -> Vec<(usize, R)> {
        let (begun, worked) = (Instant::now(), cpu_time());
        let mut ended = Vec::new();
        self.go_on_committing(task);
        let mut items = std::mem::take(&mut self.items).into_iter();
        while let Some((place, mut item)) = items.next() {
            match item.as_mut().poll(task) {
                Poll::Ready(result) => ended.push((place, result)),
                Poll::Pending => self.items.push((place, item)),
            }
            // A thread that was kept from running has not worked long: the second clock is the one that
            // counts, the first the one that costs little.
            let is_long = || begun.elapsed() > TURN_MAX && cpu_time() - worked > TURN_MAX;
            if !self.is_spread && items.len() > 0 && is_long() {
                self.spread(task, &mut items, &mut ended);
            }
        }
        self.go_on_committing(task);
        ended
    }

    /// Commits what has gathered since the last commit.
    fn go_on_committing(&mut self, task: &mut Task<'_>) {
        loop {
            if let Some(commit) = &mut self.commit {
                if commit.as_mut().poll(task).is_pending() {
                    return;
                }
                self.commit = None;
            }
            let gathered = std::mem::take(&mut self.gathering.lock().waiting);
            if gathered.is_empty() {
                return;
            }
            let store = self.store.clone();
            self.commit = Some(Box::pin(async move {
                let (batches, answers): (Vec<_>, Vec<_>) = gathered.into_iter().unzip();
                let outcomes = store.commit_each(batches).await;
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // A request that ended before has lost interest.
                    let _nobody_waits = answer.send(outcome);
                }
            }));
        }
    }

    /// Gives each of `items` a task of its own: what takes long is to hold up neither the others nor
    /// whoever else waits for this thread.
    fn spread(
        &mut self,
        task: &mut Task<'_>,
        items: &mut dyn Iterator<Item = (usize, Item<R>)>,
        ended: &mut Vec<(usize, R)>,
    ) {
        self.is_spread = true;
        self.gathering.lock().group = Some(task.waker().clone());
        let lost = self.lost;
        for (place, item) in items {
            let own = tokio::spawn(item);
            let mut item: Item<R> = Box::pin(async move { own.await.unwrap_or_else(|_| lost()) });
            match item.as_mut().poll(task) {
                Poll::Ready(result) => ended.push((place, result)),
                Poll::Pending => self.items.push((place, item)),
            }
        }
    }
}

/// For how long this thread has worked.
fn cpu_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    // It begins at zero and only grows.
    Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_nsec).unwrap_or_default())
}

/// How long a group works on a thread at a time, but for the request that it ends with.
const TURN_MAX: Duration = Duration::from_millis(2);
/// How many requests go together at most: more are more groups, which go side by side.
pub(crate) const GROUP_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use kms_store::{Condition, Expected, MemoryStore, Write};

    use super::*;

    /// Commits one row and one leaf, after `before`.
    fn item(
        gathering: &Arc<Gathering>,
        key: &'static str,
        before: impl FnOnce() + Send + 'static,
    ) -> Item<Committed> {
        let gathering = gathering.clone();
        Box::pin(async move {
            before();
            let batch = Batch {
                conditions: vec![Condition { key: key.to_owned(), expected: Expected::Absent }],
                writes: vec![Write::Put { key: key.to_owned(), value: Vec::new() }],
                leaves: vec![key.as_bytes().to_vec()],
                ..Batch::default()
            };
            gathering.commit(batch).await
        })
    }

    async fn all(group: &mut Group<Committed>) -> Vec<(usize, Committed)> {
        let mut results = Vec::new();
        loop {
            let ended = group.ended().await;
            if ended.is_empty() {
                results.sort_by_key(|(place, _)| *place);
                return results;
            }
            results.extend(ended);
        }
    }

    fn lost() -> Committed {
        Err(StoreError::Closed)
    }

    #[tokio::test]
    async fn each_of_a_group_is_answered_in_its_place_and_one_keeps_no_other_back() {
        let store = Arc::new(MemoryStore::new());
        let gathering = Arc::<Gathering>::default();
        let mut items: Vec<_> =
            ["a", "b", "a", "c"].into_iter().map(|key| item(&gathering, key, || ())).collect();
        // Whoever has nothing to record ends as well.
        items.push(Box::pin(async { Ok(Outcome::Unknown) }));
        let mut group = Group::new(store.clone(), gathering, items, lost);
        let results = all(&mut group).await;
        assert_eq!(results.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        for (place, result) in &results {
            let expected = match place {
                2 => matches!(result, Ok(Outcome::Conflict(_))),
                4 => matches!(result, Ok(Outcome::Unknown)),
                _ => matches!(result, Ok(Outcome::Committed(_))),
            };
            assert!(expected, "{place}: {result:?}");
        }
        assert_eq!(store.log_size().await, 3);
        assert!(!group.is_spread);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_takes_long_is_spread_and_recorded_all_the_same() {
        let store = Arc::new(MemoryStore::new());
        let gathering = Arc::<Gathering>::default();
        let slow = || {
            let begun = cpu_time();
            while cpu_time() - begun < TURN_MAX * 2 {}
        };
        let keys = ["a", "b", "c", "d", "e"];
        let mut items: Vec<_> = keys.into_iter().map(|key| item(&gathering, key, slow)).collect();
        items.push(Box::pin(async { panic!("one of them") }));
        let mut group = Group::new(store.clone(), gathering, items, lost);
        let results = all(&mut group).await;
        assert!(group.is_spread);
        assert_eq!((results.len(), store.log_size().await), (6, 5));
        let (panicked, rest) = results.split_last().unwrap();
        assert!(matches!(panicked.1, Err(StoreError::Closed)));
        assert!(rest.iter().all(|(_, result)| matches!(result, Ok(Outcome::Committed(_)))));
    }
}
