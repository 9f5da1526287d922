//! Published vectors for tests: where they are, how they are read, and what came of them.
//!
//! They are not in this repository. They are looked for under `KMS_SHARED`, else in `shared` beside the
//! workspace; without them a test says `skipped: ...`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// The text of a file below `vectors`.
pub(crate) fn text(path: &str) -> Option<String> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var_os("KMS_SHARED").map_or_else(|| beside.into(), PathBuf::from);
    let text = fs::read_to_string(shared.join("vectors").join(path));
    if text.is_err() {
        println!("skipped: {path} is not there (set KMS_SHARED)");
    }
    text.ok()
}

/// A file of Project Wycheproof.
pub(crate) fn wycheproof(name: &str) -> Option<Value> {
    Some(serde_json::from_str(&text(&format!("wycheproof/{name}"))?).unwrap())
}

/// Its tests, each with its group.
pub(crate) fn groups(file: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    file["testGroups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["tests"].as_array().unwrap().iter().map(move |test| (group, test)))
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// A case of a response file.
pub(crate) type Case = HashMap<String, String>;

/// The cases of a response file: `NAME = value` lines, `[NAME = value]` for what holds from there on, a
/// bare `FAIL`, and blank lines. A case ends where one of the names in `last` has been read.
pub(crate) fn cases(path: &str, last: &[&str]) -> Option<Vec<Case>> {
    let text = text(path)?;
    let (mut holding, mut case, mut cases) = (Case::new(), Case::new(), Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let header = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
        let (name, value) = header.unwrap_or(line).split_once('=').unwrap_or((line, ""));
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        if header.is_some() {
            holding.insert(name, value);
        } else if !name.is_empty() {
            let ends = last.contains(&name.as_str());
            case.insert(name, value);
            if ends {
                case.extend(holding.clone());
                cases.push(std::mem::take(&mut case));
            }
        }
    }
    assert!(case.is_empty(), "{path} ends within a case");
    Some(cases)
}

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
    /// Notes that our function said `accepted` to a test that wants `valid`.
    pub(crate) fn check(&mut self, accepted: bool, valid: bool, test: &dyn std::fmt::Debug) {
        assert_eq!(accepted, valid, "{test:?}");
        self.passed += 1;
        self.refused += usize::from(!accepted);
    }

    /// Notes a test with parameters that are refused by policy; that they are refused has been asserted.
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
        assert_eq!(passed + skipped.values().sum::<usize>(), tests);
        assert!(passed > 0 || !skipped.is_empty());
    }
}

/// How many tests a file of Project Wycheproof says it has.
pub(crate) fn number_of_tests(file: &Value) -> usize {
    usize::try_from(file["numberOfTests"].as_u64().unwrap()).unwrap()
}
