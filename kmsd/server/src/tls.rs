//! The TLS side of the daemon: 1.3 only, hybrid key exchange first, every client shows a
//! certificate.
//!
//! A client's certificate need not chain to anything: a workload shows a self-signed one, made for
//! one request. TLS only proves that the client holds its key; what the certificate is worth is
//! decided afterwards, in [`crate::listener`] and [`crate::identity`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::listener::{Tls, digest};

/// Why TLS cannot be set up. The operator's mistake.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM file is missing or holds something else.
    #[error("cannot read {path}: {problem}; expected PEM")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not go together, or the client authority is none.
    #[error("the TLS files do not go together: {0}")]
    Config(String),
}

/// Reads the files and makes the server's TLS.
///
/// # Errors
/// [`TlsError`] naming the file.
pub(crate) fn server(certificate: &Path, key: &Path, client_ca: &Path) -> Result<Tls, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| file(key, error))?;
    let certificate_digest = match chain.first() {
        Some(first) => digest(first),
        None => return Err(file(certificate, "no certificate in it")),
    };
    let mut roots = RootCertStore::empty();
    for root in certificates(client_ca)? {
        roots.add(root).map_err(|error| file(client_ca, error))?;
    }
    let authority = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| TlsError::Config(error.to_string()))?;
    let verifier = Arc::new(HoldsItsKey(provider.clone()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::Config(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key);
    let mut config = config.map_err(|error| TlsError::Config(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the client's proof of its key.
    config.send_tls13_tickets = 0;
    Ok(Tls { config: Arc::new(config), authority, certificate_digest })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| file(path, error))?;
    read.collect::<Result<_, _>>().map_err(|error| file(path, error))
}

fn file(path: &Path, problem: impl ToString) -> TlsError {
    TlsError::File { path: path.to_owned(), problem: problem.to_string() }
}

/// Takes any client certificate whose private key signs the handshake.
#[derive(Debug)]
struct HoldsItsKey(Arc<CryptoProvider>);

impl ClientCertVerifier for HoldsItsKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
