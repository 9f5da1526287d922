//! Keys that come from outside and keys that leave. No plain key leaves this machine, and none arrives
//! here that was not sealed to it.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use kms_client::{Client, v1};
use kms_core::algorithm::{Algorithm, KeyKind};
use kms_core::id::Timestamp;
use kms_core::transfer::ExportRecipient;
use serde_json::json;
use v1::create_proposal_request::Recipient;
use v1::import_key_version_request::Material;
use zeroize::Zeroizing;

use super::shape::{self, Limits};
use crate::command::{proposal, required};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::{self, Secrecy};
use crate::key_file;
use crate::output::Report;
use crate::sealing;
use crate::view;

#[derive(Args, Debug)]
pub(crate) struct Import {
    /// Key name, for a new key; or the name of a version that is PENDING_IMPORT, for example dev/k1@2.
    name: String,
    /// What a new key is.
    #[arg(long, value_name = "ALGORITHM", value_parser = shape::algorithm_names())]
    algorithm: Option<String>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    source: MaterialFile,
    /// Take only the public half of a key pair, PEM or DER: it verifies, encrypts or encapsulates.
    #[arg(long, conflicts_with_all = ["passphrase_file", "method"])]
    public: bool,
}

/// Where the material is.
#[derive(Args, Debug)]
pub(crate) struct MaterialFile {
    /// PKCS#8 (PEM or DER, also encrypted), PKCS#12, or the bytes of a secret.
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// File with the passphrase of the key file; without it, KMS_KEY_PASSPHRASE, or you are asked.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// How it is sealed on the way.
    #[arg(long, value_enum, default_value_t = Method::XWing)]
    method: Method,
    /// Leave the version PRE_ACTIVE.
    #[arg(long)]
    pre_active: bool,
    /// When it becomes ACTIVE; it is PRE_ACTIVE until then.
    #[arg(long, value_name = "TIME", value_parser = input::timestamp)]
    activate_at: Option<Timestamp>,
}

/// How material is sealed on the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Method {
    /// RSA-OAEP (4096 bits) and AES-KWP.
    Rsa,
    /// HPKE with X-Wing, which also holds against quantum computers.
    XWing,
}

impl Method {
    fn wire(self) -> i32 {
        let method = match self {
            Self::Rsa => v1::ImportMethod::RsaOaep4096Sha256Aes256Kwp,
            Self::XWing => v1::ImportMethod::XWingHkdfSha256Aes256Gcm,
        };
        method.into()
    }
}

impl Import {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, algorithm, limits, source, public } = self;
        let target = match (is_version(&name), algorithm) {
            (true, None) => Target::Version(name),
            (true, Some(_)) => {
                let known = "a version is what its key is: leave --algorithm out";
                return Err(Failure::input(name, known));
            }
            (false, Some(algorithm)) => {
                Target::NewKey { name, algorithm, limits: Box::new(limits) }
            }
            (false, None) => {
                let next = "say with --algorithm what the new key is, or name a version, for example dev/k1@2";
                return Err(Failure::input(name, next));
            }
        };
        import(connection, target, source, public).await
    }
}

/// Where material goes.
pub(crate) enum Target {
    /// A key that is made for it.
    NewKey { name: String, algorithm: String, limits: Box<Limits> },
    /// A version that waits for it.
    Version(String),
}

/// Takes material in: reads it, makes the key if there is none, seals the material to a new import job.
pub(crate) async fn import(
    connection: &Connection,
    target: Target,
    source: MaterialFile,
    public: bool,
) -> Result<Report, Failure> {
    let client = connection.open().await?;
    let algorithm = match &target {
        Target::NewKey { algorithm, .. } => shape::wire_algorithm(algorithm)?,
        Target::Version(name) => version_algorithm(&client, name).await?,
    };
    // All that can be wrong on this side is found before anything is made on the other.
    let read = if public {
        Read::Public(input::der_or_pem(&source.input, view::public_key_label(algorithm))?)
    } else {
        Read::Secret(read_material(&source, algorithm)?)
    };
    let (version, is_new) = match target {
        Target::Version(name) => (name, false),
        Target::NewKey { name, limits, .. } => {
            let secret_bytes = match &read {
                Read::Secret(material) => material.len(),
                Read::Public(_) => 0,
            };
            let made = create_pending(&client, name, algorithm, *limits, secret_bytes, &source);
            (made.await?, true)
        }
    };
    let sent = send(&client, &version, read, source.method).await;
    let mut answer = sent.map_err(|cause| match is_new {
        true => Failure::ImportUnfinished { version: version.clone(), cause: Box::new(cause) },
        false => cause,
    })?;
    if wants_activation(answer.version.as_ref(), &source) {
        let request = v1::ActivateKeyVersionRequest {
            name: version,
            etag: String::new(),
            request_id: input::request_id()?,
        };
        let activated = client
            .retry(async || client.keys().activate_key_version(request.clone()).await)
            .await?;
        answer.version = activated.version;
    }
    let shown = view::key_version(required(answer.version)?);
    Ok(view::audited(Report::fields(shown), answer.audit))
}

/// What was read of a file.
enum Read {
    Public(Vec<u8>),
    Secret(Zeroizing<Vec<u8>>),
}

async fn send(
    client: &Client,
    version: &str,
    read: Read,
    method: Method,
) -> Result<v1::ImportKeyVersionResponse, Failure> {
    let material = match read {
        Read::Public(der) => Material::PublicKey(der),
        Read::Secret(material) => {
            let parent = ring_of(version)?.to_owned();
            let request = v1::CreateImportJobRequest {
                parent,
                method: method.wire(),
                request_id: input::request_id()?,
            };
            let answer = client
                .retry(async || client.keys().create_import_job(request.clone()).await)
                .await?;
            let job = required(answer.job)?;
            if job.method != method.wire() {
                return Err(Failure::Answer("an import job of another method than was asked for"));
            }
            let ciphertext = sealing::seal(&job, &material)?;
            Material::Sealed(v1::SealedMaterial { import_job: job.name, ciphertext })
        }
    };
    let request = v1::ImportKeyVersionRequest {
        name: version.to_owned(),
        etag: String::new(),
        request_id: input::request_id()?,
        material: Some(material),
    };
    Ok(client.retry(async || client.keys().import_key_version(request.clone()).await).await?)
}

async fn create_pending(
    client: &Client,
    name: String,
    algorithm: v1::Algorithm,
    limits: Limits,
    secret_bytes: usize,
    source: &MaterialFile,
) -> Result<String, Failure> {
    // The length is part of what the key is; of the other algorithms it follows from them.
    let sized = algorithm == v1::Algorithm::GenericSecret;
    let length_bytes = if sized { u32::try_from(secret_bytes).unwrap_or(u32::MAX) } else { 0 };
    let key = v1::Key { algorithm: algorithm.into(), length_bytes, ..limits.key(name)? };
    let request = v1::CreateKeyRequest {
        key: Some(key),
        request_id: input::request_id()?,
        pending_import: true,
        activate_time: source.activate_at.map(input::wire_time),
        ..Default::default()
    };
    let answer = client.retry(async || client.keys().create_key(request.clone()).await).await?;
    Ok(required(answer.version)?.name)
}

fn wants_activation(version: Option<&v1::KeyVersion>, source: &MaterialFile) -> bool {
    let waits = version.is_some_and(|version| {
        version.state() == v1::State::PreActive && version.activate_time.is_none()
    });
    waits && !source.pre_active && source.activate_at.is_none()
}

async fn version_algorithm(client: &Client, name: &str) -> Result<v1::Algorithm, Failure> {
    let request = v1::GetKeyVersionRequest { name: name.to_owned() };
    let answer =
        client.retry(async || client.keys().get_key_version(request.clone()).await).await?;
    Ok(required(answer.version)?.algorithm())
}

/// The bytes that are sealed: PKCS#8 of a private key, a secret as it is.
fn read_material(
    source: &MaterialFile,
    algorithm: v1::Algorithm,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let path = source.input.as_path();
    let bytes = Zeroizing::new(input::read(path, MATERIAL_BYTES_MAX)?);
    let algorithm: Algorithm = view::algorithm(algorithm)
        .parse()
        .map_err(|error| Failure::input(path.display(), error))?;
    match algorithm.kind() {
        KeyKind::KeyPair => {
            let passphrase = || {
                input::passphrase(source.passphrase_file.as_deref(), "Passphrase of the key file: ")
            };
            key_file::private_key(path, bytes, passphrase)
        }
        _ => check_length(path, bytes, algorithm),
    }
}

fn check_length(
    path: &Path,
    bytes: Zeroizing<Vec<u8>>,
    algorithm: Algorithm,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    match algorithm.secret_bytes() {
        Some(length) if length != bytes.len() => {
            let expected = format!(
                "{algorithm} has {length} bytes, the file has {}; a line end counts",
                bytes.len()
            );
            Err(Failure::input(path.display(), expected))
        }
        _ if bytes.is_empty() => Err(Failure::input(path.display(), "the file is empty")),
        _ => Ok(bytes),
    }
}

/// Whether the name is that of a version.
pub(crate) fn is_version(name: &str) -> bool {
    name.contains('@') || name.contains("/versions/")
}

/// The ring's name in that of a key or version, short or full.
fn ring_of(name: &str) -> Result<&str, Failure> {
    let ring = match name.split_once("/keys/") {
        Some((ring, _)) => Some(ring),
        None => name.split_once('/').map(|(ring, _)| ring),
    };
    ring.ok_or_else(|| Failure::input(name, "expected a name such as dev/k1"))
}

#[derive(Args, Debug)]
pub(crate) struct Export {
    /// Version name, for example dev/k1@1.
    name: String,
    #[command(flatten)]
    to: To,
    /// The approved proposal; without it, one is made.
    #[arg(long, value_name = "proposals/ID", requires = "out")]
    proposal: Option<String>,
    /// Where the key is written: with --private-key opened and readable to you alone, else sealed. A file
    /// must not exist.
    #[arg(long, value_name = "FILE|-")]
    out: Option<PathBuf>,
}

/// Who an exported key is sealed to.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct To {
    /// An RSA private key of at least 3072 bits, PKCS#8, to whose public half it is sealed.
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// An RSA public key of at least 3072 bits, PEM or DER; somebody else opens it.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
}

impl Export {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, to, proposal, out } = self;
        let who = to.read()?;
        let client = connection.open().await?;
        match (proposal, out) {
            (Some(proposal), Some(out)) => fetch_export(&client, name, proposal, who, &out).await,
            _ => ask_for_export(&client, name, who.public_key).await,
        }
    }
}

/// The two halves of a recipient, of which the private one may be elsewhere.
struct RecipientKey {
    public_key: Vec<u8>,
    private_key: Option<Zeroizing<Vec<u8>>>,
}

impl To {
    fn read(&self) -> Result<RecipientKey, Failure> {
        match (&self.private_key, &self.public_key) {
            (Some(path), None) => {
                let bytes = Zeroizing::new(input::read(path, MATERIAL_BYTES_MAX)?);
                let passphrase = || input::passphrase(None, "Passphrase of the private key: ");
                let private = key_file::private_key(path, bytes, passphrase)?;
                let public_key = sealing::rsa_public_key(&private)?;
                Ok(RecipientKey { public_key, private_key: Some(private) })
            }
            (None, Some(path)) => {
                let public_key = input::der_or_pem(path, "PUBLIC KEY")?;
                Ok(RecipientKey { public_key, private_key: None })
            }
            // clap has made sure of exactly one.
            _ => Err(Failure::Input("give either --private-key or --public-key".to_owned())),
        }
    }
}

/// Asks, is told that others must approve, and makes the proposal for them.
async fn ask_for_export(
    client: &Client,
    name: String,
    public_key: Vec<u8>,
) -> Result<Report, Failure> {
    use v1::export_key_version_request::Recipient as Wire;
    let request = v1::ExportKeyVersionRequest {
        name: name.clone(),
        etag: String::new(),
        recipient: Some(Wire::RsaPublicKey(public_key.clone())),
    };
    match client.call(client.keys().export_key_version(request)).await {
        Err(error) if error.needs_approval() => {}
        Err(error) => return Err(error.into()),
        Ok(_) => return Err(Failure::Answer("an export that nobody approved")),
    }
    let recipient = Some(Recipient::RsaPublicKey(public_key));
    let action = "ExportKeyVersion".to_owned();
    let report =
        proposal::create(client, action, name.clone(), None, proposal::About::recipient(recipient))
            .await?;
    Ok(report
        .note(format!("When it is approved: kmsctl key export {name} --proposal NAME --out FILE and the same key"))
        .awaiting_approval())
}

async fn fetch_export(
    client: &Client,
    name: String,
    proposal: String,
    who: RecipientKey,
    out: &Path,
) -> Result<Report, Failure> {
    let found = proposal::fetch(client, proposal.clone()).await?;
    let document = proposal::read_document(&required(found.proposal)?)?;
    let RecipientKey { public_key, private_key } = who;
    let expected = ExportRecipient::RsaAesKeyWrap { public_key: hex::encode(&public_key) };
    // It runs once: what could not be opened afterwards would be lost.
    if document.action.as_str() != "ExportKeyVersion" || document.recipient != Some(expected) {
        return Err(Failure::input(proposal, "this proposal does not export to this key"));
    }
    if !input::is_dash(out) && out.exists() {
        let cause = std::io::ErrorKind::AlreadyExists.into();
        return Err(Failure::File { path: out.to_owned(), cause });
    }
    let answer = proposal::execute(client, proposal).await?;
    let wrapped = answer.wrapped_key;
    let opened = match &private_key {
        Some(private_key) => Some(sealing::open_with_rsa(private_key, &wrapped)?),
        None => None,
    };
    let bytes = opened.as_ref().map_or(wrapped.as_slice(), |opened| opened.as_slice());
    input::write(out, bytes, Secrecy::Secret)?;
    if input::is_dash(out) {
        return Ok(Report::nothing());
    }
    let told = json!({
        "name": name,
        "out": out.display().to_string(),
        "opened": opened.is_some(),
    });
    Ok(view::audited(Report::fields(told), answer.audit))
}

/// PKCS#8 of the longest keys, PKCS#12 with a chain, a secret of 64 KiB.
const MATERIAL_BYTES_MAX: usize = 64 * 1024;
pub(crate) const IMPORT_HELP: &str = "\
The material is sealed on this machine to an import job of the appliance. It is marked as imported:
it is not local, and nobody can say that it was never elsewhere.

Examples:
  kmsctl key import dev/old --algorithm RSA_3072 --in key.pem
  kmsctl key import dev/tls --algorithm EC_P256 --in store.p12 --passphrase-file pass.txt
  kmsctl key import dev/a --algorithm AES_256 --in aes.bin --method rsa
  kmsctl key import dev/peer --algorithm EC_P256 --usage VERIFY --public --in peer.pem
  kmsctl key rotate dev/old --pending-import
  kmsctl key import dev/old@2 --in next.pem";
pub(crate) const EXPORT_HELP: &str = "\
Only keys that were made --exportable leave, and only as a quorum approved; the first call makes the
proposal.

Examples:
  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -out me.pem
  kmsctl key export dev/k1@1 --private-key me.pem
  kmsctl proposal document proposals/x --out proposal.json
  kmsctl key export dev/k1@1 --private-key me.pem --proposal proposals/x --out k1.der";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_found_in_every_form_of_a_name() {
        let full = "tenants/default/locations/local/keyRings/dev/keys/k1/versions/2";
        assert_eq!(ring_of(full).unwrap(), "tenants/default/locations/local/keyRings/dev");
        assert_eq!(ring_of("dev/k1@2").unwrap(), "dev");
        assert!(ring_of("k1").is_err());
        assert!(is_version("dev/k1@2") && is_version(full) && !is_version("dev/k1"));
    }

    #[test]
    fn a_secret_of_another_length_is_refused_here() {
        let path = Path::new("f");
        let check =
            |length, algorithm| check_length(path, Zeroizing::new(vec![1; length]), algorithm);
        assert!(check(32, Algorithm::Aes256).is_ok());
        let refused = check(33, Algorithm::Aes256).unwrap_err().to_string();
        assert!(refused.contains("a line end counts"), "{refused}");
        assert!(check(20, Algorithm::GenericSecret).is_ok());
        assert!(check(0, Algorithm::OpaqueSecret).is_err());
    }
}
