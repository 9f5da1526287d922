//! The daemon's algorithms as PKCS#11 sees them: key types, sizes, curves and parameter sets.

use cryptoki_sys::*;
use kms_proto::v1::{Algorithm, Mechanism as Wire};

use crate::rv::{Result, Rv};

/// What PKCS#11 wants to know of an algorithm.
pub(crate) struct Facts {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_type: CK_KEY_TYPE,
    /// CKA_KEY_GEN_MECHANISM of a key made here.
    pub(crate) generator: CK_MECHANISM_TYPE,
    /// What tells it from others of its type.
    pub(crate) size: Size,
    /// Length of a signature as PKCS#11 has it; 0 if it makes none.
    pub(crate) signature_bytes: usize,
}

/// What tells an algorithm from others of its key type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Size {
    /// A secret of any length within the bounds.
    Any,
    /// A secret of so many bytes.
    Bytes(CK_ULONG),
    /// A curve, and the length of its public points.
    Curve { oid: &'static [u8], names: &'static [&'static str], point_bytes: usize },
    /// RSA with a modulus of so many bits.
    Modulus(CK_ULONG),
    /// CKA_PARAMETER_SET, the length of public keys, and that of ciphertexts (of a KEM).
    Set { set: CK_ULONG, public_key_bytes: usize, ciphertext_bytes: usize },
}

/// The facts; `None` for what has no place in PKCS#11.
pub(crate) fn facts(algorithm: Algorithm) -> Option<&'static Facts> {
    FACTS.iter().find(|facts| facts.algorithm == algorithm)
}

/// CKA_KEY_TYPE.
pub(crate) fn key_type(algorithm: Algorithm) -> CK_KEY_TYPE {
    facts(algorithm).map_or(CK_UNAVAILABLE_INFORMATION, |facts| facts.key_type)
}

/// Whether keys of the algorithm are pairs.
pub(crate) fn is_pair(algorithm: Algorithm) -> bool {
    facts(algorithm).is_some_and(|facts| !matches!(facts.size, Size::Any | Size::Bytes(_)))
}

/// Whether the daemon offers a mechanism of the key type for this very algorithm.
pub(crate) fn offers(algorithm: Algorithm, wire: Wire) -> bool {
    algorithm != Algorithm::EcSecp256k1 || wire == Wire::EcdsaSha256
}

/// DER of CKA_EC_PARAMS: an object identifier.
pub(crate) fn curve_parameters(algorithm: Algorithm) -> Option<&'static [u8]> {
    match facts(algorithm)?.size {
        Size::Curve { oid, .. } => Some(oid),
        _ => None,
    }
}

/// The algorithm of a curve, which CKA_EC_PARAMS names by identifier or by a printable string
/// (PKCS#11 v3.1 §6.3.3).
pub(crate) fn of_curve(key_type: CK_KEY_TYPE, parameters: &[u8]) -> Result<Algorithm> {
    let named = |name: &str| {
        parameters
            .strip_prefix(&[0x13, name.len() as u8])
            .is_some_and(|text| text == name.as_bytes())
    };
    let is_it = |facts: &&Facts| match facts.size {
        Size::Curve { oid, names, .. } => oid == parameters || names.iter().any(|name| named(name)),
        _ => false,
    };
    let of_type = FACTS.iter().filter(|facts| facts.key_type == key_type);
    let found = of_type.clone().find(is_it);
    found.map(|facts| facts.algorithm).ok_or(Rv(CKR_CURVE_NOT_SUPPORTED))
}

/// The algorithm of a key type with this size: bytes of a secret, bits of a modulus, or the number
/// of a parameter set.
pub(crate) fn of_size(
    key_type: CK_KEY_TYPE,
    size: CK_ULONG,
    otherwise: CK_RV,
) -> Result<Algorithm> {
    let fits = |facts: &&Facts| match facts.size {
        Size::Any => (GENERIC_BYTES_MIN..=GENERIC_BYTES_MAX).contains(&size),
        Size::Bytes(bytes) => bytes == size,
        Size::Modulus(bits) => bits == size,
        Size::Set { set, .. } => set == size,
        Size::Curve { .. } => false,
    };
    let found = FACTS.iter().filter(|facts| facts.key_type == key_type).find(fits);
    found.map(|facts| facts.algorithm).ok_or(Rv(otherwise))
}

const fn secret(
    algorithm: Algorithm,
    key_type: CK_KEY_TYPE,
    generator: CK_MECHANISM_TYPE,
    size: Size,
) -> Facts {
    Facts { algorithm, key_type, generator, size, signature_bytes: 0 }
}

const fn rsa(algorithm: Algorithm, bits: CK_ULONG) -> Facts {
    Facts {
        algorithm,
        key_type: CKK_RSA,
        generator: CKM_RSA_PKCS_KEY_PAIR_GEN,
        size: Size::Modulus(bits),
        signature_bytes: bits as usize / 8,
    }
}

const fn weierstrass(
    algorithm: Algorithm,
    oid: &'static [u8],
    names: &'static [&'static str],
    coordinate_bytes: usize,
) -> Facts {
    Facts {
        algorithm,
        key_type: CKK_EC,
        generator: CKM_EC_KEY_PAIR_GEN,
        size: Size::Curve { oid, names, point_bytes: 2 * coordinate_bytes + 1 },
        signature_bytes: 2 * coordinate_bytes,
    }
}

const fn lattice_or_hash(
    algorithm: Algorithm,
    (key_type, generator): (CK_KEY_TYPE, CK_MECHANISM_TYPE),
    set: CK_ULONG,
    public_key_bytes: usize,
    (signature_bytes, ciphertext_bytes): (usize, usize),
) -> Facts {
    let size = Size::Set { set, public_key_bytes, ciphertext_bytes };
    Facts { algorithm, key_type, generator, size, signature_bytes }
}

const ML_DSA: (CK_KEY_TYPE, CK_MECHANISM_TYPE) = (CKK_ML_DSA, CKM_ML_DSA_KEY_PAIR_GEN);
const ML_KEM: (CK_KEY_TYPE, CK_MECHANISM_TYPE) = (CKK_ML_KEM, CKM_ML_KEM_KEY_PAIR_GEN);
const SLH_DSA: (CK_KEY_TYPE, CK_MECHANISM_TYPE) = (CKK_SLH_DSA, CKM_SLH_DSA_KEY_PAIR_GEN);

/// X-Wing and opaque secrets are not here: PKCS#11 v3.2 has no name for them.
static FACTS: [Facts; 20] = [
    secret(Algorithm::Aes128, CKK_AES, CKM_AES_KEY_GEN, Size::Bytes(16)),
    secret(Algorithm::Aes192, CKK_AES, CKM_AES_KEY_GEN, Size::Bytes(24)),
    secret(Algorithm::Aes256, CKK_AES, CKM_AES_KEY_GEN, Size::Bytes(32)),
    secret(Algorithm::Chacha20, CKK_CHACHA20, CKM_CHACHA20_KEY_GEN, Size::Bytes(32)),
    secret(Algorithm::GenericSecret, CKK_GENERIC_SECRET, CKM_GENERIC_SECRET_KEY_GEN, Size::Any),
    rsa(Algorithm::Rsa2048, 2048),
    rsa(Algorithm::Rsa3072, 3072),
    rsa(Algorithm::Rsa4096, 4096),
    // RFC 5480 §2.1.1.1.
    weierstrass(
        Algorithm::EcP256,
        &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
        &["secp256r1", "prime256v1", "P-256"],
        32,
    ),
    weierstrass(
        Algorithm::EcP384,
        &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
        &["secp384r1", "P-384"],
        48,
    ),
    weierstrass(
        Algorithm::EcP521,
        &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23],
        &["secp521r1", "P-521"],
        66,
    ),
    weierstrass(
        Algorithm::EcSecp256k1,
        &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a],
        &["secp256k1"],
        32,
    ),
    // RFC 8410 §3.
    Facts {
        algorithm: Algorithm::Ed25519,
        key_type: CKK_EC_EDWARDS,
        generator: CKM_EC_EDWARDS_KEY_PAIR_GEN,
        size: Size::Curve {
            oid: &[0x06, 0x03, 0x2b, 0x65, 0x70],
            names: &["edwards25519", "Ed25519"],
            point_bytes: 32,
        },
        signature_bytes: 64,
    },
    Facts {
        algorithm: Algorithm::X25519,
        key_type: CKK_EC_MONTGOMERY,
        generator: CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
        size: Size::Curve {
            oid: &[0x06, 0x03, 0x2b, 0x65, 0x6e],
            names: &["curve25519", "X25519"],
            point_bytes: 32,
        },
        signature_bytes: 0,
    },
    // FIPS 204 table 2, FIPS 203 table 3, FIPS 205 table 2.
    lattice_or_hash(Algorithm::MlDsa44, ML_DSA, CKP_ML_DSA_44, 1312, (2420, 0)),
    lattice_or_hash(Algorithm::MlDsa65, ML_DSA, CKP_ML_DSA_65, 1952, (3309, 0)),
    lattice_or_hash(Algorithm::MlDsa87, ML_DSA, CKP_ML_DSA_87, 2592, (4627, 0)),
    lattice_or_hash(Algorithm::MlKem768, ML_KEM, CKP_ML_KEM_768, 1184, (0, 1088)),
    lattice_or_hash(Algorithm::MlKem1024, ML_KEM, CKP_ML_KEM_1024, 1568, (0, 1568)),
    lattice_or_hash(Algorithm::SlhDsaSha2128s, SLH_DSA, CKP_SLH_DSA_SHA2_128S, 32, (7856, 0)),
];

/// Lengths of a generic secret.
pub(crate) const GENERIC_BYTES_MIN: CK_ULONG = 14;
pub(crate) const GENERIC_BYTES_MAX: CK_ULONG = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_named_by_identifier_or_by_name() {
        for facts in &FACTS {
            let Size::Curve { oid, names, .. } = facts.size else { continue };
            assert_eq!(of_curve(facts.key_type, oid), Ok(facts.algorithm));
            for name in names {
                let printable = [&[0x13, name.len() as u8], name.as_bytes()].concat();
                assert_eq!(of_curve(facts.key_type, &printable), Ok(facts.algorithm));
            }
        }
        let p256 = curve_parameters(Algorithm::EcP256).unwrap();
        let refused = Err(Rv(CKR_CURVE_NOT_SUPPORTED));
        for bad in [&p256[..9], b"\x13\x09secp256r2", b"\x13\x05P-256 ", b"", b"\x05\x00"] {
            assert_eq!(of_curve(CKK_EC, bad), refused);
        }
        assert_eq!(of_curve(CKK_EC_EDWARDS, p256), refused);
    }

    #[test]
    fn a_size_tells_the_algorithm() {
        let of = |key_type, size| of_size(key_type, size, CKR_KEY_SIZE_RANGE);
        let refused = Err(Rv(CKR_KEY_SIZE_RANGE));
        assert_eq!(of(CKK_AES, 16), Ok(Algorithm::Aes128));
        assert_eq!(of(CKK_AES, 24), Ok(Algorithm::Aes192));
        assert_eq!(of(CKK_AES, 33), refused);
        assert_eq!(of(CKK_RSA, 4096), Ok(Algorithm::Rsa4096));
        assert_eq!(of(CKK_RSA, 1024), refused);
        assert_eq!(of(CKK_GENERIC_SECRET, 14), Ok(Algorithm::GenericSecret));
        assert_eq!(of(CKK_GENERIC_SECRET, 13), refused);
        assert_eq!(of(CKK_GENERIC_SECRET, 513), refused);
        assert_eq!(of(CKK_ML_DSA, CKP_ML_DSA_87), Ok(Algorithm::MlDsa87));
        assert_eq!(of(CKK_ML_KEM, CKP_ML_KEM_512), refused);
        assert_eq!(of(CKK_SLH_DSA, CKP_SLH_DSA_SHA2_128S), Ok(Algorithm::SlhDsaSha2128s));
        assert_eq!(of(CKK_DES3, 24), refused);
    }

    #[test]
    fn only_pairs_have_public_halves() {
        assert!(is_pair(Algorithm::X25519) && is_pair(Algorithm::Rsa2048));
        assert!(!is_pair(Algorithm::Aes128) && !is_pair(Algorithm::GenericSecret));
        assert!(facts(Algorithm::XWing).is_none() && facts(Algorithm::OpaqueSecret).is_none());
    }
}
