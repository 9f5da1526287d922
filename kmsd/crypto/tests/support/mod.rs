//! What the tests of the vault share: an open vault, versions in it, and permits made through the
//! public door of the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kms_core::action::Action;
use kms_core::algorithm::{Algorithm, Usage};
use kms_core::audit::CommitReceipt;
use kms_core::caller::{Authentication, Caller, Role};
use kms_core::claims::{
    Appraised, Claims, EvidenceKind, Examination, HookAnswer, TrustRoot, Verdict,
};
use kms_core::id::{Digest, Nonce, OperationId, Resource, RingName, Timestamp, VersionName};
use kms_core::key::{
    Floors, Key, Origin, Pkcs11Attributes, ReleaseRequirement, Ring, SealHeader, Version,
};
use kms_core::lifecycle::{Dates, State};
use kms_core::mechanism::Mechanism;
use kms_core::permit::{Grounds, Intent, Manner, Other, Recorded, Subject, decide};
use kms_core::rights::{Grant, Scope};
use kms_core::ring_policy::{RingKind, RingPolicy};
use kms_core::transcript::{BindingProfile, Channel, Recipient, Transcript};
use kms_crypto::CryptoError;
use kms_crypto::provider::awslc::AwsLc;
use kms_crypto::unlock::RootKey;
use kms_crypto::vault::{Generated, NewVersion, SlotSecret, Vault, VersionRef};

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
        free_usages: Usage::ALL.into_iter().collect(),
    }
}

/// A header with every use and mechanism that the algorithm offers.
pub(crate) fn header(algorithm: Algorithm) -> SealHeader {
    let length = match algorithm {
        Algorithm::GenericSecret => 32,
        Algorithm::OpaqueSecret => 1000,
        _ => algorithm.secret_bytes().unwrap_or(0),
    };
    SealHeader {
        version: version_name(),
        algorithm,
        usages: Usage::ALL.into_iter().filter(|usage| algorithm.supports(*usage)).collect(),
        mechanisms: algorithm.mechanisms().iter().copied().collect(),
        length_bytes: u32::try_from(length).unwrap(),
        origin: Origin::Generated,
        exportable: true,
        ever_exportable: true,
        lineage: version_name(),
        requirement_digest: Some(requirement().digest()),
        quorum_digest: None,
        model: "m".to_owned(),
        dataset: String::new(),
    }
}

/// The same for a key of another name.
pub(crate) fn header_of(algorithm: Algorithm, key: &str) -> SealHeader {
    let version: VersionName =
        format!("tenants/t/locations/l/keyRings/r/keys/{key}/versions/1").parse().unwrap();
    SealHeader { lineage: version.clone(), version, ..header(algorithm) }
}

/// A version as the store would hold it.
pub(crate) struct Stored {
    pub(crate) header: SealHeader,
    pub(crate) slot: SlotSecret,
    pub(crate) made: Generated,
}

impl Stored {
    pub(crate) fn new(vault: &Vault, algorithm: Algorithm) -> Self {
        Self::of(vault, header(algorithm))
    }

    pub(crate) fn of(vault: &Vault, header: SealHeader) -> Self {
        let slot = SlotSecret::generate().unwrap();
        let made = vault.generate(&header, &slot).unwrap();
        Self { header, slot, made }
    }

    /// What `make` makes out of another version.
    pub(crate) fn made(
        header: SealHeader,
        make: impl FnOnce(NewVersion<'_>) -> Result<Generated, CryptoError>,
    ) -> Result<Self, CryptoError> {
        let slot = SlotSecret::generate().unwrap();
        let made = make(NewVersion { header: &header, slot: &slot })?;
        Ok(Self { header, slot, made })
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

    /// A recorded permit to do `action` with this version and make the key of `new` by it.
    pub(crate) fn making_permit(&self, action: Action, new: &SealHeader) -> Recorded {
        let resource = Resource::Key(new.version.key.clone());
        let other = Other { action: Action::CreateKey, resource, subject: Subject::Plain };
        permitted(action, &self.header, None, Some(other), Grounds::default())
    }

    /// A recorded permit to do `action` with this version and `other_action` with another.
    pub(crate) fn permit_both(
        &self,
        action: Action,
        other_action: Action,
        other: &Self,
    ) -> Recorded {
        let (ring, key, version) = rows(&other.header);
        let subject = Subject::Version {
            ring: &ring,
            key: &key,
            version: &version,
            transition: None,
            mechanism: None,
            manner: Manner::default(),
        };
        let resource = Resource::Version(other.header.version.clone());
        let other = Other { action: other_action, resource, subject };
        permitted(action, &self.header, None, Some(other), Grounds::default())
    }

    /// A recorded permit to release this version to `recipient`.
    pub(crate) fn release_permit(&self, recipient: &Recipient) -> Recorded {
        let grounds = Grounds { evidence: Some(Box::new(appraised(recipient))), approval: None };
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
    permitted(action, header, None, None, grounds)
}

fn permitted(
    action: Action,
    header: &SealHeader,
    mechanism: Option<Mechanism>,
    other: Option<Other<'_>>,
    grounds: Grounds,
) -> Recorded {
    let (ring, key, version) = rows(header);
    let subject = Subject::Version {
        ring: &ring,
        key: &key,
        version: &version,
        transition: None,
        mechanism,
        manner: Manner::default(),
    };
    recorded_both(action, Resource::Version(header.version.clone()), subject, other, grounds)
}

/// The rows that go with a header, in a ring where everything is taken.
fn rows(header: &SealHeader) -> (Ring, Key, Version) {
    let ring = Ring {
        name: ring(),
        created_at: Timestamp(0),
        quorum: None,
        policy: RingPolicy { kind: RingKind::Compatible, ..RingPolicy::default() },
        wrapped_key: String::new(),
    };
    let key = Key {
        name: header.version.key.clone(),
        algorithm: header.algorithm,
        usages: header.usages.clone(),
        mechanisms: header.mechanisms.clone(),
        exportable: header.exportable,
        trusted: true,
        created_at: Timestamp(0),
        deleted_at: None,
        labels: BTreeMap::new(),
        requirement: header.requirement_digest.map(|_| requirement()),
        quorum: None,
        model: header.model.clone(),
        dataset: header.dataset.clone(),
        primary: 1,
        latest: 1,
        floors: Floors::default(),
        rotation: None,
        pkcs11: Pkcs11Attributes::default(),
        audit_each_use: false,
    };
    let version = Version {
        header: header.clone(),
        state: State::Active,
        enabled: true,
        created_at: Timestamp(0),
        changed_at: Timestamp(0),
        dates: Dates::default(),
        compromise: None,
        undo: None,
        protections_reserved: 0,
        certificate: String::new(),
        public_key: String::new(),
        slot: Some(0),
    };
    (ring, key, version)
}

pub(crate) fn recorded(
    action: Action,
    resource: Resource,
    subject: Subject<'_>,
    grounds: Grounds,
) -> Recorded {
    recorded_both(action, resource, subject, None, grounds)
}

fn recorded_both(
    action: Action,
    resource: Resource,
    subject: Subject<'_>,
    other: Option<Other<'_>>,
    grounds: Grounds,
) -> Recorded {
    let intent = Intent {
        action,
        resource,
        operation_id: OPERATION,
        request_digest: REQUEST,
        subject,
        other,
        ingredients: Default::default(),
        approved_only: false,
        region: "l",
        now: Timestamp(5),
    };
    let grant = |role| Grant::over(role, Scope::Ring(ring()));
    let grants = vec![grant(Role::CryptoUser), grant(Role::KeyManager)];
    let principal = "apps/a".parse().unwrap();
    let caller = Caller::authenticated(principal, Authentication::UnixPeer(0), grants);
    let permit = decide(&caller, &intent, grounds, None).unwrap().record(vec![]);
    let receipt = CommitReceipt::durable(7, vec![*permit.leaf_hash()]);
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
