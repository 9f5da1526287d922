//! OpenSSL as second opinion on every mechanism that it has: what we make it opens and accepts, what it
//! makes we do, what was damaged on the way neither takes.
//!
//! 200 random cases per mechanism, 10,000 with `KMS_LONG=1`; both providers take part, the slow RSA of the
//! pure-Rust one more rarely. Keys, messages, IVs and sizes come from a seed that is printed; `KMS_SEED`
//! repeats a run, but for what OpenSSL and the providers draw themselves (key pairs, signatures).
//!
//! One process that is asked over pipes: the `openssl` command takes 40 ms of CPU for each question, and the
//! `openssl` crate would make its headers a condition for building the tests, six crates more, and not have the
//! counter-mode KDF. ML-DSA, ML-KEM, SLH-DSA and X-Wing came to OpenSSL with 3.5 or not at all: there the
//! other provider (`asymmetric_pairs.rs`) and published vectors (`asymmetric_vectors.rs`) stand in.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may stop it")]

#[path = "second_opinion/openssl.rs"]
mod openssl;
#[path = "support/vectors.rs"]
mod vectors;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::{Hash, Mechanism};
use kms_crypto::material::Material;
use kms_crypto::mechanism::mac::tags_match;
use kms_crypto::provider::{CipherParameters, DeriveParameters, NewKey, Provider, SignInput};
use kms_crypto::wrap;
use openssl::OpenSsl;
use vectors::{PROVIDERS, material};

/// Mechanisms that OpenSSL 3.0 does not have.
const NOT_IN_OPENSSL: [Mechanism; 4] =
    [Mechanism::MlDsa, Mechanism::MlKem, Mechanism::SlhDsa, Mechanism::XWing];

const CIPHERS: [Mechanism; 5] = [
    Mechanism::AesCbc,
    Mechanism::AesCbcPad,
    Mechanism::AesCtr,
    Mechanism::AesGcm,
    Mechanism::ChaCha20Poly1305,
];
const WRAPS: [Mechanism; 2] = [Mechanism::AesKw, Mechanism::AesKwp];
const MACS: [Mechanism; 12] = [
    Mechanism::AesCmac,
    Mechanism::HmacSha1,
    Mechanism::HmacSha224,
    Mechanism::HmacSha256,
    Mechanism::HmacSha3_224,
    Mechanism::HmacSha3_256,
    Mechanism::HmacSha3_384,
    Mechanism::HmacSha3_512,
    Mechanism::HmacSha384,
    Mechanism::HmacSha512,
    Mechanism::HmacSha512_224,
    Mechanism::HmacSha512_256,
];
const KDFS: [Mechanism; 6] = [
    Mechanism::HkdfSha256,
    Mechanism::HkdfSha384,
    Mechanism::HkdfSha512,
    Mechanism::KdfCounterHmacSha256,
    Mechanism::KdfCounterHmacSha384,
    Mechanism::KdfCounterHmacSha512,
];
const EC_SIGNATURES: [Mechanism; 7] = [
    Mechanism::EcdsaSha256,
    Mechanism::EcdsaSha3_256,
    Mechanism::EcdsaSha3_384,
    Mechanism::EcdsaSha3_512,
    Mechanism::EcdsaSha384,
    Mechanism::EcdsaSha512,
    Mechanism::EdDsa,
];
const AGREEMENTS: [Mechanism; 1] = [Mechanism::Ecdh];
const RSA_SIGNATURES: [Mechanism; 7] = [
    Mechanism::RsaPkcs1Sha1,
    Mechanism::RsaPkcs1Sha256,
    Mechanism::RsaPkcs1Sha384,
    Mechanism::RsaPkcs1Sha512,
    Mechanism::RsaPssSha256,
    Mechanism::RsaPssSha384,
    Mechanism::RsaPssSha512,
];
const RSA_CIPHERS: [Mechanism; 5] = [
    Mechanism::RsaOaepSha256,
    Mechanism::RsaOaepSha384,
    Mechanism::RsaOaepSha512,
    Mechanism::RsaPkcs1,
    Mechanism::RsaRaw,
];

#[test]
fn every_mechanism_is_asked_about_or_is_none_of_openssl() {
    let asked = [
        &CIPHERS[..],
        &WRAPS,
        &MACS,
        &KDFS,
        &EC_SIGNATURES,
        &AGREEMENTS,
        &RSA_SIGNATURES,
        &RSA_CIPHERS,
        &NOT_IN_OPENSSL,
    ];
    let asked: BTreeSet<_> = asked.concat().into_iter().collect();
    assert_eq!(asked, Mechanism::ALL.iter().copied().collect());
    for mechanism in NOT_IN_OPENSSL {
        println!("{mechanism}: not in OpenSSL 3.0; the other provider and vectors stand in");
    }
}

/// Cases per mechanism.
fn cases() -> u64 {
    if std::env::var_os("KMS_LONG").is_some_and(|value| value == "1") { 10_000 } else { 200 }
}

/// Numbers out of a seed (splitmix64): what a case is made of.
struct Draw(u64);

impl Draw {
    /// A generator of its own for each mechanism, so that each can be repeated alone.
    fn new(mechanism: Mechanism) -> (Self, u64) {
        static SEED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
        let seed = *SEED.get_or_init(|| {
            let given = std::env::var("KMS_SEED").ok();
            let given = given.map(|text| text.parse().expect("KMS_SEED is a number"));
            given.unwrap_or_else(|| u64::from_be_bytes(kms_crypto::random::array().unwrap()))
        });
        let name = mechanism.as_str().bytes();
        let own = name.fold(seed, |own, byte| Self(own ^ u64::from(byte)).number());
        (Self(own), seed)
    }

    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).unwrap()
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.number() as u8).collect()
    }

    /// Mostly short, now and then long, often at the edge of a block.
    fn message(&mut self) -> Vec<u8> {
        let length = match self.below(8) {
            0 => self.of(&[0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129]),
            1 => self.below(5_000),
            _ => self.below(300),
        };
        self.bytes(length)
    }

    /// One bit of `bytes` changed.
    fn damaged(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut damaged = bytes.to_vec();
        let at = self.below(bytes.len());
        damaged[at] ^= 1 << self.below(8);
        damaged
    }
}

/// Runs `case` so often for each of the mechanisms, and prints what it did.
fn with_each(
    mechanisms: &[Mechanism],
    mut case: impl FnMut(&mut OpenSsl, &mut Draw, Mechanism, u64),
) {
    let Some(mut openssl) = OpenSsl::start() else { return };
    let mut table = format!("{}\n", openssl.version());
    for mechanism in mechanisms {
        let (mut draw, seed) = Draw::new(*mechanism);
        for number in 0..cases() {
            let run = std::panic::AssertUnwindSafe(|| {
                case(&mut openssl, &mut draw, *mechanism, number);
            });
            if let Err(panic) = std::panic::catch_unwind(run) {
                println!("{mechanism}, case {number}: repeat with KMS_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
        let _ = writeln!(table, "{mechanism}: {} cases agree, KMS_SEED={seed}", cases());
    }
    print!("{table}");
}

/// In turn.
fn provider(number: u64) -> &'static dyn Provider {
    PROVIDERS[usize::try_from(number % 2).unwrap()]
}

/// As OpenSSL calls it.
fn name(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha1 => "SHA1",
        Hash::Sha224 => "SHA224",
        Hash::Sha256 => "SHA256",
        Hash::Sha384 => "SHA384",
        Hash::Sha512 => "SHA512",
        Hash::Sha512_224 => "SHA512-224",
        Hash::Sha512_256 => "SHA512-256",
        Hash::Sha3_224 => "SHA3-224",
        Hash::Sha3_256 => "SHA3-256",
        Hash::Sha3_384 => "SHA3-384",
        _ => "SHA3-512",
    }
}

/// Equal keys wrap to equal bytes, which is the one way to look at them from outside.
fn holds(key: &Material, expected: &[u8]) -> bool {
    let parent = material(&[7; 32]);
    wrap::wrap(&parent, key).ok() == wrap::wrap(&parent, &material(expected)).ok()
}

#[test]
fn ciphertexts_of_secret_keys() {
    with_each(&CIPHERS, |openssl, draw, mechanism, number| {
        let provider = provider(number);
        let key_bytes = match mechanism {
            Mechanism::ChaCha20Poly1305 => 32,
            _ => draw.of(&[16, 24, 32]),
        };
        let key = draw.bytes(key_bytes);
        let (kind, iv_bytes, aead) = match mechanism {
            Mechanism::AesGcm => (format!("AES-{}-GCM", 8 * key_bytes), 12, true),
            Mechanism::AesCtr => (format!("AES-{}-CTR", 8 * key_bytes), 16, false),
            Mechanism::ChaCha20Poly1305 => ("ChaCha20-Poly1305".to_owned(), 12, true),
            _ => (format!("AES-{}-CBC", 8 * key_bytes), 16, false),
        };
        let iv = draw.bytes(iv_bytes);
        let aad = if aead { draw.message() } else { Vec::new() };
        let mut text = draw.message();
        if mechanism == Mechanism::AesCbc {
            text.truncate(text.len() / 16 * 16);
        }
        let pads = if mechanism == Mechanism::AesCbcPad { "pad" } else { "" };
        let mut ask = |way: &[u8], data: &[u8]| {
            let kind = kind.as_bytes();
            openssl.one(&[b"cipher", kind, way, &key, &iv, &aad, data, pads.as_bytes()])
        };
        let theirs = ask(b"e", &text).unwrap();
        let (key, parameters) = (material(&key), CipherParameters { iv: &iv, aad: &aad });
        let ours = provider.encrypt(mechanism, &key, parameters, &text).unwrap();
        assert_eq!(ours, theirs);
        assert_eq!(provider.decrypt(mechanism, &key, parameters, &theirs), Ok(text.clone()));
        assert_eq!(ask(b"d", &ours), Some(text));
        if !theirs.is_empty() {
            // Without a tag both make the same of it, or both find the padding wrong.
            let damaged = draw.damaged(&theirs);
            let here = provider.decrypt(mechanism, &key, parameters, &damaged).ok();
            assert_eq!(here, ask(b"d", &damaged));
            assert!(!aead || here.is_none());
        }
    });
}

#[test]
fn wrapped_keys() {
    with_each(&WRAPS, |openssl, draw, mechanism, number| {
        let provider = provider(number);
        let parent = {
            let length = draw.of(&[16, 24, 32]);
            draw.bytes(length)
        };
        let (pad, length) = match mechanism {
            Mechanism::AesKw => ("", 16 + 8 * draw.below(64)),
            _ => ("-PAD", 1 + draw.below(600)),
        };
        let kind = format!("AES-{}-WRAP{pad}", 8 * parent.len());
        let text = draw.bytes(length);
        let mut ask = |way: &[u8], data: &[u8]| {
            openssl.one(&[b"cipher", kind.as_bytes(), way, &parent, b"", b"", data, b""])
        };
        let theirs = ask(b"e", &text).unwrap();
        let key = material(&parent);
        assert_eq!(provider.wrap(mechanism, &key, &material(&text)).as_ref(), Ok(&theirs));
        assert!(holds(&provider.unwrap(mechanism, &key, &theirs).unwrap(), &text));
        let damaged = draw.damaged(&theirs);
        assert!(provider.unwrap(mechanism, &key, &damaged).is_err());
        assert_eq!(ask(b"d", &theirs), Some(text));
        assert_eq!(ask(b"d", &damaged), None);
    });
}

#[test]
fn authentication_codes() {
    with_each(&MACS, |openssl, draw, mechanism, number| {
        let (kind, of, key) = match mechanism.hash() {
            None => {
                let length = draw.of(&[16, 24, 32]);
                ("CMAC", format!("AES-{}-CBC", 8 * length), draw.bytes(length))
            }
            Some(hash) => {
                let length = 14 + draw.below(499);
                ("HMAC", name(hash).to_owned(), draw.bytes(length))
            }
        };
        let text = draw.message();
        let theirs = openssl.one(&[b"mac", kind.as_bytes(), of.as_bytes(), &key, &text]).unwrap();
        let ours = provider(number).mac(mechanism, &material(&key), &text).unwrap();
        assert!(tags_match(&ours, &theirs));
        assert!(!tags_match(&ours, &draw.damaged(&theirs)));
    });
}

#[test]
fn derived_keys() {
    with_each(&KDFS, |openssl, draw, mechanism, number| {
        let key = {
            let length = 14 + draw.below(499);
            draw.bytes(length)
        };
        let hash = name(mechanism.hash().unwrap());
        let length = 14 + draw.below(499);
        let counts = mechanism.as_str().starts_with("KDF");
        let (mut salt, mut info) = (draw.message(), draw.message());
        salt.truncate(1024);
        info.truncate(1024);
        if counts {
            // A label with a zero byte would end there.
            salt.retain(|byte| *byte != 0);
        }
        let kind: &[u8] = if counts { b"KBKDF" } else { b"HKDF" };
        let size = length.to_string();
        let asked = [b"kdf", kind, hash.as_bytes(), &key, &salt, &info, size.as_bytes()];
        let theirs = openssl.one(&asked).unwrap();
        assert_eq!(theirs.len(), length);
        // SP 800-108r1 §4.1: label || 0x00 || context || [L], L in bits.
        let bits = (8 * length as u32).to_be_bytes();
        let fixed = [&salt[..], &[0], &info, &bits].concat();
        let parameters = if counts {
            DeriveParameters { salt: b"", info: &fixed }
        } else {
            DeriveParameters { salt: &salt, info: &info }
        };
        let ours = provider(number).derive(mechanism, &material(&key), parameters, length);
        assert!(holds(&ours.unwrap(), &theirs));
    });
}

/// A pair that OpenSSL made, imported by both providers.
struct Pair {
    algorithm: Algorithm,
    private: Vec<u8>,
    public: Vec<u8>,
    ours: [NewKey; 2],
}

impl Pair {
    fn new(openssl: &mut OpenSsl, algorithm: Algorithm) -> Self {
        let (kind, size) = match algorithm {
            Algorithm::EcP256 => ("EC", "P-256"),
            Algorithm::EcP384 => ("EC", "P-384"),
            Algorithm::EcP521 => ("EC", "P-521"),
            Algorithm::EcSecp256k1 => ("EC", "secp256k1"),
            Algorithm::Ed25519 => ("ED25519", ""),
            Algorithm::X25519 => ("X25519", ""),
            Algorithm::Rsa2048 => ("RSA", "2048"),
            Algorithm::Rsa3072 => ("RSA", "3072"),
            _ => ("RSA", "4096"),
        };
        let (private, public) = openssl.pair(kind, size);
        let import = |provider: &dyn Provider| {
            let made = provider.import(algorithm, &material(&private)).unwrap();
            assert_eq!(made.public_key, public, "{algorithm}");
            made
        };
        let ours = PROVIDERS.map(import);
        Self { algorithm, private, public, ours }
    }

    /// The provider that is asked in a case, and the pair as it holds it. RSA by the pure-Rust provider
    /// takes ten times as long, so it is asked once in 25.
    fn provider(&self, number: u64) -> (&'static dyn Provider, &NewKey) {
        let at = match self.algorithm {
            Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
                usize::from(number.is_multiple_of(25))
            }
            _ => usize::try_from(number % 2).unwrap(),
        };
        (PROVIDERS[at], &self.ours[at])
    }
}

/// Pairs that serve for a while: a curve's for 20 cases, those of RSA, which take long to make, for 2,500.
#[derive(Default)]
struct Pairs(std::collections::BTreeMap<Algorithm, (Pair, u64)>);

impl Pairs {
    fn get(&mut self, openssl: &mut OpenSsl, algorithm: Algorithm) -> &Pair {
        let serves = if algorithm.bits() >= 2048 { 2_500 } else { 20 };
        if self.0.get(&algorithm).is_none_or(|(_, served)| *served == serves) {
            self.0.insert(algorithm, (Pair::new(openssl, algorithm), 0));
        }
        let (pair, served) = self.0.get_mut(&algorithm).unwrap();
        *served += 1;
        pair
    }
}

/// Of the algorithms with this mechanism one; of RSA mostly the smallest.
fn algorithm_with(draw: &mut Draw, mechanism: Mechanism) -> Algorithm {
    let all = Algorithm::ALL.iter().copied();
    let all: Vec<_> = all.filter(|one| one.mechanisms().contains(&mechanism)).collect();
    if all[0] == Algorithm::Rsa2048 && draw.below(5) > 0 { all[0] } else { draw.of(&all) }
}

fn signatures(mechanisms: &[Mechanism]) {
    let mut pairs = Pairs::default();
    with_each(mechanisms, |openssl, draw, mechanism, number| {
        let algorithm = algorithm_with(draw, mechanism);
        let pair = pairs.get(openssl, algorithm);
        let (provider, ours) = pair.provider(number);
        let hash = mechanism.hash().map_or("", name).as_bytes();
        let padding: &[u8] = match mechanism.as_str() {
            name if name.starts_with("RSA_PSS") => b"pss",
            name if name.starts_with("RSA") => b"pkcs1",
            _ => b"",
        };
        let text = draw.message();
        let theirs = openssl.one(&[b"sign", &pair.private, hash, padding, &text]).unwrap();
        let verify = |signature: &[u8]| {
            let (key, input) = (&ours.public_key, SignInput::Message(&text));
            provider.verify(algorithm, mechanism, key, input, b"", signature)
        };
        assert_eq!(verify(&theirs), Ok(true), "{algorithm}");
        let mut accepts = |signature: &[u8]| {
            let asked = [b"verify", &pair.public[..], hash, padding, &text, signature];
            openssl.ask(&asked).is_some()
        };
        let damaged = draw.damaged(&theirs);
        assert_eq!((verify(&damaged) == Ok(true), accepts(&damaged)), (false, false));
        let signer = provider.private_key(algorithm, &ours.material).unwrap();
        if mechanism == Mechanism::RsaPkcs1Sha1 {
            // Only to check.
            assert!(signer.sign(mechanism, SignInput::Message(&text), b"").is_err());
            return;
        }
        let own = signer.sign(mechanism, SignInput::Message(&text), b"").unwrap();
        assert!(accepts(&own), "{algorithm}");
        // These have one signature for each message.
        if padding == b"pkcs1" || mechanism == Mechanism::EdDsa {
            assert_eq!(own, theirs);
        }
    });
}

#[test]
fn signatures_on_curves() {
    signatures(&EC_SIGNATURES);
}

#[test]
fn signatures_by_rsa() {
    signatures(&RSA_SIGNATURES);
}

#[test]
fn ciphertexts_of_rsa() {
    let mut pairs = Pairs::default();
    with_each(&RSA_CIPHERS, |openssl, draw, mechanism, number| {
        let algorithm = algorithm_with(draw, mechanism);
        let pair = pairs.get(openssl, algorithm);
        let (provider, ours) = pair.provider(number);
        let size = algorithm.bits() as usize / 8;
        let hash = mechanism.hash();
        let (padding, label, text): (&[u8], Vec<u8>, Vec<u8>) = match (mechanism, hash) {
            (Mechanism::RsaRaw, _) => {
                // Less than the modulus, whose first bit is set.
                let mut number = draw.bytes(size);
                number[0] &= 0x7f;
                (b"none", Vec::new(), number)
            }
            (_, Some(hash)) => {
                let length = draw.below(size - 2 * hash.digest_bytes() - 1);
                (b"oaep", draw.message(), draw.bytes(length))
            }
            _ => {
                let length = draw.below(size - 10);
                (b"pkcs1", Vec::new(), draw.bytes(length))
            }
        };
        let hash = hash.map_or("", name).as_bytes();
        let parameters = CipherParameters { iv: b"", aad: &label };
        let asked = [b"encrypt", &pair.public[..], padding, hash, &label, &text];
        let theirs = openssl.one(&asked).unwrap();
        let opened = provider.private_key(algorithm, &ours.material).unwrap();
        let found = opened.decrypt(mechanism, parameters, &theirs).unwrap();
        assert!(same(&found, &text), "{algorithm}");
        let own = provider
            .public_encrypt(algorithm, mechanism, &ours.public_key, parameters, &text)
            .unwrap();
        let mut ask =
            |data: &[u8]| openssl.one(&[b"decrypt", &pair.private, padding, hash, &label, data]);
        assert_eq!(ask(&own), Some(text.clone()), "{algorithm}");
        if padding == b"oaep" && number % 8 == 1 {
            let damaged = draw.damaged(&theirs);
            assert!(opened.decrypt(mechanism, parameters, &damaged).is_err());
            assert_eq!(ask(&damaged), None);
        }
    });
}

/// As [`holds`], with room for nothing at all.
fn same(found: &Material, text: &[u8]) -> bool {
    found.len() == text.len() && (text.is_empty() || holds(found, text))
}

#[test]
fn agreed_secrets() {
    let mut pairs = Pairs::default();
    with_each(&AGREEMENTS, |openssl, draw, mechanism, number| {
        let algorithm = algorithm_with(draw, mechanism);
        let peer = Pair::new(openssl, algorithm);
        let pair = pairs.get(openssl, algorithm);
        let (provider, ours) = pair.provider(number);
        let theirs = openssl.one(&[b"agree", &peer.private, &pair.public]).unwrap();
        let opened = provider.private_key(algorithm, &ours.material).unwrap();
        assert!(holds(&opened.agree(&peer.public).unwrap(), &theirs), "{algorithm}");
        assert_eq!(openssl.one(&[b"agree", &pair.private, &peer.public]), Some(theirs));
    });
}
