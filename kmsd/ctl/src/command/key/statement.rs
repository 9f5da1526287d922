//! `kmsctl key statement` and `verify-statement`: what the appliance says of a version, signed, and verified
//! without it.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use kms_client::v1;
use kms_verify::statement::Expected;
use kms_verify::{LogKey, verify_statement};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, HexBytes, Secrecy};
use crate::output::Report;
use crate::view;

#[derive(Args, Debug)]
pub(crate) struct Statement {
    /// Version name; a key name means its primary version.
    name: String,
    /// At most 64 bytes that the statement repeats, so that it is fresh.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    nonce: Option<HexBytes>,
    /// Where statement and certificates are written, as JSON.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
    /// Where the certificates are written, in PEM, for programs that know nothing of statements.
    #[arg(long, value_name = "FILE")]
    chain_out: Option<PathBuf>,
}

impl Statement {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, nonce, out, chain_out } = self;
        let nonce = nonce.map(|HexBytes(bytes)| bytes).unwrap_or_default();
        let request = v1::GetKeyStatementRequest { name: name.clone(), nonce };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.keys().get_key_statement(request.clone()).await).await?;
        let chain = &answer.certificate_chain;
        let document = json!({
            "type": STATEMENT_TYPE,
            "cose": STANDARD.encode(&answer.cose),
            "certificate_chain": chain.iter().map(|der| STANDARD.encode(der)).collect::<Vec<_>>(),
        });
        input::write(&out, format!("{document}\n").as_bytes(), Secrecy::Public)?;
        if let Some(path) = &chain_out {
            let pem: String = chain.iter().map(|der| view::pem("CERTIFICATE", der)).collect();
            input::write(path, pem.as_bytes(), Secrecy::Public)?;
        }
        if input::is_dash(&out) {
            return Ok(Report::nothing());
        }
        let told = json!({
            "name": name,
            "out": out.display().to_string(),
            "chain_out": chain_out.map(|path| path.display().to_string()),
        });
        Ok(view::audited(Report::fields(told), answer.audit))
    }
}

/// Verifies a statement, without daemon and network.
#[derive(Args, Debug)]
pub(crate) struct VerifyStatement {
    /// File that `kmsctl key statement` wrote.
    statement: PathBuf,
    /// File with the log key of the appliance.
    #[arg(long, value_name = "FILE")]
    log_key: PathBuf,
    /// The nonce that was asked for.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    nonce: Option<HexBytes>,
}

impl VerifyStatement {
    pub(crate) fn run(self) -> Result<Report, Failure> {
        let Self { statement, log_key, nonce } = self;
        let (cose, chain) = read(&input::read(&statement, STATEMENT_BYTES_MAX)?)
            .ok_or_else(|| Failure::Input(format!("{}: {NOT_ONE}", statement.display())))?;
        let key: LogKey = input::parse_file(&log_key)?;
        let nonce = nonce.as_ref().map(|HexBytes(bytes)| bytes.as_slice());
        let verified = verify_statement(&cose, &chain, &key, Expected { nonce, public_key: None });
        let Some(read) = &verified.statement else {
            return Err(Failure::NotAccepted(verified.reasons.join("; ")));
        };
        let mut report = Report::fields(json!({
            "accepted": verified.accepted,
            "version": read.version,
            "algorithm": read.algorithm,
            "usages": read.usages,
            "mechanisms": read.mechanisms,
            "origin": read.origin,
            "never_left": verified.never_left,
            "exportable": read.exportable,
            "state": read.state,
            "stated": view::time_ms(read.stated_at.0),
            "requirement_digest": read.requirement_digest,
            "quorum_digest": read.quorum_digest,
            "key_certificate": verified.key_certificate,
            "audit_index": read.audit_index,
            "appliance": read.appliance,
            "reasons": verified.reasons,
        }));
        if !verified.accepted {
            report = report.note("\nNOT ACCEPTED: do not rely on what stands above");
        }
        Ok(report.accepted_if(verified.accepted))
    }
}

/// The statement and the certificates in what [`Statement`] wrote.
fn read(bytes: &[u8]) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    if document.get("type")?.as_str()? != STATEMENT_TYPE {
        return None;
    }
    let bytes = |value: &Value| STANDARD.decode(value.as_str()?).ok();
    let chain = document.get("certificate_chain")?.as_array()?;
    Some((bytes(document.get("cose")?)?, chain.iter().map(bytes).collect::<Option<_>>()?))
}

const NOT_ONE: &str = "not what kmsctl key statement writes";
const STATEMENT_BYTES_MAX: usize = 1 << 20;
const STATEMENT_TYPE: &str = "kms-key-statement/v1";
pub(crate) const VERIFY_HELP: &str = "\
Example:
  kmsctl key verify-statement k1.statement --log-key log.key \\
    --nonce 00112233445566778899aabbccddeeff

The log key is what `kmsctl seal status` shows; take it over a way that you trust, once.
Exit code 0: everything fits. 3: it does not, with the reasons. 2: the input cannot be used.";
pub(crate) const STATEMENT_HELP: &str = "\
Example:
  kmsctl key statement dev/k1 --nonce 00112233445566778899aabbccddeeff --out k1.statement";
