//! Streams through the vault's public door: permits, IVs, and that both ends meet.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may stop it")]

#[allow(dead_code, reason = "others use the rest")]
mod support;

use kms_core::action::Action;
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::Mechanism;
use kms_core::permit::PermitMismatch;
use kms_crypto::CryptoError;
use kms_crypto::mechanism::mac::tags_match;
use kms_crypto::vault::{CipherStream, STREAM_IV_IS_DRAWN, Vault, stream_iv_bytes};
use support::{REQUEST, Stored, vault};

fn open(
    vault: &Vault,
    key: &Stored,
    action: Action,
    mechanism: Mechanism,
    iv: Option<&[u8]>,
) -> Result<CipherStream, CryptoError> {
    let aad: &[u8] = match mechanism {
        Mechanism::AesGcm | Mechanism::ChaCha20Poly1305 => b"aad",
        _ => b"",
    };
    let permit = key.permit(action);
    vault.cipher_stream(permit, &REQUEST, key.as_ref(), action, mechanism, iv, aad)
}

#[test]
fn what_a_stream_encrypts_a_stream_decrypts() {
    let vault = vault();
    let aes = Stored::new(&vault, Algorithm::Aes192);
    let chacha = Stored::new(&vault, Algorithm::ChaCha20);
    for (key, mechanism) in [
        (&aes, Mechanism::AesCtr),
        (&aes, Mechanism::AesCbcPad),
        (&aes, Mechanism::AesGcm),
        (&chacha, Mechanism::ChaCha20Poly1305),
    ] {
        let mut encrypting = open(&vault, key, Action::Encrypt, mechanism, None).unwrap();
        let iv = encrypting.iv().to_vec();
        assert_eq!(Some(iv.len()), stream_iv_bytes(mechanism));
        let again = open(&vault, key, Action::Encrypt, mechanism, None).unwrap();
        assert_ne!(again.iv(), iv);
        let mut ciphertext = encrypting.update(&[5; 100_000]).unwrap();
        ciphertext.extend(encrypting.finish().unwrap());
        let mut decrypting = open(&vault, key, Action::Decrypt, mechanism, Some(&iv)).unwrap();
        let mut plaintext = decrypting.update(&ciphertext).unwrap();
        plaintext.extend(decrypting.finish().unwrap());
        assert!(plaintext == [5; 100_000], "{mechanism}");
    }
}

#[test]
fn a_stream_opens_under_its_own_permit_only_and_with_an_iv_that_fits() {
    let vault = vault();
    let key = Stored::new(&vault, Algorithm::Aes256);
    let (gcm, version) = (Mechanism::AesGcm, key.as_ref());
    let refused = |permit, action, iv| {
        vault.cipher_stream(permit, &REQUEST, version, action, gcm, iv, b"").err().unwrap()
    };
    let mismatch = CryptoError::PermitMismatch(PermitMismatch);
    let (encrypt, decrypt) = (Action::Encrypt, Action::Decrypt);
    assert_eq!(refused(key.permit(encrypt), decrypt, Some(&[0; 39])), mismatch);
    assert_eq!(refused(key.permit(decrypt), encrypt, None), mismatch);
    let (algorithm, usage) = (Algorithm::Aes256, Usage::Encrypt);
    let other_use = CryptoError::UsageRefused { algorithm, usage };
    assert_eq!(refused(key.permit(Action::MacSign), Action::MacSign, None), other_use);
    for iv in [&[][..], &[0; 12], &[0; 38], &[0; 40]] {
        let problem = refused(key.permit(encrypt), encrypt, Some(iv));
        assert!(matches!(problem, CryptoError::InputRefused { .. }));
    }
    // A caller who kept the salt would make streams without end under one stream key.
    let brought = refused(key.permit(encrypt), encrypt, Some(&[0; 39]));
    assert_eq!(brought, CryptoError::InputRefused { problem: STREAM_IV_IS_DRAWN });
    let chacha = Stored::new(&vault, Algorithm::ChaCha20);
    let brought = open(&vault, &chacha, encrypt, Mechanism::ChaCha20Poly1305, Some(&[0; 39]));
    assert_eq!(brought.err(), Some(CryptoError::InputRefused { problem: STREAM_IV_IS_DRAWN }));
    assert!(open(&vault, &key, encrypt, Mechanism::AesCtr, Some(&[0; 16])).is_ok());
    let problem = refused(key.permit(decrypt), decrypt, None);
    assert!(matches!(problem, CryptoError::InputRefused { .. }));
    let permit = key.permit(encrypt);
    let ctr = Mechanism::AesCtr;
    let problem = vault.cipher_stream(permit, &REQUEST, version, encrypt, ctr, None, b"aad");
    assert!(matches!(problem.err(), Some(CryptoError::InputRefused { .. })));
}

#[test]
fn a_code_in_many_parts_is_the_code_of_the_whole() {
    let vault = vault();
    let key = Stored::new(&vault, Algorithm::GenericSecret);
    let mechanism = Mechanism::HmacSha3_256;
    let permit = key.permit(Action::MacSign);
    let whole = vault.mac_sign(permit, &REQUEST, key.as_ref(), mechanism, &[9; 100]).unwrap();
    for action in [Action::MacSign, Action::MacVerify] {
        let permit = key.permit(action);
        let mut stream =
            vault.mac_stream(permit, &REQUEST, key.as_ref(), action, mechanism).unwrap();
        (0..10).for_each(|_| stream.update(&[9; 10]));
        assert!(tags_match(&stream.finish().unwrap(), &whole));
    }
    let (permit, version) = (key.permit(Action::MacVerify), key.as_ref());
    let refused = vault.mac_stream(permit, &REQUEST, version, Action::MacSign, mechanism).err();
    assert_eq!(refused, Some(CryptoError::PermitMismatch(PermitMismatch)));
    // SHA-1 checks what exists and makes nothing new.
    let sha_1 = Mechanism::HmacSha1;
    let permit = key.permit(Action::MacSign);
    let refused = vault.mac_stream(permit, &REQUEST, version, Action::MacSign, sha_1).err();
    let algorithm = Algorithm::GenericSecret;
    let mechanism = sha_1;
    assert_eq!(refused, Some(CryptoError::MechanismRefused { algorithm, mechanism }));
}
