//! One long stream of operations: what the PKCS#11 module speaks.
//!
//! Requests are answered in any order; the ids pair them. A login changes who the stream speaks
//! for, so it waits for what is in flight and everything after it waits for the login.

use std::pin::Pin;
use std::sync::Arc;

use kms_core::caller::Caller;
use kms_proto::v1;
use kms_proto::v1::session_request::Request as Asked;
use kms_proto::v1::session_response::Response as Answered;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::context::Context;
use crate::failure::Failure;
use crate::identity::{self, Peer};
use crate::ops::{self, Login, MakingOf, Reading, Using, Writing};
use crate::pipeline::{self, Operation};
use crate::status::{Told, tell};

/// The answers of a stream.
pub(crate) type SessionStream =
    Pin<Box<dyn Stream<Item = Result<v1::SessionResponse, Status>> + Send>>;

/// Serves `requests` of `peer`, which is `channel_caller` now, until the stream ends or the daemon stops.
pub(crate) fn run(
    cx: Arc<Context>,
    peer: Peer,
    channel_caller: Caller,
    requests: Streaming<v1::SessionRequest>,
    stopping: watch::Receiver<bool>,
) -> SessionStream {
    let (answers, received) = mpsc::channel(IN_FLIGHT_MAX);
    tokio::spawn(Session { cx, peer, channel_caller, answers }.serve(requests, stopping));
    Box::pin(ReceiverStream::new(received))
}

struct Session {
    cx: Arc<Context>,
    peer: Peer,
    /// Who the channel itself speaks for: what a logout returns to.
    channel_caller: Caller,
    answers: mpsc::Sender<Result<v1::SessionResponse, Status>>,
}

impl Session {
    async fn serve(
        mut self,
        mut requests: Streaming<v1::SessionRequest>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut caller = Arc::new(self.channel_caller.clone());
        let mut epoch = self.cx.epoch();
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        loop {
            let request = tokio::select! {
                request = requests.message() => request,
                _ = stopping.wait_for(|stop| *stop) => return,
            };
            let Ok(Some(v1::SessionRequest { id, request })) = request else { return };
            if epoch != self.cx.epoch() {
                // Somebody's rights changed, so who this stream speaks for is found out anew; a
                // PIN has to be given again.
                epoch = self.cx.epoch();
                let Ok(anew) = identity::caller(&self.cx, &self.peer) else { return };
                self.channel_caller = anew;
                caller = Arc::new(self.channel_caller.clone());
            }
            let answered = match request {
                Some(Asked::LoginToken(wire)) => {
                    // Everything before the login is answered before it takes effect.
                    let Ok(_all) = in_flight.acquire_many(ALL).await else { return };
                    let channel_caller = &self.channel_caller;
                    match pipeline::serve::<ops::LoginToken>(&self.cx, channel_caller, wire).await {
                        Ok(Login { caller: user, response }) => {
                            caller = Arc::new(user);
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
                    let Ok(permit) = in_flight.clone().acquire_owned().await else { return };
                    let (cx, caller) = (self.cx.clone(), caller.clone());
                    let answers = self.answers.clone();
                    tokio::spawn(async move {
                        let answered = answer(&cx, &caller, asked).await;
                        // The receiver is gone only when the client is.
                        let _ = answers.send(Ok(response(id, answered))).await;
                        // Given back only now, so that a client that does not read its answers
                        // cannot have more than this many made.
                        drop(permit);
                    });
                    continue;
                }
                None => Answered::Error(unknown()),
            };
            if self.answers.send(Ok(response(id, answered))).await.is_err() {
                return;
            }
        }
    }
}

async fn answer(cx: &Arc<Context>, caller: &Caller, asked: Asked) -> Answered {
    async fn one<O: Operation + 'static>(
        cx: &Arc<Context>,
        caller: &Caller,
        wire: O::Wire,
        wrap: fn(O::Reply) -> Answered,
    ) -> Answered
    where
        O::Wire: 'static,
        O::Reply: 'static,
    {
        // On the heap: one task would otherwise have room for the largest of all operations, and its stack
        // for all of them.
        match Box::pin(pipeline::serve_in_task::<O>(cx, caller, wire)).await {
            Ok(reply) => wrap(reply),
            Err(failure) => refused(&failure),
        }
    }
    use Answered as A;
    match asked {
        Asked::CreateObjectKey(wire) => {
            one::<ops::CreateObjectKey>(cx, caller, wire, A::CreateObjectKey).await
        }
        Asked::Decrypt(wire) => one::<Using<ops::Decrypt>>(cx, caller, wire, A::Decrypt).await,
        Asked::DestroyObject(wire) => {
            one::<Writing<ops::DestroyObject>>(cx, caller, wire, A::DestroyObject).await
        }
        Asked::AgreeKey(wire) => {
            one::<MakingOf<ops::AgreeKey>>(cx, caller, wire, A::AgreeKey).await
        }
        Asked::CopyKey(wire) => one::<MakingOf<ops::CopyKey>>(cx, caller, wire, A::CopyKey).await,
        Asked::DecapsulateKey(wire) => {
            one::<MakingOf<ops::DecapsulateKey>>(cx, caller, wire, A::DecapsulateKey).await
        }
        Asked::DeriveKey(wire) => {
            one::<MakingOf<ops::DeriveKey>>(cx, caller, wire, A::DeriveKey).await
        }
        Asked::EncapsulateKey(wire) => {
            one::<MakingOf<ops::EncapsulateKey>>(cx, caller, wire, A::EncapsulateKey).await
        }
        Asked::UnwrapKey(wire) => {
            one::<MakingOf<ops::UnwrapKey>>(cx, caller, wire, A::UnwrapKey).await
        }
        Asked::Digest(wire) => one::<ops::Digest>(cx, caller, wire, A::Digest).await,
        Asked::WrapKey(wire) => one::<ops::WrapKey>(cx, caller, wire, A::WrapKey).await,
        Asked::Encrypt(wire) => one::<Using<ops::Encrypt>>(cx, caller, wire, A::Encrypt).await,
        Asked::FindObjects(wire) => {
            one::<Reading<ops::FindObjects>>(cx, caller, wire, A::FindObjects).await
        }
        Asked::GenerateRandom(wire) => {
            one::<ops::GenerateRandom>(cx, caller, wire, A::GenerateRandom).await
        }
        Asked::ListTokens(wire) => {
            one::<Reading<ops::ListTokens>>(cx, caller, wire, A::ListTokens).await
        }
        Asked::MacSign(wire) => one::<Using<ops::MacSign>>(cx, caller, wire, A::MacSign).await,
        Asked::MacVerify(wire) => {
            one::<Using<ops::MacVerify>>(cx, caller, wire, A::MacVerify).await
        }
        Asked::Sign(wire) => one::<Using<ops::Sign>>(cx, caller, wire, A::Sign).await,
        Asked::UpdateObject(wire) => {
            one::<Writing<ops::UpdateObject>>(cx, caller, wire, A::UpdateObject).await
        }
        Asked::Verify(wire) => one::<Using<ops::Verify>>(cx, caller, wire, A::Verify).await,
        // Handled in order by the stream itself.
        Asked::LoginToken(_) | Asked::LogoutToken(_) => {
            refused(&Failure::Bug("a login beside the stream"))
        }
    }
}

fn refused(failure: &Failure) -> Answered {
    let Told { code, reason, message, audit_index } = tell(failure);
    let (code, reason) = (code.into(), reason.to_owned());
    Answered::Error(v1::OperationError { code, reason, message, audit_index })
}

/// What is not known, since the client is newer.
pub(crate) fn unknown() -> v1::OperationError {
    v1::OperationError {
        code: tonic::Code::Unimplemented.into(),
        reason: "UNKNOWN_REQUEST".to_owned(),
        message: "the daemon does not know this request; is it older than the client?".to_owned(),
        audit_index: None,
    }
}

const fn response(id: u64, answered: Answered) -> v1::SessionResponse {
    v1::SessionResponse { id, response: Some(answered) }
}

/// Most operations of one stream in flight.
const IN_FLIGHT_MAX: usize = 64;
const ALL: u32 = 64;
