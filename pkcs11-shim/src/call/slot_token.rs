//! Slots and tokens: `C_GetSlotList` to `C_GetMechanismInfo`.

use cryptoki_sys::*;
use kms_proto::v1;

use crate::call::general::{LIBRARY_VERSION, padded};
use crate::connection;
use crate::mechanism;
use crate::module::{self, Module};
use crate::rv::{Result, Rv};

/// `C_GetSlotList`. The list is read anew when its length is asked for, so that it does not grow
/// between the two calls that the standard wants.
pub(crate) fn slot_list(length_asked: bool) -> Result<Vec<CK_SLOT_ID>> {
    let module = module::current()?;
    if length_asked || !module.tokens.is_listed() {
        refresh(&module)?;
    }
    Ok(module.tokens.slots())
}

/// `C_GetSlotInfo`.
pub(crate) fn slot_info(slot: CK_SLOT_ID) -> Result<CK_SLOT_INFO> {
    let module = module::current()?;
    require_slot(&module, slot)?;
    Ok(CK_SLOT_INFO {
        slotDescription: padded(&module.tokens.token(slot)?.ring),
        manufacturerID: padded("kms"),
        flags: CKF_TOKEN_PRESENT,
        hardwareVersion: LIBRARY_VERSION,
        firmwareVersion: LIBRARY_VERSION,
    })
}

/// `C_GetTokenInfo`.
pub(crate) fn token_info(slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO> {
    let module = module::current()?;
    require_slot(&module, slot)?;
    let token = module.tokens.token(slot)?;
    let sessions = module.sessions.count(slot);
    let mut flags = CKF_RNG | CKF_LOGIN_REQUIRED | CKF_TOKEN_INITIALIZED;
    if token.user_pin_set {
        flags |= CKF_USER_PIN_INITIALIZED;
    }
    Ok(CK_TOKEN_INFO {
        label: padded(&token.label),
        manufacturerID: padded("kms"),
        model: padded("key ring"),
        serialNumber: padded(&token.serial),
        flags,
        ulMaxSessionCount: CK_EFFECTIVELY_INFINITE,
        ulSessionCount: sessions.all as CK_ULONG,
        ulMaxRwSessionCount: CK_EFFECTIVELY_INFINITE,
        ulRwSessionCount: sessions.read_write as CK_ULONG,
        ulMaxPinLen: PIN_BYTES_MAX,
        ulMinPinLen: PIN_BYTES_MIN,
        ulTotalPublicMemory: CK_UNAVAILABLE_INFORMATION,
        ulFreePublicMemory: CK_UNAVAILABLE_INFORMATION,
        ulTotalPrivateMemory: CK_UNAVAILABLE_INFORMATION,
        ulFreePrivateMemory: CK_UNAVAILABLE_INFORMATION,
        hardwareVersion: LIBRARY_VERSION,
        firmwareVersion: LIBRARY_VERSION,
        utcTime: padded(""),
    })
}

/// `C_GetMechanismList`.
pub(crate) fn mechanism_list(slot: CK_SLOT_ID) -> Result<Vec<CK_MECHANISM_TYPE>> {
    let module = module::current()?;
    require_slot(&module, slot)?;
    let token = module.tokens.token(slot)?;
    let mut list = mechanism::list(&token.mechanisms);
    list.retain(|kind| mechanism::require_made(*kind, token.approved_only).is_ok());
    Ok(list)
}

/// `C_GetMechanismInfo`.
pub(crate) fn mechanism_info(
    slot: CK_SLOT_ID,
    kind: CK_MECHANISM_TYPE,
) -> Result<CK_MECHANISM_INFO> {
    let module = module::current()?;
    require_slot(&module, slot)?;
    let token = module.tokens.token(slot)?;
    mechanism::require_made(kind, token.approved_only)?;
    mechanism::info(kind, &token.mechanisms)
}

/// `C_WaitForSlotEvent`: slots never change while the module is loaded, so there is no event and
/// waiting for one would be forever.
pub(crate) fn wait_for_slot_event(flags: CK_FLAGS) -> Result<()> {
    module::current()?;
    Err(Rv(if flags & CKF_DONT_BLOCK != 0 { CKR_NO_EVENT } else { CKR_FUNCTION_NOT_SUPPORTED }))
}

/// Makes sure that a slot exists, for programs that know its number from before.
pub(crate) fn require_slot(module: &Module, slot: CK_SLOT_ID) -> Result<()> {
    if !module.tokens.is_listed() {
        refresh(module)?;
    }
    module.tokens.token(slot).map(drop)
}

fn refresh(module: &Module) -> Result<()> {
    let listed = connection::call!(module, None, ListTokens(v1::ListTokensRequest {}))?;
    module.tokens.refresh(listed.tokens)
}

/// Bounds of `SetTokenPin`.
const PIN_BYTES_MIN: CK_ULONG = 8;
pub(crate) const PIN_BYTES_MAX: CK_ULONG = 255;
