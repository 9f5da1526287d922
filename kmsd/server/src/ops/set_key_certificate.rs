//! SetKeyCertificate: a certificate for a version's public key, put on it or taken off.

use kms_core::action::Action;
use kms_core::id::{Home, VersionName};
use kms_core::key::Version;
use kms_core::permit::Refusal;
use kms_proto::v1;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use super::Found;
use super::writing::{At, Changed, Write};
use crate::context::Context;
use crate::failure::Early;
use crate::pipeline::Stamp;
use crate::wire::{bounded, hex_encode, invalid, version_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct SetKeyCertificate {
    at: At<VersionName>,
    /// With the public key that it is for; none takes it off.
    certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl Write for SetKeyCertificate {
    type Wire = v1::SetKeyCertificateRequest;
    type Target = Found;
    type Reply = v1::SetKeyCertificateResponse;

    const ACTION: Action = Action::SetKeyCertificate;

    fn parse(wire: v1::SetKeyCertificateRequest, home: &Home) -> Result<Self, Refusal> {
        let v1::SetKeyCertificateRequest { name, etag, request_id: _, certificate } = wire;
        let certificate = bounded(FIELD, certificate, CERTIFICATE_BYTES_MAX)?;
        let certificate = match certificate.is_empty() {
            true => None,
            false => Some((public_key(&certificate)?, certificate)),
        };
        Ok(Self { at: At::new(version_name("name", &name, home)?, etag), certificate })
    }

    fn request_id(wire: &v1::SetKeyCertificateRequest) -> &[u8] {
        &wire.request_id
    }

    fn at(&self) -> &At<VersionName> {
        &self.at
    }

    async fn change(
        &self,
        _cx: &Context,
        stamp: &Stamp,
        found: &Found,
    ) -> Result<Changed<Self>, Early> {
        let before = found.version.value.settled(stamp.now);
        let certificate = match &self.certificate {
            None => String::new(),
            Some((public_key, certificate)) if *public_key == found.public_key() => {
                hex_encode(certificate)
            }
            Some(_) => {
                let problem = "it is for another public key than this version's";
                return Err(invalid(FIELD, problem).into());
            }
        };
        Ok((Version { certificate, ..before }, Vec::new()))
    }

    fn reply(version: v1::KeyVersion, audit: v1::AuditReference) -> v1::SetKeyCertificateResponse {
        v1::SetKeyCertificateResponse { version: Some(version), audit: Some(audit) }
    }
}

/// The SubjectPublicKeyInfo of a certificate, DER.
fn public_key(certificate: &[u8]) -> Result<Vec<u8>, Refusal> {
    let problem = || invalid(FIELD, "expected one X.509 certificate in DER");
    let read = Certificate::from_der(certificate).map_err(|_| problem())?;
    read.tbs_certificate().subject_public_key_info().to_der().map_err(|_| problem())
}

const FIELD: &str = "certificate";
/// Longest certificate.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
