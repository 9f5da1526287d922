//! Signature schemes: what goes to the daemon for a signature, what comes back, and how one is
//! checked here with nothing but the public key.

use cryptoki_sys::*;
use kms_proto::v1;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use rsa::traits::PublicKeyParts as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::mechanism::{self, Mechanism, Parameter};
use crate::object::{Key, Object};
use crate::rv::{HOSTILE, Result, Rv};

/// A mechanism that signs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scheme {
    Ecdsa,
    Hmac,
    Pkcs1,
    Pss,
}

/// What is to be signed, as it comes in.
pub(crate) enum Input {
    /// Kept as it is, up to so many bytes.
    Kept(Zeroizing<Vec<u8>>, usize),
    /// Hashed on the way.
    Hashed(Sha256),
}

impl Scheme {
    /// Reads a mechanism for this key.
    pub(crate) fn new(mechanism: &Mechanism, object: &Object) -> Result<(Self, Input)> {
        let kept = |max| Input::Kept(Zeroizing::default(), max);
        let hashed = || Input::Hashed(Sha256::new());
        let (scheme, input, key_type) = match mechanism.kind {
            CKM_ECDSA => (Self::Ecdsa, kept(SHA256_BYTES), CKK_EC),
            CKM_ECDSA_SHA256 => (Self::Ecdsa, hashed(), CKK_EC),
            CKM_RSA_PKCS => (Self::Pkcs1, kept(DIGEST_INFO_MAX), CKK_RSA),
            CKM_SHA256_RSA_PKCS => (Self::Pkcs1, hashed(), CKK_RSA),
            CKM_RSA_PKCS_PSS => (Self::Pss, kept(SHA256_BYTES), CKK_RSA),
            CKM_SHA256_RSA_PKCS_PSS => (Self::Pss, hashed(), CKK_RSA),
            CKM_SHA256_HMAC => (Self::Hmac, kept(DATA_BYTES_MAX), CKK_GENERIC_SECRET),
            _ => return Err(Rv(CKR_MECHANISM_INVALID)),
        };
        match (scheme, &mechanism.parameter) {
            (Self::Pss, Parameter::Pss(parameters)) if is_sha256_pss(parameters) => {}
            (Self::Pss, _) => return Err(Rv(CKR_MECHANISM_PARAM_INVALID)),
            _ => mechanism.without_parameter()?,
        }
        if mechanism::key_type(object.algorithm) != key_type {
            return Err(Rv(CKR_KEY_TYPE_INCONSISTENT));
        }
        if !mechanism::allowed(object.algorithm).contains(&mechanism.kind) {
            return Err(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED));
        }
        Ok((scheme, input))
    }

    /// How long a signature is.
    pub(crate) fn length(self, object: &Object) -> Result<usize> {
        match (self, object.public_key.as_ref().map(|public| &public.key)) {
            (Self::Ecdsa, _) => Ok(64),
            (Self::Hmac, _) => Ok(SHA256_BYTES),
            (Self::Pkcs1 | Self::Pss, Some(Key::Rsa(key))) => Ok(key.size()),
            _ => Err(HOSTILE),
        }
    }

    /// The digest that the daemon is to sign.
    pub(crate) fn digest(self, input: Input) -> Result<Vec<u8>> {
        let kept = match input {
            Input::Hashed(hasher) => return Ok(hasher.finalize().to_vec()),
            Input::Kept(bytes, _) => bytes,
        };
        let digest = match self {
            // The daemon makes the DigestInfo itself, so the caller's must be that very one.
            Self::Pkcs1 => kept
                .strip_prefix(&SHA256_DIGEST_INFO)
                .filter(|digest| digest.len() == SHA256_BYTES)
                .ok_or(Rv(CKR_DATA_INVALID))?,
            _ => &kept[..],
        };
        if digest.len() == SHA256_BYTES { Ok(digest.to_vec()) } else { Err(Rv(CKR_DATA_LEN_RANGE)) }
    }

    /// The signature as PKCS#11 has it, from the daemon's.
    pub(crate) fn signature(self, signature: Vec<u8>) -> Result<Vec<u8>> {
        match self {
            // r and s side by side (PKCS#11 v3.1 §6.3.1), from the DER of RFC 3279 §2.2.3.
            Self::Ecdsa => {
                let parsed = p256::ecdsa::Signature::from_der(&signature);
                parsed.map(|signature| signature.to_bytes().to_vec()).map_err(|_| HOSTILE)
            }
            _ => Ok(signature),
        }
    }

    /// Checks a signature with the public key.
    pub(crate) fn verify(self, object: &Object, input: Input, signature: &[u8]) -> Result<()> {
        let key = &object.public_key.as_ref().ok_or(HOSTILE)?.key;
        if signature.len() != self.length(object)? {
            return Err(Rv(CKR_SIGNATURE_LEN_RANGE));
        }
        let verified = match (self, key) {
            (Self::Ecdsa, Key::P256(key)) => {
                let digest = self.digest(input)?;
                p256::ecdsa::Signature::from_slice(signature)
                    .and_then(|signature| key.verify_prehash(&digest, &signature))
            }
            (Self::Pkcs1, Key::Rsa(key)) => verify_pkcs1(key, input, signature),
            (Self::Pss, Key::Rsa(key)) => {
                let digest = self.digest(input)?;
                let key = rsa::pss::VerifyingKey::<Sha256>::new(key.clone());
                rsa::pss::Signature::try_from(signature)
                    .and_then(|signature| key.verify_prehash(&digest, &signature))
            }
            _ => return Err(HOSTILE),
        };
        verified.map_err(|_| Rv(CKR_SIGNATURE_INVALID))
    }
}

impl Input {
    /// Takes in more of the message.
    pub(crate) fn update(&mut self, data: &[u8]) -> Result<()> {
        match self {
            Self::Hashed(hasher) => hasher.update(data),
            Self::Kept(bytes, max) if bytes.len() + data.len() <= *max => {
                bytes.extend_from_slice(data);
            }
            Self::Kept(..) => return Err(Rv(CKR_DATA_LEN_RANGE)),
        }
        Ok(())
    }
}

/// Checking, unlike signing, takes whatever DigestInfo the caller brings: an old signature over
/// SHA-1 can still be checked.
fn verify_pkcs1(
    key: &rsa::RsaPublicKey,
    input: Input,
    signature: &[u8],
) -> core::result::Result<(), rsa::signature::Error> {
    let signature = rsa::pkcs1v15::Signature::try_from(signature)?;
    match input {
        Input::Hashed(hasher) => rsa::pkcs1v15::VerifyingKey::<Sha256>::new(key.clone())
            .verify_prehash(&hasher.finalize(), &signature),
        Input::Kept(bytes, _) => rsa::pkcs1v15::VerifyingKey::<Sha256>::new_unprefixed(key.clone())
            .verify_prehash(&bytes, &signature),
    }
}

const fn is_sha256_pss(parameters: &CK_RSA_PKCS_PSS_PARAMS) -> bool {
    let CK_RSA_PKCS_PSS_PARAMS { hashAlg, mgf, sLen } = *parameters;
    hashAlg == CKM_SHA256 && mgf == CKG_MGF1_SHA256 && sLen == SHA256_BYTES as CK_ULONG
}

/// The request for a signature over a digest.
pub(crate) fn sign_request(version: &str, digest: Vec<u8>) -> v1::SignRequest {
    v1::SignRequest {
        name: version.to_owned(),
        data_crc32c: Some(crc32c::crc32c(&digest)),
        data: Some(v1::sign_request::Data::Sha256Digest(digest)),
    }
}

/// What one call to the daemon takes.
pub(crate) const DATA_BYTES_MAX: usize = 64 * 1024;

const SHA256_BYTES: usize = 32;

/// DER before a SHA-256 digest (RFC 8017 §9.2 note 1).
const SHA256_DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// The longest DigestInfo in use, that of SHA-512.
const DIGEST_INFO_MAX: usize = 19 + 64;

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::hazmat::PrehashSigner as _;

    use super::*;
    use crate::object::tests::{aes_version, p256_version};

    fn mechanism(kind: CK_MECHANISM_TYPE) -> Mechanism {
        Mechanism { kind, parameter: Parameter::None }
    }

    fn p256_object() -> Object {
        Object::of_version(0, p256_version()).unwrap().remove(1)
    }

    fn kept(bytes: &[u8]) -> Input {
        Input::Kept(Zeroizing::new(bytes.to_vec()), 100)
    }

    #[test]
    fn only_the_digest_info_of_sha256_is_signed() {
        let good = [&SHA256_DIGEST_INFO[..], &[9; 32]].concat();
        assert_eq!(Scheme::Pkcs1.digest(kept(&good)), Ok(vec![9; 32]));
        for bad in [&good[1..], &good[..50], &[good.as_slice(), &[0]].concat(), &[9; 32], &[]] {
            assert_eq!(Scheme::Pkcs1.digest(kept(bad)), Err(Rv(CKR_DATA_INVALID)));
        }
    }

    #[test]
    fn ecdsa_takes_32_bytes_and_gives_r_and_s() {
        assert_eq!(Scheme::Ecdsa.digest(kept(&[1; 20])), Err(Rv(CKR_DATA_LEN_RANGE)));
        let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let signature: p256::ecdsa::Signature = key.sign_prehash(&[1; 32]).unwrap();
        let der = signature.to_der().as_bytes().to_vec();
        let raw = Scheme::Ecdsa.signature(der.clone()).unwrap();
        assert_eq!(raw.len(), 64);
        let object = p256_object();
        let check = |data: &[u8], raw: &[u8]| Scheme::Ecdsa.verify(&object, kept(data), raw);
        assert_eq!(check(&[1; 32], &raw), Ok(()));
        assert_eq!(check(&[2; 32], &raw), Err(Rv(CKR_SIGNATURE_INVALID)));
        assert_eq!(check(&[1; 32], &[0; 64]), Err(Rv(CKR_SIGNATURE_INVALID)));
        assert_eq!(check(&[1; 32], &der), Err(Rv(CKR_SIGNATURE_LEN_RANGE)));
        assert_eq!(Scheme::Ecdsa.signature(vec![0x30, 0x80]), Err(HOSTILE));
    }

    #[test]
    fn a_mechanism_must_fit_the_key_and_its_parameter() {
        let [p256, aes] = [p256_object(), Object::of_version(0, aes_version()).unwrap().remove(0)];
        let refusal = |kind, object| Scheme::new(&mechanism(kind), object).err();
        assert_eq!(refusal(CKM_ECDSA, &p256), None);
        assert_eq!(refusal(CKM_ECDSA, &aes), Some(Rv(CKR_KEY_TYPE_INCONSISTENT)));
        assert_eq!(refusal(CKM_MD5, &p256), Some(Rv(CKR_MECHANISM_INVALID)));
        assert_eq!(refusal(CKM_RSA_PKCS_PSS, &p256), Some(Rv(CKR_MECHANISM_PARAM_INVALID)));
        let with_parameter = Mechanism { kind: CKM_ECDSA, parameter: Parameter::Other };
        assert_eq!(
            Scheme::new(&with_parameter, &p256).err(),
            Some(Rv(CKR_MECHANISM_PARAM_INVALID))
        );
    }

    #[test]
    fn more_than_fits_is_refused_and_hashing_has_no_bound() {
        let mut small = Input::Kept(Zeroizing::default(), 32);
        assert_eq!(small.update(&[0; 32]), Ok(()));
        assert_eq!(small.update(&[0]), Err(Rv(CKR_DATA_LEN_RANGE)));
        let mut hashed = Input::Hashed(Sha256::new());
        for _ in 0..100 {
            assert_eq!(hashed.update(&[0; 4096]), Ok(()));
        }
    }
}
