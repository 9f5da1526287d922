//! Sessions: cheap, many, and the place of running operations.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use cryptoki_sys::*;

use crate::call::cipher::Ciphering;
use crate::call::digest::Digesting;
use crate::call::object::Find;
use crate::call::sign::{Signing, Verifying};
use crate::module::lock;
use crate::rv::{Result, Rv};

/// The open sessions.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<Table>);

#[derive(Default)]
struct Table {
    last: CK_SESSION_HANDLE,
    open: HashMap<CK_SESSION_HANDLE, Arc<Session>>,
}

/// One session.
pub(crate) struct Session {
    pub(crate) slot: CK_SLOT_ID,
    pub(crate) read_write: bool,
    operations: Mutex<Operations>,
}

/// What runs in a session; one of each kind at a time.
#[derive(Default)]
pub(crate) struct Operations {
    pub(crate) decrypt: Option<Ciphering>,
    pub(crate) digest: Option<Digesting>,
    pub(crate) encrypt: Option<Ciphering>,
    pub(crate) find: Option<Find>,
    pub(crate) sign: Option<Signing>,
    pub(crate) verify: Option<Verifying>,
}

/// How many sessions are open on a token: all, and those that may write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Count {
    pub(crate) all: usize,
    pub(crate) read_write: usize,
}

impl Sessions {
    pub(crate) fn open(&self, slot: CK_SLOT_ID, read_write: bool) -> Result<CK_SESSION_HANDLE> {
        let mut table = lock(&self.0);
        if table.open.len() >= SESSIONS_MAX {
            return Err(Rv(CKR_SESSION_COUNT));
        }
        // Handles are never used again, so that a stale one is always found out.
        table.last += 1;
        let handle = table.last;
        let session = Session { slot, read_write, operations: Mutex::default() };
        table.open.insert(handle, Arc::new(session));
        Ok(handle)
    }

    pub(crate) fn find(&self, handle: CK_SESSION_HANDLE) -> Result<Arc<Session>> {
        lock(&self.0).open.get(&handle).cloned().ok_or(Rv(CKR_SESSION_HANDLE_INVALID))
    }

    /// Closes a session and says which slot it was on and how many are left there.
    pub(crate) fn close(&self, handle: CK_SESSION_HANDLE) -> Result<(CK_SLOT_ID, Count)> {
        let closed = lock(&self.0).open.remove(&handle);
        let session = closed.ok_or(Rv(CKR_SESSION_HANDLE_INVALID))?;
        Ok((session.slot, self.count(session.slot)))
    }

    pub(crate) fn close_all(&self, slot: CK_SLOT_ID) {
        lock(&self.0).open.retain(|_, session| session.slot != slot);
    }

    pub(crate) fn count(&self, slot: CK_SLOT_ID) -> Count {
        let table = lock(&self.0);
        let here = table.open.values().filter(|session| session.slot == slot);
        here.fold(Count { all: 0, read_write: 0 }, |count, session| Count {
            all: count.all + 1,
            read_write: count.read_write + usize::from(session.read_write),
        })
    }
}

impl Session {
    /// The running operations. Held over a call to the daemon: a session does one thing at a time.
    pub(crate) fn operations(&self) -> MutexGuard<'_, Operations> {
        lock(&self.operations)
    }
}

/// A guard against a program that never closes what it opens.
const SESSIONS_MAX: usize = 1 << 20;
