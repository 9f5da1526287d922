//! The vault through its public door: keys are made, used, released, and refused once anything that
//! they rest on was edited.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may stop it")]

#[allow(dead_code, reason = "others use the rest")]
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{DhP256HkdfSha256, XWing};
use hpke::{Deserializable, Kem, OpModeR, Serializable, single_shot_open};
use kms_core::action::Action;
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::id::{Digest, OperationId, Resource};
use kms_core::key::{Origin, SealHeader};
use kms_core::mechanism::Mechanism::{self, AesGcm, EcdsaSha256, HmacSha256};
use kms_core::permit::{Grounds, PermitMismatch, Subject};
use kms_core::transcript::{Recipient, Suite, answer_aad};
use kms_crypto::CryptoError;
use kms_crypto::provider::SignInput;
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::release::SealedAnswer;
use kms_crypto::row::{peek_row, row_digest};
use kms_crypto::unlock::RootKey;
use kms_crypto::vault::{RANDOM_BYTES_MAX, Sealed, SlotSecret, Vault, VersionRef};
use p256::pkcs8::{DecodePrivateKey, EncodePublicKey};
use sha2::Digest as _;
use support::{
    OPERATION, REQUEST, Stored, header, permit, recorded, requirement, ring, transcript, vault,
    version_name,
};

const SIGNERS: [(Algorithm, Mechanism); 3] = [
    (Algorithm::EcP256, EcdsaSha256),
    (Algorithm::Rsa3072, Mechanism::RsaPkcs1Sha256),
    (Algorithm::Rsa3072, Mechanism::RsaPssSha256),
];

fn unreadable() -> CryptoError {
    CryptoError::VersionUnreadable { version: version_name() }
}

#[test]
fn a_signature_of_a_message_or_of_its_digest_verifies_as_both() {
    let vault = vault();
    for (algorithm, mechanism) in SIGNERS {
        let key = Stored::new(&vault, algorithm);
        let digest: [u8; 32] = sha2::Sha256::digest(b"message").into();
        let inputs = [SignInput::Message(b"message"), SignInput::Digest(&digest)];
        for made_from in inputs {
            let permit = key.permit(Action::Sign);
            let mut signature =
                vault.sign(permit, &REQUEST, key.as_ref(), mechanism, made_from, b"").unwrap();
            let verify = |input, signature: &[u8]| {
                let permit = key.permit(Action::Verify);
                vault
                    .verify(permit, &REQUEST, key.as_ref(), mechanism, input, b"", signature)
                    .unwrap()
            };
            assert!(inputs.into_iter().all(|input| verify(input, &signature)), "{mechanism}");
            assert!(!verify(SignInput::Message(b"other"), &signature), "{mechanism}");
            *signature.last_mut().unwrap() ^= 1;
            assert!(!verify(made_from, &signature), "{mechanism}");
        }
    }
}

#[test]
fn what_is_encrypted_is_decrypted_and_no_iv_comes_twice() {
    let vault = vault();
    let key = Stored::new(&vault, Algorithm::Aes256);
    let encrypt = || {
        let permit = key.permit(Action::Encrypt);
        vault.encrypt(permit, &REQUEST, key.as_ref(), AesGcm, None, b"aad", b"plaintext").unwrap()
    };
    let decrypt = |sealed: &Sealed, aad: &[u8]| {
        let permit = key.permit(Action::Decrypt);
        let Sealed { iv, ciphertext } = sealed;
        vault.decrypt(permit, &REQUEST, key.as_ref(), AesGcm, iv, aad, ciphertext)
    };
    let (one, two) = (encrypt(), encrypt());
    assert_ne!(one.iv, two.iv);
    assert_eq!(one.ciphertext.len(), 9 + 16);
    assert_eq!(decrypt(&one, b"aad").unwrap(), b"plaintext");
    assert_eq!(decrypt(&one, b"other"), Err(CryptoError::CiphertextRefused));
    let swapped = Sealed { iv: two.iv.clone(), ciphertext: one.ciphertext };
    assert_eq!(decrypt(&swapped, b"aad"), Err(CryptoError::CiphertextRefused));
    let cut = Sealed { iv: two.iv, ciphertext: two.ciphertext[..15].to_vec() };
    assert_eq!(decrypt(&cut, b"aad"), Err(CryptoError::CiphertextRefused));
}

#[test]
fn a_tag_is_accepted_whole_and_refused_cut_or_changed() {
    let vault = vault();
    let key = Stored::new(&vault, Algorithm::GenericSecret);
    let mut tag = vault
        .mac_sign(key.permit(Action::MacSign), &REQUEST, key.as_ref(), HmacSha256, b"message")
        .unwrap();
    let verify = |tag: &[u8]| {
        let permit = key.permit(Action::MacVerify);
        vault.mac_verify(permit, &REQUEST, key.as_ref(), HmacSha256, b"message", tag).unwrap()
    };
    assert!(verify(&tag));
    assert!(!verify(&tag[..16]));
    assert!(!verify(&[]));
    tag[31] ^= 1;
    assert!(!verify(&tag));
}

#[test]
fn a_permit_for_anything_else_opens_no_key() {
    let vault = vault();
    let key = Stored::new(&vault, Algorithm::EcP256);
    let mismatch = Err(CryptoError::PermitMismatch(PermitMismatch));
    let sign = |permit, request: &Digest| {
        vault.sign(permit, request, key.as_ref(), EcdsaSha256, SignInput::Message(b"m"), b"")
    };
    assert_eq!(sign(key.permit(Action::Verify), &REQUEST), mismatch);
    assert_eq!(sign(key.permit(Action::Sign), &Digest([9; 32])), mismatch);
    let mut other = header(Algorithm::EcP256);
    other.version.number = 2;
    let other_permit = permit(Action::Sign, &other, Grounds::default());
    assert_eq!(sign(other_permit, &REQUEST), mismatch);
    let permit_for_two = key.making_permit(Action::CopyKey, &other);
    assert_eq!(sign(permit_for_two, &REQUEST), mismatch);
}

#[test]
fn a_use_that_is_not_in_the_sealed_header_is_refused() {
    let vault = vault();
    let mut key = Stored::new(&vault, Algorithm::EcP256);
    let permit = key.permit(Action::Sign);
    key.header.usages = BTreeSet::from([Usage::Verify]);
    let input = SignInput::Message(b"m");
    let refused = vault.sign(permit, &REQUEST, key.as_ref(), EcdsaSha256, input, b"");
    let (algorithm, usage) = (Algorithm::EcP256, Usage::Sign);
    assert_eq!(refused, Err(CryptoError::UsageRefused { algorithm, usage }));
}

#[test]
fn a_mechanism_that_is_not_in_the_sealed_header_or_not_for_the_use_is_refused() {
    let vault = vault();
    let algorithm = Algorithm::Aes256;
    let mut key = Stored::new(&vault, algorithm);
    let encrypt = |key: &Stored, permit, mechanism| {
        vault.encrypt(permit, &REQUEST, key.as_ref(), mechanism, None, b"", b"").map(|_| ())
    };
    for mechanism in [Mechanism::AesKwp, Mechanism::AesCmac, Mechanism::ChaCha20Poly1305] {
        let refused = encrypt(&key, key.permit(Action::Encrypt), mechanism);
        assert_eq!(refused, Err(CryptoError::MechanismRefused { algorithm, mechanism }));
    }
    let permit = key.permit(Action::Encrypt);
    key.header.mechanisms.remove(&AesGcm);
    let refused = Err(CryptoError::MechanismRefused { algorithm, mechanism: AesGcm });
    assert_eq!(encrypt(&key, permit, AesGcm), refused);
}

#[test]
fn an_edited_header_makes_the_key_unreadable() {
    let vault = vault();
    let good = Stored::new(&vault, Algorithm::EcP256);
    let edits: [fn(&mut SealHeader); 12] = [
        |header| header.algorithm = Algorithm::EcP384,
        |header| header.usages.retain(|usage| *usage != Usage::Release),
        |header| header.mechanisms.retain(|mechanism| *mechanism == EcdsaSha256),
        |header| header.length_bytes = 32,
        |header| header.origin = Origin::Imported,
        |header| header.exportable = false,
        |header| header.ever_exportable = false,
        |header| header.lineage.number = 2,
        |header| header.requirement_digest = None,
        |header| header.quorum_digest = Some(Digest([0; 32])),
        |header| header.model = String::new(),
        |header| header.dataset = "d".to_owned(),
    ];
    let input = SignInput::Message(b"m");
    for edit in edits {
        let mut header = good.header.clone();
        edit(&mut header);
        // The rules refuse some of these earlier; here they are granted all the same.
        let version = VersionRef { header: &header, ..good.as_ref() };
        let refused =
            vault.sign(good.permit(Action::Sign), &REQUEST, version, EcdsaSha256, input, b"");
        assert_eq!(refused, Err(unreadable()), "{header:?}");
    }
}

#[test]
fn a_key_moved_to_another_name_is_unreadable() {
    let vault = vault();
    let mut key = Stored::new(&vault, Algorithm::GenericSecret);
    key.header.version.number = 2;
    let permit = key.permit(Action::MacSign);
    let refused = vault.mac_sign(permit, &REQUEST, key.as_ref(), HmacSha256, b"m");
    let version = key.header.version.clone();
    assert_eq!(refused, Err(CryptoError::VersionUnreadable { version }));
}

#[test]
fn an_erased_or_foreign_slot_and_edited_sealed_bytes_make_the_key_unreadable() {
    let vault = vault();
    let mut key = Stored::new(&vault, Algorithm::Aes256);
    let use_it = |key: &Stored| {
        vault
            .encrypt(key.permit(Action::Encrypt), &REQUEST, key.as_ref(), AesGcm, None, b"", b"")
            .map(|_| ())
    };
    assert_eq!(use_it(&key), Ok(()));
    for bit in 0..key.made.sealed.len() * 8 {
        key.made.sealed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(use_it(&key), Err(unreadable()), "bit {bit}");
        key.made.sealed[bit / 8] ^= 1 << (bit % 8);
    }
    let good = key.made.sealed.clone();
    for bad in [vec![], good[..32].to_vec(), [&good[..], &[0; 8]].concat(), vec![0; 100_000]] {
        key.made.sealed = bad;
        assert_eq!(use_it(&key), Err(unreadable()));
    }
    key.made.sealed = good;
    let mut slot: [u8; 32] = key.slot.expose_to_slot_table().try_into().unwrap();
    for bad in [SlotSecret::import(&mut [0; 32]), SlotSecret::generate()] {
        key.slot = bad.unwrap();
        assert_eq!(use_it(&key), Err(unreadable()));
    }
    key.slot = SlotSecret::import(&mut slot).unwrap();
    assert_eq!(slot, [0; 32], "the copy is wiped");
    assert_eq!(use_it(&key), Ok(()));
}

#[test]
fn nothing_opens_out_of_order_or_under_another_parent() {
    let vault = vault();
    let key = Stored::new(&vault, Algorithm::GenericSecret);
    let home = ring().home;
    let wrapped_tenant = vault.create_tenant_key(&home.tenant).unwrap();
    let other_tenant = "u".parse().unwrap();
    let refused = Err(CryptoError::WrapRefused);
    assert_eq!(vault.open_tenant(&other_tenant, &wrapped_tenant), refused);
    let mut other_ring = ring();
    other_ring.ring = "s".parse().unwrap();
    let wrapped_ring = vault.create_ring_key(&ring()).unwrap();
    assert_eq!(vault.open_ring(&other_ring, &wrapped_ring), refused);
    let mut other_region = ring();
    other_region.home.region = "elsewhere".parse().unwrap();
    assert_eq!(vault.open_ring(&other_region, &wrapped_ring), refused);

    let fresh = Vault::new(RootKey::generate().unwrap(), Arc::new(AwsLc)).unwrap();
    assert_eq!(fresh.open_tenant(&home.tenant, &wrapped_tenant), refused);
    let tenant = home.tenant;
    let tenant_closed = CryptoError::TenantClosed { tenant };
    assert_eq!(fresh.open_ring(&ring(), &wrapped_ring), Err(tenant_closed.clone()));
    assert_eq!(fresh.create_ring_key(&ring()), Err(tenant_closed));
    let permit = key.permit(Action::MacSign);
    let ring_closed = Err(CryptoError::RingClosed { ring: ring() });
    assert_eq!(fresh.mac_sign(permit, &REQUEST, key.as_ref(), HmacSha256, b"m"), ring_closed);
}

#[test]
fn a_row_opens_under_its_own_root_name_and_revision() {
    let (one, two) = (vault(), vault());
    let envelope = one.protect_row("keys/k", 3, &OPERATION, b"body", b"sealed").unwrap();
    let row = one.open_row("keys/k", 3, &envelope).unwrap();
    assert_eq!((row.body.as_slice(), row.sealed.as_slice()), (&b"body"[..], &b"sealed"[..]));
    assert_eq!(peek_row(&envelope).unwrap().operation_id, OPERATION);
    assert_eq!(row_digest(&envelope), Digest::of(&[&envelope]));
    let tampered = Err(CryptoError::RowTampered { row: "keys/k".to_owned() });
    assert_eq!(one.open_row("keys/k", 2, &envelope), tampered);
    assert_eq!(two.open_row("keys/k", 3, &envelope), tampered);
}

#[test]
fn the_log_key_signs_the_same_after_a_restart_and_opens_under_its_root_alone() {
    let (one, two) = (vault(), vault());
    let wrapped = one.create_log_key().unwrap();
    let signer = one.open_log_key(&wrapped).unwrap();
    let again = one.open_log_key(&wrapped).unwrap();
    assert_eq!(signer.public_key(), again.public_key());
    let signature = signer.sign(b"checkpoint").unwrap();
    let verifier = UnparsedPublicKey::new(&ED25519, again.public_key());
    assert!(verifier.verify(b"checkpoint", &signature).is_ok());
    assert!(verifier.verify(b"other", &signature).is_err());
    assert_eq!(two.open_log_key(&wrapped).err(), Some(CryptoError::WrapRefused));
    let tenant = one.create_tenant_key(&ring().home.tenant).unwrap();
    let refused = one.open_log_key(&tenant).err();
    assert_eq!(refused, Some(CryptoError::WrapRefused), "a key of another kind");
}

#[test]
fn random_bytes_are_bounded_and_need_a_permit_for_the_same_resource() {
    let vault = vault();
    let resource = Resource::Ring(ring());
    let draw = |length, asked: &Resource| {
        let (action, grounds) = (Action::GenerateRandom, Grounds::default());
        let permit = recorded(action, resource.clone(), Subject::Plain, grounds);
        vault.random(permit, &REQUEST, asked, length)
    };
    assert_eq!(draw(0, &resource).unwrap(), b"");
    assert_eq!(draw(32, &resource).unwrap().len(), 32);
    assert_ne!(draw(32, &resource), draw(32, &resource));
    let max = RANDOM_BYTES_MAX;
    assert_eq!(draw(max + 1, &resource), Err(CryptoError::RandomTooLong { max }));
    let mismatch = Err(CryptoError::PermitMismatch(PermitMismatch));
    assert_eq!(draw(32, &Resource::Appliance), mismatch);
}

/// The workload's side: a key pair, and opening the answer under what it knows of the release.
struct Workload<K: Kem> {
    private: K::PrivateKey,
    recipient: Recipient,
}

impl<K: Kem> Workload<K> {
    fn new(suite: Suite) -> Self {
        let mut seed = [0; 64];
        kms_crypto::random::fill(&mut seed).unwrap();
        let (private, public) = K::derive_keypair(&seed);
        let recipient = Recipient::new(suite, public.to_bytes().to_vec()).unwrap();
        Self { private, recipient }
    }

    fn open(&self, answer: &SealedAnswer, operation_id: &OperationId) -> Option<Vec<u8>> {
        let enc = K::EncappedKey::from_bytes(&answer.enc).unwrap();
        let aad = answer_aad(&version_name(), &requirement().digest(), operation_id);
        single_shot_open::<AesGcm256, HkdfSha256, K>(
            &OpModeR::Base,
            &self.private,
            &enc,
            transcript(&self.recipient).as_bytes(),
            &answer.ciphertext,
            &aad,
        )
        .ok()
    }
}

fn released<K: Kem>(suite: Suite, algorithm: Algorithm) -> (Vault, Stored, Vec<u8>) {
    let vault = vault();
    let key = Stored::new(&vault, algorithm);
    let workload = Workload::<K>::new(suite);
    let permit = key.release_permit(&workload.recipient);
    let answer = vault.release(permit, &REQUEST, key.as_ref(), &OPERATION).unwrap();
    assert_eq!(workload.open(&answer, &OperationId([9; 16])), None, "another release");
    assert_eq!(Workload::<K>::new(suite).open(&answer, &OPERATION), None, "another workload");
    let opened = workload.open(&answer, &OPERATION).unwrap();
    (vault, key, opened)
}

#[test]
fn a_released_data_key_decrypts_what_the_vault_encrypted() {
    let suite = Suite::XWingHkdfSha256Aes256Gcm;
    let (vault, key, bytes) = released::<XWing>(suite, Algorithm::Aes256);
    let permit = key.permit(Action::Encrypt);
    let Sealed { iv, mut ciphertext } =
        vault.encrypt(permit, &REQUEST, key.as_ref(), AesGcm, None, b"", b"weights").unwrap();
    let opener = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(&iv).unwrap();
    assert_eq!(opener.open_in_place(nonce, Aad::empty(), &mut ciphertext).unwrap(), b"weights");
}

#[test]
fn a_released_private_key_is_pkcs8_of_the_public_one() {
    let suite = Suite::P256HkdfSha256Aes256Gcm;
    let (_, key, bytes) = released::<DhP256HkdfSha256>(suite, Algorithm::EcP256);
    let private = p256::SecretKey::from_pkcs8_der(&bytes).unwrap();
    let public = private.public_key().to_public_key_der().unwrap();
    assert_eq!(public.as_bytes(), key.made.public_key);
}

#[test]
fn a_key_that_is_not_sealed_under_the_appraised_requirement_is_not_released() {
    let vault = vault();
    let mut key = Stored::new(&vault, Algorithm::Aes256);
    let workload = Workload::<XWing>::new(Suite::XWingHkdfSha256Aes256Gcm);
    let permit = || Stored::new(&vault, Algorithm::Aes256).release_permit(&workload.recipient);
    for digest in [None, Some(Digest([0; 32]))] {
        key.header.requirement_digest = digest;
        let refused = vault.release(permit(), &REQUEST, key.as_ref(), &OPERATION);
        assert_eq!(refused, Err(CryptoError::NotReleasable));
    }
}

#[test]
fn many_threads_use_one_vault_at_once() {
    let vault = vault();
    let key = Stored::new(&vault, Algorithm::EcP256);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let input = SignInput::Message(b"m");
                    let permit = key.permit(Action::Sign);
                    let signature = vault
                        .sign(permit, &REQUEST, key.as_ref(), EcdsaSha256, input, b"")
                        .unwrap();
                    let permit = key.permit(Action::Verify);
                    let valid = vault.verify(
                        permit,
                        &REQUEST,
                        key.as_ref(),
                        EcdsaSha256,
                        input,
                        b"",
                        &signature,
                    );
                    assert_eq!(valid, Ok(true));
                }
            });
        }
    });
}

#[cfg(feature = "selftest-faults")]
#[test]
fn in_the_error_state_no_key_is_used_and_the_mechanism_is_named() {
    use kms_crypto::selftest::{SelfTestFailed, SelfTests};

    let (good, root) = (vault(), RootKey::generate().unwrap());
    let key = Stored::new(&good, Algorithm::Aes256);
    let tests = Arc::new(SelfTests::with_fault(Arc::new(AwsLc), Mechanism::AesCmac));
    let vault = Vault::with_self_tests(root, Arc::clone(&tests)).unwrap();
    let tenant = vault.create_tenant_key(&ring().home.tenant).unwrap();
    vault.open_tenant(&ring().home.tenant, &tenant).unwrap();
    let wrapped = vault.create_ring_key(&ring()).unwrap();
    vault.open_ring(&ring(), &wrapped).unwrap();
    let own = Stored::new(&vault, Algorithm::Aes256);
    let encrypt = |key: &Stored| {
        let permit = key.permit(Action::Encrypt);
        vault.encrypt(permit, &REQUEST, key.as_ref(), AesGcm, None, b"", b"").map(|_| ())
    };
    assert_eq!(encrypt(&own), Ok(()));
    let failed = SelfTestFailed::Mechanism { mechanism: Mechanism::AesCmac };
    let refused = CryptoError::SelfTest(failed);
    let permit = own.permit(Action::MacSign);
    let (version, cmac) = (own.as_ref(), Mechanism::AesCmac);
    assert_eq!(vault.mac_sign(permit, &REQUEST, version, cmac, b""), Err(refused.clone()));
    assert_eq!(tests.state(), Err(failed));
    // From here on nothing, neither what worked a moment ago nor what opens keys.
    assert_eq!(encrypt(&own), Err(refused.clone()));
    assert_eq!(encrypt(&key), Err(refused.clone()));
    assert_eq!(vault.generate(&key.header, &key.slot).err(), Some(refused.clone()));
    assert_eq!(vault.create_ring_key(&ring()).err(), Some(refused.clone()));
    let permit = recorded(
        Action::GenerateRandom,
        Resource::Ring(ring()),
        Subject::Plain,
        Grounds::default(),
    );
    let random = vault.random(permit, &REQUEST, &Resource::Ring(ring()), 1);
    assert_eq!(random, Err(refused.clone()));
    // Closing and opening the root does not clear it.
    let again = Vault::with_self_tests(RootKey::generate().unwrap(), tests);
    assert_eq!(again.err(), Some(refused));
}
