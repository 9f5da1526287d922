//! AES-GCM: `C_EncryptInit` to `C_DecryptFinal`.
//!
//! The daemon makes the IV of every encryption. The caller's `pIv` is a buffer of twelve zero bytes,
//! into which the IV is written when the ciphertext is given out; a caller who brings an IV of
//! its own is refused, because one IV used twice gives the key away (SP 800-38D §8). The result comes
//! with the last step, never before: no plaintext is given out before its tag was checked.

use std::sync::Arc;

use cryptoki_sys::*;
use kms_proto::v1;
use zeroize::Zeroizing;

use crate::connection;
use crate::ffi::CallerBuffer;
use crate::mechanism::{self, GcmParameter, Mechanism, Parameter};
use crate::module::{self, Module};
use crate::object::Object;
use crate::output::{Output, Room, begin, last_step, next_step};
use crate::rv::{HOSTILE, Result, Rv};
use crate::scheme::DATA_BYTES_MAX;

/// A running encryption.
pub(crate) struct Encrypting {
    iv_buffer: CallerBuffer,
    running: Running,
}

/// A running decryption.
pub(crate) struct Decrypting {
    iv: Vec<u8>,
    running: Running,
}

struct Running {
    object: Arc<Object>,
    additional_data: Vec<u8>,
    input: Zeroizing<Vec<u8>>,
    input_max: usize,
    updated: bool,
}

/// `C_EncryptInit`.
pub(crate) fn encrypt_init(
    handle: CK_SESSION_HANDLE,
    mechanism: Result<Option<Mechanism>>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    begin(&mut session.operations().encrypt, mechanism?, |mechanism| {
        let object = module.key(&session, key)?;
        let parameter = gcm(mechanism, &object, v1::Usage::Encrypt)?;
        let GcmParameter { iv, iv_buffer, additional_data, .. } = parameter;
        if iv.iter().any(|byte| *byte != 0) {
            return Err(Rv(CKR_MECHANISM_PARAM_INVALID));
        }
        Ok(Encrypting { iv_buffer, running: Running::new(object, additional_data, DATA_BYTES_MAX) })
    })
}

/// `C_Encrypt`.
pub(crate) fn encrypt(
    handle: CK_SESSION_HANDLE,
    data: Result<&[u8]>,
    room: Result<Room>,
) -> Result<Output> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    last_step(&mut session.operations().encrypt, |encrypting| {
        let (data, room) = (data?, room?);
        encrypting.running.single_part(data)?;
        room.give(data.len() + TAG_BYTES, || {
            encrypting.running.update(data)?;
            encrypting.encrypt(&module)
        })
    })
}

/// `C_EncryptUpdate`.
pub(crate) fn encrypt_update(
    handle: CK_SESSION_HANDLE,
    data: Result<&[u8]>,
    room: Result<Room>,
) -> Result<Output> {
    let session = module::current()?.sessions.find(handle)?;
    next_step(&mut session.operations().encrypt, |encrypting| {
        encrypting.running.update_in_parts(data?, room?)
    })
}

/// `C_EncryptFinal`.
pub(crate) fn encrypt_final(handle: CK_SESSION_HANDLE, room: Result<Room>) -> Result<Output> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    last_step(&mut session.operations().encrypt, |encrypting| {
        let length = encrypting.running.input.len() + TAG_BYTES;
        room?.give(length, || encrypting.encrypt(&module))
    })
}

/// `C_DecryptInit`.
pub(crate) fn decrypt_init(
    handle: CK_SESSION_HANDLE,
    mechanism: Result<Option<Mechanism>>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    begin(&mut session.operations().decrypt, mechanism?, |mechanism| {
        let object = module.key(&session, key)?;
        let GcmParameter { iv, additional_data, .. } = gcm(mechanism, &object, v1::Usage::Decrypt)?;
        let running = Running::new(object, additional_data, DATA_BYTES_MAX + TAG_BYTES);
        Ok(Decrypting { iv, running })
    })
}

/// `C_Decrypt`.
pub(crate) fn decrypt(
    handle: CK_SESSION_HANDLE,
    data: Result<&[u8]>,
    room: Result<Room>,
) -> Result<Output> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    last_step(&mut session.operations().decrypt, |decrypting| {
        let (data, room) = (data?, room?);
        decrypting.running.single_part(data)?;
        room.give(plaintext_length(data)?, || {
            decrypting.running.update(data)?;
            decrypting.decrypt(&module)
        })
    })
}

/// `C_DecryptUpdate`.
pub(crate) fn decrypt_update(
    handle: CK_SESSION_HANDLE,
    data: Result<&[u8]>,
    room: Result<Room>,
) -> Result<Output> {
    let session = module::current()?.sessions.find(handle)?;
    next_step(&mut session.operations().decrypt, |decrypting| {
        decrypting.running.update_in_parts(data?, room?)
    })
}

/// `C_DecryptFinal`.
pub(crate) fn decrypt_final(handle: CK_SESSION_HANDLE, room: Result<Room>) -> Result<Output> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    last_step(&mut session.operations().decrypt, |decrypting| {
        let length = plaintext_length(&decrypting.running.input)?;
        room?.give(length, || decrypting.decrypt(&module))
    })
}

fn gcm(mechanism: Mechanism, object: &Object, usage: v1::Usage) -> Result<GcmParameter> {
    if mechanism.kind != CKM_AES_GCM {
        return Err(Rv(CKR_MECHANISM_INVALID));
    }
    let Parameter::Gcm(parameter) = mechanism.parameter else {
        return Err(Rv(CKR_MECHANISM_PARAM_INVALID));
    };
    if parameter.iv.len() != IV_BYTES
        || parameter.tag_bits != TAG_BITS
        || parameter.additional_data.len() > DATA_BYTES_MAX
    {
        return Err(Rv(CKR_MECHANISM_PARAM_INVALID));
    }
    if mechanism::key_type(object.algorithm) != CKK_AES {
        return Err(Rv(CKR_KEY_TYPE_INCONSISTENT));
    }
    if !object.is_for(usage) {
        return Err(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED));
    }
    Ok(parameter)
}

fn plaintext_length(ciphertext: &[u8]) -> Result<usize> {
    ciphertext.len().checked_sub(TAG_BYTES).ok_or(Rv(CKR_ENCRYPTED_DATA_LEN_RANGE))
}

impl Encrypting {
    fn encrypt(&mut self, module: &Module) -> Result<Vec<u8>> {
        let Running { object, additional_data, input, .. } = &mut self.running;
        let request = v1::EncryptRequest {
            name: object.version.clone(),
            plaintext_crc32c: Some(crc32c::crc32c(input)),
            plaintext: input.to_vec(),
            additional_authenticated_data: std::mem::take(additional_data),
        };
        let answer = connection::call!(module, Some(object.slot), Encrypt(request))?;
        let v1::EncryptResponse {
            initialization_vector: iv, ciphertext, ciphertext_crc32c, ..
        } = answer;
        if iv.len() != IV_BYTES
            || ciphertext.len() != input.len() + TAG_BYTES
            || crc32c::crc32c(&ciphertext) != ciphertext_crc32c
        {
            return Err(HOSTILE);
        }
        self.iv_buffer.fill(&iv)?;
        Ok(ciphertext)
    }
}

impl Decrypting {
    fn decrypt(&mut self, module: &Module) -> Result<Vec<u8>> {
        let Running { object, additional_data, input, .. } = &mut self.running;
        let request = v1::DecryptRequest {
            name: object.version.clone(),
            initialization_vector: std::mem::take(&mut self.iv),
            ciphertext_crc32c: Some(crc32c::crc32c(input)),
            ciphertext: input.to_vec(),
            additional_authenticated_data: std::mem::take(additional_data),
        };
        let answer = connection::call!(module, Some(object.slot), Decrypt(request))?;
        if crc32c::crc32c(&answer.plaintext) != answer.plaintext_crc32c {
            return Err(HOSTILE);
        }
        Ok(answer.plaintext)
    }
}

impl Running {
    fn new(object: Arc<Object>, additional_data: Vec<u8>, input_max: usize) -> Self {
        Self { object, additional_data, input: Zeroizing::default(), input_max, updated: false }
    }

    /// A call with all of the data does not end one that came in parts, and must fit.
    fn single_part(&self, data: &[u8]) -> Result<()> {
        if self.updated {
            return Err(Rv(CKR_OPERATION_ACTIVE));
        }
        self.require_fit(data)
    }

    fn update(&mut self, data: &[u8]) -> Result<()> {
        self.require_fit(data)?;
        self.input.extend_from_slice(data);
        Ok(())
    }

    /// Takes a part in and gives nothing out yet. Asking for the length takes nothing in.
    fn update_in_parts(&mut self, data: &[u8], room: Room) -> Result<Output> {
        self.updated = true;
        room.give(0, || self.update(data).map(|()| Vec::new()))
    }

    fn require_fit(&self, data: &[u8]) -> Result<()> {
        if data.len() <= self.input_max - self.input.len() {
            Ok(())
        } else {
            Err(Rv(CKR_DATA_LEN_RANGE))
        }
    }
}

const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const TAG_BITS: CK_ULONG = 128;
