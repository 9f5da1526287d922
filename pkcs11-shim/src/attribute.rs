//! The attributes of objects: one function from object and attribute to value.

use cryptoki_sys::*;
use kms_proto::v1;
use rsa::traits::PublicKeyParts as _;

use crate::algorithm::{self, Size};
use crate::asn1;
use crate::mechanism::{self, OPERATIONS};
use crate::object::{Certificate, Class, Key, Object};
use crate::template::Attribute;

/// What an object says to the question for an attribute.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Value {
    /// Objects of this kind do not have it.
    Absent,
    Bytes(Vec<u8>),
    /// It has it and never tells.
    Sensitive,
}

/// One question of `C_GetAttributeValue`: the attribute, and the room for its value, if there is
/// a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) kind: CK_ATTRIBUTE_TYPE,
    pub(crate) room: Option<usize>,
}

/// Its answer: what `ulValueLen` becomes, and what is written.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) length: CK_ULONG,
    pub(crate) bytes: Option<Vec<u8>>,
}

/// Answers every question, whatever became of the others, and gives the code for all of them:
/// the first problem (PKCS#11 v3.1 C_GetAttributeValue).
pub(crate) fn answers(object: &Object, questions: &[Question]) -> (CK_RV, Vec<Answer>) {
    let mut code = CKR_OK;
    let mut answer = |question: &Question| {
        let (answer, problem) = answer(object, *question);
        if code == CKR_OK {
            code = problem;
        }
        answer
    };
    let answers = questions.iter().map(&mut answer).collect();
    (code, answers)
}

fn answer(object: &Object, question: Question) -> (Answer, CK_RV) {
    let unavailable = Answer { length: CK_UNAVAILABLE_INFORMATION, bytes: None };
    match value(object, question.kind) {
        Value::Absent => (unavailable, CKR_ATTRIBUTE_TYPE_INVALID),
        Value::Sensitive => (unavailable, CKR_ATTRIBUTE_SENSITIVE),
        Value::Bytes(bytes) => match question.room {
            Some(room) if room < bytes.len() => (unavailable, CKR_BUFFER_TOO_SMALL),
            room => {
                let length = bytes.len() as CK_ULONG;
                (Answer { length, bytes: room.map(|_| bytes) }, CKR_OK)
            }
        },
    }
}

/// Whether the object has every attribute of the template with that value.
pub(crate) fn matches(object: &Object, template: &[Attribute]) -> bool {
    template.iter().all(|Attribute { kind, value: wanted }| {
        matches!(value(object, *kind), Value::Bytes(bytes) if bytes == *wanted)
    })
}

/// The value of one attribute.
pub(crate) fn value(object: &Object, kind: CK_ATTRIBUTE_TYPE) -> Value {
    let of_class = match (object.class, &object.certificate) {
        (Class::Certificate, Some(shown)) => certificate(shown, kind),
        (Class::Certificate, None) => Value::Absent,
        _ => key(object, kind),
    };
    match of_class {
        Value::Absent => storage(object, kind),
        found => found,
    }
}

/// The number that CKA_CLASS has for a class.
pub(crate) const fn class_number(class: Class) -> CK_OBJECT_CLASS {
    match class {
        Class::Certificate => CKO_CERTIFICATE,
        Class::Private => CKO_PRIVATE_KEY,
        Class::Public => CKO_PUBLIC_KEY,
        Class::Secret => CKO_SECRET_KEY,
    }
}

/// What every object has (PKCS#11 v3.1 tables 12 and 17).
fn storage(object: &Object, kind: CK_ATTRIBUTE_TYPE) -> Value {
    match kind {
        CKA_CLASS => number(class_number(object.class)),
        CKA_TOKEN | CKA_MODIFIABLE => boolean(true),
        CKA_PRIVATE => boolean(object.is_private()),
        // A public half alone cannot be copied: it comes with its key. Destroying a version takes
        // its private key, and the rest goes along with it.
        CKA_COPYABLE | CKA_DESTROYABLE => boolean(object.is_private()),
        CKA_LABEL => bytes(object.label.as_bytes()),
        CKA_UNIQUE_ID => bytes(unique_id(object).as_bytes()),
        CKA_ID => bytes(&object.id),
        CKA_START_DATE | CKA_END_DATE => bytes(&[]),
        _ => Value::Absent,
    }
}

/// What certificates have (PKCS#11 v3.1 tables 19 and 20).
fn certificate(shown: &Certificate, kind: CK_ATTRIBUTE_TYPE) -> Value {
    match kind {
        CKA_CERTIFICATE_TYPE => number(CKC_X_509),
        CKA_CERTIFICATE_CATEGORY => number(CK_CERTIFICATE_CATEGORY_UNSPECIFIED),
        CKA_TRUSTED => boolean(false),
        CKA_VALUE => bytes(&shown.der),
        CKA_SUBJECT => bytes(&shown.parts.subject),
        CKA_ISSUER => bytes(&shown.parts.issuer),
        CKA_SERIAL_NUMBER => bytes(&shown.parts.serial_number),
        CKA_PUBLIC_KEY_INFO => bytes(&shown.parts.public_key),
        // They say where else a certificate could be had; ours is here.
        CKA_URL | CKA_HASH_OF_SUBJECT_PUBLIC_KEY | CKA_HASH_OF_ISSUER_PUBLIC_KEY => bytes(&[]),
        CKA_COPYABLE | CKA_DESTROYABLE => boolean(false),
        _ => Value::Absent,
    }
}

/// What every key has (PKCS#11 v3.1 tables 21 to 29).
fn key(object: &Object, kind: CK_ATTRIBUTE_TYPE) -> Value {
    match kind {
        CKA_KEY_TYPE => number(algorithm::key_type(object.algorithm)),
        CKA_LOCAL => boolean(object.local),
        CKA_KEY_GEN_MECHANISM => number(match algorithm::facts(object.algorithm) {
            Some(facts) if object.local => facts.generator,
            _ => CK_UNAVAILABLE_INFORMATION,
        }),
        CKA_ALLOWED_MECHANISMS => {
            let allowed = mechanism::allowed(object.algorithm, &object.mechanisms);
            Value::Bytes(allowed.iter().flat_map(|kind| kind.to_ne_bytes()).collect())
        }
        CKA_SIGN_RECOVER | CKA_VERIFY_RECOVER => boolean(false),
        CKA_SUBJECT if object.class != Class::Secret => bytes(&[]),
        CKA_TRUSTED if object.class != Class::Private => boolean(object.trusted),
        CKA_PARAMETER_SET => match algorithm::facts(object.algorithm).map(|facts| facts.size) {
            Some(Size::Set { set, .. }) => number(set),
            _ => Value::Absent,
        },
        CKA_VALUE_LEN if object.class == Class::Secret => number(object.length_bytes.into()),
        _ => match use_of(object, kind) {
            Value::Absent if object.class == Class::Public => public_part(object, kind),
            Value::Absent => protected(object, kind),
            found => found,
        },
    }
}

/// Private and secret keys never leave in the clear. An imported one was elsewhere before.
fn protected(object: &Object, kind: CK_ATTRIBUTE_TYPE) -> Value {
    let is_rsa = algorithm::key_type(object.algorithm) == CKK_RSA;
    match kind {
        CKA_SENSITIVE => boolean(true),
        CKA_EXTRACTABLE => boolean(object.exportable),
        CKA_WRAP_WITH_TRUSTED | CKA_ALWAYS_AUTHENTICATE => boolean(false),
        CKA_ALWAYS_SENSITIVE => boolean(object.local),
        CKA_NEVER_EXTRACTABLE => boolean(object.local && !object.ever_exportable),
        CKA_PRIVATE_EXPONENT | CKA_PRIME_1 | CKA_PRIME_2 | CKA_EXPONENT_1 | CKA_EXPONENT_2
        | CKA_COEFFICIENT
            if is_rsa =>
        {
            Value::Sensitive
        }
        CKA_VALUE if !is_rsa => Value::Sensitive,
        _ => public_part(object, kind),
    }
}

/// Both halves of a pair show the public part, because programs look for it on either.
fn public_part(object: &Object, kind: CK_ATTRIBUTE_TYPE) -> Value {
    let Some(public_key) = &object.public_key else { return Value::Absent };
    let curve = algorithm::curve_parameters(object.algorithm);
    match (kind, &public_key.key) {
        (CKA_PUBLIC_KEY_INFO, _) => bytes(&public_key.der),
        (CKA_EC_PARAMS, _) => curve.map_or(Value::Absent, bytes),
        // An OCTET STRING around the uncompressed point; the other curves have theirs without
        // (PKCS#11 v3.1 §6.3.3, §6.3.5, §6.3.7).
        (CKA_EC_POINT, _) if algorithm::key_type(object.algorithm) == CKK_EC => {
            Value::Bytes(asn1::octet_string(&public_key.bits))
        }
        (CKA_EC_POINT, _) if curve.is_some() => bytes(&public_key.bits),
        (CKA_MODULUS, Key::Rsa(key)) => bytes(&key.n_bytes()),
        (CKA_PUBLIC_EXPONENT, Key::Rsa(key)) => bytes(&key.e_bytes()),
        (CKA_MODULUS_BITS, Key::Rsa(key)) => number(CK_ULONG::from(key.n().bits())),
        (CKA_VALUE, Key::Other) if curve.is_none() => bytes(&public_key.bits),
        _ => Value::Absent,
    }
}

/// Whether the key is for a use, and in a state that lets it (SP 800-57 part 1 §7.2). For people to
/// see; the daemon decides anew at each use.
fn use_of(object: &Object, kind: CK_ATTRIBUTE_TYPE) -> Value {
    let found = OPERATIONS.iter().find(|one| one.attribute == kind && one.class == object.class);
    let Some(operation) = found else {
        // Every key has it, only there is nothing that a public key could do.
        return if kind == CKA_DERIVE { boolean(false) } else { Value::Absent };
    };
    let states: &[_] = match operation.usage {
        v1::Usage::Decapsulate | v1::Usage::Decrypt | v1::Usage::Unwrap => {
            &[v1::State::Active, v1::State::Deactivated]
        }
        v1::Usage::MacVerify | v1::Usage::Verify => {
            &[v1::State::Active, v1::State::Deactivated, v1::State::Suspended]
        }
        _ => &[v1::State::Active],
    };
    boolean(states.contains(&object.state) && object.is_for(operation.usage))
}

fn unique_id(object: &Object) -> String {
    let class = match object.class {
        Class::Certificate => "certificate",
        Class::Private => "private",
        Class::Public => "public",
        Class::Secret => "secret",
    };
    format!("{}#{class}", object.version)
}

fn boolean(value: bool) -> Value {
    Value::Bytes(vec![if value { CK_TRUE } else { CK_FALSE }])
}

fn number(value: CK_ULONG) -> Value {
    Value::Bytes(value.to_ne_bytes().to_vec())
}

fn bytes(value: &[u8]) -> Value {
    Value::Bytes(value.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::tests::{aes_version, p256_version};

    fn objects() -> [Object; 3] {
        let mut pair = Object::of_version(0, p256_version()).unwrap().into_iter();
        let secret = Object::of_version(0, aes_version()).unwrap().remove(0);
        [pair.next().unwrap(), pair.next().unwrap(), secret]
    }

    #[test]
    fn no_object_tells_its_secret() {
        let [private, public, secret] = objects();
        assert_eq!(value(&private, CKA_VALUE), Value::Sensitive);
        assert_eq!(value(&secret, CKA_VALUE), Value::Sensitive);
        assert_eq!(value(&public, CKA_VALUE), Value::Absent);
        for object in [&private, &secret] {
            assert_eq!(value(object, CKA_SENSITIVE), boolean(true));
            assert_eq!(value(object, CKA_EXTRACTABLE), boolean(false));
        }
    }

    #[test]
    fn both_halves_show_the_public_part() {
        let [private, public, _] = objects();
        for kind in [CKA_EC_POINT, CKA_EC_PARAMS, CKA_PUBLIC_KEY_INFO] {
            assert_eq!(value(&private, kind), value(&public, kind));
            assert_ne!(value(&public, kind), Value::Absent);
        }
        let Value::Bytes(point) = value(&public, CKA_EC_POINT) else { panic!("a point") };
        assert_eq!((point.len(), &point[..3]), (67, &[0x04, 0x41, 0x04][..]));
        assert_ne!(value(&private, CKA_UNIQUE_ID), value(&public, CKA_UNIQUE_ID));
    }

    #[test]
    fn one_bad_question_does_not_spoil_the_others() {
        let [private, ..] = objects();
        let question = |kind, room| Question { kind, room };
        let (code, answers) = answers(
            &private,
            &[
                question(CKA_ID, None),
                question(CKA_MODULUS, Some(500)),
                question(CKA_VALUE, Some(500)),
                question(CKA_LABEL, Some(2)),
                question(CKA_LABEL, Some(3)),
            ],
        );
        assert_eq!(code, CKR_ATTRIBUTE_TYPE_INVALID);
        let unavailable = || Answer { length: CK_UNAVAILABLE_INFORMATION, bytes: None };
        let expected = [
            Answer { length: 2, bytes: None },
            unavailable(),
            unavailable(),
            unavailable(),
            Answer { length: 3, bytes: Some(b"web".to_vec()) },
        ];
        assert_eq!(answers, expected);
    }

    #[test]
    fn a_template_matches_when_every_attribute_does() {
        let [private, ..] = objects();
        let attribute = |kind, value: &[u8]| Attribute { kind, value: value.to_vec() };
        let label = attribute(CKA_LABEL, b"web");
        assert!(matches(&private, &[]));
        assert!(matches(&private, &[label.clone(), attribute(CKA_SIGN, &[CK_TRUE])]));
        assert!(!matches(&private, &[label.clone(), attribute(CKA_DECRYPT, &[CK_TRUE])]));
        assert!(matches(&private, &[label.clone(), attribute(CKA_DECRYPT, &[CK_FALSE])]));
        assert!(!matches(&private, &[label, attribute(CKA_MODULUS, b"")]));
        assert!(!matches(&private, &[attribute(CKA_VALUE, b"")]));
    }

    #[test]
    fn a_suspended_key_shows_that_it_cannot_sign() {
        let suspended = v1::TokenObject { state: v1::State::Suspended.into(), ..p256_version() };
        let [private, public] = Object::of_version(0, suspended).unwrap().try_into().unwrap();
        assert_eq!(value(&private, CKA_SIGN), boolean(false));
        assert_eq!(value(&public, CKA_VERIFY), boolean(true));
    }
}
