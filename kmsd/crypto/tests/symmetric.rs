//! Published vectors of the symmetric mechanisms through our own functions, with every provider: Project
//! Wycheproof, NIST CAVP, and those of RFC 2202, 4231 and 5869. What must be refused is refused, and so is
//! what our policy refuses: IVs of AES-GCM of another length than 96 bits, tags that were cut.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may stop it")]

#[path = "support/vectors.rs"]
mod vectors;

use kms_core::mechanism::Mechanism;
use kms_crypto::CryptoError;
use kms_crypto::material::Material;
use kms_crypto::mechanism::mac::{tag_bytes, tags_match};
use kms_crypto::provider::{CipherParameters, DeriveParameters};
use kms_crypto::wrap;
use vectors::{
    Case, PROVIDERS, Tally, bytes, field, groups, json, material as key, number_of_tests, text,
};

fn wycheproof(name: &str) -> Option<serde_json::Value> {
    json(&format!("wycheproof/{name}"))
}

fn cases(name: &str, last: &[&str]) -> Option<Vec<Case>> {
    text(name).map(|text| vectors::cases(&text, last))
}

/// Equal keys wrap to equal bytes, which is the one way to look at them from outside.
fn holds(key: &Material, expected: &[u8]) -> bool {
    let parent = vectors::material(&[7; 32]);
    wrap::wrap(&parent, key).ok() == wrap::wrap(&parent, &vectors::material(expected)).ok()
}

#[test]
fn message_authentication_codes_of_wycheproof() {
    for (name, mechanism) in [
        ("aes_cmac_test.json", Mechanism::AesCmac),
        ("hmac_sha1_test.json", Mechanism::HmacSha1),
        ("hmac_sha224_test.json", Mechanism::HmacSha224),
        ("hmac_sha256_test.json", Mechanism::HmacSha256),
        ("hmac_sha384_test.json", Mechanism::HmacSha384),
        ("hmac_sha3_512_test.json", Mechanism::HmacSha3_512),
        ("hmac_sha512_224_test.json", Mechanism::HmacSha512_224),
        ("hmac_sha512_test.json", Mechanism::HmacSha512),
    ] {
        let Some(file) = wycheproof(name) else { continue };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for (group, test) in groups(&file) {
                let (key, tag) = (key(&bytes(&test["key"])), bytes(&test["tag"]));
                let made = provider.mac(mechanism, &key, &bytes(&test["msg"]));
                if made.is_err() {
                    assert_eq!(made, Err(CryptoError::MaterialRefused));
                    tally.check(test, false);
                    continue;
                }
                let made = made.unwrap();
                assert_eq!(Some(made.len()), tag_bytes(mechanism));
                let accepted = tags_match(&made, &tag);
                if group["tagSize"] == 8 * made.len() {
                    tally.check(test, accepted);
                } else {
                    assert!(!accepted, "a cut tag was accepted: {test:?}");
                    assert_eq!(made[..tag.len()] == tag, test["result"] == "valid");
                    tally.skip("cut tags, all refused");
                }
            }
            tally.finish(name, provider.name(), number_of_tests(&file));
        }
    }
}

/// GMAC is AES-GCM without a plaintext (SP 800-38D §3).
#[test]
fn gmac_of_wycheproof() {
    let name = "aes_gmac_test.json";
    let Some(file) = wycheproof(name) else { return };
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for (group, test) in groups(&file) {
            let (key, iv, aad) =
                (key(&bytes(&test["key"])), bytes(&test["iv"]), bytes(&test["msg"]));
            let parameters = CipherParameters { iv: &iv, aad: &aad };
            let opened =
                provider.decrypt(Mechanism::AesGcm, &key, parameters, &bytes(&test["tag"]));
            if group["ivSize"] == 96 {
                let valid = test["result"] == "valid";
                assert_eq!(opened.is_err(), opened == Err(CryptoError::CiphertextRefused));
                let made = provider.encrypt(Mechanism::AesGcm, &key, parameters, b"").unwrap();
                assert_eq!(made == bytes(&test["tag"]), valid);
                tally.check(test, opened.is_ok());
            } else {
                assert!(matches!(opened, Err(CryptoError::InputRefused { .. })));
                let made = provider.encrypt(Mechanism::AesGcm, &key, parameters, b"");
                assert!(matches!(made, Err(CryptoError::InputRefused { .. })));
                tally.skip("IVs of another length than 96 bits, all refused");
            }
        }
        tally.finish(name, provider.name(), number_of_tests(&file));
    }
}

#[test]
fn gcm_of_nist() {
    for (name, encrypts) in [("gcmDecrypt256.rsp", false), ("gcmEncryptExtIV128.rsp", true)] {
        let last = if encrypts { &["Tag"][..] } else { &["PT", "FAIL"] };
        let Some(cases) = cases(&format!("nist-rfc/ciphers/AES/GCM/{name}"), last) else {
            continue;
        };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for case in &cases {
                let (key, iv, aad) =
                    (key(&field(case, "Key")), field(case, "IV"), field(case, "AAD"));
                let parameters = CipherParameters { iv: &iv, aad: &aad };
                let ciphertext = [field(case, "CT"), field(case, "Tag")].concat();
                let opened = provider.decrypt(Mechanism::AesGcm, &key, parameters, &ciphertext);
                if case["IVlen"] != "96" {
                    assert!(matches!(opened, Err(CryptoError::InputRefused { .. })));
                    tally.skip("IVs of another length than 96 bits, all refused");
                } else if case["Taglen"] != "128" {
                    assert_eq!(opened, Err(CryptoError::CiphertextRefused));
                    tally.skip("cut tags, all refused");
                } else if case.contains_key("FAIL") {
                    assert_eq!(opened, Err(CryptoError::CiphertextRefused));
                    tally.check_case(case, false, false);
                } else {
                    let plaintext = field(case, "PT");
                    let made = provider.encrypt(Mechanism::AesGcm, &key, parameters, &plaintext);
                    assert_eq!(made.as_ref(), Ok(&ciphertext));
                    tally.check_case(case, true, opened == Ok(plaintext));
                }
            }
            tally.finish(name, provider.name(), cases.len());
        }
    }
}

#[test]
fn key_wrap_of_wycheproof() {
    for (name, mechanism) in
        [("aes_wrap_test.json", Mechanism::AesKw), ("aes_kwp_test.json", Mechanism::AesKwp)]
    {
        let Some(file) = wycheproof(name) else { continue };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for (_, test) in groups(&file) {
                let (parent, wrapped) = (key(&bytes(&test["key"])), bytes(&test["ct"]));
                let message = bytes(&test["msg"]);
                let opened = provider.unwrap(mechanism, &parent, &wrapped);
                // "Acceptable" are wraps that a strict reader refuses; we are strict.
                tally.check(test, opened.is_ok());
                match opened {
                    Ok(opened) => {
                        assert!(holds(&opened, &message));
                        let made = provider.wrap(mechanism, &parent, &key(&message));
                        assert_eq!(made, Ok(wrapped));
                    }
                    Err(error) => assert_eq!(error, CryptoError::CiphertextRefused),
                }
            }
            tally.finish(name, provider.name(), number_of_tests(&file));
        }
    }
}

#[test]
fn key_wrap_of_nist() {
    for (name, mechanism) in [
        ("KW_AD_128", Mechanism::AesKw),
        ("KW_AD_256", Mechanism::AesKw),
        ("KW_AE_128", Mechanism::AesKw),
        ("KW_AE_256", Mechanism::AesKw),
        ("KWP_AD_128", Mechanism::AesKwp),
        ("KWP_AD_256", Mechanism::AesKwp),
        ("KWP_AE_128", Mechanism::AesKwp),
        ("KWP_AE_256", Mechanism::AesKwp),
    ] {
        // AE files have the plaintext before the ciphertext, AD files behind it, or FAIL.
        let last = if name.contains("AE") { &["C"][..] } else { &["P", "FAIL"] };
        let path = format!("nist-rfc/keywrap/kwtestvectors/{name}.txt");
        let Some(cases) = cases(&path, last) else { continue };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for case in &cases {
                let (parent, wrapped) = (key(&field(case, "K")), field(case, "C"));
                let opened = provider.unwrap(mechanism, &parent, &wrapped);
                tally.check_case(case, !case.contains_key("FAIL"), opened.is_ok());
                match opened {
                    Ok(opened) => {
                        assert!(holds(&opened, &field(case, "P")));
                        let made = provider.wrap(mechanism, &parent, &key(&field(case, "P")));
                        assert_eq!(made, Ok(wrapped));
                    }
                    Err(error) => assert_eq!(error, CryptoError::CiphertextRefused),
                }
            }
            tally.finish(name, provider.name(), cases.len());
        }
    }
}

#[test]
fn key_wrap_with_padding_of_botan() {
    let name = "nist-rfc/keywrap/kwp_botan.txt";
    let Some(cases) = cases(name, &["Output"]) else { return };
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for case in &cases {
            let (parent, input) = (key(&field(case, "Key")), key(&field(case, "Input")));
            let wrapped = field(case, "Output");
            assert_eq!(provider.wrap(Mechanism::AesKwp, &parent, &input).as_ref(), Ok(&wrapped));
            let opened = provider.unwrap(Mechanism::AesKwp, &parent, &wrapped).unwrap();
            tally.check_case(case, true, holds(&opened, &field(case, "Input")));
        }
        tally.finish(name, provider.name(), cases.len());
    }
}

#[test]
fn hkdf_of_wycheproof() {
    for (name, mechanism) in [
        ("hkdf_sha256_test.json", Mechanism::HkdfSha256),
        ("hkdf_sha384_test.json", Mechanism::HkdfSha384),
    ] {
        let Some(file) = wycheproof(name) else { continue };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for (_, test) in groups(&file) {
                let (salt, info) = (bytes(&test["salt"]), bytes(&test["info"]));
                let parameters = DeriveParameters { salt: &salt, info: &info };
                let length = usize::try_from(test["size"].as_u64().unwrap()).unwrap();
                let key = key(&bytes(&test["ikm"]));
                let derived = provider.derive(mechanism, &key, parameters, length);
                let accepted = match derived {
                    Ok(derived) => holds(&derived, &bytes(&test["okm"])),
                    Err(error) => {
                        assert!(matches!(error, CryptoError::InputRefused { .. }), "{error}");
                        false
                    }
                };
                tally.check(test, accepted);
            }
            tally.finish(name, provider.name(), number_of_tests(&file));
        }
    }
    // HKDF with SHA-1 is not offered, so there is nothing that could refuse its tests one by one.
    let name = "hkdf_sha1_test.json";
    if let Some(file) = wycheproof(name) {
        assert!("HKDF_SHA1".parse::<Mechanism>().is_err());
        let mut tally = Tally::default();
        groups(&file).for_each(|_| tally.skip("HKDF with SHA-1 is not offered"));
        tally.finish(name, "both", number_of_tests(&file));
    }
}

#[test]
fn hkdf_of_rfc_5869() {
    let name = "nist-rfc/KDF/rfc-5869-HKDF-SHA256.txt";
    let Some(cases) = cases(name, &["OKM"]) else { return };
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for case in &cases {
            assert_eq!(case["Hash"], "SHA-256");
            let (salt, info) = (field(case, "salt"), field(case, "info"));
            let parameters = DeriveParameters { salt: &salt, info: &info };
            let (key, length) = (key(&field(case, "IKM")), case["L"].parse().unwrap());
            let derived = provider.derive(Mechanism::HkdfSha256, &key, parameters, length).unwrap();
            tally.check_case(case, true, holds(&derived, &field(case, "OKM")));
        }
        tally.finish(name, provider.name(), cases.len());
    }
}

#[test]
fn hmac_of_rfc_2202_and_rfc_4231() {
    for (name, mechanism) in [
        ("rfc-2202-sha1.txt", Mechanism::HmacSha1),
        ("rfc-4231-sha256.txt", Mechanism::HmacSha256),
        ("rfc-4231-sha384.txt", Mechanism::HmacSha384),
    ] {
        let Some(cases) = cases(&format!("nist-rfc/HMAC/{name}"), &["MD"]) else { continue };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for case in &cases {
                let made = provider
                    .mac(mechanism, &key(&field(case, "Key")), &field(case, "Msg"))
                    .unwrap();
                tally.check_case(case, true, tags_match(&made, &field(case, "MD")));
            }
            tally.finish(name, provider.name(), cases.len());
        }
    }
}
