//! RSA.

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use serde_json::Value;

use super::{
    Case, Deed, Key, OTHER_HASH, OTHER_MODULUS, OTHER_PADDING, SMALL_EXPONENT, Want, name_has,
    only, responses, result, verify, wycheproof,
};
use crate::published::{RsaPair, bytes, cases, integer, rsa_pairs, rsa_spki, text, tlv, unhex};

fn rsa_of(bits: u64) -> Option<Algorithm> {
    match bits {
        2048 => Some(Algorithm::Rsa2048),
        3072 => Some(Algorithm::Rsa3072),
        4096 => Some(Algorithm::Rsa4096),
        _ => None,
    }
}

const PKCS1: [Mechanism; 4] = [
    Mechanism::RsaPkcs1Sha256,
    Mechanism::RsaPkcs1Sha1,
    Mechanism::RsaPkcs1Sha384,
    Mechanism::RsaPkcs1Sha512,
];
const PSS: [Mechanism; 3] =
    [Mechanism::RsaPssSha256, Mechanism::RsaPssSha384, Mechanism::RsaPssSha512];
const OAEP: [Mechanism; 3] =
    [Mechanism::RsaOaepSha256, Mechanism::RsaOaepSha384, Mechanism::RsaOaepSha512];

/// Of the mechanisms, the one with the hash function of that name.
fn with_hash<const N: usize>(mechanisms: [Mechanism; N], hash: &str) -> Option<Mechanism> {
    let plain = hash.replace('-', "");
    mechanisms.into_iter().find(|mechanism| mechanism.hash().unwrap().as_str() == plain)
}

fn is_small(exponent: &Value) -> bool {
    exponent.as_str().is_some_and(|exponent| unhex(exponent).len() < 3)
}

pub(super) fn wycheproof_rsa_signature(name: &str) -> Option<Vec<Case>> {
    wycheproof(name, |group, test| {
        let algorithm = rsa_of(group["keySize"].as_u64().unwrap()).unwrap();
        let found = with_hash(PKCS1, group["sha"].as_str().unwrap());
        let want = match found {
            None if test["result"] == "valid" => Want::Policy(OTHER_HASH),
            // What is invalid by that hash function may be valid by one of ours.
            None => Want::Any,
            Some(_) if is_small(&group["publicKey"]["publicExponent"]) => {
                Want::Policy(SMALL_EXPONENT)
            }
            Some(_) => result(test),
        };
        let key = Key::Public(algorithm, bytes(&group["publicKeyDer"]));
        let mechanism = found.unwrap_or(PKCS1[0]);
        (key, verify(mechanism, bytes(&test["msg"]), bytes(&test["sig"])), want)
    })
}

pub(super) fn wycheproof_pss(name: &str) -> Option<Vec<Case>> {
    wycheproof(name, |group, test| {
        let size = rsa_of(group["keySize"].as_u64().unwrap());
        let (hash, mask) = (group["sha"].as_str().unwrap(), group["mgfSha"].as_str());
        let found = with_hash(PSS, hash).filter(|mechanism| {
            let salt = mechanism.hash().unwrap().digest_bytes() as u64;
            mask == Some(hash) && group["sLen"] == salt
        });
        // What is invalid by other parameters may be valid by ours.
        let want = match (size, found) {
            (None, _) => Want::Policy(OTHER_MODULUS),
            (_, None) if test["result"] == "valid" => Want::Policy(OTHER_PADDING),
            (_, None) => Want::Any,
            (Some(_), Some(_)) => result(test),
        };
        // The plain form of the key; that of id-RSASSA-PSS is not taken, as the crypto crate tests.
        let spki = rsa_spki(&bytes(&group["publicKeyAsn"]));
        let key = Key::Public(size.unwrap_or(Algorithm::Rsa2048), spki);
        let mechanism = found.unwrap_or(PSS[0]);
        (key, verify(mechanism, bytes(&test["msg"]), bytes(&test["sig"])), want)
    })
}

pub(super) fn wycheproof_oaep(name: &str) -> Option<Vec<Case>> {
    wycheproof(name, |group, test| {
        let size = rsa_of(group["keySize"].as_u64().unwrap());
        let hash = group["sha"].as_str().unwrap();
        let found = with_hash(OAEP, hash).filter(|_| group["mgfSha"].as_str() == Some(hash));
        let want = match (size, found) {
            (None, _) => Want::Policy(OTHER_MODULUS),
            _ if is_small(&group["privateKey"]["publicExponent"]) => Want::Policy(SMALL_EXPONENT),
            _ if name_has(name, "three_primes") => Want::Policy("three primes"),
            (_, None) if test["result"] == "valid" => Want::Policy(OTHER_PADDING),
            (_, None) => Want::Any,
            _ if test["result"] == "acceptable" => Want::Either,
            _ => result(test),
        };
        let pkcs8 = bytes(&group["privateKeyPkcs8"]);
        let deed = Deed::Open {
            mechanism: found.unwrap_or(OAEP[0]),
            iv: Vec::new(),
            aad: bytes(&test["label"]),
            ciphertext: bytes(&test["ct"]),
            plaintext: Some(bytes(&test["msg"])),
        };
        (Key::Private(size.unwrap_or(Algorithm::Rsa2048), pkcs8), deed, want)
    })
}

/// A wrong padding is no error but a message made up from key and ciphertext (implicit rejection), so an
/// invalid test is one that gives anything but its message.
pub(super) fn wycheproof_rsa_decryption(name: &str) -> Option<Vec<Case>> {
    wycheproof(name, |group, test| {
        let algorithm = rsa_of(group["keySize"].as_u64().unwrap()).unwrap();
        let valid = test["result"] == "valid";
        let deed = Deed::Open {
            mechanism: Mechanism::RsaPkcs1,
            iv: Vec::new(),
            aad: Vec::new(),
            ciphertext: bytes(&test["ct"]),
            plaintext: valid.then(|| bytes(&test["msg"])),
        };
        let want = if valid { Want::Done } else { Want::Either };
        (Key::Private(algorithm, bytes(&group["privateKeyPkcs8"])), deed, want)
    })
}

pub(super) fn wycheproof_rsa_signing(name: &str) -> Option<Vec<Case>> {
    wycheproof(name, |group, test| {
        let size = rsa_of(group["keySize"].as_u64().unwrap());
        let found = with_hash(PKCS1, group["sha"].as_str().unwrap());
        let want = match (size, found) {
            (None, _) => Want::Policy(OTHER_MODULUS),
            _ if is_small(&group["privateKey"]["publicExponent"]) => Want::Policy(SMALL_EXPONENT),
            (_, None | Some(Mechanism::RsaPkcs1Sha1)) => Want::Policy(OTHER_HASH),
            _ => result(test),
        };
        let deed = Deed::Sign {
            mechanism: found.unwrap_or(PKCS1[0]),
            message: bytes(&test["msg"]),
            signature: bytes(&test["sig"]),
        };
        let pkcs8 = bytes(&group["privateKeyPkcs8"]);
        (Key::Private(size.unwrap_or(Algorithm::Rsa2048), pkcs8), deed, want)
    })
}

pub(super) fn nist_rsa(name: &str) -> Option<Vec<Case>> {
    let pss = name_has(name, "PSS");
    responses(name, &["Result"], |case| {
        let (modulus, exponent) = (unhex(&case["n"]), unhex(&case["e"]));
        let size = rsa_of(modulus.len() as u64 * 8);
        let start = exponent.iter().position(|byte| *byte != 0).unwrap_or(exponent.len());
        // 65537 to 2^33 (the bound of AWS-LC); FIPS 186-5 has more.
        let fits = (3..=4).contains(&(exponent.len() - start));
        let found = if pss { None } else { with_hash(PKCS1, &case["SHAAlg"]) };
        let valid = case["Result"].starts_with('P');
        let want = match (size, found) {
            (None, _) => Want::Policy(OTHER_MODULUS),
            _ if !fits => Want::Policy(SMALL_EXPONENT),
            (_, None) if pss => Want::Policy("a salt of 10 bytes"),
            (_, None) => Want::Policy(OTHER_HASH),
            _ if valid => Want::Done,
            _ => Want::Refused,
        };
        let spki = rsa_spki(&tlv(0x30, &[&integer(&modulus), &integer(&exponent)]));
        let other = if pss { PSS[0] } else { PKCS1[0] };
        let deed = verify(found.unwrap_or(other), unhex(&case["Msg"]), unhex(&case["S"]));
        (Key::Public(size.unwrap_or(Algorithm::Rsa2048), spki), deed, want)
    })
}

pub(super) fn rsa_laboratories(name: &str) -> Option<Vec<Case>> {
    let pairs = rsa_pairs(&text(name)?);
    let made = pairs.into_iter().enumerate().map(|(number, pair)| {
        let RsaPair { pkcs8, modulus_bytes, message, value } = pair;
        let size = rsa_of(modulus_bytes as u64 * 8);
        let open = |mechanism, plaintext| Deed::Open {
            mechanism,
            iv: Vec::new(),
            aad: Vec::new(),
            ciphertext: value.clone(),
            plaintext: Some(plaintext),
        };
        let (deed, want) = match name {
            name if name_has(name, "pss") => {
                (verify(PSS[0], message, value), Want::Policy("PSS with SHA-1"))
            }
            name if name_has(name, "oaep") => (open(OAEP[0], message), Want::Policy(OTHER_PADDING)),
            _ => (open(Mechanism::RsaPkcs1, message), Want::Done),
        };
        let want = if size.is_none() { Want::Policy(OTHER_MODULUS) } else { want };
        let key = Key::Private(size.unwrap_or(Algorithm::Rsa2048), pkcs8);
        Case { number, kind: format!("{want:?}"), key, deed, want }
    });
    Some(made.collect())
}

pub(super) fn oaep_label(name: &str) -> Option<Vec<Case>> {
    let case = cases(&text(name)?, &["Output"]).remove(0);
    let deed = Deed::Open {
        mechanism: Mechanism::RsaOaepSha512,
        iv: Vec::new(),
        aad: unhex(&case["OAEPLabel"]),
        ciphertext: unhex(&case["Input"]),
        plaintext: Some(case["Output"].trim_matches('"').as_bytes().to_vec()),
    };
    Some(only(Key::Private(Algorithm::Rsa2048, unhex(&case["KEY"])), deed))
}
