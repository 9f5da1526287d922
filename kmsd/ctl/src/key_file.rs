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
