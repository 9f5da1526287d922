//! `C_GenerateKey` and `C_GenerateKeyPair`.
//!
//! A template is a wish. What it may not wish is that a key be less protected than ours are: that
//! is refused. What it leaves open is filled in so that the key is usable; so an empty template
//! gives a token object with all usages, and a missing CKA_TOKEN means true. A usage that the
//! algorithm does not offer (many programs ask for CKA_DERIVE or CKA_DECRYPT by default) is not
//! granted and shows as false, provided that something else is left.

use cryptoki_sys::*;
use kms_proto::v1;

use crate::attribute::{P256_PARAMETERS, SECRET_BYTES, class_number};
use crate::call::object::require_writing;
use crate::connection;
use crate::mechanism::{self, Mechanism};
use crate::module::{self, Module};
use crate::object::{Class, Object};
use crate::rv::{HOSTILE, Result, Rv};
use crate::session::Session;
use crate::template::{self, Attribute};

/// `C_GenerateKey`.
pub(crate) fn generate_key(
    handle: CK_SESSION_HANDLE,
    mechanism: &Mechanism,
    template: &[Attribute],
) -> Result<CK_OBJECT_HANDLE> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    let algorithm = match mechanism.kind {
        CKM_AES_KEY_GEN => v1::Algorithm::Aes256Gcm,
        CKM_GENERIC_SECRET_KEY_GEN => v1::Algorithm::HmacSha256,
        _ => return Err(Rv(CKR_MECHANISM_INVALID)),
    };
    mechanism.without_parameter()?;
    let wish = Wish::read(algorithm, &[(Class::Secret, template)], |text| module.report(text))?;
    match create(&module, &session, wish)?[..] {
        [(Class::Secret, key)] => Ok(key),
        _ => Err(HOSTILE),
    }
}

/// `C_GenerateKeyPair`: the handles of the public and of the private key.
pub(crate) fn generate_key_pair(
    handle: CK_SESSION_HANDLE,
    mechanism: &Mechanism,
    public: &[Attribute],
    private: &[Attribute],
) -> Result<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    let algorithm = match mechanism.kind {
        CKM_EC_KEY_PAIR_GEN => v1::Algorithm::EcSignP256Sha256,
        CKM_RSA_PKCS_KEY_PAIR_GEN => rsa_algorithm(private)?,
        _ => return Err(Rv(CKR_MECHANISM_INVALID)),
    };
    mechanism.without_parameter()?;
    // The parameters of the pair stand in the public key's template.
    let needed =
        if algorithm == v1::Algorithm::EcSignP256Sha256 { CKA_EC_PARAMS } else { CKA_MODULUS_BITS };
    if template::value(public, needed).is_none() {
        return Err(Rv(CKR_TEMPLATE_INCOMPLETE));
    }
    let templates = [(Class::Public, public), (Class::Private, private)];
    let wish = Wish::read(algorithm, &templates, |text| module.report(text))?;
    match create(&module, &session, wish)?[..] {
        [(Class::Private, private), (Class::Public, public)] => Ok((public, private)),
        _ => Err(HOSTILE),
    }
}

/// An RSA key whose CKA_ALLOWED_MECHANISMS are those of PSS is made for PSS; any other is for
/// PKCS#1 v1.5, which is what programs that name none expect.
fn rsa_algorithm(private: &[Attribute]) -> Result<v1::Algorithm> {
    let allowed = template::value(private, CKA_ALLOWED_MECHANISMS).map(Attribute::numbers);
    let pss = mechanism::allowed(v1::Algorithm::RsaSignPss3072Sha256);
    Ok(match allowed.transpose()? {
        Some(kinds) if !kinds.is_empty() && kinds.iter().all(|kind| pss.contains(kind)) => {
            v1::Algorithm::RsaSignPss3072Sha256
        }
        _ => v1::Algorithm::RsaSignPkcs13072Sha256,
    })
}

/// What the templates come to.
#[derive(Debug, Eq, PartialEq)]
struct Wish {
    algorithm: v1::Algorithm,
    usages: Vec<v1::Usage>,
    label: Option<String>,
    id: Option<Vec<u8>>,
}

impl Wish {
    /// Reads the templates; `report` hears which attribute is refused, which the code does not say.
    fn read(
        algorithm: v1::Algorithm,
        templates: &[(Class, &[Attribute])],
        report: impl Fn(&str),
    ) -> Result<Self> {
        let mut reading = Reading::new(algorithm);
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
}

struct Reading {
    wish: Wish,
    /// A usage that is offered was asked for by name.
    asked: bool,
    /// One that is not offered was.
    asked_in_vain: bool,
}

impl Reading {
    fn new(algorithm: v1::Algorithm) -> Self {
        let usages = USAGES.iter().filter(|(of, ..)| *of == algorithm).map(|(.., usage)| *usage);
        let wish = Wish { algorithm, usages: usages.collect(), label: None, id: None };
        Self { wish, asked: false, asked_in_vain: false }
    }

    /// Reads one attribute of the template of an object of this class.
    fn read(&mut self, class: Class, attribute: &Attribute) -> Result<()> {
        let protected = class != Class::Public;
        let is_rsa = mechanism::key_type(self.wish.algorithm) == CKK_RSA;
        match attribute.kind {
            CKA_CLASS => must(attribute.number()? == class_number(class)),
            CKA_KEY_TYPE => must(attribute.number()? == mechanism::key_type(self.wish.algorithm)),
            // Session objects would have to die with the session, which the daemon does not do.
            CKA_TOKEN | CKA_MODIFIABLE => must(attribute.boolean()?),
            CKA_PRIVATE => must(attribute.boolean()? == protected),
            CKA_DESTROYABLE => must(attribute.boolean()? || !protected),
            CKA_COPYABLE | CKA_TRUSTED | CKA_ALWAYS_AUTHENTICATE | CKA_WRAP_WITH_TRUSTED => {
                must(!attribute.boolean()?)
            }
            CKA_SENSITIVE if protected => must(attribute.boolean()?),
            CKA_EXTRACTABLE if protected => must(!attribute.boolean()?),
            CKA_SIGN | CKA_VERIFY | CKA_ENCRYPT | CKA_DECRYPT | CKA_WRAP | CKA_UNWRAP
            | CKA_DERIVE | CKA_SIGN_RECOVER | CKA_VERIFY_RECOVER | CKA_ENCAPSULATE
            | CKA_DECAPSULATE => self.read_usage(class, attribute),
            CKA_LABEL => set(&mut self.wish.label, attribute.text()?),
            CKA_ID => set(&mut self.wish.id, attribute.value.clone()),
            // What is empty asks for nothing.
            CKA_SUBJECT | CKA_START_DATE | CKA_END_DATE if attribute.value.is_empty() => Ok(()),
            CKA_SUBJECT | CKA_START_DATE | CKA_END_DATE => Err(Rv(CKR_ATTRIBUTE_VALUE_INVALID)),
            CKA_EC_PARAMS if self.wish.algorithm == v1::Algorithm::EcSignP256Sha256 => {
                if attribute.value == P256_PARAMETERS {
                    Ok(())
                } else {
                    Err(Rv(CKR_CURVE_NOT_SUPPORTED))
                }
            }
            CKA_MODULUS_BITS if is_rsa => match attribute.number()? {
                RSA_BITS => Ok(()),
                _ => Err(Rv(CKR_KEY_SIZE_RANGE)),
            },
            CKA_PUBLIC_EXPONENT if is_rsa => {
                let leading_zeros = attribute.value.iter().take_while(|byte| **byte == 0).count();
                if attribute.value[leading_zeros..] == RSA_EXPONENT {
                    Ok(())
                } else {
                    Err(Rv(CKR_ATTRIBUTE_VALUE_INVALID))
                }
            }
            CKA_VALUE_LEN if class == Class::Secret => match attribute.number()? {
                SECRET_BYTES => Ok(()),
                _ => Err(Rv(CKR_KEY_SIZE_RANGE)),
            },
            CKA_ALLOWED_MECHANISMS => self.read_mechanisms(attribute),
            CKA_LOCAL
            | CKA_KEY_GEN_MECHANISM
            | CKA_ALWAYS_SENSITIVE
            | CKA_NEVER_EXTRACTABLE
            | CKA_UNIQUE_ID => Err(Rv(CKR_ATTRIBUTE_READ_ONLY)),
            _ => Err(Rv(CKR_ATTRIBUTE_TYPE_INVALID)),
        }
    }

    fn read_usage(&mut self, class: Class, attribute: &Attribute) -> Result<()> {
        let wanted = attribute.boolean()?;
        let offered = USAGES.iter().find(|(algorithm, of, kind, _)| {
            (*algorithm, *of, *kind) == (self.wish.algorithm, class, attribute.kind)
        });
        match offered {
            Some(_) if wanted => self.asked = true,
            Some((.., refused)) => self.wish.usages.retain(|usage| usage != refused),
            None => self.asked_in_vain |= wanted,
        }
        Ok(())
    }

    /// A key's mechanisms follow from its algorithm; a list that has not all of them asks for a
    /// narrower key than there is. Of PSS, either of the two stands for both.
    fn read_mechanisms(&self, attribute: &Attribute) -> Result<()> {
        let wanted = attribute.numbers()?;
        let ours = mechanism::allowed(self.wish.algorithm);
        let all = ours.iter().all(|kind| wanted.contains(kind));
        must(all || self.wish.algorithm == v1::Algorithm::RsaSignPss3072Sha256)
    }

    fn finish(self) -> Result<Wish> {
        // A key that can do nothing, or only what nobody asked for, is not what was meant.
        if self.wish.usages.is_empty() || (self.asked_in_vain && !self.asked) {
            return Err(Rv(CKR_TEMPLATE_INCONSISTENT));
        }
        Ok(self.wish)
    }
}

fn create(
    module: &Module,
    session: &Session,
    wish: Wish,
) -> Result<Vec<(Class, CK_OBJECT_HANDLE)>> {
    require_writing(module, session)?;
    let Wish { algorithm, usages, label, id } = wish;
    let request = v1::CreateObjectKeyRequest {
        ring: module.tokens.token(session.slot)?.ring,
        algorithm: algorithm.into(),
        usages: usages.into_iter().map(i32::from).collect(),
        label: label.unwrap_or_default(),
        id: id.unwrap_or_default(),
        request_id: connection::request_id()?,
    };
    let answer = connection::call!(module, Some(session.slot), CreateObjectKey(request))?;
    let created = Object::of_version(session.slot, answer.object.ok_or(HOSTILE)?)?;
    if created.iter().any(|object| object.algorithm != algorithm) {
        return Err(HOSTILE);
    }
    let put = |object: Object| (object.class, module.objects.put(object));
    Ok(created.into_iter().map(put).collect())
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

/// What each algorithm offers, and by which attribute of which object it is asked for.
const USAGES: [(v1::Algorithm, Class, CK_ATTRIBUTE_TYPE, v1::Usage); 10] = [
    (v1::Algorithm::Aes256Gcm, Class::Secret, CKA_ENCRYPT, v1::Usage::Encrypt),
    (v1::Algorithm::Aes256Gcm, Class::Secret, CKA_DECRYPT, v1::Usage::Decrypt),
    (v1::Algorithm::HmacSha256, Class::Secret, CKA_SIGN, v1::Usage::MacSign),
    (v1::Algorithm::HmacSha256, Class::Secret, CKA_VERIFY, v1::Usage::MacVerify),
    (v1::Algorithm::EcSignP256Sha256, Class::Private, CKA_SIGN, v1::Usage::Sign),
    (v1::Algorithm::EcSignP256Sha256, Class::Public, CKA_VERIFY, v1::Usage::Verify),
    (v1::Algorithm::RsaSignPkcs13072Sha256, Class::Private, CKA_SIGN, v1::Usage::Sign),
    (v1::Algorithm::RsaSignPkcs13072Sha256, Class::Public, CKA_VERIFY, v1::Usage::Verify),
    (v1::Algorithm::RsaSignPss3072Sha256, Class::Private, CKA_SIGN, v1::Usage::Sign),
    (v1::Algorithm::RsaSignPss3072Sha256, Class::Public, CKA_VERIFY, v1::Usage::Verify),
];

const RSA_BITS: CK_ULONG = 3072;
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

#[cfg(test)]
mod tests {
    use super::*;

    fn is(kind: CK_ATTRIBUTE_TYPE, value: bool) -> Attribute {
        Attribute { kind, value: vec![u8::from(value)] }
    }

    fn number(kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> Attribute {
        Attribute { kind, value: value.to_ne_bytes().to_vec() }
    }

    fn bytes(kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Attribute {
        Attribute { kind, value: value.to_vec() }
    }

    fn pair(public: &[Attribute], private: &[Attribute]) -> Result<Wish> {
        let templates = [(Class::Public, public), (Class::Private, private)];
        Wish::read(v1::Algorithm::EcSignP256Sha256, &templates, |_| ())
    }

    fn secret(template: &[Attribute]) -> Result<Wish> {
        Wish::read(v1::Algorithm::Aes256Gcm, &[(Class::Secret, template)], |_| ())
    }

    fn refusal(private: Attribute) -> CK_RV {
        pair(&[], &[private]).unwrap_err().0
    }

    #[test]
    fn empty_templates_give_a_usable_key() {
        let wish = pair(&[], &[]).unwrap();
        assert_eq!(wish.usages, [v1::Usage::Sign, v1::Usage::Verify]);
        let aes = secret(&[]).unwrap();
        assert_eq!(aes.usages, [v1::Usage::Encrypt, v1::Usage::Decrypt]);
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
                bytes(CKA_EC_PARAMS, &P256_PARAMETERS),
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
                is(CKA_DERIVE, true),
                is(CKA_EXTRACTABLE, false),
            ],
        ]
        .concat();
        let wish = pair(&public, &private).unwrap();
        assert_eq!(wish.label.as_deref(), Some("web"));
        assert_eq!(wish.id, Some(vec![1]));
        assert_eq!(wish.usages, [v1::Usage::Sign, v1::Usage::Verify]);
    }

    #[test]
    fn a_key_that_is_less_protected_is_not_made() {
        for attribute in [
            is(CKA_EXTRACTABLE, true),
            is(CKA_SENSITIVE, false),
            is(CKA_PRIVATE, false),
            is(CKA_TOKEN, false),
            is(CKA_COPYABLE, true),
            number(CKA_CLASS, CKO_PUBLIC_KEY),
            number(CKA_KEY_TYPE, CKK_RSA),
            // A key for nothing, and a key for what is not offered.
            is(CKA_DERIVE, true),
        ] {
            assert_eq!(refusal(attribute), CKR_TEMPLATE_INCONSISTENT);
        }
        let for_nothing = pair(&[is(CKA_VERIFY, false)], &[is(CKA_SIGN, false)]);
        assert_eq!(for_nothing, Err(Rv(CKR_TEMPLATE_INCONSISTENT)));
    }

    #[test]
    fn other_mistakes_have_their_codes() {
        assert_eq!(refusal(bytes(CKA_EC_PARAMS, &[6, 1, 0])), CKR_CURVE_NOT_SUPPORTED);
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
    fn rsa_is_3072_bits_and_65537() {
        let rsa = |attribute| {
            let template = [attribute];
            let templates: [(_, &[_]); 1] = [(Class::Public, &template)];
            let wish = Wish::read(v1::Algorithm::RsaSignPkcs13072Sha256, &templates, |_| ());
            wish.err().map(|rv| rv.0)
        };
        assert_eq!(rsa(number(CKA_MODULUS_BITS, 3072)), None);
        assert_eq!(rsa(number(CKA_MODULUS_BITS, 2048)), Some(CKR_KEY_SIZE_RANGE));
        assert_eq!(rsa(bytes(CKA_PUBLIC_EXPONENT, &[0, 1, 0, 1])), None);
        assert_eq!(rsa(bytes(CKA_PUBLIC_EXPONENT, &[3])), Some(CKR_ATTRIBUTE_VALUE_INVALID));
        assert_eq!(rsa(bytes(CKA_PUBLIC_EXPONENT, &[])), Some(CKR_ATTRIBUTE_VALUE_INVALID));
    }

    #[test]
    fn allowed_mechanisms_choose_between_the_kinds_of_rsa() {
        let algorithm = |kinds: &[CK_MECHANISM_TYPE]| {
            let value: Vec<_> = kinds.iter().flat_map(|kind| kind.to_ne_bytes()).collect();
            rsa_algorithm(&[bytes(CKA_ALLOWED_MECHANISMS, &value)]).unwrap()
        };
        assert_eq!(algorithm(&[CKM_SHA256_RSA_PKCS_PSS]), v1::Algorithm::RsaSignPss3072Sha256);
        assert_eq!(
            algorithm(&[CKM_RSA_PKCS, CKM_RSA_PKCS_PSS]),
            v1::Algorithm::RsaSignPkcs13072Sha256
        );
        assert_eq!(algorithm(&[]), v1::Algorithm::RsaSignPkcs13072Sha256);
    }

    #[test]
    fn a_usage_that_is_declined_is_not_granted() {
        let template = [is(CKA_DECRYPT, false), number(CKA_VALUE_LEN, 32)];
        let wish = secret(&template).unwrap();
        assert_eq!(wish.usages, [v1::Usage::Encrypt]);
    }
}
