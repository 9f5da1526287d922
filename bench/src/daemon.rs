//! A development daemon of our own: started, asked for its CPU time, and ended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kms_client::{Config, Endpoint};
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Signal, kill_process};

use crate::error::BenchError;

/// A running `kmsd dev`; ended when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    settings: BTreeMap<String, String>,
}

impl Daemon {
    /// Starts `program` on a new state in `folder`, and waits until it is ready.
    ///
    /// # Errors
    /// [`BenchError::Daemon`] with its own words when it is not ready in time.
    pub(crate) fn start(program: &Path, folder: &Path) -> Result<Self, BenchError> {
        let (state, log) = (folder.join("state"), folder.join("kmsd.log"));
        let log_file = File::create(&log).map_err(BenchError::file(&log))?;
        let mut child = Command::new(program)
            .args(["dev", "--no-tour", "--state"])
            .arg(&state)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .map_err(BenchError::file(program))?;
        let stdout = child.stdout.take();
        // From here on, leaving ends the child.
        let mut daemon = Self { child, settings: BTreeMap::new() };
        if !stdout.is_some_and(|stdout| says_ready(BufReader::new(stdout))) {
            return Err(BenchError::Daemon(fs::read_to_string(&log).unwrap_or_default()));
        }
        let path = state.join("env");
        let text = fs::read_to_string(&path).map_err(BenchError::file(&path))?;
        daemon.settings = settings(&text);
        Ok(daemon)
    }

    /// One of the settings in its file `env`.
    ///
    /// # Errors
    /// [`BenchError::Daemon`] when it is not there.
    pub(crate) fn setting(&self, name: &str) -> Result<&str, BenchError> {
        let value = self.settings.get(name).map(String::as_str);
        value.ok_or_else(|| BenchError::Daemon(format!("its file env has no {name}")))
    }

    /// How to reach it by its Unix socket.
    pub(crate) fn unix(&self) -> Result<Config, BenchError> {
        Ok(Config::from_settings(|name| self.settings.get(name).cloned())?)
    }

    /// How to reach it by mutual TLS.
    pub(crate) fn tls(&self) -> Result<Config, BenchError> {
        let port = self.setting("KMS_TCP_PORT")?;
        let address = Endpoint::Tcp {
            host: "localhost".to_owned(),
            port: port.parse().map_err(|_| BenchError::Protocol("KMS_TCP_PORT is no port"))?,
        };
        Ok(Config::from_settings(|name| match name {
            "KMS_ADDR" => Some(address.to_string()),
            _ => self.settings.get(name).cloned(),
        })?)
    }

    /// The CPU time that it has used since it was started.
    ///
    /// # Errors
    /// [`BenchError::Protocol`] when the kernel does not say.
    pub(crate) fn cpu(&self) -> Result<Duration, BenchError> {
        let ticks = self.ticks().ok_or(BenchError::Protocol("no CPU time in /proc/PID/stat"))?;
        Ok(Duration::from_secs(ticks) / ticks_per_second())
    }

    /// Runs `work` and adds the CPU time that the daemon used meanwhile, unless it is too little
    /// for the kernel's clock ticks.
    pub(crate) fn cpu_during<T>(&self, work: impl FnOnce() -> T) -> (T, Option<Duration>) {
        let before = self.ticks();
        let done = work();
        let used = before.zip(self.ticks()).map(|(before, after)| after.saturating_sub(before));
        let time = |ticks: u64| Duration::from_secs(ticks) / ticks_per_second();
        (done, used.filter(|ticks| *ticks >= TICKS_MIN).map(time))
    }

    /// Stops it as an operator does, and waits until it has ended.
    ///
    /// # Errors
    /// [`BenchError::Daemon`] when it does not end well, or not in time.
    pub(crate) fn stop(mut self) -> Result<(), BenchError> {
        let status = self.end(STOP_TIME_OF_LARGE_MAX);
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(BenchError::Daemon(format!("it stopped with {status}"))),
            None => Err(BenchError::Daemon("it does not stop".to_owned())),
        }
    }

    /// Ends it at once, whatever it is doing.
    ///
    /// # Errors
    /// [`BenchError::Daemon`] when it cannot be.
    pub(crate) fn kill(mut self) -> Result<(), BenchError> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed
            .map(drop)
            .map_err(|error| BenchError::Daemon(format!("it cannot be killed: {error}")))
    }

    /// Its memory that no file stands behind.
    ///
    /// # Errors
    /// [`BenchError::Protocol`] when the kernel does not say.
    pub(crate) fn anonymous_bytes(&self) -> Result<u64, BenchError> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).map_err(BenchError::file(path.as_ref()))?;
        anonymous_bytes(&status).ok_or(BenchError::Protocol("no RssAnon in /proc/PID/status"))
    }

    /// Asks it to end; none when it has not within `patience`.
    fn end(&mut self, patience: Duration) -> Option<ExitStatus> {
        // It may have ended by itself; then there is nobody to tell.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    fn ticks(&self) -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        cpu_ticks(&stat)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Whoever was waited for may have another one's process id by now.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if self.end(STOP_TIME_MAX).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits for the line `ready`, and goes on reading, so that the daemon never waits for us.
fn says_ready(lines: impl BufRead + Send + 'static) -> bool {
    let (told, ready) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            if line == "ready" {
                // Nobody listens any more when the time was up.
                let _ = told.send(());
            }
        }
    });
    ready.recv_timeout(START_TIME_MAX).is_ok()
}

/// Reads lines of the form `export NAME='VALUE'`.
fn settings(text: &str) -> BTreeMap<String, String> {
    let setting = |line: &str| {
        let (name, quoted) = line.strip_prefix("export ")?.split_once('=')?;
        let value = quoted.strip_prefix('\'')?.strip_suffix('\'')?.replace(r"'\''", "'");
        Some((name.to_owned(), value))
    };
    text.lines().filter_map(setting).collect()
}

/// User and system time in a line of `/proc/PID/stat`: fields 14 and 15 of proc(5), counted after
/// the name, which may hold anything, but no parenthesis after its last one.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// The line `RssAnon` of `/proc/PID/status`, which the kernel gives in kibibytes.
fn anonymous_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn ticks_per_second() -> u32 {
    u32::try_from(clock_ticks_per_second()).unwrap_or(100)
}

/// A large store whose index is made anew takes this long, and then it is the goal that is not met.
const START_TIME_MAX: Duration = Duration::from_secs(300);
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
const STOP_TIME_OF_LARGE_MAX: Duration = Duration::from_secs(300);
/// With fewer, one tick more or less is more than the ten percent that we would still tell apart.
const TICKS_MIN: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_file_is_read_as_a_shell_would() {
        let text = "export KMS_ADDR='unix:/a b/c'\nexport PIN='it'\\''s'\n# no\nexport X=bare\n";
        let read = settings(text);
        assert_eq!(read.get("KMS_ADDR").map(String::as_str), Some("unix:/a b/c"));
        assert_eq!(read.get("PIN").map(String::as_str), Some("it's"));
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 250 30 0 0 20 0 3 0 99 1 1";
        assert_eq!(cpu_ticks(stat), Some(280));
        assert_eq!(cpu_ticks("7 (kmsd) S 1"), None);
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(cpu_ticks(&own).is_some(), "{own}");
    }

    #[test]
    fn memory_without_files_is_found() {
        let status = "Name:\tkmsd\nVmRSS:\t  9000 kB\nRssAnon:\t    1234 kB\nRssFile:\t 7 kB\n";
        assert_eq!(anonymous_bytes(status), Some(1234 << 10));
        assert_eq!(anonymous_bytes("Name:\tkmsd\n"), None);
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert!(anonymous_bytes(&own).is_some_and(|bytes| bytes > 0), "{own}");
    }

    #[test]
    fn a_daemon_that_ends_at_once_is_told_with_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let started = Daemon::start(Path::new("/bin/false"), folder.path());
        assert!(matches!(started, Err(BenchError::Daemon(_))), "{started:?}");
        let missing = Daemon::start(&folder.path().join("kmsd"), folder.path());
        assert!(matches!(missing, Err(BenchError::File { .. })), "{missing:?}");
    }

    #[test]
    fn ready_is_a_line_of_its_own() {
        assert!(says_ready(&b"starting\nready\nmore\n"[..]));
        assert!(!says_ready(&b"not ready\n"[..]));
    }
}
