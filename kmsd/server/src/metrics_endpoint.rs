//! OpenMetrics over plain HTTP on a loopback port of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::context::Context;

/// Serves `/metrics` until the task is dropped.
pub(crate) async fn serve(cx: Arc<Context>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let cx = cx.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let answer = service_fn(move |request| {
                let cx = cx.clone();
                async move { Ok::<_, Infallible>(answer(&cx, &request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // A scraper that hangs up is no event.
            let _ = tokio::time::timeout(Duration::from_secs(10), connection).await;
        });
    }
}

async fn answer(cx: &Context, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    if request.method() != Method::GET || request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    cx.metrics.sealed.set(f64::from(u8::from(cx.is_sealed())));
    let leaves = cx.store.log_size().await;
    cx.metrics.log_size.set(i64::try_from(leaves).unwrap_or(i64::MAX));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
    *response.body_mut() = Full::from(cx.metrics.text());
    response
}

const CONNECTIONS_MAX: usize = 16;
