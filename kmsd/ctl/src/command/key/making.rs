//! Keys out of keys: wrap, unwrap, derive, agree, encapsulate, decapsulate, copy; and what moves without
//! being seen: data keys and re-encryption. None of it shows a key but the data key that is asked for, which
//! comes sealed to this call.

use std::path::{Path, PathBuf};

use clap::Args;
use kms_client::v1;
use serde_json::json;

use super::document::{self, CIPHERTEXT_TYPE};
use super::manage::made;
use super::operate::{self, How, Used};
use super::shape::{self, Limits, Shape};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, HexBytes, Secrecy};
use crate::output::Report;
use crate::sealing;
use crate::view;

#[derive(Args, Debug)]
pub(crate) struct Wrap {
    /// The wrapping key; in hardened rings one that is trusted.
    name: String,
    /// The version to be wrapped, for example dev/k1@1.
    target: String,
    #[command(flatten)]
    how: How,
    /// File of bytes that are authenticated with it.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
    /// Where the wrapped key is written, with all that unwrap needs but the key.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
    /// Write the bytes of the wrapped key alone, for other systems.
    #[arg(long)]
    raw: bool,
}

impl Wrap {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, target, how, aad_file, out, raw } = self;
        let request = v1::WrapKeyRequest {
            name,
            target,
            mechanism: how.wire()?,
            additional_authenticated_data: operate::aad(aad_file.as_deref())?,
        };
        let mechanism = request.mechanism();
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().wrap_key(request.clone()).await).await?;
        let iv = &answer.initialization_vector;
        if raw && !iv.is_empty() {
            return Err(Failure::Input(
                "this mechanism has an initialization vector, which --raw would lose; leave --raw out, or use AES_KWP".to_owned(),
            ));
        }
        let bytes = if raw {
            answer.wrapped_key
        } else {
            let (name, key) = (answer.name.clone(), Some(&answer.wrapped_key[..]));
            document::head(WRAPPED_KEY_TYPE, name, mechanism, iv, key)
        };
        let used = Used { name: answer.name, mechanism: None, audit: answer.audit };
        operate::written(&out, &bytes, Secrecy::Public, used)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Unwrap {
    /// Name of the new key.
    name: String,
    #[command(flatten)]
    shape: Shape,
    /// The file that wrap wrote; with --with, the bytes of the wrapped key alone.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// The wrapping version, for a wrapped key of another system.
    #[arg(long, value_name = "VERSION")]
    with: Option<String>,
    /// How another system wrapped it.
    #[arg(long, value_name = "MECHANISM", value_parser = shape::mechanism_names(), requires = "with")]
    by: Option<String>,
    /// Its initialization vector, where the mechanism has one.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes, requires = "with")]
    iv: Option<HexBytes>,
    /// File of the bytes that were authenticated with it.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
}

impl Unwrap {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, shape, input, with, by, iv, aad_file } = self;
        let (wrapping, mechanism, initialization_vector, wrapped_key) = match with {
            Some(with) => {
                let wrapped = input::read(&input, WRAPPED_BYTES_MAX)?;
                let iv = iv.map(|HexBytes(iv)| iv).unwrap_or_default();
                (with, shape::wire_mechanism(by.as_deref())?, iv, wrapped)
            }
            None => {
                let (opened, wrapped) = document::read_ciphertext(&input, WRAPPED_KEY_TYPE)?;
                (opened.name, opened.mechanism, opened.initialization_vector, wrapped)
            }
        };
        let request = v1::UnwrapKeyRequest {
            name: wrapping,
            mechanism,
            initialization_vector,
            additional_authenticated_data: operate::aad(aad_file.as_deref())?,
            wrapped_key,
            key: Some(shape.key(name)?),
            request_id: input::request_id()?,
        };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.crypto().unwrap_key(request.clone()).await).await?;
        made(answer.key, answer.version, answer.audit)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Derive {
    /// The key to derive from.
    name: String,
    /// Name of the new key.
    new: String,
    #[command(flatten)]
    shape: Shape,
    /// An HKDF or KDF_COUNTER mechanism of the key; without it, the one that it prefers.
    #[arg(long, value_name = "MECHANISM", value_parser = shape::mechanism_names())]
    kdf: Option<String>,
    /// Salt of HKDF.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    salt: Option<HexBytes>,
    /// info of HKDF, label of KDF_COUNTER.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    info: Option<HexBytes>,
    /// Context of KDF_COUNTER.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes)]
    context: Option<HexBytes>,
}

impl Derive {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, new, shape, kdf, salt, info, context } = self;
        let request = v1::DeriveKeyRequest {
            name,
            mechanism: shape::wire_mechanism(kdf.as_deref())?,
            salt: bytes(salt),
            info: bytes(info),
            context: bytes(context),
            key: Some(shape.key(new)?),
            request_id: input::request_id()?,
        };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.crypto().derive_key(request.clone()).await).await?;
        made(answer.key, answer.version, answer.audit)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Agree {
    /// The key to agree with.
    name: String,
    /// Name of the new key.
    new: String,
    #[command(flatten)]
    shape: Shape,
    /// The other side's public key, PEM or DER.
    #[arg(long, value_name = "FILE|-")]
    peer: PathBuf,
    /// What the shared secret goes through; without it, its leading bytes are the key.
    #[arg(long, value_name = "MECHANISM", value_parser = shape::mechanism_names())]
    kdf: Option<String>,
    /// Salt of HKDF.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes, requires = "kdf")]
    salt: Option<HexBytes>,
    /// info of HKDF.
    #[arg(long, value_name = "HEX", value_parser = input::hex_bytes, requires = "kdf")]
    info: Option<HexBytes>,
}

impl Agree {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, new, shape, peer, kdf, salt, info } = self;
        let request = v1::AgreeKeyRequest {
            name,
            peer_public_key: input::der_or_pem(&peer, "PUBLIC KEY")?,
            kdf: shape::wire_mechanism(kdf.as_deref())?,
            salt: bytes(salt),
            info: bytes(info),
            key: Some(shape.key(new)?),
            request_id: input::request_id()?,
        };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.crypto().agree_key(request.clone()).await).await?;
        made(answer.key, answer.version, answer.audit)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Encapsulate {
    /// The key whose public half is used.
    name: String,
    /// Name of the new key.
    new: String,
    #[command(flatten)]
    shape: Shape,
    /// Where the ciphertext is written, which tells the other side.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Encapsulate {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, new, shape, out } = self;
        let request = v1::EncapsulateKeyRequest {
            name,
            key: Some(shape.key(new)?),
            request_id: input::request_id()?,
        };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.crypto().encapsulate_key(request.clone()).await).await?;
        input::write(&out, &answer.ciphertext, Secrecy::Public)?;
        let report = made(answer.key, answer.version, answer.audit)?;
        Ok(report.with("out", json!(out.display().to_string())))
    }
}

#[derive(Args, Debug)]
pub(crate) struct Decapsulate {
    /// Version name, for example dev/kem@1.
    name: String,
    /// Name of the new key.
    new: String,
    #[command(flatten)]
    shape: Shape,
    /// File with the ciphertext.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
}

impl Decapsulate {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, new, shape, input } = self;
        let request = v1::DecapsulateKeyRequest {
            name,
            ciphertext: input::read(&input, CIPHERTEXT_BYTES_MAX)?,
            key: Some(shape.key(new)?),
            request_id: input::request_id()?,
        };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.crypto().decapsulate_key(request.clone()).await).await?;
        made(answer.key, answer.version, answer.audit)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Copy {
    /// The version that is copied, for example dev/k1@1.
    name: String,
    /// Name of the copy.
    new: String,
    /// What is to be tighter than in the original; what is not said is as it is there.
    #[command(flatten)]
    limits: Limits,
}

impl Copy {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, new, limits } = self;
        let request = v1::CopyKeyRequest {
            name,
            key: Some(limits.key(new)?),
            request_id: input::request_id()?,
        };
        let client = connection.open().await?;
        let answer = client.retry(async || client.crypto().copy_key(request.clone()).await).await?;
        made(answer.key, answer.version, answer.audit)
    }
}

#[derive(Args, Debug)]
pub(crate) struct ReEncrypt {
    /// File that encrypt wrote, of at most 64 KiB of data; it names the version.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// Key or version that protects it from now on.
    #[arg(long, value_name = "NAME")]
    to: String,
    /// How; without it, as that key prefers.
    #[arg(long, value_name = "MECHANISM", value_parser = shape::mechanism_names())]
    mechanism: Option<String>,
    /// File of the bytes that were authenticated with it.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
    /// File of the bytes that are authenticated with it from now on.
    #[arg(long, value_name = "FILE")]
    new_aad_file: Option<PathBuf>,
    /// Where the new ciphertext is written.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
}

impl ReEncrypt {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { input, to, mechanism, aad_file, new_aad_file, out } = self;
        let (opened, ciphertext) = document::read_ciphertext(&input, CIPHERTEXT_TYPE)?;
        let request = v1::ReEncryptRequest {
            source: opened.name,
            source_mechanism: opened.mechanism,
            initialization_vector: opened.initialization_vector,
            ciphertext,
            source_additional_authenticated_data: operate::aad(aad_file.as_deref())?,
            destination: to,
            destination_mechanism: shape::wire_mechanism(mechanism.as_deref())?,
            destination_additional_authenticated_data: operate::aad(new_aad_file.as_deref())?,
        };
        let client = connection.open().await?;
        let answer =
            client.retry(async || client.crypto().re_encrypt(request.clone()).await).await?;
        if crc32c::crc32c(&answer.ciphertext) != answer.ciphertext_crc32c {
            return Err(Failure::Answer("the ciphertext was damaged on the way"));
        }
        let (name, iv) = (answer.destination, answer.initialization_vector);
        let mechanism = request.destination_mechanism();
        let document =
            document::head(CIPHERTEXT_TYPE, name.clone(), mechanism, &iv, Some(&answer.ciphertext));
        let used = Used { name, mechanism: None, audit: answer.audit };
        operate::written(&out, &document, Secrecy::Public, used)
    }
}

#[derive(Args, Debug)]
pub(crate) struct DataKey {
    /// The key that wraps it.
    name: String,
    /// Its length, 16 to 64.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(16..=64))]
    bytes: u32,
    #[command(flatten)]
    how: How,
    /// File of bytes that are authenticated with it.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
    /// Where the wrapped key is written; key decrypt opens it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where the key itself is written, as bytes, readable to you alone. A file must not exist.
    #[arg(long, value_name = "FILE|-")]
    out_plaintext: Option<PathBuf>,
}

impl DataKey {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, bytes, how, aad_file, out, out_plaintext } = self;
        if let Some(taken) = out_plaintext.as_deref().filter(|path| is_taken(path)) {
            let cause = std::io::ErrorKind::AlreadyExists.into();
            return Err(Failure::File { path: taken.to_owned(), cause });
        }
        // A key pair of this call alone: what the answer holds opens nowhere else.
        let recipient = out_plaintext.is_some().then(sealing::Recipient::generate).transpose()?;
        let request = v1::GenerateDataKeyRequest {
            name,
            length_bytes: bytes,
            additional_authenticated_data: operate::aad(aad_file.as_deref())?,
            mechanism: how.wire()?,
            recipient: recipient.as_ref().map(sealing::Recipient::wire),
        };
        let mechanism = request.mechanism();
        let client = connection.open().await?;
        // Without a request_id another attempt is another key, of which nobody hears: harmless.
        let call = async || client.crypto().generate_data_key(request.clone()).await;
        let answer = client.retry(call).await?;
        let (iv, ciphertext) = (&answer.initialization_vector, &answer.ciphertext);
        let opened = match (&recipient, &answer.sealed) {
            (Some(recipient), Some(sealed)) => {
                // As kms_core::transcript has it: the two parts of the answer belong together.
                let info = sealing::info(b"kms-data-key", &answer.name);
                let aad = sealing::prefixed(&[iv, ciphertext]);
                Some(recipient.open(sealed, &info, &aad)?)
            }
            (Some(_), None) => return Err(Failure::Answer("a data key that was not sealed to us")),
            (None, _) => None,
        };
        let document =
            document::head(CIPHERTEXT_TYPE, answer.name.clone(), mechanism, iv, Some(ciphertext));
        input::write(&out, &document, Secrecy::Public)?;
        if let (Some(path), Some(key)) = (&out_plaintext, &opened) {
            input::write(path, key, Secrecy::Secret)?;
            if input::is_dash(path) {
                return Ok(Report::nothing());
            }
        }
        let told = json!({
            "name": answer.name,
            "out": out.display().to_string(),
            "out_plaintext": out_plaintext.map(|path| path.display().to_string()),
        });
        Ok(view::audited(Report::fields(told), answer.audit))
    }
}

fn is_taken(path: &Path) -> bool {
    !input::is_dash(path) && path.exists()
}

fn bytes(hex: Option<HexBytes>) -> Vec<u8> {
    hex.map(|HexBytes(bytes)| bytes).unwrap_or_default()
}

/// The `type` of a wrapped key in one document.
pub(super) const WRAPPED_KEY_TYPE: &str = "kms-wrapped-key/v1";
const WRAPPED_BYTES_MAX: usize = 64 * 1024;
const CIPHERTEXT_BYTES_MAX: usize = 16 * 1024;
pub(crate) const WRAP_HELP: &str = "\
The key must be exportable, and the wrapping key must have the usage WRAP; in hardened rings a
security officer trusts it first.

Examples:
  kmsctl key create dev/kek --algorithm AES_256 --mechanism AES_KWP
  kmsctl key trust dev/kek
  kmsctl key wrap dev/kek dev/k1@1 --out k1.json
  kmsctl key unwrap dev/k2 --algorithm EC_P256 --in k1.json";
pub(crate) const UNWRAP_HELP: &str = "\
Examples:
  kmsctl key unwrap dev/k2 --algorithm EC_P256 --in k1.json
  kmsctl key unwrap dev/k3 --algorithm AES_256 --with dev/kek@1 --by AES_KWP --in wrapped.bin";
pub(crate) const DERIVE_HELP: &str = "\
Examples:
  kmsctl key create dev/base --algorithm GENERIC_SECRET --mechanism HKDF_SHA256
  kmsctl key derive dev/base dev/tenant7 --algorithm AES_256 --info 74656e616e7437";
pub(crate) const AGREE_HELP: &str = "\
Example:
  kmsctl key create dev/dh --algorithm X25519
  kmsctl key agree dev/dh dev/shared --algorithm AES_256 --peer peer.pem --kdf HKDF_SHA256";
pub(crate) const ENCAPSULATE_HELP: &str = "\
Examples:
  kmsctl key create dev/kem --algorithm ML_KEM_768
  kmsctl key encapsulate dev/kem dev/mine --algorithm AES_256 --out kem.ct
  kmsctl key decapsulate dev/kem@1 dev/theirs --algorithm AES_256 --in kem.ct";
pub(crate) const COPY_HELP: &str = "\
Example:
  kmsctl key copy dev/k1@1 dev/k1-verify --usage VERIFY";
pub(crate) const RE_ENCRYPT_HELP: &str = "\
The data is not shown to you on the way.

Examples:
  kmsctl key rotate dev/a
  kmsctl key re-encrypt --in secret.json --to dev/a --out secret2.json";
pub(crate) const DATA_KEY_HELP: &str = "\
Examples:
  kmsctl key data-key dev/a --out wrapped.json --out-plaintext data.key
  kmsctl key decrypt --in wrapped.json --out data.key";
