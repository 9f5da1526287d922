//! Operations that change somebody who is enrolled: what is the same for all of them.
//!
//! Whoever changes the directory has the turn until the change is in it, so that what must hold of several users at
//! once holds: a credential has one holder, and somebody is left who can enrol people.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::credential::{Proof, Revocation};
use kms_core::id::{Home, PrincipalName, Resource, Timestamp};
use kms_core::lifecycle::CompromiseReason;
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_core::rights::Grant;
use kms_crypto::vault::Vault;
use kms_proto::v1;
use prost::Message;
use tokio::sync::OwnedMutexGuard;

use super::is_retry;
use super::writing::At;
use crate::context::Context;
use crate::directory::{Directory, is_lasting_officer};
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Holding, Stored, User, UserState, user_place};
use crate::wire::{invalid, user_out};

/// An operation that changes the row of one user.
pub(crate) trait Enrol: Send + Sync + Sized {
    /// The request on the wire.
    type Wire: Message + Send;
    /// The response on the wire.
    type Reply: Send;

    /// Which operation this is.
    const ACTION: Action;
    /// The field that says of whom, if that is somebody who gets more than before: nobody does that to themselves.
    const RAISES: Option<&'static str>;

    /// Reads the request into a type that cannot be wrong.
    fn parse(wire: Self::Wire, home: &Home) -> Result<Self, Refusal>;

    /// The caller's name for this request.
    fn request_id(wire: &Self::Wire) -> &[u8];

    /// Whom it changes, and the state in which the caller saw that.
    fn at(&self) -> &At<PrincipalName>;

    /// What the request acts on.
    fn resource(&self) -> Resource {
        Resource::User(self.at().name.clone())
    }

    /// Makes the change. One that changes nothing is done already.
    ///
    /// # Errors
    /// The refusal, which goes through the one decision.
    fn change(&self, user: &mut User, now: Timestamp) -> Result<(), Refusal>;

    /// Makes the response.
    fn reply(user: v1::User, audit: v1::AuditReference) -> Self::Reply;
}

/// Runs an [`Enrol`] through the pipeline.
#[derive(Debug)]
pub(crate) struct Enrolling<E>(E);

/// Who is to be changed, if it is there.
#[derive(Debug)]
pub(crate) struct Facts {
    found: Option<Stored<User>>,
    /// Whether an earlier attempt of this very request changed it.
    is_retry: bool,
    _turn: OwnedMutexGuard<()>,
}

impl<E: Enrol> Operation for Enrolling<E> {
    type Wire = E::Wire;
    type Facts = Facts;
    type Prepared = Stored<User>;
    type Reply = E::Reply;

    const ACTION: Action = E::ACTION;

    fn parse(wire: E::Wire, home: &Home) -> Result<Self, Refusal> {
        E::parse(wire, home).map(Self)
    }

    fn request_id(wire: &E::Wire) -> &[u8] {
        E::request_id(wire)
    }

    fn named(&self) -> Resource {
        self.0.resource()
    }

    async fn load(&self, cx: &Context, caller: &Caller, stamp: &Stamp) -> Result<Facts, Early> {
        let At { name, etag } = self.0.at();
        if let Some(field) = E::RAISES.filter(|_| caller.principal() == name) {
            let problem = "nobody raises themselves; another security officer can do this";
            return Err(invalid(field, problem).into());
        }
        let turn = cx.directory_turn().await;
        let is_retry = is_retry(cx, stamp.idempotency).await?;
        let found = rows::load::<User>(cx, &user_place(name)).await?;
        let there = |user: &Stored<User>| is_retry || user.value.state != UserState::Deleted;
        let found = found.filter(there);
        let moved = found.as_ref().is_some_and(|found| found.etag != *etag);
        if moved && !etag.is_empty() && !is_retry {
            return Err(Refusal::Stale.into());
        }
        Ok(Facts { found, is_retry, _turn: turn })
    }

    fn resource(&self, _facts: &Facts) -> Resource {
        self.0.resource()
    }

    fn subject<'a>(&self, facts: &'a Facts) -> Subject<'a> {
        facts.found.as_ref().map_or(Subject::Absent, |_| Subject::Plain)
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        facts: &Facts,
    ) -> Result<(Stored<User>, Vec<Draft>), Early> {
        let before = facts.found.as_ref().ok_or(super::ABSENT)?;
        let mut value = before.value.clone();
        if !facts.is_retry {
            self.0.change(&mut value, stamp.now)?;
        }
        if value == before.value {
            return Ok((before.clone(), Vec::new()));
        }
        let was_officer = is_lasting_officer(&before.value) && !is_lasting_officer(&value);
        if was_officer && !cx.directory().has_another_officer(&value.name) {
            return Err(Refusal::LastOfficer.into());
        }
        let vault = cx.vault()?;
        let draft = rows::replace(&vault, &stamp.operation_id, &value, &[], before)?;
        let etag = draft.etag.clone();
        let mut drafts = vec![draft];
        for credential in
            value.credentials.get(before.value.credentials.len()..).unwrap_or_default()
        {
            refuse_held(cx, &value.name, std::slice::from_ref(&credential.proof))?;
            drafts.extend(holding(&vault, stamp, &credential.proof, &value.name)?);
        }
        let revision = before.revision + 1;
        Ok((Stored { value, sealed: Vec::new(), revision, etag }, drafts))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        // With the turn in it, until everybody can see what was changed.
        _facts: Facts,
        user: Stored<User>,
        audit: v1::AuditReference,
    ) -> Result<E::Reply, Failure> {
        let _spent = recorded.spend(E::ACTION, &self.0.resource(), &stamp.request_digest)?;
        let shown = user_out(&user, stamp.now);
        cx.remember_user(user);
        Ok(E::reply(shown, audit))
    }
}

/// One credential is one principal: a key under two names could approve twice, a certificate or local user under two
/// names would be whoever is found first. One that was revoked is nobody's for good.
///
/// # Errors
/// [`Refusal::CredentialRevoked`], or [`Refusal::InvalidArgument`] with the holder.
pub(super) fn refuse_held(
    cx: &Context,
    name: &PrincipalName,
    proofs: &[Proof],
) -> Result<(), Refusal> {
    let directory = cx.directory();
    for proof in proofs {
        refuse_other_form(&directory, proof)?;
        let held = proof.held_by(name);
        let Some(holder) = held.iter().find_map(|digest| directory.holder_of(digest)) else {
            continue;
        };
        let credential = holder.user().credential(proof);
        if credential.is_some_and(|credential| credential.revoked.is_some()) {
            return Err(Refusal::CredentialRevoked);
        }
        let problem = format!("{} already has one of these credentials", holder.user().name);
        return Err(invalid("user", problem));
    }
    Ok(())
}

/// One SSH key is a person's or an authority's, never both: whoever held it could make approvers of others' names
/// out of himself. And what was revoked does not come back in another form.
fn refuse_other_form(directory: &Directory, proof: &Proof) -> Result<(), Refusal> {
    let Proof::SshKey(ssh) = proof else { return Ok(()) };
    for user in directory.users() {
        for credential in &user.credentials {
            let Proof::SshKey(other) = &credential.proof else { continue };
            if other.point() != ssh.point() {
                continue;
            }
            // An authority that somebody was let go with is as good as before for others.
            let is_left = |revoked: &Revocation| {
                other.key().is_none() && revoked.reason == CompromiseReason::CessationOfOperation
            };
            if credential.revoked.is_some_and(|revoked| !is_left(&revoked)) {
                return Err(Refusal::CredentialRevoked);
            }
            if other.key().is_some() != ssh.key().is_some() {
                let problem = format!("{} has this key in another form", user.name);
                return Err(invalid("user", problem));
            }
        }
    }
    Ok(())
}

/// A grant that has ended already would grant nothing, which nobody means.
///
/// # Errors
/// [`Refusal::InvalidArgument`].
pub(super) fn refuse_ended(grants: &[Grant], now: Timestamp) -> Result<(), Refusal> {
    if grants.iter().any(|grant| grant.expires_at.is_some_and(|end| end <= now)) {
        return Err(invalid("grant.expire_time", TO_COME));
    }
    Ok(())
}

/// Whether that many can be held, each once.
///
/// # Errors
/// [`Refusal::InvalidArgument`].
pub(super) fn check_grants(grants: &[Grant]) -> Result<(), Refusal> {
    if grants.len() > GRANTS_MAX {
        return Err(invalid("grants", format!("at most {GRANTS_MAX} roles of one principal")));
    }
    let twice = |(at, grant): (usize, &Grant)| {
        grants.get(..at).is_some_and(|earlier| earlier.iter().any(|one| one.is_same_binding(grant)))
    };
    match grants.iter().enumerate().any(twice) {
        true => Err(invalid("grants", "the same role over the same thing twice")),
        false => Ok(()),
    }
}

/// Drafts that `holder` holds `proof`, and nobody else ever does.
///
/// # Errors
/// When the cryptography fails.
pub(super) fn holding(
    vault: &Vault,
    stamp: &Stamp,
    proof: &Proof,
    holder: &PrincipalName,
) -> Result<Vec<Draft>, Failure> {
    let held = proof.held_by(holder).into_iter();
    held.map(|digest| {
        let holding = Holding { digest, holder: holder.clone() };
        rows::create(vault, &stamp.operation_id, &holding, &[])
    })
    .collect()
}

/// Most credentials of one kind at enrolment, and most of one principal that are in force.
pub(super) const CREDENTIALS_MAX: usize = 32;
/// Most credentials that one principal ever has: those that were revoked stay.
pub(super) const CREDENTIALS_EVER_MAX: usize = 256;
/// Most roles of one principal.
pub(super) const GRANTS_MAX: usize = 256;
pub(super) const TO_COME: &str = "expected a time to come";
