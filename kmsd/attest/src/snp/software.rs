//! A development attester: keys and certificates of its own, reports in the vendor's format.
//!
//! It stands in for the hardware in dev mode, tests and fuzzers. The chain has the vendor's names,
//! algorithms and extensions, and a root that no build pins, so what it signs is believed only where
//! that root is handed in as [`kms_core::claims::TrustRoot::Development`].

use core::str::FromStr;
use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::asn1::{Ia5StringRef, ObjectIdentifier, OctetString, Uint};
use der::{Decode, Encode};
use kms_core::id::Timestamp;
use p384::SecretKey;
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey as EcdsaKey};
use p384::elliptic_curve::Generate;
use rsa::RsaPrivateKey;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey};
use rsa::pss;
use rsa::rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::Sha384;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder, CertificateBuilder, CrlBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::crl::RevokedCert;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, CrlNumber, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

use super::chain::{OID_HARDWARE_ID, OID_PRODUCT};
use super::evidence::SnpEvidence;
use super::report::{REPORT_BYTES, SIGNED_BYTES};
use super::tcb;

/// A root, an authority, and the signing key of one imaginary Milan chip.
pub struct SoftwareAttester {
    pub(crate) root_key: RsaPrivateKey,
    pub(crate) authority_key: RsaPrivateKey,
    pub(crate) chip_key: SecretKey,
    root: Vec<u8>,
    authority: Vec<u8>,
    vcek: Vec<u8>,
}

/// What a report is to say; everything else is as on a sound platform.
#[derive(Clone, Debug)]
pub struct ReportRequest {
    /// REPORT_DATA.
    pub report_data: [u8; 64],
    /// MEASUREMENT.
    pub measurement: [u8; 48],
    /// Whether the guest policy allows debugging.
    pub debug: bool,
}

/// The attester could not be made, or its stored form not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SoftwareError {
    /// A certificate could not be made.
    #[error("the development attester could not issue a certificate")]
    Certificate,
    /// A key could not be made or encoded.
    #[error("the development attester could not make a key")]
    Key,
    /// The stored form is not one.
    #[error("not a stored development attester")]
    Stored,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    root_key: String,
    authority_key: String,
    chip_key: String,
    root: String,
    authority: String,
    vcek: String,
}

impl SoftwareAttester {
    /// Makes keys and certificates, valid for ten years from `now`.
    ///
    /// # Errors
    /// [`SoftwareError`] when a key or certificate cannot be made.
    pub fn generate(rng: &mut impl CryptoRng, now: Timestamp) -> Result<Self, SoftwareError> {
        let root_key = RsaPrivateKey::new(rng, RSA_BITS).map_err(|_| SoftwareError::Key)?;
        let authority_key = RsaPrivateKey::new(rng, RSA_BITS).map_err(|_| SoftwareError::Key)?;
        let chip_key = SecretKey::generate_from_rng(rng);
        let validity = (now, now.plus_ms(TEN_YEARS_MS));
        let root = Plan::authority("ARK-Milan", "ARK-Milan", 1, validity, 1)?;
        let root = root.issue(rng, &rsa_info(&root_key)?, &root_key)?;
        let authority = Plan::authority("ARK-Milan", "SEV-Milan", 0, validity, 2)?;
        let authority = authority.issue(rng, &rsa_info(&authority_key)?, &root_key)?;
        let vcek = Plan::vcek(&HARDWARE_ID, TCB, validity)?;
        let vcek = vcek.issue(rng, &chip_info(&chip_key)?, &authority_key)?;
        Ok(Self { root_key, authority_key, chip_key, root, authority, vcek })
    }

    /// The stored form, private keys included: for a development state folder only.
    ///
    /// # Errors
    /// [`SoftwareError::Key`] when a key cannot be encoded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SoftwareError> {
        let rsa = |key: &RsaPrivateKey| {
            let der = key.to_pkcs8_der().map_err(|_| SoftwareError::Key)?;
            Ok(STANDARD.encode(der.as_bytes()))
        };
        let chip_key = self.chip_key.to_pkcs8_der().map_err(|_| SoftwareError::Key)?;
        let stored = Stored {
            root_key: rsa(&self.root_key)?,
            authority_key: rsa(&self.authority_key)?,
            chip_key: STANDARD.encode(chip_key.as_bytes()),
            root: STANDARD.encode(&self.root),
            authority: STANDARD.encode(&self.authority),
            vcek: STANDARD.encode(&self.vcek),
        };
        serde_json::to_vec(&stored).map_err(|_| SoftwareError::Stored)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`SoftwareError::Stored`] when it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SoftwareError> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|_| SoftwareError::Stored)?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| SoftwareError::Stored);
        let rsa = |text: &str| {
            RsaPrivateKey::from_pkcs8_der(&decode(text)?).map_err(|_| SoftwareError::Stored)
        };
        let chip_key = SecretKey::from_pkcs8_der(&decode(&stored.chip_key)?);
        Ok(Self {
            root_key: rsa(&stored.root_key)?,
            authority_key: rsa(&stored.authority_key)?,
            chip_key: chip_key.map_err(|_| SoftwareError::Stored)?,
            root: decode(&stored.root)?,
            authority: decode(&stored.authority)?,
            vcek: decode(&stored.vcek)?,
        })
    }

    /// The root certificate, in DER; to be handed in as a development root.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// The authority's certificate, in DER.
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// The chip's certificate, in DER.
    pub fn vcek(&self) -> &[u8] {
        &self.vcek
    }

    /// A report of version 3.
    pub fn report(&self, request: &ReportRequest) -> [u8; REPORT_BYTES] {
        let mut report = [0; REPORT_BYTES];
        let policy: u64 = POLICY | u64::from(request.debug) << super::document::DEBUG;
        for (at, field) in [
            (0x000, [3].as_slice()),
            (0x008, &policy.to_le_bytes()),
            (0x034, &[1]),
            (0x038, &TCB),
            (0x040, &[0x25]), // SMT, ECC, alias check complete
            (0x050, &request.report_data),
            (0x090, &request.measurement),
            (0x160, &[0xff; 32]),
            (0x180, &TCB),
            (0x188, &[0x19, 0x01, 0x01]),
            (0x1a0, &HARDWARE_ID),
            (0x1e0, &TCB),
            (0x1e8, &[4, 55, 1, 0, 4, 55, 1, 0]),
            (0x1f0, &TCB),
        ] {
            put(&mut report, at, field);
        }
        self.sign(&mut report);
        report
    }

    /// A report with the certificates that a verifier needs besides the root: what a workload sends.
    pub fn evidence(&self, request: &ReportRequest) -> Vec<u8> {
        SnpEvidence::envelope(&self.report(request), Some(&self.vcek), Some(&self.authority))
    }

    /// A revocation list of the root, valid for a year from `now`, that names `serials`.
    ///
    /// # Errors
    /// [`SoftwareError::Certificate`] when it cannot be made.
    pub fn revocation_list(
        &self,
        rng: &mut impl CryptoRng,
        now: Timestamp,
        serials: &[u8],
    ) -> Result<Vec<u8>, SoftwareError> {
        let this_update = time(now)?;
        let root = x509_cert::Certificate::from_der(&self.root).map_err(certificate)?;
        let number = CrlNumber(Uint::new(&[1]).map_err(certificate)?);
        let revoked = serials.iter().map(|&serial| RevokedCert {
            serial_number: SerialNumber::from(serial),
            revocation_date: this_update,
            crl_entry_extensions: None,
        });
        let mut list = CrlBuilder::new_with_this_update(&root, number, this_update)
            .map_err(certificate)?
            .with_next_update(Some(time(now.plus_ms(ONE_YEAR_MS))?));
        if !serials.is_empty() {
            list = list.with_certificates(revoked);
        }
        let signer = pss::SigningKey::<Sha384>::new(self.root_key.clone());
        let list =
            list.build_with_rng::<_, pss::Signature, _>(&signer, rng).map_err(certificate)?;
        list.to_der().map_err(certificate)
    }

    /// Signs the first 0x2A0 bytes of `report` with the chip's key.
    pub(crate) fn sign(&self, report: &mut [u8; REPORT_BYTES]) {
        let signed = report.get(..SIGNED_BYTES).unwrap_or_default();
        let signature: Signature = EcdsaKey::from(&self.chip_key).sign(signed);
        let (mut r, mut s) = (signature.r().to_bytes(), signature.s().to_bytes());
        r.reverse();
        s.reverse();
        put(report, SIGNED_BYTES, &r);
        put(report, SIGNED_BYTES + 72, &s);
    }
}

/// A certificate that is to be issued.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) serial: u8,
    pub(crate) validity: (Timestamp, Timestamp),
    pub(crate) extensions: Vec<Extension>,
}

impl Plan {
    /// An authority that may have `path` authorities below it.
    pub(crate) fn authority(
        issuer: &str,
        subject: &str,
        path: u8,
        validity: (Timestamp, Timestamp),
        serial: u8,
    ) -> Result<Self, SoftwareError> {
        let constraints = BasicConstraints { ca: true, path_len_constraint: Some(path) };
        let usage = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
        let extensions = vec![
            extension(ObjectIdentifier::new_unwrap("2.5.29.19"), true, &encode(&constraints)?)?,
            extension(ObjectIdentifier::new_unwrap("2.5.29.15"), true, &encode(&usage)?)?,
        ];
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        Ok(Self { issuer, subject, serial, validity, extensions })
    }

    /// A Milan chip's key.
    pub(crate) fn vcek(
        hardware_id: &[u8],
        tcb: [u8; 8],
        validity: (Timestamp, Timestamp),
    ) -> Result<Self, SoftwareError> {
        let product = Ia5StringRef::new("Milan-B0").map_err(certificate)?;
        let mut extensions = vec![extension(OID_PRODUCT, false, &encode(&product)?)?];
        let parts = tcb::RawTcb(tcb).parts(super::product::Product::Milan);
        for (name, value) in parts {
            extensions.push(extension(tcb::extension(name), false, &encode(&value)?)?);
        }
        extensions.push(extension(OID_HARDWARE_ID, false, hardware_id)?);
        let (issuer, subject) = ("SEV-Milan".to_owned(), "SEV-VCEK".to_owned());
        Ok(Self { issuer, subject, serial: 0, validity, extensions })
    }

    /// Issues the certificate for the key `info` with the issuer's key.
    pub(crate) fn issue(
        self,
        rng: &mut impl CryptoRng,
        info: &[u8],
        issuer: &RsaPrivateKey,
    ) -> Result<Vec<u8>, SoftwareError> {
        let info = SubjectPublicKeyInfoOwned::from_der(info).map_err(certificate)?;
        let validity = Validity::new(time(self.validity.0)?, time(self.validity.1)?);
        let profile = Profile {
            issuer: name(&self.issuer)?,
            subject: name(&self.subject)?,
            extensions: self.extensions,
        };
        let builder =
            CertificateBuilder::new(profile, SerialNumber::from(self.serial), validity, info);
        let signer = pss::SigningKey::<Sha384>::new(issuer.clone());
        let issued =
            builder.map_err(certificate)?.build_with_rng::<_, pss::Signature, _>(&signer, rng);
        issued.map_err(certificate)?.to_der().map_err(certificate)
    }
}

struct Profile {
    issuer: Name,
    subject: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}

pub(crate) fn extension(
    oid: ObjectIdentifier,
    critical: bool,
    value: &[u8],
) -> Result<Extension, SoftwareError> {
    let extn_value = OctetString::new(value).map_err(certificate)?;
    Ok(Extension { extn_id: oid, critical, extn_value })
}

pub(crate) fn chip_info(key: &SecretKey) -> Result<Vec<u8>, SoftwareError> {
    let info = key.public_key().to_public_key_der().map_err(|_| SoftwareError::Key)?;
    Ok(info.as_bytes().to_vec())
}

pub(crate) fn rsa_info(key: &RsaPrivateKey) -> Result<Vec<u8>, SoftwareError> {
    let info = key.to_public_key().to_public_key_der().map_err(|_| SoftwareError::Key)?;
    Ok(info.as_bytes().to_vec())
}

fn name(common_name: &str) -> Result<Name, SoftwareError> {
    Name::from_str(&format!("CN={common_name},O=Development attester")).map_err(certificate)
}

fn time(at: Timestamp) -> Result<Time, SoftwareError> {
    let time = der::DateTime::from_unix_duration(Duration::from_secs(at.0 / 1000));
    Ok(Time::from(time.map_err(certificate)?))
}

fn encode(value: &impl Encode) -> Result<Vec<u8>, SoftwareError> {
    value.to_der().map_err(certificate)
}

fn put(report: &mut [u8; REPORT_BYTES], at: usize, field: &[u8]) {
    if let Some(place) = report.get_mut(at..at.saturating_add(field.len())) {
        place.copy_from_slice(field);
    }
}

fn certificate<E>(_: E) -> SoftwareError {
    SoftwareError::Certificate
}

const RSA_BITS: usize = 3072;
const ONE_YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
const TEN_YEARS_MS: u64 = 10 * ONE_YEAR_MS;
/// ABI 0.0, SMT allowed, and the bit that must be one.
const POLICY: u64 = 0x3_0000;
/// The TCB of the imaginary chip: boot loader 3, SNP 8, microcode 115.
pub(crate) const TCB: [u8; 8] = [3, 0, 0, 0, 0, 0, 8, 115];
/// The id of the imaginary chip.
pub(crate) const HARDWARE_ID: [u8; 64] = [0xd5; 64];
