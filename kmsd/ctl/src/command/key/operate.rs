//! Using keys: sign, encrypt, authenticate, and the reverse.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use kms_client::v1;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, Secrecy};
use crate::output::Report;
use crate::view;

/// What is signed: a message or its digest.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Signed {
    /// File with the message, at most 64 KiB.
    #[arg(long, value_name = "FILE|-")]
    message_file: Option<PathBuf>,
    /// File with the message's SHA-256 digest: 32 bytes, or 64 hexadecimal digits.
    #[arg(long, value_name = "FILE|-")]
    digest_file: Option<PathBuf>,
}

enum Data {
    Message(Vec<u8>),
    Digest(Vec<u8>),
}

impl Signed {
    fn read(&self) -> Result<Data, Failure> {
        match (&self.message_file, &self.digest_file) {
            (Some(path), None) => {
                message(path, "sign its SHA-256 digest with --digest-file").map(Data::Message)
            }
            (None, Some(path)) => digest(path).map(Data::Digest),
            // clap has made sure of exactly one.
            _ => Err(Failure::Input("give either --message-file or --digest-file".to_owned())),
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Sign {
    /// Version name; a key name means its primary version.
    name: String,
    #[command(flatten)]
    signed: Signed,
    /// Where the signature is written: DER for ECDSA, as long as the modulus for RSA.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
}

impl Sign {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, signed, out } = self;
        let (crc, data) = match signed.read()? {
            Data::Message(bytes) => {
                (crc32c::crc32c(&bytes), v1::sign_request::Data::Message(bytes))
            }
            Data::Digest(bytes) => (crc32c::crc32c(&bytes), v1::sign_request::Data::Digest(bytes)),
        };
        let request = v1::SignRequest {
            name,
            data: Some(data),
            data_crc32c: Some(crc),
            ..Default::default()
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().sign(request.clone()).await).await?;
        if crc32c::crc32c(&answer.signature) != answer.signature_crc32c {
            return Err(Failure::Answer("the signature was damaged on the way"));
        }
        written(&out, &answer.signature, Secrecy::Public, answer.name, answer.audit)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// Version name; a key name means its primary version.
    name: String,
    #[command(flatten)]
    signed: Signed,
    /// File with the signature.
    #[arg(long, value_name = "FILE")]
    signature: PathBuf,
}

impl Verify {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, signed, signature } = self;
        let data = match signed.read()? {
            Data::Message(bytes) => v1::verify_request::Data::Message(bytes),
            Data::Digest(bytes) => v1::verify_request::Data::Digest(bytes),
        };
        let signature = input::read(&signature, SIGNATURE_BYTES_MAX)?;
        let request = v1::VerifyRequest { name, data: Some(data), signature, ..Default::default() };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().verify(request.clone()).await).await?;
        Ok(valid(answer.valid, answer.audit))
    }
}

#[derive(Args, Debug)]
pub(crate) struct Encrypt {
    /// Version name; a key name means its primary version.
    name: String,
    /// File to encrypt, at most 64 KiB.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// Where the ciphertext is written: a JSON document that decrypt reads.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
    /// File of bytes that are authenticated with it and not encrypted.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
}

/// A ciphertext with all that is needed to open it, but the key.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Ciphertext {
    #[serde(rename = "type")]
    type_: String,
    name: String,
    initialization_vector: String,
    ciphertext: String,
}

impl Encrypt {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, input, out, aad_file } = self;
        let plaintext = message(&input, "encrypt it with a random key, and that key here")?;
        let request = v1::EncryptRequest {
            name,
            plaintext_crc32c: Some(crc32c::crc32c(&plaintext)),
            plaintext,
            additional_authenticated_data: aad(aad_file.as_deref())?,
            ..Default::default()
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().encrypt(request.clone()).await).await?;
        if crc32c::crc32c(&answer.ciphertext) != answer.ciphertext_crc32c {
            return Err(Failure::Answer("the ciphertext was damaged on the way"));
        }
        let document = Ciphertext {
            type_: CIPHERTEXT_TYPE.to_owned(),
            name: answer.name.clone(),
            initialization_vector: STANDARD.encode(&answer.initialization_vector),
            ciphertext: STANDARD.encode(&answer.ciphertext),
        };
        let mut bytes = json!(document).to_string().into_bytes();
        bytes.push(b'\n');
        written(&out, &bytes, Secrecy::Public, answer.name, answer.audit)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Decrypt {
    /// File that encrypt wrote; it names the version.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// Where the plaintext is written, readable to you alone; a file must not exist.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
    /// File of the bytes that were authenticated with it.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
}

impl Decrypt {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { input, out, aad_file } = self;
        let (name, initialization_vector, ciphertext) = read_ciphertext(&input)?;
        let request = v1::DecryptRequest {
            name: name.clone(),
            initialization_vector,
            ciphertext_crc32c: Some(crc32c::crc32c(&ciphertext)),
            ciphertext,
            additional_authenticated_data: aad(aad_file.as_deref())?,
            ..Default::default()
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().decrypt(request.clone()).await).await?;
        if crc32c::crc32c(&answer.plaintext) != answer.plaintext_crc32c {
            return Err(Failure::Answer("the plaintext was damaged on the way"));
        }
        written(&out, &answer.plaintext, Secrecy::Secret, name, answer.audit)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Mac {
    /// Version name; a key name means its primary version.
    name: String,
    /// File to authenticate, at most 64 KiB.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// Where the code is written: 32 bytes.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
}

impl Mac {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, input, out } = self;
        let data = message(&input, "authenticate its digest")?;
        let request = v1::MacSignRequest { name, data, ..Default::default() };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().mac_sign(request.clone()).await).await?;
        written(&out, &answer.mac, Secrecy::Public, answer.name, answer.audit)
    }
}

#[derive(Args, Debug)]
pub(crate) struct MacVerify {
    /// Version name; a key name means its primary version.
    name: String,
    /// The file that was authenticated.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// File with the code.
    #[arg(long, value_name = "FILE")]
    mac: PathBuf,
}

impl MacVerify {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, input, mac } = self;
        let data = message(&input, "authenticate its digest")?;
        let mac = input::read(&mac, SIGNATURE_BYTES_MAX)?;
        let request = v1::MacVerifyRequest { name, data, mac, ..Default::default() };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.crypto().mac_verify(request.clone()).await).await?;
        Ok(valid(answer.valid, answer.audit))
    }
}

fn message(path: &Path, instead: &str) -> Result<Vec<u8>, Failure> {
    match input::read(path, MESSAGE_BYTES_MAX) {
        Err(Failure::Input(text)) => Err(Failure::Input(format!("{text}; {instead}"))),
        read => read,
    }
}

fn digest(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = input::read(path, DIGEST_FILE_BYTES_MAX)?;
    if bytes.len() == DIGEST_BYTES {
        return Ok(bytes);
    }
    let text = bytes.trim_ascii();
    hex::decode(text).ok().filter(|digest| digest.len() == DIGEST_BYTES).ok_or_else(|| {
        Failure::input(path.display(), "expected 32 bytes, or 64 hexadecimal digits")
    })
}

fn aad(path: Option<&Path>) -> Result<Vec<u8>, Failure> {
    path.map_or_else(|| Ok(Vec::new()), |path| input::read(path, MESSAGE_BYTES_MAX))
}

fn read_ciphertext(path: &Path) -> Result<(String, Vec<u8>, Vec<u8>), Failure> {
    let Ciphertext { type_, name, initialization_vector, ciphertext } = input::parse_json(path)?;
    let wrong = || Failure::input(path.display(), "not a ciphertext that `key encrypt` wrote");
    if type_ != CIPHERTEXT_TYPE {
        return Err(wrong());
    }
    let decode = |text: String| STANDARD.decode(text).map_err(|_| wrong());
    Ok((name, decode(initialization_vector)?, decode(ciphertext)?))
}

fn written(
    out: &Path,
    bytes: &[u8],
    secrecy: Secrecy,
    name: String,
    audit: Option<v1::AuditReference>,
) -> Result<Report, Failure> {
    input::write(out, bytes, secrecy)?;
    if input::is_dash(out) {
        return Ok(Report::nothing());
    }
    let report = Report::fields(json!({ "name": name, "out": out.display().to_string() }));
    Ok(view::audited(report, audit))
}

fn valid(valid: bool, audit: Option<v1::AuditReference>) -> Report {
    view::audited(Report::fields(json!({ "valid": valid })), audit).accepted_if(valid)
}

const CIPHERTEXT_TYPE: &str = "kms-ciphertext/v1";
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const SIGNATURE_BYTES_MAX: usize = 16 * 1024;
const DIGEST_BYTES: usize = 32;
/// 64 digits and a line end or two.
const DIGEST_FILE_BYTES_MAX: usize = 80;
pub(crate) const SIGN_HELP: &str = "\
Examples:
  kmsctl key sign dev/k1 --message-file letter.txt --out letter.sig
  openssl dgst -sha256 -binary big.iso | kmsctl key sign dev/k1 --digest-file - --out big.sig
  kmsctl key public dev/k1 --out k1.pem
  openssl dgst -sha256 -verify k1.pem -signature letter.sig letter.txt";
pub(crate) const ENCRYPT_HELP: &str = "\
Examples:
  kmsctl key encrypt dev/a --in secret.txt --out secret.json
  kmsctl key decrypt --in secret.json --out -";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_32_bytes_or_64_digits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digest");
        let hex = format!("{}\n", "ab".repeat(32));
        for (written, expected) in
            [(vec![7; 32], Some(vec![7; 32])), (hex.into_bytes(), Some(vec![0xab; 32]))]
        {
            std::fs::write(&path, written).unwrap();
            assert_eq!(digest(&path).ok(), expected);
        }
        for bad in [vec![7; 31], vec![7; 33], vec![b'a'; 63], vec![b'z'; 64], vec![], vec![0; 99]] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(digest(&path).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn a_ciphertext_reads_back_and_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        let good = json!({ "type": CIPHERTEXT_TYPE, "name": "dev/a@1",
            "initialization_vector": "AAEC", "ciphertext": "AwQ=" });
        std::fs::write(&path, good.to_string()).unwrap();
        let read = read_ciphertext(&path).unwrap();
        assert_eq!(read, ("dev/a@1".to_owned(), vec![0, 1, 2], vec![3, 4]));
        for (member, value) in [("type", "other"), ("ciphertext", "?"), ("extra", "x")] {
            let mut bad = good.clone();
            bad[member] = json!(value);
            std::fs::write(&path, bad.to_string()).unwrap();
            assert_eq!(read_ciphertext(&path).unwrap_err().exit_code(), 2, "{member}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_says_what_to_do_instead() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        std::fs::write(&path, vec![0; MESSAGE_BYTES_MAX + 1]).unwrap();
        let refused = message(&path, "do this").unwrap_err();
        assert!(refused.to_string().ends_with("; do this"), "{refused}");
        std::fs::write(&path, vec![0; MESSAGE_BYTES_MAX]).unwrap();
        assert!(message(&path, "do this").is_ok());
    }
}
