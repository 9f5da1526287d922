//! The `openssl` command as second opinion. It makes the keys, since ours never leave the crate.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use kms_core::algorithm::{Algorithm, Usage};
use kms_core::mechanism::Mechanism;
use kms_crypto::provider::{CipherParameters, NewKey, SignInput};

use crate::message;
use crate::vectors::{PROVIDERS, is, material};

/// A folder for one test, with the files that the command reads and writes.
struct Openssl {
    folder: PathBuf,
}

impl Openssl {
    /// `None`, and a line that says so, without the command in version 3.
    fn new(test: &str) -> Option<Self> {
        let version = Command::new("openssl").arg("version").output();
        if !version.is_ok_and(|output| output.stdout.starts_with(b"OpenSSL 3")) {
            println!("skipped: there is no openssl command of version 3");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("kms-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Some(Self { folder })
    }

    fn run(&self, line: &str) -> Output {
        let words = line.split_whitespace();
        Command::new("openssl").current_dir(&self.folder).args(words).output().unwrap()
    }

    fn must(&self, line: &str) {
        let Output { status, stderr, .. } = self.run(line);
        assert!(status.success(), "openssl {line}: {}", String::from_utf8_lossy(&stderr));
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join(name)).unwrap()
    }

    /// Makes a key pair in the files `key` and `public`, and gives the former.
    fn key(&self, algorithm: Algorithm) -> Vec<u8> {
        let options = match algorithm {
            Algorithm::EcP256 => "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            Algorithm::EcP384 => "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
            Algorithm::EcP521 => "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
            Algorithm::EcSecp256k1 => "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1",
            Algorithm::Ed25519 => "-algorithm ED25519",
            Algorithm::X25519 => "-algorithm X25519",
            Algorithm::Rsa2048 => "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
            Algorithm::Rsa3072 => "-algorithm RSA -pkeyopt rsa_keygen_bits:3072",
            _ => "-algorithm RSA -pkeyopt rsa_keygen_bits:4096",
        };
        self.must(&format!("genpkey {options} -out pem"));
        // Version 3.0 writes the older forms of a key where DER is asked of it.
        self.must("pkcs8 -topk8 -nocrypt -in pem -outform DER -out key");
        self.must("pkey -inform DER -in key -pubout -outform DER -out public");
        self.read("key")
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Per mechanism and provider. One process answers one question.
fn cases() -> usize {
    if std::env::var_os("KMS_LONG").is_some_and(|value| value == "1") { 5_000 } else { 10 }
}

const KNOWN_TO_OPENSSL: [Algorithm; 9] = [
    Algorithm::EcP256,
    Algorithm::EcP384,
    Algorithm::EcP521,
    Algorithm::EcSecp256k1,
    Algorithm::Ed25519,
    Algorithm::Rsa2048,
    Algorithm::Rsa3072,
    Algorithm::Rsa4096,
    Algorithm::X25519,
];

fn with_usage(usage: Usage) -> impl Iterator<Item = (Algorithm, Mechanism)> {
    KNOWN_TO_OPENSSL.into_iter().flat_map(move |algorithm| {
        let mechanisms = algorithm.mechanisms().iter().copied();
        mechanisms.filter(move |m| m.offers(usage)).map(move |m| (algorithm, m))
    })
}

/// The options of `pkeyutl` for a mechanism.
fn options(mechanism: Mechanism) -> String {
    let hash = mechanism.hash().map(|hash| hash.as_str().to_lowercase().replace('_', "-"));
    let hash = hash.unwrap_or_default();
    match mechanism {
        Mechanism::EdDsa => "-rawin".to_owned(),
        Mechanism::RsaPssSha256 | Mechanism::RsaPssSha384 | Mechanism::RsaPssSha512 => format!(
            "-rawin -digest {hash} -pkeyopt rsa_padding_mode:pss -pkeyopt rsa_pss_saltlen:digest"
        ),
        Mechanism::RsaOaepSha256 | Mechanism::RsaOaepSha384 | Mechanism::RsaOaepSha512 => format!(
            "-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:{hash} -pkeyopt \
             rsa_mgf1_md:{hash} -pkeyopt rsa_oaep_label:6c6162656c"
        ),
        Mechanism::RsaPkcs1 => "-pkeyopt rsa_padding_mode:pkcs1".to_owned(),
        Mechanism::RsaRaw => "-pkeyopt rsa_padding_mode:none".to_owned(),
        _ => format!("-rawin -digest {hash}"),
    }
}

#[test]
fn signatures_are_accepted_both_ways() {
    let Some(openssl) = Openssl::new("signatures") else { return };
    let mut made = None;
    for (algorithm, mechanism) in with_usage(Usage::Sign) {
        if made != Some(algorithm) {
            openssl.key(algorithm);
            made = Some(algorithm);
        }
        let key = openssl.read("key");
        let options = options(mechanism);
        for provider in PROVIDERS {
            let NewKey { material, public_key } =
                provider.import(algorithm, &material(&key)).unwrap();
            assert_eq!(public_key, openssl.read("public"), "{algorithm}");
            let opened = provider.private_key(algorithm, &material).unwrap();
            for case in 0..cases() {
                // The command reads no empty file.
                let text = [&message()[..], b"."].concat();
                openssl.write("text", &text);
                let input = SignInput::Message(&text);
                openssl.write("signature", &opened.sign(mechanism, input, b"").unwrap());
                openssl.must(&format!(
                    "pkeyutl -verify -pubin -keyform DER -inkey public {options} -in text -sigfile \
                     signature"
                ));
                openssl.must(&format!(
                    "pkeyutl -sign -keyform DER -inkey key {options} -in text -out signature"
                ));
                let signature = openssl.read("signature");
                let found =
                    provider.verify(algorithm, mechanism, &public_key, input, b"", &signature);
                assert_eq!(found, Ok(true), "{algorithm} {mechanism} case {case}");
            }
        }
        println!("{algorithm} {mechanism}: {} cases agree with openssl", 2 * cases());
    }
}

#[test]
fn ciphertexts_are_opened_both_ways() {
    let Some(openssl) = Openssl::new("ciphertexts") else { return };
    let mut made = None;
    for (algorithm, mechanism) in with_usage(Usage::Encrypt) {
        if made != Some(algorithm) {
            openssl.key(algorithm);
            made = Some(algorithm);
        }
        let key = openssl.read("key");
        let options = options(mechanism);
        let label: &[u8] = if mechanism.hash().is_some() { b"label" } else { b"" };
        let parameters = CipherParameters { iv: b"", aad: label };
        for provider in PROVIDERS {
            let NewKey { material, public_key } =
                provider.import(algorithm, &material(&key)).unwrap();
            let opened = provider.private_key(algorithm, &material).unwrap();
            for case in 0..cases() {
                let mut text = [b".", &message()[..]].concat();
                match mechanism {
                    Mechanism::RsaRaw => {
                        text.resize(algorithm.bits() as usize / 8, 7);
                    }
                    _ => text.truncate(100),
                }
                let ciphertext = provider
                    .public_encrypt(algorithm, mechanism, &public_key, parameters, &text)
                    .unwrap();
                openssl.write("ciphertext", &ciphertext);
                openssl.must(&format!(
                    "pkeyutl -decrypt -keyform DER -inkey key {options} -in ciphertext -out text"
                ));
                assert_eq!(openssl.read("text"), text, "{algorithm} {mechanism} case {case}");
                openssl.must(&format!(
                    "pkeyutl -encrypt -pubin -keyform DER -inkey public {options} -in text -out \
                     ciphertext"
                ));
                let found =
                    opened.decrypt(mechanism, parameters, &openssl.read("ciphertext")).unwrap();
                assert!(is(provider, &found, &text), "{algorithm} {mechanism} case {case}");
            }
        }
        println!("{algorithm} {mechanism}: {} cases agree with openssl", 2 * cases());
    }
}

#[test]
fn agreements_give_the_same_secret() {
    let Some(openssl) = Openssl::new("agreements") else { return };
    for (algorithm, mechanism) in with_usage(Usage::Derive) {
        for provider in PROVIDERS {
            for case in 0..cases() {
                let peer = openssl.key(algorithm);
                let peer_public = openssl.read("public");
                openssl.write("peer", &peer);
                let own = openssl.key(algorithm);
                openssl.must(
                    "pkeyutl -derive -keyform DER -inkey peer -peerform DER -peerkey public -out \
                     secret",
                );
                let own = provider.import(algorithm, &material(&own)).unwrap();
                let opened = provider.private_key(algorithm, &own.material).unwrap();
                let secret = opened.agree(&peer_public).unwrap();
                assert!(is(provider, &secret, &openssl.read("secret")), "{algorithm} case {case}");
            }
        }
        println!("{algorithm} {mechanism}: {} cases agree with openssl", 2 * cases());
    }
}
