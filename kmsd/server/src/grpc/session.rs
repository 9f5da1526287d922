//! One long stream of operations: what the PKCS#11 module speaks.
//!
//! Requests are answered in any order; the ids pair them. Uses of keys that have come by the time that one
//! is looked at go together ([`crate::group`]). A login changes who the stream speaks for, so it waits for
//! what is in flight and everything after it waits for the login.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use kms_core::caller::Caller;
use kms_proto::v1;
use kms_proto::v1::session_request::Request as Asked;
use kms_proto::v1::session_response::Response as Answered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::context::Context;
use crate::failure::Failure;
use crate::group::{GROUP_MAX, Gathering, Group, Item};
use crate::identity::Connected;
use crate::ops::{self, Login, MakingOf, Reading, Using, Writing};
use crate::pipeline::{self, Operation};
use crate::status::unknown_request;

/// The answers of a stream.
pub(crate) type SessionStream =
    Pin<Box<dyn Stream<Item = Result<v1::SessionResponse, Status>> + Send>>;

/// Serves `requests` of `peer`, which is `channel_caller` now, until the stream ends or the daemon stops.
pub(crate) fn run(
    cx: Arc<Context>,
    peer: Arc<Connected>,
    channel_caller: Caller,
    requests: Streaming<v1::SessionRequest>,
    stopping: watch::Receiver<bool>,
) -> SessionStream {
    let (answers, received) = mpsc::channel(IN_FLIGHT_MAX);
    tokio::spawn(Session { cx, peer, channel_caller, answers }.serve(requests, stopping));
    Box::pin(Answers { received, next: Vec::new().into_iter() })
}

/// Answers that are ready together are sent together.
struct Answers {
    received: mpsc::Receiver<Vec<v1::SessionResponse>>,
    next: std::vec::IntoIter<v1::SessionResponse>,
}

impl Stream for Answers {
    type Item = Result<v1::SessionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(answer) = self.next.next() {
                return Poll::Ready(Some(Ok(answer)));
            }
            match ready!(self.received.poll_recv(task)) {
                Some(answers) => self.next = answers.into_iter(),
                None => return Poll::Ready(None),
            }
        }
    }
}

struct Session {
    cx: Arc<Context>,
    peer: Arc<Connected>,
    /// Who the channel itself speaks for: what a logout returns to.
    channel_caller: Caller,
    answers: mpsc::Sender<Vec<v1::SessionResponse>>,
}

impl Session {
    async fn serve(
        mut self,
        mut requests: Streaming<v1::SessionRequest>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut caller = Arc::new(self.channel_caller.clone());
        let (mut epoch, mut logins) = (self.cx.epoch(), self.cx.logins());
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        // What came together with others, but does not go with them.
        let mut kept_back = None;
        loop {
            let request = match kept_back.take() {
                Some(request) => Ok(Some(request)),
                None => tokio::select! {
                    request = requests.message() => request,
                    _ = stopping.wait_for(|stop| *stop) => return,
                },
            };
            let Ok(Some(v1::SessionRequest { id, request })) = request else { return };
            if epoch != self.cx.epoch() {
                // Somebody's rights changed, so who this stream speaks for is found out anew.
                epoch = self.cx.epoch();
                let Ok(anew) = self.peer.caller(&self.cx) else { return };
                let as_before = anew.standing() == self.channel_caller.standing();
                // A login goes on if nothing has changed of whom it was let in by, and no PIN was set.
                let before = std::mem::replace(&mut logins, self.cx.logins());
                if !as_before || logins != before {
                    caller = Arc::new(anew.clone());
                }
                self.channel_caller = anew;
            }
            let answered = match request {
                Some(Asked::LoginToken(wire)) => {
                    // Everything before the login is answered before it takes effect.
                    let Ok(_all) = in_flight.acquire_many(ALL).await else { return };
                    let channel_caller = &self.channel_caller;
                    match pipeline::serve::<ops::LoginToken>(&self.cx, channel_caller, wire).await {
                        Ok(Login { caller: user, response }) => {
                            // Who lets the peer in no more lets in no user of its PIN either.
                            caller = Arc::new(user.let_in_by(channel_caller));
                            Answered::LoginToken(response)
                        }
                        Err(failure) => refused(&failure),
                    }
                }
                Some(Asked::LogoutToken(_)) => {
                    let Ok(_all) = in_flight.acquire_many(ALL).await else { return };
                    caller = Arc::new(self.channel_caller.clone());
                    Answered::LogoutToken(v1::LogoutTokenResponse {})
                }
                Some(asked) => {
                    let Ok(mut permit) = in_flight.clone().acquire_owned().await else { return };
                    let mut together = vec![(id, asked)];
                    while together.iter().all(|(_, asked)| is_use(asked))
                        && together.len() < GROUP_MAX
                        && epoch == self.cx.epoch()
                        && let Ok(another) = in_flight.clone().try_acquire_owned()
                        && let Some(Ok(Some(request))) = at_once(requests.message()).await
                    {
                        match request {
                            v1::SessionRequest { id, request: Some(asked) } if is_use(&asked) => {
                                together.push((id, asked));
                                permit.merge(another);
                            }
                            request => {
                                kept_back = Some(request);
                                break;
                            }
                        }
                    }
                    tokio::spawn(self.answering(caller.clone(), together, permit));
                    continue;
                }
                None => Answered::Error(unknown_request()),
            };
            if self.answers.send(vec![response(id, answered)]).await.is_err() {
                return;
            }
        }
    }

    /// Answers requests that came together.
    fn answering(
        &self,
        caller: Arc<Caller>,
        requests: Vec<(u64, Asked)>,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (store, answers) = (self.cx.store.clone(), self.answers.clone());
        let gathering = Arc::<Gathering>::default();
        let (ids, items): (Vec<_>, Vec<Item<Answered>>) = requests
            .into_iter()
            .map(|(id, asked)| -> (u64, Item<Answered>) {
                let (cx, caller, gathering) = (self.cx.clone(), caller.clone(), gathering.clone());
                let item = async move { answer(&cx, &caller, &gathering, asked).await };
                (id, Box::pin(item))
            })
            .unzip();
        async move {
            let mut group = Group::new(store, gathering, items, panicked);
            let mut made = Vec::new();
            loop {
                let ended = group.ended().await;
                if ended.is_empty() {
                    break;
                }
                let ended = ended.into_iter().map(|(place, answer)| response(ids[place], answer));
                made.extend(ended);
                // Sent as they come, as long as they are read. Whoever does not read waits for his answers,
                // and nobody waits for him: what is under way goes on and gives back what it holds.
                if let Ok(room) = answers.try_reserve() {
                    room.send(std::mem::take(&mut made));
                }
            }
            drop(group);
            if !made.is_empty() {
                // The receiver is gone only when the client is.
                let _ = answers.send(made).await;
            }
            // Given back only now, so that a client that does not read its answers cannot have more
            // than this many made.
            drop(permit);
        }
    }
}

/// What comes of `future` without waiting for anything.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|task| match future.as_mut().poll(task) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Whether it is one use of one key, so that it takes about as long as its neighbours.
const fn is_use(asked: &Asked) -> bool {
    matches!(
        asked,
        Asked::Decrypt(_)
            | Asked::Encrypt(_)
            | Asked::MacSign(_)
            | Asked::MacVerify(_)
            | Asked::Sign(_)
            | Asked::Verify(_)
    )
}

async fn answer(cx: &Arc<Context>, caller: &Caller, with: &Gathering, asked: Asked) -> Answered {
    use Answered as A;
    match asked {
        Asked::Decrypt(wire) => {
            one::<Using<ops::Decrypt>>(cx, caller, Some(with), wire, A::Decrypt).await
        }
        Asked::Encrypt(wire) => {
            one::<Using<ops::Encrypt>>(cx, caller, Some(with), wire, A::Encrypt).await
        }
        Asked::MacSign(wire) => {
            one::<Using<ops::MacSign>>(cx, caller, Some(with), wire, A::MacSign).await
        }
        Asked::MacVerify(wire) => {
            one::<Using<ops::MacVerify>>(cx, caller, Some(with), wire, A::MacVerify).await
        }
        Asked::Sign(wire) => one::<Using<ops::Sign>>(cx, caller, Some(with), wire, A::Sign).await,
        Asked::Verify(wire) => {
            one::<Using<ops::Verify>>(cx, caller, Some(with), wire, A::Verify).await
        }
        // In a place of their own: what keeps the largest of them would have to be moved about for
        // each of the others.
        rare => Box::pin(answer_rare(cx, caller, rare)).await,
    }
}

async fn one<O: Operation + 'static>(
    cx: &Arc<Context>,
    caller: &Caller,
    with: Option<&Gathering>,
    wire: O::Wire,
    wrap: fn(O::Reply) -> Answered,
) -> Answered
where
    O::Wire: 'static,
    O::Reply: 'static,
{
    match pipeline::serve_in_task::<O>(cx, caller, with, wire).await {
        Ok(reply) => wrap(reply),
        Err(failure) => refused(&failure),
    }
}

/// As [`one`], for what is no use: not gathered with others, since what it changes may have to wait for a use
/// that is. On the heap: a task would otherwise have room for the largest of all operations, and its stack
/// for all of them.
async fn apart<O: Operation + 'static>(
    cx: &Arc<Context>,
    caller: &Caller,
    wire: O::Wire,
    wrap: fn(O::Reply) -> Answered,
) -> Answered
where
    O::Wire: 'static,
    O::Reply: 'static,
{
    Box::pin(one::<O>(cx, caller, None, wire, wrap)).await
}

async fn answer_rare(cx: &Arc<Context>, caller: &Caller, asked: Asked) -> Answered {
    use Answered as A;
    match asked {
        Asked::CreateObjectKey(wire) => {
            apart::<ops::CreateObjectKey>(cx, caller, wire, A::CreateObjectKey).await
        }
        Asked::DestroyObject(wire) => {
            apart::<Writing<ops::DestroyObject>>(cx, caller, wire, A::DestroyObject).await
        }
        Asked::AgreeKey(wire) => {
            apart::<MakingOf<ops::AgreeKey>>(cx, caller, wire, A::AgreeKey).await
        }
        Asked::CopyKey(wire) => apart::<MakingOf<ops::CopyKey>>(cx, caller, wire, A::CopyKey).await,
        Asked::DecapsulateKey(wire) => {
            apart::<MakingOf<ops::DecapsulateKey>>(cx, caller, wire, A::DecapsulateKey).await
        }
        Asked::DeriveKey(wire) => {
            apart::<MakingOf<ops::DeriveKey>>(cx, caller, wire, A::DeriveKey).await
        }
        Asked::EncapsulateKey(wire) => {
            apart::<MakingOf<ops::EncapsulateKey>>(cx, caller, wire, A::EncapsulateKey).await
        }
        Asked::UnwrapKey(wire) => {
            apart::<MakingOf<ops::UnwrapKey>>(cx, caller, wire, A::UnwrapKey).await
        }
        Asked::Digest(wire) => apart::<ops::Digest>(cx, caller, wire, A::Digest).await,
        Asked::WrapKey(wire) => apart::<ops::WrapKey>(cx, caller, wire, A::WrapKey).await,
        Asked::FindObjects(wire) => {
            apart::<Reading<ops::FindObjects>>(cx, caller, wire, A::FindObjects).await
        }
        Asked::GenerateRandom(wire) => {
            apart::<ops::GenerateRandom>(cx, caller, wire, A::GenerateRandom).await
        }
        Asked::ListTokens(wire) => {
            apart::<Reading<ops::ListTokens>>(cx, caller, wire, A::ListTokens).await
        }
        Asked::UpdateObject(wire) => {
            apart::<Writing<ops::UpdateObject>>(cx, caller, wire, A::UpdateObject).await
        }
        // Handled in order by the stream itself.
        Asked::LoginToken(_) | Asked::LogoutToken(_) => {
            refused(&Failure::Bug("a login beside the stream"))
        }
        Asked::Decrypt(_)
        | Asked::Encrypt(_)
        | Asked::MacSign(_)
        | Asked::MacVerify(_)
        | Asked::Sign(_)
        | Asked::Verify(_) => refused(&Failure::Bug("a use as something rare")),
    }
}

fn refused(failure: &Failure) -> Answered {
    Answered::Error(failure.into())
}

fn panicked() -> Answered {
    refused(&Failure::Bug("an operation panicked"))
}

const fn response(id: u64, answered: Answered) -> v1::SessionResponse {
    v1::SessionResponse { id, response: Some(answered) }
}

/// Most operations of one stream in flight.
const IN_FLIGHT_MAX: usize = 64;
const ALL: u32 = IN_FLIGHT_MAX as u32;
