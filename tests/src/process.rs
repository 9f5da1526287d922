//! A program that ends with the test, however the test ends.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running program whose output goes to files.
#[derive(Debug)]
pub struct Process {
    child: Child,
    watchdog: Watchdog,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// What it said on standard output.
    pub stdout: String,
    /// What it said on standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `kmsd` with `arguments`; `folder` is removed when this process dies before it can.
    ///
    /// # Panics
    /// When the program is not built.
    #[must_use]
    pub fn kmsd(arguments: &[&str], folder: &Path, output: &str) -> Self {
        Self::kmsd_with(&[], arguments, folder, output)
    }

    /// The same, with something in its environment.
    ///
    /// # Panics
    /// When the program is not built.
    #[must_use]
    pub fn kmsd_with(
        environment: &[(&str, OsString)],
        arguments: &[&str],
        folder: &Path,
        output: &str,
    ) -> Self {
        let [stdout, stderr] = ["out", "err"].map(|kind| folder.join(format!("{output}.{kind}")));
        let child = Command::new(program("kmsd"))
            .args(arguments)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let watchdog = Watchdog::new(Some(child.id()), folder);
        Self { child, watchdog, stdout, stderr }
    }

    /// Waits until the program prints `line`. `false` when it ends before.
    ///
    /// # Panics
    /// When nothing happens for a minute.
    pub fn wait_for(&mut self, line: &str) -> bool {
        let begun = Instant::now();
        loop {
            if self.stdout().lines().any(|printed| printed == line) {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(begun.elapsed() < PATIENCE, "no {line:?} after a minute: {}", self.stderr());
            std::thread::sleep(POLL);
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a failed assertion in a library would, and says how.
    ///
    /// # Panics
    /// When it does not end within a minute.
    #[must_use]
    pub fn abort(mut self) -> Ended {
        kill_process(Pid::from_child(&self.child), Signal::ABORT).unwrap();
        self.ended()
    }

    /// Ends it as a power cut would.
    pub fn kill9(mut self) {
        self.end();
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Panics
    /// When it does not end within a minute.
    #[must_use]
    pub fn terminate(mut self) -> Ended {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.ended()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it does not end within a minute.
    #[must_use]
    pub fn ended(&mut self) -> Ended {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end: {}", self.stderr());
            std::thread::sleep(POLL);
        };
        Ended { status, stdout: self.stdout(), stderr: self.stderr() }
    }

    /// What it has said so far on standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it has said so far on standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    fn end(&mut self) {
        // Before the number of our child can become another's.
        self.watchdog.disarm();
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends a child and removes a folder when this process is gone: statics are not dropped, and nothing
/// is when a test run is ended by force. It notices by the pipe that the kernel closes.
#[derive(Debug)]
pub struct Watchdog(Child);

impl Watchdog {
    /// Watches over the child `pid`, if there is one, and `folder`.
    ///
    /// # Panics
    /// When there is no `sh`.
    #[must_use]
    pub fn new(pid: Option<u32>, folder: &Path) -> Self {
        let pid = pid.map(|pid| pid.to_string()).unwrap_or_default();
        let watch = Command::new("sh")
            .args(["-c", r#"cat >/dev/null; [ -z "$1" ] || kill -KILL "$1"; rm -rf -- "$2""#])
            .args(["watchdog", &pid])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(watch.unwrap())
    }

    fn disarm(&mut self) {
        // Its pipe is still open, so it has not acted yet.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program of this workspace, beside the test binary.
///
/// # Panics
/// When it is not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let binary = std::env::current_exe().unwrap();
    // target/release/deps/daemon-0123
    let release = binary.ancestors().nth(2).unwrap();
    let program = release.join(name);
    assert!(
        program.exists(),
        "{} is missing; build the workspace first: cargo build --release --workspace",
        program.display()
    );
    program
}

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
