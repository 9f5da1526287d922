//! The key that signs statements about keys: ECDSA on P-384, wrapped by the root; and the certificates
//! that go with the statements. What is stated is the business of `kms_core::statement`.

use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _,
};
use kms_core::id::{Digest, Timestamp};
use kms_core::statement::{OID_STATEMENT, OID_VOUCHER};
use p384::pkcs8::{DecodePublicKey as _, EncodePublicKey};
use sha2::Digest as _;
use x509_cert::Certificate;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder as _, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::{BitString, ObjectIdentifier, OctetString};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{
    AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, SubjectPublicKeyInfoOwned,
    SubjectPublicKeyInfoRef,
};
use x509_cert::time::{Time, Validity};

use crate::CryptoError;
use crate::material::Material;
use crate::random;

/// Signs statements. The private key stays in locked memory; a key pair exists for one signature.
pub struct StatementSigner {
    private: Material,
    public_key: Vec<u8>,
    verifying_key: p384::PublicKey,
}

impl StatementSigner {
    /// Makes the private key, PKCS#8.
    pub(crate) fn generate() -> Result<Material, CryptoError> {
        let failed = |_| CryptoError::StatementFailed;
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).map_err(failed)?;
        Material::copied(pair.to_pkcs8v1().map_err(failed)?.as_ref())
    }

    pub(crate) fn new(private: Material) -> Result<Self, CryptoError> {
        let pair = pair(&private, &ECDSA_P384_SHA384_FIXED_SIGNING)?;
        let public: PublicKeyX509Der<'_> =
            pair.public_key().as_der().map_err(|_| CryptoError::StatementFailed)?;
        let public_key = public.as_ref().to_vec();
        let verifying_key = p384::PublicKey::from_public_key_der(&public_key)
            .map_err(|_| CryptoError::StatementFailed)?;
        Ok(Self { private, public_key, verifying_key })
    }

    /// The public key, SubjectPublicKeyInfo in DER.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Names the public key: the SHA-256 of its SubjectPublicKeyInfo.
    pub fn key_id(&self) -> Digest {
        Digest(sha2::Sha256::digest(&self.public_key).into())
    }

    /// Signs in the fixed form r || s, as COSE has it (RFC 9053 §2.1).
    ///
    /// # Errors
    /// [`CryptoError::StatementFailed`] when the library refuses the key, which it has taken before.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.sign_as(&ECDSA_P384_SHA384_FIXED_SIGNING, message)
    }

    /// The appliance's own certificate: its statement key, signed by itself, with the signature by which
    /// the key of the audit log vouches for it.
    ///
    /// # Errors
    /// [`CryptoError::StatementFailed`] when the certificate cannot be encoded.
    pub fn appliance_certificate(
        &self,
        appliance: &str,
        voucher_signature: &[u8],
        since: Timestamp,
    ) -> Result<Vec<u8>, CryptoError> {
        let name = common_name(appliance)?;
        self.certify(Subject {
            name: name.clone(),
            issuer: name,
            public_key: self.public_key.clone(),
            is_authority: true,
            extension: (OID_VOUCHER, voucher_signature),
            since,
        })
    }

    /// A certificate for a key of the appliance that carries the statement about it. It vouches for
    /// where the key is, not for what anybody is called.
    ///
    /// # Errors
    /// [`CryptoError::StatementFailed`] when it cannot be encoded, for example because the public key is
    /// not a SubjectPublicKeyInfo.
    pub fn key_certificate(
        &self,
        appliance: &str,
        key: &str,
        public_key: &[u8],
        statement: &[u8],
        since: Timestamp,
    ) -> Result<Vec<u8>, CryptoError> {
        self.certify(Subject {
            name: common_name(&Digest::of(&[key.as_bytes()]).to_string())?,
            issuer: common_name(appliance)?,
            public_key: public_key.to_vec(),
            is_authority: false,
            extension: (OID_STATEMENT, statement),
            since,
        })
    }

    fn certify(&self, subject: Subject<'_>) -> Result<Vec<u8>, CryptoError> {
        self.certify_inner(subject).map_err(|_| CryptoError::StatementFailed)
    }

    fn certify_inner(&self, subject: Subject<'_>) -> Result<Vec<u8>, Unencodable> {
        let serial: [u8; 16] = random::array().map_err(|_| Unencodable)?;
        let spki = SubjectPublicKeyInfoOwned::from_der(&subject.public_key)?;
        let from = Time::try_from(std::time::UNIX_EPOCH + Duration::from_millis(subject.since.0))?;
        let validity = Validity::new(from, Time::INFINITY);
        let mut builder =
            CertificateBuilder::new(subject, SerialNumber::new(&serial)?, validity, spki)?;
        let signed = builder.finalize(self)?;
        let signature =
            self.sign_as(&ECDSA_P384_SHA384_ASN1_SIGNING, &signed).map_err(|_| Unencodable)?;
        let certificate: Certificate =
            builder.assemble(BitString::from_bytes(&signature)?, self)?;
        Ok(certificate.to_der()?)
    }

    fn sign_as(
        &self,
        form: &'static EcdsaSigningAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let signature = pair(&self.private, form)?.sign(&SystemRandom::new(), message);
        Ok(signature.map_err(|_| CryptoError::StatementFailed)?.as_ref().to_vec())
    }
}

/// What a certificate says.
struct Subject<'a> {
    name: Name,
    issuer: Name,
    public_key: Vec<u8>,
    is_authority: bool,
    extension: (&'static str, &'a [u8]),
    since: Timestamp,
}

impl BuilderProfile for Subject<'_> {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.name.clone()
    }

    fn build_extensions(
        &self,
        _subject_key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        // Path length 0: below the appliance there are keys and no further authorities.
        let path_len_constraint = self.is_authority.then_some(0);
        let constraints = BasicConstraints { ca: self.is_authority, path_len_constraint };
        let mut extensions = vec![constraints.to_extension(tbs.subject(), &[])?];
        if self.is_authority {
            let usage = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::DigitalSignature);
            extensions.push(usage.to_extension(tbs.subject(), &extensions)?);
        }
        let (oid, value) = self.extension;
        extensions.push(Extension {
            extn_id: ObjectIdentifier::from_str(oid).map_err(x509_cert::der::Error::from)?,
            critical: false,
            extn_value: OctetString::new(value)?,
        });
        Ok(extensions)
    }
}

impl p384::ecdsa::signature::Keypair for StatementSigner {
    type VerifyingKey = VerifyingKey;

    fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.verifying_key)
    }
}

/// The public key, as the certificate builder wants it.
#[derive(Clone, Debug)]
pub struct VerifyingKey(p384::PublicKey);

impl EncodePublicKey for VerifyingKey {
    fn to_public_key_der(&self) -> p384::pkcs8::spki::Result<x509_cert::der::Document> {
        self.0.to_public_key_der()
    }
}

impl DynSignatureAlgorithmIdentifier for StatementSigner {
    fn signature_algorithm_identifier(&self) -> x509_cert::spki::Result<AlgorithmIdentifierOwned> {
        // ecdsa-with-SHA384 (RFC 5758 §3.2), without parameters.
        Ok(AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA384, parameters: None })
    }
}

/// Something cannot be encoded; which part does not matter to anybody.
struct Unencodable;

impl<E: std::error::Error> From<E> for Unencodable {
    fn from(_: E) -> Self {
        Self
    }
}

fn common_name(text: &str) -> Result<Name, CryptoError> {
    // The only character of ours with a meaning in a distinguished name (RFC 4514 §2.4) is none: log
    // origins and digests hold letters, digits, slashes and dashes.
    Name::from_str(&format!("CN={text}")).map_err(|_| CryptoError::StatementFailed)
}

fn pair(
    private: &Material,
    form: &'static EcdsaSigningAlgorithm,
) -> Result<EcdsaKeyPair, CryptoError> {
    EcdsaKeyPair::from_pkcs8(form, private.expose()).map_err(|_| CryptoError::StatementFailed)
}

const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

#[cfg(test)]
mod tests {
    use p384::ecdsa::signature::Verifier as _;

    use super::*;

    #[test]
    fn signatures_and_certificates_verify_under_the_public_key() {
        let signer = StatementSigner::new(StatementSigner::generate().unwrap()).unwrap();
        let key = p384::ecdsa::VerifyingKey::from_public_key_der(signer.public_key()).unwrap();
        let fixed = signer.sign(b"statement").unwrap();
        let signature = p384::ecdsa::Signature::from_slice(&fixed).unwrap();
        assert!(key.verify(b"statement", &signature).is_ok());
        let ca = signer.appliance_certificate("kms/l/01", &[7; 64], Timestamp(1)).unwrap();
        let leaf = signer
            .key_certificate("kms/l/01", "ring/key@1", signer.public_key(), b"cose", Timestamp(1))
            .unwrap();
        for (der, extension) in [(ca, OID_VOUCHER), (leaf, OID_STATEMENT)] {
            let certificate = Certificate::from_der(&der).unwrap();
            let tbs = certificate.tbs_certificate();
            let signed = tbs.to_der().unwrap();
            let signature = certificate.signature().as_bytes().unwrap();
            let signature = p384::ecdsa::Signature::from_der(signature).unwrap();
            assert!(key.verify(&signed, &signature).is_ok());
            assert_eq!(tbs.issuer().to_string(), "CN=kms/l/01");
            let oid = ObjectIdentifier::new(extension).unwrap();
            assert!(tbs.extensions().unwrap().iter().any(|one| one.extn_id == oid));
        }
        let refused = signer.key_certificate("kms/l/01", "k", b"no key", b"", Timestamp(1));
        assert_eq!(refused, Err(CryptoError::StatementFailed));
    }
}
