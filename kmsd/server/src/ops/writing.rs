//! Operations that change one ring, key or version: what is the same for all of them.

use std::future::Future;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource};
use kms_core::lifecycle::Transition;
use kms_core::permit::{Grounds, Permit, Recorded, Refusal, Subject};
use kms_proto::v1;
use prost::Message;

use super::changes::erase;
use super::is_retry;
use super::target::Target;
use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;

/// An operation that changes one row, under its etag, once per request id.
pub(crate) trait Write: Send + Sync + Sized {
    /// The request on the wire.
    type Wire: Message + Send;
    /// What is changed.
    type Target: Target;
    /// The response on the wire.
    type Reply: Send;

    /// Which operation this is.
    const ACTION: Action;

    /// Reads the request into a type that cannot be wrong.
    fn parse(wire: Self::Wire, home: &Home) -> Result<Self, Refusal>;

    /// The caller's name for this request.
    fn request_id(wire: &Self::Wire) -> &[u8];

    /// What is to be changed, and the state in which the caller saw it.
    fn at(&self) -> &At<<Self::Target as Target>::Name>;

    /// The step of a version's life that is taken, if one is.
    fn transition(&self, _found: &Self::Target) -> Option<Transition> {
        Self::ACTION.transition()
    }

    /// What stands in the way besides what the rules see in the action and its transition.
    ///
    /// # Errors
    /// The refusal, which goes through the one decision.
    fn refuse(&self, _found: &Self::Target, _stamp: &Stamp) -> Result<(), Refusal> {
        Ok(())
    }

    /// The row as it is to be, and what else must be written or stay with it.
    fn change(
        &self,
        cx: &Context,
        stamp: &Stamp,
        found: &Self::Target,
    ) -> impl Future<Output = Result<Changed<Self>, Early>> + Send;

    /// Makes the response.
    fn reply(shown: <Self::Target as Target>::Shown, audit: v1::AuditReference) -> Self::Reply;
}

/// The row after a change, and what goes along with it.
pub(crate) type Changed<W> = (<<W as Write>::Target as Target>::Row, Vec<Draft>);

/// What a change is asked of.
#[derive(Clone, Debug)]
pub(crate) struct At<N> {
    /// Its name.
    pub(crate) name: N,
    /// The state in which the caller saw it; empty for whatever it is.
    pub(crate) etag: String,
}

impl<N> At<N> {
    /// `name` in the state `etag`.
    pub(crate) const fn new(name: N, etag: String) -> Self {
        Self { name, etag }
    }

    /// As [`At::new`], for changes that nobody makes without having seen what is there.
    ///
    /// # Errors
    /// [`Refusal::InvalidArgument`] without an etag.
    pub(crate) fn seen(name: N, etag: String) -> Result<Self, Refusal> {
        if etag.is_empty() {
            let problem = "required: the etag that a read of it gave";
            return Err(crate::wire::invalid("etag", problem));
        }
        Ok(Self { name, etag })
    }
}

/// Runs a [`Write`] through the pipeline.
#[derive(Debug)]
pub(crate) struct Writing<W>(W);

/// What is to be changed, if it is there.
#[derive(Debug)]
pub(crate) struct Facts<T> {
    found: Option<T>,
    /// Whether an earlier attempt of this very request changed it.
    is_retry: bool,
}

/// What the change will look like, and the slot that goes with it.
type Prepared<T> = (<T as Target>::Shown, Option<u64>);

impl<W: Write> Operation for Writing<W> {
    type Wire = W::Wire;
    type Facts = Facts<W::Target>;
    type Prepared = Prepared<W::Target>;
    type Reply = W::Reply;

    const ACTION: Action = W::ACTION;

    fn parse(wire: W::Wire, home: &Home) -> Result<Self, Refusal> {
        W::parse(wire, home).map(Self)
    }

    fn request_id(wire: &W::Wire) -> &[u8] {
        W::request_id(wire)
    }

    fn named(&self) -> Resource {
        W::Target::resource(&self.0.at().name)
    }

    async fn load(
        &self,
        cx: &Context,
        _caller: &Caller,
        stamp: &Stamp,
    ) -> Result<Self::Facts, Early> {
        let At { name, etag } = self.0.at();
        let is_retry = is_retry(cx, stamp.idempotency).await?;
        let found = W::Target::load(cx, name, is_retry).await?;
        let moved = found.as_ref().is_some_and(|found| found.row().etag != *etag);
        if moved && !etag.is_empty() && !is_retry {
            return Err(Refusal::Stale.into());
        }
        Ok(Facts { found, is_retry })
    }

    fn resource(&self, _facts: &Self::Facts) -> Resource {
        self.named()
    }

    fn subject<'a>(&self, facts: &'a Self::Facts) -> Subject<'a> {
        facts.found.as_ref().map_or(Subject::Absent, |found| match facts.is_retry {
            true => found.subject_unchanged(),
            false => found.subject(self.0.transition(found)),
        })
    }

    async fn grounds(
        &self,
        _cx: &Context,
        _caller: &Caller,
        stamp: &Stamp,
        facts: &Self::Facts,
    ) -> Result<Grounds, Early> {
        if let Some(found) = facts.found.as_ref().filter(|_| !facts.is_retry) {
            self.0.refuse(found, stamp)?;
        }
        Ok(Grounds::default())
    }

    async fn prepare(
        &self,
        cx: &Context,
        _permit: &Permit,
        stamp: &Stamp,
        facts: &Self::Facts,
    ) -> Result<(Self::Prepared, Vec<Draft>), Early> {
        let found = facts.found.as_ref().ok_or(super::ABSENT)?;
        if facts.is_retry {
            let before = found.row();
            return Ok(((found.shown(&before.value, &before.etag, stamp), None), Vec::new()));
        }
        let (after, also) = self.0.change(cx, stamp, found).await?;
        let mut drafts = found.drafts(cx, stamp, W::ACTION, &after)?;
        let etag = drafts.first().map(|row| row.etag.clone()).unwrap_or_default();
        drafts.extend(also);
        Ok(((found.shown(&after, &etag, stamp), found.erased(&after)), drafts))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        _facts: Self::Facts,
        (shown, erased): Self::Prepared,
        audit: v1::AuditReference,
    ) -> Result<W::Reply, Failure> {
        let _spent = recorded.spend(W::ACTION, &self.named(), &stamp.request_digest)?;
        if let Some(slot) = erased {
            erase(cx, slot).await?;
        }
        Ok(W::reply(shown, audit))
    }
}
