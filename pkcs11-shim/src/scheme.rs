//! Signatures and message authentication codes: what goes to the daemon for one, what comes back,
//! and how one is checked here with nothing but the public key.
//!
//! RSA and ECDSA over P-256 and P-384 are checked here, so that a signature over a digest or a DigestInfo
//! that the daemon would not sign (SHA-1, say) can still be checked. The daemon checks the others.

use cryptoki_sys::*;
use kms_proto::v1;
use kms_proto::v1::Mechanism as Wire;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use crate::algorithm;
use crate::asn1;
use crate::hash::{DIGEST_INFO_BYTES_MAX, Hash, Hasher};
use crate::mechanism::{Feed, Row, row_of_key};
use crate::object::{Class, Key, Object};
use crate::parameter::{Mechanism, Takes};
use crate::rv::{HOSTILE, Result, Rv};

/// A mechanism that signs, with a key.
#[derive(Debug)]
pub(crate) struct Scheme {
    row: &'static Row,
    /// The daemon's mechanism, where the caller's parameter names it.
    chosen: Option<Wire>,
    context: Vec<u8>,
}

/// What is to be signed, as it comes in.
pub(crate) enum Input {
    /// Hashed on the way.
    Hashed(Hasher),
    /// Kept as it is, up to so many bytes.
    Kept(Zeroizing<Vec<u8>>, usize),
}

/// What the daemon is to sign, and how.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Prepared {
    pub(crate) wire: Wire,
    pub(crate) data: Data,
    pub(crate) context: Vec<u8>,
}

/// The two forms that the daemon takes.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Data {
    Digest(Vec<u8>),
    Message(Zeroizing<Vec<u8>>),
}

impl Scheme {
    /// Reads a mechanism for this key: `CKF_SIGN` or `CKF_VERIFY`.
    pub(crate) fn new(
        mechanism: &Mechanism,
        flag: CK_FLAGS,
        object: &Object,
    ) -> Result<(Self, Input)> {
        let row = row_of_key(mechanism.kind, flag, object)?;
        let (chosen, context) = mechanism.of_signature(row)?;
        if chosen.is_some_and(|chosen| !object.mechanisms.contains(&chosen)) {
            return Err(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED));
        }
        let kept = |max| Input::Kept(Zeroizing::default(), max);
        let input = match row.feed {
            Feed::Digest => kept(DIGEST_BYTES_MAX),
            Feed::DigestInfo => kept(DIGEST_INFO_BYTES_MAX),
            Feed::Hashed => {
                let hash = row.wire.first().and_then(|wire| Hash::of_wire(*wire));
                Input::Hashed(hash.ok_or(Rv(CKR_MECHANISM_INVALID))?.hasher())
            }
            Feed::Whole => kept(DATA_BYTES_MAX),
        };
        Ok((Self { row, chosen, context }, input))
    }

    /// How long a signature is.
    pub(crate) fn length(&self, object: &Object) -> Result<usize> {
        match (object.class, self.row.wire.first()) {
            (Class::Secret, Some(Wire::AesCmac)) => Ok(CMAC_BYTES),
            (Class::Secret, Some(wire)) => Hash::of_wire(*wire).map(Hash::bytes).ok_or(HOSTILE),
            _ => {
                algorithm::facts(object.algorithm).map(|facts| facts.signature_bytes).ok_or(HOSTILE)
            }
        }
    }

    /// What goes to the daemon.
    pub(crate) fn prepare(&mut self, input: Input, object: &Object) -> Result<Prepared> {
        let (wire, data) = match (self.row.feed, input) {
            (_, Input::Hashed(hasher)) => {
                (self.first()?, Data::Digest(hasher.finalize().into_vec()))
            }
            (Feed::Digest, Input::Kept(digest, _)) => {
                (self.by_length(digest.len(), object)?, Data::Digest(digest.to_vec()))
            }
            (Feed::DigestInfo, Input::Kept(info, _)) => {
                // The daemon makes the DigestInfo itself, so the caller's must be that very one.
                let (hash, digest) = Hash::of_digest_info(&info).ok_or(Rv(CKR_DATA_INVALID))?;
                let of_hash = |wire: &&Wire| Hash::of_wire(**wire) == Some(hash);
                let wire = self.row.wire.iter().find(of_hash).ok_or(Rv(CKR_DATA_INVALID))?;
                if !object.mechanisms.contains(wire) {
                    return Err(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED));
                }
                (*wire, Data::Digest(digest.to_vec()))
            }
            (Feed::Hashed | Feed::Whole, Input::Kept(bytes, _)) => {
                (self.first()?, Data::Message(bytes))
            }
        };
        Ok(Prepared { wire, data, context: std::mem::take(&mut self.context) })
    }

    /// The signature as PKCS#11 has it, from the daemon's.
    pub(crate) fn signature(&self, object: &Object, signature: Vec<u8>) -> Result<Vec<u8>> {
        if algorithm::key_type(object.algorithm) != CKK_EC {
            return Ok(signature);
        }
        asn1::raw_signature(&signature, self.length(object)? / 2).ok_or(HOSTILE)
    }

    /// Checks a signature with the public key; the input comes back if that is the daemon's part.
    pub(crate) fn verify(
        &self,
        object: &Object,
        input: Input,
        signature: &[u8],
    ) -> Result<Option<Input>> {
        if signature.len() != self.length(object)? {
            return Err(Rv(CKR_SIGNATURE_LEN_RANGE));
        }
        let verified = match &object.public_key.as_ref().ok_or(HOSTILE)?.key {
            Key::Other => return Ok(Some(input)),
            Key::P256(key) => {
                let digest = self.digest(input)?;
                p256::ecdsa::Signature::from_slice(signature)
                    .and_then(|signature| key.verify_prehash(&digest, &signature))
            }
            Key::P384(key) => {
                let digest = self.digest(input)?;
                p384::ecdsa::Signature::from_slice(signature)
                    .and_then(|signature| key.verify_prehash(&digest, &signature))
            }
            Key::Rsa(key) if self.row.takes == Takes::Pss => {
                let hash = Hash::of_wire(self.first()?).ok_or(HOSTILE)?;
                verify_pss(key, hash, &self.digest(input)?, signature)
            }
            Key::Rsa(key) => verify_pkcs1(key, &self.digest_info(input)?, signature),
        };
        verified.map(|()| None).map_err(|_| Rv(CKR_SIGNATURE_INVALID))
    }

    /// The daemon's form of a signature.
    pub(crate) fn wire_signature(object: &Object, signature: &[u8]) -> Result<Vec<u8>> {
        if algorithm::key_type(object.algorithm) == CKK_EC {
            asn1::der_signature(signature).ok_or(Rv(CKR_SIGNATURE_INVALID))
        } else {
            Ok(signature.to_vec())
        }
    }

    /// The digest of a signature that is checked here.
    fn digest(&self, input: Input) -> Result<Vec<u8>> {
        let digest = match input {
            Input::Hashed(hasher) => return Ok(hasher.finalize().into_vec()),
            Input::Kept(digest, _) => digest.to_vec(),
        };
        let bytes = |wire: &Wire| Hash::of_wire(*wire).map(Hash::bytes);
        let lengths: Vec<_> = match &self.chosen {
            Some(chosen) => bytes(chosen).into_iter().collect(),
            None => self.row.wire.iter().filter_map(bytes).collect(),
        };
        if lengths.contains(&digest.len()) { Ok(digest) } else { Err(Rv(CKR_DATA_LEN_RANGE)) }
    }

    /// What PKCS#1 v1.5 signs. Checking, unlike signing, takes whatever DigestInfo the caller brings.
    fn digest_info(&self, input: Input) -> Result<Vec<u8>> {
        match input {
            Input::Hashed(hasher) => {
                let hash = Hash::of_wire(self.first()?).ok_or(HOSTILE)?;
                Ok(hash.digest_info(&hasher.finalize()))
            }
            Input::Kept(info, _) => Ok(info.to_vec()),
        }
    }

    fn first(&self) -> Result<Wire> {
        self.chosen.or_else(|| self.row.wire.first().copied()).ok_or(Rv(CKR_MECHANISM_INVALID))
    }

    /// The mechanism for a digest of this length: the one that the parameter names, or of those
    /// whose digests are as long the first that the key permits.
    fn by_length(&self, bytes: usize, object: &Object) -> Result<Wire> {
        let fits = |wire: &Wire| Hash::of_wire(*wire).is_some_and(|hash| hash.bytes() == bytes);
        if let Some(chosen) = self.chosen {
            return Some(chosen).filter(fits).ok_or(Rv(CKR_DATA_LEN_RANGE));
        }
        let mut fitting = self.row.wire.iter().copied().filter(fits).peekable();
        fitting.peek().ok_or(Rv(CKR_DATA_LEN_RANGE))?;
        let found = fitting.find(|wire| object.mechanisms.contains(wire));
        found.ok_or(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED))
    }
}

impl Input {
    /// Takes in more of the message.
    pub(crate) fn update(&mut self, data: &[u8]) -> Result<()> {
        match self {
            Self::Hashed(hasher) => hasher.update(data),
            Self::Kept(bytes, max) if data.len() <= *max - bytes.len() => {
                bytes.extend_from_slice(data);
            }
            Self::Kept(..) => return Err(Rv(CKR_DATA_LEN_RANGE)),
        }
        Ok(())
    }
}

impl Prepared {
    /// The request for a signature.
    pub(crate) fn sign_request(self, name: String) -> v1::SignRequest {
        let Self { wire, data, context } = self;
        let (checksum, data) = match data {
            Data::Digest(digest) => {
                (crc32c::crc32c(&digest), v1::sign_request::Data::Digest(digest))
            }
            Data::Message(message) => {
                (crc32c::crc32c(&message), v1::sign_request::Data::Message(message.to_vec()))
            }
        };
        v1::SignRequest {
            name,
            data: Some(data),
            data_crc32c: Some(checksum),
            mechanism: wire.into(),
            context,
        }
    }

    /// The request to check one.
    pub(crate) fn verify_request(self, name: String, signature: Vec<u8>) -> v1::VerifyRequest {
        let Self { wire, data, context } = self;
        let (checksum, data) = match data {
            Data::Digest(digest) => {
                (crc32c::crc32c(&digest), v1::verify_request::Data::Digest(digest))
            }
            Data::Message(message) => {
                (crc32c::crc32c(&message), v1::verify_request::Data::Message(message.to_vec()))
            }
        };
        v1::VerifyRequest {
            name,
            data: Some(data),
            signature,
            data_crc32c: Some(checksum),
            mechanism: wire.into(),
            context,
        }
    }
}

type Verified = core::result::Result<(), rsa::signature::Error>;

fn verify_pkcs1(key: &rsa::RsaPublicKey, info: &[u8], signature: &[u8]) -> Verified {
    let signature = rsa::pkcs1v15::Signature::try_from(signature)?;
    // The hash function of the type is not used when the DigestInfo comes from outside.
    rsa::pkcs1v15::VerifyingKey::<Sha256>::new_unprefixed(key.clone())
        .verify_prehash(info, &signature)
}

fn verify_pss(key: &rsa::RsaPublicKey, hash: Hash, digest: &[u8], signature: &[u8]) -> Verified {
    let signature = rsa::pss::Signature::try_from(signature)?;
    let key = key.clone();
    match hash {
        Hash::Sha256 => {
            rsa::pss::VerifyingKey::<Sha256>::new(key).verify_prehash(digest, &signature)
        }
        Hash::Sha384 => {
            rsa::pss::VerifyingKey::<Sha384>::new(key).verify_prehash(digest, &signature)
        }
        Hash::Sha512 => {
            rsa::pss::VerifyingKey::<Sha512>::new(key).verify_prehash(digest, &signature)
        }
        _ => Err(rsa::signature::Error::new()),
    }
}

/// What one call to the daemon takes.
pub(crate) const DATA_BYTES_MAX: usize = 64 * 1024;

/// The longest digest.
const DIGEST_BYTES_MAX: usize = 64;
/// The tag of CMAC with AES.
const CMAC_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::hazmat::PrehashSigner as _;

    use super::*;
    use crate::object::tests::{aes_version, p256_version};
    use crate::parameter::Parameter;

    fn mechanism(kind: CK_MECHANISM_TYPE) -> Mechanism {
        Mechanism { kind, parameter: Parameter::None }
    }

    fn pss(
        kind: CK_MECHANISM_TYPE,
        hash: CK_MECHANISM_TYPE,
        mgf: CK_ULONG,
        salt: CK_ULONG,
    ) -> Mechanism {
        let parameters = CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash, mgf, sLen: salt };
        Mechanism { kind, parameter: Parameter::Pss(parameters) }
    }

    /// The private and the public half.
    fn p256() -> [Object; 2] {
        Object::of_version(0, p256_version()).unwrap().try_into().unwrap()
    }

    /// A key of any kind, for what does not look at its public half.
    fn object(
        algorithm: v1::Algorithm,
        mechanisms: &[Wire],
        usage: v1::Usage,
        class: Class,
    ) -> Object {
        let [private, _] = p256();
        let (usages, mechanisms) = (vec![usage], mechanisms.to_vec());
        Object { algorithm, mechanisms, usages, class, ..private }
    }

    fn prepare(scheme: Result<(Scheme, Input)>, object: &Object, data: &[u8]) -> Result<Prepared> {
        let (mut scheme, mut input) = scheme?;
        input.update(data)?;
        scheme.prepare(input, object)
    }

    fn sign(object: &Object, kind: CK_MECHANISM_TYPE, data: &[u8]) -> Result<(Wire, Data)> {
        let prepared = prepare(Scheme::new(&mechanism(kind), CKF_SIGN, object), object, data)?;
        Ok((prepared.wire, prepared.data))
    }

    #[test]
    fn a_digest_info_is_signed_by_the_mechanism_of_its_hash() {
        let wires = [Wire::RsaPkcs1Sha256, Wire::RsaPkcs1Sha512, Wire::RsaPkcs1Sha1];
        let rsa = object(v1::Algorithm::Rsa3072, &wires, v1::Usage::Sign, Class::Private);
        let info = |hash: Hash| hash.digest_info(&vec![9; hash.bytes()]);
        let signed = |hash: Hash| sign(&rsa, CKM_RSA_PKCS, &info(hash));
        assert_eq!(signed(Hash::Sha256), Ok((Wire::RsaPkcs1Sha256, Data::Digest(vec![9; 32]))));
        assert_eq!(signed(Hash::Sha512), Ok((Wire::RsaPkcs1Sha512, Data::Digest(vec![9; 64]))));
        // One that this key does not permit, and one that the daemon does not have.
        assert_eq!(signed(Hash::Sha384), Err(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED)));
        assert_eq!(signed(Hash::Sha3_256), Err(Rv(CKR_DATA_INVALID)));
        let good = info(Hash::Sha256);
        for bad in [&good[1..], &good[..50], &[&good[..], &[0]].concat(), &[9; 32], &[]] {
            assert_eq!(sign(&rsa, CKM_RSA_PKCS, bad), Err(Rv(CKR_DATA_INVALID)));
        }
        assert_eq!(sign(&rsa, CKM_RSA_PKCS, &[0; 84]), Err(Rv(CKR_DATA_LEN_RANGE)));
    }

    #[test]
    fn a_raw_digest_is_signed_by_the_mechanism_of_its_length() {
        let signed = |wires: &[Wire], bytes| {
            let key = object(v1::Algorithm::EcP521, wires, v1::Usage::Sign, Class::Private);
            sign(&key, CKM_ECDSA, &vec![3; bytes]).map(|(wire, _)| wire)
        };
        let both = [Wire::EcdsaSha3384, Wire::EcdsaSha384, Wire::EcdsaSha512, Wire::EcdsaSha256];
        assert_eq!(signed(&both, 32), Ok(Wire::EcdsaSha256));
        assert_eq!(signed(&both, 48), Ok(Wire::EcdsaSha384));
        assert_eq!(signed(&both, 64), Ok(Wire::EcdsaSha512));
        assert_eq!(signed(&both[..1], 48), Ok(Wire::EcdsaSha3384));
        assert_eq!(signed(&both[..1], 32), Err(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED)));
        for bytes in [0, 20, 31, 63] {
            assert_eq!(signed(&both, bytes), Err(Rv(CKR_DATA_LEN_RANGE)));
        }
        assert_eq!(signed(&both, 65), Err(Rv(CKR_DATA_LEN_RANGE)));
    }

    #[test]
    fn pss_parameters_must_belong_together() {
        let wires = [Wire::RsaPssSha256, Wire::RsaPssSha384];
        let rsa = object(v1::Algorithm::Rsa2048, &wires, v1::Usage::Sign, Class::Private);
        let signed = |mechanism: Mechanism, bytes| {
            let scheme = Scheme::new(&mechanism, CKF_SIGN, &rsa);
            prepare(scheme, &rsa, &vec![1; bytes]).map(|prepared| prepared.wire)
        };
        let raw = |hash, mgf, salt| pss(CKM_RSA_PKCS_PSS, hash, mgf, salt);
        assert_eq!(signed(raw(CKM_SHA256, CKG_MGF1_SHA256, 32), 32), Ok(Wire::RsaPssSha256));
        assert_eq!(signed(raw(CKM_SHA384, CKG_MGF1_SHA384, 48), 48), Ok(Wire::RsaPssSha384));
        assert_eq!(signed(raw(CKM_SHA256, CKG_MGF1_SHA256, 32), 48), Err(Rv(CKR_DATA_LEN_RANGE)));
        let not_permitted = Err(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED));
        assert_eq!(signed(raw(CKM_SHA512, CKG_MGF1_SHA512, 64), 64), not_permitted);
        let hashed = pss(CKM_SHA384_RSA_PKCS_PSS, CKM_SHA384, CKG_MGF1_SHA384, 48);
        assert_eq!(signed(hashed, 1000), Ok(Wire::RsaPssSha384));
        for bad in [
            raw(CKM_SHA256, CKG_MGF1_SHA384, 32),
            raw(CKM_SHA256, CKG_MGF1_SHA256, 20),
            raw(CKM_SHA256, CKG_MGF1_SHA256, 0),
            raw(CKM_SHA_1, CKG_MGF1_SHA1, 20),
            raw(CKM_MD5, 0, 16),
            pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA384, CKG_MGF1_SHA384, 48),
            mechanism(CKM_RSA_PKCS_PSS),
            mechanism(CKM_SHA256_RSA_PKCS_PSS),
        ] {
            assert_eq!(signed(bad, 32), Err(Rv(CKR_MECHANISM_PARAM_INVALID)));
        }
    }

    #[test]
    fn messages_that_are_not_hashed_here_go_whole_and_bounded() {
        let ml_dsa =
            object(v1::Algorithm::MlDsa65, &[Wire::MlDsa], v1::Usage::Sign, Class::Private);
        let with = |hedge, context: &[u8]| {
            let parameter = Parameter::Context { hedge, context: context.to_vec() };
            let mechanism = Mechanism { kind: CKM_ML_DSA, parameter };
            prepare(Scheme::new(&mechanism, CKF_SIGN, &ml_dsa), &ml_dsa, b"m")
        };
        let prepared = with(CKH_HEDGE_REQUIRED, b"ctx").unwrap();
        assert_eq!((prepared.wire, &prepared.context[..]), (Wire::MlDsa, &b"ctx"[..]));
        assert_eq!(prepared.data, Data::Message(Zeroizing::new(b"m".to_vec())));
        let refused = Err(Rv(CKR_MECHANISM_PARAM_INVALID));
        assert_eq!(with(CKH_DETERMINISTIC_REQUIRED, b""), refused);
        assert_eq!(with(CKH_HEDGE_PREFERRED, &[0; 256]), refused);
        let long = vec![0; DATA_BYTES_MAX + 1];
        assert!(sign(&ml_dsa, CKM_ML_DSA, &long[1..]).is_ok());
        assert_eq!(sign(&ml_dsa, CKM_ML_DSA, &long), Err(Rv(CKR_DATA_LEN_RANGE)));
        let ed = object(v1::Algorithm::Ed25519, &[Wire::Eddsa], v1::Usage::Sign, Class::Private);
        let with = |prehash, context: &[u8]| {
            let parameter = Parameter::EdDsa { prehash, context: context.to_vec() };
            let mechanism = Mechanism { kind: CKM_EDDSA, parameter };
            Scheme::new(&mechanism, CKF_SIGN, &ed).err()
        };
        assert_eq!(with(false, b""), None);
        assert_eq!(with(true, b""), Some(Rv(CKR_MECHANISM_PARAM_INVALID)));
        assert_eq!(with(false, b"c"), Some(Rv(CKR_MECHANISM_PARAM_INVALID)));
    }

    #[test]
    fn tags_and_signatures_have_their_lengths() {
        let length = |kind, algorithm, wire, usage, class| {
            let key = object(algorithm, &[wire], usage, class);
            let (scheme, _) = Scheme::new(&mechanism(kind), CKF_SIGN, &key).unwrap();
            scheme.length(&key).unwrap()
        };
        let mac = |kind, wire| {
            let (secret, usage) = (v1::Algorithm::GenericSecret, v1::Usage::MacSign);
            length(kind, secret, wire, usage, Class::Secret)
        };
        assert_eq!(mac(CKM_SHA512_224_HMAC, Wire::HmacSha512224), 28);
        assert_eq!(mac(CKM_SHA3_512_HMAC, Wire::HmacSha3512), 64);
        let (aes, mac_sign) = (v1::Algorithm::Aes192, v1::Usage::MacSign);
        assert_eq!(length(CKM_AES_CMAC, aes, Wire::AesCmac, mac_sign, Class::Secret), 16);
        let pair =
            |kind, algorithm, wire| length(kind, algorithm, wire, v1::Usage::Sign, Class::Private);
        assert_eq!(pair(CKM_ECDSA_SHA512, v1::Algorithm::EcP521, Wire::EcdsaSha512), 132);
        assert_eq!(pair(CKM_SHA512_RSA_PKCS, v1::Algorithm::Rsa4096, Wire::RsaPkcs1Sha512), 512);
        assert_eq!(pair(CKM_SLH_DSA, v1::Algorithm::SlhDsaSha2128s, Wire::SlhDsa), 7856);
    }

    #[test]
    fn p256_signatures_are_checked_here() {
        let [_, public] = p256();
        let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let signature: p256::ecdsa::Signature = key.sign_prehash(&[1; 32]).unwrap();
        let der = signature.to_der().as_bytes().to_vec();
        let new = || Scheme::new(&mechanism(CKM_ECDSA), CKF_VERIFY, &public).unwrap();
        let raw = new().0.signature(&public, der.clone()).unwrap();
        let check = |data: &[u8], raw: &[u8]| {
            let (scheme, mut input) = new();
            input.update(data)?;
            scheme.verify(&public, input, raw).map(|left| left.is_some())
        };
        assert_eq!(check(&[1; 32], &raw), Ok(false));
        assert_eq!(check(&[2; 32], &raw), Err(Rv(CKR_SIGNATURE_INVALID)));
        assert_eq!(check(&[1; 32], &[0; 64]), Err(Rv(CKR_SIGNATURE_INVALID)));
        assert_eq!(check(&[1; 32], &der), Err(Rv(CKR_SIGNATURE_LEN_RANGE)));
        assert_eq!(check(&[1; 31], &raw), Err(Rv(CKR_DATA_LEN_RANGE)));
        assert_eq!(new().0.signature(&public, vec![0x30, 0x80]), Err(HOSTILE));
        assert_eq!(Scheme::wire_signature(&public, &raw), Ok(der));
    }

    #[test]
    fn a_mechanism_must_fit_the_key_and_its_parameter() {
        let ([private, public], aes) =
            (p256(), Object::of_version(0, aes_version()).unwrap().remove(0));
        let refusal =
            |kind, object| Scheme::new(&mechanism(kind), CKF_SIGN, object).err().map(|rv| rv.0);
        assert_eq!(refusal(CKM_ECDSA, &private), None);
        assert_eq!(refusal(CKM_ECDSA, &aes), Some(CKR_KEY_TYPE_INCONSISTENT));
        assert_eq!(refusal(CKM_ECDSA, &public), Some(CKR_KEY_FUNCTION_NOT_PERMITTED));
        assert_eq!(refusal(CKM_ECDSA_SHA512, &private), Some(CKR_KEY_FUNCTION_NOT_PERMITTED));
        assert_eq!(refusal(CKM_MD5, &private), Some(CKR_MECHANISM_INVALID));
        assert_eq!(refusal(CKM_AES_GCM, &aes), Some(CKR_MECHANISM_INVALID));
        let with_parameter = Mechanism { kind: CKM_ECDSA, parameter: Parameter::Other };
        let refused = Scheme::new(&with_parameter, CKF_SIGN, &private).err();
        assert_eq!(refused, Some(Rv(CKR_MECHANISM_PARAM_INVALID)));
    }

    #[test]
    fn hashing_has_no_bound() {
        let [private, _] = p256();
        let (_, mut input) = Scheme::new(&mechanism(CKM_ECDSA_SHA256), CKF_SIGN, &private).unwrap();
        for _ in 0..100 {
            assert_eq!(input.update(&[0; 4096]), Ok(()));
        }
    }
}
