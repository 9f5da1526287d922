//! `kmsctl key statement`: what the appliance says of a version, signed, to be verified without it.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use kms_client::v1;
use serde_json::json;

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

const STATEMENT_TYPE: &str = "kms-key-statement/v1";
pub(crate) const STATEMENT_HELP: &str = "\
Example:
  kmsctl key statement dev/k1 --nonce 00112233445566778899aabbccddeeff --out k1.statement";
