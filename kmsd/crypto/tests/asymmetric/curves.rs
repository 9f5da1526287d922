//! ECDSA, ECDH, Ed25519 and X25519.

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use kms_crypto::mechanism::{ecdsa, key_form};
use kms_crypto::provider::{Provider, SignInput};

use crate::vectors::{
    PROVIDERS, Tally, bytes, cases, ec_pkcs8, field_bytes, fixed, groups, is, json, material,
    pkcs8, text, tlv, unhex,
};

#[test]
fn wycheproof_ecdsa() {
    for (name, algorithm, mechanism) in [
        ("secp256r1_sha256", Algorithm::EcP256, Mechanism::EcdsaSha256),
        ("secp256r1_sha256_p1363", Algorithm::EcP256, Mechanism::EcdsaSha256),
        ("secp256r1_sha3_256", Algorithm::EcP256, Mechanism::EcdsaSha3_256),
        ("secp256r1_sha3_512", Algorithm::EcP256, Mechanism::EcdsaSha3_512),
        ("secp256r1_sha512", Algorithm::EcP256, Mechanism::EcdsaSha512),
        ("secp256r1_sha512_p1363", Algorithm::EcP256, Mechanism::EcdsaSha512),
        ("secp384r1_sha384", Algorithm::EcP384, Mechanism::EcdsaSha384),
        ("secp384r1_sha384_p1363", Algorithm::EcP384, Mechanism::EcdsaSha384),
        ("secp384r1_sha3_384", Algorithm::EcP384, Mechanism::EcdsaSha3_384),
        ("secp384r1_sha512", Algorithm::EcP384, Mechanism::EcdsaSha512),
        ("secp521r1_sha512", Algorithm::EcP521, Mechanism::EcdsaSha512),
    ] {
        let name = format!("wycheproof/ecdsa_{name}_test.json");
        let Some(file) = json(&name) else { continue };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for (group, test) in groups(&file) {
                let (key, message) = (bytes(&group["publicKeyDer"]), bytes(&test["msg"]));
                let signature = bytes(&test["sig"]);
                let signature = if name.contains("p1363") {
                    ecdsa::der_from_raw(algorithm, &signature)
                } else {
                    Ok(signature)
                };
                let valid = signature.is_ok_and(|signature| {
                    let input = SignInput::Message(&message);
                    provider.verify(algorithm, mechanism, &key, input, b"", &signature).unwrap()
                });
                tally.check(test, valid);
            }
            tally.finish(&name, provider.name(), groups(&file).count());
        }
    }
}

/// The secret that `provider` agrees to, or whether it refuses.
fn agrees(
    provider: &dyn Provider,
    algorithm: Algorithm,
    private: &[u8],
    peer: &[u8],
    secret: &[u8],
) -> Option<bool> {
    let key = provider.import(algorithm, &material(private)).ok()?.material;
    let agreed = provider.private_key(algorithm, &key).unwrap().agree(peer).ok()?;
    Some(is(provider, &agreed, secret))
}

#[test]
fn wycheproof_ecdh() {
    for (name, algorithm) in [
        ("secp256r1_ecpoint", Algorithm::EcP256),
        ("secp384r1_ecpoint", Algorithm::EcP384),
        ("secp384r1", Algorithm::EcP384),
        ("secp521r1_ecpoint", Algorithm::EcP521),
    ] {
        let name = format!("wycheproof/ecdh_{name}_test.json");
        let Some(file) = json(&name) else { continue };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for (_, test) in groups(&file) {
                let scalar = fixed(&bytes(&test["private"]), field_bytes(algorithm)).unwrap();
                let public = bytes(&test["public"]);
                let peer = if name.contains("ecpoint") {
                    key_form::public_key_from_raw(algorithm, &public).unwrap_or_default()
                } else {
                    public
                };
                let private = ec_pkcs8(algorithm, &scalar);
                let secret = bytes(&test["shared"]);
                let agreed = agrees(provider, algorithm, &private, &peer, &secret);
                assert_ne!(agreed, Some(false), "test {}", test["tcId"]);
                if agreed.is_some() && test["result"] == "acceptable" {
                    // The very encoding that we write, only with something odd about the values.
                    let raw = key_form::raw_public_key(algorithm, &peer).unwrap();
                    assert_eq!(key_form::public_key_from_raw(algorithm, raw), Ok(peer));
                    tally.pass(true);
                } else {
                    tally.check(test, agreed.is_some());
                }
            }
            tally.finish(&name, provider.name(), groups(&file).count());
        }
    }
}

#[test]
fn wycheproof_ed25519() {
    let name = "wycheproof/ed25519_test.json";
    let Some(file) = json(name) else { return };
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for (group, test) in groups(&file) {
            let (key, message) = (bytes(&group["publicKeyDer"]), bytes(&test["msg"]));
            let input = SignInput::Message(&message);
            let (algorithm, mechanism) = (Algorithm::Ed25519, Mechanism::EdDsa);
            let signature = bytes(&test["sig"]);
            let valid = provider.verify(algorithm, mechanism, &key, input, b"", &signature);
            tally.check(test, valid.unwrap());
        }
        tally.finish(name, provider.name(), groups(&file).count());
    }
}

/// RFC 7748 takes every 32 bytes as a public key; only a secret of zeros is refused. So "acceptable"
/// means: agreed to, unless the point is of small order.
#[test]
fn wycheproof_x25519() {
    let algorithm = Algorithm::X25519;
    for name in ["wycheproof/x25519_test.json", "wycheproof/x25519_asn_test.json"] {
        let Some(file) = json(name) else { continue };
        for provider in PROVIDERS {
            let mut tally = Tally::default();
            for (_, test) in groups(&file) {
                let (private, public) = (bytes(&test["private"]), bytes(&test["public"]));
                let (private, public) = if name.contains("asn") {
                    (private, public)
                } else {
                    let public = key_form::public_key_from_raw(algorithm, &public).unwrap();
                    (pkcs8(algorithm, 32, &tlv(4, &[&private])), public)
                };
                let secret = bytes(&test["shared"]);
                let agreed = agrees(provider, algorithm, &private, &public, &secret);
                assert_ne!(agreed, Some(false), "test {}", test["tcId"]);
                let flags = test["flags"].as_array().unwrap();
                let zero = flags.iter().any(|flag| flag == "ZeroSharedSecret");
                if test["result"] == "acceptable" {
                    assert_eq!(agreed.is_some(), !zero, "test {}", test["tcId"]);
                    tally.pass(agreed.is_some());
                } else {
                    tally.check(test, agreed.is_some());
                }
            }
            tally.finish(name, provider.name(), groups(&file).count());
        }
    }
}

/// The parameters of each curve: the order and beyond are no scalars, one less is, and the scalar 1 has
/// the base point as its public key.
#[test]
fn wycheproof_curve_parameters() {
    let name = "wycheproof/ec_prime_order_curves_test.json";
    let Some(file) = json(name) else { return };
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for (_, test) in groups(&file) {
            let Some(algorithm) = curve_of(test["name"].as_str().unwrap()) else {
                tally.skip("a curve that no algorithm of ours is on");
                continue;
            };
            let length = field_bytes(algorithm);
            let number = |name: &str| fixed(&unhex(test[name].as_str().unwrap()), length).unwrap();
            let import =
                |scalar: &[u8]| provider.import(algorithm, &material(&ec_pkcs8(algorithm, scalar)));
            let mut order = number("n");
            assert!(import(&order).is_err());
            *order.last_mut().unwrap() -= 1;
            assert!(import(&order).is_ok());
            assert!(import(&vec![0; length]).is_err());
            let one = import(&fixed(&[1], length).unwrap()).unwrap();
            let base = [&[4][..], &number("gx"), &number("gy")].concat();
            assert_eq!(key_form::raw_public_key(algorithm, &one.public_key).unwrap(), base);
            tally.pass(true);
        }
        tally.finish(name, provider.name(), groups(&file).count());
    }
}

fn curve_of(name: &str) -> Option<Algorithm> {
    match name {
        "secp256r1" | "P-256" => Some(Algorithm::EcP256),
        "secp384r1" | "P-384" => Some(Algorithm::EcP384),
        "secp521r1" | "P-521" => Some(Algorithm::EcP521),
        "secp256k1" => Some(Algorithm::EcSecp256k1),
        _ => None,
    }
}

const OTHER_CURVE: &str = "a curve that no algorithm of ours is on";

#[test]
fn nist_key_pairs_and_public_keys() {
    let folder = "nist-rfc/asymmetric/ECDSA/FIPS_186-3";
    let (pairs, keys) = (format!("{folder}/KeyPair.rsp"), format!("{folder}/PKV.rsp"));
    let (Some(pair_text), Some(key_text)) = (text(&pairs), text(&keys)) else { return };
    for provider in PROVIDERS {
        let (mut tally, cases) = (Tally::default(), cases(&pair_text, &["Qy"]));
        let mut curve = None;
        // The curve stands in a line of its own before another section line.
        let mut curves = pair_text.lines().filter_map(|line| {
            curve = line.strip_prefix('[').map_or(curve, |section| {
                let name = section.trim_end_matches(']');
                if name.contains("B.4") { curve } else { Some(name) }
            });
            line.starts_with("Qy").then_some(curve?)
        });
        for case in &cases {
            let Some(algorithm) = curve_of(curves.next().unwrap()) else {
                tally.skip(OTHER_CURVE);
                continue;
            };
            let number = |name: &str| fixed(&unhex(&case[name]), field_bytes(algorithm)).unwrap();
            let private = material(&ec_pkcs8(algorithm, &number("d")));
            let public = provider.import(algorithm, &private).unwrap().public_key;
            let point = [&[4][..], &number("Qx"), &number("Qy")].concat();
            assert_eq!(key_form::raw_public_key(algorithm, &public).unwrap(), point);
            tally.pass(true);
        }
        tally.finish(&pairs, provider.name(), cases.len());
        let (mut tally, cases) = (Tally::default(), crate::vectors::cases(&key_text, &["Result"]));
        for case in &cases {
            let Some(algorithm) = curve_of(&case["section"]) else {
                tally.skip(OTHER_CURVE);
                continue;
            };
            let valid = spki(algorithm, &case["Qx"], &case["Qy"])
                .is_some_and(|spki| provider.check_public_key(algorithm, &spki).is_ok());
            assert_eq!(valid, case["Result"].starts_with('P'));
            tally.pass(valid);
        }
        tally.finish(&keys, provider.name(), cases.len());
    }
}

fn spki(algorithm: Algorithm, x: &str, y: &str) -> Option<Vec<u8>> {
    let length = field_bytes(algorithm);
    let point = [&[4][..], &fixed(&unhex(x), length)?, &fixed(&unhex(y), length)?].concat();
    key_form::public_key_from_raw(algorithm, &point).ok()
}

#[test]
fn nist_signatures() {
    let name = "nist-rfc/asymmetric/ECDSA/FIPS_186-3/SigVer.rsp";
    let Some(text) = text(name) else { return };
    let cases = cases(&text, &["Result"]);
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for case in &cases {
            let (curve, hash) = case["section"].split_once(',').unwrap();
            let mechanism = match hash {
                "SHA-256" => Mechanism::EcdsaSha256,
                "SHA-384" => Mechanism::EcdsaSha384,
                "SHA-512" => Mechanism::EcdsaSha512,
                _ => {
                    tally.skip("ECDSA with SHA-1 or SHA-224, for which there is no mechanism");
                    continue;
                }
            };
            let Some(algorithm) = curve_of(curve) else {
                tally.skip(OTHER_CURVE);
                continue;
            };
            let key = spki(algorithm, &case["Qx"], &case["Qy"]).unwrap();
            let number = |name: &str| fixed(&unhex(&case[name]), field_bytes(algorithm)).unwrap();
            let message = unhex(&case["Msg"]);
            let raw = [number("R"), number("S")].concat();
            let valid = ecdsa::der_from_raw(algorithm, &raw).is_ok_and(|signature| {
                let input = SignInput::Message(&message);
                let valid = provider.verify(algorithm, mechanism, &key, input, b"", &signature);
                valid.unwrap_or(false)
            });
            assert_eq!(valid, case["Result"].starts_with('P'));
            tally.pass(valid);
        }
        tally.finish(name, provider.name(), cases.len());
    }
}

/// A responder's whole work: its own pair fits together, the peer's key is valid, and the secret and its
/// hash come out. One of them fails in each case that must fail.
#[test]
fn nist_agreements() {
    let folder = "nist-rfc/asymmetric/ECDH";
    let name = format!("{folder}/KASValidityTest_ECCStaticUnified_NOKC_ZZOnly_resp.fax");
    let Some(text) = text(&name) else { return };
    let cases = cases(&text, &["Result"]);
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for case in &cases {
            let (algorithm, hash) = match &case["section"][..2] {
                "EC" => (Algorithm::EcP256, kms_core::mechanism::Hash::Sha256),
                "ED" => (Algorithm::EcP384, kms_core::mechanism::Hash::Sha384),
                "EE" => (Algorithm::EcP521, kms_core::mechanism::Hash::Sha512),
                _ => {
                    tally.skip(OTHER_CURVE);
                    continue;
                }
            };
            let scalar = fixed(&unhex(&case["dsIUT"]), field_bytes(algorithm)).unwrap();
            let private = ec_pkcs8(algorithm, &scalar);
            let secret = fixed(&unhex(&case["Z"]), field_bytes(algorithm)).unwrap();
            let own = provider.import(algorithm, &material(&private)).ok();
            let own_fits = own.is_some_and(|own| {
                spki(algorithm, &case["QsIUTx"], &case["QsIUTy"]) == Some(own.public_key)
            });
            let agreed = spki(algorithm, &case["QsCAVSx"], &case["QsCAVSy"])
                .and_then(|peer| agrees(provider, algorithm, &private, &peer, &secret));
            let hash_fits = provider.digest(hash, &secret) == unhex(&case["CAVSHashZZ"]);
            let valid = own_fits && hash_fits && agreed == Some(true);
            assert_eq!(valid, case["Result"].starts_with('P'), "{case:?}");
            tally.pass(valid);
        }
        tally.finish(&name, provider.name(), cases.len());
    }
}

/// The one message for which RFC 6979 must draw twice. The pure-Rust provider signs by that document,
/// so its signature is the published one; AWS-LC draws at random.
#[test]
fn cctv_rfc_6979() {
    let name = "cctv/RFC6979/README.md";
    let Some(text) = text(name) else { return };
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
        unhex(line.unwrap())
    };
    let (algorithm, mechanism) = (Algorithm::EcP256, Mechanism::EcdsaSha256);
    let expected = [value("r"), value("s")].concat();
    let expected = ecdsa::der_from_raw(algorithm, &expected).unwrap();
    let input = SignInput::Message(b"wv[vnX");
    for provider in PROVIDERS {
        let private = material(&ec_pkcs8(algorithm, &value("x")));
        let key = provider.import(algorithm, &private).unwrap();
        let signer = provider.private_key(algorithm, &key.material).unwrap();
        let own = signer.sign(mechanism, input, b"").unwrap();
        for signature in [&own, &expected] {
            let public = &key.public_key;
            let valid = provider.verify(algorithm, mechanism, public, input, b"", signature);
            assert_eq!(valid, Ok(true));
        }
        assert_eq!(own == expected, provider.name() == "pure-rust");
        let mut tally = Tally::default();
        tally.pass(true);
        tally.finish(name, provider.name(), 1);
    }
}

/// Edge cases on which implementations of Ed25519 differ. Ours: keys in their one encoding and not of
/// small order, R compared as bytes, no cofactor.
#[test]
fn cctv_ed25519() {
    let name = "cctv/ed25519/ed25519vectors.json";
    let Some(file) = json(name) else { return };
    let cases = file.as_array().unwrap();
    let (algorithm, mechanism) = (Algorithm::Ed25519, Mechanism::EdDsa);
    for provider in PROVIDERS {
        let mut tally = Tally::default();
        for case in cases {
            let key = key_form::public_key_from_raw(algorithm, &bytes(&case["key"])).unwrap();
            let input = SignInput::Message(case["msg"].as_str().unwrap().as_bytes());
            let signature = bytes(&case["sig"]);
            let valid = provider
                .verify(algorithm, mechanism, &key, input, b"", &signature)
                .unwrap_or(false);
            let flags = case["flags"].as_array().cloned().unwrap_or_default();
            let refused = flags.iter().any(|flag| {
                ["low_order_A", "low_order_residue", "non_canonical_A", "non_canonical_R"]
                    .contains(&flag.as_str().unwrap())
            });
            assert_eq!(valid, !refused, "case {}: {flags:?}", case["number"]);
            tally.pass(valid);
        }
        tally.finish(name, provider.name(), cases.len());
    }
}
