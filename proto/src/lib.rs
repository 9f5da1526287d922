//! The wire contract: messages and services of `kms.v1`, generated from `kms/v1/*.proto`.
//!
//! Nothing here decides anything. Messages that carry secrets print as their names only
//! (`redact`), so that no log line can leak them.

mod redact;

/// Package `kms.v1`.
#[allow(
    missing_docs,
    clippy::use_self,
    clippy::doc_markdown,
    unused_qualifications,
    unreachable_pub,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("kms.v1");
}
