//! Why something is refused, and by which published reason.

use crate::action::Action;
use crate::caller::Role;
use crate::key::Commitment;
use crate::lifecycle::{IllegalTransition, State};

/// Why something is refused. The log holds the [`Refusal::reason`]; the caller learns that of what is
/// [`Refusal::told`], which is the same but for what nobody may be told.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The version's number is below the key's floor.
    #[error("version {number} is below the key's floor of {floor}; use a newer one")]
    BelowFloor {
        /// The version's number.
        number: u32,
        /// The lowest that may be used so.
        floor: u32,
    },
    /// The credential was revoked, so nobody is known by it any more.
    #[error("this credential was revoked, and a revoked credential is never enrolled again")]
    CredentialRevoked,
    /// The version is switched off.
    #[error("the key version is disabled (kmsctl key enable)")]
    Disabled,
    /// The key is gated and no accepted evidence came with the request.
    #[error(
        "this key is used only by a workload that proves itself: ask with attestation evidence (kms-agent get-key)"
    )]
    EvidenceRequired,
    /// Evidence came and is not believed.
    #[error("the attestation evidence is refused: {}", .reasons.join("; "))]
    EvidenceRefused {
        /// Every reason.
        reasons: Vec<String>,
    },
    /// A field of the request is out of range or malformed.
    #[error("{field}: {problem}")]
    InvalidArgument {
        /// Which field, as in the proto.
        field: &'static str,
        /// What is wrong with it and what is expected.
        problem: String,
    },
    /// The version has made as many protections as its mechanism bears.
    #[error(
        "this version has made {max} protections, as many as it may; rotate the key (kmsctl key rotate)"
    )]
    InvocationLimit {
        /// How many it may make.
        max: u64,
    },
    /// The life cycle does not allow the step.
    #[error("{0}")]
    IllegalTransition(#[from] IllegalTransition),
    /// Nobody could enrol people or grant roles any more.
    #[error(
        "this would leave no security officer who can log in; grant that role over the whole appliance to somebody else first, without an end"
    )]
    LastOfficer,
    /// The key has versions that are not destroyed.
    #[error(
        "version {number} is not destroyed; a key is deleted when all its versions are (kmsctl key destroy)"
    )]
    LiveVersion {
        /// The first of them.
        number: u32,
    },
    /// The key is not made for this mechanism.
    #[error("the key does not permit this mechanism; its description lists those it does")]
    MechanismRefused,
    /// A quorum must approve first.
    #[error("this needs the approval of a quorum: make a proposal (kmsctl proposal create)")]
    NeedsApproval,
    /// A quorum would have to approve, and no proposal holds what this takes.
    #[error("this needs the approval of a quorum, and {0} cannot be proposed: {why}", why = .0.instead())]
    NotProposable(Action),
    /// A compromised version is used under a quorum, and there is none.
    #[error(
        "a COMPROMISED version is used so only under a quorum, and none of its ring or key guards ExportKeyVersion or a use of it, such as Decrypt or Sign; a quorum is set when a ring or key is made (kmsctl keyring create --quorum) and is not added later"
    )]
    NoQuorum,
    /// The import job is not there any more, or its time is over.
    #[error("there is no such import job in this ring, or it has expired; make a new one")]
    ImportJobExpired,
    /// The approval is for something else.
    #[error("the approved proposal is for another action or resource")]
    ApprovalMismatch,
    /// The caller is somebody who was enrolled and is let in no more.
    #[error(
        "this user is disabled, or the credential that it logged in with is revoked or expired; a security officer can say which (kmsctl user show)"
    )]
    NotAdmitted,
    /// The key never leaves the appliance.
    #[error("this key is not exportable, and can never become so")]
    NotExportable,
    /// There is no such resource, or the caller may not know of it.
    #[error("no such resource, or you may not see it")]
    NotFound,
    /// The key is not one that is ever released.
    #[error("this key has no release requirement and never leaves the appliance")]
    NotReleasable,
    /// The wrapping key is not one that a security officer trusts.
    #[error(
        "a hardened ring wraps only with keys that a security officer trusts (kmsctl key trust)"
    )]
    NotTrusted,
    /// There is no step that could be taken back, or not any more.
    #[error("there is no step to take back, or its time has passed")]
    NothingToUndo,
    /// The policy of the ring stands in the way.
    #[error("{0}")]
    RingPolicy(#[from] crate::ring_policy::Misfit),
    /// The caller lacks the role.
    #[error("this needs the role {}", .needed.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(" or "))]
    RoleMissing {
        /// Roles that would do.
        needed: &'static [Role],
    },
    /// The daemon gives approved services only, and this is none.
    #[error(
        "this is no approved service (FIPS 140-3), and this daemon gives no other (crypto.approved_only); use an approved algorithm, mechanism or suite"
    )]
    ServiceNotApproved,
    /// The state does not allow this use.
    #[error("a version that is {state} cannot be used so")]
    StateRefuses {
        /// Where the version stands.
        state: State,
    },
    /// Something with that name exists already, or did.
    #[error("the name is taken; names of deleted resources are never used again")]
    AlreadyExists,
    /// A key that has wrapped does not decrypt, and one that has decrypted does not wrap.
    #[error(
        "this key, or the key it is a copy of, was already used to {committed}; in a hardened ring it does nothing that could undo that"
    )]
    UseConflict {
        /// What it was used for.
        committed: Commitment,
    },
    /// The key is not made for this use.
    #[error("the key is not made for this use")]
    UsageRefused,
    /// The proposal cannot be carried out.
    #[error("{0}")]
    Unapproved(#[from] crate::quorum::Unapproved),
    /// The challenge cannot be redeemed.
    #[error("{0}")]
    Challenge(#[from] crate::challenge::ChallengeError),
    /// The PIN is wrong; unknown, unset, locked and wrong PINs look alike.
    #[error(
        "the PIN or passphrase is wrong; after several wrong PINs also the right one is not taken for a while, and after ten not before the security officer has set a new one"
    )]
    PinIncorrect,
    /// Too many wrong PINs from this peer. Told as [`Refusal::PinIncorrect`]: whoever guesses must not
    /// hear that guessing is useless now, nor from which peers it is not.
    #[error("too many wrong PINs from this peer; wait, or have the security officer set a new one")]
    PinLocked,
    /// Tries to open the root come too fast.
    #[error("too many tries; wait a little and try again")]
    TooManyTries,
    /// The request was permitted by the rules so far, and something failed before it was decided.
    #[error("the request failed before it was decided; see the daemon's log")]
    Failed,
    /// The approval does not count.
    #[error("{0}")]
    Approval(#[from] crate::quorum::ApprovalError),
    /// What only tightens would be loosened.
    #[error("{field}: this only tightens; make another key for what this one may not do")]
    OnlyTightens {
        /// Which field, as in the proto.
        field: &'static str,
    },
    /// Only the proposer may cancel or execute.
    #[error("only who made the proposal may do this")]
    NotTheProposer,
    /// A retry asks for what was told only once.
    #[error(
        "the key was made by the first attempt, whose ciphertext is not kept; make another key"
    )]
    NotKept,
    /// A stored row is not one that this daemon wrote there, or a key's policies are not those
    /// that its sealing binds.
    #[error("the stored row {row} was edited outside the daemon; restore it from a backup")]
    RowTampered {
        /// Which row.
        row: String,
    },
    /// A self test has failed, and with it the trust in this machine.
    #[error(
        "a self test has failed, and nothing is served but status and destruction; see GetProviderStatus, and restart"
    )]
    SelfTestFailed,
    /// The root key is closed.
    #[error("the appliance is sealed; open it first (kmsctl seal unseal)")]
    Sealed,
    /// The resource is not what the caller thought it was.
    #[error("the resource has changed meanwhile; read it again")]
    Stale,
}

impl Refusal {
    /// What the caller is told in its place.
    pub const fn told(&self) -> &Self {
        match self {
            Self::PinLocked => &Self::PinIncorrect,
            other => other,
        }
    }
}

macro_rules! reasons {
    ($($pattern:pat => $reason:literal,)+) => {
        impl Refusal {
            /// Every published reason of a refusal.
            pub const REASONS: &'static [&'static str] = &[$($reason),+];

            /// The published reason, as in `ErrorInfo.reason` and the audit leaf.
            pub const fn reason(&self) -> &'static str {
                match self { $($pattern => $reason,)+ }
            }
        }
    };
}

reasons! {
    Refusal::AlreadyExists | Refusal::NotKept => "ALREADY_EXISTS",
    Refusal::Approval(_) => "APPROVAL_REFUSED",
    Refusal::ApprovalMismatch => "APPROVAL_MISMATCH",
    Refusal::BelowFloor { .. } => "BELOW_FLOOR",
    Refusal::Challenge(_) => "CHALLENGE_REFUSED",
    Refusal::CredentialRevoked => "CREDENTIAL_REVOKED",
    Refusal::Disabled => "KEY_DISABLED",
    Refusal::Failed => "FAILED",
    Refusal::EvidenceRefused { .. } => "EVIDENCE_REFUSED",
    Refusal::EvidenceRequired => "EVIDENCE_REQUIRED",
    Refusal::IllegalTransition(_) => "ILLEGAL_TRANSITION",
    Refusal::ImportJobExpired => "IMPORT_JOB_EXPIRED",
    Refusal::InvalidArgument { .. } => "INVALID_ARGUMENT",
    Refusal::InvocationLimit { .. } => "INVOCATION_LIMIT",
    Refusal::LastOfficer => "LAST_OFFICER",
    Refusal::LiveVersion { .. } => "LIVE_VERSION",
    Refusal::MechanismRefused => "MECHANISM_REFUSED",
    Refusal::NeedsApproval | Refusal::NoQuorum | Refusal::NotProposable(_) => "NEEDS_APPROVAL",
    Refusal::NotAdmitted => "NOT_ADMITTED",
    Refusal::NotExportable => "NOT_EXPORTABLE",
    Refusal::NotFound => "NOT_FOUND",
    Refusal::NotReleasable => "NOT_RELEASABLE",
    Refusal::NotTrusted => "NOT_TRUSTED",
    Refusal::NothingToUndo => "NOTHING_TO_UNDO",
    Refusal::NotTheProposer => "NOT_THE_PROPOSER",
    Refusal::OnlyTightens { .. } => "ONLY_TIGHTENS",
    Refusal::PinIncorrect => "PIN_INCORRECT",
    Refusal::PinLocked => "PIN_LOCKED",
    Refusal::RingPolicy(_) => "RING_POLICY",
    Refusal::RoleMissing { .. } => "ROLE_MISSING",
    Refusal::RowTampered { .. } => "ROW_TAMPERED",
    Refusal::SelfTestFailed => "SELF_TEST_FAILED",
    Refusal::Sealed => "SEALED",
    Refusal::ServiceNotApproved => "SERVICE_NOT_APPROVED",
    Refusal::Stale => "STALE",
    Refusal::StateRefuses { .. } => "STATE_REFUSES",
    Refusal::TooManyTries => "TOO_MANY_TRIES",
    Refusal::Unapproved(_) => "UNAPPROVED",
    Refusal::UseConflict { .. } => "USE_CONFLICT",
    Refusal::UsageRefused => "USAGE_REFUSED",
}
