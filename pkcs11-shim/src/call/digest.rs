//! Digests, made here: `C_DigestInit` to `C_DigestFinal`.

use cryptoki_sys::*;
use sha2::digest::DynDigest;

use crate::mechanism::Mechanism;
use crate::module;
use crate::output::{Output, Room, begin, last_step, next_step};
use crate::rv::{Result, Rv};

/// A running digest.
pub(crate) struct Digesting {
    hasher: Box<dyn DynDigest + Send>,
    updated: bool,
}

/// `C_DigestInit`.
pub(crate) fn init(handle: CK_SESSION_HANDLE, mechanism: Result<Option<Mechanism>>) -> Result<()> {
    let session = module::current()?.sessions.find(handle)?;
    begin(&mut session.operations().digest, mechanism?, |mechanism| {
        let hasher: Box<dyn DynDigest + Send> = match mechanism.kind {
            CKM_SHA_1 => Box::new(sha1::Sha1::default()),
            CKM_SHA256 => Box::new(sha2::Sha256::default()),
            CKM_SHA384 => Box::new(sha2::Sha384::default()),
            CKM_SHA512 => Box::new(sha2::Sha512::default()),
            _ => return Err(Rv(CKR_MECHANISM_INVALID)),
        };
        mechanism.without_parameter()?;
        Ok(Digesting { hasher, updated: false })
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
