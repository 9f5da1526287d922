//! Using keys: sign, encrypt, authenticate, and the reverse. What fits into one message goes in one, with
//! its checksum; what is longer goes over a stream (`large.rs`).

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use kms_client::v1;
use kms_core::mechanism::Hash;
use serde::{Deserialize, Serialize};
use serde_json::json;
use v1::stream_finished::Result as Outcome;
use v1::stream_start::Operation;

use super::large::{self, Source};
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

/// What is signed: a message or its digest.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Signed {
    /// File with the message, of any length.
    #[arg(long, value_name = "FILE|-")]
    message_file: Option<PathBuf>,
    /// File with the message's digest by the mechanism's hash function: bytes or hexadecimal digits.
    #[arg(long, value_name = "FILE|-")]
    digest_file: Option<PathBuf>,
}

enum Data {
    Message(Vec<u8>),
    Digest(Vec<u8>),
    Large(Source),
}

impl Signed {
    fn read(&self) -> Result<Data, Failure> {
        match (&self.message_file, &self.digest_file) {
            (Some(path), None) => Ok(match large::read(path)? {
                Source::Whole(bytes) => Data::Message(bytes),
                source @ Source::Long { .. } => Data::Large(source),
            }),
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
    #[command(flatten)]
    how: How,
    /// Context of ML-DSA and SLH-DSA, at most 255 bytes.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    context: Option<HexBytes>,
    /// Where the signature is written: DER for ECDSA, as long as the modulus for RSA.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
}

impl Sign {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, signed, how, context, out } = self;
        let (mechanism, context) = (how.wire()?, bytes(context));
        let data = match signed.read()? {
            Data::Message(bytes) => v1::sign_request::Data::Message(bytes),
            Data::Digest(bytes) => v1::sign_request::Data::Digest(bytes),
            Data::Large(source) => {
                no_context(&context)?;
                let operation = Operation::Sign(v1::StreamSign {});
                let done = large::run(connection, name, mechanism, operation, source).await?;
                let Some(Outcome::Signature(signature)) = done.finished.result else {
                    return Err(Failure::Answer("a stream without a signature"));
                };
                return written(&out, &signature, Secrecy::Public, used(done.started));
            }
        };
        let request = v1::SignRequest {
            name,
            data_crc32c: Some(data_crc(&data)),
            data: Some(data),
            mechanism,
            context,
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().sign(request.clone()).await).await?;
        if crc32c::crc32c(&answer.signature) != answer.signature_crc32c {
            return Err(Failure::Answer("the signature was damaged on the way"));
        }
        let mechanism = view::mechanism(answer.mechanism());
        let used = Used { name: answer.name, mechanism: Some(mechanism), audit: answer.audit };
        written(&out, &answer.signature, Secrecy::Public, used)
    }
}

fn data_crc(data: &v1::sign_request::Data) -> u32 {
    match data {
        v1::sign_request::Data::Message(bytes) | v1::sign_request::Data::Digest(bytes) => {
            crc32c::crc32c(bytes)
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// Version name; a key name means its primary version.
    name: String,
    #[command(flatten)]
    signed: Signed,
    #[command(flatten)]
    how: How,
    /// Context of ML-DSA and SLH-DSA, as it was when it was signed.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    context: Option<HexBytes>,
    /// File with the signature.
    #[arg(long, value_name = "FILE")]
    signature: PathBuf,
}

impl Verify {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, signed, how, context, signature } = self;
        let (mechanism, context) = (how.wire()?, bytes(context));
        let signature = input::read(&signature, SIGNATURE_BYTES_MAX)?;
        let (crc, data) = match signed.read()? {
            Data::Message(bytes) => {
                (crc32c::crc32c(&bytes), v1::verify_request::Data::Message(bytes))
            }
            Data::Digest(bytes) => {
                (crc32c::crc32c(&bytes), v1::verify_request::Data::Digest(bytes))
            }
            Data::Large(source) => {
                no_context(&context)?;
                let operation = Operation::Verify(v1::StreamVerify { signature });
                return verdict(connection, name, mechanism, operation, source).await;
            }
        };
        let request = v1::VerifyRequest {
            name,
            data: Some(data),
            signature,
            data_crc32c: Some(crc),
            mechanism,
            context,
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().verify(request.clone()).await).await?;
        Ok(valid(answer.valid, answer.audit))
    }
}

#[derive(Args, Debug)]
pub(crate) struct Encrypt {
    /// Version name; a key name means its primary version.
    name: String,
    /// File to encrypt, of any length.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// Where the ciphertext is written, with all that decrypt needs but the key.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
    /// File of bytes that are authenticated with it and not encrypted; the label of RSA-OAEP.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// Initialization vector; without it, the daemon makes it, as hardened rings demand for AEAD.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    iv: Option<HexBytes>,
}

/// A ciphertext with all that is needed to open it, but the key. Of a long one, this is the first line,
/// without the ciphertext, which follows as it is.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Ciphertext {
    #[serde(rename = "type")]
    type_: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mechanism: Option<String>,
    initialization_vector: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ciphertext: Option<String>,
}

impl Encrypt {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, input, out, aad_file, how, iv } = self;
        let (mechanism, initialization_vector) = (how.wire()?, bytes(iv));
        let additional_authenticated_data = aad(aad_file.as_deref())?;
        let plaintext = match large::read(&input)? {
            Source::Whole(bytes) => bytes,
            source @ Source::Long { .. } => {
                let operation = Operation::Encrypt(v1::StreamEncrypt {
                    additional_authenticated_data,
                    initialization_vector,
                });
                let head = |started: &v1::StreamStarted| {
                    head(
                        STREAM_TYPE,
                        started.name.clone(),
                        started.mechanism(),
                        &started.initialization_vector,
                        None,
                    )
                };
                let to = large::Target { out: &out, secrecy: Secrecy::Public };
                let done = large::convert(connection, name, mechanism, operation, source, to, head)
                    .await?;
                return Ok(reported(&out, used(done.started)));
            }
        };
        let request = v1::EncryptRequest {
            name,
            plaintext_crc32c: Some(crc32c::crc32c(&plaintext)),
            plaintext,
            additional_authenticated_data,
            mechanism,
            initialization_vector,
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().encrypt(request.clone()).await).await?;
        if crc32c::crc32c(&answer.ciphertext) != answer.ciphertext_crc32c {
            return Err(Failure::Answer("the ciphertext was damaged on the way"));
        }
        let bytes = head(
            CIPHERTEXT_TYPE,
            answer.name.clone(),
            answer.mechanism(),
            &answer.initialization_vector,
            Some(&answer.ciphertext),
        );
        let mechanism = view::mechanism(answer.mechanism());
        let used = Used { name: answer.name, mechanism: Some(mechanism), audit: answer.audit };
        written(&out, &bytes, Secrecy::Public, used)
    }
}

/// The one line of a document.
pub(crate) fn head(
    type_: &str,
    name: String,
    mechanism: v1::Mechanism,
    initialization_vector: &[u8],
    ciphertext: Option<&[u8]>,
) -> Vec<u8> {
    let named = mechanism != v1::Mechanism::Unspecified;
    let document = Ciphertext {
        type_: type_.to_owned(),
        name,
        mechanism: named.then(|| view::mechanism(mechanism)),
        initialization_vector: STANDARD.encode(initialization_vector),
        ciphertext: ciphertext.map(|bytes| STANDARD.encode(bytes)),
    };
    let mut bytes = json!(document).to_string().into_bytes();
    bytes.push(b'\n');
    bytes
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
        let additional_authenticated_data = aad(aad_file.as_deref())?;
        let (first_line, rest) = large::first_line(&input, DOCUMENT_BYTES_MAX)?;
        let Opened { type_, name, mechanism, initialization_vector, ciphertext } =
            parse_ciphertext(&input, &first_line)?;
        let wrong = || not_a_ciphertext(&input);
        let ciphertext = match (type_.as_str(), ciphertext) {
            (CIPHERTEXT_TYPE, Some(ciphertext)) => ciphertext,
            (STREAM_TYPE, None) => {
                let operation = Operation::Decrypt(v1::StreamDecrypt {
                    additional_authenticated_data,
                    initialization_vector,
                });
                let to = large::Target { out: &out, secrecy: Secrecy::Secret };
                let done = large::convert(connection, name, mechanism, operation, rest, to, |_| {
                    Vec::new()
                });
                return Ok(reported(&out, used(done.await?.started)));
            }
            _ => return Err(wrong()),
        };
        let request = v1::DecryptRequest {
            name: name.clone(),
            initialization_vector,
            ciphertext_crc32c: Some(crc32c::crc32c(&ciphertext)),
            ciphertext,
            additional_authenticated_data,
            mechanism,
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().decrypt(request.clone()).await).await?;
        if crc32c::crc32c(&answer.plaintext) != answer.plaintext_crc32c {
            return Err(Failure::Answer("the plaintext was damaged on the way"));
        }
        let used = Used { name, mechanism: None, audit: answer.audit };
        written(&out, &answer.plaintext, Secrecy::Secret, used)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Mac {
    /// Version name; a key name means its primary version.
    name: String,
    /// File to authenticate, of any length.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    #[command(flatten)]
    how: How,
    /// Where the code is written: as long as the hash function's digest.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
}

impl Mac {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, input, how, out } = self;
        let mechanism = how.wire()?;
        let data = match large::read(&input)? {
            Source::Whole(bytes) => bytes,
            source @ Source::Long { .. } => {
                let operation = Operation::MacSign(v1::StreamMacSign {});
                let done = large::run(connection, name, mechanism, operation, source).await?;
                let Some(Outcome::Mac(mac)) = done.finished.result else {
                    return Err(Failure::Answer("a stream without a code"));
                };
                return written(&out, &mac, Secrecy::Public, used(done.started));
            }
        };
        let request = v1::MacSignRequest { name, data, mechanism };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().mac_sign(request.clone()).await).await?;
        let mechanism = view::mechanism(answer.mechanism());
        let used = Used { name: answer.name, mechanism: Some(mechanism), audit: answer.audit };
        written(&out, &answer.mac, Secrecy::Public, used)
    }
}

#[derive(Args, Debug)]
pub(crate) struct MacVerify {
    /// Version name; a key name means its primary version.
    name: String,
    /// The file that was authenticated.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    #[command(flatten)]
    how: How,
    /// File with the code.
    #[arg(long, value_name = "FILE")]
    mac: PathBuf,
}

impl MacVerify {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, input, how, mac } = self;
        let (mechanism, mac) = (how.wire()?, input::read(&mac, SIGNATURE_BYTES_MAX)?);
        let data = match large::read(&input)? {
            Source::Whole(bytes) => bytes,
            source @ Source::Long { .. } => {
                let operation = Operation::MacVerify(v1::StreamMacVerify { mac });
                return verdict(connection, name, mechanism, operation, source).await;
            }
        };
        let request = v1::MacVerifyRequest { name, data, mac, mechanism };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.crypto().mac_verify(request.clone()).await).await?;
        Ok(valid(answer.valid, answer.audit))
    }
}

#[derive(Args, Debug)]
pub(crate) struct Digest {
    /// Ring name: whose users may ask.
    ring: String,
    /// The hash function.
    #[arg(long, value_name = "HASH", value_parser = shape::hash_names(), default_value = "SHA256")]
    hash: String,
    /// File to hash, of any length.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// Where the digest is written, as bytes; without it, it is shown in hexadecimal.
    #[arg(long, value_name = "FILE|-")]
    out: Option<PathBuf>,
}

impl Digest {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { ring, hash, input, out } = self;
        let code = shape::wire_hash(&hash)?;
        let (digest, audit) = match large::read(&input)? {
            Source::Whole(data) => {
                let request = v1::DigestRequest { ring, hash: code, data };
                let client = connection.open().await?;
                let answer =
                    client.retry(async || client.crypto().digest(request.clone()).await).await?;
                (answer.digest, answer.audit)
            }
            source @ Source::Long { .. } => {
                let operation = Operation::Digest(v1::StreamDigest { hash: code });
                let done = large::run(connection, ring, 0, operation, source).await?;
                let Some(Outcome::Digest(digest)) = done.finished.result else {
                    return Err(Failure::Answer("a stream without a digest"));
                };
                (digest, done.started.audit)
            }
        };
        if let Some(out) = &out {
            input::write(out, &digest, Secrecy::Public)?;
            if input::is_dash(out) {
                return Ok(Report::nothing());
            }
        }
        let report = Report::fields(json!({ "hash": hash, "digest": hex::encode(digest) }));
        Ok(view::audited(report, audit))
    }
}

async fn verdict(
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

fn no_context(context: &[u8]) -> Result<(), Failure> {
    if context.is_empty() {
        return Ok(());
    }
    let limit =
        "mechanisms with a context sign at most 64 KiB: sign the file's digest as the message";
    Err(Failure::input("--context", limit))
}

fn bytes(hex: Option<HexBytes>) -> Vec<u8> {
    hex.map(|HexBytes(bytes)| bytes).unwrap_or_default()
}

fn digest(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = input::read(path, DIGEST_FILE_BYTES_MAX)?;
    let fits = |length: usize| Hash::ALL.iter().any(|hash| hash.digest_bytes() == length);
    // A digest in hexadecimal is twice as long as some digest, too, but says so by its digits.
    if let Some(digest) = hex::decode(bytes.trim_ascii()).ok().filter(|digest| fits(digest.len())) {
        return Ok(digest);
    }
    if fits(bytes.len()) {
        return Ok(bytes);
    }
    let expected = "expected a digest of 20 to 64 bytes, as bytes or as hexadecimal digits";
    Err(Failure::input(path.display(), expected))
}

/// Additional data out of a file, if there is one.
pub(crate) fn aad(path: Option<&Path>) -> Result<Vec<u8>, Failure> {
    path.map_or_else(|| Ok(Vec::new()), |path| input::read(path, MESSAGE_BYTES_MAX))
}

/// A document, read.
pub(crate) struct Opened {
    type_: String,
    pub(crate) name: String,
    pub(crate) mechanism: i32,
    pub(crate) initialization_vector: Vec<u8>,
    ciphertext: Option<Vec<u8>>,
}

/// Reads a document of which the ciphertext is part.
pub(crate) fn read_ciphertext(path: &Path, type_: &str) -> Result<(Opened, Vec<u8>), Failure> {
    let bytes = input::read(path, DOCUMENT_BYTES_MAX)?;
    let mut opened = parse_ciphertext(path, &bytes)?;
    match opened.ciphertext.take() {
        Some(ciphertext) if opened.type_ == type_ => Ok((opened, ciphertext)),
        _ => Err(not_a_ciphertext(path)),
    }
}

fn parse_ciphertext(path: &Path, bytes: &[u8]) -> Result<Opened, Failure> {
    let wrong = || not_a_ciphertext(path);
    let document: Ciphertext = serde_json::from_slice(bytes).map_err(|_| wrong())?;
    let Ciphertext { type_, name, mechanism, initialization_vector, ciphertext } = document;
    let decode = |text: String| STANDARD.decode(text).map_err(|_| wrong());
    Ok(Opened {
        type_,
        name,
        mechanism: shape::wire_mechanism(mechanism.as_deref())?,
        initialization_vector: decode(initialization_vector)?,
        ciphertext: ciphertext.map(decode).transpose()?,
    })
}

fn not_a_ciphertext(path: &Path) -> Failure {
    Failure::input(path.display(), "not what kmsctl wrote; give the whole file, as it was written")
}

/// Which version was used, how, and where that stands in the log.
pub(crate) struct Used {
    pub(crate) name: String,
    pub(crate) mechanism: Option<String>,
    pub(crate) audit: Option<v1::AuditReference>,
}

fn used(started: v1::StreamStarted) -> Used {
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

fn reported(out: &Path, used: Used) -> Report {
    if input::is_dash(out) {
        return Report::nothing();
    }
    let Used { name, mechanism, audit } = used;
    let told = json!({ "name": name, "mechanism": mechanism, "out": out.display().to_string() });
    view::audited(Report::fields(told), audit)
}

fn valid(valid: bool, audit: Option<v1::AuditReference>) -> Report {
    view::audited(Report::fields(json!({ "valid": valid })), audit).accepted_if(valid)
}

/// The `type` of a ciphertext in one document.
pub(crate) const CIPHERTEXT_TYPE: &str = "kms-ciphertext/v1";
const STREAM_TYPE: &str = "kms-ciphertext-stream/v1";
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// 64 KiB in base64, twice over.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
const SIGNATURE_BYTES_MAX: usize = 16 * 1024;
/// 128 digits and a line end or two.
const DIGEST_FILE_BYTES_MAX: usize = 144;
pub(crate) const SIGN_HELP: &str = "\
Examples:
  kmsctl key sign dev/k1 --message-file letter.txt --out letter.sig
  openssl dgst -sha256 -binary big.iso | kmsctl key sign dev/k1 --digest-file - --out big.sig
  kmsctl key sign dev/r1 --mechanism RSA_PKCS1_SHA256 --message-file big.iso --out big.sig
  kmsctl key public dev/k1 --out k1.pem
  openssl dgst -sha256 -verify k1.pem -signature letter.sig letter.txt

What is longer than 64 KiB goes over a stream, for mechanisms with a hash function.";
pub(crate) const VERIFY_HELP: &str = "\
Example:
  kmsctl key verify dev/k1 --message-file letter.txt --signature letter.sig";
pub(crate) const ENCRYPT_HELP: &str = "\
Examples:
  kmsctl key encrypt dev/a --in secret.txt --out secret.json
  kmsctl key decrypt --in secret.json --out -
  kmsctl key encrypt dev/a --in disk.img --out disk.img.kms
  kmsctl key encrypt dev/a --mechanism AES_CBC_PAD --iv 000102030405060708090a0b0c0d0e0f --in p --out c

What is longer than 64 KiB goes over a stream; the file that is written then begins with one line of JSON.";
pub(crate) const MAC_HELP: &str = "\
Examples:
  kmsctl key mac dev/m --in letter.txt --out letter.mac
  kmsctl key mac-verify dev/m --in letter.txt --mac letter.mac";
pub(crate) const DIGEST_HELP: &str = "\
Example:
  kmsctl key digest dev --hash SHA3_256 --in letter.txt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_bytes_or_digits_as_long_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digest");
        for length in [20, 28, 32, 48, 64] {
            let digits = format!("{}\n", "ab".repeat(length));
            for (file, expected) in
                [(vec![7; length], vec![7; length]), (digits.into_bytes(), vec![0xab; length])]
            {
                std::fs::write(&path, file).unwrap();
                assert_eq!(digest(&path).ok(), Some(expected));
            }
        }
        for bad in [vec![7; 31], vec![7; 33], vec![b'a'; 62], vec![b'z'; 66], vec![], vec![0; 199]]
        {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(digest(&path).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn a_ciphertext_reads_back_and_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        let line =
            head(CIPHERTEXT_TYPE, "dev/a@1".into(), v1::Mechanism::AesCtr, &[0, 1], Some(&[3]));
        std::fs::write(&path, &line).unwrap();
        let (opened, ciphertext) = read_ciphertext(&path, CIPHERTEXT_TYPE).unwrap();
        assert_eq!((opened.name.as_str(), ciphertext), ("dev/a@1", vec![3]));
        assert_eq!(opened.initialization_vector, [0, 1]);
        assert_eq!(opened.mechanism, i32::from(v1::Mechanism::AesCtr));
        assert_eq!(read_ciphertext(&path, "other").err().unwrap().exit_code(), 2);
        // What was written before there were several mechanisms has none.
        let old = json!({ "type": CIPHERTEXT_TYPE, "name": "dev/a@1",
            "initialization_vector": "AAEC", "ciphertext": "AwQ=" });
        std::fs::write(&path, old.to_string()).unwrap();
        assert_eq!(read_ciphertext(&path, CIPHERTEXT_TYPE).unwrap().0.mechanism, 0);
        for (member, value) in [("mechanism", "ROT13"), ("ciphertext", "?"), ("extra", "x")] {
            let mut bad = old.clone();
            bad[member] = json!(value);
            std::fs::write(&path, bad.to_string()).unwrap();
            let refused = read_ciphertext(&path, CIPHERTEXT_TYPE).err().unwrap();
            assert_eq!(refused.exit_code(), 2, "{member}");
        }
    }
}
