//! Who carries out the mathematics: one trait, so that the library underneath can be exchanged and
//! cross-checked.
//!
//! A provider gets [`Material`], never bytes, and gives nothing that is secret but new `Material`.
//! Only this crate can read `Material`, so providers are written here: [`awslc`] is the default, the
//! pure-Rust one is built with the feature `purerust`. Calls are made by [`crate::vault`].
//!
//! Secret keys are the raw bytes. Private keys are PKCS#8 in DER: RFC 5915 for curves, RFC 8017 for
//! RSA, RFC 8410 for Ed25519 and X25519, the seed form of RFC 9881, RFC 9909 and RFC 9935 for ML-DSA,
//! SLH-DSA and ML-KEM; X-Wing keys are their 32-byte seed. Public keys are SubjectPublicKeyInfo in DER;
//! X-Wing public keys are the 1,216 raw bytes.

use std::borrow::Cow;

use kms_core::algorithm::{
    Algorithm, GENERIC_SECRET_BYTES_MAX, GENERIC_SECRET_BYTES_MIN, KeyKind,
    OPAQUE_SECRET_BYTES_MAX, Usage,
};
use kms_core::mechanism::{Hash, Mechanism};

use crate::CryptoError;
use crate::material::Material;
use crate::selftest;

pub mod awslc;
#[cfg(feature = "purerust")]
pub mod purerust;
mod rust_mac;
mod wiping;

pub(crate) use wiping::Wiping;

/// What is signed. Both forms give signatures of the same mechanism.
#[derive(Clone, Copy, Debug)]
pub enum SignInput<'a> {
    /// The digest of the message, made by the caller with the mechanism's hash function.
    Digest(&'a [u8]),
    /// The message itself; the digest is made here.
    Message(&'a [u8]),
}

/// A signature, with all that it is checked against.
#[derive(Clone, Copy)]
struct Claim<'a> {
    mechanism: Mechanism,
    public_key: &'a [u8],
    input: SignInput<'a>,
    context: &'a [u8],
    signature: &'a [u8],
}

/// Which file of a provider an algorithm belongs to.
enum Family {
    Ec,
    Edwards,
    HashBased,
    Lattice,
    Rsa,
    Secret,
}

impl Family {
    const fn of(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::EcP256 | Algorithm::EcP384 | Algorithm::EcP521 | Algorithm::EcSecp256k1 => {
                Self::Ec
            }
            Algorithm::Ed25519 | Algorithm::X25519 => Self::Edwards,
            Algorithm::SlhDsaSha2_128s => Self::HashBased,
            Algorithm::MlDsa44
            | Algorithm::MlDsa65
            | Algorithm::MlDsa87
            | Algorithm::MlKem1024
            | Algorithm::MlKem768
            | Algorithm::XWing => Self::Lattice,
            Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => Self::Rsa,
            // What is added to the list and not here has no length that fits, so it is refused.
            _ => Self::Secret,
        }
    }
}

/// What goes with a plaintext or a ciphertext, as far as the mechanism takes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct CipherParameters<'a> {
    /// IV, nonce or initial counter block. Never empty here: who makes it is decided above.
    pub iv: &'a [u8],
    /// Additional authenticated data, or the label of RSA-OAEP.
    pub aad: &'a [u8],
}

/// What a key derivation takes besides the key.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeriveParameters<'a> {
    /// HKDF: salt. SP 800-108: not used.
    pub salt: &'a [u8],
    /// HKDF: info. SP 800-108: the fixed input (label, zero byte, context, length) as it is hashed.
    pub info: &'a [u8],
}

/// A key just made.
pub struct NewKey {
    /// The key; see the module text for its form.
    pub material: Material,
    /// The public key; empty for secret keys. See the module text for its form.
    pub public_key: Vec<u8>,
}

/// A private key, ready to be used many times. The library's own copy of it is wiped on drop.
///
/// What an algorithm does not offer is refused with [`CryptoError::UsageRefused`].
pub trait PrivateKey: Send + Sync {
    /// Which algorithm it is one of.
    fn algorithm(&self) -> Algorithm;

    /// Signs. ECDSA signatures are DER. `context` is that of ML-DSA and SLH-DSA, otherwise empty.
    ///
    /// # Errors
    /// [`CryptoError::InputRefused`] for a digest of another length than the mechanism's, or where
    /// only messages are signed; [`CryptoError::ProviderFailed`].
    fn sign(
        &self,
        mechanism: Mechanism,
        input: SignInput<'_>,
        context: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let _ = (mechanism, input, context);
        Err(CryptoError::UsageRefused { algorithm: self.algorithm(), usage: Usage::Sign })
    }

    /// Decrypts with RSA.
    ///
    /// # Errors
    /// [`CryptoError::CiphertextRefused`], the same for every fault of the ciphertext.
    fn decrypt(
        &self,
        mechanism: Mechanism,
        parameters: CipherParameters<'_>,
        ciphertext: &[u8],
    ) -> Result<Material, CryptoError> {
        let _ = (mechanism, parameters, ciphertext);
        Err(CryptoError::UsageRefused { algorithm: self.algorithm(), usage: Usage::Decrypt })
    }

    /// The shared secret of a Diffie-Hellman agreement: the x-coordinate, as long as the field.
    ///
    /// # Errors
    /// [`CryptoError::PublicKeyInvalid`] when `peer` is not a valid key of the same algorithm.
    fn agree(&self, peer: &[u8]) -> Result<Material, CryptoError> {
        let _ = peer;
        Err(CryptoError::UsageRefused { algorithm: self.algorithm(), usage: Usage::Derive })
    }

    /// The shared secret, 32 bytes, that was encapsulated.
    ///
    /// # Errors
    /// [`CryptoError::CiphertextRefused`] for a ciphertext of another length. What is of the right
    /// length gives a secret, be it the right one (FIPS 203 §6.3).
    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Material, CryptoError> {
        let _ = ciphertext;
        Err(CryptoError::UsageRefused { algorithm: self.algorithm(), usage: Usage::Decapsulate })
    }
}

/// A message authentication code that is fed bit by bit.
pub trait MacStream: Send {
    /// Takes more of the message.
    fn update(&mut self, bytes: &[u8]);

    /// The tag of all that was taken.
    ///
    /// # Errors
    /// [`CryptoError::ProviderFailed`].
    fn finish(self: Box<Self>) -> Result<Vec<u8>, CryptoError>;
}

/// A digest that is fed bit by bit.
pub trait HashStream: Send {
    /// Takes more of the data.
    fn update(&mut self, bytes: &[u8]);

    /// The digest of all that was taken.
    fn finish(self: Box<Self>) -> Vec<u8>;
}

/// A library that carries out the mechanisms.
pub trait Provider: Send + Sync {
    /// The published name, as in the service's self-description.
    fn name(&self) -> &'static str;

    /// Makes a key, without the check that [`generate`] adds. `length_bytes` counts only for secrets that
    /// have no length of their own.
    ///
    /// # Errors
    /// [`CryptoError::RandomFailed`], [`CryptoError::ProviderFailed`], or the arena's errors.
    fn generate_unchecked(
        &self,
        algorithm: Algorithm,
        length_bytes: usize,
    ) -> Result<NewKey, CryptoError>;

    /// Takes in a key from outside: checks that it is a whole, valid key of `algorithm`, brings it
    /// into the one form of the module text and computes its public half.
    ///
    /// # Errors
    /// [`CryptoError::MaterialRefused`] for anything else: a wrong length, a scalar of 0 or beyond the
    /// order, an RSA key whose parts do not fit together or whose exponent is below 65537.
    fn import(&self, algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError>;

    /// Checks a public key from outside.
    ///
    /// # Errors
    /// [`CryptoError::PublicKeyInvalid`].
    fn check_public_key(&self, algorithm: Algorithm, public_key: &[u8]) -> Result<(), CryptoError>;

    /// Opens a private key for use.
    ///
    /// # Errors
    /// [`CryptoError::ProviderFailed`] when `key` is not one of `algorithm`.
    fn private_key(
        &self,
        algorithm: Algorithm,
        key: &Material,
    ) -> Result<Box<dyn PrivateKey>, CryptoError>;

    /// Whether `signature` is one over `input` by the owner of `public_key`.
    ///
    /// # Errors
    /// [`CryptoError::PublicKeyInvalid`] when `public_key` is not one of `algorithm`,
    /// [`CryptoError::InputRefused`] as in [`PrivateKey::sign`].
    fn verify(
        &self,
        algorithm: Algorithm,
        mechanism: Mechanism,
        public_key: &[u8],
        input: SignInput<'_>,
        context: &[u8],
        signature: &[u8],
    ) -> Result<bool, CryptoError>;

    /// Encrypts with a secret key. AEAD ciphertexts have their 16-byte tag behind them.
    ///
    /// # Errors
    /// [`CryptoError::InputRefused`] for an IV of the wrong length or, in AES_CBC, a part of a block.
    fn encrypt(
        &self,
        mechanism: Mechanism,
        key: &Material,
        parameters: CipherParameters<'_>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, CryptoError>;

    /// Decrypts what [`Provider::encrypt`] made.
    ///
    /// # Errors
    /// [`CryptoError::CiphertextRefused`] when anything was changed, as far as the mechanism sees it;
    /// [`CryptoError::InputRefused`] as above.
    fn decrypt(
        &self,
        mechanism: Mechanism,
        key: &Material,
        parameters: CipherParameters<'_>,
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, CryptoError>;

    /// Encrypts with an RSA public key.
    ///
    /// # Errors
    /// [`CryptoError::PublicKeyInvalid`]; [`CryptoError::InputRefused`] for too long a plaintext.
    fn public_encrypt(
        &self,
        algorithm: Algorithm,
        mechanism: Mechanism,
        public_key: &[u8],
        parameters: CipherParameters<'_>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, CryptoError>;

    /// Begins a message authentication code.
    ///
    /// # Errors
    /// [`CryptoError::ProviderFailed`].
    fn mac_stream(
        &self,
        mechanism: Mechanism,
        key: &Material,
    ) -> Result<Box<dyn MacStream>, CryptoError>;

    /// Wraps a key with AES-KW or AES-KWP. Other mechanisms wrap by encrypting.
    ///
    /// # Errors
    /// [`CryptoError::InputRefused`] for a key that AES-KW cannot take: its length is no multiple of 8.
    fn wrap(
        &self,
        mechanism: Mechanism,
        key: &Material,
        target: &Material,
    ) -> Result<Vec<u8>, CryptoError>;

    /// Unwraps what [`Provider::wrap`] made.
    ///
    /// # Errors
    /// [`CryptoError::CiphertextRefused`] when anything was changed.
    fn unwrap(
        &self,
        mechanism: Mechanism,
        key: &Material,
        wrapped: &[u8],
    ) -> Result<Material, CryptoError>;

    /// Derives `length_bytes` with HKDF or SP 800-108.
    ///
    /// # Errors
    /// [`CryptoError::InputRefused`] for more bytes than the mechanism gives.
    fn derive(
        &self,
        mechanism: Mechanism,
        key: &Material,
        parameters: DeriveParameters<'_>,
        length_bytes: usize,
    ) -> Result<Material, CryptoError>;

    /// A shared secret of 32 bytes for the owner of `public_key`, and the ciphertext that tells it to
    /// them.
    ///
    /// # Errors
    /// [`CryptoError::PublicKeyInvalid`].
    fn encapsulate(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
    ) -> Result<(Vec<u8>, Material), CryptoError>;

    /// Hashes.
    fn digest(&self, hash: Hash, data: &[u8]) -> Vec<u8>;

    /// Begins a digest.
    fn hash_stream(&self, hash: Hash) -> Box<dyn HashStream>;

    /// Makes a tag in one go.
    ///
    /// # Errors
    /// [`CryptoError::ProviderFailed`].
    fn mac(
        &self,
        mechanism: Mechanism,
        key: &Material,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let mut stream = self.mac_stream(mechanism, key)?;
        stream.update(message);
        stream.finish()
    }
}

/// Makes a key. A pair must prove that its halves belong together before it is handed out (FIPS 140-3
/// implementation guidance 10.3.A); see [`selftest::pairwise_consistent`].
///
/// # Errors
/// Those of [`Provider::generate_unchecked`], or [`CryptoError::SelfTest`] for a pair that does not fit
/// together.
pub fn generate(
    provider: &dyn Provider,
    algorithm: Algorithm,
    length_bytes: usize,
) -> Result<NewKey, CryptoError> {
    let key = provider.generate_unchecked(algorithm, length_bytes)?;
    selftest::pairwise_consistent(provider, algorithm, &key)?;
    Ok(key)
}

/// Makes a secret; for [`Provider::generate_unchecked`].
fn generate_secret(algorithm: Algorithm, length_bytes: usize) -> Result<NewKey, CryptoError> {
    let length = algorithm.secret_bytes().unwrap_or(length_bytes);
    check_secret_length(algorithm, length)?;
    Ok(NewKey { material: Material::random(length)?, public_key: Vec::new() })
}

/// Takes a secret in; for [`Provider::import`].
fn import_secret(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    check_secret_length(algorithm, material.len())?;
    Ok(NewKey { material: Material::copied(material.expose())?, public_key: Vec::new() })
}

fn check_secret_length(algorithm: Algorithm, length: usize) -> Result<(), CryptoError> {
    let fits = match algorithm.kind() {
        KeyKind::SecretKey => algorithm.secret_bytes().map_or_else(
            || (GENERIC_SECRET_BYTES_MIN..=GENERIC_SECRET_BYTES_MAX).contains(&length),
            |only| only == length,
        ),
        KeyKind::OpaqueSecret => (1..=OPAQUE_SECRET_BYTES_MAX).contains(&length),
        _ => false,
    };
    if fits { Ok(()) } else { Err(CryptoError::MaterialRefused) }
}

/// The digest that a mechanism signs: the given one if it has the right length, or that of the message.
fn checked_digest(
    mechanism: Mechanism,
    input: SignInput<'_>,
    hash: impl FnOnce(Hash, &[u8]) -> Vec<u8>,
) -> Result<Cow<'_, [u8]>, CryptoError> {
    let function = mechanism.hash().ok_or(CryptoError::MechanismUnsupported { mechanism })?;
    match input {
        SignInput::Digest(digest) if digest.len() == function.digest_bytes() => Ok(digest.into()),
        SignInput::Digest(_) => Err(DIGEST_LENGTH),
        SignInput::Message(message) => Ok(hash(function, message).into()),
    }
}

/// What is signed by a mechanism that has no digest to be made beforehand.
const fn message_only(input: SignInput<'_>) -> Result<&[u8], CryptoError> {
    match input {
        SignInput::Digest(_) => Err(MESSAGES_ONLY),
        SignInput::Message(message) => Ok(message),
    }
}

/// Refuses a context where there is no place for one: it would not be signed.
const fn check_no_context(context: &[u8]) -> Result<(), CryptoError> {
    if context.is_empty() { Ok(()) } else { Err(NO_CONTEXT) }
}

/// For a digest that is not one of the mechanism's hash function.
const DIGEST_LENGTH: CryptoError = CryptoError::InputRefused {
    problem: "the digest has another length than those of the mechanism's hash function",
};

/// For a digest where only messages are signed.
const MESSAGES_ONLY: CryptoError = CryptoError::InputRefused {
    problem: "this mechanism signs messages, not digests; hand in the message itself",
};

/// For a context with a mechanism other than ML-DSA and SLH-DSA.
const NO_CONTEXT: CryptoError =
    CryptoError::InputRefused { problem: "only ML-DSA and SLH-DSA sign with a context" };
