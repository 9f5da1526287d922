//! Self-tests as FIPS 140-3 asks: each mechanism gives its known answers before its first use (§7.10.3.2),
//! all of them on demand, and each new key pair proves that its halves belong together (implementation
//! guidance 10.3.A).
//!
//! [`SelfTests`] remembers what has passed. Once anything has failed it is in its error state, for good:
//! the vault, which asks before every use, then uses no key at all. The daemon keeps one for all its life,
//! so that closing and opening the root does not clear the state.
//!
//! The answers stand in `symmetric.rs` and `asymmetric/`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::{Hash, Mechanism};

use crate::CryptoError;
use crate::material::Material;
use crate::provider::{CipherParameters, HashStream, NewKey, Provider, SignInput, Wiping};

mod asymmetric;
mod symmetric;

/// Something did not give its known answer: the library or the machine is not to be trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SelfTestFailed {
    /// A hash function.
    #[error("the self-test of {hash} failed; restart, and if it fails again, replace this machine")]
    Hash {
        /// Which one.
        hash: Hash,
    },
    /// A program is not the one that its builder has signed.
    #[error("the programs are not those of their manifest; install them anew and restart")]
    Integrity,
    /// A mechanism.
    #[error(
        "the self-test of {mechanism} failed; restart, and if it fails again, replace this machine"
    )]
    Mechanism {
        /// Which one.
        mechanism: Mechanism,
    },
    /// The halves of a new key pair do not belong together.
    #[error("a new key pair of {algorithm} is not consistent; restart the daemon")]
    Pair {
        /// Of which algorithm.
        algorithm: Algorithm,
    },
}

impl SelfTestFailed {
    /// The mechanism whose test failed, if it was one.
    pub const fn mechanism(&self) -> Option<Mechanism> {
        match self {
            Self::Mechanism { mechanism } => Some(*mechanism),
            _ => None,
        }
    }
}

/// What has been tested so far, of one provider.
pub struct SelfTests {
    provider: Arc<dyn Provider>,
    mechanisms: [AtomicBool; Mechanism::ALL.len()],
    hashes: [AtomicBool; Hash::ALL.len()],
    failed: OnceLock<SelfTestFailed>,
    running: Mutex<()>,
    fault: Fault,
}

impl SelfTests {
    /// Nothing is tested yet.
    pub fn new(provider: Arc<dyn Provider>) -> Self {
        Self::with(provider, Fault::default())
    }

    /// The same with one constant of `mechanism` corrupted, to see that the test finds it.
    #[cfg(feature = "selftest-faults")]
    pub fn with_fault(provider: Arc<dyn Provider>, mechanism: Mechanism) -> Self {
        Self::with(provider, Fault { mechanism: Some(mechanism) })
    }

    fn with(provider: Arc<dyn Provider>, fault: Fault) -> Self {
        Self {
            provider: Arc::new(Wiping(provider)),
            mechanisms: [const { AtomicBool::new(false) }; Mechanism::ALL.len()],
            hashes: [const { AtomicBool::new(false) }; Hash::ALL.len()],
            failed: OnceLock::new(),
            running: Mutex::new(()),
            fault,
        }
    }

    /// Whose tests these are.
    pub fn provider(&self) -> &dyn Provider {
        self.provider.as_ref()
    }

    /// Whether everything that was tested has passed.
    ///
    /// # Errors
    /// [`SelfTestFailed`] in the error state: what failed first.
    pub fn state(&self) -> Result<(), SelfTestFailed> {
        self.failed.get().copied().map_or(Ok(()), Err)
    }

    /// Tests `mechanism` unless that was done before.
    ///
    /// # Errors
    /// [`SelfTestFailed`] in the error state, or when the test fails now.
    pub fn ensure(&self, mechanism: Mechanism) -> Result<(), SelfTestFailed> {
        self.once(self.mechanisms.get(mechanism as usize), || self.test(mechanism))
    }

    /// Whether `mechanism` has been tested and has passed.
    pub fn has_passed(&self, mechanism: Mechanism) -> bool {
        let passed = self.mechanisms.get(mechanism as usize);
        passed.is_some_and(|passed| passed.load(Ordering::Acquire))
    }

    /// Tests a hash function unless that was done before.
    ///
    /// # Errors
    /// As in [`SelfTests::ensure`].
    pub fn ensure_hash(&self, hash: Hash) -> Result<(), SelfTestFailed> {
        self.once(self.hashes.get(hash as usize), || self.test_hash(hash))
    }

    /// Begins a digest by a hash function that is tested.
    ///
    /// # Errors
    /// As in [`SelfTests::ensure`].
    pub fn hash_stream(&self, hash: Hash) -> Result<Box<dyn HashStream>, SelfTestFailed> {
        self.ensure_hash(hash)?;
        Ok(self.provider.hash_stream(hash))
    }

    /// Tests everything now, whether or not it was tested before.
    ///
    /// # Errors
    /// [`SelfTestFailed`] in the error state: what failed first.
    pub fn run(&self) -> Result<(), SelfTestFailed> {
        self.state()?;
        for hash in Hash::ALL {
            self.note(self.test_hash(hash), self.hashes.get(hash as usize))?;
        }
        for mechanism in Mechanism::ALL {
            self.note(self.test(*mechanism), self.mechanisms.get(*mechanism as usize))?;
        }
        Ok(())
    }

    /// Puts everything into the error state: the programs are not what they must be.
    pub fn fail_integrity(&self) {
        self.fail(SelfTestFailed::Integrity);
    }

    /// Puts everything into the error state; for a pair that does not fit together.
    pub(crate) fn fail(&self, failed: SelfTestFailed) {
        self.failed.get_or_init(|| failed);
    }

    fn once(
        &self,
        passed: Option<&AtomicBool>,
        test: impl FnOnce() -> Result<(), SelfTestFailed>,
    ) -> Result<(), SelfTestFailed> {
        self.state()?;
        let has_passed = || passed.is_some_and(|passed| passed.load(Ordering::Acquire));
        if has_passed() {
            return Ok(());
        }
        let _running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if has_passed() { self.state() } else { self.note(test(), passed) }
    }

    fn note(
        &self,
        outcome: Result<(), SelfTestFailed>,
        passed: Option<&AtomicBool>,
    ) -> Result<(), SelfTestFailed> {
        match (outcome, passed) {
            (Err(failed), _) => self.fail(failed),
            (Ok(()), Some(passed)) => passed.store(true, Ordering::Release),
            (Ok(()), None) => {}
        }
        self.state()
    }

    fn test(&self, mechanism: Mechanism) -> Result<(), SelfTestFailed> {
        let provider = self.provider.as_ref();
        let known = Known { corrupt: self.fault.is_of(mechanism) };
        known_answer(mechanism)
            .is_some_and(|test| test(provider, mechanism, known).unwrap_or(false))
            .then_some(())
            .ok_or(SelfTestFailed::Mechanism { mechanism })
    }

    fn test_hash(&self, hash: Hash) -> Result<(), SelfTestFailed> {
        symmetric::hash_answer(self.provider.as_ref(), hash)
            .then_some(())
            .ok_or(SelfTestFailed::Hash { hash })
    }
}

/// Which mechanism's constant is corrupted: none, but with the feature `selftest-faults`.
#[derive(Clone, Copy, Default)]
struct Fault {
    #[cfg(feature = "selftest-faults")]
    mechanism: Option<Mechanism>,
}

impl Fault {
    #[cfg(feature = "selftest-faults")]
    fn is_of(self, mechanism: Mechanism) -> bool {
        self.mechanism == Some(mechanism)
    }

    #[cfg(not(feature = "selftest-faults"))]
    const fn is_of(self, _: Mechanism) -> bool {
        false
    }
}

/// The test of one mechanism: whether `provider` gives the known answers.
type KnownAnswer = fn(&dyn Provider, Mechanism, Known) -> Result<bool, CryptoError>;

/// A mechanism without known answers has not been tested, so it counts as failed.
fn known_answer(mechanism: Mechanism) -> Option<KnownAnswer> {
    symmetric::known_answer(mechanism).or_else(|| asymmetric::known_answer(mechanism))
}

/// Reads the constants of the known answers.
#[derive(Clone, Copy)]
struct Known {
    corrupt: bool,
}

impl Known {
    /// Hexadecimal text; line breaks do not count.
    fn bytes(self, text: &str) -> Vec<u8> {
        crate::mechanism::known(text)
    }

    fn key(self, text: &str) -> Result<Material, CryptoError> {
        Material::import(&mut self.bytes(text))
    }

    /// What must come out. It is read by this function in every test, since it is what the test-only
    /// hook corrupts.
    fn answer(self, text: &str) -> Vec<u8> {
        let mut bytes = self.bytes(text);
        if let Some(first) = bytes.first_mut() {
            *first ^= u8::from(self.corrupt);
        }
        bytes
    }
}

/// Checks that the halves of a new pair belong together, by putting them to the use that they are made
/// for. Secrets have no halves.
///
/// # Errors
/// [`CryptoError::SelfTest`] when they do not, or those of the provider.
pub fn pairwise_consistent(
    provider: &dyn Provider,
    algorithm: Algorithm,
    key: &NewKey,
) -> Result<(), CryptoError> {
    let Some(mechanism) = algorithm.default_mechanism().filter(|_| algorithm.is_asymmetric())
    else {
        return Ok(());
    };
    let consistent = if mechanism.offers(Usage::Sign) {
        verifies_its_own(provider, algorithm, mechanism, key)
    } else if mechanism.offers(Usage::Encapsulate) {
        decapsulates_its_own(provider, algorithm, key)
    } else if mechanism.offers(Usage::Derive) {
        agrees_both_ways(provider, algorithm, key)
    } else {
        decrypts_its_own(provider, algorithm, mechanism, key)
    };
    // Whatever a provider says of a pair that it has just made itself, the pair is no good.
    match consistent {
        Ok(true) => Ok(()),
        _ => Err(SelfTestFailed::Pair { algorithm }.into()),
    }
}

fn verifies_its_own(
    provider: &dyn Provider,
    algorithm: Algorithm,
    mechanism: Mechanism,
    NewKey { material, public_key }: &NewKey,
) -> Result<bool, CryptoError> {
    let input = SignInput::Message(PAIRWISE_MESSAGE);
    let signature = provider.private_key(algorithm, material)?.sign(mechanism, input, b"")?;
    provider.verify(algorithm, mechanism, public_key, input, b"", &signature)
}

fn decapsulates_its_own(
    provider: &dyn Provider,
    algorithm: Algorithm,
    NewKey { material, public_key }: &NewKey,
) -> Result<bool, CryptoError> {
    let (ciphertext, secret) = provider.encapsulate(algorithm, public_key)?;
    let same = provider.private_key(algorithm, material)?.decapsulate(&ciphertext)?;
    Ok(same.expose() == secret.expose())
}

/// With a second pair, made for the purpose: both sides must come to the same secret.
fn agrees_both_ways(
    provider: &dyn Provider,
    algorithm: Algorithm,
    NewKey { material, public_key }: &NewKey,
) -> Result<bool, CryptoError> {
    let peer = provider.generate_unchecked(algorithm, 0)?;
    let here = provider.private_key(algorithm, material)?.agree(&peer.public_key)?;
    let there = provider.private_key(algorithm, &peer.material)?.agree(public_key)?;
    Ok(here.expose() == there.expose())
}

fn decrypts_its_own(
    provider: &dyn Provider,
    algorithm: Algorithm,
    mechanism: Mechanism,
    NewKey { material, public_key }: &NewKey,
) -> Result<bool, CryptoError> {
    let none = CipherParameters::default();
    let ciphertext =
        provider.public_encrypt(algorithm, mechanism, public_key, none, PAIRWISE_MESSAGE)?;
    let plaintext =
        provider.private_key(algorithm, material)?.decrypt(mechanism, none, &ciphertext)?;
    Ok(plaintext.expose() == PAIRWISE_MESSAGE)
}

const PAIRWISE_MESSAGE: &[u8] = b"pairwise consistency";

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use kms_core::mechanism::Mechanism::{AesGcm, AesKwp, HmacSha256};

    use super::*;
    use crate::provider::awslc::AwsLc;
    use crate::provider::{self, MacStream, PrivateKey};

    /// The default provider with one fault.
    struct Faulty {
        fault: FaultOf,
        mac_streams: AtomicUsize,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum FaultOf {
        Decryption,
        Digest,
        Generation,
        Macs,
        Verification,
    }

    impl Faulty {
        fn new(fault: FaultOf) -> Arc<Self> {
            Arc::new(Self { fault, mac_streams: AtomicUsize::new(0) })
        }
    }

    impl Provider for Faulty {
        fn name(&self) -> &'static str {
            "faulty"
        }
        fn generate_unchecked(&self, of: Algorithm, length: usize) -> Result<NewKey, CryptoError> {
            let mut key = AwsLc.generate_unchecked(of, length)?;
            if self.fault == FaultOf::Generation {
                key.public_key = AwsLc.generate_unchecked(of, length)?.public_key;
            }
            Ok(key)
        }
        fn import(&self, of: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
            AwsLc.import(of, material)
        }
        fn check_public_key(&self, of: Algorithm, public_key: &[u8]) -> Result<(), CryptoError> {
            AwsLc.check_public_key(of, public_key)
        }
        fn private_key(
            &self,
            of: Algorithm,
            key: &Material,
        ) -> Result<Box<dyn PrivateKey>, CryptoError> {
            AwsLc.private_key(of, key)
        }
        fn verify(
            &self,
            of: Algorithm,
            mechanism: Mechanism,
            public_key: &[u8],
            input: SignInput<'_>,
            context: &[u8],
            signature: &[u8],
        ) -> Result<bool, CryptoError> {
            let valid = AwsLc.verify(of, mechanism, public_key, input, context, signature)?;
            Ok(valid || self.fault == FaultOf::Verification)
        }
        fn encrypt(
            &self,
            mechanism: Mechanism,
            key: &Material,
            parameters: CipherParameters<'_>,
            plaintext: &[u8],
        ) -> Result<Vec<u8>, CryptoError> {
            AwsLc.encrypt(mechanism, key, parameters, plaintext)
        }
        fn decrypt(
            &self,
            mechanism: Mechanism,
            key: &Material,
            parameters: CipherParameters<'_>,
            ciphertext: &[u8],
        ) -> Result<Vec<u8>, CryptoError> {
            let mut text = AwsLc.decrypt(mechanism, key, parameters, ciphertext)?;
            text[0] ^= u8::from(self.fault == FaultOf::Decryption);
            Ok(text)
        }
        fn public_encrypt(
            &self,
            of: Algorithm,
            mechanism: Mechanism,
            public_key: &[u8],
            parameters: CipherParameters<'_>,
            plaintext: &[u8],
        ) -> Result<Vec<u8>, CryptoError> {
            AwsLc.public_encrypt(of, mechanism, public_key, parameters, plaintext)
        }
        fn mac_stream(
            &self,
            mechanism: Mechanism,
            key: &Material,
        ) -> Result<Box<dyn MacStream>, CryptoError> {
            self.mac_streams.fetch_add(1, Ordering::Relaxed);
            let mut stream = AwsLc.mac_stream(mechanism, key)?;
            if self.fault == FaultOf::Macs {
                stream.update(b"x");
            }
            Ok(stream)
        }
        fn wrap(
            &self,
            mechanism: Mechanism,
            key: &Material,
            target: &Material,
        ) -> Result<Vec<u8>, CryptoError> {
            AwsLc.wrap(mechanism, key, target)
        }
        fn unwrap(
            &self,
            mechanism: Mechanism,
            key: &Material,
            wrapped: &[u8],
        ) -> Result<Material, CryptoError> {
            AwsLc.unwrap(mechanism, key, wrapped)
        }
        fn derive(
            &self,
            mechanism: Mechanism,
            key: &Material,
            parameters: provider::DeriveParameters<'_>,
            length_bytes: usize,
        ) -> Result<Material, CryptoError> {
            AwsLc.derive(mechanism, key, parameters, length_bytes)
        }
        fn encapsulate(
            &self,
            of: Algorithm,
            public_key: &[u8],
        ) -> Result<(Vec<u8>, Material), CryptoError> {
            AwsLc.encapsulate(of, public_key)
        }
        fn hash_stream(&self, hash: Hash) -> Box<dyn HashStream> {
            AwsLc.hash_stream(hash)
        }
        fn digest(&self, hash: Hash, data: &[u8]) -> Vec<u8> {
            let mut digest = AwsLc.digest(hash, data);
            digest[0] ^= u8::from(self.fault == FaultOf::Digest);
            digest
        }
    }

    #[test]
    fn every_mechanism_and_hash_function_gives_its_known_answers() {
        let providers: [Arc<dyn Provider>; _] = [
            Arc::new(AwsLc),
            #[cfg(feature = "purerust")]
            Arc::new(provider::purerust::PureRust),
        ];
        for provider in providers {
            let tests = SelfTests::new(provider);
            for mechanism in Mechanism::ALL {
                assert_eq!(tests.ensure(*mechanism), Ok(()), "{}", tests.provider().name());
            }
            for hash in Hash::ALL {
                assert_eq!(tests.ensure_hash(hash), Ok(()), "{}", tests.provider().name());
            }
            assert_eq!(tests.run(), Ok(()));
            assert_eq!(tests.state(), Ok(()));
        }
    }

    #[test]
    fn each_fault_is_found_and_named_and_after_it_nothing_passes() {
        let of = |mechanism| SelfTestFailed::Mechanism { mechanism };
        let faults = [
            (FaultOf::Decryption, AesGcm, of(AesGcm)),
            (FaultOf::Macs, HmacSha256, of(HmacSha256)),
            (FaultOf::Verification, Mechanism::EcdsaSha256, of(Mechanism::EcdsaSha256)),
        ];
        for (fault, mechanism, failed) in faults {
            let tests = SelfTests::new(Faulty::new(fault));
            assert_eq!(tests.ensure(AesKwp), Ok(()));
            assert_eq!(tests.ensure(mechanism), Err(failed));
            assert_eq!(tests.ensure(AesKwp), Err(failed), "also what has passed before");
            assert_eq!((tests.state(), tests.run()), (Err(failed), Err(failed)));
        }
        let tests = SelfTests::new(Faulty::new(FaultOf::Digest));
        let failed = SelfTestFailed::Hash { hash: Hash::Sha384 };
        assert_eq!(tests.ensure_hash(Hash::Sha384), Err(failed));
        assert_eq!(tests.state(), Err(failed));
    }

    #[test]
    fn a_mechanism_is_tested_once_however_many_ask_at_once() {
        let provider = Faulty::new(FaultOf::Generation);
        let tests = SelfTests::new(provider.clone());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..100).for_each(|_| assert_eq!(tests.ensure(HmacSha256), Ok(()))));
            }
        });
        assert_eq!(provider.mac_streams.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_key_pair_that_does_not_fit_together_is_not_handed_out() {
        let faulty = Faulty::new(FaultOf::Generation);
        for algorithm in Algorithm::ALL.iter().copied().filter(|a| a.is_asymmetric()) {
            let refused = provider::generate(faulty.as_ref(), algorithm, 0).err();
            let failed = SelfTestFailed::Pair { algorithm };
            assert_eq!(refused, Some(CryptoError::SelfTest(failed)));
        }
        assert!(provider::generate(faulty.as_ref(), Algorithm::Aes256, 32).is_ok());
    }

    /// The hook of the feature `selftest-faults`: one constant of each mechanism, corrupted.
    #[cfg(feature = "selftest-faults")]
    #[test]
    fn one_corrupted_constant_is_found_in_every_mechanism() {
        for mechanism in Mechanism::ALL.iter().copied() {
            let tests = SelfTests::with_fault(Arc::new(AwsLc), mechanism);
            let failed = Err(SelfTestFailed::Mechanism { mechanism });
            assert_eq!(tests.ensure(mechanism), failed);
            assert_eq!(tests.state(), failed);
            assert_eq!(tests.ensure(AesGcm), failed);
        }
    }
}
