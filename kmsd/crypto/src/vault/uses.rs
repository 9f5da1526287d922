//! The uses of a key on data, and the one place where a permit is compared with the deed.
//!
//! A use spends its permit first, opens the key for one call, and returns. The daemon's `ops` are the
//! callers; the hierarchy that keys are opened from is in the parent module.

use std::sync::Arc;

use kms_core::action::Action;
use kms_core::algorithm::Usage;
use kms_core::id::{Digest, OperationId, Resource};
use kms_core::key::SealHeader;
use kms_core::mechanism::{Hash, Mechanism};
use kms_core::permit::{Recorded, Spent};
use kms_core::transcript::answer_aad;

use super::opened::{Entry, OpenedKey};
use super::{Vault, VersionRef};
use crate::CryptoError;
use crate::material::Material;
use crate::mechanism::{cipher, mac};
use crate::provider::{CipherParameters, PrivateKey, SignInput};
use crate::random;
use crate::release::{self, SealedAnswer};
use crate::wrap;

/// What encryption gives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// The IV that was drawn for it or handed in; empty where the mechanism takes none.
    pub iv: Vec<u8>,
    /// The ciphertext, with the tag behind it where there is one.
    pub ciphertext: Vec<u8>,
}

/// The uses of keys on data. Each spends a permit.
///
/// All give [`CryptoError::PermitMismatch`] when the permit is for something else,
/// [`CryptoError::UsageRefused`] and [`CryptoError::MechanismRefused`] when the sealed header does not
/// offer the use or not in this way, [`CryptoError::SelfTest`] in the error state,
/// [`CryptoError::RingClosed`] and [`CryptoError::VersionUnreadable`] when the key does not open, and the
/// errors of the [`crate::provider::Provider`].
impl Vault {
    /// Makes a signature; DER for ECDSA. `context` is that of ML-DSA and SLH-DSA, otherwise empty.
    ///
    /// # Errors
    /// See above.
    pub fn sign(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        mechanism: Mechanism,
        input: SignInput<'_>,
        context: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let deed = (Action::Sign, Usage::Sign, mechanism);
        let key = self.spend_and_open(recorded, deed, request_digest, version)?;
        private(&key, version)?.sign(mechanism, input, context)
    }

    /// Checks a signature with the public key. Opens no key.
    ///
    /// # Errors
    /// See above, and [`CryptoError::PublicKeyInvalid`].
    #[expect(clippy::too_many_arguments, reason = "each is one thing that the check depends on")]
    pub fn verify(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        mechanism: Mechanism,
        input: SignInput<'_>,
        context: &[u8],
        signature: &[u8],
    ) -> Result<bool, CryptoError> {
        let header = version.header;
        let _spent = spend(recorded, Action::Verify, &resource(version), request_digest)?;
        self.admit(header, Usage::Verify, mechanism)?;
        let public_key = version.public_key;
        self.provider().verify(header.algorithm, mechanism, public_key, input, context, signature)
    }

    /// Encrypts. Without an IV the vault draws one; one that is handed in has been found permissible by
    /// the caller, which has also counted this use against the key's bound. With an RSA key the public
    /// half encrypts, `aad` is the label of OAEP and there is no IV.
    ///
    /// # Errors
    /// See above, and [`CryptoError::InputRefused`].
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing that goes into the ciphertext"
    )]
    pub fn encrypt(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        mechanism: Mechanism,
        iv: Option<&[u8]>,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, CryptoError> {
        let _spent = spend(recorded, Action::Encrypt, &resource(version), request_digest)?;
        self.admit(version.header, Usage::Encrypt, mechanism)?;
        self.encrypt_with(version, mechanism, iv, aad, plaintext)
    }

    /// Decrypts. With an RSA key `iv` is empty and `aad` is the label of OAEP.
    ///
    /// # Errors
    /// See above, and [`CryptoError::CiphertextRefused`].
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing that the plaintext depends on"
    )]
    pub fn decrypt(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        mechanism: Mechanism,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let _spent = spend(recorded, Action::Decrypt, &resource(version), request_digest)?;
        self.admit(version.header, Usage::Decrypt, mechanism)?;
        self.decrypt_with(version, mechanism, CipherParameters { iv, aad }, ciphertext)
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
        mechanism: Mechanism,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let deed = (Action::MacSign, Usage::MacSign, mechanism);
        let key = self.spend_and_open(recorded, deed, request_digest, version)?;
        self.provider().mac(mechanism, secret(&key, version)?, message)
    }

    /// Checks a message authentication code, whole and in constant time.
    ///
    /// # Errors
    /// See above.
    pub fn mac_verify(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        mechanism: Mechanism,
        message: &[u8],
        tag: &[u8],
    ) -> Result<bool, CryptoError> {
        let deed = (Action::MacVerify, Usage::MacVerify, mechanism);
        let key = self.spend_and_open(recorded, deed, request_digest, version)?;
        Ok(mac::tags_match(&self.provider().mac(mechanism, secret(&key, version)?, message)?, tag))
    }

    /// Hashes. `resource` is the one that the permit names.
    ///
    /// # Errors
    /// [`CryptoError::PermitMismatch`] or [`CryptoError::SelfTest`].
    pub fn digest(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        resource: &Resource,
        hash: Hash,
        data: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let _spent = spend(recorded, Action::Digest, resource, request_digest)?;
        self.tests.ensure_hash(hash)?;
        Ok(self.provider().digest(hash, data))
    }

    /// Random bytes for the caller. `resource` is the one that the permit names.
    ///
    /// # Errors
    /// [`CryptoError::PermitMismatch`], [`CryptoError::SelfTest`], [`CryptoError::RandomTooLong`] or
    /// [`CryptoError::RandomFailed`].
    pub fn random(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        resource: &Resource,
        length: usize,
    ) -> Result<Vec<u8>, CryptoError> {
        let _spent = spend(recorded, Action::GenerateRandom, resource, request_digest)?;
        self.tests.state()?;
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
        let spent = spend(recorded, Action::ReleaseKey, &resource(version), request_digest)?;
        let evidence = spent.evidence().ok_or(CryptoError::NoRecipient)?;
        // The rules have compared these; the sealing is compared again, as the last word.
        if header.requirement_digest != Some(evidence.policy_digest()) {
            return Err(CryptoError::NotReleasable);
        }
        let claims = evidence.claims();
        let aad = answer_aad(&header.version, &evidence.policy_digest(), operation_id);
        self.tests.state()?;
        check_usage(header, Usage::Release)?;
        let key = self.open(version)?;
        release::seal(claims.recipient(), claims.transcript().as_bytes(), &aad, &key)
    }
}

/// What the uses are made of. Permits are spent before any of it.
impl Vault {
    fn spend_and_open(
        &self,
        recorded: Recorded,
        (action, usage, mechanism): (Action, Usage, Mechanism),
        request_digest: &Digest,
        version: VersionRef<'_>,
    ) -> Result<Arc<Entry>, CryptoError> {
        let _spent = spend(recorded, action, &resource(version), request_digest)?;
        self.admit(version.header, usage, mechanism)?;
        self.open_for_long(version)
    }

    /// Opens the key of a version, and keeps it open while it is in use. Whoever calls has compared a
    /// permit and the header's uses.
    fn open_for_long(&self, version: VersionRef<'_>) -> Result<Arc<Entry>, CryptoError> {
        let algorithm = version.header.algorithm;
        self.keys.find_or(version, || {
            let key = self.open(version)?;
            if algorithm.is_asymmetric() {
                return Ok(OpenedKey::Private(self.provider().private_key(algorithm, &key)?));
            }
            Ok(OpenedKey::Secret(key))
        })
    }

    /// Whether the sealed header permits the use in this way, and the mechanism has passed its
    /// self-test.
    pub(super) fn admit(
        &self,
        header: &SealHeader,
        usage: Usage,
        mechanism: Mechanism,
    ) -> Result<(), CryptoError> {
        check_usage(header, usage)?;
        check_mechanism(header, usage, mechanism)?;
        Ok(self.tests.ensure(mechanism)?)
    }

    /// Opens the key of a version. Whoever calls has compared a permit and the header's uses.
    pub(super) fn open(&self, version: VersionRef<'_>) -> Result<Material, CryptoError> {
        let VersionRef { header, slot, sealed, public_key: _ } = version;
        let wrapping_key = self.version_wrapping_key(header, slot)?;
        wrap::unwrap(&wrapping_key, sealed).map_err(|error| match error {
            CryptoError::WrapRefused => {
                CryptoError::VersionUnreadable { version: header.version.clone() }
            }
            other => other,
        })
    }

    pub(super) fn encrypt_with(
        &self,
        version: VersionRef<'_>,
        mechanism: Mechanism,
        iv: Option<&[u8]>,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, CryptoError> {
        let header = version.header;
        let iv = drawn_or_given(mechanism, iv)?;
        let parameters = CipherParameters { iv: &iv, aad };
        let ciphertext = if header.algorithm.is_asymmetric() {
            let (algorithm, public_key) = (header.algorithm, version.public_key);
            self.provider()
                .public_encrypt(algorithm, mechanism, public_key, parameters, plaintext)?
        } else {
            let key = self.open_for_long(version)?;
            self.provider().encrypt(mechanism, secret(&key, version)?, parameters, plaintext)?
        };
        Ok(Sealed { iv, ciphertext })
    }

    pub(super) fn decrypt_with(
        &self,
        version: VersionRef<'_>,
        mechanism: Mechanism,
        parameters: CipherParameters<'_>,
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let algorithm = version.header.algorithm;
        if !algorithm.is_asymmetric() {
            let key = self.open_for_long(version)?;
            let key = secret(&key, version)?;
            return self.provider().decrypt(mechanism, key, parameters, ciphertext);
        }
        if !parameters.iv.is_empty() {
            return Err(NO_IV);
        }
        let key = self.open_for_long(version)?;
        let plaintext = private(&key, version)?.decrypt(mechanism, parameters, ciphertext)?;
        Ok(plaintext.expose().to_vec())
    }
}

/// The secret that was opened. A header says which kind of key it is, so another kind is our own bug.
fn secret<'a>(entry: &'a Entry, version: VersionRef<'_>) -> Result<&'a Material, CryptoError> {
    match entry.key() {
        OpenedKey::Secret(key) => Ok(key),
        OpenedKey::Private(_) => {
            Err(CryptoError::ProviderFailed { algorithm: version.header.algorithm })
        }
    }
}

/// The private key that was opened.
fn private<'a>(
    entry: &'a Entry,
    version: VersionRef<'_>,
) -> Result<&'a dyn PrivateKey, CryptoError> {
    match entry.key() {
        OpenedKey::Private(key) => Ok(key.as_ref()),
        OpenedKey::Secret(_) => Err(CryptoError::UsageRefused {
            algorithm: version.header.algorithm,
            usage: Usage::Sign,
        }),
    }
}

fn drawn_or_given(mechanism: Mechanism, iv: Option<&[u8]>) -> Result<Vec<u8>, CryptoError> {
    match (cipher::iv_bytes(mechanism), iv) {
        (None, None | Some([])) => Ok(Vec::new()),
        (None, Some(_)) => Err(NO_IV),
        (Some(_), Some(iv)) => Ok(iv.to_vec()),
        (Some(length), None) => {
            let mut iv = vec![0; length];
            random::fill(&mut iv)?;
            Ok(iv)
        }
    }
}

const NO_IV: CryptoError = CryptoError::InputRefused { problem: "this mechanism takes no IV" };

pub(super) fn resource(version: VersionRef<'_>) -> Resource {
    Resource::Version(version.header.version.clone())
}

/// The one place where a permit is compared with what is about to be done; with [`spend_both`] for
/// deeds that touch two things.
pub(super) fn spend(
    recorded: Recorded,
    action: Action,
    resource: &Resource,
    request_digest: &Digest,
) -> Result<Spent, CryptoError> {
    Ok(recorded.spend(action, resource, request_digest)?)
}

pub(super) fn spend_both(
    recorded: Recorded,
    (action, resource): (Action, &Resource),
    (other_action, other_resource): (Action, &Resource),
    request_digest: &Digest,
) -> Result<Spent, CryptoError> {
    let other = (other_action, other_resource);
    Ok(recorded.spend_both((action, resource), other, request_digest)?)
}

/// Whether the key was sealed for this use.
pub(super) fn check_usage(header: &SealHeader, usage: Usage) -> Result<(), CryptoError> {
    let algorithm = header.algorithm;
    if algorithm.supports(usage) && header.usages.contains(&usage) {
        Ok(())
    } else {
        Err(CryptoError::UsageRefused { algorithm, usage })
    }
}

/// Whether the key was sealed for this mechanism, and it is one for this use and this algorithm.
fn check_mechanism(
    header: &SealHeader,
    usage: Usage,
    mechanism: Mechanism,
) -> Result<(), CryptoError> {
    let algorithm = header.algorithm;
    let permitted = header.mechanisms.contains(&mechanism)
        && algorithm.mechanisms().contains(&mechanism)
        && mechanism.offers(usage);
    if permitted { Ok(()) } else { Err(CryptoError::MechanismRefused { algorithm, mechanism }) }
}

/// Most random bytes that one call gives.
pub const RANDOM_BYTES_MAX: usize = 1024 * 1024;
