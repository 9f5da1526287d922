//! Project Wycheproof through our own functions, with every provider: what must be refused is refused.
//!
//! The vectors are not in this repository. They are looked for under `KMS_SHARED`, else in `shared`
//! beside the workspace; without them a test says `skipped: ...`. Each prints what it did:
//! `<file> <provider>: tests, passed, of those rightly refused, skipped and why`.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may stop it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use kms_crypto::CryptoError;
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::provider::purerust::PureRust;
use kms_crypto::provider::{Provider, SignInput};
use serde_json::Value;

const PROVIDERS: [&dyn Provider; 2] = [&AwsLc, &PureRust];

fn file(name: &str) -> Option<Value> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var_os("KMS_SHARED").map_or_else(|| beside.into(), PathBuf::from);
    let path = shared.join("vectors/wycheproof").join(name);
    let Ok(text) = fs::read_to_string(&path) else {
        println!("skipped: {name} is not there (set KMS_SHARED)");
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

/// Counts what came of each test of one file.
#[derive(Default)]
struct Tally {
    passed: usize,
    refused: usize,
    skipped: BTreeMap<&'static str, usize>,
}

impl Tally {
    /// Notes that our function said `accepted` to `test`. Tests of result "acceptable" may go either
    /// way; we are strict, so the one that comes up (a missing NULL) must be refused.
    fn check(&mut self, test: &Value, accepted: bool) {
        let id = &test["tcId"];
        assert_eq!(accepted, test["result"] == "valid", "test {id}: {}", test["comment"]);
        self.passed += 1;
        self.refused += usize::from(!accepted);
    }

    fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }

    /// Prints, and makes sure that every test of the file was looked at and some were both ways.
    fn finish(self, name: &str, provider: &str, file: &Value) {
        let Self { passed, refused, skipped } = self;
        let tests = file["numberOfTests"].as_u64().unwrap();
        println!(
            "{name} {provider}: {tests} tests, {passed} passed, of those {refused} rightly \
             refused, skipped {skipped:?}"
        );
        let seen = passed + skipped.values().sum::<usize>();
        assert_eq!(seen as u64, tests);
        assert!(passed > refused && refused > 0);
    }
}

fn groups(file: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let group = |group: &'_ Value| group["tests"].as_array().unwrap().len();
    let groups = file["testGroups"].as_array().unwrap();
    assert!(groups.iter().map(group).sum::<usize>() > 0);
    groups
        .iter()
        .flat_map(|group| group["tests"].as_array().unwrap().iter().map(move |test| (group, test)))
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn verify_all(name: &str, algorithm: Algorithm, mechanism: Mechanism) {
    let Some(file) = file(name) else { return };
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for (group, test) in groups(&file) {
            let (public_key, message) = (bytes(&group["publicKeyDer"]), bytes(&test["msg"]));
            let input = SignInput::Message(&message);
            let valid = provider.verify(
                algorithm,
                mechanism,
                &public_key,
                input,
                b"",
                &bytes(&test["sig"]),
            );
            if group["publicKey"]["publicExponent"] == "03" {
                assert_eq!(valid, Err(CryptoError::PublicKeyInvalid { algorithm }));
                tally.skip("exponent 3, all refused (FIPS 186-5 A.1.1)");
                continue;
            }
            tally.check(test, valid.unwrap());
        }
        tally.finish(name, provider.name(), &file);
    }
}

#[test]
fn ecdsa_p256_sha256() {
    verify_all("ecdsa_secp256r1_sha256_test.json", Algorithm::EcP256, Mechanism::EcdsaSha256);
}

#[test]
fn rsa_pkcs1_3072_sha256() {
    verify_all(
        "rsa_signature_3072_sha256_test.json",
        Algorithm::Rsa3072,
        Mechanism::RsaPkcs1Sha256,
    );
}

/// There is no file for PSS of 3,072 bits with SHA-256. The keys of the other sizes, and of other
/// kinds, must all be refused as such, however good the signature is.
#[test]
fn keys_of_another_size_or_kind_are_refused() {
    for name in [
        "rsa_pss_2048_sha256_mgf1_32_test.json",
        "rsa_pss_4096_sha256_mgf1_32_test.json",
        "ecdsa_secp384r1_sha384_test.json",
        "ecdsa_secp521r1_sha512_test.json",
    ] {
        let Some(file) = file(name) else { continue };
        for provider in PROVIDERS {
            for (algorithm, mechanism) in [
                (Algorithm::EcP256, Mechanism::EcdsaSha256),
                (Algorithm::Rsa3072, Mechanism::RsaPkcs1Sha256),
                (Algorithm::Rsa3072, Mechanism::RsaPssSha256),
            ] {
                for (group, test) in groups(&file).take(20) {
                    let (key, message) = (bytes(&group["publicKeyDer"]), bytes(&test["msg"]));
                    let input = SignInput::Message(&message);
                    let refused = provider.verify(
                        algorithm,
                        mechanism,
                        &key,
                        input,
                        b"",
                        &bytes(&test["sig"]),
                    );
                    assert_eq!(refused, Err(CryptoError::PublicKeyInvalid { algorithm }), "{name}");
                }
            }
            println!("{name} {}: keys refused as not ours", provider.name());
        }
    }
}
