//! The C functions, one file per group of the standard, in safe Rust. [`crate::ffi`] calls them
//! with values; each finds the module and the session itself.

pub(crate) mod cipher;
pub(crate) mod digest;
pub(crate) mod general;
pub(crate) mod key_management;
pub(crate) mod object;
pub(crate) mod random;
pub(crate) mod session;
pub(crate) mod sign;
pub(crate) mod slot_token;
