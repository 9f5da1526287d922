//! RSA, by AWS-LC. What it does not offer, PKCS#1 v1.5 decryption that gives nothing away and raw RSA,
//! is done by the pure-Rust library's blinded key.

use std::sync::OnceLock;

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeyPair as RsaKeyPair, KeySize, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384,
    OAEP_SHA512_MGF1SHA512, OaepAlgorithm, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    Pkcs1PublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaParameters,
};
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::Mechanism;
use zeroize::Zeroizing;

use super::mac::hash;
use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::key_form;
use crate::mechanism::rsa::{self, Blinded, usage_refused};
use crate::provider::{
    CipherParameters, Claim, NewKey, PrivateKey, SignInput, check_no_context, checked_digest,
};

pub(super) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
    let failed = |_| CryptoError::ProviderFailed { algorithm };
    let size = match algorithm {
        Algorithm::Rsa2048 => KeySize::Rsa2048,
        Algorithm::Rsa3072 => KeySize::Rsa3072,
        Algorithm::Rsa4096 => KeySize::Rsa4096,
        _ => return Err(CryptoError::ProviderFailed { algorithm }),
    };
    let pair = RsaKeyPair::generate(size).map_err(failed)?;
    let private: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
    Ok(NewKey {
        material: Material::copied(private.as_ref())?,
        public_key: public.as_ref().to_vec(),
    })
}

pub(super) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    let key = key_form::import(algorithm, material)?;
    Opened::new(algorithm, &key.material).map_err(|_| CryptoError::MaterialRefused)?;
    Ok(key)
}

pub(super) fn check_public_key(algorithm: Algorithm, public_key: &[u8]) -> Result<(), CryptoError> {
    rsa::check_public_key(algorithm, public_key)
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
    let scheme = verification(mechanism).ok_or_else(|| usage_refused(algorithm, Usage::Verify))?;
    check_public_key(algorithm, public_key)?;
    let digest = imported(mechanism, input)?;
    let key = ParsedPublicKey::new(scheme, public_key)
        .map_err(|_| CryptoError::PublicKeyInvalid { algorithm })?;
    Ok(key.verify_digest_sig(&digest, signature).is_ok())
}

pub(super) fn public_encrypt(
    algorithm: Algorithm,
    mechanism: Mechanism,
    public_key: &[u8],
    parameters: CipherParameters<'_>,
    plaintext: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let failed = |_| CryptoError::ProviderFailed { algorithm };
    if !mechanism.offers(Usage::Encrypt) {
        return Err(usage_refused(algorithm, Usage::Encrypt));
    }
    check_public_key(algorithm, public_key)?;
    rsa::check_plaintext(algorithm, mechanism, plaintext)?;
    if mechanism == Mechanism::RsaRaw {
        return rsa::encrypt_raw(algorithm, &rsa::open_public(algorithm, public_key)?, plaintext);
    }
    let key = PublicEncryptingKey::from_der(public_key)
        .map_err(|_| CryptoError::PublicKeyInvalid { algorithm })?;
    let mut ciphertext = vec![0; key.key_size_bytes()];
    match oaep(mechanism) {
        Some(scheme) => {
            let key = OaepPublicEncryptingKey::new(key).map_err(failed)?;
            let label = Some(parameters.aad);
            key.encrypt(scheme, plaintext, &mut ciphertext, label).map_err(failed)?;
        }
        None if mechanism == Mechanism::RsaPkcs1 => {
            let key = Pkcs1PublicEncryptingKey::new(key).map_err(failed)?;
            key.encrypt(plaintext, &mut ciphertext).map_err(failed)?;
        }
        None => return Err(usage_refused(algorithm, Usage::Encrypt)),
    }
    Ok(ciphertext)
}

struct Opened {
    algorithm: Algorithm,
    pair: RsaKeyPair,
    /// The same key for OAEP, made when first asked for.
    oaep: OnceLock<OaepPrivateDecryptingKey>,
    /// The same key for what AWS-LC does not offer.
    blinded: OnceLock<Blinded>,
}

impl Opened {
    fn new(algorithm: Algorithm, key: &Material) -> Result<Self, CryptoError> {
        let pair = RsaKeyPair::from_pkcs8(key.expose())
            .ok()
            .filter(|pair| pair.public_modulus_len() == rsa::modulus_bytes(algorithm))
            .ok_or(CryptoError::ProviderFailed { algorithm })?;
        Ok(Self { algorithm, pair, oaep: OnceLock::new(), blinded: OnceLock::new() })
    }

    fn oaep_key(&self) -> Result<&OaepPrivateDecryptingKey, CryptoError> {
        if let Some(key) = self.oaep.get() {
            return Ok(key);
        }
        let key = PrivateDecryptingKey::from_pkcs8(self.pkcs8()?.as_ref())
            .ok()
            .and_then(|key| OaepPrivateDecryptingKey::new(key).ok())
            .ok_or(CryptoError::ProviderFailed { algorithm: self.algorithm })?;
        Ok(self.oaep.get_or_init(|| key))
    }

    fn blinded_key(&self) -> Result<&Blinded, CryptoError> {
        if let Some(key) = self.blinded.get() {
            return Ok(key);
        }
        let key = Blinded::open(self.algorithm, self.pkcs8()?.as_ref())?;
        Ok(self.blinded.get_or_init(|| key))
    }

    /// The library wipes this copy when it is dropped.
    fn pkcs8(&self) -> Result<Pkcs8V1Der<'static>, CryptoError> {
        self.pair.as_der().map_err(|_| CryptoError::ProviderFailed { algorithm: self.algorithm })
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
        let encoding =
            encoding(mechanism).ok_or_else(|| usage_refused(self.algorithm, Usage::Sign))?;
        let mut signature = vec![0; self.pair.public_modulus_len()];
        match input {
            SignInput::Digest(_) => {
                self.pair.sign_digest(encoding, &imported(mechanism, input)?, &mut signature)
            }
            SignInput::Message(message) => {
                self.pair.sign(encoding, &SystemRandom::new(), message, &mut signature)
            }
        }
        .map_err(|_| CryptoError::ProviderFailed { algorithm: self.algorithm })?;
        Ok(signature)
    }

    fn decrypt(
        &self,
        mechanism: Mechanism,
        parameters: CipherParameters<'_>,
        ciphertext: &[u8],
    ) -> Result<Material, CryptoError> {
        if !mechanism.offers(Usage::Decrypt) {
            return Err(usage_refused(self.algorithm, Usage::Decrypt));
        }
        // The length is public, and each library would say so in its own way.
        if ciphertext.len() != rsa::modulus_bytes(self.algorithm) {
            return Err(CryptoError::CiphertextRefused);
        }
        let Some(scheme) = oaep(mechanism) else {
            return self.blinded_key()?.decrypt(mechanism, parameters.aad, ciphertext);
        };
        let mut room = Zeroizing::new(vec![0; ciphertext.len()]);
        let plaintext = self
            .oaep_key()?
            .decrypt(scheme, ciphertext, &mut room, Some(parameters.aad))
            .map_err(|_| CryptoError::CiphertextRefused)?;
        Material::copied(plaintext)
    }
}

fn imported(mechanism: Mechanism, input: SignInput<'_>) -> Result<digest::Digest, CryptoError> {
    let digest = checked_digest(mechanism, input, hash)?;
    let algorithm = match digest.len() {
        20 => &SHA1_FOR_LEGACY_USE_ONLY,
        32 => &SHA256,
        48 => &SHA384,
        _ => &SHA512,
    };
    digest::Digest::import_less_safe(&digest, algorithm).map_err(|_| crate::provider::DIGEST_LENGTH)
}

fn encoding(mechanism: Mechanism) -> Option<&'static dyn RsaEncoding> {
    match mechanism {
        Mechanism::RsaPkcs1Sha256 => Some(&RSA_PKCS1_SHA256),
        Mechanism::RsaPkcs1Sha384 => Some(&RSA_PKCS1_SHA384),
        Mechanism::RsaPkcs1Sha512 => Some(&RSA_PKCS1_SHA512),
        Mechanism::RsaPssSha256 => Some(&RSA_PSS_SHA256),
        Mechanism::RsaPssSha384 => Some(&RSA_PSS_SHA384),
        Mechanism::RsaPssSha512 => Some(&RSA_PSS_SHA512),
        _ => None,
    }
}

fn verification(mechanism: Mechanism) -> Option<&'static RsaParameters> {
    match mechanism {
        Mechanism::RsaPkcs1Sha1 => Some(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY),
        Mechanism::RsaPkcs1Sha256 => Some(&RSA_PKCS1_2048_8192_SHA256),
        Mechanism::RsaPkcs1Sha384 => Some(&RSA_PKCS1_2048_8192_SHA384),
        Mechanism::RsaPkcs1Sha512 => Some(&RSA_PKCS1_2048_8192_SHA512),
        Mechanism::RsaPssSha256 => Some(&RSA_PSS_2048_8192_SHA256),
        Mechanism::RsaPssSha384 => Some(&RSA_PSS_2048_8192_SHA384),
        Mechanism::RsaPssSha512 => Some(&RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

fn oaep(mechanism: Mechanism) -> Option<&'static OaepAlgorithm> {
    match mechanism {
        Mechanism::RsaOaepSha256 => Some(&OAEP_SHA256_MGF1SHA256),
        Mechanism::RsaOaepSha384 => Some(&OAEP_SHA384_MGF1SHA384),
        Mechanism::RsaOaepSha512 => Some(&OAEP_SHA512_MGF1SHA512),
        _ => None,
    }
}
