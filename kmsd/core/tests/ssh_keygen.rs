//! What OpenSSH itself makes: signatures of every kind of key that needs no hardware, and certificates.

// The helpers of a test may unwrap as the test itself does.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use kms_core::id::{Digest, PrincipalName, Timestamp};
use kms_core::sshsig::{
    CertificateError, Revoked, SignatureError, Signer, SshAuthority, SshCredential, verify,
};

const NAMESPACE: &str = "kms-proposal";
const MESSAGE: &[u8] = b"what is to be done";
/// 2030-01-01 12:00 UTC, within the certificates' time.
const NOW: Timestamp = Timestamp(1_893_499_200_000);
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A folder of keys.
struct Keys(tempfile::TempDir);

impl Keys {
    /// `None` where there is no OpenSSH.
    fn new() -> Option<Self> {
        if Command::new("ssh-keygen").arg("-?").output().is_err() {
            println!("skipped: ssh-keygen is not installed");
            return None;
        }
        Some(Self(tempfile::tempdir().unwrap()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new("ssh-keygen");
        // Validity is given in local time.
        let output = command.current_dir(self.0.path()).env("TZ", "UTC").args(arguments).output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Makes a key, and gives its public line.
    fn make(&self, name: &str, kind: &[&str]) -> String {
        self.run(&[&["-q", "-N", "", "-C", "", "-f", name], kind].concat());
        read(&self.path(&format!("{name}.pub")))
    }

    /// Has `authority` certify the key `name`, and gives the file of the certificate.
    fn certify(&self, authority: &str, name: &str, how: &[&str]) -> String {
        let fixed = ["-q", "-s", authority, "-I", "id of alice", "-z", "17"];
        let public = format!("{name}.pub");
        self.run(&[&fixed, how, &[&public]].concat());
        format!("{name}-cert.pub")
    }

    /// Signs by a key, or by a certificate of one whose secret lies beside it.
    fn sign(&self, by: &str) -> String {
        let file = self.path("message");
        std::fs::write(&file, MESSAGE).unwrap();
        self.run(&["-q", "-Y", "sign", "-n", NAMESPACE, "-f", by, "message"]);
        let made = self.path("message.sig");
        let signature = read(&made);
        std::fs::remove_file(made).unwrap();
        signature
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

fn alice() -> PrincipalName {
    "users/alice".parse().unwrap()
}

fn signed(
    enrolled: &[SshCredential],
    armored: &str,
    now: Timestamp,
) -> Result<Digest, SignatureError> {
    let enrolled = &enrolled.iter().collect::<Vec<_>>()[..];
    verify(NAMESPACE, MESSAGE, armored, Signer { principal: &alice(), enrolled }, now)
}

fn credential(line: &str) -> SshCredential {
    line.parse().unwrap()
}

fn authority(line: &str) -> SshAuthority {
    match credential(line) {
        SshCredential::Authority(authority) => authority,
        other => panic!("{other}"),
    }
}

const KINDS: [&[&str]; 3] =
    [&["-t", "ed25519"], &["-t", "ecdsa", "-b", "256"], &["-t", "ecdsa", "-b", "384"]];

#[test]
fn keys_of_each_kind_that_we_take_count_and_others_do_not() {
    let Some(keys) = Keys::new() else { return };
    for (n, kind) in KINDS.iter().enumerate() {
        let name = format!("key-{n}");
        let line = keys.make(&name, kind);
        let signature = keys.sign(&name);
        assert!(signed(&[credential(&line)], &signature, NOW).is_ok(), "{kind:?}");
        let broken = verify(
            NAMESPACE,
            b"something else",
            &signature,
            Signer { principal: &alice(), enrolled: &[&credential(&line)] },
            NOW,
        );
        assert_eq!(broken, Err(SignatureError::Wrong), "{kind:?}");
        assert_eq!(signed(&[], &signature, NOW), Err(SignatureError::Wrong), "{kind:?}");
    }
    for (name, kind) in [("rsa", &["-t", "rsa"][..]), ("p521", &["-t", "ecdsa", "-b", "521"])] {
        let line = keys.make(name, kind);
        assert_eq!(line.parse::<SshCredential>(), Err(SignatureError::Key), "{name}");
    }
}

#[test]
fn a_certificate_counts_as_its_key_for_each_kind_of_key_and_authority() {
    let Some(keys) = Keys::new() else { return };
    for (n, kind) in KINDS.iter().enumerate() {
        let (ca, name) = (format!("ca-{n}"), format!("key-{n}"));
        let (ca_line, line) = (keys.make(&ca, kind), keys.make(&name, KINDS[(n + 1) % 3]));
        let how = ["-n", "users/bob,users/alice", "-V", "20300101:20300102"];
        let signature = keys.sign(&keys.certify(&ca, &name, &how));
        let enrolled = [credential(&format!("cert-authority {ca_line}"))];
        let SshCredential::Key(key) = credential(&line) else { panic!("{line}") };
        assert_eq!(signed(&enrolled, &signature, NOW), Ok(key.identity()));
        // The certificate is not the key, and its authority is not itself a key of Alice's.
        assert_eq!(
            signed(&[credential(&line)], &signature, NOW),
            Err(CertificateError::Authority.into())
        );
        let by_authority = keys.sign(&ca);
        assert_eq!(signed(&enrolled, &by_authority, NOW), Err(SignatureError::Wrong));
        // Nor does the bare key count for who is enrolled with the authority.
        std::fs::remove_file(keys.path(&format!("{name}-cert.pub"))).unwrap();
        assert_eq!(signed(&enrolled, &keys.sign(&name), NOW), Err(SignatureError::Wrong));
        // The certificate of another message, or bytes changed in it.
        let other = verify(
            NAMESPACE,
            b"something else",
            &signature,
            Signer { principal: &alice(), enrolled: &enrolled.iter().collect::<Vec<_>>() },
            NOW,
        );
        assert_eq!(other, Err(SignatureError::Wrong));
    }
}

#[test]
fn certificates_that_do_not_count_are_refused_each_for_its_reason() {
    use CertificateError as E;
    let Some(keys) = Keys::new() else { return };
    let ca = format!("cert-authority {}", keys.make("ca", KINDS[1]));
    let other = keys.make("other", KINDS[0]);
    keys.make("key", KINDS[0]);
    let (name, time) = (&["-n", "users/alice"][..], &["-V", "20300101:20300102"][..]);
    let named: &[&str] = &[name, time].concat();
    for (by, how, expected) in [
        ("ca", named, None),
        ("ca", &[time, &["-n", "users/alicia,alice,apps/alice"]].concat(), Some(E::Principal)),
        // No principals means all of them.
        ("ca", time, Some(E::Principal)),
        ("ca", &[named, &["-h"]].concat(), Some(E::Host)),
        ("other", named, Some(E::Authority)),
        ("ca", &[name, &["-V", "20290101:20300101"]].concat(), Some(E::OutOfDate)),
        ("ca", &[name, &["-V", "20300102:20300103"]].concat(), Some(E::OutOfDate)),
        ("ca", &[named, &["-O", "source-address=10.0.0.0/8"]].concat(), Some(E::Option)),
        ("ca", &[named, &["-O", "force-command=true"]].concat(), Some(E::Option)),
        ("ca", &[named, &["-O", "critical:new@example.org=1"]].concat(), Some(E::Option)),
        // What is no restriction is not asked for.
        ("ca", &[named, &["-O", "clear", "-O", "extension:new@example.org=1"]].concat(), None),
    ] {
        let signature = keys.sign(&keys.certify(by, "key", how));
        let answer = signed(&[credential(&other), credential(&ca)], &signature, NOW);
        assert_eq!(answer.err(), expected.map(Into::into), "{by} {how:?}");
    }
    // A key in a file cannot verify its user.
    let how = [named, &["-O", "verify-required"]].concat();
    let signature = keys.sign(&keys.certify("ca", "key", &how));
    assert_eq!(signed(&[credential(&ca)], &signature, NOW), Err(SignatureError::Unverified));
    let signature = keys.sign(&keys.certify("ca", "key", named));
    let strict = credential(&ca.replacen(' ', ",verify-required ", 1));
    assert_eq!(signed(&[strict], &signature, NOW), Err(SignatureError::Unverified));
    // The time that counts is that of the counting.
    let enrolled = [credential(&ca)];
    assert!(signed(&enrolled, &signature, NOW).is_ok());
    for later in [NOW.plus_ms(DAY_MS), Timestamp(NOW.0 - DAY_MS)] {
        let answer = signed(&enrolled, &signature, later);
        assert_eq!(answer, Err(E::OutOfDate.into()));
    }
}

#[test]
fn an_authority_may_know_the_approver_by_other_names() {
    let Some(keys) = Keys::new() else { return };
    let ca = keys.make("ca", KINDS[0]);
    keys.make("key", KINDS[1]);
    let how = ["-n", "asmith", "-V", "20300101:20300102"];
    let signature = keys.sign(&keys.certify("ca", "key", &how));
    let own = credential(&format!("cert-authority {ca}"));
    let named = credential(&format!("cert-authority,principals=\"bsmith,asmith\" {ca}"));
    let refusal = Err(CertificateError::Principal.into());
    assert_eq!(signed(std::slice::from_ref(&own), &signature, NOW), refusal);
    assert!(signed(std::slice::from_ref(&named), &signature, NOW).is_ok());
    assert!(signed(&[own, named.clone()], &signature, NOW).is_ok());
    // Given other names, the own one is none.
    let how = ["-n", "users/alice", "-V", "20300101:20300102"];
    let signature = keys.sign(&keys.certify("ca", "key", &how));
    assert_eq!(signed(&[named], &signature, NOW), refusal);
}

#[test]
fn what_an_authority_has_revoked_does_not_count() {
    let Some(keys) = Keys::new() else { return };
    let ca = authority(&format!("cert-authority {}", keys.make("ca", KINDS[0])));
    let line = keys.make("key", KINDS[1]);
    let how = ["-n", "users/alice", "-V", "20300101:20300102"];
    let signature = keys.sign(&keys.certify("ca", "key", &how));
    let key = credential(&line).key().unwrap().identity();
    let revoking = |revoked: Revoked| {
        signed(&[SshCredential::Authority(ca.clone().without(revoked))], &signature, NOW)
    };
    let other = Revoked {
        serials: [0, 16, 18].into(),
        key_ids: ["id of bob".to_owned()].into(),
        keys: [Digest([0; 32])].into(),
    };
    assert!(revoking(other).is_ok());
    for revoked in [
        Revoked { serials: [17].into(), ..Revoked::default() },
        Revoked { key_ids: ["id of alice".to_owned()].into(), ..Revoked::default() },
        Revoked { keys: [key].into(), ..Revoked::default() },
    ] {
        assert_eq!(revoking(revoked), Err(CertificateError::Revoked.into()));
    }
}

/// Each byte of a certificate is signed by somebody.
#[test]
fn a_certificate_that_was_changed_anywhere_does_not_count() {
    use base64::Engine as _;
    let Some(keys) = Keys::new() else { return };
    let enrolled = [credential(&format!("cert-authority {}", keys.make("ca", KINDS[0])))];
    keys.make("key", KINDS[0]);
    let how = ["-n", "users/alice", "-V", "20300101:20300102"];
    let signature = keys.sign(&keys.certify("ca", "key", &how));
    let (begin, end) = ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----");
    let body: String = signature.lines().filter(|line| !line.starts_with('-')).collect();
    let base64 = base64::engine::general_purpose::STANDARD;
    let bytes = base64.decode(body).unwrap();
    let armored = |bytes: &[u8]| {
        let text = base64.encode(bytes);
        let lines: Vec<_> =
            text.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("{begin}\n{}\n{end}\n", lines.join("\n"))
    };
    assert!(signed(&enrolled, &armored(&bytes), NOW).is_ok());
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(signed(&enrolled, &armored(&changed), NOW).is_err(), "byte {at}");
    }
    for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        assert!(signed(&enrolled, &armored(&bytes[..length]), NOW).is_err(), "{length} bytes");
    }
}
