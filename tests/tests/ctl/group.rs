//! A group of commands of `kmsctl` and what the tests of it share: a folder of its own, every caller that
//! there is, and what holds of each run: no panic, no secret that is told, one JSON document for programs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use kms_client::{Config, Endpoint};
use kms_tests::Daemon;
use kms_tests::daemon::temporary;
use kms_tests::process::program;
use serde_json::Value;
use tempfile::TempDir;

/// Commands that one test answers for: each must have done its work and have refused something, or the test
/// fails.
pub(crate) struct Group {
    /// How each of [`Who`] reaches the daemon, in that order.
    callers: [Config; 3],
    commands: &'static [&'static str],
    folder: TempDir,
    runs: RefCell<BTreeMap<&'static str, Runs>>,
    secrets: RefCell<Vec<Vec<u8>>>,
}

/// What a command has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Runs {
    done: u32,
    refused: u32,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// `users/developer`: auditor, crypto-user, key-manager, operator.
    Developer,
    /// `users/officer`: security-officer.
    Officer,
    /// A certificate of its own making: nobody.
    Stranger,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// What a run that ended badly told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) message: String,
    pub(crate) next_step: String,
}

impl Group {
    pub(crate) fn new(daemon: &Daemon, commands: &'static [&'static str]) -> Self {
        let callers = [daemon.unix(), daemon.tls("officer"), daemon.stranger()];
        Self::of(callers, commands)
    }

    /// Against another daemon than a development one, on which everybody is the same caller.
    pub(crate) fn at(config: &Config, commands: &'static [&'static str]) -> Self {
        Self::of([(); 3].map(|()| config.clone()), commands)
    }

    fn of(callers: [Config; 3], commands: &'static [&'static str]) -> Self {
        Self {
            callers,
            commands,
            folder: temporary(),
            runs: RefCell::default(),
            secrets: RefCell::default(),
        }
    }

    /// A file in the group's folder, which is where the commands run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    #[track_caller]
    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// Nothing that is told from now on may hold these bytes, plain or as hexadecimal digits.
    pub(crate) fn never_told(&self, secret: impl AsRef<[u8]>) {
        self.secrets.borrow_mut().push(secret.as_ref().to_vec());
    }

    /// Runs `line` as the developer and expects that it does its work.
    #[track_caller]
    pub(crate) fn done(&self, line: &str) -> Value {
        self.done_by(Who::Developer, line)
    }

    /// Runs `line` as `who` and expects that it does its work.
    #[track_caller]
    pub(crate) fn done_by(&self, who: Who, line: &str) -> Value {
        let ran = self.run(who, line, b"");
        assert_eq!(ran.code, 0, "kmsctl {line}: {}", ran.stderr);
        if ran.stdout.is_empty() { Value::Null } else { ran.json(line) }
    }

    /// Runs `line` with `stdin` and expects that it writes data, and nothing else, to standard output.
    #[track_caller]
    pub(crate) fn piped(&self, line: &str, stdin: &[u8]) -> Vec<u8> {
        let ran = self.run(Who::Developer, line, stdin);
        assert_eq!(ran.code, 0, "kmsctl {line}: {}", ran.stderr);
        ran.stdout
    }

    /// Runs `line` as the developer and expects that it ends with `code` and tells `reason`.
    #[track_caller]
    pub(crate) fn refused(&self, line: &str, code: i32, reason: &str) -> Told {
        self.refused_by(Who::Developer, line, code, reason)
    }

    /// Runs `line` as `who` and expects that it ends with `code` and tells `reason`.
    #[track_caller]
    pub(crate) fn refused_by(&self, who: Who, line: &str, code: i32, reason: &str) -> Told {
        let ran = self.run(who, line, b"");
        let told: Value = match serde_json::from_str(&ran.stderr) {
            Ok(told) => told,
            Err(_) => panic!("kmsctl {line} ended with {}: {}", ran.code, ran.stderr),
        };
        let text = |member: &str| told["error"][member].as_str().unwrap_or_default().to_owned();
        assert_eq!((ran.code, text("reason")), (code, reason.to_owned()), "{line}: {told}");
        assert!(ran.stdout.is_empty(), "{line}: {:?}", ran.stdout);
        assert!(!text("message").is_empty(), "{line}: {told}");
        Told { message: text("message"), next_step: text("next_step") }
    }

    /// Runs `line`, which did its work and says no by its exit code.
    #[track_caller]
    pub(crate) fn says_no(&self, line: &str) -> Value {
        let ran = self.run(Who::Developer, line, b"");
        assert_eq!(ran.code, 3, "kmsctl {line}: {}", ran.stderr);
        ran.json(line)
    }

    /// Runs `line` in whatever way it ends.
    pub(crate) fn run(&self, who: Who, line: &str, stdin: &[u8]) -> Ran {
        let words = words(line);
        let mut kmsctl = Command::new(program("kmsctl"));
        kmsctl.args(["--output", "json"]).args(&words).current_dir(self.folder.path());
        kmsctl.env_clear().envs(settings(&self.callers[who as usize]));
        let ran = Ran::of(kmsctl, stdin);
        if let Some(command) = self.command(&words) {
            let mut runs = self.runs.borrow_mut();
            let runs = runs.entry(command).or_default();
            if ran.code == 0 {
                runs.done += 1;
            } else {
                runs.refused += 1;
            }
        }
        self.check(line, &ran);
        ran
    }

    /// The command that `words` are for, if it is one of the group's.
    fn command(&self, words: &[String]) -> Option<&'static str> {
        let is = |command: &&&str| {
            let mut parts = command.split(' ').zip(words);
            words.len() >= command.split(' ').count() && parts.all(|(part, word)| part == word)
        };
        self.commands.iter().copied().find(|command| is(&command))
    }

    fn check(&self, line: &str, ran: &Ran) {
        assert!(!ran.stderr.contains("panicked"), "{line}: {}", ran.stderr);
        assert!((0..=5).contains(&ran.code), "{line}: {}: {}", ran.code, ran.stderr);
        // Standard output may be the very data that was asked for, which is no JSON.
        let document = serde_json::from_slice::<Value>(&ran.stdout).is_ok();
        let told = if document { String::from_utf8_lossy(&ran.stdout) } else { "".into() };
        for secret in self.secrets.borrow().iter() {
            for form in [String::from_utf8_lossy(secret).into_owned(), hex::encode(secret)] {
                assert!(!ran.stderr.contains(&form) && !told.contains(&form), "{line}: {form}");
            }
        }
    }

    /// Runs openssl in the group's folder and expects that it succeeds. What it said on both channels.
    #[track_caller]
    pub(crate) fn openssl(&self, line: &str) -> String {
        self.tool("openssl", line)
    }

    /// Runs another program in the group's folder and expects that it succeeds.
    #[track_caller]
    pub(crate) fn tool(&self, name: &str, line: &str) -> String {
        let mut tool = Command::new(name);
        let ended = tool.args(words(line)).current_dir(self.folder.path()).output();
        let Output { status, stdout, stderr } =
            ended.unwrap_or_else(|error| panic!("{name} is needed: {error}"));
        let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        assert!(status.success(), "{name} {line}: {said}");
        said
    }

    /// Expects that each command has done its work and has refused something.
    #[track_caller]
    pub(crate) fn finish(self) {
        let runs = self.runs.into_inner();
        for command in self.commands {
            let Runs { done, refused } = runs.get(command).copied().unwrap_or_default();
            assert!(done > 0, "kmsctl {command} was never seen to do its work");
            assert!(refused > 0, "kmsctl {command} was never seen to refuse anything");
        }
    }
}

impl Ran {
    /// Runs `command` to its end. Standard input is written while standard output is read, as in a pipe.
    fn of(mut command: Command, stdin: &[u8]) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let Output { status, stdout, stderr } = std::thread::scope(|scope| {
            // Who reads no input closes it, which is not the writer's failure.
            scope.spawn(move || drop(pipe.write_all(stdin)));
            child.wait_with_output().unwrap()
        });
        // Ended by a signal is -1, which no expectation allows.
        let code = status.code().unwrap_or(-1);
        Self { code, stdout, stderr: String::from_utf8(stderr).unwrap() }
    }

    #[track_caller]
    fn json(&self, line: &str) -> Value {
        let text = String::from_utf8_lossy(&self.stdout);
        assert_eq!(text.lines().count(), 1, "kmsctl {line}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("kmsctl {line}: {error}: {text}"))
    }
}

/// The environment of a client that is configured so.
pub(crate) fn settings(config: &Config) -> Vec<(&'static str, String)> {
    let address = match &config.endpoint {
        Endpoint::Unix(path) => format!("unix:{}", path.display()),
        Endpoint::Tcp { host, port } => format!("https://{host}:{port}"),
    };
    let mut settings = vec![("KMS_ADDR", address)];
    if let Some(tls) = &config.tls {
        let text = |path: &PathBuf| path.display().to_string();
        settings.push(("KMS_CA_CERT", text(&tls.ca)));
        settings.push(("KMS_CLIENT_CERT", text(&tls.certificate)));
        settings.push(("KMS_CLIENT_KEY", text(&tls.key)));
    }
    settings
}

/// The words of a line; single quotes keep spaces together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
