//! The root of everything: made once, opened at start or by Unseal.
//!
//! Four rows stand outside the vault's protection, since they are needed to open it. Each is
//! protected by what it holds: a wrap that does not open under its parent is refused.

use std::sync::Arc;

use kms_core::audit::checkpoint::LogKey;
use kms_core::id::{Digest, Home, Segment};
use kms_crypto::log_key::LogSigner;
use kms_crypto::selftest::SelfTests;
#[cfg(feature = "dev")]
use kms_crypto::unlock::DevFile;
use kms_crypto::unlock::{Argon2Cost, PassphraseWrap, RootKey, wrap_by_passphrase};
use kms_crypto::vault::Vault;
use kms_crypto::vouch::VouchKey;
use kms_store::{Batch, Condition, Expected, Outcome, Store, Voucher, Write};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::context::{Context, Opened, operation_id, random};
use crate::failure::{Early, Failure};
use crate::ops::erase;
use crate::rows::{self, ERASURES, Erasure, LOG_NAME, LogName, Stored, USERS, User};
use crate::wire::{hex_decode, hex_encode};

/// How the root key opens.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "method")]
enum SealRow {
    /// By a file beside the store. Protects nothing.
    Dev,
    /// By a passphrase.
    Passphrase(PassphraseWrap),
}

/// The audit log's key.
#[derive(Debug, Serialize, Deserialize)]
struct LogRow {
    origin: String,
    public_key: String,
    wrapped_key: String,
}

/// The key that signs statements about keys.
#[derive(Debug, Serialize, Deserialize)]
struct StatementRow {
    wrapped_key: String,
}

/// A tenant's key.
#[derive(Debug, Serialize, Deserialize)]
struct TenantRow {
    wrapped_key: String,
}

/// What protects a new root key.
pub(crate) enum Protection {
    /// The text of a file beside the store: development only.
    #[cfg(feature = "dev")]
    Dev(SecretString),
    /// A passphrase.
    Passphrase(SecretString),
}

/// Makes root, tenant key and log key in an empty store.
///
/// # Errors
/// When the store is not empty, or store or cryptography fail.
pub(crate) async fn create(
    store: &dyn Store,
    self_tests: Arc<SelfTests>,
    home: &Home,
    protection: Protection,
) -> Result<(), Failure> {
    let (root, seal) = match protection {
        #[cfg(feature = "dev")]
        Protection::Dev(text) => (DevFile::read_plaintext_root(&text)?, SealRow::Dev),
        Protection::Passphrase(passphrase) => {
            let root = RootKey::generate()?;
            let wrap = wrap_by_passphrase(&root, &passphrase, Argon2Cost::PEOPLE)?;
            (root, SealRow::Passphrase(wrap))
        }
    };
    let vault = Vault::with_self_tests(root, self_tests)?;
    store.begin_vouching(voucher(&vault)?).await?;
    let wrapped = vault.create_log_key()?;
    let public_key = vault.open_log_key(&wrapped)?.public_key();
    let id: [u8; 8] = random()?;
    let log = LogRow {
        origin: format!("kms/{}/{}", home.region, hex_encode(&id)),
        public_key: hex_encode(&public_key),
        wrapped_key: hex_encode(&wrapped),
    };
    let tenant = TenantRow { wrapped_key: hex_encode(&vault.create_tenant_key(&home.tenant)?) };
    let statement = StatementRow { wrapped_key: hex_encode(&vault.create_statement_key()?) };
    let LogRow { origin, public_key, wrapped_key: _ } = &log;
    let name = LogName { origin: origin.clone(), public_key: public_key.clone() };
    let name = rows::create(&vault, &operation_id()?, &name, &[])?;
    let (conditions, writes) = (vec![name.condition], Vec::from_iter(name.write));
    let mut batch = Batch { conditions, writes, ..Batch::default() };
    for (key, value) in [
        (SEAL.to_owned(), json(&seal)?),
        (LOG.to_owned(), json(&log)?),
        (STATEMENT.to_owned(), json(&statement)?),
        (tenant_place(&home.tenant), json(&tenant)?),
    ] {
        batch.conditions.push(Condition { key: key.clone(), expected: Expected::Absent });
        batch.writes.push(Write::Put { key, value });
    }
    match store.commit(batch).await? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Conflict(_) => Err(Failure::Bug("the store already has a root key")),
        Outcome::Unknown => Err(Failure::Unknown),
    }
}

/// The name of the way in which the root opens; `None` for a store without a root.
///
/// # Errors
/// When the store fails or holds something else there.
pub(crate) async fn method(store: &dyn Store) -> Result<Option<&'static str>, Failure> {
    Ok(get::<SealRow>(store, SEAL).await?.map(|row| match row {
        SealRow::Dev => "dev",
        SealRow::Passphrase(_) => "passphrase",
    }))
}

/// The passphrase wrap, if a passphrase opens the root.
///
/// # Errors
/// As [`method`].
pub(crate) async fn passphrase_wrap(store: &dyn Store) -> Result<Option<PassphraseWrap>, Failure> {
    Ok(get::<SealRow>(store, SEAL).await?.and_then(|row| match row {
        SealRow::Passphrase(wrap) => Some(wrap),
        SealRow::Dev => None,
    }))
}

/// The audit log's public key.
///
/// # Errors
/// As [`method`], or when there is no root yet.
pub(crate) async fn log_key(store: &dyn Store) -> Result<LogKey, Failure> {
    let row = get::<LogRow>(store, LOG).await?.ok_or(Failure::Bug("a store without a log key"))?;
    let public_key = hex_decode(&row.public_key).and_then(|key| key.try_into().ok());
    let public_key = public_key.ok_or(Failure::Bug("a log key that is none"))?;
    LogKey::new(&row.origin, &public_key).map_err(|_| Failure::Bug("a log key that is none"))
}

/// Opens everything with `root` and puts it in place.
///
/// # Errors
/// When a wrap does not open under this root, or the store fails.
pub(crate) async fn open(cx: &Context, root: RootKey) -> Result<(), Failure> {
    let vault = Arc::new(Vault::with_self_tests(root, cx.self_tests.clone())?);
    let place = tenant_place(&cx.home.tenant);
    let tenant = get::<TenantRow>(&*cx.store, &place).await?;
    let tenant = tenant.ok_or(Failure::Bug("a store without a tenant key"))?;
    vault.open_tenant(&cx.home.tenant, &unhex(&tenant.wrapped_key)?)?;
    let log = get::<LogRow>(&*cx.store, LOG).await?;
    let log = log.ok_or(Failure::Bug("a store without a log key"))?;
    let log_signer = Arc::new(vault.open_log_key(&unhex(&log.wrapped_key)?)?);
    let LogRow { origin, public_key, wrapped_key: _ } = log;
    let vouched_for = all::<LogName>(cx, &vault, LOG_NAME).await?;
    let vouched_for: Vec<_> = vouched_for.into_iter().map(|stored| stored.value).collect();
    if vouched_for != [LogName { origin, public_key: public_key.clone() }]
        || hex_encode(&log_signer.public_key()) != public_key
    {
        let problem = "the audit log's name or key was edited outside the daemon";
        return Err(Failure::Tampered(problem.to_owned()));
    }
    // Before anything else is believed, and before any key is opened for anybody.
    cx.store.begin_vouching(voucher(&vault)?).await?;
    let opened = Parts { vault, log_signer };
    let finished = finish(cx, opened).await;
    if finished.is_err() {
        cx.store.end_vouching();
    }
    finished
}

/// What is open when the rows are believed.
struct Parts {
    vault: Arc<Vault>,
    log_signer: Arc<LogSigner>,
}

/// Reads the rest and puts everything in place.
async fn finish(cx: &Context, Parts { vault, log_signer }: Parts) -> Result<(), Failure> {
    let statement = get::<StatementRow>(&*cx.store, STATEMENT).await?;
    let statement = statement.ok_or(Failure::Bug("a store without a statement key"))?;
    let statement_signer = Arc::new(vault.open_statement_key(&unhex(&statement.wrapped_key)?)?);
    let users = all::<User>(cx, &vault, USERS).await?;
    let erasures = all::<Erasure>(cx, &vault, ERASURES).await?;
    for erasure in erasures {
        erase(cx, erasure.value.slot).await?;
    }
    cx.open(Opened { vault, log_signer, statement_signer }, users);
    Ok(())
}

/// Vouches for what the store writes while the root is open.
struct RootVoucher(VouchKey);

impl Voucher for RootVoucher {
    fn vouch(&self, digest: &Digest) -> [u8; 32] {
        // A word that could not be made is none: zeros vouch for nothing.
        self.0.vouch(digest).unwrap_or([0; 32])
    }

    fn is_vouched(&self, digest: &Digest, vouch: &[u8; 32]) -> bool {
        self.0.is_vouched(digest, vouch)
    }
}

fn voucher(vault: &Vault) -> Result<Arc<dyn Voucher>, Failure> {
    Ok(Arc::new(RootVoucher(vault.vouch_key()?)))
}

async fn all<T: rows::Record>(
    cx: &Context,
    vault: &Vault,
    prefix: &str,
) -> Result<Vec<Stored<T>>, Failure> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page: Result<Vec<(String, Stored<T>)>, Early> =
            rows::scan_with(cx, vault, prefix, after.as_deref(), PAGE).await;
        let page = page.map_err(|early| match early {
            Early::Fail(failure) => failure,
            Early::Refuse(refusal) => Failure::Tampered(refusal.to_string()),
        })?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        after = Some(last.clone());
        all.extend(page.into_iter().map(|(_, stored)| stored));
    }
}

async fn get<T: DeserializeOwned>(store: &dyn Store, place: &str) -> Result<Option<T>, Failure> {
    let Some(row) = store.get(place).await? else { return Ok(None) };
    let read = serde_json::from_slice(&row.value);
    read.map(Some).map_err(|_| Failure::Tampered(format!("the stored row {place} is not readable")))
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|_| Failure::Bug("a row without JSON form"))
}

fn unhex(text: &str) -> Result<Vec<u8>, Failure> {
    hex_decode(text).ok_or_else(|| Failure::Tampered("a wrapped key is not hexadecimal".to_owned()))
}

fn tenant_place(tenant: &Segment) -> String {
    format!("boot/tenant/{tenant}")
}

const SEAL: &str = "boot/seal";
const LOG: &str = "boot/log";
const STATEMENT: &str = "boot/statement";
const PAGE: usize = 500;
