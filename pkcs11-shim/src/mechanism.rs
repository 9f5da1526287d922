//! What the module can do: the list of mechanisms, and which of them a key is for.

use cryptoki_sys::*;
use kms_proto::v1;

use crate::ffi::CallerBuffer;
use crate::rv::{Result, Rv};

/// A mechanism as the caller names it.
pub(crate) struct Mechanism {
    pub(crate) kind: CK_MECHANISM_TYPE,
    pub(crate) parameter: Parameter,
}

/// Its parameter, read according to the mechanism.
pub(crate) enum Parameter {
    /// Of `CKM_AES_GCM`.
    Gcm(GcmParameter),
    None,
    /// Something that the mechanism does not take, or of another length than its structure.
    Other,
    /// Of the RSA-PSS mechanisms.
    Pss(CK_RSA_PKCS_PSS_PARAMS),
}

/// `CK_GCM_PARAMS`.
pub(crate) struct GcmParameter {
    /// What stands in the buffer of the IV.
    pub(crate) iv: Vec<u8>,
    /// That buffer, into which the IV of an encryption is written.
    pub(crate) iv_buffer: CallerBuffer,
    pub(crate) additional_data: Vec<u8>,
    pub(crate) tag_bits: CK_ULONG,
}

impl Mechanism {
    /// Refuses a parameter where none is taken.
    pub(crate) fn without_parameter(&self) -> Result<()> {
        match self.parameter {
            Parameter::None => Ok(()),
            _ => Err(Rv(CKR_MECHANISM_PARAM_INVALID)),
        }
    }
}

/// The mechanisms, in the order of the list.
pub(crate) fn list() -> Vec<CK_MECHANISM_TYPE> {
    MECHANISMS.iter().map(|(kind, ..)| *kind).collect()
}

/// What a mechanism does and with which keys.
pub(crate) fn info(kind: CK_MECHANISM_TYPE) -> Result<CK_MECHANISM_INFO> {
    let known = MECHANISMS.iter().find(|(known, ..)| *known == kind);
    let (_, size, flags) = *known.ok_or(Rv(CKR_MECHANISM_INVALID))?;
    Ok(CK_MECHANISM_INFO { ulMinKeySize: size, ulMaxKeySize: size, flags })
}

/// CKA_ALLOWED_MECHANISMS of a key. A PKCS#1 v1.5 key makes no PSS signatures and the other way
/// round: an algorithm is a property of the key here.
pub(crate) const fn allowed(algorithm: v1::Algorithm) -> &'static [CK_MECHANISM_TYPE] {
    match algorithm {
        v1::Algorithm::Aes256Gcm => &[CKM_AES_GCM],
        v1::Algorithm::EcSignP256Sha256 => &[CKM_ECDSA, CKM_ECDSA_SHA256],
        v1::Algorithm::HmacSha256 => &[CKM_SHA256_HMAC],
        v1::Algorithm::RsaSignPkcs13072Sha256 => &[CKM_RSA_PKCS, CKM_SHA256_RSA_PKCS],
        v1::Algorithm::RsaSignPss3072Sha256 => &[CKM_RSA_PKCS_PSS, CKM_SHA256_RSA_PKCS_PSS],
        v1::Algorithm::Unspecified => &[],
    }
}

/// CKA_KEY_GEN_MECHANISM of a key that was made here.
pub(crate) const fn generator(algorithm: v1::Algorithm) -> CK_MECHANISM_TYPE {
    match algorithm {
        v1::Algorithm::Aes256Gcm => CKM_AES_KEY_GEN,
        v1::Algorithm::EcSignP256Sha256 => CKM_EC_KEY_PAIR_GEN,
        v1::Algorithm::HmacSha256 => CKM_GENERIC_SECRET_KEY_GEN,
        v1::Algorithm::RsaSignPkcs13072Sha256 | v1::Algorithm::RsaSignPss3072Sha256 => {
            CKM_RSA_PKCS_KEY_PAIR_GEN
        }
        v1::Algorithm::Unspecified => CK_UNAVAILABLE_INFORMATION,
    }
}

/// CKA_KEY_TYPE of a key.
pub(crate) const fn key_type(algorithm: v1::Algorithm) -> CK_KEY_TYPE {
    match algorithm {
        v1::Algorithm::Aes256Gcm => CKK_AES,
        v1::Algorithm::EcSignP256Sha256 => CKK_EC,
        v1::Algorithm::HmacSha256 | v1::Algorithm::Unspecified => CKK_GENERIC_SECRET,
        v1::Algorithm::RsaSignPkcs13072Sha256 | v1::Algorithm::RsaSignPss3072Sha256 => CKK_RSA,
    }
}

const SIGN_VERIFY: CK_FLAGS = CKF_SIGN | CKF_VERIFY;
const P256: CK_FLAGS = CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS;

/// Mechanism, key size in the unit that the standard has for it, flags.
const MECHANISMS: [(CK_MECHANISM_TYPE, CK_ULONG, CK_FLAGS); 16] = [
    (CKM_EC_KEY_PAIR_GEN, 256, CKF_GENERATE_KEY_PAIR | P256),
    (CKM_ECDSA, 256, SIGN_VERIFY | P256),
    (CKM_ECDSA_SHA256, 256, SIGN_VERIFY | P256),
    (CKM_RSA_PKCS_KEY_PAIR_GEN, 3072, CKF_GENERATE_KEY_PAIR),
    (CKM_RSA_PKCS, 3072, SIGN_VERIFY),
    (CKM_SHA256_RSA_PKCS, 3072, SIGN_VERIFY),
    (CKM_RSA_PKCS_PSS, 3072, SIGN_VERIFY),
    (CKM_SHA256_RSA_PKCS_PSS, 3072, SIGN_VERIFY),
    (CKM_AES_KEY_GEN, 32, CKF_GENERATE),
    (CKM_AES_GCM, 32, CKF_ENCRYPT | CKF_DECRYPT),
    (CKM_GENERIC_SECRET_KEY_GEN, 256, CKF_GENERATE),
    (CKM_SHA256_HMAC, 32, SIGN_VERIFY),
    (CKM_SHA_1, 0, CKF_DIGEST),
    (CKM_SHA256, 0, CKF_DIGEST),
    (CKM_SHA384, 0, CKF_DIGEST),
    (CKM_SHA512, 0, CKF_DIGEST),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mechanism_of_a_key_is_in_the_list() {
        for algorithm in [
            v1::Algorithm::Aes256Gcm,
            v1::Algorithm::EcSignP256Sha256,
            v1::Algorithm::HmacSha256,
            v1::Algorithm::RsaSignPkcs13072Sha256,
            v1::Algorithm::RsaSignPss3072Sha256,
        ] {
            assert!(!allowed(algorithm).is_empty());
            for kind in allowed(algorithm) {
                assert!(info(*kind).is_ok(), "{kind:#x}");
            }
            assert!(info(generator(algorithm)).is_ok());
        }
        assert_eq!(info(CKM_DES3_CBC).err(), Some(Rv(CKR_MECHANISM_INVALID)));
    }
}
