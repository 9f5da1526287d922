//! Keys made: `C_GenerateKey` to `C_DecapsulateKey`. Every one is made in the appliance and is a token
//! object there; what a template asks of it is read in [`crate::wish`].

use std::sync::Arc;

use cryptoki_sys::*;
use kms_proto::v1;
use kms_proto::v1::Mechanism as Wire;

use crate::algorithm::{self, Size};
use crate::asn1;
use crate::call::object::require_writing;
use crate::connection;
use crate::hash::Hash;
use crate::mechanism::{self, row_of_key};
use crate::module::{self, Module};
use crate::object::{Class, Object};
use crate::output::{Output, Room};
use crate::parameter::{Cipher, Mechanism, TAG_BYTES};
use crate::rv::{HOSTILE, Result, Rv};
use crate::session::Session;
use crate::template::Attribute;
use crate::token::Token;
use crate::wish::{self, Templates, Wish};

/// `C_GenerateKey`.
pub(crate) fn generate_key(
    handle: CK_SESSION_HANDLE,
    mechanism: &Mechanism,
    template: &[Attribute],
) -> Result<CK_OBJECT_HANDLE> {
    let place = Place::new(handle)?;
    mechanism::require_offered(mechanism.kind, CKF_GENERATE, &place.token.mechanisms)?;
    let key_type = match mechanism.kind {
        CKM_AES_KEY_GEN => CKK_AES,
        CKM_CHACHA20_KEY_GEN => CKK_CHACHA20,
        _ => CKK_GENERIC_SECRET,
    };
    place.module.explained(mechanism.kind, mechanism.without_parameter())?;
    let algorithm = wish::secret_algorithm(key_type, template)?;
    let made = place.generate(place.wish(algorithm, &[(Class::Secret, template)])?)?;
    handle_of(&made, Class::Secret)
}

/// `C_GenerateKeyPair`: the handles of the public and of the private key.
pub(crate) fn generate_key_pair(
    handle: CK_SESSION_HANDLE,
    mechanism: &Mechanism,
    public: &[Attribute],
    private: &[Attribute],
) -> Result<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
    let place = Place::new(handle)?;
    // GnuTLS asks by the name of the signature.
    let kind = match mechanism.kind {
        CKM_EDDSA => CKM_EC_EDWARDS_KEY_PAIR_GEN,
        kind => kind,
    };
    mechanism::require_offered(kind, CKF_GENERATE_KEY_PAIR, &place.token.mechanisms)?;
    mechanism::require_made(kind, place.token.approved_only)?;
    place.module.explained(kind, mechanism.without_parameter())?;
    let algorithm = wish::pair_algorithm(kind, [public, private])?;
    let templates = [(Class::Public, public), (Class::Private, private)];
    let made = place.generate(place.wish(algorithm, &templates)?)?;
    Ok((handle_of(&made, Class::Public)?, handle_of(&made, Class::Private)?))
}

/// `C_WrapKey`. The daemon asks for a quorum's approval; whoever has none is told so.
pub(crate) fn wrap(
    handle: CK_SESSION_HANDLE,
    mechanism: Mechanism,
    wrapping_key: CK_OBJECT_HANDLE,
    key: CK_OBJECT_HANDLE,
    room: Room,
) -> Result<Output> {
    let place = Place::new(handle)?;
    let wrapping = place.key(wrapping_key).map_err(as_wrapping)?;
    let cipher = place.cipher(mechanism, CKF_WRAP, &wrapping).map_err(as_wrapping)?;
    let target = place.key(key)?;
    if !target.is_private() {
        return Err(Rv(CKR_KEY_NOT_WRAPPABLE));
    }
    if !target.exportable {
        return Err(Rv(CKR_KEY_UNEXTRACTABLE));
    }
    // The daemon makes the IV of every wrapping.
    if cipher.iv.iter().any(|byte| *byte != 0) {
        return Err(Rv(CKR_MECHANISM_PARAM_INVALID));
    }
    let length_max = wrapped_bytes_max(cipher.wire, &wrapping, &target)?;
    let Room::Bytes(room) = room else { return Ok(Output::Length(length_max)) };
    let request = v1::WrapKeyRequest {
        name: wrapping.version.clone(),
        target: target.version.clone(),
        mechanism: cipher.wire.into(),
        additional_authenticated_data: cipher.additional_data,
    };
    let answer = connection::call!(&place.module, place.slot(), WrapKey(request))?;
    let (wrapped, iv) = (answer.wrapped_key, answer.initialization_vector);
    if wrapped.len() > length_max {
        return Err(HOSTILE);
    }
    if wrapped.len() > room {
        return Ok(Output::TooSmall(wrapped.len()));
    }
    if let Some(buffer) = cipher.iv_buffer {
        buffer.fill(&iv)?;
    }
    Ok(Output::Bytes(wrapped))
}

/// `C_UnwrapKey`.
pub(crate) fn unwrap(
    handle: CK_SESSION_HANDLE,
    mechanism: Mechanism,
    unwrapping_key: CK_OBJECT_HANDLE,
    wrapped: &[u8],
    template: &[Attribute],
) -> Result<CK_OBJECT_HANDLE> {
    let place = Place::new(handle)?;
    let unwrapping = place.key(unwrapping_key).map_err(as_unwrapping)?;
    let cipher = place.cipher(mechanism, CKF_UNWRAP, &unwrapping).map_err(as_unwrapping)?;
    if wrapped.is_empty() || wrapped.len() > WRAPPED_BYTES_MAX {
        return Err(Rv(CKR_WRAPPED_KEY_LEN_RANGE));
    }
    let (class, algorithm) =
        wish::made_algorithm(template, unwrapped_bytes(cipher.wire, wrapped.len()))?;
    let key = place.new_key(algorithm, &[(class, template)])?;
    let request = v1::UnwrapKeyRequest {
        name: unwrapping.version.clone(),
        mechanism: cipher.wire.into(),
        initialization_vector: cipher.iv,
        additional_authenticated_data: cipher.additional_data,
        wrapped_key: wrapped.to_vec(),
        key: Some(key),
        request_id: connection::request_id()?,
    };
    let ask = || connection::call!(&place.module, place.slot(), UnwrapKey(request));
    let answer = ask().map_err(|rv| match rv {
        Rv(CKR_ENCRYPTED_DATA_INVALID) => Rv(CKR_WRAPPED_KEY_INVALID),
        other => other,
    })?;
    handle_of(&place.take_in(answer.key, answer.version, algorithm)?, class)
}

/// `C_DeriveKey`: out of a secret, or by agreement with the owner of a public key.
pub(crate) fn derive(
    handle: CK_SESSION_HANDLE,
    mechanism: Mechanism,
    base: CK_OBJECT_HANDLE,
    template: &[Attribute],
) -> Result<CK_OBJECT_HANDLE> {
    let place = Place::new(handle)?;
    let base = place.key(base)?;
    let kind = mechanism.kind;
    let row = row_of_key(kind, CKF_DERIVE, &base)?;
    let (key, version, algorithm) = if row.wire == [Wire::Ecdh] {
        let point = place.module.explained(kind, mechanism.into_peer())?;
        let (peer_public_key, bytes) = place.module.explained(kind, peer(&base, &point))?;
        let algorithm = secret_only(wish::made_algorithm(template, Some(bytes))?)?;
        let mut key = place.new_key(algorithm, &[(Class::Secret, template)])?;
        // Who names no length gets the whole shared secret.
        if algorithm == v1::Algorithm::GenericSecret && key.length_bytes == 0 {
            key.length_bytes = bytes as u32;
        }
        let request = v1::AgreeKeyRequest {
            name: base.version.clone(),
            peer_public_key,
            key: Some(key),
            request_id: connection::request_id()?,
            ..Default::default()
        };
        let answer = connection::call!(&place.module, place.slot(), AgreeKey(request))?;
        (answer.key, answer.version, algorithm)
    } else {
        let derivation = place.module.explained(kind, mechanism.into_derivation(row))?;
        if !base.mechanisms.contains(&derivation.wire) {
            return Err(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED));
        }
        let algorithm = secret_only(wish::made_algorithm(template, None)?)?;
        let request = v1::DeriveKeyRequest {
            name: base.version.clone(),
            mechanism: derivation.wire.into(),
            salt: derivation.salt,
            info: derivation.info,
            context: derivation.context,
            key: Some(place.new_key(algorithm, &[(Class::Secret, template)])?),
            request_id: connection::request_id()?,
        };
        let answer = connection::call!(&place.module, place.slot(), DeriveKey(request))?;
        (answer.key, answer.version, algorithm)
    };
    handle_of(&place.take_in(key, version, algorithm)?, Class::Secret)
}

/// `C_EncapsulateKey`: the ciphertext, and the handle of the key, if the ciphertext has room.
pub(crate) fn encapsulate(
    handle: CK_SESSION_HANDLE,
    mechanism: &Mechanism,
    public_key: CK_OBJECT_HANDLE,
    template: &[Attribute],
    room: Room,
) -> Result<(Output, Option<CK_OBJECT_HANDLE>)> {
    let place = Place::new(handle)?;
    let public = place.key(public_key)?;
    row_of_key(mechanism.kind, CKF_ENCAPSULATE, &public)?;
    place.module.explained(mechanism.kind, mechanism.without_parameter())?;
    let length = ciphertext_bytes(&public)?;
    match room {
        Room::Query => return Ok((Output::Length(length), None)),
        Room::Bytes(room) if room < length => return Ok((Output::TooSmall(length), None)),
        Room::Bytes(_) => {}
    }
    let algorithm = secret_only(wish::made_algorithm(template, Some(SHARED_SECRET_BYTES))?)?;
    let request = v1::EncapsulateKeyRequest {
        name: public.version.clone(),
        key: Some(place.new_key(algorithm, &[(Class::Secret, template)])?),
        request_id: connection::request_id()?,
    };
    let answer = connection::call!(&place.module, place.slot(), EncapsulateKey(request))?;
    if answer.ciphertext.len() != length {
        return Err(HOSTILE);
    }
    let made = place.take_in(answer.key, answer.version, algorithm)?;
    Ok((Output::Bytes(answer.ciphertext), Some(handle_of(&made, Class::Secret)?)))
}

/// `C_DecapsulateKey`.
pub(crate) fn decapsulate(
    handle: CK_SESSION_HANDLE,
    mechanism: &Mechanism,
    private_key: CK_OBJECT_HANDLE,
    template: &[Attribute],
    ciphertext: &[u8],
) -> Result<CK_OBJECT_HANDLE> {
    let place = Place::new(handle)?;
    let private = place.key(private_key)?;
    row_of_key(mechanism.kind, CKF_DECAPSULATE, &private)?;
    place.module.explained(mechanism.kind, mechanism.without_parameter())?;
    if ciphertext.len() != ciphertext_bytes(&private)? {
        return Err(Rv(CKR_WRAPPED_KEY_LEN_RANGE));
    }
    let algorithm = secret_only(wish::made_algorithm(template, Some(SHARED_SECRET_BYTES))?)?;
    let request = v1::DecapsulateKeyRequest {
        name: private.version.clone(),
        ciphertext: ciphertext.to_vec(),
        key: Some(place.new_key(algorithm, &[(Class::Secret, template)])?),
        request_id: connection::request_id()?,
    };
    let answer = connection::call!(&place.module, place.slot(), DecapsulateKey(request))?;
    handle_of(&place.take_in(answer.key, answer.version, algorithm)?, Class::Secret)
}

/// Where a key is made: a session that may write, and its token.
struct Place {
    module: Arc<Module>,
    session: Arc<Session>,
    token: Token,
}

type Made = Vec<(Class, CK_OBJECT_HANDLE)>;

impl Place {
    fn new(handle: CK_SESSION_HANDLE) -> Result<Self> {
        let module = module::current()?;
        let session = module.sessions.find(handle)?;
        let token = module.tokens.token(session.slot)?;
        Ok(Self { module, session, token })
    }

    fn slot(&self) -> Option<CK_SLOT_ID> {
        Some(self.session.slot)
    }

    fn key(&self, handle: CK_OBJECT_HANDLE) -> Result<Arc<Object>> {
        self.module.key(&self.session, handle)
    }

    fn wish(&self, algorithm: v1::Algorithm, templates: Templates<'_>) -> Result<Wish> {
        require_writing(&self.module, &self.session)?;
        let report = |text: &str| self.module.report(text);
        Wish::read(algorithm, &self.token.mechanisms, templates, report)
    }

    /// A key to be made out of something. The name is as those that the daemon makes.
    fn new_key(&self, algorithm: v1::Algorithm, templates: Templates<'_>) -> Result<v1::Key> {
        let wish = self.wish(algorithm, templates)?;
        Ok(wish.into_key(&self.token.ring, &new_name()?))
    }

    /// What wrapping and unwrapping take.
    fn cipher(&self, mechanism: Mechanism, flag: CK_FLAGS, object: &Object) -> Result<Cipher> {
        let kind = mechanism.kind;
        let row = row_of_key(kind, flag, object)?;
        let cipher = self.module.explained(kind, mechanism.into_cipher(row))?;
        if object.mechanisms.contains(&cipher.wire) {
            Ok(cipher)
        } else {
            Err(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED))
        }
    }

    fn generate(&self, wish: Wish) -> Result<Made> {
        let Wish { algorithm, usages, mechanisms, label, id, length_bytes, exportable } = wish;
        let request = v1::CreateObjectKeyRequest {
            ring: self.token.ring.clone(),
            algorithm: algorithm.into(),
            usages: usages.into_iter().map(i32::from).collect(),
            label: label.unwrap_or_default(),
            id: id.unwrap_or_default(),
            request_id: connection::request_id()?,
            mechanisms: mechanisms.into_iter().map(i32::from).collect(),
            length_bytes,
            exportable,
        };
        let answer = connection::call!(&self.module, self.slot(), CreateObjectKey(request))?;
        let made = Object::of_version(self.session.slot, answer.object.ok_or(HOSTILE)?)?;
        self.put(made, algorithm)
    }

    fn take_in(
        &self,
        key: Option<v1::Key>,
        version: Option<v1::KeyVersion>,
        algorithm: v1::Algorithm,
    ) -> Result<Made> {
        self.put(Object::of_new_key(self.session.slot, key, version)?, algorithm)
    }

    fn put(&self, made: Vec<Object>, algorithm: v1::Algorithm) -> Result<Made> {
        if made.iter().any(|object| object.algorithm != algorithm) {
            return Err(HOSTILE);
        }
        let put = |object: Object| (object.class, self.module.objects.put(object));
        Ok(made.into_iter().map(put).collect())
    }
}

/// A name for a key that has only a label.
pub(crate) fn new_name() -> Result<String> {
    let id = connection::request_id()?;
    Ok(id.iter().fold("p11-".to_owned(), |name, byte| format!("{name}{byte:02x}")))
}

fn handle_of(made: &Made, class: Class) -> Result<CK_OBJECT_HANDLE> {
    made.iter().find(|(of, _)| *of == class).map(|(_, handle)| *handle).ok_or(HOSTILE)
}

fn secret_only((class, algorithm): (Class, v1::Algorithm)) -> Result<v1::Algorithm> {
    if class == Class::Secret { Ok(algorithm) } else { Err(Rv(CKR_TEMPLATE_INCONSISTENT)) }
}

/// The peer's public key as the daemon takes it, and the length of the shared secret. The point may
/// come as it is or inside an OCTET STRING (PKCS#11 v3.1 §6.3.18); the length tells which.
fn peer(base: &Object, point: &[u8]) -> Result<(Vec<u8>, CK_ULONG)> {
    let own = base.public_key.as_ref().ok_or(HOSTILE)?;
    let (identifier, bits) = asn1::public_key_parts(&own.der).ok_or(HOSTILE)?;
    let wrapper = asn1::octet_string(bits).len() - bits.len();
    let refused = Rv(CKR_MECHANISM_PARAM_INVALID);
    let point = match point.len().checked_sub(bits.len()) {
        Some(0) => point,
        Some(extra) if extra == wrapper => {
            let (start, inner) = point.split_at(wrapper);
            Some(inner).filter(|_| asn1::octet_string(bits).starts_with(start)).ok_or(refused)?
        }
        _ => return Err(refused),
    };
    // An uncompressed point is a byte and two coordinates; that of X25519 is one number.
    let bytes = if bits.len().is_multiple_of(2) { bits.len() } else { bits.len() / 2 };
    Ok((asn1::public_key_info(identifier, point), bytes as CK_ULONG))
}

fn ciphertext_bytes(object: &Object) -> Result<usize> {
    match algorithm::facts(object.algorithm).map(|facts| facts.size) {
        Some(Size::Set { ciphertext_bytes, .. }) if ciphertext_bytes > 0 => Ok(ciphertext_bytes),
        _ => Err(HOSTILE),
    }
}

/// The most that a wrapped key can have. Of secrets it is exact; of private keys, whose PKCS#8 has
/// optional parts, it is a bound (PKCS#11 v3.1 §5.2 lets a length be too long).
fn wrapped_bytes_max(wire: Wire, wrapping: &Object, target: &Object) -> Result<usize> {
    let bytes = match algorithm::facts(target.algorithm).map(|facts| facts.size) {
        Some(Size::Any | Size::Bytes(_)) => target.length_bytes as usize,
        // Modulus, exponent and five numbers of half the length.
        Some(Size::Modulus(bits)) => bits as usize / 8 * 5 + 128,
        Some(Size::Curve { .. }) => 512,
        Some(Size::Set { .. }) => 16 * 1024,
        None => return Err(Rv(CKR_KEY_NOT_WRAPPABLE)),
    };
    match (wire, algorithm::facts(wrapping.algorithm).map(|facts| facts.size)) {
        (Wire::AesKw, _) => Ok(bytes + 8),
        (Wire::AesKwp, _) => Ok(bytes.next_multiple_of(8) + 8),
        (Wire::AesGcm, _) => Ok(bytes + TAG_BYTES),
        (_, Some(Size::Modulus(bits))) => {
            let modulus_bytes = bits as usize / 8;
            let padding_bytes = Hash::of_wire(wire).map_or(11, |hash| 2 * hash.bytes() + 2);
            let fits = target.class == Class::Secret && bytes <= modulus_bytes - padding_bytes;
            if fits { Ok(modulus_bytes) } else { Err(Rv(CKR_KEY_SIZE_RANGE)) }
        }
        _ => Err(Rv(CKR_MECHANISM_INVALID)),
    }
}

/// The length of what was wrapped, where the wrapped key tells it: of KWP within seven bytes, and keys
/// of AES have multiples of eight.
fn unwrapped_bytes(wire: Wire, wrapped: usize) -> Option<CK_ULONG> {
    let overhead = match wire {
        Wire::AesKw | Wire::AesKwp => 8,
        Wire::AesGcm => TAG_BYTES,
        _ => return None,
    };
    wrapped.checked_sub(overhead).map(|bytes| bytes as CK_ULONG)
}

const fn as_wrapping(rv: Rv) -> Rv {
    match rv {
        Rv(CKR_KEY_HANDLE_INVALID) => Rv(CKR_WRAPPING_KEY_HANDLE_INVALID),
        Rv(CKR_KEY_TYPE_INCONSISTENT) => Rv(CKR_WRAPPING_KEY_TYPE_INCONSISTENT),
        other => other,
    }
}

const fn as_unwrapping(rv: Rv) -> Rv {
    match rv {
        Rv(CKR_KEY_HANDLE_INVALID) => Rv(CKR_UNWRAPPING_KEY_HANDLE_INVALID),
        Rv(CKR_KEY_TYPE_INCONSISTENT) => Rv(CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT),
        other => other,
    }
}

/// Of every KEM here (FIPS 203 §3).
const SHARED_SECRET_BYTES: CK_ULONG = 32;
/// The longest wrapped key that is sent.
const WRAPPED_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::tests::{aes_version, p256_version};

    fn private() -> Object {
        Object::of_version(0, p256_version()).unwrap().remove(0)
    }

    #[test]
    fn a_peer_s_point_may_be_wrapped_and_its_length_tells() {
        let base = private();
        let public = base.public_key.clone().unwrap();
        let expected = Ok((public.der.clone(), 32));
        assert_eq!(peer(&base, &public.bits), expected);
        assert_eq!(peer(&base, &asn1::octet_string(&public.bits)), expected);
        let refused = Err(Rv(CKR_MECHANISM_PARAM_INVALID));
        let mut odd = asn1::octet_string(&public.bits);
        odd[0] = 0x03;
        for bad in [&odd, &public.bits[1..], &public.der[..], &[]] {
            assert_eq!(peer(&base, bad), refused);
        }
    }

    #[test]
    fn the_length_of_a_wrapped_key_is_known_before() {
        let secret = || Object::of_version(0, aes_version()).unwrap().remove(0);
        let aes = secret();
        let rsa = Object { algorithm: v1::Algorithm::Rsa2048, ..private() };
        let length = |wire, by, target| wrapped_bytes_max(wire, by, target);
        assert_eq!(length(Wire::AesKw, &aes, &aes), Ok(40));
        assert_eq!(length(Wire::AesGcm, &aes, &aes), Ok(48));
        assert_eq!(length(Wire::RsaOaepSha256, &rsa, &aes), Ok(256));
        assert_eq!(length(Wire::RsaOaepSha256, &rsa, &rsa), Err(Rv(CKR_KEY_SIZE_RANGE)));
        let odd = Object { length_bytes: 33, algorithm: v1::Algorithm::GenericSecret, ..secret() };
        assert_eq!(length(Wire::AesKwp, &odd, &odd), Ok(48));
        // RFC 8017's example of 4,096 bits has 2,375 bytes.
        let long = Object { algorithm: v1::Algorithm::Rsa4096, ..private() };
        assert!(length(Wire::AesKwp, &odd, &long).unwrap() > 2400);
        assert_eq!(unwrapped_bytes(Wire::AesKw, 24), Some(16));
        assert_eq!(unwrapped_bytes(Wire::AesGcm, 15), None);
        assert_eq!(unwrapped_bytes(Wire::RsaOaepSha256, 256), None);
    }
}
