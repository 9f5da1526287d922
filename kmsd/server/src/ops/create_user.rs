//! CreateUser: enrols a person or program.

use std::collections::BTreeSet;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::credential::{Credential, Proof};
use kms_core::id::{Home, PrincipalKind, PrincipalName, Resource};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_core::rights::Grant;
use kms_proto::v1;
use tokio::sync::OwnedMutexGuard;

use super::enrolment::{CREDENTIALS_MAX, check_grants, holding, refuse_ended, refuse_held};
use super::is_retry;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::identity;
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Stored, User, UserState, user_place};
use crate::wire::{certificate_digest, grant, invalid, parse, user_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CreateUser {
    name: PrincipalName,
    proofs: Vec<Proof>,
    grants: Vec<Grant>,
}

/// The user that an earlier attempt of this very request made, and the turn to make one.
#[derive(Debug)]
pub(crate) struct UserFacts {
    existing: Option<Stored<User>>,
    _turn: OwnedMutexGuard<()>,
}

impl Operation for CreateUser {
    type Wire = v1::CreateUserRequest;
    type Facts = UserFacts;
    type Prepared = Stored<User>;
    type Reply = v1::CreateUserResponse;

    const ACTION: Action = Action::CreateUser;

    fn parse(wire: v1::CreateUserRequest, home: &Home) -> Result<Self, Refusal> {
        let wire = wire.user.ok_or_else(|| invalid("user", "expected the user to be enrolled"))?;
        let v1::User {
            name,
            ssh_keys,
            certificate_digests,
            unix_uids,
            grants,
            etag: _,
            credentials: _,
            state: _,
            create_time: _,
        } = wire;
        let lists = [ssh_keys.len(), certificate_digests.len(), unix_uids.len()];
        if lists.iter().any(|length| *length > CREDENTIALS_MAX) {
            return Err(invalid("user", format!("at most {CREDENTIALS_MAX} of each credential")));
        }
        let mut proofs: Vec<Proof> = Vec::new();
        for key in &ssh_keys {
            proofs.push(Proof::SshKey(Box::new(parse("ssh_keys", key)?)));
        }
        for digest in &certificate_digests {
            proofs.push(Proof::X509Digest(certificate_digest("certificate_digests", digest)?));
        }
        proofs.extend(unix_uids.into_iter().map(Proof::UnixUid));
        // The same one twice is the same one.
        let mut seen = BTreeSet::new();
        proofs.retain(|proof| seen.insert(proof.digest()));
        let name: PrincipalName = parse("user.name", &name)?;
        let mut held = BTreeSet::new();
        if proofs.iter().flat_map(|proof| proof.held_by(&name)).any(|one| !held.insert(one)) {
            return Err(invalid("ssh_keys", "one authority knows a principal by one name once"));
        }
        let user = Self {
            name,
            proofs,
            grants: grants.iter().map(|wire| grant(wire, home)).collect::<Result<_, _>>()?,
        };
        check_grants(&user.grants)?;
        if identity::is_reserved(&user.name) {
            return Err(invalid("user.name", "names like this are given by the daemon alone"));
        }
        if user.name.kind == PrincipalKind::Workload {
            return Err(invalid("user.name", "workloads are not enrolled; they prove themselves"));
        }
        Ok(user)
    }

    fn request_id(wire: &v1::CreateUserRequest) -> &[u8] {
        &wire.request_id
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        stamp: &Stamp,
    ) -> Result<Self::Facts, Early> {
        let turn = cx.directory_turn().await;
        let existing = rows::load::<User>(cx, &user_place(&self.name)).await?;
        if existing.is_some() && !is_retry(cx, stamp.idempotency).await? {
            return Err(Refusal::AlreadyExists.into());
        }
        Ok(UserFacts { existing, _turn: turn })
    }

    fn named(&self) -> Resource {
        Resource::User(self.name.clone())
    }

    fn resource(&self, _facts: &Self::Facts) -> Resource {
        self.named()
    }

    fn subject<'a>(&self, _existing: &'a Self::Facts) -> Subject<'a> {
        Subject::Plain
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        facts: &Self::Facts,
    ) -> Result<(Self::Prepared, Vec<Draft>), Early> {
        if let Some(user) = &facts.existing {
            return Ok((user.clone(), Vec::new()));
        }
        // Only now, after the decision: the answer tells who else holds a credential.
        refuse_held(cx, &self.name, &self.proofs)?;
        refuse_ended(&self.grants, stamp.now)?;
        let added = self.proofs.iter().cloned();
        let value = User {
            name: self.name.clone(),
            credentials: added.map(|proof| Credential::new(proof, stamp.now)).collect(),
            grants: self.grants.clone(),
            state: UserState::Active,
            created_at: stamp.now,
        };
        let vault = cx.vault()?;
        let draft = rows::create(&vault, &stamp.operation_id, &value, &[])?;
        let etag = draft.etag.clone();
        let mut drafts = vec![draft];
        for proof in &self.proofs {
            drafts.extend(holding(&vault, stamp, proof, &self.name)?);
        }
        Ok((Stored { value, sealed: Vec::new(), revision: 1, etag }, drafts))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        // With the turn in it, until everybody can see what was changed.
        _facts: Self::Facts,
        user: Self::Prepared,
        audit: v1::AuditReference,
    ) -> Result<v1::CreateUserResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
        let shown = user_out(&user, stamp.now);
        cx.remember_user(user);
        Ok(v1::CreateUserResponse { user: Some(shown), audit: Some(audit) })
    }
}
