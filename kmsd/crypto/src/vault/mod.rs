//! The unsealed hierarchy: root, tenants, rings, versions; and every use of a key.
//!
//! ```text
//! lp(x)        = length of x as 4 big-endian bytes || x
//! row key      = HKDF(root,       info = lp("kms-row")     || lp(""))
//! tenant key   = random, KWP under HKDF(root,       info = lp("kms-tenant")  || lp(tenant))
//! log seed     = random, KWP under HKDF(root,       info = lp("kms-log")     || lp(""))
//! statements   = random, KWP under HKDF(root,       info = lp("kms-statement") || lp(""))
//! ring key     = random, KWP under HKDF(tenant key, info = lp("kms-ring")    || lp(ring name))
//! version key  =         KWP under HKDF(ring key, salt = slot secret,
//!                                                   info = lp("kms-version") || lp(header))
//! import key   = random, KWP under HKDF(ring key, info = lp("kms-import-job") || lp(job name))
//! ```
//!
//! A use takes a recorded permit by value, compares it with the deed in one private place, before any
//! key is opened, and opens the key for one call. `uses.rs` has the uses on data, `making.rs` those that
//! make a version out of another, `moving.rs` those that move keys and ciphertexts, `streams.rs` large
//! data. The daemon's `ops` are the callers. Storing wrapped keys, erasing slot secrets and counting uses
//! is theirs.
//!
//! A vault does not take a permit that is not on record:
//!
//! ```compile_fail
//! # use kms_core::{id::Digest, mechanism::Mechanism::EdDsa, permit::Permit};
//! # use kms_crypto::{provider::SignInput, vault::{Vault, VersionRef}};
//! fn sign(vault: &Vault, permit: Permit, digest: &Digest, version: VersionRef<'_>) {
//!     let _ = vault.sign(permit, digest, version, EdDsa, SignInput::Message(b"m"), b"");
//! }
//! ```
//!
//! ```
//! # use kms_core::{id::Digest, mechanism::Mechanism::EdDsa, permit::Recorded};
//! # use kms_crypto::{provider::SignInput, vault::{Vault, VersionRef}};
//! fn sign(vault: &Vault, permit: Recorded, digest: &Digest, version: VersionRef<'_>) {
//!     let _ = vault.sign(permit, digest, version, EdDsa, SignInput::Message(b"m"), b"");
//! }
//! ```

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use kms_core::algorithm::Algorithm;
use kms_core::id::{OperationId, RingName, Segment};
use kms_core::key::SealHeader;
use kms_core::mechanism::Mechanism;

use crate::CryptoError;
use crate::kdf::{self, DERIVED_BYTES};
use crate::log_key::{LogSigner, SEED_BYTES};
use crate::material::Material;
use crate::provider::{self, NewKey, Provider};
use crate::row::{self, OpenedRow};
use crate::selftest::SelfTests;
use crate::statement_key::StatementSigner;
use crate::unlock::RootKey;
use crate::vouch::VouchKey;
use crate::wrap;

mod making;
mod moving;
mod opened;
mod streams;
mod transfer;
mod uses;

use self::opened::OpenedKeys;
pub use making::NewVersion;
pub use moving::{Ciphertext, DATA_KEY_BYTES_MAX, DATA_KEY_BYTES_MIN, DataKey};
pub use streams::{
    CipherStream, STREAM_INPUT_BYTES_MAX, STREAM_IV_IS_DRAWN, STREAM_SEGMENT_BYTES, stream_iv_bytes,
};
pub use transfer::{ExportTo, ImportJobRef, Incoming};
pub use uses::{RANDOM_BYTES_MAX, Sealed};

/// The unsealed hierarchy. Dropping it seals: everything in it is wiped.
pub struct Vault {
    tests: Arc<SelfTests>,
    root: RootKey,
    row_key: Material,
    opened: RwLock<Opened>,
    keys: OpenedKeys,
}

#[derive(Default)]
struct Opened {
    tenants: HashMap<Segment, Material>,
    rings: HashMap<RingName, Material>,
}

/// The erasable half of what opens a version: 32 random bytes that rest in the slot table. Once they
/// are overwritten there, no old copy of the sealed key can be opened again.
///
/// It is not printed:
///
/// ```compile_fail
/// fn print(slot: &kms_crypto::vault::SlotSecret) { println!("{slot:?}"); }
/// ```
///
/// nor copied:
///
/// ```compile_fail
/// fn copy(slot: &kms_crypto::vault::SlotSecret) -> kms_crypto::vault::SlotSecret { slot.clone() }
/// ```
///
/// but handed on, and written to its one place:
///
/// ```
/// fn store(slot: kms_crypto::vault::SlotSecret) -> usize { slot.expose_to_slot_table().len() }
/// ```
pub struct SlotSecret(Material);

impl SlotSecret {
    /// A new random one.
    ///
    /// # Errors
    /// [`CryptoError::RandomFailed`], or the arena's errors.
    pub fn generate() -> Result<Self, CryptoError> {
        Material::random(SLOT_SECRET_BYTES).map(Self)
    }

    /// Takes one over from the slot table and wipes the bytes it came in.
    ///
    /// # Errors
    /// The arena's errors.
    pub fn import(bytes: &mut [u8; SLOT_SECRET_BYTES]) -> Result<Self, CryptoError> {
        Material::import(bytes).map(Self)
    }

    /// The bytes, to be written to the slot table and nowhere else. They open nothing without the
    /// ring key.
    pub fn expose_to_slot_table(&self) -> &[u8] {
        self.0.expose()
    }
}

/// One version as the store holds it.
#[derive(Clone, Copy)]
pub struct VersionRef<'a> {
    /// What is bound into the sealing.
    pub header: &'a SealHeader,
    /// Its slot's secret.
    pub slot: &'a SlotSecret,
    /// The wrapped key.
    pub sealed: &'a [u8],
    /// The SubjectPublicKeyInfo in DER; empty for secret keys.
    pub public_key: &'a [u8],
}

/// A version just made, ready to be stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Generated {
    /// The wrapped key.
    pub sealed: Vec<u8>,
    /// The SubjectPublicKeyInfo in DER; empty for secret keys.
    pub public_key: Vec<u8>,
}

/// The hierarchy: making and opening.
impl Vault {
    /// Opens the hierarchy at its root.
    ///
    /// # Errors
    /// The arena's errors.
    pub fn new(root: RootKey, provider: Arc<dyn Provider>) -> Result<Self, CryptoError> {
        Self::with_self_tests(root, Arc::new(SelfTests::new(provider)))
    }

    /// The same with self-tests that outlive this vault, so that their error state does too.
    ///
    /// # Errors
    /// [`CryptoError::SelfTest`] in the error state, or the arena's errors.
    pub fn with_self_tests(root: RootKey, tests: Arc<SelfTests>) -> Result<Self, CryptoError> {
        // Every key of the hierarchy rests under this one.
        tests.ensure(Mechanism::AesKwp)?;
        let row_key = kdf::derive(root.material(), b"", "kms-row", b"")?;
        Ok(Self { tests, root, row_key, opened: RwLock::default(), keys: OpenedKeys::default() })
    }

    /// What has been tested so far, and what came of it.
    pub fn self_tests(&self) -> &Arc<SelfTests> {
        &self.tests
    }

    /// Drops opened keys that were not used since the call before; to be called every minute.
    pub fn age_opened_keys(&self) {
        self.keys.age();
    }

    /// Drops all opened keys: one of them is no more. The others are opened again when they are used.
    pub fn forget_opened_keys(&self) {
        self.keys.forget();
    }

    /// Makes a tenant key, wrapped for the store. It is not open before [`Vault::open_tenant`].
    ///
    /// # Errors
    /// [`CryptoError::RandomFailed`], or the arena's errors.
    pub fn create_tenant_key(&self, tenant: &Segment) -> Result<Vec<u8>, CryptoError> {
        wrap::wrap(&self.tenant_wrapping_key(tenant)?, &Material::random(DERIVED_BYTES)?)
    }

    /// Opens a tenant; from then on its rings can be opened.
    ///
    /// # Errors
    /// [`CryptoError::WrapRefused`] when `wrapped` was edited or is another tenant's.
    pub fn open_tenant(&self, tenant: &Segment, wrapped: &[u8]) -> Result<(), CryptoError> {
        let key = unwrap_parent(&self.tenant_wrapping_key(tenant)?, wrapped)?;
        self.change(|opened| opened.tenants.insert(tenant.clone(), key));
        Ok(())
    }

    /// Makes a ring key, wrapped for the store. It is not open before [`Vault::open_ring`].
    ///
    /// # Errors
    /// [`CryptoError::TenantClosed`], [`CryptoError::RandomFailed`], or the arena's errors.
    pub fn create_ring_key(&self, ring: &RingName) -> Result<Vec<u8>, CryptoError> {
        wrap::wrap(&self.ring_wrapping_key(ring)?, &Material::random(DERIVED_BYTES)?)
    }

    /// Opens a ring; from then on its keys can be made and used.
    ///
    /// # Errors
    /// [`CryptoError::TenantClosed`], or [`CryptoError::WrapRefused`] when `wrapped` was edited or is
    /// another ring's.
    pub fn open_ring(&self, ring: &RingName, wrapped: &[u8]) -> Result<(), CryptoError> {
        let key = unwrap_parent(&self.ring_wrapping_key(ring)?, wrapped)?;
        self.change(|opened| opened.rings.insert(ring.clone(), key));
        Ok(())
    }

    /// Whether the ring's key is open.
    pub fn ring_is_open(&self, ring: &RingName) -> bool {
        self.opened.read().unwrap_or_else(PoisonError::into_inner).rings.contains_key(ring)
    }

    /// Makes the log's signing key, wrapped for the store.
    ///
    /// # Errors
    /// [`CryptoError::RandomFailed`], or the arena's errors.
    pub fn create_log_key(&self) -> Result<Vec<u8>, CryptoError> {
        wrap::wrap(&self.log_wrapping_key()?, &Material::random(SEED_BYTES)?)
    }

    /// Opens the log's signing key.
    ///
    /// # Errors
    /// [`CryptoError::WrapRefused`] when `wrapped` was edited or is of another root.
    pub fn open_log_key(&self, wrapped: &[u8]) -> Result<LogSigner, CryptoError> {
        LogSigner::new(unwrap_parent(&self.log_wrapping_key()?, wrapped)?)
    }

    /// Makes the key that signs statements, wrapped for the store.
    ///
    /// # Errors
    /// [`CryptoError::StatementFailed`], or the arena's errors.
    pub fn create_statement_key(&self) -> Result<Vec<u8>, CryptoError> {
        wrap::wrap(&self.statement_wrapping_key()?, &StatementSigner::generate()?)
    }

    /// Opens the key that signs statements.
    ///
    /// # Errors
    /// [`CryptoError::WrapRefused`] when `wrapped` was edited or is of another root.
    pub fn open_statement_key(&self, wrapped: &[u8]) -> Result<StatementSigner, CryptoError> {
        StatementSigner::new(wrap::unwrap(&self.statement_wrapping_key()?, wrapped)?)
    }

    /// Makes the key of a version and wraps it under its header and slot secret. Secrets have the length
    /// that the header says.
    ///
    /// # Errors
    /// [`CryptoError::RingClosed`], [`CryptoError::MaterialRefused`] for a length that the algorithm does
    /// not have, [`CryptoError::SelfTest`], or those of [`provider::generate`].
    pub fn generate(
        &self,
        header: &SealHeader,
        slot: &SlotSecret,
    ) -> Result<Generated, CryptoError> {
        let key = self.generate_key(header.algorithm, header.length_bytes as usize)?;
        self.seal_version(header, slot, &key)
    }

    /// Makes a key by an algorithm that has passed its self-test. A pair that does not fit together is a
    /// failed self-test like any other.
    fn generate_key(&self, algorithm: Algorithm, length: usize) -> Result<NewKey, CryptoError> {
        self.tests.state()?;
        if let Some(mechanism) = algorithm.default_mechanism() {
            self.tests.ensure(mechanism)?;
        }
        provider::generate(self.provider(), algorithm, length).inspect_err(|error| {
            if let CryptoError::SelfTest(failed) = error {
                self.tests.fail(*failed);
            }
        })
    }

    /// Wraps a key under its header and slot secret.
    fn seal_version(
        &self,
        header: &SealHeader,
        slot: &SlotSecret,
        key: &NewKey,
    ) -> Result<Generated, CryptoError> {
        let expected = if header.algorithm.is_asymmetric() { 0 } else { key.material.len() };
        if header.length_bytes as usize != expected {
            return Err(CryptoError::MaterialRefused);
        }
        let wrapping_key = self.version_wrapping_key(header, slot)?;
        let sealed = wrap::wrap(&wrapping_key, &key.material)?;
        Ok(Generated { sealed, public_key: key.public_key.clone() })
    }

    fn provider(&self) -> &dyn Provider {
        self.tests.provider()
    }

    fn tenant_wrapping_key(&self, tenant: &Segment) -> Result<Material, CryptoError> {
        kdf::derive(self.root.material(), b"", "kms-tenant", tenant.as_str().as_bytes())
    }

    fn ring_wrapping_key(&self, ring: &RingName) -> Result<Material, CryptoError> {
        let tenant = &ring.home.tenant;
        let opened = self.opened()?;
        let parent = opened
            .tenants
            .get(tenant)
            .ok_or_else(|| CryptoError::TenantClosed { tenant: tenant.clone() })?;
        kdf::derive(parent, b"", "kms-ring", ring.to_string().as_bytes())
    }

    fn log_wrapping_key(&self) -> Result<Material, CryptoError> {
        kdf::derive(self.root.material(), b"", "kms-log", b"")
    }

    fn statement_wrapping_key(&self) -> Result<Material, CryptoError> {
        kdf::derive(self.root.material(), b"", "kms-statement", b"")
    }

    fn version_wrapping_key(
        &self,
        header: &SealHeader,
        slot: &SlotSecret,
    ) -> Result<Material, CryptoError> {
        let bytes = header.to_bytes().map_err(|_| CryptoError::HeaderUnreadable)?;
        let ring = &header.version.key.ring;
        let opened = self.opened()?;
        let parent =
            opened.rings.get(ring).ok_or_else(|| CryptoError::RingClosed { ring: ring.clone() })?;
        kdf::derive(parent, slot.0.expose(), "kms-version", &bytes)
    }

    /// The one way to the keys of tenants and rings, and through them to all others: shut once a
    /// self-test has failed. Nothing panics under this lock and each map is whole at every step.
    fn opened(&self) -> Result<RwLockReadGuard<'_, Opened>, CryptoError> {
        self.tests.state()?;
        Ok(self.opened.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Opened) -> T) {
        change(&mut self.opened.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Rows of the store; see [`crate::row`].
impl Vault {
    /// Puts a row into an envelope that only this root can make.
    ///
    /// # Errors
    /// [`CryptoError::RowTooLong`].
    pub fn protect_row(
        &self,
        row_key: &str,
        revision: u64,
        operation_id: &OperationId,
        body: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        row::protect(&self.row_key, row_key, revision, operation_id, body, sealed)
    }

    /// The key by which the daemon vouches for what the store writes.
    ///
    /// # Errors
    /// [`CryptoError::MaterialRefused`] when it cannot be derived.
    pub fn vouch_key(&self) -> Result<VouchKey, CryptoError> {
        VouchKey::new(kdf::derive(self.root.material(), b"", "kms-vouch", b"")?)
    }

    /// Takes a row out of its envelope.
    ///
    /// # Errors
    /// [`CryptoError::RowTampered`] when it is not what this root wrote under `row_key` at
    /// `revision`.
    pub fn open_row(
        &self,
        row_key: &str,
        revision: u64,
        envelope: &[u8],
    ) -> Result<OpenedRow, CryptoError> {
        row::open(&self.row_key, row_key, revision, envelope)
    }
}

/// Opens a key that wraps or signs others; those all have one length.
fn unwrap_parent(wrapping_key: &Material, wrapped: &[u8]) -> Result<Material, CryptoError> {
    let key = wrap::unwrap(wrapping_key, wrapped)?;
    if key.len() == DERIVED_BYTES { Ok(key) } else { Err(CryptoError::WrapRefused) }
}

/// Length of a slot secret.
pub const SLOT_SECRET_BYTES: usize = 32;
