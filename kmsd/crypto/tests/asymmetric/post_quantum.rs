//! ML-DSA and ML-KEM.

use std::collections::BTreeMap;

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use kms_crypto::CryptoError;
use kms_crypto::material::Material;
use kms_crypto::mechanism::key_form;
use kms_crypto::provider::{NewKey, Provider, SignInput};

use crate::vectors::{
    PROVIDERS, Tally, bytes, cases, groups, is, json, material, pkcs8, text, tlv, unhex,
};

/// The private key as PKCS#8 in the seed form.
fn seed_form(algorithm: Algorithm, seed: &[u8]) -> Material {
    material(&pkcs8(algorithm, public_bytes(algorithm), &tlv(0x80, &[seed])))
}

/// The private key as PKCS#8 in the expanded form.
fn expanded_form(algorithm: Algorithm, key: &[u8]) -> Material {
    material(&pkcs8(algorithm, public_bytes(algorithm), &tlv(4, &[key])))
}

/// The private key as PKCS#8 with both forms.
fn both_forms(algorithm: Algorithm, seed: &[u8], key: &[u8]) -> Material {
    let both = tlv(0x30, &[&tlv(4, &[seed]), &tlv(4, &[key])]);
    material(&pkcs8(algorithm, public_bytes(algorithm), &both))
}

fn public_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::MlDsa44 => 1312,
        Algorithm::MlDsa65 => 1952,
        Algorithm::MlDsa87 => 2592,
        Algorithm::MlKem768 => 1184,
        _ => 1568,
    }
}

fn raw(algorithm: Algorithm, key: &NewKey) -> Vec<u8> {
    key_form::raw_public_key(algorithm, &key.public_key).unwrap().to_vec()
}

/// Why a case is left out of the FIPS build; its keys are refused there.
const NO_SEED: &str = "the FIPS build takes no ML-DSA key without its seed";

#[test]
fn wycheproof_ml_dsa() {
    for (name, algorithm) in [
        ("65_sign_noseed", Algorithm::MlDsa65),
        ("65_sign_seed", Algorithm::MlDsa65),
        ("87_sign_noseed", Algorithm::MlDsa87),
        ("87_sign_seed", Algorithm::MlDsa87),
    ] {
        let name = format!("wycheproof/mldsa_{name}_test.json");
        let Some(file) = json(&name) else { continue };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            // Keys repeat from test to test.
            let mut keys = BTreeMap::new();
            for (group, test) in groups(&file) {
                if test["msg"].is_null() {
                    tally.skip("signs a hash made outside (external mu), which is not offered");
                    continue;
                }
                let (seed, expanded) = (&group["privateSeed"], &group["privateKey"]);
                let imported =
                    keys.entry((seed.to_string(), expanded.to_string())).or_insert_with(|| {
                        match expanded.as_str() {
                            Some(_) => provider
                                .import(algorithm, &expanded_form(algorithm, &bytes(expanded))),
                            None => provider.import(algorithm, &seed_form(algorithm, &bytes(seed))),
                        }
                    });
                let Ok(key) = imported else {
                    match expanded.as_str() {
                        Some(_) if cfg!(feature = "fips") => tally.skip(NO_SEED),
                        _ => tally.check(test, false),
                    }
                    continue;
                };
                if test["result"] == "valid" {
                    assert_eq!(raw(algorithm, key), bytes(&group["publicKey"]));
                }
                let (message, context) = (bytes(&test["msg"]), bytes(&test["ctx"]));
                let signature = bytes(&test["sig"]);
                tally.check(
                    test,
                    signs_and_verifies(provider, algorithm, key, &message, &context, &signature),
                );
            }
            tally.finish(&name, provider.name(), groups(&file).count());
        }
    }
}

/// Whether the published signature is accepted, and one made here too. Ours are hedged, so they differ.
fn signs_and_verifies(
    provider: &dyn Provider,
    algorithm: Algorithm,
    key: &NewKey,
    message: &[u8],
    context: &[u8],
    signature: &[u8],
) -> bool {
    let (mechanism, input) = (Mechanism::MlDsa, SignInput::Message(message));
    let signer = provider.private_key(algorithm, &key.material).unwrap();
    let verify = |signature: &[u8]| {
        provider.verify(algorithm, mechanism, &key.public_key, input, context, signature)
    };
    match signer.sign(mechanism, input, context) {
        Ok(own) => {
            assert_ne!(own, signature);
            assert_eq!(verify(&own), Ok(true));
            let mut edited = signature.to_vec();
            edited[100] ^= 1;
            assert_eq!(verify(&edited), Ok(false));
            verify(signature) == Ok(true)
        }
        Err(refused) => {
            assert!(matches!(refused, CryptoError::InputRefused { .. }), "{refused}");
            assert!(matches!(verify(signature), Err(CryptoError::InputRefused { .. })));
            false
        }
    }
}

/// The file carries the secret key too: the seed gives it, and without the seed it is the same key.
#[test]
fn nist_ml_dsa_65() {
    let name = "nist-rfc/asymmetric/MLDSA/kat_MLDSA_65_det_pure.rsp";
    let Some(text) = text(name) else { return };
    let (algorithm, cases) = (Algorithm::MlDsa65, cases(&text, &["ctx"]));
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for case in &cases {
            let value = |name: &str| unhex(&case[name]);
            let key = provider.import(algorithm, &seed_form(algorithm, &value("xi"))).unwrap();
            assert_eq!(raw(algorithm, &key), value("pk"));
            let expanded = expanded_form(algorithm, &value("sk"));
            // The FIPS build takes no key without its seed.
            let same = provider.import(algorithm, &expanded);
            assert_eq!(same.is_err(), cfg!(feature = "fips"));
            let same = same.ok();
            assert!(same.as_ref().is_none_or(|same| same.public_key == key.public_key));
            let both = both_forms(algorithm, &value("xi"), &value("sk"));
            assert_eq!(provider.import(algorithm, &both).unwrap().public_key, key.public_key);
            let signed = value("sm");
            let signature = &signed[..signed.len() - value("msg").len()];
            for key in std::iter::once(&key).chain(&same) {
                let (message, context) = (value("msg"), value("ctx"));
                assert!(signs_and_verifies(
                    provider, algorithm, key, &message, &context, signature
                ));
            }
            tally.pass(true);
        }
        tally.finish(name, provider.name(), cases.len());
    }
}

#[test]
fn an_expanded_ml_dsa_key_that_was_edited_is_refused() {
    let name = "nist-rfc/asymmetric/MLDSA/kat_MLDSA_65_det_pure.rsp";
    let Some(text) = text(name) else { return };
    let (algorithm, cases) = (Algorithm::MlDsa65, cases(&text, &["ctx"]));
    let good = unhex(&cases[0]["sk"]);
    // Five polynomials of s1, then six of s2, of 128 bytes each, behind 128 bytes of hashes.
    const S2: usize = 128 + 5 * 128;
    const T0: usize = S2 + 6 * 128;
    for provider in PROVIDERS {
        // rho, tr, s1, s2 and t0. A changed K is another key, and a whole one.
        for at in [0, 64, 128, 300, 700, S2, T0 - 1, T0, T0 + 1000, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            // One step in a coefficient that stays in range: the high half of t may stay as it was.
            let mut near = good.clone();
            near[at] ^= 1;
            let refused = provider.import(algorithm, &expanded_form(algorithm, &near)).err();
            assert_eq!(refused, Some(CryptoError::MaterialRefused), "byte {at}");
            let refused = provider.import(algorithm, &expanded_form(algorithm, &bad)).err();
            assert_eq!(refused, Some(CryptoError::MaterialRefused), "byte {at}");
        }
        let other = both_forms(algorithm, &unhex(&cases[1]["xi"]), &good);
        let refused = provider.import(algorithm, &other).err();
        assert_eq!(refused, Some(CryptoError::MaterialRefused));
    }
}

/// A seed gives the published pair; so do the expanded key and both together.
fn makes_the_pair(
    provider: &dyn Provider,
    algorithm: Algorithm,
    seed: &[u8],
    public: &[u8],
    expanded: &[u8],
) -> NewKey {
    let key = provider.import(algorithm, &seed_form(algorithm, seed)).unwrap();
    assert_eq!(raw(algorithm, &key), public);
    for form in [expanded_form(algorithm, expanded), both_forms(algorithm, seed, expanded)] {
        assert_eq!(provider.import(algorithm, &form).unwrap().public_key, key.public_key);
    }
    key
}

fn recovers(
    provider: &dyn Provider,
    algorithm: Algorithm,
    key: &Material,
    ciphertext: &[u8],
    secret: &[u8],
) -> bool {
    match provider.private_key(algorithm, key).unwrap().decapsulate(ciphertext) {
        Ok(recovered) => {
            assert!(is(provider, &recovered, secret));
            true
        }
        Err(refused) => {
            assert_eq!(refused, CryptoError::CiphertextRefused);
            false
        }
    }
}

#[test]
fn wycheproof_ml_kem() {
    for (size, algorithm) in [("768", Algorithm::MlKem768), ("1024", Algorithm::MlKem1024)] {
        let name = format!("wycheproof/mlkem_{size}_keygen_seed_test.json");
        if let Some(file) = json(&name) {
            for provider in PROVIDERS {
                let mut tally = Tally::default();
                for (_, test) in groups(&file) {
                    let value = |name: &str| bytes(&test[name]);
                    makes_the_pair(provider, algorithm, &value("seed"), &value("ek"), &value("dk"));
                    tally.check(test, true);
                }
                tally.finish(&name, provider.name(), groups(&file).count());
            }
        }
        let name = format!("wycheproof/mlkem_{size}_semi_expanded_decaps_test.json");
        let Some(file) = json(&name) else { continue };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for (_, test) in groups(&file) {
                let value = |name: &str| bytes(&test[name]);
                let key = provider.import(algorithm, &expanded_form(algorithm, &value("dk")));
                let valid = key.is_ok_and(|key| {
                    recovers(provider, algorithm, &key.material, &value("c"), &value("K"))
                });
                tally.check(test, valid);
            }
            tally.finish(&name, provider.name(), groups(&file).count());
        }
    }
}

/// These have no private key, and a provider draws the randomness itself, so ciphertext and secret cannot
/// be compared; that a good key is encapsulated for and a bad one refused, can.
#[test]
fn wycheproof_ml_kem_encapsulation() {
    let name = "wycheproof/mlkem_1024_encaps_test.json";
    let Some(file) = json(name) else { return };
    let algorithm = Algorithm::MlKem1024;
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for (_, test) in groups(&file) {
            let sent = key_form::public_key_from_raw(algorithm, &bytes(&test["ek"]))
                .and_then(|key| provider.encapsulate(algorithm, &key));
            if let Ok((ciphertext, secret)) = &sent {
                assert_eq!((ciphertext.len(), secret.len()), (bytes(&test["c"]).len(), 32));
            }
            tally.check(test, sent.is_ok());
        }
        tally.finish(name, provider.name(), groups(&file).count());
    }
}

#[test]
fn acvp_ml_kem() {
    let (keys, uses) = ("acvp/ml-kem-keygen.json.gz", "acvp/ml-kem-encap-decap.json");
    let (Some(key_file), Some(use_file)) = (json(keys), json(uses)) else { return };
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for (group, test) in groups(&key_file) {
            let Some(algorithm) = set_of(group["parameterSet"].as_str().unwrap()) else {
                tally.skip(SMALLEST);
                continue;
            };
            let seed = [bytes(&test["d"]), bytes(&test["z"])].concat();
            let (public, expanded) = (bytes(&test["ek"]), bytes(&test["dk"]));
            makes_the_pair(provider, algorithm, &seed, &public, &expanded);
            tally.pass(true);
        }
        tally.finish(keys, provider.name(), groups(&key_file).count());
        let mut tally = Tally::default();
        for (group, test) in groups(&use_file) {
            let Some(algorithm) = set_of(group["parameterSet"].as_str().unwrap()) else {
                tally.skip(SMALLEST);
                continue;
            };
            let holder = if group["dk"].is_string() { group } else { test };
            let form = expanded_form(algorithm, &bytes(&holder["dk"]));
            let key = provider.import(algorithm, &form).unwrap();
            assert_eq!(raw(algorithm, &key), bytes(&holder["ek"]));
            let (ciphertext, secret) = (bytes(&test["c"]), bytes(&test["k"]));
            assert!(recovers(provider, algorithm, &key.material, &ciphertext, &secret));
            tally.pass(true);
        }
        tally.finish(uses, provider.name(), groups(&use_file).count());
    }
}

fn set_of(name: &str) -> Option<Algorithm> {
    match name {
        "ML-KEM-768" => Some(Algorithm::MlKem768),
        "ML-KEM-1024" => Some(Algorithm::MlKem1024),
        _ => None,
    }
}

const SMALLEST: &str = "ML-KEM-512, which is no algorithm of ours";

#[test]
fn cctv_ml_kem() {
    let value = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
        unhex(line.unwrap())
    };
    for (name, algorithm) in [
        ("intermediate/ML-KEM-768.txt", Algorithm::MlKem768),
        ("intermediate/ML-KEM-1024.txt", Algorithm::MlKem1024),
        ("unluckysample/ML-KEM-768.txt", Algorithm::MlKem768),
        ("strcmp/ML-KEM-768.txt", Algorithm::MlKem768),
    ] {
        let name = format!("cctv/ML-KEM/{name}");
        let Some(text) = text(&name) else { continue };
        for provider in PROVIDERS {
            // These were made before FIPS 203 was final: a seed was expanded otherwise, all else is as now.
            let form = expanded_form(algorithm, &value(&text, "dk"));
            let key = provider.import(algorithm, &form).unwrap();
            let (ciphertext, secret) = (value(&text, "c"), value(&text, "K"));
            assert!(recovers(provider, algorithm, &key.material, &ciphertext, &secret));
            let mut tally = Tally::default();
            tally.pass(true);
            tally.finish(&name, provider.name(), 1);
        }
    }
    let name = "cctv/ML-KEM/modulus/ML-KEM-768.txt.gz";
    let Some(text) = text(name) else { return };
    let algorithm = Algorithm::MlKem768;
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for line in text.lines() {
            let key = key_form::public_key_from_raw(algorithm, &unhex(line)).unwrap();
            let invalid = CryptoError::PublicKeyInvalid { algorithm };
            assert_eq!(provider.check_public_key(algorithm, &key), Err(invalid.clone()));
            assert_eq!(provider.encapsulate(algorithm, &key).err(), Some(invalid));
            tally.pass(false);
        }
        tally.finish(name, provider.name(), text.lines().count());
    }
}
