//! The one form of each private and public key, and the way in for keys from outside.
//!
//! A SubjectPublicKeyInfo has exactly one DER encoding for a named algorithm and an uncompressed
//! point, so reading one is comparing a prefix: no parser stands between a peer's key and the check of
//! its value. Private keys come from many tools, so those are parsed (RFC 5958, both versions) and
//! written anew. Both providers call in here; RSA has its own file, [`super::rsa`].

use kms_core::algorithm::Algorithm;
use p256::pkcs8::der::Decode;
use p256::pkcs8::{ObjectIdentifier, PrivateKeyInfoRef};
use zeroize::Zeroizing;

use super::{ecdsa, eddsa, ml_dsa, ml_kem, rsa, slh_dsa, x_wing};
use crate::CryptoError;
use crate::material::Material;
use crate::provider::NewKey;

/// Checks a private key from outside, brings it into its one form and computes its public half.
///
/// # Errors
/// [`CryptoError::MaterialRefused`] for all but a whole, valid key of `algorithm`.
pub(crate) fn import(algorithm: Algorithm, material: &Material) -> Result<NewKey, CryptoError> {
    match algorithm {
        Algorithm::EcP256 | Algorithm::EcP384 | Algorithm::EcP521 | Algorithm::EcSecp256k1 => {
            ecdsa::import(algorithm, material)
        }
        Algorithm::Ed25519 | Algorithm::X25519 => eddsa::import(algorithm, material),
        Algorithm::MlDsa44 | Algorithm::MlDsa65 | Algorithm::MlDsa87 => {
            ml_dsa::import(algorithm, material)
        }
        Algorithm::MlKem768 | Algorithm::MlKem1024 => ml_kem::import(algorithm, material),
        Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
            rsa::import(algorithm, material)
        }
        Algorithm::SlhDsaSha2_128s => slh_dsa::import(material),
        Algorithm::XWing => x_wing::import(material),
        _ => Err(CryptoError::MaterialRefused),
    }
}

/// Checks a public key from outside.
///
/// # Errors
/// [`CryptoError::PublicKeyInvalid`] when `public_key` is not a valid one of `algorithm`.
pub fn check_public_key(algorithm: Algorithm, public_key: &[u8]) -> Result<(), CryptoError> {
    match algorithm {
        Algorithm::EcP256 | Algorithm::EcP384 | Algorithm::EcP521 | Algorithm::EcSecp256k1 => {
            ecdsa::check_public_key(algorithm, public_key)
        }
        Algorithm::Ed25519 | Algorithm::X25519 => eddsa::check_public_key(algorithm, public_key),
        Algorithm::MlKem768 | Algorithm::MlKem1024 => {
            ml_kem::check_public_key(algorithm, public_key)
        }
        Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
            rsa::check_public_key(algorithm, public_key)
        }
        Algorithm::XWing => x_wing::check_public_key(public_key),
        // Every string of the right length is a public key of these (FIPS 204 §7.2, FIPS 205 §9.1).
        Algorithm::MlDsa44
        | Algorithm::MlDsa65
        | Algorithm::MlDsa87
        | Algorithm::SlhDsaSha2_128s => raw_public_key(algorithm, public_key).map(|_| ()),
        _ => Err(CryptoError::PublicKeyInvalid { algorithm }),
    }
}

/// Wraps the raw bytes of a public key (a point, or the encoding of its standard) in a
/// SubjectPublicKeyInfo.
///
/// # Errors
/// [`CryptoError::PublicKeyInvalid`] when the length is not the algorithm's. The value is not checked.
pub fn public_key_from_raw(algorithm: Algorithm, raw: &[u8]) -> Result<Vec<u8>, CryptoError> {
    if algorithm == Algorithm::XWing && raw.len() == x_wing::PUBLIC_KEY_BYTES {
        return Ok(raw.to_vec());
    }
    let form = form(algorithm)
        .filter(|form| form.public_key_bytes == raw.len())
        .ok_or(CryptoError::PublicKeyInvalid { algorithm })?;
    let mut spki = form.spki_prefix();
    spki.extend_from_slice(raw);
    Ok(spki)
}

/// The raw bytes inside a public key: a point (`04 || x || y`), or the encoding of the algorithm's
/// standard. Not for RSA.
///
/// # Errors
/// [`CryptoError::PublicKeyInvalid`] when it is not the one encoding. The value is not checked.
pub fn raw_public_key(algorithm: Algorithm, public_key: &[u8]) -> Result<&[u8], CryptoError> {
    if algorithm == Algorithm::XWing && public_key.len() == x_wing::PUBLIC_KEY_BYTES {
        return Ok(public_key);
    }
    form(algorithm)
        .and_then(|form| {
            let raw = public_key.strip_prefix(form.spki_prefix().as_slice())?;
            (raw.len() == form.public_key_bytes).then_some(raw)
        })
        .ok_or(CryptoError::PublicKeyInvalid { algorithm })
}

/// Writes a private key of an algorithm without parameters: PKCS#8, version 1, around `inner`.
pub(crate) fn pkcs8(algorithm: Algorithm, inner: &[&[u8]]) -> Result<Material, CryptoError> {
    let form = form(algorithm).ok_or(CryptoError::MaterialRefused)?;
    let inner_bytes = inner.iter().map(|part| part.len()).sum();
    let body_bytes = VERSION_1.len()
        + form.identifier.len()
        + header(OCTET_STRING, inner_bytes).len()
        + inner_bytes;
    let outer = header(SEQUENCE, body_bytes);
    let octets = header(OCTET_STRING, inner_bytes);
    let mut parts: Vec<&[u8]> = vec![&outer, VERSION_1, form.identifier, &octets];
    parts.extend(inner);
    let length = parts.iter().map(|part| part.len()).sum();
    Material::made_in_place(length, |room| {
        let mut rest = room;
        for part in parts {
            let (here, after) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = after;
        }
        Ok(length)
    })
}

/// What stands inside a PKCS#8 private key of an algorithm without parameters, and the public key
/// beside it, if there is one. `None` for anything else.
pub(crate) fn inside_pkcs8(
    algorithm: Algorithm,
    document: &[u8],
) -> Option<(&[u8], Option<&[u8]>)> {
    let info = PrivateKeyInfoRef::from_der(document).ok()?;
    let expected = form(algorithm)?.identifier;
    // SEQUENCE, OBJECT IDENTIFIER: what is behind these four bytes is the identifier itself.
    let known = ObjectIdentifier::from_bytes(expected.get(4..)?).ok()?;
    if info.algorithm.oid != known || info.algorithm.parameters.is_some() {
        return None;
    }
    let public_key = match &info.public_key {
        Some(bits) => Some(bits.as_bytes()?),
        None => None,
    };
    Some((info.private_key.as_bytes(), public_key))
}

/// A private key that a post-quantum standard writes as a seed, as its expansion, or as both (RFC
/// 9881 §6, RFC 9935 §6).
pub(crate) enum SeedOrExpanded<'a> {
    Both { seed: &'a [u8], expanded: &'a [u8] },
    Expanded(&'a [u8]),
    Seed(&'a [u8]),
}

impl<'a> SeedOrExpanded<'a> {
    /// Reads the choice inside the PKCS#8; the lengths decide, so that there is one reading at most.
    pub(crate) fn read(inner: &'a [u8], seed_bytes: usize, expanded_bytes: usize) -> Option<Self> {
        let whole = |tag: u8, bytes: &'a [u8], length: usize| {
            bytes.strip_prefix(header(tag, length).as_slice()).filter(|rest| rest.len() == length)
        };
        if let Some(seed) = whole(SEED_TAG, inner, seed_bytes) {
            return Some(Self::Seed(seed));
        }
        if let Some(expanded) = whole(OCTET_STRING, inner, expanded_bytes) {
            return Some(Self::Expanded(expanded));
        }
        let seed_field = header(OCTET_STRING, seed_bytes).len() + seed_bytes;
        let expanded_field = header(OCTET_STRING, expanded_bytes).len() + expanded_bytes;
        let both = whole(SEQUENCE, inner, seed_field + expanded_field)?;
        let (seed, expanded) = both.split_at_checked(seed_field)?;
        Some(Self::Both {
            seed: whole(OCTET_STRING, seed, seed_bytes)?,
            expanded: whole(OCTET_STRING, expanded, expanded_bytes)?,
        })
    }
}

/// Writes the seed form.
pub(crate) fn pkcs8_seed(algorithm: Algorithm, seed: &[u8]) -> Result<Material, CryptoError> {
    pkcs8(algorithm, &[&header(SEED_TAG, seed.len()), seed])
}

/// Writes the expanded form, for keys whose seed nobody knows.
pub(crate) fn pkcs8_expanded(algorithm: Algorithm, key: &[u8]) -> Result<Material, CryptoError> {
    pkcs8(algorithm, &[&header(OCTET_STRING, key.len()), key])
}

/// `N` secret bytes on the way into a library, wiped behind it.
pub(crate) fn secret_array<const N: usize>(
    bytes: &[u8],
) -> Result<Zeroizing<[u8; N]>, CryptoError> {
    let mut array = Zeroizing::new([0; N]);
    if bytes.len() != N {
        return Err(CryptoError::MaterialRefused);
    }
    array.copy_from_slice(bytes);
    Ok(array)
}

/// How an algorithm's keys are written.
struct Form {
    /// AlgorithmIdentifier in DER.
    identifier: &'static [u8],
    public_key_bytes: usize,
}

impl Form {
    /// All of a SubjectPublicKeyInfo that stands before the key itself.
    fn spki_prefix(&self) -> Vec<u8> {
        // One byte says that no bits are unused.
        let mut bits = header(BIT_STRING, self.public_key_bytes + 1);
        bits.push(0);
        let length = self.identifier.len() + bits.len() + self.public_key_bytes;
        let mut prefix = header(SEQUENCE, length);
        prefix.extend_from_slice(self.identifier);
        prefix.extend_from_slice(&bits);
        prefix
    }
}

const fn form(algorithm: Algorithm) -> Option<Form> {
    let (identifier, public_key_bytes): (&[u8], usize) = match algorithm {
        Algorithm::EcP256 => (P256, 65),
        Algorithm::EcP384 => (P384, 97),
        Algorithm::EcP521 => (P521, 133),
        Algorithm::EcSecp256k1 => (SECP256K1, 65),
        Algorithm::Ed25519 => (ED25519, 32),
        Algorithm::MlDsa44 => (&ML_DSA_44, 1312),
        Algorithm::MlDsa65 => (&ML_DSA_65, 1952),
        Algorithm::MlDsa87 => (&ML_DSA_87, 2592),
        Algorithm::MlKem768 => (&ML_KEM_768, 1184),
        Algorithm::MlKem1024 => (&ML_KEM_1024, 1568),
        Algorithm::SlhDsaSha2_128s => (&SLH_DSA_SHA2_128S, 32),
        Algorithm::X25519 => (X25519, 32),
        _ => return None,
    };
    Some(Form { identifier, public_key_bytes })
}

/// Tag and length in DER (X.690 §8.1), for lengths up to 65,535.
fn header(tag: u8, length: usize) -> Vec<u8> {
    match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    }
}

const VERSION_1: &[u8] = &[0x02, 0x01, 0x00];
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// `[0] IMPLICIT OCTET STRING`.
const SEED_TAG: u8 = 0x80;

/// id-ecPublicKey with the named curve (RFC 5480 §2.1.1).
const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
const P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];
const P521: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x23,
];
const SECP256K1: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x0a,
];
/// 1.3.101.112 and 1.3.101.110 (RFC 8410 §3).
const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
const X25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e];
/// sigAlgs 17 to 19 (RFC 9881 §2) and 20 (RFC 9909 §3), kems 2 and 3 (RFC 9935 §3).
const ML_DSA_44: [u8; 13] = nist(3, 17);
const ML_DSA_65: [u8; 13] = nist(3, 18);
const ML_DSA_87: [u8; 13] = nist(3, 19);
const SLH_DSA_SHA2_128S: [u8; 13] = nist(3, 20);
const ML_KEM_768: [u8; 13] = nist(4, 2);
const ML_KEM_1024: [u8; 13] = nist(4, 3);

/// An AlgorithmIdentifier below nistAlgorithms, 2.16.840.1.101.3.4.
const fn nist(branch: u8, number: u8) -> [u8; 13] {
    [0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, branch, number]
}
