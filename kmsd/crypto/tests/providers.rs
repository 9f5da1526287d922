//! One conformance suite for every provider, and each checks the other's work.
//!
//! The cases are drawn from a generator with a fixed seed; `KMS_SEED` takes another, `KMS_CASES` more of
//! them.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may stop it")]

use std::sync::Arc;

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::{Hash, Mechanism};
use kms_crypto::CryptoError;
use kms_crypto::material::Material;
use kms_crypto::mechanism::{cipher, mac};
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::provider::purerust::PureRust;
use kms_crypto::provider::{
    CipherParameters, DeriveParameters, NewKey, Provider, SignInput, generate,
};
use kms_crypto::wrap;
use sha2::{Digest, Sha256};

/// Every provider makes the key once and does the work once, the other one checks it.
fn pairs() -> [(&'static dyn Provider, &'static dyn Provider); 2] {
    [(&AwsLc, &PureRust), (&PureRust, &AwsLc)]
}

/// xorshift64*: the cases must come again, and need not be unguessable.
struct Draw(u64);

impl Draw {
    fn new(what: &str) -> Self {
        let seed = std::env::var("KMS_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
        println!("{what}: {} cases from seed {seed}", cases());
        let digest = Sha256::digest(format!("{seed} {what}"));
        Self(u64::from_be_bytes(digest[..8].try_into().unwrap()) | 1)
    }

    fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number()).unwrap() % end
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.number() as u8).collect()
    }

    /// Mostly short, sometimes around a page.
    fn text(&mut self) -> Vec<u8> {
        let end = if self.below(8) == 0 { 5000 } else { 100 };
        let length = self.below(end);
        self.bytes(length)
    }

    fn key(&mut self, length: usize) -> Material {
        Material::import(&mut self.bytes(length)).unwrap()
    }

    fn aes_key(&mut self) -> Material {
        let length = [16, 24, 32][self.below(3)];
        self.key(length)
    }
}

fn cases() -> usize {
    std::env::var("KMS_CASES").ok().map_or(200, |cases| cases.parse().unwrap())
}

/// Equal keys wrap to equal bytes, which is the one way to compare them from outside.
fn same(one: &Material, other: &Material) -> bool {
    let parent = Material::import(&mut [7; 32]).unwrap();
    wrap::wrap(&parent, one).unwrap() == wrap::wrap(&parent, other).unwrap()
}

#[test]
fn what_one_provider_encrypts_the_other_decrypts() {
    for mechanism in [
        Mechanism::AesCbc,
        Mechanism::AesCbcPad,
        Mechanism::AesCtr,
        Mechanism::AesGcm,
        Mechanism::ChaCha20Poly1305,
    ] {
        let aead = matches!(mechanism, Mechanism::AesGcm | Mechanism::ChaCha20Poly1305);
        let mut draw = Draw::new(mechanism.as_str());
        for case in 0..cases() {
            let (maker, checker) = pairs()[case % 2];
            let key = match mechanism {
                Mechanism::ChaCha20Poly1305 => draw.key(32),
                _ => draw.aes_key(),
            };
            let (iv, aad) = (draw.bytes(cipher::iv_bytes(mechanism).unwrap()), draw.text());
            let parameters = CipherParameters { iv: &iv, aad: if aead { &aad } else { b"" } };
            let mut text = draw.text();
            if mechanism == Mechanism::AesCbc {
                text.truncate(text.len() / 16 * 16);
            }
            let sealed = maker.encrypt(mechanism, &key, parameters, &text).unwrap();
            assert_eq!(checker.encrypt(mechanism, &key, parameters, &text).unwrap(), sealed);
            assert_eq!(checker.decrypt(mechanism, &key, parameters, &sealed).unwrap(), text);
            if sealed.is_empty() {
                continue;
            }
            let mut edited = sealed.clone();
            edited[draw.below(sealed.len())] ^= 1 << draw.below(8);
            let found = checker.decrypt(mechanism, &key, parameters, &edited);
            assert_eq!(found, maker.decrypt(mechanism, &key, parameters, &edited));
            assert_ne!(found.as_ref(), Ok(&text));
            if aead {
                assert_eq!(found, Err(CryptoError::CiphertextRefused));
                let other = CipherParameters { iv: &iv, aad: b"other" };
                let found = checker.decrypt(mechanism, &key, other, &sealed);
                assert_eq!(found, Err(CryptoError::CiphertextRefused));
            }
        }
    }
}

fn at(iv: &[u8]) -> CipherParameters<'_> {
    CipherParameters { iv, aad: b"" }
}

#[test]
fn what_does_not_fit_is_refused_by_both_alike() {
    for (provider, _) in pairs() {
        let key = Material::random(32).unwrap();
        let problem = |found: Result<Vec<u8>, CryptoError>| {
            assert!(matches!(found, Err(CryptoError::InputRefused { .. })), "{found:?}");
        };
        for mechanism in Mechanism::ALL.iter().copied() {
            let Some(length) = cipher::iv_bytes(mechanism) else {
                let none = at(b"");
                let refused = CryptoError::MechanismUnsupported { mechanism };
                assert_eq!(
                    provider.encrypt(mechanism, &key, none, b"").err(),
                    Some(refused.clone())
                );
                assert_eq!(provider.decrypt(mechanism, &key, none, b"").err(), Some(refused));
                continue;
            };
            for iv in [vec![], vec![0; length - 1], vec![0; length + 1]] {
                problem(provider.encrypt(mechanism, &key, at(&iv), &[0; 16]));
                problem(provider.decrypt(mechanism, &key, at(&iv), &[0; 32]));
            }
            for bad in [0, 1, 15, 17, 31, 33, 64] {
                let key = Material::random(bad).unwrap();
                let refused = Err(CryptoError::MaterialRefused);
                assert_eq!(
                    provider.encrypt(mechanism, &key, at(&vec![0; length]), &[0; 16]),
                    refused
                );
                assert_eq!(
                    provider.decrypt(mechanism, &key, at(&vec![0; length]), &[0; 32]),
                    refused
                );
            }
        }
        for length in [1, 15, 17] {
            problem(provider.encrypt(Mechanism::AesCbc, &key, at(&[0; 16]), &vec![0; length]));
            problem(provider.decrypt(Mechanism::AesCbc, &key, at(&[0; 16]), &vec![0; length]));
            let refused =
                provider.decrypt(Mechanism::AesCbcPad, &key, at(&[0; 16]), &vec![0; length]);
            assert_eq!(refused, Err(CryptoError::CiphertextRefused));
        }
        let refused = provider.decrypt(Mechanism::AesCbcPad, &key, at(&[0; 16]), b"");
        assert_eq!(refused, Err(CryptoError::CiphertextRefused));
        problem(provider.encrypt(Mechanism::AesCtr, &key, at(&[0xff; 16]), &[0; 17]));
        assert_eq!(
            provider.encrypt(Mechanism::AesCtr, &key, at(&[0xff; 16]), &[0; 16]).unwrap().len(),
            16
        );
        for length in 0..16 {
            for mechanism in [Mechanism::AesGcm, Mechanism::ChaCha20Poly1305] {
                let refused = provider.decrypt(mechanism, &key, at(&[0; 12]), &vec![0; length]);
                assert_eq!(refused, Err(CryptoError::CiphertextRefused));
            }
        }
    }
}

/// The counter is one of 128 bits: carries go all the way up.
#[test]
fn the_counter_of_ctr_carries_beyond_32_and_64_bits() {
    let key = Material::random(32).unwrap();
    for ones in [4, 8, 12, 15] {
        let mut counter = [0; 16];
        counter[16 - ones..].fill(0xff);
        let parameters = CipherParameters { iv: &counter, aad: b"" };
        let whole = AwsLc.encrypt(Mechanism::AesCtr, &key, parameters, &[0; 64]).unwrap();
        assert_eq!(PureRust.encrypt(Mechanism::AesCtr, &key, parameters, &[0; 64]).unwrap(), whole);
        let next = (u128::from_be_bytes(counter) + 1).to_be_bytes();
        let parameters = CipherParameters { iv: &next, aad: b"" };
        let rest = AwsLc.encrypt(Mechanism::AesCtr, &key, parameters, &[0; 48]).unwrap();
        assert_eq!(rest, whole[16..]);
    }
}

#[test]
fn tags_agree_in_one_piece_and_in_many() {
    for mechanism in Mechanism::ALL.iter().copied() {
        let Some(length) = mac::tag_bytes(mechanism) else {
            let key = Material::random(32).unwrap();
            for (provider, _) in pairs() {
                let refused = provider.mac(mechanism, &key, b"").err();
                assert_eq!(refused, Some(CryptoError::MechanismUnsupported { mechanism }));
            }
            continue;
        };
        let mut draw = Draw::new(mechanism.as_str());
        for case in 0..cases() {
            let (maker, checker) = pairs()[case % 2];
            let key = if mechanism == Mechanism::AesCmac {
                draw.aes_key()
            } else {
                let length = 1 + draw.below(300);
                draw.key(length)
            };
            let text = draw.text();
            let tag = maker.mac(mechanism, &key, &text).unwrap();
            assert_eq!(tag.len(), length);
            let mut stream = checker.mac_stream(mechanism, &key).unwrap();
            let cut = draw.below(text.len() + 1);
            stream.update(&text[..cut]);
            stream.update(&text[cut..]);
            assert_eq!(stream.finish().unwrap(), tag);
        }
    }
}

#[test]
fn digests_agree() {
    for hash in Hash::ALL {
        let mut draw = Draw::new(hash.as_str());
        for _ in 0..cases() {
            let text = draw.text();
            let digest = AwsLc.digest(hash, &text);
            assert_eq!(digest, PureRust.digest(hash, &text));
            for mut stream in [AwsLc.hash_stream(hash), PureRust.hash_stream(hash)] {
                text.chunks(77).for_each(|part| stream.update(part));
                assert_eq!(stream.finish(), digest);
            }
            assert_eq!(digest.len(), hash.digest_bytes());
        }
    }
}

#[test]
fn derivations_agree() {
    for mechanism in [
        Mechanism::HkdfSha256,
        Mechanism::HkdfSha384,
        Mechanism::HkdfSha512,
        Mechanism::KdfCounterHmacSha256,
        Mechanism::KdfCounterHmacSha384,
        Mechanism::KdfCounterHmacSha512,
    ] {
        let mut draw = Draw::new(mechanism.as_str());
        for _ in 0..cases() {
            let length = 1 + draw.below(100);
            let (key, salt, info) = (draw.key(length), draw.text(), draw.text());
            let parameters = DeriveParameters { salt: &salt, info: &info };
            let length = 1 + draw.below(300);
            let one = AwsLc.derive(mechanism, &key, parameters, length).unwrap();
            let other = PureRust.derive(mechanism, &key, parameters, length).unwrap();
            assert!(one.len() == length && same(&one, &other));
        }
        let key = draw.key(32);
        let most = 255 * mechanism.hash().unwrap().digest_bytes();
        for (provider, _) in pairs() {
            let derive = |mechanism, length| {
                provider.derive(mechanism, &key, DeriveParameters::default(), length).err()
            };
            let is_hkdf = mechanism.as_str().starts_with("HKDF");
            assert_eq!(derive(mechanism, most), None);
            let refused = derive(mechanism, most + 1);
            assert_eq!(is_hkdf, matches!(refused, Some(CryptoError::InputRefused { .. })));
            let refused = derive(mechanism, 0);
            assert!(matches!(refused, Some(CryptoError::InputRefused { .. })), "{refused:?}");
            let mechanism = Mechanism::AesGcm;
            let refused = Some(CryptoError::MechanismUnsupported { mechanism });
            assert_eq!(derive(mechanism, 32), refused);
        }
    }
}

/// Both providers wrap with the same crate, so the second opinion is AWS-LC's own wrapping, for the two
/// lengths that it has.
#[test]
fn wrapped_keys_are_those_of_another_library() {
    use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrap, KeyWrapPadded};
    for mechanism in [Mechanism::AesKw, Mechanism::AesKwp] {
        let mut draw = Draw::new(mechanism.as_str());
        for case in 0..cases() {
            let (maker, checker) = pairs()[case % 2];
            let (parent_bytes, algorithm) =
                if case % 3 == 0 { (draw.bytes(16), &AES_128) } else { (draw.bytes(32), &AES_256) };
            let parent = Material::import(&mut parent_bytes.clone()).unwrap();
            let length = match mechanism {
                Mechanism::AesKw => 8 * (2 + draw.below(60)),
                _ => 1 + draw.below(500),
            };
            let bytes = draw.bytes(length);
            let key = Material::import(&mut bytes.clone()).unwrap();
            let wrapped = maker.wrap(mechanism, &parent, &key).unwrap();
            let mut out = vec![0; length + 16];
            let kek = AesKek::new(algorithm, &parent_bytes).unwrap();
            let theirs = match mechanism {
                Mechanism::AesKw => kek.wrap(&bytes, &mut out).unwrap(),
                _ => kek.wrap_with_padding(&bytes, &mut out).unwrap(),
            };
            assert_eq!(theirs, wrapped);
            assert!(same(&checker.unwrap(mechanism, &parent, &wrapped).unwrap(), &key));
            let mut edited = wrapped.clone();
            edited[draw.below(wrapped.len())] ^= 1 << draw.below(8);
            let refused = checker.unwrap(mechanism, &parent, &edited).err();
            assert_eq!(refused, Some(CryptoError::CiphertextRefused));
        }
    }
    let parent = Material::random(24).unwrap();
    for length in [1, 8, 15, 17, 31] {
        let key = Material::random(length).unwrap();
        let refused = AwsLc.wrap(Mechanism::AesKw, &parent, &key).err();
        assert!(matches!(refused, Some(CryptoError::InputRefused { .. })), "{length}");
    }
}

#[test]
fn secrets_have_their_lengths_when_made_and_when_taken_in() {
    for (provider, _) in pairs() {
        for (algorithm, good, bad) in [
            (Algorithm::Aes128, vec![16], vec![0, 15, 17, 24, 32]),
            (Algorithm::Aes192, vec![24], vec![0, 16, 32]),
            (Algorithm::Aes256, vec![32], vec![0, 16, 24, 33]),
            (Algorithm::ChaCha20, vec![32], vec![0, 16, 64]),
            (Algorithm::GenericSecret, vec![14, 32, 512], vec![0, 1, 13, 513]),
            (Algorithm::OpaqueSecret, vec![1, 4097, 65_536], vec![0]),
        ] {
            for length in good {
                let key = generate(provider, algorithm, length).unwrap();
                assert_eq!((key.material.len(), key.public_key.len()), (length, 0));
                let taken = provider.import(algorithm, &key.material).unwrap();
                assert!(same(&taken.material, &key.material));
            }
            for length in bad {
                let refused = Some(CryptoError::MaterialRefused);
                let key = Material::random(length).unwrap();
                assert_eq!(provider.import(algorithm, &key).err(), refused, "{algorithm} {length}");
                if algorithm.secret_bytes().is_none() {
                    assert_eq!(generate(provider, algorithm, length).err(), refused);
                }
            }
            assert!(provider.check_public_key(algorithm, b"").is_err());
            assert!(provider.private_key(algorithm, &Material::random(32).unwrap()).is_err());
        }
    }
}

const SIGNERS: [(Algorithm, Mechanism); 3] = [
    (Algorithm::EcP256, Mechanism::EcdsaSha256),
    (Algorithm::Rsa3072, Mechanism::RsaPkcs1Sha256),
    (Algorithm::Rsa3072, Mechanism::RsaPssSha256),
];

#[test]
fn what_one_provider_signs_the_other_verifies() {
    let digest: [u8; 32] = Sha256::digest(b"message").into();
    for (maker, checker) in pairs() {
        for (algorithm, mechanism) in SIGNERS {
            let NewKey { material, public_key } = generate(maker, algorithm, 0).unwrap();
            // Both read the same PKCS#8, so each also signs with the other's key.
            for signer in [maker, checker] {
                let key = signer.private_key(algorithm, &material).unwrap();
                for input in [SignInput::Message(b"message"), SignInput::Digest(&digest)] {
                    let signature = key.sign(mechanism, input, b"").unwrap();
                    for verifier in [maker, checker] {
                        let verify = |input| {
                            let key = &public_key;
                            verifier.verify(algorithm, mechanism, key, input, b"", &signature)
                        };
                        assert_eq!(verify(SignInput::Message(b"message")), Ok(true), "{mechanism}");
                        assert_eq!(verify(SignInput::Digest(&digest)), Ok(true), "{mechanism}");
                        assert_eq!(verify(SignInput::Message(b"other")), Ok(false), "{mechanism}");
                    }
                }
            }
        }
    }
}

#[test]
fn providers_are_used_as_one_type() {
    let providers: [Arc<dyn Provider>; 2] = [Arc::new(AwsLc), Arc::new(PureRust)];
    assert_eq!(providers.map(|provider| provider.name()), ["aws-lc", "pure-rust"]);
}
