//! The caller's side of import and export: key material is sealed before it leaves this machine, and opened
//! after it came here. The forms are those of `kms_core::transfer`.

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey,
};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open,
    single_shot_seal_with_rng,
};
use kms_client::v1;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Seals `material` to the key of an import job.
pub(crate) fn seal(job: &v1::ImportJob, material: &[u8]) -> Result<Vec<u8>, Failure> {
    const UNUSABLE: Failure = Failure::Answer("an import job with a key that cannot be sealed to");
    match job.method() {
        v1::ImportMethod::RsaOaep4096Sha256Aes256Kwp => {
            seal_to_rsa(&job.public_key, material)?.ok_or(UNUSABLE)
        }
        v1::ImportMethod::XWingHkdfSha256Aes256Gcm => {
            seal_to_x_wing(&job.public_key, &info(b"kms-import", &job.name), material)?
                .ok_or(UNUSABLE)
        }
        v1::ImportMethod::Unspecified => {
            Err(Failure::Answer("an import job with a method that is not known here"))
        }
    }
}

/// Opens an exported key with the private key (PKCS#8, DER) that it was sealed to.
pub(crate) fn open_with_rsa(
    private_key: &[u8],
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let refused =
        || Failure::NotAccepted("the wrapped key does not open with this private key".into());
    let key = rsa_private_key(private_key)?;
    let (transport, material) =
        wrapped.split_at_checked(key.key_size_bytes()).ok_or_else(refused)?;
    let key = OaepPrivateDecryptingKey::new(key).map_err(|_| refused())?;
    let mut opened = Zeroizing::new(vec![0; key.min_output_size()]);
    let transport = key
        .decrypt(&OAEP_SHA256_MGF1SHA256, transport, &mut opened, None)
        .map_err(|_| refused())?;
    let kek = AesKek::new(&AES_256, transport).map_err(|_| refused())?;
    let mut plain = Zeroizing::new(vec![0; material.len()]);
    let length = kek.unwrap_with_padding(material, &mut plain).map_err(|_| refused())?.len();
    plain.truncate(length);
    Ok(plain)
}

/// The public half of an RSA private key (PKCS#8, DER), as SubjectPublicKeyInfo.
pub(crate) fn rsa_public_key(private_key: &[u8]) -> Result<Vec<u8>, Failure> {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    let public = rsa_private_key(private_key)?.public_key();
    let der: PublicKeyX509Der<'_> =
        public.as_der().map_err(|_| Failure::Answer("an RSA key without a public half"))?;
    Ok(der.as_ref().to_vec())
}

/// A key pair for one answer (X-Wing), dropped with it.
pub(crate) struct Recipient {
    secret: <XWing as Kem>::PrivateKey,
    public_key: Vec<u8>,
}

impl Recipient {
    pub(crate) fn generate() -> Result<Self, Failure> {
        // Input of DeriveKeyPair (RFC 9180 §7.1.3), as long as the private key.
        let mut seed = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(seed.as_mut()).map_err(|_| Failure::Randomness)?;
        let (secret, public) = XWing::derive_keypair(seed.as_ref());
        Ok(Self { secret, public_key: public.to_bytes().to_vec() })
    }

    /// As the contract has it.
    pub(crate) fn wire(&self) -> v1::HpkeRecipient {
        let suite = kms_core::transcript::Suite::XWingHkdfSha256Aes256Gcm;
        v1::HpkeRecipient { suite: suite.as_str().to_owned(), public_key: self.public_key.clone() }
    }

    /// Opens what was sealed to it.
    pub(crate) fn open(
        &self,
        sealed: &v1::HpkeCiphertext,
        info: &[u8],
        aad: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        const REFUSED: Failure = Failure::Answer("a key that is not sealed to this request");
        let encapsulated = <XWing as Kem>::EncappedKey::from_bytes(&sealed.encapsulated_key)
            .map_err(|_| REFUSED)?;
        let opened = single_shot_open::<AesGcm256, HkdfSha256, XWing>(
            &OpModeR::Base,
            &self.secret,
            &encapsulated,
            info,
            &sealed.ciphertext,
            aad,
        );
        opened.map(Zeroizing::new).map_err(|_| REFUSED)
    }
}

/// `lp(label) || lp(name)`, where `lp` puts the length before as 4 big-endian bytes.
pub(crate) fn info(label: &[u8], name: &str) -> Vec<u8> {
    prefixed(&[label, name.as_bytes()])
}

/// Each part behind its length.
pub(crate) fn prefixed(parts: &[&[u8]]) -> Vec<u8> {
    let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes();
    parts.iter().flat_map(|part| [&length(part)[..], part].concat()).collect()
}

fn rsa_private_key(der: &[u8]) -> Result<PrivateDecryptingKey, Failure> {
    PrivateDecryptingKey::from_pkcs8(der).map_err(|error| Failure::input("private key", error))
}

/// `None` when the public key is none.
fn seal_to_rsa(public_key: &[u8], material: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    let Ok(key) = PublicEncryptingKey::from_der(public_key) else { return Ok(None) };
    // Nothing less than what the contract's name of the method says.
    if key.key_size_bytes() != KeySize::Rsa4096.len() {
        return Ok(None);
    }
    let Ok(key) = OaepPublicEncryptingKey::new(key) else { return Ok(None) };
    let mut transport = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(transport.as_mut()).map_err(|_| Failure::Randomness)?;
    let mut sealed = vec![0; key.ciphertext_size()];
    let wrapped = AesKek::new(&AES_256, transport.as_ref()).and_then(|kek| {
        key.encrypt(&OAEP_SHA256_MGF1SHA256, transport.as_ref(), &mut sealed, None)?;
        let mut wrapped = vec![0; material.len().next_multiple_of(8) + 8];
        let length = kek.wrap_with_padding(material, &mut wrapped)?.len();
        wrapped.truncate(length);
        Ok(wrapped)
    });
    let Ok(mut wrapped) = wrapped else { return Ok(None) };
    sealed.append(&mut wrapped);
    Ok(Some(sealed))
}

/// `None` when the public key is none.
fn seal_to_x_wing(
    public_key: &[u8],
    info: &[u8],
    material: &[u8],
) -> Result<Option<Vec<u8>>, Failure> {
    let Ok(public_key) = <XWing as Kem>::PublicKey::from_bytes(public_key) else { return Ok(None) };
    let mut rng = LatchedRng { failed: false };
    let sealed = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(
        &OpModeS::Base,
        &public_key,
        info,
        material,
        b"",
        &mut rng,
    );
    if rng.failed {
        return Err(Failure::Randomness);
    }
    let Ok((encapsulated, ciphertext)) = sealed else { return Ok(None) };
    Ok(Some([&encapsulated.to_bytes()[..], &ciphertext].concat()))
}

/// The machine's generator, which remembers that it failed: `hpke` takes none that can fail, so the
/// result is thrown away afterwards.
struct LatchedRng {
    failed: bool,
}

impl TryRng for LatchedRng {
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
        self.failed |= aws_lc_rs::rand::fill(bytes).is_err();
        Ok(())
    }
}

impl TryCryptoRng for LatchedRng {}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};

    use super::*;

    fn pkcs8(size: KeySize) -> Vec<u8> {
        let key = PrivateDecryptingKey::generate(size).unwrap();
        let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
        der.as_ref().to_vec()
    }

    fn job(method: v1::ImportMethod, public_key: Vec<u8>) -> v1::ImportJob {
        let name = "tenants/default/locations/local/keyRings/dev/importJobs/i".to_owned();
        v1::ImportJob { name, method: method.into(), public_key, ..Default::default() }
    }

    #[test]
    fn what_is_sealed_to_an_rsa_job_opens_with_its_key_and_no_other() {
        let private = pkcs8(KeySize::Rsa4096);
        let public = rsa_public_key(&private).unwrap();
        let job = job(v1::ImportMethod::RsaOaep4096Sha256Aes256Kwp, public);
        for material in [vec![7; 1], vec![7; 16], vec![7; 33], vec![9; 2400]] {
            let mut sealed = seal(&job, &material).unwrap();
            assert_eq!(*open_with_rsa(&private, &sealed).unwrap(), material);
            assert!(
                !sealed
                    .windows(material.len().min(16))
                    .any(|w| w.len() > 1 && w == &material[..w.len()])
            );
            *sealed.last_mut().unwrap() ^= 1;
            assert_eq!(open_with_rsa(&private, &sealed).unwrap_err().exit_code(), 3);
            assert!(open_with_rsa(&private, &sealed[..100]).is_err());
        }
        let small = rsa_public_key(&pkcs8(KeySize::Rsa3072)).unwrap();
        let weak = v1::ImportJob { public_key: small, ..job };
        assert!(matches!(seal(&weak, b"x"), Err(Failure::Answer(_))));
    }

    #[test]
    fn what_is_sealed_to_an_x_wing_job_opens_with_its_key_under_its_name() {
        let recipient = Recipient::generate().unwrap();
        let mut job = job(v1::ImportMethod::XWingHkdfSha256Aes256Gcm, recipient.public_key.clone());
        let sealed = seal(&job, b"the key").unwrap();
        let (enc, ciphertext) = sealed.split_at(X_WING_ENCAPSULATED_BYTES);
        let parts =
            v1::HpkeCiphertext { encapsulated_key: enc.to_vec(), ciphertext: ciphertext.to_vec() };
        let name = kms_core::transfer::ImportJobName {
            ring: kms_core::id::RingName::parse(
                job.name.split_once("/importJobs/").unwrap().0,
                &kms_core::id::Home {
                    tenant: "default".parse().unwrap(),
                    region: "local".parse().unwrap(),
                },
            )
            .unwrap(),
            id: "i".parse().unwrap(),
        };
        let expected = kms_core::transfer::import_info(&name);
        assert_eq!(*recipient.open(&parts, &expected, b"").unwrap(), b"the key");
        assert!(recipient.open(&parts, &info(b"kms-import", "other"), b"").is_err());
        assert!(Recipient::generate().unwrap().open(&parts, &expected, b"").is_err());
        job.public_key.pop();
        assert!(matches!(seal(&job, b"x"), Err(Failure::Answer(_))));
        job.set_method(v1::ImportMethod::Unspecified);
        assert!(matches!(seal(&job, b"x"), Err(Failure::Answer(_))));
    }

    const X_WING_ENCAPSULATED_BYTES: usize = 1120;
}
