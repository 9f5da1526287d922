//! ListTokens: the key rings as a PKCS#11 module sees them before login.

use kms_core::action::Action;
use kms_core::caller::{Caller, Role};
use kms_core::id::{Digest, Home, PrincipalKind, Resource};
use kms_core::key::Ring;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::reading::Read;
use super::set_token_pin::pin_role_out;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pin::{PinFailures, prefix};
use crate::rows::{self, Pin, PinRole, Stored};
use crate::wire::{PAGE_SIZE_MAX, mechanism_out, ring_kind_out, time_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ListTokens;

impl Read for ListTokens {
    type Wire = v1::ListTokensRequest;
    type Facts = Vec<v1::Token>;
    type Reply = v1::ListTokensResponse;

    const ACTION: Action = Action::ListTokens;

    fn parse(_wire: v1::ListTokensRequest, _home: &Home) -> Result<Self, Refusal> {
        Ok(Self)
    }

    async fn load(&self, cx: &Context, caller: &Caller) -> Result<Vec<v1::Token>, Early> {
        if !may_log_in(caller) {
            return Ok(Vec::new());
        }
        let mut tokens = Vec::new();
        for (_, ring) in rows::scan::<Ring>(cx, rows::RINGS, None, PAGE_SIZE_MAX).await? {
            tokens.push(token(cx, caller, &ring).await?);
        }
        Ok(tokens)
    }

    async fn reply(
        self,
        _cx: &Context,
        tokens: Vec<v1::Token>,
        audit: v1::AuditReference,
    ) -> Result<v1::ListTokensResponse, Failure> {
        Ok(v1::ListTokensResponse { tokens, audit: Some(audit) })
    }
}

async fn token(cx: &Context, caller: &Caller, ring: &Stored<Ring>) -> Result<v1::Token, Early> {
    let (name, policy) = (&ring.value.name, &ring.value.policy);
    let pin = cx.store.get(&rows::pin_place(name, PinRole::User)).await?;
    let serial = Digest::of(&[b"pkcs11-serial", name.to_string().as_bytes()]).to_string();
    Ok(v1::Token {
        name: name.to_string(),
        label: name.ring.to_string(),
        serial: serial.get(..16).unwrap_or_default().to_owned(),
        user_pin_set: pin.is_some(),
        kind: ring_kind_out(policy.kind).into(),
        mechanisms: Mechanism::ALL
            .iter()
            .filter(|mechanism| policy.takes(**mechanism).is_ok())
            .filter(|mechanism| !cx.approved_only || mechanism.is_approved())
            .map(|mechanism| mechanism_out(*mechanism))
            .collect(),
        approved_only: cx.approved_only,
        pin_locks: pin_locks(cx, caller, ring).await?,
    })
}

/// Who has to wait with a PIN of the ring, or is locked out: for those who can do something about it, and
/// those who read everything.
async fn pin_locks(
    cx: &Context,
    caller: &Caller,
    ring: &Stored<Ring>,
) -> Result<Vec<v1::PinLock>, Early> {
    let (name, now) = (&ring.value.name, cx.now());
    let told = [Role::SecurityOfficer, Role::Auditor];
    if caller.role_over(&told, &Resource::Ring(name.clone()), now).is_none() {
        return Ok(Vec::new());
    }
    let mut locks = Vec::new();
    for (_, counted) in rows::scan::<PinFailures>(cx, &prefix(name), None, PAGE_SIZE_MAX).await? {
        let PinFailures { ring: _, role, unknown: _, peer, pin_revision, tries } = counted.value;
        let pin = rows::load::<Pin>(cx, &rows::pin_place(name, role)).await?;
        // Another PIN has forgiven those of the one before.
        let of_this_pin = pin.map_or(0, |pin| pin.revision) == pin_revision;
        if let Some(retry_at) = tries.waits(now).filter(|_| of_this_pin) {
            let retry_time = retry_at.and_then(time_out);
            locks.push(v1::PinLock { role: pin_role_out(role).into(), peer, retry_time });
        }
    }
    Ok(locks)
}

/// Whether a PIN or passphrase is taken from this caller: from local users and from certificates
/// that the client authority vouches for, not from the self-signed ones of workloads.
pub(crate) fn may_log_in(caller: &Caller) -> bool {
    caller.principal().kind != PrincipalKind::Workload
}
