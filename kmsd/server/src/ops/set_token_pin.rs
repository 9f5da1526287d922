//! SetTokenPin: a ring's user or security-officer PIN.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, RingName};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_crypto::pin;
use kms_proto::v1;
use secrecy::{ExposeSecret, SecretString};

use super::load_ring;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Pin, PinRole, Stored};
use crate::wire::{invalid, ring_name};

/// The parsed request.
pub(crate) struct SetTokenPin {
    ring: RingName,
    role: PinRole,
    pin: SecretString,
}

/// Whether the ring is there, and the PIN that is set now.
#[derive(Debug)]
pub(crate) struct PinFacts {
    ring_exists: bool,
    before: Option<Stored<Pin>>,
}

impl Operation for SetTokenPin {
    type Wire = v1::SetTokenPinRequest;
    type Facts = PinFacts;
    type Prepared = ();
    type Reply = v1::SetTokenPinResponse;

    const ACTION: Action = Action::SetTokenPin;

    fn parse(wire: v1::SetTokenPinRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::SetTokenPinRequest { ring, role, pin } = wire;
        let pin = SecretString::from(pin);
        if !(PIN_BYTES_MIN..=PIN_BYTES_MAX).contains(&pin.expose_secret().len()) {
            return Err(invalid(
                "pin",
                format!("expected {PIN_BYTES_MIN} to {PIN_BYTES_MAX} bytes"),
            ));
        }
        Ok(Self { ring: ring_name("ring", &ring, home)?, role: pin_role(role)?, pin })
    }

    fn named(&self) -> Resource {
        Resource::Ring(self.ring.clone())
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<PinFacts, Early> {
        let ring_exists = load_ring(cx, &self.ring).await?.is_some();
        let before = rows::load(cx, &rows::pin_place(&self.ring, self.role)).await?;
        Ok(PinFacts { ring_exists, before })
    }

    fn resource(&self, _facts: &PinFacts) -> Resource {
        self.named()
    }

    fn subject<'a>(&self, facts: &'a PinFacts) -> Subject<'a> {
        if facts.ring_exists { Subject::Plain } else { Subject::Absent }
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        facts: &PinFacts,
    ) -> Result<((), Vec<Draft>), Early> {
        let secret = self.pin.clone();
        let cost = cx.pin_cost;
        let hash = cx.pins.run(move || pin::hash_pin(&secret, cost)).await;
        let phc = hash.ok_or(Failure::Bug("the PIN worker ended"))??;
        let pin = Pin { ring: self.ring.clone(), role: self.role, phc };
        let vault = cx.vault()?;
        let draft = match &facts.before {
            Some(before) => rows::replace(&vault, &stamp.operation_id, &pin, &[], before)?,
            None => rows::create(&vault, &stamp.operation_id, &pin, &[])?,
        };
        Ok(((), vec![draft]))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _facts: PinFacts,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<v1::SetTokenPinResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
        cx.end_logins();
        Ok(v1::SetTokenPinResponse { audit: Some(audit) })
    }
}

/// Reads whose PIN it is.
pub(crate) fn pin_role(number: i32) -> Result<PinRole, Refusal> {
    match v1::PinRole::try_from(number) {
        Ok(v1::PinRole::SecurityOfficer) => Ok(PinRole::SecurityOfficer),
        Ok(v1::PinRole::User) => Ok(PinRole::User),
        Ok(v1::PinRole::Unspecified) | Err(_) => {
            Err(invalid("role", "expected USER or SECURITY_OFFICER"))
        }
    }
}

/// Whose PIN it is, for the wire.
pub(crate) const fn pin_role_out(role: PinRole) -> v1::PinRole {
    match role {
        PinRole::SecurityOfficer => v1::PinRole::SecurityOfficer,
        PinRole::User => v1::PinRole::User,
    }
}

const PIN_BYTES_MIN: usize = 8;
const PIN_BYTES_MAX: usize = 255;
