//! What stands between the index library and this process: it may fail, panic or hang on a damaged
//! folder, and none of that is to become ours.
//!
//! A panic is caught and becomes an [`IndexFault`]. A hang cannot be ended, since no thread can be
//! ended from outside: the opening is waited for on another thread and given up, and every later
//! call is watched. When one outlasts its patience, the index is condemned and the process ends
//! with a message, so that the service manager starts it again and the next start makes the index
//! anew from the journal. `index` is the only caller.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::folder::write_note;
use super::index::IndexFault;
use crate::caught::caught;

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// A read or a batch of writes.
    Quick,
    /// What brings everything to the disk, or closes.
    Slow,
}

/// Watches over the calls into one index, until it is dropped.
pub(crate) struct Guard {
    calls: Arc<Calls>,
    /// Its end tells the watching thread to end as well.
    _alive: SyncSender<Infallible>,
}

impl Guard {
    /// Begins to watch over the index in `index`.
    ///
    /// # Errors
    /// [`IndexFault::Thread`] when there is no thread to watch.
    pub(crate) fn new(index: &Path, patience: Duration) -> Result<Self, IndexFault> {
        let calls = Arc::new(Calls {
            index: index.to_owned(),
            quick: Rounds::new(patience.min(QUICK_PATIENCE)),
            slow: Rounds::new(patience),
        });
        let (alive, ended) = mpsc::sync_channel(0);
        let watched = calls.clone();
        let thread = std::thread::Builder::new().name("kms-index-watch".to_owned());
        thread.spawn(move || watched.watch(&ended)).map_err(IndexFault::Thread)?;
        Ok(Self { calls, _alive: alive })
    }

    /// Calls the index under watch; its panic becomes an error.
    pub(crate) fn call<T>(
        &self,
        pace: Pace,
        call: impl FnOnce() -> Result<T, IndexFault>,
    ) -> Result<T, IndexFault> {
        let _under_way = self.calls.rounds(pace).enter();
        caught(call)
    }
}

/// Opens something on a thread that is left behind when it takes longer than `patience`.
///
/// # Errors
/// [`IndexFault::Hangs`], or what `open` says. After a hang the thread is still there: the index
/// must not be made anew in this process, since the thread may yet write into the folder.
pub(crate) fn within<T: Send + 'static>(
    patience: Duration,
    open: impl FnOnce() -> Result<T, IndexFault> + Send + 'static,
) -> Result<T, IndexFault> {
    let (answer, opened) = mpsc::sync_channel(1);
    let opening = move || {
        // Nobody waits any more for a thread that took too long.
        let _nobody_waits = answer.send(caught(open));
    };
    let thread = std::thread::Builder::new().name("kms-index-open".to_owned());
    thread.spawn(opening).map_err(IndexFault::Thread)?;
    opened.recv_timeout(patience).map_err(|_| IndexFault::Hangs)?
}

/// Notes beside the index that it is not to be used again, for the next start to find.
pub(crate) fn condemn(index: &Path) {
    if let Err(error) = write_note(&index.with_extension("condemned"), "condemned\n") {
        tracing::error!(%error, "cannot note that the index has failed; delete it by hand");
    }
}

/// The calls that are under way.
struct Calls {
    index: PathBuf,
    quick: Rounds,
    slow: Rounds,
}

impl Calls {
    const fn rounds(&self, pace: Pace) -> &Rounds {
        match pace {
            Pace::Quick => &self.quick,
            Pace::Slow => &self.slow,
        }
    }

    /// Ends rounds until the guard is gone, or the process when one does not end well.
    fn watch(&self, ended: &Receiver<Infallible>) {
        let slice = (self.quick.patience / SLICES).max(SLICE_MIN);
        let mut waited = [0_u32; 2];
        loop {
            let begun = Instant::now();
            if ended.recv_timeout(slice) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            // Time in which this thread did not run either (the process was stopped, the machine
            // was asleep) says nothing about the index: the rounds begin again.
            if begun.elapsed() > slice * 3 {
                waited = [0; 2];
                continue;
            }
            for (rounds, waited) in [&self.quick, &self.slow].into_iter().zip(&mut waited) {
                *waited += 1;
                if slice * *waited < rounds.patience {
                    continue;
                }
                *waited = 0;
                if !rounds.end() {
                    end_process(&self.index, rounds.patience);
                }
            }
        }
    }
}

/// Counts the calls of this round and of the one before it.
///
/// When a round ends, a call of the round before has lasted at least one whole round. So a hang is
/// found after one to two times the patience, at the price of two additions for each call.
struct Rounds {
    patience: Duration,
    round: AtomicUsize,
    under_way: [AtomicU64; 2],
}

impl Rounds {
    fn new(patience: Duration) -> Self {
        Self { patience, round: AtomicUsize::new(0), under_way: [const { AtomicU64::new(0) }; 2] }
    }

    /// Counts a call in; dropping what is returned counts it out.
    fn enter(&self) -> UnderWay<'_> {
        // A call that meets the end of a round here is counted in the round before, and only has
        // less patience by that.
        let count = &self.under_way[self.round.load(Ordering::Acquire) % 2];
        count.fetch_add(1, Ordering::AcqRel);
        UnderWay(count)
    }

    /// Ends the round; says whether all calls of the one before it have come back.
    fn end(&self) -> bool {
        let round = self.round.load(Ordering::Acquire);
        let all_back = self.under_way[(round + 1) % 2].load(Ordering::Acquire) == 0;
        if all_back {
            self.round.store(round.wrapping_add(1), Ordering::Release);
        }
        all_back
    }
}

struct UnderWay<'a>(&'a AtomicU64);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Ends this process, since one of its threads will not come back.
fn end_process(index: &Path, patience: Duration) -> ! {
    let message = format!(
        "the index {} has not answered for {} s and is condemned; this process ends, and the \
         next start makes the index anew from the journal; nothing that was acknowledged is lost",
        index.display(),
        patience.as_secs_f32(),
    );
    tracing::error!("{message}");
    eprintln!("{message}");
    // The disk may be what hangs. Without the note the next start finds the index as a crash
    // leaves it.
    let (noted, wait) = mpsc::sync_channel(1);
    let path = index.to_owned();
    let noting = std::thread::Builder::new().spawn(move || {
        condemn(&path);
        let _nobody_waits = noted.send(());
    });
    if noting.is_ok() {
        let _noted_or_not = wait.recv_timeout(NOTE_PATIENCE);
    }
    std::process::exit(HANG_EXIT_CODE)
}

/// What the process ends with: the `EX_SOFTWARE` of `sysexits.h`.
pub(crate) const HANG_EXIT_CODE: i32 = 70;

/// How long a read or a batch of writes may take. A disk that stalls for longer is not told from a
/// hang.
const QUICK_PATIENCE: Duration = Duration::from_secs(30);
/// How long the note of the condemned index may take.
const NOTE_PATIENCE: Duration = Duration::from_secs(10);
/// Into how many parts a round is cut, to see whether the watching thread ran all the time.
const SLICES: u32 = 10;
/// Shortest part of a round.
const SLICE_MIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caught::Panicked;

    #[test]
    fn a_round_ends_well_when_the_calls_of_the_one_before_are_back() {
        let rounds = Rounds::new(Duration::from_secs(1));
        assert!(rounds.end() && rounds.end());
        let first = rounds.enter();
        assert!(rounds.end(), "it may have begun just now");
        let second = rounds.enter();
        assert!(!rounds.end(), "it has lasted a whole round");
        drop(first);
        assert!(rounds.end());
        assert!(!rounds.end());
        drop(second);
        assert!(rounds.end() && rounds.end());
    }

    #[test]
    fn what_panics_or_takes_too_long_while_opening_is_an_error() {
        let patience = Duration::from_millis(50);
        let (hold, held) = mpsc::channel::<()>();
        let hangs = within(patience, move || held.recv().map_err(|_| IndexFault::Entry));
        assert!(matches!(hangs, Err(IndexFault::Hangs)));
        drop(hold);
        let panics: Result<(), _> = within(Duration::from_secs(9), || panic!("by {}", "intent"));
        assert!(matches!(panics, Err(IndexFault::Panics(Panicked(text))) if text == "by intent"));
    }
}
