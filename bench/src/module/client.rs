//! A module's process, seen from the run.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{Answer, Order, PIN};
use crate::error::BenchError;
use crate::measure::Sample;

/// A running process with one module in it; ended when dropped.
#[derive(Debug)]
pub(crate) struct Module {
    name: &'static str,
    /// The library's own name and version.
    pub(crate) library: String,
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// How to start one.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    /// For people.
    pub(crate) name: &'static str,
    pub(crate) library: &'a Path,
    pub(crate) token: &'a str,
    pub(crate) pin: &'a str,
    /// Whether to make the token first.
    pub(crate) initialise: bool,
    /// What the module reads from its environment.
    pub(crate) variable: (&'a str, &'a OsStr),
}

impl Module {
    /// Starts the process and waits until its keys are made.
    ///
    /// # Errors
    /// [`BenchError::Module`] with what it said.
    pub(crate) fn start(setup: &Setup<'_>) -> Result<Self, BenchError> {
        let Setup { name, library, token, pin, initialise, variable } = *setup;
        let program = std::env::current_exe().map_err(BenchError::file("kms-bench".as_ref()))?;
        let mut command = Command::new(&program);
        command.arg("module").arg(library).args(["--token", token]);
        if initialise {
            command.arg("--initialise");
        }
        command.env(PIN, pin).env(variable.0, variable.1);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(BenchError::file(&program))?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let answers = answers.ok_or(BenchError::Protocol("a process without output"))?;
        let answers = BufReader::new(answers);
        // From here on, leaving ends the child.
        let mut module = Self { name, library: String::new(), child, orders, answers };
        match module.answer()? {
            Answer::Ready(library) => module.library = library,
            other => return Err(module.unexpected(other)),
        }
        Ok(module)
    }

    /// Has work done.
    ///
    /// # Errors
    /// [`BenchError::Module`] with what it said.
    pub(crate) fn work(&mut self, order: Order) -> Result<Sample, BenchError> {
        let mut line = serde_json::to_string(&order)?;
        line.push('\n');
        let orders = self.orders.as_mut().ok_or(BenchError::Protocol("a process without input"))?;
        orders.write_all(line.as_bytes()).map_err(BenchError::file(self.name.as_ref()))?;
        match self.answer()? {
            Answer::Done(sample) => Ok(sample),
            other => Err(self.unexpected(other)),
        }
    }

    fn answer(&mut self) -> Result<Answer, BenchError> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        if read.map_err(BenchError::file(self.name.as_ref()))? == 0 {
            return Err(self.unexpected(Answer::Failed("its process ended".to_owned())));
        }
        Ok(serde_json::from_str(&line)?)
    }

    fn unexpected(&self, answer: Answer) -> BenchError {
        let problem = match answer {
            Answer::Failed(problem) => problem,
            Answer::Done(_) | Answer::Ready(_) => "an answer to no order".to_owned(),
        };
        BenchError::Module { module: self.name, problem }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // The end of its orders is the end of it; if it hangs in a foreign library, it is killed.
        drop(self.orders.take());
        for _ in 0..50 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
