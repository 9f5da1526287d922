//! The tokens, which are the daemon's key rings, and who is logged in to them.
//!
//! A slot keeps its number until `C_Finalize`; a ring that appears later gets the next one. Login is
//! the state of the whole application (PKCS#11 v3.1 §5.6.8): the PIN is kept, wiped when it is
//! dropped, to log in the streams of other threads and those that replace broken ones.

use std::sync::{Arc, Mutex};

use cryptoki_sys::*;
use kms_proto::v1;
use zeroize::Zeroizing;

use crate::module::lock;
use crate::rv::{HOSTILE, Result, Rv};

/// All tokens that were ever listed.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<Table>);

#[derive(Default)]
struct Table {
    tokens: Vec<Token>,
    logins: u64,
    listed: bool,
}

/// What is known of a token.
#[derive(Clone)]
pub(crate) struct Token {
    /// The name of the key ring.
    pub(crate) ring: String,
    pub(crate) label: String,
    pub(crate) serial: String,
    pub(crate) user_pin_set: bool,
    /// Whether old clients are let do what the standard allows.
    pub(crate) compatible: bool,
    /// What keys of the ring may be used with.
    pub(crate) mechanisms: Vec<v1::Mechanism>,
    /// Whether keys are made of approved algorithms only.
    pub(crate) approved_only: bool,
    login: Option<Login>,
}

/// Who is logged in.
#[derive(Clone)]
pub(crate) struct Login {
    /// Grows with every login, so that a stream knows whether its own is still the one.
    pub(crate) number: u64,
    pub(crate) role: v1::PinRole,
    pub(crate) pin: Arc<Zeroizing<String>>,
}

impl Tokens {
    /// Takes over the daemon's list.
    pub(crate) fn refresh(&self, listed: Vec<v1::Token>) -> Result<()> {
        if listed.len() > TOKENS_MAX {
            return Err(HOSTILE);
        }
        let mut table = lock(&self.0);
        for wire in listed {
            let compatible = wire.kind() == v1::RingKind::Compatible;
            let v1::Token {
                name,
                label,
                serial,
                user_pin_set,
                kind: _,
                mechanisms,
                approved_only,
                // For people who set PINs. CK_TOKEN_INFO has flags for it, but says nothing of peers.
                pin_locks: _,
            } = wire;
            if name.len() > NAME_BYTES_MAX
                || mechanisms.len() > MECHANISMS_MAX
                || table.tokens.len() >= TOKENS_MAX
            {
                return Err(HOSTILE);
            }
            let mechanisms = known_mechanisms(mechanisms);
            let found = table.tokens.iter_mut().find(|token| token.ring == name);
            match found {
                Some(token) => {
                    // Name, label and serial number never change.
                    token.user_pin_set = user_pin_set;
                    token.compatible = compatible;
                    token.mechanisms = mechanisms;
                    token.approved_only = approved_only;
                }
                None => table.tokens.push(Token {
                    ring: name,
                    label,
                    serial,
                    user_pin_set,
                    compatible,
                    mechanisms,
                    approved_only,
                    login: None,
                }),
            }
        }
        table.listed = true;
        Ok(())
    }

    /// Whether the daemon's list was read before.
    pub(crate) fn is_listed(&self) -> bool {
        lock(&self.0).listed
    }

    /// The slots, all of which have a token.
    pub(crate) fn slots(&self) -> Vec<CK_SLOT_ID> {
        (0..lock(&self.0).tokens.len() as CK_SLOT_ID).collect()
    }

    /// The token in a slot.
    pub(crate) fn token(&self, slot: CK_SLOT_ID) -> Result<Token> {
        self.with(slot, |token| token.clone())
    }

    /// Who is logged in to the token in a slot.
    pub(crate) fn login(&self, slot: CK_SLOT_ID) -> Option<Login> {
        self.with(slot, |token| token.login.clone()).ok().flatten()
    }

    /// The role that is logged in.
    pub(crate) fn role(&self, slot: CK_SLOT_ID) -> Option<v1::PinRole> {
        self.with(slot, |token| token.login.as_ref().map(|login| login.role)).ok().flatten()
    }

    /// Whether the normal user is logged in.
    pub(crate) fn is_user(&self, slot: CK_SLOT_ID) -> bool {
        self.role(slot) == Some(v1::PinRole::User)
    }

    /// Takes note of a login that the daemon has accepted.
    pub(crate) fn log_in(
        &self,
        slot: CK_SLOT_ID,
        role: v1::PinRole,
        pin: Zeroizing<String>,
    ) -> Result<u64> {
        let mut table = lock(&self.0);
        table.logins += 1;
        let number = table.logins;
        let token = table.token_mut(slot)?;
        if token.login.is_some() {
            return Err(Rv(CKR_USER_ALREADY_LOGGED_IN));
        }
        token.login = Some(Login { number, role, pin: Arc::new(pin) });
        Ok(number)
    }

    /// Forgets the login of a slot and its PIN.
    pub(crate) fn log_out(&self, slot: CK_SLOT_ID) -> Result<()> {
        let taken = self.with(slot, |token| token.login.take())?;
        taken.map(drop).ok_or(Rv(CKR_USER_NOT_LOGGED_IN))
    }

    /// Forgets one login whose PIN the daemon no longer takes, and no later one.
    pub(crate) fn forget(&self, slot: CK_SLOT_ID, number: u64) {
        // A slot that is unknown has nothing to forget.
        let _ = self.with(slot, |token| token.login.take_if(|login| login.number == number));
    }

    fn with<R>(&self, slot: CK_SLOT_ID, read: impl FnOnce(&mut Token) -> R) -> Result<R> {
        lock(&self.0).token_mut(slot).map(read)
    }
}

impl Table {
    fn token_mut(&mut self, slot: CK_SLOT_ID) -> Result<&mut Token> {
        let index = usize::try_from(slot).map_err(|_| Rv(CKR_SLOT_ID_INVALID))?;
        self.tokens.get_mut(index).ok_or(Rv(CKR_SLOT_ID_INVALID))
    }
}

/// Those of the daemon's mechanisms that this module knows; a newer daemon has more.
pub(crate) fn known_mechanisms(numbers: Vec<i32>) -> Vec<v1::Mechanism> {
    numbers.into_iter().filter_map(|number| v1::Mechanism::try_from(number).ok()).collect()
}

/// Many times what there is.
pub(crate) const MECHANISMS_MAX: usize = 1000;

const TOKENS_MAX: usize = 10_000;
const NAME_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> Vec<v1::Token> {
        names.iter().map(|name| v1::Token { name: (*name).into(), ..Default::default() }).collect()
    }

    #[test]
    fn slots_keep_their_numbers_when_rings_come_and_go() {
        let tokens = Tokens::default();
        tokens.refresh(listed(&["b", "c"])).unwrap();
        tokens.refresh(listed(&["a", "c"])).unwrap();
        let rings: Vec<_> =
            tokens.slots().into_iter().map(|slot| tokens.token(slot).unwrap().ring).collect();
        assert_eq!(rings, ["b", "c", "a"]);
        assert_eq!(tokens.token(3).err(), Some(Rv(CKR_SLOT_ID_INVALID)));
    }

    #[test]
    fn forgetting_an_old_login_leaves_the_new_one() {
        let tokens = Tokens::default();
        tokens.refresh(listed(&["a"])).unwrap();
        let pin = || Zeroizing::new("1234".to_owned());
        let first = tokens.log_in(0, v1::PinRole::User, pin()).unwrap();
        assert_eq!(tokens.log_in(0, v1::PinRole::User, pin()), Err(Rv(CKR_USER_ALREADY_LOGGED_IN)));
        tokens.log_out(0).unwrap();
        assert_eq!(tokens.log_out(0), Err(Rv(CKR_USER_NOT_LOGGED_IN)));
        let second = tokens.log_in(0, v1::PinRole::User, pin()).unwrap();
        tokens.forget(0, first);
        assert!(tokens.is_user(0));
        tokens.forget(0, second);
        assert!(!tokens.is_user(0));
    }
}
