//! Every use of a key, and the one place where a permit is compared with the deed.
//!
//! A use spends its permit first, opens the key for one call, and returns. The daemon's `ops` are the
//! callers; the hierarchy that keys are opened from is in the parent module.

use kms_core::action::Action;
use kms_core::algorithm::Usage;
use kms_core::id::{Digest, OperationId, Resource};
use kms_core::key::SealHeader;
use kms_core::permit::{Recorded, Spent};
use kms_core::transcript::answer_aad;

use super::{Vault, VersionRef};
use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::aes_gcm::{IV_BYTES, Sealed};
use crate::mechanism::hmac::TAG_BYTES;
use crate::provider::SignInput;
use crate::random;
use crate::release::{self, SealedAnswer};
use crate::wrap;

/// The uses of keys. Each spends a permit.
///
/// All give [`CryptoError::PermitMismatch`] when the permit is for something else,
/// [`CryptoError::UsageRefused`] when the sealed header does not offer the use,
/// [`CryptoError::RingClosed`] and [`CryptoError::VersionUnreadable`] when the key does not open.
impl Vault {
    /// Makes a signature; DER for ECDSA.
    ///
    /// # Errors
    /// See above.
    pub fn sign(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        input: SignInput<'_>,
    ) -> Result<Vec<u8>, CryptoError> {
        let key =
            self.spend_and_open(recorded, Action::Sign, Usage::Sign, request_digest, version)?;
        self.provider.sign(version.header.algorithm, &key, input)
    }

    /// Checks a signature with the public key. Opens no key.
    ///
    /// # Errors
    /// See above, and [`CryptoError::PublicKeyInvalid`].
    pub fn verify(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        input: SignInput<'_>,
        signature: &[u8],
    ) -> Result<bool, CryptoError> {
        let header = version.header;
        let resource = Resource::Version(header.version.clone());
        let _spent = spend(recorded, Action::Verify, &resource, request_digest)?;
        check_usage(header, Usage::Verify)?;
        self.provider.verify(header.algorithm, version.public_key, input, signature)
    }

    /// Encrypts under a fresh IV. The caller has counted this use against the key's bound.
    ///
    /// # Errors
    /// See above.
    pub fn encrypt(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        plaintext: &[u8],
        aad: &[u8],
    ) -> Result<Sealed, CryptoError> {
        let key = self.spend_and_open(
            recorded,
            Action::Encrypt,
            Usage::Encrypt,
            request_digest,
            version,
        )?;
        self.provider.seal(&key, aad, plaintext)
    }

    /// Decrypts.
    ///
    /// # Errors
    /// See above, and [`CryptoError::CiphertextRefused`].
    pub fn decrypt(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        iv: &[u8; IV_BYTES],
        ciphertext: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let key = self.spend_and_open(
            recorded,
            Action::Decrypt,
            Usage::Decrypt,
            request_digest,
            version,
        )?;
        self.provider.open(&key, iv, aad, ciphertext)
    }

    /// Makes a message authentication code.
    ///
    /// # Errors
    /// See above.
    pub fn mac_sign(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        message: &[u8],
    ) -> Result<[u8; TAG_BYTES], CryptoError> {
        let key = self.spend_and_open(
            recorded,
            Action::MacSign,
            Usage::MacSign,
            request_digest,
            version,
        )?;
        self.provider.mac(&key, message)
    }

    /// Checks a message authentication code, in constant time.
    ///
    /// # Errors
    /// See above.
    pub fn mac_verify(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        message: &[u8],
        tag: &[u8],
    ) -> Result<bool, CryptoError> {
        let (action, usage) = (Action::MacVerify, Usage::MacVerify);
        let key = self.spend_and_open(recorded, action, usage, request_digest, version)?;
        self.provider.mac_verify(&key, message, tag)
    }

    /// Random bytes for the caller. `resource` is the one that the permit names.
    ///
    /// # Errors
    /// [`CryptoError::PermitMismatch`], [`CryptoError::RandomTooLong`] or
    /// [`CryptoError::RandomFailed`].
    pub fn random(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        resource: &Resource,
        length: usize,
    ) -> Result<Vec<u8>, CryptoError> {
        let _spent = spend(recorded, Action::GenerateRandom, resource, request_digest)?;
        if length > RANDOM_BYTES_MAX {
            return Err(CryptoError::RandomTooLong { max: RANDOM_BYTES_MAX });
        }
        let mut bytes = vec![0; length];
        random::fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Seals the key itself to the recipient that the evidence vouches for; see [`crate::release`].
    /// There is no parameter for a recipient: it comes out of the spent permit's claims.
    ///
    /// # Errors
    /// See above, [`CryptoError::NoRecipient`], [`CryptoError::NotReleasable`] and
    /// [`CryptoError::RecipientKeyInvalid`].
    pub fn release(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        operation_id: &OperationId,
    ) -> Result<SealedAnswer, CryptoError> {
        let header = version.header;
        let resource = Resource::Version(header.version.clone());
        let spent = spend(recorded, Action::ReleaseKey, &resource, request_digest)?;
        let evidence = spent.evidence().ok_or(CryptoError::NoRecipient)?;
        // The rules have compared these; the sealing is compared again, as the last word.
        if header.requirement_digest != Some(evidence.policy_digest()) {
            return Err(CryptoError::NotReleasable);
        }
        let claims = evidence.claims();
        let aad = answer_aad(&header.version, &evidence.policy_digest(), operation_id);
        let key = self.open(Usage::Release, version)?;
        release::seal(claims.recipient(), claims.transcript().as_bytes(), &aad, &key)
    }

    fn spend_and_open(
        &self,
        recorded: Recorded,
        action: Action,
        usage: Usage,
        request_digest: &Digest,
        version: VersionRef<'_>,
    ) -> Result<Material, CryptoError> {
        let resource = Resource::Version(version.header.version.clone());
        let _spent = spend(recorded, action, &resource, request_digest)?;
        self.open(usage, version)
    }

    fn open(&self, usage: Usage, version: VersionRef<'_>) -> Result<Material, CryptoError> {
        let VersionRef { header, slot, sealed, public_key: _ } = version;
        check_usage(header, usage)?;
        let wrapping_key = self.version_wrapping_key(header, slot)?;
        wrap::unwrap(&wrapping_key, sealed).map_err(|error| match error {
            CryptoError::WrapRefused => {
                CryptoError::VersionUnreadable { version: header.version.clone() }
            }
            other => other,
        })
    }
}

/// The one place where a permit is compared with what is about to be done.
fn spend(
    recorded: Recorded,
    action: Action,
    resource: &Resource,
    request_digest: &Digest,
) -> Result<Spent, CryptoError> {
    Ok(recorded.spend(action, resource, request_digest)?)
}

fn check_usage(header: &SealHeader, usage: Usage) -> Result<(), CryptoError> {
    let algorithm = header.algorithm;
    if algorithm.supports(usage) && header.usages.contains(&usage) {
        Ok(())
    } else {
        Err(CryptoError::UsageRefused { algorithm, usage })
    }
}

/// Most random bytes that one call gives.
pub const RANDOM_BYTES_MAX: usize = 1024 * 1024;
