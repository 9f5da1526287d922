//! SSH certificates (PROTOCOL.certkeys): what an enrolled authority says of a key, judged strictly.
//!
//! An authority that says who somebody is can be everybody that it is enrolled for. It is taken because it
//! takes keys away from people who leave; who wants no such power in one hand enrols keys.

use core::fmt;
use std::collections::BTreeSet;

use ssh_key::certificate::CertType;
use ssh_key::{Certificate, HashAlg, PublicKey};

use super::credential::{CERT_AUTHORITY, PRINCIPALS, VERIFY_REQUIRED};
use super::{SignatureError, Signer, identity, judge_flags};
use crate::id::{Digest, PrincipalName, Timestamp};

/// Why a certificate does not count.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Of nobody whom the approver is enrolled with.
    #[error("the SSH certificate is not one of an authority that the approver is enrolled with")]
    Authority,
    /// Not signed by the authority that it names.
    #[error("the SSH certificate is broken, or not signed by the authority that it names")]
    Forged,
    /// Not for people.
    #[error("the SSH certificate is one of a host, not of a user")]
    Host,
    /// Restricted in a way that we do not know, or that means nothing for a signature over a document.
    #[error("the SSH certificate has a critical option other than verify-required")]
    Option,
    /// Too early or too late.
    #[error("the SSH certificate is not valid at this time")]
    OutOfDate,
    /// For somebody else, or for everybody.
    #[error(
        "the SSH certificate does not name the approver among its principals (ssh-keygen -s CA -n NAME)"
    )]
    Principal,
    /// Taken back.
    #[error("the SSH certificate is revoked")]
    Revoked,
}

/// What an authority has taken back.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Revoked {
    /// By the certificate's serial number.
    pub serials: BTreeSet<u64>,
    /// By its key id, as `ssh-keygen -I` gives it.
    pub key_ids: BTreeSet<String>,
    /// By what names the certified key, in whichever certificate.
    pub keys: BTreeSet<Digest>,
}

/// An SSH certificate authority that speaks for a principal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SshAuthority {
    key: PublicKey,
    identity: Digest,
    /// What it calls the principal; empty if by its own name.
    principals: Vec<String>,
    verify_required: bool,
    revoked: Revoked,
}

impl SshAuthority {
    pub(super) fn new(
        key: &PublicKey,
        principals: Vec<String>,
        verify_required: bool,
    ) -> Result<Self, SignatureError> {
        let distinct = principals.iter().collect::<BTreeSet<_>>().len() == principals.len();
        let are_names = principals.iter().all(|name| is_principal(name));
        if principals.len() > PRINCIPALS_MAX || !distinct || !are_names {
            return Err(SignatureError::Options);
        }
        let identity = identity(key.key_data())?;
        let key = PublicKey::from(key.key_data().clone());
        Ok(Self { key, identity, principals, verify_required, revoked: Revoked::default() })
    }

    /// The same, without what it has taken back.
    #[must_use]
    pub fn without(self, revoked: Revoked) -> Self {
        Self { revoked, ..self }
    }

    pub(super) const fn identity(&self) -> Digest {
        self.identity
    }

    pub(super) fn identities(&self, holder: &PrincipalName) -> Vec<Digest> {
        let named = |name: &str| {
            Digest::of(&[b"kms-approver-name", self.identity.as_bytes(), name.as_bytes()])
        };
        if self.principals.is_empty() {
            return vec![named(&holder.to_string())];
        }
        self.principals.iter().map(|name| named(name)).collect()
    }

    /// Whether `certificate` names `principal`. One that names nobody is for everybody, which OpenSSH
    /// does not take here either.
    fn is_named_in(&self, certificate: &Certificate, principal: &PrincipalName) -> bool {
        let named = certificate.valid_principals();
        if self.principals.is_empty() {
            let own = principal.to_string();
            return named.contains(&own);
        }
        self.principals.iter().any(|name| named.contains(name))
    }

    /// Whether the certificate counts `now`.
    fn judge(&self, certificate: &Certificate, now: Timestamp) -> Result<(), SignatureError> {
        use CertificateError as E;
        self.judge_genuine(certificate)?;
        let subject = identity(certificate.public_key())?;
        if certificate.cert_type() != CertType::User {
            return Err(E::Host.into());
        }
        // source-address and force-command speak of a login, and this is none.
        let known = |(name, value): (&String, &String)| name == VERIFY_REQUIRED && value.is_empty();
        if !certificate.critical_options().iter().all(known) {
            return Err(E::Option.into());
        }
        let lifetime = certificate.valid_after()..certificate.valid_before();
        if !lifetime.contains(&(now.0 / 1000)) {
            return Err(E::OutOfDate.into());
        }
        let Revoked { serials, key_ids, keys } = &self.revoked;
        let revoked = serials.contains(&certificate.serial())
            || key_ids.contains(certificate.key_id())
            || keys.contains(&subject);
        if revoked { Err(E::Revoked.into()) } else { Ok(()) }
    }

    /// Whether the authority made it, and by a touch if its key is a security key.
    fn judge_genuine(&self, certificate: &Certificate) -> Result<(), CertificateError> {
        if certificate.signature().algorithm() != self.key.algorithm() {
            return Err(CertificateError::Forged);
        }
        // Its signature is asked for apart from the time, so that the two are told apart: it is asked
        // for as of its first second, which one without any does not have.
        let first = certificate.valid_after();
        if first >= certificate.valid_before() {
            return Err(CertificateError::OutOfDate);
        }
        let trusted = self.key.fingerprint(HashAlg::Sha256);
        certificate.validate_at(first, [&trusted]).map_err(|_| CertificateError::Forged)?;
        judge_flags(certificate.signature(), false).map_err(|_| CertificateError::Forged)
    }
}

/// Whether an authority that `signer` is enrolled with says by `certificate` that its key is the signer's
/// `now`; then, whether the key must verify its user.
///
/// # Errors
/// [`CertificateError`], or [`SignatureError::Key`] for a key that we do not take.
pub(super) fn certified(
    certificate: &Certificate,
    signer: Signer<'_>,
    now: Timestamp,
) -> Result<bool, SignatureError> {
    let authorities = signer.enrolled.iter().filter_map(|enrolled| enrolled.authority());
    let of_this = authorities.filter(|one| one.key.key_data() == certificate.signature_key());
    let mut refusal = CertificateError::Authority;
    for authority in of_this {
        if authority.is_named_in(certificate, signer.principal) {
            authority.judge(certificate, now)?;
            let by_certificate = certificate.critical_options().contains_key(VERIFY_REQUIRED);
            return Ok(authority.verify_required || by_certificate);
        }
        refusal = CertificateError::Principal;
    }
    Err(refusal.into())
}

/// Names that stand in a certificate and in an option without being quoted.
fn is_principal(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@/+:".contains(&byte);
    (1..=PRINCIPAL_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

impl fmt::Display for SshAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CERT_AUTHORITY)?;
        if !self.principals.is_empty() {
            write!(f, ",{PRINCIPALS}{}\"", self.principals.join(","))?;
        }
        if self.verify_required {
            write!(f, ",{VERIFY_REQUIRED}")?;
        }
        write!(f, " {}", self.key.to_openssh().map_err(|_| fmt::Error)?)
    }
}

/// Most names by which one authority knows one principal.
pub(super) const PRINCIPALS_MAX: usize = 8;
const PRINCIPAL_BYTES_MAX: usize = 128;
