//! ListTokens: the key rings as a PKCS#11 module sees them before login.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Digest, Home, PrincipalKind};
use kms_core::key::Ring;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_proto::v1;

use super::reading::Read;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::rows::{self, PinRole, Stored};
use crate::wire::{PAGE_SIZE_MAX, mechanism_out, ring_kind_out};

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
            tokens.push(token(cx, &ring).await?);
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

async fn token(cx: &Context, ring: &Stored<Ring>) -> Result<v1::Token, Early> {
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
    })
}

/// Whether a PIN or passphrase is taken from this caller: from local users and from certificates
/// that the client authority vouches for, not from the self-signed ones of workloads.
pub(crate) fn may_log_in(caller: &Caller) -> bool {
    caller.principal().kind != PrincipalKind::Workload
}
