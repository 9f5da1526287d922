//! What keys are and what happens to them: descriptions, versions, dates, the end.

use kms_tests::Daemon;

use crate::group::{Group, Who};

pub(crate) const DESCRIPTIONS: &[&str] = &[
    "key algorithms",
    "key create",
    "key delete",
    "key history",
    "key list",
    "key public",
    "key rotate",
    "key show",
    "key trust",
    "key untrust",
    "key update",
    "key versions",
];

pub(crate) const LIFE: &[&str] = &[
    "key activate",
    "key compromise",
    "key deactivate",
    "key destroy",
    "key disable",
    "key enable",
    "key restore",
    "key resume",
    "key schedule-destroy",
    "key set-certificate",
    "key set-dates",
    "key suspend",
    "key undo",
];

#[test]
fn descriptions_of_keys() {
    let group = Group::new(Daemon::shared(), DESCRIPTIONS);
    let listed = group.done("key algorithms AES_256");
    assert_eq!(listed["algorithms"][0]["preferred"], true);
    let told = group.refused("key algorithms ROT13", 2, "USAGE");
    assert!(told.message.contains("AES_256"), "{told:?}");
    create(&group);
    list_and_update(&group);
    rotate_and_delete(&group);
    group.finish();
}

fn create(group: &Group) {
    let full = "key create dev/d-full --algorithm EC_P256 --mechanism ECDSA_SHA384 --usage SIGN \
                --usage VERIFY --exportable --label env=prod --label team=web --model llama \
                --dataset d1 --rotate-every 90d --rotate-after-uses 1000 \
                --deactivate-at 2099-01-01T00:00:00Z";
    let made = group.done(full);
    assert_eq!(made["labels"]["env"], "prod");
    assert_eq!(made["rotation"]["uses_max"], 1000);
    assert_eq!((&made["model"], &made["exportable"]), (&"llama".into(), &true.into()));
    let shown = group.done("key show dev/d-full");
    assert_eq!(shown["mechanisms"][0], "ECDSA_SHA384");
    group.done("key create dev/d-mac --algorithm GENERIC_SECRET --length-bytes 64");
    let waiting = group.done("key create dev/d-later --algorithm AES_256 --pre-active");
    assert_eq!(waiting["state"], "PRE_ACTIVE");
    group.write("release.json", r#"{"kinds": ["snp"], "policy_file": "release.rego"}"#);
    let gated = "key create dev/d-gated --algorithm AES_256 --usage RELEASE \
                 --release-requirement release.json";
    let told = group.refused(gated, 2, "USAGE");
    assert!(told.message.contains("release.rego"), "{told:?}");
    group.write("release.rego", "package policy\n\ndefault allow := false\n");
    assert_eq!(group.done(gated)["release_requirement"]["kinds"][0], "snp");
    group.write("release.rego", "package policy\n\nallow if {\n");
    let broken = gated.replace("d-gated", "d-broken");
    group.refused(&broken, 3, "INVALID_ARGUMENT");

    group.refused("key create dev/d-full --algorithm EC_P256", 3, "ALREADY_EXISTS");
    group.refused("key create none/k --algorithm EC_P256", 3, "NOT_FOUND");
    let told = group.refused("key create dev/d-x --algorithm ROT13", 2, "USAGE");
    assert!(told.message.contains("ROT13"), "{told:?}");
    let unfit = "key create dev/d-x --algorithm EC_P256 --mechanism AES_GCM";
    group.refused(unfit, 3, "INVALID_ARGUMENT");
    group.refused_by(Who::Officer, "key create dev/d-x --algorithm EC_P256", 3, "ROLE_MISSING");
    group.refused_by(Who::Stranger, "key create dev/d-x --algorithm EC_P256", 3, "NOT_FOUND");
    group.refused("key create dev/d-x --algorithm EC_P256 --rotate-every 1w", 2, "USAGE");

    let pem = String::from_utf8(group.piped("key public dev/d-full", b"")).unwrap();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"), "{pem}");
    group.done("key public dev/d-full@1 --out d.pem");
    assert_eq!(group.text("d.pem"), pem);
    assert!(group.openssl("pkey -pubin -in d.pem -noout -text").contains("P-256"));
    group.refused("key public dev/d-mac", 3, "USAGE_REFUSED");
    group.refused("key public dev/d-full --out none/d.pem", 2, "USAGE");
    group.refused("key show dev/none", 3, "NOT_FOUND");
}

fn list_and_update(group: &Group) {
    let filter = "key list dev --filter 'labels.env = \"prod\" AND algorithm = EC_P256'";
    let listed = group.done(filter);
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
    let told = group.refused("key list dev --filter 'colour = blue'", 3, "INVALID_ARGUMENT");
    assert!(told.message.contains("filter"), "{told:?}");
    group.refused("key list none", 3, "NOT_FOUND");
    let update = "key update dev/d-full --label env=test --remove-label team --pkcs11-label sig \
                  --pkcs11-id 0aff --usage VERIFY --not-exportable --no-rotation";
    let changed = group.done(update);
    assert_eq!(changed["labels"], serde_json::json!({ "env": "test" }));
    assert_eq!((&changed["pkcs11_label"], &changed["pkcs11_id"]), (&"sig".into(), &"0aff".into()));
    assert_eq!(changed["usages"], serde_json::json!(["VERIFY"]));
    assert!(changed["rotation"].is_null() && changed["exportable"] == false);
    group.refused("key update dev/d-full --usage SIGN", 3, "ONLY_TIGHTENS");
    group.refused("key update dev/d-full --remove-label team", 2, "USAGE");
    let told = group.refused("key update dev/d-full", 2, "USAGE");
    assert!(told.message.contains("nothing to change"), "{told:?}");
    group.refused("key update dev/none --label a=b", 3, "NOT_FOUND");
    group.refused_by(Who::Officer, "key update dev/d-full --label a=b", 3, "ROLE_MISSING");

    group.done("key create dev/d-kek --algorithm AES_256 --mechanism AES_KWP");
    group.refused("key trust dev/d-kek", 3, "ROLE_MISSING");
    assert_eq!(group.done_by(Who::Officer, "key trust dev/d-kek")["trusted"], true);
    assert_eq!(group.done_by(Who::Officer, "key untrust dev/d-kek")["trusted"], false);
    group.refused("key untrust dev/none", 3, "NOT_FOUND");
}

fn rotate_and_delete(group: &Group) {
    group.done("key create dev/d-old --algorithm AES_128");
    let second = group.done("key rotate dev/d-old");
    assert!(second["name"].as_str().unwrap().ends_with("/versions/2"), "{second}");
    let third = group.done("key rotate dev/d-old --activate-at 2099-01-01T00:00:00Z");
    assert_eq!(third["state"], "PRE_ACTIVE");
    assert_eq!(group.done("key show dev/d-old")["primary_version"], 2);
    let floors = "key update dev/d-old --protect-floor 2 --process-floor 1 --primary 2";
    assert_eq!(group.done(floors)["protect_floor"], 2);
    group.refused("key update dev/d-old --protect-floor 1", 3, "ONLY_TIGHTENS");
    let versions = group.done("key versions dev/d-old");
    assert_eq!(versions["versions"].as_array().unwrap().len(), 3);
    group.refused("key versions dev/none", 3, "NOT_FOUND");
    group.refused("key rotate dev/none", 3, "NOT_FOUND");
    group.refused_by(Who::Officer, "key rotate dev/d-old", 3, "ROLE_MISSING");

    let told = group.refused("key delete dev/d-later", 3, "LIVE_VERSION");
    assert!(told.message.contains("kmsctl key destroy"), "{told:?}");
    let etag = group.done("key show dev/d-later")["etag"].as_str().unwrap().to_owned();
    group.refused("key delete dev/d-later --etag 00", 3, "STALE");
    group.done("key destroy dev/d-later@1");
    group.done(&format!("key delete dev/d-later --etag {etag}"));
    group.refused("key show dev/d-later", 3, "NOT_FOUND");
    let there = |all: &str| {
        let listed = group.done(&format!("key list dev --filter 'name = d-later' {all}"));
        listed["keys"].as_array().unwrap().len()
    };
    assert_eq!((there(""), there("--show-deleted")), (0, 1));
    group.refused("key create dev/d-later --algorithm AES_256", 3, "ALREADY_EXISTS");

    let events = group.done("key history dev/d-old");
    let events = events["events"].as_array().unwrap();
    assert!(events.len() >= 3 && events.last().unwrap()["action"] == "CreateKey", "{events:?}");
    group.refused("key history dev/none", 3, "NOT_FOUND");
}

#[test]
fn the_life_of_a_version() {
    let group = Group::new(Daemon::shared(), LIFE);
    let state = |line: &str| group.done(line)["state"].as_str().unwrap().to_owned();
    group.done("key create dev/l-k --algorithm EC_P256 --pre-active");
    group.refused("key suspend dev/l-k@1", 3, "ILLEGAL_TRANSITION");
    let dated = group.done("key set-dates dev/l-k@1 --activate-at 2098-01-01T00:00:00Z");
    assert_eq!(dated["activate_time"], "2098-01-01T00:00:00Z");
    group.done("key set-dates dev/l-k@1 --clear");
    let told = group.refused("key set-dates dev/l-k@1", 2, "USAGE");
    assert!(told.message.contains("--clear"), "{told:?}");
    group.refused("key set-dates dev/l-k@1 --activate-at yesterday", 2, "USAGE");
    assert_eq!(state("key activate dev/l-k@1"), "ACTIVE");
    group.refused("key activate dev/l-k@1", 3, "ILLEGAL_TRANSITION");
    group.refused("key activate dev/l-k", 3, "INVALID_ARGUMENT");
    assert_eq!(state("key suspend dev/l-k@1"), "SUSPENDED");
    assert_eq!(state("key resume dev/l-k@1"), "ACTIVE");
    group.refused("key resume dev/l-k@1", 3, "ILLEGAL_TRANSITION");
    assert_eq!(group.done("key disable dev/l-k@1")["enabled"], false);
    assert_eq!(group.done("key enable dev/l-k@1")["enabled"], true);
    group.refused("key disable dev/l-k@9", 3, "NOT_FOUND");
    group.refused("key enable dev/l-k@1 --etag 00", 3, "STALE");

    certificates(&group);

    assert_eq!(state("key deactivate dev/l-k@1"), "DEACTIVATED");
    group.refused("key deactivate dev/l-k@1", 3, "ILLEGAL_TRANSITION");
    assert_eq!(state("key undo dev/l-k@1"), "ACTIVE");
    group.refused("key undo dev/l-k@1", 3, "NOTHING_TO_UNDO");
    group.refused("key destroy dev/l-k@1", 3, "ILLEGAL_TRANSITION");
    group.done("key deactivate dev/l-k@1");
    assert_eq!(state("key schedule-destroy dev/l-k@1 --in 30d"), "DESTROY_SCHEDULED");
    assert_eq!(state("key restore dev/l-k@1"), "DEACTIVATED");
    group.refused("key restore dev/l-k@1", 3, "ILLEGAL_TRANSITION");
    let told = group.refused("key schedule-destroy dev/l-k@1 --in 5m", 3, "INVALID_ARGUMENT");
    assert!(told.message.contains("destroy_time"), "{told:?}");
    let versions = group.done("key versions dev/l-k");
    let made = versions["versions"][0]["create_time"].as_str().unwrap().to_owned();
    let compromise =
        |since: &str| format!("key compromise dev/l-k@1 --reason KEY_COMPROMISE --since {since}");
    group.refused(&compromise("2020-01-01T00:00:00Z"), 3, "INVALID_ARGUMENT");
    assert_eq!(group.done(&compromise(&made))["compromise"]["reason"], "KEY_COMPROMISE");
    group.refused("key compromise dev/l-k@1 --reason BOREDOM", 2, "USAGE");
    assert_eq!(state("key destroy dev/l-k@1"), "DESTROYED");
    // For whoever has another role, and for whoever has none.
    group.refused_by(Who::Officer, "key destroy dev/l-k@1", 3, "ROLE_MISSING");
    group.refused_by(Who::Stranger, "key destroy dev/l-k@1", 3, "NOT_FOUND");
    group.finish();
}

/// A certificate is taken for the version's own public key and for no other.
fn certificates(group: &Group) {
    group.done("key public dev/l-k --out l.pem");
    group.openssl("ecparam -name prime256v1 -genkey -noout -out ca.key");
    group.openssl("req -x509 -new -key ca.key -subj /CN=ca -days 2 -out ca.crt");
    group.openssl("req -new -key ca.key -subj /CN=l -out l.csr");
    let sign =
        "x509 -req -in l.csr -CA ca.crt -CAkey ca.key -days 1 -force_pubkey l.pem -out l.crt";
    group.openssl(sign);
    let set = group.done("key set-certificate dev/l-k@1 --in l.crt");
    assert!(set["certificate"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    group.refused("key set-certificate dev/l-k@1 --in ca.crt", 3, "INVALID_ARGUMENT");
    let told = group.refused("key set-certificate dev/l-k@1 --in l.pem", 2, "USAGE");
    assert!(told.message.contains("CERTIFICATE"), "{told:?}");
    let gone = group.done("key set-certificate dev/l-k@1 --remove");
    assert!(gone["certificate"].is_null());
}
