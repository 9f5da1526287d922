//! Files of published vectors: where they are, how they are read, how each of their tests is counted, and
//! the few encodings that their values come in. For every door: the tests of this crate, and those of the
//! daemon and the PKCS#11 module.
//!
//! The vectors are not in this repository. They are looked for under `KMS_SHARED`, else in `shared`
//! beside the workspace; without them a test says `skipped: ...`. Each file prints what was done:
//! `<file> <door>: tests, passed, of those rightly refused, skipped and why`.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folder of the vectors, whether it is there or not.
pub(crate) fn folder() -> PathBuf {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root = above.find(|folder| folder.join("Cargo.lock").exists());
    let beside = root.and_then(Path::parent).map(|folder| folder.join("shared"));
    let shared = std::env::var_os("KMS_SHARED").filter(|value| !value.is_empty());
    shared.map(PathBuf::from).or(beside).unwrap_or_default().join("vectors")
}

/// The text of a file below `vectors/`, unpacked when its name ends in `.gz`. `None`, and a line that
/// says so, when it is not there.
pub(crate) fn text(name: &str) -> Option<String> {
    let path = folder().join(name);
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

/// How many tests a file of Project Wycheproof says it has.
pub(crate) fn number_of_tests(file: &Value) -> usize {
    usize::try_from(file["numberOfTests"].as_u64().unwrap()).unwrap()
}

/// A case of a response file.
pub(crate) type Case = BTreeMap<String, String>;

/// The cases of a response file: `NAME = value` lines, `[...]` for what holds from there on, and bare words
/// such as `FAIL`. A case ends with a line whose name is one of `last`; names seen once hold on, bare words
/// do not.
pub(crate) fn cases(text: &str, last: &[&str]) -> Vec<Case> {
    let (mut cases, mut case, mut open) = (Vec::new(), Case::new(), false);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let section = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
        if let Some(section) = section {
            case.insert("section".to_owned(), section.to_owned());
        }
        let pair = section.unwrap_or(line).split_once('=');
        let name = pair.map_or(line, |(name, _)| name.trim());
        if name.is_empty() || (section.is_some() && pair.is_none()) {
            continue;
        }
        let value = pair.map_or("", |(_, value)| value.trim());
        case.insert(name.to_owned(), value.to_owned());
        open |= section.is_none() && pair.is_some();
        if last.contains(&name) {
            cases.push(case.clone());
            case.retain(|_, value| !value.is_empty());
            open = false;
        }
    }
    assert!(!open, "the file ends within a case");
    cases
}

/// A value of a case.
pub(crate) fn field(case: &Case, name: &str) -> Vec<u8> {
    hex::decode(&case[name]).unwrap()
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

    /// A case of a response file that wants `valid`.
    pub(crate) fn check_case(&mut self, case: &Case, valid: bool, accepted: bool) {
        assert_eq!(accepted, valid, "{case:?}");
        self.pass(accepted);
    }

    /// A test of what our policy refuses; the caller has made sure of the refusal.
    pub(crate) fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }

    /// Prints, and makes sure that every test of the file was looked at.
    pub(crate) fn finish(self, name: &str, door: &str, tests: usize) {
        let Self { passed, refused, skipped } = self;
        println!(
            "{name} {door}: {tests} tests, {passed} passed, of those {refused} rightly \
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

/// What a file of RSA Laboratories says, in order: the words of a comment and the hexadecimal text below.
pub(crate) fn labelled(text: &str) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(label) = line.strip_prefix('#') {
            found.push((label.trim().trim_end_matches(':').to_lowercase(), String::new()));
        } else if line.chars().all(|c| c.is_ascii_hexdigit() || c.is_whitespace())
            && let Some((_, digits)) = found.last_mut()
        {
            digits.push_str(line);
        }
    }
    let filled = found.into_iter().filter(|(_, digits)| !digits.trim().is_empty());
    filled.map(|(label, digits)| (label, unhex(&digits))).collect()
}

/// A pair of a file of RSA Laboratories.
pub(crate) struct RsaPair {
    /// The private key that holds from there on, as PKCS#8, and the bytes of its modulus.
    pub(crate) pkcs8: Vec<u8>,
    pub(crate) modulus_bytes: usize,
    pub(crate) message: Vec<u8>,
    /// Ciphertext or signature.
    pub(crate) value: Vec<u8>,
}

/// Every pair of message and ciphertext or signature of a file of RSA Laboratories, with its key.
pub(crate) fn rsa_pairs(text: &str) -> Vec<RsaPair> {
    let values = labelled(text);
    let (mut pairs, mut key, mut message) = (Vec::new(), (Vec::new(), 0), Vec::new());
    let mut numbers: Vec<&[u8]> = Vec::new();
    for (label, value) in &values {
        match label.as_str() {
            // The modulus comes twice: in the public key, with the exponent, and in the private one.
            "modulus" => numbers.clear(),
            "message" | "message to be encrypted" | "message to be signed" => {
                message = value.clone();
            }
            "encryption" | "signature" => {
                let (pkcs8, modulus_bytes) = key.clone();
                let message = message.clone();
                pairs.push(RsaPair { pkcs8, modulus_bytes, message, value: value.clone() });
            }
            _ => {}
        }
        let of_key = ["modulus", "exponent", "coefficient"];
        if of_key.contains(&label.as_str())
            || label.starts_with("prime")
            || label.ends_with("public exponent")
            || label.ends_with("private exponent")
        {
            numbers.push(value);
        }
        if let ("coefficient", Ok(parts)) = (label.as_str(), <[&[u8]; 8]>::try_from(&numbers[..])) {
            key = (rsa_pkcs8(parts), parts[0].len());
        }
    }
    pairs
}

/// The files of RSA Laboratories and those made in their form, below `nist-rfc/asymmetric/RSA`.
pub(crate) const RSA_LABORATORIES: [&str; 19] = [
    "oaep-custom/oaep-sha1-sha224.txt",
    "oaep-custom/oaep-sha1-sha256.txt",
    "oaep-custom/oaep-sha1-sha512.txt",
    "oaep-custom/oaep-sha224-sha1.txt",
    "oaep-custom/oaep-sha224-sha256.txt",
    "oaep-custom/oaep-sha224-sha384.txt",
    "oaep-custom/oaep-sha256-sha1.txt",
    "oaep-custom/oaep-sha256-sha224.txt",
    "oaep-custom/oaep-sha256-sha384.txt",
    "oaep-custom/oaep-sha256-sha512.txt",
    "oaep-custom/oaep-sha384-sha224.txt",
    "oaep-custom/oaep-sha384-sha256.txt",
    "oaep-custom/oaep-sha384-sha512.txt",
    "oaep-custom/oaep-sha512-sha1.txt",
    "oaep-custom/oaep-sha512-sha256.txt",
    "oaep-custom/oaep-sha512-sha384.txt",
    "pkcs-1v2-1d2-vec/oaep-vect.txt",
    "pkcs-1v2-1d2-vec/pss-vect.txt",
    "pkcs1v15crypt-vectors.txt",
];

const RSA_ENCRYPTION: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
