//! Keys that come from outside, and keys that leave under a quorum. The forms on the way are those of
//! `kms_core::transfer`.
//!
//! Taking a key in spends no permit: until the daemon has committed the row that this makes, together with
//! the leaf that tells of it, nobody can use what came in. Handing one out spends one.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, OpModeR, single_shot_open};
use kms_core::action::Action;
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::id::Digest;
use kms_core::key::SealHeader;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Recorded;
use kms_core::transcript::Recipient;
use kms_core::transfer::{
    EXPORT_RSA_BITS_MIN, ImportJobName, ImportMethod, export_info, import_info,
};
use zeroize::Zeroizing;

use super::uses::{resource, spend};
use super::{Generated, SlotSecret, Vault, VersionRef};
use crate::CryptoError;
use crate::kdf;
use crate::material::Material;
use crate::provider::{CipherParameters, NewKey};
use crate::release;
use crate::stack::wiping;
use crate::wrap;

/// An import job as the store holds it.
#[derive(Clone, Copy, Debug)]
pub struct ImportJobRef<'a> {
    /// Its name.
    pub name: &'a ImportJobName,
    /// How material is sealed to it.
    pub method: ImportMethod,
    /// The wrapped private key.
    pub sealed: &'a [u8],
}

/// Material from outside, opened and not yet believed to be a key. It is not printed and not copied.
pub struct Incoming(Material);

impl Incoming {
    /// Its length in bytes.
    pub fn length_bytes(&self) -> usize {
        self.0.len()
    }
}

/// Whom an exported key is sealed to.
#[derive(Clone, Copy, Debug)]
pub enum ExportTo<'a> {
    /// HPKE (RFC 9180).
    Hpke(&'a Recipient),
    /// RSA-OAEP and AES-KWP (CKM_RSA_AES_KEY_WRAP), to this SubjectPublicKeyInfo.
    RsaAesKeyWrap(&'a [u8]),
}

/// Import and export.
impl Vault {
    /// Makes the key pair of an import job, its private half wrapped under the ring.
    ///
    /// # Errors
    /// [`CryptoError::RingClosed`], or those of the provider.
    pub fn create_import_job(
        &self,
        name: &ImportJobName,
        method: ImportMethod,
    ) -> Result<Generated, CryptoError> {
        let wrapping_key = self.import_wrapping_key(name)?;
        let NewKey { material, public_key } = self.generate_key(algorithm(method)?, 0)?;
        Ok(Generated { sealed: wrap::wrap(&wrapping_key, &material)?, public_key })
    }

    /// Opens what somebody sealed to an import job.
    ///
    /// # Errors
    /// [`CryptoError::WrapRefused`] when the job was edited, [`CryptoError::CiphertextRefused`] for
    /// anything that is not sealed to it; why is not told.
    pub fn open_import(
        &self,
        job: ImportJobRef<'_>,
        ciphertext: &[u8],
    ) -> Result<Incoming, CryptoError> {
        let private = wrap::unwrap(&self.import_wrapping_key(job.name)?, job.sealed)?;
        match job.method {
            ImportMethod::RsaOaep4096Sha256Aes256Kwp => {
                self.tests.ensure(Mechanism::RsaOaepSha256)?;
                let (wrapped_key, wrapped) = ciphertext
                    .split_at_checked(RSA_4096_BYTES)
                    .ok_or(CryptoError::CiphertextRefused)?;
                let parameters = CipherParameters::default();
                let transport = self
                    .provider()
                    .private_key(Algorithm::Rsa4096, &private)?
                    .decrypt(Mechanism::RsaOaepSha256, parameters, wrapped_key)?;
                if transport.len() != AES_256_BYTES {
                    return Err(CryptoError::CiphertextRefused);
                }
                self.provider().unwrap(Mechanism::AesKwp, &transport, wrapped).map(Incoming)
            }
            ImportMethod::XWingHkdfSha256Aes256Gcm => {
                let info = import_info(job.name);
                wiping(|| open_hpke(&private, &info, ciphertext)).map(Incoming)
            }
            // A method that this file does not know has made no job.
            _ => Err(CryptoError::CiphertextRefused),
        }
    }

    /// Checks that `incoming` is a whole and valid key as `header` describes it, and seals it as that
    /// version.
    ///
    /// # Errors
    /// [`CryptoError::MaterialRefused`] when it is not; [`CryptoError::RingClosed`].
    pub fn seal_incoming(
        &self,
        incoming: &Incoming,
        header: &SealHeader,
        slot: &SlotSecret,
    ) -> Result<Generated, CryptoError> {
        let key = self.provider().import(header.algorithm, &incoming.0)?;
        self.seal_version(header, slot, &key)
    }

    /// Checks a public key that comes without its private half.
    ///
    /// # Errors
    /// [`CryptoError::PublicKeyInvalid`].
    pub fn check_public_key(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
    ) -> Result<(), CryptoError> {
        self.provider().check_public_key(algorithm, public_key)
    }

    /// Hands a version out, sealed to `to`. Spends a permit for [`Action::ExportKeyVersion`].
    ///
    /// # Errors
    /// [`CryptoError::PermitMismatch`], [`CryptoError::NotExportable`] when the sealed header says so,
    /// [`CryptoError::RecipientKeyInvalid`], [`CryptoError::VersionUnreadable`].
    pub fn export(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        to: ExportTo<'_>,
    ) -> Result<Vec<u8>, CryptoError> {
        let action = Action::ExportKeyVersion;
        let _spent = spend(recorded, action, &resource(version), request_digest)?;
        let header = version.header;
        // The rules have seen the key's row; the sealing has the last word.
        if !header.exportable || !header.usages.contains(&Usage::Export) {
            return Err(CryptoError::NotExportable);
        }
        let key = self.open(version)?;
        match to {
            ExportTo::Hpke(recipient) => {
                let info = export_info(&header.version);
                let answer = release::seal(recipient, &info, b"", &key)?;
                Ok([answer.enc, answer.ciphertext].concat())
            }
            ExportTo::RsaAesKeyWrap(public_key) => self.rsa_aes_key_wrap(public_key, &key),
        }
    }

    /// What kind of RSA key the recipient of an export has, if it is one that keys are sealed to.
    ///
    /// # Errors
    /// [`CryptoError::RecipientKeyInvalid`].
    pub fn check_export_recipient(&self, public_key: &[u8]) -> Result<Algorithm, CryptoError> {
        [Algorithm::Rsa3072, Algorithm::Rsa4096]
            .into_iter()
            .filter(|algorithm| algorithm.bits() >= EXPORT_RSA_BITS_MIN)
            .find(|algorithm| self.provider().check_public_key(*algorithm, public_key).is_ok())
            .ok_or(CryptoError::RecipientKeyInvalid)
    }

    fn rsa_aes_key_wrap(&self, public_key: &[u8], key: &Material) -> Result<Vec<u8>, CryptoError> {
        let algorithm = self.check_export_recipient(public_key)?;
        self.tests.ensure(Mechanism::RsaOaepSha256)?;
        let transport = Material::random(AES_256_BYTES)?;
        let wrapped_key = self.provider().public_encrypt(
            algorithm,
            Mechanism::RsaOaepSha256,
            public_key,
            CipherParameters::default(),
            transport.expose(),
        )?;
        let wrapped = self.provider().wrap(Mechanism::AesKwp, &transport, key)?;
        Ok([wrapped_key, wrapped].concat())
    }

    fn import_wrapping_key(&self, name: &ImportJobName) -> Result<Material, CryptoError> {
        let opened = self.opened()?;
        let closed = || CryptoError::RingClosed { ring: name.ring.clone() };
        let parent = opened.rings.get(&name.ring).ok_or_else(closed)?;
        kdf::derive(parent, b"", "kms-import-job", name.to_string().as_bytes())
    }
}

fn algorithm(method: ImportMethod) -> Result<Algorithm, CryptoError> {
    match method {
        ImportMethod::RsaOaep4096Sha256Aes256Kwp => Ok(Algorithm::Rsa4096),
        ImportMethod::XWingHkdfSha256Aes256Gcm => Ok(Algorithm::XWing),
        _ => Err(CryptoError::MaterialRefused),
    }
}

fn open_hpke(private: &Material, info: &[u8], sealed: &[u8]) -> Result<Material, CryptoError> {
    let refused = |_| CryptoError::CiphertextRefused;
    type PrivateKey = <XWing as hpke::Kem>::PrivateKey;
    type EncappedKey = <XWing as hpke::Kem>::EncappedKey;
    let key = PrivateKey::from_bytes(private.expose()).map_err(refused)?;
    let (enc, ciphertext) =
        sealed.split_at_checked(XWING_ENC_BYTES).ok_or(CryptoError::CiphertextRefused)?;
    let enc = EncappedKey::from_bytes(enc).map_err(refused)?;
    let opened = single_shot_open::<AesGcm256, HkdfSha256, XWing>(
        &OpModeR::Base,
        &key,
        &enc,
        info,
        ciphertext,
        b"",
    );
    let mut opened = Zeroizing::new(opened.map_err(refused)?);
    Material::import(&mut opened)
}

const AES_256_BYTES: usize = 32;
const RSA_4096_BYTES: usize = 512;
/// Length of X-Wing's encapsulated key.
const XWING_ENC_BYTES: usize = 1120;
