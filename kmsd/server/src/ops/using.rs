//! Operations that use a key: what is the same for all of them.

use std::sync::Arc;

use kms_core::action::Action;
use kms_core::algorithm::Usage;
use kms_core::caller::{Caller, Role};
use kms_core::id::{Digest, Home, Resource, Timestamp, VersionName};
use kms_core::key::{Commitment, Key, Version};
use kms_core::mechanism::Mechanism;
use kms_core::permit::{Grounds, Manner, Permit, Recorded, Refusal, Subject};
use kms_core::protections;
use kms_core::ring_policy::RingKind;
use kms_core::service::Ingredients;
use kms_crypto::CryptoError;
use kms_crypto::vault::{Vault, VersionRef};
use kms_proto::v1;
use kms_store::Condition;
use prost::Message;

use super::changes::due;
use super::guarded_use::{Guarded, Settled};
use super::{Found, VersionFacts, load_version, named};
use crate::context::Context;
use crate::counting::{Taken, Turn};
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, CommitmentRow, Draft, Stored};
use crate::wire::KeyOrVersion;

/// An operation that uses one version of a key, once.
pub(crate) trait Use: Send + Sync + Sized {
    /// The request on the wire.
    type Wire: Message + Send;
    /// The response on the wire.
    type Reply: Send;

    /// Which operation this is.
    const ACTION: Action;

    /// Reads the request into a type that cannot be wrong.
    fn parse(wire: Self::Wire, home: &Home) -> Result<Self, Refusal>;

    /// The key that is meant.
    fn name(&self) -> &KeyOrVersion;

    /// The mechanism that was asked for; none means the one that the key prefers.
    fn mechanism(&self) -> Option<Mechanism>;

    /// Whether the caller brings the IV of an encryption.
    fn callers_iv(&self) -> bool {
        false
    }

    /// What cryptography it asks for besides the key's.
    fn ingredients(&self) -> Ingredients {
        Ingredients::default()
    }

    /// Whether what the request brings is as long as the mechanism wants it; the mechanism is known only
    /// when the key is.
    ///
    /// # Errors
    /// [`Refusal::InvalidArgument`].
    fn fits(&self, _mechanism: Mechanism) -> Result<(), Refusal> {
        Ok(())
    }

    /// Spends the permit in the vault and makes the response. `version_name` is the version's.
    fn apply(self, vault: &Vault, key: KeyUse<'_>) -> Result<Self::Reply, CryptoError>;
}

/// What the vault needs, and what the response says of it.
pub(crate) struct KeyUse<'a> {
    pub(crate) recorded: Recorded,
    pub(crate) request_digest: &'a Digest,
    pub(crate) version: VersionRef<'a>,
    pub(crate) mechanism: Mechanism,
    pub(crate) version_name: String,
    pub(crate) audit: v1::AuditReference,
}

/// A version that is about to be put to a use, and what the rules are to know of that.
#[derive(Debug)]
pub(crate) struct UseFacts {
    version: VersionFacts,
    usage: Usage,
    mechanism: Option<Mechanism>,
    taken: Option<Taken>,
    /// Rare, so it stands apart in memory.
    line: Option<Box<Line>>,
    committed: Option<Commitment>,
}

/// A place in the count of all versions of one material, for a copy. The count stands on the version that
/// the line of copies began with, which its seal header names and whose row stays when it is destroyed.
#[derive(Debug)]
struct Line {
    first: Arc<Stored<Version>>,
    key: Arc<Stored<Key>>,
    taken: Taken,
}

impl UseFacts {
    /// Loads the version that `name` means, to be used so. Where protections are counted, this takes a
    /// place in the count, which is given back unless [`UseFacts::keep`] is called.
    ///
    /// # Errors
    /// When the store fails or a row was edited.
    pub(crate) async fn load(
        cx: &Context,
        name: &KeyOrVersion,
        usage: Usage,
        mechanism: Option<Mechanism>,
    ) -> Result<Self, Early> {
        let mut version = load_version(cx, name).await?;
        let mut taken = take(cx, &version, usage, mechanism, None);
        if taken.as_ref().is_some_and(|taken| taken.reserve().is_some()) {
            let turn = match taken {
                Some(taken) => Some(taken.turn().await),
                None => None,
            };
            // Whoever had the turn before may have set enough aside.
            version = load_version(cx, name).await?;
            taken = take(cx, &version, usage, mechanism, turn);
        }
        // After the version's own turn, and never the other way round, so that nobody waits in a ring.
        let line = match version.found.as_ref().filter(|found| in_line(found, usage, mechanism)) {
            Some(found) => {
                let lineage = &found.version.value.header.lineage;
                Some(Box::pin(Line::take(cx, lineage)).await?)
            }
            None => None,
        };
        let committed = match version.found.as_ref().filter(|found| may_conflict(found, usage)) {
            Some(found) => {
                let place = rows::commitment_place(&found.version.value.header.lineage);
                rows::load::<CommitmentRow>(cx, &place).await?.map(|row| row.value.commitment)
            }
            None => None,
        };
        Ok(Self { version, usage, mechanism, taken, line, committed })
    }

    /// What the request acts on.
    pub(crate) fn resource(&self) -> Resource {
        self.version.resource.clone()
    }

    /// What the rules are to know.
    pub(crate) fn subject(&self, callers_iv: bool) -> Subject<'_> {
        self.subject_of(callers_iv, false)
    }

    /// The same for data that comes as a stream.
    pub(crate) fn subject_streamed(&self, callers_iv: bool) -> Subject<'_> {
        self.subject_of(callers_iv, true)
    }

    fn subject_of(&self, callers_iv: bool, segmented: bool) -> Subject<'_> {
        let line = self.line.as_ref().map(|line| &line.taken);
        let protection = line.or(self.taken.as_ref()).map_or(0, Taken::number);
        let manner = Manner { callers_iv, committed: self.committed, segmented, protection };
        self.version.subject_used(self.mechanism, manner)
    }

    /// What must still be true when the use is recorded.
    pub(crate) fn unchanged(&self) -> Vec<Condition> {
        self.version.unchanged()
    }

    /// That version, key and ring still are as they were judged, whatever was counted since; gives what
    /// must be true for them to stay so.
    ///
    /// # Errors
    /// [`Failure::Late`] when somebody has changed one of them.
    pub(crate) async fn still(&self, cx: &Context) -> Result<Vec<Condition>, Failure> {
        let judged = self.found()?;
        let name = KeyOrVersion::Version(judged.version.value.header.version.clone());
        let now = load_version(cx, &name).await.map_err(|early| match early {
            Early::Fail(failure) => failure,
            Early::Refuse(refusal) => Failure::Late(refusal),
        })?;
        let etags = |found: &Found| {
            [&found.version.etag, &found.key.etag, &found.ring.etag].map(String::clone)
        };
        match &now.found {
            Some(found) if etags(found) == etags(judged) => Ok(now.unchanged()),
            _ => Err(Failure::Late(Refusal::Stale)),
        }
    }

    /// What this use writes: reservations that have to be raised, and the first commitment of a line of
    /// keys.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub(crate) fn drafts(&self, cx: &Context, stamp: &Stamp) -> Result<Vec<Draft>, Early> {
        let found = self.found()?;
        let before = &found.version;
        let mut drafts = Vec::new();
        if let Some(reserved) = self.taken.as_ref().and_then(Taken::reserve) {
            drafts.extend(raised(cx, stamp, before, &found.key.value, reserved)?);
        }
        if let Some(line) = &self.line
            && let Some(reserved) = line.taken.reserve()
        {
            drafts.extend(raised(cx, stamp, &line.first, &line.key.value, reserved)?);
        }
        let commitment = Commitment::of(self.usage).filter(|_| may_conflict(found, self.usage));
        if let (Some(commitment), None) = (commitment, self.committed) {
            let lineage = before.value.header.lineage.clone();
            let row = CommitmentRow { lineage, commitment };
            drafts.push(rows::create(&*cx.vault()?, &stamp.operation_id, &row, &[])?);
        }
        Ok(drafts)
    }

    /// Whether this use changes no row, so that it may go on a lease, and its key permits that.
    fn may_be_leased(&self) -> bool {
        let reserves = || self.taken.as_ref().is_some_and(|taken| taken.reserve().is_some());
        let commits = |found: &Found| self.committed.is_none() && may_conflict(found, self.usage);
        self.seen()
            .is_some_and(|found| !found.key.value.audit_each_use && !reserves() && !commits(found))
    }

    /// What was found. The rules refuse an absent subject, so after the decision it is there.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn found(&self) -> Result<&Found, Failure> {
        self.version.found()
    }

    /// What was found, when there is anything; before the decision.
    pub(crate) const fn seen(&self) -> Option<&Found> {
        self.version.found.as_ref()
    }

    /// By what it is used. The rules have permitted it, so the key has one.
    ///
    /// # Errors
    /// When it has none.
    pub(crate) fn mechanism(&self) -> Result<Mechanism, Failure> {
        let mechanism = self.found()?.key.value.mechanism_for(self.usage, self.mechanism);
        mechanism.ok_or(Failure::Bug("a use without a mechanism was permitted"))
    }

    /// The use is on record: its place in the count is taken for good.
    pub(crate) fn keep(&mut self) {
        if let Some(taken) = self.taken.take() {
            taken.keep();
        }
        if let Some(line) = self.line.take() {
            line.taken.keep();
        }
    }
}

impl Line {
    /// Takes a place in the count of the line that began with `lineage`.
    async fn take(cx: &Context, lineage: &VersionName) -> Result<Box<Self>, Early> {
        let line = Self::of(cx, lineage, None).await?;
        if line.taken.reserve().is_none() {
            return Ok(Box::new(line));
        }
        let turn = line.taken.turn().await;
        Ok(Box::new(Self::of(cx, lineage, Some(turn)).await?))
    }

    async fn of(cx: &Context, lineage: &VersionName, turn: Option<Turn>) -> Result<Self, Early> {
        // No row of a version or key is ever taken away, so whoever misses one has met a forger.
        let missing = |row: &str| Refusal::RowTampered { row: row.to_owned() };
        let place = rows::version_place(lineage);
        let first = rows::load_shared::<Version>(cx, &place).await?;
        let first = first.ok_or_else(|| missing(&place))?;
        let place = rows::key_place(&lineage.key);
        let key = rows::load_shared::<Key>(cx, &place).await?;
        let key = key.ok_or_else(|| missing(&place))?;
        let step = protections::step(uses_max(&key.value));
        let taken = cx.counts.take(lineage, first.value.protections_reserved, step, turn);
        Ok(Self { first, key, taken })
    }
}

/// Whether `caller` has the role for uses of keys, so that it may hear what is wrong with a request for one.
pub(crate) fn may_use(caller: &Caller, resource: &Resource, now: Timestamp) -> bool {
    caller.role_over(&[Role::CryptoUser], resource, now).is_some()
}

/// Takes a place in the count of protections, where they are counted.
fn take(
    cx: &Context,
    version: &VersionFacts,
    usage: Usage,
    mechanism: Option<Mechanism>,
    turn: Option<Turn>,
) -> Option<Taken> {
    let Found { key, version, .. } = version.found.as_ref().filter(|_| usage.protects())?;
    let uses_max = uses_max(&key.value);
    let mechanism = key.value.mechanism_for(usage, mechanism)?;
    let counted = uses_max != 0 || mechanism.invocations_max().is_some();
    let Version { header, protections_reserved, .. } = &version.value;
    let step = protections::step(uses_max);
    counted.then(|| cx.counts.take(&header.version, *protections_reserved, step, turn))
}

fn uses_max(key: &Key) -> u64 {
    key.rotation.map_or(0, |rotation| rotation.uses_max)
}

/// Whether what the use protects is counted with the line: what a copy protects by a mechanism that bears
/// so many protections with one key and no more.
fn in_line(found: &Found, usage: Usage, mechanism: Option<Mechanism>) -> bool {
    let bounded = |mechanism: Mechanism| mechanism.invocations_max().is_some();
    usage.protects()
        && found.version.value.is_copy()
        && found.key.value.mechanism_for(usage, mechanism).is_some_and(bounded)
}

/// Drafts `before`, a version of `key`, with so many protections set aside, and the mark that the key is to
/// be rotated, if they use it up.
fn raised(
    cx: &Context,
    stamp: &Stamp,
    before: &Stored<Version>,
    key: &Key,
    protections_reserved: u64,
) -> Result<Vec<Draft>, Early> {
    let version = Version { protections_reserved, ..before.value.clone() };
    let vault = cx.vault()?;
    let mut drafts =
        vec![rows::replace(&vault, &stamp.operation_id, &version, &before.sealed, before)?];
    if key.rotation.is_some_and(|rotation| rotation.is_used_up(protections_reserved)) {
        drafts.push(due(&vault, stamp, stamp.now, key.name.to_string())?);
    }
    Ok(drafts)
}

fn may_conflict(found: &Found, usage: Usage) -> bool {
    Commitment::of(usage).is_some()
        && found.ring.value.policy.kind == RingKind::Hardened
        && found.version.value.may_conflict()
}

/// The drafts of two uses in one request, without a row that both would write alike.
pub(crate) fn joined(mut one: Vec<Draft>, other: Vec<Draft>) -> Vec<Draft> {
    for draft in other {
        if one.iter().all(|earlier| earlier.condition.key != draft.condition.key) {
            one.push(draft);
        }
    }
    one
}

/// Runs a [`Use`] through the pipeline.
#[derive(Debug)]
pub(crate) struct Using<U>(U);

impl<U: Use> Operation for Using<U> {
    type Wire = U::Wire;
    type Facts = UseFacts;
    type Prepared = ();
    type Reply = U::Reply;

    const ACTION: Action = U::ACTION;
    const JUDGED_ANEW_MAX: usize = USES_JUDGED_ANEW_MAX;

    fn parse(wire: U::Wire, home: &Home) -> Result<Self, Refusal> {
        U::parse(wire, home).map(Self)
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<UseFacts, Early> {
        let usage = U::ACTION.usage().ok_or(Failure::Bug("a use that is none"))?;
        UseFacts::load(cx, self.0.name(), usage, self.0.mechanism()).await
    }

    fn named(&self) -> Resource {
        named(self.0.name())
    }

    fn resource(&self, facts: &UseFacts) -> Resource {
        facts.resource()
    }

    fn subject<'a>(&self, facts: &'a UseFacts) -> Subject<'a> {
        facts.subject(self.0.callers_iv())
    }

    fn ingredients(&self, _facts: &UseFacts) -> Ingredients {
        self.0.ingredients()
    }

    async fn grounds(
        &self,
        _cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        facts: &UseFacts,
    ) -> Result<Grounds, Early> {
        // Whoever may not use the key, or not so, is told that first, and learns nothing of the key.
        let mechanism = facts.seen().filter(|_| may_use(caller, &facts.resource(), stamp.now));
        match mechanism.map(|_| facts.mechanism()) {
            Some(Ok(mechanism)) => Ok(self.0.fits(mechanism).map(|()| Grounds::default())?),
            _ => Ok(Grounds::default()),
        }
    }

    fn unchanged(&self, facts: &UseFacts) -> Vec<Condition> {
        facts.unchanged()
    }

    fn leased(&self, caller: &Caller, facts: &UseFacts, now: Timestamp) -> Option<()> {
        use Action::{Encrypt, MacSign, Sign};

        let is_leased = matches!(U::ACTION, Encrypt | MacSign | Sign);
        let may = is_leased && facts.may_be_leased() && may_use(caller, &facts.resource(), now);
        may.then_some(())
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        facts: &UseFacts,
    ) -> Result<((), Vec<Draft>), Early> {
        Ok(((), facts.drafts(cx, stamp)?))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        facts: UseFacts,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<U::Reply, Failure> {
        let apply = |vault: &Vault, key: KeyUse<'_>| self.0.apply(vault, key);
        spend(cx, recorded, stamp, facts, audit, apply).await
    }
}

impl<U: Use> Guarded for Using<U> {
    fn used<'a>(&self, facts: &'a UseFacts) -> &'a UseFacts {
        facts
    }

    fn settled(&self, facts: &UseFacts) -> Result<Settled, Early> {
        Ok(Settled::by(facts.mechanism()?))
    }
}

/// Spends the permit of a use in the vault, by `apply`.
///
/// # Errors
/// When the appliance was closed meanwhile, or the cryptography fails.
async fn spend<R>(
    cx: &Context,
    recorded: Recorded,
    stamp: &Stamp,
    mut facts: UseFacts,
    audit: v1::AuditReference,
    apply: impl FnOnce(&Vault, KeyUse<'_>) -> Result<R, CryptoError>,
) -> Result<R, Failure> {
    facts.keep();
    let (found, mechanism) = (facts.found()?, facts.mechanism()?);
    let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
    let slot = found.slot(cx).await?;
    let public_key = found.public_key();
    let version = found.version_ref(&slot, &public_key);
    let request_digest = &stamp.request_digest;
    let version_name = found.name();
    let key = KeyUse { recorded, request_digest, version, mechanism, version_name, audit };
    Ok(apply(&vault, key)?)
}

/// A use is judged anew when a neighbour's use has raised the reservation of the same version.
pub(crate) const USES_JUDGED_ANEW_MAX: usize = 8;

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use kms_core::caller::Authentication;
    use kms_core::id::OperationId;
    use kms_core::rights::{Grant, Scope};
    use kms_crypto::unlock::Argon2Cost;
    use kms_store::{Batch, Outcome};
    use secrecy::SecretString;

    use super::*;
    use crate::clock::Clock;
    use crate::config::Backend;
    use crate::root::Protection;
    use crate::server::{Basis, Daemon, Opening};
    use crate::{cli, ops, pipeline, setup};

    /// A daemon without a door, and somebody with every role that it takes.
    pub(crate) async fn daemon(state: &std::path::Path) -> (Arc<Context>, Caller) {
        let home = cli::home("default", "local").unwrap();
        let protection = Protection::Passphrase(SecretString::from(PASSPHRASE));
        setup::create_store(state, Backend::default(), &home, protection).await.unwrap();
        started(state).await
    }

    /// The same on a folder that is there already.
    async fn started(state: &std::path::Path) -> (Arc<Context>, Caller) {
        let home = cli::home("default", "local").unwrap();
        let passphrase = SecretString::from(PASSPHRASE);
        let daemon = Daemon::open(Basis {
            state: state.to_owned(),
            backend: Backend::default(),
            home,
            collateral: Default::default(),
            lifecycle: Default::default(),
            crypto: Default::default(),
            integrity: None,
            clock: Clock::Machine,
            pin_cost: Argon2Cost::PEOPLE,
            opening: Opening::Passphrase(passphrase),
        });
        let roles = [Role::SecurityOfficer, Role::KeyManager, Role::CryptoUser];
        let grants = roles.map(|role| Grant::over(role, Scope::Appliance)).to_vec();
        let name = "users/test".parse().unwrap();
        let caller = Caller::authenticated(name, Authentication::UnixPeer(0), grants);
        (daemon.await.unwrap().cx, caller)
    }

    const PASSPHRASE: &str = "correct horse battery staple";

    /// A ring with an AES key; its first version.
    async fn made(cx: &Arc<Context>, caller: &Caller) -> String {
        let ring = v1::CreateKeyRingRequest { name: "r".to_owned(), ..Default::default() };
        pipeline::serve::<ops::CreateKeyRing>(cx, caller, ring).await.unwrap();
        let mechanisms = [v1::Mechanism::AesGcm, v1::Mechanism::AesCbcPad].map(i32::from).to_vec();
        let algorithm = v1::Algorithm::Aes256.into();
        let key = v1::Key { name: "r/k".to_owned(), algorithm, mechanisms, ..Default::default() };
        let request = v1::CreateKeyRequest { key: Some(key), ..Default::default() };
        let made = pipeline::serve::<ops::CreateKey>(cx, caller, request).await.unwrap();
        made.version.unwrap().name
    }

    /// A copy of the version `name` as the key `copy`; its first version.
    async fn copied(cx: &Arc<Context>, caller: &Caller, name: &str, copy: &str) -> String {
        let key = Some(v1::Key { name: copy.to_owned(), ..Default::default() });
        let request = v1::CopyKeyRequest { name: name.to_owned(), key, ..Default::default() };
        let made = pipeline::serve::<ops::MakingOf<ops::CopyKey>>(cx, caller, request).await;
        made.unwrap().version.unwrap().name
    }

    async fn encrypt(
        cx: &Arc<Context>,
        caller: &Caller,
        name: &str,
        mechanism: v1::Mechanism,
    ) -> Result<v1::EncryptResponse, Failure> {
        let (name, plaintext, mechanism) = (name.to_owned(), vec![1; 16], mechanism.into());
        let request = v1::EncryptRequest { name, plaintext, mechanism, ..Default::default() };
        pipeline::serve::<Using<ops::Encrypt>>(cx, caller, request).await
    }

    #[track_caller]
    fn assert_at_the_bound<R: std::fmt::Debug>(result: Result<R, Failure>) {
        let max = Mechanism::AesGcm.invocations_max().unwrap();
        match result {
            Err(Failure::Refused { refusal, .. }) => {
                assert_eq!(refusal, Refusal::InvocationLimit { max });
            }
            other => panic!("{other:?}"),
        }
    }

    /// So many protections take weeks, so all but the last are set aside in the store.
    async fn set_aside(cx: &Context, name: &KeyOrVersion, protections_reserved: u64) {
        let found = load_version(cx, name).await.unwrap().found.unwrap();
        let before = &found.version;
        let after = Version { protections_reserved, ..before.value.clone() };
        let (vault, id) = (cx.vault().unwrap(), OperationId([7; 16]));
        let draft = rows::replace(&vault, &id, &after, &before.sealed, before).unwrap();
        let batch = Batch {
            conditions: vec![draft.condition],
            writes: draft.write.into_iter().collect(),
            ..Batch::default()
        };
        assert!(matches!(cx.store.commit(batch).await.unwrap(), Outcome::Committed(_)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_last_protection_is_made_and_the_next_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (cx, caller) = daemon(folder.path()).await;
        let name = KeyOrVersion::parse(&made(&cx, &caller).await, &cx.home).unwrap();
        let max = Mechanism::AesGcm.invocations_max().unwrap();
        set_aside(&cx, &name, max - 1).await;
        let encrypt = async || encrypt(&cx, &caller, "r/k", v1::Mechanism::AesGcm).await;
        let last = encrypt().await.unwrap();
        for _ in 0..2 {
            assert_at_the_bound(encrypt().await);
        }
        // What was protected is opened as ever.
        let request = v1::DecryptRequest {
            name: last.name,
            initialization_vector: last.initialization_vector,
            ciphertext: last.ciphertext,
            ..Default::default()
        };
        let opened = pipeline::serve::<Using<ops::Decrypt>>(&cx, &caller, request).await.unwrap();
        assert_eq!(opened.plaintext, [1; 16]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn original_and_copies_together_make_as_many_protections_as_one_key_bears() {
        let folder = tempfile::tempdir().unwrap();
        let (cx, caller) = daemon(folder.path()).await;
        let original = made(&cx, &caller).await;
        let copy = copied(&cx, &caller, &original, "r/copy").await;
        let again = copied(&cx, &caller, &copy, "r/again").await;
        let name = KeyOrVersion::parse(&original, &cx.home).unwrap();
        let max = Mechanism::AesGcm.invocations_max().unwrap();
        set_aside(&cx, &name, max - 3).await;
        let all = [&original, &copy, &again];
        for name in all {
            encrypt(&cx, &caller, name, v1::Mechanism::AesGcm).await.unwrap();
        }
        // A copy that comes too late has no protection left, either.
        let late = copied(&cx, &caller, &original, "r/late").await;
        for name in all.into_iter().chain([&late]) {
            assert_at_the_bound(encrypt(&cx, &caller, name, v1::Mechanism::AesGcm).await);
            // What has no such bound is not held up by it.
            encrypt(&cx, &caller, name, v1::Mechanism::AesCbcPad).await.unwrap();
        }
        let request = v1::GenerateDataKeyRequest { name: copy.clone(), ..Default::default() };
        let data_key = pipeline::serve::<Using<ops::GenerateDataKey>>(&cx, &caller, request).await;
        assert_at_the_bound(data_key);

        // Nothing of it is forgotten with the memory, nor with the original.
        let name = original.clone();
        let request = v1::DeactivateKeyVersionRequest { name, ..Default::default() };
        let ended =
            pipeline::serve::<ops::Writing<ops::DeactivateKeyVersion>>(&cx, &caller, request);
        ended.await.unwrap();
        let request = v1::DestroyKeyVersionRequest { name: original, ..Default::default() };
        let ended = pipeline::serve::<ops::Writing<ops::DestroyKeyVersion>>(&cx, &caller, request);
        ended.await.unwrap();
        cx.store.close().await.unwrap();
        drop(cx);
        let (cx, caller) = started(folder.path()).await;
        for name in [&copy, &again, &late] {
            assert_at_the_bound(encrypt(&cx, &caller, name, v1::Mechanism::AesGcm).await);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_copies_at_once_go_to_the_bound_and_not_past_it() {
        let folder = tempfile::tempdir().unwrap();
        let (cx, caller) = daemon(folder.path()).await;
        let original = made(&cx, &caller).await;
        let mut all = vec![original.clone()];
        for n in 0..3 {
            all.push(copied(&cx, &caller, &original, &format!("r/copy-{n}")).await);
        }
        let name = KeyOrVersion::parse(&original, &cx.home).unwrap();
        set_aside(&cx, &name, Mechanism::AesGcm.invocations_max().unwrap() - 10).await;
        let asked = (0..40).map(|n| {
            let (cx, caller, name) = (cx.clone(), caller.clone(), all[n % all.len()].clone());
            tokio::spawn(async move { encrypt(&cx, &caller, &name, v1::Mechanism::AesGcm).await })
        });
        let asked: Vec<_> = asked.collect();
        let mut made = 0;
        for one in asked {
            match one.await.unwrap() {
                Ok(_) => made += 1,
                refused => assert_at_the_bound(refused),
            }
        }
        // A place that is given back may come too late for whoever was refused meanwhile.
        assert!((1..=10).contains(&made), "{made}");
        while encrypt(&cx, &caller, &all[1], v1::Mechanism::AesGcm).await.is_ok() {
            made += 1;
        }
        assert_eq!(made, 10);
    }
}
