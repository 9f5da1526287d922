//! `kmsctl key csr`: a certificate request (PKCS#10, RFC 2986) that the key itself signs, over Sign.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr as _;

use clap::Args;
use der::asn1::{Any, BitString, Ia5String, ObjectIdentifier};
use der::{Decode as _, Encode as _};
use kms_client::v1;
use v1::sign_request::Data;
use x509_cert::attr::{Attribute, Attributes};
use x509_cert::ext::ToExtension as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq, Version};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::operate::{self, How, Used};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::input::Secrecy;
use crate::output::Report;
use crate::view;

#[derive(Args, Debug)]
pub(crate) struct Csr {
    /// Version name; a key name means its primary version.
    name: String,
    /// Who the certificate is for, for example CN=www.example,O=Example (RFC 4514).
    #[arg(long, value_name = "NAME", value_parser = subject)]
    subject: Name,
    /// Another name: of a host, an IP address, a mail address or a URI. May be repeated.
    #[arg(long, value_name = "NAME", value_parser = alternative_name)]
    san: Vec<GeneralName>,
    #[command(flatten)]
    how: How,
    /// Where the request is written, in PEM.
    #[arg(long, value_name = "FILE|-")]
    out: PathBuf,
}

impl Csr {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Report, Failure> {
        let Self { name, subject, san, how, out } = self;
        let mechanism = how.wire()?;
        let client = connection.open().await?;
        let request = v1::GetPublicKeyRequest { name };
        let key =
            client.retry(async || client.keys().get_public_key(request.clone()).await).await?;
        let info = information(subject, san, &key.public_key)?;
        let message = info.to_der().map_err(unwritten)?;
        let request = v1::SignRequest {
            // The version whose public key stands in it, whatever becomes primary meanwhile.
            name: key.name,
            data_crc32c: Some(crc32c::crc32c(&message)),
            data: Some(Data::Message(message)),
            mechanism,
            context: Vec::new(),
        };
        let answer = client.retry(async || client.crypto().sign(request.clone()).await).await?;
        if crc32c::crc32c(&answer.signature) != answer.signature_crc32c {
            return Err(Failure::Answer("the signature was damaged on the way"));
        }
        let algorithm = algorithm_identifier(answer.mechanism(), key.algorithm)?;
        let pem = signed(info, algorithm, &answer.signature)?;
        let mechanism = Some(view::mechanism(answer.mechanism()));
        let used = Used { name: answer.name, mechanism, audit: answer.audit };
        operate::written(&out, pem.as_bytes(), Secrecy::Public, used)
    }
}

/// What is signed.
fn information(
    subject: Name,
    san: Vec<GeneralName>,
    public_key: &[u8],
) -> Result<CertReqInfo, Failure> {
    let public_key = SubjectPublicKeyInfoOwned::from_der(public_key)
        .map_err(|_| Failure::Answer("a public key that is none"))?;
    let mut attributes = Attributes::new();
    if !san.is_empty() {
        let extension = SubjectAltName(san).to_extension(&subject, &[]).map_err(unwritten)?;
        let wanted = Attribute::try_from(ExtensionReq(vec![extension])).map_err(unwritten)?;
        attributes.insert(wanted).map_err(unwritten)?;
    }
    Ok(CertReqInfo { version: Version::V1, subject, public_key, attributes })
}

/// The whole request, in PEM.
fn signed(
    info: CertReqInfo,
    algorithm: AlgorithmIdentifierOwned,
    signature: &[u8],
) -> Result<String, Failure> {
    let signature = BitString::from_bytes(signature).map_err(unwritten)?;
    let request = CertReq { info, algorithm, signature };
    Ok(view::pem("CERTIFICATE REQUEST", &request.to_der().map_err(unwritten)?))
}

fn unwritten(error: der::Error) -> Failure {
    Failure::input("certificate request", error)
}

/// How certificates name a mechanism (RFC 4055, 5758, 8410, 8702, 9814, 9881 and the NIST register).
fn algorithm_identifier(
    mechanism: v1::Mechanism,
    algorithm: i32,
) -> Result<AlgorithmIdentifierOwned, Failure> {
    use v1::Mechanism as M;
    let plain = |oid: &str| identifier(oid, None);
    match mechanism {
        M::EcdsaSha256 => plain("1.2.840.10045.4.3.2"),
        M::EcdsaSha384 => plain("1.2.840.10045.4.3.3"),
        M::EcdsaSha512 => plain("1.2.840.10045.4.3.4"),
        M::EcdsaSha3256 => plain("2.16.840.1.101.3.4.3.10"),
        M::EcdsaSha3384 => plain("2.16.840.1.101.3.4.3.11"),
        M::EcdsaSha3512 => plain("2.16.840.1.101.3.4.3.12"),
        M::Eddsa => plain("1.3.101.112"),
        M::RsaPkcs1Sha256 => identifier("1.2.840.113549.1.1.11", Some(Any::null())),
        M::RsaPkcs1Sha384 => identifier("1.2.840.113549.1.1.12", Some(Any::null())),
        M::RsaPkcs1Sha512 => identifier("1.2.840.113549.1.1.13", Some(Any::null())),
        M::RsaPssSha256 => pss(SHA_256, 32),
        M::RsaPssSha384 => pss(SHA_384, 48),
        M::RsaPssSha512 => pss(SHA_512, 64),
        M::SlhDsa => plain("2.16.840.1.101.3.4.3.20"),
        M::MlDsa => match v1::Algorithm::try_from(algorithm) {
            Ok(v1::Algorithm::MlDsa44) => plain("2.16.840.1.101.3.4.3.17"),
            Ok(v1::Algorithm::MlDsa65) => plain("2.16.840.1.101.3.4.3.18"),
            Ok(v1::Algorithm::MlDsa87) => plain("2.16.840.1.101.3.4.3.19"),
            _ => Err(Failure::Answer("a signature by an algorithm that does not make it")),
        },
        _ => Err(Failure::input("--mechanism", "certificates have no name for this mechanism")),
    }
}

fn identifier(oid: &str, parameters: Option<Any>) -> Result<AlgorithmIdentifierOwned, Failure> {
    let oid = ObjectIdentifier::new(oid).map_err(|error| Failure::input(oid, error))?;
    Ok(AlgorithmIdentifierOwned { oid, parameters })
}

/// RSASSA-PSS-params (RFC 4055 §3.1): hash function, MGF1 with the same, salt as long as the digest.
fn pss(hash: &str, salt_bytes: u8) -> Result<AlgorithmIdentifierOwned, Failure> {
    #[derive(der::Sequence)]
    struct Parameters {
        #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
        hash: AlgorithmIdentifierOwned,
        #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
        mask: AlgorithmIdentifierOwned,
        #[asn1(context_specific = "2", tag_mode = "EXPLICIT")]
        salt_bytes: u8,
    }
    let hash = identifier(hash, Some(Any::null()))?;
    let mask =
        identifier("1.2.840.113549.1.1.8", Some(Any::encode_from(&hash).map_err(unwritten)?))?;
    let parameters = Parameters { hash, mask, salt_bytes };
    let parameters = Any::encode_from(&parameters).map_err(unwritten)?;
    identifier("1.2.840.113549.1.1.10", Some(parameters))
}

fn subject(text: &str) -> Result<Name, String> {
    match Name::from_str(text) {
        Ok(name) if !text.trim().is_empty() => Ok(name),
        _ => Err("expected a name such as CN=www.example,O=Example".to_owned()),
    }
}

fn alternative_name(text: &str) -> Result<GeneralName, String> {
    let ascii = |text: &str| Ia5String::new(text).map_err(|_| "expected ASCII".to_owned());
    if text.is_empty() {
        return Err("the name is empty".to_owned());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    if text.contains("://") {
        return ascii(text).map(GeneralName::UniformResourceIdentifier);
    }
    if text.contains('@') {
        return ascii(text).map(GeneralName::Rfc822Name);
    }
    ascii(text).map(GeneralName::DnsName)
}

const SHA_256: &str = "2.16.840.1.101.3.4.2.1";
const SHA_384: &str = "2.16.840.1.101.3.4.2.2";
const SHA_512: &str = "2.16.840.1.101.3.4.2.3";
pub(crate) const CSR_HELP: &str = "\
Examples:
  kmsctl key csr dev/tls --subject CN=www.example,O=Example --san www.example --san 192.0.2.7 \\
    --out tls.csr
  openssl req -in tls.csr -noout -verify -text
  kmsctl key set-certificate dev/tls@1 --in tls.crt

Many authorities take RSA signatures only as PKCS#1 v1.5: --mechanism RSA_PKCS1_SHA256.";

#[cfg(test)]
mod tests {
    use std::process::Command;

    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{self as sig, KeyPair as _};

    use super::*;

    fn request(public_key: &[u8]) -> CertReqInfo {
        let names = ["www.example", "192.0.2.7", "a@example", "https://example/x"];
        let names = names.map(|name| alternative_name(name).unwrap()).into();
        information(subject("CN=www.example,O=Example").unwrap(), names, public_key).unwrap()
    }

    /// What OpenSSL says of the request; nothing where it is not installed.
    fn openssl(pem: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("csr.pem");
        std::fs::write(&path, pem).unwrap();
        let ran = Command::new("openssl")
            .args(["req", "-verify", "-noout", "-text", "-in"])
            .arg(path)
            .output();
        let Ok(ran) = ran else {
            println!("skipped: openssl is not installed");
            return None;
        };
        let text = [ran.stdout, ran.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(ran.status.success(), "{text}");
        Some(text)
    }

    fn convinces(info: CertReqInfo, mechanism: v1::Mechanism, signature: &[u8]) {
        let algorithm = algorithm_identifier(mechanism, 0).unwrap();
        let pem = signed(info.clone(), algorithm.clone(), signature).unwrap();
        if let Some(said) = openssl(&pem) {
            assert!(said.contains("verify OK"), "{mechanism:?}: {said}");
            for name in ["DNS:www.example", "IP Address:192.0.2.7", "email:a@example", "URI:https"]
            {
                assert!(said.contains(name), "{name}: {said}");
            }
            let mut changed = signature.to_vec();
            *changed.last_mut().unwrap() ^= 1;
            let pem = signed(info, algorithm, &changed).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("csr.pem");
            std::fs::write(&path, pem).unwrap();
            let mut command = Command::new("openssl");
            let ran = command.args(["req", "-verify", "-noout", "-in"]).arg(path).output().unwrap();
            assert!(!String::from_utf8_lossy(&ran.stderr).contains("verify OK"));
        }
    }

    fn spki(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Vec<u8> {
        key.as_der().unwrap().as_ref().to_vec()
    }

    #[test]
    fn a_request_signed_with_ecdsa_convinces_openssl() {
        let key = sig::EcdsaKeyPair::generate(&sig::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let info = request(&spki(key.public_key()));
        let made = key.sign(&SystemRandom::new(), &info.to_der().unwrap()).unwrap();
        convinces(info, v1::Mechanism::EcdsaSha256, made.as_ref());
    }

    #[test]
    fn a_request_signed_with_ed25519_convinces_openssl() {
        let key = sig::Ed25519KeyPair::generate().unwrap();
        let info = request(&spki(key.public_key()));
        let made = key.sign(&info.to_der().unwrap());
        convinces(info, v1::Mechanism::Eddsa, made.as_ref());
    }

    #[test]
    fn a_request_signed_with_rsa_convinces_openssl() {
        let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let info = request(&spki(key.public_key()));
        let message = info.to_der().unwrap();
        for (mechanism, padding) in [
            (v1::Mechanism::RsaPkcs1Sha256, &sig::RSA_PKCS1_SHA256 as &dyn sig::RsaEncoding),
            (v1::Mechanism::RsaPkcs1Sha384, &sig::RSA_PKCS1_SHA384),
            (v1::Mechanism::RsaPssSha256, &sig::RSA_PSS_SHA256),
            (v1::Mechanism::RsaPssSha512, &sig::RSA_PSS_SHA512),
        ] {
            let mut made = vec![0; key.public_modulus_len()];
            key.sign(padding, &SystemRandom::new(), &message, &mut made).unwrap();
            convinces(info.clone(), mechanism, &made);
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for bad in ["", " ", "www.example", "CN"] {
            assert!(subject(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "m\u{fc}nchen.example"] {
            assert!(alternative_name(bad).is_err(), "{bad:?}");
        }
        let refused = algorithm_identifier(v1::Mechanism::AesGcm, 0).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        let kinds = [v1::Algorithm::MlDsa44, v1::Algorithm::MlDsa65, v1::Algorithm::MlDsa87];
        for kind in kinds {
            assert!(algorithm_identifier(v1::Mechanism::MlDsa, kind.into()).is_ok());
        }
        assert!(algorithm_identifier(v1::Mechanism::MlDsa, 0).is_err());
    }
}
