//! From the key that signed a report up to the vendor's root.
//!
//! ```text
//! ARK-<product>  self-signed, pinned         RSA, RSASSA-PSS SHA-384
//!   SEV-<product> (ASK)  or  SEV-VLEK-<product> (ASVK)
//!     SEV-VCEK               SEV-VLEK        P-384
//! ```
//!
//! The shape is fixed, so there is no path building: each certificate names its issuer, and the
//! issuer of that name must have signed it.

use der::Decode;
use der::asn1::{Ia5StringRef, ObjectIdentifier};
use kms_core::claims::{Outcome, TrustRoot};
use kms_core::id::Timestamp;
use p384::ecdsa::VerifyingKey;
use p384::pkcs8::DecodePublicKey;

use super::product::Product;
use super::report::SigningKey;
use super::{common_name, tcb};
use crate::collateral::{Collateral, Named, Root};
use crate::x509::Certificate;

/// The certificate of a signing key, read as far as it can be.
#[derive(Clone, Debug)]
pub(super) struct Leaf<'a> {
    /// Where it came from.
    pub(super) source: String,
    pub(super) certificate: &'a Certificate,
    pub(super) kind: Option<SigningKey>,
    pub(super) product: Option<Product>,
    pub(super) key: Option<VerifyingKey>,
}

impl<'a> Leaf<'a> {
    pub(super) fn new(source: impl Into<String>, certificate: &'a Certificate) -> Self {
        let kind = match common_name(certificate.subject()).as_deref() {
            Some("SEV-VCEK") => Some(SigningKey::Vcek),
            Some("SEV-VLEK") => Some(SigningKey::Vlek),
            _ => None,
        };
        let product = text_extension(certificate, OID_PRODUCT)
            .and_then(|name| Product::from_extension(&name));
        let key = certificate.public_key_info();
        let key = key.and_then(|der| VerifyingKey::from_public_key_der(&der).ok());
        Self { source: source.into(), certificate, kind, product, key }
    }

    /// The chip that the certificate is for; only a VCEK's names one.
    pub(super) fn hardware_id(&self) -> Result<Option<&'a [u8]>, &'static str> {
        self.certificate.extension(OID_HARDWARE_ID).map_err(|_| "the hardware id is repeated")
    }

    /// The cloud operator that the certificate is for; only a VLEK's names one.
    pub(super) fn operator(&self) -> Option<String> {
        text_extension(self.certificate, OID_OPERATOR)
    }

    /// The TCB that the certificate was issued for.
    pub(super) fn tcb(&self, product: Product) -> Result<tcb::RawTcb, String> {
        tcb::of_certificate(self.certificate, product)
    }
}

/// A chain up to a believed root.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    pub(super) authority: &'a Certificate,
    pub(super) root: &'a Root,
}

/// Builds and checks the chain above `leaf`.
///
/// # Errors
/// Says which link does not hold.
pub(super) fn build<'a>(
    leaf: &Leaf<'_>,
    sent_along: Option<&'a Certificate>,
    collateral: &'a Collateral,
) -> Result<Chain<'a>, String> {
    let product = leaf.product.ok_or("the leaf names no known product")?;
    let kind = leaf.kind.ok_or("the leaf is neither a VCEK nor a VLEK")?;
    if leaf.key.is_none() {
        return Err("the leaf has no P-384 key".into());
    }
    if !leaf.certificate.is_end_entity() || !leaf.certificate.critical_extensions_are_known() {
        return Err("the leaf is an authority or has an unknown critical extension".into());
    }
    let name = product.authority_name(kind);
    let known = collateral.certificates().iter().map(|named| &named.thing);
    let authority = issuer(leaf.certificate, &name, sent_along.into_iter().chain(known))?;
    if !authority.may_issue(0) || !authority.critical_extensions_are_known() {
        return Err(format!("{name} may not issue certificates"));
    }
    let name = product.root_name();
    let roots = collateral.roots().iter().filter(|root| root.product == product);
    let ark = issuer(authority, &name, roots.clone().map(|root| &root.certificate))
        .map_err(|fault| format!("no believed root: {fault}"))?;
    ark.signed_by(ark).map_err(|fault| format!("{name}: {fault}"))?;
    if !ark.may_issue(1) || !ark.critical_extensions_are_known() {
        return Err(format!("{name} may not issue authorities"));
    }
    let root = roots.into_iter().find(|root| core::ptr::eq(&root.certificate, ark));
    Ok(Chain { authority, root: root.ok_or("no believed root")? })
}

/// The certificate called `name` among `candidates` that issued `subject`.
fn issuer<'a>(
    subject: &Certificate,
    name: &str,
    candidates: impl Iterator<Item = &'a Certificate>,
) -> Result<&'a Certificate, String> {
    let mut fault = format!("there is no certificate of {name}");
    let found = common_name(subject.issuer());
    if found.as_deref() != Some(name) {
        let found = found.unwrap_or_else(|| "nobody".into());
        return Err(format!("the issuer is {found}, not {name}"));
    }
    for candidate in candidates.filter(|candidate| candidate.subject() == subject.issuer()) {
        match subject.signed_by(candidate) {
            Ok(()) => return Ok(candidate),
            Err(wrong) => fault = format!("issued by {name}: {wrong}"),
        }
    }
    Err(fault)
}

/// Whether every certificate of the chain is valid at `at`.
pub(super) fn validity(leaf: &Leaf<'_>, chain: Option<&Chain<'_>>, at: Timestamp) -> Outcome {
    let above = chain.map(|chain| [chain.authority, &chain.root.certificate]);
    let mut all = core::iter::once(leaf.certificate).chain(above.into_iter().flatten());
    match all.find(|certificate| !certificate.is_valid_at(at)) {
        Some(certificate) => {
            let name = common_name(certificate.subject()).unwrap_or_default();
            Outcome::Failed(format!("{name} is {}", certificate.validity()))
        }
        None => Outcome::Established,
    }
}

/// Whether a revocation list of the root, or of the authority below it, names a certificate of the
/// chain. Every list of theirs that was handed in must verify and be current.
///
/// Leaf serials are looked up in the root's lists too: the vendor gives all leaves the serial 0,
/// which no authority of his has.
pub(super) fn revocation(
    leaf: &Leaf<'_>,
    chain: Option<&Chain<'_>>,
    collateral: &Collateral,
    at: Timestamp,
) -> Outcome {
    let Some(Chain { authority, root }) = chain else {
        return Outcome::NotEstablished("there is no chain to look up".into());
    };
    let mut root_list_seen = false;
    for Named { name, thing: list } in collateral.revocation_lists() {
        let issuer = if list.issuer() == root.certificate.subject() {
            root_list_seen = true;
            &root.certificate
        } else if list.issuer() == authority.subject() {
            *authority
        } else {
            continue;
        };
        if let Err(fault) = list.signed_by(issuer) {
            return Outcome::Failed(format!("{name}: {fault}"));
        }
        if !list.is_current_at(at) {
            return Outcome::Failed(format!("{name}: the list is not current"));
        }
        if !list.critical_extensions_are_known() {
            return Outcome::Failed(format!("{name}: the list has an unknown critical extension"));
        }
        for certificate in [leaf.certificate, *authority] {
            if list.revokes(certificate.serial()) {
                let revoked = common_name(certificate.subject()).unwrap_or_default();
                return Outcome::Failed(format!("{name}: {revoked} is revoked"));
            }
        }
    }
    if root_list_seen {
        Outcome::Established
    } else {
        let root = root.product.root_name();
        Outcome::NotEstablished(format!("no revocation list of {root} was handed in"))
    }
}

/// Whose root the chain leads to. Without a chain the evidence proves as much as one of our own
/// making.
pub(super) fn trust(chain: Option<&Chain<'_>>) -> TrustRoot {
    chain.map_or(TrustRoot::Development, |chain| chain.root.trust)
}

/// An extension that is one IA5String.
fn text_extension(certificate: &Certificate, oid: ObjectIdentifier) -> Option<String> {
    let value = certificate.extension(oid).ok()??;
    Ia5StringRef::from_der(value).ok().map(|text| text.as_str().to_owned())
}

/// AMD document 57230: product name, hardware id, and the cloud operator of a VLEK.
pub(super) const OID_PRODUCT: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
pub(super) const OID_HARDWARE_ID: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
pub(super) const OID_OPERATOR: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");
