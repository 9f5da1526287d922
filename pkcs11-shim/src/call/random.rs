//! `C_GenerateRandom`; `C_SeedRandom` is refused, for the generator is the daemon's.

use cryptoki_sys::*;
use kms_proto::v1;
use zeroize::Zeroizing;

use crate::connection;
use crate::module;
use crate::rv::{HOSTILE, Result, Rv};

/// `C_GenerateRandom`.
pub(crate) fn generate(handle: CK_SESSION_HANDLE, length: usize) -> Result<Zeroizing<Vec<u8>>> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    if length > RANDOM_BYTES_MAX {
        return Err(Rv(CKR_ARGUMENTS_BAD));
    }
    let ring = module.tokens.token(session.slot)?.ring;
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    while bytes.len() < length {
        let wanted = (length - bytes.len()).min(REQUEST_BYTES_MAX);
        let request = v1::GenerateRandomRequest { ring: ring.clone(), length_bytes: wanted as u32 };
        let answer = connection::call!(&module, Some(session.slot), GenerateRandom(request))?;
        let data = Zeroizing::new(answer.data);
        if data.len() != wanted {
            return Err(HOSTILE);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// `C_SeedRandom`.
pub(crate) fn seed(handle: CK_SESSION_HANDLE) -> Result<()> {
    module::current()?.sessions.find(handle)?;
    Err(Rv(CKR_RANDOM_SEED_NOT_SUPPORTED))
}

/// What one call to the daemon gives.
const REQUEST_BYTES_MAX: usize = 4096;

/// What one call to us gives.
const RANDOM_BYTES_MAX: usize = 1 << 20;
