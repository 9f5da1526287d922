//! Import jobs and recipients of exports on the wire.

use kms_core::id::Home;
use kms_core::permit::Refusal;
use kms_core::transcript::{Recipient, Suite};
use kms_core::transfer::{ExportRecipient, ImportJob, ImportJobName, ImportMethod};
use kms_proto::v1;

use super::{bounded, hex_decode, hex_encode, invalid, parse, ring_name, time_out};

/// Reads how material from outside is sealed.
pub(crate) fn import_method(number: i32) -> Result<ImportMethod, Refusal> {
    use v1::ImportMethod as Wire;
    match Wire::try_from(number) {
        Ok(Wire::RsaOaep4096Sha256Aes256Kwp) => Ok(ImportMethod::RsaOaep4096Sha256Aes256Kwp),
        Ok(Wire::XWingHkdfSha256Aes256Gcm) => Ok(ImportMethod::XWingHkdfSha256Aes256Gcm),
        Ok(Wire::Unspecified) | Err(_) => {
            Err(invalid("method", "expected one of the published import methods"))
        }
    }
}

fn import_method_out(method: ImportMethod) -> v1::ImportMethod {
    match method {
        ImportMethod::RsaOaep4096Sha256Aes256Kwp => v1::ImportMethod::RsaOaep4096Sha256Aes256Kwp,
        ImportMethod::XWingHkdfSha256Aes256Gcm => v1::ImportMethod::XWingHkdfSha256Aes256Gcm,
        _ => v1::ImportMethod::Unspecified,
    }
}

/// Reads the name of an import job: `{ring}/importJobs/{id}`, the ring's name full or short.
pub(crate) fn import_job_name(
    field: &'static str,
    text: &str,
    home: &Home,
) -> Result<ImportJobName, Refusal> {
    let (ring, id) = text
        .rsplit_once("/importJobs/")
        .ok_or_else(|| invalid(field, "expected {ring}/importJobs/{id}"))?;
    Ok(ImportJobName { ring: ring_name(field, ring, home)?, id: parse(field, id)? })
}

/// Writes an import job.
pub(crate) fn import_job_out(job: &ImportJob) -> v1::ImportJob {
    v1::ImportJob {
        name: job.name.to_string(),
        method: import_method_out(job.method).into(),
        public_key: hex_decode(&job.public_key).unwrap_or_default(),
        create_time: time_out(job.created_at),
        expire_time: time_out(job.expires_at),
    }
}

/// Reads who an exported key is sealed to: exactly one of the two.
pub(crate) fn export_recipient(
    rsa_public_key: Option<Vec<u8>>,
    hpke: Option<v1::HpkeRecipient>,
) -> Result<ExportRecipient, Refusal> {
    const FIELD: &str = "recipient";
    match (rsa_public_key, hpke) {
        (Some(key), None) => {
            let public_key = hex_encode(&bounded(FIELD, key, PUBLIC_KEY_BYTES_MAX)?);
            Ok(ExportRecipient::RsaAesKeyWrap { public_key })
        }
        (None, Some(hpke)) => {
            let recipient = hpke_recipient(FIELD, hpke)?;
            let public_key = hex_encode(recipient.public_key());
            Ok(ExportRecipient::Hpke { suite: recipient.suite(), public_key })
        }
        _ => Err(invalid(FIELD, "expected the public key of who is to have it")),
    }
}

/// Reads a public key to seal to.
pub(crate) fn hpke_recipient(
    field: &'static str,
    wire: v1::HpkeRecipient,
) -> Result<Recipient, Refusal> {
    let v1::HpkeRecipient { suite, public_key } = wire;
    let suite = Suite::from_name(&suite)
        .ok_or_else(|| invalid(field, "expected one of the offered HPKE suites"))?;
    Recipient::new(suite, public_key).map_err(|error| invalid(field, error))
}

/// Longest public key of a recipient: RSA of 4096 bits, and some.
const PUBLIC_KEY_BYTES_MAX: usize = 1024;
