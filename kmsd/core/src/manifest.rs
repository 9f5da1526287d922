//! The manifest of the programs: which files they are made of, and the digest of each.
//!
//! ```text
//! kms-manifest/1\n
//! <SHA-256, lower-case hexadecimal>  <path>\n      for each file
//! ```
//!
//! It is the text of a signed note ([`crate::audit::note`]). A path that is not absolute begins at the
//! manifest's folder. Reading files and hashing them is the business of `kms-crypto` and the daemon.

use crate::id::Digest;

/// What the programs must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// Each file and its digest, in the order in which they are checked.
    pub files: Vec<(String, Digest)>,
}

/// The text is not a manifest.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a manifest of at most {FILES_MAX} files, each named once and in one line")]
pub struct ManifestError;

impl Manifest {
    /// Takes a list of files.
    ///
    /// # Errors
    /// [`ManifestError`] for none, too many, one named twice, or a name that is not one line.
    pub fn new(files: Vec<(String, Digest)>) -> Result<Self, ManifestError> {
        let bad = |name: &String| name.is_empty() || name.contains(char::is_control);
        let mut names: Vec<_> = files.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        let fits = (1..=FILES_MAX).contains(&files.len()) && names.len() == files.len();
        if fits && !names.into_iter().any(bad) { Ok(Self { files }) } else { Err(ManifestError) }
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        let lines = self.files.iter().map(|(name, digest)| format!("{digest}  {name}\n"));
        core::iter::once(format!("{HEADER}\n")).chain(lines).collect()
    }

    /// Reads the text.
    ///
    /// # Errors
    /// [`ManifestError`] for anything that [`Manifest::text`] does not write.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let mut lines = text.split_terminator('\n');
        if lines.next() != Some(HEADER) {
            return Err(ManifestError);
        }
        let file = |line: &str| {
            let (digest, name) = line.split_once("  ")?;
            let digest: [u8; 32] = hex::decode(digest).ok()?.try_into().ok()?;
            Some((name.to_owned(), Digest(digest)))
        };
        let files: Option<Vec<_>> = lines.map(file).collect();
        let manifest = Self::new(files.ok_or(ManifestError)?)?;
        // One form only: what reads back otherwise was written otherwise.
        if manifest.text() == text { Ok(manifest) } else { Err(ManifestError) }
    }
}

/// Most files of one manifest.
pub const FILES_MAX: usize = 64;
const HEADER: &str = "kms-manifest/1";

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let files = [("kmsd", 1), ("/usr/lib/libkms_pkcs11.so", 2)];
        let files = files.map(|(name, byte)| (name.to_owned(), Digest([byte; 32])));
        Manifest::new(files.to_vec()).unwrap()
    }

    #[test]
    fn a_manifest_reads_back_in_one_form_only() {
        let text = manifest().text();
        assert_eq!(Manifest::parse(&text), Ok(manifest()));
        for other in [
            String::new(),
            "kms-manifest/1\n".to_owned(),
            text.to_uppercase(),
            text.replace("  ", " "),
            text.trim_end().to_owned(),
            format!("{text}\n"),
            format!("{text}{}", text.lines().nth(1).unwrap()),
            text.replace("kms-manifest/1", "kms-manifest/2"),
        ] {
            assert_eq!(Manifest::parse(&other), Err(ManifestError), "{other:?}");
        }
    }

    #[test]
    fn no_file_is_named_twice_or_over_two_lines() {
        let file = |name: &str| (name.to_owned(), Digest([0; 32]));
        for files in [
            vec![],
            vec![file("a"), file("a")],
            vec![file("a\nb")],
            vec![file("")],
            (0..=FILES_MAX).map(|n| file(&n.to_string())).collect(),
        ] {
            assert_eq!(Manifest::new(files), Err(ManifestError));
        }
    }
}
