//! ML-DSA, ML-KEM and X-Wing, by the RustCrypto crates.

use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::Mechanism;
use x_wing::{DecapsulationKeyRejectNonContrib, Encapsulate, EncapsulationKey, TryDecapsulate};

use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::{key_form, ml_dsa, ml_kem, x_wing as hybrid};
use crate::provider::{Claim, NewKey, PrivateKey, SignInput, message_only};
use crate::random::{self, LatchedRng};

pub(super) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    match algorithm {
        Algorithm::MlDsa44 | Algorithm::MlDsa65 | Algorithm::MlDsa87 => {
            ml_dsa::new_key(algorithm, Material::random(ml_dsa::SEED_BYTES)?.expose())
        }
        Algorithm::MlKem768 | Algorithm::MlKem1024 => {
            ml_kem::new_key(algorithm, Material::random(ml_kem::SEED_BYTES)?.expose())
        }
        Algorithm::XWing => hybrid::import(&Material::random(hybrid::SEED_BYTES)?),
        _ => Err(CryptoError::ProviderFailed { algorithm }),
    }
}

pub(super) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    key_form::import(algorithm, material)
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
            let signer = ml_dsa::Signer::open(algorithm, key)?;
            Ok(Box::new(Signer { algorithm, signer }))
        }
        Algorithm::MlKem768 | Algorithm::MlKem1024 => {
            let expanded = ml_kem::decapsulation_key(algorithm, key)?;
            let key = ml_kem::Decapsulator::from_expanded(algorithm, &expanded)
                .ok_or(CryptoError::ProviderFailed { algorithm })?;
            Ok(Box::new(Decapsulator { algorithm, key }))
        }
        Algorithm::XWing => {
            let seed = key_form::secret_array::<{ hybrid::SEED_BYTES }>(key.expose())
                .map_err(|_| CryptoError::ProviderFailed { algorithm })?;
            Ok(Box::new(Hybrid(DecapsulationKeyRejectNonContrib::from(*seed))))
        }
        _ => Err(CryptoError::ProviderFailed { algorithm }),
    }
}

pub(super) fn verify(algorithm: Algorithm, claim: Claim<'_>) -> Result<bool, CryptoError> {
    let Claim { mechanism, public_key, input, context, signature } = claim;
    check_mechanism(algorithm, mechanism)?;
    ml_dsa::verify(algorithm, public_key, message_only(input)?, context, signature)
}

pub(super) fn encapsulate(
    algorithm: Algorithm,
    public_key: &[u8],
) -> Result<(Vec<u8>, Material), CryptoError> {
    check_public_key(algorithm, public_key)?;
    let invalid = CryptoError::PublicKeyInvalid { algorithm };
    match algorithm {
        Algorithm::MlKem768 | Algorithm::MlKem1024 => {
            let raw = key_form::raw_public_key(algorithm, public_key)?;
            let random = zeroize::Zeroizing::new(random::array()?);
            let (ciphertext, secret) =
                ml_kem::encapsulate_with(algorithm, raw, &random).ok_or(invalid)?;
            Ok((ciphertext, Material::copied(&*secret)?))
        }
        Algorithm::XWing => {
            let key = EncapsulationKey::try_from(public_key).map_err(|_| invalid)?;
            let mut rng = LatchedRng::default();
            let (ciphertext, secret) = key.encapsulate_with_rng(&mut rng);
            rng.check()?;
            Ok((ciphertext.to_vec(), Material::import(&mut { secret })?))
        }
        _ => Err(CryptoError::UsageRefused { algorithm, usage: Usage::Encapsulate }),
    }
}

struct Signer {
    algorithm: Algorithm,
    signer: ml_dsa::Signer,
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
        self.signer.sign(message_only(input)?, context)
    }
}

struct Decapsulator {
    algorithm: Algorithm,
    key: ml_kem::Decapsulator,
}

impl PrivateKey for Decapsulator {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Material, CryptoError> {
        let secret = self.key.decapsulate(ciphertext).ok_or(CryptoError::CiphertextRefused)?;
        Material::copied(&*secret)
    }
}

struct Hybrid(DecapsulationKeyRejectNonContrib);

impl PrivateKey for Hybrid {
    fn algorithm(&self) -> Algorithm {
        Algorithm::XWing
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Material, CryptoError> {
        let ciphertext = ciphertext.try_into().map_err(|_| CryptoError::CiphertextRefused)?;
        let mut secret =
            self.0.try_decapsulate(&ciphertext).map_err(|_| CryptoError::CiphertextRefused)?;
        Material::import(&mut secret)
    }
}

fn check_mechanism(algorithm: Algorithm, mechanism: Mechanism) -> Result<(), CryptoError> {
    if mechanism == Mechanism::MlDsa && algorithm.mechanisms().contains(&mechanism) {
        Ok(())
    } else {
        Err(CryptoError::MechanismRefused { algorithm, mechanism })
    }
}
