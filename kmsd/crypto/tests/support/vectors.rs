//! What the tests of this crate on published vectors share: the files, both providers, and keys out of
//! the values.

#![allow(dead_code, unused_imports, reason = "each test takes what it needs")]

#[path = "files.rs"]
mod files;

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use kms_crypto::material::Material;
use kms_crypto::mechanism::key_form;
use kms_crypto::provider::Provider;
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::provider::purerust::PureRust;

pub(crate) use files::*;

pub(crate) const PROVIDERS: [&dyn Provider; 2] = [&AwsLc, &PureRust];

pub(crate) fn material(bytes: &[u8]) -> Material {
    Material::import(&mut bytes.to_vec()).unwrap()
}

/// Whether a secret is `expected`. Nobody outside the crate can read it, so a tag made with it tells.
pub(crate) fn is(provider: &dyn Provider, secret: &Material, expected: &[u8]) -> bool {
    let tag = |key: &Material| provider.mac(Mechanism::HmacSha256, key, b"compare").unwrap();
    secret.len() == expected.len() && tag(secret) == tag(&material(expected))
}

/// PKCS#8 around `inner`, with the identifier that a public key of `raw_bytes` has.
pub(crate) fn pkcs8(algorithm: Algorithm, raw_bytes: usize, inner: &[u8]) -> Vec<u8> {
    let spki = key_form::public_key_from_raw(algorithm, &vec![0; raw_bytes]).unwrap();
    // The first element of the outer sequence, whose own length is short.
    let at = if spki[1] < 0x80 { 2 } else { 2 + usize::from(spki[1] & 0x7f) };
    let identifier = &spki[at..at + 2 + usize::from(spki[at + 1])];
    tlv(0x30, &[&integer(&[0]), identifier, &tlv(4, &[inner])])
}

/// A private scalar as PKCS#8 around RFC 5915.
pub(crate) fn ec_pkcs8(algorithm: Algorithm, scalar: &[u8]) -> Vec<u8> {
    let sec1 = tlv(0x30, &[&integer(&[1]), &tlv(4, &[scalar])]);
    pkcs8(algorithm, 2 * field_bytes(algorithm) + 1, &sec1)
}

pub(crate) fn field_bytes(algorithm: Algorithm) -> usize {
    (algorithm.bits() as usize).div_ceil(8)
}
