//! What a vendor publishes beside the evidence: root, intermediate and leaf certificates and
//! revocation lists. It is handed in as bytes and never fetched.
//!
//! A root is believed only when its public key is one that this crate pins, or when the caller
//! hands it in by name as a development root; a root certificate that merely lies among the other
//! files is set aside, and [`Collateral::ignored`] says so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms_core::claims::TrustRoot;

use crate::CollateralError;
use crate::snp::product::Product;
use crate::x509::{Certificate, RevocationList};

/// Everything that an examination may lean on.
#[derive(Clone, Debug, Default)]
pub struct Collateral {
    roots: Vec<Root>,
    certificates: Vec<Named<Certificate>>,
    revocation_lists: Vec<Named<RevocationList>>,
    ignored: Vec<String>,
}

/// A believed root of one product.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) product: Product,
    pub(crate) trust: TrustRoot,
    pub(crate) certificate: Certificate,
}

/// A thing and the name under which it was handed in.
#[derive(Clone, Debug)]
pub(crate) struct Named<T> {
    pub(crate) name: String,
    pub(crate) thing: T,
}

impl Collateral {
    /// Sorts `blobs` (name and bytes, PEM or DER) into roots, other certificates and revocation
    /// lists. What is plainly none of these (a report, a note) is left aside.
    ///
    /// # Errors
    /// [`CollateralError`] when there are too many, one is too long, or one that looks like a
    /// certificate or a list cannot be read: half-read collateral could miss a revocation.
    pub fn from_blobs<N, B>(
        blobs: impl IntoIterator<Item = (N, B)>,
    ) -> Result<Self, CollateralError>
    where
        N: Into<String>,
        B: AsRef<[u8]>,
    {
        let mut collateral = Self::default();
        for (count, (name, bytes)) in blobs.into_iter().enumerate() {
            if count >= BLOBS_MAX {
                return Err(CollateralError::TooMany);
            }
            collateral.take(&name.into(), bytes.as_ref())?;
        }
        Ok(collateral)
    }

    /// Believes the root certificates in `bytes` as development roots. Evidence that chains to them
    /// is marked [`TrustRoot::Development`]; the daemon takes it in dev mode only.
    ///
    /// # Errors
    /// [`CollateralError`] when there is no root certificate in `bytes`.
    pub fn with_development_root(
        mut self,
        name: &str,
        bytes: &[u8],
    ) -> Result<Self, CollateralError> {
        for item in items(name, bytes)? {
            let Item::Certificate(certificate) = item else {
                return Err(CollateralError::NotARoot(name.to_owned()));
            };
            let product = root_product(&certificate)
                .ok_or_else(|| CollateralError::NotARoot(name.to_owned()))?;
            self.roots.push(Root {
                product,
                trust: TrustRoot::Development,
                certificate: *certificate,
            });
        }
        Ok(self)
    }

    /// What was handed in and not used, with the reason.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    pub(crate) fn roots(&self) -> &[Root] {
        &self.roots
    }

    pub(crate) fn certificates(&self) -> &[Named<Certificate>] {
        &self.certificates
    }

    pub(crate) fn revocation_lists(&self) -> &[Named<RevocationList>] {
        &self.revocation_lists
    }

    fn take(&mut self, name: &str, bytes: &[u8]) -> Result<(), CollateralError> {
        if bytes.len() > BLOB_BYTES_MAX {
            return Err(CollateralError::TooLong(name.to_owned()));
        }
        if !looks_like_x509(name, bytes) {
            self.ignored.push(format!("{name}: neither a certificate nor a revocation list"));
            return Ok(());
        }
        for item in items(name, bytes)? {
            match item {
                Item::Certificate(certificate) => self.sort(name, *certificate),
                Item::RevocationList(list) => {
                    let thing = *list;
                    self.revocation_lists.push(Named { name: name.to_owned(), thing });
                }
            }
        }
        Ok(())
    }

    fn sort(&mut self, name: &str, certificate: Certificate) {
        let Some(product) = root_product(&certificate) else {
            self.certificates.push(Named { name: name.to_owned(), thing: certificate });
            return;
        };
        let pinned = certificate.key_fingerprint().and_then(|key| product.pinned(&key));
        match pinned {
            Some(trust) => {
                let known =
                    self.roots.iter().any(|root| root.certificate.der() == certificate.der());
                if !known {
                    self.roots.push(Root { product, trust, certificate });
                }
            }
            None => self.ignored.push(format!("{name}: a root certificate that is not pinned")),
        }
    }
}

enum Item {
    Certificate(Box<Certificate>),
    RevocationList(Box<RevocationList>),
}

/// The certificates and lists in one blob: one in DER, or any number in PEM.
fn items(name: &str, bytes: &[u8]) -> Result<Vec<Item>, CollateralError> {
    let malformed = || CollateralError::Malformed(name.to_owned());
    let ders = if bytes.first() == Some(&DER_SEQUENCE) {
        vec![bytes.to_vec()]
    } else {
        pem_blocks(bytes).ok_or_else(malformed)?
    };
    let read = |der: &Vec<u8>| {
        let certificate = Certificate::from_der(der).map(|c| Item::Certificate(Box::new(c)));
        certificate
            .or_else(|| RevocationList::from_der(der).map(|l| Item::RevocationList(Box::new(l))))
    };
    ders.iter().map(|der| read(der).ok_or_else(malformed)).collect()
}

/// The contents of every block of a PEM text (RFC 7468, lax about what stands between blocks).
/// `None` when there is none, or when one is cut short or not base64.
fn pem_blocks(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = core::str::from_utf8(bytes).ok()?;
    let mut blocks = Vec::new();
    while let Some((_, after)) = rest.split_once(PEM_BEGIN) {
        let (label, after) = after.split_once("-----")?;
        let (body, after) = after.split_once(&format!("-----END {label}-----"))?;
        let body: String = body.split_ascii_whitespace().collect();
        blocks.push(STANDARD.decode(body).ok()?);
        rest = after;
    }
    (!blocks.is_empty()).then_some(blocks)
}

fn looks_like_x509(name: &str, bytes: &[u8]) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let named = ["cer", "crl", "crt", "der", "pem"].iter().any(|e| ending.eq_ignore_ascii_case(e));
    let pem = bytes.windows(PEM_BEGIN.len()).any(|window| window == PEM_BEGIN.as_bytes());
    named || pem || bytes.first() == Some(&DER_SEQUENCE)
}

/// The product of a self-issued certificate with the name of a root.
fn root_product(certificate: &Certificate) -> Option<Product> {
    let name = crate::snp::common_name(certificate.subject())?;
    let product = Product::ALL.into_iter().find(|product| product.root_name() == name)?;
    (certificate.subject() == certificate.issuer()).then_some(product)
}

/// Most pieces of collateral that are read.
pub const BLOBS_MAX: usize = 256;
/// Longest piece of collateral that is read.
pub const BLOB_BYTES_MAX: usize = 1 << 20;
const DER_SEQUENCE: u8 = 0x30;
const PEM_BEGIN: &str = "-----BEGIN ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_an_error_and_what_is_something_else_is_left_aside() {
        for (name, bytes) in [
            ("a.crl", b"".as_slice()),
            ("b.der", b"\x02\x01\x00"),
            ("c", b"\x30\x03\x02\x01\x00"),
            ("d.pem", b"no block in here"),
            ("e.txt", b"-----BEGIN CERTIFICATE-----\nAAAA\n"),
            ("f.txt", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
        ] {
            let refused = Collateral::from_blobs([(name, bytes)]).unwrap_err();
            assert_eq!(refused, CollateralError::Malformed(name.to_owned()));
        }
        let collateral = Collateral::from_blobs([("README.md", b"notes")]).unwrap();
        assert_eq!(collateral.ignored().len(), 1);
    }

    #[test]
    fn there_is_a_bound_on_number_and_length() {
        let many = (0..=BLOBS_MAX).map(|n| (n.to_string(), b"x"));
        assert_eq!(Collateral::from_blobs(many).unwrap_err(), CollateralError::TooMany);
        let long = [("x", vec![0; BLOB_BYTES_MAX + 1])];
        assert_eq!(Collateral::from_blobs(long).unwrap_err(), CollateralError::TooLong("x".into()));
    }
}
