//! The directions of DESIGN §2 and ADR 1, held over the manifests and the sources. Whoever changes
//! a list in here makes a design decision, which has its page under `kmsd/adr/`.

// The helpers of a test may unwrap as the test itself does.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may use whom, in what is shipped.
const USES: [(&str, &[&str]); 11] = [
    ("kms-agent", &["kms-client", "kms-core"]),
    ("kms-attest", &["kms-core"]),
    ("kms-client", &["kms-proto"]),
    ("kms-core", &[]),
    ("kms-crypto", &["kms-core"]),
    ("kms-ctl", &["kms-client", "kms-core", "kms-verify"]),
    ("kms-pkcs11", &["kms-client", "kms-proto"]),
    ("kms-proto", &[]),
    ("kms-store", &["kms-core"]),
    ("kms-verify", &["kms-attest", "kms-core"]),
    ("kmsd", &["kms-attest", "kms-core", "kms-crypto", "kms-proto", "kms-store"]),
];

/// Use whatever they test or measure; nobody uses them.
const TOOLS: [&str; 2] = ["kms-bench", "kms-tests"];

/// Who may use whom only through an optional dependency of the feature `dev`, which release
/// artefacts leave out: the tour, and the software attester.
const USES_FOR_DEV: [(&str, &str); 4] = [
    ("kms-agent", "kms-attest"),
    ("kmsd", "kms-agent"),
    ("kmsd", "kms-client"),
    ("kmsd", "kms-verify"),
];

/// What only these files may say, apart from tests. A name that ends with `/` is a folder.
const SAID_ONLY_IN: [(&str, &[&str]); 4] = [
    // The store's word that something is on disk.
    ("CommitReceipt::durable(", &["kmsd/store/src/"]),
    // From a connection, a PIN, or the daemon itself: nothing else makes a caller.
    (
        "Caller::authenticated(",
        &["kmsd/server/src/identity.rs", "kmsd/server/src/ops/login_token.rs"],
    ),
    // Out of the directory of those who are enrolled.
    ("Caller::enrolled(", &["kmsd/server/src/identity.rs"]),
    // What a verifier saw.
    ("Examination {", &["kmsd/attest/src/"]),
];

/// Where `unsafe` may stand (CONVENTIONS, Unsafe).
const UNSAFE_IN: [&str; 2] = ["kmsd/crypto/src/arena.rs", "pkcs11-shim/src/ffi.rs"];

#[test]
fn crates_use_each_other_only_in_the_agreed_directions() {
    let allowed: BTreeMap<_, _> = USES.into_iter().collect();
    let mut wrong = Vec::new();
    for Edge { from, to, optional, development } in edges() {
        let regular = allowed.get(from.as_str()).is_some_and(|uses| uses.contains(&to.as_str()));
        let for_dev = optional && USES_FOR_DEV.contains(&(from.as_str(), to.as_str()));
        // A crate may test itself with other features on.
        let itself = development && from == to;
        if !(regular || for_dev || itself || TOOLS.contains(&from.as_str())) {
            wrong.push(format!("{from} -> {to}{}", if development { " (tests)" } else { "" }));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}: not an edge of DESIGN §2; {DECISION}");
}

#[test]
fn optional_edges_of_the_feature_dev_are_optional() {
    for Edge { from, to, optional, development } in edges() {
        if USES_FOR_DEV.contains(&(from.as_str(), to.as_str())) && !development {
            assert!(optional, "{from} -> {to} is in release artefacts; {DECISION}");
        }
    }
}

#[test]
fn nothing_uses_the_tests_or_the_benchmarks() {
    for Edge { from, to, .. } in edges() {
        assert!(!TOOLS.contains(&to.as_str()), "{from} -> {to}; {DECISION}");
    }
}

#[test]
fn callers_receipts_and_examinations_are_made_where_they_are_agreed_to_be() {
    let mut seen = BTreeSet::new();
    for (path, text) in sources() {
        if is_test(&path) {
            continue;
        }
        for (said, places) in SAID_ONLY_IN {
            for (number, line) in shipped_lines(&text) {
                if !makes(line, said) {
                    continue;
                }
                let agreed = places.iter().any(|place| is_in(&path, place));
                assert!(agreed, "{path}:{number} says {said:?}; {DECISION}");
                seen.insert(said);
            }
        }
    }
    // A guard that finds nothing at all has lost what it guards.
    assert_eq!(seen.len(), SAID_ONLY_IN.len(), "only {seen:?} were found");
}

#[test]
fn unsafe_code_stands_only_where_it_is_agreed_to() {
    let mut seen = BTreeSet::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let says = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "#[unsafe("];
            if path == THIS || !says.iter().any(|says| code.contains(says)) {
                continue;
            }
            // A test of the module speaks the C interface that it tests.
            let tests = is_in(&path, "pkcs11-shim/tests/");
            let agreed = tests || UNSAFE_IN.contains(&path.as_str());
            assert!(agreed, "{path}:{} is unsafe; {DECISION}", number + 1);
            seen.insert(path.clone());
        }
    }
    for file in UNSAFE_IN {
        assert!(seen.contains(file), "{file} holds no unsafe code; drop it from the list");
    }
}

#[test]
fn no_file_names_a_registry_or_a_path_of_the_machine_it_was_made_on() {
    // Put together, so that this file does not name them itself.
    let hosts = ["registry.npmjs", "pypi", "proxy.golang"].map(|host| format!("{host}.org"));
    let crates = ["index", "static"].map(|host| format!("{host}.crates.io"));
    let folders = ["work", "root", "home/user"].map(|folder| format!("/{folder}/"));
    let mut read = 0;
    for path in files(&root()) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        read += 1;
        for (number, line) in text.lines().enumerate() {
            for name in hosts.iter().chain(&crates).chain(&folders) {
                // Our own folders may be called so below another, as in a/work/b.
                let at = line.find(name.as_str());
                let begins = |at: usize| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || "._-}/~".contains(c))
                };
                let named = at.is_some_and(|at| !name.starts_with('/') || begins(at));
                assert!(!named, "{}:{} names {name}", path.display(), number + 1);
            }
        }
    }
    assert!(read > 100, "only {read} files were found");
}

struct Edge {
    from: String,
    to: String,
    optional: bool,
    development: bool,
}

/// The dependencies between our own crates, as cargo reads them.
fn edges() -> Vec<Edge> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    for (crate_name, _) in USES {
        assert!(ours.contains(crate_name), "{crate_name} is gone; {DECISION}");
    }
    let mut edges = Vec::new();
    for package in packages {
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = name(dependency);
            if ours.contains(&to) {
                edges.push(Edge {
                    from: name(package),
                    to,
                    optional: dependency["optional"].as_bool().unwrap(),
                    development: dependency["kind"] == "dev",
                });
            }
        }
    }
    assert!(edges.len() > 15, "only {} edges were found", edges.len());
    edges
}

/// Rust sources, by path from the root.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let rust = files(&root).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    rust.map(|path| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(&path).unwrap())
    })
    .collect()
}

/// Every file but what is built, hidden or a state folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let kind = entry.file_type().unwrap();
        if name == ".git" || name == "target" || name == "kmsd-dev" {
            continue;
        }
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// The lines before a file's unit tests that are no comments.
fn shipped_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().take_while(|line| !line.ends_with("mod tests {"));
    let numbered = lines.enumerate().map(|(at, line)| (at + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether the line makes the thing, rather than declares it, takes it apart or returns it.
fn makes(line: &str, said: &str) -> bool {
    let Some(at) = line.find(said) else { return false };
    let declares = ["struct ", "impl ", "let ", "-> ", "for ", "&"];
    !declares.iter().any(|before| line[..at].ends_with(before))
        && !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn is_test(path: &str) -> bool {
    path == THIS
        || path.contains("/tests/")
        || path.starts_with("tests/")
        || path.ends_with("tests.rs")
}

fn is_in(path: &str, place: &str) -> bool {
    if place.ends_with('/') { path.starts_with(place) } else { path == place }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

const THIS: &str = "tests/tests/layering.rs";
const DECISION: &str = "changing this is a design decision: write an ADR, then change the list in \
                        tests/tests/layering.rs";
