//! ECDSA and ECDH on the curves of NIST and on secp256k1, by AWS-LC.
//!
//! The library has an entry per curve and hash function, but not for all of them. It is asked for the
//! curve with its own hash function, which gets the number that FIPS 186-5 §6.4.1 makes of the digest;
//! so a key is opened once for all hash functions.

use std::sync::OnceLock;

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, ECDH_P521};
use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256K1_SHA256_ASN1,
    ECDSA_P256K1_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING,
    ECDSA_P521_SHA512_ASN1, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    EcdsaVerificationAlgorithm, KeyPair, ParsedPublicKey,
};
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::{Hash, Mechanism};

use super::mac::hash;
use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::{ecdsa, key_form};
use crate::provider::{Claim, NewKey, PrivateKey, SignInput, check_no_context, checked_digest};

pub(super) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    let failed = CryptoError::ProviderFailed { algorithm };
    let curve = curve(algorithm)?;
    let pair = EcdsaKeyPair::generate(curve.signing).map_err(|_| failed.clone())?;
    let private = pair.to_pkcs8v1().map_err(|_| failed)?;
    let public_key = key_form::public_key_from_raw(algorithm, pair.public_key().as_ref())?;
    Ok(NewKey { material: Material::copied(private.as_ref())?, public_key })
}

pub(super) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    let key = key_form::import(algorithm, material)?;
    Opened::new(algorithm, &key.material).map_err(|_| CryptoError::MaterialRefused)?;
    Ok(key)
}

pub(super) fn check_public_key(algorithm: Algorithm, public_key: &[u8]) -> Result<(), CryptoError> {
    key_form::check_public_key(algorithm, public_key)
}

pub(super) fn private_key(
    algorithm: Algorithm,
    key: &Material,
) -> Result<Box<dyn PrivateKey>, CryptoError> {
    Ok(Box::new(Opened::new(algorithm, key)?))
}

pub(super) fn verify(algorithm: Algorithm, claim: Claim<'_>) -> Result<bool, CryptoError> {
    let Claim { mechanism, public_key, input, context, signature } = claim;
    check_no_context(context)?;
    let curve = curve(algorithm)?;
    let digest = curve.digest(algorithm, mechanism, input)?;
    // The prefix and length here, the point by the library.
    key_form::raw_public_key(algorithm, public_key)?;
    let key = ParsedPublicKey::new(curve.verification, public_key)
        .map_err(|_| CryptoError::PublicKeyInvalid { algorithm })?;
    Ok(key.verify_digest_sig(&digest, signature).is_ok())
}

struct Opened {
    algorithm: Algorithm,
    curve: Curve,
    pair: EcdsaKeyPair,
    /// The same key for agreements, made when first asked for.
    agreement: OnceLock<agreement::PrivateKey>,
}

impl Opened {
    fn new(algorithm: Algorithm, key: &Material) -> Result<Self, CryptoError> {
        let curve = curve(algorithm)?;
        let pair = EcdsaKeyPair::from_pkcs8(curve.signing, key.expose())
            .map_err(|_| CryptoError::ProviderFailed { algorithm })?;
        Ok(Self { algorithm, curve, pair, agreement: OnceLock::new() })
    }

    fn agreement_key(&self) -> Result<&agreement::PrivateKey, CryptoError> {
        if let Some(key) = self.agreement.get() {
            return Ok(key);
        }
        let algorithm = self.algorithm;
        let failed = CryptoError::ProviderFailed { algorithm };
        let curve = self
            .curve
            .agreement
            .ok_or(CryptoError::UsageRefused { algorithm, usage: Usage::Derive })?;
        let scalar: EcPrivateKeyBin<'_> =
            self.pair.private_key().as_be_bytes().map_err(|_| failed.clone())?;
        let key =
            agreement::PrivateKey::from_private_key(curve, scalar.as_ref()).map_err(|_| failed)?;
        Ok(self.agreement.get_or_init(|| key))
    }
}

impl PrivateKey for Opened {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn sign(
        &self,
        mechanism: Mechanism,
        input: SignInput<'_>,
        context: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_no_context(context)?;
        let signature = match input {
            SignInput::Message(message) if mechanism.hash() == Some(self.curve.own_hash) => {
                check_mechanism(self.algorithm, mechanism, Usage::Sign)?;
                self.pair.sign(&SystemRandom::new(), message)
            }
            _ => self.pair.sign_digest(&self.curve.digest(self.algorithm, mechanism, input)?),
        };
        let failed = |_| CryptoError::ProviderFailed { algorithm: self.algorithm };
        Ok(signature.map_err(failed)?.as_ref().to_vec())
    }

    fn agree(&self, peer: &[u8]) -> Result<Material, CryptoError> {
        let algorithm = self.algorithm;
        let key = self.agreement_key()?;
        check_public_key(algorithm, peer)?;
        let peer = agreement::UnparsedPublicKey::new(
            key.algorithm(),
            key_form::raw_public_key(algorithm, peer)?,
        );
        agreement::agree(key, peer, CryptoError::PublicKeyInvalid { algorithm }, Material::copied)
    }
}

/// What the library has for a curve.
#[derive(Clone, Copy)]
struct Curve {
    signing: &'static EcdsaSigningAlgorithm,
    verification: &'static EcdsaVerificationAlgorithm,
    own_hash: Hash,
    digest: &'static digest::Algorithm,
    agreement: Option<&'static agreement::Algorithm>,
}

impl Curve {
    /// What is signed, as a digest of the curve's own hash function.
    fn digest(
        &self,
        algorithm: Algorithm,
        mechanism: Mechanism,
        input: SignInput<'_>,
    ) -> Result<digest::Digest, CryptoError> {
        check_mechanism(algorithm, mechanism, Usage::Verify)?;
        let digest = checked_digest(mechanism, input, hash)?;
        let number = ecdsa::representative(algorithm, &digest)?;
        digest::Digest::import_less_safe(&number, self.digest)
            .map_err(|_| CryptoError::ProviderFailed { algorithm })
    }
}

fn check_mechanism(
    algorithm: Algorithm,
    mechanism: Mechanism,
    usage: Usage,
) -> Result<(), CryptoError> {
    if algorithm.mechanisms().contains(&mechanism) && mechanism.offers(usage) {
        Ok(())
    } else {
        Err(CryptoError::MechanismRefused { algorithm, mechanism })
    }
}

fn curve(algorithm: Algorithm) -> Result<Curve, CryptoError> {
    match algorithm {
        Algorithm::EcP256 => Ok(P256),
        Algorithm::EcP384 => Ok(P384),
        Algorithm::EcP521 => Ok(P521),
        Algorithm::EcSecp256k1 => Ok(SECP256K1),
        _ => Err(CryptoError::ProviderFailed { algorithm }),
    }
}

const P256: Curve = Curve {
    signing: &ECDSA_P256_SHA256_ASN1_SIGNING,
    verification: &ECDSA_P256_SHA256_ASN1,
    own_hash: Hash::Sha256,
    digest: &SHA256,
    agreement: Some(&ECDH_P256),
};
const P384: Curve = Curve {
    signing: &ECDSA_P384_SHA384_ASN1_SIGNING,
    verification: &ECDSA_P384_SHA384_ASN1,
    own_hash: Hash::Sha384,
    digest: &SHA384,
    agreement: Some(&ECDH_P384),
};
const P521: Curve = Curve {
    signing: &ECDSA_P521_SHA512_ASN1_SIGNING,
    verification: &ECDSA_P521_SHA512_ASN1,
    own_hash: Hash::Sha512,
    digest: &SHA512,
    agreement: Some(&ECDH_P521),
};
const SECP256K1: Curve = Curve {
    signing: &ECDSA_P256K1_SHA256_ASN1_SIGNING,
    verification: &ECDSA_P256K1_SHA256_ASN1,
    own_hash: Hash::Sha256,
    digest: &SHA256,
    agreement: None,
};
