//! Rings, their policies and PINs, and who may do what.

use kms_tests::Daemon;

use crate::group::{Group, Who};

pub(crate) const COMMANDS: &[&str] = &[
    "keyring create",
    "keyring list",
    "keyring policy set",
    "keyring policy show",
    "keyring show",
    "random",
    "token list",
    "token set-pin",
    "user add-credential",
    "user bindings",
    "user create",
    "user delete",
    "user disable",
    "user enable",
    "user grant",
    "user list",
    "user revoke-credential",
    "user show",
    "user ungrant",
    "whoami",
];

#[test]
fn rings_policies_pins_and_people() {
    let daemon = Daemon::shared();
    let group = Group::new(daemon, COMMANDS);
    rings(&group);
    policies(&group);
    tokens(&group);
    users(&group);
    random(&group);
    group.finish();
}

fn rings(group: &Group) {
    let made = group.done_by(Who::Officer, "keyring create ctl-hard");
    assert_eq!(made["policy"]["kind"], "HARDENED");
    let made = group.done_by(Who::Officer, "keyring create ctl-soft --compatible");
    assert_eq!(made["policy"]["kind"], "COMPATIBLE");
    group.write(
        "quorum.json",
        r#"{"guards": ["DestroyKeyVersion"],
            "approvers": {"n": 2, "members": ["users/alice", "users/bob", "users/carol"]}}"#,
    );
    group.write("policy.json", r#"{"algorithms": ["AES_256"], "required_labels": ["owner"]}"#);
    let both = "keyring create ctl-quorum --quorum quorum.json --policy policy.json";
    let made = group.done_by(Who::Officer, both);
    assert_eq!(made["quorum"]["approvers"]["n"], 2);
    assert_eq!(made["policy"]["required_labels"][0], "owner");
    let shown = group.done("keyring show ctl-quorum");
    assert_eq!(shown["quorum"], made["quorum"]);
    let listed = group.done("keyring list");
    let names = listed["key_rings"].as_array().unwrap().iter();
    assert!(names.filter(|ring| ring["name"].as_str().unwrap().contains("ctl-")).count() >= 3);

    let taken = group.refused_by(Who::Officer, "keyring create ctl-hard", 3, "ALREADY_EXISTS");
    assert!(taken.next_step.contains("never reused"), "{taken:?}");
    let alone = group.refused("keyring create ctl-alone", 3, "ROLE_MISSING");
    assert!(alone.message.contains("security-officer"), "{alone:?}");
    assert!(alone.next_step.contains("kmsctl whoami"), "{alone:?}");
    group.refused_by(Who::Officer, "keyring create UPPER", 3, "INVALID_ARGUMENT");
    group.refused_by(Who::Officer, "keyring create r --quorum none.json", 2, "USAGE");
    group.write("typo.json", r#"{"guards": ["Destroy"], "approvers": {"n": 1, "members": []}}"#);
    let typo = group.refused_by(Who::Officer, "keyring create r --quorum typo.json", 2, "USAGE");
    assert!(typo.message.contains("typo.json"), "{typo:?}");
    let hidden = group.refused("keyring show no-such-ring", 3, "NOT_FOUND");
    assert!(hidden.next_step.contains("check the name"), "{hidden:?}");
    group.refused_by(Who::Stranger, "keyring show ctl-hard", 3, "NOT_FOUND");
    group.refused("keyring list surplus", 2, "USAGE");
    // A stranger has no rings, and is told so without a refusal.
    let none = group.done_by(Who::Stranger, "keyring list");
    assert_eq!(none["key_rings"].as_array().unwrap().len(), 0);
}

fn policies(group: &Group) {
    let shown = group.done("keyring policy show ctl-hard");
    assert_eq!(shown["kind"], "HARDENED");
    let set = "keyring policy set ctl-hard --compatible";
    group.refused(set, 3, "ROLE_MISSING");
    assert_eq!(group.done_by(Who::Officer, set)["policy"]["kind"], "COMPATIBLE");
    // The rest stays as it is, and back.
    group.done_by(Who::Officer, "keyring policy set ctl-hard --file policy.json --compatible");
    let back = group.done_by(Who::Officer, "keyring policy set ctl-hard --hardened");
    assert_eq!(back["policy"]["kind"], "HARDENED");
    assert_eq!(back["policy"]["algorithms"][0], "AES_256");
    let told = group.refused("keyring policy set ctl-hard", 2, "USAGE");
    assert!(told.message.contains("--file"), "{told:?}");
    group.write("extra.json", r#"{"colour": "blue"}"#);
    let bad = "keyring policy set ctl-hard --file extra.json";
    let told = group.refused_by(Who::Officer, bad, 2, "USAGE");
    assert!(told.message.contains("colour"), "{told:?}");
    group.refused("keyring policy show no-such-ring", 3, "NOT_FOUND");
}

fn tokens(group: &Group) {
    group.never_told("canary-user-pin");
    group.write("pin", "canary-user-pin\n");
    let set = "token set-pin ctl-hard --role user --pin-file pin";
    let has_pin = || {
        let listed = group.done("token list");
        let mut tokens = listed["tokens"].as_array().unwrap().iter();
        tokens.find(|token| token["label"] == "ctl-hard").unwrap()["user_pin_set"] == true
    };
    assert!(!has_pin());
    assert_eq!(group.done_by(Who::Officer, set)["pin_set"], true);
    assert!(has_pin());
    group.refused(set, 3, "ROLE_MISSING");
    let unset = "token set-pin ctl-hard --role user";
    let told = group.refused_by(Who::Officer, unset, 2, "USAGE");
    assert!(told.message.contains("--pin-file"), "{told:?}");
    group.write("short", "1234567");
    let short = "token set-pin ctl-hard --role security-officer --pin-file short";
    let told = group.refused_by(Who::Officer, short, 2, "USAGE");
    assert!(told.message.contains("8 to 255"), "{told:?}");
    group.refused_by(Who::Officer, "token set-pin none --role user --pin-file pin", 3, "NOT_FOUND");
    group.refused("token list surplus", 2, "USAGE");
}

fn users(group: &Group) {
    group.tool("ssh-keygen", "-q -t ed25519 -N '' -C dave@laptop -f dave");
    let create = "user create users/ctl-dave --ssh-key-file dave.pub --unix-uid 54321";
    group.refused(create, 3, "ROLE_MISSING");
    let made = group.done_by(Who::Officer, create);
    assert_eq!(made["unix_uids"][0], 54321);
    group.refused_by(Who::Officer, create, 3, "ALREADY_EXISTS");
    let private = "user create users/ctl-eve --ssh-key-file dave";
    let told = group.refused_by(Who::Officer, private, 2, "USAGE");
    assert!(told.message.starts_with("dave:"), "{told:?}");
    group.refused_by(Who::Officer, "user create users/ctl-eve --certificate dave", 2, "USAGE");
    group.refused_by(Who::Officer, "user create eve", 3, "INVALID_ARGUMENT");
    let grant = "user grant users/ctl-dave --role key-manager --ring ctl-hard";
    group.refused(grant, 3, "ROLE_MISSING");
    let granted = group.done_by(Who::Officer, grant);
    assert!(granted["grants"][0].as_str().unwrap().starts_with("key-manager@"), "{granted}");
    let told = group.refused_by(Who::Officer, "user grant users/x --role king", 2, "USAGE");
    assert!(told.message.contains("key-manager"), "{told:?}");
    let nobody = "user grant users/ctl-nobody --role auditor";
    group.refused_by(Who::Officer, nobody, 3, "NOT_FOUND");
    let listed = group.done("user list");
    let named = |user: &serde_json::Value| user["name"] == "users/ctl-dave";
    assert!(listed["users"].as_array().unwrap().iter().any(named));
    group.refused_by(Who::Stranger, "user list", 3, "NOT_FOUND");
    enrolment(group);

    assert_eq!(group.done("whoami")["principal"], "users/developer");
    assert_eq!(group.done_by(Who::Officer, "whoami")["authentication"], "mutual-tls");
    let stranger = group.done_by(Who::Stranger, "whoami");
    assert_eq!(stranger["grants"].as_array().unwrap().len(), 0);
    let told = group.refused("whoami --addr unix:/no/such/socket", 5, "UNAVAILABLE");
    assert!(told.next_step.contains("KMS_ADDR"), "{told:?}");
    let told = group.refused("whoami --addr ftp://host", 2, "USAGE");
    assert!(told.message.contains("unix:/path"), "{told:?}");
}

/// What becomes of somebody who is enrolled.
fn enrolment(group: &Group) {
    let bound = group.done("user bindings users/ctl-dave");
    assert_eq!(bound["bindings"][0]["role"], "key-manager");
    let ring = "key-manager --ring ctl-hard";
    let over = |name: &str| {
        let listed = group.done(&format!("user bindings --over {name}"));
        let mut bindings = listed["bindings"].as_array().unwrap().iter();
        bindings.any(|binding| binding["principal"] == "users/ctl-dave")
    };
    assert!(over("ctl-hard") && !over("ctl-soft"));
    group.refused_by(Who::Stranger, "user bindings", 3, "NOT_FOUND");
    let taken = format!("user ungrant users/ctl-dave --role {ring}");
    group.refused(&taken, 3, "ROLE_MISSING");
    let left = group.done_by(Who::Officer, &taken);
    assert_eq!(left["grants"].as_array().unwrap().len(), 0);
    group.refused_by(Who::Officer, &taken, 3, "NOT_FOUND");
    let ending = "user grant users/ctl-dave --role auditor --expires 2999-01-01T00:00:00Z";
    let granted = group.done_by(Who::Officer, ending);
    assert_eq!(granted["grants"][0], "auditor until 2999-01-01T00:00:00Z");
    let past = "user grant users/ctl-dave --role auditor --expires 2001-01-01T00:00:00Z";
    group.refused_by(Who::Officer, past, 3, "INVALID_ARGUMENT");

    let add = "user add-credential users/ctl-dave --unix-uid 54322";
    group.refused(add, 3, "ROLE_MISSING");
    let added = group.done_by(Who::Officer, add);
    assert_eq!(added["unix_uids"][1], 54322);
    group.refused_by(Who::Officer, "user add-credential users/ctl-dave", 2, "USAGE");
    let credential = added["credentials"][2]["name"].as_str().unwrap().to_owned();
    let revoke = format!("user revoke-credential {credential} --reason KEY_COMPROMISE");
    group.refused(&revoke, 3, "ROLE_MISSING");
    let revoked = group.done_by(Who::Officer, &revoke);
    assert_eq!(revoked["credentials"][2]["revoke_reason"], "KEY_COMPROMISE");
    assert_eq!(revoked["unix_uids"].as_array().unwrap().len(), 1);
    group.refused_by(Who::Officer, add, 3, "CREDENTIAL_REVOKED");

    let state = |command: &str| {
        let command = format!("user {command} users/ctl-dave");
        group.refused(&command, 3, "ROLE_MISSING");
        group.done_by(Who::Officer, &command)["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state("disable"), "DISABLED");
    assert_eq!(state("enable"), "ACTIVE");
    let told = group.refused_by(Who::Officer, "user enable users/officer", 3, "INVALID_ARGUMENT");
    assert!(told.message.contains("another security officer"), "{told:?}");
    assert_eq!(state("delete"), "DELETED");
    assert_eq!(group.done("user show users/ctl-dave")["state"], "DELETED");
    group.refused_by(Who::Officer, "user disable users/ctl-dave", 3, "NOT_FOUND");
    group.refused_by(Who::Officer, "user delete users/ctl-dave", 3, "NOT_FOUND");
    group.refused_by(Who::Stranger, "user show users/ctl-dave", 3, "NOT_FOUND");
}

fn random(group: &Group) {
    let piped = group.piped("random dev --bytes 48 --out -", b"");
    assert_eq!(piped.len(), 48);
    assert_ne!(piped, group.piped("random dev --bytes 48 --out -", b""));
    group.done("random dev --bytes 16 --out r.bin");
    assert_eq!(group.read("r.bin").len(), 16);
    let told = group.refused("random dev --bytes 16 --out r.bin", 2, "USAGE");
    assert!(told.message.contains("r.bin"), "{told:?}");
    group.refused("random dev --bytes 5000 --out -", 2, "USAGE");
    group.refused_by(Who::Officer, "random dev --bytes 16 --out -", 3, "ROLE_MISSING");
}
