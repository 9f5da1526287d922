//! Many operations in one message. Each goes its own way through the pipeline, with its own decision and
//! its own leaf; they run at once, so that they share one sync of the disk.

use std::sync::Arc;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_proto::v1;
use kms_proto::v1::batch_item::Request as Asked;
use kms_proto::v1::batch_result::Response as Answered;
use tonic::Status;

use crate::context::Context;
use crate::failure::Failure;
use crate::ops::{self, Using};
use crate::pipeline::{self, Operation};
use crate::status::{Told, tell};
use crate::wire::invalid;

/// Serves the items of one batch of `caller`.
///
/// # Errors
/// `INVALID_ARGUMENT` for more than [`ITEMS_MAX`].
pub(crate) async fn run(
    cx: &Arc<Context>,
    caller: &Caller,
    request: v1::BatchRequest,
) -> Result<Vec<v1::BatchResult>, Status> {
    if request.items.len() > ITEMS_MAX {
        let refusal = invalid("items", format!("at most {ITEMS_MAX} are taken"));
        let refused = pipeline::refuse_message(cx, caller, Action::Batch, &request, refusal);
        return Err(refused.await.into());
    }
    let items = request.items;
    // Each in a task of its own, which goes on to its end even if the caller hangs up.
    let tasks: Vec<_> = items
        .into_iter()
        .map(|item| {
            let (cx, caller) = (cx.clone(), caller.clone());
            tokio::spawn(async move { answer(&cx, &caller, item.request).await })
        })
        .collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        let answered = task.await.unwrap_or_else(|_| error(&PANICKED));
        results.push(v1::BatchResult { response: Some(answered) });
    }
    Ok(results)
}

async fn answer(cx: &Arc<Context>, caller: &Caller, asked: Option<Asked>) -> Answered {
    use Answered as A;
    match asked {
        Some(Asked::Decrypt(wire)) => one::<ops::Decrypt>(cx, caller, wire, A::Decrypt).await,
        Some(Asked::Encrypt(wire)) => one::<ops::Encrypt>(cx, caller, wire, A::Encrypt).await,
        Some(Asked::MacSign(wire)) => one::<ops::MacSign>(cx, caller, wire, A::MacSign).await,
        Some(Asked::MacVerify(wire)) => one::<ops::MacVerify>(cx, caller, wire, A::MacVerify).await,
        Some(Asked::Sign(wire)) => one::<ops::Sign>(cx, caller, wire, A::Sign).await,
        Some(Asked::Verify(wire)) => one::<ops::Verify>(cx, caller, wire, A::Verify).await,
        None => A::Error(super::session::unknown()),
    }
}

async fn one<U: ops::Use + 'static>(
    cx: &Arc<Context>,
    caller: &Caller,
    wire: U::Wire,
    wrap: fn(U::Reply) -> Answered,
) -> Answered
where
    U::Wire: 'static,
    U::Reply: 'static,
    Using<U>: Operation<Wire = U::Wire, Reply = U::Reply>,
{
    match pipeline::serve_in_task::<Using<U>>(cx, caller, wire).await {
        Ok(reply) => wrap(reply),
        Err(failure) => error(&failure),
    }
}

fn error(failure: &Failure) -> Answered {
    let Told { code, reason, message, audit_index } = tell(failure);
    let (code, reason) = (code.into(), reason.to_owned());
    Answered::Error(v1::OperationError { code, reason, message, audit_index })
}

const PANICKED: Failure = Failure::Bug("an operation panicked");
/// Most items of one batch.
const ITEMS_MAX: usize = 128;
