//! Encryption and decryption: `C_EncryptInit` to `C_DecryptFinal`.
//!
//! In a hardened token the daemon makes the IV of every authenticated encryption. The caller's `pIv` is a
//! buffer of twelve zero bytes, into which the IV is written when the ciphertext is given out; a
//! caller who brings an IV of its own is refused, because one IV used twice gives the key away (SP
//! 800-38D §8). In a compatible token the caller's IV is the one, whatever it is.
//!
//! The result comes with the last step: no plaintext is given out before its tag or its padding was
//! checked. Only AES-CBC and AES-CTR, which check nothing, go in pieces when there is more than the
//! daemon takes at once, each piece with the IV that the one before leaves.

use std::sync::Arc;

use cryptoki_sys::*;
use kms_proto::v1;
use kms_proto::v1::Mechanism as Wire;
use zeroize::Zeroizing;

use crate::algorithm::{self, Size};
use crate::connection;
use crate::hash::Hash;
use crate::mechanism::row_of_key;
use crate::module::{self, Module};
use crate::object::Object;
use crate::output::{Output, Room, begin, last_step, next_step};
use crate::parameter::{BLOCK_BYTES, Cipher, Mechanism, NONCE_BYTES, TAG_BYTES};
use crate::rv::{HOSTILE, Result, Rv};
use crate::scheme::DATA_BYTES_MAX;
use crate::session::Operations;

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Decrypt,
    Encrypt,
}

/// A running encryption or decryption.
pub(crate) struct Ciphering {
    direction: Direction,
    object: Arc<Object>,
    cipher: Cipher,
    shape: Shape,
    /// The daemon makes the IV.
    draws_iv: bool,
    input: Zeroizing<Vec<u8>>,
    /// A result whose length could not be known before, kept while the caller finds a buffer.
    result: Option<Zeroizing<Vec<u8>>>,
    updated: bool,
    blocks_done: u128,
}

/// How long what comes out is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shape {
    /// As long, with a tag.
    Aead,
    /// As long, in whole blocks.
    Blocks,
    /// Filled up to whole blocks.
    Padded,
    /// RSA with a padding of at least so many bytes.
    Rsa { modulus_bytes: usize, padding_bytes: usize },
    /// RSA without padding.
    RsaRaw { modulus_bytes: usize },
    /// As long.
    Stream,
}

/// The length of a result before it is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Length {
    AtMost(usize),
    Exactly(usize),
}

/// `C_EncryptInit` and `C_DecryptInit`.
pub(crate) fn init(
    direction: Direction,
    handle: CK_SESSION_HANDLE,
    mechanism: Result<Option<Mechanism>>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    begin(running(&mut session.operations(), direction), mechanism?, |mechanism| {
        let object = module.key(&session, key)?;
        let compatible = module.tokens.token(session.slot)?.compatible;
        let kind = mechanism.kind;
        module.explained(kind, Ciphering::new(direction, mechanism, object, compatible))
    })
}

/// `C_Encrypt` and `C_Decrypt`.
pub(crate) fn whole(
    direction: Direction,
    handle: CK_SESSION_HANDLE,
    data: Result<&[u8]>,
    room: Result<Room>,
) -> Result<Output> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    last_step(running(&mut session.operations(), direction), |ciphering| {
        let (data, room) = (data?, room?);
        // A call with all of the data does not end one that came in parts.
        if ciphering.updated {
            return Err(Rv(CKR_OPERATION_ACTIVE));
        }
        let length = ciphering.length(data.len())?;
        ciphering.give(room, length, |ciphering| {
            let mut out = ciphering.take_in(&module, data)?;
            out.extend_from_slice(&ciphering.finish(&module)?);
            Ok(out)
        })
    })
}

/// `C_EncryptUpdate` and `C_DecryptUpdate`. Asking for the length takes nothing in.
pub(crate) fn part(
    direction: Direction,
    handle: CK_SESSION_HANDLE,
    data: Result<&[u8]>,
    room: Result<Room>,
) -> Result<Output> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    next_step(running(&mut session.operations(), direction), |ciphering| {
        ciphering.updated = true;
        let data = data?;
        let length = ciphering.flushed_bytes(data.len());
        room?.give(length, || {
            ciphering.take_in(&module, data).map(|mut out| std::mem::take(&mut *out))
        })
    })
}

/// `C_EncryptFinal` and `C_DecryptFinal`.
pub(crate) fn last(
    direction: Direction,
    handle: CK_SESSION_HANDLE,
    room: Result<Room>,
) -> Result<Output> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    last_step(running(&mut session.operations(), direction), |ciphering| {
        let length = ciphering.length(ciphering.input.len())?;
        ciphering.give(room?, length, |ciphering| ciphering.finish(&module))
    })
}

fn running(operations: &mut Operations, direction: Direction) -> &mut Option<Ciphering> {
    match direction {
        Direction::Decrypt => &mut operations.decrypt,
        Direction::Encrypt => &mut operations.encrypt,
    }
}

impl Ciphering {
    fn new(
        direction: Direction,
        mechanism: Mechanism,
        object: Arc<Object>,
        compatible: bool,
    ) -> Result<Self> {
        let flag = match direction {
            Direction::Decrypt => CKF_DECRYPT,
            Direction::Encrypt => CKF_ENCRYPT,
        };
        let row = row_of_key(mechanism.kind, flag, &object)?;
        let cipher = mechanism.into_cipher(row)?;
        if !object.mechanisms.contains(&cipher.wire) {
            return Err(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED));
        }
        if cipher.additional_data.len() > DATA_BYTES_MAX {
            return Err(Rv(CKR_MECHANISM_PARAM_INVALID));
        }
        let shape = Shape::new(cipher.wire, &object)?;
        let draws_iv = direction == Direction::Encrypt && shape == Shape::Aead && !compatible;
        if draws_iv && cipher.iv.iter().any(|byte| *byte != 0) {
            return Err(Rv(CKR_MECHANISM_PARAM_INVALID));
        }
        Ok(Self {
            direction,
            object,
            cipher,
            shape,
            draws_iv,
            input: Zeroizing::default(),
            result: None,
            updated: false,
            blocks_done: 0,
        })
    }

    /// The length of what `bytes` more of input become, or why they cannot be taken.
    fn length(&self, bytes: usize) -> Result<Length> {
        if !self.is_chained() && bytes > self.input_bytes_max() {
            return Err(self.length_error());
        }
        let length = match self.direction {
            Direction::Decrypt => self.shape.decrypted(bytes),
            Direction::Encrypt => self.shape.encrypted(bytes),
        };
        length.ok_or_else(|| self.length_error())
    }

    /// Gives the result out if it fits, and keeps it otherwise.
    fn give(
        &mut self,
        room: Room,
        length: Length,
        produce: impl FnOnce(&mut Self) -> Result<Zeroizing<Vec<u8>>>,
    ) -> Result<Output> {
        let (room, length) = match (room, length) {
            (Room::Query, Length::AtMost(bytes) | Length::Exactly(bytes)) => {
                return Ok(Output::Length(bytes));
            }
            (Room::Bytes(room), Length::Exactly(bytes)) if room < bytes => {
                return Ok(Output::TooSmall(bytes));
            }
            (Room::Bytes(room), length) => (room, length),
        };
        let mut result = match self.result.take() {
            Some(result) => result,
            None => produce(self)?,
        };
        let fits = match length {
            Length::AtMost(bytes) => result.len() <= bytes,
            Length::Exactly(bytes) => result.len() == bytes,
        };
        if !fits {
            return Err(HOSTILE);
        }
        if room < result.len() {
            let bytes = result.len();
            self.result = Some(result);
            return Ok(Output::TooSmall(bytes));
        }
        Ok(Output::Bytes(std::mem::take(&mut *result)))
    }

    /// Takes data in. What comes out already is of whole pieces of a chained cipher.
    fn take_in(&mut self, module: &Module, mut data: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let mut out = Zeroizing::new(Vec::with_capacity(self.flushed_bytes(data.len())));
        let bytes_max = self.input_bytes_max();
        loop {
            let fitting = data.len().min(bytes_max - self.input.len());
            self.input.extend_from_slice(&data[..fitting]);
            data = &data[fitting..];
            if data.is_empty() {
                return Ok(out);
            }
            if !self.is_chained() {
                return Err(self.length_error());
            }
            out.extend_from_slice(&self.process(module)?);
        }
    }

    /// How much comes out when so many bytes are taken in: full pieces that something follows.
    fn flushed_bytes(&self, bytes: usize) -> usize {
        let total = self.input.len().saturating_add(bytes);
        if self.is_chained() {
            total.saturating_sub(1) / DATA_BYTES_MAX * DATA_BYTES_MAX
        } else {
            0
        }
    }

    fn finish(&mut self, module: &Module) -> Result<Zeroizing<Vec<u8>>> {
        if self.input.is_empty() && self.is_chained() {
            return Ok(Zeroizing::default());
        }
        self.process(module)
    }

    /// Has the daemon work on what was taken in, and makes ready for more.
    fn process(&mut self, module: &Module) -> Result<Zeroizing<Vec<u8>>> {
        let input = std::mem::take(&mut self.input);
        self.blocks_done += input.len().div_ceil(BLOCK_BYTES) as u128;
        if self.blocks_done > self.cipher.blocks_max {
            return Err(self.length_error());
        }
        let output = match self.direction {
            Direction::Decrypt => self.decrypt(module, &input)?,
            Direction::Encrypt => self.encrypt(module, &input)?,
        };
        let ciphertext = if self.direction == Direction::Encrypt { &output } else { &input };
        match (self.shape, ciphertext.last_chunk::<BLOCK_BYTES>()) {
            (Shape::Blocks, Some(block)) => self.cipher.iv = block.to_vec(),
            (Shape::Stream, _) => self.cipher.iv = advanced(&self.cipher.iv, input.len()),
            _ => {}
        }
        Ok(output)
    }

    fn encrypt(&mut self, module: &Module, input: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let plaintext = self.shape.filled(input);
        let request = v1::EncryptRequest {
            name: self.object.version.clone(),
            plaintext_crc32c: Some(crc32c::crc32c(&plaintext)),
            plaintext,
            additional_authenticated_data: std::mem::take(&mut self.cipher.additional_data),
            mechanism: self.cipher.wire.into(),
            initialization_vector: if self.draws_iv { Vec::new() } else { self.cipher.iv.clone() },
        };
        let answer = connection::call!(module, Some(self.object.slot), Encrypt(request))?;
        let v1::EncryptResponse {
            initialization_vector: iv, ciphertext, ciphertext_crc32c, ..
        } = answer;
        let expected_iv =
            if self.draws_iv { iv.len() == NONCE_BYTES } else { iv == self.cipher.iv };
        if !expected_iv
            || self.shape.encrypted(input.len()) != Some(Length::Exactly(ciphertext.len()))
            || crc32c::crc32c(&ciphertext) != ciphertext_crc32c
        {
            return Err(HOSTILE);
        }
        if let (true, Some(buffer)) = (self.draws_iv, &self.cipher.iv_buffer) {
            buffer.fill(&iv)?;
        }
        Ok(Zeroizing::new(ciphertext))
    }

    fn decrypt(&mut self, module: &Module, input: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let request = v1::DecryptRequest {
            name: self.object.version.clone(),
            initialization_vector: self.cipher.iv.clone(),
            ciphertext_crc32c: Some(crc32c::crc32c(input)),
            ciphertext: input.to_vec(),
            additional_authenticated_data: std::mem::take(&mut self.cipher.additional_data),
            mechanism: self.cipher.wire.into(),
        };
        let answer = connection::call!(module, Some(self.object.slot), Decrypt(request))?;
        let plaintext = Zeroizing::new(answer.plaintext);
        let fits = match self.shape.decrypted(input.len()) {
            Some(Length::AtMost(bytes)) => plaintext.len() <= bytes,
            Some(Length::Exactly(bytes)) => plaintext.len() == bytes,
            None => false,
        };
        if !fits || crc32c::crc32c(&plaintext) != answer.plaintext_crc32c {
            return Err(HOSTILE);
        }
        Ok(plaintext)
    }

    const fn is_chained(&self) -> bool {
        matches!(self.shape, Shape::Blocks | Shape::Stream)
    }

    fn input_bytes_max(&self) -> usize {
        match (self.direction, self.shape) {
            (Direction::Decrypt, Shape::Aead) => DATA_BYTES_MAX + TAG_BYTES,
            (Direction::Decrypt, Shape::Padded) => DATA_BYTES_MAX + BLOCK_BYTES,
            (_, Shape::RsaRaw { modulus_bytes })
            | (Direction::Decrypt, Shape::Rsa { modulus_bytes, .. }) => modulus_bytes,
            (_, Shape::Rsa { modulus_bytes, padding_bytes }) => modulus_bytes - padding_bytes,
            _ => DATA_BYTES_MAX,
        }
    }

    const fn length_error(&self) -> Rv {
        match self.direction {
            Direction::Decrypt => Rv(CKR_ENCRYPTED_DATA_LEN_RANGE),
            Direction::Encrypt => Rv(CKR_DATA_LEN_RANGE),
        }
    }
}

impl Shape {
    fn new(wire: Wire, object: &Object) -> Result<Self> {
        Ok(match (wire, algorithm::facts(object.algorithm).map(|facts| facts.size)) {
            (Wire::AesCbc, _) => Self::Blocks,
            (Wire::AesCbcPad, _) => Self::Padded,
            (Wire::AesCtr, _) => Self::Stream,
            (Wire::AesGcm | Wire::Chacha20Poly1305, _) => Self::Aead,
            (Wire::RsaRaw, Some(Size::Modulus(bits))) => {
                Self::RsaRaw { modulus_bytes: bits as usize / 8 }
            }
            (_, Some(Size::Modulus(bits))) => {
                // RFC 8017 §7.1.1 and §7.2.1.
                let padding_bytes = Hash::of_wire(wire).map_or(11, |hash| 2 * hash.bytes() + 2);
                Self::Rsa { modulus_bytes: bits as usize / 8, padding_bytes }
            }
            _ => return Err(Rv(CKR_MECHANISM_INVALID)),
        })
    }

    /// The length of a ciphertext; `None` if so many bytes cannot be encrypted.
    fn encrypted(self, bytes: usize) -> Option<Length> {
        match self {
            Self::Aead => bytes.checked_add(TAG_BYTES),
            Self::Blocks => bytes.is_multiple_of(BLOCK_BYTES).then_some(bytes),
            Self::Padded => (bytes / BLOCK_BYTES + 1).checked_mul(BLOCK_BYTES),
            Self::Rsa { modulus_bytes, padding_bytes } => {
                (bytes <= modulus_bytes - padding_bytes).then_some(modulus_bytes)
            }
            Self::RsaRaw { modulus_bytes } => (bytes <= modulus_bytes).then_some(modulus_bytes),
            Self::Stream => Some(bytes),
        }
        .map(Length::Exactly)
    }

    /// The length of a plaintext; `None` if no ciphertext has so many bytes.
    fn decrypted(self, bytes: usize) -> Option<Length> {
        match self {
            Self::Aead => bytes.checked_sub(TAG_BYTES).map(Length::Exactly),
            Self::Blocks => bytes.is_multiple_of(BLOCK_BYTES).then_some(Length::Exactly(bytes)),
            Self::Padded => {
                let whole = bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES);
                whole.then_some(Length::AtMost(bytes))
            }
            Self::Rsa { modulus_bytes, padding_bytes } => {
                (bytes == modulus_bytes).then_some(Length::AtMost(modulus_bytes - padding_bytes))
            }
            Self::RsaRaw { modulus_bytes } => {
                (bytes == modulus_bytes).then_some(Length::Exactly(modulus_bytes))
            }
            Self::Stream => Some(Length::Exactly(bytes)),
        }
    }

    /// Raw RSA works on a number as long as the modulus (PKCS#11 v3.1 §6.1.9).
    fn filled(self, input: &[u8]) -> Vec<u8> {
        let missing = match self {
            Self::RsaRaw { modulus_bytes } => modulus_bytes.saturating_sub(input.len()),
            _ => 0,
        };
        [&vec![0; missing][..], input].concat()
    }
}

/// The counter block after so many bytes of whole blocks (SP 800-38A §6.5).
fn advanced(counter: &[u8], bytes: usize) -> Vec<u8> {
    let number = counter.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    number.wrapping_add((bytes / BLOCK_BYTES) as u128).to_be_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::CallerBuffer;
    use crate::object::Class;
    use crate::object::tests::aes_version;
    use crate::parameter::{Aead, Oaep, Parameter};

    fn aes(mechanisms: &[Wire]) -> Arc<Object> {
        let object = Object::of_version(0, aes_version()).unwrap().remove(0);
        Arc::new(Object { mechanisms: mechanisms.to_vec(), ..object })
    }

    fn rsa(wire: Wire) -> Arc<Object> {
        let object = Object::of_version(0, aes_version()).unwrap().remove(0);
        let (algorithm, class) = (v1::Algorithm::Rsa2048, Class::Private);
        Arc::new(Object { algorithm, class, mechanisms: vec![wire], ..object })
    }

    fn gcm(iv: &[u8], tag_bits: CK_ULONG) -> Mechanism {
        let parameter = Parameter::Aead(Aead {
            iv: iv.to_vec(),
            iv_buffer: CallerBuffer::none(),
            additional_data: Vec::new(),
            tag_bits,
        });
        Mechanism { kind: CKM_AES_GCM, parameter }
    }

    fn bytes(kind: CK_MECHANISM_TYPE, iv: &[u8]) -> Mechanism {
        Mechanism { kind, parameter: Parameter::Bytes(iv.to_vec()) }
    }

    fn new(direction: Direction, mechanism: Mechanism, object: Arc<Object>) -> Result<Ciphering> {
        Ciphering::new(direction, mechanism, object, false)
    }

    fn refusal(mechanism: Mechanism, object: &Arc<Object>) -> Option<CK_RV> {
        new(Direction::Encrypt, mechanism, object.clone()).err().map(|rv| rv.0)
    }

    #[test]
    fn a_hardened_token_makes_the_iv_and_a_compatible_one_takes_the_caller_s() {
        let key = aes(&[Wire::AesGcm]);
        let own = || gcm(&[1; 12], 128);
        assert_eq!(refusal(own(), &key), Some(CKR_MECHANISM_PARAM_INVALID));
        assert!(new(Direction::Encrypt, gcm(&[0; 12], 128), key.clone()).unwrap().draws_iv);
        let compatible = Ciphering::new(Direction::Encrypt, own(), key.clone(), true).unwrap();
        assert!(!compatible.draws_iv);
        let zero = Ciphering::new(Direction::Encrypt, gcm(&[0; 12], 128), key.clone(), true);
        assert!(!zero.unwrap().draws_iv);
        assert!(!new(Direction::Decrypt, own(), key).unwrap().draws_iv);
    }

    #[test]
    fn parameters_of_another_form_are_refused() {
        let key = aes(&[Wire::AesGcm, Wire::AesCbc, Wire::AesCbcPad, Wire::AesCtr]);
        let counter = |bits| Mechanism {
            kind: CKM_AES_CTR,
            parameter: Parameter::Counter { bits, block: [0xff; 16] },
        };
        for bad in [
            gcm(&[0; 11], 128),
            gcm(&[0; 16], 128),
            gcm(&[], 128),
            gcm(&[0; 12], 96),
            bytes(CKM_AES_GCM, &[0; 12]),
            bytes(CKM_AES_CBC, &[0; 15]),
            bytes(CKM_AES_CBC_PAD, &[0; 17]),
            Mechanism { kind: CKM_AES_CBC, parameter: Parameter::None },
            Mechanism { kind: CKM_AES_CTR, parameter: Parameter::Other },
            counter(0),
            counter(129),
        ] {
            assert_eq!(refusal(bad, &key), Some(CKR_MECHANISM_PARAM_INVALID));
        }
        assert_eq!(refusal(bytes(CKM_AES_CBC, &[0; 16]), &key), None);
        assert_eq!(refusal(counter(128), &key), None);
        let narrow = aes(&[Wire::AesGcm]);
        let other = bytes(CKM_AES_CBC, &[0; 16]);
        assert_eq!(refusal(other, &narrow), Some(CKR_KEY_FUNCTION_NOT_PERMITTED));
        let wrapping = Mechanism { kind: CKM_AES_KEY_WRAP, parameter: Parameter::None };
        assert_eq!(refusal(wrapping, &key), Some(CKR_MECHANISM_INVALID));
    }

    #[test]
    fn oaep_takes_one_hash_for_both() {
        let key = rsa(Wire::RsaOaepSha256);
        let oaep = |hash, mgf, source, label: &[u8]| {
            let parameter = Parameter::Oaep(Oaep { hash, mgf, source, label: label.to_vec() });
            let mechanism = Mechanism { kind: CKM_RSA_PKCS_OAEP, parameter };
            new(Direction::Decrypt, mechanism, key.clone()).map(|c| c.cipher.additional_data)
        };
        assert_eq!(oaep(CKM_SHA256, CKG_MGF1_SHA256, CKZ_DATA_SPECIFIED, b"l"), Ok(b"l".to_vec()));
        assert_eq!(oaep(CKM_SHA256, CKG_MGF1_SHA256, 0, b""), Ok(Vec::new()));
        let refused = Err(Rv(CKR_MECHANISM_PARAM_INVALID));
        assert_eq!(oaep(CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, b""), refused);
        assert_eq!(oaep(CKM_SHA256, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, b""), refused);
        assert_eq!(oaep(CKM_SHA256, CKG_MGF1_SHA256, 0, b"l"), refused);
        assert_eq!(oaep(CKM_SHA256, CKG_MGF1_SHA256, 7, b""), refused);
        let not_permitted = Err(Rv(CKR_KEY_FUNCTION_NOT_PERMITTED));
        assert_eq!(oaep(CKM_SHA512, CKG_MGF1_SHA512, CKZ_DATA_SPECIFIED, b""), not_permitted);
    }

    #[test]
    fn every_shape_knows_its_lengths() {
        let exactly = |bytes| Some(Length::Exactly(bytes));
        let at_most = |bytes| Some(Length::AtMost(bytes));
        let oaep = Shape::Rsa { modulus_bytes: 256, padding_bytes: 66 };
        for (shape, bytes, encrypted, decrypted) in [
            (Shape::Aead, 0, exactly(16), None),
            (Shape::Aead, 17, exactly(33), exactly(1)),
            (Shape::Blocks, 32, exactly(32), exactly(32)),
            (Shape::Blocks, 33, None, None),
            (Shape::Padded, 0, exactly(16), None),
            (Shape::Padded, 16, exactly(32), at_most(16)),
            (Shape::Padded, 17, exactly(32), None),
            (Shape::Stream, 5, exactly(5), exactly(5)),
            (oaep, 190, exactly(256), None),
            (oaep, 191, None, None),
            (oaep, 256, None, at_most(190)),
            (Shape::RsaRaw { modulus_bytes: 256 }, 256, exactly(256), exactly(256)),
            (Shape::RsaRaw { modulus_bytes: 256 }, 255, exactly(256), None),
        ] {
            assert_eq!(shape.encrypted(bytes), encrypted, "{shape:?} {bytes}");
            assert_eq!(shape.decrypted(bytes), decrypted, "{shape:?} {bytes}");
        }
        assert_eq!(Shape::RsaRaw { modulus_bytes: 4 }.filled(&[9]), [0, 0, 0, 9]);
    }

    #[test]
    fn more_than_the_daemon_takes_at_once_goes_in_pieces_or_not_at_all() {
        let all = aes(&[Wire::AesGcm, Wire::AesCtr]);
        let counter = Parameter::Counter { bits: 128, block: [0; 16] };
        let ctr = Mechanism { kind: CKM_AES_CTR, parameter: counter };
        let ctr = new(Direction::Encrypt, ctr, all.clone()).unwrap();
        assert_eq!(ctr.flushed_bytes(DATA_BYTES_MAX), 0);
        assert_eq!(ctr.flushed_bytes(DATA_BYTES_MAX + 1), DATA_BYTES_MAX);
        assert_eq!(ctr.length(1 << 30), Ok(Length::Exactly(1 << 30)));
        let aead = new(Direction::Encrypt, gcm(&[0; 12], 128), all.clone()).unwrap();
        assert_eq!(aead.length(DATA_BYTES_MAX), Ok(Length::Exactly(DATA_BYTES_MAX + 16)));
        assert_eq!(aead.length(DATA_BYTES_MAX + 1), Err(Rv(CKR_DATA_LEN_RANGE)));
        let open = new(Direction::Decrypt, gcm(&[1; 12], 128), all).unwrap();
        assert!(open.length(DATA_BYTES_MAX + 16).is_ok());
        assert_eq!(open.length(DATA_BYTES_MAX + 17), Err(Rv(CKR_ENCRYPTED_DATA_LEN_RANGE)));
    }

    #[test]
    fn a_counter_goes_on_where_the_last_piece_ended_and_never_begins_anew() {
        assert_eq!(advanced(&[0xff; 16], 16), [0; 16]);
        assert_eq!(advanced(&[0; 16], 65_536)[13..], [0, 0x10, 0]);
        let parameter = Parameter::Counter { bits: 8, block: [0xfe; 16] };
        let mechanism = Mechanism { kind: CKM_AES_CTR, parameter };
        let short = new(Direction::Encrypt, mechanism, aes(&[Wire::AesCtr])).unwrap();
        assert_eq!(short.cipher.blocks_max, 2);
    }
}
