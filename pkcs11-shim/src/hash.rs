//! Hash functions: their numbers in PKCS#11, digests made here, and the DigestInfo around them.
//!
//! Digests are made in the module and not by the daemon: there is no secret in them, so a message may
//! have any length, nobody must be logged in, and nothing travels or is recorded.

use cryptoki_sys::*;
use kms_proto::v1::Mechanism as Wire;
use sha2::digest::DynDigest;

/// A digest that is being made.
pub(crate) type Hasher = Box<dyn DynDigest + Send>;

macro_rules! hashes {
    ($($name:ident $hasher:ty, $bytes:literal, $kind:ident, $mgf:expr, $arc:expr, [$($wire:ident)*];)+) => {
        /// A hash function (FIPS 180-4, FIPS 202).
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Hash { $($name,)+ }

        impl Hash {
            const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The function of a `CKM_` number, as in parameters and in `C_DigestInit`.
            pub(crate) fn of_kind(kind: CK_MECHANISM_TYPE) -> Option<Self> {
                match kind { $($kind => Some(Self::$name),)+ _ => None }
            }

            /// The function that belongs to a mechanism of the daemon.
            pub(crate) const fn of_wire(wire: Wire) -> Option<Self> {
                match wire { $($(Wire::$wire)|* => Some(Self::$name),)+ _ => None }
            }

            /// The number of MGF1 with this function.
            pub(crate) const fn mgf(self) -> Option<CK_RSA_PKCS_MGF_TYPE> {
                match self { $(Self::$name => $mgf,)+ }
            }

            /// Length of a digest.
            pub(crate) const fn bytes(self) -> usize {
                match self { $(Self::$name => $bytes,)+ }
            }

            /// Begins a digest.
            pub(crate) fn hasher(self) -> Hasher {
                match self { $(Self::$name => Box::new(<$hasher>::default()),)+ }
            }

            /// Last arc of its identifier below 2.16.840.1.101.3.4.2; `None` for SHA-1.
            const fn arc(self) -> Option<u8> {
                match self { $(Self::$name => $arc,)+ }
            }
        }
    };
}

hashes! {
    Sha1 sha1::Sha1, 20, CKM_SHA_1, Some(CKG_MGF1_SHA1), None, [HmacSha1 RsaPkcs1Sha1];
    Sha224 sha2::Sha224, 28, CKM_SHA224, Some(CKG_MGF1_SHA224), Some(4), [HmacSha224];
    Sha256 sha2::Sha256, 32, CKM_SHA256, Some(CKG_MGF1_SHA256), Some(1),
        [EcdsaSha256 HkdfSha256 HmacSha256 KdfCounterHmacSha256 RsaOaepSha256 RsaPkcs1Sha256 RsaPssSha256];
    Sha384 sha2::Sha384, 48, CKM_SHA384, Some(CKG_MGF1_SHA384), Some(2),
        [EcdsaSha384 HkdfSha384 HmacSha384 KdfCounterHmacSha384 RsaOaepSha384 RsaPkcs1Sha384 RsaPssSha384];
    Sha512 sha2::Sha512, 64, CKM_SHA512, Some(CKG_MGF1_SHA512), Some(3),
        [EcdsaSha512 HkdfSha512 HmacSha512 KdfCounterHmacSha512 RsaOaepSha512 RsaPkcs1Sha512 RsaPssSha512];
    Sha512_224 sha2::Sha512_224, 28, CKM_SHA512_224, None, Some(5), [HmacSha512224];
    Sha512_256 sha2::Sha512_256, 32, CKM_SHA512_256, None, Some(6), [HmacSha512256];
    Sha3_224 sha3::Sha3_224, 28, CKM_SHA3_224, Some(CKG_MGF1_SHA3_224), Some(7), [HmacSha3224];
    Sha3_256 sha3::Sha3_256, 32, CKM_SHA3_256, Some(CKG_MGF1_SHA3_256), Some(8), [EcdsaSha3256 HmacSha3256];
    Sha3_384 sha3::Sha3_384, 48, CKM_SHA3_384, Some(CKG_MGF1_SHA3_384), Some(9), [EcdsaSha3384 HmacSha3384];
    Sha3_512 sha3::Sha3_512, 64, CKM_SHA3_512, Some(CKG_MGF1_SHA3_512), Some(10), [EcdsaSha3512 HmacSha3512];
}

impl Hash {
    /// Reads a DigestInfo: the function and the digest. Only the one form that DER has for it, with
    /// parameters NULL, because the daemon makes it anew (RFC 8017 §9.2).
    pub(crate) fn of_digest_info(info: &[u8]) -> Option<(Self, &[u8])> {
        Self::ALL.iter().find_map(|hash| {
            let digest = info.strip_prefix(&hash.digest_info_prefix()[..])?;
            (digest.len() == hash.bytes()).then_some((*hash, digest))
        })
    }

    /// The DigestInfo of a digest (RFC 8017 §9.2).
    pub(crate) fn digest_info(self, digest: &[u8]) -> Vec<u8> {
        [&self.digest_info_prefix()[..], digest].concat()
    }

    /// What stands before the digest in a DigestInfo.
    ///
    /// ```text
    /// SEQUENCE { SEQUENCE { OBJECT IDENTIFIER, NULL }, OCTET STRING }
    /// ```
    fn digest_info_prefix(self) -> Vec<u8> {
        let identifier = match self.arc() {
            Some(arc) => vec![0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, arc],
            // 1.3.14.3.2.26
            None => vec![0x2b, 0x0e, 0x03, 0x02, 0x1a],
        };
        // All lengths are below 128: an identifier has at most 9 bytes, a digest 64.
        let (identifier_bytes, digest_bytes) = (identifier.len() as u8, self.bytes() as u8);
        let algorithm_bytes = identifier_bytes + 4;
        let mut prefix = vec![0x30, algorithm_bytes + digest_bytes + 4, 0x30, algorithm_bytes];
        prefix.extend([0x06, identifier_bytes]);
        prefix.extend(identifier);
        prefix.extend([0x05, 0x00, 0x04, digest_bytes]);
        prefix
    }
}

/// The longest DigestInfo there is, that of SHA-512.
pub(crate) const DIGEST_INFO_BYTES_MAX: usize = 19 + 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_info_names_its_hash() {
        // RFC 8017 §9.2 note 1.
        let sha256 = [
            0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
            0x01, 0x05, 0x00, 0x04, 0x20,
        ];
        let sha1 = [
            0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04,
            0x14,
        ];
        assert_eq!(Hash::Sha256.digest_info_prefix(), sha256);
        assert_eq!(Hash::Sha1.digest_info_prefix(), sha1);
        for hash in Hash::ALL {
            let digest = vec![7; hash.bytes()];
            let info = [hash.digest_info_prefix(), digest.clone()].concat();
            assert_eq!(Hash::of_digest_info(&info), Some((*hash, &digest[..])));
            assert!(info.len() <= DIGEST_INFO_BYTES_MAX);
            assert_eq!(Hash::of_digest_info(&info[1..]), None);
            assert_eq!(Hash::of_digest_info(&info[..info.len() - 1]), None);
            assert_eq!(Hash::of_digest_info(&[&info[..], &[0]].concat()), None);
            assert_eq!(hash.hasher().output_size(), hash.bytes());
        }
        // Without the NULL it is another DER, which the daemon would not make.
        let mut bare = sha256.to_vec();
        bare.drain(15..17);
        bare.extend([7; 32]);
        assert_eq!(Hash::of_digest_info(&bare), None);
        assert_eq!(Hash::of_digest_info(&[]), None);
    }

    #[test]
    fn sha3_is_the_one_of_fips_202() {
        let mut hasher = Hash::Sha3_256.hasher();
        hasher.update(b"abc");
        assert_eq!(hasher.finalize()[..4], [0x3a, 0x98, 0x5d, 0xa7]);
    }
}
