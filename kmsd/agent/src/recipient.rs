//! The key pair that one answer is sealed to (HPKE, RFC 9180), made for one request and dropped
//! with it.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{DhP256HkdfSha256, XWing};
use hpke::{Deserializable, Kem, OpModeR, Serializable, single_shot_open};
use kms_core::transcript::{Recipient, Suite};
use zeroize::Zeroizing;

use crate::AgentError;

/// A private HPKE key with its public half. The private key is wiped when dropped and shown nowhere.
///
/// ```compile_fail
/// let pair = kms_agent::recipient::KeyPair::generate(kms_core::transcript::Suite::OFFERED[0]);
/// println!("{:?}", pair.unwrap());
/// ```
///
/// ```
/// let pair = kms_agent::recipient::KeyPair::generate(kms_core::transcript::Suite::OFFERED[0]);
/// println!("{:?}", pair.unwrap().recipient());
/// ```
pub struct KeyPair {
    secret: Secret,
    recipient: Recipient,
}

enum Secret {
    P256(<DhP256HkdfSha256 as Kem>::PrivateKey),
    XWing(Box<<XWing as Kem>::PrivateKey>),
}

impl KeyPair {
    /// Makes a key pair of `suite`.
    ///
    /// # Errors
    /// [`AgentError::Randomness`] when the machine gives no random bytes, [`AgentError::Answer`]
    /// when the suite is one that this crate does not know.
    pub fn generate(suite: Suite) -> Result<Self, AgentError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        aws_lc_rs::rand::fill(seed.as_mut()).map_err(|_| AgentError::Randomness)?;
        let (secret, public_key) = match suite {
            Suite::P256HkdfSha256Aes256Gcm => {
                let (secret, public) = DhP256HkdfSha256::derive_keypair(seed.as_ref());
                (Secret::P256(secret), public.to_bytes().to_vec())
            }
            Suite::XWingHkdfSha256Aes256Gcm => {
                let (secret, public) = XWing::derive_keypair(seed.as_ref());
                (Secret::XWing(Box::new(secret)), public.to_bytes().to_vec())
            }
            _ => return Err(AgentError::Answer("an HPKE suite that is not known here")),
        };
        let recipient = Recipient::new(suite, public_key)
            .map_err(|_| AgentError::Answer("a suite with another length of public key"))?;
        Ok(Self { secret, recipient })
    }

    /// The public half, as the evidence commits to it.
    pub const fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// Opens an answer that was sealed to this pair under `info` and `aad`.
    ///
    /// # Errors
    /// [`AgentError::Open`] when it was sealed to another key, under something else, or changed.
    pub fn open(
        &self,
        encapsulated_key: &[u8],
        ciphertext: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, AgentError> {
        match &self.secret {
            Secret::P256(secret) => {
                open::<DhP256HkdfSha256>(secret, encapsulated_key, ciphertext, info, aad)
            }
            Secret::XWing(secret) => open::<XWing>(secret, encapsulated_key, ciphertext, info, aad),
        }
    }
}

fn open<K: Kem>(
    secret: &K::PrivateKey,
    encapsulated_key: &[u8],
    ciphertext: &[u8],
    info: &[u8],
    aad: &[u8],
) -> Result<Zeroizing<Vec<u8>>, AgentError> {
    let encapsulated =
        K::EncappedKey::from_bytes(encapsulated_key).map_err(|_| AgentError::Open)?;
    let mode = OpModeR::<K>::Base;
    single_shot_open::<AesGcm256, HkdfSha256, K>(
        &mode,
        secret,
        &encapsulated,
        info,
        ciphertext,
        aad,
    )
    .map(Zeroizing::new)
    .map_err(|_| AgentError::Open)
}

/// Input of DeriveKeyPair (RFC 9180 §7.1.3): as long as a private key of either suite.
const SEED_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use hpke::{OpModeS, single_shot_seal_with_rng};

    use super::*;

    /// A generator for the sender's side, which is the daemon's business outside of tests.
    struct Sender;

    impl hpke::rand_core::TryRng for Sender {
        type Error = core::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            let mut bytes = [0; 4];
            self.try_fill_bytes(&mut bytes).map(|()| u32::from_le_bytes(bytes))
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            let mut bytes = [0; 8];
            self.try_fill_bytes(&mut bytes).map(|()| u64::from_le_bytes(bytes))
        }
        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
            aws_lc_rs::rand::fill(bytes).unwrap();
            Ok(())
        }
    }

    impl hpke::rand_core::TryCryptoRng for Sender {}

    fn sealed<K: Kem>(to: &Recipient) -> (Vec<u8>, Vec<u8>) {
        let public_key = K::PublicKey::from_bytes(to.public_key()).unwrap();
        let (enc, ciphertext) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, K>(
            &OpModeS::Base,
            &public_key,
            b"info",
            b"the key",
            b"aad",
            &mut Sender,
        )
        .unwrap();
        (enc.to_bytes().to_vec(), ciphertext)
    }

    #[test]
    fn each_suite_opens_what_is_sealed_to_it_and_nothing_else() {
        for suite in Suite::OFFERED {
            let pair = KeyPair::generate(suite).unwrap();
            let (enc, ciphertext) = match suite {
                Suite::P256HkdfSha256Aes256Gcm => sealed::<DhP256HkdfSha256>(pair.recipient()),
                _ => sealed::<XWing>(pair.recipient()),
            };
            let opened = pair.open(&enc, &ciphertext, b"info", b"aad").unwrap();
            assert_eq!(opened.as_slice(), b"the key");
            let other = KeyPair::generate(suite).unwrap();
            let mut changed = ciphertext.clone();
            changed[0] ^= 1;
            for refused in [
                pair.open(&enc, &ciphertext, b"other", b"aad"),
                pair.open(&enc, &ciphertext, b"info", b"other"),
                pair.open(&enc, &changed, b"info", b"aad"),
                pair.open(&enc[1..], &ciphertext, b"info", b"aad"),
                pair.open(&enc, b"", b"info", b"aad"),
                other.open(&enc, &ciphertext, b"info", b"aad"),
            ] {
                assert!(matches!(refused, Err(AgentError::Open)));
            }
        }
    }
}
