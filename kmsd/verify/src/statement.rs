//! Is this statement about a key the appliance's own, and what does it say?
//!
//! The chain of trust: the public key of the audit log, which the verifier has, vouches for the
//! appliance's statement key (in the appliance's certificate), which signs the statement. A certificate
//! for the key itself carries the same statement.

use kms_core::audit::checkpoint::LogKey;
use kms_core::id::Digest;
use kms_core::statement::{KeyStatement, OID_STATEMENT, OID_VOUCHER, is_vouched_for};
use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{Signature, VerifyingKey};
use p384::pkcs8::DecodePublicKey as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _};

/// What came of verifying one statement.
#[derive(Clone, Debug, Serialize)]
pub struct StatementReport {
    /// Whether everything fits.
    pub accepted: bool,
    /// What does not.
    pub reasons: Vec<String>,
    /// Whether the material was generated there and was never able to leave.
    pub never_left: bool,
    /// Whether a certificate for the key itself came along and fits.
    pub key_certificate: bool,
    /// The statement, when it could be believed.
    pub statement: Option<KeyStatement>,
}

/// What a verifier wants to hear besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected<'a> {
    /// The nonce that was asked for.
    pub nonce: Option<&'a [u8]>,
    /// The public key that the statement must be about, SubjectPublicKeyInfo in DER.
    pub public_key: Option<&'a [u8]>,
}

/// Verifies a statement with the log's public key. `chain` is what came along: the certificate of the
/// key, if it has one, and that of the appliance, in DER.
pub fn verify_statement(
    cose: &[u8],
    chain: &[Vec<u8>],
    key: &LogKey,
    expected: Expected<'_>,
) -> StatementReport {
    let mut report = StatementReport {
        accepted: false,
        reasons: Vec::new(),
        never_left: false,
        key_certificate: false,
        statement: None,
    };
    match judge(cose, chain, key, expected, &mut report) {
        Ok(()) => report.accepted = report.reasons.is_empty(),
        Err(reason) => report.reasons.push(reason.to_owned()),
    }
    report
}

fn judge(
    cose: &[u8],
    chain: &[Vec<u8>],
    log_key: &LogKey,
    expected: Expected<'_>,
    report: &mut StatementReport,
) -> Result<(), &'static str> {
    let (appliance, key) = match chain {
        [appliance] => (appliance, None),
        [key, appliance] => (appliance, Some(key)),
        _ => return Err("expected the certificate of the appliance, and of the key before it"),
    };
    let appliance = Certificate::from_der(appliance).map_err(|_| NOT_A_CERTIFICATE)?;
    let signer = spki(&appliance)?;
    let signature = extension(&appliance, OID_VOUCHER)
        .ok_or("the appliance's certificate has no voucher of the log's key")?;
    if !is_vouched_for(log_key, &signer, &signature) {
        return Err("the log's key does not vouch for the appliance's certificate");
    }
    let verifying_key = VerifyingKey::from_public_key_der(&signer)
        .map_err(|_| "the appliance's key is not one of P-384")?;
    signed_by(&appliance, &verifying_key)
        .ok_or("the appliance's certificate is not signed by itself")?;
    let key_id = Digest(Sha256::digest(&signer).into());
    let verify = |input: &[u8], signature: &[u8]| {
        Signature::from_slice(signature)
            .is_ok_and(|signature| verifying_key.verify(input, &signature).is_ok())
    };
    let statement = KeyStatement::from_cose(cose, &key_id, verify)
        .map_err(|_| "the statement is not signed by the appliance, or is malformed")?;
    if statement.appliance != log_key.origin() {
        report.reasons.push("the statement is another appliance's".to_owned());
    }
    if expected.nonce.is_some_and(|nonce| hex_of(nonce) != statement.nonce) {
        report.reasons.push("the nonce is not the one that was asked for".to_owned());
    }
    if expected.public_key.is_some_and(|key| hex_of(key) != statement.public_key) {
        report.reasons.push("the statement is about another public key".to_owned());
    }
    if let Some(certificate) = key {
        match key_certificate(certificate, &verifying_key, cose, &statement) {
            Ok(()) => report.key_certificate = true,
            Err(reason) => report.reasons.push(reason.to_owned()),
        }
    }
    report.never_left = statement.never_left();
    report.statement = Some(statement);
    Ok(())
}

fn key_certificate(
    der: &[u8],
    signer: &VerifyingKey,
    cose: &[u8],
    statement: &KeyStatement,
) -> Result<(), &'static str> {
    let certificate = Certificate::from_der(der).map_err(|_| NOT_A_CERTIFICATE)?;
    signed_by(&certificate, signer)
        .ok_or("the key's certificate is not signed by the appliance")?;
    if extension(&certificate, OID_STATEMENT).as_deref() != Some(cose) {
        return Err("the key's certificate carries another statement");
    }
    if hex_of(&spki(&certificate)?) != statement.public_key {
        return Err("the key's certificate is for another public key");
    }
    Ok(())
}

fn spki(certificate: &Certificate) -> Result<Vec<u8>, &'static str> {
    let info = certificate.tbs_certificate().subject_public_key_info();
    info.to_der().map_err(|_| NOT_A_CERTIFICATE)
}

fn extension(certificate: &Certificate, oid: &str) -> Option<Vec<u8>> {
    let oid = ObjectIdentifier::new(oid).ok()?;
    let mut found =
        certificate.tbs_certificate().extensions()?.iter().filter(|one| one.extn_id == oid);
    let value = found.next()?.extn_value.as_bytes().to_vec();
    found.next().is_none().then_some(value)
}

fn signed_by(certificate: &Certificate, signer: &VerifyingKey) -> Option<()> {
    let signed = certificate.tbs_certificate().to_der().ok()?;
    let signature = Signature::from_der(certificate.signature().as_bytes()?).ok()?;
    signer.verify(&signed, &signature).ok()
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const NOT_A_CERTIFICATE: &str = "not an X.509 certificate in DER";
