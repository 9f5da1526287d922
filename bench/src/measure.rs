//! One case in one round: how it is timed, and what comes of it.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::error::BenchError;

/// When a case has run for long enough in one round: at whichever comes first.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Extent {
    /// Most operations of one thread.
    pub(crate) operations_max: u64,
    /// Longest time.
    pub(crate) time_max: Duration,
}

impl Extent {
    /// As many operations as `milliseconds` hold.
    pub(crate) const fn milliseconds(milliseconds: u64) -> Self {
        Self { operations_max: u64::MAX, time_max: Duration::from_millis(milliseconds) }
    }

    /// Times `operation` until the extent is used up.
    pub(crate) fn time(
        self,
        mut operation: impl FnMut() -> Result<(), BenchError>,
    ) -> Result<Vec<Duration>, BenchError> {
        let started = Instant::now();
        let mut latencies = Vec::new();
        let mut before = started;
        for _ in 0..self.operations_max {
            operation()?;
            let after = Instant::now();
            latencies.push(after - before);
            before = after;
            if after - started >= self.time_max {
                break;
            }
        }
        Ok(latencies)
    }
}

/// What one case gave in one round.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Sample {
    pub(crate) operations: u64,
    /// Median time of one operation, microseconds.
    pub(crate) p50_us: f64,
    /// Operations per second of wall time.
    pub(crate) rate: f64,
    /// CPU time of the measuring process for one operation, microseconds.
    pub(crate) own_cpu_us: f64,
    /// CPU time of the daemon for one operation, microseconds; none where there is no daemon, or
    /// too little of it to tell.
    pub(crate) daemon_cpu_us: Option<f64>,
}

impl Sample {
    /// The same, with the CPU time that the daemon used meanwhile.
    pub(crate) fn with_daemon_cpu(self, used: Option<Duration>) -> Self {
        let used = used.map(|used| micros(used) / self.operations as f64);
        Self { daemon_cpu_us: used, ..self }
    }
}

/// A running measurement.
#[derive(Debug)]
pub(crate) struct Watch {
    clock: ClockId,
    cpu: Duration,
    wall: Instant,
}

impl Watch {
    /// Starts, for work of this thread.
    pub(crate) fn thread() -> Self {
        Self::start(ClockId::ThreadCPUTime)
    }

    /// Starts, for work of this process.
    pub(crate) fn process() -> Self {
        Self::start(ClockId::ProcessCPUTime)
    }

    fn start(clock: ClockId) -> Self {
        Self { clock, cpu: cpu_time(clock), wall: Instant::now() }
    }

    /// Ends.
    ///
    /// # Errors
    /// [`BenchError::Protocol`] when nothing was measured.
    pub(crate) fn stop(self, mut latencies: Vec<Duration>) -> Result<Sample, BenchError> {
        let Self { clock, cpu, wall } = self;
        let (wall, cpu) = (wall.elapsed(), cpu_time(clock).saturating_sub(cpu));
        latencies.sort_unstable();
        let middle = latencies.get(latencies.len() / 2);
        let p50 = *middle.ok_or(BenchError::Protocol("a case without operations"))?;
        let operations = latencies.len() as f64;
        Ok(Sample {
            operations: latencies.len() as u64,
            p50_us: micros(p50),
            rate: operations / wall.as_secs_f64(),
            own_cpu_us: micros(cpu) / operations,
            daemon_cpu_us: None,
        })
    }
}

/// The middle of `values`; none of none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(values[low], values[high]))
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn cpu_time(clock: ClockId) -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    // CPU time begins at zero and only grows.
    Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![7.0]), Some(7.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 9.0, 2.0]), Some(3.0));
    }

    #[test]
    fn an_extent_ends_at_its_count_or_its_time() {
        let counted = Extent { operations_max: 3, time_max: Duration::from_secs(60) };
        assert_eq!(counted.time(|| Ok(())).unwrap().len(), 3);
        let timed = Extent { operations_max: u64::MAX, time_max: Duration::ZERO };
        assert_eq!(timed.time(|| Ok(())).unwrap().len(), 1);
        let failed = counted.time(|| Err(BenchError::Protocol("no")));
        assert!(matches!(failed, Err(BenchError::Protocol("no"))));
    }

    #[test]
    fn work_costs_cpu_time_of_the_thread_that_does_it() {
        let watch = Watch::thread();
        let mut latencies = Vec::new();
        let mut sum = 0_u64;
        for _ in 0..10 {
            let started = Instant::now();
            sum = (0..200_000_u64).fold(sum, |sum, next| std::hint::black_box(sum ^ next));
            latencies.push(started.elapsed());
        }
        let sample = watch.stop(latencies).unwrap();
        assert_eq!(sample.operations, 10);
        assert!(sample.own_cpu_us > 0.0 && sample.p50_us > 0.0, "{sample:?} {sum}");
        let none = Watch::thread().stop(Vec::new());
        assert!(matches!(none, Err(BenchError::Protocol(_))));
    }

    #[test]
    fn the_daemons_time_is_shared_out() {
        let latencies = vec![Duration::from_micros(5); 4];
        let sample = Watch::thread().stop(latencies).unwrap();
        let with = sample.with_daemon_cpu(Some(Duration::from_micros(100)));
        assert!((with.daemon_cpu_us.unwrap() - 25.0).abs() < 1e-9);
        assert_eq!(sample.with_daemon_cpu(None).daemon_cpu_us, None);
    }
}
