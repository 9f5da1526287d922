//! The private key in a PKCS#12 file (RFC 7292), as OpenSSL 3 and its kind write them: PBES2, and a MAC with
//! HMAC. The ciphers of last century's files are left to `openssl pkcs12 -legacy`, as messages say.

use der::asn1::{Any, ObjectIdentifier, OctetString};
use der::{Decode as _, Encode as _, Sequence};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::spki::AlgorithmIdentifier;
use sha1::Sha1;
use sha2::digest::Digest;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// The private key in the file, as PKCS#8 in DER; nothing when it is no such file.
pub(crate) fn private_key(
    bytes: &[u8],
    passphrase: impl FnOnce() -> Result<Zeroizing<String>, Failure>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let Ok(Pfx { version: 3, auth_safe, mac }) = Pfx::from_der(bytes) else { return Ok(None) };
    let safe = data(&auth_safe).ok_or_else(|| {
        input("a PKCS#12 file that is signed instead of protected by a passphrase")
    })?;
    let mac = mac.ok_or_else(|| input("a PKCS#12 file without a MAC proves nothing"))?;
    let passphrase = passphrase()?;
    check_mac(&mac, &passphrase, &safe)?;
    let damaged = |_| input("a PKCS#12 file that does not hold together");
    let contents = Vec::<ContentInfo>::from_der(&safe).map_err(damaged)?;
    if contents.len() > PARTS_MAX {
        return Err(input("a PKCS#12 file of too many parts"));
    }
    // Plain parts first: keys stand there, shrouded, and certificates in the encrypted ones.
    let plain = contents.iter().filter_map(data);
    for bags in plain {
        if let Some(key) = key_in(&bags, &passphrase)? {
            return Ok(Some(key));
        }
    }
    for content in contents.iter().filter(|content| content.content_type == ENCRYPTED_DATA) {
        let bags = decrypt(content, &passphrase)?;
        if let Some(key) = key_in(&bags, &passphrase)? {
            return Ok(Some(key));
        }
    }
    Err(input("a PKCS#12 file without a private key"))
}

/// RFC 7292 §4.
#[derive(Sequence)]
struct Pfx {
    version: u8,
    auth_safe: ContentInfo,
    #[asn1(optional = "true")]
    mac: Option<MacData>,
}

/// RFC 5652 §3.
#[derive(Sequence)]
struct ContentInfo {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: Any,
}

#[derive(Sequence)]
struct MacData {
    mac: DigestInfo,
    salt: OctetString,
    #[asn1(default = "one")]
    iterations: u32,
}

const fn one() -> u32 {
    1
}

#[derive(Sequence)]
struct DigestInfo {
    algorithm: AlgorithmIdentifier<Any>,
    digest: OctetString,
}

/// RFC 5652 §8.
#[derive(Sequence)]
struct EncryptedData {
    version: u8,
    content: EncryptedContentInfo,
}

#[derive(Sequence)]
struct EncryptedContentInfo {
    content_type: ObjectIdentifier,
    algorithm: AlgorithmIdentifier<Any>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    content: OctetString,
}

/// RFC 7292 §4.2. Attributes are left unread.
#[derive(Sequence)]
struct SafeBag {
    bag_id: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: Any,
    #[asn1(optional = "true")]
    attributes: Option<der::asn1::SetOfVec<Any>>,
}

/// What stands in a part of plain data.
fn data(content: &ContentInfo) -> Option<Zeroizing<Vec<u8>>> {
    let octets = (content.content_type == DATA).then(|| content.content.decode_as::<OctetString>());
    octets?.ok().map(|octets| Zeroizing::new(octets.into_bytes().into()))
}

/// The first private key among the bags.
fn key_in(bags: &[u8], passphrase: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let bags = Vec::<SafeBag>::from_der(bags)
        .map_err(|_| input("a PKCS#12 file that does not hold together"))?;
    for SafeBag { bag_id, value, attributes: _ } in bags {
        if bag_id == KEY_BAG {
            let der =
                value.to_der().map_err(|_| input("a PKCS#12 file that does not hold together"))?;
            return Ok(Some(Zeroizing::new(der)));
        }
        if bag_id == SHROUDED_KEY_BAG {
            let der =
                value.to_der().map_err(|_| input("a PKCS#12 file that does not hold together"))?;
            let opened = EncryptedPrivateKeyInfoRef::from_der(&der).and_then(|shrouded| {
                shrouded.decrypt(passphrase.as_bytes()).map_err(|_| der_error())
            });
            return opened
                .map(|key| Some(Zeroizing::new(key.as_bytes().to_vec())))
                .map_err(|_| input(LEGACY));
        }
    }
    Ok(None)
}

fn der_error() -> der::Error {
    der::ErrorKind::Failed.into()
}

fn decrypt(content: &ContentInfo, passphrase: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let opened = || {
        let EncryptedData { version: _, content } = content.content.decode_as().ok()?;
        let EncryptedContentInfo { content_type: _, algorithm, content } = content;
        let algorithm = algorithm.to_der().ok()?;
        let scheme = EncryptionScheme::from_der(&algorithm).ok()?;
        scheme.decrypt(passphrase.as_bytes(), content.as_bytes()).ok()
    };
    opened().map(Zeroizing::new).ok_or_else(|| input(LEGACY))
}

/// RFC 7292 §5.1, verification.
fn check_mac(mac: &MacData, passphrase: &str, safe: &[u8]) -> Result<(), Failure> {
    let MacData { mac: DigestInfo { algorithm, digest }, salt, iterations } = mac;
    if *iterations == 0 || *iterations > ITERATIONS_MAX {
        return Err(input("a PKCS#12 file with an unreasonable number of iterations"));
    }
    let password = bmp_string(passphrase);
    let (salt, tag) = (salt.as_bytes(), digest.as_bytes());
    macro_rules! verifies {
        ($hash:ty, $block_bytes:literal) => {{
            let key = mac_key::<$hash>($block_bytes, &password, salt, *iterations);
            Hmac::<$hash>::new_from_slice(&key)
                .is_ok_and(|mac| mac.chain_update(safe).verify_slice(tag).is_ok())
        }};
    }
    let good = match algorithm.oid {
        SHA_1 => verifies!(Sha1, 64),
        SHA_256 => verifies!(Sha256, 64),
        SHA_384 => verifies!(Sha384, 128),
        SHA_512 => verifies!(Sha512, 128),
        _ => return Err(input("a PKCS#12 file with a MAC that is not known here")),
    };
    if good {
        Ok(())
    } else {
        Err(input("the passphrase does not open it, or the file was changed"))
    }
}

/// RFC 7292 appendix B.2 with ID 3, for as many bytes as the hash function gives: one round.
fn mac_key<H: Digest>(
    block_bytes: usize,
    password: &[u8],
    salt: &[u8],
    iterations: u32,
) -> Zeroizing<Vec<u8>> {
    let fill = |part: &[u8]| -> Zeroizing<Vec<u8>> {
        let length = part.len().next_multiple_of(block_bytes);
        Zeroizing::new(part.iter().copied().cycle().take(length).collect())
    };
    let mut hash = H::new();
    hash.update(vec![MAC_KEY_ID; block_bytes]);
    hash.update(fill(salt).as_slice());
    hash.update(fill(password).as_slice());
    let mut key = Zeroizing::new(hash.finalize().to_vec());
    for _ in 1..iterations {
        key = Zeroizing::new(H::digest(key.as_slice()).to_vec());
    }
    key
}

/// RFC 7292 appendix B.1: UTF-16, big-endian, with its end.
fn bmp_string(text: &str) -> Zeroizing<Vec<u8>> {
    let units = text.encode_utf16().chain([0]);
    Zeroizing::new(units.flat_map(u16::to_be_bytes).collect())
}

fn input(why: &str) -> Failure {
    Failure::Input(why.to_owned())
}

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.6");
const KEY_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.1");
const SHROUDED_KEY_BAG: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.2");
const SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
/// RFC 7292 appendix B.3.
const MAC_KEY_ID: u8 = 3;
const ITERATIONS_MAX: u32 = 10_000_000;
const PARTS_MAX: usize = 64;
const LEGACY: &str = "its encryption is not known here; write it anew with: openssl pkcs12 -legacy -in OLD -nodes -out key.pem, and import key.pem";
