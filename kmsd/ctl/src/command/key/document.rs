//! The files that hold a ciphertext or a wrapped key with all that is needed to open it, but the key.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms_client::v1;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::shape;
use crate::failure::Failure;
use crate::input;
use crate::view;

/// A ciphertext with all that is needed to open it, but the key. Of a long one, this is the first line,
/// without the ciphertext, which follows as it is.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Ciphertext {
    #[serde(rename = "type")]
    type_: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mechanism: Option<String>,
    initialization_vector: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ciphertext: Option<String>,
}

/// The one line of a document.
pub(crate) fn head(
    type_: &str,
    name: String,
    mechanism: v1::Mechanism,
    initialization_vector: &[u8],
    ciphertext: Option<&[u8]>,
) -> Vec<u8> {
    let named = mechanism != v1::Mechanism::Unspecified;
    let document = Ciphertext {
        type_: type_.to_owned(),
        name,
        mechanism: named.then(|| view::mechanism(mechanism)),
        initialization_vector: STANDARD.encode(initialization_vector),
        ciphertext: ciphertext.map(|bytes| STANDARD.encode(bytes)),
    };
    let mut bytes = json!(document).to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// A document, read.
pub(crate) struct Opened {
    pub(super) type_: String,
    pub(crate) name: String,
    pub(crate) mechanism: i32,
    pub(crate) initialization_vector: Vec<u8>,
    pub(super) ciphertext: Option<Vec<u8>>,
}

/// Reads a document of which the ciphertext is part.
pub(crate) fn read_ciphertext(path: &Path, type_: &str) -> Result<(Opened, Vec<u8>), Failure> {
    let bytes = input::read(path, DOCUMENT_BYTES_MAX)?;
    let mut opened = parse_ciphertext(path, &bytes)?;
    match opened.ciphertext.take() {
        Some(ciphertext) if opened.type_ == type_ => Ok((opened, ciphertext)),
        _ => Err(not_a_ciphertext(path)),
    }
}

pub(super) fn parse_ciphertext(path: &Path, bytes: &[u8]) -> Result<Opened, Failure> {
    let wrong = || not_a_ciphertext(path);
    let document: Ciphertext = serde_json::from_slice(bytes).map_err(|_| wrong())?;
    let Ciphertext { type_, name, mechanism, initialization_vector, ciphertext } = document;
    let decode = |text: String| STANDARD.decode(text).map_err(|_| wrong());
    Ok(Opened {
        type_,
        name,
        mechanism: shape::wire_mechanism(mechanism.as_deref())?,
        initialization_vector: decode(initialization_vector)?,
        ciphertext: ciphertext.map(decode).transpose()?,
    })
}

pub(super) fn not_a_ciphertext(path: &Path) -> Failure {
    Failure::input(path.display(), "not what kmsctl wrote; give the whole file, as it was written")
}

/// The `type` of a ciphertext in one document.
pub(crate) const CIPHERTEXT_TYPE: &str = "kms-ciphertext/v1";
/// The `type` of one that follows its document.
pub(super) const STREAM_TYPE: &str = "kms-ciphertext-stream/v1";
/// 64 KiB in base64, twice over.
pub(super) const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ciphertext_reads_back_and_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        let line =
            head(CIPHERTEXT_TYPE, "dev/a@1".into(), v1::Mechanism::AesCtr, &[0, 1], Some(&[3]));
        std::fs::write(&path, &line).unwrap();
        let (opened, ciphertext) = read_ciphertext(&path, CIPHERTEXT_TYPE).unwrap();
        assert_eq!((opened.name.as_str(), ciphertext), ("dev/a@1", vec![3]));
        assert_eq!(opened.initialization_vector, [0, 1]);
        assert_eq!(opened.mechanism, i32::from(v1::Mechanism::AesCtr));
        assert_eq!(read_ciphertext(&path, "other").err().unwrap().exit_code(), 2);
        // What was written before there were several mechanisms has none.
        let old = json!({ "type": CIPHERTEXT_TYPE, "name": "dev/a@1",
            "initialization_vector": "AAEC", "ciphertext": "AwQ=" });
        std::fs::write(&path, old.to_string()).unwrap();
        assert_eq!(read_ciphertext(&path, CIPHERTEXT_TYPE).unwrap().0.mechanism, 0);
        for (member, value) in [("mechanism", "ROT13"), ("ciphertext", "?"), ("extra", "x")] {
            let mut bad = old.clone();
            bad[member] = json!(value);
            std::fs::write(&path, bad.to_string()).unwrap();
            let refused = read_ciphertext(&path, CIPHERTEXT_TYPE).err().unwrap();
            assert_eq!(refused.exit_code(), 2, "{member}");
        }
    }
}
