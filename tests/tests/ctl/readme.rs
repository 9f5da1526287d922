//! What the README tells people to type is typed, line by line, in an empty folder.

use std::path::Path;
use std::process::{Command, Stdio};

use kms_tests::Daemon;
use kms_tests::daemon::temporary;
use kms_tests::process::{Process, program};

/// The indented lines of the README between two of its lines, without those two.
fn lines(from: &str, to: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no line {from:?}"));
    let (part, _) = rest.split_once(to).unwrap_or_else(|| panic!("no line {to:?}"));
    let typed = part.lines().filter_map(|line| line.strip_prefix("    "));
    typed.map(|line| format!("{line}\n")).collect()
}

/// Runs `script` in `folder` as somebody would type it: the first failed line is the last. What it printed.
#[track_caller]
fn type_in(folder: &Path, script: &str) -> String {
    let programs = program("kmsctl").parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let ended = Command::new("sh")
        .args(["-exc", script])
        .current_dir(folder)
        .env_clear()
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(ended.status.success(), "{said}");
    said
}

#[test]
fn the_first_steps_of_the_readme_are_as_it_says() {
    let daemon = Daemon::start();
    let folder = temporary();
    std::os::unix::fs::symlink(daemon.state(), folder.path().join("kmsd-dev")).unwrap();
    // pkcs11-tool is not everywhere; tests/clients.sh runs it.
    let steps = lines("In another terminal:\n", "And as a PKCS#11 token:\n");
    assert!(steps.lines().count() > 20, "{steps}");
    let said = type_in(folder.path(), &steps);
    for word in ["Verified OK", "Dear Alice", "never left", "UndoKeyVersionStep"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn a_store_is_made_and_served_as_the_readme_says() {
    let folder = temporary();
    let make = lines(
        "root key a passphrase opens, and serve it:\n",
        "In another terminal, as the same user",
    );
    let (make, serve) = make.trim_end().rsplit_once('\n').unwrap();
    type_in(folder.path(), make);
    let arguments: Vec<&str> = serve.split(' ').collect();
    assert_eq!(arguments[0], "kmsd");
    // Its paths are those of the folder that it is started in.
    let config = folder.path().join("kmsd.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("./", &format!("{}/", folder.path().display()))).unwrap();
    let config = config.display().to_string();
    let mut process = Process::kmsd(&["serve", "--config", &config], folder.path(), "serve");
    assert!(process.wait_for("ready"), "{}", process.stderr());
    let steps = lines("who is its first security officer:\n", "A whole configuration:\n");
    let said = type_in(folder.path(), &steps);
    assert!(said.contains("crypto-user@"), "{said}");
    assert_eq!(process.terminate().status.code(), Some(0));
}
