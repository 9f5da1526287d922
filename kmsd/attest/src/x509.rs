//! The little of X.509 that vendor chains need, strictly: certificates and revocation lists as they
//! were signed, RSASSA-PSS with its parameters read, names, validity and extensions.
//!
//! It builds no paths and knows no policies: the chains here have a fixed shape and a pinned root.

use core::fmt;

use der::asn1::ObjectIdentifier;
use der::{Decode, Encode, Reader, SliceReader};
use kms_core::id::{Digest, Timestamp};
use rsa::RsaPublicKey;
use rsa::pkcs1::RsaPssParams;
use rsa::pkcs8::DecodePublicKey;
use rsa::pss::{Signature, VerifyingKey};
use rsa::signature::Verifier;
use rsa::traits::PublicKeyParts;
use sha2::{Digest as _, Sha256, Sha384};
use x509_cert::crl::CertificateList;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

/// A certificate, with the bytes that were signed.
#[derive(Clone)]
pub(crate) struct Certificate {
    der: Vec<u8>,
    signed: Vec<u8>,
    decoded: x509_cert::Certificate,
}

/// Shows which certificate it is; all of it is public, most of it is noise.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, {})", self.subject(), self.fingerprint())
    }
}

impl Certificate {
    /// Reads one certificate; nothing may follow it. `None` when it is not DER or not X.509 v3.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        let decoded = x509_cert::Certificate::from_der(der).ok()?;
        let signed = signed_part(der).ok()?.to_vec();
        let v3 = decoded.tbs_certificate().version() == x509_cert::certificate::Version::V3;
        v3.then(|| Self { der: der.to_vec(), signed, decoded })
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the certificate, as every tool prints it.
    pub(crate) fn fingerprint(&self) -> Digest {
        Digest(Sha256::digest(&self.der).into())
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what a pin names.
    pub(crate) fn key_fingerprint(&self) -> Option<Digest> {
        Some(Digest(Sha256::digest(self.public_key_info()?).into()))
    }

    /// The SubjectPublicKeyInfo in DER.
    pub(crate) fn public_key_info(&self) -> Option<Vec<u8>> {
        self.decoded.tbs_certificate().subject_public_key_info().to_der().ok()
    }

    pub(crate) fn subject(&self) -> &Name {
        self.decoded.tbs_certificate().subject()
    }

    pub(crate) fn issuer(&self) -> &Name {
        self.decoded.tbs_certificate().issuer()
    }

    pub(crate) fn serial(&self) -> &[u8] {
        self.decoded.tbs_certificate().serial_number().as_bytes()
    }

    /// Whether `at` lies in the certificate's validity.
    pub(crate) fn is_valid_at(&self, at: Timestamp) -> bool {
        let validity = self.decoded.tbs_certificate().validity();
        not_before(validity.not_before, at) && not_after(validity.not_after, at)
    }

    /// The validity in words.
    pub(crate) fn validity(&self) -> String {
        let validity = self.decoded.tbs_certificate().validity();
        format!("valid from {} to {}", validity.not_before, validity.not_after)
    }

    /// Whether `issuer` signed this certificate.
    pub(crate) fn signed_by(&self, issuer: &Self) -> Result<(), SignatureFault> {
        let inner = self.decoded.tbs_certificate().signature();
        let outer = self.decoded.signature_algorithm();
        verify_pss(&self.signed, inner, outer, self.decoded.signature().as_bytes(), issuer)
    }

    /// The value of the extension `oid`; `Err` when it stands there twice.
    pub(crate) fn extension(&self, oid: ObjectIdentifier) -> Result<Option<&[u8]>, Repeated> {
        let mut found =
            self.extensions().iter().filter(|extension| extension.extn_id == oid).fuse();
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(Repeated),
            (extension, None) => Ok(extension.map(|extension| extension.extn_value.as_bytes())),
        }
    }

    /// Whether every critical extension is one that this file understands (RFC 5280 §4.2).
    pub(crate) fn critical_extensions_are_known(&self) -> bool {
        all_critical_known(self.extensions(), &[OID_BASIC_CONSTRAINTS, OID_KEY_USAGE])
    }

    /// Whether the certificate is that of an authority which may have `path` authorities below it.
    pub(crate) fn may_issue(&self, path: u8) -> bool {
        let constraints = self.read::<BasicConstraints>(OID_BASIC_CONSTRAINTS);
        let usage = self.read::<KeyUsage>(OID_KEY_USAGE);
        constraints.is_some_and(|c| c.ca && c.path_len_constraint.is_none_or(|len| len >= path))
            && usage.is_some_and(|usage| usage.0.contains(KeyUsages::KeyCertSign))
    }

    /// Whether the certificate says that it is not an authority's, by saying nothing.
    pub(crate) fn is_end_entity(&self) -> bool {
        match self.extension(OID_BASIC_CONSTRAINTS) {
            Ok(None) => true,
            Ok(Some(value)) => BasicConstraints::from_der(value).is_ok_and(|c| !c.ca),
            Err(Repeated) => false,
        }
    }

    fn read<'a, T: Decode<'a>>(&'a self, oid: ObjectIdentifier) -> Option<T> {
        T::from_der(self.extension(oid).ok()??).ok()
    }

    fn extensions(&self) -> &[Extension] {
        self.decoded.tbs_certificate().extensions().map_or(&[], Vec::as_slice)
    }
}

/// A certificate revocation list (RFC 5280 §5), with the bytes that were signed.
#[derive(Clone)]
pub(crate) struct RevocationList {
    signed: Vec<u8>,
    decoded: CertificateList,
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevocationList({})", self.issuer())
    }
}

impl RevocationList {
    /// Reads one list; nothing may follow it. `None` when it is not DER or not a list.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        let decoded = CertificateList::from_der(der).ok()?;
        Some(Self { signed: signed_part(der).ok()?.to_vec(), decoded })
    }

    pub(crate) fn issuer(&self) -> &Name {
        &self.decoded.tbs_cert_list.issuer
    }

    /// Whether `issuer` signed this list.
    pub(crate) fn signed_by(&self, issuer: &Certificate) -> Result<(), SignatureFault> {
        let (inner, outer) =
            (&self.decoded.tbs_cert_list.signature, &self.decoded.signature_algorithm);
        verify_pss(&self.signed, inner, outer, self.decoded.signature.as_bytes(), issuer)
    }

    /// Whether `at` lies between this update and the next; a list that names no next update is
    /// never current.
    pub(crate) fn is_current_at(&self, at: Timestamp) -> bool {
        let list = &self.decoded.tbs_cert_list;
        not_before(list.this_update, at) && list.next_update.is_some_and(|next| not_after(next, at))
    }

    /// Whether the list names `serial`.
    pub(crate) fn revokes(&self, serial: &[u8]) -> bool {
        let revoked = self.decoded.tbs_cert_list.revoked_certificates.iter().flatten();
        revoked.into_iter().any(|entry| entry.serial_number.as_bytes() == serial)
    }

    /// Whether the list has no critical extension; none is understood here, such as one that
    /// narrows what the list is about (RFC 5280 §5.2.5).
    pub(crate) fn critical_extensions_are_known(&self) -> bool {
        let list = &self.decoded.tbs_cert_list;
        let entries = list.revoked_certificates.iter().flatten();
        let mut all = entries
            .filter_map(|entry| entry.crl_entry_extensions.as_deref())
            .chain(list.crl_extensions.as_deref());
        all.all(|extensions| all_critical_known(extensions, &[]))
    }
}

/// The extension stands in the certificate more than once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Repeated;

/// Why a signature is not believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum SignatureFault {
    /// Not RSASSA-PSS with SHA-384, or named differently inside and outside.
    #[error("the signature is not RSASSA-PSS with SHA-384 and a salt of 48 bytes")]
    Algorithm,
    /// The issuer has no RSA key of an admitted size.
    #[error("the issuer's key is not an RSA key of 3072 to 4096 bits")]
    IssuerKey,
    /// The signature does not verify.
    #[error("the signature does not verify under the issuer's key")]
    Wrong,
}

fn verify_pss(
    signed: &[u8],
    inner: &AlgorithmIdentifierOwned,
    outer: &AlgorithmIdentifierOwned,
    signature: Option<&[u8]>,
    issuer: &Certificate,
) -> Result<(), SignatureFault> {
    if inner != outer || !is_pss_sha384(outer) {
        return Err(SignatureFault::Algorithm);
    }
    let key = issuer.public_key_info().ok_or(SignatureFault::IssuerKey)?;
    let key = RsaPublicKey::from_public_key_der(&key).map_err(|_| SignatureFault::IssuerKey)?;
    if !RSA_BYTES.contains(&key.size()) {
        return Err(SignatureFault::IssuerKey);
    }
    let length = key.size();
    let signature = signature.filter(|s| s.len() == length).ok_or(SignatureFault::Wrong)?;
    let signature = Signature::try_from(signature).map_err(|_| SignatureFault::Wrong)?;
    let key = VerifyingKey::<Sha384>::new_with_salt_len(key, SALT_BYTES);
    key.verify(signed, &signature).map_err(|_| SignatureFault::Wrong)
}

/// RFC 8017 §A.2.3: the parameters are part of what is signed, so they are read, not assumed.
fn is_pss_sha384(algorithm: &AlgorithmIdentifierOwned) -> bool {
    let Some(parameters) = &algorithm.parameters else { return false };
    let Ok(parameters) = parameters.to_der() else { return false };
    let Ok(parameters) = RsaPssParams::<der::Any>::try_from(parameters.as_slice()) else {
        return false;
    };
    let RsaPssParams { hash, mask_gen, salt_len, trailer_field: _ } = parameters; // only one exists
    let is_sha384 = |hash: &AlgorithmIdentifierOwned| {
        hash.oid == OID_SHA384 && hash.parameters.as_ref().is_none_or(der::Any::is_null)
    };
    algorithm.oid == OID_RSASSA_PSS
        && is_sha384(&hash)
        && mask_gen.oid == OID_MGF1
        && mask_gen.parameters.is_some_and(|inner| is_sha384(&inner))
        && usize::from(salt_len) == SALT_BYTES
}

/// The first member of the outer sequence, byte for byte as it was signed.
fn signed_part(der: &[u8]) -> der::Result<&[u8]> {
    let content = <&der::asn1::SequenceRef>::from_der(der)?;
    SliceReader::new(content.as_bytes())?.tlv_bytes()
}

fn all_critical_known(extensions: &[Extension], known: &[ObjectIdentifier]) -> bool {
    extensions.iter().all(|extension| !extension.critical || known.contains(&extension.extn_id))
}

/// Times in certificates are whole seconds and include their last one (RFC 5280 §4.1.2.5).
fn not_after(time: Time, at: Timestamp) -> bool {
    u128::from(at.0 / 1000) <= time.to_unix_duration().as_secs().into()
}

fn not_before(time: Time, at: Timestamp) -> bool {
    u128::from(at.0 / 1000) >= time.to_unix_duration().as_secs().into()
}

const OID_BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const OID_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const OID_MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const OID_RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const OID_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
/// Moduli that are verified with: no weaker than the vendor's, no longer than costs little.
const RSA_BYTES: core::ops::RangeInclusive<usize> = 384..=512;
const SALT_BYTES: usize = 48;
