//! ML-DSA and ML-KEM.

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use serde_json::Value;

use super::{Case, Deed, Key, Want, name_has, named, only, responses, result, spki, wycheproof};
use crate::published::{bytes, pkcs8, text, tlv, unhex};

fn public_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::MlDsa44 => 1312,
        Algorithm::MlDsa65 => 1952,
        Algorithm::MlDsa87 => 2592,
        Algorithm::MlKem768 => 1184,
        _ => 1568,
    }
}

fn seed_form(algorithm: Algorithm, seed: &[u8]) -> Key {
    Key::Private(algorithm, pkcs8(algorithm, public_bytes(algorithm), &tlv(0x80, &[seed])))
}

fn expanded_form(algorithm: Algorithm, key: &[u8]) -> Key {
    Key::Private(algorithm, pkcs8(algorithm, public_bytes(algorithm), &tlv(4, &[key])))
}

pub(super) fn wycheproof_ml_dsa(name: &str) -> Option<Vec<Case>> {
    let algorithm = if name_has(name, "_65_") { Algorithm::MlDsa65 } else { Algorithm::MlDsa87 };
    wycheproof(name, |group, test| {
        let key = match group["privateKey"].as_str() {
            Some(_) => expanded_form(algorithm, &bytes(&group["privateKey"])),
            None => seed_form(algorithm, &bytes(&group["privateSeed"])),
        };
        // A hash made outside is not taken as one, and as a message it has another signature.
        let (message, want) = if test["msg"].is_null() {
            (bytes(&test["mu"]), Want::Policy("a hash made outside (external mu)"))
        } else {
            (bytes(&test["msg"]), result(test))
        };
        let deed = Deed::Verify {
            mechanism: Mechanism::MlDsa,
            message,
            context: bytes(&test["ctx"]),
            signature: bytes(&test["sig"]),
        };
        (key, deed, want)
    })
}

pub(super) fn nist_ml_dsa(name: &str) -> Option<Vec<Case>> {
    let algorithm = Algorithm::MlDsa65;
    responses(name, &["ctx"], |case| {
        let value = |name: &str| unhex(&case[name]);
        let signed = value("sm");
        let signature = signed[..signed.len() - value("msg").len()].to_vec();
        let (message, context) = (value("msg"), value("ctx"));
        let deed = Deed::Verify { mechanism: Mechanism::MlDsa, message, context, signature };
        (seed_form(algorithm, &value("xi")), deed, Want::Done)
    })
}

fn kem_of(name: &str) -> Algorithm {
    if name_has(name, "768") { Algorithm::MlKem768 } else { Algorithm::MlKem1024 }
}

pub(super) fn wycheproof_ml_kem_keys(name: &str) -> Option<Vec<Case>> {
    let algorithm = kem_of(name);
    wycheproof(name, |_, test| {
        let public = spki(algorithm, &bytes(&test["ek"]));
        (seed_form(algorithm, &bytes(&test["seed"])), Deed::Import { public }, result(test))
    })
}

fn decapsulate(value: &Value, ciphertext: &str, secret: &str) -> Deed {
    Deed::Decapsulate { ciphertext: bytes(&value[ciphertext]), secret: bytes(&value[secret]) }
}

pub(super) fn wycheproof_ml_kem_decapsulation(name: &str) -> Option<Vec<Case>> {
    let algorithm = kem_of(name);
    wycheproof(name, |_, test| {
        let key = expanded_form(algorithm, &bytes(&test["dk"]));
        (key, decapsulate(test, "c", "K"), result(test))
    })
}

/// These have no private key, and the daemon draws the randomness itself: a good key is encapsulated for
/// and a bad one is refused.
pub(super) fn wycheproof_ml_kem_encapsulation(name: &str) -> Option<Vec<Case>> {
    let algorithm = Algorithm::MlKem1024;
    wycheproof(name, |_, test| {
        let key = Key::Public(algorithm, spki(algorithm, &bytes(&test["ek"])));
        (key, Deed::Encapsulate, result(test))
    })
}

const SMALLEST: Want = Want::Policy("ML-KEM-512, which is no algorithm of ours");

fn acvp(name: &str, make: impl Fn(&Value, &Value) -> (Key, Deed)) -> Option<Vec<Case>> {
    wycheproof(name, |group, test| {
        let (key, deed) = make(group, test);
        let smallest = group["parameterSet"] == "ML-KEM-512";
        (key, deed, if smallest { SMALLEST } else { Want::Done })
    })
}

pub(super) fn acvp_ml_kem_keys(name: &str) -> Option<Vec<Case>> {
    acvp(name, |group, test| {
        let algorithm = kem_of(group["parameterSet"].as_str().unwrap());
        let public = spki(algorithm, &bytes(&test["ek"]));
        if group["parameterSet"] == "ML-KEM-512" {
            // The seeds of all sizes look alike, so it is the expanded key that is refused.
            return (expanded_form(algorithm, &bytes(&test["dk"])), Deed::Import { public });
        }
        let seed = [bytes(&test["d"]), bytes(&test["z"])].concat();
        (seed_form(algorithm, &seed), Deed::Import { public })
    })
}

pub(super) fn acvp_ml_kem_uses(name: &str) -> Option<Vec<Case>> {
    acvp(name, |group, test| {
        let algorithm = kem_of(group["parameterSet"].as_str().unwrap());
        let holder = if group["dk"].is_string() { group } else { test };
        (expanded_form(algorithm, &bytes(&holder["dk"])), decapsulate(test, "c", "k"))
    })
}

/// These were made before FIPS 203 was final: a seed was expanded otherwise, all else is as now.
pub(super) fn cctv_ml_kem(name: &str) -> Option<Vec<Case>> {
    let text = text(name)?;
    let key = expanded_form(kem_of(name), &named(&text, "dk"));
    let (ciphertext, secret) = (named(&text, "c"), named(&text, "K"));
    Some(only(key, Deed::Decapsulate { ciphertext, secret }))
}

pub(super) fn cctv_ml_kem_modulus(name: &str) -> Option<Vec<Case>> {
    let text = text(name)?;
    let made = text.lines().enumerate().map(|(number, line)| {
        let key = spki(Algorithm::MlKem768, &unhex(line));
        Case {
            number,
            kind: String::new(),
            key: Key::Public(Algorithm::MlKem768, key.clone()),
            deed: Deed::Import { public: key },
            want: Want::Refused,
        }
    });
    Some(made.collect())
}
