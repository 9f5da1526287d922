//! What the modes of a cipher ask for, whoever carries them out: IVs, whole blocks, counters that do not
//! wrap around, padding.

use kms_core::mechanism::Mechanism;
use subtle::{ConditionallySelectable, ConstantTimeEq, ConstantTimeGreater};
use zeroize::Zeroizing;

use crate::CryptoError;

/// How long the IV, nonce or initial counter block of a mechanism is; `None` where it takes none.
pub const fn iv_bytes(mechanism: Mechanism) -> Option<usize> {
    match mechanism {
        Mechanism::AesGcm | Mechanism::ChaCha20Poly1305 => Some(NONCE_BYTES),
        Mechanism::AesCbc | Mechanism::AesCbcPad | Mechanism::AesCtr => Some(BLOCK_BYTES),
        _ => None,
    }
}

/// The IV in the length that the mechanism has.
pub(crate) fn iv<const N: usize>(iv: &[u8]) -> Result<[u8; N], CryptoError> {
    iv.try_into().map_err(|_| CryptoError::InputRefused {
        problem: "the IV has 12 bytes in AES_GCM and CHACHA20_POLY1305, 16 in AES_CBC and AES_CTR",
    })
}

/// AES_CBC takes whole blocks only.
pub(crate) fn check_whole_blocks(text: &[u8]) -> Result<(), CryptoError> {
    if text.len().is_multiple_of(BLOCK_BYTES) {
        return Ok(());
    }
    let problem = "AES_CBC takes a multiple of 16 bytes; AES_CBC_PAD takes any length";
    Err(CryptoError::InputRefused { problem })
}

/// A counter that passes 2^128 - 1 would begin again at blocks that were used.
pub(crate) fn check_counter(
    initial: &[u8; BLOCK_BYTES],
    text_bytes: usize,
) -> Result<(), CryptoError> {
    let blocks = text_bytes.div_ceil(BLOCK_BYTES) as u128;
    let left = u128::MAX - u128::from_be_bytes(*initial);
    if blocks.saturating_sub(1) <= left {
        return Ok(());
    }
    let problem = "the counter would wrap around within this text; take a smaller initial counter";
    Err(CryptoError::InputRefused { problem })
}

/// The plaintext with its padding behind it (RFC 5652 §6.3).
pub(crate) fn padded(plaintext: &[u8]) -> Vec<u8> {
    let padding = BLOCK_BYTES - plaintext.len() % BLOCK_BYTES;
    let mut text = Vec::with_capacity(plaintext.len() + padding);
    text.extend_from_slice(plaintext);
    text.resize(plaintext.len() + padding, padding as u8);
    text
}

/// Takes the padding off. Which byte of it is wrong is told neither by the error nor by the time that it
/// takes (the plaintext's length is told by the answer, as it must be).
pub(crate) fn unpadded(mut text: Zeroizing<Vec<u8>>) -> Result<Vec<u8>, CryptoError> {
    let block: &[u8; BLOCK_BYTES] = text.last_chunk().ok_or(CryptoError::CiphertextRefused)?;
    let padding = block[BLOCK_BYTES - 1];
    let mut good = !padding.ct_eq(&0) & !padding.ct_gt(&(BLOCK_BYTES as u8));
    for (place, byte) in (1..=BLOCK_BYTES as u8).rev().zip(block) {
        let is_text = place.ct_gt(&padding);
        good &= is_text | byte.ct_eq(&padding);
    }
    let padding = u8::conditional_select(&0, &padding, good);
    let length = text.len() - usize::from(padding);
    if !bool::from(good) {
        return Err(CryptoError::CiphertextRefused);
    }
    text.truncate(length);
    Ok(core::mem::take(&mut *text))
}

/// Length of the nonce of AES-GCM and ChaCha20-Poly1305.
pub const NONCE_BYTES: usize = 12;
/// Length of their tags.
pub const TAG_BYTES: usize = 16;
/// Length of a block of AES, and with it of the IV of AES_CBC and the counter of AES_CTR.
pub const BLOCK_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_comes_off_as_it_was_put_on_and_every_fault_of_it_looks_the_same() {
        for length in 0..=48 {
            let text = vec![0xa5; length];
            assert_eq!(unpadded(Zeroizing::new(padded(&text))), Ok(text));
        }
        let refused = Err(CryptoError::CiphertextRefused);
        assert_eq!(unpadded(Zeroizing::new(vec![])), refused);
        for padding in 0..=255_u8 {
            for wrong in 0..16_usize {
                let mut block = vec![padding; 16];
                block[wrong] ^= 0x80;
                let last = block[15];
                let whole = (1..=16).contains(&last)
                    && block[16 - usize::from(last)..].iter().all(|byte| *byte == last);
                let found = unpadded(Zeroizing::new(block.clone()));
                let expected = if whole {
                    Ok(block[..16 - usize::from(last)].to_vec())
                } else {
                    refused.clone()
                };
                assert_eq!(found, expected, "{padding} {wrong}");
            }
        }
    }

    #[test]
    fn a_counter_reaches_its_end_and_not_beyond() {
        let end = [0xff; 16];
        for (length, fits) in [(0, true), (1, true), (16, true), (17, false)] {
            assert_eq!(check_counter(&end, length).is_ok(), fits, "{length}");
        }
        assert!(check_counter(&[0; 16], usize::MAX).is_ok());
    }
}
