//! A daemon with few or many, its state kept over stops, kills and starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::error::BenchError;

use super::caller::{Caller, PAGE_SIZE, PAGE_SIZE_MAX, Population};
use super::times::Figure;

/// A daemon, who calls it, and what is known of what it holds.
#[derive(Debug)]
pub(super) struct Site {
    kmsd: PathBuf,
    folder: PathBuf,
    population: Population,
    pub(super) count: u32,
    /// None while it is stopped.
    running: Option<(Daemon, Caller)>,
    /// Made in a second.
    rate: f64,
    /// Tokens of pages, spread over all.
    pub(super) pages: Vec<String>,
    random: u64,
}

/// After what time a daemon that was started said so, and had signed; and the CPU time that it took until it was
/// ready, which holds better when others use the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) ready: Duration,
    pub(super) first_signature: Duration,
    pub(super) cpu: Duration,
}

impl Site {
    /// Starts a daemon in a new `folder` and fills it.
    pub(super) fn start(
        kmsd: &Path,
        folder: &Path,
        population: Population,
        count: u32,
    ) -> Result<Self, BenchError> {
        fs::create_dir(folder).map_err(BenchError::file(folder))?;
        let (kmsd, folder) = (kmsd.to_owned(), folder.to_owned());
        let daemon = Daemon::start(&kmsd, &folder)?;
        let caller = Caller::connect(&daemon.unix()?, population)?;
        let rate = caller.create(count)?;
        let (running, random) = (Some((daemon, caller)), 0x9e37_79b9_7f4a_7c15);
        Ok(Self { kmsd, folder, population, count, running, rate, pages: Vec::new(), random })
    }

    /// How fast it was filled.
    pub(super) fn creation(&self) -> Figure {
        let title = format!("making {} {}", self.count, self.population.noun());
        Figure::new("rate.made", &title, self.rate, "/s", None)
    }

    /// Who calls it.
    pub(super) fn caller(&self) -> Result<&Caller, BenchError> {
        Ok(&self.running.as_ref().ok_or(NOT_RUNNING)?.1)
    }

    /// One of all that it holds.
    pub(super) fn any(&mut self) -> u32 {
        let count = u64::from(self.count.max(1));
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        // Less than the count.
        u32::try_from((self.random >> 16) % count).unwrap_or_default()
    }

    /// Walks through all pages, and keeps where some begin.
    pub(super) fn find_pages(&mut self) -> Result<(), BenchError> {
        let page_size = (self.count as usize / 10).clamp(PAGE_SIZE, PAGE_SIZE_MAX);
        let (entries, pages) = self.caller()?.pages(page_size, PAGES_MAX)?;
        if entries < self.count as usize || pages.is_empty() {
            return Err(BenchError::Protocol("lists do not have everything that was made"));
        }
        self.pages = pages;
        Ok(())
    }

    /// Stops it as an operator does, and says how long that took.
    pub(super) fn stop(&mut self) -> Result<Duration, BenchError> {
        let (daemon, caller) = self.running.take().ok_or(NOT_RUNNING)?;
        drop(caller);
        let started = Instant::now();
        daemon.stop()?;
        let took = started.elapsed();
        eprintln!("kms-bench: {} {}: stopped in {took:.2?}", self.count, self.population.noun());
        Ok(took)
    }

    /// Starts it again.
    pub(super) fn restart(&mut self) -> Result<Ready, BenchError> {
        let started = Instant::now();
        let daemon = Daemon::start(&self.kmsd, &self.folder)?;
        let (ready, cpu) = (started.elapsed(), daemon.cpu()?);
        let caller = Caller::connect(&daemon.unix()?, self.population)?;
        caller.sign(self.any())?;
        let first_signature = started.elapsed();
        eprintln!(
            "kms-bench: {} {}: ready in {ready:.2?}, CPU {cpu:.2?}",
            self.count,
            self.population.noun()
        );
        self.running = Some((daemon, caller));
        Ok(Ready { ready, first_signature, cpu })
    }

    /// Kills it, whatever it is doing, and starts it again.
    pub(super) fn kill_and_start(&mut self) -> Result<Ready, BenchError> {
        let (daemon, _caller) = self.running.take().ok_or(NOT_RUNNING)?;
        daemon.kill()?;
        self.restart()
    }

    /// Signs `count` times with any of them, and says how often in a second.
    pub(super) fn sign_at_random(&mut self, count: u32) -> Result<f64, BenchError> {
        let (daemon, caller) = self.running.take().ok_or(NOT_RUNNING)?;
        let rate = caller.sign_many(count, || self.any());
        self.running = Some((daemon, caller));
        rate
    }

    /// The memory of the daemon that no file stands behind.
    pub(super) fn anonymous_bytes(&self) -> Result<u64, BenchError> {
        self.running.as_ref().ok_or(NOT_RUNNING)?.0.anonymous_bytes()
    }
}

const NOT_RUNNING: BenchError = BenchError::Protocol("a daemon that was stopped");
/// Pages that lists at random begin at.
const PAGES_MAX: usize = 64;
