//! Approvals bound to one exact request; enough, fresh, from different people.
//!
//! A [`Proposal`] is canonical JSON; an approval is an SSH signature over exactly those bytes. The
//! daemon is not trusted for approvals: whoever writes in its database still cannot sign.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::algorithm::Usage;
use crate::arguments::UseArguments;
use crate::canonical::{self, CanonicalError};
use crate::id::{Digest, Nonce, PrincipalName, Timestamp};
use crate::sshsig::{self, SignatureError, Signer, SshCredential};
use crate::transfer::ExportRecipient;

/// Which actions need approval, and whose.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawPolicy")]
pub struct QuorumPolicy {
    guards: BTreeSet<Action>,
    approvers: Approvers,
}

/// A tree of people: at least `n` of `members`, each a person or a smaller tree.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approvers {
    /// How many of the members must approve.
    pub n: u32,
    /// Who can.
    pub members: Vec<Member>,
}

/// A leaf or branch of the tree.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Member {
    /// A group that approves when enough of its own members do.
    Group(Approvers),
    /// One principal.
    Principal(PrincipalName),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    guards: BTreeSet<Action>,
    approvers: Approvers,
}

/// Why a quorum policy makes no sense. The caller's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The same principal stands twice.
    #[error("a member stands more than once in the quorum")]
    Duplicate,
    /// No approval needed, or more than there are members.
    #[error("a quorum needs at least 1 approval and at most as many as it has members")]
    Count,
    /// Guards nothing.
    #[error("a quorum policy must guard at least one action")]
    GuardsNothing,
    /// Guards something that cannot be proposed, and so could never be done again.
    #[error("{0} cannot be proposed, and so not be guarded: {why}", why = .0.instead())]
    NotGuardable(Action),
    /// Too many members or levels.
    #[error("a quorum has at most {MEMBERS_MAX} members and {DEPTH_MAX} levels")]
    TooLarge,
}

impl TryFrom<RawPolicy> for QuorumPolicy {
    type Error = PolicyError;

    fn try_from(raw: RawPolicy) -> Result<Self, PolicyError> {
        Self::new(raw.guards, raw.approvers)
    }
}

impl QuorumPolicy {
    /// A policy under which each of `guards` needs the approval of `approvers`.
    ///
    /// # Errors
    /// [`PolicyError`] when the tree cannot be satisfied or is too large.
    pub fn new(guards: BTreeSet<Action>, approvers: Approvers) -> Result<Self, PolicyError> {
        if guards.is_empty() {
            return Err(PolicyError::GuardsNothing);
        }
        if let Some(action) = guards.iter().find(|action| !action.guardable()) {
            return Err(PolicyError::NotGuardable(*action));
        }
        let mut seen = BTreeSet::new();
        approvers.check(1, &mut seen)?;
        Ok(Self { guards, approvers })
    }

    /// Whether `action` needs approval.
    pub fn guards(&self, action: Action) -> bool {
        let also: &[Action] = match action {
            // What is opened is opened, whether it is shown, moved to another key, or becomes a key: who is
            // asked before the one is asked before the others.
            Action::Decrypt | Action::ReEncrypt | Action::UnwrapKey => {
                &[Action::Decrypt, Action::ReEncrypt, Action::UnwrapKey]
            }
            // Who must be asked before a key is destroyed is asked before its destruction is scheduled.
            Action::ScheduleDestroyKeyVersion => &[Action::DestroyKeyVersion],
            _ => &[],
        };
        // Whoever holds a key asks nobody before using it.
        let hands_out = action.usage().is_some_and(Usage::hands_out);
        self.guards.contains(&action)
            || also.iter().any(|also| self.guards.contains(also))
            || hands_out && self.guards.iter().any(|guarded| guarded.takes_arguments())
    }

    /// The digest that proposals and sealings name it by.
    pub fn digest(&self) -> Digest {
        canonical::digest(self)
            .expect("a quorum policy has only text keys, so it always has canonical form")
    }

    /// The tree of approvers.
    pub const fn approvers(&self) -> &Approvers {
        &self.approvers
    }
}

/// The quorum policies that guard one action, each of which has to be satisfied. So no key can be made to
/// weaken its officers' quorum, nor a ring to weaken that of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guarding<'a> {
    /// That of the ring and that of the key.
    Both {
        /// The ring's.
        ring: &'a QuorumPolicy,
        /// The key's own.
        key: &'a QuorumPolicy,
    },
    /// The key's own.
    Key(&'a QuorumPolicy),
    /// The ring's.
    Ring(&'a QuorumPolicy),
}

/// The digests by which a proposal names the policies that guard it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PolicyDigests {
    /// The one policy's; the ring's, if there are two.
    pub policy: Digest,
    /// The key's, if the ring's guards the action as well.
    pub of_key: Option<Digest>,
}

/// Whose a quorum policy is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guardian {
    /// The key's.
    Key,
    /// The ring's.
    Ring,
}

impl<'a> Guarding<'a> {
    /// Those of the two policies for which `guards` holds, if any.
    pub fn of(
        ring: Option<&'a QuorumPolicy>,
        key: Option<&'a QuorumPolicy>,
        guards: impl Fn(&QuorumPolicy) -> bool,
    ) -> Option<Self> {
        match (ring.filter(|one| guards(one)), key.filter(|one| guards(one))) {
            (Some(ring), Some(key)) => Some(Self::Both { ring, key }),
            (None, Some(key)) => Some(Self::Key(key)),
            (Some(ring), None) => Some(Self::Ring(ring)),
            (None, None) => None,
        }
    }

    /// What a proposal has to name.
    pub fn digests(&self) -> PolicyDigests {
        match self {
            Self::Both { ring, key } => {
                PolicyDigests { policy: ring.digest(), of_key: Some(key.digest()) }
            }
            Self::Key(policy) | Self::Ring(policy) => {
                PolicyDigests { policy: policy.digest(), of_key: None }
            }
        }
    }

    /// Each policy, and whose it is; the ring's first.
    pub fn policies(&self) -> impl Iterator<Item = (Guardian, &'a QuorumPolicy)> {
        let (ring, key) = match *self {
            Self::Both { ring, key } => (Some(ring), Some(key)),
            Self::Key(key) => (None, Some(key)),
            Self::Ring(ring) => (Some(ring), None),
        };
        let ring = ring.map(|policy| (Guardian::Ring, policy));
        ring.into_iter().chain(key.map(|policy| (Guardian::Key, policy)))
    }

    /// Whether `name` stands in any of the trees.
    fn includes(&self, name: &PrincipalName) -> bool {
        self.policies().any(|(_, policy)| policy.approvers.includes(name))
    }

    /// Whether those who approve are enough for each policy.
    fn satisfied_by(&self, approving: &BTreeSet<&PrincipalName>) -> bool {
        self.policies().all(|(_, policy)| policy.approvers.satisfied_by(approving))
    }
}

impl Approvers {
    fn check<'a>(
        &'a self,
        depth: usize,
        seen: &mut BTreeSet<&'a PrincipalName>,
    ) -> Result<(), PolicyError> {
        let count = usize::try_from(self.n).unwrap_or(usize::MAX);
        if count == 0 || count > self.members.len() {
            return Err(PolicyError::Count);
        }
        if depth > DEPTH_MAX || self.members.len() > MEMBERS_MAX {
            return Err(PolicyError::TooLarge);
        }
        for member in &self.members {
            match member {
                Member::Group(group) => group.check(depth + 1, seen)?,
                Member::Principal(name) if !seen.insert(name) => {
                    return Err(PolicyError::Duplicate);
                }
                Member::Principal(_) => {}
            }
        }
        if seen.len() > MEMBERS_MAX { Err(PolicyError::TooLarge) } else { Ok(()) }
    }

    fn satisfied_by(&self, approving: &BTreeSet<&PrincipalName>) -> bool {
        let says_yes = |member: &&Member| match member {
            Member::Group(group) => group.satisfied_by(approving),
            Member::Principal(name) => approving.contains(name),
        };
        let count = self.members.iter().filter(says_yes).count();
        u32::try_from(count).is_ok_and(|count| count >= self.n)
    }

    /// How many more must approve at least, besides those who do.
    fn missing(&self, approving: &BTreeSet<&PrincipalName>) -> u32 {
        let of = |member: &Member| match member {
            Member::Group(group) => group.missing(approving),
            Member::Principal(name) => u32::from(!approving.contains(name)),
        };
        let mut each: Vec<u32> = self.members.iter().map(of).collect();
        each.sort_unstable();
        let wanted = usize::try_from(self.n).unwrap_or(usize::MAX);
        each.into_iter().take(wanted).fold(0, u32::saturating_add)
    }

    /// Everybody who stands in the tree, in its order.
    fn principals(&self) -> Vec<&PrincipalName> {
        let mut principals = Vec::new();
        for member in &self.members {
            match member {
                Member::Group(group) => principals.extend(group.principals()),
                Member::Principal(name) => principals.push(name),
            }
        }
        principals
    }

    /// Whether `name` stands anywhere in the tree.
    pub fn includes(&self, name: &PrincipalName) -> bool {
        self.members.iter().any(|member| match member {
            Member::Group(group) => group.includes(name),
            Member::Principal(principal) => principal == name,
        })
    }
}

/// The exact request that approvers sign, as canonical JSON. What runs is parsed from these bytes
/// and nothing else.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// Always [`PROPOSAL_TYPE`].
    #[serde(rename = "type")]
    pub type_: String,
    /// The audit log's origin: which appliance this is for.
    pub appliance: String,
    /// What is to be done.
    pub action: Action,
    /// To which resource (full name).
    pub resource: String,
    /// The state of the resource when it was proposed; another state, no execution.
    pub etag: String,
    /// Digest of the quorum policy under which it was proposed; where those of ring and key both guard the
    /// action, of the ring's.
    pub policy_digest: Digest,
    /// Where both guard it: digest of the key's. Left out elsewhere, so that the bytes of a proposal under
    /// one policy are what they always were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_policy_digest: Option<Digest>,
    /// Who proposed it; never counts as an approver.
    pub proposer: PrincipalName,
    /// Makes it unique.
    pub nonce: Nonce,
    /// When it was made, milliseconds since 1970.
    pub created_at: Timestamp,
    /// When it lapses, milliseconds since 1970.
    pub expires_at: Timestamp,
    /// For an export: who the key is sealed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<ExportRecipient>,
    /// For a use: what it is applied to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<UseArguments>,
}

impl Proposal {
    /// Whether it brings the arguments of its action, where that takes any, and no other ones.
    fn is_coherent(&self) -> bool {
        match &self.arguments {
            Some(arguments) => arguments.action() == self.action,
            None => !self.action.takes_arguments(),
        }
    }

    /// The policies under which it was proposed.
    pub const fn policies(&self) -> PolicyDigests {
        PolicyDigests { policy: self.policy_digest, of_key: self.key_policy_digest }
    }

    /// Reads a proposal from the bytes that people signed.
    ///
    /// # Errors
    /// [`CanonicalError`] when they are not one in canonical form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CanonicalError> {
        canonical::from_bytes(bytes)
    }

    /// The bytes that people sign.
    ///
    /// # Errors
    /// Never for a proposal of this crate; see [`canonical::to_bytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::to_bytes(self)
    }
}

/// One person's signature over a proposal's bytes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Who signed.
    pub approver: PrincipalName,
    /// The armored SSH signature, namespace [`NAMESPACE`].
    pub signature: String,
}

/// Why an approval does not count. The approver's mistake or a forgery.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovalError {
    /// Already approved by this person, or with this key under another name.
    #[error("{0} has already approved, or that key has")]
    Duplicate(PrincipalName),
    /// Not a member of the quorum, or not enrolled any more.
    #[error("{0} is not an approver of this proposal")]
    NotAnApprover(PrincipalName),
    /// Signed by a key that is enrolled as another's, or was revoked or has ended.
    #[error("{0} signed with a key that is somebody else's, or does not count any more")]
    NotTheirKey(PrincipalName),
    /// Nobody approves their own request, nor does their key under another name.
    #[error("{0} made the proposal, or has the key of who made it, and cannot approve it")]
    OwnProposal(PrincipalName),
    /// The signature is not what it should be.
    #[error("the signature of {0} does not count: {1}")]
    Signature(PrincipalName, SignatureError),
}

/// Why a proposal cannot run. Each is a refusal by the rules.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unapproved {
    /// The resource changed since the proposal was made.
    #[error("the resource has changed since it was proposed; make a new proposal")]
    EtagMoved,
    /// Its time is over.
    #[error("the proposal has expired; make a new one")]
    Expired,
    /// Made for another appliance, type or document form.
    #[error("the proposal is not one of this appliance")]
    NotOurs,
    /// The quorum policies that guard it changed since the proposal was made.
    #[error("the quorum policy has changed since it was proposed; make a new proposal")]
    PolicyChanged,
    /// Not enough valid approvals yet for each of the policies.
    #[error("{valid} valid approval(s), more are needed")]
    TooFew {
        /// How many count.
        valid: usize,
    },
}

/// A proposal that a quorum stands behind. Spent by [`crate::permit::decide`].
#[derive(Debug, Eq, PartialEq)]
#[must_use]
pub struct Approved {
    proposal: Proposal,
    proposal_digest: Digest,
    approvers: Vec<PrincipalName>,
}

/// Who is enrolled to approve, as of one moment.
pub trait Keys: fmt::Debug {
    /// The SSH keys that sign for `principal`; none at all for somebody who is not enrolled.
    fn keys_of(&self, principal: &PrincipalName) -> Option<Vec<&SshCredential>>;

    /// Who is enrolled with the key of that [identity](crate::sshsig::SshKey::identity), or ever was, and whether
    /// it signs for that one now; `None` for a key that nobody was ever enrolled with, which counts by a
    /// certificate alone.
    fn holder_of(&self, _key: &Digest) -> Option<(&PrincipalName, bool)> {
        None
    }
}

impl Keys for BTreeMap<PrincipalName, Vec<SshCredential>> {
    fn keys_of(&self, principal: &PrincipalName) -> Option<Vec<&SshCredential>> {
        Some(self.get(principal)?.iter().collect())
    }
}

/// What is true of the appliance and the resource at the moment of execution.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The audit log's origin.
    pub appliance: &'a str,
    /// The resource's etag as it is now.
    pub etag: &'a str,
    /// The quorum policies that guard the action as they are now.
    pub guarding: Guarding<'a>,
    /// The SSH keys of enrolled people as they are now, and the authorities that speak for them.
    pub keys: &'a dyn Keys,
    /// The time.
    pub now: Timestamp,
}

/// Checks one approval against the proposal's bytes and those already counted; gives what names the
/// key that signed.
///
/// # Errors
/// [`ApprovalError`] when it does not count.
pub fn check_approval(
    proposal_bytes: &[u8],
    proposer: &PrincipalName,
    approval: &Approval,
    counted: &BTreeMap<PrincipalName, Digest>,
    circumstances: &Circumstances<'_>,
) -> Result<Digest, ApprovalError> {
    let approver = &approval.approver;
    if approver == proposer {
        return Err(ApprovalError::OwnProposal(approver.clone()));
    }
    let keys = circumstances
        .keys
        .keys_of(approver)
        .filter(|_| circumstances.guarding.includes(approver))
        .ok_or_else(|| ApprovalError::NotAnApprover(approver.clone()))?;
    let signer = Signer { principal: approver, enrolled: &keys };
    let (signature, now) = (&approval.signature, circumstances.now);
    let key = sshsig::verify(NAMESPACE, proposal_bytes, signature, signer, now)
        .map_err(|refusal| ApprovalError::Signature(approver.clone(), refusal))?;
    // An authority may have certified for another what is the proposer's.
    let mut own = circumstances.keys.keys_of(proposer).into_iter().flatten();
    if own.any(|own| own.key().is_some_and(|own| own.identity() == key)) {
        return Err(ApprovalError::OwnProposal(approver.clone()));
    }
    match circumstances.keys.holder_of(&key) {
        Some((holder, _)) if holder == proposer => {
            return Err(ApprovalError::OwnProposal(approver.clone()));
        }
        // What was revoked, or is somebody else's, no certificate brings back.
        Some((holder, is_good)) if holder != approver || !is_good => {
            return Err(ApprovalError::NotTheirKey(approver.clone()));
        }
        _ => {}
    }
    if counted.contains_key(approver) || counted.values().any(|counted| *counted == key) {
        return Err(ApprovalError::Duplicate(approver.clone()));
    }
    Ok(key)
}

/// Those of `approvals` that count, by who gave them, with the digest of the key that signed.
pub fn count(
    proposal_bytes: &[u8],
    proposer: &PrincipalName,
    approvals: &[Approval],
    circumstances: &Circumstances<'_>,
) -> BTreeMap<PrincipalName, Digest> {
    let mut counted = BTreeMap::new();
    for approval in approvals {
        let checked = check_approval(proposal_bytes, proposer, approval, &counted, circumstances);
        if let Ok(key) = checked {
            counted.insert(approval.approver.clone(), key);
        }
    }
    counted
}

/// How far one of the policies that guard a proposal is satisfied. Only to be shown: what runs is decided by
/// [`Approved::by`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Whose policy it is.
    pub guardian: Guardian,
    /// Names the policy.
    pub policy_digest: Digest,
    /// Whose approvals count for it, sorted.
    pub approvers: Vec<PrincipalName>,
    /// How many more it takes at least; 0 when it is satisfied.
    pub missing: u32,
    /// Whose approvals would count besides, in the order of the policy; none once it is satisfied.
    pub may_approve: Vec<PrincipalName>,
}

impl Standing {
    /// How each policy stands that guards `proposal_bytes`; none where the policies are not those that it
    /// names, since nobody's approval makes it run then.
    pub fn of_each(
        proposal_bytes: &[u8],
        approvals: &[Approval],
        circumstances: &Circumstances<'_>,
    ) -> Vec<Self> {
        let guarding = &circumstances.guarding;
        let proposal = match Proposal::from_bytes(proposal_bytes) {
            Ok(proposal) if proposal.policies() == guarding.digests() => proposal,
            _ => return Vec::new(),
        };
        let counted = count(proposal_bytes, &proposal.proposer, approvals, circumstances);
        let approving: BTreeSet<&PrincipalName> = counted.keys().collect();
        let of = |(guardian, policy): (Guardian, &QuorumPolicy)| {
            let tree = &policy.approvers;
            let missing = tree.missing(&approving);
            let may = |name: &&PrincipalName| {
                missing > 0 && !approving.contains(name) && **name != proposal.proposer
            };
            let may_approve = tree.principals().into_iter().filter(may).cloned().collect();
            let counts = approving.iter().filter(|name| tree.includes(name));
            let approvers = counts.map(|name| PrincipalName::clone(name)).collect();
            Self { guardian, policy_digest: policy.digest(), approvers, missing, may_approve }
        };
        guarding.policies().map(of).collect()
    }
}

impl Approved {
    /// Counts `approvals` over `proposal_bytes` from nothing: what was counted before, or stored,
    /// does not matter. Each policy that guards the action has to be satisfied; whoever stands in two says
    /// yes for both by one signature.
    ///
    /// # Errors
    /// [`Unapproved`] when the proposal cannot run now.
    pub fn by(
        proposal_bytes: &[u8],
        approvals: &[Approval],
        circumstances: &Circumstances<'_>,
    ) -> Result<Self, Unapproved> {
        let proposal = Proposal::from_bytes(proposal_bytes).map_err(|_| Unapproved::NotOurs)?;
        let ours = proposal.type_ == PROPOSAL_TYPE && proposal.appliance == circumstances.appliance;
        if !ours || !proposal.is_coherent() {
            return Err(Unapproved::NotOurs);
        }
        if proposal.expires_at <= circumstances.now {
            return Err(Unapproved::Expired);
        }
        if proposal.policies() != circumstances.guarding.digests() {
            return Err(Unapproved::PolicyChanged);
        }
        if proposal.etag != circumstances.etag {
            return Err(Unapproved::EtagMoved);
        }
        let counted = count(proposal_bytes, &proposal.proposer, approvals, circumstances);
        if !circumstances.guarding.satisfied_by(&counted.keys().collect()) {
            return Err(Unapproved::TooFew { valid: counted.len() });
        }
        let approvers = counted.into_keys().collect();
        Ok(Self { proposal, proposal_digest: Digest::of(&[proposal_bytes]), approvers })
    }

    /// The proposal, as parsed from the signed bytes.
    pub const fn proposal(&self) -> &Proposal {
        &self.proposal
    }

    /// Digest of the signed bytes.
    pub const fn proposal_digest(&self) -> Digest {
        self.proposal_digest
    }

    /// Who approved, sorted.
    pub fn approvers(&self) -> &[PrincipalName] {
        &self.approvers
    }
}

/// The `type` of a proposal document.
pub const PROPOSAL_TYPE: &str = "kms-proposal/v1";
/// The SSH signature namespace of approvals.
pub const NAMESPACE: &str = "kms-proposal";
/// Shortest life of a proposal: 5 minutes.
pub const LIFETIME_MS_MIN: u64 = 5 * 60 * 1000;
/// Longest life of a proposal: 7 days.
pub const LIFETIME_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;
const MEMBERS_MAX: usize = 64;
/// Most levels of a tree of approvers.
pub const DEPTH_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey};

    use super::*;
    use crate::arguments::{HexBytes, Signed};
    use crate::mechanism::Mechanism;

    struct People {
        secrets: BTreeMap<PrincipalName, PrivateKey>,
        keys: BTreeMap<PrincipalName, Vec<SshCredential>>,
    }

    fn person(name: &str) -> PrincipalName {
        format!("users/{name}").parse().unwrap()
    }

    fn people(names: &[&str]) -> People {
        let mut people = People { secrets: BTreeMap::new(), keys: BTreeMap::new() };
        for (n, name) in names.iter().enumerate() {
            let seed = [u8::try_from(n).unwrap() + 1; 32];
            let pair = ssh_key::private::Ed25519Keypair::from_seed(&seed);
            let secret = PrivateKey::from(pair);
            assert_eq!(secret.algorithm(), Algorithm::Ed25519);
            let public = secret.public_key().to_openssh().unwrap().parse().unwrap();
            people.keys.insert(person(name), vec![public]);
            people.secrets.insert(person(name), secret);
        }
        people
    }

    impl People {
        fn sign(&self, name: &str, namespace: &str, hash: HashAlg, bytes: &[u8]) -> Approval {
            let signature = self.secrets[&person(name)].sign(namespace, hash, bytes).unwrap();
            let signature = signature.to_pem(LineEnding::LF).unwrap();
            Approval { approver: person(name), signature }
        }

        fn approve(&self, name: &str, bytes: &[u8]) -> Approval {
            self.sign(name, NAMESPACE, HashAlg::Sha512, bytes)
        }
    }

    fn two_of(names: &[&str]) -> QuorumPolicy {
        let members = names.iter().map(|name| Member::Principal(person(name))).collect();
        let guards = BTreeSet::from([Action::DestroyKeyVersion]);
        QuorumPolicy::new(guards, Approvers { n: 2, members }).unwrap()
    }

    fn proposal(policy: &QuorumPolicy) -> Proposal {
        Proposal {
            type_: PROPOSAL_TYPE.to_owned(),
            appliance: "kms/test".to_owned(),
            action: Action::DestroyKeyVersion,
            resource: "tenants/t/locations/l/keyRings/r/keys/k/versions/1".to_owned(),
            etag: "7".to_owned(),
            policy_digest: policy.digest(),
            key_policy_digest: None,
            proposer: person("mallory"),
            nonce: Nonce([0; 32]),
            created_at: Timestamp(0),
            expires_at: Timestamp(1000),
            recipient: None,
            arguments: None,
        }
    }

    fn now<'a>(policy: &'a QuorumPolicy, people: &'a People) -> Circumstances<'a> {
        let (appliance, etag, now) = ("kms/test", "7", Timestamp(999));
        Circumstances { appliance, etag, guarding: Guarding::Key(policy), keys: &people.keys, now }
    }

    #[test]
    fn two_different_members_approve_and_one_does_not() {
        let people = people(&["alice", "bob", "carol", "mallory"]);
        let policy = two_of(&["alice", "bob", "carol"]);
        let bytes = proposal(&policy).to_bytes().unwrap();
        let alice = people.approve("alice", &bytes);
        let bob = people.approve("bob", &bytes);
        let at = now(&policy, &people);
        let approved = Approved::by(&bytes, &[alice.clone(), bob.clone()], &at).unwrap();
        assert_eq!(approved.approvers(), [person("alice"), person("bob")]);
        let one = Err(Unapproved::TooFew { valid: 1 });
        assert_eq!(Approved::by(&bytes, std::slice::from_ref(&alice), &at), one);
        assert_eq!(Approved::by(&bytes, &[alice.clone(), alice.clone()], &at), one);
        // Bob's signature under Carol's name is nobody's.
        let stolen = Approval { approver: person("carol"), ..bob };
        assert_eq!(Approved::by(&bytes, &[alice, stolen], &at), one);
    }

    #[test]
    fn the_proposer_and_strangers_do_not_count() {
        let people = people(&["alice", "bob", "mallory"]);
        let policy = two_of(&["alice", "bob", "mallory"]);
        let bytes = proposal(&policy).to_bytes().unwrap();
        let approvals = [people.approve("alice", &bytes), people.approve("mallory", &bytes)];
        let at = now(&policy, &people);
        let one = Err(Unapproved::TooFew { valid: 1 });
        assert_eq!(Approved::by(&bytes, &approvals, &at), one);
        let smaller = two_of(&["alice", "bob"]);
        let outside = proposal(&smaller).to_bytes().unwrap();
        let approvals = [people.approve("alice", &outside), people.approve("mallory", &outside)];
        assert_eq!(Approved::by(&outside, &approvals, &now(&smaller, &people)), one);
    }

    #[test]
    fn one_key_under_two_names_counts_once() {
        let mut people = people(&["alice", "bob"]);
        let same = people.keys[&person("alice")].clone();
        people.keys.insert(person("bob"), same);
        let secret = people.secrets[&person("alice")].clone();
        people.secrets.insert(person("bob"), secret);
        let policy = two_of(&["alice", "bob"]);
        let bytes = proposal(&policy).to_bytes().unwrap();
        let approvals = [people.approve("alice", &bytes), people.approve("bob", &bytes)];
        assert_eq!(
            Approved::by(&bytes, &approvals, &now(&policy, &people)),
            Err(Unapproved::TooFew { valid: 1 })
        );
    }

    /// An authority can certify for another what is the proposer's own; here it is the same key at once.
    #[test]
    fn the_key_of_who_proposed_counts_under_no_name() {
        let mut people = people(&["alice", "bob", "mallory"]);
        let own = people.keys[&person("mallory")].clone();
        people.keys.insert(person("bob"), own);
        let policy = two_of(&["alice", "bob"]);
        let bytes = proposal(&policy).to_bytes().unwrap();
        let signature = people.approve("mallory", &bytes).signature;
        let approval = Approval { approver: person("bob"), signature };
        let (at, counted) = (now(&policy, &people), BTreeMap::new());
        let checked = check_approval(&bytes, &person("mallory"), &approval, &counted, &at);
        assert_eq!(checked, Err(ApprovalError::OwnProposal(person("bob"))));
    }

    /// Keys of which the directory knows more than who signs by them now.
    #[derive(Debug)]
    struct Known<'a> {
        signing: &'a BTreeMap<PrincipalName, Vec<SshCredential>>,
        holder: PrincipalName,
        is_good: bool,
    }

    impl Keys for Known<'_> {
        fn keys_of(&self, principal: &PrincipalName) -> Option<Vec<&SshCredential>> {
            self.signing.keys_of(principal)
        }

        fn holder_of(&self, _key: &Digest) -> Option<(&PrincipalName, bool)> {
            Some((&self.holder, self.is_good))
        }
    }

    /// By a certificate a key may sign for somebody whose own key it is not, or is no more.
    #[test]
    fn a_key_that_is_known_otherwise_counts_by_no_certificate() {
        let people = people(&["alice", "bob", "mallory"]);
        let policy = two_of(&["alice", "bob"]);
        let bytes = proposal(&policy).to_bytes().unwrap();
        let approval = people.approve("bob", &bytes);
        let check = |holder: &str, is_good| {
            let known = Known { signing: &people.keys, holder: person(holder), is_good };
            let at = Circumstances { keys: &known, ..now(&policy, &people) };
            let counted = BTreeMap::new();
            check_approval(&bytes, &person("mallory"), &approval, &counted, &at).map(|_| ())
        };
        assert_eq!(check("bob", true), Ok(()));
        assert_eq!(check("bob", false), Err(ApprovalError::NotTheirKey(person("bob"))));
        assert_eq!(check("alice", true), Err(ApprovalError::NotTheirKey(person("bob"))));
        assert_eq!(check("mallory", false), Err(ApprovalError::OwnProposal(person("bob"))));
    }

    #[test]
    fn other_bytes_namespaces_and_hashes_are_refused() {
        let people = people(&["alice", "bob"]);
        let policy = two_of(&["alice", "bob"]);
        let bytes = proposal(&policy).to_bytes().unwrap();
        let at = now(&policy, &people);
        let alice = people.approve("alice", &bytes);
        let longer = Proposal { expires_at: Timestamp(5000), ..proposal(&policy) };
        for bad in [
            people.sign("bob", "file", HashAlg::Sha512, &bytes),
            people.sign("bob", NAMESPACE, HashAlg::Sha256, &bytes),
            people.approve("bob", &longer.to_bytes().unwrap()),
            Approval { approver: person("bob"), signature: "x".repeat(20_000) },
        ] {
            assert_eq!(
                Approved::by(&bytes, &[alice.clone(), bad], &at),
                Err(Unapproved::TooFew { valid: 1 })
            );
        }
    }

    #[test]
    fn a_proposal_runs_only_in_the_circumstances_it_was_made_for() {
        let people = people(&["alice", "bob"]);
        let policy = two_of(&["alice", "bob"]);
        let other = two_of(&["bob", "alice"]);
        let bytes = proposal(&policy).to_bytes().unwrap();
        let approvals = [people.approve("alice", &bytes), people.approve("bob", &bytes)];
        let at = now(&policy, &people);
        assert!(Approved::by(&bytes, &approvals, &at).is_ok());
        for (circumstances, refusal) in [
            (Circumstances { appliance: "kms/other", ..at }, Unapproved::NotOurs),
            (Circumstances { etag: "8", ..at }, Unapproved::EtagMoved),
            (Circumstances { guarding: Guarding::Key(&other), ..at }, Unapproved::PolicyChanged),
            (Circumstances { now: Timestamp(1000), ..at }, Unapproved::Expired),
        ] {
            assert_eq!(Approved::by(&bytes, &approvals, &circumstances), Err(refusal));
        }
        let mut spaced = bytes.clone();
        spaced.push(b'\n');
        assert_eq!(Approved::by(&spaced, &approvals, &at), Err(Unapproved::NotOurs));
    }

    #[test]
    fn two_policies_are_each_satisfied_and_each_says_what_it_still_wants() {
        let people = people(&["alice", "bob", "carol", "dave", "mallory"]);
        let (rings, keys) =
            (two_of(&["carol", "dave", "mallory"]), two_of(&["alice", "bob", "carol"]));
        let both = Guarding::Both { ring: &rings, key: &keys };
        let document = Proposal { key_policy_digest: Some(keys.digest()), ..proposal(&rings) };
        let bytes = document.to_bytes().unwrap();
        let at = Circumstances { guarding: both, ..now(&rings, &people) };
        let approvals = |names: &[&str]| -> Vec<Approval> {
            names.iter().map(|name| people.approve(name, &bytes)).collect()
        };
        let standing = |names: &[&str]| {
            let each = Standing::of_each(&bytes, &approvals(names), &at);
            let short = |names: &[PrincipalName]| {
                let names = names.iter().map(ToString::to_string);
                names.collect::<Vec<_>>().join(" ").replace("users/", "")
            };
            each.iter()
                .map(|one| {
                    let (approvers, may) = (short(&one.approvers), short(&one.may_approve));
                    (one.guardian, approvers, one.missing, may)
                })
                .collect::<Vec<_>>()
        };
        let row = |guardian, approvers: &str, missing, may: &str| {
            (guardian, approvers.to_owned(), missing, may.to_owned())
        };
        let (ring, key) = (Guardian::Ring, Guardian::Key);
        // The proposer stands in the tree, and never counts.
        assert_eq!(
            standing(&[]),
            [row(ring, "", 2, "carol dave"), row(key, "", 2, "alice bob carol")]
        );
        assert_eq!(
            standing(&["alice", "bob"]),
            [row(ring, "", 2, "carol dave"), row(key, "alice bob", 0, "")]
        );
        let too_few = |valid| Err(Unapproved::TooFew { valid });
        assert_eq!(Approved::by(&bytes, &approvals(&["alice", "bob"]), &at), too_few(2));
        assert_eq!(Approved::by(&bytes, &approvals(&["carol", "dave"]), &at), too_few(2));
        // Who stands in both says yes for both at once.
        assert_eq!(
            standing(&["alice", "carol"]),
            [row(ring, "carol", 1, "dave"), row(key, "alice carol", 0, "")]
        );
        let enough = approvals(&["alice", "carol", "dave"]);
        assert!(Approved::by(&bytes, &enough, &at).is_ok());

        // Neither of the two may be another one, or be gone, or have come, since it was proposed.
        let other = two_of(&["alice", "dave", "carol"]);
        for guarding in [
            Guarding::Both { ring: &other, key: &keys },
            Guarding::Both { ring: &rings, key: &other },
            Guarding::Both { ring: &keys, key: &rings },
            Guarding::Ring(&rings),
            Guarding::Key(&keys),
        ] {
            let at = Circumstances { guarding, ..at };
            assert_eq!(Approved::by(&bytes, &enough, &at), Err(Unapproved::PolicyChanged));
            assert_eq!(Standing::of_each(&bytes, &enough, &at), []);
        }
        let of_ring = proposal(&rings).to_bytes().unwrap();
        let enough = ["carol", "dave"].map(|name| people.approve(name, &of_ring));
        assert_eq!(Approved::by(&of_ring, &enough, &at), Err(Unapproved::PolicyChanged));
    }

    #[test]
    fn what_is_missing_is_the_least_that_would_do() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| Member::Principal(person(name)));
        let inner = Member::Group(Approvers { n: 2, members: vec![b, c] });
        let tree = Approvers { n: 2, members: vec![a, inner, d] };
        for (approving, missing) in [
            (&[][..], 2),
            (&["a"], 1),
            (&["b"], 2),
            (&["b", "c"], 1),
            (&["a", "b"], 1),
            (&["a", "d"], 0),
            (&["a", "b", "c"], 0),
        ] {
            let approving: Vec<_> = approving.iter().map(|name| person(name)).collect();
            let approving = approving.iter().collect();
            assert_eq!(tree.missing(&approving), missing, "{approving:?}");
            assert_eq!(tree.satisfied_by(&approving), missing == 0, "{approving:?}");
        }
    }

    #[test]
    fn impossible_trees_are_refused() {
        let guards = BTreeSet::from([Action::DestroyKeyVersion]);
        let policy = |n, members: Vec<Member>| {
            QuorumPolicy::new(guards.clone(), Approvers { n, members }).map(|_| ())
        };
        let a = || Member::Principal(person("a"));
        let b = || Member::Principal(person("b"));
        assert_eq!(policy(0, vec![a()]), Err(PolicyError::Count));
        assert_eq!(policy(3, vec![a(), b()]), Err(PolicyError::Count));
        assert_eq!(policy(1, vec![a(), a()]), Err(PolicyError::Duplicate));
        let inner = Member::Group(Approvers { n: 1, members: vec![a()] });
        assert_eq!(policy(1, vec![a(), inner]), Err(PolicyError::Duplicate));
        assert_eq!(policy(2, vec![a(), b()]), Ok(()));
        for action in [Action::CopyKey, Action::Encrypt, Action::GenerateDataKey, Action::WrapKey] {
            let guards = BTreeSet::from([action]);
            let refused = QuorumPolicy::new(guards, Approvers { n: 1, members: vec![a()] });
            assert_eq!(refused, Err(PolicyError::NotGuardable(action)));
            assert!(refused.unwrap_err().to_string().contains(action.instead()));
        }
    }

    #[test]
    fn who_guards_a_use_guards_every_way_around_it() {
        let guards = |guarded: Action, asked: Action| {
            let members = vec![Member::Principal(person("a"))];
            let guards = BTreeSet::from([guarded]);
            QuorumPolicy::new(guards, Approvers { n: 1, members }).unwrap().guards(asked)
        };
        let opens = [Action::Decrypt, Action::ReEncrypt, Action::UnwrapKey];
        for guarded in Action::ALL.iter().copied().filter(|action| action.takes_arguments()) {
            for asked in Action::ALL.iter().copied() {
                let around = match asked {
                    Action::ExportKeyVersion | Action::ReleaseKey => true,
                    asked => opens.contains(&asked) && opens.contains(&guarded),
                };
                assert_eq!(guards(guarded, asked), asked == guarded || around, "{guarded} {asked}");
            }
        }
        assert!(!guards(Action::DestroyKeyVersion, Action::ExportKeyVersion));
        assert!(!guards(Action::ExportKeyVersion, Action::ReleaseKey));
    }

    #[test]
    fn a_use_is_proposed_with_its_own_arguments_and_a_step_with_none() {
        let people = people(&["alice", "bob"]);
        let members = ["alice", "bob"].map(|name| Member::Principal(person(name))).to_vec();
        let guards = BTreeSet::from([Action::DestroyKeyVersion, Action::Sign, Action::MacSign]);
        let policy = QuorumPolicy::new(guards, Approvers { n: 2, members }).unwrap();
        let sign = UseArguments::Sign {
            context: HexBytes(Vec::new()),
            data: Signed::Message(HexBytes(b"m".to_vec())),
            mechanism: Mechanism::EcdsaSha256,
        };
        let count = |action, arguments: Option<&UseArguments>| {
            let arguments = arguments.cloned();
            let bytes = Proposal { action, arguments, ..proposal(&policy) }.to_bytes().unwrap();
            let approvals = ["alice", "bob"].map(|name| people.approve(name, &bytes));
            Approved::by(&bytes, &approvals, &now(&policy, &people)).map(|_| ())
        };
        assert_eq!(count(Action::Sign, Some(&sign)), Ok(()));
        assert_eq!(count(Action::DestroyKeyVersion, None), Ok(()));
        for (action, arguments) in [
            (Action::Sign, None),
            (Action::MacSign, Some(&sign)),
            (Action::DestroyKeyVersion, Some(&sign)),
        ] {
            assert_eq!(count(action, arguments), Err(Unapproved::NotOurs), "{action}");
        }
    }

    #[test]
    fn a_document_without_arguments_has_the_bytes_that_it_always_had() {
        let bytes = proposal(&two_of(&["alice", "bob"])).to_bytes().unwrap();
        let members = serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
        let members: Vec<_> = members.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "action",
            "appliance",
            "created_at",
            "etag",
            "expires_at",
            "nonce",
            "policy_digest",
            "proposer",
            "resource",
            "type",
        ];
        assert_eq!(members, expected);
        // Nor has one under a single policy a member that is empty.
        assert!(!String::from_utf8(bytes).unwrap().contains("key_policy_digest"));
    }
}
