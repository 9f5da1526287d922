//! The few pieces of ASN.1 that PKCS#11 has in another form than the daemon: signatures, points,
//! public keys, certificates. DER only; what is not is refused, never repaired.

use der::asn1::{AnyRef, UintRef};
use der::{Decode as _, Encode as _, Reader as _, Sequence, SliceReader};

/// An ECDSA signature (RFC 3279 §2.2.3).
#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// r and s side by side, each of `bytes` bytes (PKCS#11 v3.1 §6.3.1), from DER.
pub(crate) fn raw_signature(der: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let EcdsaSignature { r, s } = EcdsaSignature::from_der(der).ok()?;
    let mut raw = Vec::with_capacity(2 * bytes);
    for number in [r.as_bytes(), s.as_bytes()] {
        let padding = bytes.checked_sub(number.len())?;
        raw.extend(std::iter::repeat_n(0, padding));
        raw.extend(number);
    }
    Some(raw)
}

/// DER from r and s side by side.
pub(crate) fn der_signature(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = raw.split_at_checked(raw.len() / 2)?;
    let signature = EcdsaSignature { r: UintRef::new(r).ok()?, s: UintRef::new(s).ok()? };
    signature.to_der().ok()
}

/// A public key as X.509 has it, in two parts: the algorithm's identifier with its parameters, and
/// the key's own bits.
pub(crate) fn public_key_parts(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(der).ok()?;
    let parts =
        reader.sequence(|inner| Ok::<_, der::Error>((inner.tlv_bytes()?, inner.tlv_bytes()?)));
    let (algorithm, bits) = parts.ok()?;
    reader.finish().ok()?;
    let bits = AnyRef::from_der(bits).ok()?.decode_as::<der::asn1::BitStringRef<'_>>().ok()?;
    Some((algorithm, bits.as_bytes()?))
}

/// The other way round: SubjectPublicKeyInfo out of an AlgorithmIdentifier and the key's bits.
pub(crate) fn public_key_info(algorithm: &[u8], bits: &[u8]) -> Vec<u8> {
    let bits = tlv(0x03, &[&[0], bits].concat());
    tlv(0x30, &[algorithm, &bits].concat())
}

/// An OCTET STRING around bytes.
pub(crate) fn octet_string(bytes: &[u8]) -> Vec<u8> {
    tlv(0x04, bytes)
}

/// What a certificate says of itself, each field as it is encoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CertificateParts {
    pub(crate) serial_number: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
}

/// Takes a certificate apart (RFC 5280 §4.1). Its signature is not looked at: programs judge.
pub(crate) fn certificate_parts(der: &[u8]) -> Option<CertificateParts> {
    let mut reader = SliceReader::new(der).ok()?;
    let parts = reader.sequence(|certificate| {
        let parts = certificate.sequence(|inner| {
            if inner.peek_byte() == Some(VERSION_TAG) {
                inner.tlv_bytes()?;
            }
            let serial_number = inner.tlv_bytes()?.to_vec();
            let _signature_algorithm = inner.tlv_bytes()?;
            let issuer = inner.tlv_bytes()?.to_vec();
            let _validity = inner.tlv_bytes()?;
            let subject = inner.tlv_bytes()?.to_vec();
            let public_key = inner.tlv_bytes()?.to_vec();
            while !inner.is_finished() {
                inner.tlv_bytes()?;
            }
            Ok::<_, der::Error>(CertificateParts { serial_number, issuer, subject, public_key })
        })?;
        let (_algorithm, _signature) = (certificate.tlv_bytes()?, certificate.tlv_bytes()?);
        Ok::<_, der::Error>(parts)
    });
    let parts = parts.ok()?;
    reader.finish().ok()?;
    Some(parts)
}

/// One element. Lengths here are those of keys, far below 2^24.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = content.len().to_be_bytes();
    let length = match (a, b, c) {
        (0, 0, c) if c < 0x80 => vec![c],
        (0, 0, c) => vec![0x81, c],
        (0, b, c) => vec![0x82, b, c],
        (a, b, c) => vec![0x83, a, b, c],
    };
    [&[tag], &length[..], content].concat()
}

/// `[0] EXPLICIT Version`.
const VERSION_TAG: u8 = 0xa0;

#[cfg(test)]
mod tests {
    use p256::pkcs8::EncodePublicKey as _;

    use super::*;

    #[test]
    fn signatures_go_from_der_to_raw_and_back() {
        let der = [0x30, 0x07, 0x02, 0x02, 0x00, 0x80, 0x02, 0x01, 0x05];
        let raw = raw_signature(&der, 4).unwrap();
        assert_eq!(raw, [0, 0, 0, 0x80, 0, 0, 0, 5]);
        assert_eq!(der_signature(&raw).unwrap(), der);
        assert_eq!(raw_signature(&der, 0), None);
        let negative = [0x30, 0x06, 0x02, 0x01, 0x80, 0x02, 0x01, 0x05];
        let long = [0x30, 0x08, 0x02, 0x02, 0x00, 0x80, 0x02, 0x01, 0x05, 0x00];
        for bad in [&der[..8], &negative, &long, &[0x30, 0x80], &[]] {
            assert_eq!(raw_signature(bad, 4), None, "{bad:02x?}");
        }
    }

    #[test]
    fn a_public_key_is_taken_apart_and_put_together() {
        let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let der = key.verifying_key().to_public_key_der().unwrap().into_vec();
        let (algorithm, bits) = public_key_parts(&der).unwrap();
        assert_eq!(bits, &*key.verifying_key().to_sec1_point(false).to_bytes());
        assert_eq!(public_key_info(algorithm, bits), der);
        for bad in [&der[1..], &der[..90], &[&der[..], &[0]].concat(), &[]] {
            assert_eq!(public_key_parts(bad), None);
        }
    }

    #[test]
    fn lengths_are_as_short_as_der_wants() {
        assert_eq!(octet_string(&[1; 127])[..2], [4, 127]);
        assert_eq!(octet_string(&[1; 128])[..3], [4, 0x81, 128]);
        assert_eq!(octet_string(&[1; 256])[..4], [4, 0x82, 1, 0]);
        assert_eq!(octet_string(&[1; 65_536])[..5], [4, 0x83, 1, 0, 0]);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let field = |tag, content: &[u8]| tlv(tag, content);
        let inner = [
            field(0xa0, &field(0x02, &[2])),
            field(0x02, &[9]),
            field(0x30, &[]),
            field(0x30, &field(0x31, &[])),
            field(0x30, &[]),
            field(0x30, &[]),
            field(0x30, &[]),
            field(0xa3, &[]),
        ];
        let rest = [field(0x30, &[]), field(0x03, &[0])].concat();
        let good = field(0x30, &[field(0x30, &inner.concat()), rest.clone()].concat());
        let parts = certificate_parts(&good).unwrap();
        assert_eq!((parts.serial_number, parts.issuer), (vec![2, 1, 9], vec![0x30, 2, 0x31, 0]));
        let short = field(0x30, &[field(0x30, &inner[..5].concat()), rest].concat());
        for bad in
            [&good[1..], &good[..20], &short, &[&good[..], &[0]].concat(), &[0x30, 0x80], &[]]
        {
            assert_eq!(certificate_parts(bad), None);
        }
    }
}
