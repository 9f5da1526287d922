//! `kmsctl release`: receipts, verified offline. Keys are received with `kms-agent`, inside the
//! workload.

use std::path::PathBuf;

use clap::Subcommand;
use kms_verify::{LogKey, verify_receipt};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::input;
use crate::output::Report;
use crate::view;

#[derive(Debug, Subcommand)]
#[command(
    after_help = "To receive a key, run `kms-agent get-key` inside the workload that it is for."
)]
pub(crate) enum Release {
    /// Verify the receipt of a release, without daemon and network.
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// File with the receipt.
        receipt: PathBuf,
        /// File with the log key of the appliance.
        #[arg(long, value_name = "FILE")]
        log_key: PathBuf,
        /// File with the evidence that the receipt speaks of, if you have it.
        #[arg(long, value_name = "FILE")]
        evidence: Option<PathBuf>,
    },
}

impl Release {
    pub(crate) fn run(self) -> Result<Report, Failure> {
        let Self::Verify { receipt, log_key, evidence } = self;
        let bytes = input::read(&receipt, RECEIPT_BYTES_MAX)?;
        let key: LogKey = input::parse_file(&log_key)?;
        let evidence = evidence.map(|path| input::read(&path, EVIDENCE_BYTES_MAX)).transpose()?;
        let verified = verify_receipt(&bytes, &key, evidence.as_deref());
        let Some(read) = &verified.receipt else {
            return Err(Failure::NotAccepted(verified.reasons.join("; ")));
        };
        let mut report = Report::fields(json!({
            "accepted": verified.accepted,
            "version": read.version,
            "time": view::time_ms(read.time_ms.0),
            "measurement": read.measurement,
            "evidence_kind": read.evidence_kind,
            "trust_root": read.trust_root,
            "evidence_digest": read.evidence_digest,
            "evidence_matches": verified.evidence_matches,
            "not_established": verified.not_established,
            "approvers": read.approvers,
            "recipient_digest": read.recipient_digest,
            "operation_id": read.operation_id,
            "audit_index": read.audit_index,
            "log": key.origin(),
            "log_size": verified.log_size.map_or(Value::Null, |size| json!(size)),
            "reasons": verified.reasons,
        }));
        if !verified.accepted {
            report = report.note("\nNOT ACCEPTED: do not rely on what stands above");
        }
        Ok(report.accepted_if(verified.accepted))
    }
}

const RECEIPT_BYTES_MAX: usize = 1 << 20;
const EVIDENCE_BYTES_MAX: usize = 64 * 1024;
const VERIFY_HELP: &str = "\
Example:
  kmsctl release verify model.receipt --log-key log.key --evidence evidence.bin

The log key is what `kmsctl seal status` shows; take it over a way that you trust, once.
Exit code 0: everything fits. 3: it does not, with the reasons. 2: the input cannot be used.";

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    #[test]
    fn what_is_no_receipt_is_not_accepted_and_a_bad_key_is_usage() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let public = SigningKey::from_bytes(&[1; 32]).verifying_key();
        let key = LogKey::new("kms/test", public.as_bytes()).unwrap();
        std::fs::write(path("key"), key.to_string()).unwrap();
        std::fs::write(path("receipt"), "{}").unwrap();
        let verify = |receipt: &str, log_key: &str| {
            let command =
                Release::Verify { receipt: path(receipt), log_key: path(log_key), evidence: None };
            command.run().unwrap_err().exit_code()
        };
        assert_eq!(verify("receipt", "key"), 3);
        assert_eq!(verify("receipt", "receipt"), 2);
        assert_eq!(verify("missing", "key"), 2);
    }
}
