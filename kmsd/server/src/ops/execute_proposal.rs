//! ExecuteProposal: runs an approved proposal, once. To the rules and the log it is the proposed
//! action itself, with the approval as its grounds; the proposal is marked executed in the same
//! batch, so that no approval runs twice.

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource, Segment};
use kms_core::permit::{Grounds, Manner, Other, Permit, Recorded, Refusal, Subject};
use kms_core::quorum::Unapproved;
use kms_core::service::Ingredients;
use kms_proto::v1;
use kms_store::Condition;

use super::Found;
use super::changes::{change_version, erase, erased};
use super::export_key_version::export;
use super::guarded_use::{GuardedUse, Read};
use super::proposals::{self, Loaded};
use super::step_key_version::stepped;
use super::using::USES_JUDGED_ANEW_MAX;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::{self, Draft, ProposalRow, ProposalState};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct ExecuteProposal(Segment);

/// The proposal, and, if it is for a use, that use as it was signed.
pub(crate) struct Proposed {
    loaded: Loaded,
    used: Option<Read>,
}

impl Proposed {
    /// Reads the use that stands in the document, if one does, and loads what it needs.
    async fn of(
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        mut loaded: Loaded,
    ) -> Result<Self, Early> {
        // What does not run for this caller, or has run, is not read: what it has made is there.
        let runs = loaded.row.value.state == ProposalState::Open
            && loaded.require_proposer(caller).is_ok();
        let Some(arguments) = loaded.proposal.arguments.as_ref().filter(|_| runs) else {
            return Ok(Self { loaded, used: None });
        };
        let used = GuardedUse::of(cx, caller, stamp, arguments, &loaded.version).await?;
        if let Ok(asked) = &used {
            // The approvals are counted for the very rows that the use is judged by.
            loaded.found = asked.seen().cloned();
        }
        Ok(Self { loaded, used: Some(used) })
    }

    /// The use as it was signed, if it is one and can be read.
    fn used(&self) -> Option<&GuardedUse> {
        self.used.as_ref().and_then(|used| used.as_deref().ok())
    }

    /// What people signed is what would run: nothing that they read has changed meanwhile, neither what the
    /// key prefers nor what it lets another inherit.
    fn check_signed(&self, asked: &GuardedUse) -> Result<(), Refusal> {
        match asked.arguments() {
            Ok(now) if self.loaded.proposal.arguments.as_ref() != Some(&now) => {
                Err(Unapproved::EtagMoved.into())
            }
            // Where it cannot be said, the key is not there or is not used so, and the rules refuse that.
            _ => Ok(()),
        }
    }
}

impl Operation for ExecuteProposal {
    type Wire = v1::ExecuteProposalRequest;
    type Facts = Option<Box<Proposed>>;
    /// The proposal afterwards, and the slot to be erased.
    type Prepared = (ProposalRow, Option<u64>);
    type Reply = v1::ExecuteProposalResponse;

    const ACTION: Action = Action::ExecuteProposal;
    // Approvals are counted anew each time, on the rows as they are then.
    const JUDGED_ANEW_MAX: usize = USES_JUDGED_ANEW_MAX;

    fn parse(wire: v1::ExecuteProposalRequest, _home: &Home) -> Result<Self, Refusal> {
        proposals::parse_name(&wire.name).map(Self)
    }

    fn named(&self) -> Resource {
        proposals::resource(&self.0, None)
    }

    async fn load(
        &self,
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
    ) -> Result<Self::Facts, Early> {
        match proposals::load(cx, &self.0).await? {
            Some(loaded) => Ok(Some(Box::new(Proposed::of(cx, caller, stamp, loaded).await?))),
            None => Ok(None),
        }
    }

    fn action(&self, facts: &Self::Facts) -> Action {
        facts.as_ref().map_or(Self::ACTION, |facts| facts.loaded.proposal.action)
    }

    fn resource(&self, facts: &Self::Facts) -> Resource {
        let version = facts.as_ref().map(|facts| Resource::Version(facts.loaded.version.clone()));
        version.unwrap_or_else(|| self.named())
    }

    fn subject<'a>(&self, facts: &'a Self::Facts) -> Subject<'a> {
        let Some(facts) = facts else { return Subject::Absent };
        if let Some(asked) = facts.used() {
            return asked.subject();
        }
        let loaded = &facts.loaded;
        loaded.found.as_ref().map_or(Subject::Absent, |found| Subject::Version {
            ring: &found.ring.value,
            key: &found.key.value,
            version: &found.version.value,
            transition: loaded.proposal.action.transition(),
            mechanism: None,
            manner: Manner::default(),
        })
    }

    fn other<'a>(&self, facts: &'a Self::Facts) -> Option<Other<'a>> {
        facts.as_ref().and_then(|facts| facts.used()).and_then(GuardedUse::other)
    }

    fn ingredients(&self, facts: &Self::Facts) -> Ingredients {
        let used = facts.as_ref().and_then(|facts| facts.used());
        used.map_or_else(Ingredients::default, GuardedUse::ingredients)
    }

    async fn grounds(
        &self,
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        facts: &Self::Facts,
    ) -> Result<Grounds, Early> {
        let Some(facts) = facts else { return Ok(Grounds::default()) };
        let Proposed { loaded, used } = &**facts;
        loaded.require_proposer(caller)?;
        let approval = Some(Box::new(loaded.approved(cx, stamp.now)?));
        if let Some(used) = used {
            let asked = used.as_ref().map_err(Refusal::clone)?;
            asked.check(cx, caller, stamp).await?;
            facts.check_signed(asked)?;
        }
        Ok(Grounds { approval, evidence: None })
    }

    fn unchanged(&self, facts: &Self::Facts) -> Vec<Condition> {
        let Some(facts) = facts.as_deref() else { return Vec::new() };
        let loaded = &facts.loaded;
        let mut unchanged = match (facts.used(), &loaded.found) {
            (Some(asked), _) => asked.unchanged(),
            // A step replaces the row that it was judged by; what is handed out must stand as it was judged.
            (None, Some(Found { ring, key, version })) => {
                vec![rows::stands(ring), rows::stands(key), rows::stands(version)]
            }
            (None, None) => Vec::new(),
        };
        unchanged.extend(loaded.approvers_stand());
        unchanged
    }

    async fn prepare(
        &self,
        cx: &Context,
        permit: &Permit,
        stamp: &Stamp,
        facts: &Self::Facts,
    ) -> Result<(Self::Prepared, Vec<Draft>), Early> {
        let facts = facts.as_ref().ok_or(super::ABSENT)?;
        let loaded = &facts.loaded;
        let before = &loaded.found.as_ref().ok_or(super::ABSENT)?.version;
        let (mut drafts, erased) = match (facts.used(), permit.action()) {
            (Some(asked), _) => (asked.prepare(cx, permit, stamp).await?, None),
            // Nothing of a version changes when it is handed out.
            (None, Action::ExportKeyVersion) => (Vec::new(), None),
            (None, action) => {
                let after = stepped(cx, stamp, action, &before.value)?;
                let drafts = change_version(cx, stamp, action, before, &after)?;
                (drafts, erased(&before.value, &after))
            }
        };
        let row = ProposalRow { state: ProposalState::Executed, ..loaded.row.value.clone() };
        drafts.push(rows::replace(&*cx.vault()?, &stamp.operation_id, &row, &[], &loaded.row)?);
        Ok(((row, erased), drafts))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        facts: Self::Facts,
        (row, erased): Self::Prepared,
        audit: v1::AuditReference,
    ) -> Result<v1::ExecuteProposalResponse, Failure> {
        let (action, resource) = (self.action(&facts), self.resource(&facts));
        let Proposed { loaded, used } = *facts.ok_or(super::ABSENT)?;
        let (mut wrapped_key, mut result) = (Vec::new(), None);
        if let Some(Ok(asked)) = used {
            let given = Box::pin(asked.perform(cx, recorded, stamp, audit.clone())).await?;
            result = Some(given);
        } else if action == Action::ExportKeyVersion {
            let found = loaded.found.as_ref().ok_or(super::ABSENT)?;
            let recipient = loaded.proposal.recipient.as_ref();
            let recipient = recipient.ok_or(Failure::Bug("an export to nobody was approved"))?;
            let digest = &stamp.request_digest;
            wrapped_key = export(cx, recorded, digest, found, recipient).await?;
        } else {
            let _spent = recorded.spend(action, &resource, &stamp.request_digest)?;
        }
        if let Some(slot) = erased {
            erase(cx, slot).await?;
        }
        let (proposal, audit) = (Some(loaded.shown_with(cx, row)), Some(audit));
        Ok(v1::ExecuteProposalResponse { proposal, audit, wrapped_key, result })
    }
}
