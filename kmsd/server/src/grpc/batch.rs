//! Many operations in one message. Each goes its own way through the pipeline, with its own decision and
//! its own leaf; they go together ([`crate::group`]), so that they share one sync of the disk.

use std::sync::Arc;

use kms_core::action::Action;
use kms_core::caller::Caller;
use kms_proto::v1;
use kms_proto::v1::batch_item::Request as Asked;
use kms_proto::v1::batch_result::Response as Answered;
use tonic::Status;

use crate::context::Context;
use crate::failure::Failure;
use crate::group::{GROUP_MAX, Gathering, Group, Item};
use crate::ops::{self, Using};
use crate::pipeline::{self, Operation};
use crate::status::unknown_request;
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
    // Groups of them, each in a task of its own, which goes on to its end even if the caller hangs up.
    let caller = Arc::new(caller.clone());
    let mut items = request.items.into_iter();
    let mut groups = Vec::new();
    while items.len() > 0 {
        let items: Vec<_> = items.by_ref().take(GROUP_MAX).collect();
        let count = items.len();
        groups.push((count, tokio::spawn(together(cx.clone(), caller.clone(), items))));
    }
    let mut results = Vec::new();
    for (count, group) in groups {
        let lost = |_| std::iter::repeat_with(panicked).take(count).collect();
        let answers: Vec<Answered> = group.await.unwrap_or_else(lost);
        results.extend(answers.into_iter().map(|a| v1::BatchResult { response: Some(a) }));
    }
    Ok(results)
}

/// The answers to `items`, in their order.
async fn together(
    cx: Arc<Context>,
    caller: Arc<Caller>,
    items: Vec<v1::BatchItem>,
) -> Vec<Answered> {
    let gathering = Arc::<Gathering>::default();
    let item = |item: v1::BatchItem| -> Item<Answered> {
        let (cx, caller, gathering) = (cx.clone(), caller.clone(), gathering.clone());
        Box::pin(async move { answer(&cx, &caller, &gathering, item.request).await })
    };
    let items: Vec<_> = items.into_iter().map(item).collect();
    let mut answers: Vec<_> = items.iter().map(|_| None).collect();
    let mut group = Group::new(cx.store.clone(), gathering.clone(), items, panicked);
    loop {
        let ended = group.ended().await;
        if ended.is_empty() {
            return answers.into_iter().map(|answer| answer.unwrap_or_else(panicked)).collect();
        }
        for (place, answer) in ended {
            answers[place] = Some(answer);
        }
    }
}

async fn answer(
    cx: &Arc<Context>,
    caller: &Caller,
    with: &Gathering,
    asked: Option<Asked>,
) -> Answered {
    use Answered as A;
    match asked {
        Some(Asked::Decrypt(wire)) => one::<ops::Decrypt>(cx, caller, with, wire, A::Decrypt).await,
        Some(Asked::Encrypt(wire)) => one::<ops::Encrypt>(cx, caller, with, wire, A::Encrypt).await,
        Some(Asked::MacSign(wire)) => one::<ops::MacSign>(cx, caller, with, wire, A::MacSign).await,
        Some(Asked::MacVerify(wire)) => {
            one::<ops::MacVerify>(cx, caller, with, wire, A::MacVerify).await
        }
        Some(Asked::Sign(wire)) => one::<ops::Sign>(cx, caller, with, wire, A::Sign).await,
        Some(Asked::Verify(wire)) => one::<ops::Verify>(cx, caller, with, wire, A::Verify).await,
        None => A::Error(unknown_request()),
    }
}

async fn one<U: ops::Use + 'static>(
    cx: &Arc<Context>,
    caller: &Caller,
    with: &Gathering,
    wire: U::Wire,
    wrap: fn(U::Reply) -> Answered,
) -> Answered
where
    U::Wire: 'static,
    U::Reply: 'static,
    Using<U>: Operation<Wire = U::Wire, Reply = U::Reply>,
{
    match pipeline::serve_in_task::<Using<U>>(cx, caller, Some(with), wire).await {
        Ok(reply) => wrap(reply),
        Err(failure) => error(&failure),
    }
}

fn error(failure: &Failure) -> Answered {
    Answered::Error(failure.into())
}

fn panicked() -> Answered {
    error(&Failure::Bug("an operation panicked"))
}

/// Most items of one batch.
const ITEMS_MAX: usize = 128;
