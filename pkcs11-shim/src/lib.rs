//! The PKCS#11 module of the key-management appliance: `libkms_pkcs11.so`.
//!
//! A key ring is a token. The module holds no keys and decides nothing: it speaks PKCS#11 2.40, 3.0
//! and 3.2 to the program that loaded it and `CryptoService.Session` to the daemon. What needs no
//! secret (digests, checking signatures with a public key) is done here.
//!
//! From the outside in: `ffi` turns pointers into values and is the only file with unsafe code;
//! `call` has one file per group of C functions; `module` is the state of the application
//! between `C_Initialize` and `C_Finalize`; `connection` is the way to the daemon.
//!
//! Rules of the house: a panic never crosses the C border, a child process never touches the
//! sockets of its parent, no thread is ever started, and whatever the daemon answers is checked.

mod algorithm;
mod asn1;
mod attribute;
mod call;
mod config;
mod connection;
#[allow(unsafe_code, reason = "a C interface: pointers in, pointers out; see the file's head")]
mod ffi;
mod hash;
mod interface;
mod mechanism;
mod module;
mod object;
mod output;
mod parameter;
mod rv;
mod scheme;
mod session;
mod template;
mod token;
mod wish;

pub use ffi::{C_GetFunctionList, C_GetInterface, C_GetInterfaceList};
