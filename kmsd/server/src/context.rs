//! What every operation may reach: store, vault, log, clock, challenges. Made once at start.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kms_attest::collateral::Collateral;
use kms_core::audit::checkpoint::LogKey;
use kms_core::challenge::Challenges;
use kms_core::id::{Digest, Home, OperationId, Timestamp};
use kms_core::permit::Refusal;
use kms_crypto::log_key::LogSigner;
use kms_crypto::selftest::SelfTests;
use kms_crypto::statement_key::StatementSigner;
use kms_crypto::unlock::Argon2Cost;
use kms_crypto::vault::{SlotSecret, Vault};
use kms_store::Store;
use tokio::sync::OwnedMutexGuard;

use crate::clock::Clock;
use crate::config;
use crate::counting::Counts;
use crate::directory::Directory;
use crate::failure::Failure;
use crate::integrity::Programs;
use crate::leases::{Fresh, LeasedStore, Leases};
use crate::memo::Memo;
use crate::metrics::Metrics;
use crate::pin::{PinGuard, UnsealTries};
use crate::places::Places;
use crate::rows::{Stored, User};

/// The state of a running daemon.
pub(crate) struct Context {
    /// Durable rows and the audit log.
    pub(crate) store: Arc<dyn Store>,
    /// What is known of the library that carries out the mathematics.
    pub(crate) self_tests: Arc<SelfTests>,
    self_tests_run_at: AtomicU64,
    /// How many runs of them have begun.
    self_tests_begun: AtomicU64,
    /// The programs that are checked with the self tests, if any are.
    pub(crate) programs: Option<Arc<Programs>>,
    /// Tenant and location that short names are read in.
    pub(crate) home: Home,
    /// How the root key opens.
    pub(crate) seal_method: &'static str,
    /// The audit log's public key.
    pub(crate) log_key: LogKey,
    /// How long steps of a version's life can be taken back.
    pub(crate) lifecycle: Lifecycle,
    /// Whether approved services alone are given.
    pub(crate) approved_only: bool,
    /// Tells the time.
    clock: Clock,
    /// How much work a PIN is to whoever guesses.
    pub(crate) pin_cost: Argon2Cost,
    /// Trust roots, endorsements and revocation lists for attestation evidence.
    pub(crate) collateral: Collateral,
    /// Nonces that wait for evidence.
    pub(crate) challenges: Mutex<Challenges>,
    /// Hashes PINs, few at a time.
    pub(crate) pins: PinGuard,
    /// Hashes passphrases, beside the PINs, so that neither holds up the other.
    pub(crate) passphrases: PinGuard,
    /// Counts tries to open the root.
    pub(crate) unseal_tries: UnsealTries,
    /// Rows that were believed lately.
    pub(crate) memo: Memo,
    /// What versions have protected, where that counts.
    pub(crate) counts: Counts,
    /// Slots on disk whose secrets no version has yet. They open nothing, and are erased at the end.
    pub(crate) slots_ready: tokio::sync::Mutex<Vec<(u64, SlotSecret)>>,
    /// Figures for operators.
    pub(crate) metrics: Metrics,
    /// Uses that are on record before they are made.
    pub(crate) leases: Arc<Leases>,
    /// Room for what is under way.
    pub(crate) places: Places,
    /// Held while self tests run: they take all of a core.
    self_testing: tokio::sync::Mutex<()>,
    opened: RwLock<Option<Opened>>,
    directory: RwLock<Arc<Directory>>,
    /// Held by whoever changes the directory, from reading it until the change is in it.
    directory_turn: Arc<tokio::sync::Mutex<()>>,
    epoch: AtomicU64,
    logins: AtomicU64,
}

/// What exists only while the root key is open.
#[derive(Clone)]
pub(crate) struct Opened {
    /// Keys in use.
    pub(crate) vault: Arc<Vault>,
    /// Signs heads of the audit log.
    pub(crate) log_signer: Arc<LogSigner>,
    /// Signs statements about keys.
    pub(crate) statement_signer: Arc<StatementSigner>,
}

/// What a [`Context`] is made of.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) self_tests: Arc<SelfTests>,
    pub(crate) programs: Option<Programs>,
    pub(crate) home: Home,
    pub(crate) seal_method: &'static str,
    pub(crate) log_key: LogKey,
    pub(crate) collateral: Collateral,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) approved_only: bool,
    pub(crate) clock: Clock,
    pub(crate) pin_cost: Argon2Cost,
}

/// How long steps of a version's life can be taken back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifecycle {
    /// From the order to destroy a version to its destruction.
    pub(crate) destroy_delay_ms: u64,
    /// For how long the other steps can be undone.
    pub(crate) undo_window_ms: u64,
}

impl From<config::Lifecycle> for Lifecycle {
    fn from(config: config::Lifecycle) -> Self {
        let config::Lifecycle { destroy_delay_seconds, undo_window_seconds } = config;
        Self {
            destroy_delay_ms: u64::from(destroy_delay_seconds) * 1000,
            undo_window_ms: u64::from(undo_window_seconds) * 1000,
        }
    }
}

impl Context {
    /// A context whose root is still closed.
    pub(crate) fn sealed(parts: Parts) -> Self {
        let Parts {
            store,
            self_tests,
            programs,
            home,
            seal_method,
            log_key,
            collateral,
            lifecycle,
            approved_only,
            clock,
            pin_cost,
        } = parts;
        let leases = Arc::new(Leases::new(clock.clone()));
        Self {
            // Nobody commits past the leases.
            store: Arc::new(LeasedStore::new(store, leases.clone())),
            leases,
            self_tests,
            self_tests_run_at: AtomicU64::new(0),
            self_tests_begun: AtomicU64::new(0),
            programs: programs.map(Arc::new),
            home,
            seal_method,
            log_key,
            collateral,
            lifecycle,
            approved_only,
            clock,
            pin_cost,
            challenges: Mutex::default(),
            pins: PinGuard::new(PINS_HASHED_AT_ONCE),
            passphrases: PinGuard::new(1),
            places: Places::default(),
            self_testing: tokio::sync::Mutex::default(),
            epoch: AtomicU64::new(0),
            logins: AtomicU64::new(0),
            unseal_tries: UnsealTries::default(),
            counts: Counts::default(),
            memo: Memo::default(),
            slots_ready: tokio::sync::Mutex::default(),
            metrics: Metrics::new(),
            opened: RwLock::default(),
            directory: RwLock::default(),
            directory_turn: Arc::default(),
        }
    }

    /// The open vault.
    ///
    /// # Errors
    /// [`Refusal::Sealed`] while the root is closed.
    pub(crate) fn opened(&self) -> Result<Opened, Refusal> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        opened.clone().ok_or(Refusal::Sealed)
    }

    /// The open vault; see [`Context::opened`].
    pub(crate) fn vault(&self) -> Result<Arc<Vault>, Refusal> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        opened.as_ref().map(|opened| opened.vault.clone()).ok_or(Refusal::Sealed)
    }

    /// Whether the root is closed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.opened.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Puts an opened vault in place, with the people and programs that it vouches for.
    pub(crate) fn open(&self, opened: Opened, users: Vec<Stored<User>>) {
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        self.leases.begin_again();
        self.set_directory(Directory::of(users));
    }

    /// Closes the root: the vault and everything it vouched for are dropped.
    pub(crate) fn close(&self) {
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.store.end_vouching();
        self.memo.clear();
        self.set_directory(Directory::default());
    }

    /// The enrolled people and programs, as of now.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_directory(&self, directory: Directory) {
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(directory);
        self.end_logins();
    }

    /// Takes note of a user whose row was just committed.
    pub(crate) fn remember_user(&self, user: Stored<User>) {
        let mut directory = self.directory.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Directory::clone(&directory);
        changed.put(user);
        *directory = Arc::new(changed);
        self.raise_epoch();
    }

    /// The turn to change the directory: what must hold of several users at once is judged by nobody else
    /// meanwhile.
    pub(crate) async fn directory_turn(&self) -> OwnedMutexGuard<()> {
        self.directory_turn.clone().lock_owned().await
    }

    /// Raised whenever somebody's rights change: who a connection speaks for is found out anew.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// How fresh what is read from now on is at least; `None` where nobody counts changes.
    pub(crate) fn fresh(&self) -> Option<Fresh> {
        Some(Fresh { changes: self.store.row_changes()?, epoch: self.epoch() })
    }

    fn raise_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Raised whenever all logins by PIN end; then the epoch rises as well, after it.
    pub(crate) fn logins(&self) -> u64 {
        self.logins.load(Ordering::Acquire)
    }

    /// Ends every login by PIN that was made before.
    pub(crate) fn end_logins(&self) {
        self.logins.fetch_add(1, Ordering::AcqRel);
        self.raise_epoch();
    }

    /// The time, milliseconds since 1970.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Runs all self tests, and looks at the programs. What fails is kept in their state, and from then on refused.
    /// Whoever asks while they run waits, and takes the result of those that began after he asked.
    pub(crate) async fn run_self_tests(&self) {
        let asked = self.self_tests_begun.load(Ordering::Acquire);
        let _one_at_a_time = self.self_testing.lock().await;
        if self.self_tests_begun.load(Ordering::Acquire) > asked {
            return;
        }
        self.self_tests_begun.fetch_add(1, Ordering::AcqRel);
        let (self_tests, programs) = (self.self_tests.clone(), self.programs.clone());
        let now = self.now();
        let run = move || {
            if let Some(Err(error)) = programs.map(|programs| programs.check(now)) {
                tracing::error!(%error, "the programs are not what they must be");
                self_tests.fail_integrity();
            }
            self_tests.run()
        };
        let ended = tokio::task::spawn_blocking(run).await;
        match ended {
            Ok(Ok(())) => tracing::info!("all self tests passed"),
            Ok(Err(failed)) => tracing::error!(%failed, "nothing is served any more"),
            Err(_) => tracing::error!("the self tests panicked"),
        }
        self.self_tests_run_at.store(self.now().0, Ordering::Release);
    }

    /// When all self tests last ran, if they did.
    pub(crate) fn self_tests_run_at(&self) -> Option<Timestamp> {
        let at = self.self_tests_run_at.load(Ordering::Acquire);
        (at != 0).then_some(Timestamp(at))
    }

    /// The server's identity in transcripts.
    pub(crate) fn identity(&self) -> Digest {
        self.log_key.identity()
    }
}

/// Random bytes that are not key material: salts, nonces, operation ids.
///
/// # Errors
/// [`Failure::Random`] when the generator fails; nothing is done without it.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    kms_crypto::random::fill(&mut bytes)?;
    Ok(bytes)
}

/// 16 random bytes twice, for a request's salt and id: out of a stock that is drawn for many requests at
/// once, since each draw has its price. The daemon never forks, so nobody else has the same stock.
///
/// # Errors
/// As [`random`].
pub(crate) fn random_pair() -> Result<[[u8; 16]; 2], Failure> {
    STOCK.with_borrow_mut(|stock| {
        if stock.is_empty() {
            let drawn: [u8; STOCK_BYTES] = random()?;
            stock.extend_from_slice(drawn.as_chunks::<16>().0.as_chunks::<2>().0);
        }
        stock.pop().ok_or(Failure::Bug("an empty draw"))
    })
}

thread_local! {
    /// What was drawn and not given out yet; each is given out once.
    static STOCK: RefCell<Vec<[[u8; 16]; 2]>> = const { RefCell::new(Vec::new()) };
}
const STOCK_BYTES: usize = 1024;

/// A fresh operation id.
///
/// # Errors
/// As [`random`].
pub(crate) fn operation_id() -> Result<OperationId, Failure> {
    random().map(OperationId)
}

const PINS_HASHED_AT_ONCE: usize = 2;
