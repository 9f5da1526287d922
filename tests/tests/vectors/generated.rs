//! Keys that the module has made by a real daemon, used through the module, and checked by the library that
//! the daemon does not use (RustCrypto): the module's own tests have a daemon that only pretends.
//!
//! Secret keys are wrapped out under a key that both sides know. The crate `cryptoki` 0.12 has no names for
//! ChaCha20-Poly1305 and for HMAC with SHA-3 and SHA-512/t, so those are tested over gRPC only.

use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::dsa::{HedgeType, SignAdditionalContext};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::hkdf::{HkdfParams, HkdfSalt};
use cryptoki::mechanism::kbkdf::{
    Endianness, KbkdfCounterFormat, KbkdfDkmLengthFormat, KbkdfDkmLengthMethod, KbkdfParams,
    PrfDataParam, PrfDataParamType,
};
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism as Pkcs11, MechanismType};
use cryptoki::object::{
    Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle, SlhDsaParameterSetType,
};
use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use kms_crypto::material::Material;
use kms_crypto::mechanism::{ecdsa, key_form};
use kms_crypto::provider::purerust::PureRust;
use kms_crypto::provider::{CipherParameters, DeriveParameters, Provider as _, SignInput};

use crate::grpc::{COMPARED, WRAPPING_BYTES};
use crate::module::{Token, Worker, describing, mac, oaep, run_child, secret_template, signing};
use crate::published::material;
use crate::tally::Outcome;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_made_and_used_through_the_module_are_what_they_say() {
    run_child("generated::child_of_generated_keys").await;
}

#[test]
#[ignore = "run by keys_made_and_used_through_the_module_..., which starts a daemon for it"]
fn child_of_generated_keys() {
    let token = Token::open();
    let worker = token.worker();
    for length in [16, 24, 32] {
        aes(&worker, length);
    }
    secrets(&worker);
    for algorithm in [
        Algorithm::EcP256,
        Algorithm::EcP384,
        Algorithm::EcP521,
        Algorithm::EcSecp256k1,
        Algorithm::Ed25519,
        Algorithm::Rsa2048,
        Algorithm::MlDsa44,
        Algorithm::MlDsa65,
        Algorithm::MlDsa87,
        Algorithm::SlhDsaSha2_128s,
    ] {
        signatures(&worker, algorithm);
    }
    rsa(&worker);
    for algorithm in [Algorithm::EcP256, Algorithm::EcP384, Algorithm::EcP521, Algorithm::X25519] {
        agreements(&worker, algorithm);
    }
    for algorithm in [Algorithm::MlKem768, Algorithm::MlKem1024] {
        encapsulations(&worker, algorithm);
    }
}

const TEXT: &[u8] = b"a message of the customer, of some blocks and a bit more";

/// `CK_AES_CTR_PARAMS`, for which the crate has no type.
#[repr(C)]
struct Counter {
    bits: std::ffi::c_ulong,
    block: [u8; 16],
}

/// The same key on this side.
fn copy_of(worker: &Worker, key: ObjectHandle) -> Material {
    let wrapped = worker.session.wrap_key(&Pkcs11::AesKeyWrapPad, worker.wrapping, key).unwrap();
    PureRust.unwrap(Mechanism::AesKwp, &material(&WRAPPING_BYTES), &wrapped).unwrap()
}

fn aes(worker: &Worker, length: u64) {
    let session = &worker.session;
    let template = [Attribute::ValueLen(length.into()), Attribute::Extractable(true)];
    let key = session.generate_key(&Pkcs11::AesKeyGen, &template).unwrap();
    let same = copy_of(worker, key);
    assert_eq!(same.len() as u64, length);
    let block: [u8; 16] = core::array::from_fn(|at| at as u8);
    let counter = Counter { bits: 128, block };
    let whole = &TEXT[..48];
    let counted = || {
        let mechanism = VendorDefinedMechanism::new(MechanismType::AES_CTR, Some(&counter));
        Pkcs11::VendorDefined(mechanism)
    };
    for (mechanism, make, text) in [
        (Mechanism::AesCbc, Pkcs11::AesCbc(block), whole),
        (Mechanism::AesCbcPad, Pkcs11::AesCbcPad(block), TEXT),
        (Mechanism::AesCtr, counted(), TEXT),
    ] {
        let parameters = CipherParameters { iv: &block, aad: b"" };
        let expected = PureRust.encrypt(mechanism, &same, parameters, text).unwrap();
        assert_eq!(session.encrypt(&make, key, text).unwrap(), expected, "{mechanism}");
        assert_eq!(session.decrypt(&make, key, &expected).unwrap(), text, "{mechanism}");
    }
    let mut iv = *b"twelve bytes";
    let parameters = CipherParameters { iv: &iv.clone(), aad: b"and more" };
    let expected = PureRust.encrypt(Mechanism::AesGcm, &same, parameters, TEXT).unwrap();
    assert_eq!(session.encrypt(&gcm(&mut iv), key, TEXT).unwrap(), expected);
    assert_eq!(session.decrypt(&gcm(&mut iv), key, &expected).unwrap(), TEXT);
    let mut damaged = expected;
    damaged[3] ^= 1;
    assert!(session.decrypt(&gcm(&mut iv), key, &damaged).is_err());
    let expected = PureRust.mac(Mechanism::AesCmac, &same, TEXT).unwrap();
    assert_eq!(session.sign(&Pkcs11::AesCMac, key, TEXT).unwrap(), expected);
    session.verify(&Pkcs11::AesCMac, key, TEXT, &expected).unwrap();
    assert!(session.verify(&Pkcs11::AesCMac, key, b"other", &expected).is_err());
    // Wrapping another key, and taking it in again.
    let mut target = secret_template(40);
    target.push(Attribute::Extractable(true));
    let target = session.generate_key(&Pkcs11::GenericSecretKeyGen, &target[1..]).unwrap();
    let secret = copy_of(worker, target);
    for (mechanism, make) in
        [(Mechanism::AesKw, Pkcs11::AesKeyWrap), (Mechanism::AesKwp, Pkcs11::AesKeyWrapPad)]
    {
        let wrapped = session.wrap_key(&make, key, target).unwrap();
        assert_eq!(PureRust.wrap(mechanism, &same, &secret).unwrap(), wrapped, "{mechanism}");
        let again = session.unwrap_key(&make, key, &wrapped, &secret_template(40)).unwrap();
        let tags = [target, again].map(|key| session.sign(&Pkcs11::Sha256Hmac, key, TEXT).unwrap());
        assert_eq!(tags[0], tags[1], "{mechanism}");
    }
}

fn gcm(iv: &mut [u8]) -> Pkcs11<'_> {
    Pkcs11::AesGcm(GcmParams::new(iv, b"and more", 128.into()).unwrap())
}

fn secrets(worker: &Worker) {
    let session = &worker.session;
    let mut template = secret_template(48);
    template.push(Attribute::Extractable(true));
    let key = session.generate_key(&Pkcs11::GenericSecretKeyGen, &template[1..]).unwrap();
    let same = copy_of(worker, key);
    for mechanism in
        [Mechanism::HmacSha224, Mechanism::HmacSha256, Mechanism::HmacSha384, Mechanism::HmacSha512]
    {
        let make = mac(mechanism).unwrap();
        let expected = PureRust.mac(mechanism, &same, TEXT).unwrap();
        assert_eq!(session.sign(&make, key, TEXT).unwrap(), expected, "{mechanism}");
        session.verify(&make, key, TEXT, &expected).unwrap();
        assert!(session.verify(&make, key, TEXT, &expected[1..]).is_err(), "{mechanism}");
    }
    // SHA-1 only checks.
    let tag = PureRust.mac(Mechanism::HmacSha1, &same, TEXT).unwrap();
    session.verify(&Pkcs11::Sha1Hmac, key, TEXT, &tag).unwrap();
    assert!(session.sign(&Pkcs11::Sha1Hmac, key, TEXT).is_err());
    let equal = |made: ObjectHandle, expected: &Material, what: Mechanism| {
        let tag = PureRust.mac(Mechanism::HmacSha256, expected, COMPARED).unwrap();
        let made = session.sign(&Pkcs11::Sha256Hmac, made, COMPARED).unwrap();
        assert_eq!(made, tag, "{what}");
    };
    for (mechanism, hash) in [
        (Mechanism::HkdfSha256, MechanismType::SHA256),
        (Mechanism::HkdfSha384, MechanismType::SHA384),
        (Mechanism::HkdfSha512, MechanismType::SHA512),
    ] {
        let parameters = HkdfParams::new(hash, Some(HkdfSalt::Data(b"salt")), Some(b"info"));
        let make = Pkcs11::HkdfDerive(parameters);
        let made = session.derive_key(&make, key, &secret_template(40)).unwrap();
        let parameters = DeriveParameters { salt: b"salt", info: b"info" };
        let expected = PureRust.derive(mechanism, &same, parameters, 40).unwrap();
        equal(made, &expected, mechanism);
    }
    for (mechanism, hash) in [
        (Mechanism::KdfCounterHmacSha256, MechanismType::SHA256_HMAC),
        (Mechanism::KdfCounterHmacSha384, MechanismType::SHA384_HMAC),
        (Mechanism::KdfCounterHmacSha512, MechanismType::SHA512_HMAC),
    ] {
        let width = std::num::NonZeroUsize::new(32).unwrap();
        let counter = KbkdfCounterFormat::new(Endianness::Big, width);
        let sum = KbkdfDkmLengthMethod::SumOfKeys;
        let length = KbkdfDkmLengthFormat::new(sum, Endianness::Big, width);
        let pieces = [
            PrfDataParam::new(PrfDataParamType::IterationVariable(Some(&counter))),
            PrfDataParam::new(PrfDataParamType::ByteArray(b"label\0context")),
            PrfDataParam::new(PrfDataParamType::DkmLength(&length)),
        ];
        let make = Pkcs11::KbkdfCounter(KbkdfParams::new(hash, &pieces, None));
        let made = session.derive_key(&make, key, &secret_template(40)).unwrap();
        // [L] is in bits.
        let parameters = DeriveParameters { salt: b"", info: b"label\0context\0\0\x01\x40" };
        let expected = PureRust.derive(mechanism, &same, parameters, 40).unwrap();
        equal(made, &expected, mechanism);
    }
}

/// Makes a pair: its handles, public first, and SubjectPublicKeyInfo.
fn pair(worker: &Worker, algorithm: Algorithm) -> (ObjectHandle, ObjectHandle, Vec<u8>) {
    let generator = match algorithm {
        Algorithm::EcP256 | Algorithm::EcP384 | Algorithm::EcP521 | Algorithm::EcSecp256k1 => {
            Pkcs11::EccKeyPairGen
        }
        Algorithm::Ed25519 => Pkcs11::EccEdwardsKeyPairGen,
        Algorithm::X25519 => Pkcs11::EccMontgomeryKeyPairGen,
        Algorithm::MlDsa44 | Algorithm::MlDsa65 | Algorithm::MlDsa87 => Pkcs11::MlDsaKeyPairGen,
        Algorithm::MlKem768 | Algorithm::MlKem1024 => Pkcs11::MlKemKeyPairGen,
        Algorithm::SlhDsaSha2_128s => Pkcs11::SlhDsaKeyPairGen,
        _ => Pkcs11::RsaPkcsKeyPairGen,
    };
    let public = match algorithm {
        Algorithm::Rsa2048 => vec![Attribute::ModulusBits(2048.into())],
        Algorithm::SlhDsaSha2_128s => vec![
            Attribute::KeyType(KeyType::SLH_DSA),
            Attribute::ParameterSet(SlhDsaParameterSetType::SHA2_128S.into()),
        ],
        _ => describing(algorithm),
    };
    let made = worker.session.generate_key_pair(&generator, &public, &[]);
    let (public, private) = made.unwrap_or_else(|error| panic!("{algorithm}: {error}"));
    let wanted = [AttributeType::PublicKeyInfo];
    match &worker.session.get_attributes(public, &wanted).unwrap()[..] {
        [Attribute::PublicKeyInfo(spki)] => (public, private, spki.clone()),
        other => panic!("{algorithm}: {other:?}"),
    }
}

fn signatures(worker: &Worker, algorithm: Algorithm) {
    let session = &worker.session;
    let (public, private, spki) = pair(worker, algorithm);
    let signers = algorithm.mechanisms().iter().copied();
    for mechanism in signers.filter(|m| m.offers(kms_core::algorithm::Usage::Sign)) {
        let is_ecdsa = mechanism.as_str().starts_with("ECDSA");
        let hashed = || PureRust.digest(mechanism.hash().unwrap(), TEXT);
        let context: &[u8] = match mechanism {
            Mechanism::MlDsa | Mechanism::SlhDsa => b"context",
            _ => b"",
        };
        let additional = || SignAdditionalContext::new(HedgeType::Preferred, Some(context));
        let (make, data) = match mechanism {
            Mechanism::EdDsa => {
                (Pkcs11::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)), TEXT.to_vec())
            }
            Mechanism::MlDsa => (Pkcs11::MlDsa(additional()), TEXT.to_vec()),
            Mechanism::SlhDsa => (Pkcs11::SlhDsa(additional()), TEXT.to_vec()),
            _ => match signing(mechanism) {
                Some(make) => (make, TEXT.to_vec()),
                None => (Pkcs11::Ecdsa, hashed()),
            },
        };
        let made = session.sign(&make, private, &data);
        let made = made.unwrap_or_else(|error| panic!("{algorithm} {mechanism}: {error}"));
        let signature =
            if is_ecdsa { ecdsa::der_from_raw(algorithm, &made).unwrap() } else { made.clone() };
        let input = SignInput::Message(TEXT);
        let found = PureRust.verify(algorithm, mechanism, &spki, input, context, &signature);
        assert_eq!(found, Ok(true), "{algorithm} {mechanism}");
        session.verify(&make, public, &data, &made).unwrap();
        let mut damaged = made;
        damaged[9] ^= 1;
        assert!(session.verify(&make, public, &data, &damaged).is_err(), "{algorithm} {mechanism}");
    }
}

fn rsa(worker: &Worker) {
    let session = &worker.session;
    let algorithm = Algorithm::Rsa2048;
    let (public, private, spki) = pair(worker, algorithm);
    for (mechanism, make, label) in [
        (Mechanism::RsaOaepSha256, oaep(Mechanism::RsaOaepSha256, b"label"), &b"label"[..]),
        (Mechanism::RsaOaepSha384, oaep(Mechanism::RsaOaepSha384, b""), b""),
        (Mechanism::RsaOaepSha512, oaep(Mechanism::RsaOaepSha512, b"label"), b"label"),
        // The ring is a compatible one.
        (Mechanism::RsaPkcs1, Pkcs11::RsaPkcs, b""),
    ] {
        let parameters = CipherParameters { iv: b"", aad: label };
        let sent = PureRust.public_encrypt(algorithm, mechanism, &spki, parameters, TEXT).unwrap();
        assert_eq!(session.decrypt(&make, private, &sent).unwrap(), TEXT, "{mechanism}");
        let sent = session.encrypt(&make, public, TEXT).unwrap();
        assert_eq!(session.decrypt(&make, private, &sent).unwrap(), TEXT, "{mechanism}");
    }
    // A secret from outside, wrapped to the pair.
    let (make, secret) = (oaep(Mechanism::RsaOaepSha256, b""), [0x21; 32]);
    let parameters = CipherParameters::default();
    let wrapped = PureRust
        .public_encrypt(algorithm, Mechanism::RsaOaepSha256, &spki, parameters, &secret)
        .unwrap();
    let made = session.unwrap_key(&make, private, &wrapped, &secret_template(32));
    assert_eq!(worker.compared(made, &secret), Outcome::Done);
}

/// Whether a key of the module and one of this side are the same.
fn equal(worker: &Worker, made: ObjectHandle, here: &Material, algorithm: Algorithm) {
    let tag = PureRust.mac(Mechanism::HmacSha256, here, COMPARED).unwrap();
    let made = worker.session.sign(&Pkcs11::Sha256Hmac, made, COMPARED).unwrap();
    assert_eq!(made, tag, "{algorithm}");
}

fn agreements(worker: &Worker, algorithm: Algorithm) {
    let (_, private, spki) = pair(worker, algorithm);
    let peer = PureRust.generate_unchecked(algorithm, 0).unwrap();
    let point = key_form::raw_public_key(algorithm, &peer.public_key).unwrap();
    let make = Pkcs11::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), point));
    let here = PureRust.private_key(algorithm, &peer.material).unwrap().agree(&spki).unwrap();
    let template = secret_template(here.len());
    let made = worker.session.derive_key(&make, private, &template).unwrap();
    equal(worker, made, &here, algorithm);
}

fn encapsulations(worker: &Worker, algorithm: Algorithm) {
    let session = &worker.session;
    let (public, private, spki) = pair(worker, algorithm);
    let template = secret_template(32);
    let (ciphertext, here) = PureRust.encapsulate(algorithm, &spki).unwrap();
    let told = session.decapsulate_key(&Pkcs11::MlKem, private, &template, &ciphertext).unwrap();
    equal(worker, told, &here, algorithm);
    let (ciphertext, made) = session.encapsulate_key(&Pkcs11::MlKem, public, &template).unwrap();
    let told = session.decapsulate_key(&Pkcs11::MlKem, private, &template, &ciphertext).unwrap();
    let tags = [made, told].map(|key| session.sign(&Pkcs11::Sha256Hmac, key, TEXT).unwrap());
    assert_eq!(tags[0], tags[1], "{algorithm}");
    let classes = session.get_attributes(told, &[AttributeType::Class]).unwrap();
    assert_eq!(classes, [Attribute::Class(ObjectClass::SECRET_KEY)]);
}
