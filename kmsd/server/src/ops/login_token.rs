//! A PKCS#11 login: a ring's PIN over an authenticated channel, for the rest of one stream.
//!
//! What does not open looks alike, in what is answered, what is written and how long it takes: a wrong PIN,
//! any PIN of a peer that has to wait or is locked out, a PIN where none is set, and one for a ring that
//! is not there. Only the log says which it was, and ListTokens to those who set PINs.

use kms_core::action::Action;
use kms_core::caller::{Authentication, Caller, Role};
use kms_core::id::{Digest, Home, PrincipalKind, PrincipalName, Resource, RingName, Timestamp};
use kms_core::permit::{Grounds, Permit, Recorded, Refusal, Subject};
use kms_core::rights::{Grant, Scope};
use kms_core::tries::Tries;
use kms_crypto::unlock::Argon2Cost;
use kms_crypto::{CryptoError, pin};
use kms_proto::v1;
use kms_store::{Batch, Outcome};
use secrecy::SecretString;

use super::list_tokens::may_log_in;
use super::set_token_pin::pin_role;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::identity::PIN_PREFIX;
use crate::pin::{PinFailures, place};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Pin, PinRole, Record as _, Stored};
use crate::wire::ring_name;

/// The parsed request.
pub(crate) struct LoginToken {
    ring: RingName,
    role: PinRole,
    pin: SecretString,
}

/// A login that was granted: who the stream speaks for from now on.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) caller: Caller,
    pub(crate) response: v1::LoginTokenResponse,
}

/// The PIN that is set, and who tries it.
#[derive(Debug)]
pub(crate) struct LoginFacts {
    pin: Option<Stored<Pin>>,
    peer: String,
    ring_exists: bool,
}

impl Operation for LoginToken {
    type Wire = v1::LoginTokenRequest;
    type Facts = LoginFacts;
    type Prepared = ();
    type Reply = Login;

    const ACTION: Action = Action::LoginToken;

    fn parse(wire: v1::LoginTokenRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::LoginTokenRequest { ring, role, pin } = wire;
        let pin = SecretString::from(pin);
        Ok(Self { ring: ring_name("ring", &ring, home)?, role: pin_role(role)?, pin })
    }

    fn named(&self) -> Resource {
        Resource::Ring(self.ring.clone())
    }

    async fn load(
        &self,
        cx: &Context,
        caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<LoginFacts, Early> {
        if !may_log_in(caller) {
            return Err(Refusal::PinIncorrect.into());
        }
        let peer = caller.principal().to_string();
        let pin = rows::load(cx, &rows::pin_place(&self.ring, self.role)).await?;
        // What stands in the row does not matter, and reading it would take time.
        let ring_exists = cx.store.get(&rows::ring_place(&self.ring)).await?.is_some();
        Ok(LoginFacts { pin, peer, ring_exists })
    }

    fn resource(&self, _facts: &LoginFacts) -> Resource {
        self.named()
    }

    fn subject<'a>(&self, _facts: &'a LoginFacts) -> Subject<'a> {
        Subject::Plain
    }

    /// Checks the PIN. A try is counted, on disk, before it is hashed, so that neither a restart
    /// nor many tries at once get around the counter. Also a PIN that may not be tried is hashed, so that
    /// nobody hears from the time it takes that it may not.
    async fn grounds(
        &self,
        cx: &Context,
        _caller: &Caller,
        stamp: &Stamp,
        facts: &LoginFacts,
    ) -> Result<Grounds, Early> {
        let may_try = self.count_try(cx, stamp, facts).await?;
        let (secret, cost) = (self.pin.clone(), cx.pin_cost);
        let phc = facts.pin.as_ref().map(|pin| pin.value.phc.clone());
        let checked = cx.pins.run(move || check(&secret, phc.as_deref(), cost)).await;
        let is_right = checked.ok_or(Failure::Bug("the PIN worker ended"))??;
        match (may_try, is_right) {
            (true, true) => Ok(Grounds::default()),
            (true, false) => Err(Refusal::PinIncorrect.into()),
            (false, _) => Err(Refusal::PinLocked.into()),
        }
    }

    /// A right PIN forgives the wrong ones before it.
    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        facts: &LoginFacts,
    ) -> Result<((), Vec<Draft>), Early> {
        let counted = place(&self.ring, self.role, &facts.peer);
        let Some(counted) = rows::load::<PinFailures>(cx, &counted).await? else {
            return Ok(((), Vec::new()));
        };
        let forgiven = PinFailures { tries: Tries::default(), ..counted.value.clone() };
        let vault = cx.vault()?;
        let draft = rows::replace(&vault, &stamp.operation_id, &forgiven, &[], &counted)?;
        Ok(((), vec![draft]))
    }

    async fn perform(
        self,
        _cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _facts: LoginFacts,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<Login, Failure> {
        let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
        let response = v1::LoginTokenResponse { audit: Some(audit) };
        Ok(Login { caller: token_user(&self.ring, self.role)?, response })
    }
}

impl LoginToken {
    /// Counts a try, and says whether it may be made. The counter is written either way, so that both
    /// take as long; one that has to wait does not wait longer for having been asked.
    async fn count_try(
        &self,
        cx: &Context,
        stamp: &Stamp,
        facts: &LoginFacts,
    ) -> Result<bool, Early> {
        let first = PinFailures {
            ring: self.ring.clone(),
            role: self.role,
            unknown: !facts.ring_exists,
            peer: facts.peer.clone(),
            pin_revision: facts.pin.as_ref().map_or(0, |pin| pin.revision),
            tries: Tries::default(),
        };
        let _turn = cx.pins.counting().await;
        for _ in 0..COUNTED_ANEW_MAX {
            let before = rows::load::<PinFailures>(cx, &first.place()).await?;
            let same_pin = |counted: &&PinFailures| counted.pin_revision == first.pin_revision;
            let counted = before.as_ref().map(|stored| &stored.value).filter(same_pin);
            let Tried { may_try, tries } = tried(counted.unwrap_or(&first).tries, stamp.now);
            let counted = PinFailures { tries, ..first.clone() };
            let vault = cx.vault()?;
            let draft = match &before {
                Some(before) => rows::replace(&vault, &stamp.operation_id, &counted, &[], before)?,
                None => rows::create(&vault, &stamp.operation_id, &counted, &[])?,
            };
            let (conditions, writes) = (vec![draft.condition], Vec::from_iter(draft.write));
            match cx.store.commit(Batch { conditions, writes, ..Batch::default() }).await? {
                Outcome::Committed(_) => return Ok(may_try),
                // A right PIN of the same peer has forgiven meanwhile.
                Outcome::Conflict(_) => {}
                Outcome::Unknown => return Err(Failure::Unknown.into()),
            }
        }
        Err(Refusal::Stale.into())
    }
}

/// A try at `now`, and the counter after it.
struct Tried {
    may_try: bool,
    tries: Tries,
}

fn tried(before: Tries, now: Timestamp) -> Tried {
    let may_try = before.may_try(now);
    Tried { may_try, tries: if may_try { before.after_wrong(now) } else { before } }
}

/// Checks a PIN; where none is set, does the same work and says no.
fn check(pin: &SecretString, phc: Option<&str>, cost: Argon2Cost) -> Result<bool, CryptoError> {
    match phc {
        Some(phc) => pin::verify_pin(pin, phc),
        None => pin::burn(cost).map(|()| false),
    }
}

/// Who a PIN login speaks for: the ring's users make and use its keys, its officer sets its PINs.
fn token_user(ring: &RingName, role: PinRole) -> Result<Caller, Failure> {
    let unnamed = |_| Failure::Bug("a token user without a name");
    let readable = format!("{PIN_PREFIX}{}.{}", ring.ring, role.as_str()).parse();
    // A long ring name leaves no room; its digest names the user then.
    let name = readable.or_else(|_| {
        let digest = Digest::of(&[ring.to_string().as_bytes(), role.as_str().as_bytes()]);
        format!("{PIN_PREFIX}{:.32}", digest.to_string()).parse()
    });
    let principal = PrincipalName { kind: PrincipalKind::App, name: name.map_err(unnamed)? };
    let roles: &[Role] = match role {
        PinRole::SecurityOfficer => &[Role::SecurityOfficer],
        PinRole::User => &[Role::CryptoUser, Role::KeyManager],
    };
    let grants = roles.iter().map(|role| Grant::over(*role, Scope::Ring(ring.clone()))).collect();
    Ok(Caller::authenticated(principal, Authentication::Pin, grants))
}

/// How often a try is counted anew when its counter has changed meanwhile.
const COUNTED_ANEW_MAX: usize = 8;
