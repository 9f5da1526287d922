//! Message authentication codes, whoever makes them: lengths, and the comparison.

use kms_core::mechanism::Mechanism;
use subtle::ConstantTimeEq;

/// How long the tag of a mechanism is; `None` for one that makes no tags.
pub fn tag_bytes(mechanism: Mechanism) -> Option<usize> {
    match mechanism {
        Mechanism::AesCmac => Some(super::cipher::BLOCK_BYTES),
        Mechanism::HmacSha1
        | Mechanism::HmacSha224
        | Mechanism::HmacSha256
        | Mechanism::HmacSha384
        | Mechanism::HmacSha512
        | Mechanism::HmacSha512_224
        | Mechanism::HmacSha512_256
        | Mechanism::HmacSha3_224
        | Mechanism::HmacSha3_256
        | Mechanism::HmacSha3_384
        | Mechanism::HmacSha3_512 => mechanism.hash().map(|hash| hash.digest_bytes()),
        _ => None,
    }
}

/// Whether the tag given is the one that was made: whole, since a shorter one is easier to guess, and in
/// constant time.
pub fn tags_match(made: &[u8], given: &[u8]) -> bool {
    made.ct_eq(given).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_tag_matches() {
        assert!(tags_match(&[1, 2, 3], &[1, 2, 3]));
        for given in [&[][..], &[1, 2], &[1, 2, 4], &[1, 2, 3, 0]] {
            assert!(!tags_match(&[1, 2, 3], given));
        }
    }
}
