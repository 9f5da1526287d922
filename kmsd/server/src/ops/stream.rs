//! The start of a stream: one operation over data of any length. It is decided and recorded here, like
//! every other; what flows afterwards is in `grpc/stream.rs`.

use std::marker::PhantomData;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Digest, Home, Resource, RingName};
use kms_core::mechanism::{Hash, Mechanism};
use kms_core::permit::{Closing, Grounds, Manner, Permit, Recorded, Refusal, Subject};
use kms_crypto::CryptoError;
use kms_crypto::mechanism::mac;
use kms_crypto::provider::{HashStream, MacStream, SignInput};
use kms_crypto::vault::{CipherStream, STREAM_IV_IS_DRAWN, stream_iv_bytes};
use kms_proto::v1;
use kms_proto::v1::stream_start::Operation as Wanted;
use kms_store::{Condition, StoreError};

use super::using::{USES_JUDGED_ANEW_MAX, UseFacts, may_use};
use super::{load_ring, load_version, named};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::identity;
use crate::pipeline::{Operation, Stamp, record_end, stands, still_permitted};
use crate::rows::Draft;
use crate::status::tell;
use crate::wire::{
    DATA_BYTES_MAX, KeyOrVersion, bounded, hash, invalid, mechanism, mechanism_out, ring_name,
    version_name,
};

/// Which operation a stream does.
pub(crate) trait Kind: Send + Sync {
    /// As the rules and the log call it.
    const ACTION: Action;
}

macro_rules! kinds {
    ($($name:ident $action:ident;)+) => {$(
        /// A stream of that operation.
        #[derive(Debug)]
        pub(crate) struct $name;

        impl Kind for $name {
            const ACTION: Action = Action::$action;
        }
    )+};
}

kinds! {
    OfDecrypt Decrypt;
    OfDigest Digest;
    OfEncrypt Encrypt;
    OfMacSign MacSign;
    OfMacVerify MacVerify;
    OfSign Sign;
    OfVerify Verify;
}

/// The parsed start of a stream.
#[derive(Debug)]
pub(crate) struct StreamOf<K> {
    target: Target,
    mechanism: Option<Mechanism>,
    iv: Vec<u8>,
    aad: Vec<u8>,
    /// The signature or code to check.
    expected: Vec<u8>,
    kind: PhantomData<K>,
}

#[derive(Debug)]
enum Target {
    Key(KeyOrVersion),
    Ring(RingName, Hash),
}

/// What stands in the store before a stream begins.
#[derive(Debug)]
pub(crate) enum StreamFacts {
    Key(Box<UseFacts>),
    /// Whether the ring is there.
    Ring(bool),
}

/// A stream that was permitted and is on record.
pub(crate) struct Running {
    work: Work,
    watched: Watched,
    closing: Closing,
}

/// What a stream does.
enum Work {
    /// Encrypts or decrypts.
    Cipher(Box<CipherStream>),
    /// Hashes.
    Hash(Box<dyn HashStream>),
    /// Makes a message authentication code.
    MacSign(Box<dyn MacStream>),
    /// Checks one.
    MacVerify(Box<dyn MacStream>, Vec<u8>),
    /// Signs, or checks a signature.
    Signature(Box<Signing>),
}

/// A signature in the making: the permit is spent when the digest is known.
struct Signing {
    hasher: Box<dyn HashStream>,
    recorded: Recorded,
    request_digest: Digest,
    facts: UseFacts,
    mechanism: Mechanism,
    /// The signature to check; none when one is to be made.
    expected: Option<Vec<u8>>,
}

/// By what a stream is judged as long as it goes on.
struct Watched {
    stamp: Stamp,
    action: Action,
    target: Target,
    mechanism: Option<Mechanism>,
    callers_iv: bool,
}

/// Why a stream ends without a result.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Its end cannot be put on record, or the daemon failed otherwise.
    Failed(Failure),
    /// The rules would not permit it any more.
    Refused(Refusal),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<CryptoError> for Broken {
    fn from(error: CryptoError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Early> for Broken {
    fn from(early: Early) -> Self {
        match early {
            Early::Fail(failure) => Self::Failed(failure),
            Early::Refuse(refusal) => Self::Refused(refusal),
        }
    }
}

/// What a stream made: the last bytes, and the result where it has one.
type Made = (Vec<u8>, Option<v1::stream_finished::Result>);

impl Running {
    /// Takes more, and gives what can be given by now.
    ///
    /// # Errors
    /// [`Broken::Refused`] once the rules would not permit it any more, [`Broken::Failed`] for what does not
    /// open.
    pub(crate) async fn update(
        &mut self,
        cx: &Context,
        caller: &Caller,
        chunk: &[u8],
    ) -> Result<Vec<u8>, Broken> {
        self.watched.judge(cx, caller).await?;
        match &mut self.work {
            Work::Cipher(stream) => return Ok(stream.update(chunk)?),
            Work::Hash(hasher) => hasher.update(chunk),
            Work::MacSign(stream) | Work::MacVerify(stream, _) => stream.update(chunk),
            Work::Signature(signing) => signing.hasher.update(chunk),
        }
        Ok(Vec::new())
    }

    /// Whether the rules would permit it still.
    ///
    /// # Errors
    /// As [`Running::update`].
    pub(crate) fn judge<'a>(
        &'a self,
        cx: &'a Context,
        caller: &'a Caller,
    ) -> impl Future<Output = Result<(), Broken>> + use<'a> {
        // Only what is watched is looked at meanwhile: what a stream works with is for one thread at a time.
        let watched = &self.watched;
        async move { watched.judge(cx, caller).await.map(|_| ()) }
    }

    /// Ends the stream after `length_bytes` of data. That it has ended is on record before this returns,
    /// and what it made is given only if the rules still permitted it at that point of the record.
    ///
    /// # Errors
    /// As [`Running::update`]; the end is on record then, too, and [`Failure::Refused`] says where.
    pub(crate) async fn finish(
        self,
        cx: &Context,
        caller: &Caller,
        length_bytes: u64,
    ) -> Result<Made, Failure> {
        let Self { work, watched, closing } = self;
        let made = match watched.judge(cx, caller).await {
            Ok(_) => work.finish(cx).await.map_err(Broken::from),
            Err(broken) => Err(broken),
        };
        let made = match made {
            Ok(made) => made,
            Err(broken) => return Err(broken_off(cx, &closing, length_bytes, broken).await),
        };
        let mut caller = caller.clone();
        for _ in 0..=USES_JUDGED_ANEW_MAX {
            let judged = match identity::anew(cx, &caller).await {
                Ok(anew) => {
                    caller = anew;
                    watched.judge(cx, &caller).await
                }
                Err(early) => Err(early.into()),
            };
            let unchanged = match judged {
                Ok(unchanged) => unchanged,
                Err(broken) => return Err(broken_off(cx, &closing, length_bytes, broken).await),
            };
            let leaf = closing.leaf(cx.now(), length_bytes, None);
            let ended = record_end(cx, &leaf, unchanged).await;
            if let Err(Failure::Store(StoreError::NotVouched)) = ended {
                let sealed = Broken::Refused(Refusal::Sealed);
                return Err(broken_off(cx, &closing, length_bytes, sealed).await);
            }
            if ended?.is_some() {
                return Ok(made);
            }
        }
        let stale = Broken::Refused(Refusal::Stale);
        Err(broken_off(cx, &closing, length_bytes, stale).await)
    }

    /// Puts on record that the stream has ended, after `length_bytes` of data, without a result.
    pub(crate) async fn break_off(
        self,
        cx: &Context,
        length_bytes: u64,
        broken: Broken,
    ) -> Failure {
        broken_off(cx, &self.closing, length_bytes, broken).await
    }

    /// As [`Running::break_off`], for `reason`, where it was the other side that ended it.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn end_for(
        self,
        cx: &Context,
        length_bytes: u64,
        reason: &'static str,
    ) -> Result<(), Failure> {
        let leaf = self.closing.leaf(cx.now(), length_bytes, Some(reason));
        record_end(cx, &leaf, Vec::new()).await.map(|_| ())
    }
}

async fn broken_off(cx: &Context, closing: &Closing, length_bytes: u64, broken: Broken) -> Failure {
    let reason = match &broken {
        Broken::Failed(failure) => tell(failure).reason,
        Broken::Refused(refusal) => refusal.reason(),
    };
    let leaf = closing.leaf(cx.now(), length_bytes, Some(reason));
    match (record_end(cx, &leaf, Vec::new()).await, broken) {
        (Ok(Some(audit_index)), Broken::Refused(refusal)) => {
            Failure::Refused { refusal, audit_index }
        }
        (_, Broken::Failed(failure)) | (Err(failure), Broken::Refused(_)) => failure,
        (Ok(None), Broken::Refused(_)) => Failure::Bug("a conflict without a condition"),
    }
}

impl Watched {
    /// Whether the rules would permit now what they permitted when the stream began: key and version may
    /// have been suspended, switched off or destroyed, rights withdrawn, a date passed. Gives what must
    /// still be true for the answer to hold.
    async fn judge(&self, cx: &Context, caller: &Caller) -> Result<Vec<Condition>, Broken> {
        let Self { stamp, action, target, mechanism, callers_iv } = self;
        match target {
            Target::Ring(ring, _) => {
                let found = load_ring(cx, ring).await?;
                let subject = found.as_ref().map_or(Subject::Absent, |_| Subject::Plain);
                let resource = Resource::Ring(ring.clone());
                still_permitted(cx, caller, stamp, *action, resource, subject)
                    .map_err(Broken::Refused)?;
                Ok(stands(caller).collect())
            }
            Target::Key(name) => {
                let facts = load_version(cx, name).await?;
                let manner = Manner { callers_iv: *callers_iv, ..Manner::default() };
                let subject = facts.subject_used(*mechanism, manner);
                still_permitted(cx, caller, stamp, *action, facts.resource.clone(), subject)
                    .map_err(Broken::Refused)?;
                let mut unchanged = facts.unchanged();
                unchanged.extend(stands(caller));
                Ok(unchanged)
            }
        }
    }
}

impl Work {
    async fn finish(self, cx: &Context) -> Result<Made, Failure> {
        use v1::stream_finished::Result as Out;
        let result = match self {
            Self::Cipher(stream) => return Ok((stream.finish()?, None)),
            Self::Hash(hasher) => Out::Digest(hasher.finish()),
            Self::MacSign(stream) => Out::Mac(stream.finish()?),
            Self::MacVerify(stream, expected) => {
                Out::Valid(mac::tags_match(&stream.finish()?, &expected))
            }
            Self::Signature(signing) => signing.finish(cx).await?,
        };
        Ok((Vec::new(), Some(result)))
    }
}

impl Signing {
    async fn finish(self, cx: &Context) -> Result<v1::stream_finished::Result, Failure> {
        use v1::stream_finished::Result as Made;
        let Self { hasher, recorded, request_digest, facts, mechanism, expected } = self;
        let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
        let found = facts.found()?;
        let (slot, public_key) = (found.slot(cx).await?, found.public_key());
        let version = found.version_ref(&slot, &public_key);
        let digest = hasher.finish();
        let input = SignInput::Digest(&digest);
        Ok(match expected {
            None => Made::Signature(vault.sign(
                recorded,
                &request_digest,
                version,
                mechanism,
                input,
                b"",
            )?),
            Some(signature) => Made::Valid(vault.verify(
                recorded,
                &request_digest,
                version,
                mechanism,
                input,
                b"",
                &signature,
            )?),
        })
    }
}

impl<K: Kind> Operation for StreamOf<K> {
    type Wire = v1::StreamStart;
    type Facts = StreamFacts;
    type Prepared = ();
    type Reply = (v1::StreamStarted, Running);

    const ACTION: Action = K::ACTION;
    const JUDGED_ANEW_MAX: usize = USES_JUDGED_ANEW_MAX;

    fn parse(wire: v1::StreamStart, home: &Home) -> Result<Self, Refusal> {
        let v1::StreamStart { name, mechanism: asked, operation } = wire;
        let mut start = Self {
            target: match &operation {
                Some(Wanted::Digest(v1::StreamDigest { hash: number })) => {
                    Target::Ring(ring_name("name", &name, home)?, hash(*number)?)
                }
                // As in Decrypt: the ciphertext belongs to the version that made it.
                Some(Wanted::Decrypt(_)) => {
                    Target::Key(KeyOrVersion::Version(version_name("name", &name, home)?))
                }
                _ => Target::Key(KeyOrVersion::parse(&name, home)?),
            },
            mechanism: mechanism("mechanism", asked)?,
            iv: Vec::new(),
            aad: Vec::new(),
            expected: Vec::new(),
            kind: PhantomData,
        };
        let (iv, aad) = match operation {
            Some(
                Wanted::Encrypt(v1::StreamEncrypt {
                    initialization_vector: iv,
                    additional_authenticated_data: aad,
                })
                | Wanted::Decrypt(v1::StreamDecrypt {
                    initialization_vector: iv,
                    additional_authenticated_data: aad,
                }),
            ) => (iv, aad),
            Some(Wanted::Verify(v1::StreamVerify { signature })) => {
                start.expected = bounded("signature", signature, EXPECTED_BYTES_MAX)?;
                return Ok(start);
            }
            Some(Wanted::MacVerify(v1::StreamMacVerify { mac })) => {
                start.expected = bounded("mac", mac, EXPECTED_BYTES_MAX)?;
                return Ok(start);
            }
            _ => return Ok(start),
        };
        start.iv = bounded("initialization_vector", iv, STREAM_IV_BYTES_MAX)?;
        start.aad = bounded("additional_authenticated_data", aad, DATA_BYTES_MAX)?;
        Ok(start)
    }

    fn named(&self) -> Resource {
        match &self.target {
            Target::Key(name) => named(name),
            Target::Ring(ring, _) => Resource::Ring(ring.clone()),
        }
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<StreamFacts, Early> {
        let facts = match &self.target {
            Target::Ring(ring, _) => {
                return Ok(StreamFacts::Ring(load_ring(cx, ring).await?.is_some()));
            }
            Target::Key(name) => {
                let usage = K::ACTION.usage().ok_or(Failure::Bug("a use that is none"))?;
                UseFacts::load(cx, name, usage, self.mechanism).await?
            }
        };
        Ok(StreamFacts::Key(Box::new(facts)))
    }

    fn resource(&self, facts: &StreamFacts) -> Resource {
        match facts {
            StreamFacts::Key(facts) => facts.resource(),
            StreamFacts::Ring(_) => self.named(),
        }
    }

    fn subject<'a>(&self, facts: &'a StreamFacts) -> Subject<'a> {
        match facts {
            StreamFacts::Key(facts) => {
                facts.subject_streamed(K::ACTION == Action::Encrypt && !self.iv.is_empty())
            }
            StreamFacts::Ring(true) => Subject::Plain,
            StreamFacts::Ring(false) => Subject::Absent,
        }
    }

    async fn grounds(
        &self,
        _cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        facts: &StreamFacts,
    ) -> Result<Grounds, Early> {
        let StreamFacts::Key(facts) = facts else { return Ok(Grounds::default()) };
        // Whoever may not use the key learns nothing of it.
        let seen = facts.seen().filter(|_| may_use(caller, &facts.resource(), stamp.now));
        if let Some(Ok(mechanism)) = seen.map(|_| facts.mechanism()) {
            runs_over_streams(K::ACTION, mechanism)?;
            // Or its salt could be kept, and the bound on protections under one key with it.
            if K::ACTION == Action::Encrypt && mechanism.is_aead() && !self.iv.is_empty() {
                return Err(invalid("initialization_vector", STREAM_IV_IS_DRAWN).into());
            }
        }
        Ok(Grounds::default())
    }

    fn unchanged(&self, facts: &StreamFacts) -> Vec<Condition> {
        match facts {
            StreamFacts::Key(facts) => facts.unchanged(),
            StreamFacts::Ring(_) => Vec::new(),
        }
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        facts: &StreamFacts,
    ) -> Result<((), Vec<Draft>), Early> {
        match facts {
            StreamFacts::Key(facts) => Ok(((), facts.drafts(cx, stamp)?)),
            StreamFacts::Ring(_) => Ok(((), Vec::new())),
        }
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        facts: StreamFacts,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<(v1::StreamStarted, Running), Failure> {
        let mut started = v1::StreamStarted { audit: Some(audit), ..Default::default() };
        let closing = recorded.closing();
        let Self { target, iv, aad, expected, .. } = self;
        let (digest, action) = (&stamp.request_digest, K::ACTION);
        let watched = |target, mechanism| Watched {
            stamp: stamp.clone(),
            action,
            target,
            mechanism,
            callers_iv: action == Action::Encrypt && !iv.is_empty(),
        };
        let mut facts = match (facts, target) {
            (StreamFacts::Key(facts), _) => *facts,
            (StreamFacts::Ring(_), Target::Ring(ring, hash)) => {
                let resource = Resource::Ring(ring.clone());
                let _spent = recorded.spend(action, &resource, digest)?;
                let hasher = cx.self_tests.hash_stream(hash).map_err(CryptoError::from)?;
                started.name = ring.to_string();
                let watched = watched(Target::Ring(ring, hash), None);
                return Ok((started, Running { work: Work::Hash(hasher), watched, closing }));
            }
            (StreamFacts::Ring(_), Target::Key(_)) => return Err(Failure::Bug("a key as a ring")),
        };
        facts.keep();
        let mechanism = facts.mechanism()?;
        let found = facts.found()?;
        let name = found.version.value.header.version.clone();
        started.name = name.to_string();
        started.mechanism = mechanism_out(mechanism);
        // It goes on with the version that it began with, also when the key is rotated meanwhile.
        let watched = watched(Target::Key(KeyOrVersion::Version(name)), Some(mechanism));
        let work = if let Action::Sign | Action::Verify = action {
            let hash = mechanism.hash().ok_or(Failure::Bug("a stream without a hash function"))?;
            let hasher = cx.self_tests.hash_stream(hash).map_err(CryptoError::from)?;
            let expected = (action == Action::Verify).then_some(expected);
            let request_digest = *digest;
            let signing = Signing { hasher, recorded, request_digest, facts, mechanism, expected };
            Work::Signature(Box::new(signing))
        } else {
            let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
            let (slot, public_key) = (found.slot(cx).await?, found.public_key());
            let version = found.version_ref(&slot, &public_key);
            if let Action::MacSign | Action::MacVerify = action {
                let stream = vault.mac_stream(recorded, digest, version, action, mechanism)?;
                match action {
                    Action::MacSign => Work::MacSign(stream),
                    _ => Work::MacVerify(stream, expected),
                }
            } else {
                let iv = Some(iv.as_slice()).filter(|iv| !iv.is_empty());
                let stream =
                    vault.cipher_stream(recorded, digest, version, action, mechanism, iv, &aad)?;
                started.initialization_vector = stream.iv().to_vec();
                Work::Cipher(Box::new(stream))
            }
        };
        Ok((started, Running { work, watched, closing }))
    }
}

/// Holds that there are streams of a mechanism.
fn runs_over_streams(action: Action, mechanism: Mechanism) -> Result<(), Refusal> {
    match action {
        Action::Sign | Action::Verify if mechanism.hash().is_none() => {
            Err(invalid("mechanism", "only mechanisms with a hash function run over streams"))
        }
        Action::Decrypt | Action::Encrypt if stream_iv_bytes(mechanism).is_none() => {
            Err(invalid("mechanism", "there are no streams of this mechanism"))
        }
        _ => Ok(()),
    }
}

/// The salt and the prefix of an AEAD stream.
const STREAM_IV_BYTES_MAX: usize = 39;
/// Longer than any signature or code: SLH-DSA-SHA2-128s makes 7,856 bytes.
const EXPECTED_BYTES_MAX: usize = 8 * 1024;
