//! Operations that make a key out of another: what is the same for all of them.
//!
//! The decision is on record before the old key is opened, so the new rows follow in a batch of their
//! own. Were the daemon to stop between the two, nothing is made, and a retry makes it. The second batch
//! asks that the old key still is as it was judged, so nothing is made of it after the leaf of an act that
//! forbids it.

use std::collections::BTreeSet;

use kms_core::action::Action;
use kms_core::algorithm::Usage;
use kms_core::arguments::NewKey;
use kms_core::caller::Caller;
use kms_core::id::{Digest, Home, KeyName, Resource};
use kms_core::key::{Key, Origin, ReleaseRequirement, SealHeader, Version};
use kms_core::lifecycle::{Dates, State};
use kms_core::mechanism::Mechanism;
use kms_core::permit::{Grounds, Other, Permit, Recorded, Refusal, Subject};
use kms_core::quorum::QuorumPolicy;
use kms_core::service::Ingredients;
use kms_crypto::CryptoError;
use kms_crypto::vault::{Generated, NewVersion, SlotSecret, Vault, VersionRef};
use kms_proto::v1;
use kms_store::{Batch, Committed, Condition, Outcome, StoreError};
use prost::Message;

use super::changes::{due, free, rotation_due};
use super::create_key::{Place, made, with_new_slot};
use super::guarded_use::{Guarded, Settled};
use super::named;
use super::using::{USES_JUDGED_ANEW_MAX, UseFacts, may_use};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft};
use crate::wire::{
    self, KeyOrVersion, algorithm_out, hex_encode, invalid, key_name, key_out, length_bytes,
    mechanisms_out, usages_out, version_out,
};

/// An operation that makes one key out of one version of another.
pub(crate) trait Make: Send + Sync + Sized {
    /// The request on the wire.
    type Wire: Message + Send;
    /// What the vault gives besides the new key.
    type Told: Send;
    /// The response on the wire.
    type Reply: Send;

    /// Which operation this is.
    const ACTION: Action;
    /// Where the material of the new key comes from.
    const ORIGIN: Origin;
    /// Whether somebody outside has the new key, too.
    const KNOWN_OUTSIDE: bool;

    /// Takes the description of the new key out of the request.
    fn new_key(wire: &mut Self::Wire) -> Option<v1::Key>;

    /// The caller's name for this request.
    fn request_id(wire: &Self::Wire) -> &[u8];

    /// Reads the rest of the request into a type that cannot be wrong.
    fn parse(wire: Self::Wire, home: &Home) -> Result<Self, Refusal>;

    /// The key that it is made out of.
    fn name(&self) -> &KeyOrVersion;

    /// The mechanism that was asked for; none means the one that the key prefers.
    fn mechanism(&self) -> Option<Mechanism>;

    /// How long the new key is, where the request itself tells and its description does not.
    fn length_bytes(&self, _mechanism: Mechanism) -> Option<usize> {
        None
    }

    /// Whether what the request brings is what the mechanism takes, which is known only when the key is.
    ///
    /// # Errors
    /// [`Refusal::InvalidArgument`].
    fn fits(&self, _mechanism: Mechanism) -> Result<(), Refusal> {
        Ok(())
    }

    /// Spends the permit in the vault.
    fn make(self, vault: &Vault, make: Making<'_>) -> Result<(Self::Told, Generated), CryptoError>;

    /// Makes the response.
    fn reply(told: Self::Told, made: MadeKey) -> Self::Reply;

    /// The response to a retry, whose key is there already; none where what else was told is not kept.
    fn reply_again(made: MadeKey) -> Option<Self::Reply>;
}

/// What the vault needs.
pub(crate) struct Making<'a> {
    pub(crate) recorded: Recorded,
    pub(crate) request_digest: &'a Digest,
    pub(crate) version: VersionRef<'a>,
    pub(crate) mechanism: Mechanism,
    pub(crate) new: NewVersion<'a>,
}

/// What the response says of the new key.
#[derive(Debug)]
pub(crate) struct MadeKey {
    pub(crate) key: Option<v1::Key>,
    pub(crate) version: Option<v1::KeyVersion>,
    pub(crate) audit: Option<v1::AuditReference>,
}

/// Runs a [`Make`] through the pipeline.
pub(crate) struct MakingOf<M> {
    make: M,
    name: KeyName,
    wire: v1::Key,
    home: Home,
}

/// What stands in the store before the key is made.
#[derive(Debug)]
pub(crate) struct MakeFacts {
    source: UseFacts,
    place: Place,
    /// The key as it will be; none where there is nothing to make it out of.
    new: Option<(Key, SealHeader)>,
}

impl<M: Make> Operation for MakingOf<M> {
    type Wire = M::Wire;
    type Facts = MakeFacts;
    type Prepared = ();
    type Reply = M::Reply;

    const ACTION: Action = M::ACTION;
    const WRITES_LATER: bool = true;
    const JUDGED_ANEW_MAX: usize = USES_JUDGED_ANEW_MAX;

    fn parse(mut wire: M::Wire, home: &Home) -> Result<Self, Refusal> {
        let expected = || invalid("key", "expected the key to be made");
        let mut new = M::new_key(&mut wire).ok_or_else(expected)?;
        let name = key_name("key.name", &new.name, home)?;
        new.name = name.to_string();
        // A copy says only what is to be tighter, so it is read when the original is known.
        if M::ACTION != Action::CopyKey {
            length_bytes(wire::key(new.clone(), home)?.algorithm, new.length_bytes)?;
        }
        let make = M::parse(wire, home)?;
        // Nothing leaves the quorum and the policy of its ring by being made into something else.
        if make.name().key().ring != name.ring {
            let problem = "a key that is made out of another stays in its ring";
            return Err(invalid("key.name", problem));
        }
        Ok(Self { make, name, wire: new, home: home.clone() })
    }

    fn request_id(wire: &M::Wire) -> &[u8] {
        M::request_id(wire)
    }

    fn named(&self) -> Resource {
        named(self.make.name())
    }

    async fn load(&self, cx: &Context, caller: &Caller, stamp: &Stamp) -> Result<MakeFacts, Early> {
        let usage = M::ACTION.usage().unwrap_or(NO_USAGE);
        let source = UseFacts::load(cx, self.make.name(), usage, self.make.mechanism()).await?;
        let place = Place::of(cx, &self.name, stamp).await?;
        let new = match source.seen() {
            Some(found)
                if place.existing.is_none() && may_use(caller, &source.resource(), stamp.now) =>
            {
                let (old, sealed) = (&found.key.value, &found.version.value.header);
                let (key, header) = self.tightened(old, sealed, &source)?;
                let rotation = key.rotation.map(|rotation| rotation.begun(stamp.now));
                let key = Key { created_at: stamp.now, rotation, ..key };
                found
                    .ring
                    .value
                    .policy
                    .fits(key.algorithm, &key.mechanisms, &key.labels)
                    .map_err(Refusal::from)?;
                Some((key, header))
            }
            _ => None,
        };
        Ok(MakeFacts { source, place, new })
    }

    fn resource(&self, facts: &MakeFacts) -> Resource {
        facts.source.resource()
    }

    fn ingredients(&self, facts: &MakeFacts) -> Ingredients {
        let new = facts.new.as_ref().map(|(key, _)| key.algorithm);
        let existing = || facts.place.existing.as_ref().map(|key| key.value.algorithm);
        Ingredients { algorithm: new.or_else(existing), suite: None }
    }

    fn subject<'a>(&self, facts: &'a MakeFacts) -> Subject<'a> {
        facts.source.subject(false)
    }

    fn other<'a>(&self, facts: &'a MakeFacts) -> Option<Other<'a>> {
        Some(Other {
            action: Action::CreateKey,
            resource: Resource::Key(self.name.clone()),
            subject: facts.place.subject(),
        })
    }

    async fn grounds(
        &self,
        _cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        facts: &MakeFacts,
    ) -> Result<Grounds, Early> {
        let source = &facts.source;
        // As for every use, whoever may not use the key learns nothing of it.
        let may = may_use(caller, &source.resource(), stamp.now);
        let seen = source.seen().filter(|_| may);
        if let Some(Ok(mechanism)) = seen.map(|_| source.mechanism()) {
            self.make.fits(mechanism)?;
        }
        Ok(Grounds::default())
    }

    fn unchanged(&self, facts: &MakeFacts) -> Vec<Condition> {
        facts.source.unchanged()
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        facts: &MakeFacts,
    ) -> Result<((), Vec<Draft>), Early> {
        Ok(((), facts.source.drafts(cx, stamp)?))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        facts: MakeFacts,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<M::Reply, Failure> {
        let MakeFacts { mut source, place, new } = facts;
        source.keep();
        let Some((key, header)) = new else {
            let _spent = recorded.spend_both(
                (M::ACTION, &source.resource()),
                (Action::CreateKey, &Resource::Key(self.name)),
                &stamp.request_digest,
            )?;
            return again::<M>(cx, stamp, place, audit).await;
        };
        let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
        let found = source.found()?;
        let (slot, public_key) = (found.slot(cx).await?, found.public_key());
        let mechanism = match M::ACTION.usage() {
            Some(_) => source.mechanism()?,
            // A copy uses the key in no way, so any will do.
            None => Mechanism::AesKwp,
        };
        let make = |secret: &SlotSecret| {
            let making = Making {
                recorded,
                request_digest: &stamp.request_digest,
                version: found.version_ref(&slot, &public_key),
                mechanism,
                new: NewVersion { header: &header, slot: secret },
            };
            // Validation of an RSA key takes milliseconds; other tasks move to another worker meanwhile.
            tokio::task::block_in_place(|| self.make.make(&vault, making)).map_err(Failure::from)
        };
        let (new_slot, (told, generated)) = with_new_slot(cx, make).await?;
        let version = Version {
            header,
            state: State::Active,
            enabled: true,
            created_at: stamp.now,
            changed_at: stamp.now,
            // A copy ends when its original does.
            dates: match M::ACTION {
                Action::CopyKey => found.version.value.dates,
                _ => Dates::default(),
            },
            compromise: None,
            undo: None,
            protections_reserved: 0,
            certificate: String::new(),
            public_key: hex_encode(&generated.public_key),
            slot: Some(new_slot),
        };
        let id = &stamp.operation_id;
        let key_draft = rows::create(&vault, id, &key, &[])?;
        let version_draft =
            rows::create(&vault, id, &version, &generated.sealed)?.with_slot(version.slot);
        let event = made(&vault, stamp, Action::CreateKey, &version)?;
        let rotation = rotation_due(&vault, stamp, &key)?;
        let made = MadeKey {
            key: Some(key_out(&key, &key_draft.etag)),
            version: Some(version_out(&version, &version_draft.etag, stamp.now)),
            audit: Some(audit),
        };
        let mut drafts = vec![key_draft, version_draft, event];
        drafts.extend(rotation);
        if let Some(at) = version.due_at() {
            drafts.push(due(&vault, stamp, at, version.header.version.to_string())?);
        }
        write(cx, stamp, &source, drafts).await?;
        Ok(M::reply(told, made))
    }
}

impl<M: Make> Guarded for MakingOf<M> {
    fn used<'a>(&self, facts: &'a MakeFacts) -> &'a UseFacts {
        &facts.source
    }

    fn settled(&self, facts: &MakeFacts) -> Result<Settled, Early> {
        let new = self.described(facts)?.map(Box::new);
        Ok(Settled { new, ..Settled::by(facts.source.mechanism()?) })
    }
}

impl<M: Make> MakingOf<M> {
    /// The new key as people read it before they approve it.
    fn described(&self, facts: &MakeFacts) -> Result<Option<NewKey>, Early> {
        let Some((new, header)) = &facts.new else { return Ok(None) };
        let old = &facts.source.found()?.key.value;
        // A schedule begins when the key is made, and what is inherited is that of the old key, which
        // its seal holds: only what is asked for is said.
        let asked = wire::key(self.wire.clone(), &self.home)?;
        let own_quorum = asked.quorum.filter(|quorum| old.quorum.as_ref() != Some(quorum));
        let own = |requirement: &ReleaseRequirement| old.requirement.as_ref() != Some(requirement);
        Ok(Some(NewKey {
            algorithm: new.algorithm,
            audit_each_use: new.audit_each_use,
            dataset: new.dataset.clone(),
            exportable: new.exportable,
            labels: new.labels.clone(),
            length_bytes: header.length_bytes,
            mechanisms: new.mechanisms.clone(),
            model: new.model.clone(),
            name: new.name.clone(),
            pkcs11: new.pkcs11.clone(),
            // With all that it guards, as it is told on the wire.
            quorum: wire::quorum(own_quorum.as_ref().map(wire::quorum_out))?,
            release_requirement: asked.requirement.filter(own),
            rotation: asked.rotation,
            usages: new.usages.clone(),
        }))
    }

    /// The new key, guarded no less than the one that it is made out of: it inherits the release
    /// requirement, the quorum, model and dataset, and that it never leaves.
    fn tightened(
        &self,
        old: &Key,
        sealed: &SealHeader,
        source: &UseFacts,
    ) -> Result<(Key, SealHeader), Refusal> {
        let mut wire = self.wire.clone();
        let copies = M::ACTION == Action::CopyKey;
        if copies {
            copied(&mut wire, old, sealed)?;
        } else if wire.length_bytes == 0 && wire.algorithm() == v1::Algorithm::GenericSecret {
            // Whatever else there is has its own length, or none that is said.
            let mechanism = source.mechanism().map_err(|_| Refusal::MechanismRefused)?;
            let length = self.make.length_bytes(mechanism);
            wire.length_bytes = length.and_then(|length| length.try_into().ok()).unwrap_or(0);
        }
        let asked_bytes = wire.length_bytes;
        let mut key = wire::key(wire, &self.home)?;
        let length_bytes = match copies {
            true => sealed.length_bytes,
            false => length_bytes(key.algorithm, asked_bytes)?,
        };
        key.audit_each_use |= old.audit_each_use;
        inherit("key.release_requirement", &mut key.requirement, &old.requirement)?;
        inherit("key.quorum", &mut key.quorum, &old.quorum)?;
        inherit_text("key.model", &mut key.model, &old.model)?;
        inherit_text("key.dataset", &mut key.dataset, &old.dataset)?;
        let unwraps = M::ACTION == Action::UnwrapKey;
        key.exportable &= unwraps || (old.exportable && sealed.exportable);
        if !key.exportable {
            key.usages.remove(&Usage::Export);
        }
        if copies && !is_no_more(&key, old) {
            return Err(invalid("key", "a copy does no more than its original"));
        }
        let version = key.name.version(1);
        let header = SealHeader {
            lineage: if copies { sealed.lineage.clone() } else { version.clone() },
            version,
            algorithm: key.algorithm,
            usages: key.usages.clone(),
            mechanisms: key.mechanisms.clone(),
            length_bytes,
            origin: M::ORIGIN,
            exportable: key.exportable,
            ever_exportable: key.exportable || sealed.ever_exportable || M::KNOWN_OUTSIDE,
            requirement_digest: key.requirement.as_ref().map(ReleaseRequirement::digest),
            quorum_digest: key.quorum.as_ref().map(QuorumPolicy::digest),
            model: key.model.clone(),
            dataset: key.dataset.clone(),
        };
        Ok((key, header))
    }
}

/// Fills in what a copy does not say.
fn copied(wire: &mut v1::Key, old: &Key, sealed: &SealHeader) -> Result<(), Refusal> {
    let algorithm = algorithm_out(old.algorithm);
    if wire.algorithm != 0 && wire.algorithm != algorithm {
        return Err(invalid("key.algorithm", "a copy is what its original is"));
    }
    if wire.length_bytes != 0 && wire.length_bytes != sealed.length_bytes {
        return Err(invalid("key.length_bytes", "a copy is as long as its original"));
    }
    wire.algorithm = algorithm;
    if wire.mechanisms.is_empty() {
        wire.mechanisms = mechanisms_out(&old.mechanisms);
    }
    if wire.usages.is_empty() {
        let stays = |usage: &Usage| *usage != Usage::Export || wire.exportable;
        let usages: BTreeSet<Usage> = old.usages.iter().copied().filter(stays).collect();
        wire.usages = usages_out(&usages);
    }
    Ok(())
}

fn is_no_more(key: &Key, old: &Key) -> bool {
    key.usages.is_subset(&old.usages) && key.mechanisms.is_subset(&old.mechanisms)
}

fn inherit<T: Clone + PartialEq>(
    field: &'static str,
    new: &mut Option<T>,
    old: &Option<T>,
) -> Result<(), Refusal> {
    match (&new, old) {
        (Some(asked), Some(inherited)) if asked != inherited => Err(invalid(field, INHERITED)),
        (None, Some(_)) => {
            new.clone_from(old);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn inherit_text(field: &'static str, new: &mut String, old: &str) -> Result<(), Refusal> {
    if new.is_empty() {
        new.push_str(old);
    }
    if old.is_empty() || new == old { Ok(()) } else { Err(invalid(field, INHERITED)) }
}

/// Writes what was made of `source`, in the slots of `drafts`, unless the source has changed meanwhile.
async fn write(
    cx: &Context,
    stamp: &Stamp,
    source: &UseFacts,
    drafts: Vec<Draft>,
) -> Result<(), Failure> {
    let slots = rows::slots(&drafts);
    let mut batch =
        Batch { idempotency: stamp.idempotency.map(|digest| digest.0), ..Batch::default() };
    for draft in drafts {
        batch.conditions.push(draft.condition);
        batch.writes.extend(draft.write);
    }
    // The counts of uses go up with the uses of neighbours, and with this one.
    for _ in 0..=USES_JUDGED_ANEW_MAX {
        let unchanged = match source.still(cx).await {
            Ok(unchanged) => unchanged,
            Err(failure) => {
                free(cx, &slots).await?;
                return Err(failure);
            }
        };
        let mut attempt = batch.clone();
        attempt.conditions.extend(unchanged);
        let outcome = match cx.store.commit(attempt).await {
            // The root was closed meanwhile.
            Err(StoreError::NotVouched) => {
                free(cx, &slots).await?;
                return Err(Failure::Late(Refusal::Sealed));
            }
            outcome => outcome?,
        };
        match outcome {
            // A retry that overtook its first attempt; asked once more, it finds what that one made.
            Outcome::Committed(Committed { replayed: true, .. }) => {
                free(cx, &slots).await?;
                return Err(Failure::Unknown);
            }
            Outcome::Committed(_) => return Ok(()),
            // Another request has made a key of that name meanwhile.
            Outcome::Conflict(keys)
                if batch.conditions.iter().any(|condition| keys.contains(&condition.key)) =>
            {
                free(cx, &slots).await?;
                return Err(Failure::Late(Refusal::AlreadyExists));
            }
            Outcome::Conflict(_) => {}
            Outcome::Unknown => return Err(Failure::Unknown),
        }
    }
    free(cx, &slots).await?;
    Err(Failure::Late(Refusal::Stale))
}

async fn again<M: Make>(
    cx: &Context,
    stamp: &Stamp,
    place: Place,
    audit: v1::AuditReference,
) -> Result<M::Reply, Failure> {
    let key = place.existing.ok_or(Failure::Bug("a key made out of nothing was permitted"))?;
    let first = rows::version_place(&key.value.name.version(1));
    let version = match rows::load::<Version>(cx, &first).await {
        Ok(version) => version.ok_or(Failure::Bug("a key without its first version"))?,
        Err(Early::Fail(failure)) => return Err(failure),
        Err(Early::Refuse(refusal)) => return Err(Failure::Tampered(refusal.to_string())),
    };
    let made = MadeKey {
        key: Some(key_out(&key.value, &key.etag)),
        version: Some(version_out(&version.value, &version.etag, stamp.now)),
        audit: Some(audit),
    };
    M::reply_again(made).ok_or(Failure::Late(Refusal::NotKept))
}

/// What a copy is judged as: it is no use, and counts as none.
const NO_USAGE: Usage = Usage::Verify;
const INHERITED: &str = "is inherited from the key that it is made out of, and cannot be another";

#[cfg(test)]
mod tests {
    use kms_core::key::Commitment;
    use kms_store::StoreError;
    use zeroize::Zeroizing;

    use super::*;
    use crate::ops::using::tests::daemon;
    use crate::ops::{CreateKey, CreateKeyRing, Encrypt, SuspendKeyVersion, Using, Writing};
    use crate::pipeline;
    use crate::rows::CommitmentRow;

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_made_of_a_key_that_was_suspended_after_the_decision() {
        let folder = tempfile::tempdir().unwrap();
        let (cx, caller) = daemon(folder.path()).await;
        let ring = v1::CreateKeyRingRequest { name: "r".to_owned(), ..Default::default() };
        pipeline::serve::<CreateKeyRing>(&cx, &caller, ring).await.unwrap();
        let algorithm = v1::Algorithm::Aes256.into();
        let key = v1::Key { name: "r/k".to_owned(), algorithm, ..Default::default() };
        let request = v1::CreateKeyRequest { key: Some(key), ..Default::default() };
        let made = pipeline::serve::<CreateKey>(&cx, &caller, request).await.unwrap();
        let version = made.version.unwrap().name;
        let name = KeyOrVersion::parse(&version, &cx.home).unwrap();
        let source = UseFacts::load(&cx, &name, Usage::Derive, None).await.unwrap();
        let wire = v1::DeriveKeyRequest::default();
        let stamp = Stamp::new(&cx, &caller, Action::DeriveKey, &wire, &[]).unwrap();
        // What is made does not matter, only that it has a slot.
        let draft = async |name: &str| {
            let slot = cx.store.put_slots(vec![Zeroizing::new([1; 32])]).await.unwrap()[0];
            let lineage = KeyName::parse(name, &cx.home).unwrap().version(1);
            let row = CommitmentRow { lineage, commitment: Commitment::Keys };
            let draft = rows::create(&cx.vault().unwrap(), &stamp.operation_id, &row, &[]);
            (slot, vec![draft.unwrap().with_slot(Some(slot))])
        };
        // A use raises what is set aside for uses, and changes nothing else.
        let (name, plaintext) = (version.clone(), vec![1]);
        let request = v1::EncryptRequest { name, plaintext, ..Default::default() };
        pipeline::serve::<Using<Encrypt>>(&cx, &caller, request).await.unwrap();
        let (slot, drafts) = draft("r/one").await;
        write(&cx, &stamp, &source, drafts).await.unwrap();
        assert!(cx.store.read_slot(slot).await.is_ok());
        let (slot, drafts) = draft("r/one").await;
        let again = write(&cx, &stamp, &source, drafts).await;
        assert!(matches!(again, Err(Failure::Late(Refusal::AlreadyExists))), "{again:?}");
        assert!(matches!(cx.store.read_slot(slot).await, Err(StoreError::SlotErased { .. })));

        let request = v1::SuspendKeyVersionRequest { name: version, ..Default::default() };
        pipeline::serve::<Writing<SuspendKeyVersion>>(&cx, &caller, request).await.unwrap();
        let (slot, drafts) = draft("r/two").await;
        let late = write(&cx, &stamp, &source, drafts).await;
        assert!(matches!(late, Err(Failure::Late(Refusal::Stale))), "{late:?}");
        assert!(matches!(cx.store.read_slot(slot).await, Err(StoreError::SlotErased { .. })));
    }
}
