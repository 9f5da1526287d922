//! Keys out of keys, and ciphertexts that move; what comes out is the same key on both sides.

use kms_tests::Daemon;

use crate::group::{Group, Who};

pub(crate) const COMMANDS: &[&str] = &[
    "key agree",
    "key copy",
    "key data-key",
    "key decapsulate",
    "key derive",
    "key encapsulate",
    "key re-encrypt",
    "key unwrap",
    "key wrap",
];

#[test]
fn keys_out_of_keys() {
    let group = Group::new(Daemon::shared(), COMMANDS);
    wrapping(&group);
    agreements(&group);
    copies(&group);
    data(&group);
    group.finish();
}

/// What a MAC key makes of a few bytes: two keys that make the same are the same.
fn code(group: &Group, name: &str) -> Vec<u8> {
    group.piped(&format!("key mac {name} --in - --out -"), b"the same key")
}

fn wrapping(group: &Group) {
    group.done("key create dev/m-kek --algorithm AES_256 --mechanism AES_KWP --mechanism AES_GCM --usage WRAP --usage UNWRAP");
    group.done("key create dev/m-out --algorithm GENERIC_SECRET --exportable");
    group.done("key create dev/m-stays --algorithm GENERIC_SECRET");
    let wrap = "key wrap dev/m-kek dev/m-out@1 --mechanism AES_KWP --out m.json";
    let told = group.refused(wrap, 3, "NOT_TRUSTED");
    assert!(told.message.contains("kmsctl key trust"), "{told:?}");
    group.done_by(Who::Officer, "key trust dev/m-kek");
    group.done(wrap);
    group.done("key unwrap dev/m-in --algorithm GENERIC_SECRET --length-bytes 32 --in m.json");
    assert_eq!(code(group, "dev/m-in"), code(group, "dev/m-out"));
    group.done("key wrap dev/m-kek dev/m-out@1 --mechanism AES_KWP --raw --out m.raw");
    assert_eq!(group.read("m.raw").len(), 40);
    let raw = "key unwrap dev/m-raw --algorithm GENERIC_SECRET --length-bytes 32 --in m.raw --with dev/m-kek@1 --by AES_KWP";
    group.done(raw);
    assert_eq!(code(group, "dev/m-raw"), code(group, "dev/m-out"));
    group.refused(raw, 3, "ALREADY_EXISTS");
    // With an initialization vector, which the raw bytes would lose.
    group.write("aad", "bound to it");
    group.done("key wrap dev/m-kek dev/m-out@1 --mechanism AES_GCM --aad-file aad --out g.json");
    group.done("key unwrap dev/m-gcm --algorithm GENERIC_SECRET --in g.json --aad-file aad");
    assert_eq!(code(group, "dev/m-gcm"), code(group, "dev/m-out"));
    let lost = "key wrap dev/m-kek dev/m-out@1 --mechanism AES_GCM --raw --out lost";
    let told = group.refused(lost, 2, "USAGE");
    assert!(told.message.contains("initialization vector"), "{told:?}");
    group.refused(
        "key unwrap dev/m-bad --algorithm GENERIC_SECRET --in g.json",
        3,
        "CIPHERTEXT_REFUSED",
    );
    group.refused("key unwrap dev/m-bad --algorithm AES_128 --in m.json", 3, "INVALID_ARGUMENT");
    group.refused("key unwrap dev/m-bad --algorithm AES_256 --in aad", 2, "USAGE");
    group.refused(
        "key wrap dev/m-kek dev/m-stays@1 --mechanism AES_KWP --out n",
        3,
        "NOT_EXPORTABLE",
    );
    group.refused("key wrap dev/m-kek dev/m-none@1 --mechanism AES_KWP --out n", 3, "NOT_FOUND");
    group.refused_by(Who::Officer, wrap, 3, "ROLE_MISSING");
    assert!(!group.path("n").exists());
}

fn agreements(group: &Group) {
    group.done("key create dev/m-base --algorithm GENERIC_SECRET --mechanism HKDF_SHA256");
    let derive = |name: &str, info: &str| {
        let line = format!(
            "key derive dev/m-base dev/{name} --algorithm GENERIC_SECRET --salt 00 --info {info}"
        );
        assert_eq!(group.done(&line)["origin"], "DERIVED");
        code(group, &format!("dev/{name}"))
    };
    let one = derive("m-derived-1", "01");
    assert_eq!(one, derive("m-derived-2", "01"));
    assert_ne!(one, derive("m-derived-3", "02"));
    group.refused("key derive dev/m-base dev/m-derived-1 --algorithm AES_256", 3, "ALREADY_EXISTS");
    group.refused("key derive dev/m-none dev/m-x --algorithm AES_256", 3, "NOT_FOUND");
    group.refused("key derive dev/m-base dev/m-x --algorithm EC_P256", 3, "INVALID_ARGUMENT");

    for side in ["a", "b"] {
        group.done(&format!("key create dev/m-dh-{side} --algorithm X25519"));
        group.done(&format!("key public dev/m-dh-{side} --out {side}.pem"));
    }
    for (own, peer) in [("a", "b"), ("b", "a")] {
        let line = format!(
            "key agree dev/m-dh-{own} dev/m-agreed-{own} --algorithm GENERIC_SECRET --peer {peer}.pem --kdf HKDF_SHA256 --info 00"
        );
        group.done(&line);
    }
    assert_eq!(code(group, "dev/m-agreed-a"), code(group, "dev/m-agreed-b"));
    // openssl as the other side: without a KDF the shared secret itself is the key.
    group.openssl("genpkey -algorithm X25519 -out peer.key");
    group.openssl("pkey -in peer.key -pubout -out peer.pem");
    group.done("key agree dev/m-dh-a dev/m-agreed-c --algorithm GENERIC_SECRET --peer peer.pem");
    group.openssl("pkeyutl -derive -inkey peer.key -peerkey a.pem -out shared");
    group.write("data", "the same key");
    let shared = hex::encode(group.read("shared"));
    group.openssl(&format!("dgst -sha256 -mac HMAC -macopt hexkey:{shared} -binary -out tag data"));
    assert_eq!(code(group, "dev/m-agreed-c"), group.read("tag"));
    group.openssl("ecparam -name prime256v1 -genkey -noout -out other.key");
    group.openssl("pkey -in other.key -pubout -out other.pem");
    let other =
        "key agree dev/m-dh-a dev/m-x --algorithm AES_256 --peer other.pem --kdf HKDF_SHA256";
    group.refused(other, 3, "INVALID_ARGUMENT");
    group.refused(
        "key agree dev/m-dh-a dev/m-x --algorithm AES_256 --peer data",
        3,
        "INVALID_ARGUMENT",
    );

    for algorithm in ["ML_KEM_768", "ML_KEM_1024", "X_WING"] {
        let name = algorithm.to_lowercase().replace('_', "-");
        group.done(&format!("key create dev/m-{name} --algorithm {algorithm}"));
        let made = format!("dev/m-{name}-mine --algorithm GENERIC_SECRET --out {name}.ct");
        group.done(&format!("key encapsulate dev/m-{name} {made}"));
        let told = format!("dev/m-{name}-theirs --algorithm GENERIC_SECRET --in {name}.ct");
        group.done(&format!("key decapsulate dev/m-{name}@1 {told}"));
        let [mine, theirs] = ["mine", "theirs"].map(|side| format!("dev/m-{name}-{side}"));
        assert_eq!(code(group, &mine), code(group, &theirs), "{algorithm}");
    }
    group.write("short", [0; 7]);
    let short = "key decapsulate dev/m-x-wing@1 dev/m-x --algorithm AES_256 --in short";
    group.refused(short, 3, "CIPHERTEXT_REFUSED");
    group.refused(
        "key encapsulate dev/m-base dev/m-x --algorithm AES_256 --out x.ct",
        3,
        "USAGE_REFUSED",
    );
    assert!(!group.path("x.ct").exists());
}

fn copies(group: &Group) {
    let copy = "key copy dev/m-out@1 dev/m-copy --usage MAC_SIGN --label a=b";
    let made = group.done(copy);
    assert_eq!(
        (&made["origin"], &made["usages"]),
        (&"COPIED".into(), &serde_json::json!(["MAC_SIGN"]))
    );
    assert_eq!(code(group, "dev/m-copy"), code(group, "dev/m-out"));
    group.refused(copy, 3, "ALREADY_EXISTS");
    group.refused("key copy dev/m-stays@1 dev/m-x --usage SIGN", 3, "INVALID_ARGUMENT");
    group.refused_by(Who::Officer, "key copy dev/m-out@1 dev/m-x", 3, "ROLE_MISSING");
}

fn data(group: &Group) {
    let secret = "canary-moved-77c0de";
    group.never_told(secret);
    group.write("secret", secret);
    for name in ["m-from", "m-to"] {
        group.done(&format!("key create dev/{name} --algorithm AES_256"));
    }
    group.done("key encrypt dev/m-from --in secret --out from.json");
    group.done("key re-encrypt --in from.json --to dev/m-to --new-aad-file aad --out to.json");
    assert!(group.text("to.json").contains("/keys/m-to/versions/1"));
    assert_eq!(
        group.piped("key decrypt --in to.json --aad-file aad --out -", b""),
        secret.as_bytes()
    );
    group.refused("key re-encrypt --in from.json --to dev/m-none --out n.json", 3, "NOT_FOUND");
    let wrong = "key re-encrypt --in from.json --aad-file aad --to dev/m-to --out n.json";
    group.refused(wrong, 3, "CIPHERTEXT_REFUSED");
    group.refused("key re-encrypt --in secret --to dev/m-to --out n.json", 2, "USAGE");
    assert!(!group.path("n.json").exists());

    group.done(
        "key data-key dev/m-to --bytes 48 --aad-file aad --out data.json --out-plaintext data.key",
    );
    let key = group.read("data.key");
    assert_eq!(key.len(), 48);
    group.never_told(&key);
    assert_eq!(group.piped("key decrypt --in data.json --aad-file aad --out -", b""), key);
    let piped = group.piped("key data-key dev/m-to --out data2.json --out-plaintext -", b"");
    assert_eq!(group.piped("key decrypt --in data2.json --out -", b""), piped);
    group.done("key data-key dev/m-to --out data3.json");
    let told =
        group.refused("key data-key dev/m-to --out d.json --out-plaintext data.key", 2, "USAGE");
    assert!(told.message.contains("data.key"), "{told:?}");
    group.refused("key data-key dev/m-to --bytes 65 --out d.json", 2, "USAGE");
    group.refused("key data-key dev/m-base --out d.json", 3, "USAGE_REFUSED");
    assert!(!group.path("d.json").exists());
}
