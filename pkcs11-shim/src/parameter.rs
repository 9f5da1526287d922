//! The parameters of mechanisms: which each takes, and what they mean to the daemon.
//!
//! [`crate::ffi`] has turned structures into these values; a structure of another length, or with NULL
//! where bytes must be, never comes here. What is left to check is whether the values are some that
//! the daemon can do.

use cryptoki_sys::*;
use kms_proto::v1::Mechanism as Wire;

use crate::ffi::CallerBuffer;
use crate::hash::Hash;
use crate::mechanism::{Row, any_row};
use crate::rv::{Result, Rv};

/// A mechanism as the caller names it.
pub(crate) struct Mechanism {
    pub(crate) kind: CK_MECHANISM_TYPE,
    pub(crate) parameter: Parameter,
}

/// Which parameter a mechanism takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Takes {
    ChaCha,
    Context,
    Counter,
    Ecdh,
    EdDsa,
    Gcm,
    Hkdf,
    Iv16,
    KdfCounter,
    KwIv,
    KwpIv,
    Nothing,
    Oaep,
    Pss,
}

/// A parameter, read according to the mechanism.
pub(crate) enum Parameter {
    /// `CK_GCM_PARAMS`, `CK_SALSA20_CHACHA20_POLY1305_PARAMS`.
    Aead(Aead),
    /// Bytes without a structure: an IV.
    Bytes(Vec<u8>),
    /// `CK_SIGN_ADDITIONAL_CONTEXT`.
    Context {
        hedge: CK_HEDGE_TYPE,
        context: Vec<u8>,
    },
    /// `CK_AES_CTR_PARAMS`.
    Counter {
        bits: CK_ULONG,
        block: [u8; 16],
    },
    /// `CK_ECDH1_DERIVE_PARAMS`.
    Ecdh {
        kdf: CK_EC_KDF_TYPE,
        shared: Vec<u8>,
        public: Vec<u8>,
    },
    /// `CK_EDDSA_PARAMS`.
    EdDsa {
        prehash: bool,
        context: Vec<u8>,
    },
    /// `CK_HKDF_PARAMS`.
    Hkdf(Hkdf),
    /// `CK_SP800_108_KDF_PARAMS`.
    KdfCounter(KdfCounter),
    None,
    /// `CK_RSA_PKCS_OAEP_PARAMS`.
    Oaep(Oaep),
    /// Something that the mechanism does not take.
    Other,
    /// `CK_RSA_PKCS_PSS_PARAMS`.
    Pss(CK_RSA_PKCS_PSS_PARAMS),
}

/// What goes with authenticated encryption.
pub(crate) struct Aead {
    /// What stands in the buffer of the IV or nonce.
    pub(crate) iv: Vec<u8>,
    /// That buffer, into which the IV of an encryption is written.
    pub(crate) iv_buffer: CallerBuffer,
    pub(crate) additional_data: Vec<u8>,
    pub(crate) tag_bits: CK_ULONG,
}

/// `CK_HKDF_PARAMS` without its pointers.
pub(crate) struct Hkdf {
    pub(crate) extract: bool,
    pub(crate) expand: bool,
    pub(crate) hash: CK_MECHANISM_TYPE,
    pub(crate) salt_type: CK_ULONG,
    pub(crate) salt: Vec<u8>,
    pub(crate) info: Vec<u8>,
}

/// `CK_SP800_108_KDF_PARAMS` without its pointers.
pub(crate) struct KdfCounter {
    pub(crate) prf: CK_MECHANISM_TYPE,
    pub(crate) pieces: Vec<Piece>,
    /// How many further keys are wanted.
    pub(crate) further_keys: CK_ULONG,
}

/// One piece of what the function is fed with (PKCS#11 v3.1 §6.42).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    Counter { little_endian: bool, bits: CK_ULONG },
    Length { method: CK_ULONG, little_endian: bool, bits: CK_ULONG },
    Other,
}

/// `CK_RSA_PKCS_OAEP_PARAMS` without its pointer.
pub(crate) struct Oaep {
    pub(crate) hash: CK_MECHANISM_TYPE,
    pub(crate) mgf: CK_RSA_PKCS_MGF_TYPE,
    pub(crate) source: CK_RSA_PKCS_OAEP_SOURCE_TYPE,
    pub(crate) label: Vec<u8>,
}

/// What a cipher needs besides the key, as the daemon takes it.
pub(crate) struct Cipher {
    pub(crate) wire: Wire,
    /// IV, nonce or first counter block; empty for RSA and key wrapping.
    pub(crate) iv: Vec<u8>,
    pub(crate) iv_buffer: Option<CallerBuffer>,
    /// Or the label of OAEP.
    pub(crate) additional_data: Vec<u8>,
    /// After how many blocks the counter would begin anew, where it is shorter than a block.
    pub(crate) blocks_max: u128,
}

/// What a derivation needs besides the key, as the daemon takes it.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Derivation {
    pub(crate) wire: Wire,
    pub(crate) salt: Vec<u8>,
    /// `info` of HKDF, the label of the counter function.
    pub(crate) info: Vec<u8>,
    pub(crate) context: Vec<u8>,
}

impl Mechanism {
    /// Refuses a parameter where none is taken.
    pub(crate) fn without_parameter(&self) -> Result<()> {
        if matches!(self.parameter, Parameter::None) { Ok(()) } else { refused() }
    }

    /// The hash function of a signature in which the parameter names it, and the context of one
    /// that has a context.
    pub(crate) fn of_signature(&self, row: &Row) -> Result<(Option<Wire>, Vec<u8>)> {
        match (row.takes, &self.parameter) {
            (Takes::Nothing, Parameter::None)
            | (Takes::EdDsa | Takes::Context, Parameter::None) => Ok((None, Vec::new())),
            (Takes::EdDsa, Parameter::EdDsa { prehash: false, context }) if context.is_empty() => {
                Ok((None, Vec::new()))
            }
            // The daemon's signatures are hedged, so whoever must have others is refused.
            (Takes::Context, Parameter::Context { hedge, context })
                if [CKH_HEDGE_PREFERRED, CKH_HEDGE_REQUIRED].contains(hedge)
                    && context.len() <= CONTEXT_BYTES_MAX =>
            {
                Ok((None, context.clone()))
            }
            (Takes::Pss, Parameter::Pss(parameters)) => {
                Ok((Some(pss(row, *parameters)?), Vec::new()))
            }
            _ => refused(),
        }
    }

    /// What encryption, decryption and key wrapping take.
    pub(crate) fn into_cipher(self, row: &Row) -> Result<Cipher> {
        let plain = |wire, iv| Cipher {
            wire,
            iv,
            iv_buffer: None,
            additional_data: Vec::new(),
            blocks_max: u128::MAX,
        };
        let wire = *row.wire.first().ok_or(Rv(CKR_MECHANISM_INVALID))?;
        match (row.takes, self.parameter) {
            (Takes::Nothing | Takes::KwIv | Takes::KwpIv, Parameter::None) => {
                Ok(plain(wire, Vec::new()))
            }
            // The initial values of RFC 3394 §2.2.3.1 and RFC 5649 §3 are the daemon's only ones.
            (Takes::KwIv, Parameter::Bytes(iv)) if iv == [0xa6; 8] => Ok(plain(wire, Vec::new())),
            (Takes::KwpIv, Parameter::Bytes(iv)) if iv == [0xa6, 0x59, 0x59, 0xa6] => {
                Ok(plain(wire, Vec::new()))
            }
            (Takes::Iv16, Parameter::Bytes(iv)) if iv.len() == BLOCK_BYTES => Ok(plain(wire, iv)),
            (Takes::Counter, Parameter::Counter { bits, block }) => {
                Ok(Cipher { blocks_max: blocks_max(bits, block)?, ..plain(wire, block.to_vec()) })
            }
            (Takes::Gcm | Takes::ChaCha, Parameter::Aead(aead))
                if aead.iv.len() == NONCE_BYTES && aead.tag_bits == TAG_BITS =>
            {
                let Aead { iv, iv_buffer, additional_data, .. } = aead;
                Ok(Cipher { iv_buffer: Some(iv_buffer), additional_data, ..plain(wire, iv) })
            }
            (Takes::Oaep, Parameter::Oaep(Oaep { hash, mgf, source, label })) => {
                let wire = of_hash(row, hash, mgf)?;
                // Without a label the source may be unspecified.
                if source != CKZ_DATA_SPECIFIED && !(source == 0 && label.is_empty()) {
                    return refused();
                }
                Ok(Cipher { additional_data: label, ..plain(wire, Vec::new()) })
            }
            _ => refused(),
        }
    }

    /// What a derivation out of a secret takes.
    pub(crate) fn into_derivation(self, row: &Row) -> Result<Derivation> {
        match (row.takes, self.parameter) {
            (Takes::Hkdf, Parameter::Hkdf(hkdf)) => {
                let Hkdf { extract, expand, hash, salt_type, salt, info } = hkdf;
                // The daemon does both steps, and has no salt that is a key.
                let salt = match salt_type {
                    CKF_HKDF_SALT_NULL => Vec::new(),
                    CKF_HKDF_SALT_DATA => salt,
                    _ => return refused(),
                };
                if !extract || !expand || salt.len().max(info.len()) > DERIVE_BYTES_MAX {
                    return refused();
                }
                let wire = with_hash(row, Hash::of_kind(hash))?;
                Ok(Derivation { wire, salt, info, context: Vec::new() })
            }
            (
                Takes::KdfCounter,
                Parameter::KdfCounter(KdfCounter { prf, pieces, further_keys: 0 }),
            ) => {
                let hash = match prf {
                    CKM_SHA256_HMAC => Hash::Sha256,
                    CKM_SHA384_HMAC => Hash::Sha384,
                    CKM_SHA512_HMAC => Hash::Sha512,
                    _ => return refused(),
                };
                let (info, context) = label_and_context(&pieces)?;
                Ok(Derivation {
                    wire: with_hash(row, Some(hash))?,
                    salt: Vec::new(),
                    info,
                    context,
                })
            }
            _ => refused(),
        }
    }

    /// The peer's public point of an agreement without a key derivation function.
    pub(crate) fn into_peer(self) -> Result<Vec<u8>> {
        match self.parameter {
            Parameter::Ecdh { kdf: CKD_NULL, shared, public } if shared.is_empty() => Ok(public),
            _ => refused(),
        }
    }
}

/// Hash and MGF1 of the same function, and a salt as long as a digest (FIPS 186-5 §5.4).
fn pss(row: &Row, parameters: CK_RSA_PKCS_PSS_PARAMS) -> Result<Wire> {
    let CK_RSA_PKCS_PSS_PARAMS { hashAlg, mgf, sLen } = parameters;
    let wire = of_hash(row, hashAlg, mgf)?;
    let bytes = Hash::of_wire(wire).map(|hash| hash.bytes() as CK_ULONG);
    if bytes == Some(sLen) { Ok(wire) } else { refused() }
}

fn of_hash(row: &Row, kind: CK_MECHANISM_TYPE, mgf: CK_RSA_PKCS_MGF_TYPE) -> Result<Wire> {
    let hash = Hash::of_kind(kind).filter(|hash| hash.mgf() == Some(mgf));
    with_hash(row, hash)
}

fn with_hash(row: &Row, hash: Option<Hash>) -> Result<Wire> {
    let found = row.wire.iter().find(|wire| hash.is_some() && Hash::of_wire(**wire) == hash);
    found.copied().ok_or(Rv(CKR_MECHANISM_PARAM_INVALID))
}

/// The daemon counts with the whole block. A shorter counter is the same until it begins anew, which
/// must not happen: then key stream would be used twice.
fn blocks_max(bits: CK_ULONG, block: [u8; BLOCK_BYTES]) -> Result<u128> {
    match bits {
        128 => Ok(u128::MAX),
        1..128 => {
            let counters = 1_u128 << bits;
            Ok(counters - (u128::from_be_bytes(block) & (counters - 1)))
        }
        _ => refused(),
    }
}

/// The daemon's fixed input is that of SP 800-108r1 §4.1, counter first, numbers of 32 bits:
///
/// ```text
/// [i] || label || 0x00 || context || [L]
/// ```
///
/// So whatever stands between counter and length is cut at its first zero byte.
fn label_and_context(pieces: &[Piece]) -> Result<(Vec<u8>, Vec<u8>)> {
    let [
        Piece::Counter { little_endian: false, bits: 32 },
        between @ ..,
        Piece::Length { method, little_endian: false, bits: 32 },
    ] = pieces
    else {
        return refused();
    };
    // Of one key alone, the sum of keys is its length; segments are something else.
    if *method != CK_SP800_108_DKM_LENGTH_SUM_OF_KEYS {
        return refused();
    }
    let mut fixed = Vec::new();
    for piece in between {
        let Piece::Bytes(bytes) = piece else { return refused() };
        fixed.extend_from_slice(bytes);
    }
    let cut = fixed.iter().position(|byte| *byte == 0).ok_or(Rv(CKR_MECHANISM_PARAM_INVALID))?;
    let (label, context) = (fixed[..cut].to_vec(), fixed[cut + 1..].to_vec());
    if label.len().max(context.len()) > DERIVE_BYTES_MAX {
        return refused();
    }
    Ok((label, context))
}

fn refused<T>() -> Result<T> {
    Err(Rv(CKR_MECHANISM_PARAM_INVALID))
}

/// For people: what a parameter must be. The code alone tells nobody what to change.
pub(crate) fn expectation(kind: CK_MECHANISM_TYPE) -> String {
    let form = any_row(kind).map_or("no parameter", |row| form(row.takes));
    format!("mechanism {kind:#x} takes {form}")
}

const fn form(takes: Takes) -> &'static str {
    match takes {
        Takes::ChaCha => "a nonce of 12 bytes and at most 64 KiB of additional data",
        Takes::Context => "no parameter, or a context of at most 255 bytes, hedged",
        Takes::Counter => "a counter of 1 to 128 bits and its first block",
        Takes::Ecdh => "CKD_NULL, no shared data, and the peer's point",
        Takes::EdDsa => "no parameter, or one without prehash and context",
        Takes::Gcm => {
            "an IV of 12 bytes and a tag of 128 bits; in a hardened token the IV is made by the \
             appliance: give 12 zero bytes, it is written there"
        }
        Takes::Hkdf => {
            "extract and expand with SHA-256, SHA-384 or SHA-512, and no salt that is a key"
        }
        Takes::Iv16 => "an IV of 16 bytes",
        Takes::KdfCounter => {
            "HMAC with SHA-256, SHA-384 or SHA-512 over a 32-bit counter, label, zero byte, context \
             and a 32-bit length, all big-endian, for one key"
        }
        Takes::KwIv | Takes::KwpIv => "no parameter",
        Takes::Nothing => "no parameter",
        Takes::Oaep => "SHA-256, SHA-384 or SHA-512 with MGF1 of the same hash; SHA-1 is not taken",
        Takes::Pss => {
            "SHA-256, SHA-384 or SHA-512 with MGF1 of the same hash and a salt as long as the digest"
        }
    }
}

/// Length of AEAD nonces, of their tags, and of a block of AES.
pub(crate) const NONCE_BYTES: usize = 12;
pub(crate) const TAG_BYTES: usize = 16;
pub(crate) const BLOCK_BYTES: usize = 16;
pub(crate) const TAG_BITS: CK_ULONG = 128;

/// Bounds of the daemon.
const CONTEXT_BYTES_MAX: usize = 255;
const DERIVE_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn derivation(kind: CK_MECHANISM_TYPE, parameter: Parameter) -> Result<Derivation> {
        Mechanism { kind, parameter }.into_derivation(any_row(kind).unwrap())
    }

    fn cipher(kind: CK_MECHANISM_TYPE, parameter: Parameter) -> Result<(Wire, Vec<u8>)> {
        let row = any_row(kind).unwrap();
        Mechanism { kind, parameter }.into_cipher(row).map(|cipher| (cipher.wire, cipher.iv))
    }

    #[test]
    fn hkdf_is_the_whole_of_it_with_a_salt_of_bytes() {
        let hkdf = || Hkdf {
            extract: true,
            expand: true,
            hash: CKM_SHA384,
            salt_type: CKF_HKDF_SALT_DATA,
            salt: vec![1],
            info: vec![2],
        };
        let read = |hkdf| derivation(CKM_HKDF_DERIVE, Parameter::Hkdf(hkdf));
        let expected = Derivation {
            wire: Wire::HkdfSha384,
            salt: vec![1],
            info: vec![2],
            context: Vec::new(),
        };
        assert_eq!(read(hkdf()), Ok(expected));
        let unsalted = read(Hkdf { salt_type: CKF_HKDF_SALT_NULL, ..hkdf() }).unwrap();
        assert!(unsalted.salt.is_empty());
        for bad in [
            Hkdf { extract: false, ..hkdf() },
            Hkdf { expand: false, ..hkdf() },
            Hkdf { hash: CKM_SHA_1, ..hkdf() },
            Hkdf { hash: CKM_SHA3_256, ..hkdf() },
            Hkdf { salt_type: CKF_HKDF_SALT_KEY, ..hkdf() },
            Hkdf { salt_type: 0, ..hkdf() },
            Hkdf { info: vec![0; 1025], ..hkdf() },
            Hkdf { salt: vec![0; 1025], ..hkdf() },
        ] {
            assert_eq!(read(bad), refused());
        }
        assert_eq!(derivation(CKM_HKDF_DERIVE, Parameter::None), refused());
        assert_eq!(derivation(CKM_HKDF_DERIVE, Parameter::Other), refused());
    }

    #[test]
    fn a_counter_kdf_must_be_the_one_that_the_daemon_has() {
        let counter = |little_endian, bits| Piece::Counter { little_endian, bits };
        let length = |method, bits| Piece::Length { method, little_endian: false, bits };
        let text = |bytes: &[u8]| Piece::Bytes(bytes.to_vec());
        let sum = CK_SP800_108_DKM_LENGTH_SUM_OF_KEYS;
        let read = |prf, further_keys, pieces: &[Piece]| {
            let pieces = pieces.to_vec();
            let kdf = KdfCounter { prf, pieces, further_keys };
            derivation(CKM_SP800_108_COUNTER_KDF, Parameter::KdfCounter(kdf))
        };
        let whole = [counter(false, 32), text(b"label\0con\0text"), length(sum, 32)];
        let expected = Derivation {
            wire: Wire::KdfCounterHmacSha512,
            salt: Vec::new(),
            info: b"label".to_vec(),
            context: b"con\0text".to_vec(),
        };
        assert_eq!(read(CKM_SHA512_HMAC, 0, &whole).as_ref(), Ok(&expected));
        let apart =
            [counter(false, 32), text(b"label"), text(&[0]), text(b"con\0text"), length(sum, 32)];
        assert_eq!(read(CKM_SHA512_HMAC, 0, &apart).as_ref(), Ok(&expected));
        let [good, text_piece, end] = whole.clone();
        for bad in [
            &[][..],
            &[good.clone(), end.clone()],
            &[good.clone(), text(b"no zero"), end.clone()],
            &[good.clone(), text_piece.clone()],
            &[text_piece.clone(), good.clone(), end.clone()],
            &[counter(true, 32), text_piece.clone(), end.clone()],
            &[counter(false, 16), text_piece.clone(), end.clone()],
            &[good.clone(), text_piece.clone(), length(sum, 16)],
            &[
                good.clone(),
                text_piece.clone(),
                length(CK_SP800_108_DKM_LENGTH_SUM_OF_SEGMENTS, 32),
            ],
            &[good.clone(), Piece::Other, text_piece.clone(), end.clone()],
            &[good.clone(), text(&[1; 1025]), text(&[0]), end.clone()],
        ] {
            assert_eq!(read(CKM_SHA512_HMAC, 0, bad), refused(), "{bad:?}");
        }
        assert_eq!(read(CKM_SHA_1_HMAC, 0, &whole), refused());
        assert_eq!(read(CKM_AES_CMAC, 0, &whole), refused());
        assert_eq!(read(CKM_SHA256_HMAC, 1, &whole), refused());
    }

    #[test]
    fn key_wrapping_has_its_standard_initial_value() {
        let bytes = |bytes: &[u8]| Parameter::Bytes(bytes.to_vec());
        assert_eq!(cipher(CKM_AES_KEY_WRAP, Parameter::None), Ok((Wire::AesKw, Vec::new())));
        assert_eq!(cipher(CKM_AES_KEY_WRAP, bytes(&[0xa6; 8])), Ok((Wire::AesKw, Vec::new())));
        assert_eq!(cipher(CKM_AES_KEY_WRAP, bytes(&[0; 8])), refused());
        for kind in [CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD] {
            assert_eq!(cipher(kind, Parameter::None), Ok((Wire::AesKwp, Vec::new())));
            assert!(cipher(kind, bytes(&[0xa6, 0x59, 0x59, 0xa6])).is_ok());
            assert_eq!(cipher(kind, bytes(&[0xa6; 8])), refused());
        }
    }

    #[test]
    fn agreement_is_without_a_key_derivation_function() {
        let peer = |kdf, shared: &[u8]| {
            let (shared, public) = (shared.to_vec(), vec![4]);
            let parameter = Parameter::Ecdh { kdf, shared, public };
            Mechanism { kind: CKM_ECDH1_DERIVE, parameter }.into_peer()
        };
        assert_eq!(peer(CKD_NULL, b""), Ok(vec![4]));
        assert_eq!(peer(CKD_NULL, b"x"), refused());
        assert_eq!(peer(CKD_NULL + 1, b""), refused());
    }

    #[test]
    fn every_refusal_can_say_what_was_expected() {
        assert!(expectation(CKM_RSA_PKCS_OAEP).contains("SHA-1 is not taken"));
        assert!(expectation(CKM_AES_GCM).contains("12 zero bytes"));
        assert!(expectation(CKM_DES3_CBC).contains("no parameter"));
    }
}
