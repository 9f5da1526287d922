//! How a key leaves: sealed with HPKE (RFC 9180) to a recipient that evidence has proven.
//!
//! ```text
//! mode       = base
//! KEM        = X-Wing (0x647a, draft-ietf-hpke-pq) or DHKEM(P-256, HKDF-SHA256) (0x0010)
//! KDF, AEAD  = HKDF-SHA256 (0x0001), AES-256-GCM (0x0002)
//! info       = the transcript T0, 64 bytes (kms_core::transcript)
//! aad        = kms_core::transcript::answer_aad(version, policy digest, operation id)
//! plaintext  = raw bytes of a secret key, PKCS#8 DER of a private key
//! enc        = serialised encapsulated key: 1,120 bytes (X-Wing) or 65 bytes (P-256)
//! ciphertext = ciphertext with its 16-byte tag, sequence number 0
//! ```
//!
//! The workload opens it with its private key and any HPKE library. [`crate::vault::Vault::release`]
//! is the only caller, and takes the recipient from the claims and nowhere else.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{DhP256HkdfSha256, XWing};
use hpke::{Deserializable, Kem, OpModeS, Serializable, single_shot_seal_with_rng};
use kms_core::transcript::{Recipient, Suite};

use crate::CryptoError;
use crate::material::Material;
use crate::random::LatchedRng;
use crate::stack::wiping;

/// A released key, readable to the proven recipient alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SealedAnswer {
    /// The encapsulated key.
    pub enc: Vec<u8>,
    /// The ciphertext with its tag.
    pub ciphertext: Vec<u8>,
}

pub(crate) fn seal(
    recipient: &Recipient,
    info: &[u8],
    aad: &[u8],
    key: &Material,
) -> Result<SealedAnswer, CryptoError> {
    match recipient.suite() {
        Suite::P256HkdfSha256Aes256Gcm => {
            seal_with::<DhP256HkdfSha256>(recipient.public_key(), info, aad, key)
        }
        Suite::XWingHkdfSha256Aes256Gcm => {
            seal_with::<XWing>(recipient.public_key(), info, aad, key)
        }
        // A suite that this file does not know can be sealed to by nobody.
        _ => Err(CryptoError::RecipientKeyInvalid),
    }
}

fn seal_with<K: Kem>(
    public_key: &[u8],
    info: &[u8],
    aad: &[u8],
    key: &Material,
) -> Result<SealedAnswer, CryptoError> {
    let refused = |_| CryptoError::RecipientKeyInvalid;
    let public_key = K::PublicKey::from_bytes(public_key).map_err(refused)?;
    let mut rng = LatchedRng::default();
    let (enc, ciphertext) = wiping(|| {
        single_shot_seal_with_rng::<AesGcm256, HkdfSha256, K>(
            &OpModeS::Base,
            &public_key,
            info,
            key.expose(),
            aad,
            &mut rng,
        )
    })
    .map_err(refused)?;
    rng.check()?;
    Ok(SealedAnswer { enc: enc.to_bytes().to_vec(), ciphertext })
}

#[cfg(test)]
mod tests {
    use hpke::{OpModeR, single_shot_open};

    use super::*;

    fn opened<K: Kem>(
        suite: Suite,
        info: &[u8],
        aad: &[u8],
        seal_to: impl FnOnce(&Recipient) -> SealedAnswer,
    ) -> Option<Vec<u8>> {
        let (private, public) = K::gen_keypair_with_rng(&mut LatchedRng::default());
        let recipient = Recipient::new(suite, public.to_bytes().to_vec()).unwrap();
        let SealedAnswer { enc, ciphertext } = seal_to(&recipient);
        let enc = K::EncappedKey::from_bytes(&enc).unwrap();
        single_shot_open::<AesGcm256, HkdfSha256, K>(
            &OpModeR::Base,
            &private,
            &enc,
            info,
            &ciphertext,
            aad,
        )
        .ok()
    }

    #[test]
    fn the_recipient_opens_it_and_only_under_the_same_info_and_aad() {
        let key = Material::copied(b"a key of some algorithm").unwrap();
        let seal_to = |recipient: &Recipient| seal(recipient, b"info", b"aad", &key).unwrap();
        let x_wing = Suite::XWingHkdfSha256Aes256Gcm;
        let p256 = Suite::P256HkdfSha256Aes256Gcm;
        for (info, aad, opens) in [
            (&b"info"[..], &b"aad"[..], true),
            (b"info", b"other", false),
            (b"other", b"aad", false),
        ] {
            let expected = opens.then(|| key.expose().to_vec());
            assert_eq!(opened::<XWing>(x_wing, info, aad, seal_to), expected);
            assert_eq!(opened::<DhP256HkdfSha256>(p256, info, aad, seal_to), expected);
        }
    }

    #[test]
    fn two_answers_for_the_same_recipient_differ() {
        let key = Material::copied(&[1; 32]).unwrap();
        let (_, public) = XWing::gen_keypair_with_rng(&mut LatchedRng::default());
        let suite = Suite::XWingHkdfSha256Aes256Gcm;
        let recipient = Recipient::new(suite, public.to_bytes().to_vec()).unwrap();
        let answer = || seal(&recipient, b"", b"", &key).unwrap();
        let (one, two) = (answer(), answer());
        assert_ne!(one.enc, two.enc);
        assert_ne!(one.ciphertext, two.ciphertext);
    }

    #[test]
    fn a_recipient_key_that_is_no_point_is_refused() {
        let key = Material::copied(&[1; 32]).unwrap();
        let recipient = Recipient::new(Suite::P256HkdfSha256Aes256Gcm, vec![4; 65]).unwrap();
        let refused = seal(&recipient, b"", b"", &key);
        assert_eq!(refused, Err(CryptoError::RecipientKeyInvalid));
    }
}
