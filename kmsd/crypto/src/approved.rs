//! Which services FIPS 140-3 calls approved (SP 800-140C and D). The daemon shows it with every answer,
//! and refuses the rest in a ring that is approved-only.

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;

/// Whether using a key of `algorithm` with `mechanism` is an approved service.
///
/// It says nothing of the library's certificate, nor of how an IV came about: with an IV of the caller,
/// encrypting with AES-GCM is no approved service (implementation guidance C.H).
pub const fn approved(mechanism: Mechanism, algorithm: Algorithm) -> bool {
    approved_algorithm(algorithm) && approved_mechanism(mechanism)
}

const fn approved_algorithm(algorithm: Algorithm) -> bool {
    match algorithm {
        Algorithm::Aes128
        | Algorithm::Aes192
        | Algorithm::Aes256
        | Algorithm::EcP256
        | Algorithm::EcP384
        | Algorithm::EcP521
        | Algorithm::Ed25519
        | Algorithm::GenericSecret
        | Algorithm::MlDsa44
        | Algorithm::MlDsa65
        | Algorithm::MlDsa87
        | Algorithm::MlKem1024
        | Algorithm::MlKem768
        | Algorithm::Rsa2048
        | Algorithm::Rsa3072
        | Algorithm::Rsa4096
        | Algorithm::SlhDsaSha2_128s => true,
        // ChaCha20, secp256k1, X25519 and X-Wing are in no list; an opaque secret is used for nothing.
        _ => false,
    }
}

const fn approved_mechanism(mechanism: Mechanism) -> bool {
    !matches!(
        mechanism,
        Mechanism::ChaCha20Poly1305 | Mechanism::RsaPkcs1 | Mechanism::RsaRaw | Mechanism::XWing
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_these_are_not_approved() {
        let refused: Vec<String> = Algorithm::ALL
            .iter()
            .flat_map(|algorithm| algorithm.mechanisms().iter().map(|m| (*m, *algorithm)))
            .filter(|(mechanism, algorithm)| !approved(*mechanism, *algorithm))
            .map(|(mechanism, algorithm)| format!("{algorithm} {mechanism}"))
            .collect();
        let expected = [
            "CHACHA20 CHACHA20_POLY1305",
            "EC_SECP256K1 ECDSA_SHA256",
            "RSA_2048 RSA_PKCS1",
            "RSA_2048 RSA_RAW",
            "RSA_3072 RSA_PKCS1",
            "RSA_3072 RSA_RAW",
            "RSA_4096 RSA_PKCS1",
            "RSA_4096 RSA_RAW",
            "X25519 ECDH",
            "X_WING X_WING",
        ];
        assert_eq!(refused, expected);
    }
}
