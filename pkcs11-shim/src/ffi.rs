//! The C border: the only file with unsafe code.
//!
//! Each `C_` function turns its pointers into values, calls safe code in [`crate::call`], and writes
//! the result through the pointers again. Nothing is decided here but whether a pointer can be
//! used: NULL where something must be, a misaligned pointer, or a length that no object can have
//! is `CKR_ARGUMENTS_BAD`, and lengths are bounded before memory is allocated for them.
//!
//! # Safety
//! The caller of a C function guarantees, as PKCS#11 v3.1 §5 asks: a pointer that is not NULL
//! points to what its type and the length beside it say, for the whole call, and nobody else
//! writes there meanwhile. What can be checked of that is checked; the rest is the caller's. Blocks
//! below call this "the caller's guarantee". Output buffers may be uninitialised and may overlap
//! with inputs (encryption in place), so they are never made into slices: results are copied in
//! when no slice of an input is used any more.

#![allow(non_snake_case, reason = "the names are the standard's")]
#![allow(clippy::missing_safety_doc, reason = "the head of this file is the one for all of them")]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use cryptoki_sys::*;

use crate::attribute::Question;
use crate::call::general::InitializeArguments;
use crate::call::{
    digest, encrypt, general, key_management, object, random, session, sign, slot_token,
};
use crate::mechanism::{GcmParameter, Mechanism, Parameter};
use crate::output::{Output, Room};
use crate::rv::{Result, Rv};
use crate::template::Attribute;

/// Defines C functions. A panic in one becomes `CKR_GENERAL_ERROR`: unwinding into C would end the
/// host.
macro_rules! entries {
    ($($visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of PKCS#11.")]
        #[allow(unused_unsafe, reason = "some take no pointers")]
        #[unsafe(no_mangle)]
        $visibility unsafe extern "C" fn $name($($argument: $type),*) -> CK_RV {
            // SAFETY: the bodies call only the helpers of this file, whose one condition is the
            // caller's guarantee for the pointers that they are given, and safe code.
            guarded(|| unsafe { $body })
        }
    )*};
}

/// Defines C functions that this module does not have.
macro_rules! unsupported {
    ($($name:ident($($type:ty),* $(,)?);)*) => {$(
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($(_: $type),*) -> CK_RV {
            CKR_FUNCTION_NOT_SUPPORTED
        }
    )*};
}

fn guarded(body: impl FnOnce() -> Result<()>) -> CK_RV {
    // Nothing of ours is left half-changed by a panic: tables change in single steps.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => CKR_OK,
        Ok(Err(Rv(code))) => code,
        Err(_) => CKR_GENERAL_ERROR,
    }
}

// General purpose and interfaces.
entries! {
    pub(crate) fn C_Initialize(arguments: *mut c_void) {
        general::initialize(initialize_arguments(arguments)?)
    }

    pub(crate) fn C_Finalize(reserved: *mut c_void) {
        if !reserved.is_null() {
            return Err(Rv(CKR_ARGUMENTS_BAD));
        }
        general::finalize()
    }

    pub(crate) fn C_GetInfo(info: *mut CK_INFO) {
        let info = required(info)?;
        put(info, general::info()?)
    }

    pub fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) {
        put(required(list)?, (&raw const LIST_2_40).cast_mut())
    }

    pub fn C_GetInterfaceList(list: *mut CK_INTERFACE, count: *mut CK_ULONG) {
        put_list(list, count, || Ok(INTERFACES.iter().map(|interface| interface.0).collect()))
    }

    pub fn C_GetInterface(
        name: *mut CK_UTF8CHAR,
        version: *mut CK_VERSION,
        interface: *mut *mut CK_INTERFACE,
        flags: CK_FLAGS,
    ) {
        let interface = required(interface)?;
        let named = name.is_null() || is_standard_name(name);
        let version = if version.is_null() { None } else { Some(read(version)?) };
        let wanted = |(_, offered): &(&Exported, (u8, u8))| {
            version.is_none_or(|version| (version.major, version.minor) == *offered)
        };
        // Ours are not fork-safe in the sense of the flag: a child initialises anew.
        let found = INTERFACES.iter().zip(VERSIONS).find(wanted);
        match found.filter(|_| named && flags == 0) {
            Some((found, _)) => put(interface, (&raw const found.0).cast_mut()),
            None => Err(Rv(CKR_FUNCTION_FAILED)),
        }
    }
}

// Slots and tokens.
entries! {
    pub(crate) fn C_GetSlotList(
        _token_present: CK_BBOOL,
        list: *mut CK_SLOT_ID,
        count: *mut CK_ULONG,
    ) {
        put_list(list, count, || slot_token::slot_list(list.is_null()))
    }

    pub(crate) fn C_GetSlotInfo(slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO) {
        let info = required(info)?;
        put(info, slot_token::slot_info(slot)?)
    }

    pub(crate) fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) {
        let info = required(info)?;
        put(info, slot_token::token_info(slot)?)
    }

    pub(crate) fn C_GetMechanismList(
        slot: CK_SLOT_ID,
        list: *mut CK_MECHANISM_TYPE,
        count: *mut CK_ULONG,
    ) {
        put_list(list, count, || slot_token::mechanism_list(slot))
    }

    pub(crate) fn C_GetMechanismInfo(
        slot: CK_SLOT_ID,
        kind: CK_MECHANISM_TYPE,
        info: *mut CK_MECHANISM_INFO,
    ) {
        let info = required(info)?;
        put(info, slot_token::mechanism_info(slot, kind)?)
    }

    pub(crate) fn C_WaitForSlotEvent(
        flags: CK_FLAGS,
        _slot: *mut CK_SLOT_ID,
        reserved: *mut c_void,
    ) {
        if !reserved.is_null() {
            return Err(Rv(CKR_ARGUMENTS_BAD));
        }
        slot_token::wait_for_slot_event(flags)
    }
}

// Sessions.
entries! {
    pub(crate) fn C_OpenSession(
        slot: CK_SLOT_ID,
        flags: CK_FLAGS,
        _application: *mut c_void,
        _notify: CK_NOTIFY,
        session: *mut CK_SESSION_HANDLE,
    ) {
        let session = required(session)?;
        put(session, session::open(slot, flags)?)
    }

    pub(crate) fn C_CloseSession(session: CK_SESSION_HANDLE) {
        session::close(session)
    }

    pub(crate) fn C_CloseAllSessions(slot: CK_SLOT_ID) {
        session::close_all(slot)
    }

    pub(crate) fn C_GetSessionInfo(session: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO) {
        let info = required(info)?;
        put(info, session::info(session)?)
    }

    pub(crate) fn C_Login(
        session: CK_SESSION_HANDLE,
        user: CK_USER_TYPE,
        pin: *mut CK_UTF8CHAR,
        pin_length: CK_ULONG,
    ) {
        session::log_in(session, user, pin_bytes(pin, pin_length)?)
    }

    pub(crate) fn C_LoginUser(
        session: CK_SESSION_HANDLE,
        user: CK_USER_TYPE,
        pin: *mut CK_UTF8CHAR,
        pin_length: CK_ULONG,
        name: *mut CK_UTF8CHAR,
        name_length: CK_ULONG,
    ) {
        let name = bytes(name, name_length)?;
        session::log_in_user(session, user, pin_bytes(pin, pin_length)?, name)
    }

    pub(crate) fn C_Logout(session: CK_SESSION_HANDLE) {
        session::log_out(session)
    }

    pub(crate) fn C_SessionCancel(session: CK_SESSION_HANDLE, flags: CK_FLAGS) {
        session::cancel(session, flags)
    }
}

// Objects.
entries! {
    pub(crate) fn C_FindObjectsInit(
        session: CK_SESSION_HANDLE,
        attributes: *mut CK_ATTRIBUTE,
        count: CK_ULONG,
    ) {
        object::find_init(session, template(attributes, count))
    }

    pub(crate) fn C_FindObjects(
        session: CK_SESSION_HANDLE,
        objects: *mut CK_OBJECT_HANDLE,
        room: CK_ULONG,
        count: *mut CK_ULONG,
    ) {
        let usable = required(count).and_then(|_| if room > 0 { required(objects) } else { Ok(objects) });
        let found = object::find_next(session, usable.map(|_| to_usize(room)))?;
        ptr::copy_nonoverlapping(found.as_ptr(), objects, found.len());
        put(count, found.len() as CK_ULONG)
    }

    pub(crate) fn C_FindObjectsFinal(session: CK_SESSION_HANDLE) {
        object::find_final(session)
    }

    pub(crate) fn C_GetAttributeValue(
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        attributes: *mut CK_ATTRIBUTE,
        count: CK_ULONG,
    ) {
        let questions = questions(attributes, count)?;
        let (code, answers) = object::attribute_values(session, object, &questions)?;
        for (index, answer) in answers.iter().enumerate() {
            let attribute = attributes.add(index);
            if let Some(bytes) = &answer.bytes {
                ptr::copy_nonoverlapping(bytes.as_ptr(), (*attribute).pValue.cast(), bytes.len());
            }
            (*attribute).ulValueLen = answer.length;
        }
        if code == CKR_OK { Ok(()) } else { Err(Rv(code)) }
    }

    pub(crate) fn C_SetAttributeValue(
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        attributes: *mut CK_ATTRIBUTE,
        count: CK_ULONG,
    ) {
        object::set_attribute_values(session, object, &template(attributes, count)?)
    }

    pub(crate) fn C_GetObjectSize(
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        size: *mut CK_ULONG,
    ) {
        let size = required(size)?;
        put(size, object::size(session, object)?)
    }

    pub(crate) fn C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) {
        object::destroy(session, object)
    }
}

// Encryption.
entries! {
    pub(crate) fn C_EncryptInit(
        session: CK_SESSION_HANDLE,
        kind: *mut CK_MECHANISM,
        key: CK_OBJECT_HANDLE,
    ) {
        encrypt::encrypt_init(session, mechanism(kind), key)
    }

    pub(crate) fn C_Encrypt(
        session: CK_SESSION_HANDLE,
        data: *mut CK_BYTE,
        data_length: CK_ULONG,
        output: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) {
        let room = room(output, length);
        let result = encrypt::encrypt(session, bytes(data, data_length), room)?;
        deliver(&result, output, length)
    }

    pub(crate) fn C_EncryptUpdate(
        session: CK_SESSION_HANDLE,
        data: *mut CK_BYTE,
        data_length: CK_ULONG,
        output: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) {
        let room = room(output, length);
        let result = encrypt::encrypt_update(session, bytes(data, data_length), room)?;
        deliver(&result, output, length)
    }

    pub(crate) fn C_EncryptFinal(
        session: CK_SESSION_HANDLE,
        output: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) {
        deliver(&encrypt::encrypt_final(session, room(output, length))?, output, length)
    }

    pub(crate) fn C_DecryptInit(
        session: CK_SESSION_HANDLE,
        kind: *mut CK_MECHANISM,
        key: CK_OBJECT_HANDLE,
    ) {
        encrypt::decrypt_init(session, mechanism(kind), key)
    }

    pub(crate) fn C_Decrypt(
        session: CK_SESSION_HANDLE,
        data: *mut CK_BYTE,
        data_length: CK_ULONG,
        output: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) {
        let room = room(output, length);
        let result = Secret(encrypt::decrypt(session, bytes(data, data_length), room)?);
        deliver(&result.0, output, length)
    }

    pub(crate) fn C_DecryptUpdate(
        session: CK_SESSION_HANDLE,
        data: *mut CK_BYTE,
        data_length: CK_ULONG,
        output: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) {
        let room = room(output, length);
        let result = encrypt::decrypt_update(session, bytes(data, data_length), room)?;
        deliver(&result, output, length)
    }

    pub(crate) fn C_DecryptFinal(
        session: CK_SESSION_HANDLE,
        output: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) {
        let result = Secret(encrypt::decrypt_final(session, room(output, length))?);
        deliver(&result.0, output, length)
    }
}

// Digests.
entries! {
    pub(crate) fn C_DigestInit(session: CK_SESSION_HANDLE, kind: *mut CK_MECHANISM) {
        digest::init(session, mechanism(kind))
    }

    pub(crate) fn C_Digest(
        session: CK_SESSION_HANDLE,
        data: *mut CK_BYTE,
        data_length: CK_ULONG,
        output: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) {
        let room = room(output, length);
        let result = digest::digest(session, bytes(data, data_length), room)?;
        deliver(&result, output, length)
    }

    pub(crate) fn C_DigestUpdate(
        session: CK_SESSION_HANDLE,
        data: *mut CK_BYTE,
        data_length: CK_ULONG,
    ) {
        digest::update(session, bytes(data, data_length))
    }

    pub(crate) fn C_DigestFinal(
        session: CK_SESSION_HANDLE,
        output: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) {
        deliver(&digest::finish(session, room(output, length))?, output, length)
    }
}

// Signatures.
entries! {
    pub(crate) fn C_SignInit(
        session: CK_SESSION_HANDLE,
        kind: *mut CK_MECHANISM,
        key: CK_OBJECT_HANDLE,
    ) {
        sign::sign_init(session, mechanism(kind), key)
    }

    pub(crate) fn C_Sign(
        session: CK_SESSION_HANDLE,
        data: *mut CK_BYTE,
        data_length: CK_ULONG,
        output: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) {
        let room = room(output, length);
        let result = sign::sign(session, bytes(data, data_length), room)?;
        deliver(&result, output, length)
    }

    pub(crate) fn C_SignUpdate(
        session: CK_SESSION_HANDLE,
        data: *mut CK_BYTE,
        data_length: CK_ULONG,
    ) {
        sign::sign_update(session, bytes(data, data_length))
    }

    pub(crate) fn C_SignFinal(
        session: CK_SESSION_HANDLE,
        output: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) {
        deliver(&sign::sign_final(session, room(output, length))?, output, length)
    }

    pub(crate) fn C_VerifyInit(
        session: CK_SESSION_HANDLE,
        kind: *mut CK_MECHANISM,
        key: CK_OBJECT_HANDLE,
    ) {
        sign::verify_init(session, mechanism(kind), key)
    }

    pub(crate) fn C_Verify(
        session: CK_SESSION_HANDLE,
        data: *mut CK_BYTE,
        data_length: CK_ULONG,
        signature: *mut CK_BYTE,
        signature_length: CK_ULONG,
    ) {
        sign::verify(session, bytes(data, data_length), bytes(signature, signature_length))
    }

    pub(crate) fn C_VerifyUpdate(
        session: CK_SESSION_HANDLE,
        data: *mut CK_BYTE,
        data_length: CK_ULONG,
    ) {
        sign::verify_update(session, bytes(data, data_length))
    }

    pub(crate) fn C_VerifyFinal(
        session: CK_SESSION_HANDLE,
        signature: *mut CK_BYTE,
        signature_length: CK_ULONG,
    ) {
        sign::verify_final(session, bytes(signature, signature_length))
    }
}

// Keys and random numbers.
entries! {
    pub(crate) fn C_GenerateKey(
        session: CK_SESSION_HANDLE,
        kind: *mut CK_MECHANISM,
        attributes: *mut CK_ATTRIBUTE,
        count: CK_ULONG,
        key: *mut CK_OBJECT_HANDLE,
    ) {
        let key = required(key)?;
        let mechanism = mechanism(kind)?.ok_or(Rv(CKR_ARGUMENTS_BAD))?;
        let template = template(attributes, count)?;
        put(key, key_management::generate_key(session, &mechanism, &template)?)
    }

    pub(crate) fn C_GenerateKeyPair(
        session: CK_SESSION_HANDLE,
        kind: *mut CK_MECHANISM,
        public_attributes: *mut CK_ATTRIBUTE,
        public_count: CK_ULONG,
        private_attributes: *mut CK_ATTRIBUTE,
        private_count: CK_ULONG,
        public_key: *mut CK_OBJECT_HANDLE,
        private_key: *mut CK_OBJECT_HANDLE,
    ) {
        let (public_key, private_key) = (required(public_key)?, required(private_key)?);
        let mechanism = mechanism(kind)?.ok_or(Rv(CKR_ARGUMENTS_BAD))?;
        let public_template = template(public_attributes, public_count)?;
        let private_template = template(private_attributes, private_count)?;
        let (public, private) = key_management::generate_key_pair(
            session, &mechanism, &public_template, &private_template,
        )?;
        put(public_key, public)?;
        put(private_key, private)
    }

    pub(crate) fn C_SeedRandom(session: CK_SESSION_HANDLE, _seed: *mut CK_BYTE, _length: CK_ULONG) {
        random::seed(session)
    }

    pub(crate) fn C_GenerateRandom(
        session: CK_SESSION_HANDLE,
        output: *mut CK_BYTE,
        length: CK_ULONG,
    ) {
        let output = if length > 0 { required(output)? } else { output };
        let random = random::generate(session, to_usize(length))?;
        ptr::copy_nonoverlapping(random.as_ptr(), output, random.len());
        Ok(())
    }

    pub(crate) fn C_GetFunctionStatus(_session: CK_SESSION_HANDLE) {
        Err(Rv(CKR_FUNCTION_NOT_PARALLEL))
    }

    pub(crate) fn C_CancelFunction(_session: CK_SESSION_HANDLE) {
        Err(Rv(CKR_FUNCTION_NOT_PARALLEL))
    }
}

// What there is no use for in this appliance, or not yet.
unsupported! {
    C_InitToken(CK_SLOT_ID, *mut CK_UTF8CHAR, CK_ULONG, *mut CK_UTF8CHAR);
    C_InitPIN(CK_SESSION_HANDLE, *mut CK_UTF8CHAR, CK_ULONG);
    C_SetPIN(CK_SESSION_HANDLE, *mut CK_UTF8CHAR, CK_ULONG, *mut CK_UTF8CHAR, CK_ULONG);
    C_GetOperationState(CK_SESSION_HANDLE, *mut CK_BYTE, *mut CK_ULONG);
    C_SetOperationState(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE);
    C_CreateObject(CK_SESSION_HANDLE, *mut CK_ATTRIBUTE, CK_ULONG, *mut CK_OBJECT_HANDLE);
    C_CopyObject(CK_SESSION_HANDLE, CK_OBJECT_HANDLE, *mut CK_ATTRIBUTE, CK_ULONG, *mut CK_OBJECT_HANDLE);
    C_DigestKey(CK_SESSION_HANDLE, CK_OBJECT_HANDLE);
    C_SignRecoverInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_SignRecover(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_VerifyRecoverInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_VerifyRecover(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_DigestEncryptUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_DecryptDigestUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_SignEncryptUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_DecryptVerifyUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_WrapKey(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE, *mut CK_BYTE, *mut CK_ULONG);
    C_UnwrapKey(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_ATTRIBUTE, CK_ULONG, *mut CK_OBJECT_HANDLE);
    C_DeriveKey(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE, *mut CK_ATTRIBUTE, CK_ULONG, *mut CK_OBJECT_HANDLE);
    C_MessageEncryptInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_EncryptMessage(CK_SESSION_HANDLE, *mut c_void, CK_ULONG, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_EncryptMessageBegin(CK_SESSION_HANDLE, *mut c_void, CK_ULONG, *mut CK_BYTE, CK_ULONG);
    C_EncryptMessageNext(CK_SESSION_HANDLE, *mut c_void, CK_ULONG, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG, CK_FLAGS);
    C_MessageEncryptFinal(CK_SESSION_HANDLE);
    C_MessageDecryptInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_DecryptMessage(CK_SESSION_HANDLE, *mut c_void, CK_ULONG, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_DecryptMessageBegin(CK_SESSION_HANDLE, *mut c_void, CK_ULONG, *mut CK_BYTE, CK_ULONG);
    C_DecryptMessageNext(CK_SESSION_HANDLE, *mut c_void, CK_ULONG, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG, CK_FLAGS);
    C_MessageDecryptFinal(CK_SESSION_HANDLE);
    C_MessageSignInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_SignMessage(CK_SESSION_HANDLE, *mut c_void, CK_ULONG, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_SignMessageBegin(CK_SESSION_HANDLE, *mut c_void, CK_ULONG);
    C_SignMessageNext(CK_SESSION_HANDLE, *mut c_void, CK_ULONG, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_MessageSignFinal(CK_SESSION_HANDLE);
    C_MessageVerifyInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_VerifyMessage(CK_SESSION_HANDLE, *mut c_void, CK_ULONG, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, CK_ULONG);
    C_VerifyMessageBegin(CK_SESSION_HANDLE, *mut c_void, CK_ULONG);
    C_VerifyMessageNext(CK_SESSION_HANDLE, *mut c_void, CK_ULONG, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, CK_ULONG);
    C_MessageVerifyFinal(CK_SESSION_HANDLE);
    C_EncapsulateKey(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE, *mut CK_ATTRIBUTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG, *mut CK_OBJECT_HANDLE);
    C_DecapsulateKey(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE, *mut CK_ATTRIBUTE, CK_ULONG, *mut CK_BYTE, CK_ULONG, *mut CK_OBJECT_HANDLE);
    C_VerifySignatureInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE, *mut CK_BYTE, CK_ULONG);
    C_VerifySignature(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG);
    C_VerifySignatureUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG);
    C_VerifySignatureFinal(CK_SESSION_HANDLE);
    C_GetSessionValidationFlags(CK_SESSION_HANDLE, CK_SESSION_VALIDATION_FLAGS_TYPE, *mut CK_FLAGS);
    C_AsyncComplete(CK_SESSION_HANDLE, *mut CK_UTF8CHAR, *mut CK_ASYNC_DATA);
    C_AsyncGetID(CK_SESSION_HANDLE, *mut CK_UTF8CHAR, *mut CK_ULONG);
    C_AsyncJoin(CK_SESSION_HANDLE, *mut CK_UTF8CHAR, CK_ULONG, *mut CK_BYTE, CK_ULONG);
    C_WrapKeyAuthenticated(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_UnwrapKeyAuthenticated(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_ATTRIBUTE, CK_ULONG, *mut CK_BYTE, CK_ULONG, *mut CK_OBJECT_HANDLE);
}

/// A function list with all functions up to its version, in the order of the standard.
macro_rules! list {
    ($name:ident: $type:ident, $major:literal.$minor:literal; $($function:ident)*) => {
        static $name: $type = $type {
            version: CK_VERSION { major: $major, minor: $minor },
            $($function: Some($function),)*
        };
    };
}

/// Hands the functions of 2.40, those new in 3.0 and those new in 3.2 to three lists.
macro_rules! lists {
    ({ $($v2_40:ident)* } { $($v3_0:ident)* } { $($v3_2:ident)* }) => {
        list! { LIST_2_40: CK_FUNCTION_LIST, 2 . 40; $($v2_40)* }
        list! { LIST_3_0: CK_FUNCTION_LIST_3_0, 3 . 0; $($v2_40)* $($v3_0)* }
        list! { LIST_3_2: CK_FUNCTION_LIST_3_2, 3 . 2; $($v2_40)* $($v3_0)* $($v3_2)* }
    };
}

lists! {
    {
        C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo
        C_GetTokenInfo C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN
        C_OpenSession C_CloseSession C_CloseAllSessions C_GetSessionInfo C_GetOperationState
        C_SetOperationState C_Login C_Logout C_CreateObject C_CopyObject C_DestroyObject
        C_GetObjectSize C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit
        C_FindObjects C_FindObjectsFinal C_EncryptInit C_Encrypt C_EncryptUpdate
        C_EncryptFinal C_DecryptInit C_Decrypt C_DecryptUpdate C_DecryptFinal C_DigestInit
        C_Digest C_DigestUpdate C_DigestKey C_DigestFinal C_SignInit C_Sign C_SignUpdate
        C_SignFinal C_SignRecoverInit C_SignRecover C_VerifyInit C_Verify C_VerifyUpdate
        C_VerifyFinal C_VerifyRecoverInit C_VerifyRecover C_DigestEncryptUpdate
        C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate C_GenerateKey
        C_GenerateKeyPair C_WrapKey C_UnwrapKey C_DeriveKey C_SeedRandom C_GenerateRandom
        C_GetFunctionStatus C_CancelFunction C_WaitForSlotEvent
    }
    {
        C_GetInterfaceList C_GetInterface C_LoginUser C_SessionCancel C_MessageEncryptInit
        C_EncryptMessage C_EncryptMessageBegin C_EncryptMessageNext C_MessageEncryptFinal
        C_MessageDecryptInit C_DecryptMessage C_DecryptMessageBegin C_DecryptMessageNext
        C_MessageDecryptFinal C_MessageSignInit C_SignMessage C_SignMessageBegin
        C_SignMessageNext C_MessageSignFinal C_MessageVerifyInit C_VerifyMessage
        C_VerifyMessageBegin C_VerifyMessageNext C_MessageVerifyFinal
    }
    {
        C_EncapsulateKey C_DecapsulateKey C_VerifySignatureInit C_VerifySignature
        C_VerifySignatureUpdate C_VerifySignatureFinal C_GetSessionValidationFlags
        C_AsyncComplete C_AsyncGetID C_AsyncJoin C_WrapKeyAuthenticated
        C_UnwrapKeyAuthenticated
    }
}

/// A buffer of the caller that is written to in a later call: `pIv` of an AES-GCM encryption.
pub(crate) struct CallerBuffer {
    start: *mut u8,
    length: usize,
}

// SAFETY: the buffer belongs to the operation until that ends, as PKCS#11 has it for a mechanism's
// output parameters, and the operation is locked whenever it is used.
unsafe impl Send for CallerBuffer {}

impl CallerBuffer {
    /// Writes `bytes`, which must fill it.
    pub(crate) fn fill(&self, bytes: &[u8]) -> Result<()> {
        if self.start.is_null() || bytes.len() != self.length {
            return Err(Rv(CKR_MECHANISM_PARAM_INVALID));
        }
        // SAFETY: not NULL and of this length; it is still there by the caller's guarantee for the
        // parameter of a running operation (PKCS#11 v3.1 §6.13.3).
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start, bytes.len()) };
        Ok(())
    }
}

/// Runs `work` so that writing to a connection that the daemon has closed is an error and not the
/// end of the host: Rust's sockets raise SIGPIPE, and the host may not ignore it.
///
/// SIGPIPE is blocked for this thread alone, taken back if `work` has raised it, and the thread's
/// own mask is put back. A SIGPIPE that was pending before is left to the host.
pub(crate) fn without_sigpipe<R>(work: impl FnOnce() -> R) -> R {
    let _blocked = SigpipeBlocked::new();
    work()
}

struct SigpipeBlocked {
    /// The mask before; `None` if there is nothing to put back.
    before: Option<libc::sigset_t>,
}

impl SigpipeBlocked {
    fn new() -> Self {
        let (sigpipe, mut pending, mut before) = (sigpipe(), sigpipe(), sigpipe());
        // SAFETY: all pointers are to local variables of the right type.
        unsafe {
            if libc::sigpending(&raw mut pending) != 0
                || libc::sigismember(&raw const pending, libc::SIGPIPE) == 1
                || libc::pthread_sigmask(libc::SIG_BLOCK, &raw const sigpipe, &raw mut before) != 0
            {
                return Self { before: None };
            }
            Self { before: Some(before) }
        }
    }
}

impl Drop for SigpipeBlocked {
    fn drop(&mut self) {
        let Some(before) = self.before else { return };
        let sigpipe = sigpipe();
        let no_wait = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: all pointers are to local variables of the right type, and sigtimedwait takes
        // NULL for the details. SIGPIPE is blocked here, so waiting for it without delay takes a
        // pending one and otherwise returns at once.
        unsafe {
            libc::sigtimedwait(&raw const sigpipe, ptr::null_mut(), &raw const no_wait);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        }
    }
}

/// The set that has only SIGPIPE in it.
fn sigpipe() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data, for which zero is a value; the pointers are to a local one.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGPIPE);
        set
    }
}

/// A result that is wiped when it has been delivered.
struct Secret(Output);

impl Drop for Secret {
    fn drop(&mut self) {
        if let Output::Bytes(bytes) = &mut self.0 {
            zeroize::Zeroize::zeroize(bytes);
        }
    }
}

/// A pointer that is there and aligned.
fn required<T>(pointer: *mut T) -> Result<*mut T> {
    if pointer.is_null() || !pointer.is_aligned() {
        Err(Rv(CKR_ARGUMENTS_BAD))
    } else {
        Ok(pointer)
    }
}

/// Writes one value. Needs the caller's guarantee.
unsafe fn put<T>(pointer: *mut T, value: T) -> Result<()> {
    let pointer = required(pointer)?;
    // SAFETY: there and aligned; writable by the caller's guarantee.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Reads one value. Needs the caller's guarantee.
unsafe fn read<T: Copy>(pointer: *mut T) -> Result<T> {
    let pointer = required(pointer)?;
    // SAFETY: there and aligned; readable and initialised by the caller's guarantee.
    Ok(unsafe { pointer.read() })
}

/// Input bytes, not copied. Needs the caller's guarantee for as long as the slice is used.
unsafe fn bytes<'a>(start: *mut u8, length: CK_ULONG) -> Result<&'a [u8]> {
    let length = to_usize(length);
    if length == 0 {
        return Ok(&[]);
    }
    let start = required(start)?;
    // No object is longer, and a slice must not be.
    if length > isize::MAX as usize {
        return Err(Rv(CKR_ARGUMENTS_BAD));
    }
    // SAFETY: there, of a possible length, readable by the caller's guarantee.
    Ok(unsafe { std::slice::from_raw_parts(start, length) })
}

/// A PIN. NULL would ask for a keypad, which there is none of. Needs the caller's guarantee.
unsafe fn pin_bytes<'a>(start: *mut u8, length: CK_ULONG) -> Result<&'a [u8]> {
    // SAFETY: the caller's guarantee is passed on.
    unsafe { bytes(required(start)?, length) }
}

/// The room for a result. Needs the caller's guarantee.
unsafe fn room(output: *mut u8, length: *mut CK_ULONG) -> Result<Room> {
    // SAFETY: the caller's guarantee is passed on.
    let available = unsafe { read(length)? };
    Ok(if output.is_null() { Room::Query } else { Room::Bytes(to_usize(available)) })
}

/// Writes a result or its length. Needs the caller's guarantee; the room was checked before.
unsafe fn deliver(result: &Output, output: *mut u8, length: *mut CK_ULONG) -> Result<()> {
    let told = match result {
        Output::Bytes(bytes) => bytes.len(),
        Output::Length(told) | Output::TooSmall(told) => *told,
    };
    // SAFETY: the caller's guarantee is passed on; `Room::give` has made sure that the bytes fit.
    unsafe {
        if let Output::Bytes(bytes) = result {
            ptr::copy_nonoverlapping(bytes.as_ptr(), output, bytes.len());
        }
        put(length, told as CK_ULONG)?;
    }
    match result {
        Output::TooSmall(_) => Err(Rv(CKR_BUFFER_TOO_SMALL)),
        _ => Ok(()),
    }
}

/// Writes a list, or its length if there is no buffer. Needs the caller's guarantee.
unsafe fn put_list<T: Copy>(
    list: *mut T,
    count: *mut CK_ULONG,
    produce: impl FnOnce() -> Result<Vec<T>>,
) -> Result<()> {
    // SAFETY: the caller's guarantee is passed on; the list is written only if it fits.
    unsafe {
        let available = to_usize(read(count)?);
        let produced = produce()?;
        if !list.is_null() && available >= produced.len() {
            let list = required(list)?;
            ptr::copy_nonoverlapping(produced.as_ptr(), list, produced.len());
        }
        put(count, produced.len() as CK_ULONG)?;
        if list.is_null() || available >= produced.len() {
            Ok(())
        } else {
            Err(Rv(CKR_BUFFER_TOO_SMALL))
        }
    }
}

/// The attributes of an array. Needs the caller's guarantee.
unsafe fn attributes(start: *mut CK_ATTRIBUTE, count: CK_ULONG) -> Result<Vec<CK_ATTRIBUTE>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let start = required(start)?;
    if count > ATTRIBUTES_MAX {
        return Err(Rv(CKR_ARGUMENTS_BAD));
    }
    // SAFETY: there, aligned, of a sane length; readable by the caller's guarantee.
    Ok(unsafe { std::slice::from_raw_parts(start, to_usize(count)) }.to_vec())
}

/// A template, copied. Needs the caller's guarantee.
unsafe fn template(start: *mut CK_ATTRIBUTE, count: CK_ULONG) -> Result<Vec<Attribute>> {
    // SAFETY: the caller's guarantee is passed on; each value is bounded before it is copied.
    unsafe {
        let copy = |attribute: &CK_ATTRIBUTE| {
            if attribute.ulValueLen > ATTRIBUTE_BYTES_MAX {
                return Err(Rv(CKR_ATTRIBUTE_VALUE_INVALID));
            }
            let value = bytes(attribute.pValue.cast(), attribute.ulValueLen)?;
            Ok(Attribute { kind: attribute.type_, value: value.to_vec() })
        };
        attributes(start, count)?.iter().map(copy).collect()
    }
}

/// The questions of `C_GetAttributeValue`. Needs the caller's guarantee.
unsafe fn questions(start: *mut CK_ATTRIBUTE, count: CK_ULONG) -> Result<Vec<Question>> {
    let question = |attribute: &CK_ATTRIBUTE| Question {
        kind: attribute.type_,
        room: (!attribute.pValue.is_null()).then_some(to_usize(attribute.ulValueLen)),
    };
    // SAFETY: the caller's guarantee is passed on.
    Ok(unsafe { attributes(start, count)? }.iter().map(question).collect())
}

/// A mechanism; `None` for NULL. Needs the caller's guarantee, for the IV buffer of an AES-GCM
/// encryption until that has ended.
unsafe fn mechanism(mechanism: *mut CK_MECHANISM) -> Result<Option<Mechanism>> {
    if mechanism.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's guarantee is passed on, for a structure only if its length is given.
    unsafe {
        let CK_MECHANISM { mechanism: kind, pParameter: start, ulParameterLen: length } =
            read(mechanism)?;
        let is = |size: usize| !start.is_null() && to_usize(length) == size;
        let parameter = match kind {
            CKM_AES_GCM if is(size_of::<CK_GCM_PARAMS>()) => {
                Parameter::Gcm(gcm_parameter(read(start.cast())?)?)
            }
            CKM_RSA_PKCS_PSS | CKM_SHA256_RSA_PKCS_PSS
                if is(size_of::<CK_RSA_PKCS_PSS_PARAMS>()) =>
            {
                Parameter::Pss(read(start.cast())?)
            }
            // A length of 0 is no parameter, whatever the pointer.
            _ if length == 0 => Parameter::None,
            _ => Parameter::Other,
        };
        Ok(Some(Mechanism { kind, parameter }))
    }
}

/// Needs the caller's guarantee for the pointers inside.
unsafe fn gcm_parameter(parameters: CK_GCM_PARAMS) -> Result<GcmParameter> {
    let CK_GCM_PARAMS { pIv, ulIvLen, ulIvBits: _, pAAD, ulAADLen, ulTagBits } = parameters;
    if ulIvLen > ATTRIBUTE_BYTES_MAX || ulAADLen > ATTRIBUTE_BYTES_MAX {
        return Err(Rv(CKR_MECHANISM_PARAM_INVALID));
    }
    // SAFETY: the caller's guarantee is passed on; the lengths are bounded.
    unsafe {
        Ok(GcmParameter {
            iv: bytes(pIv, ulIvLen)?.to_vec(),
            iv_buffer: CallerBuffer { start: pIv, length: to_usize(ulIvLen) },
            additional_data: bytes(pAAD, ulAADLen)?.to_vec(),
            tag_bits: ulTagBits,
        })
    }
}

/// The arguments of `C_Initialize`. Needs the caller's guarantee.
unsafe fn initialize_arguments(arguments: *mut c_void) -> Result<Option<InitializeArguments>> {
    if arguments.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's guarantee is passed on.
    let CK_C_INITIALIZE_ARGS {
        CreateMutex,
        DestroyMutex,
        LockMutex,
        UnlockMutex,
        flags,
        pReserved,
    } = unsafe { read(arguments.cast())? };
    let functions =
        [CreateMutex.is_some(), DestroyMutex.is_some(), LockMutex.is_some(), UnlockMutex.is_some()];
    Ok(Some(InitializeArguments {
        flags,
        mutex_functions: functions.iter().filter(|there| **there).count(),
        has_reserved: !pReserved.is_null(),
    }))
}

/// Whether a C string is the name of the standard interface. Reads no further than that is long.
/// Needs the caller's guarantee.
unsafe fn is_standard_name(name: *const CK_UTF8CHAR) -> bool {
    // SAFETY: `all` stops at the first byte that differs, so no byte after the string's end, which
    // is zero, is read.
    INTERFACE_NAME.iter().enumerate().all(|(index, byte)| unsafe { *name.add(index) } == *byte)
}

/// Lengths of C are as wide as ours wherever PKCS#11 modules are loaded; a longer one could not
/// belong to anything in memory, and becomes one that is refused.
fn to_usize(length: CK_ULONG) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// A pointer in a table that is never written to.
#[repr(transparent)]
pub(crate) struct Exported(CK_INTERFACE);

// SAFETY: it points to other statics of this file, and nothing is ever written through it.
unsafe impl Sync for Exported {}

const fn interface(list: *const c_void) -> Exported {
    Exported(CK_INTERFACE {
        pInterfaceName: INTERFACE_NAME.as_ptr().cast_mut(),
        pFunctionList: list.cast_mut(),
        flags: 0,
    })
}

/// The newest first: it is the one for those who do not mind.
static INTERFACES: [Exported; 3] = [
    interface((&raw const LIST_3_2).cast()),
    interface((&raw const LIST_3_0).cast()),
    interface((&raw const LIST_2_40).cast()),
];

const VERSIONS: [(u8, u8); 3] = [(3, 2), (3, 0), (2, 40)];

static INTERFACE_NAME: [u8; 8] = *b"PKCS 11\0";

/// The longest template that is read, and the longest value in one.
const ATTRIBUTES_MAX: CK_ULONG = 256;
const ATTRIBUTE_BYTES_MAX: CK_ULONG = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_closed_connection_does_not_kill_a_host_that_does_not_ignore_sigpipe() {
        // SAFETY: the child does nothing but system calls.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as Rust's own start-up code does, the other way round.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            let code = without_sigpipe(|| match UnixStream::pair() {
                Ok((mut ours, theirs)) => {
                    drop(theirs);
                    i32::from(ours.write_all(b"x").is_ok())
                }
                Err(_) => 2,
            });
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: the pointer is to a local variable.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert!(libc::WIFEXITED(status), "killed by signal {}", libc::WTERMSIG(status));
        assert_eq!(libc::WEXITSTATUS(status), 0);
    }

    #[test]
    fn a_panic_becomes_an_error_code() {
        assert_eq!(guarded(|| panic!("as the test wants")), CKR_GENERAL_ERROR);
    }

    #[test]
    fn impossible_lengths_are_refused_before_anything_is_read() {
        let mut byte = 7;
        let start = &raw mut byte;
        // SAFETY: the lengths that the byte does not have are refused without a look at it.
        unsafe {
            assert_eq!(bytes(start, 1), Ok(&[7][..]));
            assert_eq!(bytes(ptr::null_mut(), 0), Ok(&[][..]));
            assert_eq!(bytes(ptr::null_mut(), 1), Err(Rv(CKR_ARGUMENTS_BAD)));
            assert_eq!(bytes(start, CK_ULONG::MAX), Err(Rv(CKR_ARGUMENTS_BAD)));
            let mut attribute = CK_ATTRIBUTE {
                type_: CKA_LABEL,
                pValue: start.cast(),
                ulValueLen: ATTRIBUTE_BYTES_MAX + 1,
            };
            let refused = template(&raw mut attribute, 1);
            assert_eq!(refused, Err(Rv(CKR_ATTRIBUTE_VALUE_INVALID)));
            assert_eq!(template(&raw mut attribute, 257), Err(Rv(CKR_ARGUMENTS_BAD)));
        }
    }
}
