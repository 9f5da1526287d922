//! What must not be mixed: names, digests, nonces, times.
//!
//! Every name is parsed once, at the border, into a type that cannot be wrong. The alphabet of a
//! segment is deliberately small (lower-case ASCII), so that no two spellings look alike.

use core::fmt;
use core::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Why a text is not a name, digest or nonce. The caller's mistake; the message says what is
/// expected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// A digest, nonce or operation id of the wrong length or alphabet.
    #[error("expected {expected} lower-case hexadecimal digits")]
    Hex {
        /// How many digits the type has.
        expected: usize,
    },
    /// A resource name of another shape.
    #[error("expected a name of the form {expected}")]
    Shape {
        /// The form, as in the documentation.
        expected: &'static str,
    },
    /// A name segment outside the alphabet.
    #[error(
        "a name segment is 1 to 63 characters of a-z, 0-9, '-', '_' or '.', and starts with a letter or digit"
    )]
    Segment,
}

/// One part of a resource name: 1–63 characters of `a-z 0-9 - _ .`, starting with a letter or
/// digit. A name is copied many times on its way through a request, so its copies share one text.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Segment(Arc<str>);

impl Segment {
    /// The text of the segment.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Segment {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let alphabet =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        let first = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        if bytes.len() <= SEGMENT_BYTES_MAX
            && bytes.first().is_some_and(first)
            && bytes.iter().copied().all(alphabet)
        {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Segment)
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The tenant and region that a short name is read in, and that this daemon serves.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Home {
    /// Who owns the keys.
    pub tenant: Segment,
    /// Where the keys may be used.
    pub region: Segment,
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}/locations/{}", self.tenant, self.region)
    }
}

/// `tenants/{tenant}/locations/{region}/keyRings/{ring}`. A key ring is a PKCS#11 token.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RingName {
    /// Tenant and region.
    pub home: Home,
    /// The ring's own name.
    pub ring: Segment,
}

impl RingName {
    /// Reads the full form, or the short form `ring` within `home`.
    ///
    /// # Errors
    /// [`IdError`] when the text has neither form.
    pub fn parse(text: &str, home: &Home) -> Result<Self, IdError> {
        if !text.contains('/') {
            return Ok(Self { home: home.clone(), ring: text.parse()? });
        }
        let parts: Vec<&str> = text.split('/').collect();
        let ["tenants", tenant, "locations", region, "keyRings", ring] = parts.as_slice() else {
            return Err(IdError::Shape {
                expected: "tenants/{tenant}/locations/{region}/keyRings/{ring}, or {ring}",
            });
        };
        let home = Home { tenant: tenant.parse()?, region: region.parse()? };
        Ok(Self { home, ring: ring.parse()? })
    }
}

impl fmt::Display for RingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/keyRings/{}", self.home, self.ring)
    }
}

/// `…/keyRings/{ring}/keys/{key}`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyName {
    /// The ring that holds the key.
    pub ring: RingName,
    /// The key's own name.
    pub key: Segment,
}

impl KeyName {
    /// Reads the full form, or the short form `ring/key` within `home`.
    ///
    /// # Errors
    /// [`IdError`] when the text has neither form.
    pub fn parse(text: &str, home: &Home) -> Result<Self, IdError> {
        const EXPECTED: &str =
            "tenants/{tenant}/locations/{region}/keyRings/{ring}/keys/{key}, or {ring}/{key}";
        let (ring, key) = if text.starts_with("tenants/") {
            text.split_once("/keys/")
        } else {
            text.split_once('/')
        }
        .ok_or(IdError::Shape { expected: EXPECTED })?;
        Ok(Self { ring: RingName::parse(ring, home)?, key: key.parse()? })
    }

    /// The name of version `number` of this key.
    pub fn version(&self, number: u32) -> VersionName {
        VersionName { key: self.clone(), number }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/keys/{}", self.ring, self.key)
    }
}

/// `…/keys/{key}/versions/{number}`. Numbers start at 1 and are never reused.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VersionName {
    /// The key.
    pub key: KeyName,
    /// The version's number, from 1.
    pub number: u32,
}

impl VersionName {
    /// Reads the full form, or the short form `ring/key@number` within `home`.
    ///
    /// # Errors
    /// [`IdError`] when the text has neither form.
    pub fn parse(text: &str, home: &Home) -> Result<Self, IdError> {
        const SHAPE: IdError = IdError::Shape {
            expected: "…/keys/{key}/versions/{number}, or {ring}/{key}@{number}",
        };
        let (key, number) = if text.starts_with("tenants/") {
            text.split_once("/versions/")
        } else {
            text.split_once('@')
        }
        .ok_or(SHAPE)?;
        let canonical = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        let number = number.parse().ok().filter(|_| canonical).ok_or(SHAPE)?;
        Ok(Self { key: KeyName::parse(key, home)?, number })
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/versions/{}", self.key, self.number)
    }
}

/// What an operation acts on, as the audit log names it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Resource {
    /// The appliance itself: its log, its seal, its identities.
    Appliance,
    /// A credential of an enrolled principal.
    Credential(CredentialName),
    /// A key and all its versions.
    Key(KeyName),
    /// A quorum proposal.
    Proposal {
        /// Its id.
        id: Segment,
        /// The key that it is about, once that is known.
        key: Option<KeyName>,
    },
    /// A key ring.
    Ring(RingName),
    /// An enrolled principal.
    User(PrincipalName),
    /// One version of a key.
    Version(VersionName),
}

impl Resource {
    /// The ring that the resource lives in, if it lives in one.
    pub const fn ring(&self) -> Option<&RingName> {
        match self {
            Self::Ring(ring) => Some(ring),
            _ => match self.key() {
                Some(key) => Some(&key.ring),
                None => None,
            },
        }
    }

    /// The key that the resource is, or belongs to, if there is one.
    pub const fn key(&self) -> Option<&KeyName> {
        match self {
            Self::Appliance | Self::Credential(_) | Self::Ring(_) | Self::User(_) => None,
            Self::Proposal { key, .. } => key.as_ref(),
            Self::Key(key) => Some(key),
            Self::Version(version) => Some(&version.key),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Appliance => f.write_str("appliance"),
            Self::Credential(name) => name.fmt(f),
            Self::Key(name) => name.fmt(f),
            Self::Proposal { id, .. } => write!(f, "proposals/{id}"),
            Self::Ring(name) => name.fmt(f),
            Self::User(name) => name.fmt(f),
            Self::Version(name) => name.fmt(f),
        }
    }
}

/// Who acts: `users/alice`, `apps/web`, `apps/dev.user` (a ring's PIN user), `workloads/…`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PrincipalName {
    /// Person, program or attested workload.
    pub kind: PrincipalKind,
    /// The principal's own name.
    pub name: Segment,
}

/// `users/{user}/credentials/{id}`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CredentialName {
    /// Whose.
    pub principal: PrincipalName,
    /// Names the credential: the beginning of a digest of its kind and value.
    pub id: Segment,
}

impl FromStr for CredentialName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (principal, id) = text.split_once("/credentials/").ok_or(IdError::Shape {
            expected: "users/{name}/credentials/{id} or apps/{name}/credentials/{id}",
        })?;
        Ok(Self { principal: principal.parse()?, id: id.parse()? })
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/credentials/{}", self.principal, self.id)
    }
}

/// The three kinds of principal.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum PrincipalKind {
    /// A program: mutual-TLS certificate or PKCS#11 PIN.
    App,
    /// A person: SSH key, certificate, or local login.
    User,
    /// A confidential workload: attestation evidence is its login.
    Workload,
}

impl PrincipalKind {
    const fn collection(self) -> &'static str {
        match self {
            Self::App => "apps",
            Self::User => "users",
            Self::Workload => "workloads",
        }
    }
}

impl FromStr for PrincipalName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (collection, name) = text
            .split_once('/')
            .ok_or(IdError::Shape { expected: "users/{name}, apps/{name} or workloads/{name}" })?;
        let kind = match collection {
            "apps" => PrincipalKind::App,
            "users" => PrincipalKind::User,
            "workloads" => PrincipalKind::Workload,
            _ => {
                return Err(IdError::Shape {
                    expected: "users/{name}, apps/{name} or workloads/{name}",
                });
            }
        };
        Ok(Self { kind, name: name.parse()? })
    }
}

impl fmt::Display for PrincipalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.collection(), self.name)
    }
}

/// Names travel as their text in JSON and in stored rows.
macro_rules! serde_as_text {
    ($($name:ty),+) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

serde_as_text!(Segment, PrincipalName, RingName, KeyName, VersionName, Digest, Nonce, OperationId);

/// The full form only, as stored rows hold it.
macro_rules! full_form {
    ($($name:ty),+) => {$(
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if !text.starts_with("tenants/") {
                    return Err(IdError::Shape { expected: "tenants/…, the full form" });
                }
                // The home is read from the text itself, so the one given here is never used.
                let unused = Segment("-".into());
                Self::parse(text, &Home { tenant: unused.clone(), region: unused })
            }
        }
    )+};
}

full_form!(RingName, KeyName, VersionName);

/// Fixed-size bytes shown and read as lower-case hexadecimal.
macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// The value as bytes.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;
            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError::Hex { expected: 2 * $length })
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                const WRONG: IdError = IdError::Hex { expected: 2 * $length };
                if text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(WRONG);
                }
                let mut bytes = [0; $length];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| WRONG)?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

hex_bytes!(
    /// A SHA-256 digest.
    Digest,
    32
);
hex_bytes!(
    /// 32 random bytes that make a challenge, proposal or request unique.
    Nonce,
    32
);
hex_bytes!(
    /// 16 random bytes naming one operation; a caller's `request_id` becomes one, so that a retry
    /// is the same operation.
    OperationId,
    16
);

impl Digest {
    /// SHA-256 of the parts, each preceded by its length as four big-endian bytes, so that no two
    /// lists of parts give the same input.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(length_prefix(part));
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// The length of `part` as four big-endian bytes.
///
/// Parts are requests, names and certificates, all bounded by the 4 MiB message limit; a longer
/// one saturates, which only makes its digest match nothing.
pub(crate) fn length_prefix(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// Milliseconds since 1970-01-01T00:00:00Z, as handed in by the caller: core has no clock.
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The end of time: what lasts until then lasts for good.
    pub const MAX: Self = Self(u64::MAX);

    /// This moment plus `milliseconds`, saturating at the end of time.
    #[must_use]
    pub const fn plus_ms(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }
}

/// Longest segment of a name.
const SEGMENT_BYTES_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home { tenant: "default".parse().unwrap(), region: "local".parse().unwrap() }
    }

    #[test]
    fn short_and_full_names_are_the_same_name() {
        let short = VersionName::parse("dev/k1@3", &home()).unwrap();
        let full = "tenants/default/locations/local/keyRings/dev/keys/k1/versions/3";
        assert_eq!(short.to_string(), full);
        assert_eq!(VersionName::parse(full, &home()).unwrap(), short);
        assert_eq!(full.parse::<VersionName>().unwrap(), short);
    }

    #[test]
    fn look_alike_and_odd_names_are_refused() {
        for bad in ["", "Dev", "dev ", "dеv", "-dev", "a/b", "a\nb", &"x".repeat(64)] {
            assert_eq!(bad.parse::<Segment>(), Err(IdError::Segment), "{bad:?}");
        }
        for bad in ["dev/k1", "dev/k1@0", "dev/k1@01", "dev/k1@+1", "dev/k1@4294967296", "k1@1"] {
            assert!(VersionName::parse(bad, &home()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn digests_of_different_splits_differ() {
        assert_ne!(Digest::of(&[b"ab", b"c"]), Digest::of(&[b"a", b"bc"]));
        assert_ne!(Digest::of(&[b"abc"]), Digest::of(&[b"abc", b""]));
    }
}
