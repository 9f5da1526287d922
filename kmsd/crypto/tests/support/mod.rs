//! What the tests of the vault share: an open vault, versions in it, and permits made through the
//! public door of the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kms_core::action::Action;
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::audit::CommitReceipt;
use kms_core::caller::{Authentication, Caller, Grant, Role};
use kms_core::claims::{
    Appraised, Claims, EvidenceKind, Examination, HookAnswer, TrustRoot, Verdict,
};
use kms_core::id::{Digest, Nonce, OperationId, Resource, RingName, Timestamp, VersionName};
use kms_core::key::{Key, Pkcs11Attributes, ReleaseRequirement, SealHeader, Version};
use kms_core::lifecycle::State;
use kms_core::permit::{Grounds, Intent, Recorded, Subject, decide};
use kms_core::transcript::{BindingProfile, Channel, Recipient, Transcript};
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::unlock::RootKey;
use kms_crypto::vault::{Generated, SlotSecret, Vault, VersionRef};

pub(crate) const OPERATION: OperationId = OperationId([1; 16]);
pub(crate) const REQUEST: Digest = Digest([2; 32]);

pub(crate) fn ring() -> RingName {
    "tenants/t/locations/l/keyRings/r".parse().unwrap()
}

pub(crate) fn version_name() -> VersionName {
    "tenants/t/locations/l/keyRings/r/keys/k/versions/1".parse().unwrap()
}

/// A vault with tenant `t` and ring `r` open.
pub(crate) fn vault() -> Vault {
    let vault = Vault::new(RootKey::generate().unwrap(), Arc::new(AwsLc)).unwrap();
    let tenant = vault.create_tenant_key(&ring().home.tenant).unwrap();
    vault.open_tenant(&ring().home.tenant, &tenant).unwrap();
    let wrapped = vault.create_ring_key(&ring()).unwrap();
    vault.open_ring(&ring(), &wrapped).unwrap();
    vault
}

pub(crate) fn requirement() -> ReleaseRequirement {
    ReleaseRequirement {
        kinds: BTreeSet::from([EvidenceKind::Snp]),
        may_be_unestablished: BTreeSet::new(),
        policy: String::new(),
        free_usages: BTreeSet::from([
            Usage::Decrypt,
            Usage::Encrypt,
            Usage::MacSign,
            Usage::MacVerify,
            Usage::Sign,
            Usage::Verify,
        ]),
    }
}

/// A header with every use that the algorithm offers.
pub(crate) fn header(algorithm: Algorithm) -> SealHeader {
    let all = [
        Usage::Decrypt,
        Usage::Encrypt,
        Usage::MacSign,
        Usage::MacVerify,
        Usage::Release,
        Usage::Sign,
        Usage::Verify,
    ];
    SealHeader {
        version: version_name(),
        algorithm,
        usages: all.into_iter().filter(|usage| algorithm.supports(*usage)).collect(),
        local: true,
        requirement_digest: Some(requirement().digest()),
        quorum_digest: None,
        model: "m".to_owned(),
        dataset: String::new(),
    }
}

/// A version as the store would hold it.
pub(crate) struct Stored {
    pub(crate) header: SealHeader,
    pub(crate) slot: SlotSecret,
    pub(crate) made: Generated,
}

impl Stored {
    pub(crate) fn new(vault: &Vault, algorithm: Algorithm) -> Self {
        let (header, slot) = (header(algorithm), SlotSecret::generate().unwrap());
        let made = vault.generate(&header, &slot).unwrap();
        Self { header, slot, made }
    }

    pub(crate) fn as_ref(&self) -> VersionRef<'_> {
        VersionRef {
            header: &self.header,
            slot: &self.slot,
            sealed: &self.made.sealed,
            public_key: &self.made.public_key,
        }
    }

    /// A recorded permit to do `action` with this version.
    pub(crate) fn permit(&self, action: Action) -> Recorded {
        permit(action, &self.header, Grounds::default())
    }

    /// A recorded permit to release this version to `recipient`.
    pub(crate) fn release_permit(&self, recipient: &Recipient) -> Recorded {
        let grounds = Grounds { evidence: Some(appraised(recipient)), approval: None };
        permit(Action::ReleaseKey, &self.header, grounds)
    }
}

pub(crate) fn transcript(recipient: &Recipient) -> Transcript {
    let channel = Channel::default();
    let nonce = Nonce([3; 32]);
    let server = Digest([4; 32]);
    Transcript::new(BindingProfile::Native, &nonce, &REQUEST, recipient, &server, &channel)
}

/// A permit to do `action` on the version of `header`, on record.
pub(crate) fn permit(action: Action, header: &SealHeader, grounds: Grounds) -> Recorded {
    let key = Key {
        name: header.version.key.clone(),
        algorithm: header.algorithm,
        usages: header.usages.clone(),
        created_at: Timestamp(0),
        labels: BTreeMap::new(),
        requirement: header.requirement_digest.map(|_| requirement()),
        quorum: None,
        model: header.model.clone(),
        dataset: header.dataset.clone(),
        primary: 1,
        latest: 1,
        pkcs11: Pkcs11Attributes::default(),
    };
    let version = Version {
        header: header.clone(),
        state: State::Active,
        enabled: true,
        created_at: Timestamp(0),
        changed_at: Timestamp(0),
        public_key: String::new(),
        slot: 0,
    };
    let subject =
        Subject::Version { key: &key, version: &version, ring_quorum: None, transition: None };
    recorded(action, Resource::Version(header.version.clone()), subject, grounds)
}

pub(crate) fn recorded(
    action: Action,
    resource: Resource,
    subject: Subject<'_>,
    grounds: Grounds,
) -> Recorded {
    let intent = Intent {
        action,
        resource,
        operation_id: OPERATION,
        request_digest: REQUEST,
        subject,
        region: "l",
        now: Timestamp(5),
    };
    let grant = Grant { role: Role::CryptoUser, ring: Some(ring()) };
    let principal = "apps/a".parse().unwrap();
    let caller = Caller::authenticated(principal, Authentication::UnixPeer(0), vec![grant]);
    let permit = decide(&caller, &intent, grounds, None).unwrap().record(vec![]);
    let receipt = CommitReceipt::durable(7, vec![permit.leaf().hash()]);
    permit.on_disk(&receipt).unwrap()
}

fn appraised(recipient: &Recipient) -> Appraised {
    let transcript = transcript(recipient);
    let examination = Examination {
        kind: EvidenceKind::Snp,
        root: TrustRoot::Development,
        evidence_digest: Digest([5; 32]),
        report_data: transcript.report_data(&[]),
        verdict: Verdict::default(),
        measurement: String::new(),
        document: serde_json::Value::Null,
    };
    let claims = Claims::bind(examination, transcript, recipient.clone()).unwrap();
    Appraised::by_hook(claims, HookAnswer::Allow, requirement().digest()).unwrap()
}
