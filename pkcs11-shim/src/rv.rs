//! Return values: the error type of the module, which the standard prescribes, and the one table
//! from the daemon's answers to it.

use cryptoki_sys::*;
use kms_client::ClientError;

/// A `CKR_` code other than `CKR_OK`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rv(pub(crate) CK_RV);

/// What every function above the C border returns.
pub(crate) type Result<T> = core::result::Result<T, Rv>;

impl From<&ClientError> for Rv {
    fn from(error: &ClientError) -> Self {
        match error {
            ClientError::Config(_) => Self(CKR_GENERAL_ERROR),
            ClientError::Refused { reason, .. } => of_reason(reason),
            // Unreachable, too late, failed, or not speaking our language: the device's fault.
            _ => Self(CKR_DEVICE_ERROR),
        }
    }
}

/// The code for a published reason. An unknown one comes from a newer daemon.
fn of_reason(reason: &str) -> Rv {
    let known = REASONS.iter().find(|(name, _)| *name == reason);
    Rv(known.map_or(CKR_FUNCTION_FAILED, |(_, code)| *code))
}

/// An answer of the daemon that the contract does not allow.
pub(crate) const HOSTILE: Rv = Rv(CKR_DEVICE_ERROR);

/// The one table. What needs the approval of others is "rejected by the user"; what the rules
/// forbid for this key is "not permitted"; what they forbid at all is "prohibited".
const REASONS: [(&str, CK_RV); 41] = [
    ("ALREADY_EXISTS", CKR_FUNCTION_FAILED),
    ("APPROVAL_MISMATCH", CKR_FUNCTION_REJECTED),
    ("APPROVAL_REFUSED", CKR_FUNCTION_REJECTED),
    ("BELOW_FLOOR", CKR_KEY_FUNCTION_NOT_PERMITTED),
    ("CIPHERTEXT_REFUSED", CKR_ENCRYPTED_DATA_INVALID),
    ("CRYPTO_FAILED", CKR_DEVICE_ERROR),
    ("EVIDENCE_REFUSED", CKR_KEY_FUNCTION_NOT_PERMITTED),
    ("EVIDENCE_REQUIRED", CKR_KEY_FUNCTION_NOT_PERMITTED),
    ("FAILED", CKR_DEVICE_ERROR),
    ("ILLEGAL_TRANSITION", CKR_ACTION_PROHIBITED),
    ("INTERNAL", CKR_DEVICE_ERROR),
    ("INVALID_ARGUMENT", CKR_ARGUMENTS_BAD),
    ("INVOCATION_LIMIT", CKR_KEY_EXHAUSTED),
    ("KEY_DISABLED", CKR_KEY_FUNCTION_NOT_PERMITTED),
    ("MECHANISM_REFUSED", CKR_KEY_FUNCTION_NOT_PERMITTED),
    ("NEEDS_APPROVAL", CKR_FUNCTION_REJECTED),
    ("NOT_ADMITTED", CKR_ACTION_PROHIBITED),
    ("NOT_EXPORTABLE", CKR_KEY_UNEXTRACTABLE),
    ("NOT_FOUND", CKR_OBJECT_HANDLE_INVALID),
    ("NOT_RELEASABLE", CKR_KEY_FUNCTION_NOT_PERMITTED),
    ("NOT_TRUSTED", CKR_KEY_FUNCTION_NOT_PERMITTED),
    ("OUTCOME_UNKNOWN", CKR_DEVICE_ERROR),
    ("PERMISSION_DENIED", CKR_ACTION_PROHIBITED),
    ("PIN_INCORRECT", CKR_PIN_INCORRECT),
    ("PIN_LOCKED", CKR_PIN_LOCKED),
    ("RESOURCE_EXHAUSTED", CKR_DEVICE_MEMORY),
    ("RING_POLICY", CKR_ACTION_PROHIBITED),
    ("ROLE_MISSING", CKR_ACTION_PROHIBITED),
    ("ROW_TAMPERED", CKR_DEVICE_ERROR),
    ("SEALED", CKR_DEVICE_ERROR),
    ("SERVICE_NOT_APPROVED", CKR_MECHANISM_INVALID),
    ("STALE", CKR_FUNCTION_FAILED),
    ("STATE_REFUSES", CKR_KEY_FUNCTION_NOT_PERMITTED),
    ("STORE_UNAVAILABLE", CKR_DEVICE_ERROR),
    ("TOO_MANY_TRIES", CKR_PIN_LOCKED),
    ("UNAPPROVED", CKR_FUNCTION_REJECTED),
    ("UNAVAILABLE", CKR_DEVICE_ERROR),
    ("UNIMPLEMENTED", CKR_FUNCTION_NOT_SUPPORTED),
    ("UNKNOWN_REQUEST", CKR_FUNCTION_NOT_SUPPORTED),
    ("USAGE_REFUSED", CKR_KEY_FUNCTION_NOT_PERMITTED),
    ("USE_CONFLICT", CKR_KEY_FUNCTION_NOT_PERMITTED),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_names_each_reason_once() {
        assert!(REASONS.is_sorted_by(|left, right| left.0 < right.0));
    }

    #[test]
    fn refusals_and_failures_have_their_codes() {
        let refused = |reason: &str| ClientError::Refused {
            code: kms_client::Code::Unauthenticated,
            reason: reason.to_owned(),
            message: String::new(),
            audit_index: None,
        };
        assert_eq!(Rv::from(&refused("PIN_INCORRECT")), Rv(CKR_PIN_INCORRECT));
        assert_eq!(Rv::from(&refused("USAGE_REFUSED")), Rv(CKR_KEY_FUNCTION_NOT_PERMITTED));
        assert_eq!(Rv::from(&refused("SOMETHING_NEW")), Rv(CKR_FUNCTION_FAILED));
        assert_eq!(Rv::from(&ClientError::Deadline), Rv(CKR_DEVICE_ERROR));
    }
}
