//! What every operation may reach: store, vault, log, clock, challenges. Made once at start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use kms_attest::collateral::Collateral;
use kms_core::audit::checkpoint::LogKey;
use kms_core::challenge::Challenges;
use kms_core::id::{Digest, Home, OperationId, PrincipalName, RingName, Timestamp};
use kms_core::permit::Refusal;
use kms_crypto::log_key::LogSigner;
use kms_crypto::vault::Vault;
use kms_store::Store;

use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::pin::{PinGuard, Tries};
use crate::rows::User;

/// The state of a running daemon.
pub(crate) struct Context {
    /// Durable rows and the audit log.
    pub(crate) store: Arc<dyn Store>,
    /// Tenant and location that short names are read in.
    pub(crate) home: Home,
    /// How the root key opens.
    pub(crate) seal_method: &'static str,
    /// The audit log's public key.
    pub(crate) log_key: LogKey,
    /// Trust roots, endorsements and revocation lists for attestation evidence.
    pub(crate) collateral: Collateral,
    /// Nonces that wait for evidence.
    pub(crate) challenges: Mutex<Challenges>,
    /// Counts wrong PINs.
    pub(crate) pins: PinGuard,
    /// Counts wrong passphrases.
    pub(crate) unseal_tries: Tries,
    /// Figures for operators.
    pub(crate) metrics: Metrics,
    opened: RwLock<Option<Opened>>,
    directory: RwLock<Arc<BTreeMap<PrincipalName, User>>>,
    opened_rings: RwLock<std::collections::BTreeSet<RingName>>,
}

/// What exists only while the root key is open.
#[derive(Clone)]
pub(crate) struct Opened {
    /// Keys in use.
    pub(crate) vault: Arc<Vault>,
    /// Signs heads of the audit log.
    pub(crate) log_signer: Arc<LogSigner>,
}

/// What a [`Context`] is made of.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) home: Home,
    pub(crate) seal_method: &'static str,
    pub(crate) log_key: LogKey,
    pub(crate) collateral: Collateral,
}

impl Context {
    /// A context whose root is still closed.
    pub(crate) fn sealed(parts: Parts) -> Self {
        let Parts { store, home, seal_method, log_key, collateral } = parts;
        Self {
            store,
            home,
            seal_method,
            log_key,
            collateral,
            challenges: Mutex::default(),
            pins: PinGuard::default(),
            unseal_tries: Tries::default(),
            metrics: Metrics::new(),
            opened: RwLock::default(),
            directory: RwLock::default(),
            opened_rings: RwLock::default(),
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
        self.opened().map(|opened| opened.vault)
    }

    /// Whether the root is closed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.opened().is_err()
    }

    /// Puts an opened vault in place, with the people and programs that it vouches for.
    pub(crate) fn open(&self, opened: Opened, users: Vec<User>) {
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        self.set_users(users);
    }

    /// Closes the root: the vault and everything it vouched for are dropped.
    pub(crate) fn close(&self) {
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.opened_rings.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.set_users(Vec::new());
    }

    /// The enrolled people and programs, as of now.
    pub(crate) fn users(&self) -> Arc<BTreeMap<PrincipalName, User>> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_users(&self, users: Vec<User>) {
        let users = users.into_iter().map(|user| (user.name.clone(), user)).collect();
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
    }

    /// Takes note of a user whose row was just committed.
    pub(crate) fn remember_user(&self, user: User) {
        let mut directory = self.directory.write().unwrap_or_else(PoisonError::into_inner);
        let mut users = BTreeMap::clone(&directory);
        users.insert(user.name.clone(), user);
        *directory = Arc::new(users);
    }

    /// Whether the ring's key is open in the vault already.
    pub(crate) fn ring_is_open(&self, ring: &RingName) -> bool {
        self.opened_rings.read().unwrap_or_else(PoisonError::into_inner).contains(ring)
    }

    /// Takes note that the ring's key is open in the vault.
    pub(crate) fn ring_opened(&self, ring: RingName) {
        self.opened_rings.write().unwrap_or_else(PoisonError::into_inner).insert(ring);
    }

    /// The time, milliseconds since 1970.
    pub(crate) fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
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

/// A fresh operation id.
///
/// # Errors
/// As [`random`].
pub(crate) fn operation_id() -> Result<OperationId, Failure> {
    random().map(OperationId)
}
