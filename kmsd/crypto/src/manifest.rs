//! The integrity of the programs (ISO/IEC 19790 §7.5, §7.10.2): a manifest of digests, signed with
//! Ed25519, and the hashing of files against it. The daemon and `kmsd manifest` call it.
//!
//! Hash function and signature are the default provider's, whose self-tests must have passed before.

use std::io::Read;

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use kms_core::audit::checkpoint::LogKey;
use kms_core::audit::note;
use kms_core::id::Digest;
use kms_core::manifest::Manifest;
use x509_cert::der::pem;
use zeroize::Zeroizing;

/// Why a manifest cannot be made, or is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestRefused {
    /// The key is none.
    #[error("expected an Ed25519 private key in PEM (openssl genpkey -algorithm ed25519)")]
    Key,
    /// The name of the key is none.
    #[error("the name of a key is not empty and has no space and no plus")]
    KeyName,
    /// It is signed, and no manifest.
    #[error(transparent)]
    Manifest(#[from] kms_core::manifest::ManifestError),
    /// It is not signed so.
    #[error("{0}; take manifest and key from the same release")]
    Note(#[from] note::NoteError),
}

/// The digest of everything that `file` gives.
///
/// # Errors
/// Those of reading.
pub fn digest_of(mut file: impl Read) -> std::io::Result<Digest> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => context.update(&buffer[..read]),
        }
    }
    let digest = context.finish();
    let digest: Result<[u8; 32], _> = digest.as_ref().try_into();
    digest.map(Digest).map_err(|_| std::io::ErrorKind::InvalidData.into())
}

/// Signs a manifest with the private key in `pem`, which is called `name`. Gives the note and the key
/// that verifies it.
///
/// # Errors
/// [`ManifestRefused::Key`] or [`ManifestRefused::KeyName`].
pub fn sign(
    manifest: &Manifest,
    name: &str,
    pem: &str,
) -> Result<(String, LogKey), ManifestRefused> {
    let (label, der) = pem::decode_vec(pem.as_bytes()).map_err(|_| ManifestRefused::Key)?;
    let der = Zeroizing::new(der);
    if label != "PRIVATE KEY" {
        return Err(ManifestRefused::Key);
    }
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
    let pair = pair.map_err(|_| ManifestRefused::Key)?;
    let public_key = pair.public_key().as_ref().try_into().map_err(|_| ManifestRefused::Key)?;
    let key = LogKey::new(name, public_key).map_err(|_| ManifestRefused::KeyName)?;
    let text = manifest.text();
    let signature = pair.try_sign(text.as_bytes()).map_err(|_| ManifestRefused::Key)?;
    let signature = signature.as_ref().try_into().map_err(|_| ManifestRefused::Key)?;
    Ok((note::sign(&text, &key, signature), key))
}

/// Reads a manifest that `key` has signed.
///
/// # Errors
/// [`ManifestRefused::Note`] or [`ManifestRefused::Manifest`].
pub fn open(note: &str, key: &LogKey) -> Result<Manifest, ManifestRefused> {
    let public_key = UnparsedPublicKey::new(&ED25519, key.public_key());
    let text = note::open(note, key, |text, signature| public_key.verify(text, signature).is_ok())?;
    Ok(Manifest::parse(text)?)
}

const BUFFER_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    /// RFC 8410 §10.3.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";

    fn signed(digest: Digest) -> (String, LogKey) {
        let manifest = Manifest::new(vec![("kmsd".to_owned(), digest)]).unwrap();
        sign(&manifest, "kms-release", PEM).unwrap()
    }

    /// Goal: no bit of a program can be another without being seen. 1,000 of them, taken at random from
    /// the first part of this very program.
    #[test]
    fn a_flipped_bit_anywhere_in_a_program_is_seen() {
        let mut program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        program.truncate(1 << 20);
        let (note, key) = signed(digest_of(program.as_slice()).unwrap());
        let expected = open(&note, &key).unwrap().files[0].1;
        assert_eq!(digest_of(program.as_slice()).unwrap(), expected);
        for _ in 0..1000 {
            let random = u64::from_le_bytes(random::array().unwrap());
            let bit = usize::try_from(random % (8 * program.len() as u64)).unwrap();
            program[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(digest_of(program.as_slice()).unwrap(), expected, "bit {bit}");
            program[bit / 8] ^= 1 << (bit % 8);
        }
        for length in [0, 1, program.len() - 1] {
            assert_ne!(digest_of(&program[..length]).unwrap(), expected);
        }
    }

    #[test]
    fn a_manifest_counts_only_as_it_was_signed() {
        let (note, key) = signed(Digest([7; 32]));
        assert_eq!(open(&note, &key).unwrap().files, [("kmsd".to_owned(), Digest([7; 32]))]);
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(open(&changed, &key).is_err(), "byte {at}");
        }
        let other = LogKey::new("other", key.public_key()).unwrap();
        assert!(matches!(open(&note, &other), Err(ManifestRefused::Note(_))));
    }

    #[test]
    fn only_a_private_key_of_ed25519_signs() {
        let manifest = Manifest::new(vec![("kmsd".to_owned(), Digest([7; 32]))]).unwrap();
        for pem in ["", "secret", &PEM.replace("PRIVATE", "PUBLIC"), &PEM.replace("MC4", "MC5")] {
            assert!(matches!(sign(&manifest, "name", pem), Err(ManifestRefused::Key)), "{pem}");
        }
        let named = sign(&manifest, "two words", PEM);
        assert!(matches!(named, Err(ManifestRefused::KeyName)));
    }
}
