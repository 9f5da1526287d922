//! Which services FIPS 140-3 calls approved (SP 800-140C and D), for the indicator that every answer
//! carries (ISO/IEC 19790 §7.2.4.3) and for a daemon that gives no other ones.
//!
//! It is about algorithms and how they are used. It says nothing of the certificate of the library that
//! carries them out: that is [`GetProviderStatus`](crate::action::Action::GetProviderStatus)'s to tell.

use crate::action::Action;
use crate::algorithm::Algorithm;
use crate::mechanism::Mechanism;
use crate::permit::{Grounds, Intent, Subject};
use crate::transcript::Suite;
use crate::transfer::{ExportRecipient, ImportMethod};

/// Whether the service that was given is an approved one.
///
/// The same enum stands in `proto/kms/v1/common.proto`; a test compares the two.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, prost::Enumeration)]
#[repr(i32)]
pub enum ServiceIndicator {
    /// None was given: the request was refused.
    Unspecified = 0,
    /// Approved algorithms, used in an approved way.
    Approved = 1,
    /// At least one algorithm, or one way to use it, is in no list.
    NotApproved = 2,
    /// Nothing cryptographic was asked for: reading, managing, erasing.
    NotCryptographic = 3,
}

impl ServiceIndicator {
    const fn of(approved: bool) -> Self {
        if approved { Self::Approved } else { Self::NotApproved }
    }
}

/// What a request asks for that neither its action nor its subjects tell.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ingredients {
    /// What the key is that it makes or takes in.
    pub algorithm: Option<Algorithm>,
    /// What something is sealed with.
    pub suite: Option<Suite>,
}

impl Ingredients {
    /// Of a request that makes or takes in a key of `algorithm`.
    pub const fn key(algorithm: Algorithm) -> Self {
        Self { algorithm: Some(algorithm), suite: None }
    }

    /// Of a request that has to do with an import by `method`.
    pub const fn import(method: ImportMethod) -> Self {
        let (algorithm, suite) = match method {
            ImportMethod::RsaOaep4096Sha256Aes256Kwp => (Some(Algorithm::Rsa4096), None),
            ImportMethod::XWingHkdfSha256Aes256Gcm => (None, Some(Suite::XWingHkdfSha256Aes256Gcm)),
        };
        Self { algorithm, suite }
    }

    fn are_approved(self) -> bool {
        self.algorithm.is_none_or(kept_approved) && self.suite.is_none_or(Suite::is_approved)
    }
}

/// Whether using a key of `algorithm` with `mechanism` is an approved service. With an IV of the caller,
/// encrypting with AES-GCM is none all the same (implementation guidance C.H).
pub const fn approved(mechanism: Mechanism, algorithm: Algorithm) -> bool {
    algorithm_approved(algorithm) && mechanism.is_approved()
}

/// Whether keys of `algorithm` may be made and kept by a daemon that gives approved services only. An
/// opaque secret is no key: what is done to it is wrapping with AES-KWP.
pub const fn kept_approved(algorithm: Algorithm) -> bool {
    algorithm_approved(algorithm) || matches!(algorithm, Algorithm::OpaqueSecret)
}

const fn algorithm_approved(algorithm: Algorithm) -> bool {
    match algorithm {
        Algorithm::Aes128
        | Algorithm::Aes192
        | Algorithm::Aes256
        | Algorithm::EcP256
        | Algorithm::EcP384
        | Algorithm::EcP521
        | Algorithm::Ed25519
        | Algorithm::GenericSecret
        | Algorithm::MlDsa44
        | Algorithm::MlDsa65
        | Algorithm::MlDsa87
        | Algorithm::MlKem1024
        | Algorithm::MlKem768
        | Algorithm::Rsa2048
        | Algorithm::Rsa3072
        | Algorithm::Rsa4096
        | Algorithm::SlhDsaSha2_128s => true,
        // ChaCha20, secp256k1, X25519 and X-Wing are in no list; an opaque secret is used for nothing.
        Algorithm::ChaCha20
        | Algorithm::EcSecp256k1
        | Algorithm::OpaqueSecret
        | Algorithm::X25519
        | Algorithm::XWing => false,
    }
}

/// What is known of an action before its subjects are looked at.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    /// Nothing cryptographic.
    Administrative,
    /// Always by the same, approved algorithms: hash functions, the random generator, Ed25519 and
    /// ECDSA of the log, of statements and of approvers.
    Approved,
    /// It depends on the key.
    OfKey,
    /// What people remember is stretched with Argon2id, which is in no list.
    Remembered,
}

const fn kind(action: Action) -> Kind {
    match action {
        Action::AgreeKey
        | Action::CopyKey
        | Action::CreateImportJob
        | Action::CreateKey
        | Action::CreateKeyVersion
        | Action::DecapsulateKey
        | Action::Decrypt
        | Action::DeriveKey
        | Action::EncapsulateKey
        | Action::Encrypt
        | Action::ExportKeyVersion
        | Action::GenerateDataKey
        | Action::ImportKeyVersion
        | Action::MacSign
        | Action::MacVerify
        | Action::ReEncrypt
        | Action::ReleaseKey
        | Action::Sign
        | Action::UnwrapKey
        | Action::Verify
        | Action::WrapKey => Kind::OfKey,
        Action::ApproveProposal
        | Action::CreateReleaseChallenge
        | Action::Digest
        | Action::GenerateRandom
        | Action::GetCheckpoint
        | Action::GetInclusionProof
        | Action::GetKeyStatement => Kind::Approved,
        Action::LoginToken | Action::SetTokenPin | Action::Unseal => Kind::Remembered,
        Action::ActivateKeyVersion
        | Action::AddCredential
        | Action::Batch
        | Action::BindRows
        | Action::CancelProposal
        | Action::CompromiseKeyVersion
        | Action::CreateBinding
        | Action::CreateKeyRing
        | Action::CreateProposal
        | Action::CreateUser
        | Action::DeactivateKeyVersion
        | Action::DeleteBinding
        | Action::DeleteKey
        | Action::DeleteUser
        | Action::DestroyKeyVersion
        | Action::DisableKeyVersion
        | Action::DisableUser
        | Action::EnableKeyVersion
        | Action::EnableUser
        | Action::ExecuteProposal
        | Action::FindObjects
        | Action::GetImportJob
        | Action::GetKey
        | Action::GetKeyRing
        | Action::GetKeyVersion
        | Action::GetProposal
        | Action::GetProviderStatus
        | Action::GetPublicKey
        | Action::GetSealStatus
        | Action::GetUser
        | Action::ListAuditLeaves
        | Action::ListBindings
        | Action::ListKeyHistory
        | Action::ListKeyRings
        | Action::ListKeys
        | Action::ListKeyVersions
        | Action::ListProposals
        | Action::ListTokens
        | Action::ListUsers
        | Action::RestoreKeyVersion
        | Action::ResumeKeyVersion
        | Action::RevokeCredential
        | Action::RunSelfTests
        | Action::ScheduleDestroyKeyVersion
        | Action::Seal
        | Action::SetKeyCertificate
        | Action::SetKeyRingPolicy
        | Action::SetKeyTrusted
        | Action::SetKeyVersionDates
        | Action::Start
        | Action::Stop
        | Action::Stream
        | Action::SuspendKeyVersion
        | Action::UndoKeyVersionStep
        | Action::UpdateKey
        | Action::WhoAmI => Kind::Administrative,
    }
}

/// Whether a daemon that gives approved services only gives this one all the same: without it nobody
/// would get in. The answer says that it is none.
pub(crate) fn is_let_in(action: Action) -> bool {
    kind(action) == Kind::Remembered
}

/// What the answer to `intent` says, should it be granted.
pub(crate) fn indicator(intent: &Intent<'_>, grounds: &Grounds) -> ServiceIndicator {
    match kind(intent.action) {
        Kind::Administrative => return ServiceIndicator::NotCryptographic,
        Kind::Approved => return ServiceIndicator::Approved,
        Kind::Remembered => return ServiceIndicator::NotApproved,
        Kind::OfKey => {}
    }
    let released = grounds.evidence.as_ref().map(|evidence| evidence.claims().recipient().suite());
    let recipient = grounds.approval.as_ref().and_then(|one| one.proposal().recipient.as_ref());
    let exported = match recipient {
        Some(ExportRecipient::Hpke { suite, .. }) => Some(*suite),
        Some(ExportRecipient::RsaAesKeyWrap { .. }) | None => None,
    };
    let other = intent.other.as_ref();
    ServiceIndicator::of(
        intent.ingredients.are_approved()
            && released.is_none_or(Suite::is_approved)
            && exported.is_none_or(Suite::is_approved)
            && subject_approved(intent.action, intent.subject)
            && other.is_none_or(|other| subject_approved(other.action, other.subject)),
    )
}

fn subject_approved(action: Action, subject: Subject<'_>) -> bool {
    let (key, mechanism, manner) = match subject {
        Subject::Absent | Subject::Plain | Subject::Rows(_) => return true,
        Subject::Key(key) => return kept_approved(key.algorithm),
        Subject::Version { key, mechanism, manner, .. } => (key, mechanism, manner),
    };
    // To hand a key out is to wrap it, whatever it is a key of.
    let Some(usage) = action.usage().filter(|usage| !usage.hands_out()) else {
        return action == Action::ExportKeyVersion
            || action == Action::ReleaseKey
            || kept_approved(key.algorithm);
    };
    let Some(mechanism) = key.mechanism_for(usage, mechanism) else { return false };
    // Who brings the IV may bring it twice (implementation guidance C.H); and an AEAD over the segments
    // of a stream is a construction of its own, which no list has.
    let breaks_rule = mechanism.is_aead() && (manner.callers_iv || manner.segmented);
    approved(mechanism, key.algorithm) && !breaks_rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_these_are_not_approved() {
        let refused: Vec<String> = Algorithm::ALL
            .iter()
            .flat_map(|algorithm| algorithm.mechanisms().iter().map(|m| (*m, *algorithm)))
            .filter(|(mechanism, algorithm)| !approved(*mechanism, *algorithm))
            .map(|(mechanism, algorithm)| format!("{algorithm} {mechanism}"))
            .collect();
        let expected = [
            "CHACHA20 CHACHA20_POLY1305",
            "EC_SECP256K1 ECDSA_SHA256",
            "RSA_2048 RSA_PKCS1",
            "RSA_2048 RSA_RAW",
            "RSA_3072 RSA_PKCS1",
            "RSA_3072 RSA_RAW",
            "RSA_4096 RSA_PKCS1",
            "RSA_4096 RSA_RAW",
            "X25519 ECDH",
            "X_WING X_WING",
        ];
        assert_eq!(refused, expected);
        let kept = Algorithm::ALL.iter().filter(|algorithm| !kept_approved(**algorithm));
        let kept: Vec<_> = kept.map(|algorithm| algorithm.as_str()).collect();
        assert_eq!(kept, ["CHACHA20", "EC_SECP256K1", "X25519", "X_WING"]);
    }

    #[test]
    fn every_use_of_a_key_is_judged_by_the_key() {
        for action in Action::ALL.iter().filter(|action| action.usage().is_some()) {
            assert!(kind(*action) == Kind::OfKey, "{action}");
        }
    }
}
