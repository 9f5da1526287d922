//! `kmsctl` against a real daemon: every command does its work once and refuses something once, and what
//! can be checked by others (openssl, ssh-keygen) is.

// The helpers of a test may unwrap as the test itself does.
#![allow(clippy::unwrap_used)]

mod appliance;
mod group;
mod keys;
mod making;
mod readme;
mod rings;
mod transfer;
mod uses;

use std::collections::BTreeSet;
use std::process::Command;

use kms_tests::process::program;

/// The commands that a test answers for, by test.
const TESTED: [&[&str]; 10] = [
    appliance::SERVING,
    appliance::OFFLINE,
    appliance::SEALING,
    keys::DESCRIPTIONS,
    keys::LIFE,
    making::COMMANDS,
    rings::COMMANDS,
    transfer::KEYS,
    transfer::PROPOSALS,
    uses::COMMANDS,
];

#[test]
fn every_command_is_tested_against_a_daemon() {
    let mut found = BTreeSet::new();
    leaves(&[], &mut found);
    assert!(found.len() > 70, "only {} commands were found", found.len());
    let tested: Vec<&str> = TESTED.concat();
    let once: BTreeSet<String> = tested.iter().map(ToString::to_string).collect();
    assert_eq!(tested.len(), once.len(), "a command is tested twice");
    let missing: Vec<_> = found.difference(&once).collect();
    assert!(missing.is_empty(), "no test runs {missing:?}");
    let gone: Vec<_> = once.difference(&found).collect();
    assert!(gone.is_empty(), "tested, and not there: {gone:?}");
}

/// The commands at and below `path` that have no commands below them.
fn leaves(path: &[String], found: &mut BTreeSet<String>) {
    let commands = commands(&help(path));
    if commands.is_empty() {
        found.insert(path.join(" "));
    }
    for command in commands {
        leaves(&[path, &[command]].concat(), found);
    }
}

fn help(path: &[String]) -> String {
    let ended = Command::new(program("kmsctl")).args(path).arg("--help").output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{path:?}");
    String::from_utf8(ended.stdout).unwrap()
}

/// The names under `Commands:`.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = lines.take_while(|line| !line.is_empty());
    // What is deeper than a name is the rest of a description.
    let named = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = named.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Whoever reads the help of a command learns what it does and sees it done.
#[test]
fn every_command_says_what_it_does_and_shows_an_example() {
    let mut found = BTreeSet::new();
    leaves(&[], &mut found);
    for command in found {
        let path: Vec<String> = command.split(' ').map(str::to_owned).collect();
        let own = help(&path);
        let first = own.lines().next().unwrap();
        assert!(!first.is_empty() && !first.starts_with("Usage:"), "{command}: {own}");
        let examples = ["", "--output json "].map(|options| format!("kmsctl {options}{command}"));
        let shown = (0..=path.len()).any(|depth| {
            let text = help(&path[..depth]);
            let mut lines = text.lines().filter(|line| line.starts_with("  "));
            lines.any(|line| examples.iter().any(|example| line.contains(example)))
        });
        assert!(shown, "kmsctl {command} --help has no example of it");
    }
}
