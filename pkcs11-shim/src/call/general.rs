//! `C_Initialize`, `C_Finalize`, `C_GetInfo`.

use cryptoki_sys::*;

use crate::rv::{Result, Rv};
use crate::{connection, module};

/// `CK_C_INITIALIZE_ARGS` without its pointers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitializeArguments {
    pub(crate) flags: CK_FLAGS,
    /// How many of the four mutex functions there are.
    pub(crate) mutex_functions: usize,
    pub(crate) has_reserved: bool,
}

/// `C_Initialize`.
pub(crate) fn initialize(arguments: Option<InitializeArguments>) -> Result<()> {
    if let Some(InitializeArguments { flags, mutex_functions, has_reserved }) = arguments {
        // All four or none (PKCS#11 v3.1 §5.4.1); reserved means reserved.
        if has_reserved || ![0, 4].contains(&mutex_functions) {
            return Err(Rv(CKR_ARGUMENTS_BAD));
        }
        // Our locks are those of the system.
        if mutex_functions == 4 && flags & CKF_OS_LOCKING_OK == 0 {
            return Err(Rv(CKR_CANT_LOCK));
        }
    }
    module::initialize()
}

/// `C_Finalize`.
pub(crate) fn finalize() -> Result<()> {
    module::finalize()?;
    connection::close();
    Ok(())
}

/// `C_GetInfo`.
pub(crate) fn info() -> Result<CK_INFO> {
    module::current()?;
    Ok(CK_INFO {
        cryptokiVersion: CK_VERSION { major: 3, minor: 2 },
        manufacturerID: padded("kms"),
        flags: 0,
        libraryDescription: padded("Key-management appliance"),
        libraryVersion: LIBRARY_VERSION,
    })
}

/// A text in a field of the standard: blanks to the end, cut between characters.
pub(crate) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    let cut = text.floor_char_boundary(N);
    field[..cut].copy_from_slice(&text.as_bytes()[..cut]);
    field
}

/// Version of this module.
pub(crate) const LIBRARY_VERSION: CK_VERSION = CK_VERSION { major: 0, minor: 1 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_padded_with_blanks_and_cut_between_characters() {
        assert_eq!(padded::<4>("ab"), *b"ab  ");
        assert_eq!(padded::<4>("abcdef"), *b"abcd");
        assert_eq!(padded::<4>("abc\u{e9}"), *b"abc ");
        assert_eq!(padded::<2>(""), *b"  ");
    }

    #[test]
    fn odd_arguments_are_refused_before_anything_happens() {
        let refusal = |flags, mutex_functions, has_reserved| {
            initialize(Some(InitializeArguments { flags, mutex_functions, has_reserved })).err()
        };
        assert_eq!(refusal(0, 0, true), Some(Rv(CKR_ARGUMENTS_BAD)));
        assert_eq!(refusal(CKF_OS_LOCKING_OK, 3, false), Some(Rv(CKR_ARGUMENTS_BAD)));
        assert_eq!(refusal(0, 4, false), Some(Rv(CKR_CANT_LOCK)));
    }
}
