//! The way to the daemon: session streams of the calling thread.
//!
//! A thread has a stream for each token that it works with, so that going from one to the other
//! costs no login; a program with one token has one stream per thread. A stream is opened by the
//! first call that needs it, logged in when the application is, and replaced when it is broken,
//! found out by failing: such a call is made once more on a new stream. That is safe, because
//! what changes something carries a `request_id`, and the rest may be done twice.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cryptoki_sys::*;
use kms_client::ClientError;
use kms_client::blocking::Session;
use kms_proto::v1;
use kms_proto::v1::session_request::Request;
use kms_proto::v1::session_response::Response;

use crate::ffi;
use crate::module::{Module, lock};
use crate::rv::{HOSTILE, Result, Rv};
use crate::token::Login;

/// Asks the daemon, on behalf of the application as it is logged in to the token in `slot`.
pub(crate) fn exchange(
    module: &Module,
    slot: Option<CK_SLOT_ID>,
    request: &Request,
) -> Result<Response> {
    with_streams(|streams| streams.call(module, slot, request))
}

/// Like [`exchange`], for the one kind of answer that fits; every other is the daemon's fault.
macro_rules! call {
    ($module:expr, $slot:expr, $kind:ident($request:expr)) => {
        match $crate::connection::exchange(
            $module,
            $slot,
            &kms_proto::v1::session_request::Request::$kind($request),
        )? {
            kms_proto::v1::session_response::Response::$kind(answer) => Ok(answer),
            _ => Err($crate::rv::HOSTILE),
        }
    };
}
pub(crate) use call;

/// Tries a PIN on this thread's stream and, if the daemon takes it, keeps it for the application.
pub(crate) fn log_in(
    module: &Module,
    slot: CK_SLOT_ID,
    role: v1::PinRole,
    pin: zeroize::Zeroizing<String>,
) -> Result<()> {
    with_streams(|streams| streams.log_in(module, slot, role, pin))
}

/// Logs this thread's stream out, if it is in. Those of other threads follow when they are used.
pub(crate) fn log_out(module: &Module, slot: CK_SLOT_ID) {
    with_streams(|streams| streams.log_out(module, slot));
}

/// Closes this thread's streams.
pub(crate) fn close() {
    with_streams(|streams| streams.0.clear());
}

/// A new `request_id`.
pub(crate) fn request_id() -> Result<Vec<u8>> {
    let mut id = [0; 16];
    match rustix::rand::getrandom(&mut id[..], rustix::rand::GetRandomFlags::empty()) {
        Ok(16) => Ok(id.to_vec()),
        _ => Err(Rv(CKR_FUNCTION_FAILED)),
    }
}

/// The streams of one thread.
#[derive(Default)]
struct Streams(Vec<Stream>);

struct Stream {
    /// `None` only while being dropped.
    session: Option<Session>,
    /// The process that opened it; another one must not touch its sockets.
    pid: u32,
    /// The initialisation that it belongs to.
    epoch: u64,
    /// The token that it works with; not yet known while only tokens are listed.
    slot: Option<CK_SLOT_ID>,
    /// The number of the login that it bears.
    login: Option<u64>,
}

thread_local! {
    static STREAMS: RefCell<Streams> = const { RefCell::new(Streams(Vec::new())) };
}

/// Programs call us from exit handlers too, when this thread's variables may be gone; then the
/// streams last for one call.
fn with_streams<R>(work: impl FnOnce(&mut Streams) -> R) -> R {
    ffi::without_sigpipe(|| {
        let mut streams = STREAMS.try_with(RefCell::take).unwrap_or_default();
        let result = work(&mut streams);
        // Where they cannot be kept they are dropped, which closes them.
        let _ = STREAMS.try_with(|kept| kept.replace(streams));
        result
    })
}

impl Streams {
    fn call(
        &mut self,
        module: &Module,
        slot: Option<CK_SLOT_ID>,
        request: &Request,
    ) -> Result<Response> {
        for last_try in [false, true] {
            let (index, fresh) = self.stream(module, slot)?;
            let stream = &mut self.0[index];
            let error = match stream.call(module, request.clone()) {
                Ok(response) => return Ok(response),
                Err(Failed::Client(error)) => error,
                Err(Failed::LoginRefused) => return Err(Rv(CKR_USER_NOT_LOGGED_IN)),
            };
            let broken = is_broken(&error);
            if broken {
                drop(self.0.swap_remove(index));
            }
            // A new stream that breaks at once will break again.
            if fresh || last_try || !broken {
                return Err(refused(module, slot, &error));
            }
        }
        Err(HOSTILE)
    }

    fn log_in(
        &mut self,
        module: &Module,
        slot: CK_SLOT_ID,
        role: v1::PinRole,
        pin: zeroize::Zeroizing<String>,
    ) -> Result<()> {
        let ring = module.tokens.token(slot)?.ring;
        for last_try in [false, true] {
            let (index, fresh) = self.stream(module, Some(slot))?;
            let stream = &mut self.0[index];
            match stream.send_login(&ring, role, &pin) {
                Ok(()) => {
                    stream.login = Some(module.tokens.log_in(slot, role, pin)?);
                    return Ok(());
                }
                Err(error) => {
                    let broken = is_broken(&error);
                    if broken {
                        drop(self.0.swap_remove(index));
                    }
                    if fresh || last_try || !broken {
                        return Err(refused(module, None, &error));
                    }
                }
            }
        }
        Err(HOSTILE)
    }

    fn log_out(&mut self, module: &Module, slot: CK_SLOT_ID) {
        self.drop_strangers(module);
        let here = |stream: &Stream| stream.slot == Some(slot) && stream.login.is_some();
        let Some(index) = self.0.iter().position(here) else { return };
        // A stream that cannot log out is closed, which logs it out.
        if self.0[index].send_logout().is_err() {
            drop(self.0.swap_remove(index));
        }
    }

    /// The stream for `slot`, and whether it was opened just now.
    fn stream(&mut self, module: &Module, slot: Option<CK_SLOT_ID>) -> Result<(usize, bool)> {
        self.drop_strangers(module);
        let fitting = match slot {
            None => (!self.0.is_empty()).then_some(0),
            Some(_) => {
                let position = |wanted| self.0.iter().position(|stream| stream.slot == wanted);
                position(slot).or_else(|| position(None))
            }
        };
        if let Some(index) = fitting {
            let stream = &mut self.0[index];
            stream.slot = stream.slot.or(slot);
            return Ok((index, false));
        }
        let session =
            Session::connect(&module.config).map_err(|error| refused(module, None, &error))?;
        if self.0.len() >= STREAMS_MAX {
            drop(self.0.remove(0));
        }
        self.0.push(Stream {
            session: Some(session),
            pid: std::process::id(),
            epoch: module.epoch,
            slot,
            login: None,
        });
        Ok((self.0.len() - 1, true))
    }

    /// Lets go of streams of the parent process or of an initialisation that has ended.
    fn drop_strangers(&mut self, module: &Module) {
        let pid = std::process::id();
        self.0.retain(|stream| stream.pid == pid && stream.epoch == module.epoch);
    }
}

enum Failed {
    Client(ClientError),
    LoginRefused,
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Stream {
    fn call(
        &mut self,
        module: &Module,
        request: Request,
    ) -> core::result::Result<Response, Failed> {
        let wanted = self.slot.and_then(|slot| module.tokens.login(slot));
        if self.login != wanted.as_ref().map(|login| login.number) {
            if self.login.is_some() {
                self.send_logout()?;
            }
            if let Some(login) = wanted {
                self.log_in_again(module, &login)?;
            }
        }
        Ok(self.send(request)?)
    }

    /// Logs in with the PIN that the application gave before. If it is not taken any more, it is
    /// forgotten, lest every further call count as a wrong PIN.
    fn log_in_again(&mut self, module: &Module, login: &Login) -> core::result::Result<(), Failed> {
        let Some(slot) = self.slot else { return Ok(()) };
        let Ok(token) = module.tokens.token(slot) else { return Ok(()) };
        let _alone = lock(&module.logging_in);
        match self.send_login(&token.ring, login.role, &login.pin) {
            Ok(()) => {
                self.login = Some(login.number);
                Ok(())
            }
            Err(error @ ClientError::Refused { .. }) => {
                module.report(&format!("the PIN of {} is not taken any more: {error}", token.ring));
                module.tokens.forget(slot, login.number);
                Err(Failed::LoginRefused)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn send_login(
        &mut self,
        ring: &str,
        role: v1::PinRole,
        pin: &str,
    ) -> core::result::Result<(), ClientError> {
        let (ring, pin) = (ring.to_owned(), pin.to_owned());
        let request = v1::LoginTokenRequest { ring, role: role.into(), pin };
        match self.send(Request::LoginToken(request))? {
            Response::LoginToken(_) => Ok(()),
            _ => Err(ClientError::Protocol("another answer than to a login")),
        }
    }

    fn send_logout(&mut self) -> core::result::Result<(), ClientError> {
        match self.send(Request::LogoutToken(v1::LogoutTokenRequest {}))? {
            Response::LogoutToken(_) => {
                self.login = None;
                Ok(())
            }
            _ => Err(ClientError::Protocol("another answer than to a logout")),
        }
    }

    fn send(&mut self, request: Request) -> core::result::Result<Response, ClientError> {
        match &mut self.session {
            Some(session) => session.call(request),
            None => Err(ClientError::Protocol("the stream is being dropped")),
        }
    }
}

impl Drop for Stream {
    /// Runs also when a thread ends and when the process exits, where a panic would be the end of
    /// the host. In a child the sockets are the parent's.
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        if self.pid == std::process::id() {
            // What a panic here would say helps nobody: the stream is going away.
            let _ = catch_unwind(AssertUnwindSafe(|| ffi::without_sigpipe(|| drop(session))));
        } else {
            session.abandon();
        }
    }
}

/// Whether the stream is of no more use. A late answer does not break it, but a daemon that is
/// late may be one that is gone.
const fn is_broken(error: &ClientError) -> bool {
    !matches!(error, ClientError::Refused { .. } | ClientError::Config(_))
}

fn refused(module: &Module, slot: Option<CK_SLOT_ID>, error: &ClientError) -> Rv {
    module.report(&error.to_string());
    // Without a login the daemon knows only the peer, and what that lacks a login may give.
    let logged_out = slot.is_some_and(|slot| module.tokens.role(slot).is_none());
    match error.reason() {
        Some("NOT_FOUND" | "PERMISSION_DENIED" | "ROLE_MISSING" | "UNAUTHENTICATED")
            if logged_out =>
        {
            Rv(CKR_USER_NOT_LOGGED_IN)
        }
        _ => Rv::from(error),
    }
}

/// Tokens that one thread works with at the same time without opening streams anew.
const STREAMS_MAX: usize = 16;
