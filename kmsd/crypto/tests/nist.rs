//! NIST's own vectors through our functions: AES-GCM (CAVP) and KWP (SP 800-38F), with the cases that
//! must fail.
//!
//! Looked for like those of `wycheproof.rs`; without them a test says `skipped: ...`.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may stop it")]

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use kms_crypto::CryptoError;
use kms_crypto::material::Material;
use kms_crypto::provider::Provider;
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::provider::purerust::PureRust;
use kms_crypto::wrap;

/// The cases of a response file: `NAME = value` lines, blank lines between cases, `[NAME = value]`
/// for what holds from there on, and a bare `FAIL`.
fn cases(name: &str) -> Option<Vec<HashMap<String, String>>> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var_os("KMS_SHARED").map_or_else(|| beside.into(), PathBuf::from);
    let Ok(text) = fs::read_to_string(shared.join("vectors/nist-rfc").join(name)) else {
        println!("skipped: {name} is not there (set KMS_SHARED)");
        return None;
    };
    let mut holding = HashMap::new();
    let mut cases = Vec::new();
    for paragraph in text.replace('\r', "").split("\n\n") {
        let mut case = HashMap::new();
        for line in paragraph.lines() {
            let header = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
            let (key, value) = header.unwrap_or(line).split_once('=').unwrap_or((line, ""));
            let entry = (key.trim().to_owned(), value.trim().to_owned());
            if header.is_some() { &mut holding } else { &mut case }.insert(entry.0, entry.1);
        }
        if case.contains_key("Count") || case.contains_key("COUNT") {
            case.extend(holding.clone());
            cases.push(case);
        }
    }
    Some(cases)
}

fn bytes(case: &HashMap<String, String>, name: &str) -> Vec<u8> {
    hex::decode(&case[name]).unwrap()
}

#[test]
fn aes_256_gcm_decryption() {
    let Some(cases) = cases("ciphers/AES/GCM/gcmDecrypt256.rsp") else { return };
    for provider in [&AwsLc as &dyn Provider, &PureRust] {
        let (mut opened, mut refused, mut skipped) = (0, 0, 0);
        for case in &cases {
            if case["IVlen"] != "96" || case["Taglen"] != "128" {
                skipped += 1;
                continue;
            }
            let key = Material::import(&mut bytes(case, "Key")).unwrap();
            let iv = bytes(case, "IV").try_into().unwrap();
            let ciphertext = [bytes(case, "CT"), bytes(case, "Tag")].concat();
            let found = provider.open(&key, &iv, &bytes(case, "AAD"), &ciphertext);
            if case.contains_key("FAIL") {
                assert_eq!(found, Err(CryptoError::CiphertextRefused));
                refused += 1;
            } else {
                assert_eq!(found, Ok(bytes(case, "PT")));
                opened += 1;
            }
        }
        println!(
            "gcmDecrypt256 {}: {} tests, {} passed, of those {refused} rightly refused, skipped \
             {skipped} (other lengths of IV or tag)",
            provider.name(),
            cases.len(),
            opened + refused
        );
        assert!(opened > 100 && refused > 100);
    }
}

#[test]
fn kwp_under_256_bits() {
    for name in ["KWP_AD_256.txt", "KWP_AE_256.txt"] {
        let Some(cases) = cases(&format!("keywrap/kwtestvectors/{name}")) else { continue };
        let (mut opened, mut refused) = (0, 0);
        for case in &cases {
            let parent = Material::import(&mut bytes(case, "K")).unwrap();
            let wrapped = bytes(case, "C");
            let found = wrap::unwrap(&parent, &wrapped);
            if case.contains_key("FAIL") {
                assert_eq!(found.err(), Some(CryptoError::WrapRefused));
                refused += 1;
                continue;
            }
            // Wrapping is one to one: both give the same ciphertext only for the same key.
            assert_eq!(wrap::wrap(&parent, &found.unwrap()).unwrap(), wrapped);
            let key = Material::import(&mut bytes(case, "P")).unwrap();
            assert_eq!(wrap::wrap(&parent, &key).unwrap(), wrapped);
            opened += 1;
        }
        println!(
            "{name}: {} tests, {} passed, of those {refused} rightly refused, skipped 0",
            cases.len(),
            opened + refused
        );
        assert!(opened > 300 && (refused > 50 || name.contains("AE")));
    }
}
