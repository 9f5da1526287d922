//! The decisions, one case each: what is refused, for which reason, and what is granted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::*;
use crate::algorithm::{Algorithm, Usage};
use crate::arguments::{HexBytes, Signed, UseArguments};
use crate::caller::{Authentication, Role};
use crate::id::{Nonce, PrincipalName, VersionName};
use crate::key::{Floors, Origin, Pkcs11Attributes, ReleaseRequirement, Rotation, SealHeader};
use crate::lifecycle::{Allowance, Dates, State};
use crate::quorum::{
    Approval, Approved, Approvers, Circumstances, Guarding, Member, NAMESPACE, PROPOSAL_TYPE,
    PolicyDigests, Proposal, QuorumPolicy, Unapproved,
};
use crate::rights::{Grant, Scope};
use crate::ring_policy::{RingKind, RingPolicy};
use crate::service::{Ingredients, ServiceIndicator};

const VERSION: &str = "tenants/t/locations/l/keyRings/r/keys/k/versions/1";

static RING: LazyLock<Ring> = LazyLock::new(|| Ring {
    name: name().key.ring,
    created_at: Timestamp(0),
    quorum: None,
    policy: RingPolicy::default(),
    wrapped_key: String::new(),
});

fn name() -> VersionName {
    VERSION.parse().unwrap()
}

fn key() -> Key {
    Key {
        name: name().key,
        algorithm: Algorithm::EcP256,
        usages: BTreeSet::from([Usage::Sign, Usage::Verify]),
        mechanisms: BTreeSet::from([Mechanism::EcdsaSha256]),
        exportable: false,
        trusted: false,
        created_at: Timestamp(0),
        deleted_at: None,
        labels: BTreeMap::new(),
        requirement: None,
        quorum: None,
        model: String::new(),
        dataset: String::new(),
        primary: 1,
        latest: 1,
        floors: Floors::default(),
        rotation: None,
        pkcs11: Pkcs11Attributes::default(),
        audit_each_use: false,
    }
}

fn gated() -> Key {
    let requirement = ReleaseRequirement {
        kinds: BTreeSet::new(),
        may_be_unestablished: BTreeSet::new(),
        policy: String::new(),
        free_usages: BTreeSet::from([Usage::Verify]),
    };
    let mut key = Key { requirement: Some(requirement), ..key() };
    key.usages.insert(Usage::Release);
    key
}

fn version(key: &Key, state: State) -> Version {
    let header = SealHeader {
        version: name(),
        algorithm: key.algorithm,
        usages: key.usages.clone(),
        mechanisms: key.mechanisms.clone(),
        length_bytes: 0,
        origin: Origin::Generated,
        exportable: key.exportable,
        ever_exportable: key.exportable,
        lineage: name(),
        requirement_digest: key.requirement.as_ref().map(ReleaseRequirement::digest),
        quorum_digest: key.quorum.as_ref().map(QuorumPolicy::digest),
        model: key.model.clone(),
        dataset: key.dataset.clone(),
    };
    Version {
        header,
        state,
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
    }
}

fn caller(role: Role, ring: &str) -> Caller {
    let ring = format!("tenants/t/locations/l/keyRings/{ring}").parse().unwrap();
    let grant = Grant::over(role, Scope::Ring(ring));
    let principal = "apps/a".parse().unwrap();
    Caller::authenticated(principal, Authentication::UnixPeer(0), vec![grant])
}

fn ask(caller: &Caller, action: Action, subject: Subject<'_>) -> Result<(), Refusal> {
    let resource = Resource::Version(name());
    let intent = Intent {
        action,
        resource,
        operation_id: OperationId([1; 16]),
        request_digest: Digest([2; 32]),
        subject,
        other: None,
        ingredients: Ingredients::default(),
        approved_only: false,
        region: "l",
        now: Timestamp(5),
    };
    let leaf_of_refusal = |denial: Denial| {
        assert_eq!(denial.leaf.reason, denial.refusal.reason());
        denial.refusal
    };
    decide(caller, &intent, Grounds::default(), None).map(|_| ()).map_err(leaf_of_refusal)
}

fn subject<'a>(key: &'a Key, version: &'a Version) -> Subject<'a> {
    Subject::Version {
        ring: &RING,
        key,
        version,
        transition: None,
        mechanism: None,
        manner: Manner::default(),
    }
}

#[test]
fn a_crypto_user_signs_with_an_active_key_and_nobody_else_does() {
    let key = key();
    let version = version(&key, State::Active);
    let sign = |caller: &Caller| ask(caller, Action::Sign, subject(&key, &version));
    assert_eq!(sign(&caller(Role::CryptoUser, "r")), Ok(()));
    for role in Role::ALL.into_iter().filter(|role| *role != Role::CryptoUser) {
        let refusal = sign(&caller(role, "r")).unwrap_err();
        assert_eq!(refusal.reason(), "ROLE_MISSING", "{role}");
    }
}

#[test]
fn a_stranger_cannot_tell_a_missing_key_from_anothers() {
    let key = key();
    let version = version(&key, State::Active);
    let stranger = caller(Role::CryptoUser, "other");
    let theirs = ask(&stranger, Action::Sign, subject(&key, &version));
    let missing = ask(&stranger, Action::Sign, Subject::Absent);
    assert_eq!(theirs, Err(Refusal::NotFound));
    assert_eq!(theirs, missing);
}

#[test]
fn every_use_in_every_state_is_decided_by_the_table() {
    let key = key();
    let user = caller(Role::CryptoUser, "r");
    for state in State::ALL {
        for (action, usage) in [(Action::Sign, Usage::Sign), (Action::Verify, Usage::Verify)] {
            let version = version(&key, state);
            let expected = match state.allows(usage) {
                Allowance::Allowed => Ok(()),
                Allowance::Refused => Err(Refusal::StateRefuses { state }),
                Allowance::UnderQuorum => Err(Refusal::NoQuorum),
            };
            assert_eq!(ask(&user, action, subject(&key, &version)), expected, "{state}");
        }
    }
}

#[test]
fn a_gated_key_is_used_only_with_evidence_but_for_its_free_uses() {
    let key = gated();
    let version = version(&key, State::Active);
    let user = caller(Role::CryptoUser, "r");
    let use_it = |action| ask(&user, action, subject(&key, &version));
    assert_eq!(use_it(Action::Sign), Err(Refusal::EvidenceRequired));
    assert_eq!(use_it(Action::ReleaseKey), Err(Refusal::EvidenceRequired));
    assert_eq!(use_it(Action::Verify), Ok(()));
}

#[test]
fn a_key_without_a_gate_is_never_released() {
    let key = key();
    let version = version(&key, State::Active);
    let user = caller(Role::CryptoUser, "r");
    let refusal = ask(&user, Action::ReleaseKey, subject(&key, &version));
    assert_eq!(refusal, Err(Refusal::NotReleasable));
}

#[test]
fn a_key_row_edited_to_drop_its_gate_decides_nothing() {
    let sealed = version(&gated(), State::Active);
    let edited = Key { requirement: None, ..gated() };
    let user = caller(Role::CryptoUser, "r");
    let refusal = ask(&user, Action::Sign, subject(&edited, &sealed));
    assert_eq!(refusal.unwrap_err().reason(), "ROW_TAMPERED");
}

#[test]
fn a_disabled_version_and_a_foreign_use_are_refused() {
    let key = key();
    let mut version = version(&key, State::Active);
    let user = caller(Role::CryptoUser, "r");
    let decrypt = ask(&user, Action::Decrypt, subject(&key, &version));
    assert_eq!(decrypt, Err(Refusal::UsageRefused));
    version.enabled = false;
    assert_eq!(ask(&user, Action::Sign, subject(&key, &version)), Err(Refusal::Disabled));
}

#[test]
fn a_guarded_destroy_needs_a_proposal() {
    let alice = Member::Principal("users/alice".parse().unwrap());
    let guards = BTreeSet::from([Action::DestroyKeyVersion]);
    let quorum = QuorumPolicy::new(guards, Approvers { n: 1, members: vec![alice] }).unwrap();
    let key = Key { quorum: Some(quorum), ..key() };
    let version = version(&key, State::Deactivated);
    let manager = caller(Role::KeyManager, "r");
    let destroy = |transition| {
        let subject = Subject::Version {
            ring: &RING,
            key: &key,
            version: &version,
            transition,
            mechanism: None,
            manner: Manner::default(),
        };
        ask(&manager, Action::DestroyKeyVersion, subject)
    };
    assert_eq!(destroy(Some(Transition::Destroy)), Err(Refusal::NeedsApproval));
    let refusal = destroy(Some(Transition::Activate)).unwrap_err();
    assert_eq!(refusal.reason(), "ILLEGAL_TRANSITION");
}

#[test]
fn the_rings_quorum_guards_every_key_and_no_key_weakens_it() {
    let policy = |name: &str| {
        let member = Member::Principal(format!("users/{name}").parse().unwrap());
        let guards = BTreeSet::from([Action::DestroyKeyVersion]);
        QuorumPolicy::new(guards, Approvers { n: 1, members: vec![member] }).unwrap()
    };
    let (rings, keys) = (policy("alice"), policy("mallory"));
    let ring = Ring { quorum: Some(rings.clone()), ..RING.clone() };
    let plain = key();
    let version = version(&plain, State::Deactivated);
    let transition = Some(Transition::Destroy);
    let subject = Subject::Version {
        ring: &ring,
        key: &plain,
        version: &version,
        transition,
        mechanism: None,
        manner: Manner::default(),
    };
    let refusal = ask(&caller(Role::KeyManager, "r"), Action::DestroyKeyVersion, subject);
    assert_eq!(refusal, Err(Refusal::NeedsApproval));
    let of = |ring, key, action| {
        let guards = |policy: &QuorumPolicy| policy.guards(action);
        Guarding::of(ring, key, guards)
    };
    let destroy = Action::DestroyKeyVersion;
    let both = Guarding::Both { ring: &rings, key: &keys };
    assert_eq!(of(Some(&rings), Some(&keys), destroy), Some(both));
    assert_eq!(of(None, Some(&keys), destroy), Some(Guarding::Key(&keys)));
    assert_eq!(of(Some(&rings), None, destroy), Some(Guarding::Ring(&rings)));
    assert_eq!(of(Some(&rings), Some(&keys), Action::SuspendKeyVersion), None);
}

#[test]
fn a_permit_is_good_for_exactly_what_was_asked_and_recorded() {
    let key = key();
    let version = version(&key, State::Active);
    let resource = Resource::Version(name());
    let intent = Intent {
        action: Action::Sign,
        resource: resource.clone(),
        operation_id: OperationId([1; 16]),
        request_digest: Digest([2; 32]),
        subject: subject(&key, &version),
        other: None,
        ingredients: Ingredients::default(),
        approved_only: false,
        region: "l",
        now: Timestamp(5),
    };
    let user = caller(Role::CryptoUser, "r");
    let permit = || decide(&user, &intent, Grounds::default(), None).unwrap().record(vec![]);
    let hash = *permit().leaf_hash();
    let receipt = CommitReceipt::durable(40, vec![Digest([0; 32]), hash]);
    let recorded = || permit().on_disk(&receipt).unwrap();
    assert_eq!(recorded().audit_index(), 41);
    let digest = Digest([2; 32]);
    assert!(recorded().spend(Action::Sign, &resource, &digest).is_ok());
    assert!(recorded().spend(Action::Verify, &resource, &digest).is_err());
    assert!(recorded().spend(Action::Sign, &Resource::Appliance, &digest).is_err());
    assert!(recorded().spend(Action::Sign, &resource, &Digest([3; 32])).is_err());
    let other = CommitReceipt::durable(40, vec![Digest([0; 32])]);
    assert!(permit().on_disk(&other).is_err());
}

#[test]
fn a_use_takes_only_a_mechanism_that_the_key_permits() {
    let key = key();
    let version = version(&key, State::Active);
    let user = caller(Role::CryptoUser, "r");
    let with = |mechanism| Subject::Version {
        ring: &RING,
        key: &key,
        version: &version,
        transition: None,
        mechanism,
        manner: Manner::default(),
    };
    assert_eq!(ask(&user, Action::Sign, with(Some(Mechanism::EcdsaSha256))), Ok(()));
    let other = ask(&user, Action::Sign, with(Some(Mechanism::EcdsaSha384)));
    assert_eq!(other, Err(Refusal::MechanismRefused));
}

#[test]
fn floors_shut_old_versions_out_for_protecting_and_processing_apart() {
    let user = caller(Role::CryptoUser, "r");
    let at = |floors, action| {
        let key = Key { floors, ..key() };
        ask(&user, action, subject(&key, &version(&key, State::Active)))
    };
    let floors = Floors { protect: 2, process: 1 };
    let below = |floor| Err(Refusal::BelowFloor { number: 1, floor });
    assert_eq!(at(floors, Action::Sign), below(2));
    assert_eq!(at(floors, Action::Verify), Ok(()));
    assert_eq!(at(Floors { protect: 2, process: 2 }, Action::Verify), below(2));
}

#[test]
fn a_date_that_has_come_acts_before_anybody_recorded_it() {
    let key = key();
    let mut version = version(&key, State::Active);
    version.dates.deactivates_at = Some(Timestamp(5));
    let user = caller(Role::CryptoUser, "r");
    let refusal = ask(&user, Action::Sign, subject(&key, &version));
    assert_eq!(refusal, Err(Refusal::StateRefuses { state: State::Deactivated }));
    version.dates.deactivates_at = Some(Timestamp(6));
    assert_eq!(ask(&user, Action::Sign, subject(&key, &version)), Ok(()));
}

#[test]
fn the_daemon_takes_a_step_that_is_due_and_no_other() {
    let key = key();
    let mut version = version(&key, State::Active);
    version.dates.deactivates_at = Some(Timestamp(5));
    let step = |version: &Version, action: Action| {
        let transition = action.transition();
        let subject = Subject::Version {
            ring: &RING,
            key: &key,
            version,
            transition,
            mechanism: None,
            manner: Manner::default(),
        };
        let daemon = "apps/kmsd".parse().unwrap();
        ask(&Caller::authenticated(daemon, Authentication::Daemon, vec![]), action, subject)
    };
    assert_eq!(step(&version, Action::DeactivateKeyVersion), Ok(()));
    assert!(step(&version, Action::SuspendKeyVersion).is_err());
    version.dates.deactivates_at = Some(Timestamp(6));
    assert!(step(&version, Action::DeactivateKeyVersion).is_err());
}

#[test]
fn a_key_leaves_only_if_it_may_and_only_by_the_will_of_more_than_one() {
    let manager = caller(Role::KeyManager, "r");
    let mut key = key();
    key.usages.insert(Usage::Export);
    let export = |key: &Key| {
        ask(&manager, Action::ExportKeyVersion, subject(key, &version(key, State::Active)))
    };
    assert_eq!(export(&key), Err(Refusal::NotExportable));
    key.exportable = true;
    assert_eq!(export(&key), Err(Refusal::NeedsApproval));
}

#[test]
fn whoever_guards_a_step_guards_its_date_and_the_way_back() {
    let alice = Member::Principal("users/alice".parse().unwrap());
    let guards = BTreeSet::from([Action::DeactivateKeyVersion]);
    let quorum = QuorumPolicy::new(guards, Approvers { n: 1, members: vec![alice] }).unwrap();
    let guarded = Key { quorum: Some(quorum), ..key() };
    let manager = caller(Role::KeyManager, "r");
    let ask = |action| {
        let version = version(&guarded, State::Active)
            .after_step(Transition::Deactivate, Timestamp(4), 100)
            .unwrap();
        ask(&manager, action, subject(&guarded, &version))
    };
    assert_eq!(ask(Action::SetKeyVersionDates), Err(Refusal::NeedsApproval));
    assert_eq!(ask(Action::UndoKeyVersionStep), Err(Refusal::NeedsApproval));
    assert_eq!(ask(Action::DisableKeyVersion), Ok(()));
}

#[test]
fn only_the_last_step_is_undone_and_only_in_its_time() {
    let key = key();
    let manager = caller(Role::KeyManager, "r");
    let undo =
        |version: &Version| ask(&manager, Action::UndoKeyVersionStep, subject(&key, version));
    let suspended = |window_ms| {
        version(&key, State::Active)
            .after_step(Transition::Suspend, Timestamp(4), window_ms)
            .unwrap()
    };
    assert_eq!(undo(&suspended(2)), Ok(()));
    assert_eq!(undo(&suspended(1)), Err(Refusal::NothingToUndo));
    assert_eq!(undo(&version(&key, State::Active)), Err(Refusal::NothingToUndo));
}

#[test]
fn the_daemon_rotates_when_the_schedule_or_the_count_says_so() {
    let rotation = Rotation { period_ms: 10, next_at: Timestamp(5), uses_max: 0 };
    let rotate = |rotation, action| {
        let key = Key { rotation, ..key() };
        let daemon = "apps/kmsd".parse().unwrap();
        let daemon = Caller::authenticated(daemon, Authentication::Daemon, vec![]);
        ask(&daemon, action, Subject::Key(&key))
    };
    let at =
        |next_at, uses_max| Some(Rotation { next_at: Timestamp(next_at), uses_max, ..rotation });
    assert_eq!(rotate(at(5, 0), Action::CreateKeyVersion), Ok(()));
    assert_eq!(rotate(at(6, 7), Action::CreateKeyVersion), Ok(()));
    assert!(rotate(at(6, 0), Action::CreateKeyVersion).is_err());
    assert!(rotate(None, Action::CreateKeyVersion).is_err());
    assert!(rotate(at(5, 0), Action::UpdateKey).is_err());
}

/// An AES key that does everything that AES does, in a hardened ring or a compatible one.
fn ask_aes(
    kind: RingKind,
    action: Action,
    mechanism: Mechanism,
    manner: Manner,
) -> Option<Refusal> {
    let ring = Ring { policy: RingPolicy { kind, ..RingPolicy::default() }, ..RING.clone() };
    let usages = [Usage::Decrypt, Usage::Encrypt, Usage::Unwrap, Usage::Wrap];
    let key = Key {
        algorithm: Algorithm::Aes256,
        usages: BTreeSet::from(usages),
        mechanisms: Algorithm::Aes256.mechanisms().iter().copied().collect(),
        trusted: true,
        ..key()
    };
    let subject = Subject::Version {
        ring: &ring,
        key: &key,
        version: &version(&key, State::Active),
        transition: None,
        mechanism: Some(mechanism),
        manner,
    };
    ask(&caller(Role::CryptoUser, "r"), action, subject).err()
}

#[test]
fn in_a_hardened_ring_the_daemon_makes_the_iv_of_what_an_iv_used_twice_would_break() {
    let manner = Manner { callers_iv: true, ..Manner::default() };
    let asked = |kind, mechanism| ask_aes(kind, Action::Encrypt, mechanism, manner);
    let refused = Refusal::RingPolicy(crate::ring_policy::Misfit::CallersIv(Mechanism::AesGcm));
    assert_eq!(asked(RingKind::Hardened, Mechanism::AesGcm), Some(refused));
    assert_eq!(asked(RingKind::Hardened, Mechanism::AesCbcPad), None);
    assert_eq!(asked(RingKind::Compatible, Mechanism::AesGcm), None);
}

#[test]
fn a_version_makes_as_many_protections_as_its_mechanism_bears_and_not_one_more() {
    let asked = |mechanism, action, protection| {
        let manner = Manner { protection, ..Manner::default() };
        ask_aes(RingKind::Hardened, action, mechanism, manner)
    };
    let (gcm, max) = (Mechanism::AesGcm, 1 << 32);
    assert_eq!(asked(gcm, Action::Encrypt, max), None);
    let refused = Some(Refusal::InvocationLimit { max });
    assert_eq!(asked(gcm, Action::Encrypt, max + 1), refused);
    assert_eq!(asked(gcm, Action::WrapKey, max + 1), refused);
    assert_eq!(asked(gcm, Action::Decrypt, max + 1), None);
    assert_eq!(asked(Mechanism::AesCbcPad, Action::Encrypt, max + 1), None);
}

#[test]
fn a_copy_is_bound_by_what_is_counted_of_its_material_and_by_no_more() {
    let key = Key {
        algorithm: Algorithm::Aes256,
        usages: BTreeSet::from([Usage::Encrypt]),
        mechanisms: BTreeSet::from([Mechanism::AesGcm, Mechanism::AesCbcPad]),
        ..key()
    };
    let mut version = version(&key, State::Active);
    version.header.origin = Origin::Copied;
    version.header.lineage = version.header.lineage.key.version(7);
    let encrypt = |mechanism, protection| {
        let subject = Subject::Version {
            ring: &RING,
            key: &key,
            version: &version,
            transition: None,
            mechanism: Some(mechanism),
            manner: Manner { protection, ..Manner::default() },
        };
        ask(&caller(Role::CryptoUser, "r"), Action::Encrypt, subject)
    };
    let max = 1 << 32;
    assert_eq!(encrypt(Mechanism::AesGcm, max), Ok(()));
    assert_eq!(encrypt(Mechanism::AesGcm, max + 1), Err(Refusal::InvocationLimit { max }));
    assert_eq!(encrypt(Mechanism::AesCbcPad, max + 1), Ok(()));
}

#[test]
fn a_line_of_keys_that_was_put_to_one_kind_of_use_is_shut_to_the_other() {
    let asked = |kind, action, committed| {
        let mechanism = match action {
            Action::Encrypt | Action::Decrypt => Mechanism::AesGcm,
            _ => Mechanism::AesKwp,
        };
        ask_aes(kind, action, mechanism, Manner { committed, ..Manner::default() })
    };
    let (data, keys) = (Commitment::Data, Commitment::Keys);
    for (action, kind, other) in [
        (Action::Encrypt, data, keys),
        (Action::Decrypt, data, keys),
        (Action::WrapKey, keys, data),
        (Action::UnwrapKey, keys, data),
    ] {
        assert_eq!(asked(RingKind::Hardened, action, None), None);
        assert_eq!(asked(RingKind::Hardened, action, Some(kind)), None);
        let refused = Some(Refusal::UseConflict { committed: other });
        assert_eq!(asked(RingKind::Hardened, action, Some(other)), refused, "{action}");
        assert_eq!(asked(RingKind::Compatible, action, Some(other)), None);
    }
}

#[test]
fn a_copy_may_conflict_with_its_original_even_where_each_does_one_thing_only() {
    let does = |usages: &[Usage]| {
        let usages = usages.iter().copied().collect();
        version(&Key { algorithm: Algorithm::Aes256, usages, ..key() }, State::Active)
    };
    assert!(does(&[Usage::Decrypt, Usage::Wrap]).may_conflict());
    let mut one = does(&[Usage::Encrypt, Usage::Decrypt]);
    assert!(!one.may_conflict());
    one.header.lineage = one.header.lineage.key.version(7);
    assert!(one.may_conflict());
}

#[test]
fn only_what_is_in_full_use_is_copied() {
    let key = key();
    let user = caller(Role::CryptoUser, "r");
    let copy = |version: &Version| ask(&user, Action::CopyKey, subject(&key, version));
    for state in State::ALL {
        let expected = match state {
            State::Active => Ok(()),
            state => Err(Refusal::StateRefuses { state }),
        };
        assert_eq!(copy(&version(&key, state)), expected);
    }
    let disabled = Version { enabled: false, ..version(&key, State::Active) };
    assert_eq!(copy(&disabled), Err(Refusal::Disabled));
}

#[test]
fn whoever_guards_a_step_is_asked_when_an_undo_comes_to_the_same() {
    let alice = Member::Principal("users/alice".parse().unwrap());
    let guards = BTreeSet::from([Action::ResumeKeyVersion]);
    let quorum = QuorumPolicy::new(guards, Approvers { n: 1, members: vec![alice] }).unwrap();
    let guarded = Key { quorum: Some(quorum), ..key() };
    let suspended = version(&guarded, State::Active)
        .after_step(Transition::Suspend, Timestamp(4), 100)
        .unwrap();
    let manager = caller(Role::KeyManager, "r");
    let undo = ask(&manager, Action::UndoKeyVersionStep, subject(&guarded, &suspended));
    assert_eq!(undo, Err(Refusal::NeedsApproval));
}

#[test]
fn an_officers_trust_in_a_key_is_no_trust_in_material_from_outside() {
    let key = Key {
        algorithm: Algorithm::Aes256,
        usages: BTreeSet::from([Usage::Wrap]),
        mechanisms: BTreeSet::from([Mechanism::AesKwp]),
        trusted: true,
        ..key()
    };
    let user = caller(Role::CryptoUser, "r");
    let mut wrapping = version(&key, State::Active);
    let wrap = |version: &Version| ask(&user, Action::WrapKey, subject(&key, version));
    assert_eq!(wrap(&wrapping), Ok(()));
    wrapping.header.origin = Origin::Imported;
    assert_eq!(wrap(&wrapping), Err(Refusal::NotTrusted));
}

/// The word of `who`, who alone is asked, over `action` on `resource`.
fn approved(policy: &QuorumPolicy, who: &str, action: Action, resource: &str) -> Approved {
    approved_by(Guarding::Key(policy), &[who], action, resource).unwrap()
}

/// The word of each of `who` over `action` on `resource`, if that is enough for those who guard it.
fn approved_by(
    guarding: Guarding<'_>,
    who: &[&str],
    action: Action,
    resource: &str,
) -> Result<Approved, Unapproved> {
    let PolicyDigests { policy, of_key } = guarding.digests();
    let proposal = Proposal {
        type_: PROPOSAL_TYPE.to_owned(),
        appliance: "kms/test".to_owned(),
        action,
        resource: resource.to_owned(),
        etag: "7".to_owned(),
        policy_digest: policy,
        key_policy_digest: of_key,
        proposer: "apps/a".parse().unwrap(),
        nonce: Nonce([0; 32]),
        created_at: Timestamp(0),
        expires_at: Timestamp(1000),
        recipient: None,
        arguments: (action == Action::Verify).then(|| UseArguments::Verify {
            context: HexBytes(Vec::new()),
            data: Signed::Message(HexBytes(b"m".to_vec())),
            mechanism: Mechanism::EcdsaSha256,
            signature: HexBytes(vec![1]),
        }),
    };
    let bytes = proposal.to_bytes().unwrap();
    let (mut keys, mut approvals) = (BTreeMap::new(), Vec::new());
    for name in who {
        let approver: PrincipalName = name.parse().unwrap();
        let seed = Digest::of(&[name.as_bytes()]).0;
        let pair = ssh_key::private::Ed25519Keypair::from_seed(&seed);
        let secret = ssh_key::PrivateKey::from(pair);
        let signed = secret.sign(NAMESPACE, ssh_key::HashAlg::Sha512, &bytes).unwrap();
        let signature = signed.to_pem(ssh_key::LineEnding::LF).unwrap();
        let key = secret.public_key().to_openssh().unwrap().parse().unwrap();
        keys.insert(approver.clone(), vec![key]);
        approvals.push(Approval { approver, signature });
    }
    let (appliance, etag, now) = ("kms/test", "7", Timestamp(5));
    let circumstances = Circumstances { appliance, etag, guarding, keys: &keys, now };
    Approved::by(&bytes, &approvals, &circumstances)
}

#[test]
fn an_approval_is_for_one_action_on_one_resource_under_one_policy() {
    let policy = |who: &str| {
        let guards = BTreeSet::from([Action::DestroyKeyVersion]);
        let members = vec![Member::Principal(who.parse().unwrap())];
        QuorumPolicy::new(guards, Approvers { n: 1, members }).unwrap()
    };
    let (own, other) = (policy("users/alice"), policy("users/bob"));
    let key = Key { quorum: Some(own.clone()), ..key() };
    let version = version(&key, State::Deactivated);
    let ask = |approved: Approved| {
        let subject = Subject::Version {
            ring: &RING,
            key: &key,
            version: &version,
            transition: Some(Transition::Destroy),
            mechanism: None,
            manner: Manner::default(),
        };
        let intent = Intent {
            action: Action::DestroyKeyVersion,
            resource: Resource::Version(name()),
            operation_id: OperationId([1; 16]),
            request_digest: Digest([2; 32]),
            subject,
            other: None,
            ingredients: Ingredients::default(),
            approved_only: false,
            region: "l",
            now: Timestamp(5),
        };
        let grounds = Grounds { approval: Some(Box::new(approved)), ..Grounds::default() };
        decide(&caller(Role::KeyManager, "r"), &intent, grounds, None)
            .map(|_| ())
            .map_err(|denial| denial.refusal)
    };
    let destroy = Action::DestroyKeyVersion;
    assert_eq!(ask(approved(&own, "users/alice", destroy, VERSION)), Ok(()));
    for elsewhere in [
        approved(&own, "users/alice", Action::CompromiseKeyVersion, VERSION),
        approved(&own, "users/alice", destroy, &VERSION.replace("/1", "/2")),
        approved(&other, "users/bob", destroy, VERSION),
    ] {
        assert_eq!(ask(elsewhere), Err(Refusal::ApprovalMismatch));
    }
}

#[test]
fn what_ring_and_key_both_guard_takes_the_approval_of_both() {
    let destroy = Action::DestroyKeyVersion;
    let policy = |n, who: &[&str]| {
        let members = who.iter().map(|who| Member::Principal(who.parse().unwrap())).collect();
        QuorumPolicy::new(BTreeSet::from([destroy]), Approvers { n, members }).unwrap()
    };
    let (alice, bob, carol, officer) = ("users/alice", "users/bob", "users/carol", "users/officer");
    let (rings, keys) = (policy(1, &[officer]), policy(2, &[alice, bob, carol]));
    let ring = Ring { quorum: Some(rings.clone()), ..RING.clone() };
    let key = Key { quorum: Some(keys.clone()), ..key() };
    let version = version(&key, State::Deactivated);
    let both = Guarding::Both { ring: &rings, key: &keys };
    assert_eq!(guarding(&ring, &key, &version, destroy, Timestamp(5)), Some(both));

    let count = |who: &[&str]| approved_by(both, who, destroy, VERSION).map(|_| ());
    for too_few in [&[][..], &[officer], &[alice, bob, carol], &[officer, alice]] {
        let valid = too_few.len();
        assert_eq!(count(too_few), Err(Unapproved::TooFew { valid }), "{too_few:?}");
    }
    assert_eq!(count(&[officer, alice, carol]), Ok(()));

    let ask = |ring: &Ring, key: &Key, approved: Approved| {
        let subject = Subject::Version {
            ring,
            key,
            version: &Version {
                header: SealHeader {
                    quorum_digest: key.quorum.as_ref().map(QuorumPolicy::digest),
                    ..version.header.clone()
                },
                ..version.clone()
            },
            transition: Some(Transition::Destroy),
            mechanism: None,
            manner: Manner::default(),
        };
        let intent = Intent {
            action: destroy,
            resource: Resource::Version(name()),
            operation_id: OperationId([1; 16]),
            request_digest: Digest([2; 32]),
            subject,
            other: None,
            ingredients: Ingredients::default(),
            approved_only: false,
            region: "l",
            now: Timestamp(5),
        };
        let grounds = Grounds { approval: Some(Box::new(approved)), ..Grounds::default() };
        decide(&caller(Role::KeyManager, "r"), &intent, grounds, None)
            .map(|permit| permit.leaf)
            .map_err(|denial| denial.refusal)
    };
    let enough = || approved_by(both, &[officer, alice, carol], destroy, VERSION).unwrap();
    let leaf = ask(&ring, &key, enough()).unwrap();
    assert_eq!(leaf.quorum_digest, rings.digest().as_bytes());
    assert_eq!(leaf.key_quorum_digest, keys.digest().as_bytes());
    assert_eq!(leaf.approvers, [alice, carol, officer]);
    // What is enough for either alone does not do for both, nor the other way round.
    let of_ring = approved_by(Guarding::Ring(&rings), &[officer], destroy, VERSION).unwrap();
    assert_eq!(ask(&ring, &key, of_ring).err(), Some(Refusal::ApprovalMismatch));
    let of_key = approved_by(Guarding::Key(&keys), &[alice, bob], destroy, VERSION).unwrap();
    assert_eq!(ask(&ring, &key, of_key).err(), Some(Refusal::ApprovalMismatch));
    let unguarded = Ring { quorum: None, ..RING.clone() };
    assert_eq!(ask(&unguarded, &key, enough()).err(), Some(Refusal::ApprovalMismatch));
    // Nor does what was approved under another policy of either, or with the two exchanged.
    let looser = policy(1, &[alice, bob, carol]);
    let other_ring = Ring { quorum: Some(looser.clone()), ..RING.clone() };
    assert_eq!(ask(&other_ring, &key, enough()).err(), Some(Refusal::ApprovalMismatch));
    let other_key = Key { quorum: Some(looser), ..key.clone() };
    assert_eq!(ask(&ring, &other_key, enough()).err(), Some(Refusal::ApprovalMismatch));
    let exchanged = Ring { quorum: Some(keys.clone()), ..RING.clone() };
    let exchanged_key = Key { quorum: Some(rings.clone()), ..key.clone() };
    let exchanged = ask(&exchanged, &exchanged_key, enough());
    assert_eq!(exchanged.err(), Some(Refusal::ApprovalMismatch));
}

fn quorum_of(who: &str, guards: &[Action]) -> QuorumPolicy {
    let members = vec![Member::Principal(who.parse().unwrap())];
    let guards = guards.iter().copied().collect();
    QuorumPolicy::new(guards, Approvers { n: 1, members }).unwrap()
}

/// Asks for a use of the one version, with an approval or without.
fn use_under(
    subject: (&Ring, &Key, &Version),
    action: Action,
    approval: Option<Approved>,
) -> Result<(), Refusal> {
    use_in(subject, action, Manner::default(), approval)
}

/// The same, of a use that brings something along.
fn use_in(
    (ring, key, version): (&Ring, &Key, &Version),
    action: Action,
    manner: Manner,
    approval: Option<Approved>,
) -> Result<(), Refusal> {
    let (transition, mechanism) = (None, None);
    let subject = Subject::Version { ring, key, version, transition, mechanism, manner };
    let intent = Intent {
        action,
        resource: Resource::Version(name()),
        operation_id: OperationId([1; 16]),
        request_digest: Digest([2; 32]),
        subject,
        other: None,
        ingredients: Ingredients::default(),
        approved_only: false,
        region: "l",
        now: Timestamp(5),
    };
    let grounds = Grounds { approval: approval.map(Box::new), ..Grounds::default() };
    let user = caller(Role::CryptoUser, "r");
    decide(&user, &intent, grounds, None).map(|_| ()).map_err(|denial| denial.refusal)
}

#[test]
fn a_compromised_version_is_used_under_its_quorum_and_no_other() {
    let export = [Action::ExportKeyVersion];
    let (own, other) = (quorum_of("users/alice", &export), quorum_of("users/bob", &export));
    let key = Key { quorum: Some(own.clone()), ..key() };
    let compromised = version(&key, State::Compromised);
    let ask = |action, approval| use_under((&RING, &key, &compromised), action, approval);
    let verify = Action::Verify;
    assert_eq!(ask(verify, None), Err(Refusal::NeedsApproval));
    let good = || Some(approved(&own, "users/alice", verify, VERSION));
    assert_eq!(ask(verify, good()), Ok(()));
    let foreign = approved(&other, "users/bob", verify, VERSION);
    assert_eq!(ask(verify, Some(foreign)), Err(Refusal::ApprovalMismatch));
    let elsewhere = approved(&own, "users/alice", verify, &VERSION.replace("/1", "/2"));
    assert_eq!(ask(verify, Some(elsewhere)), Err(Refusal::ApprovalMismatch));
    // It protects nothing any more, whoever wants it.
    let state = State::Compromised;
    assert_eq!(ask(Action::Sign, good()), Err(Refusal::StateRefuses { state }));
    // Where the officers have a quorum as well, both are asked, here as elsewhere.
    let ring = Ring { quorum: Some(other.clone()), ..RING.clone() };
    let under_both = |approval| use_under((&ring, &key, &compromised), verify, Some(approval));
    for alone in [
        approved(&own, "users/alice", verify, VERSION),
        approved(&other, "users/bob", verify, VERSION),
    ] {
        assert_eq!(under_both(alone), Err(Refusal::ApprovalMismatch));
    }
    let guarding = Guarding::Both { ring: &other, key: &own };
    let both = approved_by(guarding, &["users/alice", "users/bob"], verify, VERSION);
    assert_eq!(under_both(both.unwrap()), Ok(()));
    // Before, nobody had to be asked.
    let active = version(&key, State::Active);
    assert_eq!(use_under((&RING, &key, &active), verify, None), Ok(()));
}

#[test]
fn a_compromised_version_without_a_quorum_that_guards_it_is_used_by_nobody() {
    let destroy = quorum_of("users/alice", &[Action::DestroyKeyVersion]);
    for quorum in [None, Some(destroy.clone())] {
        let key = Key { quorum, ..key() };
        let compromised = version(&key, State::Compromised);
        let ask = |approval| use_under((&RING, &key, &compromised), Action::Verify, approval);
        assert_eq!(ask(None), Err(Refusal::NoQuorum));
        let approval = approved(&destroy, "users/alice", Action::Verify, VERSION);
        assert_eq!(ask(Some(approval)), Err(Refusal::NoQuorum));
    }
    assert_eq!(Refusal::NoQuorum.reason(), "NEEDS_APPROVAL");
}

#[test]
fn a_guarded_use_is_not_to_be_had_in_another_way() {
    let policy = quorum_of("users/alice", &[Action::Decrypt, Action::Verify]);
    let mechanisms = BTreeSet::from([Mechanism::RsaOaepSha256, Mechanism::RsaPkcs1Sha256]);
    let usages = BTreeSet::from([Usage::Decrypt, Usage::Verify, Usage::Unwrap, Usage::Export]);
    let algorithm = Algorithm::Rsa3072;
    let guarded =
        Key { quorum: Some(policy), algorithm, usages, mechanisms, exportable: true, ..key() };
    let ask = |state, action| {
        let version = version(&guarded, state);
        use_under((&RING, &guarded, &version), action, None)
    };
    assert_eq!(ask(State::Active, Action::Decrypt), Err(Refusal::NeedsApproval));
    assert_eq!(ask(State::Active, Action::Verify), Err(Refusal::NeedsApproval));
    assert_eq!(ask(State::Active, Action::ReEncrypt), Err(Refusal::NeedsApproval));
    assert_eq!(ask(State::Compromised, Action::UnwrapKey), Err(Refusal::NeedsApproval));
    // Handing it out under a wrapping key is asked of the quorum as well.
    let version = version(&guarded, State::Active);
    let export = permit_of_export(&guarded, &version);
    assert_eq!(export, Err(Refusal::NotProposable(Action::WrapKey)));
}

/// Encrypting a ciphertext under its own IV opens it, whatever it is called.
#[test]
fn who_guards_decrypt_guards_encrypt_with_an_iv_of_the_callers() {
    let policy = quorum_of("users/alice", &[Action::Decrypt]);
    let ask = |quorum, mechanism, callers_iv| {
        let key = Key {
            quorum,
            algorithm: Algorithm::Aes256,
            usages: BTreeSet::from([Usage::Encrypt, Usage::Decrypt]),
            mechanisms: BTreeSet::from([mechanism]),
            ..key()
        };
        let manner = Manner { callers_iv, ..Manner::default() };
        let version = version(&key, State::Active);
        use_in((&RING, &key, &version), Action::Encrypt, manner, None)
    };
    for mechanism in [Mechanism::AesCtr, Mechanism::AesCbc] {
        let refused = Err(Refusal::NotProposable(Action::Encrypt));
        assert_eq!(ask(Some(policy.clone()), mechanism, true), refused);
        assert_eq!(ask(Some(policy.clone()), mechanism, false), Ok(()));
        assert_eq!(ask(None, mechanism, true), Ok(()));
    }
}

/// Asks for the second half of a wrapping: that the version leaves.
fn permit_of_export(key: &Key, version: &Version) -> Result<(), Refusal> {
    let subject = |key, version| Subject::Version {
        ring: &RING,
        key,
        version,
        transition: None,
        mechanism: None,
        manner: Manner::default(),
    };
    let wrapping = Key {
        algorithm: Algorithm::Aes256,
        usages: BTreeSet::from([Usage::Wrap]),
        mechanisms: BTreeSet::from([Mechanism::AesKwp]),
        trusted: true,
        ..self::key()
    };
    let by = self::version(&wrapping, State::Active);
    let intent = Intent {
        action: Action::WrapKey,
        resource: Resource::Version(name()),
        operation_id: OperationId([1; 16]),
        request_digest: Digest([2; 32]),
        subject: subject(&wrapping, &by),
        other: Some(Other {
            action: Action::ExportKeyVersion,
            resource: Resource::Version(name()),
            subject: subject(key, version),
        }),
        ingredients: Ingredients::default(),
        approved_only: false,
        region: "l",
        now: Timestamp(5),
    };
    let roles = [Role::CryptoUser, Role::KeyManager];
    let grants = roles.map(|role| Grant::over(role, Scope::Appliance)).to_vec();
    let principal = "apps/a".parse().unwrap();
    let caller = Caller::authenticated(principal, Authentication::UnixPeer(0), grants);
    let decided = decide(&caller, &intent, Grounds::default(), None);
    decided.map(|_| ()).map_err(|denial| denial.refusal)
}

/// What the answer says of a use, and whether a daemon that gives approved services only gives it.
fn service_of(
    action: Action,
    subject: Subject<'_>,
    ingredients: Ingredients,
) -> (ServiceIndicator, Result<(), Refusal>) {
    let ask = |approved_only| {
        let intent = Intent {
            action,
            resource: Resource::Version(name()),
            operation_id: OperationId([1; 16]),
            request_digest: Digest([2; 32]),
            subject,
            other: None,
            ingredients,
            approved_only,
            region: "l",
            now: Timestamp(5),
        };
        let role = match action.gate() {
            crate::action::Gate::Roles(roles) => roles[0],
            _ => Role::CryptoUser,
        };
        decide(&caller(role, "r"), &intent, Grounds::default(), None)
    };
    let permit = ask(false).unwrap();
    let told = ask(true).map(|_| ()).map_err(|denial| {
        assert_eq!(denial.leaf.service(), ServiceIndicator::Unspecified);
        denial.refusal
    });
    (permit.leaf.service(), told)
}

#[test]
fn approved_services_are_told_from_the_others() {
    use ServiceIndicator::{Approved, NotApproved, NotCryptographic};
    let refused = || Err(Refusal::ServiceNotApproved);
    let plain = |action| service_of(action, Subject::Plain, Ingredients::default());
    assert_eq!(plain(Action::Digest), (Approved, Ok(())));
    assert_eq!(plain(Action::GenerateRandom), (Approved, Ok(())));
    assert_eq!(plain(Action::ListTokens), (NotCryptographic, Ok(())));
    // Without these nobody would get in, so they are told and not refused.
    assert_eq!(plain(Action::Unseal), (NotApproved, Ok(())));
    assert_eq!(plain(Action::LoginToken), (NotApproved, Ok(())));
    for (algorithm, expected) in [
        (Algorithm::Aes256, (Approved, Ok(()))),
        (Algorithm::ChaCha20, (NotApproved, refused())),
        (Algorithm::XWing, (NotApproved, refused())),
        (Algorithm::OpaqueSecret, (Approved, Ok(()))),
    ] {
        let made = service_of(Action::CreateKey, Subject::Plain, Ingredients::key(algorithm));
        assert_eq!(made, expected, "{algorithm}");
    }
    let x_wing = Ingredients::import(crate::transfer::ImportMethod::XWingHkdfSha256Aes256Gcm);
    let job = service_of(Action::CreateImportJob, Subject::Plain, x_wing);
    assert_eq!(job, (NotApproved, refused()));
}

#[test]
fn how_a_key_is_used_counts_as_much_as_by_what() {
    use ServiceIndicator::{Approved, NotApproved, NotCryptographic};
    let key = Key {
        algorithm: Algorithm::Aes256,
        usages: BTreeSet::from([Usage::Encrypt, Usage::Decrypt]),
        mechanisms: BTreeSet::from([Mechanism::AesGcm, Mechanism::AesCtr]),
        ..key()
    };
    let version = version(&key, State::Active);
    let compatible = Ring {
        policy: RingPolicy { kind: RingKind::Compatible, ..RingPolicy::default() },
        ..RING.clone()
    };
    let used = |action, mechanism, manner| {
        let subject = Subject::Version {
            ring: &compatible,
            key: &key,
            version: &version,
            transition: None,
            mechanism: Some(mechanism),
            manner,
        };
        service_of(action, subject, Ingredients::default())
    };
    let plain = Manner::default();
    let brought = Manner { callers_iv: true, ..plain };
    let segmented = Manner { segmented: true, ..plain };
    let refused = (NotApproved, Err(Refusal::ServiceNotApproved));
    let given = (Approved, Ok(()));
    assert_eq!(used(Action::Encrypt, Mechanism::AesGcm, plain), given);
    assert_eq!(used(Action::Decrypt, Mechanism::AesGcm, plain), given);
    assert_eq!(used(Action::Encrypt, Mechanism::AesGcm, brought), refused);
    assert_eq!(used(Action::Encrypt, Mechanism::AesGcm, segmented), refused);
    assert_eq!(used(Action::Decrypt, Mechanism::AesGcm, segmented), refused);
    assert_eq!(used(Action::Encrypt, Mechanism::AesCtr, brought), given);
    assert_eq!(used(Action::Encrypt, Mechanism::AesCtr, segmented), given);
    let destroyed = used(Action::SuspendKeyVersion, Mechanism::AesGcm, plain);
    assert_eq!(destroyed, (NotCryptographic, Ok(())));
}

/// What a crypto-user of the ring asks of the version, at `now`.
fn signing<'a>(subject: Subject<'a>, request: u8, now: u64) -> Intent<'a> {
    Intent {
        action: Action::Sign,
        resource: Resource::Version(name()),
        operation_id: OperationId([request; 16]),
        request_digest: Digest([request; 32]),
        subject,
        other: None,
        ingredients: Ingredients::default(),
        approved_only: false,
        region: "l",
        now: Timestamp(now),
    }
}

/// A use that has opened a lease for `uses_max` more, until 100.
fn leased(user: &Caller, intent: &Intent<'_>, uses_max: u64) -> (Leaf, Option<Lease>) {
    let mut permit = decide(user, intent, Grounds::default(), None).unwrap();
    permit.offer_lease(LeaseTerms { uses_max, until: Timestamp(100) });
    let mut unrecorded = permit.record(Vec::new());
    let leaf = Leaf::from_bytes(&unrecorded.take_leaf()).unwrap();
    let receipt = CommitReceipt::durable(7, vec![*unrecorded.leaf_hash()]);
    let recorded = unrecorded.on_disk(&receipt).unwrap();
    assert_eq!((recorded.audit_index(), recorded.use_number()), (7, None));
    let lease = recorded.lease(user);
    let resource = Resource::Version(name());
    let _spent = recorded.spend(Action::Sign, &resource, &intent.request_digest).unwrap();
    (leaf, lease)
}

fn in_use<'a>(key: &'a Key, version: &'a Version) -> Subject<'a> {
    let (transition, mechanism, manner) = (None, None, Manner::default());
    Subject::Version { ring: &RING, key, version, transition, mechanism, manner }
}

#[test]
fn uses_on_a_lease_are_counted_and_each_is_decided_anew() {
    let (key, user) = (key(), caller(Role::CryptoUser, "r"));
    let (active, suspended) = (version(&key, State::Active), version(&key, State::Suspended));
    let (leaf, lease) = leased(&user, &signing(in_use(&key, &active), 1, 5), 3);
    assert_eq!((leaf.lease_uses_max, leaf.lease_until_ms), (3, 100));
    let lease = lease.unwrap();
    let refused = |caller: &Caller, intent: &Intent<'_>| lease.decide(caller, intent).unwrap_err();

    // Another state, caller, mechanism, action or resource, and a time before the lease or after it.
    let unlike = NotLeased::Unlike;
    assert_eq!(refused(&user, &signing(in_use(&key, &suspended), 2, 6)), unlike);
    for stranger in [caller(Role::CryptoUser, "s"), caller(Role::Auditor, "r")] {
        assert_eq!(refused(&stranger, &signing(in_use(&key, &active), 2, 6)), unlike);
    }
    let somebody = Caller::authenticated(
        "apps/b".parse().unwrap(),
        Authentication::UnixPeer(0),
        vec![Grant::over(Role::CryptoUser, Scope::Ring(name().key.ring))],
    );
    assert_eq!(refused(&somebody, &signing(in_use(&key, &active), 2, 6)), unlike);
    let verify = Intent { action: Action::Verify, ..signing(in_use(&key, &active), 2, 6) };
    assert_eq!(refused(&user, &verify), unlike);
    let elsewhere = Intent { region: "m", ..signing(in_use(&key, &active), 2, 6) };
    assert_eq!(refused(&user, &elsewhere), unlike);
    let mut two = Key { ..key.clone() };
    two.mechanisms.insert(Mechanism::EcdsaSha512);
    let asked = Subject::Version {
        ring: &RING,
        key: &two,
        version: &active,
        transition: None,
        mechanism: Some(Mechanism::EcdsaSha512),
        manner: Manner::default(),
    };
    assert_eq!(refused(&user, &signing(asked, 2, 6)), unlike);
    for now in [4, 100] {
        assert_eq!(refused(&user, &signing(in_use(&key, &active), 2, now)), NotLeased::Over);
    }
    assert_eq!(lease.uses(), 0);

    for number in 1..=3_u8 {
        let intent = signing(in_use(&key, &active), number + 1, 10 + u64::from(number));
        let recorded = lease.decide(&user, &intent).unwrap();
        assert_eq!(recorded.use_number(), Some(number.into()));
        assert_eq!(recorded.audit_index(), 7);
        // A use on a lease opens none.
        assert!(recorded.lease(&user).is_none());
        // It is leave for that one request.
        let resource = Resource::Version(name());
        let spent = recorded.spend(Action::Sign, &resource, &intent.request_digest);
        assert!(spent.is_ok());
    }
    assert_eq!(refused(&user, &signing(in_use(&key, &active), 9, 20)), NotLeased::Over);

    let end = lease.close(Timestamp(30)).unwrap();
    assert_eq!((end.outcome(), end.count, end.began_at_index), (LeafOutcome::Finished, 3, 7));
    assert_eq!((end.lease_uses_max, end.request_digest.len()), (0, 0));
    let digests = (1..=3_u8).flat_map(|number| {
        let time = Timestamp(10 + u64::from(number));
        *crate::audit::use_digest(&Digest([number + 1; 32]), time).as_bytes()
    });
    assert_eq!(end.use_digests, digests.collect::<Vec<_>>());
    assert!(lease.close(Timestamp(31)).is_none());
}

#[test]
fn nothing_is_counted_on_a_lease_that_is_closed() {
    let (key, user) = (key(), caller(Role::CryptoUser, "r"));
    let active = version(&key, State::Active);
    let (_, lease) = leased(&user, &signing(in_use(&key, &active), 1, 5), 3);
    let lease = lease.unwrap();
    assert_eq!(lease.close(Timestamp(6)).unwrap().count, 0);
    let late = lease.decide(&user, &signing(in_use(&key, &active), 2, 6));
    assert_eq!(late.unwrap_err(), NotLeased::Over);
}

#[test]
fn a_lease_is_of_the_size_that_a_leaf_can_tell_of() {
    let (key, user) = (key(), caller(Role::CryptoUser, "r"));
    let active = version(&key, State::Active);
    let (leaf, lease) = leased(&user, &signing(in_use(&key, &active), 1, 5), LEASE_USES_MAX + 1);
    assert_eq!(leaf.lease_uses_max, LEASE_USES_MAX);
    let lease = lease.unwrap();
    for _ in 0..LEASE_USES_MAX {
        let recorded = lease.decide(&user, &signing(in_use(&key, &active), 2, 6)).unwrap();
        drop(recorded);
    }
    let end = lease.close(Timestamp(7)).unwrap().to_bytes();
    assert!(end.len() < crate::audit::tile::LEAF_BYTES_MAX / 2 + 1024, "{}", end.len());
}

#[test]
fn a_lost_lease_was_used_at_most_as_often_as_it_permitted() {
    let (key, user) = (key(), caller(Role::CryptoUser, "r"));
    let active = version(&key, State::Active);
    let (leaf, _) = leased(&user, &signing(in_use(&key, &active), 1, 5), 3);
    let lost = lost_lease(&leaf, 7, Timestamp(50));
    assert_eq!((lost.outcome(), lost.reason.as_str()), (LeafOutcome::BrokenOff, LEASE_LOST));
    assert_eq!((lost.count, lost.began_at_index, lost.lease_uses_max), (3, 7, 0));
    assert!(lost.can_arise_sealed());
}
