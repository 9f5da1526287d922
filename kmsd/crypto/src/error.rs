//! Everything that can go wrong with keys in use, as one enum.

use kms_core::algorithm::{Algorithm, Usage};
use kms_core::id::{RingName, Segment, VersionName};
use kms_core::mechanism::Mechanism;
use kms_core::permit::PermitMismatch;

use crate::selftest::SelfTestFailed;

/// Why an operation with a key was not done.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// The locked arena is at its stated maximum. The environment: too much is open at once.
    #[error("the locked memory for keys is full")]
    ArenaFull,
    /// The kernel gives no memory at all. The environment.
    #[error("the kernel refuses memory for keys")]
    ArenaUnavailable,
    /// A ciphertext, its IV or its associated data is not what the key once sealed. The caller's
    /// mistake, or somebody edited the ciphertext.
    #[error("the ciphertext does not open: it, its IV or its associated data was changed")]
    CiphertextRefused,
    /// Argon2 parameters outside the stated bounds, in a request or in a stored wrap.
    #[error(
        "argon2id takes 8 to 524288 KiB of memory (and 8 per lane), 1 to 10 passes and 1 to 8 lanes"
    )]
    CostOutOfBounds,
    /// The file of a development root holds no root. The operator's mistake.
    #[error("the development root file must hold one line of 64 lower-case hexadecimal digits")]
    DevFileMalformed,
    /// A header has no canonical form. Our own bug: every header has one.
    #[error("the key's header has no canonical form")]
    HeaderUnreadable,
    /// An input that the mechanism does not take. The caller's mistake.
    #[error("{problem}")]
    InputRefused {
        /// What is wrong with it and what is expected.
        problem: &'static str,
    },
    /// Key material of another length or form than its algorithm's. The caller's mistake on import,
    /// our own bug elsewhere.
    #[error("the key material does not fit its algorithm or the arena")]
    MaterialRefused,
    /// The sealed header does not permit this mechanism, or it does not offer the use. A refusal by
    /// the rules that should have been made earlier.
    #[error("a key of {algorithm} as sealed is not used so with {mechanism}")]
    MechanismRefused {
        /// Which algorithm.
        algorithm: Algorithm,
        /// Which mechanism.
        mechanism: Mechanism,
    },
    /// The provider was asked for a mechanism that is not of this kind. Our own bug: the algorithm's
    /// list of mechanisms is checked before.
    #[error("{mechanism} is not a mechanism of this kind of use")]
    MechanismUnsupported {
        /// Which mechanism.
        mechanism: Mechanism,
    },
    /// The permit holds no evidence, so there is nobody to release to. Our own bug: the rules grant
    /// no release without evidence.
    #[error("the permit names no recipient")]
    NoRecipient,
    /// The sealed header says that the key never leaves. A refusal by the rules that should have been
    /// made earlier.
    #[error("the key is not sealed as exportable")]
    NotExportable,
    /// The sealed header names no release requirement, or another one than the evidence was
    /// appraised under. Our own bug: the rules check it first.
    #[error("the key is not sealed as releasable under this requirement")]
    NotReleasable,
    /// The passphrase is wrong. The operator's mistake.
    #[error("the passphrase is wrong")]
    PassphraseIncorrect,
    /// The stored wrap of the root key was edited or damaged. The environment: restore it.
    #[error("the stored wrap of the root key is damaged")]
    PassphraseWrapMalformed,
    /// What is about to be done is not what was permitted. Our own bug.
    #[error(transparent)]
    PermitMismatch(#[from] PermitMismatch),
    /// The stored hash of a PIN cannot be read. The environment: set the PIN again.
    #[error("the stored PIN hash is malformed")]
    PinHashMalformed,
    /// A PIN outside the length rule. The caller's mistake.
    #[error("a PIN is 8 to 255 bytes long")]
    PinLength,
    /// A key made out of another would be guarded less well than that one. Our own bug: the rules hand
    /// the protection on.
    #[error(
        "a key made out of another keeps its release requirement, and a copy stays what it was"
    )]
    ProtectionLost,
    /// The library underneath refused a private-key operation. The environment, or a damaged key.
    #[error("the cryptographic library refused an operation of {algorithm}")]
    ProviderFailed {
        /// Which algorithm.
        algorithm: Algorithm,
    },
    /// A public key that is not a valid SubjectPublicKeyInfo of the algorithm. The caller's
    /// mistake, or a damaged row.
    #[error("the public key is not a valid one of {algorithm}")]
    PublicKeyInvalid {
        /// Which algorithm.
        algorithm: Algorithm,
    },
    /// The random number generator failed. The environment: nothing that needs randomness is done.
    #[error("the random number generator failed")]
    RandomFailed,
    /// More random bytes than one call gives. The caller's mistake.
    #[error("one call gives at most {max} random bytes")]
    RandomTooLong {
        /// The bound.
        max: usize,
    },
    /// The recipient's public key is no valid key of its suite. The workload's mistake.
    #[error("the recipient's public key is not a valid one of its suite")]
    RecipientKeyInvalid,
    /// The ring has not been opened. Our own bug: the daemon opens rings as it loads them.
    #[error("the key ring {ring} is not open")]
    RingClosed {
        /// Which ring.
        ring: RingName,
    },
    /// Bytes that are no row envelope at all. Somebody edited the store, or it is damaged.
    #[error("the stored row is no envelope of a known version")]
    RowMalformed,
    /// The row is not what this daemon wrote under this name and revision. Somebody edited,
    /// swapped or rolled it back.
    #[error("the stored row {row} was edited outside the daemon")]
    RowTampered {
        /// The row's key in the store.
        row: String,
    },
    /// A row larger than the bound. The caller's mistake.
    #[error("a stored row holds at most {max} bytes")]
    RowTooLong {
        /// The bound.
        max: usize,
    },
    /// A known answer did not come out. The environment: do not serve.
    #[error(transparent)]
    SelfTest(#[from] SelfTestFailed),
    /// A signature that is not one of the format asked for. The caller's mistake.
    #[error("the signature is malformed")]
    SignatureMalformed,
    /// A statement about a key cannot be signed or put into a certificate. Our own bug, or a key
    /// whose public half has no SubjectPublicKeyInfo.
    #[error("the statement cannot be signed")]
    StatementFailed,
    /// The tenant has not been opened. Our own bug: the daemon opens tenants as it starts.
    #[error("the tenant {tenant} is not open")]
    TenantClosed {
        /// Which tenant.
        tenant: Segment,
    },
    /// The sealed header, or the algorithm itself, does not offer this use. A refusal by the rules
    /// that should have been made earlier.
    #[error("a key of {algorithm} as sealed is not made for {usage:?}")]
    UsageRefused {
        /// Which algorithm.
        algorithm: Algorithm,
        /// Which use.
        usage: Usage,
    },
    /// The version does not open: its header, slot secret or sealed bytes were changed, or its slot
    /// was erased.
    #[error("{version} does not open: it was destroyed, or edited outside the daemon")]
    VersionUnreadable {
        /// Which version.
        version: VersionName,
    },
    /// A wrapped key does not open under its parent: it was edited, swapped or wrapped elsewhere.
    #[error("a wrapped key does not open under its parent")]
    WrapRefused,
}
