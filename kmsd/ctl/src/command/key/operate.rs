//! What the uses of keys have in common: which mechanism, what is told of a use, where results go.

use std::path::Path;

use clap::Args;
use kms_client::v1;
use serde_json::json;
use v1::stream_finished::Result as Outcome;
use v1::stream_start::Operation;

use super::large::{self, MESSAGE_BYTES_MAX, Source};
use super::shape;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, HexBytes, Secrecy};
use crate::output::Report;
use crate::view;

/// Which of the key's mechanisms.
#[derive(Args, Clone, Debug)]
pub(crate) struct How {
    /// One of the key's mechanisms; without it, the one that it prefers.
    #[arg(long, value_name = "MECHANISM", value_parser = shape::mechanism_names())]
    mechanism: Option<String>,
}

impl How {
    pub(crate) fn wire(&self) -> Result<i32, Failure> {
        shape::wire_mechanism(self.mechanism.as_deref())
    }
}

/// Runs a stream that ends with yes or no.
pub(super) async fn verdict(
    connection: &Connection,
    name: String,
    mechanism: i32,
    operation: Operation,
    source: Source,
) -> Result<Report, Failure> {
    let done = large::run(connection, name, mechanism, operation, source).await?;
    match done.finished.result {
        Some(Outcome::Valid(yes)) => Ok(valid(yes, done.started.audit)),
        _ => Err(Failure::Answer("a stream without a verdict")),
    }
}

/// The bytes, none where nothing was given.
pub(super) fn bytes(hex: Option<HexBytes>) -> Vec<u8> {
    hex.map(|HexBytes(bytes)| bytes).unwrap_or_default()
}

/// Additional data out of a file, if there is one.
pub(crate) fn aad(path: Option<&Path>) -> Result<Vec<u8>, Failure> {
    path.map_or_else(|| Ok(Vec::new()), |path| input::read(path, MESSAGE_BYTES_MAX))
}

/// Which version was used, how, and where that stands in the log.
pub(crate) struct Used {
    pub(crate) name: String,
    pub(crate) mechanism: Option<String>,
    pub(crate) audit: Option<v1::AuditReference>,
}

/// What a stream used.
pub(super) fn used(started: v1::StreamStarted) -> Used {
    let named = started.mechanism() != v1::Mechanism::Unspecified;
    let mechanism = named.then(|| view::mechanism(started.mechanism()));
    Used { name: started.name, mechanism, audit: started.audit }
}

/// Writes a result and tells where it is.
pub(crate) fn written(
    out: &Path,
    bytes: &[u8],
    secrecy: Secrecy,
    used: Used,
) -> Result<Report, Failure> {
    input::write(out, bytes, secrecy)?;
    Ok(reported(out, used))
}

/// Tells what was used, unless standard output is the data's.
pub(super) fn reported(out: &Path, used: Used) -> Report {
    if input::is_dash(out) {
        return Report::nothing();
    }
    let Used { name, mechanism, audit } = used;
    let told = json!({ "name": name, "mechanism": mechanism, "out": out.display().to_string() });
    view::audited(Report::fields(told), audit)
}

/// Tells a verdict, also by the exit code.
pub(super) fn valid(valid: bool, audit: Option<v1::AuditReference>) -> Report {
    view::audited(Report::fields(json!({ "valid": valid })), audit).accepted_if(valid)
}

/// Longest signature or code.
pub(super) const SIGNATURE_BYTES_MAX: usize = 16 * 1024;
