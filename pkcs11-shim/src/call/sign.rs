//! Signatures and message authentication codes: `C_SignInit` to `C_VerifyFinal`.
//!
//! Digests are made here, so a message may have any length and never leaves the program; only for
//! message authentication codes and signatures without a hash function the daemon needs the data.

use std::sync::Arc;

use cryptoki_sys::*;
use kms_proto::v1;

use crate::connection;
use crate::module::{self, Module};
use crate::object::{Class, Object};
use crate::output::{Output, Room, begin, last_step, next_step};
use crate::parameter::Mechanism;
use crate::rv::{HOSTILE, Result, Rv};
use crate::scheme::{Data, Input, Prepared, Scheme};

/// A running signature.
pub(crate) struct Signing(Running);

/// A running check.
pub(crate) struct Verifying(Running);

struct Running {
    object: Arc<Object>,
    scheme: Scheme,
    /// Taken by the last step.
    input: Option<Input>,
    updated: bool,
}

/// `C_SignInit`.
pub(crate) fn sign_init(
    handle: CK_SESSION_HANDLE,
    mechanism: Result<Option<Mechanism>>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    begin(&mut session.operations().sign, mechanism?, |mechanism| {
        let object = module.key(&session, key)?;
        let running = Running::new(&mechanism, CKF_SIGN, object);
        module.explained(mechanism.kind, running).map(Signing)
    })
}

/// `C_Sign`.
pub(crate) fn sign(
    handle: CK_SESSION_HANDLE,
    data: Result<&[u8]>,
    room: Result<Room>,
) -> Result<Output> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    last_step(&mut session.operations().sign, |Signing(running)| {
        let (data, room) = (data?, room?);
        running.single_part()?;
        room.give(running.scheme.length(&running.object)?, || {
            running.update(data)?;
            running.sign(&module)
        })
    })
}

/// `C_SignUpdate`.
pub(crate) fn sign_update(handle: CK_SESSION_HANDLE, data: Result<&[u8]>) -> Result<()> {
    let session = module::current()?.sessions.find(handle)?;
    next_step(&mut session.operations().sign, |Signing(running)| {
        running.updated = true;
        running.update(data?)
    })
}

/// `C_SignFinal`.
pub(crate) fn sign_final(handle: CK_SESSION_HANDLE, room: Result<Room>) -> Result<Output> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    last_step(&mut session.operations().sign, |Signing(running)| {
        let length = running.scheme.length(&running.object)?;
        room?.give(length, || running.sign(&module))
    })
}

/// `C_VerifyInit`.
pub(crate) fn verify_init(
    handle: CK_SESSION_HANDLE,
    mechanism: Result<Option<Mechanism>>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    begin(&mut session.operations().verify, mechanism?, |mechanism| {
        let object = module.key(&session, key)?;
        let running = Running::new(&mechanism, CKF_VERIFY, object);
        module.explained(mechanism.kind, running).map(Verifying)
    })
}

/// `C_Verify`. Whatever the outcome, the operation is over.
pub(crate) fn verify(
    handle: CK_SESSION_HANDLE,
    data: Result<&[u8]>,
    signature: Result<&[u8]>,
) -> Result<()> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    let running = session.operations().verify.take();
    let Verifying(mut running) = running.ok_or(Rv(CKR_OPERATION_NOT_INITIALIZED))?;
    let (data, signature) = (data?, signature?);
    running.single_part()?;
    running.update(data)?;
    running.verify(&module, signature)
}

/// `C_VerifyUpdate`.
pub(crate) fn verify_update(handle: CK_SESSION_HANDLE, data: Result<&[u8]>) -> Result<()> {
    let session = module::current()?.sessions.find(handle)?;
    next_step(&mut session.operations().verify, |Verifying(running)| {
        running.updated = true;
        running.update(data?)
    })
}

/// `C_VerifyFinal`. Whatever the outcome, the operation is over.
pub(crate) fn verify_final(handle: CK_SESSION_HANDLE, signature: Result<&[u8]>) -> Result<()> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    let running = session.operations().verify.take();
    let Verifying(mut running) = running.ok_or(Rv(CKR_OPERATION_NOT_INITIALIZED))?;
    running.verify(&module, signature?)
}

impl Running {
    fn new(mechanism: &Mechanism, flag: CK_FLAGS, object: Arc<Object>) -> Result<Self> {
        let (scheme, input) = Scheme::new(mechanism, flag, &object)?;
        Ok(Self { object, scheme, input: Some(input), updated: false })
    }

    /// A call with all of the message does not end one that came in parts.
    const fn single_part(&self) -> Result<()> {
        if self.updated { Err(Rv(CKR_OPERATION_ACTIVE)) } else { Ok(()) }
    }

    fn update(&mut self, data: &[u8]) -> Result<()> {
        self.input.as_mut().ok_or(Rv(CKR_OPERATION_NOT_INITIALIZED))?.update(data)
    }

    fn take_input(&mut self) -> Result<Input> {
        self.input.take().ok_or(Rv(CKR_OPERATION_NOT_INITIALIZED))
    }

    fn sign(&mut self, module: &Module) -> Result<Vec<u8>> {
        let input = self.take_input()?;
        let (slot, name) = (Some(self.object.slot), self.object.version.clone());
        let prepared = self.scheme.prepare(input, &self.object)?;
        if self.object.class == Class::Secret {
            let (mechanism, data) = mac_input(prepared)?;
            let request = v1::MacSignRequest { name, data, mechanism };
            return Ok(connection::call!(module, slot, MacSign(request))?.mac);
        }
        let answer = connection::call!(module, slot, Sign(prepared.sign_request(name)))?;
        if crc32c::crc32c(&answer.signature) != answer.signature_crc32c {
            return Err(HOSTILE);
        }
        self.scheme.signature(&self.object, answer.signature)
    }

    fn verify(&mut self, module: &Module, signature: &[u8]) -> Result<()> {
        let input = self.take_input()?;
        let valid = if self.object.class == Class::Secret {
            self.verify_mac(module, input, signature)?
        } else {
            match self.scheme.verify(&self.object, input, signature)? {
                Some(input) => self.verify_there(module, input, signature)?,
                None => true,
            }
        };
        if valid { Ok(()) } else { Err(Rv(CKR_SIGNATURE_INVALID)) }
    }

    fn verify_mac(&mut self, module: &Module, input: Input, mac: &[u8]) -> Result<bool> {
        if mac.len() != self.scheme.length(&self.object)? {
            return Err(Rv(CKR_SIGNATURE_LEN_RANGE));
        }
        let (mechanism, data) = mac_input(self.scheme.prepare(input, &self.object)?)?;
        let name = self.object.version.clone();
        let request = v1::MacVerifyRequest { name, data, mac: mac.to_vec(), mechanism };
        Ok(connection::call!(module, Some(self.object.slot), MacVerify(request))?.valid)
    }

    fn verify_there(&mut self, module: &Module, input: Input, signature: &[u8]) -> Result<bool> {
        let prepared = self.scheme.prepare(input, &self.object)?;
        let signature = Scheme::wire_signature(&self.object, signature)?;
        let request = prepared.verify_request(self.object.version.clone(), signature);
        Ok(connection::call!(module, Some(self.object.slot), Verify(request))?.valid)
    }
}

fn mac_input(prepared: Prepared) -> Result<(i32, Vec<u8>)> {
    match prepared.data {
        Data::Message(message) => Ok((prepared.wire.into(), message.to_vec())),
        Data::Digest(_) => Err(Rv(CKR_GENERAL_ERROR)),
    }
}
