//! Every file of published vectors as a list of cases that any door can be asked: a key, what is done
//! with it, and what must come of it.
//!
//! The crypto crate's own tests look at more (both providers, and the form of each refusal); here each test
//! of a file becomes the one request that a client would make of it.

use kms_core::algorithm::{Algorithm, GENERIC_SECRET_BYTES_MAX, GENERIC_SECRET_BYTES_MIN};
use kms_core::mechanism::Mechanism;
use kms_crypto::mechanism::key_form;
use kms_tests::is_long;
use serde_json::Value;

use crate::published::{
    self, Case as Record, RSA_LABORATORIES, cases, groups, json, number_of_tests, text, unhex,
};

mod curves;
mod post_quantum;
mod rsa;
mod symmetric;

use curves::*;
use post_quantum::*;
use rsa::*;
use symmetric::*;

/// One test of a file.
pub(crate) struct Case {
    /// Its number in the file.
    pub(crate) number: usize,
    /// What kind of test it is: result and flags. One of each is in every sample.
    pub(crate) kind: String,
    pub(crate) key: Key,
    pub(crate) deed: Deed,
    pub(crate) want: Want,
}

/// A key, as it comes from outside.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Key {
    /// PKCS#8.
    Private(Algorithm, Vec<u8>),
    /// SubjectPublicKeyInfo.
    Public(Algorithm, Vec<u8>),
    Secret(Algorithm, Vec<u8>),
}

/// What is done with the key.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Agree {
        /// SubjectPublicKeyInfo.
        peer: Vec<u8>,
        secret: Vec<u8>,
    },
    Decapsulate {
        ciphertext: Vec<u8>,
        secret: Vec<u8>,
    },
    Derive {
        mechanism: Mechanism,
        salt: Vec<u8>,
        info: Vec<u8>,
        output: Vec<u8>,
    },
    Encapsulate,
    /// The key itself is what is tested: its public half.
    Import {
        public: Vec<u8>,
    },
    Mac {
        mechanism: Mechanism,
        data: Vec<u8>,
        tag: Vec<u8>,
    },
    /// Nothing can be asked: there is no name for it.
    Nothing,
    Open {
        mechanism: Mechanism,
        iv: Vec<u8>,
        aad: Vec<u8>,
        ciphertext: Vec<u8>,
        /// `None`: whatever comes out, as long as it is no error; see RSA PKCS#1 v1.5.
        plaintext: Option<Vec<u8>>,
    },
    Sign {
        mechanism: Mechanism,
        message: Vec<u8>,
        signature: Vec<u8>,
    },
    Unwrap {
        mechanism: Mechanism,
        wrapped: Vec<u8>,
        plain: Vec<u8>,
    },
    Verify {
        mechanism: Mechanism,
        message: Vec<u8>,
        context: Vec<u8>,
        signature: Vec<u8>,
    },
}

/// What must come of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Want {
    /// It is done, and the result is the published one.
    Done,
    /// It is refused.
    Refused,
    /// Either, but what is done has the published result.
    Either,
    /// An answer, whichever: what the vector fails by is not part of the request, such as a parameter that
    /// we do not have, or what a caller compares with the result.
    Any,
    /// It is refused for what our policy does not take.
    Policy(&'static str),
}

/// The files that no door has anything for, and why.
pub(crate) const NOT_OFFERED: [(&str, &str); 6] = [
    ("wycheproof/aes_xts_test.json", "AES-XTS is no mechanism of ours"),
    ("wycheproof/pbkdf2_hmacsha256_test.json", "PBKDF2 is no mechanism of ours"),
    ("wycheproof/pbkdf2_hmacsha512_test.json", "PBKDF2 is no mechanism of ours"),
    ("wycheproof/primality_test.json", "bare numbers; the crypto crate's tests have them"),
    ("nist-rfc/KDF/argon2i.txt", "Argon2i is used nowhere"),
    ("nist-rfc/KDF/argon2id.txt", "passphrases only, no mechanism of a key"),
];

/// The cases of a file; `None` when it is not there.
pub(crate) type Reader = fn(&str) -> Option<Vec<Case>>;

/// Every file that fits, with its reader; with `KMS_VECTORS` only those with this in their names.
pub(crate) fn files() -> Vec<(String, Reader)> {
    let mut files: Vec<(String, Reader)> = Vec::new();
    let mut add = |folder: &str, names: &[&str], reader: Reader| {
        files.extend(names.iter().map(|name| (format!("{folder}/{name}"), reader)));
    };
    add("wycheproof", &MACS, wycheproof_mac);
    add("wycheproof", &["aes_gmac_test.json"], wycheproof_gmac);
    add("wycheproof", &["aes_wrap_test.json", "aes_kwp_test.json"], wycheproof_wrap);
    add("wycheproof", &HKDFS, wycheproof_hkdf);
    add("wycheproof", &ECDSAS, wycheproof_ecdsa);
    add("wycheproof", &ECDHS, wycheproof_ecdh);
    add("wycheproof", &["ed25519_test.json"], wycheproof_ed25519);
    add("wycheproof", &["x25519_test.json", "x25519_asn_test.json"], wycheproof_x25519);
    add("wycheproof", &["ec_prime_order_curves_test.json"], wycheproof_curves);
    add("wycheproof", &RSA_SIGNATURES, wycheproof_rsa_signature);
    add("wycheproof", &RSA_PSS, wycheproof_pss);
    add("wycheproof", &RSA_OAEP, wycheproof_oaep);
    add("wycheproof", &RSA_DECRYPTION, wycheproof_rsa_decryption);
    add("wycheproof", &RSA_SIGNING, wycheproof_rsa_signing);
    add("wycheproof", &ML_DSAS, wycheproof_ml_dsa);
    add("wycheproof", &ML_KEM_KEYS, wycheproof_ml_kem_keys);
    add("wycheproof", &ML_KEM_DECAPS, wycheproof_ml_kem_decapsulation);
    add("wycheproof", &["mlkem_1024_encaps_test.json"], wycheproof_ml_kem_encapsulation);
    add("nist-rfc/ciphers/AES/GCM", &["gcmDecrypt256.rsp", "gcmEncryptExtIV128.rsp"], nist_gcm);
    add("nist-rfc/keywrap/kwtestvectors", &KEY_WRAPS, nist_wrap);
    add("nist-rfc/keywrap", &["kwp_botan.txt"], botan_wrap);
    add("nist-rfc/KDF", &["rfc-5869-HKDF-SHA256.txt"], rfc_hkdf);
    add("nist-rfc/HMAC", &RFC_HMACS, rfc_hmac);
    add("nist-rfc/asymmetric/ECDSA/FIPS_186-3", &["KeyPair.rsp"], nist_ec_pairs);
    add("nist-rfc/asymmetric/ECDSA/FIPS_186-3", &["PKV.rsp"], nist_ec_keys);
    add("nist-rfc/asymmetric/ECDSA/FIPS_186-3", &["SigVer.rsp"], nist_ecdsa);
    add("nist-rfc/asymmetric/ECDH", &[NIST_ECDH], nist_ecdh);
    add("nist-rfc/asymmetric/RSA/FIPS_186-2", &NIST_RSA, nist_rsa);
    add("nist-rfc/asymmetric/RSA", &RSA_LABORATORIES, rsa_laboratories);
    add("nist-rfc/asymmetric/RSA", &["oaep-label.txt"], oaep_label);
    add("nist-rfc/asymmetric/MLDSA", &["kat_MLDSA_65_det_pure.rsp"], nist_ml_dsa);
    add("acvp", &["ml-kem-keygen.json.gz"], acvp_ml_kem_keys);
    add("acvp", &["ml-kem-encap-decap.json"], acvp_ml_kem_uses);
    add("cctv", &["RFC6979/README.md"], cctv_rfc_6979);
    add("cctv", &["ed25519/ed25519vectors.json"], cctv_ed25519);
    add("cctv/ML-KEM", &CCTV_ML_KEM, cctv_ml_kem);
    add("cctv/ML-KEM", &["modulus/ML-KEM-768.txt.gz"], cctv_ml_kem_modulus);
    let part = std::env::var("KMS_VECTORS").unwrap_or_default();
    files.retain(|(name, _)| name.contains(&part));
    files
}

const MACS: [&str; 8] = [
    "aes_cmac_test.json",
    "hmac_sha1_test.json",
    "hmac_sha224_test.json",
    "hmac_sha256_test.json",
    "hmac_sha384_test.json",
    "hmac_sha3_512_test.json",
    "hmac_sha512_224_test.json",
    "hmac_sha512_test.json",
];
const HKDFS: [&str; 3] = ["hkdf_sha1_test.json", "hkdf_sha256_test.json", "hkdf_sha384_test.json"];
const ECDSAS: [&str; 11] = [
    "ecdsa_secp256r1_sha256_test.json",
    "ecdsa_secp256r1_sha256_p1363_test.json",
    "ecdsa_secp256r1_sha3_256_test.json",
    "ecdsa_secp256r1_sha3_512_test.json",
    "ecdsa_secp256r1_sha512_test.json",
    "ecdsa_secp256r1_sha512_p1363_test.json",
    "ecdsa_secp384r1_sha384_test.json",
    "ecdsa_secp384r1_sha384_p1363_test.json",
    "ecdsa_secp384r1_sha3_384_test.json",
    "ecdsa_secp384r1_sha512_test.json",
    "ecdsa_secp521r1_sha512_test.json",
];
const ECDHS: [&str; 4] = [
    "ecdh_secp256r1_ecpoint_test.json",
    "ecdh_secp384r1_ecpoint_test.json",
    "ecdh_secp384r1_test.json",
    "ecdh_secp521r1_ecpoint_test.json",
];
const RSA_SIGNATURES: [&str; 10] = [
    "rsa_signature_2048_sha256_test.json",
    "rsa_signature_2048_sha3_224_test.json",
    "rsa_signature_2048_sha3_256_test.json",
    "rsa_signature_2048_sha3_384_test.json",
    "rsa_signature_3072_sha256_test.json",
    "rsa_signature_3072_sha384_test.json",
    "rsa_signature_3072_sha3_384_test.json",
    "rsa_signature_3072_sha3_512_test.json",
    "rsa_signature_3072_sha512_test.json",
    "rsa_signature_4096_sha512_test.json",
];
const RSA_PSS: [&str; 13] = [
    "rsa_pss_2048_sha1_mgf1_20_params_test.json",
    "rsa_pss_2048_sha256_mgf1_0_test.json",
    "rsa_pss_2048_sha256_mgf1_32_params_test.json",
    "rsa_pss_2048_sha256_mgf1_32_test.json",
    "rsa_pss_2048_sha384_mgf1_48_test.json",
    "rsa_pss_2048_sha512_mgf1sha256_32_params_test.json",
    "rsa_pss_4096_sha256_mgf1_32_test.json",
    "rsa_pss_4096_sha384_mgf1_48_test.json",
    "rsa_pss_4096_sha512_mgf1_32_params_test.json",
    "rsa_pss_4096_sha512_mgf1_32_test.json",
    "rsa_pss_4096_sha512_mgf1_64_test.json",
    "rsa_pss_misc_params_test.json",
    "rsa_pss_misc_test.json",
];
const RSA_OAEP: [&str; 14] = [
    "rsa_oaep_2048_sha1_mgf1sha1_test.json",
    "rsa_oaep_2048_sha224_mgf1sha1_test.json",
    "rsa_oaep_2048_sha224_mgf1sha224_test.json",
    "rsa_oaep_2048_sha256_mgf1sha1_test.json",
    "rsa_oaep_2048_sha384_mgf1sha384_test.json",
    "rsa_oaep_2048_sha512_mgf1sha1_test.json",
    "rsa_oaep_3072_sha256_mgf1sha1_test.json",
    "rsa_oaep_3072_sha256_mgf1sha256_test.json",
    "rsa_oaep_3072_sha512_mgf1sha1_test.json",
    "rsa_oaep_4096_sha256_mgf1sha1_test.json",
    "rsa_oaep_4096_sha512_mgf1sha512_test.json",
    "rsa_oaep_misc_test.json",
    "rsa_three_primes_oaep_2048_sha1_mgf1sha1_test.json",
    "rsa_three_primes_oaep_3072_sha224_mgf1sha224_test.json",
];
const RSA_DECRYPTION: [&str; 2] = ["rsa_pkcs1_2048_test.json", "rsa_pkcs1_3072_test.json"];
const RSA_SIGNING: [&str; 3] = [
    "rsa_pkcs1_1024_sig_gen_test.json",
    "rsa_pkcs1_2048_sig_gen_test.json",
    "rsa_pkcs1_4096_sig_gen_test.json",
];
const ML_DSAS: [&str; 4] = [
    "mldsa_65_sign_noseed_test.json",
    "mldsa_65_sign_seed_test.json",
    "mldsa_87_sign_noseed_test.json",
    "mldsa_87_sign_seed_test.json",
];
const ML_KEM_KEYS: [&str; 2] =
    ["mlkem_768_keygen_seed_test.json", "mlkem_1024_keygen_seed_test.json"];
const ML_KEM_DECAPS: [&str; 2] =
    ["mlkem_768_semi_expanded_decaps_test.json", "mlkem_1024_semi_expanded_decaps_test.json"];
const KEY_WRAPS: [&str; 8] = [
    "KW_AD_128.txt",
    "KW_AD_256.txt",
    "KW_AE_128.txt",
    "KW_AE_256.txt",
    "KWP_AD_128.txt",
    "KWP_AD_256.txt",
    "KWP_AE_128.txt",
    "KWP_AE_256.txt",
];
const RFC_HMACS: [&str; 3] = ["rfc-2202-sha1.txt", "rfc-4231-sha256.txt", "rfc-4231-sha384.txt"];
const NIST_ECDH: &str = "KASValidityTest_ECCStaticUnified_NOKC_ZZOnly_resp.fax";
const NIST_RSA: [&str; 2] = ["SigVer15_186-3.rsp", "SigVerPSS_186-3.rsp"];
const CCTV_ML_KEM: [&str; 4] = [
    "intermediate/ML-KEM-768.txt",
    "intermediate/ML-KEM-1024.txt",
    "unluckysample/ML-KEM-768.txt",
    "strcmp/ML-KEM-768.txt",
];

pub(crate) const SHORT_SECRET: &str = "a secret of fewer than 14 or more than 512 bytes";
const CUT_TAG: &str = "a cut tag";
const OTHER_IV: &str = "an IV of another length than 96 bits";
const OTHER_CURVE: &str = "a curve that no algorithm of ours is on";
const OTHER_HASH: &str = "a hash function that the mechanism is not offered with";
const OTHER_MODULUS: &str = "a modulus of another size";
const SMALL_EXPONENT: &str = "a public exponent other than those of FIPS 186-5";
const OTHER_PADDING: &str = "another hash function, mask or salt length";

/// Makes the cases of a Wycheproof file, each out of what `make` says of group and test.
fn wycheproof(
    name: &str,
    mut make: impl FnMut(&Value, &Value) -> (Key, Deed, Want),
) -> Option<Vec<Case>> {
    let file = json(name)?;
    let made: Vec<_> = groups(&file)
        .enumerate()
        .map(|(number, (group, test))| {
            let (key, deed, want) = make(group, test);
            let kind = format!("{} {}", test["result"], test["flags"]);
            Case { number, kind, key, deed, want }
        })
        .collect();
    if file["numberOfTests"].is_u64() {
        assert_eq!(made.len(), number_of_tests(&file), "{name}");
    }
    Some(made)
}

/// Makes the cases of a response file.
fn responses(
    name: &str,
    last: &[&str],
    make: impl Fn(&Record) -> (Key, Deed, Want),
) -> Option<Vec<Case>> {
    let text = text(name)?;
    let records = cases(&text, last);
    let numbered = records.iter().enumerate();
    let made = numbered.map(|(number, record)| {
        let (key, deed, want) = make(record);
        let result = record.get("Result").map_or("", |result| result.as_str());
        let section = record.get("section").map_or("", |section| section.as_str());
        let kind = format!("{section} {result} {want:?}");
        Case { number, kind, key, deed, want }
    });
    Some(made.collect())
}

fn only(key: Key, deed: Deed) -> Vec<Case> {
    vec![Case { number: 0, kind: String::new(), key, deed, want: Want::Done }]
}

fn result(test: &Value) -> Want {
    if test["result"] == "valid" { Want::Done } else { Want::Refused }
}

fn aes(bytes: Vec<u8>) -> Key {
    let algorithm = match bytes.len() {
        16 => Algorithm::Aes128,
        24 => Algorithm::Aes192,
        _ => Algorithm::Aes256,
    };
    Key::Secret(algorithm, bytes)
}

fn secret(bytes: Vec<u8>) -> Key {
    Key::Secret(Algorithm::GenericSecret, bytes)
}

/// Whether a generic secret has that many bytes.
pub(crate) fn is_secret(length: usize) -> bool {
    (GENERIC_SECRET_BYTES_MIN..=GENERIC_SECRET_BYTES_MAX).contains(&length)
}

/// The policy on secrets before whatever else is wanted.
fn of_secret(key: &[u8], want: Want) -> Want {
    if is_secret(key.len()) { want } else { Want::Policy(SHORT_SECRET) }
}

fn name_has(name: &str, part: &str) -> bool {
    name.contains(part)
}

fn verify(mechanism: Mechanism, message: Vec<u8>, signature: Vec<u8>) -> Deed {
    Deed::Verify { mechanism, message, context: Vec::new(), signature }
}

fn named(text: &str, name: &str) -> Vec<u8> {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
    unhex(line.unwrap())
}

fn spki(algorithm: Algorithm, raw: &[u8]) -> Vec<u8> {
    key_form::public_key_from_raw(algorithm, raw).unwrap_or_default()
}

/// How often a file's tests are looked at in the sample of the gate: each kind of test once, and so many
/// of the rest, evenly.
const SAMPLE: usize = 24;

/// The cases that are looked at, and how many are left to the long run.
pub(crate) fn sample(all: Vec<Case>) -> (Vec<Case>, usize) {
    if is_long() {
        return (all, 0);
    }
    let (total, step) = (all.len(), all.len().div_ceil(SAMPLE).max(1));
    let mut kinds = std::collections::BTreeSet::new();
    let kept: Vec<_> = all
        .into_iter()
        .filter(|case| {
            kinds.insert(format!("{} {:?}", case.kind, case.want))
                || case.number.is_multiple_of(step)
        })
        .collect();
    let left = total - kept.len();
    (kept, left)
}

/// Whether the folder of the vectors is there; says so when it is not.
pub(crate) fn there() -> bool {
    let there = published::folder().is_dir();
    if !there {
        println!("skipped: no published vectors (no shared/vectors, and KMS_SHARED is not set)");
    }
    there
}
