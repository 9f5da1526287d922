//! Large data, in bounded memory. The permit is spent when the stream is opened; the key stays open, in
//! locked memory, until the stream is dropped.
//!
//! AES_CTR, AES_CBC and AES_CBC_PAD run through: what comes out is what one call gives. They authenticate
//! nothing, in one call or in many.
//!
//! AES_GCM and CHACHA20_POLY1305 run in segments, since one tag at the end of it all would mean giving out
//! plaintext that nobody has vouched for. The construction is STREAM (Hoang, Reyhanitabar, Rogaway and
//! Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", 2015), as `StreamBE32`
//! of the crate `aead-stream` has it, under a key of its own:
//!
//! ```text
//! lp(x)       = length of x as 4 big-endian bytes || x
//! IV          = salt, 32 random bytes || prefix, 7 random bytes
//! stream key  = HKDF-SHA-256(ikm = key, salt = salt, info = lp("kms-stream") || lp(mechanism)),
//!               as long as the key
//! nonce(i)    = prefix || i as 4 big-endian bytes || 1 for the last segment, 0 for all before
//! segment(i)  = AEAD(stream key, nonce(i), aad, 65,536 bytes of plaintext) || tag, 16 bytes
//! ciphertext  = segment(0) || segment(1) || …
//! ```
//!
//! `mechanism` is the published name. Only the last segment is shorter, and it is empty only where the
//! whole plaintext is. Each segment is given out when it has been authenticated; a segment that is left
//! out, repeated, moved or cut off, also at the end, is refused.
//!
//! The salt is why a key may make any number of streams: 7 bytes of prefix alone would, under one key,
//! collide with a probability of 2^-32 after as few as 4,096 streams, where SP 800-38D §8 wants less. A
//! stream is therefore counted against the key's bound as one protection, that of its start. It is why the
//! salt must be the vault's own, too: a caller who kept one would make many streams under one stream key.

use std::sync::Arc;

use kms_core::action::Action;
use kms_core::algorithm::Usage;
use kms_core::id::Digest;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Recorded;
use zeroize::Zeroizing;

use super::uses::{resource, spend};
use super::{Vault, VersionRef};
use crate::CryptoError;
use crate::kdf::length_prefix;
use crate::material::Material;
use crate::mechanism::cipher::{self, BLOCK_BYTES, TAG_BYTES};
use crate::provider::{CipherParameters, DeriveParameters, MacStream};
use crate::random;
use crate::selftest::SelfTests;

/// Streams. Opening gives what the uses on data give.
impl Vault {
    /// Begins a message authentication code; `action` is MacSign or MacVerify. Tags are compared with
    /// [`crate::mechanism::mac::tags_match`].
    ///
    /// # Errors
    /// See above.
    pub fn mac_stream(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        action: Action,
        mechanism: Mechanism,
    ) -> Result<Box<dyn MacStream>, CryptoError> {
        let usage = if action == Action::MacVerify { Usage::MacVerify } else { Usage::MacSign };
        spend_for(recorded, action, usage, request_digest, version)?;
        self.admit(version.header, usage, mechanism)?;
        self.provider().mac_stream(mechanism, &self.open(version)?)
    }

    /// Begins to encrypt or decrypt; `action` says which. Without an IV the vault draws one; to decrypt
    /// takes the one that the encrypting stream had. In AES_GCM and CHACHA20_POLY1305 it has
    /// [`stream_iv_bytes`], and whoever encrypts brings none.
    ///
    /// # Errors
    /// See above, and [`CryptoError::InputRefused`] for an IV of another length or where none may be
    /// brought, or for additional data where the mechanism authenticates nothing.
    #[expect(clippy::too_many_arguments, reason = "each is one thing that the stream depends on")]
    pub fn cipher_stream(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        action: Action,
        mechanism: Mechanism,
        iv: Option<&[u8]>,
        aad: &[u8],
    ) -> Result<CipherStream, CryptoError> {
        let usage = if action == Action::Decrypt { Usage::Decrypt } else { Usage::Encrypt };
        spend_for(recorded, action, usage, request_digest, version)?;
        self.admit(version.header, usage, mechanism)?;
        let length = stream_iv_bytes(mechanism).ok_or(NO_STREAM)?;
        let iv = match (iv, usage) {
            (Some(_), Usage::Encrypt) if mechanism.is_aead() => return Err(IV_BROUGHT),
            (Some(iv), _) if iv.len() == length => iv.to_vec(),
            (None, Usage::Encrypt) => {
                let mut iv = vec![0; length];
                random::fill(&mut iv)?;
                iv
            }
            _ => return Err(IV_LENGTH),
        };
        CipherStream::begin(&self.tests, self.open(version)?, mechanism, usage, iv, aad)
    }
}

/// A ciphertext or plaintext in the making. See the module text for the format.
pub struct CipherStream {
    tests: Arc<SelfTests>,
    key: Material,
    mechanism: Mechanism,
    encrypts: bool,
    iv: Vec<u8>,
    aad: Vec<u8>,
    /// What came in and has not been worked on: less than two units.
    held: Zeroizing<Vec<u8>>,
    place: Place,
    ended: bool,
}

/// Where a stream stands.
enum Place {
    /// The IV that the next block goes on with; absent when the counter is used up.
    Block(Option<[u8; BLOCK_BYTES]>),
    /// How many segments are done.
    Segment(u64),
}

impl CipherStream {
    fn begin(
        tests: &Arc<SelfTests>,
        key: Material,
        mechanism: Mechanism,
        usage: Usage,
        iv: Vec<u8>,
        aad: &[u8],
    ) -> Result<Self, CryptoError> {
        let (key, place) = match iv.first_chunk::<SALT_BYTES>() {
            Some(salt) => {
                tests.ensure(Mechanism::HkdfSha256)?;
                (stream_key(tests, &key, salt, mechanism)?, Place::Segment(0))
            }
            None if aad.is_empty() => (key, Place::Block(Some(cipher::iv(&iv)?))),
            None => return Err(NO_AAD),
        };
        Ok(Self {
            tests: Arc::clone(tests),
            key,
            mechanism,
            encrypts: usage == Usage::Encrypt,
            iv,
            aad: aad.to_vec(),
            held: Zeroizing::default(),
            place,
            ended: false,
        })
    }

    /// The IV, which whoever decrypts needs.
    pub fn iv(&self) -> &[u8] {
        &self.iv
    }

    /// How many protections this stream counts as so far: one for each segment, and one for a stream that
    /// has none.
    pub const fn invocations(&self) -> u64 {
        match self.place {
            Place::Segment(done) => done,
            Place::Block(_) => 1,
        }
    }

    /// Takes up to [`STREAM_INPUT_BYTES_MAX`] bytes and gives what can be given by now.
    ///
    /// # Errors
    /// [`CryptoError::CiphertextRefused`] for a segment that was changed, [`CryptoError::InputRefused`]
    /// for too much input, here or altogether, [`CryptoError::SelfTest`] in the error state. After an
    /// error the stream gives nothing more.
    pub fn update(&mut self, input: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.go_on(|stream| {
            if input.len() > STREAM_INPUT_BYTES_MAX {
                return Err(TOO_MUCH);
            }
            stream.held.extend_from_slice(input);
            let ready = stream.ready();
            let held = core::mem::take(&mut stream.held);
            let (work, rest) = held.split_at(ready);
            stream.held = Zeroizing::new(rest.to_vec());
            match stream.place {
                Place::Block(_) => stream.blocks(work),
                Place::Segment(_) => {
                    let mut made = Vec::with_capacity(work.len() / SEALED_BYTES * SEALED_BYTES);
                    for unit in work.chunks(stream.unit()) {
                        made.extend_from_slice(&stream.segment(unit, false)?);
                    }
                    Ok(made)
                }
            }
        })
    }

    /// Ends the stream and gives the rest.
    ///
    /// # Errors
    /// [`CryptoError::CiphertextRefused`] for a stream that was cut or a padding that is wrong,
    /// [`CryptoError::InputRefused`] for part of a block in AES_CBC.
    pub fn finish(mut self) -> Result<Vec<u8>, CryptoError> {
        self.go_on(|stream| {
            let held = core::mem::take(&mut stream.held);
            match stream.place {
                Place::Block(_) => stream.last_block(&held),
                Place::Segment(_) => stream.segment(&held, true),
            }
        })
    }

    fn go_on(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<Vec<u8>, CryptoError>,
    ) -> Result<Vec<u8>, CryptoError> {
        self.tests.state()?;
        if self.ended {
            return Err(ENDED);
        }
        step(self).inspect_err(|_| self.ended = true)
    }

    /// How much is worked on at once.
    const fn unit(&self) -> usize {
        match (&self.place, self.encrypts) {
            (Place::Block(_), _) => BLOCK_BYTES,
            (Place::Segment(_), true) => STREAM_SEGMENT_BYTES,
            (Place::Segment(_), false) => SEALED_BYTES,
        }
    }

    /// How much of what is held can be worked on, whatever comes next: what may turn out to be the last
    /// segment or the padding is kept.
    fn ready(&self) -> usize {
        let padding = self.mechanism == Mechanism::AesCbcPad && !self.encrypts;
        let keep = usize::from(padding || matches!(self.place, Place::Segment(_)));
        self.held.len().saturating_sub(keep) / self.unit() * self.unit()
    }

    /// Works on whole blocks, and on the last part of one in AES_CTR.
    fn blocks(&mut self, text: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let Place::Block(Some(iv)) = self.place else { return Err(TOO_MUCH) };
        let mechanism = match self.mechanism {
            Mechanism::AesCbcPad => Mechanism::AesCbc,
            other => other,
        };
        let made = self.one_call(mechanism, &iv, text)?;
        self.place = Place::Block(if mechanism == Mechanism::AesCtr {
            let blocks = text.len().div_ceil(BLOCK_BYTES) as u128;
            u128::from_be_bytes(iv).checked_add(blocks).map(u128::to_be_bytes)
        } else {
            // The chain goes on with the last block of the ciphertext (SP 800-38A §6.2).
            if self.encrypts { made.last_chunk() } else { text.last_chunk() }.copied()
        });
        Ok(made)
    }

    fn last_block(&mut self, text: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match (self.mechanism, &self.place) {
            (Mechanism::AesCbcPad, Place::Block(Some(iv))) => {
                self.one_call(Mechanism::AesCbcPad, iv, text)
            }
            _ => self.blocks(text),
        }
    }

    fn segment(&mut self, text: &[u8], last: bool) -> Result<Vec<u8>, CryptoError> {
        let Place::Segment(done) = &mut self.place else { return Err(TOO_MUCH) };
        let place = u32::try_from(*done).map_err(|_| TOO_MUCH)?;
        *done += 1;
        // One plaintext has one ciphertext: nothing is cut into more segments than it takes.
        if !self.encrypts && place > 0 && text.len() <= TAG_BYTES {
            return Err(CryptoError::CiphertextRefused);
        }
        let nonce = [&self.iv[SALT_BYTES..], &place.to_be_bytes(), &[u8::from(last)]].concat();
        self.one_call(self.mechanism, &nonce, text)
    }

    fn one_call(
        &self,
        mechanism: Mechanism,
        iv: &[u8],
        text: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let parameters = CipherParameters { iv, aad: &self.aad };
        let provider = self.tests.provider();
        if self.encrypts {
            provider.encrypt(mechanism, &self.key, parameters, text)
        } else {
            provider.decrypt(mechanism, &self.key, parameters, text)
        }
    }
}

fn spend_for(
    recorded: Recorded,
    action: Action,
    usage: Usage,
    request_digest: &Digest,
    version: VersionRef<'_>,
) -> Result<(), CryptoError> {
    let _spent = spend(recorded, action, &resource(version), request_digest)?;
    if action.usage() == Some(usage) {
        return Ok(());
    }
    Err(CryptoError::UsageRefused { algorithm: version.header.algorithm, usage })
}

fn stream_key(
    tests: &SelfTests,
    key: &Material,
    salt: &[u8],
    mechanism: Mechanism,
) -> Result<Material, CryptoError> {
    let name = mechanism.as_str().as_bytes();
    let info = [&length_prefix(LABEL), LABEL, &length_prefix(name), name].concat();
    let parameters = DeriveParameters { salt, info: &info };
    tests.provider().derive(Mechanism::HkdfSha256, key, parameters, key.len())
}

/// How long the IV of a stream is; `None` where there are no streams.
pub const fn stream_iv_bytes(mechanism: Mechanism) -> Option<usize> {
    match mechanism {
        Mechanism::AesGcm | Mechanism::ChaCha20Poly1305 => Some(SALT_BYTES + PREFIX_BYTES),
        _ => cipher::iv_bytes(mechanism),
    }
}

/// Why nobody brings the IV of an AEAD stream that encrypts.
pub const STREAM_IV_IS_DRAWN: &str = "the appliance draws the IV of a stream of AES_GCM and CHACHA20_POLY1305; \
                                      send none, and keep the one that the answer gives";
/// Most input that one call of [`CipherStream::update`] takes.
pub const STREAM_INPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Length of the plaintext of a segment.
pub const STREAM_SEGMENT_BYTES: usize = 64 * 1024;
const SEALED_BYTES: usize = STREAM_SEGMENT_BYTES + TAG_BYTES;
const SALT_BYTES: usize = 32;
const PREFIX_BYTES: usize = 7;
const LABEL: &[u8] = b"kms-stream";

const ENDED: CryptoError =
    CryptoError::InputRefused { problem: "the stream has failed before; begin a new one" };
const IV_BROUGHT: CryptoError = CryptoError::InputRefused { problem: STREAM_IV_IS_DRAWN };
const IV_LENGTH: CryptoError = CryptoError::InputRefused {
    problem: "a stream's IV has 39 bytes in AES_GCM and CHACHA20_POLY1305, 16 in AES_CBC and AES_CTR, \
              and to decrypt takes the one that encryption gave",
};
const NO_AAD: CryptoError = CryptoError::InputRefused {
    problem: "this mechanism authenticates nothing, so it takes no additional data",
};
const NO_STREAM: CryptoError =
    CryptoError::InputRefused { problem: "there are no streams of this mechanism" };
const TOO_MUCH: CryptoError = CryptoError::InputRefused {
    problem: "too much for this stream: 4 MiB in one part, 2^32 segments or the end of the counter in \
              all",
};

#[cfg(test)]
mod tests {
    use aead_stream::{DecryptorBE32, Key};
    use aes_gcm::Aes256Gcm;
    use aes_gcm::aead::{KeyInit, Payload};
    use hkdf::Hkdf;
    use sha2::Sha256;

    use super::*;
    use crate::provider::Provider;
    use crate::provider::awslc::AwsLc;

    const AEADS: [Mechanism; 2] = [Mechanism::AesGcm, Mechanism::ChaCha20Poly1305];
    const KEY: [u8; 32] = [7; 32];
    const SEGMENT: usize = STREAM_SEGMENT_BYTES;
    const LENGTHS: [usize; 8] =
        [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 200_000, 300_000];

    fn stream(mechanism: Mechanism, usage: Usage, aad: &[u8]) -> CipherStream {
        let tests = Arc::new(SelfTests::new(Arc::new(AwsLc)));
        let iv = (1..).take(stream_iv_bytes(mechanism).unwrap()).collect();
        let key = Material::copied(&KEY).unwrap();
        CipherStream::begin(&tests, key, mechanism, usage, iv, aad).unwrap()
    }

    /// All of it, in parts of odd sizes.
    fn run(mut stream: CipherStream, input: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut out = Vec::new();
        let (mut rest, mut size) = (input, 1);
        while !rest.is_empty() {
            let (part, left) = rest.split_at(size.min(rest.len()));
            out.extend(stream.update(part)?);
            (rest, size) = (left, size * 5 % 70_001 + 3);
        }
        out.extend(stream.finish()?);
        Ok(out)
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|place| (place * 7 + place / 251) as u8).collect()
    }

    #[test]
    fn the_format_is_the_documented_one_to_another_library() {
        let stream = || stream(Mechanism::AesGcm, Usage::Encrypt, b"aad");
        let iv = stream().iv().to_vec();
        let info = b"\0\0\0\x0akms-stream\0\0\0\x07AES_GCM";
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(Some(&iv[..32]), &KEY).expand(info, &mut key).unwrap();
        for length in LENGTHS {
            let ciphertext = run(stream(), &text(length)).unwrap();
            let prefix = iv[32..].try_into().unwrap();
            let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(key));
            let mut decryptor = DecryptorBE32::from_aead(cipher, &prefix);
            let mut plaintext = Vec::new();
            let mut segments: Vec<_> = ciphertext.chunks(SEGMENT + 16).collect();
            let last = segments.pop().unwrap();
            for msg in segments {
                let payload = Payload { msg, aad: b"aad" };
                plaintext.extend(decryptor.decrypt_next(payload).unwrap());
            }
            plaintext.extend(decryptor.decrypt_last(Payload { msg: last, aad: b"aad" }).unwrap());
            assert!(plaintext == text(length), "{length}");
        }
    }

    #[test]
    fn every_mechanism_gives_back_what_it_took() {
        for mechanism in [Mechanism::AesCtr, Mechanism::AesCbc, Mechanism::AesCbcPad] {
            for length in LENGTHS.map(|length| match mechanism {
                Mechanism::AesCbc => length / 16 * 16,
                _ => length,
            }) {
                let encrypting = stream(mechanism, Usage::Encrypt, b"");
                let (iv, key) = (encrypting.iv().to_vec(), Material::copied(&KEY).unwrap());
                let ciphertext = run(encrypting, &text(length)).unwrap();
                let parameters = CipherParameters { iv: &iv, aad: b"" };
                let one_call = AwsLc.encrypt(mechanism, &key, parameters, &text(length)).unwrap();
                assert!(ciphertext == one_call, "{mechanism} {length}");
                let decrypting = stream(mechanism, Usage::Decrypt, b"");
                assert!(run(decrypting, &ciphertext).unwrap() == text(length));
            }
        }
        for mechanism in AEADS {
            for length in LENGTHS {
                let encrypting = stream(mechanism, Usage::Encrypt, b"aad");
                let ciphertext = run(encrypting, &text(length)).unwrap();
                let segments = length.div_ceil(SEGMENT).max(1);
                assert_eq!(ciphertext.len(), length + 16 * segments);
                let decrypting = stream(mechanism, Usage::Decrypt, b"aad");
                assert!(run(decrypting, &ciphertext).unwrap() == text(length));
            }
        }
    }

    #[test]
    fn no_plaintext_comes_of_a_stream_that_was_changed_and_none_after_it() {
        let refused = Err(CryptoError::CiphertextRefused);
        for mechanism in AEADS {
            let open =
                |ciphertext: &[u8], aad| run(stream(mechanism, Usage::Decrypt, aad), ciphertext);
            let good = run(stream(mechanism, Usage::Encrypt, b"aad"), &text(200_000)).unwrap();
            assert_eq!(open(&good, b"other"), refused);
            let cut = |at| SEGMENT * at + 16 * at;
            let [a, b, c, d] =
                [&good[..cut(1)], &good[cut(1)..cut(2)], &good[cut(2)..cut(3)], &good[cut(3)..]];
            for changed in [
                &[][..],
                &[a],
                &[a, b, c],
                &[a, b, d],
                &[b, a, c, d],
                &[a, a, b, c, d],
                &[a, b, c, d, d],
                &[a, b, c, d, &[0]],
                &[a, b, c, &d[..d.len() - 1]],
                &[a, b, c, &d[..15]],
            ] {
                assert_eq!(open(&changed.concat(), b"aad"), refused);
            }
            for place in [0, cut(1) - 1, cut(1), good.len() - 1] {
                let mut edited = good.clone();
                edited[place] ^= 1;
                assert_eq!(open(&edited, b"aad"), refused, "{place}");
            }
            let mut failing = stream(mechanism, Usage::Decrypt, b"aad");
            assert_eq!(failing.update(&vec![0; SEGMENT + 17]), refused);
            assert_eq!(failing.update(b"more"), Err(ENDED));
            assert_eq!(failing.finish(), Err(ENDED));
        }
    }

    #[test]
    fn a_plaintext_has_one_ciphertext() {
        for mechanism in AEADS {
            let mut encrypting = stream(mechanism, Usage::Encrypt, b"");
            // By hand: a full segment that is not the last, and an empty last one.
            let full = encrypting.segment(&text(SEGMENT), false).unwrap();
            let empty = encrypting.segment(b"", true).unwrap();
            let refused = run(stream(mechanism, Usage::Decrypt, b""), &[full, empty].concat());
            assert_eq!(refused, Err(CryptoError::CiphertextRefused));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut counting = stream(Mechanism::AesCtr, Usage::Encrypt, b"");
        counting.place = Place::Block(Some([0xff; BLOCK_BYTES]));
        assert_eq!(counting.update(&[0; 16]).unwrap().len(), 16);
        assert_eq!(counting.update(&[0; 16]), Err(TOO_MUCH));
        let mut segments = stream(Mechanism::AesGcm, Usage::Encrypt, b"");
        segments.place = Place::Segment(u64::from(u32::MAX));
        assert!(segments.update(&vec![0; SEGMENT + 1]).is_ok());
        assert_eq!(segments.invocations(), 1 << 32);
        assert_eq!(segments.finish(), Err(TOO_MUCH));
        let mut parts = stream(Mechanism::AesCbc, Usage::Encrypt, b"");
        assert_eq!(parts.update(&vec![0; STREAM_INPUT_BYTES_MAX + 1]), Err(TOO_MUCH));
        for usage in [Usage::Encrypt, Usage::Decrypt] {
            let part = run(stream(Mechanism::AesCbc, usage, b""), &[0; 17]);
            assert!(matches!(part, Err(CryptoError::InputRefused { .. })));
        }
        for length in [0, 15, 16, 17, 33] {
            let found = run(stream(Mechanism::AesCbcPad, Usage::Decrypt, b""), &vec![0; length]);
            assert_eq!(found, Err(CryptoError::CiphertextRefused), "{length}");
        }
    }

    #[test]
    fn little_is_held_back_and_the_segments_are_counted() {
        let mut stream = stream(Mechanism::AesGcm, Usage::Encrypt, b"");
        for _ in 0..64 {
            assert!(stream.update(&text(50_000)).is_ok());
            assert!(stream.held.len() <= SEGMENT);
        }
        assert_eq!(stream.invocations(), (64 * 50_000 - 1) as u64 / SEGMENT as u64);
    }
}
