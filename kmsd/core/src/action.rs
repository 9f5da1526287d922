//! Everything that can be asked of the appliance, and who may ask it.
//!
//! One variant per operation. The variant's name is the gRPC method's, so proto, log, policy and
//! documents speak of the same thing.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::algorithm::Usage;
use crate::caller::Role;
use crate::lifecycle::Transition;

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident => $gate:expr),+ $(,)?) => {
        /// One operation of the API.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Action {
            $($(#[$doc])* $variant,)+
        }

        impl Action {
            /// Every action, in alphabetical order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The published name: the gRPC method's.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }

            /// Who may ask.
            pub const fn gate(self) -> Gate {
                match self { $(Self::$variant => $gate,)+ }
            }
        }
    };
}

/// Who may ask for an action.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Gate {
    /// Whoever has authenticated at all; the answer holds only what the caller may know of.
    Anyone,
    /// The daemon itself.
    Daemon,
    /// Whoever has authenticated; what counts is the attestation evidence handed in.
    Evidence,
    /// Whoever holds one of these roles over the resource.
    Roles(&'static [Role]),
}

const READERS: Gate = Gate::Roles(&[
    Role::Auditor,
    Role::CryptoUser,
    Role::KeyManager,
    Role::Operator,
    Role::SecurityOfficer,
]);
const USERS: Gate = Gate::Roles(&[Role::CryptoUser]);
const MANAGERS: Gate = Gate::Roles(&[Role::KeyManager]);
const OFFICERS: Gate = Gate::Roles(&[Role::SecurityOfficer]);
const AUDITORS: Gate = Gate::Roles(&[Role::Auditor]);
const ENROLMENT_READERS: Gate = Gate::Roles(&[Role::Auditor, Role::SecurityOfficer]);
const PROPOSAL_READERS: Gate = Gate::Roles(&[
    Role::Auditor,
    Role::CryptoUser,
    Role::Custodian,
    Role::KeyManager,
    Role::Operator,
    Role::SecurityOfficer,
]);

actions! {
    /// Begin full use of a version.
    ActivateKeyVersion => MANAGERS,
    /// Enrol another credential of a person or program.
    AddCredential => OFFICERS,
    /// Agree on a new key with the owner of a public key.
    AgreeKey => USERS,
    /// Hand in an approver's signature over a proposal. The signature carries the authority, so
    /// whoever may see the proposal may carry it.
    ApproveProposal => PROPOSAL_READERS,
    /// Do many things with keys in one message. Each is an action of its own; this one is only ever
    /// refused, when the message itself is malformed.
    Batch => Gate::Anyone,
    /// Name the set of rows in the log.
    BindRows => Gate::Daemon,
    /// Take back one's own proposal.
    CancelProposal => PROPOSAL_READERS,
    /// Mark a version compromised.
    CompromiseKeyVersion => Gate::Roles(&[Role::KeyManager, Role::SecurityOfficer]),
    /// Give a key's material another name.
    CopyKey => USERS,
    /// Bind a principal to a role.
    CreateBinding => OFFICERS,
    /// Make a key pair that the material of an import is sealed to.
    CreateImportJob => MANAGERS,
    /// Make a key and its first version.
    CreateKey => MANAGERS,
    /// Make a key ring.
    CreateKeyRing => OFFICERS,
    /// Rotate: make the next version of a key.
    CreateKeyVersion => MANAGERS,
    /// Ask for the approval of a guarded action. Whoever may do the action may propose it; that
    /// is checked besides.
    CreateProposal => PROPOSAL_READERS,
    /// Ask for a nonce to collect evidence over.
    CreateReleaseChallenge => Gate::Evidence,
    /// Enrol a person or program.
    CreateUser => OFFICERS,
    /// End protection with a version.
    DeactivateKeyVersion => MANAGERS,
    /// Recover a shared secret, as a new key.
    DecapsulateKey => USERS,
    /// Open a ciphertext.
    Decrypt => USERS,
    /// Take a role from a principal.
    DeleteBinding => OFFICERS,
    /// Retire the name of a key all of whose versions are destroyed.
    DeleteKey => MANAGERS,
    /// Let a person or program in no more, for good.
    DeleteUser => OFFICERS,
    /// Make a new key out of one.
    DeriveKey => USERS,
    /// Erase a version's material.
    DestroyKeyVersion => MANAGERS,
    /// Hash data.
    Digest => USERS,
    /// Switch a version off.
    DisableKeyVersion => MANAGERS,
    /// Let a person or program in no more, for now.
    DisableUser => OFFICERS,
    /// Switch a version on.
    EnableKeyVersion => MANAGERS,
    /// Let a person or program in again.
    EnableUser => OFFICERS,
    /// Make a shared secret for the owner of a public key, as a new key.
    EncapsulateKey => USERS,
    /// Make a ciphertext.
    Encrypt => USERS,
    /// Run an approved proposal.
    ExecuteProposal => PROPOSAL_READERS,
    /// Hand a version out, wrapped.
    ExportKeyVersion => MANAGERS,
    /// Find objects of a token.
    FindObjects => Gate::Anyone,
    /// Make a key for the caller's own use, wrapped by a key of the appliance.
    GenerateDataKey => USERS,
    /// Random bytes for the caller.
    GenerateRandom => USERS,
    /// The signed head of the audit log.
    GetCheckpoint => Gate::Anyone,
    /// An import job, with the public key to seal to.
    GetImportJob => MANAGERS,
    /// A proof that a leaf is in the log.
    GetInclusionProof => AUDITORS,
    /// A key's description.
    GetKey => READERS,
    /// A ring's description.
    GetKeyRing => READERS,
    /// A signed statement of what a version is and where it comes from.
    GetKeyStatement => READERS,
    /// A version's description.
    GetKeyVersion => READERS,
    /// A proposal, with the bytes to sign.
    GetProposal => PROPOSAL_READERS,
    /// Which libraries serve and what their self tests say.
    GetProviderStatus => READERS,
    /// The public half of a version.
    GetPublicKey => READERS,
    /// Whether the root is sealed, and how it opens.
    GetSealStatus => Gate::Anyone,
    /// An enrolled person or program, with all its credentials.
    GetUser => ENROLMENT_READERS,
    /// Take in the material of a version that waits for it.
    ImportKeyVersion => MANAGERS,
    /// The raw leaves of the audit log.
    ListAuditLeaves => AUDITORS,
    /// Who holds which roles.
    ListBindings => ENROLMENT_READERS,
    /// What has happened to a key and its versions, uses apart.
    ListKeyHistory => READERS,
    /// Rings that the caller may see.
    ListKeyRings => Gate::Anyone,
    /// Keys of a ring.
    ListKeys => READERS,
    /// Versions of a key.
    ListKeyVersions => READERS,
    /// Proposals.
    ListProposals => Gate::Anyone,
    /// Tokens, as a PKCS#11 module sees them before login.
    ListTokens => Gate::Anyone,
    /// Enrolled people and programs.
    ListUsers => ENROLMENT_READERS,
    /// A PKCS#11 login by PIN. The PIN carries the authority.
    LoginToken => Gate::Anyone,
    /// Make a message authentication code.
    MacSign => USERS,
    /// Check a message authentication code.
    MacVerify => USERS,
    /// Move a ciphertext to another key without showing what is in it.
    ReEncrypt => USERS,
    /// Receive a key, sealed to a proven workload.
    ReleaseKey => Gate::Evidence,
    /// Take a scheduled destruction back.
    RestoreKeyVersion => MANAGERS,
    /// End a suspension.
    ResumeKeyVersion => MANAGERS,
    /// Let nobody in by a credential any more, for good.
    RevokeCredential => OFFICERS,
    /// Run the self tests now.
    RunSelfTests => Gate::Roles(&[Role::Operator, Role::SecurityOfficer]),
    /// Set the date of a version's destruction.
    ScheduleDestroyKeyVersion => MANAGERS,
    /// Close the root key again.
    Seal => Gate::Roles(&[Role::Operator, Role::SecurityOfficer]),
    /// Put a certificate for its public key on a version.
    SetKeyCertificate => MANAGERS,
    /// Change what the keys of a ring may be and do.
    SetKeyRingPolicy => OFFICERS,
    /// Trust a key to wrap others, or cease to.
    SetKeyTrusted => OFFICERS,
    /// Set the dates on which a version is activated and deactivated.
    SetKeyVersionDates => MANAGERS,
    /// Set a ring's user or officer PIN.
    SetTokenPin => OFFICERS,
    /// Make a signature.
    Sign => USERS,
    /// The daemon began to serve. Recorded by the daemon itself.
    Start => Gate::Daemon,
    /// The daemon ended in order. Recorded by the daemon itself.
    Stop => Gate::Daemon,
    /// Use a key on data of any length. What it is used for is an action of its own; this one is only
    /// ever refused, when the message that begins the stream is malformed.
    Stream => Gate::Anyone,
    /// Stop use of a version for now.
    SuspendKeyVersion => MANAGERS,
    /// Take the last step of a version's life back.
    UndoKeyVersionStep => MANAGERS,
    /// Open the root key. The secret handed in carries the authority.
    Unseal => Gate::Anyone,
    /// Take in a key that a wrapping key protected.
    UnwrapKey => USERS,
    /// Change the CKA_LABEL, CKA_ID or labels of a key.
    UpdateKey => MANAGERS,
    /// Check a signature.
    Verify => USERS,
    /// Who the daemon takes the caller for.
    WhoAmI => Gate::Anyone,
    /// Protect a key with a wrapping key.
    WrapKey => USERS,
}

impl Action {
    /// The step of a version's life that this action is, if it is one.
    pub const fn transition(self) -> Option<Transition> {
        match self {
            Self::ActivateKeyVersion => Some(Transition::Activate),
            Self::CompromiseKeyVersion => Some(Transition::Compromise),
            Self::DeactivateKeyVersion => Some(Transition::Deactivate),
            Self::DestroyKeyVersion => Some(Transition::Destroy),
            Self::ImportKeyVersion => Some(Transition::CompleteImport),
            Self::RestoreKeyVersion => Some(Transition::Restore),
            Self::ResumeKeyVersion => Some(Transition::Resume),
            Self::ScheduleDestroyKeyVersion => Some(Transition::ScheduleDestroy),
            Self::SuspendKeyVersion => Some(Transition::Suspend),
            _ => None,
        }
    }

    /// The action that takes a step of a version's life.
    pub fn of_transition(transition: Transition) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.transition() == Some(transition))
    }

    /// Whether it can be proposed, approved and therefore guarded by a quorum: the steps of a
    /// version's life, the way back from them, handing a key out, and single uses of it.
    pub const fn guardable(self) -> bool {
        match self {
            // An import brings its material along, which no proposal holds.
            Self::ImportKeyVersion => false,
            Self::ExportKeyVersion | Self::UndoKeyVersionStep => true,
            _ => self.takes_arguments() || self.transition().is_some(),
        }
    }

    /// Whether it is a use that a proposal holds the arguments of: one that takes little and gives little,
    /// or makes a key. The others say why not in [`Action::instead`].
    pub const fn takes_arguments(self) -> bool {
        matches!(
            self,
            Self::AgreeKey
                | Self::DecapsulateKey
                | Self::Decrypt
                | Self::DeriveKey
                | Self::MacSign
                | Self::MacVerify
                | Self::ReEncrypt
                | Self::Sign
                | Self::UnwrapKey
                | Self::Verify
        )
    }

    /// Why it cannot be proposed, and what to do instead; of use for actions that are not
    /// [`Action::guardable`].
    pub const fn instead(self) -> &'static str {
        match self {
            Self::CopyKey => {
                "a copy stays in its ring and has the quorum of its original, so copying waits for \
                 nobody; copy it directly"
            }
            Self::EncapsulateKey => {
                "it takes the public key, which is no secret, so it waits for nobody; do it directly"
            }
            Self::Encrypt => {
                "everybody who sees the proposal would read the plaintext; encrypt directly, and leave \
                 the initialization vector to the daemon, which waits for nobody"
            }
            Self::GenerateDataKey => {
                "whoever encrypts can have as much without it, so it waits for nobody; do it directly"
            }
            Self::ImportKeyVersion => {
                "an import brings its material along, which stands in no proposal; import it directly"
            }
            Self::ReleaseKey => {
                "evidence is fresh for a minute, and approvals take longer; propose ExportKeyVersion, or \
                 guard a key that is to be released by its release requirement, and not its uses by a \
                 quorum"
            }
            Self::WrapKey => {
                "it hands out a key that has a quorum of its own; propose ExportKeyVersion of that key"
            }
            _ => {
                "only steps of a key version's life, ExportKeyVersion, and of its uses AgreeKey, \
                 DecapsulateKey, Decrypt, DeriveKey, MacSign, MacVerify, ReEncrypt, Sign, UnwrapKey and \
                 Verify can be"
            }
        }
    }

    /// Whether it is served although a self test has failed: showing state, and making keys unusable
    /// (FIPS 140-3, ISO/IEC 19790 §7.11.1).
    pub const fn works_in_error_state(self) -> bool {
        matches!(
            self,
            Self::BindRows
                | Self::DestroyKeyVersion
                | Self::GetCheckpoint
                | Self::GetProviderStatus
                | Self::GetSealStatus
                | Self::Seal
                | Self::Start
                | Self::Stop
                | Self::WhoAmI
        )
    }

    /// Whether it can be granted while the root key is closed: what needs neither key nor role. Nobody
    /// vouches for the record of it then, so that whoever has the disk can write such a record as well.
    pub const fn works_while_sealed(self) -> bool {
        matches!(
            self,
            Self::GetSealStatus
                | Self::ListTokens
                | Self::Start
                | Self::Stop
                | Self::Unseal
                | Self::WhoAmI
        )
    }

    /// The use of key material that this action is, if it is one.
    pub const fn usage(self) -> Option<Usage> {
        match self {
            Self::AgreeKey | Self::DeriveKey => Some(Usage::Derive),
            Self::DecapsulateKey => Some(Usage::Decapsulate),
            Self::Decrypt | Self::ReEncrypt => Some(Usage::Decrypt),
            Self::EncapsulateKey => Some(Usage::Encapsulate),
            Self::Encrypt | Self::GenerateDataKey => Some(Usage::Encrypt),
            Self::ExportKeyVersion => Some(Usage::Export),
            Self::MacSign => Some(Usage::MacSign),
            Self::MacVerify => Some(Usage::MacVerify),
            Self::ReleaseKey => Some(Usage::Release),
            Self::Sign => Some(Usage::Sign),
            Self::UnwrapKey => Some(Usage::Unwrap),
            Self::Verify => Some(Usage::Verify),
            Self::WrapKey => Some(Usage::Wrap),
            _ => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no action. The caller's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown action; actions are named like gRPC methods, for example DestroyKeyVersion")]
pub struct UnknownAction;

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL.iter().copied().find(|action| action.as_str() == text).ok_or(UnknownAction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_read_back_and_are_listed_in_alphabetical_order() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(*action));
        }
        let names: Vec<String> =
            Action::ALL.iter().map(|a| a.as_str().to_ascii_lowercase()).collect();
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(names, sorted);
    }

    #[test]
    fn nothing_is_granted_by_a_role_while_sealed() {
        for action in Action::ALL.iter().filter(|action| action.works_while_sealed()) {
            assert!(matches!(action.gate(), Gate::Anyone | Gate::Daemon), "{action}");
            assert!(action.usage().is_none() && !action.guardable(), "{action}");
        }
        assert!(!Action::BindRows.works_while_sealed(), "that needs somebody's word");
    }

    #[test]
    fn whoever_may_do_what_a_quorum_guards_may_propose_and_run_it() {
        for action in Action::ALL.iter().filter(|action| action.guardable()) {
            let Gate::Roles(needed) = action.gate() else { panic!("{action}: for anybody") };
            for of_proposals in [
                Action::CancelProposal,
                Action::CreateProposal,
                Action::ExecuteProposal,
                Action::GetProposal,
            ] {
                let Gate::Roles(roles) = of_proposals.gate() else { panic!("{of_proposals}") };
                assert!(
                    needed.iter().all(|role| roles.contains(role)),
                    "{of_proposals} of {action}"
                );
            }
        }
    }

    /// Whoever is refused learns what to do: each use is proposed, or says what else leads there.
    #[test]
    fn every_use_can_be_proposed_or_says_what_to_do_instead() {
        let general = Action::Digest.instead();
        for action in Action::ALL.iter().filter(|action| !action.guardable()) {
            let uses = action.usage().is_some() || *action == Action::CopyKey;
            assert!(!uses || action.instead() != general, "{action}");
        }
        let listed = |action: &Action| general.contains(action.as_str());
        let proposed: Vec<_> = Action::ALL.iter().filter(|one| one.takes_arguments()).collect();
        assert!(proposed.iter().all(|action| listed(action)), "{proposed:?}");
    }

    #[test]
    fn no_role_does_anothers_work() {
        for action in Action::ALL {
            let Gate::Roles(roles) = action.gate() else { continue };
            if action.usage().is_some_and(|usage| usage != Usage::Export) {
                assert_eq!(roles, [Role::CryptoUser], "{action}: only users use keys");
            }
            if roles.contains(&Role::Auditor) {
                let reads = [
                    "Get",
                    "List",
                    "Find",
                    "ApproveProposal",
                    "CancelProposal",
                    "CreateProposal",
                    "ExecuteProposal",
                ];
                assert!(
                    reads.iter().any(|prefix| action.as_str().starts_with(prefix)),
                    "{action}: auditors change nothing"
                );
            }
        }
    }
}
