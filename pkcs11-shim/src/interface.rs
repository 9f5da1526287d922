//! The interfaces of PKCS#11 that the module offers, and their tables of functions.

use std::ffi::c_void;

use cryptoki_sys::*;

use crate::ffi::*;

/// The table of 2.40.
pub(crate) fn list_2_40() -> *mut CK_FUNCTION_LIST {
    (&raw const LIST_2_40).cast_mut()
}

/// All interfaces.
pub(crate) fn all() -> Vec<CK_INTERFACE> {
    INTERFACES.iter().map(|interface| interface.0).collect()
}

/// The interface of a version; the newest for those who do not mind. Ours are not fork-safe in the
/// sense of the flag: a child initialises anew.
pub(crate) fn find(version: Option<CK_VERSION>) -> Option<*mut CK_INTERFACE> {
    let wanted = |offered: &(u8, u8)| {
        version.is_none_or(|version| (version.major, version.minor) == *offered)
    };
    let index = VERSIONS.iter().position(wanted)?;
    INTERFACES.get(index).map(|found| (&raw const found.0).cast_mut())
}

/// The name of the standard interface, as C has it.
pub(crate) static NAME: [u8; 8] = *b"PKCS 11\0";

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

const fn interface(list: *const c_void) -> Exported {
    Exported(CK_INTERFACE {
        pInterfaceName: NAME.as_ptr().cast_mut(),
        pFunctionList: list.cast_mut(),
        flags: 0,
    })
}

/// The newest first.
static INTERFACES: [Exported; 3] = [
    interface((&raw const LIST_3_2).cast()),
    interface((&raw const LIST_3_0).cast()),
    interface((&raw const LIST_2_40).cast()),
];

const VERSIONS: [(u8, u8); 3] = [(3, 2), (3, 0), (2, 40)];
