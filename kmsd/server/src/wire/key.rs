//! Rings, keys and versions on the wire.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kms_core::algorithm::{
    Algorithm, GENERIC_SECRET_BYTES, GENERIC_SECRET_BYTES_MAX, GENERIC_SECRET_BYTES_MIN, Usage,
};
use kms_core::arguments::NewKey;
use kms_core::claims::EvidenceKind;
use kms_core::id::{Home, Timestamp};
use kms_core::key::{
    Floors, Key, LABEL_BYTES_MAX, LABELS_MAX, POLICY_BYTES_MAX, Pkcs11Attributes,
    ReleaseRequirement, Ring, Rotation, Version,
};
use kms_core::mechanism::Mechanism;
use kms_core::permit::Refusal;
use kms_core::ring_policy::RingPolicy;
use kms_proto::v1;

use super::{
    algorithm, algorithm_out, bounded, compromise_reason_out, hex_decode, hex_encode, invalid,
    key_name, legacy_keys, legacy_keys_out, mechanisms, mechanisms_out, origin_out, parse, quorum,
    quorum_out, ring_kind, ring_kind_out, state_out, text, time, time_out, usages, usages_out,
};

/// Reads a key that is to be made; what the daemon decides is not read.
pub(crate) fn key(wire: v1::Key, home: &Home) -> Result<Key, Refusal> {
    let name = key_name("key.name", &wire.name, home)?;
    let algorithm = algorithm(wire.algorithm)?;
    let requirement = requirement(wire.release_requirement)?;
    let id = bounded("pkcs11_id", wire.pkcs11_id, PKCS11_ID_BYTES_MAX)?;
    let label = match text("pkcs11_label", wire.pkcs11_label)? {
        label if label.is_empty() => name.key.to_string(),
        label => label,
    };
    let Uses { mechanisms, usages } =
        uses(algorithm, &wire.mechanisms, &wire.usages, wire.exportable, requirement.is_some())?;
    Ok(Key {
        name,
        algorithm,
        usages,
        mechanisms,
        exportable: wire.exportable,
        trusted: false,
        created_at: Timestamp(0),
        deleted_at: None,
        labels: labels(wire.labels)?,
        requirement,
        quorum: quorum(wire.quorum)?,
        model: text("model", wire.model)?,
        dataset: text("dataset", wire.dataset)?,
        primary: 1,
        latest: 1,
        floors: Floors::default(),
        rotation: rotation(wire.rotation)?,
        pkcs11: Pkcs11Attributes { id: hex_encode(&id), label },
        audit_each_use: wire.audit_each_use,
    })
}

/// What a key is to be used for, and how.
#[derive(Debug)]
pub(crate) struct Uses {
    pub(crate) mechanisms: BTreeSet<Mechanism>,
    pub(crate) usages: BTreeSet<Usage>,
}

/// Reads mechanisms and usages that go together. No mechanism means the one that the algorithm
/// prefers, no usage means all that the mechanisms offer.
pub(crate) fn uses(
    algorithm: Algorithm,
    mechanisms: &[i32],
    usages: &[i32],
    exportable: bool,
    released: bool,
) -> Result<Uses, Refusal> {
    let mut mechanisms = self::mechanisms("mechanisms", mechanisms)?;
    if mechanisms.is_empty() {
        mechanisms.extend(algorithm.default_mechanism());
    }
    if let Some(foreign) = mechanisms.iter().find(|one| !algorithm.mechanisms().contains(one)) {
        let problem = format!("{algorithm} does not offer {foreign}");
        return Err(invalid("mechanisms", problem));
    }
    let mut usages = self::usages("usages", usages)?;
    if usages.is_empty() {
        usages = mechanisms.iter().flat_map(|one| one.usages().iter().copied()).collect();
        usages.extend(released.then_some(Usage::Release));
    }
    usages.extend(exportable.then_some(Usage::Export));
    let offered = |usage: &Usage| match usage {
        Usage::Export => exportable,
        Usage::Release => true,
        usage => mechanisms.iter().any(|mechanism| mechanism.offers(*usage)),
    };
    match usages.iter().find(|usage| !offered(usage)) {
        Some(Usage::Export) => Err(invalid("usages", "EXPORT needs a key that is exportable")),
        Some(usage) => Err(invalid("usages", format!("its mechanisms do not offer {usage}"))),
        None => Ok(Uses { mechanisms, usages }),
    }
}

/// Reads the length of a secret to be generated; 0 for key pairs.
pub(crate) fn length_bytes(algorithm: Algorithm, wire: u32) -> Result<u32, Refusal> {
    const FIELD: &str = "length_bytes";
    let asked = usize::try_from(wire).unwrap_or(usize::MAX);
    let length = match (algorithm, algorithm.secret_bytes()) {
        (Algorithm::GenericSecret, _) if asked == 0 => GENERIC_SECRET_BYTES,
        (Algorithm::GenericSecret, _) => {
            let bounds = GENERIC_SECRET_BYTES_MIN..=GENERIC_SECRET_BYTES_MAX;
            let problem = || invalid(FIELD, format!("expected {bounds:?} bytes"));
            Some(asked).filter(|asked| bounds.contains(asked)).ok_or_else(problem)?
        }
        (_, Some(length)) if asked == 0 || asked == length => length,
        (_, None) if asked == 0 => 0,
        _ => return Err(invalid(FIELD, format!("a key of {algorithm} has its own length"))),
    };
    u32::try_from(length).map_err(|_| invalid(FIELD, "too long"))
}

/// Reads a rotation, if there is one; without a time it begins when it is set.
pub(crate) fn rotation(wire: Option<v1::Rotation>) -> Result<Option<Rotation>, Refusal> {
    const FIELD: &str = "rotation";
    let Some(v1::Rotation { period, next_rotation_time, uses_max }) = wire else { return Ok(None) };
    let period_ms = match period {
        None => 0,
        Some(period) => {
            let millis = std::time::Duration::try_from(period).map(|period| period.as_millis());
            let millis = millis.ok().and_then(|millis| u64::try_from(millis).ok());
            let bounded = millis.filter(|millis| ROTATION_MS.contains(millis));
            bounded.ok_or_else(|| invalid(FIELD, "a period is 1 hour to 100 years"))?
        }
    };
    if period_ms == 0 && uses_max == 0 {
        return Err(invalid(FIELD, "expected a period, a number of uses, or both"));
    }
    let next_at = time(FIELD, next_rotation_time)?.unwrap_or(Timestamp(0));
    Ok(Some(Rotation { period_ms, next_at, uses_max }))
}

fn rotation_out(rotation: &Rotation) -> v1::Rotation {
    let period = std::time::Duration::from_millis(rotation.period_ms);
    v1::Rotation {
        period: Some(period).filter(|period| !period.is_zero()).and_then(|p| p.try_into().ok()),
        next_rotation_time: Some(rotation.next_at)
            .filter(|_| rotation.period_ms != 0)
            .and_then(time_out),
        uses_max: rotation.uses_max,
    }
}

/// Reads a ring's policy; hardened and without restrictions when not set.
pub(crate) fn ring_policy(wire: Option<v1::RingPolicy>) -> Result<RingPolicy, Refusal> {
    let Some(wire) = wire else { return Ok(RingPolicy::default()) };
    let v1::RingPolicy { kind, algorithms, mechanisms, required_labels, legacy_keys: legacy } =
        wire;
    if required_labels.len() > LABELS_MAX {
        return Err(invalid("policy.required_labels", format!("at most {LABELS_MAX} labels")));
    }
    Ok(RingPolicy {
        kind: ring_kind(kind)?,
        algorithms: algorithms.into_iter().map(algorithm).collect::<Result<_, _>>()?,
        mechanisms: self::mechanisms("policy.mechanisms", &mechanisms)?,
        required_labels: required_labels
            .into_iter()
            .map(|label| text("policy.required_labels", label))
            .collect::<Result<_, _>>()?,
        legacy_keys: legacy_keys(legacy)?,
    })
}

fn ring_policy_out(policy: &RingPolicy) -> v1::RingPolicy {
    v1::RingPolicy {
        kind: ring_kind_out(policy.kind).into(),
        algorithms: policy.algorithms.iter().copied().map(algorithm_out).collect(),
        mechanisms: mechanisms_out(&policy.mechanisms),
        required_labels: policy.required_labels.iter().cloned().collect(),
        legacy_keys: legacy_keys_out(policy.legacy_keys).into(),
    }
}

/// Reads a release requirement. Its policy must compile.
pub(crate) fn requirement(
    wire: Option<v1::ReleaseRequirement>,
) -> Result<Option<ReleaseRequirement>, Refusal> {
    const FIELD: &str = "release_requirement";
    let Some(wire) = wire else { return Ok(None) };
    let v1::ReleaseRequirement { kinds, may_be_unestablished, policy, free_usages } = wire;
    let kinds: BTreeSet<_> =
        kinds.iter().map(|kind| evidence_kind(kind)).collect::<Result<_, _>>()?;
    if kinds.is_empty() {
        return Err(invalid(FIELD, "name at least one kind of evidence, for example snp"));
    }
    if policy.len() > POLICY_BYTES_MAX || may_be_unestablished.len() > LABELS_MAX {
        return Err(invalid(FIELD, format!("a policy has at most {POLICY_BYTES_MAX} bytes")));
    }
    if may_be_unestablished.iter().any(|name| name.len() > LABEL_BYTES_MAX) {
        return Err(invalid(FIELD, "names of checks are short, for example revocation"));
    }
    kms_attest::hook::rego::Policy::compile(&policy).map_err(|error| invalid(FIELD, error))?;
    let free_usages = self::free_usages(&free_usages)?;
    let may_be_unestablished = may_be_unestablished.into_iter().collect();
    Ok(Some(ReleaseRequirement { kinds, may_be_unestablished, policy, free_usages }))
}

/// Reads a kind of evidence.
pub(crate) fn evidence_kind(text: &str) -> Result<EvidenceKind, Refusal> {
    parse("kind", text)
}

fn requirement_out(requirement: &ReleaseRequirement) -> v1::ReleaseRequirement {
    v1::ReleaseRequirement {
        kinds: requirement.kinds.iter().map(ToString::to_string).collect(),
        may_be_unestablished: requirement.may_be_unestablished.iter().cloned().collect(),
        policy: requirement.policy.clone(),
        free_usages: usages_out(&requirement.free_usages),
    }
}

fn free_usages(numbers: &[i32]) -> Result<BTreeSet<Usage>, Refusal> {
    let usages = usages("free_usages", numbers)?;
    match usages.iter().find(|usage| usage.hands_out()) {
        Some(_) => Err(invalid("free_usages", "expected usages other than RELEASE and EXPORT")),
        None => Ok(usages),
    }
}

/// Reads labels within their bounds.
pub(crate) fn labels(labels: HashMap<String, String>) -> Result<BTreeMap<String, String>, Refusal> {
    if labels.len() > LABELS_MAX {
        return Err(invalid("labels", format!("at most {LABELS_MAX} labels")));
    }
    labels
        .into_iter()
        .map(|(key, value)| Ok((text("labels", key)?, text("labels", value)?)))
        .collect()
}

/// Writes a ring.
pub(crate) fn ring_out(ring: &Ring, etag: &str) -> v1::KeyRing {
    v1::KeyRing {
        name: ring.name.to_string(),
        create_time: time_out(ring.created_at),
        quorum: ring.quorum.as_ref().map(quorum_out),
        etag: etag.to_owned(),
        policy: Some(ring_policy_out(&ring.policy)),
    }
}

/// Writes a key.
pub(crate) fn key_out(key: &Key, etag: &str) -> v1::Key {
    v1::Key {
        name: key.name.to_string(),
        algorithm: algorithm_out(key.algorithm),
        usages: usages_out(&key.usages),
        create_time: time_out(key.created_at),
        labels: key.labels.clone().into_iter().collect(),
        release_requirement: key.requirement.as_ref().map(requirement_out),
        quorum: key.quorum.as_ref().map(quorum_out),
        model: key.model.clone(),
        dataset: key.dataset.clone(),
        primary_version: key.primary,
        etag: etag.to_owned(),
        pkcs11_label: key.pkcs11.label.clone(),
        pkcs11_id: hex_decode(&key.pkcs11.id).unwrap_or_default(),
        mechanisms: mechanisms_out(&key.mechanisms),
        // Each version has its own.
        length_bytes: 0,
        exportable: key.exportable,
        trusted: key.trusted,
        delete_time: key.deleted_at.and_then(time_out),
        protect_floor: key.floors.protect,
        process_floor: key.floors.process,
        rotation: key.rotation.as_ref().map(rotation_out),
        latest_version: key.latest,
        audit_each_use: key.audit_each_use,
    }
}

/// Writes a key that is to be made, as somebody would who asks for exactly that.
pub(crate) fn new_key_out(new: &NewKey) -> v1::Key {
    let NewKey {
        algorithm,
        audit_each_use,
        dataset,
        exportable,
        labels,
        length_bytes,
        mechanisms,
        model,
        name,
        pkcs11: Pkcs11Attributes { id, label },
        quorum,
        release_requirement,
        rotation,
        usages,
    } = new;
    v1::Key {
        name: name.to_string(),
        algorithm: algorithm_out(*algorithm),
        audit_each_use: *audit_each_use,
        usages: usages_out(usages),
        labels: labels.clone().into_iter().collect(),
        release_requirement: release_requirement.as_ref().map(requirement_out),
        quorum: quorum.as_ref().map(quorum_out),
        model: model.clone(),
        dataset: dataset.clone(),
        pkcs11_label: label.clone(),
        pkcs11_id: hex_decode(id).unwrap_or_default(),
        mechanisms: mechanisms_out(mechanisms),
        length_bytes: *length_bytes,
        exportable: *exportable,
        rotation: rotation.as_ref().map(rotation_out),
        ..Default::default()
    }
}

/// Writes a version.
pub(crate) fn version_out(version: &Version, etag: &str, now: Timestamp) -> v1::KeyVersion {
    let undo = version.undoable(now).and(version.undo);
    v1::KeyVersion {
        name: version.header.version.to_string(),
        state: state_out(version.state_at(now)),
        algorithm: algorithm_out(version.header.algorithm),
        create_time: time_out(version.created_at),
        state_change_time: time_out(version.changed_at),
        public_key: hex_decode(&version.public_key).unwrap_or_default(),
        etag: etag.to_owned(),
        local: version.is_local(),
        origin: origin_out(version.header.origin).into(),
        enabled: version.enabled,
        activate_time: version.dates.activates_at.and_then(time_out),
        deactivate_time: version.dates.deactivates_at.and_then(time_out),
        destroy_time: version.dates.destroys_at.and_then(time_out),
        compromise: version.compromise.map(|compromise| v1::Compromise {
            occur_time: time_out(compromise.occurred_at),
            reason: compromise_reason_out(compromise.reason).into(),
        }),
        undo_state: undo.map(|undo| state_out(undo.state)).unwrap_or_default(),
        undo_expire_time: undo.and_then(|undo| time_out(undo.until)),
        protection_count: version.protections_reserved,
        certificate: hex_decode(&version.certificate).unwrap_or_default(),
        ever_exportable: version.header.ever_exportable,
        length_bytes: version.header.length_bytes,
    }
}

/// Writes a version as a token's object.
pub(crate) fn object_out(key: &Key, version: &Version, now: Timestamp) -> v1::TokenObject {
    let number = version.header.version.number;
    v1::TokenObject {
        version: version.header.version.to_string(),
        algorithm: algorithm_out(version.header.algorithm),
        state: state_out(version.state_at(now)),
        usages: usages_out(&key.usages),
        label: key.pkcs11.label.clone(),
        id: hex_decode(&key.pkcs11.id).unwrap_or_default(),
        public_key: hex_decode(&version.public_key).unwrap_or_default(),
        local: version.is_local(),
        primary: number == key.primary,
        mechanisms: mechanisms_out(&key.mechanisms),
        exportable: key.exportable,
        ever_exportable: version.header.ever_exportable,
        trusted: key.trusted,
        length_bytes: version.header.length_bytes,
        certificate: hex_decode(&version.certificate).unwrap_or_default(),
    }
}

/// Longest CKA_ID.
pub(crate) const PKCS11_ID_BYTES_MAX: usize = 255;
/// Shortest and longest time between two rotations: an hour and a hundred years.
const ROTATION_MS: std::ops::RangeInclusive<u64> = 3_600_000..=3_155_760_000_000;
