//! What the tests on published vectors share: where the files are, how a file is counted, and the few
//! encodings that its values come in.
//!
//! The vectors are not in this repository. They are looked for under `KMS_SHARED`, else in `shared`
//! beside the workspace; without them a test says `skipped: ...`. Each file prints what was done:
//! `<file> <provider>: tests, passed, of those rightly refused, skipped and why`.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use kms_core::algorithm::Algorithm;
use kms_core::mechanism::Mechanism;
use kms_crypto::material::Material;
use kms_crypto::mechanism::key_form;
use kms_crypto::provider::Provider;
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::provider::purerust::PureRust;
use serde_json::Value;

pub(crate) const PROVIDERS: [&dyn Provider; 2] = [&AwsLc, &PureRust];

/// The text of a file below `vectors/`, unpacked when its name ends in `.gz`. `None`, and a line that
/// says so, when it is not there.
pub(crate) fn text(name: &str) -> Option<String> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var_os("KMS_SHARED").map_or_else(|| beside.into(), PathBuf::from);
    let path = shared.join("vectors").join(name);
    if !path.exists() {
        println!("skipped: {name} is not there (set KMS_SHARED)");
        return None;
    }
    let bytes = if name.ends_with(".gz") {
        Command::new("gzip").arg("-dc").arg(&path).output().unwrap().stdout
    } else {
        fs::read(&path).unwrap()
    };
    Some(String::from_utf8(bytes).unwrap().replace('\r', ""))
}

pub(crate) fn json(name: &str) -> Option<Value> {
    text(name).map(|text| serde_json::from_str(&text).unwrap())
}

/// Each test of a Wycheproof file with its group.
pub(crate) fn groups(file: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    file["testGroups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["tests"].as_array().unwrap().iter().map(move |test| (group, test)))
}

/// The cases of a CAVP file: `NAME = value` lines, and `[...]` for what holds from there on, which is
/// handed over as it stands. A case ends with the line named `last`; names seen once hold on.
pub(crate) fn cavp(text: &str, last: &str) -> Vec<BTreeMap<String, String>> {
    let (mut cases, mut case) = (Vec::new(), BTreeMap::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let inner = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
        if let Some(section) = inner {
            case.insert("section".to_owned(), section.to_owned());
        } else if let Some((name, value)) = line.split_once('=') {
            case.insert(name.trim().to_owned(), value.trim().to_owned());
            if name.trim() == last {
                cases.push(case.clone());
            }
        }
    }
    cases
}

/// Counts what came of each test of one file.
#[derive(Default)]
pub(crate) struct Tally {
    passed: usize,
    refused: usize,
    skipped: BTreeMap<&'static str, usize>,
}

impl Tally {
    /// A test that came out as it should: `accepted`, or rightly refused.
    pub(crate) fn pass(&mut self, accepted: bool) {
        self.passed += 1;
        self.refused += usize::from(!accepted);
    }

    /// A Wycheproof test of which our function said `accepted`. What is merely acceptable we refuse.
    pub(crate) fn check(&mut self, test: &Value, accepted: bool) {
        let id = &test["tcId"];
        assert_eq!(accepted, test["result"] == "valid", "test {id}: {}", test["comment"]);
        self.pass(accepted);
    }

    /// A test of what our policy refuses; the caller has made sure of the refusal.
    pub(crate) fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }

    /// Prints, and makes sure that every test of the file was looked at.
    pub(crate) fn finish(self, name: &str, provider: &str, tests: usize) {
        let Self { passed, refused, skipped } = self;
        println!(
            "{name} {provider}: {tests} tests, {passed} passed, of those {refused} rightly \
             refused, skipped {skipped:?}"
        );
        assert!(tests > 0, "{name} holds no tests");
        assert_eq!(passed + skipped.values().sum::<usize>(), tests, "{name}");
    }
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap_or_default()).unwrap()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let even = if digits.len().is_multiple_of(2) { digits } else { format!("0{digits}") };
    hex::decode(even).unwrap()
}

pub(crate) fn material(bytes: &[u8]) -> Material {
    Material::import(&mut bytes.to_vec()).unwrap()
}

/// Whether a secret is `expected`. Nobody outside the crate can read it, so a tag made with it tells.
pub(crate) fn is(provider: &dyn Provider, secret: &Material, expected: &[u8]) -> bool {
    let tag = |key: &Material| provider.mac(Mechanism::HmacSha256, key, b"compare").unwrap();
    secret.len() == expected.len() && tag(secret) == tag(&material(expected))
}

/// A number in exactly `length` bytes, whatever zeros stand before it. `None` when it does not fit.
pub(crate) fn fixed(number: &[u8], length: usize) -> Option<Vec<u8>> {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let digits = &number[start..];
    let zeros = length.checked_sub(digits.len())?;
    Some([&vec![0; zeros][..], digits].concat())
}

/// DER: tag, length, value.
pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let length = match value.len() {
        short @ 0..=0x7f => vec![short as u8],
        short @ 0x80..=0xff => vec![0x81, short as u8],
        long => vec![0x82, (long >> 8) as u8, long as u8],
    };
    [&[tag][..], &length, &value].concat()
}

/// DER: a number that is not negative.
pub(crate) fn integer(number: &[u8]) -> Vec<u8> {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    tlv(2, &[&[0], &number[start..]][usize::from(number.get(start).is_some_and(|b| *b < 0x80))..])
}

/// PKCS#8 around `inner`, with the identifier that a public key of `raw_bytes` has.
pub(crate) fn pkcs8(algorithm: Algorithm, raw_bytes: usize, inner: &[u8]) -> Vec<u8> {
    let spki = key_form::public_key_from_raw(algorithm, &vec![0; raw_bytes]).unwrap();
    // The first element of the outer sequence, whose own length is short.
    let at = if spki[1] < 0x80 { 2 } else { 2 + usize::from(spki[1] & 0x7f) };
    let identifier = &spki[at..at + 2 + usize::from(spki[at + 1])];
    tlv(0x30, &[&integer(&[0]), identifier, &tlv(4, &[inner])])
}

/// A private scalar as PKCS#8 around RFC 5915.
pub(crate) fn ec_pkcs8(algorithm: Algorithm, scalar: &[u8]) -> Vec<u8> {
    let sec1 = tlv(0x30, &[&integer(&[1]), &tlv(4, &[scalar])]);
    pkcs8(algorithm, 2 * field_bytes(algorithm) + 1, &sec1)
}

pub(crate) fn field_bytes(algorithm: Algorithm) -> usize {
    (algorithm.bits() as usize).div_ceil(8)
}

/// A PKCS#1 public key as SubjectPublicKeyInfo.
pub(crate) fn rsa_spki(pkcs1: &[u8]) -> Vec<u8> {
    tlv(0x30, &[&RSA_ENCRYPTION, &tlv(3, &[&[0], pkcs1])])
}

/// The eight numbers of RFC 8017 §A.1.2 as PKCS#8.
pub(crate) fn rsa_pkcs8(numbers: [&[u8]; 8]) -> Vec<u8> {
    let parts: Vec<_> = numbers.iter().map(|number| integer(number)).collect();
    let key = tlv(0x30, &[&integer(&[0]), &parts.concat()]);
    tlv(0x30, &[&integer(&[0]), &RSA_ENCRYPTION, &tlv(4, &[&key])])
}

const RSA_ENCRYPTION: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
