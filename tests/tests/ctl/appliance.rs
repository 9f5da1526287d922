//! The appliance itself, its log, its root key, and what is done without it.

use std::fs;
use std::process::Command;

use kms_agent::attester::Attester as _;
use kms_tests::process::{Process, program};
use kms_tests::{Daemon, daemon};
use serde_json::Value;

use crate::group::{Group, Who, settings};

pub(crate) const SERVING: &[&str] = &[
    "appliance self-test",
    "appliance status",
    "audit export",
    "audit head",
    "audit prove",
    "audit tail",
    "audit verify",
    "seal status",
];

pub(crate) const OFFLINE: &[&str] = &[
    "attest verify",
    "completions",
    "man",
    "release verify",
    "store check",
    "store rebuild",
    "store stats",
];

pub(crate) const SEALING: &[&str] = &["seal seal", "seal unseal"];

const MEASUREMENT: [u8; 48] = [0x5c; 48];

#[test]
fn the_appliance_and_its_log() {
    let group = Group::new(Daemon::shared(), SERVING);
    let status = group.done("appliance status");
    assert_eq!(status["error_state"], false);
    group.refused_by(Who::Stranger, "appliance status", 3, "NOT_FOUND");
    let tested = group.done("appliance self-test");
    let tests = tested["self_tests"].as_array().unwrap();
    assert!(tests.iter().all(|test| test["outcome"] == "PASSED"), "{tested}");
    group.refused_by(Who::Stranger, "appliance self-test", 3, "NOT_FOUND");
    let status = group.done("seal status");
    assert_eq!((&status["sealed"], &status["method"]), (&false.into(), &"dev".into()));
    group.refused("seal status --addr unix:/no/such/socket", 5, "UNAVAILABLE");

    let head = group.done("audit head");
    assert_eq!(head["log_key"], status["log_key"]);
    group.write("log.key", status["log_key"].as_str().unwrap());
    group.done("audit head --log-key log.key");
    let (name, rest) = status["log_key"].as_str().unwrap().split_once('+').unwrap();
    assert!(!rest.is_empty());
    group.write("other.key", format!("{name}+00000000+AAAA"));
    group.refused("audit head --log-key other.key", 2, "USAGE");
    let tail = group.done("audit tail -n 3");
    assert_eq!(tail["entries"].as_array().unwrap().len(), 3);
    let told = group.refused_by(Who::Officer, "audit tail", 3, "ROLE_MISSING");
    assert!(told.message.contains("auditor"), "{told:?}");
    let proven = group.done("audit prove 0 --log-key log.key");
    assert_eq!((&proven["verified"], &proven["index"]), (&true.into(), &0.into()));
    group.refused("audit prove 99999999", 3, "INVALID_ARGUMENT");

    let exported = group.done("audit export first");
    assert_eq!(exported["verified"], true);
    group.done("audit export second --log-key log.key");
    group.refused("audit export second", 2, "USAGE");
    group.refused_by(Who::Officer, "audit export third", 3, "ROLE_MISSING");
    let verify = "audit verify second --log-key log.key --earlier first/checkpoint";
    assert_eq!(group.done(verify)["accepted"], true);
    // The earlier log has not grown from the later one, and a changed one is not accepted.
    let backwards = "audit verify first --log-key log.key --earlier second/checkpoint";
    assert_eq!(group.says_no(backwards)["accepted"], false);
    let bundle = fs::read_dir(group.path("second/tile/entries")).unwrap().next().unwrap().unwrap();
    let bundle = match bundle.file_type().unwrap().is_dir() {
        true => fs::read_dir(bundle.path()).unwrap().next().unwrap().unwrap().path(),
        false => bundle.path(),
    };
    let mut bytes = fs::read(&bundle).unwrap();
    bytes[20] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    assert_eq!(group.says_no("audit verify second --log-key log.key")["accepted"], false);
    group.refused("audit verify second --log-key none", 2, "USAGE");
    group.finish();
}

#[test]
fn what_is_done_without_a_daemon() {
    // Ended in the end, so not the one that is shared.
    let mut daemon = Daemon::start();
    let group = Group::new(&daemon, OFFLINE);
    for shell in ["bash", "zsh", "fish"] {
        assert!(group.piped(&format!("completions {shell}"), b"").len() > 10_000, "{shell}");
    }
    group.refused("completions csh", 2, "USAGE");
    group.done("man man1");
    for page in ["kmsctl.1", "kmsctl-key-import.1", "kmsctl-keyring-policy-set.1"] {
        assert!(group.text(&format!("man1/{page}")).contains(".SH"), "{page}");
    }
    group.write("file", "");
    group.refused("man file", 2, "USAGE");
    receipts(&group, &daemon);
    evidence(&group, &daemon);
    let state = daemon.state().display().to_string();
    // The daemon runs, and has its store for itself.
    let ran = group.run(Who::Developer, &format!("store check --state {state}"), b"");
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    daemon.terminate();
    for verb in ["check", "stats", "rebuild"] {
        let told = group.done(&format!("store {verb} --state {state} --output json"));
        assert!(told.is_object(), "{verb}: {told}");
        let ran = group.run(Who::Developer, &format!("store {verb} --state none"), b"");
        assert_eq!(ran.code, 1, "{verb}: {}", ran.stderr);
    }
    group.finish();
}

/// A receipt, as the agent of a workload wrote it.
fn receipts(group: &Group, daemon: &Daemon) {
    let digits = hex::encode(MEASUREMENT);
    group.write(
        "release.rego",
        format!("package policy\n\ndefault allow := false\n\nallow if input.measurement == \"{digits}\"\n"),
    );
    group.write(
        "release.json",
        r#"{"kinds": ["snp"], "may_be_unestablished": ["revocation"], "policy_file": "release.rego"}"#,
    );
    group.done("key create dev/r-k --algorithm AES_256 --release-requirement release.json");
    let key = "seal status";
    group.write("log.key", group.done(key)["log_key"].as_str().unwrap());
    let chip = daemon.state().join("attester.json").display().to_string();
    let ended = Command::new(program("kms-agent"))
        .args(["get-key", "--key", "dev/r-k", "--attester", "software", "--attester-state", &chip])
        .args(["--measurement", &digits, "--out", "r.key", "--receipt", "r.receipt"])
        .current_dir(group.path("."))
        .env_clear()
        .envs(settings(&daemon.unix()))
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(group.read("r.key").len(), 32);
    let told = group.done("release verify r.receipt --log-key log.key");
    assert_eq!((&told["accepted"], &told["measurement"]), (&true.into(), &digits.as_str().into()));
    let mut receipt: Value = serde_json::from_slice(&group.read("r.receipt")).unwrap();
    receipt["measurement"] = "00".repeat(48).into();
    group.write("changed.receipt", receipt.to_string());
    let ran = group.run(Who::Developer, "release verify changed.receipt --log-key log.key", b"");
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    group.refused("release verify none --log-key log.key", 2, "USAGE");
}

/// Evidence of the imaginary chip, believed by whoever believes its root.
fn evidence(group: &Group, daemon: &Daemon) {
    let guest = daemon.guest(MEASUREMENT, false);
    group.write("evidence", guest.evidence(&[7; 64]).unwrap());
    let chip: Value = serde_json::from_str(&daemon.text("attester.json")).unwrap();
    let digits: Vec<u8> = chip["root"].as_str().unwrap().bytes().collect();
    let lines: Vec<_> = digits.chunks(64).map(String::from_utf8_lossy).collect();
    let pem =
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    group.write("root.pem", pem);
    fs::create_dir(group.path("collateral")).unwrap();
    let now = group.done("audit tail -n 1")["entries"][0]["time"].as_str().unwrap().to_owned();
    let verify =
        format!("attest verify --kind snp --evidence evidence --collateral collateral --at {now}");
    let told = group.says_no(&verify);
    assert_eq!(told["accepted"], false);
    let believed = format!("{verify} --development-root root.pem");
    let told = group.done(&format!("{believed} --policy release.rego"));
    assert_eq!(
        (&told["accepted"], &told["not_established"][0]),
        (&true.into(), &"revocation".into())
    );
    group.done(&format!("{believed} --report-data {}", "07".repeat(64)));
    group.says_no(&format!("{believed} --report-data {}", "08".repeat(64)));
    group.write("never.rego", "package policy\n\ndefault allow := false\n");
    group.says_no(&format!("{believed} --policy never.rego"));
    group.refused(&believed.replace("--evidence evidence", "--evidence none"), 2, "USAGE");
    group.refused(&believed.replace(&now, "yesterday"), 2, "USAGE");
}

const PASSPHRASE: &str = "canary horse battery staple";

#[test]
fn the_root_key_is_closed_and_opened() {
    let folder = daemon::temporary();
    let file = |name: &str| folder.path().join(name).display().to_string();
    fs::write(file("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
    let arguments = ["init", "--state", &file("state"), "--passphrase-file", &file("passphrase")];
    let ended = Process::kmsd(&arguments, folder.path(), "init").ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let config = format!(
        "state = '{}'\nlocation = 'local'\n[listen]\nunix = '{}'\n",
        file("state"),
        file("kmsd.sock")
    );
    fs::write(file("kmsd.toml"), config).unwrap();
    let serve = ["serve", "--config", &file("kmsd.toml")];
    let mut process = Process::kmsd(&serve, folder.path(), "serve");
    assert!(process.wait_for("ready"), "{}", process.stderr());
    let group = Group::at(&daemon::unix(&folder.path().join("kmsd.sock")), SEALING);
    group.never_told(PASSPHRASE);
    group.write("passphrase", PASSPHRASE);
    assert_eq!(group.done("seal status")["sealed"], true);
    let told = group.refused("keyring create pki", 5, "SEALED");
    assert!(told.next_step.contains("kmsctl seal unseal"), "{told:?}");
    let told = group.refused("seal unseal", 2, "USAGE");
    assert!(told.message.contains("--passphrase-file"), "{told:?}");
    let unseal = "seal unseal --passphrase-file passphrase";
    assert_eq!(group.done(unseal)["sealed"], false);
    assert_eq!(group.done("whoami")["principal"], "users/officer");
    group.done("keyring create pki");
    assert_eq!(group.done("seal seal")["sealed"], true);
    // Closed already, and the wrong words.
    group.refused("keyring list", 5, "SEALED");
    let ran = group.run(Who::Developer, "seal seal", b"");
    assert_ne!(ran.code, 0, "sealed twice");
    group.write("wrong", "wrong horse battery staple");
    group.refused("seal unseal --passphrase-file wrong", 3, "PIN_INCORRECT");
    group.finish();
    assert_eq!(process.terminate().status.code(), Some(0));
}
