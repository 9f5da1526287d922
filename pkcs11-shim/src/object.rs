//! Objects: the versions of the daemon's keys as PKCS#11 sees them.
//!
//! A version is one secret key, or a private and a public key. What is known of it stays until a
//! search brings something newer; whether a key may be used is asked of the daemon every time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cryptoki_sys::*;
use kms_proto::v1;
use p256::pkcs8::DecodePublicKey as _;

use crate::module::lock;
use crate::rv::{HOSTILE, Result};

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
}

/// CKA_CLASS.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Class {
    Private,
    Public,
    Secret,
}

/// A public key, parsed once and on trust of nobody.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    /// SubjectPublicKeyInfo.
    pub(crate) der: Vec<u8>,
    pub(crate) key: Key,
}

/// The key itself.
#[derive(Clone, Debug)]
pub(crate) enum Key {
    P256(p256::ecdsa::VerifyingKey),
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
        for class in [Class::Private, Class::Public, Class::Secret] {
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
        } = wire;
        if [version.len(), label.len(), id.len(), public_key.len()].iter().any(|n| *n > FIELD_MAX) {
            return Err(HOSTILE);
        }
        let algorithm = v1::Algorithm::try_from(algorithm).unwrap_or_default();
        let state = v1::State::try_from(state).unwrap_or_default();
        let keyless = [v1::State::Destroyed, v1::State::PendingImport, v1::State::Unspecified];
        if algorithm == v1::Algorithm::Unspecified || keyless.contains(&state) {
            return Ok(Vec::new());
        }
        let usages: Vec<_> =
            usages.into_iter().filter_map(|usage| v1::Usage::try_from(usage).ok()).collect();
        let label = shown_label(label, &version, primary);
        let public_key = PublicKey::parse(algorithm, public_key)?;
        let classes: &[_] = match public_key {
            Some(_) => &[Class::Private, Class::Public],
            None => &[Class::Secret],
        };
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
        };
        Ok(classes.iter().map(object).collect())
    }

    /// CKA_PRIVATE.
    pub(crate) const fn is_private(&self) -> bool {
        !matches!(self.class, Class::Public)
    }

    /// Whether the key was made for this.
    pub(crate) fn is_for(&self, usage: v1::Usage) -> bool {
        self.usages.contains(&usage)
    }
}

impl PublicKey {
    fn parse(algorithm: v1::Algorithm, der: Vec<u8>) -> Result<Option<Self>> {
        let key = match algorithm {
            v1::Algorithm::EcSignP256Sha256 => {
                let key = p256::ecdsa::VerifyingKey::from_public_key_der(&der);
                Key::P256(key.map_err(|_| HOSTILE)?)
            }
            v1::Algorithm::RsaSignPkcs13072Sha256 | v1::Algorithm::RsaSignPss3072Sha256 => {
                let key = rsa::RsaPublicKey::from_public_key_der(&der);
                Key::Rsa(key.map_err(|_| HOSTILE)?)
            }
            v1::Algorithm::Aes256Gcm | v1::Algorithm::HmacSha256 if der.is_empty() => {
                return Ok(None);
            }
            _ => return Err(HOSTILE),
        };
        Ok(Some(Self { der, key }))
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

#[cfg(test)]
pub(crate) mod tests {
    use p256::pkcs8::EncodePublicKey as _;

    use super::*;

    /// An EC version as the daemon tells of it.
    pub(crate) fn p256_version() -> v1::TokenObject {
        let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        v1::TokenObject {
            version: "tenants/default/locations/here/keyRings/r/keys/k/versions/2".into(),
            algorithm: v1::Algorithm::EcSignP256Sha256.into(),
            state: v1::State::Active.into(),
            usages: vec![v1::Usage::Sign.into(), v1::Usage::Verify.into()],
            label: "web".into(),
            id: vec![1, 2],
            public_key: key.verifying_key().to_public_key_der().unwrap().into_vec(),
            local: true,
            primary: true,
        }
    }

    /// An AES version as the daemon tells of it.
    pub(crate) fn aes_version() -> v1::TokenObject {
        v1::TokenObject {
            algorithm: v1::Algorithm::Aes256Gcm.into(),
            usages: vec![v1::Usage::Encrypt.into(), v1::Usage::Decrypt.into()],
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
