//! Versions of the trusted computing base, whose layout depends on the product.
//!
//! ```text
//! byte          0            1            2     3     4     5     6     7
//! Milan, Genoa  boot loader  TEE          spl4  spl5  spl6  spl7  SNP   microcode
//! Turin         FMC          boot loader  TEE   SNP   spl5  spl6  spl7  microcode
//! ```
//!
//! The certificate of the signing key has one X.509 extension for each part (AMD document 57230).

use der::Decode;
use der::asn1::ObjectIdentifier;
use serde_json::{Map, Value};

use super::product::Product;
use crate::x509::Certificate;

/// TCB_VERSION as it stands in a report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RawTcb(pub [u8; 8]);

impl RawTcb {
    /// Each part with its name, for a chip of `product`.
    pub fn parts(self, product: Product) -> [(&'static str, u8); 8] {
        let mut values = self.0.into_iter();
        names(product).map(|name| (name, values.next().unwrap_or_default()))
    }

    /// The parts as an object; reserved ones only when they are not zero.
    pub fn document(self, product: Product) -> Value {
        let parts = self.parts(product).into_iter();
        let shown = parts.filter(|(name, value)| !name.starts_with("spl_") || *value != 0);
        Value::Object(
            shown.map(|(name, value)| (name.to_owned(), value.into())).collect::<Map<_, _>>(),
        )
    }

    /// The first part of which this has more than `other`, if any: versions only compare part by
    /// part.
    pub fn exceeds(self, other: Self, product: Product) -> Option<&'static str> {
        let pairs = self.parts(product).into_iter().zip(other.parts(product));
        pairs.into_iter().find(|((_, mine), (_, theirs))| mine > theirs).map(|((name, _), _)| name)
    }
}

/// The TCB that `certificate` was issued for.
///
/// # Errors
/// Names the extension that is missing, repeated, not one small integer, or of another product.
pub(super) fn of_certificate(
    certificate: &Certificate,
    product: Product,
) -> Result<RawTcb, String> {
    let mut tcb = [0; 8];
    for (part, name) in tcb.iter_mut().zip(names(product)) {
        let fault = |what| format!("the extension for {name} is {what}");
        let value = certificate.extension(extension(name)).map_err(|_| fault("repeated"))?;
        let value = value.ok_or_else(|| fault("missing"))?;
        *part = u8::from_der(value).map_err(|_| fault("not an integer of one byte"))?;
    }
    let foreign = ALL_NAMES.into_iter().filter(|name| !names(product).contains(name));
    for name in foreign {
        if certificate.extension(extension(name)) != Ok(None) {
            return Err(format!("the extension for {name} is not one of this product"));
        }
    }
    Ok(RawTcb(tcb))
}

const fn names(product: Product) -> [&'static str; 8] {
    match product {
        Product::Genoa | Product::Milan => {
            ["boot_loader", "tee", "spl_4", "spl_5", "spl_6", "spl_7", "snp", "microcode"]
        }
        Product::Turin => {
            ["fmc", "boot_loader", "tee", "snp", "spl_5", "spl_6", "spl_7", "microcode"]
        }
    }
}

/// The extension of the part called `name`.
pub(super) fn extension(name: &str) -> ObjectIdentifier {
    match name {
        "boot_loader" => ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1"),
        "tee" => ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2"),
        "snp" => ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3"),
        "spl_4" => ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.4"),
        "spl_5" => ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.5"),
        "spl_6" => ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.6"),
        "spl_7" => ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.7"),
        "microcode" => ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8"),
        // The remaining name in ALL_NAMES: fmc.
        _ => ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9"),
    }
}

/// Every part of every product.
const ALL_NAMES: [&str; 9] =
    ["boot_loader", "fmc", "microcode", "snp", "spl_4", "spl_5", "spl_6", "spl_7", "tee"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_mean_other_parts_on_other_products() {
        let tcb = RawTcb([1, 2, 3, 4, 0, 0, 5, 6]);
        assert_eq!(
            tcb.document(Product::Milan),
            serde_json::json!({
                "boot_loader": 1, "tee": 2, "spl_4": 3, "spl_5": 4, "snp": 5, "microcode": 6
            })
        );
        assert_eq!(
            tcb.document(Product::Turin),
            serde_json::json!({
                "fmc": 1, "boot_loader": 2, "tee": 3, "snp": 4, "spl_7": 5, "microcode": 6
            })
        );
    }

    #[test]
    fn versions_compare_part_by_part() {
        let (low, high) = (RawTcb([1, 0, 0, 0, 0, 0, 9, 9]), RawTcb([2, 0, 0, 0, 0, 0, 8, 9]));
        assert_eq!(low.exceeds(high, Product::Genoa), Some("snp"));
        assert_eq!(high.exceeds(low, Product::Genoa), Some("boot_loader"));
        assert_eq!(low.exceeds(low, Product::Genoa), None);
    }
}
