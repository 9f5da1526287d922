//! Digests, made here: `C_DigestInit` to `C_DigestFinal`.

use cryptoki_sys::*;

use crate::hash::{Hash, Hasher};
use crate::module;
use crate::output::{Output, Room, begin, last_step, next_step};
use crate::parameter::Mechanism;
use crate::rv::{Result, Rv};

/// A running digest.
pub(crate) struct Digesting {
    hasher: Hasher,
    updated: bool,
}

/// `C_DigestInit`.
pub(crate) fn init(handle: CK_SESSION_HANDLE, mechanism: Result<Option<Mechanism>>) -> Result<()> {
    let session = module::current()?.sessions.find(handle)?;
    begin(&mut session.operations().digest, mechanism?, |mechanism| {
        let hash = Hash::of_kind(mechanism.kind).ok_or(Rv(CKR_MECHANISM_INVALID))?;
        mechanism.without_parameter()?;
        Ok(Digesting { hasher: hash.hasher(), updated: false })
    })
}

/// `C_Digest`.
pub(crate) fn digest(
    handle: CK_SESSION_HANDLE,
    data: Result<&[u8]>,
    room: Result<Room>,
) -> Result<Output> {
    let session = module::current()?.sessions.find(handle)?;
    last_step(&mut session.operations().digest, |running| {
        let (data, room) = (data?, room?);
        if running.updated {
            return Err(Rv(CKR_OPERATION_ACTIVE));
        }
        room.give(running.hasher.output_size(), || {
            running.hasher.update(data);
            Ok(running.hasher.finalize_reset().into_vec())
        })
    })
}

/// `C_DigestUpdate`.
pub(crate) fn update(handle: CK_SESSION_HANDLE, data: Result<&[u8]>) -> Result<()> {
    let session = module::current()?.sessions.find(handle)?;
    next_step(&mut session.operations().digest, |running| {
        running.updated = true;
        running.hasher.update(data?);
        Ok(())
    })
}

/// `C_DigestFinal`.
pub(crate) fn finish(handle: CK_SESSION_HANDLE, room: Result<Room>) -> Result<Output> {
    let session = module::current()?.sessions.find(handle)?;
    last_step(&mut session.operations().digest, |running| {
        let length = running.hasher.output_size();
        room?.give(length, || Ok(running.hasher.finalize_reset().into_vec()))
    })
}
