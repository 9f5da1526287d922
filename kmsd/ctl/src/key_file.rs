//! Private keys out of the files that people have: PKCS#8 in PEM or DER, encrypted or not, and PKCS#12.

use std::path::Path;

use der::pem::PemLabel as _;
use der::{Decode as _, SecretDocument};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::pkcs12;

/// The private key in `bytes`, as PKCS#8 in DER. `passphrase` is asked for when the file wants one; `path`
/// is only for messages.
pub(crate) fn private_key(
    path: &Path,
    bytes: Zeroizing<Vec<u8>>,
    passphrase: impl FnOnce() -> Result<Zeroizing<String>, Failure>,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let der = match pem(path, &bytes)? {
        Some(der) => der,
        None => bytes,
    };
    if PrivateKeyInfoRef::from_der(&der).is_ok() {
        return Ok(der);
    }
    if let Ok(encrypted) = EncryptedPrivateKeyInfoRef::from_der(&der) {
        let opened = encrypted.decrypt(passphrase()?.as_bytes());
        return opened.map(to_bytes).map_err(|_| {
            Failure::input(path.display(), "the passphrase does not open it, or its encryption is not known here; openssl pkcs8 -topk8 -v2 aes-256-cbc writes one that is")
        });
    }
    match pkcs12::private_key(&der, passphrase) {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(Failure::input(
            path.display(),
            "expected a private key in PKCS#8 or PKCS#12; openssl pkcs8 -topk8 -nocrypt makes PKCS#8 of others",
        )),
        Err(failure) => Err(match failure {
            Failure::Input(why) => Failure::input(path.display(), why),
            other => other,
        }),
    }
}

/// The DER in a PEM file; nothing when it is none.
fn pem(path: &Path, bytes: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let text = bytes.trim_ascii();
    if !text.starts_with(b"-----") {
        return Ok(None);
    }
    let (label, der) =
        der::pem::decode_vec(text).map_err(|error| Failure::input(path.display(), error))?;
    let der = Zeroizing::new(der);
    match label {
        label if label == PrivateKeyInfoRef::PEM_LABEL => Ok(Some(der)),
        label if label == EncryptedPrivateKeyInfoRef::PEM_LABEL => Ok(Some(der)),
        label => {
            let next =
                format!("{label} is not taken; openssl pkcs8 -topk8 -nocrypt makes PKCS#8 of it");
            Err(Failure::input(path.display(), next))
        }
    }
}

fn to_bytes(document: SecretDocument) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(document.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs openssl in the folder; false where it is not installed.
    fn openssl(folder: &Path, line: &str) -> bool {
        let ran = Command::new("openssl").args(line.split(' ')).current_dir(folder).output();
        let Ok(ran) = ran else {
            println!("skipped: openssl is not installed");
            return false;
        };
        assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
        true
    }

    fn read(folder: &Path, name: &str, passphrase: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let path = folder.join(name);
        let bytes = Zeroizing::new(std::fs::read(&path).unwrap());
        private_key(&path, bytes, || Ok(Zeroizing::new(passphrase.to_owned())))
    }

    #[test]
    fn keys_come_out_of_every_form_that_openssl_writes() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        for line in [
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out k.pem",
            "pkcs8 -topk8 -nocrypt -in k.pem -outform DER -out k.der",
            "pkcs8 -topk8 -in k.pem -passout pass:secret -v2 aes-256-cbc -out enc.pem",
            "pkcs8 -topk8 -in k.pem -passout pass:secret -scrypt -outform DER -out enc.der",
            "req -x509 -new -key k.pem -subj /CN=test -days 2 -out c.pem",
            "pkcs12 -export -inkey k.pem -in c.pem -passout pass:secret -out k.p12",
            "pkcs12 -export -inkey k.pem -in c.pem -passout pass:secret -macalg SHA1 -out sha1.p12",
            "pkcs12 -export -inkey k.pem -in c.pem -passout pass:secret -macalg SHA512 -out sha512.p12",
            "pkcs12 -export -nokeys -in c.pem -passout pass:secret -out nokey.p12",
        ] {
            if !openssl(at, line) {
                return;
            }
        }
        let expected = std::fs::read(at.join("k.der")).unwrap();
        for name in ["k.pem", "k.der", "enc.pem", "enc.der", "k.p12", "sha1.p12", "sha512.p12"] {
            assert_eq!(*read(at, name, "secret").unwrap(), expected, "{name}");
        }
        for name in ["enc.pem", "enc.der", "k.p12", "sha1.p12"] {
            let refused = read(at, name, "Secret").unwrap_err();
            assert_eq!(refused.exit_code(), 2);
            assert!(refused.to_string().contains("passphrase does not open it"), "{refused}");
        }
        let missing = read(at, "nokey.p12", "secret").unwrap_err().to_string();
        assert!(missing.ends_with("without a private key"), "{missing}");
        // One bit anywhere in the file is noticed.
        let whole = std::fs::read(at.join("k.p12")).unwrap();
        for place in (0..whole.len()).step_by(29) {
            let mut changed = whole.clone();
            changed[place] ^= 0x10;
            std::fs::write(at.join("changed.p12"), changed).unwrap();
            if let Ok(key) = read(at, "changed.p12", "secret") {
                assert_eq!(*key, expected, "at {place}");
            }
        }
    }

    #[test]
    fn other_files_are_refused_with_the_next_step() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let traditional = "-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n";
        for (file, text) in [("a", traditional), ("b", "not a key"), ("c", ""), ("d", "-----BEGIN")]
        {
            std::fs::write(at.join(file), text).unwrap();
            let refused = read(at, file, "").unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{file}");
        }
        let told = read(at, "a", "").unwrap_err().to_string();
        assert!(told.contains("openssl pkcs8 -topk8"), "{told}");
    }
}
