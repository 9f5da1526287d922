//! Moving: keys out under other keys, ciphertexts from one key to another, data keys.
//!
//! A data key leaves in the clear to nobody. Whoever wants it at once names a recipient key, and gets it
//! sealed as in [`crate::release`], with
//!
//! ```text
//! info      = kms_core::transcript::data_key_info(version)
//! aad       = kms_core::transcript::data_key_aad(IV, ciphertext of the wrapped data key)
//! plaintext = the raw bytes of the data key
//! ```

use kms_core::action::Action;
use kms_core::algorithm::{GENERIC_SECRET_BYTES_MAX, Usage};
use kms_core::id::Digest;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Recorded;
use kms_core::transcript::{Recipient, data_key_aad, data_key_info};
use zeroize::Zeroizing;

use super::uses::{check_usage, resource, spend, spend_both};
use super::{Sealed, Vault, VersionRef};
use crate::CryptoError;
use crate::material::Material;
use crate::provider::CipherParameters;
use crate::release::{self, SealedAnswer};

/// A ciphertext with all that it takes to open it, but the key.
#[derive(Clone, Copy, Debug)]
pub struct Ciphertext<'a> {
    /// How it was made.
    pub mechanism: Mechanism,
    /// Its IV; empty where the mechanism takes none.
    pub iv: &'a [u8],
    /// What is authenticated with it, or the label of OAEP.
    pub aad: &'a [u8],
    /// The ciphertext itself.
    pub ciphertext: &'a [u8],
}

/// A key for the caller's own use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DataKey {
    /// The key, encrypted under the version; `Decrypt` opens it.
    pub wrapped: Sealed,
    /// The key, sealed to the recipient that was named, if one was.
    pub plaintext: Option<SealedAnswer>,
}

/// What moves keys and ciphertexts. All give what the uses on data give.
impl Vault {
    /// Moves a ciphertext to another key, or to another mechanism of the same, without showing what is in
    /// it. Spends a permit for [`Action::ReEncrypt`] and [`Action::Encrypt`].
    ///
    /// # Errors
    /// See above, and [`CryptoError::CiphertextRefused`].
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing that the ciphertext depends on"
    )]
    pub fn re_encrypt(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        source: Ciphertext<'_>,
        to: VersionRef<'_>,
        to_mechanism: Mechanism,
        to_aad: &[u8],
    ) -> Result<Sealed, CryptoError> {
        let deed = (Action::ReEncrypt, &resource(version));
        let _spent = spend_both(recorded, deed, (Action::Encrypt, &resource(to)), request_digest)?;
        let Ciphertext { mechanism, iv, aad, ciphertext } = source;
        self.admit(version.header, Usage::Decrypt, mechanism)?;
        self.admit(to.header, Usage::Encrypt, to_mechanism)?;
        let parameters = CipherParameters { iv, aad };
        let plaintext =
            Zeroizing::new(self.decrypt_with(version, mechanism, parameters, ciphertext)?);
        self.encrypt_with(to, to_mechanism, None, to_aad, &plaintext)
    }

    /// Makes a random key of [`DATA_KEY_BYTES_MIN`] to [`DATA_KEY_BYTES_MAX`] bytes for the caller's own
    /// use, encrypted under this version, and sealed to `recipient` if one is named.
    ///
    /// # Errors
    /// See above, [`CryptoError::InputRefused`] for another length, and
    /// [`CryptoError::RecipientKeyInvalid`].
    #[expect(clippy::too_many_arguments, reason = "each is one thing that the answer depends on")]
    pub fn data_key(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        mechanism: Mechanism,
        aad: &[u8],
        length_bytes: usize,
        recipient: Option<&Recipient>,
    ) -> Result<DataKey, CryptoError> {
        let _spent = spend(recorded, Action::GenerateDataKey, &resource(version), request_digest)?;
        self.admit(version.header, Usage::Encrypt, mechanism)?;
        if !(DATA_KEY_BYTES_MIN..=DATA_KEY_BYTES_MAX).contains(&length_bytes) {
            let problem = "a data key has 16 to 512 bytes";
            return Err(CryptoError::InputRefused { problem });
        }
        let key = Material::random(length_bytes)?;
        let wrapped = self.encrypt_with(version, mechanism, None, aad, key.expose())?;
        let plaintext = recipient
            .map(|recipient| {
                let info = data_key_info(&version.header.version);
                let aad = data_key_aad(&wrapped.iv, &wrapped.ciphertext);
                release::seal(recipient, &info, &aad, &key)
            })
            .transpose()?;
        Ok(DataKey { wrapped, plaintext })
    }

    /// Protects `target` with this version. Spends a permit for [`Action::WrapKey`] and, on the target,
    /// [`Action::ExportKeyVersion`].
    ///
    /// # Errors
    /// See above, [`CryptoError::NotExportable`], and [`CryptoError::InputRefused`] for a target that the
    /// mechanism cannot take.
    pub fn wrap(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        mechanism: Mechanism,
        aad: &[u8],
        target: VersionRef<'_>,
    ) -> Result<Sealed, CryptoError> {
        let deed = (Action::WrapKey, &resource(version));
        let other = (Action::ExportKeyVersion, &resource(target));
        let _spent = spend_both(recorded, deed, other, request_digest)?;
        self.admit(version.header, Usage::Wrap, mechanism)?;
        check_usage(target.header, Usage::Export)?;
        if !target.header.exportable {
            return Err(CryptoError::NotExportable);
        }
        let (by, of) = (version.header, target.header);
        let keeps = of.version.key.ring == by.version.key.ring
            && (of.quorum_digest.is_none() || of.quorum_digest == by.quorum_digest)
            && (of.model.is_empty() || of.model == by.model)
            && (of.dataset.is_empty() || of.dataset == by.dataset);
        // What comes back is guarded as the wrapping key is, and a key that wraps itself comes back with
        // a past of its own.
        if !keeps || of.lineage == by.lineage {
            return Err(CryptoError::ProtectionLost);
        }
        let target = self.open(target)?;
        match mechanism {
            Mechanism::AesKw | Mechanism::AesKwp => {
                let ciphertext = self.provider().wrap(mechanism, &self.open(version)?, &target)?;
                Ok(Sealed { iv: Vec::new(), ciphertext })
            }
            _ => self.encrypt_with(version, mechanism, None, aad, target.expose()),
        }
    }
}

/// Shortest data key, in bytes.
pub const DATA_KEY_BYTES_MIN: usize = 16;
/// Longest data key, in bytes.
pub const DATA_KEY_BYTES_MAX: usize = GENERIC_SECRET_BYTES_MAX;
