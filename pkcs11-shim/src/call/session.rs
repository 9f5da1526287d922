//! Sessions and login: `C_OpenSession` to `C_SessionCancel`.

use cryptoki_sys::*;
use kms_proto::v1;
use zeroize::Zeroizing;

use crate::call::slot_token::{PIN_BYTES_MAX, require_slot};
use crate::connection;
use crate::module::{self, Module};
use crate::rv::{Result, Rv};

/// `C_OpenSession`.
pub(crate) fn open(slot: CK_SLOT_ID, flags: CK_FLAGS) -> Result<CK_SESSION_HANDLE> {
    let module = module::current()?;
    require_slot(&module, slot)?;
    if flags & CKF_SERIAL_SESSION == 0 {
        return Err(Rv(CKR_SESSION_PARALLEL_NOT_SUPPORTED));
    }
    let read_write = flags & CKF_RW_SESSION != 0;
    if !read_write && module.tokens.role(slot) == Some(v1::PinRole::SecurityOfficer) {
        return Err(Rv(CKR_SESSION_READ_WRITE_SO_EXISTS));
    }
    module.sessions.open(slot, read_write)
}

/// `C_CloseSession`. With the last session of a token its login ends (PKCS#11 v3.1 §5.6.3).
pub(crate) fn close(handle: CK_SESSION_HANDLE) -> Result<()> {
    let module = module::current()?;
    let (slot, left) = module.sessions.close(handle)?;
    if left.all == 0 {
        end_login(&module, slot);
    }
    Ok(())
}

/// `C_CloseAllSessions`.
pub(crate) fn close_all(slot: CK_SLOT_ID) -> Result<()> {
    let module = module::current()?;
    require_slot(&module, slot)?;
    module.sessions.close_all(slot);
    end_login(&module, slot);
    Ok(())
}

/// `C_GetSessionInfo`.
pub(crate) fn info(handle: CK_SESSION_HANDLE) -> Result<CK_SESSION_INFO> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    let state = match (module.tokens.role(session.slot), session.read_write) {
        (Some(v1::PinRole::SecurityOfficer), _) => CKS_RW_SO_FUNCTIONS,
        (Some(_), true) => CKS_RW_USER_FUNCTIONS,
        (Some(_), false) => CKS_RO_USER_FUNCTIONS,
        (None, true) => CKS_RW_PUBLIC_SESSION,
        (None, false) => CKS_RO_PUBLIC_SESSION,
    };
    let writes = if session.read_write { CKF_RW_SESSION } else { 0 };
    Ok(CK_SESSION_INFO {
        slotID: session.slot,
        state,
        flags: CKF_SERIAL_SESSION | writes,
        ulDeviceError: 0,
    })
}

/// `C_Login`.
pub(crate) fn log_in(handle: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: &[u8]) -> Result<()> {
    let module = module::current()?;
    let slot = module.sessions.find(handle)?.slot;
    let role = match user {
        CKU_SO => v1::PinRole::SecurityOfficer,
        CKU_USER => v1::PinRole::User,
        // No key here asks for a login of its own.
        CKU_CONTEXT_SPECIFIC => return Err(Rv(CKR_OPERATION_NOT_INITIALIZED)),
        _ => return Err(Rv(CKR_USER_TYPE_INVALID)),
    };
    match module.tokens.role(slot) {
        Some(already) if already == role => return Err(Rv(CKR_USER_ALREADY_LOGGED_IN)),
        Some(_) => return Err(Rv(CKR_USER_ANOTHER_ALREADY_LOGGED_IN)),
        None => {}
    }
    let sessions = module.sessions.count(slot);
    if role == v1::PinRole::SecurityOfficer && sessions.all > sessions.read_write {
        return Err(Rv(CKR_SESSION_READ_ONLY_EXISTS));
    }
    // No such PIN can have been set, so there is no need to ask.
    if pin.is_empty() || pin.len() as CK_ULONG > PIN_BYTES_MAX {
        return Err(Rv(CKR_PIN_INCORRECT));
    }
    let pin = str::from_utf8(pin).map_err(|_| Rv(CKR_PIN_INCORRECT))?;
    connection::log_in(&module, slot, role, Zeroizing::new(pin.to_owned()))
}

/// `C_LoginUser`. The daemon's tokens have one user each, who has no name.
pub(crate) fn log_in_user(
    handle: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: &[u8],
    name: &[u8],
) -> Result<()> {
    if name.is_empty() { log_in(handle, user, pin) } else { Err(Rv(CKR_FUNCTION_NOT_SUPPORTED)) }
}

/// `C_Logout`.
pub(crate) fn log_out(handle: CK_SESSION_HANDLE) -> Result<()> {
    let module = module::current()?;
    let slot = module.sessions.find(handle)?.slot;
    module.tokens.log_out(slot)?;
    connection::log_out(&module, slot);
    Ok(())
}

/// `C_SessionCancel`: ends the operations that the flags name.
pub(crate) fn cancel(handle: CK_SESSION_HANDLE, flags: CK_FLAGS) -> Result<()> {
    let session = module::current()?.sessions.find(handle)?;
    let mut operations = session.operations();
    if flags & CKF_DECRYPT != 0 {
        operations.decrypt = None;
    }
    if flags & CKF_DIGEST != 0 {
        operations.digest = None;
    }
    if flags & CKF_ENCRYPT != 0 {
        operations.encrypt = None;
    }
    if flags & CKF_FIND_OBJECTS != 0 {
        operations.find = None;
    }
    if flags & CKF_SIGN != 0 {
        operations.sign = None;
    }
    if flags & CKF_VERIFY != 0 {
        operations.verify = None;
    }
    Ok(())
}

fn end_login(module: &Module, slot: CK_SLOT_ID) {
    if module.tokens.log_out(slot).is_ok() {
        connection::log_out(module, slot);
    }
}
