//! Keys in use: signatures, ciphertexts, codes and digests, whole and over streams, with openssl as the other
//! side.

use kms_tests::Daemon;
use serde_json::Value;

use crate::group::{Group, Who};

pub(crate) const COMMANDS: &[&str] = &[
    "key csr",
    "key decrypt",
    "key digest",
    "key encrypt",
    "key mac",
    "key mac-verify",
    "key sign",
    "key statement",
    "key verify",
    "key verify-statement",
];

/// More than a message of 4 MiB holds.
const LARGE_BYTES: usize = (5 << 20) + 17;

#[test]
fn keys_in_use() {
    let group = Group::new(Daemon::shared(), COMMANDS);
    let large: Vec<u8> = (0..LARGE_BYTES).map(|n| (n * 31 % 251) as u8).collect();
    group.write("large", &large);
    group.write("letter.txt", "Dear Alice\n");
    group.done("key create dev/u-ec --algorithm EC_P256");
    group.done("key create dev/u-rsa --algorithm RSA_2048 --mechanism RSA_PKCS1_SHA256 --mechanism RSA_PSS_SHA384");
    group.done("key create dev/u-ed --algorithm ED25519");
    group.done(
        "key create dev/u-aes --algorithm AES_256 --mechanism AES_GCM --mechanism AES_CBC_PAD",
    );
    group.done("key create dev/u-mac --algorithm GENERIC_SECRET");
    signatures(&group, &large);
    ciphertexts(&group, &large);
    codes_and_digests(&group, &large);
    requests(&group);
    statements(&group);
    group.finish();
}

fn signatures(group: &Group, large: &[u8]) {
    group.done("key sign dev/u-ec --message-file letter.txt --out letter.sig");
    assert_eq!(verdict(group, "dev/u-ec", "letter.txt", "letter.sig"), true);
    group.done("key public dev/u-ec --out ec.pem");
    let said = group.openssl("dgst -sha256 -verify ec.pem -signature letter.sig letter.txt");
    assert!(said.contains("Verified OK"), "{said}");
    // By the digest, in digits.
    let digest = group.openssl("dgst -sha256 -r letter.txt");
    group.write("letter.digest", digest.split(' ').next().unwrap());
    group.done("key sign dev/u-ec --digest-file letter.digest --out digest.sig");
    assert_eq!(verdict(group, "dev/u-ec", "letter.txt", "digest.sig"), true);
    group.write("other.txt", "Dear Bob\n");
    let no = "key verify dev/u-ec --message-file other.txt --signature letter.sig";
    assert_eq!(group.says_no(no)["valid"], false);

    // Over a stream, from a pipe and to a pipe.
    group.done("key public dev/u-rsa --out rsa.pem");
    for (name, mechanism, options) in [
        ("dev/u-ec", "", "-sha256 -verify ec.pem"),
        ("dev/u-rsa", "--mechanism RSA_PKCS1_SHA256", "-sha256 -verify rsa.pem"),
        (
            "dev/u-rsa",
            "--mechanism RSA_PSS_SHA384",
            "-sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:48 -verify rsa.pem",
        ),
    ] {
        let line = format!("key sign {name} {mechanism} --message-file - --out -");
        group.write("large.sig", group.piped(&line, large));
        let said = group.openssl(&format!("dgst {options} -signature large.sig large"));
        assert!(said.contains("Verified OK"), "{said}");
        let line =
            format!("key verify {name} {mechanism} --message-file large --signature large.sig");
        assert_eq!(group.done(&line)["valid"], true);
        let line = format!(
            "key verify {name} {mechanism} --message-file letter.txt --signature large.sig"
        );
        assert_eq!(group.says_no(&line)["valid"], false);
    }
    let whole = "key sign dev/u-ed --message-file large --out ed.sig";
    let told = group.refused(whole, 3, "INVALID_ARGUMENT");
    assert!(told.message.contains("hash function"), "{told:?}");

    group.refused("key sign dev/u-none --message-file letter.txt --out s", 3, "NOT_FOUND");
    let officer = "key sign dev/u-ec --message-file letter.txt --out s";
    let told = group.refused_by(Who::Officer, officer, 3, "ROLE_MISSING");
    assert!(told.message.contains("crypto-user"), "{told:?}");
    group.refused_by(Who::Stranger, officer, 3, "NOT_FOUND");
    group.refused("key sign dev/u-aes --message-file letter.txt --out s", 3, "USAGE_REFUSED");
    let other = "key sign dev/u-ec --mechanism ECDSA_SHA512 --message-file letter.txt --out s";
    group.refused(other, 3, "MECHANISM_REFUSED");
    group.refused("key sign dev/u-ec --message-file no-such --out s", 2, "USAGE");
    let told = group.refused("key sign dev/u-ec --digest-file letter.txt --out s", 2, "USAGE");
    assert!(told.message.contains("20 to 64 bytes"), "{told:?}");
    assert!(!group.path("s").exists(), "a refusal leaves no file");
}

fn verdict(group: &Group, name: &str, message: &str, signature: &str) -> Value {
    let line = format!("key verify {name} --message-file {message} --signature {signature}");
    group.done(&line)["valid"].clone()
}

fn ciphertexts(group: &Group, large: &[u8]) {
    let secret = "canary-plaintext-5b1d0c";
    group.never_told(secret);
    group.write("secret.txt", secret);
    group.write("aad", "bound to it");
    group.done("key encrypt dev/u-aes --in secret.txt --aad-file aad --out secret.json");
    let opened = group.piped("key decrypt --in secret.json --aad-file aad --out -", b"");
    assert_eq!(opened, secret.as_bytes());
    group.done("key decrypt --in secret.json --aad-file aad --out opened.txt");
    assert_eq!(group.text("opened.txt"), secret);
    let told =
        group.refused("key decrypt --in secret.json --aad-file aad --out opened.txt", 2, "USAGE");
    assert!(told.message.contains("opened.txt"), "{told:?}");
    group.refused("key decrypt --in secret.json --out -", 3, "CIPHERTEXT_REFUSED");
    let iv = "000102030405060708090a0b0c0d0e0f";
    let line = format!(
        "key encrypt dev/u-aes --mechanism AES_CBC_PAD --iv {iv} --in secret.txt --out cbc.json"
    );
    group.done(&line);
    assert_eq!(group.piped("key decrypt --in cbc.json --out -", b""), secret.as_bytes());
    let gcm = "key encrypt dev/u-aes --iv 000102030405060708090a0b --in secret.txt --out g.json";
    group.refused(gcm, 3, "RING_POLICY");

    // Five mebibytes through a pipe and back, by both mechanisms.
    for options in ["", "--mechanism AES_CBC_PAD"] {
        let line = format!("key encrypt dev/u-aes {options} --in - --out -");
        let sealed = group.piped(&line, large);
        assert!(sealed.len() > large.len());
        let opened = group.piped("key decrypt --in - --out -", &sealed);
        assert!(opened == large, "{options}: something else came back");
        if options.is_empty() {
            damaged(group, sealed);
        }
    }
    group.done("key encrypt dev/u-aes --in large --out large.kms");
    group.done("key decrypt --in large.kms --out large.opened");
    assert!(group.read("large.opened") == large);

    group.refused("key encrypt dev/u-none --in secret.txt --out n", 3, "NOT_FOUND");
    group.refused_by(Who::Officer, "key decrypt --in secret.json --out -", 3, "ROLE_MISSING");
    let told = group.refused("key decrypt --in letter.txt --out -", 2, "USAGE");
    assert!(told.message.contains("letter.txt"), "{told:?}");
}

/// A long ciphertext that is cut or changed gives no file, and nothing on standard output.
fn damaged(group: &Group, sealed: Vec<u8>) {
    let mut changed = sealed.clone();
    *changed.last_mut().unwrap() ^= 1;
    for (name, bytes) in [("cut", &sealed[..sealed.len() - 1]), ("changed", &changed[..])] {
        group.write(name, bytes);
        let line = format!("key decrypt --in {name} --out {name}.opened");
        group.refused(&line, 3, "CIPHERTEXT_REFUSED");
        assert!(!group.path(&format!("{name}.opened")).exists());
        group.refused(&format!("key decrypt --in {name} --out -"), 3, "CIPHERTEXT_REFUSED");
    }
    let left = std::fs::read_dir(group.path(".")).unwrap().map(|entry| entry.unwrap().file_name());
    let parts: Vec<_> = left.filter(|name| name.to_string_lossy().ends_with(".part")).collect();
    assert!(parts.is_empty(), "{parts:?}");
}

fn codes_and_digests(group: &Group, large: &[u8]) {
    group.done("key mac dev/u-mac --in letter.txt --out letter.mac");
    assert_eq!(group.read("letter.mac").len(), 32);
    assert_eq!(
        group.done("key mac-verify dev/u-mac --in letter.txt --mac letter.mac")["valid"],
        true
    );
    assert_eq!(group.says_no("key mac-verify dev/u-mac --in aad --mac letter.mac")["valid"], false);
    group.write("large.mac", group.piped("key mac dev/u-mac --in - --out -", large));
    assert_eq!(group.done("key mac-verify dev/u-mac --in large --mac large.mac")["valid"], true);
    assert_eq!(
        group.says_no("key mac-verify dev/u-mac --in large --mac letter.mac")["valid"],
        false
    );
    group.refused("key mac dev/u-none --in letter.txt --out m", 3, "NOT_FOUND");
    group.refused("key mac-verify dev/u-mac --in letter.txt --mac no-such", 2, "USAGE");
    group.refused("key mac dev/u-ec --in letter.txt --out m", 3, "USAGE_REFUSED");

    for file in ["letter.txt", "large"] {
        for (hash, option) in [("SHA256", "-sha256"), ("SHA512", "-sha512")] {
            let told = group.done(&format!("key digest dev --hash {hash} --in {file}"));
            let said = group.openssl(&format!("dgst {option} -r {file}"));
            assert_eq!(said.split(' ').next(), told["digest"].as_str(), "{hash} of {file}");
        }
    }
    let piped = group.piped("key digest dev --hash SHA3_256 --in - --out -", b"abc");
    assert_eq!(
        hex::encode(piped),
        "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"
    );
    group.refused("key digest none --in letter.txt", 3, "NOT_FOUND");
    group.refused("key digest dev --hash MD5 --in letter.txt", 2, "USAGE");
}

fn requests(group: &Group) {
    for (name, mechanism) in [
        ("u-ec", ""),
        ("u-ed", ""),
        ("u-rsa", "--mechanism RSA_PKCS1_SHA256"),
        ("u-rsa", "--mechanism RSA_PSS_SHA384"),
    ] {
        let line = format!(
            "key csr dev/{name} {mechanism} --subject CN=www.example,O=Example --san www.example \
             --san 192.0.2.7 --out {name}.csr"
        );
        group.done(&line);
        let said = group.openssl(&format!("req -in {name}.csr -noout -verify -text"));
        assert!(said.contains("verify OK") && said.contains("DNS:www.example"), "{said}");
    }
    let pem = group.piped("key csr dev/u-ec --subject CN=x --out -", b"");
    assert!(pem.starts_with(b"-----BEGIN CERTIFICATE REQUEST-----"));
    let told = group.refused("key csr dev/u-ec --subject www.example --out c", 2, "USAGE");
    assert!(told.message.contains("CN=www.example"), "{told:?}");
    group.refused("key csr dev/u-mac --subject CN=x --out c", 3, "USAGE_REFUSED");
    group.refused_by(Who::Officer, "key csr dev/u-ec --subject CN=x --out c", 3, "ROLE_MISSING");
    assert!(!group.path("c").exists());
}

fn statements(group: &Group) {
    let log_key = group.done("seal status")["log_key"].as_str().unwrap().to_owned();
    group.write("log.key", format!("{log_key}\n"));
    let nonce = "00112233445566778899aabbccddeeff";
    let line =
        format!("key statement dev/u-ec --nonce {nonce} --out ec.statement --chain-out ec.chain");
    group.done(&line);
    let verify = format!("key verify-statement ec.statement --log-key log.key --nonce {nonce}");
    let told = group.done(&verify);
    assert_eq!((&told["accepted"], &told["never_left"]), (&true.into(), &true.into()), "{told}");
    assert!(told["version"].as_str().unwrap().ends_with("/u-ec/versions/1"));
    // The certificate is for the key itself.
    let said = group.openssl("x509 -in ec.chain -noout -pubkey");
    assert_eq!(said, group.text("ec.pem"));
    let told = group.says_no(&format!("{verify}00"));
    assert!(told["reasons"].to_string().contains("nonce"), "{told}");
    // Changed by one bit, and of another log.
    let mut document: Value = serde_json::from_slice(&group.read("ec.statement")).unwrap();
    let cose = document["cose"].as_str().unwrap();
    let (before, after) = cose.split_at(cose.len() - 40);
    let other = if after.starts_with('A') { "B" } else { "A" };
    document["cose"] = format!("{before}{other}{}", &after[1..]).into();
    group.write("changed.statement", document.to_string());
    group.refused("key verify-statement changed.statement --log-key log.key", 3, "NOT_ACCEPTED");
    group.refused("key verify-statement letter.txt --log-key log.key", 2, "USAGE");
    group.refused("key verify-statement ec.statement --log-key letter.txt", 2, "USAGE");
    group.refused("key statement dev/u-none --out s", 3, "NOT_FOUND");
    group.refused_by(Who::Stranger, "key statement dev/u-ec --out s", 3, "NOT_FOUND");
    let long = "00".repeat(65);
    group.refused(&format!("key statement dev/u-ec --nonce {long} --out s"), 3, "INVALID_ARGUMENT");
    group.done("key statement dev/u-aes --out aes.statement");
    let told = group.done("key verify-statement aes.statement --log-key log.key");
    assert_eq!(told["key_certificate"], false);
}
