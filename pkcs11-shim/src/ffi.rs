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
use crate::call::cipher::{self, Direction};
use crate::call::general::InitializeArguments;
use crate::call::{digest, general, key_management, object, random, session, sign, slot_token};
use crate::interface;
use crate::mechanism::any_row;
use crate::output::{Output, Room};
use crate::parameter::{
    Aead, Hkdf, KdfCounter, Mechanism, Oaep, Parameter, Piece, TAG_BITS, Takes,
};
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

/// Defines C functions by the shape of their arguments and the safe function behind each.
macro_rules! shapes {
    ($($shape:ident $name:ident = $call:expr;)*) => {$( shape! { $shape $name $call } )*};
}

macro_rules! shape {
    (init $name:ident $call:expr) => {
        entries! {
            pub(crate) fn $name(
                session: CK_SESSION_HANDLE,
                kind: *mut CK_MECHANISM,
                key: CK_OBJECT_HANDLE,
            ) {
                ($call)(session, mechanism(kind), key)
            }
        }
    };
    (whole $name:ident $call:expr) => {
        entries! {
            pub(crate) fn $name(
                session: CK_SESSION_HANDLE,
                data: *mut CK_BYTE,
                data_length: CK_ULONG,
                output: *mut CK_BYTE,
                length: *mut CK_ULONG,
            ) {
                let room = room(output, length);
                let result = Secret(($call)(session, bytes(data, data_length), room)?);
                deliver(&result.0, output, length)
            }
        }
    };
    (part $name:ident $call:expr) => {
        entries! {
            pub(crate) fn $name(
                session: CK_SESSION_HANDLE,
                data: *mut CK_BYTE,
                data_length: CK_ULONG,
            ) {
                ($call)(session, bytes(data, data_length))
            }
        }
    };
    (last $name:ident $call:expr) => {
        entries! {
            pub(crate) fn $name(
                session: CK_SESSION_HANDLE,
                output: *mut CK_BYTE,
                length: *mut CK_ULONG,
            ) {
                let result = Secret(($call)(session, room(output, length))?);
                deliver(&result.0, output, length)
            }
        }
    };
    (handle $name:ident $call:expr) => {
        entries! {
            // Sessions and slots have numbers of one type.
            pub(crate) fn $name(handle: CK_ULONG) {
                ($call)(handle)
            }
        }
    };
    (check $name:ident $call:expr) => {
        entries! {
            pub(crate) fn $name(
                session: CK_SESSION_HANDLE,
                data: *mut CK_BYTE,
                data_length: CK_ULONG,
                signature: *mut CK_BYTE,
                signature_length: CK_ULONG,
            ) {
                ($call)(session, bytes(data, data_length), bytes(signature, signature_length))
            }
        }
    };
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
        put(required(list)?, interface::list_2_40())
    }

    pub fn C_GetInterfaceList(list: *mut CK_INTERFACE, count: *mut CK_ULONG) {
        put_list(list, count, || Ok(interface::all()))
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
        let found = interface::find(version).filter(|_| named && flags == 0);
        put(interface, found.ok_or(Rv(CKR_FUNCTION_FAILED))?)
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

    pub(crate) fn C_CopyObject(
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        attributes: *mut CK_ATTRIBUTE,
        count: CK_ULONG,
        copy: *mut CK_OBJECT_HANDLE,
    ) {
        let copy = required(copy)?;
        put(copy, object::copy(session, object, &template(attributes, count)?)?)
    }

    pub(crate) fn C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) {
        object::destroy(session, object)
    }
}

// What ends something.
shapes! {
    handle C_CloseSession = session::close;
    handle C_CloseAllSessions = session::close_all;
    handle C_Logout = session::log_out;
    handle C_FindObjectsFinal = object::find_final;
}

// What is done with keys, and digests. Every `Init` takes a mechanism and a key, what follows takes
// data, or gives a result out, or both.
shapes! {
    init C_EncryptInit = |session, mechanism, key| cipher::init(Direction::Encrypt, session, mechanism, key);
    whole C_Encrypt = |session, data, room| cipher::whole(Direction::Encrypt, session, data, room);
    whole C_EncryptUpdate = |session, data, room| cipher::part(Direction::Encrypt, session, data, room);
    last C_EncryptFinal = |session, room| cipher::last(Direction::Encrypt, session, room);
    init C_DecryptInit = |session, mechanism, key| cipher::init(Direction::Decrypt, session, mechanism, key);
    whole C_Decrypt = |session, data, room| cipher::whole(Direction::Decrypt, session, data, room);
    whole C_DecryptUpdate = |session, data, room| cipher::part(Direction::Decrypt, session, data, room);
    last C_DecryptFinal = |session, room| cipher::last(Direction::Decrypt, session, room);
    whole C_Digest = digest::digest;
    part C_DigestUpdate = digest::update;
    last C_DigestFinal = digest::finish;
    init C_SignInit = sign::sign_init;
    whole C_Sign = sign::sign;
    part C_SignUpdate = sign::sign_update;
    last C_SignFinal = sign::sign_final;
    init C_VerifyInit = sign::verify_init;
    check C_Verify = sign::verify;
    part C_VerifyUpdate = sign::verify_update;
    part C_VerifyFinal = sign::verify_final;
}

entries! {
    pub(crate) fn C_DigestInit(session: CK_SESSION_HANDLE, kind: *mut CK_MECHANISM) {
        digest::init(session, mechanism(kind))
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
        let mechanism = given(kind)?;
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
        let mechanism = given(kind)?;
        let public_template = template(public_attributes, public_count)?;
        let private_template = template(private_attributes, private_count)?;
        let (public, private) = key_management::generate_key_pair(
            session, &mechanism, &public_template, &private_template,
        )?;
        put(public_key, public)?;
        put(private_key, private)
    }

    pub(crate) fn C_WrapKey(
        session: CK_SESSION_HANDLE,
        kind: *mut CK_MECHANISM,
        wrapping_key: CK_OBJECT_HANDLE,
        key: CK_OBJECT_HANDLE,
        output: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) {
        let room = room(output, length)?;
        let wrapped = key_management::wrap(session, given(kind)?, wrapping_key, key, room)?;
        deliver(&wrapped, output, length)
    }

    pub(crate) fn C_UnwrapKey(
        session: CK_SESSION_HANDLE,
        kind: *mut CK_MECHANISM,
        unwrapping_key: CK_OBJECT_HANDLE,
        wrapped: *mut CK_BYTE,
        wrapped_length: CK_ULONG,
        attributes: *mut CK_ATTRIBUTE,
        count: CK_ULONG,
        key: *mut CK_OBJECT_HANDLE,
    ) {
        let key = required(key)?;
        let (wrapped, template) = (bytes(wrapped, wrapped_length)?, template(attributes, count)?);
        let unwrapped =
            key_management::unwrap(session, given(kind)?, unwrapping_key, wrapped, &template)?;
        put(key, unwrapped)
    }

    pub(crate) fn C_DeriveKey(
        session: CK_SESSION_HANDLE,
        kind: *mut CK_MECHANISM,
        base: CK_OBJECT_HANDLE,
        attributes: *mut CK_ATTRIBUTE,
        count: CK_ULONG,
        key: *mut CK_OBJECT_HANDLE,
    ) {
        let key = required(key)?;
        let template = template(attributes, count)?;
        put(key, key_management::derive(session, given(kind)?, base, &template)?)
    }

    pub(crate) fn C_EncapsulateKey(
        session: CK_SESSION_HANDLE,
        kind: *mut CK_MECHANISM,
        public_key: CK_OBJECT_HANDLE,
        attributes: *mut CK_ATTRIBUTE,
        count: CK_ULONG,
        output: *mut CK_BYTE,
        length: *mut CK_ULONG,
        key: *mut CK_OBJECT_HANDLE,
    ) {
        let (mechanism, template) = (given(kind)?, template(attributes, count)?);
        let room = room(output, length)?;
        // Who asks for the length has no place for the key yet.
        let key = if room == Room::Query { key } else { required(key)? };
        let (ciphertext, made) =
            key_management::encapsulate(session, &mechanism, public_key, &template, room)?;
        if let Some(made) = made {
            put(key, made)?;
        }
        deliver(&ciphertext, output, length)
    }

    pub(crate) fn C_DecapsulateKey(
        session: CK_SESSION_HANDLE,
        kind: *mut CK_MECHANISM,
        private_key: CK_OBJECT_HANDLE,
        attributes: *mut CK_ATTRIBUTE,
        count: CK_ULONG,
        ciphertext: *mut CK_BYTE,
        ciphertext_length: CK_ULONG,
        key: *mut CK_OBJECT_HANDLE,
    ) {
        let key = required(key)?;
        let (mechanism, template) = (given(kind)?, template(attributes, count)?);
        let ciphertext = bytes(ciphertext, ciphertext_length)?;
        let made =
            key_management::decapsulate(session, &mechanism, private_key, &template, ciphertext)?;
        put(key, made)
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
    C_DigestKey(CK_SESSION_HANDLE, CK_OBJECT_HANDLE);
    C_SignRecoverInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_SignRecover(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_VerifyRecoverInit(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);
    C_VerifyRecover(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_DigestEncryptUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_DecryptDigestUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_SignEncryptUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
    C_DecryptVerifyUpdate(CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
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

/// A buffer of the caller that is written to in a later call: the IV of an authenticated encryption.
pub(crate) struct CallerBuffer {
    start: *mut u8,
    length: usize,
}

// SAFETY: the buffer belongs to the operation until that ends, as PKCS#11 has it for a mechanism's
// output parameters, and the operation is locked whenever it is used.
unsafe impl Send for CallerBuffer {}

impl CallerBuffer {
    /// No buffer, for tests that write nothing.
    #[cfg(test)]
    pub(crate) const fn none() -> Self {
        Self { start: ptr::null_mut(), length: 0 }
    }

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

/// A mechanism; `None` for NULL. Needs the caller's guarantee, for the IV buffer of an authenticated
/// encryption until that has ended.
unsafe fn mechanism(mechanism: *mut CK_MECHANISM) -> Result<Option<Mechanism>> {
    if mechanism.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's guarantee is passed on.
    unsafe {
        let CK_MECHANISM { mechanism: kind, pParameter: start, ulParameterLen: length } =
            read(mechanism)?;
        let parameter = match any_row(kind) {
            // A length of 0 is no parameter, whatever the pointer.
            _ if length == 0 => Parameter::None,
            Some(row) => parameter(row.takes, start, length).unwrap_or(Parameter::Other),
            None => Parameter::Other,
        };
        Ok(Some(Mechanism { kind, parameter }))
    }
}

/// A mechanism that must be there. Needs the caller's guarantee as [`mechanism`] does.
unsafe fn given(kind: *mut CK_MECHANISM) -> Result<Mechanism> {
    // SAFETY: the caller's guarantee is passed on.
    unsafe { mechanism(kind)?.ok_or(Rv(CKR_ARGUMENTS_BAD)) }
}

/// A parameter of the form that the mechanism takes. Needs the caller's guarantee for the structure and
/// the pointers inside.
unsafe fn parameter(takes: Takes, start: *mut c_void, length: CK_ULONG) -> Result<Parameter> {
    // SAFETY: the caller's guarantee is passed on; structures are read only in their full length.
    unsafe {
        Ok(match takes {
            Takes::Nothing => Parameter::Other,
            Takes::Iv16 | Takes::KwIv | Takes::KwpIv => Parameter::Bytes(piece(start, length)?),
            Takes::Gcm => {
                let CK_GCM_PARAMS { pIv, ulIvLen, ulIvBits: _, pAAD, ulAADLen, ulTagBits } =
                    structure(start, length)?;
                Parameter::Aead(aead((pIv, ulIvLen), (pAAD, ulAADLen), ulTagBits)?)
            }
            Takes::ChaCha => {
                let CK_SALSA20_CHACHA20_POLY1305_PARAMS { pNonce, ulNonceLen, pAAD, ulAADLen } =
                    structure(start, length)?;
                Parameter::Aead(aead((pNonce, ulNonceLen), (pAAD, ulAADLen), TAG_BITS)?)
            }
            Takes::Counter => {
                let CK_AES_CTR_PARAMS { ulCounterBits: bits, cb: block } =
                    structure(start, length)?;
                Parameter::Counter { bits, block }
            }
            Takes::Pss => Parameter::Pss(structure(start, length)?),
            Takes::Oaep => {
                let CK_RSA_PKCS_OAEP_PARAMS { hashAlg, mgf, source, pSourceData, ulSourceDataLen } =
                    structure(start, length)?;
                let label = piece(pSourceData, ulSourceDataLen)?;
                Parameter::Oaep(Oaep { hash: hashAlg, mgf, source, label })
            }
            Takes::Ecdh => {
                let CK_ECDH1_DERIVE_PARAMS {
                    kdf,
                    ulSharedDataLen,
                    pSharedData,
                    ulPublicDataLen,
                    pPublicData,
                } = structure(start, length)?;
                Parameter::Ecdh {
                    kdf,
                    shared: piece(pSharedData.cast(), ulSharedDataLen)?,
                    public: piece(pPublicData.cast(), ulPublicDataLen)?,
                }
            }
            Takes::EdDsa => {
                let CK_EDDSA_PARAMS { phFlag, ulContextDataLen, pContextData } =
                    structure(start, length)?;
                let context = piece(pContextData.cast(), ulContextDataLen)?;
                Parameter::EdDsa { prehash: phFlag != CK_FALSE, context }
            }
            Takes::Context => {
                let CK_SIGN_ADDITIONAL_CONTEXT { hedgeVariant, pContext, ulContextLen } =
                    structure(start, length)?;
                let context = piece(pContext.cast(), ulContextLen)?;
                Parameter::Context { hedge: hedgeVariant, context }
            }
            Takes::Hkdf => Parameter::Hkdf(hkdf(structure(start, length)?)?),
            Takes::KdfCounter => Parameter::KdfCounter(kdf_counter(structure(start, length)?)?),
        })
    }
}

/// Needs the caller's guarantee for the two buffers.
unsafe fn aead(
    (iv, iv_length): (*mut u8, CK_ULONG),
    (data, data_length): (*mut u8, CK_ULONG),
    tag_bits: CK_ULONG,
) -> Result<Aead> {
    // SAFETY: the caller's guarantee is passed on.
    unsafe {
        Ok(Aead {
            iv: piece(iv.cast(), iv_length)?,
            iv_buffer: CallerBuffer { start: iv, length: to_usize(iv_length) },
            additional_data: piece(data.cast(), data_length)?,
            tag_bits,
        })
    }
}

/// Needs the caller's guarantee for the pointers inside.
unsafe fn hkdf(parameters: CK_HKDF_PARAMS) -> Result<Hkdf> {
    let CK_HKDF_PARAMS {
        bExtract,
        bExpand,
        prfHashMechanism,
        ulSaltType,
        pSalt,
        ulSaltLen,
        hSaltKey: _,
        pInfo,
        ulInfoLen,
    } = parameters;
    // A salt that is not of this type is not looked at.
    let salt_length = if ulSaltType == CKF_HKDF_SALT_DATA { ulSaltLen } else { 0 };
    // SAFETY: the caller's guarantee is passed on.
    unsafe {
        Ok(Hkdf {
            extract: bExtract != CK_FALSE,
            expand: bExpand != CK_FALSE,
            hash: prfHashMechanism,
            salt_type: ulSaltType,
            salt: piece(pSalt.cast(), salt_length)?,
            info: piece(pInfo.cast(), ulInfoLen)?,
        })
    }
}

/// Needs the caller's guarantee for the pointers inside.
unsafe fn kdf_counter(parameters: CK_SP800_108_KDF_PARAMS) -> Result<KdfCounter> {
    let CK_SP800_108_KDF_PARAMS {
        prfType,
        ulNumberOfDataParams: count,
        pDataParams,
        ulAdditionalDerivedKeys,
        pAdditionalDerivedKeys: _,
    } = parameters;
    if count == 0 || count > PIECES_MAX {
        return Err(Rv(CKR_MECHANISM_PARAM_INVALID));
    }
    // SAFETY: there, aligned, of a sane length; readable by the caller's guarantee, which is passed on.
    unsafe {
        let pieces = std::slice::from_raw_parts(required(pDataParams)?, to_usize(count));
        let piece = |one: &CK_PRF_DATA_PARAM| {
            let CK_PRF_DATA_PARAM { type_, pValue, ulValueLen } = *one;
            Ok(match type_ {
                CK_SP800_108_BYTE_ARRAY => Piece::Bytes(piece(pValue, ulValueLen)?),
                CK_SP800_108_ITERATION_VARIABLE => {
                    let CK_SP800_108_COUNTER_FORMAT { bLittleEndian, ulWidthInBits: bits } =
                        structure(pValue, ulValueLen)?;
                    Piece::Counter { little_endian: bLittleEndian != CK_FALSE, bits }
                }
                CK_SP800_108_DKM_LENGTH => {
                    let CK_SP800_108_DKM_LENGTH_FORMAT {
                        dkmLengthMethod: method,
                        bLittleEndian,
                        ulWidthInBits: bits,
                    } = structure(pValue, ulValueLen)?;
                    Piece::Length { method, little_endian: bLittleEndian != CK_FALSE, bits }
                }
                _ => Piece::Other,
            })
        };
        let pieces = pieces.iter().map(piece).collect::<Result<_>>()?;
        Ok(KdfCounter { prf: prfType, pieces, further_keys: ulAdditionalDerivedKeys })
    }
}

/// A structure, which must have its full length. Needs the caller's guarantee.
unsafe fn structure<T: Copy>(start: *mut c_void, length: CK_ULONG) -> Result<T> {
    if to_usize(length) != size_of::<T>() {
        return Err(Rv(CKR_MECHANISM_PARAM_INVALID));
    }
    // SAFETY: the caller's guarantee is passed on.
    unsafe { read(start.cast()) }
}

/// Bytes of a parameter, copied. Needs the caller's guarantee.
unsafe fn piece(start: *mut c_void, length: CK_ULONG) -> Result<Vec<u8>> {
    if length > ATTRIBUTE_BYTES_MAX {
        return Err(Rv(CKR_MECHANISM_PARAM_INVALID));
    }
    // SAFETY: the caller's guarantee is passed on; the length is bounded.
    Ok(unsafe { bytes(start.cast(), length)? }.to_vec())
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
    interface::NAME.iter().enumerate().all(|(index, byte)| unsafe { *name.add(index) } == *byte)
}

/// Lengths of C are as wide as ours wherever PKCS#11 modules are loaded; a longer one could not
/// belong to anything in memory, and becomes one that is refused.
fn to_usize(length: CK_ULONG) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// A table of the standard that is never written to.
#[repr(transparent)]
pub(crate) struct Exported(pub(crate) CK_INTERFACE);

// SAFETY: it points to other statics, and nothing is ever written through it.
unsafe impl Sync for Exported {}

/// The longest template that is read, and the longest value in one.
const ATTRIBUTES_MAX: CK_ULONG = 256;
const ATTRIBUTE_BYTES_MAX: CK_ULONG = 64 * 1024;

/// The most pieces of a key derivation's input.
const PIECES_MAX: CK_ULONG = 16;

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

    /// The parameter that is read from these bytes as a structure of this mechanism.
    fn read_parameter(kind: CK_MECHANISM_TYPE, start: *mut c_void, length: usize) -> Parameter {
        let ulParameterLen = length as CK_ULONG;
        let mut given = CK_MECHANISM { mechanism: kind, pParameter: start, ulParameterLen };
        // SAFETY: what the tests hand in is there in its full length, or NULL.
        unsafe { mechanism(&raw mut given) }.unwrap().unwrap().parameter
    }

    fn is_refused(kind: CK_MECHANISM_TYPE, start: *mut c_void, length: usize) -> bool {
        matches!(read_parameter(kind, start, length), Parameter::Other)
    }

    #[test]
    fn structures_of_another_length_or_at_null_are_never_read() {
        let mut room = [0_u64; 32];
        let start: *mut c_void = room.as_mut_ptr().cast();
        for (kind, size) in [
            (CKM_AES_GCM, size_of::<CK_GCM_PARAMS>()),
            (CKM_CHACHA20_POLY1305, size_of::<CK_SALSA20_CHACHA20_POLY1305_PARAMS>()),
            (CKM_AES_CTR, size_of::<CK_AES_CTR_PARAMS>()),
            (CKM_RSA_PKCS_PSS, size_of::<CK_RSA_PKCS_PSS_PARAMS>()),
            (CKM_SHA512_RSA_PKCS_PSS, size_of::<CK_RSA_PKCS_PSS_PARAMS>()),
            (CKM_RSA_PKCS_OAEP, size_of::<CK_RSA_PKCS_OAEP_PARAMS>()),
            (CKM_ECDH1_DERIVE, size_of::<CK_ECDH1_DERIVE_PARAMS>()),
            (CKM_EDDSA, size_of::<CK_EDDSA_PARAMS>()),
            (CKM_ML_DSA, size_of::<CK_SIGN_ADDITIONAL_CONTEXT>()),
            (CKM_SLH_DSA, size_of::<CK_SIGN_ADDITIONAL_CONTEXT>()),
            (CKM_HKDF_DERIVE, size_of::<CK_HKDF_PARAMS>()),
        ] {
            assert!(!is_refused(kind, start, size), "{kind:#x}");
            assert!(is_refused(kind, start, size - 1), "{kind:#x}");
            assert!(is_refused(kind, start, size + 8), "{kind:#x}");
            assert!(is_refused(kind, ptr::null_mut(), size), "{kind:#x}");
            assert!(is_refused(kind, start.wrapping_byte_add(1), size), "{kind:#x}");
            assert!(matches!(read_parameter(kind, start, 0), Parameter::None));
        }
        // Mechanisms without a parameter, and none of ours.
        for kind in [CKM_ECDSA, CKM_SHA256, CKM_ML_KEM, CKM_DES3_CBC] {
            assert!(is_refused(kind, start, 8), "{kind:#x}");
        }
        assert!(is_refused(CKM_AES_CBC, ptr::null_mut(), 16));
        assert!(is_refused(CKM_AES_CBC, start, usize::MAX));
    }

    #[test]
    fn null_inside_a_structure_is_refused_where_bytes_must_be() {
        let none = ptr::null_mut();
        let (mut bytes, long) = ([7_u8; 4], ATTRIBUTE_BYTES_MAX + 1);
        let there = bytes.as_mut_ptr();
        for (pointer, length, refused) in
            [(there, 4, false), (none, 0, false), (none, 4, true), (there, long, true)]
        {
            let mut gcm = CK_GCM_PARAMS {
                pIv: pointer,
                ulIvLen: length,
                ulIvBits: 0,
                pAAD: none,
                ulAADLen: 0,
                ulTagBits: 128,
            };
            let mut oaep = CK_RSA_PKCS_OAEP_PARAMS {
                hashAlg: CKM_SHA256,
                mgf: CKG_MGF1_SHA256,
                source: CKZ_DATA_SPECIFIED,
                pSourceData: pointer.cast(),
                ulSourceDataLen: length,
            };
            let mut ecdh = CK_ECDH1_DERIVE_PARAMS {
                kdf: CKD_NULL,
                ulSharedDataLen: 0,
                pSharedData: none,
                ulPublicDataLen: length,
                pPublicData: pointer,
            };
            let mut context = CK_SIGN_ADDITIONAL_CONTEXT {
                hedgeVariant: CKH_HEDGE_PREFERRED,
                pContext: pointer,
                ulContextLen: length,
            };
            for (kind, start, size) in [
                (CKM_AES_GCM, (&raw mut gcm).cast(), size_of_val(&gcm)),
                (CKM_RSA_PKCS_OAEP, (&raw mut oaep).cast(), size_of_val(&oaep)),
                (CKM_ECDH1_DERIVE, (&raw mut ecdh).cast(), size_of_val(&ecdh)),
                (CKM_ML_DSA, (&raw mut context).cast(), size_of_val(&context)),
            ] {
                assert_eq!(is_refused(kind, start, size), refused, "{kind:#x} {length}");
            }
        }
    }

    #[test]
    fn the_pieces_of_a_key_derivation_are_read_one_by_one() {
        let mut counter =
            CK_SP800_108_COUNTER_FORMAT { bLittleEndian: CK_FALSE, ulWidthInBits: 32 };
        let mut label = *b"label";
        let piece = |type_, pValue, length: usize| CK_PRF_DATA_PARAM {
            type_,
            pValue,
            ulValueLen: length as CK_ULONG,
        };
        let (format, size) = ((&raw mut counter).cast(), size_of_val(&counter));
        let mut pieces = [
            piece(CK_SP800_108_ITERATION_VARIABLE, format, size),
            piece(CK_SP800_108_BYTE_ARRAY, label.as_mut_ptr().cast(), 5),
        ];
        let read = |pieces: &mut [CK_PRF_DATA_PARAM], count: usize| {
            let mut kdf = CK_SP800_108_KDF_PARAMS {
                prfType: CKM_SHA256_HMAC,
                ulNumberOfDataParams: count as CK_ULONG,
                pDataParams: pieces.as_mut_ptr(),
                ulAdditionalDerivedKeys: 0,
                pAdditionalDerivedKeys: ptr::null_mut(),
            };
            let size = size_of_val(&kdf);
            match read_parameter(CKM_SP800_108_COUNTER_KDF, (&raw mut kdf).cast(), size) {
                Parameter::KdfCounter(read) => Some(read.pieces),
                _ => None,
            }
        };
        let expected =
            [Piece::Counter { little_endian: false, bits: 32 }, Piece::Bytes(b"label".to_vec())];
        assert_eq!(read(&mut pieces, 2).unwrap(), expected);
        assert_eq!(read(&mut pieces, 0), None);
        assert_eq!(read(&mut pieces, usize::MAX), None);
        pieces[0].ulValueLen -= 1;
        assert_eq!(read(&mut pieces, 2), None);
        pieces[0] = piece(CK_SP800_108_BYTE_ARRAY, ptr::null_mut(), 5);
        assert_eq!(read(&mut pieces, 2), None);
        pieces[0] = piece(CK_SP800_108_KEY_HANDLE, format, 8);
        assert_eq!(read(&mut pieces, 1).unwrap(), [Piece::Other]);
    }
}
