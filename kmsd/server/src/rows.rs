//! The stored rows: where each lies, how it is read and believed, how it is written.
//!
//! A row is canonical JSON in an envelope that the vault authenticates together with its place,
//! revision and operation id, so that a row that was edited, swapped or moved is refused by name.

use kms_core::action::Action;
use std::sync::Arc;

use kms_core::caller::RowAt;
use kms_core::canonical;
use kms_core::credential::{Credential, Proof};
use kms_core::id::{
    Digest, KeyName, OperationId, PrincipalName, RingName, Segment, Timestamp, VersionName,
};
use kms_core::key::{Commitment, Key, Ring, Version};
use kms_core::lifecycle::State;
use kms_core::rights::Grant;
use kms_core::transfer::{ImportJob, ImportJobName};
use kms_crypto::CryptoError;
use kms_crypto::row::row_digest;
use kms_crypto::vault::Vault;
use kms_store::{Condition, Expected, Write};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::failure::{Early, Failure};

/// A row as the store has it, believed.
#[derive(Clone, Debug)]
pub(crate) struct Stored<T> {
    /// What the row says.
    pub(crate) value: T,
    /// Wrapped key bytes, for versions; otherwise empty.
    pub(crate) sealed: Vec<u8>,
    /// How often the row was written.
    pub(crate) revision: u64,
    /// Names this state of the row to callers.
    pub(crate) etag: String,
}

/// Something that has a place in the store.
pub(crate) trait Record: Serialize + DeserializeOwned + Clone + Send + Sync {
    /// Where it lies.
    fn place(&self) -> String;

    /// What names its state to callers, given the digest of its envelope.
    fn state_digest(&self, envelope: Digest) -> Digest {
        envelope
    }
}

/// An enrolled person or program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    /// Its name.
    pub(crate) name: PrincipalName,
    /// What proves it, and what once did.
    pub(crate) credentials: Vec<Credential>,
    /// What it may do.
    pub(crate) grants: Vec<Grant>,
    /// Whether it is let in.
    pub(crate) state: UserState,
    /// When it was enrolled.
    pub(crate) created_at: Timestamp,
}

/// Whether a person or program is let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UserState {
    /// It is.
    Active,
    /// Never again; the name stays taken.
    Deleted,
    /// For now not.
    Disabled,
}

impl User {
    /// Its credential of that kind and value, if it ever had it.
    pub(crate) fn credential(&self, proof: &Proof) -> Option<&Credential> {
        let same = |credential: &&Credential| {
            credential.proof == *proof || credential.proof.digest() == proof.digest()
        };
        self.credentials.iter().find(same)
    }
}

/// The audit log's name and public key, as the vault vouches for them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogName {
    /// The log's origin.
    pub(crate) origin: String,
    /// Its public key, lower-case hexadecimal.
    pub(crate) public_key: String,
}

/// Where the log's name lies.
pub(crate) const LOG_NAME: &str = "log-name";

/// A ring's PIN.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pin {
    /// The ring.
    pub(crate) ring: RingName,
    /// Whose.
    pub(crate) role: PinRole,
    /// Argon2id in the PHC form.
    pub(crate) phc: String,
}

/// Whose PIN it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PinRole {
    /// CKU_SO.
    SecurityOfficer,
    /// CKU_USER.
    User,
}

impl PinRole {
    /// The published name, as in principal names.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::SecurityOfficer => "security-officer",
            Self::User => "user",
        }
    }
}

/// A proposal and where it stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProposalRow {
    /// Its id.
    pub(crate) id: Segment,
    /// The canonical bytes that are signed and run, as text: they are JSON.
    pub(crate) document: String,
    /// Where it stands.
    pub(crate) state: ProposalState,
    /// The signatures so far; counted anew each time.
    pub(crate) approvals: Vec<kms_core::quorum::Approval>,
}

/// Where a proposal stands, apart from time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ProposalState {
    /// Taken back.
    Cancelled,
    /// Ran.
    Executed,
    /// Waits for approvals or execution.
    Open,
}

/// A slot that is to be erased: written in the same batch as the destruction, so that a crash
/// between the two is made good at the next start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Erasure {
    /// Which slot.
    pub(crate) slot: u64,
}

/// One thing that happened to a key; uses stand in the log only.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    /// The key.
    pub(crate) key: KeyName,
    /// When.
    pub(crate) at: Timestamp,
    /// Names the operation in the log.
    pub(crate) operation_id: OperationId,
    /// Who did it.
    pub(crate) actor: PrincipalName,
    /// What was done.
    pub(crate) action: Action,
    /// The number of the version, if it was done to one.
    pub(crate) version: Option<u32>,
    /// Where that version stood before; none if it did not exist.
    pub(crate) from: Option<State>,
    /// Where that version stood afterwards.
    pub(crate) to: Option<State>,
}

/// A mark that something is to be looked at when a time has come: a version with a date, a key with a
/// schedule. It says where to look and nothing else; what is due stands in the row of the version or
/// key, and a mark that is out of date leads to nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Due {
    /// When.
    pub(crate) at: Timestamp,
    /// What: the full name of a version or key.
    pub(crate) resource: String,
    /// The operation that set the time, so that no mark is ever written twice at one place.
    pub(crate) operation_id: OperationId,
}

/// Who holds a credential. Written with the user, so that the store itself refuses a second
/// holder, and never removed, so that what was revoked finds no holder again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Holding {
    /// Names the credential: a digest of its kind and value.
    pub(crate) digest: Digest,
    /// Its one holder.
    pub(crate) holder: PrincipalName,
}

/// What a line of keys was put to first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitmentRow {
    /// The first version of the line.
    pub(crate) lineage: VersionName,
    /// What.
    pub(crate) commitment: Commitment,
}

/// Prefix of all erasure rows.
pub(crate) const ERASURES: &str = "erasure/";
/// Prefix of all due marks, the earliest first.
pub(crate) const DUE: &str = "due/";
/// Prefix of all ring rows.
pub(crate) const RINGS: &str = "ring/";
/// Prefix of all user rows.
pub(crate) const USERS: &str = "user/";
/// Prefix of all proposal rows.
pub(crate) const PROPOSALS: &str = "proposal/";

/// Where a user lies.
pub(crate) fn user_place(name: &PrincipalName) -> String {
    format!("{USERS}{name}")
}

/// Where a ring lies.
pub(crate) fn ring_place(name: &RingName) -> String {
    format!("{RINGS}{name}")
}

/// Prefix of a ring's keys.
pub(crate) fn keys_prefix(ring: &RingName) -> String {
    format!("key/{ring}/keys/")
}

/// Where a key lies.
pub(crate) fn key_place(name: &KeyName) -> String {
    format!("key/{name}")
}

/// Prefix of a key's versions.
pub(crate) fn versions_prefix(key: &KeyName) -> String {
    format!("version/{key}/versions/")
}

/// Where a version lies; numbers are padded so that they sort.
pub(crate) fn version_place(name: &VersionName) -> String {
    format!("{}{:010}", versions_prefix(&name.key), name.number)
}

/// Prefix of a key's history, the newest first.
pub(crate) fn history_prefix(key: &KeyName) -> String {
    format!("history/{key}/events/")
}

/// Where the commitment of a line of keys lies.
pub(crate) fn commitment_place(lineage: &VersionName) -> String {
    format!("commitment/{lineage}")
}

/// Where a PIN lies.
pub(crate) fn pin_place(ring: &RingName, role: PinRole) -> String {
    format!("pin/{ring}/{}", role.as_str())
}

/// Where an import job lies.
pub(crate) fn import_job_place(name: &ImportJobName) -> String {
    format!("import-job/{name}")
}

/// Where a proposal lies.
pub(crate) fn proposal_place(id: &Segment) -> String {
    format!("{PROPOSALS}{id}")
}

impl Record for Ring {
    fn place(&self) -> String {
        ring_place(&self.name)
    }
}

impl Record for Key {
    fn place(&self) -> String {
        key_place(&self.name)
    }
}

impl Record for Version {
    fn place(&self) -> String {
        version_place(&self.header.version)
    }

    /// Counters do not count: a key in use can still be changed by somebody who has read it, and an
    /// approval stays good.
    fn state_digest(&self, envelope: Digest) -> Digest {
        let counterless = Self { protections_reserved: 0, ..self.clone() };
        canonical::digest(&counterless).unwrap_or(envelope)
    }
}

impl Record for User {
    fn place(&self) -> String {
        user_place(&self.name)
    }
}

impl Record for Erasure {
    fn place(&self) -> String {
        format!("{ERASURES}{:020}", self.slot)
    }
}

impl Record for Event {
    fn place(&self) -> String {
        let Self { key, at, operation_id, .. } = self;
        // Counted down, since the store reads upwards and people read the newest first.
        format!("{}{:020}/{operation_id}", history_prefix(key), u64::MAX - at.0)
    }
}

impl Record for Due {
    fn place(&self) -> String {
        let Self { at, resource, operation_id } = self;
        format!("{DUE}{:020}/{operation_id}/{resource}", at.0)
    }
}

impl Due {
    /// Reads what [`Record::place`] wrote: when and what. `None` for a place of no mark.
    pub(crate) fn read_place(place: &str) -> Option<(Timestamp, &str)> {
        let (at, rest) = place.strip_prefix(DUE)?.split_once('/')?;
        let (_operation_id, resource) = rest.split_once('/')?;
        Some((Timestamp(at.parse().ok()?), resource))
    }
}

impl Record for Holding {
    fn place(&self) -> String {
        format!("credential/{}", self.digest)
    }
}

impl Record for LogName {
    fn place(&self) -> String {
        LOG_NAME.to_owned()
    }
}

impl Record for CommitmentRow {
    fn place(&self) -> String {
        commitment_place(&self.lineage)
    }
}

impl Record for Pin {
    fn place(&self) -> String {
        pin_place(&self.ring, self.role)
    }
}

impl Record for ImportJob {
    fn place(&self) -> String {
        import_job_place(&self.name)
    }
}

impl Record for ProposalRow {
    fn place(&self) -> String {
        proposal_place(&self.id)
    }
}

/// Reads and believes the row at `place`.
///
/// # Errors
/// When the store fails, or the row is not one that this daemon wrote there.
pub(crate) async fn load<T: Record + 'static>(
    cx: &Context,
    place: &str,
) -> Result<Option<Stored<T>>, Early> {
    Ok(load_shared(cx, place).await?.map(|stored| Stored::clone(&stored)))
}

/// As [`load`], for what is only looked at.
///
/// # Errors
/// As [`load`].
pub(crate) async fn load_shared<T: Record + 'static>(
    cx: &Context,
    place: &str,
) -> Result<Option<Arc<Stored<T>>>, Early> {
    let vault = cx.vault()?;
    let Some(row) = cx.store.get(place).await? else { return Ok(None) };
    if let Some(stored) = cx.memo.find(place, &row) {
        return Ok(Some(stored));
    }
    let stored = Arc::new(believe(&vault, place, row.revision, &row.value)?);
    cx.memo.keep(place, row, stored.clone());
    Ok(Some(stored))
}

/// Reads and believes up to `limit` rows under `prefix` that follow `after`.
///
/// # Errors
/// As [`load`].
pub(crate) async fn scan<T: Record>(
    cx: &Context,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, Stored<T>)>, Early> {
    let vault = cx.vault()?;
    scan_with(cx, &vault, prefix, after, limit).await
}

/// As [`scan`], with a vault that is not in place yet.
///
/// # Errors
/// As [`load`].
pub(crate) async fn scan_with<T: Record>(
    cx: &Context,
    vault: &Vault,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, Stored<T>)>, Early> {
    let mut stored: Vec<(String, Stored<T>)> = Vec::new();
    // A page of the store may be cut short by its size in bytes; only an empty one is the end.
    while stored.len() < limit {
        let after = stored.last().map(|(place, _)| place.as_str()).or(after);
        let page = cx.store.scan(prefix, after, limit - stored.len()).await?;
        if page.is_empty() {
            break;
        }
        for (place, row) in page {
            let value = believe(vault, &place, row.revision, &row.value)?;
            stored.push((place, value));
        }
    }
    Ok(stored)
}

fn believe<T: Record>(
    vault: &Vault,
    place: &str,
    revision: u64,
    envelope: &[u8],
) -> Result<Stored<T>, CryptoError> {
    let tampered = || CryptoError::RowTampered { row: place.to_owned() };
    let row = vault.open_row(place, revision, envelope).map_err(|error| match error {
        CryptoError::RowMalformed => tampered(),
        error => error,
    })?;
    let value: T = serde_json::from_slice(&row.body).map_err(|_| tampered())?;
    if value.place() != place {
        return Err(tampered());
    }
    let etag = etag(&value.state_digest(row_digest(envelope)));
    Ok(Stored { value, sealed: row.sealed, revision, etag })
}

fn etag(digest: &Digest) -> String {
    digest.to_string()[..32].to_owned()
}

/// That a row stands as it was read.
pub(crate) fn stands<T: Record>(row: &Stored<T>) -> Condition {
    Condition { key: row.value.place(), expected: Expected::Revision(row.revision) }
}

/// That a row stands as somebody else has read it.
pub(crate) fn stands_at(row: &RowAt) -> Condition {
    Condition { key: row.place.clone(), expected: Expected::Revision(row.revision) }
}

/// A row on its way to the store, or one that must stay as it is.
#[derive(Debug)]
pub(crate) struct Draft {
    /// What must still be true of the row when it is written.
    pub(crate) condition: Condition,
    /// The write itself; none for a row that must stay.
    pub(crate) write: Option<Write>,
    /// The digest that goes into the audit leaf, of a row that is written.
    pub(crate) digest: Option<Digest>,
    /// How callers will name the new state.
    pub(crate) etag: String,
    /// The slot that this row is the first to point at.
    pub(crate) slot: Option<u64>,
}

impl Draft {
    /// The same, being the first to point at `slot`.
    pub(crate) fn with_slot(self, slot: Option<u64>) -> Self {
        Self { slot, ..self }
    }
}

/// The slots that are pointed at by nothing, should these drafts not be written.
pub(crate) fn slots(drafts: &[Draft]) -> Vec<u64> {
    drafts.iter().filter_map(|draft| draft.slot).collect()
}

/// Drafts that a row must stay as it was read.
pub(crate) fn keep<T: Record>(row: &Stored<T>) -> Draft {
    let condition = stands(row);
    Draft { condition, write: None, digest: None, etag: row.etag.clone(), slot: None }
}

/// Drafts a row that must not exist yet.
///
/// # Errors
/// When the cryptography fails.
pub(crate) fn create<T: Record>(
    vault: &Vault,
    operation_id: &OperationId,
    value: &T,
    sealed: &[u8],
) -> Result<Draft, Failure> {
    draft(vault, operation_id, value, sealed, Expected::Absent, 1)
}

/// Drafts the next state of a row that was read before.
///
/// # Errors
/// When the cryptography fails.
pub(crate) fn replace<T: Record, U>(
    vault: &Vault,
    operation_id: &OperationId,
    value: &T,
    sealed: &[u8],
    before: &Stored<U>,
) -> Result<Draft, Failure> {
    let expected = Expected::Revision(before.revision);
    draft(vault, operation_id, value, sealed, expected, before.revision + 1)
}

fn draft<T: Record>(
    vault: &Vault,
    operation_id: &OperationId,
    value: &T,
    sealed: &[u8],
    expected: Expected,
    revision: u64,
) -> Result<Draft, Failure> {
    let key = value.place();
    let body = canonical::to_bytes(value).map_err(|_| Failure::Bug("a row without JSON form"))?;
    let envelope = vault.protect_row(&key, revision, operation_id, &body, sealed)?;
    let digest = row_digest(&envelope);
    Ok(Draft {
        condition: Condition { key: key.clone(), expected },
        write: Some(Write::Put { key, value: envelope }),
        digest: Some(digest),
        etag: etag(&value.state_digest(digest)),
        slot: None,
    })
}
