//! Operations that only read: what is the same for all of them.

use std::future::Future;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_proto::v1;
use prost::Message;

use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::pipeline::{Operation, Stamp};
use crate::rows::Draft;

/// An operation that changes nothing.
pub(crate) trait Read: Send + Sync + Sized {
    /// The request on the wire.
    type Wire: Message + Send;
    /// What is read.
    type Facts: Send + Sync;
    /// The response on the wire.
    type Reply: Send;

    /// Which operation this is.
    const ACTION: Action;

    /// Reads the request into a type that cannot be wrong.
    fn parse(wire: Self::Wire, home: &Home) -> Result<Self, Refusal>;

    /// Reads.
    fn load(
        &self,
        cx: &Context,
        caller: &Caller,
    ) -> impl Future<Output = Result<Self::Facts, Early>> + Send;

    /// What the request acts on.
    fn resource(&self) -> Resource {
        Resource::Appliance
    }

    /// What the rules are to know of it.
    fn subject<'a>(&self, _facts: &'a Self::Facts) -> Subject<'a> {
        Subject::Plain
    }

    /// Makes the response.
    fn reply(
        self,
        cx: &Context,
        facts: Self::Facts,
        audit: v1::AuditReference,
    ) -> impl Future<Output = Result<Self::Reply, Failure>> + Send;
}

/// Runs a [`Read`] through the pipeline.
#[derive(Debug)]
pub(crate) struct Reading<R>(R);

impl<R: Read> Operation for Reading<R> {
    type Wire = R::Wire;
    type Facts = R::Facts;
    type Prepared = ();
    type Reply = R::Reply;

    const ACTION: Action = R::ACTION;

    fn parse(wire: R::Wire, home: &Home) -> Result<Self, Refusal> {
        R::parse(wire, home).map(Self)
    }

    async fn load(&self, cx: &Context, caller: &Caller, _stamp: &Stamp) -> Result<R::Facts, Early> {
        self.0.load(cx, caller).await
    }

    fn named(&self) -> Resource {
        self.0.resource()
    }

    fn resource(&self, _facts: &R::Facts) -> Resource {
        self.0.resource()
    }

    fn subject<'a>(&self, facts: &'a R::Facts) -> Subject<'a> {
        self.0.subject(facts)
    }

    async fn prepare(
        &self,
        _cx: &Context,
        _permit: &Permit,
        _stamp: &Stamp,
        _facts: &R::Facts,
    ) -> Result<((), Vec<Draft>), Early> {
        Ok(((), Vec::new()))
    }

    async fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        facts: R::Facts,
        (): (),
        audit: v1::AuditReference,
    ) -> Result<R::Reply, Failure> {
        let _spent = recorded.spend(R::ACTION, &self.0.resource(), &stamp.request_digest)?;
        self.0.reply(cx, facts, audit).await
    }
}
