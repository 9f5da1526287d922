//! ML-DSA, ML-KEM and X-Wing, by AWS-LC.
//!
//! Two things it does not offer are done by the pure-Rust library: ML-DSA signatures with a context, and
//! the expansion of an ML-KEM seed. X-Wing is put together here from its two halves.

use std::sync::OnceLock;

use aws_lc_rs::encoding::AsRawBytes;
use aws_lc_rs::signature::{
    ML_DSA_44, ML_DSA_44_SIGNING, ML_DSA_65, ML_DSA_65_SIGNING, ML_DSA_87, ML_DSA_87_SIGNING,
    ParsedPublicKey, PqdsaKeyPair, PqdsaSigningAlgorithm, PqdsaVerificationAlgorithm,
};
use aws_lc_rs::{agreement, digest, kem};
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::Mechanism;

use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::{key_form, ml_dsa, ml_kem, x_wing};
use crate::provider::{Claim, NewKey, PrivateKey, SignInput, message_only};

pub(super) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    match algorithm {
        Algorithm::MlDsa44 | Algorithm::MlDsa65 | Algorithm::MlDsa87 => {
            ml_dsa::new_key(algorithm, Material::random(ml_dsa::SEED_BYTES)?.expose())
        }
        Algorithm::MlKem768 | Algorithm::MlKem1024 => {
            ml_kem::new_key(algorithm, Material::random(ml_kem::SEED_BYTES)?.expose())
        }
        Algorithm::XWing => x_wing::import(&Material::random(x_wing::SEED_BYTES)?),
        _ => Err(CryptoError::ProviderFailed { algorithm }),
    }
}

pub(super) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    let key = key_form::import(algorithm, material)?;
    private_key(algorithm, &key.material).map_err(|_| CryptoError::MaterialRefused)?;
    Ok(key)
}

pub(super) fn check_public_key(algorithm: Algorithm, public_key: &[u8]) -> Result<(), CryptoError> {
    key_form::check_public_key(algorithm, public_key)
}

pub(super) fn private_key(
    algorithm: Algorithm,
    key: &Material,
) -> Result<Box<dyn PrivateKey>, CryptoError> {
    match algorithm {
        Algorithm::MlDsa44 | Algorithm::MlDsa65 | Algorithm::MlDsa87 => {
            Ok(Box::new(Signer::open(algorithm, key)?))
        }
        Algorithm::MlKem768 | Algorithm::MlKem1024 => {
            let expanded = ml_kem::decapsulation_key(algorithm, key)?;
            let key = decapsulation_key(algorithm, &expanded)?;
            Ok(Box::new(Decapsulator { algorithm, key }))
        }
        Algorithm::XWing => Ok(Box::new(Hybrid::open(key)?)),
        _ => Err(CryptoError::ProviderFailed { algorithm }),
    }
}

pub(super) fn verify(algorithm: Algorithm, claim: Claim<'_>) -> Result<bool, CryptoError> {
    let Claim { mechanism, public_key, input, context, signature } = claim;
    check_mechanism(algorithm, mechanism)?;
    let message = message_only(input)?;
    if !context.is_empty() {
        return ml_dsa::verify(algorithm, public_key, message, context, signature);
    }
    let (_, scheme) = ml_dsa_of(algorithm)?;
    let raw = key_form::raw_public_key(algorithm, public_key)?;
    let key = ParsedPublicKey::new(scheme, raw)
        .map_err(|_| CryptoError::PublicKeyInvalid { algorithm })?;
    Ok(key.verify_sig(message, signature).is_ok())
}

pub(super) fn encapsulate(
    algorithm: Algorithm,
    public_key: &[u8],
) -> Result<(Vec<u8>, Material), CryptoError> {
    check_public_key(algorithm, public_key)?;
    match algorithm {
        Algorithm::MlKem768 | Algorithm::MlKem1024 => {
            let raw = key_form::raw_public_key(algorithm, public_key)?;
            let (ciphertext, secret) = encapsulate_for(algorithm, raw)?;
            Ok((ciphertext.as_ref().to_vec(), Material::copied(secret.as_ref())?))
        }
        Algorithm::XWing => encapsulate_hybrid(public_key),
        _ => Err(CryptoError::UsageRefused { algorithm, usage: Usage::Encapsulate }),
    }
}

struct Signer {
    algorithm: Algorithm,
    pair: PqdsaKeyPair,
    /// The same key for signatures with a context.
    with_context: OnceLock<ml_dsa::Signer>,
}

impl Signer {
    fn open(algorithm: Algorithm, key: &Material) -> Result<Self, CryptoError> {
        let (scheme, _) = ml_dsa_of(algorithm)?;
        let pair = match ml_dsa::kept(algorithm, key)? {
            ml_dsa::Kept::Seed(seed) => PqdsaKeyPair::from_seed(scheme, seed),
            ml_dsa::Kept::Expanded(expanded) => {
                PqdsaKeyPair::from_raw_private_key(scheme, expanded)
            }
        }
        .map_err(|_| CryptoError::ProviderFailed { algorithm })?;
        Ok(Self { algorithm, pair, with_context: OnceLock::new() })
    }

    fn context_signer(&self) -> Result<&ml_dsa::Signer, CryptoError> {
        if let Some(signer) = self.with_context.get() {
            return Ok(signer);
        }
        let expanded = self
            .pair
            .private_key()
            .as_raw_bytes()
            .map_err(|_| CryptoError::ProviderFailed { algorithm: self.algorithm })?;
        let kept = ml_dsa::Kept::Expanded(expanded.as_ref());
        let signer = ml_dsa::Signer::new(self.algorithm, &kept)?;
        Ok(self.with_context.get_or_init(|| signer))
    }
}

impl PrivateKey for Signer {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn sign(
        &self,
        mechanism: Mechanism,
        input: SignInput<'_>,
        context: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_mechanism(self.algorithm, mechanism)?;
        let message = message_only(input)?;
        if !context.is_empty() {
            return self.context_signer()?.sign(message, context);
        }
        let mut signature = vec![0; self.pair.algorithm().signature_len()];
        self.pair
            .sign(message, &mut signature)
            .map_err(|_| CryptoError::ProviderFailed { algorithm: self.algorithm })?;
        Ok(signature)
    }
}

struct Decapsulator {
    algorithm: Algorithm,
    key: kem::DecapsulationKey,
}

impl PrivateKey for Decapsulator {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Material, CryptoError> {
        let secret = decapsulate(self.algorithm, &self.key, ciphertext)?;
        Material::copied(secret.as_ref())
    }
}

/// An X-Wing key.
struct Hybrid {
    lattice: kem::DecapsulationKey,
    curve: agreement::PrivateKey,
    curve_public: agreement::PublicKey,
}

impl Hybrid {
    fn open(key: &Material) -> Result<Self, CryptoError> {
        let x_wing::Expanded { lattice, curve } = x_wing::expand(key).map_err(|_| FAILED)?;
        let lattice = ml_kem::expanded(Algorithm::MlKem768, &*lattice)?;
        let curve = agreement::PrivateKey::from_private_key(&agreement::X25519, &*curve)
            .map_err(|_| FAILED)?;
        let curve_public = curve.compute_public_key().map_err(|_| FAILED)?;
        let lattice = decapsulation_key(Algorithm::MlKem768, &lattice)?;
        Ok(Self { lattice, curve, curve_public })
    }
}

impl PrivateKey for Hybrid {
    fn algorithm(&self) -> Algorithm {
        Algorithm::XWing
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Material, CryptoError> {
        let refused = CryptoError::CiphertextRefused;
        let (lattice, curve) =
            x_wing::split_ciphertext(ciphertext).ok_or_else(|| refused.clone())?;
        let lattice_secret = decapsulate(Algorithm::MlKem768, &self.lattice, lattice)?;
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, curve);
        agreement::agree(&self.curve, peer, refused, |curve_secret| {
            combine(lattice_secret.as_ref(), curve_secret, curve, self.curve_public.as_ref())
        })
    }
}

/// Encapsulation of X-Wing (§5.4), for a public key that was checked.
fn encapsulate_hybrid(public_key: &[u8]) -> Result<(Vec<u8>, Material), CryptoError> {
    let invalid = CryptoError::PublicKeyInvalid { algorithm: Algorithm::XWing };
    let (lattice, curve) = x_wing::split_public_key(public_key).ok_or_else(|| invalid.clone())?;
    let (lattice_ciphertext, lattice_secret) = encapsulate_for(Algorithm::MlKem768, lattice)?;
    let ephemeral = agreement::PrivateKey::generate(&agreement::X25519).map_err(|_| FAILED)?;
    let ephemeral_public = ephemeral.compute_public_key().map_err(|_| FAILED)?;
    let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, curve);
    let secret = agreement::agree(&ephemeral, peer, invalid, |curve_secret| {
        combine(lattice_secret.as_ref(), curve_secret, ephemeral_public.as_ref(), curve)
    })?;
    Ok(([lattice_ciphertext.as_ref(), ephemeral_public.as_ref()].concat(), secret))
}

/// `SHA3-256(ss_M || ss_X || ct_X || pk_X || label)` (§5.3).
fn combine(
    lattice_secret: &[u8],
    curve_secret: &[u8],
    curve_ciphertext: &[u8],
    curve_public: &[u8],
) -> Result<Material, CryptoError> {
    let mut context = digest::Context::new(&digest::SHA3_256);
    for part in [lattice_secret, curve_secret, curve_ciphertext, curve_public, x_wing::LABEL] {
        context.update(part);
    }
    Material::copied(context.finish().as_ref())
}

fn encapsulate_for(
    algorithm: Algorithm,
    raw: &[u8],
) -> Result<(kem::Ciphertext<'static>, kem::SharedSecret), CryptoError> {
    let invalid = |_| CryptoError::PublicKeyInvalid { algorithm };
    let key = kem::EncapsulationKey::new(ml_kem_of(algorithm)?, raw).map_err(invalid)?;
    key.encapsulate().map_err(|_| CryptoError::ProviderFailed { algorithm })
}

fn decapsulation_key(
    algorithm: Algorithm,
    expanded: &[u8],
) -> Result<kem::DecapsulationKey, CryptoError> {
    kem::DecapsulationKey::new(ml_kem_of(algorithm)?, expanded)
        .map_err(|_| CryptoError::ProviderFailed { algorithm })
}

fn decapsulate(
    algorithm: Algorithm,
    key: &kem::DecapsulationKey,
    ciphertext: &[u8],
) -> Result<kem::SharedSecret, CryptoError> {
    if ciphertext.len() != ml_kem::ciphertext_bytes(algorithm) {
        return Err(CryptoError::CiphertextRefused);
    }
    key.decapsulate(ciphertext.into()).map_err(|_| CryptoError::ProviderFailed { algorithm })
}

fn check_mechanism(algorithm: Algorithm, mechanism: Mechanism) -> Result<(), CryptoError> {
    if mechanism == Mechanism::MlDsa && algorithm.mechanisms().contains(&mechanism) {
        Ok(())
    } else {
        Err(CryptoError::MechanismRefused { algorithm, mechanism })
    }
}

fn ml_dsa_of(
    algorithm: Algorithm,
) -> Result<(&'static PqdsaSigningAlgorithm, &'static PqdsaVerificationAlgorithm), CryptoError> {
    match algorithm {
        Algorithm::MlDsa44 => Ok((&ML_DSA_44_SIGNING, &ML_DSA_44)),
        Algorithm::MlDsa65 => Ok((&ML_DSA_65_SIGNING, &ML_DSA_65)),
        Algorithm::MlDsa87 => Ok((&ML_DSA_87_SIGNING, &ML_DSA_87)),
        _ => Err(CryptoError::ProviderFailed { algorithm }),
    }
}

fn ml_kem_of(algorithm: Algorithm) -> Result<&'static kem::Algorithm, CryptoError> {
    match algorithm {
        Algorithm::MlKem768 => Ok(&kem::ML_KEM_768),
        Algorithm::MlKem1024 => Ok(&kem::ML_KEM_1024),
        _ => Err(CryptoError::ProviderFailed { algorithm }),
    }
}

const FAILED: CryptoError = CryptoError::ProviderFailed { algorithm: Algorithm::XWing };
