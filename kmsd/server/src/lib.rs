//! The key-management daemon.
//!
//! Everything a caller can ask goes one way (`pipeline`): parse → load → decide → record → perform →
//! reply. The rules are in `kms-core`, the keys in `kms-crypto`, the rows and the log in
//! `kms-store`, the evidence in `kms-attest`; this crate joins them, and it alone turns wire types
//! into rules.
//!
//! A newcomer starts at [`cli::run`], then reads `pipeline` and one file under `ops`.

pub mod cli;
mod clock;
pub mod config;
mod context;
mod counting;
#[cfg(feature = "dev")]
mod dev;
mod directory;
mod failure;
mod group;
mod grpc;
mod housekeeper;
mod identity;
mod integrity;
mod leases;
mod listener;
mod memo;
mod metrics;
mod metrics_endpoint;
mod ops;
mod pin;
mod pipeline;
mod places;
mod root;
mod rows;
mod server;
mod setup;
mod status;
mod store_tool;
mod tls;
mod wire;

pub use integrity::IntegrityError;
pub use server::ServeError;
pub use tls::TlsError;
