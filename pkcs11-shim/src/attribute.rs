//! The attributes of objects: one function from object and attribute to value.

use cryptoki_sys::*;
use kms_proto::v1;
use rsa::traits::PublicKeyParts as _;

use crate::mechanism;
use crate::object::{Class, Key, Object};
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
    let of_class = match object.class {
        Class::Private => private(object, kind),
        Class::Public => public(object, kind),
        Class::Secret => secret(object, kind),
    };
    match of_class {
        Value::Absent => common(object, kind),
        found => found,
    }
}

/// The number that CKA_CLASS has for a class.
pub(crate) const fn class_number(class: Class) -> CK_OBJECT_CLASS {
    match class {
        Class::Private => CKO_PRIVATE_KEY,
        Class::Public => CKO_PUBLIC_KEY,
        Class::Secret => CKO_SECRET_KEY,
    }
}

/// DER of the object identifier of P-256 (RFC 5480 §2.1.1.1).
pub(crate) const P256_PARAMETERS: [u8; 10] =
    [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// What every object here has: PKCS#11 v3.1 tables 12, 17, 21 and 26.
fn common(object: &Object, kind: CK_ATTRIBUTE_TYPE) -> Value {
    match kind {
        CKA_CLASS => number(class_number(object.class)),
        CKA_TOKEN | CKA_MODIFIABLE => boolean(true),
        CKA_PRIVATE => boolean(object.is_private()),
        CKA_COPYABLE | CKA_DERIVE => boolean(false),
        // Destroying a version takes its private key; the public one goes along with it.
        CKA_DESTROYABLE => boolean(object.is_private()),
        CKA_LABEL => bytes(object.label.as_bytes()),
        CKA_UNIQUE_ID => bytes(unique_id(object).as_bytes()),
        CKA_KEY_TYPE => number(mechanism::key_type(object.algorithm)),
        CKA_ID => bytes(&object.id),
        CKA_START_DATE | CKA_END_DATE => bytes(&[]),
        CKA_LOCAL => boolean(object.local),
        CKA_KEY_GEN_MECHANISM => number(if object.local {
            mechanism::generator(object.algorithm)
        } else {
            CK_UNAVAILABLE_INFORMATION
        }),
        CKA_ALLOWED_MECHANISMS => {
            let allowed = mechanism::allowed(object.algorithm);
            Value::Bytes(allowed.iter().flat_map(|kind| kind.to_ne_bytes()).collect())
        }
        _ => Value::Absent,
    }
}

fn private(object: &Object, kind: CK_ATTRIBUTE_TYPE) -> Value {
    match kind {
        CKA_SIGN => usable(object, v1::Usage::Sign),
        CKA_DECRYPT | CKA_SIGN_RECOVER | CKA_UNWRAP | CKA_DECAPSULATE | CKA_ALWAYS_AUTHENTICATE => {
            boolean(false)
        }
        CKA_PRIVATE_EXPONENT | CKA_PRIME_1 | CKA_PRIME_2 | CKA_EXPONENT_1 | CKA_EXPONENT_2
        | CKA_COEFFICIENT
            if mechanism::key_type(object.algorithm) == CKK_RSA =>
        {
            Value::Sensitive
        }
        CKA_VALUE if mechanism::key_type(object.algorithm) == CKK_EC => Value::Sensitive,
        CKA_SUBJECT => bytes(&[]),
        _ => match protection(object, kind) {
            Value::Absent => public_part(object, kind),
            found => found,
        },
    }
}

fn public(object: &Object, kind: CK_ATTRIBUTE_TYPE) -> Value {
    match kind {
        CKA_VERIFY => usable(object, v1::Usage::Verify),
        CKA_ENCRYPT | CKA_VERIFY_RECOVER | CKA_WRAP | CKA_ENCAPSULATE | CKA_TRUSTED => {
            boolean(false)
        }
        CKA_SUBJECT => bytes(&[]),
        _ => public_part(object, kind),
    }
}

fn secret(object: &Object, kind: CK_ATTRIBUTE_TYPE) -> Value {
    match kind {
        CKA_ENCRYPT => usable(object, v1::Usage::Encrypt),
        CKA_DECRYPT => usable(object, v1::Usage::Decrypt),
        CKA_SIGN => usable(object, v1::Usage::MacSign),
        CKA_VERIFY => usable(object, v1::Usage::MacVerify),
        CKA_WRAP | CKA_UNWRAP | CKA_TRUSTED => boolean(false),
        CKA_VALUE => Value::Sensitive,
        CKA_VALUE_LEN => number(SECRET_BYTES),
        _ => protection(object, kind),
    }
}

/// Private and secret keys never leave. An imported one was elsewhere before.
fn protection(object: &Object, kind: CK_ATTRIBUTE_TYPE) -> Value {
    match kind {
        CKA_SENSITIVE => boolean(true),
        CKA_EXTRACTABLE | CKA_WRAP_WITH_TRUSTED => boolean(false),
        CKA_ALWAYS_SENSITIVE | CKA_NEVER_EXTRACTABLE => boolean(object.local),
        _ => Value::Absent,
    }
}

/// Both halves of a pair show the public part, because programs look for it on either.
fn public_part(object: &Object, kind: CK_ATTRIBUTE_TYPE) -> Value {
    let Some(public_key) = &object.public_key else { return Value::Absent };
    match (kind, &public_key.key) {
        (CKA_PUBLIC_KEY_INFO, _) => bytes(&public_key.der),
        (CKA_EC_PARAMS, Key::P256(_)) => bytes(&P256_PARAMETERS),
        (CKA_EC_POINT, Key::P256(key)) => {
            // An OCTET STRING around the uncompressed point (PKCS#11 v3.1 §6.3.3).
            let point = key.to_sec1_point(false);
            bytes(&[&[0x04, point.len() as u8], point.as_bytes()].concat())
        }
        (CKA_MODULUS, Key::Rsa(key)) => bytes(&key.n_bytes()),
        (CKA_PUBLIC_EXPONENT, Key::Rsa(key)) => bytes(&key.e_bytes()),
        (CKA_MODULUS_BITS, Key::Rsa(key)) => number(CK_ULONG::from(key.n().bits())),
        _ => Value::Absent,
    }
}

/// Whether the key is for this use and in a state that lets it (SP 800-57 part 1 §7.2). For
/// people to see; the daemon decides anew at each use.
fn usable(object: &Object, usage: v1::Usage) -> Value {
    let state_allows = match usage {
        v1::Usage::Decrypt => [v1::State::Active, v1::State::Deactivated].contains(&object.state),
        v1::Usage::MacVerify | v1::Usage::Verify => {
            let states = [v1::State::Active, v1::State::Deactivated, v1::State::Suspended];
            states.contains(&object.state)
        }
        _ => object.state == v1::State::Active,
    };
    boolean(state_allows && object.is_for(usage))
}

fn unique_id(object: &Object) -> String {
    let class = match object.class {
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

/// Every secret key that there is: AES-256 and HMAC-SHA-256.
pub(crate) const SECRET_BYTES: CK_ULONG = 32;

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
