//! What came of each case, door by door, and the table of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

use crate::catalog::{Case, NOT_OFFERED, Want};

/// What a door did with one case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// Done, with the published result.
    Done,
    /// The signature or tag was called invalid.
    Invalid,
    /// Done, with another result.
    Other,
    /// Refused, by this name, behind which may stand `: ` and what else was said.
    Refused(String),
    /// The door has no way to ask, for this reason.
    Unasked(&'static str),
}

/// What came of the cases of one file.
#[derive(Default)]
pub(crate) struct Row {
    tests: usize,
    passed: usize,
    refused: usize,
    wrong: usize,
    skipped: BTreeMap<&'static str, usize>,
}

/// The table of one door.
pub(crate) struct Table {
    door: &'static str,
    /// By which names a door may refuse what a vector wants refused.
    rightly: &'static [&'static str],
    rows: Mutex<BTreeMap<String, Row>>,
    wrong: Mutex<Vec<String>>,
    by: Mutex<BTreeMap<String, usize>>,
}

impl Table {
    pub(crate) fn new(door: &'static str, rightly: &'static [&'static str]) -> Self {
        let (rows, wrong, by) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { door, rightly, rows, wrong, by }
    }

    /// Judges the outcomes of the cases of `file`, of which `left` are for the long run.
    pub(crate) fn judge(&self, file: &str, cases: &[Case], outcomes: &[Outcome], left: usize) {
        assert_eq!(cases.len(), outcomes.len(), "{file}");
        let mut row = Row { tests: cases.len() + left, ..Row::default() };
        if left > 0 {
            row.skipped.insert("left to the long run", left);
        }
        for (case, outcome) in cases.iter().zip(outcomes) {
            let about = || format!("{} {file} test {}: {:?}", self.door, case.number, case.kind);
            if let Outcome::Refused(said) = outcome {
                let by = said.split(": ").next().unwrap();
                let by_policy = matches!(case.want, Want::Policy(_)) && BY_POLICY.contains(&by);
                if !by_policy && !self.rightly.contains(&by) {
                    self.wrong.lock().unwrap().push(format!("{}: {said}", about()));
                }
                *self.by.lock().unwrap().entry(by.to_owned()).or_default() += 1;
            }
            match (case.want, outcome) {
                // What there is no name for is not taken either.
                (Want::Policy(why), outcome) if *outcome != Outcome::Done => {
                    *row.skipped.entry(why).or_default() += 1;
                }
                (_, Outcome::Unasked(why)) => *row.skipped.entry(why).or_default() += 1,
                (Want::Done | Want::Either | Want::Any, Outcome::Done) => row.passed += 1,
                (
                    Want::Refused | Want::Either | Want::Any,
                    Outcome::Refused(_) | Outcome::Invalid,
                )
                | (Want::Any, Outcome::Other) => {
                    row.passed += 1;
                    row.refused += 1;
                }
                (want, outcome) => {
                    row.wrong += 1;
                    let said = format!("{}: {want:?}, but {outcome:?}", about());
                    self.wrong.lock().unwrap().push(said);
                }
            }
        }
        let counted = row.passed + row.skipped.values().sum::<usize>() + row.wrong;
        assert_eq!(counted, row.tests, "{file}");
        assert!(row.tests > 0, "{file} holds no tests");
        self.rows.lock().unwrap().insert(file.to_owned(), row);
    }

    /// Prints the table, and makes sure that `files` of them were looked at.
    pub(crate) fn finish(&self, files: usize) {
        let rows = self.rows.lock().unwrap();
        let mut text = format!(
            "\n{}\n{:>6} {:>6} {:>7} {:>7}  file, and why tests were skipped\n",
            self.door, "tests", "passed", "refused", "skipped"
        );
        let mut sum = Row::default();
        for (file, row) in rows.iter() {
            let skipped: usize = row.skipped.values().sum();
            let _ = writeln!(
                text,
                "{:>6} {:>6} {:>7} {skipped:>7}  {file} {}",
                row.tests,
                row.passed,
                row.refused,
                reasons(&row.skipped)
            );
            sum.tests += row.tests;
            sum.passed += row.passed;
            sum.refused += row.refused;
            for (why, count) in &row.skipped {
                *sum.skipped.entry(why).or_default() += count;
            }
        }
        let skipped: usize = sum.skipped.values().sum();
        let (tests, passed, refused) = (sum.tests, sum.passed, sum.refused);
        let _ = writeln!(text, "{tests:>6} {passed:>6} {refused:>7} {skipped:>7}  in all");
        for (why, count) in &sum.skipped {
            let _ = writeln!(text, "{:>6} {:>6} {:>7} {count:>7}  {why}", "", "", "");
        }
        for (file, why) in NOT_OFFERED {
            let _ = writeln!(text, "not asked: {file}: {why}");
        }
        let _ = writeln!(text, "refused by: {:?}", self.by.lock().unwrap());
        println!("{text}");
        let wrong = self.wrong.lock().unwrap();
        let first: Vec<_> = wrong.iter().take(WRONG_SHOWN).map(String::as_str).collect();
        assert!(wrong.is_empty(), "{} are wrong, for example\n{}", wrong.len(), first.join("\n"));
        assert_eq!(rows.len(), files, "not every file was looked at");
        assert!(passed > 0);
    }
}

/// Names of refusals that speak of what is never permitted, and so of nothing but our policy.
const BY_POLICY: [&str; 3] = ["KeyFunctionNotPermitted", "MECHANISM_REFUSED", "MechanismInvalid"];
const WRONG_SHOWN: usize = 20;

fn reasons(skipped: &BTreeMap<&'static str, usize>) -> String {
    let said = skipped.iter().map(|(why, count)| format!("{why}: {count}"));
    let said: Vec<_> = said.collect();
    if said.is_empty() { String::new() } else { format!("({})", said.join("; ")) }
}
