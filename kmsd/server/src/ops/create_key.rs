//! CreateKey: a key and its first version. Also the home of what every making of a version shares.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, KeyName, Resource};
use kms_core::key::{Key, Origin, ReleaseRequirement, Ring, SealHeader, Version};
use kms_core::lifecycle::{Dates, State};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_core::quorum::QuorumPolicy;
use kms_crypto::vault::{SlotSecret, Vault};
use kms_proto::v1;
use zeroize::Zeroizing;

use super::{is_retry, load_key, load_ring};
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
    state: State,
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
    /// [`Refusal::AlreadyExists`] when the name is taken by another request.
    pub(crate) async fn of(cx: &Context, name: &KeyName, stamp: &Stamp) -> Result<Self, Early> {
        let existing = load_key(cx, name).await?.map(|(_, key)| key);
        if existing.is_some() && !is_retry(cx, stamp.idempotency).await? {
            return Err(Refusal::AlreadyExists.into());
        }
        Ok(Self { ring: load_ring(cx, &name.ring).await?, existing })
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
        let v1::CreateKeyRequest { key: wire, pre_active, .. } = wire;
        let wire = wire.ok_or_else(|| invalid("key", "expected the key to be made"))?;
        let asked_bytes = wire.length_bytes;
        let key = key(wire, home)?;
        let length_bytes = length_bytes(key.algorithm, asked_bytes)?;
        let state = if pre_active { State::PreActive } else { State::Active };
        Ok(Self { key, length_bytes, state })
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
        let key = Key { created_at: stamp.now, ..self.key.clone() };
        let (made, drafts) = make_key(cx, stamp, &key, self.length_bytes, self.state).await?;
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

/// Generates the first version of `key` and drafts both rows.
///
/// # Errors
/// When the store or the cryptography fails.
pub(crate) async fn make_key(
    cx: &Context,
    stamp: &Stamp,
    key: &Key,
    length_bytes: u32,
    state: State,
) -> Result<(Made, Vec<Draft>), Early> {
    let vault = cx.vault()?;
    let (version, version_draft) =
        make_version(cx, &vault, stamp, key, (1, length_bytes), state).await?;
    let key_draft = rows::create(&vault, &stamp.operation_id, key, &[])?;
    let (key_etag, version_etag) = (key_draft.etag.clone(), version_draft.etag.clone());
    Ok((Made { version, key_etag, version_etag }, vec![key_draft, version_draft]))
}

/// Generates version `number` of `key`, `length_bytes` long if it is a secret, and drafts its row. Its slot is durable before the row is,
/// so a row never points at a slot that is not there.
///
/// # Errors
/// When the store or the cryptography fails.
pub(crate) async fn make_version(
    cx: &Context,
    vault: &Vault,
    stamp: &Stamp,
    key: &Key,
    (number, length_bytes): (u32, u32),
    state: State,
) -> Result<(Version, Draft), Failure> {
    let header = SealHeader {
        version: key.name.version(number),
        algorithm: key.algorithm,
        usages: key.usages.clone(),
        mechanisms: key.mechanisms.clone(),
        length_bytes,
        origin: Origin::Generated,
        exportable: key.exportable,
        ever_exportable: key.exportable,
        lineage: key.name.version(number),
        requirement_digest: key.requirement.as_ref().map(ReleaseRequirement::digest),
        quorum_digest: key.quorum.as_ref().map(QuorumPolicy::digest),
        model: key.model.clone(),
        dataset: key.dataset.clone(),
    };
    let secret = SlotSecret::generate()?;
    let mut bytes = Zeroizing::new([0; 32]);
    bytes.copy_from_slice(secret.expose_to_slot_table());
    let slot = cx.store.put_slot(bytes).await?;
    let made = generate(vault, header.clone(), secret).await?;
    let version = Version {
        header,
        state,
        enabled: true,
        created_at: stamp.now,
        changed_at: stamp.now,
        dates: Dates::default(),
        compromise: None,
        undo: None,
        protections_reserved: 0,
        certificate: String::new(),
        public_key: hex_encode(&made.public_key),
        slot,
    };
    let draft = rows::create(vault, &stamp.operation_id, &version, &made.sealed)?;
    Ok((version, draft))
}

/// Generates off the network threads where it takes long (RSA).
async fn generate(
    vault: &Vault,
    header: SealHeader,
    secret: SlotSecret,
) -> Result<kms_crypto::vault::Generated, Failure> {
    // block_in_place keeps the borrow of the vault; other tasks move to another worker meanwhile.
    Ok(tokio::task::block_in_place(|| vault.generate(&header, &secret))?)
}
