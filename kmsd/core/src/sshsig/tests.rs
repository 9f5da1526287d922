use super::security_key::{Secret, TOUCHED, VERIFIED, armored};
use super::*;

const NAMESPACE: &str = "kms-proposal";
const MESSAGE: &[u8] = b"what is to be done";
const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn alice() -> PrincipalName {
    "users/alice".parse().unwrap()
}

fn enrolled(lines: &[String]) -> Vec<SshCredential> {
    lines.iter().map(|line| line.parse().unwrap()).collect()
}

fn signed_by(lines: &[String], armored: &str) -> Result<Digest, SignatureError> {
    let (principal, enrolled) = (&alice(), enrolled(lines));
    let enrolled = &enrolled.iter().collect::<Vec<_>>()[..];
    verify(NAMESPACE, MESSAGE, armored, Signer { principal, enrolled }, NOW)
}

fn secrets() -> [Secret; 2] {
    [Secret::ed25519(7), Secret::p256(7)]
}

fn name_of(line: &str) -> Digest {
    let SshCredential::Key(key) = line.parse().unwrap() else { panic!("{line} is no key") };
    key.identity()
}

#[test]
fn a_security_key_counts_when_it_was_touched_whatever_else_it_says() {
    for secret in secrets() {
        let lines = [secret.line(Some("ssh:"))];
        for flags in 0..=u8::MAX {
            let signature = secret.sign_in_token("ssh:", flags, NAMESPACE, MESSAGE);
            let expected = if flags & 1 == 1 {
                Ok(name_of(&lines[0]))
            } else {
                Err(SignatureError::Untouched)
            };
            assert_eq!(signed_by(&lines, &signature), expected, "{flags:#04x}");
        }
    }
}

#[test]
fn a_security_key_that_must_verify_its_user_does() {
    for secret in secrets() {
        let lines = [format!("verify-required {}", secret.line(Some("ssh:")))];
        let sign = |flags| secret.sign_in_token("ssh:", flags, NAMESPACE, MESSAGE);
        assert_eq!(signed_by(&lines, &sign(TOUCHED)), Err(SignatureError::Unverified));
        assert_eq!(signed_by(&lines, &sign(4)), Err(SignatureError::Untouched));
        assert!(signed_by(&lines, &sign(VERIFIED)).is_ok());
        // Who enrols it twice gets no way around the option.
        let twice = [secret.line(Some("ssh:")), lines[0].clone()];
        assert_eq!(signed_by(&twice, &sign(TOUCHED)), Err(SignatureError::Unverified));
    }
}

#[test]
fn what_a_security_key_says_is_signed_and_for_one_application() {
    for secret in secrets() {
        let lines = [secret.line(Some("ssh:"))];
        let other = secret.sign_in_token("ssh:b", TOUCHED, NAMESPACE, MESSAGE);
        assert_eq!(signed_by(&lines, &other), Err(SignatureError::Wrong));
        let bare = secret.token_signature("ssh:b", TOUCHED, NAMESPACE, MESSAGE);
        let claimed = armored(secret.public(Some("ssh:")), NAMESPACE, bare);
        assert_eq!(signed_by(&lines, &claimed), Err(SignatureError::Wrong));
        let untouched = secret.token_signature("ssh:", 0, NAMESPACE, MESSAGE);
        let mut bytes = untouched.as_bytes().to_vec();
        let flags = bytes.len() - 5;
        bytes[flags] = TOUCHED;
        let forged = Signature::new(untouched.algorithm(), bytes).unwrap();
        let forged = armored(secret.public(Some("ssh:")), NAMESPACE, forged);
        assert_eq!(signed_by(&lines, &forged), Err(SignatureError::Wrong));
    }
}

/// A signature is of the type that its key is, also where the library would not ask.
#[test]
fn a_signature_of_another_type_than_its_key_does_not_count() {
    for secret in secrets() {
        let token = secret.token_signature("ssh:", TOUCHED, NAMESPACE, MESSAGE);
        let as_file = armored(secret.public(None), NAMESPACE, token);
        assert_eq!(signed_by(&[secret.line(None)], &as_file), Err(SignatureError::Wrong));
        let file = SshSig::from_pem(secret.sign(NAMESPACE, MESSAGE)).unwrap();
        let as_token = armored(secret.public(Some("ssh:")), NAMESPACE, file.signature().clone());
        let lines = [secret.line(Some("ssh:"))];
        assert_eq!(signed_by(&lines, &as_token), Err(SignatureError::Wrong));
    }
}

#[test]
fn one_point_is_one_key_under_every_name() {
    for secret in secrets() {
        let names = [None, Some("ssh:"), Some("ssh:b")].map(|one| name_of(&secret.line(one)));
        assert_eq!(names, [names[0]; 3]);
    }
    let [ed25519, p256] = secrets().map(|secret| name_of(&secret.line(None)));
    assert_ne!(ed25519, p256);
    assert_ne!(ed25519, name_of(&Secret::ed25519(8).line(None)));
}

#[test]
fn points_with_two_names_and_those_that_anybody_signs_for_are_refused() {
    let Secret::P256(secret) = Secret::p256(7) else { panic!("another curve") };
    let compressed = secret.verifying_key().to_sec1_point(true);
    let key = KeyData::Ecdsa(EcdsaPublicKey::NistP256(compressed));
    assert_eq!(identity(&key), Err(SignatureError::Key));
    // RFC 8032: the neutral point, and one of order 8.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let order_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
    for point in [neutral, hex::decode(order_8).unwrap().try_into().unwrap()] {
        let key = KeyData::Ed25519(ssh_key::public::Ed25519PublicKey(point));
        let line = PublicKey::from(key).to_openssh().unwrap();
        assert_eq!(line.parse::<SshCredential>(), Err(SignatureError::Key));
    }
}

#[test]
fn lines_come_back_as_they_were_without_their_comments() {
    let (file, token) = (Secret::p256(7).line(None), Secret::ed25519(7).line(Some("ssh:")));
    for line in [
        file.clone(),
        token.clone(),
        format!("verify-required {token}"),
        format!("cert-authority {file}"),
        format!("cert-authority,principals=\"asmith,alice@example.org\" {file}"),
        format!("cert-authority,principals=\"asmith\",verify-required {token}"),
    ] {
        let read: SshCredential = format!(" {line} alice at her desk\n").parse().unwrap();
        assert_eq!(read.to_string(), line);
        let json = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<SshCredential>(&json).unwrap(), read);
    }
}

#[test]
fn options_that_would_not_be_kept_are_refused() {
    let (file, token) = (Secret::p256(7).line(None), Secret::ed25519(7).line(Some("ssh:")));
    let many = ["a"; 9].join(",");
    for options in [
        "no-touch-required",
        "verify-required,verify-required",
        "verify-required,",
        ",verify-required",
        "from=\"10.0.0.0/8\"",
        "expiry-time=\"20300101\"",
        "principals=\"asmith\"",
        "cert-authority,principals=\"\"",
        "cert-authority,principals=\"a",
        "cert-authority,principals=\"a\"verify-required",
        "cert-authority,principals=\"a\",principals=\"b\"",
        "cert-authority,principals=\"a,,b\"",
        "cert-authority,principals=\"a\\b\"",
        "cert-authority,cert-authority",
        &format!("cert-authority,principals=\"{many}\""),
        &format!("cert-authority,principals=\"{}\"", "a".repeat(129)),
        "Cert-Authority",
    ] {
        let line = format!("{options} {token}");
        assert_eq!(line.parse::<SshCredential>(), Err(SignatureError::Options), "{options}");
    }
    let not_in_token = format!("verify-required {file}");
    assert_eq!(not_in_token.parse::<SshCredential>(), Err(SignatureError::Options));
    for line in ["", "ssh-ed25519", "verify-required", "ssh-rsa AAAA", &"a".repeat(5000)] {
        assert_eq!(line.parse::<SshCredential>(), Err(SignatureError::Key), "{line:.20}");
    }
}

#[test]
fn an_authority_speaks_for_many_and_each_by_names_of_their_own() {
    let line = Secret::p256(7).line(None);
    let [own, named, both]: [SshCredential; 3] = ["", ",principals=\"a\"", ",principals=\"a,b\""]
        .map(|options| format!("cert-authority{options} {line}").parse().unwrap());
    let bob = "users/bob".parse().unwrap();
    assert_ne!(own.identities(&alice()), own.identities(&bob));
    assert_eq!(named.identities(&alice()), named.identities(&bob));
    assert_eq!(both.identities(&bob)[0], named.identities(&alice())[0]);
    // A key is what it is, whoever has it.
    let key: SshCredential = line.parse().unwrap();
    assert_eq!(key.identities(&alice()), key.identities(&bob));
}

/// Of a security key whose certificate may ask for more than its line of authorized_keys could.
#[test]
fn a_certified_security_key_is_touched_and_verifies_its_user_if_anybody_asks_for_it() {
    use ssh_key::certificate::{Builder, CertType};
    let ca = ssh_key::private::Ed25519Keypair::from_seed(&[9; 32]);
    let ca = ssh_key::PrivateKey::from(ca);
    let line = ca.public_key().to_openssh().unwrap();
    let (plain, strict) =
        (format!("cert-authority {line}"), format!("cert-authority,verify-required {line}"));
    for secret in secrets() {
        let name = name_of(&secret.line(None));
        let signed = |line: &String, asks: bool, flags| {
            let (after, before) = (NOW.0 / 1000, NOW.0 / 1000 + 1);
            let key = secret.public(Some("ssh:"));
            let mut builder = Builder::new(vec![0; 16], key, after, before).unwrap();
            builder.cert_type(CertType::User).unwrap().key_id("alice").unwrap();
            builder.valid_principal("users/alice").unwrap();
            if asks {
                builder.critical_option("verify-required", "").unwrap();
            }
            let certificate = builder.sign(&ca).unwrap();
            let signature = secret.token_signature("ssh:", flags, NAMESPACE, MESSAGE);
            signed_by(std::slice::from_ref(line), &armored(certificate, NAMESPACE, signature))
        };
        assert_eq!(signed(&plain, false, 0), Err(SignatureError::Untouched));
        assert_eq!(signed(&plain, false, TOUCHED), Ok(name));
        for (line, asks) in [(&plain, true), (&strict, false), (&strict, true)] {
            assert_eq!(signed(line, asks, TOUCHED), Err(SignatureError::Unverified));
            assert_eq!(signed(line, asks, VERIFIED), Ok(name));
        }
    }
}
