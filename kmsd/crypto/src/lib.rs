//! Keys in use.
//!
//! The daemon calls in here to unlock its root ([`unlock`]), to open tenants, rings and versions
//! ([`vault`]) and to use them. No other crate ever holds key bytes: they live in
//! [`material::Material`], inside one locked arena, and leave only wrapped, or sealed to a
//! recipient that attestation evidence has proven ([`release`]).
//!
//! Not here: who may do what (`kms-core`), where rows are stored (`kms-store`), files, sockets,
//! clocks.
//!
//! What mechanisms ask for stands under [`mechanism`]; a library that carries them out is a
//! [`provider::Provider`], with a file per family; [`selftest`] does not let a mechanism be used that has
//! not given its known answers.

pub mod arena;
pub mod error;
mod kdf;
pub mod log_key;
pub mod manifest;
pub mod material;
pub mod mechanism;
mod passphrase;
pub mod pin;
pub mod provider;
pub mod random;
pub mod release;
pub mod row;
pub mod selftest;
mod stack;
pub mod statement_key;
pub mod unlock;
pub mod vault;
pub mod vouch;
pub mod wrap;

pub use error::CryptoError;
