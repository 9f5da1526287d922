//! The Rust SDK of the key-management appliance: connect, authenticate, retry, typed errors.
//!
//! [`Client`] is for programs with a tokio runtime; [`blocking::Session`] is for code on a foreign
//! thread, such as the PKCS#11 module. Data of any length goes through [`Client::stream`]. Neither knows the rules: what is permitted is decided by
//! the daemon, and what it says can be checked offline with `kms-verify`.

pub mod blocking;
mod client;
mod config;
mod connector;
mod error;
mod stream;

pub use client::Client;
pub use config::{Config, ConfigError, Endpoint, TlsFiles};
pub use connector::{ChannelBinding, EXPORTER_LABEL};
pub use error::ClientError;
pub use kms_proto::v1;
pub use stream::{StreamError, Streamed};
/// The channel that the generated clients of [`Client`] share.
pub use tonic::transport::Channel;
/// What the generated clients answer with.
pub use tonic::{Code, Response, Status};
