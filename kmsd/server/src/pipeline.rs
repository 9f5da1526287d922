//! The one way that every operation goes: parse → load → decide → record → perform → reply.
//!
//! An operation says what it needs in [`Operation`]; the order of the steps, the record of grants
//! and refusals, and the refusal of everything unforeseen are here and only here.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use kms_core::action::Action;
use kms_core::audit::Leaf;
use kms_core::caller::{Authentication, Caller};
use kms_core::id::{Digest, Home, OperationId, PrincipalName, Resource, Timestamp};
use kms_core::permit::{self, Grounds, Intent, Other, Permit, Recorded, Refusal, Subject};
use kms_core::service::Ingredients;
use kms_proto::v1;
use kms_store::{Batch, Committed, Condition, Outcome, StoreError};
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use zeroize::Zeroizing;

use crate::context::{Context, random_pair};
use crate::failure::{Early, Failure};
use crate::group::Gathering;
use crate::identity;
use crate::leases::{Fresh, Offer, Way};
use crate::ops::free;
use crate::rows::{self, Draft};
use crate::wire;

/// One operation of the API; one file each under `ops/`.
pub(crate) trait Operation: Send + Sync + Sized {
    /// The request on the wire.
    type Wire: Message + Send;
    /// What the store says of the resource, believed.
    type Facts: Send + Sync;
    /// What `prepare` hands to `perform`.
    type Prepared: Send;
    /// What the caller gets: the response on the wire.
    type Reply: Send;

    /// Which operation this is.
    const ACTION: Action;
    /// Whether `perform` writes what is done once. Then the record of the decision is not that write.
    const WRITES_LATER: bool = false;

    /// How often the request is judged anew when a row that it was judged by has changed before it was
    /// on record. What cannot be judged twice, since its nonce or its PIN is used up, is not.
    const JUDGED_ANEW_MAX: usize = 0;

    /// Reads the request into a type that cannot be wrong.
    fn parse(wire: Self::Wire, home: &Home) -> Result<Self, Refusal>;

    /// The caller's name for this request, if the operation takes one.
    fn request_id(_wire: &Self::Wire) -> &[u8] {
        &[]
    }

    /// Reads what the decision needs. Changes nothing.
    fn load(
        &self,
        cx: &Context,
        caller: &Caller,
        stamp: &Stamp,
    ) -> impl Future<Output = Result<Self::Facts, Early>> + Send;

    /// What the request acts on.
    fn resource(&self, facts: &Self::Facts) -> Resource;

    /// What the request acts on when loading was refused.
    fn named(&self) -> Resource {
        Resource::Appliance
    }

    /// What the rules and the log are to call it, where that depends on what was loaded.
    fn action(&self, _facts: &Self::Facts) -> Action {
        Self::ACTION
    }

    /// What the rules are to know of the resource.
    fn subject<'a>(&self, facts: &'a Self::Facts) -> Subject<'a>;

    /// What else is touched, where the request needs leave for two things.
    fn other<'a>(&self, _facts: &'a Self::Facts) -> Option<Other<'a>> {
        None
    }

    /// What cryptography it asks for that action and subjects do not tell.
    fn ingredients(&self, _facts: &Self::Facts) -> Ingredients {
        Ingredients::default()
    }

    /// Evidence and approvals that came with the request, checked.
    fn grounds(
        &self,
        _cx: &Context,
        _caller: &Caller,
        _stamp: &Stamp,
        _facts: &Self::Facts,
    ) -> impl Future<Output = Result<Grounds, Early>> + Send {
        async { Ok(Grounds::default()) }
    }

    /// What must still be true of the store when the decision is recorded: between judging a key
    /// and using it, nobody has suspended or destroyed it.
    fn unchanged(&self, _facts: &Self::Facts) -> Vec<Condition> {
        Vec::new()
    }

    /// With which record the rows stood as the leaf names them, if it is to name them.
    fn binds_rows(&self, _facts: &Self::Facts) -> Option<u64> {
        None
    }

    /// What [`Operation::prepare`] would hand over, if this may be recorded on a usage lease: it changes no
    /// row, brings neither evidence nor approval, and `caller` has the role for it.
    fn leased(
        &self,
        _caller: &Caller,
        _facts: &Self::Facts,
        _now: Timestamp,
    ) -> Option<Self::Prepared> {
        None
    }

    /// The rows that change together with the record of the decision.
    fn prepare(
        &self,
        cx: &Context,
        permit: &Permit,
        stamp: &Stamp,
        facts: &Self::Facts,
    ) -> impl Future<Output = Result<(Self::Prepared, Vec<Draft>), Early>> + Send;

    /// Does the deed, now that it is on record, and makes the reply.
    fn perform(
        self,
        cx: &Context,
        recorded: Recorded,
        stamp: &Stamp,
        facts: Self::Facts,
        prepared: Self::Prepared,
        audit: v1::AuditReference,
    ) -> impl Future<Output = Result<Self::Reply, Failure>> + Send;
}

/// What names one request in the log and in the store.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    /// Names the operation; the same for a retry with the same `request_id`.
    pub(crate) operation_id: OperationId,
    /// Salted digest of the request.
    pub(crate) request_digest: Digest,
    /// The salt.
    pub(crate) salt: [u8; 16],
    /// When it came.
    pub(crate) now: Timestamp,
    /// What makes a retry the same write, when the caller gave a `request_id`.
    pub(crate) idempotency: Option<Digest>,
    /// Who asks.
    pub(crate) actor: PrincipalName,
    /// Whether that is the daemon itself, which takes the steps that are due.
    pub(crate) by_daemon: bool,
}

impl Stamp {
    /// Names the request of `caller` that encodes to `wire`.
    ///
    /// # Errors
    /// When there is no randomness.
    pub(crate) fn new(
        cx: &Context,
        caller: &Caller,
        action: Action,
        wire: &impl Message,
        request_id: &[u8],
    ) -> Result<Self, Failure> {
        // Drawn at once: each draw has its price.
        let [salt, id] = random_pair()?;
        // The encoding may hold a PIN or a plaintext, so it is wiped when it has been digested.
        let wire = Zeroizing::new(wire.encode_to_vec());
        let idempotency = (!request_id.is_empty()).then(|| {
            let principal = caller.principal().to_string();
            Digest::of(&[principal.as_bytes(), action.as_str().as_bytes(), request_id, &wire])
        });
        let operation_id = match idempotency {
            Some(digest) => OperationId(std::array::from_fn(|at| digest.as_bytes()[at])),
            None => OperationId(id),
        };
        let request_digest = Digest::of(&[&salt, action.as_str().as_bytes(), &wire]);
        let actor = caller.principal().clone();
        let by_daemon = caller.authentication() == Authentication::Daemon;
        let now = cx.now();
        Ok(Self { operation_id, request_digest, salt, now, idempotency, actor, by_daemon })
    }
}

/// Serves one request of `caller`.
///
/// # Errors
/// [`Failure::Refused`] when the rules say no (then it is on record), otherwise what failed.
pub(crate) async fn serve<O>(
    cx: &Arc<Context>,
    caller: &Caller,
    wire: O::Wire,
) -> Result<O::Reply, Failure>
where
    O: Operation + 'static,
    O::Wire: 'static,
    O::Reply: 'static,
{
    let started = Instant::now();
    let (task_cx, caller) = (cx.clone(), caller.clone());
    // Taken before the task begins and held to its end: who asks and hangs up, again and again, has no
    // more operations under way than who waits for the answers.
    let place = cx.places.operation(&caller).await.ok_or(NO_PLACE)?;
    // In a task of its own: a caller who hangs up in the middle leaves nothing half done, neither a
    // counted try without its leaf nor a destroyed version without its erasure.
    let task = tokio::spawn(async move {
        let _place = place;
        let asking = Asking { cx: &task_cx, caller: &caller, gathering: None };
        request::<O>(&asking, wire).await
    });
    let result = task.await.unwrap_or(Err(Failure::Bug("an operation panicked")));
    cx.metrics.operation(O::ACTION, &result, started.elapsed());
    trace(O::ACTION, &result);
    result
}

/// As [`serve`], for whoever is in a task already that goes on to its end whatever the caller does. The
/// decision goes to the disk with those that are in `gathering`, if there is one.
///
/// # Errors
/// As [`serve`].
pub(crate) async fn serve_in_task<O: Operation>(
    cx: &Arc<Context>,
    caller: &Caller,
    gathering: Option<&Gathering>,
    wire: O::Wire,
) -> Result<O::Reply, Failure> {
    let started = Instant::now();
    let place = cx.places.operation(caller).await.ok_or(NO_PLACE)?;
    in_place::<O>(&Asking { cx, caller, gathering }, &place, wire, started).await
}

/// As [`serve_in_task`], for whoever has taken `place` already, and keeps it.
///
/// # Errors
/// As [`serve`].
pub(crate) async fn serve_in_place<O: Operation>(
    cx: &Context,
    caller: &Caller,
    place: &OwnedSemaphorePermit,
    wire: O::Wire,
) -> Result<O::Reply, Failure> {
    in_place::<O>(&Asking { cx, caller, gathering: None }, place, wire, Instant::now()).await
}

async fn in_place<O: Operation>(
    asking: &Asking<'_>,
    _place: &OwnedSemaphorePermit,
    wire: O::Wire,
    started: Instant,
) -> Result<O::Reply, Failure> {
    let request = std::pin::pin!(request::<O>(asking, wire));
    let result = caught(request).await;
    let result = result.unwrap_or(Err(Failure::Bug("an operation panicked")));
    asking.cx.metrics.operation(O::ACTION, &result, started.elapsed());
    trace(O::ACTION, &result);
    result
}

/// As [`serve_in_task`], for what the daemon does as a part of another operation, in its place.
///
/// # Errors
/// As [`serve`].
pub(crate) async fn serve_within<O: Operation>(
    cx: &Context,
    daemon: &Caller,
    wire: O::Wire,
) -> Result<O::Reply, Failure> {
    let started = Instant::now();
    let asking = Asking { cx, caller: daemon, gathering: None };
    let result = request::<O>(&asking, wire).await;
    cx.metrics.operation(O::ACTION, &result, started.elapsed());
    trace(O::ACTION, &result);
    result
}

/// What comes of `future`; `None` when it panics.
async fn caught<R>(mut future: Pin<&mut impl Future<Output = R>>) -> Option<R> {
    std::future::poll_fn(|task| {
        // A future that has panicked is not polled again, so nobody sees what it left half done.
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(task)));
        match polled {
            Ok(Poll::Ready(result)) => Poll::Ready(Some(result)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

/// Who asks, and with whom.
struct Asking<'a> {
    cx: &'a Context,
    caller: &'a Caller,
    /// Where decisions wait for each other on the way to the disk.
    gathering: Option<&'a Gathering>,
}

impl Asking<'_> {
    async fn commit(&self, batch: Batch) -> Result<Outcome, StoreError> {
        match self.gathering {
            Some(gathering) => gathering.commit(batch).await,
            None => self.cx.store.commit(batch).await,
        }
    }
}

async fn request<O: Operation>(asking: &Asking<'_>, wire: O::Wire) -> Result<O::Reply, Failure> {
    let Asking { cx, caller, .. } = asking;
    let stamp = Stamp::new(cx, caller, O::ACTION, &wire, O::request_id(&wire))?;
    let parsed = wire::request_id(O::request_id(&wire)).and_then(|()| O::parse(wire, &cx.home));
    let trusted = O::ACTION.works_in_error_state() || cx.self_tests.state().is_ok();
    let parsed = if trusted { parsed } else { Err(Refusal::SelfTestFailed) };
    steps(asking, &stamp, parsed).await
}

/// Tells the operator's log how an operation ended. The audit log says the rest.
fn trace<R>(action: Action, result: &Result<R, Failure>) {
    match result {
        Ok(_) => tracing::debug!(%action, "granted"),
        Err(Failure::Refused { refusal, audit_index }) => {
            tracing::info!(%action, reason = refusal.reason(), audit_index, "denied");
        }
        Err(failure) => tracing::warn!(%action, %failure, "failed"),
    }
}

/// The steps in their order. What ends a request early is rare and stands apart in memory, so that the
/// many that go all the way are small.
async fn steps<O: Operation>(
    asking: &Asking<'_>,
    stamp: &Stamp,
    parsed: Result<O, Refusal>,
) -> Result<O::Reply, Failure> {
    let Asking { cx, caller, .. } = *asking;
    let operation = match parsed {
        Ok(operation) => operation,
        Err(refusal) => {
            return Err(Box::pin(refuse::<O>(asking, stamp, Resource::Appliance, refusal)).await);
        }
    };
    let mut resource = operation.named();
    // Nothing is looked at for somebody who is let in no more, and no PIN is tried.
    if !caller.is_let_in(stamp.now) {
        return Err(Box::pin(refuse::<O>(asking, stamp, resource, Refusal::NotAdmitted)).await);
    }
    let mut anew = None;
    for judged in 0..=O::JUDGED_ANEW_MAX {
        if judged > 0 {
            // It may be the caller's own row that has changed.
            match Box::pin(identity::anew(cx, anew.as_ref().unwrap_or(caller))).await {
                Ok(found) => anew = Some(found),
                Err(early) => {
                    return Err(Box::pin(end_early::<O>(asking, stamp, resource, early)).await);
                }
            }
        }
        let caller = anew.as_ref().unwrap_or(caller);
        // Asked before anything is read: what is read later is at least as fresh.
        let fresh = cx.fresh();
        let facts = match operation.load(cx, caller, stamp).await {
            Ok(facts) => facts,
            Err(early) => {
                let ended = end_early::<O>(asking, stamp, operation.named(), early);
                return Err(Box::pin(ended).await);
            }
        };
        resource = operation.resource(&facts);
        let (grounds, earlier) = match operation.grounds(cx, caller, stamp, &facts).await {
            Ok(grounds) => (grounds, None),
            Err(Early::Refuse(refusal)) => (Grounds::default(), Some(refusal)),
            Err(early) => {
                return Err(Box::pin(end_early::<O>(asking, stamp, resource, early)).await);
            }
        };
        let action = operation.action(&facts);
        let intent = Intent {
            other: operation.other(&facts),
            ingredients: operation.ingredients(&facts),
            ..intent(cx, stamp, action, resource.clone(), operation.subject(&facts))
        };
        let mut offer = None;
        if let (Some(fresh), None) = (fresh, &earlier)
            && let Some(prepared) = operation.leased(caller, &facts, stamp.now)
        {
            let rows = || {
                let judged_by = operation.unchanged(&facts).into_iter().map(|row| row.key);
                judged_by.chain(stands(caller).map(|row| row.key)).collect()
            };
            match way((cx, caller), &intent, fresh, rows).await {
                Way::Leased(recorded) => {
                    let (done, asked) = ((facts, prepared), (recorded, stamp));
                    return perform(asking, operation, asked, done, resource).await;
                }
                Way::Opens(opens) => offer = Some(opens),
                Way::Each | Way::Waits(_) => {}
            }
        }
        let permit = match permit::decide(caller, &intent, grounds, earlier) {
            Ok(permit) => permit,
            Err(denial) => return Err(Box::pin(record_denial(asking, denial)).await),
        };
        let (prepared, drafts) = match operation.prepare(cx, &permit, stamp, &facts).await {
            Ok(prepared) => prepared,
            Err(early) => {
                return Err(Box::pin(end_early::<O>(asking, stamp, resource, early)).await);
            }
        };
        let mut unchanged = operation.unchanged(&facts);
        unchanged.extend(stands(caller));
        let binds = operation.binds_rows(&facts);
        let once = stamp.idempotency.filter(|_| !O::WRITES_LATER);
        let recorded = record(asking, permit, (once, binds), unchanged, drafts, offer).await;
        if let Err(Failure::Store(StoreError::NotVouched)) = recorded {
            // Decided before the root key was closed, and not on the disk before: nothing was done.
            return Err(Box::pin(refuse::<O>(asking, stamp, resource, Refusal::Sealed)).await);
        }
        if let Some(recorded) = recorded? {
            let (done, asked) = ((facts, prepared), (recorded, stamp));
            return perform(asking, operation, asked, done, resource).await;
        }
    }
    Err(Box::pin(refuse::<O>(asking, stamp, resource, Refusal::Stale)).await)
}

/// Which way a use goes on record. Where somebody is about to open the lease that it would go on, it waits
/// for that as it would for its own leaf.
async fn way(
    (cx, caller): (&Context, &Caller),
    intent: &Intent<'_>,
    fresh: Fresh,
    rows: impl Fn() -> Vec<String>,
) -> Way {
    for _ in 0..LEASES_WAITED_FOR_MAX {
        match cx.leases.way(caller, intent, fresh, &rows) {
            // The sender sends nothing: it is dropped, and that is the news.
            Way::Waits(mut opened) => while opened.changed().await.is_ok() {},
            way => return way,
        }
    }
    Way::Each
}

/// Does what is on record.
async fn perform<O: Operation>(
    asking: &Asking<'_>,
    operation: O,
    (recorded, stamp): (Recorded, &Stamp),
    (facts, prepared): (O::Facts, O::Prepared),
    resource: Resource,
) -> Result<O::Reply, Failure> {
    let lease_use = recorded.use_number().unwrap_or(0);
    let audit = v1::AuditReference {
        audit_index: recorded.audit_index(),
        request_salt: stamp.salt.to_vec(),
        service: recorded.service().into(),
        lease_use,
        lease_use_time_ms: if lease_use == 0 { 0 } else { stamp.now.0 },
    };
    match operation.perform(asking.cx, recorded, stamp, facts, prepared, audit).await {
        // The log says that it was permitted; that it was refused then, it says as well.
        Err(Failure::Late(refusal)) => {
            Err(Box::pin(refuse::<O>(asking, stamp, resource, refusal)).await)
        }
        performed => performed,
    }
}

fn intent<'a>(
    cx: &'a Context,
    stamp: &Stamp,
    action: Action,
    resource: Resource,
    subject: Subject<'a>,
) -> Intent<'a> {
    Intent {
        action,
        resource,
        operation_id: stamp.operation_id,
        request_digest: stamp.request_digest,
        subject,
        other: None,
        ingredients: Ingredients::default(),
        approved_only: cx.approved_only,
        region: cx.home.region.as_str(),
        now: stamp.now,
    }
}

/// That `caller` still is who it was when it was judged, and may do what it might: nothing is recorded as permitted
/// behind the record of what forbids it.
pub(crate) fn stands(caller: &Caller) -> impl Iterator<Item = Condition> {
    caller.standing().rows.iter().map(rows::stands_at)
}

/// Commits the rows and the leaf of a permit in one batch. `None` when a row changed meanwhile.
async fn record(
    asking: &Asking<'_>,
    mut permit: Permit,
    (once, binds_rows): (Option<Digest>, Option<u64>),
    conditions: Vec<Condition>,
    drafts: Vec<Draft>,
    offer: Option<Offer>,
) -> Result<Option<Recorded>, Failure> {
    let mut leaves = Vec::with_capacity(1);
    if let Some(offer) = &offer {
        permit.offer_lease(offer.terms());
        leaves.extend(offer.ends_before());
    }
    let mut unrecorded = permit.record(drafts.iter().filter_map(|draft| draft.digest).collect());
    let slots = rows::slots(&drafts);
    leaves.push(unrecorded.take_leaf());
    let mut batch = Batch {
        conditions,
        leaves,
        // A read is a read each time; only writes are done once.
        idempotency: once
            .filter(|_| drafts.iter().any(|draft| draft.write.is_some()))
            .map(|digest| digest.0),
        binds_rows,
        ..Batch::default()
    };
    for draft in drafts {
        batch.conditions.push(draft.condition);
        batch.writes.extend(draft.write);
    }
    let outcome = asking.commit(batch).await;
    if let Err(StoreError::NotVouched) = outcome {
        free(asking.cx, &slots).await?;
    }
    match outcome? {
        // A retry that overtook its first attempt; asked once more, it finds what that one made.
        Outcome::Committed(Committed { replayed: true, .. }) => {
            free(asking.cx, &slots).await?;
            Err(Failure::Unknown)
        }
        Outcome::Committed(Committed { receipt, .. }) => {
            let recorded = unrecorded.on_disk(&receipt)?;
            if let Some(offer) = offer {
                offer.opened(&recorded, asking.caller);
            }
            Ok(Some(recorded))
        }
        Outcome::Conflict(_) => {
            free(asking.cx, &slots).await?;
            Ok(None)
        }
        Outcome::Unknown => Err(Failure::Unknown),
    }
}

/// Judges anew what was permitted and is still going on. Nothing is recorded, and nothing can be done with
/// the answer: it is only whether the rules would say the same now.
///
/// # Errors
/// The refusal.
pub(crate) fn still_permitted(
    cx: &Context,
    caller: &Caller,
    stamp: &Stamp,
    action: Action,
    resource: Resource,
    subject: Subject<'_>,
) -> Result<(), Refusal> {
    if !action.works_in_error_state() && cx.self_tests.state().is_err() {
        return Err(Refusal::SelfTestFailed);
    }
    let intent = Intent { now: cx.now(), ..intent(cx, stamp, action, resource, subject) };
    match permit::decide(caller, &intent, Grounds::default(), None) {
        Ok(_permit) => Ok(()),
        Err(denial) => Err(denial.refusal().clone()),
    }
}

/// Puts on record how something that was permitted has ended. `None` when a row changed meanwhile by which
/// it may have ended otherwise.
///
/// # Errors
/// When the store fails.
pub(crate) async fn record_end(
    cx: &Context,
    leaf: &Leaf,
    conditions: Vec<Condition>,
) -> Result<Option<u64>, Failure> {
    let batch = Batch { conditions, leaves: vec![leaf.to_bytes()], ..Batch::default() };
    match cx.store.commit(batch).await? {
        Outcome::Committed(Committed { receipt, .. }) => {
            let index = receipt.index_of(&leaf.hash());
            Ok(Some(index.ok_or(Failure::Bug("a commit receipt without the committed leaf"))?))
        }
        Outcome::Conflict(_) => Ok(None),
        Outcome::Unknown => Err(Failure::Unknown),
    }
}

/// Refuses a message of `action` that is malformed as a whole, on record like every refusal.
pub(crate) async fn refuse_message(
    cx: &Context,
    caller: &Caller,
    action: Action,
    wire: &impl Message,
    refusal: Refusal,
) -> Failure {
    let stamp = match Stamp::new(cx, caller, action, wire, &[]) {
        Ok(stamp) => stamp,
        Err(failure) => return failure,
    };
    let asking = Asking { cx, caller, gathering: None };
    refuse_action(&asking, &stamp, action, Resource::Appliance, refusal).await
}

/// Records a refusal in the same log and by the same store as every grant, then tells it.
async fn record_denial(asking: &Asking<'_>, denial: permit::Denial) -> Failure {
    let mut unrecorded = denial.record();
    let batch = Batch { leaves: vec![unrecorded.take_leaf()], ..Batch::default() };
    let told = async {
        match asking.commit(batch).await? {
            Outcome::Committed(committed) => Ok(unrecorded.on_disk(&committed.receipt)?),
            Outcome::Conflict(_) | Outcome::Unknown => Err(Failure::Unknown),
        }
    };
    match told.await {
        Ok((refusal, audit_index)) => Failure::Refused { refusal, audit_index },
        Err(failure) => failure,
    }
}

async fn refuse<O: Operation>(
    asking: &Asking<'_>,
    stamp: &Stamp,
    resource: Resource,
    refusal: Refusal,
) -> Failure {
    refuse_action(asking, stamp, O::ACTION, resource, refusal).await
}

async fn refuse_action(
    asking: &Asking<'_>,
    stamp: &Stamp,
    action: Action,
    resource: Resource,
    refusal: Refusal,
) -> Failure {
    let intent = intent(asking.cx, stamp, action, resource, Subject::Plain);
    match permit::decide(asking.caller, &intent, Grounds::default(), Some(refusal)) {
        Err(denial) => record_denial(asking, denial).await,
        Ok(_) => Failure::Bug("a refusal that was permitted"),
    }
}

async fn end_early<O: Operation>(
    asking: &Asking<'_>,
    stamp: &Stamp,
    resource: Resource,
    early: Early,
) -> Failure {
    match early {
        Early::Refuse(refusal) => refuse::<O>(asking, stamp, resource, refusal).await,
        Early::Fail(failure) => {
            // The log says that it was asked; the caller hears what failed. Where the store itself
            // failed, this fails as well, and nothing was done.
            let _recorded = refuse::<O>(asking, stamp, resource, Refusal::Failed).await;
            failure
        }
    }
}

/// How often a use waits for somebody to open a lease, before it goes its own way.
const LEASES_WAITED_FOR_MAX: u32 = 3;
const NO_PLACE: Failure = Failure::Bug("the places were closed");
