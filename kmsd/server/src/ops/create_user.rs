//! CreateUser: enrols a person or program.

use std::collections::BTreeSet;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Digest, Home, PrincipalKind, Resource};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_proto::v1;

use super::is_retry;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::identity;
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Credential, Draft, Record, Stored, User};
use crate::wire::{grant, invalid, parse, user_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CreateUser(User);

impl Operation for CreateUser {
    type Wire = v1::CreateUserRequest;
    /// The user that an earlier attempt of this very request made.
    type Facts = Option<Stored<User>>;
    type Prepared = Stored<User>;
    type Reply = v1::CreateUserResponse;

    const ACTION: Action = Action::CreateUser;

    fn parse(wire: v1::CreateUserRequest, home: &Home) -> Result<Self, Refusal> {
        let wire = wire.user.ok_or_else(|| invalid("user", "expected the user to be enrolled"))?;
        let v1::User { name, ssh_keys, certificate_digests, unix_uids, grants, etag: _ } = wire;
        let lists = [ssh_keys.len(), certificate_digests.len(), unix_uids.len(), grants.len()];
        if lists.iter().any(|length| *length > CREDENTIALS_MAX) {
            return Err(invalid("user", format!("at most {CREDENTIALS_MAX} of each credential")));
        }
        let digest = |bytes: &Vec<u8>| {
            let problem = |_| invalid("certificate_digests", "expected SHA-256 digests, 32 bytes");
            Digest::try_from(bytes.as_slice()).map_err(problem)
        };
        let user = User {
            name: parse("user.name", &name)?,
            ssh_keys: ssh_keys
                .iter()
                .map(|key| parse("ssh_keys", key))
                .collect::<Result<_, _>>()?,
            certificate_digests: certificate_digests
                .iter()
                .map(digest)
                .collect::<Result<_, _>>()?,
            unix_uids,
            grants: grants.iter().map(|wire| grant(wire, home)).collect::<Result<_, _>>()?,
        };
        if identity::is_reserved(&user.name) {
            return Err(invalid("user.name", "names like this are given by the daemon alone"));
        }
        if user.name.kind == PrincipalKind::Workload {
            return Err(invalid("user.name", "workloads are not enrolled; they prove themselves"));
        }
        Ok(Self(user))
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
        let existing = rows::load::<User>(cx, &self.0.place()).await?;
        if existing.is_some() && !is_retry(cx, stamp.idempotency).await? {
            return Err(Refusal::AlreadyExists.into());
        }
        Ok(existing)
    }

    fn resource(&self, _existing: &Self::Facts) -> Resource {
        Resource::Appliance
    }

    fn subject<'a>(&self, _existing: &'a Self::Facts) -> Subject<'a> {
        Subject::Plain
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        existing: &Self::Facts,
    ) -> Result<(Self::Prepared, Vec<Draft>), Early> {
        if let Some(user) = existing {
            return Ok((user.clone(), Vec::new()));
        }
        // Only now, after the decision: the answer tells who else holds a credential.
        refuse_shared_credentials(cx, &self.0)?;
        let vault = cx.vault()?;
        let draft = rows::create(&vault, &stamp.operation_id, &self.0, &[])?;
        let (value, etag) = (self.0.clone(), draft.etag.clone());
        let stored = Stored { value, sealed: Vec::new(), revision: 1, etag };
        let mut drafts = vec![draft];
        for digest in credentials(&self.0) {
            let credential = Credential { digest, holder: self.0.name.clone() };
            drafts.push(rows::create(&vault, &stamp.operation_id, &credential, &[])?);
        }
        Ok((stored, drafts))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _existing: Self::Facts,
        user: Self::Prepared,
        audit: v1::AuditReference,
    ) -> Result<v1::CreateUserResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &Resource::Appliance, &stamp.request_digest)?;
        let shown = user_out(&user);
        cx.remember_user(user);
        Ok(v1::CreateUserResponse { user: Some(shown), audit: Some(audit) })
    }
}

/// One credential is one principal: a key under two names could approve twice, a certificate or
/// local user under two names would be whoever is found first.
fn refuse_shared_credentials(cx: &Context, user: &User) -> Result<(), Refusal> {
    let (directory, held) = (cx.directory(), credentials(user));
    match directory.users().find(|other| !held.is_disjoint(&credentials(other))) {
        Some(other) => {
            Err(invalid("user", format!("{} already has one of these credentials", other.name)))
        }
        None => Ok(()),
    }
}

/// What logs a user in or signs for it, by digest.
fn credentials(user: &User) -> BTreeSet<Digest> {
    // Destructured so that a credential added to users cannot be left out.
    let User { name, ssh_keys, certificate_digests, unix_uids, grants: _ } = user;
    let ssh_keys = ssh_keys.iter().flat_map(|line| line.identities(name));
    let certificates = certificate_digests.iter().map(|d| Digest::of(&[b"x509", d.as_bytes()]));
    let uids = unix_uids.iter().map(|uid| Digest::of(&[b"uid", &uid.to_be_bytes()]));
    ssh_keys.chain(certificates).chain(uids).collect()
}

const CREDENTIALS_MAX: usize = 32;
