//! Starting and stopping, in order: store, root, sockets, `Start` in the log, serve, drain, `Stop` in
//! the log, close.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kms_attest::collateral::Collateral;
use kms_core::id::Home;
use kms_core::mechanism::{Hash, Mechanism};
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::selftest::SelfTests;
use kms_crypto::unlock::Argon2Cost;
use kms_crypto::{CryptoError, arena, unlock};
use kms_store::{Opened, Store, StoreError};
use secrecy::SecretString;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::clock::Clock;
use crate::config::{self, Backend, Config, ConfigError};
use crate::context::{Context, Parts};
use crate::failure::Failure;
use crate::grpc::{Api, routes};
use crate::integrity::{IntegrityError, Programs};
use crate::leases;
use crate::listener::{self, CONNECTIONS_MAX};
use crate::{housekeeper, identity, metrics_endpoint, ops, pipeline, root, tls};

/// Why the daemon does not serve. Each names what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The store has a root key already.
    #[error("{0} holds a key store already; nothing was changed")]
    AlreadyInitialised(PathBuf),
    /// A socket cannot be had.
    #[error("cannot listen on {address}: {source}; is another kmsd running?")]
    Bind {
        /// Which.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The collateral folder cannot be used.
    #[error("cannot use the collateral in {path}: {problem}")]
    Collateral {
        /// Which folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Cryptography is not in order.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in the store or the pipeline failed.
    #[error("{0}")]
    Failed(String),
    /// A program is not the one that was signed.
    #[error("integrity: {0}")]
    Integrity(#[from] IntegrityError),
    /// The store has no root key.
    #[error("{0} holds no key store yet; make one with: kmsd init --state {0}")]
    NotInitialised(PathBuf),
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The serving loop ended by itself.
    #[error("the server ended: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] crate::TlsError),
}

impl From<Failure> for ServeError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.to_string())
    }
}

/// What opens the root at start.
pub(crate) enum Opening {
    /// A development root's file.
    #[cfg(feature = "dev")]
    DevRoot(SecretString),
    /// A passphrase.
    Passphrase(SecretString),
    /// Nothing: start sealed.
    Sealed,
}

/// What a daemon is opened with.
pub(crate) struct Basis {
    /// The folder of its state.
    pub(crate) state: PathBuf,
    pub(crate) backend: Backend,
    pub(crate) home: Home,
    pub(crate) collateral: Collateral,
    pub(crate) lifecycle: config::Lifecycle,
    pub(crate) crypto: config::Crypto,
    pub(crate) integrity: Option<config::Integrity>,
    pub(crate) clock: Clock,
    pub(crate) pin_cost: Argon2Cost,
    pub(crate) opening: Opening,
}

/// An opened store with everything around it, not yet serving.
pub(crate) struct Daemon {
    pub(crate) cx: Arc<Context>,
}

impl Daemon {
    /// Opens the store and, if `opening` can, its root. The programs are looked at before that.
    ///
    /// # Errors
    /// [`ServeError`] naming what is wrong.
    pub(crate) async fn open(basis: Basis) -> Result<Self, ServeError> {
        let Basis {
            state,
            backend,
            home,
            collateral,
            lifecycle,
            crypto,
            integrity,
            clock,
            pin_cost,
            opening,
        } = basis;
        let self_tests = self_tests()?;
        let programs = integrity.as_ref().map(Programs::configured).transpose()?;
        if let Some(programs) = &programs {
            tokio::task::block_in_place(|| programs.check(clock.now()))?;
            tracing::info!(key = programs.key().origin(), "the programs are what was signed");
        }
        tracing::info!(memory = arena::status()?.as_str(), "key memory");
        let store = open_store(&state, backend).await?;
        let method = root::method(&*store).await?;
        let seal_method = method.ok_or_else(|| ServeError::NotInitialised(state))?;
        let log_key = root::log_key(&*store).await?;
        let wrap = root::passphrase_wrap(&*store).await?;
        let parts = Parts {
            store,
            self_tests,
            programs,
            home,
            seal_method,
            log_key,
            collateral,
            lifecycle: lifecycle.into(),
            approved_only: crypto.approved_only,
            clock,
            pin_cost,
        };
        let cx = Arc::new(Context::sealed(parts));
        match (opening, wrap) {
            #[cfg(feature = "dev")]
            (Opening::DevRoot(text), None) => {
                root::open(&cx, unlock::DevFile::read_plaintext_root(&text)?).await?;
            }
            (Opening::Passphrase(passphrase), Some(wrap)) => {
                let opened = cx.pins.run(move || unlock::unwrap_by_passphrase(&wrap, &passphrase));
                let opened = opened.await.ok_or(Failure::Bug("the passphrase worker ended"))?;
                root::open(&cx, opened?).await?;
            }
            (Opening::Sealed, _) => tracing::warn!("sealed; open with: kmsctl seal unseal"),
            #[cfg(feature = "dev")]
            (Opening::DevRoot(_), Some(_)) => return Err(other_way(seal_method)),
            (Opening::Passphrase(_), None) => return Err(other_way(seal_method)),
        }
        Ok(Self { cx })
    }

    /// Serves until `stop` comes, then drains and closes. `ready` is called when all sockets are
    /// open.
    ///
    /// # Errors
    /// [`ServeError`] when a socket cannot be had or serving fails.
    pub(crate) async fn serve(
        self,
        config: &Config,
        stop: impl Future<Output = ()> + Send + 'static,
        ready: impl FnOnce(),
    ) -> Result<(), ServeError> {
        let Self { cx } = self;
        let daemon = identity::daemon(&[])?;
        // Each socket has connections of its own, so that strangers on the network cannot take
        // those of local programs.
        let slots = || Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (accepted, connections) = mpsc::channel(64);
        let mut tasks = tokio::task::JoinSet::new();
        if let Some(path) = &config.listen.unix {
            let listener = bind_unix(path)?;
            let (cx, slots) = (cx.clone(), slots());
            tasks.spawn(listener::accept_unix(cx, listener, slots, accepted.clone()));
        }
        if let (Some(address), Some(files)) = (config.listen.tcp, &config.tls) {
            let tls = tls::server(&files.certificate, &files.key, &files.client_ca)?;
            let listener = bind_tcp(address).await?;
            let (cx, slots) = (cx.clone(), slots());
            tasks.spawn(listener::accept_tls(cx, listener, tls, slots, accepted.clone()));
        }
        if let Some(address) = config.listen.metrics {
            tasks.spawn(metrics_endpoint::serve(cx.clone(), bind_tcp(address).await?));
        }
        tasks.spawn(age_opened_keys(cx.clone()));
        tasks.spawn(test_every_day(cx.clone()));
        drop(accepted);
        leases::close_lost(&cx).await?;
        tasks.spawn(leases::end_in_time(cx.clone()));
        pipeline::serve::<ops::Start>(&cx, &daemon, ()).await?;
        tasks.spawn(housekeeper::run(cx.clone(), daemon.clone()));
        let (unix, tcp) = (&config.listen.unix, &config.listen.tcp);
        tracing::info!(?unix, ?tcp, log = cx.log_key.origin(), sealed = cx.is_sealed(), "serving");
        ready();
        drain(&cx, stop, connections).await?;
        tasks.shutdown().await;
        leases::end_all(&cx).await;
        ops::bind_rows_at_the_end(&cx).await;
        let spare: Vec<u64> = cx.slots_ready.lock().await.drain(..).map(|(slot, _)| slot).collect();
        if let Err(error) = ops::free(&cx, &spare).await {
            // They open nothing; each is thirty-two bytes that stay taken.
            tracing::warn!(%error, "spare slots are left behind");
        }
        pipeline::serve::<ops::Stop>(&cx, &daemon, ()).await?;
        cx.store.close().await?;
        if let Some(path) = &config.listen.unix {
            // It may be gone already; then there is nothing to tidy.
            let _ = std::fs::remove_file(path);
        }
        tracing::info!("stopped");
        Ok(())
    }
}

fn other_way(method: &str) -> ServeError {
    ConfigError::Value(format!("the root of this store opens by the way {method:?}")).into()
}

/// Runs the self tests once a day, until the daemon stops. The first time is a day after the start: what
/// is used before that is tested before it is used.
async fn test_every_day(cx: Arc<Context>) {
    loop {
        tokio::time::sleep(SELF_TEST_PERIOD).await;
        cx.run_self_tests().await;
    }
}

/// Drops the keys that are not in use any more, until the daemon stops.
async fn age_opened_keys(cx: Arc<Context>) {
    let mut beat = tokio::time::interval(OPENED_KEY_IDLE_MAX);
    loop {
        beat.tick().await;
        if let Ok(vault) = cx.vault() {
            vault.age_opened_keys();
        }
    }
}

/// Serves `connections` until `stop`, then lets what is in flight finish for a bounded time. A store
/// that stops after a failure ends it at once.
async fn drain(
    cx: &Arc<Context>,
    stop: impl Future<Output = ()> + Send + 'static,
    connections: mpsc::Receiver<io::Result<listener::Connection>>,
) -> Result<(), ServeError> {
    let (stopping, stopped) = watch::channel(false);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let api = Api::new(cx.clone(), stopped.clone());
    let routes = routes(&api).add_service(health_service);
    let mut announced = stopped.clone();
    let server = Server::builder()
        .timeout(REQUEST_TIME_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(4 * STREAM_WINDOW_BYTES)
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
            // An error means that the sender is gone, which is an end as well.
            let _ = announced.wait_for(|stop| *stop).await;
        });
    let mut server = std::pin::pin!(server);
    tokio::select! {
        ended = &mut server => return Ok(ended?),
        () = stop => {}
        // Nothing is served any more, and only another start helps. A service manager sees to it
        // that there is one.
        () = cx.store.watch().stopped() => return Err(StoreError::Poisoned.into()),
    }
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    stopping.send_replace(true);
    let drained = tokio::time::timeout(DRAIN_TIME_MAX, server).await;
    // Also of those whose client is gone: the log tells how each ended before it tells of the stop.
    if tokio::time::timeout(DRAIN_TIME_MAX, api.streams_ended()).await.is_err() {
        tracing::warn!("the end of some streams is not on record");
    }
    match drained {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            tracing::warn!("some connections did not end in time and were closed");
            Ok(())
        }
    }
}

/// The self tests of the library that serves. What the daemon itself stands on is tested before anything
/// is opened, every mechanism of a key before its first use.
///
/// # Errors
/// [`ServeError::Crypto`] when a known answer does not come out.
pub(crate) fn self_tests() -> Result<Arc<SelfTests>, ServeError> {
    let self_tests = SelfTests::new(Arc::new(AwsLc));
    for mechanism in STANDS_ON {
        self_tests.ensure(mechanism).map_err(CryptoError::from)?;
    }
    // What files are hashed with.
    self_tests.ensure_hash(Hash::Sha256).map_err(CryptoError::from)?;
    Ok(Arc::new(self_tests))
}

/// Opens the embedded store, and says what its recovery found.
///
/// # Errors
/// [`ServeError::Store`].
pub(crate) async fn open_store(
    state: &Path,
    backend: Backend,
) -> Result<Arc<dyn Store>, ServeError> {
    let path = state.join(STORE_FOLDER);
    let opening = tokio::task::spawn_blocking(move || open_backend(&path, backend)).await;
    let (store, opened) = opening.map_err(|_| Failure::Bug("opening the store panicked"))??;
    let Opened { discarded_tail_bytes, rebuilt_index, .. } = opened;
    if discarded_tail_bytes > 0 {
        tracing::warn!(discarded_tail_bytes, "an unfinished write was discarded");
    }
    if rebuilt_index {
        tracing::warn!("the index was made anew from the journal");
    }
    Ok(store)
}

fn open_backend(path: &Path, backend: Backend) -> Result<(Arc<dyn Store>, Opened), StoreError> {
    match backend {
        #[cfg(feature = "redb")]
        Backend::Redb => {
            let (store, opened) = kms_store::open_redb(path)?;
            Ok((Arc::new(store), opened))
        }
        Backend::Sled => {
            let (store, opened) = kms_store::open(path)?;
            Ok((Arc::new(store), opened))
        }
    }
}

/// Reads every file of a folder of collateral.
///
/// # Errors
/// [`ServeError::Collateral`] when the folder or a file in it cannot be used.
pub(crate) fn read_collateral(folder: &Path) -> Result<Collateral, ServeError> {
    let refused = |problem: String| ServeError::Collateral { path: folder.to_owned(), problem };
    let mut blobs = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| refused(error.to_string()))? {
        let path = entry.map_err(|error| refused(error.to_string()))?.path();
        if path.is_file() {
            let bytes = std::fs::read(&path).map_err(|error| refused(error.to_string()))?;
            blobs.push((path.display().to_string(), bytes));
        }
    }
    Collateral::from_blobs(blobs).map_err(|error| refused(error.to_string()))
}

fn bind_unix(path: &Path) -> Result<UnixListener, ServeError> {
    // A socket that nobody answers on is left over from a daemon that was killed; anything else
    // that lies there is not ours to remove.
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)
            .map_err(|source| ServeError::File { path: path.to_owned(), source })?;
    }
    let address = path.display().to_string();
    let listener =
        UnixListener::bind(path).map_err(|source| ServeError::Bind { address, source })?;
    // Owner and group; the folder around it says who else.
    let mode = std::fs::Permissions::from_mode(0o660);
    let set = std::fs::set_permissions(path, mode);
    set.map_err(|source| ServeError::File { path: path.to_owned(), source })?;
    Ok(listener)
}

async fn bind_tcp(address: std::net::SocketAddr) -> Result<TcpListener, ServeError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ServeError::Bind { address: address.to_string(), source })
}

/// What rows, wrapped keys and signed heads of the log are made with.
const STANDS_ON: [Mechanism; 4] =
    [Mechanism::AesKwp, Mechanism::EdDsa, Mechanism::HkdfSha256, Mechanism::HmacSha256];
/// How long an unused key stays open, at least; at most twice that.
const OPENED_KEY_IDLE_MAX: Duration = Duration::from_secs(60);
const SELF_TEST_PERIOD: Duration = Duration::from_secs(24 * 3600);
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
const STREAMS_MAX: u32 = 128;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Where the store lies in the folder of the state.
pub(crate) const STORE_FOLDER: &str = "store";
