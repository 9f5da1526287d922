//! Versions made out of others, and keys and ciphertexts moved, through the vault's public door.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may stop it")]

#[allow(dead_code, reason = "others use the rest")]
mod support;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, Serializable, single_shot_open};
use kms_core::action::Action;
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::id::Resource;
use kms_core::key::SealHeader;
use kms_core::mechanism::{Hash, Mechanism};
use kms_core::permit::{Grounds, PermitMismatch, Subject};
use kms_core::transcript::{Recipient, Suite, data_key_aad, data_key_info};
use kms_crypto::CryptoError;
use kms_crypto::provider::DeriveParameters;
use kms_crypto::vault::{Ciphertext, DataKey, Sealed, Vault};
use sha2::Digest;
use support::{REQUEST, Stored, header, header_of, recorded, requirement, ring, vault};

/// What a version makes of a message: equal for equal keys.
fn fingerprint(vault: &Vault, key: &Stored) -> Vec<u8> {
    let mechanism = match key.header.algorithm {
        Algorithm::GenericSecret => Mechanism::HmacSha256,
        _ => Mechanism::AesCmac,
    };
    let permit = key.permit(Action::MacSign);
    vault.mac_sign(permit, &REQUEST, key.as_ref(), mechanism, b"fingerprint").unwrap()
}

#[test]
fn what_was_wrapped_comes_back_under_another_name_by_every_wrapping_mechanism() {
    let vault = vault();
    let parent = Stored::of(&vault, header_of(Algorithm::Aes256, "w"));
    let target = Stored::new(&vault, Algorithm::Aes192);
    for mechanism in [Mechanism::AesGcm, Mechanism::AesKw, Mechanism::AesKwp] {
        let aad: &[u8] = if mechanism == Mechanism::AesGcm { b"aad" } else { b"" };
        let permit = parent.permit_both(Action::WrapKey, Action::ExportKeyVersion, &target);
        let Sealed { iv, ciphertext } =
            vault.wrap(permit, &REQUEST, parent.as_ref(), mechanism, aad, target.as_ref()).unwrap();
        let unwrap = |ciphertext: &[u8], header: SealHeader| {
            Stored::made(header.clone(), |new| {
                let permit = parent.making_permit(Action::UnwrapKey, &header);
                let parent = parent.as_ref();
                vault.unwrap(permit, &REQUEST, parent, mechanism, &iv, aad, ciphertext, new)
            })
        };
        let taken_in = unwrap(&ciphertext, header_of(Algorithm::Aes192, "n")).unwrap();
        assert_eq!(fingerprint(&vault, &taken_in), fingerprint(&vault, &target));
        let mut edited = ciphertext.clone();
        edited[3] ^= 1;
        let refused = unwrap(&edited, header_of(Algorithm::Aes192, "n")).err();
        assert_eq!(refused, Some(CryptoError::CiphertextRefused));
        // It is a key of 24 bytes, and is taken for nothing else.
        for other in [Algorithm::Aes256, Algorithm::EcP256, Algorithm::GenericSecret] {
            let refused = unwrap(&ciphertext, header_of(other, "n")).err();
            assert_eq!(refused, Some(CryptoError::MaterialRefused), "{other}");
        }
    }
}

#[test]
fn a_key_that_is_not_sealed_as_exportable_is_not_wrapped() {
    let vault = vault();
    let parent = Stored::of(&vault, header_of(Algorithm::Aes256, "w"));
    let permit = || {
        let like_it = Stored::new(&vault, Algorithm::Aes256);
        parent.permit_both(Action::WrapKey, Action::ExportKeyVersion, &like_it)
    };
    let wrap = |target: &Stored| {
        let (parent, target) = (parent.as_ref(), target.as_ref());
        vault.wrap(permit(), &REQUEST, parent, Mechanism::AesKwp, b"", target).err()
    };
    let algorithm = Algorithm::Aes256;
    let kept = Stored::of(&vault, SealHeader { exportable: false, ..header(algorithm) });
    assert_eq!(wrap(&kept), Some(CryptoError::NotExportable));
    let mut header = header(algorithm);
    header.usages.remove(&Usage::Export);
    let usage = Usage::Export;
    let refused = Some(CryptoError::UsageRefused { algorithm, usage });
    assert_eq!(wrap(&Stored::of(&vault, header)), refused);
}

#[test]
fn a_derived_key_is_the_same_each_time_and_moves_with_its_input() {
    let vault = vault();
    let base = Stored::of(&vault, header_of(Algorithm::GenericSecret, "b"));
    let derive = |mechanism, info: &[u8], header: SealHeader| {
        Stored::made(header.clone(), |new| {
            let permit = base.making_permit(Action::DeriveKey, &header);
            let parameters = DeriveParameters { salt: b"salt", info };
            vault.derive(permit, &REQUEST, base.as_ref(), mechanism, parameters, new)
        })
    };
    for mechanism in [Mechanism::HkdfSha512, Mechanism::KdfCounterHmacSha256] {
        let print = |info| {
            let made = derive(mechanism, info, header_of(Algorithm::Aes256, "n")).unwrap();
            fingerprint(&vault, &made)
        };
        assert_eq!(print(b"a"), print(b"a"));
        assert_ne!(print(b"a"), print(b"b"));
    }
    let refused = derive(Mechanism::HkdfSha256, b"", header_of(Algorithm::EcP256, "n")).err();
    assert!(matches!(refused, Some(CryptoError::InputRefused { .. })));
    let mut long = header_of(Algorithm::GenericSecret, "n");
    long.length_bytes = 513;
    let refused = derive(Mechanism::HkdfSha256, b"", long).err();
    assert_eq!(refused, Some(CryptoError::MaterialRefused));
}

#[test]
fn a_copy_has_the_same_key_and_can_do_no_more() {
    let vault = vault();
    let mut original_header = header(Algorithm::Aes256);
    original_header.usages.remove(&Usage::Wrap);
    original_header.mechanisms.remove(&Mechanism::AesCtr);
    original_header.exportable = false;
    let original = Stored::of(&vault, original_header.clone());
    let copy = |header: SealHeader| {
        Stored::made(header.clone(), |new| {
            let permit = original.making_permit(Action::CopyKey, &header);
            vault.copy(permit, &REQUEST, original.as_ref(), new)
        })
    };
    let like_it = || {
        let version = header_of(Algorithm::Aes256, "n").version;
        SealHeader { version, ..original_header.clone() }
    };
    let copied = copy(like_it()).unwrap();
    assert_eq!(fingerprint(&vault, &copied), fingerprint(&vault, &original));
    let edits: [fn(&mut SealHeader); 7] = [
        |header| header.algorithm = Algorithm::ChaCha20,
        |header| header.exportable = true,
        |header| header.ever_exportable = false,
        |header| header.lineage = header.version.clone(),
        |header| header.requirement_digest = None,
        |header| assert!(header.usages.insert(Usage::Wrap)),
        |header| assert!(header.mechanisms.insert(Mechanism::AesCtr)),
    ];
    for edit in edits {
        let mut header = like_it();
        edit(&mut header);
        assert_eq!(copy(header.clone()).err(), Some(CryptoError::ProtectionLost), "{header:?}");
    }
}

#[test]
fn what_is_made_out_of_a_gated_key_is_gated() {
    let vault = vault();
    let base = Stored::new(&vault, Algorithm::GenericSecret);
    assert_eq!(base.header.requirement_digest, Some(requirement().digest()));
    let open = SealHeader { requirement_digest: None, ..header_of(Algorithm::Aes256, "n") };
    let refused = Stored::made(open.clone(), |new| {
        let permit = base.making_permit(Action::DeriveKey, &open);
        let (mechanism, none) = (Mechanism::HkdfSha256, DeriveParameters::default());
        vault.derive(permit, &REQUEST, base.as_ref(), mechanism, none, new)
    });
    assert_eq!(refused.err(), Some(CryptoError::ProtectionLost));
}

#[test]
fn a_permit_for_one_new_key_makes_no_other() {
    let vault = vault();
    let key = Stored::new(&vault, Algorithm::Aes256);
    let header = header_of(Algorithm::Aes256, "n");
    let mismatch = Some(CryptoError::PermitMismatch(PermitMismatch));
    let copy = |permit| {
        Stored::made(header.clone(), |new| vault.copy(permit, &REQUEST, key.as_ref(), new)).err()
    };
    let other = header_of(Algorithm::Aes256, "m");
    assert_eq!(copy(key.making_permit(Action::CopyKey, &other)), mismatch);
    assert_eq!(copy(key.making_permit(Action::UnwrapKey, &header)), mismatch);
    assert_eq!(copy(key.permit(Action::MacSign)), mismatch);
}

#[test]
fn a_ciphertext_moves_to_another_key_and_opens_there() {
    let vault = vault();
    let (from, to) = (
        Stored::of(&vault, header_of(Algorithm::Aes128, "f")),
        Stored::of(&vault, header_of(Algorithm::ChaCha20, "g")),
    );
    let permit = from.permit(Action::Encrypt);
    let mechanism = Mechanism::AesCbcPad;
    let Sealed { iv, ciphertext } =
        vault.encrypt(permit, &REQUEST, from.as_ref(), mechanism, None, b"", b"plaintext").unwrap();
    let source = Ciphertext { mechanism, iv: &iv, aad: b"", ciphertext: &ciphertext };
    let to_mechanism = Mechanism::ChaCha20Poly1305;
    let permit = from.permit_both(Action::ReEncrypt, Action::Encrypt, &to);
    let moved = vault
        .re_encrypt(permit, &REQUEST, from.as_ref(), source, to.as_ref(), to_mechanism, b"aad")
        .unwrap();
    let permit = to.permit(Action::Decrypt);
    let opened = vault.decrypt(
        permit,
        &REQUEST,
        to.as_ref(),
        to_mechanism,
        &moved.iv,
        b"aad",
        &moved.ciphertext,
    );
    assert_eq!(opened.unwrap(), b"plaintext");
    let permit = to.permit_both(Action::ReEncrypt, Action::Encrypt, &from);
    let (from, to) = (from.as_ref(), to.as_ref());
    let refused = vault.re_encrypt(permit, &REQUEST, from, source, to, to_mechanism, b"aad");
    assert_eq!(refused, Err(CryptoError::PermitMismatch(PermitMismatch)));
}

#[test]
fn a_data_key_leaves_wrapped_and_sealed_to_whom_it_was_asked_for_only() {
    let vault = vault();
    let key = Stored::new(&vault, Algorithm::Aes256);
    let (private, public) = XWing::derive_keypair(&[3; 64]);
    let suite = Suite::XWingHkdfSha256Aes256Gcm;
    let recipient = Recipient::new(suite, public.to_bytes().to_vec()).unwrap();
    let data_key = |length, recipient| {
        let permit = key.permit(Action::GenerateDataKey);
        let mechanism = Mechanism::AesGcm;
        vault.data_key(permit, &REQUEST, key.as_ref(), mechanism, b"aad", length, recipient)
    };
    let DataKey { wrapped, plaintext } = data_key(32, Some(&recipient)).unwrap();
    let permit = key.permit(Action::Decrypt);
    let (iv, ciphertext) = (&wrapped.iv, &wrapped.ciphertext);
    let unwrapped = vault
        .decrypt(permit, &REQUEST, key.as_ref(), Mechanism::AesGcm, iv, b"aad", ciphertext)
        .unwrap();
    let sealed = plaintext.unwrap();
    let opened = single_shot_open::<AesGcm256, HkdfSha256, XWing>(
        &OpModeR::Base,
        &private,
        &<XWing as Kem>::EncappedKey::from_bytes(&sealed.enc).unwrap(),
        &data_key_info(&key.header.version),
        &sealed.ciphertext,
        &data_key_aad(iv, ciphertext),
    );
    assert_eq!(opened.unwrap(), unwrapped);
    assert_eq!(unwrapped.len(), 32);
    assert_eq!(data_key(16, None).unwrap().plaintext, None);
    for length in [0, 15, 513] {
        let refused = data_key(length, None);
        assert!(matches!(refused, Err(CryptoError::InputRefused { .. })), "{length}");
    }
}

#[test]
fn an_opaque_secret_of_64_kib_is_kept_and_copied() {
    let vault = vault();
    let length_bytes = 65_536;
    let secret = Stored::of(&vault, SealHeader { length_bytes, ..header(Algorithm::OpaqueSecret) });
    let version = header_of(Algorithm::OpaqueSecret, "n").version;
    let header = SealHeader { version, ..secret.header.clone() };
    let copied = Stored::made(header.clone(), |new| {
        let permit = secret.making_permit(Action::CopyKey, &header);
        vault.copy(permit, &REQUEST, secret.as_ref(), new)
    });
    assert_eq!(copied.unwrap().made.sealed.len(), 65_536 + 8);
    let shorter = SealHeader { length_bytes: 1000, ..header };
    let refused = Stored::made(shorter.clone(), |new| {
        let permit = secret.making_permit(Action::CopyKey, &shorter);
        vault.copy(permit, &REQUEST, secret.as_ref(), new)
    });
    assert_eq!(refused.err(), Some(CryptoError::MaterialRefused));
}

#[test]
fn digests_need_a_permit_for_the_same_resource() {
    let vault = vault();
    let resource = Resource::Ring(ring());
    let digest = |asked: &Resource| {
        let permit = recorded(Action::Digest, resource.clone(), Subject::Plain, Grounds::default());
        vault.digest(permit, &REQUEST, asked, Hash::Sha256, b"abc")
    };
    assert_eq!(digest(&resource).unwrap(), sha2::Sha256::digest(b"abc").as_slice());
    let mismatch = Err(CryptoError::PermitMismatch(PermitMismatch));
    assert_eq!(digest(&Resource::Appliance), mismatch);
}
