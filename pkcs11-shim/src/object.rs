//! Objects: the versions of the daemon's keys as PKCS#11 sees them.
//!
//! A version is one secret key, or a private and a public key, and a certificate if it has one. What is known of it stays until a
//! search brings something newer; whether a key may be used is asked of the daemon every time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cryptoki_sys::*;
use kms_proto::v1;
use p256::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;

use crate::algorithm::{self, Size};
use crate::asn1::{self, CertificateParts};
use crate::module::lock;
use crate::rv::{HOSTILE, Result};
use crate::token::{MECHANISMS_MAX, known_mechanisms};

/// The objects that were ever found, by handle.
#[derive(Default)]
pub(crate) struct Objects(Mutex<Table>);

#[derive(Default)]
struct Table {
    last: CK_OBJECT_HANDLE,
    objects: HashMap<CK_OBJECT_HANDLE, Arc<Object>>,
    handles: HashMap<Identity, CK_OBJECT_HANDLE>,
}

type Identity = (CK_SLOT_ID, String, Class);

/// One object.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) slot: CK_SLOT_ID,
    pub(crate) class: Class,
    /// The name of the version.
    pub(crate) version: String,
    pub(crate) algorithm: v1::Algorithm,
    pub(crate) state: v1::State,
    pub(crate) usages: Vec<v1::Usage>,
    /// CKA_LABEL as it is shown.
    pub(crate) label: String,
    /// CKA_ID.
    pub(crate) id: Vec<u8>,
    /// Of both halves of a pair.
    pub(crate) public_key: Option<PublicKey>,
    /// CKA_LOCAL.
    pub(crate) local: bool,
    pub(crate) mechanisms: Vec<v1::Mechanism>,
    /// CKA_EXTRACTABLE.
    pub(crate) exportable: bool,
    /// Not CKA_NEVER_EXTRACTABLE.
    pub(crate) ever_exportable: bool,
    /// CKA_TRUSTED.
    pub(crate) trusted: bool,
    /// CKA_VALUE_LEN.
    pub(crate) length_bytes: u32,
    /// Of the certificate object alone.
    pub(crate) certificate: Option<Certificate>,
}

/// A certificate that somebody has put on a version.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// X.509.
    pub(crate) der: Vec<u8>,
    pub(crate) parts: CertificateParts,
}

/// CKA_CLASS.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Class {
    Certificate,
    Private,
    Public,
    Secret,
}

/// A public key, parsed once and on trust of nobody.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    /// SubjectPublicKeyInfo.
    pub(crate) der: Vec<u8>,
    /// The key's own bits: a point, or the bytes of a post-quantum key.
    pub(crate) bits: Vec<u8>,
    pub(crate) key: Key,
}

/// The key itself, where signatures are checked here.
#[derive(Clone, Debug)]
pub(crate) enum Key {
    /// The daemon checks its signatures.
    Other,
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    Rsa(rsa::RsaPublicKey),
}

impl Objects {
    /// Takes an object in, or what is new of it, and gives its handle.
    pub(crate) fn put(&self, object: Object) -> CK_OBJECT_HANDLE {
        let mut table = lock(&self.0);
        let table = &mut *table;
        let identity = (object.slot, object.version.clone(), object.class);
        let handle = *table.handles.entry(identity).or_insert_with(|| {
            table.last += 1;
            table.last
        });
        table.objects.insert(handle, Arc::new(object));
        handle
    }

    pub(crate) fn find(&self, handle: CK_OBJECT_HANDLE) -> Option<Arc<Object>> {
        lock(&self.0).objects.get(&handle).cloned()
    }

    /// Forgets all objects of a version that is no more.
    pub(crate) fn forget(&self, slot: CK_SLOT_ID, version: &str) {
        let mut table = lock(&self.0);
        for class in [Class::Certificate, Class::Private, Class::Public, Class::Secret] {
            if let Some(handle) = table.handles.remove(&(slot, version.to_owned(), class)) {
                table.objects.remove(&handle);
            }
        }
    }
}

impl Object {
    /// The objects of a version; none if it has no key (any more), or one of a kind that this
    /// module does not know.
    pub(crate) fn of_version(slot: CK_SLOT_ID, wire: v1::TokenObject) -> Result<Vec<Self>> {
        let v1::TokenObject {
            version,
            algorithm,
            state,
            usages,
            label,
            id,
            public_key,
            local,
            primary,
            mechanisms,
            exportable,
            ever_exportable,
            trusted,
            length_bytes,
            certificate,
        } = wire;
        if [version.len(), label.len(), id.len(), public_key.len()].iter().any(|n| *n > FIELD_MAX)
            || certificate.len() > CERTIFICATE_MAX
            || usages.len().max(mechanisms.len()) > MECHANISMS_MAX
        {
            return Err(HOSTILE);
        }
        let algorithm = v1::Algorithm::try_from(algorithm).unwrap_or_default();
        let state = v1::State::try_from(state).unwrap_or_default();
        let keyless = [v1::State::Destroyed, v1::State::PendingImport, v1::State::Unspecified];
        if algorithm::facts(algorithm).is_none() || keyless.contains(&state) {
            return Ok(Vec::new());
        }
        let usages: Vec<_> =
            usages.into_iter().filter_map(|usage| v1::Usage::try_from(usage).ok()).collect();
        let label = shown_label(label, &version, primary);
        let public_key = PublicKey::parse(algorithm, public_key)?;
        let certificate = Certificate::parse(certificate)?;
        let mut classes = match public_key {
            Some(_) => vec![Class::Private, Class::Public],
            None => vec![Class::Secret],
        };
        classes.extend(certificate.as_ref().map(|_| Class::Certificate));
        let mechanisms = known_mechanisms(mechanisms);
        let object = |class: &Class| Self {
            slot,
            class: *class,
            version: version.clone(),
            algorithm,
            state,
            usages: usages.clone(),
            label: label.clone(),
            id: id.clone(),
            public_key: public_key.clone(),
            local,
            mechanisms: mechanisms.clone(),
            exportable,
            ever_exportable,
            trusted,
            length_bytes,
            certificate: certificate.clone().filter(|_| *class == Class::Certificate),
        };
        Ok(classes.iter().map(object).collect())
    }

    /// The objects of a key that was just made out of another one.
    pub(crate) fn of_new_key(
        slot: CK_SLOT_ID,
        key: Option<v1::Key>,
        version: Option<v1::KeyVersion>,
    ) -> Result<Vec<Self>> {
        let (key, version) = (key.ok_or(HOSTILE)?, version.ok_or(HOSTILE)?);
        let number = version.name.rsplit('/').next().and_then(|number| number.parse().ok());
        Self::of_version(
            slot,
            v1::TokenObject {
                primary: number == Some(key.primary_version),
                version: version.name,
                algorithm: version.algorithm,
                state: version.state,
                usages: key.usages,
                label: key.pkcs11_label,
                id: key.pkcs11_id,
                public_key: version.public_key,
                local: version.local,
                mechanisms: key.mechanisms,
                exportable: key.exportable,
                ever_exportable: version.ever_exportable,
                trusted: key.trusted,
                length_bytes: version.length_bytes,
                certificate: version.certificate,
            },
        )
    }

    /// CKA_PRIVATE.
    pub(crate) const fn is_private(&self) -> bool {
        matches!(self.class, Class::Private | Class::Secret)
    }

    /// Whether the key was made for this.
    pub(crate) fn is_for(&self, usage: v1::Usage) -> bool {
        self.usages.contains(&usage)
    }
}

impl PublicKey {
    /// Reads a public key, which must be one of the algorithm; a secret key has none.
    fn parse(algorithm: v1::Algorithm, der: Vec<u8>) -> Result<Option<Self>> {
        let facts = algorithm::facts(algorithm).ok_or(HOSTILE)?;
        if !algorithm::is_pair(algorithm) {
            return if der.is_empty() { Ok(None) } else { Err(HOSTILE) };
        }
        let (identifier, bits) = asn1::public_key_parts(&der).ok_or(HOSTILE)?;
        let fits = match facts.size {
            // The identifier of the curve stands last, as parameter or as the algorithm itself.
            Size::Curve { oid, point_bytes, .. } => {
                identifier.ends_with(oid) && bits.len() == point_bytes
            }
            Size::Set { public_key_bytes, .. } => bits.len() == public_key_bytes,
            _ => true,
        };
        if !fits {
            return Err(HOSTILE);
        }
        let key = match algorithm {
            v1::Algorithm::EcP256 => {
                let key = p256::ecdsa::VerifyingKey::from_public_key_der(&der);
                Key::P256(key.map_err(|_| HOSTILE)?)
            }
            v1::Algorithm::EcP384 => {
                let key = p384::ecdsa::VerifyingKey::from_public_key_der(&der);
                Key::P384(key.map_err(|_| HOSTILE)?)
            }
            v1::Algorithm::Rsa2048 | v1::Algorithm::Rsa3072 | v1::Algorithm::Rsa4096 => {
                let key = rsa::RsaPublicKey::from_public_key_der(&der).map_err(|_| HOSTILE)?;
                if Size::Modulus(CK_ULONG::from(key.n().bits())) != facts.size {
                    return Err(HOSTILE);
                }
                Key::Rsa(key)
            }
            _ => Key::Other,
        };
        let bits = bits.to_vec();
        Ok(Some(Self { der, bits, key }))
    }
}

impl Certificate {
    /// Reads a certificate, if there is one.
    fn parse(der: Vec<u8>) -> Result<Option<Self>> {
        if der.is_empty() {
            return Ok(None);
        }
        let parts = asn1::certificate_parts(&der).ok_or(HOSTILE)?;
        Ok(Some(Self { der, parts }))
    }
}

/// The primary version bears the label; others add their number, so that a label finds one key.
fn shown_label(label: String, version: &str, primary: bool) -> String {
    match version.rsplit('/').next() {
        Some(number) if !primary && !label.is_empty() => format!("{label}@{number}"),
        _ => label,
    }
}

/// The longest name, label, id and public key that are taken from the daemon.
const FIELD_MAX: usize = 8192;

/// The longest certificate.
const CERTIFICATE_MAX: usize = 64 * 1024;

#[cfg(test)]
pub(crate) mod tests {
    use p256::pkcs8::EncodePublicKey as _;

    use super::*;

    /// An EC version as the daemon tells of it.
    pub(crate) fn p256_version() -> v1::TokenObject {
        let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        v1::TokenObject {
            version: "tenants/default/locations/here/keyRings/r/keys/k/versions/2".into(),
            algorithm: v1::Algorithm::EcP256.into(),
            state: v1::State::Active.into(),
            usages: vec![v1::Usage::Sign.into(), v1::Usage::Verify.into()],
            label: "web".into(),
            id: vec![1, 2],
            public_key: key.verifying_key().to_public_key_der().unwrap().into_vec(),
            local: true,
            primary: true,
            mechanisms: vec![v1::Mechanism::EcdsaSha256.into(), v1::Mechanism::Ecdh.into()],
            ..Default::default()
        }
    }

    /// An AES version as the daemon tells of it.
    pub(crate) fn aes_version() -> v1::TokenObject {
        v1::TokenObject {
            algorithm: v1::Algorithm::Aes256.into(),
            usages: vec![v1::Usage::Encrypt.into(), v1::Usage::Decrypt.into()],
            mechanisms: vec![v1::Mechanism::AesGcm.into(), v1::Mechanism::AesCbcPad.into()],
            length_bytes: 32,
            public_key: Vec::new(),
            ..p256_version()
        }
    }

    #[test]
    fn a_pair_is_two_objects_and_a_secret_key_is_one() {
        let classes = |wire| -> Vec<_> {
            Object::of_version(0, wire).unwrap().iter().map(|object| object.class).collect()
        };
        assert_eq!(classes(p256_version()), [Class::Private, Class::Public]);
        assert_eq!(classes(aes_version()), [Class::Secret]);
    }

    #[test]
    fn versions_without_a_key_are_not_shown() {
        for state in [v1::State::Destroyed, v1::State::PendingImport, v1::State::Unspecified] {
            let gone = v1::TokenObject { state: state.into(), ..p256_version() };
            assert!(Object::of_version(0, gone).unwrap().is_empty(), "{state:?}");
        }
        let newer = v1::TokenObject { algorithm: 99, ..p256_version() };
        assert!(Object::of_version(0, newer).unwrap().is_empty());
    }

    #[test]
    fn a_public_key_that_is_none_is_the_device_s_fault() {
        let damaged = v1::TokenObject { public_key: vec![0x30; 91], ..p256_version() };
        assert_eq!(Object::of_version(0, damaged).unwrap_err(), HOSTILE);
        let secret_with_key =
            v1::TokenObject { public_key: p256_version().public_key, ..aes_version() };
        assert_eq!(Object::of_version(0, secret_with_key).unwrap_err(), HOSTILE);
        let endless = v1::TokenObject { label: "x".repeat(FIELD_MAX + 1), ..aes_version() };
        assert_eq!(Object::of_version(0, endless).unwrap_err(), HOSTILE);
    }

    #[test]
    fn older_versions_show_their_number() {
        let older = v1::TokenObject { primary: false, ..aes_version() };
        assert_eq!(Object::of_version(0, older).unwrap()[0].label, "web@2");
        assert_eq!(Object::of_version(0, aes_version()).unwrap()[0].label, "web");
    }

    #[test]
    fn a_handle_stays_and_dies_with_its_version() {
        let objects = Objects::default();
        let put = || -> Vec<_> {
            let found = Object::of_version(0, p256_version()).unwrap();
            found.into_iter().map(|object| objects.put(object)).collect()
        };
        let (first, again) = (put(), put());
        assert_eq!(first, again);
        objects.forget(0, &p256_version().version);
        assert!(first.iter().all(|handle| objects.find(*handle).is_none()));
        assert!(put().iter().all(|handle| !first.contains(handle)));
    }
}
