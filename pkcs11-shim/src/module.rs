//! The state of the application between `C_Initialize` and `C_Finalize`, and how a fork ends it.
//!
//! After a fork the child must call `C_Initialize` again, and whatever it inherited is left alone:
//! a lock may have been held by a thread that does not exist here, and the sockets belong to the
//! parent. So the state lies in one of a fixed number of places, each owned by one process for
//! good, and a process looks only at its own.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki_sys::*;
use kms_client::Config;

use crate::config;
use crate::object::{Object, Objects};
use crate::parameter;
use crate::rv::{Result, Rv};
use crate::session::{Session, Sessions};
use crate::token::Tokens;

/// An initialised module.
pub(crate) struct Module {
    /// Where the daemon is.
    pub(crate) config: Config,
    /// Tells one initialisation of this process from the next.
    pub(crate) epoch: u64,
    /// Whether to say on the standard error what went wrong (`KMS_PKCS11_LOG`).
    log: bool,
    /// Held while a stream logs in again: the daemon counts each try before it looks at the PIN, so that
    /// two at once, both right, would stand in each other's way.
    pub(crate) logging_in: Mutex<()>,
    pub(crate) tokens: Tokens,
    pub(crate) sessions: Sessions,
    pub(crate) objects: Objects,
}

/// The module, if this process has initialised it.
pub(crate) fn current() -> Result<Arc<Module>> {
    let module = own_place().and_then(|place| lock(&place.module).clone());
    module.ok_or(Rv(CKR_CRYPTOKI_NOT_INITIALIZED))
}

/// Makes the module ready in this process. The daemon is not asked for anything yet.
pub(crate) fn initialize() -> Result<()> {
    let mut module = lock(&claim_place()?.module);
    if module.is_some() {
        return Err(Rv(CKR_CRYPTOKI_ALREADY_INITIALIZED));
    }
    let log = std::env::var_os("KMS_PKCS11_LOG").is_some_and(|value| !value.is_empty());
    let config = config::load().map_err(|error| {
        report_if(log, &format!("not configured: {error}"));
        Rv(CKR_GENERAL_ERROR)
    })?;
    *module = Some(Arc::new(Module {
        config,
        epoch: EPOCHS.fetch_add(1, Ordering::Relaxed),
        log,
        logging_in: Mutex::default(),
        tokens: Tokens::default(),
        sessions: Sessions::default(),
        objects: Objects::default(),
    }));
    Ok(())
}

/// Ends it. Streams of other threads close when those threads end or call again.
pub(crate) fn finalize() -> Result<()> {
    let place = own_place().ok_or(Rv(CKR_CRYPTOKI_NOT_INITIALIZED))?;
    lock(&place.module).take().map(drop).ok_or(Rv(CKR_CRYPTOKI_NOT_INITIALIZED))
}

impl Module {
    /// Says on the standard error what went wrong, if the user asked for that.
    pub(crate) fn report(&self, problem: &str) {
        report_if(self.log, problem);
    }

    /// Tells people what a parameter must be when one was refused.
    pub(crate) fn explained<T>(&self, kind: CK_MECHANISM_TYPE, result: Result<T>) -> Result<T> {
        result.inspect_err(|rv| {
            if *rv == Rv(CKR_MECHANISM_PARAM_INVALID) {
                self.report(&parameter::expectation(kind));
            }
        })
    }

    /// The object behind a handle, as this session may see it.
    pub(crate) fn object(
        &self,
        session: &Session,
        handle: CK_OBJECT_HANDLE,
    ) -> Result<Arc<Object>> {
        let found = self.objects.find(handle).filter(|object| object.slot == session.slot);
        let object = found.ok_or(Rv(CKR_OBJECT_HANDLE_INVALID))?;
        if object.is_private() && !self.tokens.is_user(session.slot) {
            return Err(Rv(CKR_USER_NOT_LOGGED_IN));
        }
        Ok(object)
    }

    /// The key behind a handle, for use in a cryptographic operation.
    pub(crate) fn key(&self, session: &Session, handle: CK_OBJECT_HANDLE) -> Result<Arc<Object>> {
        self.object(session, handle).map_err(|rv| match rv {
            Rv(CKR_OBJECT_HANDLE_INVALID) => Rv(CKR_KEY_HANDLE_INVALID),
            other => other,
        })
    }
}

/// Locks for the few steps of a bookkeeping; no lock of the module's tables is held over a call to
/// the daemon. A panic in between leaves the tables whole, so poison is passed over.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report_if(log: bool, problem: &str) {
    if log {
        eprintln!("kms-pkcs11: {problem}");
    }
}

/// Where one process keeps its module.
struct Place {
    /// The owner; 0 for nobody yet.
    pid: AtomicU32,
    module: Mutex<Option<Arc<Module>>>,
}

fn own_place() -> Option<&'static Place> {
    let pid = std::process::id();
    PLACES.iter().find(|place| place.pid.load(Ordering::Acquire) == pid)
}

/// The place of this process, taken if need be. Two threads that come here at once go through the
/// places in the same order, so the second finds what the first has taken.
fn claim_place() -> Result<&'static Place> {
    let pid = std::process::id();
    let claimed = |place: &&Place| {
        let before = place.pid.compare_exchange(0, pid, Ordering::AcqRel, Ordering::Acquire);
        before.is_ok() || before == Err(pid)
    };
    PLACES.iter().find(claimed).ok_or(Rv(CKR_GENERAL_ERROR))
}

/// One for each process in a line of descent in which every process initialises the module: a
/// daemon, its worker, and a helper of that are three.
static PLACES: [Place; 64] =
    [const { Place { pid: AtomicU32::new(0), module: Mutex::new(None) } }; 64];

static EPOCHS: AtomicU64 = AtomicU64::new(1);
