//! The start of a stream: one operation over data of any length. It is decided and recorded here, like
//! every other; what flows afterwards is in `grpc/stream.rs`.

use std::marker::PhantomData;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Digest, Home, Resource, RingName};
use kms_core::mechanism::{Hash, Mechanism};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_crypto::CryptoError;
use kms_crypto::mechanism::mac;
use kms_crypto::provider::{MacStream, SignInput};
use kms_crypto::vault::CipherStream;
use kms_proto::v1;
use kms_proto::v1::stream_start::Operation as Wanted;
use kms_store::Condition;
use sha2::Digest as _;

use super::using::{USES_JUDGED_ANEW_MAX, UseFacts};
use super::{load_ring, named};
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;
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
pub(crate) enum Running {
    /// Encrypts or decrypts.
    Cipher(Box<CipherStream>),
    /// Hashes.
    Hash(Hasher),
    /// Makes a message authentication code.
    MacSign(Box<dyn MacStream>),
    /// Checks one.
    MacVerify(Box<dyn MacStream>, Vec<u8>),
    /// Signs, or checks a signature.
    Signature(Box<Signing>),
}

/// A signature in the making: the permit is spent when the digest is known.
pub(crate) struct Signing {
    hasher: Hasher,
    recorded: Recorded,
    request_digest: Digest,
    facts: UseFacts,
    mechanism: Mechanism,
    /// The signature to check; none when one is to be made.
    expected: Option<Vec<u8>>,
}

/// A digest that is fed bit by bit.
pub(crate) enum Hasher {
    Sha224(sha2::Sha224),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
    Sha512_224(sha2::Sha512_224),
    Sha512_256(sha2::Sha512_256),
}

impl Hasher {
    fn new(hash: Hash) -> Option<Self> {
        Some(match hash {
            Hash::Sha224 => Self::Sha224(Default::default()),
            Hash::Sha256 => Self::Sha256(Default::default()),
            Hash::Sha384 => Self::Sha384(Default::default()),
            Hash::Sha512 => Self::Sha512(Default::default()),
            Hash::Sha512_224 => Self::Sha512_224(Default::default()),
            Hash::Sha512_256 => Self::Sha512_256(Default::default()),
            _ => return None,
        })
    }

    fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha224(hasher) => hasher.update(data),
            Self::Sha256(hasher) => hasher.update(data),
            Self::Sha384(hasher) => hasher.update(data),
            Self::Sha512(hasher) => hasher.update(data),
            Self::Sha512_224(hasher) => hasher.update(data),
            Self::Sha512_256(hasher) => hasher.update(data),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha224(hasher) => hasher.finalize().to_vec(),
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Sha384(hasher) => hasher.finalize().to_vec(),
            Self::Sha512(hasher) => hasher.finalize().to_vec(),
            Self::Sha512_224(hasher) => hasher.finalize().to_vec(),
            Self::Sha512_256(hasher) => hasher.finalize().to_vec(),
        }
    }
}

impl Running {
    /// Takes more, and gives what can be given by now.
    ///
    /// # Errors
    /// [`Failure::Crypto`] for what does not open, [`Failure::SealedMeanwhile`] once the root is closed.
    pub(crate) fn update(&mut self, cx: &Context, chunk: &[u8]) -> Result<Vec<u8>, Failure> {
        self.require_open(cx)?;
        match self {
            Self::Cipher(stream) => return Ok(stream.update(chunk)?),
            Self::Hash(hasher) => hasher.update(chunk),
            Self::MacSign(stream) | Self::MacVerify(stream, _) => stream.update(chunk),
            Self::Signature(signing) => signing.hasher.update(chunk),
        }
        Ok(Vec::new())
    }

    /// Ends the stream: the last bytes, and the result where it has one.
    ///
    /// # Errors
    /// [`Failure::Crypto`] for what does not open or was cut.
    pub(crate) async fn finish(
        self,
        cx: &Context,
    ) -> Result<(Vec<u8>, Option<v1::stream_finished::Result>), Failure> {
        use v1::stream_finished::Result as Made;
        self.require_open(cx)?;
        let result = match self {
            Self::Cipher(stream) => return Ok((stream.finish()?, None)),
            Self::Hash(hasher) => Made::Digest(hasher.finish()),
            Self::MacSign(stream) => Made::Mac(stream.finish()?),
            Self::MacVerify(stream, expected) => {
                Made::Valid(mac::tags_match(&stream.finish()?, &expected))
            }
            Self::Signature(signing) => signing.finish(cx).await?,
        };
        Ok((Vec::new(), Some(result)))
    }

    /// A key that a stream holds is used no longer than the root is open.
    fn require_open(&self, cx: &Context) -> Result<(), Failure> {
        match self {
            Self::Hash(_) => Ok(()),
            _ if cx.is_sealed() => Err(Failure::SealedMeanwhile),
            _ => Ok(()),
        }
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
            Target::Ring(ring, hash) => {
                let exists = load_ring(cx, ring).await?.is_some();
                hasher(*hash)?;
                return Ok(StreamFacts::Ring(exists));
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
        let mut facts = match (facts, &self.target) {
            (StreamFacts::Key(facts), _) => *facts,
            (StreamFacts::Ring(_), Target::Ring(ring, hash)) => {
                let resource = Resource::Ring(ring.clone());
                let _spent = recorded.spend(K::ACTION, &resource, &stamp.request_digest)?;
                cx.self_tests.ensure_hash(*hash).map_err(CryptoError::from)?;
                started.name = ring.to_string();
                let hasher = Hasher::new(*hash).ok_or(Failure::Bug("a hash without a stream"))?;
                return Ok((started, Running::Hash(hasher)));
            }
            (StreamFacts::Ring(_), Target::Key(_)) => return Err(Failure::Bug("a key as a ring")),
        };
        facts.keep();
        let mechanism = facts.mechanism()?;
        started.name = facts.found()?.name();
        started.mechanism = mechanism_out(mechanism);
        if matches!(K::ACTION, Action::Sign | Action::Verify) {
            let hasher = mechanism.hash().and_then(Hasher::new);
            let expected = (K::ACTION == Action::Verify).then_some(self.expected);
            let request_digest = stamp.request_digest;
            let problem = "only mechanisms with a hash function of SHA-2 run over streams";
            let hasher = hasher.ok_or(CryptoError::InputRefused { problem })?;
            let signing = Signing { hasher, recorded, request_digest, facts, mechanism, expected };
            return Ok((started, Running::Signature(Box::new(signing))));
        }
        let vault = cx.vault().map_err(|_| Failure::SealedMeanwhile)?;
        let found = facts.found()?;
        let (slot, public_key) = (found.slot(cx).await?, found.public_key());
        let version = found.version_ref(&slot, &public_key);
        let (digest, action) = (&stamp.request_digest, K::ACTION);
        if matches!(action, Action::MacSign | Action::MacVerify) {
            let stream = vault.mac_stream(recorded, digest, version, action, mechanism)?;
            let running = match action {
                Action::MacSign => Running::MacSign(stream),
                _ => Running::MacVerify(stream, self.expected),
            };
            return Ok((started, running));
        }
        let iv = Some(self.iv.as_slice()).filter(|iv| !iv.is_empty());
        let stream =
            vault.cipher_stream(recorded, digest, version, action, mechanism, iv, &self.aad)?;
        started.initialization_vector = stream.iv().to_vec();
        Ok((started, Running::Cipher(Box::new(stream))))
    }
}

fn hasher(hash: Hash) -> Result<(), Refusal> {
    match Hasher::new(hash) {
        Some(_) => Ok(()),
        None => Err(invalid("hash", "only hash functions of SHA-2 run over streams")),
    }
}

/// The salt and the prefix of an AEAD stream.
const STREAM_IV_BYTES_MAX: usize = 39;
/// Longer than any signature or code: SLH-DSA-SHA2-128s makes 7,856 bytes.
const EXPECTED_BYTES_MAX: usize = 8 * 1024;
