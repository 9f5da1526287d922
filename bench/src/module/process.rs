//! A module's process, seen from within: orders come in, answers go out.
//!
//! Each thread has a session of its own that is opened and warm before the first order, because
//! that is how programs with a load use a module.

use std::io::{Write as _, stdin, stdout};
use std::path::PathBuf;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use super::token::Token;
use super::{Answer, Order, PIN, THREADS_MAX};
use crate::error::BenchError;
use crate::measure::{Sample, Watch};

/// Arguments of `kms-bench module`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The module.
    library: PathBuf,
    /// Label of the token.
    #[arg(long)]
    token: String,
    /// Make the token in the first free slot.
    #[arg(long)]
    initialise: bool,
}

/// Answers orders until there are no more.
///
/// # Errors
/// Only when there is nobody to answer to.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    match serve(arguments) {
        Err(error @ BenchError::File { .. }) => Err(error),
        Err(error) => answer(&Answer::Failed(error.to_string())),
        Ok(()) => Ok(()),
    }
}

fn serve(arguments: &Arguments) -> Result<(), BenchError> {
    let Arguments { library, token, initialise } = arguments;
    let pin = std::env::var(PIN).map_err(|_| BenchError::Protocol("no PIN"))?;
    let token = Token::open(library, token, &pin, *initialise)?;
    let workers = (0..THREADS_MAX).map(|_| Thread::start(&token));
    let workers = workers.collect::<Result<Vec<_>, _>>()?;
    answer(&Answer::Ready(token.library()?))?;
    for line in stdin().lines() {
        let line = line.map_err(BenchError::file("standard input".as_ref()))?;
        let sample = obey(&workers, serde_json::from_str(&line)?)?;
        answer(&Answer::Done(sample))?;
    }
    Ok(())
}

fn obey(workers: &[Thread], order: Order) -> Result<Sample, BenchError> {
    let workers = workers.get(..order.threads).ok_or(BenchError::Protocol("too many threads"))?;
    let start = Arc::new(Barrier::new(order.threads));
    let watch = Watch::process();
    for worker in workers {
        let sent = worker.orders.send((order, start.clone()));
        sent.map_err(|_| BenchError::Protocol("a thread has ended"))?;
    }
    let mut latencies = Vec::new();
    for worker in workers {
        let done = worker.results.recv();
        latencies.extend(done.map_err(|_| BenchError::Protocol("a thread has ended"))??);
    }
    watch.stop(latencies)
}

/// A thread with a warm session. It ends when its orders do.
struct Thread {
    orders: mpsc::Sender<(Order, Arc<Barrier>)>,
    results: mpsc::Receiver<Result<Vec<Duration>, BenchError>>,
}

impl Thread {
    fn start(token: &Token) -> Result<Self, BenchError> {
        let (orders, received) = mpsc::channel::<(Order, Arc<Barrier>)>();
        let (done, results) = mpsc::channel();
        let (warmed, warm) = mpsc::channel();
        let token = token.clone();
        thread::spawn(move || {
            let worker = match token.worker() {
                Ok(worker) => worker,
                Err(error) => return warmed.send(Err(error)).is_ok(),
            };
            let mut go_on = warmed.send(Ok(())).is_ok();
            for (Order { work, extent, threads: _ }, start) in received {
                start.wait();
                let latencies = extent.time(|| worker.operation(work));
                go_on = go_on && done.send(latencies).is_ok();
                if !go_on {
                    break;
                }
            }
            go_on
        });
        warm.recv().map_err(|_| BenchError::Protocol("a thread has ended"))??;
        Ok(Self { orders, results })
    }
}

fn answer(answer: &Answer) -> Result<(), BenchError> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    let mut out = stdout().lock();
    let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    written.map_err(BenchError::file("standard output".as_ref()))
}
