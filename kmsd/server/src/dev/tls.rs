//! Development certificates: an authority, the server, an application, an officer, and a program for each role.

use std::fs;

use kms_core::caller::Role;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::folder::{Folder, write_private};
use crate::server::ServeError;

/// Makes the certificates that are missing. The authority's key is not kept: nothing more can be
/// issued under it.
pub(super) fn create(folder: &Folder) -> Result<(), ServeError> {
    // The last of them is there when all are.
    if folder.tls(&format!("{NO_ROLE}.key")).exists() {
        return Ok(());
    }
    issue_all(folder).map_err(|error| match error {
        Problem::Certificate(error) => ServeError::Failed(format!("certificates: {error}")),
        Problem::Serve(error) => error,
    })
}

/// SHA-256 of the certificate in the PEM file `name`.
pub(super) fn certificate_digest(folder: &Folder, name: &str) -> Result<Vec<u8>, ServeError> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let path = folder.tls(name);
    let pem = fs::read(&path).map_err(|source| ServeError::File { path: path.clone(), source })?;
    let certificate = CertificateDer::from_pem_slice(&pem)
        .map_err(|error| ServeError::Failed(format!("{}: {error}", path.display())))?;
    Ok(crate::listener::digest(&certificate).as_bytes().to_vec())
}

enum Problem {
    Certificate(rcgen::Error),
    Serve(ServeError),
}

impl From<rcgen::Error> for Problem {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error)
    }
}

impl From<ServeError> for Problem {
    fn from(error: ServeError) -> Self {
        Self::Serve(error)
    }
}

fn issue_all(folder: &Folder) -> Result<(), Problem> {
    let mut params = named("kmsd development authority", &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    write_private(&folder.tls("ca.crt"), authority.pem().as_bytes())?;
    let server = ["localhost", "127.0.0.1", "::1"];
    let server_use = ExtendedKeyUsagePurpose::ServerAuth;
    issue(folder, &authority, "server", "localhost", &server, server_use)?;
    let client_use = ExtendedKeyUsagePurpose::ClientAuth;
    issue(folder, &authority, "client", "dev", &[], client_use.clone())?;
    issue(folder, &authority, "officer", "officer", &[], client_use.clone())?;
    let programs = Role::ALL.iter().map(|role| role_file(*role)).chain([NO_ROLE.to_owned()]);
    for file in programs {
        issue(folder, &authority, &file, &file, &[], client_use.clone())?;
    }
    Ok(())
}

/// The certificate, and the name, of the program that holds `role` alone.
pub(super) fn role_file(role: Role) -> String {
    format!("role-{role}")
}

fn issue(
    folder: &Folder,
    authority: &CertifiedIssuer<'_, KeyPair>,
    file: &str,
    common_name: &str,
    names: &[&str],
    usage: ExtendedKeyUsagePurpose,
) -> Result<(), Problem> {
    let mut params = named(common_name, names)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    write_private(&folder.tls(&format!("{file}.crt")), certificate.pem().as_bytes())?;
    write_private(&folder.tls(&format!("{file}.key")), key.serialize_pem().as_bytes())?;
    Ok(())
}

fn named(common_name: &str, names: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}

/// The certificate, and the name, of a program that is enrolled and holds no role.
pub(super) const NO_ROLE: &str = "no-role";
