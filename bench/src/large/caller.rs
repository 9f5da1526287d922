//! What is asked of a daemon with few or many: by one thread, so that on two cores the daemon has one of its own.

use std::collections::HashSet;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use kms_client::v1::{self, session_request, session_response};
use kms_client::{Client, ClientError, Config};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::BenchError;
use crate::grpc::is_signature;
use crate::raw::DIGEST;

use super::times::Case;

/// Of what there are many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Population {
    /// Keys of one ring, each with one version.
    Keys,
    /// Versions of one key.
    Versions,
}

impl Population {
    /// Of what there are many, for people and in records.
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Versions => "versions",
        }
    }

    /// What is measured.
    pub(super) const fn cases(self) -> &'static [Case] {
        match self {
            Self::Keys => &Case::ALL,
            Self::Versions => &Case::WITH_PRIMARY,
        }
    }

    /// The short name of one of them. Names of keys do not come in the order in which they are made, as those
    /// that people give do not.
    pub(super) fn name(self, i: u32) -> String {
        match self {
            // An odd factor gives each number another one.
            Self::Keys => format!("{RING}/orders-{:08x}", i.wrapping_mul(0x9e37_79b1)),
            Self::Versions => format!("{RING}/{KEY}@{}", u64::from(i) + 1),
        }
    }
}

/// A connection to a daemon.
#[derive(Debug)]
pub(super) struct Caller {
    runtime: Runtime,
    client: Client,
    population: Population,
}

/// A page, and where the next begins.
struct Listed {
    entries: usize,
    next: String,
}

impl Caller {
    /// Connects.
    pub(super) fn connect(config: &Config, population: Population) -> Result<Self, BenchError> {
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = built.map_err(BenchError::file("tokio".as_ref()))?;
        let client = runtime.block_on(Client::connect(config))?;
        Ok(Self { runtime, client, population })
    }

    /// Makes all of them, and says how many in a second.
    pub(super) fn create(&self, count: u32) -> Result<f64, BenchError> {
        let Self { runtime, client, population } = self;
        let mut progress = Progress::new(format!("making {count} {}", population.noun()), count);
        runtime.block_on(async {
            let (mut next, mut calls) = (0, JoinSet::new());
            if *population == Population::Versions && count > 0 {
                // The first comes with its key.
                create_key(client.clone(), format!("{RING}/{KEY}")).await?;
                next = 1;
            }
            let in_flight = match population {
                Population::Keys => KEYS_IN_FLIGHT,
                Population::Versions => ROTATIONS_IN_FLIGHT,
            };
            let mut made = next;
            while made < count {
                while next < count && calls.len() < in_flight {
                    match population {
                        Population::Keys => {
                            calls.spawn(create_key(client.clone(), population.name(next)))
                        }
                        Population::Versions => calls.spawn(rotate(client.clone())),
                    };
                    next += 1;
                }
                let Some(done) = calls.join_next().await else { break };
                done.map_err(|_| BenchError::Protocol("a caller panicked"))??;
                made += 1;
                progress.tell(made);
            }
            Ok(progress.end())
        })
    }

    /// Walks through everything in pages of `size`, and keeps the tokens of `count` of them, spread over all.
    pub(super) fn pages(
        &self,
        size: usize,
        count: usize,
    ) -> Result<(usize, Vec<String>), BenchError> {
        let (mut entries, mut tokens, mut next) = (0, Vec::new(), String::new());
        loop {
            let listed = self.runtime.block_on(self.list(size, next))?;
            entries += listed.entries;
            if listed.next.is_empty() {
                break;
            }
            tokens.push(listed.next.clone());
            next = listed.next;
        }
        // Those at the very end would give a page that is not full.
        tokens.pop();
        let step = tokens.len().div_ceil(count).max(1);
        Ok((entries, tokens.into_iter().step_by(step).collect()))
    }

    /// Lists a page of the usual size, from `token` on.
    pub(super) fn page(&self, token: &str) -> Result<Duration, BenchError> {
        let started = Instant::now();
        let listed = self.runtime.block_on(self.list(PAGE_SIZE, token.to_owned()))?;
        let took = started.elapsed();
        if listed.entries == PAGE_SIZE {
            Ok(took)
        } else {
            Err(BenchError::Protocol("a page that is not full"))
        }
    }

    /// Describes one of them.
    pub(super) fn get(&self, i: u32) -> Result<Duration, BenchError> {
        let Self { runtime, client, population } = self;
        let name = population.name(i);
        let started = Instant::now();
        let is_there = match population {
            Population::Keys => {
                let call = async { client.keys().get_key(v1::GetKeyRequest { name }).await };
                runtime.block_on(client.call(call))?.key.is_some()
            }
            Population::Versions => {
                let request = v1::GetKeyVersionRequest { name };
                let call = async { client.keys().get_key_version(request).await };
                runtime.block_on(client.call(call))?.version.is_some()
            }
        };
        let took = started.elapsed();
        if is_there {
            Ok(took)
        } else {
            Err(BenchError::Protocol("an answer without what was asked for"))
        }
    }

    /// Signs with one of them.
    pub(super) fn sign(&self, i: u32) -> Result<Duration, BenchError> {
        self.sign_with(self.population.name(i))
    }

    /// Signs with the primary version of the key that has many.
    pub(super) fn sign_with_primary(&self) -> Result<Duration, BenchError> {
        self.sign_with(format!("{RING}/{KEY}"))
    }

    fn sign_with(&self, name: String) -> Result<Duration, BenchError> {
        let Self { runtime, client, population: _ } = self;
        let started = Instant::now();
        let call = async { client.crypto().sign(sign_request(name)).await };
        let answer = runtime.block_on(client.call(call))?;
        let took = started.elapsed();
        is_signature(&answer.signature)?;
        Ok(took)
    }

    /// Signs `count` times, with what `choose` says, on one session stream, and says how often in a second.
    pub(super) fn sign_many(
        &self,
        count: u32,
        mut choose: impl FnMut() -> u32,
    ) -> Result<f64, BenchError> {
        let Self { runtime, client, population } = self;
        runtime.block_on(async {
            let (requests, outgoing) = mpsc::channel(SIGNATURES_IN_FLIGHT);
            let opened = client.crypto().session(ReceiverStream::new(outgoing)).await;
            let mut answers = opened.map_err(ClientError::from)?.into_inner();
            let mut progress = Progress::new(
                format!("{count} signatures with random {}", population.noun()),
                count,
            );
            let (mut sent, mut waiting) = (0, HashSet::new());
            for answered in 1..=count {
                while sent < count && waiting.len() < SIGNATURES_IN_FLIGHT {
                    sent += 1;
                    let request =
                        session_request::Request::Sign(sign_request(population.name(choose())));
                    let request = v1::SessionRequest { id: sent.into(), request: Some(request) };
                    waiting.insert(request.id);
                    let queued = requests.send(request).await;
                    queued.map_err(|_| BenchError::Protocol("the stream ended early"))?;
                }
                let answer = answers.message().await.map_err(ClientError::from)?;
                let answer = answer.ok_or(BenchError::Protocol("the stream ended early"))?;
                match answer.response {
                    Some(session_response::Response::Sign(signed)) => {
                        is_signature(&signed.signature)?
                    }
                    Some(session_response::Response::Error(error)) => {
                        return Err(ClientError::from(error).into());
                    }
                    _ => return Err(BenchError::Protocol("another answer than a signature")),
                }
                if !waiting.remove(&answer.id) {
                    return Err(BenchError::Protocol("an answer to no request"));
                }
                progress.tell(answered);
            }
            Ok(progress.end())
        })
    }

    async fn list(&self, page_size: usize, page_token: String) -> Result<Listed, BenchError> {
        let Self { client, population, .. } = self;
        let page_size = i32::try_from(page_size).unwrap_or(i32::MAX);
        match population {
            Population::Keys => {
                let parent = RING.to_owned();
                let request =
                    v1::ListKeysRequest { parent, page_size, page_token, ..Default::default() };
                let answer = client.call(client.keys().list_keys(request)).await?;
                Ok(Listed { entries: answer.keys.len(), next: answer.next_page_token })
            }
            Population::Versions => {
                let parent = format!("{RING}/{KEY}");
                let request = v1::ListKeyVersionsRequest { parent, page_size, page_token };
                let answer = client.call(client.keys().list_key_versions(request)).await?;
                Ok(Listed { entries: answer.versions.len(), next: answer.next_page_token })
            }
        }
    }
}

async fn create_key(client: Client, name: String) -> Result<(), BenchError> {
    let key = v1::Key { name, algorithm: v1::Algorithm::EcP256.into(), ..Default::default() };
    let request = v1::CreateKeyRequest { key: Some(key), ..Default::default() };
    client.call(client.keys().create_key(request)).await?;
    Ok(())
}

async fn rotate(client: Client) -> Result<(), BenchError> {
    let request =
        v1::CreateKeyVersionRequest { parent: format!("{RING}/{KEY}"), ..Default::default() };
    client.call(client.keys().create_key_version(request)).await?;
    Ok(())
}

fn sign_request(name: String) -> v1::SignRequest {
    let data = Some(v1::sign_request::Data::Digest(DIGEST.to_vec()));
    v1::SignRequest { name, data, ..Default::default() }
}

/// Says on stderr how far something is: on a terminal twice a second in one line, otherwise twice a minute.
struct Progress {
    what: String,
    count: u32,
    started: Instant,
    told: Instant,
    is_terminal: bool,
}

impl Progress {
    fn new(what: String, count: u32) -> Self {
        let now = Instant::now();
        Self { what, count, started: now, told: now, is_terminal: std::io::stderr().is_terminal() }
    }

    fn tell(&mut self, done: u32) {
        let pause = Duration::from_millis(if self.is_terminal { 500 } else { 30_000 });
        if self.told.elapsed() < pause {
            return;
        }
        self.told = Instant::now();
        let rate = f64::from(done) / self.started.elapsed().as_secs_f64();
        let left = f64::from(self.count - done) / rate;
        let line = format!("kms-bench: {}: {done}, {rate:.0}/s, {left:.0} s left", self.what);
        // Who does not want to hear it need not stop the measurement.
        let _ = match self.is_terminal {
            true => write!(std::io::stderr(), "\r{line}\x1b[K"),
            false => writeln!(std::io::stderr(), "{line}"),
        };
    }

    /// How many in a second.
    fn end(self) -> f64 {
        let took = self.started.elapsed().as_secs_f64();
        let rate = f64::from(self.count) / took;
        let begin = if self.is_terminal { "\r" } else { "" };
        let end = if self.is_terminal { "\x1b[K" } else { "" };
        eprintln!("{begin}kms-bench: {}: {rate:.0}/s, {took:.1} s{end}", self.what);
        rate
    }
}

/// The ring that a development daemon comes with.
const RING: &str = "dev";
/// The key that has many versions.
const KEY: &str = "many";
/// What a connection takes.
const KEYS_IN_FLIGHT: usize = 128;
/// Each rotation changes the row of the key, so that of two at a time one would be told to read it again.
const ROTATIONS_IN_FLIGHT: usize = 1;
const SIGNATURES_IN_FLIGHT: usize = 64;
/// What a list gives when nothing is asked for.
pub(super) const PAGE_SIZE: usize = 100;
/// What a page holds at most.
pub(super) const PAGE_SIZE_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_have_the_same_name() {
        for population in [Population::Keys, Population::Versions] {
            let names: HashSet<String> = (0..10_000).map(|i| population.name(i)).collect();
            assert_eq!(names.len(), 10_000);
        }
        assert_eq!(Population::Versions.name(0), "dev/many@1");
    }
}
