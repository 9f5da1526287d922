//! AES in its modes, and ChaCha20-Poly1305, by the RustCrypto crates.

use aes::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, StreamCipher};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::ChaCha20Poly1305;
use kms_core::mechanism::Mechanism;
use zeroize::Zeroizing;

use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::cipher::{
    self as modes, BLOCK_BYTES, NONCE_BYTES, check_counter, check_whole_blocks, iv,
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
            let nonce = iv::<NONCE_BYTES>(parameters.iv)?;
            let payload = Payload { msg: plaintext, aad: parameters.aad };
            aead(mechanism, key, |aead| aead.seal(nonce, payload))?.map_err(|_| TOO_LONG)
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
            let nonce = iv::<NONCE_BYTES>(parameters.iv)?;
            let payload = Payload { msg: ciphertext, aad: parameters.aad };
            aead(mechanism, key, |aead| aead.open(nonce, payload))?
                .map_err(|_| CryptoError::CiphertextRefused)
        }
        _ => Err(CryptoError::MechanismUnsupported { mechanism }),
    }
}

/// What the four ciphers have in common here.
trait Sealing {
    fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        payload: Payload<'_, '_>,
    ) -> Result<Vec<u8>, aes_gcm::Error>;

    fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        payload: Payload<'_, '_>,
    ) -> Result<Vec<u8>, aes_gcm::Error>;
}

impl<A: Aead<NonceSize = U12>> Sealing for A {
    fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        payload: Payload<'_, '_>,
    ) -> Result<Vec<u8>, aes_gcm::Error> {
        self.encrypt(&nonce.into(), payload)
    }

    fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        payload: Payload<'_, '_>,
    ) -> Result<Vec<u8>, aes_gcm::Error> {
        self.decrypt(&nonce.into(), payload)
    }
}

fn aead<T>(
    mechanism: Mechanism,
    key: &Material,
    run: impl FnOnce(&dyn Sealing) -> T,
) -> Result<T, CryptoError> {
    let key = key.expose();
    match (mechanism, key.len()) {
        (Mechanism::AesGcm, 16) => keyed::<AesGcm<Aes128, U12>>(key).map(|aead| run(&aead)),
        (Mechanism::AesGcm, 24) => keyed::<AesGcm<Aes192, U12>>(key).map(|aead| run(&aead)),
        (Mechanism::AesGcm, 32) => keyed::<AesGcm<Aes256, U12>>(key).map(|aead| run(&aead)),
        (Mechanism::ChaCha20Poly1305, 32) => keyed::<ChaCha20Poly1305>(key).map(|aead| run(&aead)),
        _ => Err(CryptoError::MaterialRefused),
    }
}

fn keyed<C: KeyInit>(key: &[u8]) -> Result<C, CryptoError> {
    C::new_from_slice(key).map_err(|_| CryptoError::MaterialRefused)
}

fn encrypt_blocks(
    key: &Material,
    parameters: CipherParameters<'_>,
    mut text: Vec<u8>,
) -> Result<Vec<u8>, CryptoError> {
    let iv = iv::<BLOCK_BYTES>(parameters.iv)?;
    let (blocks, _) = Array::slice_as_chunks_mut(&mut text);
    match key.len() {
        16 => begun::<cbc::Encryptor<Aes128>>(key, iv)?.encrypt_blocks(blocks),
        24 => begun::<cbc::Encryptor<Aes192>>(key, iv)?.encrypt_blocks(blocks),
        _ => begun::<cbc::Encryptor<Aes256>>(key, iv)?.encrypt_blocks(blocks),
    }
    Ok(text)
}

fn decrypt_blocks(
    key: &Material,
    parameters: CipherParameters<'_>,
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let iv = iv::<BLOCK_BYTES>(parameters.iv)?;
    let mut text = Zeroizing::new(ciphertext.to_vec());
    let (blocks, _) = Array::slice_as_chunks_mut(&mut text);
    match key.len() {
        16 => begun::<cbc::Decryptor<Aes128>>(key, iv)?.decrypt_blocks(blocks),
        24 => begun::<cbc::Decryptor<Aes192>>(key, iv)?.decrypt_blocks(blocks),
        _ => begun::<cbc::Decryptor<Aes256>>(key, iv)?.decrypt_blocks(blocks),
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
    let mut text = text.to_vec();
    match key.len() {
        16 => begun::<ctr::Ctr128BE<Aes128>>(key, initial)?.apply_keystream(&mut text),
        24 => begun::<ctr::Ctr128BE<Aes192>>(key, initial)?.apply_keystream(&mut text),
        _ => begun::<ctr::Ctr128BE<Aes256>>(key, initial)?.apply_keystream(&mut text),
    }
    Ok(text)
}

fn begun<M: KeyIvInit>(key: &Material, iv: [u8; BLOCK_BYTES]) -> Result<M, CryptoError> {
    M::new_from_slices(key.expose(), &iv).map_err(|_| CryptoError::MaterialRefused)
}

const TOO_LONG: CryptoError =
    CryptoError::InputRefused { problem: "the text is too long for one call; use the stream" };
