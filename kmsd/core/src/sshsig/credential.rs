//! What an approver is enrolled with, as a line of authorized_keys(5): a key, or an authority.
//!
//! Of its options these are taken, and no others, so that nobody believes in a restriction that is none:
//! `verify-required`, `cert-authority`, and with the latter `principals="NAME,…"`.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use ssh_key::PublicKey;

use super::{SignatureError, SshAuthority, SshKey};
use crate::id::{Digest, PrincipalName};

/// What signs for a person or program.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SshCredential {
    /// The certificates that an authority gives out for it.
    Authority(SshAuthority),
    /// A key of its own.
    Key(SshKey),
}

impl SshCredential {
    /// What nobody else may be enrolled with if `holder` is with this: the key, or the name that the
    /// authority knows the holder by. The authority itself may speak for many.
    pub fn identities(&self, holder: &PrincipalName) -> Vec<Digest> {
        match self {
            Self::Authority(authority) => authority.identities(holder),
            Self::Key(key) => vec![key.identity()],
        }
    }

    /// What names its key, whatever the key does here.
    pub fn point(&self) -> Digest {
        match self {
            Self::Authority(authority) => authority.identity(),
            Self::Key(key) => key.identity(),
        }
    }

    pub(super) const fn authority(&self) -> Option<&SshAuthority> {
        match self {
            Self::Authority(authority) => Some(authority),
            Self::Key(_) => None,
        }
    }

    /// The key, if it is one.
    pub const fn key(&self) -> Option<&SshKey> {
        match self {
            Self::Authority(_) => None,
            Self::Key(key) => Some(key),
        }
    }
}

impl FromStr for SshCredential {
    type Err = SignatureError;

    fn from_str(line: &str) -> Result<Self, SignatureError> {
        let line = line.trim();
        if line.len() > LINE_BYTES_MAX {
            return Err(SignatureError::Key);
        }
        if let Ok(key) = PublicKey::from_openssh(line) {
            return SshKey::new(key, false).map(Self::Key);
        }
        // No option of ours holds a space, not even between quotes.
        let (options, key) = line.split_once(' ').ok_or(SignatureError::Key)?;
        let key = PublicKey::from_openssh(key.trim_start()).map_err(|_| SignatureError::Key)?;
        let Options { authority, principals, verify_required } = options.parse()?;
        if authority {
            SshAuthority::new(&key, principals, verify_required).map(Self::Authority)
        } else if principals.is_empty() {
            SshKey::new(key, verify_required).map(Self::Key)
        } else {
            Err(SignatureError::Options)
        }
    }
}

#[derive(Default)]
struct Options {
    authority: bool,
    principals: Vec<String>,
    verify_required: bool,
}

impl FromStr for Options {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let mut options = Self::default();
        let mut rest = Some(text);
        while let Some(text) = rest {
            if let Some(quoted) = text.strip_prefix(PRINCIPALS) {
                let (names, after) = quoted.split_once('"').ok_or(SignatureError::Options)?;
                let names = names.split(',').map(str::to_owned);
                if !options.principals.is_empty() {
                    return Err(SignatureError::Options);
                }
                options.principals.extend(names.take(super::authority::PRINCIPALS_MAX + 1));
                rest = match after.strip_prefix(',') {
                    None if after.is_empty() => None,
                    None => return Err(SignatureError::Options),
                    more => more,
                };
                continue;
            }
            let (option, more) = match text.split_once(',') {
                Some((option, more)) => (option, Some(more)),
                None => (text, None),
            };
            match option {
                CERT_AUTHORITY if !options.authority => options.authority = true,
                VERIFY_REQUIRED if !options.verify_required => options.verify_required = true,
                _ => return Err(SignatureError::Options),
            }
            rest = more;
        }
        Ok(options)
    }
}

impl fmt::Display for SshCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(authority) => authority.fmt(f),
            Self::Key(key) => key.fmt(f),
        }
    }
}

impl Serialize for SshCredential {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SshCredential {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

pub(super) const CERT_AUTHORITY: &str = "cert-authority";
pub(super) const PRINCIPALS: &str = "principals=\"";
pub(super) const VERIFY_REQUIRED: &str = "verify-required";
/// Longest line that is read.
const LINE_BYTES_MAX: usize = 4 * 1024;
