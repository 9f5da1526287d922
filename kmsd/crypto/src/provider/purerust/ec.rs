//! ECDSA and ECDH on the curves of NIST and on secp256k1, by the RustCrypto crates.

use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::Mechanism;
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p256::elliptic_curve::Generate;
use p256::pkcs8::DecodePrivateKey;

use super::mac::hash;
use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::{ecdsa, key_form};
use crate::provider::{Claim, NewKey, PrivateKey, SignInput, check_no_context, checked_digest};
use crate::random::LatchedRng;

pub(super) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    let mut rng = LatchedRng::default();
    let key = match algorithm {
        Algorithm::EcP256 => {
            ecdsa::new_key(algorithm, &p256::SecretKey::generate_from_rng(&mut rng))
        }
        Algorithm::EcP384 => {
            ecdsa::new_key(algorithm, &p384::SecretKey::generate_from_rng(&mut rng))
        }
        Algorithm::EcP521 => {
            ecdsa::new_key(algorithm, &p521::SecretKey::generate_from_rng(&mut rng))
        }
        Algorithm::EcSecp256k1 => {
            ecdsa::new_key(algorithm, &k256::SecretKey::generate_from_rng(&mut rng))
        }
        _ => Err(CryptoError::ProviderFailed { algorithm }),
    };
    rng.check()?;
    key
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
    let failed = |_| CryptoError::ProviderFailed { algorithm };
    let key = key.expose();
    match algorithm {
        Algorithm::EcP256 => {
            Ok(Box::new(P256(p256::SecretKey::from_pkcs8_der(key).map_err(failed)?)))
        }
        Algorithm::EcP384 => {
            Ok(Box::new(P384(p384::SecretKey::from_pkcs8_der(key).map_err(failed)?)))
        }
        Algorithm::EcP521 => {
            Ok(Box::new(P521(p521::SecretKey::from_pkcs8_der(key).map_err(failed)?)))
        }
        Algorithm::EcSecp256k1 => {
            Ok(Box::new(Secp256k1(k256::SecretKey::from_pkcs8_der(key).map_err(failed)?)))
        }
        _ => Err(CryptoError::ProviderFailed { algorithm }),
    }
}

pub(super) fn verify(algorithm: Algorithm, claim: Claim<'_>) -> Result<bool, CryptoError> {
    let Claim { mechanism, public_key, input, context, signature } = claim;
    check_no_context(context)?;
    let digest = number(algorithm, mechanism, input)?;
    let raw = key_form::raw_public_key(algorithm, public_key)?;
    let verdict = match algorithm {
        Algorithm::EcP256 => verify_on::<P256>(raw, &digest, signature),
        Algorithm::EcP384 => verify_on::<P384>(raw, &digest, signature),
        Algorithm::EcP521 => verify_on::<P521>(raw, &digest, signature),
        Algorithm::EcSecp256k1 => verify_on::<Secp256k1>(raw, &digest, signature),
        _ => None,
    };
    verdict.ok_or(CryptoError::PublicKeyInvalid { algorithm })
}

/// What is signed, as long as the digest of the curve's own hash function.
fn number(
    algorithm: Algorithm,
    mechanism: Mechanism,
    input: SignInput<'_>,
) -> Result<Vec<u8>, CryptoError> {
    if !algorithm.mechanisms().contains(&mechanism) || !mechanism.offers(Usage::Verify) {
        return Err(CryptoError::MechanismRefused { algorithm, mechanism });
    }
    ecdsa::representative(algorithm, &checked_digest(mechanism, input, hash)?)
}

/// A curve of one of the crates, which look alike but share no type for it.
trait OnCurve {
    /// `None` for what is not a point of the curve.
    fn verify(raw: &[u8], digest: &[u8], signature: &[u8]) -> Option<bool>;
}

fn verify_on<C: OnCurve>(raw: &[u8], digest: &[u8], signature: &[u8]) -> Option<bool> {
    C::verify(raw, digest, signature)
}

macro_rules! curve {
    ($name:ident, $library:ident, $algorithm:expr) => {
        struct $name($library::SecretKey);

        impl OnCurve for $name {
            fn verify(raw: &[u8], digest: &[u8], signature: &[u8]) -> Option<bool> {
                let key = $library::ecdsa::VerifyingKey::from_sec1_bytes(raw).ok()?;
                let signature = $library::ecdsa::Signature::from_der(signature);
                // With r, s and -s are both signatures. The crate of secp256k1 takes only the lower one;
                // FIPS 186-5 knows no such rule.
                Some(signature.is_ok_and(|signature| {
                    key.verify_prehash(digest, &signature.normalize_s()).is_ok()
                }))
            }
        }

        impl PrivateKey for $name {
            fn algorithm(&self) -> Algorithm {
                $algorithm
            }

            fn sign(
                &self,
                mechanism: Mechanism,
                input: SignInput<'_>,
                context: &[u8],
            ) -> Result<Vec<u8>, CryptoError> {
                let algorithm = self.algorithm();
                check_no_context(context)?;
                let digest = number(algorithm, mechanism, input)?;
                let key = $library::ecdsa::SigningKey::from(&self.0);
                let signature: $library::ecdsa::Signature = key
                    .sign_prehash(&digest)
                    .map_err(|_| CryptoError::ProviderFailed { algorithm })?;
                Ok(signature.to_der().as_bytes().to_vec())
            }

            fn agree(&self, peer: &[u8]) -> Result<Material, CryptoError> {
                let algorithm = self.algorithm();
                if !algorithm.mechanisms().contains(&Mechanism::Ecdh) {
                    return Err(CryptoError::UsageRefused { algorithm, usage: Usage::Derive });
                }
                check_public_key(algorithm, peer)?;
                let raw = key_form::raw_public_key(algorithm, peer)?;
                let peer = $library::PublicKey::from_sec1_bytes(raw)
                    .map_err(|_| CryptoError::PublicKeyInvalid { algorithm })?;
                let secret = p256::elliptic_curve::ecdh::diffie_hellman(
                    self.0.to_nonzero_scalar(),
                    peer.as_affine(),
                );
                Material::copied(secret.raw_secret_bytes())
            }
        }
    };
}

curve!(P256, p256, Algorithm::EcP256);
curve!(P384, p384, Algorithm::EcP384);
curve!(P521, p521, Algorithm::EcP521);
curve!(Secp256k1, k256, Algorithm::EcSecp256k1);
