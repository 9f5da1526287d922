//! RSA (RFC 8017, FIPS 186-5): forms and checks of keys, encodings, and the private operations that
//! AWS-LC does not offer.
//!
//! Key bytes are PKCS#8 DER with two primes. Public exponents are at least 65,537.
//!
//! `Blinded` is the pure-Rust key. The default provider takes it for PKCS#1 v1.5 decryption, where the
//! library answers a wrong padding with a made-up message that only depends on key and ciphertext
//! (draft-irtf-cfrg-rsa-guidance §7.2), and for raw RSA. Every private operation of it is blinded: the
//! crate carries RUSTSEC-2023-0071 (timing) without a fixed version.

use crypto_primes::{Flavor, is_prime};
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::{Hash, Mechanism};
use rsa::hazmat::{rsa_decrypt_and_check, rsa_encrypt};
use rsa::pkcs1::{RsaPrivateKey as Pkcs1PrivateKey, RsaPublicKeyRef, UintRef};
use rsa::pkcs8::der::{Decode, asn1::AnyRef};
use rsa::pkcs8::spki::SubjectPublicKeyInfoRef;
use rsa::pkcs8::{DecodePublicKey, EncodePrivateKey, EncodePublicKey, PrivateKeyInfoRef};
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{BoxedUint, Oaep, Pkcs1v15Encrypt, Pkcs1v15Sign, Pss, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::{Zeroize, Zeroizing};

use crate::CryptoError;
use crate::material::Material;
use crate::provider::NewKey;
use crate::random::LatchedRng;

/// Reads the digest out of a DER `DigestInfo` (RFC 8017 §9.2, note 1), which is what a client of
/// CKM_RSA_PKCS hands in. Anything but the one encoding of a hash function that we sign with gives
/// nothing.
pub fn digest_of_info(info: &[u8]) -> Option<(Hash, &[u8])> {
    [(Hash::Sha256, SHA256_INFO), (Hash::Sha384, SHA384_INFO), (Hash::Sha512, SHA512_INFO)]
        .into_iter()
        .find_map(|(hash, prefix)| {
            let digest = info.strip_prefix(&prefix)?;
            (digest.len() == hash.digest_bytes()).then_some((hash, digest))
        })
}

/// Checks that `spki` is a SubjectPublicKeyInfo with an odd modulus of exactly the algorithm's size and
/// an odd exponent from 65,537 to 2^33 (FIPS 186-5 §A.1.1 would allow more; nobody uses it).
///
/// # Errors
/// [`CryptoError::PublicKeyInvalid`] when it is not.
pub fn check_public_key(algorithm: Algorithm, spki: &[u8]) -> Result<(), CryptoError> {
    public_numbers(spki)
        .filter(|(modulus, exponent)| numbers_fit(algorithm, modulus, exponent))
        .map(|_| ())
        .ok_or(CryptoError::PublicKeyInvalid { algorithm })
}

/// Takes in a PKCS#8 document: two different primes of half the size each, whose product is the
/// modulus, and exponents that are each other's inverse (SP 800-56B §6.4.1). The CRT parts of the
/// document must fit, too.
pub(crate) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    let refused = CryptoError::MaterialRefused;
    let info = PrivateKeyInfoRef::from_der(material.expose()).map_err(|_| refused.clone())?;
    if info.algorithm.oid != rsa::pkcs1::ALGORITHM_OID
        || info.algorithm.parameters != Some(AnyRef::NULL)
        || info.public_key.is_some()
    {
        return Err(refused);
    }
    let parts = Pkcs1PrivateKey::<UintRef<'_>>::from_der(info.private_key.as_bytes())
        .map_err(|_| refused.clone())?;
    let modulus = parts.modulus.as_bytes();
    if parts.other_prime_infos.is_some()
        || !numbers_fit(algorithm, modulus, parts.public_exponent.as_bytes())
    {
        return Err(refused);
    }
    // The size is known to be that of the algorithm, so nothing large is computed with.
    let key = RsaPrivateKey::try_from(info).map_err(|_| refused.clone())?;
    if !primes_are_good(&key, algorithm.bits()) || !crt_parts_fit(&key, &parts) {
        return Err(refused);
    }
    new_key(algorithm, &key)
}

/// The form in which a key is kept.
pub(crate) fn new_key(algorithm: Algorithm, key: &RsaPrivateKey) -> Result<NewKey, CryptoError> {
    let failed = CryptoError::ProviderFailed { algorithm };
    let private = key.to_pkcs8_der().map_err(|_| failed.clone())?;
    let public = key.to_public_key().to_public_key_der().map_err(|_| failed)?;
    Ok(NewKey {
        material: Material::copied(private.as_bytes())?,
        public_key: public.as_bytes().to_vec(),
    })
}

/// A private key of the pure-Rust library. The library's own type is not shown, since it is one slip
/// away from an operation that is not blinded.
pub(crate) struct Blinded {
    algorithm: Algorithm,
    key: RsaPrivateKey,
}

impl Blinded {
    /// Reads a key in its one form.
    pub(crate) fn open(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, CryptoError> {
        PrivateKeyInfoRef::from_der(pkcs8)
            .ok()
            .and_then(|info| RsaPrivateKey::try_from(info).ok())
            .filter(|key| key.n().bits() == algorithm.bits())
            .map(|key| Self { algorithm, key })
            .ok_or(CryptoError::ProviderFailed { algorithm })
    }

    /// Makes a key, with the exponent 65,537.
    pub(crate) fn generate(algorithm: Algorithm) -> Result<NewKey, CryptoError> {
        let mut rng = LatchedRng::default();
        let key = RsaPrivateKey::new(&mut rng, algorithm.bits() as usize)
            .map_err(|_| CryptoError::ProviderFailed { algorithm })?;
        rng.check()?;
        new_key(algorithm, &key)
    }

    /// Signs a digest of the mechanism's hash function.
    pub(crate) fn sign(&self, mechanism: Mechanism, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut rng = LatchedRng::default();
        let rng_ref = &mut rng;
        let key = &self.key;
        let signature = match mechanism {
            Mechanism::RsaPkcs1Sha256 => {
                key.sign_with_rng(rng_ref, Pkcs1v15Sign::new::<Sha256>(), digest)
            }
            Mechanism::RsaPkcs1Sha384 => {
                key.sign_with_rng(rng_ref, Pkcs1v15Sign::new::<Sha384>(), digest)
            }
            Mechanism::RsaPkcs1Sha512 => {
                key.sign_with_rng(rng_ref, Pkcs1v15Sign::new::<Sha512>(), digest)
            }
            Mechanism::RsaPssSha256 => {
                key.sign_with_rng(rng_ref, Pss::<Sha256>::new_blinded_with_salt(32), digest)
            }
            Mechanism::RsaPssSha384 => {
                key.sign_with_rng(rng_ref, Pss::<Sha384>::new_blinded_with_salt(48), digest)
            }
            Mechanism::RsaPssSha512 => {
                key.sign_with_rng(rng_ref, Pss::<Sha512>::new_blinded_with_salt(64), digest)
            }
            _ => return Err(usage_refused(self.algorithm, Usage::Sign)),
        };
        rng.check()?;
        signature.map_err(|_| CryptoError::ProviderFailed { algorithm: self.algorithm })
    }

    /// Decrypts. Every fault of a ciphertext is the same error; with PKCS#1 v1.5 a wrong padding is no
    /// error at all.
    pub(crate) fn decrypt(
        &self,
        mechanism: Mechanism,
        label: &[u8],
        ciphertext: &[u8],
    ) -> Result<Material, CryptoError> {
        let mut rng = LatchedRng::default();
        let rng_ref = &mut rng;
        let key = &self.key;
        let plaintext = match mechanism {
            Mechanism::RsaOaepSha256 => {
                key.decrypt_blinded(rng_ref, Oaep::<Sha256>::new_with_label(label), ciphertext)
            }
            Mechanism::RsaOaepSha384 => {
                key.decrypt_blinded(rng_ref, Oaep::<Sha384>::new_with_label(label), ciphertext)
            }
            Mechanism::RsaOaepSha512 => {
                key.decrypt_blinded(rng_ref, Oaep::<Sha512>::new_with_label(label), ciphertext)
            }
            Mechanism::RsaPkcs1 => key.decrypt_blinded(rng_ref, Pkcs1v15Encrypt, ciphertext),
            Mechanism::RsaRaw => return self.decrypt_raw(ciphertext),
            _ => return Err(usage_refused(self.algorithm, Usage::Decrypt)),
        };
        rng.check()?;
        let mut plaintext = plaintext.map_err(|_| CryptoError::CiphertextRefused)?;
        Material::import(&mut plaintext)
    }

    /// RSADP (RFC 8017 §5.1.2), the result as long as the modulus.
    fn decrypt_raw(&self, ciphertext: &[u8]) -> Result<Material, CryptoError> {
        let number = number(&self.key, ciphertext).ok_or(CryptoError::CiphertextRefused)?;
        let mut rng = LatchedRng::default();
        let plaintext = rsa_decrypt_and_check(&self.key, Some(&mut rng), &number);
        rng.check()?;
        let mut plaintext =
            plaintext.map_err(|_| CryptoError::ProviderFailed { algorithm: self.algorithm })?;
        let material = Material::import(&mut plaintext.to_be_bytes());
        plaintext.zeroize();
        material
    }
}

/// Verifies a digest of the mechanism's hash function with the pure-Rust library.
pub(crate) fn verify(
    algorithm: Algorithm,
    mechanism: Mechanism,
    public_key: &[u8],
    digest: &[u8],
    signature: &[u8],
) -> Result<bool, CryptoError> {
    let key = open_public(algorithm, public_key)?;
    let verdict = match mechanism {
        Mechanism::RsaPkcs1Sha1 => key.verify(Pkcs1v15Sign::new::<Sha1>(), digest, signature),
        Mechanism::RsaPkcs1Sha256 => key.verify(Pkcs1v15Sign::new::<Sha256>(), digest, signature),
        Mechanism::RsaPkcs1Sha384 => key.verify(Pkcs1v15Sign::new::<Sha384>(), digest, signature),
        Mechanism::RsaPkcs1Sha512 => key.verify(Pkcs1v15Sign::new::<Sha512>(), digest, signature),
        Mechanism::RsaPssSha256 => key.verify(Pss::<Sha256>::new_with_salt(32), digest, signature),
        Mechanism::RsaPssSha384 => key.verify(Pss::<Sha384>::new_with_salt(48), digest, signature),
        Mechanism::RsaPssSha512 => key.verify(Pss::<Sha512>::new_with_salt(64), digest, signature),
        _ => return Err(usage_refused(algorithm, Usage::Verify)),
    };
    Ok(verdict.is_ok())
}

/// Encrypts with the pure-Rust library.
pub(crate) fn encrypt(
    algorithm: Algorithm,
    mechanism: Mechanism,
    public_key: &[u8],
    label: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let key = open_public(algorithm, public_key)?;
    check_plaintext(algorithm, mechanism, plaintext)?;
    let mut rng = LatchedRng::default();
    let rng_ref = &mut rng;
    let ciphertext = match mechanism {
        Mechanism::RsaOaepSha256 => {
            key.encrypt(rng_ref, Oaep::<Sha256>::new_with_label(label), plaintext)
        }
        Mechanism::RsaOaepSha384 => {
            key.encrypt(rng_ref, Oaep::<Sha384>::new_with_label(label), plaintext)
        }
        Mechanism::RsaOaepSha512 => {
            key.encrypt(rng_ref, Oaep::<Sha512>::new_with_label(label), plaintext)
        }
        Mechanism::RsaPkcs1 => key.encrypt(rng_ref, Pkcs1v15Encrypt, plaintext),
        Mechanism::RsaRaw => return encrypt_raw(algorithm, &key, plaintext),
        _ => return Err(usage_refused(algorithm, Usage::Encrypt)),
    };
    rng.check()?;
    ciphertext.map_err(|_| CryptoError::ProviderFailed { algorithm })
}

/// RSAEP (RFC 8017 §5.1.1) of a number that is as long as the modulus and below it.
pub(crate) fn encrypt_raw(
    algorithm: Algorithm,
    key: &RsaPublicKey,
    plaintext: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let number = Zeroizing::new(number(key, plaintext).ok_or(RAW_NUMBER)?);
    let ciphertext =
        rsa_encrypt(key, &number).map_err(|_| CryptoError::ProviderFailed { algorithm })?;
    Ok(ciphertext.to_be_bytes().to_vec())
}

/// Reads a public key that has been checked, or is checked here.
pub(crate) fn open_public(
    algorithm: Algorithm,
    public_key: &[u8],
) -> Result<RsaPublicKey, CryptoError> {
    check_public_key(algorithm, public_key)?;
    RsaPublicKey::from_public_key_der(public_key)
        .map_err(|_| CryptoError::PublicKeyInvalid { algorithm })
}

/// Refuses a plaintext that does not fit below the padding.
pub(crate) fn check_plaintext(
    algorithm: Algorithm,
    mechanism: Mechanism,
    plaintext: &[u8],
) -> Result<(), CryptoError> {
    let modulus_bytes = modulus_bytes(algorithm);
    let fits = match mechanism.hash() {
        // RFC 8017 §7.1.1.
        Some(hash) => plaintext.len() + 2 * hash.digest_bytes() + 2 <= modulus_bytes,
        // §7.2.1.
        None if mechanism == Mechanism::RsaPkcs1 => plaintext.len() + 11 <= modulus_bytes,
        None => plaintext.len() == modulus_bytes,
    };
    match (fits, mechanism) {
        (true, _) => Ok(()),
        (false, Mechanism::RsaRaw) => Err(RAW_NUMBER),
        (false, _) => Err(PLAINTEXT_TOO_LONG),
    }
}

/// Length of the modulus, and so of every signature and ciphertext.
pub const fn modulus_bytes(algorithm: Algorithm) -> usize {
    (algorithm.bits() / 8) as usize
}

/// The refusal of a mechanism that does not do `usage`.
pub(crate) const fn usage_refused(algorithm: Algorithm, usage: Usage) -> CryptoError {
    CryptoError::UsageRefused { algorithm, usage }
}

/// Modulus and exponent of a SubjectPublicKeyInfo in strict DER.
fn public_numbers(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let info = SubjectPublicKeyInfoRef::from_der(spki).ok()?;
    if info.algorithm.oid != rsa::pkcs1::ALGORITHM_OID
        || info.algorithm.parameters != Some(AnyRef::NULL)
    {
        return None;
    }
    let key = RsaPublicKeyRef::from_der(info.subject_public_key.raw_bytes()).ok()?;
    (info.subject_public_key.unused_bits() == 0)
        .then(|| (key.modulus.as_bytes(), key.public_exponent.as_bytes()))
}

fn numbers_fit(algorithm: Algorithm, modulus: &[u8], exponent: &[u8]) -> bool {
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    let exponent_bits =
        exponent.len() * 8 - exponent.first().map_or(0, |b| b.leading_zeros() as usize);
    modulus.len() == modulus_bytes(algorithm)
        && modulus[0] & 0x80 != 0
        && odd(modulus)
        && (17..=33).contains(&exponent_bits)
        && odd(exponent)
}

/// Two different primes, each of half the modulus' size (FIPS 186-5 §A.1.3).
fn primes_are_good(key: &RsaPrivateKey, bits: u32) -> bool {
    let [p, q] = key.primes() else { return false };
    p != q
        && p.bits() == bits / 2
        && q.bits() == bits / 2
        && is_prime(Flavor::Any, p.as_ref())
        && is_prime(Flavor::Any, q.as_ref())
}

/// Whether the CRT parts of a document are those of the key. The library makes its own.
fn crt_parts_fit(key: &RsaPrivateKey, parts: &Pkcs1PrivateKey<UintRef<'_>>) -> bool {
    let Ok(own) = key.to_pkcs8_der() else { return false };
    let Ok(info) = PrivateKeyInfoRef::from_der(own.as_bytes()) else { return false };
    let Ok(own) = Pkcs1PrivateKey::<UintRef<'_>>::from_der(info.private_key.as_bytes()) else {
        return false;
    };
    own.exponent1 == parts.exponent1
        && own.exponent2 == parts.exponent2
        && own.coefficient == parts.coefficient
}

/// A string as long as the modulus as a number below it.
fn number(key: &impl PublicKeyParts, bytes: &[u8]) -> Option<BoxedUint> {
    if bytes.len() != key.size() {
        return None;
    }
    let number = BoxedUint::from_be_slice(bytes, key.n_bits_precision()).ok()?;
    (number < *key.n().as_ref()).then_some(number)
}

const PLAINTEXT_TOO_LONG: CryptoError = CryptoError::InputRefused {
    problem: "the plaintext is longer than the modulus leaves room for below the padding",
};
const RAW_NUMBER: CryptoError = CryptoError::InputRefused {
    problem: "raw RSA takes a number that is as long as the modulus and below it",
};

/// RFC 8017 §9.2, note 1.
const SHA256_INFO: [u8; 19] = digest_info(1, 32);
const SHA384_INFO: [u8; 19] = digest_info(2, 48);
const SHA512_INFO: [u8; 19] = digest_info(3, 64);

/// The part of a `DigestInfo` before the digest, for hashAlgs `number` (2.16.840.1.101.3.4.2).
const fn digest_info(number: u8, digest_bytes: u8) -> [u8; 19] {
    [
        0x30,
        17 + digest_bytes,
        0x30,
        0x0d,
        0x06,
        0x09,
        0x60,
        0x86,
        0x48,
        0x01,
        0x65,
        0x03,
        0x04,
        0x02,
        number,
        0x05,
        0x00,
        0x04,
        digest_bytes,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::known;
    use super::*;

    const PKCS8: &str = include_str!("../known_answer/rsa3072.pkcs8.hex");
    const SPKI: &str = include_str!("../known_answer/rsa3072.spki.hex");

    #[test]
    fn only_the_one_encoding_of_a_digest_info_is_read() {
        for (hash, prefix) in
            [(Hash::Sha256, SHA256_INFO), (Hash::Sha384, SHA384_INFO), (Hash::Sha512, SHA512_INFO)]
        {
            let digest = vec![7; hash.digest_bytes()];
            let info = [&prefix[..], &digest].concat();
            assert_eq!(digest_of_info(&info), Some((hash, &digest[..])));
            assert_eq!(digest_of_info(&info[..info.len() - 1]), None);
            assert_eq!(digest_of_info(&[&info[..], &[0]].concat()), None);
        }
        let sha512 = known("3051300d060960864801650304020305000440");
        let without_null = known("302f300b0609608648016503040201 0420");
        for prefix in [sha512, without_null, vec![]] {
            assert_eq!(digest_of_info(&[&prefix[..], &[7; 32]].concat()), None);
        }
    }

    #[test]
    fn a_damaged_or_foreign_public_key_is_refused() {
        let algorithm = Algorithm::Rsa3072;
        let good = known(SPKI);
        assert_eq!(check_public_key(algorithm, &good), Ok(()));
        let end = good.len();
        let mut even_exponent = good.clone();
        even_exponent[end - 1] = 0;
        let mut small_exponent = good.clone();
        small_exponent[end - 3] = 0;
        let mut even_modulus = good.clone();
        even_modulus[end - 6] &= 0xfe;
        for bad in [&even_exponent[..], &small_exponent, &even_modulus, &good[..end - 1], &[]] {
            let refused = check_public_key(algorithm, bad);
            assert_eq!(refused, Err(CryptoError::PublicKeyInvalid { algorithm }));
        }
        assert!(check_public_key(Algorithm::Rsa2048, &good).is_err());
    }

    #[test]
    fn only_a_key_whose_parts_all_fit_together_is_imported() {
        let algorithm = Algorithm::Rsa3072;
        let good = known(PKCS8);
        let imported = import(algorithm, &Material::copied(&good).unwrap()).unwrap();
        assert_eq!(imported.material.expose(), good);
        assert_eq!(imported.public_key, known(SPKI));
        let refused = |algorithm, bytes: &[u8]| {
            let found = import(algorithm, &Material::copied(bytes).unwrap());
            assert_eq!(found.err(), Some(CryptoError::MaterialRefused));
        };
        refused(Algorithm::Rsa2048, &good);
        refused(algorithm, &good[..good.len() - 1]);
        // A bit of each of the eight numbers and of the headers between them, in strides.
        for at in (0..good.len()).step_by(61) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            refused(algorithm, &bad);
        }
    }

    #[test]
    fn a_product_that_is_not_of_two_primes_is_refused() {
        let key = Blinded::open(Algorithm::Rsa3072, &known(PKCS8)).unwrap().key;
        assert!(primes_are_good(&key, 3072));
        assert!(!primes_are_good(&key, 2048));
        // The number after p, so all the other relations can be had and the library takes the key.
        let [p, q] = key.primes() else { unreachable!("the known key has two primes") };
        let composite = p.as_ref().wrapping_add(BoxedUint::from(2_u8));
        let exponent = BoxedUint::from(65_537_u32);
        let key = RsaPrivateKey::from_p_q(composite, q.as_ref().clone(), exponent).unwrap();
        let document = key.to_pkcs8_der().unwrap();
        let found = import(Algorithm::Rsa3072, &Material::copied(document.as_bytes()).unwrap());
        assert_eq!(found.err(), Some(CryptoError::MaterialRefused));
    }
}
