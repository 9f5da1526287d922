//! What a template asks of a key that is to be made.
//!
//! A template is a wish. What it may not wish is that a key be less protected than ours are: that
//! is refused. What it leaves open is filled in so that the key is usable; so an empty template
//! gives a token object with all usages, and a missing CKA_TOKEN means true. A template that names
//! usages gets those and no others. A usage that the algorithm does not offer (many programs ask for
//! CKA_DERIVE or CKA_DECRYPT by default) is not granted and shows as false, provided that something
//! else is left. The key gets all mechanisms that its usages and the ring offer, or those among
//! CKA_ALLOWED_MECHANISMS.

use cryptoki_sys::*;
use kms_proto::v1;
use kms_proto::v1::Mechanism as Wire;

use crate::algorithm::{self, Size};
use crate::attribute::class_number;
use crate::mechanism::{self, Operation};
use crate::object::Class;
use crate::rv::{Result, Rv};
use crate::template::{self, Attribute};

/// A key that is wished for.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Wish {
    pub(crate) algorithm: v1::Algorithm,
    pub(crate) usages: Vec<v1::Usage>,
    pub(crate) mechanisms: Vec<Wire>,
    pub(crate) label: Option<String>,
    pub(crate) id: Option<Vec<u8>>,
    /// Of a generic secret; 0 for the length that the algorithm or the material has.
    pub(crate) length_bytes: u32,
    pub(crate) exportable: bool,
}

/// The templates of a key: one for a secret key, one or two for a pair.
pub(crate) type Templates<'a> = &'a [(Class, &'a [Attribute])];

impl Wish {
    /// Reads the templates for a key of this algorithm in a token that offers these mechanisms. The
    /// code alone tells nobody what to change, so what cannot be granted is reported.
    pub(crate) fn read(
        algorithm: v1::Algorithm,
        offered: &[Wire],
        templates: Templates<'_>,
        report: impl Fn(&str),
    ) -> Result<Self> {
        let mut reading = Reading::new(algorithm, offered, templates)?;
        for (class, template) in templates {
            for (index, attribute) in template.iter().enumerate() {
                if template[..index].iter().any(|other| other.kind == attribute.kind) {
                    return Err(Rv(CKR_TEMPLATE_INCONSISTENT));
                }
                reading.read(*class, attribute).inspect_err(|_| {
                    let Attribute { kind, value } = attribute;
                    report(&format!("no such key: {class:?} {kind:#x} = {value:02x?}"));
                })?;
            }
        }
        reading
            .finish()
            .inspect_err(|_| report("no such key: no usage that it offers is asked for"))
    }

    /// The key for the daemon, with a name of its own.
    pub(crate) fn into_key(self, ring: &str, name: &str) -> v1::Key {
        let Self { algorithm, usages, mechanisms, label, id, length_bytes, exportable } = self;
        v1::Key {
            name: format!("{ring}/keys/{name}"),
            algorithm: algorithm.into(),
            usages: usages.into_iter().map(i32::from).collect(),
            pkcs11_label: label.unwrap_or_default(),
            pkcs11_id: id.unwrap_or_default(),
            mechanisms: mechanisms.into_iter().map(i32::from).collect(),
            length_bytes,
            exportable,
            ..Default::default()
        }
    }
}

/// The algorithm of a secret key to be generated: its length stands in the template.
pub(crate) fn secret_algorithm(
    key_type: CK_KEY_TYPE,
    template: &[Attribute],
) -> Result<v1::Algorithm> {
    let length = template::value(template, CKA_VALUE_LEN).map(Attribute::number).transpose()?;
    algorithm::of_size(key_type, length.unwrap_or(SECRET_BYTES), CKR_KEY_SIZE_RANGE)
}

/// The algorithm of a key pair to be generated: what tells it from others stands in the public
/// key's template, and by mistake sometimes in the private key's.
pub(crate) fn pair_algorithm(
    generator: CK_MECHANISM_TYPE,
    templates: [&[Attribute]; 2],
) -> Result<v1::Algorithm> {
    let value = |kind| {
        let found = templates.iter().find_map(|template| template::value(template, kind));
        found.ok_or(Rv(CKR_TEMPLATE_INCOMPLETE))
    };
    let set = |key_type| {
        let number = value(CKA_PARAMETER_SET)?.number()?;
        algorithm::of_size(key_type, number, CKR_ATTRIBUTE_VALUE_INVALID)
    };
    let curve = |key_type| algorithm::of_curve(key_type, &value(CKA_EC_PARAMS)?.value);
    // There is one curve of these, so it need not be named.
    let the_curve = |key_type, algorithm| match curve(key_type) {
        Err(Rv(CKR_TEMPLATE_INCOMPLETE)) => Ok(algorithm),
        named => named,
    };
    match generator {
        CKM_EC_KEY_PAIR_GEN => curve(CKK_EC),
        // GnuTLS asks by the name of the signature.
        CKM_EC_EDWARDS_KEY_PAIR_GEN | CKM_EDDSA => {
            the_curve(CKK_EC_EDWARDS, v1::Algorithm::Ed25519)
        }
        CKM_EC_MONTGOMERY_KEY_PAIR_GEN => the_curve(CKK_EC_MONTGOMERY, v1::Algorithm::X25519),
        CKM_RSA_PKCS_KEY_PAIR_GEN => {
            let bits = value(CKA_MODULUS_BITS)?.number()?;
            algorithm::of_size(CKK_RSA, bits, CKR_KEY_SIZE_RANGE)
        }
        CKM_ML_DSA_KEY_PAIR_GEN => set(CKK_ML_DSA),
        CKM_ML_KEM_KEY_PAIR_GEN => set(CKK_ML_KEM),
        CKM_SLH_DSA_KEY_PAIR_GEN => set(CKK_SLH_DSA),
        _ => Err(Rv(CKR_MECHANISM_INVALID)),
    }
}

/// Class and algorithm of a key that is made out of something else. `bytes` is the length that the
/// material has, or is likely to have.
pub(crate) fn made_algorithm(
    template: &[Attribute],
    bytes: Option<CK_ULONG>,
) -> Result<(Class, v1::Algorithm)> {
    let number = |kind| template::value(template, kind).map(Attribute::number).transpose();
    let key_type = number(CKA_KEY_TYPE)?;
    let length = number(CKA_VALUE_LEN)?.or(bytes).ok_or(Rv(CKR_TEMPLATE_INCOMPLETE));
    match (number(CKA_CLASS)?.unwrap_or(CKO_SECRET_KEY), key_type) {
        (CKO_SECRET_KEY, key_type) => {
            let key_type = key_type.unwrap_or(CKK_GENERIC_SECRET);
            let algorithm = algorithm::of_size(key_type, length?, CKR_KEY_SIZE_RANGE)?;
            Ok((Class::Secret, algorithm))
        }
        (CKO_PRIVATE_KEY, None) => Err(Rv(CKR_TEMPLATE_INCOMPLETE)),
        (CKO_PRIVATE_KEY, Some(key_type)) => {
            let algorithm = private_algorithm(key_type, template, bytes)?;
            Ok((Class::Private, algorithm))
        }
        _ => Err(Rv(CKR_TEMPLATE_INCONSISTENT)),
    }
}

fn private_algorithm(
    key_type: CK_KEY_TYPE,
    template: &[Attribute],
    bytes: Option<CK_ULONG>,
) -> Result<v1::Algorithm> {
    let generator = match key_type {
        // The template names no size: PKCS#8 of 2,048 bits has about 1,220 bytes, of 3,072 bits 1,790,
        // of 4,096 bits 2,370. The daemon looks at the key itself.
        CKK_RSA if template::value(template, CKA_MODULUS_BITS).is_none() => {
            return Ok(match bytes {
                None => return Err(Rv(CKR_TEMPLATE_INCOMPLETE)),
                Some(..1500) => v1::Algorithm::Rsa2048,
                Some(1500..2080) => v1::Algorithm::Rsa3072,
                Some(_) => v1::Algorithm::Rsa4096,
            });
        }
        CKK_RSA => CKM_RSA_PKCS_KEY_PAIR_GEN,
        CKK_EC => CKM_EC_KEY_PAIR_GEN,
        CKK_EC_EDWARDS => CKM_EC_EDWARDS_KEY_PAIR_GEN,
        CKK_EC_MONTGOMERY => CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
        CKK_ML_DSA => CKM_ML_DSA_KEY_PAIR_GEN,
        CKK_ML_KEM => CKM_ML_KEM_KEY_PAIR_GEN,
        CKK_SLH_DSA => CKM_SLH_DSA_KEY_PAIR_GEN,
        _ => return Err(Rv(CKR_TEMPLATE_INCONSISTENT)),
    };
    pair_algorithm(generator, [template, &[]])
}

struct Reading {
    wish: Wish,
    /// What keys of the algorithm can be for, and by which mechanisms.
    offered: Vec<(&'static Operation, Vec<Wire>)>,
    /// Asked for by name, and declined by name.
    asked: Vec<&'static Operation>,
    declined: Vec<&'static Operation>,
    /// A usage that is not offered was asked for.
    asked_in_vain: bool,
}

impl Reading {
    fn new(algorithm: v1::Algorithm, offered: &[Wire], templates: Templates<'_>) -> Result<Self> {
        let mut allowed = offered.to_vec();
        for (_, template) in templates {
            let Some(list) = template::value(template, CKA_ALLOWED_MECHANISMS) else { continue };
            let kinds = list.numbers()?;
            // An empty list allows nothing by the letter; whoever sends one has nothing to say.
            if !kinds.is_empty() {
                let named = mechanism::wires(algorithm, &kinds);
                allowed.retain(|wire| named.contains(wire));
            }
        }
        let wish = Wish {
            algorithm,
            usages: Vec::new(),
            mechanisms: Vec::new(),
            label: None,
            id: None,
            length_bytes: 0,
            exportable: false,
        };
        let offered = mechanism::operations(algorithm, &allowed);
        Ok(Self { wish, offered, asked: Vec::new(), declined: Vec::new(), asked_in_vain: false })
    }

    /// Reads one attribute of the template of an object of this class.
    fn read(&mut self, class: Class, attribute: &Attribute) -> Result<()> {
        let protected = class != Class::Public;
        let key_type = algorithm::key_type(self.wish.algorithm);
        match attribute.kind {
            CKA_CLASS => must(attribute.number()? == class_number(class)),
            CKA_KEY_TYPE => must(attribute.number()? == key_type),
            // Session objects would have to die with the session, which the daemon does not do.
            CKA_TOKEN | CKA_MODIFIABLE => must(attribute.boolean()?),
            CKA_PRIVATE => must(attribute.boolean()? == protected),
            CKA_COPYABLE | CKA_DESTROYABLE => must(attribute.boolean()? || !protected),
            // An officer of the appliance marks the keys that others trust.
            CKA_TRUSTED | CKA_ALWAYS_AUTHENTICATE | CKA_WRAP_WITH_TRUSTED => {
                must(!attribute.boolean()?)
            }
            CKA_SENSITIVE if protected => must(attribute.boolean()?),
            CKA_EXTRACTABLE if protected => {
                self.wish.exportable = attribute.boolean()?;
                Ok(())
            }
            CKA_SIGN | CKA_VERIFY | CKA_ENCRYPT | CKA_DECRYPT | CKA_WRAP | CKA_UNWRAP
            | CKA_DERIVE | CKA_SIGN_RECOVER | CKA_VERIFY_RECOVER | CKA_ENCAPSULATE
            | CKA_DECAPSULATE => self.read_usage(class, attribute),
            CKA_LABEL => set(&mut self.wish.label, attribute.text()?),
            CKA_ID => set(&mut self.wish.id, attribute.value.clone()),
            // What is empty asks for nothing.
            CKA_SUBJECT | CKA_START_DATE | CKA_END_DATE if attribute.value.is_empty() => Ok(()),
            CKA_SUBJECT | CKA_START_DATE | CKA_END_DATE => Err(Rv(CKR_ATTRIBUTE_VALUE_INVALID)),
            CKA_ALLOWED_MECHANISMS => Ok(()),
            CKA_LOCAL
            | CKA_KEY_GEN_MECHANISM
            | CKA_ALWAYS_SENSITIVE
            | CKA_NEVER_EXTRACTABLE
            | CKA_UNIQUE_ID => Err(Rv(CKR_ATTRIBUTE_READ_ONLY)),
            _ => self.read_size(class, attribute),
        }
    }

    /// Reads what tells the algorithm from others of its type.
    fn read_size(&mut self, class: Class, attribute: &Attribute) -> Result<()> {
        let facts = algorithm::facts(self.wish.algorithm).ok_or(Rv(CKR_TEMPLATE_INCONSISTENT))?;
        match (attribute.kind, facts.size) {
            (CKA_EC_PARAMS, Size::Curve { .. }) => {
                let named = algorithm::of_curve(facts.key_type, &attribute.value)?;
                must(named == self.wish.algorithm)
            }
            (CKA_MODULUS_BITS, Size::Modulus(bits)) => {
                if attribute.number()? == bits {
                    Ok(())
                } else {
                    Err(Rv(CKR_KEY_SIZE_RANGE))
                }
            }
            (CKA_PUBLIC_EXPONENT, Size::Modulus(_)) => {
                let leading_zeros = attribute.value.iter().take_while(|byte| **byte == 0).count();
                if attribute.value[leading_zeros..] == RSA_EXPONENT {
                    Ok(())
                } else {
                    Err(Rv(CKR_ATTRIBUTE_VALUE_INVALID))
                }
            }
            (CKA_PARAMETER_SET, Size::Set { set, .. }) => must(attribute.number()? == set),
            (CKA_VALUE_LEN, Size::Bytes(bytes)) if class == Class::Secret => {
                if attribute.number()? == bytes { Ok(()) } else { Err(Rv(CKR_KEY_SIZE_RANGE)) }
            }
            (CKA_VALUE_LEN, Size::Any) => {
                let bytes = u32::try_from(attribute.number()?);
                self.wish.length_bytes = bytes.map_err(|_| Rv(CKR_KEY_SIZE_RANGE))?;
                Ok(())
            }
            _ => Err(Rv(CKR_ATTRIBUTE_TYPE_INVALID)),
        }
    }

    fn read_usage(&mut self, class: Class, attribute: &Attribute) -> Result<()> {
        let wanted = attribute.boolean()?;
        let is_it = |one: &Operation| one.class == class && one.attribute == attribute.kind;
        match self.offered.iter().map(|(one, _)| *one).find(|one| is_it(one)) {
            Some(operation) if wanted => self.asked.push(operation),
            Some(operation) => self.declined.push(operation),
            None => self.asked_in_vain |= wanted,
        }
        Ok(())
    }

    fn finish(self) -> Result<Wish> {
        let Self { mut wish, offered, asked, declined, asked_in_vain } = self;
        let has = |list: &[&Operation], one: &Operation| list.iter().any(|o| std::ptr::eq(*o, one));
        let granted = |one: &Operation| {
            let class_asks = asked.iter().any(|other| other.class == one.class);
            if class_asks { has(&asked, one) } else { !has(&declined, one) }
        };
        for (operation, wires) in offered.into_iter().filter(|(one, _)| granted(one)) {
            wish.usages.push(operation.usage);
            let new: Vec<_> =
                wires.into_iter().filter(|wire| !wish.mechanisms.contains(wire)).collect();
            wish.mechanisms.extend(new);
        }
        wish.mechanisms.sort_unstable();
        wish.mechanisms.dedup();
        // A key that can do nothing, or only what nobody asked for, is not what was meant.
        if wish.usages.is_empty() || (asked_in_vain && asked.is_empty()) {
            return Err(Rv(CKR_TEMPLATE_INCONSISTENT));
        }
        Ok(wish)
    }
}

fn must(consistent: bool) -> Result<()> {
    if consistent { Ok(()) } else { Err(Rv(CKR_TEMPLATE_INCONSISTENT)) }
}

/// Label and ID belong to the pair, so both templates must agree on them.
fn set<T: PartialEq>(field: &mut Option<T>, value: T) -> Result<()> {
    must(field.as_ref().is_none_or(|earlier| *earlier == value))?;
    *field = Some(value);
    Ok(())
}

const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// Length of a secret whose template names none.
const SECRET_BYTES: CK_ULONG = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mechanism::tests::{every_wire, hardened};

    fn is(kind: CK_ATTRIBUTE_TYPE, value: bool) -> Attribute {
        Attribute { kind, value: vec![u8::from(value)] }
    }

    fn number(kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> Attribute {
        Attribute { kind, value: value.to_ne_bytes().to_vec() }
    }

    fn bytes(kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Attribute {
        Attribute { kind, value: value.to_vec() }
    }

    fn kinds(kinds: &[CK_MECHANISM_TYPE]) -> Attribute {
        let value: Vec<_> = kinds.iter().flat_map(|kind| kind.to_ne_bytes()).collect();
        bytes(CKA_ALLOWED_MECHANISMS, &value)
    }

    fn of(algorithm: v1::Algorithm, templates: Templates<'_>) -> Result<Wish> {
        Wish::read(algorithm, &hardened(), templates, |_| ())
    }

    fn pair(public: &[Attribute], private: &[Attribute]) -> Result<Wish> {
        of(v1::Algorithm::EcP256, &[(Class::Public, public), (Class::Private, private)])
    }

    fn secret(template: &[Attribute]) -> Result<Wish> {
        of(v1::Algorithm::Aes256, &[(Class::Secret, template)])
    }

    fn refusal(private: Attribute) -> CK_RV {
        pair(&[], &[private]).unwrap_err().0
    }

    fn p256() -> &'static [u8] {
        algorithm::curve_parameters(v1::Algorithm::EcP256).unwrap()
    }

    #[test]
    fn empty_templates_give_a_usable_key() {
        let wish = pair(&[], &[]).unwrap();
        assert_eq!(wish.usages, [v1::Usage::Sign, v1::Usage::Verify, v1::Usage::Derive]);
        assert!(!wish.exportable);
        let aes = secret(&[]).unwrap();
        assert!(
            aes.usages.contains(&v1::Usage::Encrypt) && aes.usages.contains(&v1::Usage::Unwrap)
        );
        assert_eq!(aes.mechanisms.len(), 7);
    }

    #[test]
    fn one_rsa_key_signs_by_every_padding_that_the_ring_takes() {
        let template = [is(CKA_SIGN, true)];
        let templates: [(_, &[_]); 2] =
            [(Class::Public, &[is(CKA_VERIFY, true)]), (Class::Private, &template)];
        let read = |offered: &[Wire]| {
            Wish::read(v1::Algorithm::Rsa3072, offered, &templates, |_| ()).unwrap()
        };
        let wish = read(&hardened());
        assert_eq!(wish.usages, [v1::Usage::Sign, v1::Usage::Verify]);
        assert!(wish.mechanisms.contains(&Wire::RsaPssSha256));
        assert!(wish.mechanisms.contains(&Wire::RsaPkcs1Sha512));
        assert!(!wish.mechanisms.contains(&Wire::RsaOaepSha256));
        assert_eq!(read(&[Wire::RsaPssSha384]).mechanisms, [Wire::RsaPssSha384]);
        let both: [(_, &[_]); 2] = [(Class::Public, &[]), (Class::Private, &[])];
        let raw = |offered: &[Wire]| {
            let wish = Wish::read(v1::Algorithm::Rsa2048, offered, &both, |_| ()).unwrap();
            wish.mechanisms.contains(&Wire::RsaRaw)
        };
        assert!(raw(&every_wire()) && !raw(&hardened()));
    }

    #[test]
    fn allowed_mechanisms_narrow_the_key() {
        let wish = pair(&[], &[kinds(&[CKM_ECDSA_SHA384])]).unwrap();
        assert_eq!(wish.mechanisms, [Wire::EcdsaSha384]);
        assert_eq!(wish.usages, [v1::Usage::Sign, v1::Usage::Verify]);
        assert_eq!(pair(&[], &[kinds(&[])]).unwrap().mechanisms.len(), 7);
        let none = Err(Rv(CKR_TEMPLATE_INCONSISTENT));
        assert_eq!(pair(&[], &[kinds(&[CKM_RSA_PKCS])]), none);
        let odd = bytes(CKA_ALLOWED_MECHANISMS, &[1, 2, 3]);
        assert_eq!(pair(&[], &[odd]), Err(Rv(CKR_ATTRIBUTE_VALUE_INVALID)));
    }

    #[test]
    fn what_common_tools_ask_for_is_taken() {
        let common = [is(CKA_TOKEN, true), bytes(CKA_LABEL, b"web"), bytes(CKA_ID, &[1])];
        let public = [
            &common[..],
            &[
                number(CKA_CLASS, CKO_PUBLIC_KEY),
                is(CKA_VERIFY, true),
                is(CKA_PRIVATE, false),
                is(CKA_DERIVE, true),
                bytes(CKA_EC_PARAMS, p256()),
                number(CKA_KEY_TYPE, CKK_EC),
            ],
        ]
        .concat();
        let private = [
            &common[..],
            &[
                number(CKA_CLASS, CKO_PRIVATE_KEY),
                is(CKA_PRIVATE, true),
                is(CKA_SENSITIVE, true),
                is(CKA_SIGN, true),
                is(CKA_DECRYPT, true),
                is(CKA_EXTRACTABLE, false),
            ],
        ]
        .concat();
        let wish = pair(&public, &private).unwrap();
        assert_eq!(wish.label.as_deref(), Some("web"));
        assert_eq!(wish.id, Some(vec![1]));
        assert_eq!(wish.usages, [v1::Usage::Sign, v1::Usage::Verify]);
        assert_eq!(wish.mechanisms.len(), 6);
    }

    #[test]
    fn a_key_that_is_less_protected_is_not_made() {
        for attribute in [
            is(CKA_SENSITIVE, false),
            is(CKA_PRIVATE, false),
            is(CKA_TOKEN, false),
            is(CKA_TRUSTED, true),
            number(CKA_CLASS, CKO_PUBLIC_KEY),
            number(CKA_KEY_TYPE, CKK_RSA),
            // A key for what is not offered.
            is(CKA_DECRYPT, true),
        ] {
            assert_eq!(refusal(attribute), CKR_TEMPLATE_INCONSISTENT);
        }
        let declined = [is(CKA_SIGN, false), is(CKA_DERIVE, false)];
        let for_nothing = pair(&[is(CKA_VERIFY, false)], &declined);
        assert_eq!(for_nothing, Err(Rv(CKR_TEMPLATE_INCONSISTENT)));
    }

    #[test]
    fn a_key_may_leave_only_when_that_was_asked_for() {
        assert!(pair(&[], &[is(CKA_EXTRACTABLE, true)]).unwrap().exportable);
        assert!(secret(&[is(CKA_EXTRACTABLE, true)]).unwrap().exportable);
        let public = pair(&[is(CKA_EXTRACTABLE, true)], &[]);
        assert_eq!(public, Err(Rv(CKR_ATTRIBUTE_TYPE_INVALID)));
    }

    #[test]
    fn other_mistakes_have_their_codes() {
        assert_eq!(refusal(bytes(CKA_EC_PARAMS, &[6, 1, 0])), CKR_CURVE_NOT_SUPPORTED);
        let p384 = algorithm::curve_parameters(v1::Algorithm::EcP384).unwrap();
        assert_eq!(refusal(bytes(CKA_EC_PARAMS, p384)), CKR_TEMPLATE_INCONSISTENT);
        assert_eq!(refusal(is(CKA_LOCAL, true)), CKR_ATTRIBUTE_READ_ONLY);
        assert_eq!(refusal(bytes(CKA_SIGN, &[1; 8])), CKR_ATTRIBUTE_VALUE_INVALID);
        assert_eq!(refusal(bytes(CKA_VENDOR_DEFINED, &[])), CKR_ATTRIBUTE_TYPE_INVALID);
        assert_eq!(refusal(number(CKA_MODULUS_BITS, 3072)), CKR_ATTRIBUTE_TYPE_INVALID);
        let labels = pair(&[bytes(CKA_LABEL, b"a")], &[bytes(CKA_LABEL, b"b")]);
        assert_eq!(labels, Err(Rv(CKR_TEMPLATE_INCONSISTENT)));
        let twice = pair(&[], &[is(CKA_SIGN, true), is(CKA_SIGN, true)]);
        assert_eq!(twice, Err(Rv(CKR_TEMPLATE_INCONSISTENT)));
    }

    #[test]
    fn rsa_has_the_exponent_65537() {
        let rsa = |attribute| {
            let template = [attribute];
            let wish = of(v1::Algorithm::Rsa3072, &[(Class::Public, &template)]);
            wish.err().map(|rv| rv.0)
        };
        assert_eq!(rsa(number(CKA_MODULUS_BITS, 3072)), None);
        assert_eq!(rsa(number(CKA_MODULUS_BITS, 2048)), Some(CKR_KEY_SIZE_RANGE));
        assert_eq!(rsa(bytes(CKA_PUBLIC_EXPONENT, &[0, 1, 0, 1])), None);
        assert_eq!(rsa(bytes(CKA_PUBLIC_EXPONENT, &[3])), Some(CKR_ATTRIBUTE_VALUE_INVALID));
        assert_eq!(rsa(bytes(CKA_PUBLIC_EXPONENT, &[])), Some(CKR_ATTRIBUTE_VALUE_INVALID));
    }

    #[test]
    fn a_usage_that_is_declined_is_not_granted_and_one_that_is_named_stands_alone() {
        let wish = secret(&[is(CKA_DECRYPT, false), number(CKA_VALUE_LEN, 32)]).unwrap();
        assert!(!wish.usages.contains(&v1::Usage::Decrypt) && wish.usages.len() == 5);
        let wish = secret(&[is(CKA_SIGN, true)]).unwrap();
        assert_eq!(wish.usages, [v1::Usage::MacSign]);
        assert_eq!(wish.mechanisms, [Wire::AesCmac]);
    }

    #[test]
    fn the_template_tells_the_algorithm() {
        let length = |bytes| [number(CKA_VALUE_LEN, bytes)];
        assert_eq!(secret_algorithm(CKK_AES, &[]), Ok(v1::Algorithm::Aes256));
        assert_eq!(secret_algorithm(CKK_AES, &length(24)), Ok(v1::Algorithm::Aes192));
        assert_eq!(secret_algorithm(CKK_AES, &length(8)), Err(Rv(CKR_KEY_SIZE_RANGE)));
        assert_eq!(secret_algorithm(CKK_CHACHA20, &length(16)), Err(Rv(CKR_KEY_SIZE_RANGE)));
        let generic = [(Class::Secret, &length(64)[..])];
        assert_eq!(of(v1::Algorithm::GenericSecret, &generic).unwrap().length_bytes, 64);
        let pair = |generator, public: &[Attribute]| pair_algorithm(generator, [public, &[]]);
        assert_eq!(pair(CKM_EC_KEY_PAIR_GEN, &[]), Err(Rv(CKR_TEMPLATE_INCOMPLETE)));
        assert_eq!(pair(CKM_RSA_PKCS_KEY_PAIR_GEN, &[]), Err(Rv(CKR_TEMPLATE_INCOMPLETE)));
        assert_eq!(pair(CKM_ML_DSA_KEY_PAIR_GEN, &[]), Err(Rv(CKR_TEMPLATE_INCOMPLETE)));
        assert_eq!(pair(CKM_EC_EDWARDS_KEY_PAIR_GEN, &[]), Ok(v1::Algorithm::Ed25519));
        assert_eq!(pair(CKM_EDDSA, &[]), Ok(v1::Algorithm::Ed25519));
        let bits = |bits| [number(CKA_MODULUS_BITS, bits)];
        let rsa = CKM_RSA_PKCS_KEY_PAIR_GEN;
        assert_eq!(pair(rsa, &bits(2048)), Ok(v1::Algorithm::Rsa2048));
        assert_eq!(pair(rsa, &bits(1024)), Err(Rv(CKR_KEY_SIZE_RANGE)));
        let set = |set| [number(CKA_PARAMETER_SET, set)];
        assert_eq!(pair(CKM_ML_DSA_KEY_PAIR_GEN, &set(3)), Ok(v1::Algorithm::MlDsa87));
        let no_set = Err(Rv(CKR_ATTRIBUTE_VALUE_INVALID));
        assert_eq!(pair(CKM_ML_KEM_KEY_PAIR_GEN, &set(CKP_ML_KEM_512)), no_set);
        let wrong = [bytes(CKA_EC_PARAMS, p256())];
        assert_eq!(pair(CKM_EC_MONTGOMERY_KEY_PAIR_GEN, &wrong), Err(Rv(CKR_CURVE_NOT_SUPPORTED)));
    }

    #[test]
    fn what_is_made_out_of_something_is_a_secret_unless_it_says_otherwise() {
        let made = |template: &[Attribute], bytes| made_algorithm(template, bytes);
        assert_eq!(made(&[], Some(32)), Ok((Class::Secret, v1::Algorithm::GenericSecret)));
        assert_eq!(made(&[], None), Err(Rv(CKR_TEMPLATE_INCOMPLETE)));
        let aes = [number(CKA_KEY_TYPE, CKK_AES), number(CKA_VALUE_LEN, 16)];
        assert_eq!(made(&aes, Some(32)), Ok((Class::Secret, v1::Algorithm::Aes128)));
        assert_eq!(made(&aes[..1], Some(24)), Ok((Class::Secret, v1::Algorithm::Aes192)));
        let private =
            |key_type| [number(CKA_CLASS, CKO_PRIVATE_KEY), number(CKA_KEY_TYPE, key_type)];
        let rsa = |bytes| made(&private(CKK_RSA), Some(bytes)).unwrap().1;
        assert_eq!(rsa(1224), v1::Algorithm::Rsa2048);
        assert_eq!(rsa(1800), v1::Algorithm::Rsa3072);
        assert_eq!(rsa(2380), v1::Algorithm::Rsa4096);
        assert_eq!(made(&private(CKK_EC), Some(138)), Err(Rv(CKR_TEMPLATE_INCOMPLETE)));
        assert_eq!(made(&private(CKK_DSA), None), Err(Rv(CKR_TEMPLATE_INCONSISTENT)));
        let public = [number(CKA_CLASS, CKO_PUBLIC_KEY)];
        assert_eq!(made(&public, Some(32)), Err(Rv(CKR_TEMPLATE_INCONSISTENT)));
    }
}
