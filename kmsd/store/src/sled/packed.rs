//! Rows in the index, made shorter: most of a row is text that every row of its kind has, or its own
//! name, so each is compressed (LZ4) against a fixed text and its key.
//!
//! ```text
//! payload = revision[8] || 2 || length of value[4] || LZ4 block, with the dictionary TEXT || key
//!         | as `entry` has it, for a deleted row, and a value that would not become shorter
//! ```
//!
//! The index's checksum covers what is stored, and is checked before anything is unpacked. What is
//! unpacked never takes up more than [`VALUE_BYTES_MAX`].

use std::borrow::Cow;

use lz4_flex::block::{compress_with_dict, decompress_into_with_dict};

use crate::VALUE_BYTES_MAX;
use crate::batch::{RowChange, RowState};
use crate::entry::{LIVE, decode_state, encode_row};

/// The payload of a row.
pub(crate) fn pack(row: &RowChange) -> Vec<u8> {
    let RowChange { key, revision, value } = row;
    let Some(value) = value else { return encode_row(row) };
    let packed = compress_with_dict(value, &dictionary(key.as_bytes()));
    let Ok(length) = u32::try_from(value.len()) else { return encode_row(row) };
    if packed.len() + LENGTH_BYTES >= value.len() {
        return encode_row(row);
    }
    [&revision.to_be_bytes()[..], &[PACKED], &length.to_be_bytes(), &packed].concat()
}

/// The payload as `entry` has it; `None` when it is none that was packed for `key`.
pub(crate) fn unpack<'a>(key: &[u8], payload: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let Some((revision, packed)) = packed_parts(payload) else {
        return Some(Cow::Borrowed(payload));
    };
    let (length, packed) = packed.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    // Only what becomes shorter is packed; so both lengths are bounded.
    if length > VALUE_BYTES_MAX || packed.len() >= length {
        return None;
    }
    let mut unpacked = vec![0; HEAD_BYTES + length];
    let (head, value) = unpacked.split_at_mut(HEAD_BYTES);
    head[..REVISION_BYTES].copy_from_slice(revision);
    head[REVISION_BYTES] = LIVE;
    let found = decompress_into_with_dict(packed, value, &dictionary(key)).ok()?;
    (found == length).then_some(Cow::Owned(unpacked))
}

/// Where the row stands, without its value: as it stands there, packed or not.
pub(crate) fn packed_state(payload: &[u8]) -> Option<RowState> {
    match packed_parts(payload) {
        Some((revision, _)) => {
            Some(RowState { revision: u64::from_be_bytes(*revision), live: true })
        }
        None => decode_state(payload),
    }
}

/// The revision and what follows the kind, of a row that is packed.
fn packed_parts(payload: &[u8]) -> Option<(&[u8; REVISION_BYTES], &[u8])> {
    let (revision, rest) = payload.split_first_chunk()?;
    match rest.split_first()? {
        (&PACKED, packed) => Some((revision, packed)),
        _ => None,
    }
}

fn dictionary(key: &[u8]) -> Vec<u8> {
    [TEXT, key].concat()
}

/// Beside the kinds of `entry`.
const PACKED: u8 = 2;
const REVISION_BYTES: usize = 8;
const HEAD_BYTES: usize = REVISION_BYTES + 1;
const LENGTH_BYTES: usize = 4;

/// What rows have in common. It only makes them shorter, so it need not be what the daemon writes today;
/// but what was packed with another text does not unpack. Whoever changes it counts `INDEX_FORMAT` up.
const TEXT: &[u8] = concat!(
    r#"{"digest":"","holder":"apps/users/"}{"slot":}"#,
    r#"{"at":17,"operation_id":"","resource":"tenants/default/locations/local/keyRings/"}"#,
    r#"{"commitment":"KEYS","lineage":"tenants/DATA"}"#,
    r#"{"action":"RotateKey","ActivateVersion","DestroyVersion","UpdateKey","CreateKey","#,
    r#""actor":"users/apps/","at":17,"from":null,"from":"ACTIVE","#,
    r#""key":"tenants/default/locations/local/keyRings/","operation_id":"","#,
    r#""to":"DEACTIVATED","to":"DESTROY_SCHEDULED","to":"DESTROYED","to":"ACTIVE","version":1}"#,
    r#"{"algorithm":"EC_P384","algorithm":"ED25519","algorithm":"RSA_3072","algorithm":"EC_P256","#,
    r#""created_at":17,"dataset":"","deleted_at":null,"exportable":false,"#,
    r#""floors":{"process":0,"protect":0},"labels":{},"latest":1,"#,
    r#""mechanisms":["AES_CMAC","HMAC_SHA256","RSA_OAEP_SHA256","RSA_PSS_SHA256","EDDSA","AES_GCM"],"#,
    r#""model":"","name":"tenants/default/locations/local/keyRings/","pkcs11":{"id":"","label":""},"#,
    r#""primary":1,"quorum":null,"requirement":null,"rotation":null,"trusted":false,"#,
    r#""usages":["DERIVE","MAC_SIGN","MAC_VERIFY","DECRYPT","ENCRYPT","UNWRAP","WRAP"]}"#,
    r#"{"certificate":"","changed_at":17,"compromise":null,"created_at":17,"#,
    r#""dates":{"activates_at":null,"deactivates_at":null,"destroys_at":null},"enabled":true,"#,
    r#""header":{"algorithm":"AES_256","dataset":"","ever_exportable":false,"exportable":false,"#,
    r#""length_bytes":32,"lineage":"tenants/default/locations/local/keyRings/versions/1","#,
    r#""mechanisms":["ECDSA_SHA256"],"model":"","origin":"IMPORTED","origin":"GENERATED","#,
    r#""quorum_digest":null,"requirement_digest":null,"usages":["SIGN","VERIFY"],"#,
    r#""version":"tenants/default/locations/local/keyRings/versions/1"},"protections_reserved":0,"#,
    r#""public_key":"30820122300d06092a864886f70d01010105000382010f003082010a0282010100"#,
    r#"3076301006072a8648ce3d020106052b8104002203620004302a300506032b6570032100"#,
    r#"3059301306072a8648ce3d020106082a8648ce3d03010703420004","public_key":"","#,
    r#""slot":,"state":"ACTIVE","undo":null}"#,
)
.as_bytes();

#[cfg(test)]
mod tests {
    use kms_core::id::Digest;

    use super::*;
    use crate::entry::decode_row;
    use crate::sled::index::INDEX_FORMAT;

    const KEY: &str = "key/tenants/default/locations/local/keyRings/shop/keys/orders";
    /// As the daemon writes it, but for the envelope.
    const VALUE: &[u8] = br#"{"algorithm":"AES_256","created_at":1795874288736,"dataset":"","deleted_at":null,"exportable":false,"floors":{"process":0,"protect":0},"labels":{"env":"prod"},"latest":1,"mechanisms":["AES_GCM"],"model":"","name":"tenants/default/locations/local/keyRings/shop/keys/orders","pkcs11":{"id":"","label":"orders"},"primary":1,"quorum":null,"requirement":null,"rotation":null,"trusted":false,"usages":["DECRYPT","ENCRYPT","UNWRAP","WRAP"]}"#;

    fn row(value: Option<&[u8]>) -> RowChange {
        RowChange { key: KEY.to_owned(), revision: 7, value: value.map(<[u8]>::to_vec) }
    }

    /// Bytes that nothing makes shorter, twice if wanted.
    fn noise(bytes: u32) -> Vec<u8> {
        let words = (0..bytes.div_ceil(32)).map(|i| Digest::of(&[&i.to_be_bytes()]));
        words.flat_map(|word| *word.as_bytes()).take(bytes as usize).collect()
    }

    #[test]
    fn rows_read_back_and_a_daemons_row_becomes_much_shorter() {
        let noise = noise(100_000);
        let long = vec![7; VALUE_BYTES_MAX];
        let twice = [&noise[..], &noise].concat();
        for value in [&b""[..], b"1", VALUE, &noise, &noise[..13], &twice[90_000..110_000], &long] {
            let packed = pack(&row(Some(value)));
            let unpacked = unpack(KEY.as_bytes(), &packed).unwrap();
            let read = decode_row(&unpacked).unwrap().unwrap();
            assert_eq!((read.revision, &read.value[..]), (7, value));
            assert_eq!(packed_state(&packed), Some(RowState { revision: 7, live: true }));
            assert!(packed.len() <= HEAD_BYTES + value.len(), "it became longer");
        }
        let packed = pack(&row(Some(VALUE)));
        assert!(packed.len() * 3 < VALUE.len(), "{} of {} bytes", packed.len(), VALUE.len());
        let deleted = pack(&row(None));
        assert_eq!(decode_row(&unpack(KEY.as_bytes(), &deleted).unwrap()), Some(None));
        assert_eq!(packed_state(&deleted), Some(RowState { revision: 7, live: false }));
    }

    #[test]
    fn what_was_not_packed_so_does_not_unpack_and_takes_no_memory() {
        let packed = pack(&row(Some(VALUE)));
        let unpacks = |bytes: &[u8]| unpack(KEY.as_bytes(), bytes).is_some();
        assert!(unpacks(&packed));
        for cut in HEAD_BYTES..packed.len() {
            assert!(!unpacks(&packed[..cut]), "cut at {cut}");
        }
        let with_length = |length: u32| {
            let mut bytes = packed.clone();
            bytes[HEAD_BYTES..][..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
            bytes
        };
        let length = VALUE.len() as u32;
        assert!(unpacks(&with_length(length)));
        for wrong in [0, length - 1, length + 1, VALUE_BYTES_MAX as u32 + 1, u32::MAX] {
            assert!(!unpacks(&with_length(wrong)), "{wrong}");
        }
        // Whatever the bits are, it ends, within what the length says.
        for bit in 0..packed.len() * 8 {
            let mut changed = packed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let unpacked = unpack(KEY.as_bytes(), &changed);
            assert!(unpacked.is_none_or(|row| row.len() <= HEAD_BYTES + VALUE_BYTES_MAX));
        }
    }

    #[test]
    fn another_text_is_another_format() {
        let format = (INDEX_FORMAT, Digest::of(&[TEXT]).to_string());
        assert_eq!(
            format,
            (2, "89fb845e0f8a73cce8d0b81afeeef9398eb6a9fa33709a7aa3c6a2bf445c7420".to_owned())
        );
    }
}
