//! CreateKey: a key and its first version. Also the home of what every making of a version shares.

use kms_core::action::Action;
use kms_core::algorithm::{Algorithm, KeyKind};
use kms_core::caller::Caller;
use kms_core::id::{Home, KeyName, Resource};
use kms_core::key::{Key, Origin, ReleaseRequirement, Ring, SealHeader, Version};
use kms_core::lifecycle::State;
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_core::quorum::QuorumPolicy;
use kms_core::service::Ingredients;
use kms_crypto::vault::{Generated, SlotSecret, Vault};
use kms_proto::v1;
use zeroize::Zeroizing;

use super::changes::{due, event, rotation_due};
use super::set_key_version_dates::Span;
use super::{is_retry, load_key_or_tombstone, load_ring};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, Stored};
use crate::wire::{hex_encode, invalid, key, key_out, length_bytes, version_out};

/// The parsed request: the key as it will be, but for its times.
#[derive(Debug)]
pub(crate) struct CreateKey {
    key: Key,
    length_bytes: u32,
    beginning: Beginning,
}

/// How the life of a version begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    state: State,
    span: Span,
}

impl Beginning {
    /// In full use at once and for good.
    pub(crate) const ACTIVE: Self =
        Self { state: State::Active, span: Span { activates_at: None, deactivates_at: None } };

    /// Reads what was asked for. Who sets a time of activation wants it to wait until then.
    ///
    /// # Errors
    /// [`Refusal::InvalidArgument`].
    pub(crate) fn parse(
        pre_active: bool,
        pending_import: bool,
        activate_time: Option<prost_types::Timestamp>,
        deactivate_time: Option<prost_types::Timestamp>,
    ) -> Result<Self, Refusal> {
        let span = Span::parse(activate_time, deactivate_time)?;
        let state = match (pending_import, pre_active || span.activates_at.is_some()) {
            (true, _) => State::PendingImport,
            (false, true) => State::PreActive,
            (false, false) => State::Active,
        };
        Ok(Self { state, span })
    }

    /// Whether the material comes from outside.
    pub(crate) fn is_imported(self) -> bool {
        self.state == State::PendingImport
    }

    /// Whether the version is in use from the start.
    pub(crate) fn is_active(self) -> bool {
        self.state == State::Active
    }
}

/// What stands in the store before a key is made.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) ring: Option<Stored<Ring>>,
    /// The key that an earlier attempt of this very request made.
    pub(crate) existing: Option<Stored<Key>>,
}

impl Place {
    /// Looks where `name` is to be made.
    ///
    /// # Errors
    /// [`Refusal::AlreadyExists`] when the name is or was taken by another request.
    pub(crate) async fn of(cx: &Context, name: &KeyName, stamp: &Stamp) -> Result<Self, Early> {
        let existing = load_key_or_tombstone(cx, name).await?.map(|(_, key)| key);
        if existing.is_some() && !is_retry(cx, stamp.idempotency).await? {
            return Err(Refusal::AlreadyExists.into());
        }
        Ok(Self { ring: load_ring(cx, &name.ring).await?, existing })
    }

    /// Holds that the ring's policy takes `key`.
    ///
    /// # Errors
    /// [`Refusal::RingPolicy`].
    pub(crate) fn admits(&self, key: &Key) -> Result<(), Refusal> {
        let Some(ring) = &self.ring else { return Ok(()) };
        Ok(ring.value.policy.fits(key.algorithm, &key.mechanisms, &key.labels)?)
    }

    /// A key can only be made in a ring.
    pub(crate) fn subject(&self) -> Subject<'_> {
        let ring = self.ring.as_ref();
        ring.map_or(Subject::Absent, |_| Subject::Plain)
    }
}

impl Operation for CreateKey {
    type Wire = v1::CreateKeyRequest;
    type Facts = Place;
    type Prepared = (v1::Key, v1::KeyVersion);
    type Reply = v1::CreateKeyResponse;

    const ACTION: Action = Action::CreateKey;

    fn parse(wire: v1::CreateKeyRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::CreateKeyRequest {
            key: wire,
            pre_active,
            request_id: _,
            activate_time,
            deactivate_time,
            pending_import,
        } = wire;
        let beginning =
            Beginning::parse(pre_active, pending_import, activate_time, deactivate_time)?;
        let wire = wire.ok_or_else(|| invalid("key", "expected the key to be made"))?;
        let asked_bytes = wire.length_bytes;
        let key = key(wire, home)?;
        let length_bytes = length_bytes(key.algorithm, asked_bytes)?;
        if key.algorithm.kind() == KeyKind::OpaqueSecret && !pending_import {
            return Err(invalid("pending_import", "an opaque secret is imported, never generated"));
        }
        Ok(Self { key, length_bytes, beginning })
    }

    fn request_id(wire: &v1::CreateKeyRequest) -> &[u8] {
        &wire.request_id
    }

    fn named(&self) -> Resource {
        Resource::Key(self.key.name.clone())
    }

    async fn load(&self, cx: &Context, _caller: &Caller, stamp: &Stamp) -> Result<Place, Early> {
        Place::of(cx, &self.key.name, stamp).await
    }

    fn resource(&self, _place: &Place) -> Resource {
        self.named()
    }

    fn ingredients(&self, _place: &Place) -> Ingredients {
        Ingredients::key(self.key.algorithm)
    }

    fn subject<'a>(&self, place: &'a Place) -> Subject<'a> {
        place.subject()
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        place: &Place,
    ) -> Result<(Self::Prepared, Vec<Draft>), Early> {
        if let Some(key) = &place.existing {
            let first = rows::version_place(&key.value.name.version(1));
            let version = rows::load::<Version>(cx, &first).await?;
            let version = version.ok_or(Failure::Bug("a key without its first version"))?;
            let shown = (
                key_out(&key.value, &key.etag),
                version_out(&version.value, &version.etag, stamp.now),
            );
            return Ok((shown, Vec::new()));
        }
        let rotation = self.key.rotation.map(|rotation| rotation.begun(stamp.now));
        let key = Key { created_at: stamp.now, rotation, ..self.key.clone() };
        place.admits(&key)?;
        let first = (1, self.length_bytes, self.beginning);
        let (made, drafts) = make_key(cx, stamp, &key, first).await?;
        Ok((
            (
                key_out(&key, &made.key_etag),
                version_out(&made.version, &made.version_etag, stamp.now),
            ),
            drafts,
        ))
    }

    async fn perform(
        self,
        _cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _place: Place,
        (key, version): Self::Prepared,
        audit: v1::AuditReference,
    ) -> Result<v1::CreateKeyResponse, Failure> {
        let _spent = recorded.spend(Self::ACTION, &self.named(), &stamp.request_digest)?;
        Ok(v1::CreateKeyResponse { key: Some(key), version: Some(version), audit: Some(audit) })
    }
}

/// A key's first version, and how callers will name both.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) version: Version,
    pub(crate) key_etag: String,
    pub(crate) version_etag: String,
}

/// Makes the first version of `key` and drafts both rows, with what belongs to them.
///
/// # Errors
/// When a date has passed, or the store or the cryptography fails.
pub(crate) async fn make_key(
    cx: &Context,
    stamp: &Stamp,
    key: &Key,
    first: (u32, u32, Beginning),
) -> Result<(Made, Vec<Draft>), Early> {
    let vault = cx.vault()?;
    let (version, mut drafts) = make_version(cx, &vault, stamp, key, first).await?;
    let key_draft = rows::create(&vault, &stamp.operation_id, key, &[])?;
    let key_etag = key_draft.etag.clone();
    let version_etag = drafts.first().map(|row| row.etag.clone()).unwrap_or_default();
    drafts.push(key_draft);
    drafts.push(made(&vault, stamp, Action::CreateKey, &version)?);
    drafts.extend(rotation_due(&vault, stamp, key)?);
    Ok((Made { version, key_etag, version_etag }, drafts))
}

/// Drafts the history of a version that was not there before.
///
/// # Errors
/// When the cryptography fails.
pub(crate) fn made(
    vault: &Vault,
    stamp: &Stamp,
    action: Action,
    version: &Version,
) -> Result<Draft, Failure> {
    let name = &version.header.version;
    event(vault, stamp, action, &name.key, Some((name.number, None, version.state)))
}

/// Makes version `number` of `key`, `length_bytes` long if it is a secret, and drafts its row, which
/// comes first, and the mark of its dates. Its slot is durable before the row is, so a row never points
/// at a slot that is not there. A version whose material is to be imported has no slot yet.
///
/// # Errors
/// When a date has passed, or the store or the cryptography fails.
pub(crate) async fn make_version(
    cx: &Context,
    vault: &Vault,
    stamp: &Stamp,
    key: &Key,
    (number, length_bytes, beginning): (u32, u32, Beginning),
) -> Result<(Version, Vec<Draft>), Early> {
    let Beginning { state, span } = beginning;
    let begins = if state == State::Active { State::Active } else { State::PreActive };
    span.check(begins, stamp.now)?;
    let imported = state == State::PendingImport;
    let header = SealHeader {
        version: key.name.version(number),
        algorithm: key.algorithm,
        usages: key.usages.clone(),
        mechanisms: key.mechanisms.clone(),
        length_bytes,
        origin: if imported { Origin::Imported } else { Origin::Generated },
        exportable: key.exportable,
        // What comes from outside was outside.
        ever_exportable: key.exportable || imported,
        lineage: key.name.version(number),
        requirement_digest: key.requirement.as_ref().map(ReleaseRequirement::digest),
        quorum_digest: key.quorum.as_ref().map(QuorumPolicy::digest),
        model: key.model.clone(),
        dataset: key.dataset.clone(),
    };
    let (slot, material) = match imported {
        true => (None, Generated { sealed: Vec::new(), public_key: Vec::new() }),
        false => {
            let make = |secret: &SlotSecret| generate(vault, &header, secret);
            let (slot, made) = with_new_slot(cx, make).await?;
            (Some(slot), made)
        }
    };
    let version = Version {
        header,
        state,
        enabled: true,
        created_at: stamp.now,
        changed_at: stamp.now,
        dates: span.dates(),
        compromise: None,
        undo: None,
        protections_reserved: 0,
        certificate: String::new(),
        public_key: hex_encode(&material.public_key),
        slot,
    };
    let row = rows::create(vault, &stamp.operation_id, &version, &material.sealed)?;
    let mut drafts = vec![row.with_slot(slot)];
    if let Some(at) = version.due_at() {
        drafts.push(due(vault, stamp, at, version.header.version.to_string())?);
    }
    Ok((version, drafts))
}

/// What `make` makes with the secret of a new slot, and the slot. Where nothing is made, none is taken.
///
/// # Errors
/// Those of `make`, and when there is no randomness or the store fails.
pub(crate) async fn with_new_slot<T, E: From<Failure>>(
    cx: &Context,
    make: impl FnOnce(&SlotSecret) -> Result<T, E>,
) -> Result<(u64, T), E> {
    let (slot, secret) = take_slot(cx).await?;
    match make(&secret) {
        Ok(made) => Ok((slot, made)),
        Err(error) => {
            cx.slots_ready.lock().await.push((slot, secret));
            Err(error)
        }
    }
}

/// A slot and its secret, durable. Some are made at once, so that a new key most often waits for one sync and
/// not for two.
async fn take_slot(cx: &Context) -> Result<(u64, SlotSecret), Failure> {
    let mut ready = cx.slots_ready.lock().await;
    if ready.is_empty() {
        let secrets: Vec<_> =
            (0..SLOTS_AT_ONCE).map(|_| SlotSecret::generate()).collect::<Result<_, _>>()?;
        let copied = |secret: &SlotSecret| {
            let mut bytes = Zeroizing::new([0; 32]);
            bytes.copy_from_slice(secret.expose_to_slot_table());
            bytes
        };
        let slots = cx.store.put_slots(secrets.iter().map(copied).collect()).await?;
        ready.extend(slots.into_iter().zip(secrets));
    }
    ready.pop().ok_or(Failure::Bug("no slot was made"))
}

/// Generates off the network threads where it takes long.
fn generate(vault: &Vault, header: &SealHeader, secret: &SlotSecret) -> Result<Generated, Failure> {
    use Algorithm::{Rsa2048, Rsa3072, Rsa4096, SlhDsaSha2_128s};

    let takes_long = matches!(header.algorithm, Rsa2048 | Rsa3072 | Rsa4096 | SlhDsaSha2_128s);
    let generated = match takes_long {
        // block_in_place keeps the borrow of the vault; other tasks move to another worker meanwhile. That
        // takes longer than a key on a curve does.
        true => tokio::task::block_in_place(|| vault.generate(header, secret)),
        false => vault.generate(header, secret),
    };
    Ok(generated?)
}

/// How many slots are made when there is none.
const SLOTS_AT_ONCE: usize = 16;
