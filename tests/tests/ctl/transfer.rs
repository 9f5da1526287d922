//! Keys and secrets from outside in every form that people have them, keys that leave, and the approvals that
//! let them; with openssl and ssh-keygen as the other side.

use kms_tests::Daemon;
use serde_json::Value;

use crate::group::{Group, Who};

pub(crate) const KEYS: &[&str] = &["key export", "key import", "secret list", "secret put"];

pub(crate) const PROPOSALS: &[&str] = &[
    "proposal approve",
    "proposal cancel",
    "proposal create",
    "proposal document",
    "proposal execute",
    "proposal list",
    "proposal show",
];

#[test]
fn keys_come_in_and_go_out() {
    let daemon = Daemon::shared();
    let group = Group::new(daemon, KEYS);
    group.never_told("canary-key-passphrase");
    group.write("pass", "canary-key-passphrase\n");
    key_pairs(&group);
    secret_keys(&group);
    into_versions(&group);
    mistakes(&group);
    secrets(&group);
    exports(&group, daemon);
    group.finish();
}

/// Each file form, and each way in: what the key signs here, openssl verifies with the public half that it
/// kept.
fn key_pairs(group: &Group) {
    group.write("letter", "Dear Alice\n");
    for line in [
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256.pem",
        "pkcs8 -topk8 -nocrypt -in p256.pem -outform DER -out p256.der",
        "pkcs8 -topk8 -in p256.pem -passout file:pass -v2 aes-256-cbc -out p256.enc",
        "req -x509 -new -key p256.pem -subj /CN=t -days 2 -out p256.crt",
        "pkcs12 -export -inkey p256.pem -in p256.crt -passout file:pass -out p256.p12",
        "pkey -in p256.pem -pubout -out p256.pub",
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem",
        "pkey -in rsa.pem -pubout -out rsa.pub",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out p521.pem",
        "pkey -in p521.pem -pubout -out p521.pub",
    ] {
        group.openssl(line);
    }
    for (name, algorithm, file, public, hash) in [
        ("pem", "EC_P256", "p256.pem", "p256.pub", "sha256"),
        ("der", "EC_P256", "p256.der --method rsa", "p256.pub", "sha256"),
        ("enc", "EC_P256", "p256.enc --passphrase-file pass", "p256.pub", "sha256"),
        ("p12", "EC_P256", "p256.p12 --passphrase-file pass", "p256.pub", "sha256"),
        ("p521", "EC_P521", "p521.pem --method rsa", "p521.pub", "sha512"),
        ("rsa", "RSA_2048 --mechanism RSA_PKCS1_SHA256", "rsa.pem", "rsa.pub", "sha256"),
        (
            "rsa-rsa",
            "RSA_2048 --mechanism RSA_PKCS1_SHA256",
            "rsa.pem --method rsa",
            "rsa.pub",
            "sha256",
        ),
    ] {
        let made =
            group.done(&format!("key import dev/t-{name} --algorithm {algorithm} --in {file}"));
        assert_eq!((&made["state"], &made["origin"]), (&"ACTIVE".into(), &"IMPORTED".into()));
        assert_eq!((&made["local"], &made["ever_exportable"]), (&false.into(), &true.into()));
        assert_eq!(made["public_key"].as_str(), Some(group.text(public).as_str()), "{name}");
        group.done(&format!("key sign dev/t-{name} --message-file letter --out {name}.sig"));
        let said =
            group.openssl(&format!("dgst -{hash} -verify {public} -signature {name}.sig letter"));
        assert!(said.contains("Verified OK"), "{name}: {said}");
    }
    // Only the public half: it verifies, and signs nothing.
    let made = "key import dev/t-public --algorithm EC_P256 --usage VERIFY --public --in p256.pub";
    group.done(made);
    let verify = "key verify dev/t-public --message-file letter --signature pem.sig";
    assert_eq!(group.done(verify)["valid"], true);
    group.refused("key sign dev/t-public --message-file letter --out s", 3, "USAGE_REFUSED");
}

fn secret_keys(group: &Group) {
    group.openssl("rand -out aes.bin 32");
    let key = group.read("aes.bin");
    group.never_told(&key);
    for method in ["x-wing", "rsa"] {
        let line = format!(
            "key import dev/t-mac-{method} --algorithm GENERIC_SECRET --in aes.bin --method {method}"
        );
        assert_eq!(group.done(&line)["length_bytes"], 32);
        let made = group.piped(&format!("key mac dev/t-mac-{method} --in letter --out -"), b"");
        let line = format!(
            "dgst -sha256 -mac HMAC -macopt hexkey:{} -binary -out tag letter",
            hex::encode(&key)
        );
        group.openssl(&line);
        assert_eq!(made, group.read("tag"), "{method}");
    }
    // From standard input, to be active later.
    let later =
        "key import dev/t-later --algorithm AES_256 --in - --activate-at 2099-01-01T00:00:00Z";
    let ran = group.run(Who::Developer, later, &key);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(group.done("key versions dev/t-later")["versions"][0]["state"], "PRE_ACTIVE");
}

fn into_versions(group: &Group) {
    group.done("key rotate dev/t-pem --pending-import");
    group.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out next.pem");
    let made = group.done("key import dev/t-pem@2 --in next.pem --pre-active");
    assert_eq!(made["state"], "PRE_ACTIVE");
    group.refused("key import dev/t-pem@2 --in next.pem", 3, "ILLEGAL_TRANSITION");
}

fn mistakes(group: &Group) {
    let told = group.refused("key import dev/t-x --in p256.pem", 2, "USAGE");
    assert!(told.message.contains("--algorithm"), "{told:?}");
    group.write("wrong", "another passphrase\n");
    for file in ["p256.enc", "p256.p12"] {
        let line =
            format!("key import dev/t-x --algorithm EC_P256 --in {file} --passphrase-file wrong");
        let told = group.refused(&line, 2, "USAGE");
        assert!(told.message.contains("passphrase does not open it"), "{told:?}");
    }
    let told = group.refused("key import dev/t-x --algorithm EC_P256 --in p256.enc", 2, "USAGE");
    assert!(told.message.contains("--passphrase-file"), "{told:?}");
    let told = group.refused("key import dev/t-x --algorithm EC_P256 --in letter", 2, "USAGE");
    assert!(told.message.contains("openssl pkcs8"), "{told:?}");
    let told = group.refused("key import dev/t-x --algorithm AES_128 --in aes.bin", 2, "USAGE");
    assert!(told.message.contains("16 bytes"), "{told:?}");
    group.refused("key import dev/t-x --algorithm EC_P256 --in none", 2, "USAGE");
    // None of these has made a key.
    group.refused("key show dev/t-x", 3, "NOT_FOUND");
    // What only the daemon can tell leaves one that waits, and says how to go on.
    let told = group.refused(
        "key import dev/t-waits --algorithm EC_P384 --in p256.pem",
        3,
        "INVALID_ARGUMENT",
    );
    assert!(told.next_step.contains("kmsctl key import"), "{told:?}");
    assert!(told.next_step.contains("t-waits"), "{told:?}");
    group.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384.pem");
    assert_eq!(group.done("key import dev/t-waits@1 --in p384.pem")["state"], "ACTIVE");
    group.refused("key import dev/t-waits --algorithm EC_P384 --in p384.pem", 3, "ALREADY_EXISTS");
    let officer = "key import dev/t-x --algorithm EC_P256 --in p256.pem";
    group.refused_by(Who::Officer, officer, 3, "ROLE_MISSING");
    let private = "key import dev/t-x --algorithm EC_P256 --usage VERIFY --public --in p256.pem";
    let told = group.refused(private, 2, "USAGE");
    assert!(told.message.contains("PUBLIC KEY"), "{told:?}");
}

fn secrets(group: &Group) {
    group.never_told("canary-secret-0f3b");
    group.write("password", "canary-secret-0f3b");
    let made = group.done("secret put dev/t-secret --in password --exportable --label app=web");
    assert_eq!((&made["origin"], &made["length_bytes"]), (&"IMPORTED".into(), &18.into()));
    group.done("key rotate dev/t-secret --pending-import");
    assert_eq!(group.done("secret put dev/t-secret@2 --in password")["state"], "ACTIVE");
    let listed = group.done("secret list dev");
    let is = |key: &Value| key["name"].as_str().unwrap().ends_with("/t-secret");
    let keys = listed["keys"].as_array().unwrap();
    assert!(keys.iter().any(is) && keys.iter().all(|key| key["algorithm"] == "OPAQUE_SECRET"));
    group.refused("secret put dev/t-secret --in password --exportable", 3, "ALREADY_EXISTS");
    group.write("empty", "");
    group.refused("secret put dev/t-empty --in empty --exportable", 2, "USAGE");
    group.write("long", vec![0; 64 * 1024 + 1]);
    let told = group.refused("secret put dev/t-long --in long --exportable", 2, "USAGE");
    assert!(told.message.contains("65536 bytes"), "{told:?}");
    group.refused("secret list none", 3, "NOT_FOUND");
}

/// The whole way of an export: asked for, approved by two with ssh-keygen, fetched, opened.
fn exports(group: &Group, daemon: &Daemon) {
    group.write("quorum.json", QUORUM);
    group.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out me.pem");
    group.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out weak.pem");
    group.openssl("pkey -in me.pem -pubout -out me.pub");
    group.done("key create dev/t-out --algorithm EC_P256 --exportable --quorum quorum.json");
    let asked = group.run(Who::Developer, "key export dev/t-out@1 --private-key me.pem", b"");
    assert_eq!(asked.code, 4, "{}", asked.stderr);
    let asked: Value = serde_json::from_slice(&asked.stdout).unwrap();
    let proposal = asked["name"].as_str().unwrap().to_owned();
    let fetch =
        format!("key export dev/t-out@1 --private-key me.pem --proposal {proposal} --out out.der");
    let told = group.refused(&fetch, 3, "UNAPPROVED");
    assert!(told.next_step.contains("kmsctl proposal show"), "{told:?}");
    approved(group, daemon, &proposal, &["alice", "carol"]);
    // To another key than was approved, it is not even tried.
    group.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out other.pem");
    let other = fetch.replace("me.pem", "other.pem");
    group.refused(&other, 2, "USAGE");
    let made = group.done(&fetch);
    assert_eq!(made["opened"], true);
    group.openssl("pkey -inform DER -in out.der -pubout -out out.pub");
    group.done("key public dev/t-out --out t.pub");
    assert_eq!(group.text("out.pub"), group.text("t.pub"));
    group.refused(&fetch, 2, "USAGE");
    group.refused(&fetch.replace("out.der", "again.der"), 3, "UNAPPROVED");
    assert!(!group.path("again.der").exists());

    // To somebody else, who opens it with openssl.
    let asked = group.run(Who::Developer, "key export dev/t-out@1 --public-key me.pub", b"");
    let asked: Value = serde_json::from_slice(&asked.stdout).unwrap();
    let proposal = asked["name"].as_str().unwrap();
    approved(group, daemon, proposal, &["alice", "bob"]);
    group.done(&format!(
        "key export dev/t-out@1 --public-key me.pub --proposal {proposal} --out sealed"
    ));
    let sealed = group.read("sealed");
    let (transport, wrapped) = sealed.split_at(384);
    group.write("transport", transport);
    group.write("wrapped", wrapped);
    group.openssl(
        "pkeyutl -decrypt -inkey me.pem -in transport -out transport.key -pkeyopt rsa_padding_mode:oaep \
         -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256",
    );
    let key = hex::encode(group.read("transport.key"));
    group.openssl(&format!(
        "enc -d -id-aes256-wrap-pad -K {key} -iv a65959a6 -in wrapped -out opened.der"
    ));
    assert_eq!(group.read("opened.der"), group.read("out.der"));

    group.refused("key export dev/t-pem@1 --private-key me.pem", 3, "NOT_EXPORTABLE");
    group.refused("key export dev/t-out@1 --private-key weak.pem", 3, "INVALID_ARGUMENT");
    group.refused("key export dev/t-out@1 --private-key p256.pem", 2, "USAGE");
    group.refused_by(
        Who::Officer,
        "key export dev/t-out@1 --private-key me.pem",
        3,
        "ROLE_MISSING",
    );
}

const QUORUM: &str = r#"{"guards": ["ExportKeyVersion", "DestroyKeyVersion"],
    "approvers": {"n": 2, "members": ["users/alice", "users/bob", "users/carol"]}}"#;

/// Has people sign `proposal` and hands their signatures in.
fn approved(group: &Group, daemon: &Daemon, proposal: &str, people: &[&str]) {
    for name in people {
        signed(group, daemon, proposal, name);
        let line =
            format!("proposal approve {proposal} --approver users/{name} --signature p.json.sig");
        group.done(&line);
    }
}

/// The document, signed by `name` as it says itself.
fn signed(group: &Group, daemon: &Daemon, proposal: &str, name: &str) {
    let _ = std::fs::remove_file(group.path("p.json.sig"));
    let told = group.done(&format!("proposal document {proposal} --out p.json"));
    let command = told["sign_command"].as_str().unwrap();
    let (tool, line) = command.split_once(' ').unwrap();
    let key = daemon.state().join("approvers").join(name).display().to_string();
    group.tool(tool, &format!("-q {}", line.replace("~/.ssh/id_ed25519", &key)));
}

#[test]
fn approvals_of_guarded_actions() {
    let daemon = Daemon::shared();
    let group = Group::new(daemon, PROPOSALS);
    group.write("quorum.json", QUORUM);
    group.done("key create dev/p-k --algorithm EC_P256 --quorum quorum.json");
    let create = "proposal create DestroyKeyVersion dev/p-k@1 --lifetime 600";
    group.refused(create, 3, "ILLEGAL_TRANSITION");
    group.done("key deactivate dev/p-k@1");
    let told = group.refused("key destroy dev/p-k@1", 4, "NEEDS_APPROVAL");
    assert!(told.next_step.contains("kmsctl proposal create"), "{told:?}");
    let made = group.done(create);
    let name = made["name"].as_str().unwrap().to_owned();
    assert_eq!(made["state"], "OPEN");
    group.refused("proposal create DestroyKeyVersion dev/p-k@1 --lifetime 1", 2, "USAGE");
    let told = group.refused("proposal create WrapKey dev/p-k@1", 3, "INVALID_ARGUMENT");
    assert!(told.message.contains("ExportKeyVersion"), "{told:?}");
    group.refused("proposal create UnwrapKey dev/p-k@1", 2, "USAGE");
    group.refused("proposal create Sign dev/p-k@1 --message-file quorum.json --new x", 2, "USAGE");
    group.refused("proposal create Sign dev/p-k@1", 2, "USAGE");
    group.refused("proposal create Sign dev/p-k@1 --in quorum.json", 2, "USAGE");
    group.refused("proposal create DestroyKeyVersion dev/p-none@1", 3, "NOT_FOUND");
    let shown = group.done(&format!("proposal show {name}"));
    assert_eq!(shown["action"], "DestroyKeyVersion");
    group.refused("proposal show proposals/none", 3, "NOT_FOUND");
    group.refused("proposal document proposals/none --out p.json", 3, "NOT_FOUND");
    assert!(!group.path("p.json").exists());
    let listed = group.done("proposal list");
    let is = |proposal: &Value| proposal["name"] == name.as_str();
    assert!(listed["proposals"].as_array().unwrap().iter().any(is));
    group.refused("proposal list surplus", 2, "USAGE");

    approved(&group, daemon, &name, &["alice"]);
    let run = format!("proposal execute {name}");
    let told = group.refused(&run, 3, "UNAPPROVED");
    assert!(told.message.contains("more are needed"), "{told:?}");
    // Whoever carries the document about sees whom to ask yet.
    let shown = group.done(&format!("proposal show {name}"));
    let quorum = &shown["quorums"][0];
    assert!(quorum["guardian"].as_str().unwrap().ends_with("/keys/p-k"), "{shown}");
    assert_eq!(quorum["policy_digest"], shown["policy_digest"]);
    assert_eq!(quorum["approvers"], serde_json::json!(["users/alice"]));
    assert_eq!(quorum["missing"], 1);
    assert_eq!(quorum["may_approve"], serde_json::json!(["users/bob", "users/carol"]));
    assert_eq!(shown["quorums"].as_array().unwrap().len(), 1);
    assert_eq!(shown["key_policy_digest"], Value::Null);
    // Twice, under another's name, and of a changed document.
    let hand_in = |who: &str| {
        format!("proposal approve {name} --approver users/{who} --signature p.json.sig")
    };
    group.refused(&hand_in("alice"), 3, "APPROVAL_REFUSED");
    group.refused(&hand_in("bob"), 3, "APPROVAL_REFUSED");
    group.refused(&hand_in("bob").replace("p.json.sig", "quorum.json"), 3, "APPROVAL_REFUSED");
    group.refused(&hand_in("bob").replace("p.json.sig", "none"), 2, "USAGE");
    signed(&group, daemon, &name, "bob");
    assert_eq!(group.done(&hand_in("bob"))["approved"], true);
    assert_eq!(group.done(&run)["state"], "EXECUTED");
    assert_eq!(group.done("key versions dev/p-k")["versions"][0]["state"], "DESTROYED");
    group.refused(&run, 3, "UNAPPROVED");

    group.done("key create dev/p-kept --algorithm EC_P256 --quorum quorum.json");
    group.done("key deactivate dev/p-kept@1");
    let made = group.done("proposal create DestroyKeyVersion dev/p-kept@1");
    let name = made["name"].as_str().unwrap();
    let cancel = format!("proposal cancel {name}");
    assert_eq!(group.done(&cancel)["state"], "CANCELLED");
    group.refused(&cancel, 3, "UNAPPROVED");
    approved_uses(&group, daemon);
    approved_keys(&group, daemon);
    group.finish();
}

/// A signature of a key that signs for nobody alone, which openssl takes; and what a version that is
/// compromised still opens.
fn approved_uses(group: &Group, daemon: &Daemon) {
    group.write("sign.json", QUORUM.replace("DestroyKeyVersion", "Sign"));
    group.write("tbs", "to be signed");
    group.done("key create dev/p-ca --algorithm EC_P256 --quorum sign.json");
    group.done("key public dev/p-ca --out ca.pub");
    let sign = "proposal create Sign dev/p-ca@1 --message-file tbs";
    let name = group.done(sign)["name"].as_str().unwrap().to_owned();
    let shown = group.done(&format!("proposal show {name}"));
    assert_eq!(shown["arguments"]["data"]["message"], hex::encode("to be signed"));
    // As sha256sum has it.
    let digest = "0659a5bb8ea0422fce52c7aa211105989fc9c419af27e37c27b0f0845b95b208";
    assert_eq!(shown["data_sha256"], digest);
    let run = format!("proposal execute {name} --out tbs.sig");
    group.refused(&run, 3, "UNAPPROVED");
    assert!(!group.path("tbs.sig").exists());
    approved(group, daemon, &name, &["alice", "bob"]);
    assert_eq!(group.done(&run)["state"], "EXECUTED");
    group.openssl("dgst -sha256 -verify ca.pub -signature tbs.sig tbs");
    group.refused(&run, 3, "UNAPPROVED");

    group.done("key create dev/p-old --algorithm AES_256 --quorum quorum.json");
    group.done("key encrypt dev/p-old --in tbs --out tbs.json");
    group.done("key compromise dev/p-old@1");
    group.refused("key decrypt --in tbs.json --out plain", 4, "NEEDS_APPROVAL");
    group.refused("proposal create Decrypt dev/p-ca@1 --in tbs.json", 3, "INVALID_ARGUMENT");
    let made = group.done("proposal create Decrypt dev/p-old@1 --in tbs.json");
    let name = made["name"].as_str().unwrap();
    approved(group, daemon, name, &["alice", "bob"]);
    group.refused(&format!("proposal execute {name}"), 2, "USAGE");
    group.refused(&format!("proposal execute {name} --out tbs"), 2, "USAGE");
    group.done(&format!("proposal execute {name} --out plain"));
    assert_eq!(std::fs::read(group.path("plain")).unwrap(), b"to be signed");
}

/// Keys that are made on the word of two, and a ciphertext that moves.
fn approved_keys(group: &Group, daemon: &Daemon) {
    let code = |name: &str| group.piped(&format!("key mac {name} --in - --out -"), b"the same key");
    let asked = |line: &str| group.done(line)["name"].as_str().unwrap().to_owned();
    let execute = |name: &str| format!("proposal execute {name}");
    group.write("derive.json", QUORUM.replace("DestroyKeyVersion", "DeriveKey"));
    let base = "key create dev/p-base --algorithm GENERIC_SECRET --mechanism HKDF_SHA256";
    group.done(&format!("{base} --quorum derive.json"));
    let derive = "key derive dev/p-base dev/p-direct --algorithm GENERIC_SECRET --info 01";
    group.refused(derive, 4, "NEEDS_APPROVAL");
    let create = |new: &str| {
        format!(
            "proposal create DeriveKey dev/p-base@1 --new dev/{new} --algorithm GENERIC_SECRET --mechanism HMAC_SHA256 --label for=two --kdf HKDF_SHA256 --salt 00 --info 01"
        )
    };
    group.refused(&create("p-made-1").replace("--new dev/p-made-1 ", ""), 2, "USAGE");
    group.refused(&format!("{} --context 00", create("p-made-1")), 3, "INVALID_ARGUMENT");
    for new in ["p-made-1", "p-made-2"] {
        let name = asked(&create(new));
        let shown = group.done(&format!("proposal show {name}"));
        let key = &shown["arguments"]["key"];
        assert!(key["name"].as_str().unwrap().ends_with(&format!("/keys/{new}")), "{shown}");
        assert_eq!(
            (&key["algorithm"], &key["length_bytes"]),
            (&"GENERIC_SECRET".into(), &32.into())
        );
        assert_eq!(shown["arguments"]["info"], "01");
        group.refused(&execute(&name), 3, "UNAPPROVED");
        approved(group, daemon, &name, &["alice", "bob"]);
        group.refused(&format!("{} --out made", execute(&name)), 2, "USAGE");
        let made = group.done(&execute(&name));
        assert_eq!((&made["origin"], &made["state"]), (&"DERIVED".into(), &"ACTIVE".into()));
        assert_eq!(made["quorum"]["approvers"]["n"], 2, "it inherits the quorum");
        group.refused(&execute(&name), 3, "UNAPPROVED");
    }
    assert_eq!(code("dev/p-made-1"), code("dev/p-made-2"));
    group.refused(&create("p-made-1"), 3, "ALREADY_EXISTS");

    // A wrapping key that is compromised still opens what it has wrapped.
    group.done("key create dev/p-kek --algorithm AES_256 --mechanism AES_KWP --quorum quorum.json");
    group.done_by(Who::Officer, "key trust dev/p-kek");
    group.done("key create dev/p-out --algorithm GENERIC_SECRET --exportable");
    group.done("key wrap dev/p-kek dev/p-out@1 --out p-k.json");
    group.done("key wrap dev/p-kek dev/p-out@1 --raw --out p-k.raw");
    group.done("key compromise dev/p-kek@1");
    let unwrap = "key unwrap dev/p-in --algorithm GENERIC_SECRET --length-bytes 32 --in p-k.json";
    group.refused(unwrap, 4, "NEEDS_APPROVAL");
    for (new, how) in [("p-in", "--in p-k.json"), ("p-in-raw", "--in p-k.raw --by AES_KWP")] {
        let name = asked(&format!(
            "proposal create UnwrapKey dev/p-kek@1 --new dev/{new} --algorithm GENERIC_SECRET --length-bytes 32 {how}"
        ));
        approved(group, daemon, &name, &["alice", "bob"]);
        assert_eq!(group.done(&execute(&name))["origin"], "UNWRAPPED");
        assert_eq!(code(&format!("dev/{new}")), code("dev/p-out"));
        group.refused(&execute(&name), 3, "UNAPPROVED");
    }

    // And a ciphertext leaves a compromised key for another one.
    group.done("key create dev/p-next --algorithm AES_256");
    let name = asked("proposal create ReEncrypt dev/p-old@1 --in tbs.json --to dev/p-next");
    approved(group, daemon, &name, &["alice", "bob"]);
    group.refused(&execute(&name), 2, "USAGE");
    group.done(&format!("{} --out moved.json", execute(&name)));
    assert_eq!(group.piped("key decrypt --in moved.json --out -", b""), b"to be signed");
}
