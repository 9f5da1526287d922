//! Known answers of the mechanisms with key pairs, by family.

use kms_core::mechanism::Mechanism;

use super::{Known, KnownAnswer};

mod curve;
mod post_quantum;
mod rsa;

pub(super) fn known_answer(mechanism: Mechanism) -> Option<KnownAnswer> {
    match mechanism {
        Mechanism::Ecdh => Some(curve::agreement),
        Mechanism::EcdsaSha256
        | Mechanism::EcdsaSha384
        | Mechanism::EcdsaSha512
        | Mechanism::EcdsaSha3_256
        | Mechanism::EcdsaSha3_384
        | Mechanism::EcdsaSha3_512 => Some(curve::ecdsa),
        Mechanism::EdDsa => Some(curve::ed25519),
        Mechanism::MlDsa => Some(post_quantum::ml_dsa),
        Mechanism::MlKem => Some(post_quantum::ml_kem),
        Mechanism::RsaOaepSha256
        | Mechanism::RsaOaepSha384
        | Mechanism::RsaOaepSha512
        | Mechanism::RsaPkcs1
        | Mechanism::RsaRaw => Some(rsa::decryption),
        Mechanism::RsaPkcs1Sha1
        | Mechanism::RsaPkcs1Sha256
        | Mechanism::RsaPkcs1Sha384
        | Mechanism::RsaPkcs1Sha512
        | Mechanism::RsaPssSha256
        | Mechanism::RsaPssSha384
        | Mechanism::RsaPssSha512 => Some(rsa::signature),
        Mechanism::SlhDsa => Some(post_quantum::slh_dsa),
        Mechanism::XWing => Some(post_quantum::x_wing),
        _ => None,
    }
}
