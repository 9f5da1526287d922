//! The gRPC services: one line per method, each of which runs one operation through the pipeline.

mod batch;
mod services;
mod session;
mod stream;

use std::sync::Arc;

use kms_core::caller::Caller;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::identity::Connected;
use crate::pipeline::{self, Operation};

pub(crate) use services::routes;

/// The answers of a stream of one operation.
pub(crate) type StreamAnswers = std::pin::Pin<
    Box<dyn tokio_stream::Stream<Item = Result<kms_proto::v1::StreamResponse, Status>> + Send>,
>;

/// All services of the daemon.
#[derive(Clone)]
pub(crate) struct Api {
    cx: Arc<Context>,
    stopping: watch::Receiver<bool>,
    /// Every stream of data has a receiver of it as long as its end is not on record.
    streams: watch::Sender<()>,
}

impl Api {
    /// Services over `cx` whose streams end when `stopping` says so.
    pub(crate) fn new(cx: Arc<Context>, stopping: watch::Receiver<bool>) -> Self {
        Self { cx, stopping, streams: watch::Sender::new(()) }
    }

    /// Waits until the end of every stream of data is on record.
    pub(crate) async fn streams_ended(&self) {
        self.streams.closed().await;
    }

    fn peer<T>(request: &Request<T>) -> Result<Arc<Connected>, Status> {
        let peer = request.extensions().get::<Arc<Connected>>().cloned();
        peer.ok_or_else(|| Status::internal("a connection without a peer"))
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        Ok(Self::peer(request)?.caller(&self.cx)?)
    }

    async fn serve<O: Operation + 'static>(
        &self,
        request: Request<O::Wire>,
    ) -> Result<Response<O::Reply>, Status>
    where
        O::Wire: 'static,
        O::Reply: 'static,
    {
        let caller = self.caller(&request)?;
        let reply = pipeline::serve::<O>(&self.cx, &caller, request.into_inner()).await?;
        Ok(Response::new(reply))
    }
}
