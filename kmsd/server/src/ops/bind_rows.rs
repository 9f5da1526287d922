//! `BindRows`: the daemon names the set of all rows in the log, so that a row that is put back, taken
//! away or exchanged while the daemon is away is found out at the next start (ADR 9).

use kms_core::action::Action;
use kms_core::audit::RowSet;
use kms_core::caller::Caller;
use kms_core::id::{Home, Resource};
use kms_core::permit::{Permit, Recorded, Refusal, Subject};
use kms_proto::v1;

use crate::context::Context;
use crate::failure::{Early, Failure};
use crate::identity;
use crate::pipeline::{self, Operation, Stamp};
use crate::rows::Draft;

/// The request, which is empty.
#[derive(Debug)]
pub(crate) struct BindRows;

impl Operation for BindRows {
    type Wire = ();
    type Facts = RowSet;
    type Prepared = ();
    type Reply = RowSet;

    const ACTION: Action = Action::BindRows;

    fn parse((): (), _home: &Home) -> Result<Self, Refusal> {
        Ok(Self)
    }

    async fn load(&self, cx: &Context, _caller: &Caller, _stamp: &Stamp) -> Result<RowSet, Early> {
        // Without the root key nobody could vouch for the leaf.
        let _open = cx.vault()?;
        Ok(cx.store.row_set().await?)
    }

    fn resource(&self, _set: &RowSet) -> Resource {
        Resource::Appliance
    }

    fn subject<'a>(&self, set: &'a RowSet) -> Subject<'a> {
        Subject::Rows(set)
    }

    fn binds_rows(&self, set: &RowSet) -> Option<u64> {
        Some(set.sequence)
    }

    async fn prepare(
        &self,
        _cx: &Context,
        _permit: &Permit,
        _stamp: &Stamp,
        _set: &RowSet,
    ) -> Result<((), Vec<Draft>), Early> {
        Ok(((), Vec::new()))
    }

    async fn perform(
        self,
        _cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        set: RowSet,
        (): (),
        _audit: v1::AuditReference,
    ) -> Result<RowSet, Failure> {
        let _spent = recorded.spend(Self::ACTION, &Resource::Appliance, &stamp.request_digest)?;
        Ok(set)
    }
}

/// Names the rows as they stand, before the root key is closed or the daemon ends. What keeps it from
/// that is told and keeps nothing else: each record after the leaf before this one is vouched for.
pub(crate) async fn bind_rows_at_the_end(cx: &Context) {
    if cx.is_sealed() {
        return;
    }
    let bound = match identity::daemon(&[]) {
        Ok(daemon) => pipeline::serve_within::<BindRows>(cx, &daemon, ()).await,
        Err(_) => Err(Failure::Bug("the daemon has no name")),
    };
    if let Err(failure) = bound {
        tracing::warn!(%failure, "the log does not name the rows as they stand at the end");
    }
}
