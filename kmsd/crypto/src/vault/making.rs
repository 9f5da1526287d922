//! Making a version out of another: unwrap, derive, agree, encapsulate, decapsulate, copy.
//!
//! Each spends a permit for two things: the use of the version that is there, and the creation of the key
//! that is made. The new version goes the way of every import, so it is validated, and is sealed under its
//! own header and slot. What guards the old one guards the new one; the rules see to that, and what can be
//! seen here is compared again.

use kms_core::action::Action;
use kms_core::algorithm::{KeyKind, Usage};
use kms_core::id::{Digest, Resource};
use kms_core::key::SealHeader;
use kms_core::mechanism::Mechanism;
use kms_core::permit::Recorded;

use super::uses::{resource, spend_both};
use super::{Generated, SlotSecret, Vault, VersionRef};
use crate::CryptoError;
use crate::material::Material;
use crate::provider::{CipherParameters, DeriveParameters};

/// The version that is to be made.
#[derive(Clone, Copy)]
pub struct NewVersion<'a> {
    /// What it is, and what is bound into its sealing.
    pub header: &'a SealHeader,
    /// Its own slot's secret.
    pub slot: &'a SlotSecret,
}

/// Versions made out of others. Each spends a permit for the use and for [`Action::CreateKey`].
///
/// All give what the uses on data give, [`CryptoError::MaterialRefused`] when what comes out is no key as
/// the new header describes it, and [`CryptoError::ProtectionLost`] when the new header guards it less
/// well than the old one.
impl Vault {
    /// Takes in a key that this version wrapped, or the owner of its public key wrapped for it.
    ///
    /// # Errors
    /// See above, and [`CryptoError::CiphertextRefused`].
    #[expect(clippy::too_many_arguments, reason = "each is one thing that the new key depends on")]
    pub fn unwrap(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        mechanism: Mechanism,
        iv: &[u8],
        aad: &[u8],
        wrapped: &[u8],
        new: NewVersion<'_>,
    ) -> Result<Generated, CryptoError> {
        spend_making(recorded, Action::UnwrapKey, version, new, request_digest)?;
        self.admit(version.header, Usage::Unwrap, mechanism)?;
        let parameters = CipherParameters { iv, aad };
        let material = match mechanism {
            Mechanism::AesKw | Mechanism::AesKwp => {
                self.provider().unwrap(mechanism, &self.open(version)?, wrapped)?
            }
            _ => {
                let mut bytes = self.decrypt_with(version, mechanism, parameters, wrapped)?;
                Material::import(&mut bytes)?
            }
        };
        self.take_in(new, &material)
    }

    /// Derives a secret with HKDF or SP 800-108.
    ///
    /// # Errors
    /// See above, and [`CryptoError::InputRefused`].
    pub fn derive(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        mechanism: Mechanism,
        parameters: DeriveParameters<'_>,
        new: NewVersion<'_>,
    ) -> Result<Generated, CryptoError> {
        spend_making(recorded, Action::DeriveKey, version, new, request_digest)?;
        self.admit(version.header, Usage::Derive, mechanism)?;
        keeps_protection(version.header, new.header)?;
        let derived = self.derived(mechanism, &self.open(version)?, parameters, new)?;
        self.take_in(new, &derived)
    }

    /// Agrees on a secret with the owner of `peer_public_key`. Without a derivation the new key is the
    /// shared secret itself, whole.
    ///
    /// # Errors
    /// See above, and [`CryptoError::PublicKeyInvalid`] for the peer's key.
    pub fn agree(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        peer_public_key: &[u8],
        kdf: Option<(Mechanism, DeriveParameters<'_>)>,
        new: NewVersion<'_>,
    ) -> Result<Generated, CryptoError> {
        spend_making(recorded, Action::AgreeKey, version, new, request_digest)?;
        self.admit(version.header, Usage::Derive, Mechanism::Ecdh)?;
        keeps_protection(version.header, new.header)?;
        let algorithm = version.header.algorithm;
        let key = self.provider().private_key(algorithm, &self.open(version)?)?;
        let shared = key.agree(peer_public_key)?;
        match kdf {
            None => self.take_in(new, &shared),
            Some((mechanism, parameters)) => {
                if !is_kdf(mechanism) {
                    let problem = "what comes of an agreement goes through HKDF or KDF_COUNTER";
                    return Err(CryptoError::InputRefused { problem });
                }
                self.tests.ensure(mechanism)?;
                self.take_in(new, &self.derived(mechanism, &shared, parameters, new)?)
            }
        }
    }

    /// Makes a shared secret for the owner of this version's public key, and the ciphertext that tells it
    /// to them. Opens no key.
    ///
    /// # Errors
    /// See above.
    pub fn encapsulate(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        new: NewVersion<'_>,
    ) -> Result<(Vec<u8>, Generated), CryptoError> {
        spend_making(recorded, Action::EncapsulateKey, version, new, request_digest)?;
        self.admit_kem(version.header, Usage::Encapsulate)?;
        let (ciphertext, shared) =
            self.provider().encapsulate(version.header.algorithm, version.public_key)?;
        Ok((ciphertext, self.take_in(new, &shared)?))
    }

    /// Recovers the shared secret that somebody encapsulated for this version.
    ///
    /// # Errors
    /// See above, and [`CryptoError::CiphertextRefused`] for a ciphertext of another length.
    pub fn decapsulate(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        ciphertext: &[u8],
        new: NewVersion<'_>,
    ) -> Result<Generated, CryptoError> {
        spend_making(recorded, Action::DecapsulateKey, version, new, request_digest)?;
        self.admit_kem(version.header, Usage::Decapsulate)?;
        keeps_protection(version.header, new.header)?;
        let algorithm = version.header.algorithm;
        let key = self.provider().private_key(algorithm, &self.open(version)?)?;
        self.take_in(new, &key.decapsulate(ciphertext)?)
    }

    /// Gives the key another name. A copy stays what it was: it keeps algorithm, lineage and release
    /// requirement, and may be less than the original, never more.
    ///
    /// # Errors
    /// See above.
    pub fn copy(
        &self,
        recorded: Recorded,
        request_digest: &Digest,
        version: VersionRef<'_>,
        new: NewVersion<'_>,
    ) -> Result<Generated, CryptoError> {
        spend_making(recorded, Action::CopyKey, version, new, request_digest)?;
        self.tests.state()?;
        keeps_protection(version.header, new.header)?;
        is_no_more(version.header, new.header)?;
        self.take_in(new, &self.open(version)?)
    }

    /// Validates a key and seals it under its header and slot.
    fn take_in(&self, new: NewVersion<'_>, material: &Material) -> Result<Generated, CryptoError> {
        let key = self.provider().import(new.header.algorithm, material)?;
        self.seal_version(new.header, new.slot, &key)
    }

    fn derived(
        &self,
        mechanism: Mechanism,
        key: &Material,
        parameters: DeriveParameters<'_>,
        new: NewVersion<'_>,
    ) -> Result<Material, CryptoError> {
        if new.header.algorithm.kind() != KeyKind::SecretKey {
            let problem = "only secret keys are derived; make a key pair with CreateKey";
            return Err(CryptoError::InputRefused { problem });
        }
        self.provider().derive(mechanism, key, parameters, new.header.length_bytes as usize)
    }

    /// The one mechanism of a KEM goes without saying.
    fn admit_kem(&self, header: &SealHeader, usage: Usage) -> Result<(), CryptoError> {
        let algorithm = header.algorithm;
        let refused = CryptoError::UsageRefused { algorithm, usage };
        self.admit(header, usage, algorithm.default_mechanism().ok_or(refused)?)
    }
}

fn spend_making(
    recorded: Recorded,
    action: Action,
    version: VersionRef<'_>,
    new: NewVersion<'_>,
    request_digest: &Digest,
) -> Result<(), CryptoError> {
    let made = Resource::Key(new.header.version.key.clone());
    let deed = (action, &resource(version));
    spend_both(recorded, deed, (Action::CreateKey, &made), request_digest).map(|_| ())
}

/// What is made out of a key that only proven workloads use is used only by them.
fn keeps_protection(old: &SealHeader, new: &SealHeader) -> Result<(), CryptoError> {
    if old.requirement_digest.is_none() || old.requirement_digest == new.requirement_digest {
        Ok(())
    } else {
        Err(CryptoError::ProtectionLost)
    }
}

/// Whether it makes a key out of a secret, and not out of a key pair.
fn is_kdf(mechanism: Mechanism) -> bool {
    mechanism.offers(Usage::Derive) && mechanism.hash().is_some()
}

fn is_no_more(old: &SealHeader, new: &SealHeader) -> Result<(), CryptoError> {
    let same = old.algorithm == new.algorithm && old.lineage == new.lineage;
    let no_more = new.usages.is_subset(&old.usages)
        && new.mechanisms.is_subset(&old.mechanisms)
        && (old.exportable || !new.exportable)
        && (new.ever_exportable || !old.ever_exportable);
    if same && no_more { Ok(()) } else { Err(CryptoError::ProtectionLost) }
}
