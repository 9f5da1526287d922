//! What the module can do: the table of mechanisms, each with what it becomes at the daemon.
//!
//! A line is offered by a token whose ring takes at least one of the daemon's mechanisms in it, so that
//! programs do not try what would be refused. A key may be used by a line when it permits one of them.

use cryptoki_sys::*;
use kms_proto::v1;
use kms_proto::v1::Mechanism as Wire;

use crate::algorithm;
use crate::object::{Class, Object};
use crate::parameter::Takes;
use crate::rv::{Result, Rv};

/// One line: a mechanism, or one of two ways to use it.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Row {
    pub(crate) kind: CK_MECHANISM_TYPE,
    pub(crate) keys: Keys,
    pub(crate) takes: Takes,
    pub(crate) feed: Feed,
    /// What it is for: `CKF_SIGN` and the like.
    pub(crate) flags: CK_FLAGS,
    /// What it becomes, the first fitting one; for key generation, what such keys can do. Empty for
    /// what needs no daemon.
    pub(crate) wire: &'static [Wire],
}

/// The keys that a mechanism takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Keys {
    pub(crate) key_type: CK_KEY_TYPE,
    /// Smallest and largest, in the unit that the standard has for the mechanism.
    sizes: (CK_ULONG, CK_ULONG),
    flags: CK_FLAGS,
}

/// In which form data goes in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Feed {
    /// The digest of a message, nothing else.
    Digest,
    /// A DigestInfo.
    DigestInfo,
    /// A message that is hashed here.
    Hashed,
    /// A message or other data, as it is.
    Whole,
}

/// The line of a mechanism for one use of a key, such as `CKF_SIGN`. The key must be of its type, of
/// the class and made for the usage that belong to the flag, and must permit it.
pub(crate) fn row_of_key(
    kind: CK_MECHANISM_TYPE,
    flag: CK_FLAGS,
    object: &Object,
) -> Result<&'static Row> {
    let rows = || rows().filter(|row| row.kind == kind && row.flags & flag != 0);
    rows().next().ok_or(Rv(CKR_MECHANISM_INVALID))?;
    let of_type = rows().find(|row| algorithm::key_type(object.algorithm) == row.keys.key_type);
    let row = of_type.ok_or(Rv(CKR_KEY_TYPE_INCONSISTENT))?;
    let operation = OPERATIONS.iter().find(|one| one.flag == flag && one.class == object.class);
    let is_for = operation.is_some_and(|operation| object.is_for(operation.usage));
    if is_for && row.is_offered(&object.mechanisms) {
        Ok(row)
    } else {
        Err(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED))
    }
}

/// Refuses a mechanism that the token does not offer for this use: key generation, where there is
/// no key yet.
pub(crate) fn require_offered(
    kind: CK_MECHANISM_TYPE,
    flag: CK_FLAGS,
    offered: &[Wire],
) -> Result<()> {
    let fits = |row: &Row| row.kind == kind && row.flags & flag != 0 && row.is_offered(offered);
    if rows().any(fits) { Ok(()) } else { Err(Rv(CKR_MECHANISM_INVALID)) }
}

/// Refuses a mechanism whose keys the daemon does not make: those of X25519 where it gives approved
/// services only. What they are used with, ECDH, is approved with other keys, so that does not tell.
pub(crate) const fn require_made(kind: CK_MECHANISM_TYPE, approved_only: bool) -> Result<()> {
    match kind {
        CKM_EC_MONTGOMERY_KEY_PAIR_GEN if approved_only => Err(Rv(CKR_MECHANISM_INVALID)),
        _ => Ok(()),
    }
}

/// The first line of a mechanism, whatever it is for. Both lines of one take the same parameter.
pub(crate) fn any_row(kind: CK_MECHANISM_TYPE) -> Option<&'static Row> {
    rows().find(|row| row.kind == kind)
}

/// The mechanisms of a token, in the order of the table.
pub(crate) fn list(offered: &[Wire]) -> Vec<CK_MECHANISM_TYPE> {
    let mut list: Vec<_> =
        rows().filter(|row| row.is_offered(offered)).map(|row| row.kind).collect();
    list.dedup();
    list
}

/// What a mechanism does on a token and with which keys.
pub(crate) fn info(kind: CK_MECHANISM_TYPE, offered: &[Wire]) -> Result<CK_MECHANISM_INFO> {
    let rows = || rows().filter(|row| row.kind == kind && row.is_offered(offered));
    let Keys { sizes: (least, most), flags, .. } =
        rows().next().ok_or(Rv(CKR_MECHANISM_INVALID))?.keys;
    let flags = rows().fold(flags, |flags, row| flags | row.flags);
    Ok(CK_MECHANISM_INFO { ulMinKeySize: least, ulMaxKeySize: most, flags })
}

/// CKA_ALLOWED_MECHANISMS of a key that permits these.
pub(crate) fn allowed(algorithm: v1::Algorithm, permitted: &[Wire]) -> Vec<CK_MECHANISM_TYPE> {
    let usable = |row: &&Row| row.uses_key() && row.fits(algorithm) && row.is_offered(permitted);
    let mut allowed: Vec<_> = rows().filter(usable).map(|row| row.kind).collect();
    allowed.dedup();
    allowed
}

/// What these mechanisms become with keys of the algorithm.
pub(crate) fn wires(algorithm: v1::Algorithm, kinds: &[CK_MECHANISM_TYPE]) -> Vec<Wire> {
    let named = rows().filter(|row| kinds.contains(&row.kind) && row.fits(algorithm));
    named.flat_map(|row| row.wire.iter().copied()).collect()
}

/// What one use of a key is called in a mechanism's flags, as an attribute of which object, and by
/// the daemon.
pub(crate) struct Operation {
    pub(crate) flag: CK_FLAGS,
    pub(crate) class: Class,
    pub(crate) attribute: CK_ATTRIBUTE_TYPE,
    pub(crate) usage: v1::Usage,
}

/// The operations that keys of an algorithm can be for on a token, and which of the daemon's
/// mechanisms offer each.
pub(crate) fn operations(
    algorithm: v1::Algorithm,
    offered: &[Wire],
) -> Vec<(&'static Operation, Vec<Wire>)> {
    let is_pair = algorithm::is_pair(algorithm);
    let of_class =
        OPERATIONS.iter().filter(|operation| (operation.class != Class::Secret) == is_pair);
    let with_mechanisms = of_class.map(|operation| {
        let rows = rows().filter(|row| row.flags & operation.flag != 0 && row.fits(algorithm));
        let wires = rows.flat_map(|row| row.wire.iter().copied());
        let ours = |wire: &Wire| offered.contains(wire) && algorithm::offers(algorithm, *wire);
        (operation, wires.filter(ours).collect::<Vec<_>>())
    });
    with_mechanisms.filter(|(_, wires)| !wires.is_empty()).collect()
}

impl Row {
    /// Whether one of these is what it becomes.
    pub(crate) fn is_offered(&self, offered: &[Wire]) -> bool {
        self.wire.is_empty() || self.wire.iter().any(|wire| offered.contains(wire))
    }

    /// Whether keys of the algorithm are of its type.
    pub(crate) fn fits(&self, algorithm: v1::Algorithm) -> bool {
        algorithm::key_type(algorithm) == self.keys.key_type
            && self.wire.iter().any(|wire| algorithm::offers(algorithm, *wire))
    }

    const fn uses_key(&self) -> bool {
        self.flags & (CKF_GENERATE | CKF_GENERATE_KEY_PAIR | CKF_DIGEST) == 0
    }
}

fn rows() -> impl Iterator<Item = &'static Row> {
    TABLE.iter()
}

const fn operation(
    flag: CK_FLAGS,
    class: Class,
    attribute: CK_ATTRIBUTE_TYPE,
    usage: v1::Usage,
) -> Operation {
    Operation { flag, class, attribute, usage }
}

pub(crate) static OPERATIONS: [Operation; 16] = [
    operation(CKF_ENCRYPT, Class::Secret, CKA_ENCRYPT, v1::Usage::Encrypt),
    operation(CKF_ENCRYPT, Class::Public, CKA_ENCRYPT, v1::Usage::Encrypt),
    operation(CKF_DECRYPT, Class::Secret, CKA_DECRYPT, v1::Usage::Decrypt),
    operation(CKF_DECRYPT, Class::Private, CKA_DECRYPT, v1::Usage::Decrypt),
    operation(CKF_SIGN, Class::Secret, CKA_SIGN, v1::Usage::MacSign),
    operation(CKF_SIGN, Class::Private, CKA_SIGN, v1::Usage::Sign),
    operation(CKF_VERIFY, Class::Secret, CKA_VERIFY, v1::Usage::MacVerify),
    operation(CKF_VERIFY, Class::Public, CKA_VERIFY, v1::Usage::Verify),
    operation(CKF_WRAP, Class::Secret, CKA_WRAP, v1::Usage::Wrap),
    operation(CKF_WRAP, Class::Public, CKA_WRAP, v1::Usage::Wrap),
    operation(CKF_UNWRAP, Class::Secret, CKA_UNWRAP, v1::Usage::Unwrap),
    operation(CKF_UNWRAP, Class::Private, CKA_UNWRAP, v1::Usage::Unwrap),
    operation(CKF_DERIVE, Class::Secret, CKA_DERIVE, v1::Usage::Derive),
    operation(CKF_DERIVE, Class::Private, CKA_DERIVE, v1::Usage::Derive),
    operation(CKF_ENCAPSULATE, Class::Public, CKA_ENCAPSULATE, v1::Usage::Encapsulate),
    operation(CKF_DECAPSULATE, Class::Private, CKA_DECAPSULATE, v1::Usage::Decapsulate),
];

const fn keys(key_type: CK_KEY_TYPE, least: CK_ULONG, most: CK_ULONG) -> Keys {
    Keys { key_type, sizes: (least, most), flags: 0 }
}

const fn curve(key_type: CK_KEY_TYPE, least: CK_ULONG, most: CK_ULONG, flags: CK_FLAGS) -> Keys {
    let flags = flags | CKF_EC_F_P | CKF_EC_OID | CKF_EC_CURVENAME;
    Keys { key_type, sizes: (least, most), flags }
}

const AES: Keys = keys(CKK_AES, 16, 32);
const CHACHA: Keys = keys(CKK_CHACHA20, 32, 32);
const EC: Keys = curve(CKK_EC, 256, 521, CKF_EC_UNCOMPRESS);
const EDWARDS: Keys = curve(CKK_EC_EDWARDS, 255, 255, 0);
const MONTGOMERY: Keys = curve(CKK_EC_MONTGOMERY, 255, 255, 0);
const ML_DSA: Keys = keys(CKK_ML_DSA, 1312, 2592);
const ML_KEM: Keys = keys(CKK_ML_KEM, 1184, 1568);
const NO_KEY: Keys = keys(CK_UNAVAILABLE_INFORMATION, 0, 0);
const RSA: Keys = keys(CKK_RSA, 2048, 4096);
const SECRET: Keys = keys(CKK_GENERIC_SECRET, 14, 512);
/// Key generation counts bits.
const SECRET_BITS: Keys = keys(CKK_GENERIC_SECRET, 112, 4096);
const SLH_DSA: Keys = keys(CKK_SLH_DSA, 32, 32);

const CIPHER: CK_FLAGS = CKF_ENCRYPT | CKF_DECRYPT;
const KEM: CK_FLAGS = CKF_ENCAPSULATE | CKF_DECAPSULATE;
const SIGN: CK_FLAGS = CKF_SIGN | CKF_VERIFY;
const WRAP: CK_FLAGS = CKF_WRAP | CKF_UNWRAP;

const AES_USES: &[Wire] = &[
    Wire::AesGcm,
    Wire::AesKwp,
    Wire::AesKw,
    Wire::AesCmac,
    Wire::AesCtr,
    Wire::AesCbcPad,
    Wire::AesCbc,
];
const EC_SIGN: &[Wire] = &[
    Wire::EcdsaSha256,
    Wire::EcdsaSha384,
    Wire::EcdsaSha512,
    Wire::EcdsaSha3256,
    Wire::EcdsaSha3384,
    Wire::EcdsaSha3512,
];
const EC_USES: &[Wire] = &[
    Wire::EcdsaSha256,
    Wire::EcdsaSha384,
    Wire::EcdsaSha512,
    Wire::EcdsaSha3256,
    Wire::EcdsaSha3384,
    Wire::EcdsaSha3512,
    Wire::Ecdh,
];
const HKDF: &[Wire] = &[Wire::HkdfSha256, Wire::HkdfSha384, Wire::HkdfSha512];
const KDF_COUNTER: &[Wire] =
    &[Wire::KdfCounterHmacSha256, Wire::KdfCounterHmacSha384, Wire::KdfCounterHmacSha512];
const OAEP: &[Wire] = &[Wire::RsaOaepSha256, Wire::RsaOaepSha384, Wire::RsaOaepSha512];
const PKCS1_SIGN: &[Wire] =
    &[Wire::RsaPkcs1Sha256, Wire::RsaPkcs1Sha384, Wire::RsaPkcs1Sha512, Wire::RsaPkcs1Sha1];
const PSS: &[Wire] = &[Wire::RsaPssSha256, Wire::RsaPssSha384, Wire::RsaPssSha512];
const RSA_USES: &[Wire] = &[
    Wire::RsaPssSha256,
    Wire::RsaPssSha384,
    Wire::RsaPssSha512,
    Wire::RsaPkcs1Sha256,
    Wire::RsaPkcs1Sha384,
    Wire::RsaPkcs1Sha512,
    Wire::RsaPkcs1Sha1,
    Wire::RsaOaepSha256,
    Wire::RsaOaepSha384,
    Wire::RsaOaepSha512,
    Wire::RsaPkcs1,
    Wire::RsaRaw,
];
const SECRET_USES: &[Wire] = &[
    Wire::HmacSha256,
    Wire::HmacSha384,
    Wire::HmacSha512,
    Wire::HmacSha224,
    Wire::HmacSha512224,
    Wire::HmacSha512256,
    Wire::HmacSha3224,
    Wire::HmacSha3256,
    Wire::HmacSha3384,
    Wire::HmacSha3512,
    Wire::HmacSha1,
    Wire::HkdfSha256,
    Wire::HkdfSha384,
    Wire::HkdfSha512,
    Wire::KdfCounterHmacSha256,
    Wire::KdfCounterHmacSha384,
    Wire::KdfCounterHmacSha512,
];

const fn line(
    kind: CK_MECHANISM_TYPE,
    keys: Keys,
    takes: Takes,
    feed: Feed,
    flags: CK_FLAGS,
    wire: &'static [Wire],
) -> Row {
    Row { kind, keys, takes, feed, flags, wire }
}

/// Two lines of one mechanism stand together.
#[rustfmt::skip]
static TABLE: [Row; 69] = [
    line(CKM_EC_KEY_PAIR_GEN, EC, Takes::Nothing, Feed::Whole, CKF_GENERATE_KEY_PAIR, EC_USES),
    line(CKM_ECDSA, EC, Takes::Nothing, Feed::Digest, SIGN, EC_SIGN),
    line(CKM_ECDSA_SHA256, EC, Takes::Nothing, Feed::Hashed, SIGN, &[Wire::EcdsaSha256]),
    line(CKM_ECDSA_SHA384, EC, Takes::Nothing, Feed::Hashed, SIGN, &[Wire::EcdsaSha384]),
    line(CKM_ECDSA_SHA512, EC, Takes::Nothing, Feed::Hashed, SIGN, &[Wire::EcdsaSha512]),
    line(CKM_ECDSA_SHA3_256, EC, Takes::Nothing, Feed::Hashed, SIGN, &[Wire::EcdsaSha3256]),
    line(CKM_ECDSA_SHA3_384, EC, Takes::Nothing, Feed::Hashed, SIGN, &[Wire::EcdsaSha3384]),
    line(CKM_ECDSA_SHA3_512, EC, Takes::Nothing, Feed::Hashed, SIGN, &[Wire::EcdsaSha3512]),
    line(CKM_ECDH1_DERIVE, EC, Takes::Ecdh, Feed::Whole, CKF_DERIVE, &[Wire::Ecdh]),
    line(CKM_ECDH1_DERIVE, MONTGOMERY, Takes::Ecdh, Feed::Whole, CKF_DERIVE, &[Wire::Ecdh]),
    line(CKM_ECDH1_COFACTOR_DERIVE, EC, Takes::Ecdh, Feed::Whole, CKF_DERIVE, &[Wire::Ecdh]),
    line(CKM_EC_EDWARDS_KEY_PAIR_GEN, EDWARDS, Takes::Nothing, Feed::Whole, CKF_GENERATE_KEY_PAIR, &[Wire::Eddsa]),
    line(CKM_EDDSA, EDWARDS, Takes::EdDsa, Feed::Whole, SIGN, &[Wire::Eddsa]),
    line(CKM_EC_MONTGOMERY_KEY_PAIR_GEN, MONTGOMERY, Takes::Nothing, Feed::Whole, CKF_GENERATE_KEY_PAIR, &[Wire::Ecdh]),
    line(CKM_RSA_PKCS_KEY_PAIR_GEN, RSA, Takes::Nothing, Feed::Whole, CKF_GENERATE_KEY_PAIR, RSA_USES),
    line(CKM_RSA_PKCS, RSA, Takes::Nothing, Feed::DigestInfo, SIGN, PKCS1_SIGN),
    line(CKM_RSA_PKCS, RSA, Takes::Nothing, Feed::Whole, CIPHER, &[Wire::RsaPkcs1]),
    line(CKM_SHA1_RSA_PKCS, RSA, Takes::Nothing, Feed::Hashed, CKF_VERIFY, &[Wire::RsaPkcs1Sha1]),
    line(CKM_SHA256_RSA_PKCS, RSA, Takes::Nothing, Feed::Hashed, SIGN, &[Wire::RsaPkcs1Sha256]),
    line(CKM_SHA384_RSA_PKCS, RSA, Takes::Nothing, Feed::Hashed, SIGN, &[Wire::RsaPkcs1Sha384]),
    line(CKM_SHA512_RSA_PKCS, RSA, Takes::Nothing, Feed::Hashed, SIGN, &[Wire::RsaPkcs1Sha512]),
    line(CKM_RSA_PKCS_PSS, RSA, Takes::Pss, Feed::Digest, SIGN, PSS),
    line(CKM_SHA256_RSA_PKCS_PSS, RSA, Takes::Pss, Feed::Hashed, SIGN, &[Wire::RsaPssSha256]),
    line(CKM_SHA384_RSA_PKCS_PSS, RSA, Takes::Pss, Feed::Hashed, SIGN, &[Wire::RsaPssSha384]),
    line(CKM_SHA512_RSA_PKCS_PSS, RSA, Takes::Pss, Feed::Hashed, SIGN, &[Wire::RsaPssSha512]),
    line(CKM_RSA_PKCS_OAEP, RSA, Takes::Oaep, Feed::Whole, CIPHER | WRAP, OAEP),
    line(CKM_RSA_X_509, RSA, Takes::Nothing, Feed::Whole, CIPHER, &[Wire::RsaRaw]),
    line(CKM_AES_KEY_GEN, AES, Takes::Nothing, Feed::Whole, CKF_GENERATE, AES_USES),
    line(CKM_AES_GCM, AES, Takes::Gcm, Feed::Whole, CIPHER | WRAP, &[Wire::AesGcm]),
    line(CKM_AES_CBC, AES, Takes::Iv16, Feed::Whole, CIPHER, &[Wire::AesCbc]),
    line(CKM_AES_CBC_PAD, AES, Takes::Iv16, Feed::Whole, CIPHER, &[Wire::AesCbcPad]),
    line(CKM_AES_CTR, AES, Takes::Counter, Feed::Whole, CIPHER, &[Wire::AesCtr]),
    line(CKM_AES_CMAC, AES, Takes::Nothing, Feed::Whole, SIGN, &[Wire::AesCmac]),
    line(CKM_AES_KEY_WRAP, AES, Takes::KwIv, Feed::Whole, WRAP, &[Wire::AesKw]),
    line(CKM_AES_KEY_WRAP_KWP, AES, Takes::KwpIv, Feed::Whole, WRAP, &[Wire::AesKwp]),
    line(CKM_AES_KEY_WRAP_PAD, AES, Takes::KwpIv, Feed::Whole, WRAP, &[Wire::AesKwp]),
    line(CKM_CHACHA20_KEY_GEN, CHACHA, Takes::Nothing, Feed::Whole, CKF_GENERATE, &[Wire::Chacha20Poly1305]),
    line(CKM_CHACHA20_POLY1305, CHACHA, Takes::ChaCha, Feed::Whole, CIPHER, &[Wire::Chacha20Poly1305]),
    line(CKM_GENERIC_SECRET_KEY_GEN, SECRET_BITS, Takes::Nothing, Feed::Whole, CKF_GENERATE, SECRET_USES),
    line(CKM_SHA_1_HMAC, SECRET, Takes::Nothing, Feed::Whole, CKF_VERIFY, &[Wire::HmacSha1]),
    line(CKM_SHA224_HMAC, SECRET, Takes::Nothing, Feed::Whole, SIGN, &[Wire::HmacSha224]),
    line(CKM_SHA256_HMAC, SECRET, Takes::Nothing, Feed::Whole, SIGN, &[Wire::HmacSha256]),
    line(CKM_SHA384_HMAC, SECRET, Takes::Nothing, Feed::Whole, SIGN, &[Wire::HmacSha384]),
    line(CKM_SHA512_HMAC, SECRET, Takes::Nothing, Feed::Whole, SIGN, &[Wire::HmacSha512]),
    line(CKM_SHA512_224_HMAC, SECRET, Takes::Nothing, Feed::Whole, SIGN, &[Wire::HmacSha512224]),
    line(CKM_SHA512_256_HMAC, SECRET, Takes::Nothing, Feed::Whole, SIGN, &[Wire::HmacSha512256]),
    line(CKM_SHA3_224_HMAC, SECRET, Takes::Nothing, Feed::Whole, SIGN, &[Wire::HmacSha3224]),
    line(CKM_SHA3_256_HMAC, SECRET, Takes::Nothing, Feed::Whole, SIGN, &[Wire::HmacSha3256]),
    line(CKM_SHA3_384_HMAC, SECRET, Takes::Nothing, Feed::Whole, SIGN, &[Wire::HmacSha3384]),
    line(CKM_SHA3_512_HMAC, SECRET, Takes::Nothing, Feed::Whole, SIGN, &[Wire::HmacSha3512]),
    line(CKM_HKDF_DERIVE, SECRET, Takes::Hkdf, Feed::Whole, CKF_DERIVE, HKDF),
    line(CKM_SP800_108_COUNTER_KDF, SECRET, Takes::KdfCounter, Feed::Whole, CKF_DERIVE, KDF_COUNTER),
    line(CKM_ML_DSA_KEY_PAIR_GEN, ML_DSA, Takes::Nothing, Feed::Whole, CKF_GENERATE_KEY_PAIR, &[Wire::MlDsa]),
    line(CKM_ML_DSA, ML_DSA, Takes::Context, Feed::Whole, SIGN, &[Wire::MlDsa]),
    line(CKM_ML_KEM_KEY_PAIR_GEN, ML_KEM, Takes::Nothing, Feed::Whole, CKF_GENERATE_KEY_PAIR, &[Wire::MlKem]),
    line(CKM_ML_KEM, ML_KEM, Takes::Nothing, Feed::Whole, KEM, &[Wire::MlKem]),
    line(CKM_SLH_DSA_KEY_PAIR_GEN, SLH_DSA, Takes::Nothing, Feed::Whole, CKF_GENERATE_KEY_PAIR, &[Wire::SlhDsa]),
    line(CKM_SLH_DSA, SLH_DSA, Takes::Context, Feed::Whole, SIGN, &[Wire::SlhDsa]),
    line(CKM_SHA_1, NO_KEY, Takes::Nothing, Feed::Hashed, CKF_DIGEST, &[]),
    line(CKM_SHA224, NO_KEY, Takes::Nothing, Feed::Hashed, CKF_DIGEST, &[]),
    line(CKM_SHA256, NO_KEY, Takes::Nothing, Feed::Hashed, CKF_DIGEST, &[]),
    line(CKM_SHA384, NO_KEY, Takes::Nothing, Feed::Hashed, CKF_DIGEST, &[]),
    line(CKM_SHA512, NO_KEY, Takes::Nothing, Feed::Hashed, CKF_DIGEST, &[]),
    line(CKM_SHA512_224, NO_KEY, Takes::Nothing, Feed::Hashed, CKF_DIGEST, &[]),
    line(CKM_SHA512_256, NO_KEY, Takes::Nothing, Feed::Hashed, CKF_DIGEST, &[]),
    line(CKM_SHA3_224, NO_KEY, Takes::Nothing, Feed::Hashed, CKF_DIGEST, &[]),
    line(CKM_SHA3_256, NO_KEY, Takes::Nothing, Feed::Hashed, CKF_DIGEST, &[]),
    line(CKM_SHA3_384, NO_KEY, Takes::Nothing, Feed::Hashed, CKF_DIGEST, &[]),
    line(CKM_SHA3_512, NO_KEY, Takes::Nothing, Feed::Hashed, CKF_DIGEST, &[]),
];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every mechanism of the daemon.
    pub(crate) fn every_wire() -> Vec<Wire> {
        (1..=49).filter_map(|number| Wire::try_from(number).ok()).collect()
    }

    /// Those of a hardened ring.
    pub(crate) fn hardened() -> Vec<Wire> {
        let compatible = [Wire::RsaPkcs1, Wire::RsaRaw];
        every_wire().into_iter().filter(|wire| !compatible.contains(wire)).collect()
    }

    #[test]
    fn the_daemon_s_mechanisms_are_all_reachable_but_x_wing() {
        for wire in every_wire() {
            let reached = rows().any(|row| row.uses_key() && row.wire.contains(&wire));
            assert_eq!(reached, wire != Wire::XWing, "{wire:?}");
        }
    }

    #[test]
    fn the_list_follows_the_ring() {
        let (all, narrower) = (list(&every_wire()), list(&hardened()));
        assert!(all.contains(&CKM_RSA_X_509) && !narrower.contains(&CKM_RSA_X_509));
        assert_eq!(info(CKM_RSA_X_509, &hardened()).err(), Some(Rv(CKR_MECHANISM_INVALID)));
        // One mechanism, two lines: the flags are those of the lines that are offered.
        let flags = |offered: &[Wire]| info(CKM_RSA_PKCS, offered).unwrap().flags;
        assert_eq!(flags(&hardened()), SIGN);
        assert_eq!(flags(&every_wire()), SIGN | CIPHER);
        // A ring that takes one mechanism offers that, its generator and the digests.
        let narrow = list(&[Wire::AesGcm]);
        assert_eq!(narrow[..2], [CKM_AES_KEY_GEN, CKM_AES_GCM]);
        assert_eq!(narrow.len(), 2 + 11);
        let mut sorted = all.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), all.len(), "each mechanism is named once");
    }

    #[test]
    fn where_only_approved_services_are_given_no_key_of_x25519_is_made() {
        let made = |kind| require_made(kind, true);
        assert_eq!(made(CKM_EC_MONTGOMERY_KEY_PAIR_GEN), Err(Rv(CKR_MECHANISM_INVALID)));
        assert_eq!(require_made(CKM_EC_MONTGOMERY_KEY_PAIR_GEN, false), Ok(()));
        assert_eq!(made(CKM_EC_KEY_PAIR_GEN), Ok(()));
    }

    #[test]
    fn sha_1_only_checks() {
        for kind in [CKM_SHA_1_HMAC, CKM_SHA1_RSA_PKCS] {
            assert_eq!(info(kind, &every_wire()).unwrap().flags, CKF_VERIFY);
            assert!(require_offered(kind, CKF_SIGN, &every_wire()).is_err());
            assert!(require_offered(kind, CKF_VERIFY, &every_wire()).is_ok());
        }
        for kind in [CKM_DES3_CBC, CKM_MD5, CKM_AES_ECB, CKM_ECDSA_SHA1] {
            assert_eq!(info(kind, &every_wire()).err(), Some(Rv(CKR_MECHANISM_INVALID)));
        }
    }

    #[test]
    fn both_lines_of_a_mechanism_take_the_same_parameter() {
        for row in rows() {
            assert_eq!(any_row(row.kind).unwrap().takes, row.takes, "{:#x}", row.kind);
        }
    }

    #[test]
    fn what_a_key_can_be_for_follows_from_the_table() {
        let usages = |algorithm| -> Vec<_> {
            operations(algorithm, &hardened()).iter().map(|(one, _)| one.usage).collect()
        };
        assert_eq!(usages(v1::Algorithm::Ed25519), [v1::Usage::Sign, v1::Usage::Verify]);
        assert_eq!(
            usages(v1::Algorithm::EcP384),
            [v1::Usage::Sign, v1::Usage::Verify, v1::Usage::Derive]
        );
        // The daemon agrees on no keys over this curve.
        assert_eq!(usages(v1::Algorithm::EcSecp256k1), [v1::Usage::Sign, v1::Usage::Verify]);
        assert_eq!(usages(v1::Algorithm::X25519), [v1::Usage::Derive]);
        assert_eq!(
            usages(v1::Algorithm::MlKem768),
            [v1::Usage::Encapsulate, v1::Usage::Decapsulate]
        );
        assert!(usages(v1::Algorithm::Aes128).contains(&v1::Usage::Wrap));
        assert!(usages(v1::Algorithm::XWing).is_empty());
    }

    #[test]
    fn a_key_shows_the_mechanisms_that_it_permits() {
        assert_eq!(allowed(v1::Algorithm::Aes256, &[Wire::AesGcm]), [CKM_AES_GCM]);
        assert_eq!(
            allowed(v1::Algorithm::Rsa2048, &[Wire::RsaPkcs1Sha384]),
            [CKM_RSA_PKCS, CKM_SHA384_RSA_PKCS]
        );
        assert_eq!(
            allowed(v1::Algorithm::EcSecp256k1, &[Wire::EcdsaSha256]),
            [CKM_ECDSA, CKM_ECDSA_SHA256]
        );
    }
}
