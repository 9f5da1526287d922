//! Templates: the attributes that a caller hands in.

use cryptoki_sys::*;

use crate::rv::{Result, Rv};

/// One attribute out of a template. The value was copied, so that the caller cannot change it
/// while it is looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Attribute {
    pub(crate) kind: CK_ATTRIBUTE_TYPE,
    pub(crate) value: Vec<u8>,
}

impl Attribute {
    /// Reads a `CK_BBOOL`.
    pub(crate) fn boolean(&self) -> Result<bool> {
        match self.value[..] {
            [CK_FALSE] => Ok(false),
            [CK_TRUE] => Ok(true),
            _ => Err(Rv(CKR_ATTRIBUTE_VALUE_INVALID)),
        }
    }

    /// Reads a `CK_ULONG`.
    pub(crate) fn number(&self) -> Result<CK_ULONG> {
        let bytes = self.value.as_slice().try_into();
        bytes.map(CK_ULONG::from_ne_bytes).map_err(|_| Rv(CKR_ATTRIBUTE_VALUE_INVALID))
    }

    /// Reads an array of `CK_ULONG`.
    pub(crate) fn numbers(&self) -> Result<Vec<CK_ULONG>> {
        let chunks = self.value.chunks(size_of::<CK_ULONG>());
        let number = |chunk: &[u8]| Self { kind: self.kind, value: chunk.to_vec() }.number();
        chunks.map(number).collect()
    }

    /// Reads UTF-8.
    pub(crate) fn text(&self) -> Result<String> {
        String::from_utf8(self.value.clone()).map_err(|_| Rv(CKR_ATTRIBUTE_VALUE_INVALID))
    }
}

/// The value of one attribute, if the template has it.
pub(crate) fn value(template: &[Attribute], kind: CK_ATTRIBUTE_TYPE) -> Option<&Attribute> {
    template.iter().find(|attribute| attribute.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_another_length_are_refused() {
        let attribute = |value: &[u8]| Attribute { kind: CKA_SIGN, value: value.to_vec() };
        assert_eq!(attribute(&[1]).boolean(), Ok(true));
        for bad in [&[][..], &[2], &[1, 0], &[1; 8]] {
            assert!(attribute(bad).boolean().is_err(), "{bad:?}");
        }
        assert_eq!(attribute(&7_u64.to_ne_bytes()).number(), Ok(7));
        assert!(attribute(&[0; 4]).number().is_err());
        assert!(attribute(&[0; 9]).numbers().is_err());
        assert_eq!(attribute(&[0; 16]).numbers(), Ok(vec![0, 0]));
    }
}
