//! RSA.

use std::collections::BTreeMap;

use crypto_primes::{Flavor, is_prime};
use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use kms_crypto::CryptoError;
use kms_crypto::material::Material;
use kms_crypto::provider::{CipherParameters, NewKey, PrivateKey, Provider, SignInput};
use rsa::BoxedUint;

use crate::vectors::{
    PROVIDERS, RSA_LABORATORIES, RsaPair, Tally, bytes, cases, groups, integer, is, json, material,
    rsa_pairs, rsa_spki, text, tlv, unhex,
};

const PKCS1: [Mechanism; 4] = [
    Mechanism::RsaPkcs1Sha1,
    Mechanism::RsaPkcs1Sha256,
    Mechanism::RsaPkcs1Sha384,
    Mechanism::RsaPkcs1Sha512,
];
const PSS: [Mechanism; 3] =
    [Mechanism::RsaPssSha256, Mechanism::RsaPssSha384, Mechanism::RsaPssSha512];
const OAEP: [Mechanism; 3] =
    [Mechanism::RsaOaepSha256, Mechanism::RsaOaepSha384, Mechanism::RsaOaepSha512];

fn algorithm_of(bits: u64) -> Option<Algorithm> {
    match bits {
        2048 => Some(Algorithm::Rsa2048),
        3072 => Some(Algorithm::Rsa3072),
        4096 => Some(Algorithm::Rsa4096),
        _ => None,
    }
}

/// Of the mechanisms, the one with the hash function of that name.
fn with_hash<const N: usize>(mechanisms: [Mechanism; N], hash: &str) -> Option<Mechanism> {
    let plain = hash.replace('-', "");
    mechanisms.into_iter().find(|mechanism| mechanism.hash().unwrap().as_str() == plain)
}

/// Makes sure that no mechanism of the family takes the signature.
fn refused_by_all<const N: usize>(
    provider: &dyn Provider,
    algorithm: Algorithm,
    mechanisms: [Mechanism; N],
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) {
    for mechanism in mechanisms {
        let input = SignInput::Message(message);
        let found = provider.verify(algorithm, mechanism, key, input, b"", signature);
        assert_ne!(found, Ok(true), "{mechanism}");
    }
}

#[test]
fn wycheproof_pkcs1_verification() {
    for name in [
        "2048_sha256",
        "2048_sha3_224",
        "2048_sha3_256",
        "2048_sha3_384",
        "3072_sha256",
        "3072_sha384",
        "3072_sha3_384",
        "3072_sha3_512",
        "3072_sha512",
        "4096_sha512",
    ] {
        let name = format!("wycheproof/rsa_signature_{name}_test.json");
        let Some(file) = json(&name) else { continue };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for (group, test) in groups(&file) {
                let algorithm = algorithm_of(group["keySize"].as_u64().unwrap()).unwrap();
                let (key, message) = (bytes(&group["publicKeyDer"]), bytes(&test["msg"]));
                let signature = bytes(&test["sig"]);
                let Some(mechanism) = with_hash(PKCS1, group["sha"].as_str().unwrap()) else {
                    if test["result"] == "valid" {
                        refused_by_all(provider, algorithm, PKCS1, &key, &message, &signature);
                    }
                    tally.skip("a hash function that RSA is not offered with, all refused");
                    continue;
                };
                let input = SignInput::Message(&message);
                let valid = provider.verify(algorithm, mechanism, &key, input, b"", &signature);
                if valid == Err(CryptoError::PublicKeyInvalid { algorithm }) {
                    assert_eq!(group["publicKey"]["publicExponent"], "03");
                    tally.skip("exponent 3, all refused (FIPS 186-5 A.1.1)");
                    continue;
                }
                tally.check(test, valid.unwrap());
            }
            tally.finish(&name, provider.name(), groups(&file).count());
        }
    }
}

#[test]
fn wycheproof_pss_verification() {
    for name in [
        "2048_sha1_mgf1_20_params",
        "2048_sha256_mgf1_0",
        "2048_sha256_mgf1_32_params",
        "2048_sha256_mgf1_32",
        "2048_sha384_mgf1_48",
        "2048_sha512_mgf1sha256_32_params",
        "4096_sha256_mgf1_32",
        "4096_sha384_mgf1_48",
        "4096_sha512_mgf1_32_params",
        "4096_sha512_mgf1_32",
        "4096_sha512_mgf1_64",
        "misc_params",
        "misc",
    ] {
        let name = format!("wycheproof/rsa_pss_{name}_test.json");
        let Some(file) = json(&name) else { continue };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for (group, test) in groups(&file) {
                let (message, signature) = (bytes(&test["msg"]), bytes(&test["sig"]));
                let Some(algorithm) = algorithm_of(group["keySize"].as_u64().unwrap()) else {
                    let key = rsa_spki(&bytes(&group["publicKeyAsn"]));
                    let algorithm = Algorithm::Rsa2048;
                    refused_by_all(provider, algorithm, PSS, &key, &message, &signature);
                    tally.skip("a modulus of another size, all refused");
                    continue;
                };
                let given = bytes(&group["publicKeyDer"]);
                if name.contains("params") {
                    // id-RSASSA-PSS with parameters: a form of key that we do not take.
                    let found = provider.check_public_key(algorithm, &given);
                    assert_eq!(found, Err(CryptoError::PublicKeyInvalid { algorithm }));
                }
                let key = rsa_spki(&bytes(&group["publicKeyAsn"]));
                let (hash, mask) = (group["sha"].as_str().unwrap(), group["mgfSha"].as_str());
                let mechanism = with_hash(PSS, hash).filter(|mechanism| {
                    let salt = mechanism.hash().unwrap().digest_bytes() as u64;
                    mask == Some(hash) && group["sLen"] == salt
                });
                let Some(mechanism) = mechanism else {
                    // What is invalid here may be valid by our parameters.
                    if test["result"] == "valid" {
                        refused_by_all(provider, algorithm, PSS, &key, &message, &signature);
                    }
                    tally.skip("another hash function, mask or salt length, all refused");
                    continue;
                };
                let input = SignInput::Message(&message);
                let valid = provider.verify(algorithm, mechanism, &key, input, b"", &signature);
                tally.check(test, valid.unwrap());
            }
            tally.finish(&name, provider.name(), groups(&file).count());
        }
    }
}

/// The keys of a file, each imported once, since that takes a primality test. `None` was refused.
#[derive(Default)]
struct Keys(BTreeMap<String, Option<Opened>>);

type Opened = (Algorithm, Box<dyn PrivateKey>);

impl Keys {
    fn get(&mut self, provider: &dyn Provider, pkcs8: &str) -> Option<&Opened> {
        self.0
            .entry(pkcs8.to_owned())
            .or_insert_with(|| {
                let bytes = unhex(pkcs8);
                [Algorithm::Rsa2048, Algorithm::Rsa3072, Algorithm::Rsa4096].into_iter().find_map(
                    |algorithm| {
                        let NewKey { material, .. } =
                            provider.import(algorithm, &material(&bytes)).ok()?;
                        Some((algorithm, provider.private_key(algorithm, &material).unwrap()))
                    },
                )
            })
            .as_ref()
    }
}

#[test]
fn wycheproof_oaep() {
    for name in [
        "rsa_oaep_2048_sha1_mgf1sha1",
        "rsa_oaep_2048_sha224_mgf1sha1",
        "rsa_oaep_2048_sha224_mgf1sha224",
        "rsa_oaep_2048_sha256_mgf1sha1",
        "rsa_oaep_2048_sha384_mgf1sha384",
        "rsa_oaep_2048_sha512_mgf1sha1",
        "rsa_oaep_3072_sha256_mgf1sha1",
        "rsa_oaep_3072_sha256_mgf1sha256",
        "rsa_oaep_3072_sha512_mgf1sha1",
        "rsa_oaep_4096_sha256_mgf1sha1",
        "rsa_oaep_4096_sha512_mgf1sha512",
        "rsa_oaep_misc",
        "rsa_three_primes_oaep_2048_sha1_mgf1sha1",
        "rsa_three_primes_oaep_3072_sha224_mgf1sha224",
    ] {
        let name = format!("wycheproof/{name}_test.json");
        let Some(file) = json(&name) else { continue };
        for provider in PROVIDERS {
            let (mut tally, mut keys) = (Tally::default(), Keys::default());
            for (group, test) in groups(&file) {
                let key = keys.get(provider, group["privateKeyPkcs8"].as_str().unwrap());
                let Some((_, key)) = key else {
                    let exponent = &group["privateKey"]["publicExponent"];
                    let small = exponent.as_str().is_some_and(|e| e.len() <= 4);
                    let size = group["keySize"].as_u64().unwrap();
                    assert!(small || name.contains("three") || algorithm_of(size).is_none());
                    tally.skip("three primes, exponent below 65537 or another size, not imported");
                    continue;
                };
                let (label, ciphertext) = (bytes(&test["label"]), bytes(&test["ct"]));
                let parameters = CipherParameters { iv: b"", aad: &label };
                let hash = group["sha"].as_str().unwrap();
                let mechanism =
                    with_hash(OAEP, hash).filter(|_| group["mgfSha"].as_str() == Some(hash));
                let Some(mechanism) = mechanism else {
                    // Three private operations each: with the slow provider, every eighth speaks for the rest.
                    let every = if provider.name() == "aws-lc" { 1 } else { 8 };
                    let looked_at = test["tcId"].as_u64().unwrap().is_multiple_of(every);
                    if test["result"] == "valid" && looked_at {
                        for mechanism in OAEP {
                            let found = key.decrypt(mechanism, parameters, &ciphertext).err();
                            assert_eq!(found, Some(CryptoError::CiphertextRefused));
                        }
                    }
                    tally.skip("another hash function or mask, refused");
                    continue;
                };
                match key.decrypt(mechanism, parameters, &ciphertext) {
                    Ok(plaintext) => {
                        assert!(is(provider, &plaintext, &bytes(&test["msg"])));
                        if test["result"] == "acceptable" {
                            tally.pass(true);
                        } else {
                            tally.check(test, true);
                        }
                    }
                    Err(refused) => {
                        assert_eq!(refused, CryptoError::CiphertextRefused);
                        tally.check(test, false);
                    }
                }
            }
            tally.finish(&name, provider.name(), groups(&file).count());
        }
    }
}

/// A wrong padding is no error but a message made up from key and ciphertext, the same each time and from
/// both providers; only a wrong length or a number beyond the modulus is refused.
#[test]
fn wycheproof_pkcs1_decryption() {
    for name in ["wycheproof/rsa_pkcs1_2048_test.json", "wycheproof/rsa_pkcs1_3072_test.json"] {
        let Some(file) = json(name) else { continue };
        let none = CipherParameters::default();
        let mut keys = [Keys::default(), Keys::default()];
        let mut tallies = [Tally::default(), Tally::default()];
        for (group, test) in groups(&file) {
            let pkcs8 = group["privateKeyPkcs8"].as_str().unwrap();
            let ciphertext = bytes(&test["ct"]);
            let found = [0, 1].map(|at| {
                let (_, key) = keys[at].get(PROVIDERS[at], pkcs8).unwrap();
                let once = key.decrypt(Mechanism::RsaPkcs1, none, &ciphertext);
                let twice = key.decrypt(Mechanism::RsaPkcs1, none, &ciphertext);
                assert_eq!(once.as_ref().err(), twice.as_ref().err());
                if let (Ok(once), Ok(twice)) = (&once, &twice) {
                    assert_eq!(fingerprint(once), fingerprint(twice));
                }
                once
            });
            let same = found.iter().map(|f| f.as_ref().ok().map(fingerprint)).collect::<Vec<_>>();
            assert_eq!(same[0], same[1], "test {}", test["tcId"]);
            for (at, found) in found.iter().enumerate() {
                let right = found
                    .as_ref()
                    .is_ok_and(|plaintext| is(PROVIDERS[at], plaintext, &bytes(&test["msg"])));
                // An invalid test names no message, or an empty one.
                let right = right && (test["result"] == "valid" || test["msg"] != "");
                tallies[at].check(test, right);
            }
        }
        for (tally, provider) in tallies.into_iter().zip(PROVIDERS) {
            tally.finish(name, provider.name(), groups(&file).count());
        }
    }
}

fn fingerprint(secret: &Material) -> (usize, Vec<u8>) {
    (secret.len(), PROVIDERS[0].mac(Mechanism::HmacSha256, secret, b"compare").unwrap())
}

#[test]
fn wycheproof_pkcs1_signing() {
    for name in ["1024", "2048", "4096"] {
        let name = format!("wycheproof/rsa_pkcs1_{name}_sig_gen_test.json");
        let Some(file) = json(&name) else { continue };
        for provider in PROVIDERS {
            let (mut tally, mut keys) = (Tally::default(), Keys::default());
            for (group, test) in groups(&file) {
                let key = keys.get(provider, group["privateKeyPkcs8"].as_str().unwrap());
                let Some((_, key)) = key else {
                    let flags = test["flags"].to_string();
                    assert!(flags.contains("SmallModulus") || flags.contains("SmallPublicKey"));
                    tally.skip("1024 bits or exponent below 65537, not imported");
                    continue;
                };
                let message = bytes(&test["msg"]);
                let input = SignInput::Message(&message);
                let Some(mechanism) = with_hash(PKCS1, group["sha"].as_str().unwrap())
                    .filter(|mechanism| *mechanism != Mechanism::RsaPkcs1Sha1)
                else {
                    assert!(key.sign(Mechanism::RsaPkcs1Sha1, input, b"").is_err());
                    tally.skip("a hash function that RSA does not sign with, refused");
                    continue;
                };
                let signature = key.sign(mechanism, input, b"").unwrap();
                tally.check(test, signature == bytes(&test["sig"]));
            }
            tally.finish(&name, provider.name(), groups(&file).count());
        }
    }
}

/// The test that import puts the primes of a key through.
#[test]
fn wycheproof_primality() {
    let name = "wycheproof/primality_test.json";
    let Some(file) = json(name) else { return };
    let mut tally = Tally::default();
    for (_, test) in groups(&file) {
        let value = unhex(test["value"].as_str().unwrap());
        if test["result"] == "acceptable" || value.first().is_some_and(|first| *first >= 0x80) {
            tally.skip("a negative number, which a key cannot hold");
            continue;
        }
        let bits = (value.len().max(1) * 8) as u32;
        let number = BoxedUint::from_be_slice(&value, bits.next_multiple_of(64)).unwrap();
        tally.check(test, is_prime(Flavor::Any, &number));
    }
    tally.finish(name, "crypto-primes", groups(&file).count());
}

#[test]
fn nist_signatures() {
    for (name, mechanisms) in [("SigVer15_186-3.rsp", None), ("SigVerPSS_186-3.rsp", Some(PSS))] {
        let name = format!("nist-rfc/asymmetric/RSA/FIPS_186-2/{name}");
        let Some(text) = text(&name) else { continue };
        let cases = cases(&text, &["Result"]);
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for case in &cases {
                let modulus = unhex(&case["n"]);
                let public = tlv(0x30, &[&integer(&modulus), &integer(&unhex(&case["e"]))]);
                let key = rsa_spki(&public);
                let (message, signature) = (unhex(&case["Msg"]), unhex(&case["S"]));
                let input = SignInput::Message(&message);
                let size = algorithm_of(modulus.len() as u64 * 8);
                let Some(algorithm) =
                    size.filter(|size| provider.check_public_key(*size, &key).is_ok())
                else {
                    for algorithm in [Algorithm::Rsa2048, Algorithm::Rsa3072, Algorithm::Rsa4096] {
                        assert!(provider.check_public_key(algorithm, &key).is_err());
                    }
                    tally.skip("another size, or an exponent below 65537 or beyond 2^33; refused");
                    continue;
                };
                if let Some(mechanisms) = mechanisms {
                    // The salt is 10 bytes long in all of them.
                    assert_eq!(case["SaltVal"].len(), 20);
                    refused_by_all(provider, algorithm, mechanisms, &key, &message, &signature);
                    tally.skip("a salt of 10 bytes, all refused");
                    continue;
                }
                let Some(mechanism) = with_hash(PKCS1, &case["SHAAlg"]) else {
                    refused_by_all(provider, algorithm, PKCS1, &key, &message, &signature);
                    tally.skip("SHA-224, all refused");
                    continue;
                };
                let valid = provider.verify(algorithm, mechanism, &key, input, b"", &signature);
                assert_eq!(valid, Ok(case["Result"].starts_with('P')));
                tally.pass(valid == Ok(true));
            }
            tally.finish(&name, provider.name(), cases.len());
        }
    }
}

#[test]
fn rsa_laboratories_and_derived() {
    for name in RSA_LABORATORIES {
        let path = format!("nist-rfc/asymmetric/RSA/{name}");
        let Some(text) = text(&path) else { continue };
        let pairs = rsa_pairs(&text);
        for provider in PROVIDERS {
            let (mut tally, mut last) = (Tally::default(), None);
            for RsaPair { pkcs8, modulus_bytes, message, value } in &pairs {
                let Some(algorithm) = algorithm_of(*modulus_bytes as u64 * 8) else {
                    let refused = provider.import(Algorithm::Rsa2048, &material(pkcs8)).err();
                    assert_eq!(refused, Some(CryptoError::MaterialRefused));
                    tally.skip("a modulus of another size, not imported");
                    continue;
                };
                if last.as_ref().is_none_or(|(of, _)| of != pkcs8) {
                    let key = provider.import(algorithm, &material(pkcs8)).unwrap();
                    last = Some((pkcs8.clone(), key));
                }
                let Some((_, key)) = &last else { continue };
                let opened = provider.private_key(algorithm, &key.material).unwrap();
                let none = CipherParameters::default();
                if name.contains("pss") {
                    refused_by_all(provider, algorithm, PSS, &key.public_key, message, value);
                    tally.skip("PSS with SHA-1, refused");
                } else if name.contains("oaep") {
                    for mechanism in OAEP {
                        let found = opened.decrypt(mechanism, none, value).err();
                        assert_eq!(found, Some(CryptoError::CiphertextRefused));
                    }
                    tally.skip("OAEP with SHA-1, SHA-224 or another hash for the mask, refused");
                } else {
                    let found = opened.decrypt(Mechanism::RsaPkcs1, none, value).unwrap();
                    assert!(is(provider, &found, message));
                    tally.pass(true);
                }
            }
            tally.finish(&path, provider.name(), pairs.len());
        }
    }
}

#[test]
fn oaep_with_a_label() {
    let name = "nist-rfc/asymmetric/RSA/oaep-label.txt";
    let Some(text) = text(name) else { return };
    let case = cases(&text, &["Output"]).remove(0);
    let label = unhex(&case["OAEPLabel"]);
    for provider in PROVIDERS {
        let algorithm = Algorithm::Rsa2048;
        let key = provider.import(algorithm, &material(&unhex(&case["KEY"]))).unwrap();
        let opened = provider.private_key(algorithm, &key.material).unwrap();
        let decrypt = |label: &[u8]| {
            let parameters = CipherParameters { iv: b"", aad: label };
            opened.decrypt(Mechanism::RsaOaepSha512, parameters, &unhex(&case["Input"]))
        };
        assert!(is(provider, &decrypt(&label).unwrap(), b"Hello World"));
        assert_eq!(decrypt(b"other").err(), Some(CryptoError::CiphertextRefused));
        let mut tally = Tally::default();
        tally.pass(true);
        tally.finish(name, provider.name(), 1);
    }
}
