//! Names in requests: full or short, and always of the tenant and location served here.

use kms_core::id::{Home, KeyName, RingName, VersionName};
use kms_core::permit::Refusal;

use super::invalid;

/// A name that may be a version's or a key's.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum KeyOrVersion {
    /// A key: its primary version is meant.
    Key(KeyName),
    /// That version.
    Version(VersionName),
}

impl KeyOrVersion {
    /// Reads a version name, or a key name.
    pub(crate) fn parse(text: &str, home: &Home) -> Result<Self, Refusal> {
        if text.contains('@') || text.contains("/versions/") {
            version_name("name", text, home).map(Self::Version)
        } else {
            key_name("name", text, home).map(Self::Key)
        }
    }

    /// The key.
    pub(crate) const fn key(&self) -> &KeyName {
        match self {
            Self::Key(key) => key,
            Self::Version(version) => &version.key,
        }
    }
}

/// Reads a key name; it must be of the tenant and location served here.
pub(crate) fn key_name(field: &'static str, text: &str, home: &Home) -> Result<KeyName, Refusal> {
    let name = KeyName::parse(text, home).map_err(|error| invalid(field, error))?;
    at_home(field, &name.ring, home).map(|()| name)
}

/// Reads a version name; it must be of the tenant and location served here.
pub(crate) fn version_name(
    field: &'static str,
    text: &str,
    home: &Home,
) -> Result<VersionName, Refusal> {
    let name = VersionName::parse(text, home).map_err(|error| invalid(field, error))?;
    at_home(field, &name.key.ring, home).map(|()| name)
}

/// Reads a ring name; it must be of the tenant and location served here.
pub(crate) fn ring_name(field: &'static str, text: &str, home: &Home) -> Result<RingName, Refusal> {
    let name = RingName::parse(text, home).map_err(|error| invalid(field, error))?;
    at_home(field, &name, home).map(|()| name)
}

fn at_home(field: &'static str, ring: &RingName, home: &Home) -> Result<(), Refusal> {
    if ring.home == *home {
        Ok(())
    } else {
        Err(invalid(field, format!("this daemon serves {home} only")))
    }
}
