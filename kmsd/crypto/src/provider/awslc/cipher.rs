//! AES in its modes, and ChaCha20-Poly1305, by AWS-LC.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    self, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::error::Unspecified;
use kms_core::mechanism::Mechanism;
use zeroize::Zeroizing;

use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::cipher::{
    self as modes, BLOCK_BYTES, NONCE_BYTES, TAG_BYTES, check_counter, check_whole_blocks, iv,
};
use crate::provider::CipherParameters;

pub(super) fn encrypt(
    mechanism: Mechanism,
    key: &Material,
    parameters: CipherParameters<'_>,
    plaintext: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    match mechanism {
        Mechanism::AesCbc => {
            check_whole_blocks(plaintext)?;
            encrypt_blocks(key, parameters, plaintext.to_vec())
        }
        Mechanism::AesCbcPad => encrypt_blocks(key, parameters, modes::padded(plaintext)),
        Mechanism::AesCtr => count(key, parameters, plaintext),
        Mechanism::AesGcm | Mechanism::ChaCha20Poly1305 => {
            seal(mechanism, key, parameters, plaintext)
        }
        _ => Err(CryptoError::MechanismUnsupported { mechanism }),
    }
}

pub(super) fn decrypt(
    mechanism: Mechanism,
    key: &Material,
    parameters: CipherParameters<'_>,
    ciphertext: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    match mechanism {
        Mechanism::AesCbc => {
            check_whole_blocks(ciphertext)?;
            decrypt_blocks(key, parameters, ciphertext).map(|mut text| core::mem::take(&mut *text))
        }
        Mechanism::AesCbcPad if ciphertext.len().is_multiple_of(BLOCK_BYTES) => {
            modes::unpadded(decrypt_blocks(key, parameters, ciphertext)?)
        }
        Mechanism::AesCbcPad => Err(CryptoError::CiphertextRefused),
        Mechanism::AesCtr => count(key, parameters, ciphertext),
        Mechanism::AesGcm | Mechanism::ChaCha20Poly1305 => {
            open(mechanism, key, parameters, ciphertext)
        }
        _ => Err(CryptoError::MechanismUnsupported { mechanism }),
    }
}

fn seal(
    mechanism: Mechanism,
    key: &Material,
    parameters: CipherParameters<'_>,
    plaintext: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let nonce = Nonce::assume_unique_for_key(iv::<NONCE_BYTES>(parameters.iv)?);
    let key = aead_key(mechanism, key)?;
    // Into a zeroed buffer, which costs less than copying the plaintext there first.
    let mut sealed = vec![0; plaintext.len() + TAG_BYTES];
    let (text, tag) = sealed.split_at_mut(plaintext.len());
    key.seal_out_of_place_scatter(nonce, Aad::from(parameters.aad), plaintext, text, b"", tag)
        .map_err(|_| TOO_LONG)?;
    Ok(sealed)
}

fn open(
    mechanism: Mechanism,
    key: &Material,
    parameters: CipherParameters<'_>,
    ciphertext: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let nonce = Nonce::assume_unique_for_key(iv::<NONCE_BYTES>(parameters.iv)?);
    let (text, tag) =
        ciphertext.split_last_chunk::<TAG_BYTES>().ok_or(CryptoError::CiphertextRefused)?;
    let mut plaintext = vec![0; text.len()];
    aead_key(mechanism, key)?
        .open_separate_gather(nonce, Aad::from(parameters.aad), text, tag, &mut plaintext)
        .map_err(|_| CryptoError::CiphertextRefused)?;
    Ok(plaintext)
}

fn aead_key(mechanism: Mechanism, key: &Material) -> Result<LessSafeKey, CryptoError> {
    let algorithm = match (mechanism, key.len()) {
        (Mechanism::AesGcm, 16) => &aead::AES_128_GCM,
        (Mechanism::AesGcm, 24) => &aead::AES_192_GCM,
        (Mechanism::AesGcm, 32) => &aead::AES_256_GCM,
        (Mechanism::ChaCha20Poly1305, 32) => &aead::CHACHA20_POLY1305,
        _ => return Err(CryptoError::MaterialRefused),
    };
    UnboundKey::new(algorithm, key.expose())
        .map(LessSafeKey::new)
        .map_err(|_| CryptoError::MaterialRefused)
}

fn encrypt_blocks(
    key: &Material,
    parameters: CipherParameters<'_>,
    mut text: Vec<u8>,
) -> Result<Vec<u8>, CryptoError> {
    let context = EncryptionContext::Iv128(iv::<BLOCK_BYTES>(parameters.iv)?.into());
    let key = EncryptingKey::cbc(block_key(key)?).map_err(unexpected)?;
    if !text.is_empty() {
        key.less_safe_encrypt(&mut text, context).map_err(unexpected)?;
    }
    Ok(text)
}

fn decrypt_blocks(
    key: &Material,
    parameters: CipherParameters<'_>,
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let context = DecryptionContext::Iv128(iv::<BLOCK_BYTES>(parameters.iv)?.into());
    let key = DecryptingKey::cbc(block_key(key)?).map_err(unexpected)?;
    let mut text = Zeroizing::new(ciphertext.to_vec());
    if !text.is_empty() {
        key.decrypt(&mut text, context).map_err(unexpected)?;
    }
    Ok(text)
}

/// Counter mode is its own inverse.
fn count(
    key: &Material,
    parameters: CipherParameters<'_>,
    text: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let initial = iv::<BLOCK_BYTES>(parameters.iv)?;
    check_counter(&initial, text.len())?;
    let key = EncryptingKey::ctr(block_key(key)?).map_err(unexpected)?;
    let mut text = text.to_vec();
    if !text.is_empty() {
        key.less_safe_encrypt(&mut text, EncryptionContext::Iv128(initial.into()))
            .map_err(unexpected)?;
    }
    Ok(text)
}

fn block_key(key: &Material) -> Result<UnboundCipherKey, CryptoError> {
    let algorithm = match key.len() {
        16 => &cipher::AES_128,
        24 => &cipher::AES_192,
        32 => &cipher::AES_256,
        _ => return Err(CryptoError::MaterialRefused),
    };
    UnboundCipherKey::new(algorithm, key.expose()).map_err(|_| CryptoError::MaterialRefused)
}

/// Keys, IVs and lengths have been checked by then; what is left is the length of the whole.
const fn unexpected(_: Unspecified) -> CryptoError {
    TOO_LONG
}

/// SP 800-38D §5.2.1.1: one text of AES-GCM has at most 2^39 - 256 bits; the library takes less in the
/// other modes.
const TOO_LONG: CryptoError =
    CryptoError::InputRefused { problem: "the text is too long for one call; use the stream" };
