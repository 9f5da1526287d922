//! Elliptic curves.

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use kms_crypto::mechanism::{ecdsa, key_form};

use super::{
    Case, Deed, Key, OTHER_CURVE, OTHER_HASH, Want, name_has, named, only, responses, result, spki,
    verify, wycheproof,
};
use crate::published::{
    Case as Record, bytes, cases, ec_pkcs8, field_bytes, fixed, integer, json, pkcs8, text, tlv,
    unhex,
};

pub(super) fn wycheproof_ecdsa(name: &str) -> Option<Vec<Case>> {
    let algorithm = curve_of(name.split('_').nth(1).unwrap()).unwrap();
    let mechanism = match name {
        name if name_has(name, "sha3_256") => Mechanism::EcdsaSha3_256,
        name if name_has(name, "sha3_384") => Mechanism::EcdsaSha3_384,
        name if name_has(name, "sha3_512") => Mechanism::EcdsaSha3_512,
        name if name_has(name, "sha256") => Mechanism::EcdsaSha256,
        name if name_has(name, "sha384") => Mechanism::EcdsaSha384,
        _ => Mechanism::EcdsaSha512,
    };
    wycheproof(name, |group, test| {
        let signature = bytes(&test["sig"]);
        let signature = if name_has(name, "p1363") {
            // What has no such form is sent as it stands, and is no signature either.
            ecdsa::der_from_raw(algorithm, &signature).unwrap_or(signature)
        } else {
            signature
        };
        let key = Key::Public(algorithm, bytes(&group["publicKeyDer"]));
        (key, verify(mechanism, bytes(&test["msg"]), signature), result(test))
    })
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

pub(super) fn wycheproof_ecdh(name: &str) -> Option<Vec<Case>> {
    let algorithm = curve_of(name.split('_').nth(1).unwrap()).unwrap();
    wycheproof(name, |_, test| {
        let scalar = fixed(&bytes(&test["private"]), field_bytes(algorithm)).unwrap();
        let public = bytes(&test["public"]);
        let peer = if name_has(name, "ecpoint") {
            key_form::public_key_from_raw(algorithm, &public).unwrap_or(public)
        } else {
            public
        };
        let want = if test["result"] == "acceptable" { Want::Either } else { result(test) };
        let key = Key::Private(algorithm, ec_pkcs8(algorithm, &scalar));
        (key, Deed::Agree { peer, secret: bytes(&test["shared"]) }, want)
    })
}

pub(super) fn wycheproof_ed25519(name: &str) -> Option<Vec<Case>> {
    wycheproof(name, |group, test| {
        let key = Key::Public(Algorithm::Ed25519, bytes(&group["publicKeyDer"]));
        (key, verify(Mechanism::EdDsa, bytes(&test["msg"]), bytes(&test["sig"])), result(test))
    })
}

/// RFC 7748 takes every 32 bytes as a public key; only a secret of zeros is refused.
pub(super) fn wycheproof_x25519(name: &str) -> Option<Vec<Case>> {
    let algorithm = Algorithm::X25519;
    wycheproof(name, |_, test| {
        let (private, public) = (bytes(&test["private"]), bytes(&test["public"]));
        let (private, peer) = if name_has(name, "asn") {
            (private, public)
        } else {
            let peer = key_form::public_key_from_raw(algorithm, &public).unwrap();
            (pkcs8(algorithm, 32, &tlv(4, &[&private])), peer)
        };
        let zero = test["flags"].to_string().contains("ZeroSharedSecret");
        let want = match (test["result"] == "acceptable", zero) {
            (true, false) => Want::Done,
            (true, true) => Want::Refused,
            (false, _) => result(test),
        };
        let secret = bytes(&test["shared"]);
        (Key::Private(algorithm, private), Deed::Agree { peer, secret }, want)
    })
}

/// The scalar 1 has the base point as its public key. On other curves nothing is imported.
pub(super) fn wycheproof_curves(name: &str) -> Option<Vec<Case>> {
    wycheproof(name, |_, test| {
        let number = |name: &str, length| fixed(&unhex(test[name].as_str().unwrap()), length);
        match curve_of(test["name"].as_str().unwrap()) {
            Some(algorithm) => {
                let length = field_bytes(algorithm);
                let (x, y) = (number("gx", length).unwrap(), number("gy", length).unwrap());
                let point = [&[4][..], &x, &y].concat();
                let public = key_form::public_key_from_raw(algorithm, &point).unwrap();
                let one = ec_pkcs8(algorithm, &fixed(&[1], length).unwrap());
                (Key::Private(algorithm, one), Deed::Import { public }, Want::Done)
            }
            None => {
                let oid = object_identifier(test["oid"].as_str().unwrap());
                let ec = object_identifier("1.2.840.10045.2.1");
                let length = unhex(test["p"].as_str().unwrap()).len();
                let scalar = fixed(&[1], length).unwrap();
                let sec1 = tlv(0x30, &[&integer(&[1]), &tlv(4, &[&scalar])]);
                let foreign =
                    tlv(0x30, &[&integer(&[0]), &tlv(0x30, &[&ec, &oid]), &tlv(4, &[&sec1])]);
                let key = Key::Private(Algorithm::EcP256, foreign);
                (key, Deed::Import { public: Vec::new() }, Want::Policy(OTHER_CURVE))
            }
        }
    })
}

/// DER of an identifier in dotted form.
fn object_identifier(dotted: &str) -> Vec<u8> {
    let mut arcs = dotted.split('.').map(|arc| arc.parse::<u64>().unwrap());
    let first = 40 * arcs.next().unwrap() + arcs.next().unwrap();
    let mut body = Vec::new();
    for arc in [first].into_iter().chain(arcs) {
        let groups = (64 - arc.leading_zeros()).div_ceil(7).max(1);
        body.extend((0..groups).rev().map(|at| {
            let more = if at > 0 { 0x80 } else { 0 };
            more | ((arc >> (7 * at)) & 0x7f) as u8
        }));
    }
    tlv(6, &[&body])
}

/// No case at all can be asked of a curve that has no name here.
fn other_curve() -> (Key, Deed, Want) {
    (Key::Public(Algorithm::EcP256, Vec::new()), Deed::Nothing, Want::Policy(OTHER_CURVE))
}

fn point(algorithm: Algorithm, case: &Record, x: &str, y: &str) -> Option<Vec<u8>> {
    let number = |name: &str| fixed(&unhex(&case[name]), field_bytes(algorithm));
    let raw = [&[4][..], &number(x)?, &number(y)?].concat();
    key_form::public_key_from_raw(algorithm, &raw).ok()
}

pub(super) fn nist_ec_pairs(name: &str) -> Option<Vec<Case>> {
    let text = text(name)?;
    let mut curve = String::new();
    let mut made = Vec::new();
    // The curve stands in a line of its own before another section line.
    let mut curves = Vec::new();
    for line in text.lines() {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(section) if !section.contains("B.4") => curve = section.to_owned(),
            _ if line.starts_with("Qy") => curves.push(curve.clone()),
            _ => {}
        }
    }
    for (number, (case, curve)) in cases(&text, &["Qy"]).iter().zip(curves).enumerate() {
        let (key, deed, want) = match curve_of(&curve) {
            Some(algorithm) => {
                let scalar = fixed(&unhex(&case["d"]), field_bytes(algorithm)).unwrap();
                let key = Key::Private(algorithm, ec_pkcs8(algorithm, &scalar));
                let public = point(algorithm, case, "Qx", "Qy").unwrap();
                (key, Deed::Import { public }, Want::Done)
            }
            None => other_curve(),
        };
        made.push(Case { number, kind: curve, key, deed, want });
    }
    Some(made)
}

pub(super) fn nist_ec_keys(name: &str) -> Option<Vec<Case>> {
    responses(name, &["Result"], |case| {
        let Some(algorithm) = curve_of(&case["section"]) else { return other_curve() };
        // Coordinates that are too long have no form at all; what is sent then is no point either.
        let spki = point(algorithm, case, "Qx", "Qy").unwrap_or_default();
        let want = if case["Result"].starts_with('P') { Want::Done } else { Want::Refused };
        (Key::Public(algorithm, spki.clone()), Deed::Import { public: spki }, want)
    })
}

pub(super) fn nist_ecdsa(name: &str) -> Option<Vec<Case>> {
    responses(name, &["Result"], |case| {
        let (curve, hash) = case["section"].split_once(',').unwrap();
        let Some(algorithm) = curve_of(curve) else { return other_curve() };
        let number = |name: &str| fixed(&unhex(&case[name]), field_bytes(algorithm)).unwrap();
        let signature = ecdsa::der_from_raw(algorithm, &[number("R"), number("S")].concat());
        let (mechanism, want) = match hash {
            "SHA-256" => (Mechanism::EcdsaSha256, None),
            "SHA-384" => (Mechanism::EcdsaSha384, None),
            "SHA-512" => (Mechanism::EcdsaSha512, None),
            _ => (Mechanism::EcdsaSha256, Some(Want::Policy(OTHER_HASH))),
        };
        let valid = if case["Result"].starts_with('P') { Want::Done } else { Want::Refused };
        let key = Key::Public(algorithm, point(algorithm, case, "Qx", "Qy").unwrap());
        let deed = verify(mechanism, unhex(&case["Msg"]), signature.unwrap_or_default());
        (key, deed, want.unwrap_or(valid))
    })
}

/// A responder's agreement. A case fails by its own pair that does not fit, by the peer's key or by what
/// is compared with the secret; only what the daemon is asked for is here: that it agrees to `Z`, or not
/// at all.
pub(super) fn nist_ecdh(name: &str) -> Option<Vec<Case>> {
    responses(name, &["Result"], |case| {
        let algorithm = match &case["section"][..2] {
            "EC" => Algorithm::EcP256,
            "ED" => Algorithm::EcP384,
            "EE" => Algorithm::EcP521,
            _ => return other_curve(),
        };
        let length = field_bytes(algorithm);
        let scalar = fixed(&unhex(&case["dsIUT"]), length).unwrap();
        let key = Key::Private(algorithm, ec_pkcs8(algorithm, &scalar));
        let secret = fixed(&unhex(&case["Z"]), length).unwrap();
        let peer = point(algorithm, case, "QsCAVSx", "QsCAVSy").unwrap_or_default();
        let want = if case["Result"].starts_with('P') { Want::Done } else { Want::Any };
        (key, Deed::Agree { peer, secret }, want)
    })
}

pub(super) fn cctv_rfc_6979(name: &str) -> Option<Vec<Case>> {
    let text = text(name)?;
    let algorithm = Algorithm::EcP256;
    let raw = [named(&text, "r"), named(&text, "s")].concat();
    let signature = ecdsa::der_from_raw(algorithm, &raw).unwrap();
    let key = Key::Private(algorithm, ec_pkcs8(algorithm, &named(&text, "x")));
    Some(only(key, verify(Mechanism::EcdsaSha256, b"wv[vnX".to_vec(), signature)))
}

/// Edge cases on which implementations of Ed25519 differ. Ours: keys in their one encoding and not of
/// small order, R compared as bytes, no cofactor.
pub(super) fn cctv_ed25519(name: &str) -> Option<Vec<Case>> {
    let file = json(name)?;
    let numbered = file.as_array().unwrap().iter().enumerate();
    let made = numbered.map(|(number, case)| {
        let flags = case["flags"].to_string();
        let refused = ["low_order_A", "low_order_residue", "non_canonical_A", "non_canonical_R"];
        let refused = refused.iter().any(|flag| flags.contains(&format!("\"{flag}\"")));
        let message = case["msg"].as_str().unwrap().as_bytes().to_vec();
        let key = spki(Algorithm::Ed25519, &bytes(&case["key"]));
        Case {
            number,
            kind: flags,
            key: Key::Public(Algorithm::Ed25519, key),
            deed: verify(Mechanism::EdDsa, message, bytes(&case["sig"])),
            want: if refused { Want::Refused } else { Want::Done },
        }
    });
    Some(made.collect())
}
