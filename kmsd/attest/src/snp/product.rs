//! The processor families that sign SEV-SNP reports, and the vendor's root key of each.

use core::fmt;

use kms_core::claims::TrustRoot;
use kms_core::id::Digest;

use super::report::SigningKey;

/// A processor family with one root key.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Product {
    /// EPYC 9004 and its variants.
    Genoa,
    /// EPYC 7003.
    Milan,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// Every product.
    pub const ALL: [Self; 3] = [Self::Genoa, Self::Milan, Self::Turin];

    /// The name in certificates.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Genoa => "Genoa",
            Self::Milan => "Milan",
            Self::Turin => "Turin",
        }
    }

    /// The product of that name in a certificate's product extension, which may add a stepping
    /// (`Milan-B0`).
    pub fn from_extension(name: &str) -> Option<Self> {
        let family = name.split_once('-').map_or(name, |(family, _)| family);
        Self::ALL.into_iter().find(|product| product.as_str() == family)
    }

    /// The product of that CPUID family and model.
    pub const fn from_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x1f) => Some(Self::Turin),
            _ => None,
        }
    }

    /// Common name of the root certificate.
    pub fn root_name(self) -> String {
        format!("ARK-{self}")
    }

    /// Common name of the authority that issues the keys of that kind.
    pub fn authority_name(self, kind: SigningKey) -> String {
        match kind {
            SigningKey::Vcek => format!("SEV-{self}"),
            SigningKey::Vlek => format!("SEV-VLEK-{self}"),
        }
    }

    /// How many bytes of CHIP_ID are the hardware id; the rest is zero.
    pub const fn hardware_id_bytes(self) -> usize {
        match self {
            Self::Genoa | Self::Milan => 64,
            Self::Turin => 8,
        }
    }

    /// Whose root it is that has this public key, if it is one that this crate pins.
    pub fn pinned(self, key_fingerprint: &Digest) -> Option<TrustRoot> {
        let pin = match self {
            Self::Genoa => GENOA_ARK,
            Self::Milan => MILAN_ARK,
            Self::Turin => TURIN_ARK,
        };
        (key_fingerprint.as_bytes() == &pin).then_some(TrustRoot::Vendor)
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// SHA-256 of the SubjectPublicKeyInfo of AMD's root key (ARK) for each product.
const GENOA_ARK: [u8; 32] = [
    0x42, 0x9a, 0x69, 0xc9, 0x42, 0x2a, 0xa2, 0x58, 0xee, 0x4d, 0x8d, 0xb5, 0xfc, 0xda, 0x9c, 0x64,
    0x70, 0xef, 0x15, 0xf8, 0xcd, 0x5a, 0x9c, 0xeb, 0xd6, 0xcb, 0xc7, 0xd9, 0x0b, 0x86, 0x38, 0x31,
];
const MILAN_ARK: [u8; 32] = [
    0x9f, 0x05, 0x6b, 0xee, 0x44, 0x37, 0x7e, 0x29, 0x30, 0x8c, 0xb5, 0xff, 0xa8, 0x95, 0xbd, 0xfb,
    0x62, 0xd1, 0x88, 0x81, 0xfa, 0x6b, 0xed, 0x8d, 0x6f, 0x07, 0x5b, 0x02, 0x04, 0x08, 0x9c, 0xb9,
];
const TURIN_ARK: [u8; 32] = [
    0x4f, 0x12, 0x54, 0x10, 0x56, 0x3a, 0x2a, 0xb9, 0xa5, 0x03, 0x56, 0xf9, 0x24, 0x3f, 0x6f, 0xe0,
    0xb6, 0xf7, 0x3d, 0xe9, 0x86, 0x03, 0xf5, 0x3f, 0x90, 0x33, 0x9c, 0x70, 0xe9, 0xd7, 0xad, 0x08,
];
