//! CreateReleaseChallenge: a nonce to collect evidence over; good once, on this connection.

use std::sync::PoisonError;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::challenge::{Challenge, ChallengeError, LIFETIME_MS};
use kms_core::id::{Home, Nonce, Resource, VersionName};
use kms_core::permit::{Grounds, Permit, Recorded, Refusal, Subject};
use kms_core::transcript::Suite;
use kms_proto::v1;

use super::{VersionFacts, load_version, named};
use crate::context::{Context, random};
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;
use crate::wire::{KeyOrVersion, time_out};

/// The parsed request.
#[derive(Debug)]
pub(crate) struct CreateReleaseChallenge(KeyOrVersion);

/// The version, and who asks on which channel.
#[derive(Debug)]
pub(crate) struct ChallengeFacts {
    version: VersionFacts,
    caller: Caller,
}

impl Operation for CreateReleaseChallenge {
    type Wire = v1::CreateReleaseChallengeRequest;
    type Facts = ChallengeFacts;
    type Prepared = ();
    type Reply = v1::CreateReleaseChallengeResponse;

    const ACTION: Action = Action::CreateReleaseChallenge;

    fn parse(wire: v1::CreateReleaseChallengeRequest, home: &Home) -> Result<Self, Refusal> {
        KeyOrVersion::parse(&wire.name, home).map(Self)
    }

    fn named(&self) -> Resource {
        named(&self.0)
    }

    async fn load(
        &self,
        cx: &Context,
        caller: &Caller,
        _stamp: &Stamp,
    ) -> Result<ChallengeFacts, Early> {
        Ok(ChallengeFacts { version: load_version(cx, &self.0).await?, caller: caller.clone() })
    }

    fn resource(&self, facts: &ChallengeFacts) -> Resource {
        facts.version.resource.clone()
    }

    fn subject<'a>(&self, facts: &'a ChallengeFacts) -> Subject<'a> {
        facts.version.subject(None)
    }

    /// A key that is never released looks like one that does not exist: a stranger may ask here.
    async fn grounds(
        &self,
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
        facts: &ChallengeFacts,
    ) -> Result<Grounds, Early> {
        let open = cx.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.has_room(caller.principal(), stamp.now) {
            return Err(Refusal::from(ChallengeError::TooMany).into());
        }
        drop(open);
        let gated = |found: &super::Found| found.key.value.requirement.is_some();
        if facts.version.found.as_ref().is_some_and(gated) {
            return Ok(Grounds::default());
        }
        if caller.knows(&facts.version.resource, stamp.now) && facts.version.found.is_some() {
            return Err(Refusal::NotReleasable.into());
        }
        Err(Refusal::NotFound.into())
    }

    async fn prepare(
        &self,
        _cx: &Context,
        _permit: &Permit,
        _stamp: &Stamp,
        _facts: &ChallengeFacts,
    ) -> Result<((), Vec<Draft>), Early> {
        Ok(((), Vec::new()))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        facts: ChallengeFacts,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<v1::CreateReleaseChallengeResponse, Failure> {
        let resource = &facts.version.resource;
        let _spent = recorded.spend(Self::ACTION, resource, &stamp.request_digest)?;
        let version = facts.version.found()?.version.value.header.version.clone();
        let (nonce, expires_at) = issue(cx, &facts.caller, version.clone(), stamp)?;
        Ok(v1::CreateReleaseChallengeResponse {
            nonce: nonce.as_bytes().to_vec(),
            expire_time: time_out(expires_at),
            name: version.to_string(),
            log_key: cx.log_key.to_string(),
            suites: Suite::offered(cx.approved_only).map(|suite| suite.to_string()).collect(),
            audit: Some(audit),
        })
    }
}

fn issue(
    cx: &Context,
    caller: &Caller,
    version: VersionName,
    stamp: &Stamp,
) -> Result<(Nonce, kms_core::id::Timestamp), Failure> {
    let nonce = Nonce(random()?);
    let expires_at = stamp.now.plus_ms(LIFETIME_MS);
    let challenge = Challenge {
        principal: caller.principal().clone(),
        channel_digest: caller.channel().digest(),
        version,
        expires_at,
    };
    let mut open = cx.challenges.lock().unwrap_or_else(PoisonError::into_inner);
    open.issue(nonce, challenge, stamp.now).map_err(Failure::TooManyChallenges)?;
    Ok((nonce, expires_at))
}
