//! Secret keys.

use kms_core::mechanism::Mechanism;

use super::{
    CUT_TAG, Case, Deed, OTHER_IV, Want, aes, name_has, of_secret, responses, result, secret,
    wycheproof,
};
use crate::published::{bytes, field, unhex};

pub(super) fn wycheproof_mac(name: &str) -> Option<Vec<Case>> {
    let mechanism = [
        ("cmac", Mechanism::AesCmac),
        ("sha1_", Mechanism::HmacSha1),
        ("sha224", Mechanism::HmacSha224),
        ("sha256", Mechanism::HmacSha256),
        ("sha384", Mechanism::HmacSha384),
        ("sha3_512", Mechanism::HmacSha3_512),
        ("sha512_224", Mechanism::HmacSha512_224),
        ("sha512", Mechanism::HmacSha512),
    ];
    let mechanism = mechanism.into_iter().find(|(part, _)| name_has(name, part)).unwrap().1;
    wycheproof(name, |group, test| {
        let key = bytes(&test["key"]);
        let whole = kms_crypto::mechanism::mac::tag_bytes(mechanism).unwrap();
        let want = if group["tagSize"] == 8 * whole { result(test) } else { Want::Policy(CUT_TAG) };
        let deed = Deed::Mac { mechanism, data: bytes(&test["msg"]), tag: bytes(&test["tag"]) };
        if mechanism == Mechanism::AesCmac {
            (aes(key), deed, want)
        } else {
            let want = of_secret(&key, want);
            (secret(key), deed, want)
        }
    })
}

/// GMAC is AES-GCM without a plaintext (SP 800-38D §3).
pub(super) fn wycheproof_gmac(name: &str) -> Option<Vec<Case>> {
    wycheproof(name, |group, test| {
        let deed = Deed::Open {
            mechanism: Mechanism::AesGcm,
            iv: bytes(&test["iv"]),
            aad: bytes(&test["msg"]),
            ciphertext: bytes(&test["tag"]),
            plaintext: Some(Vec::new()),
        };
        let want = if group["ivSize"] == 96 { result(test) } else { Want::Policy(OTHER_IV) };
        (aes(bytes(&test["key"])), deed, want)
    })
}

pub(super) fn nist_gcm(name: &str) -> Option<Vec<Case>> {
    let last = if name_has(name, "Encrypt") { &["Tag"][..] } else { &["PT", "FAIL"] };
    responses(name, last, |case| {
        let fails = case.contains_key("FAIL");
        let deed = Deed::Open {
            mechanism: Mechanism::AesGcm,
            iv: field(case, "IV"),
            aad: field(case, "AAD"),
            ciphertext: [field(case, "CT"), field(case, "Tag")].concat(),
            plaintext: Some(case.get("PT").map(|digits| unhex(digits)).unwrap_or_default()),
        };
        let want = match () {
            () if case["IVlen"] != "96" => Want::Policy(OTHER_IV),
            () if case["Taglen"] != "128" => Want::Policy(CUT_TAG),
            () if fails => Want::Refused,
            () => Want::Done,
        };
        (aes(field(case, "Key")), deed, want)
    })
}

/// What comes out becomes a secret, which has so many bytes at least and at most.
fn unwraps(plain: &[u8], want: Want) -> Want {
    if want == Want::Done { of_secret(plain, want) } else { want }
}

pub(super) fn wycheproof_wrap(name: &str) -> Option<Vec<Case>> {
    let mechanism = if name_has(name, "kwp") { Mechanism::AesKwp } else { Mechanism::AesKw };
    wycheproof(name, |_, test| {
        let (wrapped, plain) = (bytes(&test["ct"]), bytes(&test["msg"]));
        let want = unwraps(&plain, result(test));
        (aes(bytes(&test["key"])), Deed::Unwrap { mechanism, wrapped, plain }, want)
    })
}

pub(super) fn nist_wrap(name: &str) -> Option<Vec<Case>> {
    let mechanism = if name_has(name, "KWP_") { Mechanism::AesKwp } else { Mechanism::AesKw };
    // AE files have the plaintext before the ciphertext, AD files behind it, or FAIL.
    let last = if name_has(name, "_AE_") { &["C"][..] } else { &["P", "FAIL"] };
    responses(name, last, |case| {
        let fails = case.contains_key("FAIL");
        let plain = if fails { Vec::new() } else { field(case, "P") };
        let want = if fails { Want::Refused } else { unwraps(&plain, Want::Done) };
        let deed = Deed::Unwrap { mechanism, wrapped: field(case, "C"), plain };
        (aes(field(case, "K")), deed, want)
    })
}

pub(super) fn botan_wrap(name: &str) -> Option<Vec<Case>> {
    responses(name, &["Output"], |case| {
        let (wrapped, plain) = (field(case, "Output"), field(case, "Input"));
        let want = unwraps(&plain, Want::Done);
        let deed = Deed::Unwrap { mechanism: Mechanism::AesKwp, wrapped, plain };
        (aes(field(case, "Key")), deed, want)
    })
}

pub(super) fn wycheproof_hkdf(name: &str) -> Option<Vec<Case>> {
    let sha1 = name_has(name, "sha1_");
    let mechanism =
        if name_has(name, "sha384") { Mechanism::HkdfSha384 } else { Mechanism::HkdfSha256 };
    wycheproof(name, |_, test| {
        let ikm = bytes(&test["ikm"]);
        let mut output = bytes(&test["okm"]);
        output.resize(usize::try_from(test["size"].as_u64().unwrap()).unwrap(), 0);
        let want = if sha1 { Want::Policy("HKDF with SHA-1") } else { result(test) };
        let want = of_secret(&ikm, of_secret(&output, want));
        let (salt, info) = (bytes(&test["salt"]), bytes(&test["info"]));
        (secret(ikm), Deed::Derive { mechanism, salt, info, output }, want)
    })
}

pub(super) fn rfc_hkdf(name: &str) -> Option<Vec<Case>> {
    responses(name, &["OKM"], |case| {
        assert_eq!(case["Hash"], "SHA-256");
        let deed = Deed::Derive {
            mechanism: Mechanism::HkdfSha256,
            salt: field(case, "salt"),
            info: field(case, "info"),
            output: field(case, "OKM"),
        };
        (secret(field(case, "IKM")), deed, Want::Done)
    })
}

pub(super) fn rfc_hmac(name: &str) -> Option<Vec<Case>> {
    let mechanism = match name {
        name if name_has(name, "sha256") => Mechanism::HmacSha256,
        name if name_has(name, "sha384") => Mechanism::HmacSha384,
        _ => Mechanism::HmacSha1,
    };
    responses(name, &["MD"], |case| {
        let (key, data, tag) = (field(case, "Key"), field(case, "Msg"), field(case, "MD"));
        let want = of_secret(&key, Want::Done);
        (secret(key), Deed::Mac { mechanism, data, tag }, want)
    })
}
