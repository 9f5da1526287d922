//! `kmsd dev` in a temporary folder, and connections to it in every role.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use kms_agent::attester::software::{Guest, Software};
use kms_client::{Client, Config, Endpoint, TlsFiles};
use kms_core::caller::Role;
use tempfile::TempDir;

use crate::process::{Ended, Process, Watchdog};

/// A development daemon of our own.
#[derive(Debug)]
pub struct Daemon {
    // Dropped before the folder that it works in.
    process: Option<Process>,
    folder: TempDir,
    arguments: Vec<String>,
    port: u16,
    metrics_port: u16,
    starts: u32,
}

impl Daemon {
    /// A daemon on a fresh folder.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A daemon on a fresh folder, with more `arguments`.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let folder = temporary();
        copy(pristine(), folder.path());
        Self::on(folder, arguments)
    }

    /// A daemon on a fresh folder, whose clock [`Daemon::advance`] moves.
    #[must_use]
    pub fn start_with_clock() -> Self {
        Self::start_with_clock_and(&[])
    }

    /// The same, with more `arguments`.
    #[must_use]
    pub fn start_with_clock_and(arguments: &[&str]) -> Self {
        let folder = temporary();
        copy(pristine(), folder.path());
        let clock = folder.path().join(CLOCK).display().to_string();
        Self::on(folder, &[&["--clock-offset-file", &clock], arguments].concat())
    }

    /// Moves the clock of the daemon on, at once.
    ///
    /// # Panics
    /// When it was not started with a clock to be moved.
    pub fn advance(&self, by: Duration) {
        assert!(self.arguments.iter().any(|one| one == "--clock-offset-file"), "it has no clock");
        let file = self.folder.path().join(CLOCK);
        let before: u128 = fs::read_to_string(&file).unwrap_or_default().parse().unwrap_or(0);
        // In one step, so that nobody reads half a number.
        let next = file.with_extension("next");
        fs::write(&next, (before + by.as_millis()).to_string()).unwrap();
        fs::rename(next, file).unwrap();
    }

    /// The daemon that tests share which do not care what else is in the store.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Daemon> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn on(folder: TempDir, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut daemon =
            Self { process: None, folder, arguments, port: 0, metrics_port: 0, starts: 0 };
        daemon.restart();
        daemon
    }

    /// Starts it again on the same folder, after it was ended.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "end it first");
        self.process = Some(self.spawn_ready(&[]));
    }

    /// The same, with something in its environment.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub fn restart_under(&mut self, environment: &[(&str, OsString)]) {
        assert!(self.process.is_none(), "end it first");
        self.process = Some(self.spawn_ready(environment));
    }

    /// Starts it again with `arguments` in place of those before.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self.restart();
    }

    /// Starts it again with `arguments` in place of those before, and expects that it refuses. Says how.
    ///
    /// # Panics
    /// When it runs, or starts.
    pub fn restart_refused_with(&mut self, arguments: &[&str]) -> Ended {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self.restart_refused()
    }

    /// Starts it again, and expects that it refuses. Says how.
    ///
    /// # Panics
    /// When it runs, or starts.
    pub fn restart_refused(&mut self) -> Ended {
        assert!(self.process.is_none(), "end it first");
        let mut process = self.spawn(free_port(), &[]);
        assert!(!process.wait_for("ready"), "it started");
        process.ended()
    }

    fn spawn_ready(&mut self, environment: &[(&str, OsString)]) -> Process {
        self.port = free_port();
        self.metrics_port = free_port();
        let mut process = self.spawn(self.port, environment);
        assert!(process.wait_for("ready"), "kmsd did not start: {}", process.stderr());
        process
    }

    fn spawn(&mut self, port: u16, environment: &[(&str, OsString)]) -> Process {
        self.starts += 1;
        let (port, metrics_port) = (port.to_string(), self.metrics_port.to_string());
        let state = self.state().display().to_string();
        let mut arguments =
            vec!["dev", "--no-tour", "--state", &state, "--port", &port, "--metrics-port"];
        arguments.push(&metrics_port);
        arguments.extend(self.arguments.iter().map(String::as_str));
        let output = format!("kmsd-{}", self.starts);
        Process::kmsd_with(environment, &arguments, self.folder.path(), &output)
    }

    /// Ends it as a power cut would, but for what the kernel still writes.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&mut self) {
        self.process.take().unwrap().kill9();
    }

    /// Ends it by SIGTERM.
    ///
    /// # Panics
    /// When it does not run, or does not end with 0.
    pub fn terminate(&mut self) -> Ended {
        let ended = self.process.take().unwrap().terminate();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        ended
    }

    /// Ends it as a failed assertion in a library would, and says how.
    ///
    /// # Panics
    /// When it does not run.
    pub fn abort(&mut self) -> Ended {
        self.process.take().unwrap().abort()
    }

    /// The number of its process.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The port for mutual TLS.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Everything that it has written to standard output and standard error, over all starts.
    #[must_use]
    pub fn output(&self) -> String {
        let kinds = ["out", "err"].into_iter();
        let files =
            kinds.flat_map(|kind| (1..=self.starts).map(move |n| format!("kmsd-{n}.{kind}")));
        files.map(|file| fs::read_to_string(self.folder.path().join(file)).unwrap()).collect()
    }

    /// A file's text within the state folder, without the line's end.
    #[must_use]
    pub fn text(&self, file: &str) -> String {
        fs::read_to_string(self.state().join(file)).unwrap().trim_end().to_owned()
    }

    /// What the OpenMetrics endpoint answers.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics_port)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// How to reach it over the Unix socket, as `users/developer`.
    #[must_use]
    pub fn unix(&self) -> Config {
        unix(&self.state().join("kmsd.sock"))
    }

    /// How to reach it over mutual TLS with the certificate `tls/{name}.crt`.
    #[must_use]
    pub fn tls(&self, name: &str) -> Config {
        let file = |name: String| self.state().join("tls").join(name);
        let files = TlsFiles {
            ca: file("ca.crt".to_owned()),
            certificate: file(format!("{name}.crt")),
            key: file(format!("{name}.key")),
        };
        let endpoint = Endpoint::Tcp { host: "localhost".to_owned(), port: self.port };
        Config { timeout: CALL_TIME_MAX, ..Config::new(endpoint, Some(files)) }
    }

    /// How a workload reaches it: with a certificate of its own making.
    ///
    /// # Panics
    /// When the certificate cannot be made.
    #[must_use]
    pub fn stranger(&self) -> Config {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("stranger-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let made = rcgen::generate_simple_self_signed(vec!["workload".to_owned()]).unwrap();
        let tls = self.state().join("tls");
        fs::write(tls.join(format!("{name}.crt")), made.cert.pem()).unwrap();
        fs::write(tls.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
        self.tls(&name)
    }

    /// `users/developer` over the Unix socket: auditor, crypto-user, key-manager, operator.
    pub async fn client(&self) -> Client {
        connect(&self.unix()).await
    }

    /// `apps/dev` over mutual TLS: crypto-user and key-manager of ring `dev`.
    pub async fn tls_client(&self) -> Client {
        connect(&self.tls("client")).await
    }

    /// `users/officer` over mutual TLS: security-officer.
    pub async fn officer_client(&self) -> Client {
        connect(&self.tls("officer")).await
    }

    /// `apps/role-{role}` over mutual TLS: that role over the whole appliance, and no other.
    pub async fn as_role(&self, role: Role) -> Client {
        connect(&self.tls(&format!("role-{role}"))).await
    }

    /// `apps/no-role` over mutual TLS: enrolled, and without a role.
    pub async fn as_no_role(&self) -> Client {
        connect(&self.tls("no-role")).await
    }

    /// A workload that nobody has enrolled.
    pub async fn stranger_client(&self) -> Client {
        connect(&self.stranger()).await
    }

    /// A guest on the imaginary chip that this daemon trusts.
    ///
    /// # Panics
    /// When the chip's file is missing.
    #[must_use]
    pub fn guest(&self, measurement: [u8; 48], debug: bool) -> Software {
        let state = self.state().join("attester.json");
        Software::open(&state, Guest { measurement, debug }).unwrap()
    }
}

/// How to reach a daemon's Unix socket.
#[must_use]
pub fn unix(socket: &Path) -> Config {
    let endpoint = Endpoint::Unix(socket.to_owned());
    Config { timeout: CALL_TIME_MAX, ..Config::new(endpoint, None) }
}

/// Connects.
///
/// # Panics
/// When there is no connection to be had.
pub async fn connect(config: &Config) -> Client {
    Client::connect(config).await.unwrap()
}

/// A port on loopback that nobody listens on. Below the range that the kernel hands out for outgoing
/// connections, and never the same twice in this process.
///
/// # Panics
/// When none is free.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = PORT_MIN + u16::try_from(std::process::id() % 100).unwrap() * PORTS_PER_PROCESS;
    let tried = (0..PORTS_PER_PROCESS)
        .map(|_| base + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS_PER_PROCESS);
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    tried.into_iter().find(free).expect("a free port")
}

/// An empty folder for one test.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn temporary() -> TempDir {
    tempfile::Builder::new().prefix("kms-test-").tempdir().unwrap()
}

/// A folder in which a daemon has started once and ended in order. The first start makes RSA keys and
/// takes seconds, so each test gets a copy of this one.
fn pristine() -> &'static Path {
    static PRISTINE: OnceLock<(TempDir, Watchdog)> = OnceLock::new();
    let (folder, _) = PRISTINE.get_or_init(|| {
        let mut daemon = Daemon::on(temporary(), &[]);
        daemon.terminate();
        let Daemon { folder, .. } = daemon;
        let watchdog = Watchdog::new(None, folder.path());
        (folder, watchdog)
    });
    folder.path()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            fs::set_permissions(&target, entry.metadata().unwrap().permissions()).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

const CLOCK: &str = "clock-offset-ms";
const CALL_TIME_MAX: Duration = Duration::from_secs(30);
const PORT_MIN: u16 = 12_000;
const PORTS_PER_PROCESS: u16 = 200;
