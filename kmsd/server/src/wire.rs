//! Between wire types and the rules' types, both ways. Nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};

use kms_core::algorithm::{Algorithm, Usage};
use kms_core::caller::Grant;
use kms_core::claims::EvidenceKind;
use kms_core::id::{Home, KeyName, RingName, Timestamp, VersionName};
use kms_core::key::{
    Key, LABEL_BYTES_MAX, LABELS_MAX, POLICY_BYTES_MAX, ReleaseRequirement, Ring, Version,
};
use kms_core::lifecycle::State;
use kms_core::permit::Refusal;
use kms_core::quorum::{Approvers, DEPTH_MAX, Member, QuorumPolicy};
use kms_proto::v1;

use crate::rows::{Stored, User};

/// A field of the request is not what it should be.
pub(crate) fn invalid(field: &'static str, problem: impl ToString) -> Refusal {
    Refusal::InvalidArgument { field, problem: problem.to_string() }
}

/// Reads a field by its type's own parser.
pub(crate) fn parse<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, Refusal>
where
    T::Err: ToString,
{
    text.parse().map_err(|error: T::Err| invalid(field, error.to_string()))
}

/// Reads bytes of at most `max` length.
pub(crate) fn bounded(field: &'static str, bytes: Vec<u8>, max: usize) -> Result<Vec<u8>, Refusal> {
    if bytes.len() <= max {
        Ok(bytes)
    } else {
        Err(invalid(field, format!("{} bytes; at most {max} are taken", bytes.len())))
    }
}

/// Checks a CRC32C pair, when the caller sent one.
pub(crate) fn check_crc(
    field: &'static str,
    bytes: &[u8],
    crc32c: Option<u32>,
) -> Result<(), Refusal> {
    if crc32c.is_none_or(|expected| expected == crc32c::crc32c(bytes)) {
        Ok(())
    } else {
        Err(invalid(field, "damaged on the way: the CRC32C does not match; send it again"))
    }
}

/// A `request_id` is 16 bytes, or empty for none.
pub(crate) fn request_id(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.is_empty() || bytes.len() == 16 {
        Ok(())
    } else {
        Err(invalid("request_id", "expected 16 bytes, or none"))
    }
}

/// The page asked for: how many, and after which place.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// How many rows.
    pub(crate) size: usize,
    /// The place of the last row of the page before; it must stand under the listing's prefix.
    pub(crate) after: Option<String>,
}

impl Page {
    /// Reads page size (0 means `default`) and token.
    pub(crate) fn parse(size: i32, token: &str, default: usize) -> Result<Self, Refusal> {
        let size = match usize::try_from(size) {
            Ok(0) => default,
            Ok(size) if size <= PAGE_SIZE_MAX => size,
            _ => return Err(invalid("page_size", format!("expected 0 to {PAGE_SIZE_MAX}"))),
        };
        let after = match token {
            "" => None,
            token => {
                let bytes = hex_decode(token).ok_or_else(|| invalid("page_token", TOKEN))?;
                Some(String::from_utf8(bytes).map_err(|_| invalid("page_token", TOKEN))?)
            }
        };
        Ok(Self { size, after })
    }

    /// The token of the page after one that ended with `last`.
    pub(crate) fn token(last: &str) -> String {
        hex_encode(last.as_bytes())
    }

    /// Cuts a page out of `rows`, which were read with one more than fits.
    pub(crate) fn cut<T>(&self, mut rows: Vec<(String, T)>) -> (Vec<T>, String) {
        let more = rows.len() > self.size;
        rows.truncate(self.size);
        let next = rows.last().filter(|_| more).map(|(place, _)| Self::token(place));
        (rows.into_iter().map(|(_, row)| row).collect(), next.unwrap_or_default())
    }
}

/// Reads an algorithm.
pub(crate) fn algorithm(number: i32) -> Result<Algorithm, Refusal> {
    match v1::Algorithm::try_from(number) {
        Ok(v1::Algorithm::Aes256Gcm) => Ok(Algorithm::Aes256Gcm),
        Ok(v1::Algorithm::EcSignP256Sha256) => Ok(Algorithm::EcSignP256Sha256),
        Ok(v1::Algorithm::HmacSha256) => Ok(Algorithm::HmacSha256),
        Ok(v1::Algorithm::RsaSignPkcs13072Sha256) => Ok(Algorithm::RsaSignPkcs1_3072Sha256),
        Ok(v1::Algorithm::RsaSignPss3072Sha256) => Ok(Algorithm::RsaSignPss3072Sha256),
        Ok(v1::Algorithm::Unspecified) | Err(_) => {
            Err(invalid("algorithm", "expected one of the published algorithms"))
        }
    }
}

/// Writes an algorithm.
pub(crate) fn algorithm_out(algorithm: Algorithm) -> v1::Algorithm {
    match algorithm {
        Algorithm::Aes256Gcm => v1::Algorithm::Aes256Gcm,
        Algorithm::EcSignP256Sha256 => v1::Algorithm::EcSignP256Sha256,
        Algorithm::HmacSha256 => v1::Algorithm::HmacSha256,
        Algorithm::RsaSignPkcs1_3072Sha256 => v1::Algorithm::RsaSignPkcs13072Sha256,
        Algorithm::RsaSignPss3072Sha256 => v1::Algorithm::RsaSignPss3072Sha256,
        _ => v1::Algorithm::Unspecified,
    }
}

const USAGES: [(v1::Usage, Usage); 7] = [
    (v1::Usage::Decrypt, Usage::Decrypt),
    (v1::Usage::Encrypt, Usage::Encrypt),
    (v1::Usage::MacSign, Usage::MacSign),
    (v1::Usage::MacVerify, Usage::MacVerify),
    (v1::Usage::Release, Usage::Release),
    (v1::Usage::Sign, Usage::Sign),
    (v1::Usage::Verify, Usage::Verify),
];

/// Reads usages, none of which the algorithm may lack; an empty list means all but release.
pub(crate) fn usages(
    numbers: &[i32],
    algorithm: Algorithm,
    released: bool,
) -> Result<BTreeSet<Usage>, Refusal> {
    if numbers.is_empty() {
        let offered = USAGES.iter().map(|(_, usage)| *usage);
        let taken =
            |usage: &Usage| algorithm.supports(*usage) && (*usage != Usage::Release || released);
        return Ok(offered.filter(taken).collect());
    }
    let read = |number: &i32| {
        let known = USAGES.iter().find(|(wire, _)| *wire as i32 == *number);
        known
            .map(|(_, usage)| *usage)
            .filter(|usage| algorithm.supports(*usage))
            .ok_or_else(|| invalid("usages", format!("{algorithm} does not offer that usage")))
    };
    numbers.iter().map(read).collect()
}

fn free_usages(numbers: &[i32]) -> Result<BTreeSet<Usage>, Refusal> {
    let read = |number: &i32| {
        USAGES
            .iter()
            .find(|(wire, usage)| *wire as i32 == *number && *usage != Usage::Release)
            .map(|(_, usage)| *usage)
            .ok_or_else(|| invalid("free_usages", "expected usages other than RELEASE"))
    };
    numbers.iter().map(read).collect()
}

/// Writes usages.
pub(crate) fn usages_out(usages: &BTreeSet<Usage>) -> Vec<i32> {
    let held = |(wire, usage): &(v1::Usage, Usage)| usages.contains(usage).then_some(*wire as i32);
    USAGES.iter().filter_map(held).collect()
}

/// Writes a state.
pub(crate) fn state_out(state: State) -> v1::State {
    match state {
        State::PendingImport => v1::State::PendingImport,
        State::PreActive => v1::State::PreActive,
        State::Active => v1::State::Active,
        State::Suspended => v1::State::Suspended,
        State::Deactivated => v1::State::Deactivated,
        State::DestroyScheduled => v1::State::DestroyScheduled,
        State::Destroyed => v1::State::Destroyed,
        State::Compromised => v1::State::Compromised,
        _ => v1::State::Unspecified,
    }
}

/// Reads a quorum policy.
pub(crate) fn quorum(policy: Option<v1::QuorumPolicy>) -> Result<Option<QuorumPolicy>, Refusal> {
    let Some(v1::QuorumPolicy { guards, approvers }) = policy else { return Ok(None) };
    let guards =
        guards.iter().map(|name| parse("quorum.guards", name)).collect::<Result<_, _>>()?;
    let approvers =
        approvers.ok_or_else(|| invalid("quorum.approvers", "expected who approves"))?;
    let policy = QuorumPolicy::new(guards, self::approvers(approvers, 0)?);
    policy.map(Some).map_err(|error| invalid("quorum", error))
}

fn approvers(tree: v1::Approvers, depth: usize) -> Result<Approvers, Refusal> {
    use v1::approver::Approver as Wire;
    if depth >= DEPTH_MAX {
        return Err(invalid("quorum.approvers", "nested too deeply"));
    }
    let member = |member: v1::Approver| match member.approver {
        Some(Wire::Principal(name)) => parse("quorum.approvers", &name).map(Member::Principal),
        Some(Wire::Group(group)) => approvers(group, depth + 1).map(Member::Group),
        None => Err(invalid("quorum.approvers", "a member is a principal or a group")),
    };
    Ok(Approvers {
        n: tree.n,
        members: tree.members.into_iter().map(member).collect::<Result<_, _>>()?,
    })
}

fn quorum_out(policy: &QuorumPolicy) -> v1::QuorumPolicy {
    let guards = kms_core::action::Action::ALL.iter().filter(|action| policy.guards(**action));
    v1::QuorumPolicy {
        guards: guards.map(ToString::to_string).collect(),
        approvers: Some(approvers_out(policy.approvers())),
    }
}

fn approvers_out(tree: &Approvers) -> v1::Approvers {
    use v1::approver::Approver as Wire;
    let member = |member: &Member| {
        let wire = match member {
            Member::Principal(name) => Some(Wire::Principal(name.to_string())),
            Member::Group(group) => Some(Wire::Group(approvers_out(group))),
            _ => None,
        };
        v1::Approver { approver: wire }
    };
    v1::Approvers { n: tree.n, members: tree.members.iter().map(member).collect() }
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

/// Reads labels within their bounds.
pub(crate) fn labels(
    labels: std::collections::HashMap<String, String>,
) -> Result<BTreeMap<String, String>, Refusal> {
    if labels.len() > LABELS_MAX {
        return Err(invalid("labels", format!("at most {LABELS_MAX} labels")));
    }
    labels
        .into_iter()
        .map(|(key, value)| Ok((text("labels", key)?, text("labels", value)?)))
        .collect()
}

/// Reads a free text of a label's length, without control characters.
pub(crate) fn text(field: &'static str, text: String) -> Result<String, Refusal> {
    if text.len() > LABEL_BYTES_MAX {
        return Err(invalid(field, format!("at most {LABEL_BYTES_MAX} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(field, "control characters are not taken"));
    }
    Ok(text)
}

/// A name that may be a version's or a key's.
#[derive(Clone, Debug)]
pub(crate) enum KeyOrVersion {
    /// A key: its primary version is meant.
    Key(KeyName),
    /// That version.
    Version(VersionName),
}

impl KeyOrVersion {
    /// Reads a version name, or a key name.
    pub(crate) fn parse(text: &str, home: &Home) -> Result<Self, Refusal> {
        if text.contains('@') || text.contains("/versions/") {
            version_name("name", text, home).map(Self::Version)
        } else {
            key_name("name", text, home).map(Self::Key)
        }
    }

    /// The key.
    pub(crate) const fn key(&self) -> &KeyName {
        match self {
            Self::Key(key) => key,
            Self::Version(version) => &version.key,
        }
    }
}

/// Reads a key name; it must be of the tenant and location served here.
pub(crate) fn key_name(field: &'static str, text: &str, home: &Home) -> Result<KeyName, Refusal> {
    let name = KeyName::parse(text, home).map_err(|error| invalid(field, error))?;
    at_home(field, &name.ring, home).map(|()| name)
}

/// Reads a version name; it must be of the tenant and location served here.
pub(crate) fn version_name(
    field: &'static str,
    text: &str,
    home: &Home,
) -> Result<VersionName, Refusal> {
    let name = VersionName::parse(text, home).map_err(|error| invalid(field, error))?;
    at_home(field, &name.key.ring, home).map(|()| name)
}

/// Reads a ring name; it must be of the tenant and location served here.
pub(crate) fn ring_name(field: &'static str, text: &str, home: &Home) -> Result<RingName, Refusal> {
    let name = RingName::parse(text, home).map_err(|error| invalid(field, error))?;
    at_home(field, &name, home).map(|()| name)
}

fn at_home(field: &'static str, ring: &RingName, home: &Home) -> Result<(), Refusal> {
    if ring.home == *home {
        Ok(())
    } else {
        Err(invalid(field, format!("this daemon serves {home} only")))
    }
}

/// Writes a time.
pub(crate) fn time_out(time: Timestamp) -> Option<prost_types::Timestamp> {
    let seconds = i64::try_from(time.0 / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(time.0 % 1000 * 1_000_000).unwrap_or_default();
    Some(prost_types::Timestamp { seconds, nanos })
}

/// Writes a ring.
pub(crate) fn ring_out(ring: &Ring, etag: &str) -> v1::KeyRing {
    v1::KeyRing {
        name: ring.name.to_string(),
        create_time: time_out(ring.created_at),
        quorum: ring.quorum.as_ref().map(quorum_out),
        etag: etag.to_owned(),
    }
}

/// Writes a key.
pub(crate) fn key_out(key: &Key, etag: &str) -> v1::Key {
    v1::Key {
        name: key.name.to_string(),
        algorithm: algorithm_out(key.algorithm).into(),
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
    }
}

/// Writes a version.
pub(crate) fn version_out(version: &Version, etag: &str) -> v1::KeyVersion {
    v1::KeyVersion {
        name: version.header.version.to_string(),
        state: state_out(version.state).into(),
        algorithm: algorithm_out(version.header.algorithm).into(),
        create_time: time_out(version.created_at),
        state_change_time: time_out(version.changed_at),
        public_key: hex_decode(&version.public_key).unwrap_or_default(),
        etag: etag.to_owned(),
        local: version.header.local,
    }
}

/// Writes a version as a token's object.
pub(crate) fn object_out(key: &Key, version: &Version) -> v1::TokenObject {
    let number = version.header.version.number;
    v1::TokenObject {
        version: version.header.version.to_string(),
        algorithm: algorithm_out(version.header.algorithm).into(),
        state: state_out(version.state).into(),
        usages: usages_out(&version.header.usages),
        label: key.pkcs11.label.clone(),
        id: hex_decode(&key.pkcs11.id).unwrap_or_default(),
        public_key: hex_decode(&version.public_key).unwrap_or_default(),
        local: version.header.local,
        primary: number == key.primary,
    }
}

/// Writes a user.
pub(crate) fn user_out(user: &Stored<User>) -> v1::User {
    v1::User {
        name: user.value.name.to_string(),
        ssh_keys: user.value.ssh_keys.iter().map(ToString::to_string).collect(),
        certificate_digests: user
            .value
            .certificate_digests
            .iter()
            .map(|digest| digest.as_bytes().to_vec())
            .collect(),
        unix_uids: user.value.unix_uids.clone(),
        grants: user.value.grants.iter().map(grant_out).collect(),
        etag: user.etag.clone(),
    }
}

/// Reads a grant.
pub(crate) fn grant(grant: &v1::Grant, home: &Home) -> Result<Grant, Refusal> {
    let ring = match grant.ring.as_str() {
        "" => None,
        name => Some(ring_name("grant.ring", name, home)?),
    };
    Ok(Grant { role: parse("grant.role", &grant.role)?, ring })
}

/// Writes a grant.
pub(crate) fn grant_out(grant: &Grant) -> v1::Grant {
    v1::Grant {
        role: grant.role.to_string(),
        ring: grant.ring.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Lower-case hexadecimal, as stored rows hold bytes.
pub(crate) fn hex_encode(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// Reads what [`hex_encode`] wrote.
pub(crate) fn hex_decode(text: &str) -> Option<Vec<u8>> {
    hex::decode(text).ok()
}

/// Largest page.
pub(crate) const PAGE_SIZE_MAX: usize = 500;
/// Most bytes of data in one request.
pub(crate) const DATA_BYTES_MAX: usize = 64 * 1024;
const TOKEN: &str = "expected a next_page_token of this listing";
