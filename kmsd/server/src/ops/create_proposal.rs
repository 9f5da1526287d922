//! CreateProposal: asks for the approval of a guarded action, as canonical bytes to be signed.

use kms_core::action::{Action, Gate};
use kms_core::arguments::ARGUMENT_BYTES_MAX;
use kms_core::caller::Caller;
use kms_core::id::{Home, Nonce, Resource, Timestamp, VersionName};
use kms_core::permit::{Grounds, Other, Permit, Recorded, Refusal, Subject};
use kms_core::quorum::{LIFETIME_MS_MAX, LIFETIME_MS_MIN, PROPOSAL_TYPE, PolicyDigests, Proposal};
use kms_core::transfer::ExportRecipient;
use kms_proto::v1;
use kms_proto::v1::create_proposal_request::Arguments;

use super::guarded_use::{self, GuardedUse, Read};
use super::{VersionFacts, is_retry, load_version, proposals};
use crate::context::{Context, random};
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp, still_permitted};
use crate::rows::{self, Draft, ProposalRow, ProposalState};
use crate::wire::{KeyOrVersion, export_recipient, hex_decode, invalid, parse, version_name};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CreateProposal {
    action: Action,
    version: KeyOrVersion,
    lifetime_ms: u64,
    recipient: Option<ExportRecipient>,
    /// For a use: the request for it, which names the version.
    arguments: Option<Arguments>,
}

/// The version, the use that is proposed, and the proposal that an earlier attempt of this very request made.
pub(crate) struct ProposalFacts {
    version: VersionFacts,
    used: Option<Read>,
    existing: Option<proposals::Loaded>,
    proposer: kms_core::id::PrincipalName,
}

impl Operation for CreateProposal {
    type Wire = v1::CreateProposalRequest;
    type Facts = ProposalFacts;
    type Prepared = v1::Proposal;
    type Reply = v1::CreateProposalResponse;

    const ACTION: Action = Action::CreateProposal;

    fn parse(wire: v1::CreateProposalRequest, home: &Home) -> Result<Self, Refusal> {
        use v1::create_proposal_request::Recipient as Wire;
        let v1::CreateProposalRequest {
            action,
            resource,
            lifetime_seconds,
            request_id: _,
            recipient,
            arguments,
        } = wire;
        let action = proposals::proposable(parse("action", &action)?)?;
        let recipient = match (action, recipient) {
            (Action::ExportKeyVersion, Some(Wire::RsaPublicKey(key))) => {
                Some(export_recipient(Some(key), None)?)
            }
            (Action::ExportKeyVersion, Some(Wire::Hpke(hpke))) => {
                Some(export_recipient(None, Some(hpke))?)
            }
            (Action::ExportKeyVersion, None) => Some(export_recipient(None, None)?),
            (_, None) => None,
            (_, Some(_)) => return Err(invalid("recipient", "only an export has a recipient")),
        };
        let lifetime_ms = match u64::from(lifetime_seconds) * 1000 {
            0 => LIFETIME_MS,
            ms @ LIFETIME_MS_MIN..=LIFETIME_MS_MAX => ms,
            _ => return Err(invalid("lifetime_seconds", "expected 300 to 604800, or 0")),
        };
        let version = version_name("resource", &resource, home)?;
        let arguments = read_arguments(action, arguments, &version, home)?;
        let version = KeyOrVersion::Version(version);
        Ok(Self { action, version, lifetime_ms, recipient, arguments })
    }

    fn request_id(wire: &v1::CreateProposalRequest) -> &[u8] {
        &wire.request_id
    }

    fn named(&self) -> Resource {
        super::named(&self.version)
    }

    async fn load(
        &self,
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
    ) -> Result<ProposalFacts, Early> {
        let version = load_version(cx, &self.version).await?;
        let existing = match is_retry(cx, stamp.idempotency).await? {
            true => proposals::load(cx, &proposal_id(stamp)?).await?,
            false => None,
        };
        let used = match &self.arguments {
            // What is not there is refused by the rules.
            Some(wire) if existing.is_none() && version.found.is_some() => {
                let KeyOrVersion::Version(name) = &self.version else {
                    return Err(Failure::Bug("a proposal about no version").into());
                };
                Some(GuardedUse::proposed(cx, caller, stamp, wire.clone(), name).await?)
            }
            _ => None,
        };
        Ok(ProposalFacts { version, used, existing, proposer: caller.principal().clone() })
    }

    fn resource(&self, facts: &ProposalFacts) -> Resource {
        facts.version.resource.clone()
    }

    fn subject<'a>(&self, facts: &'a ProposalFacts) -> Subject<'a> {
        let transition = self.action.transition();
        facts.version.subject(transition.filter(|_| facts.existing.is_none()))
    }

    /// Whoever could not do it, cannot propose it either.
    async fn grounds(
        &self,
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        facts: &ProposalFacts,
    ) -> Result<Grounds, Early> {
        match self.action.gate() {
            Gate::Roles(needed)
                if caller.role_over(needed, &facts.version.resource, stamp.now).is_none() =>
            {
                return Err(Refusal::RoleMissing { needed }.into());
            }
            _ => {}
        }
        if let Some(used) = &facts.used {
            let asked = used.as_ref().map_err(Refusal::clone)?;
            self.check_use(cx, caller, stamp, asked, &facts.version).await?;
        }
        Ok(Grounds::default())
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        facts: &ProposalFacts,
    ) -> Result<(v1::Proposal, Vec<Draft>), Early> {
        if let Some(existing) = &facts.existing {
            return Ok((existing.shown(cx), Vec::new()));
        }
        self.check_recipient(cx)?;
        let found = facts.version.found()?;
        let guarding = proposals::guarding(found, self.action, stamp.now)
            .ok_or_else(|| invalid("action", UNGUARDED))?;
        let PolicyDigests { policy, of_key } = guarding.digests();
        let arguments = match &facts.used {
            Some(used) => Some(used.as_ref().map_err(Refusal::clone)?.arguments()?),
            None => None,
        };
        let proposal = Proposal {
            type_: PROPOSAL_TYPE.to_owned(),
            appliance: cx.log_key.origin().to_owned(),
            action: self.action,
            resource: found.name(),
            etag: found.version.etag.clone(),
            policy_digest: policy,
            key_policy_digest: of_key,
            proposer: facts.proposer.clone(),
            nonce: Nonce(random()?),
            created_at: stamp.now,
            expires_at: Timestamp(stamp.now.0).plus_ms(self.lifetime_ms),
            recipient: self.recipient.clone(),
            arguments,
        };
        let document = proposal.to_bytes().ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let row = ProposalRow {
            id: proposal_id(stamp)?,
            document: document.ok_or(Failure::Bug("a proposal without JSON form"))?,
            state: ProposalState::Open,
            approvals: Vec::new(),
        };
        let draft = rows::create(&*cx.vault()?, &stamp.operation_id, &row, &[])?;
        let etag = draft.etag.clone();
        let stored = rows::Stored { value: row, sealed: Vec::new(), revision: 1, etag };
        let shown = proposals::loaded(cx, stored).await?.shown(cx);
        Ok((shown, vec![draft]))
    }

    async fn perform(
        self,
        _cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        facts: ProposalFacts,
        proposal: v1::Proposal,
        audit: v1::AuditReference,
    ) -> Result<v1::CreateProposalResponse, Failure> {
        let resource = facts.version.resource;
        let _spent = recorded.spend(Self::ACTION, &resource, &stamp.request_digest)?;
        Ok(v1::CreateProposalResponse { proposal: Some(proposal), audit: Some(audit) })
    }
}

impl CreateProposal {
    /// Nor are they asked to approve a use that the rules refuse for another reason than theirs.
    async fn check_use(
        &self,
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        asked: &GuardedUse,
        version: &VersionFacts,
    ) -> Result<(), Early> {
        let resource = version.resource.clone();
        match still_permitted(cx, caller, stamp, self.action, resource, asked.subject()) {
            Err(Refusal::NeedsApproval) => {}
            Err(refusal) => return Err(refusal.into()),
            Ok(()) => return Err(invalid("action", UNGUARDED).into()),
        }
        // The quorum is that of the version that is used; whatever else it takes is asked of the proposer.
        if let Some(Other { action, resource, subject }) = asked.other() {
            still_permitted(cx, caller, stamp, action, resource, subject)?;
        }
        asked.check(cx, caller, stamp).await
    }

    /// People are not asked to approve what could not be done: a proposal runs once.
    fn check_recipient(&self, cx: &Context) -> Result<(), Early> {
        let Some(ExportRecipient::RsaAesKeyWrap { public_key }) = &self.recipient else {
            return Ok(());
        };
        let expected =
            || invalid("recipient", "expected the public key of RSA with 3072 or 4096 bits");
        let public_key = hex_decode(public_key).ok_or_else(expected)?;
        cx.vault()?.check_export_recipient(&public_key).map_err(|_| expected())?;
        Ok(())
    }
}

/// A proposal is named by the operation that made it.
fn proposal_id(stamp: &Stamp) -> Result<kms_core::id::Segment, Failure> {
    let id = stamp.operation_id.to_string();
    id.parse().map_err(|_| Failure::Bug("an operation id that is no name"))
}

/// Reads the arguments that go with the action: each use has its own, and nothing else has any.
fn read_arguments(
    action: Action,
    arguments: Option<Arguments>,
    version: &VersionName,
    home: &Home,
) -> Result<Option<Arguments>, Refusal> {
    let fitting = arguments.as_ref().map(guarded_use::action_of);
    if fitting != Some(action).filter(|action| action.takes_arguments()) {
        return Err(invalid("arguments", format!("they are not those of {action}")));
    }
    let Some(wire) = arguments else { return Ok(None) };
    let wire = guarded_use::named(wire, version, home)?;
    guarded_use::check_form(wire.clone(), home)?;
    let length_bytes = guarded_use::length_bytes(&wire);
    if length_bytes > ARGUMENT_BYTES_MAX {
        let instead = match action {
            Action::Sign | Action::Verify => "; give the digest",
            _ => "",
        };
        let problem =
            format!("{length_bytes} bytes; a proposal holds at most {ARGUMENT_BYTES_MAX}{instead}");
        return Err(invalid("arguments", problem));
    }
    Ok(Some(wire))
}

const UNGUARDED: &str = "no quorum guards this; just do it";
const LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;
